//! A log in memory: for tests, simulations and measurements of everything but the disk.
//!
//! Owns: [`MemoryStorage`]. Encodes nothing; values are shared with the replica.
//! Invariants: it acknowledges at once, so whatever it proved is there until the memory is; a
//! handle of a life that was ended by [`MemoryStorage::crash`] proves and reads nothing.
//! Source: protocol.md §6 and §10; Write-Ahead Log, without the disk.

mod snapshots;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use paxos_core::ballot::Ballot;
use paxos_core::durable::{Durable, Write, WriteBatch};
use paxos_core::ids::{GroupId, Incarnation, LogClock, ReplicaId, Slot};
use paxos_core::port::{
    Blocking, Format, LoadRange, Loaded, Recovered, RecoveredVote, Room, SnapshotStore, Start,
    Storage, StorageError,
};
use paxos_core::snapshot::Governs;
use paxos_core::value::Value;

use snapshots::{Kept, MemorySnapshots};

/// A storage that lives as long as its process. Clones are handles of the same log.
///
/// A test keeps a clone, ends the replica's life with [`MemoryStorage::crash`], and recovers the
/// next life from the clone. Values stay in memory until they are trimmed.
#[derive(Clone, Debug)]
pub struct MemoryStorage {
    log: Arc<Mutex<MemoryLog>>,
    /// The life that this handle recovered; 0 before.
    life: u64,
}

#[derive(Debug)]
struct MemoryLog {
    format: Format,
    /// Counts recoveries and crashes; a handle of an earlier life is poisoned.
    life: u64,
    /// The last incarnation; `None` before the first.
    last: Option<Incarnation>,
    refused: Option<(ReplicaId, Incarnation)>,
    /// The next call writes so many facts and fails.
    lose_after: Option<usize>,
    promised: Option<Ballot>,
    committed: Slot,
    trimmed: Slot,
    clock: LogClock,
    peers: BTreeMap<ReplicaId, Incarnation>,
    governs: Vec<Governs>,
    /// The slots above `trimmed`.
    slots: VecDeque<Entry>,
    /// Slots far beyond those, which a replica that lags far behind may vote on.
    far: BTreeMap<Slot, Entry>,
    snapshots: Kept,
}

/// A slot further than this beyond the last one does not stretch the ring.
const STRETCH_MAX: u64 = 65_536;

#[derive(Clone, Debug, Default)]
struct Entry {
    accepted: Option<(Ballot, Value)>,
    chosen: Option<Value>,
}

impl MemoryStorage {
    /// A fresh log of the replica that `format` names.
    pub fn formatted(format: Format) -> Self {
        Self {
            log: Arc::new(Mutex::new(MemoryLog {
                format,
                life: 0,
                last: None,
                refused: None,
                lose_after: None,
                promised: None,
                committed: Slot::ZERO,
                trimmed: Slot::ZERO,
                clock: LogClock::default(),
                peers: BTreeMap::new(),
                governs: Vec::new(),
                slots: VecDeque::new(),
                far: BTreeMap::new(),
                snapshots: Kept::default(),
            })),
            life: 0,
        }
    }

    /// Ends the running life: from here on the handle that recovered it gets
    /// [`StorageError::Poisoned`], as a dead process gets nothing. What was proved stays. Any
    /// handle may recover the next life.
    pub fn crash(&self) {
        self.log().life += 1;
    }

    /// The next call of [`Storage::persist`] keeps only the first `facts` facts that it is given,
    /// proves nothing and fails, as if the power went during the write. Then the life is over.
    pub fn lose_next(&self, facts: usize) {
        self.log().lose_after = Some(facts);
    }

    fn log(&self) -> MutexGuard<'_, MemoryLog> {
        lock(&self.log)
    }

    fn running(&self) -> Result<MutexGuard<'_, MemoryLog>, StorageError> {
        let log = self.log();
        if self.life == 0 || self.life != log.life {
            return Err(StorageError::Poisoned);
        }
        Ok(log)
    }
}

fn lock(log: &Mutex<MemoryLog>) -> MutexGuard<'_, MemoryLog> {
    log.lock().expect("no call of the log panics while it holds the lock")
}

