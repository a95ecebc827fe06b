//! Who votes, and which sets of voters decide.
//!
//! Owns the monitor's own idea of a quorum system: weights and two thresholds, which covers
//! majorities, counts and weights; or the sets that suffice, one by one. Invariant (rule Q1): each
//! prepare quorum intersects each accept quorum.

use std::collections::BTreeSet;

use super::event::Acceptor;

/// A set of acceptors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Set(u64);

impl Set {
    pub(super) fn insert(&mut self, acceptor: Acceptor) {
        self.0 |= 1 << acceptor.0;
    }

    pub(super) fn contains(self, acceptor: Acceptor) -> bool {
        self.0 & (1 << acceptor.0) != 0
    }

    pub(super) fn with(mut self, acceptor: Acceptor) -> Self {
        self.insert(acceptor);
        self
    }
}

/// The quorum system of a membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quorums(Rule);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Rule {
    /// The weight of each acceptor, by number; 0 for one that does not vote.
    Weighted { weights: Vec<u64>, prepare: u64, accept: u64 },
    /// Acceptors as bits, by number: who votes, and the sets that suffice.
    Listed { voters: u64, prepare: Vec<u64>, accept: Vec<u64> },
}

impl Quorums {
    /// A system in which a set is a prepare quorum if it weighs at least `prepare`, and an accept
    /// quorum if it weighs at least `accept`. `weights` are by the number of the acceptor, of which
    /// there are at most 64.
    ///
    /// `None` if two quorums of different kinds need not intersect, or cannot be reached.
    pub fn weighted(weights: Vec<u64>, prepare: u64, accept: u64) -> Option<Self> {
        let total: u64 = weights.iter().try_fold(0_u64, |sum, w| sum.checked_add(*w))?;
        let reachable = (1..=total).contains(&prepare) && (1..=total).contains(&accept);
        if weights.len() > 64 || !reachable {
            return None;
        }
        // Two that add up to more than all must meet. Others do if no set of acceptors weighs
        // enough for the one and leaves enough for the other.
        let apart = |weight: u64| weight >= prepare && total - weight >= accept;
        let meet = prepare.checked_add(accept).is_none_or(|sum| sum > total)
            || !subset_weights(&weights).into_iter().any(apart);
        meet.then_some(Self(Rule::Weighted { weights, prepare, accept }))
    }

    /// A system of `voters` acceptors in which a set is a prepare quorum if it contains one of
    /// `prepare`, and an accept quorum if it contains one of `accept`. Acceptors are bits.
    ///
    /// `None` if two quorums of different kinds do not intersect, or there is none of a kind.
    pub fn listed(voters: u8, prepare: Vec<u64>, accept: Vec<u64>) -> Option<Self> {
        let voters = 1_u64.checked_shl(u32::from(voters))? - 1;
        let known = prepare.iter().chain(&accept).all(|set| set & !voters == 0);
        let meet = prepare.iter().all(|first| accept.iter().all(|second| first & second != 0));
        let some = !prepare.is_empty() && !accept.is_empty();
        (known && meet && some).then_some(Self(Rule::Listed { voters, prepare, accept }))
    }

    /// Majorities of `voters` acceptors, numbered from 0.
    pub fn majority(voters: u8) -> Option<Self> {
        let majority = u64::from(voters / 2 + 1);
        Self::weighted(vec![1; usize::from(voters)], majority, majority)
    }

    pub(super) fn votes(&self, acceptor: Acceptor) -> bool {
        match &self.0 {
            Rule::Weighted { weights, .. } => {
                weights.get(usize::from(acceptor.0)).is_some_and(|w| *w > 0)
            }
            Rule::Listed { voters, .. } => Set(*voters).contains(acceptor),
        }
    }

    pub(super) fn is_prepare(&self, set: Set) -> bool {
        match &self.0 {
            Rule::Weighted { weights, prepare, .. } => weigh(weights, set) >= *prepare,
            Rule::Listed { prepare, .. } => prepare.iter().any(|one| one & !set.0 == 0),
        }
    }

    pub(super) fn is_accept(&self, set: Set) -> bool {
        match &self.0 {
            Rule::Weighted { weights, accept, .. } => weigh(weights, set) >= *accept,
            Rule::Listed { accept, .. } => accept.iter().any(|one| one & !set.0 == 0),
        }
    }
}

fn weigh(weights: &[u64], set: Set) -> u64 {
    (0_u8..).zip(weights).filter(|(a, _)| set.contains(Acceptor(*a))).map(|(_, w)| w).sum()
}

/// What the sets of acceptors weigh.
fn subset_weights(weights: &[u64]) -> BTreeSet<u64> {
    let mut reached = BTreeSet::from([0]);
    for weight in weights {
        let more: Vec<u64> = reached.iter().map(|sum| sum + weight).collect();
        reached.extend(more);
    }
    reached
}
