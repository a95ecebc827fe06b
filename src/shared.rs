//! What the parts of one node share: gates, gauges and cells, each written by one of them.
//!
//! Owns: [`Shared`], [`NodeStatus`], [`NodeEventState`], [`Leadership`]. Holds no protocol state.
//! Invariant: `lanes` count every request between its acceptance from a client and its answer, so
//! that the waiting list and every queue before it are bounded by one number.

use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures::task::AtomicWaker;
use paxos_core::ballot::Ballot;
use paxos_core::codec::BATCH_HEADER_LEN;
use paxos_core::config::Config;
use paxos_core::ids::{ReplicaId, Slot, Time};
use paxos_core::membership::{Change, Membership};
use paxos_core::output::{Counters, Status};
use paxos_core::port::{Room, TransportCounters};
use paxos_core::replica::Replica;
use paxos_core::value::Level;
use tokio::sync::{oneshot, watch};

use crate::applied::PageOrder;
use crate::change::{ChangeOrder, Changed};
use crate::clock::Clock;
use crate::divergence::ComparisonStatus;
use crate::error::{ClientError, MakeSnapshotError, ReconfigureError, StopReason, TransferError};
use crate::lanes::{Lane, Lanes};
use crate::metrics::{Meters, Metrics};
use crate::options::NodeOptions;
use crate::session::Numbering;
use crate::snapshot::{LogOrder, Order as SnapshotOrder, SnapshotInfo, SnapshotStatus};
use crate::waiters::{Waiter, Waiting};

/// What can be seen of a node.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NodeStatus {
    /// What its replica says of itself. `applied` is what its state machine holds.
    pub replica: Status,
    /// Whether its storage takes new commands.
    pub room: Room,
    /// Its snapshots.
    pub snapshots: SnapshotStatus,
    /// Whether its state is that of the others.
    pub comparison: ComparisonStatus,
    /// Why it stopped, if it did.
    pub stopped: Option<StopReason>,
}

/// What [`crate::Node::watch`] tells of.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct NodeEventState {
    /// The ballot of the leader that this node is or follows.
    pub leader: Option<Ballot>,
    /// Whether that is this node.
    pub is_leader: bool,
    /// The last slot that this node's state machine holds.
    pub applied: Slot,
}

/// Who leads, as far as a node knows: what [`crate::Node::leadership`] tells of.
///
/// A hint about the past, and no lock: by the time it is read another may lead, and two nodes may say
/// at once that they lead. Whoever acts upon it outside the state machine takes the ballot along as a
/// fencing token, and has it refused wherever a higher one was seen: ballots of later leaders are higher.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Leadership {
    /// The node knows no leader, or has stopped.
    #[default]
    Unknown,
    /// It leads, since it won this ballot.
    Leads(Ballot),
    /// It hears and follows the leader of this ballot: [`Ballot::leader`] names it.
    Follows(Ballot),
}

/// Somebody asks this node to make way.
#[derive(Debug)]
pub(crate) struct Order {
    /// For whom; `None` leaves that to the node.
    pub(crate) to: Option<ReplicaId>,
    pub(crate) answer: oneshot::Sender<Result<Ballot, TransferError>>,
}

/// Whether the node goes on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Closing {
    /// It does.
    No,
    /// It finishes what was asked for.
    Graceful,
    /// It stops where it stands.
    AtOnce,
}

/// What the node's task wrote down last.
#[derive(Debug)]
pub(crate) struct Published {
    /// When.
    pub(crate) at: Time,
    pub(crate) status: Status,
    pub(crate) room: Room,
    pub(crate) snapshots: SnapshotStatus,
    pub(crate) comparison: ComparisonStatus,
    /// What each peer said that it knows.
    pub(crate) levels: Vec<(ReplicaId, Option<Level>)>,
    pub(crate) membership: Membership,
    /// With those that are still needed, oldest first.
    pub(crate) memberships: Vec<(Option<Slot>, Arc<Membership>)>,
    pub(crate) core: Counters,
    pub(crate) transport: TransportCounters,
}

