//! Recovery: reads what earlier lives left, decides where it ends, and makes that end durable.
//!
//! Owns: the order of steps at the start of a life, and the answers that `verdict` is asked with.
//! Changes nothing on disk before the whole log was judged.
//! Invariants: the records taken are a prefix of those written; whatever was acknowledged is among
//! them, or the log is called corrupt; when a life begins, all that it was given is durable again,
//! in a segment of its own, because what a process that died left in the page cache may not be.
//! Source: docs/format.md, section "Disk"; Write-Ahead Log.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::{Buf, Bytes};
use paxos_core::codec::decode_membership;
use paxos_core::ids::{GroupId, Incarnation, LogClock, Slot};
use paxos_core::port::{Recovered, RecoveredVote, Start, StorageError};
use paxos_core::snapshot::Governs;
use paxos_core::value::Value;

use crate::fs::{FileSystem, LogFile, read_up_to, sync, write_all};
use crate::index::{Group, Holds, Place, Segments};
use crate::layout::{
    Checkpoint, End, Joint, Kind, Owner, RECORD_HEADER_LEN, Record, RecordHead, SEGMENT_HEADER_LEN,
    SegmentHead, claimed_len, take_peer, take_record,
};
use crate::log::{Beginning, Chunk, Log, Moved, corrupt, failed, is_moved, segment_name};
use crate::meta::Meta;
use crate::spare::Spares;
use crate::verdict::{Ending, Successor, Verdict, Vouched, judge};
use crate::wal::WalOptions;

/// At most so much of a torn end is saved for people to look at.
const TORN_BYTES_MAX: usize = 16 << 20;
/// At most so many torn ends are kept; the newest.
const TORN_FILES_MAX: usize = 4;

/// What earlier lives left, read and judged.
#[derive(Debug)]
pub(crate) struct Found {
    groups: BTreeMap<GroupId, Group>,
    segments: Segments,
    /// Of each segment that was read, oldest first: its header, and where its records end.
    runs: Vec<(SegmentHead, End)>,
    tail: Tail,
    /// The segments in the directory, those that are not needed included.
    sequences: Vec<u64>,
}

impl Found {
    /// The newest segment.
    pub(crate) fn newest(&self) -> u64 {
        self.tail.sequence
    }

    /// The last slot of a group that was trimmed.
    pub(crate) fn trimmed(&self, group: GroupId) -> Slot {
        self.groups.get(&group).map_or(Slot::ZERO, |group| group.trimmed)
    }

    /// What the log says of a group.
    pub(crate) fn group(&self, group: GroupId) -> Option<&Group> {
        self.groups.get(&group)
    }

    pub(crate) fn segments(&self) -> &Segments {
        &self.segments
    }

    /// Of each segment that was read, oldest first: its header, and where its records end.
    pub(crate) fn runs(&self) -> &[(SegmentHead, End)] {
        &self.runs
    }

    /// How many bytes at the end belong to a write that was cut short.
    pub(crate) fn torn_bytes(&self) -> usize {
        self.tail.torn.as_ref().map_or(0, |torn| torn.bytes.len())
    }
}

/// Reads and judges the log in `dir`, and changes nothing.
///
/// Fails with [`StorageError::Refused`] if a peer ever refused the directory.
pub(crate) fn read<F: FileSystem>(fs: &F, dir: &Path, meta: &Meta) -> Result<Found, StorageError> {
    let found = look(fs, dir, meta)?;
    if let Some((by, remembered)) = found.groups.values().find_map(|group| group.refused) {
        return Err(StorageError::Refused { by, remembered });
    }
    Ok(found)
}

/// As [`read`], of a directory that was refused, too: for people to look at.
pub(crate) fn look<F: FileSystem>(fs: &F, dir: &Path, meta: &Meta) -> Result<Found, StorageError> {
    let mut reading = Reading {
        fs,
        dir,
        owner: owner_of(meta),
        boot: meta.last.map_or(0, Incarnation::boot),
        groups: BTreeMap::from([(meta.format.group, Group::default())]),
        segments: Segments::default(),
        runs: Vec::new(),
        oldest: 0,
    };
    let sequences = sequences(fs, dir)?;
    let tail = reading.read_all(&sequences, meta.newest)?;
    let Reading { groups, segments, runs, .. } = reading;
    Ok(Found { groups, segments, runs, tail, sequences })
}

