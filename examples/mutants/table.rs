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

pub(crate) fn write(path: &Path, rows: &[Row<'_>]) -> Result<(), String> {
    let mut out = String::from(
        "# Broken rules, and what notices them\n\n\
         Written by `cargo run --release --example mutants -- --write-table`; README.md says how to \
         read it.\nSeconds are those of one run, builds included, on two shared cores.\n\n\
         | mutant | rule that it breaks | kind | noticed by | seconds |\n|---|---|---|---|---|\n",
    );
    for row in rows {
        let found: Vec<_> = row
            .found
            .iter()
            .map(|(layer, seen)| format!("*{layer}*: {}", seen.to_string().replace('|', "/")))
            .collect();
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {:.0} |",
            row.mutant.name,
            row.mutant.rule.replace('|', "/"),
            row.mutant.kind,
            found.join("; "),
            row.seconds
        );
    }
    let caught = rows.iter().filter(|row| row.is_caught()).count();
    let _ = writeln!(out, "\ntotal {} caught {caught}", rows.len());
    fs::write(path, out).map_err(|error| format!("cannot write {}: {error}", path.display()))
}
