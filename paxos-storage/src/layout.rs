//! The bytes of the log: segment headers, records and checkpoints, as drawn in docs/format.md.
//!
//! Owns: offsets, sizes, checksums. Opens no file and keeps no state.
//! Invariants: everything is little-endian; records begin at multiples of 8; a record's checksum
//! covers all of it but the checksum, and is salted with the segment it was written for, so that
//! what an earlier use left in a recycled file is never taken for a record.
//! Source: docs/format.md; the salt is raft-engine's idea, the watermark in each record Pebble's.

use bytes::{Buf, Bytes};
use paxos_core::ballot::Ballot;
use paxos_core::codec::{decode_membership, encode_membership};
use paxos_core::ids::{ClusterId, GroupId, Incarnation, LogClock, ReplicaId, Slot};
use paxos_core::snapshot::Governs;

/// The version of everything in a data directory.
pub(crate) const VERSION: u16 = 3;
/// The bytes before the first record of a segment.
pub(crate) const SEGMENT_HEADER_LEN: u64 = 4096;
/// The bytes before a record's payload.
pub(crate) const RECORD_HEADER_LEN: usize = 64;

const SEGMENT_MAGIC: [u8; 8] = *b"PAXOSWAL";
const SEGMENT_CRC_AT: usize = SEGMENT_HEADER_LEN as usize - 4;

/// Who writes a log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Owner {
    pub(crate) cluster: ClusterId,
    pub(crate) replica: ReplicaId,
}

/// How a segment joins the one before it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Joint {
    /// There is none before: formatting made it.
    First,
    /// The one before was full and is sealed.
    Roll,
    /// A recovery stopped reading the one before at the end named here, and goes on in this one.
    Takeover,
}

/// Where the records of the segment before end.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct End {
    /// The offset after the last record.
    pub(crate) offset: u64,
    /// The number of the last record.
    pub(crate) lsn: u64,
    /// The checksum of the last record.
    pub(crate) crc: u32,
}

/// The fixed header of a segment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct SegmentHead {
    pub(crate) owner: Owner,
    /// Its place in the order of segments, from 1.
    pub(crate) sequence: u64,
    /// The life that made it. A sequence can be tried again after a crash, by another life; so
    /// the two together name a segment, and are its salt.
    pub(crate) boot: u32,
    pub(crate) joint: Joint,
    pub(crate) previous: End,
    /// Every record through this one was durable before the segment got its name.
    pub(crate) born_lsn: u64,
    /// How far it may be filled, in bytes.
    pub(crate) capacity: u64,
}

impl SegmentHead {
    /// The number of its first record.
    pub(crate) fn first_lsn(&self) -> u64 {
        self.previous.lsn + 1
    }

    /// What the checksum of each of its records starts from.
    pub(crate) fn salt(&self) -> u32 {
        let mut salt = [0; 30];
        salt[..16].copy_from_slice(&self.owner.cluster.bits().to_le_bytes());
        salt[16..18].copy_from_slice(&self.owner.replica.number().to_le_bytes());
        salt[18..26].copy_from_slice(&self.sequence.to_le_bytes());
        salt[26..].copy_from_slice(&self.boot.to_le_bytes());
        crc32c::crc32c(&salt)
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&SEGMENT_MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.push(match self.joint {
            Joint::First => 0,
            Joint::Roll => 1,
            Joint::Takeover => 2,
        });
        out.push(0);
        out.extend_from_slice(&self.owner.replica.number().to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&self.owner.cluster.bits().to_le_bytes());
        out.extend_from_slice(&self.sequence.to_le_bytes());
        out.extend_from_slice(&self.boot.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.first_lsn().to_le_bytes());
        out.extend_from_slice(&self.born_lsn.to_le_bytes());
        out.extend_from_slice(&self.previous.offset.to_le_bytes());
        out.extend_from_slice(&self.previous.lsn.to_le_bytes());
        out.extend_from_slice(&self.previous.crc.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.capacity.to_le_bytes());
        out.resize(start + SEGMENT_CRC_AT, 0);
        let crc = crc32c::crc32c(&out[start..]);
        out.extend_from_slice(&crc.to_le_bytes());
        assert_eq!(
            out.len() - start,
            SEGMENT_HEADER_LEN as usize,
            "a segment header has a fixed length"
        );
    }

