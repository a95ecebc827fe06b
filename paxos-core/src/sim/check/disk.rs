//! What the observer makes of writes, proofs, crashes and recoveries.

use super::damage::Held;
use super::snapshot::newest_of;
use super::{Check, Invariant, place_of};
use crate::ballot::Ballot;
use crate::durable::{Write, WriteBatch, WriteSequence};
use crate::ids::{ReplicaId, Slot};
use crate::port::Recovered;
use crate::sim::disk::Harm;
use crate::value::Value;

/// The promise that a write makes or implies.
fn promise_of(write: &Write) -> Option<Ballot> {
    match write {
        Write::Promised(ballot) | Write::Accepted { ballot, .. } => Some(*ballot),
        Write::Chosen { .. }
        | Write::Committed(_)
        | Write::Governs { .. }
        | Write::Trimmed(_)
        | Write::Refused { .. }
        | Write::Peer { .. } => None,
    }
}

impl Check {
    /// A replica handed out a batch of writes.
    pub fn handed_out(&mut self, by: ReplicaId, batch: &WriteBatch) {
        for write in batch.writes() {
            self.check_write(by, write);
            let replica = self.replica(by);
            replica.promised = replica.promised.max(promise_of(write));
        }
        let entry = (batch.sequence(), batch.writes().to_vec());
        self.replica(by).pending.push_back(entry);
    }

    fn check_write(&mut self, by: ReplicaId, write: &Write) {
        let promised = self.replica(by).promised;
        match write {
            Write::Promised(ballot) => {
                let holds = Some(*ballot) >= promised;
                self.require(holds, Invariant::PromiseMonotonic, || {
                    format!("{by} promises {ballot} after {promised:?}")
                });
            }
            Write::Accepted { slot, ballot, value } => {
                let holds = Some(*ballot) >= promised;
                self.require(holds, Invariant::VoteAtPromise, || {
                    format!("{by} votes at {ballot} in {slot} after promising {promised:?}")
                });
                if ballot.leader() == by {
                    self.use_ballot(*ballot, by);
                }
                if self.note_proposal(*slot, *ballot, value) {
                    let own = ballot.leader() == by;
                    self.require(own, Invariant::Validity, || {
                        format!("{by} votes in {slot} for what {ballot} never proposed")
                    });
                    self.check_safe(*slot, *ballot, value);
                }
            }
            Write::Chosen { slot, value } => self.require_chosen(by, *slot, value),
            Write::Committed(slot) => self.require_prefix(by, *slot, "records"),
            Write::Trimmed(slot) => {
                let replica = self.replica(by);
                let (applied, snapshot) = (replica.applied, replica.snapshot);
                self.require(*slot <= applied, Invariant::AppliedInOrder, || {
                    format!("{by} trims {slot} but applied {applied}")
                });
                self.require(*slot <= snapshot, Invariant::SnapshotFirst, || {
                    format!("{by} trims {slot}, its newest snapshot is of {snapshot}")
                });
            }
            Write::Governs { from, membership } => self.check_governs(by, *from, membership),
            Write::Peer { .. } | Write::Refused { .. } => {}
        }
    }

    pub(super) fn require_chosen(&mut self, by: ReplicaId, slot: Slot, value: &Value) {
        let holds = self.chosen(slot) == Some(value);
        self.require(holds, Invariant::CommittedPrefix, || {
            format!("{by} takes a value for chosen in {slot} that is not")
        });
    }

    pub(super) fn require_prefix(&mut self, by: ReplicaId, slot: Slot, verb: &str) {
        let prefix = self.chosen_prefix;
        self.require(slot <= prefix, Invariant::CommittedPrefix, || {
            format!("{by} {verb} {slot} as committed, chosen is only the prefix to {prefix}")
        });
    }

    /// A replica's disk proved every batch up to this one.
    pub fn attested(&mut self, by: ReplicaId, through: WriteSequence) {
        while let Some((sequence, _)) = self.replica(by).pending.front() {
            if *sequence > through {
                break;
            }
            let Some((_, writes)) = self.replica(by).pending.pop_front() else {
                break;
            };
            for write in &writes {
                self.note_durable(by, write);
            }
        }
    }

