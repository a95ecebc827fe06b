//! The applier alone, given what is chosen.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, StreamExt};
use paxos_core::config::Config;
use paxos_core::ids::{
    ClusterId, GroupId, Incarnation, LogClock, ReplicaId, RequestNumber, SessionId, SessionTtl,
};
use paxos_core::membership::Membership;
use paxos_core::port::{Format, Recovered, TransportCounters};
use paxos_core::replica::Replica;
use paxos_core::value::{Command, CommandKind};

use super::*;
use crate::clock::SystemClock;
use crate::codec::Postcard;
use crate::lanes::Load;
use crate::machine::{SnapshotStream, StateDigest};
use crate::metrics::Meters;
use crate::options::NodeOptions;
use crate::shared::Published;
use crate::snapshot::tests::meta;

type Log = Arc<Mutex<Vec<(Slot, u64)>>>;

/// Writes down what it is given, and replies with how much that is.
struct Scribe {
    applied: Slot,
    log: Log,
}

#[async_trait]
impl StateMachine for Scribe {
    type Command = u64;
    type Reply = u64;
    type Query = ();
    type Answer = ();

    async fn apply(&mut self, batch: Batch<u64>) -> Vec<u64> {
        let mut log = self.log.lock().unwrap();
        let mut write = |command| {
            log.push((batch.slot, command));
            log.len() as u64
        };
        batch.commands.into_iter().map(&mut write).collect()
    }

    async fn query(&self, (): ()) {}

    fn applied(&self) -> Slot {
        self.applied
    }

    async fn snapshot(&self) -> Result<SnapshotStream, SnapshotError> {
        let log = self.log.lock().unwrap().clone();
        let bytes =
            postcard::to_stdvec(&log.iter().map(|(_, command)| *command).collect::<Vec<_>>());
        Ok(stream::iter([Ok(Bytes::from(bytes.unwrap()))]).boxed())
    }

    fn digest(&self) -> Option<StateDigest> {
        let sum = self.log.lock().unwrap().iter().map(|(_, command)| u128::from(*command)).sum();
        Some(StateDigest(sum))
    }

    async fn restore(&mut self, slot: Slot, from: SnapshotStream) -> Result<(), SnapshotError> {
        let pieces: Vec<_> = from.map(Result::unwrap).collect().await;
        let commands: Vec<u64> = postcard::from_bytes(&pieces.concat()).unwrap();
        *self.log.lock().unwrap() = commands.into_iter().map(|command| (slot, command)).collect();
        Ok(())
    }
}

const OWN: ClientId = ClientId::new(9);
const SESSION: SessionId = SessionId::new(5);

/// An applier over a machine, and what it applies.
struct Bed {
    applier: Applier<Scribe>,
    items: mpsc::UnboundedSender<Item<ReplyTo<Scribe>>>,
    told: mpsc::UnboundedReceiver<Done>,
    log: Log,
    slot: Slot,
}

impl Bed {
    fn new(included: u64, log: &Log) -> Self {
        Self::every(NodeOptions::default().digest_slots, included, log)
    }

    /// One that gives digests after every so many slots.
    fn every(digest_slots: u64, included: u64, log: &Log) -> Self {
        let id = ReplicaId::new(1);
        let format = Format {
            cluster: ClusterId::new(7),
            group: GroupId::default(),
            replica: id,
            membership: Membership::voters_only([id]).unwrap(),
        };
        let recovered = Recovered::formatted(format, Incarnation::first(0));
        let config = Config::default();
        let replica =
            Replica::recover(config.clone(), recovered, Slot::ZERO, 1, Time::ZERO).unwrap();
        let published = Published::first(&replica, TransportCounters::default());
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
        let meters = Arc::new(Meters::new());
        let options = NodeOptions { digest_slots, ..NodeOptions::default() };
        let shared = Shared::new(&options, &config, clock, meters, published, Level::known(0));
        let (items, taken) = mpsc::unbounded_channel();
        let (done, told) = mpsc::unbounded_channel();
        let machine = Scribe { applied: Slot::new(included), log: Arc::clone(log) };
        let table = SessionTable::new(Bounds::default());
        let (kept, codec) = (Kept { table, level: Level::default() }, Arc::new(Postcard));
        let applier = Applier::new(machine, kept, codec, OWN, taken, done, shared);
        Self { applier, items, told, log: Arc::clone(log), slot: Slot::ZERO }
    }

