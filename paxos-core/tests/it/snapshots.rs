//! Snapshots: the rules of docs/protocol.md §14, one by one, each quoted word for word, and the stories
//! of others that they are for.

use std::time::Duration;

use paxos_core::config::Config;
use paxos_core::durable::Write;
use paxos_core::ids::{GroupId, LogClock, Slot, Time};
use paxos_core::message::{
    Accept, Body, Commit, Fetch, Fetched, Message, Prepare, PromiseEntry, SlotState,
};
use paxos_core::output::{InstallError, Recipients, RecoverError, Role, TrimError};
use paxos_core::port::Loaded;
use paxos_core::replica::Replica;
use paxos_core::snapshot::SnapshotMeta;
use paxos_core::value::{Batch, Value};

use crate::bed::{
    Bed, accept, accepted, ballot, blank, command, id, members, promise, remembered, slot,
    snapshot, text, value,
};

fn meta(at: u64) -> SnapshotMeta {
    snapshot(at, &members(3, 8))
}

/// One of three, with these in its first slots, committed and applied.
fn holding(texts: &[&str]) -> Bed {
    let mut bed = Bed::new(1, 3);
    bed.receive(id(2), accept(ballot(1, 2), 1, texts, 0));
    let committed = slot(texts.len() as u64);
    bed.receive(id(2), Commit { ballot: ballot(1, 2), committed });
    bed.sync();
    assert_eq!(bed.replica.status().applied, committed);
    bed.take_sent();
    bed
}

fn install(bed: &mut Bed, meta: &SnapshotMeta) -> Result<(), InstallError> {
    let accepts = bed.replica.accepts_snapshot(meta);
    let result = bed.replica.install(meta, bed.now);
    assert_eq!(accepts, result, "it says beforehand what it takes");
    bed.drain();
    result
}

/// That its log is gone up to there.
fn gone(first: u64, trimmed: u64, committed: u64) -> Fetched {
    let (first, trimmed) = (slot(first), slot(trimmed));
    Fetched { first, values: Vec::new(), committed: slot(committed), trimmed }
}

/// **N1** A slot is trimmed only when it is applied here and a snapshot that includes it is durable
/// here.
///
/// p24: The log was trimmed before enough replicas held what replaces it (`TigerBeetle` 2582, redisraft).
/// r43: Values that were decided and not yet applied were trimmed from the log (`OmniPaxos` 131).
#[test]
fn n1_p24_r43_nothing_is_trimmed_that_no_durable_snapshot_includes() {
    let mut bed = holding(&["a", "b", "c"]);
    let none = TrimError { applied: slot(3), snapshot: Slot::ZERO };
    assert_eq!(bed.replica.trim(slot(1)), Err(none));
    bed.replica.handle_snapshot(&meta(2));
    // One of another log, and an older one that is told late, permit nothing.
    bed.replica.handle_snapshot(&SnapshotMeta { group: GroupId::new(9), ..meta(3) });
    bed.replica.handle_snapshot(&meta(1));
    let newest = TrimError { applied: slot(3), snapshot: slot(2) };
    assert_eq!(bed.replica.trim(slot(3)), Err(newest));
    bed.replica.handle_snapshot(&meta(9));
    let applied = TrimError { applied: slot(3), snapshot: slot(9) };
    assert_eq!(bed.replica.trim(slot(4)), Err(applied));
    bed.drain();
    bed.sync();
    assert!(!bed.disk.iter().any(|write| matches!(write, Write::Trimmed(_))));
    assert_eq!(bed.replica.trim(slot(2)), Ok(()));
    bed.drain();
    bed.sync();
    assert_eq!(bed.disk.last(), Some(&Write::Trimmed(slot(2))));
    assert_eq!(bed.replica.trim(slot(1)), Ok(()), "it is trimmed already");
    assert_eq!(bed.replica.status().trimmed, slot(2));
}

