//! Simulated stable storage: what was proved survives a crash, what was not may be torn.
//!
//! Owns: [`DiskFault`]; [`CrashStorage`], what the cluster needs of a storage beyond the port; and
//! [`SimDisk`], the storage in memory that most simulations use. Knows no time: the cluster decides
//! when `persist` is called and when its proof is delivered.
//! Invariant: after a crash the disk holds every write that was proved, and of the unproved ones a
//! prefix, in order; unless a fault was ordered that takes them away.

use core::fmt::Debug;
use core::time::Duration;
use std::collections::BTreeMap;
use std::io;

use super::rng::Rng;
use super::shelf::Shelf;
use crate::ballot::Ballot;
use crate::durable::{Durable, Write, WriteBatch};
use crate::ids::{Incarnation, LogClock, ReplicaId, Slot};
use crate::port::{
    Blocking, Format, LoadRange, Loaded, Recovered, RecoveredVote, Room, SnapshotStore, Start,
    Storage, StorageError,
};
use crate::snapshot::Governs;
use crate::value::Value;

/// What a disk does wrong, or right again.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum DiskFault {
    /// One of the next reads fails.
    ReadError,
    /// One of the next writes fails.
    WriteError,
    /// One of the next syncs fails, with an arbitrary part of what it was for on the device.
    SyncError,
    /// One of the next reads returns what stands elsewhere.
    StrayRead,
    /// There is no space for more files.
    Full,
    /// There is space again.
    Space,
    /// From here on each sync takes so much longer.
    Slow(Duration),
    /// The next sync takes so much longer.
    Hang(Duration),
    /// A bit of what is durable is another.
    Rot,
    /// A write of some time ago never reached the device: what stood there before is there again.
    LostWrite,
    /// A write of some time ago went elsewhere: it is missing where it belongs, and what it came to
    /// lie over is gone.
    StrayWrite,
    /// From here to the next crash, nothing that is synced becomes durable.
    Lie,
    /// An operator puts a copy of an earlier life in the place of the directory. Only while the
    /// process is down.
    RollBack,
}

/// What a [`DiskFault`] may do to a replica.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Harm {
    /// The process may have to stop. Nothing proved is lost, and a later start succeeds.
    Passing,
    /// Something proved may be unreadable. The replica says so, and stays down.
    Damage,
    /// Something proved may be gone, and nothing on the disk tells.
    Amnesia,
}

impl DiskFault {
    /// What it may do.
    pub const fn harm(self) -> Harm {
        match self {
            Self::ReadError
            | Self::WriteError
            | Self::SyncError
            | Self::StrayRead
            | Self::Full
            | Self::Space
            | Self::Slow(_)
            | Self::Hang(_) => Harm::Passing,
            Self::Rot | Self::LostWrite | Self::StrayWrite => Harm::Damage,
            Self::Lie | Self::RollBack => Harm::Amnesia,
        }
    }
}

/// A storage whose power can fail. Implement it to run an adapter, on a simulated file system, in
/// a [`super::Cluster`].
pub trait CrashStorage: Storage + Debug {
    /// The power fails while `unproved` are being written, in this order. Any prefix of their
    /// writes may survive, and any beginning of an image that was not synced. Afterwards [`Storage::recover`] is called again, for the next life.
    fn crash(&mut self, unproved: Vec<WriteBatch>, rng: &mut Rng);

    /// A storage of the same kind, as it is after [`Format`] was written to an empty one.
    fn blank(&self, format: Format) -> Box<dyn CrashStorage>;

    /// Orders a fault; false if this storage does not know it, or nothing is there that it could
    /// strike. May be called while the process is down.
    fn inject(&mut self, fault: DiskFault, rng: &mut Rng) -> bool {
        let _ = (fault, rng);
        false
    }

    /// Ends what can end: there is space, every call is quick and succeeds, nobody lies. Damage
    /// stays.
    fn calm(&mut self) {}

    /// How much longer than usual the next write takes.
    fn delay(&self) -> Duration {
        Duration::ZERO
    }

    /// As [`Storage::load`], for the observer: no fault that was ordered for a call of the replica
    /// strikes this one.
    fn audit(&mut self, range: LoadRange) -> Result<Loaded, StorageError> {
        self.load(range)
    }
}

/// The faults that [`SimDisk`] knows.
#[derive(Debug, Default)]
struct Troubles {
    reads_fail: bool,
    /// The next write fails, after so many of its facts.
    writes_fail: Option<u64>,
    poisoned: bool,
    slow: Duration,
    hang: Duration,
}

