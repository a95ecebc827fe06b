//! How a program asks its node.
//!
//! Owns: [`Client`], and when it sends a command again. Knows no protocol.
//! Invariants: (1) a command is sent again only in the session and under the number that it had,
//! or after it certainly was not applied; (2) a command is said to be rejected only if no attempt may
//! have applied it. Rules S6 and S7 of protocol.md §13.

use core::fmt;
use core::time::Duration;
use std::sync::Arc;

use bytes::Bytes;
use paxos_core::codec::COMMAND_HEADER_LEN;
use paxos_core::ids::{RequestNumber, SessionId, SessionTtl, Slot, Time};
use paxos_core::value::{CommandKind, Level};
use tokio::sync::{mpsc, oneshot};

use crate::apply::ReplyTo;
use crate::codec::CommandCodec;
use crate::error::{ClientError, Rejection, Uncertainty};
use crate::lanes::Lane;
use crate::machine::StateMachine;
use crate::request::{Applied, Consistency, Delivery, SessionRequest};
use crate::shared::{Closing, Shared};
use crate::submit::{Asked, Request, Stamp};

/// Asks the node that it came from. Cheap to clone; any number of tasks may use it at once.
///
/// A node takes commands from its clients in turn, and while several ask it lets each have no more on
/// its way into the log than about fills a round trip. All clones of a client are one; each that
/// [`crate::Node::client`] makes is another. So whoever has many commands waiting does not hold up those
/// who have few, if each has a client of its own. The number of requests that may wait
/// ([`crate::NodeOptions::requests_max`]) is for all clients of a node together; one may have eight times
/// as many as it leaves free, and is told `Busy` beyond.
///
/// # Cancel safety
///
/// Dropping the future of [`Client::execute`] does not withdraw the command: it may be applied
/// all the same, as after [`ClientError::Unknown`]; it is not sent again.
pub struct Client<M: StateMachine> {
    shared: Arc<Shared>,
    codec: Arc<dyn CommandCodec<M::Command>>,
    requests: mpsc::UnboundedSender<Request<ReplyTo<M>>>,
    timeout: Duration,
    /// Clones share their turns, and their places.
    lane: Lane,
}

