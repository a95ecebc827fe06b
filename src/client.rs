//! How a program asks its node.
//!
//! Owns: [`Client`]. Knows no protocol: it stamps nothing and retries nothing by itself.

use core::fmt;
use core::time::Duration;
use std::sync::Arc;

use bytes::Bytes;
use paxos_core::codec::COMMAND_HEADER_LEN;
use paxos_core::ids::Slot;
use tokio::sync::{mpsc, oneshot};

use crate::apply::ReplyTo;
use crate::codec::CommandCodec;
use crate::error::{ClientError, Rejection, Uncertainty};
use crate::machine::StateMachine;
use crate::shared::{Closing, Shared};
use crate::submit::{Asked, Request};

/// How new the state must be that answers a read.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Consistency {
    /// It includes every command that anybody was answered before the read was asked. Costs a round
    /// trip from the leader to a quorum, and one from this node to the leader where that is another.
    #[default]
    Linearizable,
    /// It has applied this slot. Costs nothing but the wait until this node has it.
    AtLeast(Slot),
    /// It includes every command that anybody was answered so long before the read was asked, or
    /// earlier. Costs what a linearizable read costs once in so long, and nothing otherwise. The
    /// bound is measured by this node's monotonic clock: where that stands still, as it may while a
    /// machine is suspended, so does the bound.
    Stale {
        /// How long before.
        lag_max: Duration,
    },
}

/// Asks the node that it came from. Cheap to clone; any number of tasks may use it at once.
///
/// # Cancel safety
///
/// Dropping the future of [`Client::execute`] does not withdraw the command: it may be applied
/// all the same, as after [`ClientError::Unknown`].
pub struct Client<M: StateMachine> {
    shared: Arc<Shared>,
    codec: Arc<dyn CommandCodec<M::Command>>,
    requests: mpsc::UnboundedSender<Request<ReplyTo<M>>>,
    timeout: Duration,
}

impl<M: StateMachine> Clone for Client<M> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            codec: Arc::clone(&self.codec),
            requests: self.requests.clone(),
            timeout: self.timeout,
        }
    }
}

impl<M: StateMachine> fmt::Debug for Client<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl<M: StateMachine> Client<M> {
    pub(crate) fn new(
        shared: Arc<Shared>,
        codec: Arc<dyn CommandCodec<M::Command>>,
        requests: mpsc::UnboundedSender<Request<ReplyTo<M>>>,
        timeout: Duration,
    ) -> Self {
        Self { shared, codec, requests, timeout }
    }

    /// The same client, waiting so long for each answer. An answer that does not come in time is
    /// said to be missing within 100 ms after that.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Has a command applied, and returns what the state machine replied on this node.
    ///
    /// The command is encoded on the calling task, and read back once, so that one that the codec
    /// cannot read is rejected and never stands in the log. It is proposed at most once: whatever is
    /// tried again was certainly not proposed before.
    pub async fn execute(&self, command: M::Command) -> Result<M::Reply, ClientError> {
        let encoded = self.codec.encode(&command);
        let checked = encoded.and_then(|bytes| self.codec.check(&bytes).map(|()| bytes));
        let payload = match checked {
            Ok(payload) => payload,
            Err(error) => return Err(ClientError::Rejected(Rejection::Codec(error.0))),
        };
        self.execute_encoded(payload).await
    }

    /// The same with a command's bytes, which the codec reads.
    pub(crate) async fn execute_encoded(&self, payload: Bytes) -> Result<M::Reply, ClientError> {
        let bytes = payload.len() + COMMAND_HEADER_LEN;
        let bytes_max = self.shared.command_bytes_max;
        if bytes > bytes_max {
            return Err(ClientError::Rejected(Rejection::TooLarge { bytes, bytes_max }));
        }
        let (answer, reply) = oneshot::channel();
        self.ask(Asked::Command(payload), ReplyTo::Command(answer))?;
        // Nobody will answer: the node ended with the request in its hands.
        reply.await.unwrap_or(Err(ClientError::Unknown(Uncertainty::Stopped)))
    }

    /// Asks the state machine of this node, which answers from a state that includes every command
    /// answered to anyone before this call: [`Client::read`] with [`Consistency::Linearizable`].
    pub async fn query(&self, query: M::Query) -> Result<M::Answer, ClientError> {
        self.read(Consistency::Linearizable, query).await
    }

    /// Asks the state machine of this node, which answers from a state as new as `consistency`
    /// demands. Writes nothing; reads that wait together share what they ask of the leader.
    ///
    /// The error is a [`ClientError::Rejected`] always: nothing was changed, and the read may be asked
    /// again.
    pub async fn read(
        &self,
        consistency: Consistency,
        query: M::Query,
    ) -> Result<M::Answer, ClientError> {
        let (answer, reply) = oneshot::channel();
        let waiter = ReplyTo::Query(Box::new((query, answer)));
        self.ask(Asked::Read(consistency), waiter)?;
        // Nobody will answer: the node ended with the request in its hands.
        reply.await.unwrap_or(Err(ClientError::Rejected(Rejection::Stopped)))
    }

    fn ask(&self, asked: Asked, waiter: ReplyTo<M>) -> Result<(), ClientError> {
        let stopped = ClientError::Rejected(Rejection::Stopped);
        if self.shared.closing() != Closing::No {
            return Err(stopped);
        }
        if !self.shared.admit() {
            self.shared.meters.requests_busy.add(1);
            return Err(ClientError::Rejected(Rejection::Busy));
        }
        let request = Request { asked, timeout: self.timeout, waiter };
        self.requests.send(request).map_err(|_| stopped)
    }
}
