//! Every replica's state and every message that a run has met, once each, under a number.
//!
//! Owns: [`Table`]. A world then is a few numbers; and as a replica's answer to an input depends on
//! nothing but that replica, each answer is computed by the production code once, however many
//! worlds it happens in.
//! Invariants: equal nodes have one number, equal messages one number; a node, once numbered, never
//! changes. Where equal nodes differ in what the comparison leaves out, [`Table::check_twins`]
//! shows that they answer alike.

use std::cell::Cell;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

use paxos_core::ids::{Epoch, Slot};
use paxos_core::message::Message;
use paxos_core::value::Value;

use crate::marks::{Mark, Marks};
use crate::node::{Input, Node};
use crate::observe::observe;
use crate::scope::Scope;

/// The number of a node.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct NodeId(u32);

/// The number of a message and of who is to get it, whose bits are the lowest three.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct MessageId(u32);

impl MessageId {
    /// Whether the replica at this place is to get it.
    pub(crate) fn is_for(self, place: usize) -> bool {
        self.0 >> place & 1 == 1
    }

    fn index(self) -> usize {
        (self.0 >> 3) as usize
    }
}

/// An answer of one node to one input.
#[derive(Clone, Debug)]
pub(crate) struct Move {
    pub(crate) next: NodeId,
    pub(crate) sent: Vec<MessageId>,
    pub(crate) claims: Vec<(Slot, Option<Value>)>,
    pub(crate) applied: Vec<Slot>,
    pub(crate) voted: Vec<Slot>,
    pub(crate) gave_up: Option<Epoch>,
    pub(crate) changes: Option<Epoch>,
    pub(crate) fault: Option<String>,
}

/// Items under numbers, found by their content.
struct Numbered<T> {
    items: Vec<Arc<T>>,
    by_hash: HashMap<u64, Vec<usize>>,
}

impl<T: Eq> Numbered<T> {
    fn new() -> Self {
        Self { items: Vec::new(), by_hash: HashMap::new() }
    }

    fn find(&self, hash: u64, item: &T) -> Option<usize> {
        let places = self.by_hash.get(&hash)?;
        places.iter().copied().find(|place| *self.items[*place] == *item)
    }

    fn insert(&mut self, hash: u64, item: T) -> usize {
        if let Some(place) = self.find(hash, &item) {
            return place;
        }
        let place = self.items.len();
        self.items.push(Arc::new(item));
        self.by_hash.entry(hash).or_default().push(place);
        place
    }
}

type Moves = HashMap<(NodeId, Input<MessageId>), Option<Arc<Move>>>;

const SHARDS: usize = 64;

/// All nodes, messages and answers.
pub(crate) struct Table {
    scope: Scope,
    hasher: RandomState,
    /// What was seen at work, also where it changed nothing.
    marks: AtomicU64,
    nodes: RwLock<Numbered<Node>>,
    /// For some nodes, another one that compares equal and is not the same.
    twins: RwLock<HashMap<NodeId, Node>>,
    messages: RwLock<Numbered<(u8, Message)>>,
    moves: Vec<RwLock<Moves>>,
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().expect("no thread panics while it writes")
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().expect("no thread panics while it writes")
}

impl Table {
    /// An empty table for the worlds of this scope.
    pub(crate) fn new(scope: Scope) -> Self {
        Self {
            scope,
            hasher: RandomState::new(),
            marks: AtomicU64::new(0),
            nodes: RwLock::new(Numbered::new()),
            twins: RwLock::new(HashMap::new()),
            messages: RwLock::new(Numbered::new()),
            moves: (0..SHARDS).map(|_| RwLock::new(HashMap::new())).collect(),
        }
    }

    pub(crate) fn mark(&self, mark: Mark) {
        self.marks.fetch_or(1 << mark as u64, Ordering::Relaxed);
    }

    pub(crate) fn marks(&self) -> Marks {
        Marks(self.marks.load(Ordering::Relaxed))
    }

    pub(crate) fn number(&self, node: Node) -> NodeId {
        let hash = self.hasher.hash_one(&node);
        let found = read(&self.nodes).find(hash, &node);
        let place = match found {
            Some(place) => {
                let known = self.node(NodeId(place as u32));
                if known.replica != node.replica {
                    write(&self.twins).entry(NodeId(place as u32)).or_insert(node);
                }
                place
            }
            None => write(&self.nodes).insert(hash, node),
        };
        NodeId(u32::try_from(place).expect("fewer nodes than that fit in memory"))
    }

    pub(crate) fn node(&self, id: NodeId) -> Arc<Node> {
        Arc::clone(&read(&self.nodes).items[id.0 as usize])
    }

    fn number_message(&self, places: u8, message: Message) -> MessageId {
        let item = (places, message);
        let hash = self.hasher.hash_one(&item);
        let index = write(&self.messages).insert(hash, item);
        let index = u32::try_from(index).ok().filter(|index| *index < 1 << 29);
        MessageId(index.expect("fewer messages than that fit in memory") << 3 | u32::from(places))
    }