impl<M: StateMachine> Clone for Client<M> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            codec: Arc::clone(&self.codec),
            requests: self.requests.clone(),
            timeout: self.timeout,
            lane: self.lane,
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
        let lane = shared.next_lane();
        Self { shared, codec, requests, timeout, lane }
    }

    /// The same client, waiting so long for each answer. An answer that does not come in time is
    /// said to be missing within 100 ms after that.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Has a command applied, once, and returns what the state machine replied: the reply of
    /// [`Client::execute_at`].
    pub async fn execute(&self, command: M::Command) -> Result<M::Reply, ClientError> {
        let (payload, deadline) = (self.encode(&command)?, self.deadline());
        drop(command);
        self.execute_once(payload, deadline).await.map(|applied| applied.reply)
    }

    /// Has a command applied, once, and returns in which slot, with what the state machine replied
    /// on this node: [`Client::execute_with`] and [`Delivery::ExactlyOnce`].
    pub async fn execute_at(&self, command: M::Command) -> Result<Applied<M::Reply>, ClientError> {
        self.execute_with(Delivery::ExactlyOnce, command).await
    }

    /// Has a command applied, and returns in which slot, with what the state machine replied on this
    /// node. `delivery` says whether it is sent again where nobody can say what came of it.
    ///
    /// The command is encoded on the calling task, and read back once, so that one that the codec
    /// cannot read is rejected and never stands in the log.
    ///
    /// What ends as [`ClientError::Unknown`] in a session may have been applied, once at most: its time
    /// was over, its node stopped, or its session was lost.
    pub async fn execute_with(
        &self,
        delivery: Delivery,
        command: M::Command,
    ) -> Result<Applied<M::Reply>, ClientError> {
        let payload = self.encode(&command)?;
        drop(command);
        let deadline = self.deadline();
        match delivery {
            Delivery::ExactlyOnce => self.execute_once(payload, deadline).await,
            Delivery::AtMostOnce => {
                self.send(Stamp::Single, payload, deadline, Attempt::First).await
            }
        }
    }

    /// Opens a session of the program's own, in which commands may be sent by any node, and again by
    /// another when one is lost: [`Client::attempt`]. Returns the slot from which on it is known.
    ///
    /// It lasts until it is closed, or until the log's clock is `ttl` above that of its last use, or
    /// until so many others are used that it gives way ([`paxos_core::session::Bounds`]). An
    /// id is for one call: after an error open another.
    pub async fn open_session(
        &self,
        session: SessionId,
        ttl: Duration,
    ) -> Result<Slot, ClientError> {
        let ttl = SessionTtl::from_duration(ttl);
        self.arrange(CommandKind::OpenSession { session, ttl }).await
    }

    /// Ends a session: nothing is remembered of it, and no request of it will be applied any more.
    pub async fn close_session(&self, session: SessionId) -> Result<Slot, ClientError> {
        self.arrange(CommandKind::CloseSession { session }).await
    }

    /// Sends a command of a session of the program's own, once. However often it is sent under its
    /// name, by whichever nodes, it is applied once at most.
    ///
    /// [`ClientError::Rejected`] says that this attempt is not applied, and nothing of earlier ones.
    /// After [`ClientError::Unknown`] it may be sent again, the same command under the same name.
    pub async fn attempt(
        &self,
        name: SessionRequest,
        command: M::Command,
    ) -> Result<Applied<M::Reply>, ClientError> {
        let payload = self.encode(&command)?;
        drop(command);
        self.attempt_encoded(Some(name), payload).await
    }

    /// The same with a command's bytes, which the codec reads; without a name it is of no session.
    pub(crate) async fn attempt_encoded(
        &self,
        name: Option<SessionRequest>,
        payload: Bytes,
    ) -> Result<Applied<M::Reply>, ClientError> {
        let stamp = match name {
            None => Stamp::Single,
            Some(SessionRequest { session, request, acknowledged_below }) => {
                let kind = CommandKind::InSession { session, request };
                Stamp::Given(Box::new((kind, acknowledged_below)))
            }
        };
        self.send(stamp, payload, self.deadline(), Attempt::First).await
    }

    /// Puts a command into the log that is not for the state machine.
    pub(crate) async fn arrange(&self, kind: CommandKind) -> Result<Slot, ClientError> {
        let (answer, slot) = oneshot::channel();
        let stamp = Stamp::Given(Box::new((kind, RequestNumber::default())));
        let asked = Asked::Command(stamp, Bytes::new());
        self.ask(asked, self.deadline(), ReplyTo::Session(answer), Attempt::First)?;
        // Nobody will answer: the node ended with the request in its hands.
        slot.await.unwrap_or(Err(ClientError::Unknown(Uncertainty::Stopped)))
    }

    fn encode(&self, command: &M::Command) -> Result<Bytes, ClientError> {
        let encoded = self.codec.encode(command);
        let checked = encoded.and_then(|bytes| self.codec.check(&bytes).map(|()| bytes));
        self.admit(command)?;
        checked.map_err(|error| ClientError::Rejected(Rejection::Codec(error.0)))
    }

    /// Whether the log may hold this command. Rule U3.
    pub(crate) fn admit(&self, command: &M::Command) -> Result<(), ClientError> {
        let (needed, raised) = (M::level_of(command), self.shared.level().machine);
        if needed > raised {
            return Err(ClientError::Rejected(Rejection::Level { needed, raised }));
        }
        Ok(())
    }

    /// What the log was raised to, as far as it is applied on this node.
    pub fn level(&self) -> Level {
        self.shared.level()
    }

    fn deadline(&self) -> Time {
        self.shared.clock.now().after(self.timeout)
    }

    /// Sends a command in the session of this life until something is known of it.
    async fn execute_once(
        &self,
        payload: Bytes,
        deadline: Time,
    ) -> Result<Applied<M::Reply>, ClientError> {
        let numbering = &self.shared.numbering;
        let spare = Spare::of(&payload);
        let mut payload = Some(payload);
        let (mut ticket, mut acknowledged_below) = numbering.enter();
        let mut attempt = Attempt::First;
        loop {
            let stamp = Stamp::Own(ticket.place, acknowledged_below);
            let payload = payload.take().unwrap_or_else(|| spare.bytes());
            let outcome = self.send(stamp, payload, deadline, attempt).await;
            let next = attempt.judge(outcome);
            let late = || self.shared.clock.now() >= deadline;
            match next {
                Next::Done(outcome) => return outcome,
                Next::Again(why) if late() => return Err(ClientError::Unknown(why)),
                Next::Again(why) => {
                    attempt = Attempt::After(why);
                    acknowledged_below = ticket.acknowledged_below();
                }
                Next::Anew => {
                    numbering.leave(ticket.place.session);
                    if late() {
                        return Err(ClientError::Rejected(Rejection::SessionUnknown));
                    }
                    (ticket, acknowledged_below) = numbering.enter();
                }
            }
            self.shared.meters.requests_again.add(1);
        }
    }

    /// Sends a command once.
    async fn send(
        &self,
        stamp: Stamp,
        payload: Bytes,
        deadline: Time,
        attempt: Attempt,
    ) -> Result<Applied<M::Reply>, ClientError> {
        let bytes = payload.len() + COMMAND_HEADER_LEN + stamp.encoded_len();
        let bytes_max = self.shared.command_bytes_max;
        if bytes > bytes_max {
            return Err(ClientError::Rejected(Rejection::TooLarge { bytes, bytes_max }));
        }
        let (answer, reply) = oneshot::channel();
        let waiter = ReplyTo::Command(answer);
        self.ask(Asked::Command(stamp, payload), deadline, waiter, attempt)?;
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
        self.ask(Asked::Read(consistency), self.deadline(), waiter, Attempt::First)?;
        // Nobody will answer: the node ended with the request in its hands.
        reply.await.unwrap_or(Err(ClientError::Rejected(Rejection::Stopped)))
    }

    fn ask(
        &self,
        asked: Asked,
        deadline: Time,
        waiter: ReplyTo<M>,
        attempt: Attempt,
    ) -> Result<(), ClientError> {
        let stopped = ClientError::Rejected(Rejection::Stopped);
        if self.shared.closing() != Closing::No {
            return Err(stopped);
        }
        match attempt {
            Attempt::After(_) => self.shared.lanes.admit_again(self.lane),
            Attempt::First => {
                if !self.shared.lanes.admit(self.lane) {
                    self.shared.meters.requests_busy.add(1);
                    return Err(ClientError::Rejected(Rejection::Busy));
                }
            }
        }
        let request = Request { asked, deadline, waiter, lane: self.lane };
        self.requests.send(request).map_err(|_| stopped)
    }
}

