//! One replica, its log in memory, its store, and whoever waits for an answer.
//!
//! Owns: [`Node`]: the loop that executes a replica's outputs, and the fate of each request. Does no
//! input and output: lines go in and come out, and time is an argument.
//! Invariants: each request is answered at most once; an answer of `Unavailable` says that the
//! request is certainly not carried out: it was not proposed, or another value was chosen in the only
//! slot in which it was (protocol.md, V2); what is not known at its deadline is a `Timeout`. A
//! request is forwarded at most once, which needs a network that repeats nothing, as Maelstrom's
//! does; a core's message may be repeated.
//! Source: the run loop in the documentation of paxos-core.

use std::time::Duration;

use paxos_core::codec;
use paxos_core::config::Config;
use paxos_core::ids::{
    ClientId, ClusterId, GroupId, LogClock, ReplicaId, RequestNumber, Slot, Time,
};
use paxos_core::membership::Membership;
use paxos_core::output::{NotProposed, Output, Recipients};
use paxos_core::port::{Format, Storage as _};
use paxos_core::replica::Replica;
use paxos_core::value::{Command, Value};
use paxos_storage::MemoryStorage;

use crate::store::Store;
use crate::wire::{self, Answer, Ask, Body, Code, line};

/// How long a request may take. Beyond an election, so that few are given up for a change of leaders.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(1);
/// So many requests wait at once; the next is refused.
const WAITING_MAX: usize = 1024;

/// Who waits for an answer: a client, or a peer for its own.
#[derive(Clone, Debug)]
struct Asker {
    name: String,
    msg_id: u64,
    deadline: Time,
}

/// Where a request went.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Place {
    Proposed(Slot, RequestNumber),
    /// To the leader, under this `msg_id`.
    Forwarded(u64),
}

/// A replica and what a host adds to it.
#[derive(Debug)]
pub(crate) struct Node {
    name: String,
    /// Of all nodes; replica 1 is the first of them.
    names: Vec<String>,
    replica: Replica,
    storage: MemoryStorage,
    store: Store,
    /// Under which name this life proposes.
    client: ClientId,
    /// The last number given to a request, here or at the peer that it was forwarded to.
    last: u64,
    waiting: Vec<(Place, Asker)>,
    /// What leaves with the next [`Node::settle`].
    lines: String,
}

impl Node {
    /// The node `name` among `names`, with an empty log. `seed` differs from node to node, and from
    /// one start to the next.
    pub(crate) fn new(name: &str, names: &[String], seed: u64, now: Time) -> Result<Self, String> {
        let own = names.iter().position(|other| other == name);
        let own = own.ok_or_else(|| format!("{name} is not among the nodes"))?;
        let id = |index| u16::try_from(index + 1).map(ReplicaId::new);
        let voters = (0..names.len()).map(id).collect::<Result<Vec<_>, _>>();
        let voters = voters.map_err(|_| "there are too many nodes".to_owned())?;
        let replica = voters[own];
        let membership = Membership::voters_only(voters).map_err(|error| error.to_string())?;
        let format =
            Format { cluster: ClusterId::new(1), group: GroupId::default(), replica, membership };
        let mut storage = MemoryStorage::formatted(format);
        let recovered = storage.recover(seed as u32).map_err(|error| error.to_string())?;
        let recovered = recovered.into_iter().next().expect("a formatted log has one group");
        let client = ClientId::new(u64::from(replica.number()) << 32 | seed >> 32);
        let config = Config::default();
        let replica = Replica::recover(config, recovered, Slot::ZERO, seed, now);
        Ok(Self {
            name: name.to_owned(),
            names: names.to_vec(),
            replica: replica.map_err(|error| error.to_string())?,
            storage,
            store: Store::default(),
            client,
            last: 0,
            waiting: Vec::new(),
            lines: String::new(),
        })
    }

    /// Takes in one message. A refusal is for its sender.
    pub(crate) fn take(
        &mut self,
        src: &str,
        msg_id: Option<u64>,
        body: Body,
        now: Time,
    ) -> Result<(), Answer> {
        let malformed = |why| Answer::error(Code::Malformed, why);
        let deadline = now.after(REQUEST_TIMEOUT);
        let asker = || {
            let msg_id = msg_id.ok_or_else(|| malformed("a request has a msg_id"))?;
            Ok(Asker { name: src.to_owned(), msg_id, deadline })
        };
        match body {
            Body::Ask(ask) => {
                if let Some((leader, asker)) = self.propose(&ask, asker()?, now)? {
                    self.last += 1;
                    let leader = self.name_of(leader).to_owned();
                    self.tell(&leader, &wire::forward(&ask, self.last));
                    self.waiting.push((Place::Forwarded(self.last), asker));
                }
                Ok(())
            }
            Body::Forward(ask) => match self.propose(&ask, asker()?, now)? {
                None => Ok(()),
                Some(_) => Err(Answer::error(Code::Unavailable, "not the leader any more")),
            },
            Body::Paxos(bytes) => {
                let from = self.names.iter().position(|name| name == src);
                let from = from.and_then(|index| u16::try_from(index + 1).ok());
                let from = from.ok_or_else(|| malformed("only nodes send messages of the core"))?;
                let message = codec::decode(bytes.into())
                    .map_err(|error| Answer::error(Code::Malformed, &error.to_string()))?;
                self.replica.handle_message(ReplicaId::new(from), message, now);
                Ok(())
            }
            Body::Reply { in_reply_to, mut body } => {
                let place = Place::Forwarded(in_reply_to);
                // Nobody waits any more for an answer that is late.
                for (_, asker) in self.take_waiting(|at, _| *at == place) {
                    body["in_reply_to"] = asker.msg_id.into();
                    self.tell(&asker.name, &body);
                }
                Ok(())
            }
            Body::Init { .. } => Err(malformed("this node is initialised already")),
        }
    }

