//! The clients.
//!
//! Owns: what they ask, how they record it, and how an end of a request is told from another.
//! Judges nothing.
//! Invariants: a request is recorded once it may have reached a replica; what was not said for sure
//! is unknown, and nothing is ever asked twice; a key has a bounded number of operations, so that
//! judging it stays cheap, and of them few whose end is unknown.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::history::{Call, Operation, Outcome};
use crate::resp::{Client, Reply};
use crate::rng::Rng;

/// Clients that ask at the same time.
pub(crate) const CLIENTS: u32 = 12;
/// How long most clients wait for a reply: longer than a replica gives a request.
const PATIENCE: Duration = Duration::from_millis(2_500);
/// How long some wait: longer than a pause, so that what a replica says when it wakes is heard.
const PATIENCE_LONG: Duration = Duration::from_secs(12);
/// Operations on one key before the next one takes its place.
const KEY_OPERATIONS: u64 = 150;
/// An operation whose end is unknown counts as so many.
const UNKNOWN_COST: u64 = 20;
/// Keys of each kind that are in use at the same time.
const KEYS_AT_ONCE: usize = 3;
/// Final reads are tried so often, and are of so many keys at once.
const FINAL_TRIES: u32 = 200;
const FINAL_KEYS: usize = 50;
/// The number of the client that reads at the first replica in the end.
const FIRST_READER: u32 = 1001;

/// A value that fills disks, and the pause between two of them: some megabytes a second.
const BULK_BYTES: usize = 64 << 10;
const BULK_PAUSE: Duration = Duration::from_millis(10);

/// What can be done with a key.
const KINDS: [char; 3] = ['r', 'n', 'l'];

/// What the clients share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) begun: Instant,
    stop: AtomicBool,
    /// Whether faults are at work.
    pub(crate) stressed: AtomicBool,
    /// Whether large values are written, so that disks fill up.
    pub(crate) bulky: AtomicBool,
    pub(crate) succeeded: AtomicU64,
    pub(crate) succeeded_stressed: AtomicU64,
    addresses: Vec<SocketAddr>,
    /// The cost of the operations on all keys that had this place.
    places: Vec<AtomicU64>,
}

impl Shared {
    /// Nanoseconds since the run began.
    pub(crate) fn now(&self) -> u64 {
        self.begun.elapsed().as_nanos() as u64
    }
}

/// Clients at work.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) shared: Arc<Shared>,
    workers: Vec<JoinHandle<Vec<Operation>>>,
}

impl Load {
    /// Starts them. `pause_max` is the longest that each waits between two requests.
    pub(crate) fn start(addresses: Vec<SocketAddr>, seed: u64, pause_max: Duration) -> Self {
        let shared = Arc::new(Shared {
            begun: Instant::now(),
            stop: AtomicBool::new(false),
            stressed: AtomicBool::new(false),
            bulky: AtomicBool::new(false),
            succeeded: AtomicU64::new(0),
            succeeded_stressed: AtomicU64::new(0),
            addresses,
            places: (0..KINDS.len() * KEYS_AT_ONCE).map(|_| AtomicU64::new(0)).collect(),
        });
        let mut workers: Vec<_> = (1..=CLIENTS)
            .map(|id| {
                let shared = Arc::clone(&shared);
                let patience = if id % 4 == 0 { PATIENCE_LONG } else { PATIENCE };
                let rng = Rng::new(seed, u64::from(id));
                let worker = Worker { id, shared, rng, patience, made: 0, seen: Vec::new() };
                thread::spawn(move || worker.run(pause_max))
            })
            .collect();
        let bulky = Arc::clone(&shared);
        let rng = Rng::new(seed, u64::from(CLIENTS) + 1);
        workers.push(thread::spawn(move || write_bulk(&bulky, rng)));
        Self { shared, workers }
    }

