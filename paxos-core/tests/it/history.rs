//! Errors of published teaching code, each a scenario that shows it (research/patterns.md §3).

use core::time::Duration;

use paxos_core::ids::{ReplicaId, Slot};
use paxos_core::output::Halt;
use paxos_core::quorum::{QuorumRule, QuorumSystem, VoterSet};
use paxos_core::sim::{Kind, Options, Script};
use paxos_core::value::Value;

const fn id(number: u16) -> ReplicaId {
    ReplicaId::new(number)
}

const MOMENT: Duration = Duration::from_millis(20);

/// The workshop's `MultiPaxos.logIndex` counts own appends only: a first-time leader proposed its
/// first command over a chosen one, and the new command was lost. Source: patterns.md §3 N1.
#[test]
fn n01_append_after_failover() {
    let mut script = Script::new(3);
    script.elect(1);
    let old: Vec<Slot> = (0..3_u8).map(|n| script.commit(1, &[n], 1)).collect();
    script.crash(1);
    let leader = script.expect_leader_among(4, |leader| leader != 1);
    let new = script.commit(leader, b"new", 1);
    assert!(old.iter().all(|slot| *slot < new));
    for (n, slot) in (0..3_u8).zip(old) {
        assert_eq!(script.payloads(slot), [[n]]);
    }
    script.restart(1);
    script.expect_applied(&[1, 2, 3], 4);
}

/// The workshop's promise leaves chosen entries out: a candidate that missed them saw free slots
/// and proposed something else there. Source: patterns.md §3 N2.
#[test]
fn n02_candidate_missed_chosen() {
    let mut script = Script::new(3);
    script.elect(1);
    script.isolate(3);
    let old: Vec<Slot> = (0..10_u8).map(|n| script.commit(1, &[n], 1)).collect();
    script.crash(1);
    script.drop_kind(Kind::Prepare, Some(2), None);
    script.heal();
    script.expect_leader_among(8, |leader| leader == 3);
    let new = script.commit(3, b"new", 2);
    assert!(old.iter().all(|slot| *slot < new));
    for (n, slot) in (0..10_u8).zip(old) {
        assert_eq!(script.payloads(slot), [[n]]);
    }
    script.restart(1);
    script.expect_applied(&[1, 2, 3], 4);
}

/// The workshop assigns `promisedGeneration` where it must take the higher: a late quorum or a
/// stale rejection lowered a promise. Source: patterns.md §3 N3.
#[test]
fn n03_promise_never_decreases() {
    let mut script = Script::new(3);
    script.elect(1);
    let old = script.status(1).leader;
    // The old leader goes on under its ballot while the others move on, then all is told at once.
    script.isolate(1);
    let leader = script.expect_leader_among(4, |leader| leader != 1);
    script.heal();
    script.propose(leader, b"new").unwrap();
    let mut highest = [None; 3];
    let mut lowered = None;
    script.expect("the old leader promises the new ballot", 4, |cluster| {
        for replica in 1..=3_u16 {
            let promised = cluster.status(id(replica)).and_then(|status| status.promised);
            let before = &mut highest[usize::from(replica) - 1];
            if promised < *before {
                lowered = Some((replica, *before, promised));
            }
            *before = promised;
        }
        highest.iter().all(|promised| *promised > old)
    });
    assert_eq!(lowered, None);
    // Nor by a crash.
    for replica in 1..=3_u16 {
        script.crash(replica);
        script.restart(replica);
        let promised = script.status(replica).promised;
        assert!(promised >= highest[usize::from(replica) - 1]);
    }
}

/// Two slots, of which only the second reached the followers.
fn gap(script: &mut Script) -> (Slot, Slot) {
    script.elect(1);
    script.drop_kind(Kind::Accept, Some(1), None);
    let first = script.propose(1, b"first").unwrap().slot;
    script.run_for(Duration::from_millis(1));
    script.drop_nothing();
    let second = script.propose(1, b"second").unwrap().slot;
    script.run_for(MOMENT);
    assert_eq!(second, first.next());
    assert_eq!(script.payloads(second), [b"second"], "chosen out of order");
    assert_eq!(script.cluster().check().chosen(first), None);
    (first, second)
}

