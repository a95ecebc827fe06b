//! What earlier lives left in the directory of snapshots, read and judged at a start.
//!
//! Owns: [`Stock`], and the decision which snapshot is the newest that is whole. Changes nothing.
//! Invariants: every block of the newest snapshot was read and is valid before it is reported; an
//! older one takes the place of a damaged one only where the log holds everything above it; names
//! are durable before they are counted on.
//! Source: docs/format-snapshot-store.md; protocol.md, the section on snapshots; Low-Water Mark.

use std::path::{Path, PathBuf};

use paxos_core::ids::{GroupId, Slot};
use paxos_core::port::{SnapshotReader, StorageError};
use paxos_core::snapshot::SnapshotMeta;

use super::block::{Blocks, Found};
use super::manifest::{At, MANIFEST_BYTES_MAX, Manifest, ManifestError, Name, State, VERSION};
use crate::fs::{FileSystem, read_up_to};
use crate::layout::Owner;
use crate::log::{corrupt, failed};

/// What is there at a start.
#[derive(Debug, Default)]
pub(crate) struct Stock {
    /// Oldest first. The newest is whole; of the older ones the manifests are.
    pub(super) finished: Vec<Manifest>,
    /// An image that comes from a peer, and is newer than every finished one.
    pub(super) receiving: Option<Manifest>,
    /// Finished once, and damaged since, while the log still held what they include.
    pub(super) damaged: Vec<At>,
    /// Above the number of every file.
    pub(super) next: u64,
}

impl Stock {
    /// The facts of the newest snapshot.
    pub(crate) fn newest(&self) -> Option<&SnapshotMeta> {
        self.finished.last().map(|manifest| &manifest.meta)
    }

    /// The facts of all, oldest first.
    pub(crate) fn all(&self) -> impl Iterator<Item = &SnapshotMeta> {
        self.finished.iter().map(|manifest| &manifest.meta)
    }

    /// The facts of the one that is being received.
    pub(crate) fn unfinished(&self) -> Option<&SnapshotMeta> {
        self.receiving.as_ref().map(|manifest| &manifest.meta)
    }

    /// Of those that are damaged: the slots.
    pub(crate) fn damaged(&self) -> impl Iterator<Item = Slot> {
        self.damaged.iter().map(|at| at.slot)
    }

    /// Opens the image of a finished one; `None` if there is no such.
    pub(crate) fn open<F: FileSystem>(
        &self,
        fs: &F,
        dir: &Path,
        meta: &SnapshotMeta,
    ) -> Result<Option<Box<dyn SnapshotReader>>, StorageError> {
        let found = self.finished.iter().find(|manifest| manifest.meta == *meta);
        found.map(|manifest| super::open_image(fs, dir, manifest)).transpose()
    }
}

/// Reads and judges the snapshots of a group in `dir`, whose log was trimmed up to a slot.
///
/// Fails with [`StorageError::Corrupt`] if one is damaged and no older one reaches what the log
/// still holds.
pub(crate) fn read<F: FileSystem>(
    fs: &F,
    dir: &Path,
    (owner, group): (Owner, GroupId),
    trimmed: Slot,
) -> Result<Stock, StorageError> {
    if !fs.exists(dir).map_err(failed("cannot look for", dir))? {
        return Ok(Stock::default());
    }
    // A process that died may have left names that are not durable; what is counted on must be.
    fs.sync_dir(dir).map_err(failed("cannot sync", dir))?;
    let mut reading = Reading { fs, dir, owner, group, damage: Vec::new() };
    let mut stock = reading.read_manifests()?;
    reading.keep_whole(&mut stock)?;
    reading.judge(&stock, trimmed)?;
    // Of two images of one slot the later one took the other's place.
    stock.finished.reverse();
    stock.finished.dedup_by_key(|manifest| manifest.meta.slot);
    stock.finished.reverse();
    let newest = stock.newest().map(|meta| meta.slot);
    stock.receiving = stock.receiving.take().filter(|manifest| newest < Some(manifest.meta.slot));
    stock.damaged.extend(reading.damage.into_iter().map(|damage| damage.at));
    stock.damaged.sort_unstable();
    Ok(stock)
}

/// A finished snapshot that cannot be used.
#[derive(Debug)]
struct Damage {
    at: At,
    path: PathBuf,
    why: String,
}

struct Reading<'a, F> {
    fs: &'a F,
    dir: &'a Path,
    owner: Owner,
    group: GroupId,
    /// What was found in this start.
    damage: Vec<Damage>,
}

