//! The running log: appends what a call brings, syncs once, reads values back, frees segments.
//!
//! Owns: [`Log`], the open segment, the buffer that a call's records are gathered in. Decides
//! nothing about what an earlier life left; that is `replay`.
//! Invariants: records are numbered without gaps; a segment gets its name only when its header,
//! its checkpoint and what a recovery moved into it are durable; a segment is given up only after
//! a durable record says that it is not needed; after any error nothing more is written.
//! Source: docs/format.md. Write-Ahead Log, Segmented Log, Low-Water Mark.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use paxos_core::codec::{decode_value, encode_membership, value_kind};
use paxos_core::durable::{Write, WriteBatch};
use paxos_core::ids::{GroupId, Incarnation, Slot};
use paxos_core::port::{LoadRange, Loaded, Room, StorageError};
use paxos_core::snapshot::Governs;
use paxos_core::value::Value;

use crate::fs::{FileSystem, LogFile, is_full, read_up_to, sync, write_all};
use crate::index::{Group, Holds, Place, Segments};
use crate::layout::{
    Checkpoint, End, Joint, Kind, Owner, RECORD_HEADER_LEN, Record, RecordHead, SEGMENT_HEADER_LEN,
    SegmentHead, claimed_len, peer_payload, put_record, record_len, take_record,
};
use crate::spare::Spares;

/// Kept free at the end of each segment: for a seal, a Freed record and a watermark.
const RESERVE: u64 = 4 * RECORD_HEADER_LEN as u64;
/// Larger segments could not be indexed.
const CAPACITY_MAX: u64 = 32 << 30;
/// The buffer is given back after a call that needed more than this.
const BUFFER_KEPT: usize = 8 << 20;
/// How much is read at once when values are read back.
const CHUNK_LEN: usize = 64 << 10;

/// The name of a segment's file.
pub(crate) fn segment_name(sequence: u64) -> String {
    format!("{sequence:016x}.wal")
}

/// Something acknowledged may be lost: says where, and what to do.
pub(crate) fn corrupt(place: impl Display, why: impl Display) -> StorageError {
    StorageError::Corrupt {
        what: format!(
            "{place}: {why}; keep the directory as it is, repair or restore nothing in it, and do \
             not start this replica from it again; the others go on without it while a majority \
             is up"
        ),
    }
}

/// What an operator can do about an error of the operating system.
fn advice(error: &io::Error) -> &'static str {
    use io::ErrorKind as Is;
    if is_full(error) {
        " (free some space, or raise the quota, then start the replica again)"
    } else if matches!(error.kind(), Is::PermissionDenied | Is::ReadOnlyFilesystem) {
        " (let the replica's user read and write there, then start it again)"
    } else if matches!(error.kind(), Is::NotFound | Is::NotADirectory) {
        " (look whether the path is right, and its disk mounted)"
    } else {
        " (look at the device and at the system's log before starting the replica again)"
    }
}

/// An error of the operating system, with what was attempted.
pub(crate) fn failed(what: &str, path: &Path) -> impl FnOnce(io::Error) -> StorageError + use<> {
    let what = format!("{what} {}", path.display());
    move |source| StorageError::Io { what: what + advice(&source), source }
}

/// Gathers the records of one call.
#[derive(Debug)]
struct Writer {
    buffer: Vec<u8>,
    salt: u32,
    boot: u32,
    /// The last record gathered.
    end: End,
    /// The last record that is durable.
    durable: u64,
}

impl Writer {
    /// Adds a record; returns its offset in the segment.
    fn put(&mut self, head: RecordHead, payload: &[u8]) -> u64 {
        let head =
            RecordHead { lsn: self.end.lsn + 1, synced_lsn: self.durable, boot: self.boot, ..head };
        self.put_as(head, payload)
    }

    fn put_as(&mut self, head: RecordHead, payload: &[u8]) -> u64 {
        assert_eq!(head.lsn, self.end.lsn + 1, "records are numbered without gaps");
        let offset = self.end.offset;
        let crc = put_record(&mut self.buffer, self.salt, &head, payload);
        self.end = End { offset: offset + record_len(payload.len()) as u64, lsn: head.lsn, crc };
        offset
    }
}

/// The open segment.
#[derive(Debug)]
struct Current<File> {
    file: File,
    path: PathBuf,
    sequence: u64,
    capacity: u64,
}

/// An older segment that values are read from.
#[derive(Debug)]
struct OlderSegment<File> {
    sequence: u64,
    file: File,
    salt: u32,
}

