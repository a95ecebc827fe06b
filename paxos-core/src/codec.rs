//! Bytes to messages and values, and back. Little-endian, versioned, drawn in docs/format.md.
//!
//! Owns: the wire layout of [`Message`], and of [`Value`] in messages and in the log.
//! Invariants: decoding never panics, never allocates by a claimed length, and takes payloads as
//! slices of the received buffer; encoding what was decoded gives the same bytes.

mod membership;
mod snapshot;

use core::fmt;

use bytes::{BufMut, Bytes, BytesMut};

pub use membership::{decode_membership, encode_membership};
pub(crate) use membership::{membership_len, put_lease, put_rule};
pub use snapshot::{decode_snapshot_meta, encode_snapshot_meta};

use crate::agreement::MembershipDigest;
use crate::ballot::Ballot;
use crate::ids::{
    ClientId, ClusterId, Epoch, GroupId, Incarnation, LogClock, Priority, ReplicaId, RequestNumber,
    SessionId, SessionTtl, Slot,
};
use crate::message::{
    Accept, Accepted, Body, Commit, Confirm, Confirmed, Connectivity, Echo, Fetch, Fetched,
    Heartbeat, Message, Origin, Prepare, Promise, PromiseEntry, Refused, Reject, Removed,
    SlotState, Survey, Surveyed, Transfer,
};
use crate::value::{Batch, Command, CommandKind, Level, Value};
use membership::put_membership;

/// The version of the wire format. A message of another version is refused as a whole.
pub const VERSION: u16 = 5;
/// The bytes before a message's body.
pub const HEADER_LEN: usize = 48;
/// The bytes before a batch's commands.
pub const BATCH_HEADER_LEN: usize = 12;
/// The bytes before a command's payload.
pub const COMMAND_HEADER_LEN: usize = 32;
/// What follows the envelope of a command that opens a session: its id and its time to live.
pub const OPEN_SESSION_LEN: usize = 24;
/// What precedes the payload of a command in a session: the session's id and the request's number.
pub const IN_SESSION_LEN: usize = 24;
/// What follows the envelope of a command that ends a session: its id.
pub const CLOSE_SESSION_LEN: usize = 16;
/// What follows the envelope of a command that raises the level: the library's number, two zeros, and the
/// state machine's.
pub const RAISE_LEN: usize = 8;
/// The bytes before a value's own.
pub const VALUE_HEADER_LEN: usize = 5;

/// The most bytes of a promise's entry besides its value's own.
pub const PROMISE_ENTRY_LEN: usize = 24;

/// Values longer than this travel as chunks of their own; shorter ones are copied beside the head.
const CHUNK_MIN: usize = 1024;
const COMMAND_VERSION: u8 = 2;

/// Why bytes are not a message or a value. A peer's bytes raise a counter, never more.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum DecodeError {
    /// The format version is not [`VERSION`].
    Version(u16),
    /// The bytes end before what they claim to hold.
    Truncated,
    /// Bytes follow the end.
    Trailing,
    /// No message, value or rule has this kind.
    Kind(u8),
    /// No command has this kind and version: it was written by another release.
    CommandKind(u8, u8),
    /// A field has a value that no sender writes.
    Field(&'static str),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => {
                write!(f, "format version {version}, this release speaks {VERSION}")
            }
            Self::Truncated => f.write_str("the bytes end too early"),
            Self::Trailing => f.write_str("bytes follow the end"),
            Self::Kind(kind) => write!(f, "unknown kind {kind}"),
            Self::CommandKind(kind, version) => {
                write!(f, "unknown command kind {kind} version {version}: a newer release wrote it")
            }
            Self::Field(name) => write!(f, "impossible value in field {name}"),
        }
    }
}

impl std::error::Error for DecodeError {}

// ---------------------------------------------------------------------------------------------
// Encoding

/// Gathers chunks: small parts are copied together, large values are shared.
struct Writer {
    chunks: Vec<Bytes>,
    head: BytesMut,
}

