//! Snapshots on a simulated disk: what is finished survives a crash, what is not may be torn.
//!
//! Owns: [`Shelf`], what a [`super::SimDisk`] keeps beside its log. Clones share it, as the log and
//! the snapshots of a directory share a disk.
//! Invariants: a finished image is whole and never changes; of what is received and not synced a
//! crash leaves any beginning; of what a replica makes itself it leaves nothing.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::rng::Rng;
use crate::ids::{GroupId, Slot};
use crate::port::{SnapshotReader, SnapshotStore, SnapshotWriter, StorageError};
use crate::snapshot::{ImageDigest, ImageHasher, SnapshotMeta};

/// A receiver syncs whenever so many bytes came in.
const SYNC_BYTES: usize = 64;

/// An image on its way from a peer.
#[derive(Debug)]
struct Received {
    meta: SnapshotMeta,
    bytes: Vec<u8>,
    synced: usize,
}

#[derive(Debug, Default)]
struct Images {
    /// By rising slots.
    finished: Vec<(SnapshotMeta, Bytes)>,
    received: Option<Received>,
    /// Counts the power failures, so that a hand from before has no hold.
    life: u64,
}

/// The snapshots of one disk and one group.
#[derive(Clone, Debug, Default)]
pub(super) struct Shelf(Arc<Mutex<Images>>);

impl Shelf {
    fn images(&self) -> MutexGuard<'_, Images> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of the newest one.
    pub(super) fn newest(&self) -> Option<SnapshotMeta> {
        self.images().finished.last().map(|(meta, _)| meta.clone())
    }

    /// The power fails.
    pub(super) fn crash(&self, rng: &mut Rng) {
        let mut images = self.images();
        images.life += 1;
        if let Some(received) = &mut images.received {
            let (synced, len) = (received.synced as u64, received.bytes.len() as u64);
            received.bytes.truncate(rng.between(synced, len) as usize);
            received.synced = received.bytes.len();
        }
    }
}

fn digest_of(image: &[u8]) -> ImageDigest {
    let mut hasher = ImageHasher::new();
    hasher.update(image);
    hasher.finish()
}

impl SnapshotStore for Shelf {
    fn list(&mut self, _group: GroupId) -> Result<Vec<SnapshotMeta>, StorageError> {
        Ok(self.images().finished.iter().map(|(meta, _)| meta.clone()).collect())
    }

    fn create(&mut self, _group: GroupId) -> Result<Box<dyn SnapshotWriter>, StorageError> {
        let life = self.images().life;
        Ok(Box::new(Writer { shelf: self.clone(), life, own: Some(Vec::new()) }))
    }

    fn receive(&mut self, meta: &SnapshotMeta) -> Result<Box<dyn SnapshotWriter>, StorageError> {
        let mut images = self.images();
        if images.received.as_ref().is_none_or(|received| received.meta != *meta) {
            let meta = meta.clone();
            images.received = Some(Received { meta, bytes: Vec::new(), synced: 0 });
        }
        let life = images.life;
        Ok(Box::new(Writer { shelf: self.clone(), life, own: None }))
    }

    fn unfinished(&mut self, _group: GroupId) -> Result<Option<SnapshotMeta>, StorageError> {
        Ok(self.images().received.as_ref().map(|received| received.meta.clone()))
    }

    fn open(
        &mut self,
        meta: &SnapshotMeta,
    ) -> Result<Option<Box<dyn SnapshotReader>>, StorageError> {
        let images = self.images();
        let found = images.finished.iter().find(|(found, _)| found == meta);
        Ok(found.map(|(_, image)| Box::new(Reader(image.clone())) as Box<dyn SnapshotReader>))
    }

    fn remove_below(&mut self, _group: GroupId, slot: Slot) -> Result<(), StorageError> {
        let mut images = self.images();
        let newest = images.finished.last().map(|(meta, _)| meta.slot);
        images.finished.retain(|(meta, _)| meta.slot >= slot || Some(meta.slot) == newest);
        Ok(())
    }
}

/// An image that is being made here, or comes from a peer.
#[derive(Debug)]
struct Writer {
    shelf: Shelf,
    life: u64,
    own: Option<Vec<u8>>,
}

impl Writer {
    /// Lets a hand of this life look at what is there.
    fn with<T>(
        &self,
        images: &mut Images,
        what: impl FnOnce(&mut Received) -> T,
    ) -> Result<T, StorageError> {
        let gone = || StorageError::Io {
            what: "cannot write to an image that is gone".to_owned(),
            source: io::ErrorKind::NotFound.into(),
        };
        if images.life != self.life {
            return Err(gone());
        }
        images.received.as_mut().map(what).ok_or_else(gone)
    }
}

