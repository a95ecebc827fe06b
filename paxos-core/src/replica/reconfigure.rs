//! The replica as a leader that changes the membership.
//!
//! Owns no state of its own.
//! Invariants: one change at a time (M4); nothing is proposed under a membership whose voters have not
//! promised, the sitting leader's own ballot included (M2).
//! Source: protocol.md §4; Lamport, Malkhi, Zhou, "Reconfiguring a State Machine".

use std::sync::Arc;

use super::Replica;
use crate::ballot::Ballot;
use crate::ids::{ReplicaId, Slot, Time};
use crate::membership::{Change, Joining, Membership};
use crate::message::{Prepare, Promise, SlotState};
use crate::output::{Proposed, Recipients, ReconfigureError};
use crate::proposer::{Page, Proposer, Step};
use crate::value::Value;

impl Replica {
    /// Changes the membership: who votes, who observes, where they are, by which quorums. What is
    /// returned is where the change was proposed; it governs from a window of slots after that on, if it
    /// is chosen there. The leader sees to it that this comes soon, without any command.
    ///
    /// One change is under way at a time, from its proposal until an accept quorum of the new membership
    /// has all slots of the old one on record.
    ///
    /// # Errors
    ///
    /// If this replica does not lead, another change is under way, or the change gives no membership
    /// that could serve. Nothing has changed then.
    pub fn reconfigure(&mut self, change: Change, now: Time) -> Result<Proposed, ReconfigureError> {
        self.advance_time(now);
        if self.halted {
            return Err(ReconfigureError::Halted);
        }
        if !matches!(self.proposer, Proposer::Leading(_)) {
            let hint = self.leader().map(Ballot::leader);
            return Err(ReconfigureError::NotLeader { hint });
        }
        let next = self.roster.newest().changed(change)?;
        let proposed = self.propose_membership(next)?;
        self.settle();
        Ok(proposed)
    }

    /// Rule M4.
    fn propose_membership(&mut self, next: Membership) -> Result<Proposed, ReconfigureError> {
        let Proposer::Leading(reign) = &self.proposer else {
            unreachable!("only a leader changes the membership");
        };
        if let Some(to) = reign.heir() {
            return Err(ReconfigureError::Transferring { to });
        }
        if next.lease().is_some() {
            return Err(ReconfigureError::Leases);
        }
        let (ballot, committed) = (reign.ballot(), self.learner.committed());
        let Some(slot) = reign.peek_next(&self.roster, committed) else {
            return Err(ReconfigureError::Busy);
        };
        let is_change = |value: &Value| matches!(value, Value::Membership(_));
        // One that is chosen behind a gap is under way too.
        let ahead = self.learner.ahead_from(committed.next()).map(|(_, value)| value);
        let proposed = self.learner.tallies().map(|(_, tally)| &tally.value);
        let is_open = ahead.chain(proposed).any(is_change);
        if is_open || slot < self.roster.newest_from() || self.settled().is_none() {
            return Err(ReconfigureError::UnderWay { epoch: self.roster.newest().epoch() });
        }
        let old = self.roster.newest();
        let new = next.voters().iter().map(|member| member.id);
        if let Some(id) = new.filter(|id| old.voter_index(*id).is_none()).find(|id| self.lags(*id))
        {
            return Err(ReconfigureError::Behind(id));
        }
        if !self.pacemaker.reaches(&next, self.now) {
            return Err(ReconfigureError::Unreachable);
        }
        self.counters.changes += 1;
        self.propose_next(slot, ballot, Value::Membership(Arc::new(next)));
        Ok(Proposed { slot, ballot })
    }

    /// Whether a replica that is to vote lacks more than a window of this leader's prefix on its disk.
    /// Rule M9.
    fn lags(&self, id: ReplicaId) -> bool {
        let lag = self.held.distance_from(self.pacemaker.held(id));
        id != self.outbox.replica()
            && (lag > self.roster.window() || !self.pacemaker.is_connected(id, self.now))
    }

    /// What a leader sees to by itself: that whoever joins votes once it has caught up, and that it
    /// makes way itself once it votes no more. Rules M9 and M10.
    pub(super) fn lead_change(&mut self) {
        if !matches!(&self.proposer, Proposer::Leading(reign) if reign.heir().is_none()) {
            return;
        }
        let own = self.outbox.replica();
        let here = self.roster.governing(self.learner.committed().next());
        if here.voter_index(own).is_none() {
            self.makes_way();
            return;
        }
        let newest = self.roster.newest();
        let ready = |joining: &&Joining| !self.lags(joining.id);
        let ready = newest.joining().iter().find(ready).copied();
        // Whether a change may be proposed at all is looked at where one is.
        if let Some(next) = ready.and_then(|joining| newest.promoted(joining).ok())
            && self.propose_membership(next).is_ok()
        {
            self.counters.promotions += 1;
            self.settle();
        }
    }

