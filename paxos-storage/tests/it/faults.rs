//! Failing devices, full disks, killed processes, second holders.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::io::ErrorKind;

use paxos_core::durable::Write;
use paxos_core::ids::Slot;
use paxos_core::port::{Room, Storage, StorageError};
use paxos_storage::sim::{SimFs, SimOp};
use paxos_storage::{SEGMENT_BYTES_MIN, Wal, WalOptions};

use crate::support::{
    Open, accepted, ballot, format, newest_segment, open, open_wal, small, value,
};

/// `PostgreSQL` retried a failed fsync, the kernel had marked the pages clean, and the second call
/// succeeded over lost data. (transport-and-storage.md 17; the "fsyncgate" of 2018)
#[test]
fn t17_wal_3_a_failed_sync_or_write_poisons_for_ever() {
    for op in [SimOp::Sync, SimOp::Write] {
        let fs = SimFs::new();
        let mut log = open(&fs).unwrap();
        log.write(vec![accepted(1, 1, value(1, 3000))]).unwrap();
        fs.fail(op, 0, ErrorKind::Other);
        let error = log.write(vec![accepted(2, 1, value(2, 3000))]).unwrap_err();
        let StorageError::Io { what, .. } = &error else { panic!("{error}") };
        assert!(what.contains("/data/wal/"), "names the file: {what}");
        let _ = fs.trace();
        for _ in 0..3 {
            let later = log.write(vec![accepted(3, 1, value(3, 10))]);
            assert!(matches!(later, Err(StorageError::Poisoned)));
            assert!(matches!(log.try_load(1, 1), Err(StorageError::Poisoned)));
        }
        let again = log.storage.recover(1);
        assert!(matches!(again, Err(StorageError::Poisoned)));
        drop(log);
        assert_eq!(fs.trace(), [], "nothing was tried again");
        fs.crash(3);
        let mut log = open(&fs).unwrap();
        assert_eq!(log.load(1, 1).values, [value(1, 3000)]);
    }
}

/// The next life must not trust the page cache that a failed sync left: it shows what the disk
/// lacks. (transport-and-storage.md 2.5; "Can Applications Recover from fsync Failures?", 2020)
#[test]
fn t17_what_a_failed_sync_left_in_the_cache_is_written_anew() {
    for seed in 0..50 {
        let fs = SimFs::new();
        let mut log = open(&fs).unwrap();
        log.write(vec![accepted(1, 1, value(1, 100))]).unwrap();
        fs.fail(SimOp::Sync, 0, ErrorKind::Other);
        let write = vec![Write::Promised(ballot(9)), accepted(2, 9, value(2, 2000))];
        assert!(log.write(write).is_err());
        drop(log);
        // The process is started again on the same page cache, says what it found, and then the
        // power goes.
        let told = open(&fs).unwrap().recovered;
        assert_eq!(told.promised, Some(ballot(9)));
        fs.crash(seed);
        let recovered = open(&fs).unwrap().recovered;
        assert_eq!(recovered.promised, told.promised);
        assert_eq!(recovered.votes, told.votes);
    }
}

/// A killed process leaves its last writes in the page cache; one that answers from them and then
/// loses power has forgotten a promise. (transport-and-storage.md 18)
#[test]
fn t18_the_tail_is_durable_again_before_the_first_answer() {
    let fs = SimFs::new();
    let mut log = open(&fs).unwrap();
    log.write(vec![accepted(1, 1, value(1, 100))]).unwrap();
    // Killed between the write and the sync.
    let old = newest_segment(&fs);
    fs.cut_power_after(1);
    assert!(log.write(vec![Write::Promised(ballot(5))]).is_err());
    fs.kill();
    assert!(!fs.is_durable(&old), "the tail is in the cache alone");
    let mut wal = open_wal(&fs).unwrap();
    let _ = fs.trace();
    let recovered = wal.recover(1).unwrap();
    let calls = fs.trace();
    assert_eq!(recovered[0].promised, Some(ballot(5)));
    let newest = newest_segment(&fs);
    assert!(fs.is_durable(&newest));
    let named =
        calls.iter().position(|(op, path)| *op == SimOp::Rename && *path == newest).unwrap();
    let before = &calls[..named];
    assert_eq!(before.last().unwrap().0, SimOp::Sync, "synced, then named");
    assert_eq!(calls[named + 1].0, SimOp::SyncDir, "and the name as well");
    // The boot counter comes before all of it.
    let meta = before.iter().position(|(op, path)| {
        *op == SimOp::Rename && path.file_name().is_some_and(|name| name == "META")
    });
    assert!(meta.is_some());
    fs.crash(0);
    assert_eq!(open(&fs).unwrap().recovered.promised, Some(ballot(5)));
}

