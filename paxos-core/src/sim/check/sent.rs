//! What the observer makes of messages that leave.

use super::{Check, Invariant, place_of};
use crate::ballot::Ballot;
use crate::ids::{ReplicaId, Slot};
use crate::message::{Accept, Accepted, Body, Fetched, Message, Prepare, Promise, SlotState};
use crate::quorum::VoterSet;
use crate::value::Value;

impl Check {
    /// A message left a replica whose committed prefix is `committed`.
    pub fn sent(&mut self, by: ReplicaId, message: &Message, committed: Slot) {
        match &message.body {
            Body::Prepare(prepare) => self.sent_prepare(by, prepare),
            Body::Promise(promise) => self.sent_promise(by, promise),
            Body::Accept(accept) => self.sent_accept(by, accept, committed),
            Body::Accepted(accepted) => self.sent_accepted(by, accepted),
            Body::Commit(commit) => self.require_prefix(by, commit.committed, "announces"),
            Body::Transfer(transfer) => self.require_prefix(by, transfer.committed, "announces"),
            Body::Heartbeat(heartbeat) => {
                self.require_prefix(by, heartbeat.committed, "announces");
                let replica = self.replica(by);
                let durable = replica.durable_vote.max(replica.committed);
                self.require(heartbeat.durable <= durable, Invariant::DurableBeforeSent, || {
                    format!("{by} says its disk holds votes up to {}", heartbeat.durable)
                });
                let held = self.replica(by).durable_committed;
                self.require(heartbeat.held <= held, Invariant::DurableBeforeSent, || {
                    format!("{by} says its disk knows the prefix to {}", heartbeat.held)
                });
            }
            Body::Fetched(fetched) => self.sent_fetched(by, fetched),
            Body::Surveyed(surveyed) => {
                self.require_prefix(by, surveyed.committed, "announces");
                let (voted, highest) = (self.replica(by).durable_vote, surveyed.highest);
                self.require(highest >= voted, Invariant::ReadsFresh, || {
                    format!("{by} names {highest} as its highest slot, and voted in {voted}")
                });
            }
            Body::Reject(_)
            | Body::Fetch(_)
            | Body::Refused(_)
            | Body::Removed(_)
            | Body::Confirm(_)
            | Body::Confirmed(_)
            | Body::Survey(_) => {}
        }
    }

    fn sent_prepare(&mut self, by: ReplicaId, prepare: &Prepare) {
        self.use_ballot(prepare.ballot, by);
        self.require_promise(by, prepare.ballot, "Prepare");
    }

    fn require_promise(&mut self, by: ReplicaId, ballot: Ballot, what: &str) {
        let durable = self.replica(by).durable_promised;
        self.require(durable >= Some(ballot), Invariant::DurableBeforeSent, || {
            format!("{by} sends a {what} for {ballot}; its disk holds {durable:?}")
        });
    }

    fn sent_promise(&mut self, by: ReplicaId, promise: &Promise) {
        let ballot = promise.ballot;
        self.require_promise(by, ballot, "Promise");
        self.require_prefix(by, promise.committed, "promises");
        // What a replica says that lost its memory is refused by all, and counted by nobody here.
        if self.is_wiped(by) {
            return;
        }
        let seat = place_of(by);
        for entry in &promise.entries {
            let slot = entry.slot;
            match &entry.state {
                SlotState::Accepted(at, value) => {
                    let history = self.slots.get(&slot);
                    let durable = history.is_some_and(|history| {
                        let mut votes = history.votes.iter();
                        votes.any(|vote| {
                            vote.ballot == *at && vote.voters.contains(seat) && vote.value == *value
                        })
                    });
                    self.require(durable, Invariant::DurableBeforeSent, || {
                        format!("{by} reports a vote at {at} in {slot} that is not on its disk")
                    });
                }
                SlotState::Chosen(value) => self.require_chosen(by, slot, value),
                SlotState::Unknown(_) => {}
            }
        }
        if let Some(slot) = self.untold(seat, promise) {
            self.fail(Invariant::PromiseComplete, || {
                format!("{by} promises {ballot} and keeps its vote in {slot} to itself")
            });
        }
    }

