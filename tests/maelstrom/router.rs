//! The network between three of the programs and their clients, and what it does to messages.
//!
//! Owns: [`Router`], the processes behind it, and a count of every mistreatment.
//! Invariants: nothing that is between two nodes is carried once their link is cut, not even what was
//! under way; nothing is carried twice; lines between clients and nodes are not delayed, so that no
//! mistake of the nodes is hidden.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use paxos_core::sim::Rng;
use serde_json::{Value, json};

use crate::examples::PATIENCE;
use crate::process::Process;

pub(crate) const NODES: [&str; 3] = ["n1", "n2", "n3"];

/// What happened to messages.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) carried: u64,
    /// Dropped at a link that was cut.
    pub(crate) cut: u64,
    /// Dropped by chance.
    pub(crate) lost: u64,
    /// Carried later than one that was sent after it.
    pub(crate) overtaken: u64,
    /// Kept back for a node that got nothing for a time.
    pub(crate) held: u64,
    /// Requests that one node sent on to another.
    pub(crate) forwards: u64,
}

#[derive(Debug)]
struct State {
    /// From whom to whom nothing is carried.
    cuts: BTreeSet<(usize, usize)>,
    hold: Option<usize>,
    held: Vec<String>,
    /// Between nodes, out of a thousand.
    loss: u64,
    /// The longest delay between nodes, in milliseconds.
    delay_max: u64,
    tally: Tally,
    /// When each node was last heard of.
    heard: [Instant; NODES.len()],
    /// The nodes that requests were forwarded to; the last is the leader of that moment.
    leaders: Vec<usize>,
    clients: BTreeMap<String, Sender<Value>>,
}

/// A message under way.
#[derive(Debug)]
struct Packet {
    src: String,
    dest: String,
    line: String,
}

#[derive(Debug)]
pub(crate) struct Router {
    state: Arc<Mutex<State>>,
    nodes: Vec<Process>,
    sender: Sender<String>,
}

fn node_of(name: &str) -> Option<usize> {
    NODES.iter().position(|node| *node == name)
}

impl Router {
    /// Three programs, told who they are, and good links between them.
    pub(crate) fn start(seed: u64) -> Self {
        let state = Arc::new(Mutex::new(State {
            cuts: BTreeSet::new(),
            hold: None,
            held: Vec::new(),
            loss: 0,
            delay_max: 3,
            tally: Tally::default(),
            heard: [Instant::now(); NODES.len()],
            leaders: Vec::new(),
            clients: BTreeMap::new(),
        }));
        let (sender, receiver) = channel();
        let start = |_| {
            let sender = sender.clone();
            Process::start(move |line| drop(sender.send(line)))
        };
        let nodes: Vec<_> = NODES.iter().map(start).collect();
        let (carried, inputs) =
            (Arc::clone(&state), nodes.iter().map(Process::input).collect::<Vec<_>>());
        thread::spawn(move || carry(&receiver, &carried, &inputs, &mut Rng::new(seed)));
        let router = Self { state, nodes, sender };
        for node in NODES {
            let mut client = router.client(&format!("init-{node}"), node);
            let init = json!({"type": "init", "node_id": node, "node_ids": NODES});
            let reply = client.call(init, PATIENCE).expect("an answer to init");
            assert_eq!(reply["type"], "init_ok", "{reply}");
        }
        router
    }

    /// A client that asks one node.
    pub(crate) fn client(&self, name: &str, node: &str) -> Client {
        let (sender, inbox) = channel();
        self.lock().clients.insert(name.to_owned(), sender);
        let (name, node) = (name.to_owned(), node.to_owned());
        Client { name, node, inbox, sender: self.sender.clone(), last: 0 }
    }

    pub(crate) fn tally(&self) -> Tally {
        self.lock().tally
    }

    /// The nodes that requests were forwarded to, without repetitions.
    pub(crate) fn leaders(&self) -> Vec<usize> {
        self.lock().leaders.clone()
    }

    /// For how long nothing came from this node.
    pub(crate) fn silence(&self, node: usize) -> Duration {
        self.lock().heard[node].elapsed()
    }

    /// Cuts these links, each in one direction.
    pub(crate) fn cut(&self, links: &[(usize, usize)]) {
        self.lock().cuts.extend(links);
    }

    /// From here on the node gets nothing, and then everything at once.
    pub(crate) fn hold(&self, node: usize) {
        self.lock().hold = Some(node);
    }

