//! Every line of a trace is as docs/traces.md says: from the simulator, and from a node.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use paxos::core::ballot::Ballot;
use paxos::core::durable::{Write, WriteSequence};
use paxos::core::ids::{ClientId, Epoch, RequestNumber, SessionId, SessionTtl, Time};
use paxos::core::message::{
    Body, Fetched, Message, Origin, Promise, PromiseEntry, Removed, SlotState,
};
use paxos::core::sim::{Limits, Options, Script, run_seed};
use paxos::core::trace::{Delivery, Event, Packet, Sealed};
use paxos::core::value::{Batch, Command, CommandKind, Level, Value as Filling};
use paxos::{
    Bytes, ClusterId, GroupId, Incarnation, LogClock, Membership, NodeOptions, ReplicaId, Slot,
    TraceFile,
};
use serde_json::{Map, Value};

use crate::support::{Cluster, Op, soon};

/// The tables of the page.
#[derive(Debug, Default)]
struct Schema {
    events: BTreeMap<String, Fields>,
    messages: BTreeMap<String, Fields>,
    /// By part and form.
    parts: BTreeMap<(String, String), Fields>,
    /// What was met.
    seen: BTreeSet<String>,
}

type Fields = BTreeMap<String, String>;

fn fields(cell: &str) -> Fields {
    let pairs = cell.split(", ").filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, kind) = pair.split_once(": ").unwrap_or_else(|| panic!("{cell}"));
            (name.to_owned(), kind.to_owned())
        })
        .collect()
}

