//! Partial partitions by name, for measuring how long a cluster does not serve.
//!
//! Owns: [`Preset`] and [`Case`], and how each cuts a cluster that has a leader. Who plays which
//! part is drawn from the seed.
//! Invariant: after every preset some replica still reaches a prepare and an accept quorum in both
//! directions, so that a leader is possible.
//! Source: the topologies of the Omni-Paxos artifact (quorum loss, constrained, chained); the five
//! servers of Howard and Abraham, "Raft does not guarantee liveness in the face of network faults".

use core::fmt;
use core::str::FromStr;
use core::time::Duration;

use super::cluster::Cluster;
use super::network::Shape;
use crate::ids::ReplicaId;

/// A named way to break some of the links of a cluster for good.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Preset {
    /// One follower keeps all its links; every link between two others is cut. Five replicas: with
    /// three it is [`Preset::Chained`].
    QuorumLoss,
    /// As quorum loss, the leader is cut from everybody, and the follower that keeps its links
    /// misses the newest part of the log.
    Constrained,
    /// The link between the leader and one follower is cut.
    Chained,
    /// Each of five reaches its neighbours in a row; the leader stands anywhere.
    Row,
    /// Three of five reach each other; of the two others each reaches one of the three.
    Howard,
    /// One follower reaches everybody, and the others only one half of them. Five replicas.
    Bridge,
    /// Nobody hears the leader.
    LeaderMute,
    /// The leader hears nobody.
    LeaderDeaf,
    /// Nobody hears one follower.
    FollowerMute,
    /// One follower hears nobody.
    FollowerDeaf,
    /// What the leader sends one follower is lost.
    ToFollower,
    /// What one follower sends the leader is lost.
    FromFollower,
    /// The link between the leader and one follower is cut and joined again and again.
    FlappingLink,
    /// All links of one follower are cut and joined again and again.
    FlappingFollower,
}

impl Preset {
    /// Every preset.
    pub const ALL: [Self; 14] = [
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

    /// The sizes of clusters in which it is a shape of its own.
    pub const fn sizes(self) -> &'static [u16] {
        match self {
            Self::QuorumLoss | Self::Row | Self::Howard | Self::Bridge => &[5],
            Self::Constrained
            | Self::Chained
            | Self::LeaderMute
            | Self::LeaderDeaf
            | Self::FollowerMute
            | Self::FollowerDeaf
            | Self::ToFollower
            | Self::FromFollower
            | Self::FlappingLink
            | Self::FlappingFollower => &[3, 5],
        }
    }

    /// Breaks the links of a cluster in which `leader` leads. `meanwhile` lets time pass.
    pub(super) fn strike(
        self,
        cluster: &mut Cluster,
        leader: ReplicaId,
        mut meanwhile: impl FnMut(&mut Cluster, Duration),
    ) {
        let mut left: Vec<ReplicaId> = cluster.ids().filter(|id| *id != leader).collect();
        let mut draw =
            |cluster: &mut Cluster| left.swap_remove(cluster.rng.below(left.len() as u64) as usize);
        let other = draw(cluster);
        let shape = match self {
            Self::QuorumLoss => Shape::QuorumLoss { hub: other },
            Self::Constrained => {
                // For less than it takes to lose faith in each other.
                cluster.network.shape(&Shape::Chained(leader, other));
                let timeout = cluster.options.config.election_timeout;
                let lag = cluster.rng.duration(timeout / 5, timeout * 4 / 5);
                meanwhile(cluster, lag);
                Shape::Constrained { leader, hub: other }
            }
            Self::Chained => Shape::Chained(leader, other),
            Self::Row => Shape::Row(shuffled(cluster)),
            Self::Howard => {
                let row = shuffled(cluster);
                Shape::Arms([(row[0], row[1]), (row[2], row[3])])
            }
            // The halves are of odd and of even numbers, so that some bridges leave three on one
            // side: any other will do, and the sides are two and two only for odd ones.
            Self::Bridge => {
                let ids: Vec<ReplicaId> = cluster.ids().collect();
                let odd = |id: &ReplicaId| id.number() % 2 == 1 && *id != leader;
                let bridges: Vec<ReplicaId> = ids.into_iter().filter(odd).collect();
                Shape::Bridge(*cluster.rng.pick(&bridges))
            }
            Self::LeaderMute => Shape::Mute(leader),
            Self::LeaderDeaf => Shape::Deaf(leader),
            Self::FollowerMute => Shape::Mute(other),
            Self::FollowerDeaf => Shape::Deaf(other),
            Self::ToFollower => Shape::OneWay(leader, other),
            Self::FromFollower => Shape::OneWay(other, leader),
            Self::FlappingLink => return flap(cluster, other, &[leader]),
            Self::FlappingFollower => {
                let others: Vec<ReplicaId> = cluster.ids().filter(|id| *id != other).collect();
                return flap(cluster, other, &others);
            }
        };
        cluster.remark(format!("{self}: {shape:?}"));
        cluster.network.shape(&shape);
    }
}

/// All links between one replica and these are cut and joined together.
fn flap(cluster: &mut Cluster, one: ReplicaId, others: &[ReplicaId]) {
    let flap = cluster.draw_flap();
    cluster.remark(format!("links of {one} to {others:?} flap: {flap:?}"));
    for other in others {
        cluster.network.flap(one, *other, flap);
        cluster.network.flap(*other, one, flap);
    }
}

fn shuffled(cluster: &mut Cluster) -> Vec<ReplicaId> {
    let mut left: Vec<ReplicaId> = cluster.ids().collect();
    let mut row = Vec::new();
    while !left.is_empty() {
        row.push(left.swap_remove(cluster.rng.below(left.len() as u64) as usize));
    }
    row
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
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
        })
    }
}

/// No preset has this name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UnknownPreset(pub String);

impl fmt::Display for UnknownPreset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no preset is called {}; there are", self.0)?;
        Preset::ALL.iter().try_for_each(|preset| write!(f, " {preset}"))
    }
}

impl std::error::Error for UnknownPreset {}

impl FromStr for Preset {
    type Err = UnknownPreset;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|preset| preset.to_string() == name);
        found.ok_or_else(|| UnknownPreset(name.to_owned()))
    }
}

/// A preset in a cluster of one size.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Case {
    /// What is broken.
    pub preset: Preset,
    /// How many voters there are: one of [`Preset::sizes`].
    pub replicas: u16,
}

impl Case {
    /// Every preset in every size that it has.
    pub fn all() -> Vec<Self> {
        Preset::ALL.into_iter().flat_map(Self::of).collect()
    }

    /// A preset in every size that it has.
    pub fn of(preset: Preset) -> impl Iterator<Item = Self> {
        preset.sizes().iter().map(move |replicas| Self { preset, replicas: *replicas })
    }
}
