//! What each peer was sent in a reign and has not answered (the per-peer part of flow control).
//!
//! Owns: [`Flows`]: for each peer the slots and bytes on their way to it, and whether it is probed.
//! Sees no time and keeps no values; whoever sends asks first.
//! Invariants: a peer that is not probed has at most twice the window of slots and the window's
//! bytes on their way, or one message; a peer that is probed has one message more than when its
//! probing began at most; what a peer answered, or reported as committed, is counted no longer.
//! Source: protocol.md §8 (flow); the probe and replicate states of etcd's progress tracker.

use std::collections::VecDeque;

use crate::ids::{ReplicaId, Slot};
use crate::output::PeerFlow;

/// What is on its way to one peer.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Flow {
    peer: ReplicaId,
    /// Slots that it was sent and has not answered, rising, with the bytes of their values.
    sent: VecDeque<(Slot, usize)>,
    bytes: usize,
    probed: bool,
}

impl Flow {
    fn remove(&mut self, first: Slot, last: Slot) {
        let begin = self.sent.partition_point(|(slot, _)| *slot < first);
        let end = self.sent.partition_point(|(slot, _)| *slot <= last);
        let bytes = &mut self.bytes;
        self.sent.drain(begin..end.max(begin)).for_each(|(_, answered)| *bytes -= answered);
    }
}

/// What is on its way to every peer, while this replica leads.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Flows {
    peers: Vec<Flow>,
    slots_max: usize,
    bytes_max: usize,
}

impl Flows {
    /// For these peers, in this order; slots are bounded by twice the window.
    pub(crate) fn new(peers: &[ReplicaId], window: u64, bytes_max: usize) -> Self {
        let slots_max = 2 * window as usize;
        let mut flows = Self { peers: Vec::new(), slots_max, bytes_max };
        flows.set_peers(peers);
        flows
    }

    /// Others are peers from here on; what is on its way to those that stay is still counted.
    pub(crate) fn set_peers(&mut self, peers: &[ReplicaId]) {
        let mut known = core::mem::take(&mut self.peers);
        let flow = |peer: &ReplicaId| match known.iter().position(|flow| flow.peer == *peer) {
            Some(place) => known.swap_remove(place),
            None => Flow { peer: *peer, sent: VecDeque::new(), bytes: 0, probed: false },
        };
        self.peers = peers.iter().map(flow).collect();
    }

    /// A reign ends: nothing counts any more.
    pub(crate) fn reset(&mut self) {
        for flow in &mut self.peers {
            flow.sent.clear();
            (flow.bytes, flow.probed) = (0, false);
        }
    }

    /// Whether the peer at this place is to be sent new proposals of so many slots and bytes now;
    /// `heard` tells whether anything was heard from it recently. Rules F1 to F3.
    pub(crate) fn admits(&mut self, place: usize, slots: usize, bytes: usize, heard: bool) -> bool {
        let Flow { sent, bytes: waiting, probed, .. } = &mut self.peers[place];
        if sent.is_empty() {
            return true;
        }
        let fits = sent.len() + slots <= self.slots_max && *waiting + bytes <= self.bytes_max;
        *probed |= !heard || !fits;
        !*probed
    }

    /// The peer at this place was sent a proposal.
    pub(crate) fn sent(&mut self, place: usize, slot: Slot, bytes: usize) {
        let flow = &mut self.peers[place];
        let at = flow.sent.partition_point(|(other, _)| *other < slot);
        if flow.sent.get(at).is_none_or(|(other, _)| *other != slot) {
            flow.sent.insert(at, (slot, bytes));
            flow.bytes += bytes;
        }
    }

    /// A probed peer has asked for the rest of the prefix: whether so much that is in flight may
    /// follow. It is probed no longer then.
    pub(crate) fn resume(&mut self, place: usize, slots: usize, bytes: usize) -> bool {
        let Flow { sent, bytes: waiting, probed, .. } = &mut self.peers[place];
        let resumed =
            *probed && sent.len() + slots <= self.slots_max && *waiting + bytes <= self.bytes_max;
        *probed &= !resumed;
        resumed
    }

    /// A peer accepted these slots: it keeps up, once nothing is on its way any more.
    pub(crate) fn answered(&mut self, peer: ReplicaId, first: Slot, last: Slot) {
        if let Some(flow) = self.peers.iter_mut().find(|flow| flow.peer == peer) {
            let waiting = flow.sent.len();
            flow.remove(first, last);
            flow.probed &= !flow.sent.is_empty() || waiting == 0;
        }
    }

    /// A peer says how far its prefix reaches.
    pub(crate) fn reported(&mut self, peer: ReplicaId, committed: Slot) {
        if let Some(flow) = self.peers.iter_mut().find(|flow| flow.peer == peer) {
            flow.remove(Slot::ZERO, committed);
        }
    }

    /// Which peers are probed.
    pub(crate) fn probed(&self) -> Vec<bool> {
        self.peers.iter().map(|flow| flow.probed).collect()
    }

    /// For people and checks to see.
    pub(crate) fn status(&self) -> Vec<PeerFlow> {
        let status = |flow: &Flow| PeerFlow {
            peer: flow.peer,
            slots: flow.sent.len(),
            bytes: flow.bytes,
            probed: flow.probed,
        };
        self.peers.iter().map(status).collect()
    }
}
