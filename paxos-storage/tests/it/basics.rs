//! Formatting, opening, writing, reading back, on both file systems.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use paxos_core::durable::Write;
use paxos_core::ids::{ClusterId, Incarnation, LogClock, ReplicaId, Slot};
use paxos_core::port::{Blocking, LoadRange, Start, Storage, StorageError};
use paxos_core::value::Value;
use paxos_storage::sim::SimFs;
use paxos_storage::{Wal, WalOptions};

use crate::support::{GROUP, Open, accepted, ballot, format, open, small, value};

#[test]
fn the_real_disk_gives_back_what_was_written() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("nested").join("data");
    let mut first = Open::recover(Wal::format(&dir, &format(), small()).unwrap()).unwrap();
    assert_eq!(first.recovered.start, Start::First);
    assert_eq!(first.recovered.incarnation, Incarnation::new(1, 0xabcd));
    assert_eq!(first.storage.blocking(), Blocking::Device);
    let membership = Value::Membership(format().membership.into());
    first
        .write(vec![
            Write::Promised(ballot(4)),
            accepted(1, 4, value(70, 100)),
            accepted(2, 4, Value::Noop),
            accepted(3, 4, membership.clone()),
            Write::Committed(Slot::new(2)),
            Write::Peer { peer: ReplicaId::new(3), incarnation: Incarnation::new(9, 9) },
            Write::Chosen { slot: Slot::new(3), value: value(60, 10) },
        ])
        .unwrap();
    drop(first);

    let mut again = Open::recover(Wal::open(&dir, &format(), small()).unwrap()).unwrap();
    let recovered = &again.recovered;
    assert_eq!(recovered.start, Start::Again);
    assert_eq!(recovered.format, format());
    assert_eq!(recovered.incarnation.boot(), 2);
    assert_eq!(recovered.promised, Some(ballot(4)));
    assert_eq!(recovered.committed, Slot::new(2));
    assert_eq!(recovered.clock, LogClock::from_millis(70));
    assert_eq!(recovered.votes.len(), 1, "the hidden vote is kept");
    assert_eq!(recovered.votes[0].value, membership);
    assert_eq!(recovered.chosen, [(Slot::new(3), value(60, 10))]);
    let peer = (ReplicaId::new(3), Incarnation::new(9, 9));
    assert_eq!(recovered.peers, [peer]);
    let loaded = again.load(1, 9).values;
    assert_eq!(loaded, [value(70, 100), Value::Noop, value(60, 10)]);
}

#[test]
fn a_load_stops_at_holes_and_at_the_bound_but_not_before_the_first_value() {
    let mut log = open(&SimFs::new()).unwrap();
    let writes = [1, 2, 3, 5].map(|slot| accepted(slot, 1, value(slot, 1000)));
    log.write(writes.into()).unwrap();
    assert_eq!(log.load(1, 5).values.len(), 3);
    assert_eq!(log.load(4, 5).values.len(), 0);
    assert_eq!(log.load(5, 5).values, [value(5, 1000)]);
    for (bytes_max, expected) in [(0, 1), (1044, 1), (2087, 1), (2088, 2), (9999, 3)] {
        let range = LoadRange { group: GROUP, from: Slot::FIRST, through: Slot::MAX, bytes_max };
        let loaded = log.storage.load(range).unwrap();
        assert_eq!(loaded.values.len(), expected, "{bytes_max}");
    }
}

#[test]
fn a_call_larger_than_a_segment_gets_one_of_its_size() {
    let fs = SimFs::new();
    let mut log = open(&fs).unwrap();
    log.write(vec![accepted(1, 1, value(1, 10))]).unwrap();
    log.write(vec![accepted(2, 1, value(2, 1 << 20))]).unwrap();
    log.write(vec![accepted(3, 1, value(3, 10))]).unwrap();
    drop(log);
    let expected = [value(1, 10), value(2, 1 << 20), value(3, 10)];
    assert_eq!(open(&fs).unwrap().load(1, 3).values, expected);
}

