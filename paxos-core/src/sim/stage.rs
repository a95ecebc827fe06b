//! How hosts get their turns, and how what they do is carried out and shown to the observer.
//!
//! Owns: nothing; a part of the cluster. Everything of a host passes through here once: frames are
//! decoded and judged as they leave, writes as they are handed out, values as they are applied.
//! Invariant: what a host does is judged and carried out in the order in which it did it.

use super::check::Invariant;
use super::cluster::{Cluster, Due};
use super::drive::join;
use super::fault::Cue;
use super::host::{Act, Effect, Ending, Moment, Process, Stimulus, Tally};
use super::kind::Kind;
use super::node::Job;
use crate::codec;
use crate::durable::{Write, WriteBatch};
use crate::ids::{ReplicaId, Slot};
use crate::message::Body;
use crate::output::Role;
use crate::port::{Channel, Frame, LoadRange};
use crate::trace::{Event, Packet, Sealed};
use crate::value::Value;
use core::time::Duration;

/// A frame that left, to be recognised when it leaves for another peer too.
#[derive(Debug)]
struct Leaving {
    frame: Frame,
    packet: Packet,
    kind: Option<Kind>,
}

impl Leaving {
    /// Whether this is the same frame: bytes that are kept here cannot be others at the same place.
    fn is(&self, frame: &Frame) -> bool {
        let places = |frame: &Frame| {
            let place = |chunk: &bytes::Bytes| (chunk.as_ptr(), chunk.len());
            frame.chunks.iter().map(place).collect::<Vec<_>>()
        };
        self.frame.channel == frame.channel && places(&self.frame) == places(frame)
    }
}

impl Cluster {
    /// A packet arrives.
    pub(super) fn deliver(&mut self, id: ReplicaId, from: ReplicaId, packet: Packet) {
        if self.fleet.is_none() {
            let Some(message) = packet.open() else { return };
            self.observe(|observer| observer.delivered(from, id, &message));
            return self.input(id, |replica, now| replica.handle_message(from, message, now));
        }
        let (channel, bytes) = match packet {
            Packet::Encoded(sealed) => {
                let message = codec::decode(sealed.bytes().clone());
                let message = message.expect("what one replica encodes every replica decodes");
                self.observe(|observer| observer.delivered(from, id, &message));
                (Channel::Core, sealed.bytes().clone())
            }
            Packet::Host(sealed) => (Channel::Host, sealed.bytes().clone()),
            Packet::Snapshot(sealed) => (Channel::Snapshot, sealed.bytes().clone()),
            Packet::Shared(_) => return,
        };
        self.turn(id, Stimulus::Frame { from, channel, bytes });
    }

    /// Gives a host its turn, and carries out what it did.
    pub(super) fn turn(&mut self, id: ReplicaId, stimulus: Stimulus) {
        let now = self.now;
        let node = self.node_mut(id);
        let (local, wall) = (node.clock.local(now), node.clock.wall(now));
        let Some(Process::Host(host)) = &mut node.process else {
            return;
        };
        let mut effects = Vec::new();
        host.turn(stimulus, Moment { now, local, wall }, &mut effects);
        let status = host.status();
        let reign = status.leader.filter(|_| status.role == Role::Leader);
        let mut leaving = None;
        // What it says of itself after a jump is to be seen after the jump.
        let is_jump =
            |effect: &Effect| matches!(effect, Effect::SnapshotKept(_) | Effect::Installed(_));
        let jumps = effects.iter().take_while(|effect| is_jump(effect)).count();
        for effect in effects.drain(..jumps) {
            self.carry(id, effect, &mut leaving);
        }
        self.observe(|observer| observer.became(id, reign, status.committed));
        // A leader's Accept may find no room in the transport. What it proposed is then to be seen
        // from its own votes alone, which are handed out after the Accepts of later slots.
        for effect in &effects {
            if let Effect::Persist(batch) = effect {
                self.witness_votes(id, batch);
                self.observe(|observer| observer.proposes(id, batch));
            }
        }
        for effect in effects {
            // A host that stopped by itself is gone, and with it what it did last.
            if !self.node(id).is_up() {
                break;
            }
            self.carry(id, effect, &mut leaving);
        }
        self.settle(id);
        self.settle_clients();
    }

