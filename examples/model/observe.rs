//! Which rule was at work when a replica took an input.
//!
//! Owns: [`observe`], which compares a node before and after. Judges nothing.
//! Source: protocol.md; see [`Mark`].

use paxos_core::durable::Write;
use paxos_core::message::{Body, Message, SlotState};
use paxos_core::output::Role;
use paxos_core::value::Value;

use crate::marks::{Mark, Marks};
use crate::node::{Input, Node, Outcome};

/// Adds to the outcome what could be seen at work.
pub(crate) fn observe(before: &Node, after: &Node, input: &Input<Message>, out: &mut Outcome) {
    let mut marks = Marks::default();
    observe_sent(before, input, out, &mut marks);
    match input {
        Input::Deliver(message) => observe_message(before, after, message, out, &mut marks),
        Input::Sync => {
            let (old, new) = (before.replica.counters(), after.replica.counters());
            marks.add_if(Mark::OwnVoteWasLast, new.values_chosen > old.values_chosen);
            marks.add_if(Mark::AppliedWhenDurable, {
                let committed = before.replica.status().committed;
                out.claims.iter().any(|(slot, value)| value.is_some() && *slot <= committed)
            });
            let known = before.pending_writes().any(|write| matches!(write, Write::Peer { .. }));
            marks.add_if(Mark::LifeRemembered, known && !out.sent.is_empty());
        }
        Input::Crash => {
            marks.add_if(Mark::GovernsRecovered, !before.disk.governs().is_empty());
            let lost = |pick: fn(&Write) -> bool| before.pending_writes().any(pick);
            marks.add_if(Mark::PromiseLost, lost(|write| matches!(write, Write::Promised(_))));
            marks.add_if(Mark::VoteLost, lost(|write| matches!(write, Write::Accepted { .. })));
            marks.add_if(Mark::VoteRecovered, before.disk.has_votes());
        }
        Input::Propose(_) => {
            let adopted = before.replica.counters().values_adopted > 0;
            let in_flight = |node: &Node| node.replica.status().slots_in_flight;
            let proposed = in_flight(after) > in_flight(before);
            marks.add_if(Mark::CommandAboveAdopted, adopted && proposed);
            marks.add_if(Mark::LeadsWithoutVote, proposed && before.is_voteless());
        }
        Input::Campaign | Input::Moment | Input::Change(_) => {}
    }
    let (old, new) = (before.replica.counters(), after.replica.counters());
    marks.add_if(Mark::Adopted, new.values_adopted > old.values_adopted);
    marks.add_if(Mark::HoleFilled, new.gaps_filled > old.gaps_filled);
    marks.add_if(Mark::ChosenByQuorum, new.values_chosen > old.values_chosen);
    marks.add_if(Mark::Fetched, new.values_fetched > old.values_fetched);
    marks.add_if(Mark::ChosenBeyondGap, after.replica.status().values_ahead > 0);
    marks.add_if(Mark::Governs, new.memberships > old.memberships);
    marks.add_if(Mark::WindowFilled, new.slots_filled > old.slots_filled);
    marks.add_if(Mark::GivenUp, out.gave_up.is_some());
    marks.add_if(Mark::GovernsNothing, {
        let mut claims = out.claims.iter();
        let known = after.replica.membership();
        claims.any(|(_, value)| match value {
            Some(Value::Membership(other)) => other.epoch() == known.epoch() && **other != *known,
            Some(Value::Noop | Value::Batch(_)) | None => false,
        })
    });
    out.marks.0 |= marks.0;
}

