//! A cluster in one process, and a state machine that remembers what it was told.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::stream::{self, StreamExt};
use paxos::core::snapshot::ImageHasher;
use paxos::storage::MemoryStorage;
use paxos::{
    Batch, Bytes, Client, ClientError, ClusterId, Config, Format, GroupId, Membership,
    MemoryNetwork, Node, NodeOptions, Rejection, ReplicaId, Slot, SnapshotError, SnapshotStream,
    StartError, StateDigest, StateMachine, async_trait,
};
use serde::{Deserialize, Serialize};

/// Everything here is done after this, or never.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) enum Op {
    /// Counts this name once more.
    Mark(u64),
    /// Carries weight.
    Weight(Vec<u8>),
    /// Panics.
    Trap,
    /// Returns no reply.
    Mute,
}

/// How often each name was marked, and what a test may see of that.
#[derive(Default)]
pub(crate) struct Marks {
    pub(crate) counts: BTreeMap<u64, u64>,
    /// What survives this machine, where a test keeps it.
    pub(crate) kept: Arc<Kept>,
    /// What it included when it was made.
    pub(crate) included: u64,
}

#[derive(Default)]
pub(crate) struct Kept {
    pub(crate) applied: AtomicU64,
    pub(crate) counts: Mutex<BTreeMap<u64, u64>>,
    pub(crate) slots: Mutex<Vec<Slot>>,
    /// The snapshots that it was restored from.
    pub(crate) restored: Mutex<Vec<Slot>>,
    /// Whether it makes no snapshots.
    pub(crate) mute: AtomicBool,
    /// Whether it goes astray: its state changes in a way that no command asked for and no reply shows.
    pub(crate) astray: AtomicBool,
    /// It cannot be restored from snapshots above this slot, if it is not zero.
    pub(crate) readable: AtomicU64,
}

#[async_trait]
impl StateMachine for Marks {
    type Command = Op;
    type Reply = u64;
    type Query = u64;
    type Answer = u64;

    async fn apply(&mut self, batch: Batch<Op>) -> Vec<u64> {
        self.kept.slots.lock().unwrap().push(batch.slot);
        if self.kept.astray.load(Ordering::SeqCst) {
            *self.counts.entry(u64::MAX).or_default() += 1;
        }
        let mut replies = Vec::new();
        for op in batch.commands {
            match op {
                Op::Mark(name) => {
                    let count = self.counts.entry(name).or_default();
                    *count += 1;
                    replies.push(*count);
                }
                Op::Weight(weight) => replies.push(weight.len() as u64),
                Op::Trap => panic!("the trap of the test"),
                Op::Mute => {}
            }
        }
        let number = batch.slot.number();
        self.kept.applied.store(number, Ordering::SeqCst);
        self.kept.counts.lock().unwrap().clone_from(&self.counts);
        replies
    }

    async fn query(&self, name: u64) -> u64 {
        self.counts.get(&name).copied().unwrap_or(0)
    }

    fn digest(&self) -> Option<StateDigest> {
        let pairs = self.counts.iter();
        let bytes = pairs.flat_map(|(name, count)| [name.to_le_bytes(), count.to_le_bytes()]);
        let mut digest = ImageHasher::new();
        bytes.for_each(|bytes| digest.update(&bytes));
        Some(StateDigest(digest.finish().0))
    }

    fn applied(&self) -> Slot {
        Slot::new(self.included)
    }

    async fn snapshot(&self) -> Result<SnapshotStream, SnapshotError> {
        if self.kept.mute.load(Ordering::SeqCst) {
            return Err(SnapshotError::NotSupported);
        }
        let counts = self.counts.clone();
        let pieces = counts.into_iter().map(|(name, count)| {
            Ok(Bytes::from([name.to_le_bytes(), count.to_le_bytes()].concat()))
        });
        Ok(stream::iter(pieces).boxed())
    }

    async fn restore(&mut self, slot: Slot, mut from: SnapshotStream) -> Result<(), SnapshotError> {
        let mut bytes = Vec::new();
        while let Some(piece) = from.next().await {
            bytes.extend_from_slice(&piece.map_err(SnapshotError::Io)?);
        }
        let readable = self.kept.readable.load(Ordering::SeqCst);
        if readable > 0 && slot.number() > readable {
            // Whoever goes on from here goes astray.
            self.counts = BTreeMap::from([(u64::MAX, 1)]);
            return Err(SnapshotError::Io(std::io::Error::other("a field of another release")));
        }
        let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
        let pairs = bytes.chunks_exact(16).map(|pair| (number(&pair[..8]), number(&pair[8..])));
        self.counts = pairs.collect();
        self.kept.restored.lock().unwrap().push(slot);
        Ok(())
    }
}

