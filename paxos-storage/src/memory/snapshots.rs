//! Snapshots in memory, beside the log there.
//!
//! Owns: [`Kept`], the images of a [`super::MemoryStorage`], and the handles that write and read
//! them. Decides nothing about the log.
//! Invariants: a finished image is never changed; what a peer's image holds is there for the next
//! life; a handle of a life that is over writes nothing.
//! Source: the port that it implements; Low-Water Mark, without the disk.

use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use paxos_core::ids::{GroupId, Slot};
use paxos_core::port::{SnapshotReader, SnapshotStore, SnapshotWriter, StorageError};
use paxos_core::snapshot::{ImageDigest, ImageHasher, SnapshotMeta};

use super::{MemoryLog, lock};

/// What is kept of all lives.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Oldest first.
    finished: Vec<(SnapshotMeta, Bytes)>,
    /// What is held of an image that comes from a peer.
    receiving: Option<(SnapshotMeta, Vec<u8>)>,
    /// The latest writer of this replica's own image, and of a peer's.
    making_turn: u64,
    receiving_turn: u64,
}

impl Kept {
    /// The facts of the newest snapshot.
    pub(super) fn newest(&self) -> Option<&SnapshotMeta> {
        self.finished.last().map(|(meta, _)| meta)
    }
}

/// A handle of one life.
#[derive(Debug)]
pub(super) struct MemorySnapshots {
    pub(super) log: Arc<Mutex<MemoryLog>>,
    pub(super) life: u64,
}

impl MemorySnapshots {
    fn running(&self, group: GroupId) -> Result<MutexGuard<'_, MemoryLog>, StorageError> {
        let log = running(&self.log, self.life)?;
        if group == log.format.group {
            return Ok(log);
        }
        Err(StorageError::Mismatch { what: format!("{group} has no snapshots in this memory") })
    }

    fn writer(&self, turn: u64, offered: Option<SnapshotMeta>) -> MemoryWriter {
        MemoryWriter {
            log: Arc::clone(&self.log),
            life: self.life,
            turn,
            offered,
            made: Vec::new(),
            hasher: ImageHasher::new(),
            failed: false,
        }
    }
}

fn running(log: &Mutex<MemoryLog>, life: u64) -> Result<MutexGuard<'_, MemoryLog>, StorageError> {
    let log = lock(log);
    if log.life == life { Ok(log) } else { Err(StorageError::Poisoned) }
}

impl SnapshotStore for MemorySnapshots {
    fn list(&mut self, group: GroupId) -> Result<Vec<SnapshotMeta>, StorageError> {
        let log = self.running(group)?;
        Ok(log.snapshots.finished.iter().map(|(meta, _)| meta.clone()).collect())
    }

    fn create(&mut self, group: GroupId) -> Result<Box<dyn SnapshotWriter>, StorageError> {
        let mut log = self.running(group)?;
        log.snapshots.making_turn += 1;
        let turn = log.snapshots.making_turn;
        drop(log);
        Ok(Box::new(self.writer(turn, None)))
    }

    fn receive(&mut self, meta: &SnapshotMeta) -> Result<Box<dyn SnapshotWriter>, StorageError> {
        let mut log = self.running(meta.group)?;
        let kept = &mut log.snapshots;
        kept.receiving_turn += 1;
        let turn = kept.receiving_turn;
        let same = kept.receiving.take().filter(|(held, _)| held == meta);
        let (_, held) = kept.receiving.insert(same.unwrap_or_else(|| (meta.clone(), Vec::new())));
        let mut hasher = ImageHasher::new();
        hasher.update(held);
        drop(log);
        let writer = self.writer(turn, Some(meta.clone()));
        Ok(Box::new(MemoryWriter { hasher, ..writer }))
    }

    fn unfinished(&mut self, group: GroupId) -> Result<Option<SnapshotMeta>, StorageError> {
        let log = self.running(group)?;
        Ok(log.snapshots.receiving.as_ref().map(|(meta, _)| meta.clone()))
    }

    fn open(
        &mut self,
        meta: &SnapshotMeta,
    ) -> Result<Option<Box<dyn SnapshotReader>>, StorageError> {
        let log = self.running(meta.group)?;
        let found = log.snapshots.finished.iter().find(|(kept, _)| kept == meta);
        Ok(found.map(|(_, image)| Box::new(MemoryReader { image: image.clone() }) as _))
    }

