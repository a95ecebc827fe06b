//! Sees the marks of one run.
//!
//! Owns: [`Watch`]: what has to be remembered to recognise them.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "most events and changes are no mark, and new ones are none either"
)]

use std::collections::{BTreeMap, BTreeSet};

use super::{Mark, Marks};
use crate::ballot::Ballot;
use crate::durable::{Write, WriteSequence};
use crate::ids::{ReplicaId, Slot};
use crate::message::{Accept, Body, Message, Promise, SlotState};
use crate::output::{Counters, Halt, NotProposed, Role, Status};
use crate::trace::Event;
use crate::value::Value;

/// What was seen of a replica in its life.
#[derive(Debug, Default)]
struct Seen {
    role: Option<Role>,
    in_flight: usize,
    window_is_full: bool,
    applied: Slot,
    /// Own proposals whose vote is not on the own disk yet.
    unproved: Vec<(WriteSequence, Slot)>,
}

/// Looks at a run from outside.
#[derive(Debug, Default)]
pub(in crate::sim) struct Watch {
    marks: Marks,
    replicas: BTreeMap<ReplicaId, Seen>,
    /// What each ballot proposed in a slot that is not known to be settled.
    proposed: BTreeMap<Slot, Vec<(Ballot, Value)>>,
    /// From which ballots a leader adopted.
    sources: BTreeMap<Ballot, BTreeSet<Ballot>>,
    /// The promises that were lost: promiser, ballot, first slot.
    lost: BTreeSet<(ReplicaId, Ballot, Slot)>,
    chosen: BTreeSet<Slot>,
    chosen_prefix: Slot,
}

impl Watch {
    /// What was met so far.
    pub(in crate::sim) fn marks(&self) -> &Marks {
        &self.marks
    }

    fn seen(&mut self, id: ReplicaId) -> &mut Seen {
        self.replicas.entry(id).or_default()
    }

    /// Something that the cluster itself sees.
    pub(in crate::sim) fn meet(&mut self, mark: Mark) {
        self.marks.meet(mark);
    }

    /// Something that the cluster saw so many times.
    pub(in crate::sim) fn meet_often(&mut self, mark: Mark, times: u64) {
        self.marks.meet_often(mark, times);
    }

    /// A message leaves.
    pub(in crate::sim) fn sent(&mut self, from: ReplicaId, message: &Message) {
        match &message.body {
            Body::Accept(accept) => self.sent_accept(accept),
            Body::Promise(promise) => self.sent_promise(from, promise),
            Body::Reject(_) => self.marks.meet(Mark::Rejected),
            Body::Fetched(fetched) if fetched.values.is_empty() => {
                self.marks.meet(Mark::FetchedNothing);
            }
            Body::Heartbeat(heartbeat) if heartbeat.released > 0 => {
                self.marks.meet(Mark::LeaseReleased);
            }
            Body::Removed(_) => self.marks.meet(Mark::RemovedTold),
            Body::Heartbeat(_)
            | Body::Prepare(_)
            | Body::Accepted(_)
            | Body::Commit(_)
            | Body::Fetch(_)
            | Body::Fetched(_)
            | Body::Refused(_)
            | Body::Confirm(_)
            | Body::Confirmed(_)
            | Body::Transfer(_)
            | Body::Survey(_)
            | Body::Surveyed(_) => {}
        }
    }

    fn sent_promise(&mut self, from: ReplicaId, promise: &Promise) {
        if promise.through != Slot::MAX {
            self.marks.meet(Mark::PromisePaged);
        }
        if promise.committed >= promise.from {
            self.marks.meet(Mark::PromiseAhead);
        }
        let mut entries = promise.entries.iter();
        if entries.any(|entry| matches!(entry.state, SlotState::Chosen(_))) {
            self.marks.meet(Mark::PromiseChosen);
        }
        if self.lost.remove(&(from, promise.ballot, promise.from)) {
            self.marks.meet(Mark::PromiseRetried);
        }
    }

    /// A message is lost on its way, or meets a cut.
    pub(in crate::sim) fn lost(&mut self, from: ReplicaId, message: &Message) {
        if let Body::Promise(promise) = &message.body {
            self.lost.insert((from, promise.ballot, promise.from));
        }
    }

    fn sent_accept(&mut self, accept: &Accept) {
        if accept.values.len() > 1 {
            self.marks.meet(Mark::AcceptOfSeveral);
        }
        let mut slot = accept.first;
        for value in &accept.values {
            self.propose(slot, accept.ballot, value);
            slot = slot.next();
        }
    }

    /// A ballot proposes a value in a slot, perhaps not for the first time.
    fn propose(&mut self, slot: Slot, ballot: Ballot, value: &Value) {
        if slot <= self.chosen_prefix {
            return;
        }
        let before = self.proposed.entry(slot).or_default();
        if before.iter().any(|(known, _)| *known == ballot) {
            return;
        }
        let lower = || before.iter().filter(|(known, _)| *known < ballot);
        let source = lower().filter(|(_, known)| known == value).map(|(known, _)| *known).max();
        let rivals = lower().any(|(_, known)| known != value);
        before.push((ballot, value.clone()));
        let ballots = before.len();
        if ballots >= 3 {
            self.marks.meet(Mark::ThirdBallot);
        }
        let Some(source) = source else { return };
        if rivals {
            self.marks.meet(Mark::AdoptedAmongSeveral);
        }
        let sources = self.sources.entry(ballot).or_default();
        if sources.insert(source) && sources.len() == 2 {
            self.marks.meet(Mark::AdoptedFromSeveral);
        }
    }