/// The workshop never fills empty slots with a no-op: execution stalled for ever at the first gap
/// that a dead leader left. Source: patterns.md §3 N4.
#[test]
fn n04_leader_change_with_gaps() {
    let mut script = Script::new(3);
    let (first, second) = gap(&mut script);
    script.crash(1);
    let leader = script.expect_leader_among(4, |leader| leader != 1);
    let third = script.commit(leader, b"third", 2);
    assert!(third > second);
    assert_eq!(script.cluster().check().chosen(first), Some(&Value::Noop));
    assert_eq!(script.payloads(second), [b"second"]);
    script.expect_applied(&[2, 3], 4);
    // The old leader voted for "first" and must not bring it back.
    script.restart(1);
    script.expect_applied(&[1, 2, 3], 4);
}

/// `replicate` looks only at entries that exist, so a missing slot counted as committed: values
/// were applied across a hole, and twice later. Source: patterns.md §3 N5.
#[test]
fn n05_applied_strictly_one_after_another() {
    let mut script = Script::new(3);
    let (first, second) = gap(&mut script);
    for replica in 1..=3 {
        let status = script.status(replica);
        assert!(status.applied < first && status.committed < first, "{status:?}");
    }
    // The retransmission closes the gap; the observer checks that each slot follows the last.
    script.expect("the gap is closed", 2, |cluster| cluster.check().chosen_prefix() >= second);
    script.expect_applied(&[1, 2, 3], 2);
    assert_eq!(script.payloads(first), [b"first"]);
    assert_eq!(script.status(1).applied, second);
}

/// In both projects a commit is sent once and no heartbeat carries it: a follower that missed it
/// never learned that the value is chosen. Source: patterns.md §3 N6.
#[test]
fn n06_lost_learn() {
    let mut script = Script::new(3);
    script.elect(1);
    script.drop_kind(Kind::Commit, None, None);
    script.commit(1, b"once", 1);
    script.run_for(MOMENT);
    script.expect_applied(&[1, 2, 3], 2);
    // And where the watermark comes in no message at all, it does when messages flow again.
    for kind in [Kind::Accept, Kind::Heartbeat, Kind::Fetched] {
        script.drop_kind(kind, Some(1), Some(3));
    }
    let slot = script.commit(1, b"twice", 1);
    script.run_for(MOMENT);
    assert!(script.status(3).committed < slot);
    script.drop_nothing();
    script.expect_applied(&[1, 2, 3], 4);
}

/// Both keep promise, votes and round counter in memory: a restarted acceptor forgets what it
/// promised. A known id with an empty directory is refused. Source: patterns.md §3 N7.
#[test]
fn n07_amnesia_is_refused() {
    let mut script = Script::new(3);
    script.elect(1);
    script.commit(1, b"before", 1);
    script.run_timeouts(1);
    script.crash(2);
    script.cluster().wipe(id(2));
    script.restart(2);
    script.expect("the wiped replica stops", 4, |cluster| {
        matches!(cluster.halted(id(2)), Some(Halt::Refused { .. }))
    });
    script.commit(1, b"without it", 4);
}

/// `replicate` starts its round counter at 1 after every restart: two lives led under one ballot.
/// Here each life of a candidate takes a ballot of its own. Source: patterns.md §3 N7.
#[test]
fn n07_no_ballot_is_used_by_two_lives() {
    let mut script = Script::new(3);
    script.elect(1);
    let mut last = script.status(1).leader;
    // Nobody else may win meanwhile.
    for other in [2, 3] {
        script.drop_kind(Kind::Prepare, Some(other), None);
    }
    for n in 0..5_u8 {
        script.crash(1);
        script.restart(1);
        script.expect("replica 1 leads again", 12, |cluster| {
            let status = cluster.status(id(1)).unwrap();
            status.leader > last && status.leader.is_some_and(|b| b.leader() == id(1))
        });
        script.commit(1, &[n], 8);
        last = script.status(1).leader;
    }
}

