//! What the members of a cluster must agree on, in six bytes that every message carries.
//!
//! Owns [`MembershipDigest`] and [`Disagreement`]. Replicas that were formatted with different first
//! memberships share a cluster's id and an epoch, and would count each other's votes by different
//! rules; the digest tells them apart, and says what they do not share. Addresses and keys are not
//! in it: they may differ from machine to machine, and no vote depends on them.
//! Bounds: other members go unnoticed once in 2^48 times, other quorums among the same members once
//! in 2^32, another window never. It guards against mistakes, not against malice.
//! Source: protocol.md §4, Q4; the hash is FNV-1a.

use core::fmt;

use bytes::{BufMut, BytesMut};

use crate::codec;
use crate::membership::Membership;

/// Who votes and who listens, by which quorums and leases, with which window. Two that are equal agree.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct MembershipDigest {
    /// Of voters and observers.
    members: u16,
    /// Of the quorum rule, the terms of leases, and the members.
    quorums: u16,
    /// The window, hidden by what the others hash to.
    window: u16,
}

/// What a peer was told of the cluster that this replica was not told.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Disagreement {
    /// Other voters or observers.
    Members,
    /// The same members, other quorums or leases.
    Quorums,
    /// The same members and quorums, another window.
    Window,
}

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Members => "was formatted with other members",
            Self::Quorums => "was formatted with another quorum rule, or other leases",
            Self::Window => "was formatted with another window of slots",
        })
    }
}

impl MembershipDigest {
    pub(crate) fn of(membership: &Membership) -> Self {
        let mut bytes = BytesMut::new();
        bytes.put_u64_le(membership.voters().len() as u64);
        for member in membership.members() {
            bytes.put_u16_le(member.id.number());
        }
        let members = hash(0xcbf2_9ce4_8422_2325, &bytes);
        bytes.clear();
        codec::put_rule(&mut bytes, membership.quorums().rule());
        codec::put_lease(&mut bytes, membership.lease());
        let quorums = hash(members, &bytes);
        let window = u16::try_from(membership.window() - 1).expect("bounded by WINDOW_MAX");
        Self {
            members: members as u16,
            quorums: quorums as u16,
            window: window ^ (quorums >> 16) as u16,
        }
    }

    /// What the other does not share; nothing if they agree.
    pub fn disagreement(self, other: Self) -> Option<Disagreement> {
        if self.members != other.members {
            Some(Disagreement::Members)
        } else if self.quorums != other.quorums {
            Some(Disagreement::Quorums)
        } else {
            (self.window != other.window).then_some(Disagreement::Window)
        }
    }

    /// As it stands in a message.
    pub fn to_bytes(self) -> [u8; 6] {
        let mut bytes = [0; 6];
        let words = [self.members, self.quorums, self.window];
        for (place, word) in bytes.chunks_exact_mut(2).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// As it was read from a message.
    pub fn from_bytes(bytes: [u8; 6]) -> Self {
        let word = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        Self { members: word(0), quorums: word(2), window: word(4) }
    }
}

/// FNV-1a over these bytes, begun where another ended, with its bits spread: the low ones of the
/// plain hash say little of the last bytes.
fn hash(begun: u64, bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = bytes.iter().fold(begun, step);
    let hash = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash ^ (hash >> 29)
}
