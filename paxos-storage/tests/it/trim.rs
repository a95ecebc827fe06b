//! Trimming gives space back, and takes nothing that is needed.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use paxos_core::durable::Write;
use paxos_core::ids::{GroupId, Incarnation, LogClock, ReplicaId, Slot};
use paxos_core::membership::{Change, Member};
use paxos_core::port::Storage;
use paxos_core::snapshot::Governs;
use paxos_storage::MemoryStorage;
use paxos_storage::sim::SimFs;

use crate::support::{GROUP, Open, accepted, ballot, format, open, second, small, value};

/// A log that frees segments by slots alone deletes the segment that held the promise.
/// (transport-and-storage.md 21; patterns.md SEG-3)
#[test]
fn t21_seg_3_a_trim_never_loses_a_promise() {
    for seed in 0..20 {
        let fs = SimFs::new();
        let mut log = open(&fs).unwrap();
        let peer = (ReplicaId::new(1), Incarnation::new(4, 4));
        log.write(vec![
            Write::Promised(ballot(1_000)),
            Write::Peer { peer: peer.0, incarnation: peer.1 },
            accepted(1, 1, value(255, 10)),
        ])
        .unwrap();
        let first_files = fs.files();
        for slot in 2..400 {
            log.write(vec![accepted(slot, 1, value(slot % 200, 1000))]).unwrap();
        }
        let through = Slot::new(390);
        log.write(vec![Write::Committed(through), Write::Trimmed(through)]).unwrap();
        let segment = |path: &&std::path::PathBuf| path.extension().is_some_and(|e| e == "wal");
        for old in first_files.iter().filter(segment) {
            assert!(fs.contents(old).is_none(), "{} was freed", old.display());
        }
        fs.crash(seed);
        let mut log = open(&fs).unwrap();
        assert_eq!(log.recovered.promised, Some(ballot(1_000)));
        assert_eq!(log.recovered.peers, [peer]);
        assert_eq!(log.recovered.clock, LogClock::from_millis(255));
        assert_eq!(log.recovered.committed, through);
        assert_eq!(log.recovered.trimmed, through);
        assert_eq!(log.recovered.votes.len(), 9);
        assert!(log.load(390, 400).values.is_empty(), "it is trimmed");
        assert_eq!(log.load(391, 400).values.len(), 9);
    }
}

/// Who governs stands in every checkpoint, whatever is trimmed; what later memberships replaced long ago
/// does not. (protocol.md M7)
#[test]
fn who_governs_survives_every_trim_and_crash() {
    for seed in 0..20 {
        let fs = SimFs::new();
        let mut log = open(&fs).unwrap();
        let mut all = vec![Governs { from: Slot::new(10), membership: second() }];
        for (from, observer) in [(20, 5), (500, 6)] {
            let member = Member::new(ReplicaId::new(observer));
            let before = &all.last().unwrap().membership;
            let membership = before.changed(Change::AddObserver(member)).unwrap();
            all.push(Governs { from: Slot::new(from), membership });
        }
        for Governs { from, membership } in &all {
            let membership = std::sync::Arc::new(membership.clone());
            log.write(vec![Write::Governs { from: *from, membership }]).unwrap();
        }
        for slot in 1..400 {
            log.write(vec![accepted(slot, 1, value(slot % 200, 1000))]).unwrap();
        }
        fs.crash(seed);
        let mut log = open(&fs).unwrap();
        assert_eq!(log.recovered.governs, all, "nothing is trimmed");
        let through = Slot::new(390);
        log.write(vec![Write::Committed(through), Write::Trimmed(through)]).unwrap();
        fs.crash(seed + 100);
        let mut log = open(&fs).unwrap();
        assert_eq!(log.recovered.governs, all, "the third is to come, the first was needed last");
        for slot in 400..600 {
            log.write(vec![accepted(slot, 1, value(slot % 200, 1000))]).unwrap();
        }
        let through = Slot::new(520);
        log.write(vec![Write::Committed(through), Write::Trimmed(through)]).unwrap();
        fs.crash(seed + 200);
        assert_eq!(open(&fs).unwrap().recovered.governs, all[1..]);
    }
}

/// Writes without end, trimmed as they go, take a bounded part of the disk. (patterns.md LWM-1)
#[test]
fn lwm_1_the_disk_is_bounded_under_endless_writes() {
    let fs = SimFs::new();
    let mut log = open(&fs).unwrap();
    for slot in 1..5_000 {
        let mut writes = vec![accepted(slot, 1, value(1, 1000))];
        if slot % 50 == 0 {
            writes.push(Write::Committed(Slot::new(slot)));
            writes.push(Write::Trimmed(Slot::new(slot - 10)));
        }
        log.write(writes).unwrap();
        let most = 5 * small().segment_bytes;
        assert!(fs.used() < most, "{} bytes at slot {slot}", fs.used());
    }
}

/// A vote above the committed prefix keeps its segment, however old.
#[test]
fn an_undecided_vote_pins_its_segment() {
    let fs = SimFs::new();
    let mut log = open(&fs).unwrap();
    log.write(vec![accepted(500, 1, value(7, 10))]).unwrap();
    for slot in 1..300 {
        log.write(vec![accepted(slot, 1, value(1, 1000))]).unwrap();
    }
    let through = Slot::new(299);
    log.write(vec![Write::Committed(through), Write::Trimmed(through)]).unwrap();
    drop(log);
    let log = open(&fs).unwrap();
    assert_eq!(log.recovered.votes.len(), 1);
    assert_eq!(log.recovered.votes[0].value, value(7, 10));
}

/// How much a log holds is known when a life begins, for whoever keeps so much of it and no more.
#[test]
fn lwm_1_a_life_begins_with_what_the_log_holds() {
    let len = 1000;
    let write = |log: &mut dyn FnMut(Vec<Write>)| {
        for slot in 1..=600 {
            log(vec![accepted(slot, 1, value(slot % 200, len))]);
        }
        log(vec![Write::Committed(Slot::new(590)), Write::Trimmed(Slot::new(100))]);
    };
    let fs = SimFs::new();
    let mut log = open(&fs).unwrap();
    write(&mut |writes| log.write(writes).unwrap());
    drop(log);
    let log = open(&fs).unwrap();
    let memory = MemoryStorage::formatted(format());
    let mut first = Open::recover(memory.clone()).unwrap();
    write(&mut |writes| first.write(writes).unwrap());
    let second = Open::recover(memory).unwrap();
    let step = 10_000;
    for marks in [log.storage.log_bytes(GROUP, step), second.storage.log_bytes(GROUP, step)] {
        let last = marks.last().unwrap();
        assert_eq!(last.0, Slot::new(590));
        assert!((40..60).contains(&marks.len()), "{}", marks.len());
        let rise = |pair: &[(Slot, u64)]| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1;
        assert!(marks.windows(2).all(rise), "{marks:?}");
        let (all, _) = marks.split_at(marks.len() - 1);
        assert!(all.windows(2).all(|pair| pair[1].1 >= pair[0].1 + step), "{all:?}");
        for (slot, bytes) in &marks {
            let exact = (slot.number() - 100) * len as u64;
            // Beside a value stand its head, and what the segment begins and ends with.
            let range = exact.saturating_sub(2 * len as u64)..=exact + exact / 4 + 20_000;
            assert!(range.contains(bytes), "{slot}: {bytes}, not about {exact}");
        }
        assert!(log.storage.log_bytes(GroupId::new(77), step).is_empty());
    }
}
