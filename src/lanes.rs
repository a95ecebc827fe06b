//! What each client of a node has waiting, and what of it is answered.
//!
//! Owns: [`Lane`], [`Lanes`], [`Tally`]. Knows neither requests nor time.
//! Invariants: (1) a client has a place only where one is free, and no more than [`SHARE`] times as
//! many as are left free, so that whoever comes finds one; (2) what is answered only grows; (3) whoever
//! waits for answers is told of the first one after it said so.
//! Source: Choudhury and Hahne, "Dynamic Queue Length Thresholds for Shared-Memory Packet Switches",
//! for the shares; `McKenney`, "Stochastic Fairness Queueing", for lanes instead of a table of clients.

use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// Clients whose numbers differ by a multiple of this share their turns and places.
pub(crate) const LANES: usize = 256;

/// How many times as many places as are free one client may have: alone it has eight ninths of all.
const SHARE: usize = 8;

/// Whose turn it is.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Lane(u8);

impl Lane {
    /// The lane of the client with this number.
    pub(crate) fn of(number: u64) -> Self {
        Self((number % LANES as u64) as u8)
    }

    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// What a request takes up: its bytes in the log, none for a read.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Load {
    pub(crate) lane: Lane,
    pub(crate) bytes: u32,
}

#[derive(Debug, Default)]
struct Account {
    /// Requests between their acceptance and their answer.
    held: AtomicUsize,
    /// Bytes of commands that were on their way into the log and need no room there any more.
    landed: AtomicU64,
}

/// The accounts.
#[derive(Debug)]
pub(crate) struct Lanes {
    places: usize,
    held: AtomicUsize,
    accounts: Vec<Account>,
    awaited: AtomicBool,
}

impl Lanes {
    /// For so many requests at once.
    pub(crate) fn new(places: usize) -> Self {
        let accounts = (0..LANES).map(|_| Account::default()).collect();
        Self { places, held: AtomicUsize::new(0), accounts, awaited: AtomicBool::new(false) }
    }

    /// Takes a place for one request, if one is free for this client.
    pub(crate) fn admit(&self, lane: Lane) -> bool {
        let held = self.held.fetch_add(1, Ordering::Relaxed);
        let own = self.accounts[lane.index()].held.fetch_add(1, Ordering::Relaxed);
        let free = self.places.saturating_sub(held);
        let admitted = own < free.saturating_mul(SHARE);
        if !admitted {
            self.release(lane, 1);
        }
        admitted
    }

    /// Takes a place for a request that had one, and is sent again: those that were admitted are not
    /// turned away half-way.
    pub(crate) fn admit_again(&self, lane: Lane) {
        self.held.fetch_add(1, Ordering::Relaxed);
        self.accounts[lane.index()].held.fetch_add(1, Ordering::Relaxed);
    }

    /// Frees places of requests that were answered, or are about to be.
    pub(crate) fn release(&self, lane: Lane, count: usize) {
        self.held.fetch_sub(count, Ordering::Relaxed);
        self.accounts[lane.index()].held.fetch_sub(count, Ordering::Relaxed);
    }

    /// How many requests have a place.
    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Commands of so many bytes that were on their way are answered.
    pub(crate) fn land(&self, lane: Lane, bytes: u64) {
        self.accounts[lane.index()].landed.fetch_add(bytes, Ordering::SeqCst);
    }

    /// How many bytes have landed, ever.
    pub(crate) fn landed(&self, lane: usize) -> u64 {
        self.accounts[lane].landed.load(Ordering::SeqCst)
    }

    /// Somebody waits for something to land. It looks once more after this.
    pub(crate) fn wait(&self) {
        self.awaited.store(true, Ordering::SeqCst);
    }

    /// Whether somebody waits, once.
    pub(crate) fn take_awaited(&self) -> bool {
        self.awaited.load(Ordering::SeqCst) && self.awaited.swap(false, Ordering::SeqCst)
    }
}

/// Answers that are not yet on the accounts: many are put there at once, for others write there too.
#[derive(Debug)]
pub(crate) struct Tally {
    lanes: Vec<(u32, u64)>,
    touched: Vec<Lane>,
}

impl Tally {
    pub(crate) fn new() -> Self {
        Self { lanes: vec![(0, 0); LANES], touched: Vec::new() }
    }

    /// One more request is answered.
    pub(crate) fn add(&mut self, load: Load) {
        let (count, bytes) = &mut self.lanes[load.lane.index()];
        if *count == 0 {
            self.touched.push(load.lane);
        }
        *count += 1;
        *bytes += u64::from(load.bytes);
    }

    /// Puts all of it on the accounts; whether somebody waited for that.
    pub(crate) fn settle(&mut self, lanes: &Lanes) -> bool {
        if self.touched.is_empty() {
            return false;
        }
        for lane in self.touched.drain(..) {
            let (count, bytes) = core::mem::take(&mut self.lanes[lane.index()]);
            lanes.release(lane, count as usize);
            lanes.land(lane, bytes);
        }
        lanes.take_awaited()
    }

    /// How many are not yet on the accounts.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.touched.iter().map(|lane| self.lanes[lane.index()].0 as usize).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(lanes: &Lanes, number: u64) -> usize {
        (0..10_000).take_while(|_| lanes.admit(Lane::of(number))).count()
    }

    #[test]
    fn one_client_cannot_have_the_places_of_all() {
        let lanes = Lanes::new(900);
        let alone = admitted(&lanes, 1);
        assert_eq!(alone, 800);
        assert!(!lanes.admit(Lane::of(1)));
        // Whoever comes finds places, and leaves some to those who come later.
        let second = admitted(&lanes, 2);
        assert_eq!(second, 89);
        for number in 3..7 {
            assert!(lanes.admit(Lane::of(number)), "a place for client {number}");
        }
        assert_eq!(lanes.held(), alone + second + 4);
        lanes.release(Lane::of(1), alone);
        lanes.release(Lane::of(2), second);
        assert_eq!(lanes.held(), 4);
        assert!(lanes.admit(Lane::of(1)));
    }

    #[test]
    fn the_places_of_a_small_node_are_all_taken_and_no_more() {
        for places in 1..9 {
            let lanes = Lanes::new(places);
            assert_eq!(admitted(&lanes, 1), places);
            assert!(!lanes.admit(Lane::of(2)));
            lanes.admit_again(Lane::of(1));
            assert_eq!(lanes.held(), places + 1);
            lanes.release(Lane::of(1), 1);
            assert!(!lanes.admit(Lane::of(1)));
        }
    }

    #[test]
    fn answers_are_put_on_the_accounts_at_once_and_those_who_wait_are_told_once() {
        let lanes = Lanes::new(100);
        let mut tally = Tally::new();
        for number in [3, 4, 3] {
            assert!(lanes.admit(Lane::of(number)));
            tally.add(Load { lane: Lane::of(number), bytes: 10 });
        }
        assert_eq!((tally.len(), lanes.held(), lanes.landed(3)), (3, 3, 0));
        assert!(!tally.settle(&lanes), "nobody waits");
        assert_eq!((lanes.held(), lanes.landed(3), lanes.landed(4)), (0, 20, 10));
        lanes.wait();
        assert!(!tally.settle(&lanes), "nothing landed");
        assert!(lanes.admit(Lane::of(5)));
        tally.add(Load { lane: Lane::of(5), bytes: 1 });
        assert!(tally.settle(&lanes));
        assert!(!lanes.take_awaited());
    }
}
