//! Which Accepts a leader sends again, and when the next page of them may follow.
//!
//! Owns: [`Repeats`]: what was in flight when the retransmission was last due, and for each voter the
//! end of the page that it was sent again. Sees no time and no values.
//! Invariants: what is sent again was in flight for a whole interval; a voter has one page of
//! repetitions on its way, and the next follows when it answers the end of that one, or with the
//! next interval.
//! Source: protocol.md §8 (reign).

use std::collections::BTreeMap;

use crate::ids::{ReplicaId, Slot};

/// How far repetitions have come.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Repeats {
    /// Slots up to this one were in flight when the retransmission was due for the last time but
    /// one: they may be sent again.
    old: Slot,
    /// Those up to this one were when it was last due.
    recent: Slot,
    /// For each voter, the last slot of the page that it was sent again and has not answered.
    pages: BTreeMap<ReplicaId, Slot>,
}

impl Repeats {
    pub(crate) fn new() -> Self {
        Self { old: Slot::ZERO, recent: Slot::ZERO, pages: BTreeMap::new() }
    }

    /// A reign begins; nothing is in flight beyond `committed`.
    pub(crate) fn begin(&mut self, committed: Slot) {
        (self.old, self.recent) = (committed, committed);
        self.pages.clear();
    }

    /// An interval is over, with slots in flight up to `last`.
    pub(crate) fn interval(&mut self, last: Slot) {
        self.old = core::mem::replace(&mut self.recent, last);
    }

    /// The last slot that may be sent again.
    pub(crate) fn through(&self) -> Slot {
        self.old
    }

    /// A voter was sent a page that ends here, or has nothing to be sent again.
    pub(crate) fn sent(&mut self, voter: ReplicaId, last: Option<Slot>) {
        match last {
            Some(last) => self.pages.insert(voter, last),
            None => self.pages.remove(&voter),
        };
    }

    /// Whether a voter has not answered the page that it was sent again.
    pub(crate) fn is_unanswered(&self, voter: ReplicaId) -> bool {
        self.pages.contains_key(&voter)
    }

    /// A voter accepted these slots. Returns whether the next page may follow.
    pub(crate) fn answered(&mut self, voter: ReplicaId, first: Slot, last: Slot) -> bool {
        let done = self.pages.get(&voter).is_some_and(|end| (first..=last).contains(end));
        if done {
            self.pages.remove(&voter);
        }
        done
    }
}
