//! Catching up: which peers have committed more, and which of them was asked.
//!
//! Owns: the committed prefixes that peers reported and what they have trimmed, the Fetch in flight,
//! and reads of the log on behalf of peers. Sees no time; the pacemaker says when to ask again.
//! Invariants: one Fetch is in flight, or one peer is named for its snapshot; one read of the log is
//! under way for each peer.
//! Source: protocol.md §9 (L4) and §14 (N6).

use std::collections::BTreeMap;

use crate::ids::{ReplicaId, Slot};
use crate::output::LoadTicket;

/// What is known about the others' logs.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Catchup {
    reported: BTreeMap<ReplicaId, Slot>,
    /// Up to which slot each peer said that its log is gone.
    trimmed: BTreeMap<ReplicaId, Slot>,
    asked: Option<ReplicaId>,
    /// The one that was asked is to give a snapshot, not values.
    wanted: bool,
    /// Who answered last.
    answered: Option<ReplicaId>,
    /// The committed prefix when lagging was noticed, so that progress can be told from a stall.
    noticed_at: Slot,
}

/// Whom to ask for what is missing, and how.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Choice {
    /// This peer, for values up to this slot.
    Values(ReplicaId, Slot),
    /// This peer, for its snapshot: its log is gone where this replica's ends.
    Snapshot(ReplicaId),
}

impl Catchup {
    pub(crate) fn new() -> Self {
        Self {
            reported: BTreeMap::new(),
            trimmed: BTreeMap::new(),
            asked: None,
            wanted: false,
            answered: None,
            noticed_at: Slot::ZERO,
        }
    }

    /// A peer says how far its prefix reaches.
    pub(crate) fn report(&mut self, peer: ReplicaId, committed: Slot) {
        let known = self.reported.entry(peer).or_default();
        *known = (*known).max(committed);
    }

    /// A peer's newest word on its prefix: after a restart it may be shorter.
    pub(crate) fn replace(&mut self, peer: ReplicaId, committed: Slot) {
        self.reported.insert(peer, committed);
    }

    /// The prefix that a peer reported.
    pub(crate) fn reported(&self, peer: ReplicaId) -> Slot {
        self.reported.get(&peer).copied().unwrap_or_default()
    }

    /// Only these are peers from here on.
    pub(crate) fn set_peers(&mut self, peers: &[ReplicaId]) {
        self.reported.retain(|peer, _| peers.contains(peer));
        self.trimmed.retain(|peer, _| peers.contains(peer));
        self.asked.take_if(|asked| !peers.contains(asked));
    }

    /// A peer says up to where its log is gone.
    pub(crate) fn note_trimmed(&mut self, peer: ReplicaId, trimmed: Slot) {
        // One that has its whole log is nothing to remember.
        if trimmed > Slot::ZERO {
            let known = self.trimmed.entry(peer).or_default();
            *known = (*known).max(trimmed);
        }
    }

    /// A new life of this peer begins. What the last one said that it had trimmed may not have become
    /// durable: then its log reaches back to there again, and costs less than its snapshot.
    pub(crate) fn begins(&mut self, peer: ReplicaId) {
        self.trimmed.remove(&peer);
    }

    /// The longest prefix that anybody reported.
    pub(crate) fn target(&self) -> Slot {
        self.reported.values().copied().max().unwrap_or_default()
    }

    /// Remembers where this replica stands; returns whether it moved since it was last noticed.
    pub(crate) fn notice(&mut self, committed: Slot) -> bool {
        let moved = committed > self.noticed_at;
        self.noticed_at = committed;
        moved
    }

    /// Chooses whom to ask for what follows `committed`: whoever answered last, and when that one
    /// has not answered this time, the next in turn; those whose log holds it before those that have
    /// trimmed it.
    pub(crate) fn choose(
        &mut self,
        committed: Slot,
        usable: impl Fn(ReplicaId) -> bool,
    ) -> Option<Choice> {
        let mut ahead: Vec<(ReplicaId, Slot)> =
            self.reported.iter().map(|(p, s)| (*p, *s)).collect();
        ahead.retain(|(_, slot)| *slot > committed);
        if ahead.iter().any(|(peer, _)| usable(*peer)) {
            ahead.retain(|(peer, _)| usable(*peer));
        }
        let gone = |peer: ReplicaId| self.trimmed.get(&peer).is_some_and(|at| *at > committed);
        if ahead.iter().any(|(peer, _)| !gone(*peer) && Some(*peer) != self.asked) {
            ahead.retain(|(peer, _)| !gone(*peer));
        }
        let proven = self.answered.filter(|_| self.asked.is_none());
        let same = ahead.iter().find(|(peer, _)| Some(*peer) == proven);
        let later = || ahead.iter().find(|(peer, _)| Some(*peer) > self.asked);
        let (peer, slot) = *same.or_else(later).or_else(|| ahead.first())?;
        let choice = if gone(peer) { Choice::Snapshot(peer) } else { Choice::Values(peer, slot) };
        self.wanted = gone(peer);
        self.asked = Some(peer);
        Some(choice)
    }

    /// Whether this peer was asked for values, and has not answered.
    pub(crate) fn awaits_values(&self, peer: ReplicaId) -> bool {
        self.asked == Some(peer) && !self.wanted
    }

    pub(crate) fn is_asked(&self) -> bool {
        self.asked.is_some()
    }

    /// A peer answered with something that was missing.
    pub(crate) fn answered(&mut self, peer: ReplicaId) {
        self.answered = Some(peer);
        self.asked = None;
    }