    /// Reads a header, or says what is wrong with it.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let Some(bytes) = bytes.first_chunk::<{ SEGMENT_HEADER_LEN as usize }>() else {
            return Err(format!("the file ends within its header, after {} bytes", bytes.len()));
        };
        let (body, mut crc) = bytes.split_at(SEGMENT_CRC_AT);
        let (stored, computed) = (crc.get_u32_le(), crc32c::crc32c(body));
        if stored != computed {
            return Err(format!(
                "the header's checksum is {stored:08x}, its bytes give {computed:08x}"
            ));
        }
        let mut rest = body;
        if rest.copy_to_array::<8>() != SEGMENT_MAGIC {
            return Err("the header begins with something else than a segment's".to_owned());
        }
        let version = rest.get_u16_le();
        if version != VERSION {
            return Err(format!("format version {version}, this release reads {VERSION}"));
        }
        let joint = match rest.get_u8() {
            0 => Joint::First,
            1 => Joint::Roll,
            2 => Joint::Takeover,
            other => return Err(format!("the header has an unknown joint {other}")),
        };
        rest.advance(1);
        let replica = ReplicaId::new(rest.get_u16_le());
        rest.advance(2);
        let cluster = ClusterId::new(rest.get_u128_le());
        let sequence = rest.get_u64_le();
        let boot = rest.get_u32_le();
        rest.advance(4);
        let first_lsn = rest.get_u64_le();
        let born_lsn = rest.get_u64_le();
        let previous =
            End { offset: rest.get_u64_le(), lsn: rest.get_u64_le(), crc: rest.get_u32_le() };
        rest.advance(4);
        let capacity = rest.get_u64_le();
        if previous.lsn.checked_add(1) != Some(first_lsn) {
            return Err("the header's first record does not follow the one before it".to_owned());
        }
        Ok(Self {
            owner: Owner { cluster, replica },
            sequence,
            boot,
            joint,
            previous,
            born_lsn,
            capacity,
        })
    }
}

/// What a record is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// A ballot below which nothing is accepted.
    Promised,
    /// A vote: slot, ballot, value.
    Accepted,
    /// A chosen value.
    Chosen,
    /// The committed prefix.
    Committed,
    /// The trimmed prefix.
    Trimmed,
    /// The newest life of a peer.
    Peer,
    /// At the head of each segment: the life that made it, and everything but the values.
    Checkpoint,
    /// Segments below the one named hold nothing that is needed, and may be missing.
    Freed,
    /// The last record of a full segment.
    Seal,
    /// Nothing but its watermark: left by a clean close.
    Watermark,
    /// A peer refused this directory, which must not be started again.
    Refused,
    /// The membership that governs from the slot on.
    Governs,
}

impl Kind {
    const fn byte(self) -> u8 {
        match self {
            Self::Promised => 1,
            Self::Accepted => 2,
            Self::Chosen => 3,
            Self::Committed => 4,
            Self::Trimmed => 5,
            Self::Peer => 6,
            Self::Checkpoint => 7,
            Self::Freed => 8,
            Self::Seal => 9,
            Self::Watermark => 10,
            Self::Refused => 11,
            Self::Governs => 12,
        }
    }

    const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Promised,
            2 => Self::Accepted,
            3 => Self::Chosen,
            4 => Self::Committed,
            5 => Self::Trimmed,
            6 => Self::Peer,
            7 => Self::Checkpoint,
            8 => Self::Freed,
            9 => Self::Seal,
            10 => Self::Watermark,
            11 => Self::Refused,
            12 => Self::Governs,
            _ => return None,
        })
    }
}

