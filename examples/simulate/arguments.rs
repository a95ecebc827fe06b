//! The command line.

use std::path::PathBuf;
use std::thread;

use paxos_core::sim::{Case, Limits, Preset, Profile, UnknownPreset, UnknownProfile};

use crate::depth::Depth;

pub(crate) const USAGE: &str = "\
simulate [--seeds N] [--first-seed S] [--threads T] [--replicas-max R] [--commands C] [--no-codec]
         [--depth core|log|node] [--profile uniform|swarm|directed|mixed]
         [--speed] [--ledger FILE [--block N]]
simulate --presets | --preset NAME [--seeds N] [--first-seed S] [--threads T] [--depth core|log|node]
                  how long clusters of 3 and 5 do not serve when some of their links break
simulate --seed N [--preset NAME] [--trace] [--print-hash] [--trace-out FILE] [--diagram FILE [--last N]]
                  replays one seed

--depth core    on disks that lose any suffix of what was not proved (the default)
--depth log     on the write-ahead log, over disks that lose any sector that was not synced
--depth node    whole nodes with clients and a state machine, on such logs
--profile P     how faults are drawn: every kind (uniform), a random few (swarm), scripts aimed at
                hard places (directed), or each of them in turn (mixed, the default)

--speed         the standard seeds: 5 replicas, 200 commands, every kind of fault, one thread
--ledger FILE   runs blocks of seeds, writes a line for each, and goes on after those of this commit
--block N       how many seeds are a block (10000)

--preset NAME   breaks links in this way: quorum-loss, constrained, chained, row, howard, bridge,
                leader-mute, leader-deaf, follower-mute, follower-deaf, to-follower,
                from-follower, flapping-link, flapping-follower
--presets       each of them; prints a table, in election timeouts, and fails if a bound is missed
--replicas-max R  with a preset: clusters of at most R

--trace           prints every event
--print-hash      prints the hash of all events and nothing else
--trace-out FILE  writes the events as JSON, one object a line: docs/traces.md
--diagram FILE    draws them as a space-time diagram: FILE.svg or FILE.html
--last N          draws only the last N events, not counting heartbeats and timers";

/// What the user asked for.
pub(crate) struct Arguments {
    /// The first seed, or the only one.
    pub(crate) first: u64,
    /// How many seeds.
    pub(crate) seeds: u64,
    /// How many at a time.
    pub(crate) threads: usize,
    /// Whether a replay prints its events.
    pub(crate) trace: bool,
    /// Whether a replay prints the hash of its events alone.
    pub(crate) print_hash: bool,
    /// Where a replay writes its events as JSON.
    pub(crate) trace_out: Option<PathBuf>,
    /// Where the blocks that are done are written down.
    pub(crate) ledger: Option<PathBuf>,
    /// How many seeds a block has.
    pub(crate) block: u64,
    /// Where a replay draws its events.
    pub(crate) diagram: Option<PathBuf>,
    /// How many of them.
    pub(crate) last: usize,
    /// Whether one seed is run again.
    pub(crate) replay: bool,
    /// How much of a replica is real.
    pub(crate) depth: Depth,
    /// How large the runs are.
    pub(crate) limits: Limits,
    /// Which partial partitions are measured; none for random faults.
    pub(crate) presets: Vec<Preset>,
}

impl Arguments {
    fn usual() -> Self {
        Self {
            first: 0,
            seeds: 1000,
            threads: thread::available_parallelism().map_or(1, usize::from),
            trace: false,
            print_hash: false,
            trace_out: None,
            ledger: None,
            block: 10_000,
            diagram: None,
            last: usize::MAX,
            replay: false,
            depth: Depth::Core,
            limits: Limits::default(),
            presets: Vec::new(),
        }
    }

    /// The partial partitions to measure, in each size that was asked for.
    pub(crate) fn cases(&self) -> Vec<Case> {
        let all = self.presets.iter().copied().flat_map(Case::of);
        all.filter(|case| case.replicas <= self.limits.replicas_max).collect()
    }

