//! One seed again.

use std::process::ExitCode;

use paxos_core::sim::{Limits, Outcome};

use crate::arguments::Arguments;

/// Runs the seed and tells what came of it.
pub(crate) fn replay(arguments: &Arguments) -> ExitCode {
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

/// A run that remembers all its events.
pub(crate) fn traced(seed: u64, arguments: &Arguments) -> Outcome {
    let limits = Limits { trace_capacity: usize::MAX, ..arguments.limits.clone() };
    arguments.depth.run(seed, &limits)
}
