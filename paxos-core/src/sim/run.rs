//! One random run: a phase with faults, a phase without, and a phase of rest.
//!
//! Owns: [`run_seed`]. The same seed gives the same run, to the last event.
//! Invariant: safety is checked throughout; progress is demanded only after the faults, within
//! bounds counted in election timeouts.

use core::time::Duration;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;

use super::check::{Invariant, Violation};
use super::client::Client;
use super::cluster::{Cluster, Due};
use super::disk::{CrashStorage, SimDisk};
use super::drive::count_living;
use super::fault::{Fault, Plan};
use super::host::Fleet;
use super::options::Options;
use super::report::Totals;
use super::trace::Trace;
use crate::ballot::Ballot;
use crate::ids::{ClientId, ReplicaId, RequestNumber, Slot, Time};
use crate::message::Connectivity;
use crate::output::Role;
use crate::port::Format;
use crate::value::Command;

/// The client that asks whether the cluster serves again.
const PROBE: ClientId = ClientId::new(1_000_000);
/// A new command is chosen within so many election timeouts after the faults.
const SERVE_WITHIN: u32 = 4;
/// Everything is resolved and everywhere within so many.
const CONVERGE_WITHIN: u32 = 40;
/// So many are then watched in which nothing may change.
const REST: u32 = 4;

/// How large random runs are.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The most replicas: 1 to 9.
    pub replicas_max: u16,
    /// How many clients.
    pub clients: u64,
    /// How many commands of all clients together.
    pub commands: u64,
    /// Whether messages travel as bytes through the codec.
    pub codec: bool,
    /// How many events the trace remembers.
    pub trace_capacity: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { replicas_max: 5, clients: 3, commands: 100, codec: true, trace_capacity: 0 }
    }
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// The first broken invariant.
    pub violation: Option<Violation>,
    /// What it saw.
    pub totals: Totals,
    /// The same for every run of this seed.
    pub hash: u128,
    /// The last events; none where the limits keep none.
    pub trace: Trace,
}

/// Runs a seed on simulated disks.
pub fn run_seed(seed: u64, limits: &Limits) -> Outcome {
    run_seed_on(seed, limits, |format| Box::new(SimDisk::new(format)))
}

/// Runs a seed on storages that `make` formats.
pub fn run_seed_on(
    seed: u64,
    limits: &Limits,
    make: impl FnMut(Format) -> Box<dyn CrashStorage>,
) -> Outcome {
    let plan = Plan::new(seed, limits);
    let cluster = Cluster::with_storage(plan.options.clone(), make);
    run_cluster(cluster, &plan, limits)
}

/// Runs a seed with whole nodes: `fleet` is given the options of the cluster, to change where its
/// hosts need others, and makes who makes the hosts and speaks for their clients.
pub fn run_seed_of_hosts(
    seed: u64,
    limits: &Limits,
    make: impl FnMut(Format) -> Box<dyn CrashStorage>,
    fleet: impl FnOnce(&mut Options) -> Box<dyn Fleet>,
) -> Outcome {
    let mut plan = Plan::new(seed, limits);
    let fleet = fleet(&mut plan.options);
    let cluster = Cluster::with_fleet(plan.options.clone(), make, fleet);
    run_cluster(cluster, &plan, limits)
}

fn run_cluster(mut cluster: Cluster, plan: &Plan, limits: &Limits) -> Outcome {
    let course = || course(&mut cluster, plan, limits);
    // A failed assertion is reported like a broken invariant, with the trace that led to it.
    let panic = catch_unwind(AssertUnwindSafe(course)).err();
    if let Some(panic) = panic {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let detail = || text.unwrap_or_else(|| "a panic without words".to_owned());
        cluster.check.fail(Invariant::NoPanic, detail);
    } else {
        count_living(&mut cluster);
        cluster.count_fleet();
    }
    cluster.totals.seeds = 1;
    Outcome {
        seed: plan.options.seed,
        violation: cluster.check.violation().cloned(),
        hash: cluster.trace.hash(),
        trace: cluster.trace,
        totals: cluster.totals,
    }
}