/// One group of one replica, in memory.
#[derive(Debug)]
pub struct SimDisk {
    format: Format,
    /// The last life, and who refused it.
    life: Option<Incarnation>,
    refused: Option<(ReplicaId, Incarnation)>,
    promised: Option<Ballot>,
    votes: BTreeMap<Slot, (Ballot, Value)>,
    chosen: BTreeMap<Slot, Value>,
    committed: Slot,
    trimmed: Slot,
    clock: LogClock,
    peers: BTreeMap<ReplicaId, Incarnation>,
    governs: Vec<Governs>,
    shelf: Shelf,
    troubles: Troubles,
}

impl SimDisk {
    /// A disk that was just formatted.
    pub fn new(format: Format) -> Self {
        Self {
            format,
            life: None,
            refused: None,
            promised: None,
            votes: BTreeMap::new(),
            chosen: BTreeMap::new(),
            committed: Slot::ZERO,
            trimmed: Slot::ZERO,
            clock: LogClock::default(),
            peers: BTreeMap::new(),
            governs: Vec::new(),
            shelf: Shelf::default(),
            troubles: Troubles::default(),
        }
    }

    /// An injected failure, after which nothing is done any more.
    fn fail(&mut self, what: &str) -> StorageError {
        self.troubles.poisoned = true;
        let source = io::Error::other("injected input/output error");
        StorageError::Io { what: what.to_owned(), source }
    }

    fn write(&mut self, write: &Write) {
        match write {
            Write::Promised(ballot) => self.promised = self.promised.max(Some(*ballot)),
            Write::Accepted { slot, ballot, value } => {
                self.promised = self.promised.max(Some(*ballot));
                self.read_clock(value);
                self.votes.insert(*slot, (*ballot, value.clone()));
            }
            Write::Chosen { slot, value } => {
                self.read_clock(value);
                self.chosen.insert(*slot, value.clone());
            }
            Write::Committed(slot) => self.committed = self.committed.max(*slot),
            Write::Governs { from, membership } => {
                self.governs.push(Governs { from: *from, membership: (**membership).clone() });
            }
            Write::Trimmed(slot) => {
                self.trimmed = self.trimmed.max(*slot);
                self.votes = self.votes.split_off(&self.trimmed.next());
                self.chosen = self.chosen.split_off(&self.trimmed.next());
            }
            Write::Peer { peer, incarnation } => {
                self.peers.insert(*peer, *incarnation);
            }
            Write::Refused { by, remembered } => self.refused = Some((*by, *remembered)),
        }
    }

    fn read_clock(&mut self, value: &Value) {
        if let Value::Batch(batch) = value {
            self.clock = self.clock.max(batch.clock());
        }
    }
}

impl Storage for SimDisk {
    fn recover(&mut self, nonce: u32) -> Result<Vec<Recovered>, StorageError> {
        if let Some((by, remembered)) = self.refused {
            return Err(StorageError::Refused { by, remembered });
        }
        let (start, life) = match self.life {
            None => (Start::First, Incarnation::first(nonce)),
            Some(last) => (Start::Again, last.following(nonce)),
        };
        self.life = Some(life);
        let above = self.committed.next();
        Ok(vec![Recovered {
            format: self.format.clone(),
            start,
            incarnation: life,
            promised: self.promised,
            committed: self.committed,
            trimmed: self.trimmed,
            votes: (self.votes.range(above..))
                .map(|(slot, (ballot, value))| RecoveredVote {
                    slot: *slot,
                    ballot: *ballot,
                    value: value.clone(),
                })
                .collect(),
            chosen: (self.chosen.range(above..))
                .map(|(slot, value)| (*slot, value.clone()))
                .collect(),
            clock: self.clock,
            peers: self.peers.iter().map(|(id, life)| (*id, *life)).collect(),
            governs: self.governs.clone(),
            snapshot: self.shelf.newest(),
        }])
    }

    fn persist(&mut self, batches: Vec<WriteBatch>) -> Result<Vec<Durable>, StorageError> {
        if self.troubles.poisoned {
            return Err(StorageError::Poisoned);
        }
        self.troubles.hang = Duration::ZERO;
        if let Some(kept) = self.troubles.writes_fail.take() {
            let writes = batches.iter().flat_map(WriteBatch::writes);
            for write in writes.take(kept as usize) {
                self.write(write);
            }
            return Err(self.fail("cannot write to the simulated disk"));
        }
        for write in batches.iter().flat_map(WriteBatch::writes) {
            self.write(write);
        }
        Ok(batches.into_iter().map(WriteBatch::into_durable).collect())
    }

