//! Quorum arithmetic (the book's Majority Quorum, and Flexible Paxos).
//!
//! Owns: [`QuorumSystem`] and [`VoterSet`]; [`QuorumRule`] and [`QuorumError`] in modules of their
//! own. Knows no ballots, no messages, no replica ids: voters are numbered 0 to n − 1 by their
//! place in the membership.
//! Invariants: every prepare quorum intersects every accept quorum, and a pair that need not
//! intersect cannot be built; more voters never make a quorum less of one.
//! Source: Howard, Malkhi, Spiegelman, "Flexible Paxos"; protocol.md §4.
//!
//! # What a choice costs
//!
//! A replica leads only while it reaches both kinds of quorum (protocol.md §10, E2). So a cluster
//! serves through *any* failures up to the smaller of the two numbers on the right. A smaller accept
//! quorum makes a write wait for fewer disks and messages; what it costs is said here:
//!
//! | rule | voters | smallest prepare quorum | smallest accept quorum | any failures that prepare survives | that accept survives |
//! |---|---|---|---|---|---|
//! | majority | 3 | 2 | 2 | 1 | 1 |
//! | majority | 4 | 3 | 3 | 1 | 1 |
//! | majority | 5 | 3 | 3 | 2 | 2 |
//! | majority | 6 | 4 | 4 | 2 | 2 |
//! | majority | 7 | 4 | 4 | 3 | 3 |
//! | accepting(1) | 3 | 3 | 1 | 0 | 2 |
//! | accepting(2) | 4 | 3 | 2 | 1 | 2 |
//! | accepting(2) | 5 | 4 | 2 | 1 | 3 |
//! | accepting(3) | 6 | 4 | 3 | 2 | 3 |
//! | accepting(3) | 7 | 5 | 3 | 2 | 4 |
//! | grid(2, 2) | 4 | 2 | 2 | 1 | 1 |
//! | grid(2, 3) | 6 | 3 | 2 | 1 | 2 |
//! | grid(3, 3) | 9 | 3 | 3 | 2 | 2 |
//! | weights(2, 1, 1) | 3 | 2 | 1 | 0 | 1 |
//! | weights(3, 1, 1, 1, 1) | 5 | 2 | 2 | 1 | 1 |
//!
//! `accepting(a)` is [`QuorumRule::accepting`], `grid(rows, columns)` is [`QuorumRule::grid`]; the
//! weights are read with thresholds of 3 and 2 of 4, and of 4 and 4 of 7. Four voters under
//! `accepting(2)` write as fast as three and survive what three survive; four majority voters write
//! slower and survive no more. A test computes the numbers anew.
//! [`QuorumSystem::tolerates`] says them of any system.

mod check;
mod error;
mod rule;

use core::fmt;

pub(crate) use error::Named;
pub use error::{Phase, QuorumError};
pub use rule::QuorumRule;

/// The most voters that a membership may have.
pub const VOTERS_MAX: usize = 31;
/// The most explicit quorums of each kind: room for every rule of up to nine voters.
pub const QUORUM_SETS_MAX: usize = 128;

/// A set of voters, each by its place in the membership.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct VoterSet(u32);

impl VoterSet {
    /// The set without members.
    pub const EMPTY: Self = Self(0);

    /// The first `count` voters.
    pub fn first(count: usize) -> Self {
        assert!(count <= VOTERS_MAX, "a membership has at most {VOTERS_MAX} voters");
        Self((1 << count) - 1)
    }

    /// Adds a voter; returns whether it was not there before, so that nobody is counted twice.
    pub fn insert(&mut self, voter: usize) -> bool {
        assert!(voter < VOTERS_MAX, "a membership has at most {VOTERS_MAX} voters");
        let before = self.0;
        self.0 |= 1 << voter;
        self.0 != before
    }

    /// Whether the voter is in the set.
    pub const fn contains(self, voter: usize) -> bool {
        voter < VOTERS_MAX && self.0 & (1 << voter) != 0
    }

    /// Whether all of the other set's voters are in this one.
    pub const fn contains_all(self, other: Self) -> bool {
        other.0 & !self.0 == 0
    }

    /// Whether some voter is in both sets.
    pub const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
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

    /// One bit for each voter, the lowest for voter 0.
    pub(crate) const fn bits(self) -> u32 {
        self.0
    }

    /// The set of these bits; nothing if they name more than [`VOTERS_MAX`] voters.
    pub(crate) const fn from_bits(bits: u32) -> Option<Self> {
        if bits >> VOTERS_MAX == 0 { Some(Self(bits)) } else { None }
    }
}

