//! Whether replicas hold equal states: digests of them, compared slot by slot.
//!
//! Owns: [`Comparison`], what this node and its peers said of their states, and what follows from it; the
//! rules by which [`Driver`] tells and asks. Knows no state machine and no log.
//! Invariants: (1) a node stops itself, and no other; (2) every list is bounded, whatever peers say; (3) a
//! frame is answered by one frame at most, and an answer by none.
//! Source: protocol.md, Equal states; the state checks of Zookeeper's and etcd's "data inconsistency" histories.

use std::collections::{BTreeMap, VecDeque};

use paxos_core::ids::{ReplicaId, Slot};
use paxos_core::port::Lane;

use crate::driver::Driver;
use crate::error::StopReason;
use crate::frame::HostFrame;
use crate::machine::StateDigest;
use crate::releases::DIGESTS;
use crate::waiters::Waiter;

/// So many digests of its own a node remembers: with the default distance of 1,024 slots, those of as many
/// slots as a log holds by default. A replica that replays them finds them all.
const OWN_MAX: usize = 1024;
/// And so many of each peer: those of slots that this node has not reached, or that it has just reached.
const HEARD_MAX: usize = 64;

/// A digest that differs from this node's. See [`ComparisonStatus::differing`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Difference {
    /// After which slot.
    pub slot: Slot,
    /// This node's digest.
    pub own: StateDigest,
    /// Whose digest differs.
    pub peer: ReplicaId,
    /// That digest.
    pub theirs: StateDigest,
}

/// What a node knows of the equality of its state with those of others.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct ComparisonStatus {
    /// The newest digest of this node's state, and after which slot; none if the state machine gives none.
    pub newest: Option<(Slot, StateDigest)>,
    /// The newest slot after which more than half of all members hold the state that this node holds.
    pub confirmed: Option<Slot>,
    /// The newest digest of a peer that differs from this node's after the same slot. One of the two went
    /// astray: that one stops by itself where a majority holds the other state; where there is none, as with two
    /// members, both go on and say this.
    pub differing: Option<Difference>,
}

/// A digest of the state after a slot.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Mark {
    pub(crate) slot: Slot,
    pub(crate) digest: StateDigest,
}

/// What is known of one slot.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Verdict {
    /// Too few have spoken.
    Open,
    /// More than half of all members hold this node's state.
    Equal,
    /// More than half of all members hold the same other state.
    Astray(StateDigest, Vec<ReplicaId>),
}

/// The digests that are known.
#[derive(Debug, Default)]
pub(crate) struct Comparison {
    /// In rising order of slots.
    own: VecDeque<Mark>,
    /// In the order in which they came.
    heard: BTreeMap<ReplicaId, VecDeque<Mark>>,
    confirmed: Option<Slot>,
    differing: Option<Difference>,
}

impl Comparison {
    fn note_own(&mut self, mark: Mark) {
        debug_assert!(self.own.back().is_none_or(|last| last.slot < mark.slot), "slots rise");
        if self.own.len() == OWN_MAX {
            self.own.pop_front();
        }
        self.own.push_back(mark);
    }

    fn note_heard(&mut self, from: ReplicaId, mark: Mark) {
        let heard = self.heard.entry(from).or_default();
        heard.retain(|known| known.slot != mark.slot);
        if heard.len() == HEARD_MAX {
            heard.pop_front();
        }
        heard.push_back(mark);
    }

    fn own(&self, slot: Slot) -> Option<StateDigest> {
        let place = self.own.binary_search_by_key(&slot, |mark| mark.slot).ok()?;
        self.own.get(place).map(|mark| mark.digest)
    }

    fn heard(&self, from: ReplicaId, slot: Slot) -> Option<StateDigest> {
        let heard = self.heard.get(&from)?;
        heard.iter().find(|mark| mark.slot == slot).map(|mark| mark.digest)
    }

