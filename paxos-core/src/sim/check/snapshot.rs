//! What the observer makes of snapshots: made, kept, restored and installed.

use super::{Check, Invariant};
use crate::ids::{LogClock, ReplicaId, Slot};
use crate::port::Recovered;
use crate::sim::disk::Harm;
use crate::snapshot::SnapshotMeta;
use crate::value::Value;

/// The slot of the newest snapshot that was given back.
pub(super) fn newest_of(recovered: &Recovered) -> Slot {
    recovered.snapshot.as_ref().map_or(Slot::ZERO, |meta| meta.slot)
}

impl Check {
    /// The state of a replica's machine, after the last slot that it was handed.
    pub fn state_of(&self, id: ReplicaId) -> u64 {
        self.replicas[usize::from(id.number()) - 1].state
    }

    /// The highest clock of a batch up to this slot.
    pub fn clock_through(&self, slot: Slot) -> LogClock {
        let clocks = self.slots.range(..=slot).filter_map(|(_, history)| match &history.chosen {
            Some(Value::Batch(batch)) => Some(batch.clock()),
            Some(Value::Noop | Value::Membership(_)) | None => None,
        });
        clocks.max().unwrap_or_default()
    }

    /// A replica's host makes a snapshot of what was applied.
    pub fn snapshot_made(&mut self, by: ReplicaId, meta: &SnapshotMeta) {
        let applied = self.replica(by).applied;
        self.require(meta.slot <= applied, Invariant::SnapshotFirst, || {
            format!("{by} makes a snapshot of {}, applied is {applied}", meta.slot)
        });
        let governs = self.governs_above(meta.slot);
        self.require(meta.governs == governs, Invariant::SnapshotFirst, || {
            format!("{by} says of {} that {:?} govern, not {governs:?}", meta.slot, meta.governs)
        });
        self.require_same_image(by, meta);
    }

    fn require_same_image(&mut self, by: ReplicaId, meta: &SnapshotMeta) {
        let known = self.images.entry(meta.slot).or_insert_with(|| meta.clone());
        let same = *known == *meta;
        self.require(same, Invariant::SnapshotFirst, || {
            format!("{by} has another image of {} than others", meta.slot)
        });
    }

    /// A snapshot is durable.
    pub fn snapshot_kept(&mut self, by: ReplicaId, meta: &SnapshotMeta) {
        self.require_prefix(by, meta.slot, "keeps a snapshot of");
        self.require_same_image(by, meta);
        let clock = self.clock_through(meta.slot);
        self.require(meta.clock == clock, Invariant::ClockMonotonic, || {
            format!("{by} keeps a snapshot of {} with another clock than {clock:?}", meta.slot)
        });
        let replica = self.replica(by);
        replica.snapshot = replica.snapshot.max(meta.slot);
    }

    /// Whether a replica that starts goes on from an older snapshot than the newest that it had.
    pub fn lacks_a_snapshot(&self, id: ReplicaId, recovered: &Recovered) -> bool {
        let found = newest_of(recovered);
        Slot::ZERO < found && found < self.replicas[usize::from(id.number()) - 1].snapshot
    }

    /// A replica that starts has the snapshots that it had, and all that it trimmed.
    pub(super) fn check_snapshot(&mut self, by: ReplicaId, recovered: &Recovered, applied: Slot) {
        let (found, kept) = (newest_of(recovered), self.replica(by).snapshot);
        // One that is damaged may give way to the one before it, where the log reaches back to that.
        let may_differ = self.replica(by).harms.contains(&Harm::Damage);
        self.require(found >= kept || may_differ, Invariant::RecoveryExact, || {
            format!("{by} kept a snapshot of {kept} and recovers {found}")
        });
        if let Some(meta) = &recovered.snapshot {
            self.require_prefix(by, found, "recovers a snapshot of");
            self.require_same_image(by, meta);
        }
        let (trimmed, held) = (recovered.trimmed, found.max(applied));
        self.require(trimmed <= held, Invariant::SnapshotFirst, || {
            format!("{by} has trimmed {trimmed} and recovers a state of {held}")
        });
    }

    /// A state machine that starts was restored from a snapshot.
    pub fn restored(&mut self, by: ReplicaId, slot: Slot, state: u64) {
        let common = self.state_at(slot);
        self.require(state == common, Invariant::EqualState, || {
            format!("{by} restores another state of {slot} than others had")
        });
    }

    /// A replica and its state machine jumped to a snapshot; `state` is what is in it, where that can
    /// be seen.
    pub fn installed(&mut self, by: ReplicaId, slot: Slot, state: Option<u64>) {
        self.require_prefix(by, slot, "installs a snapshot of");
        let common = self.state_at(slot);
        let replica = self.replica(by);
        let (applied, kept) = (replica.applied, replica.snapshot);
        (replica.applied, replica.state) = (slot, state.unwrap_or(common));
        self.require(slot > applied, Invariant::AppliedInOrder, || {
            format!("{by} goes from {applied} to a snapshot of {slot}")
        });
        self.require(slot <= kept, Invariant::SnapshotFirst, || {
            format!("{by} installs a snapshot of {slot}, durable is {kept}")
        });
        self.restored(by, slot, state.unwrap_or(common));
    }
}
