//! Snapshots of bare replicas: how they are made, kept, sent and installed in a cluster.
//!
//! Owns: [`Keeper`], what one place has in hand; [`Parcel`], what places say to each other about images;
//! [`Image`], the bytes of a state. Does what a host does, in steps between each of which anything may
//! happen: a chunk is written or sent, an image is finished, its replica is told.
//! Invariants: a replica is told of a snapshot, and of an install, only after the image is finished; one
//! image is made and one received at a time.
//! Source: protocol.md §14.

use core::fmt;
use core::time::Duration;

use bytes::Bytes;

use super::check::Invariant;
use super::cluster::{Cluster, Due};
use super::host::Process;
use super::marks::Mark;
use super::network::Fate;
use super::rng::mix;
use crate::ids::{GroupId, ReplicaId, Slot};
use crate::output::InstallError;
use crate::port::{SnapshotStore, SnapshotWriter, StorageError};
use crate::snapshot::{ImageDigest, ImageHasher, SnapshotMeta};
use crate::trace::Event;

/// The group of every simulated cluster.
const GROUP: GroupId = GroupId::new(1);
/// The most bytes of a chunk.
const CHUNK: u64 = 96;
/// Of a thousand steps under faults, so many end with a loss of power.
const CRASHES: u32 = 15;

/// The bytes of a state: its hash, its slot, and as much more as the hash says.
pub(super) struct Image;

impl Image {
    /// The same for equal states of one slot.
    pub(super) fn of(slot: Slot, state: u64) -> Bytes {
        let mut image = Vec::new();
        image.extend_from_slice(&state.to_le_bytes());
        image.extend_from_slice(&slot.number().to_le_bytes());
        let mut word = mix(state ^ slot.number());
        for _ in 0..state % 40 {
            word = mix(word);
            image.extend_from_slice(&word.to_le_bytes());
        }
        Bytes::from(image)
    }

    /// The state in an image of this slot, if it is one.
    fn state(slot: Slot, image: &[u8]) -> Option<u64> {
        let state = u64::from_le_bytes(*image.first_chunk()?);
        (Self::of(slot, state) == image).then_some(state)
    }
}

/// What is said about images.
#[derive(Clone, Debug)]
pub(super) enum Parcel {
    /// Whoever has a snapshot of a slot above this one is to say so.
    Ask(Slot),
    /// This is the newest.
    Offer(SnapshotMeta),
    /// A part of this image is wanted, from this offset on.
    Read(Slot, ImageDigest, u64),
    /// Here it is.
    Chunk(Slot, ImageDigest, u64, Bytes),
    /// There is no such image any more.
    Gone(Slot, ImageDigest),
}

/// What is to be done next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Task {
    Make,
    Take,
}

struct Making {
    meta: SnapshotMeta,
    image: Bytes,
    at: usize,
    /// None once it is finished.
    writer: Option<Box<dyn SnapshotWriter>>,
}

struct Taking {
    meta: SnapshotMeta,
    from: ReplicaId,
    /// How much it held when progress was last looked for.
    seen: u64,
    /// None once it is finished.
    writer: Option<Box<dyn SnapshotWriter>>,
}

/// What a place does about snapshots in one life.
#[derive(Default)]
pub(super) struct Keeper {
    store: Option<Box<dyn SnapshotStore>>,
    /// The newest that is durable.
    newest: Slot,
    making: Option<Making>,
    taking: Option<Taking>,
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let making = self.making.as_ref().map(|making| (&making.meta, making.at));
        let taking = self.taking.as_ref().map(|taking| (&taking.meta, taking.from, taking.seen));
        f.debug_struct("Keeper")
            .field("newest", &self.newest)
            .field("making", &making)
            .field("taking", &taking)
            .finish_non_exhaustive()
    }
}

impl Keeper {
    /// Of a life that begins with this newest snapshot.
    pub(super) fn new(store: Option<Box<dyn SnapshotStore>>, newest: Slot) -> Self {
        Self { store, newest, making: None, taking: None }
    }

    /// For a host, which does all this by itself.
    pub(super) fn take_store(&mut self) -> Option<Box<dyn SnapshotStore>> {
        self.store.take()
    }
}

