//! The fuzz targets of Multi-Paxos as functions: `./run` has the fuzzer call them, and tests/corpora
//! of the workspace calls them over the committed corpora without one.
//!
//! Owns: nothing but the way to call a target. Modules that their crates keep to themselves are
//! compiled here from their own files, so that what is fuzzed is what is shipped.

#![allow(dead_code, reason = "modules are included whole, and the targets use a part of each")]
#![allow(unreachable_pub, reason = "in their own crates, these modules are shown to everybody")]

#[path = "../../src/remote/wire.rs"]
mod client_wire;
#[path = "../../src/error.rs"]
mod error;
#[path = "../../src/frame.rs"]
mod frame;
#[path = "../../paxos-transport-quic/src/frames.rs"]
mod frames;
#[path = "../../paxos-storage/src/layout.rs"]
mod layout;
#[path = "../../examples/kv/limits.rs"]
mod limits;
#[path = "../../src/request.rs"]
mod request;
#[path = "../../examples/kv/resp.rs"]
mod resp;
#[path = "../../src/snapshot/frame.rs"]
mod snapshot_frame;
mod targets;
#[path = "../../paxos-transport-quic/src/wire.rs"]
mod wire;

/// What the modules above name of the library, which shows the rest to everybody.
mod machine {
    pub(crate) use paxos::{SnapshotError, StateDigest};
}

/// Runs a target on these bytes. Panics if it fails, or if there is none of this name.
pub fn run(name: &str, data: &[u8]) {
    let target = targets::named(name).unwrap_or_else(|| panic!("no target is called {name}"));
    target(data);
}
