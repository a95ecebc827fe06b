//! The observer has teeth for snapshots.

use super::*;
use crate::snapshot::{Governs, ImageDigest, SnapshotMeta};

fn meta(at: u64) -> SnapshotMeta {
    SnapshotMeta {
        group: GroupId::new(1),
        slot: slot(at),
        clock: LogClock::default(),
        governs: vec![Governs {
            from: Slot::FIRST,
            membership: Membership::voters_only((1..=3).map(id)).unwrap(),
        }],
        bytes: 8,
        digest: ImageDigest(u128::from(at)),
    }
}

/// Slots 1 to 3 are chosen, and replica 1 has applied two.
fn world() -> World {
    let mut world = World::new();
    (1..=3).for_each(|n| world.choose(n, slot(n)));
    (1..=2).for_each(|n| world.check.applied(id(1), slot(n), &value(n)));
    world.assert_whole();
    world
}

#[test]
fn a_trim_without_a_durable_snapshot_is_seen() {
    let mut world = world();
    world.check.snapshot_made(id(1), &meta(1));
    world.check.snapshot_kept(id(1), &meta(1));
    world.write_durably(1, Write::Trimmed(slot(1)));
    world.assert_whole();
    world.write_durably(1, Write::Trimmed(slot(2)));
    world.assert_broken(Invariant::SnapshotFirst);
}

#[test]
fn a_snapshot_of_what_is_not_applied_or_not_chosen_is_seen() {
    let mut early = world();
    early.check.snapshot_made(id(1), &meta(3));
    early.assert_broken(Invariant::SnapshotFirst);
    let mut world = world();
    world.check.snapshot_kept(id(2), &meta(3));
    world.assert_whole();
    world.check.snapshot_kept(id(2), &meta(4));
    world.assert_broken(Invariant::CommittedPrefix);
}

#[test]
fn images_of_one_slot_that_differ_are_seen() {
    let others = [
        SnapshotMeta { digest: ImageDigest(7), ..meta(2) },
        SnapshotMeta { bytes: 9, ..meta(2) },
        SnapshotMeta { clock: LogClock::from_millis(1), ..meta(2) },
    ];
    for other in others {
        let mut world = world();
        world.check.snapshot_made(id(1), &meta(2));
        world.check.snapshot_kept(id(2), &meta(2));
        world.assert_whole();
        world.check.snapshot_kept(id(3), &other);
        world.assert_broken(Invariant::SnapshotFirst);
    }
    let mut world = World::new();
    world.choose_value(1, slot(1), &value_at(1, 50));
    world.check.snapshot_kept(id(2), &meta(1));
    world.assert_broken(Invariant::ClockMonotonic);
}

#[test]
fn an_install_that_is_not_durable_goes_back_or_brings_another_state_is_seen() {
    let state = |world: &World| world.check.state_at(slot(2));
    let mut whole = world();
    whole.check.snapshot_kept(id(2), &meta(2));
    whole.check.installed(id(2), slot(2), Some(state(&whole)));
    whole.check.applied(id(2), slot(3), &value(3));
    whole.assert_whole();
    whole.check.installed(id(2), slot(2), Some(state(&whole)));
    whole.assert_broken(Invariant::AppliedInOrder);

    let mut early = world();
    early.check.installed(id(2), slot(2), Some(state(&early)));
    early.assert_broken(Invariant::SnapshotFirst);

    let mut other = world();
    other.check.snapshot_kept(id(2), &meta(2));
    other.check.installed(id(2), slot(2), Some(77));
    other.assert_broken(Invariant::EqualState);

    let mut restored = world();
    restored.check.restored(id(2), slot(2), 77);
    restored.assert_broken(Invariant::EqualState);
}

#[test]
fn a_start_without_the_snapshot_or_without_what_was_trimmed_is_seen() {
    let recover = |snapshot: Option<u64>, trimmed| {
        let mut world = world();
        world.check.snapshot_kept(id(3), &meta(2));
        let mut recovered = world.recovered(3, 2);
        recovered.snapshot = snapshot.map(meta);
        recovered.trimmed = slot(trimmed);
        world.recover(3, &recovered);
        world
    };
    recover(Some(2), 2).assert_whole();
    recover(Some(1), 0).assert_broken(Invariant::RecoveryExact);
    recover(None, 0).assert_broken(Invariant::RecoveryExact);
    recover(Some(2), 3).assert_broken(Invariant::SnapshotFirst);
    recover(Some(9), 2).assert_broken(Invariant::CommittedPrefix);
}

/// What a snapshot includes is not missed among the votes, and counts where others ask who holds it.
#[test]
fn a_snapshot_stands_for_votes() {
    let mut world = world();
    world.check.disk_struck(id(1), Harm::Damage);
    world.check.snapshot_kept(id(3), &meta(3));
    world.check.replica(id(2)).held = Held::default();
    world.check.require_stable("a test");
    world.assert_whole();
    let mut recovered = world.recovered(1, 2);
    recovered.promised = Some(ballot(1, 1));
    recovered.snapshot = Some(meta(3));
    recovered.trimmed = slot(3);
    world.recover(1, &recovered);
    world.assert_whole();
}

/// A disk that lied may have lost a snapshot.
#[test]
fn a_snapshot_that_a_lie_took_is_missed() {
    let mut world = world();
    world.check.snapshot_kept(id(3), &meta(2));
    world.check.disk_struck(id(3), Harm::Amnesia);
    let mut recovered = world.recovered(3, 2);
    assert!(world.check.forgets(id(3), &recovered));
    recovered.snapshot = Some(meta(2));
    assert!(!world.check.forgets(id(3), &recovered));
}

#[test]
fn a_snapshot_that_names_others_than_govern_is_seen() {
    let mut wrong = world();
    let mut meta = meta(1);
    meta.governs[0].membership = Membership::voters_only((1..=2).map(id)).unwrap();
    wrong.check.snapshot_made(id(1), &meta);
    wrong.assert_broken(Invariant::SnapshotFirst);
}
