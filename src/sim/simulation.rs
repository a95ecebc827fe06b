//! Many seeds of one state machine under test.
//!
//! Owns: [`Simulation`], what is tested and how; [`Report`] and [`Failure`], what came of it.

use core::fmt;
use core::hash::Hash;
use core::ops::Range;
use std::sync::Arc;

use paxos_core::port::Format;
use paxos_core::sim::linear::{Budget, Specification, check};
use paxos_core::sim::{
    Case, CrashStorage, Limits, Measured, Outcome, Rng, Totals, Trace, Violation,
    run_preset_of_hosts, run_seed_of_hosts,
};

use super::fleet::SimFleet;
use super::itself::AsItself;
use super::witness::explains;
use super::{Answer, Digest, HistoryOf, Question};
use crate::codec::{CommandCodec, Postcard};
use crate::machine::StateMachine;

/// A failed seed is replayed to show so many of its last events.
const EVENTS_SHOWN: usize = 60;

/// Where the log explains nothing, a short search tells whether something else might: there should
/// be nothing, so that a longer one is a waste.
const SEARCH: Budget = Budget { steps: 300_000, configurations: 50_000 };

type Make<M> = Arc<dyn Fn() -> M + Send + Sync>;
type Workload<M> = Arc<
    dyn Fn(&mut Rng) -> Question<<M as StateMachine>::Command, <M as StateMachine>::Query>
        + Send
        + Sync,
>;
/// Is given a history, and which of its operations stand in the log, in the order of the log.
type HistoryCheck<M> = Arc<dyn Fn(&HistoryOf<M>, &[usize]) -> Result<(), String> + Send + Sync>;
type MakeStorage = Arc<dyn Fn(Format) -> Box<dyn CrashStorage> + Send + Sync>;

/// What is the same for every node and client of every seed.
pub(super) struct Setting<M: StateMachine> {
    pub(super) make: Make<M>,
    pub(super) workload: Workload<M>,
    pub(super) codec: Arc<dyn CommandCodec<M::Command>>,
    pub(super) digest: Option<Digest<M>>,
    pub(super) checks: Vec<HistoryCheck<M>>,
    pub(super) limits: Limits,
    pub(super) storage: MakeStorage,
}

impl<M: StateMachine> Clone for Setting<M> {
    fn clone(&self) -> Self {
        Self {
            make: Arc::clone(&self.make),
            workload: Arc::clone(&self.workload),
            codec: Arc::clone(&self.codec),
            digest: self.digest.clone(),
            checks: self.checks.clone(),
            limits: self.limits.clone(),
            storage: Arc::clone(&self.storage),
        }
    }
}

/// A test of a state machine: clusters of whole nodes that run it, each from a seed, with faults of
/// every kind, and clients that ask. Begin with [`Simulation::new`], end with [`Simulation::run`].
pub struct Simulation<M: StateMachine> {
    setting: Setting<M>,
    seeds: Range<u64>,
}

impl<M: StateMachine> fmt::Debug for Simulation<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulation")
            .field("seeds", &self.seeds)
            .field("limits", &self.setting.limits)
            .finish_non_exhaustive()
    }
}

#[cfg(feature = "wal")]
fn usual_storage(format: Format) -> Box<dyn CrashStorage> {
    Box::new(paxos_storage::sim::SimWal::new(format))
}

#[cfg(not(feature = "wal"))]
fn usual_storage(format: Format) -> Box<dyn CrashStorage> {
    Box::new(paxos_core::sim::SimDisk::new(format))
}

