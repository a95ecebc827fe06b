//! Changes of the membership: the rules M1 to M10 of docs/protocol.md §4, each quoted word for word and
//! checked on one replica.

use std::sync::Arc;

use paxos_core::ballot::Ballot;
use paxos_core::config::Config;
use paxos_core::durable::Write;
use paxos_core::ids::{Epoch, GroupId, LogClock, ReplicaId, Slot};
use paxos_core::membership::{Change, ChangeError, Member, Membership};
use paxos_core::message::{
    Accept, Body, Confirm, Confirmed, Connectivity, Fetched, Message, Prepare, PromiseEntry,
    Removed, SlotState,
};
use paxos_core::output::{Halt, NotProposed, Recipients, ReconfigureError, Role};
use paxos_core::quorum::QuorumRule;
use paxos_core::snapshot::{Governs, ImageDigest, SnapshotMeta};
use paxos_core::value::Value;

use crate::bed::{Bed, accepted, ballot, blank, command, id, promise, remembered, slot, value};

fn member(number: u16) -> Member {
    Member::new(id(number))
}

/// A first membership with a window of eight slots.
fn first(voters: &[u16], observers: &[u16]) -> Membership {
    let members = |ids: &[u16]| ids.iter().copied().map(member).collect();
    let rule = QuorumRule::Majority;
    Membership::new(Epoch::FIRST, members(voters), members(observers), rule, 8).unwrap()
}

fn set(voters: &[u16], observers: &[u16]) -> Change {
    let members = |ids: &[u16]| ids.iter().copied().map(member).collect();
    Change::Set {
        voters: members(voters),
        observers: members(observers),
        rule: QuorumRule::Majority,
    }
}

/// Replica 1, which leads voters 1 to 3 with 4 to 6 observing.
fn leader() -> (Bed, Ballot) {
    let mut bed = Bed::start(blank(1, &first(&[1, 2, 3], &[4, 5, 6])), Config::default());
    let own = bed.lead(&[2]);
    bed.sync();
    bed.hear(&[2, 3, 4, 5, 6], |_, _| {});
    bed.take_sent();
    (bed, own)
}

fn change(bed: &mut Bed, change: Change) -> Result<Slot, ReconfigureError> {
    let proposed = bed.replica.reconfigure(change, bed.now)?;
    bed.drain();
    Ok(proposed.slot)
}

/// These replicas accept what this leader proposed in these slots.
fn accept_from(bed: &mut Bed, own: Ballot, by: &[u16], first: u64, last: u64) {
    bed.sync();
    for peer in by {
        bed.receive(id(*peer), accepted(own, first, last));
    }
    bed.sync();
}

/// These replicas say that their disks know the prefix up to here.
fn hold(bed: &mut Bed, by: &[u16], held: u64) {
    bed.pass(Config::default().heartbeat_interval);
    bed.sync();
    bed.hear(by, |_, heartbeat| heartbeat.held = slot(held));
}

fn prepared(bed: &Bed) -> Vec<(ReplicaId, Prepare)> {
    let prepares = bed.sent.iter().filter_map(|(to, body)| match (to, body) {
        (Recipients::One(to), Body::Prepare(prepare)) => Some((*to, *prepare)),
        _ => None,
    });
    prepares.collect()
}

fn is_peer(bed: &Bed, number: u16) -> bool {
    bed.replica.peers().contains(&id(number))
}

/// **M1** A membership chosen in slot `i` governs from slot `i + α` on, if its epoch follows that of the
/// newest one chosen before it, which governs slot `i`, and its window and leases are the same. Otherwise
/// it changes nothing.
///
/// p16: A membership took effect when it was applied, so that two replicas used different ones (etcd).
#[test]
fn m1_p16_a_membership_governs_alpha_slots_after_its_own() {
    let base = first(&[1, 2, 3], &[]);
    let second = Arc::new(base.changed(Change::AddObserver(member(4))).unwrap());
    let rival = Arc::new(base.changed(Change::AddObserver(member(5))).unwrap());
    let skips = Arc::new(second.changed(Change::AddObserver(member(6))).unwrap());
    let rule = QuorumRule::Majority;
    let voters = (1..=3).map(member).collect();
    let wider = Membership::new(Epoch::new(2), voters, Vec::new(), rule, 9).unwrap();
    let mut bed = Bed::new(2, 3);
    let own = ballot(1, 1);
    let values: Vec<_> = [&skips, &Arc::new(wider), &second, &rival]
        .map(|membership| Value::Membership(membership.clone()))
        .into();
    bed.receive(id(1), Accept { ballot: own, committed: slot(4), first: slot(1), values });
    bed.sync();
    let governs: Vec<_> = bed.disk.iter().filter(|w| matches!(w, Write::Governs { .. })).collect();
    assert_eq!(governs, [&Write::Governs { from: slot(11), membership: second }]);
    assert_eq!(bed.replica.membership().epoch(), Epoch::new(2));
    assert!(is_peer(&bed, 4) && !is_peer(&bed, 5) && !is_peer(&bed, 6));
}