/// **N2** A snapshot of a slot is made of a state that has applied that slot and none above. Images
/// of one slot are equal on all replicas.
///
/// That is the host's duty. What the core gives it: a slot is handed out when those before it were,
/// and who governs the slots after is said equally by all.
#[test]
fn n2_all_replicas_say_the_same_of_a_slot() {
    let beds = [1, 3].map(|own| {
        let mut bed = Bed::new(own, 3);
        bed.receive(id(2), accept(ballot(1, 2), 1, &["a", "b"], 0));
        bed.receive(id(2), Commit { ballot: ballot(1, 2), committed: slot(2) });
        bed.sync();
        bed
    });
    let [one, other] = beds;
    assert_eq!(one.applied, other.applied);
    let governs = one.replica.governs_above(slot(2)).unwrap();
    assert_eq!(Some(&governs), other.replica.governs_above(slot(2)).as_ref());
    assert_eq!(governs, meta(2).governs);
}

/// **N3** A replica that starts has committed and applied whatever its newest snapshot includes. If
/// the log had not recorded that as committed, those slots are trimmed before anything in them is
/// read. A replica whose log is trimmed beyond what its state machine and its newest snapshot
/// include does not start.
///
/// t22, r33: The power failed between a snapshot's rename and the trim, and position and log were
/// stored apart (`TiKV`, `raft-rs`).
#[test]
fn n3_r33_t22_a_snapshot_that_the_log_knows_nothing_of_is_where_a_replica_starts() {
    // An old vote in slot 5, in which something else may have been chosen, and one above.
    let writes = [
        Write::Accepted { slot: slot(1), ballot: ballot(1, 2), value: value("a") },
        Write::Accepted { slot: slot(5), ballot: ballot(1, 2), value: value("lost") },
        Write::Accepted { slot: slot(7), ballot: ballot(1, 2), value: value("h") },
        Write::Committed(slot(1)),
    ];
    let mut recovered = remembered(1, &members(3, 8), &writes);
    recovered.snapshot = Some(meta(6));
    let mut bed = Bed::start(recovered, Config::default());
    let status = bed.replica.status();
    assert_eq!((status.committed, status.applied, status.trimmed), (slot(6), slot(6), slot(6)));
    // What is gone is written before what is committed.
    assert_eq!(bed.disk[..2], [Write::Trimmed(slot(6)), Write::Committed(slot(6))]);
    // Nobody is served from what lies below, and the promise names the prefix and what is above.
    bed.receive(id(3), Fetch { from: slot(5), through: slot(6) });
    assert!(bed.loads.is_empty());
    let answer =
        bed.sent_of(
            |body| if let Body::Fetched(fetched) = body { Some(fetched.clone()) } else { None },
        );
    assert_eq!(answer, [gone(5, 6, 6)]);
    bed.receive(id(3), Prepare { ballot: ballot(2, 3), from: slot(2) });
    bed.sync();
    let page = bed.promises().pop().unwrap();
    let named: Vec<_> = page.entries.iter().map(|entry| entry.slot).collect();
    assert_eq!((page.committed, named), (slot(6), vec![slot(7)]));
}

/// p26: A state machine came back from a snapshot older than the beginning of the log, and the slots
/// between were skipped silently (dragonboat 156 and 369). r33: The position of a snapshot and the
/// log disagreed after a crash, and the replica ran on.
#[test]
fn n3_p26_r33_a_log_that_begins_after_the_newest_snapshot_is_refused() {
    let recover = |trimmed, snapshot: Option<u64>, applied| {
        let mut recovered = blank(1, &members(3, 8));
        recovered.trimmed = slot(trimmed);
        recovered.committed = slot(trimmed + 2);
        recovered.snapshot = snapshot.map(meta);
        Replica::recover(Config::default(), recovered, slot(applied), 7, Time::ZERO)
    };
    let refused = recover(5, Some(4), 3).err();
    let expected = RecoverError::AppliedBelowTrim { applied: slot(4), trimmed: slot(5) };
    assert_eq!(refused, Some(expected.clone()));
    assert!(expected.to_string().contains("put the snapshot files of this directory back"));
    assert!(recover(5, None, 4).is_err());
    assert!(recover(5, Some(4), 5).is_ok(), "the state machine keeps its own state");
    // A tail below the newest snapshot stays, where the log had recorded it.
    let tail = recover(3, Some(5), 0).unwrap().status();
    assert_eq!((tail.trimmed, tail.applied, tail.committed), (slot(3), slot(5), slot(5)));
}

