//! Every crash, and every damage, that a recorded log can meet.
//!
//! A workload of 200 calls is cut after each of its changes of the disk, with every way in which a
//! device may tear what was not synced; each recovery from that is cut again after each of its own.
//! Then each bit of what the workload leaves is flipped, and each block zeroed, put over another
//! one, and replaced by what it held earlier. In each case everything acknowledged is there, or the
//! storage refuses with the error that names the damage.
//!
//! What nothing later vouches for has no witness: damage that reaches the last write of a log that
//! was not continued is taken for a write cut short, and what was written before the first damaged
//! byte is all that must be there. Those cases are counted apart.
//!
//! The plain tests take every n-th case; `cargo test --release -p paxos-storage --test it sweep --
//! --ignored --nocapture` takes all, and prints how many.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(clippy::print_stdout, reason = "the whole sweep says how many cases it took")]

use std::path::{Path, PathBuf};

use paxos_core::durable::Write;
use paxos_core::ids::{Incarnation, ReplicaId, Slot};
use paxos_core::port::{Recovered, StorageError};
use paxos_core::sim::Rng;
use paxos_core::value::Value;
use paxos_storage::fs::FileSystem;
use paxos_storage::sim::{SECTOR_LEN, SimFs};
use paxos_storage::{MemoryStorage, Wal};

use crate::support::{Open, accepted, ballot, facts, format, newest_segment, open, value};

const CALLS: usize = 200;
const BLOCK: usize = 4096;
/// So many unsynced pieces are tried in every combination.
const ALL_SUBSETS_OF: usize = 10;
/// Of the second and third image one bit in so many is flipped.
const OTHER_BITS: usize = 2;

type Log = Open<Wal<SimFs>>;

/// How much of the sweep is done: every n-th of each kind of case.
#[derive(Clone, Copy)]
struct Effort {
    points: usize,
    tears: usize,
    starts: usize,
    bits: usize,
    blocks: usize,
}

const WHOLE: Effort = Effort { points: 1, tears: 1, starts: 1, bits: 1, blocks: 1 };
const SAMPLE: Effort = Effort { points: 23, tears: 37, starts: 9, bits: 701, blocks: 97 };

/// What came of the cases of a sweep.
#[derive(Debug, Default)]
struct Tally {
    cases: u64,
    /// Everything was there.
    whole: u64,
    /// Refused, by name.
    named: u64,
    /// Damage to what nothing vouches for was taken for a write cut short.
    unvouched: u64,
}

/// The calls of the workload, each with its facts.
fn workload() -> Vec<Vec<Write>> {
    let mut rng = Rng::new(0x5eed_1097);
    let (mut slot, mut committed, mut trimmed, mut round) = (0, 0, 0, 1);
    let mut stamp = 0;
    let mut fact = |rng: &mut Rng| {
        stamp += 1;
        let value = value(stamp, rng.below(500) as usize);
        match rng.below(20) {
            0 => {
                round += 1;
                Write::Promised(ballot(round))
            }
            1 => Write::Peer {
                peer: ReplicaId::new(1 + 2 * rng.below(2) as u16),
                incarnation: Incarnation::new(stamp as u32, 7),
            },
            2..=4 => {
                committed += rng.below(slot - committed + 1);
                Write::Committed(Slot::new(committed))
            }
            5 => {
                trimmed += rng.below((committed - trimmed) / 2 + 1);
                Write::Trimmed(Slot::new(trimmed))
            }
            6 | 7 => {
                slot += 1;
                Write::Chosen { slot: Slot::new(slot), value }
            }
            8 | 9 if slot > committed => accepted(slot, round, value),
            _ => {
                slot += 1;
                accepted(slot, round, value)
            }
        }
    };
    (0..CALLS)
        .map(|call| {
            // Large ones cross sectors and segments.
            let count = if call % 40 == 20 { 30 } else { 1 + rng.below(3) };
            (0..count).map(|_| fact(&mut rng)).collect()
        })
        .collect()
}

type Contents = (Recovered, Vec<(u64, Value)>);

/// What the log in memory says after each number of facts.
fn expectations(calls: &[Vec<Write>]) -> Vec<Contents> {
    let all: Vec<Write> = calls.iter().flatten().cloned().collect();
    (0..=all.len())
        .map(|count| {
            let mut model = Open::recover(MemoryStorage::formatted(format())).unwrap();
            model.write(all[..count].to_vec()).unwrap();
            let kept = model.storage.clone();
            drop(model);
            contents(&mut Open::recover(kept).unwrap()).unwrap()
        })
        .collect()
}

