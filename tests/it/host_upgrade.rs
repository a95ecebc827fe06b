//! A rolling upgrade: two releases in one cluster, a command that only the newer one knows, and the way back
//! that there is not (docs/protocol.md, Releases).
//!
//! p42: an upgrade met an older format and crashed in a loop (`TigerBeetle` 0.16.26, hashicorp 1.6.0).
//! Source: other-peers-and-literature.md §5, S42.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::stream::{self, StreamExt};
use paxos::core::port::{Channel, Frame, Sent, Transport, TransportCounters, TransportEvent};
use paxos::storage::MemoryStorage;
use paxos::{
    Batch, Bytes, Client, ClientError, CodecError, CommandCodec, Incarnation, Level, MemoryNetwork,
    MemoryTransport, Node, NodeOptions, Postcard, RaiseError, Rejection, ReplicaId, Slot,
    SnapshotError, SnapshotStream, StartError, StateDigest, StateMachine, StopReason, async_trait,
};
use serde::{Deserialize, Serialize};

use crate::support::{config, id, soon, storage, until};

/// Frames between hosts of kinds from this one on are unknown to the older release.
const FIRST_NEW_KIND: u8 = 7;
/// The kind of those in which a release says what it knows.
const ANNOUNCE: u8 = 8;

/// The end of a node of an older release: it neither sends nor understands what came later.
struct Older {
    end: MemoryTransport,
    /// The kinds of later frames that it was sent.
    met: Arc<Mutex<BTreeSet<u8>>>,
}

fn kind(channel: Channel, bytes: &Bytes) -> Option<u8> {
    let kind = (channel == Channel::Host).then(|| bytes.get(1).copied())??;
    (kind >= FIRST_NEW_KIND).then_some(kind)
}

impl Transport for Older {
    fn replica(&self) -> ReplicaId {
        self.end.replica()
    }

    fn start(&mut self, incarnation: Incarnation) {
        self.end.start(incarnation);
    }

    fn send(&mut self, to: ReplicaId, frame: Frame) -> Sent {
        let new = frame.chunks.first().and_then(|first| kind(frame.channel, first));
        if new.is_some() { Sent::Queued } else { self.end.send(to, frame) }
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<TransportEvent>> {
        loop {
            let event = std::task::ready!(self.end.poll_event(cx));
            if let Some(TransportEvent::Frame { channel, bytes, .. }) = &event
                && let Some(kind) = kind(*channel, bytes)
            {
                self.met.lock().unwrap().insert(kind);
                continue;
            }
            return Poll::Ready(event);
        }
    }

    fn counters(&self) -> TransportCounters {
        self.end.counters()
    }

    fn frame_bytes_max(&self) -> usize {
        self.end.frame_bytes_max()
    }
}

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
enum Command {
    Push(u64),
    /// Since level 1.
    Double,
}

/// How the older release reads commands: it knows one.
struct OlderCodec;

impl CommandCodec<Command> for OlderCodec {
    fn encode(&self, command: &Command) -> Result<Bytes, CodecError> {
        CommandCodec::<Command>::encode(&Postcard, command)
    }

    fn decode(&self, bytes: Bytes) -> Result<Command, CodecError> {
        match CommandCodec::<Command>::decode(&Postcard, bytes)? {
            Command::Double => Err(CodecError("no such variant".to_owned())),
            command @ Command::Push(_) => Ok(command),
        }
    }
}

/// What a machine was told and holds, for the test to see.
#[derive(Debug, Default)]
struct Seen {
    raised: Vec<u32>,
    numbers: Vec<u64>,
}

/// A list of numbers, of a release that knows commands up to a level.
struct Numbers {
    knows: u32,
    held: Vec<u64>,
    seen: Arc<Mutex<Seen>>,
}

#[async_trait]
impl StateMachine for Numbers {
    type Command = Command;
    type Reply = u64;
    type Query = ();
    type Answer = Vec<u64>;

    async fn apply(&mut self, batch: Batch<Command>) -> Vec<u64> {
        let mut replies = Vec::new();
        for command in batch.commands {
            match command {
                Command::Push(number) => self.held.push(number),
                Command::Double => self.held.iter_mut().for_each(|number| *number *= 2),
            }
            replies.push(self.held.len() as u64);
        }
        self.seen.lock().unwrap().numbers.clone_from(&self.held);
        replies
    }

    async fn query(&self, (): ()) -> Vec<u64> {
        self.held.clone()
    }

    fn level(&self) -> u32 {
        self.knows
    }

    fn level_of(command: &Command) -> u32 {
        match command {
            Command::Push(_) => 0,
            Command::Double => 1,
        }
    }