/// **N8** A snapshot that is damaged, or that the state machine cannot be restored from, does not count when
/// a replica starts: an older one is the newest then, if the log has every slot above that. If there is none,
/// the replica does not start.
///
/// Which one that is, storage and host find out; here it is one like any other.
#[test]
fn n8_an_older_snapshot_serves_where_the_log_reaches_back_to_it() {
    let mut bed = holding(&["a", "b", "c", "d"]);
    for at in [2, 4] {
        bed.replica.handle_snapshot(&meta(at));
    }
    bed.replica.trim(slot(2)).unwrap();
    bed.drain();
    bed.sync();
    let mut recovered = remembered(1, &members(3, 8), &bed.disk);
    recovered.snapshot = Some(meta(2));
    let mut again = Bed::start(recovered, Config::default());
    let status = again.replica.status();
    assert_eq!((status.trimmed, status.applied), (slot(2), slot(2)));
    assert_eq!(status.committed, slot(4), "the log says so, whatever the snapshot");
    again.replica.handle_snapshot(&meta(2));
    let refused = TrimError { applied: slot(2), snapshot: slot(2) };
    assert_eq!(again.replica.trim(slot(3)), Err(refused), "the damaged one does not count");
    assert_eq!(again.replica.accepts_snapshot(&meta(5)), Ok(()), "a peer's may take its place");
    bed.replica.trim(slot(3)).unwrap();
    bed.drain();
    bed.sync();
    let mut recovered = remembered(1, &members(3, 8), &bed.disk);
    recovered.snapshot = Some(meta(2));
    let refused = Replica::recover(Config::default(), recovered, Slot::ZERO, 7, Time::ZERO).err();
    let expected = RecoverError::AppliedBelowTrim { applied: slot(2), trimmed: slot(3) };
    assert_eq!(refused, Some(expected));
}

/// p17: A snapshot or a restart brought back an older membership (`NuRaft` 186, etcd).
#[test]
fn p17_a_snapshot_that_names_other_voters_is_refused() {
    let mut recovered = blank(1, &members(3, 8));
    recovered.snapshot = Some(snapshot(4, &members(5, 8)));
    let refused =
        Replica::recover(Config::default(), recovered, Slot::ZERO, 7, Time::ZERO).err().unwrap();
    assert_eq!(refused, RecoverError::SnapshotMembership { slot: slot(4) });
    assert!(refused.to_string().contains("put the snapshot files of this one back"));
    let mut bed = Bed::new(1, 3);
    let others = snapshot(4, &members(3, 9));
    assert_eq!(install(&mut bed, &others), Err(InstallError::Membership));
    let mut late = meta(4);
    late.governs[0].from = slot(6);
    assert_eq!(install(&mut bed, &late), Err(InstallError::Membership), "nobody governs slot 5");
    let foreign = SnapshotMeta { group: GroupId::new(7), ..meta(4) };
    let refused = install(&mut bed, &foreign);
    assert_eq!(refused, Err(InstallError::Foreign { group: GroupId::new(7) }));
    assert_eq!(bed.committed(), Slot::ZERO);
}

/// **N4** A snapshot is installed only when it is durable here, and only if it includes a slot that
/// is not committed here: then what is committed, applied and trimmed becomes its slot, at once.
/// Another changes nothing.
///
/// r34: A snapshot of a position that was committed already replaced the state silently (openraft).
#[test]
fn n4_r34_a_snapshot_takes_the_place_of_what_is_missing_and_of_nothing_else() {
    let mut bed = holding(&["a", "b"]);
    assert_eq!(install(&mut bed, &meta(2)), Err(InstallError::Old { committed: slot(2) }));
    assert_eq!(bed.replica.status().trimmed, Slot::ZERO);
    // Votes in slots 4 and 6, and slot 7 is known to be chosen.
    bed.receive(id(2), accept(ballot(1, 2), 4, &["lost"], 2));
    bed.receive(id(2), accept(ballot(1, 2), 6, &["f", "g"], 2));
    bed.sync();
    bed.applied.clear();
    let written = bed.disk.len();
    assert_eq!(install(&mut bed, &meta(5)), Ok(()));
    let status = bed.replica.status();
    assert_eq!((status.committed, status.applied, status.trimmed), (slot(5), slot(5), slot(5)));
    assert_eq!(status.votes_held, 2);
    bed.sync();
    assert_eq!(bed.disk[written..], [Write::Trimmed(slot(5)), Write::Committed(slot(5))]);
    // It votes on, and goes on after the snapshot.
    bed.receive(id(2), Commit { ballot: ballot(1, 2), committed: slot(7) });
    bed.sync();
    let texts: Vec<_> = bed.applied.iter().map(|(at, value)| (at.number(), text(value))).collect();
    assert_eq!(texts, [(6, "f".to_owned()), (7, "g".to_owned())]);
    for again in [5, 6, 7] {
        let old = Err(InstallError::Old { committed: slot(7) });
        assert_eq!(install(&mut bed, &meta(again)), old);
    }
    assert_eq!(bed.replica.counters().snapshots_installed, 1);
}

