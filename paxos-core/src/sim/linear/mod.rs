//! A linearizability checker for the histories that clients saw.
//!
//! Owns: histories of operations, sequential specifications, and the search for an order that
//! explains a history. Knows nothing of the protocol, of the simulator, or of where stamps come
//! from: they are numbers that never go back, nanoseconds of a clock or ticks of a simulation.
//!
//! May not touch: replicas, clocks, randomness. The same history gives the same verdict.
//!
//! Invariants: a verdict of [`Verdict::Linearizable`] carries an order that was replayed through the
//! specification; a search that ran out of its [`Budget`] never passes for success.
//!
//! Source: the definition is Herlihy and Wing, "Linearizability: a correctness condition for
//! concurrent objects" (TOPLAS 1990). The search is that of Wing and Gong (JPDC 1993) with the list
//! and the memory of visited configurations from Lowe, "Testing for linearizability" (CPE 2017).
//! Locality (a history is linearizable exactly if it is so for each object) lets it run per key.
//!
//! ```
//! use paxos_core::sim::linear::{Budget, History, Register, RegisterCall, RegisterReply, check};
//!
//! let mut history = History::new();
//! let write = history.invoke(1, RegisterCall::Write(7), 10);
//! let read = history.invoke(2, RegisterCall::Read, 30);
//! history.complete(write, RegisterReply::Written, 20);
//! history.complete(read, RegisterReply::Value(0), 40); // The write had ended: a stale read.
//! let verdict = check(&Register::new(0), &history, Budget::default());
//! assert!(verdict.into_result().is_err());
//! ```

mod history;
mod search;
mod specification;
mod verdict;

pub use history::{History, Operation, OperationId, Outcome};
pub use search::{Budget, check};
pub use specification::{
    CasCall, CasRegister, CasReply, Counter, CounterCall, CounterReply, KeyValue, KeyValueCall,
    KeyValueReply, Register, RegisterCall, RegisterReply, Specification,
};
pub use verdict::{Blocked, Failure, Verdict, Witness};
