//! Snapshots of whole nodes: made, trimmed behind, gone on from, sent and received.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use paxos::core::port::Storage;
use paxos::{
    Client, ClientError, GroupId, MakeSnapshotError, MemoryFaults, Node, NodeOptions,
    RequestNumber, SessionId, SessionRequest, Slot, SnapshotInfo, StartError, StopReason,
    StreamEnd,
};

use crate::support::{Cluster, Kept, Marks, Op, config, id, mark, marked, soon, until};

/// A snapshot each few slots, and no log below it.
fn eager() -> NodeOptions {
    NodeOptions {
        snapshot_slots: 5,
        trim_tail_slots: 0,
        trim_reserve_bytes: 1,
        ..NodeOptions::default()
    }
}

/// Snapshots on demand alone, and no log below them.
fn on_demand() -> NodeOptions {
    NodeOptions { snapshot_slots: u64::MAX, ..eager() }
}

fn machine(kept: &Arc<Kept>) -> Marks {
    Marks { kept: Arc::clone(kept), ..Marks::default() }
}

fn trimmed(node: &Node<Marks>) -> Slot {
    node.status().replica.trimmed
}

fn installed(node: &Node<Marks>) -> u64 {
    node.metrics().snapshots_restored
}

/// Has every node but this one trim its log beyond what this one has, while this one is away.
async fn leave_behind(cluster: &mut Cluster, place: usize, names: std::ops::Range<u64>) {
    soon("the end", cluster.nodes[place].take().unwrap().shutdown()).await;
    let others: Vec<_> = (0..cluster.nodes.len()).filter(|other| *other != place).collect();
    let client = cluster.node(others[0]).client();
    for name in names {
        assert_eq!(mark(&client, name).await, Ok(1));
    }
    // It was away when this slot was proposed.
    let missed = loop {
        if let Ok(applied) = soon("a slot", client.execute_at(Op::Mark(1_000_000))).await {
            break applied.slot;
        }
    };
    for other in others {
        let node = cluster.node(other);
        until("the end of the log", || node.status().replica.applied >= missed).await;
        soon("a snapshot", node.snapshot()).await.unwrap();
        until("a trimmed log", || trimmed(node) >= missed).await;
    }
}