/// A record that a recovery moves into a new segment.
#[derive(Clone, Debug)]
pub(crate) struct Moved {
    pub(crate) head: RecordHead,
    pub(crate) payload: Vec<u8>,
}

/// What a log is made of when a life begins.
#[derive(Debug)]
pub(crate) struct Beginning<F: FileSystem> {
    pub(crate) fs: F,
    pub(crate) dir: PathBuf,
    pub(crate) owner: Owner,
    pub(crate) incarnation: Incarnation,
    pub(crate) groups: BTreeMap<GroupId, Group>,
    pub(crate) segments: Segments,
    pub(crate) spares: Spares<F>,
    /// The sequence that the first segment of this life gets.
    pub(crate) sequence: u64,
    pub(crate) joint: Joint,
    /// The last record that is known to be durable.
    pub(crate) previous: End,
}

/// The log of one life.
#[derive(Debug)]
pub(crate) struct Log<F: FileSystem> {
    fs: F,
    dir: PathBuf,
    owner: Owner,
    incarnation: Incarnation,
    groups: BTreeMap<GroupId, Group>,
    segments: Segments,
    spares: Spares<F>,
    current: Current<F::File>,
    writer: Writer,
    older: Option<OlderSegment<F::File>>,
    healthy: bool,
}

impl<F: FileSystem> Log<F> {
    /// Makes the first segment of a life, with the records that are moved into it. Durable when it
    /// returns; the offsets of the moved records are returned beside it.
    pub(crate) fn begin(
        mut from: Beginning<F>,
        moved: &[Moved],
    ) -> Result<(Self, Vec<u64>), StorageError> {
        let mut writer = Writer {
            buffer: Vec::new(),
            salt: 0,
            boot: from.incarnation.boot(),
            end: from.previous,
            durable: from.previous.lsn,
        };
        let need = moved.iter().map(|record| record_len(record.payload.len()) as u64).sum();
        let ground = Ground {
            fs: &from.fs,
            dir: &from.dir,
            owner: from.owner,
            sequence: from.sequence,
            joint: from.joint,
        };
        let checkpoint = checkpoint(from.incarnation, &from.segments, &from.groups);
        let opened = ground.open(&mut from.spares, &mut writer, &checkpoint, need, moved)?;
        from.segments.push(from.sequence, opened.0.capacity);
        let log = Self {
            fs: from.fs,
            dir: from.dir,
            owner: from.owner,
            incarnation: from.incarnation,
            groups: from.groups,
            segments: from.segments,
            spares: from.spares,
            current: opened.0,
            writer,
            older: None,
            healthy: true,
        };
        Ok((log, opened.1))
    }

    /// Writes the batches with one write and one sync. When it returns without an error all of
    /// them are durable.
    pub(crate) fn persist(&mut self, batches: &[WriteBatch]) -> Result<(), StorageError> {
        let result = self.try_persist(batches);
        self.healthy = result.is_ok();
        result
    }

    fn try_persist(&mut self, batches: &[WriteBatch]) -> Result<(), StorageError> {
        let need: u64 =
            batches.iter().flat_map(WriteBatch::writes).map(|write| write_len(write) as u64).sum();
        if need > 0 {
            self.make_room(need)?;
            let start = self.writer.end.offset;
            for batch in batches {
                self.gather(batch)?;
            }
            assert_eq!(self.writer.end.offset - start, need, "records are as long as was reckoned");
            self.flush()?;
        }
        self.free_segments()?;
        self.spares.refill().map_err(failed("cannot make a spare segment in", &self.dir))
    }

    /// Gathers the records of a batch and takes note of them. What is noted too early is never
    /// seen: if the write fails, nothing more is read from this log.
    fn gather(&mut self, batch: &WriteBatch) -> Result<(), StorageError> {
        let origin = batch.origin();
        let owner = Owner { cluster: origin.cluster, replica: origin.replica };
        let group = self.groups.get_mut(&origin.group);
        let Some(group) =
            group.filter(|_| owner == self.owner && origin.incarnation == self.incarnation)
        else {
            return Err(StorageError::Mismatch {
                what: format!(
                    "a write batch of cluster {}, {}, {}, life {} was given to the log of cluster \
                     {}, {}, life {}",
                    origin.cluster,
                    origin.replica,
                    origin.group,
                    origin.incarnation,
                    self.owner.cluster,
                    self.owner.replica,
                    self.incarnation
                ),
            });
        };
        let sequence = self.current.sequence;
        let blank = RecordHead {
            epoch: origin.epoch.number(),
            group: origin.group.number(),
            ..RecordHead::of_log(Kind::Watermark, 0)
        };
        for write in batch.writes() {
            gather_write(write, blank, sequence, group, &mut self.segments, &mut self.writer);
        }
        Ok(())
    }

