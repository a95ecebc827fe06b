//! `add`, `observe`, `promote`, `remove`, `replace` and `move`: changes of the membership.
//!
//! Owns: what of the command line each needs, finding the leader, and what is said of how it came out.

use paxos::ReplicaId;
use paxos::admin::{Answer, ChangeReport, ChangeRequest, Request};
use serde_json::json;

use crate::ask::{self, Trouble};
use crate::nodes;
use crate::outcome::{Failure, say};
use crate::status;
use crate::transfer::no_leader;
use crate::verbs::Order;

pub(crate) fn add(order: &Order) -> Result<(), Failure> {
    let id = replica(order, "add")?;
    let (addresses, keys) = place(order, "add")?;
    let then = format!(
        "{id} observes, and votes by itself once it has caught up: start it, and see paxosctl members"
    );
    carry_out(order, ChangeRequest::Add { id, addresses, keys }, &then)
}

pub(crate) fn observe(order: &Order) -> Result<(), Failure> {
    let id = replica(order, "observe")?;
    let (addresses, keys) = place(order, "observe")?;
    let then = format!("{id} observes, and does not vote");
    carry_out(order, ChangeRequest::Observe { id, addresses, keys }, &then)
}

pub(crate) fn promote(order: &Order) -> Result<(), Failure> {
    let id = replica(order, "promote")?;
    let then = format!("{id} votes by itself once it has caught up: see paxosctl members");
    carry_out(order, ChangeRequest::Promote { id }, &then)
}

pub(crate) fn remove(order: &Order) -> Result<(), Failure> {
    let id = replica(order, "remove")?;
    let then = format!(
        "{id} is a member no longer: it stops by itself where it runs, and its directory may go"
    );
    carry_out(order, ChangeRequest::Remove { id }, &then)
}

pub(crate) fn replace(order: &Order) -> Result<(), Failure> {
    let id = replica(order, "replace")?;
    let old = order.old.ok_or_else(|| needs("replace", "--old N"))?;
    let (addresses, keys) = place(order, "replace")?;
    let then = format!(
        "{id} observes, and takes the place of {old} by itself once it has caught up: start it, and see \
         paxosctl members"
    );
    carry_out(order, ChangeRequest::Replace { old, id, addresses, keys }, &then)
}

pub(crate) fn relocate(order: &Order) -> Result<(), Failure> {
    let id = replica(order, "move")?;
    let (addresses, keys) = (order.addresses.clone(), order.keys.clone());
    if addresses.is_empty() && keys.is_empty() {
        return Err(needs("move", "--address HOST:PORT or --key HEX"));
    }
    let then = format!("the others reach {id} so from here on");
    carry_out(order, ChangeRequest::Move { id, addresses, keys }, &then)
}

fn needs(verb: &str, what: &str) -> Failure {
    Failure::Usage(format!("{verb} needs {what}; see paxosctl {verb} --help"))
}

fn replica(order: &Order, verb: &str) -> Result<ReplicaId, Failure> {
    order.replica.ok_or_else(|| needs(verb, "--replica N"))
}

fn place(order: &Order, verb: &str) -> Result<(Vec<String>, Vec<String>), Failure> {
    if order.addresses.is_empty() {
        return Err(needs(verb, "--address HOST:PORT"));
    }
    if order.keys.is_empty() {
        return Err(needs(verb, "--key HEX, the fingerprint of the new replica's public key"));
    }
    Ok((order.addresses.clone(), order.keys.clone()))
}

/// Asks the leader among the nodes given.
fn carry_out(order: &Order, change: ChangeRequest, then: &str) -> Result<(), Failure> {
    let answered = status::ask_all(nodes::sockets(&order.nodes)?, order.timeout);
    if answered.iter().all(|one| one.report.is_err()) {
        return Err(ask::none_of(answered.into_iter().map(|one| one.report).collect()));
    }
    let Some((socket, _)) = status::leader(&answered) else {
        return Err(Failure::Failed(no_leader(&answered)));
    };
    match ask::one(socket, Request::Change(change), order.timeout) {
        Ok(Answer::Changed(report)) => {
            done(&report, order.json, then);
            Ok(())
        }
        Ok(_) => Err(ask::unexpected(socket).into()),
        Err(Trouble::Refusal(reason)) => {
            Err(Failure::Failed(format!("{reason}; see paxosctl members for who is one")))
        }
        Err(Trouble::Silence(why)) => Err(Failure::Silence(format!(
            "{why}; the change may be made all the same: see paxosctl members"
        ))),
    }
}

fn done(report: &ChangeReport, json: bool, then: &str) {
    if json {
        say(json!(report));
    } else {
        let ChangeReport { epoch, from, took, .. } = report;
        say(format_args!("{epoch} governs from {from} on, after {} ms", took.as_millis()));
        say(then);
    }
}
