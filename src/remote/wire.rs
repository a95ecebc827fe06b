//! The bytes between a client that is not a replica and the node that serves it.
//!
//! Owns: the frames drawn in docs/format-client.md, and [`Assembler`], which cuts a stream into
//! frames. Knows no network, no client and no node.
//! Invariants: a length is refused before anything is allocated for it, and a buffer grows with what
//! was received, not with what was announced; decoding never panics; what decodes encodes to the
//! same bytes.

use core::fmt;
use core::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use paxos_core::ids::{ClusterId, GroupId, ReplicaId, RequestNumber, SessionId, SessionTtl, Slot};

use crate::error::{ClientError, Rejection, Uncertainty};
use crate::request::{Consistency, SessionRequest};

/// The version of these frames: both sides say it before anything else.
const VERSION: u16 = 2;
/// The bytes before each frame: its length.
pub(crate) const LENGTH_BYTES: usize = 4;
/// The bytes of a request or an answer before its payload, at most.
pub(crate) const HEAD_BYTES: usize = 48;
/// The largest greeting: a later version's may be longer than this one's.
pub(crate) const GREETING_BYTES_MAX: usize = 1024;
/// Words of an error longer than this are cut.
const WORDS_BYTES_MAX: usize = 1024;
/// The first buffer of a frame.
const BODY_FIRST: usize = 4 * 1024;

/// What each side says of itself first.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Hello {
    /// The cluster and group that the client means.
    pub(crate) cluster: ClusterId,
    pub(crate) group: GroupId,
    /// The largest frame that the client takes.
    pub(crate) frame_max: u32,
}

/// The node's answer to [`Hello`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Welcome {
    pub(crate) cluster: ClusterId,
    pub(crate) group: GroupId,
    /// The largest frame that the node takes.
    pub(crate) frame_max: u32,
    /// How many requests may be unanswered before the node reads no further.
    pub(crate) requests_max: u32,
    /// Whose node it is.
    pub(crate) replica: ReplicaId,
    /// The replica that leads, if this node knows one.
    pub(crate) leader: Option<ReplicaId>,
}

/// What is asked for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Wanted {
    /// That this command be applied; once, where it has a name in a session.
    Command(Option<SessionRequest>, Bytes),
    /// That this session be opened.
    Open(SessionId, SessionTtl),
    /// An answer to this query.
    Read(Consistency, Bytes),
}

/// A client's request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Request {
    /// Chosen by the client; no other unanswered request of the link has it.
    pub(crate) number: u64,
    /// How long the node may take, in whole milliseconds.
    pub(crate) timeout: Duration,
    pub(crate) wanted: Wanted,
}

/// That a request was carried out.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Done {
    /// Every state that has applied this slot includes it; zero for a read.
    pub(crate) slot: Slot,
    /// The reply or answer.
    pub(crate) payload: Bytes,
}

/// The outcome of the request of this number.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Answer {
    pub(crate) number: u64,
    pub(crate) outcome: Result<Done, ClientError>,
}

/// A frame of either side.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Frame {
    Hello(Hello),
    Welcome(Welcome),
    Request(Request),
    Answer(Answer),
    /// The node's last: it answered every request that it took, and takes no other.
    Goodbye,
}

/// What the other side did that the format does not allow.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Breach {
    /// A frame is larger than this side takes.
    TooLarge { bytes: usize, bytes_max: usize },
    /// A frame does not decode.
    Malformed,
    /// Its version is another.
    Version(u16),
    /// It means another cluster or group.
    Stranger,
    /// A frame of another kind is due.
    OutOfTurn,
    /// A number is used for two requests at once, or answered without a request.
    Number(u64),
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { bytes, bytes_max } => {
                write!(f, "a frame claims {bytes} bytes, and the limit is {bytes_max}")
            }
            Self::Malformed => f.write_str("a frame does not decode"),
            Self::Version(version) => {
                write!(f, "client protocol version {version} meets version {VERSION}")
            }
            Self::Stranger => f.write_str("this node is of another cluster or group"),
            Self::OutOfTurn => f.write_str("a frame is not the one that is due"),
            Self::Number(number) => write!(f, "request number {number} is out of turn"),
        }
    }
}

