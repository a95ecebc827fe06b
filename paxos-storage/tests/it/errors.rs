//! What an operator reads when something is wrong: one line, where, why, and what to do.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::io::ErrorKind;

use paxos_core::durable::Write;
use paxos_core::ids::{ClusterId, Epoch, Incarnation, ReplicaId};
use paxos_core::membership::{Member, Membership, WINDOW_DEFAULT};
use paxos_core::port::{Format, StorageError};
use paxos_core::quorum::QuorumRule;
use paxos_storage::Wal;
use paxos_storage::sim::{SimFs, SimOp};

use crate::support::{DIR, accepted, format, newest_segment, open, small, value};

/// The text is one line and holds all of these.
fn assert_says(error: &StorageError, parts: &[&str]) {
    let text = error.to_string();
    assert!(!text.contains('\n'), "one line: {text}");
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in: {text}");
    }
}

#[test]
fn a_directory_that_cannot_be_used_says_why_and_what_to_do() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("data");
    let missing = Wal::open(&dir, &format(), small()).unwrap_err();
    assert_says(&missing, &["/data", "never formatted", "mounted", "never ran anywhere"]);
    let held = Wal::format(&dir, &format(), small()).unwrap();
    let second = Wal::open(&dir, &format(), small()).unwrap_err();
    assert_says(&second, &["/data", "in use by another", "stop that one"]);
    drop(held);
    let twice = Wal::format(&dir, &format(), small()).unwrap_err();
    assert_says(&twice, &["/data", "not empty", "open the log"]);
    let mut other = format();
    other.cluster = ClusterId::new(0xd00f);
    let foreign = Wal::open(&dir, &other, small()).unwrap_err();
    assert_says(&foreign, &["/data", "00c1", "d00f", "replica 2", "configuration"]);
    let file = scratch.path().join("file");
    std::fs::write(&file, "").unwrap();
    let below = Wal::open_or_format(file.join("data"), &format(), small()).unwrap_err();
    assert_says(&below, &["/file/data", "look"]);
}

#[test]
fn a_failing_device_says_which_file_and_what_to_do() {
    let cases = [
        (SimOp::Sync, ErrorKind::Other, "cannot sync", "system's log"),
        (SimOp::Write, ErrorKind::Other, "cannot write", "system's log"),
        (SimOp::Write, ErrorKind::StorageFull, "cannot write", "free some space"),
        (SimOp::Write, ErrorKind::PermissionDenied, "cannot write", "user"),
    ];
    for (op, kind, what, advice) in cases {
        let fs = SimFs::new();
        let mut log = open(&fs).unwrap();
        fs.fail(op, 0, kind);
        let error = log.write(vec![accepted(1, 1, value(1, 10))]).unwrap_err();
        assert_says(&error, &[what, newest_segment(&fs).to_str().unwrap(), advice]);
    }
}

#[test]
fn corruption_says_where_it_is_and_that_the_replica_must_stay_down() {
    let fs = SimFs::new();
    let mut log = open(&fs).unwrap();
    for slot in 1..4 {
        log.write(vec![accepted(slot, 1, value(0x77, 100))]).unwrap();
    }
    drop(log);
    let path = newest_segment(&fs);
    let mut bytes = fs.contents(&path).unwrap();
    let at = bytes.windows(9).position(|window| window == [0x77; 9]).unwrap();
    bytes[at] ^= 1;
    fs.replace(&path, bytes);
    let error = open(&fs).map(|log| log.recovered).unwrap_err();
    let name = path.to_str().unwrap();
    assert_says(&error, &[name, "offset", "record", "do not start this replica", "majority is up"]);
    let fs = SimFs::new();
    drop(open(&fs).unwrap());
    fs.replace("/data/META", vec![1; 90]);
    let error = open(&fs).map(|log| log.recovered).unwrap_err();
    assert_says(&error, &["/data/META", "checksum", "do not start this replica"]);
}

#[test]
fn other_voters_or_observers_than_the_log_was_made_for_are_refused() {
    let with = |voters: &[u16], observers: &[u16]| {
        let members = |ids: &[u16], address: &str| -> Vec<_> {
            let member = |id: &u16| {
                let addresses = vec![format!("{address}:{id}")];
                Member { addresses, ..Member::new(ReplicaId::new(*id)) }
            };
            ids.iter().map(member).collect()
        };
        let membership = Membership::new(
            Epoch::FIRST,
            members(voters, "new"),
            members(observers, "new"),
            QuorumRule::Majority,
            WINDOW_DEFAULT,
        );
        Format { membership: membership.unwrap(), ..format() }
    };
    let fs = SimFs::new();
    drop(open(&fs).unwrap());
    let open_as = |format: &Format| Wal::open_on(fs.clone(), DIR, format, small());
    let cases: [(&[u16], &[u16], &str); 4] = [
        (&[2], &[], "the configuration names replicas 2:"),
        (&[1, 2, 4], &[], "the configuration names replicas 1, 2, 4:"),
        (&[1, 2, 3, 4], &[], "the configuration names replicas 1, 2, 3, 4:"),
        (&[1, 2, 3], &[4], "the configuration names replicas 1, 2, 3 with observers 4:"),
    ];
    for (voters, observers, names) in cases {
        let other = with(voters, observers);
        let or_format = Wal::open_or_format_on(fs.clone(), DIR, &other, small());
        for error in [open_as(&other).unwrap_err(), or_format.unwrap_err()] {
            assert!(matches!(error, StorageError::Mismatch { .. }), "{error:?}");
            let made = "the log was made for replicas 1, 2, 3 and";
            assert_says(&error, &[DIR, made, names, "give the list back as it was"]);
        }
    }
    // Addresses are for the transport, and may differ.
    open_as(&with(&[1, 2, 3], &[])).unwrap();
}

#[test]
fn a_refused_directory_is_put_back_or_replaced() {
    let fs = SimFs::new();
    let mut log = open(&fs).unwrap();
    let remembered = Incarnation::new(7, 1);
    log.write(vec![Write::Refused { by: ReplicaId::new(3), remembered }]).unwrap();
    drop(log);
    let error = open(&fs).map(|log| log.recovered).unwrap_err();
    assert_says(&error, &["replica 3", "put back the newest directory", "with a new id"]);
}