fn observe_sent(before: &Node, input: &Input<Message>, out: &Outcome, marks: &mut Marks) {
    let synced = matches!(input, Input::Sync);
    for (_, message) in &out.sent {
        match &message.body {
            Body::Promise(promise) => {
                marks.add_if(Mark::PromiseWaited, synced);
                marks.add_if(Mark::PrefixReported, promise.committed.number() > 0);
                for entry in &promise.entries {
                    match entry.state {
                        SlotState::Accepted(..) => marks.add(Mark::VoteReported),
                        SlotState::Chosen(_) => marks.add(Mark::ChosenReported),
                        SlotState::Unknown(_) => {}
                    }
                }
            }
            Body::Prepare(_) => {
                marks.add_if(Mark::PrepareWaited, synced);
                marks.add_if(Mark::NewVotersAsked, before.replica.role() == Role::Leader);
            }
            Body::Accepted(_) => marks.add_if(Mark::AcceptedWaited, synced),
            Body::Refused(_) => marks.add(Mark::OldLifeRefused),
            Body::Fetched(_) => {
                let accept = matches!(input, Input::Deliver(Message { body: Body::Accept(_), .. }))
                    && before.replica.status().committed.number() > 0;
                marks.add_if(Mark::ChosenAnswered, accept);
            }
            Body::Accept(_)
            | Body::Reject(_)
            | Body::Commit(_)
            | Body::Heartbeat(_)
            | Body::Fetch(_)
            | Body::Confirm(_)
            | Body::Confirmed(_)
            | Body::Transfer(_)
            | Body::Removed(_)
            | Body::Survey(_)
            | Body::Surveyed(_) => {}
        }
    }
}

fn observe_message(
    before: &Node,
    after: &Node,
    message: &Message,
    out: &Outcome,
    marks: &mut Marks,
) {
    let (from, body) = (message.origin.replica, &message.body);
    let (old, new) = (before.replica.status(), after.replica.status());
    let (counted, counts) = (before.replica.counters(), after.replica.counters());
    let ended = |role| old.role == role && new.role == Role::Follower;
    let stale = counts.dropped_stale > counted.dropped_stale;
    let rejected = out.sent.iter().any(|(_, sent)| matches!(sent.body, Body::Reject(_)));
    let grew = new.committed > old.committed;
    match body {
        Body::Prepare(_) => {
            marks.add_if(Mark::PrepareRejected, rejected);
            marks.add_if(Mark::ReignEndedByPrepare, ended(Role::Leader));
            marks.add_if(Mark::CampaignEndedByPrepare, ended(Role::Candidate));
        }
        Body::Accept(accept) => {
            marks.add_if(Mark::AcceptRejected, rejected);
            marks.add_if(Mark::ReignEndedByAccept, ended(Role::Leader));
            let raised = new.promised == Some(accept.ballot) && old.promised != new.promised;
            marks.add_if(Mark::AcceptRaisedPromise, raised);
            marks.add_if(Mark::ChosenByWatermark, grew);
        }
        Body::Commit(commit) => {
            marks.add_if(Mark::ChosenByWatermark, grew);
            let slot = old.committed.next();
            let other = before.disk.vote(slot).is_some_and(|(voted, _)| *voted != commit.ballot);
            marks.add_if(Mark::WatermarkNotTaken, other && !grew && commit.committed >= slot);
        }
        Body::Promise(promise) => {
            let leads = matches!(old.role, Role::Candidate) && new.role == Role::Leader;
            marks.add_if(Mark::PrefixFetched, leads && promise.committed > new.committed);
            let late = old.role == Role::Leader && new.role == Role::Leader && !stale;
            marks.add_if(Mark::LatePromise, late);
            let adopted = counts.values_adopted > counted.values_adopted;
            marks.add_if(Mark::LateVoteAdopted, late && adopted);
            marks.add_if(Mark::LatePrefix, late && promise.committed > old.committed);
        }
        Body::Accepted(accepted) => {
            let own = before.replica.leader() == Some(accepted.ballot);
            let leads = old.role == Role::Leader;
            marks.add_if(Mark::RepeatedAccepted, stale && leads && own && !grew);
            marks.add_if(Mark::AcceptedOfOtherBallot, stale && leads && !own);
            let governs = before.disk.governs().last();
            let voteless = governs.is_some_and(|governs| {
                accepted.first >= governs.from && governs.membership.voter_index(from).is_none()
            });
            marks.add_if(Mark::VoteOfNoVoter, stale && leads && own && voteless);
        }
        Body::Reject(_) => {
            marks.add_if(Mark::ReignEndedByReject, ended(Role::Leader));
            marks.add_if(Mark::CampaignEndedByReject, ended(Role::Candidate));
        }
        Body::Fetched(_)
        | Body::Heartbeat(_)
        | Body::Fetch(_)
        | Body::Refused(_)
        | Body::Confirm(_)
        | Body::Confirmed(_)
        | Body::Transfer(_)
        | Body::Removed(_)
        | Body::Survey(_)
        | Body::Surveyed(_) => {}
    }
}
