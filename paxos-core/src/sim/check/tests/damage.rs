//! Disks that fail, forget and lie, seen and unseen.

use std::io;

use super::*;
use crate::port::StorageError;
use crate::sim::disk::Harm;

fn io_error() -> StorageError {
    StorageError::Io { what: "cannot write".to_owned(), source: io::Error::other("injected") }
}

fn corrupt() -> StorageError {
    StorageError::Corrupt { what: "a record does not match its checksum".to_owned() }
}

#[test]
fn a_storage_that_fails_without_a_cause_or_by_the_wrong_name_is_seen() {
    let failing = |harm: Option<Harm>, error: &StorageError| {
        let mut world = World::new();
        if let Some(harm) = harm {
            world.check.disk_struck(id(1), harm);
        }
        world.check.storage_failed(id(1), error);
        world
    };
    failing(Some(Harm::Passing), &io_error()).assert_whole();
    failing(Some(Harm::Damage), &corrupt()).assert_whole();
    for (harm, error) in [
        (None, io_error()),
        (None, corrupt()),
        (Some(Harm::Damage), io_error()),
        (Some(Harm::Damage), StorageError::NotFormatted { path: "d".into() }),
        (Some(Harm::Passing), StorageError::Poisoned),
    ] {
        failing(harm, &error).assert_broken(Invariant::DamageNamed);
    }
}

#[test]
fn a_log_that_gives_back_what_is_not_chosen_or_less_than_all_is_seen() {
    let mut world = World::new();
    world.choose(1, slot(1));
    world.choose(2, slot(2));
    world.check.audited(id(1), slot(1), slot(2), &[value(1), value(2)]);
    world.assert_whole();
    world.check.audited(id(1), slot(1), slot(2), &[value(1)]);
    world.assert_broken(Invariant::ChosenStable);
    let mut world = World::new();
    world.choose(1, slot(1));
    world.check.loaded(id(1), slot(1), &[value(7)]);
    world.assert_broken(Invariant::DamageNamed);
}

/// One of the two that hold it is gone: the other is in every prepare quorum of those left. With
/// both gone from the disks, a prepare quorum knows nothing of it.
#[test]
fn a_chosen_value_that_is_on_no_disk_of_a_prepare_quorum_is_seen() {
    let mut world = World::new();
    world.choose(1, slot(1));
    world.check.disk_struck(id(1), Harm::Damage);
    world.check.storage_failed(id(1), &corrupt());
    world.assert_whole();
    world.check.replica(id(2)).held = Held::default();
    world.check.require_stable("a test");
    world.assert_broken(Invariant::ChosenStable);
}

#[test]
fn every_fact_that_a_recovery_drops_is_seen() {
    let facts = [
        Write::Chosen { slot: slot(1), value: value(1) },
        Write::Peer { peer: id(3), incarnation: Incarnation::new(4, 4) },
        Write::Trimmed(Slot::ZERO.next()),
        Write::Refused { by: id(3), remembered: Incarnation::new(9, 9) },
    ];
    for fact in facts {
        let mut world = World::new();
        world.choose(1, slot(1));
        world.check.applied(id(3), slot(1), &value(1));
        world.check.replica(id(3)).snapshot = slot(1);
        world.write_durably(3, fact.clone());
        world.check.replica(id(3)).snapshot = Slot::ZERO;
        world.assert_whole();
        let recovered = world.recovered(3, 2);
        world.recover(3, &recovered);
        world.assert_broken(Invariant::RecoveryExact);
    }
    let mut world = World::new();
    world.choose_value(1, slot(1), &value_at(1, 50));
    let mut recovered = world.recovered(1, 2);
    recovered.promised = Some(ballot(1, 1));
    recovered.votes =
        vec![RecoveredVote { slot: slot(1), ballot: ballot(1, 1), value: value_at(1, 50) }];
    recovered.clock = LogClock::from_millis(49);
    world.recover(1, &recovered);
    world.assert_broken(Invariant::RecoveryExact);
}

#[test]
fn only_a_disk_that_lied_and_lost_something_is_forgetful() {
    let mut world = World::new();
    world.choose(1, slot(1));
    let empty = world.recovered(1, 2);
    let whole = Recovered {
        promised: Some(ballot(1, 1)),
        votes: vec![RecoveredVote { slot: slot(1), ballot: ballot(1, 1), value: value(1) }],
        ..empty.clone()
    };
    assert!(!world.check.forgets(id(1), &empty), "it never lied");
    world.check.disk_struck(id(1), Harm::Amnesia);
    assert!(world.check.forgets(id(1), &empty));
    assert!(!world.check.forgets(id(1), &whole));
    let older = Recovered { incarnation: Incarnation::new(1, 5), ..whole.clone() };
    assert!(world.check.forgets(id(1), &older), "its life is lost");
    world.recover(1, &whole);
    assert!(!world.check.forgets(id(1), &empty), "it did not lie since");
    world.assert_whole();
    world.check.left_off(id(1));
    world.assert_whole();
}

/// What an old copy says counts for nothing, and what its owner promised before stays promised.
#[test]
fn a_copy_of_an_earlier_life_counts_for_nothing() {
    let mut world = World::new();
    for peer in [1, 3] {
        assert!(!world.check.is_known(id(2)));
        let incarnation = Incarnation::new(1, 0);
        world.write_durably(peer, Write::Peer { peer: id(2), incarnation });
    }
    assert!(world.check.is_known(id(2)));
    let b = ballot(1, 1);
    world.promise(&[1, 2], b);
    world.submit(1, slot(1), b);
    world.check.rolled_back(id(2));
    let recovered = world.recovered(2, 1);
    world.recover(2, &recovered);
    world.accept(b, slot(1), &value(1));
    world.vote(1, slot(1), b, &value(1));
    world.vote(2, slot(1), b, &value(1));
    world.assert_whole();
    assert_eq!(world.check.chosen(slot(1)), None, "one vote does not choose");
    world.vote(3, slot(1), b, &value(1));
    assert_eq!(world.check.chosen(slot(1)), Some(&value(1)));
    world.assert_whole();
}
