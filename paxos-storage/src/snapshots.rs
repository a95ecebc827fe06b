//! Snapshots in a directory beside the log: images in blocks, and a manifest that makes one count.
//!
//! Owns: DIR/snapshots and the list of what is finished in it. Touches no segment and no META, and
//! shares nothing with the log but the directory's lock, so that either goes on without the other.
//! Invariants: a snapshot is finished by the rename of its manifest, after its image, its manifest
//! and both their names are durable; a manifest's removal is durable before its image is removed;
//! what is reported as finished was durable in this life or read and verified at its start; a
//! writer that is not the latest of its kind writes nothing.
//! Source: docs/format-snapshot-store.md; Low-Water Mark; etcd and hashicorp/raft, for renaming
//! what is complete.

mod block;
mod manifest;
mod reader;
mod stock;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use paxos_core::ids::{GroupId, Slot};
use paxos_core::port::{SnapshotReader, SnapshotStore, SnapshotWriter, StorageError};
use paxos_core::snapshot::SnapshotMeta;

use crate::fs::{FileSystem, sync, write_all};
use crate::layout::Owner;
use crate::log::failed;
use block::Blocks;
use manifest::{At, Manifest, Name, State};
use reader::Reader;
use writer::Writer;

pub(crate) use stock::{Stock, read};

/// The smallest block of an image.
pub const SNAPSHOT_BLOCK_BYTES_MIN: u32 = 512;
/// The largest block of an image.
pub const SNAPSHOT_BLOCK_BYTES_MAX: u32 = 4 << 20;
/// The directory of snapshots in a replica's directory.
pub(crate) const SNAPSHOTS_DIR: &str = "snapshots";

/// Whether an image can be cut into blocks of this length.
pub(crate) fn block_bytes_fit(block_bytes: u32) -> bool {
    (SNAPSHOT_BLOCK_BYTES_MIN..=SNAPSHOT_BLOCK_BYTES_MAX).contains(&block_bytes)
        && block_bytes.is_multiple_of(SNAPSHOT_BLOCK_BYTES_MIN)
}

/// A handle of the snapshots of a replica. Clones share them.
#[derive(Debug)]
pub(crate) struct Snapshots<F: FileSystem> {
    kept: Arc<Mutex<Kept<F>>>,
}

impl<F: FileSystem> Clone for Snapshots<F> {
    fn clone(&self) -> Self {
        Self { kept: Arc::clone(&self.kept) }
    }
}

/// Where the snapshots are, and whose they are.
#[derive(Debug)]
pub(crate) struct Place<F: FileSystem> {
    pub(crate) fs: F,
    /// The replica's directory.
    pub(crate) root: PathBuf,
    pub(crate) owner: Owner,
    pub(crate) group: GroupId,
    /// The length of a block of new images.
    pub(crate) block_bytes: u32,
    /// Held until the last writer is gone: nobody else may be given the directory before.
    pub(crate) lock: Arc<F::Lock>,
}

impl<F: FileSystem> Snapshots<F> {
    /// Begins a life with what is in stock, and removes what it does not need.
    pub(crate) fn begin(place: Place<F>, stock: Stock) -> Result<Self, StorageError> {
        let dir = place.root.join(SNAPSHOTS_DIR);
        let mut kept = Kept {
            fs: place.fs,
            dir,
            root: place.root,
            owner: place.owner,
            group: place.group,
            block_bytes: place.block_bytes,
            finished: stock.finished,
            damaged: stock.damaged,
            making: None,
            receiving: stock.receiving.map(|manifest| (Turn::default(), manifest)),
            next: stock.next.max(1),
            turns: Turn::default(),
            ready: false,
            _lock: place.lock,
        };
        kept.set_damaged_aside()?;
        kept.clear()?;
        Ok(Self { kept: Arc::new(Mutex::new(kept)) })
    }

    fn kept(&self) -> MutexGuard<'_, Kept<F>> {
        lock(&self.kept)
    }
}

fn lock<F: FileSystem>(kept: &Mutex<Kept<F>>) -> MutexGuard<'_, Kept<F>> {
    kept.lock().expect("no call of the snapshots panics while it holds the lock")
}

impl<F: FileSystem> SnapshotStore for Snapshots<F> {
    fn list(&mut self, group: GroupId) -> Result<Vec<SnapshotMeta>, StorageError> {
        let kept = self.kept();
        kept.check_group(group)?;
        Ok(kept.finished.iter().map(|manifest| manifest.meta.clone()).collect())
    }

