//! An event as one JSON object on one line.
//!
//! Owns: [`Event::write_json`]. The schema, field by field, is docs/traces.md; a test holds the two
//! together. Numbers that may exceed 2^53 are strings, as most readers would round them.

use core::fmt::Write as _;
use core::hash::Hasher;

use super::{Digest, Event, Packet};
use crate::ballot::Ballot;
use crate::durable::Write;
use crate::ids::{Incarnation, ReplicaId, Slot, Time};
use crate::message::{Body, Connectivity, Heartbeat, Message, Promise, SlotState};
use crate::output::{Halt, NotProposed, QuorumReadLoss};
use crate::value::{Command, CommandKind, Value};

/// An object or array that is being written.
struct Json<'a> {
    out: &'a mut String,
    first: bool,
}

impl Json<'_> {
    fn next(&mut self) {
        if !self.first {
            self.out.push(',');
        }
        self.first = false;
    }

    fn key(&mut self, key: &str) {
        self.next();
        self.out.push('"');
        self.out.push_str(key);
        self.out.push_str("\":");
    }

    fn number(&mut self, key: &str, number: u64) {
        self.key(key);
        let _ = write!(self.out, "{number}");
    }

    fn text(&mut self, key: &str, text: &str) {
        self.key(key);
        quote(self.out, text);
    }

    fn slot(&mut self, key: &str, slot: Slot) {
        // The end of a page that covers everything is no number that a reader could hold.
        if slot == Slot::MAX { self.nothing(key) } else { self.number(key, slot.number()) }
    }

    fn nothing(&mut self, key: &str) {
        self.key(key);
        self.out.push_str("null");
    }

    fn ballot(&mut self, key: &str, ballot: impl Into<Option<Ballot>>) {
        match ballot.into() {
            Some(ballot) => self.text(key, &ballot.to_string()),
            None => self.nothing(key),
        }
    }

    fn life(&mut self, key: &str, life: Incarnation) {
        self.text(key, &life.to_string());
    }

    fn replica(&mut self, key: &str, replica: ReplicaId) {
        self.number(key, u64::from(replica.number()));
    }

    fn object(&mut self, key: &str, fill: impl FnOnce(&mut Json<'_>)) {
        self.key(key);
        object(self.out, fill);
    }

    fn array<T>(
        &mut self,
        key: &str,
        items: impl IntoIterator<Item = T>,
        fill: impl Fn(&mut Json<'_>, T),
    ) {
        self.key(key);
        self.out.push('[');
        let mut inner = Json { out: self.out, first: true };
        for item in items {
            inner.next();
            object(inner.out, |json| fill(json, item));
        }
        self.out.push(']');
    }
}

fn object(out: &mut String, fill: impl FnOnce(&mut Json<'_>)) {
    out.push('{');
    fill(&mut Json { out, first: true });
    out.push('}');
}

fn quote(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c < ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

impl Event {
    /// Appends this event, at this replica or in the whole cluster, as one line of JSON.
    pub fn write_json(&self, at: Time, replica: Option<ReplicaId>, out: &mut String) {
        object(out, |json| {
            json.number("at", at.nanos());
            match replica {
                Some(replica) => json.replica("replica", replica),
                None => json.nothing("replica"),
            }
            json.text("event", self.name());
            fields(json, self);
        });
        out.push('\n');
    }
}

fn fields(json: &mut Json<'_>, event: &Event) {
    match event {
        Event::Started { incarnation, applied } => {
            json.life("life", *incarnation);
            json.slot("applied", *applied);
        }
        Event::Crashed { unproved } => json.number("unproved", *unproved as u64),
        Event::Paused { until } => json.number("until", until.nanos()),
        Event::Sent { to, delivery, packet } => {
            json.replica("to", *to);
            json.text("delivery", delivery.name());
            json.object("message", |json| carried(json, packet));
        }
        Event::Received { from, packet } => {
            json.replica("from", *from);
            json.object("message", |json| carried(json, packet));
        }
        Event::Persist { sequence, writes } => {
            json.number("sequence", sequence.number());
            json.array("writes", writes, written);
        }
        Event::Durable { through } => json.number("through", through.number()),
        Event::Timeout => {}
        Event::Apply { slot, value } => {
            json.slot("slot", *slot);
            json.object("value", |json| valued(json, value));
        }
        Event::Applied { through } | Event::Committed { through } => json.slot("through", *through),
        Event::Proposed { slot, ballot } => {
            json.slot("slot", *slot);
            json.ballot("ballot", *ballot);
        }
        Event::NotProposed { reason } => json.text("reason", refusal(reason)),
        Event::Role { role, leader } => {
            json.text("role", &role.to_string());
            json.ballot("leader", *leader);
        }
        Event::Chosen { slot, ballot, value } => {
            json.slot("slot", *slot);
            json.ballot("ballot", *ballot);
            json.object("value", |json| valued(json, value));
        }
        Event::Load { from, through } => {
            json.slot("from", *from);
            json.slot("through", *through);
        }
        Event::Loaded { values } => json.number("values", *values as u64),
        Event::ReadAsked { ticket } | Event::QuorumReadAsked { ticket } => {
            json.number("ticket", *ticket);
        }
        Event::ReadsReady { through, point } | Event::QuorumReadsReady { through, point } => {
            json.number("through", *through);
            json.slot("point", *point);
        }
        Event::ReadsLost { through } => json.number("through", *through),
        Event::QuorumReadsLost { through, reason } => {
            json.number("through", *through);
            json.text("reason", loss(*reason));
        }
        Event::SnapshotWanted { from, above } => {
            json.replica("from", *from);
            json.slot("above", *above);
        }
        Event::SnapshotKept { slot } | Event::Installed { slot } => json.slot("slot", *slot),
        Event::Halted { reason } => json.text("reason", halt(reason)),
        Event::Note { text } => json.text("text", text),
    }
}

/// The name of why quorum reads got no point.
const fn loss(reason: QuorumReadLoss) -> &'static str {
    match reason {
        QuorumReadLoss::Unreached => "unreached",
        QuorumReadLoss::Unsettled { .. } => "unsettled",
    }
}

/// The name of a refusal.
const fn refusal(reason: &NotProposed) -> &'static str {
    match reason {
        NotProposed::NotLeader { .. } => "not_leader",
        NotProposed::Busy => "busy",
        NotProposed::Transferring { .. } => "transferring",
        NotProposed::TooLarge { .. } => "too_large",
        NotProposed::Empty => "empty",
        NotProposed::Halted => "halted",
    }
}

/// The name of a reason to stop for good.
const fn halt(reason: &Halt) -> &'static str {
    match reason {
        Halt::Refused { .. } => "refused",
        Halt::AgreementBroken { .. } => "agreement_broken",
        Halt::Removed { .. } => "removed",
        Halt::LogLost { .. } => "log_lost",
    }
}

