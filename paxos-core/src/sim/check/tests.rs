//! The observer has teeth: each invariant is seen broken by a history made for it.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use bytes::Bytes;

use super::*;
use crate::durable::WriteBatch;
use crate::ids::{ClusterId, Epoch, GroupId, LogClock, Priority};
use crate::message::{
    Accept, Accepted, Body, Commit, Connectivity, Fetched, Heartbeat, Message, Origin, Prepare,
    Promise, PromiseEntry, SlotState,
};
use crate::output::{Proposed, Role, Status};
use crate::port::{Format, Recovered, RecoveredVote, Start};
use crate::sim::Batches;
use crate::value::{Batch, Command};

mod damage;
mod members;
mod snapshots;

const fn id(number: u16) -> ReplicaId {
    ReplicaId::new(number)
}

const fn slot(number: u64) -> Slot {
    Slot::new(number)
}

const fn ballot(round: u64, leader: u16) -> Ballot {
    Ballot::new(round, ReplicaId::new(leader))
}

fn command(request: u64) -> Command {
    let payload = Bytes::copy_from_slice(&request.to_le_bytes());
    Command::apply(ClientId::new(1), RequestNumber::new(request), payload)
}

fn value_at(request: u64, clock: u64) -> Value {
    let clock = LogClock::from_millis(clock);
    Value::Batch(Batch::new(clock, vec![command(request)]))
}

fn value(request: u64) -> Value {
    value_at(request, 0)
}

/// Three replicas in their first life.
struct World {
    check: Check,
    batches: Vec<Batches>,
}

impl World {
    fn new() -> Self {
        let membership = Membership::voters_only((1..=3).map(id)).unwrap();
        let mut world = Self { check: Check::new(membership, 3), batches: Vec::new() };
        for number in 1..=3 {
            world.batches.push(Batches::new(World::origin(number)));
            let recovered = world.recovered(number, 1);
            world.recover(number, &recovered);
        }
        world
    }

    fn origin(replica: u16) -> Origin {
        Origin {
            cluster: ClusterId::new(1),
            group: GroupId::new(1),
            epoch: Epoch::FIRST,
            membership: crate::agreement::MembershipDigest::default(),
            replica: id(replica),
            incarnation: Incarnation::new(1, 0),
        }
    }

    fn recovered(&self, replica: u16, boot: u32) -> Recovered {
        let format = Format {
            cluster: ClusterId::new(1),
            group: GroupId::new(1),
            replica: id(replica),
            membership: (**self.check.newest()).clone(),
        };
        let incarnation = Incarnation::new(boot, 0);
        Recovered { start: Start::Again, ..Recovered::formatted(format, incarnation) }
    }

    fn recover(&mut self, replica: u16, recovered: &Recovered) {
        let bytes_max = 1000;
        (self.check).recovered(id(replica), recovered, Slot::ZERO, bytes_max);
    }

    /// Hands a batch out, without a proof.
    fn write(&mut self, replica: u16, writes: Vec<Write>) -> WriteBatch {
        let batch = self.batches[usize::from(replica) - 1].batch(writes);
        self.check.handed_out(id(replica), &batch);
        batch
    }

    fn write_durably(&mut self, replica: u16, write: Write) {
        let batch = self.write(replica, vec![write]);
        self.check.attested(id(replica), batch.sequence());
    }

    fn promise(&mut self, replicas: &[u16], ballot: Ballot) {
        for replica in replicas {
            self.write_durably(*replica, Write::Promised(ballot));
        }
    }

    fn vote(&mut self, replica: u16, slot: Slot, ballot: Ballot, value: &Value) {
        let value = value.clone();
        let write = Write::Accepted { slot, ballot, value };
        self.write_durably(replica, write);
    }

    fn submit(&mut self, request: u64, slot: Slot, ballot: Ballot) {
        let proposed = Proposed { slot, ballot };
        self.check.submitted(&command(request));
        let leader = ballot.leader();
        self.check.proposed(leader, &[command(request)], proposed);
    }

    fn send(&mut self, replica: u16, body: impl Into<Body>) {
        let origin = Self::origin(replica);
        let body = body.into();
        let message = Message { origin, body };
        self.check.sent(id(replica), &message, Slot::ZERO);
    }

