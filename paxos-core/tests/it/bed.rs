//! A test bed for one replica: the test plays the network, the disk, the state machine and the
//! clock, and sees everything that leaves.

use std::time::Duration;

use bytes::Bytes;
use paxos_core::ballot::Ballot;
use paxos_core::config::Config;
use paxos_core::durable::{Write, WriteBatch};
use paxos_core::ids::{
    ClientId, ClusterId, GroupId, Incarnation, LogClock, Priority, ReplicaId, RequestNumber, Slot,
    Time,
};
use paxos_core::membership::{Member, Membership};
use paxos_core::message::{
    Accept, Accepted, Body, Connectivity, Echo, Heartbeat, Message, Origin, Promise, PromiseEntry,
};
use paxos_core::output::{
    Halt, LoadTicket, Output, Proposed, QuorumReadLoss, ReadTicket, Recipients, Role,
};
use paxos_core::port::{Format, LoadRange, Recovered, RecoveredVote, Start};
use paxos_core::quorum::QuorumRule;
use paxos_core::replica::Replica;
use paxos_core::snapshot::{Governs, ImageDigest, SnapshotMeta};
use paxos_core::value::{Batch, Command, Value};

pub(crate) const CLUSTER: ClusterId = ClusterId::new(0xC1);

pub(crate) fn id(number: u16) -> ReplicaId {
    ReplicaId::new(number)
}

pub(crate) fn slot(number: u64) -> Slot {
    Slot::new(number)
}

pub(crate) fn ballot(round: u64, leader: u16) -> Ballot {
    Ballot::new(round, id(leader))
}

pub(crate) fn command(text: &str) -> Command {
    let request = RequestNumber::new(
        text.bytes().fold(7_u64, |sum, byte| sum.wrapping_mul(31) + u64::from(byte)),
    );
    Command::apply(ClientId::new(1), request, Bytes::copy_from_slice(text.as_bytes()))
}

pub(crate) fn value(text: &str) -> Value {
    Value::Batch(Batch::new(LogClock::default(), vec![command(text)]))
}

pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::Noop => "no-op".to_owned(),
        Value::Membership(_) => "membership".to_owned(),
        Value::Batch(batch) => {
            let payloads = batch.commands().iter().map(|command| command.payload.to_vec());
            payloads.map(|bytes| String::from_utf8(bytes).unwrap()).collect::<Vec<_>>().join("+")
        }
    }
}

pub(crate) fn members(count: u16, window: u32) -> Membership {
    let voters = (1..=count).map(|number| Member::new(id(number))).collect();
    let epoch = paxos_core::ids::Epoch::FIRST;
    Membership::new(epoch, voters, Vec::new(), QuorumRule::Majority, window).unwrap()
}

/// So many voters with a window of eight slots.
pub(crate) fn voters_under(count: u16, rule: QuorumRule) -> Membership {
    let voters = (1..=count).map(|number| Member::new(id(number))).collect();
    let epoch = paxos_core::ids::Epoch::FIRST;
    Membership::new(epoch, voters, Vec::new(), rule, 8).unwrap()
}

/// What a storage that was only formatted gives.
pub(crate) fn blank(own: u16, membership: &Membership) -> Recovered {
    let format = Format {
        cluster: CLUSTER,
        group: GroupId::default(),
        replica: id(own),
        membership: membership.clone(),
    };
    Recovered::formatted(format, Incarnation::first(0))
}

/// What a storage gives that remembers exactly these writes.
pub(crate) fn remembered(own: u16, membership: &Membership, writes: &[Write]) -> Recovered {
    let mut recovered = blank(own, membership);
    recovered.start = Start::Again;
    recovered.incarnation = Incarnation::new(2, 0);
    for write in writes {
        match write {
            Write::Promised(ballot) => {
                recovered.promised = recovered.promised.max(Some(*ballot));
            }
            Write::Accepted { slot, ballot, value } => {
                recovered.promised = recovered.promised.max(Some(*ballot));
                recovered.votes.retain(|vote| vote.slot != *slot);
                let (slot, ballot, value) = (*slot, *ballot, value.clone());
                recovered.votes.push(RecoveredVote { slot, ballot, value });
            }
            Write::Chosen { slot, value } => recovered.chosen.push((*slot, value.clone())),
            Write::Committed(slot) => recovered.committed = *slot,
            Write::Governs { from, membership } => {
                let membership = (**membership).clone();
                recovered.governs.push(Governs { from: *from, membership });
            }
            Write::Trimmed(slot) => recovered.trimmed = *slot,
            Write::Refused { .. } => panic!("a refused directory is not started again"),
            Write::Peer { peer, incarnation } => {
                recovered.peers.retain(|(known, _)| known != peer);
                recovered.peers.push((*peer, *incarnation));
            }
        }
    }
    let committed = recovered.committed;
    recovered.votes.retain(|vote| vote.slot > committed);
    recovered.votes.sort_by_key(|vote| vote.slot);
    recovered.chosen.retain(|(slot, _)| *slot > committed);
    recovered
}