    /// Goes on in a new segment where this one has no room for `need` bytes.
    fn make_room(&mut self, need: u64) -> Result<(), StorageError> {
        if self.writer.end.offset + need + RESERVE <= self.current.capacity {
            return Ok(());
        }
        self.writer.put(RecordHead::of_log(Kind::Seal, 0), &[]);
        self.flush()?;
        let sequence = self.current.sequence + 1;
        let ground = Ground {
            fs: &self.fs,
            dir: &self.dir,
            owner: self.owner,
            sequence,
            joint: Joint::Roll,
        };
        let checkpoint = checkpoint(self.incarnation, &self.segments, &self.groups);
        let (current, _) =
            ground.open(&mut self.spares, &mut self.writer, &checkpoint, need, &[])?;
        self.segments.push(sequence, current.capacity);
        self.current = current;
        Ok(())
    }

    /// Writes and syncs what was gathered.
    fn flush(&mut self) -> Result<(), StorageError> {
        let writer = &mut self.writer;
        let offset = writer.end.offset - writer.buffer.len() as u64;
        write_all(&mut self.current.file, &writer.buffer, offset)
            .map_err(failed("cannot write to", &self.current.path))?;
        sync(&mut self.current.file).map_err(failed("cannot sync", &self.current.path))?;
        writer.durable = writer.end.lsn;
        writer.buffer.clear();
        writer.buffer.shrink_to(BUFFER_KEPT);
        Ok(())
    }

    /// Gives up the oldest segments while nothing in them lives. That they may be missing is
    /// durable before one is.
    pub(crate) fn free_segments(&mut self) -> Result<(), StorageError> {
        if !self.segments.any_free() {
            return Ok(());
        }
        self.make_room(0)?;
        let free = self.segments.take_free();
        let head =
            RecordHead { slot: self.segments.oldest(), ..RecordHead::of_log(Kind::Freed, 0) };
        self.writer.put(head, &[]);
        self.flush()?;
        self.older = None;
        for segment in free {
            let path = self.dir.join(segment_name(segment.sequence));
            self.spares.recycle(&path, segment.size).map_err(failed("cannot free", &path))?;
        }
        self.fs.sync_dir(&self.dir).map_err(failed("cannot sync", &self.dir))
    }

    /// Roughly how much of the log the committed slots of a group take, up to each of some.
    pub(crate) fn bytes(&self, group: GroupId, step: u64) -> Vec<(Slot, u64)> {
        self.groups.get(&group).map(|group| group.bytes(&self.segments, step)).unwrap_or_default()
    }

    /// Starts making spares. Called when a life begins; `persist` does it from then on.
    pub(crate) fn refill(&mut self) -> Result<(), StorageError> {
        self.spares.refill().map_err(failed("cannot make a spare segment in", &self.dir))
    }

    /// A segment that a recovery took over from is cut where its records end, so that a replica
    /// that starts again and again does not fill the disk with empty segments.
    pub(crate) fn cut(&mut self, sequence: u64, size: u64) -> Result<(), StorageError> {
        let path = self.dir.join(segment_name(sequence));
        let mut file = self.fs.open(&path).map_err(failed("cannot open", &path))?;
        file.set_size(size).map_err(failed("cannot cut", &path))?;
        self.segments.resize(sequence, size);
        Ok(())
    }

    /// Takes note of a record that was moved to this offset of the first segment of a life.
    pub(crate) fn note_moved(&mut self, record: &Moved, offset: u64) {
        let holds = match record.head.kind {
            Kind::Accepted => Holds::Accepted,
            Kind::Chosen => Holds::Chosen,
            Kind::Promised
            | Kind::Committed
            | Kind::Trimmed
            | Kind::Peer
            | Kind::Checkpoint
            | Kind::Freed
            | Kind::Seal
            | Kind::Watermark
            | Kind::Refused
            | Kind::Governs => return,
        };
        let place = Place::new(self.current.sequence, offset, holds);
        if let Some(group) = self.groups.get_mut(&GroupId::new(record.head.group)) {
            group.place(Slot::new(record.head.slot), place, &mut self.segments);
        }
    }