fn course(cluster: &mut Cluster, plan: &Plan, limits: &Limits) {
    let hosted = cluster.fleet.as_ref().map(|fleet| fleet.clients());
    for client in 0..hosted.unwrap_or_default() {
        cluster.queue(Time::ZERO, Due::Client(client));
    }
    let bare = if hosted.is_some() { 0 } else { limits.clients };
    for number in 0..bare {
        let share = limits.commands / limits.clients;
        let first = if number == 0 { limits.commands % limits.clients } else { 0 };
        cluster.clients.push(Client::new(number + 1, share + first));
        cluster.queue(Time::ZERO, Due::Client(number as usize));
    }
    for (kind, lose_after, repeat_after) in &plan.forced {
        cluster.network.force(*kind, *lose_after, *repeat_after);
    }
    cluster.under_faults = true;
    for (at, fault) in &plan.faults {
        cluster.run_until(*at);
        cluster.suffer(fault);
    }
    cluster.run_until(plan.end);
    cluster.under_faults = false;
    cluster.recover();
    if cluster.violation().is_none() {
        serves_again(cluster);
    }
    if cluster.violation().is_none() {
        converges(cluster);
    }
    if cluster.violation().is_none() {
        rests(cluster);
    }
    if let Some(fleet) = &mut cluster.fleet
        && let Err(wrong) = fleet.verdict(true)
    {
        cluster.check.fail(Invariant::Answers, || wrong);
    }
}

impl Cluster {
    /// Lets a fault happen.
    pub fn suffer(&mut self, fault: &Fault) {
        self.remark(format!("{fault:?}"));
        match fault {
            Fault::Crash(id, down) => {
                if self.node(*id).is_up() {
                    self.crash(*id);
                    self.restart_after(*id, *down);
                }
            }
            Fault::CrashWhenWriting(id, down) => self.crash_when_writing(*id, *down),
            Fault::Pause(id, pause) => self.pause(*id, *pause),
            Fault::Cut(shape) => {
                self.totals.partitions += 1;
                self.network.shape(shape);
            }
            Fault::Heal => self.network.heal(),
            Fault::Weather(weather) => self.network.set_weather(*weather),
            Fault::Disk(id, fault) => self.strike(*id, *fault),
        }
    }

    /// Ends all faults: the network is calm, the disks are quick, every process runs.
    pub fn recover(&mut self) {
        self.remark("the faults end".to_owned());
        self.network.calm();
        let quick = self.options.config.heartbeat_interval / 8;
        self.options.disk_delay_max = self.options.disk_delay_max.min(quick);
        self.options.apply_delay_max = self.options.apply_delay_max.min(quick);
        for id in self.ids() {
            let now = self.now;
            let node = self.node_mut(id);
            node.crash_when_writing = false;
            node.paused_until = node.paused_until.min(now);
            self.calm_disk(id);
            self.restart(id);
        }
    }

    fn leader(&self) -> Option<ReplicaId> {
        let leads = |id: &ReplicaId| {
            let status = self.status(*id)?;
            (status.role == Role::Leader).then_some((status.leader, *id))
        };
        self.ids().filter_map(|id| leads(&id)).max().map(|(_, id)| id)
    }

    fn describe(&self) -> String {
        let of = |id: ReplicaId| match self.status(id) {
            Some(s) => format!(
                "r{}: {} of {:?}, promised {:?}, committed {}, applied {}, in flight {}, \
                 unproved {}, {:?}; ",
                id.number(),
                s.role,
                s.leader.map(|ballot| ballot.to_string()),
                s.promised.map(|ballot| ballot.to_string()),
                s.committed.number(),
                s.applied.number(),
                s.slots_in_flight,
                s.writes_pending,
                s.connectivity,
            ),
            None => format!("r{}: down; ", id.number()),
        };
        self.ids().map(of).collect()
    }

    fn no_progress(&mut self, what: &str) {
        let detail = self.describe();
        self.check.fail(Invariant::Progress, || format!("{what}: {detail}"));
    }
}

