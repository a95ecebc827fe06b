//! What promises said, and by whom a slot may be proposed in (Paxos, phase 1).
//!
//! Owns: [`Promises`]: for one ballot, whose pages cover everything, the best report of each slot, the
//! highest reported prefix. Counts nobody: who is a quorum is asked slot by slot.
//! Invariants: a promise counts when its pages cover everything (P1); a promiser that calls a slot
//! Unknown does not count there (P5); what was named is heeded whoever named it (P2).
//! Source: protocol.md §8 and §4 (M2).

use std::collections::{BTreeMap, BTreeSet};

use super::{AdoptedFrom, Adoption};
use crate::ballot::Ballot;
use crate::ids::{ReplicaId, Slot};
use crate::membership::Membership;
use crate::message::{Promise, SlotState};
use crate::value::Value;

/// What a page led to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Page {
    /// It was of no use: repeated, or not the page that is missing.
    Stale,
    /// The promiser has more pages, from this slot on.
    Next(Slot),
    /// The promiser is done.
    Last,
    /// It contradicts itself or what others said.
    Absurd,
}

/// The best that is known about a slot. The order of the variants is the order of preference.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
enum Best {
    Accepted(Ballot, Value),
    Chosen(Value),
}

/// Promises gathered for one ballot.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Promises {
    ballot: Ballot,
    /// How far above its committed prefix an acceptor may have voted (A6).
    reach: u64,
    /// For each replica that answered, the first slot that its pages do not cover yet.
    uncovered: BTreeMap<ReplicaId, Slot>,
    /// The replicas whose pages cover everything.
    complete: BTreeSet<ReplicaId>,
    /// The highest committed prefix that was reported, this replica's own included.
    reported: Slot,
    /// The highest slot that was named.
    named: Slot,
    best: BTreeMap<Slot, Best>,
    unknown: BTreeMap<Slot, BTreeSet<ReplicaId>>,
}

impl Promises {
    pub(super) fn new(ballot: Ballot, committed: Slot, window: u64) -> Self {
        Self {
            ballot,
            reach: 2 * window,
            uncovered: BTreeMap::new(),
            complete: BTreeSet::new(),
            reported: committed,
            named: Slot::ZERO,
            best: BTreeMap::new(),
            unknown: BTreeMap::new(),
        }
    }

    pub(crate) fn ballot(&self) -> Ballot {
        self.ballot
    }

    /// The highest committed prefix that was reported.
    pub(super) fn reported(&self) -> Slot {
        self.reported
    }

    /// The highest slot that was named.
    pub(super) fn named(&self) -> Slot {
        self.named
    }

    /// What to ask of a replica that is first asked for the slots from `from` on: the first one not
    /// covered, unless it is done.
    pub(crate) fn missing(&self, replica: ReplicaId, from: Slot) -> Option<Slot> {
        let uncovered = || self.uncovered.get(&replica).copied().unwrap_or(from);
        (!self.complete.contains(&replica)).then(uncovered)
    }

    /// Takes in one page of the promise of a replica that is first asked for the slots from `from` on.
    /// What it says of slots below that is not needed. Rules P1, P5 and Q2.
    pub(super) fn on_page(&mut self, replica: ReplicaId, from: Slot, promise: Promise) -> Page {
        assert!(promise.ballot == self.ballot, "a promise counts for its own ballot");
        let Some(uncovered) = self.missing(replica, from) else {
            return Page::Stale;
        };
        if promise.from > uncovered || promise.through < uncovered {
            return Page::Stale;
        }
        let reach = promise.committed.plus(self.reach);
        if promise.entries.last().is_some_and(|entry| entry.slot > reach) {
            return Page::Absurd;
        }
        self.reported = self.reported.max(promise.committed);
        for entry in promise.entries {
            if entry.slot < from {
                continue;
            }
            if !self.merge(replica, entry.slot, entry.state) {
                return Page::Absurd;
            }
        }
        if promise.through < Slot::MAX {
            let next = promise.through.next();
            self.uncovered.insert(replica, next);
            return Page::Next(next);
        }
        self.uncovered.remove(&replica);
        self.complete.insert(replica);
        Page::Last
    }

    /// Keeps the better of two reports about a slot. Returns false if they contradict each other.
    fn merge(&mut self, replica: ReplicaId, slot: Slot, state: SlotState) -> bool {
        self.named = self.named.max(slot);
        let new = match state {
            SlotState::Accepted(ballot, value) => Best::Accepted(ballot, value),
            SlotState::Chosen(value) => Best::Chosen(value),
            SlotState::Unknown(_) => {
                self.unknown.entry(slot).or_default().insert(replica);
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

    /// Whether a prepare quorum of this membership has promised.
    pub(crate) fn is_quorum_of(&self, membership: &Membership) -> bool {
        let promised = membership.voters_where(|id| self.complete.contains(&id));
        membership.quorums().is_prepare_quorum(promised)
    }

    /// Whether the promises tell what to propose in a slot that this membership governs. Rule P5.
    pub(super) fn cover(&self, slot: Slot, membership: &Membership) -> bool {
        let lost = self.unknown.get(&slot);
        let known = membership.voters_where(|id| {
            self.complete.contains(&id) && lost.is_none_or(|lost| !lost.contains(&id))
        });
        membership.quorums().is_prepare_quorum(known)
            || lost.is_some()
                && matches!(self.best.get(&slot), Some(Best::Chosen(_)))
                && self.is_quorum_of(membership)
    }

    /// The slots of which somebody lost what it may have accepted.
    pub(super) fn doubtful(&self) -> impl Iterator<Item = Slot> {
        self.unknown.keys().copied()
    }

    /// What is to be proposed in this slot. Rule P2.
    pub(super) fn adoption(&self, slot: Slot) -> Adoption {
        match self.best.get(&slot) {
            Some(Best::Chosen(value) | Best::Accepted(_, value)) => {
                Adoption { slot, value: value.clone(), origin: AdoptedFrom::Promise }
            }
            None => Adoption { slot, value: Value::Noop, origin: AdoptedFrom::Gap },
        }
    }

    /// What was said of the slots below this one is needed no more.
    pub(super) fn forget_below(&mut self, slot: Slot) {
        while self.best.first_entry().is_some_and(|entry| *entry.key() < slot) {
            self.best.pop_first();
        }
        while self.unknown.first_entry().is_some_and(|entry| *entry.key() < slot) {
            self.unknown.pop_first();
        }
    }
}
