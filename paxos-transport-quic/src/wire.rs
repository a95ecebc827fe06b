//! The bytes on the wire: stream prelude, frame header, Hello, and the codes of a close.
//!
//! Owns: the layout drawn in docs/format-quic.md, and nothing that moves it.
//! Invariants: little-endian; a length is checked against its bound before anything is allocated.
//! Pattern: Single-Socket Channel (one long-lived connection per peer, order within each lane).

use core::fmt;

use paxos_core::ids::{ClusterId, Incarnation, ReplicaId};
use paxos_core::port::{Channel, Lane};
use quinn::VarInt;

/// What begins every stream, before one byte that names the lane.
pub(crate) const PRELUDE_MAGIC: [u8; 3] = *b"PXQ";
pub(crate) const PRELUDE_LEN: usize = 4;
/// `u32 length | u8 channel | u8 flags | u16 version`.
pub(crate) const HEADER_LEN: usize = 8;
/// The version in every frame header, and the newest in Hello.
pub(crate) const VERSION: u16 = 1;
/// The versions that this release speaks.
pub(crate) const SPOKEN: Versions = Versions { oldest: 1, newest: VERSION };
/// A frame of an unknown channel with this flag is skipped.
const FLAG_IGNORABLE: u8 = 1;
/// A Hello of a later minor version may be longer, up to this.
pub(crate) const HELLO_BYTES_MAX: usize = 1024;
const HELLO_LEN: usize = 48;

const CHANNEL_CORE: u8 = 1;
const CHANNEL_HOST: u8 = 2;
const CHANNEL_SNAPSHOT: u8 = 3;
const CHANNEL_HELLO: u8 = 0x10;
const CHANNEL_HELLO_ACK: u8 = 0x11;

/// The bytes that open a stream for a lane.
pub(crate) fn prelude(lane: Lane) -> [u8; PRELUDE_LEN] {
    let [a, b, c] = PRELUDE_MAGIC;
    [a, b, c, lane_index(lane) as u8]
}

/// The lane that a stream was opened for.
pub(crate) fn parse_prelude(bytes: [u8; PRELUDE_LEN]) -> Result<Lane, WireError> {
    match bytes {
        [b'P', b'X', b'Q', 0] => Ok(Lane::Control),
        [b'P', b'X', b'Q', 1] => Ok(Lane::Log),
        [b'P', b'X', b'Q', 2] => Ok(Lane::Bulk),
        _ => Err(WireError::Prelude),
    }
}

pub(crate) const fn lane_index(lane: Lane) -> usize {
    match lane {
        Lane::Control => 0,
        Lane::Log => 1,
        Lane::Bulk => 2,
    }
}

/// Why bytes of a peer were not understood.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum WireError {
    Prelude,
    TooLarge { len: u32, max: u32 },
    Channel(u8),
    Version(u16),
    Hello,
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prelude => f.write_str("a stream does not begin with a lane's name"),
            Self::TooLarge { len, max } => {
                write!(f, "a frame claims {len} bytes, and the limit is {max}")
            }
            Self::Channel(channel) => write!(f, "frame of unknown channel {channel}"),
            Self::Version(version) => write!(f, "frame of unknown version {version}"),
            Self::Hello => f.write_str("the connection does not begin with Hello"),
        }
    }
}

/// What a frame header says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Header {
    pub(crate) len: u32,
    /// Nothing for a channel that is unknown and may be skipped.
    pub(crate) channel: Option<Channel>,
}

fn raw_header(len: u32, channel: u8) -> [u8; HEADER_LEN] {
    let [l0, l1, l2, l3] = len.to_le_bytes();
    let [v0, v1] = VERSION.to_le_bytes();
    [l0, l1, l2, l3, channel, 0, v0, v1]
}

/// The header of a frame with a body of `len` bytes.
pub(crate) fn header(len: u32, channel: Channel) -> [u8; HEADER_LEN] {
    raw_header(
        len,
        match channel {
            Channel::Core => CHANNEL_CORE,
            Channel::Host => CHANNEL_HOST,
            Channel::Snapshot => CHANNEL_SNAPSHOT,
        },
    )
}

