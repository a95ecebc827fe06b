//! Where reads go: to this node's replica while it leads, or to the node that leads, for a read
//! point, or past any leader to a quorum; then to the state machine.
//!
//! Owns: the rules by which [`Driver`] moves a read; the reads are [`crate::reads::Reads`]'.
//! Invariants: (1) a read is answered by this node's state machine alone, after it has applied the
//! point; (2) a question of a peer is put to the replica at once, so that its point is as new as the
//! question.

use paxos_core::ballot::Ballot;
use paxos_core::ids::{ReplicaId, Slot, Time};
use paxos_core::output::{QuorumReadLoss, ReadTicket};
use paxos_core::port::{Lane, Sent};
use paxos_core::trace::Event;

use crate::apply::Item;
use crate::driver::Driver;
use crate::error::{ClientError, Rejection};
use crate::frame::HostFrame;
use crate::reads::{Asker, Settled};
use crate::request::Consistency;
use crate::submit::Asked;
use crate::waiters::{Waiter, Waiting};

impl<W: Waiter> Driver<W> {
    /// Puts what clients asked for where it waits.
    pub(crate) fn take_requests(&mut self, now: Time) {
        let mut requests = core::mem::take(&mut self.intake.requests);
        for request in requests.drain(..) {
            let (asked, waiting) = request.into_waiting();
            match asked {
                Asked::Command(stamp, payload) => {
                    self.queue.push(stamp, payload, waiting, now);
                }
                Asked::Read(consistency) => self.take_read(consistency, waiting, now),
            }
        }
        self.intake.requests = requests;
        if let Some(number) = self.shared.take_opened() {
            self.queue.session_opened(number);
        }
        // Their clients know whether they were sent before.
        let astray = self.queue.take_astray();
        for waiting in astray {
            self.shared.turn_down(waiting, ClientError::Rejected(Rejection::SessionUnknown));
        }
    }

    fn take_read(&mut self, consistency: Consistency, waiting: Waiting<W>, now: Time) {
        self.shared.meters.reads.add(1);
        let known = match consistency {
            Consistency::Quorum => return self.quorum_reads.push(waiting),
            Consistency::Linearizable => None,
            Consistency::AtLeast(slot) => Some(slot),
            Consistency::Stale { lag_max } => self.reads.recent(lag_max, now),
        };
        match known {
            Some(point) => self.tell(Item::Read(point, vec![waiting])),
            None => self.reads.push(waiting),
        }
    }

    /// Asks for a read point where one can be had.
    pub(crate) fn dispatch_reads(&mut self, now: Time) {
        if self.quorum_reads.wants_ticket()
            && let Ok(ticket) = self.replica.read_quorum(now)
        {
            self.trace(now, || Event::QuorumReadAsked { ticket: ticket.number() });
            self.quorum_reads.ticketed(ticket);
        }
        self.reads.tend(now);
        if self.leads {
            if self.reads.wants_ticket()
                && let Ok(ticket) = self.replica.read(now)
            {
                self.trace(now, || Event::ReadAsked { ticket: ticket.number() });
                self.reads.ticketed(ticket, now);
            }
            return;
        }
        let leader = self.leader.map(Ballot::leader);
        let Some(leader) = leader.filter(|leader| self.lives.contains_key(leader)) else {
            return;
        };
        if !self.reads.wants_question(now) {
            return;
        }
        let sequence = self.reads.question(leader, now);
        self.shared.meters.read_points_asked.add(1);
        let question = HostFrame::AskPoint { origin: self.life, sequence };
        if self.send_frame(leader, Lane::Control, &question) != Sent::Queued {
            let retry_at = now.after(self.backoff(self.reads.refusals()));
            self.reads.refused(leader, sequence, retry_at);
        }
    }

    /// A peer asks for a read point.
    pub(crate) fn on_ask_point(&mut self, asker: Asker, now: Time) {
        match self.replica.read(now) {
            Ok(ticket) => {
                self.trace(now, || Event::ReadAsked { ticket: ticket.number() });
                self.reads.ticketed_for(ticket, asker);
            }
            Err(_) => self.refuse_points(vec![asker]),
        }
    }

    /// Peers ask again, of whoever leads then.
    pub(crate) fn refuse_points(&mut self, askers: Vec<Asker>) {
        for Asker { peer, origin, sequence } in askers {
            self.reply(peer, &HostFrame::NoPoint { origin, sequence });
        }
    }

    /// The node that leads named a read point.
    pub(crate) fn on_point(&mut self, from: ReplicaId, sequence: u64, point: Slot) {
        let waiting = self.reads.answered(from, sequence, point);
        self.send_on(point, waiting);
    }

    fn send_on(&mut self, point: Slot, waiting: Vec<Waiting<W>>) {
        if !waiting.is_empty() {
            self.tell(Item::Read(point, waiting));
        }
    }

    /// The replica named a read point.
    pub(crate) fn on_reads_ready(&mut self, through: ReadTicket, point: Slot, now: Time) {
        self.trace(now, || Event::ReadsReady { through: through.number(), point });
        let Settled { waiting, askers } = self.reads.ready(through, point);
        for Asker { peer, origin, sequence } in askers {
            self.reply(peer, &HostFrame::Point { origin, sequence, slot: point });
        }
        self.send_on(point, waiting);
    }

    /// The replica leads no more.
    pub(crate) fn on_reads_lost(&mut self, through: ReadTicket, now: Time) {
        self.trace(now, || Event::ReadsLost { through: through.number() });
        let askers = self.reads.lost(through);
        self.refuse_points(askers);
    }

    /// The replica named a point that a prepare quorum knows.
    pub(crate) fn on_quorum_reads_ready(&mut self, through: ReadTicket, point: Slot, now: Time) {
        self.trace(now, || Event::QuorumReadsReady { through: through.number(), point });
        let waiting = self.quorum_reads.settle(through);
        self.send_on(point, waiting);
    }

    /// The replica names none in time.
    pub(crate) fn on_quorum_reads_lost(
        &mut self,
        through: ReadTicket,
        reason: QuorumReadLoss,
        now: Time,
    ) {
        self.trace(now, || Event::QuorumReadsLost { through: through.number(), reason });
        let rejection = match reason {
            QuorumReadLoss::Unsettled { point } => Rejection::Unsettled { slot: point },
            QuorumReadLoss::Unreached | _ => Rejection::NoQuorum,
        };
        for waiting in self.quorum_reads.settle(through) {
            self.shared.turn_down(waiting, ClientError::Rejected(rejection.clone()));
        }
    }

    /// Answers the reads whose time is over.
    pub(crate) fn expire_reads(&mut self, now: Time) {
        let reason = if self.leader.is_some() { Rejection::TimedOut } else { Rejection::NoLeader };
        for waiting in self.reads.expire(now) {
            self.shared.turn_down(waiting, ClientError::Rejected(reason.clone()));
        }
        for waiting in self.quorum_reads.expire(now) {
            self.shared.turn_down(waiting, ClientError::Rejected(Rejection::TimedOut));
        }
    }
}