    pub(crate) fn message(&self, id: MessageId) -> Arc<(u8, Message)> {
        Arc::clone(&read(&self.messages).items[id.index()])
    }

    /// How many nodes, messages and answers there are.
    pub(crate) fn sizes(&self) -> (usize, usize, usize) {
        let moves = self.moves.iter().map(|shard| read(shard).len()).sum();
        (read(&self.nodes).items.len(), read(&self.messages).items.len(), moves)
    }

    /// The answer of a node to an input; nothing if it changes nothing.
    pub(crate) fn answer(&self, id: NodeId, input: Input<MessageId>) -> Option<Arc<Move>> {
        let key = (id, input);
        let shard = &self.moves[self.hasher.hash_one(key) as usize % SHARDS];
        if let Some(known) = read(shard).get(&key) {
            return known.clone();
        }
        let node = self.node(id);
        let answer = self.compute(&node, input);
        let answer = answer.filter(|answer| {
            answer.next != id || !answer.sent.is_empty() || answer.fault.is_some()
        });
        let answer = answer.map(Arc::new);
        write(shard).entry(key).or_insert(answer).clone()
    }

    fn compute(&self, node: &Node, input: Input<MessageId>) -> Option<Move> {
        let input = self.resolve(input);
        let mut next = node.clone();
        ANSWERING.set(true);
        let taken = catch_unwind(AssertUnwindSafe(|| next.take(&input, &self.scope)));
        ANSWERING.set(false);
        let mut out = match taken {
            Ok(Some(out)) => out,
            Ok(None) => {
                if matches!(input, Input::Campaign) && node.is_voteless() {
                    self.mark(Mark::CampaignForbidden);
                }
                return None;
            }
            Err(panic) => {
                return Some(Move {
                    next: self.number(node.clone()),
                    sent: Vec::new(),
                    claims: Vec::new(),
                    applied: Vec::new(),
                    voted: Vec::new(),
                    gave_up: None,
                    changes: None,
                    fault: Some(format!("{} panics: {}", node.id(), text_of(&*panic))),
                });
            }
        };
        observe(node, &next, &input, &mut out);
        self.marks.fetch_or(out.marks.0, Ordering::Relaxed);
        let mut sent: Vec<_> = out
            .sent
            .into_iter()
            .map(|(to, message)| {
                let from = usize::from(message.origin.replica.number()) - 1;
                (self.scope.reached(from, to, message.body.name()), message)
            })
            .filter(|(to, _)| *to != 0)
            .map(|(to, message)| self.number_message(to, message))
            .collect();
        sent.sort_unstable();
        sent.dedup();
        Some(Move {
            next: self.number(next),
            sent,
            claims: out.claims,
            applied: out.applied,
            voted: out.voted,
            gave_up: out.gave_up,
            changes: out.changes,
            fault: out.fault,
        })
    }

    pub(crate) fn resolve(&self, input: Input<MessageId>) -> Input<Message> {
        match input {
            Input::Deliver(id) => Input::Deliver(self.message(id).1.clone()),
            Input::Sync => Input::Sync,
            Input::Crash => Input::Crash,
            Input::Campaign => Input::Campaign,
            Input::Moment => Input::Moment,
            Input::Propose(request) => Input::Propose(request),
            Input::Change(wish) => Input::Change(wish),
        }
    }

    /// Asks the twins everything that was asked of the nodes that they compare equal to. Returns
    /// how many answers were compared, or the first that differs.
    pub(crate) fn check_twins(&self) -> Result<usize, String> {
        let twins = core::mem::take(&mut *write(&self.twins));
        let moves: Vec<_> = self
            .moves
            .iter()
            .flat_map(|shard| {
                let known = read(shard);
                let known = known.iter().filter(|((id, _), _)| twins.contains_key(id));
                known.map(|(key, answer)| (*key, answer.clone())).collect::<Vec<_>>()
            })
            .collect();
        for ((id, input), known) in &moves {
            let answer = self.compute(&twins[id], *input).filter(|answer| {
                answer.next != *id || !answer.sent.is_empty() || answer.fault.is_some()
            });
            let alike = match (&answer, known) {
                (None, None) => true,
                (Some(one), Some(other)) => {
                    (one.next, &one.sent, &one.fault) == (other.next, &other.sent, &other.fault)
                }
                (Some(_), None) | (None, Some(_)) => false,
            };
            if !alike {
                let input = self.resolve(*input);
                return Err(format!("two nodes that compare equal answer {input:?} differently"));
            }
        }
        Ok(moves.len())
    }
}

thread_local! {
    /// Whether this thread runs a replica, whose panic is a fault of the world and told as such.
    static ANSWERING: Cell<bool> = const { Cell::new(false) };
}

/// Keeps panics of replicas from being printed; they are reported with the steps that led to them.
pub(crate) fn silence_panics_of_nodes() {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if !ANSWERING.get() {
            usual(info);
        }
    }));
}

fn text_of(panic: &(dyn core::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    text.unwrap_or_else(|| "without a message".to_owned())
}
