//! How what is due happens, and how outputs are executed.

use super::check::Invariant;
use super::cluster::{Cluster, Due};
use super::fault::{Cue, Fact};
use super::host::{Process, Stimulus};
use super::kind::Kind;
use super::marks::Mark;
use super::network::Fate;
use super::node::{Job, Node, Seen};
use crate::codec;
use crate::durable::{WriteBatch, WriteSequence};
use crate::ids::{ReplicaId, Slot, Time};
use crate::message::{Body, Message};
use crate::output::{Halt, LoadTicket, Output, Recipients, Role, Status};
use crate::port::LoadRange;
use crate::replica::Replica;
use crate::trace::{Delivery, Event, Packet, Sealed};
use crate::value::Value;
use bytes::{Bytes, BytesMut};
use core::time::Duration;
use std::sync::Arc;

/// More outputs than this for one input mean that they never end.
const OUTPUTS_MAX: usize = 100_000;

impl Cluster {
    pub(super) fn happen(&mut self, due: Due) {
        let (id, life) = match &due {
            Due::Client(client) => return self.client_acts(*client),
            Due::Links => return self.tend_links(),
            Due::Restart(id, life) => {
                if self.node(*id).life == *life {
                    self.restart(*id);
                }
                return;
            }
            Due::Deliver { to, .. } | Due::Parcel { to, .. } => (*to, None),
            Due::Disk(id, life)
            | Due::Timer(id, life)
            | Due::Applied(id, life)
            | Due::Snapshot(id, life, _)
            | Due::Asked(id, life)
            | Due::Part(id, life, _)
            | Due::Link(id, life, ..) => (*id, Some(*life)),
        };
        let node = self.node(id);
        if !node.is_up() || life.is_some_and(|life| life != node.life) {
            return;
        }
        if node.paused_until > self.now {
            return self.queue(node.paused_until, due);
        }
        match due {
            Due::Deliver { from, packet, .. } => {
                if self.trouble.is_lurking()
                    && let Some(message) = packet.open()
                {
                    self.cue(id, Cue::Hearing(Kind::of(&message.body)));
                    if !self.node(id).is_up() {
                        return;
                    }
                }
                self.totals.delivered += 1;
                let event = Event::Received { from, packet };
                self.log(id, &event);
                if let Event::Received { packet, .. } = event {
                    self.deliver(id, from, packet);
                }
            }
            Due::Parcel { from, parcel, .. } => self.parcel(id, from, parcel),
            Due::Snapshot(_, _, task) => self.snapshot_step(id, task),
            Due::Disk(..) => self.disk_is_done(id),
            Due::Timer(..) => {
                if self.node(id).armed.is_some_and(|at| at <= self.now) {
                    self.node_mut(id).armed = None;
                    self.log(id, &Event::Timeout);
                    if self.fleet.is_some() {
                        return self.turn(id, Stimulus::Timer);
                    }
                    self.input(id, Replica::handle_timeout);
                }
            }
            Due::Applied(..) => {
                let node = self.node_mut(id);
                node.applying = false;
                node.applied_said = node.applied;
                let through = node.applied;
                self.log(id, &Event::Applied { through });
                self.input(id, |replica, now| replica.handle_applied(through, now));
            }
            Due::Asked(..) => self.turn(id, Stimulus::Asked),
            Due::Part(_, _, part) => self.turn(id, Stimulus::Part(part)),
            Due::Link(_, _, peer) => self.tell_link(id, peer),
            Due::Client(_) | Due::Restart(..) | Due::Links => {}
        }
    }

    /// Calls a replica that is up, and executes what comes of it.
    pub(super) fn input(&mut self, id: ReplicaId, call: impl FnOnce(&mut Replica, Time)) {
        let now = self.now;
        let node = self.node_mut(id);
        let local = node.clock.local(now);
        if let Some(replica) = node.process.as_mut().and_then(Process::replica) {
            call(replica, local);
        }
        self.drain(id);
    }

