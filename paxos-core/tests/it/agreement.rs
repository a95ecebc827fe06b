//! Replicas that were formatted with different memberships: they find out, say so, and count nothing
//! of each other (docs/protocol.md §4, Q4).

use std::collections::BTreeSet;
use std::time::Duration;

use paxos_core::agreement::{Disagreement, MembershipDigest};
use paxos_core::ids::{Epoch, Slot};
use paxos_core::membership::{Member, Membership, WINDOW_MAX};
use paxos_core::message::{Accept, Body, Confirmed, Connectivity, Fetch, Message, Origin, Prepare};
use paxos_core::output::Role;
use paxos_core::quorum::{QuorumRule, VoterSet};

use crate::bed::{Bed, accepted, ballot, id, promise, slot, value};

fn formatted(voters: &[u16], observers: &[u16], rule: QuorumRule, window: u32) -> Membership {
    let members = |ids: &[u16]| ids.iter().map(|number| Member::new(id(*number))).collect();
    Membership::new(Epoch::FIRST, members(voters), members(observers), rule, window).unwrap()
}

fn three() -> Membership {
    formatted(&[1, 2, 3], &[], QuorumRule::Majority, 8)
}

/// Says this in the name of a peer that was formatted with that membership.
fn say(bed: &mut Bed, from: u16, theirs: &Membership, body: impl Into<Body>) {
    let origin = Origin { membership: theirs.digest(), ..bed.origin_of(id(from)) };
    bed.replica.handle_message(id(from), Message { origin, body: body.into() }, bed.now);
    bed.drain();
}

/// **Q4** A message of a replica that was formatted with another membership of the same epoch is
/// neither counted nor answered, and its sender is named as one that disagrees.
#[test]
fn q4_who_disagrees_is_neither_counted_nor_answered() {
    let theirs = formatted(&[1, 2, 3], &[], QuorumRule::Counts { prepare: 3, accept: 1 }, 8);
    let mut bed = Bed::new(1, 3);
    let own = bed.campaign(&[2, 3]);
    bed.sync();
    say(&mut bed, 2, &theirs, promise(own, 1, slot(0), Vec::new()));
    assert_eq!(bed.role(), Role::Candidate, "no promise counts");
    assert_eq!(bed.replica.status().disagreeing, [(id(2), Disagreement::Quorums)]);
    bed.receive(id(3), promise(own, 1, slot(0), Vec::new()));
    assert_eq!(bed.role(), Role::Leader);
    bed.propose("a");
    bed.sync();
    say(&mut bed, 2, &theirs, accepted(own, 1, 1));
    assert_eq!(bed.committed(), slot(0), "no vote counts");
    bed.receive(id(3), accepted(own, 1, 1));
    bed.replica.read(bed.now).unwrap();
    bed.drain();
    say(&mut bed, 2, &theirs, Confirmed { ballot: own, round: 1 });
    assert_eq!(bed.reads_ready, [], "no confirmation counts");

    bed.take_sent();
    let before = bed.replica.counters().dropped_disagreeing;
    say(&mut bed, 2, &theirs, Prepare { ballot: ballot(9, 2), from: slot(1) });
    let values = vec![value("b")];
    say(
        &mut bed,
        2,
        &theirs,
        Accept { ballot: ballot(9, 2), committed: slot(0), first: slot(2), values },
    );
    say(&mut bed, 2, &theirs, Fetch { from: slot(1), through: Slot::MAX });
    bed.sync();
    assert_eq!(bed.take_sent(), [], "no question is answered");
    assert_eq!((bed.role(), bed.replica.status().promised), (Role::Leader, Some(own)));
    assert_eq!(bed.replica.counters().dropped_disagreeing, before + 3);

    // Once it was formatted anew, it is a peer like any other.
    bed.receive(id(2), Confirmed { ballot: own, round: 1 });
    assert_eq!(bed.replica.status().disagreeing, []);
    assert_eq!(bed.reads_ready.len(), 1);
}

/// With a quorum that disagrees nobody is connected, so nobody campaigns, and a leader steps down.
#[test]
fn a_quorum_that_disagrees_leaves_nobody_to_lead() {
    let theirs = formatted(&[1, 2, 3], &[], QuorumRule::Majority, 64);
    let mut bed = Bed::new(1, 3);
    bed.lead(&[2, 3]);
    for step in 0..20 {
        bed.pass(Duration::from_millis(100));
        bed.hear(&[], |_, _| {});
        for peer in [2, 3] {
            let body = bed.pulse_of_a_peer();
            say(&mut bed, peer, &theirs, body);
        }
        if step == 9 {
            let status = bed.replica.status();
            assert_eq!((status.role, status.connectivity), (Role::Follower, Connectivity::Partial));
        }
    }
    assert_eq!(bed.role(), Role::Follower, "and does not campaign");
    let window = Disagreement::Window;
    assert_eq!(bed.replica.status().disagreeing, [(id(2), window), (id(3), window)]);
    assert_eq!(bed.replica.status().connected_peers, []);
}