impl Schema {
    fn read() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/traces.md");
        let mut schema = Self::default();
        let mut table = String::new();
        for line in std::fs::read_to_string(path).unwrap().lines() {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            match cells.as_slice() {
                ["", "---", ..] => {}
                ["", head @ ("event" | "kind" | "part"), ..] => (*head).clone_into(&mut table),
                ["", event, cell, _, _, ""] if table == "event" => {
                    _ = schema.events.insert((*event).to_owned(), fields(cell));
                }
                ["", kind, cell, ""] if table == "kind" => {
                    _ = schema.messages.insert((*kind).to_owned(), fields(cell));
                }
                ["", part, form, cell, ""] if table == "part" => {
                    let key = ((*part).to_owned(), (*form).to_owned());
                    _ = schema.parts.insert(key, fields(cell));
                }
                _ => {}
            }
        }
        assert!(schema.events.len() > 10 && schema.messages.len() > 10 && schema.parts.len() > 10);
        schema
    }

    /// One line of a trace.
    fn line(&mut self, line: &str) {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"));
        // Nothing was lost or rounded by reading: written again it is as long.
        assert_eq!(value.to_string().len(), line.len(), "{line}");
        let mut object = value.as_object().unwrap().clone();
        assert!(object.remove("at").unwrap().is_u64(), "{line}");
        let replica = object.remove("replica").unwrap();
        assert!(replica.is_u64() || replica.is_null(), "{line}");
        let name = object.remove("event").unwrap().as_str().unwrap().to_owned();
        let fields = self.events.get(&name).unwrap_or_else(|| panic!("no event {name}")).clone();
        self.seen.insert(format!("event {name}"));
        self.object(&object, &fields, line);
    }

    /// Exactly these fields, each of its type.
    fn object(&mut self, object: &Map<String, Value>, fields: &Fields, line: &str) {
        let (there, documented): (Vec<_>, Vec<_>) =
            (object.keys().collect(), fields.keys().collect());
        assert_eq!(there, documented, "{line}");
        for (name, kind) in fields {
            self.field(&object[name], kind, line);
        }
    }

    fn field(&mut self, value: &Value, kind: &str, line: &str) {
        let dotted = |text: &str| {
            let (left, right) = text.split_once('.').unwrap_or_else(|| panic!("{text}: {line}"));
            assert!(left.parse::<u64>().is_ok() && !right.is_empty(), "{text}: {line}");
        };
        match kind {
            "integer" => assert!(value.is_u64(), "{value}: {line}"),
            "string" => assert!(value.is_string(), "{value}: {line}"),
            "slot" => assert!(value.is_u64() || value.is_null(), "{value}: {line}"),
            "ballot" if value.is_null() => {}
            "ballot" | "life" => dotted(value.as_str().unwrap_or_else(|| panic!("{line}"))),
            "message" => self.message(value.as_object().unwrap(), line),
            "value" => self.part("value", value, line),
            "values" => self.array("value", value, line),
            "facts" => self.array("fact", value, line),
            "entries" => self.array("entry", value, line),
            "echoes" => self.array("echo", value, line),
            "commands" => self.array("command", value, line),
            _ => panic!("the page has a type {kind}, which this test does not know"),
        }
    }

    fn array(&mut self, part: &str, values: &Value, line: &str) {
        for value in values.as_array().unwrap_or_else(|| panic!("{part}: {line}")) {
            self.part(part, value, line);
        }
    }

    fn message(&mut self, message: &Map<String, Value>, line: &str) {
        let mut message = message.clone();
        let kind = message.remove("kind").unwrap().as_str().unwrap().to_owned();
        if kind != "Host" {
            self.field(&message.remove("life").unwrap(), "life", line);
            self.field(&message.remove("epoch").unwrap(), "integer", line);
        }
        let fields = self.messages.get(&kind).unwrap_or_else(|| panic!("no {kind}")).clone();
        self.seen.insert(format!("message {kind}"));
        self.object(&message, &fields, line);
    }

    fn part(&mut self, part: &str, value: &Value, line: &str) {
        let mut object = value.as_object().unwrap().clone();
        let forms = self.parts.iter().filter(|((name, _), _)| name == part);
        let found =
            forms.map(|((_, form), fields)| (form.clone(), fields.clone())).find(|(form, _)| {
                match form.split_once(": ") {
                    Some((field, name)) => object.get(field).is_some_and(|value| value == name),
                    None => true,
                }
            });
        let (form, fields) = found.unwrap_or_else(|| panic!("{part} of no form: {value}"));
        if let Some((field, _)) = form.split_once(": ") {
            object.remove(field);
        }
        self.seen.insert(format!("{part} {form}").trim().to_owned());
        self.object(&object, &fields, line);
    }

    /// What the page names and no line had.
    fn unseen(&self) -> Vec<String> {
        let events = self.events.keys().map(|name| format!("event {name}"));
        let messages = self.messages.keys().map(|kind| format!("message {kind}"));
        let parts = self.parts.keys().map(|(part, form)| format!("{part} {form}"));
        let all = events.chain(messages).chain(parts).map(|name| name.trim().to_owned());
        all.filter(|name| !self.seen.contains(name)).collect()
    }
}

