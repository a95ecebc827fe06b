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
use crate::membership::{Member, Membership};
use crate::snapshot::{Governs, SnapshotMeta};

/// How many memberships are remembered that govern no open slot: a snapshot of an older slot names them.
const PAST_MAX: usize = 16;

/// A membership and the first slot that it governs.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Span {
    pub(crate) from: Slot,
    pub(crate) membership: Arc<Membership>,
}

/// Who governs what.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Roster {
    /// In rising order; those of the future last.
    spans: VecDeque<Span>,
    /// What was given up, right before those: for snapshots of slots that they governed.
    past: VecDeque<Span>,
    /// The newest membership of the committed prefix: its epoch, and from where it governs.
    newest: (Epoch, Slot),
    /// A replica that was formatted with a later membership than the first does not know from where
    /// that one governs before it has committed it; till then it stands for all.
    joins: Option<Arc<Membership>>,
    window: u32,
}

impl Roster {
    /// What a replica knows when it starts: what it was formatted with, and what its log recorded, in
    /// rising order of slots.
    pub(crate) fn recovered(format: &Membership, governs: &[Governs]) -> Self {
        let format = Arc::new(format.clone());
        let mut roster = Self {
            spans: VecDeque::new(),
            past: VecDeque::new(),
            newest: (Epoch::FIRST, Slot::FIRST),
            joins: None,
            window: format.window(),
        };
        if format.epoch() == Epoch::FIRST {
            roster.spans.push_back(Span { from: Slot::FIRST, membership: format });
        } else {
            roster.joins = Some(format);
        }
        roster.install(governs);
        roster
    }

    /// The replica has committed this prefix. Whoever proposed a change had seen to it that the one
    /// before the newest is needed no more (M4).
    pub(crate) fn start_at(&mut self, committed: Slot) {
        let here = self.spans.iter().rposition(|span| span.from <= committed.next());
        for _ in 1..here.unwrap_or_default() {
            self.give_up_oldest();
        }
    }

    /// Takes in who governs according to the log's record or a snapshot, in rising order of slots.
    /// Returns what is new.
    pub(crate) fn install(&mut self, governs: &[Governs]) -> Vec<Span> {
        let mut learned = Vec::new();
        for Governs { from, membership } in governs {
            let span = Span { from: *from, membership: Arc::new(membership.clone()) };
            if self.add(span.clone()) {
                learned.push(span);
            }
        }
        learned
    }

