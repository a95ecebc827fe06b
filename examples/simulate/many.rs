//! Many seeds, on all processors.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use paxos_core::sim::{Profile, Totals};

use crate::arguments::Arguments;
use crate::replay::traced;

/// With so many seeds every fault must have been seen.
const SEEDS_TELLING: u64 = 500;
/// After so many failures the rest teaches nothing more.
const FAILURES_MAX: usize = 10;
/// A failed seed shows so many of its last events.
const EVENTS_SHOWN: usize = 60;

/// What came of a range of seeds.
pub(crate) struct Report {
    /// What they saw.
    pub(crate) totals: Totals,
    /// The seeds that broke an invariant, in order.
    pub(crate) failed: Vec<u64>,
    /// How many were to be run.
    pub(crate) asked: u64,
    /// How long it took.
    pub(crate) seconds: f64,
    /// How long processors were busy with it; as long as it took where nobody can say.
    pub(crate) busy: f64,
}

/// How long a processor has been busy with this thread.
fn busy_seconds() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanos: u64 = text.split(' ').next()?.parse().ok()?;
    Some(Duration::from_nanos(nanos).as_secs_f64())
}

/// Runs seeds on as many threads as the arguments say.
pub(crate) fn run_range(first: u64, seeds: u64, arguments: &Arguments) -> Report {
    let start = Instant::now();
    let next = AtomicU64::new(first);
    let failures = AtomicU64::new(0);
    let work = || {
        let began = (Instant::now(), busy_seconds());
        let (mut totals, mut failed) = (Totals::default(), Vec::new());
        while failures.load(Ordering::Relaxed) < FAILURES_MAX as u64 {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + seeds {
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
        let busy = match (began.1, busy_seconds()) {
            (Some(before), Some(after)) => after - before,
            _ => began.0.elapsed().as_secs_f64(),
        };
        (totals, failed, busy)
    };
    let (mut totals, mut failed, mut busy) = (Totals::default(), Vec::new(), 0.0);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..arguments.threads).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            let (more, seeds, time) =
                thread.join().expect("a worker reports failed seeds, never panics");
            totals.add(&more);
            failed.extend(seeds);
            busy += time;
        }
    });
    failed.sort_unstable();
    Report { totals, failed, asked: seeds, seconds: start.elapsed().as_secs_f64(), busy }
}

/// Runs the seeds and tells what they saw.
pub(crate) fn run_many(arguments: &Arguments) -> ExitCode {
    let report = run_range(arguments.first, arguments.seeds, arguments);
    println!("{}", report.totals);
    tell_speed(&report, arguments);
    verdict(&report, arguments)
}

#[expect(clippy::cast_precision_loss, reason = "rates for people")]
fn tell_speed(report: &Report, arguments: &Arguments) {
    let Report { totals, seconds, busy, .. } = report;
    let (seeds, events) = (totals.seeds as f64, totals.events as f64);
    println!(
        "{} seeds in {seconds:.1} s: {:.0} seeds a second; a core runs {:.0} seeds and {:.0} \
         events a second at depth {}",
        totals.seeds,
        seeds / seconds,
        seeds / busy,
        events / busy,
        arguments.depth,
    );
}

fn verdict(report: &Report, arguments: &Arguments) -> ExitCode {
    if !report.failed.is_empty() {
        show_failure(&report.failed, arguments);
        return ExitCode::FAILURE;
    }
    let missing = report.totals.missing();
    // A profile alone need not show every fault; all of them together must.
    let telling =
        report.totals.seeds >= SEEDS_TELLING && arguments.limits.profile == Profile::Mixed;
    if telling && !missing.is_empty() {
        println!("never happened, so nothing is shown about it: {}", missing.join(", "));
        return ExitCode::FAILURE;
    }
    println!("no invariant was broken");
    ExitCode::SUCCESS
}

/// Shows the end of the first of these seeds.
pub(crate) fn show_failure(failed: &[u64], arguments: &Arguments) {
    let Some(seed) = failed.first() else { return };
    println!("\nthe last events of seed {seed}:");
    let trace = traced(*seed, arguments).trace.to_string();
    let lines: Vec<&str> = trace.lines().collect();
    println!("{}", lines[lines.len().saturating_sub(EVENTS_SHOWN)..].join("\n"));
    println!("\nfailed: {failed:?}; replay with --seed {seed} --trace");
}