impl Writer {
    fn value(&mut self, value: &Value) {
        self.head.put_u8(value_kind(value));
        self.head.put_u32_le(len_u32(value.encoded_len()));
        match value {
            Value::Noop => {}
            Value::Membership(membership) => put_membership(&mut self.head, membership),
            Value::Batch(batch) => self.bytes(batch.encoded()),
        }
    }

    fn bytes(&mut self, bytes: &Bytes) {
        if bytes.len() < CHUNK_MIN {
            self.head.put_slice(bytes);
        } else {
            self.chunks.push(self.head.split().freeze());
            self.chunks.push(bytes.clone());
        }
    }

    fn values(&mut self, values: &[Value]) {
        self.head.put_u32_le(len_u32(values.len()));
        for value in values {
            self.value(value);
        }
    }

    fn finish(mut self) -> Vec<Bytes> {
        if !self.head.is_empty() {
            self.chunks.push(self.head.freeze());
        }
        self.chunks
    }
}

/// The bytes of a message, in chunks that share its values' buffers.
pub fn encode(message: &Message) -> Vec<Bytes> {
    let mut writer = Writer { chunks: Vec::with_capacity(2), head: BytesMut::with_capacity(256) };
    let origin = &message.origin;
    let head = &mut writer.head;
    head.put_u16_le(VERSION);
    head.put_u8(body_kind(&message.body));
    head.put_u8(0);
    head.put_u32_le(origin.epoch.number());
    head.put_u128_le(origin.cluster.bits());
    head.put_u64_le(origin.group.number());
    head.put_u64_le(origin.incarnation.bits());
    head.put_u16_le(origin.replica.number());
    head.put_slice(&origin.membership.to_bytes());
    put_body(&mut writer, &message.body);
    writer.finish()
}

fn put_body(writer: &mut Writer, body: &Body) {
    let head = &mut writer.head;
    match body {
        Body::Prepare(message) => {
            put_ballot(head, message.ballot);
            head.put_u64_le(message.from.number());
        }
        Body::Promise(message) => {
            put_ballot(head, message.ballot);
            head.put_u64_le(message.committed.number());
            head.put_u64_le(message.from.number());
            head.put_u64_le(message.through.number());
            head.put_u32_le(len_u32(message.entries.len()));
            for entry in &message.entries {
                put_entry(writer, entry);
            }
        }
        Body::Accept(message) => {
            put_ballot(head, message.ballot);
            head.put_u64_le(message.committed.number());
            head.put_u64_le(message.first.number());
            writer.values(&message.values);
        }
        Body::Accepted(message) => {
            put_ballot(head, message.ballot);
            head.put_u64_le(message.first.number());
            head.put_u64_le(message.last.number());
        }
        Body::Reject(message) => {
            put_ballot(head, message.refused);
            put_ballot(head, message.promised);
        }
        Body::Commit(message) => {
            put_ballot(head, message.ballot);
            head.put_u64_le(message.committed.number());
        }
        Body::Heartbeat(message) => put_heartbeat(head, message),
        Body::Fetch(message) => {
            head.put_u64_le(message.from.number());
            head.put_u64_le(message.through.number());
        }
        Body::Fetched(message) => {
            head.put_u64_le(message.first.number());
            head.put_u64_le(message.committed.number());
            head.put_u64_le(message.trimmed.number());
            writer.values(&message.values);
        }
        Body::Refused(message) => {
            head.put_u64_le(message.refused.bits());
            head.put_u64_le(message.remembered.bits());
        }
        Body::Confirm(Confirm { ballot, round }) | Body::Confirmed(Confirmed { ballot, round }) => {
            put_ballot(head, *ballot);
            head.put_u64_le(*round);
        }
        Body::Transfer(message) => {
            put_ballot(head, message.ballot);
            head.put_u64_le(message.committed.number());
            head.put_u64_le(message.released);
        }
        Body::Survey(message) => head.put_u64_le(message.round),
        Body::Surveyed(message) => put_surveyed(head, message),
        Body::Removed(message) => {
            head.put_u32_le(message.epoch.number());
            head.put_u64_le(message.from.number());
        }
    }
}

