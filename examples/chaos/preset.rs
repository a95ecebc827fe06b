//! Partial partitions by name.
//!
//! Owns: which directed links each cuts. Knows no sockets.
//! Invariant: some replica still reaches a majority in both directions.
//! Source: the presets of the simulator.

use crate::shape::Way;

/// A named way to break some of the links.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Preset {
    QuorumLoss,
    Constrained,
    Chained,
    Row,
    Howard,
    Bridge,
    LeaderMute,
    LeaderDeaf,
    FollowerMute,
    FollowerDeaf,
    ToFollower,
    FromFollower,
    FlappingLink,
    FlappingFollower,
}

impl Preset {
    pub(crate) const ALL: [Self; 14] = [
        Self::QuorumLoss,
        Self::Constrained,
        Self::Chained,
        Self::Row,
        Self::Howard,
        Self::Bridge,
        Self::LeaderMute,
        Self::LeaderDeaf,
        Self::FollowerMute,
        Self::FollowerDeaf,
        Self::ToFollower,
        Self::FromFollower,
        Self::FlappingLink,
        Self::FlappingFollower,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::QuorumLoss => "quorum-loss",
            Self::Constrained => "constrained",
            Self::Chained => "chained",
            Self::Row => "row",
            Self::Howard => "howard",
            Self::Bridge => "bridge",
            Self::LeaderMute => "leader-mute",
            Self::LeaderDeaf => "leader-deaf",
            Self::FollowerMute => "follower-mute",
            Self::FollowerDeaf => "follower-deaf",
            Self::ToFollower => "to-follower",
            Self::FromFollower => "from-follower",
            Self::FlappingLink => "flapping-link",
            Self::FlappingFollower => "flapping-follower",
        }
    }

    /// Whether it is a shape of its own among so many.
    pub(crate) const fn fits(self, nodes: usize) -> bool {
        let five = matches!(self, Self::QuorumLoss | Self::Row | Self::Howard | Self::Bridge);
        nodes == 5 || !five
    }

    /// Whether the leader loses its quorum.
    pub(crate) const fn deposes(self) -> bool {
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

    /// Whether the links are cut and joined again and again.
    pub(crate) const fn flaps(self) -> bool {
        matches!(self, Self::FlappingLink | Self::FlappingFollower)
    }

    /// The directed links that it cuts. `row` holds all replicas, the leader first.
    pub(crate) fn ways(self, row: &[usize]) -> Vec<Way> {
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
    let is_meant = |preset: &Preset| name == "all" || preset.name() == name;
    let found: Vec<_> = Preset::ALL.into_iter().filter(is_meant).collect();
    if found.is_empty() {
        Err(format!("no preset is called {name}; see --help"))
    } else {
        Ok(found)
    }
}
