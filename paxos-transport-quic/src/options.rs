//! What an operator can set, and why a transport could not be made.
//!
//! Owns: [`QuicOptions`], [`Limits`], [`QuicError`]. Every bound of this crate is a field here, with
//! its reason. Nothing in it needs to agree between replicas.

use core::fmt;
use core::time::Duration;
use std::io;
use std::net::{SocketAddr, UdpSocket};

use paxos_core::ids::{ClusterId, ReplicaId};
use paxos_core::membership::Membership;
use paxos_core::port::Format;

use crate::identity::Identity;
use crate::tls::RosterError;

/// Everything that a [`crate::QuicTransport`] is made from.
#[derive(Debug)]
pub struct QuicOptions {
    pub(crate) cluster: ClusterId,
    pub(crate) replica: ReplicaId,
    pub(crate) membership: Membership,
    pub(crate) identity: Identity,
    pub(crate) listen: Vec<String>,
    pub(crate) sockets: Vec<UdpSocket>,
    pub(crate) limits: Limits,
}

impl QuicOptions {
    /// For the replica that `format` names, proving itself with `identity`. Without further calls
    /// it listens on the first address that the membership gives for it.
    pub fn new(format: &Format, identity: Identity) -> Self {
        Self {
            cluster: format.cluster,
            replica: format.replica,
            membership: format.membership.clone(),
            identity,
            listen: Vec::new(),
            sockets: Vec::new(),
            limits: Limits::default(),
        }
    }

    /// Also listens on `address` (`host:port`, port 0 for any). The address that peers dial stands
    /// in the membership and may differ, behind a translator for one.
    #[must_use]
    pub fn listen(mut self, address: impl Into<String>) -> Self {
        self.listen.push(address.into());
        self
    }

    /// Also listens on a socket that is bound already, for one inherited from a supervisor.
    #[must_use]
    pub fn socket(mut self, socket: UdpSocket) -> Self {
        self.sockets.push(socket);
        self
    }

    /// The membership in force, where it is not the one that the directory was formatted with.
    #[must_use]
    pub fn membership(mut self, membership: Membership) -> Self {
        self.membership = membership;
        self
    }

    /// Other bounds than the defaults.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }
}

/// The bounds of a transport, with defaults for a local network.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Limits {
    /// The largest frame, in bytes; a peer that announces a larger one is cut off before anything
    /// is allocated. Default 8 MiB; from 1 KiB to 1 GiB.
    pub frame_bytes_max: u32,
    /// Bytes queued on the control lane of one peer; beyond it the oldest frames are dropped.
    /// Default 256 KiB.
    pub control_bytes_max: usize,
    /// Bytes queued on the log lane of one peer; beyond it frames are refused. Default 4 MiB.
    pub log_bytes_max: usize,
    /// Bytes queued on the bulk lane of one peer; beyond it frames are refused. Default 8 MiB.
    pub bulk_bytes_max: usize,
    /// Frames queued on one lane of one peer, whatever their size: tiny frames cost more memory
    /// than their bytes. Default 65,536.
    pub lane_frames_max: usize,
    /// Received bytes per peer and lane that wait for the host; beyond it the lane is not read, and
    /// flow control stops the peer. Default 4 MiB.
    pub receive_bytes_max: usize,
    /// How much of one stream a peer may send before it is read: bounds how long a full lane delays
    /// the others of its connection. Default 1 MiB.
    pub stream_window: u32,
    /// The same for all streams of one connection. Default 4 MiB.
    pub connection_window: u32,
    /// How long connecting and both Hellos may take together. Default 2 s.
    pub handshake_timeout: Duration,
    /// Handshakes from outside in progress at once; further ones are ignored. Default 64.
    pub handshakes_max: usize,
    /// A link that is silent for so long is gone. Failure detection is the protocol's; this only
    /// frees the link. Default 5 s.
    pub idle_timeout: Duration,
    /// How often a silent link is probed; less than a third of `idle_timeout`, so that two probes
    /// may be lost. Default 1.5 s.
    pub keep_alive: Duration,
    /// How long a peer may delay its acknowledgements: a lost lone packet is noticed after about
    /// this and a round trip. Default 2 ms.
    pub ack_delay_max: Duration,
    /// The first guess of the round trip; a lost first packet is repeated after three times this.
    /// Default 20 ms.
    pub initial_rtt: Duration,
    /// A bulk connection that carries nothing for so long is closed. Default 30 s.
    pub bulk_idle: Duration,
    /// The shortest and longest pause between two attempts to reach a peer. Default 20 ms, 2 s.
    pub backoff: (Duration, Duration),
    /// A link that lived for so long resets the pause between attempts. Default 1 s.
    pub stable_after: Duration,
    /// A refusal of the same kind by or of the same peer is reported once in so long; all are
    /// counted. Default 10 s.
    pub refused_interval: Duration,
    /// Send and receive buffers asked of the system for each socket, in bytes; the system may give
    /// less. Default 4 MiB.
    pub socket_buffer_bytes: usize,
    /// Whether many packets are handed to the system in one call. Some network drivers fail at it.
    /// Default true.
    pub segmentation_offload: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frame_bytes_max: 8 << 20,
            control_bytes_max: 256 << 10,
            log_bytes_max: 4 << 20,
            bulk_bytes_max: 8 << 20,
            lane_frames_max: 65_536,
            receive_bytes_max: 4 << 20,
            stream_window: 1 << 20,
            connection_window: 4 << 20,
            handshake_timeout: Duration::from_secs(2),
            handshakes_max: 64,
            idle_timeout: Duration::from_secs(5),
            keep_alive: Duration::from_millis(1500),
            ack_delay_max: Duration::from_millis(2),
            initial_rtt: Duration::from_millis(20),
            bulk_idle: Duration::from_secs(30),
            backoff: (Duration::from_millis(20), Duration::from_secs(2)),
            stable_after: Duration::from_secs(1),
            refused_interval: Duration::from_secs(10),
            socket_buffer_bytes: 4 << 20,
            segmentation_offload: true,
        }
    }
}

