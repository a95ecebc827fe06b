//! The bounds of the server, each with its reason.
//!
//! Owns: the numbers. Invariants are checked when the program is compiled: a request fits a group,
//! and a group fits a batch of the replicated log.

use std::ops::RangeInclusive;
use std::time::Duration;

/// The largest key: keys travel with every read and write, so they are kept short.
pub(crate) const KEY_BYTES_MAX: usize = 64 << 10;
/// The largest value. A batch of the log carries several, so that one writer cannot hold up all
/// others for long.
pub(crate) const VALUE_BYTES_MAX: usize = 512 << 10;
/// The largest request, with its framing: the largest `MSET`.
pub(crate) const REQUEST_BYTES_MAX: usize = 1 << 20;
/// The most arguments of a request, its name included.
pub(crate) const ARGUMENTS_MAX: usize = 1025;
/// The longest line of an inline command.
pub(crate) const INLINE_BYTES_MAX: usize = 64 << 10;
/// The most commands of one connection that are answered together. A client may send more: they
/// wait in its socket, and it is slowed down by that.
pub(crate) const GROUP_COMMANDS_MAX: usize = 1024;
/// A group that has so many bytes of requests takes no more of them; one more request may have
/// begun below it.
pub(crate) const GROUP_BYTES_SOFT: usize = 512 << 10;
/// The most bytes of one batch in the log: the largest group, and what its encoding adds to it.
pub(crate) const BATCH_BYTES_MAX: usize = 2 << 20;
/// After so many bytes of values in replies, what remains of a group is executed as another group.
pub(crate) const REPLY_BYTES_SOFT: usize = 1 << 20;
/// The largest reply to one command: `MGET` of more is refused.
pub(crate) const REPLY_BYTES_MAX: usize = 1 << 20;
/// The most clients of one replica at a time.
pub(crate) const CONNECTIONS_MAX: usize = 10_000;
/// The least room for one read from a client. Idle connections hold about twice as much.
pub(crate) const READ_BYTES_MIN: usize = 4 << 10;
/// What a connection keeps for its replies between two of them.
pub(crate) const OUT_BYTES_KEPT: usize = 16 << 10;
/// What all connections of a process may hold in buffers.
pub(crate) const BUFFERS_BYTES_MAX: usize = 128 << 20;
/// Replies are written in pieces of about this size; a larger value is written from where it lies.
pub(crate) const WRITE_BYTES: usize = 64 << 10;
/// A client that does not take its replies for so long is disconnected.
pub(crate) const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a connection that ends goes on discarding what its client still sends, so that the
/// client sees the last reply.
pub(crate) const LINGER_TIMEOUT: Duration = Duration::from_secs(1);
/// How long connections may take to end when the process is asked to stop.
pub(crate) const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// The most replicas that `kv init` lays out: the quorums of more would not be faster or safer.
pub(crate) const REPLICAS_MAX: u16 = 9;
/// How long leases may be: twice the interval at which they are renewed, and no longer than the election
/// timeout.
pub(crate) const LEASE_MILLIS: RangeInclusive<u64> = 200..=500;
/// How far clocks may be off, in millionths, where there are leases: more than time daemons slew them.
pub(crate) const LEASE_DRIFT_PPM: u32 = 100_000;

// The encoding adds at most 16 bytes to each argument: less than its framing in a request.
const _: () = assert!(
    GROUP_BYTES_SOFT + REQUEST_BYTES_MAX + 16 * (GROUP_COMMANDS_MAX + ARGUMENTS_MAX)
        < BATCH_BYTES_MAX
);
// Idle connections alone do not use up what active ones need.
const _: () = assert!(CONNECTIONS_MAX * 2 * READ_BYTES_MIN < BUFFERS_BYTES_MAX);
const _: () = assert!(KEY_BYTES_MAX + VALUE_BYTES_MAX + 128 < REQUEST_BYTES_MAX);

/// How many MiB of log may lie between two snapshots, and how many of one may travel in a second.
pub(crate) const SNAPSHOT_MIB: RangeInclusive<u64> = 1..=65_536;
/// How many do if nothing is said.
pub(crate) const SNAPSHOT_MIB_DEFAULT: u64 = 64;
/// How many MiB of a snapshot travel in a second if nothing is said: what leaves a disk and a network of
/// today room for the log.
pub(crate) const SNAPSHOT_RATE_DEFAULT: u64 = 64;
