//! Snapshots while nothing breaks: what is written is read, by this life and by later ones.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(clippy::print_stdout, reason = "the measurement says what it measured")]

use paxos_core::durable::Write;
use paxos_core::ids::{GroupId, ReplicaId, Slot};
use paxos_core::port::{Format, Storage, StorageError};
use paxos_core::snapshot::{ImageDigest, SnapshotMeta};
use paxos_storage::sim::{SimFs, SimOp};
use paxos_storage::{MemoryStorage, Wal, WalOptions};

use crate::shelf::{CAPACITY, files, fill, image, list, make, meta, read, store_of};
use crate::support::{DIR, GROUP, Open, accepted, format, open, small, value};

/// Lengths on both sides of every border of blocks and of syncs.
fn lengths() -> Vec<usize> {
    let near = |at: usize| [at - 1, at, at + 1];
    let mut lengths = vec![0, 1, 7, 8, 9];
    lengths.extend([1, 2, 15, 16, 17, 33].into_iter().flat_map(|blocks| near(blocks * CAPACITY)));
    lengths
}

/// Makes snapshots of many lengths and reads them back, wherever the pieces are cut.
fn come_back<S: Storage>(open: impl Fn() -> Open<S>) {
    let mut slot = 0;
    for length in lengths() {
        slot += 1;
        let bytes = image(slot, length);
        let facts = {
            let mut log = open();
            let mut store = store_of(&mut log);
            make(&mut store, slot, &bytes).unwrap()
        };
        let mut log = open();
        assert_eq!(log.recovered.snapshot.as_ref(), Some(&facts), "{length} bytes");
        let mut store = store_of(&mut log);
        assert_eq!(store.list(GROUP).unwrap().last(), Some(&facts));
        assert_eq!(read(&mut store, &facts).unwrap().unwrap(), bytes, "{length} bytes");
        let mut reader = store.open(&facts).unwrap().unwrap();
        let marks = [0, 1, CAPACITY - 1, CAPACITY, CAPACITY + 1, length.saturating_sub(1), length];
        for from in marks {
            for most in [0, 1, 100, CAPACITY, 2 * CAPACITY + 3, usize::MAX] {
                let piece = reader.read_at(from as u64, most).unwrap();
                let rest = bytes.get(from..).unwrap_or_default();
                assert_eq!(piece, rest[..most.min(rest.len())], "{most} from {from} of {length}");
            }
        }
        assert_eq!(reader.read_at(u64::MAX, 9).unwrap(), Vec::new());
        store.remove_below(GROUP, facts.slot).unwrap();
        assert_eq!(list(&mut store), [slot]);
    }
}

#[test]
fn an_image_comes_back_as_it_was_written() {
    let fs = SimFs::new();
    come_back(|| open(&fs).unwrap());
    let disturbed = SimFs::new();
    disturbed.disturb();
    come_back(|| open(&disturbed).unwrap());
    let memory = MemoryStorage::formatted(format());
    come_back(|| Open::recover(memory.clone()).unwrap());
}

#[test]
fn an_image_comes_back_from_a_real_disk() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("data");
    come_back(|| Open::recover(Wal::open_or_format(&dir, &format(), small()).unwrap()).unwrap());
}

#[test]
fn a_log_without_snapshots_has_none_and_makes_no_directory() {
    let fs = SimFs::new();
    let mut log = open(&fs).unwrap();
    assert_eq!(log.recovered.snapshot, None);
    let mut store = store_of(&mut log);
    assert_eq!(list(&mut store), Vec::<u64>::new());
    store.remove_below(GROUP, Slot::new(9)).unwrap();
    assert_eq!(read(&mut store, &meta(3, b"abc")).unwrap(), None);
    assert_eq!(files(&fs), Vec::<String>::new());
}

