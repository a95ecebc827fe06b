//! The replica's part in elections: heartbeats, campaigns, stepping down.
//!
//! Owns no state of its own; reacts to time, heartbeats, promises and refusals.
//! Source: protocol.md §8 (campaign) and §10; handing over is next door, in `transfer`.

use super::Replica;
use crate::acceptor::PrepareAnswer;
use crate::ballot::Ballot;
use crate::durable::Write;
use crate::ids::{Incarnation, ReplicaId};
use crate::message::{Connectivity, Heartbeat, Prepare, Promise, Reject};
use crate::output::Recipients;
use crate::pacemaker::{Pacemaker, Timer};
use crate::proposer::{Campaign, Proposer, Step};

impl Replica {
    pub(super) fn on_heartbeat_due(&mut self) {
        self.check_reign();
        self.review_members();
        if self.halted {
            return;
        }
        self.prefer();
        self.send_heartbeat();
        if self.recorded < self.learner.committed() {
            self.record_committed();
        }
    }

    /// Rule E4.
    fn check_reign(&mut self) {
        if !matches!(self.proposer, Proposer::Leading(_)) {
            return;
        }
        let now = self.now;
        if self.is_disk_stalled() || self.connectivity() == Connectivity::Partial {
            self.step_down();
            self.pacemaker.arm_election(now);
        }
    }

    pub(super) fn is_disk_stalled(&self) -> bool {
        let since = self.outbox.pending_since();
        since.is_some_and(|since| self.now.since(since) > self.config.disk_stall)
    }

    pub(super) fn send_heartbeat(&mut self) {
        let now = self.now;
        let (sequence, echoes) = self.pacemaker.next_pulse(now);
        let leader = match &self.proposer {
            Proposer::Leading(reign) => Some(reign.ballot()),
            Proposer::Idle | Proposer::Preparing(_) => self.pacemaker.vouches_for(now),
        };
        let heartbeat = Heartbeat {
            sequence,
            echoes,
            promised: self.acceptor.promised(),
            leader,
            connectivity: self.connectivity(),
            committed: self.learner.committed(),
            durable: self.outbox.durable_vote(),
            held: self.held,
            released: self.pacemaker.released(),
            priority: self.pacemaker.priority(),
        };
        if !self.peers.is_empty() {
            self.outbox.send(Recipients::AllPeers, heartbeat);
        }
        self.pacemaker.arm_heartbeat(now);
    }

    pub(super) fn on_heartbeat(
        &mut self,
        from: ReplicaId,
        incarnation: Incarnation,
        heartbeat: &Heartbeat,
    ) {
        let now = self.now;
        if !self.peers.contains(&from) {
            // A member of a membership that is not known here yet: it may be asked for what says so.
            self.note_committed(from, heartbeat.committed);
            return;
        }
        let led_before = self.pacemaker.heard_leader(now);
        if !self.pacemaker.on_heartbeat(from, incarnation, heartbeat, now) {
            self.counters.dropped_stale += 1;
            return;
        }
        let leader = self.pacemaker.heard_leader(now);
        match (led_before, leader) {
            (_, Some(ballot)) if ballot.leader() == from => {
                if let Proposer::Preparing(campaign) = &self.proposer
                    && !campaign.succeeds(ballot)
                {
                    // A live leader makes the campaign needless.
                    self.step_down();
                }
                if matches!(self.proposer, Proposer::Idle) {
                    self.pacemaker.arm_election(now);
                    self.pacemaker.note_peace();
                }
            }
            // A campaign that is under way needs no hurry: it has its own deadline.
            (Some(_), None) if matches!(self.proposer, Proposer::Idle) => {
                self.pacemaker.hasten_election(now);
            }
            (Some(_) | None, Some(_) | None) => {}
        }
        self.catchup.replace(from, heartbeat.committed);
        self.flows.reported(from, heartbeat.committed);
        if let Some((ballot, committed)) = Pacemaker::watermark(from, heartbeat) {
            self.on_watermark(from, ballot, committed);
        } else {
            self.note_committed(from, heartbeat.committed);
        }
        // A voter that promised more than this reign's ballot will refuse its Accepts. One that is
        // not connected would get none: it is no reason to disturb those that vote.
        if let (Proposer::Leading(reign), Some(promised)) = (&self.proposer, heartbeat.promised)
            && promised > reign.ballot()
            && self.roster.is_voter(from)
            && self.pacemaker.is_connected(from, now)
        {
            self.give_way(promised);
        }
    }

    pub(super) fn on_election_due(&mut self) {
        let now = self.now;
        if let Proposer::Leading(reign) = &mut self.proposer {
            if reign.is_stuck(self.learner.committed()) {
                // Nobody can serve the prefix that was reported: other promises may do without it.
                self.step_down();
            } else if reign.is_behind(self.learner.committed()) {
                self.pacemaker.arm_election(now);
            }
            return;
        }
        // A campaign that was not won by its deadline is given up; the next has a higher ballot.
        self.step_down();
        let connected = self.connectivity() == Connectivity::Quorum;
        if !self.may_campaign() || !connected || self.is_disk_stalled() {
            self.pacemaker.arm_election(now);
        } else if self.pacemaker.heard_leader(now).is_some() || self.pacemaker.is_vouched(now) {
            // Rule E3. A leader that falls silent is noticed by those that hear it first.
            self.pacemaker.hasten_election(now);
        } else if self.withholds_from(self.outbox.replica()) {
            self.pacemaker.arm_election_after_grants(now);
        } else if !self.pacemaker.give_precedence(now) {
            self.campaign(None);
        }
    }