/// The state in the image of a snapshot.
pub(super) fn read_state(
    store: &mut dyn SnapshotStore,
    meta: &SnapshotMeta,
) -> Result<u64, StorageError> {
    let lost = || StorageError::Corrupt { what: format!("the image of {} is gone", meta.slot) };
    let mut reader = store.open(meta)?.ok_or_else(lost)?;
    let mut image = Vec::new();
    while (image.len() as u64) < meta.bytes {
        let part = reader.read_at(image.len() as u64, 64)?;
        if part.is_empty() {
            return Err(lost());
        }
        image.extend_from_slice(&part);
    }
    Image::state(meta.slot, &image).ok_or_else(lost)
}

impl Cluster {
    fn keeper(&mut self, id: ReplicaId) -> &mut Keeper {
        &mut self.node_mut(id).keeper
    }

    /// The slot of a replica's newest durable snapshot, as far as its present life knows.
    pub(super) fn newest_snapshot(&self, id: ReplicaId) -> Slot {
        self.node(id).keeper.newest
    }

    /// Whether a replica has received a part of an image, and not all of it.
    pub(super) fn is_taking(&self, id: ReplicaId) -> bool {
        let taking = self.node(id).keeper.taking.as_ref();
        let held = |taking: &Taking| taking.writer.as_ref().map_or(0, |writer| writer.held());
        taking.is_some_and(|taking| (1..taking.meta.bytes).contains(&held(taking)))
    }

    fn do_soon(&mut self, id: ReplicaId, task: Task) {
        let life = self.node(id).life;
        let most = self.options.disk_delay_max;
        let delay = self.rng.duration(Duration::from_micros(10), most);
        self.queue(self.now.after(delay), Due::Snapshot(id, life, task));
    }

    /// Whether the power fails at this step.
    fn fails_now(&mut self, id: ReplicaId) -> bool {
        let fails = self.under_faults && self.rng.chance(CRASHES);
        if fails {
            self.crash(id);
            let longest = self.options.election_timeout();
            let down = self.rng.duration(Duration::from_millis(1), longest);
            self.restart_after(id, down);
        }
        fails
    }

    /// An error is final for the image that it struck, and damage for the process.
    fn image_failed(&mut self, id: ReplicaId, error: StorageError) {
        if !matches!(error, StorageError::Io { .. }) {
            return self.storage_failed(id, error);
        }
        self.check.storage_failed(id, &error);
        self.remark(format!("{id} gives an image up: {error}"));
        let keeper = self.keeper(id);
        (keeper.making, keeper.taking) = (None, None);
    }

    /// What is received is of no use once a snapshot of that slot, or a later one, was made here.
    fn give_up_what_is_old(&mut self, id: ReplicaId) {
        let Keeper { newest, taking, .. } = &mut self.node_mut(id).keeper;
        let is_old = |taking: &mut Taking| taking.writer.is_some() && taking.meta.slot <= *newest;
        if taking.take_if(is_old).is_some() {
            self.watch.meet(Mark::InstallOvertaken);
        }
    }

    // --- making

    /// A bare replica that is up begins to make a snapshot of what it has applied, unless it makes one
    /// or has it.
    pub fn snapshot(&mut self, id: ReplicaId) {
        let slot = self.node(id).applied;
        let state = self.check.state_of(id);
        let node = self.node_mut(id);
        let Some(replica) = node.process.as_mut().and_then(Process::replica) else { return };
        let Some(governs) = replica.governs_above(slot) else { return };
        let Keeper { store: Some(store), newest, making: None, .. } = &mut node.keeper else {
            return;
        };
        if slot <= *newest {
            return;
        }
        let image = Image::of(slot, state);
        let mut hasher = ImageHasher::new();
        hasher.update(&image);
        let writer = match store.create(GROUP) {
            Ok(writer) => writer,
            Err(error) => return self.image_failed(id, error),
        };
        let (bytes, digest) = (image.len() as u64, hasher.finish());
        let clock = self.check.clock_through(slot);
        let meta = SnapshotMeta { group: GROUP, slot, clock, governs, bytes, digest };
        self.check.snapshot_made(id, &meta);
        self.keeper(id).making = Some(Making { meta, image, at: 0, writer: Some(writer) });
        self.do_soon(id, Task::Make);
    }

    /// The next step of what this place makes or takes.
    pub(super) fn snapshot_step(&mut self, id: ReplicaId, task: Task) {
        if self.fails_now(id) {
            return;
        }
        match task {
            Task::Make => self.make(id),
            Task::Take => self.take(id),
        }
    }

