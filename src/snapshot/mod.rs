//! Snapshots, the host's side (the book's Low-Water Mark): when one is made, who is sent one, what is
//! received, and what the log may forget.
//!
//! Owns: [`Snapshots`], the parts of it that the node's task holds, and what may be seen of them. The
//! modules beneath own one noun each; `duty` is how the node's task moves them.
//! Invariants: (1) nothing is trimmed that no durable snapshot includes; (2) state machine and replica
//! jump to a snapshot in the same order as to values: through the queue of the state machine's task;
//! (3) the node's task never reads or writes an image.
//! Source: protocol.md §14; Ongaro, "Consensus: Bridging Theory and Practice", §5.

pub(crate) mod duty;
pub(crate) mod frame;
pub(crate) mod image;
pub(crate) mod mark;
pub(crate) mod pace;
pub(crate) mod receive;
pub(crate) mod send;
pub(crate) mod shelf;

use core::time::Duration;
use std::sync::mpsc as std_mpsc;

use paxos_core::ids::{ReplicaId, Slot, Time};
use paxos_core::snapshot::{ImageDigest, SnapshotMeta};
use tokio::sync::oneshot;

use self::frame::CHUNK_HEAD_LEN;
use self::mark::LogBytes;
use self::receive::Receiver;
use self::send::Senders;
use self::shelf::{Errand, LendOrder, Lent};
use crate::error::{MakeSnapshotError, TrimLogError};
use crate::options::NodeOptions;
use crate::shared::Shared;

/// After an image could not be made, the next attempt that nobody asked for waits so long.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// A snapshot that is durable.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct SnapshotInfo {
    /// The last slot that it includes.
    pub slot: Slot,
    /// The bytes of its image.
    pub bytes: u64,
    /// The digest of its image: the same on all replicas at one slot, or one of them went astray.
    pub digest: ImageDigest,
}

impl SnapshotInfo {
    pub(crate) fn of(meta: &SnapshotMeta) -> Self {
        Self { slot: meta.slot, bytes: meta.bytes, digest: meta.digest }
    }
}

/// A snapshot on its way to a peer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Sending {
    /// The peer.
    pub to: ReplicaId,
    /// The snapshot's slot.
    pub slot: Slot,
    /// The end of what was sent.
    pub sent_bytes: u64,
    /// All of its bytes.
    pub bytes: u64,
}

/// A snapshot on its way from a peer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Receiving {
    /// The peer.
    pub from: ReplicaId,
    /// The snapshot's slot.
    pub slot: Slot,
    /// How many bytes are written here.
    pub held_bytes: u64,
    /// All of its bytes.
    pub bytes: u64,
}

/// What can be seen of a node's snapshots.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct SnapshotStatus {
    /// Whether state machine and storage know snapshots. If not, the log is never trimmed.
    pub supported: bool,
    /// The newest durable one.
    pub last: Option<SnapshotInfo>,
    /// How long the last one of this replica's own making took, from asking the state machine until it
    /// was durable.
    pub last_duration: Duration,
    /// Whether one is being made.
    pub making: bool,
    /// Why the last attempt to make one failed; none once one succeeded.
    pub failed: Option<String>,
    /// To whom one is being sent.
    pub sending: Vec<Sending>,
    /// What is being received.
    pub receiving: Option<Receiving>,
}

/// Somebody waits for a snapshot.
pub(crate) type Order = oneshot::Sender<Result<SnapshotInfo, MakeSnapshotError>>;

/// Somebody wants something of the log and its snapshots.
#[derive(Debug)]
pub(crate) enum LogOrder {
    /// The newest one, to read.
    Lend(LendOrder),
    /// That the log is trimmed up to this slot, or as far as the newest one goes.
    Trim(Option<Slot>, oneshot::Sender<Result<Slot, TrimLogError>>),
}

/// Has a snapshot made by the node's task.
pub(crate) async fn make(shared: &Shared) -> Result<SnapshotInfo, MakeSnapshotError> {
    let made = shared.order_snapshot();
    shared.unless_stopped(made).await.unwrap_or(Err(MakeSnapshotError::Stopped))
}

/// Has the log trimmed by the node's task.
pub(crate) async fn trim(shared: &Shared, through: Option<Slot>) -> Result<Slot, TrimLogError> {
    let (order, trimmed) = oneshot::channel();
    shared.order_log(LogOrder::Trim(through, order));
    shared.unless_stopped(trimmed).await.unwrap_or(Err(TrimLogError::Stopped))
}

/// The newest snapshot, to read.
pub(crate) async fn lend(shared: &Shared) -> Result<Lent, MakeSnapshotError> {
    let (order, lent) = oneshot::channel();
    shared.order_log(LogOrder::Lend(order));
    let lent = shared.unless_stopped(lent).await.ok_or(MakeSnapshotError::Stopped)?;
    lent.map_err(MakeSnapshotError::Failed)
}