/// Both answer a failed quorum as a failed command; their own test then finds that command applied
/// after the next election. The outcome is unknown until the slot is. Source: patterns.md §3 N8.
#[test]
fn n08_unknown_outcome() {
    let mut script = Script::new(3);
    script.elect(1);
    // The votes are cast, and the leader dies before it hears of them.
    script.drop_kind(Kind::Accepted, None, Some(1));
    let slot = script.propose(1, b"maybe").unwrap().slot;
    script.run_for(MOMENT);
    assert!(script.status(1).committed < slot, "the leader knows nothing");
    script.crash(1);
    script.drop_nothing();
    let leader = script.expect_leader_among(4, |leader| leader != 1);
    script.commit(leader, b"after", 2);
    assert_eq!(script.payloads(slot), [b"maybe"], "it was chosen all the same");
    script.restart(1);
    script.expect_applied(&[1, 2, 3], 4);

    // No vote but the leader's own is cast: the same silence, and it is never applied.
    let leader = script.expect_leader(4);
    let others = (1..=3).filter(|other| *other != leader);
    script.drop_kind(Kind::Accept, Some(leader), None);
    let slot = script.propose(leader, b"never").unwrap().slot;
    script.run_for(MOMENT);
    script.crash(leader);
    script.drop_nothing();
    let next = script.expect_leader_among(4, |next| next != leader);
    assert_eq!(script.commit(next, b"instead", 2), slot);
    script.restart(leader);
    let all: Vec<u16> = others.chain([leader]).collect();
    script.expect_applied(&all, 4);
    assert_eq!(script.payloads(slot), [b"instead"]);
}

/// The article's `runPaxos` returns success though the accept round had no quorum, if the value was
/// the caller's own. Without an accept quorum nothing is committed. Source: patterns.md §3 N9.
#[test]
fn n09_accept_quorum_denied_is_never_acknowledged() {
    let mut script = Script::new(5);
    script.elect(1);
    for other in 3..=5 {
        script.drop_kind(Kind::Accept, Some(1), Some(other));
    }
    let slot = script.propose(1, b"denied").unwrap().slot;
    script.run_timeouts(3);
    assert_eq!(script.cluster().check().chosen(slot), None);
    for replica in 1..=5 {
        assert!(script.status(replica).committed < slot);
    }
    script.drop_nothing();
    script.expect("it is committed with a quorum", 4, |cluster| {
        cluster.status(id(1)).is_some_and(|status| status.committed >= slot)
    });
    assert_eq!(script.payloads(slot), [b"denied"]);
}

/// The article's high-water mark sorts upwards and takes element n/2: with an even n only half of
/// the servers hold it. Any two quorums that must meet share a voter. Source: patterns.md §3 N10.
#[test]
fn n10_quorums_intersect_for_even_counts_too() {
    for voters in 1..=9_u16 {
        let counts =
            (1..=voters).map(|accept| QuorumRule::Counts { prepare: voters + 1 - accept, accept });
        for rule in counts.chain([QuorumRule::Majority]) {
            let system = QuorumSystem::new(usize::from(voters), rule.clone()).unwrap();
            let sets = || (0..1_u32 << voters).map(set_of);
            for accept in sets().filter(|set| system.is_accept_quorum(*set)) {
                let rest = sets().find(|other| {
                    other.iter().all(|v| !accept.contains(v))
                        && other.len() + accept.len() == usize::from(voters)
                });
                let rest = rest.unwrap();
                assert!(!system.is_prepare_quorum(rest), "{rule:?}: {accept:?} and {rest:?}");
            }
        }
    }
}

fn set_of(bits: u32) -> VoterSet {
    let mut set = VoterSet::EMPTY;
    for voter in (0..9).filter(|voter| bits >> voter & 1 == 1) {
        assert!(set.insert(voter));
    }
    set
}

/// As before, in a cluster: two of four replicas choose nothing. Source: patterns.md §3 N10.
#[test]
fn n10_half_of_an_even_cluster_chooses_nothing() {
    for replicas in [2, 4, 6] {
        let mut script = Script::with(Options::new(11, replicas));
        script.elect(1);
        script.commit(1, b"whole", 1);
        for half in replicas / 2 + 1..=replicas {
            script.crash(half);
        }
        let slot = script.propose(1, b"half").unwrap().slot;
        script.run_timeouts(6);
        assert_eq!(script.cluster().check().chosen(slot), None);
        script.restart(replicas);
        let leader = script.expect_leader(4);
        script.commit(leader, b"more than half", 4);
    }
}