    fn make(&mut self, id: ReplicaId) {
        let Some(mut making) = self.keeper(id).making.take() else { return };
        let done = match making.writer.take() {
            Some(mut writer) if making.at < making.image.len() => {
                let rest = making.image.len() - making.at;
                let end = making.at + rest.min(self.rng.between(1, CHUNK) as usize);
                let written = writer.write(&making.image[making.at..end]);
                making.at = end;
                making.writer = Some(writer);
                written
            }
            Some(writer) => {
                let finished = writer.finish(&making.meta);
                if finished.is_ok() {
                    self.kept(id, &making.meta);
                }
                finished
            }
            None => {
                self.input(id, |replica, _| replica.handle_snapshot(&making.meta));
                if self.options.trim {
                    self.trim_behind(id);
                }
                return;
            }
        };
        match done {
            Ok(()) => {
                self.keeper(id).making = Some(making);
                self.do_soon(id, Task::Make);
            }
            Err(error) => self.image_failed(id, error),
        }
    }

    /// A snapshot is durable.
    pub(super) fn kept(&mut self, id: ReplicaId, meta: &SnapshotMeta) {
        let newest = &mut self.keeper(id).newest;
        *newest = meta.slot.max(*newest);
        self.totals.snapshots += 1;
        self.check.snapshot_kept(id, meta);
        self.observe(|observer| observer.kept(id, meta.slot));
        self.log(id, &Event::SnapshotKept { slot: meta.slot });
    }

    /// Trims a log behind the newest snapshot: a tail stays, and sometimes what connected peers
    /// lack. Older snapshots go, sometimes.
    fn trim_behind(&mut self, id: ReplicaId) {
        let (tail, holds) = (self.rng.below(12), self.rng.chance(500));
        let removes = self.rng.chance(500);
        let Some(status) = self.status(id) else { return };
        let node = self.node_mut(id);
        let newest = node.keeper.newest;
        let mut through = newest.min(status.applied);
        through = Slot::new(through.number().saturating_sub(tail));
        let Some(replica) = node.process.as_mut().and_then(Process::replica) else { return };
        let lowest = replica.peer_prefixes().map(|(_, slot)| slot).min();
        let held_back = holds && lowest.is_some_and(|lowest| lowest < through);
        if held_back {
            through = lowest.unwrap_or(through);
        }
        let store = node.keeper.store.as_mut().filter(|_| removes);
        if let Some(Err(error)) = store.map(|store| store.remove_below(GROUP, newest)) {
            return self.image_failed(id, error);
        }
        if held_back {
            self.watch.meet(Mark::TrimHeldBack);
        }
        self.trim_through(id, through);
    }

    /// Trims the log of a bare replica behind its newest snapshot, as far as that is applied.
    pub(super) fn trim_all(&mut self, id: ReplicaId) {
        if let Some(status) = self.status(id) {
            let through = self.keeper(id).newest.min(status.applied);
            self.trim_through(id, through);
        }
    }

    /// Trims the log of a bare replica.
    fn trim_through(&mut self, id: ReplicaId, through: Slot) {
        let node = self.node_mut(id);
        let Some(replica) = node.process.as_mut().and_then(Process::replica) else { return };
        if through <= node.trimmed {
            return;
        }
        let trimmed = replica.trim(through);
        node.trimmed = through;
        if let Err(error) = trimmed {
            let detail = || format!("{id} refuses to trim {through}: {error}");
            self.check.fail(Invariant::SnapshotFirst, detail);
        }
        self.totals.trims += 1;
        self.drain(id);
    }

    // --- taking

    /// A replica lacks what its peers have trimmed.
    pub(super) fn snapshot_wanted(&mut self, id: ReplicaId, from: ReplicaId, above: Slot) {
        self.log(id, &Event::SnapshotWanted { from, above });
        let Keeper { store: Some(store), taking, .. } = &mut self.node_mut(id).keeper else {
            return;
        };
        if let Some(under_way) = taking.as_mut().filter(|taking| taking.meta.slot > above) {
            let Some(writer) = &under_way.writer else { return };
            let (held, before) = (writer.held(), under_way.seen);
            under_way.seen = held;
            if held > before {
                return;
            }
            // Another one may have the same image, and goes on where this one stopped.
            let changed = core::mem::replace(&mut under_way.from, from) != from;
            if changed && held > 0 {
                self.watch.meet(Mark::SnapshotOfTwo);
            }
            return self.read_on(id);
        }
        *taking = None;
        match store.unfinished(GROUP) {
            Ok(Some(meta)) if meta.slot > above => self.begin_to_take(id, from, meta),
            Ok(Some(_) | None) => self.say(id, from, Parcel::Ask(above)),
            Err(error) => self.image_failed(id, error),
        }
    }

