//! The bytes of a backup.
//!
//! Owns: the layout, drawn in docs/format-backup.md; [`Writer`], which makes a file, and [`read`].
//! Invariants: each piece's check covers the check of the piece before, so that what is missing, doubled or
//! displaced shows as what is altered does; nothing is allocated by a claimed length; a file has its name
//! only when it is whole and durable, and may be read by its owner alone.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use bytes::{Buf, BufMut, Bytes};
use paxos_core::codec::{
    decode_snapshot_meta, decode_value, encode_snapshot_meta, encode_value, value_kind,
};
use paxos_core::ids::{ClusterId, GroupId, ReplicaId, Slot};
use paxos_core::snapshot::{ImageHasher, SnapshotMeta};
use paxos_core::value::Value;

use super::{BackupError, BackupInfo, BackupOrigin, BackupSource, PIECE_BYTES, Sink, failed};
use crate::snapshot::SnapshotInfo;

/// The version of the layout.
pub(crate) const VERSION: u16 = 1;

const MAGIC: [u8; 8] = *b"PAXBAKUP";
const HEAD_LEN: usize = 64;
const PIECE_HEAD_LEN: usize = 32;
/// A value's kind, and zeros.
const VALUE_HEAD_LEN: usize = 8;

const FACTS: u8 = 1;
const IMAGE: u8 = 2;
const VALUE: u8 = 3;
const END: u8 = 4;

fn check_of(parts: &[&[u8]]) -> u128 {
    let mut hasher = ImageHasher::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finish().0
}

fn encode_head(origin: BackupOrigin) -> [u8; HEAD_LEN] {
    let mut out = Vec::with_capacity(HEAD_LEN);
    out.put_slice(&MAGIC);
    out.put_u16_le(VERSION);
    out.put_u8(match origin.source {
        BackupSource::Running => 1,
        BackupSource::Stopped => 2,
    });
    out.put_bytes(0, 1);
    out.put_u16_le(origin.replica.number());
    out.put_bytes(0, 2);
    out.put_u128_le(origin.cluster.bits());
    out.put_u64_le(origin.group.number());
    out.put_bytes(0, 8);
    let check = check_of(&[&out]);
    out.put_u128_le(check);
    out.try_into().expect("a head has its length")
}

/// Makes a backup's file.
#[derive(Debug)]
pub(crate) struct Writer {
    path: PathBuf,
    unfinished: PathBuf,
    out: Option<BufWriter<File>>,
    info: BackupInfo,
    image_bytes: u64,
    check: u128,
}

impl Writer {
    /// Begins a file beside the one that is to have this path, which must be free.
    pub(crate) fn create(path: &Path, origin: BackupOrigin) -> Result<Self, BackupError> {
        if fs::symlink_metadata(path).is_ok() {
            return Err(BackupError::Exists { path: path.to_owned() });
        }
        let unfinished = unfinished(path)?;
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&unfinished).map_err(failed("cannot create", &unfinished))?;
        let info =
            BackupInfo { origin, snapshot: None, values: 0, last: Slot::ZERO, file_bytes: 0 };
        let mut writer = Self {
            path: path.to_owned(),
            unfinished,
            out: Some(BufWriter::with_capacity(PIECE_BYTES, file)),
            info,
            image_bytes: 0,
            check: 0,
        };
        let head = encode_head(origin);
        writer.check = u128::from_le_bytes(*head.last_chunk().expect("a head ends with its check"));
        writer.put(&head)?;
        Ok(writer)
    }

    /// Writes the end, and gives the file its name. Durable when it returns.
    pub(crate) fn finish(mut self) -> Result<BackupInfo, BackupError> {
        self.piece(END, self.info.last.number(), &[])?;
        let out = self.out.take().expect("it is taken here alone");
        let file = out.into_inner().map_err(io::IntoInnerError::into_error);
        let synced = file.and_then(|file| file.sync_all());
        synced.map_err(failed("cannot write", &self.unfinished))?;
        if fs::symlink_metadata(&self.path).is_ok() {
            return Err(BackupError::Exists { path: self.path.clone() });
        }
        fs::rename(&self.unfinished, &self.path).map_err(failed("cannot name", &self.path))?;
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        let synced = File::open(parent).and_then(|parent| parent.sync_all());
        synced.map_err(failed("cannot sync", parent))?;
        Ok(self.info)
    }

    fn piece(&mut self, kind: u8, at: u64, payload: &[u8]) -> Result<(), BackupError> {
        let mut head = Vec::with_capacity(PIECE_HEAD_LEN);
        head.put_u8(kind);
        head.put_bytes(0, 3);
        head.put_u32_le(u32::try_from(payload.len()).expect("a value is far below 4 GiB"));
        head.put_u64_le(at);
        self.check = check_of(&[&self.check.to_le_bytes(), &head, payload]);
        head.put_u128_le(self.check);
        self.put(&head)?;
        self.put(payload)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), BackupError> {
        let out = self.out.as_mut().expect("it is taken at the end alone");
        out.write_all(bytes).map_err(failed("cannot write", &self.unfinished))?;
        self.info.file_bytes += bytes.len() as u64;
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Gone already where it got its name; what cannot be removed is written over by the next attempt.
        let _removed = fs::remove_file(&self.unfinished);
    }
}