    fn create(&mut self, group: GroupId) -> Result<Box<dyn SnapshotWriter>, StorageError> {
        let kept = &mut *self.kept();
        kept.check_group(group)?;
        kept.making = None;
        kept.make_ready()?;
        let (number, turn) = (kept.number(), kept.turn());
        kept.making = Some((turn, number));
        let created = kept.create(Name::Image(number));
        let file = kept.forget_on_error(turn, created)?;
        let blocks = Blocks::new(kept.owner, group, number, kept.block_bytes);
        Ok(Box::new(Writer::new(Arc::clone(&self.kept), file, blocks, turn, None)))
    }

    fn receive(&mut self, meta: &SnapshotMeta) -> Result<Box<dyn SnapshotWriter>, StorageError> {
        let mut kept = self.kept();
        kept.check_group(meta.group)?;
        let turn = kept.turn();
        let same = kept.receiving.take().filter(|(_, manifest)| manifest.meta == *meta);
        kept.receiving = same.map(|(_, manifest)| (turn, manifest));
        kept.make_ready()?;
        let begun = kept.go_on_receiving(meta, turn);
        let (manifest, file) = kept.forget_on_error(turn, begun)?;
        drop(kept);
        let (number, block_bytes) = (manifest.number, manifest.block_bytes);
        let blocks = Blocks::new(manifest.owner, meta.group, number, block_bytes);
        let kept = Arc::clone(&self.kept);
        let mut writer = Writer::new(kept, file, blocks, turn, Some(&manifest));
        // Takes long where much is held: others may use the snapshots meanwhile.
        writer.resume()?;
        Ok(Box::new(writer))
    }

    fn unfinished(&mut self, group: GroupId) -> Result<Option<SnapshotMeta>, StorageError> {
        let kept = self.kept();
        kept.check_group(group)?;
        Ok(kept.receiving.as_ref().map(|(_, manifest)| manifest.meta.clone()))
    }

    fn open(
        &mut self,
        meta: &SnapshotMeta,
    ) -> Result<Option<Box<dyn SnapshotReader>>, StorageError> {
        let kept = self.kept();
        kept.check_group(meta.group)?;
        let Some(manifest) = kept.finished.iter().find(|manifest| manifest.meta == *meta) else {
            return Ok(None);
        };
        open_image(&kept.fs, &kept.dir, manifest).map(Some)
    }

    fn remove_below(&mut self, group: GroupId, slot: Slot) -> Result<(), StorageError> {
        let kept = &mut *self.kept();
        kept.check_group(group)?;
        let newest = kept.finished.last().map_or(Slot::ZERO, |manifest| manifest.meta.slot);
        let through = slot.min(newest);
        kept.finished.retain(|manifest| manifest.meta.slot >= through);
        kept.damaged.retain(|at| at.slot >= through);
        kept.clear()
    }
}

/// Opens the image that a manifest names.
fn open_image<F: FileSystem>(
    fs: &F,
    dir: &Path,
    manifest: &Manifest,
) -> Result<Box<dyn SnapshotReader>, StorageError> {
    let path = dir.join(Name::Image(manifest.number).to_string());
    let file = fs.open(&path).map_err(failed("cannot open", &path))?;
    let (group, number) = (manifest.meta.group, manifest.number);
    let blocks = Blocks::new(manifest.owner, group, number, manifest.block_bytes);
    Ok(Box::new(Reader::new((file, path), blocks, &manifest.meta)))
}

/// Tells the writers of one image apart.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Turn(u64);

/// What all handles share.
#[derive(Debug)]
struct Kept<F: FileSystem> {
    fs: F,
    dir: PathBuf,
    root: PathBuf,
    owner: Owner,
    group: GroupId,
    block_bytes: u32,
    /// Oldest first.
    finished: Vec<Manifest>,
    damaged: Vec<At>,
    /// The image of this replica's own that is being written, by its number.
    making: Option<(Turn, u64)>,
    /// The image of a peer's that is being written, or can be gone on with.
    receiving: Option<(Turn, Manifest)>,
    /// The number of the next image.
    next: u64,
    turns: Turn,
    /// Whether this life made the directory's own name durable.
    ready: bool,
    /// Declared last, so that the directory is given up after everything in it.
    _lock: Arc<F::Lock>,
}

