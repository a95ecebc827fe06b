//! The trace: one seed, one hash, wherever it runs.

#![expect(clippy::print_stdout, reason = "one process tells another its hashes")]

use std::collections::BTreeMap;
use std::env;
use std::process::Command;

use paxos_core::sim::{Limits, run_seed};
use paxos_core::trace::Event;

/// Set in the process that this test starts, so that it tells its hashes and starts no other.
const CHILD: &str = "PAXOS_TRACE_CHILD";
const SEEDS: u64 = 12;

fn hashes() -> BTreeMap<u64, String> {
    let hash = |seed| format!("{:032x}", run_seed(seed, &Limits::default()).hash);
    (0..SEEDS).map(|seed| (seed, hash(seed))).collect()
}

#[test]
fn a_seed_has_one_hash_twice_in_a_process_and_in_two_processes() {
    let own = hashes();
    if env::var_os(CHILD).is_some() {
        for (seed, hash) in own {
            println!("\nhash {seed} {hash}");
        }
        return;
    }
    assert_eq!(own, hashes());
    let distinct: std::collections::BTreeSet<_> = own.values().collect();
    assert_eq!(distinct.len(), own.len(), "{own:?}");
    let name = "traces::a_seed_has_one_hash_twice_in_a_process_and_in_two_processes";
    let output = Command::new(env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let told = text.lines().filter_map(|line| line.strip_prefix("hash "));
    let other: BTreeMap<u64, String> = told
        .map(|line| {
            let (seed, hash) = line.split_once(' ').unwrap();
            (seed.parse().unwrap(), hash.to_owned())
        })
        .collect();
    assert_eq!(own, other, "{text}");
}

#[test]
fn messages_as_bytes_and_as_they_are_make_the_same_run() {
    for seed in 0..5 {
        let limits = Limits { trace_capacity: usize::MAX, ..Limits::default() };
        let bytes = run_seed(seed, &limits);
        let shared = run_seed(seed, &Limits { codec: false, ..limits });
        assert_eq!(bytes.trace.to_string(), shared.trace.to_string(), "seed {seed}");
        assert_ne!(bytes.hash, shared.hash, "a packet is another thing than a message");
    }
}

#[test]
fn the_trace_and_the_totals_tell_the_same() {
    let limits = Limits { trace_capacity: usize::MAX, ..Limits::default() };
    for seed in 0..10 {
        let outcome = run_seed(seed, &limits);
        let count = |wanted: fn(&Event) -> bool| {
            outcome.trace.records().filter(|record| wanted(&record.event)).count() as u64
        };
        let totals = &outcome.totals;
        assert_eq!(outcome.trace.records().len() as u64, totals.events, "seed {seed}");
        assert_eq!(count(|event| matches!(event, Event::Crashed { .. })), totals.crashes);
        assert_eq!(count(|event| matches!(event, Event::Paused { .. })), totals.pauses);
        assert_eq!(count(|event| matches!(event, Event::Received { .. })), totals.delivered);
        assert_eq!(count(|event| matches!(event, Event::Load { .. })), totals.loads);
        assert_eq!(outcome.trace.json().lines().count() as u64, totals.events, "seed {seed}");
    }
}