    /// The sequence of the newest segment. Its name is durable.
    pub(crate) fn newest(&self) -> u64 {
        self.current.sequence
    }

    pub(crate) fn group(&self, group: GroupId) -> Option<&Group> {
        self.groups.get(&group)
    }

    pub(crate) fn room(&self) -> Room {
        if self.spares.is_full() { Room::Full } else { Room::Ample }
    }

    /// Reads values back.
    pub(crate) fn load(&mut self, range: LoadRange) -> Result<Loaded, StorageError> {
        let Some(group) = self.groups.get(&range.group) else {
            return Err(StorageError::Mismatch {
                what: format!("{} has no log in {}", range.group, self.dir.display()),
            });
        };
        let mut loaded = Loaded { values: Vec::new(), trimmed: group.trimmed };
        let (mut slot, mut bytes) = (range.from, 0);
        let mut chunk = Chunk::default();
        while slot <= range.through {
            let group = &self.groups[&range.group];
            let Some(place) = group.find(slot) else {
                break;
            };
            let (_, value) = self.read(range.group, slot, place, &mut chunk)?;
            bytes += value.encoded_len();
            if bytes > range.bytes_max && !loaded.values.is_empty() {
                break;
            }
            loaded.values.push(value);
            if slot == Slot::MAX {
                break;
            }
            slot = slot.next();
        }
        Ok(loaded)
    }

    /// Reads the value of a slot from its place, through a chunk that may hold it already.
    pub(crate) fn read(
        &mut self,
        group: GroupId,
        slot: Slot,
        place: Place,
        chunk: &mut Chunk,
    ) -> Result<(RecordHead, Value), StorageError> {
        let path = self.segment_path(place);
        let (file, salt) = self.segment(place.sequence)?;
        read_value((file, salt, &path), group, slot, place, chunk)
    }

    fn segment_path(&self, place: Place) -> PathBuf {
        self.dir.join(segment_name(place.sequence))
    }

    fn segment(&mut self, sequence: u64) -> Result<(&F::File, u32), StorageError> {
        if sequence == self.current.sequence {
            return Ok((&self.current.file, self.writer.salt));
        }
        let older = match self.older.take() {
            Some(older) if older.sequence == sequence => older,
            _ => {
                let path = self.dir.join(segment_name(sequence));
                let file = self.fs.open(&path).map_err(failed("cannot open", &path))?;
                let head = read_up_to(&file, 0, SEGMENT_HEADER_LEN as usize)
                    .map_err(failed("cannot read", &path))?;
                let head = SegmentHead::decode(&head)
                    .map_err(|why| corrupt(format!("{}, offset 0", path.display()), why))?;
                OlderSegment { sequence, file, salt: head.salt() }
            }
        };
        let older = self.older.insert(older);
        Ok((&older.file, older.salt))
    }
}

impl<F: FileSystem> Drop for Log<F> {
    /// Leaves a record that vouches for the last one, so that damage to it is noticed by the next
    /// life. Nothing depends on it, so it is not synced and may fail.
    fn drop(&mut self) {
        let writer = &mut self.writer;
        let room = writer.end.offset + RECORD_HEADER_LEN as u64 <= self.current.capacity;
        if self.healthy && room && writer.buffer.is_empty() {
            let offset = writer.put(RecordHead::of_log(Kind::Watermark, 0), &[]);
            let _ = write_all(&mut self.current.file, &writer.buffer, offset);
        }
    }
}

/// Where a new segment is put, and what its header says.
struct Ground<'a, F> {
    fs: &'a F,
    dir: &'a Path,
    owner: Owner,
    sequence: u64,
    joint: Joint,
}