/// A start that is killed leaves names in the cache alone; the next one must not count on them in
/// META before they are durable, or a power cut right then loses what META names.
#[test]
fn t18_names_that_a_killed_start_left_are_durable_before_they_are_counted_on() {
    for killed in 0..30 {
        let fs = SimFs::new();
        let mut log = open(&fs).unwrap();
        log.write(vec![Write::Promised(ballot(5))]).unwrap();
        fs.crash_keeping(|_| true);
        fs.cut_power_after(killed);
        drop(open(&fs));
        fs.kill();
        for cut in 0..30 {
            let fs = fs.fork();
            fs.cut_power_after(cut);
            drop(open(&fs));
            fs.crash_keeping(|_| false);
            let found = open(&fs).map(|log| log.recovered.promised);
            let case = format!("killed after {killed}, cut after {cut}");
            assert_eq!(found.expect(&case), Some(ballot(5)), "{case}");
        }
    }
}

/// etcd clusters were stuck, or could not be repaired, once a disk was full.
/// (transport-and-storage.md 19; etcd#3068, #4744, #2819)
#[test]
fn t19_a_full_disk_refuses_commands_and_takes_promises_and_recovers_after_a_trim() {
    let fs = SimFs::new();
    let mut log = open(&fs).unwrap();
    log.write(vec![accepted(1, 1, value(1, 100))]).unwrap();
    assert_eq!(log.storage.room(), Room::Ample);
    // The rest is less than a segment, and enough for META.
    fs.set_capacity(Some(fs.used() + 4096));
    let mut slot = 1;
    while log.storage.room() == Room::Ample {
        slot += 1;
        log.write(vec![accepted(slot, 1, value(slot, 1000))]).unwrap();
        assert!(slot < 200, "a full disk is noticed when a spare is made");
    }
    // What must be written still fits.
    log.write(vec![Write::Promised(ballot(8))]).unwrap();
    for _ in 0..10 {
        slot += 1;
        log.write(vec![accepted(slot, 8, value(slot, 1000))]).unwrap();
    }
    assert_eq!(log.storage.room(), Room::Full);
    let through = Slot::new(slot);
    log.write(vec![Write::Committed(through), Write::Trimmed(through)]).unwrap();
    assert_eq!(log.storage.room(), Room::Ample, "the freed segment is a spare");
    drop(log);
    let log = open(&fs).unwrap();
    assert_eq!(log.recovered.promised, Some(ballot(8)));
    assert_eq!(log.recovered.trimmed, through);
}

/// p31: A replica whose disk was full could not be started again, and with it went its vote: the disk of
/// one that runs has room for promises, and that of one that starts had none for its new life.
#[test]
fn t19_p31_a_life_begins_on_a_full_disk_and_takes_promises() {
    for spares in 0..3 {
        let fs = SimFs::new();
        let mut log = open(&fs).unwrap();
        let mut slot = 0;
        fs.set_capacity(Some(fs.used() + spares * SEGMENT_BYTES_MIN));
        while log.storage.room() == Room::Ample {
            slot += 1;
            log.write(vec![accepted(slot, 1, value(slot, 1000))]).unwrap();
        }
        log.write(vec![Write::Promised(ballot(8))]).unwrap();
        drop(log);
        // Others took all that there was.
        fs.set_capacity(Some(fs.used()));
        // Each start leaves a small segment behind, so they do not go on for ever: these are 65.
        for life in 0..5 {
            for changes in 0..12 {
                // The power fails in the middle of a start: nothing is lost.
                let copy = fs.fork();
                copy.cut_power_after(changes);
                let _died = open(&copy).map(drop);
                copy.crash(life * 100 + changes);
                copy.set_capacity(None);
                let log = open(&copy).unwrap();
                assert_eq!(log.recovered.votes.len() as u64, slot);
                assert_eq!(log.recovered.promised, Some(ballot(8 + life)));
                // The process alone dies: the next start still has room.
                fs.cut_power_after(changes);
                let _died = open(&fs).map(drop);
                fs.kill();
            }
            let mut log = open(&fs).unwrap_or_else(|error| panic!("life {life}: {error}"));
            assert_eq!(log.recovered.votes.len() as u64, slot);
            assert_eq!(log.recovered.promised, Some(ballot(8 + life)));
            log.write(vec![Write::Promised(ballot(9 + life))]).unwrap();
            assert_eq!(log.storage.room(), Room::Full);
            drop(log);
            if life % 3 == 0 {
                fs.kill();
            }
        }
        fs.set_capacity(None);
        let mut log = open(&fs).unwrap();
        log.write(vec![accepted(slot + 1, 40, value(slot, 1000))]).unwrap();
        log.storage.persist(Vec::new()).unwrap();
        assert_eq!(log.storage.room(), Room::Ample);
    }
}

