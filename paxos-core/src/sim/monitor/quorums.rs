//! Who votes, and which sets of voters decide.
//!
//! Owns the monitor's own idea of a quorum system: weights and two thresholds, which covers
//! majorities, counts and weights. Invariant (rule Q1): each prepare quorum intersects each accept
//! quorum.

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
pub struct Quorums {
    /// The weight of each acceptor, by number; 0 for one that does not vote.
    weights: Vec<u64>,
    prepare: u64,
    accept: u64,
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
        let intersect = prepare.checked_add(accept).is_some_and(|sum| sum > total);
        (weights.len() <= 64 && reachable && intersect).then_some(Self { weights, prepare, accept })
    }

    /// Majorities of `voters` acceptors, numbered from 0.
    pub fn majority(voters: u8) -> Option<Self> {
        let majority = u64::from(voters / 2 + 1);
        Self::weighted(vec![1; usize::from(voters)], majority, majority)
    }

    pub(super) fn votes(&self, acceptor: Acceptor) -> bool {
        self.weights.get(usize::from(acceptor.0)).is_some_and(|w| *w > 0)
    }

    pub(super) fn is_prepare(&self, set: Set) -> bool {
        self.weigh(set) >= self.prepare
    }

    pub(super) fn is_accept(&self, set: Set) -> bool {
        self.weigh(set) >= self.accept
    }

    fn weigh(&self, set: Set) -> u64 {
        (0_u8..)
            .zip(&self.weights)
            .filter(|(a, _)| set.contains(Acceptor(*a)))
            .map(|(_, w)| w)
            .sum()
    }
}
