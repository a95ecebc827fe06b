//! The node's task: the one owner of the replica (the book's Singular Update Queue).
//!
//! Owns: [`Driver`]: the replica, the transport, the journal's queue, and what is on its way
//! between them. Touches no state machine and no client.
//! Invariants: (1) everything that is ready is taken in before anything is done about it; (2) the
//! replica's outputs are carried out in order, writes and reads of the log in the order given;
//! (3) after a failure of the storage, or a halt, nothing is sent or answered any more; (4) the task
//! waits for nothing but its inputs: not for a device, not for the state machine.

use core::future::{Future, poll_fn};
use core::pin::pin;
use core::task::{Context, Poll, ready};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use paxos_core::ballot::Ballot;
use paxos_core::config::Config;
use paxos_core::ids::{ClientId, GroupId, Incarnation, ReplicaId, Slot, Time};
use paxos_core::message::{Body, Message};
use paxos_core::output::{Output, ReadTicket, Recipients, Role};
use paxos_core::port::{Channel, Frame, Room, Sent, Transport, TransportEvent};
use paxos_core::replica::Replica;
use paxos_core::trace::{Delivery, Event, Packet};
use paxos_core::value::Value;
use tokio::sync::mpsc;

use crate::applied::Pages;
use crate::apply::{Item, SWEEP_INTERVAL};
use crate::change::Changes;
use crate::clock::{Alarm, Clock};
use crate::dispatch::Carried;
use crate::divergence::Comparison;
use crate::error::{ClientError, Rejection, StopReason};
use crate::forward::{Forwarder, Gate};
use crate::handover::Handover;
use crate::journal::{Disk, Done, Job, Journal};
use crate::options::NodeOptions;
use crate::pulse::Pulses;
use crate::quorum_reads::QuorumReads;
use crate::reads::Reads;
use crate::releases::Releases;
use crate::router;
use crate::shared::{Closing, Leadership, Shared};
use crate::snapshot::Snapshots;
use crate::submit::{Parcel, Queue, Request};
use crate::succession::Succession;
use crate::waiters::Waiter;

/// How many events of the transport, and requests, are taken in before they are acted upon: bounds
/// the time between two looks at the clock.
const EVENTS_MAX: usize = 1024;
const REQUESTS_MAX: usize = 16_384;

/// The task.
pub(crate) struct Driver<W> {
    pub(crate) replica: Replica,
    /// Who this is, for what is logged: a process may run several.
    pub(crate) id: ReplicaId,
    pub(crate) group: GroupId,
    pub(crate) life: Incarnation,
    pub(crate) client: fn(ReplicaId, Incarnation) -> ClientId,
    pub(crate) config: Config,
    pub(crate) options: NodeOptions,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: u64,
    pub(crate) shared: Arc<Shared>,
    pub(crate) transport: Box<dyn Transport>,
    pub(crate) journal: Journal,
    pub(crate) requests: mpsc::UnboundedReceiver<Request<W>>,
    pub(crate) done: mpsc::UnboundedReceiver<Done>,
    pub(crate) apply: mpsc::UnboundedSender<Item<W>>,
    pub(crate) queue: Queue<W>,
    pub(crate) reads: Reads<W>,
    pub(crate) quorum_reads: QuorumReads<W>,
    pub(crate) forwarder: Forwarder<Carried>,
    pub(crate) gate: Gate,
    /// The lives of the peers that are linked.
    pub(crate) lives: BTreeMap<ReplicaId, Incarnation>,
    pub(crate) pulses: Pulses,
    /// The ballot of the leader that this node is or follows.
    pub(crate) leader: Option<Ballot>,
    pub(crate) leads: bool,
    pub(crate) handover: Handover,
    pub(crate) changes: Changes,
    pub(crate) pages: Pages,
    pub(crate) snapshots: Snapshots,
    pub(crate) comparison: Comparison,
    pub(crate) releases: Releases,
    pub(crate) succession: Succession,
    pub(crate) disk: Disk,
    pub(crate) room: Room,
    pub(crate) stop: Option<StopReason>,
    /// What was proposed here and is not yet committed.
    pub(crate) rounds: VecDeque<Round>,
    pub(crate) intake: Intake<W>,
    pub(crate) timer: Timer,
    pub(crate) stage: Stage,
}

