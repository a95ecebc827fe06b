//! Random runs. `SEEDS` sets how many, `FIRST_SEED` where they begin.

use std::env;

use paxos_core::sim::{Limits, Mark, Profile, Totals, run_seed};

fn from_env(name: &str, usual: u64) -> u64 {
    env::var(name).map_or(usual, |text| {
        text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text}"))
    })
}

#[test]
fn no_seed_breaks_an_invariant_and_together_they_show_every_fault() {
    let (first, seeds) = (from_env("FIRST_SEED", 0), from_env("SEEDS", 500));
    let mut totals = Totals::default();
    for seed in first..first + seeds {
        let outcome = run_seed(seed, &Limits::default());
        totals.add(&outcome.totals);
        if let Some(violation) = outcome.violation {
            panic!(
                "seed {seed}: {violation}\n\
                 replay: cargo run --release --example simulate -- --seed {seed} --trace"
            );
        }
    }
    if seeds >= 500 {
        assert_eq!(totals.missing(), Vec::<String>::new(), "{totals}");
    }
}

/// Fewer places and more changes than elsewhere: a seed in four has changes at all.
#[test]
fn r47_members_come_and_go_while_everything_else_goes_wrong() {
    let (first, seeds) = (from_env("FIRST_SEED", 0), from_env("SEEDS", 200));
    let (mut totals, mut failures) = (Totals::default(), Vec::new());
    for profile in [Profile::Uniform, Profile::Swarm] {
        let limits = Limits { profile, replicas_max: 5, leases: false, ..Limits::default() };
        for seed in first..first + seeds {
            let outcome = run_seed(seed, &limits);
            totals.add(&outcome.totals);
            failures.extend(outcome.violation.map(|wrong| format!("{profile} {seed}: {wrong}")));
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
    if seeds >= 200 {
        let met = |mark| totals.marks.count(mark);
        let all = [Mark::MembershipGoverns, Mark::Promoted, Mark::RemovedTold, Mark::WindowFilled];
        for mark in all {
            assert!(met(mark) > 10, "{mark:?}: {totals}");
        }
        assert!(totals.removals > 10 && totals.changes > 100, "{totals}");
    }
}

#[test]
fn six_to_nine_replicas_do_as_well() {
    let limits = Limits { replicas_min: 6, ..Limits::default() };
    for seed in 0..20 {
        let outcome = run_seed(seed, &limits);
        assert_eq!(outcome.violation, None, "seed {seed} with 6 to 9 replicas");
    }
}

#[test]
fn the_same_seed_gives_the_same_run_to_the_last_event() {
    for seed in 0..20 {
        let (one, two) = (run_seed(seed, &Limits::default()), run_seed(seed, &Limits::default()));
        assert_eq!(one.hash, two.hash, "seed {seed}");
        assert_eq!(one.totals, two.totals, "seed {seed}");
        let other = run_seed(seed + 1, &Limits::default());
        assert_ne!(one.hash, other.hash, "seeds {seed} and {}", seed + 1);
    }
}

#[test]
fn a_trace_tells_what_happened_and_does_not_change_it() {
    let limits = Limits { trace_capacity: 100, ..Limits::default() };
    let (silent, told) = (run_seed(3, &Limits::default()), run_seed(3, &limits));
    assert_eq!(silent.hash, told.hash);
    assert_eq!(silent.trace.records().len(), 0);
    assert_eq!(told.trace.to_string().lines().count(), 100);
}
