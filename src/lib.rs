//! Multi-Paxos consensus as a library: your state machine, on several replicas, as one.
//!
//! You write a [`StateMachine`]: what a command does to a state. Each replica of a cluster runs a
//! [`Node`] around a copy of it. A [`Client`] of any node has commands applied, in the same order
//! on all replicas, as long as a majority of them is up and connected; what was answered survives
//! the loss of any minority, disks included, though a replica without its disk cannot come back
//! yet.
//!
//! # The whole picture
//!
//! A replicated counter: three replicas in one process, over the in-memory transport and storage.
//! A deployment differs in the two adapters that it gives to the builder (features `wal` and
//! `quic`), and runs each node in a process of its own.
//!
//! ```
//! # #[cfg(feature = "wal")]
//! # fn main() {
//! use paxos::storage::MemoryStorage;
//! use paxos::{
//!     Batch, ClientError, ClusterId, Format, GroupId, Leadership, MemoryNetwork, Membership, Node,
//!     ReplicaId, Slot, StateMachine, async_trait,
//! };
//!
//! // 1. What is replicated: a function of state and commands, and of nothing else.
//! #[derive(Default)]
//! struct Counter(u64);
//!
//! #[async_trait]
//! impl StateMachine for Counter {
//!     type Command = u64;
//!     type Reply = u64;
//!     type Query = ();
//!     type Answer = u64;
//!
//!     async fn apply(&mut self, batch: Batch<u64>) -> Vec<u64> {
//!         let mut add = |more| {
//!             self.0 += more;
//!             self.0
//!         };
//!         batch.commands.into_iter().map(&mut add).collect()
//!     }
//!
//!     async fn query(&self, (): ()) -> u64 {
//!         self.0
//!     }
//! }
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! // 2. Who votes.
//! let ids = [1, 2, 3].map(ReplicaId::new);
//! let membership = Membership::voters_only(ids)?;
//! let network = MemoryNetwork::new();
//! let mut nodes = Vec::new();
//! for replica in ids {
//!     // 3. Each replica's storage is formatted once, for it alone.
//!     let storage = MemoryStorage::formatted(Format {
//!         cluster: ClusterId::new(7),
//!         group: GroupId::default(),
//!         replica,
//!         membership: membership.clone(),
//!     });
//!     // 4. A node: storage, transport, state machine.
//!     let node = Node::builder()
//!         .storage(storage)
//!         .transport(network.transport(replica))
//!         .start(Counter::default())
//!         .await?;
//!     nodes.push(node);
//! }
//!
//! // 5. Any node takes any command, and answers queries from a state that includes it.
//! assert_eq!(nodes[0].client().execute(5).await, Ok(5));
//! assert_eq!(nodes[1].client().execute(2).await, Ok(7));
//! assert_eq!(nodes[2].client().query(()).await, Ok(7));
//!
//! // 6. One of them leads, and makes way for another when it is asked to, or shut down. What was
//! //    applied can be followed slot by slot.
//! for (node, next) in nodes.iter().zip([ids[1], ids[2], ids[0]]) {
//!     if let Leadership::Leads(ballot) = *node.leadership().borrow() {
//!         println!("leads since {ballot}");
//!     } else {
//!         continue;
//!     }
//!     match node.transfer(next).await {
//!         Ok(ballot) => println!("{} leads since {ballot}", ballot.leader()),
//!         Err(why) => println!("nothing has changed, or another leads: {why}"),
//!     }
//!     break;
//! }
//! println!("the first slot: {:?}", nodes[0].applied_from(Slot::FIRST).next().await?);
//!
//! // 7. An error says whether the command is certainly not applied, or may be.
//! let client = nodes[0].client();
//! for node in nodes {
//!     println!("{}", node.shutdown().await);
//! }
//! match client.execute(1).await {
//!     Ok(total) => println!("{total}"),
//!     Err(ClientError::Rejected(why)) => println!("send it again if you like: {why}"),
//!     Err(ClientError::Unknown(why)) => println!("ask before you send it again: {why}"),
//!     Err(other) => println!("{other}"),
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! # }
//! # #[cfg(not(feature = "wal"))]
//! # fn main() {}
//! ```
//!
//! # Testing
//!
//! The module `sim` (feature `sim`) runs clusters of whole nodes, with a state machine of yours, in
//! one thread and from one seed: a bad network, failing disks, crashes, pauses, and clients whose
//! histories are checked. The example `deterministic_test` is such a test.
//!
//! # From a command to its reply
//!
//! [`Client::execute`] encodes the command on the caller's task and parks there. The node's task,
//! the one owner of the protocol's replica, takes everything that is ready, makes one batch of it,
//! and proposes it, or sends it to the node that leads. Accepts leave for the peers while the
//! journal's thread syncs the log. Chosen slots go in order to the task that owns the state
//! machine, which applies each batch by one call and answers whoever waits.

