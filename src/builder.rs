//! Putting a node together and starting it.
//!
//! Owns: [`Builder`]; the order of the start: storage, replica, transport, tasks; [`assemble`], which
//! knows neither the system's clock nor its tasks.
//! Invariant: nothing is said to a peer before this life is durable.

use core::fmt;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use paxos_core::config::Config;
use paxos_core::ids::{ClientId, Incarnation, ReplicaId, Slot, Time};
use paxos_core::output::RecoverError;
use paxos_core::port::{Format, Recovered, Room, SnapshotStore, Storage, Transport};
use paxos_core::quorum::QuorumRule;
use paxos_core::replica::Replica;
use paxos_core::session::{Bounds, SessionTable};
use paxos_core::snapshot::SnapshotMeta;
use paxos_core::trace::Event;
use paxos_core::value::Level;
use tokio::sync::mpsc;

use crate::applied::Pages;
use crate::apply::{Applier, ReplyTo, recall};
use crate::change::Changes;
use crate::clock::{Clock, SystemClock};
use crate::codec::{CommandCodec, Postcard};
use crate::divergence::Comparison;
use crate::driver::{Driver, Intake, Stage, Timer};
use crate::error::StartError;
use crate::forward::{Forwarder, Gate};
use crate::handover::Handover;
use crate::journal::{Disk, Done, Found, Journal};
use crate::machine::{SnapshotError, StateMachine};
use crate::metrics::Meters;
use crate::node::{Node, Place as Home, supervise};
use crate::once::Kept;
use crate::options::NodeOptions;
use crate::pulse::Pulses;
use crate::quorum_reads::QuorumReads;
use crate::reads::Reads;
use crate::releases::Releases;
use crate::session::OwnSession;
use crate::shared::{Published, Shared};
use crate::snapshot::frame::Name;
use crate::snapshot::image::{self, Place};
use crate::snapshot::shelf::{self, Image};
use crate::snapshot::{self, Snapshots};
use crate::submit::Queue;
use crate::succession::Succession;

/// The parts of a node to be.
#[must_use = "nothing runs before `start`"]
pub struct Builder<M: StateMachine> {
    storage: Option<Box<dyn Storage>>,
    transport: Option<Box<dyn Transport>>,
    config: Config,
    options: NodeOptions,
    codec: Arc<dyn CommandCodec<M::Command>>,
}

impl<M: StateMachine> fmt::Debug for Builder<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("config", &self.config)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl<M: StateMachine> Builder<M> {
    pub(crate) fn new() -> Self {
        Self {
            storage: None,
            transport: None,
            config: Config::default(),
            options: NodeOptions::default(),
            codec: Arc::new(Postcard),
        }
    }

    /// Where votes and values are kept. Required.
    pub fn storage(mut self, storage: impl Storage + 'static) -> Self {
        self.storage = Some(Box::new(storage));
        self
    }

    /// How peers are reached. Required.
    pub fn transport(mut self, transport: impl Transport + 'static) -> Self {
        self.transport = Some(Box::new(transport));
        self
    }

    /// The protocol's tunables; the default suits a local network.
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// The node's bounds and timeouts.
    pub fn options(mut self, options: NodeOptions) -> Self {
        self.options = options;
        self
    }

    /// How commands become bytes; the default is [`Postcard`].
    pub fn codec(mut self, codec: impl CommandCodec<M::Command>) -> Self {
        self.codec = Arc::new(codec);
        self
    }

    /// Starts the node, within a tokio runtime with time enabled. Returns once its storage is
    /// recovered; it then finds its peers, and a leader, by itself.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future abandons the start. The life that it may have begun is skipped by the
    /// next start, which is harmless.
    pub async fn start(self, mut machine: M) -> Result<Node<M>, StartError> {
        self.check()?;
        let storage = self.storage.ok_or(StartError::Missing("storage"))?;
        let transport = self.transport.ok_or(StartError::Missing("transport"))?;
        let meters = Arc::new(Meters::new());
        let (done_sender, done) = mpsc::unbounded_channel();
        let clock = Arc::new(SystemClock::start());
        let nonce = clock.seed() as u32;
        let Found { journal, groups, snapshots, weights, end } =
            Journal::start(storage, nonce, Arc::clone(&meters), done_sender.clone()).await?;
        let mut recovered = one_group(groups)?;
        if transport.replica() != recovered.format.replica {
            let (storage, transport) = (recovered.format.replica, transport.replica());
            return Err(StartError::Replicas { storage, transport });
        }
        let (carried, needed) = (transport.frame_bytes_max(), self.config.message_bytes_max());
        if needed > carried {
            return Err(StartError::Frames { carried, needed });
        }
        let mut ends: Vec<_> = end.into_iter().map(|end| ("journal", end)).collect();
        let bounds = Bounds::default();
        let Revived { kept, mut shelf, store } =
            revive(snapshots, &mut recovered, &mut machine, bounds, Place::Aside).await?;
        let reached = recovered.snapshot.as_ref().map_or(Slot::ZERO, |meta| meta.slot);
        // What follows is handed out again, and counted then.
        shelf.weights = weights.into_iter().filter(|(slot, _)| *slot <= reached).collect();
        if let Some(store) = store {
            let group = recovered.format.group;
            let (errands, end) = shelf::start(store, group, done_sender.clone())?;
            shelf.errands = Some(errands);
            ends.push(("snapshots", end));
        } else {
            tracing::info!(
                replica = %recovered.format.replica,
                "no snapshots: the state machine makes none, or the storage keeps none; \
                 the log is never trimmed"
            );
        }
        let ground =
            Ground { clock, transport, journal, shelf, kept, meters, done_sender, done, recovered };
        let Parts { node, driver, applier, shared } =
            assemble(ground, machine, self.codec, self.config, self.options)?;
        let applier = tokio::spawn(applier.run());
        tokio::spawn(supervise::<M>(driver, applier, ends, shared));
        Ok(node)
    }
}

