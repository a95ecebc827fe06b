//! Exhaustive small worlds: every order of events that three replicas can see, under the real code.
//!
//! ```text
//! cargo run --release --example model -- --world s
//! ```
//!
//! The production `Replica` answers every message, proof, crash, campaign and request in every order
//! that a part allows; the model decides when, and is the network, the disk and the clients. Safety
//! is judged after each step, by what was ever durable and ever sent. See docs/protocol.md §15 for
//! the invariants and docs/verification.md for what the worlds cover.
//!
//! Exits with 1 if an invariant was broken, if a world has another number of states than is pinned
//! here, or if a rule that it must show never came into play; with 2 if the arguments make no
//! sense.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program talks to its user")]

mod check;
mod disk;
mod marks;
mod members;
mod node;
mod observe;
mod scope;
mod table;
mod world;

use std::env;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::thread::sleep;
use std::time::{Duration, Instant};

use stateright::{Checker, Model};

use crate::marks::{Mark, Marks};
use crate::scope::{Part, WORLDS};
use crate::world::Worlds;

const USAGE: &str =
    "model --world s|s1|s2|s3 [--part N] [--threads T] [--states-max N] [--judge all|agreement]

--world s     one slot, two candidates, a crash
--world s1    three ballots
--world s2    two slots, with a gap
--world s3    changes of the membership, with a stale candidate
--part N      only the Nth part of the world; nothing is said then of what it must show
--states-max  cuts each part short after so many states; nothing is pinned then
--judge       agreement: looks only for two replicas that apply different values";

/// How often a long walk says how far it is.
const PROGRESS: Duration = Duration::from_secs(20);

struct Arguments {
    world: &'static scope::World,
    part: Option<usize>,
    threads: usize,
    states_max: Option<usize>,
    only_agreement: bool,
}

fn parse() -> Result<Arguments, String> {
    let mut world = None;
    let (mut part, mut threads, mut states_max) = (None, 2, None);
    let mut only_agreement = false;
    let mut arguments = env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
        let number = || value.parse::<usize>().ok().filter(|number| *number > 0);
        let number = || number().ok_or_else(|| format!("{name} needs a number above 0"));
        match name.as_str() {
            "--world" => {
                let known = WORLDS.iter().find(|known| known.name == value);
                world = Some(known.ok_or_else(|| format!("there is no world {value}"))?);
            }
            "--part" => part = Some(number()?),
            "--threads" => threads = number()?,
            "--states-max" => states_max = Some(number()?),
            "--judge" if value == "all" => only_agreement = false,
            "--judge" if value == "agreement" => only_agreement = true,
            _ => return Err(format!("unknown argument {name} {value}")),
        }
    }
    let world = world.ok_or("which world?")?;
    if part.is_some_and(|part| part > world.parts.len()) {
        return Err(format!("world {} has {} parts", world.name, world.parts.len()));
    }
    Ok(Arguments { world, part, threads, states_max, only_agreement })
}

fn main() -> ExitCode {
    match parse() {
        Ok(arguments) => run(&arguments),
        Err(error) => {
            eprintln!("{error}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> ExitCode {
    table::silence_panics_of_nodes();
    let mut seen = Marks::default();
    let mut whole = true;
    for (index, part) in arguments.world.parts.iter().enumerate() {
        if arguments.part.is_some_and(|only| only != index + 1) {
            continue;
        }
        println!("world {}, part {}: {}", arguments.world.name, index + 1, part.name);
        match walk(part, arguments) {
            Ok(walked) => {
                seen.0 |= walked.marks.0;
                whole &= walked.exhausted || part.states.is_none();
            }
            Err(failure) => {
                println!("{failure}");
                return ExitCode::FAILURE;
            }
        }
    }
    println!("rules at work:");
    for (_, text) in Mark::ALL.into_iter().filter(|(mark, _)| seen.contains(*mark)) {
        println!("  {text}");
    }
    let missing: Vec<_> =
        arguments.world.shows.iter().filter(|mark| !seen.contains(**mark)).collect();
    if whole && arguments.part.is_none() && arguments.states_max.is_none() && !missing.is_empty() {
        for mark in missing {
            println!("never came into play: {}", mark.text());
        }
        return ExitCode::FAILURE;
    }
    println!("no invariant was broken");
    ExitCode::SUCCESS
}

struct Walked {
    marks: Marks,
    exhausted: bool,
}

/// Visits every state of a part, or as many as are allowed.
fn walk(part: &Part, arguments: &Arguments) -> Result<Walked, String> {
    let states_max = arguments.states_max.unwrap_or(part.states_max).min(part.states_max);
    let start = Instant::now();
    let mut told = start;
    let checker = Worlds::new(part.scope, arguments.only_agreement)
        .checker()
        .threads(arguments.threads)
        .spawn_dfs();
    let worlds = checker.model();
    while !checker.is_done() {
        sleep(Duration::from_millis(20));
        if checker.unique_state_count() >= states_max {
            worlds.enough.store(true, Ordering::Relaxed);
        }
        if told.elapsed() > PROGRESS {
            told = Instant::now();
            eprintln!("  {} states so far", checker.unique_state_count());
        }
    }
    let states = checker.unique_state_count();
    let seconds = start.elapsed().as_secs_f64();
    let exhausted = !worlds.enough.load(Ordering::Relaxed);
    let (nodes, messages, answers) = worlds.table.sizes();
    println!(
        "  {states} states{}, {} steps, {} deep, in {seconds:.1} s; {nodes} states of a replica, \
         {messages} messages, {answers} answers of the code",
        if exhausted { "" } else { " (cut short)" },
        checker.state_count(),
        checker.max_depth(),
    );
    if let Some(path) = checker.discovery("no fault") {
        let fault = worlds.fault_text(path.last_state()).unwrap_or_default();
        let steps = path.into_actions().into_iter();
        let steps: Vec<_> = steps.map(|step| format!("  {}", worlds.describe(step))).collect();
        return Err(format!("BROKEN: {fault}\nafter these steps:\n{}", steps.join("\n")));
    }
    let compared = worlds.table.check_twins()?;
    println!("  {compared} answers are the same from replicas that differ in time and counters");
    match part.states {
        Some(pinned) if exhausted && states != pinned => Err(format!(
            "this part has {states} states, and {pinned} are pinned: the protocol, or the model, \
             allows other worlds than before. If that was meant, look at what has changed, and \
             write the new count into examples/model/scope.rs"
        )),
        Some(_) | None => Ok(Walked { marks: worlds.table.marks(), exhausted }),
    }
}
