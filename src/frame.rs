//! What nodes say to each other beside the protocol: forwarded commands and their fate, read points.
//!
//! Owns: [`HostFrame`] and its bytes. Little-endian, versioned; drawn at [`encode`].
//! Invariants: decoding never panics and never allocates by a claimed length; payloads stay slices
//! of the received buffer.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use paxos_core::ballot::Ballot;
use paxos_core::codec;
use paxos_core::ids::{GroupId, Incarnation, ReplicaId, Slot};
use paxos_core::value::{Batch, Level, Value};

use crate::machine::StateDigest;

/// The version of these frames.
const VERSION: u8 = 2;
/// Commands longer than this travel as a chunk of their own.
const CHUNK_MIN: usize = 1024;

/// Why a leader certainly did not and never will propose what was forwarded to it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Refusal {
    /// It does not lead.
    NotLeader,
    /// Too much waits there already.
    Busy,
    /// The frame exceeds the leader's batches.
    TooLarge,
    /// The leader's log has no space.
    StorageFull,
}

/// A frame of the host's channel.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum HostFrame {
    /// Commands of the sender's clients, for the leader to propose in one slot.
    Forward {
        /// The sender's life.
        origin: Incarnation,
        /// The life of the receiver that they are for: a later one must not propose them, as the
        /// earlier one may have.
        target: Incarnation,
        /// Numbers the sender's frames of this life, from 1, over all leaders.
        sequence: u64,
        /// The commands in their envelopes.
        batch: Batch,
    },
    /// They are proposed. A hint: the sender sees them applied by itself.
    Taken {
        /// The life of the receiver.
        origin: Incarnation,
        /// Which frame.
        sequence: u64,
        /// In which slot.
        slot: Slot,
        /// Under which ballot.
        ballot: Ballot,
    },
    /// The sender has reads, and asks the leader for a read point.
    AskPoint {
        /// The sender's life.
        origin: Incarnation,
        /// Numbers the attempts of that life: each is made once.
        sequence: u64,
    },
    /// A state that has applied this slot answers reads that were asked before the question.
    Point {
        /// The life of the receiver.
        origin: Incarnation,
        /// Which question.
        sequence: u64,
        /// The read point.
        slot: Slot,
    },
    /// The sender cannot name a read point.
    NoPoint {
        /// The life of the receiver.
        origin: Incarnation,
        /// Which question.
        sequence: u64,
    },
    /// What the sender's state was after a slot.
    Mark {
        /// The sender's life.
        origin: Incarnation,
        /// Which slot. Stands where others have the sequence.
        slot: Slot,
        /// The digest of its state.
        digest: StateDigest,
        /// Whether the sender has not heard the receiver's digest of that slot.
        asks: bool,
    },
    /// What the sender's release knows. One that does not know this frame drops it.
    Announce {
        /// The sender's life.
        origin: Incarnation,
        /// What is optional between nodes, one bit each. Stands where others have the sequence.
        features: u64,
        /// Up to which level it can read the log.
        known: Level,
        /// Whether the sender has not heard the receiver's.
        asks: bool,
    },
    /// They are certainly not proposed, and never will be by this life.
    Refused {
        /// The life of the receiver.
        origin: Incarnation,
        /// Which frame.
        sequence: u64,
        /// Why.
        reason: Refusal,
    },
}

