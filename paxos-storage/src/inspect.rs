//! Looking at a replica's directory whose replica does not run.
//!
//! Owns: [`Inspection`]: what META, the log and the snapshots of a directory say, read and judged as a start
//! would judge them. Holds the directory's lock, begins no life and writes no record.
//! Invariants: nothing in the directory is changed, but that LOCK is made where it is missing; what a start
//! would call corrupt is not shown as if it were whole.
//! Source: docs/format.md, section "Disk"; etcd's and `TiKV`'s tools that read a stopped member's log.

use std::path::{Path, PathBuf};

use paxos_core::ids::{GroupId, Incarnation, ReplicaId, Slot};
use paxos_core::port::{Format, LoadRange, Loaded, Recovered, SnapshotReader, Start, StorageError};
use paxos_core::snapshot::SnapshotMeta;

use crate::fs::{FileSystem, RealFs};
use crate::index::{Group, Place};
use crate::layout::{End, SegmentHead};
use crate::log::{Chunk, failed, read_value, segment_name};
use crate::meta::Meta;
use crate::replay::{self, Found};
use crate::snapshots::{self, SNAPSHOTS_DIR, Stock};
use crate::wal::{LOG_DIR, lock, read_meta};

/// A segment of a log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct SegmentSummary {
    /// Its place in the order of segments, which is its name.
    pub sequence: u64,
    /// The size of its file.
    pub bytes: u64,
    /// How many of those have records in them, its header included.
    pub used_bytes: u64,
    /// The boot counter of the life that made it; 0 is the act of formatting.
    pub boot: u32,
    /// The number of its first record. A log's records are numbered without gaps.
    pub first_record: u64,
    /// The number of its last record.
    pub last_record: u64,
    /// How many values in it are still needed.
    pub values: u64,
}

/// A replica's directory that nobody uses, being looked at.
///
/// Every call waits for the disk. While this lives, the directory is locked: no replica can be started in it.
#[derive(Debug)]
pub struct Inspection<F: FileSystem = RealFs> {
    fs: F,
    dir: PathBuf,
    meta: Meta,
    found: Found,
    stock: Stock,
    /// The segment that was read from last.
    open: Option<(u64, F::File)>,
    /// Declared last, so that the directory is given up after everything in it.
    _lock: F::Lock,
}

impl Inspection {
    /// Reads and judges a directory. One that a peer refused can be looked at, too.
    ///
    /// Fails with [`StorageError::NotFormatted`], [`StorageError::AlreadyOpen`] while a replica runs in it,
    /// [`StorageError::Corrupt`] if it could not be started because something in it is damaged, and
    /// [`StorageError::Mismatch`] if another release wrote it, or parts of it were copied there.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, StorageError> {
        Self::open_on(RealFs, dir)
    }
}

impl<F: FileSystem> Inspection<F> {
    /// [`Inspection::open`] on another file system.
    pub fn open_on(fs: F, dir: impl AsRef<Path>) -> Result<Self, StorageError> {
        let dir = dir.as_ref();
        let not_formatted = || StorageError::NotFormatted { path: dir.to_owned() };
        if !fs.exists(dir).map_err(failed("cannot look for", dir))? {
            return Err(not_formatted());
        }
        // A directory of something else is not locked: that would leave a file in it.
        if read_meta(&fs, dir)?.is_none() {
            return Err(not_formatted());
        }
        let lock = lock(&fs, dir)?;
        let meta = read_meta(&fs, dir)?.ok_or_else(not_formatted)?;
        let found = replay::look(&fs, &dir.join(LOG_DIR), &meta)?;
        let (owner, group) = (replay::owner_of(&meta), meta.format.group);
        let trimmed = found.trimmed(group);
        let stock = snapshots::read(&fs, &dir.join(SNAPSHOTS_DIR), (owner, group), trimmed)?;
        Ok(Self { fs, dir: dir.to_owned(), meta, found, stock, open: None, _lock: lock })
    }

    /// Whose directory it is, and the membership that it was formatted with.
    pub fn format(&self) -> &Format {
        &self.meta.format
    }

    /// The last life that began in it, if any did.
    pub fn life(&self) -> Option<Incarnation> {
        self.meta.last
    }

