//! A remote client's calls, as a state machine without a network.
//!
//! Owns: [`Calls`]: which calls wait to be sent, which are sent over the link and unanswered, and
//! what becomes of each when it is answered or the link falls. Knows no link and no type.
//! Invariants: (1) a call ends once; (2) a command that may have reached a node is not sent again
//! (rule C3); whatever certainly changed nothing is, while its time lasts; (3) nothing is asked for
//! before the node said who it is.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::error::{ClientError, Rejection, Uncertainty};
use crate::remote::wire::{
    self, Answer, Assembler, Breach, Frame, GREETING_BYTES_MAX, HEAD_BYTES, Hello, Request, Wanted,
    Welcome,
};

/// What stands ready to be sent at most before more calls are: what stands there counts as sent,
/// though the link may fall before.
const OUT_BYTES_MAX: usize = 64 * 1024;

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
    fn send(&self) -> bool {
        let mut phase = self.lock();
        let goes = *phase != Phase::Withdrawn;
        if goes {
            *phase = Phase::Sent;
        }
        goes
    }

    /// It certainly changed nothing.
    fn refused(&self, why: Rejection) {
        *self.lock() = Phase::Waiting(why);
    }
}

/// A request of a client's program.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) wanted: Wanted,
    pub(crate) deadline: Instant,
    pub(crate) progress: Progress,
    pub(crate) answer: oneshot::Sender<Result<Bytes, ClientError>>,
    /// Its share of the bound on calls, free once it ended.
    #[expect(dead_code, reason = "held, not looked at")]
    pub(crate) permit: OwnedSemaphorePermit,
}

impl Call {
    fn is_over(&self, now: Instant) -> bool {
        self.answer.is_closed() || self.deadline <= now
    }

    fn end(self, outcome: Result<Bytes, ClientError>) {
        // Whoever asked may be gone.
        let _ = self.answer.send(outcome);
    }

    fn is_read(&self) -> bool {
        matches!(self.wanted, Wanted::Read(..))
    }
}

/// What the calls have to do with the link that is up.
#[derive(Debug)]
struct Link {
    /// What the node said of itself.
    welcome: Option<Welcome>,
    hello: Hello,
    assembler: Assembler,
    sent: BTreeMap<u64, Call>,
    out: BytesMut,
    /// Another node would serve better: nothing more is sent here, and nothing awaited after this.
    leaves_at: Option<Instant>,
}

/// The table.
#[derive(Debug)]
pub(crate) struct Calls {
    waiting: VecDeque<Call>,
    link: Option<Link>,
    next_number: u64,
    /// How long one node may take over what may be asked of another too.
    attempt_timeout: Duration,
}

impl Calls {
    pub(crate) fn new(attempt_timeout: Duration) -> Self {
        Self { waiting: VecDeque::new(), link: None, next_number: 1, attempt_timeout }
    }

    pub(crate) fn push(&mut self, call: Call) {
        self.waiting.push_back(call);
    }

    /// Whether calls wait to be sent.
    pub(crate) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Forgets what nobody waits for any more.
    pub(crate) fn sweep(&mut self, now: Instant) {
        self.waiting.retain(|call| !call.is_over(now));
    }

    /// A link is there.
    pub(crate) fn begin(&mut self, hello: Hello) {
        assert!(self.link.is_none(), "there is one link at a time");
        let mut out = BytesMut::new();
        wire::encode(&mut out, &Frame::Hello(hello));
        self.link = Some(Link {
            welcome: None,
            hello,
            assembler: Assembler::new(GREETING_BYTES_MAX),
            sent: BTreeMap::new(),
            out,
            leaves_at: None,
        });
    }

    /// The link is gone. What may have reached the node and may not be sent again is told so.
    pub(crate) fn end(&mut self) {
        let Some(link) = self.link.take() else { return };
        for call in link.sent.into_values().rev() {
            if call.is_read() {
                call.progress.refused(Rejection::Unreachable);
                self.waiting.push_front(call);
            } else {
                call.end(Err(ClientError::Unknown(Uncertainty::LinkLost)));
            }
        }
    }