fn put_surveyed(head: &mut BytesMut, message: &Surveyed) {
    head.put_u64_le(message.asker.bits());
    head.put_u64_le(message.round);
    head.put_u64_le(message.committed.number());
    head.put_u64_le(message.highest.number());
}

fn put_heartbeat(head: &mut BytesMut, message: &Heartbeat) {
    head.put_u64_le(message.sequence);
    put_optional_ballot(head, message.promised);
    put_optional_ballot(head, message.leader);
    head.put_u8(match message.connectivity {
        Connectivity::Partial => 0,
        Connectivity::Quorum => 1,
    });
    head.put_u64_le(message.committed.number());
    head.put_u64_le(message.durable.number());
    head.put_u64_le(message.held.number());
    head.put_u64_le(message.released);
    head.put_u8(message.priority.number());
    head.put_u32_le(len_u32(message.echoes.len()));
    for echo in &message.echoes {
        head.put_u16_le(echo.peer.number());
        head.put_u64_le(echo.incarnation.bits());
        head.put_u64_le(echo.sequence);
    }
}

fn put_entry(writer: &mut Writer, entry: &PromiseEntry) {
    writer.head.put_u64_le(entry.slot.number());
    match &entry.state {
        SlotState::Accepted(ballot, value) => {
            writer.head.put_u8(0);
            put_ballot(&mut writer.head, *ballot);
            writer.value(value);
        }
        SlotState::Chosen(value) => {
            writer.head.put_u8(1);
            writer.value(value);
        }
        SlotState::Unknown(ballot) => {
            writer.head.put_u8(2);
            put_ballot(&mut writer.head, *ballot);
        }
    }
}

const fn body_kind(body: &Body) -> u8 {
    match body {
        Body::Prepare(_) => 1,
        Body::Promise(_) => 2,
        Body::Accept(_) => 3,
        Body::Accepted(_) => 4,
        Body::Reject(_) => 5,
        Body::Commit(_) => 6,
        Body::Heartbeat(_) => 7,
        Body::Fetch(_) => 8,
        Body::Fetched(_) => 9,
        Body::Refused(_) => 10,
        Body::Confirm(_) => 11,
        Body::Confirmed(_) => 12,
        Body::Transfer(_) => 13,
        Body::Survey(_) => 14,
        Body::Surveyed(_) => 15,
        Body::Removed(_) => 16,
    }
}

/// The byte that says what kind of value follows, in messages and in the log.
pub const fn value_kind(value: &Value) -> u8 {
    match value {
        Value::Noop => 0,
        Value::Membership(_) => 1,
        Value::Batch(_) => 2,
    }
}

/// The byte that says what kind of command follows.
pub const fn command_kind(kind: CommandKind) -> u8 {
    match kind {
        CommandKind::Apply => 0,
        CommandKind::OpenSession { .. } => 1,
        CommandKind::InSession { .. } => 2,
        CommandKind::CloseSession { .. } => 3,
        CommandKind::Raise { .. } => 4,
    }
}

/// The bytes of a value without its kind and length, as the log stores them.
pub fn encode_value(value: &Value) -> Bytes {
    match value {
        Value::Noop => Bytes::new(),
        Value::Membership(membership) => encode_membership(membership),
        Value::Batch(batch) => batch.encoded().clone(),
    }
}

pub(crate) fn encode_batch(clock: LogClock, commands: &[Command]) -> Bytes {
    let len = BATCH_HEADER_LEN + commands.iter().map(Command::encoded_len).sum::<usize>();
    let mut out = BytesMut::with_capacity(len);
    out.put_u64_le(clock.millis());
    out.put_u32_le(len_u32(commands.len()));
    for command in commands {
        out.put_u8(command_kind(command.kind));
        out.put_u8(COMMAND_VERSION);
        out.put_u16_le(0);
        out.put_u32_le(len_u32(command.kind.encoded_len() + command.payload.len()));
        out.put_u64_le(command.client.number());
        out.put_u64_le(command.request.number());
        out.put_u64_le(command.acknowledged_below.number());
        match command.kind {
            CommandKind::Apply => {}
            CommandKind::OpenSession { session, ttl } => {
                out.put_u128_le(session.bits());
                out.put_u64_le(ttl.millis());
            }
            CommandKind::InSession { session, request } => {
                out.put_u128_le(session.bits());
                out.put_u64_le(request.number());
            }
            CommandKind::CloseSession { session } => out.put_u128_le(session.bits()),
            CommandKind::Raise { level } => {
                out.put_u16_le(level.library);
                out.put_u16_le(0);
                out.put_u32_le(level.machine);
            }
        }
        out.put_slice(&command.payload);
    }
    assert_eq!(out.len(), len, "a batch's length is known without encoding it");
    out.freeze()
}

