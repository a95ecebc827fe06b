//! One remote client after another, and what each of them asks for.
//!
//! Owns: [`Hall`], what all links of a serving share; the task of one link, which drives its
//! [`Desk`]; how a request is carried out.
//! Invariants: (1) a remote client asks through [`Client`], as the node's own program does, in
//! sessions that no node uses; (2) bytes that the codec does not read are never proposed.

use core::future::{pending, poll_fn};
use core::time::Duration;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use paxos_core::ballot::Ballot;
use paxos_core::ids::{SessionId, Slot};
use paxos_core::membership::KeyPin;
use paxos_core::port::ClientLink;
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::sleep_until;

use crate::client::Client;
use crate::codec::{self, CodecError, CommandCodec};
use crate::error::{ClientError, Rejection};
use crate::machine::StateMachine;
use crate::node;
use crate::remote::desk::{Bounds, Desk};
use crate::remote::seats::{Counts, Seat};
use crate::remote::serve::ServeOptions;
use crate::remote::wire::{Done, HEAD_BYTES, Request, Wanted, Welcome};
use crate::remote::{Moved, READ_BYTES, poll_link};
use crate::request::{Applied, Consistency, SessionRequest};
use crate::shared::Shared;

/// What the links of one serving share.
pub(crate) struct Hall<M: StateMachine> {
    pub(crate) place: node::Place,
    pub(crate) client: Client<M>,
    pub(crate) codec: Arc<dyn CommandCodec<M::Command>>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) counts: Arc<Counts>,
    pub(crate) options: ServeOptions,
}

/// Why a link ends.
enum End {
    /// The client left, or its link fell.
    Gone,
    /// The node has stopped.
    Stopped,
    /// For something that the client did, or did not do in time.
    Cut(String),
}

/// Serves one link to its end, and closes it.
pub(crate) async fn attend<M>(mut link: Box<dyn ClientLink>, seat: Seat, hall: Arc<Hall<M>>)
where
    M: StateMachine,
    M::Query: DeserializeOwned,
    M::Answer: Serialize,
{
    match talk(&mut *link, &hall).await {
        End::Gone => {}
        End::Stopped => link.close("the node has stopped"),
        End::Cut(reason) => {
            hall.counts.cut.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(remote = %link.remote(), %reason, "a client is cut off");
            link.close(&reason);
        }
    }
    drop(seat);
}

type Outcome = Result<Done, ClientError>;

/// What happens to a link.
enum Event {
    Moved(io::Result<Moved>),
    Answered(u64, Outcome),
    NodeStopped,
    TooLate,
}

/// Serves one link to its end.
async fn talk<M>(link: &mut dyn ClientLink, hall: &Hall<M>) -> End
where
    M: StateMachine,
    M::Query: DeserializeOwned,
    M::Answer: Serialize,
{
    let mut desk = Desk::new(hall.welcome(), hall.bounds());
    let mut running = FuturesUnordered::new();
    let mut buffer = vec![0; READ_BYTES];
    let mut stopped = hall.shared.stopped.subscribe();
    let (mut has_stopped, key) = (false, link.key());
    let greeting_limit = Instant::now() + hall.options.greeting_timeout;
    // By when the client must take some of what it is owed.
    let mut stall_limit = None;
    loop {
        while !has_stopped && let Some(next) = desk.next().transpose() {
            match next {
                Ok(request) => {
                    hall.counts.requests.fetch_add(1, Ordering::Relaxed);
                    running.push(hall.answer(request, key));
                }
                Err(breach) => return End::Cut(breach.to_string()),
            }
        }
        if has_stopped && desk.leave() {
            return End::Stopped;
        }
        let owes = !desk.out().is_empty();
        let stall = Instant::now() + hall.options.stall_timeout;
        stall_limit = owes.then(|| stall_limit.unwrap_or(stall));
        let limit = stall_limit.or((!desk.is_greeted()).then_some(greeting_limit));
        let mut into = (!has_stopped && desk.wants_bytes()).then_some(&mut buffer[..]);
        let (is_due, out) = (owes || into.is_some(), desk.out());
        let event = tokio::select! {
            moved = poll_fn(|cx| poll_link(link, cx, out, into.as_deref_mut())), if is_due => {
                Event::Moved(moved)
            }
            Some((number, outcome)) = running.next() => Event::Answered(number, outcome),
            _ = stopped.wait_for(Option::is_some), if !has_stopped => Event::NodeStopped,
            () = wait_until(limit) => Event::TooLate,
        };
        match event {
            Event::Moved(Ok(Moved::Wrote)) => stall_limit = None,
            Event::Moved(Ok(Moved::Read(0)) | Err(_)) => return End::Gone,
            Event::Moved(Ok(Moved::Read(count))) => desk.feed(&buffer[..count]),
            Event::Answered(number, outcome) => desk.answer(number, outcome),
            Event::NodeStopped => has_stopped = true,
            Event::TooLate if owes => return End::Cut("answers are not taken".to_owned()),
            Event::TooLate => return End::Cut("no greeting in time".to_owned()),
        }
    }
}

