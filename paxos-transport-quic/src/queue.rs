//! The frames that wait to be sent to one peer, lane by lane.
//!
//! Owns: [`LaneQueue`]: its bounds, what is dropped and what is refused, and coalescing. Knows no
//! network and no clock.
//! Invariants:
//! 1. Bytes and frames stay within their bounds, but for one single frame larger than the bound.
//! 2. Order is kept, and a coalesced frame takes the place of the one that it replaces.
//! 3. A queue without a link is empty.
//! 4. Each `Full` is followed by one [`Taken::drained`] or by the end of the link.
//!
//! Pattern: Request Pipeline (a bound on what is on its way to one peer).

use core::task::{Context, Poll, Waker};
use std::collections::{HashMap, VecDeque};

use bytes::{Bytes, BytesMut};
use paxos_core::port::{CoalesceKey, Frame, Sent};

use crate::wire::{self, HEADER_LEN};

/// What happens to a frame that does not fit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Overflow {
    DropOldest,
    RefuseNewest,
}

#[derive(Debug)]
pub(crate) struct LaneQueue {
    frames: VecDeque<Frame>,
    /// The number of the first frame in `frames`, counted from the beginning of the link.
    first: u64,
    number_by_key: HashMap<CoalesceKey, u64>,
    bytes: usize,
    bytes_max: usize,
    frames_max: usize,
    overflow: Overflow,
    /// Whether somebody was refused and waits to hear that there is room.
    refused: bool,
    /// The writer that may take frames; 0 while there is no link.
    owner: u64,
    /// The owner, where it sleeps until there is a frame.
    waiter: Option<Waker>,
}

/// What became of a frame, and what else happened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Pushed {
    pub(crate) sent: Sent,
    /// How many older frames were dropped for it.
    pub(crate) dropped: u64,
    /// Whether it took the place of an older one.
    pub(crate) coalesced: bool,
}

impl Pushed {
    const fn refused(sent: Sent) -> Self {
        Self { sent, dropped: 0, coalesced: false }
    }
}

/// What the writer took.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    pub(crate) frames: Vec<Frame>,
    /// Their bytes with headers.
    pub(crate) bytes: usize,
    /// Whether a queue that refused a frame is below half.
    pub(crate) drained: bool,
}

impl LaneQueue {
    pub(crate) fn new(overflow: Overflow, bytes_max: usize, frames_max: usize) -> Self {
        Self {
            frames: VecDeque::new(),
            first: 0,
            number_by_key: HashMap::new(),
            bytes: 0,
            bytes_max,
            frames_max,
            overflow,
            refused: false,
            owner: 0,
            waiter: None,
        }
    }

    /// Hands the queue to the writer numbered `owner`; one that had it before takes no more.
    pub(crate) fn open(&mut self, owner: u64) {
        assert_ne!(owner, 0, "writers are numbered from 1");
        self.owner = owner;
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(waiter) = self.waiter.take() {
            waiter.wake();
        }
    }

    /// Drops what is queued and takes no more. Returns how many frames were lost.
    pub(crate) fn close(&mut self) -> usize {
        let lost = self.frames.len();
        self.first += lost as u64;
        self.frames = VecDeque::new();
        self.number_by_key.clear();
        self.bytes = 0;
        self.refused = false;
        self.owner = 0;
        self.wake();
        lost
    }

    pub(crate) fn push(&mut self, frame: Frame, frame_max: usize) -> Pushed {
        if self.owner == 0 {
            return Pushed::refused(Sent::Down);
        }
        let len = frame.len();
        if len > frame_max {
            return Pushed::refused(Sent::TooLarge);
        }
        let cost = len + HEADER_LEN;
        let place = frame
            .key
            .and_then(|key| self.number_by_key.get(&key))
            .map(|number| (number - self.first) as usize);
        if let Some(place) = place {
            let alone = self.frames.len() == 1;
            let old = &mut self.frames[place];
            let bytes = self.bytes - (old.len() + HEADER_LEN) + cost;
            let grows_too_large = bytes > self.bytes_max && bytes > self.bytes && !alone;
            if grows_too_large && self.overflow == Overflow::RefuseNewest {
                self.refused = true;
                return Pushed::refused(Sent::Full);
            }
            self.bytes = bytes;
            *old = frame;
            let dropped = self.shrink_to(self.bytes_max);
            return Pushed { sent: Sent::Queued, dropped, coalesced: true };
        }
        let fits = |queue: &Self| {
            queue.frames.is_empty()
                || (queue.bytes + cost <= queue.bytes_max && queue.frames.len() < queue.frames_max)
        };
        let mut dropped = 0;
        if !fits(self) {
            if self.overflow == Overflow::RefuseNewest {
                self.refused = true;
                return Pushed::refused(Sent::Full);
            }
            while !fits(self) {
                self.pop();
                dropped += 1;
            }
        }
        if let Some(key) = frame.key {
            let number = self.first + self.frames.len() as u64;
            self.number_by_key.insert(key, number);
        }
        self.frames.push_back(frame);
        self.bytes += cost;
        self.wake();
        Pushed { sent: Sent::Queued, dropped, coalesced: false }
    }