/// All that a log gives back.
fn contents<S: paxos_core::port::Storage>(log: &mut Open<S>) -> Result<Contents, StorageError> {
    const LAST: u64 = 2 * CALLS as u64;
    let mut slot = log.recovered.trimmed.next().number();
    let mut values = Vec::new();
    while slot <= LAST {
        let loaded = log.try_load(slot, LAST)?.values;
        let found = loaded.len() as u64;
        values.extend((slot..).zip(loaded));
        slot += found + 1;
    }
    Ok((facts(&log.recovered), values))
}

/// A workload with what is known of it beforehand.
struct Sweep {
    calls: Vec<Vec<Write>>,
    expected: Vec<Contents>,
    tally: Tally,
}

/// A disk in the middle of something, with how many facts were proved and begun.
struct Point {
    fs: SimFs,
    proved: usize,
    begun: usize,
}

impl Sweep {
    fn new() -> Self {
        let calls = workload();
        let expected = expectations(&calls);
        Self { calls, expected, tally: Tally::default() }
    }

    /// A disk after the workload, or after so many changes of it; `None` if it has fewer.
    fn run(&self, changes: Option<u64>) -> Option<(Point, Log)> {
        let fs = SimFs::new();
        let mut log = open(&fs).unwrap();
        if let Some(changes) = changes {
            fs.cut_power_after(changes);
        }
        let (mut proved, mut begun) = (0, 0);
        for call in &self.calls {
            begun += call.len();
            if log.write(call.clone()).is_err() {
                return Some((Point { fs, proved, begun }, log));
            }
            proved = begun;
        }
        changes.is_none().then_some((Point { fs, proved, begun }, log))
    }

    /// Recovers, and returns how many facts are there; at least `least` of them, at most `most`.
    fn survivors(
        &self,
        fs: &SimFs,
        least: usize,
        most: usize,
        case: &dyn Fn() -> String,
    ) -> Result<usize, StorageError> {
        let mut log = open(fs)?;
        let found = contents(&mut log)?;
        let count = (least..=most).rev().find(|count| self.expected[*count] == found);
        Ok(count.unwrap_or_else(|| {
            panic!("{}: not one of the prefixes of {least} to {most} facts: {found:?}", case())
        }))
    }

    /// A crash refuses nothing: what was proved is there.
    fn crash_case(&mut self, fs: &SimFs, point: &Point, case: &dyn Fn() -> String) -> usize {
        self.tally.cases += 1;
        self.tally.whole += 1;
        let found = self.survivors(fs, point.proved, point.begun, case);
        found.unwrap_or_else(|error| panic!("{}: {error}", case()))
    }

    /// Every way in which what was not synced may be torn.
    fn tear(&mut self, point: &Point, changes: u64, effort: Effort) {
        let pieces = point.fs.unsynced();
        let mut rng = Rng::new(changes);
        let mut masks: Vec<Vec<bool>> =
            (0..=pieces).map(|kept| (0..pieces).map(|at| at < kept).collect()).collect();
        if pieces <= ALL_SUBSETS_OF {
            let bits = |mask: usize| (0..pieces).map(|at| mask >> at & 1 == 1).collect();
            masks.extend((0..1 << pieces).map(bits));
        } else {
            let drawn = 1 << ALL_SUBSETS_OF;
            masks.extend((0..drawn).map(|_| (0..pieces).map(|_| rng.chance(500)).collect()));
        }
        let last = masks.len() - 1;
        for (at, mask) in masks.iter().enumerate() {
            // Nothing, everything, and every n-th.
            if at != 0 && at != pieces && at != last && at % effort.tears != 0 {
                continue;
            }
            let fs = point.fs.fork();
            fs.crash_keeping(|piece| mask[piece]);
            self.crash_case(&fs, point, &|| format!("cut after {changes} changes, kept {mask:?}"));
        }
    }

