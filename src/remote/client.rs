//! The client of a cluster in a process of its own.
//!
//! Owns: [`RemoteClient`], [`RemoteOptions`], [`ConnectError`]. The links are the keeper's, in a task
//! that ends with the last client.

use core::fmt;
use core::marker::PhantomData;
use core::time::Duration;
use std::sync::Arc;
use std::time::Instant;

use paxos_core::ids::{ClusterId, GroupId, ReplicaId};
use paxos_core::port::ClientConnector;
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout_at;

use crate::codec::{self, CommandCodec, Postcard};
use crate::error::{ClientError, Rejection, Uncertainty};
use crate::machine::StateMachine;
use crate::remote::call::{Asked, Call, Phase, Progress};
use crate::remote::calls::{Calls, Patience};
use crate::remote::keeper::Keeper;
use crate::remote::wire::{Done, GREETING_BYTES_MAX};
use crate::request::{Applied, Consistency, Delivery};

/// How long after its time a call waits for what the node says of it, which knows more.
const GRACE: Duration = Duration::from_millis(150);

/// The bounds and timeouts of a remote client.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct RemoteOptions {
    /// The cluster that is meant: nodes of another refuse.
    pub cluster: ClusterId,
    /// The group that is meant. Default the first.
    pub group: GroupId,
    /// How long a call waits for its answer unless the client says otherwise. Default 5 s.
    pub request_timeout: Duration,
    /// How long one node may take over its greeting, a read, or a command in the session, before
    /// another is asked. Longer than an election takes, or calls wander while there is none.
    /// Default 2 s.
    pub attempt_timeout: Duration,
    /// How long the session in which commands are sent outlives its last use, by the clock of the
    /// log; the next command after that opens another. Longer than any call may take: one that is
    /// sent again after its session expired ends as unknown. Default 10 min.
    pub session_ttl: Duration,
    /// How many calls may wait for an answer at once; one more is refused as `Busy`. Default 1,024.
    pub requests_max: usize,
    /// The largest answer that is taken, in bytes; at least 2 KiB. Default 8 MiB.
    pub frame_bytes_max: usize,
    /// Whether a node that does not lead is left at once for the one that does, where it is known.
    /// Any node serves; the leader saves a round trip between nodes. Default true.
    pub follow_leader: bool,
}

impl RemoteOptions {
    /// The defaults, for this cluster.
    pub fn new(cluster: ClusterId) -> Self {
        Self {
            cluster,
            group: GroupId::default(),
            request_timeout: Duration::from_secs(5),
            attempt_timeout: Duration::from_secs(2),
            session_ttl: Duration::from_secs(600),
            requests_max: 1024,
            frame_bytes_max: 8 << 20,
            follow_leader: true,
        }
    }

    fn check(&self) -> Result<(), ConnectError> {
        let frames = 2 * GREETING_BYTES_MAX..=u32::MAX as usize;
        let rules = [
            (!self.request_timeout.is_zero(), "request_timeout must be above zero"),
            (!self.attempt_timeout.is_zero(), "attempt_timeout must be above zero"),
            (!self.session_ttl.is_zero(), "session_ttl must be above zero"),
            (
                (1..=Semaphore::MAX_PERMITS).contains(&self.requests_max),
                "requests_max must be above zero",
            ),
            (frames.contains(&self.frame_bytes_max), "frame_bytes_max must be from 2 KiB to 4 GiB"),
        ];
        match rules.into_iter().find(|(holds, _)| !holds) {
            Some((_, rule)) => Err(ConnectError::Options(rule)),
            None => Ok(()),
        }
    }
}

/// Why there is no client.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ConnectError {
    /// An option is out of its bounds: the rule.
    Options(&'static str),
    /// The connector knows no node.
    NoNodes,
    /// Every node was tried, each in vain: why.
    Unreachable(Vec<(ReplicaId, String)>),
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Options(rule) => f.write_str(rule),
            Self::NoNodes => f.write_str("no node to connect to is given"),
            Self::Unreachable(tried) => {
                f.write_str("no node can be reached")?;
                tried.iter().try_for_each(|(replica, why)| write!(f, "; {replica}: {why}"))
            }
        }
    }
}

