//! The layers of tests, and what each says about a mutant.
//!
//! Owns: [`Layer`], the commands behind each, and the reading of their words.
//! Invariants: what does not build is caught by nothing but [`Layer::Compile`]; a layer that was
//! killed for its time has caught something only if a test had failed by then, or nothing else.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::process::{self, Ended};

/// A way to find a mistake.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Layer {
    /// A type that forbids it, or a documentation test that must not compile.
    Compile,
    /// The tests of the protocol's rules, histories and scripts.
    Rules,
    /// The tests of the bytes of messages and values.
    Codec,
    /// Random runs of clusters on simple disks.
    SeedsCore,
    /// Random runs of clusters on the real log over a simulated file system.
    SeedsLog,
    /// Random runs of whole nodes.
    SeedsNode,
    /// The exhaustive small world.
    Model,
    /// The tests of the log.
    Log,
    /// The unit tests of the host.
    HostUnit,
    /// Nodes in one process.
    Host,
    /// The tests of the QUIC transport.
    Quic,
}

const ALL: [Layer; 11] = [
    Layer::Compile,
    Layer::Rules,
    Layer::Codec,
    Layer::SeedsCore,
    Layer::SeedsLog,
    Layer::SeedsNode,
    Layer::Model,
    Layer::Log,
    Layer::HostUnit,
    Layer::Host,
    Layer::Quic,
];

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Compile => "compile",
            Self::Rules => "rules",
            Self::Codec => "codec",
            Self::SeedsCore => "seeds-core",
            Self::SeedsLog => "seeds-log",
            Self::SeedsNode => "seeds-node",
            Self::Model => "model",
            Self::Log => "log",
            Self::HostUnit => "host-unit",
            Self::Host => "host",
            Self::Quic => "quic",
        })
    }
}

impl Layer {
    pub(crate) fn parse(name: &str) -> Result<Self, String> {
        let layer = ALL.into_iter().find(|layer| layer.to_string() == name);
        layer.ok_or_else(|| format!("there is no layer {name}"))
    }
}

/// What a layer says about a mutant.
#[derive(Debug)]
pub(crate) enum Seen {
    Caught {
        /// The first words of what failed.
        words: String,
        seconds: f64,
    },
    /// It did not end in its time, and had found nothing by then.
    Endless {
        seconds: f64,
    },
    Survived {
        seconds: f64,
    },
    DoesNotBuild(String),
    DoesNotApply(String),
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Caught { words, seconds } => write!(f, "{words} [{seconds:.1} s]"),
            Self::Endless { seconds } => write!(f, "no end within {seconds:.0} s"),
            Self::Survived { seconds } => write!(f, "SURVIVED [{seconds:.1} s]"),
            Self::DoesNotBuild(why) => write!(f, "DOES NOT BUILD: {why}"),
            Self::DoesNotApply(why) => write!(f, "NO LONGER APPLIES: {why}"),
        }
    }
}

/// No build and no layer takes longer, unless it hangs.
const BUILD_LIMIT: Duration = Duration::from_secs(900);
const RUN_LIMIT: Duration = Duration::from_secs(240);
/// How many seeds a layer runs.
pub(crate) const SEEDS: u64 = 2000;
/// A machine that others use too runs at least so many seeds a second.
const SEEDS_PER_SECOND: u64 = 25;
/// A whole node's seed takes as long as so many of the core's.
const NODE_SHARE: u64 = 20;

/// The tests that run random clusters; each takes how many from the environment's `SEEDS`.
const SEEDS_OF_CORE: &str = "random::";
const SEEDS_OF_LOG: &str = "simulated::";
/// What else of the core's tests says nothing of one rule: pinned seeds, and tests of the tools.
const OTHERS_OF_CORE: [&str; 5] =
    [SEEDS_OF_CORE, "portfolio::", "regressions::seeds", "linear::", "traces::"];
const BYTES: [&str; 3] = ["codec::", "golden::", "fuzz::"];

/// The packages whose tests wait for sockets and threads, within bounds on real time.
const ON_REAL_TIME: [&str; 2] = ["multi-paxos", "paxos-transport-quic"];
/// So many of those that failed are run again.
const AGAIN_MAX: usize = 3;

/// So many characters of what a check says are enough.
const WORDS_MAX: usize = 160;

/// Where layers are built and run.
pub(crate) struct Workshop {
    tree: PathBuf,
    target: PathBuf,
}

/// A program that was built, and where it runs.
struct Program {
    path: PathBuf,
    dir: PathBuf,
}

impl Workshop {
    pub(crate) fn new(tree: &Path, target: &Path) -> Self {
        Self { tree: tree.to_owned(), target: target.to_owned() }
    }