/// The fixed part of a record, without length and checksum.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct RecordHead {
    pub(crate) kind: Kind,
    /// The kind of the value in the payload, as `paxos_core::codec::value_kind` gives it.
    pub(crate) value_kind: u8,
    pub(crate) epoch: u32,
    /// Its number: one above that of the record before.
    pub(crate) lsn: u64,
    /// Every record through this one was durable before this one was written.
    pub(crate) synced_lsn: u64,
    pub(crate) group: u64,
    /// The slot; in a Freed record the oldest segment that is still needed.
    pub(crate) slot: u64,
    pub(crate) ballot: Option<Ballot>,
    /// The life that decided this. Its nonce stands in the checkpoint of its segments.
    pub(crate) boot: u32,
}

impl RecordHead {
    /// A record about the log itself.
    pub(crate) fn of_log(kind: Kind, boot: u32) -> Self {
        Self {
            kind,
            value_kind: 0,
            epoch: 0,
            lsn: 0,
            synced_lsn: 0,
            group: 0,
            slot: 0,
            ballot: None,
            boot,
        }
    }
}

/// The bytes of a record with a payload of this length.
pub(crate) const fn record_len(payload: usize) -> usize {
    (RECORD_HEADER_LEN + payload).next_multiple_of(8)
}

/// Appends a record; returns its checksum.
pub(crate) fn put_record(out: &mut Vec<u8>, salt: u32, head: &RecordHead, payload: &[u8]) -> u32 {
    let start = out.len();
    let len = u32::try_from(payload.len()).expect("a value is far below 4 GiB");
    let (round, leader) =
        head.ballot.map_or((0, 0), |ballot| (ballot.round(), ballot.leader().number()));
    let mut bytes = [0; RECORD_HEADER_LEN];
    bytes[4..8].copy_from_slice(&len.to_le_bytes());
    bytes[8] = head.kind.byte();
    bytes[9] = head.value_kind;
    bytes[10..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[12..16].copy_from_slice(&head.epoch.to_le_bytes());
    bytes[16..24].copy_from_slice(&head.lsn.to_le_bytes());
    bytes[24..32].copy_from_slice(&head.synced_lsn.to_le_bytes());
    bytes[32..40].copy_from_slice(&head.group.to_le_bytes());
    bytes[40..48].copy_from_slice(&head.slot.to_le_bytes());
    bytes[48..56].copy_from_slice(&round.to_le_bytes());
    bytes[56..58].copy_from_slice(&leader.to_le_bytes());
    bytes[58] = u8::from(head.ballot.is_some());
    bytes[60..].copy_from_slice(&head.boot.to_le_bytes());
    out.extend_from_slice(&bytes);
    out.extend_from_slice(payload);
    out.resize(start + record_len(payload.len()), 0);
    let crc = crc32c::crc32c_append(salt, &out[start + 4..]);
    out[start..start + 4].copy_from_slice(&crc.to_le_bytes());
    crc
}

/// A record found in the bytes of a segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record<'a> {
    pub(crate) head: RecordHead,
    pub(crate) payload: &'a [u8],
    pub(crate) crc: u32,
}

impl Record<'_> {
    /// All its bytes, padding included.
    pub(crate) fn len(&self) -> usize {
        record_len(self.payload.len())
    }
}

/// How long the record that begins these bytes claims to be, if a record can begin so at all.
/// Cheap: looks at the header alone.
pub(crate) fn claimed_len(bytes: &[u8]) -> Option<usize> {
    let head = bytes.first_chunk::<RECORD_HEADER_LEN>()?;
    let plausible = head[10..12] == VERSION.to_le_bytes()
        && Kind::from_byte(head[8]).is_some()
        && head[58] <= 1
        && head[59] == 0;
    let len = (&head[4..]).get_u32_le() as usize;
    plausible.then(|| record_len(len))
}

