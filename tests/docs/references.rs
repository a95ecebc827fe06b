//! References from documents to checks: `path/to/file.rs::name`.
//!
//! The name is that of a test function in the file, or `compile_fail` for the file's documentation
//! tests that must not compile, or `lint` for a configuration file that forbids something.

use crate::source::{quoted, read, root};

/// What later pieces of work a row may wait for.
const PIECES: [&str; 11] = [
    "reads",
    "sessions",
    "membership",
    "snapshots",
    "repair",
    "transfer",
    "fault runs",
    "upgrades",
    "several groups",
    "consistent core",
    "sharded store",
];

/// Why a reference leads nowhere.
fn broken(reference: &str) -> Option<String> {
    let Some((path, name)) = reference.split_once("::") else {
        return Some(format!("`{reference}` is not path::name"));
    };
    if !root().join(path).is_file() {
        return Some(format!("`{reference}`: there is no file {path}"));
    }
    let text = read(path);
    let found = match name {
        "compile_fail" => text.contains("```compile_fail"),
        "lint" => std::path::Path::new(path)
            .extension()
            .is_some_and(|kind| kind == "toml"),
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

/// The faults of a cell that names checks, or says why there is none.
///
/// It holds at least one reference, or begins with `does not apply:` or `waits for:` and a piece
/// of work; a reference may be followed by `; waits for: …` for the rest of a story.
pub(crate) fn faults_of(cell: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let references: Vec<_> = quoted(cell)
        .into_iter()
        .filter(|text| text.contains("::"))
        .collect();
    faults.extend(references.iter().filter_map(|reference| broken(reference)));
    if let Some((_, waits)) = cell.split_once("waits for: ") {
        let known = PIECES.iter().any(|piece| waits.starts_with(piece));
        if !known {
            faults.push(format!(
                "waits for something that is no piece of work: {waits}"
            ));
        }
    } else if let Some((_, why)) = cell.split_once("does not apply: ") {
        if why.len() < 10 {
            faults.push("says in no words why it does not apply".into());
        }
    } else if references.is_empty() {
        faults.push(format!("names no check and no reason: {cell}"));
    }
    faults
}

#[test]
fn a_broken_reference_is_found() {
    let own = "tests/docs/references.rs::a_broken_reference_is_found";
    assert_eq!(faults_of(&format!("`{own}`")), Vec::<String>::new());
    for cell in [
        "",
        "-",
        "`tests/docs/references.rs::is_test`",
        "`tests/docs/references.rs::absent`",
        "`tests/docs/absent.rs::absent`",
        "`tests/docs/main.rs::compile_fail`",
        "waits for: rain",
        "does not apply: no",
    ] {
        assert_eq!(faults_of(cell).len(), 1, "{cell}");
    }
}
