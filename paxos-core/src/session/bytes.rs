//! The table of sessions as bytes, for snapshots. Little-endian, versioned, drawn in docs/format.md.
//!
//! Owns: [`SessionTable::encode`] and [`SessionTable::decode`].
//! Invariants: equal tables have equal bytes; decoding never panics, never allocates by a claimed
//! length, and takes nothing that breaks an invariant of the table or a bound.

use core::fmt;
use std::collections::{BTreeSet, VecDeque};

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::reply::Replies;
use super::requests::{Requests, Run};
use super::{Bounds, Session, SessionTable};
use crate::ids::{LogClock, RequestNumber, SessionId, SessionTtl};

/// The version of the table's bytes.
const VERSION: u16 = 1;

/// Why bytes are not a table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum TableError {
    /// Another release wrote it, in this version.
    Version(u16),
    /// The bytes end before what they claim to hold, or go on after it.
    Length,
    /// A field has a value that no table has, or one beyond a bound.
    Field(&'static str),
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => {
                write!(f, "table of sessions of version {version}, this release reads {VERSION}")
            }
            Self::Length => f.write_str("table of sessions of another length than it claims"),
            Self::Field(name) => write!(f, "impossible value in field {name} of a session"),
        }
    }
}

impl std::error::Error for TableError {}

impl SessionTable {
    /// The bytes of the table; its bounds are not among them.
    pub fn encode(&self) -> Bytes {
        self.put(true)
    }

    /// The bytes of the same table without its replies: what [`SessionTable::without_replies`] encodes to,
    /// without a copy of them. Equal on all replicas that applied the same slots.
    pub fn encode_without_replies(&self) -> Bytes {
        self.put(false)
    }

    fn put(&self, with_replies: bool) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u16_le(VERSION);
        out.put_u64_le(self.clock.millis());
        out.put_u64_le(self.due.millis());
        out.put_u64_le(self.uses);
        put_len(&mut out, self.sessions.len());
        for (id, session) in &self.sessions {
            out.put_u128_le(id.bits());
            out.put_u64_le(session.ttl.millis());
            out.put_u64_le(session.used_at.millis());
            out.put_u64_le(session.used);
            out.put_u64_le(session.requests.acknowledged_below);
            put_len(&mut out, session.requests.runs.len());
            for run in &session.requests.runs {
                out.put_u64_le(run.first);
                out.put_u64_le(run.last);
            }
            if !with_replies {
                put_len(&mut out, 0);
                continue;
            }
            put_len(&mut out, session.replies.iter().len());
            for (number, reply) in session.replies.iter() {
                out.put_u64_le(number.number());
                put_len(&mut out, reply.len());
                out.put_slice(reply);
            }
        }
        out.freeze()
    }

    /// Reads what [`SessionTable::encode`] wrote under the same bounds.
    pub fn decode(mut bytes: Bytes, bounds: Bounds) -> Result<Self, TableError> {
        let rest = &mut bytes;
        let version = rest.try_get_u16_le().map_err(|_| TableError::Length)?;
        if version != VERSION {
            return Err(TableError::Version(version));
        }
        let clock = LogClock::from_millis(number(rest)?);
        let due = LogClock::from_millis(number(rest)?);
        let uses = number(rest)?;
        let count = len(rest)?;
        if count > bounds.sessions_max {
            return Err(TableError::Field("count"));
        }
        let mut table = Self { bounds, clock, due, uses, ..Self::new(bounds) };
        for _ in 0..count {
            let id = SessionId::new(rest.try_get_u128_le().map_err(|_| TableError::Length)?);
            let session = read_session(rest, &table)?;
            if table.sessions.last_key_value().is_some_and(|(last, _)| *last >= id) {
                return Err(TableError::Field("id"));
            }
            table.reply_bytes += session.replies.bytes();
            table.sessions.insert(id, session);
        }
        if !rest.is_empty() {
            return Err(TableError::Length);
        }
        let uses: BTreeSet<_> = table.sessions.values().map(|session| session.used).collect();
        if uses.len() != table.sessions.len() {
            return Err(TableError::Field("used"));
        }
        if table.reply_bytes > bounds.table_bytes_max {
            return Err(TableError::Field("replies"));
        }
        Ok(table)
    }
}

fn read_session(rest: &mut Bytes, table: &SessionTable) -> Result<Session, TableError> {
    let ttl = SessionTtl::from_millis(number(rest)?);
    let used_at = LogClock::from_millis(number(rest)?);
    let used = number(rest)?;
    let requests = read_requests(rest, table.bounds.runs_max)?;
    let replies = read_replies(rest, &requests, &table.bounds)?;
    let session = Session { ttl, used_at, used, requests, replies };
    if used > table.uses {
        return Err(TableError::Field("used"));
    }
    let lasts_until = session.lasts_until();
    if used_at > table.clock || lasts_until < table.clock || lasts_until < table.due {
        return Err(TableError::Field("used_at"));
    }
    Ok(session)
}

fn read_requests(rest: &mut Bytes, runs_max: usize) -> Result<Requests, TableError> {
    let acknowledged_below = number(rest)?;
    let count = len(rest)?;
    if count > runs_max {
        return Err(TableError::Field("runs"));
    }
    let mut runs: VecDeque<Run> = VecDeque::new();
    for _ in 0..count {
        let run = Run { first: number(rest)?, last: number(rest)? };
        let apart = runs
            .back()
            .is_none_or(|before| before.last.checked_add(1).is_some_and(|gap| gap < run.first));
        if run.first > run.last || run.first < acknowledged_below || !apart {
            return Err(TableError::Field("runs"));
        }
        runs.push_back(run);
    }
    Ok(Requests { acknowledged_below, runs })
}

fn read_replies(
    rest: &mut Bytes,
    requests: &Requests,
    bounds: &Bounds,
) -> Result<Replies, TableError> {
    let count = len(rest)?;
    let mut replies = Replies::default();
    let mut last = None;
    for _ in 0..count {
        let (number, len) = (number(rest)?, len(rest)?);
        let place = requests.runs.partition_point(|run| run.last < number);
        let applied = requests.runs.get(place).is_some_and(|run| run.first <= number);
        if !applied || last.is_some_and(|last| last >= number) {
            return Err(TableError::Field("replies"));
        }
        if len > rest.len() {
            return Err(TableError::Length);
        }
        last = Some(number);
        replies.keep(RequestNumber::new(number), &rest.split_to(len));
        if replies.iter().len() > bounds.replies_max || replies.bytes() > bounds.reply_bytes_max {
            return Err(TableError::Field("replies"));
        }
    }
    Ok(replies)
}

fn put_len(out: &mut BytesMut, len: usize) {
    out.put_u32_le(u32::try_from(len).expect("bounds are far below 4 Gi"));
}

fn len(rest: &mut Bytes) -> Result<usize, TableError> {
    let len = rest.try_get_u32_le().map_err(|_| TableError::Length)?;
    usize::try_from(len).map_err(|_| TableError::Length)
}

fn number(rest: &mut Bytes) -> Result<u64, TableError> {
    rest.try_get_u64_le().map_err(|_| TableError::Length)
}
