//! Ballots: the totally ordered numbers of attempts to lead (the book's Generation Clock).
//!
//! Owns: [`Ballot`] and its order. Knows no slots, no messages, no quorums.
//! Invariant: the order is derived, round first, so two ballots compare equal only if they are the
//! same attempt of the same replica. `None < Some(ballot)` stands for "no ballot yet".
//! Source: Lamport, "The Part-Time Parliament"; protocol.md §2.

use core::fmt;

use crate::ids::ReplicaId;

/// A numbered attempt by one replica to lead. Never used twice: a replica takes a round only
/// above every ballot it has promised, and its own Prepare waits until that promise is durable.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Ballot {
    round: u64,
    leader: ReplicaId,
}

impl Ballot {
    /// The attempt number `round` of `leader`. Rounds start at 1.
    pub const fn new(round: u64, leader: ReplicaId) -> Self {
        Self { round, leader }
    }

    /// The round: compared first.
    pub const fn round(self) -> u64 {
        self.round
    }

    /// The replica whose attempt this is: the only one that sends Prepare and Accept under it.
    pub const fn leader(self) -> ReplicaId {
        self.leader
    }

    /// The lowest ballot of `leader` above `seen`.
    #[must_use]
    pub fn above(seen: Option<Self>, leader: ReplicaId) -> Self {
        let round = seen.map_or(0, |ballot| ballot.round);
        Self { round: round.checked_add(1).expect("rounds are never exhausted"), leader }
    }
}

impl fmt::Display for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.round, self.leader.number())
    }
}