impl SnapshotWriter for Writer {
    fn held(&self) -> u64 {
        self.image().0
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        if let Some(own) = &mut self.own {
            own.extend_from_slice(bytes);
            return Ok(());
        }
        let mut images = self.shelf.images();
        self.with(&mut images, |received| {
            received.bytes.extend_from_slice(bytes);
            if received.bytes.len() - received.synced >= SYNC_BYTES {
                received.synced = received.bytes.len();
            }
        })
    }

    fn finish(self: Box<Self>, meta: &SnapshotMeta) -> Result<(), StorageError> {
        let mut images = self.shelf.images();
        let bytes = match &self.own {
            Some(own) => own.clone(),
            None => self.with(&mut images, |received| core::mem::take(&mut received.bytes))?,
        };
        if self.own.is_none() {
            images.received = None;
        }
        if (bytes.len() as u64, digest_of(&bytes)) != (meta.bytes, meta.digest) {
            let what = format!("the image of {} is not what it was said to be", meta.slot);
            return Err(StorageError::Corrupt { what });
        }
        images.finished.retain(|(known, _)| known.slot != meta.slot);
        images.finished.push((meta.clone(), Bytes::from(bytes)));
        images.finished.sort_by_key(|(known, _)| known.slot);
        Ok(())
    }

    fn image(&self) -> (u64, ImageDigest) {
        let images = self.shelf.images();
        let received = images.received.as_ref().map(|received| &received.bytes);
        let bytes = self.own.as_ref().or(received).map_or(&[][..], |bytes| bytes);
        (bytes.len() as u64, digest_of(bytes))
    }
}

#[derive(Debug)]
struct Reader(Bytes);

impl SnapshotReader for Reader {
    fn read_at(&mut self, offset: u64, bytes_max: usize) -> Result<Bytes, StorageError> {
        let begin = usize::try_from(offset).unwrap_or(usize::MAX).min(self.0.len());
        let end = begin.saturating_add(bytes_max).min(self.0.len());
        Ok(self.0.slice(begin..end))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;
    use crate::ids::LogClock;

    const GROUP: GroupId = GroupId::new(1);

    fn meta(slot: u64, image: &[u8]) -> SnapshotMeta {
        SnapshotMeta {
            group: GROUP,
            slot: Slot::new(slot),
            clock: LogClock::default(),
            governs: Vec::new(),
            bytes: image.len() as u64,
            digest: digest_of(image),
        }
    }

    #[test]
    fn a_crash_leaves_what_is_finished_and_a_beginning_of_what_is_received() {
        let image = [7; 200];
        let meta = meta(4, &image);
        let mut held = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let mut shelf = Shelf::default();
            let mut writer = shelf.receive(&meta).unwrap();
            writer.write(&image[..70]).unwrap();
            writer.write(&image[70..100]).unwrap();
            shelf.crash(&mut Rng::new(seed));
            assert!(writer.write(&image[100..]).is_err(), "a hand from before the crash");
            assert_eq!(shelf.unfinished(GROUP).unwrap().as_ref(), Some(&meta));
            let mut writer = shelf.receive(&meta).unwrap();
            held.insert(writer.held());
            writer.write(&image[writer.held() as usize..]).unwrap();
            writer.finish(&meta).unwrap();
            shelf.crash(&mut Rng::new(seed));
            assert_eq!(shelf.newest().as_ref(), Some(&meta));
            let mut reader = shelf.open(&meta).unwrap().unwrap();
            assert_eq!(reader.read_at(190, 20).unwrap().len(), 10);
        }
        assert_eq!((held.first(), held.last()), (Some(&70), Some(&100)));
    }

    #[test]
    fn an_image_that_is_another_is_no_snapshot_and_the_newest_is_never_removed() {
        let mut shelf = Shelf::default();
        for slot in [3, 5] {
            let mut writer = shelf.create(GROUP).unwrap();
            writer.write(b"image").unwrap();
            writer.finish(&meta(slot, b"image")).unwrap();
        }
        let mut writer = shelf.create(GROUP).unwrap();
        writer.write(b"imago").unwrap();
        let finished = writer.finish(&meta(9, b"image"));
        assert!(matches!(finished, Err(StorageError::Corrupt { .. })));
        let slots = |shelf: &mut Shelf| {
            shelf.list(GROUP).unwrap().iter().map(|meta| meta.slot.number()).collect::<Vec<_>>()
        };
        assert_eq!(slots(&mut shelf), [3, 5]);
        shelf.remove_below(GROUP, Slot::new(9)).unwrap();
        assert_eq!(slots(&mut shelf), [5]);
        // What was received of another image is gone.
        shelf.receive(&meta(6, b"six")).unwrap().write(b"s").unwrap();
        assert_eq!(shelf.receive(&meta(7, b"seven")).unwrap().held(), 0);
        // What is made here and not finished is gone with its writer.
        shelf.create(GROUP).unwrap().write(b"ima").unwrap();
        assert_eq!(shelf.create(GROUP).unwrap().held(), 0);
    }
}
