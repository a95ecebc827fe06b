//! The observer has teeth for changes of the membership.

use super::*;
use crate::membership::{Change, Member};

fn with(change: Change) -> Arc<Membership> {
    let first = Membership::voters_only((1..=3).map(id)).unwrap();
    Arc::new(first.changed(change).unwrap())
}

/// Replicas 1 and 2 choose this in slot 1; what follows up to slot 256 is chosen too.
fn world(next: &Arc<Membership>) -> World {
    let mut world = World::new();
    let b = ballot(1, 1);
    world.promise(&[1, 2], b);
    for number in 1..=256 {
        let value = if number == 1 { Value::Membership(next.clone()) } else { Value::Noop };
        let at = slot(number);
        world.accept_at(b, at, &value, slot(number - 1));
        world.vote(1, at, b, &value);
        world.vote(2, at, b, &value);
    }
    world.assert_whole();
    assert_eq!(world.check.chosen_prefix(), slot(256));
    world
}

#[test]
fn votes_count_by_the_membership_of_their_slot() {
    let next = with(Change::Remove(id(2)));
    let mut world = world(&next);
    let b = ballot(1, 1);
    let at = slot(257);
    assert_eq!(world.check.governing(slot(256)).epoch(), Epoch::FIRST);
    assert_eq!(world.check.governing(at).epoch(), Epoch::new(2));
    world.promise(&[3], b);
    world.accept_at(b, at, &Value::Noop, slot(256));
    world.vote(1, at, b, &Value::Noop);
    world.vote(2, at, b, &Value::Noop);
    assert_eq!(world.check.chosen(at), None, "replica 2 does not vote there");
    world.vote(3, at, b, &Value::Noop);
    assert_eq!(world.check.chosen(at), Some(&Value::Noop));
    world.assert_whole();
}

#[test]
fn what_only_the_old_voters_promised_is_seen_beyond_the_boundary() {
    let mut world = world(&with(Change::Remove(id(2))));
    // Replica 3 has promised nothing, and votes there.
    world.accept_at(ballot(1, 1), slot(257), &Value::Noop, slot(256));
    world.assert_broken(Invariant::SafeAt);
}

#[test]
fn a_record_of_who_governs_that_nothing_chosen_says_is_seen() {
    let next = with(Change::Remove(id(2)));
    for (from, membership, holds) in [
        (257, next.clone(), true),
        (2, next.clone(), false),
        (257, with(Change::Remove(id(3))), false),
    ] {
        let mut world = world(&next);
        world.write_durably(2, Write::Governs { from: slot(from), membership });
        if holds { world.assert_whole() } else { world.assert_broken(Invariant::CommittedPrefix) }
    }
}

#[test]
fn a_replica_that_stops_while_it_is_needed_is_seen() {
    let next = with(Change::Remove(id(2)));
    let mut early = world(&next);
    early.write_durably(1, Write::Committed(slot(256)));
    early.check.removed(id(2), Epoch::new(2));
    early.assert_broken(Invariant::NoHalt);
    let mut member = world(&next);
    for number in [1, 3] {
        member.write_durably(number, Write::Committed(slot(256)));
    }
    member.check.removed(id(2), Epoch::new(2));
    member.assert_whole();
    member.check.removed(id(3), Epoch::new(2));
    member.assert_broken(Invariant::NoHalt);
}

#[test]
fn what_governs_nothing_is_counted_and_changes_nothing() {
    let next = with(Change::AddObserver(Member::new(id(4))));
    let mut world = World::new();
    let b = ballot(1, 1);
    world.promise(&[1, 2], b);
    for (number, value) in [(1, &next), (2, &with(Change::Remove(id(3))))] {
        let value = Value::Membership(value.clone());
        world.accept_at(b, slot(number), &value, slot(number - 1));
        world.vote(1, slot(number), b, &value);
        world.vote(2, slot(number), b, &value);
    }
    world.assert_whole();
    assert_eq!(world.check.memberships(), (1, 1));
    assert_eq!(world.check.newest(), &next);
}
