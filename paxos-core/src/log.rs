//! The log's tail in memory, and how far it was applied (Replicated Log, Low-Water Mark).
//!
//! Owns: committed values that are still in memory, what was handed to the state machine, what it
//! has applied, what was trimmed. Sees no ballots: everything here is committed.
//! Invariants: trimmed <= applied <= handed <= the committed prefix; values are handed out in slot
//! order, each once (L5), and only when they are durable here (D6); the tail is contiguous and
//! bounded in bytes; where a snapshot replaces slots, all of these jump to its slot together.
//! Source: protocol.md §9 and §14.

use std::collections::VecDeque;

use crate::codec::VALUE_HEADER_LEN;
use crate::durable::WriteSequence;
use crate::ids::Slot;
use crate::learner::Chosen;
use crate::value::Value;

/// The bounds of what is handed out and not applied.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct ApplyWindow {
    pub(crate) slots_max: usize,
    pub(crate) bytes_max: usize,
}

/// Committed values.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Log {
    /// The slot of `tail[0]`.
    first: Slot,
    tail: VecDeque<Chosen>,
    /// What has left the tail before it was durable, in slot order: the last slot of a run, and what
    /// makes the run durable. No longer than the batches that wait for the disk.
    evicted: VecDeque<(Slot, WriteSequence)>,
    /// Slots up to this one have left the tail and can be read back.
    loadable: Slot,
    tail_bytes: usize,
    tail_bytes_max: usize,
    window: ApplyWindow,
    handed: Slot,
    /// The sizes of the values handed out and not applied.
    handed_sizes: VecDeque<usize>,
    handed_bytes: usize,
    applied: Slot,
    trimmed: Slot,
}

/// The next value for the state machine.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum NextApply {
    /// This one.
    Value(Slot, Value),
    /// It has left memory: the slots up to and including `through` have to be read back.
    Load { from: Slot, through: Slot },
    /// There is none, or the state machine has enough to do.
    Nothing,
}

impl Log {
    pub(crate) fn recovered(
        committed: Slot,
        applied: Slot,
        trimmed: Slot,
        tail_bytes_max: usize,
        window: ApplyWindow,
    ) -> Self {
        assert!(trimmed <= applied && applied <= committed, "what is applied is committed");
        Self {
            first: committed.next(),
            tail: VecDeque::new(),
            evicted: VecDeque::new(),
            loadable: committed,
            tail_bytes: 0,
            tail_bytes_max,
            window,
            handed: applied,
            handed_sizes: VecDeque::new(),
            handed_bytes: 0,
            applied,
            trimmed,
        }
    }

    /// The same with its writes numbered from `proved` on, for comparing.
    #[must_use]
    pub(crate) fn since(&self, proved: WriteSequence) -> Self {
        let mut log = self.clone();
        for chosen in &mut log.tail {
            chosen.written = chosen.written.since(proved);
        }
        for (_, written) in &mut log.evicted {
            *written = written.since(proved);
        }
        log
    }

    pub(crate) fn applied(&self) -> Slot {
        self.applied
    }

    /// The last slot that was handed out to be applied.
    pub(crate) fn handed(&self) -> Slot {
        self.handed
    }

    pub(crate) fn trimmed(&self) -> Slot {
        self.trimmed
    }

    /// The first slot that is still in memory, or the one after the committed prefix.
    pub(crate) fn first(&self) -> Slot {
        self.first
    }

    fn committed(&self) -> Slot {
        self.first.plus(self.tail.len() as u64).previous()
    }

    /// The next committed value.
    pub(crate) fn push(&mut self, slot: Slot, chosen: Chosen) {
        assert!(slot == self.committed().next(), "the committed prefix is contiguous");
        self.tail_bytes += chosen.value.encoded_len();
        self.tail.push_back(chosen);
        while self.tail_bytes > self.tail_bytes_max && self.tail.len() > 1 {
            self.pop_first();
        }
    }

