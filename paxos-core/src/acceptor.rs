//! The acceptor: what this replica promised and voted for (Paxos, phases 1b and 2b).
//!
//! Owns: the promise, and the last vote in each slot above the committed prefix; what they permit
//! stands in `rule`. Knows no clock, no peers, no quorums; it returns effects and performs none.
//! Invariants: the promise never goes back (A1); no vote is below it (A2); at one ballot there is
//! one value per slot (A3).
//! Source: protocol.md §7; Lamport, "Paxos Made Simple", §2.2.

pub(crate) mod rule;

pub(crate) use rule::{AcceptAnswer, PrepareAnswer};

use crate::ballot::Ballot;
use crate::durable::WriteSequence;
use crate::ids::Slot;
use crate::ring::SlotRing;
use crate::value::Value;

/// A vote: this value was accepted at this ballot.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Vote {
    pub(crate) ballot: Ballot,
    pub(crate) value: Value,
    /// The write batch that makes it durable.
    pub(crate) written: WriteSequence,
}

/// What an acceptor remembers.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Acceptor {
    promised: Option<Ballot>,
    votes: SlotRing<Vote>,
}

impl Acceptor {
    /// What storage remembers.
    pub(crate) fn recovered(
        promised: Option<Ballot>,
        votes: impl Iterator<Item = (Slot, Vote)>,
    ) -> Self {
        let mut ring = SlotRing::new();
        for (slot, vote) in votes {
            assert!(Some(vote.ballot) <= promised, "a recovered vote implies its promise");
            ring.insert(slot, vote);
        }
        Self { promised, votes: ring }
    }

    pub(crate) fn promised(&self) -> Option<Ballot> {
        self.promised
    }

    /// Phase 1b. Rule A1.
    pub(crate) fn prepare(&mut self, ballot: Ballot) -> PrepareAnswer {
        rule::prepare(&mut self.promised, ballot)
    }

    /// Phase 2b. Rules A2 and A3. `written` is the write batch that a new vote goes into.
    pub(crate) fn accept(
        &mut self,
        ballot: Ballot,
        slot: Slot,
        value: &Value,
        written: WriteSequence,
    ) -> AcceptAnswer {
        let vote = self.votes.get(slot).map(|vote| (vote.ballot, &vote.value));
        let answer = rule::accept(&mut self.promised, vote, ballot, value);
        if answer == AcceptAnswer::Accepted {
            self.votes.insert(slot, Vote { ballot, value: value.clone(), written });
        }
        answer
    }

    pub(crate) fn vote(&self, slot: Slot) -> Option<&Vote> {
        self.votes.get(slot)
    }

    /// The votes at or above `from`, in rising order of slots.
    pub(crate) fn votes_from(&self, from: Slot) -> impl Iterator<Item = (Slot, &Vote)> {
        self.votes.iter_from(from)
    }

    /// The slots up to this one are committed: their votes need no memory, as the committed prefix
    /// is named in every promise (A4) and no vote is cast in it (A5).
    pub(crate) fn forget_through(&mut self, committed: Slot) {
        self.votes.drop_through(committed);
    }

    /// The same with its writes numbered from `proved` on, for comparing.
    #[must_use]
    pub(crate) fn since(&self, proved: WriteSequence) -> Self {
        let mut acceptor = self.clone();
        for vote in acceptor.votes.values_mut() {
            vote.written = vote.written.since(proved);
        }
        acceptor
    }

    /// The highest slot with a vote.
    pub(crate) fn last_vote(&self) -> Option<Slot> {
        self.votes.last()
    }

    pub(crate) fn votes_held(&self) -> usize {
        self.votes.len()
    }
}
