//! How much one client may have on its way into the log while others ask too.
//!
//! Owns: [`Pace`]: who asked lately, what each has under way, and the window. Knows neither requests nor
//! the log.
//! Invariants: (1) whoever asks alone is not held back; (2) whoever has nothing under way is not held
//! back; (3) while others ask, what one has under way is within the window, but for one item;
//! (4) the window is never below [`WINDOW_MIN`], and grows only while a round takes little longer than
//! the shortest one lately.
//!
//! Turns alone order what waits. What is under way cannot be overtaken: the log is one sequence, so a
//! command waits for all that was proposed before it to be sent, written, applied and answered. The
//! window keeps that near the work that fills one round, whatever a round takes: less makes the client
//! that has much slower, more makes all others slower. From time to time it is made small again, or what
//! is measured as the shortest round would come to include the queues that it is to avoid.
//!
//! Source: Brakmo and Peterson, "TCP Vegas", for a window that follows the time of a round; Cardwell et
//! al., "BBR", for measuring the shortest round with little under way.

use core::time::Duration;
use std::sync::Arc;

use paxos_core::ids::{ReplicaId, Time};

use crate::lanes::{LANES, Lanes};

/// What one may have under way at any rate, in bytes of the log: some dozens of small commands.
pub(crate) const WINDOW_MIN: usize = 8 << 10;

/// A peer stands for several clients: it may have so many windows under way.
const PEER_WINDOWS: usize = 4;

/// Beyond this a window is none: more than a batch.
const WINDOW_MAX: usize = 64 << 20;

/// Whoever asked within this time counts as asking.
pub(crate) const RECENT: Duration = Duration::from_secs(1);

/// The shortest round is measured anew after so many of its kind, and not before this time.
const EPOCH_ROUNDS: u32 = 256;
const EPOCH_MIN: Duration = Duration::from_secs(2);

/// Somebody who takes turns.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Owner(usize);

impl Owner {
    /// A client of this node, or those that share its lane.
    pub(crate) fn client(lane: usize) -> Self {
        Self(lane)
    }

    /// All clients of a peer.
    pub(crate) fn peer(peer: ReplicaId) -> Self {
        Self(LANES + usize::from(peer.number()) % LANES)
    }
}

#[derive(Debug)]
struct Probe {
    owner: Owner,
    /// What has landed of its owner when it has.
    through: u64,
    begin: Time,
}

/// The window.
#[derive(Debug)]
pub(crate) struct Pace {
    lanes: Arc<Lanes>,
    /// Bytes that each owner ever had on the way.
    taken: Vec<u64>,
    /// Those of peers that have arrived in the log. Of clients the lanes know it.
    landed: Vec<u64>,
    /// Who asked last, and who did last of all others.
    last: Option<(Owner, Time)>,
    other: Option<(Owner, Time)>,
    window: usize,
    /// Somebody was held back since the last round was measured.
    limited: bool,
    probe: Option<Probe>,
    shortest: Option<Duration>,
    epoch_began: Time,
}

impl Pace {
    pub(crate) fn new(lanes: Arc<Lanes>) -> Self {
        Self {
            lanes,
            taken: vec![0; 2 * LANES],
            landed: vec![0; LANES],
            last: None,
            other: None,
            window: WINDOW_MIN,
            limited: false,
            probe: None,
            shortest: None,
            epoch_began: Time::ZERO,
        }
    }

    /// Where clients wait for answers.
    pub(crate) fn lanes(&self) -> &Arc<Lanes> {
        &self.lanes
    }

    /// Somebody asks.
    pub(crate) fn asks(&mut self, owner: Owner, now: Time) {
        if let Some(last) = self.last
            && last.0 != owner
        {
            self.other = Some(last);
        }
        self.last = Some((owner, now));
    }

    /// Whether so many bytes more may be on their way.
    pub(crate) fn has_room(&mut self, owner: Owner, bytes: usize, now: Time) -> bool {
        if !self.others_ask(owner, now) {
            return true;
        }
        let under_way = self.under_way(owner);
        let window = if owner.0 < LANES { self.window } else { self.window * PEER_WINDOWS };
        let has_room = under_way == 0 || under_way + bytes as u64 <= window as u64;
        self.limited |= !has_room;
        has_room
    }

    /// So many bytes are on their way.
    pub(crate) fn take(&mut self, owner: Owner, bytes: usize, now: Time) {
        self.taken[owner.0] += bytes as u64;
        if self.probe.is_none() && self.others_ask(owner, now) {
            self.probe = Some(Probe { owner, through: self.taken[owner.0], begin: now });
        }
    }

    /// What a peer had on its way is in the log, or will not be.
    pub(crate) fn land_of_peer(&mut self, peer: ReplicaId, bytes: u64) {
        let Owner(place) = Owner::peer(peer);
        self.landed[place - LANES] += bytes;
    }

    /// Nothing of any peer is on its way any more.
    pub(crate) fn forget_peers(&mut self) {
        self.landed.copy_from_slice(&self.taken[LANES..]);
    }

    /// Looks whether a round is over, and fits the window to the time that it took.
    pub(crate) fn measure(&mut self, now: Time) {
        let Some(probe) = &self.probe else { return };
        if self.landed(probe.owner) < probe.through {
            return;
        }
        let round = now.since(probe.begin);
        self.probe = None;
        let patience = EPOCH_MIN.max(self.shortest.unwrap_or_default() * EPOCH_ROUNDS);
        if now.since(self.epoch_began) >= patience {
            (self.epoch_began, self.window, self.shortest) = (now, WINDOW_MIN, None);
        }
        let shortest = self.shortest.map_or(round, |shortest| shortest.min(round));
        self.shortest = Some(shortest);
        if round > shortest + shortest / 2 {
            self.window = (self.window - self.window / 4).max(WINDOW_MIN);
        } else if self.limited {
            self.window = (self.window + self.window / 4).min(WINDOW_MAX);
        }
        self.limited = false;
    }

