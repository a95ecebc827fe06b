//! What was found, as lines and as a table.
//!
//! Owns: [`Row`] and `mutants/TABLE.md`.

use std::fmt::{self, Write as _};
use std::fs;
use std::path::Path;

use crate::layer::{Layer, Seen};
use crate::patch::{Kind, Mutant};

/// One mutant, and what each of its layers saw.
pub(crate) struct Row<'a> {
    pub(crate) mutant: &'a Mutant,
    pub(crate) found: Vec<(Layer, Seen)>,
    /// Builds included.
    pub(crate) seconds: f64,
}

impl Row<'_> {
    /// Whether every layer saw it. That a layer does not end tells of a broken promise to go on,
    /// and of nothing else.
    pub(crate) fn is_caught(&self) -> bool {
        self.found.iter().all(|(_, seen)| match seen {
            Seen::Caught { .. } => true,
            Seen::Endless { .. } => self.mutant.kind == Kind::Liveness,
            Seen::Survived { .. } | Seen::DoesNotBuild(_) | Seen::DoesNotApply(_) => false,
        })
    }

    fn line(&self) -> String {
        let mut found = Vec::new();
        for (layer, seen) in &self.found {
            found.push(format!("*{layer}*: {}", seen.to_string().replace('|', "/")));
        }
        let (mutant, verdict) = (self.mutant, self.verdict());
        let rule = mutant.rule.replace('|', "/");
        let (name, kind, found) = (&mutant.name, mutant.kind, found.join("; "));
        format!("| {name} | {rule} | {kind} | {verdict} | {found} | {:.0} |", self.seconds)
    }

    fn verdict(&self) -> &'static str {
        if self.is_caught() { "caught" } else { "SURVIVED" }
    }
}

impl fmt::Display for Row<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<44} {:<8}", self.mutant.name, self.verdict())?;
        for (layer, seen) in &self.found {
            write!(f, " | {layer}: {}", seen.to_string().replace('|', "/"))?;
        }
        write!(f, " | {:.0} s", self.seconds)
    }
}

/// Writes the rows into the table; the rows of other mutants stay as they were.
pub(crate) fn write(path: &Path, rows: &[Row<'_>], all: &[Mutant]) -> Result<(), String> {
    let old = fs::read_to_string(path).unwrap_or_default();
    let line_of = |mutant: &Mutant| {
        let fresh = rows.iter().find(|row| row.mutant.name == mutant.name);
        let begin = format!("| {} |", mutant.name);
        let kept = || old.lines().find(|line| line.starts_with(&begin)).map(str::to_owned);
        fresh.map(Row::line).or_else(kept)
    };
    let lines: Vec<String> = all.iter().filter_map(line_of).collect();
    let caught = lines.iter().filter(|line| line.contains("| caught |")).count();
    let mut out = String::from(
        "# Broken rules, and what notices them\n\n\
         Written by `cargo run --release --example mutants -- --write-table`: each row is of the \
         last run\nof its mutant, or of its layers one by one. Seconds are of that run, builds \
         included, on two cores\nthat others used too. README.md says how to read it.\n\n\
         | mutant | rule that it breaks | kind | verdict | noticed by | seconds |\n\
         |---|---|---|---|---|---|\n",
    );
    out.push_str(&lines.join("\n"));
    // Writing to a string cannot fail.
    let _ = writeln!(out, "\n\ntotal {} caught {caught}", lines.len());
    fs::write(path, out).map_err(|error| format!("cannot write {}: {error}", path.display()))
}
