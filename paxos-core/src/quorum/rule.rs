//! How quorums are written down.
//!
//! Owns: [`QuorumRule`], plain data that says nothing until a [`super::QuorumSystem`] is built from
//! it, and the constructors of rules that people ask for.
//! Source: Howard, Malkhi, Spiegelman, "Flexible Paxos" (counts, grids); Gifford, "Weighted Voting
//! for Replicated Data".

use super::{QUORUM_SETS_MAX, QuorumError, VOTERS_MAX, VoterSet};

/// How quorums are recognised. Plain data, as written in a membership; only
/// [`super::QuorumSystem::new`] turns it into something that counts votes.
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
    /// Voters with weights; at least so much weight in each phase. Two that add up to more than
    /// the total always meet; others are searched for a pair that does not. A voter of weight 0
    /// stores everything and decides nothing.
    Weights {
        /// A weight for each voter, in the membership's order.
        weights: Vec<u16>,
        /// Enough weight of promises.
        prepare: u32,
        /// Enough weight of acceptances.
        accept: u32,
    },
    /// The smallest quorums, one by one, at most [`QUORUM_SETS_MAX`] of each kind: whoever holds
    /// all of one of them is a quorum. None may contain another of its kind, each has to meet all
    /// of the other kind, and each voter stands in at least one.
    Sets {
        /// Enough promises.
        prepare: Vec<VoterSet>,
        /// Enough acceptances.
        accept: Vec<VoterSet>,
    },
}

const _: () = assert!(QUORUM_SETS_MAX >= VOTERS_MAX, "every grid has room");

impl QuorumRule {
    /// `accept` acceptances choose a value, and as few promises elect a leader as that allows.
    ///
    /// For small accept quorums, and for even numbers of voters:
    ///
    /// ```
    /// use paxos_core::quorum::{QuorumRule, QuorumSystem};
    ///
    /// // Four voters: a write waits for two, as with three voters; three elect.
    /// let even = QuorumSystem::new(4, QuorumRule::accepting(4, 2))?;
    /// // Five voters, of which two suffice for a write, and four are needed for an election.
    /// let small = QuorumSystem::new(5, QuorumRule::accepting(5, 2))?;
    /// assert_eq!(even.tolerates().prepare, 1);
    /// assert_eq!(small.tolerates().prepare, 1);
    /// # Ok::<(), paxos_core::quorum::QuorumError>(())
    /// ```
    ///
    /// What is lost: after `accept` failures no leader can be elected, and one that leads steps
    /// down, as it has to reach both kinds of quorum. An `accept` of 0 or above `voters` gives a
    /// rule that no system can be built from.
    pub fn accepting(voters: u16, accept: u16) -> Self {
        Self::Counts { prepare: voters.saturating_add(1).saturating_sub(accept), accept }
    }

    /// Voters in rows and columns: a full row is a prepare quorum, a full column an accept quorum.
    /// Each row crosses each column in one voter.
    ///
    /// Voters are numbered along the rows, in the order in which a membership is given them: for
    /// `grid(2, 3)` the rows are {0, 1, 2} and {3, 4, 5}, the columns {0, 3}, {1, 4} and {2, 5}. A
    /// row for each data centre makes an election need one data centre, whichever it is, and a
    /// write need one replica in each.
    ///
    /// What is lost: one failure in each row leaves no full row, one in each column no full column.
    /// So any `rows − 1` failures are survived by elections, any `columns − 1` by writes; more
    /// only where they fall well.
    ///
    /// ```
    /// use paxos_core::quorum::{QuorumRule, QuorumSystem};
    ///
    /// let system = QuorumSystem::new(6, QuorumRule::grid(2, 3)?)?;
    /// assert!(system.is_prepare_quorum([3, 4, 5].into_iter().collect()));
    /// assert!(system.is_accept_quorum([1, 4].into_iter().collect()));
    /// assert!(!system.is_prepare_quorum([0, 1, 4, 5].into_iter().collect()));
    /// # Ok::<(), paxos_core::quorum::QuorumError>(())
    /// ```
    pub fn grid(rows: usize, columns: usize) -> Result<Self, QuorumError> {
        let fits = rows.checked_mul(columns).is_some_and(|all| (1..=VOTERS_MAX).contains(&all));
        if !fits {
            return Err(QuorumError::Grid { rows, columns });
        }
        let row = |row| (0..columns).map(|column| row * columns + column).collect();
        let column = |column| (0..rows).map(|row| row * columns + column).collect();
        let (prepare, accept) = ((0..rows).map(row).collect(), (0..columns).map(column).collect());
        Ok(Self::Sets { prepare, accept })
    }

    /// The same rule for voters in another order: the voter at place `p` stands at `places[p]`
    /// there. A rule that does not fit so many voters is returned as it is, to be refused.
    pub(crate) fn reordered(self, places: &[usize]) -> Self {
        match self {
            Self::Weights { weights, prepare, accept } if weights.len() == places.len() => {
                let mut moved = weights.clone();
                for (weight, place) in weights.into_iter().zip(places) {
                    moved[*place] = weight;
                }
                Self::Weights { weights: moved, prepare, accept }
            }
            Self::Sets { prepare, accept } => {
                let fits = |set: &VoterSet| set.iter().all(|voter| voter < places.len());
                if places.len() > VOTERS_MAX || !prepare.iter().chain(&accept).all(fits) {
                    return Self::Sets { prepare, accept };
                }
                let moved = |sets: Vec<VoterSet>| {
                    let moved = |set: VoterSet| set.iter().map(|voter| places[voter]).collect();
                    sets.into_iter().map(moved).collect()
                };
                Self::Sets { prepare: moved(prepare), accept: moved(accept) }
            }
            Self::Majority | Self::Counts { .. } | Self::Weights { .. } => self,
        }
    }
}
