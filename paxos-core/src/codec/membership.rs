//! The bytes of a membership, the same in messages, in the log and in a directory's first record.
//!
//! Owns: their layout, drawn in docs/format.md. What is read is checked as a whole.

use core::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use super::{DecodeError, Reader, len_u16};
use crate::ids::{Epoch, ReplicaId};
use crate::membership::{Joining, KeyPin, LeaseTerms, Member, Membership, MembershipError};
use crate::quorum::{QuorumRule, VoterSet};

/// The bytes of an observer that is to vote: its id, whether it replaces a voter, and which.
const JOINING_LEN: usize = 5;

/// The bytes of a membership.
pub fn encode_membership(membership: &Membership) -> Bytes {
    let mut head = BytesMut::with_capacity(membership_len(membership));
    put_membership(&mut head, membership);
    head.freeze()
}

pub(crate) fn membership_len(membership: &Membership) -> usize {
    let rule = match membership.quorums().rule() {
        QuorumRule::Majority => 0,
        QuorumRule::Counts { .. } => 4,
        QuorumRule::Weights { weights, .. } => 8 + 2 * weights.len(),
        QuorumRule::Sets { prepare, accept } => 2 + 4 * (prepare.len() + accept.len()),
    };
    let members: usize = membership
        .members()
        .map(|member| {
            let addresses: usize = member.addresses.iter().map(|address| 2 + address.len()).sum();
            4 + addresses + member.keys.len() * size_of::<KeyPin>()
        })
        .sum();
    let lease = membership.lease().map_or(0, |_| 12);
    15 + rule + lease + JOINING_LEN * membership.joining().len() + members
}

/// The kind of the rule, and what it says.
pub(crate) fn put_rule(out: &mut BytesMut, rule: &QuorumRule) {
    match rule {
        QuorumRule::Majority => out.put_u8(0),
        QuorumRule::Counts { prepare, accept } => {
            out.put_u8(1);
            out.put_u16_le(*prepare);
            out.put_u16_le(*accept);
        }
        QuorumRule::Weights { weights, prepare, accept } => {
            out.put_u8(2);
            out.put_u32_le(*prepare);
            out.put_u32_le(*accept);
            for weight in weights {
                out.put_u16_le(*weight);
            }
        }
        QuorumRule::Sets { prepare, accept } => {
            out.put_u8(3);
            for sets in [prepare, accept] {
                out.put_u8(u8::try_from(sets.len()).expect("bounded by QUORUM_SETS_MAX"));
            }
            for set in prepare.iter().chain(accept) {
                out.put_u32_le(set.bits());
            }
        }
    }
}

/// Whether there are leases, and their terms.
pub(crate) fn put_lease(out: &mut BytesMut, lease: Option<LeaseTerms>) {
    out.put_u8(u8::from(lease.is_some()));
    if let Some(terms) = lease {
        let nanos = terms.duration().as_nanos();
        out.put_u64_le(u64::try_from(nanos).expect("a lease is a minute at most"));
        out.put_u32_le(terms.drift_ppm());
    }
}

pub(super) fn put_membership(out: &mut BytesMut, membership: &Membership) {
    out.put_u32_le(membership.epoch().number());
    out.put_u32_le(membership.window());
    out.put_u16_le(len_u16(membership.voters().len()));
    out.put_u16_le(len_u16(membership.observers().len()));
    put_rule(out, membership.quorums().rule());
    put_lease(out, membership.lease());
    out.put_u8(u8::try_from(membership.joining().len()).expect("bounded by OBSERVERS_MAX"));
    for joining in membership.joining() {
        out.put_u16_le(joining.id.number());
        out.put_u8(u8::from(joining.replaces.is_some()));
        out.put_u16_le(joining.replaces.map_or(0, ReplicaId::number));
    }
    for member in membership.members() {
        out.put_u16_le(member.id.number());
        out.put_u8(u8::try_from(member.addresses.len()).expect("bounded by ADDRESSES_MAX"));
        out.put_u8(u8::try_from(member.keys.len()).expect("bounded by ADDRESSES_MAX"));
        for address in &member.addresses {
            out.put_u16_le(len_u16(address.len()));
            out.put_slice(address.as_bytes());
        }
        for key in &member.keys {
            out.put_slice(key);
        }
    }
}

