//! What a script can wait for.
//!
//! Owns: [`Await`].

use crate::ids::{Epoch, ReplicaId, Slot};
use crate::message::Connectivity;
use crate::output::Role;
use crate::sim::cluster::Cluster;
use crate::sim::kind::Kind;

/// Something that is to become true.
#[derive(Clone, Debug)]
pub(super) enum Await {
    /// These replicas lead, and reach a quorum.
    Leader(Vec<ReplicaId>),
    /// These follow nobody, and lead nobody.
    Leaderless(Vec<ReplicaId>),
    /// These campaign.
    Candidate(Vec<ReplicaId>),
    /// These all follow the same leader, and it is the first of them.
    Follow(Vec<ReplicaId>),
    /// An accept quorum voted for one value in this slot.
    Chosen(Slot),
    /// These know that all up to this slot is chosen.
    Committed(Slot, Vec<ReplicaId>),
    /// These have applied everything that is chosen.
    Applied(Vec<ReplicaId>),
    /// These stopped for good.
    Halted(Vec<ReplicaId>),
    /// The newest membership that these know has this epoch.
    Epoch(Epoch, Vec<ReplicaId>),
    /// A message of this kind is kept back.
    Held(Kind),
    /// These have a durable snapshot of this slot or a later one.
    Kept(Slot, Vec<ReplicaId>),
    /// These have received a part of a snapshot, and not all of it.
    Taking(Vec<ReplicaId>),
}

impl Await {
    pub(super) fn holds(&self, cluster: &mut Cluster) -> bool {
        let status = |cluster: &Cluster, id: &ReplicaId| cluster.status(*id);
        match self {
            Self::Leader(ids) => ids.iter().all(|id| {
                status(cluster, id).is_some_and(|status| {
                    status.role == Role::Leader && status.connectivity == Connectivity::Quorum
                })
            }),
            Self::Leaderless(ids) => ids
                .iter()
                .all(|id| status(cluster, id).is_some_and(|status| status.leader.is_none())),
            Self::Candidate(ids) => ids
                .iter()
                .all(|id| status(cluster, id).is_some_and(|status| status.role == Role::Candidate)),
            Self::Follow(ids) => {
                let leader = ids.first().and_then(|id| status(cluster, id)?.leader);
                leader.is_some_and(|ballot| Some(&ballot.leader()) == ids.first())
                    && ids
                        .iter()
                        .all(|id| status(cluster, id).is_some_and(|status| status.leader == leader))
            }
            Self::Chosen(slot) => cluster.check().chosen(*slot).is_some(),
            Self::Committed(slot, ids) => ids
                .iter()
                .all(|id| status(cluster, id).is_some_and(|status| status.committed >= *slot)),
            Self::Applied(ids) => {
                let prefix = cluster.check().chosen_prefix();
                let applied = |id| status(cluster, id).is_some_and(|s| s.applied == prefix);
                ids.iter().all(applied)
            }
            Self::Halted(ids) => ids.iter().all(|id| cluster.halted(*id).is_some()),
            Self::Kept(slot, ids) => ids.iter().all(|id| cluster.newest_snapshot(*id) >= *slot),
            Self::Taking(ids) => ids.iter().all(|id| cluster.is_taking(*id)),
            Self::Epoch(epoch, ids) => ids
                .iter()
                .all(|id| status(cluster, id).is_some_and(|status| status.epoch == *epoch)),
            Self::Held(kind) => cluster.held().iter().any(|held| held.kind == *kind),
        }
    }
}
