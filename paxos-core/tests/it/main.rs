//! Tests of the core through its public surface.

#![allow(
    clippy::unwrap_used,
    reason = "a failed unwrap is a failed test, and its message says where"
)]

mod agreement;
mod athens;
mod athens_log;
mod bed;
mod changes;
mod codec;
mod config;
mod flow;
mod founding;
mod fuzz;
mod golden;
mod guards;
mod history;
mod leases;
mod linear;
mod lives;
mod members;
mod membership;
mod monitor;
mod paper;
mod partitions;
mod portfolio;
mod presets;
mod quorum;
mod quorum_reads;
mod random;
mod reads;
mod recovery;
mod regressions;
mod rejoin;
mod salvage;
mod samples;
mod scripts;
mod sessions;
mod single;
mod snapshots;
mod traces;
mod transfer;
mod values;