    /// Nothing is missing any more, or it is not to be asked for yet.
    pub(crate) fn settle(&mut self) {
        self.asked = None;
    }
}

/// Reads of the log that are under way.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Loads {
    last: u64,
    apply: Option<(LoadTicket, Slot)>,
    serving: BTreeMap<LoadTicket, (ReplicaId, Slot)>,
}

/// What a finished read of the log is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Purpose {
    /// For this replica's state machine, from this slot on.
    Apply(Slot),
    /// For this peer, from this slot on.
    Serve(ReplicaId, Slot),
}

impl Loads {
    pub(crate) fn new() -> Self {
        Self { last: 0, apply: None, serving: BTreeMap::new() }
    }

    fn ticket(&mut self) -> LoadTicket {
        self.last += 1;
        LoadTicket(self.last)
    }

    /// Begins to read for the state machine, unless that is under way.
    pub(crate) fn for_apply(&mut self, from: Slot) -> Option<LoadTicket> {
        if self.apply.is_some() {
            return None;
        }
        let ticket = self.ticket();
        self.apply = Some((ticket, from));
        Some(ticket)
    }

    /// A reading of the host's own, of which nothing is remembered here.
    pub(crate) fn for_host(&mut self) -> LoadTicket {
        self.ticket()
    }

    /// Begins to read for a peer, unless that is under way.
    pub(crate) fn for_peer(&mut self, peer: ReplicaId, from: Slot) -> Option<LoadTicket> {
        if self.serving.values().any(|(served, _)| *served == peer) {
            return None;
        }
        let ticket = self.ticket();
        self.serving.insert(ticket, (peer, from));
        Some(ticket)
    }

    /// Whatever is read for the state machine is no longer needed.
    pub(crate) fn forget_apply(&mut self) {
        self.apply = None;
    }

    /// What the read was for; nothing if nobody asked for it.
    pub(crate) fn finish(&mut self, ticket: LoadTicket) -> Option<Purpose> {
        if let Some((waiting, from)) = self.apply
            && waiting == ticket
        {
            self.apply = None;
            return Some(Purpose::Apply(from));
        }
        self.serving.remove(&ticket).map(|(peer, from)| Purpose::Serve(peer, from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: ReplicaId = ReplicaId::new(1);
    const SECOND: ReplicaId = ReplicaId::new(2);

    /// A new leader, its way to the first peer cut, asked that peer before each page that the second
    /// one served: a page each fetch timeout, and no service for seconds (a random run, seed
    /// 1018160).
    #[test]
    fn whoever_answered_is_asked_again_until_it_does_not() {
        let mut catchup = Catchup::new();
        let end = Slot::new(9);
        catchup.report(FIRST, end);
        catchup.report(SECOND, end);
        let ask = |catchup: &mut Catchup| catchup.choose(Slot::ZERO, |_| true);
        assert_eq!(ask(&mut catchup), Some(Choice::Values(FIRST, end)));
        let second = Some(Choice::Values(SECOND, end));
        assert_eq!(ask(&mut catchup), second, "the first did not answer");
        catchup.answered(SECOND);
        assert_eq!(ask(&mut catchup), second, "the second did");
        assert_eq!(ask(&mut catchup), Some(Choice::Values(FIRST, end)), "and then no more");
    }

    /// What a peer had said of its log was believed for ever, also when it had lost its power before that was
    /// durable.
    #[test]
    fn what_an_earlier_life_trimmed_is_asked_for_again() {
        let mut catchup = Catchup::new();
        let end = Slot::new(9);
        catchup.report(FIRST, end);
        catchup.note_trimmed(FIRST, Slot::new(7));
        let ask = |catchup: &mut Catchup| catchup.choose(Slot::new(4), |_| true);
        assert_eq!(ask(&mut catchup), Some(Choice::Snapshot(FIRST)));
        catchup.begins(SECOND);
        assert_eq!(ask(&mut catchup), Some(Choice::Snapshot(FIRST)));
        catchup.begins(FIRST);
        assert_eq!(ask(&mut catchup), Some(Choice::Values(FIRST, end)));
    }

    #[test]
    fn snapshots_are_asked_of_one_peer_after_the_other_when_no_log_reaches_back() {
        let mut catchup = Catchup::new();
        let end = Slot::new(9);
        let third = ReplicaId::new(3);
        for peer in [FIRST, SECOND, third] {
            catchup.report(peer, end);
        }
        let ask = |catchup: &mut Catchup| catchup.choose(Slot::new(4), |_| true);
        catchup.note_trimmed(FIRST, Slot::new(5));
        catchup.note_trimmed(SECOND, Slot::new(4));
        assert_eq!(ask(&mut catchup), Some(Choice::Values(SECOND, end)), "its log holds slot 5");
        assert!(catchup.awaits_values(SECOND));
        catchup.note_trimmed(SECOND, Slot::new(7));
        assert_eq!(ask(&mut catchup), Some(Choice::Values(third, end)));
        // It does not answer: those that did have a snapshot.
        assert_eq!(ask(&mut catchup), Some(Choice::Snapshot(FIRST)));
        assert!(!catchup.awaits_values(FIRST));
        assert_eq!(ask(&mut catchup), Some(Choice::Values(third, end)));
        catchup.note_trimmed(third, Slot::new(9));
        for peer in [FIRST, SECOND, third, FIRST] {
            assert_eq!(ask(&mut catchup), Some(Choice::Snapshot(peer)));
        }
    }
}