    fn accept(&mut self, ballot: Ballot, first: Slot, value: &Value) {
        let accept = Accept { ballot, committed: Slot::ZERO, first, values: vec![value.clone()] };
        self.send(ballot.leader().number(), accept);
    }

    /// The same, while its sender's committed prefix is this.
    fn accept_at(&mut self, ballot: Ballot, first: Slot, value: &Value, committed: Slot) {
        let accept = Accept { ballot, committed, first, values: vec![value.clone()] };
        let origin = Self::origin(ballot.leader().number());
        let message = Message { origin, body: accept.into() };
        self.check.sent(ballot.leader(), &message, committed);
    }

    /// Replica 1 leads, and this command is chosen in this slot by 1 and 2.
    fn choose(&mut self, request: u64, at: Slot) {
        self.choose_value(request, at, &value(request));
    }

    fn choose_value(&mut self, request: u64, at: Slot, value: &Value) {
        let b = ballot(1, 1);
        self.promise(&[1, 2], b);
        self.submit(request, at, b);
        self.accept(b, at, value);
        self.vote(1, at, b, value);
        self.vote(2, at, b, value);
        assert_eq!(self.check.chosen(at), Some(value));
    }

    fn status(replica: u16) -> Status {
        Status {
            replica: id(replica),
            incarnation: Incarnation::new(1, 0),
            role: Role::Follower,
            promised: Some(ballot(9, 3)),
            leader: None,
            epoch: Epoch::FIRST,
            committed: Slot::ZERO,
            applied: Slot::ZERO,
            trimmed: Slot::ZERO,
            connectivity: Connectivity::Quorum,
            connected_peers: Vec::new(),
            slots_in_flight: 0,
            bytes_in_flight: 0,
            writes_pending: 0,
            reads_waiting: 0,
            quorum_reads_waiting: 0,
            transferring: None,
            disagreeing: Vec::new(),
            joining: Vec::new(),
            flows: Vec::new(),
            messages_waiting: 0,
            slots_being_applied: 0,
            lease_until: None,
            values_ahead: 0,
            votes_held: 0,
        }
    }

    #[track_caller]
    fn assert_whole(&self) {
        assert_eq!(self.check.violation(), None);
    }

    #[track_caller]
    fn assert_broken(&self, invariant: Invariant) {
        let violation = self.check.violation().expect("an invariant is broken");
        assert_eq!(violation.invariant, invariant, "{violation}");
    }
}

#[test]
fn a_correct_history_breaks_nothing() {
    let mut world = World::new();
    world.choose(1, slot(1));
    world.choose(2, slot(2));
    world.check.applied(id(1), slot(1), &value(1));
    world.check.applied(id(1), slot(2), &value(2));
    world.check.applied(id(3), slot(1), &value(1));
    let b = ballot(2, 3);
    world.promise(&[3, 2], b);
    let entries = [1, 2].map(|n| PromiseEntry {
        slot: slot(n),
        state: SlotState::Accepted(ballot(1, 1), value(n)),
    });
    world.send(
        2,
        Promise {
            ballot: b,
            committed: Slot::ZERO,
            from: slot(1),
            through: Slot::MAX,
            entries: entries.to_vec(),
        },
    );
    world.accept(b, slot(1), &value(1));
    world.vote(3, slot(1), b, &value(1));
    world.assert_whole();
}

#[test]
fn two_values_chosen_in_one_slot_break_agreement() {
    let mut world = World::new();
    world.choose(1, slot(1));
    let b = ballot(2, 3);
    // As if replica 2 had forgotten its vote: the rule that forbids the Accept is switched off.
    world.check.slots.get_mut(&slot(1)).unwrap().proposed.push((b, Value::Noop));
    world.vote(3, slot(1), b, &Value::Noop);
    world.assert_whole();
    world.vote(2, slot(1), b, &Value::Noop);
    world.assert_broken(Invariant::Agreement);
}

#[test]
fn a_command_that_nobody_made_breaks_validity() {
    let mut world = World::new();
    world.promise(&[1, 2], ballot(1, 1));
    world.accept(ballot(1, 1), slot(1), &value(5));
    world.assert_broken(Invariant::Validity);
}

