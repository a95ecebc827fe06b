//! What the node's task does about snapshots.
//!
//! Owns: the rules by which [`Driver`] has one made, gives one away, takes one in, and trims the log.
//! Invariants: (1) one is made at a time; (2) the log is trimmed after the store said that a snapshot is
//! durable, and keeps a tail; (3) the replica jumps to a snapshot after the state machine did.

use bytes::Bytes;
use paxos_core::ids::{ReplicaId, Slot, Time};
use paxos_core::output::InstallError;
use paxos_core::port::{Channel, Frame, Lane, Sent};
use paxos_core::snapshot::SnapshotMeta;
use paxos_core::trace::Event;

use super::frame::{self, Name, SnapshotFrame};
use super::image::Head;
use super::receive::Act;
use super::shelf::{Brought, Errand, Image};
use super::{LogOrder, Order, SnapshotInfo};
use crate::apply::Item;
use crate::driver::Driver;
use crate::error::{MakeSnapshotError, TrimLogError};
use crate::waiters::Waiter;

/// What the state machine's task says to the question for an image.
#[derive(Debug)]
pub(crate) enum Given {
    /// Of the state after its slot.
    Image(Head, Image),
    /// The state is the one of the newest snapshot.
    Unchanged,
    /// There is none; why, in words.
    Nothing(String),
}

/// Who jumps to a snapshot that is durable.
#[derive(Debug)]
enum Jump {
    /// The state machine, to this image, and then the replica.
    Both(Image),
    /// The replica must not jump alone. It asks again for what it lacks.
    Neither,
    /// All of it is committed here.
    Done,
}

/// `image` is none if it was removed, which happens when a newer one is durable; `wanted` is whether the
/// replica lacks what it includes.
fn jump_with(image: Option<Image>, wanted: bool) -> Jump {
    match image {
        Some(image) if wanted => Jump::Both(image),
        None if wanted => Jump::Neither,
        Some(_) | None => Jump::Done,
    }
}

impl<W: Waiter> Driver<W> {
    pub(crate) fn on_snapshot_frame(&mut self, from: ReplicaId, bytes: Bytes, now: Time) {
        let Some(frame) = frame::decode(self.group, bytes) else {
            self.shared.meters.dropped_undecodable.add(1);
            return;
        };
        let snapshots = &mut self.snapshots;
        let known = &snapshots.known;
        let answer = match frame {
            SnapshotFrame::Ask { above, wanted } => {
                Some(snapshots.senders.ask(from, above, wanted, known, now))
            }
            SnapshotFrame::Read { name, offset, len } => {
                snapshots.senders.read(from, name, (offset, len), known, now)
            }
            SnapshotFrame::Offer(meta) => {
                let replica = &self.replica;
                let is_fit = snapshots.is_fit(&meta);
                let is_welcome = |meta: &SnapshotMeta| match replica.accepts_snapshot(meta) {
                    Ok(()) => is_fit,
                    Err(why) => {
                        tracing::debug!(%from, slot = %meta.slot, %why, "took no snapshot");
                        false
                    }
                };
                if snapshots.errands.is_some() {
                    snapshots.receiver.offered(from, meta, is_welcome, now);
                }
                None
            }
            SnapshotFrame::Nothing { .. } => {
                snapshots.receiver.refused(from);
                None
            }
            SnapshotFrame::Chunk { name, offset, bytes } => {
                self.shared.meters.snapshot_bytes_received.add(bytes.len() as u64);
                snapshots.receiver.chunk(name, offset, bytes, now);
                None
            }
            SnapshotFrame::Gone { name } => {
                snapshots.receiver.gone(from, name);
                None
            }
        };
        if let Some(answer) = answer {
            self.send_snapshot(from, &answer);
        }
    }

    fn send_snapshot(&mut self, to: ReplicaId, frame: &SnapshotFrame) -> Sent {
        let frame = Frame {
            lane: Lane::Bulk,
            key: None,
            channel: Channel::Snapshot,
            chunks: frame::encode(self.group, frame),
        };
        self.send_host(to, frame)
    }

    /// What the replica lacks is in no log any more.
    pub(crate) fn on_snapshot_wanted(&mut self, from: ReplicaId, above: Slot, now: Time) {
        if self.snapshots.errands.is_some() {
            self.snapshots.receiver.wanted(from, above, now);
        } else {
            tracing::warn!(
                replica = %self.id, %above,
                "behind the logs of all peers, and the state machine takes no snapshots"
            );
        }
    }

