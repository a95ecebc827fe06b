//! Frames between hosts: src/frame.rs.
//!
//! What decodes must encode to the same bytes, and must be refused in any other group.

use bytes::Bytes;
use paxos_core::ids::GroupId;

use crate::frame;

const GROUP: GroupId = GroupId::new(0);

pub(super) fn run(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    let Some(decoded) = frame::decode(GROUP, bytes.clone()) else {
        return;
    };
    assert_eq!(frame::encode(GROUP, &decoded).concat(), data, "it is written as it was read");
    assert_eq!(frame::decode(GroupId::new(1), bytes.clone()), None, "it is for one group");
    assert_eq!(frame::decode(GROUP, bytes.slice(1..)), None, "nothing may be missing");
    let longer = Bytes::from([data, &[0]].concat());
    assert_eq!(frame::decode(GROUP, longer), None, "nothing may follow");
}