impl Sink for Writer {
    fn facts(&mut self, meta: &SnapshotMeta) -> Result<(), BackupError> {
        (self.info.snapshot, self.info.last) = (Some(SnapshotInfo::of(meta)), meta.slot);
        self.piece(FACTS, 0, &encode_snapshot_meta(meta))
    }

    fn image(&mut self, bytes: &[u8]) -> Result<(), BackupError> {
        for piece in bytes.chunks(PIECE_BYTES) {
            self.piece(IMAGE, self.image_bytes, piece)?;
            self.image_bytes += piece.len() as u64;
        }
        Ok(())
    }

    fn image_end(&mut self) -> Result<(), BackupError> {
        Ok(())
    }

    fn value(&mut self, slot: Slot, value: Value) -> Result<(), BackupError> {
        let encoded = encode_value(&value);
        let mut payload = Vec::with_capacity(VALUE_HEAD_LEN + encoded.len());
        payload.put_u8(value_kind(&value));
        payload.put_bytes(0, VALUE_HEAD_LEN - 1);
        payload.put_slice(&encoded);
        self.piece(VALUE, slot.number(), &payload)?;
        self.info.values += 1;
        self.info.last = slot;
        Ok(())
    }
}

/// A name beside the file's own.
fn unfinished(path: &Path) -> Result<PathBuf, BackupError> {
    let Some(name) = path.file_name() else {
        let source = io::Error::new(io::ErrorKind::InvalidInput, "it is no name for a file");
        return Err(failed("cannot create", path)(source));
    };
    let mut unfinished = std::ffi::OsString::from(".");
    unfinished.push(name);
    unfinished.push(".unfinished");
    Ok(path.with_file_name(unfinished))
}

/// What a piece is.
struct Piece {
    kind: u8,
    at: u64,
    payload: Bytes,
}

/// A file being read.
struct Reading<'a, R> {
    path: &'a Path,
    input: R,
    offset: u64,
    check: u128,
}

