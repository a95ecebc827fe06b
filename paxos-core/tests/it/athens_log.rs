//! The walk-through of athens.rs in the first slot of a log: five servers, three clients, two crashed proposers, and a
//! value that is chosen while nobody knows it. Every message is played by hand; the transcript is
//! compared with tests/golden/athens-log.txt (set `GOLDEN=write` to write it anew).
//!
//! Source: Joshi, "Patterns of Distributed Systems", the pattern Paxos.

use std::fmt::Write as _;

use paxos_core::message::{Body, SlotState};
use paxos_core::output::{Recipients, Role};

use crate::bed::{Bed, id, slot, text};

const NAMES: [&str; 5] = ["Athens", "Byzantium", "Cyrene", "Delphi", "Ephesus"];

fn server(name: &str) -> u16 {
    NAMES.iter().position(|known| *known == name).unwrap() as u16 + 1
}

struct Story {
    beds: Vec<Bed>,
    transcript: String,
}

impl Story {
    fn bed(&mut self, name: &str) -> &mut Bed {
        &mut self.beds[usize::from(server(name)) - 1]
    }

    fn tell(&mut self, line: &str) {
        writeln!(self.transcript, "{line}").unwrap();
    }

    /// The server finds nobody leading, and asks for promises.
    fn campaign(&mut self, name: &str, reachable: [&str; 2]) {
        let peers = reachable.map(server);
        let ballot = self.bed(name).campaign(&peers);
        self.bed(name).sync();
        self.tell(&format!("{name} campaigns with ballot {ballot}"));
    }

    /// Delivers the newest message of this kind between the two, and lets the disk finish.
    fn deliver(&mut self, from: &str, to: &str, kind: &str) {
        let receiver = id(server(to));
        let meant = |recipients: &Recipients| {
            *recipients == Recipients::AllPeers || *recipients == Recipients::One(receiver)
        };
        let sent = &self.bed(from).sent;
        let found = sent.iter().rev().find(|(to, body)| meant(to) && body.name() == kind);
        let body = found.unwrap_or_else(|| panic!("{from} sent no {kind} to {to}")).1.clone();
        self.tell(&format!("  {from} -> {to}: {}", describe(&body)));
        let sender = id(server(from));
        self.bed(to).receive(sender, body);
        self.bed(to).sync();
    }
}

fn describe(body: &Body) -> String {
    match body {
        Body::Prepare(prepare) => format!("Prepare {}", prepare.ballot),
        Body::Promise(promise) => {
            let named = promise.entries.iter().map(|entry| match &entry.state {
                SlotState::Accepted(ballot, value) => format!(" {}@{ballot}", text(value)),
                SlotState::Chosen(value) => format!(" {} chosen", text(value)),
                SlotState::Unknown(ballot) => format!(" unknown up to {ballot}"),
            });
            format!("Promise {}{}", promise.ballot, named.collect::<String>())
        }
        Body::Accept(accept) => {
            let values: Vec<_> = accept.values.iter().map(text).collect();
            format!("Accept {} slot {} {}", accept.ballot, accept.first.number(), values.join(", "))
        }
        Body::Accepted(accepted) => {
            format!("Accepted {} slot {}", accepted.ballot, accepted.last.number())
        }
        Body::Commit(commit) => {
            format!("Commit {} through slot {}", commit.ballot, commit.committed.number())
        }
        Body::Reject(_)
        | Body::Heartbeat(_)
        | Body::Fetch(_)
        | Body::Fetched(_)
        | Body::Refused(_)
        | Body::Confirm(_)
        | Body::Confirmed(_)
        | Body::Transfer(_)
        | Body::Removed(_)
        | Body::Survey(_)
        | Body::Surveyed(_) => panic!("the story has no {}", body.name()),
    }
}

#[test]
fn athens_the_walk_through_in_a_log() {
    let beds = (1..=5).map(|own| Bed::new(own, 5)).collect();
    let mut story = Story { beds, transcript: String::new() };

    story.tell("alice asks Athens");
    story.campaign("Athens", ["Byzantium", "Cyrene"]);
    for peer in ["Byzantium", "Cyrene"] {
        story.deliver("Athens", peer, "Prepare");
        story.deliver(peer, "Athens", "Promise");
    }
    story.bed("Athens").propose("alice");
    story.bed("Athens").sync();
    story.deliver("Athens", "Byzantium", "Accept");
    story.tell("Athens crashes: two of five accepted alice");

    story.tell("elanor asks Ephesus");
    story.campaign("Ephesus", ["Cyrene", "Delphi"]);
    for peer in ["Cyrene", "Delphi"] {
        story.deliver("Ephesus", peer, "Prepare");
        story.deliver(peer, "Ephesus", "Promise");
    }
    story.bed("Ephesus").propose("elanor");
    story.bed("Ephesus").sync();
    story.deliver("Ephesus", "Cyrene", "Accept");
    story.deliver("Ephesus", "Delphi", "Accept");
    story.tell("Ephesus crashes: elanor is chosen, and nobody knows");

    story.tell("carol asks Byzantium");
    story.bed("Byzantium").take_sent();
    story.campaign("Byzantium", ["Cyrene", "Delphi"]);
    for peer in ["Cyrene", "Delphi"] {
        story.bed(peer).take_sent();
        story.deliver("Byzantium", peer, "Prepare");
        story.deliver(peer, "Byzantium", "Promise");
    }
    assert_eq!(story.bed("Byzantium").role(), Role::Leader);
    for peer in ["Cyrene", "Delphi"] {
        story.deliver("Byzantium", peer, "Accept");
        story.deliver(peer, "Byzantium", "Accepted");
    }
    let carol = story.bed("Byzantium").propose("carol");
    assert_eq!(carol.slot, slot(2), "slot 1 is taken: carol is never proposed in it");
    story.bed("Byzantium").sync();
    for peer in ["Cyrene", "Delphi"] {
        story.deliver("Byzantium", peer, "Commit");
    }
    story.tell("slot 1 at the end");
    for name in NAMES {
        let applied = story.bed(name).applied.clone();
        let value = applied.first().map_or("nothing yet".to_owned(), |(_, value)| text(value));
        story.tell(&format!("  {name:<9} {value}"));
    }

    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/athens-log.txt");
    if std::env::var_os("GOLDEN").is_some() {
        std::fs::write(path, &story.transcript).unwrap();
    }
    assert_eq!(story.transcript, std::fs::read_to_string(path).unwrap());
}
