//! What stands beside an image: whose it is, what it includes, and in which file its blocks are.
//!
//! Owns: [`Manifest`], its bytes, and the names of all files in the directory of snapshots. Touches
//! no file.
//! Invariants: a manifest is written once and never changed; its file's name says the same slot and
//! the same number as its bytes; the number is the salt of the image's blocks, and no two images of
//! a directory have the same one.
//! Source: docs/format-snapshot-store.md; Low-Water Mark.

use std::fmt;

use bytes::{Buf, Bytes};
use paxos_core::codec::{decode_snapshot_meta, encode_snapshot_meta};
use paxos_core::ids::{ClusterId, GroupId, ReplicaId, Slot};
use paxos_core::snapshot::SnapshotMeta;

use super::block_bytes_fit;
use crate::layout::Owner;

/// The version of everything in the directory of snapshots.
pub(super) const VERSION: u16 = 1;
/// No manifest is longer: a few memberships, each far below a mebibyte.
pub(super) const MANIFEST_BYTES_MAX: usize = 16 << 20;

const MAGIC: [u8; 8] = *b"PAXOSSNP";
const FIXED_LEN: usize = 48;

/// A snapshot as its files say it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Manifest {
    /// Whose directory it was written into.
    pub(super) owner: Owner,
    /// Names the file of the image, and salts its blocks.
    pub(super) number: u64,
    /// The length of a block of the image, its header included.
    pub(super) block_bytes: u32,
    pub(super) meta: SnapshotMeta,
}

/// Why a manifest cannot be used.
#[derive(Debug)]
pub(super) enum ManifestError {
    /// Another format version.
    Version(u16),
    Damaged(String),
}

impl Manifest {
    /// The bytes of its file. `None` if they could not be read again: the facts make no sense, or
    /// have too many bytes.
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        let facts = encode_snapshot_meta(&self.meta);
        let mut out = Vec::with_capacity(FIXED_LEN + facts.len() + 4);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&self.owner.replica.number().to_le_bytes());
        out.extend_from_slice(&self.block_bytes.to_le_bytes());
        out.extend_from_slice(&self.owner.cluster.bits().to_le_bytes());
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&u64::try_from(facts.len()).ok()?.to_le_bytes());
        out.extend_from_slice(&facts);
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        let readable = out.len() <= MANIFEST_BYTES_MAX && decode_snapshot_meta(facts).is_ok();
        readable.then_some(out)
    }

    /// Reads the bytes of a file. Lengths are checked against the bytes that are there.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        let damaged = |why: &str| ManifestError::Damaged(why.to_owned());
        let body = bytes.len().checked_sub(4).filter(|len| *len >= FIXED_LEN);
        let Some((body, mut crc)) = body.map(|len| bytes.split_at(len)) else {
            return Err(damaged("it ends too early"));
        };
        let (stored, computed) = (crc.get_u32_le(), crc32c::crc32c(body));
        if stored != computed {
            return Err(ManifestError::Damaged(format!(
                "its checksum is {stored:08x}, its bytes give {computed:08x}"
            )));
        }
        let (magic, mut rest) = body.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(damaged("it begins with something else"));
        }
        let version = rest.get_u16_le();
        if version != VERSION {
            return Err(ManifestError::Version(version));
        }
        let replica = ReplicaId::new(rest.get_u16_le());
        let block_bytes = rest.get_u32_le();
        let cluster = ClusterId::new(rest.get_u128_le());
        let number = rest.get_u64_le();
        let len = rest.get_u64_le();
        if len != rest.len() as u64 || !block_bytes_fit(block_bytes) {
            return Err(damaged("its lengths are wrong"));
        }
        let meta = decode_snapshot_meta(Bytes::copy_from_slice(rest))
            .map_err(|error| ManifestError::Damaged(format!("its facts: {error}")))?;
        Ok(Self { owner: Owner { cluster, replica }, number, block_bytes, meta })
    }

    pub(super) fn name(&self, state: State) -> Name {
        Name::Manifest { state, at: self.at() }
    }

    pub(super) fn at(&self) -> At {
        At { group: self.meta.group, slot: self.meta.slot, number: self.number }
    }
}

/// What a manifest's file says of the image by the end of its name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum State {
    /// It is being written, and its image is whole.
    Making,
    /// Its image comes from a peer, and is not whole.
    Receiving,
    /// It is a snapshot.
    Finished,
    /// It was one, and is damaged: kept for people.
    Damaged,
}

impl State {
    const fn suffix(self) -> &'static str {
        match self {
            Self::Making => "making",
            Self::Receiving => "receiving",
            Self::Finished => "manifest",
            Self::Damaged => "damaged",
        }
    }
}

/// Which snapshot a file belongs to. Ordered by age.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct At {
    pub(super) group: GroupId,
    pub(super) slot: Slot,
    pub(super) number: u64,
}

/// The name of a file in the directory of snapshots.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Name {
    Image(u64),
    Manifest { state: State, at: At },
}

impl Name {
    /// What a name says; `None` if it is none of ours.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let (stem, suffix) = name.split_once('.')?;
        let number = |digits: &str| {
            let lower = digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
            u64::from_str_radix(digits, 16).ok().filter(|_| digits.len() == 16 && lower)
        };
        if suffix == "image" {
            return Some(Self::Image(number(stem)?));
        }
        let states = [State::Making, State::Receiving, State::Finished, State::Damaged];
        let state = states.into_iter().find(|state| state.suffix() == suffix)?;
        let mut parts = stem.split('-').map(number);
        let (group, slot, image) = (parts.next()??, parts.next()??, parts.next()??);
        let at = At { group: GroupId::new(group), slot: Slot::new(slot), number: image };
        parts.next().is_none().then_some(Self::Manifest { state, at })
    }

    /// The number of the image that it is, or belongs to.
    pub(super) const fn number(self) -> u64 {
        match self {
            Self::Image(number) => number,
            Self::Manifest { at, .. } => at.number,
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image(number) => write!(f, "{number:016x}.image"),
            Self::Manifest { state, at } => write!(
                f,
                "{:016x}-{:016x}-{:016x}.{}",
                at.group.number(),
                at.slot.number(),
                at.number,
                state.suffix()
            ),
        }
    }
}
