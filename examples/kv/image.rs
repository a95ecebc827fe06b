//! The map as the bytes of a snapshot: drawn below.
//!
//! Owns: [`write`] and [`Reader`]. Little-endian, versioned.
//! Invariants: equal stores have equal bytes; nothing is allocated by a claimed length beyond what a key
//! and a value may have.
//!
//! ```text
//! magic "KVIMAGE" u8 x 7 · version u8 · writes u64 · keys u64
//! each key: its length u32 · its value's length u32 · key · value
//! ```

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::map::Map;

const MAGIC: [u8; 8] = *b"KVIMAGE\x01";
const HEAD_LEN: usize = 24;
const ENTRY_HEAD_LEN: usize = 8;
/// Entries are put together up to so many bytes.
const PIECE_BYTES: usize = 128 << 10;

/// The image of a map that so many writes led to, piece by piece.
pub(crate) fn write(map: Map, writes: u64) -> impl Iterator<Item = Bytes> + Send {
    let mut head = BytesMut::with_capacity(HEAD_LEN);
    head.put_slice(&MAGIC);
    head.put_u64_le(writes);
    head.put_u64_le(map.len() as u64);
    let mut entries = map.into_entries();
    let pieces = std::iter::from_fn(move || {
        let mut piece = BytesMut::new();
        while piece.len() < PIECE_BYTES
            && let Some((key, value)) = entries.next()
        {
            piece.reserve(ENTRY_HEAD_LEN + key.len() + value.len());
            piece.put_u32_le(key.len() as u32);
            piece.put_u32_le(value.len() as u32);
            piece.put_slice(&key);
            piece.put_slice(&value);
        }
        (!piece.is_empty()).then(|| piece.freeze())
    });
    std::iter::once(head.freeze()).chain(pieces)
}

/// What an image holds, as far as it was read.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    rest: BytesMut,
    /// Writes and keys.
    head: Option<(u64, u64)>,
    read: u64,
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("no image of a kv map: {what}"))
}

impl Reader {
    /// Takes the next bytes in, and gives the entries that are whole to `each`.
    pub(crate) fn take(
        &mut self,
        piece: &[u8],
        mut each: impl FnMut(Bytes, Bytes),
    ) -> io::Result<()> {
        self.rest.extend_from_slice(piece);
        if self.head.is_none() && self.rest.len() >= HEAD_LEN {
            let mut magic = [0; 8];
            self.rest.copy_to_slice(&mut magic);
            if magic != MAGIC {
                return Err(wrong("it begins otherwise"));
            }
            self.head = Some((self.rest.get_u64_le(), self.rest.get_u64_le()));
        }
        while self.head.is_some()
            && let Some(head) = self.rest.first_chunk::<ENTRY_HEAD_LEN>()
        {
            let length = |at: usize| {
                u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]) as usize
            };
            let (key, value) = (length(0), length(4));
            if self.rest.len() < ENTRY_HEAD_LEN + key + value {
                break;
            }
            self.rest.advance(ENTRY_HEAD_LEN);
            // Copied, so that an entry that stays does not keep the others of its piece.
            let key = Bytes::copy_from_slice(&self.rest.split_to(key));
            let value = Bytes::copy_from_slice(&self.rest.split_to(value));
            self.read += 1;
            each(key, value);
        }
        Ok(())
    }

    /// The number of writes, if all was read.
    pub(crate) fn finish(self) -> io::Result<u64> {
        match self.head {
            Some((writes, keys)) if keys == self.read && self.rest.is_empty() => Ok(writes),
            Some(_) => Err(wrong("it holds another number of keys")),
            None => Err(wrong("it ends too early")),
        }
    }
}
