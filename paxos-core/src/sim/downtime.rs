//! How long a cluster does not serve when some of its links break, and whether its leader stays.
//!
//! Owns: [`Downtime`], the measure of one run of a [`Case`], and the bounds on it. Everything but
//! the links is calm, so that whatever is slow is slow because of them.
//! Invariants: a command counts only if it was asked for after the cut; the time is measured from
//! the moment at which the links broke. Commands are asked for of whoever says that it leads, as a
//! client would that knows all addresses; of whole nodes, of every node.
//! Source: the Omni-Paxos paper measures down-time in election timeouts.

use core::fmt;
use core::time::Duration;

use bytes::Bytes;

use super::check::Invariant;
use super::cluster::Cluster;
use super::disk::CrashStorage;
use super::host::Fleet;
use super::liveness::PROBE;
pub use super::liveness::SERVE_WITHIN;
use super::options::Options;
use super::preset::Case;
use super::run::{Limits, Outcome, run_course};
use crate::ids::{ReplicaId, RequestNumber, Slot, Time};
use crate::output::Role;
use crate::port::Format;
use crate::value::Command;

/// Once a cluster serves again, nobody campaigns for so many election timeouts.
pub const STAY: u32 = 100;
/// A whole cluster elects its first leader within so many.
const BEGIN_WITHIN: u32 = 12;
/// How often a command is asked for, and the measure looked at, before and after the cut.
const PAUSE: Duration = Duration::from_millis(5);
/// How often in an election timeout it is while the leader is to stay.
const LOOKS: u32 = 4;
/// Clocks run off by so many millionths at most.
const SKEW: u32 = 1_000;

/// What was measured in one run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Downtime {
    /// The unit: the longest time from the loss of a leader to the start of a campaign.
    pub election_timeout: Duration,
    /// From the cut to the first time that somebody knows a new command to be committed.
    pub down: Duration,
    /// From the cut to the first time that a command is known to be committed which was asked for
    /// after the last campaign.
    pub settled: Duration,
    /// Campaigns that were won after the cut.
    pub elections: u64,
    /// The longest that a command took while the leader stayed.
    pub slowest: Duration,
}

impl Downtime {
    /// A duration in election timeouts.
    pub fn in_timeouts(&self, duration: Duration) -> f64 {
        duration.as_secs_f64() / self.election_timeout.as_secs_f64()
    }
}

impl fmt::Display for Downtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [down, settled, slowest] =
            [self.down, self.settled, self.slowest].map(|duration| self.in_timeouts(duration));
        write!(
            f,
            "down for {down:.2} election timeouts, settled after {settled:.2} with {} elections, \
             then the slowest command took {slowest:.2}",
            self.elections
        )
    }
}

/// One run of a case.
#[derive(Clone, Debug)]
pub struct Measured {
    /// What came of it: a violation if a bound was missed, or if anything else was broken.
    pub outcome: Outcome,
    /// The measure; none if the run ended before.
    pub downtime: Option<Downtime>,
}

/// Runs a seed of a case on storages that `make` formats. Of the limits, those of messages and
/// traces count.
pub fn run_preset_on(
    seed: u64,
    case: Case,
    limits: &Limits,
    make: impl FnMut(Format) -> Box<dyn CrashStorage>,
) -> Measured {
    measure(Cluster::with_storage(options(seed, case, limits), make), case)
}

/// Runs a seed of a case with whole nodes that `fleet` makes.
pub fn run_preset_of_hosts(
    seed: u64,
    case: Case,
    limits: &Limits,
    make: impl FnMut(Format) -> Box<dyn CrashStorage>,
    fleet: impl FnOnce(&mut Options) -> Box<dyn Fleet>,
) -> Measured {
    let mut options = options(seed, case, limits);
    let fleet = fleet(&mut options);
    measure(Cluster::with_fleet(options, make, fleet), case)
}

fn options(seed: u64, case: Case, limits: &Limits) -> Options {
    Options {
        clock_skew: SKEW,
        codec: limits.codec,
        trace_capacity: limits.trace_capacity,
        ..Options::new(seed, case.replicas)
    }
}

fn measure(cluster: Cluster, case: Case) -> Measured {
    let mut downtime = None;
    let outcome = run_course(cluster, |cluster| {
        downtime = course(cluster, case);
        let verdict = cluster.fleet.as_mut().map_or(Ok(()), |fleet| fleet.verdict(true));
        if let Err(wrong) = verdict {
            cluster.check.fail(Invariant::Answers, || wrong);
        }
    });
    Measured { outcome, downtime }
}

/// None if a bound was missed, which is a violation then.
fn course(cluster: &mut Cluster, case: Case) -> Option<Downtime> {
    let mut prober = Prober::default();
    let everybody: Vec<ReplicaId> = cluster.ids().collect();
    if let Some(fleet) = &mut cluster.fleet {
        fleet.reach(&everybody);
    }
    let leader = begin(cluster, &mut prober)?;
    case.preset.strike(cluster, leader, |cluster, duration| {
        prober.ask_for(cluster, duration);
    });
    let cut = cluster.now;
    let (before, election_timeout) = (won(cluster), cluster.options.election_timeout());
    let (down, settled) = settle(cluster, &mut prober, cut)?;
    let slowest = stay(cluster, &mut prober, settled)?;
    let elections = won(cluster) - before;
    let [down, settled] = [down, settled].map(|at| at.since(cut));
    Some(Downtime { election_timeout, down, settled, elections, slowest })
}

