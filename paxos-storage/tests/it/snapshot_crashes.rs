//! Snapshots and power loss: a story of making, receiving, trimming and removing is cut after each
//! of its changes of the disk, with every way in which a device may tear what was not synced; each
//! recovery from that is cut again after each of its own changes.
//!
//! The plain test takes every n-th case of the second kind; `cargo test --release -p paxos-storage
//! --test it snapshot_crashes -- --ignored --nocapture` takes all, and prints how many.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(clippy::print_stdout, reason = "the whole sweep says how many cases it took")]

use paxos_core::durable::Write;
use paxos_core::ids::Slot;
use paxos_core::port::StorageError;
use paxos_storage::Wal;
use paxos_storage::sim::{SimFs, SimOp};

use crate::shelf::{CAPACITY, Store, fill, image, make, meta, read, store_of};
use crate::support::{GROUP, Open, accepted, open, value};

type Log = Open<Wal<SimFs>>;

/// So many unsynced pieces are tried in every combination.
const ALL_SUBSETS_OF: usize = 7;

/// The image of each slot: of one block or of several.
fn image_of(slot: u64) -> Vec<u8> {
    image(slot, CAPACITY * (slot as usize % 5) + 300)
}

/// The snapshots that there may be after each step, by the slot of the newest; 0 is none.
const STEPS: [u64; 9] = [0, 5, 5, 5, 9, 9, 12, 12, 12];

/// One step of the story. After it, the snapshot of the slot in `STEPS` is durable.
fn step(at: usize, log: &mut Log, store: &mut Store) -> Result<(), StorageError> {
    match at {
        0 => {
            let writes = (1..15).map(|slot| accepted(slot, 1, value(slot, 30)));
            log.write(writes.chain([Write::Committed(Slot::new(14))]).collect())
        }
        1 => make(store, 5, &image_of(5)).map(drop),
        2 => log.write(vec![Write::Trimmed(Slot::new(5))]),
        // A peer's, in two attempts, and one of one's own that comes to nothing meanwhile.
        3 => {
            let bytes = image_of(9);
            store.receive(&meta(9, &bytes))?.write(&bytes[..bytes.len() / 2])?;
            store.create(GROUP)?.write(&bytes)
        }
        4 => fill(store.receive(&meta(9, &image_of(9)))?, &meta(9, &image_of(9)), &image_of(9)),
        5 => log.write(vec![Write::Trimmed(Slot::new(8))]),
        6 => make(store, 12, &image_of(12)).map(drop),
        7 => store.remove_below(GROUP, Slot::new(12)),
        _ => log.write(vec![Write::Trimmed(Slot::new(12))]),
    }
}

/// A disk in the middle of the story.
struct Point {
    fs: SimFs,
    /// The step that was cut.
    at: usize,
}

/// The story up to so many changes; `None` if it has fewer.
fn run(changes: Option<u64>) -> Option<Point> {
    let fs = SimFs::new();
    let mut log = open(&fs).unwrap();
    let mut store = store_of(&mut log);
    if let Some(changes) = changes {
        fs.cut_power_after(changes);
    }
    for at in 0..STEPS.len() {
        if step(at, &mut log, &mut store).is_err() {
            return Some(Point { fs, at });
        }
    }
    changes.is_none().then_some(Point { fs, at: STEPS.len() - 1 })
}

#[derive(Debug, Default)]
struct Tally {
    cases: u64,
    /// The step that was cut left its snapshot.
    ahead: u64,
    /// It did not.
    behind: u64,
}

