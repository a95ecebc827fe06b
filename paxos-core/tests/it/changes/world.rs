//! A cluster that comes and goes: replicas on simulated disks, a lossy network, a client, an operator who
//! changes the membership, and crashes in between.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use paxos_core::config::Config;
use paxos_core::durable::{Write, WriteBatch};
use paxos_core::ids::{
    ClientId, ClusterId, Epoch, GroupId, LogClock, ReplicaId, RequestNumber, Slot, Time,
};
use paxos_core::membership::{Change, Member, Membership};
use paxos_core::message::{Connectivity, Message};
use paxos_core::output::{Halt, Output, ReadTicket, Recipients, Role};
use paxos_core::port::{Format, Storage};
use paxos_core::quorum::QuorumRule;
use paxos_core::replica::Replica;
use paxos_core::sim::{CrashStorage, Rng, SimDisk};
use paxos_core::value::{Command, Value};

use super::judge::Judge;

const WINDOW: u32 = 8;
/// Ids are never used again, and the first ones run out late.
pub(super) const IDS: u16 = 40;

fn id(number: u16) -> ReplicaId {
    ReplicaId::new(number)
}

/// A process on a directory.
struct Node {
    disk: SimDisk,
    replica: Option<Replica>,
    pending: VecDeque<WriteBatch>,
    wake_at: Option<Time>,
    /// What its state machine has applied in this life.
    applied: Vec<Value>,
    /// The prefix that was known when each of its reads was asked.
    reads: BTreeMap<ReadTicket, Slot>,
    quorum_reads: BTreeMap<ReadTicket, Slot>,
    pub(super) removed: bool,
}

enum Event {
    Deliver { to: ReplicaId, message: Message },
    Proof { of: ReplicaId, boot: u32 },
    Start { of: ReplicaId },
    Heal { links: BTreeSet<(ReplicaId, ReplicaId)> },
}

/// What a run met.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Met {
    pub(super) changes: u64,
    pub(super) refused: u64,
    pub(super) memberships: u64,
    pub(super) promotions: u64,
    pub(super) removed: u64,
    pub(super) crashes: u64,
    pub(super) handed_over: u64,
    pub(super) reads: u64,
    pub(super) quorum_reads: u64,
}

pub(super) struct World {
    now: Time,
    rng: Rng,
    nodes: BTreeMap<ReplicaId, Node>,
    events: BTreeMap<(Time, u64), Event>,
    order: u64,
    pub(super) judge: Judge,
    cut: BTreeSet<(ReplicaId, ReplicaId)>,
    /// How many messages of a thousand are lost, and how many come twice.
    loss: u32,
    next_id: u16,
    requests: u64,
    /// What a client was told is done.
    acknowledged: BTreeMap<Slot, u64>,
    proposed: BTreeMap<(ReplicaId, Slot), u64>,
    pub(super) met: Met,
}

impl World {
    pub(super) fn new(seed: u64, voters: u16) -> Self {
        let mut rng = Rng::new(seed);
        let members = (1..=voters).map(|number| Member::new(id(number))).collect();
        let rule = QuorumRule::Majority;
        let first = Membership::new(Epoch::FIRST, members, Vec::new(), rule, WINDOW).unwrap();
        let mut world = Self {
            now: Time::ZERO,
            loss: *rng.pick(&[0, 10, 50]),
            rng,
            nodes: BTreeMap::new(),
            events: BTreeMap::new(),
            order: 0,
            judge: Judge::new(first.clone()),
            cut: BTreeSet::new(),
            next_id: voters + 1,
            requests: 0,
            acknowledged: BTreeMap::new(),
            proposed: BTreeMap::new(),
            met: Met::default(),
        };
        for number in 1..=voters {
            world.install(id(number), &first);
        }
        world
    }

    /// Formats a directory and starts a replica on it.
    fn install(&mut self, replica: ReplicaId, membership: &Membership) {
        let (cluster, group) = (ClusterId::new(1), GroupId::new(1));
        let format = Format { cluster, group, replica, membership: membership.clone() };
        let node = Node {
            disk: SimDisk::new(format),
            replica: None,
            pending: VecDeque::new(),
            wake_at: None,
            applied: Vec::new(),
            reads: BTreeMap::new(),
            quorum_reads: BTreeMap::new(),
            removed: false,
        };
        self.nodes.insert(replica, node);
        self.start(replica);
    }

