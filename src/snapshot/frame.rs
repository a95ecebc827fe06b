//! What nodes say to each other about snapshots: questions, offers and chunks.
//!
//! Owns: [`SnapshotFrame`] and its bytes. Little-endian, versioned; drawn in docs/format-snapshot.md.
//! Invariants: decoding never panics and never allocates by a claimed length; chunks stay slices of
//! the received buffer; whatever a chunk claims, its bytes are those that its sender digested.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use paxos_core::codec::{decode_snapshot_meta, encode_snapshot_meta};
use paxos_core::ids::{GroupId, Slot};
use paxos_core::snapshot::{ImageDigest, ImageHasher, SnapshotMeta};

/// The version of these frames.
const VERSION: u8 = 1;
/// The bytes of a frame around those of a chunk.
pub(crate) const CHUNK_HEAD_LEN: usize = 64;

/// Which snapshot: replicas that applied the same log name equal images alike.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Name {
    pub(crate) slot: Slot,
    pub(crate) digest: ImageDigest,
}

impl Name {
    pub(crate) fn of(meta: &SnapshotMeta) -> Self {
        Self { slot: meta.slot, digest: meta.digest }
    }
}

/// A frame of the channel of snapshots.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum SnapshotFrame {
    /// The sender needs what is above this slot, and the log has it no more.
    Ask {
        above: Slot,
        /// The one that it holds a part of.
        wanted: Option<Name>,
    },
    /// This one can be read.
    Offer(SnapshotMeta),
    /// There is none above this slot, or too many read already.
    Nothing { above: Slot },
    /// The sender wants these bytes.
    Read { name: Name, offset: u64, len: u32 },
    /// Here they are.
    Chunk { name: Name, offset: u64, bytes: Bytes },
    /// That one cannot be read here, or not any more.
    Gone { name: Name },
}

fn digest(bytes: &[u8]) -> ImageDigest {
    let mut hasher = ImageHasher::new();
    hasher.update(bytes);
    hasher.finish()
}

/// The bytes of a frame, in chunks.
pub(crate) fn encode(group: GroupId, frame: &SnapshotFrame) -> Vec<Bytes> {
    let kind = match frame {
        SnapshotFrame::Ask { .. } => 1,
        SnapshotFrame::Offer(_) => 2,
        SnapshotFrame::Nothing { .. } => 3,
        SnapshotFrame::Read { .. } => 4,
        SnapshotFrame::Chunk { .. } => 5,
        SnapshotFrame::Gone { .. } => 6,
    };
    let mut head = BytesMut::with_capacity(CHUNK_HEAD_LEN);
    head.put_u8(VERSION);
    head.put_u8(kind);
    head.put_bytes(0, 6);
    head.put_u64_le(group.number());
    let put_name = |head: &mut BytesMut, name: &Name| {
        head.put_u64_le(name.slot.number());
        head.put_u128_le(name.digest.0);
    };
    match frame {
        SnapshotFrame::Ask { above, wanted } => {
            head.put_u64_le(above.number());
            let none = Name { slot: Slot::ZERO, digest: ImageDigest(0) };
            put_name(&mut head, wanted.as_ref().unwrap_or(&none));
        }
        SnapshotFrame::Offer(meta) => return vec![head.freeze(), encode_snapshot_meta(meta)],
        SnapshotFrame::Nothing { above } => head.put_u64_le(above.number()),
        SnapshotFrame::Read { name, offset, len } => {
            put_name(&mut head, name);
            head.put_u64_le(*offset);
            head.put_u32_le(*len);
        }
        SnapshotFrame::Chunk { name, offset, bytes } => {
            put_name(&mut head, name);
            head.put_u64_le(*offset);
            head.put_u128_le(digest(bytes).0);
            return vec![head.freeze(), bytes.clone()];
        }
        SnapshotFrame::Gone { name } => put_name(&mut head, name),
    }
    vec![head.freeze()]
}