impl<F: FileSystem> Kept<F> {
    fn check_group(&self, group: GroupId) -> Result<(), StorageError> {
        if group == self.group {
            return Ok(());
        }
        Err(StorageError::Mismatch {
            what: format!("{group} has no snapshots in {}", self.dir.display()),
        })
    }

    fn path(&self, name: Name) -> PathBuf {
        self.dir.join(name.to_string())
    }

    fn number(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        number
    }

    fn turn(&mut self) -> Turn {
        self.turns.0 += 1;
        self.turns
    }

    /// Makes the directory, and removes what earlier writers left in it.
    fn make_ready(&mut self) -> Result<(), StorageError> {
        if !self.ready {
            self.fs.create_dir(&self.dir).map_err(failed("cannot create", &self.dir))?;
            // An earlier life may have made it and died before this.
            self.fs.sync_dir(&self.root).map_err(failed("cannot sync", &self.root))?;
            self.ready = true;
        }
        self.clear()
    }

    fn create(&self, name: Name) -> Result<(F::File, PathBuf), StorageError> {
        let path = self.path(name);
        let file = self.fs.create(&path).map_err(failed("cannot create", &path))?;
        Ok((file, path))
    }

    fn open(&self, name: Name) -> Result<(F::File, PathBuf), StorageError> {
        let path = self.path(name);
        let file = self.fs.open(&path).map_err(failed("cannot open", &path))?;
        Ok((file, path))
    }

    /// The file of the image that is being received, made where there is none. Its manifest and all
    /// names are durable when it returns: an earlier life may have failed to sync them.
    fn go_on_receiving(
        &mut self,
        meta: &SnapshotMeta,
        turn: Turn,
    ) -> Result<(Manifest, (F::File, PathBuf)), StorageError> {
        let manifest = if let Some((_, manifest)) = &self.receiving {
            manifest.clone()
        } else {
            let (owner, number, block_bytes) = (self.owner, self.number(), self.block_bytes);
            let manifest = Manifest { owner, number, block_bytes, meta: meta.clone() };
            self.receiving = Some((turn, manifest.clone()));
            self.create(Name::Image(number))?;
            self.create(manifest.name(State::Receiving))?;
            manifest
        };
        self.sync_manifest(&manifest, State::Receiving)?;
        let file = self.open(Name::Image(manifest.number))?;
        Ok((manifest, file))
    }

    /// Writes a manifest into the file that it has in this state, which exists. Durable with all
    /// names in the directory when it returns.
    fn sync_manifest(&self, manifest: &Manifest, state: State) -> Result<(), StorageError> {
        let Some(bytes) = manifest.encode() else {
            return Err(StorageError::Mismatch {
                what: format!(
                    "what is said of the snapshot of {} makes no sense, or is too long to keep",
                    manifest.meta.slot
                ),
            });
        };
        let (mut file, path) = self.open(manifest.name(state))?;
        write_all(&mut file, &bytes, 0).map_err(failed("cannot write", &path))?;
        sync(&mut file).map_err(failed("cannot sync", &path))?;
        self.fs.sync_dir(&self.dir).map_err(failed("cannot sync", &self.dir))
    }

    /// Whether the writer of this turn may still write.
    fn is_current(&self, turn: Turn) -> bool {
        let making = self.making.as_ref().map(|(turn, _)| turn);
        let receiving = self.receiving.as_ref().map(|(turn, _)| turn);
        making == Some(&turn) || receiving == Some(&turn)
    }

    /// Makes a snapshot of an image that is whole and durable.
    fn commit(&mut self, turn: Turn, meta: &SnapshotMeta) -> Result<(), StorageError> {
        let making = self.making.filter(|(making, _)| *making == turn);
        let (manifest, state) = match (making, &self.receiving) {
            (Some((_, number)), _) => {
                let (owner, block_bytes) = (self.owner, self.block_bytes);
                let manifest = Manifest { owner, number, block_bytes, meta: meta.clone() };
                drop(self.create(manifest.name(State::Making))?);
                self.sync_manifest(&manifest, State::Making)?;
                (manifest, State::Making)
            }
            (None, Some((_, manifest))) => (manifest.clone(), State::Receiving),
            (None, None) => unreachable!("the writer was asked whether it is current"),
        };
        let (from, to) =
            (self.path(manifest.name(state)), self.path(manifest.name(State::Finished)));
        self.fs.rename(&from, &to).map_err(failed("cannot name", &to))?;
        self.fs.sync_dir(&self.dir).map_err(failed("cannot sync", &self.dir))?;
        self.take_finished(manifest);
        Ok(())
    }