    /// Makes way, if this replica leads and somebody could take over.
    pub(super) fn makes_way(&mut self) -> bool {
        let heir = self.heirs().first().copied();
        if let Some(heir) = heir {
            self.make_way(heir);
        }
        heir.is_some()
    }

    /// Fills the slots before a new membership with no-ops, so that it governs soon: in one message.
    /// Returns whether there was anything to fill. Rule M5.
    pub(super) fn fill_window(&mut self) -> bool {
        let committed = self.learner.committed();
        let end = self.roster.newest_from().previous();
        let Proposer::Leading(reign) = &mut self.proposer else {
            return false;
        };
        if reign.heir().is_some() {
            return false;
        }
        let ballot = reign.ballot();
        let mut slots: Vec<Slot> = Vec::new();
        while let Some(slot) = reign.peek_next(&self.roster, committed).filter(|slot| *slot <= end)
        {
            slots.push(reign.take_next());
            assert!(slots.last() == Some(&slot), "the slot is the one that was looked up");
        }
        let Some(first) = slots.first().copied() else {
            return false;
        };
        for slot in &slots {
            self.open(*slot, ballot, &Value::Noop);
        }
        self.counters.slots_filled += slots.len() as u64;
        self.send_proposals(ballot, first, vec![Value::Noop; slots.len()]);
        true
    }

    /// Asks those whose promise is missing: a candidate every voter of the open memberships, a leader
    /// those of a membership that has come into the window. Rule M2.
    pub(super) fn ask_promises(&mut self) {
        let committed = self.learner.committed();
        let (promises, from, leads) = match &self.proposer {
            Proposer::Idle => return,
            Proposer::Preparing(campaign) => {
                if !self.outbox.is_durable(campaign.written()) {
                    return;
                }
                (campaign.promises(), campaign.from(), false)
            }
            Proposer::Leading(reign) => (reign.promises(), committed.next(), true),
        };
        let ballot = promises.ballot();
        let mut asked: Vec<(ReplicaId, Slot)> = Vec::new();
        for membership in self.roster.open(committed) {
            if leads && promises.is_quorum_of(membership) {
                continue;
            }
            for id in membership.voters().iter().map(|member| member.id) {
                if let Some(from) = promises.missing(id, from)
                    && !asked.iter().any(|(other, _)| *other == id)
                {
                    asked.push((id, from));
                }
            }
        }
        for (id, from) in asked {
            if id != self.outbox.replica() {
                let prepare = Prepare { ballot, from };
                self.outbox.send_after_durable(Recipients::One(id), prepare);
            } else if leads {
                let own = self.promise_page(ballot, from, usize::MAX);
                self.outbox.send_to_self(own);
            }
        }
    }

    /// A promise that comes after the reign began: heeded if it is of a membership that has come into
    /// the window since, and has not promised yet. Rule M2.
    pub(super) fn on_late_promise(&mut self, from: ReplicaId, promise: Promise) -> Step {
        let committed = self.learner.committed();
        // Rule P8.
        let contradicts = promise.entries.iter().any(|entry| match &entry.state {
            SlotState::Chosen(value) => {
                self.learner.tally(entry.slot).is_some_and(|tally| tally.value != *value)
            }
            SlotState::Accepted(..) | SlotState::Unknown(_) => false,
        });
        let Proposer::Leading(reign) = &mut self.proposer else {
            return Step::Stale;
        };
        let wanted = self.roster.open(committed).any(|membership| {
            membership.voter_index(from).is_some() && !reign.promises().is_quorum_of(membership)
        });
        if !wanted {
            return Step::Stale;
        }
        if contradicts {
            self.step_down();
            return Step::Stale;
        }
        let behind = reign.is_behind(committed);
        let page = reign.on_promise(from, committed.next(), promise);
        if !behind && reign.is_behind(committed) {
            self.pacemaker.arm_election(self.now);
        }
        match page {
            Page::Stale => Step::Stale,
            Page::Absurd => Step::Absurd,
            Page::Next(slot) => Step::NextPage(slot),
            Page::Last => Step::Waiting,
        }
    }
}
