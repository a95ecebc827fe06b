//! The ambient inputs: monotonic time, wall clock, timers, randomness. The only module that reads
//! them.
//!
//! Owns: the trait [`Clock`], by which everything else in a node sees time, and [`SystemClock`],
//! which reads the system's. Another clock makes the same node run in simulated time.
//! Invariant: the monotonic time of one clock never goes back.

use core::fmt::Debug;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use paxos_core::ids::{LogClock, Time};
use tokio::time::Sleep;

/// Time as the parts of one node see it.
pub(crate) trait Clock: Debug + Send + Sync + 'static {
    /// Monotonic time since the node's start, or earlier.
    fn now(&self) -> Time;

    /// The wall clock. The core never lets it go back in the log.
    fn wall(&self) -> LogClock;

    /// A new alarm, which rings at once.
    fn alarm(&self) -> Box<dyn Alarm>;

    /// A number that differs from call to call.
    fn seed(&self) -> u64;
}

/// A timer of one task.
pub(crate) trait Alarm: Debug + Send {
    /// Lets it ring at this time, and not at the one set before.
    fn set(&mut self, at: Time);

    /// Ready once the time has come, again and again until it is set anew.
    fn poll_ring(&mut self, cx: &mut Context<'_>) -> Poll<()>;
}

/// The system's clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SystemClock {
    origin: Instant,
}

impl SystemClock {
    /// Its monotonic time begins at zero.
    pub(crate) fn start() -> Self {
        Self { origin: Instant::now() }
    }

    fn instant(self, time: Time) -> tokio::time::Instant {
        // A reading beyond what the system can name is as good as the far future.
        let far = Duration::from_secs(3600);
        let since = time.since(Time::ZERO);
        let instant = self.origin.checked_add(since);
        instant.unwrap_or_else(|| Instant::now() + far).into()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Time {
        Time::ZERO.after(self.origin.elapsed())
    }

    /// Before 1970 it reads zero.
    fn wall(&self) -> LogClock {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        LogClock::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn alarm(&self) -> Box<dyn Alarm> {
        let sleep = Box::pin(tokio::time::sleep_until(self.origin.into()));
        Box::new(SystemAlarm { clock: *self, sleep })
    }

    fn seed(&self) -> u64 {
        RandomState::new().hash_one(Instant::now())
    }
}

#[derive(Debug)]
struct SystemAlarm {
    clock: SystemClock,
    sleep: Pin<Box<Sleep>>,
}

impl Alarm for SystemAlarm {
    fn set(&mut self, at: Time) {
        self.sleep.as_mut().reset(self.clock.instant(at));
    }

    fn poll_ring(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.sleep.as_mut().poll(cx)
    }
}
