//! One random run: a phase with faults, and a phase in which progress is demanded of a core.
//!
//! Owns: [`run_seed`]. The same seed gives the same run, to the last event.
//! Invariant: safety is checked throughout; progress is demanded only after the faults, within
//! bounds counted in election timeouts.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::check::{Invariant, Violation};
use super::client::Client;
use super::cluster::{Cluster, Due};
use super::disk::{CrashStorage, SimDisk};
use super::drive::count_living;
use super::host::Fleet;
use super::liveness::demand_progress;
use super::options::Options;
use super::plan::{Plan, Profile};
use super::report::Totals;
use super::suffer::seat;
use super::trace::Trace;
use crate::ids::Time;
use crate::port::Format;

/// How large random runs are.
#[derive(Clone, Debug)]
pub struct Limits {
    /// How faults are drawn.
    pub profile: Profile,
    /// The fewest replicas: 1 to 9.
    pub replicas_min: u16,
    /// The most replicas: at least the fewest, at most 9.
    pub replicas_max: u16,
    /// How many clients.
    pub clients: u64,
    /// How many commands of all clients together.
    pub commands: u64,
    /// Whether some clusters have leases.
    pub leases: bool,
    /// Whether the membership of some clusters changes.
    pub changes: bool,
    /// Whether messages travel as bytes through the codec.
    pub codec: bool,
    /// How many events the trace remembers.
    pub trace_capacity: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            profile: Profile::Mixed,
            replicas_min: 1,
            replicas_max: 9,
            clients: 3,
            commands: 100,
            leases: true,
            changes: true,
            codec: true,
            trace_capacity: 0,
        }
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
    run_plan_on(&Plan::new(seed, limits), limits, make)
}

/// Runs a plan on storages that `make` formats. Of the limits, only the clients count.
pub fn run_plan_on(
    plan: &Plan,
    limits: &Limits,
    make: impl FnMut(Format) -> Box<dyn CrashStorage>,
) -> Outcome {
    let cluster = Cluster::with_storage(plan.options.clone(), make);
    run_cluster(cluster, plan, limits)
}

/// Runs a seed with whole nodes: `fleet` is given the options of the cluster, to change where its
/// hosts need others, and makes who makes the hosts and speaks for their clients.
pub fn run_seed_of_hosts(
    seed: u64,
    limits: &Limits,
    make: impl FnMut(Format) -> Box<dyn CrashStorage>,
    fleet: impl FnOnce(&mut Options) -> Box<dyn Fleet>,
) -> Outcome {
    // Hosts of these runs keep the members that they were built with.
    let mut plan = Plan::new(seed, &Limits { changes: false, ..limits.clone() });
    let fleet = fleet(&mut plan.options);
    let cluster = Cluster::with_fleet(plan.options.clone(), make, fleet);
    run_cluster(cluster, &plan, limits)
}

fn run_cluster(cluster: Cluster, plan: &Plan, limits: &Limits) -> Outcome {
    run_course(cluster, |cluster| course(cluster, plan, limits))
}

/// Lets a course happen to a cluster, and says what came of it.
pub(super) fn run_course(mut cluster: Cluster, course: impl FnOnce(&mut Cluster)) -> Outcome {
    let course = || course(&mut cluster);
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
        seed: cluster.options.seed,
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
    for id in &plan.doomed {
        cluster.trouble.doomed.insert(seat(*id));
    }
    cluster.under_faults = true;
    for (at, fault) in &plan.faults {
        cluster.run_until(*at);
        cluster.suffer(fault);
    }
    cluster.run_until(plan.end);
    cluster.under_faults = false;
    if cluster.violation().is_none() {
        demand_progress(cluster);
    }
    if let Some(fleet) = &mut cluster.fleet
        && let Err(wrong) = fleet.verdict(true)
    {
        cluster.check.fail(Invariant::Answers, || wrong);
    }
}
