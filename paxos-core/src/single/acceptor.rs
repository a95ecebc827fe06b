//! An acceptor of one value: a promise and a vote.
//!
//! Owns [`Acceptor`]. Knows no time, no peers, no quorums. The rules are those of the log's acceptor
//! (`crate::acceptor::rule`): A1, A2 and A3.
//! Source: protocol.md §1 and §7.

use super::gate::Writer;
use super::{Accept, Accepted, Gated, Prepare, Promise, Reject, Write};
use crate::acceptor::{AcceptAnswer, PrepareAnswer, rule};
use crate::ballot::Ballot;
use crate::ids::ReplicaId;

/// What an acceptor must find again after a crash.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Remembered<V> {
    /// The highest ballot promised.
    pub promised: Option<Ballot>,
    /// The last vote.
    pub accepted: Option<(Ballot, V)>,
}

/// A promise and a vote, and the rules by which they change.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Acceptor<V> {
    writer: Writer,
    state: Remembered<V>,
}

/// What an acceptor has to say.
#[derive(Debug)]
pub enum Answer<M, V> {
    /// The write has to be durable, which opens the gate before the message.
    Written(Write<Remembered<V>>, Gated<M>),
    /// Asserts nothing about the disk, and may be sent at once.
    Refused(Reject),
}

impl<V: Clone + PartialEq> Acceptor<V> {
    /// An acceptor that never promised anything. Never for an id that was in use: it would forget.
    pub fn new(id: ReplicaId) -> Self {
        Self::recover(id, Remembered { promised: None, accepted: None })
    }

    /// An acceptor as its disk remembers it.
    pub fn recover(id: ReplicaId, mut state: Remembered<V>) -> Self {
        let voted = state.accepted.as_ref().map(|(ballot, _)| *ballot);
        state.promised = state.promised.max(voted);
        Self { writer: Writer::new(id), state }
    }

    /// What it remembers, durable or not.
    pub fn remembered(&self) -> &Remembered<V> {
        &self.state
    }

    /// Phase 1b. Rules A1 and A4.
    pub fn prepare(&mut self, prepare: Prepare) -> Answer<Promise<V>, V> {
        let ballot = prepare.ballot;
        match rule::prepare(&mut self.state.promised, ballot) {
            PrepareAnswer::Promised | PrepareAnswer::PromisedBefore => {
                let promise = Promise { ballot, accepted: self.state.accepted.clone() };
                let (write, gated) = self.writer.gate(self.state.clone(), promise);
                Answer::Written(write, gated)
            }
            PrepareAnswer::Rejected(promised) => {
                Answer::Refused(Reject { refused: ballot, promised })
            }
        }
    }

    /// Phase 2b. Rules A2 and A3.
    pub fn accept(&mut self, accept: Accept<V>) -> Answer<Accepted, V> {
        let Accept { ballot, value } = accept;
        let vote = self.state.accepted.as_ref().map(|(ballot, value)| (*ballot, value));
        match rule::accept(&mut self.state.promised, vote, ballot, &value) {
            AcceptAnswer::Accepted | AcceptAnswer::AcceptedBefore => {
                self.state.accepted = Some((ballot, value));
                let (write, gated) = self.writer.gate(self.state.clone(), Accepted { ballot });
                Answer::Written(write, gated)
            }
            AcceptAnswer::Rejected(promised) => {
                Answer::Refused(Reject { refused: ballot, promised })
            }
            AcceptAnswer::Conflict => Answer::Refused(Reject { refused: ballot, promised: ballot }),
        }
    }
}
