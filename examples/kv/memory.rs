//! How much memory a process may take, and how much it takes.
//!
//! Owns: the sum of all bounds, which is printed at the start and kept by tests; the kernel's figure
//! of what is resident. Invariant: every term is a bound that some part enforces.

use std::fs;

use paxos::quic::{self};

use crate::limits::{BATCH_BYTES_MAX, BUFFERS_BYTES_MAX, CONNECTIONS_MAX};
use crate::machine::Image;
use crate::replica::{node_options, protocol_config, wal_options};

/// What a connection takes beside its buffers: its task, and the system's and runtime's records.
const CONNECTION_BYTES: usize = 4 << 10;
/// The program, its threads' stacks and the runtime.
const PROGRAM_BYTES: usize = 64 << 20;
/// The map's and the allocator's records for one key, in the worst case: just after the table grew.
const KEY_OVERHEAD_BYTES: u64 = 400;

/// The most bytes of memory that `replicas` of a cluster of `members` take in one process, besides
/// the keys and values themselves.
pub(crate) fn bound_besides_data(replicas: usize, members: usize) -> usize {
    let config = protocol_config();
    let options = node_options();
    let quic = quic::Limits::default();
    let lanes = 3;
    let per_peer = quic.control_bytes_max
        + quic.log_bytes_max
        + quic.bulk_bytes_max
        + lanes * quic.receive_bytes_max
        + 2 * quic.connection_window as usize;
    let per_replica = config.window_bytes_max
        + config.tail_bytes_max
        + config.apply_bytes_max
        + config.page_bytes_max
        + options.forwarded_bytes_max
        // What one call brings to the log, and its encoding.
        + 2 * (wal_options().segment_bytes as usize + BATCH_BYTES_MAX)
        + members.saturating_sub(1) * per_peer
        + CONNECTIONS_MAX * CONNECTION_BYTES;
    // Requests as received, as operations, and as encoded.
    let clients = 3 * BUFFERS_BYTES_MAX;
    // A quarter more, for what the allocator cannot give back.
    (PROGRAM_BYTES + clients + replicas * per_replica) / 4 * 5
}

/// What the keys and values take, at most.
pub(crate) fn data_bytes(image: &Image) -> u64 {
    image.bytes / 4 * 5 + image.keys * KEY_OVERHEAD_BYTES
}

/// The bytes of this process in memory, where the system tells.
pub(crate) fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}
