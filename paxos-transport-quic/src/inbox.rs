//! What arrived and waits for the host.
//!
//! Owns: [`Inbox`], the one queue of events in the order in which they happened, and [`Credit`], the
//! bound of each lane's share of it.
//! Invariants:
//! 1. A frame is queued only between the `Up` and the `Down` of the link that it came over: both
//!    are decided under the queue's lock.
//! 2. The frames of a lane that wait here, and those of the batch in the host's hands, stay below
//!    the lane's credit and one batch; its reader sleeps until the host took some.
//! 3. One lock per batch of frames, none per frame.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use paxos_core::ids::ReplicaId;
use paxos_core::port::{Channel, TransportEvent};
use tokio::sync::Notify;

/// Refusals beyond so many waiting ones are counted and not queued: a host that does not listen is
/// not worth memory that strangers decide on.
const REFUSALS_MAX: usize = 256;

/// How many received bytes of one lane wait for the host.
#[derive(Debug)]
pub(crate) struct Credit {
    used: AtomicUsize,
    limit: usize,
    freed: Notify,
}

impl Credit {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { used: AtomicUsize::new(0), limit, freed: Notify::new() })
    }

    /// Waits until there is room for a batch. Cancel safe. Several readers may wait: the one of a
    /// connection that was replaced, and that of its successor.
    pub(crate) async fn wait(&self) {
        loop {
            // Made before the look, so that no waking in between is missed.
            let freed = self.freed.notified();
            if self.used.load(Ordering::Acquire) < self.limit {
                return;
            }
            freed.await;
        }
    }

    fn release(&self, bytes: usize) {
        let before = self.used.fetch_sub(bytes, Ordering::AcqRel);
        if before >= self.limit && before - bytes < self.limit {
            self.freed.notify_waiters();
        }
    }
}

/// Whether frames of a link are still welcome; shared by the connections that follow each other
/// within one link.
#[derive(Debug, Default)]
pub(crate) struct Gate(AtomicBool);

/// Frames of one peer, in order.
#[derive(Debug)]
struct Frames {
    from: ReplicaId,
    rest: VecDeque<(Channel, Bytes)>,
    bytes: usize,
    credit: Arc<Credit>,
}

impl Drop for Frames {
    fn drop(&mut self) {
        self.credit.release(self.bytes);
    }
}

#[derive(Debug)]
enum Item {
    Event(TransportEvent),
    Frames(Frames),
}

#[derive(Debug, Default)]
struct State {
    items: VecDeque<Item>,
    refusals: usize,
    waker: Option<Waker>,
    stopped: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Inbox {
    state: Mutex<State>,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }

    fn wake(state: MutexGuard<'_, State>) {
        let mut state = state;
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Queues events of links, in this order. A gate given is closed in the same moment.
    pub(crate) fn push_events(
        &self,
        closing: Option<&Gate>,
        events: impl IntoIterator<Item = TransportEvent>,
    ) {
        let mut state = self.lock();
        if let Some(gate) = closing {
            gate.0.store(true, Ordering::Relaxed);
        }
        state.items.extend(events.into_iter().map(Item::Event));
        Self::wake(state);
    }

    /// Queues a refusal, if there is room for one more.
    pub(crate) fn push_refused(&self, peer: Option<ReplicaId>, reason: String) {
        let mut state = self.lock();
        if state.refusals < REFUSALS_MAX {
            state.refusals += 1;
            let refused = TransportEvent::Refused { peer, reason };
            state.items.push_back(Item::Event(refused));
            Self::wake(state);
        }
    }

    /// Queues frames, unless their link is gone. Returns whether it was there.
    pub(crate) fn push_frames(
        &self,
        gate: &Gate,
        from: ReplicaId,
        frames: VecDeque<(Channel, Bytes)>,
        credit: &Arc<Credit>,
    ) -> bool {
        // An empty frame costs memory as well.
        let bytes = frames.iter().map(|(_, bytes)| bytes.len() + 64).sum();
        credit.used.fetch_add(bytes, Ordering::AcqRel);
        let frames = Frames { from, rest: frames, bytes, credit: Arc::clone(credit) };
        let mut state = self.lock();
        let open = !gate.0.load(Ordering::Relaxed);
        if open {
            state.items.push_back(Item::Frames(frames));
            Self::wake(state);
        }
        open
    }

    /// Ends the queue: what is in it is still handed out, and then `None`.
    pub(crate) fn stop(&self) {
        let mut state = self.lock();
        state.stopped = true;
        Self::wake(state);
    }
}

/// The host's end.
#[derive(Debug)]
pub(crate) struct Outlet {
    inbox: Arc<Inbox>,
    taken: VecDeque<Item>,
    current: Option<Frames>,
}

impl Outlet {
    pub(crate) fn new(inbox: Arc<Inbox>) -> Self {
        Self { inbox, taken: VecDeque::new(), current: None }
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<TransportEvent>> {
        loop {
            if let Some(current) = &mut self.current {
                if let Some((channel, bytes)) = current.rest.pop_front() {
                    let from = current.from;
                    let frame = TransportEvent::Frame { from, channel, bytes };
                    return Poll::Ready(Some(frame));
                }
                self.current = None;
            }
            match self.taken.pop_front() {
                Some(Item::Event(event)) => return Poll::Ready(Some(event)),
                Some(Item::Frames(frames)) => {
                    self.current = Some(frames);
                    continue;
                }
                None => {}
            }
            let mut state = self.inbox.lock();
            if state.items.is_empty() {
                if state.stopped {
                    return Poll::Ready(None);
                }
                match &mut state.waker {
                    Some(waker) => waker.clone_from(cx.waker()),
                    waker @ None => *waker = Some(cx.waker().clone()),
                }
                return Poll::Pending;
            }
            core::mem::swap(&mut state.items, &mut self.taken);
            state.refusals = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two readers serve a link that was dialled from both sides, and one of them may still hold a
    /// batch when the link has ended.
    #[test]
    fn nothing_of_a_link_comes_after_its_end() {
        let inbox = Arc::new(Inbox::default());
        let mut outlet = Outlet::new(Arc::clone(&inbox));
        let (gate, credit) = (Gate::default(), Credit::new(100));
        let peer = ReplicaId::new(2);
        let frames = || VecDeque::from([(Channel::Core, Bytes::from_static(b"frame"))]);
        assert!(inbox.push_frames(&gate, peer, frames(), &credit));
        let down = TransportEvent::Down { peer, reason: "the link fell".to_owned() };
        inbox.push_events(Some(&gate), [down]);
        assert!(!inbox.push_frames(&gate, peer, frames(), &credit));
        let mut next = || outlet.poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(next(), Poll::Ready(Some(TransportEvent::Frame { .. }))));
        assert!(matches!(next(), Poll::Ready(Some(TransportEvent::Down { .. }))));
        assert!(next().is_pending());
        assert_eq!(credit.used.load(Ordering::Acquire), 0, "what is refused is given back");
    }
}
