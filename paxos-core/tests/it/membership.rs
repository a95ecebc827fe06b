//! Memberships: what can be built, and that weights stay with their voters.

use paxos_core::ids::{Epoch, ReplicaId};
use paxos_core::membership::{
    ADDRESS_BYTES_MAX, ADDRESSES_MAX, Member, Membership, MembershipError, OBSERVERS_MAX,
    WINDOW_DEFAULT, WINDOW_MAX,
};
use paxos_core::quorum::{QuorumError, QuorumRule, VOTERS_MAX, VoterSet};

fn ids(ids: &[u16]) -> Vec<Member> {
    ids.iter().map(|id| Member::new(ReplicaId::new(*id))).collect()
}

fn build(voters: Vec<Member>, observers: Vec<Member>) -> Result<Membership, MembershipError> {
    Membership::new(Epoch::FIRST, voters, observers, QuorumRule::Majority, 8)
}

/// Why the quorum rule was refused.
fn why(refused: Result<Membership, MembershipError>) -> QuorumError {
    match refused {
        Err(MembershipError::Quorum { error, .. }) => error,
        other => panic!("not refused for its quorums: {other:?}"),
    }
}

#[test]
fn members_are_in_rising_order_of_ids() {
    let membership = build(ids(&[5, 1, 3]), ids(&[9, 7])).unwrap();
    let order: Vec<u16> = membership.members().map(|member| member.id.number()).collect();
    assert_eq!(order, [1, 3, 5, 7, 9]);
    assert_eq!(membership.voter_index(ReplicaId::new(5)), Some(2));
    assert_eq!(membership.voter_index(ReplicaId::new(7)), None);
    assert!(membership.contains(ReplicaId::new(7)));
    assert!(!membership.contains(ReplicaId::new(2)));
    assert_eq!(membership.all_voters().len(), 3);
}

#[test]
fn weights_follow_their_voters_when_members_are_sorted() {
    let rule = QuorumRule::Weights { weights: vec![5, 1, 1], prepare: 5, accept: 5 };
    let membership = Membership::new(Epoch::FIRST, ids(&[3, 1, 2]), Vec::new(), rule, 8).unwrap();
    let heavy = membership.voter_index(ReplicaId::new(3)).unwrap();
    let mut set = VoterSet::EMPTY;
    set.insert(heavy);
    assert!(membership.quorums().is_accept_quorum(set), "replica 3 has the weight");
    let mut others = membership.all_voters();
    others =
        others.iter().filter(|voter| *voter != heavy).fold(VoterSet::EMPTY, |mut set, voter| {
            set.insert(voter);
            set
        });
    assert!(!membership.quorums().is_accept_quorum(others));
}

#[test]
fn an_id_stands_in_it_once() {
    let twice = Err(MembershipError::Duplicate(ReplicaId::new(2)));
    assert_eq!(build(ids(&[1, 2, 2]), Vec::new()), twice);
    assert_eq!(build(ids(&[1, 2]), ids(&[2])), twice);
}

#[test]
fn bounds_hold_and_are_named() {
    assert_eq!(why(build(Vec::new(), Vec::new())), QuorumError::VoterCount(0));
    let numbers: Vec<u16> = (1..=40).collect();
    assert_eq!(why(build(ids(&numbers), Vec::new())), QuorumError::VoterCount(40));
    assert!(build(ids(&numbers[..VOTERS_MAX]), Vec::new()).is_ok());

    let observers: Vec<u16> = (100..).take(OBSERVERS_MAX + 1).collect();
    assert_eq!(build(ids(&[1]), ids(&observers)), Err(MembershipError::TooMany));
    assert!(build(ids(&[1]), ids(&observers[1..])).is_ok());

    for window in [0, WINDOW_MAX + 1] {
        let refused =
            Membership::new(Epoch::FIRST, ids(&[1]), Vec::new(), QuorumRule::Majority, window);
        assert_eq!(refused, Err(MembershipError::Window(window)));
    }
}