/// What a node stands on: what differs between the system and a simulator.
pub(crate) struct Ground {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) transport: Box<dyn Transport>,
    pub(crate) journal: Journal,
    pub(crate) shelf: snapshot::Start,
    /// Of the newest snapshot, or empty.
    pub(crate) kept: Kept,
    pub(crate) meters: Arc<Meters>,
    /// What the journal says it did.
    pub(crate) done_sender: mpsc::UnboundedSender<Done>,
    pub(crate) done: mpsc::UnboundedReceiver<Done>,
    pub(crate) recovered: Recovered,
}

/// What a node goes on from.
pub(crate) struct Revived {
    pub(crate) kept: Kept,
    pub(crate) shelf: snapshot::Start,
    /// Where snapshots are kept, if state machine and storage know them.
    pub(crate) store: Option<Box<dyn SnapshotStore>>,
}

/// Restores the state machine from the newest snapshot, unless it includes as much already; or from an older
/// one, which then takes its place in `recovered`. Rule N8.
pub(crate) async fn revive<M: StateMachine>(
    store: Option<Box<dyn SnapshotStore>>,
    recovered: &mut Recovered,
    machine: &mut M,
    bounds: Bounds,
    place: Place,
) -> Result<Revived, StartError> {
    let mut revived = Revived {
        kept: Kept { table: SessionTable::new(bounds), level: Level::default() },
        shelf: snapshot::Start { trimmed: recovered.trimmed, ..snapshot::Start::default() },
        store: None,
    };
    let Some(mut store) = store else { return Ok(revived) };
    let group = recovered.format.group;
    revived.shelf.known = store.list(group).map_err(StartError::Storage)?;
    revived.shelf.unfinished = store.unfinished(group).map_err(StartError::Storage)?;
    let (replica, trimmed) = (recovered.format.replica, recovered.trimmed);
    let included = machine.applied();
    let mut first = None;
    while let Some(meta) = recovered.snapshot.take() {
        let slot = meta.slot;
        match restore(store.as_mut(), &meta, machine, (included, bounds), place).await? {
            Ok(kept) => {
                tracing::info!(%replica, %slot, "goes on from a snapshot");
                revived.kept = kept;
                recovered.snapshot = Some(meta);
                break;
            }
            // An older image would end at the slot that raised the log, and this one is as it should be.
            Err(why @ SnapshotError::Level { .. }) => {
                return Err(StartError::Restore { slot, trimmed, why });
            }
            Err(why) => {
                tracing::error!(%replica, %slot, %why, "a snapshot cannot be restored");
                revived.shelf.unfit.push(Name::of(&meta));
                let known = &mut revived.shelf.known;
                known.retain(|known| known.slot < slot);
                let (newest, why) = first.take().unwrap_or((slot, why));
                // Whatever the attempt left of the state, an older image replaces it.
                let Some(older) = known.last().filter(|older| older.slot >= trimmed) else {
                    return Err(StartError::Restore { slot: newest, trimmed, why });
                };
                recovered.snapshot = Some(older.clone());
                first = Some((newest, why));
            }
        }
    }
    let image = machine.snapshot().await;
    let supported = !matches!(image, Err(SnapshotError::NotSupported));
    revived.store = supported.then_some(store);
    Ok(revived)
}

/// Has the state machine go on from one snapshot: what is kept beside its state, or why that cannot be.
async fn restore<M: StateMachine>(
    store: &mut dyn SnapshotStore,
    meta: &SnapshotMeta,
    machine: &mut M,
    (included, bounds): (Slot, Bounds),
    place: Place,
) -> Result<Result<Kept, SnapshotError>, StartError> {
    let Some(reader) = store.open(meta).map_err(StartError::Storage)? else {
        let gone = std::io::Error::new(std::io::ErrorKind::NotFound, "its image is gone");
        return Ok(Err(SnapshotError::Io(gone)));
    };
    let image = Image(image::stream(reader, meta, place));
    Ok(recall(machine, included, meta, image, bounds).await)
}

/// The parts of a node, put together; the driver and the applier are to be polled by somebody.
pub(crate) struct Parts<M: StateMachine> {
    pub(crate) node: Node<M>,
    pub(crate) driver: Driver<ReplyTo<M>>,
    pub(crate) applier: Applier<M>,
    pub(crate) shared: Arc<Shared>,
}