    fn others_ask(&self, owner: Owner, now: Time) -> bool {
        let others =
            if self.last.is_some_and(|last| last.0 == owner) { self.other } else { self.last };
        others.is_some_and(|(_, at)| now.since(at) <= RECENT)
    }

    fn under_way(&self, owner: Owner) -> u64 {
        // Those of a client that were answered before they were numbered never counted.
        self.taken[owner.0].saturating_sub(self.landed(owner))
    }

    fn landed(&self, Owner(place): Owner) -> u64 {
        if place < LANES { self.lanes.landed(place) } else { self.landed[place - LANES] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lanes::Lane;

    const MILLI: Duration = Duration::from_millis(1);
    const A: Owner = Owner(1);
    const B: Owner = Owner(2);

    fn pace() -> Pace {
        Pace::new(Arc::new(Lanes::new(100)))
    }

    fn at(millis: u32) -> Time {
        // The first epoch is over at once.
        Time::ZERO.after(EPOCH_MIN + MILLI * millis)
    }

    /// A round of as much as may be, at this time and for so long: how much that was.
    fn round(pace: &mut Pace, begin: Time, takes: Duration) -> usize {
        let mut bytes = 0;
        pace.asks(B, begin);
        pace.asks(A, begin);
        while bytes < WINDOW_MAX && pace.has_room(A, 64, begin) {
            pace.take(A, 64, begin);
            bytes += 64;
        }
        pace.measure(begin);
        assert!(!pace.has_room(A, 64, begin), "nothing landed");
        pace.lanes.land(Lane::of(1), bytes as u64);
        pace.measure(begin.after(takes));
        bytes
    }

    #[test]
    fn whoever_asks_alone_has_room_for_all_and_others_count_for_a_time() {
        let mut pace = pace();
        pace.asks(A, at(0));
        pace.take(A, WINDOW_MAX, at(0));
        assert!(pace.has_room(A, WINDOW_MAX, at(0)));
        pace.asks(B, at(1));
        assert!(!pace.has_room(A, 1, at(1)), "both ask");
        assert!(pace.has_room(B, WINDOW_MAX, at(1)), "that one has nothing under way");
        pace.asks(A, at(2));
        assert!(!pace.has_room(A, 1, at(1).after(RECENT)));
        assert!(pace.has_room(A, 1, at(2).after(RECENT)), "the other one asks no more");
    }

    #[test]
    fn the_window_grows_while_rounds_stay_short_and_shrinks_when_they_grow_longer() {
        let mut pace = pace();
        let mut window = WINDOW_MIN;
        for step in 0..20 {
            assert_eq!(round(&mut pace, at(2 * step), MILLI), window / 64 * 64);
            window += window / 4;
            assert_eq!(pace.window, window);
        }
        round(&mut pace, at(100), MILLI * 3 / 2);
        assert!(pace.window > window, "that is little longer");
        for step in 0..20 {
            round(&mut pace, at(200 + 20 * step), MILLI * 2);
        }
        assert_eq!(pace.window, WINDOW_MIN, "and never less");
    }

    #[test]
    fn a_window_that_holds_nobody_back_does_not_grow() {
        let mut pace = pace();
        for step in 0..10 {
            pace.asks(B, at(step));
            pace.asks(A, at(step));
            assert!(pace.has_room(A, 64, at(step)));
            pace.take(A, 64, at(step));
            pace.lanes.land(Lane::of(1), 64);
            pace.measure(at(step + 1));
        }
        assert_eq!(pace.window, WINDOW_MIN);
    }

    #[test]
    fn the_shortest_round_is_measured_anew_with_little_under_way() {
        let mut pace = pace();
        for step in 0..10 {
            round(&mut pace, at(2 * step), MILLI);
        }
        assert!(pace.window > 4 * WINDOW_MIN);
        // The way is longer, for good.
        let later = at(20).after(EPOCH_MIN);
        round(&mut pace, later, MILLI * 50);
        assert_eq!((pace.window, pace.shortest), (WINDOW_MIN + WINDOW_MIN / 4, Some(MILLI * 50)));
        round(&mut pace, later.after(MILLI * 100), MILLI * 50);
        assert!(pace.window > WINDOW_MIN + WINDOW_MIN / 4, "what was long is usual");
    }

    #[test]
    fn peers_have_windows_too_and_none_of_it_outlasts_a_reign() {
        let mut pace = pace();
        let (peer, bytes) = (ReplicaId::new(1), PEER_WINDOWS * WINDOW_MIN);
        let owner = Owner::peer(peer);
        assert_ne!(owner, A);
        pace.asks(A, at(0));
        pace.asks(owner, at(0));
        assert!(pace.has_room(owner, bytes, at(0)));
        pace.take(owner, bytes, at(0));
        assert!(!pace.has_room(owner, 1, at(0)));
        pace.land_of_peer(peer, bytes as u64);
        assert!(pace.has_room(owner, bytes, at(0)));
        pace.take(owner, bytes, at(0));
        pace.forget_peers();
        assert!(pace.has_room(owner, bytes, at(0)));
    }
}