    pub(super) fn drain(&mut self, id: ReplicaId) {
        self.notice_reign(id);
        for _ in 0..OUTPUTS_MAX {
            let process = self.node_mut(id).process.as_mut();
            let Some(replica) = process.and_then(Process::replica) else {
                return;
            };
            match replica.poll_output() {
                Output::Send { to, message } => self.send(id, to, message),
                Output::Persist(batch) => {
                    self.check.handed_out(id, &batch);
                    self.observe(|observer| observer.handed_out(id, &batch));
                    let (sequence, writes) = (batch.sequence(), batch.writes().to_vec());
                    self.log(id, &Event::Persist { sequence, writes });
                    self.node_mut(id).jobs.push_back(Job::Persist(batch));
                }
                Output::Load { ticket, range } => {
                    self.totals.loads += 1;
                    let LoadRange { from, through, .. } = range;
                    self.log(id, &Event::Load { from, through });
                    self.node_mut(id).jobs.push_back(Job::Load(ticket, range));
                }
                Output::Apply { slot, value } => self.apply(id, slot, &value),
                Output::ReadsReady { through, point } => self.reads_ready(id, through, point),
                Output::ReadsLost { through } => self.reads_lost(id, through),
                Output::QuorumReadsReady { through, point } => {
                    self.quorum_reads_ready(id, through, point);
                }
                Output::QuorumReadsLost { through, reason } => {
                    self.quorum_reads_lost(id, through, reason);
                }
                Output::SnapshotWanted { from, above } => self.snapshot_wanted(id, from, above),
                Output::Halt(halt) => return self.halt(id, halt),
                Output::Idle { wake_at } => {
                    self.arm(id, wake_at);
                    return self.settle(id);
                }
            }
        }
        self.check.fail(Invariant::Progress, || format!("the outputs of {id} never end"));
    }

    /// Tells the monitor what a bare replica became, before anything that it did because of that.
    fn notice_reign(&mut self, id: ReplicaId) {
        let process = self.node_mut(id).process.as_mut();
        if let Some(replica) = process.and_then(Process::replica) {
            let leads = replica.role() == Role::Leader;
            let reign = if leads { replica.leader() } else { None };
            let committed = replica.committed();
            self.observe(|observer| observer.became(id, reign, committed));
        }
    }

    /// Tells the trace what changed about a replica.
    fn notice(&mut self, id: ReplicaId, status: &Status) {
        let Status { role, leader, committed, .. } = *status;
        let apply_max = self.node(id).config.apply_slots_max;
        self.watch.observed(id, status, self.options.window, apply_max);
        let seen = Seen { role: Some(role), leader, committed };
        let before = core::mem::replace(&mut self.node_mut(id).seen, seen);
        if (before.role, before.leader) != (seen.role, leader) {
            self.log(id, &Event::Role { role, leader });
        }
        if before.committed != committed {
            self.log(id, &Event::Committed { through: committed });
        }
    }

    /// After a replica's outputs: looks at it, and starts its disk.
    pub(super) fn settle(&mut self, id: ReplicaId) {
        let Some(status) = self.status(id) else {
            return;
        };
        self.check.observed(id, &status);
        self.notice(id, &status);
        if self.trouble.is_lurking() {
            self.cue_settled(id);
        }
        let node = self.node_mut(id);
        if !node.is_up() {
            return;
        }
        let life = node.life;
        if node.busy == 0 && !node.jobs.is_empty() && !node.disk_held {
            node.busy = node.jobs.len();
            let slow =
                if node.is_writing(Fact::Any) { node.storage.delay() } else { Duration::ZERO };
            let delay_max = self.options.disk_delay_max;
            let delay = self.rng.duration(Duration::from_micros(10), delay_max) + slow;
            self.queue(self.now.after(delay), Due::Disk(id, life));
        }
        let node = self.node(id);
        // A host's state machine works in a part of the host.
        let is_bare = matches!(node.process, Some(Process::Replica(_)));
        if is_bare && !node.applying && node.applied > node.applied_said {
            let delay_max = self.options.apply_delay_max;
            let delay = self.rng.duration(Duration::ZERO, delay_max);
            self.queue(self.now.after(delay), Due::Applied(id, life));
            self.node_mut(id).applying = true;
        }
    }

    pub(super) fn arm(&mut self, id: ReplicaId, wake_at: Option<Time>) {
        let now = self.now;
        let node = self.node_mut(id);
        node.wake_at = wake_at;
        let Some(local) = wake_at else {
            node.armed = None;
            return;
        };
        let at = node.clock.global(local).max(now);
        let life = node.life;
        if node.armed != Some(at) {
            node.armed = Some(at);
            self.queue(at, Due::Timer(id, life));
        }
    }