    /// The seeds by which speeds are compared.
    fn compare_speed(&mut self) {
        let Limits { codec, trace_capacity, .. } = self.limits;
        let usual = Limits { codec, trace_capacity, ..Limits::default() };
        let (replicas_min, replicas_max, commands) = (5, 5, 200);
        let profile = Profile::Uniform;
        self.limits = Limits { profile, replicas_min, replicas_max, commands, ..usual };
        self.seeds = 200;
        self.threads = 1;
    }

    /// What no single word can say.
    fn check(self) -> Result<Self, String> {
        let files = self.trace_out.is_some() || self.diagram.is_some();
        let tells = self.trace || self.print_hash || files;
        if tells && !self.replay {
            let those = "--trace, --print-hash, --trace-out and --diagram go with --seed";
            return Err(those.to_owned());
        }
        if !self.presets.is_empty() {
            if self.cases().is_empty() {
                return Err("the preset needs more replicas".to_owned());
            }
            if self.ledger.is_some() || self.replay && self.presets.len() > 1 {
                return Err("--seed takes one --preset, and --ledger none".to_owned());
            }
        }
        if self.first.checked_add(self.seeds).is_none() {
            return Err("there are no seeds that high".to_owned());
        }
        Ok(self)
    }
}

/// What the words mean; nothing if they ask for help.
pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> Result<Option<Arguments>, String> {
    let mut arguments = Arguments::usual();
    while let Some(word) = words.next() {
        let mut number = |low: u64, high: u64| {
            let text = words.next().ok_or(format!("{word} needs a number"))?;
            let number = text.parse().ok().filter(|n| (low..=high).contains(n));
            number.ok_or(format!("{word} takes {low} to {high}, not {text}"))
        };
        match word.as_str() {
            "--seeds" => arguments.seeds = number(1, u64::MAX)?,
            "--first-seed" => arguments.first = number(0, u64::MAX)?,
            "--seed" => {
                arguments.first = number(0, u64::MAX)?;
                arguments.replay = true;
            }
            "--threads" => arguments.threads = number(1, 1024)? as usize,
            "--replicas-max" => arguments.limits.replicas_max = number(1, 9)? as u16,
            "--commands" => arguments.limits.commands = number(1, 1_000_000)?,
            "--no-codec" => arguments.limits.codec = false,
            "--depth" => {
                arguments.depth = match words.next().as_deref() {
                    Some("core") => Depth::Core,
                    Some("log") => Depth::Log,
                    Some("node") => Depth::Node,
                    _ => return Err("--depth takes core, log or node".to_owned()),
                }
            }
            "--profile" => {
                let name = words.next().ok_or("--profile needs a name")?;
                let profile = name.parse().map_err(|error: UnknownProfile| error.to_string());
                arguments.limits.profile = profile?;
            }
            "--presets" => arguments.presets = Preset::ALL.to_vec(),
            "--preset" => {
                let name = words.next().ok_or("--preset needs a name")?;
                let preset = name.parse().map_err(|error: UnknownPreset| error.to_string());
                arguments.presets = vec![preset?];
            }
            "--speed" => arguments.compare_speed(),
            "--ledger" => {
                let path = words.next().ok_or("--ledger needs a file")?;
                arguments.ledger = Some(path.into());
            }
            "--block" => arguments.block = number(1, 1_000_000_000)?,
            "--trace" => arguments.trace = true,
            "--print-hash" => arguments.print_hash = true,
            "--diagram" => {
                let path = words.next().ok_or("--diagram needs a file")?;
                arguments.diagram = Some(path.into());
            }
            "--last" => arguments.last = number(1, u64::MAX)? as usize,
            "--trace-out" => {
                let path = words.next().ok_or("--trace-out needs a file")?;
                arguments.trace_out = Some(path.into());
            }
            "--help" | "-h" => return Ok(None),
            _ => return Err(format!("what is {word}?")),
        }
    }
    arguments.check().map(Some)
}
