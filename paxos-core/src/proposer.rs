//! The proposer: a campaign for promises, then a reign (Paxos, phases 1a and 2a; Leader and
//! Followers).
//!
//! Owns: what is gathered from promises, the choice of values, and the next slot. Knows no clock
//! and sends nothing; the replica routes.
//! Invariants: a promise counts when its pages cover everything (P1); the value of the highest
//! ballot is adopted, holes become no-ops (P2); nothing is proposed at or below a reported prefix
//! (P3); new commands come above everything named (P4).
//! Source: protocol.md §8; Lamport, "Paxos Made Simple", §2.2 (P2c) and §3.

use std::collections::{BTreeMap, VecDeque};

use crate::ballot::Ballot;
use crate::durable::WriteSequence;
use crate::ids::{ReplicaId, Slot};
use crate::membership::Membership;
use crate::message::{Promise, SlotState};
use crate::quorum::{QuorumSystem, VoterSet};
use crate::value::Value;

/// What this replica does about leading.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Proposer {
    /// Nothing.
    Idle,
    /// It asks for promises.
    Preparing(Campaign),
    /// It has them.
    Leading(Reign),
}

impl Proposer {
    /// The same with its writes numbered from `proved` on, for comparing.
    #[must_use]
    pub(crate) fn since(&self, proved: WriteSequence) -> Self {
        let mut proposer = self.clone();
        if let Self::Preparing(campaign) = &mut proposer {
            campaign.written = campaign.written.since(proved);
        }
        proposer
    }

    /// The ballot of the campaign or reign.
    pub(crate) fn ballot(&self) -> Option<Ballot> {
        match self {
            Self::Idle => None,
            Self::Preparing(campaign) => Some(campaign.ballot),
            Self::Leading(reign) => Some(reign.ballot),
        }
    }
}

/// Promises gathered for one ballot.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Campaign {
    ballot: Ballot,
    /// The leader that makes way, if one does: its heartbeats do not make the campaign needless.
    after: Option<Ballot>,
    /// The first slot asked for: after the candidate's committed prefix.
    from: Slot,
    /// For each voter, the first slot that its pages do not cover yet.
    uncovered: Vec<Slot>,
    /// The voters whose pages cover everything.
    complete: VoterSet,
    /// The highest committed prefix that was reported, the candidate's own included.
    committed: Slot,
    /// The write of the candidate's own promise: before it is durable, nobody is asked.
    written: WriteSequence,
    /// How far above its committed prefix an acceptor may have voted (A6).
    reach: u64,
    best: BTreeMap<Slot, Best>,
    unknown: BTreeMap<Slot, VoterSet>,
}

/// The best that is known about a slot. The order of the variants is the order of preference.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
enum Best {
    Accepted(Ballot, Value),
    Chosen(Value),
}

/// What a page led to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Step {
    /// It was of no use: repeated, or not the page that is missing.
    Stale,
    /// The promiser has more pages, from this slot on.
    NextPage(Slot),
    /// The promiser is done; others are missing.
    Waiting,
    /// Enough promises.
    Won,
    /// It contradicts itself or what others said.
    Absurd,
}

impl Campaign {
    pub(crate) fn new(
        ballot: Ballot,
        after: Option<Ballot>,
        committed: Slot,
        membership: &Membership,
        written: WriteSequence,
    ) -> Self {
        let from = committed.next();
        let voters = membership.voters().len();
        Self {
            written,
            reach: 2 * u64::from(membership.window()),
            ballot,
            after,
            from,
            uncovered: vec![from; voters],
            complete: VoterSet::EMPTY,
            committed,
            best: BTreeMap::new(),
            unknown: BTreeMap::new(),
        }
    }

    pub(crate) fn ballot(&self) -> Ballot {
        self.ballot
    }

    /// Whether the leader of this ballot makes way for the campaign.
    pub(crate) fn succeeds(&self, leader: Ballot) -> bool {
        self.after.is_some_and(|after| leader <= after)
    }

