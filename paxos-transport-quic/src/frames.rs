//! Frames out of a stream's bytes.
//!
//! Owns: [`Assembler`]. Knows no network.
//! Invariants:
//! 1. A length is refused before anything is allocated for it, and a buffer grows with what was
//!    received, not with what was announced.
//! 2. No frame keeps a buffer of the network alive: bytes are copied. Small frames that arrive
//!    together share one buffer of their own combined size, which is bounded too; a larger frame
//!    has one to itself.

use std::collections::VecDeque;

use bytes::Bytes;
use paxos_core::port::Channel;

use crate::wire::{self, HEADER_LEN, Header, WireError};

/// Frames up to this share a buffer.
const SMALL: usize = 1024;
/// The most bytes of frames that share a buffer; what one small frame can pin.
const GROUP_MAX: usize = 16 * 1024;
/// The first buffer of a large frame.
const LARGE_FIRST: usize = 64 * 1024;

#[derive(Debug)]
pub(crate) struct Assembler {
    frame_max: u32,
    state: State,
    /// Bodies of small frames, the last one perhaps in part.
    group: Vec<u8>,
    /// The channel and end of each whole frame in `group`.
    ends: Vec<(Channel, usize)>,
    frames: VecDeque<(Channel, Bytes)>,
}

#[derive(Debug)]
enum State {
    Header([u8; HEADER_LEN], usize),
    Small(Channel, usize),
    Large(Channel, Vec<u8>, usize),
    Skip(usize),
}

impl State {
    const START: Self = Self::Header([0; HEADER_LEN], 0);
}

impl Assembler {
    pub(crate) fn new(frame_max: u32) -> Self {
        Self {
            frame_max,
            state: State::START,
            group: Vec::new(),
            ends: Vec::new(),
            frames: VecDeque::new(),
        }
    }

    /// Takes the next bytes of the stream.
    pub(crate) fn feed(&mut self, mut rest: &[u8]) -> Result<(), WireError> {
        while !rest.is_empty() {
            match &mut self.state {
                State::Header(header, filled) => {
                    let count = rest.len().min(HEADER_LEN - *filled);
                    let (now, after) = rest.split_at(count);
                    header[*filled..*filled + count].copy_from_slice(now);
                    *filled += count;
                    rest = after;
                    if *filled == HEADER_LEN {
                        let header = wire::parse_header(*header, self.frame_max)?;
                        self.begin(header);
                    }
                }
                State::Small(channel, missing) => {
                    let count = rest.len().min(*missing);
                    let (now, after) = rest.split_at(count);
                    self.group.extend_from_slice(now);
                    *missing -= count;
                    rest = after;
                    if *missing == 0 {
                        self.ends.push((*channel, self.group.len()));
                        self.state = State::START;
                        if self.group.len() > GROUP_MAX - SMALL {
                            self.flush_group();
                        }
                    }
                }
                State::Large(channel, buffer, missing) => {
                    let count = rest.len().min(*missing);
                    let (now, after) = rest.split_at(count);
                    grow(buffer, count, *missing);
                    buffer.extend_from_slice(now);
                    *missing -= count;
                    rest = after;
                    if *missing == 0 {
                        let whole = (*channel, core::mem::take(buffer).into());
                        self.frames.push_back(whole);
                        self.state = State::START;
                    }
                }
                State::Skip(missing) => {
                    let count = rest.len().min(*missing);
                    *missing -= count;
                    rest = &rest[count..];
                    if *missing == 0 {
                        self.state = State::START;
                    }
                }
            }
        }
        Ok(())
    }

    /// The whole frames so far, in order.
    pub(crate) fn take(&mut self) -> VecDeque<(Channel, Bytes)> {
        self.flush_group();
        core::mem::take(&mut self.frames)
    }

    fn begin(&mut self, header: Header) {
        let len = header.len as usize;
        self.state = match header.channel {
            None if len == 0 => State::START,
            None => State::Skip(len),
            Some(channel) if len == 0 => {
                self.ends.push((channel, self.group.len()));
                State::START
            }
            Some(channel) if len <= SMALL => State::Small(channel, len),
            Some(channel) => {
                self.flush_group();
                State::Large(channel, Vec::new(), len)
            }
        };
    }

    /// Turns the whole frames of the group into frames over one buffer.
    fn flush_group(&mut self) {
        let Some(&(_, end)) = self.ends.last() else {
            return;
        };
        let shared = Bytes::copy_from_slice(&self.group[..end]);
        let mut start = 0;
        for (channel, end) in self.ends.drain(..) {
            self.frames.push_back((channel, shared.slice(start..end)));
            start = end;
        }
        self.group.drain(..end);
    }
}

/// Makes room for `count` more bytes of a frame that misses `missing`, so that the buffer at most
/// doubles and ends at exactly the frame's length.
fn grow(buffer: &mut Vec<u8>, count: usize, missing: usize) {
    if buffer.capacity() - buffer.len() < count {
        let more = buffer.len().max(LARGE_FIRST).max(count).min(missing);
        buffer.reserve_exact(more);
    }
}
