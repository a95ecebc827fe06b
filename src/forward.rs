//! Commands on their way to another node that leads (part of the book's Idempotent Receiver).
//!
//! Owns: [`Forwarder`], what this node sent and has no answer to; [`Gate`], which frames of peers
//! this node has seen. Plain state: knows no transport, no replica, no task.
//! Invariants: (1) a parcel leaves the forwarder only towards one more attempt, and only if the
//! leader said that it certainly was not proposed, or the frame never left; (2) a frame passes a
//! gate at most once in the life of the receiver, and its sender's, whatever the network repeats;
//! (3) what lies below a gate's window is never answered: it may have been proposed.

use std::collections::BTreeMap;

use paxos_core::ballot::Ballot;
use paxos_core::ids::{Incarnation, ReplicaId, Time};

/// How far apart two frames may arrive out of order and still both pass.
pub(crate) const GATE_WINDOW: u64 = 1024;
const WORDS: usize = GATE_WINDOW as usize / 64;

/// The sender's side.
#[derive(Debug)]
pub(crate) struct Forwarder<P> {
    sequence: u64,
    unanswered: BTreeMap<u64, Unanswered<P>>,
    unanswered_max: usize,
}

#[derive(Debug)]
struct Unanswered<P> {
    /// Of the leader that it was sent to.
    ballot: Ballot,
    deadline: Time,
    parcel: P,
}

impl<P> Forwarder<P> {
    /// Sends at most so many frames that have no answer to one leader; never more than half a
    /// gate's window, so that none falls below it.
    pub(crate) fn new(unanswered_max: usize) -> Self {
        Self {
            sequence: 0,
            unanswered: BTreeMap::new(),
            unanswered_max: unanswered_max.min(GATE_WINDOW as usize / 2),
        }
    }

    /// Whether one more frame may be sent to the leader of this ballot. What a former one owes does
    /// not count: it is forgotten soon.
    pub(crate) fn has_room(&self, ballot: Ballot) -> bool {
        let unanswered = self.unanswered.values().filter(|sent| sent.ballot == ballot);
        self.unanswered.len() < self.unanswered_max || unanswered.count() < self.unanswered_max
    }

    /// How many eighths of what may be unanswered are.
    pub(crate) fn eighths(&self) -> usize {
        self.unanswered.len() * 8 / self.unanswered_max
    }

    pub(crate) fn unanswered(&self) -> usize {
        self.unanswered.len()
    }

    /// The number of the next frame. Numbers of frames that never left are not used again.
    pub(crate) fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    /// The frame is on its way. After `deadline` it is forgotten: nobody waits for it.
    pub(crate) fn sent(&mut self, sequence: u64, ballot: Ballot, deadline: Time, parcel: P) {
        self.unanswered.insert(sequence, Unanswered { ballot, deadline, parcel });
    }

    /// The leader answered: the parcel of that frame, if it is still of interest.
    pub(crate) fn answered(&mut self, from: ReplicaId, sequence: u64) -> Option<P> {
        if self.unanswered.get(&sequence)?.ballot.leader() != from {
            return None;
        }
        self.unanswered.remove(&sequence).map(|sent| sent.parcel)
    }

    /// The link is gone. What was sent over it may be proposed: it is never sent again, and whoever
    /// waits for it is to be told so.
    pub(crate) fn on_down(&mut self, peer: ReplicaId) -> Vec<P> {
        let (lost, kept) = core::mem::take(&mut self.unanswered)
            .into_iter()
            .partition::<BTreeMap<_, _>, _>(|(_, sent)| sent.ballot.leader() == peer);
        self.unanswered = kept;
        lost.into_values().map(|sent| sent.parcel).collect()
    }

    /// Leaders below this ballot answer no more, and whoever waits for one is told so. What they
    /// were sent may be proposed: it is never sent again, not even if it comes back.
    pub(crate) fn depose(&mut self, ballot: Ballot) {
        self.unanswered.retain(|_, sent| sent.ballot >= ballot);
    }

    /// Forgets frames nobody waits for.
    pub(crate) fn expire(&mut self, now: Time) {
        self.unanswered.retain(|_, sent| sent.deadline > now);
    }
}

/// The receiver's side: one window of frames seen for each peer's newest life.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    windows: BTreeMap<ReplicaId, Window>,
}

#[derive(Debug)]
struct Window {
    life: Incarnation,
    highest: u64,
    /// Bit `sequence % GATE_WINDOW` says whether that one of the last `GATE_WINDOW` was seen.
    seen: [u64; WORDS],
}

impl Gate {
    /// Whether this frame is seen for the first time, and may be proposed or refused. Everything
    /// else must be met with silence.
    pub(crate) fn pass(&mut self, from: ReplicaId, life: Incarnation, sequence: u64) -> bool {
        let fresh = Window { life, highest: 0, seen: [0; WORDS] };
        let window = self.windows.entry(from).or_insert(fresh);
        if life < window.life || sequence == 0 {
            return false;
        }
        if life > window.life {
            *window = Window { life, highest: 0, seen: [0; WORDS] };
        }
        window.pass(sequence)
    }
}

