//! A running node, as its program sees it.
//!
//! Owns: [`Node`], the handle. The work is done by the driver's task, the applier's task and the
//! journal's thread.

use core::fmt;
use core::time::Duration;
use std::sync::Arc;

use futures::FutureExt;
use paxos_core::ballot::Ballot;
use paxos_core::ids::{ClusterId, GroupId, ReplicaId, Slot};
use paxos_core::membership::{Change, Membership};
use paxos_core::port::Format;
use paxos_core::value::{CommandKind, Level};
use std::panic::AssertUnwindSafe;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::applied::AppliedStream;
use crate::apply::ReplyTo;
use crate::builder::Builder;
use crate::change::{Changed, reconfigure};
use crate::client::Client;
use crate::codec::CommandCodec;
use crate::driver::Driver;
use crate::error::{
    MakeSnapshotError, ReconfigureError, StopReason, TransferError, TrimLogError, panic_words,
};
use crate::handover::transfer;
use crate::machine::StateMachine;
use crate::metrics::Metrics;
use crate::releases::{RaiseError, target};
use crate::shared::{Closing, Leadership, NodeEventState, NodeStatus, Shared};
use crate::snapshot::{self, SnapshotInfo};
use crate::submit::Request;

/// How long the end of the storage's threads and of the state machine's work is waited for, once
/// the node has stopped. A wedged device must not keep a program from ending.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// Which replica of which group a node runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) cluster: ClusterId,
    pub(crate) group: GroupId,
    pub(crate) replica: ReplicaId,
}

impl Place {
    pub(crate) fn of(format: &Format) -> Self {
        Self { cluster: format.cluster, group: format.group, replica: format.replica }
    }
}

/// One member of a cluster, running.
///
/// Dropping it stops it where it stands, as a crash would; [`Node::shutdown`] first finishes what
/// was asked for. Both leave a state from which it can be started again.
pub struct Node<M: StateMachine> {
    pub(crate) place: Place,
    shared: Arc<Shared>,
    codec: Arc<dyn CommandCodec<M::Command>>,
    requests: mpsc::UnboundedSender<Request<ReplyTo<M>>>,
    timeout: Duration,
}

impl<M: StateMachine> fmt::Debug for Node<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("status", &self.status()).finish_non_exhaustive()
    }
}

impl<M: StateMachine> Node<M> {
    /// Begins to put a node together.
    pub fn builder() -> Builder<M> {
        Builder::new()
    }

    /// The handle of the node that this task runs.
    pub(crate) fn new(
        place: Place,
        driver: &Driver<ReplyTo<M>>,
        codec: Arc<dyn CommandCodec<M::Command>>,
        requests: mpsc::UnboundedSender<Request<ReplyTo<M>>>,
    ) -> Self {
        let (shared, timeout) = (Arc::clone(&driver.shared), driver.options.request_timeout);
        Self { place, shared, codec, requests, timeout }
    }

    /// A client of this node, which takes turns with its others. It outlives the node, and then
    /// answers `Rejected(Stopped)`.
    pub fn client(&self) -> Client<M> {
        let shared = Arc::clone(&self.shared);
        let codec = Arc::clone(&self.codec);
        Client::new(shared, codec, self.requests.clone(), self.timeout)
    }

    pub(crate) fn codec(&self) -> Arc<dyn CommandCodec<M::Command>> {
        Arc::clone(&self.codec)
    }

    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// What can be seen of the node. Cheap: a copy of what its task wrote down last, with each
    /// heartbeat and change of leadership; `applied` is that of this moment.
    pub fn status(&self) -> NodeStatus {
        self.shared.status()
    }

    /// What the node counted since it started. Cheap, and consistent in each number only; those of
    /// the replica and the transport are up to one heartbeat old.
    pub fn metrics(&self) -> Metrics {
        self.shared.metrics()
    }