#[test]
fn many_batches_of_one_call_are_one_write_and_one_sync() {
    use paxos_storage::sim::SimOp;
    let fs = SimFs::new();
    let mut log = open(&fs).unwrap();
    let batches =
        (1..=100).map(|slot| log.batches.batch(vec![accepted(slot, 1, value(slot, 64))])).collect();
    let _ = fs.trace();
    let proofs = log.storage.persist(batches).unwrap();
    let calls: Vec<_> = fs.trace().into_iter().map(|(op, _)| op).collect();
    assert_eq!(calls, [SimOp::Write, SimOp::Sync]);
    assert!(proofs.is_sorted_by_key(paxos_core::durable::Durable::through));
    assert_eq!(proofs.len(), 100);
}

#[test]
fn a_hole_of_a_billion_slots_costs_nothing() {
    let fs = SimFs::new();
    let mut log = open(&fs).unwrap();
    let far = 1_000_000_000;
    log.write(vec![accepted(1, 1, value(1, 1)), accepted(far, 1, value(2, 1))]).unwrap();
    drop(log);
    let mut log = open(&fs).unwrap();
    assert_eq!(log.recovered.votes.len(), 2);
    assert_eq!(log.load(far, far).values, [value(2, 1)]);
}

#[test]
fn restarts_do_not_fill_the_disk() {
    let fs = SimFs::new();
    for _ in 0..100 {
        let mut log = open(&fs).unwrap();
        let boot = u64::from(log.recovered.incarnation.boot());
        log.write(vec![accepted(boot, 1, value(1, 10))]).unwrap();
    }
    let most = 3 * small().segment_bytes + 100 * 8192;
    assert!(fs.used() < most, "{} bytes", fs.used());
}

#[test]
fn opening_refuses_what_is_not_its_own() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("data");
    let missing = Wal::open(&dir, &format(), small());
    assert!(matches!(missing, Err(StorageError::NotFormatted { .. })));
    std::fs::create_dir(&dir).unwrap();
    let empty = Wal::open(&dir, &format(), small());
    assert!(matches!(empty, Err(StorageError::NotFormatted { .. })));
    drop(Wal::format(&dir, &format(), small()).unwrap());
    let twice = Wal::format(&dir, &format(), small());
    assert!(matches!(twice, Err(StorageError::AlreadyFormatted { .. })));
    let mut other = format();
    other.cluster = ClusterId::new(1);
    let error = Wal::open(&dir, &other, small()).unwrap_err();
    assert!(matches!(error, StorageError::Mismatch { .. }));
    assert!(error.to_string().contains("belongs to cluster 0000"), "{error}");
    other = format();
    other.replica = ReplicaId::new(1);
    let error = Wal::open_or_format(&dir, &other, small()).unwrap_err();
    assert!(matches!(error, StorageError::Mismatch { .. }));
    let strange = scratch.path().join("strange");
    std::fs::create_dir(&strange).unwrap();
    std::fs::write(strange.join("letter.txt"), "dear").unwrap();
    let refused = Wal::open_or_format(&strange, &format(), small());
    assert!(matches!(refused, Err(StorageError::AlreadyFormatted { .. })));
    let bad = WalOptions { segment_bytes: 5000, ..small() };
    let error = Wal::open(&dir, &format(), bad).unwrap_err();
    assert!(error.to_string().starts_with("segment_bytes must be"), "{error}");
}

#[test]
fn formatting_cut_short_anywhere_can_be_repeated() {
    for changes in 0..80 {
        for seed in 0..4 {
            let fs = SimFs::new();
            fs.cut_power_after(changes);
            let whole = open(&fs).is_ok();
            fs.crash(seed);
            let log = open(&fs).unwrap();
            assert!(log.recovered.votes.is_empty());
            assert!(changes < 60 || whole, "the range covers a whole format");
        }
    }
}

/// A batch of another life, or another replica, is refused, and the log is over.
#[test]
fn a_batch_of_another_life_is_refused() {
    let fs = SimFs::new();
    let old = open(&fs).unwrap();
    let mut batches = old.batches;
    drop(old.storage);
    let mut log = open(&fs).unwrap();
    let stale = batches.batch(vec![Write::Promised(ballot(1))]);
    let refused = log.storage.persist(vec![stale]).unwrap_err();
    assert!(matches!(refused, StorageError::Mismatch { .. }), "{refused}");
    let after = log.write(vec![]).unwrap_err();
    assert!(matches!(after, StorageError::Poisoned));
}
