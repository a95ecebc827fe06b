//! How processes end and begin again.

use core::time::Duration;

use super::check::Invariant;
use super::cluster::{Cluster, Due};
use super::disk::SimDisk;
use super::host::{Birth, Moment, Process, Stimulus};
use super::node::{Node, Seen};
use super::options::Machine;
use crate::ids::{ReplicaId, Slot};
use crate::replica::Replica;
use crate::trace::Event;

impl Cluster {
    /// Takes a replica's power away.
    pub fn crash(&mut self, id: ReplicaId) {
        let node = self.node_mut(id);
        let Some(process) = node.process.take() else {
            return;
        };
        let unproved = node.unproved();
        let writes = unproved.iter().map(|batch| batch.writes().len()).sum();
        node.crash_when_writing = false;
        self.totals.count(&process.counters());
        self.totals.crashes += 1;
        self.totals.torn_tails += u64::from(writes > 0);
        self.log(id, Event::Crashed { unproved: writes });
        let mut rng = self.rng.fork();
        self.node_mut(id).storage.crash(unproved, &mut rng);
        self.forget_attempts(id);
        // What the process held in memory goes before anybody hears of it.
        drop(process);
        self.host_is_gone(id);
    }

    /// Takes a replica's power away as soon as it writes, and gives it back after `down`.
    pub fn crash_when_writing(&mut self, id: ReplicaId, down: Duration) {
        let node = self.node_mut(id);
        node.crash_when_writing = true;
        node.restart_after = down;
    }

    /// Starts a replica that is down; nothing if it is not.
    pub fn restart(&mut self, id: ReplicaId) {
        if !self.node(id).is_up() {
            self.start(id);
        }
    }

    /// Starts a replica that is down after some time.
    pub fn restart_after(&mut self, id: ReplicaId, down: Duration) {
        let life = self.node(id).life;
        self.queue(self.now.after(down), Due::Restart(id, life));
    }

    /// Stops a replica's process for some time: what comes meanwhile is seen late, all at once.
    pub fn pause(&mut self, id: ReplicaId, duration: Duration) {
        let until = self.now.after(duration);
        self.node_mut(id).paused_until = until;
        self.totals.pauses += 1;
        self.log(id, Event::Paused { until });
    }

    /// Gives a replica that is down a newly formatted directory, as no operator should.
    pub fn wipe(&mut self, id: ReplicaId) {
        assert!(!self.node(id).is_up(), "only what is down is wiped");
        let mut format = self.format.clone();
        format.replica = id;
        let node = self.node_mut(id);
        node.storage = Box::new(SimDisk::new(format));
        node.applied_durable = Slot::ZERO;
        self.check.wiped(id);
    }

    /// Where the options say so: each state machine that is up makes durable what it holds, and what
    /// all hold durably is trimmed.
    pub(super) fn trim(&mut self) {
        if !self.options.trim {
            return;
        }
        let now = self.now;
        let is_up = |node: &Node| node.is_up() && node.paused_until <= now;
        for node in self.nodes.iter_mut().filter(|node| is_up(node)) {
            node.applied_durable = node.applied_said;
        }
        let held = self.nodes.iter().map(|node| node.applied_durable).min();
        let through = held.unwrap_or_default();
        for id in self.ids() {
            let node = self.node_mut(id);
            if through <= node.trimmed || !is_up(node) {
                continue;
            }
            node.trimmed = through;
            let replica = node.process.as_mut().and_then(Process::replica);
            let trimmed = replica.map_or(Ok(()), |replica| replica.trim(through));
            if let Err(error) = trimmed {
                let detail = || format!("{id} refuses to trim {through}: {error}");
                self.check.fail(Invariant::AppliedInOrder, detail);
            }
            self.totals.trims += 1;
            self.drain(id);
        }
    }

    pub(super) fn start(&mut self, id: ReplicaId) {
        let nonce = self.rng.bits() as u32;
        let seed = self.rng.bits();
        let (now, machine) = (self.now, self.options.machine);
        let node = &mut self.nodes[usize::from(id.number()) - 1];
        let applied = match machine {
            Machine::Volatile => Slot::ZERO,
            Machine::Durable => {
                let (low, high) = (node.applied_durable, node.applied_said);
                Slot::new(self.rng.between(low.number(), high.max(low).number()))
            }
        };
        let recovered = node.storage.recover(nonce);
        let mut recovered = recovered.expect("simulated storage recovers");
        let recovered = recovered.pop().expect("storage holds one group");
        let incarnation = recovered.incarnation;
        node.trimmed = recovered.trimmed;
        let bytes_max = node.config.window_bytes_max;
        self.check.recovered(id, &recovered, applied, bytes_max);
        let (local, wall) = (node.clock.local(now), node.clock.wall(now));
        let config = node.config.clone();
        node.process = Some(if let Some(fleet) = &mut self.fleet {
            let moment = Moment { now, local, wall };
            Process::Host(fleet.start(Birth { recovered, config, seed, moment }))
        } else {
            let replica = Replica::recover(config, recovered, applied, seed, local);
            let replica = replica.expect("what storage gave back is what was written");
            Process::Replica(Box::new(replica))
        });
        node.halted = None;
        node.life += 1;
        node.seen = Seen::default();
        node.armed = None;
        node.applying = false;
        node.paused_until = now;
        node.applied = applied;
        node.applied_said = applied;
        node.applied_durable = applied;
        self.log(id, Event::Started { incarnation, applied });
        if self.fleet.is_some() {
            return self.turn(id, Stimulus::Start);
        }
        self.drain(id);
    }
}