#[cfg(all(unix, feature = "ctl"))]
pub mod admin;
pub mod backup;
pub mod codec;
pub mod error;
pub mod machine;
pub mod memory;
pub mod metrics;
#[cfg(feature = "sim")]
pub mod sim;

mod applied;
mod apply;
mod builder;
mod change;
mod client;
mod clock;
mod dispatch;
mod divergence;
mod driver;
mod fair;
mod forward;
mod frame;
mod handover;
mod histogram;
mod journal;
mod lanes;
mod node;
mod once;
mod options;
mod pace;
mod pulse;
mod quorum_reads;
mod reading;
mod reads;
mod releases;
mod remote;
mod request;
mod router;
mod session;
mod shared;
mod snapshot;
mod submit;
mod succession;
mod trace;
mod waiters;

/// The guide's code is compiled and run with the documentation's.
#[cfg(doctest)]
#[doc = include_str!("../docs/state-machines.md")]
mod guide {}

pub use async_trait::async_trait;
pub use paxos_core as core;
#[cfg(feature = "wal")]
pub use paxos_storage as storage;
#[cfg(feature = "quic")]
pub use paxos_transport_quic as quic;

pub use bytes::Bytes;
pub use paxos_core::ballot::Ballot;
pub use paxos_core::config::Config;
pub use paxos_core::ids::{
    ClusterId, Epoch, GroupId, Incarnation, LogClock, Priority, ReplicaId, RequestNumber,
    SessionId, Slot,
};
pub use paxos_core::membership::{Change, KeyPin, Member, Membership};
pub use paxos_core::message::Connectivity;
pub use paxos_core::output::{Halt, RecoverError, Role, Status};
pub use paxos_core::port::{Format, Room, StorageError};
pub use paxos_core::quorum::QuorumRule;
pub use paxos_core::snapshot::ImageDigest;
pub use paxos_core::value::Level;

pub use crate::applied::{AppliedSlot, AppliedStream, StreamEnd};
pub use crate::builder::Builder;
pub use crate::change::Changed;
pub use crate::client::Client;
pub use crate::codec::{CodecError, CommandCodec, Postcard};
pub use crate::divergence::{ComparisonStatus, Difference};
pub use crate::error::{
    ClientError, MakeSnapshotError, ReconfigureError, Rejection, StartError, StopReason,
    TransferError, TrimLogError, Uncertainty,
};
pub use crate::machine::{Batch, SnapshotError, SnapshotStream, StateDigest, StateMachine};
pub use crate::memory::{MemoryFaults, MemoryNetwork, MemoryTransport};
pub use crate::metrics::{Distribution, Metrics};
pub use crate::node::Node;
pub use crate::options::NodeOptions;
pub use crate::releases::RaiseError;
pub use crate::remote::client::{ConnectError, RemoteClient, RemoteOptions};
pub use crate::remote::serve::{ServeOptions, Serving, ServingStatus};
pub use crate::request::{Applied, Consistency, Delivery, SessionRequest};
pub use crate::shared::{Leadership, NodeEventState, NodeStatus};
pub use crate::snapshot::{Receiving, Sending, SnapshotInfo, SnapshotStatus};
pub use crate::trace::{TraceFile, TraceSink};