    fn raised(&mut self, level: u32) {
        self.seen.lock().unwrap().raised.push(level);
    }

    fn digest(&self) -> Option<StateDigest> {
        let weigh = |(place, number): (usize, &u64)| (place as u128 + 1) * u128::from(*number);
        Some(StateDigest(self.held.iter().enumerate().map(weigh).sum()))
    }

    async fn snapshot(&self) -> Result<SnapshotStream, SnapshotError> {
        let pieces: VecDeque<_> =
            self.held.iter().map(|number| Ok(Bytes::from(number.to_le_bytes().to_vec()))).collect();
        Ok(stream::iter(pieces).boxed())
    }

    async fn restore(&mut self, _: Slot, mut from: SnapshotStream) -> Result<(), SnapshotError> {
        let mut bytes = Vec::new();
        while let Some(piece) = from.next().await {
            bytes.extend_from_slice(&piece.map_err(SnapshotError::Io)?);
        }
        let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
        self.held = bytes.chunks_exact(8).map(number).collect();
        self.seen.lock().unwrap().numbers.clone_from(&self.held);
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Release {
    /// Says nothing of itself, and knows one command.
    Old,
    /// Says what it knows, which is one command.
    Middle,
    /// Knows both commands.
    New,
}

struct Cluster {
    network: MemoryNetwork,
    storages: Vec<MemoryStorage>,
    nodes: Vec<Option<Node<Numbers>>>,
    seen: Vec<Arc<Mutex<Seen>>>,
    met: Arc<Mutex<BTreeSet<u8>>>,
}

impl Cluster {
    async fn start(releases: [Release; 3]) -> Self {
        let mut cluster = Self {
            network: MemoryNetwork::new(),
            storages: (0..3).map(|place| storage(place, 3)).collect(),
            nodes: (0..3).map(|_| None).collect(),
            seen: (0..3).map(|_| Arc::default()).collect(),
            met: Arc::default(),
        };
        for (place, release) in releases.into_iter().enumerate() {
            cluster.start_node(place, release).await.unwrap();
        }
        cluster
    }

    async fn start_node(&mut self, place: usize, release: Release) -> Result<(), StartError> {
        let seen = Arc::default();
        self.seen[place] = Arc::clone(&seen);
        let knows = u32::from(release == Release::New);
        let machine = Numbers { knows, held: Vec::new(), seen };
        let end = self.network.transport(id(place));
        let builder = Node::builder().storage(self.storages[place].clone()).config(config());
        let builder = builder.options(NodeOptions { digest_slots: 1, ..NodeOptions::default() });
        let builder = match release {
            Release::Old => builder.transport(Older { end, met: Arc::clone(&self.met) }),
            Release::Middle | Release::New => builder.transport(end),
        };
        let builder = match release {
            Release::Old | Release::Middle => builder.codec(OlderCodec),
            Release::New => builder,
        };
        self.nodes[place] = Some(builder.start(machine).await?);
        Ok(())
    }

    async fn stop_node(&mut self, place: usize) {
        let node = self.nodes[place].take().unwrap();
        soon("the end", node.shutdown()).await;
    }

    fn node(&self, place: usize) -> &Node<Numbers> {
        self.nodes[place].as_ref().unwrap()
    }

    /// Waits until these hold the same numbers.
    async fn all_hold(&self, places: &[usize], numbers: &[u64]) {
        let holds = |place: &usize| self.seen[*place].lock().unwrap().numbers == numbers;
        until("equal states", || places.iter().all(holds)).await;
    }
}

/// Sends a command again while leaders change: a rejected one is certainly not applied.
async fn send(client: &Client<Numbers>, command: Command) -> Result<u64, ClientError> {
    soon("a reply", async {
        loop {
            match client.execute(command.clone()).await {
                Err(ClientError::Rejected(Rejection::Superseded | Rejection::NoLeader)) => {}
                outcome => return outcome,
            }
        }
    })
    .await
}

/// Raises the log again until every member was heard.
async fn raise(node: &Node<Numbers>) -> Result<Level, RaiseError> {
    soon("a level", async {
        loop {
            match node.raise(1).await {
                // What it said in an earlier life, or not yet in this one.
                Err(RaiseError::Members(_)) => tokio::time::sleep(Duration::from_millis(2)).await,
                Err(RaiseError::Client(ClientError::Rejected(_))) => {}
                outcome => return outcome,
            }
        }
    })
    .await
}

fn told(member: usize, known: Option<Level>) -> RaiseError {
    RaiseError::Members(vec![(id(member), known)])
}

/// p42: members of an older release go on beside newer ones; what they do not know is neither sent to them nor
/// put into the log, until the last of them is upgraded.
///
/// **U3** A command of some level is taken from a client only by a node that has applied a slot which raised
/// the log to that level.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p42_releases_mix_until_the_last_member_knows_the_level() {
    let mut cluster = Cluster::start([Release::New, Release::New, Release::Old]).await;
    let client = cluster.node(0).client();
    assert_eq!(send(&client, Command::Push(1)).await, Ok(1));
    assert_eq!(send(&cluster.node(2).client(), Command::Push(2)).await, Ok(2));
    cluster.all_hold(&[0, 1, 2], &[1, 2]).await;
    // The newer ones heard each other, and nothing of the older one.
    until("an equal state", || {
        cluster.node(0).metrics().digests_compared + cluster.node(1).metrics().digests_compared > 0
    })
    .await;
    let silent = told(2, None);
    until_raise_says(cluster.node(0), &silent).await;
    let refused = Err(ClientError::Rejected(Rejection::Level { needed: 1, raised: 0 }));
    assert_eq!(client.execute(Command::Double).await, refused);
    assert_eq!(*cluster.met.lock().unwrap(), BTreeSet::from([ANNOUNCE]), "only the question");

    // It says what it knows, and that is not enough.
    cluster.stop_node(2).await;
    cluster.start_node(2, Release::Middle).await.unwrap();
    until_raise_says(cluster.node(0), &told(2, Some(Level { library: 0, machine: 0 }))).await;
    assert_eq!(
        cluster.node(2).raise(1).await,
        Err(RaiseError::NotKnown { known: 0 }),
        "it does not know it itself"
    );
    // One that is down holds the level back as well.
    cluster.stop_node(2).await;
    assert!(matches!(cluster.node(0).raise(1).await, Err(RaiseError::Members(_))));

    cluster.start_node(2, Release::New).await.unwrap();
    assert_eq!(raise(cluster.node(0)).await, Ok(Level { library: 0, machine: 1 }));
    assert_eq!(send(&client, Command::Double).await, Ok(2));
    cluster.all_hold(&[0, 1, 2], &[2, 4]).await;
    for place in 0..3 {
        assert_eq!(cluster.node(place).client().level(), Level { library: 0, machine: 1 });
        assert_eq!(cluster.seen[place].lock().unwrap().raised, [1]);
    }
}

/// Asks until the answer is this one: what a peer says takes its time.
async fn until_raise_says(node: &Node<Numbers>, expected: &RaiseError) {
    soon("this answer", async {
        while node.raise(1).await.as_ref() != Err(expected) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// **U2** A replica that does not know the level to which a slot raises the log applies neither that slot nor
/// a later one, and none starts from a snapshot of a level that it does not know: it stops, and passes over
/// nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn u2_there_is_no_way_back_and_nothing_is_passed_over() {
    let mut cluster = Cluster::start([Release::New; 3]).await;
    let client = cluster.node(0).client();
    assert_eq!(send(&client, Command::Push(3)).await, Ok(1));
    assert_eq!(raise(cluster.node(0)).await, Ok(Level { library: 0, machine: 1 }));
    assert_eq!(send(&client, Command::Double).await, Ok(1));
    cluster.all_hold(&[0, 1, 2], &[6]).await;

    cluster.stop_node(2).await;
    cluster.start_node(2, Release::Middle).await.unwrap();
    let reason = soon("the end", cluster.node(2).stopped()).await;
    let StopReason::Level { needed, known, .. } = reason else {
        panic!("stopped for another reason: {reason}");
    };
    assert_eq!((needed.machine, known.machine), (1, 0));
    assert!(reason.to_string().contains("no way back"), "{reason}");
    assert_eq!(cluster.seen[2].lock().unwrap().numbers, [3], "the slots before it");
    cluster.nodes[2] = None;

    cluster.start_node(2, Release::New).await.unwrap();
    cluster.all_hold(&[2], &[6]).await;
    assert_eq!(cluster.seen[2].lock().unwrap().raised, [1]);
    soon("a snapshot", cluster.node(2).snapshot()).await.unwrap();
    cluster.stop_node(2).await;
    let refused = cluster.start_node(2, Release::Middle).await;
    let Err(StartError::Restore { why: SnapshotError::Level { needed, known }, .. }) = refused
    else {
        panic!("it started, or not for that reason: {refused:?}");
    };
    assert_eq!((needed.machine, known.machine), (1, 0));

    cluster.start_node(2, Release::New).await.unwrap();
    cluster.all_hold(&[2], &[6]).await;
    assert_eq!(cluster.seen[2].lock().unwrap().raised, [1], "a snapshot tells the level too");
    assert_eq!(send(&cluster.node(2).client(), Command::Double).await, Ok(1));
}