/// A snapshot of a slot says who governs the slots above it, as far as the slots in it tell.
#[test]
fn m1_a_snapshot_says_who_governs_above_it() {
    let (mut bed, own) = leader();
    change(&mut bed, Change::Remove(id(6))).unwrap();
    accept_from(&mut bed, own, &[2], 1, 1);
    accept_from(&mut bed, own, &[2], 2, 8);
    let above = |bed: &Bed, at: u64| {
        let governs = bed.replica.governs_above(slot(at)).unwrap().into_iter();
        governs.map(|g| (g.from.number(), g.membership.epoch().number())).collect::<Vec<_>>()
    };
    assert_eq!(above(&bed, 0), [(1, 1)]);
    assert_eq!(above(&bed, 1), [(1, 1), (9, 2)]);
    assert_eq!(above(&bed, 7), [(1, 1), (9, 2)]);
    assert_eq!(above(&bed, 8), [(9, 2)]);
    // Another replica starts with it, and knows who governs.
    let mut recovered = blank(2, &first(&[1, 2, 3], &[4, 5, 6]));
    recovered.snapshot = Some(SnapshotMeta {
        group: GroupId::default(),
        slot: slot(1),
        clock: LogClock::default(),
        governs: bed.replica.governs_above(slot(1)).unwrap(),
        bytes: 0,
        digest: ImageDigest::default(),
    });
    let other = Bed::start(recovered, Config::default());
    assert_eq!(other.replica.membership().epoch(), Epoch::new(2));
}

/// What is said of a snapshot of this slot, when these memberships govern after it.
fn meta(at: u64, governs: &[(u64, &Membership)]) -> SnapshotMeta {
    let says = |(from, membership): &(u64, &Membership)| {
        let membership = (*membership).clone();
        Governs { from: slot(*from), membership }
    };
    SnapshotMeta {
        group: GroupId::default(),
        slot: slot(at),
        clock: LogClock::default(),
        governs: governs.iter().map(says).collect(),
        bytes: 0,
        digest: ImageDigest::default(),
    }
}

/// p17: A snapshot or a restart brought back an older membership (`NuRaft` 186, etcd).
#[test]
fn m7_p17_a_snapshot_brings_its_memberships_and_they_go_on_record_first() {
    let base = first(&[1, 2, 3], &[4, 5, 6]);
    let second = base.changed(Change::Remove(id(3))).unwrap();
    let third = second.changed(set(&[1, 2, 4], &[7])).unwrap();
    let fourth = third.changed(Change::Remove(id(1))).unwrap();
    let snapshot = meta(40, &[(30, &third), (47, &fourth)]);
    let mut bed = Bed::start(blank(2, &base), Config::default());
    bed.sync();
    bed.disk.clear();
    assert_eq!(bed.replica.install(&snapshot, bed.now), Ok(()));
    bed.drain();
    let governs = |from, membership: &Membership| {
        let membership = Arc::new(membership.clone());
        Write::Governs { from: slot(from), membership }
    };
    let jump = [
        governs(30, &third),
        governs(47, &fourth),
        Write::Trimmed(slot(40)),
        Write::Committed(slot(40)),
    ];
    bed.sync();
    assert_eq!(bed.disk, jump);
    // Those of the two that govern open slots are its peers, and nobody whom the log knew before.
    assert_eq!(bed.replica.peers(), [id(1), id(4), id(7)]);
    assert_eq!(bed.replica.membership(), &fourth);
    assert_eq!(bed.replica.governs_above(slot(40)), Some(snapshot.governs.clone()));
    // However much of the write is there, the next life knows the same.
    for torn in 0..=jump.len() {
        let mut recovered = remembered(2, &base, &jump[..torn]);
        recovered.snapshot = Some(snapshot.clone());
        let again = Bed::start(recovered, Config::default());
        assert_eq!(again.committed(), slot(40), "after {torn}");
        assert_eq!(again.replica.peers(), [id(1), id(4), id(7)], "after {torn}");
        assert_eq!(again.replica.governs_above(slot(40)), Some(snapshot.governs.clone()));
        let known = again.disk.iter().filter(|w| matches!(w, Write::Governs { .. })).count();
        assert_eq!(known, 2_usize.saturating_sub(torn), "it records what the log lacks");
    }
}

