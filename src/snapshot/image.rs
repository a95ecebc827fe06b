//! The bytes of a snapshot: a head, then what the state machine wrote.
//!
//! Owns: the layout, drawn in docs/format-snapshot.md; [`Head`]; [`stream`], an image read back piece by
//! piece. Knows no files and no peers.
//! Invariants: equal states at one slot have equal images on all replicas, so replies that are kept take
//! no part (S5); nothing is allocated by a claimed length; a stream that ends without an error gave
//! exactly the bytes of its snapshot.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::stream::{self, StreamExt};
use paxos_core::ids::{LogClock, Slot};
use paxos_core::port::SnapshotReader;
use paxos_core::session::{Bounds, SessionTable};
use paxos_core::snapshot::{ImageHasher, SnapshotMeta};
use paxos_core::value::Level;

use crate::machine::{SnapshotError, SnapshotStream};

const MAGIC: [u8; 8] = *b"PAXIMAGE";
/// The version of the layout.
const VERSION: u16 = 1;
/// Magic, version, level, slot, clock, and the length of the table.
const HEAD_LEN: usize = 40;
/// How much is read at once.
const PIECE_BYTES: usize = 256 << 10;

/// What an image holds beside the state machine's own bytes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Head {
    pub(crate) slot: Slot,
    pub(crate) clock: LogClock,
    /// What must be known to read the log up to here.
    pub(crate) level: Level,
    /// The table of sessions, without replies.
    pub(crate) table: Bytes,
}

impl Head {
    /// Of the state after this slot, with this table, at this level.
    pub(crate) fn of(slot: Slot, table: &SessionTable, level: Level) -> Self {
        Self { slot, clock: table.clock(), level, table: table.encode_without_replies() }
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(HEAD_LEN + self.table.len());
        out.put_slice(&MAGIC);
        out.put_u16_le(VERSION);
        out.put_u16_le(self.level.library);
        out.put_u32_le(self.level.machine);
        out.put_u64_le(self.slot.number());
        out.put_u64_le(self.clock.millis());
        out.put_u64_le(self.table.len() as u64);
        out.put_slice(&self.table);
        out.freeze()
    }

    /// The table, if it is one under these bounds.
    pub(crate) fn table(&self, bounds: Bounds) -> Result<SessionTable, SnapshotError> {
        SessionTable::decode(self.table.clone(), bounds).map_err(|error| wrong(error.to_string()))
    }
}

/// The bytes are no image of this release, or not the one that is expected.
fn wrong(what: impl Into<String>) -> SnapshotError {
    SnapshotError::Io(io::Error::new(io::ErrorKind::InvalidData, what.into()))
}

/// Bytes of an image are missing.
fn ends() -> SnapshotError {
    wrong("the image ends too early")
}

/// Takes the head off an image: what follows is the state machine's.
pub(crate) async fn open(
    mut image: SnapshotStream,
    meta: &SnapshotMeta,
) -> Result<(Head, SnapshotStream), SnapshotError> {
    let mut held = BytesMut::new();
    fill(&mut held, &mut image, HEAD_LEN).await?;
    let (level, len) = fixed_part(held.split_to(HEAD_LEN), meta)?;
    fill(&mut held, &mut image, len).await?;
    let table = held.split_to(len).freeze();
    let first = stream::iter((!held.is_empty()).then(|| Ok(held.freeze())));
    let (slot, clock) = (meta.slot, meta.clock);
    Ok((Head { slot, clock, level, table }, first.chain(image).boxed()))
}

/// What the first bytes of an image say of its level and of the length of its table, if the image is the one
/// of `meta`.
fn fixed_part(mut fixed: BytesMut, meta: &SnapshotMeta) -> Result<(Level, usize), SnapshotError> {
    let mut magic = [0; 8];
    fixed.copy_to_slice(&mut magic);
    let version = fixed.get_u16_le();
    if magic != MAGIC {
        return Err(wrong("no image of a snapshot"));
    }
    if version != VERSION {
        return Err(wrong(format!("image of version {version}, this release reads {VERSION}")));
    }
    let level = Level { library: fixed.get_u16_le(), machine: fixed.get_u32_le() };
    let slot = Slot::new(fixed.get_u64_le());
    let clock = LogClock::from_millis(fixed.get_u64_le());
    let len = fixed.get_u64_le();
    if (slot, clock) != (meta.slot, meta.clock) || len > meta.bytes {
        return Err(wrong("the image of another snapshot"));
    }
    Ok((level, len as usize))
}