impl Tally {
    /// Recovers: the newest snapshot that was finished is there, or the one that was being finished;
    /// whatever is listed is whole; and the log begins no later than after it.
    fn check(&mut self, fs: &SimFs, at: usize, case: &dyn Fn() -> String) {
        self.cases += 1;
        let mut log = open(fs).unwrap_or_else(|error| panic!("{}: {error}", case()));
        let mut store = store_of(&mut log);
        let accused = crate::shelf::files(fs).iter().any(|name| name.ends_with(".damaged"));
        assert!(!accused, "{}: a crash is no damage", case());
        let listed = store.list(GROUP).unwrap();
        assert_eq!(log.recovered.snapshot.as_ref(), listed.last(), "{}", case());
        let newest = listed.last().map_or(0, |meta| meta.slot.number());
        let before = at.checked_sub(1).map_or(0, |before| STEPS[before]);
        assert!([before, STEPS[at]].contains(&newest), "{}: newest is {newest}", case());
        if STEPS[at] != before {
            *if newest == before { &mut self.behind } else { &mut self.ahead } += 1;
        }
        assert!(log.recovered.trimmed <= Slot::new(newest), "{}", case());
        for facts in &listed {
            let bytes = image_of(facts.slot.number());
            assert_eq!(*facts, meta(facts.slot.number(), &bytes), "{}", case());
            let found = read(&mut store, facts).unwrap_or_else(|e| panic!("{}: {e}", case()));
            assert_eq!(found.unwrap(), bytes, "{}", case());
        }
        // And the story goes on from there.
        let bytes = image_of(20);
        let facts = meta(20, &bytes);
        fill(store.receive(&facts).unwrap(), &facts, &bytes).unwrap();
        store.remove_below(GROUP, Slot::new(20)).unwrap();
        assert_eq!(crate::shelf::files(fs).len(), 2, "{}: no litter", case());
    }

    fn tear(&mut self, point: &Point, changes: u64) {
        let pieces = point.fs.unsynced();
        let prefixes = (0..=pieces).map(|kept| (0..pieces).map(|at| at < kept).collect());
        let mut masks: Vec<Vec<bool>> = prefixes.collect();
        if pieces <= ALL_SUBSETS_OF {
            masks.extend(
                (0..1_usize << pieces)
                    .map(|mask| (0..pieces).map(|at| mask >> at & 1 == 1).collect()),
            );
        } else {
            let mut rng = paxos_core::sim::Rng::new(changes);
            let drawn = 1 << ALL_SUBSETS_OF;
            masks.extend((0..drawn).map(|_| (0..pieces).map(|_| rng.chance(500)).collect()));
        }
        for mask in &masks {
            let fs = point.fs.fork();
            fs.crash_keeping(|piece| mask[piece]);
            self.check(&fs, point.at, &|| format!("cut after {changes} changes, kept {mask:?}"));
        }
        let killed = point.fs.fork();
        killed.kill();
        self.check(&killed, point.at, &|| format!("killed after {changes} changes"));
    }

    fn cut_starts(&mut self, point: &Point, changes: u64, every: usize) {
        for seed in 0..4 {
            let left = point.fs.fork();
            match seed {
                0 => left.crash_keeping(|_| true),
                1 => left.crash_keeping(|_| false),
                2 => left.crash(changes),
                _ => left.kill(),
            }
            let found = open(&left.fork()).unwrap().recovered.snapshot;
            for cut in (0..).step_by(every) {
                let fs = left.fork();
                fs.cut_power_after(cut);
                let started = open(&fs).is_ok();
                for how in 0..3 {
                    let again = fs.fork();
                    match how {
                        0 => again.crash_keeping(|_| true),
                        1 => again.crash_keeping(|_| false),
                        _ => again.crash(cut),
                    }
                    let case =
                        || format!("cut after {changes}, seed {seed}; start after {cut}, {how}");
                    // What a start told is not forgotten by the next, nor more found. One that was
                    // cut told nothing, and what it saw may have been in the page cache alone.
                    let next = open(&again.fork()).unwrap().recovered.snapshot;
                    assert!(next == found || seed == 3 && !started, "{}: {next:?}", case());
                    self.check(&again, point.at, &case);
                }
                if started {
                    break;
                }
            }
        }
    }
}

fn sweep(every: usize) -> Tally {
    let mut tally = Tally::default();
    let mut changes = 0;
    while let Some(point) = run(Some(changes)) {
        tally.tear(&point, changes);
        if (changes as usize).is_multiple_of(every) {
            tally.cut_starts(&point, changes, every);
        }
        changes += 1;
    }
    assert!(changes > 45, "the story has many changes: {changes}");
    tally.check(&run(None).unwrap().fs, STEPS.len() - 1, &|| "all of it".to_owned());
    assert!(tally.ahead > 20 && tally.behind > 200, "cuts on both sides of the commit: {tally:?}");
    tally
}

#[test]
fn p27_a_snapshot_is_whole_or_absent_after_any_crash() {
    sweep(7);
}

#[test]
#[ignore = "takes all cases"]
fn whole_sweep_of_snapshots() {
    let tally = sweep(1);
    println!("{} cases: {} before the commit, {} after", tally.cases, tally.behind, tally.ahead);
}

