//! Who waits for which request (the book's Request Waiting List).
//!
//! Owns: [`Waiters`], the table from request numbers of this node's life to those who wait, and
//! which of them were proposed in which slot. Knows no state machine, no tasks, no clock but by
//! argument.
//! Invariants: (1) a waiter is answered once; (2) completion goes by the request's own number, which
//! stands in the command's envelope, never by the slot alone; (3) a slot in which this request was
//! proposed and which was applied without it answers `Superseded`: a request is proposed in one
//! slot in its life; (4) `waiting` counts exactly those in the table; (5) whom a deposed leader may
//! have proposed is answered `LeaderChanged`, and nobody else is.
//! Waiters stand in chunks, one for each batch, so that the work per command is an index.

use std::collections::BTreeMap;

use paxos_core::ballot::Ballot;
use paxos_core::ids::{Slot, Time};

use crate::error::{ClientError, Rejection, Uncertainty};
use crate::lanes::{Lanes, Load, Tally};

/// Somebody who waits for an answer.
pub(crate) trait Waiter: Send + 'static {
    /// Answers that there is no reply.
    fn fail(self, error: ClientError);
    /// Whether nobody listens any more.
    fn is_gone(&self) -> bool;
}

/// A waiter and when it gives up.
#[derive(Debug)]
pub(crate) struct Waiting<W> {
    pub(crate) waiter: W,
    pub(crate) deadline: Time,
    pub(crate) load: Load,
}

/// Consecutive request numbers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Numbers {
    pub(crate) first: u64,
    pub(crate) count: u64,
}

impl Numbers {
    fn end(self) -> u64 {
        self.first + self.count
    }
}

#[derive(Debug)]
struct Chunk<W> {
    waiting: Vec<Option<Waiting<W>>>,
    left: usize,
    /// Nobody in it gives up earlier.
    deadline_min: Time,
    /// The ballot of the leader that may have proposed them.
    given: Option<Ballot>,
}

/// The table.
#[derive(Debug)]
pub(crate) struct Waiters<W> {
    /// By the number of the first waiter.
    chunks: BTreeMap<u64, Chunk<W>>,
    /// The chunk looked into last, taken out of `chunks`: commands of a batch are neighbours.
    current: Option<(u64, Chunk<W>)>,
    /// The requests proposed in slots that are not yet applied.
    by_slot: BTreeMap<Slot, Vec<Numbers>>,
    settled: Slot,
    /// What stands in the slots up to this one was not all seen.
    skipped: Slot,
    waiting: usize,
    answered: Tally,
}

impl<W: Waiter> Waiters<W> {
    pub(crate) fn new(applied: Slot) -> Self {
        Self {
            chunks: BTreeMap::new(),
            current: None,
            by_slot: BTreeMap::new(),
            settled: applied,
            skipped: Slot::ZERO,
            waiting: 0,
            answered: Tally::new(),
        }
    }

    /// How many wait.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Puts those that were answered since the last call on their accounts; whether somebody waited
    /// for that.
    pub(crate) fn settle_answered(&mut self, lanes: &Lanes) -> bool {
        self.answered.settle(lanes)
    }

    /// Adds waiters of consecutive numbers, above all before.
    pub(crate) fn register(&mut self, first: u64, waiting: Vec<Waiting<W>>) {
        let Some(deadline_min) = waiting.iter().map(|waiting| waiting.deadline).min() else {
            return;
        };
        let left = waiting.len();
        self.waiting += left;
        let waiting = waiting.into_iter().map(Some).collect();
        let chunk = Chunk { waiting, left, deadline_min, given: None };
        let before = self.chunks.insert(first, chunk);
        assert!(before.is_none(), "request numbers are never reused");
    }

    /// Takes note of the ballot of the leader that may propose these, which were registered
    /// together; `None` if they certainly were not proposed.
    pub(crate) fn given(&mut self, numbers: Numbers, ballot: Option<Ballot>) {
        self.put_back();
        // Those whose waiters were all answered are of no interest.
        if let Some(chunk) = self.chunks.get_mut(&numbers.first) {
            chunk.given = ballot;
        }
    }