/// Whatever order they are finished in, the newest is that of the highest slot, and it stays.
fn oldest_first(log: &mut Open<impl Storage>) {
    let mut store = store_of(log);
    let bytes = image(1, 3 * CAPACITY);
    let metas: Vec<SnapshotMeta> =
        [30, 10, 20].iter().map(|slot| make(&mut store, *slot, &bytes).unwrap()).collect();
    assert_eq!(list(&mut store), [10, 20, 30]);
    store.remove_below(GROUP, Slot::new(20)).unwrap();
    assert_eq!(list(&mut store), [20, 30]);
    let mut reader = store.open(&metas[2]).unwrap().unwrap();
    store.remove_below(GROUP, Slot::new(1000)).unwrap();
    assert_eq!(list(&mut store), [30]);
    // Who reads one that is removed reads it to its end.
    assert_eq!(reader.read_at(5, usize::MAX).unwrap(), bytes[5..]);
    assert!(store.open(&metas[2]).unwrap().is_none());
    // One of a slot that has one takes its place.
    let other = image(2, 40);
    let again = make(&mut store, 30, &other).unwrap();
    assert_eq!(store.list(GROUP).unwrap(), std::slice::from_ref(&again));
    assert_eq!(read(&mut store, &again).unwrap().unwrap(), other);
    assert_eq!(read(&mut store, &metas[0]).unwrap(), None);
    let foreign = SnapshotMeta { group: GroupId::new(77), ..again };
    for refused in [
        store.list(foreign.group).map(drop),
        store.create(foreign.group).map(drop),
        store.unfinished(foreign.group).map(drop),
        store.receive(&foreign).map(drop),
        store.open(&foreign).map(drop),
        store.remove_below(foreign.group, Slot::MAX),
    ] {
        let Err(StorageError::Mismatch { what }) = refused else { panic!("{refused:?}") };
        assert!(what.contains("77"), "{what}");
    }
}

#[test]
fn snapshots_are_listed_oldest_first_and_the_newest_is_never_removed() {
    let fs = SimFs::new();
    let mut log = open(&fs).unwrap();
    oldest_first(&mut log);
    assert_eq!(files(&fs).len(), 2, "one image, one manifest: {:?}", files(&fs));
    oldest_first(&mut Open::recover(MemoryStorage::formatted(format())).unwrap());
}

/// After any number of bytes of an image the receiver is gone. What is whole in the file is held by
/// the next one, in this life or in another, and no byte of another image.
#[test]
fn p27_an_image_is_received_on_from_any_byte() {
    let bytes = image(5, 3 * CAPACITY + 100);
    let facts = meta(9, &bytes);
    for received in 0..=bytes.len() {
        for ending in ["link", "kill", "crash"] {
            let fs = SimFs::new();
            let mut log = open(&fs).unwrap();
            let mut store = store_of(&mut log);
            let mut writer = store.receive(&facts).unwrap();
            for piece in bytes[..received].chunks(1 + received / 2) {
                writer.write(piece).unwrap();
            }
            assert_eq!(writer.held(), received as u64);
            drop(writer);
            let mut least = received / CAPACITY * CAPACITY;
            match ending {
                "link" => {}
                "kill" => {
                    drop((log, store));
                    fs.kill();
                    log = open(&fs).unwrap();
                    store = store_of(&mut log);
                }
                _ => {
                    drop((log, store));
                    fs.crash(received as u64);
                    log = open(&fs).unwrap();
                    store = store_of(&mut log);
                    least = 0;
                }
            }
            assert_eq!(log.recovered.snapshot, None);
            assert_eq!(list(&mut store), Vec::<u64>::new());
            assert_eq!(store.unfinished(GROUP).unwrap().as_ref(), Some(&facts));
            let writer = store.receive(&facts).unwrap();
            let held = writer.held() as usize;
            assert!((least..=received).contains(&held), "{held} of {received} after {ending}");
            fill(writer, &facts, &bytes).unwrap();
            assert_eq!(store.unfinished(GROUP).unwrap(), None);
            assert_eq!(read(&mut store, &facts).unwrap().unwrap(), bytes);
            fs.crash_keeping(|_| false);
            let mut log = open(&fs).unwrap();
            assert_eq!(log.recovered.snapshot.as_ref(), Some(&facts));
            let mut store = store_of(&mut log);
            assert_eq!(read(&mut store, &facts).unwrap().unwrap(), bytes);
        }
    }
}

/// A large image is synced as it grows, and what was synced is held after the power went.
#[test]
fn an_image_is_synced_as_it_grows() {
    let fs = SimFs::new();
    let mut log = open(&fs).unwrap();
    let bytes = image(5, 50 * CAPACITY);
    let facts = meta(9, &bytes);
    let mut store = store_of(&mut log);
    let mut writer = store.receive(&facts).unwrap();
    let _ = fs.trace();
    for (at, piece) in bytes[..40 * CAPACITY].chunks(CAPACITY).enumerate() {
        writer.write(piece).unwrap();
        let syncs = fs.trace().iter().filter(|(op, _)| *op == SimOp::Sync).count();
        assert_eq!(syncs, usize::from((at + 1) % 16 == 0), "block {at}");
    }
    drop((writer, store, log));
    fs.crash_keeping(|_| false);
    let mut log = open(&fs).unwrap();
    let mut store = store_of(&mut log);
    assert_eq!(store.receive(&facts).unwrap().held(), 32 * CAPACITY as u64);
}