    /// Cuts each recovery after each of its changes, and recovers from that.
    fn cut_starts(&mut self, point: &Point, changes: u64, effort: Effort) {
        for seed in 0..4 {
            let left = point.fs.fork();
            match seed {
                0 => left.crash_keeping(|_| true),
                1 => left.crash_keeping(|_| false),
                2 => left.crash(changes),
                // The process dies, and leaves its last writes in the page cache.
                _ => left.kill(),
            }
            let found = {
                let case = || format!("cut after {changes} changes, seed {seed}");
                self.crash_case(&left.fork(), point, &case)
            };
            for cut in (0..).step_by(effort.starts) {
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
                    // What a start may have told is not forgotten by the next, nor more found.
                    let told = Point { fs: again.fork(), proved: found, begun: found };
                    let case = || {
                        format!(
                            "cut after {changes} changes, seed {seed}; start cut after {cut}, {how}"
                        )
                    };
                    if started {
                        self.crash_case(&again, &told, &case);
                    } else {
                        self.crash_case(&again, point, &case);
                    }
                }
                if started {
                    break;
                }
            }
        }
    }

    fn crashes(&mut self, effort: Effort) {
        for changes in (0..).step_by(effort.points) {
            let Some((point, log)) = self.run(Some(changes)) else {
                break;
            };
            self.tear(&point, changes, effort);
            self.cut_starts(&point, changes, effort);
            drop(log);
        }
    }
}

/// What a log left, to be damaged.
struct Image {
    name: &'static str,
    fs: SimFs,
    /// The newest segment, and where in it the last write began.
    newest: PathBuf,
    last_write: usize,
    /// For each call, the segment and the offset at which its records end.
    ends: Vec<(PathBuf, usize)>,
}

impl Image {
    fn new(sweep: &Sweep, name: &'static str, clean: bool, restarted: bool) -> Self {
        let fs = SimFs::new();
        let mut log = open(&fs).unwrap();
        let mut ends = Vec::new();
        for call in &sweep.calls {
            log.write(call.clone()).unwrap();
            let newest = newest_segment(&fs);
            let (_, end) = fs.last_write(&newest).unwrap();
            ends.push((newest, end));
        }
        if clean {
            drop(log);
        } else {
            fs.kill();
            drop(log);
        }
        if restarted {
            let log = open(&fs).unwrap();
            fs.kill();
            drop(log);
        }
        let newest = newest_segment(&fs);
        let (last_write, _) = fs.last_write(&newest).unwrap();
        // The file as the device has it; a start leaves nothing unsynced but cut ends.
        fs.crash_keeping(|_| true);
        Self { name, fs, newest, last_write, ends }
    }

    fn files(&self) -> Vec<PathBuf> {
        let counts = |path: &PathBuf| {
            path.extension().is_some_and(|extension| extension == "wal") || path.ends_with("META")
        };
        self.fs.files().into_iter().filter(counts).collect()
    }

    /// How many calls must be there when the bytes from `start` to `end` of a file are damaged.
    fn calls_kept(&self, path: &Path, start: usize, end: usize) -> Option<usize> {
        if path != self.newest || end <= self.last_write {
            return None;
        }
        let kept = |(segment, end): &&(PathBuf, usize)| *segment != self.newest || *end <= start;
        Some(self.ends.iter().take_while(kept).count())
    }
}

impl Sweep {
    /// One case of damage: the bytes of a file are others from `start` to `end`.
    fn damage_case(
        &mut self,
        image: &Image,
        (path, start, end): (&Path, usize, usize),
        fs: &SimFs,
        what: &str,
    ) {
        self.tally.cases += 1;
        let all = self.expected.len() - 1;
        let kept = image.calls_kept(path, start, end);
        let least = kept.map_or(all, |calls| self.calls[..calls].iter().map(Vec::len).sum());
        let case = || format!("{}: {}, {start} to {end}: {what}", image.name, path.display());
        match self.survivors(fs, least, all, &case) {
            Ok(found) if found == all => self.tally.whole += 1,
            Ok(_) => self.tally.unvouched += 1,
            Err(StorageError::Corrupt { .. } | StorageError::Mismatch { .. }) => {
                self.tally.named += 1;
            }
            Err(error) => panic!("{}: {error}", case()),
        }
    }

    /// Every single bit.
    fn flips(&mut self, image: &Image, effort: Effort) {
        for path in image.files() {
            let len = image.fs.contents(&path).unwrap().len();
            for at in (0..len * 8).step_by(effort.bits) {
                let fs = image.fs.fork();
                fs.rot(&path, at / 8, (at % 8) as u8);
                self.damage_case(image, (&path, at / 8, at / 8 + 1), &fs, "a flipped bit");
            }
        }
    }

