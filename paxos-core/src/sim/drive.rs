//! How what is due happens, and how outputs are executed.

use super::check::Invariant;
use super::cluster::{Cluster, Due};
use super::fault::{Fact, Moment};
use super::kind::Kind;
use super::network::Fate;
use super::node::{Job, Node};
use super::trace::{Event, Packet};
use crate::codec;
use crate::durable::WriteBatch;
use crate::ids::{ReplicaId, Slot, Time};
use crate::message::{Body, Message};
use crate::output::{Halt, LoadTicket, Output, Recipients};
use crate::port::LoadRange;
use crate::replica::Replica;
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
            Due::Restart(id, life) => {
                if self.node(*id).life == *life {
                    self.restart(*id);
                }
                return;
            }
            Due::Deliver { to, .. } => (*to, None),
            Due::Disk(id, life) | Due::Timer(id, life) | Due::Applied(id, life) => {
                (*id, Some(*life))
            }
        };
        let node = self.node(id);
        if node.replica.is_none() || life.is_some_and(|life| life != node.life) {
            return;
        }
        if node.paused_until > self.now {
            return self.queue(node.paused_until, due);
        }
        match due {
            Due::Deliver { from, to, packet } => {
                let message = packet.open();
                if self.trouble.is_lurking() {
                    self.meet(to, Moment::Hearing(Kind::of(&message.body)));
                    if self.node(to).replica.is_none() {
                        return;
                    }
                }
                self.totals.delivered += 1;
                self.log(id, Event::Receive(from, packet));
                self.input(id, |replica, now| {
                    replica.handle_message(from, message, now);
                });
            }
            Due::Disk(..) => self.disk_is_done(id),
            Due::Timer(..) => {
                if self.node(id).armed.is_some_and(|at| at <= self.now) {
                    self.node_mut(id).armed = None;
                    self.log(id, Event::Timeout);
                    self.input(id, Replica::handle_timeout);
                }
            }
            Due::Applied(..) => {
                let node = self.node_mut(id);
                node.applying = false;
                node.applied_said = node.applied;
                let through = node.applied;
                self.log(id, Event::Applied(through));
                self.input(id, |replica, now| replica.handle_applied(through, now));
            }
            Due::Client(_) | Due::Restart(..) => {}
        }
    }

    /// Calls a replica that is up, and executes what comes of it.
    fn input(&mut self, id: ReplicaId, call: impl FnOnce(&mut Replica, Time)) {
        let now = self.now;
        let node = self.node_mut(id);
        let local = node.clock.local(now);
        if let Some(replica) = &mut node.replica {
            call(replica, local);
        }
        self.drain(id);
    }

    pub(super) fn drain(&mut self, id: ReplicaId) {
        for _ in 0..OUTPUTS_MAX {
            let Some(replica) = &mut self.node_mut(id).replica else {
                return;
            };
            match replica.poll_output() {
                Output::Send { to, message } => self.send(id, to, message),
                Output::Persist(batch) => {
                    self.check.handed_out(id, &batch);
                    let (sequence, writes) = (batch.sequence(), batch.writes().len());
                    self.log(id, Event::Persist(sequence.number(), writes));
                    self.node_mut(id).jobs.push_back(Job::Persist(batch));
                }
                Output::Load { ticket, range } => {
                    self.totals.loads += 1;
                    self.log(id, Event::Load(range.from));
                    self.node_mut(id).jobs.push_back(Job::Load(ticket, range));
                }
                Output::Apply { slot, value } => self.apply(id, slot, &value),
                Output::Halt(halt) => return self.halt(id, halt),
                Output::Idle { wake_at } => {
                    self.arm(id, wake_at);
                    return self.settle(id);
                }
            }
        }
        self.check.fail(Invariant::Progress, || format!("the outputs of {id} never end"));
    }

    /// After a replica's outputs: looks at it, and starts its disk.
    fn settle(&mut self, id: ReplicaId) {
        let Some(status) = self.status(id) else {
            return;
        };
        self.check.observed(id, &status);
        if self.trouble.is_lurking() {
            self.meet_settled(id);
        }
        let node = self.node_mut(id);
        if node.replica.is_none() {
            return;
        }
        let life = node.life;
        if node.busy == 0 && !node.jobs.is_empty() {
            node.busy = node.jobs.len();
            let delay_max = self.options.disk_delay_max;
            let delay = self.rng.duration(Duration::from_micros(10), delay_max);
            self.queue(self.now.after(delay), Due::Disk(id, life));
        }
        let node = self.node(id);
        if !node.applying && node.applied > node.applied_said {
            let delay_max = self.options.apply_delay_max;
            let delay = self.rng.duration(Duration::ZERO, delay_max);
            self.queue(self.now.after(delay), Due::Applied(id, life));
            self.node_mut(id).applying = true;
        }
    }

    fn arm(&mut self, id: ReplicaId, wake_at: Option<Time>) {
        let now = self.now;
        let node = self.node_mut(id);
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

    fn halt(&mut self, id: ReplicaId, halt: Halt) {
        self.log(id, Event::Halt);
        if !matches!(halt, Halt::Refused { .. }) || !self.is_lost(id) {
            self.check.fail(Invariant::NoHalt, || format!("{id}: {halt}"));
        }
        self.totals.refusals += u64::from(matches!(halt, Halt::Refused { .. }));
        self.crash(id);
        self.node_mut(id).halted = Some(halt);
    }

    fn send(&mut self, from: ReplicaId, to: Recipients, message: Message) {
        let kind = Kind::of(&message.body);
        let replica = self.node(from).replica.as_ref();
        let committed = match (&message.body, replica) {
            (Body::Accept(_), Some(replica)) => replica.status().committed,
            _ => Slot::ZERO,
        };
        self.check.sent(from, &message, committed);
        let packet = if self.options.codec {
            Packet::Encoded(join(codec::encode(&message)))
        } else {
            Packet::Shared(Arc::new(message))
        };
        match to {
            Recipients::One(peer) => self.post(from, peer, kind, &packet),
            Recipients::AllPeers => {
                for peer in self.ids().filter(|peer| *peer != from) {
                    self.post(from, peer, kind, &packet);
                }
            }
        }
        if self.trouble.is_lurking() {
            self.meet(from, Moment::Sending(kind));
        }
    }

    fn post(&mut self, from: ReplicaId, to: ReplicaId, kind: Kind, packet: &Packet) {
        let fate = self.network.fate(from, to, kind, self.now);
        let (word, delays) = match fate {
            Fate::Cut => (" (cut)", [None, None]),
            Fate::Lost => (" (lost)", [None, None]),
            Fate::Once(delay) => ("", [Some(delay), None]),
            Fate::Twice(first, second) => (" (twice)", [Some(first), Some(second)]),
        };
        self.log(from, Event::Send(to, packet.clone(), word));
        self.totals.lost[kind.index()] += u64::from(fate == Fate::Lost);
        self.totals.repeated[kind.index()] += u64::from(delays[1].is_some());
        for delay in delays.into_iter().flatten() {
            let packet = packet.clone();
            self.queue(self.now.after(delay), Due::Deliver { from, to, packet });
        }
    }

    fn apply(&mut self, id: ReplicaId, slot: Slot, value: &Value) {
        self.log(id, Event::Apply(slot));
        self.check.applied(id, slot, value);
        self.node_mut(id).applied = slot;
        self.resolve_attempts(id, slot, value);
    }

    fn disk_is_done(&mut self, id: ReplicaId) {
        // The queue keeps what is not done yet, so that a crash in between finds it there.
        let mut left = self.node(id).busy;
        while left > 0 && self.node(id).replica.is_some() {
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
                    Some(read @ Job::Load(..)) => {
                        node.jobs.push_front(read);
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
        self.note_lives(id, &batches);
        let facts = if self.trouble.is_lurking() { facts_of(&batches) } else { Vec::new() };
        let proofs = self.node_mut(id).storage.persist(batches);
        self.meet_written(id, &facts);
        if self.node(id).replica.is_none() {
            return;
        }
        for proof in proofs.expect("simulated storage writes") {
            self.check.attested(id, proof.through());
            self.log(id, Event::Durable(proof.through().number()));
            self.input(id, |replica, now| replica.handle_durable(proof, now));
        }
    }

    fn load(&mut self, id: ReplicaId, ticket: LoadTicket, range: LoadRange) {
        let loaded = self.node_mut(id).storage.load(range);
        let loaded = loaded.expect("simulated storage reads");
        self.log(id, Event::Loaded(loaded.values.len()));
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
fn join(mut chunks: Vec<Bytes>) -> Bytes {
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
    let living = cluster.nodes.iter().filter_map(|node: &Node| node.replica.as_ref());
    for replica in living {
        cluster.totals.count(&replica.counters());
    }
    cluster.totals.events += cluster.trace.events();
}