impl Window {
    fn pass(&mut self, sequence: u64) -> bool {
        if sequence > self.highest {
            let ahead = sequence - self.highest;
            if ahead >= GATE_WINDOW {
                self.seen = [0; WORDS];
            } else {
                for skipped in self.highest + 1..sequence {
                    self.set(skipped, false);
                }
            }
            self.highest = sequence;
            self.set(sequence, true);
            return true;
        }
        if self.highest - sequence >= GATE_WINDOW {
            return false;
        }
        let bit = sequence % GATE_WINDOW;
        let seen = self.seen[(bit / 64) as usize] & (1 << (bit % 64)) != 0;
        self.set(sequence, true);
        !seen
    }

    fn set(&mut self, sequence: u64, seen: bool) {
        let bit = sequence % GATE_WINDOW;
        let word = &mut self.seen[(bit / 64) as usize];
        if seen {
            *word |= 1 << (bit % 64);
        } else {
            *word &= !(1 << (bit % 64));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const PEER: ReplicaId = ReplicaId::new(2);

    fn life(boot: u32) -> Incarnation {
        Incarnation::new(boot, 5)
    }

    fn ballot(round: u64) -> Ballot {
        Ballot::new(round, PEER)
    }

    #[test]
    fn a_frame_passes_once_however_repeated_and_reordered() {
        let mut gate = Gate::default();
        let mut passed = BTreeSet::new();
        let mut state = 7_u64;
        let mut top = 0;
        for _ in 0..200_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let draw = state >> 33;
            if draw.is_multiple_of(5) {
                top += 1 + draw % 3 * (draw % 700);
            }
            let sequence = (top + 1).saturating_sub(draw % 1500).max(1);
            if gate.pass(PEER, life(1), sequence) {
                assert!(passed.insert(sequence), "{sequence} passed twice");
            }
        }
        assert!(passed.len() > 10_000);
    }

    #[test]
    fn within_the_window_every_first_copy_passes() {
        let mut gate = Gate::default();
        assert!(gate.pass(PEER, life(1), GATE_WINDOW));
        for sequence in (1..GATE_WINDOW).rev() {
            assert!(gate.pass(PEER, life(1), sequence));
        }
        assert!(gate.pass(PEER, life(1), 3 * GATE_WINDOW));
        assert!(!gate.pass(PEER, life(1), 2 * GATE_WINDOW));
        assert!(gate.pass(PEER, life(1), 2 * GATE_WINDOW + 1));
        assert!(!gate.pass(PEER, life(1), 0));
    }

    #[test]
    fn a_new_life_begins_anew_and_an_old_one_is_over() {
        let mut gate = Gate::default();
        assert!(gate.pass(PEER, life(1), 9));
        assert!(gate.pass(PEER, life(2), 9));
        assert!(!gate.pass(PEER, life(1), 10));
        assert!(gate.pass(ReplicaId::new(3), life(1), 9));
    }

    #[test]
    fn a_parcel_comes_back_once_from_the_leader_it_went_to_and_never_after_its_link_fell() {
        let mut forwarder = Forwarder::new(3);
        for name in 'a'..='c' {
            let sequence = forwarder.next_sequence();
            forwarder.sent(sequence, ballot(1), Time::from_nanos(sequence * 10), name);
        }
        assert!(!forwarder.has_room(ballot(1)));
        assert_eq!(forwarder.answered(ReplicaId::new(3), 1), None);
        assert_eq!(forwarder.answered(PEER, 1), Some('a'));
        assert_eq!(forwarder.answered(PEER, 1), None);
        forwarder.expire(Time::from_nanos(20));
        assert_eq!(forwarder.answered(PEER, 2), None);
        assert_eq!(forwarder.on_down(PEER), ['c']);
        assert_eq!(forwarder.answered(PEER, 3), None);
        assert!(forwarder.has_room(ballot(1)));
        assert_eq!(forwarder.unanswered(), 0);
    }

    #[test]
    fn a_deposed_leader_neither_takes_room_nor_gives_anything_back() {
        let mut forwarder = Forwarder::new(2);
        for (round, name) in [(1, 'a'), (1, 'b'), (2, 'c')] {
            assert!(forwarder.has_room(ballot(round)));
            let sequence = forwarder.next_sequence();
            forwarder.sent(sequence, ballot(round), Time::from_nanos(100), name);
        }
        assert!(!forwarder.has_room(ballot(1)));
        assert!(forwarder.has_room(ballot(2)));
        forwarder.depose(ballot(2));
        assert_eq!(forwarder.answered(PEER, 1), None);
        assert_eq!(forwarder.answered(PEER, 3), Some('c'));
        assert_eq!(forwarder.unanswered(), 0);
    }
}
