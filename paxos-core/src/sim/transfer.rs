//! Leaders that are asked to make way.
//!
//! Owns: nothing; a part of the cluster. Whether a leader does, and for whom, is for it to decide.

use super::cluster::Cluster;
use super::host::Stimulus;
use crate::ids::ReplicaId;
use crate::output::TransferError;

impl Cluster {
    /// Asks a bare replica to make way for another; none while it is down or stands still.
    pub fn transfer(&mut self, id: ReplicaId, to: ReplicaId) -> Option<Result<(), TransferError>> {
        let node = self.node(id);
        if !node.is_up() || node.paused_until > self.now || self.fleet.is_some() {
            return None;
        }
        let mut answer = None;
        self.input(id, |replica, now| answer = Some(replica.transfer(to, now)));
        answer
    }

    /// An operator asks whoever leads to make way.
    pub(super) fn ask_to_make_way(&mut self, to: ReplicaId) {
        let Some(leader) = self.leader() else { return };
        if self.fleet.is_none() {
            // A refusal changes nothing.
            let _ = self.transfer(leader, to);
        } else if self.node(leader).paused_until <= self.now {
            self.turn(leader, Stimulus::Transfer(to));
        }
    }
}
