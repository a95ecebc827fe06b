//! Multi-Paxos consensus as a library: a state machine of yours, replicated.

pub mod codec;
pub mod error;
pub mod machine;
pub mod memory;
pub mod metrics;

mod apply;
mod builder;
mod client;
mod clock;
mod dispatch;
mod driver;
mod forward;
mod frame;
mod histogram;
mod journal;
mod node;
mod options;
mod router;
mod shared;
mod submit;
mod waiters;

pub use async_trait::async_trait;
pub use paxos_core as core;
#[cfg(feature = "wal")]
pub use paxos_storage as storage;
#[cfg(feature = "quic")]
pub use paxos_transport_quic as quic;

pub use paxos_core::config::Config;
pub use paxos_core::ids::{ClusterId, Epoch, GroupId, Incarnation, LogClock, ReplicaId, Slot};
pub use paxos_core::membership::{Member, Membership};
pub use paxos_core::output::{Role, Status};
pub use paxos_core::port::{Format, Room};

pub use crate::builder::Builder;
pub use crate::client::Client;
pub use crate::codec::{CodecError, CommandCodec, Postcard};
pub use crate::error::{ClientError, Rejection, StartError, StopReason, Uncertainty};
pub use crate::machine::{Batch, SnapshotError, SnapshotStream, StateMachine};
pub use crate::memory::{MemoryFaults, MemoryNetwork, MemoryTransport};
pub use crate::metrics::{Distribution, Metrics};
pub use crate::node::Node;
pub use crate::options::NodeOptions;
pub use crate::shared::{NodeEventState, NodeStatus};
