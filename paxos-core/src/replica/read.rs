//! The replica and reads: asking the voters whether this reign still stands, and answering others;
//! what its lease allows without asking.
//!
//! Owns no state of its own.
//! Source: protocol.md §12.

use super::Replica;
use crate::ballot::Ballot;
use crate::ids::{ReplicaId, Slot};
use crate::message::{Confirm, Confirmed, Reject};
use crate::output::Recipients;
use crate::proposer::Proposer;
use crate::read::Confirmation;

impl Replica {
    /// Serves the reads that wait by the lease, or begins a round for them, if none is open. Rules R1,
    /// R2 and R7.
    pub(super) fn serve_reads(&mut self) {
        let Proposer::Leading(reign) = &self.proposer else {
            return;
        };
        let (ballot, committed) = (reign.ballot(), self.learner.committed());
        if !self.pacemaker.wants_renewal(self.now) && self.reads.waiting() == 0 {
            return;
        }
        if !reign.knows_the_past(&self.roster, committed) {
            return;
        }
        // A round would be granted another lease, which the heir would have to sit out.
        let handed_over = reign.heir().is_some() && reign.untold_heir().is_none();
        if handed_over && self.roster.newest().lease().is_some() {
            return;
        }
        if self.pacemaker.lease_until().is_some_and(|until| self.now < until) {
            self.counters.lease_reads += self.reads.waiting();
            if let Some(through) = self.reads.serve() {
                self.outbox.reads_ready(through, committed);
            }
        }
        let renewal = self.reads.is_idle() && self.pacemaker.wants_renewal(self.now);
        if renewal || self.reads.wants_round() {
            self.begin_round(ballot, committed);
        }
    }

    fn begin_round(&mut self, ballot: Ballot, committed: Slot) {
        let asked = self.roster.governing(committed.next()).clone();
        let round = self.reads.begin(committed, asked);
        self.pacemaker.on_round_asked(round, self.now);
        self.counters.read_rounds += 1;
        self.count_confirmation(self.outbox.replica(), round);
        if self.reads.open_round() == Some(round) {
            self.outbox.send(Recipients::AllPeers, Confirm { ballot, round });
        }
    }

    /// Whether a grant forbids this replica to promise this candidate anything new. Rules R6 and R9.
    pub(super) fn withholds_from(&self, candidate: ReplicaId) -> bool {
        self.pacemaker.withholds_from(candidate, self.now)
    }

    /// Rules R3 and R6.
    pub(super) fn on_confirm(&mut self, from: ReplicaId, confirm: Confirm) {
        let Confirm { ballot, round } = confirm;
        if ballot.leader() != from {
            self.counters.dropped_absurd += 1;
            return;
        }
        self.pacemaker.see(Some(ballot));
        match self.acceptor.promised() {
            Some(promised) if promised > ballot => {
                self.outbox.send(Recipients::One(from), Reject { refused: ballot, promised });
            }
            Some(_) | None if !self.pacemaker.grant_lease(ballot, round, self.now) => {
                self.counters.dropped_stale += 1;
            }
            Some(_) | None => {
                self.outbox.send(Recipients::One(from), Confirmed { ballot, round });
            }
        }
    }

    pub(super) fn on_confirmed(&mut self, from: ReplicaId, confirmed: Confirmed) {
        let Confirmed { ballot, round } = confirmed;
        if self.is_leading_at(ballot) {
            self.count_confirmation(from, round);
        } else {
            self.counters.dropped_stale += 1;
        }
    }

    fn count_confirmation(&mut self, voter: ReplicaId, round: u64) {
        match self.reads.confirm(voter, round) {
            Confirmation::Stale => self.counters.dropped_stale += 1,
            Confirmation::Counted => {}
            Confirmation::Stands { serves, point } => {
                self.pacemaker.on_round_confirmed(round);
                if let Some(through) = serves {
                    self.outbox.reads_ready(through, point);
                }
            }
        }
    }

    /// Asks again those voters that have not confirmed the open round.
    pub(super) fn repeat_confirm(&mut self, ballot: Ballot) {
        let Some(round) = self.reads.open_round() else {
            return;
        };
        for voter in self.reads.awaits() {
            if voter != self.outbox.replica() {
                self.outbox.send(Recipients::One(voter), Confirm { ballot, round });
            }
        }
    }
}