    /// A higher ballot leads, and what its leader found was proposed again: whoever was given to a
    /// leader below `ballot` and still waits may wait for ever.
    pub(crate) fn depose(&mut self, ballot: Ballot) {
        self.put_back();
        for chunk in self.chunks.values_mut() {
            if chunk.given.is_none_or(|given| given >= ballot) {
                continue;
            }
            for waiting in chunk.waiting.iter_mut().filter_map(Option::take) {
                self.answered.add(waiting.load);
                waiting.waiter.fail(ClientError::Unknown(Uncertainty::LeaderChanged));
                self.waiting -= 1;
            }
            chunk.left = 0;
        }
        self.chunks.retain(|_, chunk| chunk.left > 0);
    }

    /// Takes note of the slot in which these were proposed.
    pub(crate) fn proposed(&mut self, numbers: Numbers, slot: Slot) {
        if slot > self.settled {
            self.by_slot.entry(slot).or_default().push(numbers);
        } else if slot <= self.skipped {
            self.fail(numbers, &ClientError::Unknown(Uncertainty::Skipped));
        } else {
            self.fail(numbers, &ClientError::Rejected(Rejection::Superseded));
        }
    }

    /// Takes the waiter of a request out, if it still waits.
    pub(crate) fn take(&mut self, number: u64) -> Option<W> {
        let hit = self.current.as_ref().is_some_and(|(first, chunk)| {
            number >= *first && number - first < chunk.waiting.len() as u64
        });
        if !hit {
            self.put_back();
            let (first, chunk) = self.chunks.range(..=number).next_back()?;
            if number - first >= chunk.waiting.len() as u64 {
                return None;
            }
            let first = *first;
            let chunk = self.chunks.remove(&first).expect("the chunk was just seen");
            self.current = Some((first, chunk));
        }
        let (first, chunk) = self.current.as_mut()?;
        let place = usize::try_from(number - *first).expect("chunks are far below 4 Gi");
        let waiting = chunk.waiting[place].take()?;
        chunk.left -= 1;
        self.waiting -= 1;
        self.answered.add(waiting.load);
        Some(waiting.waiter)
    }

    /// The slot is applied and everybody in it was taken: whoever was proposed there and still
    /// waits was superseded.
    pub(crate) fn settle(&mut self, slot: Slot) {
        self.settled = slot;
        while let Some(entry) = self.by_slot.first_entry() {
            if *entry.key() > slot {
                break;
            }
            for numbers in entry.remove() {
                self.fail(numbers, &ClientError::Rejected(Rejection::Superseded));
            }
        }
    }

    /// What stands in the slots up to this one is not seen: whoever may have been proposed, there or
    /// later, is answered that nobody can say. Whoever certainly was not waits on.
    pub(crate) fn skip(&mut self, slot: Slot) {
        (self.settled, self.skipped) = (slot, slot);
        self.put_back();
        let unknown = ClientError::Unknown(Uncertainty::Skipped);
        for chunk in self.chunks.values_mut().filter(|chunk| chunk.given.is_some()) {
            for waiting in chunk.waiting.iter_mut().filter_map(Option::take) {
                self.answered.add(waiting.load);
                waiting.waiter.fail(unknown.clone());
                self.waiting -= 1;
            }
            chunk.left = 0;
        }
        self.chunks.retain(|_, chunk| chunk.left > 0);
        for numbers in core::mem::take(&mut self.by_slot).into_values().flatten() {
            self.fail(numbers, &unknown);
        }
    }

    /// Answers those of these who still wait.
    pub(crate) fn fail(&mut self, numbers: Numbers, error: &ClientError) {
        for number in numbers.first..numbers.end() {
            if let Some(waiter) = self.take(number) {
                waiter.fail(error.clone());
            }
        }
    }

