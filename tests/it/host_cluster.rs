//! What works while nothing fails, and across restarts.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;

use paxos::{ClientError, Delivery, NodeOptions, Rejection, Slot, StopReason};

use crate::support::{Cluster, Kept, Marks, Op, mark, marked, soon, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_takes_commands_and_answers_from_a_state_that_includes_them() {
    let cluster = Cluster::start(3).await;
    for round in 1..=20 {
        for place in 0..3 {
            let client = cluster.node(place).client();
            let times = 3 * (round - 1) + place as u64 + 1;
            assert_eq!(mark(&client, 5).await, Ok(times));
            let elsewhere = cluster.node((place + 1) % 3).client();
            assert_eq!(marked(&elsewhere, 5).await, times);
        }
    }
    let leader = cluster.leader().await;
    let metrics = cluster.node(leader).metrics();
    assert!(metrics.batches_proposed > 0);
    assert!(metrics.round.count > 0 && metrics.sync.count > 0);
    let table = metrics.to_string();
    assert!(table.contains("commands_proposed") && table.contains("round us"));
    let follower = cluster.node((leader + 1) % 3).metrics();
    assert!(follower.forwards_sent > 0);
    assert_eq!(follower.forwards_refused + follower.forwards_taken, follower.forwards_sent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_clients_share_batches_and_each_gets_its_own_reply() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let mut tasks = Vec::new();
    for name in 0..600_u64 {
        let client = cluster.node(name as usize % 3).client();
        tasks.push(tokio::spawn(async move {
            for count in 1..=10 {
                assert_eq!(client.execute(Op::Mark(name)).await, Ok(count));
            }
        }));
    }
    for task in tasks {
        soon("all replies", task).await.unwrap();
    }
    let metrics = cluster.node(leader).metrics();
    assert!(metrics.batch_commands.mean() > 4, "{metrics}");
    until("nobody waiting", || {
        (0..3).all(|place| cluster.node(place).metrics().requests_waiting <= 1)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_of_one_works() {
    let cluster = Cluster::start(1).await;
    let client = cluster.node(0).client();
    for count in 1..=50 {
        assert_eq!(mark(&client, 1).await, Ok(count));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_with_the_same_storage_continues() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.node(0).client();
    for count in 1..=30 {
        assert_eq!(mark(&client, 1).await, Ok(count));
    }
    for place in 0..3 {
        let node = cluster.nodes[place].take().unwrap();
        let reason = soon("the end", node.shutdown()).await;
        assert!(matches!(reason, StopReason::Shutdown), "{reason}");
    }
    let stopped = Err(ClientError::Rejected(Rejection::Stopped));
    assert_eq!(client.execute(Op::Mark(1)).await, stopped);
    for place in 0..3 {
        cluster.start_node(place, Marks::default()).await;
    }
    for place in 0..3 {
        let client = cluster.node(place).client();
        assert_eq!(marked(&client, 1).await, 30);
    }
    let client = cluster.node(2).client();
    assert_eq!(mark(&client, 1).await, Ok(31));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_machine_that_keeps_its_state_is_given_each_slot_once() {
    let mut cluster = Cluster::start(1).await;
    drop(cluster.nodes[0].take());
    let kept = Arc::new(Kept::default());
    for life in 0..3 {
        // The network forgets the former node's end once its task is gone.
        until("the former life's end", || {
            !format!("{:?}", cluster.network).contains("ReplicaId(1)")
        })
        .await;
        cluster.start_keeping(&kept).await;
        let client = cluster.node(0).client();
        for count in 1..=5 {
            let marked = soon("a reply", client.execute(Op::Mark(9))).await;
            assert_eq!(marked, Ok(5 * life + count));
        }
        let node = cluster.nodes[0].take().unwrap();
        soon("the end", node.shutdown()).await;
    }
    let slots = kept.slots.lock().unwrap().clone();
    assert!(slots.is_sorted_by(|a, b| a < b), "{slots:?}");
    let applied = kept.applied.load(Ordering::SeqCst);
    assert_eq!(slots.last(), Some(&Slot::new(applied)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_finishes_what_was_asked_for() {
    let mut cluster = Cluster::start(3).await;
    cluster.leader().await;
    let client = cluster.node(1).client();
    let mut all = Vec::new();
    for name in 0..200 {
        let client = client.clone();
        let mut asked = Box::pin(async move { client.execute(Op::Mark(name)).await });
        // Polled once, so that the request is taken before the shutdown begins.
        match futures::poll!(&mut asked) {
            Poll::Ready(answer) => assert_eq!(answer, Ok(1)),
            Poll::Pending => all.push(asked),
        }
    }
    assert!(!all.is_empty(), "all were answered before the shutdown");
    let node = cluster.nodes[1].take().unwrap();
    soon("the end", node.shutdown()).await;
    for asked in all {
        assert_eq!(soon("a reply", asked).await, Ok(1));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_requests_are_refused_and_too_late_ones_are_certain() {
    let options = NodeOptions { requests_max: 4, ..NodeOptions::default() };
    let mut cluster = Cluster::with(3, options).await;
    drop(cluster.nodes[0].take());
    drop(cluster.nodes[1].take());
    let alone = cluster.node(2);
    until("loneliness", || {
        !alone.watch().borrow().is_leader && alone.watch().borrow().leader.is_none()
    })
    .await;
    let client = alone.client().with_timeout(std::time::Duration::from_millis(300));
    let mut asked = Vec::new();
    for name in 0..4 {
        let client = client.clone();
        asked.push(tokio::spawn(async move { client.execute(Op::Mark(name)).await }));
    }
    until("a full list", || alone.metrics().requests_pending == 4).await;
    let busy = Err(ClientError::Rejected(Rejection::Busy));
    assert_eq!(client.execute(Op::Mark(9)).await, busy);
    for asked in asked {
        let answer = soon("an answer", asked).await.unwrap();
        assert_eq!(answer, Err(ClientError::Rejected(Rejection::NoLeader)));
    }
    assert_eq!(alone.metrics().requests_busy, 1);
    // The places are free again.
    let answer = soon("an answer", client.execute(Op::Mark(9))).await;
    assert_eq!(answer, Err(ClientError::Rejected(Rejection::NoLeader)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_beyond_a_batch_is_refused_and_one_at_the_bound_is_not() {
    let cluster = Cluster::start(3).await;
    let client = cluster.node(0).client();
    let answer = soon("an answer", client.execute(Op::Weight(vec![1; 1 << 20]))).await;
    assert!(
        matches!(answer, Err(ClientError::Rejected(Rejection::TooLarge { bytes, bytes_max })) if bytes > bytes_max),
        "{answer:?}"
    );
    let len = (1 << 20) - 12 - 32 - 4;
    for place in 0..3 {
        let client = cluster.node(place).client();
        let single = client.execute_with(Delivery::AtMostOnce, Op::Weight(vec![1; len]));
        assert_eq!(soon("a reply", single).await.unwrap().reply, len as u64);
        // In a session it bears its name and number.
        let refused = soon("an answer", client.execute(Op::Weight(vec![1; len - 23]))).await;
        assert!(matches!(refused, Err(ClientError::Rejected(Rejection::TooLarge { .. }))));
        let answer = soon("a reply", client.execute(Op::Weight(vec![1; len - 24]))).await;
        assert_eq!(answer, Ok(len as u64 - 24));
    }
}

/// A leader whose bound for waiting commands of peers was below one frame refused every frame as
/// busy, for ever, though nothing waited. Found by the simulator of whole nodes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_above_the_bound_for_waiting_ones_is_taken_when_none_waits() {
    let options = NodeOptions { forwarded_bytes_max: 1, ..NodeOptions::default() };
    let cluster = Cluster::with(3, options).await;
    for place in 0..3 {
        assert_eq!(mark(&cluster.node(place).client(), place as u64).await, Ok(1));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_node_stops_and_its_clients_are_refused() {
    let mut cluster = Cluster::start(1).await;
    let client = cluster.node(0).client();
    assert_eq!(mark(&client, 1).await, Ok(1));
    drop(cluster.nodes[0].take());
    let outcome = soon("an answer", client.execute(Op::Mark(1))).await;
    assert_eq!(outcome, Err(ClientError::Rejected(Rejection::Stopped)));
}
