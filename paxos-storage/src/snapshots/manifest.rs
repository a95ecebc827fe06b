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
use paxos_core::codec::{decode_membership, encode_membership};
use paxos_core::ids::{ClusterId, GroupId, LogClock, ReplicaId, Slot};
use paxos_core::snapshot::{Governs, ImageDigest, SnapshotMeta};

use crate::layout::Owner;

/// The version of everything in the directory of snapshots.
pub(super) const VERSION: u16 = 1;
/// No manifest is longer: a few memberships, each far below a mebibyte.
pub(super) const MANIFEST_BYTES_MAX: usize = 16 << 20;

const MAGIC: [u8; 8] = *b"PAXOSSNP";
const FIXED_LEN: usize = 92;
/// Before each membership: the first slot that it governs, and its length.
const GOVERNS_LEN: usize = 12;

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
    /// The bytes of its file. `None` if its memberships are too long to be read again, or none.
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        let meta = &self.meta;
        let mut out = Vec::with_capacity(1024);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&self.owner.replica.number().to_le_bytes());
        out.extend_from_slice(&self.block_bytes.to_le_bytes());
        out.extend_from_slice(&self.owner.cluster.bits().to_le_bytes());
        out.extend_from_slice(&meta.group.number().to_le_bytes());
        out.extend_from_slice(&meta.slot.number().to_le_bytes());
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&meta.clock.millis().to_le_bytes());
        out.extend_from_slice(&meta.bytes.to_le_bytes());
        out.extend_from_slice(&meta.digest.0.to_le_bytes());
        out.extend_from_slice(&u32::try_from(meta.governs.len()).ok()?.to_le_bytes());
        for governs in &meta.governs {
            let membership = encode_membership(&governs.membership);
            out.extend_from_slice(&governs.from.number().to_le_bytes());
            out.extend_from_slice(&u32::try_from(membership.len()).ok()?.to_le_bytes());
            out.extend_from_slice(&membership);
        }
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        let readable = out.len() <= MANIFEST_BYTES_MAX && governs_in_order(&meta.governs);
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
        let group = GroupId::new(rest.get_u64_le());
        let slot = Slot::new(rest.get_u64_le());
        let number = rest.get_u64_le();
        let clock = LogClock::from_millis(rest.get_u64_le());
        let bytes = rest.get_u64_le();
        let digest = ImageDigest(rest.get_u128_le());
        let governs = take_governs(rest)?;
        if !super::block_bytes_fit(block_bytes) {
            return Err(damaged("it names blocks of an impossible length"));
        }
        let meta = SnapshotMeta { group, slot, clock, governs, bytes, digest };
        Ok(Self { owner: Owner { cluster, replica }, number, block_bytes, meta })
    }

    pub(super) fn name(&self, state: State) -> Name {
        Name::Manifest { state, at: self.at() }
    }

    pub(super) fn at(&self) -> At {
        At { group: self.meta.group, slot: self.meta.slot, number: self.number }
    }
}

fn take_governs(mut rest: &[u8]) -> Result<Vec<Governs>, ManifestError> {
    let damaged = |why: &str| ManifestError::Damaged(why.to_owned());
    let count = rest.get_u32_le() as usize;
    if count > rest.len() / GOVERNS_LEN {
        return Err(damaged("it ends within its memberships"));
    }
    let mut governs = Vec::with_capacity(count);
    for _ in 0..count {
        let (Ok(from), Ok(len)) = (rest.try_get_u64_le(), rest.try_get_u32_le()) else {
            return Err(damaged("it ends within its memberships"));
        };
        let Some((membership, after)) = rest.split_at_checked(len as usize) else {
            return Err(damaged("it ends within a membership"));
        };
        let membership = decode_membership(Bytes::copy_from_slice(membership))
            .map_err(|error| ManifestError::Damaged(format!("a membership: {error}")))?;
        governs.push(Governs { from: Slot::new(from), membership });
        rest = after;
    }
    if !rest.is_empty() || !governs_in_order(&governs) {
        return Err(damaged("its memberships make no sense"));
    }
    Ok(governs)
}

fn governs_in_order(governs: &[Governs]) -> bool {
    !governs.is_empty() && governs.is_sorted_by(|one, next| one.from < next.from)
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
