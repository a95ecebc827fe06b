//! The replica among its members: who governs, whose words are heard, who is told to go.
//!
//! Owns no state of its own; keeps peers, timers and flows in step with the roster.
//! Invariants: a membership governs by the committed prefix alone (M1); what it is, is on record before
//! anything rests on it (M7); nobody stops before the next membership's voters hold its slots (M6).
//! Source: protocol.md §4. What a leader does about a change is next door, in `reconfigure`.

use std::sync::Arc;

use super::Replica;
use crate::ballot::Ballot;
use crate::durable::{Write, WriteSequence};
use crate::ids::{Epoch, ReplicaId, Slot};
use crate::membership::{Joining, Member, Membership};
use crate::message::{Connectivity, Origin, Removed};
use crate::output::{Halt, JoiningStatus, Recipients};
use crate::proposer::Proposer;
use crate::snapshot::Governs;

impl Replica {
    /// Who governs the slots above this one, which is applied: what a snapshot of it says. Nothing if
    /// this replica does not know, so that it can make no snapshot of that slot: a joiner before it has
    /// committed the membership that made it known, and nobody else for a slot above its newest
    /// durable snapshot.
    pub fn governs_above(&self, slot: Slot) -> Option<Vec<Governs>> {
        self.roster.above(slot)
    }

    /// The memberships that are needed, oldest first, each with the first slot that it governs: one, and
    /// more from when a change is committed until the newest is all that is needed. A replica that joins
    /// does not know that slot yet.
    pub fn memberships(&self) -> Vec<(Option<Slot>, Arc<Membership>)> {
        self.roster.memberships()
    }

    /// The numbers of the oldest and the newest of them.
    pub fn epochs(&self) -> (Epoch, Epoch) {
        self.roster.epochs()
    }

    /// Whom this replica has to do with, itself included: the members of [`Replica::memberships`], at the
    /// addresses and with the keys of all of them, the newest's first.
    pub fn members(&self) -> Vec<Member> {
        self.roster.members()
    }

    /// Those that are to vote once they have caught up, and how far their disks are as far as was heard.
    pub(super) fn joining(&self) -> Vec<JoiningStatus> {
        let joining = self.roster.newest().joining().iter();
        let status = |joining: &Joining| {
            let Joining { id, replaces } = *joining;
            let own = id == self.outbox.replica();
            let held = if own { self.held } else { self.pacemaker.held(id) };
            JoiningStatus { id, replaces, held }
        };
        joining.map(status).collect()
    }

    /// Rule E2.
    pub(super) fn connectivity(&self) -> Connectivity {
        let mut open = self.roster.open(self.learner.committed());
        if open.all(|membership| self.pacemaker.reaches(membership, self.now)) {
            Connectivity::Quorum
        } else {
            Connectivity::Partial
        }
    }

    /// Whether this replica votes in any membership that is kept.
    pub(super) fn is_voter(&self) -> bool {
        self.roster.is_voter(self.outbox.replica())
    }

    /// Rule M8: only a voter of an open membership, and only if it knows what is open.
    pub(super) fn may_campaign(&self) -> bool {
        let own = self.outbox.replica();
        let committed = self.learner.committed();
        let mut open = self.roster.open(committed);
        self.roster.is_exact(committed)
            && open.any(|membership| membership.voter_index(own).is_some())
    }

    /// The voters of the memberships that govern the open slots, each once.
    pub(super) fn open_voters(&self) -> Vec<ReplicaId> {
        let mut voters = Vec::new();
        for membership in self.roster.open(self.learner.committed()) {
            for member in membership.voters() {
                if !voters.contains(&member.id) {
                    voters.push(member.id);
                }
            }
        }
        voters
    }

    /// Whether anything that this replica says is heard: a member, or one that may be a member of a
    /// membership that is not known here yet. Others are told if they were removed. Rule M6.
    pub(super) fn listens_to(&mut self, from: ReplicaId, theirs: Origin) -> bool {
        if self.peers.contains(&from) {
            return true;
        }
        let newest = self.outbox.origin().epoch;
        if from == self.outbox.replica() {
            return false;
        }
        if theirs.epoch > newest {
            return true;
        }
        if self.roster.is_exact(self.learner.committed())
            && newest > Epoch::FIRST
            && self.settled().is_some_and(|(_, membership)| !membership.contains(from))
        {
            let (from_slot, epoch) = (self.roster.newest_from(), newest);
            let removed = Removed { epoch, from: from_slot };
            self.outbox.send(Recipients::One(from), removed);
        }
        false
    }

