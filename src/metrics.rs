//! What a node counts, and how that is shown.
//!
//! Owns: [`Metrics`], a plain copy for whoever asks, and `Meters`, what it is a copy of.
//! Invariant: counting costs relaxed atomic additions, per batch and not per command.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use paxos_core::output::Counters;
use paxos_core::port::TransportCounters;

pub use crate::histogram::Distribution;
use crate::histogram::Histogram;

impl Histogram {
    pub(crate) fn record_duration(&self, duration: Duration) {
        self.record(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }
}

/// A number that others may read.
#[derive(Debug, Default)]
pub(crate) struct Cell(AtomicU64);

impl Cell {
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn set(&self, value: usize) {
        self.0.store(value as u64, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! meters {
    (
        cells { $($(#[doc = $cell_doc:literal])* $cell:ident,)* }
        histograms { $($(#[doc = $histogram_doc:literal])* $histogram:ident,)* }
    ) => {
        /// What is counted as it happens.
        #[derive(Debug)]
        pub(crate) struct Meters {
            $(pub(crate) $cell: Cell,)*
            $(pub(crate) $histogram: Histogram,)*
        }

        impl Meters {
            pub(crate) fn new() -> Self {
                Self {
                    $($cell: Cell::default(),)*
                    $($histogram: Histogram::new(),)*
                }
            }

            pub(crate) fn snapshot(&self, core: Counters, transport: TransportCounters) -> Metrics {
                Metrics {
                    core,
                    transport,
                    $($cell: self.$cell.get(),)*
                    $($histogram: self.$histogram.snapshot(),)*
                }
            }
        }

        /// What a node counted since it started.
        #[derive(Clone, Debug)]
        #[non_exhaustive]
        pub struct Metrics {
            /// What the protocol counted: elections, retransmissions, drops by reason.
            pub core: Counters,
            /// What the transport counted: frames, bytes, drops by reason.
            pub transport: TransportCounters,
            $($(#[doc = $cell_doc])* pub $cell: u64,)*
            $($(#[doc = $histogram_doc])* pub $histogram: Distribution,)*
        }

        impl Metrics {
            /// Names and values of what is counted here, and the words above; those of a gauge, which may
            /// fall, begin with `Gauge:`.
            pub(crate) fn cells(&self) -> Vec<(&'static str, u64, &'static str)> {
                vec![$((stringify!($cell), self.$cell, concat!($($cell_doc),*)),)*]
            }
        }
    };
}

meters! {
    cells {
        /// Requests taken from this node's clients.
        requests,
        /// Requests that were refused because too many wait.
        requests_busy,
        /// Gauge: requests of this node's clients without an answer.
        requests_waiting,
        /// Gauge: requests of this node's clients that are not proposed.
        requests_pending,
        /// Commands that clients of this node sent again: nobody could say what had come of the first attempt,
        /// or its session was lost before it was applied.
        requests_again,
        /// Commands proposed here, as leader.
        commands_proposed,
        /// Batches proposed here, as leader.
        batches_proposed,
        /// Commands given to the state machine.
        commands_applied,
        /// Commands in the log that were applied before, and not again.
        commands_repeated,
        /// Commands applied before whose reply was wanted here, and was kept.
        replies_recalled,
        /// Commands applied before whose reply was wanted here, and is not kept any more.
        replies_not_kept,
        /// Commands in the log that were not applied, as their session is not known.
        commands_astray,
        /// Commands in the log that were not applied: acknowledged before, or one too many to remember.
        commands_refused,
        /// Gauge: sessions that are known.
        sessions,
        /// Sessions that expired, or gave way to others.
        sessions_expired,
        /// Gauge: slots handed out to be applied that are not.
        apply_slots_waiting,
        /// Frames of commands sent to another leader.
        forwards_sent,
        /// Frames of commands that another leader said it proposed.
        forwards_taken,
        /// Frames of commands that another leader refused.
        forwards_refused,
        /// Gauge: frames of commands sent to another leader, without an answer.
        forwards_unanswered,
        /// Frames of commands that peers sent here.
        forwards_received,
        /// Frames of commands of peers met with silence: repeated, or for another life.
        forwards_ignored,
        /// Frames of commands of peers that were refused.
        forwards_turned_away,
        /// Reads that clients asked of this node.
        reads,
        /// Questions for a read point that this node put to another; each is for all reads that wait.
        read_points_asked,
        /// Frames of a peer that do not decode.
        dropped_undecodable,
        /// Values of a leader or peer left out because the storage is full.
        dropped_no_room,
        /// Messages not sent because a lane was full.
        dropped_full,
        /// Messages not sent because the peer was not linked.
        dropped_down,
        /// Messages not sent because they exceed the transport's frames.
        dropped_too_large,
        /// Snapshots of this node's own making that became durable.
        snapshots_made,
        /// Snapshots of peers that became durable here.
        snapshots_received,
        /// Snapshots of peers that the state machine was restored from while the node ran, as no log had what
        /// was missing here. One that a start goes on from is not counted.
        snapshots_restored,
        /// Bytes of snapshots sent to peers.
        snapshot_bytes_sent,
        /// Bytes of snapshots that came from peers, repeated ones included.
        snapshot_bytes_received,
        /// Digests of peers' states compared with this node's after the same slot.
        digests_compared,
        /// Times that a peer's digest was found to differ: it, or this node, went astray.
        digests_differing,
        /// Reads of the log.
        loads,
        /// How often the node woke up.
        wakes,
    }
    histograms {
        /// Nanoseconds of one write to the log, its sync included; the count is that of the syncs.
        sync,
        /// Commands in a batch proposed here.
        batch_commands,
        /// Encoded bytes of a batch proposed here.
        batch_bytes,
        /// Nanoseconds from proposing a batch to its being committed here, as leader.
        round,
        /// Nanoseconds by which a peer's heartbeat came later than this node's heartbeat interval after the one
        /// before it.
        heartbeat_delay,
    }
}

impl fmt::Display for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let core = &self.core;
        let transport = &self.transport;
        let more = [
            ("campaigns", core.campaigns),
            ("elections_won", core.elections_won),
            ("step_downs", core.step_downs),
            ("retransmissions", core.retransmissions),
            ("proposals_held_back", core.proposals_held_back),
            ("values_fetched", core.values_fetched),
            ("frames_sent", transport.frames_sent),
            ("bytes_sent", transport.bytes_sent),
            ("frames_received", transport.frames_received),
            ("bytes_received", transport.bytes_received),
        ];
        let cells = self.cells().into_iter().map(|(name, value, _)| (name, value));
        for (name, value) in cells.chain(more) {
            writeln!(f, "{name:<22} {value:>14}")?;
        }
        writeln!(
            f,
            "{:<22} {:>14} {:>12} {:>12} {:>12} {:>12}",
            "", "count", "mean", "p50", "p99", "max"
        )?;
        let rows = [
            ("sync us", &self.sync, 1000),
            ("round us", &self.round, 1000),
            ("heartbeat delay us", &self.heartbeat_delay, 1000),
            ("batch commands", &self.batch_commands, 1),
            ("batch bytes", &self.batch_bytes, 1),
        ];
        for (name, row, unit) in rows {
            writeln!(
                f,
                "{name:<22} {:>14} {:>12} {:>12} {:>12} {:>12}",
                row.count,
                row.mean() / unit,
                row.p50 / unit,
                row.p99 / unit,
                row.max / unit
            )?;
        }
        Ok(())
    }
}