    /// Who the members are, and how many of them are enough, as this node knows it: a copy, up to one
    /// heartbeat old.
    pub fn membership(&self) -> Membership {
        self.shared.membership()
    }

    /// Changes of leadership and of the applied slot (the book's State Watch). A slow reader sees
    /// the newest state and misses those between.
    pub fn watch(&self) -> watch::Receiver<NodeEventState> {
        self.shared.events.subscribe()
    }

    /// Who leads, as far as this node knows, and under which ballot: each change. A slow reader sees the
    /// newest state and misses those between, but never takes one reign for another. Read what
    /// [`Leadership`] says before you rely on it.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.shared.leadership.subscribe()
    }

    /// Every slot that this node applies from this one on, in order: first what was applied before, from
    /// memory or the log, then what follows as it is applied. Ends with
    /// [`crate::StreamEnd::Trimmed`] where the log no longer has a slot.
    pub fn applied_from(&self, slot: Slot) -> AppliedStream<M::Command> {
        AppliedStream::new(Arc::clone(&self.shared), Arc::clone(&self.codec), slot)
    }

    /// Asks this node, which must lead, to make way for the node of another voter, and returns the
    /// ballot under which that one leads.
    ///
    /// Commands wait meanwhile, at this node and at those that forward to it, for an election timeout at
    /// most; nobody is refused because of it. After that time this node leads on, and says
    /// [`TransferError::GivenUp`].
    ///
    /// # Errors
    ///
    /// Where this node does not lead, where the other one is not connected or is more than a window
    /// behind, or where it did not take over.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future withdraws nothing: the other node may take over all the same.
    pub async fn transfer(&self, to: ReplicaId) -> Result<Ballot, TransferError> {
        transfer(&self.shared, Some(to)).await
    }

    /// As [`Node::transfer`], to whichever voter is the best: of the highest priority, and of these the
    /// one that has committed most.
    ///
    /// # Errors
    ///
    /// As [`Node::transfer`], and [`TransferError::NoHeir`] where no voter could take over.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future withdraws nothing: another node may take over all the same.
    pub async fn make_way(&self) -> Result<Ballot, TransferError> {
        transfer(&self.shared, None).await
    }

    /// Changes who votes, who observes, where they are or by which quorums, and waits until the new membership
    /// governs and no earlier one is needed any more: whoever was a member of those alone may be switched off.
    /// The node must lead. A node that joins is to be formatted with the new membership.
    ///
    /// Who is to vote observes first ([`Change::AddVoter`], [`Change::Replace`]): what is waited for here
    /// is that it observes. The leader makes it a voter, by a change of its own, once it has caught up; the
    /// status tells how far it is. A leader that is removed makes way, and its node stops.
    ///
    /// # Errors
    ///
    /// Where this node does not lead, another change is under way, or what the change gives could not serve.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future withdraws nothing: the change may be made all the same.
    pub async fn reconfigure(&self, change: Change) -> Result<Changed, ReconfigureError> {
        reconfigure(&self.shared, change).await
    }

    /// The memberships that are needed, oldest first, each with the first slot that it governs: one, and more
    /// while a change is under way. A node that joins does not know that slot yet. A copy, up to one
    /// heartbeat old.
    pub fn memberships(&self) -> Vec<(Option<Slot>, Arc<Membership>)> {
        self.shared.memberships()
    }

    /// Makes a snapshot of a state that includes everything that this node had applied, and waits until it
    /// is durable. If that is the newest one already, it is told of that one. The node goes on meanwhile.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future withdraws nothing: the snapshot is made all the same.
    pub async fn snapshot(&self) -> Result<SnapshotInfo, MakeSnapshotError> {
        snapshot::make(&self.shared).await
    }

    /// Trims the log up to this slot, or as far as the newest snapshot goes, and says where it begins after:
    /// at a later slot where it was trimmed further before. By itself a node keeps a tail, for peers that are
    /// a little behind; those are sent a snapshot instead.
    ///
    /// # Errors
    ///
    /// Where no durable snapshot includes that slot: see [`Node::snapshot`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future withdraws nothing: the log is trimmed all the same.
    pub async fn trim(&self, through: Option<Slot>) -> Result<Slot, TrimLogError> {
        snapshot::trim(&self.shared, through).await
    }

    /// Raises the log to this level of the state machine's commands, and to what all members know of the library's
    /// own; from then on, commands of that level are taken. Returns what the log was raised to; one that was
    /// raised as high before stays as it is. There is no way back: releases that do not know the level do not
    /// start any more.
    ///
    /// # Errors
    ///
    /// Nothing is raised while a member has not said that it knows the level, those that are down among them;
    /// or where this node's own state machine does not.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future withdraws nothing: the log may be raised all the same.
    pub async fn raise(&self, level: u32) -> Result<Level, RaiseError> {
        let peers = self.shared.published(|published| published.levels.clone());
        let level = target(level, self.shared.known, peers)?;
        let arranged = self.client().arrange(CommandKind::Raise { level }).await;
        arranged.map_err(RaiseError::Client)?;
        Ok(self.shared.level())
    }

    /// Stops the node in an orderly way: refuses new requests; where it leads and another voter can, makes
    /// way for that one first, for an election timeout at most; waits up to
    /// [`crate::NodeOptions::shutdown_timeout`] for the requests that were taken, which the next leader
    /// may carry out; and ends the tasks and the thread. Returns why the node stopped, which is another
    /// reason if it had stopped before.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the node at once, as dropping the node does.
    pub async fn shutdown(self) -> StopReason {
        self.shared.close(Closing::Graceful);
        self.stopped().await
    }

    /// Resolves when the node has stopped, whatever the reason, with its tasks and thread ended.
    /// Cancel safe.
    pub async fn stopped(&self) -> StopReason {
        let mut stopped = self.shared.stopped.subscribe();
        let reason = stopped.wait_for(Option::is_some).await;
        let reason = reason.expect("the sender lives as long as this node");
        reason.clone().expect("waited until there was one")
    }
}