    /// The next slot, with these commands.
    async fn apply(&mut self, commands: Vec<Command>) {
        self.slot = self.slot.next();
        let batch = paxos_core::value::Batch::new(LogClock::from_millis(10), commands);
        self.applier.side.work.push_back(Work::Value(self.slot, Value::Batch(batch)));
        self.applier.apply_all().await.unwrap();
    }

    /// Gives the work to the applier, and has it done.
    async fn work(&mut self, work: impl IntoIterator<Item = Work>) {
        self.applier.side.work.extend(work);
        self.applier.apply_all().await.unwrap();
    }

    /// The snapshot of the present state, as another node gets it.
    async fn snapshot(&mut self) -> (SnapshotMeta, Image) {
        self.work([Work::Image { above: Slot::ZERO }]).await;
        let Ok(Done::Given(Given::Image(head, image))) = self.told.try_recv() else {
            panic!("no image");
        };
        let (slot, clock) = (head.slot, head.clock);
        let mut bytes = vec![head.encode()];
        bytes.extend(image.0.map(Result::unwrap).collect::<Vec<_>>().await);
        let bytes = bytes.concat();
        let meta = SnapshotMeta { slot, clock, ..meta(slot.number(), bytes.len() as u64) };
        (meta, Image(stream::iter([Ok(Bytes::from(bytes))]).boxed()))
    }

    fn written(&self) -> Vec<u64> {
        self.log.lock().unwrap().iter().map(|(_, command)| *command).collect()
    }

    /// Waits for the request with this number.
    fn wait(&mut self, number: u64) -> oneshot::Receiver<Result<Applied<u64>, ClientError>> {
        let (answer, told) = oneshot::channel();
        let deadline = Time::from_nanos(u64::MAX);
        let waiting =
            vec![Waiting { waiter: ReplyTo::Command(answer), deadline, load: Load::default() }];
        self.applier.side.waiters.register(number, waiting);
        told
    }
}

fn open() -> Command {
    let kind = CommandKind::OpenSession { session: SESSION, ttl: SessionTtl::from_millis(1000) };
    Command { kind, ..Command::apply(ClientId::new(1), RequestNumber::new(1), Bytes::new()) }
}

/// A request of the session, sent by this node's clients under `number`.
fn request(number: u64, request: u64, below: u64, command: u64) -> Command {
    Command {
        kind: CommandKind::InSession { session: SESSION, request: RequestNumber::new(request) },
        client: OWN,
        request: RequestNumber::new(number),
        acknowledged_below: RequestNumber::new(below),
        payload: postcard::to_stdvec(&command).unwrap().into(),
    }
}

/// S5: a machine with a memory of its own is given no slot again, and the table is given all of them:
/// so it decides as one that was never restarted.
#[tokio::test]
async fn a_machine_that_remembers_decides_as_its_peers_after_a_restart() {
    let (peer_log, own_log) = (Log::default(), Log::default());
    let mut peer = Bed::new(0, &peer_log);
    let mut before = Bed::new(0, &own_log);
    let first = [vec![open()], vec![request(1, 1, 1, 100), request(2, 3, 1, 300)]];
    for commands in &first {
        peer.apply(commands.clone()).await;
        before.apply(commands.clone()).await;
    }
    drop(before);
    let mut own = Bed::new(2, &own_log);
    for commands in first {
        own.apply(commands).await;
    }
    assert_eq!(own.written(), [100, 300], "nothing is given to it again");
    let mut told = own.wait(7);
    let rest = [
        vec![request(3, 1, 1, 100), request(4, 2, 2, 200), request(5, 1, 2, 100)],
        vec![request(6, 2, 2, 200), request(7, 3, 2, 300), request(8, 4, 2, 400)],
    ];
    for commands in rest {
        peer.apply(commands.clone()).await;
        own.apply(commands).await;
    }
    assert_eq!(
        (own.written(), peer.written()),
        (vec![100, 300, 200, 400], vec![100, 300, 200, 400])
    );
    let verdicts = |bed: &Bed| bed.applier.once.table().clone().without_replies();
    assert_eq!(verdicts(&own), verdicts(&peer));
    let kept = |bed: &Bed, number| {
        let reply = bed.applier.once.table().reply(SESSION, RequestNumber::new(number));
        reply.map(|bytes| postcard::from_bytes::<u64>(bytes).unwrap())
    };
    assert_eq!((kept(&peer, 3), kept(&own, 3)), (Some(2), None), "that reply went with its life");
    assert_eq!((kept(&peer, 4), kept(&own, 4)), (Some(4), Some(4)));
    let slot = Slot::new(4);
    assert_eq!(told.try_recv().unwrap(), Err(ClientError::ReplyNotKept { slot }));
    drop(own.items);
}

