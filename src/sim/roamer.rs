//! A client with a session of its own, which asks one node after the other.
//!
//! Owns: [`Roamer`]: what such a client knows of its session and of the request in its hands. Plain state:
//! asks nobody itself.
//! Invariants: (1) a request keeps its name as long as it may have been applied; (2) an id is asked for
//! once; (3) a request is let go when it is answered, or can never be.

use core::task::{Context, Poll};
use core::time::Duration;
use std::pin::Pin;
use std::sync::Arc;

use paxos_core::ids::{RequestNumber, SessionId, Slot};
use paxos_core::sim::linear::OperationId;

use super::turn::Flag;
use crate::error::{ClientError, Rejection};
use crate::request::SessionRequest;

/// A request that was asked, and is asked again until something is known of it.
#[derive(Clone, Debug)]
pub(super) struct Held<C> {
    pub(super) command: C,
    /// Its place in the history.
    pub(super) operation: OperationId,
    /// The command's number.
    pub(super) number: u64,
    /// Whether an attempt may have been applied.
    doubt: bool,
}

/// What is to be done about a request after an attempt.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    /// It has its end.
    Done,
    /// It is asked again.
    Again,
    /// Nobody can ever say what became of it.
    Lost,
}

type Opened = Pin<Box<dyn Future<Output = Result<Slot, ClientError>> + Send>>;

struct Opening {
    id: SessionId,
    future: Opened,
    flag: Arc<Flag>,
}

/// What a roaming client knows.
pub(super) struct Roamer<C> {
    by: u64,
    pub(super) ttl: Duration,
    ids: u64,
    opening: Option<Opening>,
    session: Option<SessionId>,
    next: u64,
    pub(super) held: Option<Held<C>>,
}

impl<C> Roamer<C> {
    pub(super) fn new(by: u64, ttl: Duration) -> Self {
        Self { by, ttl, ids: 0, opening: None, session: None, next: 1, held: None }
    }

    /// Whether it has something to do.
    pub(super) fn is_busy(&self) -> bool {
        self.opening.is_some() || self.held.is_some()
    }

    /// The next id to be opened, if the client has no session.
    pub(super) fn wants_session(&mut self) -> Option<SessionId> {
        if self.session.is_some() || self.opening.is_some() {
            return None;
        }
        self.ids += 1;
        // No node's: those have the client's number of a life above.
        Some(SessionId::new(u128::from(self.by) << 120 | u128::from(self.ids)))
    }

    pub(super) fn opens(&mut self, id: SessionId, future: Opened) {
        self.opening = Some(Opening { id, future, flag: Flag::raised() });
    }

    /// Looks whether the session is open.
    pub(super) fn poll(&mut self) {
        let Some(opening) = &mut self.opening else { return };
        if !opening.flag.lower() {
            return;
        }
        let waker = Arc::clone(&opening.flag).into();
        if let Poll::Ready(opened) = opening.future.as_mut().poll(&mut Context::from_waker(&waker))
        {
            self.session = opened.is_ok().then_some(opening.id);
            (self.opening, self.next) = (None, 1);
        }
    }

    /// Nobody that was asked for the session will answer.
    pub(super) fn give_up_opening(&mut self) {
        self.opening = None;
    }

    /// Takes a request in hand.
    pub(super) fn takes(&mut self, command: C, operation: OperationId, number: u64) {
        self.held = Some(Held { command, operation, number, doubt: false });
    }

    /// The name of the request in hand, or of the next one; none without a session.
    pub(super) fn name(&self) -> Option<SessionRequest> {
        let request = RequestNumber::new(self.next);
        let session = self.session?;
        Some(SessionRequest { session, request, acknowledged_below: request })
    }

    /// An attempt will have no answer.
    pub(super) fn doubts(&mut self) {
        if let Some(held) = &mut self.held {
            held.doubt = true;
        }
    }

    /// An attempt at the request in hand ended so.
    pub(super) fn is_told<T>(&mut self, told: &Result<T, ClientError>) -> Verdict {
        let Some(held) = &mut self.held else { return Verdict::Done };
        let verdict = match told {
            Ok(_) | Err(ClientError::ReplyNotKept { .. }) => Verdict::Done,
            Err(ClientError::Unknown(_)) => {
                held.doubt = true;
                Verdict::Again
            }
            Err(ClientError::Rejected(Rejection::SessionUnknown)) => {
                self.session = None;
                // What no attempt can have applied gets a new name in the next session.
                if held.doubt { Verdict::Lost } else { Verdict::Again }
            }
            // It is no smaller the next time.
            Err(ClientError::Rejected(Rejection::TooLarge { .. })) => {
                if held.doubt {
                    Verdict::Lost
                } else {
                    Verdict::Done
                }
            }
            Err(ClientError::Rejected(_)) => Verdict::Again,
        };
        if verdict != Verdict::Again {
            self.held = None;
            self.next += 1;
        }
        verdict
    }
}