/// A new command is chosen, and the leader knows it, soon after the faults.
fn serves_again(cluster: &mut Cluster) {
    let pause = cluster.options.config.heartbeat_interval / 2;
    let (mut next, mut request) = (cluster.now, 0);
    let mut asked: Vec<(ReplicaId, Slot, RequestNumber)> = Vec::new();
    let within = cluster.options.election_timeout() * SERVE_WITHIN;
    let served = cluster.run_until_done(within, |cluster| {
        if cluster.fleet.as_ref().is_some_and(|fleet| fleet.is_served()) {
            return true;
        }
        for (id, slot, number) in &asked {
            if cluster.check.slot_of(PROBE, *number) == Some(*slot) {
                let status = cluster.status(*id);
                return status.is_some_and(|status| status.committed >= *slot);
            }
        }
        let leader = cluster.leader().filter(|_| cluster.now >= next);
        if let Some(id) = leader {
            next = cluster.now.after(pause);
            if cluster.fleet.is_some() {
                cluster.fleet_probes(id);
                return false;
            }
            request += 1;
            let number = RequestNumber::new(request);
            let command = Command::apply(PROBE, number, Bytes::from_static(b"probe"));
            if let Some(Ok(proposed)) = cluster.propose(id, &[command]) {
                asked.push((id, proposed.slot, number));
            }
        }
        false
    });
    if !served {
        let timeouts = SERVE_WITHIN;
        cluster.no_progress(&format!("no new command chosen within {timeouts} election timeouts"));
    }
}

/// Every command is resolved, and everything chosen is applied everywhere.
fn converges(cluster: &mut Cluster) {
    let left = cluster.commands_left();
    // What clients have not asked yet comes on top, at a leisurely pace.
    let timeouts = CONVERGE_WITHIN + u32::try_from(left).unwrap_or(u32::MAX / 2) / 2;
    let within = cluster.options.election_timeout() * timeouts;
    let poll = Duration::from_millis(5);
    let mut next = Time::ZERO;
    let mut leader = (None, cluster.now);
    let done = cluster.run_until_done(within, |cluster| {
        if cluster.now < next {
            return false;
        }
        next = cluster.now.after(poll);
        // What was said before the faults ended may still unseat a leader for one timeout.
        let agreed = agreed_leader(cluster);
        if agreed != leader.0 {
            leader = (agreed, cluster.now);
        }
        let settled = cluster.now.since(leader.1) > cluster.options.election_timeout();
        agreed.is_some() && settled && cluster.open_clients() == 0 && is_at_rest(cluster)
    });
    if !done {
        let open = cluster.open_clients();
        cluster.no_progress(&format!("not converged, {open} clients wait"));
    }
}

fn is_at_rest(cluster: &Cluster) -> bool {
    let prefix = cluster.check.chosen_prefix();
    cluster.ids().filter(|id| !cluster.is_spent(*id)).all(|id| {
        cluster.is_quiet(id)
            && cluster.status(id).is_some_and(|status| {
                status.applied == prefix
                    && status.committed == prefix
                    && status.slots_in_flight == 0
                    && status.bytes_in_flight == 0
                    && status.writes_pending == 0
            })
    })
}

/// The ballot that every replica follows, and whose leader knows that it leads.
fn agreed_leader(cluster: &Cluster) -> Option<Ballot> {
    let living = cluster.ids().filter(|id| !cluster.is_spent(*id));
    let mut leaders = living.map(|id| cluster.status(id)?.leader);
    let first = leaders.next()??;
    let agreed = leaders.all(|leader| leader == Some(first));
    let leads = cluster.status(first.leader()).is_some_and(|status| {
        status.role == Role::Leader && status.connectivity == Connectivity::Quorum
    });
    (agreed && leads).then_some(first)
}

/// Nobody disturbs the leader, and nothing is left in flight.
fn rests(cluster: &mut Cluster) {
    let before = agreed_leader(cluster);
    cluster.run_for(cluster.options.election_timeout() * REST);
    let after = agreed_leader(cluster);
    if before != after {
        cluster.no_progress(&format!("no stable leader: {before:?}, then {after:?}"));
    }
    if !is_at_rest(cluster) {
        let detail = cluster.describe();
        cluster.check.fail(Invariant::EmptyWhenIdle, || detail);
    }
}
