//! Messages, values and memberships of the protocol: `paxos_core::codec`.
//!
//! The first byte says what the others are to be read as. What decodes must encode to the same
//! bytes, must not decode with a byte more or less, and must not hold more room than bytes of its
//! length could need.

use bytes::Bytes;
use paxos_core::codec::{self, DecodeError};
use paxos_core::message::{Body, Echo, Message, PromiseEntry};
use paxos_core::value::Value;

use super::input::Input;

/// The most room for items that one byte of input may lead to: the largest item in memory over the
/// fewest bytes it is read from, twice that for a vector that grows, and some to spare.
const ROOM_PER_BYTE: usize = 64;

pub(super) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let form = input.byte() % 6;
    let bytes = Bytes::copy_from_slice(input.rest());
    match form {
        0 | 1 => same_again(&bytes, |bytes| {
            codec::decode(bytes).map(|message| {
                check_room(&message, data.len());
                Bytes::from(codec::encode(&message).concat())
            })
        }),
        2 => same_again(&bytes, |bytes| {
            codec::decode_membership(bytes).map(|membership| codec::encode_membership(&membership))
        }),
        _ => same_again(&bytes, |bytes| {
            codec::decode_value(form - 3, bytes).map(|value| {
                assert_eq!(codec::value_kind(&value), form - 3, "a value has the kind it had");
                assert_eq!(value.encoded_len(), codec::encode_value(&value).len());
                codec::encode_value(&value)
            })
        }),
    }
}

/// Decodes and encodes by `again`.
fn same_again(bytes: &Bytes, again: impl Fn(Bytes) -> Result<Bytes, DecodeError>) {
    let Ok(encoded) = again(bytes.clone()) else {
        return;
    };
    assert_eq!(encoded, bytes, "what is decoded is written as it was read");
    let longer = Bytes::from([&bytes[..], &[0]].concat());
    assert!(again(longer).is_err(), "nothing may follow");
    if let Some(shorter) = bytes.len().checked_sub(1) {
        assert!(again(bytes.slice(..shorter)).is_err(), "nothing may be missing");
    }
}

fn check_room(message: &Message, len: usize) {
    let values = |values: &Vec<Value>| values.capacity() * size_of::<Value>();
    let room = match &message.body {
        Body::Accept(accept) => values(&accept.values),
        Body::Fetched(fetched) => values(&fetched.values),
        Body::Promise(promise) => promise.entries.capacity() * size_of::<PromiseEntry>(),
        Body::Heartbeat(heartbeat) => heartbeat.echoes.capacity() * size_of::<Echo>(),
        Body::Prepare(_)
        | Body::Accepted(_)
        | Body::Reject(_)
        | Body::Commit(_)
        | Body::Fetch(_)
        | Body::Refused(_)
        | Body::Confirm(_)
        | Body::Confirmed(_)
        | Body::Transfer(_)
        | Body::Removed(_)
        | Body::Survey(_)
        | Body::Surveyed(_) => 0,
    };
    assert!(room <= ROOM_PER_BYTE * len, "{len} bytes were given room for {room}");
}
