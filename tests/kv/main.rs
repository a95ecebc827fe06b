//! Tests of the example `kv`: its parts with a map that is not replicated, and the program itself
//! as processes that are killed, paused and misled.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "an unexpected reply is a failed test, whatever its kind"
)]
#![allow(clippy::print_stdout, reason = "a failed test shows what its processes printed")]
#![allow(
    dead_code,
    reason = "the example's modules are included whole, and each test uses a part of them"
)]

#[path = "../programs/examples.rs"]
mod examples;

#[path = "../../examples/kv/backend.rs"]
mod backend;
#[path = "../../examples/kv/budget.rs"]
mod budget;
#[path = "../../examples/kv/cli.rs"]
mod cli;
#[path = "../../examples/kv/command.rs"]
mod command;
#[path = "../../examples/kv/connection.rs"]
mod connection;
#[path = "../../examples/kv/digest.rs"]
mod digest;
#[path = "../../examples/kv/image.rs"]
mod image;
#[path = "../../examples/kv/limits.rs"]
mod limits;
#[path = "../../examples/kv/log.rs"]
mod log;
#[path = "../../examples/kv/map.rs"]
mod map;
#[path = "../../examples/kv/resp.rs"]
mod resp;
#[path = "../../examples/kv/server.rs"]
mod server;
#[path = "../../examples/kv/store.rs"]
mod store;

mod client;
mod cluster;
mod commands;
mod disaster;
mod faults;
mod identity;
mod logging;
mod membership;
mod mistakes;
mod options;
mod parsing;
mod paxosctl;
mod refusals;
mod snapshots;
mod sustained;
mod wire;
