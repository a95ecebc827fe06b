//! Breaks one rule at a time, and asks whether the tests notice.
//!
//! ```text
//! cargo run --release --example mutants -- --check            every patch applies
//! cargo run --release --example mutants                       every mutant, in its layers
//! cargo run --release --example mutants -- --only promise     those whose name contains a word
//! cargo run --release --example mutants -- --sample 4 --salt HASH
//! ```
//!
//! Each mutant is a patch under `mutants/`, applied in a scratch copy of the tree below `target/`,
//! which has a target directory of its own, so that nothing here can spoil a build. A mutant is
//! caught if every layer that its header names fails on it, while the unbroken copy passes.
//!
//! Exits with 1 if one survived, did not build or no longer applies; with 2 if the arguments make
//! no sense or the unbroken copy fails.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program talks to its user")]

mod layer;
mod patch;
mod process;
mod scratch;
mod table;

use std::collections::BTreeSet;
use std::env;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use layer::{Layer, SEEDS, Seen, Workshop};
use patch::{Kind, Mutant};
use scratch::Scratch;
use table::Row;

const USAGE: &str =
    "mutants [--only WORD]... [--from NAME] [--sample N --salt TEXT] [--layer NAME] [--seeds N]
        [--pending] [--no-baseline] [--lane NAME] [--write-table] [--check]