    /// Whether a snapshot may be of this cluster: what it says of the slots above it follows M1, names
    /// somebody for the first of them, and fits what is known.
    pub(crate) fn admits(&self, meta: &SnapshotMeta) -> bool {
        let (Some(first), Some(last)) = (meta.governs.first(), meta.governs.last()) else {
            return false;
        };
        let follows = meta.governs.windows(2).all(|pair| {
            pair[1].from >= pair[0].from.plus(self.window())
                && pair[1].membership.epoch() == pair[0].membership.epoch().next()
        });
        let lease = self.newest().lease();
        let fits = |Governs { membership, .. }: &Governs| {
            membership.window() == self.window
                && membership.lease() == lease
                && self
                    .find(membership.epoch())
                    .is_none_or(|known| known.digest() == membership.digest())
        };
        let end = meta.slot.plus(self.window());
        first.from <= meta.slot.next()
            && last.from <= end
            && follows
            && meta.governs.iter().all(fits)
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
        self.add(Span { from, membership: membership.clone() });
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

    /// Returns whether this is new.
    fn add(&mut self, span: Span) -> bool {
        let epoch = span.membership.epoch();
        if epoch <= self.newest.0 {
            return false;
        }
        if epoch != self.newest.0.next() {
            // What stood in between is not known, and nobody needs what was before it (M4).
            self.spans.clear();
            self.past.clear();
        }
        self.newest = (epoch, span.from);
        self.spans.push_back(span);
        if self.joins.take_if(|joins| epoch >= joins.epoch()).is_some() {
            while self.spans.len() > 2 {
                self.give_up_oldest();
            }
        }
        true
    }

    /// Whether this replica knows who governs the slots after its committed prefix. One that joins does
    /// not, before the membership that it was formatted with governs, or the one before is known too.
    pub(crate) fn is_exact(&self, committed: Slot) -> bool {
        let knows = |span: &Span| span.from <= committed.next();
        self.joins.is_none() && self.spans.front().is_some_and(knows)
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

    /// Who governs the slots above this one, which is committed, as far as the log up to it tells.
    /// Nothing if this replica does not know: it joins, or asks for a slot far below what it has.
    pub(crate) fn above(&self, slot: Slot) -> Option<Vec<Governs>> {
        let known: Vec<&Span> = self.past.iter().chain(&self.spans).collect();
        let here = known.iter().rposition(|span| span.from <= slot.next())?;
        let end = slot.plus(self.window());
        let above = known[here..].iter().filter(|span| span.from <= end);
        let governs = |span: &&Span| {
            let membership = (*span.membership).clone();
            Governs { from: span.from, membership }
        };
        Some(above.map(governs).collect())
    }

    /// Nobody asks who governs a slot up to this one any more.
    pub(crate) fn forget(&mut self, through: Slot) {
        let later = |past: &VecDeque<Span>, spans: &VecDeque<Span>| {
            past.get(1).or(spans.front()).is_some_and(|span| span.from <= through.next())
        };
        while !self.past.is_empty() && later(&self.past, &self.spans) {
            self.past.pop_front();
        }
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
        if self.joins.is_some() {
            return None;
        }
        Some((next.from, &next.membership))
    }

    /// Whether the memberships before the last but one are needed no more: whoever proposed the last one
    /// had seen to it (M4).
    pub(crate) fn is_long_gone(&self, committed: Slot) -> bool {
        self.spans.len() > 2 && self.spans[1].from <= committed.next()
    }

    /// The oldest membership kept, with the first slot that it governs.
    pub(crate) fn oldest(&self) -> Option<(Slot, &Arc<Membership>)> {
        let oldest = self.spans.front().filter(|_| self.joins.is_none());
        oldest.map(|span| (span.from, &span.membership))
    }

    /// The oldest membership is needed no more. Rule M6.
    pub(crate) fn give_up_oldest(&mut self) {
        assert!(self.spans.len() > 1, "somebody governs every slot");
        self.past.extend(self.spans.pop_front());
        if self.past.len() > PAST_MAX {
            self.past.pop_front();
        }
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

    /// The memberships that are kept, oldest first, each with the first slot that it governs; one that
    /// joins does not know that slot yet.
    pub(crate) fn memberships(&self) -> Vec<(Option<Slot>, Arc<Membership>)> {
        let from = |membership: &Arc<Membership>| {
            let known = self.spans.iter().find(|span| Arc::ptr_eq(&span.membership, membership));
            known.map(|span| span.from).filter(|_| self.joins.is_none())
        };
        self.kept().map(|membership| (from(membership), Arc::clone(membership))).collect()
    }

    /// The numbers of the oldest and the newest membership that is kept.
    pub(crate) fn epochs(&self) -> (Epoch, Epoch) {
        let newest = self.newest().epoch();
        (self.kept().next().map_or(newest, |oldest| oldest.epoch()), newest)
    }

    /// Everybody who is a member of a membership that is kept, at the addresses and with the keys of
    /// all of them, the newest's first.
    pub(crate) fn members(&self) -> Vec<Member> {
        let mut members: Vec<Member> = Vec::new();
        let mut kept: Vec<_> = self.kept().collect();
        kept.reverse();
        for member in kept.iter().flat_map(|membership| membership.members()) {
            match members.iter_mut().find(|known| known.id == member.id) {
                None => members.push(member.clone()),
                Some(known) => {
                    let addresses = member.addresses.iter();
                    let others = addresses.filter(|address| !known.addresses.contains(address));
                    let others: Vec<_> = others.cloned().collect();
                    known.addresses.extend(others);
                    let keys = member.keys.iter().filter(|key| !known.keys.contains(key));
                    let keys: Vec<_> = keys.copied().collect();
                    known.keys.extend(keys);
                }
            }
        }
        members
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
        let known = self.spans.iter().filter(|_| self.joins.is_none());
        known.map(|span| &span.membership).chain(&self.joins)
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
        let mut roster = Roster::recovered(&first(), &[]);
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
        let mut roster = Roster::recovered(&first(), &[]);
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
        let mut roster = Roster::recovered(&third, &[]);
        assert!(!roster.is_exact(Slot::ZERO));
        assert_eq!(roster.above(Slot::ZERO), None);
        assert_eq!(roster.on_committed(Slot::new(4), &second), Some(Slot::new(12)));
        assert!(
            !roster.is_exact(Slot::new(11)),
            "the second one governs, and the third is to come"
        );
        assert_eq!(roster.above(Slot::new(4)), None, "the first one was never seen");
        assert_eq!(roster.above(Slot::new(11)).map(|above| above.len()), Some(1));
        assert_eq!(roster.on_committed(Slot::new(12), &third), Some(Slot::new(20)));
        assert!(roster.is_exact(Slot::new(12)));
        let written = |from, membership: &Arc<Membership>| {
            let membership = (**membership).clone();
            Governs { from: Slot::new(from), membership }
        };
        let half = Roster::recovered(&third, &[written(12, &second)]);
        assert!(!half.is_exact(Slot::new(12)));
        let whole = [written(12, &second), written(20, &third)];
        assert_eq!(Roster::recovered(&third, &whole), roster);
        // Who joins with the second membership never sees the first, which governs up to slot 11.
        let mut early = Roster::recovered(&second, &[]);
        assert_eq!(early.on_committed(Slot::new(4), &second), Some(Slot::new(12)));
        assert!(!early.is_exact(Slot::new(10)));
        assert!(early.is_exact(Slot::new(11)));
    }

    #[test]
    fn a_snapshot_of_an_older_slot_names_who_governed_after_it() {
        let mut roster = Roster::recovered(&first(), &[]);
        let second = with(&first(), 2);
        roster.on_committed(Slot::new(3), &second);
        let all = roster.above(Slot::new(3));
        assert_eq!(all.as_ref().map(Vec::len), Some(2));
        roster.give_up_oldest();
        assert_eq!(roster.above(Slot::new(3)), all, "given up or not");
        assert_eq!(roster.above(Slot::new(2)).map(|above| above.len()), Some(1));
        roster.forget(Slot::new(9));
        assert_eq!(roster.above(Slot::new(3)), all);
        roster.forget(Slot::new(10));
        assert_eq!(roster.above(Slot::new(3)), None);
        assert_eq!(roster.above(Slot::new(10)).map(|above| above.len()), Some(1));
    }

    #[test]
    fn a_snapshot_tells_of_memberships_that_no_log_told_of() {
        let second = with(&first(), 2);
        let third = with(&second, 3);
        let fourth = with(&third, 4);
        let says = |from, membership: &Arc<Membership>| {
            let membership = (**membership).clone();
            Governs { from: Slot::new(from), membership }
        };
        let epochs = |roster: &Roster| -> Vec<u32> {
            roster.spans.iter().map(|span| span.membership.epoch().number()).collect()
        };
        let mut roster = Roster::recovered(&first(), &[]);
        let learned = roster.install(&[says(20, &third), says(30, &fourth)]);
        assert_eq!((learned.len(), epochs(&roster)), (2, vec![3, 4]), "the first two are over");
        assert!(roster.install(&[says(20, &third)]).is_empty(), "nothing goes back");
        let mut next = Roster::recovered(&first(), &[]);
        assert_eq!(next.install(&[says(12, &second)]).len(), 1);
        assert_eq!(epochs(&next), [1, 2], "the first one may be needed yet");
        // One that knows less than a joiner leaves it one that joins.
        let mut joiner = Roster::recovered(&fourth, &[]);
        joiner.install(&[says(20, &third)]);
        assert!(!joiner.is_exact(Slot::new(25)));
        assert_eq!(joiner.newest().epoch(), Epoch::new(4));
        assert_eq!(joiner.on_committed(Slot::new(22), &fourth), Some(Slot::new(30)));
        assert!(joiner.is_exact(Slot::new(25)));
    }

    #[test]
    fn a_snapshot_of_another_cluster_is_seen_by_its_memberships() {
        let roster = Roster::recovered(&first(), &[]);
        let second = with(&first(), 2);
        let third = with(&second, 3);
        let meta = |governs: &[(u64, &Membership)]| SnapshotMeta {
            group: crate::ids::GroupId::default(),
            slot: Slot::new(20),
            clock: crate::ids::LogClock::default(),
            governs: governs
                .iter()
                .map(|(from, membership)| Governs {
                    from: Slot::new(*from),
                    membership: (*membership).clone(),
                })
                .collect(),
            bytes: 0,
            digest: crate::snapshot::ImageDigest::default(),
        };
        let admits = |governs: &[(u64, &Membership)]| roster.admits(&meta(governs));
        assert!(admits(&[(1, &first())]));
        assert!(admits(&[(12, &second), (28, &third)]));
        assert!(!admits(&[]), "nobody governs");
        assert!(!admits(&[(22, &second)]), "nobody governs slot 21");
        assert!(!admits(&[(12, &second), (29, &third)]), "slot 20 cannot tell of slot 29");
        assert!(!admits(&[(14, &second), (21, &third)]), "less than a window apart");
        assert!(!admits(&[(1, &first()), (28, &third)]), "an epoch is missing");
        let voters = vec![Member::new(id(9))];
        let rule = crate::quorum::QuorumRule::Majority;
        let other = Membership::new(Epoch::FIRST, voters.clone(), Vec::new(), rule.clone(), 8);
        assert!(!admits(&[(1, &other.unwrap())]), "another first membership");
        let wide = Membership::new(Epoch::new(2), voters, Vec::new(), rule, 9);
        assert!(!admits(&[(12, &wide.unwrap())]), "another window");
    }
}