/// Appends a frame with its length.
pub(crate) fn encode(out: &mut BytesMut, frame: &Frame) {
    let start = out.len();
    out.put_u32_le(0);
    match frame {
        Frame::Hello(hello) => {
            let Hello { cluster, group, frame_max } = *hello;
            put_greeting(out, 1, 0, frame_max, cluster, group);
        }
        Frame::Welcome(welcome) => {
            let Welcome { cluster, group, frame_max, requests_max, replica, leader } = *welcome;
            put_greeting(out, 2, replica.number(), frame_max, cluster, group);
            out.put_u32_le(requests_max);
            out.put_u16_le(u16::from(leader.is_some()));
            out.put_u16_le(leader.map_or(0, ReplicaId::number));
        }
        Frame::Request(request) => put_request(out, request),
        Frame::Answer(Answer { number, outcome: Ok(done) }) => {
            put_head(out, 5, 0, 0, *number);
            out.put_u64_le(done.slot.number());
            out.put_slice(&done.payload);
        }
        Frame::Answer(Answer { number, outcome: Err(error) }) => put_error(out, *number, error),
        Frame::Goodbye => put_head(out, 7, 0, 0, 0),
    }
    let len = (out.len() - start - LENGTH_BYTES) as u32;
    out[start..start + LENGTH_BYTES].copy_from_slice(&len.to_le_bytes());
}

fn put_greeting(
    out: &mut BytesMut,
    kind: u8,
    replica: u16,
    frame_max: u32,
    cluster: ClusterId,
    group: GroupId,
) {
    out.put_slice(&[kind, b'P', b'X', b'C']);
    out.put_u16_le(VERSION);
    out.put_u16_le(replica);
    out.put_u32_le(frame_max);
    out.put_u32_le(0);
    out.put_u128_le(cluster.bits());
    out.put_u64_le(group.number());
}

fn put_head(out: &mut BytesMut, kind: u8, detail: u8, timeout: u32, number: u64) {
    out.put_slice(&[kind, detail, 0, 0]);
    out.put_u32_le(timeout);
    out.put_u64_le(number);
}

fn put_request(out: &mut BytesMut, request: &Request) {
    let timeout = u32::try_from(request.timeout.as_millis()).unwrap_or(u32::MAX);
    match &request.wanted {
        Wanted::Command(None, payload) => {
            put_head(out, 3, 0, timeout, request.number);
            out.put_slice(payload);
        }
        Wanted::Command(Some(name), payload) => {
            put_head(out, 3, 1, timeout, request.number);
            out.put_u128_le(name.session.bits());
            out.put_u64_le(name.request.number());
            out.put_u64_le(name.acknowledged_below.number());
            out.put_slice(payload);
        }
        Wanted::Open(session, ttl) => {
            put_head(out, 3, 2, timeout, request.number);
            out.put_u128_le(session.bits());
            out.put_u64_le(ttl.millis());
        }
        Wanted::Read(consistency, payload) => {
            let (detail, argument) = match *consistency {
                Consistency::Linearizable => (0, 0),
                Consistency::AtLeast(slot) => (1, slot.number()),
                Consistency::Quorum => (3, 0),
                Consistency::Stale { lag_max } => {
                    (2, u64::try_from(lag_max.as_millis()).unwrap_or(u64::MAX))
                }
            };
            put_head(out, 4, detail, timeout, request.number);
            out.put_u64_le(argument);
            out.put_slice(payload);
        }
    }
}

fn put_error(out: &mut BytesMut, number: u64, error: &ClientError) {
    let detail = match error {
        ClientError::Rejected(Rejection::NoLeader) => 1,
        ClientError::Rejected(Rejection::Busy) => 2,
        ClientError::Rejected(Rejection::TooLarge { .. }) => 3,
        ClientError::Rejected(Rejection::StorageFull) => 4,
        ClientError::Rejected(Rejection::Superseded) => 5,
        ClientError::Rejected(Rejection::TimedOut) => 6,
        ClientError::Rejected(Rejection::Stopped) => 7,
        ClientError::Rejected(Rejection::Codec(_)) => 8,
        ClientError::Rejected(Rejection::Answer(_)) => 9,
        ClientError::Rejected(Rejection::Unreachable) => 10,
        ClientError::Rejected(Rejection::SessionUnknown) => 11,
        ClientError::Rejected(Rejection::StaleRequest) => 12,
        ClientError::Rejected(Rejection::NoQuorum) => 13,
        ClientError::Rejected(Rejection::Unsettled { .. }) => 14,
        ClientError::Rejected(Rejection::Level { .. }) => 15,
        ClientError::ReplyNotKept { .. } => 0x40,
        ClientError::Unknown(Uncertainty::Timeout) => 0x81,
        ClientError::Unknown(Uncertainty::Stopped) => 0x82,
        ClientError::Unknown(Uncertainty::LeaderChanged) => 0x83,
        ClientError::Unknown(Uncertainty::LinkLost) => 0x84,
        ClientError::Unknown(Uncertainty::SessionLost) => 0x85,
        ClientError::Unknown(Uncertainty::Skipped) => 0x86,
    };
    put_head(out, 6, detail, 0, number);
    match error {
        ClientError::Rejected(Rejection::TooLarge { bytes, bytes_max }) => {
            out.put_u64_le(*bytes as u64);
            out.put_u64_le(*bytes_max as u64);
        }
        ClientError::Rejected(Rejection::Level { needed, raised }) => {
            out.put_u32_le(*needed);
            out.put_u32_le(*raised);
        }
        ClientError::Rejected(Rejection::Codec(words) | Rejection::Answer(words)) => {
            let cut = |end: &usize| words.is_char_boundary(*end);
            let end = (0..=words.len().min(WORDS_BYTES_MAX)).rev().find(cut).unwrap_or(0);
            out.put_slice(&words.as_bytes()[..end]);
        }
        ClientError::Rejected(Rejection::Unsettled { slot })
        | ClientError::ReplyNotKept { slot } => out.put_u64_le(slot.number()),
        ClientError::Rejected(_) | ClientError::Unknown(_) => {}
    }
}

