//! The deterministic simulator of whole nodes: test a state machine of your own.
//!
//! Owns: nothing; each module beneath owns one noun. The nodes are the real ones: driver, applier,
//! forwarding, clients, and the log; beneath them are the network, disks, clocks and faults of
//! [`paxos_core::sim`], and everything runs in one thread from one seed.
//!
//! Each seed draws a cluster and what goes wrong in it. While it runs, every invariant of the
//! protocol is checked, and of the state machine: what was asked for is applied in one slot at most
//! and what was rejected never; each replica replies and ends up as a machine does that is given the
//! chosen batches without any fault. A machine that is not a function of its commands, such as one
//! that reads a local clock or iterates over a hash map, fails there. Histories of what clients were
//! told go to checks of yours, and to a checker of linearizability.
//!
//! Machines are rebuilt from the log in each life; what a machine makes durable by itself is not
//! simulated. Futures of a state machine must not wait for a runtime: there is none.
//!
//! ```
//! use paxos::sim::{Question, Simulation, digest_of};
//! use paxos::{Batch, StateMachine, async_trait};
//!
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
//!         let add = |more| {
//!             self.0 += more;
//!             self.0
//!         };
//!         batch.commands.into_iter().map(add).collect()
//!     }
//!
//!     async fn query(&self, (): ()) -> u64 {
//!         self.0
//!     }
//! }
//!
//! let simulation = Simulation::new(Counter::default, |rng| {
//!     if rng.chance(300) { Question::Query(()) } else { Question::Command(rng.between(1, 9)) }
//! });
//! simulation.digest(|counter| digest_of(&counter.0)).seeds(0..3).run()?;
//! # Ok::<(), Box<paxos::sim::Failure>>(())
//! ```

mod clock;
mod fleet;
mod host;
mod itself;
mod ledger;
mod referee;
mod roamer;
mod simulation;
mod turn;
mod watched;
mod wire;
mod witness;

use core::hash::{Hash, Hasher};
use std::hash::DefaultHasher;
use std::sync::Arc;

pub use paxos_core::sim::linear::{self, History};
pub use paxos_core::sim::{
    Case, CrashStorage, Downtime, Limits, Measured, Outcome, Preset, Rng, SimDisk, Totals, Trace,
    Violation,
};
#[cfg(feature = "wal")]
pub use paxos_storage::sim::SimWal;

pub use self::simulation::{Failure, Report, Simulation};
use crate::machine::StateMachine;

type Digest<M> = Arc<dyn Fn(&M) -> u64 + Send + Sync>;

/// What a client asks for.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Question<C, Q> {
    /// By [`crate::Client::execute`].
    Command(C),
    /// By [`crate::Client::query`].
    Query(Q),
}

/// What it was told.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Answer<R, A> {
    /// To a command.
    Reply(R),
    /// To a query.
    Answer(A),
}

/// What clients of a state machine asked and were told, with the simulation's true time in
/// nanoseconds.
pub type HistoryOf<M> = History<
    Question<<M as StateMachine>::Command, <M as StateMachine>::Query>,
    Answer<<M as StateMachine>::Reply, <M as StateMachine>::Answer>,
>;

/// A digest that is the same for equal values, in one build of one program.
pub fn digest_of(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