/// Gives back what a segment has room for beyond the records that were read of it.
fn cut<F: FileSystem>(fs: &F, dir: &Path, tail: &Tail) -> Result<(), StorageError> {
    let path = dir.join(segment_name(tail.sequence));
    let mut file = fs.open(&path).map_err(failed("cannot open", &path))?;
    let size = file.size().map_err(failed("cannot measure", &path))?;
    if size > tail.end {
        file.set_size(tail.end).map_err(failed("cannot cut", &path))?;
    }
    Ok(())
}

/// Begins a life, which is durable in META already, on what was found.
pub(crate) fn begin<F: FileSystem>(
    fs: &F,
    dir: &Path,
    meta: &Meta,
    life: (Start, Incarnation),
    found: Found,
    options: &WalOptions,
) -> Result<(Log<F>, Recovered), StorageError> {
    let Found { groups, segments, tail, sequences, .. } = found;
    if let Some(torn) = &tail.torn {
        save_torn(fs, dir, &tail, torn)?;
    }
    for leftover in sequences.iter().filter(|s| **s < tail.first) {
        let path = dir.join(segment_name(*leftover));
        fs.remove(&path).map_err(failed("cannot remove", &path))?;
    }
    let spares = open_spares(fs, dir, options)?;
    if spares.is_empty() {
        // A full disk has room for the first segment of this life where the last one ends.
        cut(fs, dir, &tail)?;
    }
    let from = Beginning {
        fs: fs.clone(),
        dir: dir.to_owned(),
        owner: owner_of(meta),
        incarnation: life.1,
        groups,
        segments,
        spares,
        sequence: tail.sequence + 1,
        joint: Joint::Takeover,
        previous: tail.durable,
    };
    let (mut log, offsets) = Log::begin(from, &tail.moved)?;
    for (record, offset) in tail.moved.iter().zip(offsets) {
        log.note_moved(record, offset);
    }
    log.cut(tail.sequence, tail.durable.offset)?;
    log.free_segments()?;
    log.refill()?;
    let recovered = report(&mut log, meta, life)?;
    Ok((log, recovered))
}

/// Makes the first, short segment of an empty directory. Durable when it returns.
pub(crate) fn found<F: FileSystem>(fs: &F, dir: &Path, meta: &Meta) -> Result<(), StorageError> {
    let options =
        WalOptions { segment_bytes: SEGMENT_HEADER_LEN, prewrite: false, ..WalOptions::default() };
    let from = Beginning {
        fs: fs.clone(),
        dir: dir.to_owned(),
        owner: owner_of(meta),
        incarnation: Incarnation::new(0, 0),
        groups: BTreeMap::from([(meta.format.group, Group::default())]),
        segments: Segments::default(),
        spares: open_spares(fs, dir, &options)?,
        sequence: 1,
        joint: Joint::First,
        previous: End::default(),
    };
    Log::begin(from, &[]).map(|_| ())
}

pub(crate) fn owner_of(meta: &Meta) -> Owner {
    Owner { cluster: meta.format.cluster, replica: meta.format.replica }
}

fn open_spares<F: FileSystem>(
    fs: &F,
    dir: &Path,
    options: &WalOptions,
) -> Result<Spares<F>, StorageError> {
    Spares::open(
        fs.clone(),
        dir.to_owned(),
        options.segment_bytes,
        options.spares,
        options.prewrite,
    )
    .map_err(failed("cannot list the spare segments in", dir))
}

/// The numbers of the segments in a directory, rising.
pub(crate) fn sequences<F: FileSystem>(fs: &F, dir: &Path) -> Result<Vec<u64>, StorageError> {
    let names = fs.list(dir).map_err(failed("cannot list", dir))?;
    let mut sequences: Vec<_> = names
        .iter()
        .filter_map(|name| u64::from_str_radix(name.strip_suffix(".wal")?, 16).ok())
        .collect();
    sequences.sort_unstable();
    Ok(sequences)
}

