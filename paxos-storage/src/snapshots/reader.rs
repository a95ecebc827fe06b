//! The reading of one finished image.
//!
//! Owns: [`Reader`], an open file that is there until it is closed, whatever becomes of its name.
//! Invariants: bytes are given out only of a block whose checksum was found right.
//! Source: docs/format-snapshot-store.md.

use std::path::PathBuf;

use bytes::{Bytes, BytesMut};
use paxos_core::ids::Slot;
use paxos_core::port::{SnapshotReader, StorageError};
use paxos_core::snapshot::SnapshotMeta;

use super::block::{Blocks, Found};
use crate::fs::LogFile;
use crate::log::failed;

/// An open image.
#[derive(Debug)]
pub(super) struct Reader<File> {
    file: File,
    path: PathBuf,
    blocks: Blocks,
    slot: Slot,
    image_bytes: u64,
    /// The block that was read last: pieces are often smaller than blocks.
    last: Option<(u64, Bytes)>,
}

impl<File: LogFile> Reader<File> {
    pub(super) fn new((file, path): (File, PathBuf), blocks: Blocks, meta: &SnapshotMeta) -> Self {
        Self { file, path, blocks, slot: meta.slot, image_bytes: meta.bytes, last: None }
    }

    fn block(&mut self, index: u64) -> Result<Bytes, StorageError> {
        if let Some((last, bytes)) = &self.last
            && *last == index
        {
            return Ok(bytes.clone());
        }
        let found = self.blocks.take(&self.file, index, self.image_bytes);
        match found.map_err(failed("cannot read", &self.path))? {
            Found::Whole(bytes) => {
                self.last = Some((index, bytes.clone()));
                Ok(bytes)
            }
            Found::Damaged(why) => Err(StorageError::Corrupt {
                what: format!(
                    "{}, the snapshot of {}, block {index}: {why}; look at the device: nothing of \
                     this image is of use, and the next start goes on from an older one if the \
                     log reaches back to it",
                    self.path.display(),
                    self.slot
                ),
            }),
        }
    }
}

impl<File: LogFile> SnapshotReader for Reader<File> {
    fn read_at(&mut self, offset: u64, bytes_max: usize) -> Result<Bytes, StorageError> {
        let rest = self.image_bytes.saturating_sub(offset);
        let len = usize::try_from(rest).map_or(bytes_max, |rest| rest.min(bytes_max));
        if len == 0 {
            return Ok(Bytes::new());
        }
        let (mut index, mut start) = self.blocks.locate(offset);
        let first = self.block(index)?;
        if start + len <= first.len() {
            return Ok(first.slice(start..start + len));
        }
        let mut out = BytesMut::with_capacity(len);
        let mut block = first;
        loop {
            let take = (block.len() - start).min(len - out.len());
            out.extend_from_slice(&block[start..start + take]);
            if out.len() == len {
                return Ok(out.freeze());
            }
            (index, start) = (index + 1, 0);
            block = self.block(index)?;
        }
    }
}