impl Published {
    /// Before anything happened.
    pub(crate) fn first(replica: &Replica, transport: TransportCounters) -> Self {
        Self {
            at: Time::ZERO,
            status: replica.status(),
            room: Room::Ample,
            membership: replica.membership().clone(),
            memberships: replica.memberships(),
            snapshots: SnapshotStatus::default(),
            comparison: ComparisonStatus::default(),
            levels: replica.peers().iter().map(|peer| (*peer, None)).collect(),
            core: replica.counters(),
            transport,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Shared {
    /// What each client has waiting.
    pub(crate) lanes: Arc<Lanes>,
    /// The largest command, its envelope included.
    pub(crate) command_bytes_max: usize,
    closing: AtomicU8,
    applied: AtomicU64,
    /// The log's level, packed.
    level: AtomicU64,
    nudged: AtomicBool,
    waker: AtomicWaker,
    /// What this node's release knows.
    pub(crate) known: Level,
    /// After every so many slots the state's digest is compared.
    pub(crate) digest_slots: u64,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) meters: Arc<Meters>,
    /// By which clients number their requests.
    pub(crate) numbering: Numbering,
    /// The newest session of this life that the log opened, until it is taken; zero if none.
    opened: AtomicU64,
    /// How many clients were made.
    owners: AtomicU64,
    pub(crate) published: Mutex<Published>,
    orders: Mutex<Vec<Order>>,
    changes: Mutex<Vec<ChangeOrder>>,
    pages: Mutex<Vec<PageOrder>>,
    snapshot_orders: Mutex<Vec<SnapshotOrder>>,
    log_orders: Mutex<Vec<LogOrder>>,
    pub(crate) events: watch::Sender<NodeEventState>,
    pub(crate) leadership: watch::Sender<Leadership>,
    pub(crate) stopped: watch::Sender<Option<StopReason>>,
}

impl Shared {
    pub(crate) fn new(
        options: &NodeOptions,
        config: &Config,
        clock: Arc<dyn Clock>,
        meters: Arc<Meters>,
        published: Published,
        known: Level,
    ) -> Arc<Self> {
        let applied = published.status.applied;
        let events = NodeEventState { applied, ..NodeEventState::default() };
        Arc::new(Self {
            lanes: Arc::new(Lanes::new(options.requests_max)),
            command_bytes_max: config.batch_bytes_max.saturating_sub(BATCH_HEADER_LEN),
            known,
            digest_slots: options.digest_slots,
            closing: AtomicU8::new(0),
            applied: AtomicU64::new(applied.number()),
            level: AtomicU64::new(0),
            nudged: AtomicBool::new(false),
            waker: AtomicWaker::new(),
            clock,
            meters,
            numbering: Numbering::new(),
            opened: AtomicU64::new(0),
            owners: AtomicU64::new(0),
            published: Mutex::new(published),
            orders: Mutex::new(Vec::new()),
            changes: Mutex::new(Vec::new()),
            pages: Mutex::new(Vec::new()),
            snapshot_orders: Mutex::new(Vec::new()),
            log_orders: Mutex::new(Vec::new()),
            events: watch::Sender::new(events),
            leadership: watch::Sender::new(Leadership::Unknown),
            stopped: watch::Sender::new(None),
        })
    }

    /// The lane of a client that is made.
    pub(crate) fn next_lane(&self) -> Lane {
        Lane::of(self.owners.fetch_add(1, Ordering::Relaxed))
    }

    /// The log opened this session of this life. Wakes the node's task, where requests wait for it.
    pub(crate) fn session_opened(&self, number: u64) {
        self.opened.fetch_max(number, Ordering::AcqRel);
        self.nudge();
    }

    /// The newest session of this life that the log opened since the last call.
    pub(crate) fn take_opened(&self) -> Option<u64> {
        // Reading is free, and there is one in an hour.
        if self.opened.load(Ordering::Relaxed) == 0 {
            return None;
        }
        Some(self.opened.swap(0, Ordering::AcqRel)).filter(|number| *number > 0)
    }

    /// Frees the place of a request and answers it, which was not on its way into the log.
    pub(crate) fn turn_down<W: Waiter>(&self, waiting: Waiting<W>, error: ClientError) {
        self.lanes.release(waiting.load.lane, 1);
        waiting.waiter.fail(error);
    }

    /// The same for one that was on its way, and will not be answered from there.
    pub(crate) fn turn_back<W: Waiter>(&self, waiting: Waiting<W>, error: ClientError) {
        self.lanes.land(waiting.load.lane, u64::from(waiting.load.bytes));
        self.turn_down(waiting, error);
    }

    pub(crate) fn waiting(&self) -> usize {
        self.lanes.held()
    }

    pub(crate) fn applied(&self) -> Slot {
        Slot::new(self.applied.load(Ordering::Acquire))
    }

    pub(crate) fn set_applied(&self, slot: Slot) {
        self.applied.store(slot.number(), Ordering::Release);
    }

    /// What the log was raised to, as far as it is applied here.
    pub(crate) fn level(&self) -> Level {
        let packed = self.level.load(Ordering::Acquire);
        Level { library: (packed >> 32) as u16, machine: packed as u32 }
    }

    pub(crate) fn set_level(&self, level: Level) {
        let packed = u64::from(level.library) << 32 | u64::from(level.machine);
        self.level.store(packed, Ordering::Release);
    }

    pub(crate) fn closing(&self) -> Closing {
        match self.closing.load(Ordering::Acquire) {
            0 => Closing::No,
            1 => Closing::Graceful,
            _ => Closing::AtOnce,
        }
    }

    pub(crate) fn close(&self, closing: Closing) {
        self.closing.fetch_max(closing as u8, Ordering::AcqRel);
        self.nudge();
    }

    /// Asks the node's task to make way for this replica, or for one that it chooses; the answer comes when it is known what came
    /// of it, or never if the task ends first.
    pub(crate) fn hand_over(
        &self,
        to: Option<ReplicaId>,
    ) -> oneshot::Receiver<Result<Ballot, TransferError>> {
        let (answer, came_of_it) = oneshot::channel();
        let orders = &mut *self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        orders.push(Order { to, answer });
        self.nudge();
        came_of_it
    }

    /// What was asked for and not taken yet.
    pub(crate) fn take_orders(&self) -> Vec<Order> {
        core::mem::take(&mut *self.orders.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Asks the node's task for a change of the membership; the answer comes when it is known what came
    /// of it, or never if the task ends first.
    pub(crate) fn order_change(
        &self,
        change: Change,
    ) -> oneshot::Receiver<Result<Changed, ReconfigureError>> {
        let (answer, came_of_it) = oneshot::channel();
        let orders = &mut *self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        orders.push(ChangeOrder { change, answer });
        self.nudge();
        came_of_it
    }

    /// What was ordered and not taken yet.
    pub(crate) fn take_changes(&self) -> Vec<ChangeOrder> {
        core::mem::take(&mut *self.changes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Asks the node's task for a page of the log.
    pub(crate) fn order_page(&self, order: PageOrder) {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner).push(order);
        self.nudge();
    }

    /// What streams asked for and did not get yet.
    pub(crate) fn take_pages(&self) -> Vec<PageOrder> {
        core::mem::take(&mut *self.pages.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Asks the node's task for a snapshot; the answer never comes if the task ends first.
    pub(crate) fn order_snapshot(
        &self,
    ) -> oneshot::Receiver<Result<SnapshotInfo, MakeSnapshotError>> {
        let (order, made) = oneshot::channel();
        self.snapshot_orders.lock().unwrap_or_else(PoisonError::into_inner).push(order);
        self.nudge();
        made
    }

    /// What was ordered and not taken yet.
    pub(crate) fn take_snapshot_orders(&self) -> Vec<SnapshotOrder> {
        core::mem::take(&mut *self.snapshot_orders.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Asks the node's task for something of the log and its snapshots.
    pub(crate) fn order_log(&self, order: LogOrder) {
        self.log_orders.lock().unwrap_or_else(PoisonError::into_inner).push(order);
        self.nudge();
    }

    /// What was ordered and not taken yet.
    pub(crate) fn take_log_orders(&self) -> Vec<LogOrder> {
        core::mem::take(&mut *self.log_orders.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What the node's task answers; none if it ends first. Cancel safe.
    pub(crate) async fn unless_stopped<T>(&self, answer: oneshot::Receiver<T>) -> Option<T> {
        let mut stopped = self.stopped.subscribe();
        tokio::select! {
            biased;
            answer = answer => answer.ok(),
            _ = stopped.wait_for(Option::is_some) => None,
        }
    }

    /// Wakes the node's task.
    pub(crate) fn nudge(&self) {
        self.nudged.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Whether the node's task was nudged; else it will be woken by the next nudge.
    pub(crate) fn poll_nudged(&self, cx: &core::task::Context<'_>) -> bool {
        self.waker.register(cx.waker());
        self.nudged.swap(false, Ordering::AcqRel)
    }

    /// What can be seen of the node.
    pub(crate) fn status(&self) -> NodeStatus {
        let (mut replica, room, snapshots, comparison) = self.published(|published| {
            let snapshots = published.snapshots.clone();
            (published.status.clone(), published.room, snapshots, published.comparison)
        });
        replica.applied = self.applied();
        replica.committed = replica.committed.max(replica.applied);
        let stopped = self.stopped.borrow().clone();
        NodeStatus { replica, room, snapshots, comparison, stopped }
    }

    /// What the node counted.
    pub(crate) fn metrics(&self) -> Metrics {
        let (core, transport) = self.published(|published| (published.core, published.transport));
        self.meters.snapshot(core, transport)
    }

    /// The membership in force.
    pub(crate) fn membership(&self) -> Membership {
        self.published(|published| published.membership.clone())
    }

    /// The memberships that are needed.
    pub(crate) fn memberships(&self) -> Vec<(Option<Slot>, Arc<Membership>)> {
        self.published(|published| published.memberships.clone())
    }

    /// What was written down last; readable even if a writer panicked.
    pub(crate) fn published<T>(&self, read: impl FnOnce(&mut Published) -> T) -> T {
        read(&mut self.published.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