fn put_ballot(out: &mut BytesMut, ballot: Ballot) {
    out.put_u64_le(ballot.round());
    out.put_u16_le(ballot.leader().number());
}

fn put_optional_ballot(out: &mut BytesMut, ballot: Option<Ballot>) {
    out.put_u8(u8::from(ballot.is_some()));
    put_ballot(out, ballot.unwrap_or(Ballot::new(0, ReplicaId::new(0))));
}

fn len_u32(len: usize) -> u32 {
    u32::try_from(len).expect("lengths are bounded far below 4 GiB")
}

fn len_u16(len: usize) -> u16 {
    u16::try_from(len).expect("counts and addresses are bounded below 64 Ki")
}

// ---------------------------------------------------------------------------------------------
// Decoding

/// Takes bytes from the front of a shared buffer; payloads stay slices of it.
struct Reader {
    rest: Bytes,
}

impl Reader {
    fn take(&mut self, len: usize) -> Result<Bytes, DecodeError> {
        if len > self.rest.len() {
            return Err(DecodeError::Truncated);
        }
        Ok(self.rest.split_to(len))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let array = *self.rest.first_chunk::<N>().ok_or(DecodeError::Truncated)?;
        bytes::Buf::advance(&mut self.rest, N);
        Ok(array)
    }

    fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array().map(|[byte]: [u8; 1]| byte)
    }

    fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_le_bytes)
    }

    fn slot(&mut self) -> Result<Slot, DecodeError> {
        self.u64().map(Slot::new)
    }

    fn replica(&mut self) -> Result<ReplicaId, DecodeError> {
        self.u16().map(ReplicaId::new)
    }

    fn incarnation(&mut self) -> Result<Incarnation, DecodeError> {
        self.u64().map(Incarnation::from_bits)
    }

    fn session(&mut self) -> Result<SessionId, DecodeError> {
        self.array().map(|bytes| SessionId::new(u128::from_le_bytes(bytes)))
    }

    fn ballot(&mut self) -> Result<Ballot, DecodeError> {
        let round = self.u64()?;
        Ok(Ballot::new(round, self.replica()?))
    }

    fn optional_ballot(&mut self) -> Result<Option<Ballot>, DecodeError> {
        let present = self.u8()?;
        let ballot = self.ballot()?;
        match present {
            0 if ballot == Ballot::new(0, ReplicaId::new(0)) => Ok(None),
            1 => Ok(Some(ballot)),
            _ => Err(DecodeError::Field("optional ballot")),
        }
    }

    fn zeros(&mut self, len: usize, field: &'static str) -> Result<(), DecodeError> {
        if self.take(len)?.iter().any(|byte| *byte != 0) {
            return Err(DecodeError::Field(field));
        }
        Ok(())
    }

    /// A count of items that take at least `item_min` bytes each, so that it bounds an allocation.
    fn count(&mut self, item_min: usize) -> Result<usize, DecodeError> {
        let count = self.u32()? as usize;
        if count > self.rest.len() / item_min {
            return Err(DecodeError::Truncated);
        }
        Ok(count)
    }

    fn value(&mut self) -> Result<Value, DecodeError> {
        let kind = self.u8()?;
        let len = self.u32()? as usize;
        decode_value(kind, self.take(len)?)
    }

    fn values(&mut self) -> Result<Vec<Value>, DecodeError> {
        let count = self.count(VALUE_HEADER_LEN)?;
        (0..count).map(|_| self.value()).collect()
    }

    fn entry(&mut self) -> Result<PromiseEntry, DecodeError> {
        let slot = self.slot()?;
        let state = match self.u8()? {
            0 => SlotState::Accepted(self.ballot()?, self.value()?),
            1 => SlotState::Chosen(self.value()?),
            2 => SlotState::Unknown(self.ballot()?),
            kind => return Err(DecodeError::Kind(kind)),
        };
        Ok(PromiseEntry { slot, state })
    }

    fn end(&self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError::Trailing) }
    }
}

