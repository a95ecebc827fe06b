//! The acceptor: what this replica promised and voted for (Paxos, phases 1b and 2b).
//!
//! Owns: the promise, and the last vote in each slot above the committed prefix. Knows no clock,
//! no peers, no quorums; it returns effects and performs none.
//! Invariants: the promise never goes back (A1); no vote is below it (A2); at one ballot there is
//! one value per slot (A3).
//! Source: protocol.md §7; Lamport, "Paxos Made Simple", §2.2.

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

/// The answer to a Prepare.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum PrepareAnswer {
    /// Promised; the promise is new and has to be written.
    Promised,
    /// Promised before.
    PromisedBefore,
    /// This higher ballot is promised.
    Rejected(Ballot),
}

/// The answer to a proposal for one slot.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum AcceptAnswer {
    /// Accepted; the vote is new and has to be written.
    Accepted,
    /// Accepted before, at this ballot.
    AcceptedBefore,
    /// This higher ballot is promised.
    Rejected(Ballot),
    /// At this ballot another value was accepted in this slot: somebody broke P6.
    Conflict,
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
        match self.promised {
            Some(promised) if promised > ballot => PrepareAnswer::Rejected(promised),
            Some(promised) if promised == ballot => PrepareAnswer::PromisedBefore,
            Some(_) | None => {
                self.promised = Some(ballot);
                PrepareAnswer::Promised
            }
        }
    }

    /// Phase 2b. Rules A2 and A3. `written` is the write batch that a new vote goes into.
    pub(crate) fn accept(
        &mut self,
        ballot: Ballot,
        slot: Slot,
        value: &Value,
        written: WriteSequence,
    ) -> AcceptAnswer {
        if let Some(promised) = self.promised
            && promised > ballot
        {
            return AcceptAnswer::Rejected(promised);
        }
        self.promised = Some(ballot);
        match self.votes.get(slot) {
            Some(vote) if vote.ballot == ballot => {
                if vote.value == *value {
                    AcceptAnswer::AcceptedBefore
                } else {
                    AcceptAnswer::Conflict
                }
            }
            vote => {
                assert!(
                    vote.is_none_or(|vote| vote.ballot < ballot),
                    "a vote is never above the promise"
                );
                self.votes.insert(slot, Vote { ballot, value: value.clone(), written });
                AcceptAnswer::Accepted
            }
        }
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

    pub(crate) fn votes_held(&self) -> usize {
        self.votes.len()
    }
}
