//! Items of several owners, taken in turn.
//!
//! Owns: [`Fair`]. Knows neither requests nor time.
//! Invariants: (1) an owner that has items gets a turn after at most one turn of each other lane, unless
//! it sits out; (2) items of one owner keep their order; (3) memory beside the items is constant.
//! Owners whose numbers differ by a multiple of [`LANES`] share their turns.
//! Source: `McKenney`, "Stochastic Fairness Queueing": owners share a fixed number of lanes, so that
//! no table of owners is kept.

use std::collections::VecDeque;

use crate::lanes::LANES;

/// The items.
#[derive(Debug)]
pub(crate) struct Fair<T> {
    lanes: Vec<VecDeque<T>>,
    /// The lanes that have items, the next one first.
    turns: VecDeque<usize>,
    /// Those that have items and sit out.
    resting: Vec<usize>,
    len: usize,
}

impl<T> Fair<T> {
    pub(crate) fn new() -> Self {
        let lanes = (0..LANES).map(|_| VecDeque::new()).collect();
        Self { lanes, turns: VecDeque::new(), resting: Vec::new(), len: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds an item behind those of its owner.
    pub(crate) fn push(&mut self, owner: u64, item: T) {
        let lane = (owner % LANES as u64) as usize;
        if self.lanes[lane].is_empty() {
            self.turns.push_back(lane);
        }
        self.lanes[lane].push_back(item);
        self.len += 1;
    }

    /// How many have items, and do not sit out.
    pub(crate) fn owners(&self) -> usize {
        self.turns.len()
    }

    /// Whose turn it is.
    pub(crate) fn turn(&self) -> Option<usize> {
        self.turns.front().copied()
    }

    /// Whoever's turn it is sits out until all are called.
    pub(crate) fn rest(&mut self) {
        self.resting.extend(self.turns.pop_front());
    }

    /// Those who sit out.
    pub(crate) fn resting(&self) -> &[usize] {
        &self.resting
    }

    /// Whoever sits out has the next turns.
    pub(crate) fn call_all(&mut self) {
        while let Some(lane) = self.resting.pop() {
            self.turns.push_front(lane);
        }
    }

    /// The item whose turn it is.
    pub(crate) fn front(&self) -> Option<&T> {
        self.lanes[*self.turns.front()?].front()
    }

    /// Takes it; the next turn is another owner's, if there is one.
    pub(crate) fn pop(&mut self) -> Option<T> {
        let lane = *self.turns.front()?;
        let item = self.lanes[lane].pop_front()?;
        self.len -= 1;
        let done = self.lanes[lane].is_empty();
        if done || self.turns.len() > 1 {
            self.turns.pop_front();
            if !done {
                self.turns.push_back(lane);
            }
        }
        Some(item)
    }

    /// Takes out those of which this holds.
    pub(crate) fn take_if(&mut self, is: impl Fn(&T) -> bool) -> Vec<T> {
        self.call_all();
        let mut taken = Vec::new();
        for lane in &mut self.lanes {
            if lane.iter().any(&is) {
                let (some, left) = core::mem::take(lane).into_iter().partition(&is);
                *lane = left;
                let some: VecDeque<T> = some;
                taken.extend(some);
            }
        }
        let lanes = &self.lanes;
        self.turns.retain(|lane| !lanes[*lane].is_empty());
        self.len -= taken.len();
        taken
    }

    /// Takes out everything.
    pub(crate) fn take_all(&mut self) -> Vec<T> {
        self.take_if(|_| true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rest(fair: &mut Fair<u32>) -> Vec<u32> {
        core::iter::from_fn(|| fair.pop()).collect()
    }

    #[test]
    fn owners_take_turns_and_keep_their_order() {
        let mut fair = Fair::new();
        for item in [10, 11, 12, 13] {
            fair.push(1, item);
        }
        fair.push(2, 20);
        fair.push(3, 30);
        fair.push(2, 21);
        assert_eq!((fair.len(), fair.front()), (7, Some(&10)));
        assert_eq!(fair.pop(), Some(10));
        // Whoever comes now waits for one turn of each of the others.
        fair.push(4, 40);
        assert_eq!(rest(&mut fair), [20, 30, 11, 40, 21, 12, 13]);
        assert!(fair.is_empty() && fair.front().is_none());
    }

    #[test]
    fn what_is_taken_out_leaves_the_turns_of_the_others() {
        let mut fair = Fair::new();
        for (owner, item) in [(1, 1), (2, 2), (1, 3), (3, 4), (2, 6)] {
            fair.push(owner, item);
        }
        assert_eq!(fair.take_if(|item| item % 2 == 0), [2, 6, 4]);
        assert_eq!(fair.len(), 2);
        fair.push(2, 8);
        assert_eq!(rest(&mut fair), [1, 8, 3]);
        fair.push(7, 1);
        assert_eq!(fair.take_all(), [1]);
        assert!(fair.is_empty() && fair.pop().is_none());
    }

    #[test]
    fn whoever_sits_out_is_passed_over_until_all_are_called() {
        let mut fair = Fair::new();
        for (owner, item) in [(1, 10), (2, 20), (3, 30), (1, 11), (2, 21)] {
            fair.push(owner, item);
        }
        assert_eq!(fair.turn(), Some(1));
        fair.rest();
        assert_eq!((fair.pop(), fair.turn()), (Some(20), Some(3)));
        fair.rest();
        assert_eq!((fair.resting(), fair.len()), (&[1, 3][..], 4));
        // What comes meanwhile is not forgotten.
        fair.push(3, 31);
        assert_eq!((fair.pop(), fair.pop()), (Some(21), None));
        fair.call_all();
        assert_eq!(rest(&mut fair), [10, 30, 11, 31]);
        assert!(fair.is_empty() && fair.resting().is_empty());
    }

    #[test]
    fn owners_far_apart_share_their_turns() {
        let mut fair = Fair::new();
        for (owner, item) in [(1, 1), (1 + LANES as u64, 2), (2, 3)] {
            fair.push(owner, item);
        }
        assert_eq!(rest(&mut fair), [1, 3, 2]);
    }
}
