//! `status`: what each node says of itself.
//!
//! Owns: the table and its notes; which of several nodes leads.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use paxos::admin::{Answer, Request, StatusReport};
use paxos::core::message::Connectivity;
use paxos::{Ballot, ReplicaId, Role, Room, Slot};
use serde_json::json;

use crate::ask::{self, Trouble};
use crate::nodes;
use crate::outcome::{Failure, say};
use crate::table::Table;
use crate::verbs::Order;

/// A picture that is so old is no sign of health: many times any sensible interval of heartbeats.
const STUCK: Duration = Duration::from_secs(5);

/// What one node answered.
pub(crate) struct Answered {
    pub(crate) socket: PathBuf,
    pub(crate) report: Result<Box<StatusReport>, Trouble>,
}

/// What these nodes say of themselves.
pub(crate) fn ask_all(sockets: Vec<PathBuf>, timeout: Duration) -> Vec<Answered> {
    let answers = ask::all(&sockets, &Request::Status, timeout);
    let of = |(socket, answer): (PathBuf, Result<Answer, Trouble>)| {
        let report = answer.and_then(|answer| {
            let Answer::Status(report) = answer else {
                return Err(ask::unexpected(&socket));
            };
            Ok(report)
        });
        Answered { socket, report }
    };
    sockets.into_iter().zip(answers).map(of).collect()
}

pub(crate) fn run(order: &Order) -> Result<(), Failure> {
    let answered = ask_all(nodes::sockets(&order.nodes)?, order.timeout);
    let reports: Vec<_> = answered.iter().filter_map(|one| one.report.as_ref().ok()).collect();
    if order.json {
        say(json!({ "nodes": answered.iter().map(as_json).collect::<Vec<_>>() }));
    } else if !reports.is_empty() {
        say(table(&answered));
        for note in notes(&answered) {
            say(note);
        }
    }
    if reports.is_empty() {
        return Err(ask::none_of(answered.into_iter().map(|one| one.report).collect()));
    }
    let silent = answered.len() - reports.len();
    if silent > 0 {
        return Err(Failure::Failed(format!(
            "{silent} of {} nodes did not answer",
            answered.len()
        )));
    }
    Ok(())
}

fn as_json(one: &Answered) -> serde_json::Value {
    let node = one.socket.display().to_string();
    match &one.report {
        Ok(report) => json!({ "node": node, "status": report }),
        Err(trouble) => {
            let reason = trouble.to_string();
            json!({ "node": node, "error": { "code": trouble.code(), "reason": reason } })
        }
    }
}

/// Which of these leads: of those that say so, the one with the highest ballot.
pub(crate) fn leader(answered: &[Answered]) -> Option<(&Path, &StatusReport)> {
    let reports = answered
        .iter()
        .filter_map(|one| one.report.as_ref().ok().map(|report| (one.socket.as_path(), &**report)));
    reports
        .filter(|(_, report)| report.role == Role::Leader && report.stopped.is_none())
        .max_by_key(|(_, report)| report.ballot)
}

fn table(answered: &[Answered]) -> Table {
    let mut table = Table::new(&[
        "replica",
        "role",
        "leader",
        "ballot",
        "epoch",
        "committed",
        "applied",
        "behind",
        "peers",
        "room",
        "up",
        "node",
    ]);
    let committed = answered.iter().filter_map(|one| one.report.as_ref().ok());
    let committed = committed.map(|report| report.committed).max().unwrap_or(Slot::ZERO);
    for one in answered {
        let node = one.socket.display().to_string();
        if let Ok(report) = &one.report {
            table.row(row(report, committed, node));
            continue;
        }
        let mut cells = vec!["?".to_owned(), "no answer".to_owned()];
        cells.resize(11, "-".to_owned());
        cells.push(node);
        table.row(cells);
    }
    table
}

fn row(report: &StatusReport, committed: Slot, node: String) -> [String; 12] {
    let role = match &report.stopped {
        Some(_) => "stopped".to_owned(),
        None => report.role.to_string(),
    };
    let others = report.voters.len() + report.observers.len();
    let room = match report.room {
        Room::Ample => "ample",
        Room::Full => "full",
    };
    [
        report.replica.number().to_string(),
        role,
        report.leader.map_or("-".to_owned(), |leader| leader.number().to_string()),
        report.ballot.map_or("-".to_owned(), |ballot| ballot.to_string()),
        report.epoch.number().to_string(),
        report.committed.number().to_string(),
        report.applied.number().to_string(),
        committed.distance_from(report.applied).to_string(),
        format!("{}/{}", report.connected.len(), others.saturating_sub(1)),
        room.to_owned(),
        lasted(report.uptime),
        node,
    ]
}