/// The bytes of a frame:
///
/// ```text
/// version u8 · kind u8 · zero u16 · zero u32 · group u64 · origin u64 · sequence u64
/// kind 1 Forward: target u64 · batch (its length is the rest)
/// kind 2 Taken:   slot u64 · round u64 · leader u16
/// kind 3 Refused: reason u8
/// kind 4 AskPoint, kind 6 NoPoint: nothing more
/// kind 5 Point:   slot u64
/// kind 7 Mark:    digest u128 · asks u8 (0 or 1); the sequence is the slot
/// kind 8 Announce: library u16 · machine u32 · asks u8 (0 or 1); the sequence is the features
/// ```
pub(crate) fn encode(group: GroupId, frame: &HostFrame) -> Vec<Bytes> {
    let mut head = BytesMut::with_capacity(64);
    let (kind, origin, sequence) = match frame {
        HostFrame::Mark { origin, slot, .. } => (7, *origin, slot.number()),
        HostFrame::Announce { origin, features, .. } => (8, *origin, *features),
        HostFrame::Forward { origin, sequence, .. } => (1, *origin, *sequence),
        HostFrame::Taken { origin, sequence, .. } => (2, *origin, *sequence),
        HostFrame::Refused { origin, sequence, .. } => (3, *origin, *sequence),
        HostFrame::AskPoint { origin, sequence } => (4, *origin, *sequence),
        HostFrame::Point { origin, sequence, .. } => (5, *origin, *sequence),
        HostFrame::NoPoint { origin, sequence } => (6, *origin, *sequence),
    };
    head.put_u8(VERSION);
    head.put_u8(kind);
    head.put_bytes(0, 6);
    head.put_u64_le(group.number());
    head.put_u64_le(origin.bits());
    head.put_u64_le(sequence);
    match frame {
        HostFrame::Forward { target, batch, .. } => {
            head.put_u64_le(target.bits());
            let encoded = batch.encoded();
            if encoded.len() >= CHUNK_MIN {
                return vec![head.freeze(), encoded.clone()];
            }
            head.put_slice(encoded);
        }
        HostFrame::Taken { slot, ballot, .. } => {
            head.put_u64_le(slot.number());
            head.put_u64_le(ballot.round());
            head.put_u16_le(ballot.leader().number());
        }
        HostFrame::AskPoint { .. } | HostFrame::NoPoint { .. } => {}
        HostFrame::Point { slot, .. } => head.put_u64_le(slot.number()),
        HostFrame::Announce { known, asks, .. } => {
            head.put_u16_le(known.library);
            head.put_u32_le(known.machine);
            head.put_u8(u8::from(*asks));
        }
        HostFrame::Mark { digest, asks, .. } => {
            head.put_u128_le(digest.0);
            head.put_u8(u8::from(*asks));
        }
        HostFrame::Refused { reason, .. } => head.put_u8(match reason {
            Refusal::NotLeader => 0,
            Refusal::Busy => 1,
            Refusal::TooLarge => 2,
            Refusal::StorageFull => 3,
        }),
    }
    vec![head.freeze()]
}

/// Reads a frame; `None` if it is not one of this version and group.
pub(crate) fn decode(group: GroupId, mut bytes: Bytes) -> Option<HostFrame> {
    let rest = &mut bytes;
    let [version, kind, zeros @ ..] = take::<8>(rest)?;
    if version != VERSION || zeros != [0; 6] || u64_le(rest)? != group.number() {
        return None;
    }
    let origin = Incarnation::from_bits(u64_le(rest)?);
    let sequence = u64_le(rest)?;
    let frame = match kind {
        1 => {
            let target = Incarnation::from_bits(u64_le(rest)?);
            let batch = core::mem::take(rest);
            // The kind byte of a batch, as in messages and in the log.
            let Ok(Value::Batch(batch)) = codec::decode_value(2, batch) else {
                return None;
            };
            HostFrame::Forward { origin, target, sequence, batch }
        }
        2 => {
            let slot = Slot::new(u64_le(rest)?);
            let round = u64_le(rest)?;
            let leader = ReplicaId::new(u16::from_le_bytes(take(rest)?));
            HostFrame::Taken { origin, sequence, slot, ballot: Ballot::new(round, leader) }
        }
        3 => {
            let reason = match take::<1>(rest)? {
                [0] => Refusal::NotLeader,
                [1] => Refusal::Busy,
                [2] => Refusal::TooLarge,
                [3] => Refusal::StorageFull,
                [_] => return None,
            };
            HostFrame::Refused { origin, sequence, reason }
        }
        4 => HostFrame::AskPoint { origin, sequence },
        5 => HostFrame::Point { origin, sequence, slot: Slot::new(u64_le(rest)?) },
        6 => HostFrame::NoPoint { origin, sequence },
        7 => {
            let digest = StateDigest(u128::from_le_bytes(take(rest)?));
            HostFrame::Mark { origin, slot: Slot::new(sequence), digest, asks: flag(rest)? }
        }
        8 => {
            let library = u16::from_le_bytes(take(rest)?);
            let known = Level { library, machine: u32::from_le_bytes(take(rest)?) };
            HostFrame::Announce { origin, features: sequence, known, asks: flag(rest)? }
        }
        _ => return None,
    };
    rest.is_empty().then_some(frame)
}

