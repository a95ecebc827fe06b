//! The Multi-Paxos protocol, sans-IO: no async, no sockets, no files, no threads, no clock, no
//! ambient randomness.
//!
//! A [`replica::Replica`] is a value. Inputs go in by `handle_*` and [`replica::Replica::propose`],
//! effects come out of [`replica::Replica::poll_output`]; time and randomness are arguments. What
//! the protocol is, and why it is safe, stands in docs/protocol.md, whose sections the code cites.
//!
//! # The whole run loop
//!
//! One replica that is its own quorum, on a storage that never blocks:
//!
//! ```
//! use paxos_core::ids::{ClusterId, GroupId, LogClock, ReplicaId, RequestNumber, Slot, Time};
//! use paxos_core::ids::{ClientId, Incarnation};
//! use paxos_core::membership::Membership;
//! use paxos_core::output::Output;
//! use paxos_core::port::{Format, Recovered};
//! use paxos_core::replica::Replica;
//! use paxos_core::value::{Command, Value};
//!
//! // 1. What storage remembers: here, a directory that was just formatted.
//! let id = ReplicaId::new(1);
//! let format = Format {
//!     cluster: ClusterId::new(7),
//!     group: GroupId::default(),
//!     replica: id,
//!     membership: Membership::voters_only([id]).unwrap(),
//! };
//! let recovered = Recovered::formatted(format, Incarnation::first(0));
//! let mut now = Time::ZERO;
//! let mut replica =
//!     Replica::recover(Default::default(), recovered, Slot::ZERO, 42, now).unwrap();
//! let mut applied = Vec::new();
//! let mut proposed = false;
//! while applied.is_empty() {
//!     // 2. Drain the outputs.
//!     match replica.poll_output() {
//!         Output::Send { .. } => unreachable!("there are no peers"),
//!         // 3. Write, sync, and hand the proof back.
//!         Output::Persist(batch) => replica.handle_durable(batch.into_durable(), now),
//!         Output::Load { .. } => unreachable!("everything is still in memory"),
//!         // 4. Apply, and say so.
//!         Output::Apply { slot, value } => {
//!             if let Value::Batch(batch) = value {
//!                 applied.extend(batch.commands().iter().map(|command| command.payload.clone()));
//!             }
//!             replica.handle_applied(slot, now);
//!         }
//!         Output::ReadsReady { .. } | Output::ReadsLost { .. } => unreachable!("nobody reads"),
//!         Output::QuorumReadsReady { .. } | Output::QuorumReadsLost { .. } => unreachable!(),
//!         Output::SnapshotWanted { .. } => unreachable!("nothing is trimmed"),
//!         Output::Halt(reason) => panic!("{reason}"),
//!         // 5. Wait for the next input: a message, a proof, a client, or the time.
//!         Output::Idle { wake_at } => {
//!             now = now.max(wake_at.unwrap());
//!             replica.handle_timeout(now);
//!             if !proposed {
//!                 let (client, request) = (ClientId::new(1), RequestNumber::new(1));
//!                 let command = Command::apply(client, request, "hello".into());
//!                 proposed = replica.propose(vec![command], LogClock::default(), now).is_ok();
//!             }
//!         }
//!     }
//! }
//! assert_eq!(applied, ["hello"]);
//! ```

mod acceptor;
pub mod agreement;
pub mod ballot;
mod catchup;
pub mod codec;
pub mod config;
pub mod durable;
mod flow;
pub mod founding;
pub mod ids;
mod learner;
mod lives;
mod log;
pub mod membership;
pub mod message;
mod outbox;
pub mod output;
mod pacemaker;
pub mod port;
mod proposer;
pub mod quorum;
mod read;
mod repeat;
pub mod replica;
mod ring;
mod roster;
pub mod session;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
pub mod single;
pub mod snapshot;
mod stored;
mod survey;
pub mod trace;
pub mod value;
