//! What stops a node, and what is said then.

use std::time::Duration;

use bytes::Bytes;
use paxos::storage::MemoryStorage;
use paxos::{
    Builder, ClientError, CodecError, CommandCodec, Config, MemoryNetwork, Node, NodeOptions,
    Postcard, StartError, StopReason, Uncertainty,
};

use crate::support::{Cluster, Marks, Op, config, id, soon, storage, until};

fn builder(network: &MemoryNetwork, storage: &MemoryStorage) -> Builder<Marks> {
    Node::builder().storage(storage.clone()).transport(network.transport(id(0))).config(config())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_in_apply_stops_the_nodes_that_apply_it_and_names_the_slot() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let client = cluster.node(leader).client();
    assert_eq!(soon("a reply", client.execute(Op::Mark(1))).await, Ok(1));
    let outcome = soon("an answer", client.execute(Op::Trap)).await;
    assert_eq!(outcome, Err(ClientError::Unknown(Uncertainty::Stopped)));
    // The other two find the command and choose it anew. Whichever applies it first stops, and may
    // leave the last one alone, without a quorum to learn from.
    let stopped = |place: &usize| cluster.node(*place).status().stopped.is_some();
    until("two ends", || (0..3).filter(stopped).count() >= 2).await;
    let mut slots = Vec::new();
    for place in (0..3).filter(stopped) {
        let reason = soon("the end", cluster.node(place).stopped()).await;
        let StopReason::Apply { slot, what } = &reason else {
            panic!("stopped for another reason: {reason}");
        };
        assert!(what.contains("the trap of the test"));
        assert!(reason.to_string().contains(&slot.to_string()));
        slots.push(*slot);
    }
    assert!(slots.iter().all(|slot| *slot == slots[0]), "{slots:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_that_do_not_match_the_commands_stop_the_node() {
    let cluster = Cluster::start(1).await;
    let client = cluster.node(0).client();
    let outcome = soon("an answer", client.execute(Op::Mute)).await;
    assert_eq!(outcome, Err(ClientError::Unknown(Uncertainty::Stopped)));
    let reason = soon("the end", cluster.node(0).stopped()).await;
    assert!(reason.to_string().contains("0 replies to 1 commands"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_write_stops_the_node_and_nothing_is_acknowledged() {
    let cluster = Cluster::start(1).await;
    let client = cluster.node(0).client();
    assert_eq!(soon("a reply", client.execute(Op::Mark(1))).await, Ok(1));
    cluster.storages[0].lose_next(0);
    let outcome = soon("an answer", client.execute(Op::Mark(1))).await;
    assert_eq!(outcome, Err(ClientError::Unknown(Uncertainty::Stopped)));
    let reason = soon("the end", cluster.node(0).stopped()).await;
    assert!(matches!(reason, StopReason::Storage(_)), "{reason}");
    assert!(reason.to_string().starts_with("storage failed: "));
}

/// Encodes as postcard does, and decodes nothing.
struct Newer;

impl CommandCodec<Op> for Newer {
    fn encode(&self, command: &Op) -> Result<Bytes, CodecError> {
        match command {
            Op::Trap => Err(CodecError("traps are not for this codec".to_owned())),
            Op::Mark(_) | Op::Weight(_) | Op::Mute => {
                CommandCodec::<Op>::encode(&Postcard, command)
            }
        }
    }

    fn decode(&self, _: Bytes) -> Result<Op, CodecError> {
        Err(CodecError("unheard of".to_owned()))
    }

    /// The newer release reads what it writes.
    fn check(&self, _: &Bytes) -> Result<(), CodecError> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_does_not_decode_stops_the_node() {
    let network = MemoryNetwork::new();
    let storage = storage(0, 1);
    let builder = builder(&network, &storage).codec(Newer);
    let node = builder.start(Marks::default()).await.unwrap();
    let refused = node.client().execute(Op::Trap).await;
    assert!(matches!(refused, Err(ClientError::Rejected(_))), "{refused:?}");
    let outcome = soon("an answer", node.client().execute(Op::Mark(1))).await;
    assert_eq!(outcome, Err(ClientError::Unknown(Uncertainty::Stopped)));
    let reason = soon("the end", node.stopped()).await;
    assert!(matches!(reason, StopReason::Undecodable { .. }), "{reason}");
    assert!(reason.to_string().contains("unheard of"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_lost_its_memory_is_refused_by_its_peers() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let place = (leader + 1) % 3;
    let client = cluster.node(leader).client();
    assert_eq!(soon("a reply", client.execute(Op::Mark(1))).await, Ok(1));
    let node = cluster.nodes[place].take().unwrap();
    soon("the end", node.shutdown()).await;
    cluster.storages[place] = storage(place, 3);
    cluster.start_node(place, Marks::default()).await;
    let reason = soon("the end", cluster.node(place).stopped()).await;
    assert!(matches!(reason, StopReason::Halt(_)), "{reason}");
    assert!(reason.to_string().contains("wiped"), "{reason}");
}

#[tokio::test]
async fn a_start_that_cannot_be_says_why() {
    let network = MemoryNetwork::new();
    let storage = storage(0, 1);
    let start = |builder: Builder<Marks>| async { builder.start(Marks::default()).await };
    let error = start(Node::builder()).await.unwrap_err();
    assert!(matches!(error, StartError::Missing("storage")), "{error}");
    let error = start(Node::builder().storage(storage.clone())).await.unwrap_err();
    assert!(matches!(error, StartError::Missing("transport")), "{error}");
    let options = NodeOptions { requests_max: 0, ..NodeOptions::default() };
    let error = start(builder(&network, &storage).options(options)).await.unwrap_err();
    assert!(matches!(error, StartError::Options("requests_max")), "{error}");
    let hasty = Config::default().election_timeout;
    let unfit = [
        (NodeOptions { request_timeout: hasty, ..NodeOptions::default() }, "request_timeout"),
        (
            NodeOptions { backoff_max: Duration::from_millis(4), ..NodeOptions::default() },
            "backoff_min",
        ),
    ];
    for (options, names) in unfit {
        let error = start(builder(&network, &storage).config(Config::default()).options(options));
        let error = error.await.unwrap_err();
        assert!(matches!(error, StartError::Unfit(why) if why.contains(names)), "{error}");
    }
    let config = Config { heartbeat_interval: Duration::from_secs(9), ..Config::default() };
    let error = start(builder(&network, &storage).config(config)).await.unwrap_err();
    assert!(error.to_string().contains("heartbeat_interval"), "{error}");
    let other = Node::builder().storage(storage.clone()).transport(network.transport(id(1)));
    let error = start(other).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the storage is that of replica 1 and the transport that of replica 2: \
         both must be of one replica"
    );
}