#[test]
fn a_command_in_a_slot_where_it_was_not_proposed_breaks_validity() {
    let mut world = World::new();
    world.promise(&[1, 2], ballot(1, 1));
    world.submit(5, slot(2), ballot(1, 1));
    world.accept(ballot(1, 1), slot(1), &value(5));
    world.assert_broken(Invariant::Validity);
}

#[test]
fn a_vote_for_what_was_never_proposed_breaks_validity() {
    let mut world = World::new();
    world.promise(&[1, 2], ballot(1, 1));
    world.vote(2, slot(1), ballot(1, 1), &Value::Noop);
    world.assert_broken(Invariant::Validity);
}

#[test]
fn a_second_value_at_one_ballot_is_seen() {
    let mut world = World::new();
    let b = ballot(1, 1);
    world.promise(&[1, 2], b);
    world.submit(1, slot(1), b);
    world.accept(b, slot(1), &value(1));
    world.assert_whole();
    world.accept(b, slot(1), &Value::Noop);
    world.assert_broken(Invariant::OneValuePerBallot);
}

#[test]
fn a_ballot_of_two_lives_is_seen() {
    let mut world = World::new();
    world.promise(&[1], ballot(1, 1));
    world.send(1, prepare(ballot(1, 1)));
    let recovered = Recovered { promised: Some(ballot(1, 1)), ..world.recovered(1, 2) };
    world.recover(1, &recovered);
    world.assert_whole();
    world.send(1, prepare(ballot(1, 1)));
    world.assert_broken(Invariant::BallotUnique);
}

#[test]
fn a_ballot_of_another_replica_is_seen() {
    let mut world = World::new();
    world.promise(&[2], ballot(1, 1));
    world.send(2, prepare(ballot(1, 1)));
    world.assert_broken(Invariant::BallotUnique);
}

const fn prepare(ballot: Ballot) -> Prepare {
    Prepare { ballot, from: Slot::FIRST }
}

#[test]
fn a_promise_that_goes_back_is_seen_in_memory_and_on_disk() {
    let mut world = World::new();
    world.promise(&[2], ballot(3, 1));
    world.promise(&[2], ballot(2, 1));
    world.assert_broken(Invariant::PromiseMonotonic);

    let mut world = World::new();
    world.promise(&[2], ballot(3, 1));
    let recovered = world.recovered(2, 2);
    world.recover(2, &recovered);
    world.assert_broken(Invariant::PromiseMonotonic);

    let mut world = World::new();
    world.promise(&[2], ballot(10, 1));
    let status = World::status(2);
    world.check.observed(id(2), &status);
    world.assert_broken(Invariant::PromiseMonotonic);
}

#[test]
fn a_vote_below_the_promise_is_seen() {
    let mut world = World::new();
    world.promise(&[1, 2, 3], ballot(1, 1));
    world.accept(ballot(1, 1), slot(1), &Value::Noop);
    world.promise(&[2], ballot(2, 3));
    world.assert_whole();
    world.vote(2, slot(1), ballot(1, 1), &Value::Noop);
    world.assert_broken(Invariant::VoteAtPromise);
}

#[test]
fn what_is_sent_before_it_is_durable_is_seen() {
    let b = ballot(1, 1);
    let written = |replica| {
        let mut world = World::new();
        let _unproved = world.write(replica, vec![Write::Promised(b)]);
        world
    };
    let mut world = written(1);
    world.send(1, prepare(b));
    world.assert_broken(Invariant::DurableBeforeSent);

    let mut world = written(2);
    let promise = Promise {
        ballot: b,
        committed: Slot::ZERO,
        from: Slot::FIRST,
        through: Slot::MAX,
        entries: Vec::new(),
    };
    world.send(2, promise);
    world.assert_broken(Invariant::DurableBeforeSent);

    let mut world = World::new();
    world.promise(&[1, 2], b);
    world.accept(b, slot(1), &Value::Noop);
    let _unproved = world.write(2, vec![accepted_write(slot(1), b)]);
    world.assert_whole();
    let (first, last) = (slot(1), slot(1));
    world.send(2, Accepted { ballot: b, first, last });
    world.assert_broken(Invariant::DurableBeforeSent);

    let mut world = World::new();
    let heartbeat = Heartbeat {
        sequence: 1,
        echoes: Vec::new(),
        promised: None,
        leader: None,
        connectivity: Connectivity::Quorum,
        committed: Slot::ZERO,
        durable: slot(1),
        held: Slot::ZERO,
        released: 0,
        priority: Priority::default(),
    };
    world.send(2, heartbeat);
    world.assert_broken(Invariant::DurableBeforeSent);
}

