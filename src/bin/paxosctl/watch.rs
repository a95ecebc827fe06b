//! `watch`: who leads, and each change.
//!
//! Owns: the lines.

use std::time::Instant;

use paxos::admin::{Answer, LeadershipReport, Request};
use serde_json::json;

use crate::ask;
use crate::nodes;
use crate::outcome::{Failure, say_or_fail};
use crate::verbs::Order;

pub(crate) fn run(order: &Order) -> Result<(), Failure> {
    let socket = nodes::one("watch", &order.nodes)?;
    let began = Instant::now();
    let answers = ask::send(&socket, Request::Watch);
    let mut until = Some(began + order.timeout);
    let mut left = order.changes;
    while left != Some(0) {
        let Answer::Leadership(report) = answers.next(until)? else {
            return Err(ask::unexpected(&socket).into());
        };
        // A cluster that is well has nothing to say.
        until = None;
        left = left.map(|left| left - 1);
        let line = if order.json {
            json!(report).to_string()
        } else {
            format!("+{:.3} s: {}", began.elapsed().as_secs_f64(), words(&report))
        };
        if say_or_fail(line).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

fn words(report: &LeadershipReport) -> String {
    match (report.leader, report.ballot) {
        (Some(leader), Some(ballot)) => format!("{leader} leads, ballot {ballot}"),
        _ => format!("{} knows no leader", report.replica),
    }
}