/// S1 to S3: what whoever waits for a request is told.
#[tokio::test]
async fn each_request_is_answered_by_its_fate() {
    let mut bed = Bed::new(0, &Log::default());
    let mut astray = bed.wait(1);
    bed.apply(vec![request(1, 1, 1, 100)]).await;
    let unknown = Err(ClientError::Rejected(Rejection::SessionUnknown));
    assert_eq!(astray.try_recv().unwrap(), unknown);
    let (mut first, mut twin) = (bed.wait(2), bed.wait(3));
    bed.apply(vec![open(), request(2, 1, 1, 100), request(3, 1, 1, 100)]).await;
    let applied = Ok(Applied { slot: Slot::new(2), reply: 1 });
    assert_eq!((first.try_recv().unwrap(), twin.try_recv().unwrap()), (applied.clone(), applied));
    let (mut again, mut next) = (bed.wait(4), bed.wait(5));
    bed.apply(vec![request(4, 1, 1, 100), request(5, 2, 1, 200)]).await;
    let slot = Slot::new(3);
    assert_eq!(again.try_recv().unwrap(), Ok(Applied { slot, reply: 1 }), "the reply of the first");
    assert_eq!(next.try_recv().unwrap(), Ok(Applied { slot, reply: 2 }));
    let mut stale = bed.wait(6);
    bed.apply(vec![request(6, 2, 3, 200)]).await;
    let acknowledged = Err(ClientError::Rejected(Rejection::StaleRequest));
    assert_eq!(stale.try_recv().unwrap(), acknowledged);
    assert_eq!(bed.written(), [100, 200]);
}

/// A value of one command, which a client of another node sent.
fn value(slot: u64, command: u64) -> Work {
    let payload = postcard::to_stdvec(&command).unwrap();
    let command = Command::apply(ClientId::new(1), RequestNumber::new(command), payload.into());
    let batch = paxos_core::value::Batch::new(LogClock::from_millis(10), vec![command]);
    Work::Value(Slot::new(slot), Value::Batch(batch))
}

/// r35: a snapshot is restored in its turn among the values; those that were on their way and are in it
/// are not applied again, and those after it are.
#[tokio::test]
async fn r35_a_snapshot_takes_its_turn_and_what_it_includes_is_not_applied_again() {
    let (peer_log, own_log) = (Log::default(), Log::default());
    let mut peer = Bed::new(0, &peer_log);
    peer.work((1..=5).map(|slot| value(slot, slot * 100))).await;
    let (meta, image) = peer.snapshot().await;
    assert_eq!(meta.slot, Slot::new(5));
    let mut own = Bed::new(0, &own_log);
    let mut told = own.wait(7);
    own.applier
        .side
        .waiters
        .given(Numbers { first: 7, count: 1 }, Some(Ballot::new(1, ReplicaId::new(1))));
    let before = (1..=2).map(|slot| value(slot, slot * 100));
    let restore = [Work::Restore(meta.clone(), image)];
    let late = (3..=7).map(|slot| value(slot, slot * 100));
    own.work(before.chain(restore).chain(late)).await;
    assert_eq!(own.written(), [100, 200, 300, 400, 500, 600, 700]);
    assert_eq!(own.applier.applied, Slot::new(7));
    assert_eq!(told.try_recv().unwrap(), Err(ClientError::Unknown(Uncertainty::Skipped)));
    assert!(matches!(own.told.try_recv(), Ok(Done::Restored(restored)) if restored == meta));
    // One that comes late changes nothing.
    let (meta, image) = peer.snapshot().await;
    own.work([Work::Restore(meta, image)]).await;
    assert_eq!((own.written().len(), own.applier.applied), (7, Slot::new(7)));
}

