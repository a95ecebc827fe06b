//! What a script keeps back: messages on their way, disks, and the end of a write.
//!
//! Owns: [`Held`], and how it is let go. Random runs keep nothing back.
//! Invariants: a held message is neither lost nor altered; it is delivered when it is let go, at
//! once, unless it is dropped; a held disk proves and reads nothing.

use core::time::Duration;

use super::cluster::{Cluster, Due};
use super::kind::Kind;
use super::network::Rule;
use crate::ids::ReplicaId;
use crate::trace::{Delivery, Event, Packet};

/// A message that is kept back.
#[derive(Clone, Debug)]
pub struct Held {
    /// Who sent it.
    pub from: ReplicaId,
    /// To whom.
    pub to: ReplicaId,
    /// What it is.
    pub kind: Kind,
    pub(super) packet: Packet,
}

/// What is kept back, and by which rules.
#[derive(Debug, Default)]
pub(super) struct Holds {
    rules: Vec<Rule>,
    messages: Vec<Held>,
}

/// What a crash leaves of the facts that were being written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Survivors {
    /// As many, in order, as the seed draws.
    Drawn,
    /// None of them.
    Nothing,
    /// All of them, though nobody was told.
    Everything,
}

impl Cluster {
    /// Keeps back every message that the rule covers from this moment on.
    pub fn hold(&mut self, rule: Rule) {
        self.holds.rules.push(rule);
    }

    /// Keeps no further message back; those that are stay so.
    pub fn hold_no_more(&mut self) {
        self.holds.rules.clear();
    }

    /// The messages that are kept back, in the order in which they left.
    pub fn held(&self) -> &[Held] {
        &self.holds.messages
    }

    /// Delivers those kept back that are `wanted`, in order, and forgets them unless `keep` says to
    /// deliver copies. How many they were.
    pub fn release(&mut self, mut wanted: impl FnMut(&Held) -> bool, keep: bool) -> usize {
        let due: Vec<Held> =
            self.holds.messages.iter().filter(|held| wanted(held)).cloned().collect();
        if !keep {
            self.forget_held(wanted);
        }
        for (order, Held { from, to, packet, .. }) in due.iter().enumerate() {
            let at = self.now.after(Duration::from_micros(order as u64));
            self.queue(at, Due::Deliver { from: *from, to: *to, packet: packet.clone() });
        }
        due.len()
    }

    /// Loses those kept back that are `wanted`. How many they were.
    pub fn forget_held(&mut self, mut wanted: impl FnMut(&Held) -> bool) -> usize {
        let before = self.holds.messages.len();
        self.holds.messages.retain(|held| !wanted(held));
        before - self.holds.messages.len()
    }

    /// Whether the message is to be kept back; then it is.
    pub(super) fn keeps(
        &mut self,
        from: ReplicaId,
        to: ReplicaId,
        kind: Kind,
        packet: &Packet,
    ) -> bool {
        let holds = self.holds.rules.iter().any(|rule| rule.covers(from, to, kind));
        if holds {
            let packet = packet.clone();
            self.log(from, &Event::Sent { to, delivery: Delivery::Held, packet: packet.clone() });
            self.holds.messages.push(Held { from, to, kind, packet });
        }
        holds
    }

    /// Lets a replica's disk do nothing until [`Cluster::release_disk`].
    pub fn hold_disk(&mut self, id: ReplicaId) {
        self.node_mut(id).disk_held = true;
    }

    /// Lets a replica's disk work again.
    pub fn release_disk(&mut self, id: ReplicaId) {
        self.node_mut(id).disk_held = false;
        self.settle(id);
    }

    /// Takes a replica's power away, and says what becomes of the facts that were being written.
    pub fn crash_leaving(&mut self, id: ReplicaId, survivors: Survivors) {
        self.node_mut(id).survivors = survivors;
        self.crash(id);
        let node = self.node_mut(id);
        node.survivors = Survivors::Drawn;
        node.disk_held = false;
    }
}