    fn load(&mut self, range: LoadRange) -> Result<Loaded, StorageError> {
        if self.troubles.poisoned {
            return Err(StorageError::Poisoned);
        }
        if core::mem::take(&mut self.troubles.reads_fail) {
            return Err(self.fail("cannot read from the simulated disk"));
        }
        let mut values = Vec::new();
        let mut bytes = 0;
        let mut slot = range.from;
        while slot <= range.through {
            let vote = || self.votes.get(&slot).map(|(_, value)| value);
            let Some(value) = self.chosen.get(&slot).or_else(vote) else {
                break;
            };
            bytes += value.encoded_len();
            if bytes > range.bytes_max && !values.is_empty() {
                break;
            }
            values.push(value.clone());
            slot = slot.next();
        }
        Ok(Loaded { values, trimmed: self.trimmed })
    }

    fn room(&self) -> Room {
        Room::Ample
    }

    fn snapshots(&mut self) -> Option<Box<dyn SnapshotStore>> {
        Some(Box::new(self.shelf.clone()))
    }

    fn blocking(&self) -> Blocking {
        Blocking::Never
    }
}

impl CrashStorage for SimDisk {
    fn crash(&mut self, unproved: Vec<WriteBatch>, rng: &mut Rng) {
        let writes = unproved.iter().map(|batch| batch.writes().len()).sum::<usize>();
        let survivors = rng.between(0, writes as u64) as usize;
        // Nothing is written after a call that failed.
        let survivors = if self.troubles.poisoned { 0 } else { survivors };
        for write in unproved.iter().flat_map(WriteBatch::writes).take(survivors) {
            self.write(write);
        }
        self.shelf.crash(rng);
        let slow = self.troubles.slow;
        self.troubles = Troubles { slow, ..Troubles::default() };
    }

    fn inject(&mut self, fault: DiskFault, rng: &mut Rng) -> bool {
        match fault {
            DiskFault::ReadError => self.troubles.reads_fail = true,
            DiskFault::WriteError | DiskFault::SyncError => {
                self.troubles.writes_fail = Some(rng.below(4));
            }
            DiskFault::Slow(by) => self.troubles.slow = by,
            DiskFault::Hang(by) => self.troubles.hang = by,
            DiskFault::StrayRead
            | DiskFault::Full
            | DiskFault::Space
            | DiskFault::Rot
            | DiskFault::LostWrite
            | DiskFault::StrayWrite
            | DiskFault::Lie
            | DiskFault::RollBack => return false,
        }
        true
    }

    fn calm(&mut self) {
        let poisoned = self.troubles.poisoned;
        self.troubles = Troubles { poisoned, ..Troubles::default() };
    }

    fn delay(&self) -> Duration {
        self.troubles.slow + self.troubles.hang
    }

    fn audit(&mut self, range: LoadRange) -> Result<Loaded, StorageError> {
        let troubles = core::mem::take(&mut self.troubles);
        let loaded = self.load(range);
        self.troubles = troubles;
        loaded
    }

