//! One request of a remote client's program.
//!
//! Owns: [`Call`], and [`Progress`], by which the task that waits for its end and the one that sends
//! it agree on what may be said of it.
//! Invariant: a call that was withdrawn is not sent.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::error::{ClientError, Rejection, Uncertainty};
use crate::remote::session::Number;
use crate::remote::wire::Done;
use crate::request::Consistency;

/// How far a call came: shared with the task that waits for its end.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Phase {
    /// It certainly changed nothing so far, for this reason.
    Waiting(Rejection),
    /// It may have reached a node.
    Sent,
    /// Whoever asked waits no longer, and it was not sent.
    Withdrawn,
}

/// The phase as both ends see it.
#[derive(Clone, Debug)]
pub(crate) struct Progress(Arc<Mutex<Phase>>);

impl Progress {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Phase::Waiting(Rejection::Unreachable))))
    }

    fn lock(&self) -> MutexGuard<'_, Phase> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whoever asked gives up: what it was up to then. It will not be sent any more.
    pub(crate) fn withdraw(&self) -> Phase {
        let mut phase = self.lock();
        match *phase {
            Phase::Waiting(_) => core::mem::replace(&mut *phase, Phase::Withdrawn),
            Phase::Sent | Phase::Withdrawn => phase.clone(),
        }
    }

    /// It is about to be sent; not if it was withdrawn.
    pub(crate) fn send(&self) -> bool {
        let mut phase = self.lock();
        let goes = *phase != Phase::Withdrawn;
        if goes {
            *phase = Phase::Sent;
        }
        goes
    }

    /// It certainly changed nothing.
    pub(crate) fn refused(&self, why: Rejection) {
        *self.lock() = Phase::Waiting(why);
    }
}

/// What a client's program asks for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Asked {
    /// That this command be applied, once.
    Once(Bytes),
    /// That this command be applied, and sent once at most.
    Plain(Bytes),
    /// An answer to this query.
    Read(Consistency, Bytes),
}

/// A request of a client's program.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) asked: Asked,
    pub(crate) deadline: Instant,
    pub(crate) progress: Progress,
    pub(crate) answer: oneshot::Sender<Outcome>,
    /// Its share of the bound on calls, free once it ended.
    #[expect(dead_code, reason = "held, not looked at")]
    pub(crate) permit: OwnedSemaphorePermit,
    /// Its number in the session, once it was to be sent.
    pub(crate) number: Option<Number>,
    /// Why nobody can say whether an attempt to have it applied was one in vain.
    pub(crate) doubt: Option<Uncertainty>,
}

pub(crate) type Outcome = Result<Done, ClientError>;

impl Call {
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        self.answer.is_closed() || self.deadline <= now
    }

    pub(crate) fn is_once(&self) -> bool {
        matches!(self.asked, Asked::Once(_))
    }

    pub(crate) fn is_plain(&self) -> bool {
        matches!(self.asked, Asked::Plain(_))
    }

    pub(crate) fn payload_len(&self) -> usize {
        let (Asked::Once(payload) | Asked::Plain(payload) | Asked::Read(_, payload)) = &self.asked;
        payload.len()
    }
}