/// Reads a message. Payloads are slices of `bytes`, and keep it alive.
pub fn decode(bytes: Bytes) -> Result<Message, DecodeError> {
    let mut reader = Reader { rest: bytes };
    let version = reader.u16()?;
    if version != VERSION {
        return Err(DecodeError::Version(version));
    }
    let kind = reader.u8()?;
    reader.zeros(1, "flags")?;
    let epoch = Epoch::new(reader.u32()?);
    let cluster = ClusterId::new(reader.array().map(u128::from_le_bytes)?);
    let group = GroupId::new(reader.u64()?);
    let incarnation = reader.incarnation()?;
    let replica = reader.replica()?;
    let membership = MembershipDigest::from_bytes(reader.array()?);
    let body = decode_body(kind, &mut reader)?;
    reader.end()?;
    let origin = Origin { cluster, group, epoch, membership, replica, incarnation };
    Ok(Message { origin, body })
}

fn decode_body(kind: u8, reader: &mut Reader) -> Result<Body, DecodeError> {
    Ok(match kind {
        1 => Prepare { ballot: reader.ballot()?, from: reader.slot()? }.into(),
        2 => decode_promise(reader)?.into(),
        3 => {
            let ballot = reader.ballot()?;
            let committed = reader.slot()?;
            let first = reader.slot()?;
            let values = reader.values()?;
            if values.is_empty() || first == Slot::ZERO {
                return Err(DecodeError::Field("values"));
            }
            within_slots(first, values.len())?;
            Accept { ballot, committed, first, values }.into()
        }
        4 => {
            let ballot = reader.ballot()?;
            let (first, last) = (reader.slot()?, reader.slot()?);
            if last < first || first == Slot::ZERO {
                return Err(DecodeError::Field("last"));
            }
            Accepted { ballot, first, last }.into()
        }
        5 => Reject { refused: reader.ballot()?, promised: reader.ballot()? }.into(),
        6 => Commit { ballot: reader.ballot()?, committed: reader.slot()? }.into(),
        7 => decode_heartbeat(reader)?.into(),
        8 => Fetch { from: reader.slot()?, through: reader.slot()? }.into(),
        9 => {
            let first = reader.slot()?;
            let committed = reader.slot()?;
            let trimmed = reader.slot()?;
            let values = reader.values()?;
            within_slots(first, values.len())?;
            Fetched { first, values, committed, trimmed }.into()
        }
        10 => Refused { refused: reader.incarnation()?, remembered: reader.incarnation()? }.into(),
        11 => Confirm { ballot: reader.ballot()?, round: reader.u64()? }.into(),
        12 => Confirmed { ballot: reader.ballot()?, round: reader.u64()? }.into(),
        13 => {
            let (ballot, committed, released) = (reader.ballot()?, reader.slot()?, reader.u64()?);
            Transfer { ballot, committed, released }.into()
        }
        14 => Survey { round: reader.u64()? }.into(),
        15 => {
            let (asker, round) = (reader.incarnation()?, reader.u64()?);
            let (committed, highest) = (reader.slot()?, reader.slot()?);
            if highest < committed {
                return Err(DecodeError::Field("highest"));
            }
            Surveyed { asker, round, committed, highest }.into()
        }
        16 => Removed { epoch: Epoch::new(reader.u32()?), from: reader.slot()? }.into(),
        kind => return Err(DecodeError::Kind(kind)),
    })
}

fn within_slots(first: Slot, count: usize) -> Result<(), DecodeError> {
    first.number().checked_add(count as u64).map(|_| ()).ok_or(DecodeError::Field("first"))
}