impl<F: FileSystem> Ground<'_, F> {
    /// Opens a segment with room for `need` bytes beside its head: makes its header, its
    /// checkpoint and the moved records durable, then its name.
    fn open(
        &self,
        spares: &mut Spares<F>,
        writer: &mut Writer,
        checkpoint: &Checkpoint,
        need: u64,
        moved: &[Moved],
    ) -> Result<(Current<F::File>, Vec<u64>), StorageError> {
        let checkpoint = checkpoint.encode();
        let head_len = SEGMENT_HEADER_LEN + record_len(checkpoint.len()) as u64;
        let least = (head_len + need + RESERVE).next_multiple_of(4096);
        if least > CAPACITY_MAX {
            return Err(StorageError::Mismatch {
                what: format!("one call brings {need} bytes, a segment holds {CAPACITY_MAX}"),
            });
        }
        let taken = match self.joint {
            Joint::Takeover => spares.take_first(least),
            Joint::First | Joint::Roll => spares.take(least),
        };
        let spare = taken.map_err(failed("cannot make a segment in", self.dir))?;
        let mut file = self.fs.open(&spare).map_err(failed("cannot open", &spare))?;
        let capacity = file.size().map_err(failed("cannot measure", &spare))?;
        assert!(capacity >= least, "a spare has the size it was made with");
        let head = SegmentHead {
            owner: self.owner,
            sequence: self.sequence,
            boot: writer.boot,
            joint: self.joint,
            previous: writer.end,
            born_lsn: writer.end.lsn + 1 + moved.len() as u64,
            capacity,
        };
        let offsets = fill_head(writer, &head, &checkpoint, moved);
        write_all(&mut file, &writer.buffer, 0).map_err(failed("cannot write to", &spare))?;
        sync(&mut file).map_err(failed("cannot sync", &spare))?;
        writer.buffer.clear();
        writer.durable = writer.end.lsn;
        let path = self.dir.join(segment_name(self.sequence));
        self.fs.rename(&spare, &path).map_err(failed("cannot name", &path))?;
        self.fs.sync_dir(self.dir).map_err(failed("cannot sync", self.dir))?;
        let current = Current { file, path, sequence: self.sequence, capacity };
        Ok((current, offsets))
    }
}

/// Gathers all that stands in a segment when it gets its name; returns the moved records' offsets.
fn fill_head(
    writer: &mut Writer,
    head: &SegmentHead,
    checkpoint: &[u8],
    moved: &[Moved],
) -> Vec<u64> {
    assert!(writer.buffer.is_empty(), "a segment begins when the one before is written");
    head.encode(&mut writer.buffer);
    writer.salt = head.salt();
    writer.end.offset = SEGMENT_HEADER_LEN;
    writer.put(RecordHead::of_log(Kind::Checkpoint, 0), checkpoint);
    let offsets = moved
        .iter()
        .map(|record| {
            let head =
                RecordHead { lsn: writer.end.lsn + 1, synced_lsn: writer.durable, ..record.head };
            writer.put_as(head, &record.payload)
        })
        .collect();
    assert_eq!(
        head.born_lsn, writer.end.lsn,
        "a segment is born with all that its header vouches for"
    );
    offsets
}

fn checkpoint(
    incarnation: Incarnation,
    segments: &Segments,
    groups: &BTreeMap<GroupId, Group>,
) -> Checkpoint {
    Checkpoint {
        incarnation,
        oldest: segments.oldest(),
        groups: groups.iter().map(|(id, group)| group.checkpoint(*id)).collect(),
    }
}

fn write_len(write: &Write) -> usize {
    match write {
        Write::Promised(_) | Write::Committed(_) | Write::Trimmed(_) => record_len(0),
        Write::Accepted { value, .. } | Write::Chosen { value, .. } => {
            record_len(value.encoded_len())
        }
        Write::Governs { membership, .. } => record_len(encode_membership(membership).len()),
        Write::Peer { .. } | Write::Refused { .. } => record_len(16),
    }
}

fn gather_write(
    write: &Write,
    blank: RecordHead,
    sequence: u64,
    group: &mut Group,
    segments: &mut Segments,
    writer: &mut Writer,
) {
    let of_kind = |kind| RecordHead { kind, ..blank };
    match write {
        Write::Promised(ballot) => {
            let head = RecordHead { ballot: Some(*ballot), ..of_kind(Kind::Promised) };
            writer.put(head, &[]);
            group.promise(*ballot);
        }
        Write::Accepted { slot, ballot, value } => {
            let head = RecordHead {
                slot: slot.number(),
                ballot: Some(*ballot),
                ..of_kind(Kind::Accepted)
            };
            let offset = put_value(writer, head, value);
            group.promise(*ballot);
            note_value(group, value);
            let place = Place::new(sequence, offset, Holds::Accepted);
            group.place(*slot, place, segments);
        }
        Write::Chosen { slot, value } => {
            let head = RecordHead { slot: slot.number(), ..of_kind(Kind::Chosen) };
            let offset = put_value(writer, head, value);
            note_value(group, value);
            let place = Place::new(sequence, offset, Holds::Chosen);
            group.place(*slot, place, segments);
        }
        Write::Committed(through) => {
            let head = RecordHead { slot: through.number(), ..of_kind(Kind::Committed) };
            writer.put(head, &[]);
            group.commit(*through, segments);
        }
        Write::Governs { from, membership } => {
            let head = RecordHead { slot: from.number(), ..of_kind(Kind::Governs) };
            writer.put(head, &encode_membership(membership));
            group.govern(Governs { from: *from, membership: (**membership).clone() });
        }
        Write::Trimmed(through) => {
            let head = RecordHead { slot: through.number(), ..of_kind(Kind::Trimmed) };
            writer.put(head, &[]);
            group.trim(*through, segments);
        }
        Write::Peer { peer, incarnation } => {
            writer.put(of_kind(Kind::Peer), &peer_payload(*peer, *incarnation));
            group.peers.insert(*peer, *incarnation);
        }
        Write::Refused { by, remembered } => {
            writer.put(of_kind(Kind::Refused), &peer_payload(*by, *remembered));
            group.refused = Some((*by, *remembered));
        }
    }
}