    fn carry(&mut self, id: ReplicaId, effect: Effect, leaving: &mut Option<Leaving>) {
        match effect {
            Effect::Send { to, frame } => {
                if !leaving.as_ref().is_some_and(|last| last.is(&frame)) {
                    *leaving = Some(self.look_at(id, to, frame));
                }
                if let Some(Leaving { packet, kind, .. }) = leaving {
                    if let Some(kind) = kind {
                        self.post(id, to, *kind, packet);
                        if self.trouble.is_lurking() {
                            self.cue(id, Cue::Sending(*kind));
                        }
                    } else {
                        let fate = self.network.host_fate(id, to, self.now);
                        self.meet(id, to, packet, fate);
                    }
                }
            }
            Effect::Persist(batch) => self.persists(id, batch),
            Effect::Look => self.node_mut(id).jobs.push_back(Job::Look),
            Effect::Load(ticket, range) => {
                self.totals.loads += 1;
                let LoadRange { from, through, .. } = range;
                self.log(id, &Event::Load { from, through });
                self.node_mut(id).jobs.push_back(Job::Load(ticket, range));
            }
            Effect::Apply(slot, value) => self.apply(id, slot, &value),
            Effect::Applied(slot) => {
                self.log(id, &Event::Applied { through: slot });
                self.node_mut(id).applied_said = slot;
            }
            Effect::SnapshotMade(meta) => self.check.snapshot_made(id, &meta),
            Effect::SnapshotKept(meta) => self.kept(id, &meta),
            Effect::Installed(meta) => {
                let node = self.node_mut(id);
                (node.applied, node.applied_said) = (meta.slot, meta.slot);
                self.installed(id, &meta, None);
            }
            Effect::WakeAt(local) => self.arm(id, local),
            Effect::Later(part) => {
                let life = self.node(id).life;
                let delay = self.rng.duration(Duration::ZERO, self.options.apply_delay_max);
                self.queue(self.now.after(delay), Due::Part(id, life, part));
            }
            Effect::Stopped(ending) => self.host_ends(id, ending),
        }
    }

    fn host_ends(&mut self, id: ReplicaId, ending: Ending) {
        match ending {
            Ending::Halt(halt) => self.halt(id, halt),
            // What was written last was waited for or not: a crash here is the harder case.
            Ending::Shutdown => self.crash_and_come_back(id),
            // Who failed the storage decides when the process starts again.
            Ending::Storage if self.node(id).failed.is_some() => self.crash(id),
            Ending::Storage => {
                let detail = || format!("{id} stops for its storage, which did not fail");
                self.check.fail(Invariant::NoHalt, detail);
            }
            // What a disk gives back wrong once, its next life reads whole.
            Ending::Restore(_) if self.check.is_struck(id) => self.crash_and_come_back(id),
            Ending::Restore(what) | Ending::Failure(what) => {
                self.check.fail(Invariant::NoHalt, || format!("{id} stops: {what}"));
                self.crash(id);
            }
        }
    }

    fn crash_and_come_back(&mut self, id: ReplicaId) {
        self.crash(id);
        let longest = self.options.election_timeout();
        let mut down = self.rng.duration(Duration::from_millis(1), longest);
        if !self.under_faults {
            down = Duration::from_millis(1);
        }
        self.restart_after(id, down);
    }

    fn witness_votes(&mut self, id: ReplicaId, batch: &WriteBatch) {
        for write in batch.writes() {
            if let Write::Accepted { slot, ballot, value } = write
                && ballot.leader() == id
            {
                self.witness(*slot, value);
            }
        }
    }