    /// What to ask of a voter: the first slot not covered, unless it is done.
    pub(crate) fn missing(&self, voter: usize) -> Option<Slot> {
        (!self.complete.contains(voter)).then(|| self.uncovered[voter])
    }

    /// The write that has to be durable before anybody is asked.
    pub(crate) fn written(&self) -> WriteSequence {
        self.written
    }

    /// The first slot asked for.
    pub(crate) fn from(&self) -> Slot {
        self.from
    }

    /// Takes in one page of a voter's promise. Rules P1, P5 and Q2.
    pub(crate) fn on_promise(
        &mut self,
        voter: usize,
        promise: Promise,
        quorums: &QuorumSystem,
    ) -> Step {
        assert!(promise.ballot == self.ballot, "a promise counts for its own ballot");
        let uncovered = self.uncovered[voter];
        if self.complete.contains(voter) || promise.from > uncovered || promise.through < uncovered
        {
            return Step::Stale;
        }
        let reach = promise.committed.plus(self.reach);
        if promise.entries.last().is_some_and(|entry| entry.slot > reach) {
            return Step::Absurd;
        }
        self.committed = self.committed.max(promise.committed);
        for entry in promise.entries {
            if entry.slot < self.from {
                continue;
            }
            if !self.merge(voter, entry.slot, entry.state) {
                return Step::Absurd;
            }
        }
        if promise.through < Slot::MAX {
            self.uncovered[voter] = promise.through.next();
            return Step::NextPage(self.uncovered[voter]);
        }
        self.complete.insert(voter);
        if self.is_won(quorums) { Step::Won } else { Step::Waiting }
    }

    /// Keeps the better of two reports about a slot. Returns false if they contradict each other.
    fn merge(&mut self, voter: usize, slot: Slot, state: SlotState) -> bool {
        let new = match state {
            SlotState::Accepted(ballot, value) => Best::Accepted(ballot, value),
            SlotState::Chosen(value) => Best::Chosen(value),
            SlotState::Unknown(_) => {
                self.unknown.entry(slot).or_default().insert(voter);
                return true;
            }
        };
        let Some(old) = self.best.get(&slot) else {
            self.best.insert(slot, new);
            return true;
        };
        match (old, &new) {
            (Best::Chosen(old), Best::Chosen(new)) => old == new,
            (Best::Chosen(_), Best::Accepted(..)) => true,
            (Best::Accepted(old, _), Best::Accepted(new, _)) if old > new => true,
            (Best::Accepted(old, old_value), Best::Accepted(new, new_value)) if old == new => {
                old_value == new_value
            }
            (Best::Accepted(..), Best::Accepted(..) | Best::Chosen(_)) => {
                self.best.insert(slot, new);
                true
            }
        }
    }

    fn is_won(&self, quorums: &QuorumSystem) -> bool {
        quorums.is_prepare_quorum(self.complete)
            && self.unknown.iter().all(|(slot, lost)| {
                *slot <= self.committed
                    || matches!(self.best.get(slot), Some(Best::Chosen(_)))
                    || quorums.is_prepare_quorum(self.complete.without(*lost))
            })
    }

    /// What the new leader proposes before anything else. Rules P2, P3 and P4.
    pub(crate) fn into_reign(mut self) -> Reign {
        let last = self.best.last_key_value().map_or(self.committed, |(slot, _)| *slot);
        let last = last.max(self.unknown.last_key_value().map_or(Slot::ZERO, |(slot, _)| *slot));
        let mut adopt = VecDeque::new();
        let mut slot = self.committed.next();
        while slot <= last {
            adopt.push_back(match self.best.remove(&slot) {
                Some(Best::Chosen(value) | Best::Accepted(_, value)) => {
                    Adoption { slot, value, origin: AdoptedFrom::Promise }
                }
                None => Adoption { slot, value: Value::Noop, origin: AdoptedFrom::Gap },
            });
            slot = slot.next();
        }
        let reported = self.committed;
        let (ballot, heir) = (self.ballot, None);
        Reign { ballot, begin: slot, next: slot, adopt, reported, watched: None, heir }
    }
}