/// The state of a machine that is ahead of the table of sessions is no state of the log's.
#[tokio::test]
async fn p35_no_image_is_given_of_a_machine_that_is_ahead() {
    let log = Log::default();
    let mut bed = Bed::new(3, &log);
    bed.work([value(1, 100), value(2, 200), Work::Image { above: Slot::ZERO }]).await;
    assert!(matches!(bed.told.try_recv(), Ok(Done::Given(Given::Nothing(_)))));
    bed.work([value(3, 300), Work::Image { above: Slot::new(3) }]).await;
    assert!(matches!(bed.told.try_recv(), Ok(Done::Given(Given::Unchanged))));
    bed.work([Work::Image { above: Slot::ZERO }]).await;
    assert!(matches!(bed.told.try_recv(), Ok(Done::Given(Given::Image(..)))));
}

/// **H1** What a node says of its state after a slot is a digest of a state that includes that slot and none
/// above; it is said of slots whose number is a multiple of one number, the same on all nodes.
#[tokio::test]
async fn h1_a_digest_is_that_of_the_slot_that_it_names() {
    let (log, other) = (Log::default(), Log::default());
    let [mut fresh, mut ahead] = [Bed::every(3, 0, &log), Bed::every(3, 5, &other)];
    other.lock().unwrap().extend((1..=5).map(|slot| (Slot::new(slot), slot * 100)));
    let values = || (1..=9).map(|slot| value(slot, slot * 100));
    fresh.work(values()).await;
    // Slots without commands count as well.
    fresh.work([Work::Value(Slot::new(10), Value::Noop)]).await;
    fresh.work((11..=12).map(|slot| Work::Value(Slot::new(slot), Value::Noop))).await;
    ahead.work(values()).await;
    let marks = |bed: &mut Bed| {
        let mut marks = Vec::new();
        while let Ok(done) = bed.told.try_recv() {
            let Done::Marked(Mark { slot, digest }) = done else { panic!("another word") };
            marks.push((slot.number(), digest.0));
        }
        marks
    };
    let sum = |slots: u128| slots * (slots + 1) / 2 * 100;
    let expected = [(3, sum(3)), (6, sum(6)), (9, sum(9)), (12, sum(9))];
    assert_eq!(marks(&mut fresh), expected);
    assert_eq!(marks(&mut ahead), expected[1..3], "slot 3 lies below what it includes");
}

/// **U4** The level never falls: each number of it is the highest that was named in a slot.
#[tokio::test]
async fn u4_the_level_never_falls() {
    let log = Log::default();
    let mut bed = Bed::new(0, &log);
    bed.applier.once = Once::new(
        Kept { table: SessionTable::new(Bounds::default()), level: Level::default() },
        Level { library: 9, machine: 9 },
        Arc::clone(&bed.applier.side.shared.meters),
    );
    let named = [(2, 1), (1, 3), (0, 0), (2, 2)];
    for (slot, (library, machine)) in (1..).zip(named) {
        let kind = CommandKind::Raise { level: Level { library, machine } };
        let raise = Command { kind, ..Command::apply(OWN, RequestNumber::new(slot), Bytes::new()) };
        bed.apply(vec![raise]).await;
    }
    let reached = Level { library: 2, machine: 3 };
    assert_eq!(bed.applier.side.shared.level(), reached);
    assert!(bed.written().is_empty(), "none of them is the state machine's");
    // A snapshot of this state says so, and one of an earlier state changes nothing.
    let (meta, image) = bed.snapshot().await;
    let (head, _) = image::open(image.0, &meta).await.unwrap();
    assert_eq!(head.level, reached);
}
