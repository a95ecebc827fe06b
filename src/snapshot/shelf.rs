//! The place of snapshots: a thread of its own, beside the journal's.
//!
//! Owns: the [`SnapshotStore`], and what is being written, received and read of it. Knows no replica.
//! Invariants: (1) the node's task never waits for it, and the log's writes never stand behind it;
//! (2) while an image is made, piece by piece, everything else goes on between two pieces; (3) an error
//! is final for the snapshot that it struck, and for nothing else.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc as std_mpsc;
use std::time::Duration;

use bytes::Bytes;
use core::fmt;
use futures::StreamExt;
use paxos_core::ids::{GroupId, ReplicaId, Slot};
use paxos_core::port::{SnapshotReader, SnapshotStore, SnapshotWriter, StorageError};
use paxos_core::snapshot::SnapshotMeta;
use tokio::sync::{mpsc, oneshot};

use super::frame::Name;
use super::image::{self, Place};
use super::send::Wanted;
use crate::error::{StartError, StopReason, panic_words};
use crate::journal::Done;
use crate::machine::SnapshotStream;

/// An image as the state machine gives it, or gets it.
pub(crate) struct Image(pub(crate) SnapshotStream);

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Image")
    }
}

/// What is to be done with the store.
#[derive(Debug)]
pub(crate) enum Errand {
    /// Write an image of this replica's own, and make it durable. Length and digest of `meta` are not
    /// known yet.
    Make { meta: SnapshotMeta, head: Bytes, image: Image },
    /// Go on with one that comes from a peer, or begin it.
    Hold(SnapshotMeta),
    /// Write the next bytes of it.
    Write(Bytes),
    /// Make it durable.
    Finish(SnapshotMeta),
    /// Let go of it.
    LetGo,
    /// Read a piece for a peer.
    Read(Wanted),
    /// Read one from its first byte to its last, for the state machine.
    Open(SnapshotMeta),
    /// Remove those below this slot.
    Remove(Slot),
    /// Give somebody one to read.
    Lend(SnapshotMeta, LendOrder),
}

/// A snapshot to be read.
pub(crate) struct Lent {
    pub(crate) meta: SnapshotMeta,
    pub(crate) reader: Box<dyn SnapshotReader>,
}

impl fmt::Debug for Lent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lent").field("meta", &self.meta).finish_non_exhaustive()
    }
}

/// Somebody waits for a snapshot to read; or for why there is none, in words.
pub(crate) type LendOrder = oneshot::Sender<Result<Lent, String>>;

/// What came of it.
#[derive(Debug)]
pub(crate) enum Brought {
    /// It is durable; or why it is not, in words.
    Made(Result<SnapshotMeta, String>),
    Began(Name, u64),
    Written(Name, u64),
    Finished(SnapshotMeta, Result<(), StorageError>),
    Failed(Name, StorageError),
    Read(Wanted, Result<Option<Bytes>, StorageError>),
    /// None if it was removed meanwhile.
    Opened(SnapshotMeta, Result<Option<Image>, StorageError>),
    Removed(Result<Vec<SnapshotMeta>, StorageError>),
}

struct Making {
    meta: SnapshotMeta,
    writer: Box<dyn SnapshotWriter>,
    image: SnapshotStream,
}

/// The store, and what is under way.
pub(crate) struct Shelf {
    store: Box<dyn SnapshotStore>,
    group: GroupId,
    place: Place,
    making: Option<Making>,
    receiving: Option<(Name, Box<dyn SnapshotWriter>)>,
    readers: BTreeMap<ReplicaId, (Name, Box<dyn SnapshotReader>)>,
}

impl Shelf {
    pub(crate) fn new(store: Box<dyn SnapshotStore>, group: GroupId, place: Place) -> Self {
        let readers = BTreeMap::new();
        Self { store, group, place, making: None, receiving: None, readers }
    }

    /// Does one thing.
    pub(crate) fn work(&mut self, errand: Errand) -> Option<Brought> {
        match errand {
            Errand::Make { meta, head, image } => match self.begin(meta, &head, image.0) {
                Ok(making) => {
                    self.making = Some(making);
                    None
                }
                Err(error) => Some(Brought::Made(Err(error.to_string()))),
            },
            Errand::Hold(meta) => {
                let name = Name::of(&meta);
                // The one before is let go of first: a store keeps one of them.
                self.receiving = None;
                Some(match self.store.receive(&meta) {
                    Ok(writer) => {
                        let held = writer.held();
                        self.receiving = Some((name, writer));
                        Brought::Began(name, held)
                    }
                    Err(error) => Brought::Failed(name, error),
                })
            }
            Errand::Write(bytes) => {
                // One that failed has been let go of, and what was on its way to it is of no use.
                let (name, writer) = self.receiving.as_mut()?;
                let name = *name;
                Some(match writer.write(&bytes) {
                    Ok(()) => Brought::Written(name, writer.held()),
                    Err(error) => {
                        self.receiving = None;
                        Brought::Failed(name, error)
                    }
                })
            }
            Errand::Finish(meta) => {
                let (_, writer) = self.receiving.take()?;
                let result = writer.finish(&meta);
                Some(Brought::Finished(meta, result))
            }
            Errand::LetGo => {
                self.receiving = None;
                None
            }
            Errand::Read(wanted) => {
                let bytes = self.read(&wanted);
                Some(Brought::Read(wanted, bytes))
            }
            Errand::Open(meta) => {
                let opened = self.store.open(&meta);
                let opened = opened.map(|reader| {
                    reader.map(|reader| Image(image::stream(reader, &meta, self.place)))
                });
                Some(Brought::Opened(meta, opened))
            }
            Errand::Remove(below) => Some(Brought::Removed(self.remove(below))),
            Errand::Lend(meta, order) => {
                let lent = match self.store.open(&meta) {
                    Ok(Some(reader)) => Ok(Lent { meta, reader }),
                    Ok(None) => Err("it was removed meanwhile".to_owned()),
                    Err(error) => Err(error.to_string()),
                };
                // Whoever is gone does not mind.
                let _ = order.send(lent);
                None
            }
        }
    }

