//! One seed again.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use paxos_core::ids::ReplicaId;
use paxos_core::sim::{Diagram, Limits, Measured, Outcome, Record};

use crate::arguments::Arguments;

/// Runs the seed and tells what came of it.
pub(crate) fn replay(arguments: &Arguments) -> ExitCode {
    let outcome = traced(arguments.first, arguments);
    if let Some(path) = &arguments.trace_out
        && !write(path, &outcome.trace.json())
    {
        return ExitCode::from(2);
    }
    if let Some(path) = &arguments.diagram
        && !write(path, &diagram(&outcome, arguments, path))
    {
        return ExitCode::from(2);
    }
    if arguments.print_hash {
        println!("{:032x}", outcome.hash);
        return verdict(&outcome);
    }
    if arguments.trace {
        print!("{}", outcome.trace);
    }
    println!("{}", outcome.totals);
    println!("seed {}: trace hash {:032x}", outcome.seed, outcome.hash);
    verdict(&outcome)
}

/// The picture of a run, in the form that the file's name asks for.
fn diagram(outcome: &Outcome, arguments: &Arguments, path: &Path) -> String {
    let of = |record: &Record| record.replica.map(ReplicaId::number);
    let replicas = outcome.trace.records().filter_map(of).max().unwrap_or(1);
    let fate = outcome.violation.as_ref().map_or(String::new(), |v| format!(": {v}"));
    let title = format!("seed {}, {replicas} replicas{fate}", outcome.seed);
    let diagram = Diagram::new(&outcome.trace, replicas, &title).last(arguments.last);
    if path.extension().is_some_and(|kind| kind == "html") { diagram.html() } else { diagram.svg() }
}

fn verdict(outcome: &Outcome) -> ExitCode {
    match &outcome.violation {
        Some(violation) => {
            eprintln!("seed {} FAILED: {violation}", outcome.seed);
            ExitCode::FAILURE
        }
        None => ExitCode::SUCCESS,
    }
}

/// Writes a file, and says so if that fails.
fn write(path: &Path, text: &str) -> bool {
    let written = fs::write(path, text);
    if let Err(error) = &written {
        eprintln!("{}: {error}", path.display());
    }
    written.is_ok()
}

/// A run that remembers all its events.
pub(crate) fn traced(seed: u64, arguments: &Arguments) -> Outcome {
    let limits = Limits { trace_capacity: usize::MAX, ..arguments.limits.clone() };
    let Some(case) = arguments.cases().last().copied() else {
        return arguments.depth.run(seed, &limits);
    };
    let Measured { outcome, downtime } = arguments.depth.measure(seed, case, &limits);
    if let Some(downtime) = downtime {
        println!("{} of {} replicas: {downtime}", case.preset, case.replicas);
    }
    outcome
}