fn decode_promise(reader: &mut Reader) -> Result<Promise, DecodeError> {
    let ballot = reader.ballot()?;
    let committed = reader.slot()?;
    let from = reader.slot()?;
    let through = reader.slot()?;
    let count = reader.count(9)?;
    let entries = (0..count).map(|_| reader.entry()).collect::<Result<Vec<_>, _>>()?;
    let inside = entries.iter().all(|entry| from <= entry.slot && entry.slot <= through);
    let rising = entries.windows(2).all(|pair| pair[0].slot < pair[1].slot);
    if !inside || !rising {
        return Err(DecodeError::Field("entries"));
    }
    Ok(Promise { ballot, committed, from, through, entries })
}

fn decode_heartbeat(reader: &mut Reader) -> Result<Heartbeat, DecodeError> {
    let sequence = reader.u64()?;
    let promised = reader.optional_ballot()?;
    let leader = reader.optional_ballot()?;
    let connectivity = match reader.u8()? {
        0 => Connectivity::Partial,
        1 => Connectivity::Quorum,
        _ => return Err(DecodeError::Field("connectivity")),
    };
    let committed = reader.slot()?;
    let durable = reader.slot()?;
    let held = reader.slot()?;
    let released = reader.u64()?;
    let priority = Priority::new(reader.u8()?);
    let count = reader.count(18)?;
    let echoes = (0..count)
        .map(|_| {
            Ok(Echo {
                peer: reader.replica()?,
                incarnation: reader.incarnation()?,
                sequence: reader.u64()?,
            })
        })
        .collect::<Result<Vec<_>, DecodeError>>()?;
    Ok(Heartbeat {
        sequence,
        echoes,
        promised,
        leader,
        connectivity,
        committed,
        durable,
        held,
        released,
        priority,
    })
}

/// Reads a value of the kind that [`value_kind`] gave from the bytes that [`encode_value`] gave.
pub fn decode_value(kind: u8, bytes: Bytes) -> Result<Value, DecodeError> {
    match kind {
        0 if bytes.is_empty() => Ok(Value::Noop),
        0 => Err(DecodeError::Trailing),
        1 => Ok(Value::Membership(decode_membership(bytes)?.into())),
        2 => Ok(Value::Batch(decode_batch(bytes)?)),
        kind => Err(DecodeError::Kind(kind)),
    }
}

fn decode_batch(bytes: Bytes) -> Result<Batch, DecodeError> {
    let mut reader = Reader { rest: bytes.clone() };
    let clock = LogClock::from_millis(reader.u64()?);
    let count = reader.count(COMMAND_HEADER_LEN)?;
    if count == 0 {
        return Err(DecodeError::Field("count"));
    }
    let mut commands = Vec::with_capacity(count);
    for _ in 0..count {
        commands.push(decode_command(&mut reader)?);
    }
    reader.end()?;
    Ok(Batch::decoded(clock, commands, bytes))
}

fn decode_command(reader: &mut Reader) -> Result<Command, DecodeError> {
    let (code, version) = (reader.u8()?, reader.u8()?);
    if code > 4 || version != COMMAND_VERSION {
        return Err(DecodeError::CommandKind(code, version));
    }
    reader.zeros(2, "command")?;
    let len = reader.u32()? as usize;
    let client = ClientId::new(reader.u64()?);
    let request = RequestNumber::new(reader.u64()?);
    let acknowledged_below = RequestNumber::new(reader.u64()?);
    let mut body = Reader { rest: reader.take(len)? };
    let kind = match code {
        0 => CommandKind::Apply,
        1 => CommandKind::OpenSession {
            session: body.session()?,
            ttl: SessionTtl::from_millis(body.u64()?),
        },
        2 => CommandKind::InSession {
            session: body.session()?,
            request: RequestNumber::new(body.u64()?),
        },
        3 => CommandKind::CloseSession { session: body.session()? },
        _ => {
            let library = body.u16()?;
            body.zeros(2, "level")?;
            CommandKind::Raise { level: Level { library, machine: body.u32()? } }
        }
    };
    if !matches!(kind, CommandKind::Apply | CommandKind::InSession { .. }) {
        body.end()?;
    }
    Ok(Command { kind, client, request, acknowledged_below, payload: body.rest })
}
