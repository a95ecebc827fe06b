//! Reads by read points: which state answers them, and what they cost.

use std::time::Duration;

use paxos::core::membership::LeaseTerms;
use paxos::storage::MemoryStorage;
use paxos::{
    Client, ClientError, ClusterId, Config, Consistency, Format, GroupId, Membership, NodeOptions,
    Rejection, Slot,
};

use crate::support::{Cluster, Marks, Op, config, id, mark, marked, soon, until};

const HOUR: Duration = Duration::from_secs(3600);
const SOON: Duration = Duration::from_millis(1500);

/// The reading is refused, and nothing old is told.
async fn refused(client: &Client<Marks>, consistency: Consistency) {
    let outcome = soon("an end", client.read(consistency, 5)).await;
    let rejections = [Rejection::TimedOut, Rejection::NoLeader].map(ClientError::Rejected);
    assert!(rejections.iter().any(|known| outcome.as_ref() == Err(known)), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_reads_what_any_node_was_told() {
    let cluster = Cluster::start(3).await;
    cluster.leader().await;
    for round in 1..=20 {
        let writer = cluster.node(round as usize % 3).client();
        assert_eq!(mark(&writer, 5).await, Ok(round));
        for place in 0..3 {
            assert_eq!(marked(&cluster.node(place).client(), 5).await, round);
        }
    }
    // They wrote nothing: so many slots were filled as there were commands, and as a change of
    // leader may have added.
    let committed = cluster.node(0).status().replica.committed;
    assert!(committed <= Slot::new(30), "{committed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_that_wait_together_share_a_round() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    assert_eq!(mark(&cluster.node(leader).client(), 5).await, Ok(1));
    for place in [leader, (leader + 1) % 3] {
        let mut tasks = Vec::new();
        for _ in 0..256 {
            let client = cluster.node(place).client();
            tasks.push(tokio::spawn(async move {
                for _ in 0..20 {
                    assert_eq!(marked(&client, 5).await, 1);
                }
            }));
        }
        for task in tasks {
            soon("all answers", task).await.unwrap();
        }
    }
    let rounds: u64 = (0..3).map(|place| cluster.node(place).metrics().core.read_rounds).sum();
    let reads: u64 = (0..3).map(|place| cluster.node(place).metrics().reads).sum();
    assert!(reads >= 2 * 256 * 20 && rounds * 20 < reads, "{rounds} rounds for {reads} reads");
    let asked = cluster.node((leader + 1) % 3).metrics().read_points_asked;
    assert!(asked > 0 && asked * 20 < reads, "{asked} questions");
    until("nobody waiting", || {
        (0..3).all(|place| cluster.node(place).metrics().requests_waiting == 0)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_cut_off_reads_no_more_than_it_may() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let old = cluster.node(leader).client().with_timeout(SOON);
    assert_eq!(mark(&old, 5).await, Ok(1));
    assert_eq!(marked(&old, 5).await, 1);
    let held = cluster.node(leader).status().replica.committed;
    cluster.network.isolate(paxos::ReplicaId::new(leader as u16 + 1));
    let others = [(leader + 1) % 3, (leader + 2) % 3];
    cluster.leader_among(&others).await;
    assert_eq!(mark(&cluster.node(others[0]).client(), 5).await, Ok(2));

    // It may still believe that it leads, and nobody confirms it.
    refused(&old, Consistency::Linearizable).await;
    refused(&old, Consistency::Stale { lag_max: Duration::from_nanos(1) }).await;
    refused(&old, Consistency::AtLeast(held.next())).await;
    assert_eq!(soon("an answer", old.read(Consistency::AtLeast(held), 5)).await, Ok(1));
    let stale = Consistency::Stale { lag_max: HOUR };
    assert_eq!(soon("an answer", old.read(stale, 5)).await, Ok(1));

    cluster.network.heal();
    assert_eq!(marked(&cluster.node(leader).client(), 5).await, 2);
    let newer = Consistency::AtLeast(held.next());
    assert_eq!(soon("an answer", cluster.node(leader).client().read(newer, 5)).await, Ok(2));
}

/// The reading ends so.
async fn ends(client: &Client<Marks>, rejection: Rejection) {
    let outcome = soon("an end", client.read(Consistency::Quorum, 5)).await;
    assert_eq!(outcome, Err(ClientError::Rejected(rejection)));
}

/// By a quorum, whoever leads: at every node what any node was told, and without a question to the
/// leader.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_reads_by_a_quorum_what_any_node_was_told() {
    let cluster = Cluster::start(3).await;
    cluster.leader().await;
    for round in 1..=20 {
        let writer = cluster.node(round as usize % 3).client();
        assert_eq!(mark(&writer, 5).await, Ok(round));
        for place in 0..3 {
            let client = cluster.node(place).client();
            let read = soon("an answer", client.read(Consistency::Quorum, 5)).await;
            assert_eq!(read, Ok(round));
        }
    }
    for place in 0..3 {
        let metrics = cluster.node(place).metrics();
        assert_eq!((metrics.read_points_asked, metrics.core.read_rounds), (0, 0));
        until("all rounds", || cluster.node(place).metrics().core.surveys >= 20).await;
    }
    let committed = cluster.node(0).status().replica.committed;
    assert!(committed <= Slot::new(30), "{committed}: they wrote nothing");
}

/// One round for all that wait, as for the leader's reads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quorum_reads_that_wait_together_share_a_round() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    assert_eq!(mark(&cluster.node(leader).client(), 5).await, Ok(1));
    let place = (leader + 1) % 3;
    let mut tasks = Vec::new();
    for _ in 0..256 {
        let client = cluster.node(place).client();
        tasks.push(tokio::spawn(async move {
            for _ in 0..20 {
                assert_eq!(client.read(Consistency::Quorum, 5).await, Ok(1));
            }
        }));
    }
    for task in tasks {
        soon("all answers", task).await.unwrap();
    }
    let metrics = cluster.node(place).metrics();
    let (reads, rounds) = (metrics.reads, metrics.core.surveys);
    assert!(reads >= 256 * 20 && rounds * 20 < reads, "{rounds} rounds for {reads} reads");
    until("nobody waiting", || cluster.node(place).metrics().requests_waiting == 0).await;
}

/// A node that reaches nobody says so within its bound, or within the read's own; and reads again
/// when it may.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_cut_off_reaches_no_quorum() {
    let quick = Config { quorum_read_timeout: Duration::from_millis(400), ..config() };
    let cluster = Cluster::tuned(3, quick, NodeOptions::default()).await;
    let leader = cluster.leader().await;
    let old = cluster.node(leader).client();
    assert_eq!(mark(&old, 5).await, Ok(1));
    cluster.network.isolate(paxos::ReplicaId::new(leader as u16 + 1));
    ends(&old, Rejection::NoQuorum).await;
    ends(&old.clone().with_timeout(Duration::from_millis(100)), Rejection::TimedOut).await;
    let others = [(leader + 1) % 3, (leader + 2) % 3];
    cluster.leader_among(&others).await;
    assert_eq!(mark(&cluster.node(others[0]).client(), 5).await, Ok(2));
    ends(&old, Rejection::NoQuorum).await;
    cluster.network.heal();
    let mut outcome = soon("an end", old.read(Consistency::Quorum, 5)).await;
    while outcome == Err(ClientError::Rejected(Rejection::NoQuorum)) {
        outcome = soon("an end", old.read(Consistency::Quorum, 5)).await;
    }
    assert_eq!(outcome, Ok(2), "what it missed is fetched first");
    until("nobody waiting", || cluster.node(leader).metrics().requests_waiting == 0).await;
}

/// Reads whose point is applied come as fast as they are answered, and the log waits for none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_do_not_keep_the_state_machine_from_the_log() {
    let cluster = Cluster::start(1).await;
    let client = cluster.node(0).client();
    assert_eq!(mark(&client, 5).await, Ok(1));
    let readers: Vec<_> = (0..32)
        .map(|_| {
            let client = cluster.node(0).client();
            tokio::spawn(async move {
                let at_least = Consistency::AtLeast(Slot::FIRST);
                while client.read(at_least, 6).await == Ok(0) {}
            })
        })
        .collect();
    for count in 2..200 {
        let marked = soon("a reply", client.execute(Op::Mark(5))).await;
        assert_eq!(marked, Ok(count));
    }
    assert_eq!(mark(&client, 6).await, Ok(1));
    for reader in readers {
        soon("the end of a reader", reader).await.unwrap();
    }
}

/// The leader alone decides, for as long as its lease lasts; what a round would confirm is known.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_with_a_lease_reads_without_asking() {
    let terms = LeaseTerms::new(Duration::from_millis(400), 100_000).unwrap();
    let membership = Membership::voters_only((0..3).map(id)).unwrap().with_lease(terms);
    let mut cluster = Cluster::start(0).await;
    let storage = |place| {
        MemoryStorage::formatted(Format {
            cluster: ClusterId::new(7),
            group: GroupId::new(0),
            replica: id(place),
            membership: membership.clone(),
        })
    };
    cluster.storages = (0..3).map(storage).collect();
    cluster.nodes = vec![None, None, None];
    for place in 0..3 {
        cluster.start_node(place, Marks::default()).await;
    }
    let leader = cluster.leader().await;
    let client = cluster.node(leader).client();
    assert_eq!(mark(&client, 5).await, Ok(1));
    until("a lease", || cluster.node(leader).status().replica.lease_until.is_some()).await;
    let before = cluster.node(leader).metrics().core;
    let mut reads = 0;
    while cluster.node(leader).metrics().core.lease_reads - before.lease_reads < 500 {
        assert_eq!(marked(&client, 5).await, 1);
        reads += 1;
        assert!(reads < 5000, "leases serve reads");
    }
    // Cut off, it reads no more once the lease is over.
    cluster.network.isolate(id(leader));
    until("the end of the lease", || cluster.node(leader).status().replica.lease_until.is_none())
        .await;
    refused(&client.clone().with_timeout(SOON), Consistency::Linearizable).await;
    cluster.network.heal();
}
