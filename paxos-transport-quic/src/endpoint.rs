//! Sockets, and quinn's configuration.
//!
//! Owns: what is bound and with which parameters. Knows no peers.
//! Invariants: send fairness stays on, for quinn pins a half-written stream otherwise, whatever the
//! priorities; every window is bounded; migration is off, as replicas keep their addresses.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _, UdpSocket};
use std::sync::Arc;

use quinn::{AckFrequencyConfig, Endpoint, EndpointConfig, ServerConfig, TransportConfig, VarInt};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::options::{Limits, QuicError};

/// How much of a client's link either side holds in buffers before it is read or acknowledged.
const CLIENT_WINDOW: u32 = 256 << 10;

/// Binds every address that `name` stands for.
pub(crate) fn bind(name: &str) -> Result<Vec<UdpSocket>, QuicError> {
    let resolved = |source| QuicError::Address { address: name.to_owned(), source };
    let mut addresses: Vec<SocketAddr> = name.to_socket_addrs().map_err(resolved)?.collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses.into_iter().map(bind_one).collect()
}

fn bind_one(address: SocketAddr) -> Result<UdpSocket, QuicError> {
    let bound = || -> io::Result<UdpSocket> {
        let domain = Domain::for_address(address);
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            // The unspecified address serves both families; a given one serves its own.
            socket.set_only_v6(!address.ip().is_unspecified())?;
        }
        socket.bind(&address.into())?;
        Ok(socket.into())
    };
    bound().map_err(|source| {
        if source.kind() == io::ErrorKind::AddrInUse {
            QuicError::InUse { address }
        } else {
            QuicError::Socket { address: address.to_string(), source }
        }
    })
}

/// Makes an endpoint that can dial; it takes no connections before it is given a server
/// configuration.
pub(crate) fn endpoint(socket: UdpSocket, limits: &Limits) -> Result<Endpoint, QuicError> {
    let name = match socket.local_addr() {
        Ok(address) => address.to_string(),
        Err(_) => "of the given socket".to_owned(),
    };
    let buffers = SockRef::from(&socket);
    let grown = buffers
        .set_recv_buffer_size(limits.socket_buffer_bytes)
        .and_then(|()| buffers.set_send_buffer_size(limits.socket_buffer_bytes));
    if let Err(error) = grown {
        // The system's own size works too, only less well under bursts.
        tracing::debug!(address = %name, %error, "socket buffers keep their size");
    }
    let runtime = quinn::default_runtime().ok_or(QuicError::NoRuntime)?;
    Endpoint::new(EndpointConfig::default(), None, socket, runtime)
        .map_err(|source| QuicError::Socket { address: name, source })
}

/// The endpoint to reach `remote` from: one of its family, else one that serves both.
pub(crate) fn choose(endpoints: &[Endpoint], remote: SocketAddr) -> Option<&Endpoint> {
    let local = |endpoint: &Endpoint| endpoint.local_addr().ok();
    endpoints
        .iter()
        .find(|endpoint| local(endpoint).is_some_and(|local| local.is_ipv4() == remote.is_ipv4()))
        .or_else(|| {
            endpoints.iter().find(|endpoint| {
                local(endpoint).is_some_and(|local| local.is_ipv6() && local.ip().is_unspecified())
            })
        })
}

/// What a connection is for: one of the two of a peer, or a client.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Purpose {
    Main,
    Bulk,
    Client,
}

/// The parameters of a connection.
pub(crate) fn transport_config(limits: &Limits, purpose: Purpose) -> Arc<TransportConfig> {
    let mut ack = AckFrequencyConfig::default();
    ack.max_ack_delay(Some(limits.ack_delay_max)).ack_eliciting_threshold(VarInt::from_u32(2));
    let idle =
        limits.idle_timeout.try_into().expect("the timeout was checked to be at most an hour");
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(4))
        .stream_receive_window(VarInt::from_u32(limits.stream_window))
        .receive_window(VarInt::from_u32(limits.connection_window))
        .send_window(u64::from(limits.connection_window))
        .send_fairness(true)
        .initial_rtt(limits.initial_rtt)
        .ack_frequency_config(Some(ack))
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(Some(limits.keep_alive))
        .datagram_receive_buffer_size(None)
        .enable_segmentation_offload(limits.segmentation_offload);
    if purpose == Purpose::Client {
        // One stream both ways, which the client opens.
        let window = limits.stream_window.min(CLIENT_WINDOW);
        config
            .max_concurrent_bidi_streams(VarInt::from_u32(1))
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .stream_receive_window(VarInt::from_u32(window))
            .receive_window(VarInt::from_u32(window))
            .send_window(u64::from(window));
    }
    if purpose == Purpose::Bulk {
        // A queue of a transfer is time that everything else on this machine waits for.
        let window = limits.stream_window.min(1 << 20);
        config
            .stream_receive_window(VarInt::from_u32(window))
            .receive_window(VarInt::from_u32(window))
            .send_window(u64::from(limits.stream_window));
    }
    Arc::new(config)
}

/// The configuration for those who dial us.
pub(crate) fn server_config(
    crypto: quinn::crypto::rustls::QuicServerConfig,
    limits: &Limits,
    purpose: Purpose,
) -> ServerConfig {
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config
        .transport_config(transport_config(limits, purpose))
        .migration(false)
        .max_incoming(limits.handshakes_max)
        .incoming_buffer_size(64 << 10);
    config
}