    /// Proposes a request, or gives its asker back with the leader to ask instead.
    fn propose(
        &mut self,
        ask: &Ask,
        asker: Asker,
        now: Time,
    ) -> Result<Option<(ReplicaId, Asker)>, Answer> {
        if self.waiting.len() >= WAITING_MAX {
            return Err(Answer::error(Code::Unavailable, "too many requests wait"));
        }
        self.last += 1;
        let request = RequestNumber::new(self.last);
        let payload = serde_json::to_vec(ask).expect("a request is plain JSON");
        let command = Command::apply(self.client, request, payload.into());
        // Nothing in the store expires, so the log needs no clock.
        let error = match self.replica.propose(vec![command], LogClock::default(), now) {
            Ok(proposed) => {
                self.waiting.push((Place::Proposed(proposed.slot, request), asker));
                return Ok(None);
            }
            Err(error) => error,
        };
        if let NotProposed::NotLeader { hint: Some(leader) } = error.reason {
            return Ok(Some((leader, asker)));
        }
        let never = matches!(error.reason, NotProposed::TooLarge { .. });
        let code = if never { Code::Malformed } else { Code::Unavailable };
        Err(Answer::error(code, &error.to_string()))
    }

    /// Tells the time, executes every output and appends the lines that leave to `output`. Returns
    /// when to call again at the latest. The error is why the replica does nothing more.
    pub(crate) fn settle(
        &mut self,
        now: Time,
        output: &mut String,
    ) -> Result<Option<Time>, String> {
        self.replica.handle_timeout(now);
        let wake_at = loop {
            match self.replica.poll_output() {
                Output::Send { to, message } => {
                    let chunks = codec::encode(&message);
                    let body = wire::paxos(chunks.iter().map(|chunk| &chunk[..]));
                    let recipients = match to {
                        Recipients::One(peer) => vec![peer],
                        Recipients::AllPeers => self.replica.peers().to_vec(),
                    };
                    for peer in recipients {
                        self.lines.push_str(&line(&self.name, self.name_of(peer), &body));
                    }
                }
                Output::Persist(batch) => {
                    let proofs = self.storage.persist(vec![batch]);
                    for proof in proofs.map_err(|error| error.to_string())? {
                        self.replica.handle_durable(proof, now);
                    }
                }
                Output::Load { ticket, range } => {
                    let loaded = self.storage.load(range).map_err(|error| error.to_string())?;
                    self.replica.handle_loaded(ticket, loaded, now);
                }
                Output::Apply { slot, value } => {
                    self.apply(slot, &value);
                    self.replica.handle_applied(slot, now);
                }
                Output::ReadsReady { .. }
                | Output::ReadsLost { .. }
                | Output::QuorumReadsReady { .. }
                | Output::QuorumReadsLost { .. } => {
                    unreachable!("reads go through the log")
                }
                Output::SnapshotWanted { .. } => unreachable!("nobody trims a log"),
                Output::Halt(why) => return Err(why.to_string()),
                Output::Idle { wake_at } => break wake_at,
            }
        };
        let deadline = self.give_up(now);
        output.push_str(&std::mem::take(&mut self.lines));
        Ok([wake_at, deadline].into_iter().flatten().min())
    }

    /// Applies a chosen value, and answers whoever waits for what was proposed in its slot.
    fn apply(&mut self, slot: Slot, value: &Value) {
        let mut answers = Vec::new();
        if let Value::Batch(batch) = value {
            for command in batch.commands() {
                let answer = match serde_json::from_slice(&command.payload) {
                    Ok(ask) => self.store.apply(ask),
                    Err(error) => Answer::error(Code::Crash, &error.to_string()),
                };
                if command.client == self.client {
                    answers.push((command.request, answer));
                }
            }
        }
        let here =
            self.take_waiting(|at, _| matches!(at, Place::Proposed(other, _) if *other == slot));
        for (place, asker) in here {
            let answer =
                answers.iter().find(|(request, _)| place == Place::Proposed(slot, *request));
            let overtaken =
                Answer::error(Code::Unavailable, "another value was chosen in its slot");
            let answer = answer.map_or(&overtaken, |(_, answer)| answer);
            self.tell(&asker.name, &answer.body(asker.msg_id));
        }
    }

    /// Answers those whose deadline has come; returns the next deadline.
    fn give_up(&mut self, now: Time) -> Option<Time> {
        for (_, asker) in self.take_waiting(|_, asker| asker.deadline <= now) {
            let answer = Answer::error(Code::Timeout, "no answer in time: it may be carried out");
            self.tell(&asker.name, &answer.body(asker.msg_id));
        }
        self.waiting.iter().map(|(_, asker)| asker.deadline).min()
    }

    fn take_waiting(&mut self, is_it: impl Fn(&Place, &Asker) -> bool) -> Vec<(Place, Asker)> {
        self.waiting.extract_if(.., |(place, asker)| is_it(place, asker)).collect()
    }

    fn tell(&mut self, dest: &str, body: &serde_json::Value) {
        self.lines.push_str(&line(&self.name, dest, body));
    }

    fn name_of(&self, replica: ReplicaId) -> &str {
        &self.names[usize::from(replica.number()) - 1]
    }
}
