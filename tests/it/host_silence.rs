//! A leader that falls silent while its links stay up, as a paused process does: who waits for it
//! is answered once another leads, and whoever was not sent to it goes to that one.

use core::task::{Context, Poll};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use paxos::core::ballot::Ballot;
use paxos::core::port::{Frame, Sent, Transport, TransportCounters, TransportEvent};
use paxos::{
    Applied, Client, ClientError, Consistency, Delivery, Incarnation, MemoryNetwork,
    MemoryTransport, Node, Rejection, ReplicaId, Uncertainty,
};

use crate::support::{Marks, Op, PATIENCE, config, id, mark, marked, soon, storage, until};

/// A transport that a test can silence: nothing leaves, nothing arrives, and nobody is told.
struct Muffled {
    inner: MemoryTransport,
    silent: Arc<AtomicBool>,
}

impl Transport for Muffled {
    fn replica(&self) -> ReplicaId {
        self.inner.replica()
    }

    fn start(&mut self, incarnation: Incarnation) {
        self.inner.start(incarnation);
    }

    fn send(&mut self, to: ReplicaId, frame: Frame) -> Sent {
        if self.silent.load(Ordering::SeqCst) { Sent::Queued } else { self.inner.send(to, frame) }
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<TransportEvent>> {
        loop {
            let event = self.inner.poll_event(cx);
            let frame = matches!(event, Poll::Ready(Some(TransportEvent::Frame { .. })));
            if !frame || !self.silent.load(Ordering::SeqCst) {
                return event;
            }
        }
    }

    fn counters(&self) -> TransportCounters {
        self.inner.counters()
    }
}

/// Three nodes that agree on a leader, and its place.
async fn cluster() -> (Vec<Node<Marks>>, Vec<Arc<AtomicBool>>, usize) {
    cluster_on(&MemoryNetwork::new()).await
}

async fn cluster_on(network: &MemoryNetwork) -> (Vec<Node<Marks>>, Vec<Arc<AtomicBool>>, usize) {
    let (mut nodes, mut silences) = (Vec::new(), Vec::new());
    for place in 0..3 {
        let silent = Arc::new(AtomicBool::new(false));
        let inner = network.transport(id(place));
        let transport = Muffled { inner, silent: Arc::clone(&silent) };
        let builder = Node::builder().storage(storage(place, 3)).transport(transport);
        nodes.push(builder.config(config()).start(Marks::default()).await.unwrap());
        silences.push(silent);
    }
    let leader_of = |node: &Node<Marks>| node.watch().borrow().leader;
    until("a leader that all follow", || {
        let leader = leader_of(&nodes[0]);
        leader.is_some() && nodes.iter().all(|node| leader_of(node) == leader)
    })
    .await;
    let leader = nodes.iter().position(|node| node.watch().borrow().is_leader).unwrap();
    (nodes, silences, leader)
}

/// Marks a name without a session.
async fn once(client: &Client<Marks>, name: u64) -> Result<u64, ClientError> {
    let applied = client.execute_with(Delivery::AtMostOnce, Op::Mark(name)).await?;
    Ok(applied.reply)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_sent_to_a_silent_leader_is_unknown_once_another_leads() {
    let (nodes, silences, leader) = cluster().await;
    let follower = &nodes[(leader + 1) % 3];
    let client = follower.client().with_timeout(3 * PATIENCE);
    assert_eq!(mark(&client, 1).await, Ok(1));
    let sent = follower.metrics().forwards_sent;
    silences[leader].store(true, Ordering::SeqCst);
    let lost = {
        let client = client.clone();
        tokio::spawn(async move { once(&client, 2).await })
    };
    until("its departure", || follower.metrics().forwards_sent > sent).await;
    let unknown = Err(ClientError::Unknown(Uncertainty::LeaderChanged));
    assert_eq!(soon("an answer", lost).await.unwrap(), unknown);
    assert_eq!(follower.metrics().forwards_unanswered, 0);
    assert_eq!(mark(&client, 3).await, Ok(1));
    // Nothing of it comes back with the leader.
    silences[leader].store(false, Ordering::SeqCst);
    let back = nodes[leader].client();
    assert_eq!(mark(&back, 3).await, Ok(2));
    assert_eq!(marked(&client, 2).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_sent_over_a_link_that_fell_is_unknown_and_never_sent_again() {
    let network = MemoryNetwork::new();
    let (nodes, silences, leader) = cluster_on(&network).await;
    let place = (leader + 1) % 3;
    let follower = &nodes[place];
    let client = follower.client().with_timeout(3 * PATIENCE);
    assert_eq!(mark(&client, 1).await, Ok(1));
    let sent = follower.metrics().forwards_sent;
    silences[leader].store(true, Ordering::SeqCst);
    let lost = {
        let client = client.clone();
        tokio::spawn(async move { once(&client, 2).await })
    };
    until("its departure", || follower.metrics().forwards_sent > sent).await;
    network.cut(id(place), id(leader));
    let answer = soon("an answer", lost).await.unwrap();
    // On a slow machine another may lead before the cut, which says the same.
    let fell = [Uncertainty::LinkLost, Uncertainty::LeaderChanged].map(ClientError::Unknown);
    assert!(answer.as_ref().is_err_and(|error| fell.contains(error)), "{answer:?}");
    // The next leader takes commands, and was not given this one.
    assert_eq!(mark(&client, 3).await, Ok(1));
    assert_eq!(marked(&client, 2).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_leader_answers_its_own_clients_when_it_hears_of_another() {
    let (nodes, silences, leader) = cluster().await;
    let client = nodes[leader].client().with_timeout(3 * PATIENCE);
    assert_eq!(mark(&client, 1).await, Ok(1));
    let proposed = nodes[leader].metrics().commands_proposed;
    silences[leader].store(true, Ordering::SeqCst);
    let asked = tokio::spawn(async move { once(&client, 2).await });
    until("its proposal", || nodes[leader].metrics().commands_proposed > proposed).await;
    let others = [(leader + 1) % 3, (leader + 2) % 3];
    until("another leader", || others.iter().any(|place| nodes[*place].watch().borrow().is_leader))
        .await;
    silences[leader].store(false, Ordering::SeqCst);
    // No slot of the new leader need ever reach that of the old one.
    let outcome = soon("an answer", asked).await.unwrap();
    let seen = marked(&nodes[others[0]].client(), 2).await;
    match outcome {
        Err(ClientError::Rejected(Rejection::Superseded)) => assert_eq!(seen, 0),
        // Its vote is in one log: one more change of leader may choose it after all.
        Err(ClientError::Unknown(Uncertainty::LeaderChanged)) => assert!(seen <= 1, "{seen}"),
        other => panic!("{other:?}"),
    }
}

/// In a session what may be lost is sent again, and applied once whatever became of it before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_session_what_a_silent_leader_was_sent_goes_to_the_next_one_as_well() {
    for asks_leader in [false, true] {
        let (nodes, silences, leader) = cluster().await;
        let node = &nodes[(leader + usize::from(!asks_leader)) % 3];
        let client = node.client().with_timeout(3 * PATIENCE);
        assert_eq!(mark(&client, 1).await, Ok(1));
        let count = || node.metrics().forwards_sent + node.metrics().commands_proposed;
        let before = count();
        silences[leader].store(true, Ordering::SeqCst);
        let asked = {
            let client = client.clone();
            tokio::spawn(async move { client.execute_at(Op::Mark(2)).await })
        };
        until("its departure", || count() > before).await;
        let others = [(leader + 1) % 3, (leader + 2) % 3];
        let leads = |place: &usize| nodes[*place].watch().borrow().is_leader;
        until("another leader", || others.iter().any(leads)).await;
        silences[leader].store(false, Ordering::SeqCst);
        let answer = soon("an answer", asked).await.unwrap();
        if answer == Err(ClientError::Rejected(Rejection::Superseded)) {
            // The first attempt certainly was not applied, and there was no other.
            assert_eq!(marked(&client, 2).await, 0);
            continue;
        }
        let Applied { slot, reply } = answer.unwrap();
        assert_eq!(reply, 1);
        for node in &nodes {
            let reader = node.client().with_timeout(PATIENCE);
            let read = reader.read(Consistency::AtLeast(slot), 2);
            assert_eq!(soon("a read", read).await, Ok(1), "whoever has applied {slot}");
        }
        assert!(asks_leader || node.metrics().requests_again > 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_leader_was_sent_goes_to_the_next_one() {
    let (nodes, silences, leader) = cluster().await;
    let follower = &nodes[(leader + 1) % 3];
    silences[leader].store(true, Ordering::SeqCst);
    let old = Some(id(leader));
    until("its loss", || follower.watch().borrow().leader.map(Ballot::leader) != old).await;
    let client = follower.client().with_timeout(3 * PATIENCE);
    assert_eq!(mark(&client, 1).await, Ok(1));
}