    /// Stops them and takes what they saw.
    pub(crate) fn stop(self) -> (Arc<Shared>, Vec<Operation>) {
        self.shared.stop.store(true, Ordering::Relaxed);
        let ended = self.workers.into_iter().map(|worker| worker.join().expect("a client ends"));
        let mut history: Vec<_> = ended.flatten().collect();
        history.sort_by_key(|operation| (operation.start, operation.client));
        (self.shared, history)
    }
}

/// Overwrites a few keys with large values while that is wanted. Their history is not kept: nobody
/// reads them.
fn write_bulk(shared: &Shared, mut rng: Rng) -> Vec<Operation> {
    let value = "b".repeat(BULK_BYTES);
    let mut connection = None;
    while !shared.stop.load(Ordering::Relaxed) {
        thread::sleep(BULK_PAUSE);
        if !shared.bulky.load(Ordering::Relaxed) {
            continue;
        }
        let address = rng.pick(&shared.addresses);
        let ready = connection.take().or_else(|| Client::connect(address, PATIENCE).ok());
        if let Some(mut client) = ready {
            let key = format!("bulk{}", rng.below(8));
            let said = client.call(&["SET", &key, &value]);
            connection = matches!(said, Ok(Reply::Simple(_))).then_some(client);
        }
    }
    Vec::new()
}

struct Worker {
    id: u32,
    shared: Arc<Shared>,
    rng: Rng,
    patience: Duration,
    /// Values made, so that each is made once.
    made: u64,
    seen: Vec<Operation>,
}

impl Worker {
    fn run(mut self, pause_max: Duration) -> Vec<Operation> {
        let mut connection = None;
        let mut node = 0;
        while !self.shared.stop.load(Ordering::Relaxed) {
            if connection.is_none() {
                node = self.rng.below(self.shared.addresses.len() as u64) as usize;
                connection = Client::connect(self.shared.addresses[node], self.patience).ok();
            }
            let Some(mut client) = connection.take() else {
                thread::sleep(Duration::from_millis(self.rng.within(5, 50)));
                continue;
            };
            let (place, key, call) = self.choose();
            let start = self.shared.now();
            let (outcome, usable) = ask(&mut client, &key, &call);
            let end = self.shared.now();
            let rejected = matches!(outcome, Outcome::Rejected(_));
            self.count(&outcome, place);
            let asked = node as u16 + 1;
            let done = Operation { client: self.id, node: asked, start, end, key, call, outcome };
            self.seen.push(done);
            // Now and then, and where nothing is to be had, somebody else is asked.
            if usable && !self.rng.permille(if rejected { 500 } else { 10 }) {
                connection = Some(client);
            }
            let longest = pause_max.as_micros() as u64 * if rejected { 3 } else { 1 };
            thread::sleep(Duration::from_micros(self.rng.within(0, longest)));
        }
        self.seen
    }

