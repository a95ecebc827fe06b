//! The replica and quorum reads: asking the voters how far the log may reach, and answering others.
//!
//! Owns no state of its own.
//! Source: protocol.md §12.

use std::sync::Arc;

use super::Replica;
use crate::ids::{Incarnation, ReplicaId, Slot, Time};
use crate::membership::Membership;
use crate::message::{Survey, Surveyed};
use crate::output::{ReadError, ReadTicket, Recipients};

impl Replica {
    /// Asks for a read point of a prepare quorum, whoever leads, at a replica of any role:
    /// [`crate::output::Output::QuorumReadsReady`] names one, or
    /// [`crate::output::Output::QuorumReadsLost`] says why there is none within twice
    /// [`crate::config::Config::quorum_read_timeout`]. A read point is the last slot that a state must
    /// have applied to include every write that anybody knew of when this was called.
    ///
    /// Reads that are asked before the outputs are drained share one round of two messages for each
    /// voter; those that are asked while it is under way share the next. The point may be a slot in
    /// which something was accepted and nothing is chosen: it is named when it is committed here, for
    /// which that slot needs a leader.
    ///
    /// Source: protocol.md §12 (R10 to R12); Charapko, Ailijiang, Demirbas, "Linearizable Quorum Reads
    /// in Paxos".
    pub fn read_quorum(&mut self, now: Time) -> Result<ReadTicket, ReadError> {
        self.advance_time(now);
        if self.halted {
            return Err(ReadError::Halted);
        }
        self.counters.quorum_reads_asked += 1;
        Ok(self.surveys.ask())
    }

    /// Answers what is settled, and begins a round for the rest if none is under way.
    pub(super) fn serve_quorum_reads(&mut self) {
        self.settle_quorum_reads();
        if self.surveys.wants_round() {
            self.begin_survey();
        }
    }

    fn settle_quorum_reads(&mut self) {
        let committed = self.learner.committed();
        if let Some((point, epoch)) = self.surveys.named()
            && point <= committed
        {
            if !self.roster.is_exact(committed) {
                // One that joins does not know whom it would have had to ask.
                return;
            }
            let governs = self.roster.governing(point.next());
            if !self.roster.is_exact(point) || governs.epoch() != epoch {
                // Others govern from there on, and may have accepted more.
                self.surveys.ask_again();
                return;
            }
        }
        if let Some((through, point)) = self.surveys.settle(self.learner.committed()) {
            self.outbox.quorum_reads_ready(through, point);
        }
    }

    fn begin_survey(&mut self) {
        let committed = self.learner.committed();
        let asked = self.roster.governing(committed.next()).clone();
        let round = self.surveys.begin(self.now, asked.epoch(), committed);
        self.counters.surveys += 1;
        if let Some(own) = asked.voter_index(self.outbox.replica()) {
            let highest = self.highest_known();
            self.surveys.answer(own, round, highest, asked.quorums());
            self.settle_quorum_reads();
        }
        self.repeat_survey();
        self.arm_survey();
    }

    /// Asks those voters that have not answered the open round.
    fn repeat_survey(&mut self) {
        let Some(round) = self.surveys.open_round() else {
            return;
        };
        let Some(asked) = self.surveyed().cloned() else {
            self.surveys.ask_again();
            return;
        };
        for (voter, member) in asked.voters().iter().enumerate() {
            if member.id != self.outbox.replica() && self.surveys.awaits(voter) {
                self.outbox.send(Recipients::One(member.id), Survey { round });
            }
        }
    }

    /// Whose voters the open round asks, if they are needed yet.
    fn surveyed(&self) -> Option<&Arc<Membership>> {
        self.surveys.open_epoch().and_then(|epoch| self.roster.find(epoch))
    }

    fn arm_survey(&mut self) {
        if let Some(due) = self.surveys.due(self.config.quorum_read_timeout) {
            self.pacemaker.arm_survey(due, self.now);
        }
    }

    /// Time to ask again, or to give up.
    pub(super) fn on_survey_due(&mut self) {
        let waiting = self.surveys.waiting();
        while let Some((through, reason)) =
            self.surveys.expire(self.config.quorum_read_timeout, self.now)
        {
            self.outbox.quorum_reads_lost(through, reason);
        }
        self.counters.quorum_reads_lost += waiting - self.surveys.waiting();
        if self.surveys.open_round().is_some() {
            self.repeat_survey();
        } else if self.surveys.is_busy() {
            // What was named may have been forgotten in a crash before it was durable.
            self.begin_survey();
        }
        self.arm_survey();
    }

    /// The highest slot that this replica has accepted in, durably or not, or knows to be chosen.
    fn highest_known(&self) -> Slot {
        let ahead = self.acceptor.last_vote().max(self.learner.last_ahead());
        ahead.unwrap_or(Slot::ZERO).max(self.learner.committed())
    }

    pub(super) fn on_survey(&mut self, from: ReplicaId, asker: Incarnation, survey: Survey) {
        if !self.is_voter() {
            self.counters.dropped_absurd += 1;
            return;
        }
        let (committed, highest) = (self.learner.committed(), self.highest_known());
        let answer = Surveyed { asker, round: survey.round, committed, highest };
        self.outbox.send(Recipients::One(from), answer);
    }

    pub(super) fn on_surveyed(&mut self, from: ReplicaId, surveyed: Surveyed) {
        let Surveyed { asker, round, committed, highest } = surveyed;
        if !self.roster.is_voter(from) {
            self.counters.dropped_absurd += 1;
            return;
        }
        let voters = self.surveyed().cloned();
        let voter = voters.as_ref().and_then(|asked| Some((asked.voter_index(from)?, asked)));
        // Another life numbered its rounds as this one does.
        let counts = asker == self.incarnation()
            && voter.is_some_and(|(voter, asked)| {
                self.surveys.answer(voter, round, highest, asked.quorums())
            });
        if !counts {
            self.counters.dropped_stale += 1;
            return;
        }
        self.settle_quorum_reads();
        self.note_committed(from, committed);
    }
}