/// Payloads up to so many bytes are copied by whoever may have to send them again: the count of
/// holders of one that is shared is written to by every task that it passes.
const SPARE_LEN: usize = 64;

/// A payload that may have to be sent again.
enum Spare {
    Copied(u8, [u8; SPARE_LEN]),
    Shared(Bytes),
}

impl Spare {
    fn of(payload: &Bytes) -> Self {
        let mut copy = [0; SPARE_LEN];
        match (copy.get_mut(..payload.len()), u8::try_from(payload.len())) {
            (Some(place), Ok(len)) => {
                place.copy_from_slice(payload);
                Self::Copied(len, copy)
            }
            _ => Self::Shared(payload.clone()),
        }
    }

    fn bytes(&self) -> Bytes {
        match self {
            Self::Copied(len, copy) => Bytes::copy_from_slice(&copy[..usize::from(*len)]),
            Self::Shared(bytes) => bytes.clone(),
        }
    }
}

/// Whether a command may have been applied before it is sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Attempt {
    /// It certainly was not.
    First,
    /// Nobody can say, for this reason.
    After(Uncertainty),
}

/// What to do with a command that was sent in a session.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Next<T> {
    /// This is what became of it.
    Done(Result<T, ClientError>),
    /// It is sent again as it is; nobody can say what became of it, for this reason.
    Again(Uncertainty),
    /// It is sent in another session: it certainly was not applied.
    Anew,
}