/// Reads a header, and refuses a length beyond `max`.
pub(crate) fn parse_header(bytes: [u8; HEADER_LEN], max: u32) -> Result<Header, WireError> {
    let [l0, l1, l2, l3, channel, flags, v0, v1] = bytes;
    let len = u32::from_le_bytes([l0, l1, l2, l3]);
    if len > max {
        return Err(WireError::TooLarge { len, max });
    }
    let version = u16::from_le_bytes([v0, v1]);
    if version != VERSION {
        return Err(WireError::Version(version));
    }
    let channel = match channel {
        CHANNEL_CORE => Some(Channel::Core),
        CHANNEL_HOST => Some(Channel::Host),
        CHANNEL_SNAPSHOT => Some(Channel::Snapshot),
        _ if flags & FLAG_IGNORABLE != 0 => None,
        channel => return Err(WireError::Channel(channel)),
    };
    Ok(Header { len, channel })
}

/// Which side says Hello.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Greeting {
    Hello,
    Ack,
}

/// Which versions of these bytes a release speaks: all from one to another.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Versions {
    pub(crate) oldest: u16,
    pub(crate) newest: u16,
}

impl Versions {
    /// The version of a link between two releases: the newest that both speak.
    pub(crate) fn agree(self, other: Self) -> Option<u16> {
        let version = self.newest.min(other.newest);
        (version >= self.oldest.max(other.oldest)).then_some(version)
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.oldest == self.newest {
            write!(f, "version {}", self.newest)
        } else {
            write!(f, "versions {} to {}", self.oldest, self.newest)
        }
    }
}

/// What each side says of itself before the first frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Hello {
    pub(crate) versions: Versions,
    pub(crate) replica: ReplicaId,
    pub(crate) frame_max: u32,
    pub(crate) features: u64,
    pub(crate) cluster: ClusterId,
    pub(crate) incarnation: Incarnation,
}

impl Hello {
    pub(crate) fn encode(&self, greeting: Greeting) -> Vec<u8> {
        let channel = match greeting {
            Greeting::Hello => CHANNEL_HELLO,
            Greeting::Ack => CHANNEL_HELLO_ACK,
        };
        let mut out = Vec::with_capacity(HEADER_LEN + HELLO_LEN);
        out.extend_from_slice(&raw_header(HELLO_LEN as u32, channel));
        out.extend_from_slice(&self.versions.newest.to_le_bytes());
        out.extend_from_slice(&self.replica.number().to_le_bytes());
        out.extend_from_slice(&self.frame_max.to_le_bytes());
        out.extend_from_slice(&self.features.to_le_bytes());
        out.extend_from_slice(&self.cluster.bits().to_le_bytes());
        out.extend_from_slice(&self.incarnation.bits().to_le_bytes());
        let Versions { oldest, newest } = self.versions;
        let oldest = if oldest == newest { 0 } else { oldest };
        out.extend_from_slice(&oldest.to_le_bytes());
        out.extend_from_slice(&[0; 6]);
        assert_eq!(out.len(), HEADER_LEN + HELLO_LEN, "a Hello has one length");
        out
    }

    /// The length of the body that follows this header of a greeting.
    pub(crate) fn body_len(
        header: [u8; HEADER_LEN],
        greeting: Greeting,
    ) -> Result<usize, WireError> {
        let [l0, l1, l2, l3, channel, ..] = header;
        let expected = match greeting {
            Greeting::Hello => CHANNEL_HELLO,
            Greeting::Ack => CHANNEL_HELLO_ACK,
        };
        let len = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        if channel != expected || !(HELLO_LEN..=HELLO_BYTES_MAX).contains(&len) {
            return Err(WireError::Hello);
        }
        Ok(len)
    }