/// What the task does next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Stage {
    /// Acts upon what was taken in.
    Act,
    /// Takes in what is ready, or waits for it.
    Listen,
    /// Takes in what came while others ran, and does not wait.
    ListenAgain,
}

/// What was proposed in a slot.
#[derive(Debug)]
pub(crate) struct Round {
    pub(crate) slot: Slot,
    begin: Time,
    /// How many bytes of which peers stand in it.
    forwards: Vec<(ReplicaId, usize)>,
}

impl Round {
    pub(crate) fn of<W>(parcel: &Parcel<W>, slot: Slot, begin: Time) -> Self {
        let forwards = parcel.forwards.iter().map(|forwarded| (forwarded.from, forwarded.bytes));
        Self { slot, begin, forwards: forwards.collect() }
    }
}

/// What was taken in and not yet acted upon.
pub(crate) struct Intake<W> {
    pub(crate) events: Vec<TransportEvent>,
    pub(crate) requests: Vec<Request<W>>,
    pub(crate) requests_closed: bool,
    pub(crate) done: Vec<Done>,
    pub(crate) jobs: Vec<Job>,
    /// The last slot handed out to be applied, and the last one said to be.
    pub(crate) handed: Slot,
    pub(crate) reported: Slot,
    pub(crate) unreported_bytes: usize,
}

/// When the task is to wake up by itself.
pub(crate) struct Timer {
    pub(crate) alarm: Box<dyn Alarm>,
    pub(crate) armed: Option<Time>,
    /// What the replica asked for.
    pub(crate) wake_at: Option<Time>,
    /// When queues were last looked through.
    pub(crate) tended: Time,
    /// When this node's state was last written down for others to see; `None` if it must be.
    pub(crate) published: Option<Time>,
    pub(crate) close_by: Option<Time>,
}

impl<W> Intake<W> {
    pub(crate) fn new(applied: Slot) -> Self {
        Self {
            events: Vec::new(),
            requests: Vec::new(),
            requests_closed: false,
            done: Vec::new(),
            jobs: Vec::new(),
            handed: applied,
            reported: applied,
            unreported_bytes: 0,
        }
    }
}

impl Timer {
    pub(crate) fn new(alarm: Box<dyn Alarm>, now: Time) -> Self {
        Self { alarm, armed: None, wake_at: None, tended: now, published: None, close_by: None }
    }
}

impl<W: Waiter> Driver<W> {
    /// Runs until the node stops, and says why.
    pub(crate) async fn run(mut self) -> StopReason {
        poll_fn(|cx| self.poll_run(cx)).await
    }

    /// Does all that can be done, then waits; ready when the node stops. Whoever polls it is the
    /// task: tokio's, or a simulator.
    pub(crate) fn poll_run(&mut self, cx: &mut Context<'_>) -> Poll<StopReason> {
        loop {
            match self.stage {
                Stage::Act => {
                    // Read after everything was taken in: a read that came after this reading must not
                    // be answered by a lease that was looked at before it (protocol.md, R7).
                    let now = self.clock.now();
                    self.step(now);
                    if let Some(reason) = self.stop.take() {
                        self.close();
                        return Poll::Ready(reason);
                    }
                    self.arm(now);
                    self.stage = Stage::Listen;
                }
                Stage::Listen => {
                    ready!(self.poll_intake(cx));
                    self.shared.meters.wakes.add(1);
                    self.stage = Stage::Act;
                    if self.others_are_coming() {
                        // Whoever was answered together asks again together: those tasks are
                        // ready, and run before this one goes on. That makes one batch of what
                        // would be many.
                        self.stage = Stage::ListenAgain;
                        if pin!(tokio::task::yield_now()).poll(cx).is_pending() {
                            return Poll::Pending;
                        }
                    }
                }
                Stage::ListenAgain => {
                    let _ = self.poll_intake(cx);
                    self.stage = Stage::Act;
                }
            }
        }
    }