/// Reads the body of a frame.
pub(crate) fn decode(mut body: Bytes) -> Result<Frame, Breach> {
    let rest = &mut body;
    let [kind, detail, a, b] = take(rest)?;
    if let 1 | 2 = kind {
        return greeting(kind, [detail, a, b], rest);
    }
    let timeout = u32::from_le_bytes(take(rest)?);
    let number = u64::from_le_bytes(take(rest)?);
    if [a, b] != [0; 2] {
        return Err(Breach::Malformed);
    }
    let after = Duration::from_millis(timeout.into());
    match (kind, detail) {
        (3, detail) => {
            let wanted = command(detail, rest)?;
            Ok(Frame::Request(Request { number, timeout: after, wanted }))
        }
        (4, detail) => {
            let argument = u64::from_le_bytes(take(rest)?);
            let consistency = match (detail, argument) {
                (0, 0) => Consistency::Linearizable,
                (1, slot) => Consistency::AtLeast(Slot::new(slot)),
                (3, 0) => Consistency::Quorum,
                (2, millis) => Consistency::Stale { lag_max: Duration::from_millis(millis) },
                _ => return Err(Breach::Malformed),
            };
            let wanted = Wanted::Read(consistency, core::mem::take(rest));
            Ok(Frame::Request(Request { number, timeout: after, wanted }))
        }
        (5, 0) if timeout == 0 => {
            let slot = Slot::new(u64::from_le_bytes(take(rest)?));
            let done = Done { slot, payload: core::mem::take(rest) };
            Ok(Frame::Answer(Answer { number, outcome: Ok(done) }))
        }
        (6, detail) if timeout == 0 => {
            Ok(Frame::Answer(Answer { number, outcome: Err(error(detail, rest)?) }))
        }
        (7, 0) if (timeout, number) == (0, 0) => whole(rest, Frame::Goodbye),
        _ => Err(Breach::Malformed),
    }
}

fn greeting(kind: u8, magic: [u8; 3], rest: &mut Bytes) -> Result<Frame, Breach> {
    let version = u16::from_le_bytes(take(rest)?);
    if magic != *b"PXC" {
        return Err(Breach::Malformed);
    }
    if version != VERSION {
        return Err(Breach::Version(version));
    }
    let replica = ReplicaId::new(u16::from_le_bytes(take(rest)?));
    let frame_max = u32::from_le_bytes(take(rest)?);
    let _: [u8; 4] = take(rest)?;
    let cluster = ClusterId::new(u128::from_le_bytes(take(rest)?));
    let group = GroupId::new(u64::from_le_bytes(take(rest)?));
    if kind == 1 {
        return Ok(Frame::Hello(Hello { cluster, group, frame_max }));
    }
    let requests_max = u32::from_le_bytes(take(rest)?);
    let known = u16::from_le_bytes(take(rest)?);
    let leader = ReplicaId::new(u16::from_le_bytes(take(rest)?));
    let leader = (known == 1).then_some(leader);
    let welcome = Welcome { cluster, group, frame_max, requests_max, replica, leader };
    Ok(Frame::Welcome(welcome))
}

fn command(detail: u8, rest: &mut Bytes) -> Result<Wanted, Breach> {
    if detail == 0 {
        return Ok(Wanted::Command(None, core::mem::take(rest)));
    }
    let session = SessionId::new(u128::from_le_bytes(take(rest)?));
    let number = u64::from_le_bytes(take(rest)?);
    match detail {
        1 => {
            let request = RequestNumber::new(number);
            let acknowledged_below = RequestNumber::new(u64::from_le_bytes(take(rest)?));
            let name = SessionRequest { session, request, acknowledged_below };
            Ok(Wanted::Command(Some(name), core::mem::take(rest)))
        }
        2 => whole(rest, Wanted::Open(session, SessionTtl::from_millis(number))),
        _ => Err(Breach::Malformed),
    }
}

