//! Which membership governs which slot (the window α of a reconfigurable state machine).
//!
//! Owns: [`Roster`]: the memberships that the committed prefix holds and that are still needed, each with
//! the first slot that it governs. Knows no ballots, no peers' words and no time.
//! Invariants: what governs a slot is a function of the log up to α slots before it (M1); two
//! memberships begin at least α slots apart, so the α slots after any prefix have two at most; a
//! membership is kept until every slot of it is chosen and the next one's voters hold that (M6).
//! Source: protocol.md §4; Lamport, Malkhi, Zhou, "Reconfiguring a State Machine" (the window α).

use std::collections::VecDeque;
use std::sync::Arc;

use crate::ids::{Epoch, ReplicaId, Slot};
use crate::membership::Membership;
use crate::snapshot::{Governs, SnapshotMeta};

/// A membership and the first slot that it governs.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Span {
    from: Slot,
    membership: Arc<Membership>,
}

/// Who governs what.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Roster {
    /// In rising order; those of the future last.
    spans: VecDeque<Span>,
    /// The newest membership of the committed prefix: its epoch, and from where it governs.
    newest: (Epoch, Slot),
    /// A replica that was formatted with a later membership than the first does not know from where
    /// that one governs before it has committed it; till then it stands for all.
    joins: Option<Arc<Membership>>,
    window: u32,
}

impl Roster {
    /// What a replica knows when it starts: what it was formatted with, and what its log recorded, in
    /// rising order of slots, or its newest snapshot says.
    pub(crate) fn recovered(
        format: Membership,
        governs: Vec<Governs>,
        snapshot: Option<&SnapshotMeta>,
        committed: Slot,
    ) -> Self {
        let window = format.window();
        let mut roster = Self {
            spans: VecDeque::new(),
            newest: (Epoch::FIRST, Slot::new(1)),
            joins: None,
            window,
        };
        if format.epoch() == Epoch::FIRST {
            let from = Slot::new(1);
            roster.spans.push_back(Span { from, membership: Arc::new(format) });
        } else {
            roster.joins = Some(Arc::new(format));
        }
        for Governs { from, membership } in governs {
            roster.add(from, &Arc::new(membership));
        }
        if let Some(snapshot) = snapshot {
            roster.install(&snapshot.governs);
        }
        // Whoever proposed a change had seen to it that the one before the newest is needed no more.
        let here = roster.spans.iter().rposition(|span| span.from <= committed.next());
        for _ in 1..here.unwrap_or_default() {
            roster.spans.pop_front();
        }
        roster
    }

    /// What a snapshot says of the slots above it.
    pub(crate) fn install(&mut self, governs: &[Governs]) {
        let newest = governs.last().expect("somebody governs every slot");
        let epoch = newest.membership.epoch();
        if epoch < self.newest.0 || epoch == self.newest.0 && self.is_exact() {
            return;
        }
        self.spans.clear();
        self.joins = None;
        for Governs { from, membership } in governs {
            self.newest = (membership.epoch(), *from);
            self.spans.push_back(Span { from: *from, membership: Arc::new(membership.clone()) });
        }
    }

    /// α.
    pub(crate) fn window(&self) -> u64 {
        u64::from(self.window)
    }

    /// A membership is committed in this slot, next after those known. Returns from where on it
    /// governs; nothing if it does not. Rule M1.
    pub(crate) fn on_committed(
        &mut self,
        slot: Slot,
        membership: &Arc<Membership>,
    ) -> Option<Slot> {
        if !self.may_follow(slot, membership) {
            return None;
        }
        let from = slot.plus(self.window());
        self.add(from, membership);
        Some(from)
    }

    /// Rule M1.
    fn may_follow(&self, slot: Slot, membership: &Membership) -> bool {
        let (epoch, from) = self.newest;
        let same = self.newest().lease() == membership.lease();
        membership.epoch() == epoch.next()
            && slot >= from
            && membership.window() == self.window
            && same
    }