/// A replica that is no member here, and believes that it is, is named too; how many are is bounded.
#[test]
fn strangers_that_believe_they_are_members_are_named_up_to_a_bound() {
    let theirs = formatted(&[1, 2, 3, 4], &[], QuorumRule::Majority, 8);
    let mut bed = Bed::new(1, 3);
    say(&mut bed, 4, &theirs, Prepare { ballot: ballot(1, 4), from: slot(1) });
    assert_eq!(bed.replica.status().disagreeing, [(id(4), Disagreement::Members)]);
    for number in 5..500 {
        say(&mut bed, number, &theirs, Prepare { ballot: ballot(1, number), from: slot(1) });
    }
    assert_eq!(bed.replica.status().disagreeing.len(), 95);
    // Another cluster is another matter.
    let origin = Origin {
        cluster: paxos_core::ids::ClusterId::new(0xC2),
        membership: theirs.digest(),
        ..bed.origin_of(id(2))
    };
    let body = Body::from(Prepare { ballot: ballot(1, 2), from: slot(1) });
    bed.replica.handle_message(id(2), Message { origin, body }, bed.now);
    assert!(bed.replica.status().disagreeing.iter().all(|(peer, _)| *peer != id(2)));
    assert_eq!(bed.replica.counters().dropped_foreign, 1);
}

#[test]
fn a_digest_tells_members_quorums_and_windows_apart() {
    let own = three().digest();
    let differs = |other: &Membership| own.disagreement(other.digest());
    assert_eq!(differs(&three()), None);
    let majority = || QuorumRule::Majority;
    for (voters, observers) in [(&[1, 2][..], &[3][..]), (&[1, 2, 4], &[]), (&[1, 2, 3], &[4])] {
        let other = formatted(voters, observers, majority(), 8);
        assert_eq!(differs(&other), Some(Disagreement::Members), "{voters:?} {observers:?}");
    }
    let sets = |sets: &[&[usize]]| -> Vec<VoterSet> {
        sets.iter().map(|set| set.iter().copied().collect()).collect()
    };
    for rule in [
        QuorumRule::Counts { prepare: 3, accept: 1 },
        QuorumRule::Counts { prepare: 1, accept: 3 },
        QuorumRule::Weights { weights: vec![1, 1, 1], prepare: 2, accept: 2 },
        QuorumRule::Weights { weights: vec![1, 1, 2], prepare: 3, accept: 2 },
        QuorumRule::Sets { prepare: sets(&[&[0, 1, 2]]), accept: sets(&[&[0], &[1], &[2]]) },
        QuorumRule::Sets { prepare: sets(&[&[0], &[1], &[2]]), accept: sets(&[&[0, 1, 2]]) },
    ] {
        let other = formatted(&[1, 2, 3], &[], rule.clone(), 8);
        assert_eq!(differs(&other), Some(Disagreement::Quorums), "{rule:?}");
    }
    // No window is taken for another.
    let windows: BTreeSet<MembershipDigest> = (1..=WINDOW_MAX)
        .map(|window| formatted(&[1, 2, 3], &[], majority(), window).digest())
        .collect();
    assert_eq!(windows.len(), WINDOW_MAX as usize);
    let window = formatted(&[1, 2, 3], &[], majority(), 9);
    assert_eq!(differs(&window), Some(Disagreement::Window));

    // Where a member is reached, and by which keys, is its machine's business.
    let mut voters: Vec<Member> = [1, 2, 3].map(|number| Member::new(id(number))).into();
    voters[1].addresses.push("two.example:7101".to_owned());
    voters[2].keys.push([7; 32]);
    let other = Membership::new(Epoch::FIRST, voters, Vec::new(), majority(), 8).unwrap();
    assert_eq!(differs(&other), None);
}

/// Every two of many memberships that people may write differ, and in six bytes.
#[test]
fn digests_of_many_memberships_are_all_different() {
    let mut digests = BTreeSet::new();
    let mut count = 0;
    for voters in 1..=7_u16 {
        for first in 1..=20 {
            let ids: Vec<u16> = (first..first + voters).collect();
            for accept in 1..=voters {
                let rule = QuorumRule::accepting(voters, accept);
                for window in [1, 8, 64, 256, 65_536] {
                    let digest = formatted(&ids, &[], rule.clone(), window).digest();
                    assert_eq!(MembershipDigest::from_bytes(digest.to_bytes()), digest);
                    digests.insert(digest);
                    count += 1;
                }
            }
        }
    }
    assert_eq!(digests.len(), count);
}
