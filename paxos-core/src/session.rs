//! Which requests are applied: the table of sessions (the book's Idempotent Receiver).
//!
//! Owns: [`SessionTable`], part of the replicated state: whoever applies the log keeps one, feeds it
//! every command of a session in the order of the log, and applies what it says. Knows no clients,
//! no state machine, no time but that of batches.
//! Invariants: (1) verdicts are a function of the log alone; (2) replies that are kept take no part
//! in them; (3) everything is bounded by [`Bounds`], which all replicas share; (4) the work for
//! a command is logarithmic in the number of sessions, and constant where requests come in order.
//! Source: protocol.md §13; Ongaro, "Consensus: Bridging Theory and Practice", §6.3.

mod bytes;
mod reply;
mod requests;

use std::collections::BTreeMap;

pub use self::bytes::TableError;
use self::reply::Replies;
use self::requests::Requests;
use crate::ids::{LogClock, RequestNumber, SessionId, SessionTtl};

/// How much a table remembers. All replicas of a cluster must have the same, as verdicts depend on the
/// first two; so these are constants of a release, [`Bounds::default`], and not settings.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Bounds {
    /// Sessions at once. One more, and the least recently used one expires. Default 4,096.
    pub sessions_max: usize,
    /// Runs of consecutive numbers that were applied and are not acknowledged, in one session. A
    /// request that would begin one more is refused. Default 4,096.
    pub runs_max: usize,
    /// Replies kept in one session. Default 65,536.
    pub replies_max: usize,
    /// Bytes of replies kept in one session, the table's own for each included. Default 8 MiB.
    pub reply_bytes_max: usize,
    /// Bytes of replies kept in all sessions. Default 64 MiB.
    pub table_bytes_max: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            sessions_max: 4096,
            runs_max: 4096,
            replies_max: 65_536,
            reply_bytes_max: 8 << 20,
            table_bytes_max: 64 << 20,
        }
    }
}

/// What becomes of a request in the log.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Verdict {
    /// It is to be applied: it is here for the first time.
    Apply,
    /// It was applied before, and is not again. [`SessionTable::reply`] may still have the reply.
    Repeated,
    /// It is not applied: its session has acknowledged its number. Whether it was before is not
    /// remembered.
    Stale,
    /// It is not applied: its session never was, has ended, or has expired.
    NoSession,
    /// It is not applied, and was not before: the session has too many gaps between the numbers that
    /// were applied, [`Bounds::runs_max`].
    Crowded,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Session {
    ttl: SessionTtl,
    /// The table's clock at its last use.
    used_at: LogClock,
    /// Orders sessions by their last use.
    used: u64,
    requests: Requests,
    replies: Replies,
}

impl Session {
    /// The last reading of the clock at which it is still known.
    fn lasts_until(&self) -> LogClock {
        LogClock::from_millis(self.used_at.millis().saturating_add(self.ttl.millis()))
    }
}

/// The sessions of a cluster after some slot.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct SessionTable {
    bounds: Bounds,
    /// The highest clock of a batch so far.
    clock: LogClock,
    /// No session expires before the clock is above this.
    due: LogClock,
    uses: u64,
    sessions: BTreeMap<SessionId, Session>,
    /// Of replies that are kept.
    reply_bytes: usize,
}

