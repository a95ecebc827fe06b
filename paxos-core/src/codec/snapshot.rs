//! The bytes of what is known of a snapshot, the same in offers to peers and beside an image.
//!
//! Owns: their layout, drawn in docs/format-snapshot.md. What is read is checked as a whole.

use bytes::{BufMut, Bytes, BytesMut};

use super::{DecodeError, Reader, decode_membership, encode_membership};
use crate::ids::{GroupId, LogClock, Slot};
use crate::snapshot::{Governs, ImageDigest, SnapshotMeta};

/// The bytes of a snapshot's facts.
pub fn encode_snapshot_meta(meta: &SnapshotMeta) -> Bytes {
    let mut out = BytesMut::with_capacity(256);
    out.put_u64_le(meta.group.number());
    out.put_u64_le(meta.slot.number());
    out.put_u64_le(meta.clock.millis());
    out.put_u64_le(meta.bytes);
    out.put_u128_le(meta.digest.0);
    let count = u16::try_from(meta.governs.len()).expect("a window of memberships is small");
    out.put_u16_le(count);
    for governs in &meta.governs {
        let membership = encode_membership(&governs.membership);
        out.put_u64_le(governs.from.number());
        let len = u32::try_from(membership.len()).expect("members are few");
        out.put_u32_le(len);
        out.put_slice(&membership);
    }
    out.freeze()
}

/// Reads a snapshot's facts.
pub fn decode_snapshot_meta(bytes: Bytes) -> Result<SnapshotMeta, DecodeError> {
    let mut reader = Reader { rest: bytes };
    let group = GroupId::new(reader.u64()?);
    let slot = reader.slot()?;
    let clock = LogClock::from_millis(reader.u64()?);
    let bytes = reader.u64()?;
    let digest = ImageDigest(u128::from_le_bytes(reader.array()?));
    let count = reader.u16()?;
    if slot == Slot::ZERO || slot == Slot::MAX {
        return Err(DecodeError::Field("slot"));
    }
    let mut governs: Vec<Governs> = Vec::new();
    for _ in 0..count {
        let from = reader.slot()?;
        let len = reader.u32()? as usize;
        let membership = decode_membership(reader.take(len)?)?;
        let rises = governs
            .last()
            .is_none_or(|last| last.from < from && last.membership.epoch() < membership.epoch());
        // The first one governs the slot after the snapshot's, the others begin later.
        if !rises || (governs.is_empty() != (from <= slot.next())) {
            return Err(DecodeError::Field("governs"));
        }
        governs.push(Governs { from, membership });
    }
    if governs.is_empty() {
        return Err(DecodeError::Field("governs"));
    }
    if !reader.rest.is_empty() {
        return Err(DecodeError::Trailing);
    }
    Ok(SnapshotMeta { group, slot, clock, governs, bytes, digest })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;
    use crate::ids::ReplicaId;
    use crate::membership::Membership;

    fn meta() -> SnapshotMeta {
        let membership = Membership::voters_only([1, 2, 3].map(ReplicaId::new)).unwrap();
        SnapshotMeta {
            group: GroupId::new(3),
            slot: Slot::new(77),
            clock: LogClock::from_millis(5),
            governs: vec![Governs { from: Slot::FIRST, membership }],
            bytes: 1 << 40,
            digest: ImageDigest(9 << 100),
        }
    }

    #[test]
    fn facts_survive_their_encoding_and_no_prefix_or_extension_does() {
        let bytes = encode_snapshot_meta(&meta());
        assert_eq!(decode_snapshot_meta(bytes.clone()), Ok(meta()));
        for len in 0..bytes.len() {
            assert!(decode_snapshot_meta(bytes.slice(..len)).is_err(), "cut at {len}");
        }
        let mut longer = bytes.to_vec();
        longer.push(0);
        assert_eq!(decode_snapshot_meta(longer.into()), Err(DecodeError::Trailing));
    }

    #[test]
    fn what_no_snapshot_is_is_not_read() {
        let read = |meta: &SnapshotMeta| decode_snapshot_meta(encode_snapshot_meta(meta));
        let field = |name| Err(DecodeError::Field(name));
        assert_eq!(read(&SnapshotMeta { slot: Slot::ZERO, ..meta() }), field("slot"));
        assert_eq!(read(&SnapshotMeta { governs: Vec::new(), ..meta() }), field("governs"));
        let mut late = meta();
        late.governs[0].from = Slot::new(79);
        assert_eq!(read(&late), field("governs"), "nobody would govern the next slot");
        let mut twice = meta();
        twice.governs.push(twice.governs[0].clone());
        assert_eq!(read(&twice), field("governs"));
    }
}