    /// A slot in which the promiser voted below the ballot and of which the page says less.
    fn untold(&self, seat: usize, promise: &Promise) -> Option<Slot> {
        let from = promise.from.max(promise.committed.next());
        if from > promise.through {
            return None;
        }
        let mut entries = promise.entries.iter().peekable();
        for (slot, history) in self.slots.range(from..=promise.through) {
            let votes = history.votes.iter();
            let below = votes.filter(|v| v.voters.contains(seat) && v.ballot < promise.ballot);
            let Some(highest) = below.map(|vote| vote.ballot).max() else {
                continue;
            };
            while entries.next_if(|entry| entry.slot < *slot).is_some() {}
            let told = entries.next_if(|entry| entry.slot == *slot);
            let holds = told.is_some_and(|entry| match &entry.state {
                SlotState::Accepted(ballot, _) | SlotState::Unknown(ballot) => *ballot >= highest,
                SlotState::Chosen(_) => true,
            });
            if !holds {
                return Some(*slot);
            }
        }
        None
    }

    fn sent_accept(&mut self, by: ReplicaId, accept: &Accept, committed: Slot) {
        self.use_ballot(accept.ballot, by);
        self.require_prefix(by, accept.committed, "announces");
        let limit = committed.plus(self.window());
        let mut slot = accept.first;
        for value in &accept.values {
            self.require(slot <= limit, Invariant::WindowBound, || {
                format!("{by} proposes {slot} while its committed prefix is {committed}")
            });
            if self.note_proposal(slot, accept.ballot, value) {
                self.check_safe(slot, accept.ballot, value);
            }
            slot = slot.next();
        }
    }

    /// P2c, by what is on the disks: some prepare quorum will accept nothing below `ballot` any
    /// more, and among its votes below `ballot` the highest is for this value, or there is none.
    pub(super) fn check_safe(&mut self, slot: Slot, ballot: Ballot, value: &Value) {
        let membership = self.governing(slot).clone();
        let quorums = membership.quorums();
        let members = membership.voters().iter();
        let highest: Vec<Option<Option<Ballot>>> = members
            .map(|member| {
                let seat = place_of(member.id);
                let replica = &self.replicas[usize::from(member.id.number()) - 1];
                // Nothing below a promise that is on disk is voted for again.
                let promised = if replica.wiped {
                    // It never votes again under that name.
                    replica.promised_once
                } else {
                    replica.durable_promised
                };
                (promised >= Some(ballot)).then(|| {
                    let votes = self.slots.get(&slot).map(|history| &history.votes);
                    let votes = votes.into_iter().flatten();
                    let below = votes.filter(|v| v.ballot < ballot && v.voters.contains(seat));
                    below.map(|vote| vote.ballot).max()
                })
            })
            .collect();
        let permitted = |limit: Option<Ballot>| {
            let mut set = VoterSet::EMPTY;
            for (seat, vote) in highest.iter().enumerate() {
                if vote.is_some_and(|vote| vote <= limit) {
                    set.insert(seat);
                }
            }
            quorums.is_prepare_quorum(set)
        };
        let chosen = self.chosen(slot) == Some(value);
        let votes = self.slots.get(&slot).map(|history| &history.votes);
        let mut votes = votes.into_iter().flatten();
        let safe = chosen
            || permitted(None)
            || votes.any(|v| v.ballot < ballot && v.value == *value && permitted(Some(v.ballot)));
        self.require(safe, Invariant::SafeAt, || {
            format!("{ballot} proposes in {slot} what no prepare quorum permits")
        });
    }

    fn sent_accepted(&mut self, by: ReplicaId, accepted: &Accepted) {
        if self.is_wiped(by) {
            return;
        }
        let seat = place_of(by);
        let ballot = accepted.ballot;
        let mut slot = accepted.first;
        while slot <= accepted.last && self.violation.is_none() {
            let history = self.slots.get(&slot);
            let durable = history.is_some_and(|history| {
                let mut votes = history.votes.iter();
                votes.any(|vote| vote.ballot == ballot && vote.voters.contains(seat))
            });
            self.require(durable, Invariant::DurableBeforeSent, || {
                format!("{by} says it accepted {slot} at {ballot}; its disk does not hold that")
            });
            slot = slot.next();
        }
    }

    fn sent_fetched(&mut self, by: ReplicaId, fetched: &Fetched) {
        self.require_prefix(by, fetched.committed, "announces");
        let mut slot = fetched.first;
        for value in &fetched.values {
            self.require_chosen(by, slot, value);
            slot = slot.next();
        }
    }
}
