//! Recovery of the log from files that anything may have happened to: paxos-storage over `SimFs`.
//!
//! The first byte chooses a log that was killed or closed, and what is done to its files:
//!
//! - damage, as devices and people do it. What is recovered is what the log said after some of its
//!   facts, from none to all, or an error that names a file: never anything else.
//! - forgery: damage and any bytes anywhere, and then every checksum set right. What is recovered may
//!   be anything, but it is recovered without a panic, written on to, and the same the next time.
//! - a file of nothing but the input, with its checksums as they are.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use bytes::Bytes;
use paxos_core::ballot::Ballot;
use paxos_core::durable::Write;
use paxos_core::ids::{
    ClientId, ClusterId, Epoch, GroupId, Incarnation, LogClock, ReplicaId, RequestNumber, Slot,
};
use paxos_core::membership::Membership;
use paxos_core::message::Origin;
use paxos_core::port::{Format, LoadRange, Recovered, Start, Storage, StorageError};
use paxos_core::sim::Batches;
use paxos_core::value::{Batch, Command, Value};
use paxos_storage::fs::FileSystem;
use paxos_storage::sim::{SECTOR_LEN, SimFs};
use paxos_storage::{MemoryStorage, SEGMENT_BYTES_MIN, Wal, WalOptions};

use super::input::Input;
use crate::layout::{self, SEGMENT_HEADER_LEN, SegmentHead};

const DIR: &str = "/data";
const GROUP: GroupId = GroupId::new(3);
/// Above every slot of the log.
const LAST: Slot = Slot::new(99);
const NONCE: u32 = 0xabcd;

/// What a log says: everything but the life it is told to, and the values.
type Said = (Recovered, Vec<Value>);

/// An undamaged log, and what it said after each of its facts.
struct Base {
    killed: SimFs,
    closed: SimFs,
    said: Vec<Said>,
}

static BASE: LazyLock<Base> = LazyLock::new(|| {
    let facts = facts();
    Base {
        killed: written(&facts, true),
        closed: written(&facts, false),
        said: (0..=facts.len()).map(|count| model(&facts[..count])).collect(),
    }
});

pub(super) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let choice = input.byte();
    let fs = if choice & 1 == 0 { BASE.killed.fork() } else { BASE.closed.fork() };
    match choice >> 1 & 3 {
        0 | 1 => {
            while !input.is_empty() {
                damage(&fs, &mut input);
            }
            if let Ok(said) = recovered(&fs) {
                assert!(BASE.said.contains(&said), "the log never said so: {said:?}");
            }
        }
        2 => {
            while !input.is_empty() {
                if input.byte() & 1 == 0 {
                    damage(&fs, &mut input);
                } else {
                    paste(&fs, &mut input);
                }
            }
            for path in files(&fs) {
                seal(&fs, &path);
            }
            goes_on(&fs);
        }
        _ => {
            let files = files(&fs);
            fs.replace(&files[input.below(files.len())], input.rest().to_vec());
            goes_on(&fs);
        }
    }
}

// ---------------------------------------------------------------------------------------------
// The log

fn facts() -> Vec<Write> {
    let ballot = |round| Ballot::new(round, ReplicaId::new(1));
    let value = |seed: u64, len: usize| {
        let payload = Bytes::from(vec![seed as u8; len]);
        let command = Command::apply(ClientId::new(seed), RequestNumber::new(seed), payload);
        Value::Batch(Batch::new(LogClock::from_millis(seed), vec![command]))
    };
    let accepted = |slot, round, value| Write::Accepted {
        slot: Slot::new(slot),
        ballot: ballot(round),
        value,
    };
    let peer =
        |boot| Write::Peer { peer: ReplicaId::new(3), incarnation: Incarnation::new(boot, 7) };
    let mut facts = vec![
        peer(1),
        Write::Promised(ballot(1)),
        accepted(1, 1, value(1, 5)),
        accepted(2, 1, value(2, 70)),
        Write::Committed(Slot::FIRST),
        accepted(2, 2, value(3, 9)),
    ];
    // More than a segment.
    facts.extend((3..9).map(|slot| accepted(slot, 2, value(slot, 15_000))));
    facts.extend([
        Write::Chosen { slot: Slot::new(9), value: value(9, 12) },
        Write::Committed(Slot::new(9)),
        peer(2),
        Write::Promised(ballot(7)),
        accepted(10, 7, Value::Noop),
    ]);
    facts
}

