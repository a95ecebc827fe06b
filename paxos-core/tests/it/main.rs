//! Tests of the core through its public surface.

#![allow(
    clippy::unwrap_used,
    reason = "a failed unwrap is a failed test, and says where"
)]

mod athens;
mod bed;
mod paper;