/// Reads the head of an image that goes by, and keeps nothing of the rest.
pub(crate) struct HeadReader {
    meta: SnapshotMeta,
    held: BytesMut,
    /// The level, and how long the table is, once that is known; or what is wrong with the image.
    fixed: Option<Result<(Level, usize), SnapshotError>>,
}

impl HeadReader {
    /// Of the image of this snapshot.
    pub(crate) fn new(meta: &SnapshotMeta) -> Self {
        Self { meta: meta.clone(), held: BytesMut::new(), fixed: None }
    }

    /// The next bytes of the image.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) {
        if self.fixed.is_none() {
            let taken = bytes.len().min(HEAD_LEN - self.held.len());
            self.held.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if self.held.len() < HEAD_LEN {
                return;
            }
            self.fixed = Some(fixed_part(self.held.split(), &self.meta));
        }
        if let Some(Ok((_, len))) = self.fixed {
            self.held.extend_from_slice(&bytes[..bytes.len().min(len - self.held.len())]);
        }
    }

    /// The head, when the image has gone by.
    pub(crate) fn finish(self) -> Result<Head, SnapshotError> {
        let (level, len) = self.fixed.unwrap_or_else(|| Err(ends()))?;
        if self.held.len() != len {
            return Err(ends());
        }
        let (slot, clock) = (self.meta.slot, self.meta.clock);
        Ok(Head { slot, clock, level, table: self.held.freeze() })
    }
}

/// Reads until so many bytes are held.
async fn fill(
    held: &mut BytesMut,
    image: &mut SnapshotStream,
    bytes: usize,
) -> Result<(), SnapshotError> {
    while held.len() < bytes {
        let Some(piece) = image.next().await else {
            return Err(ends());
        };
        held.extend_from_slice(&piece.map_err(SnapshotError::Io)?);
    }
    Ok(())
}

/// Where an image is read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Place {
    /// By whoever polls the stream: reading waits for nothing.
    Here,
    /// On tokio's threads for work that blocks.
    Aside,
}

struct Reading {
    reader: Box<dyn SnapshotReader>,
    meta: SnapshotMeta,
    offset: u64,
    hasher: ImageHasher,
    over: bool,
}

impl Reading {
    /// The next piece; none at the end.
    fn next(&mut self) -> Option<io::Result<Bytes>> {
        if self.over {
            return None;
        }
        let left = self.meta.bytes - self.offset;
        if left == 0 {
            self.over = true;
            let whole = self.hasher.finish() == self.meta.digest;
            return (!whole).then(|| Err(io::Error::other("the image has another digest")));
        }
        let most = left.min(PIECE_BYTES as u64) as usize;
        let read = self.reader.read_at(self.offset, most);
        let piece = match read {
            Ok(piece) if (1..=most).contains(&piece.len()) => piece,
            Ok(_) => {
                self.over = true;
                return Some(Err(io::Error::other("the image ends too early")));
            }
            Err(error) => {
                self.over = true;
                return Some(Err(io::Error::other(error)));
            }
        };
        self.offset += piece.len() as u64;
        self.hasher.update(&piece);
        Some(Ok(piece))
    }
}