    /// What these peers and this node, who are all members, say of a slot. Takes note of what differs.
    fn judge(&mut self, slot: Slot, peers: &[ReplicaId]) -> Verdict {
        let Some(own) = self.own(slot) else { return Verdict::Open };
        let mut holders: BTreeMap<StateDigest, Vec<ReplicaId>> = BTreeMap::new();
        for &peer in peers {
            if let Some(theirs) = self.heard(peer, slot) {
                holders.entry(theirs).or_default().push(peer);
                if theirs != own {
                    self.differing = Some(Difference { slot, own, peer, theirs });
                }
            }
        }
        let members = peers.len() + 1;
        let agreeing = 1 + holders.remove(&own).map_or(0, |holders| holders.len());
        if agreeing * 2 > members {
            self.confirmed = self.confirmed.max(Some(slot));
            return Verdict::Equal;
        }
        let other = holders.into_iter().find(|(_, holders)| holders.len() * 2 > members);
        other.map_or(Verdict::Open, |(digest, holders)| Verdict::Astray(digest, holders))
    }

    pub(crate) fn status(&self) -> ComparisonStatus {
        ComparisonStatus {
            newest: self.own.back().map(|mark| (mark.slot, mark.digest)),
            confirmed: self.confirmed,
            differing: self.differing,
        }
    }
}

impl<W: Waiter> Driver<W> {
    /// The state machine gave a digest of its state: every peer is told, and those are asked for theirs that
    /// have not said it yet. One that is behind says it when it gets there.
    pub(crate) fn on_marked(&mut self, mark: Mark) {
        self.comparison.note_own(mark);
        for place in 0..self.replica.peers().len() {
            let peer = self.replica.peers()[place];
            if self.releases.knows(peer, DIGESTS) {
                let asks = self.comparison.heard(peer, mark.slot).is_none();
                self.tell_mark(peer, mark, asks);
            }
        }
        self.compare(mark.slot, None);
    }

    /// A peer says what its state was after a slot.
    pub(crate) fn on_peer_mark(&mut self, from: ReplicaId, mark: Mark, asks: bool) {
        if !self.replica.peers().contains(&from) {
            return;
        }
        self.comparison.note_heard(from, mark);
        let Some(digest) = self.comparison.own(mark.slot) else { return };
        self.shared.meters.digests_compared.add(1);
        if asks {
            self.tell_mark(from, Mark { slot: mark.slot, digest }, false);
        }
        self.compare(mark.slot, Some(from));
    }

    fn tell_mark(&mut self, to: ReplicaId, mark: Mark, asks: bool) {
        let Mark { slot, digest } = mark;
        let frame = HostFrame::Mark { origin: self.life, slot, digest, asks };
        // What is lost is not compared; the next slot will be.
        let _ = self.send_frame(to, Lane::Control, &frame);
    }