fn format() -> Format {
    let membership = Membership::voters_only([1, 2, 3].map(ReplicaId::new));
    Format {
        cluster: ClusterId::new(0xc1),
        group: GROUP,
        replica: ReplicaId::new(2),
        membership: membership.expect("three voters are a membership"),
    }
}

fn options() -> WalOptions {
    WalOptions {
        segment_bytes: SEGMENT_BYTES_MIN,
        spares: 1,
        prewrite: true,
        ..WalOptions::default()
    }
}

/// The files of a log with one call for each fact.
fn written(facts: &[Write], killed: bool) -> SimFs {
    let fs = SimFs::new();
    let wal = Wal::format_on(fs.clone(), DIR, &format(), options());
    let mut wal = wal.expect("an empty disk is formatted");
    let recovered = start(&mut wal).expect("a new log is recovered");
    let mut batches = batches(&recovered);
    for fact in facts {
        wal.persist(vec![batches.batch(vec![fact.clone()])]).expect("nothing is wrong yet");
    }
    if killed {
        fs.kill();
    }
    drop(wal);
    fs
}

/// What a log of these facts says, by a storage without files.
fn model(facts: &[Write]) -> Said {
    let mut storage = MemoryStorage::formatted(format());
    let recovered = start(&mut storage).expect("memory is recovered");
    let mut batches = batches(&recovered);
    storage.persist(vec![batches.batch(facts.to_vec())]).expect("memory takes everything");
    let mut storage = storage.clone();
    let recovered = start(&mut storage).expect("memory is recovered");
    (forget_life(recovered), load(&mut storage).expect("memory is read"))
}

fn batches(recovered: &Recovered) -> Batches {
    Batches::new(Origin {
        cluster: recovered.format.cluster,
        group: recovered.format.group,
        epoch: Epoch::FIRST,
        membership: paxos_core::agreement::MembershipDigest::default(),
        replica: recovered.format.replica,
        incarnation: recovered.incarnation,
    })
}

fn start(storage: &mut impl Storage) -> Result<Recovered, StorageError> {
    let recovered = storage.recover(NONCE)?;
    let [recovered] = <[Recovered; 1]>::try_from(recovered).expect("a directory has one group");
    Ok(recovered)
}

fn load(storage: &mut impl Storage) -> Result<Vec<Value>, StorageError> {
    let range = LoadRange { group: GROUP, from: Slot::FIRST, through: LAST, bytes_max: usize::MAX };
    storage.load(range).map(|loaded| loaded.values)
}

fn forget_life(recovered: Recovered) -> Recovered {
    Recovered { start: Start::Again, incarnation: Incarnation::new(0, 0), ..recovered }
}

// ---------------------------------------------------------------------------------------------
// What happens to it

/// The files with contents of the log, in order.
fn files(fs: &SimFs) -> Vec<PathBuf> {
    let mut files = fs.files();
    files.retain(|path| fs.contents(path).is_some_and(|bytes| !bytes.is_empty()));
    if files.is_empty() {
        files.push(Path::new(DIR).join("META"));
    }
    files
}

/// A file, its bytes, and a place in what is used of them or close behind.
fn target<'a>(
    fs: &SimFs,
    files: &'a [PathBuf],
    input: &mut Input<'_>,
) -> (&'a PathBuf, Vec<u8>, usize) {
    let path = &files[input.below(files.len())];
    let bytes = fs.contents(path).unwrap_or_default();
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let place = input.place((used + 64).min(bytes.len()));
    (path, bytes, place)
}