    fn begin_to_take(&mut self, id: ReplicaId, from: ReplicaId, meta: SnapshotMeta) {
        let Some(store) = &mut self.keeper(id).store else { return };
        let writer = match store.receive(&meta) {
            Ok(writer) => writer,
            Err(error) => return self.image_failed(id, error),
        };
        let held = writer.held();
        if held > 0 {
            self.watch.meet(Mark::SnapshotResumed);
        }
        self.keeper(id).taking = Some(Taking { meta, from, seen: held, writer: Some(writer) });
        self.read_on(id);
    }

    /// Asks for the next part, or finishes what is whole.
    fn read_on(&mut self, id: ReplicaId) {
        let Some(Taking { meta, from, writer: Some(writer), .. }) = &self.keeper(id).taking else {
            return;
        };
        let (held, from) = (writer.held(), *from);
        if held < meta.bytes {
            let parcel = Parcel::Read(meta.slot, meta.digest, held);
            self.say(id, from, parcel);
        } else {
            self.do_soon(id, Task::Take);
        }
    }

    fn say(&mut self, from: ReplicaId, to: ReplicaId, parcel: Parcel) {
        let (first, again) = match self.network.host_fate(from, to, self.now) {
            Fate::Cut | Fate::Lost => return,
            Fate::Once(delay) => (delay, None),
            Fate::Twice(delay, again) => (delay, Some(again)),
        };
        if let Some(again) = again {
            let parcel = parcel.clone();
            self.queue(self.now.after(again), Due::Parcel { from, to, parcel });
        }
        self.queue(self.now.after(first), Due::Parcel { from, to, parcel });
    }

    /// Something about images arrives.
    pub(super) fn parcel(&mut self, id: ReplicaId, from: ReplicaId, parcel: Parcel) {
        match parcel {
            Parcel::Ask(above) => match self.snapshots_of(id) {
                Ok(mut known) => {
                    if let Some(newest) = known.pop().filter(|meta| meta.slot > above) {
                        self.say(id, from, Parcel::Offer(newest));
                    }
                }
                Err(error) => self.image_failed(id, error),
            },
            Parcel::Offer(meta) => {
                let node = self.node_mut(id);
                let replica = node.process.as_mut().and_then(Process::replica);
                let accepts =
                    replica.is_some_and(|replica| replica.accepts_snapshot(&meta).is_ok());
                if accepts && node.keeper.taking.is_none() {
                    self.begin_to_take(id, from, meta);
                }
            }
            Parcel::Read(slot, digest, offset) => self.serve(id, from, slot, digest, offset),
            Parcel::Chunk(slot, digest, offset, bytes) => {
                self.chunk(id, slot, digest, offset, &bytes);
            }
            Parcel::Gone(slot, digest) => {
                let taking = &mut self.keeper(id).taking;
                let is_it = |taking: &mut Taking| {
                    taking.from == from && (taking.meta.slot, taking.meta.digest) == (slot, digest)
                };
                if taking.take_if(is_it).is_some() {
                    let above = self.status(id).map_or(Slot::ZERO, |status| status.committed);
                    self.watch.meet(Mark::SnapshotGone);
                    self.say(id, from, Parcel::Ask(above));
                }
            }
        }
    }

    fn snapshots_of(&mut self, id: ReplicaId) -> Result<Vec<SnapshotMeta>, StorageError> {
        let store = self.keeper(id).store.as_mut();
        store.map_or_else(|| Ok(Vec::new()), |store| store.list(GROUP))
    }

