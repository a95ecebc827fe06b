//! Quorum arithmetic (the book's Majority Quorum, and Flexible Paxos).
//!
//! Owns: [`QuorumSystem`] and [`VoterSet`]. Knows no ballots, no messages, no replica ids: voters
//! are numbered 0 to n − 1 by their place in the membership.
//! Invariant: every prepare quorum intersects every accept quorum. A pair that need not intersect
//! cannot be built.
//! Source: Howard, Malkhi, Spiegelman, "Flexible Paxos"; protocol.md §4.

use core::fmt;

/// The most voters that a membership may have.
pub const VOTERS_MAX: usize = 31;

/// A set of voters, each by its place in the membership.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct VoterSet(u32);

impl VoterSet {
    /// The set without members.
    pub const EMPTY: Self = Self(0);

    /// The first `count` voters.
    pub fn first(count: usize) -> Self {
        assert!(
            count <= VOTERS_MAX,
            "a membership has at most {VOTERS_MAX} voters"
        );
        Self((1 << count) - 1)
    }

    /// Adds a voter; returns whether it was not there before, so that nobody is counted twice.
    pub fn insert(&mut self, voter: usize) -> bool {
        assert!(
            voter < VOTERS_MAX,
            "a membership has at most {VOTERS_MAX} voters"
        );
        let before = self.0;
        self.0 |= 1 << voter;
        self.0 != before
    }

    /// Whether the voter is in the set.
    pub const fn contains(self, voter: usize) -> bool {
        voter < VOTERS_MAX && self.0 & (1 << voter) != 0
    }

    /// The voters that are in this set and not in the other.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// How many voters are in the set.
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Whether nobody is in the set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The voters in rising order.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..VOTERS_MAX).filter(move |voter| self.contains(*voter))
    }
}

/// Which sets of voters are prepare quorums, and which are accept quorums.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct QuorumSystem {
    voters: usize,
    rule: QuorumRule,
}

/// How quorums are recognised. Plain data, as written in a membership; only
/// [`QuorumSystem::new`] turns it into something that counts votes.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum QuorumRule {
    /// More than half of the voters, in both phases.
    Majority,
    /// At least so many voters in each phase; the two must add up to more than all voters.
    Counts {
        /// Enough promises.
        prepare: u16,
        /// Enough acceptances.
        accept: u16,
    },
    /// Voters with weights; at least so much weight in each phase; the two must add up to more
    /// than the total.
    Weights {
        /// A weight for each voter, in the membership's order.
        weights: Vec<u16>,
        /// Enough weight of promises.
        prepare: u32,
        /// Enough weight of acceptances.
        accept: u32,
    },
}

/// Why a quorum rule was refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum QuorumError {
    /// There is no voter, or more than [`VOTERS_MAX`].
    VoterCount(usize),
    /// A prepare quorum and an accept quorum need not share a voter.
    NoIntersection,
    /// A quorum is empty, or larger than all voters together.
    Unreachable,
    /// The number of weights is not the number of voters.
    WeightCount(usize),
}

impl fmt::Display for QuorumError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::VoterCount(count) => {
                write!(f, "a membership has 1 to {VOTERS_MAX} voters, not {count}")
            }
            Self::NoIntersection => f.write_str(
                "a prepare quorum and an accept quorum need not share a voter: raise one of them",
            ),
            Self::Unreachable => {
                f.write_str("a quorum must be more than nothing and at most all voters")
            }
            Self::WeightCount(count) => write!(f, "{count} weights do not match the voters"),
        }
    }
}

impl std::error::Error for QuorumError {}

impl QuorumSystem {
    /// The system of `voters` voters under `rule`, if its quorums intersect.
    pub fn new(voters: usize, rule: QuorumRule) -> Result<Self, QuorumError> {
        if voters == 0 || voters > VOTERS_MAX {
            return Err(QuorumError::VoterCount(voters));
        }
        let (total, prepare, accept) = match &rule {
            QuorumRule::Majority => {
                let majority = voters as u64 / 2 + 1;
                (voters as u64, majority, majority)
            }
            QuorumRule::Counts { prepare, accept } => {
                (voters as u64, u64::from(*prepare), u64::from(*accept))
            }
            QuorumRule::Weights {
                weights,
                prepare,
                accept,
            } => {
                if weights.len() != voters {
                    return Err(QuorumError::WeightCount(weights.len()));
                }
                let total = weights.iter().map(|weight| u64::from(*weight)).sum();
                (total, u64::from(*prepare), u64::from(*accept))
            }
        };
        if prepare == 0 || accept == 0 || prepare > total || accept > total {
            return Err(QuorumError::Unreachable);
        }
        if prepare + accept <= total {
            return Err(QuorumError::NoIntersection);
        }
        Ok(Self { voters, rule })
    }

    /// How many voters there are.
    pub fn voters(&self) -> usize {
        self.voters
    }

    /// The rule as written.
    pub fn rule(&self) -> &QuorumRule {
        &self.rule
    }

    /// Whether promises of these voters suffice.
    pub fn is_prepare_quorum(&self, set: VoterSet) -> bool {
        match &self.rule {
            QuorumRule::Majority => self.count(set) > self.voters / 2,
            QuorumRule::Counts { prepare, .. } => self.count(set) >= usize::from(*prepare),
            QuorumRule::Weights {
                weights, prepare, ..
            } => weight(weights, set) >= *prepare,
        }
    }

    /// Whether acceptances of these voters suffice.
    pub fn is_accept_quorum(&self, set: VoterSet) -> bool {
        match &self.rule {
            QuorumRule::Majority => self.count(set) > self.voters / 2,
            QuorumRule::Counts { accept, .. } => self.count(set) >= usize::from(*accept),
            QuorumRule::Weights {
                weights, accept, ..
            } => weight(weights, set) >= *accept,
        }
    }

    fn count(&self, set: VoterSet) -> usize {
        debug_assert!(
            set.iter().all(|voter| voter < self.voters),
            "only voters of the membership are counted"
        );
        set.len()
    }
}

fn weight(weights: &[u16], set: VoterSet) -> u32 {
    set.iter()
        .filter_map(|voter| weights.get(voter))
        .map(|weight| u32::from(*weight))
        .sum()
}