impl MemoryLog {
    fn take(&mut self, write: &Write) {
        match write {
            Write::Promised(ballot) => self.promised = self.promised.max(Some(*ballot)),
            Write::Accepted { slot, ballot, value } => {
                self.promised = self.promised.max(Some(*ballot));
                self.saw(value);
                if let Some(entry) = self.entry(*slot) {
                    entry.accepted = Some((*ballot, value.clone()));
                }
            }
            Write::Chosen { slot, value } => {
                self.saw(value);
                if let Some(entry) = self.entry(*slot) {
                    entry.chosen = Some(value.clone());
                }
            }
            Write::Committed(through) => self.committed = self.committed.max(*through),
            Write::Governs { from, membership } => {
                self.governs.push(Governs { from: *from, membership: (**membership).clone() });
            }
            Write::Trimmed(through) => self.trim(*through),
            Write::Peer { peer, incarnation } => {
                self.peers.insert(*peer, *incarnation);
            }
            Write::Refused { by, remembered } => self.refused = Some((*by, *remembered)),
        }
    }

    fn saw(&mut self, value: &Value) {
        if let Value::Batch(batch) = value {
            self.clock = self.clock.max(batch.clock());
        }
    }

    fn entry(&mut self, slot: Slot) -> Option<&mut Entry> {
        if slot <= self.trimmed {
            return None;
        }
        let at = slot.distance_from(self.trimmed.next());
        if at >= self.slots.len() as u64 + STRETCH_MAX {
            return Some(self.far.entry(slot).or_default());
        }
        let at = at as usize;
        if at >= self.slots.len() {
            self.slots.resize(at + 1, Entry::default());
            // Far slots that the ring has reached move into it.
            let reached = self.trimmed.plus(self.slots.len() as u64);
            while let Some(far) = self.far.first_entry().filter(|far| *far.key() <= reached) {
                let at = far.key().distance_from(self.trimmed.next()) as usize;
                self.slots[at] = far.remove();
            }
        }
        self.slots.get_mut(at)
    }

    fn trim(&mut self, through: Slot) {
        let count = through.distance_from(self.trimmed);
        let count = count.min(self.slots.len() as u64) as usize;
        self.slots.drain(..count);
        self.trimmed = self.trimmed.max(through);
        self.committed = self.committed.max(through);
        while let Some(far) = self.far.first_entry().filter(|far| *far.key() <= through) {
            far.remove();
        }
    }

    fn find(&self, slot: Slot) -> Option<&Entry> {
        if slot <= self.trimmed {
            return None;
        }
        let at = usize::try_from(slot.distance_from(self.trimmed.next())).ok()?;
        self.slots.get(at).or_else(|| self.far.get(&slot))
    }

    fn recovered(&self, start: Start, incarnation: Incarnation) -> Recovered {
        let near = (self.trimmed.next().number()..).zip(&self.slots);
        let near = near.map(|(slot, entry)| (Slot::new(slot), entry));
        let far = self.far.iter().map(|(slot, entry)| (*slot, entry));
        let mut recovered = Recovered {
            format: self.format.clone(),
            start,
            incarnation,
            promised: self.promised,
            committed: self.committed,
            trimmed: self.trimmed,
            votes: Vec::new(),
            chosen: Vec::new(),
            clock: self.clock,
            peers: self.peers.iter().map(|(p, i)| (*p, *i)).collect(),
            governs: self.governs.clone(),
            snapshot: self.snapshots.newest().cloned(),
        };
        for (slot, entry) in near.chain(far).filter(|(slot, _)| *slot > self.committed) {
            if let Some((ballot, value)) = &entry.accepted {
                recovered.votes.push(RecoveredVote { slot, ballot: *ballot, value: value.clone() });
            }
            if let Some(value) = &entry.chosen {
                recovered.chosen.push((slot, value.clone()));
            }
        }
        recovered
    }
}

