//! So many bytes per second, and no faster.
//!
//! Owns: [`Pace`]. Reads no clock.
//! Invariant: in any span of time at most one burst more passes than the span allows.

use core::time::Duration;

use paxos_core::ids::Time;

/// Lets bytes pass at a rate, as soon as what passed before is paid for.
#[derive(Debug)]
pub(crate) struct Pace {
    bytes_per_second: u64,
    /// When all that passed is paid for.
    free_at: Time,
}

impl Pace {
    pub(crate) fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second, free_at: Time::from_nanos(0) }
    }

    /// Whether something may pass at this time.
    pub(crate) fn is_free(&self, now: Time) -> bool {
        self.free_at <= now
    }

    /// When something may pass again.
    pub(crate) fn free_at(&self) -> Time {
        self.free_at
    }

    /// So many bytes pass.
    pub(crate) fn pass(&mut self, bytes: usize, now: Time) {
        let nanos = bytes as u128 * 1_000_000_000 / u128::from(self.bytes_per_second.max(1));
        let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
        self.free_at = self.free_at.max(now).after(Duration::from_nanos(nanos));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_passes_than_the_rate_allows() {
        let mut pace = Pace::new(1000);
        let (mut passed, mut now) = (0, Time::from_nanos(0));
        while now < Time::from_nanos(10_000_000_000) {
            if pace.is_free(now) {
                pace.pass(70, now);
                passed += 70;
            }
            now = now.after(Duration::from_millis(1));
        }
        assert!((9_900..=10_070).contains(&passed), "{passed}");
        let now = now.after(Duration::from_secs(60));
        pace.pass(1, now);
        assert_eq!(
            pace.free_at(),
            now.after(Duration::from_millis(1)),
            "an idle time saves nothing"
        );
    }
}