/// How far the making of one is.
#[derive(Debug, Default)]
struct Maker {
    /// Whether one is under way, and since when.
    since: Option<Time>,
    /// Who waits for it.
    orders: Vec<Order>,
    /// Who waits for the one after it, as this one may not include what they have seen.
    next: Vec<Order>,
    /// When the newest one was finished, or this node started.
    last_at: Time,
    retry_at: Time,
    took: Duration,
    failed: Option<String>,
}

/// What the node's task holds of snapshots.
pub(crate) struct Snapshots {
    /// Where the store is; none if there is none, or the state machine makes no snapshots.
    errands: Option<std_mpsc::Sender<Errand>>,
    /// Those that are finished, in rising order of slots.
    known: Vec<SnapshotMeta>,
    maker: Maker,
    senders: Senders,
    receiver: Receiver,
    log: LogBytes,
    trimmed: Slot,
    /// When it was last looked whether more can be trimmed or removed.
    looked_at: Time,
}

impl Snapshots {
    pub(crate) fn new(start: Start, options: &NodeOptions, patience: Duration, now: Time) -> Self {
        let Start { errands, known, unfinished, trimmed, frame_bytes_max } = start;
        let most = frame_bytes_max.saturating_sub(CHUNK_HEAD_LEN).max(1);
        let chunk_bytes = options.snapshot_chunk_bytes.min(most);
        let receive = options.snapshot_receive_bytes_per_second;
        let mut receiver = Receiver::new(chunk_bytes, receive, patience);
        if let Some(unfinished) = &unfinished {
            receiver.holds(unfinished);
        }
        let send = options.snapshot_send_bytes_per_second;
        Self {
            errands,
            known,
            maker: Maker { last_at: now, ..Maker::default() },
            senders: Senders::new(options.snapshot_senders_max, chunk_bytes, send),
            receiver,
            log: LogBytes::default(),
            trimmed,
            looked_at: now,
        }
    }

    /// The newest durable one.
    fn newest(&self) -> Option<&SnapshotMeta> {
        self.known.last()
    }

    /// This one is durable.
    fn learn(&mut self, meta: SnapshotMeta) {
        let place = self.known.partition_point(|known| known.slot < meta.slot);
        match self.known.get_mut(place) {
            // The store keeps the later one of a slot.
            Some(known) if known.slot == meta.slot => *known = meta,
            Some(_) | None => self.known.insert(place, meta),
        }
    }

    /// The link to this peer fell, or is of another life of it.
    pub(crate) fn on_down(&mut self, peer: ReplicaId) {
        self.senders.on_down(peer);
        self.receiver.on_down(peer);
    }

    /// A value was handed out.
    pub(crate) fn handed_out(&mut self, slot: Slot, bytes: usize) {
        self.log.add(slot, bytes);
    }

    /// Whether the policy wants one of the state after this slot.
    fn is_due(&self, applied: Slot, options: &NodeOptions, now: Time) -> bool {
        let newest = self.newest();
        let slot = newest.map_or(Slot::ZERO, |meta| meta.slot);
        if applied <= slot || self.maker.retry_at > now {
            return false;
        }
        // An image is written for at least as many bytes of log.
        let image = newest.map_or(0, |meta| meta.bytes);
        self.log.above(slot) >= options.snapshot_log_bytes.max(image)
            || applied.distance_from(slot) >= options.snapshot_slots
            || options
                .snapshot_interval
                .is_some_and(|interval| now.since(self.maker.last_at) >= interval)
    }

    /// How far the log may be trimmed: a tail stays, and what a connected peer lacks, of which this is the
    /// lowest; but of what a snapshot includes no more than the reserve, and nothing that none does.
    fn trimmable(&self, applied: Slot, lacking: Option<Slot>, options: &NodeOptions) -> Slot {
        let Some(newest) = self.newest() else { return Slot::ZERO };
        let tail = Slot::new(applied.number().saturating_sub(options.trim_tail_slots));
        let kept = lacking.map_or(tail, |prefix| prefix.min(tail));
        let floor = self.log.within(options.trim_reserve_bytes);
        kept.max(floor).min(newest.slot).min(applied)
    }

    pub(crate) fn status(&self) -> SnapshotStatus {
        SnapshotStatus {
            supported: self.errands.is_some(),
            last: self.newest().map(SnapshotInfo::of),
            last_duration: self.maker.took,
            making: self.maker.since.is_some(),
            failed: self.maker.failed.clone(),
            sending: self.senders.status(),
            receiving: self.receiver.status(),
        }
    }
}

/// What a life begins with.
#[derive(Debug, Default)]
pub(crate) struct Start {
    pub(crate) errands: Option<std_mpsc::Sender<Errand>>,
    pub(crate) known: Vec<SnapshotMeta>,
    pub(crate) unfinished: Option<SnapshotMeta>,
    pub(crate) trimmed: Slot,
    pub(crate) frame_bytes_max: usize,
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;
    use paxos_core::ids::{GroupId, LogClock};
    use paxos_core::membership::Membership;
    use paxos_core::snapshot::Governs;