impl<F: FileSystem> Reading<'_, F> {
    fn read_manifests(&mut self) -> Result<Stock, StorageError> {
        let names = self.fs.list(self.dir).map_err(failed("cannot list", self.dir))?;
        let names: Vec<_> = names.iter().filter_map(|name| Name::parse(name)).collect();
        let mut stock = Stock::default();
        for name in &names {
            stock.next = stock.next.max(name.number().saturating_add(1));
            let Name::Manifest { state, at } = *name else { continue };
            match state {
                State::Making => {}
                State::Damaged => stock.damaged.push(at),
                // What was not finished is no loss where it cannot be read.
                State::Receiving => {
                    let manifest = self.read_manifest(*name, at)?;
                    let has_image = names.contains(&Name::Image(at.number));
                    stock.receiving = manifest.ok().filter(|_| has_image).or(stock.receiving);
                }
                State::Finished => match self.read_manifest(*name, at)? {
                    Ok(manifest) => stock.finished.push(manifest),
                    Err(why) => {
                        let path = self.dir.join(name.to_string());
                        self.damage.push(Damage { at, path, why });
                    }
                },
            }
        }
        stock.finished.sort_unstable_by_key(Manifest::at);
        Ok(stock)
    }

    /// A manifest, or what is wrong with it.
    fn read_manifest(&self, name: Name, at: At) -> Result<Result<Manifest, String>, StorageError> {
        let path = self.dir.join(name.to_string());
        let file = self.fs.open(&path).map_err(failed("cannot open", &path))?;
        let bytes =
            read_up_to(&file, 0, MANIFEST_BYTES_MAX + 1).map_err(failed("cannot read", &path))?;
        let manifest = match Manifest::decode(&bytes) {
            Ok(manifest) => manifest,
            Err(ManifestError::Damaged(why)) => return Ok(Err(why)),
            Err(ManifestError::Version(version)) => {
                return Err(StorageError::Mismatch {
                    what: format!(
                        "{} has format version {version}, and this release reads {VERSION}: run \
                         the release that wrote it",
                        path.display()
                    ),
                });
            }
        };
        if (manifest.owner, manifest.meta.group) != (self.owner, self.group) {
            return Err(StorageError::Mismatch {
                what: format!(
                    "{} belongs to cluster {}, {}, {}: it was copied here from elsewhere",
                    path.display(),
                    manifest.owner.cluster,
                    manifest.owner.replica,
                    manifest.meta.group
                ),
            });
        }
        if manifest.at() != at {
            return Ok(Err("it is the manifest of another snapshot".to_owned()));
        }
        Ok(Ok(manifest))
    }

    /// Drops snapshots from the newest down until one is whole.
    fn keep_whole(&mut self, stock: &mut Stock) -> Result<(), StorageError> {
        while let Some(newest) = stock.finished.last() {
            let path = self.dir.join(Name::Image(newest.number).to_string());
            let Some(why) = self.damage_of(newest, &path)? else { break };
            let at = newest.at();
            self.damage.push(Damage { at, path, why });
            stock.finished.pop();
        }
        Ok(())
    }

    /// Reads every block of an image; says which is not valid, if one is not.
    fn damage_of(&self, manifest: &Manifest, path: &Path) -> Result<Option<String>, StorageError> {
        if !self.fs.exists(path).map_err(failed("cannot look for", path))? {
            return Ok(Some("it is missing".to_owned()));
        }
        let file = self.fs.open(path).map_err(failed("cannot open", path))?;
        let blocks = Blocks::new(manifest.owner, self.group, manifest.number, manifest.block_bytes);
        for index in 0..blocks.count(manifest.meta.bytes) {
            let found = blocks.take(&file, index, manifest.meta.bytes);
            if let Found::Damaged(why) = found.map_err(failed("cannot read", path))? {
                return Ok(Some(format!("block {index}: {why}")));
            }
        }
        Ok(None)
    }

    /// A damaged snapshot may be done without only if the log goes on from an older one.
    fn judge(&self, stock: &Stock, trimmed: Slot) -> Result<(), StorageError> {
        let reached = stock.newest().map_or(Slot::ZERO, |meta| meta.slot);
        let needed = self.damage.iter().find(|damage| damage.at.slot >= trimmed);
        match needed.filter(|_| trimmed > reached) {
            None => Ok(()),
            Some(Damage { at, path, why }) => Err(corrupt(
                format!("{}, the snapshot of slot {}", path.display(), at.slot.number()),
                format!(
                    "{why}; the log begins after slot {}, and no older snapshot reaches so far",
                    trimmed.number()
                ),
            )),
        }
    }
}
