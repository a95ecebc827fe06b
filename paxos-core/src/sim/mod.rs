//! The deterministic simulator.

mod batches;

pub use batches::Batches;