    /// Asks for promises; `after` is the ballot of a leader that makes way.
    pub(super) fn campaign(&mut self, after: Option<Ballot>) {
        let seen = self.acceptor.promised().max(self.pacemaker.seen());
        let ballot = Ballot::above(seen, self.outbox.replica());
        let answer = self.acceptor.prepare(ballot);
        assert!(answer == PrepareAnswer::Promised, "a new ballot is above every promise");
        self.counters.campaigns += 1;
        self.outbox.write(Write::Promised(ballot));
        let written = self.outbox.after_writes();
        let committed = self.learner.committed();
        let campaign = Campaign::new(ballot, after, committed, self.roster.window(), written);
        let from = campaign.from();
        self.proposer = Proposer::Preparing(campaign);
        if !self.peers.is_empty() {
            self.outbox.send_after_durable(Recipients::AllPeers, Prepare { ballot, from });
        }
        let own = self.promise_page(ballot, from, usize::MAX);
        self.outbox.send_to_self(own);
        self.pacemaker.arm_election(self.now);
        self.pacemaker.arm_retransmit(self.now);
    }

    pub(super) fn on_promise(&mut self, from: ReplicaId, promise: Promise) {
        if !self.roster.is_voter(from) {
            self.counters.dropped_absurd += 1;
            return;
        }
        let ballot = promise.ballot;
        if self.proposer.ballot() != Some(ballot) {
            self.counters.dropped_stale += 1;
            return;
        }
        let (reported, committed) = (promise.committed, self.learner.committed());
        let step = match &mut self.proposer {
            Proposer::Preparing(campaign) => {
                campaign.on_promise(from, promise, &self.roster, committed)
            }
            Proposer::Idle | Proposer::Leading(_) => self.on_late_promise(from, promise),
        };
        let campaigns = matches!(self.proposer, Proposer::Preparing(_));
        match step {
            Step::Stale => self.counters.dropped_stale += 1,
            Step::Absurd => self.counters.dropped_absurd += 1,
            Step::NextPage(next) => {
                let prepare = Prepare { ballot, from: next };
                self.outbox.send_after_durable(Recipients::One(from), prepare);
                // As long as pages arrive, the campaign gets on.
                if campaigns {
                    self.pacemaker.arm_election(self.now);
                }
            }
            Step::Waiting if campaigns => self.pacemaker.arm_election(self.now),
            Step::Waiting => {}
            Step::Won => self.begin_reign(),
        }
        if from != self.outbox.replica() {
            self.note_committed(from, reported);
        }
    }

    fn begin_reign(&mut self) {
        let Proposer::Preparing(campaign) = core::mem::replace(&mut self.proposer, Proposer::Idle)
        else {
            unreachable!("only a campaign is won");
        };
        self.counters.elections_won += 1;
        let reign = campaign.into_reign();
        let committed = self.learner.committed();
        let (overtaken, behind) = (reign.is_overtaken(committed), reign.is_behind(committed));
        self.proposer = Proposer::Leading(reign);
        if overtaken {
            self.step_down();
            return;
        }
        self.told = self.learner.committed();
        self.repeats.begin(self.learner.committed());
        self.pacemaker.begin_reign(self.now);
        self.pacemaker.disarm(Timer::Election);
        if behind {
            self.pacemaker.arm_election(self.now);
        }
        self.pacemaker.arm_retransmit(self.now);
        self.send_heartbeat();
    }

    /// Asks again those voters whose promise is not complete.
    pub(super) fn repeat_prepare(&mut self) {
        self.pacemaker.arm_retransmit(self.now);
        self.ask_promises();
    }

    pub(super) fn on_reject(&mut self, from: ReplicaId, reject: Reject) {
        self.pacemaker.see(Some(reject.promised));
        let leads = matches!(self.proposer, Proposer::Leading(_));
        if !self.roster.is_voter(from) || leads && !self.pacemaker.is_connected(from, self.now) {
            // It does not vote, or not for this leader, whose quorum does without it; what is left of
            // it may have been said long ago.
            self.counters.dropped_stale += 1;
        } else if self.proposer.ballot() == Some(reject.refused) && reject.promised > reject.refused
        {
            self.give_way(reject.promised);
        } else {
            self.counters.dropped_stale += 1;
        }
    }

    /// Somebody promised a higher ballot: stop, and try again soon unless another leads by then.
    pub(super) fn give_way(&mut self, to: Ballot) {
        self.pacemaker.see(Some(to));
        if self.note_taken_over(to) {
            // The one that was asked to is at work, and gets the time to win.
            self.step_down();
            self.pacemaker.arm_election(self.now);
            return;
        }
        self.pacemaker.note_outbid();
        self.step_down();
        self.pacemaker.disarm(Timer::Election);
        self.pacemaker.hasten_election(self.now);
    }

    /// Ends a reign or a campaign. What was proposed may still be chosen: the next leader settles
    /// it.
    pub(super) fn step_down(&mut self) {
        let led = matches!(self.proposer, Proposer::Leading(_));
        self.proposer = Proposer::Idle;
        self.learner.abandon();
        self.flows.reset();
        if let Some(through) = self.reads.abandon() {
            self.outbox.reads_lost(through);
        }
        self.outbox.drop_prepares();
        self.pacemaker.disarm(Timer::Retransmit);
        self.pacemaker.disarm(Timer::Transfer);
        if led {
            self.counters.step_downs += 1;
            self.pacemaker.release_lease();
            self.send_heartbeat();
        }
        if !self.pacemaker.is_armed(Timer::Election) {
            self.pacemaker.arm_election(self.now);
        }
    }
}