    /// The state machine's task answered the question for an image.
    pub(crate) fn on_given(&mut self, given: Given, now: Time) {
        match given {
            Given::Image(head, image) => {
                let (slot, clock) = (head.slot, head.clock);
                let Some(governs) = self.replica.governs_above(slot) else {
                    let what = format!("not yet known here who votes after slot {slot}");
                    return self.is_made(&Err(MakeSnapshotError::Failed(what)), now);
                };
                let meta = SnapshotMeta {
                    group: self.group,
                    slot,
                    clock,
                    governs,
                    bytes: 0,
                    digest: paxos_core::snapshot::ImageDigest::default(),
                };
                self.errand(Errand::Make { meta, head: head.encode(), image });
            }
            Given::Unchanged => {
                let newest = self.snapshots.newest().map(SnapshotInfo::of);
                self.is_made(&newest.ok_or(MakeSnapshotError::Nothing), now);
            }
            Given::Nothing(why) => self.is_made(&Err(MakeSnapshotError::Failed(why)), now),
        }
    }

    fn errand(&mut self, errand: Errand) {
        if let Some(errands) = &self.snapshots.errands {
            // A thread that is gone has said why.
            let _ = errands.send(errand);
        }
    }

    /// The store did something.
    pub(crate) fn on_brought(&mut self, brought: Brought, now: Time) {
        match brought {
            Brought::Made(Ok(meta)) => {
                let info = SnapshotInfo::of(&meta);
                self.replica.handle_snapshot(&meta);
                self.trace(now, || Event::SnapshotKept { slot: info.slot });
                self.snapshots.learn(meta);
                self.is_made(&Ok(info), now);
                self.look(now);
            }
            Brought::Made(Err(why)) => self.is_made(&Err(MakeSnapshotError::Failed(why)), now),
            Brought::Began(name, held) => self.snapshots.receiver.began(name, held, now),
            Brought::Written(name, held) => self.snapshots.receiver.written(name, held, now),
            Brought::Failed(name, error) => {
                tracing::warn!(replica = %self.id, slot = %name.slot, %error, "received no snapshot");
                self.snapshots.receiver.failed(name, now);
            }
            Brought::Finished(meta, result) => {
                if let Err(error) = &result {
                    let slot = meta.slot;
                    tracing::warn!(replica = %self.id, %slot, %error, "received no snapshot");
                }
                let name = Name::of(&meta);
                self.snapshots.receiver.finished(name, result.is_ok(), now);
                if result.is_ok() {
                    self.replica.handle_snapshot(&meta);
                    self.shared.meters.snapshots_received.add(1);
                    self.trace(now, || Event::SnapshotKept { slot: meta.slot });
                    self.snapshots.learn(meta);
                }
            }
            Brought::Read(wanted, read) => {
                if let Err(error) = &read {
                    let slot = wanted.meta.slot;
                    tracing::warn!(replica = %self.id, %slot, %error, "a snapshot cannot be read");
                }
                self.snapshots.senders.was_read(&wanted, read.ok().flatten());
            }
            Brought::Opened(meta, opened) => self.on_opened(meta, opened, now),
            Brought::Removed(Ok(known)) => {
                self.snapshots.relearn(known);
            }
            Brought::Removed(Err(error)) => {
                tracing::warn!(replica = %self.id, %error, "old snapshots were not removed");
            }
        }
    }

    fn on_opened(
        &mut self,
        meta: SnapshotMeta,
        opened: Result<Option<Image>, paxos_core::port::StorageError>,
        now: Time,
    ) {
        // What made the replica want it may have come from a log meanwhile.
        let wanted = self.replica.accepts_snapshot(&meta).is_ok();
        match opened.map(|image| jump_with(image, wanted)) {
            Ok(Jump::Both(image)) => self.tell(Item::Restore(meta, image)),
            Ok(Jump::Neither) => self.snapshots.receiver.restored(),
            Ok(Jump::Done) => self.on_restored(&meta, now),
            Err(error) => {
                let slot = meta.slot;
                tracing::warn!(replica = %self.id, %slot, %error, "a snapshot cannot be read");
                self.snapshots.receiver.restored();
            }
        }
    }