/// r35: The installation of a snapshot raced with applying, and an older value was applied over the
/// newer state (openraft).
#[test]
fn n4_r35_what_was_on_its_way_to_the_state_machine_is_not_applied_after_the_install() {
    // The values have left memory and are read back to be applied when the snapshot comes.
    let config = Config { tail_bytes_max: 1, ..Config::default() };
    let mut bed = Bed::start(blank(1, &members(3, 8)), config);
    bed.receive(id(2), accept(ballot(1, 2), 1, &["a", "b", "c"], 0));
    bed.receive(id(2), Commit { ballot: ballot(1, 2), committed: slot(3) });
    bed.sync();
    let (ticket, _) = bed.loads.pop().expect("what left memory is read back to be applied");
    assert_eq!(install(&mut bed, &meta(5)), Ok(()));
    // The log is trimmed when it is read: that is no loss, and what it gives is not applied.
    for values in [Vec::new(), vec![value("a"), value("b")]] {
        bed.replica.handle_loaded(ticket, Loaded { values, trimmed: slot(5) }, bed.now);
        bed.drain();
    }
    assert_eq!(bed.halted, None);
    // What the state machine says late of slots that the snapshot includes is no news.
    bed.replica.handle_applied(slot(2), bed.now);
    bed.receive(id(2), accept(ballot(1, 2), 6, &["f"], 5));
    bed.receive(id(2), Commit { ballot: ballot(1, 2), committed: slot(6) });
    bed.sync();
    assert_eq!(bed.applied, [(slot(6), value("f"))]);
}

/// Values that were handed out and not taken yet are dropped, too.
#[test]
fn n4_r35_values_that_wait_to_be_taken_are_dropped_by_an_install() {
    let mut bed = Bed::new(1, 3);
    bed.receive(id(2), accept(ballot(1, 2), 1, &["a"], 0));
    bed.sync();
    let commit = Commit { ballot: ballot(1, 2), committed: slot(1) };
    let message = Message { origin: bed.origin_of(id(2)), body: commit.into() };
    bed.replica.handle_message(id(2), message, bed.now);
    assert_eq!(install(&mut bed, &meta(3)), Ok(()));
    bed.sync();
    assert_eq!(bed.applied, []);
}

/// **N5** A leader that has proposed in a slot which a snapshot includes, and has not seen that slot
/// chosen, stops leading before it installs the snapshot.
///
/// Else: its Accepts are lost but to one follower, a later leader has another value chosen there, a
/// snapshot includes it, and the follower takes the old value for chosen by the leader's watermark.
#[test]
fn n5_a_leader_does_not_vouch_for_what_a_snapshot_hides() {
    let mut bed = Bed::new(1, 3);
    bed.lead(&[2]);
    bed.propose("mine");
    bed.sync();
    bed.take_sent();
    assert_eq!(install(&mut bed, &meta(1)), Ok(()));
    assert_eq!(bed.role(), Role::Follower);
    assert!(!bed.has_sent("Commit"));
    // What it saw chosen it may vouch for; and above the snapshot it leads on.
    let mut bed = Bed::new(1, 3);
    let own = bed.lead(&[2]);
    for text in ["a", "b", "c"] {
        bed.propose(text);
    }
    bed.sync();
    bed.receive(id(2), accepted(own, 2, 2));
    assert_eq!(bed.committed(), Slot::ZERO);
    bed.take_sent();
    assert_eq!(install(&mut bed, &meta(2)), Ok(()));
    assert_eq!(bed.role(), Role::Follower, "slot 1 was not seen chosen");
}

