//! `transfer-leader`: has the leader make way.
//!
//! Owns: finding the leader among the nodes given, and what is said of how it came out.

use paxos::Ballot;
use paxos::admin::{Answer, Request, TransferReport};
use serde_json::json;

use crate::ask::{self, Trouble};
use crate::nodes;
use crate::outcome::{Failure, say};
use crate::status::{self, Answered};
use crate::verbs::Order;

pub(crate) fn run(order: &Order) -> Result<(), Failure> {
    let answered = status::ask_all(nodes::sockets(&order.nodes)?, order.timeout);
    if answered.iter().all(|one| one.report.is_err()) {
        return Err(ask::none_of(answered.into_iter().map(|one| one.report).collect()));
    }
    let Some((socket, report)) = status::leader(&answered) else {
        return Err(Failure::Failed(no_leader(&answered)));
    };
    if order.to == Some(report.replica) {
        let (leader, ballot) = (report.replica, report.ballot);
        let ballot = ballot.map_or("-".to_owned(), |ballot| ballot.to_string());
        if order.json {
            say(json!({ "leader": leader.number(), "ballot": ballot, "took_ms": 0 }));
        } else {
            say(format_args!("{leader} leads already, ballot {ballot}"));
        }
        return Ok(());
    }
    match ask::one(socket, Request::Transfer { to: order.to }, order.timeout) {
        Ok(Answer::Transferred(report)) => {
            done(&report, order.json);
            Ok(())
        }
        Ok(_) => Err(ask::unexpected(socket).into()),
        Err(Trouble::Refusal(reason)) => Err(Failure::Failed(format!(
            "{reason}; see paxosctl status and members for who could lead"
        ))),
        Err(Trouble::Silence(why)) => Err(Failure::Silence(format!(
            "{why}; it may have made way all the same: see paxosctl status"
        ))),
    }
}

fn done(report: &TransferReport, json: bool) {
    if json {
        say(json!(report));
    } else {
        let TransferReport { leader, ballot, took, .. } = report;
        say(format_args!("{leader} leads, ballot {ballot}, after {} ms", took.as_millis()));
    }
}

/// Why there is nobody to ask.
pub(crate) fn no_leader(answered: &[Answered]) -> String {
    let known = answered.iter().filter_map(|one| one.report.as_ref().ok()?.ballot).max();
    match known.map(Ballot::leader) {
        Some(leader) => format!(
            "{leader} leads, and is not among the nodes that answered: name its socket, and see that \
             it runs"
        ),
        None => "nobody leads at the moment: see paxosctl status, and try again".to_owned(),
    }
}