    /// The peer that refused the directory, and the life that it remembers: the directory can never be
    /// started again.
    pub fn refused(&self) -> Option<(ReplicaId, Incarnation)> {
        self.group().refused
    }

    /// The segments of the log, oldest first.
    pub fn segments(&self) -> Vec<SegmentSummary> {
        let runs = self.found.runs().iter().zip(self.found.segments().iter());
        let summary = |((head, end), info): (&(SegmentHead, End), &crate::index::SegmentInfo)| {
            SegmentSummary {
                sequence: head.sequence,
                bytes: info.size,
                used_bytes: end.offset,
                boot: head.boot,
                first_record: head.first_lsn(),
                last_record: end.lsn,
                values: info.live,
            }
        };
        runs.map(summary).collect()
    }

    /// How many bytes at the end of the log belong to a write that was cut short, which the next start sets
    /// aside.
    pub fn torn_bytes(&self) -> usize {
        self.found.torn_bytes()
    }

    /// The first and the last slot that the log holds a value of; slots between them may be missing above the
    /// committed prefix.
    pub fn slots(&self) -> Option<(Slot, Slot)> {
        self.group().kept()
    }

    /// What a start would be given, but of the last life and not of a new one.
    pub fn recovered(&mut self) -> Result<Recovered, StorageError> {
        let life = match self.meta.last {
            None => (Start::First, Incarnation::new(0, 0)),
            Some(last) => (Start::Again, last),
        };
        let (mut recovered, places) = replay::outline(self.group(), &self.meta, life);
        recovered.snapshot = self.stock.newest().cloned();
        replay::fill_in(&mut recovered, places, |slot, place, chunk| {
            self.read(slot, place, chunk)
        })?;
        Ok(recovered)
    }

    /// Reads values back, as [`paxos_core::port::Storage::load`] does.
    pub fn load(&mut self, range: LoadRange) -> Result<Loaded, StorageError> {
        let mut loaded = Loaded { values: Vec::new(), trimmed: self.group().trimmed };
        let (mut slot, mut bytes, mut chunk) = (range.from, 0, Chunk::default());
        while slot <= range.through {
            let Some(place) = self.group().find(slot) else { break };
            let (_, value) = self.read(slot, place, &mut chunk)?;
            bytes += value.encoded_len();
            if bytes > range.bytes_max && !loaded.values.is_empty() {
                break;
            }
            loaded.values.push(value);
            slot = slot.next();
        }
        Ok(loaded)
    }

    /// The finished snapshots, oldest first. The newest was read and is whole.
    pub fn snapshots(&self) -> Vec<SnapshotMeta> {
        self.stock.all().cloned().collect()
    }

    /// The snapshot that was being received from a peer, if there is one.
    pub fn unfinished_snapshot(&self) -> Option<&SnapshotMeta> {
        self.stock.unfinished()
    }

    /// The slots of the snapshots that were found damaged, and that the replica does without.
    pub fn damaged_snapshots(&self) -> Vec<Slot> {
        self.stock.damaged().collect()
    }

    /// Opens the image of a finished snapshot; `None` if there is no such.
    pub fn open_snapshot(
        &self,
        meta: &SnapshotMeta,
    ) -> Result<Option<Box<dyn SnapshotReader>>, StorageError> {
        self.stock.open(&self.fs, &self.dir.join(SNAPSHOTS_DIR), meta)
    }

    fn group_id(&self) -> GroupId {
        self.meta.format.group
    }

    fn group(&self) -> &Group {
        self.found.group(self.group_id()).expect("the formatted group has a log")
    }

    fn read(
        &mut self,
        slot: Slot,
        place: Place,
        chunk: &mut Chunk,
    ) -> Result<(crate::layout::RecordHead, paxos_core::value::Value), StorageError> {
        let path = self.dir.join(LOG_DIR).join(segment_name(place.sequence));
        let file = match self.open.take() {
            Some((sequence, file)) if sequence == place.sequence => file,
            Some(_) | None => self.fs.open(&path).map_err(failed("cannot open", &path))?,
        };
        let (_, file) = self.open.insert((place.sequence, file));
        let runs = self.found.runs();
        let head = runs.iter().find(|(head, _)| head.sequence == place.sequence);
        let (head, _) = head.expect("a place is in a segment that was read");
        read_value((file, head.salt(), &path), self.meta.format.group, slot, place, chunk)
    }
}
