//! A stopped replica's directory is shown as a start would find it, and left as it was.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeMap;
use std::path::PathBuf;

use paxos_core::durable::Write;
use paxos_core::ids::{Incarnation, ReplicaId, Slot};
use paxos_core::port::{LoadRange, StorageError};
use paxos_storage::inspect::Inspection;
use paxos_storage::sim::SimFs;

use crate::shelf::{self, image, store_of};
use crate::support::{
    DIR, GROUP, accepted, ballot, facts, format, newest_segment, open, open_wal, value,
};

fn inspect(fs: &SimFs) -> Result<Inspection<SimFs>, StorageError> {
    Inspection::open_on(fs.clone(), DIR)
}

fn contents(fs: &SimFs) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = fs.files().into_iter();
    files.filter_map(|path| Some((path.clone(), fs.contents(&path)?))).collect()
}

fn range(from: u64, through: u64, bytes_max: usize) -> LoadRange {
    LoadRange { group: GROUP, from: Slot::new(from), through: Slot::new(through), bytes_max }
}

/// Some history, with a snapshot in it: the writes of two lives.
fn history(fs: &SimFs) {
    let mut log = open(fs).unwrap();
    let peer = Write::Peer { peer: ReplicaId::new(1), incarnation: Incarnation::new(4, 4) };
    log.write(vec![Write::Promised(ballot(9)), peer]).unwrap();
    for slot in 1..150 {
        log.write(vec![accepted(slot, 9, value(slot, 900))]).unwrap();
    }
    log.write(vec![Write::Committed(Slot::new(120))]).unwrap();
    let mut store = store_of(&mut log);
    shelf::make(&mut store, 40, &image(1, 3000)).unwrap();
    shelf::make(&mut store, 100, &image(2, 5000)).unwrap();
    log.write(vec![Write::Trimmed(Slot::new(90))]).unwrap();
    drop((log, store));
    let mut log = open(fs).unwrap();
    let chosen = Write::Chosen { slot: Slot::new(140), value: value(7, 10) };
    log.write(vec![chosen, accepted(155, 10, value(8, 2000))]).unwrap();
}

#[test]
fn what_is_shown_is_what_the_next_life_is_given_and_nothing_is_changed() {
    for seed in 0..30 {
        let fs = SimFs::new();
        history(&fs);
        fs.crash(seed);
        let before = contents(&fs);
        let mut inspection = inspect(&fs).unwrap();
        let shown = inspection.recovered().unwrap();
        let whole = inspection.load(range(91, 200, usize::MAX)).unwrap();
        let (snapshots, slots) = (inspection.snapshots(), inspection.slots());
        assert_eq!(inspection.life().unwrap().boot(), 2);
        assert_eq!((inspection.format(), inspection.refused()), (&format(), None));
        drop(inspection);
        assert_eq!(contents(&fs), before, "seed {seed}");

        let mut log = open(&fs).unwrap();
        assert_eq!(facts(&shown), facts(&log.recovered), "seed {seed}");
        assert_eq!(whole, log.load(91, 200), "seed {seed}");
        assert_eq!(snapshots, store_of(&mut log).list(GROUP).unwrap());
        assert_eq!(slots.unwrap().0, Slot::new(91));
    }
}

#[test]
fn values_segments_and_images_can_be_looked_at() {
    let fs = SimFs::new();
    history(&fs);
    let mut inspection = inspect(&fs).unwrap();
    assert_eq!(inspection.slots(), Some((Slot::new(91), Slot::new(155))));
    assert_eq!(inspection.torn_bytes(), 0);
    let recovered = inspection.recovered().unwrap();
    assert_eq!(recovered.snapshot, inspection.snapshots().pop());
    assert_eq!((recovered.votes.len(), recovered.chosen.len()), (30, 1));
    let some = inspection.load(range(91, 155, 2000)).unwrap();
    assert_eq!(some.values, [value(91, 900), value(92, 900)]);
    let hole = inspection.load(range(148, 155, usize::MAX)).unwrap();
    assert_eq!(hole.values.len(), 2, "nothing is known of slot 150");

    let segments = inspection.segments();
    assert!(segments.len() > 2, "{segments:?}");
    let pairs = segments.iter().zip(segments.iter().skip(1));
    for (one, next) in pairs {
        assert_eq!(one.sequence + 1, next.sequence);
        assert_eq!(one.last_record + 1, next.first_record);
    }
    assert!(segments.iter().all(|segment| segment.used_bytes <= segment.bytes));
    let values: u64 = segments.iter().map(|segment| segment.values).sum();
    // Slot 140 has a vote and a chosen value.
    assert_eq!(values, (149 - 90) + 1 + 1);

    let [older, newest] = <[_; 2]>::try_from(inspection.snapshots()).unwrap();
    let mut reader = inspection.open_snapshot(&newest).unwrap().unwrap();
    assert_eq!(reader.read_at(0, 9000).unwrap(), image(2, 5000));
    let mut reader = inspection.open_snapshot(&older).unwrap().unwrap();
    assert_eq!(reader.read_at(0, 9000).unwrap(), image(1, 3000));
    let unknown = shelf::meta(41, &image(1, 3000));
    assert!(inspection.open_snapshot(&unknown).unwrap().is_none());
}

#[test]
fn a_directory_is_looked_at_or_used_but_not_both() {
    let fs = SimFs::new();
    assert!(matches!(inspect(&fs), Err(StorageError::NotFormatted { .. })));
    let wal = open_wal(&fs).unwrap();
    assert!(matches!(inspect(&fs), Err(StorageError::AlreadyOpen { .. })));
    drop(wal);
    let mut inspection = inspect(&fs).unwrap();
    assert_eq!((inspection.life(), inspection.slots()), (None, None));
    assert_eq!(inspection.recovered().unwrap().votes, []);
    assert!(matches!(open_wal(&fs), Err(StorageError::AlreadyOpen { .. })));
    drop(inspection);
    open(&fs).unwrap();
}

#[test]
fn a_refused_directory_can_be_looked_at_and_a_damaged_one_says_what_is_damaged() {
    let fs = SimFs::new();
    history(&fs);
    let mut log = open(&fs).unwrap();
    let (by, remembered) = (ReplicaId::new(3), Incarnation::new(7, 7));
    log.write(vec![Write::Refused { by, remembered }]).unwrap();
    drop(log);
    assert_eq!(inspect(&fs).unwrap().refused(), Some((by, remembered)));
    assert!(matches!(open(&fs), Err(StorageError::Refused { .. })));

    let newest = newest_segment(&fs);
    fs.overwrite(&newest, 4096 + 20, &[0xff; 8]);
    let Err(StorageError::Corrupt { what }) = inspect(&fs) else { panic!("it is damaged") };
    assert!(what.contains(newest.to_str().unwrap()), "{what}");
}
