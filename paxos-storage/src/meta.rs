//! META: whose directory it is, and the last life that began on it.
//!
//! Owns: the file's bytes and its atomic replacement. Touches no segment.
//! Invariants: META is replaced as a whole or not at all; its existence is what "formatted" means;
//! a life is durable in it before anything of that life is written.
//! Source: docs/format.md; Generation Clock, for the counter of lives.

use std::io;
use std::path::Path;

use bytes::{Buf, Bytes};
use paxos_core::codec::{decode_membership, encode_membership};
use paxos_core::ids::{ClusterId, GroupId, Incarnation, ReplicaId};
use paxos_core::port::Format;

use crate::fs::{FileSystem, LogFile, is_full, read_up_to, sync, write_all};
use crate::layout::VERSION;

/// The file's name.
pub(crate) const META: &str = "META";
/// The name under which its replacement is written.
pub(crate) const META_TMP: &str = "META.tmp";

const MAGIC: [u8; 8] = *b"PAXOSMET";
/// Far above the largest membership.
const LEN_MAX: usize = 1 << 20;
const FIXED_LEN: usize = 56;
/// Stands for the last life where there was none; lives are counted from 1.
const NEVER_STARTED: Incarnation = Incarnation::new(0, 0);

/// The contents of META.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Meta {
    pub(crate) format: Format,
    /// The last life; `None` if the directory was never started.
    pub(crate) last: Option<Incarnation>,
    /// The newest segment that is counted on: with it missing, the log is damaged. Lags behind the
    /// newest one while that holds nothing acknowledged, and on a full disk.
    pub(crate) newest: u64,
}

/// Why META cannot be used.
#[derive(Debug)]
pub(crate) enum MetaError {
    Io(io::Error),
    /// Another format version.
    Version(u16),
    Damaged(String),
}

impl Meta {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let membership = encode_membership(&self.format.membership);
        let len = u32::try_from(membership.len()).expect("a membership is far below 4 GiB");
        let mut out = Vec::with_capacity(FIXED_LEN + membership.len() + 4);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&self.format.replica.number().to_le_bytes());
        let last = self.last.unwrap_or(NEVER_STARTED);
        out.extend_from_slice(&last.boot().to_le_bytes());
        out.extend_from_slice(&self.format.cluster.bits().to_le_bytes());
        out.extend_from_slice(&self.format.group.number().to_le_bytes());
        out.extend_from_slice(&self.newest.to_le_bytes());
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(&last.nonce().to_le_bytes());
        out.extend_from_slice(&membership);
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, MetaError> {
        let damaged = |what: &str| MetaError::Damaged(what.to_owned());
        let Some((body, mut crc)) = bytes
            .len()
            .checked_sub(4)
            .filter(|len| *len >= FIXED_LEN)
            .map(|len| bytes.split_at(len))
        else {
            return Err(damaged("it ends too early"));
        };
        let (stored, computed) = (crc.get_u32_le(), crc32c::crc32c(body));
        if stored != computed {
            return Err(MetaError::Damaged(format!(
                "its checksum is {stored:08x}, its bytes give {computed:08x}"
            )));
        }
        let (magic, mut rest) = body.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(damaged("it begins with something else"));
        }
        let version = rest.get_u16_le();
        if version != VERSION {
            return Err(MetaError::Version(version));
        }
        let replica = ReplicaId::new(rest.get_u16_le());
        let boot = rest.get_u32_le();
        let cluster = ClusterId::new(rest.get_u128_le());
        let group = GroupId::new(rest.get_u64_le());
        let newest = rest.get_u64_le();
        let len = rest.get_u32_le() as usize;
        let nonce = rest.get_u32_le();
        let last = Some(Incarnation::new(boot, nonce)).filter(|last| *last != NEVER_STARTED);
        if len != rest.len() {
            return Err(damaged("its length is wrong"));
        }
        let membership = decode_membership(Bytes::copy_from_slice(rest))
            .map_err(|error| MetaError::Damaged(format!("its membership: {error}")))?;
        Ok(Self { format: Format { cluster, group, replica, membership }, last, newest })
    }

    /// Reads META of a directory; `None` if there is none.
    pub(crate) fn read<F: FileSystem>(fs: &F, dir: &Path) -> Result<Option<Self>, MetaError> {
        let path = dir.join(META);
        if !fs.exists(&path).map_err(MetaError::Io)? {
            return Ok(None);
        }
        let file = fs.open(&path).map_err(MetaError::Io)?;
        let bytes = read_up_to(&file, 0, LEN_MAX).map_err(MetaError::Io)?;
        Self::decode(&bytes).map(Some)
    }

    /// Replaces META of a directory. Durable when it returns.
    pub(crate) fn write<F: FileSystem>(&self, fs: &F, dir: &Path) -> io::Result<()> {
        let temporary = dir.join(META_TMP);
        // Written over where it stands, it needs no room that a full disk would not give.
        let mut file =
            if fs.exists(&temporary)? { fs.open(&temporary)? } else { fs.create(&temporary)? };
        let bytes = self.encode();
        write_all(&mut file, &bytes, 0)?;
        file.set_size(bytes.len() as u64)?;
        sync(&mut file)?;
        fs.rename(&temporary, &dir.join(META))?;
        fs.sync_dir(dir)
    }

    /// Keeps room for the next replacement, which may have to be written when the disk is full. Where it
    /// is full already there is none, and that is no error.
    pub(crate) fn keep_room<F: FileSystem>(&self, fs: &F, dir: &Path) -> io::Result<()> {
        let temporary = dir.join(META_TMP);
        if fs.exists(&temporary)? {
            return Ok(());
        }
        let room = vec![0; self.encode().len()];
        let kept = fs.create(&temporary).and_then(|mut file| write_all(&mut file, &room, 0));
        match kept {
            Err(error) if is_full(&error) => Ok(()),
            kept => kept,
        }
    }
}