/// It is behind every log, and was formatted with a membership that it never saw there.
#[test]
fn m8_whoever_joins_may_begin_with_a_snapshot() {
    let base = first(&[1, 2, 3], &[]);
    let second = base.changed(Change::AddObserver(member(4))).unwrap();
    let third = second.changed(set(&[1, 2, 3, 4], &[])).unwrap();
    let mut bed = Bed::start(blank(4, &second), Config::default());
    assert_eq!(bed.replica.governs_above(slot(0)), None, "it makes no snapshot");
    // One that was made before anybody knew of it leaves it joining.
    assert_eq!(bed.replica.install(&meta(20, &[(1, &base)]), bed.now), Ok(()));
    bed.drain();
    assert_eq!(bed.replica.membership(), &second);
    assert_eq!(bed.replica.role(), Role::Observer);
    // The next names it, and a voter in it.
    let governs = [(22, &second), (35, &third)];
    assert_eq!(bed.replica.install(&meta(30, &governs), bed.now), Ok(()));
    bed.drain();
    bed.sync();
    assert_eq!(bed.replica.membership(), &third);
    assert!(bed.replica.governs_above(slot(30)).is_some());
    bed.campaign(&[1, 2, 3]);
}

/// The sitting leader jumps over slots in which others were let in, and asks them.
#[test]
fn m2_a_leader_that_installs_a_snapshot_asks_the_voters_it_names() {
    let mut bed = Bed::start(blank(1, &first(&[1, 2, 3], &[4, 5, 6])), Config::default());
    let own = bed.campaign(&[2, 3]);
    bed.receive(id(2), promise(own, 1, slot(20), Vec::new()));
    bed.sync();
    assert_eq!(bed.replica.role(), Role::Leader, "it fetches what was reported");
    let second = bed.replica.membership().changed(set(&[1, 4, 5], &[2, 3])).unwrap();
    bed.take_sent();
    assert_eq!(bed.replica.install(&meta(20, &[(9, &second)]), bed.now), Ok(()));
    bed.drain();
    bed.sync();
    let asked = Prepare { ballot: own, from: slot(21) };
    assert_eq!(prepared(&bed), [(id(4), asked), (id(5), asked)]);
    let early = bed.replica.propose(vec![command("a")], LogClock::default(), bed.now).err();
    assert_eq!(early.unwrap().reason, NotProposed::Busy, "they may have chosen something");
    bed.receive(id(4), promise(own, 21, slot(20), Vec::new()));
    assert_eq!(bed.propose("a").slot, slot(21));
}

/// **M2** A leader proposes in a slot only once its committed prefix reaches to α slots before it, and a
/// prepare quorum of the membership that governs it has promised the leader's ballot. It takes slots in
/// rising order.
#[test]
fn m2_the_sitting_leader_asks_new_voters_before_it_uses_them() {
    let (mut bed, own) = leader();
    assert_eq!(change(&mut bed, set(&[1, 4, 5], &[2, 3])), Ok(slot(1)));
    assert_eq!(prepared(&bed), [], "nobody knows yet whether the change is chosen");
    bed.take_sent();
    accept_from(&mut bed, own, &[2], 1, 1);
    let asked = Prepare { ballot: own, from: slot(2) };
    assert_eq!(prepared(&bed), [(id(4), asked), (id(5), asked)]);
    accept_from(&mut bed, own, &[2], 2, 8);
    assert_eq!(bed.committed(), slot(8));
    bed.take_sent();
    let refused = bed.replica.propose(vec![command("a")], LogClock::default(), bed.now);
    assert_eq!(refused.unwrap_err().reason, NotProposed::Busy, "4 and 5 have not promised");
    // 2 and 3 were asked once; that they promise again makes no quorum of 1, 4 and 5.
    for peer in [2, 3] {
        bed.receive(id(peer), promise(own, 9, slot(8), Vec::new()));
    }
    assert!(!bed.has_sent("Accept"));
    // 4 accepted something there from a leader that nobody else remembers: it is adopted, and the gap
    // before it filled.
    let state = SlotState::Accepted(ballot(0, 5), value("old"));
    let entries = vec![PromiseEntry { slot: slot(10), state }];
    bed.receive(id(4), promise(own, 9, slot(8), entries));
    let proposed: Vec<_> = bed.accepts().into_iter().map(|a| (a.first, a.values)).collect();
    assert_eq!(proposed, [(slot(9), vec![Value::Noop, value("old")])]);
    assert_eq!(bed.propose("a").slot, slot(11));
}

/// What those voters report as committed is fetched, and nothing is proposed in it.
#[test]
fn m2_a_late_promise_may_report_a_longer_prefix() {
    let (mut bed, own) = leader();
    change(&mut bed, set(&[1, 4, 5], &[2, 3])).unwrap();
    accept_from(&mut bed, own, &[2], 1, 1);
    accept_from(&mut bed, own, &[2], 2, 8);
    bed.take_sent();
    bed.receive(id(4), promise(own, 9, slot(10), Vec::new()));
    let refused = bed.replica.propose(vec![command("a")], LogClock::default(), bed.now);
    assert_eq!(refused.unwrap_err().reason, NotProposed::Busy);
    bed.pass(Config::default().heartbeat_interval);
    assert!(bed.has_sent("Fetch") && !bed.has_sent("Accept"));
    let values = vec![value("x"), value("y")];
    let (committed, trimmed) = (slot(10), Slot::ZERO);
    bed.receive(id(4), Fetched { first: slot(9), values, committed, trimmed });
    assert_eq!((bed.role(), bed.committed()), (Role::Leader, slot(10)), "nobody overtook it");
    assert_eq!(bed.propose("a").slot, slot(11));
}