fn put_value(writer: &mut Writer, head: RecordHead, value: &Value) -> u64 {
    let head = RecordHead { value_kind: value_kind(value), ..head };
    match value {
        Value::Noop => writer.put(head, &[]),
        Value::Membership(membership) => writer.put(head, &encode_membership(membership)),
        Value::Batch(batch) => writer.put(head, batch.encoded()),
    }
}

fn note_value(group: &mut Group, value: &Value) {
    if let Value::Batch(batch) = value {
        group.saw_clock(batch.clock());
    }
}

/// Reads the value of a slot from its place in a segment's file, through a chunk that may hold it already.
pub(crate) fn read_value(
    (file, salt, path): (&impl LogFile, u32, &Path),
    group: GroupId,
    slot: Slot,
    place: Place,
    chunk: &mut Chunk,
) -> Result<(RecordHead, Value), StorageError> {
    chunk.fill(file, place).map_err(failed("cannot read from", path))?;
    let bytes = chunk.at(place);
    let corrupt = |why: &str| {
        let at = format!("{}, offset {}", path.display(), place.offset());
        corrupt(at, format!("the record of {group}, {slot} {why}"))
    };
    let record = take_record(&bytes, salt).ok_or_else(|| corrupt("does not match its checksum"))?;
    let head = record.head;
    if head.group != group.number() || head.slot != slot.number() {
        return Err(corrupt("is of another slot"));
    }
    let payload = bytes.slice(RECORD_HEADER_LEN..RECORD_HEADER_LEN + record.payload.len());
    let value = decode_value(head.value_kind, payload)
        .map_err(|error| corrupt(&format!("has a value that cannot be read: {error}")))?;
    Ok((head, value))
}

/// A piece of a segment in memory: consecutive slots mostly stand side by side.
#[derive(Debug, Default)]
pub(crate) struct Chunk {
    sequence: u64,
    offset: u64,
    bytes: Bytes,
}

impl Chunk {
    /// Makes sure that the record at a place is in the chunk, as far as its file has it.
    fn fill(&mut self, file: &impl LogFile, place: Place) -> io::Result<()> {
        let whole = |bytes: &Bytes| claimed_len(bytes).is_some_and(|len| len <= bytes.len());
        if self.sequence == place.sequence && whole(&self.at(place)) {
            return Ok(());
        }
        let mut bytes = read_up_to(file, place.offset(), CHUNK_LEN)?;
        if let Some(len) = claimed_len(&bytes)
            && len > bytes.len()
        {
            let left = file.size()?.saturating_sub(place.offset());
            bytes = read_up_to(file, place.offset(), len.min(left as usize))?;
        }
        *self = Self { sequence: place.sequence, offset: place.offset(), bytes: bytes.into() };
        Ok(())
    }

    fn at(&self, place: Place) -> Bytes {
        match place.offset().checked_sub(self.offset) {
            Some(at) if at < self.bytes.len() as u64 => self.bytes.slice(at as usize..),
            _ => Bytes::new(),
        }
    }
}

/// Whether a record is kept when a recovery moves the end of the log into a new segment.
pub(crate) fn is_moved(record: &Record<'_>) -> bool {
    match record.head.kind {
        Kind::Promised
        | Kind::Accepted
        | Kind::Chosen
        | Kind::Committed
        | Kind::Trimmed
        | Kind::Peer
        | Kind::Refused
        | Kind::Governs
        | Kind::Freed => true,
        Kind::Checkpoint | Kind::Seal | Kind::Watermark => false,
    }
}
