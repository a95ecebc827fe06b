//! Futures without a runtime: who was woken, and one poll at a time.
//!
//! Owns: [`Flag`], the waker of everything that the simulator polls.
//! Invariant: whoever was woken since its last poll is polled again, and in an order that does not
//! depend on who woke it.

use core::future::Future;
use core::pin::pin;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll, Waker};
use std::sync::Arc;
use std::task::Wake;

/// A future that is ready at once may still ask for some polls, as one that yields does.
const POLLS_MAX: usize = 1000;

/// Set by a wake-up.
#[derive(Debug)]
pub(super) struct Flag(AtomicBool);

impl Flag {
    /// One that is set: what was never polled is to be.
    pub(super) fn raised() -> Arc<Self> {
        Arc::new(Self(AtomicBool::new(true)))
    }

    pub(super) fn is_raised(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Whether it was set; it is not afterwards.
    pub(super) fn lower(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The output of a future that waits for nothing outside of itself; `None` if it does wait.
pub(super) fn poll_to_end<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..POLLS_MAX {
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return Some(output);
        }
    }
    None
}