    /// Takes frames, at least one, until they reach `bytes`; pending until there is one. `None`
    /// when the queue is not the caller's.
    pub(crate) fn poll_take(
        &mut self,
        owner: u64,
        bytes: usize,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Taken>> {
        if self.owner != owner {
            return Poll::Ready(None);
        }
        let mut taken = Taken::default();
        while taken.bytes < bytes {
            let Some(frame) = self.pop() else { break };
            taken.bytes += frame.len() + HEADER_LEN;
            taken.frames.push(frame);
        }
        if taken.frames.is_empty() {
            self.waiter = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let half_empty =
            self.bytes <= self.bytes_max / 2 && self.frames.len() <= self.frames_max / 2;
        if self.refused && half_empty {
            self.refused = false;
            taken.drained = true;
        }
        Poll::Ready(Some(taken))
    }

    /// Drops the oldest frames while a replacement made the queue too large; the replacement itself
    /// stays if it is the last.
    fn shrink_to(&mut self, bytes: usize) -> u64 {
        let mut dropped = 0;
        while self.overflow == Overflow::DropOldest && self.bytes > bytes && self.frames.len() > 1 {
            self.pop();
            dropped += 1;
        }
        dropped
    }

    fn pop(&mut self) -> Option<Frame> {
        let frame = self.frames.pop_front()?;
        if let Some(key) = frame.key {
            self.number_by_key.remove(&key);
        }
        self.first += 1;
        self.bytes -= frame.len() + HEADER_LEN;
        Some(frame)
    }
}

/// Frames as they go to the network: small ones copied together, large ones by reference.
#[derive(Debug)]
pub(crate) struct Batch {
    chunks: Vec<Bytes>,
    gathered: BytesMut,
}

/// Chunks below this are copied; above it the copy costs more than one more chunk does.
const GATHER_BELOW: usize = 2 * 1024;

impl Batch {
    /// For frames of so many bytes in all, headers included.
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self {
            chunks: Vec::new(),
            // Large chunks are not copied, so that a batch of one needs no more than a header.
            gathered: BytesMut::with_capacity(bytes.min(GATHER_BELOW)),
        }
    }

    pub(crate) fn push(&mut self, frame: Frame) {
        let len = u32::try_from(frame.len()).expect("frames are bounded far below 4 GiB");
        self.gathered.extend_from_slice(&wire::header(len, frame.channel));
        for chunk in frame.chunks {
            if chunk.len() < GATHER_BELOW {
                self.gathered.extend_from_slice(&chunk);
            } else {
                self.chunks.push(self.gathered.split().freeze());
                self.chunks.push(chunk);
            }
        }
    }

    /// Everything, in order.
    pub(crate) fn finish(mut self) -> Vec<Bytes> {
        if !self.gathered.is_empty() {
            self.chunks.push(self.gathered.freeze());
        }
        self.chunks.retain(|chunk| !chunk.is_empty());
        self.chunks
    }
}

#[cfg(test)]
mod tests {
    use paxos_core::port::{Channel, Lane};

    use super::*;

    /// The peer may have had them, and its next life must not have them for the first time.
    #[test]
    fn what_was_queued_for_one_link_is_not_sent_over_the_next() {
        let mut queue = LaneQueue::new(Overflow::RefuseNewest, 1000, 10);
        let frame = |byte| Frame {
            lane: Lane::Log,
            key: None,
            channel: Channel::Core,
            chunks: vec![Bytes::from(vec![byte; 8])],
        };
        queue.open(1);
        assert_eq!(queue.push(frame(1), 100).sent, Sent::Queued);
        assert_eq!(queue.close(), 1);
        assert_eq!(queue.push(frame(2), 100).sent, Sent::Down);
        queue.open(2);
        let cx = &mut Context::from_waker(Waker::noop());
        assert!(queue.poll_take(2, 1000, cx).is_pending());
        assert_eq!(queue.push(frame(3), 100).sent, Sent::Queued);
        let Poll::Ready(Some(taken)) = queue.poll_take(2, 1000, cx) else {
            panic!("there is a frame");
        };
        let chunks: Vec<_> = taken.frames.iter().flat_map(|frame| &frame.chunks).collect();
        assert_eq!(chunks, [&[3; 8][..]]);
    }
}