    /// Reads a body. What a later version appends is left unread.
    pub(crate) fn decode(mut body: &[u8]) -> Result<Self, WireError> {
        fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], WireError> {
            let (first, after) = rest.split_first_chunk().ok_or(WireError::Hello)?;
            *rest = after;
            Ok(*first)
        }
        let rest = &mut body;
        let newest = u16::from_le_bytes(take(rest)?);
        let mut hello = Self {
            versions: Versions { oldest: newest, newest },
            replica: ReplicaId::new(u16::from_le_bytes(take(rest)?)),
            frame_max: u32::from_le_bytes(take(rest)?),
            features: u64::from_le_bytes(take(rest)?),
            cluster: ClusterId::new(u128::from_le_bytes(take(rest)?)),
            incarnation: Incarnation::from_bits(u64::from_le_bytes(take(rest)?)),
        };
        // Zero: a release that speaks one version only, and says so by saying nothing.
        let oldest = u16::from_le_bytes(take(rest)?);
        if oldest > 0 {
            hello.versions.oldest = oldest;
        }
        Ok(hello)
    }
}

/// Why a connection was closed, as a number that the other side understands.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Code {
    Shutdown,
    Superseded,
    Cluster,
    Replica,
    Version,
    Incarnation,
    Key,
    Protocol,
    Timeout,
    Idle,
    NotLinked,
}

impl Code {
    const ALL: [Self; 11] = [
        Self::Shutdown,
        Self::Superseded,
        Self::Cluster,
        Self::Replica,
        Self::Version,
        Self::Incarnation,
        Self::Key,
        Self::Protocol,
        Self::Timeout,
        Self::Idle,
        Self::NotLinked,
    ];

    pub(crate) fn number(self) -> VarInt {
        VarInt::from_u32(match self {
            Self::Shutdown => 1,
            Self::Superseded => 2,
            Self::Cluster => 3,
            Self::Replica => 4,
            Self::Version => 5,
            Self::Incarnation => 6,
            Self::Key => 7,
            Self::Protocol => 8,
            Self::Timeout => 9,
            Self::Idle => 10,
            Self::NotLinked => 11,
        })
    }

    pub(crate) fn parse(number: VarInt) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.number() == number)
    }

    /// Whether it says that the two sides do not fit, which people must hear of.
    pub(crate) fn is_refusal(self) -> bool {
        match self {
            Self::Cluster
            | Self::Replica
            | Self::Version
            | Self::Incarnation
            | Self::Key
            | Self::Protocol
            | Self::Timeout => true,
            Self::Shutdown | Self::Superseded | Self::Idle | Self::NotLinked => false,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    /// p42: releases that speak a version in common link, at the newest such version; others say why not.
    #[test]
    fn p42_a_link_speaks_the_newest_version_that_both_sides_speak() {
        let versions = |oldest, newest| Versions { oldest, newest };
        let agree = |ours: Versions, theirs: Versions| {
            let agreed = ours.agree(theirs);
            assert_eq!(agreed, theirs.agree(ours), "both sides come to the same");
            agreed
        };
        assert_eq!(agree(SPOKEN, SPOKEN), Some(VERSION));
        assert_eq!(agree(versions(1, 1), versions(1, 3)), Some(1));
        assert_eq!(agree(versions(2, 4), versions(1, 3)), Some(3));
        assert_eq!(agree(versions(2, 3), versions(1, 1)), None);
        assert_eq!(agree(versions(4, 6), versions(1, 3)), None);
    }

    #[test]
    fn a_hello_survives_its_encoding_and_an_older_one_speaks_one_version() {
        let hello = Hello {
            versions: Versions { oldest: 3, newest: 9 },
            replica: ReplicaId::new(2),
            frame_max: 4096,
            features: 5,
            cluster: ClusterId::new(7),
            incarnation: Incarnation::new(1, 2),
        };
        let mut bytes = hello.encode(Greeting::Hello).split_off(HEADER_LEN);
        assert_eq!(Hello::decode(&bytes), Ok(hello));
        // A later release may say more.
        bytes.extend([1, 2, 3]);
        assert_eq!(Hello::decode(&bytes), Ok(hello));
        bytes[HELLO_LEN - 8..].fill(0);
        let single = Versions { oldest: 9, newest: 9 };
        assert_eq!(Hello::decode(&bytes).unwrap().versions, single);
    }
}
