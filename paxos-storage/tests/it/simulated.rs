//! Whole clusters under the simulator of the core, on the real log over simulated disks.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use paxos_core::sim::{Limits, Outcome, Totals, run_seed_on};
use paxos_storage::sim::SimWal;

const SEEDS: u64 = 300;

fn run(seed: u64) -> Outcome {
    run_seed_on(seed, &Limits::default(), |format| Box::new(SimWal::new(format)))
}

/// No seed breaks an invariant on the real log. The environment's SEEDS gives another count.
#[test]
fn no_seed_breaks_an_invariant_on_the_real_log() {
    let seeds = std::env::var("SEEDS").map_or(SEEDS, |seeds| seeds.parse().unwrap());
    let mut totals = Totals::default();
    for seed in 0..seeds {
        let outcome = run(seed);
        let violation = outcome.violation;
        assert!(violation.is_none(), "seed {seed}: {violation:?}; simulate --depth log replays it");
        totals.add(&outcome.totals);
    }
    if seeds >= SEEDS {
        assert!(totals.crashes > seeds, "{totals}");
        assert!(totals.torn_tails > seeds / 2, "{totals}");
        assert!(totals.loads > seeds && totals.trims > seeds, "{totals}");
        assert!(totals.disk_faults > seeds && totals.storage_failures > seeds / 4, "{totals}");
        assert!(totals.damage_named > 0 && totals.left_off > 0, "{totals}");
    }
}

#[test]
fn the_same_seed_gives_the_same_run_on_the_real_log() {
    for seed in 0..10 {
        assert_eq!(run(seed).hash, run(seed).hash, "seed {seed}");
    }
}
