//! Frames about snapshots between hosts: src/snapshot/frame.rs.
//!
//! The first byte says whether a chunk's digest is made right first, which no fuzzer would guess. What
//! decodes must encode to the same bytes, and must be refused in any other group.

use bytes::Bytes;
use paxos_core::ids::GroupId;
use paxos_core::snapshot::ImageHasher;

use crate::snapshot_frame::{self, CHUNK_HEAD_LEN, SnapshotFrame};

const GROUP: GroupId = GroupId::new(0);

pub(super) fn run(data: &[u8]) {
    let Some((form, rest)) = data.split_first() else {
        return;
    };
    let mut frame = rest.to_vec();
    if form % 2 == 1 {
        sign(&mut frame);
    }
    let bytes = Bytes::from(frame);
    let Some(decoded) = snapshot_frame::decode(GROUP, bytes.clone()) else {
        return;
    };
    if let SnapshotFrame::Chunk { bytes: image, .. } = &decoded {
        assert_eq!(image.len(), bytes.len() - CHUNK_HEAD_LEN, "a chunk is what follows its head");
    }
    assert_eq!(snapshot_frame::encode(GROUP, &decoded).concat(), bytes, "written as it was read");
    assert_eq!(snapshot_frame::decode(GroupId::new(1), bytes.clone()), None, "it is for one group");
    assert_eq!(snapshot_frame::decode(GROUP, bytes.slice(1..)), None, "nothing may be missing");
    let longer = Bytes::from([&bytes[..], &[0]].concat());
    assert_eq!(snapshot_frame::decode(GROUP, longer), None, "nothing may follow");
}

/// Gives a chunk the digest of its bytes.
fn sign(frame: &mut [u8]) {
    let Some((head, image)) = frame.split_at_mut_checked(CHUNK_HEAD_LEN) else {
        return;
    };
    let mut hasher = ImageHasher::new();
    hasher.update(image);
    head[CHUNK_HEAD_LEN - 16..].copy_from_slice(&hasher.finish().0.to_le_bytes());
}
