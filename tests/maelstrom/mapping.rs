//! The mapping between lines and what they mean, without processes.

use serde_json::{Value, json};

use crate::store::Store;
use crate::wire::{self, Answer, Ask, Body, Code, Incoming};

fn parse(body: &Value) -> Incoming {
    Incoming::parse(wire::line("c3", "n1", body).as_bytes()).unwrap()
}

#[test]
fn requests_are_read_as_they_are_written() {
    let incoming = parse(&json!({"type": "cas", "msg_id": 9, "key": "k", "from": 1, "to": null}));
    assert_eq!((&*incoming.src, &*incoming.dest, incoming.msg_id), ("c3", "n1", Some(9)));
    let swap = Ask::Cas { key: json!("k"), from: json!(1), to: Value::Null };
    assert_eq!(incoming.body, Ok(Body::Ask(swap.clone())));
    assert_eq!(parse(&wire::forward(&swap, 4)).body, Ok(Body::Forward(swap.clone())));
    assert_eq!(parse(&wire::forward(&swap, 4)).msg_id, Some(4));
    let init = parse(&json!({"type": "init", "msg_id": 1, "node_id": "b", "node_ids": ["a", "b"]}));
    let node_ids = vec!["a".to_owned(), "b".to_owned()];
    assert_eq!(init.body, Ok(Body::Init { node_id: "b".to_owned(), node_ids }));
    let reply = json!({"type": "cas_ok", "in_reply_to": 4});
    assert_eq!(parse(&reply).body, Ok(Body::Reply { in_reply_to: 4, body: reply }));
    // A command goes through the log as the same JSON.
    assert_eq!(serde_json::from_slice::<Ask>(&serde_json::to_vec(&swap).unwrap()).unwrap(), swap);
}

#[test]
fn bytes_of_the_core_come_back_whatever_they_are() {
    let all: Vec<u8> = (0..=255).collect();
    let body = wire::paxos([&all[..100], &[], &all[100..]]);
    assert_eq!(parse(&body).body, Ok(Body::Paxos(all)));
    assert_eq!(parse(&wire::paxos([])).body, Ok(Body::Paxos(Vec::new())));
    for digits in ["0", "0g", "g0", "000", "\u{e9}"] {
        let refused = parse(&json!({"type": "paxos", "bytes": digits})).body.unwrap_err();
        assert!(matches!(refused, Answer::Error(Code::Malformed, _)), "{digits}");
    }
}

#[test]
fn answers_have_the_codes_of_maelstrom() {
    let codes = [
        (Code::Timeout, 0),
        (Code::NotSupported, 10),
        (Code::Unavailable, 11),
        (Code::Malformed, 12),
        (Code::Crash, 13),
        (Code::NoSuchKey, 20),
        (Code::Mismatch, 22),
    ];
    for (code, number) in codes {
        let expected =
            json!({"type": "error", "in_reply_to": 5, "code": number, "text": "because"});
        assert_eq!(Answer::error(code, "because").body(5), expected);
    }
    assert_eq!(wire::line("n1", "c3", &Answer::Written.body(5)).matches('\n').count(), 1);
}

#[test]
fn a_store_swaps_only_what_it_holds() {
    let mut store = Store::default();
    let (key, one, two) = (json!(1), json!(1), json!(2));
    let code = |answer| {
        let Answer::Error(code, _) = answer else { panic!("no error: {answer:?}") };
        code
    };
    let read = Ask::Read { key: key.clone() };
    let swap = Ask::Cas { key: key.clone(), from: one.clone(), to: two.clone() };
    assert_eq!(code(store.apply(read.clone())), Code::NoSuchKey);
    assert_eq!(code(store.apply(swap.clone())), Code::NoSuchKey);
    assert_eq!(store.apply(Ask::Write { key, value: one }), Answer::Written);
    assert_eq!(store.apply(swap.clone()), Answer::Swapped);
    assert_eq!(code(store.apply(swap)), Code::Mismatch);
    assert_eq!(store.apply(read), Answer::Read(two));
}
