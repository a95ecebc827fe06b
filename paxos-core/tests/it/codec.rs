//! Decoding: the same bytes back, and an error for everything else.
//!
//! That no allocation follows a claimed length rests on the codec's structure: it allocates for
//! items only after `Reader::count` bounded their number by the bytes that are there, or grows a
//! vector item by item, each of which consumed bytes. The tests claim 4 GiB in every place.

use bytes::Bytes;
use paxos_core::ballot::Ballot;
use paxos_core::codec::{self, BATCH_HEADER_LEN, DecodeError, HEADER_LEN, VERSION};
use paxos_core::ids::{ReplicaId, Slot};
use paxos_core::message::{Accept, Body, Message, Promise, PromiseEntry, SlotState};
use paxos_core::value::Value;
use proptest::prelude::{ProptestConfig, any, proptest};
use proptest::{prop_assert, prop_assert_eq};

use crate::golden;
use crate::samples;

fn joined(message: &Message) -> Bytes {
    codec::encode(message).concat().into()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn every_message_comes_back(message in samples::any_message()) {
        let bytes = joined(&message);
        prop_assert_eq!(codec::decode(bytes.clone()), Ok(message.clone()));
        // A decoded message is passed on with the bytes it came in.
        let again = joined(&codec::decode(bytes.clone()).unwrap());
        prop_assert_eq!(again, bytes);
    }

    #[test]
    fn every_value_comes_back(value in samples::any_value()) {
        let bytes = codec::encode_value(&value);
        prop_assert_eq!(bytes.len(), value.encoded_len());
        let decoded = codec::decode_value(codec::value_kind(&value), bytes.clone());
        prop_assert_eq!(decoded.as_ref(), Ok(&value));
        prop_assert_eq!(codec::encode_value(&decoded.unwrap()), bytes);
    }

    #[test]
    fn every_membership_comes_back(membership in samples::any_membership()) {
        let bytes = codec::encode_membership(&membership);
        prop_assert_eq!(codec::decode_membership(bytes), Ok(membership));
    }

    #[test]
    fn every_truncation_of_any_message_is_an_error(
        message in samples::any_message(),
        place in any::<usize>(),
    ) {
        let bytes = joined(&message);
        let at = place % bytes.len();
        prop_assert!(codec::decode(bytes.slice(..at)).is_err());
    }

    #[test]
    fn payloads_are_slices_of_the_received_buffer(message in samples::any_message()) {
        let bytes = joined(&message);
        let buffer = bytes.as_ptr_range();
        let decoded = codec::decode(bytes.clone()).unwrap();
        for value in values_of(&decoded) {
            let Value::Batch(batch) = value else { continue };
            let encoded = batch.encoded().as_ptr_range();
            prop_assert!(buffer.start <= encoded.start && encoded.end <= buffer.end);
            for command in batch.commands() {
                let payload = command.payload.as_ptr_range();
                prop_assert!(
                    command.payload.is_empty()
                        || (buffer.start <= payload.start && payload.end <= buffer.end)
                );
            }
        }
    }
}

fn values_of(message: &Message) -> Vec<&Value> {
    match &message.body {
        Body::Accept(accept) => accept.values.iter().collect(),
        Body::Fetched(fetched) => fetched.values.iter().collect(),
        Body::Promise(promise) => promise
            .entries
            .iter()
            .filter_map(|entry| match &entry.state {
                SlotState::Accepted(_, value) | SlotState::Chosen(value) => Some(value),
                SlotState::Unknown(_) => None,
            })
            .collect(),
        Body::Prepare(_)
        | Body::Accepted(_)
        | Body::Reject(_)
        | Body::Commit(_)
        | Body::Heartbeat(_)
        | Body::Fetch(_)
        | Body::Refused(_)
        | Body::Confirm(_)
        | Body::Confirmed(_)
        | Body::Transfer(_)
        | Body::Removed(_)
        | Body::Survey(_)
        | Body::Surveyed(_) => Vec::new(),
    }
}

/// Reads an entry of the golden file as what its name says it is; the bytes it gives again.
pub(crate) fn decode_named(name: &str, bytes: Bytes) -> Result<Bytes, DecodeError> {
    let value_kind = match name {
        "value/noop" => 0,
        name if name.starts_with("value/batch") => 2,
        name if name.starts_with("value/membership") => 1,
        _ => return codec::decode(bytes).map(|message| joined(&message)),
    };
    codec::decode_value(value_kind, bytes).map(|value| codec::encode_value(&value))
}

