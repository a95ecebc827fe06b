//! How processes end and begin again.

use core::time::Duration;

use super::cluster::{Cluster, Due};
use super::held::Survivors;
use super::host::{Birth, Moment, Process, Stimulus};
use super::keeper::{Keeper, read_state};
use super::marks::Mark;
use super::node::Directory;
use super::options::Machine;
use super::suffer::seat;
use crate::ids::{ReplicaId, Slot};
use crate::port::{Recovered, StorageError};
use crate::replica::Replica;
use crate::trace::Event;

/// Of a thousand chances to make a snapshot, so many are taken.
const SNAPSHOTS: u32 = 150;

impl Cluster {
    /// Takes a replica's power away.
    pub fn crash(&mut self, id: ReplicaId) {
        let node = self.node_mut(id);
        let Some(process) = node.process.take() else {
            return;
        };
        let unproved = node.unproved();
        node.keeper = Keeper::default();
        self.observe(|observer| observer.stopped(id));
        let node = self.node_mut(id);
        let writes = unproved.iter().map(|batch| batch.writes().len()).sum();
        node.led = false;
        let counters = process.counters();
        self.totals.count(&counters);
        self.watch.counted(&counters);
        self.totals.crashes += 1;
        self.totals.torn_tails += u64::from(writes > 0);
        self.log(id, &Event::Crashed { unproved: writes });
        let mut rng = self.rng.fork();
        let node = self.node_mut(id);
        match node.survivors {
            Survivors::Drawn => node.storage.crash(unproved, &mut rng),
            Survivors::Nothing => node.storage.crash(Vec::new(), &mut rng),
            Survivors::Everything => {
                // They are written, and the proof goes with the process.
                let proofs = node.storage.persist(unproved);
                let _unseen = proofs.expect("simulated storage writes");
                node.storage.crash(Vec::new(), &mut rng);
            }
        }
        self.forget_attempts(id);
        // What the process held in memory goes before anybody hears of it.
        drop(process);
        self.host_is_gone(id);
    }

