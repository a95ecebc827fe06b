//! The session in which a remote client sends its commands, so that they may be sent again.
//!
//! Owns: [`Session`]: its id, once it is open, and which of its numbers may still be sent. Knows no
//! link and no call.
//! Invariants: (1) an id is opened by one request: where that does not say that it is open, another
//! is drawn; (2) a number is given to one command; (3) what is acknowledged is below every number
//! that may still be sent. Rules S6 to S8 of protocol.md §13.

use std::collections::BTreeSet;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;

use paxos_core::ids::{RequestNumber, SessionId};

use crate::request::SessionRequest;

/// Which of this client's sessions, and which of its numbers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Number {
    count: u64,
    request: u64,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Closed,
    /// Somebody was asked.
    Opening(SessionId),
    Open(SessionId),
}

/// A client's session, and those before it.
#[derive(Debug)]
pub(crate) struct Session {
    state: State,
    /// Counts sessions: numbers of another are of no use.
    count: u64,
    next: u64,
    /// Numbers that may still be sent.
    live: BTreeSet<u64>,
}

impl Session {
    pub(crate) fn new() -> Self {
        Self { state: State::Closed, count: 0, next: 1, live: BTreeSet::new() }
    }

    pub(crate) fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    /// The id to be opened, if it is time for that.
    pub(crate) fn ask(&mut self) -> Option<SessionId> {
        if self.state != State::Closed {
            return None;
        }
        // The standard library's hash keys are the only randomness that it gives.
        let [high, low] = [RandomState::new(), RandomState::new()].map(|keys| keys.hash_one(0_u8));
        let id = SessionId::new((u128::from(high) << 64 | u128::from(low)) & (u128::MAX >> 16));
        self.state = State::Opening(id);
        Some(id)
    }

    /// Whoever was asked answered, or did not; whether it is open by now.
    pub(crate) fn answered(&mut self, is_open: bool) {
        if let State::Opening(id) = self.state {
            self.state = if is_open { State::Open(id) } else { State::Closed };
        }
    }

    /// The session of this number is known no more.
    pub(crate) fn lost(&mut self, number: Number) {
        if number.count == self.count {
            *self = Self { count: self.count + 1, ..Self::new() };
        }
    }

    /// A number of the open session.
    pub(crate) fn enter(&mut self) -> Number {
        let number = Number { count: self.count, request: self.next };
        self.next += 1;
        self.live.insert(number.request);
        number
    }

    /// What this number was given to is not sent again.
    pub(crate) fn leave(&mut self, number: Number) {
        if number.count == self.count {
            self.live.remove(&number.request);
        }
    }

    /// The name of a number's command, if the number is one of the open session.
    pub(crate) fn name(&self, number: Number) -> Option<SessionRequest> {
        let State::Open(session) = self.state else { return None };
        let below = self.live.first().copied().unwrap_or(self.next);
        (number.count == self.count).then_some(SessionRequest {
            session,
            request: RequestNumber::new(number.request),
            acknowledged_below: RequestNumber::new(below),
        })
    }
}