/// A leader that was told of a prefix which only a snapshot gives installs it and leads on: it has
/// proposed nothing there.
#[test]
fn n5_a_leader_that_proposed_nothing_in_it_installs_a_snapshot_and_leads_on() {
    let mut bed = Bed::new(1, 3);
    let own = bed.campaign(&[2]);
    bed.sync();
    let above =
        PromiseEntry { slot: slot(6), state: SlotState::Accepted(ballot(1, 2), value("f")) };
    bed.receive(id(2), promise(own, 1, slot(5), vec![above]));
    assert_eq!(bed.role(), Role::Leader);
    bed.sync();
    assert_eq!(install(&mut bed, &meta(5)), Ok(()));
    assert_eq!(bed.role(), Role::Leader);
    assert_eq!(bed.committed(), slot(5));
    let proposed: Vec<Accept> = bed.accepts();
    assert_eq!(proposed.last().map(|accept| accept.first), Some(slot(6)));
    bed.receive(id(2), accepted(own, 6, 6));
    bed.sync();
    assert_eq!(bed.committed(), slot(6));
    assert_eq!(bed.applied, [(slot(6), value("f"))]);
    // One whose end lies above everything that it proposed was overtaken.
    assert_eq!(install(&mut bed, &meta(9)), Ok(()));
    assert_eq!(bed.role(), Role::Follower);
}

/// A leader that heard no leader before, as after a restart of all, knew what stands above the snapshot
/// to be chosen: it follows at once, or reads would wait for the next write.
#[test]
fn what_was_chosen_above_a_snapshot_follows_it_where_no_leader_was_heard() {
    let mut bed = Bed::new(1, 3);
    let own = bed.campaign(&[2]);
    bed.sync();
    let above =
        PromiseEntry { slot: slot(6), state: SlotState::Accepted(ballot(1, 2), value("f")) };
    bed.receive(id(2), promise(own, 1, slot(5), vec![above]));
    bed.sync();
    bed.receive(id(2), accepted(own, 6, 6));
    bed.sync();
    assert_eq!((bed.role(), bed.committed()), (Role::Leader, Slot::ZERO));
    assert_eq!(install(&mut bed, &meta(5)), Ok(()));
    assert_eq!((bed.role(), bed.committed()), (Role::Leader, slot(6)));
    assert_eq!(bed.applied, [(slot(6), value("f"))]);
}

/// **N6** A replica asks for a snapshot only of a peer that said that its log begins above what is
/// missing, and asks a connected peer whose log may reach back for the values first.
///
/// r36: A follower behind a purged log was sent nothing, for ever (openraft).
#[test]
fn n6_r36_a_replica_behind_every_log_asks_for_a_snapshot() {
    let mut bed = Bed::new(1, 3);
    let fetches = |bed: &Bed| bed.sent.iter().filter(|(_, body)| body.name() == "Fetch").count();
    bed.hear(&[2, 3], |_, heartbeat| heartbeat.committed = slot(40));
    bed.hear(&[2, 3], |_, heartbeat| heartbeat.committed = slot(40));
    assert_eq!((fetches(&bed), bed.wanted.len()), (1, 0));
    bed.receive(id(2), gone(1, 20, 40));
    assert_eq!((fetches(&bed), bed.wanted.len()), (2, 0), "the other may reach back");
    // An answer that comes twice asks nobody again.
    bed.receive(id(2), gone(1, 20, 40));
    assert_eq!(fetches(&bed), 2);
    bed.receive(id(3), gone(1, 30, 40));
    assert_eq!((fetches(&bed), bed.wanted.clone()), (2, vec![(id(2), Slot::ZERO)]));
    bed.receive(id(3), gone(1, 30, 40));
    bed.hear(&[2, 3], |_, heartbeat| heartbeat.committed = slot(40));
    assert_eq!(bed.wanted.len(), 1, "once in a fetch timeout");
    for _ in 0..4 {
        bed.pass(Config::default().fetch_timeout / 2);
        bed.hear(&[2, 3], |_, heartbeat| heartbeat.committed = slot(40));
    }
    assert_eq!(bed.wanted[1..], [(id(3), Slot::ZERO), (id(2), Slot::ZERO)]);
    // It votes on meanwhile, where it may.
    bed.receive(id(2), accept(ballot(1, 2), 3, &["c"], 0));
    assert_eq!(bed.replica.status().votes_held, 1);
    // With the snapshot of slot 20 the rest comes from the log.
    assert_eq!(install(&mut bed, &meta(20)), Ok(()));
    bed.sync();
    let asked = |(to, body): &(Recipients, Body)| {
        if let Body::Fetch(fetch) = body { Some((*to, *fetch)) } else { None }
    };
    let last = bed.sent.iter().rev().find_map(asked);
    let fetch = Fetch { from: slot(21), through: slot(40) };
    assert_eq!(last, Some((Recipients::One(id(2)), fetch)));
}

