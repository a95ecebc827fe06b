//! The node's side of its remote clients: who is let in, and what each may have open.
//!
//! Owns: [`ServeOptions`], [`Serving`], and the task that takes links. What each link does is the
//! hall's.
//! Invariant: links are bounded, altogether and for each key, and so is what each may have open: a
//! client that is slow or hostile costs bounded memory, and the others nothing.

use core::future::poll_fn;
use core::time::Duration;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use paxos_core::port::ClientListener;
use serde::{Serialize, de::DeserializeOwned};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

use crate::error::StartError;
use crate::machine::StateMachine;
use crate::node::Node;
use crate::remote::hall::{Hall, attend};
use crate::remote::seats::{Counts, Seat};
use crate::shared::Closing;

/// How long links may still send answers once the node has stopped.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// The bounds of [`Node::serve`]. Start from [`ServeOptions::default`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServeOptions {
    /// How many links there may be at once; one more is closed, which says so. Default 256.
    pub links_max: usize,
    /// How many of them one key may have, so that one client cannot take them all. Default 64.
    pub links_per_key_max: usize,
    /// How many requests of one link may be unanswered; beyond, the link is not read. Default 128.
    pub requests_max: usize,
    /// How many bytes the commands and queries of one link's unanswered requests may have; beyond,
    /// the link is not read. One frame more may be there, which is as large as a command may be.
    /// Default 1 MiB.
    pub request_bytes_max: usize,
    /// How many bytes of answers a link may owe its client; beyond, it is not read. The answers to
    /// the requests taken before may come on top. Default 1 MiB.
    pub answer_bytes_max: usize,
    /// The longest time that a request may take, whatever its client says. Default 60 s.
    pub timeout_max: Duration,
    /// How many sessions the clients of one key may open within a minute; one more is refused as
    /// busy. The cluster knows 4,096 sessions at a time, and forgets those that were not used for the
    /// longest first. Default 60.
    pub sessions_per_minute_max: usize,
    /// How long a client may take for its greeting. Default 5 s.
    pub greeting_timeout: Duration,
    /// How long a client may leave answers untaken before its link is closed. Default 10 s.
    pub stall_timeout: Duration,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            links_max: 256,
            links_per_key_max: 64,
            requests_max: 128,
            request_bytes_max: 1 << 20,
            answer_bytes_max: 1 << 20,
            timeout_max: Duration::from_secs(60),
            sessions_per_minute_max: 60,
            greeting_timeout: Duration::from_secs(5),
            stall_timeout: Duration::from_secs(10),
        }
    }
}

impl ServeOptions {
    fn check(&self) -> Result<(), StartError> {
        let rules = [
            (self.links_max > 0, "links_max"),
            (self.links_per_key_max > 0, "links_per_key_max"),
            (self.requests_max > 0, "requests_max"),
            (self.request_bytes_max > 0, "request_bytes_max"),
            (self.answer_bytes_max > 0, "answer_bytes_max"),
            (!self.timeout_max.is_zero(), "timeout_max"),
            (self.sessions_per_minute_max > 0, "sessions_per_minute_max"),
            (!self.greeting_timeout.is_zero(), "greeting_timeout"),
            (!self.stall_timeout.is_zero(), "stall_timeout"),
        ];
        match rules.into_iter().find(|(holds, _)| !holds) {
            Some((_, field)) => Err(StartError::Options(field)),
            None => Ok(()),
        }
    }
}

/// A node that serves remote clients. Dropping it closes their links, as the end of the node does.
#[derive(Debug)]
#[must_use = "dropping it ends the serving"]
pub struct Serving {
    task: AbortHandle,
    counts: Arc<Counts>,
}

/// What was counted since the serving began.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct ServingStatus {
    /// Links that are open.
    pub links: u64,
    /// Links that were closed at once because there were too many.
    pub links_refused: u64,
    /// Links that were closed because of what their client did, or did not do in time.
    pub links_cut: u64,
    /// Requests taken in.
    pub requests: u64,
}

impl Serving {
    /// What is counted. Cheap.
    pub fn status(&self) -> ServingStatus {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ServingStatus {
            links: self.counts.links(),
            links_refused: read(&self.counts.refused),
            links_cut: read(&self.counts.cut),
            requests: read(&self.counts.requests),
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<M> Node<M>
where
    M: StateMachine,
    M::Query: DeserializeOwned,
    M::Answer: Serialize,
{
    /// Serves remote clients: whoever `listener` lets in may do what a [`crate::Client`] of this node may,
    /// and nothing else. Goes on until the node has stopped, or what this returns is dropped. May be
    /// called several times, with other listeners. Call it within the node's runtime.
    ///
    /// A client can ask for any command and any query of the state machine: what it must not do, the
    /// state machine must refuse.
    pub fn serve(
        &self,
        listener: impl ClientListener + 'static,
        options: ServeOptions,
    ) -> Result<Serving, StartError> {
        options.check()?;
        let counts = Arc::new(Counts::default());
        let hall = Hall {
            place: self.place,
            client: self.client(),
            codec: self.codec(),
            shared: self.shared(),
            counts: Arc::clone(&counts),
            options,
        };
        let task = tokio::spawn(take_links(Box::new(listener), Arc::new(hall))).abort_handle();
        Ok(Serving { task, counts })
    }
}

/// Takes links until the node has stopped. Links end with this task.
async fn take_links<M>(mut listener: Box<dyn ClientListener>, hall: Arc<Hall<M>>)
where
    M: StateMachine,
    M::Query: DeserializeOwned,
    M::Answer: Serialize,
{
    let mut stopped = hall.shared.stopped.subscribe();
    let mut links = JoinSet::new();
    loop {
        let link = tokio::select! {
            link = poll_fn(|cx| listener.poll_accept(cx)) => link,
            _ = stopped.wait_for(Option::is_some) => break,
            Some(ended) = links.join_next() => {
                if let Err(error) = ended {
                    // The codec, or a type's own serialisation, panicked.
                    tracing::error!(%error, "a client's link failed");
                }
                continue;
            }
        };
        let Some(mut link) = link else {
            tracing::warn!("no more clients: their listener stopped");
            break;
        };
        if let Some(seat) = Seat::take(&hall.counts, link.key(), &hall.options) {
            links.spawn(attend(link, seat, Arc::clone(&hall)));
        } else {
            hall.counts.refused.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(remote = %link.remote(), "too many clients");
            link.close("too many links: try again later, or another node");
        }
    }
    if hall.shared.closing() == Closing::No {
        while links.join_next().await.is_some() {}
    } else {
        let all = async { while links.join_next().await.is_some() {} };
        let _ = timeout(END_TIMEOUT, all).await;
    }
}
