//! What the observer makes of memberships: who governs which slot, by what is chosen.
//!
//! Source: protocol.md §4 (M1, M6, M7), reckoned anew from the chosen values alone.

use std::sync::Arc;

use super::{Check, Invariant, place_of};
use crate::ids::{Epoch, ReplicaId, Slot};
use crate::membership::Membership;
use crate::quorum::VoterSet;
use crate::snapshot::Governs;
use crate::value::Value;

impl Check {
    /// The window α, which never changes.
    pub fn window(&self) -> u64 {
        u64::from(self.governs[0].1.window())
    }

    /// Who governs a slot, if nothing is chosen that says otherwise later.
    pub fn governing(&self, slot: Slot) -> &Arc<Membership> {
        let span = self.governs.iter().rev().find(|(from, _)| *from <= slot);
        &span.unwrap_or(&self.governs[0]).1
    }

    /// The newest membership that governs from some slot on.
    pub fn newest(&self) -> &Arc<Membership> {
        &self.governs[self.governs.len() - 1].1
    }

    /// Who governs the slots above this one, as far as the slots up to it tell.
    pub(super) fn governs_above(&self, slot: Slot) -> Vec<Governs> {
        let here = self.governs.iter().rposition(|(from, _)| *from <= slot.next());
        let end = slot.plus(self.window());
        let above = self.governs[here.unwrap_or_default()..].iter();
        let above = above.filter(|(from, _)| *from <= end);
        let says = |(from, membership): &(Slot, Arc<Membership>)| Governs {
            from: *from,
            membership: (**membership).clone(),
        };
        above.map(says).collect()
    }

    /// How many memberships were chosen after the first, and how many that govern nothing.
    pub fn memberships(&self) -> (u64, u64) {
        (self.governs.len() as u64 - 1, self.voids)
    }

    /// Whether these replicas, by their places, are an accept quorum for a slot.
    pub(super) fn is_accept_quorum(&self, slot: Slot, places: VoterSet) -> bool {
        let membership = self.governing(slot);
        let voters = membership.voters_where(|id| places.contains(place_of(id)));
        membership.quorums().is_accept_quorum(voters)
    }

    /// The chosen prefix has just grown by one slot. Rule M1.
    pub(super) fn extend_governs(&mut self) {
        let slot = self.chosen_prefix;
        let Some(Value::Membership(next)) = self.chosen(slot) else {
            return;
        };
        let next = next.clone();
        let (from, newest) = &self.governs[self.governs.len() - 1];
        let follows = next.epoch() == newest.epoch().next()
            && next.window() == newest.window()
            && next.lease() == newest.lease();
        if !follows || slot < *from {
            self.voids += 1;
            return;
        }
        let from = slot.plus(self.window());
        let early = self.slots.range(from..).next().map(|(slot, _)| *slot);
        self.require(early.is_none(), Invariant::WindowBound, || {
            format!("{early:?} is used before it is known who governs it")
        });
        self.governs.push((from, next));
    }

    /// A replica writes who governs.
    pub(super) fn check_governs(&mut self, by: ReplicaId, from: Slot, membership: &Membership) {
        let known = self.governs.iter().any(|(at, known)| *at == from && **known == *membership);
        self.require(known, Invariant::CommittedPrefix, || {
            format!("{by} records that {} governs from {from}", membership.epoch())
        });
    }

    /// Whether the voters of the membership at this place of the list hold every slot before it.
    fn is_held(&self, place: usize) -> bool {
        let (from, membership) = &self.governs[place];
        let holds = |id| {
            let replica = &self.replicas[place_of(id)];
            replica.durable_committed.max(replica.snapshot) >= from.previous()
        };
        membership.quorums().is_accept_quorum(membership.voters_where(holds))
    }

    /// A replica stops because the membership of this epoch goes on without it. Rule M6.
    pub fn removed(&mut self, id: ReplicaId, epoch: Epoch) {
        let place = self.governs.iter().position(|(_, membership)| membership.epoch() == epoch);
        let fits =
            place.is_some_and(|place| !self.governs[place].1.contains(id) && self.is_held(place));
        self.require(fits, Invariant::NoHalt, || {
            format!("{id} stops, as {epoch} needs it no more, which is not so")
        });
    }

    /// The memberships without whose quorums the cluster may stand still: that of each slot that the
    /// next one's voters do not hold yet, and every one that is proposed and may yet be chosen.
    pub fn needed(&self) -> Vec<Arc<Membership>> {
        let last = self.governs.len() - 1;
        let held = (0..=last).rev().find(|place| *place == 0 || self.is_held(*place));
        let known = self.governs[held.unwrap_or_default()..].iter();
        let mut needed: Vec<_> = known.map(|(_, membership)| membership.clone()).collect();
        let newest = self.newest().epoch();
        for (_, history) in self.slots.range(self.chosen_prefix.next()..) {
            for (_, value) in &history.proposed {
                if let Value::Membership(membership) = value
                    && membership.epoch() > newest
                    && !needed.contains(membership)
                {
                    needed.push(membership.clone());
                }
            }
        }
        needed
    }
}