    fn add(&mut self, from: Slot, membership: &Arc<Membership>) {
        let epoch = membership.epoch();
        if epoch <= self.newest.0 {
            return;
        }
        self.newest = (epoch, from);
        if self.joins.as_ref().is_some_and(|joins| epoch < joins.epoch()) {
            return;
        }
        self.joins = None;
        self.spans.push_back(Span { from, membership: membership.clone() });
    }

    /// Whether this replica knows who governs the slots after its committed prefix.
    pub(crate) fn is_exact(&self) -> bool {
        self.joins.is_none()
    }

    /// Who governs this slot: one after the committed prefix, and at most α after it.
    pub(crate) fn governing(&self, slot: Slot) -> &Arc<Membership> {
        if let Some(joins) = &self.joins {
            return joins;
        }
        let span = self.spans.iter().rev().find(|span| span.from <= slot);
        let span = span.or(self.spans.front()).expect("somebody governs every slot");
        &span.membership
    }

    /// The one or two memberships that govern the α slots after the committed prefix.
    pub(crate) fn open(&self, committed: Slot) -> impl Iterator<Item = &Arc<Membership>> {
        let here = self.governing(committed.next());
        let end = self.governing(committed.plus(self.window()));
        let other = (here.epoch() != end.epoch()).then_some(end);
        core::iter::once(here).chain(other)
    }

    /// The membership of this epoch, if it is kept.
    pub(crate) fn find(&self, epoch: Epoch) -> Option<&Arc<Membership>> {
        self.kept().find(|membership| membership.epoch() == epoch)
    }

    /// Who governs the slots above this one, which is committed, as far as the log up to it tells. What
    /// is kept no longer governs slots that the next one's voters hold (M6), so it stands in its place.
    pub(crate) fn above(&self, slot: Slot) -> Vec<Governs> {
        let known = self.spans.iter().filter(|span| span.from <= slot.plus(self.window()));
        let here = self.spans.iter().rposition(|span| span.from <= slot.next());
        let above = known.skip(here.unwrap_or_default());
        let governs = |span: &Span| {
            let membership = (*span.membership).clone();
            Governs { from: span.from, membership }
        };
        let above: Vec<Governs> = above.map(governs).collect();
        if above.is_empty() {
            let membership = (**self.governing(slot.next())).clone();
            return vec![Governs { from: slot.next(), membership }];
        }
        above
    }

    /// The newest membership of the committed prefix; that of the format before it is reached.
    pub(crate) fn newest(&self) -> &Arc<Membership> {
        let newest = self.spans.back().map(|span| &span.membership);
        self.joins.as_ref().or(newest).expect("somebody governs every slot")
    }

    /// The first slot that the newest membership governs.
    pub(crate) fn newest_from(&self) -> Slot {
        self.newest.1
    }

    /// The oldest membership that may be given up when its successor's voters hold every slot before the
    /// one named, and that successor.
    pub(crate) fn outgoing(&self, committed: Slot) -> Option<(Slot, &Arc<Membership>)> {
        let next = self.spans.get(1).filter(|span| span.from <= committed.next())?;
        Some((next.from, &next.membership))
    }

    /// Whether the memberships before the last but one are needed no more: whoever proposed the last one
    /// had seen to it (M4).
    pub(crate) fn is_long_gone(&self, committed: Slot) -> bool {
        self.spans.len() > 2 && self.spans[1].from <= committed.next()
    }

    /// The oldest membership kept, with the first slot that it governs.
    pub(crate) fn oldest(&self) -> Option<(Slot, &Arc<Membership>)> {
        self.spans.front().map(|span| (span.from, &span.membership))
    }

    /// The oldest membership is needed no more. Rule M6.
    pub(crate) fn give_up_oldest(&mut self) {
        assert!(self.spans.len() > 1, "somebody governs every slot");
        self.spans.pop_front();
    }

    /// Everybody who is a member of a membership that is kept, but this replica: in the order of the
    /// memberships.
    pub(crate) fn peers(&self, own: ReplicaId) -> Vec<ReplicaId> {
        let mut peers = Vec::new();
        for member in self.kept().flat_map(|membership| membership.members()) {
            if member.id != own && !peers.contains(&member.id) {
                peers.push(member.id);
            }
        }
        peers
    }