impl std::error::Error for ConnectError {}

/// Asks the nodes of a cluster from outside: what [`crate::Client`] is to a program that runs a node.
/// Cheap to clone; any number of tasks may use it at once. All clones share one link to one node, and
/// change to another by themselves.
///
/// A call ends as it does in the node's own process: answered, [`ClientError::Rejected`] if it
/// certainly changed nothing, or [`ClientError::Unknown`]. Commands are sent in a session of this
/// client, which its clones share: one whose fate is not known, because its link, its node or the
/// leader was lost, is sent again, to any node, and applied once; until its time is over. Without the
/// session, [`Delivery::AtMostOnce`], it is not sent again, and unknown. Reads, and commands that
/// certainly were not proposed, are tried again at other nodes while their time lasts.
///
/// # Cancel safety
///
/// Dropping the future of [`RemoteClient::execute`] withdraws the command if it was not sent yet;
/// otherwise it may be applied all the same, as after [`ClientError::Unknown`]; it is not sent again.
pub struct RemoteClient<M: StateMachine> {
    calls: mpsc::UnboundedSender<Call>,
    permits: Arc<Semaphore>,
    codec: Arc<dyn CommandCodec<M::Command>>,
    timeout: Duration,
    machine: PhantomData<fn(M)>,
}

impl<M: StateMachine> Clone for RemoteClient<M> {
    fn clone(&self) -> Self {
        Self {
            calls: self.calls.clone(),
            permits: Arc::clone(&self.permits),
            codec: Arc::clone(&self.codec),
            timeout: self.timeout,
            machine: PhantomData,
        }
    }
}

