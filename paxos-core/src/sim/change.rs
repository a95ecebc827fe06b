//! Changes of the membership: an operator who asks for them, and who becomes a member.
//!
//! Owns: nothing; a part of the cluster. Whether a leader proposes a change, and when it is chosen, is
//! for it and its peers; what governs then is [`super::Check`]'s account.
//! Invariant: an id is given to one replica, and never again once it was removed.

use super::cluster::Cluster;
use super::host::Process;
use super::marks::Mark;
use super::rng::Rng;
use super::suffer::seat;
use crate::ids::ReplicaId;
use crate::membership::{Change, Member, Membership};
use crate::output::{Proposed, ReconfigureError};
use crate::port::Format;
use crate::quorum::QuorumRule;

/// More voters than this are not asked for.
const VOTERS_WANTED: usize = 7;

impl Cluster {
    /// Asks a bare replica to change the membership; none while it is down or stands still.
    pub fn change(
        &mut self,
        id: ReplicaId,
        change: Change,
    ) -> Option<Result<Proposed, ReconfigureError>> {
        let node = self.node(id);
        if !node.is_up() || node.paused_until > self.now || self.fleet.is_some() {
            return None;
        }
        let mut answer = None;
        self.input(id, |replica, now| answer = Some(replica.reconfigure(change, now)));
        if let Some(Ok(_)) = &answer {
            self.totals.changes += 1;
        }
        answer
    }

    /// An operator asks whoever leads for a change that these bits draw from what the leader says the
    /// membership is.
    pub(super) fn ask_for_change(&mut self, bits: u64) {
        let Some(leader) = self.leader() else { return };
        let process = self.node_mut(leader).process.as_mut();
        let Some(replica) = process.and_then(Process::replica) else { return };
        let membership = replica.membership().clone();
        let fresh = (1..)
            .zip(&self.nodes)
            .find(|(number, node)| !node.placed && !membership.contains(ReplicaId::new(*number)));
        let fresh = fresh.map(|(number, _)| Member::new(ReplicaId::new(number)));
        if let Some(change) = draw_change(&membership, fresh, bits) {
            // A refusal changes nothing.
            let _ = self.change(leader, change);
        }
    }

    /// Whoever is a member of a membership that is known to be chosen gets a directory, formatted with
    /// it, and is started.
    pub(super) fn place_newcomers(&mut self) {
        let newest = self.check.newest().clone();
        for member in newest.members() {
            let (id, format) = (member.id, self.format.clone());
            if usize::from(id.number()) > self.nodes.len() || self.node(id).placed {
                continue;
            }
            let membership = (*newest).clone();
            let node = self.node_mut(id);
            node.storage = node.storage.blank(Format { replica: id, membership, ..format });
            node.placed = true;
            self.remark(format!("{id} joins with {}", newest.epoch()));
            let soon = self.options.config.heartbeat_interval;
            let delay = self.rng.duration(core::time::Duration::ZERO, soon);
            self.restart_after(id, delay);
        }
    }

    /// A replica has stopped, as a later membership goes on without it. It stays down.
    pub(super) fn is_removed(&mut self, id: ReplicaId) {
        self.totals.removals += 1;
        self.trouble.down.insert(seat(id));
        if self.node(id).led {
            self.watch.meet(Mark::LeaderRemoved);
        }
    }
}

/// A change that makes sense to whoever leads, or nearly.
fn draw_change(membership: &Membership, fresh: Option<Member>, bits: u64) -> Option<Change> {
    let mut rng = Rng::new(bits);
    let voters = membership.voters().to_vec();
    let some = rng.pick(&voters).clone();
    let few = voters.len() < VOTERS_WANTED;
    Some(match rng.below(10) {
        0..=2 if few => Change::AddVoter(fresh?),
        3 if few => Change::AddObserver(fresh?),
        0..=4 => Change::Remove(some.id),
        5 | 6 => Change::Replace { old: some.id, new: fresh? },
        7 => {
            let count = voters.len() as u16;
            let accept = rng.between(1, u64::from(count)) as u16;
            Change::Quorums(QuorumRule::accepting(count, accept))
        }
        8 => Change::Quorums(QuorumRule::Majority),
        _ => {
            let everybody = membership.members().cloned();
            let voters = everybody.filter(|_| rng.chance(600)).take(VOTERS_WANTED).collect();
            Change::Set { voters, observers: Vec::new(), rule: QuorumRule::Majority }
        }
    })
}