pub(crate) struct Cluster {
    pub(crate) network: MemoryNetwork,
    pub(crate) storages: Vec<MemoryStorage>,
    pub(crate) nodes: Vec<Option<Node<Marks>>>,
    pub(crate) config: Config,
    pub(crate) options: NodeOptions,
}

/// Quick, but patient enough that nodes which share a busy machine keep their leader.
pub(crate) fn config() -> Config {
    Config {
        heartbeat_interval: Duration::from_millis(40),
        election_timeout: Duration::from_millis(400),
        election_jitter: Duration::from_millis(200),
        retransmit_interval: Duration::from_millis(40),
        fetch_timeout: Duration::from_millis(60),
        ..Config::default()
    }
}

pub(crate) fn id(place: usize) -> ReplicaId {
    ReplicaId::new(place as u16 + 1)
}

pub(crate) fn storage(place: usize, replicas: usize) -> MemoryStorage {
    MemoryStorage::formatted(Format {
        cluster: ClusterId::new(7),
        group: GroupId::new(0),
        replica: id(place),
        membership: Membership::voters_only((0..replicas).map(id)).unwrap(),
    })
}

impl Cluster {
    pub(crate) async fn start(replicas: usize) -> Self {
        Self::with(replicas, NodeOptions::default()).await
    }

    pub(crate) async fn with(replicas: usize, options: NodeOptions) -> Self {
        Self::tuned(replicas, config(), options).await
    }

    pub(crate) async fn tuned(replicas: usize, config: Config, options: NodeOptions) -> Self {
        let mut cluster = Self {
            network: MemoryNetwork::new(),
            storages: (0..replicas).map(|place| storage(place, replicas)).collect(),
            nodes: (0..replicas).map(|_| None).collect(),
            config,
            options,
        };
        for place in 0..replicas {
            cluster.start_node(place, Marks::default()).await;
        }
        cluster
    }

    pub(crate) async fn start_node(&mut self, place: usize, machine: Marks) {
        self.nodes[place] = Some(self.try_node(place, machine).await.unwrap());
    }

    pub(crate) async fn try_node(
        &self,
        place: usize,
        machine: Marks,
    ) -> Result<Node<Marks>, StartError> {
        Node::builder()
            .storage(self.storages[place].clone())
            .transport(self.network.transport(id(place)))
            .config(self.config.clone())
            .options(self.options.clone())
            .start(machine)
            .await
    }

    /// Starts the first node with a machine that goes on from what was kept.
    pub(crate) async fn start_keeping(&mut self, kept: &Arc<Kept>) {
        let machine = Marks {
            counts: kept.counts.lock().unwrap().clone(),
            kept: Arc::clone(kept),
            included: kept.applied.load(Ordering::SeqCst),
        };
        self.start_node(0, machine).await;
    }

    pub(crate) fn node(&self, place: usize) -> &Node<Marks> {
        self.nodes[place].as_ref().unwrap()
    }

    /// Waits for one of these places to lead, and the others of them to follow it.
    pub(crate) async fn leader_among(&self, places: &[usize]) -> usize {
        let mut leader = None;
        until("a leader", || {
            let ballots: Vec<_> =
                places.iter().map(|place| self.node(*place).watch().borrow().leader).collect();
            leader =
                places.iter().copied().find(|place| self.node(*place).watch().borrow().is_leader);
            leader.is_some() && ballots.iter().all(|ballot| *ballot == ballots[0])
        })
        .await;
        leader.unwrap()
    }

    pub(crate) async fn leader(&self) -> usize {
        let places: Vec<_> = (0..self.nodes.len()).collect();
        self.leader_among(&places).await
    }
}

/// Waits for something to become true.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < PATIENCE, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// The future's result, which comes in time.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let result = tokio::time::timeout(PATIENCE, future).await;
    result.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// Marks a name, again while leaders change: a rejected command is certainly not applied.
pub(crate) async fn mark(client: &Client<Marks>, name: u64) -> Result<u64, ClientError> {
    soon("a reply", async {
        loop {
            let outcome = client.execute(Op::Mark(name)).await;
            let gone = ClientError::Rejected(Rejection::Superseded);
            let none = ClientError::Rejected(Rejection::NoLeader);
            if outcome != Err(gone) && outcome != Err(none) {
                return outcome;
            }
        }
    })
    .await
}

/// How often a name was marked, asked again while leaders change: a query changes nothing.
pub(crate) async fn marked(client: &Client<Marks>, name: u64) -> u64 {
    soon("an answer", async {
        loop {
            if let Ok(count) = client.query(name).await {
                return count;
            }
        }
    })
    .await
}
