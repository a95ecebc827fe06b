//! `metrics`: what one node counted.
//!
//! Owns: nothing but its course; the text is the node's.

use paxos::admin::{Answer, Request};

use crate::ask;
use crate::nodes;
use crate::outcome::{Failure, say};
use crate::verbs::Order;

pub(crate) fn run(order: &Order) -> Result<(), Failure> {
    let socket = nodes::one("metrics", &order.nodes)?;
    let Answer::Metrics(text) = ask::one(&socket, Request::Metrics, order.timeout)? else {
        return Err(ask::unexpected(&socket).into());
    };
    say(text.trim_end());
    Ok(())
}