impl Storage for MemoryStorage {
    fn recover(&mut self, nonce: u32) -> Result<Vec<Recovered>, StorageError> {
        let mut log = self.log();
        if let Some((by, remembered)) = log.refused {
            return Err(StorageError::Refused { by, remembered });
        }
        let (start, incarnation) = match log.last {
            None => (Start::First, Incarnation::first(nonce)),
            Some(last) => (Start::Again, last.following(nonce)),
        };
        log.life += 1;
        log.last = Some(incarnation);
        log.lose_after = None;
        let (life, recovered) = (log.life, log.recovered(start, incarnation));
        drop(log);
        self.life = life;
        Ok(vec![recovered])
    }

    fn persist(&mut self, batches: Vec<WriteBatch>) -> Result<Vec<Durable>, StorageError> {
        let mut log = self.running()?;
        let writes = batches.iter().flat_map(WriteBatch::writes);
        if let Some(facts) = log.lose_after.take() {
            writes.take(facts).for_each(|write| log.take(write));
            log.life += 1;
            return Err(StorageError::Io {
                what: "writing to memory".to_owned(),
                source: io::Error::other("the power was cut, as the test asked for"),
            });
        }
        for batch in &batches {
            let origin = batch.origin();
            let format = &log.format;
            let whose = (format.cluster, format.group, format.replica);
            let ours = (origin.cluster, origin.group, origin.replica) == whose
                && Some(origin.incarnation) == log.last;
            if !ours {
                log.life += 1;
                let own = log.last.expect("a running log was recovered");
                return Err(StorageError::Mismatch {
                    what: format!(
                        "a write batch of {}, {}, life {} was given to the log of {}, {}, life {}",
                        origin.replica,
                        origin.group,
                        origin.incarnation,
                        log.format.replica,
                        log.format.group,
                        own
                    ),
                });
            }
        }
        writes.for_each(|write| log.take(write));
        drop(log);
        // Memory is as stable as it gets.
        Ok(batches.into_iter().map(WriteBatch::into_durable).collect())
    }

    fn load(&mut self, range: LoadRange) -> Result<Loaded, StorageError> {
        let log = self.running()?;
        let mut loaded = Loaded { values: Vec::new(), trimmed: log.trimmed };
        let (mut slot, mut bytes) = (range.from, 0);
        while slot <= range.through {
            let entry = log.find(slot).filter(|_| range.group == log.format.group);
            let value = entry.and_then(|entry| {
                let accepted = entry.accepted.as_ref().map(|(_, value)| value);
                entry.chosen.as_ref().or(accepted)
            });
            let Some(value) = value else { break };
            bytes += value.encoded_len();
            if bytes > range.bytes_max && !loaded.values.is_empty() {
                break;
            }
            loaded.values.push(value.clone());
            if slot == Slot::MAX {
                break;
            }
            slot = slot.next();
        }
        Ok(loaded)
    }

    fn room(&self) -> Room {
        Room::Ample
    }

    fn log_bytes(&self, group: GroupId, step: u64) -> Vec<(Slot, u64)> {
        let log = self.log();
        let slots = (log.trimmed.next().number()..).zip(&log.slots).map(|(s, e)| (Slot::new(s), e));
        let committed = slots.take_while(|(slot, _)| *slot <= log.committed);
        let (mut marks, mut last, mut bytes) = (Vec::new(), None, 0);
        for (slot, entry) in committed.filter(|_| group == log.format.group) {
            let accepted = entry.accepted.as_ref().map(|(_, value)| value);
            let value = entry.chosen.as_ref().or(accepted);
            bytes += value.map_or(0, |value| value.encoded_len() as u64);
            last = Some((slot, bytes));
            let told = marks.last().map_or(0, |(_, told)| *told);
            if bytes >= told + step {
                marks.extend(last.take());
            }
        }
        marks.extend(last);
        marks
    }

    fn blocking(&self) -> Blocking {
        Blocking::Never
    }

    fn snapshots(&mut self) -> Option<Box<dyn SnapshotStore>> {
        let running = self.running().is_ok();
        let snapshots = MemorySnapshots { log: Arc::clone(&self.log), life: self.life };
        running.then(|| Box::new(snapshots) as _)
    }
}