/// **M3** An Accepted counts for a slot if its sender votes in the membership that governs that slot,
/// whatever either side knows of other memberships.
#[test]
fn m3_votes_count_by_the_membership_of_their_slot() {
    let (mut bed, own) = leader();
    change(&mut bed, set(&[1, 4, 5], &[2, 3])).unwrap();
    accept_from(&mut bed, own, &[4, 5], 1, 1);
    assert_eq!(bed.committed(), Slot::ZERO, "4 and 5 do not vote in slot 1");
    accept_from(&mut bed, own, &[3], 1, 1);
    assert_eq!(bed.committed(), slot(1));
    accept_from(&mut bed, own, &[2], 2, 8);
    bed.receive(id(5), promise(own, 2, slot(8), Vec::new()));
    bed.propose("a");
    accept_from(&mut bed, own, &[2, 3], 9, 9);
    assert_eq!(bed.committed(), slot(8), "2 and 3 do not vote in slot 9");
    // 4 knows no membership but the first.
    let origin = paxos_core::message::Origin {
        epoch: Epoch::FIRST,
        membership: first(&[1, 2, 3], &[4, 5, 6]).digest(),
        ..bed.origin_of(id(4))
    };
    let body = accepted(own, 9, 9).into();
    bed.replica.handle_message(id(4), Message { origin, body }, bed.now);
    assert_eq!(bed.committed(), slot(9));
}

/// **M4** A leader proposes a change only in a slot that the newest membership governs, while no other
/// change is in flight, no earlier membership is needed any more (M6), each new voter has caught up (M9),
/// and the leader reaches quorums of those who will vote.
#[test]
fn m4_one_change_at_a_time() {
    let (mut bed, own) = leader();
    assert_eq!(
        Bed::new(2, 3).replica.reconfigure(Change::Remove(id(3)), bed.now),
        Err(ReconfigureError::NotLeader { hint: None })
    );
    let unknown = ChangeError::Unknown(id(9));
    assert_eq!(change(&mut bed, Change::Remove(id(9))), Err(unknown.into()));
    assert_eq!(change(&mut bed, set(&[1, 2, 9], &[])), Err(ReconfigureError::Behind(id(9))));
    change(&mut bed, Change::Remove(id(6))).unwrap();
    let under_way = |epoch| Err(ReconfigureError::UnderWay { epoch: Epoch::new(epoch) });
    assert_eq!(change(&mut bed, Change::Remove(id(5))), under_way(1), "it is in flight");
    accept_from(&mut bed, own, &[2], 1, 1);
    assert_eq!(change(&mut bed, Change::Remove(id(5))), under_way(2), "its slots are not chosen");
    accept_from(&mut bed, own, &[2], 2, 8);
    assert_eq!(change(&mut bed, Change::Remove(id(5))), under_way(2), "the first is needed");
    hold(&mut bed, &[2, 3, 4, 5], 8);
    hold(&mut bed, &[2, 3, 4, 5], 8);
    let lags = (10..=18).fold(0, |_, number| {
        assert_eq!(bed.propose("a").slot, slot(number - 1));
        accept_from(&mut bed, own, &[2], number - 1, number - 1);
        number - 1
    });
    hold(&mut bed, &[2, 3, 4, 5], 8);
    hold(&mut bed, &[2, 3, 4], lags);
    bed.hear(&[5], |_, heartbeat| heartbeat.held = slot(8));
    assert_eq!(change(&mut bed, set(&[1, 2, 5], &[])), Err(ReconfigureError::Behind(id(5))));
    assert_eq!(change(&mut bed, set(&[1, 2, 4], &[])), Ok(slot(18)));
}

/// A leader that would not reach those who will vote does not let them vote.
#[test]
fn m4_a_change_that_would_end_the_reign_is_refused() {
    let mut bed = Bed::start(blank(1, &first(&[1, 2, 3, 4], &[])), Config::default());
    bed.lead(&[2, 3]);
    bed.sync();
    let pair = Change::Quorums(QuorumRule::Counts { prepare: 4, accept: 1 });
    assert_eq!(change(&mut bed, pair.clone()), Err(ReconfigureError::Unreachable));
    bed.hear(&[2, 3, 4], |_, _| {});
    assert_eq!(change(&mut bed, pair), Ok(slot(1)));
}