    /// The only membership that is kept, if no earlier one is needed any more. Rule M6.
    pub(super) fn settled(&self) -> Option<(Slot, &Arc<Membership>)> {
        let (from, membership) = self.roster.oldest()?;
        let alone = membership.epoch() == self.roster.newest().epoch();
        (alone && self.is_held(from, membership)).then_some((from, membership))
    }

    /// Whether an accept quorum of this membership will know, after any restart, of every slot before
    /// the first that it governs. Rule M6.
    fn is_held(&self, from: Slot, membership: &Membership) -> bool {
        let own = self.outbox.replica();
        let held = |id| if id == own { self.held } else { self.pacemaker.held(id) };
        let holding = membership.voters_where(|id| held(id) >= from.previous());
        membership.quorums().is_accept_quorum(holding)
    }

    /// A membership is committed. Returns the write that records from where it governs, if it does.
    /// Rules M1 and M7.
    pub(super) fn govern(
        &mut self,
        slot: Slot,
        membership: &Arc<Membership>,
    ) -> Option<WriteSequence> {
        let from = self.roster.on_committed(slot, membership)?;
        self.counters.memberships += 1;
        self.outbox.write(Write::Governs { from, membership: membership.clone() });
        self.follow_roster();
        self.ask_promises();
        Some(self.outbox.open_batch())
    }

    /// Peers are the members of the memberships that are kept.
    pub(super) fn follow_roster(&mut self) {
        let peers = self.roster.peers(self.outbox.replica());
        self.pacemaker.set_peers(&peers, &self.roster);
        self.flows.set_peers(&peers);
        self.catchup.set_peers(&peers);
        self.outbox.set_membership(self.roster.newest());
        self.peers = peers;
    }

    /// What the log's record says of the committed prefix has become durable.
    pub(super) fn note_held(&mut self) {
        while let Some((written, slot)) = self.recording.front().copied()
            && self.outbox.is_durable(written)
        {
            self.held = slot;
            self.recording.pop_front();
        }
    }

    /// Gives up a membership whose slots others hold, and stops if this replica was a member of that
    /// one alone. Rules M6 and M10.
    pub(super) fn review_members(&mut self) {
        let committed = self.learner.committed();
        if self.roster.is_long_gone(committed) {
            // This replica was away. Those who could say that they hold its slots may be gone, too.
            while self.roster.is_long_gone(committed) {
                self.roster.give_up_oldest();
            }
            self.follow_roster();
        }
        let outgoing = self.roster.outgoing(committed).filter(|_| !self.follows_one_that_leaves());
        if outgoing.is_some_and(|(from, membership)| self.is_held(from, membership)) {
            let own = self.outbox.replica();
            let leaves = !self.roster.newest().contains(own);
            if leaves && (self.transferring().is_some() || self.makes_way()) {
                // The one that takes over has the time of the transfer to do so.
                return;
            }
            self.roster.give_up_oldest();
            self.reads.ask_others();
            self.follow_roster();
            if !self.roster.contains(own) {
                let (epoch, from) = (self.roster.newest().epoch(), self.roster.newest_from());
                self.step_down();
                self.halt(Halt::Removed { epoch, from });
                return;
            }
        }
        self.lead_change();
    }

    /// Whether the leader that this replica hears and follows is a member no longer: it is listened to
    /// until it has made way (M10).
    fn follows_one_that_leaves(&self) -> bool {
        let own = self.outbox.replica();
        let leader = self.leader().map(Ballot::leader).filter(|leader| *leader != own);
        leader.is_some_and(|leader| !self.roster.newest().contains(leader))
    }

    /// Rule M6: others go on without this replica.
    pub(super) fn on_removed(&mut self, removed: Removed) {
        let newest = self.roster.newest();
        let of_now = removed.epoch == newest.epoch();
        if removed.epoch < newest.epoch() || of_now && newest.contains(self.outbox.replica()) {
            // Said of an absence that is over, or late.
            self.counters.dropped_stale += 1;
            return;
        }
        let Removed { epoch, from } = removed;
        if matches!(self.proposer, Proposer::Preparing(_) | Proposer::Leading(_)) {
            self.step_down();
        }
        self.halt(Halt::Removed { epoch, from });
    }
}