    /// Whether more requests wait than were seen, while some that were seen are to be batched.
    fn others_are_coming(&self) -> bool {
        let seen = self.intake.requests.len();
        seen > 0 && self.shared.waiting() > seen
    }

    /// Acts upon everything that was taken in.
    fn step(&mut self, now: Time) {
        self.on_events(now);
        self.on_done(now);
        self.on_applied(now);
        self.queue.measure(now);
        let count = self.intake.requests.len() as u64;
        self.shared.meters.requests.add(count);
        self.take_requests(now);
        if self.timer.wake_at.is_some_and(|at| at <= now) {
            self.replica.handle_timeout(now);
        }
        self.make_way(now);
        self.begin_changes(now);
        self.serve_pages(now);
        self.tend_snapshots(now);
        self.greet_again(now);
        // What was committed, or a change of leadership, makes room for what waits.
        while self.stop.is_none() {
            self.dispatch(now);
            self.dispatch_reads(now);
            let progress = self.drain(now);
            let waits = !self.queue.is_empty() || self.reads.wants_ticket();
            if !progress || !waits {
                break;
            }
        }
        self.settle_transfer(now);
        self.follow_members(now);
        self.tend(now);
        self.publish(now);
        self.settle_changes();
    }

    /// Takes in everything that is ready.
    fn poll_intake(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let intake = &mut self.intake;
        while intake.events.len() < EVENTS_MAX {
            match self.transport.poll_event(cx) {
                Poll::Ready(Some(event)) => intake.events.push(event),
                Poll::Ready(None) => {
                    self.stop = Some(StopReason::Transport);
                    return Poll::Ready(());
                }
                Poll::Pending => break,
            }
        }
        let mut ready = !intake.events.is_empty();
        if !intake.requests_closed {
            let requests = &mut intake.requests;
            if let Poll::Ready(count) = self.requests.poll_recv_many(cx, requests, REQUESTS_MAX) {
                intake.requests_closed = count == 0;
                ready = true;
            }
        }
        // The applier holds a sender as long as this task runs.
        if let Poll::Ready(count) = self.done.poll_recv_many(cx, &mut intake.done, EVENTS_MAX)
            && count > 0
        {
            ready = true;
        }
        ready |= self.shared.poll_nudged(cx);
        if self.timer.armed.is_some() && self.timer.alarm.poll_ring(cx).is_ready() {
            self.timer.armed = None;
            ready = true;
        }
        if ready { Poll::Ready(()) } else { Poll::Pending }
    }

    fn on_events(&mut self, now: Time) {
        let mut events = core::mem::take(&mut self.intake.events);
        for event in events.drain(..) {
            match event {
                TransportEvent::Frame { from, channel, bytes } => match channel {
                    Channel::Core => match paxos_core::codec::decode(bytes) {
                        // Values would take the room that promises and trims still need. For the
                        // protocol the message is lost: others vote, and it is fetched later. Nor
                        // is the lead of any use here.
                        Ok(message) if self.room == Room::Full && needs_space(&message) => {
                            self.shared.meters.dropped_no_room.add(1);
                        }
                        Ok(message) => {
                            self.note_pulse(from, &message, now);
                            self.trace(now, || Event::Received { from, packet: packet(&message) });
                            self.replica.handle_message(from, message, now);
                        }
                        Err(error) => {
                            tracing::debug!(replica = %self.id, %from, %error, "dropped a frame");
                            self.shared.meters.dropped_undecodable.add(1);
                        }
                    },
                    Channel::Host => self.on_host_frame(from, bytes, now),
                    Channel::Snapshot => self.on_snapshot_frame(from, bytes, now),
                },
                TransportEvent::Up { peer, incarnation } => {
                    tracing::info!(replica = %self.id, %peer, life = %incarnation, "link up");
                    self.pulses.forget(peer);
                    if self.lives.insert(peer, incarnation) != Some(incarnation) {
                        self.on_link_lost(peer);
                        self.snapshots.on_down(peer);
                        self.greet(peer, now);
                    }
                }
                TransportEvent::Down { peer, reason } => {
                    tracing::info!(replica = %self.id, %peer, reason, "link down");
                    self.lives.remove(&peer);
                    self.releases.on_down(peer);
                    self.on_link_lost(peer);
                    self.snapshots.on_down(peer);
                }
                TransportEvent::Refused { peer, reason } => {
                    let peer = peer.map_or("unknown".to_owned(), |peer| peer.to_string());
                    tracing::warn!(replica = %self.id, peer, reason, "link refused");
                }
                // The core retransmits by itself, and dispatch tries again with every step.
                TransportEvent::Drained { .. } => {}
            }
        }
        self.intake.events = events;
    }