/// What is held of one image is of no use to another, and only one is held.
#[test]
fn another_image_is_received_from_its_beginning() {
    let memory = MemoryStorage::formatted(format());
    let fs = SimFs::new();
    let bytes = image(5, 3 * CAPACITY);
    let facts = meta(9, &bytes);
    let other_image = image(6, 3 * CAPACITY);
    let others = [
        meta(9, &other_image),
        SnapshotMeta { slot: Slot::new(10), ..facts.clone() },
        SnapshotMeta { digest: ImageDigest(7), ..facts.clone() },
    ];
    let check = |store: &mut crate::shelf::Store| {
        for other in &others {
            let mut writer = store.receive(&facts).unwrap();
            writer.write(&bytes[..2 * CAPACITY]).unwrap();
            drop(writer);
            assert_eq!(store.receive(&facts).unwrap().held(), 2 * CAPACITY as u64);
            assert_eq!(store.receive(other).unwrap().held(), 0);
            assert_eq!(store.unfinished(GROUP).unwrap().as_ref(), Some(other));
            assert_eq!(store.receive(&facts).unwrap().held(), 0, "it made way");
        }
    };
    let mut log = open(&fs).unwrap();
    check(&mut store_of(&mut log));
    assert_eq!(files(&fs).len(), 2, "{:?}", files(&fs));
    check(&mut store_of(&mut Open::recover(memory).unwrap()));
}

/// An image that is not what was said of it is no snapshot, and is forgotten.
fn lies_are_refused(log: &mut Open<impl Storage>) {
    let mut store = store_of(log);
    let bytes = image(5, 2 * CAPACITY + 5);
    let facts = meta(9, &bytes);
    let mut flipped = bytes.clone();
    flipped[CAPACITY] ^= 1;
    let mut writer = store.receive(&facts).unwrap();
    writer.write(&flipped).unwrap();
    let corrupt = |result: Result<(), StorageError>, says: &str| {
        let Err(StorageError::Corrupt { what }) = result else { panic!("{result:?}") };
        assert!(what.contains(says) && what.contains("slot 9"), "{what}");
    };
    corrupt(writer.finish(&facts), "digest");
    assert_eq!(store.unfinished(GROUP).unwrap(), None, "forgotten");
    assert_eq!(store.receive(&facts).unwrap().held(), 0, "forgotten");
    let mut writer = store.receive(&facts).unwrap();
    writer.write(&bytes[..bytes.len() - 1]).unwrap();
    corrupt(writer.finish(&facts), "bytes");
    let mut writer = store.receive(&facts).unwrap();
    writer.write(&bytes).unwrap();
    corrupt(writer.write(&[1]), "more was received");
    assert!(writer.write(&[]).is_err(), "and stays so");
    assert!(writer.finish(&facts).is_err());
    let mut writer = store.create(GROUP).unwrap();
    writer.write(&flipped).unwrap();
    corrupt(writer.finish(&facts), "digest");
    let mut writer = store.receive(&facts).unwrap();
    writer.write(&bytes).unwrap();
    let other = SnapshotMeta { slot: Slot::new(10), ..facts.clone() };
    assert!(matches!(writer.finish(&other), Err(StorageError::Mismatch { .. })));
    let nobody = SnapshotMeta { governs: Vec::new(), ..facts.clone() };
    let mut writer = store.create(GROUP).unwrap();
    writer.write(&bytes).unwrap();
    assert!(matches!(writer.finish(&nobody), Err(StorageError::Mismatch { .. })));
    assert_eq!(list(&mut store), Vec::<u64>::new());
    fill(store.receive(&facts).unwrap(), &facts, &bytes).unwrap();
    assert_eq!(list(&mut store), [9]);
}

#[test]
fn an_image_that_is_not_what_was_said_is_forgotten() {
    let fs = SimFs::new();
    let mut log = open(&fs).unwrap();
    lies_are_refused(&mut log);
    assert_eq!(files(&fs).len(), 2, "{:?}", files(&fs));
    lies_are_refused(&mut Open::recover(MemoryStorage::formatted(format())).unwrap());
}