/// The end of the log as it was found.
#[derive(Debug)]
struct Tail {
    /// The oldest segment that was read.
    first: u64,
    /// The newest.
    sequence: u64,
    /// The last record that is known to be durable.
    durable: End,
    /// Where all that was read ends.
    end: u64,
    /// The records after what is known to be durable.
    moved: Vec<Moved>,
    torn: Option<Torn>,
}

/// A write that was cut short.
#[derive(Debug)]
struct Torn {
    /// The record that is missing.
    lsn: u64,
    bytes: Vec<u8>,
}

/// What was found by reading the records of a segment in order.
#[derive(Debug)]
struct Scan {
    end: End,
    ending: Ending,
    /// The highest record that something in this segment says was durable.
    vouched: u64,
}

/// A log being read.
struct Reading<'a, F> {
    fs: &'a F,
    dir: &'a Path,
    owner: Owner,
    boot: u32,
    groups: BTreeMap<GroupId, Group>,
    segments: Segments,
    runs: Vec<(SegmentHead, End)>,
    /// The oldest segment that the log says it needs.
    oldest: u64,
}

impl<F: FileSystem> Reading<'_, F> {
    /// Reads every segment, oldest first, into the state of the groups.
    fn read_all(&mut self, sequences: &[u64], newest: u64) -> Result<Tail, StorageError> {
        let Some(last) = sequences.last().copied().filter(|last| *last >= newest) else {
            // META names each new segment a moment after it got its name, so the newest one may
            // have been a later one.
            let why = format!(
                "segment {}, or one that followed it, is missing, and holds the newest records",
                segment_name(newest)
            );
            return Err(corrupt(self.dir.display(), why));
        };
        // Below a gap there are only segments that were being freed; whether that is so is known
        // once the newest one was read.
        let run = sequences
            .iter()
            .rev()
            .zip((0..=last).rev())
            .take_while(|(found, expected)| *found == expected)
            .count();
        let run = &sequences[sequences.len() - run..];
        let heads =
            run.iter().map(|sequence| self.read_head(*sequence)).collect::<Result<Vec<_>, _>>()?;
        for (at, head) in heads.iter().enumerate() {
            let bytes = self.read_segment(head.sequence)?;
            self.segments.push(head.sequence, bytes.len() as u64);
            let next = heads.get(at + 1);
            let mut records = Vec::new();
            let scan = self.scan(&bytes, head, next, &mut records)?;
            self.runs.push((*head, scan.end));
            if next.is_none() {
                if run[0] > self.oldest.max(1) {
                    let missing = segment_name(run[0] - 1);
                    let why = format!("segment {missing} is missing, and the log needs it");
                    return Err(corrupt(self.dir.display(), why));
                }
                return self.end_of_log(&bytes, head, &scan, &records, run[0]);
            }
            self.check(head, &scan, successor(&scan, next), scan.vouched)?;
        }
        unreachable!("the last segment ends the loop");
    }

    fn path(&self, sequence: u64) -> PathBuf {
        self.dir.join(segment_name(sequence))
    }

    fn read_head(&self, sequence: u64) -> Result<SegmentHead, StorageError> {
        let path = self.path(sequence);
        let file = self.fs.open(&path).map_err(failed("cannot open", &path))?;
        let bytes = read_up_to(&file, 0, SEGMENT_HEADER_LEN as usize)
            .map_err(failed("cannot read", &path))?;
        let corrupt = |why: String| corrupt(format!("{}, offset 0", path.display()), why);
        let head = SegmentHead::decode(&bytes).map_err(corrupt)?;
        if head.owner != self.owner {
            return Err(StorageError::Mismatch {
                what: format!(
                    "{} belongs to cluster {}, {}: it was copied here from elsewhere",
                    path.display(),
                    head.owner.cluster,
                    head.owner.replica
                ),
            });
        }
        if head.sequence != sequence {
            return Err(corrupt(format!("it is segment {}", head.sequence)));
        }
        if head.boot > self.boot {
            return Err(corrupt(format!(
                "life {} wrote it, and META counts {}: META is an old copy",
                head.boot, self.boot
            )));
        }
        Ok(head)
    }

    fn read_segment(&self, sequence: u64) -> Result<Vec<u8>, StorageError> {
        let path = self.path(sequence);
        let file = self.fs.open(&path).map_err(failed("cannot open", &path))?;
        let size = file.size().map_err(failed("cannot measure", &path))?;
        read_up_to(&file, 0, size as usize).map_err(failed("cannot read", &path))
    }

    /// Takes record after record, until one is not there, the segment is sealed, or the next
    /// segment says that it took over.
    fn scan<'b>(
        &mut self,
        bytes: &'b [u8],
        head: &SegmentHead,
        next: Option<&SegmentHead>,
        records: &mut Vec<(u64, Record<'b>)>,
    ) -> Result<Scan, StorageError> {
        let salt = head.salt();
        let mut scan = Scan {
            end: End { offset: SEGMENT_HEADER_LEN, ..head.previous },
            ending: Ending::Open,
            vouched: head.born_lsn,
        };
        while next.is_none_or(|next| scan.end.offset != next.previous.offset) {
            let offset = scan.end.offset;
            let rest = bytes.get(offset as usize..).unwrap_or_default();
            let Some(record) =
                take_record(rest, salt).filter(|record| record.head.lsn == scan.end.lsn + 1)
            else {
                break;
            };
            if self.take(head.sequence, offset, &record).is_none() {
                let path = self.path(head.sequence);
                return Err(corrupt(
                    format!("{}, offset {offset}, record {}", path.display(), record.head.lsn),
                    "it matches its checksum and makes no sense",
                ));
            }
            scan.vouched = scan.vouched.max(record.head.synced_lsn);
            scan.end =
                End { offset: offset + record.len() as u64, lsn: record.head.lsn, crc: record.crc };
            if next.is_none() {
                records.push((offset, record));
            }
            if record.head.kind == Kind::Seal {
                scan.ending = Ending::Sealed;
                break;
            }
        }
        Ok(scan)
    }

    /// Takes a record into the state; `None` if it makes no sense.
    fn take(&mut self, sequence: u64, offset: u64, record: &Record<'_>) -> Option<()> {
        let head = &record.head;
        match head.kind {
            Kind::Seal | Kind::Watermark => return Some(()),
            Kind::Freed => {
                self.oldest = self.oldest.max(head.slot);
                return Some(());
            }
            Kind::Checkpoint => {
                let checkpoint = Checkpoint::decode(record.payload)?;
                self.oldest = self.oldest.max(checkpoint.oldest);
                for state in &checkpoint.groups {
                    let group = self.groups.get_mut(&state.group)?;
                    group.restore(state, &mut self.segments);
                }
                return Some(());
            }
            Kind::Promised
            | Kind::Accepted
            | Kind::Chosen
            | Kind::Committed
            | Kind::Trimmed
            | Kind::Peer
            | Kind::Governs
            | Kind::Refused => {}
        }
        let group = self.groups.get_mut(&GroupId::new(head.group))?;
        let slot = Slot::new(head.slot);
        match head.kind {
            Kind::Promised => group.promise(head.ballot?),
            Kind::Accepted => {
                group.promise(head.ballot?);
                group.saw_clock(clock_of(record));
                let place = Place::new(sequence, offset, Holds::Accepted);
                group.place(slot, place, &mut self.segments);
            }
            Kind::Chosen => {
                group.saw_clock(clock_of(record));
                let place = Place::new(sequence, offset, Holds::Chosen);
                group.place(slot, place, &mut self.segments);
            }
            Kind::Committed => group.commit(slot, &mut self.segments),
            Kind::Trimmed => group.trim(slot, &mut self.segments),
            Kind::Peer => {
                let (peer, incarnation) = take_peer(record.payload)?;
                group.peers.insert(peer, incarnation);
            }
            Kind::Governs => {
                let membership = decode_membership(Bytes::copy_from_slice(record.payload)).ok()?;
                group.govern(Governs { from: slot, membership });
            }
            Kind::Refused => group.refused = Some(take_peer(record.payload)?),
            Kind::Checkpoint | Kind::Freed | Kind::Seal | Kind::Watermark => {}
        }
        Some(())
    }

    /// Asks the table about a segment; `Ok` if it is whole.
    fn check(
        &self,
        head: &SegmentHead,
        scan: &Scan,
        successor: Successor,
        vouched: u64,
    ) -> Result<(), StorageError> {
        let present = if vouched > scan.end.lsn { Vouched::Missing } else { Vouched::Present };
        match judge(scan.ending, successor, present) {
            Verdict::Continue | Verdict::End => Ok(()),
            Verdict::Corrupt(why) => {
                let path = self.path(head.sequence);
                Err(corrupt(
                    format!("{}, offset {}", path.display(), scan.end.offset),
                    format!("record {} is missing or damaged: {why}", scan.end.lsn + 1),
                ))
            }
        }
    }

    /// Decides about the newest segment, and takes what is to be made durable again.
    fn end_of_log(
        &self,
        bytes: &[u8],
        head: &SegmentHead,
        scan: &Scan,
        records: &[(u64, Record<'_>)],
        first: u64,
    ) -> Result<Tail, StorageError> {
        let rest = bytes.get(scan.end.offset as usize..).unwrap_or_default();
        let ahead = look_ahead(rest, head.salt(), scan.end.lsn + 1);
        let vouched = scan.vouched.max(ahead.vouched);
        self.check(head, scan, Successor::None, vouched)?;
        let torn = (scan.ending == Ending::Open && ahead.len > 0).then(|| Torn {
            lsn: scan.end.lsn + 1,
            bytes: rest[..ahead.len.min(TORN_BYTES_MAX)].to_vec(),
        });
        let (durable, after) = match records.iter().rposition(|(_, r)| r.head.lsn <= vouched) {
            Some(at) => {
                let (offset, record) = &records[at];
                let end = End {
                    offset: offset + record.len() as u64,
                    lsn: record.head.lsn,
                    crc: record.crc,
                };
                (end, &records[at + 1..])
            }
            None => unreachable!("a header vouches for the checkpoint after it"),
        };
        let moved = after
            .iter()
            .filter(|(_, record)| is_moved(record))
            .map(|(_, record)| Moved { head: record.head, payload: record.payload.to_vec() })
            .collect();
        let end = scan.end.offset;
        Ok(Tail { first, sequence: head.sequence, durable, end, moved, torn })
    }
}

fn successor(scan: &Scan, next: Option<&SegmentHead>) -> Successor {
    match next {
        None => Successor::None,
        Some(next) if next.previous != scan.end => Successor::Disagrees,
        Some(next) => match next.joint {
            Joint::Roll => Successor::Follows,
            Joint::Takeover => Successor::TakesOver,
            Joint::First => Successor::Disagrees,
        },
    }
}

/// What stands beyond the end of the log.
struct Ahead {
    /// The highest record that something there says was durable.
    vouched: u64,
    /// How many bytes belong to a write that was cut short.
    len: usize,
}

/// Looks for records of this segment beyond the first one that is not there. Devices write in any
/// order, so a torn write may leave some; one that vouches for the missing record accuses.
fn look_ahead(rest: &[u8], salt: u32, missing: u64) -> Ahead {
    let mut ahead = Ahead { vouched: 0, len: 0 };
    let lsns = missing..=missing + (rest.len() / RECORD_HEADER_LEN) as u64;
    let lsn_at = |bytes: &[u8]| (&bytes[16..]).get_u64_le();
    if claimed_len(rest).is_some() && lsn_at(rest) == missing {
        ahead.len = claimed_len(rest).unwrap_or_default().min(rest.len());
    }
    let mut at = 0;
    while at < rest.len() {
        let bytes = &rest[at..];
        let record = claimed_len(bytes)
            .filter(|_| lsns.contains(&lsn_at(bytes)))
            .and_then(|_| take_record(bytes, salt));
        at += match record {
            Some(record) => {
                ahead.vouched = ahead.vouched.max(record.head.synced_lsn);
                ahead.len = ahead.len.max(at + record.len());
                record.len()
            }
            None => 8,
        };
    }
    ahead
}

fn clock_of(record: &Record<'_>) -> LogClock {
    // A batch begins with its clock.
    match (record.head.value_kind, record.payload.first_chunk::<8>()) {
        (2, Some(millis)) => LogClock::from_millis(u64::from_le_bytes(*millis)),
        _ => LogClock::default(),
    }
}

/// Saves what a torn write left, for people. The newest few are kept. A full disk does not stop
/// the recovery: the replica does not depend on the copy.
fn save_torn<F: FileSystem>(
    fs: &F,
    dir: &Path,
    tail: &Tail,
    torn: &Torn,
) -> Result<(), StorageError> {
    let names = fs.list(dir).map_err(failed("cannot list", dir))?;
    let old: Vec<_> = names.iter().filter(|name| name.strip_suffix(".torn").is_some()).collect();
    let name = format!("{:016x}-{:016x}.torn", tail.sequence, torn.lsn);
    let surplus = (old.len() + 1).saturating_sub(TORN_FILES_MAX);
    let same = old.iter().filter(|old| ***old == name);
    for old in old.iter().take(surplus).chain(same) {
        let path = dir.join(old);
        if fs.exists(&path).map_err(failed("cannot look for", &path))? {
            fs.remove(&path).map_err(failed("cannot remove", &path))?;
        }
    }
    let path = dir.join(name);
    let saved = fs.create(&path).and_then(|mut file| {
        write_all(&mut file, &torn.bytes, 0)?;
        sync(&mut file)
    });
    match saved {
        Err(error) if crate::fs::is_full(&error) => {
            fs.remove(&path).map_err(failed("cannot remove", &path))
        }
        saved => saved.map_err(failed("cannot save a torn end as", &path)),
    }
}

/// What the replica is told.
fn report<F: FileSystem>(
    log: &mut Log<F>,
    meta: &Meta,
    life: (Start, Incarnation),
) -> Result<Recovered, StorageError> {
    let id = meta.format.group;
    let group = log.group(id).expect("the formatted group has a log");
    let (mut recovered, places) = outline(group, meta, life);
    fill_in(&mut recovered, places, |slot, place, chunk| log.read(id, slot, place, chunk))?;
    Ok(recovered)
}

/// Where a slot above the committed prefix has its vote, and the value that is recorded as chosen.
pub(crate) type Undecided = (Slot, Option<Place>, Option<Place>);

/// What the log says of a group but for values, and where those are that are not committed.
pub(crate) fn outline(
    group: &Group,
    meta: &Meta,
    (start, incarnation): (Start, Incarnation),
) -> (Recovered, Vec<Undecided>) {
    let recovered = Recovered {
        format: meta.format.clone(),
        start,
        incarnation,
        promised: group.promised,
        committed: group.committed,
        trimmed: group.trimmed,
        votes: Vec::new(),
        chosen: Vec::new(),
        clock: group.clock,
        peers: group.peers.iter().map(|(p, i)| (*p, *i)).collect(),
        governs: group.governs.clone(),
        snapshot: None,
    };
    let places = group.undecided().into_iter().map(|slot| {
        let chosen = group.find(slot).filter(|place| place.holds == Holds::Chosen);
        (slot, group.find_vote(slot), chosen)
    });
    (recovered, places.collect())
}

/// Reads the values that are not committed.
pub(crate) fn fill_in(
    recovered: &mut Recovered,
    places: Vec<Undecided>,
    mut read: impl FnMut(Slot, Place, &mut Chunk) -> Result<(RecordHead, Value), StorageError>,
) -> Result<(), StorageError> {
    let mut chunk = Chunk::default();
    for (slot, vote, chosen) in places {
        if let Some(place) = vote {
            let (head, value) = read(slot, place, &mut chunk)?;
            let ballot = head.ballot.expect("an Accepted record names its ballot");
            recovered.votes.push(RecoveredVote { slot, ballot, value });
        }
        if let Some(place) = chosen {
            let (_, value) = read(slot, place, &mut chunk)?;
            recovered.chosen.push((slot, value));
        }
    }
    Ok(())
}
