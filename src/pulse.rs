//! How late heartbeats come.
//!
//! Owns: [`Pulses`]. Decides nothing: who is connected is the replica's to say.
//! Invariant: a heartbeat that was lost, or replaced by a newer one before it left, counts as the delay of
//! the next one.

use core::time::Duration;
use std::collections::BTreeMap;

use paxos_core::ids::{ReplicaId, Time};

/// When the last heartbeat of each linked peer came.
#[derive(Debug, Default)]
pub(crate) struct Pulses(BTreeMap<ReplicaId, Time>);

impl Pulses {
    /// A heartbeat came: how much later than one interval after the one before it, unless it is the first
    /// of its link.
    pub(crate) fn heard(
        &mut self,
        from: ReplicaId,
        interval: Duration,
        now: Time,
    ) -> Option<Duration> {
        let before = self.0.insert(from, now)?;
        Some(now.since(before).saturating_sub(interval))
    }

    /// The link to this peer fell, or is a new one.
    pub(crate) fn forget(&mut self, peer: ReplicaId) {
        self.0.remove(&peer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_makes_the_next_one_late_and_a_new_link_begins_anew() {
        let (one, two) = (ReplicaId::new(1), ReplicaId::new(2));
        let interval = Duration::from_millis(100);
        let at = |millis: u64| Time::from_nanos(millis * 1_000_000);
        let late = |millis| Some(Duration::from_millis(millis));
        let mut pulses = Pulses::default();
        assert_eq!(pulses.heard(one, interval, at(0)), None);
        assert_eq!(pulses.heard(two, interval, at(30)), None);
        assert_eq!(pulses.heard(one, interval, at(103)), late(3));
        assert_eq!(pulses.heard(one, interval, at(180)), late(0), "one came early");
        assert_eq!(pulses.heard(one, interval, at(580)), late(300), "three were lost");
        pulses.forget(one);
        assert_eq!(pulses.heard(one, interval, at(2000)), None);
        assert_eq!(pulses.heard(two, interval, at(140)), late(10));
    }
}