/// One thing that goes wrong with one file.
fn damage(fs: &SimFs, input: &mut Input<'_>) {
    let files = files(fs);
    let (path, mut bytes, place) = target(fs, &files, input);
    match input.below(6) {
        // The length of a file has no checksum where it holds nothing.
        0 => bytes.truncate(place),
        1 => {
            if let Some(byte) = bytes.get_mut(place) {
                *byte ^= 1 << (input.byte() % 8);
            }
        }
        2 => {
            if let Some(byte) = bytes.get_mut(place) {
                *byte = input.byte();
            }
        }
        3 => {
            let end = bytes.len().min(place + 1 + usize::from(input.u16()));
            bytes[place..end].fill(0);
        }
        4 => {
            let from = &files[input.below(files.len())];
            let from = fs.contents(from).unwrap_or_default();
            let sectors = |bytes: &[u8]| bytes.len().div_ceil(SECTOR_LEN);
            let from = from.chunks(SECTOR_LEN).nth(input.place(sectors(&from)));
            let to = bytes.chunks_mut(SECTOR_LEN).nth(place / SECTOR_LEN);
            if let (Some(from), Some(to)) = (from, to) {
                let len = from.len().min(to.len());
                to[..len].copy_from_slice(&from[..len]);
            }
        }
        _ => {
            // A file that is gone is gone, and one of another name does not matter.
            let _gone = fs.remove(path);
            return;
        }
    }
    fs.replace(path, bytes);
}

/// Bytes of the input over bytes of a file.
fn paste(fs: &SimFs, input: &mut Input<'_>) {
    let files = files(fs);
    let (path, mut bytes, place) = target(fs, &files, input);
    let count = input.below(72);
    for (to, from) in bytes[place..].iter_mut().zip(input.take(count)) {
        *to = *from;
    }
    fs.replace(path, bytes);
}

/// Sets every checksum of a file right.
fn seal(fs: &SimFs, path: &Path) {
    let mut bytes = fs.contents(path).unwrap_or_default();
    if path.extension().is_none_or(|extension| extension != "wal") {
        if let Some((body, crc)) = bytes.split_last_chunk_mut::<4>() {
            *crc = crc32c::crc32c(body).to_le_bytes();
        }
        fs.replace(path, bytes);
        return;
    }
    let Some((head, mut records)) = bytes.split_at_mut_checked(SEGMENT_HEADER_LEN as usize) else {
        return;
    };
    if let Some((body, crc)) = head.split_last_chunk_mut::<4>() {
        *crc = crc32c::crc32c(body).to_le_bytes();
    }
    let Ok(decoded) = SegmentHead::decode(head) else {
        return;
    };
    let salt = decoded.salt();
    while let Some(len) = layout::claimed_len(records) {
        let Some((record, rest)) = records.split_at_mut_checked(len) else {
            break;
        };
        if let Some((crc, body)) = record.split_first_chunk_mut::<4>() {
            *crc = crc32c::crc32c_append(salt, body).to_le_bytes();
        }
        records = rest;
    }
    fs.replace(path, bytes);
}

// ---------------------------------------------------------------------------------------------
// What comes of it

/// What the log says, or an error that a person can follow.
fn recovered(fs: &SimFs) -> Result<Said, StorageError> {
    let said = Wal::open_on(fs.clone(), DIR, &format(), options()).and_then(|mut wal| {
        let recovered = start(&mut wal)?;
        Ok((forget_life(recovered), load(&mut wal)?))
    });
    said.inspect_err(check_error)
}

/// The log is recovered, written on to, and recovered again.
fn goes_on(fs: &SimFs) {
    let Ok(first) = recovered(fs) else {
        return;
    };
    fs.kill();
    let mut wal = Wal::open_on(fs.clone(), DIR, &format(), options()).expect("it was open before");
    let now = start(&mut wal).expect("what was recovered once is recovered again");
    let mut batches = batches(&now);
    // What it says already, so that it says the same afterwards.
    let known = Write::Committed(now.committed);
    wal.persist(vec![batches.batch(vec![known])]).expect("what is recovered takes more");
    fs.kill();
    drop(wal);
    let again = recovered(fs).expect("what was recovered twice is recovered again");
    assert_eq!(again, first, "the same is recovered again");
}

/// Only what is wrong with the files may be complained of, and by name.
fn check_error(error: &StorageError) {
    if let StorageError::Corrupt { what } = error {
        assert!(what.contains(DIR), "it names the file: {what}");
        return;
    }
    let is_named = matches!(
        error,
        StorageError::NotFormatted { .. }
            | StorageError::Mismatch { .. }
            | StorageError::Refused { .. }
    );
    assert!(is_named, "nothing of this kind happened: {error}");
}
