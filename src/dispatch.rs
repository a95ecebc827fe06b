//! Where requests go: into the log here, or to the node that leads.
//!
//! Owns: the rules by which [`Driver`] moves a request from its queue to a proposal, to another
//! node, or back to its client.
//! Invariants: (1) a command is proposed once, or handed to one leader that may propose it once: it
//! is tried again only after it certainly was not; (2) whoever waits stands in the waiting list
//! before the command can be applied; (3) a peer's frame that passed the gate is either proposed
//! or refused, once, and silence is all a second copy gets.

use core::time::Duration;

use bytes::Bytes;
use paxos_core::ballot::Ballot;
use paxos_core::codec::BATCH_HEADER_LEN;
use paxos_core::ids::{Incarnation, LogClock, ReplicaId, Slot, Time};
use paxos_core::output::NotProposed;
use paxos_core::port::{Channel, Frame, Lane, Room, Sent};
use paxos_core::trace::Event;
use paxos_core::value::Batch;

use crate::apply::Item;
use crate::divergence::Mark;
use crate::driver::{Driver, Round};
use crate::error::{ClientError, Rejection, Uncertainty};
use crate::frame::{self, HostFrame, Refusal};
use crate::reads::Asker;
use crate::submit::{Forwarded, Parcel};
use crate::waiters::{Numbers, Waiter};

/// What was sent to a leader and may come back.
#[derive(Debug)]
pub(crate) struct Carried {
    batch: Batch,
    numbers: Numbers,
    deadline: Time,
    attempts: u32,
}

impl<W: Waiter> Driver<W> {
    /// Moves on everything that can be.
    pub(crate) fn dispatch(&mut self, now: Time) {
        if self.leads {
            self.propose_all(now);
        }
        if !self.leads {
            self.turn_away(Refusal::NotLeader);
            self.forward_all(now);
        }
    }

    fn propose_all(&mut self, now: Time) {
        if self.holds_commands() {
            return;
        }
        while let Some(mut parcel) = self.queue.next(now) {
            if self.room == Room::Full {
                self.refuse_forwards(&mut parcel, Refusal::StorageFull);
                self.fail(parcel, Rejection::StorageFull);
                continue;
            }
            let commands = core::mem::take(&mut parcel.commands);
            let count = commands.len() as u64;
            match self.replica.propose(commands, self.clock.wall(), now) {
                Ok(proposed) => {
                    let (slot, ballot) = (proposed.slot, proposed.ballot);
                    self.trace(now, || Event::Proposed { slot, ballot });
                    let meters = &self.shared.meters;
                    meters.batches_proposed.add(1);
                    meters.commands_proposed.add(count);
                    meters.batch_commands.record(count);
                    meters.batch_bytes.record(parcel.bytes as u64);
                    self.rounds.push_back(Round::of(&parcel, slot, now));
                    self.register(&mut parcel);
                    self.tell_slot(parcel.numbers, proposed.slot, proposed.ballot);
                    for forwarded in parcel.forwards {
                        let taken = HostFrame::Taken {
                            origin: forwarded.origin,
                            sequence: forwarded.sequence,
                            slot: proposed.slot,
                            ballot: proposed.ballot,
                        };
                        self.reply(forwarded.from, &taken);
                    }
                }
                Err(error) => {
                    self.trace(now, || Event::NotProposed { reason: error.reason });
                    parcel.commands = error.commands;
                    if !self.on_not_proposed(parcel, error.reason) {
                        return;
                    }
                }
            }
        }
    }

    /// Whether the next parcel may be tried.
    fn on_not_proposed(&mut self, mut parcel: Parcel<W>, reason: NotProposed) -> bool {
        match reason {
            NotProposed::TooLarge { bytes, bytes_max } => {
                self.refuse_forwards(&mut parcel, Refusal::TooLarge);
                self.fail(parcel, Rejection::TooLarge { bytes, bytes_max });
                true
            }
            NotProposed::NotLeader { .. } => {
                self.leads = false;
                self.hold(parcel);
                false
            }
            // Also what a newer core may add: it is not proposed, and is tried again later. A leader that
            // makes way holds what it has until another leads, or until it leads on.
            NotProposed::Transferring { .. }
            | NotProposed::Busy
            | NotProposed::Empty
            | NotProposed::Halted
            | _ => {
                self.hold(parcel);
                false
            }
        }
    }

    /// Keeps a numbered parcel for later.
    fn hold(&mut self, mut parcel: Parcel<W>) {
        self.register(&mut parcel);
        self.queue.put_back(parcel);
    }

    fn register(&mut self, parcel: &mut Parcel<W>) {
        if !parcel.waiting.is_empty() {
            let waiting = core::mem::take(&mut parcel.waiting);
            self.tell(Item::Register(parcel.numbers.first, waiting));
        }
    }

    fn tell_slot(&mut self, numbers: Numbers, slot: Slot, ballot: Ballot) {
        if numbers.count > 0 {
            self.tell(Item::Given(numbers, Some(ballot)));
            self.tell(Item::Proposed(numbers, slot));
        }
    }

