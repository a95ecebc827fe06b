//! Fairness between the clients of a node: counted in slots and commands, so that the machine's speed
//! does not matter.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use paxos::{Client, ClientError, Config, Node, NodeOptions, Rejection};

use crate::support::{Cluster, Marks, Op, PATIENCE, config, soon, until};

/// What one client has outstanding.
const FLOOD: usize = 10_000;
/// Some two hundred commands share a slot, and no more are in flight.
const BATCH: usize = 16 << 10;
/// What a command takes alone, in slots.
const ALONE_MAX: u64 = 2;
/// How often the other is measured.
const TIMES: usize = 21;

/// Many tasks of one client, each of which asks one command after the other.
struct Flood {
    ended: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Flood {
    fn begin(node: &Node<Marks>) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let client = node.client().with_timeout(PATIENCE);
        let task = |_| {
            let (client, ended) = (client.clone(), Arc::clone(&ended));
            tokio::spawn(async move {
                while !ended.load(Ordering::Relaxed) {
                    let stopped = Err(ClientError::Rejected(Rejection::Stopped));
                    if client.execute(Op::Mark(7)).await == stopped {
                        break;
                    }
                }
            })
        };
        let tasks = (0..FLOOD).map(task).collect();
        Self { ended, tasks }
    }

    async fn end(self) {
        self.ended.store(true, Ordering::Relaxed);
        for task in self.tasks {
            soon("the end of the flood", task).await.unwrap();
        }
    }
}

/// How many slots pass from the last applied one to that of the answer, in the middle of many.
async fn slots_p50(cluster: &Cluster, at: usize) -> u64 {
    let client = cluster.node(at).client().with_timeout(PATIENCE);
    let mut passed = Vec::new();
    for name in 0..TIMES {
        let before = cluster.node(at).status().replica.applied;
        let applied = soon("a reply", client.execute_at(Op::Mark(name as u64))).await.unwrap();
        passed.push(applied.slot.distance_from(before));
    }
    passed.sort_unstable();
    passed[TIMES / 2]
}

/// One client with ten thousand commands outstanding does not raise another's median above three
/// times what it is alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_client_with_ten_thousand_outstanding_does_not_hold_up_another() {
    let config = Config { batch_bytes_max: BATCH, window_bytes_max: BATCH, ..config() };
    let cluster = Cluster::tuned(3, config, NodeOptions::default()).await;
    let leader = cluster.leader().await;
    let alone = slots_p50(&cluster, leader).await;
    // A reply may be given before its slot is said to be applied: one slot or two.
    assert!((1..=ALONE_MAX).contains(&alone), "{alone} slots without anybody else");
    let flood = Flood::begin(cluster.node(leader));
    until("a flood", || cluster.node(leader).metrics().requests_pending > FLOOD as u64 / 2).await;
    let beside = slots_p50(&cluster, leader).await;
    assert!(beside <= 3 * ALONE_MAX, "{beside} slots beside the flood, {alone} without");
    flood.end().await;
}

/// While two ask, neither has more under way than fills a round, wherever their nodes are: what is
/// applied between a question and its answer is a small part of what the other one has outstanding.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_under_way_of_one_client_is_little_while_another_asks() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let (next, last) = ((leader + 1) % 3, (leader + 2) % 3);
    for (quiet, greedy) in
        [(leader, leader), (leader, next), (next, leader), (next, next), (next, last)]
    {
        let flood = Flood::begin(cluster.node(greedy));
        until("a flood", || cluster.node(greedy).metrics().requests_waiting > FLOOD as u64 / 2)
            .await;
        let client = cluster.node(quiet).client().with_timeout(PATIENCE);
        let applied = || cluster.node(quiet).metrics().commands_applied;
        let mut passed = Vec::new();
        for name in 0..TIMES {
            let before = applied();
            soon("a reply", client.execute(Op::Mark(name as u64))).await.unwrap();
            passed.push(applied() - before);
        }
        passed.sort_unstable();
        let median = passed[TIMES / 2];
        assert!(
            median <= FLOOD as u64 / 4,
            "{median} commands pass node {quiet} beside a flood at node {greedy}"
        );
        flood.end().await;
    }
}

/// One client cannot have all places of a node: another's command is taken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_client_cannot_take_the_places_of_the_others() {
    let options = NodeOptions { requests_max: 90, ..NodeOptions::default() };
    let mut cluster = Cluster::with(3, options).await;
    drop(cluster.nodes[0].take());
    drop(cluster.nodes[1].take());
    let alone = cluster.node(2);
    until("loneliness", || alone.watch().borrow().leader.is_none()).await;
    let greedy = alone.client().with_timeout(PATIENCE);
    let ask = |client: &Client<Marks>| {
        let client = client.clone();
        tokio::spawn(async move { client.execute(Op::Mark(1)).await })
    };
    let asked: Vec<_> = (0..100).map(|_| ask(&greedy)).collect();
    until("refusals", || alone.metrics().requests_busy == 20).await;
    until("those who wait", || alone.metrics().requests_waiting == 80).await;
    let other = alone.client().with_timeout(core::time::Duration::from_millis(100));
    let answer = soon("an answer", other.execute(Op::Mark(2))).await;
    assert_eq!(answer, Err(ClientError::Rejected(Rejection::NoLeader)), "it had a place");
    assert_eq!(alone.metrics().requests_busy, 20);
    for asked in asked {
        asked.abort();
    }
}
