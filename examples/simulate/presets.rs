//! How long clusters do not serve when some of their links break, as a table.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use paxos_core::sim::{Case, Downtime, SERVE_WITHIN, STAY};

use crate::arguments::Arguments;

/// What came of all seeds of a case.
#[derive(Default)]
struct Row {
    measured: Vec<Downtime>,
    failed: Vec<(u64, String)>,
}

/// Measures every case, and prints a line for each.
pub(crate) fn run_presets(arguments: &Arguments) -> ExitCode {
    println!(
        "down-time in election timeouts, {} seeds each, at depth {}; bounds: {SERVE_WITHIN} to \
         serve and to settle, then {STAY} without a campaign\n",
        arguments.seeds, arguments.depth
    );
    println!(
        "| preset | replicas | down: median | 99 % | worst | settled: worst | elections: mean | most | slowest command |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    let mut failed = false;
    for case in arguments.cases() {
        let Row { mut measured, failed: seeds } = run_case(case, arguments);
        println!("{}", line(case, &mut measured));
        for (seed, why) in &seeds {
            println!("seed {seed} FAILED: {why}");
            failed = true;
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn run_case(case: Case, arguments: &Arguments) -> Row {
    let next = AtomicU64::new(arguments.first);
    let row = Mutex::new(Row::default());
    let end = arguments.first + arguments.seeds;
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                break;
            }
            let run = arguments.depth.measure(seed, case, &arguments.limits);
            let mut row = row.lock().expect("a worker never panics while it holds the lock");
            row.measured.extend(run.downtime);
            let violation = run.outcome.violation.map(|violation| (seed, violation.to_string()));
            row.failed.extend(violation);
        }
    };
    thread::scope(|scope| {
        for _ in 0..arguments.threads {
            scope.spawn(work);
        }
    });
    let mut row = row.into_inner().expect("a worker never panics while it holds the lock");
    row.failed.sort_unstable();
    row
}

#[expect(clippy::cast_precision_loss, reason = "a mean for people")]
fn line(case: Case, measured: &mut [Downtime]) -> String {
    let Case { preset, replicas } = case;
    let Some(unit) = measured.first().map(|downtime| downtime.election_timeout) else {
        return format!("| {preset} | {replicas} | - | - | - | - | - | - | - |");
    };
    let in_units = |duration: Duration| duration.as_secs_f64() / unit.as_secs_f64();
    let worst =
        |of: fn(&Downtime) -> Duration| in_units(measured.iter().map(of).max().unwrap_or_default());
    let (settled, slowest) = (worst(|one| one.settled), worst(|one| one.slowest));
    let elections: u64 = measured.iter().map(|one| one.elections).sum();
    let most = measured.iter().map(|one| one.elections).max().unwrap_or_default();
    let mean = elections as f64 / measured.len() as f64;
    measured.sort_by_key(|one| one.down);
    let at = |share: usize| in_units(measured[(measured.len() - 1) * share / 100].down);
    format!(
        "| {preset} | {replicas} | {:.2} | {:.2} | {:.2} | {settled:.2} | {mean:.2} | {most} | \
         {slowest:.2} |",
        at(50),
        at(99),
        at(100),
    )
}
