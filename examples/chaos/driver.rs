//! Carries episodes out while clients work.
//!
//! Owns: the course of a run from the first process to the last reading, and what it counts.
//! Invariants: faults are healed between episodes and at the end, however the run ends; every fault
//! of a replica that no episode explains is a violation.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::cluster::Cluster;
use crate::episode::{self, Episode, Scene, Step};
use crate::fault::Fault;
use crate::history::Operation;
use crate::load::{self, Load, Shared};
use crate::rng::Rng;
use crate::say;

/// How often the clock, the processes and the wish to stop are looked at.
const GLANCE: Duration = Duration::from_millis(10);
/// How long the replicas may take to serve at the beginning, and to agree at the end.
const SETTLE: Duration = Duration::from_secs(60);
/// The longest that each client waits between two requests.
const PACE: Duration = Duration::from_millis(20);
/// How long nothing is wrong between two episodes, in milliseconds.
const CALM_MS: (u64, u64) = (200, 1_200);

/// An episode that was carried out.
#[derive(Clone, Debug)]
pub(crate) struct Past {
    pub(crate) faults: Vec<Fault>,
    /// Nanoseconds since the run began.
    pub(crate) start: u64,
    pub(crate) end: u64,
}

/// What a run left.
#[derive(Debug, Default)]
pub(crate) struct Run {
    pub(crate) episodes: Vec<Past>,
    pub(crate) history: Vec<Operation>,
    pub(crate) succeeded_stressed: u64,
    /// What replicas or their agreement got wrong.
    pub(crate) violations: Vec<String>,
    /// Replicas that stopped by themselves because a fault made them.
    pub(crate) expected_ends: u64,
    pub(crate) kills: u64,
    pub(crate) pauses: u64,
    /// Those of them that struck the leader.
    pub(crate) leader_pauses: u64,
    /// How often a replica said at the end of an episode that its disk is full.
    pub(crate) full_disks: u64,
    /// On what the replicas agreed.
    pub(crate) agreement: Option<String>,
    /// When the last fault was healed, in nanoseconds since the run began.
    pub(crate) healed: u64,
}

/// What a run is given.
#[derive(Debug)]
pub(crate) struct Orders<'run> {
    pub(crate) menu: &'run [Fault],
    pub(crate) duration: Duration,
    pub(crate) seed: u64,
    /// Set when somebody wants the run to end.
    pub(crate) interrupted: &'run AtomicBool,
}

/// Runs a cluster that is laid out. The error says why the run could not be carried out.
pub(crate) fn run(cluster: &mut Cluster, orders: &Orders<'_>) -> Result<Run, String> {
    let nodes = cluster.clients().len();
    (0..nodes).try_for_each(|node| cluster.start(node, None))?;
    cluster.wait_until_equal(SETTLE)?;
    let load = Load::start(cluster.clients(), orders.seed, PACE);
    let mut driver = Driver { cluster, orders, shared: &load.shared, run: Run::default() };
    let result = driver.drive();
    let mut run = driver.run;
    if result.is_ok() && !orders.interrupted.load(Ordering::Relaxed) {
        wait_for_service(&load.shared, &mut run);
    }
    run.healed = load.shared.now();
    let (shared, history) = load.stop();
    run.history = history;
    run.succeeded_stressed = shared.succeeded_stressed.load(Ordering::Relaxed);
    result?;
    if !orders.interrupted.load(Ordering::Relaxed) {
        settle(cluster, &shared, &mut run);
    }
    run.violations.extend(cluster.panics());
    Ok(run)
}

/// Waits until clients are served again.
fn wait_for_service(shared: &Shared, run: &mut Run) {
    let goal = shared.succeeded.load(Ordering::Relaxed) + 50;
    let start = Instant::now();
    while shared.succeeded.load(Ordering::Relaxed) < goal {
        if start.elapsed() > SETTLE {
            run.violations.push(format!("no service {SETTLE:?} after the last fault"));
            return;
        }
        thread::sleep(GLANCE);
    }
}

/// Waits for agreement and reads everything at every replica.
fn settle(cluster: &mut Cluster, shared: &Shared, run: &mut Run) {
    let mut keys: Vec<_> = run.history.iter().map(|operation| operation.key.clone()).collect();
    keys.sort_unstable();
    keys.dedup();
    let agreed = cluster.wait_until_equal(SETTLE);
    let read = agreed.and_then(|_| load::read_finally(shared, &keys)).and_then(|readings| {
        run.history.extend(readings);
        cluster.wait_until_equal(SETTLE)
    });
    match read {
        Ok(agreement) => run.agreement = Some(agreement),
        Err(error) => run.violations.push(error),
    }
    run.violations.extend(cluster.ends().into_iter().map(|end| end.text));
}