/// Puts a node together, and lets its transport start.
pub(crate) fn assemble<M: StateMachine>(
    ground: Ground,
    machine: M,
    codec: Arc<dyn CommandCodec<M::Command>>,
    config: Config,
    options: NodeOptions,
) -> Result<Parts<M>, StartError> {
    let Ground { clock, mut transport, journal, mut shelf, kept, meters, .. } = ground;
    let Ground { done_sender, done, recovered, .. } = ground;
    let (format, life, now) = (recovered.format.clone(), recovered.incarnation, clock.now());
    // The table of sessions is made of the newest snapshot and the log after it.
    let reached = recovered.snapshot.as_ref().map_or(Slot::ZERO, |meta| meta.slot);
    let replica = Replica::recover(config.clone(), recovered, reached, clock.seed(), now)
        .map_err(StartError::Recover)?;
    announce(&format, &options, (life, now), (machine.applied(), reached));
    let published = Published::first(&replica, transport.counters());
    let known = Level::known(machine.level());
    let shared = Shared::new(&options, &config, Arc::clone(&clock), meters, published, known);
    let (client, patience) = (client_id(format.replica, life), config.election_timeout);
    let (requests_sender, requests) = mpsc::unbounded_channel();
    let (apply, items) = mpsc::unbounded_channel();
    let (words, told) = (Arc::clone(&codec), Arc::clone(&shared));
    let applier = Applier::new(machine, kept, words, client, items, done_sender, told);
    shelf.frame_bytes_max = connect(transport.as_mut(), &replica, life);
    let snapshots = Snapshots::new(shelf, &options, patience, now);
    let session = OwnSession::new(client, options.session_ttl, patience);
    let driver = Driver {
        id: format.replica,
        group: format.group,
        life,
        client: client_id,
        queue: Queue::new(client, config.batch_bytes_max, session, Arc::clone(&shared.lanes)),
        reads: Reads::new(patience),
        quorum_reads: QuorumReads::new(),
        forwarder: Forwarder::new(options.forwards_max),
        succession: Succession::new(patience),
        config,
        options,
        // A generator of this kind never leaves zero.
        random: clock.seed() | 1,
        shared: Arc::clone(&shared),
        transport,
        journal,
        requests,
        done,
        apply,
        gate: Gate::default(),
        lives: BTreeMap::new(),
        pulses: Pulses::default(),
        leader: None,
        leads: false,
        handover: Handover::default(),
        changes: Changes::default(),
        pages: Pages::default(),
        snapshots,
        comparison: Comparison::default(),
        releases: Releases::default(),
        disk: Disk::default(),
        room: Room::Ample,
        stop: None,
        rounds: VecDeque::new(),
        intake: Intake::new(reached),
        timer: Timer::new(clock.alarm(), now),
        stage: Stage::Act,
        clock,
        replica,
    };
    let node = Node::new(Home::of(&format), &driver, codec, requests_sender);
    Ok(Parts { node, driver, applier, shared })
}

impl<M: StateMachine> Builder<M> {
    fn check(&self) -> Result<(), StartError> {
        let config = self.config.check();
        config.map_err(|error| StartError::Recover(RecoverError::Config(error)))?;
        self.options.check(&self.config)
    }
}

/// Lets the transport start; the largest frame that it carries.
fn connect(transport: &mut dyn Transport, replica: &Replica, life: Incarnation) -> usize {
    // The log knows of members that the configuration does not.
    transport.set_members(&replica.members());
    transport.start(life);
    transport.frame_bytes_max()
}

/// Says who starts, and what a cluster of this size does not gain.
fn announce(
    format: &Format,
    options: &NodeOptions,
    (life, now): (Incarnation, Time),
    (includes, reached): (Slot, Slot),
) {
    let started = Event::Started { incarnation: life, applied: reached };
    options.trace.iter().for_each(|sink| sink.event(now, format.replica, &started));
    tracing::info!(replica = %format.replica, %life, %includes, "starts");
    let (voters, rule) = (format.membership.voters().len(), format.membership.quorums().rule());
    if voters.is_multiple_of(2) && *rule == QuorumRule::Majority {
        tracing::info!(voters, "{voters} voters survive no more failures than {}", voters - 1);
    }
}

fn one_group(mut groups: Vec<Recovered>) -> Result<Recovered, StartError> {
    match (groups.pop(), groups.len()) {
        (Some(group), 0) => Ok(group),
        (group, others) => Err(StartError::Groups(others + usize::from(group.is_some()))),
    }
}

/// Names one life of a node as a client: replica, boot counter, and half of the nonce, which tells
/// copied directories apart.
pub(crate) fn client_id(replica: ReplicaId, life: Incarnation) -> ClientId {
    let replica = u64::from(replica.number()) << 48;
    let boot = u64::from(life.boot()) << 16;
    ClientId::new(replica | boot | u64::from(life.nonce() & 0xffff))
}

#[cfg(test)]
mod tests;