    /// Builds a layer and runs it, with at most so many seeds.
    pub(crate) fn run(&self, layer: Layer, seeds: u64) -> Seen {
        match layer {
            Layer::Compile => self.compile(),
            Layer::Rules => {
                let skipped = [&OTHERS_OF_CORE[..], &BYTES].concat();
                self.tests("paxos-core", &["--test", "it"], &[], &skipped, 0)
            }
            Layer::Codec => self.tests("paxos-core", &["--test", "it"], &BYTES, &[], 0),
            Layer::SeedsCore => {
                self.tests("paxos-core", &["--test", "it"], &[SEEDS_OF_CORE], &[], seeds)
            }
            Layer::SeedsLog => {
                self.tests("paxos-storage", &["--test", "it"], &[SEEDS_OF_LOG], &[], seeds)
            }
            Layer::SeedsNode => {
                let count = (seeds / NODE_SHARE).max(1).to_string();
                self.example("simulate", &[], &["--depth", "node", "--seeds", &count])
            }
            Layer::Model => self.example("model", &["--release"], &["--world", "s"]),
            Layer::Log => {
                self.tests("paxos-storage", &["--lib", "--test", "it"], &[], &[SEEDS_OF_LOG], 0)
            }
            Layer::HostUnit => self.tests("multi-paxos", &["--lib"], &[], &[], 0),
            Layer::Host => self.tests("multi-paxos", &["--test", "it"], &[], &[], 0),
            Layer::Quic => {
                self.tests("paxos-transport-quic", &["--lib", "--test", "it"], &[], &[], 0)
            }
        }
    }

    fn cargo(&self, words: &[&str]) -> Result<Ended, String> {
        let mut cargo = Command::new(env!("CARGO"));
        cargo
            .args(words)
            .current_dir(&self.tree)
            .env("CARGO_TARGET_DIR", &self.target)
            .env("CARGO_TERM_COLOR", "never")
            // Nobody debugs a mutant, and builds are what a run costs.
            .env("CARGO_PROFILE_DEV_DEBUG", "0");
        process::run(&mut cargo, &self.said(), BUILD_LIMIT)
    }

    /// Builds; gives back what cargo said.
    fn build(&self, words: &[&str]) -> Result<String, Seen> {
        std::fs::create_dir_all(&self.target)
            .map_err(|error| Seen::DoesNotBuild(error.to_string()))?;
        let ended = self.cargo(words).map_err(Seen::DoesNotBuild)?;
        match ended.success {
            Some(true) => Ok(ended.said),
            Some(false) => Err(Seen::DoesNotBuild(first_error(&ended.said))),
            None => Err(Seen::DoesNotBuild(format!("no end within {BUILD_LIMIT:?}"))),
        }
    }

    fn compile(&self) -> Seen {
        let start = Instant::now();
        let seconds = || start.elapsed().as_secs_f64();
        match self.build(&["check", "--locked", "-p", "multi-paxos", "--lib"]) {
            Err(Seen::DoesNotBuild(words)) => return Seen::Caught { words, seconds: seconds() },
            Err(other) => return other,
            Ok(_) => {}
        }
        let words = ["test", "--locked", "-p", "paxos-core", "--doc"];
        match self.cargo(&words) {
            Ok(ended) => judge(&ended, seconds()),
            Err(why) => Seen::DoesNotBuild(why),
        }
    }

    /// Runs the tests of a package whose names hold one of `only` (or all) and none of `skipped`.
    fn tests(
        &self,
        package: &str,
        which: &[&str],
        only: &[&str],
        skipped: &[&str],
        seeds: u64,
    ) -> Seen {
        let mut words = vec!["test", "--locked", "--no-run", "-p", package];
        words.extend(which);
        let said = match self.build(&words) {
            Ok(said) => said,
            Err(seen) => return seen,
        };
        let dir =
            if package == "multi-paxos" { self.tree.clone() } else { self.tree.join(package) };
        let programs = executables(&said);
        if programs.is_empty() {
            return Seen::DoesNotBuild("cargo named no test program".to_owned());
        }
        let start = Instant::now();
        for path in programs {
            let mut words: Vec<&str> = only.to_vec();
            for name in skipped {
                words.extend(["--skip", name]);
            }
            let program = Program { path, dir: dir.clone() };
            let mut seen = self.execute(&program, &words, seeds, start);
            if ON_REAL_TIME.contains(&package) && matches!(seen, Seen::Caught { .. }) {
                seen = self.again(&program, seen, start);
            }
            if !matches!(seen, Seen::Survived { .. }) {
                return seen;
            }
        }
        Seen::Survived { seconds: start.elapsed().as_secs_f64() }
    }

