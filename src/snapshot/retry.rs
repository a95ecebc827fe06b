//! When an attempt that failed is made again.
//!
//! Owns: [`Retry`]. Reads no clock.
//! Invariant: each failure in a row doubles the wait, up to [`DOUBLINGS_MAX`] times.

use core::time::Duration;

use paxos_core::ids::Time;

/// The longest wait is 64 times the first.
const DOUBLINGS_MAX: u32 = 6;

/// Attempts that failed in a row. An image on a full disk costs as much writing each time as one that
/// fits, and takes the room that the log needs until it is given back.
#[derive(Debug)]
pub(crate) struct Retry {
    first: Duration,
    failures: u32,
    at: Time,
}

impl Retry {
    /// After the first failure the next attempt waits so long.
    pub(crate) fn new(first: Duration) -> Self {
        Self { first, failures: 0, at: Time::ZERO }
    }

    /// An attempt failed: how long the next one waits.
    pub(crate) fn failed(&mut self, now: Time) -> Duration {
        let wait = self.first * (1 << self.failures.min(DOUBLINGS_MAX));
        self.failures = self.failures.saturating_add(1);
        self.at = now.after(wait);
        wait
    }

    /// One succeeded.
    pub(crate) fn succeeded(&mut self) {
        (self.failures, self.at) = (0, Time::ZERO);
    }

    /// Whether an attempt may be made.
    pub(crate) fn is_due(&self, now: Time) -> bool {
        self.at <= now
    }

    /// When the next one may be made.
    pub(crate) fn at(&self) -> Time {
        self.at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_with_each_failure_and_ends_with_a_success() {
        let second = Duration::from_secs(1);
        let mut retry = Retry::new(second);
        let mut now = Time::ZERO.after(second);
        assert!(retry.is_due(now));
        for seconds in [1, 2, 4, 8, 16, 32, 64, 64, 64] {
            assert_eq!(retry.failed(now), second * seconds);
            now = now.after(second * seconds);
            assert!(!retry.is_due(now.before(Duration::from_nanos(1))));
            assert!(retry.is_due(now) && retry.at() == now);
        }
        retry.succeeded();
        assert!(retry.is_due(Time::ZERO));
        assert_eq!(retry.failed(now), second);
    }
}