    /// A host's writes go to its disk.
    fn persists(&mut self, id: ReplicaId, batch: WriteBatch) {
        self.check.handed_out(id, &batch);
        self.observe(|observer| observer.handed_out(id, &batch));
        let (sequence, writes) = (batch.sequence(), batch.writes().to_vec());
        self.log(id, &Event::Persist { sequence, writes });
        self.node_mut(id).jobs.push_back(Job::Persist(batch));
    }

    /// Judges a frame as it leaves.
    fn look_at(&mut self, from: ReplicaId, to: ReplicaId, frame: Frame) -> Leaving {
        let bytes = join(frame.chunks.clone());
        if frame.channel != Channel::Core {
            let sealed = Sealed::new(bytes);
            let packet = match frame.channel {
                Channel::Snapshot => Packet::Snapshot(sealed),
                Channel::Core | Channel::Host => Packet::Host(sealed),
            };
            return Leaving { frame, packet, kind: None };
        }
        let message = codec::decode(bytes.clone());
        let message = message.expect("what one replica encodes every replica decodes");
        if let Body::Accept(accept) = &message.body {
            let mut slot = accept.first;
            for value in &accept.values {
                self.witness(slot, value);
                slot = slot.next();
            }
        }
        self.check_sent(from, Some(to), &message);
        let kind = Some(Kind::of(&message.body));
        Leaving { frame, packet: Packet::Encoded(Sealed::new(bytes)), kind }
    }

    /// A leader proposes a value: its commands are those that clients asked for, each in one slot.
    fn witness(&mut self, slot: Slot, value: &Value) {
        let (Value::Batch(batch), Some(fleet)) = (value, &self.fleet) else {
            return;
        };
        let known = batch.commands().iter().all(|command| fleet.is_submitted(command));
        if known {
            self.observe(|observer| observer.witnessed(batch.commands()));
        }
        let Some(fleet) = &self.fleet else { return };
        for command in batch.commands() {
            self.check.witnessed(slot, command, || fleet.is_submitted(command));
        }
    }

    /// Clients hear what hosts answered, and what they heard is judged.
    pub(super) fn settle_clients(&mut self) {
        let Some(fleet) = &mut self.fleet else { return };
        fleet.settle(self.now);
        if let Err(wrong) = fleet.verdict(false) {
            self.check.fail(Invariant::Answers, || wrong);
        }
    }

    /// Lets a client of hosts act.
    pub(super) fn fleet_acts(&mut self, client: usize) {
        let (now, under_faults) = (self.now, self.under_faults);
        let Some(fleet) = &mut self.fleet else { return };
        let Act { asked, again } = fleet.act(client, now, under_faults, &mut self.rng);
        if let Some(id) = asked {
            self.asked(id);
        }
        if let Some(pause) = again {
            self.queue(now.after(pause), Due::Client(client));
        }
        self.settle_clients();
    }

    /// Asks a host for something that shows whether it serves.
    pub(super) fn fleet_probes(&mut self, id: ReplicaId, command: bool) {
        let now = self.now;
        if self.fleet.as_mut().is_some_and(|fleet| fleet.probe(id, now, command)) {
            self.asked(id);
        }
    }

    /// Takes over what the fleet counted.
    pub(super) fn count_fleet(&mut self) {
        let Some(fleet) = &self.fleet else { return };
        let Tally { asked, asked_under_faults, answered, rejected, unknown, endings, met } =
            fleet.tally();
        self.totals.commands += asked;
        self.totals.commands_under_faults += asked_under_faults;
        self.totals.committed += answered;
        self.totals.rejected += rejected;
        self.totals.unknown += unknown;
        self.totals.endings = endings;
        self.totals.met = met;
    }

    fn asked(&mut self, id: ReplicaId) {
        let life = self.node(id).life;
        self.queue(self.now, Due::Asked(id, life));
    }

    /// A process ended: its links, and its clients' hopes, end with it.
    pub(super) fn host_is_gone(&mut self, id: ReplicaId) {
        self.links.forget(id);
        if let Some(fleet) = &mut self.fleet {
            fleet.stopped(id, self.now);
        }
        self.settle_clients();
    }
}