    /// The state machine holds the state of this snapshot, or a newer one.
    pub(crate) fn on_restored(&mut self, meta: &SnapshotMeta, now: Time) {
        match self.replica.install(meta, now) {
            Ok(()) => {
                let slot = meta.slot;
                tracing::info!(replica = %self.id, %slot, "jumped to a snapshot");
                self.shared.meters.snapshots_restored.add(1);
                self.trace(now, || Event::Installed { slot });
                self.intake.handed = self.intake.handed.max(slot);
                self.snapshots.trimmed = self.snapshots.trimmed.max(slot);
                self.end_rounds(slot, now);
            }
            Err(InstallError::Old { .. } | InstallError::Halted) => {}
            Err(why) => tracing::warn!(replica = %self.id, %why, "installed no snapshot"),
        }
        self.snapshots.receiver.restored();
        self.look(now);
    }

    /// Has done what is due: makes one, asks for more of one, sends more of one, trims.
    pub(crate) fn tend_snapshots(&mut self, now: Time) {
        self.take_snapshot_orders();
        self.take_log_orders();
        self.make_if_due(now);
        if self.snapshots.errands.is_none() {
            return;
        }
        self.snapshots.receiver.tend(self.replica.committed(), now);
        for act in self.snapshots.receiver.take_acts() {
            match act {
                // What is lost is asked for again.
                Act::Send(to, frame) => drop(self.send_snapshot(to, &frame)),
                Act::Hold(meta) => self.errand(Errand::Hold(meta)),
                Act::Write(bytes) => self.errand(Errand::Write(bytes)),
                Act::Finish(meta) => self.errand(Errand::Finish(meta)),
                Act::LetGo => self.errand(Errand::LetGo),
                Act::Restore(meta) => self.errand(Errand::Open(meta)),
            }
        }
        while let Some(wanted) = self.snapshots.senders.next(now) {
            self.errand(Errand::Read(wanted));
        }
        self.give_away();
        if now.since(self.snapshots.looked_at) >= self.config.election_timeout {
            self.look(now);
        }
    }

    /// Sends what was read for peers, as far as the lanes take it.
    fn give_away(&mut self) {
        let (group, transport, meters) = (self.group, &mut self.transport, &self.shared.meters);
        self.snapshots.senders.flush(|to, frame| {
            let chunk =
                if let SnapshotFrame::Chunk { bytes, .. } = frame { bytes.len() } else { 0 };
            let (lane, channel) = (Lane::Bulk, Channel::Snapshot);
            let chunks = frame::encode(group, frame);
            match transport.send(to, Frame { lane, key: None, channel, chunks }) {
                // It leaves once the lane has room.
                Sent::Full => false,
                Sent::Queued => {
                    meters.snapshot_bytes_sent.add(chunk as u64);
                    true
                }
                // The peer asks again.
                Sent::Down | Sent::TooLarge => true,
            }
        });
    }

    fn take_snapshot_orders(&mut self) {
        for order in self.shared.take_snapshot_orders() {
            if self.snapshots.errands.is_none() {
                // Whoever is gone does not mind.
                let _ = order.send(Err(MakeSnapshotError::NotSupported));
            } else if self.shared.applied() == Slot::ZERO {
                let _ = order.send(Err(MakeSnapshotError::Nothing));
            } else {
                self.snapshots.maker.next.push(order);
            }
        }
    }

    fn take_log_orders(&mut self) {
        for order in self.shared.take_log_orders() {
            match (order, self.snapshots.newest().cloned()) {
                (LogOrder::Lend(order), Some(newest)) => self.errand(Errand::Lend(newest, order)),
                // Whoever is gone does not mind.
                (LogOrder::Lend(order), None) => {
                    let _ = order.send(Err("there is none".to_owned()));
                }
                (LogOrder::Trim(through, order), _) => {
                    let _ = order.send(self.trim_by_order(through));
                }
            }
        }
    }

    /// Trims up to this slot, or to all that the newest snapshot includes. Rule N1.
    fn trim_by_order(&mut self, through: Option<Slot>) -> Result<Slot, TrimLogError> {
        if self.snapshots.errands.is_none() {
            return Err(TrimLogError::NotSupported);
        }
        let snapshot = self.snapshots.newest().map_or(Slot::ZERO, |meta| meta.slot);
        let asked = through.unwrap_or(snapshot);
        let refused = |_| TrimLogError::NotIncluded { asked, snapshot };
        self.replica.trim(asked).map_err(refused)?;
        if asked > self.snapshots.trimmed {
            tracing::info!(replica = %self.id, through = %asked, "trimmed the log, as it was told to");
            self.snapshots.trimmed = asked;
            self.snapshots.log.forget(asked);
        }
        Ok(self.snapshots.trimmed)
    }

