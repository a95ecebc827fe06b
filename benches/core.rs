//! W-core: the protocol alone. Three replicas on one thread, messages handed over by function call,
//! an in-memory log that keeps every value until it is trimmed, and commands handed singly to be
//! applied on all three.
//!
//! Each command enters as its own `Bytes` by its own call; `per_drain` of them form a batch. The
//! wire codec and the checksum are outside, as nothing crosses a wire.

#![allow(missing_docs, reason = "the macros of the harness make undocumented items")]
#![allow(clippy::unwrap_used, reason = "a benchmark that fails should stop")]

use std::collections::VecDeque;
use std::hint::black_box;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use paxos::core::config::Config;
use paxos::core::durable::Write;
use paxos::core::ids::{
    ClientId, ClusterId, GroupId, Incarnation, LogClock, ReplicaId, RequestNumber, Slot, Time,
};
use paxos::core::membership::Membership;
use paxos::core::message::Message;
use paxos::core::output::{Output, Recipients, Role};
use paxos::core::port::{Format, Recovered};
use paxos::core::replica::Replica;
use paxos::core::value::{Command, Value};

const TRIM_EACH: u64 = 100_000;

/// A replica with its log and its state machine: the sum of the payloads' first bytes.
struct Node {
    id: ReplicaId,
    replica: Replica,
    log: Vec<Value>,
    applied: u64,
    sum: u64,
    inbox: VecDeque<(ReplicaId, Message)>,
}

struct Cluster {
    nodes: Vec<Node>,
    now: Time,
    request: u64,
    trimmed: u64,
}

impl Cluster {
    fn new() -> Self {
        let ids = [1, 2, 3].map(ReplicaId::new);
        let membership = Membership::voters_only(ids).unwrap();
        let node = |id: ReplicaId| {
            let format = Format {
                cluster: ClusterId::new(1),
                group: GroupId::default(),
                replica: id,
                membership: membership.clone(),
            };
            let recovered = Recovered::formatted(format, Incarnation::first(0));
            let seed = u64::from(id.number());
            // A drain of 1,024 commands of 1 KiB is one batch.
            let config = Config { batch_bytes_max: 2 << 20, ..Config::default() };
            let replica =
                Replica::recover(config, recovered, Slot::ZERO, seed, Time::ZERO).unwrap();
            let (log, inbox) = (Vec::new(), VecDeque::new());
            Node { id, replica, log, applied: 0, sum: 0, inbox }
        };
        let mut cluster =
            Self { nodes: ids.map(node).into(), now: Time::ZERO, request: 0, trimmed: 0 };
        while cluster.leader().is_none() {
            cluster.now = cluster.now.after(Config::default().heartbeat_interval);
            for node in &mut cluster.nodes {
                node.replica.handle_timeout(cluster.now);
            }
            cluster.settle();
        }
        cluster
    }

    fn leader(&self) -> Option<usize> {
        self.nodes.iter().position(|node| node.replica.status().role == Role::Leader)
    }

    /// Hands outputs over until nobody has any.
    fn settle(&mut self) {
        loop {
            let mut quiet = true;
            for index in 0..self.nodes.len() {
                quiet &= !self.drain(index);
            }
            if quiet {
                return;
            }
        }
    }

    fn drain(&mut self, index: usize) -> bool {
        let mut busy = false;
        let now = self.now;
        while let Some((from, message)) = self.nodes[index].inbox.pop_front() {
            self.nodes[index].replica.handle_message(from, message, now);
            busy = true;
        }
        let from = self.nodes[index].id;
        let mut applied = Slot::ZERO;
        loop {
            match self.nodes[index].replica.poll_output() {
                Output::Send { to, message } => {
                    for (other, node) in self.nodes.iter_mut().enumerate() {
                        if other != index
                            && [Recipients::AllPeers, Recipients::One(node.id)].contains(&to)
                        {
                            node.inbox.push_back((from, message.clone()));
                        }
                    }
                }
                Output::Persist(batch) => {
                    let node = &mut self.nodes[index];
                    for write in batch.writes() {
                        if let Write::Accepted { value, .. } | Write::Chosen { value, .. } = write {
                            node.log.push(value.clone());
                        }
                    }
                    node.replica.handle_durable(batch.into_durable(), now);
                }
                Output::Apply { slot, value } => {
                    applied = slot;
                    let node = &mut self.nodes[index];
                    if let Value::Batch(batch) = &value {
                        for command in batch.commands() {
                            node.sum += u64::from(black_box(&command.payload)[0]);
                            node.applied += 1;
                        }
                    }
                }
                Output::Load { .. }
                | Output::ReadsReady { .. }
                | Output::ReadsLost { .. }
                | Output::QuorumReadsReady { .. }
                | Output::QuorumReadsLost { .. }
                | Output::SnapshotWanted { .. }
                | Output::Halt(_) => unreachable!("nothing is old, read or broken"),
                Output::Idle { .. } => break,
            }
            busy = true;
        }
        if applied > Slot::ZERO {
            let node = &mut self.nodes[index];
            node.replica.handle_applied(applied, now);
            if node.applied - self.trimmed >= TRIM_EACH {
                node.log.clear();
                node.replica.trim(applied).unwrap();
            }
        }
        busy
    }

    /// Commits and applies `count` commands everywhere, `per_drain` to a batch.
    fn run(&mut self, count: u64, per_drain: usize, payload: &Bytes) {
        let leader = self.leader().unwrap();
        let target = self.nodes[leader].applied + count;
        let mut sent = 0;
        while sent < count {
            let mut batch = Vec::with_capacity(per_drain);
            while batch.len() < per_drain && sent < count {
                self.request += 1;
                sent += 1;
                let request = RequestNumber::new(self.request);
                batch.push(Command::apply(ClientId::new(1), request, payload.clone()));
            }
            self.nodes[leader].replica.propose(batch, LogClock::default(), self.now).unwrap();
            self.settle();
            if self.nodes.iter().all(|node| node.applied - self.trimmed >= TRIM_EACH) {
                self.trimmed += TRIM_EACH;
            }
        }
        assert!(self.nodes.iter().all(|node| node.applied == target), "all three applied it all");
    }
}

fn core(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("W-core");
    for bytes in [16_usize, 1024] {
        let payload = Bytes::from(vec![1; bytes]);
        for per_drain in [1_usize, 16, 64, 1024] {
            let mut cluster = Cluster::new();
            let count = 100_000;
            group.throughput(Throughput::Elements(count)).sample_size(10);
            group.bench_function(BenchmarkId::new(format!("{bytes} B"), per_drain), |bencher| {
                bencher.iter(|| cluster.run(count, per_drain, &payload));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, core);
criterion_main!(benches);
