//! Partial partitions: progress within four election timeouts wherever a replica sees a quorum.
//!
//! The first three are the topologies of the Omni-Paxos artifact (`client.rs`, 2023), in which
//! published Multi-Paxos and Raft implementations deadlock or livelock.

use core::time::Duration;

use paxos_core::ids::ReplicaId;
use paxos_core::output::Role;
use paxos_core::sim::{Script, Shape};

const fn id(number: u16) -> ReplicaId {
    ReplicaId::new(number)
}

/// One command after another is proposed to whoever leads until one is committed.
fn progress_within(script: &mut Script, timeouts: u32, among: impl Fn(u16) -> bool) -> u16 {
    let start = script.cluster().now();
    let leader = script.expect_leader_among(timeouts, among);
    script.commit(leader, b"after the partition", timeouts);
    let took = script.cluster().now().since(start);
    let limit = script.election_timeout() * timeouts;
    assert!(took <= limit, "took {took:?}, more than {limit:?}");
    leader
}

#[test]
fn quorum_loss_moves_leadership_to_the_hub() {
    for hub in 2..=5 {
        let mut script = Script::new(5);
        script.elect(1);
        script.commit(1, b"before", 1);
        script.shape(&Shape::QuorumLoss { hub: id(hub) });
        let leader = progress_within(&mut script, 4, |leader| leader == hub);
        assert_eq!(leader, hub);
        script.run_timeouts(4);
        assert_eq!(script.leader(), Some(hub), "the hub stays");
    }
}

#[test]
fn a_hub_whose_log_lags_wins_a_constrained_election() {
    for hub in 2..=5 {
        let mut script = Script::new(5);
        script.elect(1);
        script.commit(1, b"before", 1);
        // The hub misses what is chosen meanwhile, for less than it takes to lose faith.
        script.cut(1, hub);
        for number in 0..5_u8 {
            script.commit(1, &[number], 1);
        }
        let prefix = script.status(1).committed;
        assert!(script.status(hub).committed < prefix, "the hub lags");
        script.shape(&Shape::Constrained {
            leader: id(1),
            hub: id(hub),
        });
        let leader = progress_within(&mut script, 4, |leader| leader == hub);
        assert_eq!(leader, hub);
        assert!(script.status(hub).committed > prefix);
    }
}

#[test]
fn a_chain_keeps_one_leader() {
    let mut script = Script::new(3);
    script.elect(1);
    script.commit(1, b"before", 1);
    script.shape(&Shape::Chained(id(1), id(2)));
    progress_within(&mut script, 4, |_| true);
    script.run_timeouts(4);
    let campaigns = |script: &Script| (1..=3).map(|r| script.status(r).promised).max().flatten();
    let before = campaigns(&script);
    for number in 0..10_u8 {
        let leader = script.leader().unwrap();
        script.commit(leader, &[number], 1);
        script.run_timeouts(1);
    }
    assert_eq!(campaigns(&script), before, "nobody campaigns in a chain");
}

#[test]
fn a_bridge_between_two_halves_leads() {
    let mut script = Script::new(5);
    script.elect(2);
    script.shape(&Shape::Bridge(id(1)));
    progress_within(&mut script, 4, |_| true);
}

#[test]
fn a_replica_that_comes_back_does_not_disturb_the_leader() {
    for (replicas, away) in [(3, 2), (3, 3), (5, 2), (5, 5)] {
        let mut script = Script::new(replicas);
        script.elect(1);
        script.commit(1, b"before", 1);
        let ballot = script.status(1).leader;
        script.isolate(away);
        script.run_timeouts(6);
        script.commit(1, b"without it", 1);
        assert!(
            script.status(away).promised <= ballot,
            "alone it must not campaign"
        );
        script.heal();
        script.run_timeouts(6);
        script.commit(1, b"with it", 1);
        script.expect_applied(&[1, away], 2);
        assert_eq!(script.status(1).leader, ballot, "the leader stays");
        assert_eq!(script.status(away).leader, ballot, "who was away follows");
    }
}

#[test]
fn a_follower_that_hears_nothing_from_the_leader_does_not_depose_it() {
    let mut script = Script::new(3);
    script.elect(1);
    let ballot = script.status(1).leader;
    script.cut_one_way(1, 3);
    script.run_timeouts(8);
    script.commit(1, b"with two", 1);
    script.heal();
    script.expect_applied(&[1, 2, 3], 4);
    assert_eq!(script.status(1).leader, ballot);
}

#[test]
fn a_leader_that_nobody_hears_is_replaced_and_steps_down() {
    let mut script = Script::new(3);
    script.elect(1);
    script.commit(1, b"before", 1);
    script.cut_one_way(1, 2);
    script.cut_one_way(1, 3);
    progress_within(&mut script, 4, |leader| leader != 1);
    script.expect("the mute leader steps down", 4, |cluster| {
        cluster
            .status(id(1))
            .is_some_and(|status| status.role != Role::Leader)
    });
}

#[test]
fn a_leader_that_hears_nobody_is_replaced() {
    let mut script = Script::new(3);
    script.elect(1);
    script.commit(1, b"before", 1);
    script.cut_one_way(2, 1);
    script.cut_one_way(3, 1);
    progress_within(&mut script, 4, |leader| leader != 1);
}

#[test]
fn a_leader_that_stood_still_does_not_serve_beside_its_successor() {
    let mut script = Script::new(3);
    script.elect(1);
    script.commit(1, b"before", 1);
    script.cluster().pause(id(1), Duration::from_secs(10));
    let leader = progress_within(&mut script, 4, |leader| leader != 1);
    script.run_for(Duration::from_secs(10));
    script.run_timeouts(2);
    assert_ne!(script.status(1).role, Role::Leader);
    script.commit(leader, b"after the pause", 1);
    script.expect_applied(&[1, 2, 3], 4);
}