    pub(crate) fn tell(&mut self, item: Item<W>) {
        // The applier's end is reported through `done`.
        let _ = self.apply.send(item);
    }

    /// Sends this node's own commands to the leader, if one is known and linked.
    fn forward_all(&mut self, now: Time) {
        let Some(ballot) = self.leader else { return };
        let Some(target) = self.lives.get(&ballot.leader()).copied() else {
            return;
        };
        while self.forwarder.has_room(ballot) {
            let Some(mut parcel) = self.queue.next_forward(self.forwarder.eighths(), now) else {
                return;
            };
            self.register(&mut parcel);
            let batch = Batch::new(LogClock::default(), core::mem::take(&mut parcel.commands));
            match self.forward(ballot, target, &batch, &parcel) {
                Sent::Queued => self.tell(Item::Given(parcel.numbers, Some(ballot))),
                Sent::TooLarge => {
                    let bytes = batch.encoded_len();
                    let bytes_max = self.shared.command_bytes_max;
                    self.fail(parcel, Rejection::TooLarge { bytes, bytes_max });
                }
                Sent::Full | Sent::Down => {
                    parcel.commands = batch.commands().to_vec();
                    parcel.retry_at = now.after(self.backoff(parcel.attempts));
                    self.queue.put_back(parcel);
                    return;
                }
            }
        }
    }

    fn forward(
        &mut self,
        ballot: Ballot,
        target: Incarnation,
        batch: &Batch,
        parcel: &Parcel<W>,
    ) -> Sent {
        let sequence = self.forwarder.next_sequence();
        let frame =
            HostFrame::Forward { origin: self.life, target, sequence, batch: batch.clone() };
        let sent = self.send_frame(ballot.leader(), Lane::Log, &frame);
        if sent == Sent::Queued {
            self.shared.meters.forwards_sent.add(1);
            let carried = Carried {
                batch: batch.clone(),
                numbers: parcel.numbers,
                deadline: parcel.deadline,
                attempts: parcel.attempts,
            };
            self.forwarder.sent(sequence, ballot, parcel.deadline, carried);
        }
        sent
    }

    pub(crate) fn send_frame(&mut self, to: ReplicaId, lane: Lane, frame: &HostFrame) -> Sent {
        let frame = Frame {
            lane,
            key: None,
            channel: Channel::Host,
            chunks: frame::encode(self.group, frame),
        };
        self.send_host(to, frame)
    }

    pub(crate) fn reply(&mut self, to: ReplicaId, frame: &HostFrame) {
        // If it does not get there, the sender waits until its clients' time is over.
        let _ = self.send_frame(to, Lane::Control, frame);
    }

    pub(crate) fn on_host_frame(&mut self, from: ReplicaId, bytes: Bytes, now: Time) {
        match frame::decode(self.group, bytes) {
            None => self.shared.meters.dropped_undecodable.add(1),
            Some(HostFrame::Forward { origin, target, sequence, batch }) => {
                let bytes = batch.encoded_len() - BATCH_HEADER_LEN;
                let forwarded = Forwarded { from, origin, sequence, bytes };
                self.on_forward(forwarded, target, batch, now);
            }
            Some(HostFrame::Taken { origin, sequence, slot, ballot }) => {
                if origin == self.life
                    && let Some(carried) = self.forwarder.answered(from, sequence)
                {
                    self.shared.meters.forwards_taken.add(1);
                    self.tell_slot(carried.numbers, slot, ballot);
                }
            }
            Some(HostFrame::Announce { origin, features, known, asks }) => {
                self.on_announced(from, origin, (features, known), asks);
            }
            Some(HostFrame::Mark { slot, digest, asks, .. }) => {
                self.on_peer_mark(from, Mark { slot, digest }, asks);
            }
            Some(HostFrame::AskPoint { origin, sequence }) => {
                self.on_ask_point(Asker { peer: from, origin, sequence }, now);
            }
            Some(HostFrame::Point { origin, sequence, slot }) => {
                if origin == self.life {
                    self.on_point(from, sequence, slot);
                }
            }
            Some(HostFrame::NoPoint { origin, sequence }) => {
                if origin == self.life {
                    let retry_at = now.after(self.backoff(self.reads.refusals()));
                    self.reads.refused(from, sequence, retry_at);
                }
            }
            Some(HostFrame::Refused { origin, sequence, reason }) => {
                if origin == self.life
                    && let Some(carried) = self.forwarder.answered(from, sequence)
                {
                    self.shared.meters.forwards_refused.add(1);
                    self.on_refused(&carried, reason, now);
                }
            }
        }
    }

    fn on_forward(&mut self, forwarded: Forwarded, target: Incarnation, batch: Batch, now: Time) {
        self.shared.meters.forwards_received.add(1);
        let Forwarded { from, origin, sequence, .. } = forwarded;
        let client = (self.client)(from, origin);
        let honest = batch.commands().iter().all(|c| c.client == client);
        if target != self.life || !honest || !self.gate.pass(from, origin, sequence) {
            self.shared.meters.forwards_ignored.add(1);
            return;
        }
        // The first is taken whatever its size, or one above the bound would be refused for ever.
        let before = self.queue.forwarded_bytes();
        let full = before > 0 && before + batch.encoded_len() > self.options.forwarded_bytes_max;
        if !self.leads {
            self.refuse_all(&[forwarded], Refusal::NotLeader);
        } else if batch.encoded_len() > self.config.batch_bytes_max {
            self.refuse_all(&[forwarded], Refusal::TooLarge);
        } else if full {
            self.refuse_all(&[forwarded], Refusal::Busy);
        } else {
            self.queue.push_forwarded(forwarded, batch, now);
        }
    }