    /// Every block zeroed, and every block in the place of every other one.
    fn blocks(&mut self, image: &Image, unit: usize, effort: Effort) {
        let mut blocks = Vec::new();
        for path in image.files() {
            let bytes = image.fs.contents(&path).unwrap();
            for (number, block) in bytes.chunks(unit).enumerate() {
                blocks.push((path.clone(), number * unit, block.to_vec()));
            }
        }
        let zeros = vec![0; unit];
        let mut turn = 0;
        for (path, start, old) in &blocks {
            for (_, _, new) in blocks.iter().chain([&(PathBuf::new(), 0, zeros.clone())]) {
                turn += 1;
                if turn % effort.blocks == 0 && new != old {
                    let fs = image.fs.fork();
                    fs.overwrite(path, *start, new);
                    let place = (path.as_path(), *start, start + old.len());
                    self.damage_case(image, place, &fs, "another block, or none");
                }
            }
        }
    }

    /// Every file taken away.
    fn losses(&mut self, image: &Image) {
        for path in image.files() {
            let fs = image.fs.fork();
            FileSystem::remove(&fs, &path).unwrap();
            self.damage_case(image, (&path, 0, 0), &fs, "no such file");
        }
    }

    /// Every block as it was after each earlier call, and every file.
    fn stale(&mut self, image: &Image, unit: usize, effort: Effort) {
        let fs = SimFs::new();
        let mut log = open(&fs).unwrap();
        let mut turn = 0;
        for call in &self.calls.clone() {
            log.write(call.clone()).unwrap();
            for path in image.files() {
                let Some(old) = fs.contents(&path) else {
                    continue;
                };
                let new = image.fs.contents(&path).unwrap();
                let len = old.len().min(new.len());
                let differs = |at: &usize| old[*at] != new[*at];
                let Some(first) = (0..len).find(differs) else {
                    continue;
                };
                for start in (first / unit * unit..len).step_by(unit) {
                    let end = (start + unit).min(len);
                    turn += 1;
                    if turn % effort.blocks == 0 && old[start..end] != new[start..end] {
                        let fs = image.fs.fork();
                        fs.overwrite(&path, start, &old[start..end]);
                        self.damage_case(image, (&path, start, end), &fs, "an older block");
                    }
                }
                if turn % effort.blocks == 0 {
                    let fs = image.fs.fork();
                    fs.replace(&path, old);
                    self.damage_case(image, (&path, first, new.len()), &fs, "an older file");
                }
            }
        }
    }

    fn damages(&mut self, effort: Effort) {
        let images = [
            Image::new(self, "killed", false, false),
            Image::new(self, "closed", true, false),
            Image::new(self, "started again", false, true),
        ];
        for (turn, image) in images.iter().enumerate() {
            // What differs between the images is their end; the first is flipped bit by bit.
            let bits = if turn == 0 { effort.bits } else { effort.bits * OTHER_BITS };
            self.flips(image, Effort { bits, ..effort });
            self.losses(image);
            self.blocks(image, BLOCK, effort);
            self.stale(image, BLOCK, effort);
            self.stale(image, SECTOR_LEN, effort);
            println!("damage, {}, and before: {:?}", image.name, self.tally);
        }
    }
}

#[test]
fn a_sample_of_all_crashes_loses_nothing_acknowledged() {
    let mut sweep = Sweep::new();
    sweep.crashes(SAMPLE);
    assert!(sweep.tally.cases > 500, "{:?}", sweep.tally);
}

#[test]
fn a_sample_of_all_damage_is_harmless_or_named() {
    let mut sweep = Sweep::new();
    sweep.damages(SAMPLE);
    let Tally { cases, whole, named, unvouched } = sweep.tally;
    assert!(cases > 500 && whole > 50 && named > 200, "{:?}", sweep.tally);
    assert!(unvouched < cases / 10, "{:?}", sweep.tally);
}

#[test]
#[ignore = "takes minutes"]
fn every_crash_loses_nothing_acknowledged() {
    let mut sweep = Sweep::new();
    sweep.crashes(WHOLE);
    println!("crashes: {:?}", sweep.tally);
}

#[test]
#[ignore = "takes minutes"]
fn every_damage_is_harmless_or_named() {
    let mut sweep = Sweep::new();
    sweep.damages(WHOLE);
    println!("damage: {:?}", sweep.tally);
}
