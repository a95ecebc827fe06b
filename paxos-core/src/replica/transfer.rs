//! The replica and its successor: a leader that makes way, and the voter that takes over.
//!
//! Owns no state of its own; the reign remembers for whom it makes way, the pacemaker for how long.
//! Invariants: while a leader makes way it assigns no slot (E7); a Transfer begins at most one
//! campaign, as that outbids its ballot (E9).
//! Source: protocol.md §10; Ongaro, "Consensus: Bridging Theory and Practice", §3.10, for leadership
//! that is handed over. No log has to be equal here first: phase 1 brings what is missing.

use super::Replica;
use crate::ballot::Ballot;
use crate::ids::{ReplicaId, Slot, Time};
use crate::message::{Connectivity, Transfer};
use crate::output::{Recipients, TransferError};
use crate::proposer::Proposer;

impl Replica {
    /// Makes way for another voter: this leader proposes nothing new until the other one leads, or
    /// until an election timeout has passed, when it goes on as before. What becomes of it is seen
    /// from [`Replica::transferring`] and [`Replica::leader`].
    ///
    /// # Errors
    ///
    /// If this replica does not lead, or that one could not lead soon.
    pub fn transfer(&mut self, to: ReplicaId, now: Time) -> Result<(), TransferError> {
        self.advance_time(now);
        if self.halted {
            return Err(TransferError::Halted);
        }
        let Proposer::Leading(reign) = &self.proposer else {
            return Err(TransferError::NotLeader { hint: self.leader().map(Ballot::leader) });
        };
        if let Some(to) = reign.heir() {
            return Err(TransferError::UnderWay { to });
        }
        self.may_inherit(to)?;
        self.make_way(to);
        self.settle();
        Ok(())
    }

    /// For whom this leader makes way.
    pub fn transferring(&self) -> Option<ReplicaId> {
        match &self.proposer {
            Proposer::Leading(reign) => reign.heir(),
            Proposer::Idle | Proposer::Preparing(_) => None,
        }
    }

    /// Whom this leader could make way for, the best first: those of higher priority before others,
    /// and of these the one that has committed most.
    pub fn heirs(&self) -> Vec<ReplicaId> {
        if !matches!(self.proposer, Proposer::Leading(_)) {
            return Vec::new();
        }
        let fit = self.pacemaker.heirs(self.now);
        let fit = fit.filter(|(_, id)| self.may_inherit(*id).is_ok());
        let mut fit: Vec<_> = fit.map(|(priority, id)| (priority, self.progress(id), id)).collect();
        fit.sort_by(|one, other| other.cmp(one));
        fit.into_iter().map(|(_, _, id)| id).collect()
    }

    /// Rule E8.
    fn may_inherit(&self, to: ReplicaId) -> Result<(), TransferError> {
        if to == self.outbox.replica() {
            return Err(TransferError::AlreadyLeads);
        }
        let here = self.roster.governing(self.learner.committed().next());
        if here.voter_index(to).is_none() {
            return Err(TransferError::NotAVoter(to));
        }
        if !self.pacemaker.is_fit(to, self.now) {
            return Err(TransferError::NotConnected(to));
        }
        let (own, theirs) = (self.learner.committed(), self.progress(to));
        let window = self.roster.window();
        if own.distance_from(theirs) > window {
            let wanted = Slot::new(own.number() - window);
            return Err(TransferError::Behind { committed: theirs, wanted });
        }
        Ok(())
    }

    /// How far a voter is at least: what it said of its prefix, or a slot that it accepted under this
    /// leader. Under load its last heartbeat is many slots old; and whoever votes in a slot lacks no more
    /// than twice the window before it (A6).
    fn progress(&self, peer: ReplicaId) -> Slot {
        let reported = self.catchup.reported(peer);
        let voted = self.pacemaker.voted(peer).filter(|(at, _)| self.is_leading_at(*at));
        voted.map_or(reported, |(_, slot)| slot.max(reported))
    }

