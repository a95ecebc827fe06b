//! Failing devices and full disks while snapshots are written: an error of one image, that leaves
//! nothing behind, and of which the log knows nothing.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::io::ErrorKind;

use paxos_core::ids::Slot;
use paxos_core::port::{Storage, StorageError};
use paxos_core::snapshot::SnapshotMeta;
use paxos_storage::sim::{SimFs, SimOp};

use crate::shelf::{CAPACITY, Store, files, fill, image, list, make, meta, read, store_of};
use crate::support::{GROUP, accepted, open, value};

const OPS: [SimOp; 7] = [
    SimOp::Read,
    SimOp::Write,
    SimOp::Sync,
    SimOp::Create,
    SimOp::Rename,
    SimOp::Remove,
    SimOp::SyncDir,
];

type Act = fn(&mut Store, &SnapshotMeta, &[u8]) -> Result<(), StorageError>;

/// Each way to come by a snapshot: made, received at once, received on.
const ACTS: [(&str, Act); 3] = [
    ("make", |store, meta, bytes| fill(store.create(GROUP)?, meta, bytes)),
    ("receive", |store, meta, bytes| fill(store.receive(meta)?, meta, bytes)),
    ("go on", |store, meta, bytes| {
        store.receive(meta)?.write(&bytes[..3 * CAPACITY])?;
        fill(store.receive(meta)?, meta, bytes)
    }),
];

/// Each call of each kind fails in turn, with each of these errors.
#[test]
fn a_failure_while_a_snapshot_is_written_is_of_that_snapshot_alone() {
    let bytes = image(2, 20 * CAPACITY + 9);
    let facts = meta(9, &bytes);
    let mut failures = 0;
    for (name, act) in ACTS {
        for op in OPS {
            for kind in [ErrorKind::Other, ErrorKind::StorageFull] {
                for skip in 0.. {
                    let case = format!("{name}: {op:?} {skip} fails with {kind}");
                    let fs = SimFs::new();
                    let mut log = open(&fs).unwrap();
                    let mut store = store_of(&mut log);
                    let older = make(&mut store, 5, &image(1, 600)).unwrap();
                    let before = files(&fs);
                    fs.fail(op, skip, kind);
                    let done = act(&mut store, &facts, &bytes);
                    let struck = fs.faults_left() == 0;
                    fs.clear_faults();
                    match &done {
                        Ok(()) => assert_eq!(list(&mut store), [5, 9], "{case}"),
                        Err(StorageError::Io { source, .. }) => {
                            failures += 1;
                            assert_eq!(source.kind(), kind, "{case}");
                            assert_eq!(list(&mut store), [5], "{case}");
                            assert_eq!(files(&fs), before, "{case}: no litter");
                        }
                        Err(error) => panic!("{case}: {error}"),
                    }
                    assert_eq!(read(&mut store, &older).unwrap().unwrap(), image(1, 600));
                    // The log goes on, and so do snapshots.
                    log.write(vec![accepted(1, 1, value(1, 10))]).unwrap();
                    fill(store.receive(&facts).unwrap(), &facts, &bytes).unwrap();
                    assert_eq!(list(&mut store), [5, 9], "{case}");
                    drop((store, log));
                    fs.crash_keeping(|_| false);
                    let mut log = open(&fs).unwrap();
                    assert_eq!(log.recovered.snapshot.as_ref(), Some(&facts), "{case}");
                    assert_eq!(log.recovered.votes.len(), 1, "{case}");
                    let mut store = store_of(&mut log);
                    assert_eq!(read(&mut store, &facts).unwrap().unwrap(), bytes, "{case}");
                    assert_eq!(files(&fs).len(), 4, "{case}: no litter");
                    if !struck {
                        assert!(done.is_ok(), "{case}");
                        break;
                    }
                }
            }
        }
    }
    assert!(failures > 60, "{failures}");
}

/// A disk without room for an image: all that it took is given back, and the log does not notice.
#[test]
fn t19_a_disk_too_full_for_a_snapshot_leaves_the_log_alone() {
    let bytes = image(2, 40 * CAPACITY);
    let facts = meta(9, &bytes);
    let mut full = 0;
    for room in (0..50 * 512).step_by(300) {
        for (name, act) in ACTS {
            let fs = SimFs::new();
            let mut log = open(&fs).unwrap();
            log.write(vec![accepted(1, 1, value(1, 10))]).unwrap();
            let mut store = store_of(&mut log);
            let used = fs.used();
            fs.set_capacity(Some(used + room));
            match act(&mut store, &facts, &bytes) {
                Ok(()) => {}
                Err(StorageError::Io { what, source }) => {
                    full += 1;
                    assert_eq!(source.kind(), ErrorKind::StorageFull, "{name} {room}");
                    assert!(what.contains("free some space"), "{what}");
                    assert_eq!(fs.used(), used, "{name} {room}: given back");
                    assert_eq!(files(&fs), Vec::<String>::new(), "{name} {room}");
                }
                Err(error) => panic!("{name} {room}: {error}"),
            }
            for slot in 2..20 {
                log.write(vec![accepted(slot, 1, value(slot, 10))]).unwrap();
            }
            fs.set_capacity(None);
            fill(store.receive(&facts).unwrap(), &facts, &bytes).unwrap();
            assert_eq!(list(&mut store), [9]);
        }
    }
    assert!(full > 100, "{full}");
}

/// A removal that fails is tried again by the next call, and what was to go is not listed meanwhile.
#[test]
fn a_removal_that_fails_is_tried_again() {
    for op in [SimOp::Remove, SimOp::SyncDir] {
        for skip in 0..2 {
            let fs = SimFs::new();
            let mut log = open(&fs).unwrap();
            let mut store = store_of(&mut log);
            for slot in [5, 7, 9] {
                make(&mut store, slot, &image(slot, 700)).unwrap();
            }
            fs.fail(op, skip, ErrorKind::Other);
            let removed = store.remove_below(GROUP, Slot::new(9));
            assert_eq!(removed.is_err(), op == SimOp::Remove || skip == 0, "{op:?} {skip}");
            fs.clear_faults();
            assert_eq!(list(&mut store), [9]);
            let again = fs.fork();
            again.crash(skip);
            let mut later = open(&again).unwrap();
            let newest = later.recovered.snapshot.clone().unwrap();
            assert_eq!(newest.slot, Slot::new(9));
            for facts in store_of(&mut later).list(GROUP).unwrap() {
                assert!(read(&mut store_of(&mut later), &facts).unwrap().is_some());
            }
            store.remove_below(GROUP, Slot::new(9)).unwrap();
            assert_eq!(files(&fs).len(), 2, "{op:?} {skip}: {:?}", files(&fs));
        }
    }
}

/// The life of the log is over; what was received may still be kept for the next.
#[test]
fn a_poisoned_log_leaves_its_snapshots_alone() {
    let fs = SimFs::new();
    let mut log = open(&fs).unwrap();
    let mut store = store_of(&mut log);
    fs.fail(SimOp::Sync, 0, ErrorKind::Other);
    log.write(vec![accepted(1, 1, value(1, 10))]).unwrap_err();
    let bytes = image(1, 900);
    make(&mut store, 5, &bytes).unwrap();
    assert!(log.storage.snapshots().is_none());
    drop((store, log));
    fs.crash(1);
    assert_eq!(open(&fs).unwrap().recovered.snapshot.unwrap().slot, Slot::new(5));
}
