//! The library as a program sees it: nodes over the in-memory transport.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod host_cluster;
mod host_disk;
mod host_faults;
mod host_flow;
mod host_guest;
mod host_memory;
mod host_quic;
mod host_reads;
mod host_sessions;
mod host_silence;
mod host_stops;
mod sim_machines;
mod support;
mod traces;