    pub(super) fn halt(&mut self, id: ReplicaId, halt: Halt) {
        self.log(id, &Event::Halted { reason: halt.clone() });
        if let Halt::Removed { epoch, .. } = halt {
            self.check.removed(id, epoch);
            self.is_removed(id);
        } else if !matches!(halt, Halt::Refused { .. }) || !self.is_lost(id) {
            self.check.fail(Invariant::NoHalt, || format!("{id}: {halt}"));
        }
        self.totals.refusals += u64::from(matches!(halt, Halt::Refused { .. }));
        self.crash(id);
        self.node_mut(id).halted = Some(halt);
    }

    fn send(&mut self, from: ReplicaId, to: Recipients, message: Message) {
        let kind = Kind::of(&message.body);
        let single = match to {
            Recipients::One(peer) => Some(peer),
            Recipients::AllPeers => None,
        };
        self.check_sent(from, single, &message);
        let packet = if self.options.codec {
            Packet::Encoded(Sealed::new(join(codec::encode(&message))))
        } else {
            Packet::Shared(Arc::new(message))
        };
        match to {
            Recipients::One(peer) => self.post(from, peer, kind, &packet),
            Recipients::AllPeers => {
                // Whoever votes may change, and with them the peers.
                let peers: Vec<ReplicaId> = match &self.node(from).process {
                    Some(Process::Replica(replica)) => replica.peers().to_vec(),
                    Some(Process::Host(_)) | None => self.ids().collect(),
                };
                for peer in peers.into_iter().filter(|peer| *peer != from) {
                    self.post(from, peer, kind, &packet);
                }
            }
        }
        if self.trouble.is_lurking() {
            self.cue(from, Cue::Sending(kind));
        }
    }

    pub(super) fn check_sent(&mut self, from: ReplicaId, to: Option<ReplicaId>, message: &Message) {
        let committed = if matches!(message.body, Body::Accept(_)) {
            self.status(from).map_or(Slot::ZERO, |status| status.committed)
        } else {
            Slot::ZERO
        };
        self.check.sent(from, message, committed);
        self.observe(|observer| observer.left(from, to, message));
        self.watch.sent(from, message);
    }

    pub(super) fn post(&mut self, from: ReplicaId, to: ReplicaId, kind: Kind, packet: &Packet) {
        if self.keeps(from, to, kind, packet) {
            return;
        }
        let paced = self.network.is_paced(from, to);
        let message = if paced { packet.open() } else { None };
        let values = match message {
            Some(Message { body: Body::Accept(accept), .. }) => accept.values.len(),
            Some(Message { body: Body::Fetched(fetched), .. }) => fetched.values.len(),
            _ => 1,
        };
        let fate = self.network.fate_of(from, to, kind, values, self.now);
        self.totals.lost[kind.index()] += u64::from(fate == Fate::Lost);
        if kind == Kind::Promise && matches!(fate, Fate::Lost | Fate::Cut) {
            packet.open().iter().for_each(|message| self.watch.lost(from, message));
        }
        self.totals.repeated[kind.index()] += u64::from(matches!(fate, Fate::Twice(..)));
        self.meet(from, to, packet, fate);
    }

    /// Lets a packet have its fate.
    pub(super) fn meet(&mut self, from: ReplicaId, to: ReplicaId, packet: &Packet, fate: Fate) {
        let (delivery, delay, again) = match fate {
            Fate::Cut => (Delivery::Cut, None, None),
            Fate::Lost => (Delivery::Lost, None, None),
            Fate::Once(delay) => (Delivery::Sent, Some(delay), None),
            Fate::Twice(delay, again) => (Delivery::Twice, Some(delay), Some(again)),
        };
        let event = Event::Sent { to, delivery, packet: packet.clone() };
        self.log(from, &event);
        let Event::Sent { packet, .. } = event else { return };
        if let Some(again) = again {
            let packet = packet.clone();
            self.queue(self.now.after(again), Due::Deliver { from, to, packet });
        }
        if let Some(delay) = delay {
            self.queue(self.now.after(delay), Due::Deliver { from, to, packet });
        }
    }

    pub(super) fn apply(&mut self, id: ReplicaId, slot: Slot, value: &Value) {
        self.log(id, &Event::Apply { slot, value: value.clone() });
        self.check.applied(id, slot, value);
        self.observe(|observer| observer.applied(id, slot, value));
        self.node_mut(id).applied = slot;
        self.resolve_attempts(id, slot, value);
    }

