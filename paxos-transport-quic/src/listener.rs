//! Where clients that are not replicas come in: a port of its own, with a protocol of its own.
//!
//! Owns: [`QuicListener`], [`ListenOptions`], [`ListenerHandle`]; its sockets, and who is let in.
//! Invariants: (1) a client's port speaks no protocol of replicas, and a replica's none of clients,
//! so that no key opens both; (2) connections and handshakes are bounded; (3) a link is handed out
//! only while its key is let in, and ends when it is not any more.

use core::fmt;
use core::task::{Context, Poll};
use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use paxos_core::ids::ReplicaId;
use paxos_core::membership::KeyPin;
use paxos_core::port::{ClientLink, ClientListener, Format};
use quinn::{Connection, Endpoint, Incoming};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::admission::{ClientKeys, SharedClients};
use crate::client::Stream;
use crate::close::Close;
use crate::endpoint::{self, Purpose};
use crate::greet;
use crate::identity::Identity;
use crate::options::{Limits, QuicError};
use crate::tls::{self, Roster, Trust};
use crate::wire::Code;

/// How many connections there may be at once, unless the options say otherwise.
const CONNECTIONS_MAX: usize = 512;
/// Links that were made and not taken yet.
const BACKLOG: usize = 16;

/// Everything that a [`QuicListener`] is made from.
#[derive(Debug)]
pub struct ListenOptions {
    replica: ReplicaId,
    roster: Result<Roster, QuicError>,
    identity: Identity,
    clients: ClientKeys,
    listen: Vec<String>,
    sockets: Vec<UdpSocket>,
    connections_max: usize,
    limits: Limits,
}

impl ListenOptions {
    /// For the node of the replica that `format` names, which proves itself with `identity` as it does
    /// to its peers, letting in `clients`. An address or a socket is to follow.
    pub fn new(format: &Format, identity: Identity, clients: ClientKeys) -> Self {
        Self {
            replica: format.replica,
            roster: Roster::new(&format.membership).map_err(QuicError::Roster),
            identity,
            clients,
            listen: Vec::new(),
            sockets: Vec::new(),
            connections_max: CONNECTIONS_MAX,
            limits: Limits::default(),
        }
    }

    /// Listens on `address` (`host:port`, port 0 for any), which is not that of the replica.
    #[must_use]
    pub fn listen(mut self, address: impl Into<String>) -> Self {
        self.listen.push(address.into());
        self
    }

    /// Listens on a socket that is bound already.
    #[must_use]
    pub fn socket(mut self, socket: UdpSocket) -> Self {
        self.sockets.push(socket);
        self
    }

    /// So many connections at once, those that are being closed included; further ones are refused.
    /// Default 512, twice what a node serves by default.
    #[must_use]
    pub fn connections_max(mut self, connections_max: usize) -> Self {
        self.connections_max = connections_max;
        self
    }

    /// Other bounds than the defaults: those of time, handshakes, windows and sockets count.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }
}

/// Lets clients in over QUIC.
#[derive(Debug)]
pub struct QuicListener {
    shared: Arc<Shared>,
    links: mpsc::Receiver<Stream>,
    acceptors: Vec<AbortHandle>,
}

/// Changes and observes a listener that a node holds.
#[derive(Clone, Debug)]
pub struct ListenerHandle {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    clients: SharedClients,
    members: Roster,
    limits: Limits,
    endpoints: Vec<Endpoint>,
    numbers: AtomicU64,
    /// The connections that are handed out, so that they end when their key is not let in any more.
    live: Mutex<BTreeMap<u64, (KeyPin, Connection)>>,
}

/// A connection's place in the list of those that are handed out.
pub(crate) struct Listed {
    shared: Arc<Shared>,
    number: u64,
}

impl fmt::Debug for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listed").field("number", &self.number).finish_non_exhaustive()
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.shared.live.lock().expect("no holder of this lock panics").remove(&self.number);
    }
}

impl QuicListener {
    /// Checks the options, binds the sockets, and takes connections from here on.
    ///
    /// Call it within a tokio runtime whose time and network drivers are on, and keep that runtime.
    pub fn new(options: ListenOptions) -> Result<Self, QuicError> {
        let ListenOptions { replica, roster, identity, clients, listen, sockets, .. } = options;
        let (connections_max, limits) = (options.connections_max, options.limits);
        limits.check()?;
        let members = roster?;
        if members.owner(&identity.pin()) != Some(replica) {
            let fingerprint = tls::fingerprint(&identity.pin());
            return Err(QuicError::OwnKey { replica, fingerprint });
        }
        refuse_members(&members, &clients)?;
        if connections_max == 0 {
            return Err(QuicError::Limits { rule: "connections_max must be above zero" });
        }
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(QuicError::NoRuntime);
        }
        let mut sockets = sockets;
        for name in &listen {
            sockets.extend(endpoint::bind(name)?);
        }
        if sockets.is_empty() {
            return Err(QuicError::NoAddress);
        }
        let endpoints = sockets
            .into_iter()
            .map(|socket| endpoint::endpoint(socket, &limits))
            .collect::<Result<Vec<_>, _>>()?;
        let clients = SharedClients::new(clients);
        let trust = Trust::Clients(clients.clone());
        let crypto = tls::server_config(&identity, trust, &[tls::ALPN_CLIENT]);
        let server =
            endpoint::server_config(crypto.map_err(QuicError::Tls)?, &limits, Purpose::Client);
        let (sender, links) = mpsc::channel(BACKLOG);
        let connections = Arc::new(Semaphore::new(connections_max));
        let (numbers, live) = (AtomicU64::new(0), Mutex::default());
        let shared = Arc::new(Shared { clients, members, limits, endpoints, numbers, live });
        let mut acceptors = Vec::new();
        for endpoint in &shared.endpoints {
            endpoint.set_server_config(Some(server.clone()));
            let accepting = accept(
                Arc::clone(&shared),
                endpoint.clone(),
                Arc::clone(&connections),
                sender.clone(),
            );
            acceptors.push(tokio::spawn(accepting).abort_handle());
        }
        Ok(Self { shared, links, acceptors })
    }

    /// The address of the first socket: tells the port where any was asked for.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match self.shared.endpoints.first() {
            Some(endpoint) => endpoint.local_addr(),
            None => Err(io::ErrorKind::AddrNotAvailable.into()),
        }
    }

    /// A handle that stays useful when a node has taken the listener.
    pub fn handle(&self) -> ListenerHandle {
        ListenerHandle { shared: Arc::clone(&self.shared) }
    }
}

