//! Which requests of one session were applied.
//!
//! Owns: [`Requests`]: what is acknowledged, and runs of consecutive numbers above that.
//! Invariants: runs are in order, apart by a number at least, and at or above what is acknowledged.

use std::collections::VecDeque;

use super::Verdict;
use crate::ids::RequestNumber;

/// Consecutive numbers, both ends included.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct Run {
    pub(super) first: u64,
    pub(super) last: u64,
}

/// Numbers that were applied.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub(super) struct Requests {
    pub(super) acknowledged_below: u64,
    pub(super) runs: VecDeque<Run>,
}

impl Requests {
    pub(super) fn acknowledged_below(&self) -> RequestNumber {
        RequestNumber::new(self.acknowledged_below)
    }

    /// Numbers below this are never asked again; whether that is more than was known.
    pub(super) fn acknowledge(&mut self, below: RequestNumber) -> bool {
        let below = below.number();
        if below <= self.acknowledged_below {
            return false;
        }
        self.acknowledged_below = below;
        while let Some(run) = self.runs.front_mut() {
            if run.last >= below {
                run.first = run.first.max(below);
                break;
            }
            self.runs.pop_front();
        }
        true
    }

    /// What becomes of a request, which is remembered if it is applied.
    pub(super) fn decide(&mut self, request: RequestNumber, runs_max: usize) -> Verdict {
        let number = request.number();
        if number < self.acknowledged_below {
            return Verdict::Stale;
        }
        // Most come in order.
        let place = match self.runs.back() {
            Some(last) if number > last.last => self.runs.len(),
            _ => self.runs.partition_point(|run| run.last < number),
        };
        if self.runs.get(place).is_some_and(|run| run.first <= number) {
            return Verdict::Repeated;
        }
        let follows = place > 0 && self.runs[place - 1].last.checked_add(1) == Some(number);
        let precedes = self.runs.get(place).is_some_and(|run| run.first - 1 == number);
        match (follows, precedes) {
            (true, true) => {
                self.runs[place - 1].last = self.runs[place].last;
                self.runs.remove(place);
            }
            (true, false) => self.runs[place - 1].last = number,
            (false, true) => self.runs[place].first = number,
            (false, false) if self.runs.len() >= runs_max => return Verdict::Crowded,
            (false, false) => self.runs.insert(place, Run { first: number, last: number }),
        }
        Verdict::Apply
    }
}