    fn serve(
        &mut self,
        id: ReplicaId,
        to: ReplicaId,
        slot: Slot,
        digest: ImageDigest,
        offset: u64,
    ) {
        let len = self.rng.between(1, CHUNK) as usize;
        let known = self.snapshots_of(id);
        let Some(store) = &mut self.keeper(id).store else { return };
        let part = known.and_then(|known| {
            let found = known.iter().find(|meta| (meta.slot, meta.digest) == (slot, digest));
            let Some(meta) = found else { return Ok(None) };
            let reader = store.open(meta)?;
            reader.map(|mut reader| reader.read_at(offset, len)).transpose()
        });
        match part {
            Ok(Some(bytes)) => self.say(id, to, Parcel::Chunk(slot, digest, offset, bytes)),
            Ok(None) => self.say(id, to, Parcel::Gone(slot, digest)),
            Err(error) => self.image_failed(id, error),
        }
    }

    fn chunk(&mut self, id: ReplicaId, slot: Slot, digest: ImageDigest, offset: u64, bytes: &[u8]) {
        self.give_up_what_is_old(id);
        let Some(Taking { meta, writer: Some(writer), .. }) = &mut self.keeper(id).taking else {
            return;
        };
        // What comes again, or is of another image, is no news.
        if (meta.slot, meta.digest, writer.held()) != (slot, digest, offset) || bytes.is_empty() {
            return;
        }
        if let Err(error) = writer.write(bytes) {
            return self.image_failed(id, error);
        }
        if !self.fails_now(id) {
            self.read_on(id);
        }
    }

    /// Finishes what was received, and after that lets it take the place of the log.
    fn take(&mut self, id: ReplicaId) {
        self.give_up_what_is_old(id);
        let Some(mut taking) = self.keeper(id).taking.take() else { return };
        if let Some(writer) = taking.writer.take() {
            if writer.held() < taking.meta.bytes {
                // It was asked to finish twice, and began anew in between.
                taking.writer = Some(writer);
                self.keeper(id).taking = Some(taking);
                return;
            }
            if let Err(error) = writer.finish(&taking.meta) {
                return self.image_failed(id, error);
            }
            self.kept(id, &taking.meta);
            self.keeper(id).taking = Some(taking);
            return self.do_soon(id, Task::Take);
        }
        self.install(id, &taking.meta);
    }

    fn install(&mut self, id: ReplicaId, meta: &SnapshotMeta) {
        let Some(store) = &mut self.keeper(id).store else { return };
        let state = match read_state(store.as_mut(), meta) {
            Ok(state) => state,
            Err(error) => return self.image_failed(id, error),
        };
        let now = self.now;
        let node = self.node_mut(id);
        let local = node.clock.local(now);
        let Some(replica) = node.process.as_mut().and_then(Process::replica) else { return };
        let led = replica.role();
        let joined = replica.governs_above(replica.committed()).is_none();
        match replica.install(meta, local) {
            Ok(()) => {
                let slot = meta.slot;
                let knows = replica.governs_above(slot).is_some();
                node.applied = slot;
                node.applied_said = slot;
                // The image is durable, and the machine with it.
                node.applied_durable = slot;
                node.trimmed = slot;
                self.installed(id, meta, Some(state));
                if joined && knows {
                    self.watch.meet(Mark::JoinedBySnapshot);
                }
                if led == crate::output::Role::Leader {
                    self.watch.meet(Mark::InstalledByLeader);
                }
            }
            Err(InstallError::Old { .. }) => self.watch.meet(Mark::InstallOvertaken),
            Err(error) => {
                let detail = || format!("{id} refuses the snapshot of {}: {error}", meta.slot);
                self.check.fail(Invariant::SnapshotFirst, detail);
            }
        }
        self.drain(id);
    }

    /// A replica, and its state machine, jumped to a snapshot. A bare one shows its state.
    pub(super) fn installed(&mut self, id: ReplicaId, meta: &SnapshotMeta, state: Option<u64>) {
        let slot = meta.slot;
        self.totals.installs += 1;
        self.check.installed(id, slot, state);
        self.observe(|observer| observer.installed(id, slot));
        self.log(id, &Event::Installed { slot });
        self.give_up_attempts(id, slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_gives_its_state_back_and_another_does_not() {
        for state in [0, 1, 39, 0xdead_beef] {
            let image = Image::of(Slot::new(3), state);
            assert_eq!(image.len() as u64, 16 + 8 * (state % 40));
            assert_eq!(Image::state(Slot::new(3), &image), Some(state));
            assert_eq!(Image::state(Slot::new(4), &image), None);
            assert_eq!(Image::state(Slot::new(3), &image[..image.len() - 1]), None);
        }
    }
}