/// Space that somebody else freed is noticed by a call without batches.
#[test]
fn t19_space_freed_by_others_is_noticed() {
    let fs = SimFs::new();
    let mut log = open(&fs).unwrap();
    fs.set_capacity(Some(fs.used()));
    let mut slot = 0;
    while log.storage.room() == Room::Ample {
        slot += 1;
        log.write(vec![accepted(slot, 1, value(slot, 1000))]).unwrap();
    }
    log.storage.persist(Vec::new()).unwrap();
    assert_eq!(log.storage.room(), Room::Full);
    fs.set_capacity(None);
    log.storage.persist(Vec::new()).unwrap();
    assert_eq!(log.storage.room(), Room::Ample);
}

/// When the reserve is used up as well, the write fails and is final; nothing written is lost.
#[test]
fn t19_out_of_space_for_good_is_an_error_and_loses_nothing() {
    let fs = SimFs::new();
    let mut log = open(&fs).unwrap();
    fs.set_capacity(Some(fs.used()));
    let mut slot = 0;
    let error = loop {
        slot += 1;
        assert!(slot < 1000, "the disk is full");
        match log.write(vec![accepted(slot, 1, value(slot, 1000))]) {
            Ok(()) => {}
            Err(error) => break error,
        }
    };
    assert!(
        matches!(&error, StorageError::Io { source, .. } if source.kind() == ErrorKind::StorageFull)
    );
    drop(log);
    fs.crash(1);
    fs.set_capacity(None);
    assert_eq!(open(&fs).unwrap().recovered.votes.len() as u64, slot - 1);
}

/// Two processes on one directory, or two parts of one, would both vote.
/// (transport-and-storage.md 20)
#[test]
fn t20_a_directory_has_one_holder() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("data");
    let held = Wal::open_or_format(&dir, &format(), small()).unwrap();
    let second = Wal::open(&dir, &format(), small()).unwrap_err();
    assert!(matches!(&second, StorageError::AlreadyOpen { path } if *path == dir));
    assert!(second.to_string().contains("data"), "{second}");
    drop(held);
    let again = Wal::open(&dir, &format(), small()).unwrap();
    drop(again);
}

/// Interrupted and short calls of a disturbed system change nothing.
#[test]
fn interrupted_and_short_writes_go_on() {
    let fs = SimFs::new();
    fs.disturb();
    let mut log = open(&fs).unwrap();
    for slot in 1..50 {
        log.write(vec![accepted(slot, 1, value(slot, 3000))]).unwrap();
    }
    fs.crash(5);
    let mut log = open(&fs).unwrap();
    let expected: Vec<_> = (1..50).map(|slot| value(slot, 3000)).collect();
    assert_eq!(log.load(1, 100).values, expected);
}

#[test]
fn a_record_damaged_while_the_log_runs_is_corrupt_when_it_is_read() {
    let fs = SimFs::new();
    let mut log = open(&fs).unwrap();
    log.write(vec![accepted(1, 1, value(0x77, 500))]).unwrap();
    let path = newest_segment(&fs);
    let mut bytes = fs.contents(&path).unwrap();
    let at = bytes.windows(9).position(|w| w == [0x77; 9]).unwrap();
    bytes[at] ^= 4;
    fs.replace(&path, bytes);
    let error = log.try_load(1, 1).unwrap_err();
    assert!(matches!(error, StorageError::Corrupt { .. }), "{error}");
    assert!(error.to_string().contains("slot 1"), "{error}");
}

/// Without prewriting the log works the same, and a full disk is met by a record.
#[test]
fn without_prewriting_everything_is_kept_as_well() {
    let fs = SimFs::new();
    let options = WalOptions { prewrite: false, ..small() };
    let open = || {
        Open::recover(Wal::open_or_format_on(fs.clone(), "/d", &format(), options.clone()).unwrap())
    };
    let mut log = open().unwrap();
    for slot in 1..200 {
        log.write(vec![accepted(slot, 1, value(slot, 1000))]).unwrap();
    }
    fs.crash(9);
    assert_eq!(open().unwrap().load(1, 999).values.len(), 199);
}
