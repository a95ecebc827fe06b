//! `log inspect`: what stands in a stopped replica's directory.
//!
//! Owns: its tables and their JSON. What is read, and how it is judged, is `paxos::storage::inspect`.

use paxos::core::port::Recovered;
use paxos::core::snapshot::{Governs, SnapshotMeta};
use paxos::storage::inspect::{Inspection, SegmentSummary};
use paxos::{Ballot, Incarnation, StorageError};
use serde_json::{Value, json};

use crate::directory;
use crate::outcome::{Failure, say};
use crate::table::Table;
use crate::verbs::Order;

pub(crate) fn run(order: &Order) -> Result<(), Failure> {
    let [named] = order.nodes.as_slice() else {
        return Err(Failure::Usage("log inspect takes one directory".to_owned()));
    };
    let failed = |error: StorageError| Failure::Failed(error.to_string());
    let mut inspection = Inspection::open(directory::data(named)).map_err(failed)?;
    let recovered = inspection.recovered().map_err(failed)?;
    if order.json {
        say(as_json(&inspection, &recovered));
        return Ok(());
    }
    say(head(&inspection, &recovered));
    say(segments(&inspection.segments()));
    let snapshots = inspection.snapshots();
    if !snapshots.is_empty() {
        say(images(&snapshots));
    }
    for note in notes(&inspection) {
        say(note);
    }
    Ok(())
}

fn text(ballot: Option<Ballot>) -> String {
    ballot.map_or("nothing".to_owned(), |ballot| ballot.to_string())
}

fn life_of(life: Option<Incarnation>) -> String {
    life.map_or("never started".to_owned(), |life| format!("life {life}"))
}

fn head(inspection: &Inspection, recovered: &Recovered) -> String {
    let format = inspection.format();
    let members = format.membership.members().map(|member| member.id.number().to_string());
    let members: Vec<_> = members.collect();
    let slots = match inspection.slots() {
        None => "no slots".to_owned(),
        Some((first, last)) => format!("{first} to {last}"),
    };
    let mut lines = vec![
        format!(
            "{} of cluster {}, {}, formatted for replicas {} ({}); {}",
            format.replica,
            format.cluster,
            format.group,
            members.join(", "),
            format.membership.epoch(),
            life_of(inspection.life())
        ),
        format!(
            "promised {}; committed through {}, trimmed through {}; the log holds {slots}",
            text(recovered.promised),
            recovered.committed,
            recovered.trimmed
        ),
        format!(
            "above what is committed: {} slots accepted, {} known to be chosen",
            recovered.votes.len(),
            recovered.chosen.len()
        ),
    ];
    for governs in &recovered.governs {
        lines.push(format!("governs: {}", who(governs)));
    }
    for (peer, life) in &recovered.peers {
        lines.push(format!("remembers life {life} of {peer}"));
    }
    lines.join("\n")
}

fn segments(segments: &[SegmentSummary]) -> Table {
    let mut table = Table::new(&["segment", "bytes", "used", "made by life", "records", "values"]);
    for segment in segments {
        table.row([
            format!("{:016x}", segment.sequence),
            segment.bytes.to_string(),
            segment.used_bytes.to_string(),
            segment.boot.to_string(),
            format!("{} to {}", segment.first_record, segment.last_record),
            segment.values.to_string(),
        ]);
    }
    table
}

fn images(snapshots: &[SnapshotMeta]) -> Table {
    let mut table = Table::new(&["snapshot of", "bytes", "digest", "governs"]);
    for meta in snapshots {
        table.row([
            meta.slot.to_string(),
            meta.bytes.to_string(),
            meta.digest.to_string(),
            governs(meta),
        ]);
    }
    table
}

fn governs(meta: &SnapshotMeta) -> String {
    meta.governs.iter().map(who).collect::<Vec<_>>().join("; ")
}

fn who(governs: &Governs) -> String {
    let Governs { from, membership } = governs;
    let voters = membership.voters().iter().map(|member| member.id.number().to_string());
    let voters: Vec<_> = voters.collect();
    format!("replicas {} ({}) from {from}", voters.join(", "), membership.epoch())
}

fn notes(inspection: &Inspection) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some((by, remembered)) = inspection.refused() {
        notes.push(format!(
            "! {by} refused this directory, and remembers life {remembered}: it never starts again"
        ));
    }
    if inspection.torn_bytes() > 0 {
        let bytes = inspection.torn_bytes();
        notes.push(format!("{bytes} bytes at the end are of a write that was cut short"));
    }
    if let Some(meta) = inspection.unfinished_snapshot() {
        notes.push(format!("a snapshot of {} was being received", meta.slot));
    }
    for slot in inspection.damaged_snapshots() {
        notes.push(format!("! the snapshot of {slot} is damaged, and is done without"));
    }
    notes
}

fn ids(members: &[paxos::Member]) -> Vec<u16> {
    members.iter().map(|member| member.id.number()).collect()
}

fn spans(governs: &[Governs]) -> Vec<Value> {
    let span = |governs: &Governs| {
        json!({
            "from": governs.from.number(), "epoch": governs.membership.epoch().number(),
            "voters": ids(governs.membership.voters()),
            "observers": ids(governs.membership.observers()),
        })
    };
    governs.iter().map(span).collect()
}

fn as_json(inspection: &Inspection, recovered: &Recovered) -> Value {
    let format = inspection.format();
    let segments = inspection.segments().into_iter().map(|segment| {
        json!({
            "sequence": segment.sequence, "bytes": segment.bytes, "used_bytes": segment.used_bytes,
            "boot": segment.boot, "first_record": segment.first_record,
            "last_record": segment.last_record, "values": segment.values,
        })
    });
    let snapshots = inspection.snapshots().into_iter().map(|meta| {
        json!({
            "slot": meta.slot.number(), "bytes": meta.bytes, "digest": meta.digest.to_string(),
            "governs": spans(&meta.governs),
        })
    });
    let peers = recovered.peers.iter();
    let refused = inspection.refused();
    json!({
        "cluster": format.cluster.to_string(),
        "group": format.group.number(),
        "replica": format.replica.number(),
        "life": inspection.life().map(|life| life.to_string()),
        "epoch": format.membership.epoch().number(),
        "voters": ids(format.membership.voters()),
        "observers": ids(format.membership.observers()),
        "governs": spans(&recovered.governs),
        "promised": recovered.promised.map(|ballot| ballot.to_string()),
        "committed": recovered.committed.number(),
        "trimmed": recovered.trimmed.number(),
        "first": inspection.slots().map(|(first, _)| first.number()),
        "last": inspection.slots().map(|(_, last)| last.number()),
        "accepted": recovered.votes.iter().map(|vote| {
            json!({ "slot": vote.slot.number(), "ballot": vote.ballot.to_string() })
        }).collect::<Vec<_>>(),
        "chosen": recovered.chosen.iter().map(|(slot, _)| slot.number()).collect::<Vec<_>>(),
        "peers": peers.map(|(peer, life)| {
            json!({ "replica": peer.number(), "life": life.to_string() })
        }).collect::<Vec<_>>(),
        "refused": refused.map(|(by, life)| {
            json!({ "by": by.number(), "remembered": life.to_string() })
        }),
        "segments": segments.collect::<Vec<_>>(),
        "torn_bytes": inspection.torn_bytes(),
        "snapshots": snapshots.collect::<Vec<_>>(),
        "damaged_snapshots": inspection.damaged_snapshots().iter()
            .map(|slot| slot.number()).collect::<Vec<_>>(),
    })
}