const fn accepted_write(slot: Slot, ballot: Ballot) -> Write {
    let value = Value::Noop;
    Write::Accepted { slot, ballot, value }
}

#[test]
fn a_promise_that_keeps_a_vote_to_itself_is_seen() {
    let mut world = World::new();
    world.promise(&[1, 2], ballot(1, 1));
    world.accept(ballot(1, 1), slot(1), &Value::Noop);
    world.vote(2, slot(1), ballot(1, 1), &Value::Noop);
    world.promise(&[2], ballot(2, 3));
    world.assert_whole();
    let promise = Promise {
        ballot: ballot(2, 3),
        committed: Slot::ZERO,
        from: Slot::FIRST,
        through: Slot::MAX,
        entries: Vec::new(),
    };
    world.send(2, promise);
    world.assert_broken(Invariant::PromiseComplete);
}

#[test]
fn an_accept_without_a_prepare_quorum_is_seen() {
    let mut world = World::new();
    world.promise(&[1], ballot(1, 1));
    world.accept(ballot(1, 1), slot(1), &Value::Noop);
    world.assert_broken(Invariant::SafeAt);
}

#[test]
fn an_accept_that_passes_over_the_highest_vote_is_seen() {
    let mut world = World::new();
    world.choose(1, slot(1));
    world.promise(&[2, 3], ballot(2, 3));
    world.assert_whole();
    world.accept(ballot(2, 3), slot(1), &Value::Noop);
    world.assert_broken(Invariant::SafeAt);
}

#[test]
fn a_committed_prefix_that_is_not_chosen_is_seen() {
    let mut world = World::new();
    let (ballot, committed) = (ballot(1, 1), slot(1));
    world.send(1, Commit { ballot, committed });
    world.assert_broken(Invariant::CommittedPrefix);

    let mut world = World::new();
    world.write_durably(1, Write::Committed(slot(1)));
    world.assert_broken(Invariant::CommittedPrefix);

    let mut world = World::new();
    let fetched = Fetched {
        first: slot(1),
        values: vec![Value::Noop],
        committed: Slot::ZERO,
        trimmed: Slot::ZERO,
    };
    world.send(1, fetched);
    world.assert_broken(Invariant::CommittedPrefix);
}

#[test]
fn a_committed_prefix_that_shrinks_is_seen() {
    let mut world = World::new();
    world.choose(1, slot(1));
    let mut status = World::status(1);
    status.committed = slot(1);
    world.check.observed(id(1), &status);
    world.assert_whole();
    status.committed = Slot::ZERO;
    world.check.observed(id(1), &status);
    world.assert_broken(Invariant::CommittedPrefix);
}

#[test]
fn applying_twice_out_of_order_or_what_is_not_chosen_is_seen() {
    for (first, second) in [((1, 1), (1, 1)), ((1, 1), (3, 3)), ((1, 1), (2, 3))] {
        let mut world = World::new();
        (1..=3).for_each(|n| world.choose(n, slot(n)));
        world.check.applied(id(2), slot(first.0), &value(first.1));
        world.assert_whole();
        world.check.applied(id(2), slot(second.0), &value(second.1));
        world.assert_broken(Invariant::AppliedInOrder);
    }
}

#[test]
fn trimming_what_is_not_applied_is_seen() {
    let mut world = World::new();
    world.choose(1, slot(1));
    world.write_durably(1, Write::Trimmed(slot(1)));
    world.assert_broken(Invariant::AppliedInOrder);
}

#[test]
fn states_that_differ_at_one_slot_are_seen() {
    let mut world = World::new();
    world.choose(1, slot(1));
    world.check.applied(id(1), slot(1), &value(1));
    // A state machine that is not a function of its values.
    world.check.replica(id(2)).state = 7;
    world.check.applied(id(2), slot(1), &value(1));
    world.assert_broken(Invariant::EqualState);
}