    fn start(&mut self, of: ReplicaId) {
        let nonce = self.rng.bits() as u32;
        let seed = self.rng.bits();
        let node = self.nodes.get_mut(&of).unwrap();
        if node.replica.is_some() || node.removed {
            return;
        }
        let recovered = node.disk.recover(nonce).unwrap().remove(0);
        if let Some(ballot) = recovered.promised {
            self.judge.durable(of, &Write::Promised(ballot));
        }
        for vote in recovered.votes.clone() {
            let (slot, ballot, value) = (vote.slot, vote.ballot, vote.value);
            self.judge.durable(of, &Write::Accepted { slot, ballot, value });
        }
        assert!(recovered.committed <= self.judge.prefix);
        let config = Config::default();
        let replica = Replica::recover(config, recovered, Slot::ZERO, seed, self.now).unwrap();
        node.replica = Some(replica);
        node.applied.clear();
        node.reads.clear();
        node.quorum_reads.clear();
        self.drain(of);
    }

    pub(super) fn crash(&mut self, of: ReplicaId, down: Duration) {
        let node = self.nodes.get_mut(&of).unwrap();
        if node.replica.take().is_none() {
            return;
        }
        self.met.crashes += 1;
        node.disk.crash(node.pending.drain(..).collect(), &mut self.rng);
        node.wake_at = None;
        self.at(down, Event::Start { of });
    }

    fn at(&mut self, delay: Duration, event: Event) {
        self.order += 1;
        self.events.insert((self.now.after(delay), self.order), event);
    }

    fn within(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_micros(self.rng.between(low, high))
    }

    /// Executes what a replica puts out.
    fn drain(&mut self, of: ReplicaId) {
        loop {
            let node = self.nodes.get_mut(&of).unwrap();
            let Some(replica) = &mut node.replica else { return };
            match replica.poll_output() {
                Output::Send { to, message } => {
                    let (peers, committed) = (replica.peers().to_vec(), replica.committed());
                    self.judge.sent(of, committed, &message.body);
                    let to = match to {
                        Recipients::One(peer) => vec![peer],
                        Recipients::AllPeers => peers,
                    };
                    for to in to {
                        self.send(of, to, &message);
                    }
                }
                Output::Persist(batch) => {
                    node.pending.push_back(batch);
                    let boot = replica.incarnation().boot();
                    let delay = self.within(500, 8_000);
                    self.at(delay, Event::Proof { of, boot });
                }
                Output::Load { ticket, range } => {
                    let loaded = node.disk.load(range).unwrap();
                    replica.handle_loaded(ticket, loaded, self.now);
                }
                Output::Apply { slot, value } => {
                    assert_eq!(self.judge.chosen.get(&slot), Some(&value), "{of} applies {slot}");
                    node.applied.push(value);
                    assert_eq!(node.applied.len() as u64, slot.number(), "in order, each once");
                    replica.handle_applied(slot, self.now);
                    if let Some(request) = self.proposed.remove(&(of, slot)) {
                        self.acknowledge(of, slot, request);
                    }
                }
                Output::ReadsReady { through, point } => {
                    self.met.reads += served(&mut node.reads, through, point);
                }
                Output::ReadsLost { through } => {
                    node.reads = node.reads.split_off(&ReadTicket::new(through.number() + 1));
                }
                Output::QuorumReadsReady { through, point } => {
                    self.met.quorum_reads += served(&mut node.quorum_reads, through, point);
                }
                Output::QuorumReadsLost { through, .. } => {
                    let later = ReadTicket::new(through.number() + 1);
                    node.quorum_reads = node.quorum_reads.split_off(&later);
                }
                Output::SnapshotWanted { from, .. } => panic!("{from} trimmed nothing"),
                Output::Halt(Halt::Removed { epoch, .. }) => {
                    self.judge.may_stop(of, epoch);
                    self.met.removed += 1;
                    node.removed = true;
                    node.replica = None;
                    node.wake_at = None;
                    return;
                }
                Output::Halt(halt) => panic!("{of} halts: {halt}"),
                Output::Idle { wake_at } => {
                    self.judge.known = self.judge.known.max(replica.committed());
                    assert!(replica.committed() <= self.judge.prefix, "{of} commits too much");
                    node.wake_at = wake_at;
                    return;
                }
            }
        }
    }

