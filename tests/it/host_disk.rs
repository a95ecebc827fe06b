//! Storages that wait for a device: the journal's thread, a wedged sync, a full disk.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use paxos::core::durable::{Durable, Write, WriteBatch};
use paxos::core::port::{Blocking, LoadRange, Loaded, Recovered, Room, Storage, StorageError};
use paxos::storage::MemoryStorage;
use paxos::{
    ClientError, Config, Delivery, MemoryNetwork, Node, Rejection, StopReason, Uncertainty,
};

use crate::support::{Marks, Op, PATIENCE, config, id, mark, marked, soon, storage, until};

/// A storage on a device that a test can wedge, break and fill.
struct Device {
    inner: MemoryStorage,
    hand: Arc<Hand>,
}

#[derive(Default)]
struct Hand {
    wedged: Mutex<bool>,
    freed: Condvar,
    full: AtomicBool,
    /// Values written.
    values: AtomicU64,
    broken: AtomicBool,
}

impl Hand {
    fn wedge(&self, wedged: bool) {
        *self.wedged.lock().unwrap() = wedged;
        self.freed.notify_all();
    }
}

impl Storage for Device {
    fn recover(&mut self, nonce: u32) -> Result<Vec<Recovered>, StorageError> {
        self.inner.recover(nonce)
    }

    fn persist(&mut self, batches: Vec<WriteBatch>) -> Result<Vec<Durable>, StorageError> {
        let wedged = self.hand.wedged.lock().unwrap();
        drop(self.hand.freed.wait_while(wedged, |wedged| *wedged).unwrap());
        if self.hand.broken.load(Ordering::SeqCst) {
            return Err(StorageError::Poisoned);
        }
        let writes = batches.iter().flat_map(WriteBatch::writes);
        let values = writes.filter(|w| matches!(w, Write::Accepted { .. } | Write::Chosen { .. }));
        self.hand.values.fetch_add(values.count() as u64, Ordering::SeqCst);
        self.inner.persist(batches)
    }

    fn load(&mut self, range: LoadRange) -> Result<Loaded, StorageError> {
        self.inner.load(range)
    }

    fn room(&self) -> Room {
        if self.hand.full.load(Ordering::SeqCst) { Room::Full } else { Room::Ample }
    }

    fn blocking(&self) -> Blocking {
        Blocking::Device
    }
}

async fn node(
    network: &MemoryNetwork,
    place: usize,
    replicas: usize,
    hand: &Arc<Hand>,
) -> Node<Marks> {
    let device = Device { inner: storage(place, replicas), hand: Arc::clone(hand) };
    let config = Config { disk_stall: Duration::from_millis(300), ..config() };
    let builder =
        Node::builder().storage(device).transport(network.transport(id(place))).config(config);
    builder.start(Marks::default()).await.unwrap()
}

