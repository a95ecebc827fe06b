//! Partial partitions by name, on processes.
//!
//! Owns: which directed links each of the simulator's presets cuts. Knows no sockets.
//! Invariant: some replica still reaches a majority in both directions.

use paxos::core::sim::{Preset, UnknownPreset};

use crate::shape::Way;

/// What a preset of the simulator is to processes.
pub(crate) trait OnProcesses {
    /// Whether it is a shape of its own among so many.
    fn fits(self, nodes: usize) -> bool;
    /// Whether the leader loses its quorum.
    fn deposes(self) -> bool;
    /// Whether the links are cut and joined again and again.
    fn flaps(self) -> bool;
    /// The directed links that it cuts. `row` holds all replicas, the leader first.
    fn ways(self, row: &[usize]) -> Vec<Way>;
}

impl OnProcesses for Preset {
    fn fits(self, nodes: usize) -> bool {
        self.sizes().iter().any(|size| usize::from(*size) == nodes)
    }

    fn deposes(self) -> bool {
        matches!(
            self,
            Self::QuorumLoss
                | Self::Constrained
                | Self::Row
                | Self::Howard
                | Self::LeaderMute
                | Self::LeaderDeaf
        )
    }

    fn flaps(self) -> bool {
        matches!(self, Self::FlappingLink | Self::FlappingFollower)
    }

    fn ways(self, row: &[usize]) -> Vec<Way> {
        let at = |node: usize| row.iter().position(|other| *other == node).unwrap_or_default();
        // Below, 0 is the leader and 1 the follower that it is about.
        let is_cut = |from: usize, to: usize| {
            let (low, high) = (from.min(to), from.max(to));
            match self {
                Self::QuorumLoss => low != 1 && high != 1,
                Self::Constrained => low == 0 || (low != 1 && high != 1),
                Self::Chained | Self::FlappingLink => (low, high) == (0, 1),
                // The leader at an end, where it loses its quorum.
                Self::Row => high - low > 1,
                // The leader is one of the two that reach one other.
                Self::Howard => match (low, high) {
                    (0, _) => high != 1,
                    (_, 4) => low != 2,
                    _ => false,
                },
                Self::Bridge => low != 1 && low < 3 && high >= 3,
                Self::LeaderMute => from == 0,
                Self::LeaderDeaf => to == 0,
                Self::FollowerMute => from == 1,
                Self::FollowerDeaf => to == 1,
                Self::ToFollower => (from, to) == (0, 1),
                Self::FromFollower => (from, to) == (1, 0),
                Self::FlappingFollower => low == 1 || high == 1,
            }
        };
        let ways = row.iter().flat_map(|from| row.iter().map(move |to| (*from, *to)));
        ways.filter(|(from, to)| from != to && is_cut(at(*from), at(*to))).collect()
    }
}

/// Understands a name, or `all`.
pub(crate) fn parse(name: &str) -> Result<Vec<Preset>, String> {
    if name == "all" {
        return Ok(Preset::ALL.to_vec());
    }
    let found = name.parse().map_err(|error: UnknownPreset| format!("{error}, or all"))?;
    Ok(vec![found])
}
