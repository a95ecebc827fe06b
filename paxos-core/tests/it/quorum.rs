//! Quorum arithmetic, exhaustively: every prepare quorum meets every accept quorum.

use paxos_core::quorum::{QuorumError, QuorumRule, QuorumSystem, VOTERS_MAX, VoterSet};
use proptest::collection::vec;
use proptest::prelude::{Strategy, any, proptest};
use proptest::prop_assert;

fn set(bits: u32) -> VoterSet {
    let mut set = VoterSet::EMPTY;
    for voter in (0..VOTERS_MAX).filter(|voter| bits & (1 << voter) != 0) {
        assert!(set.insert(voter), "each voter is inserted once");
    }
    set
}

fn quorums(voters: usize, is_quorum: impl Fn(VoterSet) -> bool) -> Vec<u32> {
    (0..1_u32 << voters)
        .filter(|bits| is_quorum(set(*bits)))
        .collect()
}

/// Compares every prepare quorum with every accept quorum.
fn assert_all_pairs_intersect(system: &QuorumSystem) {
    let prepare = quorums(system.voters(), |set| system.is_prepare_quorum(set));
    let accept = quorums(system.voters(), |set| system.is_accept_quorum(set));
    assert!(!prepare.is_empty(), "all voters are a prepare quorum");
    assert!(!accept.is_empty(), "all voters are an accept quorum");
    for first in &prepare {
        for second in &accept {
            assert_ne!(
                first & second,
                0,
                "{system:?}: {first:b} and {second:b} are disjoint"
            );
        }
    }
}

/// n10: published teaching code found the committed index at `sorted[n / 2]`, which is a minority
/// for every even n; and a value acknowledged by half of the voters was lost.
/// Source: the replicated-log chapter's own formula, checked for n = 2, 4, 6, 8.
#[test]
fn n10_half_of_an_even_cluster_is_no_quorum() {
    for voters in 1..=VOTERS_MAX {
        let system = QuorumSystem::new(voters, QuorumRule::Majority).unwrap();
        let enough = voters / 2 + 1;
        for count in 0..=voters {
            let set = VoterSet::first(count);
            assert_eq!(
                system.is_prepare_quorum(set),
                count >= enough,
                "{count} of {voters}"
            );
            assert_eq!(
                system.is_accept_quorum(set),
                count >= enough,
                "{count} of {voters}"
            );
        }
    }
}

#[test]
fn majorities_intersect_for_one_to_nine_voters() {
    for voters in 1..=9 {
        let system = QuorumSystem::new(voters, QuorumRule::Majority).unwrap();
        assert_all_pairs_intersect(&system);
    }
}

#[test]
fn counts_intersect_for_one_to_nine_voters_or_cannot_be_built() {
    for voters in 1..=9_u16 {
        for prepare in 0..=voters + 1 {
            for accept in 0..=voters + 1 {
                let rule = QuorumRule::Counts { prepare, accept };
                let reachable = (1..=voters).contains(&prepare) && (1..=voters).contains(&accept);
                match QuorumSystem::new(usize::from(voters), rule) {
                    Ok(system) => {
                        assert!(reachable && prepare + accept > voters);
                        assert_all_pairs_intersect(&system);
                    }
                    Err(QuorumError::Unreachable) => assert!(!reachable),
                    Err(QuorumError::NoIntersection) => {
                        // Refused for good reason: the first few and the last few are disjoint.
                        assert!(reachable && prepare + accept <= voters);
                    }
                    Err(error) => panic!("{error} for {prepare} and {accept} of {voters}"),
                }
            }
        }
    }
}

/// Weights of several shapes for a number of voters.
fn weight_shapes(voters: u16) -> Vec<Vec<u16>> {
    vec![
        (0..voters).map(|_| 1).collect(),
        (0..voters).map(|voter| voter + 1).collect(),
        (0..voters)
            .map(|voter| if voter == 0 { voters } else { 1 })
            .collect(),
        (0..voters)
            .map(|voter| voter % 2 + u16::from(voters == 1))
            .collect(),
        (0..voters).map(|voter| 1 << voter.min(4)).collect(),
    ]
}

