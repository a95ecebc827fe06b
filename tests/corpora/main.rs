//! The committed corpora of the fuzz targets, run without a fuzzer on any toolchain.
//!
//! A finding of the fuzzer is pinned by putting its input into fuzz/corpus under a name that tells
//! its story. To run some alone: `CORPUS=<target>/<file> cargo test --test corpora`, or
//! the beginning of such a name.
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
#[path = "../../fuzz/src/targets/mod.rs"]
mod targets;
#[path = "../../paxos-transport-quic/src/wire.rs"]
mod wire;

/// What the modules above name of the library, which shows it to everybody.
mod machine {
    pub(crate) use paxos::{SnapshotError, StateDigest};
}

mod replay;
mod seeds;
