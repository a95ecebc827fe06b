//! One client's link at the node that serves it, as a state machine without a network.
//!
//! Owns: [`Desk`]: whether the client was greeted, which of its requests are unanswered, the bytes
//! that came and are not looked at, and those that are to go. Knows no node, no state machine and no
//! time.
//! Invariants: (1) nothing is asked for before the client said which cluster and group it means;
//! (2) unanswered requests are bounded by number and by bytes: beyond, no byte is looked at and none
//! is read; (3) a request is answered once; (4) goodbye is said when all that was taken in is answered,
//! and nothing is taken in after it.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};

use crate::error::{ClientError, Rejection};
use crate::remote::wire::{
    self, Answer, Assembler, Breach, Done, Frame, GREETING_BYTES_MAX, HEAD_BYTES, Hello, Request,
    Wanted, Welcome,
};

/// The bounds of one link.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Unanswered requests.
    pub(crate) requests: usize,
    /// Bytes of their commands and queries.
    pub(crate) request_bytes: usize,
    /// Bytes of answers that the client did not take yet.
    pub(crate) answer_bytes: usize,
}

/// What the desk knows of an unanswered request.
#[derive(Clone, Copy, Debug)]
struct Open {
    bytes: usize,
    is_read: bool,
}

/// The table.
#[derive(Debug)]
pub(crate) struct Desk {
    welcome: Welcome,
    bounds: Bounds,
    /// The largest frame that the client takes; none before it is greeted.
    frame_max: Option<usize>,
    assembler: Assembler,
    /// Came, and not looked at.
    unread: Bytes,
    open: BTreeMap<u64, Open>,
    open_bytes: usize,
    out: BytesMut,
    /// Goodbye is said.
    has_left: bool,
}

impl Desk {
    /// For a client of whom nothing is known yet.
    pub(crate) fn new(welcome: Welcome, bounds: Bounds) -> Self {
        Self {
            welcome,
            bounds,
            frame_max: None,
            assembler: Assembler::new(GREETING_BYTES_MAX),
            unread: Bytes::new(),
            open: BTreeMap::new(),
            open_bytes: 0,
            out: BytesMut::new(),
            has_left: false,
        }
    }

    pub(crate) fn is_greeted(&self) -> bool {
        self.frame_max.is_some()
    }

    /// Whether one more request may be taken in.
    fn has_room(&self) -> bool {
        !self.has_left
            && self.open.len() < self.bounds.requests
            && self.open_bytes < self.bounds.request_bytes
            && self.out.len() < self.bounds.answer_bytes
    }

    /// Whether the link is to be read.
    pub(crate) fn wants_bytes(&self) -> bool {
        self.unread.is_empty() && self.has_room()
    }

    /// Bytes came. Only while [`Desk::wants_bytes`].
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        assert!(self.unread.is_empty(), "a link is read only when all was looked at");
        self.unread = Bytes::copy_from_slice(bytes);
    }

    /// The next request, if there is one whole, and room for it.
    pub(crate) fn next(&mut self) -> Result<Option<Request>, Breach> {
        while self.has_room() {
            let mut rest = &self.unread[..];
            let body = self.assembler.next(&mut rest)?;
            self.unread = self.unread.slice(self.unread.len() - rest.len()..);
            let Some(body) = body else { break };
            match wire::decode(body)? {
                Frame::Hello(hello) => self.greet(hello)?,
                Frame::Request(request) if self.is_greeted() => {
                    self.take(&request)?;
                    return Ok(Some(request));
                }
                Frame::Request(_) | Frame::Welcome(_) | Frame::Answer(_) | Frame::Goodbye => {
                    return Err(Breach::OutOfTurn);
                }
            }
        }
        Ok(None)
    }

    fn greet(&mut self, hello: Hello) -> Result<(), Breach> {
        if self.is_greeted() {
            return Err(Breach::OutOfTurn);
        }
        if (hello.cluster, hello.group) != (self.welcome.cluster, self.welcome.group) {
            return Err(Breach::Stranger);
        }
        // Less would not hold an error's words.
        let frame_max = hello.frame_max as usize;
        self.frame_max = Some(frame_max.max(2 * GREETING_BYTES_MAX));
        self.assembler.set_frame_max(self.welcome.frame_max as usize);
        wire::encode(&mut self.out, &Frame::Welcome(self.welcome));
        Ok(())
    }

    fn take(&mut self, request: &Request) -> Result<(), Breach> {
        let (bytes, is_read) = match &request.wanted {
            Wanted::Command(_, payload) => (payload.len(), false),
            Wanted::Open(..) => (0, false),
            Wanted::Read(_, payload) => (payload.len(), true),
        };
        if self.open.insert(request.number, Open { bytes, is_read }).is_some() {
            return Err(Breach::Number(request.number));
        }
        self.open_bytes += bytes;
        Ok(())
    }

    /// The outcome of a request that was taken in.
    pub(crate) fn answer(&mut self, number: u64, outcome: Result<Done, ClientError>) {
        let open = self.open.remove(&number).expect("only what was asked for is answered");
        self.open_bytes -= open.bytes;
        let frame_max = self.frame_max.expect("nothing is asked for before the greeting");
        let outcome = outcome.and_then(|done| {
            let bytes = done.payload.len() + HEAD_BYTES;
            if bytes <= frame_max {
                return Ok(done);
            }
            Err(if open.is_read {
                let what = format!("it takes {bytes} bytes, more than {frame_max}");
                ClientError::Rejected(Rejection::Answer(what))
            } else {
                ClientError::ReplyNotKept { slot: done.slot }
            })
        });
        wire::encode(&mut self.out, &Frame::Answer(Answer { number, outcome }));
    }

    /// What is to be sent, to be shortened by what was.
    pub(crate) fn out(&mut self) -> &mut BytesMut {
        &mut self.out
    }

    /// Nothing more is taken in. Says goodbye once everything that was is answered; true when all is
    /// sent.
    pub(crate) fn leave(&mut self) -> bool {
        if !self.open.is_empty() {
            return false;
        }
        if !self.has_left {
            self.has_left = true;
            wire::encode(&mut self.out, &Frame::Goodbye);
        }
        self.out.is_empty()
    }
}