/// One that is chosen behind a gap is in flight too: what follows it unseen would govern nothing.
#[test]
fn m4_a_change_behind_a_gap_is_under_way() {
    let (mut bed, own) = leader();
    bed.propose("a");
    assert_eq!(change(&mut bed, Change::Remove(id(6))), Ok(slot(2)));
    accept_from(&mut bed, own, &[2], 2, 2);
    assert_eq!(bed.committed(), Slot::ZERO, "slot 1 is open");
    let refused = change(&mut bed, Change::Remove(id(5)));
    assert_eq!(refused, Err(ReconfigureError::UnderWay { epoch: Epoch::FIRST }));
    accept_from(&mut bed, own, &[2], 1, 1);
    assert_eq!(bed.replica.membership().epoch(), Epoch::new(2));
}

/// **M5** Once a change is committed, its leader fills the slots before the first that the new membership
/// governs with no-ops.
#[test]
fn m5_the_window_is_filled_in_one_message() {
    let (mut bed, own) = leader();
    change(&mut bed, Change::Remove(id(6))).unwrap();
    bed.take_sent();
    accept_from(&mut bed, own, &[2], 1, 1);
    let filled: Vec<_> = bed.accepts().into_iter().map(|a| (a.first, a.values)).collect();
    assert_eq!(filled, [(slot(2), vec![Value::Noop; 7])]);
    accept_from(&mut bed, own, &[2], 2, 8);
    assert_eq!((bed.committed(), bed.accepts().len()), (slot(8), 1), "and no further");
}

/// **M6** A membership is needed until every slot that it governs is chosen, and an accept quorum of the
/// next one has that prefix on record, durably. Until then its members are peers, and answer. After that
/// they are told that they are removed, and stop; nobody listens to them.
#[test]
fn m6_the_old_membership_is_needed_until_the_new_one_holds_its_slots() {
    let (mut bed, own) = leader();
    change(&mut bed, set(&[1, 2, 4], &[])).unwrap();
    accept_from(&mut bed, own, &[2], 1, 1);
    bed.receive(id(4), promise(own, 2, slot(1), Vec::new()));
    accept_from(&mut bed, own, &[2], 2, 8);
    hold(&mut bed, &[2, 3, 4, 5, 6], 7);
    hold(&mut bed, &[2, 3, 4, 5, 6], 7);
    assert!(is_peer(&bed, 3), "one slot is missing on their disks");
    bed.pass(Config::default().heartbeat_interval);
    bed.sync();
    bed.hear(&[3, 5, 6], |_, heartbeat| heartbeat.held = slot(8));
    hold(&mut bed, &[], 8);
    assert!(is_peer(&bed, 3), "those who leave do not count");
    hold(&mut bed, &[2], 8);
    hold(&mut bed, &[2], 8);
    assert!(!is_peer(&bed, 3) && is_peer(&bed, 4));
    bed.take_sent();
    let outbids = ballot(9, 3);
    bed.receive(id(3), Prepare { ballot: outbids, from: slot(1) });
    let told = Body::Removed(Removed { epoch: Epoch::new(2), from: slot(9) });
    assert_eq!(bed.take_sent(), [(Recipients::One(id(3)), told)]);
    assert_eq!(bed.replica.status().promised, Some(own));
}

/// What is on record is what survives: a prefix that is committed and not recorded is not held.
#[test]
fn m6_held_is_what_the_disk_has_a_record_of() {
    let mut bed = Bed::new(2, 3);
    let own = ballot(1, 1);
    let values = vec![value("a"), value("b")];
    bed.receive(id(1), Accept { ballot: own, committed: slot(2), first: slot(1), values });
    assert_eq!(bed.committed(), slot(2));
    let held = |bed: &mut Bed| {
        bed.take_sent();
        bed.pass(Config::default().heartbeat_interval);
        let beats = bed.sent_of(|b| if let Body::Heartbeat(h) = b { Some(h.held) } else { None });
        beats[0]
    };
    assert_eq!(held(&mut bed), Slot::ZERO);
    bed.sync();
    assert_eq!(held(&mut bed), slot(2));
    let writes = [Write::Committed(slot(2))];
    let mut bed = Bed::start(remembered(2, &first(&[1, 2, 3], &[]), &writes), Config::default());
    assert_eq!(held(&mut bed), slot(2), "a record of an earlier life counts");
}

#[test]
fn m6_whoever_is_removed_stops_and_says_so() {
    let mut bed = Bed::new(2, 3);
    let removed = Removed { epoch: Epoch::new(4), from: slot(70) };
    bed.receive(id(1), Removed { epoch: Epoch::FIRST, ..removed });
    assert_eq!(bed.halted, None, "it is a member of that one");
    bed.receive(id(1), removed);
    assert_eq!(bed.halted, Some(Halt::Removed { epoch: Epoch::new(4), from: slot(70) }));
}

