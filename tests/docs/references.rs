//! References from documents to checks: `path/to/file.rs::name`.
//!
//! The name is that of a test function in the file, or `compile_fail` for the file's documentation
//! tests that must not compile, or `lint` for a configuration file that forbids something, or the id
//! of a story that a text script tells.

use crate::source::{quoted, read, root};

/// What later pieces of work a row may wait for.
const PIECES: [&str; 8] = [
    "membership",
    "repair",
    "fault runs",
    "upgrades",
    "several groups",
    "consistent core",
    "sharded store",
    "benchmarks",
];

/// Where the scripts are: `paxos-core/tests/it/scripts.rs` plays every one of them.
const SCRIPTS: &str = "paxos-core/tests/scripts/";

/// The ids of the stories that a script tells, which its name begins with.
fn ids_of(path: &str) -> impl Iterator<Item = &str> {
    let name = path.rsplit('/').next().unwrap_or_default();
    name.split('_').take_while(|word| word.len() == 3 && word[1..].parse::<u8>().is_ok())
}

/// Every script, once for each story, as a reference.
pub(crate) fn scripts() -> Vec<String> {
    let mut references = Vec::new();
    for entry in std::fs::read_dir(root().join(SCRIPTS)).unwrap() {
        let path = format!("{SCRIPTS}{}", entry.unwrap().file_name().to_string_lossy());
        references.extend(ids_of(&path).map(|id| format!("{path}::{id}")));
    }
    references.sort();
    references
}

/// Why a reference leads nowhere.
fn broken(reference: &str) -> Option<String> {
    let Some((path, name)) = reference.split_once("::") else {
        return Some(format!("`{reference}` is not path::name"));
    };
    if !root().join(path).is_file() {
        return Some(format!("`{reference}`: there is no file {path}"));
    }
    let text = read(path);
    if std::path::Path::new(path).extension().is_some_and(|kind| kind == "txt") {
        let told = path.starts_with(SCRIPTS) && ids_of(path).any(|id| id == name);
        return (!told).then(|| format!("`{reference}`: no script tells this story there"));
    }
    let found = match name {
        "compile_fail" => text.contains("```compile_fail"),
        "lint" => std::path::Path::new(path).extension().is_some_and(|kind| kind == "toml"),
        name => is_test(&text, name),
    };
    (!found).then(|| format!("`{reference}`: {path} has no test of this name"))
}

/// Whether `name` is a function with a test attribute, possibly with others and comments between.
fn is_test(text: &str, name: &str) -> bool {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let start = format!("fn {name}(");
    lines.iter().enumerate().any(|(at, line)| {
        line.trim_start_matches("async ").starts_with(&start)
            && lines[..at]
                .iter()
                .rev()
                .take_while(|line| !line.is_empty() && **line != "}")
                .any(|line| line.starts_with("#[") && line.contains("test"))
    })
}

/// What a cell says of a story.
#[derive(Debug, Eq, PartialEq)]
enum Claim<'a> {
    /// It is checked, and nothing of it is left to come.
    Checked,
    /// It, or what its checks leave out, waits for this piece of work.
    Waits(&'a str),
    /// It cannot happen here, for this reason.
    DoesNotApply(&'a str),
}

fn claim(cell: &str) -> Claim<'_> {
    let waits = cell.split_once("waits for: ").map(|(_, piece)| Claim::Waits(piece));
    let not = cell.split_once("does not apply: ").map(|(_, why)| Claim::DoesNotApply(why));
    waits.or(not).unwrap_or(Claim::Checked)
}

/// The faults of a cell that names checks, or says why there is none.
///
/// It holds at least one reference, or begins with `does not apply:` or `waits for:` and a piece
/// of work; a reference may be followed by `; waits for: …` for the rest of a story.
pub(crate) fn faults_of(cell: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let references: Vec<_> = quoted(cell).into_iter().filter(|text| text.contains("::")).collect();
    faults.extend(references.iter().filter_map(|reference| broken(reference)));
    match claim(cell) {
        Claim::Waits(waits) => {
            if !PIECES.iter().any(|piece| waits.starts_with(piece)) {
                faults.push(format!("waits for something that is no piece of work: {waits}"));
            }
        }
        Claim::DoesNotApply(why) => {
            if why.len() < 10 {
                faults.push("says in no words why it does not apply".into());
            }
            if !references.is_empty() || !cell.starts_with("does not apply: ") {
                faults.push(format!("what does not apply has no check: {cell}"));
            }
        }
        Claim::Checked if references.is_empty() => {
            faults.push(format!("names no check and no reason: {cell}"));
        }
        Claim::Checked => {}
    }
    faults
}

#[test]
fn a_broken_reference_is_found() {
    let own = "tests/docs/references.rs::a_broken_reference_is_found";
    for cell in [
        &format!("`{own}`"),
        &format!("`{own}`; the rest waits for: repair"),
        "waits for: several groups",
        "does not apply: nothing is ever truncated",
        "`paxos-core/tests/scripts/p07_r10_figure_8.txt::p07`",
        "`paxos-core/tests/scripts/p07_r10_figure_8.txt::r10`",
    ] {
        assert_eq!(faults_of(cell), Vec::<String>::new(), "{cell}");
    }
    for cell in [
        "",
        "-",
        "`tests/docs/references.rs::is_test`",
        "`tests/docs/references.rs::absent`",
        "`tests/docs/absent.rs::absent`",
        "`tests/docs/main.rs::compile_fail`",
        "waits for: rain",
        "does not apply: no",
        "does not apply: it has a check all the same `tests/docs/main.rs::x`",
        "`paxos-core/tests/scripts/absent.txt::p07`",
        "`paxos-core/tests/scripts/p07_r10_figure_8.txt::p08`",
        "`paxos-core/tests/golden/athens.txt::p07`",
    ] {
        assert!(!faults_of(cell).is_empty(), "{cell}");
    }
}

#[test]
fn a_cell_is_told_from_one_that_waits_and_from_one_that_does_not_apply() {
    assert_eq!(claim("`a.rs::b`"), Claim::Checked);
    assert_eq!(claim("waits for: leases"), Claim::Waits("leases"));
    assert_eq!(claim("`a.rs::b`; mixed releases: waits for: upgrades"), Claim::Waits("upgrades"));
    assert_eq!(claim("does not apply: no reason"), Claim::DoesNotApply("no reason"));
}
