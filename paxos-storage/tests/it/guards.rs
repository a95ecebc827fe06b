//! Guards of the log that a mutant showed to be tested by nothing. Each test breaks with the mutant
//! that its comment names.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use paxos_core::durable::Write;
use paxos_core::port::StorageError;
use paxos_storage::fs::FileSystem;
use paxos_storage::sim::SimFs;

use crate::support::{accepted, ballot, open, value};

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