    fn count(&self, outcome: &Outcome, place: usize) {
        let shared = &self.shared;
        match outcome {
            Outcome::Unknown => {
                shared.places[place].fetch_add(UNKNOWN_COST, Ordering::Relaxed);
            }
            Outcome::Rejected(_) => {}
            Outcome::Done | Outcome::Value(_) | Outcome::Integer(_) => {
                shared.succeeded.fetch_add(1, Ordering::Relaxed);
                if shared.stressed.load(Ordering::Relaxed) {
                    shared.succeeded_stressed.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    fn choose(&mut self) -> (usize, String, Call) {
        let place = self.rng.below(self.shared.places.len() as u64) as usize;
        let kind = KINDS[place % KINDS.len()];
        let used = self.shared.places[place].fetch_add(1, Ordering::Relaxed);
        let mut generation = used / KEY_OPERATIONS;
        if generation > 0 && self.rng.permille(30) {
            // What was written long ago is still there.
            generation = self.rng.below(generation);
            return (place, format!("{kind}{place}.{generation}"), Call::Get);
        }
        let key = format!("{kind}{place}.{generation}");
        self.made += 1;
        let value = format!("c{}.{}", self.id, self.made);
        let call = match (kind, self.rng.below(20)) {
            ('r', 0..=8) | ('n' | 'l', 0..=6) => Call::Get,
            ('r', 9..=12) => Call::Set(value),
            ('r', 13..=14) => Call::SetAbsent(value),
            ('r', 15..=17) => Call::Swap(value),
            ('r', _) => Call::Take,
            ('n', _) => Call::Increment,
            _ => Call::Append(format!("{value};")),
        };
        (place, key, call)
    }
}

/// Asks, and says whether the connection can be used again.
fn ask(client: &mut Client, key: &str, call: &Call) -> (Outcome, bool) {
    let reply = match call {
        Call::Get => client.call(&["GET", key]),
        Call::Set(value) => client.call(&["SET", key, value]),
        Call::SetAbsent(value) => client.call(&["SET", key, value, "NX"]),
        Call::Swap(value) => client.call(&["SET", key, value, "GET"]),
        Call::Take => client.call(&["GETDEL", key]),
        Call::Increment => client.call(&["INCR", key]),
        Call::Append(value) => client.call(&["APPEND", key, value]),
    };
    match reply {
        Ok(Reply::Simple(_)) => (Outcome::Done, true),
        Ok(Reply::Nil) => (Outcome::Value(None), true),
        Ok(Reply::Bulk(value)) => (Outcome::Value(Some(value)), true),
        Ok(Reply::Integer(number)) => (Outcome::Integer(number), true),
        Ok(Reply::Error(text)) => match text.split(' ').next() {
            // The server says of every other word that nothing was carried out.
            Some("UNKNOWN") | None => (Outcome::Unknown, true),
            Some(word) => (Outcome::Rejected(word.to_owned()), true),
        },
        Ok(Reply::Array(_)) | Err(_) => (Outcome::Unknown, false),
    }
}

/// Reads every key at every replica, after the last fault. The error says what could not be read.
pub(crate) fn read_finally(shared: &Shared, keys: &[String]) -> Result<Vec<Operation>, String> {
    let readings: Vec<_> = thread::scope(|scope| {
        let readers: Vec<_> = (0..shared.addresses.len())
            .map(|node| scope.spawn(move || read_at(shared, node, keys)))
            .collect();
        readers.into_iter().map(|reader| reader.join().expect("a reader ends")).collect()
    });
    let mut all = Vec::new();
    for reading in readings {
        all.extend(reading?);
    }
    Ok(all)
}

/// Reads at one replica, many keys at once: each of them is read at one moment of the request.
fn read_at(shared: &Shared, node: usize, keys: &[String]) -> Result<Vec<Operation>, String> {
    let mut done = Vec::new();
    let mut connection = None;
    for some in keys.chunks(FINAL_KEYS) {
        let mut request = vec!["MGET"];
        request.extend(some.iter().map(String::as_str));
        let mut tries = 0;
        let (values, start, end) = loop {
            if tries == FINAL_TRIES {
                return Err(format!("replica {} cannot read after all faults", node + 1));
            }
            tries += 1;
            let address = shared.addresses[node];
            let ready = connection.take().or_else(|| Client::connect(address, PATIENCE).ok());
            if let Some(mut client) = ready {
                let start = shared.now();
                if let Ok(Reply::Array(values)) = client.call(&request)
                    && values.len() == some.len()
                {
                    connection = Some(client);
                    break (values, start, shared.now());
                }
            }
            thread::sleep(Duration::from_millis(50));
        };
        for (key, value) in some.iter().zip(values) {
            let outcome = match value {
                Reply::Bulk(value) => Outcome::Value(Some(value)),
                Reply::Nil => Outcome::Value(None),
                odd
                @ (Reply::Simple(_) | Reply::Error(_) | Reply::Integer(_) | Reply::Array(_)) => {
                    return Err(format!("MGET has {odd:?} for {key}"));
                }
            };
            let (client, node) = (FIRST_READER + node as u32, node as u16 + 1);
            let (key, call) = (key.clone(), Call::Get);
            done.push(Operation { client, node, start, end, key, call, outcome });
        }
    }
    Ok(done)
}