--only WORD     the mutants whose name contains the word; may be repeated
--from NAME     those whose name does not come before this one
--sample N      N of them, drawn by --salt (a commit's hash, say)
--layer NAME    only this layer, on every mutant, whatever its header says
--seeds N       how many seeds each layer of seeds runs at most (default 2000,
                or what the patch's header says)
--pending       those under mutants/pending/, which are not counted yet
--no-baseline   do not run the layers on the unbroken copy first
--lane NAME     works in a scratch copy of that name: two runs at once need two
--write-table   writes the rows of this run into mutants/TABLE.md
--check         only says whether every patch has a whole header and applies";

/// The fewest mutants that the directory must hold, and the most that a compiler may catch.
const MUTANTS_MIN: usize = 64;
const COMPILE_MAX: usize = 10;

/// Which patches are run.
#[derive(Clone, Copy, Default, Eq, PartialEq)]
enum Which {
    #[default]
    Counted,
    Pending,
}

#[derive(Default)]
struct Arguments {
    only: Vec<String>,
    from: String,
    sample: Option<(usize, String)>,
    layer: Option<Layer>,
    seeds: Option<u64>,
    which: Which,
    no_baseline: bool,
    lane: Option<String>,
    write_table: bool,
    check: bool,
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Option<Arguments>, String> {
    let mut arguments = Arguments::default();
    let (mut count, mut salt) = (None, None);
    while let Some(word) = words.next() {
        let mut next = || words.next().ok_or(format!("{word} needs a value"));
        match word.as_str() {
            "--only" => arguments.only.push(next()?),
            "--from" => arguments.from = next()?,
            "--sample" => count = Some(number(&next()?)?),
            "--salt" => salt = Some(next()?),
            "--layer" => arguments.layer = Some(Layer::parse(&next()?)?),
            "--seeds" => arguments.seeds = Some(number(&next()?)?),
            "--pending" => arguments.which = Which::Pending,
            "--no-baseline" => arguments.no_baseline = true,
            "--lane" => arguments.lane = Some(next()?),
            "--write-table" => arguments.write_table = true,
            "--check" => arguments.check = true,
            "--help" | "-h" => return Ok(None),
            _ => return Err(format!("what is {word}?")),
        }
    }
    arguments.sample = match (count, salt) {
        (None, None) => None,
        (Some(count), Some(salt)) => Some((count as usize, salt)),
        _ => return Err("--sample and --salt go together".to_owned()),
    };
    if (arguments.layer.is_some() || arguments.which == Which::Pending) && arguments.write_table {
        return Err("the table is of counted mutants in their own layers".to_owned());
    }
    Ok(Some(arguments))
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{text} is not a number"))
}

fn main() -> ExitCode {
    let arguments = match parse(env::args().skip(1)) {
        Ok(Some(arguments)) => arguments,
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("{error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

/// Returns whether all is well.
fn run(arguments: &Arguments) -> Result<bool, String> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let mut all = patch::read_all(&root.join("mutants"))?;
    let pending = patch::read_all(&root.join("mutants/pending"))?;
    let mut scratch = Scratch::open(&root, arguments.lane.as_deref())?;
    if arguments.check {
        return Ok(check(&all, &pending, &scratch));
    }
    if arguments.which == Which::Pending {
        all = pending;
    }
    let chosen = choose(&all, arguments);
    if chosen.is_empty() {
        return Err("no mutant has such a name".to_owned());
    }
    let workshop = Workshop::new(scratch.tree(), scratch.target());
    let layers_of = |mutant: &Mutant| {
        arguments.layer.map_or_else(|| mutant.layers.clone(), |layer| vec![layer])
    };
    if !arguments.no_baseline {
        baseline(&workshop, &chosen.iter().flat_map(|mutant| layers_of(mutant)).collect())?;
    }
    let mut rows = Vec::new();
    for mutant in chosen {
        let start = Instant::now();
        let row = match scratch.apply(mutant) {
            Ok(()) => {
                let seeds = arguments.seeds.or(mutant.seeds).unwrap_or(SEEDS);
                let found = judge(&workshop, layers_of(mutant), seeds);
                Row { mutant, found, seconds: start.elapsed().as_secs_f64() }
            }
            Err(why) => {
                let found = vec![(Layer::Compile, Seen::DoesNotApply(why))];
                Row { mutant, found, seconds: start.elapsed().as_secs_f64() }
            }
        };
        scratch.restore()?;
        println!("{row}");
        rows.push(row);
        if arguments.write_table {
            // After each: a run that is cut short keeps what it found.
            table::write(&root.join("mutants/TABLE.md"), &rows, &all)?;
        }
    }
    let caught = rows.iter().filter(|row| row.is_caught()).count();
    println!("total {} caught {caught}", rows.len());
    Ok(caught == rows.len())
}

/// Runs layer after layer, to the first that lets the mutant pass: it has survived then.
fn judge(workshop: &Workshop, layers: Vec<Layer>, seeds: u64) -> Vec<(Layer, Seen)> {
    let mut found = Vec::new();
    for layer in layers {
        let seen = workshop.run(layer, seeds);
        let passed = matches!(seen, Seen::Survived { .. } | Seen::DoesNotBuild(_));
        found.push((layer, seen));
        if passed {
            break;
        }
    }
    found
}

/// Whether the directory keeps its promises, without building anything.
fn check(all: &[Mutant], pending: &[Mutant], scratch: &Scratch) -> bool {
    let mut faults = Vec::new();
    for mutant in all.iter().chain(pending) {
        if let Err(why) = scratch.check(mutant) {
            faults.push(format!("{} no longer applies: {why}", mutant.name));
        }
        if mutant.kind == Kind::Safety && mutant.layers.len() < 2 {
            faults.push(format!("{}: a broken safety rule must die in two layers", mutant.name));
        }
        if (mutant.kind == Kind::Compile) != (mutant.layers == [Layer::Compile]) {
            faults.push(format!("{}: the compiler catches its own kind and no other", mutant.name));
        }
    }
    let compiled = all.iter().filter(|mutant| mutant.kind == Kind::Compile).count();
    if compiled > COMPILE_MAX {
        faults.push(format!("{compiled} mutants are for the compiler, {COMPILE_MAX} at most may"));
    }
    if all.len() < MUTANTS_MIN {
        faults.push(format!("{} mutants, and at least {MUTANTS_MIN} are due", all.len()));
    }
    for fault in &faults {
        println!("{fault}");
    }
    println!("total {} pending {} faults {}", all.len(), pending.len(), faults.len());
    faults.is_empty()
}

fn choose<'a>(all: &'a [Mutant], arguments: &Arguments) -> Vec<&'a Mutant> {
    let wanted = |mutant: &&Mutant| {
        let only = &arguments.only;
        let named = only.is_empty() || only.iter().any(|word| mutant.name.contains(word));
        named && mutant.name >= arguments.from
    };
    let mut chosen: Vec<_> = all.iter().filter(wanted).collect();
    if let Some((count, salt)) = &arguments.sample {
        chosen.sort_by_key(|mutant| scratch::hash(&[salt.as_bytes(), mutant.name.as_bytes()]));
        chosen.truncate(*count);
        chosen.sort_by(|one, other| one.name.cmp(&other.name));
    }
    chosen
}

/// A layer that fails on the unbroken copy would call everything caught.
fn baseline(workshop: &Workshop, layers: &BTreeSet<Layer>) -> Result<(), String> {
    for layer in layers {
        let seen = workshop.run(*layer, SEEDS);
        let Seen::Survived { seconds } = seen else {
            return Err(format!("the unbroken copy does not pass {layer}: {seen}"));
        };
        println!("the unbroken copy passes {layer} [{seconds:.1} s]");
    }
    Ok(())
}
