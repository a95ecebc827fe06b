//! Clients that ask, write and swap, and the history of what they were told.
//!
//! Owns: [`Load`], and the sequential description of the store for the checker of linearizability.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use paxos_core::sim::Rng;
use paxos_core::sim::linear::{Budget, Failure, History, Specification, check};
use serde_json::{Value, json};

use crate::examples::PATIENCE;
use crate::router::{Client, NODES, Router};

/// Clients of each node.
const CLIENTS: u64 = 2;
/// How long a client waits; longer than a node does, so that both kinds of not knowing occur.
const TIMEOUT: Duration = Duration::from_millis(1200);
/// Between two requests of a client. The checker's work grows with the number of requests.
const THINK: Duration = Duration::from_millis(3);
/// Each key is used for about so many requests, in which time a few keys are in use.
const REQUESTS_PER_KEY: u64 = 150;
const KEYS_IN_USE: u64 = 2;

#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Call {
    Read,
    Write(u64),
    Swap { from: u64, to: u64 },
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Reply {
    Value(u64),
    Written,
    Swapped,
    /// The key holds something else.
    Mismatch,
    /// The key holds nothing.
    Absent,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Outcome {
    Told(Reply),
    /// Certainly not carried out.
    Rejected,
    Unknown,
}

/// Times are nanoseconds since the load began.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub(crate) client: u64,
    pub(crate) node: usize,
    pub(crate) key: u64,
    pub(crate) call: Call,
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) outcome: Outcome,
}

impl Operation {
    pub(crate) fn succeeded(&self) -> bool {
        matches!(self.outcome, Outcome::Told(_))
    }
}

/// What the clients share.
#[derive(Debug)]
struct Shared {
    origin: Instant,
    asked: AtomicU64,
    stop: AtomicBool,
    operations: Mutex<Vec<Operation>>,
    /// What a client was last told that a key holds: a good guess of what it may be swapped for.
    told: Mutex<BTreeMap<u64, u64>>,
}

/// Clients at work.
#[derive(Debug)]
pub(crate) struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    pub(crate) fn start(router: &Router, seed: u64) -> Self {
        let shared = Arc::new(Shared {
            origin: Instant::now(),
            asked: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            operations: Mutex::default(),
            told: Mutex::default(),
        });
        let begin = |number: u64| {
            let node = number as usize % NODES.len();
            let client = router.client(&format!("c{number}"), NODES[node]);
            let shared = Arc::clone(&shared);
            let mut rng = Rng::new(seed ^ number << 32);
            thread::spawn(move || work(&shared, number, node, client, &mut rng))
        };
        let threads = (0..CLIENTS * NODES.len() as u64).map(begin).collect();
        Self { shared, threads }
    }

    pub(crate) fn now(&self) -> u64 {
        self.shared.now()
    }

    /// How many requests succeeded at these nodes that began and ended between these moments.
    pub(crate) fn successes(&self, nodes: &[usize], from: u64, to: u64) -> usize {
        let operations = self.shared.operations.lock().unwrap();
        let within = |one: &&Operation| {
            one.start >= from && one.end <= to && nodes.contains(&one.node) && one.succeeded()
        };
        // They are in the order of their ends.
        operations.iter().rev().take_while(|one| one.end >= from).filter(within).count()
    }

    /// Ends the clients; then every key is read at every node.
    pub(crate) fn finish(self, router: &Router) -> Vec<Operation> {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
        let asked = self.shared.asked.load(Ordering::Relaxed);
        let keys = key_base(asked) + KEYS_IN_USE;
        for (node, name) in NODES.iter().enumerate() {
            let mut client = router.client(&format!("reader-{name}"), name);
            for key in 0..keys {
                let deadline = Instant::now() + PATIENCE;
                while !self.shared.ask(&mut client, 1000 + node as u64, node, key, Call::Read) {
                    assert!(Instant::now() < deadline, "key {key} is never read at {name}");
                }
            }
        }
        std::mem::take(&mut *self.shared.operations.lock().unwrap())
    }
}

fn key_base(request: u64) -> u64 {
    request / (REQUESTS_PER_KEY * KEYS_IN_USE) * KEYS_IN_USE
}

