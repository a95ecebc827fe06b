//! The blocks that an image is cut into, each with a checksum of its own.
//!
//! Owns: [`Blocks`], which puts blocks into a file and takes them out of it. Knows no names and no
//! manifests.
//! Invariants: block n stands at n times the length of a block; all but the last are full; a block
//! that was written for another image, or for another place in this one, is not valid here.
//! Source: docs/format-snapshot-store.md; "End-to-End Arguments in System Design", for checksums
//! that are computed where the bytes are made and checked where they are used.

use std::io;

use bytes::{Buf, Bytes};
use paxos_core::ids::GroupId;

use super::manifest::VERSION;
use crate::fs::{LogFile, read_up_to, write_all};
use crate::layout::Owner;

/// In front of each block's bytes.
pub(super) const BLOCK_HEADER_LEN: usize = 16;

/// How the image of one number is cut into blocks, and how they are salted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Blocks {
    block_bytes: usize,
    salt: u32,
}

/// What stands where a block was looked for.
#[derive(Debug)]
pub(super) enum Found {
    /// Its bytes.
    Whole(Bytes),
    /// Why it is not valid.
    Damaged(String),
}

impl Blocks {
    pub(super) fn new(owner: Owner, group: GroupId, number: u64, block_bytes: u32) -> Self {
        let mut salt = [0; 34];
        salt[..16].copy_from_slice(&owner.cluster.bits().to_le_bytes());
        salt[16..18].copy_from_slice(&owner.replica.number().to_le_bytes());
        salt[18..26].copy_from_slice(&group.number().to_le_bytes());
        salt[26..].copy_from_slice(&number.to_le_bytes());
        Self { block_bytes: block_bytes as usize, salt: crc32c::crc32c(&salt) }
    }

    /// How many bytes of the image a full block holds.
    pub(super) const fn capacity(self) -> usize {
        self.block_bytes - BLOCK_HEADER_LEN
    }

    /// The block that a byte of the image stands in, and where in it.
    pub(super) const fn locate(self, offset: u64) -> (u64, usize) {
        let capacity = self.capacity() as u64;
        (offset / capacity, (offset % capacity) as usize)
    }

    /// How many blocks an image of so many bytes has.
    pub(super) const fn count(self, bytes: u64) -> u64 {
        bytes.div_ceil(self.capacity() as u64)
    }

    /// Writes a block. Its buffer begins with room for the header.
    pub(super) fn put(
        self,
        file: &mut impl LogFile,
        index: u64,
        block: &mut [u8],
    ) -> io::Result<()> {
        let len = block.len() - BLOCK_HEADER_LEN;
        assert!(len <= self.capacity(), "a block has a bounded length");
        let Ok(place) = u32::try_from(index) else {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "an image of 2^32 blocks"));
        };
        let len = u32::try_from(len).expect("a block is far below 4 GiB");
        block[4..8].copy_from_slice(&len.to_le_bytes());
        block[8..12].copy_from_slice(&place.to_le_bytes());
        block[12..14].copy_from_slice(&VERSION.to_le_bytes());
        block[14..16].fill(0);
        let crc = crc32c::crc32c_append(self.salt, &block[4..]);
        block[..4].copy_from_slice(&crc.to_le_bytes());
        write_all(file, block, index * self.block_bytes as u64)
    }

    /// Reads a block of an image of so many bytes.
    pub(super) fn take(
        self,
        file: &impl LogFile,
        index: u64,
        image_bytes: u64,
    ) -> io::Result<Found> {
        let before = index.saturating_mul(self.capacity() as u64);
        let len = image_bytes.saturating_sub(before).min(self.capacity() as u64) as usize;
        let offset = index.saturating_mul(self.block_bytes as u64);
        let bytes = Bytes::from(read_up_to(file, offset, BLOCK_HEADER_LEN + len)?);
        let Some(mut head) = bytes.first_chunk::<BLOCK_HEADER_LEN>().map(|head| &head[..]) else {
            return Ok(Found::Damaged(format!("the file ends after {} bytes of it", bytes.len())));
        };
        let (stored, claimed) = (head.get_u32_le(), head.get_u32_le() as usize);
        let place = u64::from(head.get_u32_le());
        if claimed != len || bytes.len() != BLOCK_HEADER_LEN + len {
            let there = bytes.len() - BLOCK_HEADER_LEN;
            return Ok(Found::Damaged(format!(
                "it claims {claimed} bytes, {there} are there, and {len} are due"
            )));
        }
        let computed = crc32c::crc32c_append(self.salt, &bytes[4..]);
        if stored != computed {
            return Ok(Found::Damaged(format!(
                "its checksum is {stored:08x}, its bytes give {computed:08x}"
            )));
        }
        if place != index {
            return Ok(Found::Damaged(format!("it is block {place}")));
        }
        Ok(Found::Whole(bytes.slice(BLOCK_HEADER_LEN..)))
    }
}