struct Driver<'run> {
    cluster: &'run mut Cluster,
    orders: &'run Orders<'run>,
    shared: &'run Shared,
    run: Run,
}

impl Driver<'_> {
    fn drive(&mut self) -> Result<(), String> {
        let start = Instant::now();
        let mut rng = Rng::new(self.orders.seed, 0);
        let mut calm = Duration::from_secs(1);
        let mut result = Ok(());
        while self.wait_until(Instant::now() + calm) && start.elapsed() < self.orders.duration {
            let leader = self.cluster.leader();
            let nodes = self.cluster.clients().len();
            let scene = Scene { menu: self.orders.menu, nodes, leader };
            let episode = episode::draw(&scene, &mut rng);
            result = self.carry_out(&episode, leader);
            if result.is_err() {
                break;
            }
            calm = Duration::from_millis(rng.within(CALM_MS.0, CALM_MS.1));
        }
        // Healed even where an episode could not be carried out.
        result.and(self.heal())
    }

    fn carry_out(&mut self, episode: &Episode, leader: Option<usize>) -> Result<(), String> {
        let begun = Instant::now();
        let start = self.shared.now();
        let before = self.shared.succeeded.load(Ordering::Relaxed);
        self.shared.stressed.store(true, Ordering::Relaxed);
        for (at, step) in &episode.steps {
            if !self.wait_until(begun + *at) {
                break;
            }
            self.take(step)?;
        }
        self.wait_until(begun + episode.length);
        if episode.faults.contains(&Fault::DiskFull) && self.cluster.says_full() {
            self.run.full_disks += 1;
        }
        self.shared.stressed.store(false, Ordering::Relaxed);
        self.shared.bulky.store(false, Ordering::Relaxed);
        let end = self.shared.now();
        self.heal()?;
        let names: Vec<_> = episode.faults.iter().map(|fault| fault.name()).collect();
        let after = self.shared.succeeded.load(Ordering::Relaxed);
        say(format_args!(
            "{:7.1} s  {:4.1} s  leader {}  {:5} ok  {}",
            Duration::from_nanos(start).as_secs_f64(),
            Duration::from_nanos(end - start).as_secs_f64(),
            leader.map_or("-".into(), |leader| (leader + 1).to_string()),
            after - before,
            names.join(" + ")
        ));
        self.run.episodes.push(Past { faults: episode.faults.clone(), start, end });
        Ok(())
    }

    fn heal(&mut self) -> Result<(), String> {
        self.look_for_ends();
        self.cluster.heal()
    }

    fn take(&mut self, step: &Step) -> Result<(), String> {
        let cluster = &mut *self.cluster;
        match step {
            Step::Cut(ways) => {
                for way in ways {
                    cluster.proxy.change(*way, |rule| rule.cut = true);
                }
            }
            Step::Mend(ways) => {
                for way in ways {
                    cluster.proxy.change(*way, |rule| rule.cut = false);
                }
            }
            Step::Worsen(ways, worse) => {
                for way in ways {
                    cluster.proxy.change(*way, |rule| *rule = rule.and(*worse));
                }
            }
            Step::Filter(ways, permille) => {
                for (from, to) in ways {
                    cluster.filter(*from, *to, *permille)?;
                }
            }
            Step::Kill(nodes) => {
                self.run.kills += nodes.len() as u64;
                for node in nodes {
                    cluster.kill(*node);
                }
            }
            Step::Start(node, injection) => cluster.start(*node, injection.clone())?,
            Step::Pause(node) => {
                self.run.pauses += 1;
                self.run.leader_pauses += u64::from(cluster.leader() == Some(*node));
                cluster.pause(*node)?;
            }
            Step::Resume(node) => cluster.resume(*node)?,
            Step::Fill => {
                self.shared.bulky.store(true, Ordering::Relaxed);
                cluster.fill()?;
            }
        }
        Ok(())
    }

    /// Waits, and looks after the processes meanwhile. False if the run is to end.
    fn wait_until(&mut self, moment: Instant) -> bool {
        loop {
            self.look_for_ends();
            if self.orders.interrupted.load(Ordering::Relaxed) {
                return false;
            }
            let left = moment.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            thread::sleep(left.min(GLANCE));
        }
    }

    fn look_for_ends(&mut self) {
        for end in self.cluster.ends() {
            if end.expected {
                self.run.expected_ends += 1;
            } else {
                say(format_args!("{}", end.text));
                self.run.violations.push(end.text);
            }
        }
    }
}