/// A value that a new leader has to propose.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Adoption {
    pub(crate) slot: Slot,
    pub(crate) value: Value,
    pub(crate) origin: AdoptedFrom,
}

/// Why a new leader proposes a value.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum AdoptedFrom {
    /// A promise named it.
    Promise,
    /// Nobody named the slot, and a later one is named.
    Gap,
}

/// The time in which this replica proposes.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Reign {
    ballot: Ballot,
    /// The first slot above everything that was named or reported.
    begin: Slot,
    next: Slot,
    adopt: VecDeque<Adoption>,
    /// The highest committed prefix that a promise reported: to be fetched, not proposed.
    reported: Slot,
    /// The committed prefix when the progress toward it was last looked at.
    watched: Option<Slot>,
    /// For whom this reign makes way.
    heir: Option<Heir>,
}

/// Somebody who is to lead next.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct Heir {
    replica: ReplicaId,
    /// It was told so.
    told: bool,
}

impl Reign {
    pub(crate) fn ballot(&self) -> Ballot {
        self.ballot
    }

    /// Begins to make way: no new slot is assigned (E7).
    pub(crate) fn make_way(&mut self, replica: ReplicaId) {
        self.heir = Some(Heir { replica, told: false });
    }

    /// The heir has not taken over: this reign goes on.
    pub(crate) fn lead_on(&mut self) {
        self.heir = None;
    }

    pub(crate) fn heir(&self) -> Option<ReplicaId> {
        self.heir.map(|heir| heir.replica)
    }

    /// The heir, if it was not told yet.
    pub(crate) fn untold_heir(&self) -> Option<ReplicaId> {
        self.heir.filter(|heir| !heir.told).map(|heir| heir.replica)
    }

    pub(crate) fn note_told(&mut self) {
        if let Some(heir) = &mut self.heir {
            heir.told = true;
        }
    }

    /// Whether everything that promises named is proposed.
    pub(crate) fn has_adopted(&self, committed: Slot) -> bool {
        self.adopt.is_empty() && !self.is_behind(committed)
    }

    /// The next adopted value that may be proposed: not committed meanwhile, within the window,
    /// and no longer than `bytes_max`.
    pub(crate) fn next_adoption(
        &mut self,
        committed: Slot,
        limit: Slot,
        bytes_max: usize,
    ) -> Option<Adoption> {
        while self.adopt.front().is_some_and(|adoption| adoption.slot <= committed) {
            self.adopt.pop_front();
        }
        let front = self.adopt.front()?;
        if front.slot > limit || front.value.encoded_len() > bytes_max {
            return None;
        }
        self.adopt.pop_front()
    }

    /// Whether something was chosen where this reign has proposed nothing: another leads.
    pub(crate) fn is_overtaken(&self, committed: Slot) -> bool {
        self.next <= committed
    }

    /// Whether the values that promises reported as committed are still missing.
    pub(crate) fn is_behind(&self, committed: Slot) -> bool {
        committed < self.reported
    }

    /// Whether everything that was named or reported is committed here. Rule R1.
    pub(crate) fn knows_the_past(&self, committed: Slot) -> bool {
        self.begin <= committed.next()
    }

    /// Looks at the progress toward the reported prefix; returns whether there is none.
    pub(crate) fn is_stuck(&mut self, committed: Slot) -> bool {
        self.is_behind(committed) && self.watched.replace(committed) == Some(committed)
    }

    /// A slot that waits to be adopted turned out to be chosen.
    pub(crate) fn settle(&mut self, slot: Slot) {
        self.adopt.retain(|adoption| adoption.slot != slot);
    }

    /// The slot for a new batch, if the reported prefix is here, everything adopted is proposed,
    /// and the window allows it. Rules V1, P4 and Q3.
    pub(crate) fn peek_next(&self, committed: Slot, limit: Slot) -> Option<Slot> {
        (self.has_adopted(committed) && self.next <= limit).then_some(self.next)
    }

    /// Takes the slot that [`Reign::peek_next`] named.
    pub(crate) fn take_next(&mut self) -> Slot {
        let slot = self.next;
        self.next = slot.next();
        slot
    }
}