fn error(detail: u8, rest: &mut Bytes) -> Result<ClientError, Breach> {
    let rejected = match detail {
        1 => Rejection::NoLeader,
        2 => Rejection::Busy,
        3 => Rejection::TooLarge {
            bytes: u64::from_le_bytes(take(rest)?) as usize,
            bytes_max: u64::from_le_bytes(take(rest)?) as usize,
        },
        4 => Rejection::StorageFull,
        5 => Rejection::Superseded,
        6 => Rejection::TimedOut,
        7 => Rejection::Stopped,
        8 | 9 => {
            let words = core::mem::take(rest).to_vec();
            let words = String::from_utf8(words).map_err(|_| Breach::Malformed)?;
            if words.len() > WORDS_BYTES_MAX {
                return Err(Breach::Malformed);
            }
            if detail == 8 { Rejection::Codec(words) } else { Rejection::Answer(words) }
        }
        10 => Rejection::Unreachable,
        11 => Rejection::SessionUnknown,
        12 => Rejection::StaleRequest,
        13 => Rejection::NoQuorum,
        15 => Rejection::Level {
            needed: u32::from_le_bytes(take(rest)?),
            raised: u32::from_le_bytes(take(rest)?),
        },
        14 => Rejection::Unsettled { slot: Slot::new(u64::from_le_bytes(take(rest)?)) },
        0x40 => {
            let slot = Slot::new(u64::from_le_bytes(take(rest)?));
            return whole(rest, ClientError::ReplyNotKept { slot });
        }
        _ => {
            let uncertainty = match detail {
                0x81 => Uncertainty::Timeout,
                0x82 => Uncertainty::Stopped,
                0x83 => Uncertainty::LeaderChanged,
                0x84 => Uncertainty::LinkLost,
                0x85 => Uncertainty::SessionLost,
                0x86 => Uncertainty::Skipped,
                _ => return Err(Breach::Malformed),
            };
            return whole(rest, ClientError::Unknown(uncertainty));
        }
    };
    whole(rest, ClientError::Rejected(rejected))
}

fn whole<T>(rest: &Bytes, read: T) -> Result<T, Breach> {
    if rest.is_empty() { Ok(read) } else { Err(Breach::Malformed) }
}

fn take<const N: usize>(rest: &mut Bytes) -> Result<[u8; N], Breach> {
    let array = *rest.first_chunk::<N>().ok_or(Breach::Malformed)?;
    rest.advance(N);
    Ok(array)
}

/// Frames out of a stream's bytes.
#[derive(Debug)]
pub(crate) struct Assembler {
    frame_max: usize,
    length: [u8; LENGTH_BYTES],
    filled: usize,
    body: Vec<u8>,
}

impl Assembler {
    /// Takes frames up to this many bytes of body.
    pub(crate) fn new(frame_max: usize) -> Self {
        Self { frame_max, length: [0; LENGTH_BYTES], filled: 0, body: Vec::new() }
    }

    /// Takes larger or smaller frames from the next one on.
    pub(crate) fn set_frame_max(&mut self, frame_max: usize) {
        self.frame_max = frame_max;
    }

    /// Takes bytes from the front of `bytes` up to the end of one frame, and returns its body.
    pub(crate) fn next(&mut self, bytes: &mut &[u8]) -> Result<Option<Bytes>, Breach> {
        while self.filled < LENGTH_BYTES {
            let Some((first, rest)) = bytes.split_first() else { return Ok(None) };
            self.length[self.filled] = *first;
            self.filled += 1;
            *bytes = rest;
        }
        let len = u32::from_le_bytes(self.length) as usize;
        if len > self.frame_max {
            return Err(Breach::TooLarge { bytes: len, bytes_max: self.frame_max });
        }
        let missing = len - self.body.len();
        let (taken, rest) = bytes.split_at(missing.min(bytes.len()));
        if self.body.capacity() - self.body.len() < taken.len() {
            // At most doubles, and ends at exactly the frame's length.
            let more = self.body.len().max(BODY_FIRST).max(taken.len()).min(missing);
            self.body.reserve_exact(more);
        }
        self.body.extend_from_slice(taken);
        *bytes = rest;
        if taken.len() < missing {
            return Ok(None);
        }
        self.filled = 0;
        Ok(Some(core::mem::take(&mut self.body).into()))
    }
}