/// Two writers of one kind would write over each other: the earlier one is told that it is too late.
fn latest_writer(log: &mut Open<impl Storage>) {
    let mut store = store_of(log);
    let bytes = image(5, 2 * CAPACITY);
    let facts = meta(9, &bytes);
    let mut first = store.create(GROUP).unwrap();
    first.write(&bytes).unwrap();
    let second = store.create(GROUP).unwrap();
    assert!(matches!(first.finish(&facts), Err(StorageError::Mismatch { .. })));
    fill(second, &facts, &bytes).unwrap();
    let newer = meta(10, &bytes);
    let mut first = store.receive(&newer).unwrap();
    first.write(&bytes[..CAPACITY]).unwrap();
    let second = store.receive(&newer).unwrap();
    assert!(first.write(&bytes[CAPACITY..]).and_then(|()| first.finish(&newer)).is_err());
    assert_eq!(second.held(), CAPACITY as u64);
    // An image of one's own that includes as much makes a peer's useless.
    make(&mut store, 10, &bytes).unwrap();
    assert!(fill(second, &newer, &bytes).is_err());
    assert_eq!(list(&mut store), [9, 10]);
    // One that includes less does not.
    let newest = meta(12, &bytes);
    let second = store.receive(&newest).unwrap();
    make(&mut store, 11, &bytes).unwrap();
    fill(second, &newest, &bytes).unwrap();
    assert_eq!(list(&mut store), [9, 10, 11, 12]);
}

#[test]
fn only_the_latest_writer_of_a_kind_writes() {
    let fs = SimFs::new();
    latest_writer(&mut open(&fs).unwrap());
    assert_eq!(files(&fs).len(), 8, "{:?}", files(&fs));
    latest_writer(&mut Open::recover(MemoryStorage::formatted(format())).unwrap());
}

/// A start keeps what was received, and what is unfinished of this replica's own is gone.
#[test]
fn a_start_removes_an_unfinished_image_of_ones_own_and_keeps_a_received_one() {
    let fs = SimFs::new();
    let mut log = open(&fs).unwrap();
    let mut store = store_of(&mut log);
    let bytes = image(5, 4 * CAPACITY);
    let mut own = store.create(GROUP).unwrap();
    own.write(&bytes).unwrap();
    let facts = meta(20, &bytes);
    let mut received = store.receive(&facts).unwrap();
    received.write(&bytes).unwrap();
    assert_eq!(files(&fs).len(), 3, "{:?}", files(&fs));
    drop((own, received, store, log));
    fs.kill();
    let mut log = open(&fs).unwrap();
    let kept = files(&fs);
    assert_eq!(kept.len(), 2, "{kept:?}");
    assert!(kept[1].ends_with(".receiving"), "{kept:?}");
    let mut store = store_of(&mut log);
    // One that is finished meanwhile, and includes as much, makes it useless.
    make(&mut store, 30, &bytes).unwrap();
    assert_eq!(files(&fs).len(), 2, "{:?}", files(&fs));
    assert_eq!(store.receive(&facts).unwrap().held(), 0);
}

/// The log and its snapshots can be used by two threads; the directory is given up by the last one.
#[test]
fn t20_the_directory_is_locked_until_the_last_handle_is_gone() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("data");
    let reopen = || Wal::open_or_format(&dir, &format(), small());
    let mut log = Open::recover(reopen().unwrap()).unwrap();
    let mut store = store_of(&mut log);
    let bytes = image(5, 100 * CAPACITY);
    let facts = meta(9, &bytes);
    let writer = std::thread::scope(|scope| {
        let maker = scope.spawn(|| {
            make(&mut store, 5, &bytes).unwrap();
            store.receive(&facts).unwrap()
        });
        for slot in 1..50 {
            log.write(vec![accepted(slot, 1, value(slot, 100))]).unwrap();
        }
        maker.join().unwrap()
    });
    assert_eq!(list(&mut store), [5]);
    drop(log);
    assert!(matches!(reopen(), Err(StorageError::AlreadyOpen { .. })));
    drop(store);
    assert!(matches!(reopen(), Err(StorageError::AlreadyOpen { .. })));
    drop(writer);
    let log = Open::recover(reopen().unwrap()).unwrap();
    assert_eq!(log.recovered.votes.len(), 49);
    assert_eq!(log.recovered.snapshot.unwrap().slot, Slot::new(5));
}

/// The length of blocks may change: images of another length are read, and gone on with.
#[test]
fn images_in_blocks_of_another_length_are_read_and_gone_on_with() {
    let fs = SimFs::new();
    let open_with = |snapshot_block_bytes| {
        let options = WalOptions { snapshot_block_bytes, ..small() };
        Open::recover(Wal::open_or_format_on(fs.clone(), DIR, &format(), options)?)
    };
    let bytes = image(5, 5000);
    let facts = meta(9, &bytes);
    let mut log = open_with(1024).unwrap();
    let mut store = store_of(&mut log);
    let older = make(&mut store, 5, &bytes).unwrap();
    store.receive(&facts).unwrap().write(&bytes).unwrap();
    drop((store, log));
    let mut log = open_with(4096).unwrap();
    let mut store = store_of(&mut log);
    assert_eq!(read(&mut store, &older).unwrap().unwrap(), bytes);
    let writer = store.receive(&facts).unwrap();
    assert_eq!(writer.held(), 4 * 1008);
    fill(writer, &facts, &bytes).unwrap();
    make(&mut store, 10, &bytes).unwrap();
    drop((store, log));
    for bad in [0, 511, 700, (4 << 20) + 512] {
        let Err(StorageError::Mismatch { what }) = open_with(bad) else { panic!("{bad}") };
        assert!(what.contains("snapshot_block_bytes"), "{what}");
    }
}

