//! Every input of every corpus, as it is and with a few changes.

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use paxos_core::sim::Rng;

use crate::targets::{self, Target};

/// Corpora are for reading: what is found twice is kept once.
const CORPUS_BYTES_MAX: u64 = 24 << 10;

pub(crate) fn fuzz_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// The inputs of a target with their names, in order.
pub(crate) fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let dir = fuzz_dir().join("corpus").join(target);
    names(&dir)
        .into_iter()
        .map(|name| {
            let input = fs::read(dir.join(&name)).expect("a corpus holds files that can be read");
            (format!("{target}/{name}"), input)
        })
        .collect()
}

fn names(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let name = |entry: fs::DirEntry| entry.file_name().into_string().expect("names are text");
    entries.map(|entry| name(entry.expect("a directory is read to its end"))).collect()
}

/// Runs a target, with what it was given in the message of the panic.
fn run(target: Target, name: &str, input: &[u8]) {
    let outcome = catch_unwind(|| target(input));
    let shown = input.escape_ascii();
    assert!(outcome.is_ok(), "{name} fails, for the reason above; its bytes: {shown}");
}

/// Whether `CORPUS` asks for this input, or for none in particular.
fn is_wanted(name: &str) -> bool {
    std::env::var("CORPUS").map_or(true, |wanted| name.starts_with(&wanted))
}

/// Nothing that was found comes back.
#[test]
fn every_input_of_every_corpus_passes() {
    let mut ran = 0;
    for (target_name, target) in targets::ALL {
        for (name, input) in corpus(target_name) {
            if is_wanted(&name) {
                run(target, &name, &input);
                ran += 1;
            }
        }
    }
    assert!(ran > 0, "no input has a name that begins as CORPUS says");
}

/// What a fuzzer would try first, where there is none.
#[test]
fn every_input_with_a_few_changes_passes() {
    for (target_name, target) in targets::ALL {
        let inputs = corpus(target_name);
        let changes = match target_name {
            // A run of the simulator, or of the log, for each.
            "schedule" => 1,
            "log_recovery" => 10,
            _ => 100,
        };
        for (name, input) in inputs.iter().filter(|(name, _)| is_wanted(name)) {
            let mut rng = Rng::new(input.len() as u64);
            for change in 0..changes {
                let (_, other) = rng.pick(&inputs);
                let mutant = changed(input, other, &mut rng);
                run(target, &format!("change {change} of {name}"), &mutant);
            }
        }
    }
}

fn changed(input: &[u8], other: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..rng.between(1, 3) {
        let at = rng.below(bytes.len() as u64) as usize;
        match rng.below(5) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, rng.bits() as u8),
            2 => bytes.splice(at.., other.iter().skip(at).copied()).for_each(drop),
            3 if at < bytes.len() => bytes[at] ^= 1 << rng.below(8),
            _ if at < bytes.len() => bytes[at] = rng.bits() as u8,
            _ => {}
        }
    }
    bytes
}

/// A target that is not listed in all three places would never run in one of them.
#[test]
fn targets_binaries_and_corpora_are_the_same() {
    let known: BTreeSet<_> = targets::ALL.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names(&fuzz_dir().join("corpus")), known, "a corpus for each target");
    let binaries = names(&fuzz_dir().join("fuzz_targets"));
    let expected: BTreeSet<_> = known.iter().map(|name| format!("{name}.rs")).collect();
    assert_eq!(binaries, expected, "a binary for each target");
    let manifest = fs::read_to_string(fuzz_dir().join("Cargo.toml")).expect("it is there");
    for name in &known {
        assert!(manifest.contains(&format!("\nname = \"{name}\"\n")), "{name} is a binary");
        let path = fuzz_dir().join("fuzz_targets").join(format!("{name}.rs"));
        let text = fs::read_to_string(path).expect("it is there");
        assert!(text.contains(&format!("run(\"{name}\", data)")), "{name} runs its target");
        assert!(targets::named(name).is_some(), "and finds it");
    }
}

#[test]
fn corpora_are_small() {
    for (target, _) in targets::ALL {
        let bytes: usize = corpus(target).iter().map(|(_, input)| input.len()).sum();
        assert!(bytes as u64 <= CORPUS_BYTES_MAX, "{target} has {bytes} bytes of inputs");
    }
}