    fn note_durable(&mut self, by: ReplicaId, write: &Write) {
        let replica = self.replica(by);
        replica.durable_promised = replica.durable_promised.max(promise_of(write));
        replica.held.note(write);
        match write {
            Write::Accepted { slot, ballot, value } => self.note_vote(by, *slot, *ballot, value),
            Write::Committed(slot) => {
                replica.durable_committed = replica.durable_committed.max(*slot);
            }
            Write::Promised(_)
            | Write::Chosen { .. }
            | Write::Governs { .. }
            | Write::Trimmed(_)
            | Write::Refused { .. }
            | Write::Peer { .. } => {}
        }
    }

    /// An operator took a replica's directory away: nothing of it can be expected back.
    pub fn wiped(&mut self, id: ReplicaId) {
        let replica = self.replica(id);
        replica.pending.clear();
        replica.promised = None;
        replica.promised_once = replica.promised_once.max(replica.durable_promised.take());
        replica.durable_committed = Slot::ZERO;
        replica.durable_vote = Slot::ZERO;
        replica.held = Held::default();
        replica.snapshot = Slot::ZERO;
        replica.life = None;
        replica.wiped = true;
    }

    /// A replica starts, from what its storage gave back, with the state after slot `applied`.
    pub fn recovered(
        &mut self,
        by: ReplicaId,
        recovered: &Recovered,
        applied: Slot,
        window_bytes_max: usize,
    ) {
        self.check_recovered(by, recovered);
        self.check_snapshot(by, recovered, applied);
        for vote in &recovered.votes {
            // What was written and not proved may have survived, and counts from here on.
            self.note_vote(by, vote.slot, vote.ballot, &vote.value);
        }
        let state = self.state_at(applied);
        self.require_prefix(by, recovered.committed, "recovers");
        let replica = self.replica(by);
        replica.pending.clear();
        replica.life = Some(recovered.incarnation);
        replica.promised = recovered.promised;
        replica.durable_promised = recovered.promised;
        replica.durable_committed = recovered.committed;
        let chosen = recovered.chosen.last().map_or(Slot::ZERO, |(slot, _)| *slot);
        let reach = recovered.committed.max(newest_of(recovered)).max(chosen);
        replica.durable_vote = replica.durable_vote.max(reach);
        replica.snapshot = newest_of(recovered);
        replica.committed = Slot::ZERO;
        replica.applied = applied;
        replica.reads.clear();
        replica.quorum_reads.clear();
        replica.state = state;
        replica.window_bytes_max = window_bytes_max;
        replica.held.begin(recovered);
        replica.harms.remove(&Harm::Amnesia);
        self.require_stable("a replica starts");
    }

    fn check_recovered(&mut self, by: ReplicaId, recovered: &Recovered) {
        let replica = self.replica(by);
        let (promised, written) = (replica.durable_promised, replica.promised);
        let (committed, life) = (replica.durable_committed, replica.life);
        let wiped = replica.wiped;
        let missing = replica.held.lost(recovered);
        self.require(missing.is_none(), Invariant::RecoveryExact, || {
            format!("{by} does not recover {}", missing.unwrap_or_default())
        });
        let holds = recovered.promised >= promised && recovered.promised <= written;
        self.require(holds, Invariant::PromiseMonotonic, || {
            let found = recovered.promised;
            format!("{by} recovers promise {found:?}, proved {promised:?}, written {written:?}")
        });
        let newer = life.is_none_or(|life| life.boot() < recovered.incarnation.boot());
        self.require(newer && recovered.committed >= committed, Invariant::RecoveryExact, || {
            format!("{by} recovers an older life or committed prefix")
        });
        let seat = place_of(by);
        let mut lost = None;
        let above = recovered.committed.max(recovered.trimmed).next();
        for (slot, history) in self.slots.range(above..) {
            let votes = history.votes.iter().filter(|v| v.voters.contains(seat));
            let highest = votes.map(|vote| vote.ballot).max();
            let found = recovered.votes.iter().find(|vote| vote.slot == *slot);
            if found.map(|vote| vote.ballot) < highest && !wiped {
                lost = Some(*slot);
            }
        }
        self.require(lost.is_none(), Invariant::RecoveryExact, || {
            format!("{by} lost a proved vote in {lost:?}")
        });
        for vote in &recovered.votes {
            let history = self.slots.get(&vote.slot);
            let known = history.is_some_and(|history| {
                let same = |(b, v): &(Ballot, Value)| *b == vote.ballot && *v == vote.value;
                history.proposed.iter().any(same)
            });
            let slot = vote.slot;
            self.require(known, Invariant::RecoveryExact, || {
                format!("{by} recovers a vote in {slot} that was never made")
            });
        }
    }
}