/// A time as an operator reads it.
fn lasted(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// What a reader of the table should know besides, and what to do about it.
fn notes(answered: &[Answered]) -> Vec<String> {
    let reports = || answered.iter().filter_map(|one| one.report.as_ref().ok());
    let mut notes = Vec::new();
    let clusters: BTreeSet<_> =
        reports().map(|report| format!("{}, {}", report.cluster, report.group)).collect();
    if clusters.len() > 1 {
        let all: Vec<_> = clusters.into_iter().collect();
        notes.push(format!("! these nodes are of different clusters: {}", all.join("; ")));
    } else {
        notes.extend(clusters.into_iter().map(|cluster| format!("cluster {cluster}")));
        notes.extend(of_the_cluster(answered));
    }
    notes.extend(reports().flat_map(|report| of_a_node(report)));
    for one in answered {
        if let Err(trouble) = &one.report {
            notes.push(format!("! {trouble}"));
        }
    }
    notes
}

fn of_the_cluster(answered: &[Answered]) -> Vec<String> {
    let reports = answered.iter().filter_map(|one| one.report.as_deref().ok());
    let reports: Vec<&StatusReport> = reports.collect();
    let leading = reports.iter().filter(|report| report.role == Role::Leader).count();
    let known = reports.iter().filter_map(|report| report.ballot).max();
    let mut notes = vec![match (known.map(Ballot::leader), leading) {
        (None, _) => {
            "! nobody leads: too few voters are up and connected, or an election is under way"
                .to_owned()
        }
        (Some(leader), 0 | 1) => format!("{leader} leads"),
        (Some(leader), _) => format!(
            "{leader} leads; whoever else says so has a lower ballot, can have nothing chosen, and \
             will hear of it"
        ),
    }];
    let newest = reports.iter().max_by_key(|report| report.epoch);
    let members = newest.iter().flat_map(|report| report.voters.iter().chain(&report.observers));
    for id in members {
        notes.extend(unheard(*id, &reports));
        // A node that did not answer cannot say which member it is.
        let asked = reports.iter().any(|report| report.replica == *id);
        if !asked && answered.len() == reports.len() {
            notes.push(format!("{id} was not asked: name its socket too"));
        }
    }
    notes
}

/// Who does not hear this member.
fn unheard(id: ReplicaId, reports: &[&StatusReport]) -> Option<String> {
    let running = reports.iter().filter(|report| report.replica != id && report.stopped.is_none());
    let deaf = running.filter(|report| !report.connected.contains(&id));
    let deaf: Vec<_> = deaf.map(|report| report.replica.to_string()).collect();
    (!deaf.is_empty()).then(|| format!("! {id} is not heard by {}", deaf.join(", ")))
}

fn of_a_node(report: &StatusReport) -> Vec<String> {
    let id = report.replica;
    let mut notes = Vec::new();
    if let Some(reason) = &report.stopped {
        notes.push(format!("! {id} has stopped: {reason}"));
        return notes;
    }
    if report.age > STUCK {
        let age = lasted(report.age);
        notes.push(format!("! {id}: its task has not run for {age}: overloaded, or stuck"));
    }
    if report.room == Room::Full {
        notes.push(format!("! {id} has no space for commands: free some on its disk"));
    }
    if report.connectivity == Connectivity::Partial {
        notes.push(format!("! {id} reaches no quorum of the voters: look at its network"));
    }
    for odd in &report.disagreeing {
        let (peer, what) = (odd.peer, &odd.what);
        notes.push(format!(
            "! {id} does not heed {peer}, which {what}: one of the two must be formatted anew"
        ));
    }
    for flow in report.flows.iter().filter(|flow| flow.probed) {
        notes.push(format!("! {} does not keep up with {id}, or is not heard", flow.peer));
    }
    if let Some(to) = report.transferring {
        notes.push(format!("{id} makes way for {to}"));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short() {
        for (seconds, text) in
            [(0, "0s"), (59, "59s"), (61, "1m01s"), (3660, "1h01m"), (90_000, "1d01h")]
        {
            assert_eq!(lasted(Duration::from_secs(seconds)), text);
        }
    }
}