/// Reads a frame; `None` if it is not one of this version and group, or its bytes are not those that
/// were sent.
pub(crate) fn decode(group: GroupId, mut bytes: Bytes) -> Option<SnapshotFrame> {
    let rest = &mut bytes;
    let [version, kind, zeros @ ..] = take::<8>(rest)?;
    if version != VERSION || zeros != [0; 6] || number(rest)? != group.number() {
        return None;
    }
    let frame = match kind {
        1 => {
            let (above, name) = (Slot::new(number(rest)?), name(rest)?);
            let none = name == Name { slot: Slot::ZERO, digest: ImageDigest(0) };
            SnapshotFrame::Ask { above, wanted: (!none).then_some(name) }
        }
        2 => {
            let meta = decode_snapshot_meta(core::mem::take(rest)).ok()?;
            if meta.group != group {
                return None;
            }
            SnapshotFrame::Offer(meta)
        }
        3 => SnapshotFrame::Nothing { above: Slot::new(number(rest)?) },
        4 => {
            let (name, offset) = (name(rest)?, number(rest)?);
            SnapshotFrame::Read { name, offset, len: u32::from_le_bytes(take(rest)?) }
        }
        5 => {
            let (name, offset) = (name(rest)?, number(rest)?);
            let check = ImageDigest(u128::from_le_bytes(take(rest)?));
            let bytes = core::mem::take(rest);
            if digest(&bytes) != check {
                return None;
            }
            SnapshotFrame::Chunk { name, offset, bytes }
        }
        6 => SnapshotFrame::Gone { name: name(rest)? },
        _ => return None,
    };
    rest.is_empty().then_some(frame)
}

fn take<const N: usize>(rest: &mut Bytes) -> Option<[u8; N]> {
    let array = *rest.first_chunk::<N>()?;
    rest.advance(N);
    Some(array)
}

fn number(rest: &mut Bytes) -> Option<u64> {
    take(rest).map(u64::from_le_bytes)
}

fn name(rest: &mut Bytes) -> Option<Name> {
    let slot = Slot::new(number(rest)?);
    Some(Name { slot, digest: ImageDigest(u128::from_le_bytes(take(rest)?)) })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;
    use paxos_core::ids::{LogClock, ReplicaId};
    use paxos_core::membership::Membership;
    use paxos_core::snapshot::Governs;

    fn frames(group: GroupId) -> Vec<SnapshotFrame> {
        let name = Name { slot: Slot::new(7), digest: ImageDigest(1 << 90) };
        let membership = Membership::voters_only([1, 2].map(ReplicaId::new)).unwrap();
        let meta = SnapshotMeta {
            group,
            slot: Slot::new(7),
            clock: LogClock::from_millis(3),
            governs: vec![Governs { from: Slot::FIRST, membership }],
            bytes: 11,
            digest: ImageDigest(4),
        };
        vec![
            SnapshotFrame::Ask { above: Slot::new(3), wanted: None },
            SnapshotFrame::Ask { above: Slot::new(3), wanted: Some(name) },
            SnapshotFrame::Offer(meta),
            SnapshotFrame::Nothing { above: Slot::new(3) },
            SnapshotFrame::Read { name, offset: 5, len: 9 },
            SnapshotFrame::Chunk { name, offset: 5, bytes: Bytes::from_static(b"image") },
            SnapshotFrame::Gone { name },
        ]
    }

    #[test]
    fn every_frame_survives_its_encoding_and_no_prefix_or_extension_does() {
        let group = GroupId::new(6);
        for frame in frames(group) {
            let bytes = Bytes::from(encode(group, &frame).concat());
            assert_eq!(decode(group, bytes.clone()).as_ref(), Some(&frame));
            assert_eq!(decode(GroupId::new(7), bytes.clone()), None);
            for len in 0..bytes.len() {
                assert_eq!(decode(group, bytes.slice(..len)), None, "cut at {len}");
            }
            let mut longer = bytes.to_vec();
            longer.push(0);
            assert_eq!(decode(group, longer.into()), None);
        }
    }

    #[test]
    fn a_corrupt_chunk_is_no_frame() {
        let group = GroupId::new(6);
        let chunk = frames(group).remove(5);
        let chunks = encode(group, &chunk);
        assert_eq!(chunks[0].len(), CHUNK_HEAD_LEN);
        let bytes = chunks.concat();
        for place in CHUNK_HEAD_LEN - 16..bytes.len() {
            let mut other = bytes.clone();
            other[place] ^= 4;
            assert_eq!(decode(group, other.into()), None, "byte {place}");
        }
    }
}
