//! The replica and snapshots: what may be trimmed, and a state that takes the place of a part of the log.
//!
//! Owns no state of its own. Knows what a snapshot is and no image: the host makes, fetches and keeps
//! images, and restores the state machine from them.
//! Invariants: nothing is trimmed that no durable snapshot includes (N1); an install moves the committed
//! prefix, what is applied and what is trimmed to one slot, at once (N4).
//! Source: protocol.md §14.

use super::Replica;
use crate::durable::Write;
use crate::ids::{LogClock, ReplicaId, Slot, Time};
use crate::output::{InstallError, RecoverError, TrimError};
use crate::proposer::Proposer;
use crate::roster::{Roster, Span};
use crate::snapshot::SnapshotMeta;
use crate::stored::Recovered;

/// How far a replica is that starts. Rule N3.
#[derive(Debug)]
pub(super) struct Reached {
    pub(super) committed: Slot,
    pub(super) applied: Slot,
    pub(super) trimmed: Slot,
    /// The slot of the newest snapshot.
    pub(super) snapshot: Slot,
    /// The highest slot of which the disk holds a vote or the value.
    pub(super) reach: Slot,
    pub(super) clock: LogClock,
    /// The log lacks slots that the snapshot includes, or may hold others' values there.
    pub(super) jumps: bool,
    /// Who governs, as far as log and snapshot tell.
    pub(super) roster: Roster,
    /// What the snapshot alone tells of that.
    pub(super) learned: Vec<Span>,
}

impl Reached {
    /// What storage remembers, and what the state machine's own durable state includes.
    pub(super) fn after(recovered: &Recovered, applied: Slot) -> Result<Self, RecoverError> {
        let (mut snapshot, mut clock) = (Slot::ZERO, recovered.clock);
        let mut roster = Roster::recovered(&recovered.format.membership, &recovered.governs);
        let mut learned = Vec::new();
        if let Some(meta) = &recovered.snapshot {
            (snapshot, clock) = (meta.slot, clock.max(meta.clock));
            if !roster.admits(meta) {
                return Err(RecoverError::SnapshotMembership { slot: snapshot });
            }
            learned = roster.install(&meta.governs);
        }
        let applied = applied.max(snapshot);
        let trimmed = recovered.trimmed;
        if applied < trimmed {
            return Err(RecoverError::AppliedBelowTrim { applied, trimmed });
        }
        let jumps = recovered.committed < snapshot;
        let voted = recovered.votes.last().map_or(Slot::ZERO, |vote| vote.slot);
        let chosen = recovered.chosen.last().map_or(Slot::ZERO, |(slot, _)| *slot);
        // What is applied was committed, whether or not that was recorded.
        let committed = recovered.committed.max(applied);
        roster.start_at(committed);
        roster.forget(snapshot);
        Ok(Self {
            committed,
            applied,
            trimmed: if jumps { trimmed.max(snapshot) } else { trimmed },
            snapshot,
            reach: recovered.committed.max(snapshot).max(voted).max(chosen),
            clock,
            jumps,
            roster,
            learned,
        })
    }
}

impl Replica {
    /// A snapshot is durable, whether this replica's host made or received it: the log may be trimmed up
    /// to its slot, as far as that is applied. Calls that come again, or late, change nothing.
    pub fn handle_snapshot(&mut self, meta: &SnapshotMeta) {
        if meta.group == self.outbox.origin().group {
            self.snapshot = self.snapshot.max(meta.slot);
            self.roster.forget(self.snapshot);
        }
    }

    /// Forgets every slot up to this one; one that is forgotten already changes nothing. Fails
    /// beyond what is applied, and beyond the newest durable snapshot: the one that was recovered,
    /// installed, or told with [`Replica::handle_snapshot`]. Rule N1.
    pub fn trim(&mut self, through: Slot) -> Result<(), TrimError> {
        let (applied, snapshot) = (self.log.applied(), self.snapshot);
        if through > applied || through > snapshot {
            return Err(TrimError { applied, snapshot });
        }
        if through > self.log.trimmed() && !self.halted {
            self.log.trim(through);
            self.record_committed();
            self.outbox.write(Write::Trimmed(through));
        }
        Ok(())
    }

