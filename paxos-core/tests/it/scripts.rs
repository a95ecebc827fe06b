//! The scripts of tests/scripts: scenarios as text, with the transcript of what happens.
//!
//! `SCRIPTS=write cargo test -p paxos-core --test it scripts` writes the transcripts anew; read the
//! difference before you commit it, as it is what the library does differently.

use std::path::PathBuf;
use std::{env, fs};

use paxos_core::sim::play;

/// Fewer than this are not the collection that docs/verification.md names.
const SCRIPTS_MIN: usize = 25;

fn scripts() -> Vec<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut scripts: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|kind| kind == "txt")).collect();
    scripts.sort();
    scripts
}

/// The first line that differs, in both.
fn difference(expected: &str, told: &str) -> String {
    let pairs = expected.lines().map(Some).chain([None]).zip(told.lines().map(Some).chain([None]));
    let first = pairs.enumerate().find(|(_, (one, other))| one != other);
    first.map_or(String::new(), |(place, (expected, told))| {
        format!("line {}: the script says {expected:?}, it happened {told:?}", place + 1)
    })
}

#[test]
fn every_script_tells_what_happens() {
    let write = env::var_os("SCRIPTS").is_some_and(|word| word == "write");
    let scripts = scripts();
    let mut faults = Vec::new();
    for path in &scripts {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let expected = fs::read_to_string(path).unwrap();
        match play(&expected) {
            Err(error) => faults.push(format!("{name}: {error}")),
            Ok(told) if told == expected => {}
            Ok(told) if write => fs::write(path, told).unwrap(),
            Ok(told) => faults.push(format!("{name}: {}", difference(&expected, &told))),
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(scripts.len() >= SCRIPTS_MIN, "{} scripts", scripts.len());
}

#[test]
fn every_script_says_what_happened_to_whom_and_where_that_is_told() {
    for path in scripts() {
        let text = fs::read_to_string(&path).unwrap();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let header: Vec<&str> = text.lines().take_while(|line| line.starts_with('#')).collect();
        assert!(header.len() >= 2, "{name} has a header of two lines or more");
        let source = header.last().unwrap();
        assert!(source.starts_with("# Source: "), "{name}: {source}");
        // The name begins with the ids of the stories, and each stands in the header.
        for id in name.split('_').take_while(|word| is_id(word)) {
            assert!(header.iter().any(|line| line.contains(id)), "{name}: {id} in its header");
        }
        assert!(is_id(name.split('_').next().unwrap()), "{name} begins with the id of a story");
    }
}

fn is_id(word: &str) -> bool {
    let mut chars = word.chars();
    chars.next().is_some_and(|list| "prnt".contains(list))
        && word.len() == 3
        && chars.all(|digit| digit.is_ascii_digit())
}

#[test]
fn a_script_that_lies_or_waits_in_vain_is_found_out() {
    let told = play("cluster 1\nelect 1\npropose 1 A\nrun 5ms\nlog\n").unwrap();
    assert!(told.contains("log: 1 = A\n"), "{told}");
    assert_eq!(play(&told).unwrap(), told);
    let lie = told.replace("1 = A", "1 = B");
    assert_eq!(play(&lie).unwrap(), told);
    assert!(difference(&lie, &told).contains('B'), "{}", difference(&lie, &told));
    for (script, why) in [
        ("propose 1 A\n", "begins with `cluster`"),
        ("cluster 3\npropose 4 A\n", "no replica 4"),
        ("cluster 3\nisolate 1\nrun until leader 1\n", "in vain"),
        ("cluster 3\nfly 1\n", "what is fly?"),
        ("cluster 3\nrelease Accept\n", "nothing such is held"),
        ("cluster 3\nhold Accpt\n", "no message is a Accpt"),
    ] {
        let error = play(script).unwrap_err();
        assert!(error.why.contains(why), "{script}: {error}");
    }
}