/// Reads a membership.
pub fn decode_membership(bytes: Bytes) -> Result<Membership, DecodeError> {
    let mut reader = Reader { rest: bytes };
    let epoch = Epoch::new(reader.u32()?);
    let window = reader.u32()?;
    let (voters, observers) = (usize::from(reader.u16()?), usize::from(reader.u16()?));
    let rule = match reader.u8()? {
        0 => QuorumRule::Majority,
        1 => QuorumRule::Counts { prepare: reader.u16()?, accept: reader.u16()? },
        2 => {
            let (prepare, accept) = (reader.u32()?, reader.u32()?);
            if voters > reader.rest.len() / 2 {
                return Err(DecodeError::Truncated);
            }
            let weights = (0..voters).map(|_| reader.u16()).collect::<Result<_, _>>()?;
            QuorumRule::Weights { weights, prepare, accept }
        }
        3 => decode_sets(&mut reader)?,
        kind => return Err(DecodeError::Kind(kind)),
    };
    let lease = match reader.u8()? {
        0 => None,
        1 => {
            let (nanos, drift_ppm) = (reader.u64()?, reader.u32()?);
            let terms = LeaseTerms::new(Duration::from_nanos(nanos), drift_ppm);
            Some(terms.ok_or(DecodeError::Field("lease"))?)
        }
        _ => return Err(DecodeError::Field("lease")),
    };
    let joining = reader.u8()?;
    let joining =
        (0..joining).map(|_| decode_joining(&mut reader)).collect::<Result<Vec<_>, _>>()?;
    if voters + observers > reader.rest.len() / 4 {
        return Err(DecodeError::Truncated);
    }
    let mut members = |count: usize| -> Result<Vec<Member>, DecodeError> {
        (0..count).map(|_| decode_member(&mut reader)).collect()
    };
    let voters = members(voters)?;
    let observers = members(observers)?;
    reader.end()?;
    let sorted = |list: &[Member]| list.windows(2).all(|pair| pair[0].id < pair[1].id);
    if !sorted(&voters) || !sorted(&observers) {
        return Err(DecodeError::Field("members"));
    }
    let membership = Membership::new(epoch, voters, observers, rule, window);
    let membership = membership.map_err(|error| match error {
        MembershipError::Quorum { .. } => DecodeError::Field("quorums"),
        MembershipError::Window(_) => DecodeError::Field("window"),
        MembershipError::Address(_) => DecodeError::Field("address"),
        MembershipError::Duplicate(_) | MembershipError::TooMany => DecodeError::Field("members"),
    })?;
    let membership = membership.with_joining(joining.iter().copied());
    if membership.joining() != joining {
        return Err(DecodeError::Field("joining"));
    }
    Ok(match lease {
        Some(terms) => membership.with_lease(terms),
        None => membership,
    })
}

fn decode_joining(reader: &mut Reader) -> Result<Joining, DecodeError> {
    let id = reader.replica()?;
    let replaces = match (reader.u8()?, reader.replica()?) {
        (0, none) if none.number() == 0 => None,
        (1, old) => Some(old),
        _ => return Err(DecodeError::Field("joining")),
    };
    Ok(Joining { id, replaces })
}

/// Explicit quorums, each kind in rising order, as they are written.
fn decode_sets(reader: &mut Reader) -> Result<QuorumRule, DecodeError> {
    let (prepare, accept) = (reader.u8()?, reader.u8()?);
    let mut sets = |count: u8| -> Result<Vec<VoterSet>, DecodeError> {
        let one = |_| VoterSet::from_bits(reader.u32()?).ok_or(DecodeError::Field("quorums"));
        let sets: Vec<VoterSet> = (0..count).map(one).collect::<Result<_, _>>()?;
        if sets.is_sorted() { Ok(sets) } else { Err(DecodeError::Field("quorums")) }
    };
    Ok(QuorumRule::Sets { prepare: sets(prepare)?, accept: sets(accept)? })
}

fn decode_member(reader: &mut Reader) -> Result<Member, DecodeError> {
    let id = reader.replica()?;
    let (addresses, keys) = (reader.u8()?, reader.u8()?);
    let addresses = (0..addresses)
        .map(|_| {
            let len = usize::from(reader.u16()?);
            let bytes = reader.take(len)?;
            let text = core::str::from_utf8(&bytes).map_err(|_| DecodeError::Field("address"))?;
            Ok(text.to_owned())
        })
        .collect::<Result<Vec<_>, DecodeError>>()?;
    let keys = (0..keys).map(|_| reader.array()).collect::<Result<Vec<KeyPin>, _>>()?;
    Ok(Member { id, addresses, keys })
}