    /// Answers everybody.
    pub(crate) fn fail_all(&mut self, error: &ClientError) {
        self.put_back();
        for chunk in core::mem::take(&mut self.chunks).into_values() {
            for waiting in chunk.waiting.into_iter().flatten() {
                self.answered.add(waiting.load);
                waiting.waiter.fail(error.clone());
            }
        }
        self.waiting = 0;
    }

    /// Answers `Unknown` to those who gave up, and forgets those who are gone.
    pub(crate) fn sweep(&mut self, now: Time, with_gone: bool) {
        self.put_back();
        for chunk in self.chunks.values_mut() {
            if !with_gone && chunk.deadline_min > now {
                continue;
            }
            chunk.deadline_min = Time::from_nanos(u64::MAX);
            for place in &mut chunk.waiting {
                let Some(waiting) = place else { continue };
                if waiting.deadline > now && !(with_gone && waiting.waiter.is_gone()) {
                    chunk.deadline_min = chunk.deadline_min.min(waiting.deadline);
                    continue;
                }
                let waiting = place.take().expect("it was just seen");
                self.answered.add(waiting.load);
                waiting.waiter.fail(ClientError::Unknown(Uncertainty::Timeout));
                chunk.left -= 1;
                self.waiting -= 1;
            }
        }
        self.chunks.retain(|_, chunk| chunk.left > 0);
    }