    /// A snapshot of this slot, with an image of so many bytes.
    pub(crate) fn meta(slot: u64, bytes: u64) -> SnapshotMeta {
        let membership = Membership::voters_only([1, 2].map(ReplicaId::new)).unwrap();
        SnapshotMeta {
            group: GroupId::default(),
            slot: Slot::new(slot),
            clock: LogClock::default(),
            governs: vec![Governs { from: Slot::FIRST, membership }],
            bytes,
            digest: ImageDigest(u128::from(slot)),
        }
    }

    fn at(seconds: u64) -> Time {
        Time::from_nanos(seconds * 1_000_000_000)
    }

    /// p24: what connected peers lack stays, up to a reserve, and so does a tail; nothing above the newest
    /// snapshot is ever trimmed.
    #[test]
    fn p24_a_tail_and_what_peers_lack_stay_up_to_the_reserve() {
        let options = NodeOptions {
            trim_tail_slots: 10,
            trim_reserve_bytes: 50 << 20,
            ..NodeOptions::default()
        };
        let patience = Duration::from_secs(1);
        let mut snapshots = Snapshots::new(Start::default(), &options, patience, at(0));
        for slot in 1..=100 {
            snapshots.handed_out(Slot::new(slot), 1 << 20);
        }
        let trimmable = |snapshots: &Snapshots, applied, lacking: Option<u64>| {
            snapshots.trimmable(Slot::new(applied), lacking.map(Slot::new), &options).number()
        };
        assert_eq!(trimmable(&snapshots, 100, None), 0, "no snapshot includes it");
        snapshots.learn(meta(95, 10));
        assert_eq!(trimmable(&snapshots, 100, None), 90, "the tail stays");
        assert_eq!(trimmable(&snapshots, 100, Some(70)), 70, "a peer lacks the rest");
        assert_eq!(trimmable(&snapshots, 100, Some(20)), 50, "a peer lacks more than the reserve");
        assert_eq!(trimmable(&snapshots, 60, None), 50, "the rest is not applied");
        snapshots.learn(meta(30, 10));
        assert_eq!(snapshots.newest().unwrap().slot, Slot::new(95));
        snapshots.learn(meta(95, 20));
        let of = |meta: &SnapshotMeta| (meta.slot.number(), meta.bytes);
        let known: Vec<_> = snapshots.known.iter().map(of).collect();
        assert_eq!(known, [(30, 10), (95, 20)], "another image took the place of one");
        let mut early = Snapshots::new(Start::default(), &options, patience, at(0));
        early.learn(meta(30, 10));
        assert_eq!(trimmable(&early, 100, None), 30, "none includes the rest");
    }

    #[test]
    fn one_is_due_by_bytes_by_slots_and_by_time_and_never_for_nothing() {
        let never = NodeOptions {
            snapshot_log_bytes: u64::MAX,
            snapshot_slots: u64::MAX,
            snapshot_interval: None,
            ..NodeOptions::default()
        };
        let by_bytes = NodeOptions { snapshot_log_bytes: 1 << 20, ..never.clone() };
        let by_slots = NodeOptions { snapshot_slots: 10, ..never.clone() };
        let interval = Some(Duration::from_secs(60));
        let by_time = NodeOptions { snapshot_interval: interval, ..never.clone() };
        let mut snapshots = Snapshots::new(Start::default(), &never, Duration::from_secs(1), at(0));
        let due = |snapshots: &Snapshots, applied, seconds| {
            [&never, &by_bytes, &by_slots, &by_time]
                .map(|options| snapshots.is_due(Slot::new(applied), options, at(seconds)))
        };
        assert_eq!(due(&snapshots, 0, 100), [false; 4], "there is nothing to write down");
        assert_eq!(due(&snapshots, 9, 59), [false; 4]);
        snapshots.handed_out(Slot::new(9), 1 << 20);
        assert_eq!(due(&snapshots, 9, 59), [false, true, false, false]);
        assert_eq!(due(&snapshots, 10, 60), [false, true, true, true]);
        snapshots.learn(meta(9, 3 << 20));
        snapshots.maker.last_at = at(60);
        assert_eq!(due(&snapshots, 9, 300), [false; 4], "it is written down already");
        snapshots.handed_out(Slot::new(10), 2 << 20);
        assert_eq!(due(&snapshots, 10, 61), [false; 4], "the log took less than the image");
        snapshots.handed_out(Slot::new(11), 1 << 20);
        assert_eq!(due(&snapshots, 11, 61), [false, true, false, false]);
        snapshots.maker.retry_at = at(62);
        assert_eq!(due(&snapshots, 11, 61), [false; 4], "an attempt has just failed");
    }
}
