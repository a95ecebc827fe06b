//! `trim`: has a node forget its log up to a slot.
//!
//! Owns: nothing but its course.

use paxos::admin::{Answer, Request, TrimReport};
use serde_json::json;

use crate::ask::{self, Trouble};
use crate::nodes;
use crate::outcome::{Failure, say};
use crate::verbs::Order;

pub(crate) fn run(order: &Order) -> Result<(), Failure> {
    let socket = nodes::one("trim", &order.nodes)?;
    match ask::one(&socket, Request::Trim { through: order.slot }, order.timeout) {
        Ok(Answer::Trimmed(report)) => {
            if order.json {
                say(json!(report));
            } else {
                let TrimReport { replica, trimmed, .. } = report;
                say(format_args!("the log of {replica} begins after {trimmed}"));
            }
            Ok(())
        }
        Ok(_) => Err(ask::unexpected(&socket).into()),
        Err(Trouble::Refusal(reason)) if reason.ends_with("make one first") => {
            Err(Failure::Failed(format!("{reason}, with paxosctl snapshot")))
        }
        Err(trouble) => Err(trouble.into()),
    }
}
