//! A remote client's calls, as a state machine without a network.
//!
//! Owns: [`Calls`]: which calls wait to be sent, which are sent over the link and unanswered, and
//! what becomes of each when it is answered or the link falls. Knows no link and no type.
//! Invariants: (1) a call ends once; (2) a command that may have been proposed is sent again in its
//! session alone, under its number (rule C3); whatever certainly changed nothing is sent again
//! anyhow, all while the time lasts; (3) a command is said to be rejected only if no attempt may have
//! been proposed (rule C4); (4) nothing is asked for before the node said who it is.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use paxos_core::ids::SessionTtl;

use crate::error::{ClientError, Rejection, Uncertainty};
use crate::remote::call::{Asked, Call, Outcome};
use crate::remote::session::Session;
use crate::remote::wire::{
    self, Answer, Assembler, Breach, Frame, GREETING_BYTES_MAX, HEAD_BYTES, Hello, Request, Wanted,
    Welcome,
};

/// What stands ready to be sent at most before more calls are: what stands there counts as sent,
/// though the link may fall before.
const OUT_BYTES_MAX: usize = 64 * 1024;

/// What was sent and has no answer.
#[derive(Debug)]
enum Sent {
    Call(Call),
    /// The session is to be opened.
    Opening,
}

/// What the calls have to do with the link that is up.
#[derive(Debug)]
struct Link {
    /// What the node said of itself.
    welcome: Option<Welcome>,
    hello: Hello,
    assembler: Assembler,
    sent: BTreeMap<u64, Sent>,
    out: BytesMut,
    /// Another node would serve better: nothing more is sent here, and nothing awaited after this.
    leaves_at: Option<Instant>,
}

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// One node, over what may be asked of another too.
    pub(crate) attempt: Duration,
    /// The session, unused.
    pub(crate) session_ttl: Duration,
}

/// The table.
#[derive(Debug)]
pub(crate) struct Calls {
    /// Those that need no session.
    waiting: VecDeque<Call>,
    /// Those that need one.
    once: VecDeque<Call>,
    session: Session,
    link: Option<Link>,
    next_number: u64,
    patience: Patience,
}

impl Calls {
    pub(crate) fn new(patience: Patience) -> Self {
        Self {
            waiting: VecDeque::new(),
            once: VecDeque::new(),
            session: Session::new(),
            link: None,
            next_number: 1,
            patience,
        }
    }

    pub(crate) fn push(&mut self, call: Call) {
        if call.is_once() { self.once.push_back(call) } else { self.waiting.push_back(call) }
    }

    fn put_back(&mut self, call: Call) {
        if call.is_once() { self.once.push_front(call) } else { self.waiting.push_front(call) }
    }