/// The record that begins these bytes, if a whole and valid one of this segment does.
pub(crate) fn take_record(bytes: &[u8], salt: u32) -> Option<Record<'_>> {
    let len = claimed_len(bytes)?;
    let bytes = bytes.get(..len)?;
    let mut rest = bytes;
    let crc = rest.get_u32_le();
    if crc32c::crc32c_append(salt, rest) != crc {
        return None;
    }
    let payload_len = rest.get_u32_le() as usize;
    let kind = Kind::from_byte(rest.get_u8())?;
    let value_kind = rest.get_u8();
    rest.advance(2);
    let epoch = rest.get_u32_le();
    let lsn = rest.get_u64_le();
    let synced_lsn = rest.get_u64_le();
    let group = rest.get_u64_le();
    let slot = rest.get_u64_le();
    let (round, leader) = (rest.get_u64_le(), ReplicaId::new(rest.get_u16_le()));
    let ballot = (rest.get_u8() == 1).then(|| Ballot::new(round, leader));
    rest.advance(1);
    let boot = rest.get_u32_le();
    Some(Record {
        head: RecordHead { kind, value_kind, epoch, lsn, synced_lsn, group, slot, ballot, boot },
        payload: &rest[..payload_len],
        crc,
    })
}

/// The payload of a Peer or Refused record: a peer and a life.
pub(crate) fn peer_payload(peer: ReplicaId, incarnation: Incarnation) -> [u8; 16] {
    let mut payload = [0; 16];
    payload[..2].copy_from_slice(&peer.number().to_le_bytes());
    payload[8..].copy_from_slice(&incarnation.bits().to_le_bytes());
    payload
}

/// The inverse of [`peer_payload`].
pub(crate) fn take_peer(payload: &[u8]) -> Option<(ReplicaId, Incarnation)> {
    let mut payload: &[u8] = payload.first_chunk::<16>()?;
    let peer = ReplicaId::new(payload.get_u16_le());
    payload.advance(6);
    Some((peer, Incarnation::from_bits(payload.get_u64_le())))
}

/// All that a group's log says, but the values.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct GroupCheckpoint {
    pub(crate) group: GroupId,
    pub(crate) promised: Option<Ballot>,
    pub(crate) committed: Slot,
    pub(crate) trimmed: Slot,
    pub(crate) clock: LogClock,
    /// The peer that refused this directory, and the life that it remembers.
    pub(crate) refused: Option<(ReplicaId, Incarnation)>,
    pub(crate) peers: Vec<(ReplicaId, Incarnation)>,
    /// Who governs from which slot on, beside the membership that the directory was formatted with.
    pub(crate) governs: Vec<Governs>,
}

/// The payload of a Checkpoint record.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Checkpoint {
    /// The life that made the segment.
    pub(crate) incarnation: Incarnation,
    /// The oldest segment that is needed.
    pub(crate) oldest: u64,
    pub(crate) groups: Vec<GroupCheckpoint>,
}

const GROUP_LEN: usize = 52;
const PEER_LEN: usize = 10;
/// A slot, and the length of the membership that follows.
const GOVERNS_LEN: usize = 12;

