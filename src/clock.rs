//! The ambient inputs: monotonic time, wall clock, randomness. The only module that reads them.
//!
//! Owns: [`Clock`], the origin of this node's [`Time`]; seeds drawn from the system.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use paxos_core::ids::{LogClock, Time};

/// Monotonic time since the node's start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self {
            origin: Instant::now(),
        }
    }

    pub(crate) fn now(self) -> Time {
        Time::ZERO.after(self.origin.elapsed())
    }

    pub(crate) fn instant(self, time: Time) -> tokio::time::Instant {
        // A reading beyond what the system can name is as good as the far future.
        let far = Duration::from_secs(3600);
        let since = time.since(Time::ZERO);
        let instant = self.origin.checked_add(since);
        instant.unwrap_or_else(|| Instant::now() + far).into()
    }
}

/// The wall clock. Before 1970 it reads zero; the core never lets it go back in the log.
pub(crate) fn wall() -> LogClock {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    LogClock::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// A number that differs from call to call and from process to process.
pub(crate) fn seed() -> u64 {
    RandomState::new().hash_one(Instant::now())
}