/// Somebody leads and serves, everybody follows, and some time passes.
fn begin(cluster: &mut Cluster, prober: &mut Prober) -> Option<ReplicaId> {
    let timeout = cluster.options.election_timeout();
    let limit = Time::ZERO.after(timeout * BEGIN_WITHIN);
    let is_agreed = |cluster: &Cluster| {
        let leader = cluster.leader()?;
        let follows = |id: ReplicaId| {
            let status = cluster.status(id)?;
            Some(status.leader?.leader() == leader && status.applied > Slot::ZERO)
        };
        cluster.ids().all(|id| follows(id) == Some(true)).then_some(leader)
    };
    while is_agreed(cluster).is_none() {
        if cluster.now > limit || cluster.violation().is_some() {
            cluster.no_progress("no leader to begin with");
            return None;
        }
        prober.ask_for(cluster, PAUSE);
    }
    let phase = cluster.rng.duration(Duration::ZERO, timeout);
    prober.ask_for(cluster, phase);
    is_agreed(cluster)
}

/// Up to the first command that was asked for after the last campaign: the times at which the
/// first of all new commands, and that one, were known to be committed.
fn settle(cluster: &mut Cluster, prober: &mut Prober, cut: Time) -> Option<(Time, Time)> {
    let limit = cut.after(cluster.options.election_timeout() * SERVE_WITHIN);
    let (mut known, mut since) = (campaigns(cluster), cut);
    let (mut down, mut settled) = (None, None);
    while cluster.now < limit && cluster.violation().is_none() {
        prober.ask_for(cluster, PAUSE);
        if campaigns(cluster) != known {
            known = campaigns(cluster);
            since = cluster.now;
            settled = None;
        }
        let newest = prober.newest_served(cluster);
        if newest >= Some(cut) {
            down = down.or(Some(cluster.now));
        }
        if newest >= Some(since) {
            settled = settled.or(Some(cluster.now));
        }
    }
    if down.is_none() || settled.is_none() {
        let what = if down.is_none() { "no new command" } else { "no leader that stays" };
        cluster.no_progress(&format!("{what} within {SERVE_WITHIN} election timeouts of the cut"));
    }
    down.zip(settled)
}

/// Nobody campaigns, and commands are committed: the longest that one of them took.
fn stay(cluster: &mut Cluster, prober: &mut Prober, settled: Time) -> Option<Duration> {
    let timeout = cluster.options.election_timeout();
    let before = campaigns(cluster);
    let mut slowest = Duration::ZERO;
    while cluster.now < settled.after(timeout * STAY) && cluster.violation().is_none() {
        let asked = cluster.now;
        prober.ask(cluster);
        let is_served = |cluster: &mut Cluster| prober.newest_served(cluster) >= Some(asked);
        let served = cluster.run_until_done(timeout, is_served);
        slowest = slowest.max(cluster.now.since(asked));
        if !served {
            cluster.no_progress("a command takes longer than an election timeout");
        } else if campaigns(cluster) != before {
            let after = cluster.now.since(settled);
            cluster.no_progress(&format!("somebody campaigns {after:?} after service was back"));
        }
        cluster.run_until(asked.after(timeout / LOOKS));
    }
    cluster.violation().is_none().then_some(slowest)
}

fn campaigns(cluster: &Cluster) -> u64 {
    let processes = cluster.nodes.iter().filter_map(|node| node.process.as_ref());
    processes.map(|process| process.counters().campaigns).sum()
}

fn won(cluster: &Cluster) -> u64 {
    let processes = cluster.nodes.iter().filter_map(|node| node.process.as_ref());
    processes.map(|process| process.counters().elections_won).sum()
}

/// Asks for commands.
#[derive(Debug, Default)]
struct Prober {
    requests: u64,
    /// What bare replicas were asked and have not committed.
    open: Vec<(Time, ReplicaId, Slot, RequestNumber)>,
    newest: Option<Time>,
}

impl Prober {
    /// Lets time pass, with a command now and then.
    fn ask_for(&mut self, cluster: &mut Cluster, duration: Duration) {
        let end = cluster.now.after(duration);
        while cluster.now < end && cluster.violation().is_none() {
            self.ask(cluster);
            let next = cluster.now.after(PAUSE);
            cluster.run_until(next.min(end));
            self.newest_served(cluster);
        }
    }

    /// Asks for one command of everybody who may have it committed.
    fn ask(&mut self, cluster: &mut Cluster) {
        for id in cluster.ids() {
            if cluster.fleet.is_some() {
                cluster.fleet_probes(id, true);
                continue;
            }
            if cluster.status(id).is_none_or(|status| status.role != Role::Leader) {
                continue;
            }
            self.requests += 1;
            let request = RequestNumber::new(self.requests);
            let command = Command::apply(PROBE, request, Bytes::from_static(b"probe"));
            if let Some(Ok(proposed)) = cluster.propose(id, &[command]) {
                self.open.push((cluster.now, id, proposed.slot, request));
            }
        }
    }

    /// When the newest command was asked for of those that somebody knows to be committed.
    fn newest_served(&mut self, cluster: &Cluster) -> Option<Time> {
        if let Some(fleet) = &cluster.fleet {
            return fleet.newest_served();
        }
        let newest = &mut self.newest;
        self.open.retain(|(asked, id, slot, request)| {
            let knows = cluster.status(*id).is_some_and(|status| status.committed >= *slot);
            if knows && cluster.check.slot_of(PROBE, *request) == Some(*slot) {
                *newest = (*newest).max(Some(*asked));
            }
            // What a deposed leader proposed may be committed under another; it is not told.
            !knows
        });
        *newest
    }
}
