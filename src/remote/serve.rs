//! The node's side of its remote clients: who is let in, and what each may have open.
//!
//! Owns: [`ServeOptions`], [`Serving`], the task that takes links, and one task for each of them.
//! Invariants: (1) a remote client asks through [`Client`], as the node's own program does; (2) bytes
//! that the codec does not read are never proposed; (3) links are bounded, altogether and for each
//! key, and so is what each may have open: a client that is slow or hostile costs bounded memory, and
//! the others nothing.

use core::future::{pending, poll_fn};
use core::time::Duration;
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use paxos_core::ballot::Ballot;
use paxos_core::ids::{SessionId, Slot};
use paxos_core::membership::KeyPin;
use paxos_core::port::{ClientLink, ClientListener};
use serde::{Serialize, de::DeserializeOwned};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep_until, timeout};

use crate::client::{Applied, Client, Consistency, SessionRequest};
use crate::codec::{self, CodecError, CommandCodec};
use crate::error::{ClientError, Rejection, StartError};
use crate::machine::StateMachine;
use crate::node::{self, Node};
use crate::remote::desk::{Bounds, Desk};
use crate::remote::wire::{Done, HEAD_BYTES, Request, Wanted, Welcome};
use crate::remote::{Moved, READ_BYTES, poll_link};
use crate::shared::{Closing, Shared};

/// What a key's share of sessions is counted over.
const MINUTE: Duration = Duration::from_secs(60);
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

/// What the clients of one key have.
#[derive(Clone, Copy, Debug)]
struct Share {
    links: usize,
    /// Sessions opened since this time, for a minute.
    opened: usize,
    since: Instant,
}

#[derive(Debug, Default)]
struct Counts {
    by_key: Mutex<BTreeMap<Option<KeyPin>, Share>>,
    refused: AtomicU64,
    cut: AtomicU64,
    requests: AtomicU64,
}

impl Counts {
    /// Readable even if a holder panicked.
    fn by_key(&self) -> MutexGuard<'_, BTreeMap<Option<KeyPin>, Share>> {
        self.by_key.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a session from the share of a key, if one is left in this minute.
    fn may_open(&self, key: Option<KeyPin>, opened_max: usize, now: Instant) -> bool {
        let mut by_key = self.by_key();
        let fresh = Share { links: 0, opened: 0, since: now };
        let share = by_key.entry(key).or_insert(fresh);
        if now.duration_since(share.since) >= MINUTE {
            (share.opened, share.since) = (0, now);
        }
        share.opened += 1;
        share.opened <= opened_max
    }
}

impl Serving {
    /// What is counted. Cheap.
    pub fn status(&self) -> ServingStatus {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ServingStatus {
            links: self.counts.by_key().values().map(|share| share.links as u64).sum(),
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

/// One link's share of the bound.
struct Seat {
    counts: Arc<Counts>,
    key: Option<KeyPin>,
}

impl Seat {
    fn take(counts: &Arc<Counts>, key: Option<KeyPin>, options: &ServeOptions) -> Option<Self> {
        let mut by_key = counts.by_key();
        let now = Instant::now();
        // A key that left is remembered for as long as its share of sessions counts.
        by_key.retain(|_, share| share.links > 0 || now.duration_since(share.since) < MINUTE);
        let all: usize = by_key.values().map(|share| share.links).sum();
        let share = by_key.entry(key).or_insert(Share { links: 0, opened: 0, since: now });
        if all >= options.links_max || share.links >= options.links_per_key_max {
            return None;
        }
        share.links += 1;
        Some(Self { counts: Arc::clone(counts), key })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(share) = self.counts.by_key().get_mut(&self.key) {
            share.links -= 1;
        }
    }
}

/// What the links of one serving share.
struct Hall<M: StateMachine> {
    place: node::Place,
    client: Client<M>,
    codec: Arc<dyn CommandCodec<M::Command>>,
    shared: Arc<Shared>,
    counts: Arc<Counts>,
    options: ServeOptions,
}

impl<M> Node<M>
where
    M: StateMachine,
    M::Query: DeserializeOwned,
    M::Answer: Serialize,
{
    /// Serves remote clients: whoever `listener` lets in may do what a [`Client`] of this node may,
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

/// Why a link ends.
enum End {
    /// The client left, or its link fell.
    Gone,
    /// The node has stopped.
    Stopped,
    /// For something that the client did, or did not do in time.
    Cut(String),
}

async fn attend<M>(mut link: Box<dyn ClientLink>, seat: Seat, hall: Arc<Hall<M>>)
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
        self.codec.decode(payload.clone()).map_err(codec_refuses)?;
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