/// It may have been removed before, and be on its way out again: until its slots are held it is needed.
#[test]
fn m6_what_was_said_of_an_earlier_absence_stops_nobody() {
    let first = first(&[1, 2, 3], &[]);
    let mut bed = Bed::start(blank(3, &first), Config::default());
    let second = first.changed(Change::Remove(id(2))).unwrap();
    let third = second.changed(Change::Remove(id(3))).unwrap();
    let change = |membership: &Membership| vec![Value::Membership(Arc::new(membership.clone()))];
    let values = [change(&second), vec![Value::Noop; 7], change(&third)].concat();
    let own = ballot(1, 1);
    bed.receive(id(1), Accept { ballot: own, committed: slot(9), first: slot(1), values });
    bed.sync();
    assert_eq!(bed.replica.membership().epoch(), Epoch::new(3));
    let removed = Removed { epoch: Epoch::new(2), from: slot(9) };
    bed.receive(id(1), removed);
    assert_eq!(bed.halted, None, "that is over");
    bed.receive(id(1), Removed { epoch: Epoch::new(3), from: slot(17) });
    assert_eq!(bed.halted, Some(Halt::Removed { epoch: Epoch::new(3), from: slot(17) }));
}

/// A replica that sees by itself that it is needed no more stops without being told.
#[test]
fn m6_a_removed_replica_stops_when_others_hold_its_slots() {
    let mut bed = Bed::start(blank(3, &first(&[1, 2, 3], &[])), Config::default());
    let next = Arc::new(first(&[1, 2, 3], &[]).changed(Change::Remove(id(3))).unwrap());
    let values = [vec![Value::Membership(next)], vec![Value::Noop; 7]].concat();
    let own = ballot(1, 1);
    bed.receive(id(1), Accept { ballot: own, committed: slot(8), first: slot(1), values });
    bed.sync();
    hold(&mut bed, &[1], 8);
    hold(&mut bed, &[2], 7);
    hold(&mut bed, &[], 0);
    assert_eq!(bed.halted, None, "one of two is no accept quorum");
    hold(&mut bed, &[2], 8);
    hold(&mut bed, &[], 0);
    assert_eq!(bed.halted, Some(Halt::Removed { epoch: Epoch::new(2), from: slot(9) }));
}

/// **M7** From which slot on a membership governs is on record before any record of a committed prefix
/// that includes the membership, and before the slot that holds it is handed to the state machine.
#[test]
fn m7_who_governs_is_on_record_first() {
    let mut bed = Bed::new(2, 3);
    let next = first(&[1, 2, 3], &[]).changed(Change::AddObserver(member(4))).unwrap();
    let next = Value::Membership(Arc::new(next));
    let own = ballot(1, 1);
    let (first_slot, values) = (slot(1), vec![next]);
    bed.receive(id(1), Accept { ballot: own, committed: Slot::ZERO, first: first_slot, values });
    bed.sync();
    bed.receive(id(1), paxos_core::message::Commit { ballot: own, committed: slot(1) });
    assert_eq!(bed.committed(), slot(1));
    assert_eq!(bed.applied, [], "its vote is durable, and who governs is not");
    bed.sync();
    assert_eq!(bed.applied.len(), 1);
    let at = |is: fn(&Write) -> bool| bed.disk.iter().position(is).unwrap();
    let governs = at(|write| matches!(write, Write::Governs { .. }));
    assert!(governs < at(|write| matches!(write, Write::Committed(_))));
    // The next life knows it, even if nothing says that the slot is committed.
    let writes: Vec<_> = bed.disk.drain(..).filter(|w| !matches!(w, Write::Committed(_))).collect();
    let again = Bed::start(remembered(2, &first(&[1, 2, 3], &[]), &writes), Config::default());
    assert_eq!(again.replica.membership().epoch(), Epoch::new(2));
}

/// **M8** A replica campaigns only if it votes in a membership that governs an open slot, and knows which
/// those are.
#[test]
fn m8_whoever_joins_learns_who_governs_before_it_campaigns() {
    let second = first(&[1, 2], &[3]).changed(set(&[1, 2, 3], &[])).unwrap();
    // It is formatted with a membership in which it votes, and has not seen it in the log.
    let mut bed = Bed::start(blank(3, &second), Config::default());
    for _ in 0..40 {
        bed.pass(Config::default().heartbeat_interval);
        bed.hear(&[1, 2], |_, _| {});
    }
    assert_eq!(bed.replica.counters().campaigns, 0);
    let values = vec![Value::Membership(Arc::new(second))];
    let own = ballot(1, 1);
    bed.receive(id(1), Accept { ballot: own, committed: slot(1), first: slot(1), values });
    bed.sync();
    assert_eq!(bed.committed(), slot(1));
    // The first one governs up to slot 8, and nothing says here who votes in it.
    for _ in 0..40 {
        bed.pass(Config::default().heartbeat_interval);
        bed.hear(&[1, 2], |_, _| {});
    }
    assert_eq!(bed.replica.counters().campaigns, 0);
    let values = vec![Value::Noop; 7];
    bed.receive(id(1), Accept { ballot: own, committed: slot(8), first: slot(2), values });
    bed.sync();
    assert_eq!(bed.committed(), slot(8));
    bed.campaign(&[1, 2]);
}