/// A snapshot is another replica's, or of another version of the format: it is refused by name.
#[test]
fn a_snapshot_from_elsewhere_is_refused() {
    let elsewhere = Format { replica: ReplicaId::new(3), ..format() };
    let (own, foreign) = (SimFs::new(), SimFs::new());
    let bytes = image(5, 100);
    let mut log = open(&own).unwrap();
    make(&mut store_of(&mut log), 5, &bytes).unwrap();
    drop(log);
    let wal = Wal::open_or_format_on(foreign.clone(), DIR, &elsewhere, small()).unwrap();
    let mut log = Open::recover(wal).unwrap();
    make(&mut store_of(&mut log), 5, &bytes).unwrap();
    for path in crate::shelf::paths(&foreign) {
        own.replace(&path, foreign.contents(&path).unwrap());
    }
    let Err(StorageError::Mismatch { what }) = open(&own).map(|log| log.recovered) else {
        panic!("it was taken for this replica's own")
    };
    assert!(what.contains(".manifest belongs to") && what.contains("replica 3"), "{what}");
}

/// The newest snapshot is reported by a log that was trimmed below it, at it, and not at all.
#[test]
fn a_trimmed_log_reports_the_snapshot_that_it_begins_after() {
    let fs = SimFs::new();
    let mut log = open(&fs).unwrap();
    let slots = (1..10).map(|slot| accepted(slot, 1, value(slot, 10))).collect();
    log.write(slots).unwrap();
    let facts = make(&mut store_of(&mut log), 7, &image(1, 100)).unwrap();
    for trimmed in [0, 5, 7] {
        log.write(vec![Write::Committed(Slot::new(8)), Write::Trimmed(Slot::new(trimmed))])
            .unwrap();
        drop(log);
        fs.crash(trimmed);
        log = open(&fs).unwrap();
        assert_eq!(log.recovered.snapshot.as_ref(), Some(&facts));
        assert_eq!(log.recovered.trimmed, Slot::new(trimmed));
    }
}

/// How fast a large image is written, verified at a start, and read, on the disk of the temporary
/// directory. `cargo test --release -p paxos-storage --test it gibibyte -- --ignored --nocapture`
#[test]
#[ignore = "writes a gibibyte"]
fn a_gibibyte_is_written_verified_and_read() {
    const PIECE: usize = 256 << 10;
    const PIECES: u64 = 4096;
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("data");
    let reopen = || {
        Open::recover(Wal::open_or_format(&dir, &format(), WalOptions::default()).unwrap()).unwrap()
    };
    let mut piece = image(1, PIECE);
    let mut stamped = |at: u64| {
        piece[..8].copy_from_slice(&at.to_le_bytes());
        piece.clone()
    };
    let rate = |what: &str, since: std::time::Instant| {
        let took = since.elapsed();
        println!("{what}: {:.2} s, {:.0} MiB/s", took.as_secs_f64(), 1024.0 / took.as_secs_f64());
    };
    let mut log = reopen();
    let mut store = store_of(&mut log);
    let begun = std::time::Instant::now();
    let mut writer = store.create(GROUP).unwrap();
    for at in 0..PIECES {
        writer.write(&stamped(at)).unwrap();
    }
    let (bytes, digest) = writer.image();
    let facts = SnapshotMeta { bytes, digest, ..meta(9, &[]) };
    writer.finish(&facts).unwrap();
    rate("written", begun);
    drop((store, log));
    let begun = std::time::Instant::now();
    let mut log = reopen();
    rate("verified by a start", begun);
    assert_eq!(log.recovered.snapshot.as_ref(), Some(&facts));
    let mut reader = store_of(&mut log).open(&facts).unwrap().unwrap();
    let begun = std::time::Instant::now();
    for at in 0..PIECES {
        let found = reader.read_at(at * PIECE as u64, PIECE).unwrap();
        assert_eq!(found.first_chunk(), Some(&at.to_le_bytes()));
        assert_eq!(found.len(), PIECE);
    }
    rate("read", begun);
}