    /// Whether a command was applied where it was proposed is seen by what stands there.
    fn acknowledge(&mut self, by: ReplicaId, at: Slot, request: u64) {
        let value = self.nodes[&by].applied.last();
        if let Some(Value::Batch(batch)) = value
            && batch.commands()[0].request == RequestNumber::new(request)
        {
            self.acknowledged.insert(at, request);
        }
    }

    fn send(&mut self, from: ReplicaId, to: ReplicaId, message: &Message) {
        if self.cut.contains(&(from, to)) || self.rng.chance(self.loss) {
            return;
        }
        let copies = if self.rng.chance(self.loss) { 2 } else { 1 };
        for _ in 0..copies {
            let delay = self.within(300, 6_000);
            self.at(delay, Event::Deliver { to, message: message.clone() });
        }
    }

    /// Lets time pass, as far as the next event and no further than this.
    fn step(&mut self, end: Time) -> bool {
        let due = self.nodes.iter().filter_map(|(id, node)| Some((node.wake_at?, *id))).min();
        let next = self.events.first_key_value().map(|((at, _), _)| *at);
        let timer = due.filter(|(at, _)| next.is_none_or(|next| *at < next));
        let at = timer.map(|(at, _)| at).or(next);
        let Some(at) = at.filter(|at| *at <= end) else {
            self.now = end;
            return false;
        };
        self.now = self.now.max(at);
        if let Some((_, of)) = timer {
            let node = self.nodes.get_mut(&of).unwrap();
            node.wake_at = None;
            node.replica.as_mut().unwrap().handle_timeout(self.now);
            self.drain(of);
            return true;
        }
        match self.events.pop_first().unwrap().1 {
            Event::Deliver { to, message } => {
                let from = message.origin.replica;
                let node = self.nodes.get_mut(&to).and_then(|node| node.replica.as_mut());
                if let Some(replica) = node {
                    replica.handle_message(from, message, self.now);
                    self.drain(to);
                }
            }
            Event::Proof { of, boot } => self.prove(of, boot),
            Event::Start { of } => self.start(of),
            Event::Heal { links } => self.cut.retain(|link| !links.contains(link)),
        }
        true
    }

    fn prove(&mut self, of: ReplicaId, boot: u32) {
        let node = self.nodes.get_mut(&of).unwrap();
        let Some(replica) = &mut node.replica else { return };
        if replica.incarnation().boot() != boot {
            return;
        }
        let batch = node.pending.pop_front().expect("each proof is of a batch");
        for write in batch.writes() {
            self.judge.durable(of, write);
        }
        let proof = node.disk.persist(vec![batch]).unwrap().remove(0);
        replica.handle_durable(proof, self.now);
        self.drain(of);
    }

    pub(super) fn run(&mut self, duration: Duration) {
        let end = self.now.after(duration);
        while self.step(end) {}
        self.format_newcomers();
    }

    /// Whoever is a member of a membership that is known to be chosen gets a directory, formatted with it.
    fn format_newcomers(&mut self) {
        let membership = self.judge.newest().clone();
        let members: Vec<_> = membership.members().map(|member| member.id).collect();
        for member in members {
            if !self.nodes.contains_key(&member) {
                self.install(member, &membership);
            }
        }
    }

    pub(super) fn up(&self) -> Vec<ReplicaId> {
        let up = self.nodes.iter().filter(|(_, node)| node.replica.is_some());
        up.map(|(id, _)| *id).collect()
    }

    pub(super) fn leader(&self) -> Option<ReplicaId> {
        let replicas = self.nodes.values().filter_map(|node| node.replica.as_ref());
        let leads = replicas.filter(|replica| replica.role() == Role::Leader);
        let newest = leads.max_by_key(|replica| replica.leader())?;
        Some(newest.status().replica)
    }

    pub(super) fn membership(&self, at: ReplicaId) -> Membership {
        self.nodes[&at].replica.as_ref().unwrap().membership().clone()
    }

