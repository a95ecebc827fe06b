//! What clients are told while the network misbehaves, against what was applied.

use std::collections::BTreeMap;
use std::time::Duration;

use paxos::{ClientError, Config, MemoryFaults, NodeOptions, Rejection, Uncertainty};

use crate::support::{Cluster, Op, config, id, mark, marked, soon, until};

/// What each name's one command ended with.
type Outcomes = BTreeMap<u64, Result<u64, ClientError>>;

/// Marks names, each once, from all nodes at a time, while `disturb` runs.
async fn mark_names(
    cluster: &Cluster,
    names: u64,
    timeout: Duration,
    disturb: impl Future<Output = ()>,
) -> Outcomes {
    let mut tasks = Vec::new();
    for worker in 0..30 {
        let client = cluster.node(worker as usize % 3).client().with_timeout(timeout);
        tasks.push(tokio::spawn(async move {
            let mut outcomes = Outcomes::new();
            for name in (worker..names).step_by(30) {
                outcomes.insert(name, client.execute(Op::Mark(name)).await);
            }
            outcomes
        }));
    }
    disturb.await;
    let mut all = Outcomes::new();
    for task in tasks {
        all.extend(soon("all outcomes", task).await.unwrap());
    }
    all
}

/// Checks every outcome against the state of every replica, once they have settled.
async fn check(cluster: &Cluster, outcomes: &Outcomes) {
    for place in 0..3 {
        let client = cluster.node(place).client().with_timeout(Duration::from_secs(20));
        for (name, outcome) in outcomes {
            let seen = marked(&client, *name).await;
            match outcome {
                Ok(count) => assert_eq!((*count, seen), (1, 1), "name {name}"),
                Err(ClientError::Unknown(_)) => assert!(seen <= 1, "name {name} twice"),
                Err(error) => assert_eq!(seen, 0, "name {name} in spite of {error}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeated_and_reordered_frames_apply_nothing_twice() {
    let cluster = Cluster::start(3).await;
    cluster.leader().await;
    cluster.network.set_faults(MemoryFaults {
        duplication: 30,
        reorder: 10,
        seed: 11,
        ..MemoryFaults::default()
    });
    let outcomes = mark_names(&cluster, 1500, Duration::from_secs(20), async {}).await;
    cluster.network.set_faults(MemoryFaults::default());
    let done = outcomes.values().filter(|outcome| outcome.is_ok()).count();
    assert!(done > 1400, "only {done} were applied");
    check(&cluster, &outcomes).await;
    let ignored: u64 = (0..3).map(|place| cluster.node(place).metrics().forwards_ignored).sum();
    assert!(ignored > 0, "no forwarded frame was repeated");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_frames_leave_no_wrong_answer() {
    let cluster = Cluster::start(3).await;
    cluster.leader().await;
    cluster.network.set_faults(MemoryFaults { loss: 5, duplication: 10, reorder: 5, seed: 12 });
    let outcomes = mark_names(&cluster, 600, Duration::from_secs(2), async {}).await;
    cluster.network.set_faults(MemoryFaults::default());
    let done = outcomes.values().filter(|outcome| outcome.is_ok()).count();
    assert!(done > 300, "only {done} were applied");
    check(&cluster, &outcomes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_loss_of_the_leader_loses_nothing_acknowledged() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let disturb = async {
        until("some work", || cluster.node(leader).metrics().commands_applied > 200).await;
        cluster.network.isolate(id(leader));
        let others: Vec<_> = (0..3).filter(|place| *place != leader).collect();
        let next = cluster.leader_among(&others).await;
        let before = cluster.node(next).metrics().commands_applied;
        until("work without the old leader", || {
            cluster.node(next).metrics().commands_applied > before + 100
        })
        .await;
        cluster.network.heal();
    };
    let outcomes = mark_names(&cluster, 6000, Duration::from_secs(1), disturb).await;
    check(&cluster, &outcomes).await;
    let done = outcomes.values().filter(|outcome| outcome.is_ok()).count();
    assert!(done > 1000, "only {done} were applied");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_whose_slot_went_to_another_is_superseded() {
    // Enough time between hearing of the next leader and giving up on the old one to learn what
    // was chosen in the slot.
    let election_timeout = Duration::from_secs(1);
    let config = Config { election_timeout, ..config() };
    let cluster = Cluster::tuned(3, config, NodeOptions::default()).await;
    let old = cluster.leader().await;
    let first = cluster.node(old).client();
    assert_eq!(mark(&first, 1).await, Ok(1));
    cluster.network.isolate(id(old));
    let before = cluster.node(old).metrics().commands_proposed;
    let patient = first.clone().with_timeout(Duration::from_secs(60));
    let asked = tokio::spawn(async move { patient.execute(Op::Mark(2)).await });
    until("its proposal or its end", || {
        let node = cluster.node(old);
        node.metrics().commands_proposed > before || !node.watch().borrow().is_leader
    })
    .await;
    assert!(
        cluster.node(old).metrics().commands_proposed > before,
        "a leader just cut off still proposes"
    );
    let others: Vec<_> = (0..3).filter(|place| *place != old).collect();
    let next = cluster.leader_among(&others).await;
    let client = cluster.node(next).client();
    assert_eq!(mark(&client, 3).await, Ok(1));
    cluster.network.heal();
    let outcome = soon("its fate", asked).await.unwrap();
    assert_eq!(outcome, Err(ClientError::Rejected(Rejection::Superseded)));
    assert_eq!(marked(&client, 2).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proposed_command_whose_time_is_over_is_unknown_and_may_apply_later() {
    let options = NodeOptions { requests_max: 100, ..NodeOptions::default() };
    let cluster = Cluster::with(3, options).await;
    let leader = cluster.leader().await;
    let client = cluster.node(leader).client();
    assert_eq!(mark(&client, 1).await, Ok(1));
    cluster.network.isolate(id(leader));
    let hasty = client.clone().with_timeout(Duration::from_millis(20));
    let outcome = soon("an answer", hasty.execute(Op::Mark(2))).await;
    assert_eq!(outcome, Err(ClientError::Unknown(Uncertainty::Timeout)));
    cluster.network.heal();
    let seen = marked(&client, 2).await;
    assert!(seen <= 1, "{seen}");
    until("nobody waiting", || cluster.node(leader).metrics().requests_waiting == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_of_a_follower_survive_a_change_of_leader() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let others: Vec<_> = (0..3).filter(|place| *place != leader).collect();
    let client = cluster.node(others[0]).client().with_timeout(Duration::from_secs(20));
    assert_eq!(mark(&client, 1).await, Ok(1));
    cluster.network.isolate(id(leader));
    // It waits for the next leader, as no frame can have left for the old one. If that is this
    // node and it is succeeded at once, its proposal may certainly be lost, and is made again.
    assert_eq!(mark(&client, 2).await, Ok(1));
    cluster.network.heal();
    let back = cluster.node(leader).client().with_timeout(Duration::from_secs(20));
    assert_eq!(marked(&back, 2).await, 1);
}