    pub(super) fn make_way(&mut self, to: ReplicaId) {
        let Proposer::Leading(reign) = &mut self.proposer else {
            unreachable!("only a leader makes way");
        };
        reign.make_way(to);
        self.counters.transfers_begun += 1;
        self.pacemaker.arm_transfer(self.now);
    }

    /// Tells the heir as soon as nothing is in flight, or when half of the time is over.
    pub(super) fn tell_heir(&mut self) {
        let Proposer::Leading(reign) = &self.proposer else {
            return;
        };
        let Some(heir) = reign.untold_heir() else {
            return;
        };
        let committed = self.learner.committed();
        let settled = self.learner.slots_in_flight() == 0 && reign.has_adopted(committed);
        if settled || self.pacemaker.transfer_is_urgent(self.now) {
            self.hand_over(heir);
        }
    }

    /// From here on the heir may lead at any moment. Whatever this leader could answer without asking
    /// a quorum has ended before this leaves.
    fn hand_over(&mut self, heir: ReplicaId) {
        let Proposer::Leading(reign) = &mut self.proposer else {
            unreachable!("only a leader hands over");
        };
        reign.note_told();
        let (ballot, committed) = (reign.ballot(), self.learner.committed());
        self.pacemaker.release_lease();
        if self.roster.newest().lease().is_some() {
            // The heir's Prepare has to wait for nobody's grant.
            self.send_heartbeat();
        }
        let released = self.pacemaker.released();
        self.outbox.send(Recipients::One(heir), Transfer { ballot, committed, released });
    }

    /// What was said may be lost, and saying it twice does no harm.
    pub(super) fn repeat_transfer(&mut self) {
        if let Some(heir) = self.transferring()
            && matches!(&self.proposer, Proposer::Leading(reign) if reign.untold_heir().is_none())
        {
            self.hand_over(heir);
        }
    }

    /// The heir has not taken over in time. Rule E7.
    pub(super) fn on_transfer_due(&mut self) {
        if let Proposer::Leading(reign) = &mut self.proposer
            && reign.heir().is_some()
        {
            reign.lead_on();
            self.counters.transfers_given_up += 1;
        }
    }

    /// Whether this ballot is of the one that this leader makes way for, which ends its reign.
    pub(super) fn note_taken_over(&mut self, by: Ballot) -> bool {
        let done = self.transferring() == Some(by.leader());
        self.counters.transfers_done += u64::from(done);
        done
    }

    /// Rule E9.
    pub(super) fn on_transfer(&mut self, from: ReplicaId, transfer: Transfer) {
        let Transfer { ballot, committed, released } = transfer;
        if ballot.leader() != from {
            self.counters.dropped_absurd += 1;
            return;
        }
        let now = self.now;
        self.pacemaker.on_released(from, released);
        // Before the watermark, which is no heartbeat, is taken in.
        let leads = self.leader() == Some(ballot);
        self.pacemaker.see(Some(ballot));
        self.on_watermark(from, ballot, committed);
        if self.halted {
            return;
        }
        let able = self.may_campaign()
            && self.connectivity() == Connectivity::Quorum
            && !self.is_disk_stalled()
            && !self.withholds_from(self.outbox.replica())
            && !self.pacemaker.was_paused(now);
        if leads && able && matches!(self.proposer, Proposer::Idle) {
            self.counters.transfers_taken += 1;
            self.campaign(Some(ballot));
        } else {
            self.counters.transfers_ignored += 1;
        }
    }

    /// Rule E11: a leader makes way by itself for a voter that is preferred.
    pub(super) fn prefer(&mut self) {
        let now = self.now;
        if !matches!(&self.proposer, Proposer::Leading(reign) if reign.heir().is_none())
            || !self.pacemaker.may_yield(now)
        {
            return;
        }
        let own = self.pacemaker.priority();
        let preferred = self.pacemaker.heirs(now).filter(|(priority, _)| *priority > own);
        let preferred = preferred.filter(|(_, id)| self.may_inherit(*id).is_ok());
        if let Some((_, heir)) = preferred.max() {
            self.pacemaker.note_yield(now);
            self.make_way(heir);
        }
    }
}
