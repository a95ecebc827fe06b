//! The Multi-Paxos protocol, sans-IO.

pub mod ballot;
pub mod codec;
pub mod config;
pub mod durable;
pub mod ids;
pub mod membership;
pub mod message;
pub mod output;
pub mod port;
pub mod quorum;
pub mod replica;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
pub mod value;
