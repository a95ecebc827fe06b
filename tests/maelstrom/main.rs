//! Tests of the example `maelstrom`: its mapping of JSON, the program as one process, and three of
//! them over a bad network, with clients whose history is judged.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(clippy::print_stdout, reason = "a test shows what it did, and what its processes printed")]
#![allow(
    dead_code,
    reason = "the example's modules are included whole, and each test uses a part of them"
)]

#[path = "../programs/examples.rs"]
mod examples;

#[path = "../../examples/maelstrom/store.rs"]
mod store;
#[path = "../../examples/maelstrom/wire.rs"]
mod wire;

mod faults;
mod load;
mod mapping;
mod mistakes;
mod process;
mod router;
