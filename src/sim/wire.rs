//! The simulated end of a node's links.
//!
//! Owns: [`SimTransport`], which implements the port, and [`Wire`], by which the simulator gives it
//! what arrived and takes what left. Decides no frame's fate: the simulator's network does.
//! Invariants: a frame leaves only over a link that is up at this end; a lane that refused a frame
//! says that it has room again.

use core::task::{Context, Poll, Waker};
use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use paxos_core::ids::{Incarnation, ReplicaId};
use paxos_core::port::{Frame, Lane, Sent, Transport, TransportCounters, TransportEvent};
use paxos_core::sim::Rng;

/// The simulator's side.
#[derive(Clone, Debug)]
pub(super) struct Wire {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    arrived: VecDeque<TransportEvent>,
    left: Vec<(ReplicaId, Frame)>,
    linked: BTreeSet<ReplicaId>,
    waker: Option<Waker>,
    rng: Rng,
    /// How many of a thousand frames for a lane that may refuse are refused.
    full: Arc<AtomicU32>,
    counters: TransportCounters,
}

/// The node's side.
#[derive(Debug)]
pub(super) struct SimTransport {
    wire: Wire,
    replica: ReplicaId,
}

impl Wire {
    /// The two sides of one end.
    pub(super) fn new(replica: ReplicaId, rng: Rng, full: Arc<AtomicU32>) -> (Self, SimTransport) {
        let state = State {
            arrived: VecDeque::new(),
            left: Vec::new(),
            linked: BTreeSet::new(),
            waker: None,
            rng,
            full,
            counters: TransportCounters::default(),
        };
        let wire = Self { state: Arc::new(Mutex::new(state)) };
        (wire.clone(), SimTransport { wire, replica })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something arrives.
    pub(super) fn arrive(&self, event: TransportEvent) {
        let mut state = self.state();
        match &event {
            TransportEvent::Up { peer, .. } => {
                state.linked.insert(*peer);
                state.counters.links_up += 1;
            }
            TransportEvent::Down { peer, .. } => {
                state.linked.remove(peer);
            }
            TransportEvent::Frame { bytes, .. } => {
                state.counters.frames_received += 1;
                state.counters.bytes_received += bytes.len() as u64;
            }
            TransportEvent::Refused { .. } | TransportEvent::Drained { .. } => {}
        }
        state.arrived.push_back(event);
        let waker = state.waker.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }

    /// What left since the last call, in order.
    pub(super) fn take(&self) -> Vec<(ReplicaId, Frame)> {
        core::mem::take(&mut self.state().left)
    }
}

impl Transport for SimTransport {
    fn replica(&self) -> ReplicaId {
        self.replica
    }

    fn start(&mut self, _incarnation: Incarnation) {}

    fn send(&mut self, to: ReplicaId, frame: Frame) -> Sent {
        let mut state = self.wire.state();
        if !state.linked.contains(&to) {
            state.counters.refused_down += 1;
            return Sent::Down;
        }
        let full = state.full.load(Ordering::Relaxed);
        if frame.lane != Lane::Control && state.rng.chance(full) {
            state.counters.refused_full += 1;
            let drained = TransportEvent::Drained { peer: to, lane: frame.lane };
            state.arrived.push_back(drained);
            return Sent::Full;
        }
        state.counters.frames_sent += 1;
        state.counters.bytes_sent += frame.len() as u64;
        state.left.push((to, frame));
        Sent::Queued
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<TransportEvent>> {
        let mut state = self.wire.state();
        if let Some(event) = state.arrived.pop_front() {
            return Poll::Ready(Some(event));
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn counters(&self) -> TransportCounters {
        self.wire.state().counters
    }
}