fn valued(json: &mut Json<'_>, value: &Value) {
    match value {
        Value::Noop => json.text("is", "noop"),
        Value::Membership(membership) => {
            json.text("is", "membership");
            json.number("epoch", u64::from(membership.epoch().number()));
        }
        Value::Batch(batch) => {
            json.text("is", "batch");
            json.number("clock", batch.clock().millis());
            json.array("commands", batch.commands(), command);
        }
    }
}

fn command(json: &mut Json<'_>, command: &Command) {
    let kind = match command.kind {
        CommandKind::Apply => "apply",
        CommandKind::OpenSession { .. } => "open_session",
        CommandKind::InSession { .. } => "in_session",
        CommandKind::CloseSession { .. } => "close_session",
        CommandKind::Raise { .. } => "raise",
    };
    json.text("kind", kind);
    json.text("client", &command.client.number().to_string());
    json.text("request", &command.request.number().to_string());
    match command.kind {
        CommandKind::Apply => {}
        CommandKind::OpenSession { session, ttl } => {
            json.text("session", &format!("{:032x}", session.bits()));
            json.text("ttl_millis", &ttl.millis().to_string());
        }
        CommandKind::InSession { session, request } => {
            json.text("session", &format!("{:032x}", session.bits()));
            json.text("number", &request.number().to_string());
            json.text("acknowledged_below", &command.acknowledged_below.number().to_string());
        }
        CommandKind::CloseSession { session } => {
            json.text("session", &format!("{:032x}", session.bits()));
        }
        CommandKind::Raise { level } => {
            json.number("library", u64::from(level.library));
            json.number("machine", u64::from(level.machine));
        }
    }
    json.number("bytes", command.payload.len() as u64);
    let mut digest = Digest::new();
    digest.write(&command.payload);
    json.text("digest", &format!("{:016x}", digest.finish()));
}

fn written(json: &mut Json<'_>, write: &Write) {
    match write {
        Write::Promised(ballot) => {
            json.text("fact", "promised");
            json.ballot("ballot", *ballot);
        }
        Write::Accepted { slot, ballot, value } => {
            json.text("fact", "accepted");
            json.slot("slot", *slot);
            json.ballot("ballot", *ballot);
            json.object("value", |json| valued(json, value));
        }
        Write::Chosen { slot, value } => {
            json.text("fact", "chosen");
            json.slot("slot", *slot);
            json.object("value", |json| valued(json, value));
        }
        Write::Committed(slot) => {
            json.text("fact", "committed");
            json.slot("slot", *slot);
        }
        Write::Governs { from, membership } => {
            json.text("fact", "governs");
            json.slot("slot", *from);
            json.number("epoch", u64::from(membership.epoch().number()));
        }
        Write::Trimmed(slot) => {
            json.text("fact", "trimmed");
            json.slot("slot", *slot);
        }
        Write::Refused { by, remembered } => {
            json.text("fact", "refused");
            json.replica("by", *by);
            json.life("life", *remembered);
        }
        Write::Peer { peer, incarnation } => {
            json.text("fact", "peer");
            json.replica("peer", *peer);
            json.life("life", *incarnation);
        }
    }
}