    fn put_back(&mut self) {
        if let Some((first, chunk)) = self.current.take()
            && chunk.left > 0
        {
            self.chunks.insert(first, chunk);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    type Log = Arc<Mutex<Vec<(u32, ClientError)>>>;

    struct Test(u32, Log, bool);

    impl Waiter for Test {
        fn fail(self, error: ClientError) {
            self.1.lock().expect("one thread").push((self.0, error));
        }
        fn is_gone(&self) -> bool {
            self.2
        }
    }

    fn waiting(names: core::ops::Range<u32>, log: &Log, deadline: u64) -> Vec<Waiting<Test>> {
        names
            .map(|name| Waiting {
                waiter: Test(name, Arc::clone(log), false),
                deadline: Time::from_nanos(deadline),
                load: Load::default(),
            })
            .collect()
    }

    fn numbers(first: u64, count: u64) -> Numbers {
        Numbers { first, count }
    }

    #[test]
    fn each_is_answered_once_whatever_the_order() {
        let log = Log::default();
        let mut waiters = Waiters::new(Slot::ZERO);
        waiters.register(1, waiting(1..4, &log, 10));
        waiters.register(4, waiting(4..6, &log, 10));
        for number in [5, 1, 4, 3, 2] {
            assert_eq!(waiters.take(number).map(|w| u64::from(w.0)), Some(number));
            assert!(waiters.take(number).is_none());
        }
        assert!(waiters.take(6).is_none());
        assert!(waiters.take(0).is_none());
        assert_eq!((waiters.waiting(), waiters.answered.len()), (0, 5));
        waiters.sweep(Time::from_nanos(100), true);
        assert!(waiters.chunks.is_empty());
        assert!(log.lock().expect("one thread").is_empty());
    }

    #[test]
    fn a_slot_applied_without_its_requests_supersedes_them_and_nobody_else() {
        let log = Log::default();
        let mut waiters = Waiters::new(Slot::new(6));
        waiters.register(1, waiting(1..5, &log, 10));
        waiters.proposed(numbers(1, 2), Slot::new(7));
        waiters.proposed(numbers(3, 1), Slot::new(8));
        assert!(waiters.take(1).is_some());
        waiters.settle(Slot::new(7));
        let superseded = ClientError::Rejected(Rejection::Superseded);
        assert_eq!(*log.lock().expect("one thread"), [(2, superseded.clone())]);
        // The slot may be known only after it was applied.
        waiters.proposed(numbers(4, 1), Slot::new(7));
        assert_eq!(log.lock().expect("one thread").last(), Some(&(4, superseded)));
        assert_eq!(waiters.waiting(), 1);
        waiters.settle(Slot::new(8));
        assert_eq!(waiters.waiting(), 0);
    }

    /// r35: what a snapshot takes the place of may hold a request, and is not seen here.
    #[test]
    fn whoever_may_stand_in_slots_that_are_skipped_is_unknown_and_nobody_else() {
        let log = Log::default();
        let ballot = Ballot::new(1, paxos_core::ids::ReplicaId::new(1));
        let mut waiters = Waiters::new(Slot::ZERO);
        for first in [1, 3, 5] {
            waiters.register(first, waiting(first as u32..first as u32 + 2, &log, 10));
        }
        waiters.given(numbers(1, 2), Some(ballot));
        waiters.proposed(numbers(1, 2), Slot::new(4));
        waiters.given(numbers(3, 2), Some(ballot));
        waiters.skip(Slot::new(9));
        let told = |log: &Log| log.lock().expect("one thread").clone();
        let unknown = ClientError::Unknown(Uncertainty::Skipped);
        assert_eq!(told(&log), [1, 2, 3, 4].map(|name| (name, unknown.clone())));
        assert_eq!((waiters.waiting(), waiters.answered.len()), (2, 4));
        waiters.proposed(numbers(5, 1), Slot::new(9));
        assert_eq!(told(&log).last(), Some(&(5, unknown)));
        waiters.settle(Slot::new(10));
        waiters.proposed(numbers(6, 1), Slot::new(10));
        let superseded = ClientError::Rejected(Rejection::Superseded);
        assert_eq!(told(&log).last(), Some(&(6, superseded)), "that slot was seen");
    }

    #[test]
    fn only_what_was_given_to_a_deposed_leader_is_unknown_and_only_once() {
        let log = Log::default();
        let ballot = |round| Ballot::new(round, paxos_core::ids::ReplicaId::new(1));
        let mut waiters = Waiters::new(Slot::ZERO);
        for first in [1, 3, 5, 7] {
            waiters.register(first, waiting(first as u32..first as u32 + 2, &log, 10));
        }
        waiters.given(numbers(1, 2), Some(ballot(1)));
        waiters.given(numbers(3, 2), Some(ballot(2)));
        // The third came back from the first leader, the fourth was never sent.
        waiters.given(numbers(5, 2), Some(ballot(1)));
        waiters.given(numbers(5, 2), None);
        assert!(waiters.take(2).is_some());
        waiters.depose(ballot(1));
        assert_eq!(waiters.waiting(), 7);
        waiters.depose(ballot(2));
        waiters.depose(ballot(2));
        let unknown = ClientError::Unknown(Uncertainty::LeaderChanged);
        assert_eq!(*log.lock().expect("one thread"), [(1, unknown)]);
        assert_eq!((waiters.waiting(), waiters.answered.len()), (6, 2));
        assert!(waiters.take(1).is_none());
        waiters.proposed(numbers(1, 2), Slot::new(1));
        waiters.settle(Slot::new(1));
        assert_eq!(log.lock().expect("one thread").len(), 1);
    }

    #[test]
    fn the_sweep_answers_unknown_after_the_deadline_and_forgets_the_gone() {
        let log = Log::default();
        let mut waiters = Waiters::new(Slot::ZERO);
        waiters.register(1, waiting(1..2, &log, 10));
        waiters.register(2, waiting(2..3, &log, 20));
        let mut gone = waiting(3..4, &log, 1000);
        gone[0].waiter.2 = true;
        waiters.register(3, gone);
        waiters.sweep(Time::from_nanos(9), false);
        assert_eq!(waiters.waiting(), 3);
        waiters.sweep(Time::from_nanos(10), false);
        let unknown = ClientError::Unknown(Uncertainty::Timeout);
        assert_eq!(*log.lock().expect("one thread"), [(1, unknown)]);
        waiters.sweep(Time::from_nanos(11), true);
        assert_eq!(waiters.waiting(), 1);
        waiters.fail_all(&ClientError::Unknown(Uncertainty::Stopped));
        assert_eq!((waiters.waiting(), waiters.answered.len()), (0, 3));
    }
}