impl SessionTable {
    /// A table before the first slot.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            clock: LogClock::default(),
            due: LogClock::from_millis(u64::MAX),
            uses: 0,
            sessions: BTreeMap::new(),
            reply_bytes: 0,
        }
    }

    /// How much it remembers.
    pub fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// How many sessions are known.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether no session is known.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Whether this session is known.
    pub fn contains(&self, session: SessionId) -> bool {
        self.sessions.contains_key(&session)
    }

    /// The sessions that are known, in rising order.
    pub fn ids(&self) -> impl Iterator<Item = SessionId> {
        self.sessions.keys().copied()
    }

    /// The highest clock of a batch so far.
    pub fn clock(&self) -> LogClock {
        self.clock
    }

    /// The bytes of the replies that are kept.
    pub fn reply_bytes(&self) -> usize {
        self.reply_bytes
    }

    /// The next batch of the log is applied, of which this is the clock. Returns how many sessions
    /// expire by it. Rule S4.
    pub fn begin(&mut self, clock: LogClock) -> usize {
        self.clock = self.clock.max(clock);
        if self.clock <= self.due {
            return 0;
        }
        let (now, before) = (self.clock, self.sessions.len());
        self.sessions.retain(|_, session| {
            let lasts = session.lasts_until() >= now;
            if !lasts {
                self.reply_bytes -= session.replies.bytes();
            }
            lasts
        });
        let due = self.sessions.values().map(Session::lasts_until).min();
        self.due = due.unwrap_or(LogClock::from_millis(u64::MAX));
        before - self.sessions.len()
    }

    /// Opens a session, empty. One that is known already stays as it is, used once more. Returns
    /// which session had to give way.
    pub fn open(&mut self, session: SessionId, ttl: SessionTtl) -> Option<SessionId> {
        self.uses += 1;
        if let Some(known) = self.sessions.get_mut(&session) {
            (known.used, known.used_at) = (self.uses, self.clock);
            return None;
        }
        let mut gone = None;
        if self.sessions.len() >= self.bounds.sessions_max {
            let oldest = self.sessions.iter().min_by_key(|(_, session)| session.used);
            gone = oldest.map(|(id, _)| *id);
            gone.inspect(|id| self.close(*id));
        }
        let opened = Session {
            ttl,
            used_at: self.clock,
            used: self.uses,
            requests: Requests::default(),
            replies: Replies::default(),
        };
        self.due = self.due.min(opened.lasts_until());
        self.sessions.insert(session, opened);
        gone
    }

    /// Ends a session, with everything that is remembered of it.
    pub fn close(&mut self, session: SessionId) {
        if let Some(closed) = self.sessions.remove(&session) {
            self.reply_bytes -= closed.replies.bytes();
        }
    }

    /// What becomes of a request, which is remembered. Rules S1 to S3.
    pub fn decide(
        &mut self,
        session: SessionId,
        request: RequestNumber,
        acknowledged_below: RequestNumber,
    ) -> Verdict {
        let Some(known) = self.sessions.get_mut(&session) else {
            return Verdict::NoSession;
        };
        self.uses += 1;
        (known.used, known.used_at) = (self.uses, self.clock);
        if known.requests.acknowledge(acknowledged_below) {
            self.reply_bytes -= known.replies.forget_below(acknowledged_below);
        }
        known.requests.decide(request, self.bounds.runs_max)
    }

    /// Keeps the reply of a request that was applied, as far as there is room: old ones give way.
    pub fn keep(&mut self, session: SessionId, request: RequestNumber, reply: &[u8]) {
        // The session may have ended in the same batch, and the request been acknowledged.
        let Some(known) = self.sessions.get_mut(&session) else { return };
        if request < known.requests.acknowledged_below() {
            return;
        }
        let before = known.replies.bytes();
        known.replies.keep(request, reply);
        let bounds = self.bounds;
        known.replies.shrink(bounds.replies_max, bounds.reply_bytes_max);
        self.reply_bytes = self.reply_bytes - before + known.replies.bytes();
        while self.reply_bytes > bounds.table_bytes_max {
            let keeping = self.sessions.values_mut().filter(|session| session.replies.bytes() > 0);
            let Some(oldest) = keeping.min_by_key(|session| session.used) else { return };
            self.reply_bytes -= oldest.replies.forget_all();
        }
    }

    /// The reply of a request, if it is kept.
    pub fn reply(&self, session: SessionId, request: RequestNumber) -> Option<&[u8]> {
        self.sessions.get(&session)?.replies.get(request)
    }

    /// The same table without its replies: all on which verdicts depend.
    #[must_use]
    pub fn without_replies(mut self) -> Self {
        for session in self.sessions.values_mut() {
            session.replies.forget_all();
        }
        self.reply_bytes = 0;
        self
    }
}
