//! The core's scripts on the real log: what is told is the same, to the letter.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs;
use std::path::PathBuf;

use paxos_core::sim::play_on;
use paxos_storage::sim::SimWal;

/// The text without the numbers of lives: on the log the power may fail during a start, and then a
/// life is skipped.
fn without_lives(text: &str) -> String {
    let mut parts = text.split("life ");
    let mut rest = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        rest.push_str("life ");
        rest.push_str(part.trim_start_matches(|c: char| c.is_ascii_digit()));
    }
    rest
}

#[test]
fn every_script_of_the_core_tells_the_same_on_the_log() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../paxos-core/tests/scripts");
    let mut played = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let script = fs::read_to_string(&path).unwrap();
        let told = play_on(&script, &mut |format| Box::new(SimWal::new(format)));
        let told = told.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let (told, script) = (without_lives(&told), without_lives(&script));
        let differs = told.lines().zip(script.lines()).find(|(told, expected)| told != expected);
        assert_eq!(differs, None, "{}: the log on the left", path.display());
        assert_eq!(told.len(), script.len(), "{}", path.display());
        played += 1;
    }
    assert!(played > 0, "there are scripts");
}