/// What few runs have, and what none has, as nothing makes it yet.
fn rarities() -> String {
    let ballot = Ballot::new(1, ReplicaId::new(1));
    let session = SessionId::new(u128::MAX);
    let kinds = [
        CommandKind::OpenSession { session, ttl: SessionTtl::from_millis(u64::MAX) },
        CommandKind::InSession { session, request: RequestNumber::new(7) },
        CommandKind::CloseSession { session },
        CommandKind::Raise { level: Level { library: 1, machine: 2 } },
    ];
    let command = |kind| Command {
        kind,
        ..Command::apply(ClientId::new(u64::MAX), RequestNumber::new(1), Bytes::new())
    };
    let commands = kinds.map(command).to_vec();
    let membership = Arc::new(Membership::voters_only([ReplicaId::new(1)]).unwrap());
    let values = vec![
        Filling::Membership(membership.clone()),
        Filling::Batch(Batch::new(LogClock::from_millis(1), commands)),
    ];
    let origin = Origin {
        cluster: ClusterId::new(1),
        group: GroupId::new(1),
        epoch: Epoch::FIRST,
        membership: paxos_core::agreement::MembershipDigest::default(),
        replica: ReplicaId::new(1),
        incarnation: Incarnation::new(1, 2),
    };
    let states = [SlotState::Chosen(Filling::Noop), SlotState::Unknown(ballot)];
    let slots = [Slot::new(2), Slot::new(3)];
    let entries = slots.into_iter().zip(states).map(|(slot, state)| PromiseEntry { slot, state });
    let promise = Promise {
        ballot,
        committed: Slot::ZERO,
        from: Slot::FIRST,
        through: Slot::MAX,
        entries: entries.collect(),
    };
    let (first, slot) = (Slot::FIRST, Slot::ZERO);
    let fetched = Fetched { first, values, committed: slot, trimmed: slot };
    let mut lines = String::new();
    let removed = Removed { epoch: Epoch::new(2), from: first };
    for body in [Body::Promise(promise), Body::Fetched(fetched), Body::Removed(removed)] {
        let packet = Packet::Shared(Arc::new(Message { origin, body }));
        let event = Event::Received { from: ReplicaId::new(2), packet };
        event.write_json(Time::ZERO, None, &mut lines);
    }
    let packet = Packet::Host(Sealed::new(Bytes::from_static(b"asks")));
    let sent = Event::Sent { to: ReplicaId::new(2), delivery: Delivery::Full, packet };
    sent.write_json(Time::ZERO, Some(ReplicaId::new(1)), &mut lines);
    let writes = vec![Write::Governs { from: first, membership }];
    let persist = Event::Persist { sequence: WriteSequence::default(), writes };
    persist.write_json(Time::ZERO, Some(ReplicaId::new(1)), &mut lines);
    lines
}

#[test]
fn every_line_of_a_simulated_run_is_as_the_page_says_and_the_page_names_nothing_else() {
    let mut schema = Schema::read();
    let limits = Limits { trace_capacity: usize::MAX, ..Limits::default() };
    for seed in 0..12 {
        let outcome = run_seed(seed, &limits);
        let json = outcome.trace.json();
        assert_eq!(json.lines().count() as u64, outcome.trace.events(), "seed {seed}");
        json.lines().for_each(|line| schema.line(line));
    }
    // A wiped directory is refused, which writes what no other run does.
    let mut script = Script::with(Options { trace_capacity: usize::MAX, ..Options::new(3, 3) });
    script.elect(1);
    script.commit(1, b"a", 1);
    script.crash(3);
    script.cluster().wipe(ReplicaId::new(3));
    script.restart(3);
    script.expect("it is refused", 8, |cluster| cluster.halted(ReplicaId::new(3)).is_some());
    script.cluster().trace().json().lines().for_each(|line| schema.line(line));
    rarities().lines().for_each(|line| schema.line(line));
    assert_eq!(schema.unseen(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_writes_its_events_into_a_file_as_the_page_says() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.jsonl");
    let trace = Arc::new(TraceFile::create(&path).unwrap());
    let options = NodeOptions { trace: Some(trace), ..NodeOptions::default() };
    let mut cluster = Cluster::with(3, options).await;
    let leader = cluster.leader().await;
    for name in 0..20 {
        let client = cluster.node(leader).client();
        soon("a mark", client.execute(Op::Mark(name))).await.unwrap();
    }
    for node in cluster.nodes.iter_mut().filter_map(Option::take) {
        let _reason = soon("the end", node.shutdown()).await;
    }
    // The last holder of the file writes what is left.
    drop(cluster);
    let mut schema = Schema::read();
    let mut lines = 0;
    crate::support::until("the file is whole", || {
        let text = std::fs::read_to_string(&path).unwrap();
        lines = text.lines().count();
        text.ends_with('\n') && text.matches("\"event\":\"applied\"").count() >= 3
    })
    .await;
    let text = std::fs::read_to_string(&path).unwrap();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().for_each(|line| schema.line(line));
    assert!(lines > 100, "{lines} lines");
    for event in ["started", "role", "sent", "received", "persist", "durable", "apply", "applied"] {
        assert!(schema.seen.contains(&format!("event {event}")), "{event}: {:?}", schema.seen);
    }
    assert!(schema.seen.contains("event proposed"), "{:?}", schema.seen);
}
