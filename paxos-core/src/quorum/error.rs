//! Why a quorum rule is refused, in words that say what to change.
//!
//! Owns: [`QuorumError`] and [`Phase`]. Knows no replica ids: whoever knows them names the voters.

use core::fmt;

use super::{QUORUM_SETS_MAX, VOTERS_MAX, VoterSet};

/// Which of the two kinds of quorum is meant.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Phase {
    /// Promises.
    Prepare,
    /// Acceptances.
    Accept,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prepare => "prepare",
            Self::Accept => "accept",
        })
    }
}

/// Why a quorum rule was refused. Voters are named by their places, from 0, in rising order of
/// their ids; [`crate::membership::MembershipError`] names the replicas.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum QuorumError {
    /// There is no voter, or more than [`VOTERS_MAX`].
    VoterCount(usize),
    /// The number of weights is not the number of voters.
    WeightCount {
        /// How many weights there are.
        weights: usize,
        /// How many voters there are.
        voters: usize,
    },
    /// Nobody at all would be a quorum.
    Nobody(Phase),
    /// All voters together are no quorum.
    Unreachable {
        /// Of which kind.
        phase: Phase,
        /// What a quorum needs, in voters or in weight.
        needs: u64,
        /// What all voters are.
        total: u64,
    },
    /// These two quorums share no voter, so that a leader could miss what was chosen.
    Apart {
        /// A prepare quorum.
        prepare: VoterSet,
        /// An accept quorum.
        accept: VoterSet,
    },
    /// No explicit quorum of this kind is given.
    NoSets(Phase),
    /// More explicit quorums of this kind than [`QUORUM_SETS_MAX`].
    TooManySets {
        /// Of which kind.
        phase: Phase,
        /// How many.
        sets: usize,
    },
    /// An explicit quorum names a voter that there is not.
    Stranger {
        /// Of which kind the quorum is.
        phase: Phase,
        /// The place that it names, from 0.
        voter: usize,
        /// How many voters there are.
        voters: usize,
    },
    /// An explicit quorum contains another of its kind, or is given twice.
    Redundant {
        /// Of which kind.
        phase: Phase,
        /// The one that suffices.
        smaller: VoterSet,
        /// The one that says nothing more.
        larger: VoterSet,
    },
    /// This voter stands in no explicit quorum.
    Idle(usize),
    /// A grid of so many rows and columns has no voters, or more than [`VOTERS_MAX`].
    Grid {
        /// Its rows.
        rows: usize,
        /// Its columns.
        columns: usize,
    },
}

/// An error whose voters have names.
pub(crate) struct Named<'a> {
    pub(crate) error: &'a QuorumError,
    pub(crate) name: &'a dyn Fn(usize) -> String,
}

impl Named<'_> {
    /// "2, 3 and 5".
    fn all(&self, set: VoterSet) -> String {
        let names: Vec<String> = set.iter().map(self.name).collect();
        match names.split_last() {
            None => "nobody".to_owned(),
            Some((only, [])) => only.clone(),
            Some((last, others)) => format!("{} and {last}", others.join(", ")),
        }
    }
}

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self.error {
            QuorumError::VoterCount(count) => {
                write!(f, "a membership has 1 to {VOTERS_MAX} voters, not {count}")
            }
            QuorumError::WeightCount { weights, voters } => {
                write!(f, "{weights} weights for {voters} voters: give each voter one")
            }
            QuorumError::Nobody(phase) => {
                write!(f, "the {phase} quorum asks for nobody: it must need at least one voter")
            }
            QuorumError::Unreachable { phase, needs, total } => write!(
                f,
                "the {phase} quorum needs {needs} and all voters together are {total}: lower it"
            ),
            QuorumError::Apart { prepare, accept } => write!(
                f,
                "the prepare quorum of {} and the accept quorum of {} share no voter, so that a \
                 leader could miss what was chosen: make one of them larger",
                self.all(prepare),
                self.all(accept)
            ),
            QuorumError::NoSets(phase) => {
                write!(f, "no {phase} quorum is given: give at least one set of voters")
            }
            QuorumError::TooManySets { phase, sets } => write!(
                f,
                "{sets} {phase} quorums are given and {QUORUM_SETS_MAX} are the most: leave out \
                 those that contain others, or use counts or weights"
            ),
            QuorumError::Stranger { phase, voter, voters } => write!(
                f,
                "a set among the {phase} quorums names place {voter}, and the places of {voters} \
                 voters are 0 to {}",
                voters.saturating_sub(1)
            ),
            QuorumError::Redundant { phase, smaller, larger } => write!(
                f,
                "the {phase} quorum of {} says nothing more than that of {}: leave it out",
                self.all(larger),
                self.all(smaller)
            ),
            QuorumError::Idle(voter) => write!(
                f,
                "{} is in no quorum: add it to one, or make it an observer",
                (self.name)(voter)
            ),
            QuorumError::Grid { rows, columns } => write!(
                f,
                "a grid of {rows} rows and {columns} columns: rows times columns must be 1 to \
                 {VOTERS_MAX}, the number of voters"
            ),
        }
    }
}

impl fmt::Display for QuorumError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |voter| format!("voter {voter}");
        Named { error: self, name: &name }.fmt(f)
    }
}

impl std::error::Error for QuorumError {}