    /// Looks whether this node's state is that of the others.
    fn compare(&mut self, slot: Slot, news: Option<ReplicaId>) {
        let known = self.comparison.differing;
        let verdict = self.comparison.judge(slot, self.replica.peers());
        if self.comparison.differing != known
            && let Some(Difference { slot, own, peer, theirs }) = self.comparison.differing
        {
            self.shared.meters.digests_differing.add(1);
            self.timer.published = None;
            tracing::error!(
                replica = %self.id, %slot, %own, %peer, %theirs,
                "{peer} holds another state after {slot}: one of the two went astray"
            );
        }
        match verdict {
            Verdict::Open => {}
            Verdict::Equal => {
                let differs = |peer: &ReplicaId| {
                    let theirs = self.comparison.heard(*peer, slot);
                    theirs.is_some() && theirs != self.comparison.own(slot)
                };
                if let Some(peer) = news.filter(differs) {
                    tracing::error!(
                        replica = %self.id, %slot, %peer,
                        "most members hold the state that this one holds: {peer} went astray"
                    );
                }
            }
            Verdict::Astray(others, holders) => {
                let own = self.comparison.own(slot).expect("it was compared");
                self.stop.get_or_insert(StopReason::Diverged { slot, own, others, holders });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    fn mark(slot: u64, digest: u128) -> Mark {
        Mark { slot: Slot::new(slot), digest: StateDigest(digest) }
    }

    fn ids(peers: core::ops::RangeInclusive<u16>) -> Vec<ReplicaId> {
        peers.map(ReplicaId::new).collect()
    }

    /// What a member whose digest is 1 concludes, of so many members, from these digests of peers 2, 3, ...
    fn verdict(members: u16, heard: &[u128]) -> Verdict {
        let mut comparison = Comparison::default();
        comparison.note_own(mark(8, 1));
        for (peer, digest) in ids(2..=members).into_iter().zip(heard) {
            comparison.note_heard(peer, mark(8, *digest));
        }
        comparison.judge(Slot::new(8), &ids(2..=members))
    }

    /// **H2** A replica stops for good, and answers nothing more, when its digest of a slot differs from
    /// one and the same digest of that slot at more than half of all members.
    #[test]
    fn h2_whoever_is_alone_against_most_members_stops() {
        let astray = |holders| Verdict::Astray(StateDigest(2), ids(holders));
        assert_eq!(verdict(3, &[2, 2]), astray(2..=3));
        assert_eq!(verdict(4, &[2, 2, 2]), astray(2..=4));
        assert_eq!(verdict(5, &[2, 2, 2]), astray(2..=4));
        assert_eq!(verdict(5, &[2, 2, 2, 1]), astray(2..=4));
        // Of those who are heard all hold another state, and they are not enough.
        assert_eq!(verdict(3, &[2]), Verdict::Open);
        assert_eq!(verdict(4, &[2, 2]), Verdict::Open);
        assert_eq!(verdict(5, &[2, 2]), Verdict::Open);
        // Most differ from this one, and not in the same way.
        assert_eq!(verdict(3, &[2, 3]), Verdict::Open);
        assert_eq!(verdict(5, &[2, 2, 3, 3]), Verdict::Open);
        assert_eq!(verdict(5, &[2, 2, 1, 1]), Verdict::Equal);
        assert_eq!(verdict(3, &[1]), Verdict::Equal);
        assert_eq!(verdict(3, &[1, 2]), Verdict::Equal);
        assert_eq!(verdict(1, &[]), Verdict::Equal);
    }

    /// **H3** Where no digest of a slot is that of more than half of all members, nobody stops, and every
    /// replica that knows of two digests reports them.
    #[test]
    fn h3_where_nobody_can_tell_all_go_on_and_say_so() {
        let mut comparison = Comparison::default();
        comparison.note_own(mark(8, 1));
        assert_eq!(comparison.status().differing, None);
        comparison.note_heard(ReplicaId::new(2), mark(8, 2));
        assert_eq!(comparison.judge(Slot::new(8), &ids(2..=2)), Verdict::Open);
        let differing = comparison.status().differing.unwrap();
        assert_eq!((differing.own, differing.theirs), (StateDigest(1), StateDigest(2)));
        assert_eq!((differing.peer, differing.slot), (ReplicaId::new(2), Slot::new(8)));
        assert_eq!(comparison.status().confirmed, None);
    }

    #[test]
    fn only_digests_of_one_slot_are_compared() {
        let mut comparison = Comparison::default();
        comparison.note_own(mark(8, 1));
        comparison.note_heard(ReplicaId::new(2), mark(16, 2));
        comparison.note_heard(ReplicaId::new(3), mark(16, 2));
        for slot in [8, 16] {
            assert_eq!(comparison.judge(Slot::new(slot), &ids(2..=3)), Verdict::Open);
        }
        assert_eq!(comparison.status().differing, None);
        comparison.note_own(mark(16, 2));
        assert_eq!(comparison.judge(Slot::new(16), &ids(2..=3)), Verdict::Equal);
        assert_eq!(comparison.status().confirmed, Some(Slot::new(16)));
        assert_eq!(comparison.status().newest, Some((Slot::new(16), StateDigest(2))));
    }

    /// A peer that says much makes nobody remember much.
    #[test]
    fn what_is_remembered_is_bounded() {
        let mut comparison = Comparison::default();
        for slot in 1..=5000 {
            comparison.note_own(mark(slot, 1));
            comparison.note_heard(ReplicaId::new(2), mark(slot * 3, 1));
            comparison.note_heard(ReplicaId::new(2), mark(slot * 3, 2));
        }
        assert_eq!(comparison.own.len(), OWN_MAX);
        assert_eq!(comparison.own(Slot::new(5000)), Some(StateDigest(1)));
        assert_eq!(comparison.own(Slot::new(5000 - OWN_MAX as u64)), None);
        assert_eq!(comparison.heard[&ReplicaId::new(2)].len(), HEARD_MAX);
        assert_eq!(comparison.heard(ReplicaId::new(2), Slot::new(15_000)), Some(StateDigest(2)));
    }
}