fn carried(json: &mut Json<'_>, packet: &Packet) {
    match (packet, packet.open()) {
        (_, Some(opened)) => message(json, &opened),
        (Packet::Host(sealed) | Packet::Snapshot(sealed) | Packet::Encoded(sealed), None) => {
            json.text("kind", "Host");
            json.number("bytes", sealed.bytes().len() as u64);
        }
        (Packet::Shared(_), None) => json.text("kind", "Host"),
    }
}

fn message(json: &mut Json<'_>, message: &Message) {
    json.text("kind", message.body.name());
    json.life("life", message.origin.incarnation);
    json.number("epoch", u64::from(message.origin.epoch.number()));
    match &message.body {
        Body::Prepare(prepare) => {
            json.ballot("ballot", prepare.ballot);
            json.slot("from", prepare.from);
        }
        Body::Promise(page) => promise(json, page),
        Body::Accept(accept) => {
            json.ballot("ballot", accept.ballot);
            json.slot("committed", accept.committed);
            json.slot("first", accept.first);
            json.array("values", &accept.values, valued);
        }
        Body::Accepted(accepted) => {
            json.ballot("ballot", accepted.ballot);
            json.slot("first", accepted.first);
            json.slot("last", accepted.last);
        }
        Body::Reject(reject) => {
            json.ballot("refused", reject.refused);
            json.ballot("promised", reject.promised);
        }
        Body::Commit(commit) => {
            json.ballot("ballot", commit.ballot);
            json.slot("committed", commit.committed);
        }
        Body::Heartbeat(said) => heartbeat(json, said),
        Body::Fetch(fetch) => {
            json.slot("from", fetch.from);
            json.slot("through", fetch.through);
        }
        Body::Fetched(fetched) => {
            json.slot("first", fetched.first);
            json.array("values", &fetched.values, valued);
            json.slot("committed", fetched.committed);
            json.slot("trimmed", fetched.trimmed);
        }
        Body::Refused(refused) => {
            json.life("refused", refused.refused);
            json.life("remembered", refused.remembered);
        }
        Body::Confirm(confirm) => {
            json.ballot("ballot", confirm.ballot);
            json.number("round", confirm.round);
        }
        Body::Confirmed(confirmed) => {
            json.ballot("ballot", confirmed.ballot);
            json.number("round", confirmed.round);
        }
        Body::Transfer(transfer) => {
            json.ballot("ballot", transfer.ballot);
            json.slot("committed", transfer.committed);
            json.number("released", transfer.released);
        }
        Body::Survey(survey) => json.number("round", survey.round),
        Body::Surveyed(surveyed) => {
            json.life("asker", surveyed.asker);
            json.number("round", surveyed.round);
            json.slot("committed", surveyed.committed);
            json.slot("highest", surveyed.highest);
        }
        Body::Removed(removed) => {
            json.number("governs", u64::from(removed.epoch.number()));
            json.slot("from", removed.from);
        }
    }
}

fn heartbeat(json: &mut Json<'_>, heartbeat: &Heartbeat) {
    json.number("sequence", heartbeat.sequence);
    json.array("echoes", &heartbeat.echoes, |json, echo| {
        json.replica("peer", echo.peer);
        json.life("life", echo.incarnation);
        json.number("sequence", echo.sequence);
    });
    json.ballot("promised", heartbeat.promised);
    json.ballot("leader", heartbeat.leader);
    let reaches = match heartbeat.connectivity {
        Connectivity::Partial => "partial",
        Connectivity::Quorum => "quorum",
    };
    json.text("connectivity", reaches);
    json.slot("committed", heartbeat.committed);
    json.slot("durable", heartbeat.durable);
    json.slot("held", heartbeat.held);
    json.number("released", heartbeat.released);
    json.number("priority", u64::from(heartbeat.priority.number()));
}

fn promise(json: &mut Json<'_>, page: &Promise) {
    json.ballot("ballot", page.ballot);
    json.slot("committed", page.committed);
    json.slot("from", page.from);
    json.slot("through", page.through);
    json.array("entries", &page.entries, |json, entry| {
        json.slot("slot", entry.slot);
        match &entry.state {
            SlotState::Accepted(ballot, value) => {
                json.text("state", "accepted");
                json.ballot("ballot", *ballot);
                json.object("value", |json| valued(json, value));
            }
            SlotState::Chosen(value) => {
                json.text("state", "chosen");
                json.object("value", |json| valued(json, value));
            }
            SlotState::Unknown(ballot) => {
                json.text("state", "unknown");
                json.ballot("ballot", *ballot);
            }
        }
    });
}
