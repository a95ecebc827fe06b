//! Exactly once: commands in the session of their node, while leaders come and go.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use paxos::{ClientError, Consistency, Delivery, NodeOptions};

use crate::support::{Cluster, Marks, Op, id, mark, marked, soon, until};

const COUNTER: u64 = 7;
const INCREMENTS: u64 = 10_000;
const WORKERS: u64 = 20;
/// Clients ask at these; the others are killed when they lead.
const ASKED: usize = 2;

/// How the increments ended.
#[derive(Debug, Default)]
struct Ends {
    acknowledged: u64,
    rejected: u64,
    unknown: u64,
}

/// Has the counter incremented from two nodes of five, while leaders are killed where nobody asks,
/// and cut off where somebody does, before what they were given is answered.
async fn increment(delivery: Delivery, blows: u64) -> (Cluster, Ends) {
    let mut cluster = Cluster::start(5).await;
    cluster.leader().await;
    let answered = Arc::new(AtomicU64::new(0));
    let mut workers = Vec::new();
    for worker in 0..WORKERS {
        let client = cluster.node(worker as usize % ASKED).client();
        let client = client.with_timeout(Duration::from_secs(60));
        let answered = Arc::clone(&answered);
        workers.push(tokio::spawn(async move {
            let mut ends = Ends::default();
            for _ in 0..INCREMENTS / WORKERS {
                loop {
                    match client.execute_with(delivery, Op::Mark(COUNTER)).await {
                        Ok(_) => ends.acknowledged += 1,
                        Err(ClientError::Rejected(_)) => {
                            ends.rejected += 1;
                            continue;
                        }
                        Err(_) => ends.unknown += 1,
                    }
                    break;
                }
                answered.fetch_add(1, Ordering::SeqCst);
            }
            ends
        }));
    }
    for blow in 1..=blows {
        let due = blow * INCREMENTS / (blows + 1);
        until("some increments", || answered.load(Ordering::SeqCst) >= due).await;
        let leader = cluster.leader().await;
        if leader < ASKED {
            cluster.network.isolate(id(leader));
            let others: Vec<_> = (0..5).filter(|place| *place != leader).collect();
            cluster.leader_among(&others).await;
            cluster.network.heal();
        } else {
            drop(cluster.nodes[leader].take());
            let others: Vec<_> = (0..5).filter(|place| *place != leader).collect();
            cluster.leader_among(&others).await;
            cluster.start_node(leader, Marks::default()).await;
        }
    }
    let mut ends = Ends::default();
    for worker in workers {
        let told = soon("all increments", worker).await.unwrap();
        ends.acknowledged += told.acknowledged;
        ends.rejected += told.rejected;
        ends.unknown += told.unknown;
    }
    (cluster, ends)
}

fn again(cluster: &Cluster) -> u64 {
    (0..ASKED).map(|place| cluster.node(place).metrics().requests_again).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_increments_in_a_session_are_ten_thousand() {
    let (cluster, ends) = increment(Delivery::ExactlyOnce, 6).await;
    assert_eq!((ends.acknowledged, ends.unknown), (INCREMENTS, 0), "{ends:?}");
    for place in 0..5 {
        assert_eq!(marked(&cluster.node(place).client(), COUNTER).await, INCREMENTS);
    }
    assert!(again(&cluster) > 0, "no leader was lost with something in its hands");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_increments_without_a_session_are_as_many_as_were_acknowledged_or_more() {
    let (cluster, ends) = increment(Delivery::AtMostOnce, 3).await;
    assert_eq!(ends.acknowledged + ends.unknown, INCREMENTS, "{ends:?}");
    let total = marked(&cluster.node(0).client(), COUNTER).await;
    let possible = ends.acknowledged..=ends.acknowledged + ends.unknown;
    assert!(possible.contains(&total), "{total} after {ends:?}");
    assert!(ends.unknown > 0, "no leader was lost with something in its hands");
    assert_eq!(again(&cluster), 0);
}

/// The clock of the log is the wall clock of whoever leads, in milliseconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_expired_is_followed_by_another_and_nobody_notices() {
    let options = NodeOptions { session_ttl: Duration::from_millis(5), ..NodeOptions::default() };
    let cluster = Cluster::with(3, options).await;
    let client = cluster.node(0).client();
    for count in 1..=5 {
        assert_eq!(mark(&client, 1).await, Ok(count));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let metrics = cluster.node(0).metrics();
    assert!(metrics.sessions_expired >= 4 && metrics.requests_again >= 4, "{metrics}");
    assert!(metrics.commands_astray >= 4, "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_clients_of_a_node_share_one_session() {
    let cluster = Cluster::start(3).await;
    let mut asked = Vec::new();
    for name in 0..300 {
        let client = cluster.node(name as usize % 3).client();
        asked.push(tokio::spawn(async move { mark(&client, name).await }));
    }
    for asked in asked {
        assert_eq!(soon("a mark", asked).await.unwrap(), Ok(1));
    }
    let single = cluster.node(0).client().execute_with(Delivery::AtMostOnce, Op::Mark(5)).await;
    assert_eq!(single.unwrap().reply, 2);
    for place in 0..3 {
        let client = cluster.node(place).client();
        assert_eq!(marked(&client, 5).await, 2);
        // One of each node, unless the first was not heard of in time.
        let sessions = cluster.node(place).metrics().sessions;
        assert!((3..10).contains(&sessions), "{sessions}");
    }
}

/// A write on one node is seen by a read on another that names the write's slot.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_slot_of_a_write_lets_other_nodes_read_it() {
    let cluster = Cluster::start(3).await;
    let writer = cluster.node(0).client().with_timeout(Duration::from_secs(30));
    assert_eq!(mark(&writer, 1).await, Ok(1));
    for count in 2..50 {
        let applied = soon("a reply", writer.execute_at(Op::Mark(1))).await.unwrap();
        assert_eq!(applied.reply, count);
        let reader = cluster.node(count as usize % 3).client();
        let read = reader.read(Consistency::AtLeast(applied.slot), 1);
        assert_eq!(soon("a read", read).await, Ok(count));
    }
}
