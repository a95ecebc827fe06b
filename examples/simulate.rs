//! Runs simulated clusters from seeds, and prints every seed that breaks an invariant.
//!
//! ```text
//! cargo run --release --example simulate -- --seeds 1000
//! cargo run --release --example simulate -- --seed 42 --trace
//! ```
//!
//! Exits with 1 if a seed failed, or if many seeds never showed a fault that they must show; with
//! 2 if the arguments make no sense.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program talks to its user")]

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use std::{env, thread};

use paxos_core::sim::{Limits, Outcome, Totals, run_seed, run_seed_on};
use paxos_storage::sim::SimWal;

const USAGE: &str = "simulate [--seeds N] [--first-seed S] [--threads T] [--replicas-max R] \
                     [--commands C] [--no-codec] [--depth core|log]
simulate --seed N [--trace]     replays one seed

--depth core    on disks that lose any suffix of what was not proved (the default)
--depth log     on the write-ahead log, over disks that lose any sector that was not synced";

/// With so many seeds every fault must have been seen.
const SEEDS_TELLING: u64 = 500;
/// After so many failures the rest teaches nothing more.
const FAILURES_MAX: usize = 10;
/// A failed seed shows so many of its last events.
const EVENTS_SHOWN: usize = 60;

struct Arguments {
    first: u64,
    seeds: u64,
    threads: usize,
    trace: bool,
    replay: bool,
    depth: Depth,
    limits: Limits,
}

/// How much of a replica is real.
#[derive(Clone, Copy)]
enum Depth {
    /// The protocol.
    Core,
    /// The protocol and the write-ahead log.
    Log,
}

impl Depth {
    fn run(self, seed: u64, limits: &Limits) -> Outcome {
        match self {
            Self::Core => run_seed(seed, limits),
            Self::Log => run_seed_on(seed, limits, |format| Box::new(SimWal::new(format))),
        }
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Option<Arguments>, String> {
    let mut arguments = Arguments {
        first: 0,
        seeds: 1000,
        threads: thread::available_parallelism().map_or(1, usize::from),
        trace: false,
        replay: false,
        depth: Depth::Core,
        limits: Limits::default(),
    };
    while let Some(word) = words.next() {
        let mut number = |low: u64, high: u64| {
            let text = words.next().ok_or(format!("{word} needs a number"))?;
            let number = text.parse().ok().filter(|n| (low..=high).contains(n));
            number.ok_or(format!("{word} takes {low} to {high}, not {text}"))
        };
        match word.as_str() {
            "--seeds" => arguments.seeds = number(1, u64::MAX)?,
            "--first-seed" => arguments.first = number(0, u64::MAX)?,
            "--seed" => {
                arguments.first = number(0, u64::MAX)?;
                arguments.replay = true;
            }
            "--threads" => arguments.threads = number(1, 1024)? as usize,
            "--replicas-max" => arguments.limits.replicas_max = number(1, 9)? as u16,
            "--commands" => arguments.limits.commands = number(1, 1_000_000)?,
            "--no-codec" => arguments.limits.codec = false,
            "--depth" => {
                arguments.depth = match words.next().as_deref() {
                    Some("core") => Depth::Core,
                    Some("log") => Depth::Log,
                    _ => return Err("--depth takes core or log".to_owned()),
                }
            }
            "--trace" => arguments.trace = true,
            "--help" | "-h" => return Ok(None),
            _ => return Err(format!("what is {word}?")),
        }
    }
    if arguments.trace && !arguments.replay {
        return Err("--trace goes with --seed".to_owned());
    }
    if arguments.first.checked_add(arguments.seeds).is_none() {
        return Err("there are no seeds that high".to_owned());
    }
    Ok(Some(arguments))
}

fn main() -> ExitCode {
    match parse(env::args().skip(1)) {
        Ok(Some(arguments)) if arguments.replay => replay(&arguments),
        Ok(Some(arguments)) => run_many(&arguments),
        Ok(None) => {
            println!("{USAGE}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn replay(arguments: &Arguments) -> ExitCode {
    let outcome = traced(arguments.first, arguments);
    if arguments.trace {
        print!("{}", outcome.trace);
    }
    println!("{}", outcome.totals);
    println!("seed {}: trace hash {:016x}", outcome.seed, outcome.hash);
    match outcome.violation {
        Some(violation) => {
            println!("seed {} FAILED: {violation}", outcome.seed);
            ExitCode::FAILURE
        }
        None => ExitCode::SUCCESS,
    }
}

fn traced(seed: u64, arguments: &Arguments) -> Outcome {
    let limits = Limits { trace_capacity: usize::MAX, ..arguments.limits.clone() };
    arguments.depth.run(seed, &limits)
}

fn run_many(arguments: &Arguments) -> ExitCode {
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
        let trace = traced(*seed, arguments).trace;
        let lines: Vec<&str> = trace.lines().collect();
        println!("{}", lines[lines.len().saturating_sub(EVENTS_SHOWN)..].join("\n"));
        println!("\nfailed: {failed:?}; replay with --seed {seed} --trace");
        return ExitCode::FAILURE;
    }
    let missing = totals.missing();
    if totals.seeds >= SEEDS_TELLING && !missing.is_empty() {
        println!("never happened, so nothing is shown about it: {}", missing.join(", "));
        return ExitCode::FAILURE;
    }
    println!("no invariant was broken");
    ExitCode::SUCCESS
}
