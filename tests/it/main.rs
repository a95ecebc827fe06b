//! The library as a program sees it: nodes over the in-memory transport.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod admin;
mod host_applied;
mod host_backup;
mod host_cluster;
mod host_config;
mod host_disk;
mod host_divergence;
mod host_faults;
mod host_flow;
mod host_guest;
mod host_membership;
mod host_memory;
mod host_quic;
mod host_reads;
mod host_remote;
mod host_sessions;
mod host_silence;
mod host_snapshots;
mod host_stops;
mod host_transfer;
mod host_upgrade;
#[path = "../programs/examples.rs"]
#[allow(dead_code, reason = "other programs are waited for; this one ends")]
mod programs;
mod remote_link;
mod remote_quic;
mod sim_machines;
mod support;
mod traces;
