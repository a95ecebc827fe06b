//! What the tests of snapshots share: images, their facts, and ways to write and read them.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::path::PathBuf;

use paxos_core::ids::{LogClock, Slot};
use paxos_core::port::{SnapshotStore, SnapshotWriter, Storage, StorageError};
use paxos_core::snapshot::{Governs, ImageHasher, SnapshotMeta};
use paxos_storage::SNAPSHOT_BLOCK_BYTES_MIN;
use paxos_storage::sim::SimFs;

use crate::support::{GROUP, Open, format};

/// What a block of the smallest length holds of an image.
pub(crate) const CAPACITY: usize = SNAPSHOT_BLOCK_BYTES_MIN as usize - 16;

/// Bytes of which no two pieces are equal.
pub(crate) fn image(seed: u64, len: usize) -> Vec<u8> {
    let words = (0..len.div_ceil(8) as u64).flat_map(|at| {
        let word = (seed << 32 | at).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (word ^ word >> 29).to_le_bytes()
    });
    words.take(len).collect()
}

pub(crate) fn meta(slot: u64, image: &[u8]) -> SnapshotMeta {
    let mut hasher = ImageHasher::new();
    hasher.update(image);
    let from = Slot::new(slot + 1);
    SnapshotMeta {
        group: GROUP,
        slot: Slot::new(slot),
        clock: LogClock::from_millis(slot * 1000),
        governs: vec![Governs { from, membership: format().membership }],
        bytes: image.len() as u64,
        digest: hasher.finish(),
    }
}

pub(crate) type Store = Box<dyn SnapshotStore>;

pub(crate) fn store_of(log: &mut Open<impl Storage>) -> Store {
    log.storage.snapshots().unwrap()
}

/// Writes what is missing of an image, in pieces, and finishes it.
pub(crate) fn fill(
    mut writer: Box<dyn SnapshotWriter>,
    meta: &SnapshotMeta,
    image: &[u8],
) -> Result<(), StorageError> {
    let held = writer.held() as usize;
    for piece in image[held..].chunks(700) {
        writer.write(piece)?;
    }
    assert_eq!(writer.held(), meta.bytes);
    assert_eq!(writer.image(), (meta.bytes, meta.digest));
    writer.finish(meta)
}

pub(crate) fn make(
    store: &mut Store,
    slot: u64,
    image: &[u8],
) -> Result<SnapshotMeta, StorageError> {
    let meta = meta(slot, image);
    let writer = store.create(GROUP)?;
    assert_eq!(writer.held(), 0);
    fill(writer, &meta, image)?;
    Ok(meta)
}

pub(crate) fn list(store: &mut Store) -> Vec<u64> {
    store.list(GROUP).unwrap().iter().map(|meta| meta.slot.number()).collect()
}

/// The whole image; `None` if it was removed.
pub(crate) fn read(
    store: &mut Store,
    meta: &SnapshotMeta,
) -> Result<Option<Vec<u8>>, StorageError> {
    let Some(mut reader) = store.open(meta)? else { return Ok(None) };
    let mut image = Vec::new();
    loop {
        let piece = reader.read_at(image.len() as u64, 600)?;
        if piece.is_empty() {
            return Ok(Some(image));
        }
        image.extend_from_slice(&piece);
    }
}

/// The names in the directory of snapshots.
pub(crate) fn files(fs: &SimFs) -> Vec<String> {
    let paths = fs.files().into_iter().filter(|path| path.starts_with("/data/snapshots"));
    paths.map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
}

pub(crate) fn paths(fs: &SimFs) -> Vec<PathBuf> {
    files(fs).into_iter().map(|name| PathBuf::from("/data/snapshots").join(name)).collect()
}
