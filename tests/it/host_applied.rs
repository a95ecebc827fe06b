//! Streams of applied slots: from memory, from the log, as they come, and to the end of what is kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use futures::{StreamExt, poll};
use paxos::core::config::Config as CoreConfig;
use paxos::core::ids::{ClientId, LogClock, RequestNumber, Time};
use paxos::core::output::{Output, Role};
use paxos::core::port::Storage as _;
use paxos::core::replica::Replica;
use paxos::core::snapshot::{Governs, SnapshotMeta};
use paxos::core::value::Command;
use paxos::storage::MemoryStorage;
use paxos::{
    AppliedSlot, CodecError, CommandCodec, Config, GroupId, ImageDigest, Membership, MemoryNetwork,
    Node, NodeOptions, Postcard, Slot, StreamEnd,
};

use crate::support::{Cluster, Kept, Marks, Op, config, id, mark, soon, storage, until};

/// The names that were marked in a slot.
fn names(slot: AppliedSlot<Op>) -> Vec<u64> {
    let AppliedSlot::Batch(batch) = slot else { return Vec::new() };
    let name = |op| if let Op::Mark(name) = op { name } else { panic!("{op:?} is no mark") };
    batch.commands.into_iter().map(name).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_tells_of_every_slot_in_order_on_every_node() {
    let cluster = Cluster::start(3).await;
    for name in 0..20 {
        assert_eq!(mark(&cluster.node(0).client(), name).await, Ok(1));
    }
    let mut told = Vec::new();
    for place in 0..3 {
        let mut stream = cluster.node(place).applied_from(Slot::ZERO);
        told.push(tokio::spawn(async move {
            let (mut all, mut last) = (Vec::new(), Slot::ZERO);
            while all.len() < 40 {
                let slot = stream.next().await.unwrap();
                assert_eq!(slot.slot(), last.next(), "each slot once, and none left out");
                last = slot.slot();
                all.extend(names(slot));
            }
            all
        }));
    }
    // The rest is told as it comes.
    for name in 20..40 {
        assert_eq!(mark(&cluster.node(1).client(), name).await, Ok(1));
    }
    for told in told {
        assert_eq!(soon("all slots", told).await.unwrap(), (0..40).collect::<Vec<_>>());
    }
    // From the middle on, as a stream of the futures crate.
    let applied = cluster.node(0).status().replica.applied;
    let stream = cluster.node(0).applied_from(applied.previous()).into_stream();
    let slots: Vec<_> = soon("two slots", stream.take(2).collect::<Vec<_>>()).await;
    let slots: Vec<_> = slots.into_iter().map(|slot| slot.unwrap().slot()).collect();
    assert_eq!(slots, [applied.previous(), applied]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_left_memory_is_read_from_the_log() {
    let small = Config { tail_bytes_max: 0, page_bytes_max: 300, ..config() };
    let cluster = Cluster::tuned(1, small, NodeOptions::default()).await;
    for name in 0..30 {
        assert_eq!(mark(&cluster.node(0).client(), name).await, Ok(1));
    }
    let loads = cluster.node(0).metrics().loads;
    let mut stream = cluster.node(0).applied_from(Slot::FIRST);
    let mut all = Vec::new();
    while all.len() < 30 {
        all.extend(names(soon("a slot", stream.next()).await.unwrap()));
    }
    assert_eq!(all, (0..30).collect::<Vec<_>>());
    let pages = cluster.node(0).metrics().loads - loads;
    assert!(pages > 3, "{pages} pages, each of a few slots");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_waits_is_cancel_safe_and_ends_with_its_node() {
    let mut cluster = Cluster::start(1).await;
    let client = cluster.node(0).client();
    assert_eq!(mark(&client, 1).await, Ok(1));
    let next = client.execute_at(Op::Mark(1)).await.unwrap().slot.next();
    let mut stream = cluster.node(0).applied_from(next);
    for _ in 0..3 {
        let mut waits = Box::pin(stream.next());
        assert!(poll!(&mut waits).is_pending(), "it is not applied yet");
    }
    assert_eq!(mark(&client, 2).await, Ok(1));
    // What was asked for and not waited for is not lost.
    until("the slot to be applied", || cluster.node(0).status().replica.applied >= next).await;
    let asked = poll!(Box::pin(stream.next()));
    let slot = match asked {
        Poll::Ready(slot) => slot,
        Poll::Pending => soon("the slot", stream.next()).await,
    };
    assert_eq!(slot.unwrap().slot(), next);
    let node = cluster.nodes[0].take().unwrap();
    let waits = tokio::spawn(async move { stream.next().await });
    soon("the end", node.shutdown()).await;
    assert_eq!(soon("the end of the stream", waits).await.unwrap(), Err(StreamEnd::Stopped));
}

/// What is known of a snapshot whose files are lost.
fn lost_snapshot(slot: Slot) -> SnapshotMeta {
    let membership = Membership::voters_only([id(0)]).unwrap();
    SnapshotMeta {
        group: GroupId::new(0),
        slot,
        clock: LogClock::default(),
        governs: vec![Governs { from: Slot::FIRST, membership }],
        bytes: 1,
        digest: ImageDigest(0),
    }
}

/// A log of ten commands, of which the first are trimmed, and what a state machine made of all.
fn trimmed_log(through: Slot) -> (MemoryStorage, Arc<Kept>) {
    let kept = Arc::new(Kept::default());
    let disk = storage(0, 1);
    let mut handle = disk.clone();
    let recovered = handle.recover(1).unwrap().remove(0);
    let mut now = Time::ZERO;
    let mut replica =
        Replica::recover(CoreConfig::default(), recovered, Slot::ZERO, 1, now).unwrap();
    let (mut asked, mut trimmed) = (0, false);
    loop {
        match replica.poll_output() {
            Output::Persist(batch) => {
                for proof in handle.persist(vec![batch]).unwrap() {
                    replica.handle_durable(proof, now);
                }
            }
            Output::Apply { slot, .. } => {
                kept.applied.store(slot.number(), Ordering::SeqCst);
                replica.handle_applied(slot, now);
            }
            Output::Idle { .. } if trimmed => return (disk, kept),
            Output::Idle { .. } if asked == 10 && replica.status().applied == Slot::new(10) => {
                replica.handle_snapshot(&lost_snapshot(through));
                replica.trim(through).unwrap();
                trimmed = true;
            }
            Output::Idle { .. } if replica.role() == Role::Leader => {
                asked += 1;
                let payload = Postcard.encode(&Op::Mark(asked)).unwrap();
                let command = Command::apply(ClientId::new(1), RequestNumber::new(asked), payload);
                replica.propose(vec![command], LogClock::default(), now).unwrap();
            }
            Output::Idle { wake_at } => {
                now = wake_at.unwrap();
                replica.handle_timeout(now);
            }
            Output::Send { .. } | Output::Load { .. } => {
                panic!("it is alone, and all is in memory")
            }
            Output::ReadsReady { .. }
            | Output::ReadsLost { .. }
            | Output::QuorumReadsReady { .. }
            | Output::QuorumReadsLost { .. } => panic!("nobody reads"),
            Output::SnapshotWanted { .. } => panic!("nobody trims a log"),
            Output::Halt(why) => panic!("{why}"),
        }
    }
}

/// r33: what sessions had applied stood in a snapshot, and its files are lost: that the state machine
/// has a state of its own does not help.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r33_a_log_that_begins_after_the_newest_snapshot_is_refused() {
    let (disk, kept) = trimmed_log(Slot::new(4));
    let machine = Marks { included: 10, kept, ..Marks::default() };
    let node = Node::builder()
        .storage(disk)
        .transport(MemoryNetwork::new().transport(id(0)))
        .config(config())
        .start(machine)
        .await;
    let Err(error) = node else { panic!("the table of sessions is lost") };
    let error = error.to_string();
    assert!(error.contains("begins after slot 4") && error.contains("snapshot files"), "{error}");
}

/// Reads what it wrote until it is told to stop.
#[derive(Debug, Default)]
struct Moody(Arc<AtomicU64>);

impl CommandCodec<Op> for Moody {
    fn encode(&self, command: &Op) -> Result<bytes::Bytes, CodecError> {
        Postcard.encode(command)
    }

    fn decode(&self, bytes: bytes::Bytes) -> Result<Op, CodecError> {
        if self.0.load(Ordering::SeqCst) > 0 {
            return Err(CodecError("not today".to_owned()));
        }
        Postcard.decode(bytes)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_says_which_slot_it_cannot_read() {
    let mood = Arc::new(AtomicU64::new(0));
    let node = Node::builder()
        .storage(storage(0, 1))
        .transport(MemoryNetwork::new().transport(id(0)))
        .config(config())
        .codec(Moody(Arc::clone(&mood)))
        .start(Marks::default())
        .await
        .unwrap();
    assert_eq!(mark(&node.client(), 1).await, Ok(1));
    let slot = node.client().execute_at(Op::Mark(1)).await.unwrap().slot;
    mood.store(1, Ordering::SeqCst);
    let what = "not today".to_owned();
    let end = soon("an end", node.applied_from(slot).next()).await;
    assert_eq!(end, Err(StreamEnd::Undecodable { slot, what }));
}
