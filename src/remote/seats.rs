//! What remote clients have of a node's bounds.
//!
//! Owns: [`Counts`], what is counted of one serving, and [`Seat`], a link's share of it. Knows no
//! links.
//! Invariant: a share that was taken is given back when its seat is dropped, however a link ends.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use paxos_core::membership::KeyPin;

use crate::remote::serve::ServeOptions;

/// What a key's share of sessions is counted over.
const MINUTE: Duration = Duration::from_secs(60);

/// What the clients of one key have.
#[derive(Clone, Copy, Debug)]
struct Share {
    links: usize,
    /// Sessions opened since this time, for a minute.
    opened: usize,
    since: Instant,
}

/// What is counted of one serving.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    by_key: Mutex<BTreeMap<Option<KeyPin>, Share>>,
    pub(crate) refused: AtomicU64,
    pub(crate) cut: AtomicU64,
    pub(crate) requests: AtomicU64,
}

impl Counts {
    /// Readable even if a holder panicked.
    fn by_key(&self) -> MutexGuard<'_, BTreeMap<Option<KeyPin>, Share>> {
        self.by_key.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The links that are open.
    pub(crate) fn links(&self) -> u64 {
        self.by_key().values().map(|share| share.links as u64).sum()
    }

    /// Takes a session from the share of a key, if one is left in this minute.
    pub(crate) fn may_open(&self, key: Option<KeyPin>, opened_max: usize, now: Instant) -> bool {
        let mut by_key = self.by_key();
        let fresh = Share { links: 0, opened: 0, since: now };
        let share = by_key.entry(key).or_insert(fresh);
        if now.duration_since(share.since) >= MINUTE {
            (share.opened, share.since) = (0, now);
        }
        share.opened += 1;
        share.opened <= opened_max
    }
}

/// One link's share of the bound.
pub(crate) struct Seat {
    counts: Arc<Counts>,
    key: Option<KeyPin>,
}

impl Seat {
    pub(crate) fn take(
        counts: &Arc<Counts>,
        key: Option<KeyPin>,
        options: &ServeOptions,
    ) -> Option<Self> {
        let mut by_key = counts.by_key();
        let now = Instant::now();
        // A key that left is remembered for as long as its share of sessions counts.
        by_key.retain(|_, share| share.links > 0 || now.duration_since(share.since) < MINUTE);
        let all: usize = by_key.values().map(|share| share.links).sum();
        let share = by_key.entry(key).or_insert(Share { links: 0, opened: 0, since: now });
        if all >= options.links_max || share.links >= options.links_per_key_max {
            return None;
        }
        share.links += 1;
        Some(Self { counts: Arc::clone(counts), key })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(share) = self.counts.by_key().get_mut(&self.key) {
            share.links -= 1;
        }
    }
}