    fn note_pulse(&mut self, from: ReplicaId, message: &Message, now: Time) {
        let interval = self.config.heartbeat_interval;
        if matches!(message.body, Body::Heartbeat(_))
            && let Some(delay) = self.pulses.heard(from, interval, now)
        {
            self.shared.meters.heartbeat_delay.record_duration(delay);
        }
    }

    fn on_done(&mut self, now: Time) {
        let mut finished = core::mem::take(&mut self.intake.done);
        for done in finished.drain(..) {
            match done {
                Done::Durable(proofs, room) => {
                    self.on_room(room);
                    if let Some(waited) = self.disk.proved(proofs.len(), now) {
                        tracing::info!(replica = %self.id, ?waited, "storage writes again");
                    }
                    for proof in proofs {
                        let through = proof.through();
                        self.trace(now, || Event::Durable { through });
                        self.replica.handle_durable(proof, now);
                    }
                }
                Done::Loaded(ticket, loaded) => {
                    self.trace(now, || Event::Loaded { values: loaded.values.len() });
                    if let Some(loaded) = self.serve_loaded(ticket, loaded) {
                        self.replica.handle_loaded(ticket, loaded, now);
                    }
                }
                Done::Given(given) => self.on_given(given, now),
                Done::Brought(brought) => self.on_brought(brought, now),
                Done::Restored(meta) => self.on_restored(&meta, now),
                Done::Marked(mark) => self.on_marked(mark),
                Done::Failed(reason) => {
                    self.stop = Some(reason);
                    break;
                }
            }
        }
        finished.clear();
        self.intake.done = finished;
    }

    fn on_applied(&mut self, now: Time) {
        let intake = &mut self.intake;
        // A state machine that has jumped to a snapshot is ahead until the replica jumps too.
        let applied = self.shared.applied().min(intake.handed);
        if applied > intake.reported {
            intake.reported = applied;
            if applied == intake.handed {
                intake.unreported_bytes = 0;
            }
            self.trace(now, || Event::Applied { through: applied });
            self.replica.handle_applied(applied, now);
        }
    }

