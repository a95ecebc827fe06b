//! Lives follow one another on a directory, and one that a peer refused has none any more.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use paxos_core::durable::Write;
use paxos_core::ids::{Incarnation, ReplicaId, Slot};
use paxos_core::port::{Start, Storage, StorageError};
use paxos_storage::MemoryStorage;
use paxos_storage::sim::{SimFs, SimOp};

use crate::support::{Open, accepted, format, open, open_wal, value};

const PEER: ReplicaId = ReplicaId::new(3);
const REMEMBERED: Incarnation = Incarnation::new(7, 0x1234_5678);

fn refusal() -> Write {
    Write::Refused { by: PEER, remembered: REMEMBERED }
}

fn assert_refused<T>(result: Result<T, StorageError>) {
    match result.map(|_| ()) {
        Err(StorageError::Refused { by, remembered }) => {
            assert_eq!((by, remembered), (PEER, REMEMBERED));
        }
        other => panic!("it was refused: {other:?}"),
    }
}

/// Recovers a storage with these nonces, a new handle for each life.
fn assert_lives<S: Storage>(mut next: impl FnMut() -> S) {
    let mut recover = |nonce| next().recover(nonce).unwrap().remove(0);
    let first = recover(0xaaaa_1111);
    assert_eq!(first.start, Start::First);
    assert_eq!(first.incarnation, Incarnation::first(0xaaaa_1111));
    let second = recover(0xbbbb_2222);
    assert_eq!(second.start, Start::Again);
    assert_eq!(second.incarnation, Incarnation::new(2, 0xaaaa_2222));
    let third = recover(0xcccc_3333);
    assert_eq!(third.incarnation, Incarnation::new(3, 0xaaaa_3333));
    assert!(third.incarnation.succeeds(second.incarnation));
    assert!(second.incarnation.succeeds(first.incarnation));
}

/// The directory's half of the nonce stays with it for ever, the life's is drawn anew.
#[test]
fn n07_lives_follow_one_another_and_keep_the_mark_of_their_directory() {
    let fs = SimFs::new();
    assert_lives(|| open_wal(&fs).unwrap());
    let memory = MemoryStorage::formatted(format());
    assert_lives(|| memory.clone());
}

/// A wiped directory that is formatted anew begins with a mark of its own, so that its lives
/// follow none of the old ones, however often it is started.
#[test]
fn n07_a_wiped_directory_follows_none_of_its_earlier_lives() {
    let lives = |nonce| {
        let fs = SimFs::new();
        let mut last = open_wal(&fs).unwrap().recover(nonce).unwrap()[0].incarnation;
        for _ in 0..3 {
            last = open_wal(&fs).unwrap().recover(nonce).unwrap()[0].incarnation;
        }
        last
    };
    let (old, new) = (Incarnation::first(0x0001_0000), lives(0x0002_0000));
    assert_eq!(new.boot(), 4);
    assert!(!new.succeeds(old));
    assert!(lives(0x0001_0000).succeeds(old));
}

/// A start that is cut short anywhere never gives a life that an earlier start gave.
#[test]
fn n07_no_life_is_given_twice_whatever_is_cut_short() {
    for changes in 0..40 {
        let fs = SimFs::new();
        let first = open(&fs).unwrap().recovered.incarnation;
        fs.crash(changes);
        fs.cut_power_after(changes);
        let cut = open(&fs).map(|log| log.recovered.incarnation).ok();
        fs.crash(changes);
        let next = open(&fs).unwrap().recovered.incarnation;
        let before = cut.unwrap_or(first);
        assert!(next.succeeds(before), "{next} after {before}, cut after {changes} changes");
    }
}

#[test]
fn n07_a_refused_directory_is_never_started_again() {
    let fs = SimFs::new();
    let mut log = open(&fs).unwrap();
    log.write(vec![refusal()]).unwrap();
    fs.crash(1);
    let meta = fs.contents("/data/META").unwrap();
    for _ in 0..3 {
        let mut wal = open_wal(&fs).unwrap();
        let _ = fs.trace();
        assert_refused(wal.recover(1));
        let changes = [SimOp::Write, SimOp::Sync, SimOp::Create, SimOp::Rename, SimOp::Remove];
        let calls = fs.trace();
        assert!(!calls.iter().any(|(op, _)| changes.contains(op)), "nothing changed: {calls:?}");
        assert!(matches!(wal.recover(1), Err(StorageError::Poisoned)));
    }
    assert_eq!(fs.contents("/data/META").unwrap(), meta);
}

/// The refusal outlives the segment that it was written to.
#[test]
fn n07_a_refusal_is_never_trimmed_away() {
    let fs = SimFs::new();
    let mut log = open(&fs).unwrap();
    log.write(vec![refusal()]).unwrap();
    let old = crate::support::newest_segment(&fs);
    for slot in 1..400 {
        log.write(vec![accepted(slot, 1, value(slot, 1000))]).unwrap();
    }
    let through = Slot::new(399);
    log.write(vec![Write::Committed(through), Write::Trimmed(through)]).unwrap();
    assert!(fs.contents(&old).is_none(), "its segment was freed");
    drop(log);
    assert_refused(open(&fs));
}

#[test]
fn n07_a_refused_log_in_memory_is_never_started_again() {
    let kept = MemoryStorage::formatted(format());
    let mut log = Open::recover(kept.clone()).unwrap();
    log.write(vec![refusal()]).unwrap();
    kept.crash();
    assert_refused(Open::recover(kept.clone()));
    assert_refused(Open::recover(kept));
}