/// One client's work: its values are its own.
fn work(shared: &Shared, number: u64, node: usize, mut client: Client, rng: &mut Rng) {
    let mut last = 0;
    while !shared.stop.load(Ordering::Relaxed) {
        let request = shared.asked.fetch_add(1, Ordering::Relaxed);
        let key = key_base(request) + rng.below(KEYS_IN_USE);
        last += 1;
        let value = last * 100 + number;
        let from = shared.told.lock().unwrap().get(&key).copied().unwrap_or_default();
        let call = match rng.below(10) {
            0..4 => Call::Read,
            4..7 => Call::Write(value),
            _ => Call::Swap { from, to: value },
        };
        shared.ask(&mut client, number, node, key, call);
        thread::sleep(THINK);
    }
}

impl Shared {
    fn now(&self) -> u64 {
        self.origin.elapsed().as_nanos() as u64
    }

    /// Asks, and records what came of it; false if it did not succeed.
    fn ask(&self, client: &mut Client, number: u64, node: usize, key: u64, call: Call) -> bool {
        let body = match &call {
            Call::Read => json!({"type": "read", "key": key}),
            Call::Write(value) => json!({"type": "write", "key": key, "value": value}),
            Call::Swap { from, to } => json!({"type": "cas", "key": key, "from": from, "to": to}),
        };
        let start = self.now();
        let reply = client.call(body, TIMEOUT);
        let outcome = reply.as_ref().map_or(Outcome::Unknown, outcome_of);
        let held = match (&outcome, &call) {
            (Outcome::Told(Reply::Value(value)), _)
            | (Outcome::Told(Reply::Written), Call::Write(value))
            | (Outcome::Told(Reply::Swapped), Call::Swap { to: value, .. }) => Some(*value),
            _ => None,
        };
        if let Some(held) = held {
            self.told.lock().unwrap().insert(key, held);
        }
        let mut operations = self.operations.lock().unwrap();
        let end = self.now();
        operations.push(Operation { client: number, node, key, call, start, end, outcome });
        operations.last().is_some_and(Operation::succeeded)
    }
}

/// By Maelstrom's rules: which errors are definite, and which are answers.
fn outcome_of(reply: &Value) -> Outcome {
    let told = match (reply["type"].as_str(), reply["code"].as_u64()) {
        (Some("read_ok"), _) => Reply::Value(reply["value"].as_u64().expect("a value")),
        (Some("write_ok"), _) => Reply::Written,
        (Some("cas_ok"), _) => Reply::Swapped,
        (Some("error"), Some(20)) => Reply::Absent,
        (Some("error"), Some(22)) => Reply::Mismatch,
        (Some("error"), Some(11)) => return Outcome::Rejected,
        (Some("error"), Some(0)) => return Outcome::Unknown,
        _ => panic!("an answer that no request should have: {reply}"),
    };
    Outcome::Told(told)
}

/// The store as one caller at a time would see it.
#[derive(Clone, Copy, Debug)]
struct Store;

impl Specification for Store {
    type State = Option<u64>;
    type Call = (u64, Call);
    type Reply = Reply;
    type Key = u64;

    fn key(&self, (key, _): &(u64, Call)) -> u64 {
        *key
    }

    fn initial(&self, _: &u64) -> Option<u64> {
        None
    }

    fn step(
        &self,
        state: &Option<u64>,
        (_, call): &(u64, Call),
        reply: Option<&Reply>,
    ) -> Option<Option<u64>> {
        let (next, given) = match (call, *state) {
            (Call::Read | Call::Swap { .. }, None) => (None, Reply::Absent),
            (Call::Read, Some(held)) => (Some(held), Reply::Value(held)),
            (Call::Write(value), _) => (Some(*value), Reply::Written),
            (Call::Swap { from, to }, Some(held)) if *from == held => (Some(*to), Reply::Swapped),
            (Call::Swap { .. }, Some(held)) => (Some(held), Reply::Mismatch),
        };
        reply.is_none_or(|reply| *reply == given).then_some(next)
    }
}

/// Whether some order explains what the clients were told.
pub(crate) fn judge(operations: &[Operation]) -> Result<(), Failure> {
    let mut history = History::new();
    for operation in operations {
        if operation.call == Call::Read && operation.outcome == Outcome::Unknown {
            // It changed nothing and told nothing.
            continue;
        }
        let call = (operation.key, operation.call.clone());
        let id = history.invoke(operation.client, call, operation.start);
        match &operation.outcome {
            Outcome::Told(reply) => history.complete(id, reply.clone(), operation.end),
            Outcome::Rejected => history.reject(id),
            Outcome::Unknown => {}
        }
    }
    check(&Store, &history, Budget::default()).into_result().map(drop)
}
