//! The command line.
//!
//! Owns: the options and their texts. Starts nothing. Every mistake is one line.

use std::path::PathBuf;
use std::time::Duration;

use paxos::core::sim::Preset;

use crate::fault::{self, Fault};
use crate::preset::{self, OnProcesses};

/// What `chaos --help` prints.
pub(crate) const HELP: &str = "\
chaos - real `kv serve` processes, under faults, with clients whose history is judged

usage:
  chaos --minutes M [options]    run for M minutes (0.1 to 1440; fractions are allowed)
  chaos --smoke [options]        run for 20 seconds, without root's means
  chaos --preset NAME [options]  how long no new command is committed in a partial partition; all for
                                 each of them
  chaos --check FILE             judge a history that an earlier run has saved

options:
  --nodes N        3 or 5 replicas (default 3)
  --seed S         what the schedule of faults is drawn from (default: from the clock, and printed)
  --faults LIST    only these, separated by commas; a name or one of network, process, disk, all:
                   kill kill-many pause isolate split bridge quorum-loss chain one-way swizzle loss
                   delay duplicate reorder filter-cut filter-loss sync-error sync-lie sync-slow
                   sync-hang write-error disk-full
  --lease MS       the leader reads by leases of so long, as `kv init --lease` lays them out
  --preset NAME    quorum-loss constrained chained row howard bridge leader-mute leader-deaf
                   follower-mute follower-deaf to-follower from-follower flapping-link
                   flapping-follower; some of five replicas alone; 78 s each
  --rootless       do without root's means: namespaces, packet filter, small file systems
  --kv PATH        the `kv` program (default: built by cargo, or beside this program)
  --history FILE   save the history here, whatever the verdict
  --keep           leave the directories and the logs of the replicas

exit: 0 all is well, 1 a violation, 2 the arguments make no sense, 3 void (too few operations
during faults), 4 the run could not be carried out, 130 interrupted
";

const MINUTES: (f64, f64) = (0.1, 1440.0);
const SMOKE: Duration = Duration::from_secs(20);

/// What the command line asks for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Invocation {
    Help,
    Run(Options),
    Check(PathBuf),
}

/// How to run.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Options {
    pub(crate) duration: Duration,
    pub(crate) nodes: usize,
    pub(crate) seed: Option<u64>,
    pub(crate) faults: Vec<Fault>,
    /// In milliseconds, as given to `kv init`, which knows the bounds.
    pub(crate) lease: Option<String>,
    /// What is measured; nothing for random faults.
    pub(crate) presets: Vec<Preset>,
    pub(crate) rootless: bool,
    pub(crate) kv: Option<PathBuf>,
    pub(crate) history: Option<PathBuf>,
    pub(crate) keep: bool,
}

/// Understands the arguments after the program's name.
pub(crate) fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Invocation, String> {
    let mut options = Options {
        duration: Duration::ZERO,
        nodes: 3,
        seed: None,
        faults: Fault::ALL.to_vec(),
        lease: None,
        presets: Vec::new(),
        rootless: false,
        kv: None,
        history: None,
        keep: false,
    };
    let mut check = None;
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--help" | "-h" => return Ok(Invocation::Help),
            "--smoke" => {
                options.duration = SMOKE;
                options.rootless = true;
            }
            "--minutes" => options.duration = minutes(&value()?)?,
            "--nodes" => {
                options.nodes = match value()?.as_str() {
                    "3" => 3,
                    "5" => 5,
                    other => return Err(format!("--nodes is 3 or 5, not {other}")),
                }
            }
            "--seed" => {
                let text = value()?;
                let seed = text.parse().map_err(|_| format!("--seed is a number, not {text}"))?;
                options.seed = Some(seed);
            }
            "--faults" => options.faults = fault::parse(&value()?)?,
            "--lease" => options.lease = Some(value()?),
            "--preset" => options.presets = preset::parse(&value()?)?,
            "--rootless" => options.rootless = true,
            "--kv" => options.kv = Some(value()?.into()),
            "--history" => options.history = Some(value()?.into()),
            "--keep" => options.keep = true,
            "--check" => check = Some(PathBuf::from(value()?)),
            other => return Err(format!("unknown argument {other}; see --help")),
        }
    }
    match check {
        Some(file) => Ok(Invocation::Check(file)),
        None if options.presets.iter().any(|preset| preset.fits(options.nodes)) => {
            Ok(Invocation::Run(options))
        }
        None if !options.presets.is_empty() => Err("that preset needs --nodes 5".into()),
        None if options.duration.is_zero() => {
            Err("--minutes M, --smoke or --preset is needed".into())
        }
        None => Ok(Invocation::Run(options)),
    }
}

fn minutes(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(minutes) if (MINUTES.0..=MINUTES.1).contains(&minutes) => {
            Ok(Duration::from_secs_f64(minutes * 60.0))
        }
        _ => Err(format!("--minutes is {} to {}, not {text}", MINUTES.0, MINUTES.1)),
    }
}
