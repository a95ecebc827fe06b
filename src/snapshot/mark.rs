//! How many bytes the log took, slot by slot, roughly.
//!
//! Owns: [`LogBytes`]. Knows no log.
//! Invariant: so many marks at most; what is said of a slot between two of them is what the log took up
//! to the lower one.

use std::collections::VecDeque;

use paxos_core::ids::Slot;

/// Two marks are so many bytes apart at least.
pub(crate) const STEP_BYTES: u64 = 64 << 10;
const MARKS_MAX: usize = 4096;

/// Bytes of the values that were handed out in this life, and of those before them that the log holds.
#[derive(Debug, Default)]
pub(crate) struct LogBytes {
    total: u64,
    step: u64,
    /// Slots, and the bytes of all up to them.
    marks: VecDeque<(Slot, u64)>,
}

impl LogBytes {
    /// Of a log that holds this when a life begins: slots, and its bytes up to them, both rising. Without
    /// it, whoever starts again and again would keep a reserve for each life.
    pub(crate) fn recalled(held: &[(Slot, u64)]) -> Self {
        let mut log = Self::default();
        for (slot, total) in held {
            let bytes = total.saturating_sub(log.total);
            log.add(*slot, usize::try_from(bytes).unwrap_or(usize::MAX));
        }
        // What comes from here on is told apart from all of it.
        let last = log.marks.back().map(|(slot, _)| *slot);
        log.marks.extend(
            held.last().filter(|(slot, _)| Some(*slot) != last).map(|(slot, _)| (*slot, log.total)),
        );
        log
    }

    pub(crate) fn add(&mut self, slot: Slot, bytes: usize) {
        self.total += bytes as u64;
        let last = self.marks.back().map_or(0, |(_, bytes)| *bytes);
        if self.total - last < STEP_BYTES.max(self.step) {
            return;
        }
        self.marks.push_back((slot, self.total));
        if self.marks.len() > MARKS_MAX {
            // Every other one goes, and those to come are further apart.
            let mut place = 0;
            self.marks.retain(|_| {
                place += 1;
                place % 2 == 0
            });
            self.step = STEP_BYTES.max(self.step) * 2;
        }
    }

    /// How many bytes the slots above this one took, a step too many at most.
    pub(crate) fn above(&self, slot: Slot) -> u64 {
        let known = self.marks.partition_point(|(mark, _)| *mark <= slot);
        let below = known.checked_sub(1).map_or(0, |place| self.marks[place].1);
        self.total - below
    }

    /// The lowest slot above which the log took no more than this.
    pub(crate) fn within(&self, bytes: u64) -> Slot {
        let place = self.marks.partition_point(|(_, below)| self.total - below > bytes);
        if self.total <= bytes {
            return Slot::ZERO;
        }
        self.marks.get(place).or(self.marks.back()).map_or(Slot::ZERO, |(slot, _)| *slot)
    }

    /// Nobody asks for what stands up to this slot any more.
    pub(crate) fn forget(&mut self, through: Slot) {
        while self.marks.get(1).is_some_and(|(slot, _)| *slot <= through) {
            self.marks.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_earlier_lives_left_counts() {
        let held: Vec<_> = (1..=100).map(|slot| (Slot::new(slot), slot * STEP_BYTES / 2)).collect();
        let mut log = LogBytes::recalled(&held);
        assert_eq!(log.above(Slot::new(100)), 0);
        assert_eq!(log.within(25 * STEP_BYTES), Slot::new(50));
        for slot in 101..=120 {
            log.add(Slot::new(slot), STEP_BYTES as usize);
        }
        assert_eq!(log.above(Slot::new(100)), 20 * STEP_BYTES);
        assert_eq!(log.within(25 * STEP_BYTES), Slot::new(90));
        assert_eq!(LogBytes::recalled(&[(Slot::new(7), 3)]).above(Slot::new(7)), 0);
        assert_eq!(LogBytes::recalled(&[]).marks.len(), 0);
    }

    #[test]
    fn what_the_log_took_is_known_to_a_step() {
        let mut log = LogBytes::default();
        let bytes = 10_000;
        for slot in 1..=100_000_u64 {
            log.add(Slot::new(slot), bytes);
        }
        assert!(log.marks.len() <= MARKS_MAX);
        let step = log.step.max(STEP_BYTES) + bytes as u64;
        for slot in [0, 1, 500, 50_000, 99_999, 100_000] {
            let exact = (100_000 - slot) * bytes as u64;
            let said = log.above(Slot::new(slot));
            assert!((exact..=exact + step).contains(&said), "{slot}: {said}, not {exact}");
            let slot = log.within(exact).number();
            assert!((100_000 - slot) * bytes as u64 <= exact + step, "{slot}");
        }
        assert_eq!(log.within(u64::MAX), Slot::ZERO);
        log.forget(Slot::new(90_000));
        assert!(log.marks.len() < 500, "{}", log.marks.len());
        assert!(log.above(Slot::new(95_000)) <= 5_000 * bytes as u64 + step);
    }
}
