//! `snapshot`: has a node make a snapshot.
//!
//! Owns: nothing but its course.

use paxos::admin::{Answer, Request, SnapshotReport};
use serde_json::json;

use crate::ask;
use crate::nodes;
use crate::outcome::{Failure, say};
use crate::verbs::Order;

pub(crate) fn run(order: &Order) -> Result<(), Failure> {
    let socket = nodes::one("snapshot", &order.nodes)?;
    let Answer::Snapshot(report) = ask::one(&socket, Request::Snapshot, order.timeout)? else {
        return Err(ask::unexpected(&socket).into());
    };
    if order.json {
        say(json!(report));
    } else {
        say(format_args!("{}, after {} ms", words(&report), report.took.as_millis()));
    }
    Ok(())
}

/// Which snapshot it is.
pub(crate) fn words(report: &SnapshotReport) -> String {
    let SnapshotReport { replica, slot, bytes, digest, .. } = report;
    format!("snapshot of {slot} of {replica}: {bytes} bytes, digest {digest}")
}
