//! The bytes on the wire and in the log do not change unnoticed.
//!
//! `tests/golden/codec.txt` holds one line for each: a name and the bytes in hex. After a wanted
//! change of the format, and of its version, `GOLDEN_WRITE=1 cargo test -p paxos-core golden`
//! writes the file anew.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use bytes::Bytes;
use paxos_core::codec::{self, DecodeError, HEADER_LEN};
use paxos_core::message::{Body, SlotState};
use paxos_core::value::Value;

use crate::samples;

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/codec.txt")
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
    }
    text
}

fn unhex(text: &str) -> Bytes {
    assert!(text.len().is_multiple_of(2), "hex digits come in pairs");
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex digits"))
        .collect()
}

/// The names and bytes that the file must hold.
fn encoded() -> BTreeMap<String, Bytes> {
    let messages = samples::messages().into_iter().map(|(name, message)| {
        (format!("message/{name}"), codec::encode(&message).concat().into())
    });
    let values = samples::values()
        .into_iter()
        .map(|(name, value)| (format!("value/{name}"), codec::encode_value(&value)));
    messages.chain(values).collect()
}

/// The entries of the file.
pub(crate) fn stored() -> BTreeMap<String, Bytes> {
    let text = std::fs::read_to_string(path()).expect("the golden file exists");
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let (name, digits) = line.split_once(' ').expect("a name, a blank, hex digits");
            (name.to_owned(), unhex(digits))
        })
        .collect()
}

#[test]
fn golden_bytes_are_what_is_encoded() {
    if std::env::var_os("GOLDEN_WRITE").is_some() {
        let mut text = String::from("# Encoded messages and values: see tests/it/golden.rs.\n");
        for (name, bytes) in encoded() {
            writeln!(text, "{name} {}", hex(&bytes)).expect("writing to a string cannot fail");
        }
        std::fs::write(path(), text).expect("the golden file can be written");
    }
    let (stored, encoded) = (stored(), encoded());
    let names = |map: &BTreeMap<String, Bytes>| map.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&stored), names(&encoded), "an entry for each sample");
    for (name, bytes) in encoded {
        assert_eq!(hex(&stored[&name]), hex(&bytes), "{name} has other bytes");
    }
}

#[test]
fn golden_bytes_decode_to_the_samples() {
    let stored = stored();
    for (name, message) in samples::messages() {
        let bytes = stored[&format!("message/{name}")].clone();
        assert_eq!(codec::decode(bytes), Ok(message), "{name}");
    }
    for (name, value) in samples::values() {
        let bytes = stored[&format!("value/{name}")].clone();
        let kind = codec::value_kind(&value);
        assert_eq!(codec::decode_value(kind, bytes), Ok(value), "{name}");
    }
}

/// The kinds that a decoder knows: those for which it does not answer "unknown kind".
fn known_kinds(decode: impl Fn(u8) -> Option<DecodeError>) -> Vec<u8> {
    (0..=u8::MAX).filter(|kind| decode(*kind) != Some(DecodeError::Kind(*kind))).collect()
}

#[test]
fn golden_file_has_every_message_kind() {
    let prepare = &stored()["message/Prepare"];
    let known = known_kinds(|kind| {
        let mut head = prepare[..HEADER_LEN].to_vec();
        head[2] = kind;
        codec::decode(head.into()).err()
    });
    let mut present: Vec<u8> = stored()
        .iter()
        .filter(|(name, _)| name.starts_with("message/"))
        .map(|(_, bytes)| bytes[2])
        .collect();
    present.sort_unstable();
    present.dedup();
    assert_eq!(present, known);
}

#[test]
fn golden_file_has_every_value_kind_and_quorum_rule() {
    let known = known_kinds(|kind| codec::decode_value(kind, Bytes::new()).err());
    let mut present: Vec<u8> =
        samples::values().iter().map(|(_, value)| codec::value_kind(value)).collect();
    present.sort_unstable();
    present.dedup();
    assert_eq!(present, known);

    let known = known_kinds(|kind| {
        // Epoch, window, one voter, no observers, then the rule.
        let bytes = [&[1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0][..], &[kind]].concat();
        codec::decode_membership(bytes.into()).err()
    });
    let mut present: Vec<u8> = samples::memberships()
        .iter()
        .map(|(_, membership)| codec::encode_membership(membership)[12])
        .collect();
    present.sort_unstable();
    present.dedup();
    assert_eq!(present, known);
}

#[test]
fn golden_file_has_every_slot_state_and_command_kind() {
    let promise = &stored()["message/Promise-empty"];
    let known = known_kinds(|kind| {
        let mut bytes = promise.to_vec();
        let count = bytes.len() - 4;
        bytes[count] = 1;
        bytes.extend_from_slice(&20_u64.to_le_bytes());
        bytes.push(kind);
        codec::decode(bytes.into()).err()
    });
    let Ok(Body::Promise(promise)) =
        codec::decode(stored()["message/Promise"].clone()).map(|message| message.body)
    else {
        panic!("the entry named Promise holds a Promise");
    };
    let mut present: Vec<u8> = promise
        .entries
        .iter()
        .map(|entry| match entry.state {
            SlotState::Accepted(..) => 0,
            SlotState::Chosen(_) => 1,
            SlotState::Unknown(_) => 2,
        })
        .collect();
    present.sort_unstable();
    assert_eq!(present, known);

    // A command of a kind is the envelope and what each kind demands beyond it, which is nothing here.
    let first = stored()["value/batch"].clone();
    let known: Vec<u8> = (0..=u8::MAX)
        .filter(|kind| {
            let mut bytes = first.to_vec();
            bytes[codec::BATCH_HEADER_LEN] = *kind;
            codec::decode_value(2, bytes.into()) != Err(DecodeError::CommandKind(*kind, 2))
        })
        .collect();
    let kinds = |name: &str| -> Vec<u8> {
        let Value::Batch(batch) = codec::decode_value(2, stored()[name].clone()).unwrap() else {
            panic!("kind 2 is a batch");
        };
        let commands = batch.commands().iter();
        commands.map(|command| codec::command_kind(command.kind)).collect()
    };
    let names = ["value/batch", "value/batch-of-a-session", "value/batch-of-a-level"];
    let mut present = names.map(kinds).concat();
    present.sort_unstable();
    present.dedup();
    assert_eq!(present, known, "one command of each kind");
}
