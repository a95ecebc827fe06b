//! The transport that a host holds, and the handle that changes its membership.
//!
//! Owns: [`QuicTransport`], [`QuicHandle`]; start and end of all tasks.
//! Invariants: dropping the transport closes every connection and ends every task; a peer without
//! a key in the membership has no link.
//!
//! Pattern: Single-Socket Channel.

use core::fmt;
use core::task::{Context, Poll};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use paxos_core::ids::{Incarnation, ReplicaId};
use paxos_core::membership::{Member, Membership};
use paxos_core::port::{Frame, Sent, Transport, TransportCounters, TransportEvent};
use quinn::Endpoint;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use crate::close::Close;
use crate::endpoint::Purpose;
use crate::inbox::Outlet;
use crate::options::{QuicError, QuicOptions};
use crate::peer::Peer;
use crate::shared::{Entry, Shared};
use crate::tls::{self, Roster, RosterError, SharedRoster, Trust};
use crate::wire::Code;
use crate::{dial, endpoint, greet};

/// Frames between replicas over QUIC.
pub struct QuicTransport {
    shared: Arc<Shared>,
    outlet: Outlet,
    server: Option<quinn::ServerConfig>,
    acceptors: Vec<AbortHandle>,
}

/// Changes and observes a transport that a host holds.
#[derive(Clone)]
pub struct QuicHandle {
    shared: Arc<Shared>,
}

/// A link as it stands.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct LinkStatus {
    /// The peer.
    pub peer: ReplicaId,
    /// Its life.
    pub incarnation: Incarnation,
    /// The side that dialled.
    pub dialled_by: ReplicaId,
    /// The peer's address.
    pub remote: SocketAddr,
    /// The round trip that QUIC estimates.
    pub round_trip: core::time::Duration,
    /// Packets that were lost, by QUIC's count.
    pub packets_lost: u64,
}

impl fmt::Debug for QuicTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicTransport")
            .field("replica", &self.shared.replica)
            .field("cluster", &self.shared.cluster)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for QuicHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicHandle").field("replica", &self.shared.replica).finish_non_exhaustive()
    }
}

impl QuicTransport {
    /// Checks the options and binds the sockets. Connections are made and taken from the start on.
    ///
    /// Call it within a tokio runtime whose time and network drivers are on, and keep that runtime.
    pub fn new(options: QuicOptions) -> Result<Self, QuicError> {
        let QuicOptions { cluster, replica, membership, identity, listen, mut sockets, limits } =
            options;
        limits.check()?;
        let roster = Roster::new(&membership).map_err(QuicError::Roster)?;
        if !roster.contains(replica) {
            return Err(QuicError::NotMember(replica));
        }
        if roster.owner(&identity.pin()) != Some(replica) {
            return Err(QuicError::OwnKey {
                replica,
                fingerprint: tls::fingerprint(&identity.pin()),
            });
        }
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(QuicError::NoRuntime);
        }
        let mut names = listen;
        if names.is_empty() && sockets.is_empty() {
            let own = roster.addresses(replica).first();
            names.push(own.ok_or(QuicError::NoAddress)?.clone());
        }
        for name in &names {
            sockets.extend(endpoint::bind(name)?);
        }
        let endpoints = sockets
            .into_iter()
            .map(|socket| endpoint::endpoint(socket, &limits))
            .collect::<Result<Vec<_>, _>>()?;
        let roster = SharedRoster::new(roster);
        let trust = Trust::Members { roster: roster.clone(), expected: None };
        let alpn = [tls::ALPN_MAIN, tls::ALPN_BULK];
        let crypto = tls::server_config(&identity, trust, &alpn).map_err(QuicError::Tls)?;
        let server = endpoint::server_config(crypto, &limits, Purpose::Main);
        let shared = Shared::new(cluster, replica, identity, limits, roster, endpoints);
        let outlet = Outlet::new(Arc::clone(&shared.inbox));
        Ok(Self { shared: Arc::new(shared), outlet, server: Some(server), acceptors: Vec::new() })
    }

    /// The address of the first socket: tells the port where any was asked for.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match self.shared.endpoints.first() {
            Some(endpoint) => endpoint.local_addr(),
            None => Err(io::ErrorKind::AddrNotAvailable.into()),
        }
    }

    /// A handle that stays useful when a host has taken the transport.
    pub fn handle(&self) -> QuicHandle {
        QuicHandle { shared: Arc::clone(&self.shared) }
    }
}

impl Transport for QuicTransport {
    fn replica(&self) -> ReplicaId {
        self.shared.replica
    }

    fn frame_bytes_max(&self) -> usize {
        self.shared.limits.frame_bytes_max as usize
    }

    fn start(&mut self, incarnation: Incarnation) {
        let server = self.server.take().expect("a transport is started once");
        self.shared.incarnation.set(incarnation).expect("a transport is started once");
        let roster = self.shared.roster.current();
        let peers = roster.members().filter(|id| *id != self.shared.replica);
        for id in peers {
            add_peer(&self.shared, id);
        }
        // Whoever dials us from here on is known as a peer.
        for endpoint in &self.shared.endpoints {
            endpoint.set_server_config(Some(server.clone()));
            let accepting = accept(Arc::clone(&self.shared), endpoint.clone());
            self.acceptors.push(tokio::spawn(accepting).abort_handle());
        }
    }