    /// Carries out the replica's outputs until there is none; whether something was committed or
    /// the leadership changed.
    fn drain(&mut self, now: Time) -> bool {
        let mut values = Vec::new();
        while self.stop.is_none() {
            match self.replica.poll_output() {
                Output::Send { to, message } => self.send(to, &message, now),
                Output::Persist(batch) => {
                    self.trace(now, || Event::Persist {
                        sequence: batch.sequence(),
                        writes: batch.writes().to_vec(),
                    });
                    self.disk.asked(now);
                    match self.intake.jobs.last_mut() {
                        Some(Job::Persist(batches)) => batches.push(batch),
                        _ => self.intake.jobs.push(Job::Persist(vec![batch])),
                    }
                }
                Output::Load { ticket, range } => {
                    self.shared.meters.loads.add(1);
                    let (from, through) = (range.from, range.through);
                    self.trace(now, || Event::Load { from, through });
                    self.intake.jobs.push(Job::Load(ticket, range));
                }
                Output::Apply { slot, value } => {
                    self.trace(now, || Event::Apply { slot, value: value.clone() });
                    let bytes = value.encoded_len();
                    self.intake.unreported_bytes += bytes;
                    self.snapshots.handed_out(slot, bytes);
                    self.intake.handed = slot;
                    values.push((slot, value));
                }
                Output::ReadsReady { through, point } => self.on_reads_ready(through, point, now),
                Output::ReadsLost { through } => self.on_reads_lost(through, now),
                Output::QuorumReadsReady { through, point } => {
                    self.on_quorum_reads_ready(through, point, now);
                }
                Output::QuorumReadsLost { through, reason } => {
                    self.on_quorum_reads_lost(through, reason, now);
                }
                Output::SnapshotWanted { from, above } => {
                    self.trace(now, || Event::SnapshotWanted { from, above });
                    self.on_snapshot_wanted(from, above, now);
                }
                Output::Halt(halt) => {
                    self.trace(now, || Event::Halted { reason: halt.clone() });
                    self.end_changes(&halt);
                    self.stop = Some(StopReason::Halt(halt));
                    // What the replica must remember of it was given before. Nobody waits for the
                    // proof, but the end of the journal's thread is waited for.
                    let intake = &mut self.intake;
                    self.journal.submit(&mut intake.jobs, &mut intake.done);
                }
                Output::Idle { wake_at } => {
                    self.timer.wake_at = wake_at;
                    if self.intake.jobs.is_empty() {
                        break;
                    }
                    let intake = &mut self.intake;
                    self.journal.submit(&mut intake.jobs, &mut intake.done);
                    if intake.done.is_empty() {
                        break;
                    }
                    self.on_done(now);
                }
            }
        }
        let committed = self.hand_out(values, now);
        self.refresh(now) || committed
    }

    fn send(&mut self, to: Recipients, message: &Message, now: Time) {
        let frame = router::frame(message);
        match to {
            Recipients::One(peer) => {
                let sent = self.transport.send(peer, frame);
                self.count(sent);
                self.trace_sent(peer, message, sent, now);
            }
            Recipients::AllPeers => {
                for place in 0..self.replica.peers().len() {
                    let peer = self.replica.peers()[place];
                    let sent = self.transport.send(peer, frame.clone());
                    self.count(sent);
                    self.trace_sent(peer, message, sent, now);
                }
            }
        }
    }

    /// Shows an event to whoever asked to see them.
    pub(crate) fn trace(&self, now: Time, event: impl FnOnce() -> Event) {
        if let Some(sink) = &self.options.trace {
            sink.event(now, self.id, &event());
        }
    }

    fn trace_sent(&self, to: ReplicaId, message: &Message, sent: Sent, now: Time) {
        let delivery = match sent {
            Sent::Queued => Delivery::Sent,
            Sent::Down => Delivery::Cut,
            Sent::Full | Sent::TooLarge => Delivery::Full,
        };
        self.trace(now, || Event::Sent { to, delivery, packet: packet(message) });
    }

    pub(crate) fn send_host(&mut self, to: ReplicaId, frame: Frame) -> Sent {
        let sent = self.transport.send(to, frame);
        self.count(sent);
        sent
    }

    fn count(&self, sent: Sent) {
        let meters = &self.shared.meters;
        match sent {
            Sent::Queued => {}
            Sent::Full => meters.dropped_full.add(1),
            Sent::Down => meters.dropped_down.add(1),
            Sent::TooLarge => meters.dropped_too_large.add(1),
        }
    }

    fn hand_out(&mut self, values: Vec<(Slot, Value)>, now: Time) -> bool {
        let Some((last, _)) = values.last() else {
            return false;
        };
        let last = *last;
        self.end_rounds(last, now);
        let intake = &self.intake;
        let slots = last.distance_from(self.shared.applied());
        // The replica waits when this bound is reached, so it hears in good time.
        let nudge = slots * 4 >= u64::from(self.config.apply_slots_max)
            || intake.unreported_bytes * 4 >= self.config.apply_bytes_max;
        // The applier's end is reported through `done`.
        let _ = self.apply.send(Item::Values { values, nudge });
        true
    }

    /// What was proposed up to this slot has landed. What stands above is still on its way.
    pub(crate) fn end_rounds(&mut self, last: Slot, now: Time) {
        while self.rounds.front().is_some_and(|round| round.slot <= last) {
            let Some(round) = self.rounds.pop_front() else { break };
            self.shared.meters.round.record_duration(now.since(round.begin));
            for (peer, bytes) in round.forwards {
                self.queue.land(peer, bytes);
            }
        }
    }

