//! The table at the end.
//!
//! Owns: what is counted from a run and how it is printed. Decides nothing.

use std::fmt::Write as _;
use std::time::Duration;

use crate::cluster::Cluster;
use crate::driver::{Past, Run};
use crate::fault::Fault;
use crate::history::{Operation, Outcome};
use crate::judge::Judgement;

/// How operations ended.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Ends {
    pub(crate) succeeded: u64,
    pub(crate) rejected: u64,
    pub(crate) unknown: u64,
}

/// Counts ends.
pub(crate) fn count<'a>(history: impl IntoIterator<Item = &'a Operation>) -> Ends {
    let mut ends = Ends::default();
    for operation in history {
        match operation.outcome {
            Outcome::Rejected(_) => ends.rejected += 1,
            Outcome::Unknown => ends.unknown += 1,
            Outcome::Done | Outcome::Value(_) | Outcome::Integer(_) => ends.succeeded += 1,
        }
    }
    ends
}

/// The longest time without a success that ended within a span, in nanoseconds.
fn longest_gap(successes: &[u64], (start, end): (u64, u64)) -> u64 {
    let first = successes.partition_point(|at| *at <= start).saturating_sub(1);
    let last = (successes.partition_point(|at| *at < end) + 1).min(successes.len());
    let within = successes.get(first..last).unwrap_or_default();
    within.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}

/// What a run came to, as text.
pub(crate) fn text(run: &Run, judgement: &Judgement, cluster: &Cluster) -> String {
    let mut successes: Vec<_> = run
        .history
        .iter()
        .filter(|operation| operation.succeeded())
        .map(|operation| operation.end)
        .filter(|end| *end <= run.healed)
        .collect();
    successes.sort_unstable();
    let mut text = String::from(
        "fault        episodes       ok  rejected  unknown  longest gap  of it alone\n",
    );
    for fault in Fault::ALL {
        let struck = |past: &&Past| past.faults.contains(&fault);
        let episodes: Vec<_> = run.episodes.iter().filter(struck).collect();
        if episodes.is_empty() {
            continue;
        }
        let during = |operation: &&Operation| {
            episodes.iter().any(|past| (past.start..past.end).contains(&operation.end))
        };
        let ends = count(run.history.iter().filter(during));
        let gap = |past: &&Past| longest_gap(&successes, (past.start, past.end));
        let alone = episodes.iter().filter(|past| past.faults.len() == 1);
        let gaps = (episodes.iter().map(gap).max(), alone.map(gap).max());
        row(&mut text, fault.name(), episodes.len(), ends, gaps);
    }
    let gap = longest_gap(&successes, (0, run.healed));
    row(&mut text, "all", run.episodes.len(), count(&run.history), (Some(gap), None));
    let tally = cluster.proxy.tally();
    let write = writeln!(
        text,
        "an episode may hold several faults\n\
         packets: {} forwarded, {} cut, {} lost, {} duplicated, {} reordered, {} delayed, \
         {} overflowed; {} dropped by the kernel\n\
         {} kill -9, {} pauses ({} of the leader), {} replicas stopped by themselves after a \
         failed write or sync, {} disks were said to be full\n\
         operations that succeeded during faults: {}",
        tally.forwarded,
        tally.cut,
        tally.lost,
        tally.duplicated,
        tally.reordered,
        tally.delayed,
        tally.overflowed,
        cluster.filtered,
        run.kills,
        run.pauses,
        run.leader_pauses,
        run.expected_ends,
        run.full_disks,
        run.succeeded_stressed,
    );
    write.expect("writing to a string does not fail");
    let agreement = run.agreement.as_deref().unwrap_or("none");
    let write = writeln!(
        text,
        "agreement of the replicas: {agreement}\n\
         keys judged: {}, the largest with {} operations; wrong: {}, undecided: {}",
        judgement.keys, judgement.largest, judgement.wrong, judgement.undecided
    );
    write.expect("writing to a string does not fail");
    text
}

/// One line; the gaps are those of all episodes with this fault, and of those with no other.
fn row(
    text: &mut String,
    name: &str,
    episodes: usize,
    ends: Ends,
    gaps: (Option<u64>, Option<u64>),
) {
    let Ends { succeeded, rejected, unknown } = ends;
    let seconds = |gap: Option<u64>| {
        let shown = |gap| format!("{:.2} s", Duration::from_nanos(gap).as_secs_f64());
        gap.map_or_else(|| "-".to_owned(), shown)
    };
    let (gap, alone) = (seconds(gaps.0), seconds(gaps.1));
    let line = format!(
        "{name:<12} {episodes:>8} {succeeded:>8} {rejected:>9} {unknown:>8} {gap:>12} {alone:>12}\n"
    );
    text.push_str(&line);
}