/// What a peer had trimmed and not made durable is in its log again when it comes back, and costs less
/// than its snapshot.
#[test]
fn n6_a_peer_that_starts_again_is_asked_for_values_again() {
    let mut bed = Bed::new(1, 2);
    bed.hear(&[2], |_, heartbeat| heartbeat.committed = slot(40));
    bed.hear(&[2], |_, heartbeat| heartbeat.committed = slot(40));
    bed.receive(id(2), gone(1, 20, 40));
    assert_eq!(bed.wanted, [(id(2), Slot::ZERO)]);
    bed.take_sent();
    let mut origin = bed.origin_of(id(2));
    origin.incarnation = origin.incarnation.following(3);
    let mut heartbeat = bed.pulse_of_a_peer();
    heartbeat.committed = slot(40);
    let message = Message { origin, body: heartbeat.into() };
    bed.replica.handle_message(id(2), message, bed.now);
    bed.drain();
    bed.sync();
    bed.pass(Config::default().fetch_timeout);
    let fetches = bed.take_sent().into_iter().filter(|(_, body)| body.name() == "Fetch").count();
    assert_eq!((fetches, bed.wanted.len()), (1, 1));
}

/// **N7** The clock of a snapshot counts as that of a batch in its slots (V1).
#[test]
fn n7_new_batches_are_stamped_above_the_snapshot() {
    let clock = LogClock::from_millis(500);
    let stamped = |bed: &mut Bed| {
        bed.replica.propose(vec![command("a")], LogClock::from_millis(3), bed.now).unwrap();
        bed.drain();
        let accepts = bed.accepts();
        let Value::Batch(batch) = &accepts.last().unwrap().values[0] else { panic!("a batch") };
        Batch::clock(batch)
    };
    let mut bed = Bed::new(1, 3);
    assert_eq!(install(&mut bed, &SnapshotMeta { clock, ..meta(4) }), Ok(()));
    bed.sync();
    let own = bed.campaign(&[2]);
    bed.sync();
    bed.receive(id(2), promise(own, 5, slot(4), Vec::new()));
    assert_eq!(stamped(&mut bed), clock);
    let mut recovered = blank(1, &members(3, 8));
    recovered.snapshot = Some(SnapshotMeta { clock, ..meta(4) });
    let mut bed = Bed::start(recovered, Config::default());
    let own = bed.campaign(&[2]);
    bed.sync();
    bed.receive(id(2), promise(own, 5, slot(4), Vec::new()));
    assert_eq!(stamped(&mut bed), clock);
}

/// Who would need what a host wants to trim: the connected, and how far they are.
#[test]
fn a_host_sees_how_far_its_connected_peers_are() {
    let mut bed = Bed::new(1, 3);
    bed.pass(Config::default().heartbeat_interval);
    bed.hear(&[2], |_, heartbeat| heartbeat.committed = slot(3));
    assert_eq!(bed.replica.peer_prefixes().collect::<Vec<_>>(), [(id(2), slot(3))]);
    bed.pass(Duration::from_secs(3));
    assert_eq!(bed.replica.peer_prefixes().count(), 0);
}
