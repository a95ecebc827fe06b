//! Frames within one process, for tests and first steps (the book's Single-Socket Channel, without
//! the socket).
//!
//! Owns: [`MemoryNetwork`], the links and their faults, and [`MemoryTransport`], one end of it.
//! Invariants: lanes keep the transport's contract: control drops its oldest, log and bulk refuse
//! the newest with `Full` and say `Drained` once half is free, a frame of the same key is replaced;
//! nothing arrives over a link that is cut; what was queued on it is lost.

use core::fmt;
use core::task::{Context, Poll, Waker};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use paxos_core::ids::{Incarnation, ReplicaId};
use paxos_core::port::{
    Channel, CoalesceKey, Frame, Lane, Sent, Transport, TransportCounters, TransportEvent,
};

/// The most bytes that wait in one lane of one link.
pub const LANE_BYTES_MAX: usize = 64 << 20;
/// The most frames that wait in one lane of one link.
pub const LANE_FRAMES_MAX: usize = 4096;
/// The largest frame.
pub const FRAME_BYTES_MAX: usize = 8 << 20;

/// How frames are mistreated, each with this chance in a hundred.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct MemoryFaults {
    /// Frames that vanish.
    pub loss: u8,
    /// Frames that arrive twice.
    pub duplication: u8,
    /// Frames that overtake those before them.
    pub reorder: u8,
    /// What the draws are made from.
    pub seed: u64,
}

/// Joins the nodes of one process. Cheap to clone; all clones are one network.
#[derive(Clone, Default)]
pub struct MemoryNetwork {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    ends: BTreeMap<ReplicaId, End>,
    cuts: BTreeSet<(ReplicaId, ReplicaId)>,
    faults: MemoryFaults,
}

/// What waits for one replica.
struct End {
    life: Incarnation,
    /// Tells this end from a later one of the same replica.
    serial: u64,
    links: VecDeque<TransportEvent>,
    lanes: BTreeMap<(Lane, ReplicaId), Queue>,
    waker: Option<Waker>,
    counters: TransportCounters,
}

#[derive(Default)]
struct Queue {
    frames: VecDeque<(Option<CoalesceKey>, Channel, Bytes)>,
    bytes: usize,
    refused: bool,
}

impl fmt::Debug for MemoryNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("MemoryNetwork")
            .field("started", &state.ends.keys())
            .field("cuts", &state.cuts)
            .finish_non_exhaustive()
    }
}

impl MemoryNetwork {
    /// A network without nodes and without faults.
    pub fn new() -> Self {
        Self::default()
    }

    /// The end of this replica. It joins when its node starts and leaves when it is dropped; a new
    /// one may take its place then.
    pub fn transport(&self, replica: ReplicaId) -> MemoryTransport {
        MemoryTransport { network: self.clone(), replica, serial: None, arrived: VecDeque::new() }
    }

    /// Cuts the link between two replicas: both see it go down.
    pub fn cut(&self, one: ReplicaId, other: ReplicaId) {
        let mut state = self.lock();
        state.cuts.insert(pair(one, other));
        state.unlink(one, other, "cut");
    }

    /// Cuts all links of a replica.
    pub fn isolate(&self, replica: ReplicaId) {
        let others: Vec<_> = self.lock().ends.keys().copied().collect();
        for other in others.into_iter().filter(|other| *other != replica) {
            self.cut(replica, other);
        }
    }

    /// Restores every link.
    pub fn heal(&self) {
        let mut state = self.lock();
        for (one, other) in core::mem::take(&mut state.cuts) {
            state.link(one, other);
        }
    }

