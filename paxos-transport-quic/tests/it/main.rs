//! The transport over real sockets on the loopback interface, through its public surface.
//!
//! Nothing here sleeps in hope: everything waits for an event or a condition, with a deadline.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(clippy::wildcard_enum_match_arm, reason = "a test picks the events that it waits for")]

mod clients;
mod hostile;
mod identity;
mod lanes;
mod links;
mod refusals;
mod suite;
mod support;