/// The snapshot of a state that all nodes hold.
async fn same_snapshot(cluster: &Cluster) -> SnapshotInfo {
    let last = cluster.nodes.len() - 1;
    let applied = |place: usize| cluster.node(place).status().replica.applied;
    loop {
        until("equal nodes", || (0..last).all(|place| applied(place) == applied(last))).await;
        let mut all = Vec::new();
        for place in 0..=last {
            all.push(soon("a snapshot", cluster.node(place).snapshot()).await.unwrap());
        }
        // What was asked twice, or fills a gap, may still have come between.
        if all.iter().all(|info| info.slot == all[0].slot) {
            assert!(all.iter().all(|info| *info == all[0]), "{all:?}");
            return all[0];
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_goes_on_from_its_snapshot_and_applies_the_rest_alone() {
    let mut cluster = Cluster::with(1, on_demand()).await;
    let client = cluster.node(0).client();
    assert_eq!(soon("an error", cluster.node(0).snapshot()).await, Err(MakeSnapshotError::Nothing));
    for name in 0..20 {
        assert_eq!(mark(&client, name).await, Ok(1));
    }
    let made = soon("a snapshot", cluster.node(0).snapshot()).await.unwrap();
    assert_eq!(soon("the same", cluster.node(0).snapshot()).await, Ok(made));
    let status = cluster.node(0).status().snapshots;
    assert!(status.supported && status.failed.is_none());
    until("a trimmed log", || trimmed(cluster.node(0)) == made.slot).await;
    until("the news", || cluster.node(0).status().snapshots.last == Some(made)).await;
    for name in 0..5 {
        assert_eq!(mark(&client, name).await, Ok(2));
    }
    let node = cluster.nodes[0].take().unwrap();
    soon("the end", node.shutdown()).await;
    let kept = Arc::new(Kept::default());
    cluster.start_node(0, machine(&kept)).await;
    assert_eq!(*kept.restored.lock().unwrap(), [made.slot]);
    for (name, count) in [(0, 2), (4, 2), (5, 1), (19, 1), (20, 0)] {
        assert_eq!(marked(&cluster.node(0).client(), name).await, count);
    }
    let slots = kept.slots.lock().unwrap().clone();
    assert!(slots.len() == 5 && slots.iter().all(|slot| *slot > made.slot), "{slots:?}");
    let stream = cluster.node(0).applied_from(Slot::FIRST).next().await;
    assert_eq!(stream, Err(StreamEnd::Trimmed { first: made.slot.next() }));
}

/// p35: a machine with a state of its own that is newer than the snapshot keeps it, and is given
/// nothing twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p35_a_machine_that_is_ahead_of_the_snapshot_keeps_its_state() {
    let mut cluster = Cluster::with(1, on_demand()).await;
    let node = cluster.nodes[0].take().unwrap();
    soon("the end", node.shutdown()).await;
    let kept = Arc::new(Kept::default());
    cluster.start_keeping(&kept).await;
    assert_eq!(mark(&cluster.node(0).client(), 1).await, Ok(1));
    let made = soon("a snapshot", cluster.node(0).snapshot()).await.unwrap();
    assert_eq!(mark(&cluster.node(0).client(), 1).await, Ok(2));
    let node = cluster.nodes[0].take().unwrap();
    soon("the end", node.shutdown()).await;
    assert!(kept.applied.load(Ordering::SeqCst) > made.slot.number());
    cluster.start_keeping(&kept).await;
    assert_eq!(mark(&cluster.node(0).client(), 1).await, Ok(3));
    assert_eq!(*kept.restored.lock().unwrap(), []);
    assert_eq!(kept.slots.lock().unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lwm_1_the_log_is_trimmed_again_and_again_without_being_asked() {
    let cluster = Cluster::with(3, eager()).await;
    let client = cluster.node(0).client();
    let mut before = [Slot::ZERO; 3];
    for round in 0..4_u64 {
        for name in 0..12 {
            assert_eq!(mark(&client, name).await, Ok(round + 1));
        }
        for (place, before) in before.iter_mut().enumerate() {
            let node = cluster.node(place);
            until("a trimmed log", || trimmed(node) > *before).await;
            *before = trimmed(node);
            let status = node.status();
            assert!(status.snapshots.last.unwrap().slot >= status.replica.trimmed);
        }
    }
    assert!(cluster.node(0).metrics().snapshots_made >= 4);
    same_snapshot(&cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_without_snapshots_keeps_its_whole_log() {
    let mut cluster = Cluster::with(1, eager()).await;
    let node = cluster.nodes[0].take().unwrap();
    soon("the end", node.shutdown()).await;
    let kept = Arc::new(Kept::default());
    kept.mute.store(true, Ordering::SeqCst);
    cluster.start_node(0, machine(&kept)).await;
    for name in 0..20 {
        assert_eq!(mark(&cluster.node(0).client(), name).await, Ok(1));
    }
    let node = cluster.node(0);
    assert_eq!(soon("an error", node.snapshot()).await, Err(MakeSnapshotError::NotSupported));
    assert_eq!((trimmed(node), node.metrics().snapshots_made), (Slot::ZERO, 0));
    assert!(!node.status().snapshots.supported);
}

/// r36, p24, p37, L6: what it lacks is in no log any more, and nobody writes: it is sent a snapshot all
/// the same, and takes part.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r36_a_node_behind_all_logs_is_sent_a_snapshot_in_an_idle_cluster() {
    let mut cluster = Cluster::with(3, on_demand()).await;
    assert_eq!(mark(&cluster.node(2).client(), 100).await, Ok(1));
    leave_behind(&mut cluster, 2, 0..30).await;
    let kept = Arc::new(Kept::default());
    cluster.start_node(2, machine(&kept)).await;
    let node = cluster.node(2);
    until("a snapshot", || installed(node) == 1).await;
    until("the state", || node.status().replica.applied >= trimmed(cluster.node(0))).await;
    assert_eq!(kept.restored.lock().unwrap().len(), 1);
    for name in [0, 29, 100] {
        assert_eq!(marked(&node.client(), name).await, 1);
    }
    let made = same_snapshot(&cluster).await;
    assert!(made.bytes > 31 * 16);
    // It votes: without it there is no majority.
    let gone = cluster.nodes[1].take().unwrap();
    soon("the end", gone.shutdown()).await;
    assert_eq!(mark(&cluster.node(2).client(), 100).await, Ok(2));
}

/// A request of a session, asked once more when nobody could say.
async fn attempt(client: &Client<Marks>, request: u64) -> Result<u64, ClientError> {
    let name = SessionRequest {
        session: SessionId::new(77),
        request: RequestNumber::new(request),
        acknowledged_below: RequestNumber::new(1),
    };
    soon("an outcome", async {
        loop {
            match client.attempt(name, Op::Mark(5)).await {
                Err(ClientError::Unknown(_) | ClientError::Rejected(_)) => {}
                outcome => return outcome.map(|applied| applied.reply),
            }
        }
    })
    .await
}

/// LWM-3: what a session has applied is in the snapshot, so a request that is sent again is not applied
/// again: not by a node that goes on from its own, and not by one that was sent another's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lwm_3_sessions_survive_in_snapshots() {
    let mut cluster = Cluster::with(3, on_demand()).await;
    let client = cluster.node(0).client();
    let ttl = Duration::from_secs(3600);
    soon("a session", client.open_session(SessionId::new(77), ttl)).await.unwrap();
    for request in 1..=3 {
        assert_eq!(attempt(&client, request).await, Ok(request));
    }
    leave_behind(&mut cluster, 2, 1000..1020).await;
    cluster.start_node(2, Marks::default()).await;
    until("a snapshot", || installed(cluster.node(2)) == 1).await;
    // All others start again from their own.
    for place in [0, 1] {
        let node = cluster.nodes[place].take().unwrap();
        soon("the end", node.shutdown()).await;
        cluster.start_node(place, Marks::default()).await;
    }
    for place in 0..3 {
        let client = cluster.node(place).client();
        for request in 1..=3 {
            let outcome = attempt(&client, request).await;
            let known = outcome == Ok(request);
            let is_kept = matches!(outcome, Err(ClientError::ReplyNotKept { .. }));
            assert!(known || is_kept, "{outcome:?}");
        }
        assert_eq!(marked(&client, 5).await, 3, "nothing is applied twice");
    }
    assert_eq!(attempt(&cluster.node(2).client(), 4).await, Ok(4));
    same_snapshot(&cluster).await;
}

/// p27: frames are lost, doubled and out of order, the receiver is killed again and again, and each
/// sender in turn: it ends with the same state.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p27_a_transfer_that_is_cut_and_disturbed_again_and_again_ends_well() {
    let slow = NodeOptions {
        snapshot_chunk_bytes: 64,
        snapshot_receive_bytes_per_second: 4_000,
        ..on_demand()
    };
    let mut cluster = Cluster::tuned(3, config(), slow).await;
    leave_behind(&mut cluster, 2, 0..200).await;
    let faults = MemoryFaults { loss: 5, duplication: 5, reorder: 10, seed: 7 };
    cluster.network.set_faults(faults);
    let mut cuts = 0;
    cluster.start_node(2, Marks::default()).await;
    while installed(cluster.node(2)) == 0 {
        let node = cluster.node(2);
        let is_receiving = || node.status().snapshots.receiving.is_some() || installed(node) > 0;
        until("a transfer", is_receiving).await;
        // Long enough for a part of it.
        tokio::time::sleep(Duration::from_millis(150)).await;
        if installed(node) > 0 {
            break;
        }
        cuts += 1;
        match cuts % 3 {
            0 => {
                let place = usize::from(cuts % 2 == 0);
                let node = cluster.nodes[place].take().unwrap();
                soon("the end", node.shutdown()).await;
                cluster.start_node(place, Marks::default()).await;
            }
            1 => {
                // It can write nothing any more.
                cluster.storages[2].crash();
                let node = cluster.nodes[2].take().unwrap();
                soon("the end", node.shutdown()).await;
                cluster.start_node(2, Marks::default()).await;
            }
            _ => {
                cluster.network.isolate(id(2));
                tokio::time::sleep(Duration::from_millis(50)).await;
                cluster.network.heal();
            }
        }
        assert!(cuts < 100, "it never ends");
    }
    cluster.network.set_faults(MemoryFaults::default());
    assert!(cuts >= 3, "it was cut {cuts} times");
    assert_eq!(marked(&cluster.node(2).client(), 199).await, 1);
    same_snapshot(&cluster).await;
}

/// N8, r33: the state machine of one node cannot read what a peer sent, and had its own snapshot before: it
/// goes on from that, votes, and does not fetch the same again; what it can read it takes.
///
/// Each start ended with the same error, as long as nobody took the newer snapshot away by hand.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn n8_r33_an_older_snapshot_serves_where_the_newest_cannot_be_read() {
    let mut cluster = Cluster::with(3, on_demand()).await;
    assert_eq!(mark(&cluster.node(2).client(), 100).await, Ok(1));
    let own = soon("a snapshot", cluster.node(2).snapshot()).await.unwrap();
    leave_behind(&mut cluster, 2, 0..30).await;
    let kept = Arc::new(Kept::default());
    kept.readable.store(own.slot.number(), Ordering::SeqCst);
    cluster.start_node(2, machine(&kept)).await;
    let node = cluster.nodes[2].take().unwrap();
    let reason = soon("the end", node.stopped()).await;
    assert!(matches!(reason, StopReason::Restore { slot, .. } if slot > own.slot), "{reason}");
    drop(node);

    let kept = Arc::new(Kept::default());
    kept.readable.store(own.slot.number(), Ordering::SeqCst);
    cluster.start_node(2, machine(&kept)).await;
    assert_eq!(*kept.restored.lock().unwrap(), [own.slot]);
    // It votes: without it there is no majority.
    let gone = cluster.nodes[1].take().unwrap();
    soon("the end", gone.shutdown()).await;
    assert_eq!(mark(&cluster.node(0).client(), 7).await, Ok(2));
    let node = cluster.node(2);
    let wanted = |node: &Node<Marks>| node.metrics().core.snapshots_wanted;
    let before = wanted(node);
    until("some more questions", || wanted(node) > before + 5).await;
    assert_eq!(node.metrics().snapshots_received, 0, "the one that it cannot read");
    assert_eq!(node.status().snapshots.last, Some(own));
    // The next one it can read.
    kept.readable.store(0, Ordering::SeqCst);
    soon("a snapshot", cluster.node(0).snapshot()).await.unwrap();
    until("a snapshot", || installed(node) == 1).await;
    assert_eq!((marked(&node.client(), 7).await, marked(&node.client(), 100).await), (2, 1));
    assert_eq!(marked(&node.client(), u64::MAX).await, 0);
}

/// N8: nothing serves: what there is to do is said.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn n8_a_snapshot_that_cannot_be_read_is_named_with_the_way_out() {
    let whole = NodeOptions { trim_tail_slots: 1000, trim_reserve_bytes: 1 << 20, ..on_demand() };
    for (options, words) in [
        (on_demand(), "replace this replica"),
        (whole, "move the replica's snapshots away, for its log begins with the first slot"),
    ] {
        let mut cluster = Cluster::with(1, options).await;
        assert_eq!(mark(&cluster.node(0).client(), 1).await, Ok(1));
        let node = cluster.node(0);
        let made = soon("a snapshot", node.snapshot()).await.unwrap();
        if words.starts_with("replace") {
            until("a trimmed log", || trimmed(node) == made.slot).await;
        }
        let node = cluster.nodes[0].take().unwrap();
        soon("the end", node.shutdown()).await;
        let kept = Arc::new(Kept::default());
        kept.readable.store(1, Ordering::SeqCst);
        let refused = cluster.try_node(0, machine(&kept)).await.unwrap_err();
        assert!(matches!(refused, StartError::Restore { slot, .. } if slot == made.slot));
        let told = refused.to_string();
        assert!(told.contains("a field of another release") && told.contains(words), "{told}");
        // It was only the release.
        cluster.start_node(0, Marks::default()).await;
        assert_eq!(mark(&cluster.node(0).client(), 1).await, Ok(2));
    }
}

/// p24: whoever starts again and again keeps one reserve of the log, and not one for each life.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p24_what_earlier_lives_left_counts_as_reserve() {
    let reserve = 200 << 10;
    let options =
        NodeOptions { trim_tail_slots: 1_000_000, trim_reserve_bytes: reserve, ..on_demand() };
    let mut cluster = Cluster::with(1, options).await;
    // A mark of what the log took stands every 64 KiB.
    let most = (reserve + (64 << 10)) / (16 << 10) + 5;
    let least = reserve / (16 << 10) - 5;
    for life in 0..5 {
        let client = cluster.node(0).client();
        let mut told = Slot::ZERO;
        for _ in 0..10 {
            let weight = Op::Weight(vec![life; 16 << 10]);
            told = soon("a reply", client.execute_at(weight)).await.unwrap().slot;
        }
        let made = soon("a snapshot", cluster.node(0).snapshot()).await.unwrap();
        let kept = |node: &Node<Marks>| told.distance_from(trimmed(node));
        until("a log of one reserve", || kept(cluster.node(0)) <= most).await;
        // A life that ends before its log knows what its snapshot includes leaves the next one no log (N3).
        let group = GroupId::default();
        let recorded = || cluster.storages[0].log_bytes(group, u64::MAX).last().map(|mark| mark.0);
        until("a record of it", || recorded() >= Some(made.slot)).await;
        let node = cluster.nodes[0].take().unwrap();
        soon("the end", node.shutdown()).await;
        cluster.start_node(0, Marks::default()).await;
        let kept = kept(cluster.node(0));
        assert!((least..=most).contains(&kept), "the reserve stays: {kept}");
    }
}