#[test]
fn m8_whoever_observes_does_not_campaign() {
    let mut bed = Bed::start(blank(4, &first(&[1, 2, 3], &[4])), Config::default());
    for _ in 0..40 {
        bed.pass(Config::default().heartbeat_interval);
        bed.hear(&[1, 2, 3], |_, _| {});
    }
    assert_eq!(bed.replica.counters().campaigns, 0);
}

/// **M9** Who is to vote observes first. The leader proposes that it votes once it is connected and its
/// disk knows a prefix within a window of what the leader's own knows.
#[test]
fn m9_whoever_has_caught_up_is_promoted() {
    let mut bed = Bed::start(blank(1, &first(&[1, 2, 3], &[])), Config::default());
    let own = bed.lead(&[2]);
    bed.sync();
    for number in 1..=20 {
        bed.propose("a");
        accept_from(&mut bed, own, &[2], number, number);
    }
    assert_eq!(change(&mut bed, Change::Replace { old: id(3), new: member(4) }), Ok(slot(21)));
    accept_from(&mut bed, own, &[2], 21, 21);
    accept_from(&mut bed, own, &[2], 22, 28);
    assert_eq!(bed.replica.membership().voter_index(id(4)), None, "it observes");
    hold(&mut bed, &[2, 3], 28);
    hold(&mut bed, &[2, 3], 28);
    bed.hear(&[4], |_, heartbeat| heartbeat.held = slot(19));
    hold(&mut bed, &[2, 3], 28);
    assert_eq!(bed.replica.counters().promotions, 0);
    bed.hear(&[4], |_, heartbeat| heartbeat.held = slot(20));
    hold(&mut bed, &[2, 3], 28);
    assert_eq!(bed.replica.counters().promotions, 1);
    accept_from(&mut bed, own, &[2], 29, 29);
    let voters = bed.replica.membership().voters().iter().map(|voter| voter.id);
    assert_eq!(voters.collect::<Vec<_>>(), [id(1), id(2), id(4)]);
    assert_eq!(bed.replica.membership().joining(), []);
}

/// **M10** A leader that does not vote in the next slot makes way for a voter that does, and leads until
/// then.
#[test]
fn m10_a_removed_leader_finishes_and_makes_way() {
    let (mut bed, own) = leader();
    let fit = |_, heartbeat: &mut paxos_core::message::Heartbeat| {
        heartbeat.connectivity = Connectivity::Quorum;
        heartbeat.committed = slot(8);
    };
    change(&mut bed, Change::Remove(id(1))).unwrap();
    accept_from(&mut bed, own, &[2], 1, 1);
    bed.pass(Config::default().heartbeat_interval);
    bed.hear(&[2, 3], fit);
    assert_eq!(bed.replica.transferring(), None, "it has slots of its own left");
    accept_from(&mut bed, own, &[2], 2, 8);
    // It votes no more, and its vote counts no more.
    bed.receive(id(3), promise(own, 2, slot(8), Vec::new()));
    bed.receive(id(2), promise(own, 9, slot(8), Vec::new()));
    bed.propose("a");
    accept_from(&mut bed, own, &[2], 9, 9);
    assert_eq!(bed.committed(), slot(8), "one of two is no quorum");
    accept_from(&mut bed, own, &[3], 9, 9);
    assert_eq!(bed.committed(), slot(9));
    bed.take_sent();
    bed.pass(Config::default().heartbeat_interval);
    assert!(bed.replica.transferring().is_some() && bed.has_sent("Transfer"));
}