impl<M: StateMachine> fmt::Debug for RemoteClient<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteClient").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl<M: StateMachine> RemoteClient<M> {
    /// Connects to the first node that answers, and returns once it did; an error says of every node
    /// why it did not. Links that fall later are made anew, to this node or another, until the last
    /// clone is dropped. Commands are encoded by [`Postcard`], as the nodes' builders have it by
    /// default.
    ///
    /// Call it within a tokio runtime with time and network enabled, and keep that runtime.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives the attempt up.
    pub async fn connect(
        connector: impl ClientConnector + 'static,
        options: RemoteOptions,
    ) -> Result<Self, ConnectError> {
        Self::connect_with(connector, options, Postcard).await
    }

    /// The same, with the codec that the nodes were built with.
    pub async fn connect_with(
        connector: impl ClientConnector + 'static,
        options: RemoteOptions,
        codec: impl CommandCodec<M::Command>,
    ) -> Result<Self, ConnectError> {
        options.check()?;
        if connector.replicas().is_empty() {
            return Err(ConnectError::NoNodes);
        }
        let (calls, inbox) = mpsc::unbounded_channel();
        let (first, linked) = oneshot::channel();
        let client = Self {
            calls,
            permits: Arc::new(Semaphore::new(options.requests_max)),
            codec: Arc::new(codec),
            timeout: options.request_timeout,
            machine: PhantomData,
        };
        let patience =
            Patience { attempt: options.attempt_timeout, session_ttl: options.session_ttl };
        let keeper = Keeper {
            connector: Arc::new(connector),
            calls: Calls::new(patience),
            options,
            inbox,
            first: Some(first),
            greeted_at: None,
        };
        tokio::spawn(keeper.run());
        linked.await.expect("the keeper answers before it ends, as long as there is a client")?;
        Ok(client)
    }

    /// The same client, waiting so long for each answer. A call ends within 150 ms after that.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Has a command applied, once, and returns what the state machine replied: the reply of
    /// [`RemoteClient::execute_at`].
    pub async fn execute(&self, command: M::Command) -> Result<M::Reply, ClientError> {
        self.execute_at(command).await.map(|applied| applied.reply)
    }

    /// Has a command applied, once, and returns in which slot, with what the state machine replied:
    /// [`RemoteClient::execute_with`] and [`Delivery::ExactlyOnce`].
    pub async fn execute_at(&self, command: M::Command) -> Result<Applied<M::Reply>, ClientError> {
        self.execute_with(Delivery::ExactlyOnce, command).await
    }

    /// Has a command applied, and returns in which slot, with what the state machine replied.
    /// `delivery` says whether it is sent again, at this node or another, where nobody can say what
    /// came of it. The command is encoded on the calling task, and read back once.
    pub async fn execute_with(
        &self,
        delivery: Delivery,
        command: M::Command,
    ) -> Result<Applied<M::Reply>, ClientError> {
        let encoded = self.codec.encode(&command);
        let checked = encoded.and_then(|bytes| self.codec.check(&bytes).map(|()| bytes));
        let payload = checked.map_err(|error| ClientError::Rejected(Rejection::Codec(error.0)))?;
        drop(command);
        let asked = match delivery {
            Delivery::ExactlyOnce => Asked::Once(payload),
            Delivery::AtMostOnce => Asked::Plain(payload),
        };
        let Done { slot, payload } = self.call(asked).await?;
        match codec::read(&payload) {
            Ok(reply) => Ok(Applied { slot, reply }),
            Err(_) => Err(ClientError::ReplyNotKept { slot }),
        }
    }

    async fn call(&self, asked: Asked) -> Result<Done, ClientError> {
        let is_read = matches!(asked, Asked::Read(..));
        let permit = Arc::clone(&self.permits).try_acquire_owned();
        let permit = permit.map_err(|_| ClientError::Rejected(Rejection::Busy))?;
        let deadline = Instant::now() + self.timeout;
        let (progress, (answer, answered)) = (Progress::new(), oneshot::channel());
        // A future that is dropped is a call that is withdrawn.
        let waits = Withdraw(progress.clone());
        let (number, doubt) = (None, None);
        let call = Call { asked, deadline, progress, answer, permit, number, doubt };
        self.calls.send(call).map_err(|_| ClientError::Rejected(Rejection::Stopped))?;
        if let Ok(Ok(outcome)) = timeout_at((deadline + GRACE).into(), answered).await {
            return outcome;
        }
        Err(match waits.0.withdraw() {
            Phase::Sent if is_read => ClientError::Rejected(Rejection::TimedOut),
            Phase::Sent => ClientError::Unknown(Uncertainty::Timeout),
            Phase::Waiting(why) => ClientError::Rejected(why),
            Phase::Withdrawn => unreachable!("this future alone withdraws its call"),
        })
    }
}

impl<M: StateMachine> RemoteClient<M>
where
    M::Query: Serialize,
    M::Answer: DeserializeOwned,
{
    /// Asks the state machine of a node: [`RemoteClient::read`] with [`Consistency::Linearizable`].
    pub async fn query(&self, query: M::Query) -> Result<M::Answer, ClientError> {
        self.read(Consistency::Linearizable, query).await
    }

    /// Asks the state machine of a node, which answers from a state as new as `consistency` demands.
    /// [`Consistency::Stale`] counts whole milliseconds.
    ///
    /// The error is a [`ClientError::Rejected`] always: nothing was changed, and the read may be asked
    /// again.
    pub async fn read(
        &self,
        consistency: Consistency,
        query: M::Query,
    ) -> Result<M::Answer, ClientError> {
        let rejected = |rejection| Err(ClientError::Rejected(rejection));
        let query = match postcard::to_stdvec(&query) {
            Ok(bytes) => bytes.into(),
            Err(error) => return rejected(Rejection::Codec(error.to_string())),
        };
        let answer = self.call(Asked::Read(consistency, query)).await?;
        codec::read(&answer.payload).or_else(|error| rejected(Rejection::Answer(error.0)))
    }
}

/// Withdraws a call when its future ends, in whichever way.
struct Withdraw(Progress);

impl Drop for Withdraw {
    fn drop(&mut self) {
        self.0.withdraw();
    }
}
