//! Guards of the log that a mutant showed to be tested by nothing. Each test breaks with the mutant
//! that its comment names.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use paxos_core::durable::Write;
use paxos_core::ids::{ClusterId, ReplicaId};
use paxos_core::port::{Format, StorageError};
use paxos_storage::Wal;
use paxos_storage::fs::FileSystem;
use paxos_storage::sim::SimFs;

use crate::support::{DIR, Open, accepted, ballot, format, newest_segment, open, small, value};

/// Mutant `successor-that-disagrees-followed`: the last records of a segment that a later life took
/// over are vouched for by nothing in it; the next segment's header alone says where they end.
#[test]
fn no_flip_in_a_segment_that_was_taken_over_goes_unnoticed() {
    let fs = SimFs::new();
    let mut log = open(&fs).unwrap();
    for slot in 1..4 {
        log.write(vec![Write::Promised(ballot(slot)), accepted(slot, slot, value(slot, 9))])
            .unwrap();
    }
    fs.kill();
    drop(open(&fs).unwrap());
    let is_segment = |path: &std::path::PathBuf| path.extension().is_some_and(|e| e == "wal");
    let mut segments: Vec<_> = fs.files().into_iter().filter(is_segment).collect();
    segments.pop();
    let older = segments.pop().unwrap();
    let bytes = fs.contents(&older).unwrap();
    assert!(bytes.len() > 4096 + 4 * 64, "the records of the first life stand in it");
    for place in 4096..bytes.len() {
        let copy = SimFs::new();
        copy.create_dir("/data/wal".as_ref()).unwrap();
        for path in fs.files() {
            let mut contents = fs.contents(&path).unwrap();
            if path == older {
                contents[place] ^= 1;
            }
            copy.replace(&path, contents);
        }
        match open(&copy) {
            Err(StorageError::Corrupt { .. }) => {}
            other => panic!("byte {place}: {:?}", other.map(|log| log.recovered)),
        }
    }
}

/// Mutant `foreign-segment-read`: META is the replica's own, one segment is another's.
#[test]
fn a_segment_of_another_replica_or_cluster_is_refused() {
    let mut replica = format();
    replica.replica = ReplicaId::new(3);
    let mut cluster = format();
    cluster.cluster = ClusterId::new(0xd00f);
    for (elsewhere, named) in [(replica, "replica 3"), (cluster, "d00f")] {
        let write = |fs: &SimFs, format: &Format| {
            let wal = Wal::open_or_format_on(fs.clone(), DIR, format, small()).unwrap();
            let mut log = Open::recover(wal).unwrap();
            log.write(vec![accepted(1, 1, value(1, 9))]).unwrap();
        };
        let (own, foreign) = (SimFs::new(), SimFs::new());
        write(&own, &format());
        write(&foreign, &elsewhere);
        let path = newest_segment(&own);
        assert_eq!(path, newest_segment(&foreign));
        own.replace(&path, foreign.contents(&path).unwrap());
        let Err(error) = open(&own) else {
            panic!("the segment of {named} was read");
        };
        assert!(matches!(error, StorageError::Mismatch { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains(path.to_str().unwrap()) && text.contains(named), "{text}");
    }
}

/// Mutant `value-of-another-slot-read`: a record that is whole, and stands where another is due.
#[test]
fn a_record_read_back_is_the_one_that_was_asked_for() {
    let fs = SimFs::new();
    let mut log = open(&fs).unwrap();
    let writes = [1, 2].map(|slot| accepted(slot, 1, value(0x70 + slot, 200)));
    log.write(writes.into()).unwrap();
    let path = newest_segment(&fs);
    let mut bytes = fs.contents(&path).unwrap();
    let payload_of = |seed: u8| bytes.windows(200).position(|window| window == [seed; 200]);
    let (first, second) = (payload_of(0x71).unwrap(), payload_of(0x72).unwrap());
    // Both records are equally long, and nothing stands between them.
    let len = second - first;
    bytes.copy_within(first + 200..second + 200, first + 200 - len);
    fs.replace(&path, bytes);
    let error = log.try_load(1, 1).unwrap_err();
    assert!(matches!(error, StorageError::Corrupt { .. }), "{error}");
    assert!(error.to_string().contains("is of another slot"), "{error}");
}
