//! The log in memory.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use paxos_core::durable::Write;
use paxos_core::ids::Slot;
use paxos_core::port::{Blocking, Start, Storage, StorageError};
use paxos_core::value::Value;
use paxos_storage::MemoryStorage;

use crate::support::{Open, accepted, ballot, format, value};

#[test]
fn a_crash_keeps_what_was_proved_and_silences_the_old_life() {
    let kept = MemoryStorage::formatted(format());
    let mut first = Open::recover(kept.clone()).unwrap();
    assert_eq!(first.recovered.start, Start::First);
    assert_eq!(first.storage.blocking(), Blocking::Never);
    first
        .write(vec![
            accepted(1, 2, value(1, 1)),
            Write::Promised(ballot(3)),
        ])
        .unwrap();
    kept.crash();
    let dead = first.write(vec![accepted(2, 3, value(2, 2))]);
    assert!(matches!(dead, Err(StorageError::Poisoned)));
    let mut again = Open::recover(kept).unwrap();
    assert_eq!(again.recovered.incarnation.boot(), 2);
    assert_eq!(again.recovered.promised, Some(ballot(3)));
    assert_eq!(again.recovered.votes.len(), 1);
    assert_eq!(again.load(1, 9).values, [value(1, 1)]);
    let dead = first.write(vec![accepted(2, 3, value(2, 2))]);
    assert!(matches!(dead, Err(StorageError::Poisoned)));
}

/// A storage that can lose what was not proved. (patterns.md WAL-5)
#[test]
fn wal_5_a_write_cut_short_leaves_its_first_facts_and_no_proof() {
    let kept = MemoryStorage::formatted(format());
    let mut log = Open::recover(kept.clone()).unwrap();
    kept.lose_next(1);
    let writes = vec![Write::Promised(ballot(1)), accepted(1, 1, value(1, 1))];
    assert!(matches!(log.write(writes), Err(StorageError::Io { .. })));
    assert!(matches!(log.try_load(1, 1), Err(StorageError::Poisoned)));
    let recovered = Open::recover(kept).unwrap().recovered;
    assert_eq!(recovered.promised, Some(ballot(1)));
    assert_eq!(recovered.votes, []);
}

#[test]
fn chosen_wins_and_trim_frees_and_far_slots_are_kept() {
    let mut log = Open::recover(MemoryStorage::formatted(format())).unwrap();
    let far = 10_000_000_000;
    log.write(vec![
        accepted(1, 1, value(1, 1)),
        accepted(2, 1, value(2, 1)),
        accepted(far, 1, value(3, 1)),
        Write::Chosen {
            slot: Slot::new(2),
            value: Value::Noop,
        },
        accepted(2, 2, value(4, 1)),
    ])
    .unwrap();
    assert_eq!(log.load(1, 5).values, [value(1, 1), Value::Noop]);
    assert_eq!(log.load(far, far).values, [value(3, 1)]);
    log.write(vec![Write::Trimmed(Slot::FIRST)]).unwrap();
    assert_eq!(log.load(1, 5).values, []);
    assert_eq!(log.load(1, 5).trimmed, Slot::FIRST);
    let recovered = Open::recover(log.storage).unwrap().recovered;
    assert_eq!(recovered.committed, Slot::FIRST);
    let votes: Vec<_> = recovered.votes.iter().map(|vote| vote.slot).collect();
    assert_eq!(votes, [Slot::new(2), Slot::new(far)]);
    assert_eq!(recovered.chosen, [(Slot::new(2), Value::Noop)]);
}