    fn pop_first(&mut self) {
        if let Some(chosen) = self.tail.pop_front() {
            self.tail_bytes -= chosen.value.encoded_len();
            match self.evicted.back_mut() {
                Some((last, written)) if *written >= chosen.written => *last = self.first,
                Some(_) | None => self.evicted.push_back((self.first, chosen.written)),
            }
            self.first = self.first.next();
        }
    }

    pub(crate) fn get(&self, slot: Slot) -> Option<&Value> {
        self.find(slot).map(|chosen| &chosen.value)
    }

    fn find(&self, slot: Slot) -> Option<&Chosen> {
        if slot < self.first {
            return None;
        }
        self.tail.get(slot.distance_from(self.first) as usize)
    }

    /// Values in memory of consecutive slots, up to the bound but at least one.
    pub(crate) fn run(&self, from: Slot, through: Slot, bytes_max: usize) -> Vec<Value> {
        let mut values = Vec::new();
        let mut bytes = 0;
        let mut slot = from;
        while slot <= through
            && let Some(value) = self.get(slot)
        {
            bytes += VALUE_HEADER_LEN + value.encoded_len();
            if bytes > bytes_max && !values.is_empty() {
                break;
            }
            values.push(value.clone());
            slot = slot.next();
        }
        values
    }

    /// What the state machine is to get next, if it has room, of what is durable here. Rule D6.
    pub(crate) fn next_apply(&mut self, proved: WriteSequence) -> NextApply {
        while let Some((last, written)) = self.evicted.front()
            && *written <= proved
        {
            self.loadable = *last;
            self.evicted.pop_front();
        }
        let slot = self.handed.next();
        if slot > self.committed() || !self.has_room() {
            return NextApply::Nothing;
        }
        match self.find(slot) {
            Some(chosen) if chosen.written > proved => NextApply::Nothing,
            Some(chosen) => {
                let value = chosen.value.clone();
                self.hand(slot, &value);
                NextApply::Value(slot, value)
            }
            None if slot > self.loadable => NextApply::Nothing,
            None => NextApply::Load { from: slot, through: self.loadable },
        }
    }

    fn has_room(&self) -> bool {
        self.handed_sizes.len() < self.window.slots_max && self.handed_bytes < self.window.bytes_max
    }

    /// A value read back is handed out. Returns false if it is not the next one.
    pub(crate) fn hand(&mut self, slot: Slot, value: &Value) -> bool {
        if slot != self.handed.next() {
            return false;
        }
        self.handed = slot;
        self.handed_sizes.push_back(value.encoded_len());
        self.handed_bytes += value.encoded_len();
        true
    }

    /// The state machine has applied every slot up to this one.
    pub(crate) fn on_applied(&mut self, through: Slot) {
        assert!(through <= self.handed, "only what was handed out can be applied");
        while self.applied < through {
            self.applied = self.applied.next();
            self.handed_bytes -=
                self.handed_sizes.pop_front().expect("each slot handed out has a size");
        }
    }

    /// Forgets the slots up to this one.
    pub(crate) fn trim(&mut self, through: Slot) {
        assert!(through <= self.applied, "only what is applied can be trimmed");
        self.trimmed = self.trimmed.max(through);
        while self.first <= self.trimmed && !self.tail.is_empty() {
            self.pop_first();
        }
    }

    /// The state machine includes every slot up to this one by a snapshot: nothing of them is left here.
    pub(crate) fn jump(&mut self, through: Slot) {
        assert!(through > self.committed(), "a snapshot replaces nothing that is committed here");
        self.first = through.next();
        self.tail.clear();
        self.evicted.clear();
        self.loadable = through;
        self.tail_bytes = 0;
        self.handed = through;
        self.handed_sizes.clear();
        self.handed_bytes = 0;
        self.applied = through;
        self.trimmed = through;
    }

    /// Values handed out and not applied.
    pub(crate) fn being_applied(&self) -> usize {
        self.handed_sizes.len()
    }
}