    /// The leader certainly did not propose it: it is tried again, unless that is in vain.
    fn on_refused(&mut self, carried: &Carried, reason: Refusal, now: Time) {
        let attempts = carried.attempts + 1;
        let deadline = carried.deadline;
        self.tell(Item::Given(carried.numbers, None));
        let mut parcel = Parcel::returned(&carried.batch, carried.numbers, deadline, attempts);
        match reason {
            Refusal::NotLeader | Refusal::Busy => {
                parcel.retry_at = now.after(self.backoff(attempts));
                self.queue.put_back(parcel);
            }
            Refusal::TooLarge => {
                let bytes = parcel.bytes;
                let bytes_max = self.shared.command_bytes_max;
                self.fail(parcel, Rejection::TooLarge { bytes, bytes_max });
            }
            Refusal::StorageFull => self.fail(parcel, Rejection::StorageFull),
        }
    }

    /// What went over the link may be proposed there. It is never sent again, so waiting on would be
    /// waiting for luck.
    pub(crate) fn on_link_lost(&mut self, peer: ReplicaId) {
        self.reads.give_up_on(|asked| asked == peer);
        self.queue.open_again();
        for carried in self.forwarder.on_down(peer) {
            let lost = ClientError::Unknown(Uncertainty::LinkLost);
            self.tell(Item::Fail(carried.numbers, lost));
        }
    }

    /// Refuses everything that peers forwarded and that is not proposed.
    pub(crate) fn turn_away(&mut self, reason: Refusal) {
        let forwards = self.queue.drain_forwarded();
        self.refuse_all(&forwards, reason);
    }

    /// Refuses what peers forwarded of a parcel.
    fn refuse_forwards(&mut self, parcel: &mut Parcel<W>, reason: Refusal) {
        let forwards = parcel.without_forwards();
        for forwarded in &forwards {
            self.queue.land(forwarded.from, forwarded.bytes);
        }
        self.refuse_all(&forwards, reason);
    }

    fn refuse_all(&mut self, forwards: &[Forwarded], reason: Refusal) {
        for forwarded in forwards {
            self.shared.meters.forwards_turned_away.add(1);
            let refused = HostFrame::Refused {
                origin: forwarded.origin,
                sequence: forwarded.sequence,
                reason,
            };
            self.reply(forwarded.from, &refused);
        }
    }

    /// Tells the clients of a parcel that it certainly will not be applied.
    fn fail(&mut self, parcel: Parcel<W>, reason: Rejection) {
        if self.queue.is_opening(&parcel) {
            return self.fail_opening(&reason);
        }
        let error = ClientError::Rejected(reason);
        if parcel.waiting.is_empty() {
            if parcel.numbers.count > 0 {
                self.tell(Item::Fail(parcel.numbers, error));
            }
            return;
        }
        for waiting in parcel.waiting {
            self.shared.turn_back(waiting, error.clone());
        }
    }

    /// The session certainly is not opened by this parcel. Whoever waits for it waits for the next
    /// one, unless that would meet the same.
    fn fail_opening(&mut self, reason: &Rejection) {
        self.queue.open_again();
        if *reason != Rejection::StorageFull {
            return;
        }
        for waiting in self.queue.drain_unopened() {
            self.shared.turn_down(waiting, ClientError::Rejected(reason.clone()));
        }
    }

    /// Answers those whom a leader may have proposed that has long been succeeded by another.
    pub(crate) fn depose(&mut self, now: Time) {
        if let Some(ballot) = self.succession.take_due(now) {
            self.forwarder.depose(ballot);
            self.tell(Item::Deposed(ballot));
        }
    }

    /// Answers those whose time is over and whose command is certainly not proposed.
    pub(crate) fn expire(&mut self, now: Time) {
        self.forwarder.expire(now);
        let reason = if self.leader.is_some() { Rejection::Busy } else { Rejection::NoLeader };
        let (late, parcels) = self.queue.expire(now);
        for waiting in late {
            self.shared.turn_down(waiting, ClientError::Rejected(reason.clone()));
        }
        for parcel in parcels {
            self.fail(parcel, reason.clone());
        }
        self.expire_reads(now);
    }

    /// A wait that doubles with each attempt, drawn from its upper half so that nodes part ways.
    pub(crate) fn backoff(&mut self, attempts: u32) -> Duration {
        let doubled = self.options.backoff_min * (1 << attempts.min(10));
        let whole = doubled.min(self.options.backoff_max);
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let part = (self.random % 1024) as u32;
        whole / 2 + whole / 2 * part / 1024
    }
}