/// A key that is a member's would have a replica's rights at its peers.
fn refuse_members(members: &Roster, clients: &ClientKeys) -> Result<(), QuicError> {
    let ClientKeys::Pinned(pins) = clients else { return Ok(()) };
    match pins.iter().find_map(|pin| members.owner(pin)) {
        Some(replica) => Err(QuicError::ClientIsMember(replica)),
        None => Ok(()),
    }
}

impl ListenerHandle {
    /// Lets others in than before: links of keys that are not among them end at once.
    pub fn set_clients(&self, clients: ClientKeys) -> Result<(), QuicError> {
        refuse_members(&self.shared.members, &clients)?;
        self.shared.clients.replace(clients);
        let live = self.shared.live.lock().expect("no holder of this lock panics");
        for (pin, connection) in live.values() {
            if !self.shared.clients.lets_in(pin) {
                connection.close(Code::Key.number(), b"its key is not let in any more");
            }
        }
        Ok(())
    }
}

impl ClientListener for QuicListener {
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Option<Box<dyn ClientLink>>> {
        let link = self.links.poll_recv(cx);
        link.map(|link| link.map(|link| Box::new(link) as Box<dyn ClientLink>))
    }
}

impl Drop for QuicListener {
    fn drop(&mut self) {
        for task in self.acceptors.drain(..) {
            task.abort();
        }
        // Links that were handed out end with their holder.
        for endpoint in &self.shared.endpoints {
            endpoint.set_server_config(None);
        }
    }
}

/// Takes connections, a bounded number altogether, and of handshakes at a time.
async fn accept(
    shared: Arc<Shared>,
    endpoint: Endpoint,
    connections: Arc<Semaphore>,
    links: mpsc::Sender<Stream>,
) {
    let handshakes = Arc::new(Semaphore::new(shared.limits.handshakes_max));
    while let Some(incoming) = endpoint.accept().await {
        let remote = incoming.remote_address();
        let Ok(handshake) = Arc::clone(&handshakes).try_acquire_owned() else {
            tracing::debug!(%remote, "too many handshakes");
            incoming.ignore();
            continue;
        };
        let Ok(connection) = Arc::clone(&connections).try_acquire_owned() else {
            tracing::debug!(%remote, "too many connections");
            incoming.refuse();
            continue;
        };
        let (shared, links) = (Arc::clone(&shared), links.clone());
        tokio::spawn(async move {
            match welcome(&shared, incoming, connection).await {
                // A listener that is gone takes no more.
                Ok(link) => drop(links.send(link).await),
                Err(close) => tracing::debug!(%remote, reason = %close.text, "no client"),
            }
            drop(handshake);
        });
    }
}

/// Makes a link of a connection, if its key is let in.
async fn welcome(
    shared: &Arc<Shared>,
    incoming: Incoming,
    permit: OwnedSemaphorePermit,
) -> Result<Stream, Close> {
    let limit = shared.limits.handshake_timeout;
    let late = |_| Close::ours(Code::Timeout, format!("no stream within {limit:?}"));
    let connection = timeout(limit, incoming).await.map_err(late)??;
    let refused = |connection: &Connection, close: Close| {
        let code = close.code.unwrap_or(Code::Protocol);
        connection.close(code.number(), close.text.as_bytes());
        close
    };
    let unknown = || Close::ours(Code::Key, "its key is not that of a client who is let in");
    let key = greet::pin_of(&connection).ok_or_else(|| refused(&connection, unknown()))?;
    let opened = timeout(limit, connection.accept_bi()).await;
    let opened = opened.map_err(late).and_then(|streams| streams.map_err(Close::from));
    let streams = opened.map_err(|close| refused(&connection, close))?;
    let number = shared.numbers.fetch_add(1, Ordering::Relaxed);
    {
        let mut live = shared.live.lock().expect("no holder of this lock panics");
        live.insert(number, (key, connection.clone()));
    }
    let listed = Listed { shared: Arc::clone(shared), number };
    // Looked up after it is listed, so that a change at this very moment is noticed here or there.
    if !shared.clients.lets_in(&key) {
        return Err(refused(&connection, unknown()));
    }
    Ok(Stream::new(connection, streams, Some(key), Some((permit, listed))))
}