    fn send(&mut self, to: ReplicaId, frame: Frame) -> Sent {
        let counts = &self.shared.counts;
        let peers = self.shared.peers.read().expect("no holder of this lock panics");
        let Some(Entry { peer, .. }) = peers.get(&to) else {
            counts.refused_down.fetch_add(1, Ordering::Relaxed);
            return Sent::Down;
        };
        let pushed = peer.queue(frame.lane).push(frame, peer.frame_max());
        match pushed.sent {
            Sent::Full => {
                counts.refused_full.fetch_add(1, Ordering::Relaxed);
            }
            Sent::Down => {
                counts.refused_down.fetch_add(1, Ordering::Relaxed);
            }
            Sent::Queued | Sent::TooLarge => {}
        }
        if pushed.dropped > 0 {
            counts.dropped_oldest.fetch_add(pushed.dropped, Ordering::Relaxed);
            tracing::debug!(peer = %to, dropped = pushed.dropped, "control lane is full");
        }
        if pushed.coalesced {
            counts.coalesced.fetch_add(1, Ordering::Relaxed);
        }
        pushed.sent
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<TransportEvent>> {
        self.outlet.poll(cx)
    }

    fn counters(&self) -> TransportCounters {
        self.shared.counts.read()
    }

    fn admits(&self, members: &[Member]) -> Result<(), String> {
        let lonely = members.iter().find(|member| member.addresses.is_empty());
        if let Some(member) = lonely {
            return Err(format!("{} has no address: nobody could dial it", member.id));
        }
        Roster::of(members).map(drop).map_err(|error| error.to_string())
    }

    fn set_members(&mut self, members: &[Member]) {
        match Roster::of(members) {
            Ok(roster) => put_in_force(&self.shared, roster),
            // The log says so, and it cannot be refused here: those who are linked stay.
            Err(error) => tracing::error!(
                replica = %self.shared.replica,
                %error,
                "the links stay as they were: change the membership again"
            ),
        }
    }
}

impl Drop for QuicTransport {
    fn drop(&mut self) {
        for task in self.acceptors.drain(..) {
            task.abort();
        }
        let mut peers = self.shared.peers.write().expect("no holder of this lock panics");
        let close = Close::ours(Code::Shutdown, "the replica stops");
        for entry in peers.values() {
            if let Some(dialer) = &entry.dialer {
                dialer.abort();
            }
            entry.peer.cut(&close, &self.shared.inbox, |_| true);
        }
        peers.clear();
        drop(peers);
        self.shared.inbox.stop();
        for endpoint in &self.shared.endpoints {
            endpoint.close(Code::Shutdown.number(), close.text.as_bytes());
        }
    }
}

impl QuicHandle {
    /// Puts another membership in force: links to those whose key it does not contain end at once,
    /// and new members are dialled.
    pub fn set_membership(&self, membership: &Membership) -> Result<(), RosterError> {
        put_in_force(&self.shared, Roster::new(membership)?);
        Ok(())
    }

    /// The links that are up, in rising order of peers.
    pub fn links(&self) -> Vec<LinkStatus> {
        let peers = self.shared.peers.read().expect("no holder of this lock panics");
        let status = |entry: &Entry| {
            let slot = entry.peer.link();
            let link = slot.as_ref()?;
            Some(LinkStatus {
                peer: entry.peer.id,
                incarnation: link.incarnation,
                dialled_by: link.dialled_by,
                remote: link.connection.remote_address(),
                round_trip: link.connection.rtt(),
                packets_lost: link.connection.stats().path.lost_packets,
            })
        };
        peers.values().filter_map(status).collect()
    }

    /// How many connections are open, those of handshakes in progress and those that linger after
    /// their close included.
    pub fn connections(&self) -> usize {
        let endpoints = self.shared.endpoints.iter();
        endpoints.map(Endpoint::open_connections).sum()
    }

    /// Waits until every connection that was closed has ended on the wire. Once the transport and
    /// all its handles are dropped after that, its sockets are free. Cancel safe.
    pub async fn wait_idle(&self) {
        for endpoint in &self.shared.endpoints {
            endpoint.wait_idle().await;
        }
    }
}

/// Ends the links of those whose key the roster does not contain, and dials those who are new in it.
fn put_in_force(shared: &Arc<Shared>, roster: Roster) {
    let wanted: Vec<_> = roster.members().filter(|id| *id != shared.replica).collect();
    shared.roster.replace(roster);
    if shared.incarnation.get().is_none() {
        return;
    }
    let roster = shared.roster.current();
    {
        let mut peers = shared.peers.write().expect("no holder of this lock panics");
        let close = Close::ours(Code::Key, "its key was removed from the membership");
        for entry in peers.values() {
            let id = entry.peer.id;
            entry.peer.cut(&close, &shared.inbox, |link| roster.owner(&link.pin) != Some(id));
        }
        peers.retain(|id, entry| {
            let stays = wanted.contains(id);
            if let (false, Some(dialer)) = (stays, &entry.dialer) {
                dialer.abort();
            }
            stays
        });
    }
    for id in wanted {
        add_peer(shared, id);
    }
}

fn add_peer(shared: &Arc<Shared>, id: ReplicaId) {
    let mut peers = shared.peers.write().expect("no holder of this lock panics");
    peers.entry(id).or_insert_with(|| {
        let peer = Peer::new(id, &shared.limits);
        let dialing = dial::keep(Arc::clone(shared), Arc::clone(&peer));
        Entry { peer, dialer: Some(tokio::spawn(dialing).abort_handle()) }
    });
}

/// Takes connections, a bounded number of handshakes at a time.
async fn accept(shared: Arc<Shared>, endpoint: Endpoint) {
    let permits = Arc::new(Semaphore::new(shared.limits.handshakes_max));
    while let Some(incoming) = endpoint.accept().await {
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
            tracing::debug!(remote = %incoming.remote_address(), "too many handshakes");
            incoming.ignore();
            continue;
        };
        let answering = greet::answer(Arc::clone(&shared), incoming);
        tokio::spawn(async move {
            answering.await;
            drop(permit);
        });
    }
}