impl Attempt {
    /// Judges by how this attempt ended, and by those before it.
    fn judge<T>(self, outcome: Result<T, ClientError>) -> Next<T> {
        match (outcome, self) {
            (Err(ClientError::Unknown(why)), _) => match why {
                Uncertainty::LeaderChanged | Uncertainty::LinkLost | Uncertainty::Skipped => {
                    Next::Again(why)
                }
                Uncertainty::Timeout | Uncertainty::Stopped | Uncertainty::SessionLost => {
                    Next::Done(Err(ClientError::Unknown(why)))
                }
            },
            (Err(ClientError::Rejected(Rejection::SessionUnknown)), Self::First) => Next::Anew,
            (Err(ClientError::Rejected(Rejection::SessionUnknown)), Self::After(_)) => {
                Next::Done(Err(ClientError::Unknown(Uncertainty::SessionLost)))
            }
            // This attempt is not applied. An earlier one may be.
            (Err(ClientError::Rejected(Rejection::Superseded)), Self::After(why)) => {
                Next::Again(why)
            }
            (Err(ClientError::Rejected(_)), Self::After(why)) => {
                Next::Done(Err(ClientError::Unknown(why)))
            }
            (outcome, _) => Next::Done(outcome),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REASONS: [Uncertainty; 3] =
        [Uncertainty::LeaderChanged, Uncertainty::LinkLost, Uncertainty::Skipped];

    #[test]
    fn a_payload_is_spared_whole_whatever_its_length() {
        for len in [0, 1, SPARE_LEN - 1, SPARE_LEN, SPARE_LEN + 1, 300, 1000] {
            let payload: Bytes = (0..len).map(|byte| byte as u8).collect();
            let spare = Spare::of(&payload);
            assert_eq!((spare.bytes(), spare.bytes()), (payload.clone(), payload));
            assert_eq!(matches!(spare, Spare::Copied(..)), len <= SPARE_LEN);
        }
    }

    /// **S7** A command is sent again only in the session and under the number that it had, unless
    /// it certainly was not applied; and it is said to be rejected only if no attempt may have
    /// applied it.
    #[test]
    fn only_what_no_attempt_may_have_applied_is_rejected() {
        let rejections = [
            Rejection::NoLeader,
            Rejection::Busy,
            Rejection::StorageFull,
            Rejection::Superseded,
            Rejection::Stopped,
            Rejection::StaleRequest,
            Rejection::SessionUnknown,
        ];
        for why in REASONS {
            for rejection in &rejections {
                let outcome: Result<u64, _> = Err(ClientError::Rejected(rejection.clone()));
                let told = Err(ClientError::Rejected(rejection.clone()));
                let lost = Err(ClientError::Unknown(Uncertainty::SessionLost));
                let (first, later) = if *rejection == Rejection::SessionUnknown {
                    (Next::Anew, Next::Done(lost))
                } else if *rejection == Rejection::Superseded {
                    (Next::Done(told), Next::Again(why))
                } else {
                    (Next::Done(told), Next::Done(Err(ClientError::Unknown(why))))
                };
                assert_eq!(Attempt::First.judge(outcome.clone()), first, "{rejection}");
                assert_eq!(Attempt::After(why).judge(outcome), later, "{rejection} after {why}");
            }
        }
    }

    /// S7: what is sent again is what nobody can say anything of, and nothing else.
    #[test]
    fn what_is_lost_is_sent_again_and_what_has_an_end_is_not() {
        for attempt in [Attempt::First, Attempt::After(Uncertainty::LinkLost)] {
            for why in REASONS {
                let outcome: Result<u64, _> = Err(ClientError::Unknown(why));
                assert_eq!(attempt.judge(outcome), Next::Again(why));
            }
            let slot = Slot::new(7);
            let ends = [
                Ok(1),
                Err(ClientError::ReplyNotKept { slot }),
                Err(ClientError::Unknown(Uncertainty::Timeout)),
                Err(ClientError::Unknown(Uncertainty::Stopped)),
                Err(ClientError::Unknown(Uncertainty::SessionLost)),
            ];
            for outcome in ends {
                assert_eq!(attempt.judge(outcome.clone()), Next::Done(outcome));
            }
        }
    }
}