/// What is said of a snapshot of this slot, made under this membership.
pub(crate) fn snapshot(at: u64, membership: &Membership) -> SnapshotMeta {
    SnapshotMeta {
        group: GroupId::default(),
        slot: slot(at),
        clock: LogClock::default(),
        governs: vec![Governs { from: Slot::FIRST, membership: membership.clone() }],
        bytes: 8,
        digest: ImageDigest(u128::from(at)),
    }
}

/// One replica, and everything around it.
pub(crate) struct Bed {
    pub(crate) replica: Replica,
    pub(crate) own: ReplicaId,
    pub(crate) now: Time,
    /// What left, oldest first.
    pub(crate) sent: Vec<(Recipients, Body)>,
    /// Handed to the disk and not durable.
    pub(crate) pending: Vec<WriteBatch>,
    /// Durable, oldest first.
    pub(crate) disk: Vec<Write>,
    pub(crate) applied: Vec<(Slot, Value)>,
    pub(crate) loads: Vec<(LoadTicket, LoadRange)>,
    pub(crate) halted: Option<Halt>,
    /// Read points that were named, and tickets that were given up.
    pub(crate) reads_ready: Vec<(ReadTicket, Slot)>,
    pub(crate) reads_lost: Vec<ReadTicket>,
    pub(crate) quorum_reads_ready: Vec<(ReadTicket, Slot)>,
    pub(crate) quorum_reads_lost: Vec<(ReadTicket, QuorumReadLoss)>,
    /// Whose snapshots were wanted, and above which slot.
    pub(crate) wanted: Vec<(ReplicaId, Slot)>,
    /// The last heartbeat that this replica sent.
    pulse: u64,
    /// The last heartbeats that the test sent in the peers' names.
    peer_pulse: u64,
}

impl Bed {
    /// A replica that was just formatted, among `count` voters, acquainted with all of them.
    pub(crate) fn new(own: u16, count: u16) -> Self {
        let membership = members(count, 8);
        Self::start(blank(own, &membership), Config::default())
    }

    pub(crate) fn start(recovered: Recovered, config: Config) -> Self {
        let own = recovered.format.replica;
        let replica = Replica::recover(config, recovered, Slot::ZERO, 11, Time::ZERO).unwrap();
        let mut bed = Self {
            replica,
            own,
            now: Time::ZERO,
            sent: Vec::new(),
            pending: Vec::new(),
            disk: Vec::new(),
            applied: Vec::new(),
            loads: Vec::new(),
            halted: None,
            reads_ready: Vec::new(),
            reads_lost: Vec::new(),
            quorum_reads_ready: Vec::new(),
            quorum_reads_lost: Vec::new(),
            wanted: Vec::new(),
            pulse: 0,
            peer_pulse: 0,
        };
        bed.drain();
        for peer in bed.replica.peers().to_vec() {
            bed.receive(peer, bed.idle_heartbeat());
        }
        bed.sync();
        bed.sent.clear();
        bed
    }

    fn idle_heartbeat(&self) -> Heartbeat {
        Heartbeat {
            sequence: self.peer_pulse,
            echoes: Vec::new(),
            promised: None,
            leader: None,
            connectivity: Connectivity::Partial,
            committed: Slot::ZERO,
            durable: Slot::ZERO,
            held: Slot::ZERO,
            released: 0,
            priority: Priority::default(),
        }
    }

    pub(crate) fn origin_of(&self, peer: ReplicaId) -> Origin {
        Origin {
            cluster: CLUSTER,
            group: GroupId::default(),
            epoch: self.replica.membership().epoch(),
            membership: self.replica.membership().digest(),
            replica: peer,
            incarnation: Incarnation::new(1, 0),
        }
    }

    /// Executes everything that needs no disk.
    pub(crate) fn drain(&mut self) {
        loop {
            match self.replica.poll_output() {
                Output::Send { to, message } => {
                    if let Body::Heartbeat(heartbeat) = &message.body {
                        self.pulse = heartbeat.sequence;
                    }
                    self.sent.push((to, message.body));
                }
                Output::Persist(batch) => self.pending.push(batch),
                Output::Load { ticket, range } => self.loads.push((ticket, range)),
                Output::Apply { slot, value } => {
                    self.applied.push((slot, value));
                    self.replica.handle_applied(slot, self.now);
                }
                Output::ReadsReady { through, point } => self.reads_ready.push((through, point)),
                Output::ReadsLost { through } => self.reads_lost.push(through),
                Output::QuorumReadsReady { through, point } => {
                    self.quorum_reads_ready.push((through, point));
                }
                Output::QuorumReadsLost { through, reason } => {
                    self.quorum_reads_lost.push((through, reason));
                }
                Output::SnapshotWanted { from, above } => self.wanted.push((from, above)),
                Output::Halt(reason) => self.halted = Some(reason),
                Output::Idle { .. } => return,
            }
        }
    }

