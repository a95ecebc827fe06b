//! A running node, as its program sees it.
//!
//! Owns: [`Node`], the handle. The work is done by the driver's task, the applier's task and the
//! journal's thread.

use core::fmt;
use core::time::Duration;
use std::sync::Arc;

use futures::FutureExt;
use std::panic::AssertUnwindSafe;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::apply::ReplyTo;
use crate::builder::Builder;
use crate::client::Client;
use crate::codec::CommandCodec;
use crate::driver::Driver;
use crate::error::{StopReason, panic_words};
use crate::machine::StateMachine;
use crate::metrics::Metrics;
use crate::shared::{Closing, NodeEventState, NodeStatus, Shared};
use crate::submit::Request;

/// How long the end of the journal's thread and of the state machine's work is waited for, once
/// the node has stopped. A wedged device must not keep a program from ending.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// One member of a cluster, running.
///
/// Dropping it stops it where it stands, as a crash would; [`Node::shutdown`] first finishes what
/// was asked for. Both leave a state from which it can be started again.
pub struct Node<M: StateMachine> {
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

    pub(crate) fn new(
        shared: Arc<Shared>,
        codec: Arc<dyn CommandCodec<M::Command>>,
        requests: mpsc::UnboundedSender<Request<ReplyTo<M>>>,
        timeout: Duration,
    ) -> Self {
        Self { shared, codec, requests, timeout }
    }

    /// A client of this node, which takes turns with its others. It outlives the node, and then
    /// answers `Rejected(Stopped)`.
    pub fn client(&self) -> Client<M> {
        let shared = Arc::clone(&self.shared);
        let codec = Arc::clone(&self.codec);
        Client::new(shared, codec, self.requests.clone(), self.timeout)
    }

    /// What can be seen of the node. Cheap: a copy of what its task wrote down last, with each
    /// heartbeat and change of leadership; `applied` is that of this moment.
    pub fn status(&self) -> NodeStatus {
        let (mut replica, room) =
            self.shared.published(|published| (published.status.clone(), published.room));
        replica.applied = self.shared.applied();
        replica.committed = replica.committed.max(replica.applied);
        NodeStatus { replica, room, stopped: self.shared.stopped.borrow().clone() }
    }

    /// What the node counted since it started. Cheap, and consistent in each number only; those of
    /// the replica and the transport are up to one heartbeat old.
    pub fn metrics(&self) -> Metrics {
        let (core, transport) =
            self.shared.published(|published| (published.core, published.transport));
        self.shared.meters.snapshot(core, transport)
    }

    /// Changes of leadership and of the applied slot (the book's State Watch). A slow reader sees
    /// the newest state and misses those between.
    pub fn watch(&self) -> watch::Receiver<NodeEventState> {
        self.shared.events.subscribe()
    }

    /// Stops the node in an orderly way: refuses new requests, waits up to
    /// [`crate::NodeOptions::shutdown_timeout`] for those that were taken, and ends the tasks and
    /// the thread. Returns why the node stopped, which is another reason if it had stopped before.
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
    journal: Option<oneshot::Receiver<()>>,
    shared: Arc<Shared>,
) {
    let replica = driver.id;
    // The driver owns transport and journal: both are dropped, and so closed, when it ends.
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
    let journal = async {
        if let Some(end) = journal
            && tokio::time::timeout(END_TIMEOUT, end).await.is_err()
        {
            tracing::warn!(%replica, "the journal's thread is stuck in a call of the storage");
        }
    };
    futures::join!(applier, journal);
    tracing::info!(%replica, "stopped");
    shared.stopped.send_replace(Some(reason));
}
