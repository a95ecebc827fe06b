//! States that differ: who notices, who stops, and who goes on (docs/protocol.md, Equal states).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use paxos::{MemoryNetwork, NodeOptions, StopReason};

use crate::support::{Cluster, Kept, Marks, config, id, mark, marked, soon, storage, until};

/// Digests are compared often, so that a test needs few commands.
const SLOTS: u64 = 4;

/// A cluster, and the strings by which a test leads its machines astray.
async fn cluster(replicas: usize) -> (Cluster, Vec<Arc<Kept>>) {
    let mut cluster = Cluster {
        network: MemoryNetwork::new(),
        storages: (0..replicas).map(|place| storage(place, replicas)).collect(),
        nodes: (0..replicas).map(|_| None).collect(),
        config: config(),
        options: NodeOptions { digest_slots: SLOTS, ..NodeOptions::default() },
    };
    let mut strings = Vec::new();
    for place in 0..replicas {
        let kept = Arc::new(Kept::default());
        strings.push(Arc::clone(&kept));
        cluster.start_node(place, Marks { kept, ..Marks::default() }).await;
    }
    (cluster, strings)
}

fn is_stopped(cluster: &Cluster, place: usize) -> bool {
    cluster.node(place).status().stopped.is_some()
}

/// Marks names through this place until it holds, with a slot for each.
async fn mark_until(cluster: &Cluster, place: usize, what: &str, mut holds: impl FnMut() -> bool) {
    let client = cluster.node(place).client();
    for name in 0..2000 {
        if holds() {
            return;
        }
        // What happens to it matters to nobody: the node may stop meanwhile.
        let _ = mark(&client, name).await;
    }
    until(what, holds).await;
}

/// Rule H2 among nodes: the one whose state is another stops, with both digests and the slot, and its
/// clients are refused; the others go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_odd_one_out_stops_and_the_others_go_on() {
    let (cluster, strings) = cluster(3).await;
    let leader = cluster.leader().await;
    mark_until(&cluster, leader, "equal states", || {
        (0..3).all(|place| cluster.node(place).status().comparison.confirmed.is_some())
    })
    .await;
    let odd = (leader + 1) % 3;
    let client = cluster.node(odd).client();
    strings[odd].astray.store(true, Ordering::SeqCst);
    mark_until(&cluster, leader, "the end", || is_stopped(&cluster, odd)).await;
    let reason = soon("the end", cluster.node(odd).stopped()).await;
    let StopReason::Diverged { slot, own, others, ref holders } = reason else {
        panic!("stopped for another reason: {reason}");
    };
    assert!(slot.number().is_multiple_of(SLOTS) && own != others);
    let healthy: Vec<_> = (0..3).filter(|place| *place != odd).collect();
    assert_eq!(*holders, healthy.iter().map(|place| id(*place)).collect::<Vec<_>>());
    let words = reason.to_string();
    for part in [slot.to_string(), own.to_string(), others.to_string(), "replaced".to_owned()] {
        assert!(words.contains(&part), "{words}");
    }
    assert!(client.query(0).await.is_err(), "it answers nothing more");
    for place in healthy {
        assert!(!is_stopped(&cluster, place));
        assert!(marked(&cluster.node(place).client(), 0).await > 0);
    }
}

/// A leader whose state is another stops like any other, and the rest elects the next one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_went_astray_stops_and_another_leads() {
    let (cluster, strings) = cluster(3).await;
    let leader = cluster.leader().await;
    strings[leader].astray.store(true, Ordering::SeqCst);
    mark_until(&cluster, leader, "the end", || is_stopped(&cluster, leader)).await;
    let reason = soon("the end", cluster.node(leader).stopped()).await;
    assert!(matches!(reason, StopReason::Diverged { .. }), "{reason}");
    let others: Vec<_> = (0..3).filter(|place| *place != leader).collect();
    let next = cluster.leader_among(&others).await;
    assert!(mark(&cluster.node(next).client(), 1_000_000).await.is_ok());
}

/// Rule H3 among nodes: of two, nobody can tell which one is right.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_that_differ_both_say_so_and_go_on() {
    let (cluster, strings) = cluster(2).await;
    let leader = cluster.leader().await;
    strings[leader].astray.store(true, Ordering::SeqCst);
    let differing = |place: usize| cluster.node(place).status().comparison.differing;
    mark_until(&cluster, leader, "two reports", || {
        differing(0).is_some() && differing(1).is_some()
    })
    .await;
    let (one, other) = (differing(0).unwrap(), differing(1).unwrap());
    assert_eq!((one.peer, other.peer), (id(1), id(0)));
    assert!(one.own != one.theirs && other.own != other.theirs);
    assert!((0..2).all(|place| !is_stopped(&cluster, place)));
    assert!(mark(&cluster.node(leader).client(), 1_000_000).await.is_ok());
}

/// One that was away finds the others' digests of the slots that it makes up for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_behind_is_compared_when_it_gets_there() {
    let (cluster, strings) = cluster(3).await;
    let leader = cluster.leader().await;
    let odd = (leader + 1) % 3;
    cluster.network.isolate(id(odd));
    let client = cluster.node(leader).client();
    for name in 0..SLOTS * 20 {
        assert!(mark(&client, name).await.is_ok());
    }
    let before = cluster.node(odd).status().replica.applied;
    assert!(cluster.node(leader).status().replica.applied.number() > before.number() + SLOTS * 10);
    strings[odd].astray.store(true, Ordering::SeqCst);
    cluster.network.heal();
    // Nothing more is asked: what it makes up for is enough.
    until("the end", || is_stopped(&cluster, odd)).await;
    let reason = soon("the end", cluster.node(odd).stopped()).await;
    assert!(matches!(reason, StopReason::Diverged { .. }), "{reason}");
}