#[test]
fn every_truncation_of_every_golden_entry_is_an_error() {
    for (name, bytes) in golden::stored() {
        for len in 0..bytes.len() {
            let cut = decode_named(&name, bytes.slice(..len));
            assert!(cut.is_err(), "{name} cut to {len} of {} bytes", bytes.len());
        }
    }
}

#[test]
fn bytes_after_the_end_are_an_error() {
    for (name, bytes) in golden::stored() {
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(
            decode_named(&name, longer.into()),
            Err(DecodeError::Trailing),
            "{name} with one byte more"
        );
    }
}

#[test]
fn a_claimed_length_allocates_nothing() {
    for (name, bytes) in golden::stored() {
        for at in 0..bytes.len().saturating_sub(3) {
            for claim in [u32::MAX, 1 << 31, 1 << 24] {
                let mut claiming = bytes.to_vec();
                claiming[at..at + 4].copy_from_slice(&claim.to_le_bytes());
                let claiming = Bytes::from(claiming);
                // In some places the four bytes are not a length, and the message stays valid.
                if let Ok(again) = decode_named(&name, claiming.clone()) {
                    assert_eq!(again, claiming, "{name} changed at {at}");
                }
            }
        }
    }
}

#[test]
fn a_claim_of_four_gib_is_refused_in_every_length() {
    let stored = golden::stored();
    let accept = &stored["message/Accept"];
    let body = HEADER_LEN + 10 + 8 + 8;
    // The number of values; the length of the first value.
    for at in [body, body + 5] {
        let mut claiming = accept.to_vec();
        claiming[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(codec::decode(claiming.into()), Err(DecodeError::Truncated));
    }
    let batch = &stored["value/batch"];
    // The number of commands; the length of the first payload.
    for at in [8, BATCH_HEADER_LEN + 4] {
        let mut claiming = batch.to_vec();
        claiming[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(codec::decode_value(2, claiming.into()), Err(DecodeError::Truncated));
    }
    let heartbeat = &stored["message/Heartbeat-alone"];
    let promise = &stored["message/Promise-empty"];
    for message in [heartbeat, promise] {
        let mut claiming = message.to_vec();
        let count = claiming.len() - 4;
        claiming[count..].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(codec::decode(claiming.into()), Err(DecodeError::Truncated));
    }
    let membership = &stored["value/membership-weights"];
    // The number of voters; that of observers.
    for at in [8, 10] {
        let mut claiming = membership.to_vec();
        claiming[at..at + 2].copy_from_slice(&u16::MAX.to_le_bytes());
        assert_eq!(codec::decode_membership(claiming.into()), Err(DecodeError::Truncated));
    }
}

#[test]
fn another_format_version_is_refused() {
    for (name, bytes) in golden::stored() {
        if !name.starts_with("message/") {
            continue;
        }
        for version in [0, VERSION - 1, VERSION + 1, u16::MAX] {
            let mut other = bytes.to_vec();
            other[..2].copy_from_slice(&version.to_le_bytes());
            assert_eq!(codec::decode(other.into()), Err(DecodeError::Version(version)), "{name}");
        }
    }
}

#[test]
fn fields_that_no_sender_writes_are_refused() {
    let stored = golden::stored();
    let with = |name: &str, at: usize, bytes: &[u8]| {
        let mut changed = stored[name].to_vec();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        codec::decode(changed.into())
    };
    // Flags.
    assert!(matches!(with("message/Prepare", 3, &[1]), Err(DecodeError::Field(_))));
    // An Accept in slot 0, and one whose slots would overflow.
    let first = HEADER_LEN + 10 + 8;
    for slot in [0, u64::MAX] {
        assert!(matches!(
            with("message/Accept", first, &slot.to_le_bytes()),
            Err(DecodeError::Field(_))
        ));
    }
    // An Accepted that ends before it begins.
    let last = HEADER_LEN + 10 + 8;
    assert!(matches!(
        with("message/Accepted", last, &1_u64.to_le_bytes()),
        Err(DecodeError::Field(_))
    ));
    // A promise whose first entry lies before its page.
    let entry = HEADER_LEN + 10 + 8 + 8 + 8 + 4;
    assert!(matches!(
        with("message/Promise", entry, &10_u64.to_le_bytes()),
        Err(DecodeError::Field(_))
    ));
    // An absent ballot that is not zero.
    assert!(matches!(
        with("message/Heartbeat-alone", HEADER_LEN + 8 + 1, &[1]),
        Err(DecodeError::Field(_))
    ));
}

/// Explicit quorums come from a peer like everything else: bounded, of voters that there are, in
/// rising order, each meeting each.
#[test]
fn explicit_quorums_that_no_sender_writes_are_refused() {
    let bytes = &golden::stored()["value/membership-sets"];
    // Three voters; the kind of rule; two of each kind; {0, 1}, {0, 2}; {0}, {1, 2}.
    assert_eq!(bytes[12..15], [3, 2, 2]);
    let with = |at: usize, set: u32| {
        let mut changed = bytes.to_vec();
        changed[at..at + 4].copy_from_slice(&set.to_le_bytes());
        codec::decode_membership(changed.into())
    };
    assert!(with(15, 0b011).is_ok(), "as it is");
    let refused = Err(DecodeError::Field("quorums"));
    for (what, at, set) in [
        ("twice", 15, 0b101),
        ("nobody", 15, 0),
        ("apart from {0}", 19, 0b110),
        ("voter 3 of three", 19, 0b1001),
        ("voter 31 of none", 19, 1 << 31),
        ("redundant", 27, 0b111),
    ] {
        assert_eq!(with(at, set), refused, "{what}");
    }
    // The same sets, the other way round.
    let mut falling = bytes.to_vec();
    falling[15..23].copy_from_slice(&[0b101, 0, 0, 0, 0b011, 0, 0, 0]);
    assert_eq!(codec::decode_membership(falling.into()), refused);
    // Sets that are not there, and more than may be.
    for counts in [[0, 2], [2, 0], [255, 255], [129, 1]] {
        let mut changed = bytes.to_vec();
        changed[13..15].copy_from_slice(&counts);
        assert!(codec::decode_membership(changed.into()).is_err(), "{counts:?}");
    }
}

#[test]
fn the_entries_of_a_promise_rise() {
    let slot = Slot::new;
    for slots in [[5, 5], [6, 5]] {
        let entry =
            |number| PromiseEntry { slot: slot(number), state: SlotState::Chosen(Value::Noop) };
        let promise = Promise {
            ballot: Ballot::new(1, ReplicaId::new(1)),
            committed: slot(4),
            from: slot(5),
            through: slot(9),
            entries: slots.map(entry).to_vec(),
        };
        let bytes = joined(&Message { origin: samples::origin(), body: promise.into() });
        assert_eq!(codec::decode(bytes), Err(DecodeError::Field("entries")), "{slots:?}");
    }
}

#[test]
fn no_value_lies_beyond_the_last_slot() {
    let accept = |first: u64, count: usize| {
        let body = Accept {
            ballot: Ballot::new(1, ReplicaId::new(1)),
            committed: Slot::ZERO,
            first: Slot::new(first),
            values: vec![Value::Noop; count],
        };
        codec::decode(joined(&Message { origin: samples::origin(), body: body.into() }))
    };
    assert!(accept(u64::MAX - 3, 3).is_ok());
    for count in [4, 5] {
        assert_eq!(accept(u64::MAX - 3, count), Err(DecodeError::Field("first")));
    }
}

#[test]
fn a_batch_holds_a_command() {
    let no_commands = [0; BATCH_HEADER_LEN];
    let decoded = codec::decode_value(2, Bytes::copy_from_slice(&no_commands));
    assert_eq!(decoded, Err(DecodeError::Field("count")));
}

#[test]
fn a_command_of_a_newer_release_is_named() {
    let mut batch = golden::stored()["value/batch"].to_vec();
    batch[BATCH_HEADER_LEN + 1] = 3;
    assert_eq!(codec::decode_value(2, batch.into()), Err(DecodeError::CommandKind(0, 3)));
}

#[test]
fn large_values_are_shared_and_not_copied_by_encoding() {
    let payload = Bytes::from(vec![7; 64 << 10]);
    let command = paxos_core::value::Command::apply(
        paxos_core::ids::ClientId::new(1),
        paxos_core::ids::RequestNumber::new(1),
        payload,
    );
    let batch = paxos_core::value::Batch::new(paxos_core::ids::LogClock::default(), vec![command]);
    let message = Message {
        origin: samples::origin(),
        body: Accept {
            ballot: Ballot::new(1, ReplicaId::new(1)),
            committed: Slot::ZERO,
            first: Slot::FIRST,
            values: vec![Value::Batch(batch.clone())],
        }
        .into(),
    };
    let shared = codec::encode(&message)
        .iter()
        .any(|chunk| chunk.as_ptr_range() == batch.encoded().as_ptr_range());
    assert!(shared, "one chunk is the batch's own encoding");
}
