//! The files of the workspace as the checks see them.

use std::fs;
use std::path::{Path, PathBuf};

/// The workspace's root.
pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The text of a file, named from the root.
pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A Rust file.
pub(crate) struct Source {
    /// Its path from the root, with `/` between the parts.
    pub(crate) path: String,
    /// What it says.
    pub(crate) text: String,
}

impl Source {
    /// The lines with their numbers, without comments and without what stands in string literals.
    pub(crate) fn code(&self) -> impl Iterator<Item = (usize, String)> {
        self.text
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, strip(line)))
            .filter(|(_, line)| !line.trim().is_empty())
    }
}

/// A line without its comment and without the contents of its string literals. Good enough for
/// formatted code; literals over several lines keep their text.
fn strip(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut chars = line.chars().peekable();
    let mut in_text = false;
    while let Some(char) = chars.next() {
        match char {
            '\\' if in_text => {
                chars.next();
            }
            '"' => {
                in_text = !in_text;
                out.push('"');
            }
            '/' if !in_text && chars.peek() == Some(&'/') => break,
            char if !in_text => out.push(char),
            _ => {}
        }
    }
    out
}

/// All Rust files of the workspace, in the order of their paths.
pub(crate) fn all() -> Vec<Source> {
    let mut sources = Vec::new();
    for top in [
        "src",
        "tests",
        "examples",
        "benches",
        "fuzz/src",
        "fuzz/fuzz_targets",
        "paxos-core",
        "paxos-storage",
        "paxos-transport-quic",
    ] {
        collect(&root().join(top), &mut sources);
    }
    sources.sort_by(|left, right| left.path.cmp(&right.path));
    assert!(sources.len() > 20, "the workspace's files are found");
    sources
}

/// The files that are part of a library, not of its tests, examples or benches.
pub(crate) fn libraries() -> Vec<Source> {
    let mut sources = all();
    sources.retain(|source| source.path.starts_with("src/") || source.path.contains("/src/"));
    sources
}

fn collect(dir: &Path, sources: &mut Vec<Source>) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target") {
                collect(&path, sources);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let relative = path.strip_prefix(root()).unwrap();
            sources.push(Source {
                path: relative.to_str().unwrap().replace('\\', "/"),
                text: fs::read_to_string(&path).unwrap(),
            });
        }
    }
}

/// The identifiers of a line of code.
pub(crate) fn identifiers(line: &str) -> impl Iterator<Item = &str> {
    line.split(|char: char| !char.is_ascii_alphanumeric() && char != '_')
        .filter(|word| !word.is_empty())
}

/// The rows of all tables in a document: the cells of each, trimmed.
pub(crate) fn table_rows(text: &str) -> Vec<Vec<String>> {
    text.lines()
        .filter(|line| {
            line.starts_with('|') && !line.starts_with("|--") && !line.starts_with("| --")
        })
        .map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect())
        .collect()
}

/// What stands between backticks in a cell.
pub(crate) fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}
