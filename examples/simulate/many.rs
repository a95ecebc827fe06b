//! Many seeds, on all processors.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use paxos_core::sim::{Profile, Totals};

use crate::arguments::Arguments;
use crate::replay::traced;

/// With so many seeds every fault must have been seen.
const SEEDS_TELLING: u64 = 500;
/// After so many failures the rest teaches nothing more.
const FAILURES_MAX: usize = 10;
/// A failed seed shows so many of its last events.
const EVENTS_SHOWN: usize = 60;

/// Runs the seeds and tells what they saw.
pub(crate) fn run_many(arguments: &Arguments) -> ExitCode {
    let start = Instant::now();
    let next = AtomicU64::new(arguments.first);
    let end = arguments.first + arguments.seeds;
    let failures = AtomicU64::new(0);
    let work = || {
        let (mut totals, mut failed) = (Totals::default(), Vec::new());
        while failures.load(Ordering::Relaxed) < FAILURES_MAX as u64 {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                break;
            }
            let outcome = arguments.depth.run(seed, &arguments.limits);
            totals.add(&outcome.totals);
            if let Some(violation) = outcome.violation {
                failures.fetch_add(1, Ordering::Relaxed);
                println!("seed {seed} FAILED: {violation}");
                failed.push(seed);
            }
        }
        (totals, failed)
    };
    let (mut totals, mut failed) = (Totals::default(), Vec::new());
    thread::scope(|scope| {
        let threads: Vec<_> = (0..arguments.threads).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            let (more, seeds) = thread.join().expect("a worker reports failed seeds, never panics");
            totals.add(&more);
            failed.extend(seeds);
        }
    });
    let seconds = start.elapsed().as_secs_f64();
    println!("{totals}");
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = totals.seeds as f64 / seconds;
    println!("{} seeds in {seconds:.1} s: {rate:.0} seeds a second", totals.seeds);
    verdict(&totals, failed, arguments)
}

fn verdict(totals: &Totals, mut failed: Vec<u64>, arguments: &Arguments) -> ExitCode {
    failed.sort_unstable();
    if let Some(seed) = failed.first() {
        println!("\nthe last events of seed {seed}:");
        let trace = traced(*seed, arguments).trace.to_string();
        let lines: Vec<&str> = trace.lines().collect();
        println!("{}", lines[lines.len().saturating_sub(EVENTS_SHOWN)..].join("\n"));
        println!("\nfailed: {failed:?}; replay with --seed {seed} --trace");
        return ExitCode::FAILURE;
    }
    let missing = totals.missing();
    // A profile alone need not show every fault; all of them together must.
    let telling = totals.seeds >= SEEDS_TELLING && arguments.limits.profile == Profile::Mixed;
    if telling && !missing.is_empty() {
        println!("never happened, so nothing is shown about it: {}", missing.join(", "));
        return ExitCode::FAILURE;
    }
    println!("no invariant was broken");
    ExitCode::SUCCESS
}
