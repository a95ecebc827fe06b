//! The proposer of one value.
//!
//! Owns [`Proposer`], and [`Attempt`], which it shares with the register: one ballot, from its
//! Prepare to the votes. Invariants: a ballot is durable before anybody hears of it, and above all
//! that this proposer used or heard of; a promise and a vote count for exactly this ballot, once for
//! each voter (Q2); one value is proposed at it (P6), picked when a prepare quorum has promised.
//! Source: protocol.md §1 and §8.

use super::gate::Writer;
use super::{Accept, Accepted, Gated, Prepare, Promise, Reject, Write};
use crate::ballot::Ballot;
use crate::ids::ReplicaId;
use crate::membership::Membership;
use crate::quorum::VoterSet;

/// Gets one value chosen: its own, or that of whoever may have succeeded before.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Proposer<V> {
    value: V,
    attempt: Attempt<V>,
}

impl<V: Clone> Proposer<V> {
    /// A proposer that never used a ballot, with the value that it would like. `id` is its own: no
    /// other proposer of this value may have it.
    pub fn new(id: ReplicaId, membership: Membership, value: V) -> Self {
        Self { value, attempt: Attempt::new(id, membership, None) }
    }

    /// A proposer that remembers the last ballot that it wrote.
    pub fn recover(id: ReplicaId, membership: Membership, value: V, last: Option<Ballot>) -> Self {
        Self { value, attempt: Attempt::new(id, membership, last) }
    }

    /// Begins a new attempt, above every ballot heard of, and gives up the one before.
    pub fn prepare(&mut self) -> (Write<Ballot>, Gated<Prepare>) {
        self.attempt.prepare()
    }

    /// Counts a promise. With the one that completes a prepare quorum comes the proposal, to be sent
    /// to all acceptors, again if need be. It waits for no disk.
    pub fn on_promise(&mut self, from: ReplicaId, promise: Promise<V>) -> Option<Accept<V>> {
        let own = &self.value;
        self.attempt.on_promise(from, promise, |adopted| adopted.unwrap_or_else(|| own.clone()))
    }

    /// Counts a vote. With the one that completes an accept quorum comes the value: it is chosen, and
    /// so it stays.
    pub fn on_accepted(&mut self, from: ReplicaId, accepted: Accepted) -> Option<V> {
        self.attempt.on_accepted(from, accepted)
    }

    /// Heeds a higher ballot: the next attempt will be above it. Only speed depends on this.
    pub fn on_reject(&mut self, reject: Reject) {
        self.attempt.on_reject(reject);
    }
}

/// One ballot at a time.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct Attempt<V> {
    writer: Writer,
    membership: Membership,
    /// The highest ballot used or heard of.
    seen: Option<Ballot>,
    /// The ballot of this attempt.
    own: Option<Ballot>,
    promised_by: VoterSet,
    /// The highest vote among those that were named.
    highest: Option<(Ballot, V)>,
    proposed: Option<V>,
    accepted_by: VoterSet,
}

impl<V: Clone> Attempt<V> {
    pub(super) fn new(id: ReplicaId, membership: Membership, last: Option<Ballot>) -> Self {
        Self {
            writer: Writer::new(id),
            membership,
            seen: last,
            own: None,
            promised_by: VoterSet::EMPTY,
            highest: None,
            proposed: None,
            accepted_by: VoterSet::EMPTY,
        }
    }

    pub(super) fn prepare(&mut self) -> (Write<Ballot>, Gated<Prepare>) {
        let ballot = Ballot::above(self.seen, self.writer.id);
        (self.seen, self.own) = (Some(ballot), Some(ballot));
        (self.promised_by, self.accepted_by) = (VoterSet::EMPTY, VoterSet::EMPTY);
        (self.highest, self.proposed) = (None, None);
        self.writer.gate(ballot, Prepare { ballot })
    }

    /// `pick` is asked once: what to propose, given the value of the highest ballot named.
    pub(super) fn on_promise(
        &mut self,
        from: ReplicaId,
        promise: Promise<V>,
        pick: impl FnOnce(Option<V>) -> V,
    ) -> Option<Accept<V>> {
        let voter = self.membership.voter_index(from)?;
        if self.own != Some(promise.ballot) || self.proposed.is_some() {
            return None;
        }
        self.promised_by.insert(voter);
        if let Some((ballot, value)) = promise.accepted
            && self.highest.as_ref().is_none_or(|(highest, _)| *highest < ballot)
        {
            self.highest = Some((ballot, value));
        }
        if !self.membership.quorums().is_prepare_quorum(self.promised_by) {
            return None;
        }
        let value = pick(self.highest.take().map(|(_, value)| value));
        self.proposed = Some(value.clone());
        Some(Accept { ballot: promise.ballot, value })
    }

    pub(super) fn on_accepted(&mut self, from: ReplicaId, accepted: Accepted) -> Option<V> {
        let voter = self.membership.voter_index(from)?;
        if self.own != Some(accepted.ballot) {
            return None;
        }
        let quorums = self.membership.quorums();
        let before = quorums.is_accept_quorum(self.accepted_by);
        self.accepted_by.insert(voter);
        let chosen = !before && quorums.is_accept_quorum(self.accepted_by);
        if chosen { self.proposed.clone() } else { None }
    }

    pub(super) fn on_reject(&mut self, reject: Reject) {
        self.seen = self.seen.max(Some(reject.promised));
    }
}
