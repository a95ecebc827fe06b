//! The bytes on disk do not change by accident: docs/format.md draws them, these files hold them.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fmt::Write as _;

use paxos_core::durable::Write;
use paxos_core::ids::{Incarnation, ReplicaId, Slot};
use paxos_core::value::Value;
use paxos_storage::sim::SimFs;

use crate::shelf::{image, make, meta, paths, store_of};
use crate::support::{accepted, ballot, newest_segment, open, second, value};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/");

/// Sixteen bytes a line; lines of zeros are left out.
fn dump(name: &str, bytes: &[u8]) -> String {
    let mut out = format!("{name} {} bytes\n", bytes.len());
    for (line, chunk) in bytes.chunks(16).enumerate() {
        if chunk.iter().any(|byte| *byte != 0) {
            write!(out, "{:06x}:", line * 16).unwrap();
            for byte in chunk {
                write!(out, " {byte:02x}").unwrap();
            }
            out.push('\n');
        }
    }
    out
}

/// A difference means that logs of the last release cannot be read: a new format version is
/// needed. Set `PAXOS_GOLDEN=write` to write the file anew.
#[test]
fn the_bytes_of_a_small_log_are_pinned() {
    let fs = SimFs::new();
    let mut log = open(&fs).unwrap();
    log.write(vec![
        Write::Promised(ballot(2)),
        accepted(1, 2, value(5, 3)),
        Write::Chosen { slot: Slot::new(2), value: Value::Noop },
        Write::Committed(Slot::new(2)),
        Write::Peer { peer: ReplicaId::new(3), incarnation: Incarnation::new(1, 2) },
        Write::Governs { from: Slot::new(258), membership: second().into() },
        Write::Refused { by: ReplicaId::new(1), remembered: Incarnation::new(5, 6) },
    ])
    .unwrap();
    log.write(vec![Write::Trimmed(Slot::FIRST)]).unwrap();
    drop(log);
    let first = fs.files().into_iter().find(|path| path.ends_with("0000000000000001.wal"));
    // The first segment holds nothing that lives after the trim, and the trim freed it.
    assert_eq!(first, None);
    let mut found = dump("META", &fs.contents("/data/META").unwrap());
    found += &dump("segment", &fs.contents(newest_segment(&fs)).unwrap());
    pin("log.hex", &found);
}

fn pin(file: &str, found: &str) {
    let path = format!("{GOLDEN}{file}");
    if std::env::var("PAXOS_GOLDEN").as_deref() == Ok("write") {
        std::fs::write(&path, found).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap();
    assert!(found == expected, "the format changed:\n{found}");
}

/// As above: a finished snapshot of two blocks, and one that is being received.
#[test]
fn the_bytes_of_a_small_snapshot_are_pinned() {
    let fs = SimFs::new();
    let mut log = open(&fs).unwrap();
    let mut store = store_of(&mut log);
    make(&mut store, 5, &image(1, 520)).unwrap();
    let bytes = image(2, 1000);
    store.receive(&meta(9, &bytes)).unwrap().write(&bytes[..600]).unwrap();
    let mut found = String::new();
    for path in paths(&fs) {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        found += &dump(&name, &fs.contents(&path).unwrap());
    }
    pin("snapshots.hex", &found);
}