impl<R: Read> Reading<'_, R> {
    fn damaged(&self, why: &str) -> BackupError {
        let (path, offset) = (self.path.display(), self.offset);
        BackupError::Damaged { what: format!("{path}, before byte {offset}: {why}") }
    }

    /// The next bytes, of which there must be so many.
    fn take(&mut self, len: usize) -> Result<Bytes, BackupError> {
        let mut bytes = Vec::with_capacity(len.min(PIECE_BYTES));
        let read = (&mut self.input).take(len as u64).read_to_end(&mut bytes);
        self.offset += read.map_err(failed("cannot read", self.path))? as u64;
        if bytes.len() < len {
            return Err(self.damaged("it ends too early"));
        }
        Ok(bytes.into())
    }

    fn head(&mut self) -> Result<BackupOrigin, BackupError> {
        let bytes = self.take(HEAD_LEN)?;
        let mut head = bytes.clone();
        if head.split_to(MAGIC.len()) != MAGIC.as_slice() {
            return Err(self.damaged("it is no backup"));
        }
        let version = head.get_u16_le();
        if version != VERSION {
            return Err(BackupError::Version { path: self.path.to_owned(), version });
        }
        let source = head.get_u8();
        head.advance(1);
        let replica = ReplicaId::new(head.get_u16_le());
        head.advance(2);
        let cluster = ClusterId::new(head.get_u128_le());
        let group = GroupId::new(head.get_u64_le());
        head.advance(8);
        self.check = head.get_u128_le();
        let source = match source {
            1 => BackupSource::Running,
            2 => BackupSource::Stopped,
            _ => return Err(self.damaged("it was made of something unknown")),
        };
        let origin = BackupOrigin { source, cluster, group, replica };
        if encode_head(origin) != bytes.as_ref() {
            return Err(self.damaged("its head does not match its checksum"));
        }
        Ok(origin)
    }

    fn piece(&mut self) -> Result<Piece, BackupError> {
        let mut head = self.take(PIECE_HEAD_LEN)?;
        let fixed = head.split_to(PIECE_HEAD_LEN - 16);
        let (kind, mut rest) = (fixed[0], fixed.slice(4..));
        let len = rest.get_u32_le() as usize;
        let at = rest.get_u64_le();
        let payload = self.take(len)?;
        let check = check_of(&[&self.check.to_le_bytes(), &fixed, &payload]);
        if check != head.get_u128_le() {
            return Err(self.damaged("a piece does not match its checksum"));
        }
        self.check = check;
        Ok(Piece { kind, at, payload })
    }
}

/// Reads a backup from its first byte to its last, and gives everything in it away as it is read: whoever gets
/// it must not rely on it before this returns without an error.
pub(crate) fn read(
    path: &Path,
    input: impl Read,
    sink: &mut impl Sink,
) -> Result<BackupInfo, BackupError> {
    let mut reading = Reading { path, input, offset: 0, check: 0 };
    let origin = reading.head()?;
    let mut piece = reading.piece()?;
    let (mut snapshot, mut last) = (None, Slot::ZERO);
    if piece.kind == FACTS {
        let meta = decode_snapshot_meta(piece.payload)
            .map_err(|error| reading.damaged(&format!("the facts of its snapshot: {error}")))?;
        (snapshot, last) = (Some(SnapshotInfo::of(&meta)), meta.slot);
        sink.facts(&meta)?;
        let (mut at, mut hasher) = (0, ImageHasher::new());
        loop {
            piece = reading.piece()?;
            if piece.kind != IMAGE {
                break;
            }
            if piece.at != at {
                return Err(reading.damaged("its image has a gap"));
            }
            at += piece.payload.len() as u64;
            hasher.update(&piece.payload);
            sink.image(&piece.payload)?;
        }
        if (at, hasher.finish()) != (meta.bytes, meta.digest) {
            return Err(reading.damaged("its image has another digest than its facts say"));
        }
        sink.image_end()?;
    }
    let mut values = 0;
    while piece.kind == VALUE {
        let slot = last.next();
        if piece.at != slot.number() || piece.payload.len() < VALUE_HEAD_LEN {
            return Err(reading.damaged("a slot is missing"));
        }
        let kind = piece.payload.split_to(VALUE_HEAD_LEN)[0];
        let value = decode_value(kind, piece.payload)
            .map_err(|error| reading.damaged(&format!("the value of {slot}: {error}")))?;
        sink.value(slot, value)?;
        (last, values) = (slot, values + 1);
        piece = reading.piece()?;
    }
    if piece.kind != END || piece.at != last.number() {
        return Err(reading.damaged("its end does not fit what is before it"));
    }
    let file_bytes = reading.offset;
    let mut more = [0];
    let read = reading.input.read(&mut more).map_err(failed("cannot read", path))?;
    if read > 0 {
        return Err(reading.damaged("it goes on behind its end"));
    }
    Ok(BackupInfo { origin, snapshot, values, last, file_bytes })
}
