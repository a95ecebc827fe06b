//! What each fuzz target does with its bytes, as plain functions.
//!
//! Owns: the list of targets, and one module for each. The same functions are run by the fuzzer over
//! what it invents and by tests/corpora over what it found, so that neither can drift from the other.
//! Invariant: a target fails by a panic and by nothing else, and does the same for the same bytes.

mod client_frame;
mod core_codec;
mod host_frame;
mod input;
mod log_recovery;
mod quic_wire;
mod resp;
mod schedule;
mod snapshot_frame;

/// A target takes bytes that anybody may have sent, written or damaged.
pub(crate) type Target = fn(&[u8]);

/// Every target with its name, which is also that of its corpus.
pub(crate) const ALL: [(&str, Target); 8] = [
    ("client_frame", client_frame::run),
    ("core_codec", core_codec::run),
    ("host_frame", host_frame::run),
    ("log_recovery", log_recovery::run),
    ("quic_wire", quic_wire::run),
    ("resp", resp::run),
    ("schedule", schedule::run),
    ("snapshot_frame", snapshot_frame::run),
];

/// The target of this name.
pub(crate) fn named(name: &str) -> Option<Target> {
    ALL.into_iter().find(|(other, _)| *other == name).map(|(_, target)| target)
}