    /// What is to be sent over the link, to be shortened by what was.
    pub(crate) fn out(&mut self) -> Option<&mut BytesMut> {
        self.link.as_mut().map(|link| &mut link.out)
    }

    /// What the node said of itself, once it did.
    pub(crate) fn welcome(&self) -> Option<Welcome> {
        self.link.as_ref()?.welcome
    }

    /// When the link has served its time, if another node would serve better: once nothing is owed,
    /// and some time later in any case.
    pub(crate) fn leaves_at(&self, now: Instant) -> Option<Instant> {
        let link = self.link.as_ref()?;
        link.leaves_at.map(|limit| if link.sent.is_empty() { now } else { limit })
    }

    /// Has calls that wait sent, as many as the node takes.
    pub(crate) fn fill(&mut self, now: Instant) {
        let Some(link) = &mut self.link else { return };
        let Some(welcome) = link.welcome else { return };
        if link.leaves_at.is_some() {
            return;
        }
        let frame_max = welcome.frame_max as usize;
        while link.sent.len() < (welcome.requests_max as usize).max(1)
            && link.out.len() < OUT_BYTES_MAX
            && let Some(call) = self.waiting.pop_front()
        {
            let (Wanted::Command(payload) | Wanted::Read(_, payload)) = &call.wanted;
            let bytes = payload.len() + HEAD_BYTES;
            if bytes > frame_max {
                let too_large = Rejection::TooLarge { bytes, bytes_max: frame_max };
                call.end(Err(ClientError::Rejected(too_large)));
                continue;
            }
            if call.is_over(now) || !call.progress.send() {
                continue;
            }
            let left = call.deadline - now;
            let timeout = if call.is_read() { left.min(self.attempt_timeout) } else { left };
            let number = self.next_number;
            self.next_number += 1;
            let request = Request { number, timeout, wanted: call.wanted.clone() };
            wire::encode(&mut link.out, &Frame::Request(request));
            link.sent.insert(number, call);
        }
    }

    /// Bytes came over the link.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], now: Instant) -> Result<(), Breach> {
        while let Some(link) = &mut self.link
            && let Some(body) = link.assembler.next(&mut bytes)?
        {
            match wire::decode(body)? {
                Frame::Welcome(welcome) if link.welcome.is_none() => {
                    if (welcome.cluster, welcome.group) != (link.hello.cluster, link.hello.group) {
                        return Err(Breach::Stranger);
                    }
                    link.assembler.set_frame_max(link.hello.frame_max as usize);
                    link.welcome = Some(welcome);
                }
                Frame::Answer(Answer { number, outcome }) => {
                    let call = link.sent.remove(&number).ok_or(Breach::Number(number))?;
                    self.answered(call, outcome, now);
                }
                Frame::Goodbye if link.welcome.is_some() => {
                    link.leaves_at = Some(now);
                    for call in core::mem::take(&mut link.sent).into_values().rev() {
                        call.progress.refused(Rejection::Stopped);
                        self.waiting.push_front(call);
                    }
                }
                Frame::Welcome(_) | Frame::Hello(_) | Frame::Request(_) | Frame::Goodbye => {
                    return Err(Breach::OutOfTurn);
                }
            }
        }
        Ok(())
    }

    /// The node answered a call.
    fn answered(&mut self, call: Call, outcome: Result<Bytes, ClientError>, now: Instant) {
        // What another node may do better, and whether this one is of any use.
        let again = match &outcome {
            Err(ClientError::Rejected(why @ (Rejection::NoLeader | Rejection::Stopped))) => {
                Some(why.clone())
            }
            Err(ClientError::Rejected(Rejection::TimedOut)) if call.is_read() => {
                Some(Rejection::TimedOut)
            }
            Ok(_) | Err(_) => None,
        };
        let Some(why) = again else { return call.end(outcome) };
        if let Some(link) = &mut self.link {
            link.leaves_at.get_or_insert(now + self.attempt_timeout);
        }
        if call.is_over(now) {
            return call.end(outcome);
        }
        call.progress.refused(why);
        self.waiting.push_front(call);
    }
}