    /// Whether this replica is a member of a membership that is kept.
    pub(crate) fn contains(&self, id: ReplicaId) -> bool {
        self.kept().any(|membership| membership.contains(id))
    }

    /// Whether this replica votes in a membership that is kept.
    pub(crate) fn is_voter(&self, id: ReplicaId) -> bool {
        self.kept().any(|membership| membership.voter_index(id).is_some())
    }

    fn kept(&self) -> impl Iterator<Item = &Arc<Membership>> {
        self.spans.iter().map(|span| &span.membership).chain(&self.joins)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;
    use crate::membership::{Change, Member};

    fn id(number: u16) -> ReplicaId {
        ReplicaId::new(number)
    }

    fn first() -> Membership {
        let voters = vec![Member::new(id(1))];
        let rule = crate::quorum::QuorumRule::Majority;
        Membership::new(Epoch::FIRST, voters, Vec::new(), rule, 8).unwrap()
    }

    fn with(membership: &Membership, observer: u16) -> Arc<Membership> {
        let change = Change::AddObserver(Member::new(id(observer)));
        Arc::new(membership.changed(change).unwrap())
    }

    #[test]
    fn a_membership_governs_alpha_slots_after_its_own() {
        let mut roster = Roster::recovered(first(), Vec::new(), None, Slot::ZERO);
        let second = with(&first(), 2);
        assert_eq!(roster.on_committed(Slot::new(3), &second), Some(Slot::new(11)));
        let epoch = |roster: &Roster, slot| roster.governing(Slot::new(slot)).epoch().number();
        assert_eq!([epoch(&roster, 10), epoch(&roster, 11), epoch(&roster, 99)], [1, 2, 2]);
        let open = |roster: &Roster, at: u64| {
            roster.open(Slot::new(at)).map(|m| m.epoch().number()).collect::<Vec<_>>()
        };
        assert_eq!(open(&roster, 2), [1]);
        assert_eq!(open(&roster, 3), [1, 2]);
        assert_eq!(open(&roster, 9), [1, 2]);
        assert_eq!(open(&roster, 10), [2]);
        assert_eq!(roster.peers(id(1)), [id(2)]);
        assert_eq!(roster.outgoing(Slot::new(9)), None);
        assert!(roster.outgoing(Slot::new(10)).is_some());
    }

    #[test]
    fn what_does_not_follow_governs_nothing() {
        let mut roster = Roster::recovered(first(), Vec::new(), None, Slot::ZERO);
        let second = with(&first(), 2);
        let rival = with(&first(), 3);
        let third = with(&second, 4);
        assert_eq!(roster.on_committed(Slot::new(3), &third), None, "an epoch is missing");
        assert_eq!(roster.on_committed(Slot::new(4), &second), Some(Slot::new(12)));
        assert_eq!(roster.on_committed(Slot::new(5), &rival), None, "the epoch is taken");
        assert_eq!(roster.on_committed(Slot::new(11), &third), None, "the first one still governs");
        assert_eq!(roster.on_committed(Slot::new(12), &third), Some(Slot::new(20)));
    }

    #[test]
    fn whoever_joins_learns_from_the_log_from_where_its_membership_governs() {
        let second = with(&first(), 2);
        let third = with(&second, 3);
        let mut roster = Roster::recovered((*third).clone(), Vec::new(), None, Slot::ZERO);
        assert!(!roster.is_exact());
        assert_eq!(roster.on_committed(Slot::new(4), &second), Some(Slot::new(12)));
        assert!(!roster.is_exact());
        assert_eq!(roster.on_committed(Slot::new(12), &third), Some(Slot::new(20)));
        assert!(roster.is_exact());
        let written = |from, membership: &Arc<Membership>| {
            let membership = (**membership).clone();
            Governs { from: Slot::new(from), membership }
        };
        let half =
            Roster::recovered((*third).clone(), vec![written(12, &second)], None, Slot::new(5));
        assert!(!half.is_exact());
        let whole = vec![written(12, &second), written(20, &third)];
        assert_eq!(Roster::recovered((*third).clone(), whole, None, Slot::new(12)), roster);
    }
}