    /// From this call on frames are mistreated so.
    pub fn set_faults(&self, faults: MemoryFaults) {
        let mut state = self.lock();
        state.faults = faults;
        // A generator of this kind never leaves zero.
        state.faults.seed |= 1;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn pair(one: ReplicaId, other: ReplicaId) -> (ReplicaId, ReplicaId) {
    (one.min(other), one.max(other))
}

impl State {
    fn is_cut(&self, one: ReplicaId, other: ReplicaId) -> bool {
        !self.cuts.is_empty() && self.cuts.contains(&pair(one, other))
    }

    fn link(&mut self, one: ReplicaId, other: ReplicaId) {
        for (at, peer) in [(one, other), (other, one)] {
            let Some(incarnation) = self.ends.get(&peer).map(|end| end.life) else {
                continue;
            };
            if let Some(end) = self.ends.get_mut(&at) {
                end.counters.links_up += 1;
                end.tell(TransportEvent::Up { peer, incarnation });
            }
        }
    }

    fn unlink(&mut self, one: ReplicaId, other: ReplicaId, reason: &str) {
        for (at, peer) in [(one, other), (other, one)] {
            if let Some(end) = self.ends.get_mut(&at) {
                end.lanes.retain(|(_, from), _| *from != peer);
                let reason = reason.to_owned();
                end.tell(TransportEvent::Down { peer, reason });
            }
        }
    }

    /// Whether something happens that happens so many times in a hundred.
    fn draw(&mut self, percent: u8) -> bool {
        if percent == 0 {
            return false;
        }
        let seed = &mut self.faults.seed;
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        *seed % 100 < u64::from(percent)
    }
}

impl End {
    fn tell(&mut self, event: TransportEvent) {
        self.links.push_back(event);
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Queue {
    /// Queues a frame under the rules of its lane; how many old ones were dropped for it.
    fn push(&mut self, frame: &Frame, bytes: Bytes, counters: &mut TransportCounters) -> Sent {
        if let Some(key) = frame.key
            && let Some(old) = self.frames.iter_mut().find(|old| old.0 == Some(key))
        {
            self.bytes = self.bytes - old.2.len() + bytes.len();
            *old = (frame.key, frame.channel, bytes);
            counters.coalesced += 1;
            return Sent::Queued;
        }
        let full = |queue: &Self| {
            queue.bytes + bytes.len() > LANE_BYTES_MAX || queue.frames.len() >= LANE_FRAMES_MAX
        };
        while full(self) {
            if frame.lane != Lane::Control {
                self.refused = true;
                counters.refused_full += 1;
                return Sent::Full;
            }
            counters.dropped_oldest += 1;
            let (_, _, old) = self.frames.pop_front().expect("a full lane is not empty");
            self.bytes -= old.len();
        }
        self.bytes += bytes.len();
        self.frames.push_back((frame.key, frame.channel, bytes));
        Sent::Queued
    }
}

/// One replica's end of a [`MemoryNetwork`].
pub struct MemoryTransport {
    network: MemoryNetwork,
    replica: ReplicaId,
    /// Set once started.
    serial: Option<u64>,
    /// Taken from the network and not yet from here: one lock for many events.
    arrived: VecDeque<TransportEvent>,
}

impl fmt::Debug for MemoryTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryTransport").field("replica", &self.replica).finish_non_exhaustive()
    }
}

impl MemoryTransport {
    /// Takes over everything that waits, control first, and tells senders of lanes with room.
    fn fetch(&mut self, cx: &Context<'_>) -> bool {
        let mut state = self.network.lock();
        let Some(end) = state.ends.get_mut(&self.replica) else {
            return false;
        };
        if Some(end.serial) != self.serial {
            return false;
        }
        let mut drained = Vec::new();
        self.arrived.extend(end.links.drain(..));
        for ((lane, from), queue) in &mut end.lanes {
            end.counters.frames_received += queue.frames.len() as u64;
            end.counters.bytes_received += queue.bytes as u64;
            queue.bytes = 0;
            if core::mem::take(&mut queue.refused) {
                drained.push((*from, *lane));
            }
            let from = *from;
            let frames = queue.frames.drain(..);
            self.arrived.extend(frames.map(|(_, channel, bytes)| TransportEvent::Frame {
                from,
                channel,
                bytes,
            }));
        }
        end.waker = Some(cx.waker().clone());
        for (sender, lane) in drained {
            if let Some(sender) = state.ends.get_mut(&sender) {
                let peer = self.replica;
                sender.tell(TransportEvent::Drained { peer, lane });
            }
        }
        true
    }
}

impl Transport for MemoryTransport {
    fn replica(&self) -> ReplicaId {
        self.replica
    }

    fn frame_bytes_max(&self) -> usize {
        FRAME_BYTES_MAX
    }

    fn start(&mut self, incarnation: Incarnation) {
        let mut state = self.network.lock();
        assert!(
            !state.ends.contains_key(&self.replica),
            "a replica has one end at a time: drop the old one first"
        );
        // Lives of one replica differ, so that its bits tell the ends apart.
        let serial = incarnation.bits();
        self.serial = Some(serial);
        let end = End {
            life: incarnation,
            serial,
            links: VecDeque::new(),
            lanes: BTreeMap::new(),
            waker: None,
            counters: TransportCounters::default(),
        };
        state.ends.insert(self.replica, end);
        let peers: Vec<_> = state.ends.keys().copied().collect();
        for peer in peers {
            if peer != self.replica && !state.is_cut(self.replica, peer) {
                state.link(self.replica, peer);
            }
        }
    }

    fn send(&mut self, to: ReplicaId, frame: Frame) -> Sent {
        let len = frame.len();
        if len > FRAME_BYTES_MAX {
            return Sent::TooLarge;
        }
        let bytes = match frame.chunks.as_slice() {
            [one] => one.clone(),
            many => Bytes::from(many.concat()),
        };
        let mut state = self.network.lock();
        let up = state.ends.contains_key(&to) && !state.is_cut(self.replica, to);
        let lost = up && {
            let loss = state.faults.loss;
            state.draw(loss)
        };
        let (duplication, reorder) = (state.faults.duplication, state.faults.reorder);
        let copies = 1 + usize::from(state.draw(duplication));
        let overtakes = state.draw(reorder);
        let mut counters = TransportCounters::default();
        let mut sent = if up { Sent::Queued } else { Sent::Down };
        if up
            && !lost
            && let Some(end) = state.ends.get_mut(&to)
        {
            let queue = end.lanes.entry((frame.lane, self.replica)).or_default();
            for _ in 0..copies {
                sent = queue.push(&frame, bytes.clone(), &mut counters);
                if overtakes && let Some(last) = queue.frames.pop_back() {
                    queue.frames.push_front(last);
                }
            }
            end.wake();
        }
        if let Some(own) = state.ends.get_mut(&self.replica) {
            let total = &mut own.counters;
            total.coalesced += counters.coalesced;
            total.dropped_oldest += counters.dropped_oldest;
            total.refused_full += counters.refused_full;
            total.refused_down += u64::from(!up);
            if sent == Sent::Queued {
                total.frames_sent += 1;
                total.bytes_sent += len as u64;
            }
        }
        sent
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<TransportEvent>> {
        if let Some(event) = self.arrived.pop_front() {
            return Poll::Ready(Some(event));
        }
        if !self.fetch(cx) {
            return Poll::Ready(None);
        }
        match self.arrived.pop_front() {
            Some(event) => Poll::Ready(Some(event)),
            None => Poll::Pending,
        }
    }

    fn counters(&self) -> TransportCounters {
        let state = self.network.lock();
        let end = state.ends.get(&self.replica);
        end.map(|end| end.counters).unwrap_or_default()
    }
}

impl Drop for MemoryTransport {
    fn drop(&mut self) {
        let mut state = self.network.lock();
        let own = state.ends.get(&self.replica).map(|end| end.serial);
        if own.is_none() || own != self.serial {
            return;
        }
        state.ends.remove(&self.replica);
        let peers: Vec<_> = state.ends.keys().copied().collect();
        for peer in peers {
            if !state.is_cut(self.replica, peer) {
                state.unlink(self.replica, peer, "the peer stopped");
            }
        }
    }
}