impl<M> Simulation<M>
where
    M: StateMachine,
    M::Command: Clone,
    M::Query: Clone,
{
    /// A test of the machines that `make` makes, each like the other, with clients that ask what
    /// `workload` draws. Ten seeds, up to five replicas, and a hundred requests of three clients
    /// in each, on the real log (with feature `wal`), unless something else is said.
    pub fn new(
        make: impl Fn() -> M + Send + Sync + 'static,
        workload: impl Fn(&mut Rng) -> Question<M::Command, M::Query> + Send + Sync + 'static,
    ) -> Self {
        let setting = Setting {
            make: Arc::new(make),
            workload: Arc::new(workload),
            codec: Arc::new(Postcard),
            digest: None,
            checks: Vec::new(),
            limits: Limits::default(),
            storage: Arc::new(usual_storage),
        };
        Self { setting, seeds: 0..10 }
    }

    /// Runs these seeds.
    #[must_use]
    pub fn seeds(mut self, seeds: Range<u64>) -> Self {
        self.seeds = seeds;
        self
    }

    /// How large each seed is.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.setting.limits = limits;
        self
    }

    /// How commands become bytes, where it is not [`Postcard`].
    #[must_use]
    pub fn codec(mut self, codec: impl CommandCodec<M::Command>) -> Self {
        self.setting.codec = Arc::new(codec);
        self
    }

    /// On which simulated storage the nodes run.
    #[must_use]
    pub fn storage(
        mut self,
        make: impl Fn(Format) -> Box<dyn CrashStorage> + Send + Sync + 'static,
    ) -> Self {
        self.setting.storage = Arc::new(make);
        self
    }

    /// Compares the states of all replicas by this digest, after each slot that holds commands.
    /// [`super::digest_of`] makes one of anything that can be hashed.
    #[must_use]
    pub fn digest(mut self, digest: impl Fn(&M) -> u64 + Send + Sync + 'static) -> Self {
        self.setting.digest = Some(Arc::new(digest));
        self
    }

    /// Judges the history of each seed, once nothing more is asked.
    #[must_use]
    pub fn check(
        mut self,
        check: impl Fn(&HistoryOf<M>) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        self.setting.checks.push(Arc::new(move |history: &_, _: &_| check(history)));
        self
    }

    /// Requires of each history that it is linearizable: that some order of the requests, each
    /// between its question and its answer, gives these answers by this specification.
    #[must_use]
    pub fn linearizable<S>(mut self, specification: S) -> Self
    where
        S: Specification<
                Call = Question<M::Command, M::Query>,
                Reply = Answer<M::Reply, M::Answer>,
            > + Send
            + Sync
            + 'static,
    {
        let judge = move |history: &HistoryOf<M>, log: &[usize]| {
            // The log is the order that should explain the history. Another one might, but to look
            // for it takes time that grows exponentially with the requests of unknown outcome.
            let Err(why) = explains(&specification, history, log) else {
                return Ok(());
            };
            let verdict = check(&specification, history, SEARCH);
            verdict.into_result().map(drop).map_err(|failure| format!("{why}; {failure}"))
        };
        self.setting.checks.push(Arc::new(judge));
        self
    }

    /// Requires of each history that it is linearizable, with the machine itself as specification:
    /// given one command at a time, in batches of one. For machines that look neither at the slot
    /// nor at the clock of a batch.
    #[must_use]
    pub fn linearizable_as_itself(self) -> Self
    where
        M: Clone + fmt::Debug + Eq + Hash,
        M::Command: fmt::Debug,
        M::Query: fmt::Debug,
        M::Reply: fmt::Debug + PartialEq,
        M::Answer: fmt::Debug + PartialEq,
    {
        let make = Arc::clone(&self.setting.make);
        self.linearizable(AsItself { make })
    }

    /// Runs one seed. The same seed gives the same outcome, to the last event.
    pub fn run_seed(&self, seed: u64, limits: &Limits) -> Outcome {
        let setting = Setting { limits: limits.clone(), ..self.setting.clone() };
        let setting = Arc::new(setting);
        let storage = Arc::clone(&setting.storage);
        run_seed_of_hosts(
            seed,
            limits,
            |format| storage(format),
            |options| {
                // A user's command is as large as it is.
                let usual = paxos_core::config::Config::default();
                options.config.batch_bytes_max = usual.batch_bytes_max;
                options.config.window_bytes_max = usual.window_bytes_max;
                Box::new(SimFleet::new(Arc::clone(&setting), options, limits.commands, false))
            },
        )
    }

    /// Measures how long a cluster does not serve when links break as the case says, and whether
    /// its leader stays then.
    pub fn run_preset(&self, seed: u64, case: Case, limits: &Limits) -> Measured {
        let setting = Arc::new(Setting { limits: limits.clone(), ..self.setting.clone() });
        let storage = Arc::clone(&setting.storage);
        run_preset_of_hosts(
            seed,
            case,
            limits,
            |format| storage(format),
            |options| Box::new(SimFleet::new(Arc::clone(&setting), options, 0, true)),
        )
    }

    /// Runs all seeds, up to the first that fails, which is run again to show its last events.
    pub fn run(&self) -> Result<Report, Box<Failure>> {
        let mut totals = Totals::default();
        for seed in self.seeds.clone() {
            let outcome = self.run_seed(seed, &self.setting.limits);
            totals.add(&outcome.totals);
            if let Some(violation) = outcome.violation {
                let limits = Limits { trace_capacity: EVENTS_SHOWN, ..self.setting.limits.clone() };
                let trace = self.run_seed(seed, &limits).trace;
                return Err(Box::new(Failure { seed, violation, trace }));
            }
        }
        Ok(Report { totals })
    }
}

/// What seeds saw that all passed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// Counts of all seeds: which faults there were, and what became of the requests.
    pub totals: Totals,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.totals.fmt(f)
    }
}

/// A seed that failed. Its text tells what was broken, and the last events before.
#[non_exhaustive]
pub struct Failure {
    /// The seed: [`Simulation::run_seed`] shows it again.
    pub seed: u64,
    /// What was broken.
    pub violation: Violation,
    /// The last events.
    pub trace: Trace,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.trace)?;
        write!(f, "seed {}: {}", self.seed, self.violation)
    }
}

/// As its text, for tests that end with the error.
impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.violation)
    }
}