/// Three nodes, each on a device of its own.
async fn three() -> (Vec<Arc<Hand>>, Vec<Node<Marks>>) {
    let network = MemoryNetwork::new();
    let hands: Vec<_> = (0..3).map(|_| Arc::new(Hand::default())).collect();
    let mut nodes = Vec::new();
    for (place, hand) in hands.iter().enumerate() {
        nodes.push(node(&network, place, 3, hand).await);
    }
    (hands, nodes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_acknowledged_before_the_sync_returns() {
    let hand = Arc::new(Hand::default());
    let node = node(&MemoryNetwork::new(), 0, 1, &hand).await;
    let client = node.client();
    assert_eq!(mark(&client, 1).await, Ok(1));
    assert!(node.metrics().sync.count > 0);
    hand.wedge(true);
    let hasty = client.clone().with_timeout(Duration::from_millis(100));
    let outcome = soon("an answer", hasty.execute(Op::Mark(2))).await;
    assert_eq!(outcome, Err(ClientError::Unknown(Uncertainty::Timeout)));
    hand.wedge(false);
    // What is proposed later is committed later.
    assert_eq!(mark(&client, 3).await, Ok(1));
    assert_eq!(marked(&client, 2).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_sync_is_wedged_makes_way_and_its_node_still_ends() {
    let (hands, mut nodes) = three().await;
    let client = nodes[0].client();
    assert_eq!(mark(&client, 1).await, Ok(1));
    let leads = |node: &Node<Marks>| node.watch().borrow().is_leader;
    let leader = nodes.iter().position(leads).unwrap();
    hands[leader].wedge(true);
    let client = nodes[leader].client().with_timeout(3 * PATIENCE);
    let single = async move { client.execute_with(Delivery::AtMostOnce, Op::Mark(2)).await };
    let asked = tokio::spawn(single);
    until("another leader", || !leads(&nodes[leader]) && nodes.iter().any(leads)).await;
    let other = nodes[(leader + 1) % 3].client();
    assert_eq!(mark(&other, 3).await, Ok(1));
    assert!(nodes[leader].metrics().core.step_downs > 0);
    // The others may have chosen it, but the wedged node applies only what its own disk holds: its
    // client is told, long before its time is over, that it may be applied or not.
    let unknown = Err(ClientError::Unknown(Uncertainty::LeaderChanged));
    assert_eq!(soon("an answer", asked).await.unwrap(), unknown);
    let seen = marked(&other, 2).await;
    assert!(seen <= 1, "{seen}");
    let reason = soon("the end", nodes.remove(leader).shutdown()).await;
    assert!(matches!(reason, StopReason::Shutdown), "{reason}");
    hands[leader].wedge(false);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_that_fails_stops_the_node_and_answers_nobody() {
    let hand = Arc::new(Hand::default());
    let node = node(&MemoryNetwork::new(), 0, 1, &hand).await;
    let client = node.client();
    assert_eq!(mark(&client, 1).await, Ok(1));
    hand.broken.store(true, Ordering::SeqCst);
    let outcome = soon("an answer", client.execute(Op::Mark(2))).await;
    assert_eq!(outcome, Err(ClientError::Unknown(Uncertainty::Stopped)));
    let reason = soon("the end", node.stopped()).await;
    assert!(matches!(reason, StopReason::Storage(_)), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_commands_until_there_is_space() {
    let hand = Arc::new(Hand::default());
    let node = node(&MemoryNetwork::new(), 0, 1, &hand).await;
    let client = node.client();
    assert_eq!(mark(&client, 1).await, Ok(1));
    hand.full.store(true, Ordering::SeqCst);
    // The write of this one brings the news.
    assert_eq!(mark(&client, 1).await, Ok(2));
    until("the news", || node.status().room == Room::Full).await;
    let full = Err(ClientError::Rejected(Rejection::StorageFull));
    assert_eq!(soon("an answer", client.execute(Op::Mark(1))).await, full);
    hand.full.store(false, Ordering::SeqCst);
    until("space", || node.status().room == Room::Ample).await;
    assert_eq!(mark(&client, 1).await, Ok(3));
}

/// A leader whose disk is full refuses every command for as long as it leads, although the others have
/// space: it makes way instead, and commands wait for the next leader.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_disk_is_full_makes_way_for_one_that_has_space() {
    let (hands, nodes) = three().await;
    assert_eq!(mark(&nodes[0].client(), 1).await, Ok(1));
    let leads = |node: &Node<Marks>| node.watch().borrow().is_leader;
    let leader = nodes.iter().position(leads).unwrap();
    let others = [(leader + 1) % 3, (leader + 2) % 3];
    // One of the others is full too, and does not take over.
    hands[others[0]].full.store(true, Ordering::SeqCst);
    assert_eq!(mark(&nodes[others[1]].client(), 1).await, Ok(2));
    until("the news", || nodes[others[0]].status().room == Room::Full).await;
    let client = nodes[others[1]].client();
    hands[leader].full.store(true, Ordering::SeqCst);
    assert_eq!(soon("a reply", client.execute(Op::Mark(1))).await, Ok(3), "it brings the news");
    until("the one with space to lead", || leads(&nodes[others[1]])).await;
    assert!(nodes[leader].metrics().core.transfers_done > 0);
    // Two disks are full: nothing is chosen, and nothing is refused either.
    hands[others[0]].full.store(false, Ordering::SeqCst);
    assert_eq!(mark(&client, 1).await, Ok(4));
    assert_eq!(mark(&nodes[others[0]].client(), 1).await, Ok(5));
}

/// Where nobody has space nobody takes over: the leader stays, and says so to whoever asks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_every_disk_is_full_the_leader_stays_and_refuses() {
    let (hands, nodes) = three().await;
    let client = nodes[0].client();
    assert_eq!(mark(&client, 1).await, Ok(1));
    for hand in &hands {
        hand.full.store(true, Ordering::SeqCst);
    }
    let leader = nodes.iter().position(|node| node.watch().borrow().is_leader).unwrap();
    // Each write brings the news to one that takes it.
    let _ = soon("an answer", client.execute(Op::Mark(1))).await;
    until("the news", || nodes[leader].status().room == Room::Full).await;
    let full = Err(ClientError::Rejected(Rejection::StorageFull));
    let mut refused = 0;
    soon("refusals", async {
        while refused < 20 {
            refused += u32::from(nodes[leader].client().execute(Op::Mark(1)).await == full);
        }
    })
    .await;
    // One that has not noticed yet that its disk is full may take over first.
    let gave_up = |node: &Node<Marks>| node.metrics().core.transfers_given_up > 0;
    until("one gives up", || nodes.iter().any(gave_up)).await;
    for hand in &hands {
        hand.full.store(false, Ordering::SeqCst);
    }
    until("space", || nodes.iter().all(|node| node.status().room == Room::Ample)).await;
    let times = marked(&nodes[leader].client(), 1).await;
    assert_eq!(mark(&nodes[leader].client(), 1).await, Ok(times + 1));
}

/// A follower whose disk was full went on voting until its last reserve was gone, and could not even
/// be started again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_whose_disk_is_full_takes_no_values_until_there_is_space() {
    let (hands, nodes) = three().await;
    let client = nodes[0].client();
    assert_eq!(mark(&client, 1).await, Ok(1));
    let leader = nodes.iter().position(|node| node.watch().borrow().is_leader).unwrap();
    let (full, client) = ((leader + 1) % 3, nodes[leader].client());
    hands[full].full.store(true, Ordering::SeqCst);
    assert_eq!(mark(&client, 1).await, Ok(2));
    until("the news", || nodes[full].status().room == Room::Full).await;
    let before = hands[full].values.load(Ordering::SeqCst);
    for times in 3..=20 {
        assert_eq!(mark(&client, 1).await, Ok(times));
    }
    // What was handed to the journal before the news is still written: one command was under way at a time.
    let after = hands[full].values.load(Ordering::SeqCst);
    assert!(after - before <= 2, "{} values of 18", after - before);
    assert!(nodes[full].metrics().dropped_no_room > 0);
    hands[full].full.store(false, Ordering::SeqCst);
    let applied = nodes[leader].status().replica.applied;
    until("it has caught up", || nodes[full].status().replica.applied >= applied).await;
}