    /// Whether calls wait to be sent.
    pub(crate) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty() || !self.once.is_empty()
    }

    /// Forgets what nobody waits for any more.
    pub(crate) fn sweep(&mut self, now: Instant) {
        self.waiting.retain(|call| !call.is_over(now));
        for call in core::mem::take(&mut self.once) {
            if call.is_over(now) {
                self.forget(&call);
            } else {
                self.once.push_back(call);
            }
        }
    }

    /// A call is not sent again.
    fn forget(&mut self, call: &Call) {
        if let Some(number) = call.number {
            self.session.leave(number);
        }
    }

    fn finish(&mut self, call: Call, outcome: Outcome) {
        self.forget(&call);
        // Whoever asked may be gone.
        let _ = call.answer.send(outcome);
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
        for sent in link.sent.into_values().rev() {
            match sent {
                Sent::Opening => self.session.answered(false),
                Sent::Call(call) if call.is_plain() => {
                    self.finish(call, Err(ClientError::Unknown(Uncertainty::LinkLost)));
                }
                Sent::Call(mut call) => {
                    if call.is_once() {
                        call.doubt = Some(Uncertainty::LinkLost);
                    } else {
                        call.progress.refused(Rejection::Unreachable);
                    }
                    self.put_back(call);
                }
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
        while let Some(frame_max) = self.has_room() {
            if !self.once.is_empty()
                && let Some(session) = self.session.ask()
            {
                let ttl = SessionTtl::from_duration(self.patience.session_ttl);
                self.send(Wanted::Open(session, ttl), self.patience.attempt, Sent::Opening);
                continue;
            }
            let once = if self.session.is_open() { self.once.pop_front() } else { None };
            let Some(call) = once.or_else(|| self.waiting.pop_front()) else { return };
            self.send_call(call, frame_max, now);
        }
    }

    /// Whether one more request may be sent; then how large it may be.
    fn has_room(&self) -> Option<usize> {
        let link = self.link.as_ref()?;
        let welcome = link.welcome.filter(|_| link.leaves_at.is_none())?;
        let room = link.sent.len() < (welcome.requests_max as usize).max(1)
            && link.out.len() < OUT_BYTES_MAX;
        room.then_some(welcome.frame_max as usize)
    }

    fn send_call(&mut self, mut call: Call, frame_max: usize, now: Instant) {
        let bytes = call.payload_len() + HEAD_BYTES;
        if bytes > frame_max {
            let too_large = Rejection::TooLarge { bytes, bytes_max: frame_max };
            return self.finish(call, Err(ClientError::Rejected(too_large)));
        }
        if call.is_over(now) || !call.progress.send() {
            return self.forget(&call);
        }
        let left = call.deadline - now;
        let shared = left.min(self.patience.attempt);
        let (wanted, timeout) = match &call.asked {
            Asked::Plain(payload) => (Wanted::Command(None, payload.clone()), left),
            Asked::Read(level, query) => (Wanted::Read(*level, query.clone()), shared),
            Asked::Once(payload) => {
                let known = call.number.and_then(|number| self.session.name(number));
                let name = match (known, call.doubt) {
                    (Some(name), _) => name,
                    // Nobody remembers whether it was applied in the session before.
                    (None, Some(_)) => {
                        let lost = ClientError::Unknown(Uncertainty::SessionLost);
                        return self.finish(call, Err(lost));
                    }
                    (None, None) => {
                        let number = self.session.enter();
                        call.number = Some(number);
                        self.session.name(number).expect("it is sent while the session is open")
                    }
                };
                (Wanted::Command(Some(name), payload.clone()), shared)
            }
        };
        self.send(wanted, timeout, Sent::Call(call));
    }

    fn send(&mut self, wanted: Wanted, timeout: Duration, sent: Sent) {
        let link = self.link.as_mut().expect("there is room on the link");
        let number = self.next_number;
        self.next_number += 1;
        wire::encode(&mut link.out, &Frame::Request(Request { number, timeout, wanted }));
        link.sent.insert(number, sent);
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
                    match link.sent.remove(&number).ok_or(Breach::Number(number))? {
                        Sent::Opening => self.opened(outcome, now),
                        Sent::Call(call) if call.is_once() => {
                            self.answered_once(call, outcome, now);
                        }
                        Sent::Call(call) => self.answered(call, outcome, now),
                    }
                }
                Frame::Goodbye if link.welcome.is_some() => {
                    link.leaves_at = Some(now);
                    let sent = core::mem::take(&mut link.sent);
                    self.not_taken(sent);
                }
                Frame::Welcome(_) | Frame::Hello(_) | Frame::Request(_) | Frame::Goodbye => {
                    return Err(Breach::OutOfTurn);
                }
            }
        }
        Ok(())
    }

    /// The node did not take these: another may.
    fn not_taken(&mut self, sent: BTreeMap<u64, Sent>) {
        for sent in sent.into_values().rev() {
            match sent {
                Sent::Opening => self.session.answered(false),
                Sent::Call(call) => {
                    if call.doubt.is_none() {
                        call.progress.refused(Rejection::Stopped);
                    }
                    self.put_back(call);
                }
            }
        }
    }

    /// Another node would serve better.
    fn leave(&mut self, now: Instant) {
        if let Some(link) = &mut self.link {
            link.leaves_at.get_or_insert(now + self.patience.attempt);
        }
    }

    /// The node said whether the session is open. Where nobody can say, another id is drawn.
    fn opened(&mut self, outcome: Outcome, now: Instant) {
        self.session.answered(outcome.is_ok());
        let why = match outcome {
            Err(
                ClientError::Rejected(Rejection::NoLeader | Rejection::Stopped)
                | ClientError::Unknown(Uncertainty::Timeout | Uncertainty::Stopped),
            ) => return self.leave(now),
            Ok(_)
            | Err(
                ClientError::Rejected(Rejection::Superseded)
                | ClientError::Unknown(_)
                | ClientError::ReplyNotKept { .. },
            ) => return,
            Err(ClientError::Rejected(why)) => why,
        };
        // The next attempt would meet the same.
        for call in core::mem::take(&mut self.once) {
            let error = match call.doubt {
                Some(doubt) => ClientError::Unknown(doubt),
                None => ClientError::Rejected(why.clone()),
            };
            self.finish(call, Err(error));
        }
    }

    /// The node answered a call that is not sent in a session.
    fn answered(&mut self, call: Call, outcome: Outcome, now: Instant) {
        // What another node may do better.
        let again = match &outcome {
            Err(ClientError::Rejected(why @ (Rejection::NoLeader | Rejection::Stopped))) => {
                why.clone()
            }
            Err(ClientError::Rejected(Rejection::TimedOut)) if !call.is_plain() => {
                Rejection::TimedOut
            }
            Ok(_) | Err(_) => return self.finish(call, outcome),
        };
        self.leave(now);
        if call.is_over(now) {
            return self.finish(call, outcome);
        }
        call.progress.refused(again);
        self.put_back(call);
    }

    /// The node answered a command in the session.
    fn answered_once(&mut self, mut call: Call, outcome: Outcome, now: Instant) {
        match (&outcome, call.doubt) {
            (
                Ok(_)
                | Err(
                    ClientError::ReplyNotKept { .. }
                    | ClientError::Unknown(Uncertainty::SessionLost),
                ),
                _,
            ) => return self.finish(call, outcome),
            (Err(ClientError::Unknown(why)), _) => {
                call.doubt = Some(*why);
                if matches!(why, Uncertainty::Timeout | Uncertainty::Stopped) {
                    self.leave(now);
                }
            }
            (Err(ClientError::Rejected(Rejection::SessionUnknown)), doubt) => {
                if let Some(number) = call.number.take() {
                    self.session.lost(number);
                }
                if doubt.is_some() {
                    let lost = ClientError::Unknown(Uncertainty::SessionLost);
                    return self.finish(call, Err(lost));
                }
                call.progress.refused(Rejection::SessionUnknown);
            }
            (Err(ClientError::Rejected(why)), None) => {
                if !matches!(why, Rejection::NoLeader | Rejection::Stopped) {
                    return self.finish(call, outcome);
                }
                call.progress.refused(why.clone());
                self.leave(now);
            }
            // This attempt changed nothing. An earlier one may have.
            (Err(ClientError::Rejected(Rejection::Superseded)), Some(_)) => {}
            (Err(ClientError::Rejected(why)), Some(doubt)) => {
                let passes = [
                    Rejection::NoLeader,
                    Rejection::Stopped,
                    Rejection::Busy,
                    Rejection::StorageFull,
                ];
                if !passes.contains(why) {
                    return self.finish(call, Err(ClientError::Unknown(doubt)));
                }
                self.leave(now);
            }
        }
        if call.is_over(now) {
            let outcome = call.doubt.map_or(outcome, |doubt| Err(ClientError::Unknown(doubt)));
            return self.finish(call, outcome);
        }
        self.put_back(call);
    }
}