    /// Takes note of a snapshot that is durable, and of what it makes useless.
    fn take_finished(&mut self, manifest: Manifest) {
        let (slot, number) = (manifest.meta.slot, manifest.number);
        self.finished.retain(|older| older.meta.slot != slot);
        self.finished.push(manifest);
        self.finished.sort_unstable_by_key(Manifest::at);
        self.making = self.making.filter(|(_, making)| *making != number);
        self.receiving = self.receiving.take().filter(|(_, other)| other.meta.slot > slot);
        // It is durable whatever becomes of these; what cannot be removed is tried again later.
        let _ = self.clear();
    }

    /// Gives up what the writer of this turn wrote.
    fn forget(&mut self, turn: Turn) {
        self.give_up_making(turn);
        self.receiving = self.receiving.take().filter(|(receiving, _)| *receiving != turn);
        // The first error is the one to report; what cannot be removed is tried again later.
        let _ = self.clear();
    }

    /// Nobody goes on with an image that this replica was making.
    fn give_up_making(&mut self, turn: Turn) {
        self.making = self.making.filter(|(making, _)| *making != turn);
    }

    fn forget_on_error<T>(
        &mut self,
        turn: Turn,
        result: Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        if result.is_err() {
            self.forget(turn);
        }
        result
    }

    /// Gives damaged snapshots another name, so that no later start takes them for whole. The newest
    /// is kept for people, until a snapshot above it is the oldest one.
    fn set_damaged_aside(&mut self) -> Result<(), StorageError> {
        let surplus = self.damaged.len().saturating_sub(1);
        self.damaged.drain(..surplus);
        let Some(at) = self.damaged.first().copied() else {
            return Ok(());
        };
        let name = |state| self.path(Name::Manifest { state, at });
        let (from, to) = (name(State::Finished), name(State::Damaged));
        if self.fs.exists(&from).map_err(failed("cannot look for", &from))? {
            self.fs.rename(&from, &to).map_err(failed("cannot name", &to))?;
        }
        Ok(())
    }

    /// Removes every file of ours that nothing needs. An image goes after its manifest's removal is
    /// durable: a manifest that came back alone would accuse the device.
    fn clear(&self) -> Result<(), StorageError> {
        if !self.fs.exists(&self.dir).map_err(failed("cannot look for", &self.dir))? {
            return Ok(());
        }
        let names = self.fs.list(&self.dir).map_err(failed("cannot list", &self.dir))?;
        let needless =
            names.iter().filter_map(|name| Name::parse(name)).filter(|name| !self.needs(*name));
        let is_image = |name: &Name| matches!(name, Name::Image(_));
        let (images, manifests): (Vec<_>, Vec<_>) = needless.partition(is_image);
        for name in &manifests {
            self.remove(*name)?;
        }
        if !manifests.is_empty() {
            self.fs.sync_dir(&self.dir).map_err(failed("cannot sync", &self.dir))?;
        }
        images.into_iter().try_for_each(|name| self.remove(name))
    }

    fn remove(&self, name: Name) -> Result<(), StorageError> {
        let path = self.path(name);
        self.fs.remove(&path).map_err(failed("cannot remove", &path))
    }

    fn needs(&self, name: Name) -> bool {
        let finished = || self.finished.iter().map(Manifest::at);
        let receiving = self.receiving.as_ref().map(|(_, manifest)| manifest.at());
        match name {
            Name::Image(number) => {
                let making = self.making.map(|(_, number)| number);
                let damaged = self.damaged.iter().copied();
                making == Some(number)
                    || finished().chain(receiving).chain(damaged).any(|at| at.number == number)
            }
            Name::Manifest { state: State::Making, .. } => false,
            Name::Manifest { state: State::Receiving, at } => receiving == Some(at),
            Name::Manifest { state: State::Finished, at } => finished().any(|kept| kept == at),
            Name::Manifest { state: State::Damaged, at } => self.damaged.contains(&at),
        }
    }
}
