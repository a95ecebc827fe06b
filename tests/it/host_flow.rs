//! Fairness between the clients of a node: counted in slots, so that the machine's speed does not
//! matter.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use paxos::{Client, ClientError, Config, NodeOptions, Rejection};

use crate::support::{Cluster, Marks, Op, PATIENCE, config, soon, until};

/// What one client has outstanding.
const FLOOD: usize = 10_000;
/// Some two hundred commands share a slot, and no more are in flight.
const BATCH: usize = 16 << 10;
/// What a command takes alone, in slots.
const ALONE_MAX: u64 = 2;
/// How often the other is measured.
const TIMES: usize = 21;

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
    let ended = Arc::new(AtomicBool::new(false));
    let flood = |client: Client<Marks>| {
        let ended = Arc::clone(&ended);
        tokio::spawn(async move {
            while !ended.load(Ordering::Relaxed) {
                let stopped = Err(ClientError::Rejected(Rejection::Stopped));
                if client.execute(Op::Mark(7)).await == stopped {
                    break;
                }
            }
        })
    };
    let greedy = cluster.node(leader).client().with_timeout(PATIENCE);
    let tasks: Vec<_> = (0..FLOOD).map(|_| flood(greedy.clone())).collect();
    until("a flood", || cluster.node(leader).metrics().requests_pending > FLOOD as u64 / 2).await;
    let beside = slots_p50(&cluster, leader).await;
    assert!(beside <= 3 * ALONE_MAX, "{beside} slots beside the flood, {alone} without");
    ended.store(true, Ordering::Relaxed);
    for task in tasks {
        soon("the end of the flood", task).await.unwrap();
    }
}