/// Waits for this time; for ever, where there is none.
async fn wait_until(limit: Option<Instant>) {
    match limit {
        Some(limit) => sleep_until(limit.into()).await,
        None => pending().await,
    }
}

impl<M> Hall<M>
where
    M: StateMachine,
    M::Query: DeserializeOwned,
    M::Answer: Serialize,
{
    fn welcome(&self) -> Welcome {
        let leader = self.shared.events.borrow().leader.map(Ballot::leader);
        let frame_max = self.shared.command_bytes_max.saturating_add(HEAD_BYTES);
        Welcome {
            cluster: self.place.cluster,
            group: self.place.group,
            frame_max: u32::try_from(frame_max).unwrap_or(u32::MAX),
            requests_max: u32::try_from(self.options.requests_max).unwrap_or(u32::MAX),
            replica: self.place.replica,
            leader,
        }
    }

    fn bounds(&self) -> Bounds {
        Bounds {
            requests: self.options.requests_max,
            request_bytes: self.options.request_bytes_max,
            answer_bytes: self.options.answer_bytes_max,
        }
    }

    async fn answer(&self, request: Request, key: Option<KeyPin>) -> (u64, Outcome) {
        let timeout = request.timeout.min(self.options.timeout_max);
        let client = self.client.clone().with_timeout(timeout);
        let outcome = match request.wanted {
            Wanted::Command(name, payload) => self.execute(&client, name, payload).await,
            Wanted::Open(session, ttl) => {
                let ttl = Duration::from_millis(ttl.millis());
                self.open(&client, key, session, ttl).await
            }
            Wanted::Read(consistency, query) => self.read(&client, consistency, &query).await,
        };
        (request.number, outcome)
    }

    /// Rule C2: what does not decode would stop every node at its slot.
    async fn execute(
        &self,
        client: &Client<M>,
        name: Option<SessionRequest>,
        payload: Bytes,
    ) -> Outcome {
        let command = self.codec.decode(payload.clone()).map_err(codec_refuses)?;
        client.admit(&command)?;
        drop(command);
        let name = name.map(|name| SessionRequest { session: of_a_client(name.session), ..name });
        let Applied { slot, reply } = client.attempt_encoded(name, payload).await?;
        match postcard::to_stdvec(&reply) {
            Ok(bytes) => Ok(Done { slot, payload: bytes.into() }),
            Err(_) => Err(ClientError::ReplyNotKept { slot }),
        }
    }

    /// Has a session opened, if this key did not open too many of late.
    async fn open(
        &self,
        client: &Client<M>,
        key: Option<KeyPin>,
        session: SessionId,
        ttl: Duration,
    ) -> Outcome {
        if !self.counts.may_open(key, self.options.sessions_per_minute_max, Instant::now()) {
            return Err(ClientError::Rejected(Rejection::Busy));
        }
        let slot = client.open_session(of_a_client(session), ttl).await?;
        Ok(Done { slot, payload: Bytes::new() })
    }

    async fn read(&self, client: &Client<M>, consistency: Consistency, query: &[u8]) -> Outcome {
        let query = codec::read(query).map_err(codec_refuses)?;
        let answer = client.read(consistency, query).await?;
        match postcard::to_stdvec(&answer) {
            Ok(bytes) => Ok(Done { slot: Slot::ZERO, payload: bytes.into() }),
            Err(error) => Err(ClientError::Rejected(Rejection::Answer(error.to_string()))),
        }
    }
}

fn codec_refuses(error: CodecError) -> ClientError {
    ClientError::Rejected(Rejection::Codec(error.0))
}

/// The session of a remote client: its upper 16 bits are zero, where those of a node's own have the
/// number of a replica, from 1 on. Rule C1: no client may meddle with the session of another's node.
fn of_a_client(session: SessionId) -> SessionId {
    SessionId::new(session.bits() & (u128::MAX >> 16))
}
