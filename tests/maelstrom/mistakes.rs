//! One process: a cluster of its own, and what it says to what it cannot understand.

use std::sync::mpsc::{Receiver, channel};

use paxos_core::codec;
use paxos_core::ids::{Incarnation, ReplicaId};
use paxos_core::message::{Message, Origin, Refused};
use serde_json::{Value, json};

use crate::examples::{PATIENCE, wait_for};
use crate::process::Process;
use crate::wire::{self, Body, Incoming};

struct Single {
    process: Process,
    output: Receiver<String>,
}

impl Single {
    fn start() -> Self {
        let (sender, output) = channel();
        Self { process: Process::start(move |line| drop(sender.send(line))), output }
    }

    fn ask(&self, body: &Value) -> Value {
        let line = json!({"src": "c1", "dest": "n1", "body": body}).to_string();
        self.process.write(line.as_bytes());
        let reply: Value =
            serde_json::from_str(&self.output.recv_timeout(PATIENCE).unwrap()).unwrap();
        assert_eq!((&reply["src"], &reply["dest"]), (&json!("n1"), &json!("c1")));
        assert_eq!(reply["body"]["in_reply_to"], body["msg_id"]);
        reply["body"].clone()
    }

    fn init(&self) {
        let init = json!({"type": "init", "msg_id": 1, "node_id": "n1", "node_ids": ["n1"]});
        assert_eq!(self.ask(&init), json!({"type": "init_ok", "in_reply_to": 1}));
    }
}

#[test]
fn one_node_serves_by_itself_and_ends_with_its_input() {
    let mut node = Single::start();
    node.init();
    let write = json!({"type": "write", "msg_id": 2, "key": 1, "value": [3, "x", null]});
    wait_for("a leader", || (node.ask(&write)["type"] == "write_ok").then_some(()));
    let ask = |body| node.ask(&body);
    let read = ask(json!({"type": "read", "msg_id": 3, "key": 1}));
    assert_eq!(read, json!({"type": "read_ok", "in_reply_to": 3, "value": [3, "x", null]}));
    let swap = ask(json!({"type": "cas", "msg_id": 4, "key": 1, "from": [3, "x", null], "to": 7}));
    assert_eq!(swap, json!({"type": "cas_ok", "in_reply_to": 4}));
    assert_eq!(ask(json!({"type": "cas", "msg_id": 5, "key": 1, "from": 8, "to": 9}))["code"], 22);
    assert_eq!(ask(json!({"type": "cas", "msg_id": 6, "key": 2, "from": 8, "to": 9}))["code"], 20);
    assert_eq!(ask(json!({"type": "read", "msg_id": 7, "key": "1"}))["code"], 20);
    assert_eq!(ask(json!({"type": "read", "msg_id": 8, "key": 1}))["value"], 7);
    assert_eq!(node.process.end(), Some(0));
}

#[test]
fn what_cannot_be_understood_is_refused_and_stops_nothing() {
    let node = Single::start();
    assert_eq!(node.ask(&json!({"type": "read", "msg_id": 1, "key": 1}))["code"], 11);
    let stranger = json!({"type": "init", "msg_id": 2, "node_id": "n9", "node_ids": ["n1"]});
    assert_eq!(node.ask(&stranger)["code"], 12);
    node.init();
    let refused = [
        (json!({"type": "txn", "msg_id": 3}), 10),
        (json!({"type": "write", "msg_id": 4, "key": 1}), 12),
        (json!({"type": 5, "msg_id": 5}), 12),
        (json!({"msg_id": 6}), 12),
        (json!({"type": "init", "msg_id": 7, "node_id": "n1", "node_ids": ["n1"]}), 12),
        (json!({"type": "forward", "msg_id": 8, "ask": {"type": "fly"}}), 12),
        (json!({"type": "paxos", "msg_id": 9, "bytes": "zz"}), 12),
        (json!({"type": "paxos", "msg_id": 10, "bytes": "00"}), 12),
    ];
    for (body, code) in refused {
        let reply = node.ask(&body);
        assert_eq!((&reply["type"], &reply["code"]), (&json!("error"), &json!(code)), "{reply}");
    }
    let senseless: [&[u8]; 6] = [
        b"",
        b"no JSON",
        b"\xff\xfe",
        b"[1, 2]",
        br#"{"src": "c1", "dest": "n1", "body": 7}"#,
        br#"{"src": "c1", "dest": "n1", "body": {"type": "read", "key": 1}}"#,
    ];
    for line in senseless {
        node.process.write(line);
    }
    // An answer that nobody waits for is no reason to complain.
    node.process
        .write(br#"{"src": "n2", "dest": "n1", "body": {"type": "read_ok", "in_reply_to": 77}}"#);
    wait_for("a line on standard error for each", || {
        (node.process.errors().lines().count() == senseless.len()).then_some(())
    });
    let write = json!({"type": "write", "msg_id": 20, "key": 1, "value": 2});
    wait_for("service", || (node.ask(&write)["type"] == "write_ok").then_some(()));
    assert_eq!(node.process.errors().lines().count(), senseless.len());
}

/// A node that was started again without its disk has forgotten its votes. The peer that remembers
/// says so, and the node must end rather than go on.
#[test]
fn a_node_that_a_peer_refuses_ends_and_says_why() {
    let mut node = Single::start();
    let both = ["n1", "n2"];
    let init = json!({"type": "init", "msg_id": 1, "node_id": "n1", "node_ids": both});
    assert_eq!(node.ask(&init)["type"], "init_ok");
    let line = node.output.recv_timeout(PATIENCE).unwrap();
    let Ok(Body::Paxos(bytes)) = Incoming::parse(line.as_bytes()).unwrap().body else {
        panic!("no message of the core: {line}");
    };
    let heartbeat = codec::decode(bytes.into()).unwrap();
    let refused = heartbeat.origin.incarnation;
    let remembered = Incarnation::new(refused.boot(), !refused.nonce());
    let incarnation = Incarnation::first(0);
    let origin = Origin { replica: ReplicaId::new(2), incarnation, ..heartbeat.origin };
    let message = Message { origin, body: Refused { refused, remembered }.into() };
    let chunks = codec::encode(&message);
    let body = wire::paxos(chunks.iter().map(|chunk| &chunk[..]));
    node.process.write(wire::line("n2", "n1", &body).trim_end().as_bytes());
    assert_eq!(node.process.end(), Some(1));
    wait_for("the reason", || node.process.errors().contains("remembers life").then_some(()));
}
