//! A register that changes: one value after another, without a log (`CASPaxos`).
//!
//! Owns [`Register`], the side that proposes; the acceptors are those of one value, unchanged. The
//! Synod proposes again what it finds; a register proposes a *change* of what it finds, under a new
//! ballot each time.
//!
//! Why it is safe. Let a proposal's parent be the proposal whose value it was given. If a value was
//! chosen at ballot `a`, every proposal at a ballot `b > a` descends from it: its prepare quorum meets
//! the accept quorum of `a`, so the highest vote named is of a ballot from `a` up to below `b`, and is
//! that proposal or, by induction, descends from it. So the chosen values are a chain, each made of
//! the one before by changes, and a change that its proposer saw chosen is in all that follow. That is
//! protocol.md §1 with "descends from" where one value has "is equal to".
//!
//! What that means for a caller. A change whose outcome is unknown may yet be found and built upon, so
//! a retry may apply it twice, unless it says what it expects: compare a version, then set. To read is
//! to change nothing, and takes a ballot and both phases like any change: what a promise names may be
//! overtaken, or never chosen. There is no history: each value replaces the one before.
//! Source: Rystsov, "`CASPaxos`: Replicated State Machines without logs"; protocol.md §1.

use super::proposer::Attempt;
use super::{Accept, Accepted, Gated, Prepare, Promise, Reject, Write};
use crate::ballot::Ballot;
use crate::ids::ReplicaId;
use crate::membership::Membership;

/// Changes a register, one change at a time.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Register<V>(Attempt<V>);

impl<V: Clone> Register<V> {
    /// A proposer of changes, with the last ballot that it wrote, if it ever did. `id` is its own: no
    /// other proposer of this register may have it.
    pub fn recover(id: ReplicaId, membership: Membership, last: Option<Ballot>) -> Self {
        Self(Attempt::new(id, membership, last))
    }

    /// Begins a change, above every ballot heard of, and gives up the one before: whether that was
    /// applied is not known.
    pub fn prepare(&mut self) -> (Write<Ballot>, Gated<Prepare>) {
        self.0.prepare()
    }

    /// Counts a promise. With the one that completes a prepare quorum, `change` is asked once what
    /// becomes of the present value, which is nothing at first, and the proposal comes back.
    ///
    /// A `change` that finds what it did not expect returns the value as it was, and remembers that
    /// it did; that answer too is good only when [`Register::on_accepted`] says so.
    pub fn on_promise(
        &mut self,
        from: ReplicaId,
        promise: Promise<V>,
        change: impl FnOnce(Option<V>) -> V,
    ) -> Option<Accept<V>> {
        self.0.on_promise(from, promise, change)
    }

    /// Counts a vote. With the one that completes an accept quorum comes the register's value as this
    /// change left it, and its caller may be answered.
    pub fn on_accepted(&mut self, from: ReplicaId, accepted: Accepted) -> Option<V> {
        self.0.on_accepted(from, accepted)
    }

    /// Heeds a higher ballot: the next attempt will be above it.
    pub fn on_reject(&mut self, reject: Reject) {
        self.0.on_reject(reject);
    }
}