/// A crash after a snapshot's rename and before the trim that it allows: there is both the snapshot
/// and the log below it, and neither is taken for damage. (transport-and-storage.md 22)
#[test]
fn t22_a_crash_between_the_rename_and_the_trim_leaves_both() {
    let mut seen = 0;
    for changes in 0.. {
        let fs = SimFs::new();
        let mut log = open(&fs).unwrap();
        let mut store = store_of(&mut log);
        step(0, &mut log, &mut store).unwrap();
        let _ = fs.trace();
        fs.cut_power_after(changes);
        let made = make(&mut store, 5, &image_of(5));
        let trace = fs.trace();
        let renamed = trace.iter().any(|(op, path)| {
            *op == SimOp::Rename && path.extension().is_some_and(|end| end == "manifest")
        });
        let trimmed = made.is_ok() && log.write(vec![Write::Trimmed(Slot::new(5))]).is_ok();
        drop((log, store));
        for kept in [false, true] {
            let fs = fs.fork();
            fs.crash_keeping(|_| kept);
            let log = open(&fs).unwrap();
            let newest = log.recovered.snapshot.map(|meta| meta.slot);
            if made.is_ok() {
                assert_eq!(newest, Some(Slot::new(5)), "{changes}");
            }
            let below = log.recovered.trimmed;
            assert!(below == Slot::ZERO || newest == Some(Slot::new(5)), "{changes}");
            assert_eq!(log.recovered.committed, Slot::new(14));
            if renamed && !trimmed && newest.is_some() {
                seen += usize::from(below == Slot::ZERO);
            }
        }
        if trimmed {
            break;
        }
    }
    assert!(seen >= 2, "the crash fell between the two: {seen}");
}

/// The next life must not trust the page cache that a failed sync left: it shows what the disk lacks.
/// (transport-and-storage.md 17)
#[test]
fn t17_what_a_failed_sync_left_of_an_image_is_written_anew() {
    for seed in 0..30 {
        let fs = SimFs::new();
        let mut log = open(&fs).unwrap();
        let mut store = store_of(&mut log);
        let bytes = image(seed, 20 * CAPACITY);
        let facts = meta(9, &bytes);
        let mut writer = store.receive(&facts).unwrap();
        fs.fail(SimOp::Sync, 0, std::io::ErrorKind::Other);
        // Nor can what is suspect be removed: the device fails everything for a while.
        fs.fail(SimOp::Remove, 0, std::io::ErrorKind::Other);
        assert!(writer.write(&bytes).is_err());
        drop((writer, store, log));
        // The process is started again on the same page cache.
        fs.kill();
        let mut log = open(&fs).unwrap();
        let mut store = store_of(&mut log);
        let writer = store.receive(&facts).unwrap();
        assert_eq!(writer.held(), 16 * CAPACITY as u64, "the cache shows it");
        fill(writer, &facts, &bytes).unwrap();
        fs.crash_keeping(|_| false);
        let mut log = open(&fs).unwrap();
        assert_eq!(log.recovered.snapshot.as_ref(), Some(&facts), "seed {seed}");
        assert_eq!(read(&mut store_of(&mut log), &facts).unwrap().unwrap(), bytes);
    }
}

/// A life that died after it made the directory may have left a name that is not durable; what the
/// next one finishes in it must not go with it.
#[test]
fn the_name_of_the_directory_is_durable_before_anything_is_in_it() {
    for begin in [
        |store: &mut Store| store.create(GROUP).map(drop),
        |store: &mut Store| store.receive(&meta(9, b"image")).map(drop),
    ] {
        let fs = SimFs::new();
        for _ in 0..2 {
            let mut log = open(&fs).unwrap();
            let mut store = store_of(&mut log);
            let _ = fs.trace();
            begin(&mut store).unwrap();
            let calls = fs.trace();
            let synced = |call: &(SimOp, std::path::PathBuf)| {
                call.0 == SimOp::SyncDir && call.1 == std::path::Path::new("/data")
            };
            let synced = calls.iter().position(synced).unwrap();
            let created = calls.iter().position(|(op, _)| *op == SimOp::Create);
            assert!(created.is_none_or(|created| synced < created), "{calls:?}");
            let again = begin(&mut store);
            assert!(again.is_ok() && !fs.trace().iter().any(|(_, path)| path.ends_with("data")));
        }
    }
}