    fn on_room(&mut self, room: Room) {
        if room != core::mem::replace(&mut self.room, room) {
            match room {
                Room::Full => {
                    tracing::warn!(replica = %self.id, "storage full: commands are refused");
                }
                Room::Ample => {
                    tracing::info!(replica = %self.id, "storage has space again");
                    self.note_space();
                }
            }
            self.timer.published = None;
        }
    }

    /// Takes note of who leads; whether that changed.
    fn refresh(&mut self, now: Time) -> bool {
        let (leads, leader) = (self.replica.role() == Role::Leader, self.replica.leader());
        if (leads, leader) == (self.leads, self.leader) {
            return false;
        }
        match leader {
            Some(ballot) if leads => tracing::info!(replica = %self.id, %ballot, "leads"),
            Some(ballot) => {
                tracing::info!(replica = %self.id, leader = %ballot.leader(), %ballot, "follows");
            }
            None if self.leader.is_some() => tracing::warn!(
                replica = %self.id,
                "lost its leader: until a majority is up and connected nothing is served"
            ),
            None => tracing::info!(replica = %self.id, "knows no leader"),
        }
        self.reads.give_up_on(|asked| leader.map(Ballot::leader) != Some(asked));
        if let Some(ballot) = leader {
            self.succession.on_leader(ballot, now);
            self.queue.hurry();
        }
        if !leads {
            self.rounds.clear();
            self.queue.forget_peers();
            let askers = self.reads.lost(ReadTicket::MAX);
            self.refuse_points(askers);
        }
        (self.leads, self.leader) = (leads, leader);
        let role = self.replica.role();
        self.trace(now, || Event::Role { role, leader });
        self.timer.published = None;
        true
    }

    /// Writes down what others may see: gauges each time, the rest with each heartbeat, for it
    /// takes locks and copies.
    fn publish(&mut self, now: Time) {
        let meters = &self.shared.meters;
        meters.requests_waiting.set(self.shared.waiting());
        meters.requests_pending.set(self.queue.pending());
        meters.forwards_unanswered.set(self.forwarder.unanswered());
        let slots = self.intake.handed.distance_from(self.shared.applied());
        meters.apply_slots_waiting.set(slots as usize);
        let interval = self.config.heartbeat_interval;
        let fresh = self.timer.published.is_some_and(|at| now.since(at) < interval);
        if fresh && self.stop.is_none() {
            return;
        }
        self.timer.published = Some(now);
        let status = self.replica.status();
        let disagreeing = status.disagreeing.clone();
        let known = self.shared.published(|published| {
            (published.at, published.room) = (now, self.room);
            published.core = self.replica.counters();
            published.transport = self.transport.counters();
            published.snapshots = self.snapshots.status();
            published.comparison = self.comparison.status();
            published.levels = self.releases.levels(self.replica.peers());
            if published.membership != *self.replica.membership() {
                published.membership.clone_from(self.replica.membership());
            }
            published.memberships = self.replica.memberships();
            core::mem::replace(&mut published.status, status).disagreeing
        });
        let replica = self.id;
        for (peer, what) in disagreeing {
            if !known.contains(&(peer, what)) {
                tracing::warn!(%replica, %peer, "{peer} {what} than this one, and is not heeded");
            }
        }
        // After the status, so that whoever is told of a change finds it there.
        self.shared.events.send_if_modified(|state| {
            let modified = (state.leader, state.is_leader) != (self.leader, self.leads);
            (state.leader, state.is_leader) = (self.leader, self.leads);
            modified
        });
        let leadership = match self.leader {
            Some(ballot) if self.leads => Leadership::Leads(ballot),
            Some(ballot) => Leadership::Follows(ballot),
            None => Leadership::Unknown,
        };
        self.shared
            .leadership
            .send_if_modified(|state| core::mem::replace(state, leadership) != leadership);
    }