    fn make_if_due(&mut self, now: Time) {
        let applied = self.shared.applied();
        let snapshots = &mut self.snapshots;
        if snapshots.errands.is_none() || snapshots.maker.since.is_some() {
            return;
        }
        let is_asked_for = !snapshots.maker.next.is_empty();
        if !is_asked_for && !snapshots.is_due(applied, &self.options, now) {
            return;
        }
        let maker = &mut snapshots.maker;
        maker.since = Some(now);
        maker.orders = core::mem::take(&mut maker.next);
        let above = snapshots.newest().map_or(Slot::ZERO, |meta| meta.slot);
        self.tell(Item::Image { above });
    }

    /// One was made, or not: tells whoever waits.
    fn is_made(&mut self, made: &Result<SnapshotInfo, MakeSnapshotError>, now: Time) {
        let maker = &mut self.snapshots.maker;
        let began = maker.since.take().unwrap_or(now);
        match made {
            Ok(info) => {
                (maker.took, maker.last_at, maker.failed) = (now.since(began), now, None);
                maker.retry.succeeded();
                self.shared.meters.snapshots_made.add(1);
                let (took, SnapshotInfo { slot, bytes, .. }) = (maker.took, info);
                tracing::info!(replica = %self.id, %slot, bytes, ?took, "made a snapshot");
            }
            Err(why) => {
                let again_in = maker.retry.failed(now);
                maker.failed = Some(why.to_string());
                tracing::warn!(replica = %self.id, %why, ?again_in, "made no snapshot");
            }
        }
        let orders: Vec<Order> = core::mem::take(&mut maker.orders);
        for order in orders {
            // Whoever is gone does not mind.
            let _ = order.send(made.clone());
        }
        self.timer.published = None;
    }

    /// Trims the log up to what the newest snapshot includes, but for a tail, and for what connected
    /// peers still lack; and removes snapshots that nobody reads.
    fn look(&mut self, now: Time) {
        let snapshots = &mut self.snapshots;
        snapshots.looked_at = now;
        let Some(newest) = snapshots.newest_held(self.intake.reported) else { return };
        snapshots.senders.forget_silent(now);
        let below = snapshots.senders.lowest().map_or(newest, |slot| slot.min(newest));
        if snapshots.known.first().is_some_and(|meta| meta.slot < below) {
            self.errand(Errand::Remove(below));
        }
        let lacking = self.replica.peer_prefixes().map(|(_, prefix)| prefix).min();
        let through = self.snapshots.trimmable(self.intake.reported, lacking, &self.options);
        if through <= self.snapshots.trimmed {
            return;
        }
        match self.replica.trim(through) {
            Ok(()) => {
                tracing::debug!(replica = %self.id, %through, "trimmed the log");
                self.snapshots.trimmed = through;
                self.snapshots.log.forget(through);
            }
            Err(why) => tracing::warn!(replica = %self.id, %through, %why, "trimmed nothing"),
        }
    }

    /// When something is due.
    pub(crate) fn snapshots_wake_at(&self, now: Time) -> Option<Time> {
        let snapshots = &self.snapshots;
        snapshots.errands.as_ref()?;
        let newest = snapshots.newest().map_or(Slot::ZERO, |meta| meta.slot);
        let interval = self
            .options
            .snapshot_interval
            .filter(|_| snapshots.maker.since.is_none() && self.shared.applied() > newest);
        let due = interval.map(|interval| {
            snapshots.maker.last_at.after(interval).max(snapshots.maker.retry.at())
        });
        let look = (snapshots.trimmed < newest || snapshots.known.len() > 1)
            .then(|| snapshots.looked_at.after(self.config.election_timeout));
        let times = [due, look, snapshots.senders.wake_at(), snapshots.receiver.wake_at()];
        // One in the past is looked at with the next step.
        times.into_iter().flatten().filter(|at| *at > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt;

    /// A replica that jumped to an image that had been removed went on without its state machine, and
    /// its directory, trimmed and without that snapshot, never started again.
    #[test]
    fn a_replica_never_jumps_without_its_state_machine() {
        let image = || Some(Image(futures::stream::empty().boxed()));
        assert!(matches!(jump_with(image(), true), Jump::Both(_)));
        assert!(matches!(jump_with(None, true), Jump::Neither));
        assert!(matches!(jump_with(image(), false), Jump::Done));
        assert!(matches!(jump_with(None, false), Jump::Done));
    }
}