impl<M: StateMachine> Drop for Node<M> {
    fn drop(&mut self) {
        self.shared.close(Closing::AtOnce);
    }
}

/// Runs the driver to its end, sees that everything else ends, and says why.
pub(crate) async fn supervise<M: StateMachine>(
    driver: Driver<ReplyTo<M>>,
    applier: JoinHandle<()>,
    threads: Vec<(&'static str, oneshot::Receiver<()>)>,
    shared: Arc<Shared>,
) {
    let replica = driver.id;
    // The driver owns transport and queues: all are dropped, and so closed, when it ends.
    let reason = AssertUnwindSafe(driver.run())
        .catch_unwind()
        .await
        .unwrap_or_else(|panic| StopReason::Panicked(panic_words(panic.as_ref())));
    if matches!(reason, StopReason::Shutdown) {
        tracing::info!(%replica, %reason, "stops");
    } else {
        tracing::error!(%replica, %reason, "stops");
    }
    // Clients that come after this are refused.
    shared.close(Closing::AtOnce);
    let abort = applier.abort_handle();
    let applier = async {
        if tokio::time::timeout(END_TIMEOUT, applier).await.is_err() {
            tracing::warn!(%replica, "the state machine's work was cut off");
            abort.abort();
        }
    };
    let threads = threads.into_iter().map(|(thread, end)| async move {
        if tokio::time::timeout(END_TIMEOUT, end).await.is_err() {
            tracing::warn!(%replica, thread, "a thread is stuck in a call of the storage");
        }
    });
    futures::join!(applier, futures::future::join_all(threads));
    tracing::info!(%replica, "stopped");
    shared.leadership.send_replace(Leadership::Unknown);
    shared.stopped.send_replace(Some(reason));
}
