//! Whether the quorums of a rule meet, and how many failures they survive.
//!
//! Owns the searches; each refusal comes with a witness. Nothing here runs while votes are counted.
//! Bound: two thresholds of weight that do not add up take a search over at most 2^16 sums, a few
//! milliseconds, as 31 voters have at most 2^15 subsets in their first half and 2^16 in the other.

use super::{Phase, QUORUM_SETS_MAX, QuorumError, VOTERS_MAX, VoterSet};

/// Each quorum needs something, and not more than there is.
pub(super) fn thresholds((prepare, accept): (u64, u64), total: u64) -> Result<(), QuorumError> {
    for (phase, needs) in [(Phase::Prepare, prepare), (Phase::Accept, accept)] {
        if needs == 0 {
            return Err(QuorumError::Nobody(phase));
        }
        if needs > total {
            return Err(QuorumError::Unreachable { phase, needs, total });
        }
    }
    Ok(())
}

/// The first few and the next few share nobody if there is room for both.
pub(super) fn counts(prepare: usize, accept: usize, voters: usize) -> Result<(), QuorumError> {
    if prepare + accept <= voters {
        let first = VoterSet::first(prepare);
        let next = VoterSet::first(prepare + accept).without(first);
        return Err(QuorumError::Apart { prepare: first, accept: next });
    }
    Ok(())
}

/// A set that weighs enough to prepare and leaves enough to accept is a witness, with its rest.
pub(super) fn weights(weights: &[u16], prepare: u32, accept: u32) -> Result<(), QuorumError> {
    let total: u32 = weights.iter().map(|weight| u32::from(*weight)).sum();
    let (least, most) = (u64::from(prepare), u64::from(total).saturating_sub(u64::from(accept)));
    if least > most {
        return Ok(());
    }
    let half = weights.len() / 2;
    let mut upper: Vec<(u64, u32)> = sums(&weights[half..]).collect();
    upper.sort_unstable();
    for (weight, voters) in sums(&weights[..half]) {
        let at = upper.partition_point(|(other, _)| weight + other < least);
        if let Some((other, others)) = upper.get(at)
            && weight + other <= most
        {
            let bits = voters | others << half;
            let heavy = VoterSet::from_bits(bits).expect("there are at most as many weights");
            let rest = VoterSet::first(weights.len()).without(heavy);
            return Err(QuorumError::Apart { prepare: heavy, accept: rest });
        }
    }
    Ok(())
}

/// Each subset of the voters, as bits, with its weight.
fn sums(weights: &[u16]) -> impl Iterator<Item = (u64, u32)> {
    (0..1_u32 << weights.len()).map(|bits| {
        let weight =
            |(voter, weight): (usize, &u16)| u64::from(*weight) * u64::from(bits >> voter & 1);
        (weights.iter().enumerate().map(weight).sum(), bits)
    })
}

/// Explicit quorums: bounded, of known voters, the smallest alone, nobody idle, each meeting each.
pub(super) fn sets(
    prepare: &[VoterSet],
    accept: &[VoterSet],
    voters: usize,
) -> Result<(), QuorumError> {
    for (phase, sets) in [(Phase::Prepare, prepare), (Phase::Accept, accept)] {
        if sets.is_empty() {
            return Err(QuorumError::NoSets(phase));
        }
        if sets.len() > QUORUM_SETS_MAX {
            return Err(QuorumError::TooManySets { phase, sets: sets.len() });
        }
        if sets.contains(&VoterSet::EMPTY) {
            return Err(QuorumError::Nobody(phase));
        }
        if let Some(voter) = sets.iter().flat_map(|set| set.iter()).find(|voter| *voter >= voters) {
            return Err(QuorumError::Stranger { phase, voter, voters });
        }
    }
    for first in prepare {
        if let Some(second) = accept.iter().find(|second| !first.meets(**second)) {
            return Err(QuorumError::Apart { prepare: *first, accept: *second });
        }
    }
    for (phase, sets) in [(Phase::Prepare, prepare), (Phase::Accept, accept)] {
        for (index, larger) in sets.iter().enumerate() {
            let redundant = |(other, smaller): &(usize, &VoterSet)| {
                *other != index && larger.contains_all(**smaller)
            };
            if let Some((_, smaller)) = sets.iter().enumerate().find(redundant) {
                return Err(QuorumError::Redundant { phase, smaller: *smaller, larger: *larger });
            }
        }
    }
    let used = |voter: &usize| prepare.iter().chain(accept).any(|set| set.contains(*voter));
    match (0..voters).find(|voter| !used(voter)) {
        Some(idle) => Err(QuorumError::Idle(idle)),
        None => Ok(()),
    }
}

/// How many of the heaviest voters may fail with enough weight left.
pub(super) fn spare_weight(weights: &[u16], needs: u32) -> usize {
    let mut heaviest: Vec<u32> = weights.iter().map(|weight| u32::from(*weight)).collect();
    heaviest.sort_unstable_by(|left, right| right.cmp(left));
    let mut left: u32 = heaviest.iter().sum();
    let mut spare = 0;
    for weight in heaviest {
        left -= weight;
        if left < needs {
            break;
        }
        spare += 1;
    }
    spare
}

/// One less than the fewest voters that, failing together, break every quorum.
pub(super) fn spare_sets(sets: &[VoterSet]) -> usize {
    (1..=VOTERS_MAX).find(|count| can_break(sets, VoterSet::EMPTY, *count)).unwrap_or(1) - 1
}

/// Whether so many more failures can break every quorum that is whole: one of them has to be in the
/// first of those.
fn can_break(sets: &[VoterSet], failed: VoterSet, count: usize) -> bool {
    let Some(whole) = sets.iter().find(|set| !set.meets(failed)) else {
        return true;
    };
    count > 0
        && whole.iter().any(|voter| {
            let mut failed = failed;
            failed.insert(voter);
            can_break(sets, failed, count - 1)
        })
}