#[test]
fn a_members_contacts_are_bounded() {
    let with = |addresses: Vec<String>, keys: usize| {
        let member = Member { id: ReplicaId::new(1), addresses, keys: vec![[0; 32]; keys] };
        build(vec![member], Vec::new())
    };
    assert!(with(vec!["a:1".into(); ADDRESSES_MAX], ADDRESSES_MAX).is_ok());
    assert_eq!(with(vec!["a:1".into(); ADDRESSES_MAX + 1], 0), Err(MembershipError::TooMany));
    assert_eq!(with(Vec::new(), ADDRESSES_MAX + 1), Err(MembershipError::TooMany));
    assert!(with(vec!["a".repeat(ADDRESS_BYTES_MAX)], 0).is_ok());
    assert_eq!(
        with(vec!["a".repeat(ADDRESS_BYTES_MAX + 1)], 0),
        Err(MembershipError::Address(ReplicaId::new(1)))
    );
}

#[test]
fn a_rule_that_does_not_intersect_makes_no_membership() {
    let rule = QuorumRule::Counts { prepare: 2, accept: 2 };
    let refused = Membership::new(Epoch::FIRST, ids(&[40, 20, 30, 10]), Vec::new(), rule, 8);
    let words = refused.clone().unwrap_err().to_string();
    let [prepare, accept] = [VoterSet::first(2), VoterSet::first(4).without(VoterSet::first(2))];
    assert_eq!(why(refused), QuorumError::Apart { prepare, accept });
    assert_eq!(
        words,
        "the prepare quorum of replica 10 and replica 20 and the accept quorum of replica 30 and \
         replica 40 share no voter, so that a leader could miss what was chosen: make one of them \
         larger"
    );
}

/// The places of a grid are those in which the voters were given, whatever their ids.
#[test]
fn sets_follow_their_voters_when_members_are_sorted() {
    let rule = QuorumRule::grid(2, 3).unwrap();
    let given = ids(&[9, 2, 5, 1, 8, 3]);
    let membership = Membership::new(Epoch::FIRST, given, Vec::new(), rule, 8).unwrap();
    let of = |ids: &[u16]| -> VoterSet {
        ids.iter().map(|id| membership.voter_index(ReplicaId::new(*id)).unwrap()).collect()
    };
    for row in [[9, 2, 5], [1, 8, 3]] {
        assert!(membership.quorums().is_prepare_quorum(of(&row)), "{row:?}");
    }
    for column in [[9, 1], [2, 8], [5, 3]] {
        assert!(membership.quorums().is_accept_quorum(of(&column)), "{column:?}");
        assert!(!membership.quorums().is_prepare_quorum(of(&column)));
    }
    assert!(!membership.quorums().is_prepare_quorum(of(&[1, 2, 3])), "the first three by id");
    assert!(!membership.quorums().is_accept_quorum(of(&[9, 2])));
}

/// Weights and sets that do not fit are refused with the replicas' ids, and never a panic.
#[test]
fn a_rule_that_does_not_fit_names_the_replicas() {
    let sets = |prepare: &[&[usize]], accept: &[&[usize]]| {
        let sets =
            |sets: &[&[usize]]| sets.iter().map(|set| set.iter().copied().collect()).collect();
        let rule = QuorumRule::Sets { prepare: sets(prepare), accept: sets(accept) };
        let refused = Membership::new(Epoch::FIRST, ids(&[7, 3, 5]), Vec::new(), rule, 8);
        refused.unwrap_err().to_string()
    };
    assert_eq!(
        sets(&[&[0, 1]], &[&[1]]),
        "replica 5 is in no quorum: add it to one, or make it an observer"
    );
    assert_eq!(
        sets(&[&[0, 1, 2], &[0, 1]], &[&[0, 1]]),
        "the prepare quorum of replica 3, replica 5 and replica 7 says nothing more than that of \
         replica 3 and replica 7: leave it out"
    );
    assert_eq!(
        sets(&[&[0, 5]], &[&[0, 1, 2]]),
        "a set among the prepare quorums names place 5, and the places of 3 voters are 0 to 2"
    );
}

#[test]
fn a_first_membership_is_majorities_with_the_default_window() {
    let membership = Membership::voters_only([1, 2, 3].map(ReplicaId::new)).unwrap();
    assert_eq!(membership.epoch(), Epoch::FIRST);
    assert_eq!(membership.window(), WINDOW_DEFAULT);
    assert_eq!(membership.quorums().rule(), &QuorumRule::Majority);
    assert!(membership.observers().is_empty());
}