impl FromIterator<usize> for VoterSet {
    /// Panics if a voter is not below [`VOTERS_MAX`].
    fn from_iter<T: IntoIterator<Item = usize>>(voters: T) -> Self {
        let mut set = Self::EMPTY;
        for voter in voters {
            set.insert(voter);
        }
        set
    }
}

/// Which sets of voters are prepare quorums, and which are accept quorums.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct QuorumSystem {
    voters: usize,
    rule: QuorumRule,
}

/// How many voters may fail, whichever they are, with a quorum of each kind left among the others.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Tolerance {
    /// After any so many failures a leader can still be elected. One more may be too many.
    pub prepare: usize,
    /// After any so many failures a value can still be chosen. One more may be too many.
    pub accept: usize,
}

impl fmt::Display for Tolerance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "prepare survives any {} failures, accept any {}", self.prepare, self.accept)
    }
}

impl QuorumSystem {
    /// The system of `voters` voters under `rule`, if its quorums intersect. Explicit sets are
    /// brought into rising order, so that equal systems are equal values.
    pub fn new(voters: usize, mut rule: QuorumRule) -> Result<Self, QuorumError> {
        if voters == 0 || voters > VOTERS_MAX {
            return Err(QuorumError::VoterCount(voters));
        }
        match &mut rule {
            QuorumRule::Majority => {}
            QuorumRule::Counts { prepare, accept } => {
                let needs = (u64::from(*prepare), u64::from(*accept));
                check::thresholds(needs, voters as u64)?;
                check::counts(usize::from(*prepare), usize::from(*accept), voters)?;
            }
            QuorumRule::Weights { weights, prepare, accept } => {
                if weights.len() != voters {
                    return Err(QuorumError::WeightCount { weights: weights.len(), voters });
                }
                let total = weights.iter().map(|weight| u64::from(*weight)).sum();
                check::thresholds((u64::from(*prepare), u64::from(*accept)), total)?;
                check::weights(weights, *prepare, *accept)?;
            }
            QuorumRule::Sets { prepare, accept } => {
                check::sets(prepare, accept, voters)?;
                prepare.sort_unstable();
                accept.sort_unstable();
            }
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
            QuorumRule::Weights { weights, prepare, .. } => weight(weights, set) >= *prepare,
            QuorumRule::Sets { prepare, .. } => holds_one(prepare, set),
        }
    }

    /// Whether acceptances of these voters suffice.
    pub fn is_accept_quorum(&self, set: VoterSet) -> bool {
        match &self.rule {
            QuorumRule::Majority => self.count(set) > self.voters / 2,
            QuorumRule::Counts { accept, .. } => self.count(set) >= usize::from(*accept),
            QuorumRule::Weights { weights, accept, .. } => weight(weights, set) >= *accept,
            QuorumRule::Sets { accept, .. } => holds_one(accept, set),
        }
    }

    /// How many voters may fail, whichever they are. For operators and tests: with many explicit
    /// sets it takes time that grows with their size to the power of the answer.
    ///
    /// ```
    /// use paxos_core::quorum::{QuorumRule, QuorumSystem};
    ///
    /// let small = QuorumSystem::new(5, QuorumRule::accepting(5, 2))?;
    /// assert_eq!(small.tolerates().to_string(), "prepare survives any 1 failures, accept any 3");
    /// # Ok::<(), paxos_core::quorum::QuorumError>(())
    /// ```
    pub fn tolerates(&self) -> Tolerance {
        let both = |prepare: usize, accept: usize| Tolerance { prepare, accept };
        match &self.rule {
            QuorumRule::Majority => both((self.voters - 1) / 2, (self.voters - 1) / 2),
            QuorumRule::Counts { prepare, accept } => {
                both(self.voters - usize::from(*prepare), self.voters - usize::from(*accept))
            }
            QuorumRule::Weights { weights, prepare, accept } => {
                both(check::spare_weight(weights, *prepare), check::spare_weight(weights, *accept))
            }
            QuorumRule::Sets { prepare, accept } => {
                both(check::spare_sets(prepare), check::spare_sets(accept))
            }
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
    set.iter().filter_map(|voter| weights.get(voter)).map(|weight| u32::from(*weight)).sum()
}

fn holds_one(quorums: &[VoterSet], set: VoterSet) -> bool {
    quorums.iter().any(|quorum| set.contains_all(*quorum))
}