impl Checkpoint {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(20 + self.groups.len() * (GROUP_LEN + 8 * PEER_LEN));
        out.extend_from_slice(&self.incarnation.bits().to_le_bytes());
        out.extend_from_slice(&self.oldest.to_le_bytes());
        out.extend_from_slice(&count(self.groups.len()));
        for group in &self.groups {
            let (round, leader) =
                group.promised.map_or((0, 0), |ballot| (ballot.round(), ballot.leader().number()));
            out.extend_from_slice(&group.group.number().to_le_bytes());
            out.extend_from_slice(&round.to_le_bytes());
            out.extend_from_slice(&leader.to_le_bytes());
            out.push(u8::from(group.promised.is_some()));
            out.push(u8::from(group.refused.is_some()));
            out.extend_from_slice(&count(group.peers.len()));
            out.extend_from_slice(&group.committed.number().to_le_bytes());
            out.extend_from_slice(&group.trimmed.number().to_le_bytes());
            out.extend_from_slice(&group.clock.millis().to_le_bytes());
            out.extend_from_slice(&count(group.governs.len()));
            for (peer, incarnation) in group.refused.iter().chain(&group.peers) {
                out.extend_from_slice(&peer.number().to_le_bytes());
                out.extend_from_slice(&incarnation.bits().to_le_bytes());
            }
            for Governs { from, membership } in &group.governs {
                let membership = encode_membership(membership);
                out.extend_from_slice(&from.number().to_le_bytes());
                out.extend_from_slice(&count(membership.len()));
                out.extend_from_slice(&membership);
            }
        }
        out
    }

    /// Reads a checkpoint. Counts are checked against the bytes that are there.
    pub(crate) fn decode(mut bytes: &[u8]) -> Option<Self> {
        let rest = &mut bytes;
        let incarnation = Incarnation::from_bits(rest.try_get_u64_le().ok()?);
        let oldest = rest.try_get_u64_le().ok()?;
        let count = rest.try_get_u32_le().ok()? as usize;
        if count > rest.len() / GROUP_LEN {
            return None;
        }
        let groups = (0..count).map(|_| take_group(rest)).collect::<Option<Vec<_>>>()?;
        rest.is_empty().then_some(Self { incarnation, oldest, groups })
    }
}

fn take_group(rest: &mut &[u8]) -> Option<GroupCheckpoint> {
    let group = GroupId::new(rest.try_get_u64_le().ok()?);
    let round = rest.try_get_u64_le().ok()?;
    let leader = ReplicaId::new(rest.try_get_u16_le().ok()?);
    let promised = take_flag(rest)?.then(|| Ballot::new(round, leader));
    let is_refused = take_flag(rest)?;
    let peers = rest.try_get_u32_le().ok()? as usize;
    let committed = Slot::new(rest.try_get_u64_le().ok()?);
    let trimmed = Slot::new(rest.try_get_u64_le().ok()?);
    let clock = LogClock::from_millis(rest.try_get_u64_le().ok()?);
    let governs = rest.try_get_u32_le().ok()? as usize;
    if peers + usize::from(is_refused) > rest.len() / PEER_LEN || governs > rest.len() / GOVERNS_LEN
    {
        return None;
    }
    let mut life =
        || (ReplicaId::new(rest.get_u16_le()), Incarnation::from_bits(rest.get_u64_le()));
    let refused = is_refused.then(&mut life);
    let peers = (0..peers).map(|_| life()).collect();
    let governs = (0..governs).map(|_| take_governs(rest)).collect::<Option<_>>()?;
    Some(GroupCheckpoint { group, promised, committed, trimmed, clock, refused, peers, governs })
}

fn take_governs(rest: &mut &[u8]) -> Option<Governs> {
    let from = Slot::new(rest.try_get_u64_le().ok()?);
    let len = rest.try_get_u32_le().ok()? as usize;
    let (membership, after) = rest.split_at_checked(len)?;
    *rest = after;
    let membership = decode_membership(Bytes::copy_from_slice(membership)).ok()?;
    Some(Governs { from, membership })
}

fn take_flag(rest: &mut &[u8]) -> Option<bool> {
    match rest.try_get_u8().ok()? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

fn count(len: usize) -> [u8; 4] {
    u32::try_from(len).expect("groups and peers are bounded far below 4 Gi").to_le_bytes()
}

/// Takes a fixed number of bytes from the front of a slice.
trait CopyToArray {
    fn copy_to_array<const N: usize>(&mut self) -> [u8; N];
}

impl CopyToArray for &[u8] {
    fn copy_to_array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        self.copy_to_slice(&mut array);
        array
    }
}