    /// Starts a replica that is down; nothing if it is not, or stays down.
    pub fn restart(&mut self, id: ReplicaId) {
        if !self.node(id).is_up() && !self.trouble.down.contains(seat(id)) {
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
        let before = self.node(id).paused_until;
        let until = self.now.after(duration).max(before);
        self.node_mut(id).paused_until = until;
        if before > self.now && until > before {
            self.wait_until(id, before, until);
        }
        self.totals.pauses += 1;
        self.log(id, &Event::Paused { until });
    }

    /// Gives a replica that is down a newly formatted directory, as no operator should.
    pub fn wipe(&mut self, id: ReplicaId) {
        assert!(!self.node(id).is_up(), "only what is down is wiped");
        let mut format = self.format.clone();
        format.replica = id;
        let node = self.node_mut(id);
        node.storage = node.storage.blank(format);
        node.applied_durable = Slot::ZERO;
        node.applied_said = Slot::ZERO;
        node.failed = None;
        self.check.wiped(id);
        self.observe(|observer| observer.replaced(id));
        self.trouble.wiped.insert(seat(id));
        self.totals.wipes += 1;
    }

    /// A durable state machine makes what it holds durable.
    pub fn save(&mut self, id: ReplicaId) {
        let node = self.node_mut(id);
        node.applied_durable = node.applied_said;
    }

    /// Where the options say so: each state machine that is up makes durable what it holds, and
    /// sometimes makes a snapshot, behind which its log is trimmed.
    pub(super) fn trim(&mut self) {
        if !self.options.trim || self.fleet.is_some() {
            return;
        }
        for id in self.ids() {
            let now = self.now;
            let node = self.node_mut(id);
            if !node.is_up() || node.paused_until > now {
                continue;
            }
            node.applied_durable = node.applied_said;
            if self.rng.chance(SNAPSHOTS) {
                self.snapshot(id);
            }
        }
    }

    /// The state machine of a process that starts begins with what is durable of itself, or with the
    /// newest snapshot, whichever includes more. Hosts restore theirs themselves.
    fn restore(
        &mut self,
        id: ReplicaId,
        recovered: &Recovered,
        applied: Slot,
    ) -> Result<Slot, StorageError> {
        let mut store = self.node_mut(id).storage.snapshots();
        let mut newest = Slot::ZERO;
        if let Some(meta) = &recovered.snapshot {
            newest = meta.slot;
            if let Some(store) = store.as_mut().filter(|_| applied < newest)
                && self.fleet.is_none()
            {
                let state = read_state(store.as_mut(), meta)?;
                self.check.restored(id, newest, state);
                self.watch.meet(Mark::SnapshotRestored);
            }
        }
        self.node_mut(id).keeper = Keeper::new(store, newest);
        Ok(applied.max(newest))
    }

    /// Started again before anybody refused it, an old copy may pass for the life that follows the
    /// original's: what that rests on is said in protocol.md §11. So it is started once.
    fn stays_down(&mut self, id: ReplicaId) -> bool {
        let (is_copy, is_halted) = {
            let node = self.node(id);
            (node.directory == Directory::OldCopy, node.halted.is_some())
        };
        if self.trouble.copies.contains(seat(id)) && !is_halted {
            self.trouble.down.insert(seat(id));
            return true;
        }
        if is_copy {
            self.trouble.copies.insert(seat(id));
        }
        false
    }

    pub(super) fn start(&mut self, id: ReplicaId) {
        let nonce = self.rng.bits() as u32;
        let seed = self.rng.bits();
        let (now, machine) = (self.now, self.options.machine);
        if self.stays_down(id) {
            return;
        }
        let node = &mut self.nodes[usize::from(id.number()) - 1];
        let applied = match machine {
            Machine::Volatile => Slot::ZERO,
            Machine::Durable => {
                let (low, high) = (node.applied_durable, node.applied_said);
                Slot::new(self.rng.between(low.number(), high.max(low).number()))
            }
        };
        let recovered = match node.storage.recover(nonce) {
            Ok(mut recovered) => recovered.pop().expect("storage holds one group"),
            Err(error) => return self.start_failed(id, &error),
        };
        if self.trouble.is_lurking() && self.cue_recovering(id) {
            return;
        }
        if self.check.forgets(id, &recovered) {
            self.check.left_off(id);
            return self.leave_off(id);
        }
        let node = self.node_mut(id);
        let applied = match node.directory {
            Directory::Its => applied,
            Directory::OldCopy => applied.min(recovered.committed).max(recovered.trimmed),
        };
        node.directory = Directory::Its;
        let applied = match self.restore(id, &recovered, applied) {
            Ok(applied) => applied,
            Err(error) => return self.start_failed(id, &error),
        };
        let node = self.node_mut(id);
        let incarnation = recovered.incarnation;
        node.trimmed = recovered.trimmed;
        let bytes_max = node.config.window_bytes_max;
        self.totals.older_snapshots += u64::from(self.check.lacks_a_snapshot(id, &recovered));
        self.check.recovered(id, &recovered, applied, bytes_max);
        self.observe(|observer| observer.started(id, &recovered, applied));
        self.audit(id, &recovered);
        let node = &mut self.nodes[usize::from(id.number()) - 1];
        let (local, wall) = (node.clock.local(now), node.clock.wall(now));
        let config = node.config.clone();
        node.process = Some(if let Some(fleet) = &mut self.fleet {
            let moment = Moment { now, local, wall };
            let snapshots = node.keeper.take_store();
            Process::Host(fleet.start(Birth { recovered, config, seed, moment, snapshots }))
        } else {
            let replica = Replica::recover(config, recovered, applied, seed, local);
            let replica = replica.expect("what storage gave back is what was written");
            Process::Replica(Box::new(replica))
        });
        node.begin(applied, now);
        self.log(id, &Event::Started { incarnation, applied });
        if self.fleet.is_some() {
            return self.turn(id, Stimulus::Start);
        }
        self.drain(id);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;
    use crate::sim::script::Script;

    /// Seeds at depth node (10009542 was the first) paused a process, then
    /// again for longer, and let it go on: what had come in between waited for the end of the first
    /// pause, and the healed node did not serve in time.
    #[test]
    fn what_waited_out_several_pauses_happens_when_the_process_goes_on() {
        let mut script = Script::new(1);
        script.elect(1);
        script.propose(1, b"a").unwrap();
        let (id, timeout) = (ReplicaId::new(1), script.election_timeout());
        let committed = script.status(1).committed;
        let cluster = script.cluster();
        cluster.pause(id, timeout);
        cluster.run_for(timeout / 2);
        cluster.pause(id, timeout * 20);
        cluster.run_for(timeout / 4);
        assert_eq!(cluster.status(id).unwrap().committed, committed, "it stands still");
        cluster.resume(id);
        let now = cluster.now();
        cluster.run_until(now);
        assert_eq!(cluster.status(id).unwrap().committed, committed.next());
    }
}
