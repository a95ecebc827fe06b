//! A client's connection: one stream both ways over a connection of its own, and the end that dials.
//!
//! Owns: [`QuicConnector`], and [`Stream`], which both ends have. Knows nothing of what is said.
//! Invariants: (1) a node is linked only if it proves the key of the replica that is meant; (2) what
//! was taken to be sent before a close is given a moment to arrive.

use core::fmt;
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;
use std::io;
use std::sync::Arc;

use paxos_core::ids::ReplicaId;
use paxos_core::membership::{KeyPin, Member};
use paxos_core::port::{ClientConnector, ClientLink, Connecting};
use quinn::{Connection, ConnectionError, Endpoint, ReadError, RecvStream, SendStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use crate::close::Close;
use crate::endpoint::Purpose;
use crate::identity::Identity;
use crate::listener::Listed;
use crate::options::{Limits, QuicError};
use crate::tls::{Roster, SharedRoster};
use crate::wire::Code;
use crate::{dial, endpoint, greet};

/// How long the last bytes have to arrive before the connection is closed.
const CLOSE_GRACE: Duration = Duration::from_secs(1);

/// Reaches the nodes of a cluster at the ports where they listen for clients.
pub struct QuicConnector {
    means: Arc<Means>,
    order: Vec<ReplicaId>,
}

struct Means {
    identity: Identity,
    roster: SharedRoster,
    limits: Limits,
    endpoints: Vec<Endpoint>,
}

impl fmt::Debug for QuicConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicConnector").field("replicas", &self.order).finish_non_exhaustive()
    }
}

impl QuicConnector {
    /// Reaches these nodes: of each member its id, the addresses where it listens for clients
    /// (`host:port`, resolved at each attempt), and the pins of its own keys, which are those of the
    /// membership. `identity` is the client's: its pin is what the nodes let it in by.
    ///
    /// Call it within a tokio runtime whose time and network drivers are on, and keep that runtime.
    pub fn new(nodes: &[Member], identity: Identity) -> Result<Self, QuicError> {
        Self::with_limits(nodes, identity, Limits::default())
    }

    /// The same with other bounds: those of time, windows and sockets count.
    pub fn with_limits(
        nodes: &[Member],
        identity: Identity,
        limits: Limits,
    ) -> Result<Self, QuicError> {
        limits.check()?;
        let roster = Roster::of(nodes).map_err(QuicError::Roster)?;
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(QuicError::NoRuntime);
        }
        let mut sockets = endpoint::bind("0.0.0.0:0")?;
        // A machine without IPv6 reaches what is on IPv4.
        sockets.extend(endpoint::bind("[::]:0").unwrap_or_default());
        let endpoints = sockets
            .into_iter()
            .map(|socket| endpoint::endpoint(socket, &limits))
            .collect::<Result<Vec<_>, _>>()?;
        let roster = SharedRoster::new(roster);
        let order = nodes.iter().map(|node| node.id).collect();
        Ok(Self { means: Arc::new(Means { identity, roster, limits, endpoints }), order })
    }
}

impl ClientConnector for QuicConnector {
    fn replicas(&self) -> Vec<ReplicaId> {
        self.order.clone()
    }

    fn connect(&self, to: ReplicaId) -> Connecting {
        let means = Arc::clone(&self.means);
        Box::pin(async move {
            let linked = means.link(to).await;
            linked.map_err(|close| io::Error::new(io::ErrorKind::ConnectionRefused, close.text))
        })
    }
}

impl Means {
    async fn link(&self, to: ReplicaId) -> Result<Box<dyn ClientLink>, Close> {
        let Self { identity, roster, limits, endpoints } = self;
        let connection =
            dial::reach(identity, roster, limits, endpoints, to, Purpose::Client).await?;
        let streams = timeout(limits.handshake_timeout, connection.open_bi()).await;
        let streams = streams.map_err(|_| Close::lost("the node takes no stream"))??;
        let key = greet::pin_of(&connection);
        Ok(Box::new(Stream::new(connection, streams, key, None)))
    }
}

/// One end of a client's link.
pub(crate) struct Stream {
    connection: Connection,
    /// Gone once it is closed.
    send: Option<SendStream>,
    receive: RecvStream,
    key: Option<KeyPin>,
    /// What it has of the listener's bounds; kept until the connection is closed.
    share: Option<(OwnedSemaphorePermit, Listed)>,
    /// Waits for the words of the close, once the other end has sent all.
    ending: Option<Ending>,
}

/// Why the other end closed, if it does so in time.
type Ending = Pin<Box<dyn Future<Output = Option<ConnectionError>> + Send>>;

impl Stream {
    pub(crate) fn new(
        connection: Connection,
        (send, receive): (SendStream, RecvStream),
        key: Option<KeyPin>,
        share: Option<(OwnedSemaphorePermit, Listed)>,
    ) -> Self {
        Self { connection, send: Some(send), receive, key, share, ending: None }
    }

    /// The other end sent all: it closes the connection next, and says why.
    fn poll_ending(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let connection = self.connection.clone();
        let ending = self.ending.get_or_insert_with(|| {
            Box::pin(async move { timeout(2 * CLOSE_GRACE, connection.closed()).await.ok() })
        });
        ending.as_mut().poll(cx).map(|closed| match closed {
            Some(error) => Err(aborted(Close::from(error).text)),
            None => Ok(0),
        })
    }

    fn close_with(&mut self, code: Code, reason: &str) {
        let Some(mut send) = self.send.take() else { return };
        let (connection, share) = (self.connection.clone(), self.share.take());
        let reason = reason.to_owned();
        let closing = async move {
            if send.finish().is_ok() {
                let _ = timeout(CLOSE_GRACE, send.stopped()).await;
            }
            connection.close(code.number(), reason.as_bytes());
            drop(share);
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(closing)),
            // The end of the runtime closes it without words.
            Err(_) => drop(closing),
        }
    }

    fn fallen(&self, words: &dyn fmt::Display) -> io::Error {
        let text = match self.connection.close_reason() {
            Some(reason) => Close::from(reason).text,
            None => words.to_string(),
        };
        aborted(text)
    }
}

fn aborted(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, text)
}

impl ClientLink for Stream {
    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        if self.ending.is_some() {
            return self.poll_ending(cx);
        }
        match self.receive.poll_read(cx, into) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(0)) => self.poll_ending(cx),
            Poll::Ready(Ok(count)) => Poll::Ready(Ok(count)),
            Poll::Ready(Err(ReadError::ConnectionLost(error))) => {
                Poll::Ready(Err(aborted(Close::from(error).text)))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(self.fallen(&error))),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Some(send) = &mut self.send else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        match Pin::new(send).poll_write(cx, bytes) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(count)) => Poll::Ready(Ok(count)),
            Poll::Ready(Err(error)) => Poll::Ready(Err(self.fallen(&error))),
        }
    }

    fn close(&mut self, reason: &str) {
        self.close_with(Code::Protocol, reason);
    }

    fn key(&self) -> Option<KeyPin> {
        self.key
    }

    fn remote(&self) -> String {
        self.connection.remote_address().to_string()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.close_with(Code::Shutdown, "the other end left");
    }
}