    fn replica(&mut self, id: ReplicaId) -> &mut Replica {
        self.nodes.get_mut(&id).unwrap().replica.as_mut().unwrap()
    }

    pub(super) fn propose(&mut self, at: ReplicaId) -> bool {
        self.requests += 1;
        let (request, now) = (self.requests, self.now);
        let number = RequestNumber::new(request);
        let command = Command::apply(ClientId::new(1), number, Bytes::new());
        let clock = LogClock::default();
        let proposed = self.replica(at).propose(vec![command], clock, now);
        if let Ok(proposed) = &proposed {
            self.proposed.insert((at, proposed.slot), request);
        }
        self.drain(at);
        proposed.is_ok()
    }

    pub(super) fn read(&mut self, at: ReplicaId) {
        let (known, now) = (self.judge.known, self.now);
        if let Ok(ticket) = self.replica(at).read(now) {
            self.nodes.get_mut(&at).unwrap().reads.insert(ticket, known);
        }
        self.drain(at);
    }

    fn read_quorum(&mut self, at: ReplicaId) {
        let (known, now) = (self.judge.known, self.now);
        if let Ok(ticket) = self.replica(at).read_quorum(now) {
            self.nodes.get_mut(&at).unwrap().quorum_reads.insert(ticket, known);
        }
        self.drain(at);
    }

    fn fresh(&mut self) -> Option<Member> {
        let number = self.next_id;
        (number <= IDS).then(|| {
            self.next_id += 1;
            Member::new(id(number))
        })
    }

    /// A change that makes sense to whoever leads, or nearly.
    fn any_change(&mut self, membership: &Membership) -> Option<Change> {
        let voters = membership.voters().to_vec();
        let some = self.rng.pick(&voters).clone();
        let few = voters.len() < 5;
        Some(match self.rng.below(10) {
            0..=2 if few => Change::AddVoter(self.fresh()?),
            3 if few => Change::AddObserver(self.fresh()?),
            0..=4 => Change::Remove(some.id),
            5 | 6 => Change::Replace { old: some.id, new: self.fresh()? },
            7 => {
                let count = voters.len() as u16;
                let accept = self.rng.between(1, u64::from(count)) as u16;
                Change::Quorums(QuorumRule::accepting(count, accept))
            }
            8 => Change::Quorums(QuorumRule::Majority),
            _ => {
                let everybody: Vec<_> = membership.members().cloned().collect();
                let mut voters: Vec<_> =
                    everybody.into_iter().filter(|_| self.rng.chance(600)).collect();
                voters.truncate(5);
                Change::Set { voters, observers: Vec::new(), rule: QuorumRule::Majority }
            }
        })
    }

    pub(super) fn reconfigure(&mut self, at: ReplicaId) {
        let membership = self.replica(at).membership().clone();
        if let Some(change) = self.any_change(&membership) {
            self.change(at, change);
        }
    }

    pub(super) fn change(&mut self, at: ReplicaId, change: Change) -> bool {
        let now = self.now;
        let changed = self.replica(at).reconfigure(change, now);
        self.met.changes += u64::from(changed.is_ok());
        self.met.refused += u64::from(changed.is_err());
        self.drain(at);
        changed.is_ok()
    }

    pub(super) fn transfer(&mut self, at: ReplicaId) {
        let now = self.now;
        if let Some(heir) = self.replica(at).heirs().first().copied() {
            self.met.handed_over += u64::from(self.replica(at).transfer(heir, now).is_ok());
        }
        self.drain(at);
    }

    /// Cuts some links for a while, in one direction or both.
    pub(super) fn partition(&mut self) {
        let up = self.up();
        let side: Vec<_> = up.iter().copied().filter(|_| self.rng.chance(400)).collect();
        let both = self.rng.chance(700);
        let mut links = BTreeSet::new();
        for one in &side {
            for other in up.iter().filter(|other| !side.contains(other)) {
                links.insert((*one, *other));
                if both {
                    links.insert((*other, *one));
                }
            }
        }
        self.cut.extend(&links);
        let length = self.within(100_000, 2_000_000);
        self.at(length, Event::Heal { links });
    }