    fn begin(
        &mut self,
        meta: SnapshotMeta,
        head: &[u8],
        image: SnapshotStream,
    ) -> Result<Making, StorageError> {
        let mut writer = self.store.create(meta.group)?;
        writer.write(head)?;
        Ok(Making { meta, writer, image })
    }

    fn read(&mut self, wanted: &Wanted) -> Result<Option<Bytes>, StorageError> {
        let name = Name::of(&wanted.meta);
        let open = self.readers.get(&wanted.to).is_some_and(|(open, _)| *open == name);
        if !open {
            self.readers.remove(&wanted.to);
            let Some(reader) = self.store.open(&wanted.meta)? else { return Ok(None) };
            self.readers.insert(wanted.to, (name, reader));
        }
        let Some((_, reader)) = self.readers.get_mut(&wanted.to) else { return Ok(None) };
        let bytes = reader.read_at(wanted.offset, wanted.len);
        let end = wanted.offset + wanted.len as u64 >= wanted.meta.bytes;
        if end || bytes.is_err() {
            // What is open takes space on the disk even when it is removed.
            self.readers.remove(&wanted.to);
        }
        bytes.map(Some)
    }

    fn remove(&mut self, below: Slot) -> Result<Vec<SnapshotMeta>, StorageError> {
        self.store.remove_below(self.group, below)?;
        self.readers.retain(|_, (name, _)| name.slot >= below);
        self.store.list(self.group)
    }

    /// Whether an image is being made.
    pub(crate) fn is_making(&self) -> bool {
        self.making.is_some()
    }

    /// Writes one more piece of the image that is being made. `wait` is given the state machine's
    /// stream, and brings its next piece.
    pub(crate) fn step(
        &mut self,
        wait: impl FnOnce(&mut SnapshotStream) -> Option<std::io::Result<Bytes>>,
    ) -> Option<Brought> {
        let making = self.making.as_mut()?;
        let written = match wait(&mut making.image) {
            Some(Ok(piece)) => making.writer.write(&piece).map_err(|error| error.to_string()),
            Some(Err(error)) => Err(format!("the state machine's image: {error}")),
            None => {
                let Making { mut meta, writer, .. } = self.making.take()?;
                (meta.bytes, meta.digest) = writer.image();
                let made = writer.finish(&meta).map(|()| meta);
                return Some(Brought::Made(made.map_err(|error| error.to_string())));
            }
        };
        let error = written.err()?;
        // Dropped unfinished, it is no snapshot.
        self.making = None;
        Some(Brought::Made(Err(error)))
    }
}

/// The thread's queue, and what resolves when it has ended.
pub(crate) type Started = (std_mpsc::Sender<Errand>, oneshot::Receiver<()>);

/// Starts the thread. It ends when its queue closes.
pub(crate) fn start(
    store: Box<dyn SnapshotStore>,
    group: GroupId,
    done: mpsc::UnboundedSender<Done>,
) -> Result<Started, StartError> {
    let (errands, queue) = std_mpsc::channel();
    let (ended, end) = oneshot::channel();
    // The state machine's stream may wait for the runtime.
    let runtime = tokio::runtime::Handle::current();
    let body = move || {
        let shelf = Shelf::new(store, group, Place::Aside);
        let served = catch_unwind(AssertUnwindSafe(|| serve(shelf, &queue, &done, &runtime)));
        if let Err(panic) = served {
            let what = format!("the snapshots: {}", panic_words(panic.as_ref()));
            // When the node's task is gone nobody minds.
            let _ = done.send(Done::Failed(StopReason::Panicked(what)));
        }
        // The receiver may be gone: nobody waits for the end.
        let _ = ended.send(());
    };
    std::thread::Builder::new()
        .name("paxos-snapshots".to_owned())
        .spawn(body)
        .map_err(StartError::Thread)?;
    Ok((errands, end))
}

/// A stream that gives nothing for so long lets the errands of others pass.
const STREAM_PATIENCE: Duration = Duration::from_millis(20);

fn serve(
    mut shelf: Shelf,
    queue: &std_mpsc::Receiver<Errand>,
    done: &mpsc::UnboundedSender<Done>,
    runtime: &tokio::runtime::Handle,
) {
    // When the node's task is gone nobody minds.
    let tell = |brought: Option<Brought>| {
        if let Some(brought) = brought {
            let _ = done.send(Done::Brought(brought));
        }
    };
    loop {
        let errand = if shelf.is_making() {
            match queue.try_recv() {
                Ok(errand) => Some(errand),
                Err(std_mpsc::TryRecvError::Empty) => None,
                Err(std_mpsc::TryRecvError::Disconnected) => return,
            }
        } else {
            match queue.recv() {
                Ok(errand) => Some(errand),
                Err(std_mpsc::RecvError) => return,
            }
        };
        if let Some(errand) = errand {
            tell(shelf.work(errand));
            continue;
        }
        tell(shelf.step(|image| {
            let next = async { tokio::time::timeout(STREAM_PATIENCE, image.next()).await };
            runtime.block_on(next).unwrap_or_else(|_| Some(Ok(Bytes::new())))
        }));
    }
}
