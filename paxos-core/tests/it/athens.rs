//! The book's walk-through of Paxos: five servers, three clients, two crashed proposers, and a
//! value that is chosen while nobody knows it. Every message is played by hand on the core for one
//! value; the transcript is compared with tests/golden/athens.txt (set `GOLDEN=write` to write it
//! anew). `athens_log` plays it in a log.
//!
//! Source: Joshi, "Patterns of Distributed Systems", the pattern Paxos.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use paxos_core::ids::ReplicaId;
use paxos_core::membership::Membership;
use paxos_core::single::{Accept, Acceptor, Answer, Gated, Prepare, Proposer, Write};

use crate::bed::id;

const NAMES: [&str; 5] = ["Athens", "Byzantium", "Cyrene", "Delphi", "Ephesus"];

type Value = &'static str;

fn server(name: &str) -> ReplicaId {
    id(NAMES.iter().position(|known| *known == name).unwrap() as u16 + 1)
}

/// The disk writes, and what waited may leave.
fn written<S, M>(write: Write<S>, gated: Gated<M>) -> M {
    let Ok(message) = gated.open(&write.into_durable()) else { panic!("its own proof opens it") };
    message
}

struct Story {
    acceptors: BTreeMap<Value, Acceptor<Value>>,
    transcript: String,
}

/// A server that a client asked: it proposes, and its own acceptor answers without a message.
struct Asked {
    name: Value,
    proposer: Proposer<Value>,
    chosen: Option<Value>,
}

impl Story {
    fn tell(&mut self, line: &str) {
        writeln!(self.transcript, "{line}").unwrap();
    }

    fn asked(&mut self, name: Value, client: Value) -> Asked {
        self.tell(&format!("{client} asks {name}"));
        let membership = Membership::voters_only(NAMES.map(server)).unwrap();
        Asked { name, proposer: Proposer::new(server(name), membership, client), chosen: None }
    }

    fn begin(&mut self, asked: &mut Asked) -> Prepare {
        let (write, gated) = asked.proposer.prepare();
        self.tell(&format!("{} campaigns with ballot {}", asked.name, write.state()));
        written(write, gated)
    }

    fn prepare(&mut self, asked: &mut Asked, prepare: Prepare, to: Value) -> Option<Accept<Value>> {
        let answer = self.acceptors.get_mut(to).unwrap().prepare(prepare);
        if to != asked.name {
            self.tell(&format!("  {} -> {to}: Prepare {}", asked.name, prepare.ballot));
        }
        let (write, gated) = match answer {
            Answer::Written(write, gated) => (write, gated),
            Answer::Refused(reject) => {
                let promised = reject.promised;
                self.tell(&format!("  {to} -> {}: Reject, promised {promised}", asked.name));
                asked.proposer.on_reject(reject);
                return None;
            }
        };
        let promise = written(write, gated);
        if to != asked.name {
            let named = promise.accepted.map(|(ballot, value)| format!(" {value}@{ballot}"));
            let named = named.unwrap_or_default();
            self.tell(&format!("  {to} -> {}: Promise {}{named}", asked.name, promise.ballot));
        }
        asked.proposer.on_promise(server(to), promise)
    }

    fn campaign(
        &mut self,
        asked: &mut Asked,
        prepare: Prepare,
        peers: [Value; 2],
    ) -> Accept<Value> {
        assert_eq!(self.prepare(asked, prepare, asked.name), None, "one is no quorum of five");
        assert_eq!(self.prepare(asked, prepare, peers[0]), None, "nor are two");
        self.prepare(asked, prepare, peers[1]).expect("three are")
    }

    fn accept(&mut self, asked: &mut Asked, accept: Accept<Value>, to: Value, answered: bool) {
        if to != asked.name {
            let Accept { ballot, value } = accept;
            self.tell(&format!("  {} -> {to}: Accept {ballot} {value}", asked.name));
        }
        let Answer::Written(write, gated) = self.acceptors.get_mut(to).unwrap().accept(accept)
        else {
            panic!("{to} promised more");
        };
        let accepted = written(write, gated);
        if answered {
            if to != asked.name {
                self.tell(&format!("  {to} -> {}: Accepted {}", asked.name, accepted.ballot));
            }
            let chosen = asked.proposer.on_accepted(server(to), accepted);
            asked.chosen = asked.chosen.or(chosen);
        }
    }
}

#[test]
fn athens_the_books_walk_through() {
    let acceptors = NAMES.map(|name| (name, Acceptor::new(server(name))));
    let mut story = Story { acceptors: acceptors.into(), transcript: String::new() };

    let mut athens = story.asked("Athens", "alice");
    let prepare = story.begin(&mut athens);
    let accept = story.campaign(&mut athens, prepare, ["Byzantium", "Cyrene"]);
    story.accept(&mut athens, accept, "Athens", true);
    story.accept(&mut athens, accept, "Byzantium", false);
    story.tell("Athens crashes: two of five accepted alice");
    assert_eq!(athens.chosen, None);

    let mut ephesus = story.asked("Ephesus", "elanor");
    let prepare = story.begin(&mut ephesus);
    let accept = story.campaign(&mut ephesus, prepare, ["Cyrene", "Delphi"]);
    assert_eq!(accept.value, "elanor", "nobody in this quorum had accepted alice");
    for server in ["Ephesus", "Cyrene", "Delphi"] {
        story.accept(&mut ephesus, accept, server, server == "Ephesus");
    }
    story.tell("Ephesus crashes: elanor is chosen, and nobody knows");
    assert_eq!(ephesus.chosen, None);

    let mut byzantium = story.asked("Byzantium", "carol");
    let prepare = story.begin(&mut byzantium);
    assert_eq!(story.prepare(&mut byzantium, prepare, "Cyrene"), None);
    let prepare = story.begin(&mut byzantium);
    let accept = story.campaign(&mut byzantium, prepare, ["Cyrene", "Delphi"]);
    assert_eq!(accept.value, "elanor", "alice was accepted too, at a lower ballot");
    for server in ["Byzantium", "Cyrene", "Delphi"] {
        assert_eq!(byzantium.chosen, None, "before {server}");
        story.accept(&mut byzantium, accept, server, true);
    }
    assert_eq!(byzantium.chosen, Some("elanor"), "carol was never proposed");

    story.tell("what is accepted at the end");
    for name in NAMES {
        let accepted = story.acceptors[name].remembered().accepted;
        let words =
            accepted.map_or("nothing".to_owned(), |(ballot, value)| format!("{value}@{ballot}"));
        story.tell(&format!("  {name:<9} {words}"));
    }

    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/athens.txt");
    if std::env::var_os("GOLDEN").is_some() {
        std::fs::write(path, &story.transcript).unwrap();
    }
    assert_eq!(story.transcript, std::fs::read_to_string(path).unwrap());
}