    /// What a replica says of itself after each of its steps, and how many slots it may hand out.
    pub(in crate::sim) fn observed(
        &mut self,
        id: ReplicaId,
        status: &Status,
        window: u32,
        apply_max: u32,
    ) {
        let (role, in_flight) = (status.role, status.slots_in_flight);
        let seen = self.seen(id);
        let (before, flew) = (seen.role.replace(role), seen.in_flight);
        seen.in_flight = in_flight;
        seen.window_is_full = in_flight >= window as usize;
        seen.applied = status.applied;
        match (before, role) {
            (Some(Role::Leader), Role::Follower | Role::Candidate) if flew > 0 => {
                self.marks.meet(Mark::DeposedInFlight);
            }
            (Some(Role::Candidate), Role::Follower) => self.marks.meet(Mark::CampaignLost),
            (Some(Role::Candidate) | None, Role::Leader) => {
                let leaders = self.replicas.values().filter(|s| s.role == Some(Role::Leader));
                if leaders.count() > 1 {
                    self.marks.meet(Mark::TwoLeaders);
                }
            }
            _ => {}
        }
        if status.slots_being_applied >= apply_max as usize {
            self.marks.meet(Mark::ApplyFull);
        }
    }

    /// Something else happens at a replica.
    pub(in crate::sim) fn event(&mut self, id: ReplicaId, event: &Event) {
        match event {
            Event::Crashed { .. } => {
                let seen = self.replicas.remove(&id).unwrap_or_default();
                match seen.role {
                    Some(Role::Leader) if seen.in_flight > 0 => {
                        self.marks.meet(Mark::CrashedInFlight);
                    }
                    Some(Role::Candidate) => self.marks.meet(Mark::CandidateCrashed),
                    _ => {}
                }
            }
            Event::Paused { .. } if self.seen(id).role == Some(Role::Leader) => {
                self.marks.meet(Mark::LeaderPaused);
            }
            Event::Persist { sequence, writes } => self.persists(id, *sequence, writes),
            Event::Durable { through } => {
                self.seen(id).unproved.retain(|(sequence, _)| sequence > through);
            }
            Event::Chosen { slot, ballot, value } => self.choose(*slot, *ballot, value),
            Event::NotProposed { reason } => self.refuse(id, *reason),
            Event::Load { from, .. } => {
                let served = *from <= self.seen(id).applied;
                self.marks.meet(if served { Mark::LogServed } else { Mark::LogReplayed });
            }
            Event::Halted { reason: Halt::Refused { .. } } => self.marks.meet(Mark::LifeRefused),
            _ => {}
        }
    }

    fn persists(&mut self, id: ReplicaId, sequence: WriteSequence, writes: &[Write]) {
        for write in writes {
            match write {
                Write::Accepted { slot, ballot, .. } if ballot.leader() == id => {
                    self.seen(id).unproved.push((sequence, *slot));
                }
                Write::Chosen { .. } => self.marks.meet(Mark::LearnedWithoutVote),
                _ => {}
            }
        }
    }

    fn choose(&mut self, slot: Slot, ballot: Ballot, value: &Value) {
        let leader = self.seen(ballot.leader());
        if leader.unproved.iter().any(|(_, unproved)| *unproved == slot) {
            self.marks.meet(Mark::LeaderVotedLate);
        }
        if *value == Value::Noop {
            self.marks.meet(Mark::NoopChosen);
        }
        self.chosen.insert(slot);
        if slot > self.chosen_prefix.next() {
            self.marks.meet(Mark::ChosenOutOfOrder);
        }
        while self.chosen.remove(&self.chosen_prefix.next()) {
            self.chosen_prefix = self.chosen_prefix.next();
            self.proposed.remove(&self.chosen_prefix);
        }
    }

    fn refuse(&mut self, id: ReplicaId, reason: NotProposed) {
        let mark = match reason {
            NotProposed::NotLeader { hint: Some(_) } => Mark::NotLeaderHint,
            NotProposed::NotLeader { hint: None } => Mark::NotLeader,
            NotProposed::Busy if self.seen(id).window_is_full => Mark::WindowFull,
            NotProposed::Busy => Mark::WindowBytesFull,
            NotProposed::Transferring { .. } => Mark::Transferring,
            // Clients of random runs do not ask for these; unit tests do.
            NotProposed::TooLarge { .. } | NotProposed::Empty | NotProposed::Halted => return,
        };
        self.marks.meet(mark);
    }

    /// What a life of a replica counted.
    pub(in crate::sim) fn counted(&mut self, counters: &Counters) {
        self.marks.meet_often(Mark::StaleLife, counters.dropped_stale_life);
        self.marks.meet_often(Mark::StaleBallot, counters.dropped_stale);
        self.marks.meet_often(Mark::TransferDone, counters.transfers_done);
        self.marks.meet_often(Mark::TransferGivenUp, counters.transfers_given_up);
        self.marks.meet_often(Mark::TransferIgnored, counters.transfers_ignored);
        self.marks.meet_often(Mark::BeyondWindow, counters.dropped_beyond_window);
        self.marks.meet_often(Mark::LeaseRead, counters.lease_reads);
        self.marks.meet_often(Mark::PrepareWithheld, counters.prepares_withheld);
        self.marks.meet_often(Mark::Promoted, counters.promotions);
        self.marks.meet_often(Mark::WindowFilled, counters.slots_filled);
    }
}