    pub(crate) fn roughen(&self, loss: u64, delay_max: u64) {
        let mut state = self.lock();
        (state.loss, state.delay_max) = (loss, delay_max);
    }

    pub(crate) fn signal(&self, node: usize, signal: &str) {
        self.nodes[node].signal(signal);
    }

    /// Ends everything but what [`Router::signal`] did.
    pub(crate) fn heal(&self) {
        let mut state = self.lock();
        state.cuts.clear();
        state.hold = None;
        (state.loss, state.delay_max) = (0, 3);
        for line in std::mem::take(&mut state.held) {
            self.sender.send(line).unwrap();
        }
    }

    /// What the nodes wrote to standard error.
    pub(crate) fn errors(&self) -> String {
        self.nodes.iter().map(Process::errors).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

/// Carries every line that comes in, each when it is due.
fn carry(
    lines: &Receiver<String>,
    state: &Mutex<State>,
    inputs: &[Sender<Vec<u8>>],
    rng: &mut Rng,
) {
    let mut queue: BTreeMap<(Instant, u64), Packet> = BTreeMap::new();
    let mut last_carried = 0;
    for number in 0_u64.. {
        let due = queue.keys().next().map(|(due, _)| *due);
        let sleep = due.map_or(PATIENCE, |due| due.saturating_duration_since(Instant::now()));
        match lines.recv_timeout(sleep) {
            Ok(line) => {
                let message: Value = serde_json::from_str(&line).expect("nodes write JSON alone");
                let name = |field: &str| message[field].as_str().expect("a name").to_owned();
                let (src, dest) = (name("src"), name("dest"));
                let mut state = state.lock().unwrap();
                if let Some(from) = node_of(&src) {
                    state.heard[from] = Instant::now();
                }
                let between = node_of(&src).and(node_of(&dest));
                if let (Some(to), Some("forward")) = (between, message["body"]["type"].as_str()) {
                    state.tally.forwards += 1;
                    if state.leaders.last() != Some(&to) {
                        state.leaders.push(to);
                    }
                }
                let delay = between.map_or(0, |_| rng.below(state.delay_max * 1000));
                let due = Instant::now() + Duration::from_micros(delay);
                queue.insert((due, number), Packet { src, dest, line });
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        while let Some(entry) = queue.first_entry() {
            let (due, number) = *entry.key();
            if due > Instant::now() {
                break;
            }
            let mut state = state.lock().unwrap();
            state.tally.overtaken += u64::from(number < last_carried);
            last_carried = number.max(last_carried);
            deliver(entry.remove(), &mut state, inputs, rng);
        }
    }
}

fn deliver(packet: Packet, state: &mut State, inputs: &[Sender<Vec<u8>>], rng: &mut Rng) {
    let (from, to) = (node_of(&packet.src), node_of(&packet.dest));
    if let (Some(from), Some(to)) = (from, to) {
        if state.cuts.contains(&(from, to)) {
            state.tally.cut += 1;
            return;
        }
        if rng.below(1000) < state.loss {
            state.tally.lost += 1;
            return;
        }
    }
    if to.is_some() && to == state.hold {
        state.tally.held += 1;
        state.held.push(packet.line);
        return;
    }
    state.tally.carried += 1;
    match to {
        // One that has ended takes nothing, and its clients notice.
        Some(to) => drop(inputs[to].send(format!("{}\n", packet.line).into_bytes())),
        None => {
            if let Some(client) = state.clients.get(&packet.dest) {
                let message: Value = serde_json::from_str(&packet.line).expect("parsed before");
                // A client that has ended does not care.
                let _ended = client.send(message["body"].clone());
            }
        }
    }
}

/// Asks one node, one request at a time.
#[derive(Debug)]
pub(crate) struct Client {
    name: String,
    pub(crate) node: String,
    inbox: Receiver<Value>,
    sender: Sender<String>,
    last: u64,
}

impl Client {
    /// The answer, if it comes in time. One that is late is never taken for another.
    pub(crate) fn call(&mut self, mut body: Value, timeout: Duration) -> Option<Value> {
        self.last += 1;
        body["msg_id"] = self.last.into();
        let message = json!({"src": self.name, "dest": self.node, "body": body});
        self.sender.send(message.to_string()).unwrap();
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let reply = self.inbox.recv_timeout(left).ok()?;
            if reply["in_reply_to"] == self.last {
                return Some(reply);
            }
        }
    }
}