    /// A random thing happens.
    pub(super) fn trouble(&mut self) {
        let up = self.up();
        let some = (!up.is_empty()).then(|| *self.rng.pick(&up));
        match (self.rng.below(40), self.leader(), some) {
            (0 | 1, _, Some(some)) => {
                let down = self.within(50_000, 1_500_000);
                self.crash(some, down);
            }
            (2, Some(leader), _) => {
                let down = self.within(50_000, 1_500_000);
                self.crash(leader, down);
            }
            (3, _, _) => self.partition(),
            (4..=8, Some(leader), _) => self.reconfigure(leader),
            (9, Some(leader), _) => self.transfer(leader),
            (10..=15, Some(leader), _) => self.read(leader),
            (16, _, Some(some)) if self.is_leading(some) => self.read(some),
            (31..=33, _, Some(some)) => self.read_quorum(some),
            (17..=30, Some(leader), _) => {
                self.propose(leader);
            }
            _ => {}
        }
    }

    fn is_leading(&self, id: ReplicaId) -> bool {
        self.nodes[&id].replica.as_ref().is_some_and(|r| r.role() == Role::Leader)
    }

    /// Everything is well again.
    pub(super) fn heal(&mut self) {
        self.cut.clear();
        self.loss = 0;
        self.events.retain(|_, event| !matches!(event, Event::Heal { .. }));
    }

    /// Whether nothing is left to be done: somebody leads, no change is under way, nobody joins, whoever
    /// is a member has applied the same, and whoever is not has stopped.
    pub(super) fn is_settled(&self) -> Result<(), String> {
        let leader = self.leader().ok_or("nobody leads")?;
        let replica = self.nodes[&leader].replica.as_ref().unwrap();
        let membership = replica.membership();
        if !membership.joining().is_empty() {
            return Err(format!("{:?} have not been promoted", membership.joining()));
        }
        for (id, node) in &self.nodes {
            let member = membership.contains(*id);
            if let Some(other) = node.replica.as_ref().filter(|_| !member)
                && !other.peers().iter().any(|peer| membership.contains(*peer))
                && other.status().connectivity == Connectivity::Partial
            {
                // It was away until nobody was left whom it knows: nobody tells it, and it can do nothing.
                continue;
            }
            if member == node.removed || member != node.replica.is_some() {
                return Err(format!("{id} is a member: {member}, removed: {}", node.removed));
            }
            let Some(other) = &node.replica else { continue };
            if other.membership() != membership || other.peers().len() + 1 != count(membership) {
                return Err(format!("{id} knows {} and {:?}", membership.epoch(), other.peers()));
            }
            if node.applied.len() as u64 != self.judge.prefix.number() {
                return Err(format!("{id} applied {} values", node.applied.len()));
            }
        }
        Ok(())
    }

    /// What clients were told is in the log, and the log is what everybody applied.
    pub(super) fn audit(&mut self) {
        for (at, request) in &self.acknowledged {
            let Some(Value::Batch(batch)) = self.judge.chosen.get(at) else {
                panic!("what was acknowledged in {at} is gone");
            };
            assert_eq!(batch.commands()[0].request, RequestNumber::new(*request));
        }
        let counters =
            self.nodes.values().filter_map(|node| Some(node.replica.as_ref()?.counters()));
        for counters in counters {
            self.met.promotions += counters.promotions;
        }
        self.met.memberships = u64::from(self.judge.newest().epoch().number()) - 1;
        assert!(self.judge.ever().len() <= usize::from(IDS));
    }

    pub(super) fn status(&self) -> String {
        let said = self.nodes.iter().map(|(id, node)| match &node.replica {
            Some(replica) => format!("{id}: {:?}", replica.status()),
            None => format!("{id}: down, removed: {}", node.removed),
        });
        said.collect::<Vec<_>>().join("\n")
    }
}

/// Reads up to this ticket got this point. Returns how many.
fn served(reads: &mut BTreeMap<ReadTicket, Slot>, through: ReadTicket, point: Slot) -> u64 {
    let later = reads.split_off(&ReadTicket::new(through.number() + 1));
    let answered = std::mem::replace(reads, later);
    for (ticket, known) in &answered {
        assert!(point >= *known, "the point of read {ticket:?} is stale");
    }
    answered.len() as u64
}

fn count(membership: &Membership) -> usize {
    membership.members().count()
}
