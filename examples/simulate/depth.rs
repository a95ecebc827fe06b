//! How much of a replica is real, and how a seed is run with so much of it.

use std::fmt;

use paxos_core::sim::{
    Case, Limits, Measured, Outcome, SimDisk, run_preset_on, run_seed, run_seed_on,
};
use paxos_storage::sim::SimWal;

use crate::store;

/// How much of a replica is real.
#[derive(Clone, Copy)]
pub(crate) enum Depth {
    /// The protocol.
    Core,
    /// The protocol and the write-ahead log.
    Log,
    /// The whole node, with clients and a state machine.
    Node,
}

impl fmt::Display for Depth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Core => "core",
            Self::Log => "log",
            Self::Node => "node",
        })
    }
}

impl Depth {
    /// Runs a seed.
    pub(crate) fn run(self, seed: u64, limits: &Limits) -> Outcome {
        match self {
            Self::Core => run_seed(seed, limits),
            Self::Node => store::simulation().run_seed(seed, limits),
            Self::Log => run_seed_on(seed, limits, |format| Box::new(SimWal::new(format))),
        }
    }

    /// Measures a seed of a partial partition.
    pub(crate) fn measure(self, seed: u64, case: Case, limits: &Limits) -> Measured {
        match self {
            Self::Core => {
                run_preset_on(seed, case, limits, |format| Box::new(SimDisk::new(format)))
            }
            Self::Log => run_preset_on(seed, case, limits, |format| Box::new(SimWal::new(format))),
            Self::Node => store::simulation().run_preset(seed, case, limits),
        }
    }
}
