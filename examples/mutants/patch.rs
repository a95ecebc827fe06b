//! The patches: their names, and what their headers say.
//!
//! Owns: [`Mutant`]. Builds nothing.
//! A patch begins with comment lines `# rule: …`, `# kind: …` and `# layers: …`, and `# seeds: N`
//! where it takes more than usual; the rest of its comment is for people.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use crate::layer::Layer;

/// What a mutant breaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// Something that must never happen may happen. Dies in two layers at least.
    Safety,
    /// Something that must happen may not.
    Liveness,
    /// A bound, or a check of what a peer, a user or a file says.
    Edge,
    /// A promise of the log that costs a start, not data.
    Storage,
    /// What the types forbid.
    Compile,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Safety => "safety",
            Self::Liveness => "liveness",
            Self::Edge => "edge",
            Self::Storage => "storage",
            Self::Compile => "compile",
        })
    }
}

/// One broken rule.
#[derive(Debug)]
pub(crate) struct Mutant {
    /// The file's name without its ending.
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) rule: String,
    pub(crate) kind: Kind,
    /// All of them must fail.
    pub(crate) layers: Vec<Layer>,
    /// How many seeds it may take, where that is more than usual.
    pub(crate) seeds: Option<u64>,
    /// The files that it changes, from the root of the tree.
    pub(crate) files: Vec<PathBuf>,
}

/// Reads every patch, in the order of their names.
pub(crate) fn read_all(dir: &Path) -> Result<Vec<Mutant>, String> {
    let failed = |error| format!("cannot read {}: {error}", dir.display());
    let mut mutants = Vec::new();
    if !dir.exists() {
        return Ok(mutants);
    }
    for entry in fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "patch") {
            let text = fs::read_to_string(&path).map_err(failed)?;
            mutants.push(read(&path, &text).map_err(|why| format!("{}: {why}", path.display()))?);
        }
    }
    mutants.sort_by(|one, other| one.name.cmp(&other.name));
    let number = |mutant: &Mutant| mutant.name.split('-').next().map(str::to_owned);
    if let Some(pair) = mutants.windows(2).find(|pair| number(&pair[0]) == number(&pair[1])) {
        return Err(format!("{} and {} have one number", pair[0].name, pair[1].name));
    }
    Ok(mutants)
}

fn read(path: &Path, text: &str) -> Result<Mutant, String> {
    let field = |name: &str| {
        let prefix = format!("# {name}: ");
        text.lines()
            .take_while(|line| line.starts_with('#'))
            .find_map(|line| line.strip_prefix(&prefix))
            .ok_or(format!("its header has no line \"# {name}: ...\""))
    };
    let kind = match field("kind")? {
        "safety" => Kind::Safety,
        "liveness" => Kind::Liveness,
        "edge" => Kind::Edge,
        "storage" => Kind::Storage,
        "compile" => Kind::Compile,
        other => return Err(format!("there is no kind {other}")),
    };
    let layers = field("layers")?.split(", ").map(Layer::parse).collect::<Result<Vec<_>, _>>()?;
    let files: Vec<PathBuf> =
        text.lines().filter_map(|line| line.strip_prefix("+++ b/")).map(PathBuf::from).collect();
    if files.is_empty() {
        return Err("it changes no file".to_owned());
    }
    if let Some(file) = files.iter().find(|file| !is_production(file)) {
        return Err(format!("{} is not production code", file.display()));
    }
    let seeds = match field("seeds") {
        Ok(text) => Some(text.parse().map_err(|_| format!("{text} is no number of seeds"))?),
        Err(_) => None,
    };
    let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_owned();
    Ok(Mutant {
        name,
        path: path.to_owned(),
        rule: field("rule")?.to_owned(),
        kind,
        layers,
        seeds,
        files,
    })
}

/// A mutant of a test or of the simulator would prove nothing.
fn is_production(file: &Path) -> bool {
    let sources = ["paxos-core/src", "paxos-storage/src", "paxos-transport-quic/src", "src"];
    let simulated = ["paxos-core/src/sim", "paxos-storage/src/sim", "src/sim"];
    let text = file.to_string_lossy();
    let below =
        |dir: &&str| text.strip_prefix(*dir).is_some_and(|rest| rest.starts_with(['/', '.']));
    sources.iter().any(below) && !simulated.iter().any(below)
}