    /// Runs some of the tests that failed once more, alone: a machine that is too busy for a test's
    /// bound on real time has caught nothing.
    fn again(&self, program: &Program, seen: Seen, start: Instant) -> Seen {
        let said = std::fs::read_to_string(self.said()).unwrap_or_default();
        let mut words = failed_tests(&said);
        if words.is_empty() {
            return seen;
        }
        words.truncate(AGAIN_MAX);
        words.extend(["--exact", "--test-threads", "1"]);
        self.execute(program, &words, 0, start)
    }

    fn said(&self) -> PathBuf {
        self.target.join("said.txt")
    }

    fn execute(&self, program: &Program, words: &[&str], seeds: u64, start: Instant) -> Seen {
        let mut command = Command::new(&program.path);
        command
            .args(words)
            .current_dir(&program.dir)
            .env("CARGO_MANIFEST_DIR", &program.dir)
            .env("SEEDS", seeds.to_string());
        let limit = RUN_LIMIT + Duration::from_secs(seeds / SEEDS_PER_SECOND);
        let ended = process::run(&mut command, &self.said(), limit);
        match ended {
            Ok(ended) => judge(&ended, start.elapsed().as_secs_f64()),
            Err(why) => Seen::DoesNotBuild(why),
        }
    }

    /// Runs an example.
    fn example(&self, name: &str, profile: &[&str], words: &[&str]) -> Seen {
        if !self.tree.join("examples").join(name).exists() {
            return Seen::DoesNotBuild(format!("there is no example {name}"));
        }
        let mut build = vec!["build", "--locked", "-p", "multi-paxos", "--example", name];
        build.extend(profile);
        if let Err(seen) = self.build(&build) {
            return seen;
        }
        let folder = if profile.is_empty() { "debug" } else { "release" };
        let path = self.target.join(folder).join("examples").join(name);
        self.execute(&Program { path, dir: self.tree.clone() }, words, 0, Instant::now())
    }
}

/// The test programs that cargo says it built.
fn executables(said: &str) -> Vec<PathBuf> {
    let named = said.lines().filter(|line| line.trim_start().starts_with("Executable "));
    named.filter_map(|line| Some(line.rsplit_once('(')?.1.trim_end_matches(')').into())).collect()
}

fn first_error(said: &str) -> String {
    let mut errors = said.lines().filter(|line| line.starts_with("error"));
    errors.next().or(said.lines().last()).unwrap_or("cargo said nothing").to_owned()
}

fn judge(ended: &Ended, seconds: f64) -> Seen {
    let words = failure(&ended.said);
    match (ended.success, words) {
        (Some(true), _) => Seen::Survived { seconds },
        (_, Some(words)) => {
            let words = words.chars().take(WORDS_MAX).collect();
            Seen::Caught { words, seconds }
        }
        (Some(false), None) => {
            // Whatever failed has no words of a check; what a run never showed is no mistake seen.
            let last = ended.said.lines().last().unwrap_or("it said nothing");
            Seen::DoesNotBuild(format!("failed without a finding: {last}"))
        }
        (None, None) => Seen::Endless { seconds },
    }
}

/// The names of the tests that failed.
fn failed_tests(said: &str) -> Vec<&str> {
    let failed = |line| str::strip_suffix(str::strip_prefix(line, "test ")?, " ... FAILED");
    said.lines().filter_map(failed).collect()
}

/// What the first check that failed is called, or says: the words of a seed, which say most, or
/// the names of the tests that failed, or a panic's words.
fn failure(said: &str) -> Option<String> {
    let seed = |line: &str| {
        let (seed, words) = line.strip_prefix("seed ")?.split_once(": ")?;
        let seed = seed.trim_end_matches(" FAILED");
        Some((seed.parse::<u64>().ok()?, words.to_owned()))
    };
    if let Some((seed, words)) = said.lines().filter_map(seed).min() {
        return Some(format!("seed {seed}: {words}"));
    }
    let mut failed = failed_tests(said);
    // The tests that quote a rule say most.
    failed.sort_unstable_by_key(|name| (!name.starts_with("paper::"), *name));
    if let Some(first) = failed.first() {
        let first = first.split(" (line").next().unwrap_or(first);
        let more = failed.len() - 1;
        return Some(if more == 0 { first.to_owned() } else { format!("{first} and {more} more") });
    }
    // An allocation that cannot be had ends the program at once, before any test is said to fail.
    if let Some(line) = said.lines().find(|line| line.starts_with("memory allocation of ")) {
        return Some(line.to_owned());
    }
    let mut lines = said.lines();
    lines
        .find(|line| line.contains("panicked at "))
        .map(|_| format!("panic: {}", lines.next().unwrap_or_default()))
}