impl Limits {
    /// Bounds for replicas in different regions: wider windows, slower timers.
    pub fn wan() -> Self {
        Self {
            stream_window: 16 << 20,
            connection_window: 32 << 20,
            handshake_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(15),
            keep_alive: Duration::from_secs(4),
            ack_delay_max: Duration::from_millis(25),
            initial_rtt: Duration::from_millis(100),
            ..Self::default()
        }
    }

    pub(crate) fn check(&self) -> Result<(), QuicError> {
        let rules = [
            (
                (1 << 10..=1 << 30).contains(&self.frame_bytes_max),
                "frame_bytes_max must be from 1 KiB to 1 GiB",
            ),
            (
                self.control_bytes_max > 0 && self.log_bytes_max > 0 && self.bulk_bytes_max > 0,
                "control_bytes_max, log_bytes_max and bulk_bytes_max must be above zero",
            ),
            (self.lane_frames_max > 0, "lane_frames_max must be above zero"),
            (self.receive_bytes_max > 0, "receive_bytes_max must be above zero"),
            (
                self.stream_window >= 16 << 10 && self.connection_window >= self.stream_window,
                "stream_window must be at least 16 KiB, and connection_window at least that",
            ),
            (
                !self.handshake_timeout.is_zero() && self.handshakes_max > 0,
                "handshake_timeout and handshakes_max must be above zero",
            ),
            (
                !self.keep_alive.is_zero() && self.keep_alive * 3 < self.idle_timeout,
                "keep_alive must be above zero and below a third of idle_timeout",
            ),
            (
                self.idle_timeout <= Duration::from_secs(3600),
                "idle_timeout must be at most an hour",
            ),
            (
                !self.initial_rtt.is_zero() && !self.bulk_idle.is_zero(),
                "initial_rtt and bulk_idle must be above zero",
            ),
            (
                !self.backoff.0.is_zero() && self.backoff.0 <= self.backoff.1,
                "backoff must be above zero, the shortest pause first",
            ),
        ];
        match rules.iter().find(|(holds, _)| !holds) {
            Some((_, rule)) => Err(QuicError::Limits { rule }),
            None => Ok(()),
        }
    }
}

/// Why a transport could not be made.
#[derive(Debug)]
#[non_exhaustive]
pub enum QuicError {
    /// This replica is not a member.
    NotMember(ReplicaId),
    /// The identity's key is not among those that the membership pins for this replica, so that no
    /// peer would believe it.
    OwnKey {
        /// This replica.
        replica: ReplicaId,
        /// The first bytes of the identity's pin.
        fingerprint: String,
    },
    /// A key that is to be let in as a client's is pinned for this member: it would have a replica's
    /// rights at its peers. Give the client a key of its own.
    ClientIsMember(ReplicaId),
    /// The membership cannot serve this transport.
    Roster(RosterError),
    /// No address or socket to listen on was given, and the membership has no address either.
    NoAddress,
    /// The address is not `host:port`, or its name is unknown.
    Address {
        /// The address.
        address: String,
        /// The cause.
        source: io::Error,
    },
    /// Somebody else listens there.
    InUse {
        /// The address.
        address: SocketAddr,
    },
    /// The socket could not be made or used.
    Socket {
        /// The address.
        address: String,
        /// The cause.
        source: io::Error,
    },
    /// A bound is out of its own bounds.
    Limits {
        /// The rule that is broken.
        rule: &'static str,
    },
    /// The key does not fit the TLS provider.
    Tls(rustls::Error),
    /// There is no tokio runtime here.
    NoRuntime,
}

impl fmt::Display for QuicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotMember(id) => write!(f, "{id} does not stand in the membership"),
            Self::OwnKey { replica, fingerprint } => write!(
                f,
                "the key of this identity, {fingerprint}, is not among those pinned for {replica}"
            ),
            Self::ClientIsMember(id) => {
                write!(f, "a key of {id} cannot be a client's too: give the client one of its own")
            }
            Self::Roster(error) => error.fmt(f),
            Self::NoAddress => f.write_str("there is no address to listen on"),
            Self::Address { address, source } => {
                write!(f, "address {address} cannot be resolved: {source}")
            }
            Self::InUse { address } => write!(f, "address {address} is in use"),
            Self::Socket { address, source } => {
                write!(f, "cannot listen on address {address}: {source}")
            }
            Self::Limits { rule } => f.write_str(rule),
            Self::Tls(error) => write!(f, "the TLS configuration was refused: {error}"),
            Self::NoRuntime => {
                f.write_str("a QUIC transport is made within a tokio runtime, and there is none")
            }
        }
    }
}

impl std::error::Error for QuicError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Roster(error) => Some(error),
            Self::Address { source, .. } | Self::Socket { source, .. } => Some(source),
            Self::Tls(error) => Some(error),
            Self::NotMember(_)
            | Self::OwnKey { .. }
            | Self::ClientIsMember(_)
            | Self::NoAddress
            | Self::InUse { .. }
            | Self::Limits { .. }
            | Self::NoRuntime => None,
        }
    }
}
