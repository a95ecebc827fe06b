//! The writing of one image.
//!
//! Owns: [`Writer`], the buffer of its last block, the running digest. Removes and renames nothing
//! itself.
//! Invariants: what `held` counts is in the file or in the buffer; after an error nothing more is
//! written; the image is synced as it grows, so that no sync waits for all of it.
//! Source: docs/format-snapshot-store.md.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use paxos_core::port::{SnapshotWriter, StorageError};
use paxos_core::snapshot::{ImageDigest, ImageHasher, SnapshotMeta};

use super::block::{BLOCK_HEADER_LEN, Blocks, Found};
use super::manifest::Manifest;
use super::{Kept, Turn, lock};
use crate::fs::{FileSystem, sync};
use crate::log::failed;

/// After so many blocks the file is synced: 4 MiB of blocks of the default length.
const BLOCKS_UNSYNCED_MAX: u64 = 16;

/// An image that is being made or received.
#[derive(Debug)]
pub(super) struct Writer<F: FileSystem> {
    kept: Arc<Mutex<Kept<F>>>,
    file: F::File,
    path: PathBuf,
    blocks: Blocks,
    turn: Turn,
    /// What it must become, where a peer said so.
    offered: Option<SnapshotMeta>,
    hasher: ImageHasher,
    /// The block that is being filled; begins with room for its header.
    block: Vec<u8>,
    /// Where that block goes.
    index: u64,
    unsynced: u64,
    failed: bool,
}

impl<F: FileSystem> Writer<F> {
    pub(super) fn new(
        kept: Arc<Mutex<Kept<F>>>,
        (file, path): (F::File, PathBuf),
        blocks: Blocks,
        turn: Turn,
        offered: Option<&Manifest>,
    ) -> Self {
        let mut block = Vec::with_capacity(BLOCK_HEADER_LEN + blocks.capacity());
        block.resize(BLOCK_HEADER_LEN, 0);
        Self {
            kept,
            file,
            path,
            blocks,
            turn,
            offered: offered.map(|manifest| manifest.meta.clone()),
            hasher: ImageHasher::new(),
            block,
            index: 0,
            unsynced: 0,
            failed: false,
        }
    }

    /// Takes up what is held already: valid blocks from the first on. They are written anew, because
    /// a sync that failed may have left them in the page cache alone, marked as clean.
    pub(super) fn resume(&mut self) -> Result<(), StorageError> {
        let resumed = self.try_resume();
        self.fail_on_error(resumed)
    }

    fn try_resume(&mut self) -> Result<(), StorageError> {
        let image_bytes = self.offered.as_ref().map_or(0, |meta| meta.bytes);
        while self.index < self.blocks.count(image_bytes) {
            let found = self.blocks.take(&self.file, self.index, image_bytes);
            let Found::Whole(bytes) = found.map_err(failed("cannot read", &self.path))? else {
                break;
            };
            self.take(&bytes);
            self.put_block()?;
        }
        Ok(())
    }

    /// Takes bytes into the block that is being filled, where they fit.
    fn take(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.block.extend_from_slice(bytes);
    }

    fn room(&self) -> usize {
        BLOCK_HEADER_LEN + self.blocks.capacity() - self.block.len()
    }

    fn try_write(&mut self, mut bytes: &[u8]) -> Result<(), StorageError> {
        let after = self.hasher.len().saturating_add(bytes.len() as u64);
        if let Some(meta) = self.offered.as_ref().filter(|meta| after > meta.bytes) {
            return Err(StorageError::Corrupt {
                what: format!(
                    "more was received of the snapshot of {} than the {} bytes that were offered: \
                     it is forgotten, and can be asked for again",
                    meta.slot, meta.bytes
                ),
            });
        }
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(self.room().min(bytes.len()));
            self.take(now);
            bytes = later;
            if self.room() == 0 {
                self.put_block()?;
            }
        }
        Ok(())
    }

    /// Writes the block that is being filled, and begins the next one.
    fn put_block(&mut self) -> Result<(), StorageError> {
        {
            // Held while writing, so that nobody who was overtaken writes into another's file.
            let kept = lock(&self.kept);
            if !kept.is_current(self.turn) {
                return Err(self.overtaken());
            }
            let put = self.blocks.put(&mut self.file, self.index, &mut self.block);
            put.map_err(failed("cannot write", &self.path))?;
        }
        self.index += 1;
        self.block.truncate(BLOCK_HEADER_LEN);
        self.unsynced += 1;
        if self.unsynced >= BLOCKS_UNSYNCED_MAX { self.sync() } else { Ok(()) }
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        sync(&mut self.file).map_err(failed("cannot sync", &self.path))?;
        self.unsynced = 0;
        Ok(())
    }

    fn overtaken(&self) -> StorageError {
        StorageError::Mismatch {
            what: format!(
                "{} was given up, because a newer snapshot was begun or finished",
                self.path.display()
            ),
        }
    }

    fn try_finish(&mut self, meta: &SnapshotMeta) -> Result<(), StorageError> {
        let (bytes, digest) = self.image();
        let expected = self.offered.as_ref().unwrap_or(meta);
        if meta != expected {
            return Err(StorageError::Mismatch {
                what: format!(
                    "the snapshot of {} was received, and that of {} was to be finished",
                    expected.slot, meta.slot
                ),
            });
        }
        if (bytes, digest) != (meta.bytes, meta.digest) {
            return Err(StorageError::Corrupt {
                what: format!(
                    "the image of the snapshot of {} has {bytes} bytes with digest {digest}, and \
                     should have {} with {}: it is forgotten, and can be made or asked for again",
                    meta.slot, meta.bytes, meta.digest
                ),
            });
        }
        if self.block.len() > BLOCK_HEADER_LEN {
            self.put_block()?;
        }
        self.sync()?;
        let mut kept = lock(&self.kept);
        if !kept.is_current(self.turn) {
            return Err(self.overtaken());
        }
        kept.commit(self.turn, meta)
    }

    fn fail_on_error<T>(&mut self, result: Result<T, StorageError>) -> Result<T, StorageError> {
        if result.is_err() {
            self.failed = true;
            lock(&self.kept).forget(self.turn);
        }
        result
    }
}

impl<F: FileSystem> SnapshotWriter for Writer<F> {
    fn held(&self) -> u64 {
        self.hasher.len()
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        if self.failed {
            return Err(StorageError::Poisoned);
        }
        let written = self.try_write(bytes);
        self.fail_on_error(written)
    }

    fn finish(mut self: Box<Self>, meta: &SnapshotMeta) -> Result<(), StorageError> {
        if self.failed {
            return Err(StorageError::Poisoned);
        }
        let finished = self.try_finish(meta);
        self.fail_on_error(finished)
    }

    fn image(&self) -> (u64, ImageDigest) {
        (self.hasher.len(), self.hasher.finish())
    }
}

impl<F: FileSystem> Drop for Writer<F> {
    /// What this replica was making is of no use to a later writer: the next call removes it.
    fn drop(&mut self) {
        if let Ok(mut kept) = self.kept.lock() {
            kept.give_up_making(self.turn);
        }
    }
}