#[test]
fn more_in_flight_than_the_window_is_seen() {
    let mut world = World::new();
    let mut status = World::status(1);
    status.slots_in_flight = 257;
    world.check.observed(id(1), &status);
    world.assert_broken(Invariant::WindowBound);

    let mut world = World::new();
    let mut status = World::status(1);
    status.votes_held = 513;
    world.check.observed(id(1), &status);
    world.assert_broken(Invariant::WindowBound);

    let mut world = World::new();
    let mut status = World::status(1);
    status.messages_waiting = 2049;
    world.check.observed(id(1), &status);
    world.assert_broken(Invariant::WindowBound);

    let mut world = World::new();
    let mut status = World::status(1);
    status.bytes_in_flight = 1001;
    world.check.admitted(id(1), &status);
    world.assert_broken(Invariant::WindowBound);

    let mut world = World::new();
    world.promise(&[1, 2], ballot(1, 1));
    world.accept(ballot(1, 1), slot(257), &Value::Noop);
    world.assert_broken(Invariant::WindowBound);
}

#[test]
fn a_rejected_command_in_the_log_is_seen_whichever_comes_first() {
    let mut world = World::new();
    world.choose(1, slot(1));
    world.check.rejected(ClientId::new(1), RequestNumber::new(1));
    world.assert_broken(Invariant::RejectedStaysOut);

    let mut world = World::new();
    let b = ballot(1, 1);
    world.submit(1, slot(1), b);
    world.check.rejected(ClientId::new(1), RequestNumber::new(1));
    world.promise(&[1, 2], b);
    world.accept(b, slot(1), &value(1));
    world.vote(1, slot(1), b, &value(1));
    world.assert_whole();
    world.vote(2, slot(1), b, &value(1));
    world.assert_broken(Invariant::RejectedStaysOut);
}

#[test]
fn a_command_in_two_slots_is_seen() {
    let mut world = World::new();
    world.choose(1, slot(1));
    world.choose(1, slot(2));
    world.assert_broken(Invariant::AppliedOnce);
}

#[test]
fn a_clock_that_goes_back_is_seen() {
    let mut world = World::new();
    world.choose_value(1, slot(1), &value_at(1, 20));
    world.assert_whole();
    world.choose_value(2, slot(2), &value_at(2, 10));
    world.assert_broken(Invariant::ClockMonotonic);
}

#[test]
fn a_storage_that_loses_or_invents_a_vote_is_seen() {
    let b = ballot(1, 1);
    let vote = RecoveredVote { slot: slot(1), ballot: b, value: Value::Noop };
    for (made, found) in [(true, vec![]), (false, vec![vote])] {
        let mut world = World::new();
        world.promise(&[1, 2], b);
        if made {
            world.accept(b, slot(1), &Value::Noop);
            world.vote(2, slot(1), b, &Value::Noop);
        }
        world.assert_whole();
        let recovered = Recovered { promised: Some(b), votes: found, ..world.recovered(2, 2) };
        world.recover(2, &recovered);
        world.assert_broken(Invariant::RecoveryExact);
    }
}

#[test]
fn a_life_that_is_not_newer_is_seen() {
    let mut world = World::new();
    let recovered = world.recovered(2, 1);
    world.recover(2, &recovered);
    world.assert_broken(Invariant::RecoveryExact);
}

#[test]
fn a_read_point_below_what_was_known_is_seen() {
    for kind in [ReadKind::Led, ReadKind::Quorum] {
        let mut world = World::new();
        world.choose(1, slot(1));
        let mut status = World::status(2);
        status.committed = slot(1);
        world.check.observed(id(2), &status);
        let first = ReadTicket::new(1);
        world.check.read_asked(id(1), kind, first);
        assert_eq!(world.check.reads_waiting(id(1), kind, first), 1);
        world.assert_whole();
        world.check.reads_ready(id(1), kind, first, Slot::ZERO);
        world.assert_broken(Invariant::ReadsFresh);

        let mut world = World::new();
        world.check.reads_ready(id(1), kind, first, Slot::ZERO);
        world.assert_broken(Invariant::ReadsFresh);
    }
}
