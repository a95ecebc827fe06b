//! What becomes of a process whose disk fails, and how the simulation orders such failures.
//!
//! Owns: [`Failure`]. A process whose storage returned an error stops, as a host does; it is started
//! again after a while where the error may pass, and stays down where it says that something
//! acknowledged is damaged.
//! Invariants: a storage fails only after a fault that was ordered for it, and with an error that
//! such a fault explains; a process never goes on after a failure of its storage.
//! Source: `port::StorageError`; "Redundancy Does Not Imply Fault Tolerance" (FAST 2017).

use core::time::Duration;

use super::check::Invariant;
use super::cluster::{Cluster, Due};
use super::disk::DiskFault;
use super::host::Stimulus;
use super::node::{Directory, Job};
use crate::ids::{ReplicaId, Slot};
use crate::port::{LoadRange, Recovered, StorageError};

/// After a failure that may pass, the process is started again within these times.
const AGAIN_MIN: Duration = Duration::from_millis(50);
const AGAIN_MAX: Duration = Duration::from_millis(600);

/// Why the storage of a process stopped it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Failure {
    /// What an operator reads.
    pub what: String,
    /// Whether the replica must stay down.
    pub is_final: bool,
}

impl Failure {
    fn of(error: &StorageError) -> Self {
        let is_final = match error {
            StorageError::Io { .. } | StorageError::Poisoned => false,
            StorageError::NotFormatted { .. }
            | StorageError::AlreadyFormatted { .. }
            | StorageError::AlreadyOpen { .. }
            | StorageError::Mismatch { .. }
            | StorageError::Refused { .. }
            | StorageError::Corrupt { .. } => true,
        };
        Self { what: error.to_string(), is_final }
    }
}

impl Cluster {
    /// Why a replica's storage stopped it, while it is down.
    pub fn failure(&self, id: ReplicaId) -> Option<&Failure> {
        self.node(id).failed.as_ref()
    }

    /// Whether a replica is gone for good: it halted, or its disk is damaged or forgot something.
    pub fn is_spent(&self, id: ReplicaId) -> bool {
        let node = self.node(id);
        node.halted.is_some() || node.failed.as_ref().is_some_and(|failure| failure.is_final)
    }

    /// Lets a disk do something wrong, or be well again.
    pub fn strike(&mut self, id: ReplicaId, fault: DiskFault) {
        if fault == DiskFault::RollBack {
            return self.roll_back(id);
        }
        let mut rng = self.rng.fork();
        if !self.node_mut(id).storage.inject(fault, &mut rng) {
            return;
        }
        self.totals.disk_faults += 1;
        self.check.disk_struck(id, fault.harm());
        if fault == DiskFault::Space {
            self.look_for_space(id);
        }
    }

    /// A bare replica has no host that asks for space again and again.
    fn look_for_space(&mut self, id: ReplicaId) {
        if self.node(id).is_up() && self.fleet.is_none() {
            self.node_mut(id).jobs.push_back(Job::Look);
            self.settle(id);
        }
    }

    /// An operator stops the process, puts an old copy in the place of its directory, and starts it
    /// again. Only where every peer remembers the life that is taken away: one that never heard of
    /// it cannot refuse the copy. One that is down may have begun lives that nobody heard of.
    fn roll_back(&mut self, id: ReplicaId) {
        if !self.node(id).is_up() || !self.check.is_known(id) {
            return;
        }
        self.crash(id);
        let mut rng = self.rng.fork();
        if self.node_mut(id).storage.inject(DiskFault::RollBack, &mut rng) {
            self.totals.disk_faults += 1;
            self.check.rolled_back(id);
            self.observe(|observer| observer.replaced(id));
            self.node_mut(id).directory = Directory::OldCopy;
        }
        let down = self.rng.duration(AGAIN_MIN, AGAIN_MAX);
        self.restart_after(id, down);
    }

    /// Everything that can end at a disk has ended, and what hung is done.
    pub(super) fn calm_disk(&mut self, id: ReplicaId) {
        let now = self.now;
        let node = self.node_mut(id);
        node.storage.calm();
        if node.busy > 0 {
            let life = node.life;
            self.queue(now, Due::Disk(id, life));
        }
        self.look_for_space(id);
    }

    /// A call of the storage of a running process failed.
    pub(super) fn storage_failed(&mut self, id: ReplicaId, error: StorageError) {
        self.note_failure(id, &error);
        if self.fleet.is_some() {
            self.turn(id, Stimulus::Failed(error));
            if self.node(id).is_up() {
                let detail = || format!("{id} goes on after a failure of its storage");
                self.check.fail(Invariant::DamageNamed, detail);
            }
        } else {
            self.crash(id);
        }
        self.start_again(id);
    }

    /// The storage of a process that starts failed.
    pub(super) fn start_failed(&mut self, id: ReplicaId, error: &StorageError) {
        self.note_failure(id, error);
        // Nothing of this start goes on.
        let mut rng = self.rng.fork();
        self.node_mut(id).storage.crash(Vec::new(), &mut rng);
        self.start_again(id);
    }

    fn note_failure(&mut self, id: ReplicaId, error: &StorageError) {
        self.check.storage_failed(id, error);
        let failure = Failure::of(error);
        self.totals.storage_failures += 1;
        self.totals.damage_named += u64::from(failure.is_final);
        self.remark(format!("the storage of {id} fails: {}", failure.what));
        self.node_mut(id).failed = Some(failure);
    }

    fn start_again(&mut self, id: ReplicaId) {
        if !self.is_spent(id) {
            let life = self.node(id).life;
            let down = self.rng.duration(AGAIN_MIN, AGAIN_MAX);
            self.queue(self.now.after(down), Due::Restart(id, life));
        }
    }

    /// The observer reads what a log that was just recovered holds of the committed prefix.
    pub(super) fn audit(&mut self, id: ReplicaId, recovered: &Recovered) {
        let (from, through) = (recovered.trimmed.next(), recovered.committed);
        if through < from {
            return;
        }
        let group = recovered.format.group;
        let range = LoadRange { group, from, through, bytes_max: usize::MAX };
        match self.node_mut(id).storage.audit(range) {
            Ok(loaded) => self.check.audited(id, from, through, &loaded.values),
            Err(error) => {
                let detail = || format!("{id} recovered over damage: {error}");
                self.check.fail(Invariant::DamageNamed, detail);
            }
        }
    }

    /// A disk lied, and it shows: whoever runs this replica leaves it off.
    pub(super) fn leave_off(&mut self, id: ReplicaId) {
        let what = "its disk lied about a sync, and something acknowledged is gone".to_owned();
        self.remark(format!("{id} is left off: {what}"));
        self.totals.left_off += 1;
        let mut rng = self.rng.fork();
        let node = self.node_mut(id);
        node.failed = Some(Failure { what, is_final: true });
        node.applied = Slot::ZERO;
        node.storage.crash(Vec::new(), &mut rng);
    }
}