/// The bytes of a snapshot, in order. Ends with an error where they are not those of `meta`.
pub(crate) fn stream(
    reader: Box<dyn SnapshotReader>,
    meta: &SnapshotMeta,
    place: Place,
) -> SnapshotStream {
    let (meta, hasher) = (meta.clone(), ImageHasher::new());
    let reading = Reading { reader, meta, offset: 0, hasher, over: false };
    stream::unfold(Some(reading), move |state| async move {
        let mut reading = state?;
        if place == Place::Here {
            let piece = reading.next()?;
            return Some((piece, Some(reading)));
        }
        let read = tokio::task::spawn_blocking(move || (reading.next(), reading)).await;
        match read {
            Ok((piece, reading)) => Some((piece?, Some(reading))),
            // The task cannot be cancelled while it is waited for: it panicked, or the runtime ends.
            Err(error) => Some((Err(io::Error::other(error)), None)),
        }
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;
    use futures::FutureExt;
    use paxos_core::ids::{GroupId, ReplicaId, RequestNumber, SessionId, SessionTtl};
    use paxos_core::membership::Membership;
    use paxos_core::port::StorageError;
    use paxos_core::snapshot::Governs;

    struct Held(Bytes, usize);

    impl SnapshotReader for Held {
        fn read_at(&mut self, offset: u64, bytes_max: usize) -> Result<Bytes, StorageError> {
            let offset = (offset as usize).min(self.0.len());
            let end = self.0.len().min(offset + bytes_max.min(self.1));
            Ok(self.0.slice(offset..end))
        }
    }

    fn head() -> Head {
        let table = SessionTable::new(Bounds::default());
        Head::of(Slot::new(9), &table, Level { library: 1, machine: 7 })
    }

    fn meta_of(image: &[u8]) -> SnapshotMeta {
        let mut hasher = ImageHasher::new();
        hasher.update(image);
        let membership = Membership::voters_only([ReplicaId::new(1)]).unwrap();
        SnapshotMeta {
            group: GroupId::default(),
            slot: Slot::new(9),
            clock: LogClock::default(),
            governs: vec![Governs { from: Slot::FIRST, membership }],
            bytes: image.len() as u64,
            digest: hasher.finish(),
        }
    }

    fn read(image: &Bytes, meta: &SnapshotMeta, piece: usize) -> Result<(Head, Vec<u8>), String> {
        let reader = Box::new(Held(image.clone(), piece));
        let whole = async {
            let (head, mut rest) = open(stream(reader, meta, Place::Here), meta).await?;
            let mut bytes = Vec::new();
            while let Some(piece) = rest.next().await {
                bytes.extend_from_slice(&piece.map_err(SnapshotError::Io)?);
            }
            Ok((head, bytes))
        };
        let read: Result<_, SnapshotError> = whole.now_or_never().unwrap();
        read.map_err(|error| error.to_string())
    }

    /// S5: one replica keeps a reply, another has let it go, or was restored: their images are equal.
    #[test]
    fn s5_replies_that_are_kept_are_in_no_image() {
        let (session, request) = (SessionId::new(3), RequestNumber::new(1));
        let mut table = SessionTable::new(Bounds::default());
        table.open(session, SessionTtl::from_millis(1000));
        table.decide(session, request, request);
        let before = Head::of(Slot::new(9), &table, Level { library: 1, machine: 7 }).encode();
        table.keep(session, request, b"a reply");
        assert_eq!(
            Head::of(Slot::new(9), &table, Level { library: 1, machine: 7 }).encode(),
            before
        );
    }

    #[test]
    fn an_image_is_read_back_wherever_it_is_cut() {
        for state in [&b""[..], b"x", b"a state of some length"] {
            let image = Bytes::from([&head().encode()[..], state].concat());
            let meta = meta_of(&image);
            for piece in 1..=image.len() {
                let (read_head, read_state) = read(&image, &meta, piece).unwrap();
                assert_eq!((read_head, &read_state[..]), (head(), state));
            }
            let table = head().table(Bounds::default()).unwrap();
            assert_eq!(table, SessionTable::new(Bounds::default()));
        }
    }

    #[test]
    fn no_bit_of_an_image_may_be_another() {
        let image = Bytes::from([&head().encode()[..], b"state"].concat());
        let meta = meta_of(&image);
        for place in 0..image.len() {
            let mut other = image.to_vec();
            other[place] ^= 1 << (place % 8);
            assert!(read(&other.into(), &meta, 7).is_err(), "byte {place}");
        }
        for len in 0..image.len() {
            let words = read(&image.slice(..len), &meta, 7).unwrap_err();
            assert!(words.contains("too early"), "{words}");
        }
    }
}
