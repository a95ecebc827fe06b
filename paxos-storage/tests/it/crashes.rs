//! Random histories with power loss at random moments, compared with the log in memory.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use paxos_core::durable::Write;
use paxos_core::ids::{Incarnation, ReplicaId, Slot};
use paxos_core::port::{Recovered, Storage, StorageError};
use paxos_core::value::Value;
use paxos_storage::MemoryStorage;
use paxos_storage::sim::SimFs;

use crate::support::{Open, accepted, ballot, facts, format, open, value};

/// `xorshift64*`: enough for a test, and the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}

/// Makes up what a replica might write. Not a protocol: slots and ballots move forward somehow.
#[derive(Default)]
struct Story {
    slot: u64,
    committed: u64,
    trimmed: u64,
    round: u64,
}

impl Story {
    fn next(&mut self, random: &mut Random) -> Write {
        match random.below(20) {
            0 => {
                self.round += 1;
                Write::Promised(ballot(self.round))
            }
            1 => Write::Peer {
                peer: ReplicaId::new(random.below(3) as u16),
                incarnation: Incarnation::new(random.below(9) as u32, 7),
            },
            2 | 3 => {
                self.committed += random.below(self.slot - self.committed + 1);
                Write::Committed(Slot::new(self.committed))
            }
            4 => {
                self.trimmed += random.below(self.committed - self.trimmed + 1);
                Write::Trimmed(Slot::new(self.trimmed))
            }
            5..=7 => {
                let slot = self.trimmed + 1 + random.below(self.slot - self.trimmed + 3);
                self.slot = self.slot.max(slot);
                Write::Chosen {
                    slot: Slot::new(slot),
                    value: some_value(random),
                }
            }
            _ => {
                let back = random.below(4).min(self.slot - self.trimmed);
                let slot = self.slot + 1 - back;
                self.slot = self.slot.max(slot);
                self.round += random.below(2);
                accepted(slot, self.round, some_value(random))
            }
        }
    }
}

/// No two are equal, so that a fact that is lost cannot hide behind another.
fn some_value(random: &mut Random) -> Value {
    let seed = random.below(u64::MAX >> 33);
    match random.below(12) {
        0 => value(seed, 20_000 + random.below(60_000) as usize),
        _ => value(seed, random.below(1500) as usize),
    }
}

/// Every value that can be loaded, holes or not.
fn load_all(log: &mut Open<impl Storage>, last: u64) -> Result<Vec<(u64, Value)>, StorageError> {
    let first = log.recovered.trimmed.next().number();
    let mut all = Vec::new();
    for slot in first..=last {
        let values = log.try_load(slot, slot)?.values;
        all.extend(values.into_iter().map(|value| (slot, value)));
    }
    Ok(all)
}

/// What the log in memory says after these facts: its recovery, and all that can be loaded.
fn expected(facts_so_far: &[Write], last: u64) -> (Recovered, Vec<(u64, Value)>) {
    let mut model = Open::recover(MemoryStorage::formatted(format())).unwrap();
    model.write(facts_so_far.to_vec()).unwrap();
    let kept = model.storage.clone();
    drop(model);
    let mut model = Open::recover(kept).unwrap();
    let loaded = load_all(&mut model, last).unwrap();
    (facts(&model.recovered), loaded)
}

/// One story of several lives; returns how many facts were lost, and how many torn ends were seen.
fn run(seed: u64) -> (usize, usize) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9) | 1);
    let fs = SimFs::new();
    if seed.is_multiple_of(3) {
        fs.disturb();
    }
    let mut story = Story::default();
    let mut attempted: Vec<Write> = Vec::new();
    let mut proved = 0;
    let (mut lost, mut torn) = (0, 0);
    for _ in 0..6 {
        if random.below(4) == 0 {
            // The power may go during the recovery as well.
            fs.cut_power_after(random.below(25));
        }
        let mut log = match open(&fs) {
            Ok(log) => log,
            Err(StorageError::Io { .. }) => {
                fs.crash(random.below(u64::MAX >> 33));
                continue;
            }
            Err(error) => panic!("seed {seed}: {error}"),
        };
        let found = facts(&log.recovered);
        let Ok(loaded) = load_all(&mut log, story.slot) else {
            fs.crash(random.below(u64::MAX >> 33));
            continue;
        };
        let survivors = (proved..=attempted.len()).find(|count| {
            expected(&attempted[..*count], story.slot) == (found.clone(), loaded.clone())
        });
        let Some(survivors) = survivors else {
            let attempted = attempted.len();
            panic!("seed {seed}: not one of the prefixes of {proved} to {attempted}: {found:?}")
        };
        lost += attempted.len() - survivors;
        attempted.truncate(survivors);
        proved = survivors;
        torn = fs
            .files()
            .iter()
            .filter(|path| path.extension().is_some_and(|e| e == "torn"))
            .count();
        fs.cut_power_after(random.below(60));
        for _ in 0..40 {
            let count = random.below(8) as usize;
            let writes: Vec<_> = (0..count).map(|_| story.next(&mut random)).collect();
            attempted.extend(writes.iter().cloned());
            if log.write(writes).is_err() {
                break;
            }
            proved = attempted.len();
        }
        if random.below(3) == 0 {
            fs.kill();
        } else {
            fs.crash(random.below(u64::MAX >> 33));
        }
    }
    (lost, torn)
}

#[test]
fn whatever_was_proved_survives_any_crash_and_the_rest_is_a_prefix() {
    let (mut lost, mut torn) = (0, 0);
    for seed in 0..2000 {
        let (lost_here, torn_here) = run(seed);
        lost += lost_here;
        torn += torn_here;
    }
    assert!(lost > 100, "the crashes hit writes: {lost} facts lost");
    assert!(torn > 100, "some were torn: {torn}");
}
