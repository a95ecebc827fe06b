//! The simulator of whole nodes, on machines that are right and on machines that are wrong.

use std::collections::{BTreeMap, HashMap};
use std::hash::RandomState;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use paxos::sim::linear::Specification;
use paxos::sim::{Answer, Failure, Limits, Question, Rng, Simulation, digest_of};
use paxos::{Batch, StateDigest, StateMachine, async_trait};

/// What makes a machine of this test wrong.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Fault {
    Nothing,
    /// Replies by the order of a hash map.
    Unordered,
    /// Keeps what a clock of its own shows.
    OwnClock,
    /// Panics at the tenth command.
    Panics,
    /// Answers a query by what it answered the first time in its life.
    Remembers,
    /// Waits for what never comes.
    Hangs,
    /// Keeps something else, which no reply shows.
    Astray,
}

/// A total that commands add to.
#[derive(Debug)]
struct Adder {
    fault: Fault,
    total: u64,
    commands: u64,
    shown: u64,
    unordered: HashMap<u64, u64, RandomState>,
    born: Instant,
    remembered: AtomicU64,
}

impl Adder {
    fn new(fault: Fault) -> Self {
        Self {
            fault,
            total: 0,
            commands: 0,
            shown: 0,
            unordered: HashMap::default(),
            born: Instant::now(),
            remembered: AtomicU64::new(u64::MAX),
        }
    }

    fn add(&mut self, more: u64) -> u64 {
        self.total += more;
        self.commands += 1;
        self.unordered.insert(self.commands, more);
        match self.fault {
            Fault::Unordered => self.unordered.values().next().copied().unwrap_or_default(),
            Fault::OwnClock => {
                self.shown = u64::try_from(self.born.elapsed().as_nanos()).unwrap();
                self.total
            }
            Fault::Panics => {
                assert!(self.commands < 10, "the tenth");
                self.total
            }
            Fault::Astray => {
                self.shown += 1;
                self.total
            }
            Fault::Nothing | Fault::Remembers | Fault::Hangs => self.total,
        }
    }
}

#[async_trait]
impl StateMachine for Adder {
    type Command = u64;
    type Reply = u64;
    type Query = ();
    type Answer = u64;

    async fn apply(&mut self, batch: Batch<u64>) -> Vec<u64> {
        if self.fault == Fault::Hangs && self.commands > 5 {
            std::future::pending::<()>().await;
        }
        batch.commands.into_iter().map(|more| self.add(more)).collect()
    }

    async fn query(&self, (): ()) -> u64 {
        if self.fault == Fault::Remembers {
            let first = u64::MAX;
            let _ = self.remembered.compare_exchange(
                first,
                self.total,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            return self.remembered.load(Ordering::Relaxed);
        }
        self.total
    }

    fn digest(&self) -> Option<StateDigest> {
        Some(StateDigest(u128::from(self.total) << 64 | u128::from(self.shown)))
    }
}

/// What an adder is to do.
struct Adding;

impl Specification for Adding {
    type State = u64;
    type Call = Question<u64, ()>;
    type Reply = Answer<u64, u64>;
    type Key = ();

    fn key(&self, _: &Self::Call) {}

    fn initial(&self, (): &()) -> u64 {
        0
    }