    fn disk_is_done(&mut self, id: ReplicaId) {
        // The queue keeps what is not done yet, so that a crash in between finds it there.
        let mut left = self.node(id).busy;
        while left > 0 && self.node(id).is_up() {
            let node = self.node_mut(id);
            let mut batches = Vec::new();
            // As the host does: all writes up to the next read in one call.
            while left > 0 {
                match node.jobs.pop_front() {
                    Some(Job::Persist(batch)) => batches.push(batch),
                    Some(Job::Load(ticket, range)) if batches.is_empty() => {
                        left -= 1;
                        self.load(id, ticket, range);
                        break;
                    }
                    Some(Job::Look) if batches.is_empty() => {
                        left -= 1;
                        self.persist(id, Vec::new());
                        break;
                    }
                    Some(other @ (Job::Load(..) | Job::Look)) => {
                        node.jobs.push_front(other);
                        break;
                    }
                    None => break,
                }
                left -= 1;
            }
            if !batches.is_empty() {
                self.persist(id, batches);
            }
        }
        self.node_mut(id).busy = 0;
        self.settle(id);
    }

    fn persist(&mut self, id: ReplicaId, batches: Vec<WriteBatch>) {
        let facts = if self.trouble.is_lurking() { facts_of(&batches) } else { Vec::new() };
        let storage = &mut self.node_mut(id).storage;
        let proofs = match storage.persist(batches) {
            Ok(proofs) => proofs,
            Err(error) => return self.storage_failed(id, error),
        };
        let room = storage.room();
        self.cue_written(id, &facts);
        if !self.node(id).is_up() {
            return;
        }
        if self.fleet.is_some() {
            for proof in &proofs {
                self.proved(id, proof.through());
            }
            return self.turn(id, Stimulus::Durable(proofs, room));
        }
        for proof in proofs {
            self.proved(id, proof.through());
            self.input(id, |replica, now| replica.handle_durable(proof, now));
        }
    }

    /// A disk proved what was written to it, which may make values chosen.
    fn proved(&mut self, id: ReplicaId, through: WriteSequence) {
        self.check.attested(id, through);
        self.observe(|observer| observer.attested(id, through));
        self.compare_observers();
        self.log(id, &Event::Durable { through });
        let fresh = self.check.take_chosen();
        if !fresh.is_empty() {
            self.place_newcomers();
        }
        for (slot, ballot) in fresh {
            if let Some(value) = self.check.chosen(slot).cloned() {
                self.log(id, &Event::Chosen { slot, ballot, value });
            }
            self.compare_leases(slot, ballot);
        }
    }

    fn load(&mut self, id: ReplicaId, ticket: LoadTicket, range: LoadRange) {
        let loaded = match self.node_mut(id).storage.load(range) {
            Ok(loaded) => loaded,
            Err(error) => return self.storage_failed(id, error),
        };
        self.check.loaded(id, range.from, &loaded.values);
        self.log(id, &Event::Loaded { values: loaded.values.len() });
        if self.fleet.is_some() {
            return self.turn(id, Stimulus::Loaded(ticket, loaded));
        }
        self.input(id, |replica, now| {
            replica.handle_loaded(ticket, loaded, now);
        });
    }
}

/// The kinds of facts in these batches.
fn facts_of(batches: &[WriteBatch]) -> Vec<Fact> {
    let states = |fact: &Fact| {
        let mut writes = batches.iter().flat_map(WriteBatch::writes);
        writes.any(|write| fact.is_in(write))
    };
    Fact::ALL.into_iter().filter(states).collect()
}

/// What the receiver of a message gets: its bytes in one piece.
pub(super) fn join(mut chunks: Vec<Bytes>) -> Bytes {
    if chunks.len() == 1 {
        return chunks.remove(0);
    }
    let mut whole = BytesMut::with_capacity(chunks.iter().map(Bytes::len).sum());
    for chunk in &chunks {
        whole.extend_from_slice(chunk);
    }
    whole.freeze()
}

/// Every count of the lives that go on.
pub(super) fn count_living(cluster: &mut Cluster) {
    let living = cluster.nodes.iter().filter_map(|node: &Node| node.process.as_ref());
    for process in living {
        let counters = process.counters();
        cluster.totals.count(&counters);
        cluster.watch.counted(&counters);
    }
    let (governing, void) = cluster.check.memberships();
    cluster.watch.meet_often(Mark::MembershipGoverns, governing);
    cluster.watch.meet_often(Mark::MembershipVoid, void);
    cluster.totals.of_hosts = cluster.fleet.is_some();
    cluster.totals.marks.add(cluster.watch.marks());
    cluster.totals.events += cluster.trace.events();
}