/// The pairs, told by complements: a prepare quorum misses some accept quorum exactly if the
/// voters outside it hold one, as more voters never make a quorum less of one.
fn assert_complements_hold_no_quorum(system: &QuorumSystem) {
    let all = (1_u32 << system.voters()) - 1;
    for bits in 0..=all {
        let prepare = system.is_prepare_quorum(set(bits));
        let rest_accepts = system.is_accept_quorum(set(all & !bits));
        assert!(
            !(prepare && rest_accepts),
            "{system:?}: {bits:b} and its complement"
        );
        for voter in 0..system.voters() {
            let more = set(bits | 1 << voter);
            assert!(!prepare || system.is_prepare_quorum(more));
            assert!(!system.is_accept_quorum(set(bits)) || system.is_accept_quorum(more));
        }
    }
}

#[test]
fn weights_intersect_for_one_to_nine_voters_or_cannot_be_built() {
    for voters in 1..=9_u16 {
        for weights in weight_shapes(voters) {
            let total: u32 = weights.iter().copied().map(u32::from).sum();
            // All thresholds are too many for large totals: those around the bound matter.
            for prepare in 0..=total + 1 {
                for accept in (total.saturating_sub(prepare)..)
                    .take(3)
                    .chain([0, total + 1])
                {
                    let rule = QuorumRule::Weights {
                        weights: weights.clone(),
                        prepare,
                        accept,
                    };
                    let reachable = (1..=total).contains(&prepare) && (1..=total).contains(&accept);
                    match QuorumSystem::new(usize::from(voters), rule) {
                        Ok(system) => {
                            assert!(reachable && prepare + accept > total);
                            assert_complements_hold_no_quorum(&system);
                        }
                        Err(QuorumError::Unreachable) => assert!(!reachable),
                        Err(QuorumError::NoIntersection) => assert!(prepare + accept <= total),
                        Err(error) => panic!("{error} for {prepare} and {accept} of {total}"),
                    }
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn random_weights_intersect(
        weights in vec(any::<u16>(), 1..=10),
        prepare in any::<u32>(),
        accept in any::<u32>(),
        first in any::<u32>(),
    ) {
        let voters = weights.len();
        let total: u32 = weights.iter().copied().map(u32::from).sum();
        let rule = QuorumRule::Weights {
            weights,
            prepare: prepare % (total + 1),
            accept: accept % (total + 1),
        };
        if let Ok(system) = QuorumSystem::new(voters, rule) {
            let all = (1_u32 << voters) - 1;
            let disjoint = system.is_prepare_quorum(set(first & all))
                && system.is_accept_quorum(set(all & !first));
            prop_assert!(!disjoint);
        }
    }

    #[test]
    fn a_set_holds_what_was_inserted(bits in any::<u32>().prop_map(|bits| bits >> 1)) {
        let set = set(bits);
        prop_assert!(set.len() == bits.count_ones() as usize);
        prop_assert!(set.iter().all(|voter| bits & (1 << voter) != 0));
        prop_assert!((0..40).all(|voter| set.contains(voter) == (voter < 31 && bits >> voter & 1 == 1)));
    }
}

#[test]
fn a_voter_is_counted_once() {
    let mut set = VoterSet::EMPTY;
    assert!(set.insert(3));
    assert!(!set.insert(3));
    assert_eq!(set.len(), 1);
}

#[test]
fn voters_are_one_to_thirty_one() {
    for voters in [0, VOTERS_MAX + 1] {
        assert_eq!(
            QuorumSystem::new(voters, QuorumRule::Majority),
            Err(QuorumError::VoterCount(voters))
        );
    }
    let system = QuorumSystem::new(VOTERS_MAX, QuorumRule::Majority).unwrap();
    assert!(system.is_accept_quorum(VoterSet::first(VOTERS_MAX)));
}

#[test]
fn the_number_of_weights_is_the_number_of_voters() {
    let rule = QuorumRule::Weights {
        weights: vec![1, 1],
        prepare: 2,
        accept: 2,
    };
    assert_eq!(QuorumSystem::new(3, rule), Err(QuorumError::WeightCount(2)));
}
