//! What happened, in order: for people, for failure reports, and to compare two runs.
//!
//! Owns: [`Trace`], a bounded ring of the last events and a running hash of all of them.
//! Invariant: two runs of one seed have the same hash, in one process or in two, whatever the
//! build; every event counts, whether it is remembered or not.

use core::fmt;
use core::hash::Hash;
use std::collections::VecDeque;

use crate::ids::{ReplicaId, Time};
use crate::trace::{Digest, Event};

/// One thing that happened, when and where.
#[derive(Clone, Debug)]
pub struct Record {
    /// The true time.
    pub at: Time,
    /// At which replica; none for the whole cluster.
    pub replica: Option<ReplicaId>,
    /// What.
    pub event: Event,
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.at.since(Time::ZERO).as_secs_f64();
        match self.replica {
            None => write!(f, "{seconds:>12.6}  --  {}", self.event),
            Some(id) => write!(f, "{seconds:>12.6}  r{}  {}", id.number(), self.event),
        }
    }
}

/// The last events, and the hash of all.
#[derive(Clone, Debug)]
pub struct Trace {
    ring: VecDeque<Record>,
    capacity: usize,
    digest: Digest,
    events: u64,
}

impl Trace {
    /// A trace that remembers the last `capacity` events.
    pub fn new(capacity: usize) -> Self {
        let ring = VecDeque::with_capacity(capacity.min(4096));
        Self { ring, capacity, digest: Digest::new(), events: 0 }
    }

    /// Something happened at this replica, or to the whole cluster.
    pub(crate) fn push(&mut self, at: Time, replica: Option<ReplicaId>, event: &Event) {
        (at, replica, event).hash(&mut self.digest);
        self.events += 1;
        if self.capacity == 0 {
            return;
        }
        if self.ring.len() == self.capacity {
            self.ring.pop_front();
        }
        self.ring.push_back(Record { at, replica, event: event.clone() });
    }

    /// A number that two runs share exactly if the same happened in both.
    pub fn hash(&self) -> u128 {
        self.digest.value()
    }

    /// How many events there were.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The events that are remembered, in order.
    pub fn records(&self) -> impl DoubleEndedIterator<Item = &Record> + ExactSizeIterator {
        self.ring.iter()
    }

    /// The remembered events as JSON, one object a line; docs/traces.md has the schema.
    pub fn json(&self) -> String {
        let mut lines = String::new();
        for Record { at, replica, event } in &self.ring {
            event.write_json(*at, *replica, &mut lines);
        }
        lines
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ring.iter().try_for_each(|record| writeln!(f, "{record}"))
    }
}