    fn blank(&self, format: Format) -> Box<dyn CrashStorage> {
        Box::new(Self::new(format))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;
    use crate::ids::{ClusterId, Epoch, GroupId};
    use crate::membership::Membership;
    use crate::message::Origin;
    use crate::sim::Batches;

    const ME: ReplicaId = ReplicaId::new(1);

    fn disk() -> (SimDisk, Batches) {
        let format = Format {
            cluster: ClusterId::new(1),
            group: GroupId::new(1),
            replica: ME,
            membership: Membership::voters_only([ME]).unwrap(),
        };
        let batches = Batches::new(Origin {
            cluster: format.cluster,
            group: format.group,
            epoch: Epoch::FIRST,
            membership: crate::agreement::MembershipDigest::default(),
            replica: ME,
            incarnation: Incarnation::new(1, 0),
        });
        (SimDisk::new(format), batches)
    }

    fn vote(slot: u64) -> Write {
        Write::Accepted { slot: Slot::new(slot), ballot: Ballot::new(slot, ME), value: Value::Noop }
    }

    #[test]
    fn a_crash_keeps_what_was_proved_and_any_prefix_of_the_rest() {
        let mut kept = [false; 5];
        for seed in 0..200 {
            let (mut disk, mut batches) = disk();
            assert_eq!(disk.recover(0).unwrap()[0].start, Start::First);
            let proofs = disk.persist(vec![batches.batch(vec![vote(1)])]).unwrap();
            assert_eq!(proofs[0].through().number(), 1);
            let unproved =
                vec![batches.batch(vec![vote(2), vote(3)]), batches.batch(vec![vote(4), vote(5)])];
            disk.crash(unproved, &mut Rng::new(seed));
            let recovered = disk.recover(0).unwrap().remove(0);
            assert_eq!(recovered.start, Start::Again);
            assert_eq!(recovered.incarnation.boot(), 2);
            let slots: Vec<_> = recovered.votes.iter().map(|v| v.slot.number()).collect();
            let count = slots.len() as u64;
            assert_eq!(slots, (1..=count).collect::<Vec<_>>());
            assert_eq!(recovered.promised, Some(Ballot::new(count, ME)));
            kept[slots.len() - 1] = true;
        }
        assert_eq!(kept, [true; 5], "every prefix survives at some seed");
    }

    #[test]
    fn loading_stops_at_the_limit_of_bytes_and_at_the_first_hole() {
        let (mut disk, mut batches) = disk();
        let writes = [1, 2, 4].map(vote).to_vec();
        let _proofs = disk.persist(vec![batches.batch(writes)]).unwrap();
        let mut count = |from, through| {
            let range = LoadRange {
                group: GroupId::new(1),
                from: Slot::new(from),
                through: Slot::new(through),
                bytes_max: 0,
            };
            disk.load(range).unwrap().values.len()
        };
        assert_eq!((count(1, 4), count(2, 2), count(3, 4), count(4, 9)), (2, 1, 0, 1));
    }

    /// Of the call that failed any prefix may be there, of the calls after it nothing.
    #[test]
    fn a_write_that_fails_poisons_until_the_next_start() {
        let mut kept = [false; 4];
        for seed in 0..100 {
            let (mut disk, mut batches) = disk();
            let rng = &mut Rng::new(seed);
            disk.recover(0).unwrap();
            assert!(disk.inject(DiskFault::WriteError, rng));
            let failed = disk.persist(vec![batches.batch([1, 2, 3].map(vote).to_vec())]);
            assert!(matches!(failed, Err(StorageError::Io { .. })));
            let later = disk.persist(vec![batches.batch(vec![vote(4)])]);
            assert!(matches!(later, Err(StorageError::Poisoned)));
            disk.crash(vec![batches.batch(vec![vote(5)])], rng);
            let found = disk.recover(0).unwrap().remove(0).votes.len();
            kept[found] = true;
            assert!(disk.persist(vec![batches.batch(vec![vote(6)])]).is_ok());
        }
        assert_eq!(kept, [true; 4], "every prefix survives at some seed");
    }

    #[test]
    fn a_read_fails_once_and_an_audit_never() {
        let (mut disk, mut batches) = disk();
        let rng = &mut Rng::new(1);
        let _proofs = disk.persist(vec![batches.batch(vec![vote(1)])]).unwrap();
        let (from, group) = (Slot::FIRST, GroupId::new(1));
        let range = LoadRange { group, from, through: from, bytes_max: 0 };
        assert!(disk.inject(DiskFault::ReadError, rng));
        assert_eq!(disk.audit(range).unwrap().values.len(), 1);
        assert!(matches!(disk.load(range), Err(StorageError::Io { .. })));
        disk.crash(Vec::new(), rng);
        assert_eq!(disk.load(range).unwrap().values.len(), 1);
    }

    #[test]
    fn slow_and_hung_writes_take_longer_until_all_is_calm() {
        let (mut disk, mut batches) = disk();
        let rng = &mut Rng::new(1);
        let ms = Duration::from_millis;
        disk.inject(DiskFault::Slow(ms(5)), rng);
        disk.inject(DiskFault::Hang(ms(100)), rng);
        assert_eq!(disk.delay(), ms(105));
        let _proofs = disk.persist(vec![batches.batch(vec![vote(1)])]).unwrap();
        assert_eq!(disk.delay(), ms(5), "it hangs once");
        disk.calm();
        assert_eq!(disk.delay(), Duration::ZERO);
        assert!(!disk.inject(DiskFault::Rot, rng), "memory does not rot");
    }
}