    /// Makes everything that was handed to the disk durable.
    pub(crate) fn sync(&mut self) {
        while !self.pending.is_empty() {
            let batch = self.pending.remove(0);
            self.disk.extend(batch.writes().iter().cloned());
            self.replica.handle_durable(batch.into_durable(), self.now);
            self.drain();
        }
    }

    pub(crate) fn receive(&mut self, from: ReplicaId, body: impl Into<Body>) {
        let message = Message { origin: self.origin_of(from), body: body.into() };
        self.replica.handle_message(from, message, self.now);
        self.drain();
    }

    pub(crate) fn pass(&mut self, duration: Duration) {
        self.now = self.now.after(duration);
        self.replica.handle_timeout(self.now);
        self.drain();
    }

    /// A peer's newest heartbeat, which echoes this replica's newest.
    pub(crate) fn pulse_of_a_peer(&self) -> Heartbeat {
        let incarnation = self.replica.incarnation();
        let echo = Echo { peer: self.own, incarnation, sequence: self.pulse };
        Heartbeat { echoes: vec![echo], ..self.idle_heartbeat() }
    }

    /// Heartbeats from these peers, each echoing this replica's newest.
    pub(crate) fn hear(&mut self, peers: &[u16], change: impl Fn(u16, &mut Heartbeat)) {
        self.peer_pulse += 1;
        for peer in peers {
            let mut heartbeat = self.pulse_of_a_peer();
            change(*peer, &mut heartbeat);
            self.receive(id(*peer), heartbeat);
        }
    }

    /// Lets time pass in heartbeats, all peers in `peers` alive, until a campaign begins.
    pub(crate) fn campaign(&mut self, peers: &[u16]) -> Ballot {
        for _ in 0..40 {
            self.pass(Config::default().heartbeat_interval);
            self.hear(peers, |_, _| {});
            if self.replica.status().role == Role::Candidate {
                return self.replica.status().promised.unwrap();
            }
        }
        panic!("a connected replica without a leader campaigns");
    }

    /// Becomes leader with empty promises from these peers.
    pub(crate) fn lead(&mut self, peers: &[u16]) -> Ballot {
        let ballot = self.campaign(peers);
        self.sync();
        for peer in peers {
            self.receive(id(*peer), promise(ballot, 1, Slot::ZERO, Vec::new()));
        }
        assert_eq!(self.replica.status().role, Role::Leader);
        ballot
    }

    pub(crate) fn propose(&mut self, text: &str) -> Proposed {
        let proposed = self
            .replica
            .propose(vec![command(text)], LogClock::default(), self.now)
            .expect("the leader proposes");
        self.drain();
        proposed
    }

    pub(crate) fn role(&self) -> Role {
        self.replica.status().role
    }

    pub(crate) fn committed(&self) -> Slot {
        self.replica.status().committed
    }

    pub(crate) fn take_sent(&mut self) -> Vec<(Recipients, Body)> {
        std::mem::take(&mut self.sent)
    }

    /// The messages of one kind that left.
    pub(crate) fn sent_of<T>(&self, pick: impl Fn(&Body) -> Option<T>) -> Vec<T> {
        self.sent.iter().filter_map(|(_, body)| pick(body)).collect()
    }

    pub(crate) fn accepts(&self) -> Vec<Accept> {
        self.sent_of(
            |body| {
                if let Body::Accept(accept) = body { Some(accept.clone()) } else { None }
            },
        )
    }

    pub(crate) fn promises(&self) -> Vec<Promise> {
        self.sent_of(|body| if let Body::Promise(page) = body { Some(page.clone()) } else { None })
    }

    pub(crate) fn has_sent(&self, name: &str) -> bool {
        self.sent.iter().any(|(_, body)| body.name() == name)
    }
}

/// The only page of a promise.
pub(crate) fn promise(
    ballot: Ballot,
    from: u64,
    committed: Slot,
    entries: Vec<PromiseEntry>,
) -> Promise {
    Promise { ballot, committed, from: slot(from), through: Slot::MAX, entries }
}

pub(crate) fn accept(ballot: Ballot, first: u64, texts: &[&str], committed: u64) -> Accept {
    let values = texts.iter().map(|text| value(text)).collect();
    Accept { ballot, committed: slot(committed), first: slot(first), values }
}

pub(crate) fn accepted(ballot: Ballot, first: u64, last: u64) -> Accepted {
    Accepted { ballot, first: slot(first), last: slot(last) }
}
