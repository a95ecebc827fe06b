//! Tests of the example `chaos`: that its judge rejects what it must, that its faults do what they
//! say, and that it leaves nothing behind.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(
    dead_code,
    reason = "the example's modules are included whole, and each test uses a part of them"
)]

#[path = "../programs/examples.rs"]
mod examples;

#[path = "../../examples/chaos/ability.rs"]
mod ability;
#[path = "../../examples/chaos/cluster.rs"]
mod cluster;
#[path = "../../examples/chaos/episode.rs"]
mod episode;
#[path = "../../examples/chaos/fault.rs"]
mod fault;
#[path = "../../examples/chaos/guard.rs"]
mod guard;
#[path = "../../examples/chaos/history.rs"]
mod history;
#[path = "../../examples/chaos/judge.rs"]
mod judge;
#[path = "../../examples/chaos/layout.rs"]
mod layout;
#[path = "../../examples/chaos/preset.rs"]
mod preset;
#[path = "../../examples/chaos/proxy.rs"]
mod proxy;
#[path = "../../examples/chaos/resp.rs"]
mod resp;
#[path = "../../examples/chaos/rng.rs"]
mod rng;
#[path = "../../examples/chaos/shape.rs"]
mod shape;
#[path = "../../examples/chaos/space.rs"]
mod space;

mod faults;
mod leftovers;
mod program;
mod routes;
mod teeth;
