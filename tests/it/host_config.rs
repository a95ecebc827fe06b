//! What must agree and what must fit: nodes that were formatted differently, and frames that are too
//! small for the config.

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use paxos::core::agreement::Disagreement;
use paxos::core::port::{Frame, Sent, Transport, TransportCounters, TransportEvent};
use paxos::storage::MemoryStorage;
use paxos::{
    ClientError, ClusterId, Config, Epoch, Format, GroupId, Incarnation, Member, Membership,
    MemoryNetwork, MemoryTransport, Node, QuorumRule, Rejection, ReplicaId, StartError,
};

use crate::support::{Marks, Op, config, id, mark, soon, storage, until};

const MAJORITY: QuorumRule = QuorumRule::Majority;

/// Three voters, as one of them was told.
fn told(rule: QuorumRule, window: u32) -> Membership {
    let voters = (0..3).map(|place| Member::new(id(place))).collect();
    Membership::new(Epoch::FIRST, voters, Vec::new(), rule, window).unwrap()
}

async fn start(network: &MemoryNetwork, place: usize, membership: Membership) -> Node<Marks> {
    let (cluster, group) = (ClusterId::new(7), GroupId::new(0));
    let format = Format { cluster, group, replica: id(place), membership };
    Node::builder()
        .storage(MemoryStorage::formatted(format))
        .transport(network.transport(id(place)))
        .config(config())
        .start(Marks::default())
        .await
        .unwrap()
}

/// Whom the node names, and why.
fn named(node: &Node<Marks>) -> Vec<(ReplicaId, Disagreement)> {
    node.status().replica.disagreeing
}

/// The third was formatted with write quorums of one: by its own rule it could choose what the others
/// never hear of. They serve without it, it serves nobody, and all say why.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_formatted_differently_is_left_alone_and_named() {
    let network = MemoryNetwork::new();
    let odd = QuorumRule::Counts { prepare: 3, accept: 1 };
    let one = start(&network, 0, told(MAJORITY, 256)).await;
    let two = start(&network, 1, told(MAJORITY, 256)).await;
    let three = start(&network, 2, told(odd, 256)).await;
    let quorums = Disagreement::Quorums;
    until("names", || {
        named(&one) == [(id(2), quorums)]
            && named(&two) == [(id(2), quorums)]
            && named(&three) == [(id(0), quorums), (id(1), quorums)]
    })
    .await;
    assert_eq!(soon("a mark", mark(&one.client(), 1)).await, Ok(1));
    assert_eq!(soon("a mark", mark(&two.client(), 1)).await, Ok(2));
    let alone = three.client().with_timeout(Duration::from_millis(500));
    let refused = soon("a refusal", alone.execute(Op::Mark(1))).await;
    assert_eq!(refused, Err(ClientError::Rejected(Rejection::NoLeader)));
    assert_eq!(three.status().replica.applied.number(), 0, "nor was it told what is chosen");
}

/// Three that were told three windows: each finds a quorum that disagrees, and nobody leads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_no_quorum_agrees_nobody_leads() {
    let network = MemoryNetwork::new();
    let mut nodes = Vec::new();
    for (place, window) in [(0, 64), (1, 128), (2, 256)] {
        nodes.push(start(&network, place, told(MAJORITY, window)).await);
    }
    until("names", || nodes.iter().all(|node| named(node).len() == 2)).await;
    // Long enough for an election several times over.
    let begin = Instant::now();
    let long = 4 * (config().election_timeout + config().election_jitter);
    until("nobody to lead for long", || {
        for node in &nodes {
            let status = node.status().replica;
            assert_eq!(status.leader, None, "{status:?}");
            assert_eq!(status.promised, None, "{status:?}");
            assert!(status.disagreeing.iter().all(|(_, what)| *what == Disagreement::Window));
        }
        begin.elapsed() > long
    })
    .await;
}

/// Carries less than it could.
struct Narrow {
    inner: MemoryTransport,
    frame_bytes_max: usize,
}

impl Transport for Narrow {
    fn replica(&self) -> ReplicaId {
        self.inner.replica()
    }

    fn start(&mut self, incarnation: Incarnation) {
        self.inner.start(incarnation);
    }

    fn send(&mut self, to: ReplicaId, frame: Frame) -> Sent {
        self.inner.send(to, frame)
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<TransportEvent>> {
        self.inner.poll_event(cx)
    }

    fn counters(&self) -> TransportCounters {
        self.inner.counters()
    }

    fn frame_bytes_max(&self) -> usize {
        self.frame_bytes_max
    }
}

/// A batch that could never be sent is refused at the start, and not when it is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_config_whose_messages_no_frame_carries_does_not_start() {
    let network = MemoryNetwork::new();
    let begin = |config: Config, frame_bytes_max: usize| {
        let inner = network.transport(id(0));
        let builder = Node::builder().storage(storage(0, 1)).config(config);
        builder.transport(Narrow { inner, frame_bytes_max }).start(Marks::default())
    };
    let usual = config();
    let needed = usual.message_bytes_max();
    assert!(needed > usual.batch_bytes_max && needed > usual.page_bytes_max);
    let error = begin(usual.clone(), needed - 1).await.unwrap_err();
    let StartError::Frames { carried, needed: said } = error else { panic!("{error}") };
    assert_eq!((carried, said), (needed - 1, needed));
    assert!(error.to_string().contains("lower batch_bytes_max"), "{error}");
    let small = Config { batch_bytes_max: 4096, page_bytes_max: 4096, ..usual.clone() };
    let node = begin(small, 8192).await.unwrap();
    drop(node);
    // What the default allows at most fits the transports that are here.
    let most = paxos::core::config::PAGE_BYTES_LIMIT;
    let largest = Config { batch_bytes_max: most, page_bytes_max: most, ..usual };
    assert!(largest.message_bytes_max() <= network.transport(id(0)).frame_bytes_max());
    assert!(largest.message_bytes_max() <= paxos::quic::Limits::default().frame_bytes_max as usize);
}
