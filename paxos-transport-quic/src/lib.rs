//! Authenticated frames between replicas over QUIC: the transport port of `paxos-core`.
//!
//! [`QuicTransport`] keeps one connection to each peer of a membership, with one long-lived stream
//! per lane, and a second one for bulk transfers while there are any. Both sides prove a key that
//! the membership pins for their replica id; a link is up only after both have also said cluster,
//! id, version and incarnation, and agreed.
//!
//! Clients that are not replicas come in by a [`QuicListener`], on a port of its own, and reach one by
//! a [`QuicConnector`]: the client ports of `paxos-core`.
//!
//! Owns: sockets, TLS, framing, queues towards peers. Touches neither the protocol nor any message's
//! content. The layout of its bytes stands in docs/format-quic.md.
//!
//! ```no_run
//! use paxos_core::port::{Format, Transport as _};
//! use paxos_transport_quic::{Identity, QuicOptions, QuicTransport};
//!
//! # fn run(format: Format, incarnation: paxos_core::ids::Incarnation)
//! # -> Result<(), Box<dyn std::error::Error>> {
//! let identity = Identity::load_or_generate("replica-1.key.pem")?;
//! let options = QuicOptions::new(&format, identity).listen("0.0.0.0:7101");
//! let mut transport = QuicTransport::new(options)?;
//! transport.start(incarnation);
//! # Ok(()) }
//! ```

mod admission;
mod bulk;
mod client;
mod close;
mod dial;
mod endpoint;
mod frames;
mod greet;
mod identity;
mod inbox;
mod lanes;
mod listener;
mod options;
mod peer;
mod queue;
mod shared;
mod tls;
mod transport;
mod wire;

pub use admission::ClientKeys;
pub use client::QuicConnector;
pub use identity::{Identity, IdentityError};
pub use listener::{ListenOptions, ListenerHandle, QuicListener};
pub use options::{Limits, QuicError, QuicOptions};
pub use tls::RosterError;
pub use transport::{LinkStatus, QuicHandle, QuicTransport};
