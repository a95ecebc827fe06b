//! Snapshots, the host's side (the book's Low-Water Mark): when one is made, who is sent one, what is
//! received, and what the log may forget.
//!
//! Owns: [`Snapshots`], the parts of it that the node's task holds, and what may be seen of them. The
//! modules beneath own one noun each; `duty` is how the node's task moves them.
//! Invariants: (1) nothing is trimmed that no durable snapshot includes; (2) state machine and replica
//! jump to a snapshot in the same order as to values: through the queue of the state machine's task;
//! (3) the node's task never reads or writes an image; (4) older snapshots, and the log after them, stay
//! until the state machine holds the state of a newer one.
//! Source: protocol.md §14; Ongaro, "Consensus: Bridging Theory and Practice", §5.

pub(crate) mod duty;
pub(crate) mod frame;
pub(crate) mod image;
pub(crate) mod mark;
pub(crate) mod pace;
pub(crate) mod receive;
pub(crate) mod retry;
pub(crate) mod send;
pub(crate) mod shelf;

use core::time::Duration;
use std::sync::mpsc as std_mpsc;

use paxos_core::ids::{ReplicaId, Slot, Time};
use paxos_core::snapshot::{ImageDigest, SnapshotMeta};
use tokio::sync::oneshot;

use self::frame::{CHUNK_HEAD_LEN, Name};
use self::mark::LogBytes;
use self::receive::Receiver;
use self::retry::Retry;
use self::send::Senders;
use self::shelf::{Errand, LendOrder, Lent};
use crate::error::{MakeSnapshotError, TrimLogError};
use crate::options::NodeOptions;
use crate::shared::Shared;

/// After an image could not be made, the next attempt that nobody asked for waits so long; twice as long
/// after each further failure.
const RETRY_AFTER: Duration = Duration::from_secs(10);
/// However low a rate is, chunks are so small that this many pass in a patience: whoever only keeps to its
/// rate is not taken for one that is silent, and nothing that is on its way is asked for again.
const CHUNKS_PER_PATIENCE: u128 = 8;

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
#[derive(Debug)]
struct Maker {
    /// Whether one is under way, and since when.
    since: Option<Time>,
    /// Who waits for it.
    orders: Vec<Order>,
    /// Who waits for the one after it, as this one may not include what they have seen.
    next: Vec<Order>,
    /// When the newest one was finished, or this node started.
    last_at: Time,
    retry: Retry,
    took: Duration,
    failed: Option<String>,
}

impl Maker {
    fn new(now: Time) -> Self {
        Self {
            since: None,
            orders: Vec::new(),
            next: Vec::new(),
            last_at: now,
            retry: Retry::new(RETRY_AFTER),
            took: Duration::ZERO,
            failed: None,
        }
    }
}

/// The bytes of a chunk at this rate, of which so many peers have a share.
fn paced(chunk_bytes: usize, bytes_per_second: u64, shares: usize, patience: Duration) -> usize {
    let in_patience =
        u128::from(bytes_per_second).saturating_mul(patience.as_nanos()) / 1_000_000_000;
    let share = in_patience / CHUNKS_PER_PATIENCE / shares.max(1) as u128;
    usize::try_from(share).unwrap_or(usize::MAX).clamp(1, chunk_bytes)
}