/// Those whom it leads listen to it until it has made way, whatever their disks hold.
#[test]
fn m10_a_removed_leader_is_heard_while_it_makes_way() {
    let mut bed = Bed::start(blank(2, &first(&[1, 2, 3], &[])), Config::default());
    let own = ballot(1, 1);
    let next = first(&[1, 2, 3], &[]).changed(Change::Remove(id(1))).unwrap();
    let mut values = vec![Value::Membership(Arc::new(next))];
    values.resize(8, Value::Noop);
    bed.receive(id(1), Accept { ballot: own, committed: slot(8), first: slot(1), values });
    bed.sync();
    assert_eq!(bed.committed(), slot(8));
    let leads = |peer: u16, heartbeat: &mut paxos_core::message::Heartbeat| {
        heartbeat.held = slot(8);
        heartbeat.leader = Some(own);
        heartbeat.connectivity = Connectivity::Quorum;
        heartbeat.committed = if peer == 1 { slot(8) } else { Slot::ZERO };
    };
    for _ in 0..3 {
        bed.pass(Config::default().heartbeat_interval);
        bed.sync();
        bed.hear(&[1, 3], leads);
    }
    assert!(is_peer(&bed, 1), "it leads on");
    bed.take_sent();
    bed.receive(
        id(1),
        Accept { ballot: own, committed: slot(8), first: slot(9), values: vec![Value::Noop] },
    );
    bed.sync();
    assert!(bed.has_sent("Accepted"));
    // It is gone.
    for _ in 0..20 {
        bed.pass(Config::default().heartbeat_interval);
        bed.sync();
        bed.hear(&[3], |_, heartbeat| heartbeat.held = slot(8));
    }
    assert!(!is_peer(&bed, 1));
}

/// The voters of the slot after the read point confirm it, and no others.
#[test]
fn a_read_point_is_confirmed_by_those_who_govern_the_next_slot() {
    let (mut bed, own) = leader();
    change(&mut bed, set(&[1, 4, 5], &[2, 3])).unwrap();
    accept_from(&mut bed, own, &[2], 1, 1);
    accept_from(&mut bed, own, &[2], 2, 8);
    let ticket = bed.replica.read(bed.now).unwrap();
    bed.take_sent();
    bed.drain();
    assert!(!bed.has_sent("Confirm"), "4 and 5 may know of more");
    bed.receive(id(4), promise(own, 2, slot(8), Vec::new()));
    let asked = bed.sent_of(|body| if let Body::Confirm(c) = body { Some(*c) } else { None });
    assert_eq!(asked, [Confirm { ballot: own, round: 1 }]);
    let confirmed = Confirmed { ballot: own, round: 1 };
    bed.receive(id(2), confirmed);
    bed.receive(id(3), confirmed);
    assert_eq!(bed.reads_ready, []);
    bed.receive(id(5), confirmed);
    assert_eq!(bed.reads_ready, [(ticket, slot(8))]);
}

/// While the new voters govern later slots alone, they confirm nothing.
#[test]
fn a_read_point_below_the_boundary_is_confirmed_by_the_old_voters() {
    let (mut bed, own) = leader();
    change(&mut bed, set(&[1, 4, 5], &[2, 3])).unwrap();
    accept_from(&mut bed, own, &[2], 1, 1);
    let ticket = bed.replica.read(bed.now).unwrap();
    bed.drain();
    let confirmed = Confirmed { ballot: own, round: 1 };
    bed.receive(id(4), confirmed);
    bed.receive(id(5), confirmed);
    assert_eq!(bed.reads_ready, []);
    bed.receive(id(3), confirmed);
    assert_eq!(bed.reads_ready, [(ticket, slot(1))]);
}

/// A replica that is not known here yet, and knows a later membership, is answered: the side that counts
/// decides who counts.
#[test]
fn a_stranger_of_a_later_epoch_is_answered() {
    let mut bed = Bed::new(2, 3);
    let body: Body = Prepare { ballot: ballot(3, 7), from: slot(1) }.into();
    let origin = paxos_core::message::Origin { epoch: Epoch::new(2), ..bed.origin_of(id(7)) };
    bed.replica.handle_message(id(7), Message { origin, body: body.clone() }, bed.now);
    bed.drain();
    bed.sync();
    assert_eq!(bed.promises().len(), 1);
    let origin = paxos_core::message::Origin { epoch: Epoch::FIRST, ..bed.origin_of(id(8)) };
    bed.replica.handle_message(id(8), Message { origin, body }, bed.now);
    bed.drain();
    assert_eq!(bed.replica.counters().dropped_foreign, 1);
}

/// While a change is open the leader reaches quorums of both memberships, or says that it does not, and
/// makes way.
#[test]
fn e2_a_leader_that_does_not_reach_the_voters_to_come_steps_down() {
    let (mut bed, own) = leader();
    change(&mut bed, set(&[1, 4, 5], &[2, 3])).unwrap();
    accept_from(&mut bed, own, &[2], 1, 1);
    assert_eq!(bed.replica.status().connectivity, Connectivity::Quorum);
    let config = Config::default();
    let mut beats = 0;
    while bed.replica.role() == Role::Leader {
        assert!(beats < 20, "it stays");
        bed.pass(config.heartbeat_interval);
        // Those to come are silent; the others are all a quorum before.
        bed.hear(&[2, 3, 6], |_, _| {});
        beats += 1;
    }
    assert!(beats > 1);
    assert_eq!(bed.replica.status().connectivity, Connectivity::Partial);
    assert_eq!(bed.committed(), slot(1), "nothing else stopped it");
}
