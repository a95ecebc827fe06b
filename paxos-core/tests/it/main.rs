//! The protocol under simulated networks, disks, clocks and crashes, through the public API.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod history;
mod partitions;
mod random;
