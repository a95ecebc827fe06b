//! A bound on what all connections hold together.
//!
//! Owns: the count of free bytes. Invariant: what is leased never exceeds the bound, and a dropped
//! lease gives everything back. Waits for nothing: who gets no room says so to its client, for
//! waiting while holding a half-received request could wait for ever.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that connections may take for large requests and replies.
#[derive(Debug)]
pub(crate) struct Budget {
    free: AtomicUsize,
}

impl Budget {
    pub(crate) fn new(bytes: usize) -> Arc<Self> {
        Arc::new(Self { free: AtomicUsize::new(bytes) })
    }

    /// The bytes not leased.
    pub(crate) fn free(&self) -> usize {
        self.free.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: usize) -> bool {
        self.free
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |free| free.checked_sub(bytes))
            .is_ok()
    }
}

/// What one connection holds.
#[derive(Debug)]
pub(crate) struct Lease {
    budget: Arc<Budget>,
    held: usize,
}

impl Lease {
    pub(crate) fn new(budget: Arc<Budget>) -> Self {
        Self { budget, held: 0 }
    }

    /// Takes or gives back, so that `bytes` are held. False, and nothing changed, if there is not
    /// enough.
    #[must_use]
    pub(crate) fn resize(&mut self, bytes: usize) -> bool {
        if bytes > self.held {
            if !self.budget.take(bytes - self.held) {
                return false;
            }
        } else {
            self.budget.free.fetch_add(self.held - bytes, Ordering::Relaxed);
        }
        self.held = bytes;
        true
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.budget.free.fetch_add(self.held, Ordering::Relaxed);
    }
}