    /// Whether [`Replica::install`] would take this snapshot: to be asked before one is fetched, and
    /// before the state machine is restored from it. Changes nothing.
    pub fn accepts_snapshot(&self, meta: &SnapshotMeta) -> Result<(), InstallError> {
        if self.halted {
            return Err(InstallError::Halted);
        }
        if meta.group != self.outbox.origin().group {
            return Err(InstallError::Foreign { group: meta.group });
        }
        if !self.roster.admits(meta) {
            return Err(InstallError::Membership);
        }
        let committed = self.learner.committed();
        if meta.slot <= committed {
            return Err(InstallError::Old { committed });
        }
        Ok(())
    }

    /// The state machine was restored from this snapshot, which is durable here: its slots take the
    /// place of the log up to there. What was handed out to be applied and was not is in the state;
    /// the slots after the snapshot's are handed out next.
    ///
    /// Fails, and changes nothing, if everything in it is committed here ([`InstallError::Old`]):
    /// what is applied goes on from the log, and never back. Whether the image is equal to the
    /// state that this replica had at that slot is not looked at here.
    pub fn install(&mut self, meta: &SnapshotMeta, now: Time) -> Result<(), InstallError> {
        self.advance_time(now);
        let accepted = self.accepts_snapshot(meta);
        if matches!(accepted, Ok(()) | Err(InstallError::Old { .. })) {
            self.handle_snapshot(meta);
        }
        accepted?;
        self.jump(meta);
        // What was accepted or learned above it may follow at once, also where no leader was heard.
        self.extend_committed();
        self.apply_watermark();
        if self.catchup.target() > self.learner.committed() {
            self.fetch();
        }
        self.settle();
        Ok(())
    }

    fn jump(&mut self, meta: &SnapshotMeta) {
        let through = meta.slot;
        // Rule N5: which of its proposals the snapshot includes, nobody can say here.
        if self.learner.tallies().next().is_some_and(|(slot, _)| slot <= through) {
            self.step_down();
        }
        self.learner.jump(through);
        self.acceptor.forget_through(through);
        self.log.jump(through);
        self.loads.forget_apply();
        self.outbox.drop_applies();
        self.catchup.settle();
        self.clock = self.clock.max(meta.clock);
        self.counters.snapshots_installed += 1;
        let learned = self.roster.install(&meta.governs);
        self.record_governs(learned);
        self.record_jump(through);
        self.follow_roster();
        if let Proposer::Leading(reign) = &self.proposer
            && reign.is_overtaken(through)
        {
            self.step_down();
        }
        self.ask_promises();
    }

    /// The log has no record of these memberships, of which a snapshot tells. Rule M7.
    pub(super) fn record_governs(&mut self, learned: Vec<Span>) {
        for Span { from, membership } in learned {
            self.outbox.write(Write::Governs { from, membership });
        }
    }

    /// The log lacks slots up to this one, which a snapshot includes. That they are gone is written
    /// before that they are committed: of a write that is torn, nothing may say that the log holds
    /// them. Rule N3.
    pub(super) fn record_jump(&mut self, through: Slot) {
        self.recorded = through;
        self.recording.push_back((self.outbox.open_batch(), through));
        self.outbox.write(Write::Trimmed(through));
        self.outbox.write(Write::Committed(through));
    }

    /// The connected peers (E1), and how far each said last that its committed prefix reaches: who
    /// would need what is trimmed.
    pub fn peer_prefixes(&self) -> impl Iterator<Item = (ReplicaId, Slot)> {
        let connected = self.pacemaker.connected_peers(self.now);
        connected.into_iter().map(|peer| (peer, self.catchup.reported(peer)))
    }
}