/// What the node's task holds of snapshots.
pub(crate) struct Snapshots {
    /// Where the store is; none if there is none, or the state machine makes no snapshots.
    errands: Option<std_mpsc::Sender<Errand>>,
    /// Those that are finished, in rising order of slots.
    known: Vec<SnapshotMeta>,
    /// Those that the state machine could not be restored from when this life began.
    unfit: Vec<Name>,
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
        let Start { errands, known, unfit, unfinished, weights, trimmed, frame_bytes_max } = start;
        let most = frame_bytes_max.saturating_sub(CHUNK_HEAD_LEN).max(1);
        let chunk_bytes = options.snapshot_chunk_bytes.min(most);
        let receive = options.snapshot_receive_bytes_per_second;
        let mut receiver =
            Receiver::new(paced(chunk_bytes, receive, 1, patience), receive, patience);
        if let Some(unfinished) = &unfinished {
            receiver.holds(unfinished);
        }
        let (send, peers) = (options.snapshot_send_bytes_per_second, options.snapshot_senders_max);
        let senders =
            Senders::new(peers, paced(chunk_bytes, send, peers, patience), send, patience);
        Self {
            errands,
            known,
            unfit,
            maker: Maker::new(now),
            senders,
            receiver,
            log: LogBytes::recalled(&weights),
            trimmed,
            looked_at: now,
        }
    }

    /// The newest durable one.
    fn newest(&self) -> Option<&SnapshotMeta> {
        self.known.last()
    }

    /// The newest one whose state the state machine has had: one that comes from a peer, and that it could
    /// not be restored from, must not have taken the place of what it goes on from.
    fn newest_held(&self, applied: Slot) -> Option<Slot> {
        self.known.iter().map(|meta| meta.slot).rfind(|slot| *slot <= applied)
    }

    /// Whether the state machine may be restored from this one, as far as anybody knows.
    fn is_fit(&self, meta: &SnapshotMeta) -> bool {
        !self.unfit.contains(&Name::of(meta))
    }

    /// This is what the store keeps.
    fn relearn(&mut self, mut kept: Vec<SnapshotMeta>) {
        kept.retain(|meta| self.is_fit(meta));
        // One that was finished since is told by itself.
        let newest = core::mem::replace(&mut self.known, kept).pop();
        if let Some(meta) = newest {
            self.learn(meta);
        }
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
        if applied <= slot || !self.maker.retry.is_due(now) {
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
        let Some(newest) = self.newest_held(applied) else { return Slot::ZERO };
        let tail = Slot::new(applied.number().saturating_sub(options.trim_tail_slots));
        let kept = lacking.map_or(tail, |prefix| prefix.min(tail));
        let floor = self.log.within(options.trim_reserve_bytes);
        kept.max(floor).min(newest)
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
    /// What the store keeps that the state machine can be restored from, in rising order of slots.
    pub(crate) known: Vec<SnapshotMeta>,
    /// What it keeps beside, and the state machine could not be restored from.
    pub(crate) unfit: Vec<Name>,
    pub(crate) unfinished: Option<SnapshotMeta>,
    /// What the log holds of slots that will not be handed out again: slots, and its bytes up to them.
    pub(crate) weights: Vec<(Slot, u64)>,
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
        assert_eq!(trimmable(&snapshots, 60, None), 0, "that of 95 is not applied");
        snapshots.learn(meta(30, 10));
        assert_eq!(trimmable(&snapshots, 60, None), 30, "another one is");
        assert_eq!(snapshots.newest().unwrap().slot, Slot::new(95));
        snapshots.learn(meta(95, 20));
        let of = |meta: &SnapshotMeta| (meta.slot.number(), meta.bytes);
        let known: Vec<_> = snapshots.known.iter().map(of).collect();
        assert_eq!(known, [(30, 10), (95, 20)], "another image took the place of one");
        let mut early = Snapshots::new(Start::default(), &options, patience, at(0));
        early.learn(meta(30, 10));
        assert_eq!(trimmable(&early, 100, None), 30, "none includes the rest");
        let weights = (1..=30).map(|slot| (Slot::new(slot), slot << 21)).collect();
        let mut again =
            Snapshots::new(Start { weights, ..Start::default() }, &options, patience, at(0));
        again.learn(meta(30, 10));
        assert_eq!(trimmable(&again, 30, Some(2)), 5, "an earlier life left more than the reserve");
    }

    /// A node that was configured to fetch slowly was given up by its sender, which removed the snapshot, and
    /// began with the next one, for ever.
    #[test]
    fn whoever_keeps_to_a_low_rate_is_not_taken_for_silent() {
        let patience = Duration::from_secs(1);
        let chunk = 256 << 10;
        assert_eq!(paced(chunk, 64 << 20, 2, patience), chunk);
        assert_eq!(paced(chunk, u64::MAX, 1, Duration::MAX), chunk);
        assert_eq!(paced(chunk, 1, 3, patience), 1);
        let options = NodeOptions {
            snapshot_receive_bytes_per_second: 8_000,
            snapshot_send_bytes_per_second: 32_000,
            ..NodeOptions::default()
        };
        let start = Start { frame_bytes_max: 1 << 20, ..Start::default() };
        let mut slow = Snapshots::new(start, &options, patience, at(0));
        let (one, known) = (ReplicaId::new(1), meta(9, 1 << 20));
        slow.learn(known.clone());
        slow.receiver.wanted(one, Slot::ZERO, at(0));
        slow.receiver.offered(one, known.clone(), |_| true, at(0));
        slow.receiver.began(Name::of(&known), 0, at(0));
        let acts = slow.receiver.take_acts();
        let name = Name::of(&known);
        let asked = |act: &receive::Act| {
            let receive::Act::Send(_, frame::SnapshotFrame::Read { len, .. }) = act else {
                return None;
            };
            Some(*len)
        };
        assert_eq!(
            acts.iter().filter_map(asked).collect::<Vec<_>>(),
            [1_000],
            "an eighth of a second"
        );
        slow.senders.read(one, name, (0, 1 << 20), &slow.known, at(0));
        let read = slow.senders.next(at(0)).unwrap();
        assert_eq!(read.len, 2_000, "an eighth of a second of half the rate");
    }

    /// It is durable, and the state machine may not be able to make anything of it: what is older stays.
    #[test]
    fn a_snapshot_that_is_not_restored_yet_takes_the_place_of_nothing() {
        let options = NodeOptions { trim_tail_slots: 0, ..NodeOptions::default() };
        let mut snapshots =
            Snapshots::new(Start::default(), &options, Duration::from_secs(1), at(0));
        snapshots.learn(meta(30, 10));
        snapshots.learn(meta(95, 10));
        let trimmable = |snapshots: &Snapshots, applied| {
            snapshots.trimmable(Slot::new(applied), None, &options).number()
        };
        assert_eq!(snapshots.newest_held(Slot::new(40)), Some(Slot::new(30)));
        assert_eq!(trimmable(&snapshots, 40), 30);
        assert_eq!(trimmable(&snapshots, 95), 95);
    }

    #[test]
    fn what_the_state_machine_could_not_be_restored_from_stays_unknown() {
        let unfit = vec![Name::of(&meta(50, 10))];
        let start = Start { unfit, known: vec![meta(30, 10)], ..Start::default() };
        let options = NodeOptions::default();
        let mut snapshots = Snapshots::new(start, &options, Duration::from_secs(1), at(0));
        assert!(!snapshots.is_fit(&meta(50, 10)) && snapshots.is_fit(&meta(51, 10)));
        let slots = |snapshots: &Snapshots| {
            snapshots.known.iter().map(|meta| meta.slot.number()).collect::<Vec<_>>()
        };
        snapshots.relearn(vec![meta(30, 10), meta(50, 10)]);
        assert_eq!(slots(&snapshots), [30]);
        snapshots.learn(meta(60, 10));
        snapshots.relearn(vec![meta(50, 10)]);
        assert_eq!(slots(&snapshots), [60], "what was finished since is known");
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
        snapshots.maker.retry.failed(at(52));
        assert_eq!(due(&snapshots, 11, 61), [false; 4], "an attempt has just failed");
    }
}
