//! `members`: the membership in force.
//!
//! Owns: its table, and which of several answers is shown.

use paxos::ReplicaId;
use paxos::admin::{Answer, JoiningReport, MemberReport, MembersReport, Request};
use serde_json::json;

use crate::ask;
use crate::nodes;
use crate::outcome::{Failure, say};
use crate::table::Table;
use crate::verbs::Order;

pub(crate) fn run(order: &Order) -> Result<(), Failure> {
    let sockets = nodes::sockets(&order.nodes)?;
    let answers = ask::all(&sockets, &Request::Members, order.timeout);
    let of = |(socket, answer)| match answer {
        Ok(Answer::Members(report)) => Ok(*report),
        Ok(_) => Err(ask::unexpected(socket)),
        Err(trouble) => Err(trouble),
    };
    let answers: Vec<_> =
        sockets.iter().map(std::path::PathBuf::as_path).zip(answers).map(of).collect();
    // The leader knows first of what follows it.
    let leads = |report: &MembersReport| report.leader == Some(report.replica);
    let reports = answers.iter().filter_map(|answer| answer.as_ref().ok());
    let Some(report) = reports.max_by_key(|report| (report.epoch, leads(report))) else {
        return Err(ask::none_of(answers));
    };
    if order.json {
        say(json!(report));
    } else {
        say(table(report));
        say(about(report));
    }
    Ok(())
}

fn table(report: &MembersReport) -> Table {
    let mut table = Table::new(&["replica", "votes", "reached", "leads", "address"]);
    let voters = report.voters.iter().map(|member| (member, "yes"));
    let joins = |member: &MemberReport| report.joining.iter().find(|other| other.id == member.id);
    let observers = report
        .observers
        .iter()
        .map(|member| (member, if joins(member).is_some() { "soon" } else { "no" }));
    for (member, votes) in voters.chain(observers) {
        let MemberReport { id, addresses, .. } = member;
        let leads = if report.leader == Some(*id) { "leads" } else { "-" };
        let addresses = if addresses.is_empty() { "-".to_owned() } else { addresses.join(" ") };
        table.row([
            id.number().to_string(),
            votes.to_owned(),
            reached(report, *id).to_owned(),
            leads.to_owned(),
            addresses,
        ]);
    }
    table
}

/// Whether the node that says so hears a member.
fn reached(report: &MembersReport, id: ReplicaId) -> &'static str {
    if id == report.replica {
        "itself"
    } else if report.connected.contains(&id) {
        "yes"
    } else {
        "no"
    }
}

/// What of a change is not done yet.
fn changing(report: &MembersReport) -> String {
    let mut lines = Vec::new();
    for JoiningReport { id, replaces, behind, .. } in &report.joining {
        let place = replaces.map_or(String::new(), |old| format!(", in the place of {old}"));
        let is_to = format!("{id} is to vote once it has caught up{place}");
        lines.push(format!("\n{is_to}: it lacks {behind} slots"));
    }
    if let [.., old, new] = &report.governs[..] {
        let from = new.from.map_or("a slot to come".to_owned(), |from| from.to_string());
        lines
            .push(format!("\n{} governs from {from} on; {} is still needed", new.epoch, old.epoch));
    }
    lines.concat()
}

fn about(report: &MembersReport) -> String {
    let quorums = &report.quorums;
    let text = format!(
        "{} as {} knows it: {} (rule: {})\n\
         any {} of the voters may fail before elections stop, any {} before writes do; \
         up to {} slots in flight",
        report.epoch,
        report.replica,
        quorums.text,
        quorums.rule,
        quorums.elections_survive,
        quorums.writes_survive,
        report.window
    );
    let text = text + &changing(report);
    match report.lease {
        Some(lease) => text + &format!("; leases of {} ms", lease.as_millis()),
        None => text,
    }
}
