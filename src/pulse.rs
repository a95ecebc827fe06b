//! How late heartbeats come.
//!
//! Owns: [`Pulses`]. Decides nothing: who is connected is the replica's to say.
//! Invariant: a heartbeat that was lost, or replaced by a newer one before it left, counts as the delay of
//! the next one.

use core::time::Duration;
use std::collections::BTreeMap;

use paxos_core::ids::{ReplicaId, Time};
use paxos_core::message::{Body, Message};

/// When the last heartbeat of each linked peer came.
#[derive(Debug, Default)]
pub(crate) struct Pulses(BTreeMap<ReplicaId, Time>);

impl Pulses {
    /// A message came: if it is a heartbeat, and not the first of its link, how much later it came than
    /// one interval after the one before it.
    pub(crate) fn heard(
        &mut self,
        from: ReplicaId,
        message: &Message,
        interval: Duration,
        now: Time,
    ) -> Option<Duration> {
        if !matches!(message.body, Body::Heartbeat(_)) {
            return None;
        }
        let before = self.0.insert(from, now)?;
        Some(now.since(before).saturating_sub(interval))
    }

    /// The link to this peer fell, or is a new one.
    pub(crate) fn forget(&mut self, peer: ReplicaId) {
        self.0.remove(&peer);
    }
}