    /// Looks through the queues now and then: for what nobody waits for, for space on the disk, and
    /// for the end.
    fn tend(&mut self, now: Time) {
        match self.shared.closing() {
            Closing::No => {}
            Closing::Graceful => {
                let close_by = now.after(self.options.shutdown_timeout);
                let close_by = *self.timer.close_by.get_or_insert(close_by);
                let idle = self.shared.waiting() == 0 && self.queue.is_empty();
                if (idle && !self.is_succession_open(now)) || now >= close_by {
                    self.stop.get_or_insert(StopReason::Shutdown);
                }
            }
            Closing::AtOnce => {
                self.stop.get_or_insert(StopReason::Shutdown);
            }
        }
        self.depose(now);
        if now.since(self.timer.tended) < SWEEP_INTERVAL {
            return;
        }
        self.timer.tended = now;
        self.expire(now);
        if let Some(waited) = self.disk.overdue(now, self.config.disk_stall) {
            tracing::warn!(replica = %self.id, ?waited, "slow storage: a write has not returned");
        }
        if self.room == Room::Full && self.stop.is_none() {
            // Room changes within a write alone, and nothing is written while nothing is taken.
            let intake = &mut self.intake;
            intake.jobs.push(Job::Persist(Vec::new()));
            self.journal.submit(&mut intake.jobs, &mut intake.done);
            self.on_done(now);
        }
    }

    /// Sets the timer to the next moment at which something is due. One that rings early is
    /// harmless, and setting it anew each time is not free.
    fn arm(&mut self, now: Time) {
        let mut due = self.timer.wake_at;
        let reads = !self.reads.is_empty() || !self.quorum_reads.is_empty();
        let mut at_latest = |at: Time| due = Some(due.map_or(at, |due| due.min(at)));
        let waits = !self.queue.is_empty() || self.forwarder.unanswered() > 0 || reads;
        if waits || self.room == Room::Full {
            at_latest(self.timer.tended.after(SWEEP_INTERVAL));
        }
        if let Some(at) = self.queue.retry_at()
            && at > now
        {
            at_latest(at);
        }
        if let Some(at) = self.succession.due() {
            at_latest(at);
        }
        if let Some(at) = self.reads.wake_at()
            && at > now
        {
            at_latest(at);
        }
        if let Some(at) = self.handover.due()
            && at > now
        {
            at_latest(at);
        }
        if let Some(at) = self.changes.due() {
            at_latest(at);
        }
        if let Some(at) = self.snapshots_wake_at(now) {
            at_latest(at);
        }
        if let Some(at) = self.releases.wake_at() {
            at_latest(at);
        }
        if self.timer.close_by.is_some() {
            at_latest(now.after(self.closing_pace()));
        }
        let Some(due) = due else { return };
        if self.timer.armed.is_none_or(|armed| due < armed) {
            self.timer.alarm.set(due);
            self.timer.armed = Some(due);
        }
    }

    /// Answers everybody whom this task can answer.
    fn close(&mut self) {
        self.turn_away(crate::frame::Refusal::NotLeader);
        self.requests.close();
        while let Ok(request) = self.requests.try_recv() {
            self.intake.requests.push(request);
        }
        let rejected = ClientError::Rejected(Rejection::Stopped);
        let arrived = self.intake.requests.drain(..).map(|request| request.into_waiting().1);
        let (readers, askers) = self.reads.drain();
        let readers = readers.into_iter().chain(self.quorum_reads.drain());
        let waiting: Vec<_> = arrived.chain(self.queue.drain_pending()).chain(readers).collect();
        for waiting in waiting {
            self.shared.turn_down(waiting, rejected.clone());
        }
        self.refuse_points(askers);
        // The applier may have ended before.
        let _ = self.apply.send(Item::Stop);
    }
}

fn packet(message: &Message) -> Packet {
    Packet::Shared(Arc::new(message.clone()))
}

/// Whether a message makes its receiver write values, now or as the next leader.
fn needs_space(message: &Message) -> bool {
    matches!(message.body, Body::Accept(_) | Body::Fetched(_) | Body::Transfer(_))
}