    fn step(&self, total: &u64, call: &Self::Call, reply: Option<&Self::Reply>) -> Option<u64> {
        let after = match call {
            Question::Command(more) => total + more,
            Question::Query(()) => *total,
        };
        match reply {
            Some(Answer::Reply(told) | Answer::Answer(told)) if *told != after => None,
            _ => Some(after),
        }
    }
}

fn draw(rng: &mut Rng) -> Question<u64, ()> {
    if rng.chance(400) { Question::Query(()) } else { Question::Command(rng.between(1, 1000)) }
}

fn simulation(fault: Fault) -> Simulation<Adder> {
    let limits = Limits { commands: 40, ..Limits::default() };
    Simulation::new(move || Adder::new(fault), draw)
        .digest(|adder| digest_of(&(adder.total, adder.shown)))
        .linearizable(Adding)
        .limits(limits)
}

fn failure(fault: Fault) -> Failure {
    *simulation(fault).seeds(0..50).run().expect_err("it is wrong, and that is seen")
}

#[test]
fn a_machine_that_is_a_function_of_its_commands_passes() {
    let report = simulation(Fault::Nothing).seeds(0..30).run().unwrap();
    let totals = report.totals;
    assert!(totals.crashes > 20 && totals.partitions > 20, "{totals}");
    assert!(totals.committed > 800 && totals.unknown > 0 && totals.rejected > 0, "{totals}");
    assert_eq!(totals.commands, totals.committed + totals.rejected + totals.unknown, "{totals}");
    assert!(totals.to_string().contains("state compared with that of a peer"), "{totals}");
}

#[test]
fn a_machine_that_replies_by_the_order_of_a_hash_map_is_caught() {
    let failure = failure(Fault::Unordered).to_string();
    assert!(failure.contains("gives other replies than another machine"), "{failure}");
}

#[test]
fn a_machine_that_keeps_what_its_own_clock_shows_is_caught() {
    let failure = failure(Fault::OwnClock).to_string();
    assert!(failure.contains("has digest"), "{failure}");
}

/// Nothing but the nodes compares states here: every fourth machine goes astray, in a way that no reply shows.
#[test]
fn nodes_catch_a_state_that_no_reply_shows() {
    let count = AtomicU64::new(0);
    let make = move || {
        let odd = count.fetch_add(1, Ordering::Relaxed) % 4 == 3;
        Adder::new(if odd { Fault::Astray } else { Fault::Nothing })
    };
    let limits = Limits { commands: 40, ..Limits::default() };
    let simulation = Simulation::new(make, draw).limits(limits).linearizable(Adding);
    let failure = simulation.seeds(0..50).run().expect_err("it is wrong, and that is seen");
    let words = failure.to_string();
    assert!(words.contains("went astray") || words.contains("different states"), "{words}");
}

#[test]
fn a_machine_that_panics_is_caught_and_the_slot_is_named() {
    let failure = failure(Fault::Panics).to_string();
    assert!(failure.contains("the tenth"), "{failure}");
}

#[test]
fn a_machine_that_waits_for_something_outside_is_caught() {
    let failure = failure(Fault::Hangs).to_string();
    assert!(failure.contains("waits for something outside"), "{failure}");
}

#[test]
fn a_machine_that_answers_queries_from_an_old_state_is_caught() {
    let failure = failure(Fault::Remembers).to_string();
    assert!(failure.contains("what clients were told is true of one history"), "{failure}");
}

/// The last events of a failed seed come with it, and the seed shows them again.
#[test]
fn a_failure_is_replayed_to_the_last_event() {
    let simulation = simulation(Fault::Remembers);
    let failure = simulation.seeds(0..50).run().expect_err("it is wrong");
    assert!(failure.trace.to_string().lines().count() >= 50);
    let again = self::simulation(Fault::Remembers);
    let limits = Limits { commands: 40, trace_capacity: 60, ..Limits::default() };
    let outcome = again.run_seed(failure.seed, &limits);
    assert_eq!(outcome.violation, Some(failure.violation.clone()));
    assert_eq!(outcome.trace.to_string(), failure.trace.to_string());
}

fn hashes() -> BTreeMap<u64, String> {
    let simulation = simulation(Fault::Nothing);
    let limits = Limits { commands: 40, ..Limits::default() };
    let hash = |seed| (seed, format!("{:032x}", simulation.run_seed(seed, &limits).hash));
    (100..110).map(hash).collect()
}

/// Where the child of the next test looks whether it is one.
const CHILD: &str = "PAXOS_SIM_PRINT_HASHES";

#[test]
#[expect(clippy::print_stdout, reason = "a child process tells its parent")]
fn the_same_seed_gives_the_same_run_twice_and_in_another_process() {
    let first = hashes();
    if std::env::var_os(CHILD).is_some() {
        println!("{first:?}");
        return;
    }
    assert_eq!(first, hashes());
    let distinct: std::collections::BTreeSet<_> = first.values().collect();
    assert_eq!(distinct.len(), first.len());
    let name = "sim_machines::the_same_seed_gives_the_same_run_twice_and_in_another_process";
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let printed = String::from_utf8(child.stdout).unwrap();
    assert!(printed.contains(&format!("{first:?}")), "{printed}");
}