    fn remove_below(&mut self, group: GroupId, slot: Slot) -> Result<(), StorageError> {
        let kept = &mut self.running(group)?.snapshots;
        let through = slot.min(kept.newest().map_or(Slot::ZERO, |meta| meta.slot));
        kept.finished.retain(|(meta, _)| meta.slot >= through);
        Ok(())
    }
}

#[derive(Debug)]
struct MemoryWriter {
    log: Arc<Mutex<MemoryLog>>,
    life: u64,
    turn: u64,
    /// What it must become, where a peer said so.
    offered: Option<SnapshotMeta>,
    /// The image, where it is this replica's own.
    made: Vec<u8>,
    hasher: ImageHasher,
    failed: bool,
}

impl MemoryWriter {
    /// The log, if this is the latest writer of its kind.
    fn current(&self) -> Result<MutexGuard<'_, MemoryLog>, StorageError> {
        if self.failed {
            return Err(StorageError::Poisoned);
        }
        let log = running(&self.log, self.life)?;
        let kept = &log.snapshots;
        let current = match self.offered {
            None => kept.making_turn == self.turn,
            Some(_) => kept.receiving_turn == self.turn && kept.receiving.is_some(),
        };
        if current {
            return Ok(log);
        }
        Err(StorageError::Mismatch {
            what: "an image was given up, because a newer snapshot was begun or finished"
                .to_owned(),
        })
    }

    fn try_finish(&mut self, meta: &SnapshotMeta) -> Result<(), StorageError> {
        let made = Bytes::from(std::mem::take(&mut self.made));
        let mut log = self.current()?;
        let (bytes, digest) = self.image();
        let expected = self.offered.as_ref().unwrap_or(meta);
        if meta != expected || meta.group != log.format.group || meta.governs.is_empty() {
            return Err(StorageError::Mismatch {
                what: format!("the snapshot of {} was to be finished as another", expected.slot),
            });
        }
        if (bytes, digest) != (meta.bytes, meta.digest) {
            return Err(StorageError::Corrupt {
                what: format!(
                    "the image of the snapshot of {} has {bytes} bytes with digest {digest}, and \
                     should have {} with {}: it is forgotten",
                    meta.slot, meta.bytes, meta.digest
                ),
            });
        }
        let kept = &mut log.snapshots;
        let received = kept.receiving.take_if(|_| self.offered.is_some());
        let image = received.map_or(made, |(_, held)| Bytes::from(held));
        kept.finished.retain(|(older, _)| older.slot != meta.slot);
        kept.finished.push((meta.clone(), image));
        kept.finished.sort_unstable_by_key(|(meta, _)| meta.slot);
        kept.receiving.take_if(|(held, _)| held.slot <= meta.slot);
        Ok(())
    }

    fn forget_on_error(&mut self, result: Result<(), StorageError>) -> Result<(), StorageError> {
        if result.is_err() {
            if let Ok(mut log) = self.current() {
                log.snapshots.receiving.take_if(|_| self.offered.is_some());
            }
            self.failed = true;
        }
        result
    }
}

impl SnapshotWriter for MemoryWriter {
    fn held(&self) -> u64 {
        self.hasher.len()
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        let after = self.hasher.len().saturating_add(bytes.len() as u64);
        if let Some(meta) = self.offered.as_ref().filter(|meta| after > meta.bytes) {
            let what = format!(
                "more was received of the snapshot of {} than the {} bytes that were offered: it \
                 is forgotten",
                meta.slot, meta.bytes
            );
            return self.forget_on_error(Err(StorageError::Corrupt { what }));
        }
        let mut log = self.current()?;
        let own = self.offered.is_none();
        if let Some((_, held)) = log.snapshots.receiving.as_mut().filter(|_| !own) {
            held.extend_from_slice(bytes);
        }
        drop(log);
        if own {
            self.made.extend_from_slice(bytes);
        }
        self.hasher.update(bytes);
        Ok(())
    }

    fn finish(mut self: Box<Self>, meta: &SnapshotMeta) -> Result<(), StorageError> {
        let finished = self.try_finish(meta);
        self.forget_on_error(finished)
    }

    fn image(&self) -> (u64, ImageDigest) {
        (self.hasher.len(), self.hasher.finish())
    }
}

#[derive(Debug)]
struct MemoryReader {
    image: Bytes,
}

impl SnapshotReader for MemoryReader {
    fn read_at(&mut self, offset: u64, bytes_max: usize) -> Result<Bytes, StorageError> {
        let len = self.image.len();
        let start = usize::try_from(offset).map_or(len, |offset| offset.min(len));
        Ok(self.image.slice(start..start.saturating_add(bytes_max).min(len)))
    }
}
