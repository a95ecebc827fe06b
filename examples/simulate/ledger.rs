//! Long runs in blocks: a file says which are done, so that a run goes on where it was stopped.
//!
//! A line for each whole block: the commit, what was run, from which seed on and how many, what came
//! of it, how long it took, and which faults or messages it never showed. A block that was stopped
//! half-way has no line, and is run again.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, ExitCode};

use crate::arguments::Arguments;
use crate::many::{Report, run_range, show_failure};

/// What has to be the same for two blocks to belong together.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Campaign {
    commit: String,
    depth: String,
    profile: String,
    commands: u64,
    replicas_max: u16,
}

impl fmt::Display for Campaign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { commit, depth, profile, commands, replicas_max } = self;
        write!(
            f,
            "commit={commit} depth={depth} profile={profile} commands={commands} \
             replicas-max={replicas_max}"
        )
    }
}

impl Campaign {
    fn new(commit: String, arguments: &Arguments) -> Self {
        Self {
            commit,
            depth: arguments.depth.to_string(),
            profile: arguments.limits.profile.to_string(),
            commands: arguments.limits.commands,
            replicas_max: arguments.limits.replicas_max,
        }
    }

    /// The line of a block.
    fn line(&self, first: u64, report: &Report) -> String {
        let result = if report.failed.is_empty() {
            "ok".to_owned()
        } else {
            let failed: Vec<String> = report.failed.iter().map(u64::to_string).collect();
            format!("FAILED:{}", failed.join(","))
        };
        let missing: Vec<String> =
            report.totals.missing().iter().map(|name| name.replace(' ', "-")).collect();
        let missing = if missing.is_empty() { "none".to_owned() } else { missing.join(",") };
        format!(
            "{self} first={first} seeds={} result={result} seconds={:.1} missing={missing} end\n",
            report.asked, report.seconds
        )
    }

    /// The first seed that no whole block of this campaign has run, from `first` on.
    fn resume(&self, ledger: &str, first: u64) -> u64 {
        let mut blocks: Vec<(u64, u64)> = ledger
            .lines()
            // The last line may have been cut off.
            .filter(|line| line.starts_with(&format!("{self} ")) && line.ends_with(" end"))
            .filter_map(|line| Some((field(line, "first")?, field(line, "seeds")?)))
            .collect();
        blocks.sort_unstable();
        let mut next = first;
        for (from, seeds) in blocks {
            if from <= next {
                next = next.max(from.saturating_add(seeds));
            }
        }
        next
    }
}

fn field(line: &str, name: &str) -> Option<u64> {
    let words = line.split(' ').filter_map(|word| word.split_once('='));
    let value = { words }.find(|(key, _)| *key == name)?.1;
    value.parse().ok()
}

/// The commit that is checked out, with a mark if files differ from it.
fn commit() -> String {
    let git = |words: &[&str]| {
        let output = Command::new("git").args(words).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(head) = git(&["rev-parse", "--short=12", "HEAD"]) else {
        return "unknown".to_owned();
    };
    match git(&["status", "--porcelain", "--untracked-files=no"]) {
        Some(changes) if changes.is_empty() => head,
        _ => format!("{head}-changed"),
    }
}

/// Runs the seeds in blocks and keeps the ledger; stops after a block with a failed seed.
pub(crate) fn run_blocks(path: &Path, arguments: &Arguments) -> io::Result<ExitCode> {
    let campaign = Campaign::new(commit(), arguments);
    let ledger = match fs::read_to_string(path) {
        Ok(ledger) => ledger,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
    };
    let end = arguments.first + arguments.seeds;
    let mut first = campaign.resume(&ledger, arguments.first);
    if first > arguments.first {
        println!("goes on at seed {first}: the ledger has what is before it");
    }
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    if !ledger.is_empty() && !ledger.ends_with('\n') {
        file.write_all(b"\n")?;
    }
    while first < end {
        let seeds = arguments.block.min(end - first);
        let report = run_range(first, seeds, arguments);
        if report.failed.is_empty() && report.totals.seeds < seeds {
            return Err(io::Error::other("a block was not run to its end"));
        }
        let line = campaign.line(first, &report);
        file.write_all(line.as_bytes())?;
        file.sync_data()?;
        print!("{line}");
        if !report.failed.is_empty() {
            show_failure(&report.failed, arguments);
            return Ok(ExitCode::FAILURE);
        }
        first += seeds;
    }
    println!("the ledger holds every seed up to {}", end - 1);
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use paxos_core::sim::Totals;

    fn campaign(commit: &str) -> Campaign {
        Campaign {
            commit: commit.to_owned(),
            depth: "core".to_owned(),
            profile: "mixed".to_owned(),
            commands: 100,
            replicas_max: 9,
        }
    }

    fn report(seeds: u64, failed: &[u64]) -> Report {
        let totals = Totals { seeds, ..Totals::default() };
        Report { totals, failed: failed.to_vec(), asked: seeds, seconds: 1.5, busy: 1.0 }
    }

    #[test]
    fn a_run_goes_on_after_the_last_whole_block_of_its_commit() {
        let (one, other) = (campaign("aaaa"), campaign("bbbb"));
        let mut ledger = String::new();
        assert_eq!(one.resume(&ledger, 5), 5);
        ledger += &one.line(0, &report(100, &[]));
        ledger += &other.line(100, &report(100, &[]));
        assert_eq!((one.resume(&ledger, 0), other.resume(&ledger, 0)), (100, 0));
        // A block that is missing in between is run before what follows it.
        ledger += &one.line(200, &report(100, &[]));
        assert_eq!(one.resume(&ledger, 0), 100);
        ledger += &one.line(100, &report(100, &[117, 150]));
        assert_eq!(one.resume(&ledger, 0), 300);
        assert!(ledger.contains("result=FAILED:117,150"));
    }

    #[test]
    fn a_line_that_was_cut_off_counts_for_nothing() {
        let one = campaign("aaaa");
        let line = one.line(0, &report(100, &[]));
        for length in 0..line.len() - 1 {
            assert_eq!(one.resume(&line[..length], 0), 0, "{}", &line[..length]);
        }
        assert_eq!(one.resume(&line, 0), 100);
    }

    #[test]
    fn a_ledger_is_kept_and_continued() {
        let dir = tempfile::tempdir().expect("a directory for the test");
        let path = dir.path().join("ledger");
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let run = |seeds: &str| {
            let text = format!("--commands 10 --replicas-max 3 --block 2 --seeds {seeds}");
            let arguments = crate::arguments::parse(words(&text).into_iter());
            let arguments = arguments.expect("the words make sense").expect("no help is asked for");
            run_blocks(&path, &arguments).expect("the ledger can be written");
            fs::read_to_string(&path).expect("the ledger is there")
        };
        let ledger = run("3");
        let seeds: Vec<_> =
            ledger.lines().map(|line| (field(line, "first"), field(line, "seeds"))).collect();
        assert_eq!(seeds, [(Some(0), Some(2)), (Some(2), Some(1))]);
        let longer = run("5");
        assert!(longer.starts_with(&ledger));
        assert_eq!(
            longer.lines().skip(2).filter_map(|line| field(line, "first")).collect::<Vec<_>>(),
            [3]
        );
        assert_eq!(run("5"), longer);
    }
}