fn take<const N: usize>(rest: &mut Bytes) -> Option<[u8; N]> {
    let array = *rest.first_chunk::<N>()?;
    rest.advance(N);
    Some(array)
}

fn flag(rest: &mut Bytes) -> Option<bool> {
    match take::<1>(rest)? {
        [0] => Some(false),
        [1] => Some(true),
        [_] => None,
    }
}

fn u64_le(rest: &mut Bytes) -> Option<u64> {
    take(rest).map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;
    use paxos_core::ids::{ClientId, LogClock, RequestNumber};
    use paxos_core::value::Command;

    fn frames() -> Vec<HostFrame> {
        let origin = Incarnation::new(3, 0xdead_beef);
        let command = |len| {
            Command::apply(ClientId::new(9), RequestNumber::new(4), Bytes::from(vec![7; len]))
        };
        let forward = |len| HostFrame::Forward {
            origin,
            target: Incarnation::new(1, 2),
            sequence: 77,
            batch: Batch::new(LogClock::default(), vec![command(len), command(0)]),
        };
        let mut frames = vec![
            forward(3),
            forward(5000),
            HostFrame::Taken {
                origin,
                sequence: u64::MAX,
                slot: Slot::new(12),
                ballot: Ballot::new(5, ReplicaId::new(2)),
            },
        ];
        frames.push(HostFrame::AskPoint { origin, sequence: 3 });
        frames.push(HostFrame::Point { origin, sequence: 3, slot: Slot::new(8) });
        frames.push(HostFrame::NoPoint { origin, sequence: 3 });
        for asks in [false, true] {
            let slot = Slot::new(1024);
            let digest = StateDigest(1 << 99);
            frames.push(HostFrame::Mark { origin, slot, digest, asks });
            let known = Level { library: 3, machine: 1 << 20 };
            frames.push(HostFrame::Announce { origin, features: 1 << 40 | 1, known, asks });
        }
        for reason in [Refusal::NotLeader, Refusal::Busy, Refusal::TooLarge, Refusal::StorageFull] {
            frames.push(HostFrame::Refused { origin, sequence: 1, reason });
        }
        frames
    }

    #[test]
    fn every_frame_survives_its_encoding_and_no_prefix_or_extension_does() {
        let group = GroupId::new(6);
        for frame in frames() {
            let bytes = Bytes::from(encode(group, &frame).concat());
            assert_eq!(decode(group, bytes.clone()).as_ref(), Some(&frame));
            assert_eq!(decode(GroupId::new(7), bytes.clone()), None);
            for len in 0..bytes.len() {
                assert_eq!(decode(group, bytes.slice(..len)), None, "cut at {len}");
            }
            let mut longer = bytes.to_vec();
            longer.push(0);
            assert_eq!(decode(group, longer.into()), None);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic() {
        let mut state = 1_u64;
        let good = Bytes::from(encode(GroupId::new(0), &frames()[0]).concat());
        for _ in 0..20_000 {
            let mut bytes = good.to_vec();
            for _ in 0..3 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let place = (state >> 33) as usize % bytes.len();
                bytes[place] = (state >> 24) as u8;
            }
            let _ = decode(GroupId::new(0), bytes.into());
        }
    }
}
