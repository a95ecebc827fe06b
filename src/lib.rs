//! Multi-Paxos consensus as a library.

pub use paxos_core as core;
