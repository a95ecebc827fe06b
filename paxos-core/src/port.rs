//! The ports that adapters implement: [`Storage`] and [`SnapshotStore`], [`Transport`], and for clients
//! that are not replicas [`ClientListener`], [`ClientConnector`] and [`ClientLink`].
//!
//! Owns: the contract between the core and the outside. No protocol module imports this one; the
//! host and the simulator do. An adapter depends on `paxos-core` alone.
//! Source: protocol.md §6 and §10; quinn's `AsyncUdpSocket` for the poll-shaped receive.

use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};
use std::io;
use std::path::PathBuf;

use bytes::Bytes;

use crate::durable::{Durable, WriteBatch};
use crate::ids::{GroupId, Incarnation, ReplicaId, Slot};
use crate::membership::{KeyPin, Member};
use crate::output::WAY_BACK;
use crate::snapshot::{ImageDigest, SnapshotMeta};
pub use crate::stored::{Format, LoadRange, Loaded, Recovered, RecoveredVote, Start};

// ---------------------------------------------------------------------------------------------
// Storage

/// Whether there is space for more.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Room {
    /// Everything is welcome.
    Ample,
    /// New commands must be refused; promises, votes in flight and trims still fit.
    Full,
}

/// Where a storage may be called.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Blocking {
    /// Calls wait for a device and belong on a thread of their own.
    Device,
    /// Calls return at once.
    Never,
}

/// Why storage failed. Always final: the adapter is poisoned, and the replica stops.
#[derive(Debug)]
#[non_exhaustive]
pub enum StorageError {
    /// The directory was never formatted.
    NotFormatted {
        /// The directory.
        path: PathBuf,
    },
    /// The directory was formatted before, or holds something else.
    AlreadyFormatted {
        /// The directory.
        path: PathBuf,
    },
    /// Another process, or another part of this one, uses the directory.
    AlreadyOpen {
        /// The directory.
        path: PathBuf,
    },
    /// The directory, or a batch, belongs to another cluster, replica, group or life; the
    /// directory was formatted for other voters or observers; the format version is another; or an
    /// option is out of its bounds.
    Mismatch {
        /// What was found and what was expected.
        what: String,
    },
    /// A peer remembers another life of this directory, or more of it, and it may have forgotten
    /// votes.
    Refused {
        /// The peer.
        by: ReplicaId,
        /// The life that it remembers.
        remembered: Incarnation,
    },
    /// What was acknowledged is damaged. The replica must not vote.
    Corrupt {
        /// Where, and how it was found.
        what: String,
    },
    /// Reading or writing failed.
    Io {
        /// What was attempted, with the path.
        what: String,
        /// The cause.
        source: io::Error,
    },
    /// An earlier failure poisoned this storage; nothing after it is durable.
    Poisoned,
}

impl fmt::Display for StorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFormatted { path } => {
                write!(
                    f,
                    "{} was never formatted for a replica; format it only if this replica never \
                     ran anywhere: for one that did, look whether its disk is mounted there; \
                     otherwise {WAY_BACK}",
                    path.display()
                )
            }
            Self::AlreadyFormatted { path } => {
                write!(
                    f,
                    "{} is not empty and will not be formatted: open the log in it, or name an \
                     empty directory",
                    path.display()
                )
            }
            Self::AlreadyOpen { path } => {
                write!(
                    f,
                    "{} is in use by another replica process: stop that one first",
                    path.display()
                )
            }
            Self::Mismatch { what } | Self::Corrupt { what } => f.write_str(what),
            Self::Refused { by, remembered } => write!(
                f,
                "{by} refused this directory, because it remembers more of life {remembered} of this \
                 replica: it was wiped, is an old copy or a backup, or ran in two processes, and may \
                 have forgotten votes; {WAY_BACK}"
            ),
            Self::Io { what, source } => write!(f, "{what}: {source}"),
            Self::Poisoned => {
                f.write_str("storage failed earlier and takes nothing more: see the first error")
            }
        }
    }
}

impl std::error::Error for StorageError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::NotFormatted { .. }
            | Self::AlreadyFormatted { .. }
            | Self::AlreadyOpen { .. }
            | Self::Mismatch { .. }
            | Self::Refused { .. }
            | Self::Corrupt { .. }
            | Self::Poisoned => None,
        }
    }
}

/// Stable storage of one replica process, shared by all its groups. Synchronous: the host calls it
/// on a thread of its own.
///
/// Everything in a batch whose [`Durable`] was returned survives the loss of power. Batches of a
/// group survive in order: never a later one without all earlier ones.
pub trait Storage: Send {
    /// Reads back what earlier lives left, the newest snapshot's facts among it, and makes a new
    /// incarnation durable: the first ([`Incarnation::first`]) of a directory that was never
    /// started, else the one that follows the last ([`Incarnation::following`]). Called once, before
    /// anything else. What it returns is itself durable when it returns. The snapshot is one whose
    /// image was found whole; where the newest is damaged an older one takes its place, if the log
    /// goes on from there, else it fails with [`StorageError::Corrupt`]. Fails with
    /// [`StorageError::Refused`] if a [`crate::durable::Write::Refused`] was ever written.
    fn recover(&mut self, nonce: u32) -> Result<Vec<Recovered>, StorageError>;

    /// Writes all batches, of however many groups, with one write and one sync, and returns their
    /// proofs in the same order. After an error nothing is proved, ever again.
    fn persist(&mut self, batches: Vec<WriteBatch>) -> Result<Vec<Durable>, StorageError>;

    /// Reads back committed values: for each slot the one recorded as chosen, else the one last
    /// accepted. Sees every batch that was given to [`Storage::persist`] before.
    fn load(&mut self, range: LoadRange) -> Result<Loaded, StorageError>;

    /// Whether there is space for more commands. Changes only within [`Storage::persist`]: while it
    /// is [`Room::Full`], calling that without batches looks again.
    fn room(&self) -> Room;

    /// Roughly how much the log of a group holds, when a life begins: slots that are committed, and the bytes
    /// of the values that stand above what is trimmed and up to each of them. Both rise, the bytes by `step`
    /// at least, but for the last. A host that keeps so much and no more for peers that lag counts what
    /// earlier lives left by this. A storage that does not know says nothing, which is the default: then it
    /// counts in each life anew.
    fn log_bytes(&self, _group: GroupId, _step: u64) -> Vec<(Slot, u64)> {
        Vec::new()
    }

    /// Whether calls wait for a device.
    fn blocking(&self) -> Blocking;

    /// Where snapshots are kept, beside the log. Called once, after [`Storage::recover`]. A storage
    /// without one, which is what this says unless an adapter says otherwise, has a log that is never
    /// trimmed.
    fn snapshots(&mut self) -> Option<Box<dyn SnapshotStore>> {
        None
    }
}

// ---------------------------------------------------------------------------------------------
// Snapshots

/// Keeps snapshots of all groups of one replica. Used beside [`Storage`], from a thread of its own,
/// so that a large image delays no vote. An error is final for the image that it struck, which is
/// forgotten and gives its space back; others, and the log, go on.
///
/// Of each group one image of this replica's own is being made at most, and one of a peer's is being
/// received: the writer of an earlier one fails with [`StorageError::Mismatch`].
pub trait SnapshotStore: Send {
    /// The finished snapshots of a group, oldest first, one of a slot. Reads no image.
    fn list(&mut self, group: GroupId) -> Result<Vec<SnapshotMeta>, StorageError>;

    /// Begins an image of this replica's own making. What is unfinished of earlier ones is gone.
    fn create(&mut self, group: GroupId) -> Result<Box<dyn SnapshotWriter>, StorageError>;

    /// Goes on with an image that comes from a peer, or begins it: what an earlier life received of
    /// the same one is still there, as far as it was synced. What was received of another one is
    /// gone. May read and write all that is held.
    fn receive(&mut self, meta: &SnapshotMeta) -> Result<Box<dyn SnapshotWriter>, StorageError>;

    /// What an earlier life, or this one, began to receive and did not finish: whoever asks peers for
    /// this image again need not fetch what is held of it. It is forgotten once one that includes as
    /// much is finished. A store that keeps nothing unfinished says `None`.
    fn unfinished(&mut self, _group: GroupId) -> Result<Option<SnapshotMeta>, StorageError> {
        Ok(None)
    }

    /// Opens a finished one, or `None` if it was removed meanwhile.
    fn open(
        &mut self,
        meta: &SnapshotMeta,
    ) -> Result<Option<Box<dyn SnapshotReader>>, StorageError>;

    /// Removes the finished snapshots of a group below this slot, but never the newest one. Those
    /// that are open can be read to their end.
    fn remove_below(&mut self, group: GroupId, slot: Slot) -> Result<(), StorageError>;
}

/// An image that is being written. Dropped unfinished, it is no snapshot; what was received of it may
/// be gone on with.
pub trait SnapshotWriter: Send {
    /// How many bytes it holds, earlier lives' included. The next byte to be written is this one.
    fn held(&self) -> u64;

    /// Writes the next bytes, and syncs now and then. More than a peer offered is
    /// [`StorageError::Corrupt`].
    fn write(&mut self, bytes: &[u8]) -> Result<(), StorageError>;

    /// Makes the image a snapshot: once this returns it survives the loss of power, as a whole, and
    /// takes the place of another one of its slot. Fails with [`StorageError::Corrupt`], and forgets
    /// what it holds, if length or digest are not those of `meta`; with [`StorageError::Mismatch`]
    /// if `meta` is not what was received, or makes no sense. After an error it survives as a whole
    /// or not at all, and is not listed.
    fn finish(self: Box<Self>, meta: &SnapshotMeta) -> Result<(), StorageError>;

    /// Length and digest of what it holds.
    fn image(&self) -> (u64, ImageDigest);
}

/// A finished image.
pub trait SnapshotReader: Send {
    /// The bytes from `offset` on, at most `bytes_max`; fewer only at the end. Damage is
    /// [`StorageError::Corrupt`].
    fn read_at(&mut self, offset: u64, bytes_max: usize) -> Result<Bytes, StorageError>;
}

// ---------------------------------------------------------------------------------------------
// Transport

/// Which queue a frame waits in. No order is kept between lanes.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Lane {
    /// Small and urgent: never behind the others. When full, the oldest frame is dropped.
    Control,
    /// The log and forwarded commands. When full, the newest is refused with [`Sent::Full`].
    Log,
    /// Deep catch-up and snapshots, on a connection of their own.
    Bulk,
}

/// Which part of the receiving host a frame is for.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Channel {
    /// A [`crate::message::Message`] for the replica.
    Core,
    /// Between hosts: forwarded commands and read points.
    Host,
    /// Snapshots.
    Snapshot,
}

/// A frame still queued is replaced by a newer one with the same lane and key.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct CoalesceKey(pub u64);

/// What a transport carries: opaque bytes, in chunks that need not be copied together first.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Which queue it waits in.
    pub lane: Lane,
    /// What it replaces.
    pub key: Option<CoalesceKey>,
    /// Whom it is for.
    pub channel: Channel,
    /// The bytes: the receiver gets them as one.
    pub chunks: Vec<Bytes>,
}

impl Frame {
    /// The number of bytes in all chunks.
    pub fn len(&self) -> usize {
        self.chunks.iter().map(Bytes::len).sum()
    }

    /// Whether there is no byte in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What became of a frame handed to [`Transport::send`].
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Sent {
    /// It is queued, and may still be lost.
    Queued,
    /// The lane is full and the frame is gone; [`TransportEvent::Drained`] will follow.
    Full,
    /// There is no link to the peer and the frame is gone.
    Down,
    /// The frame exceeds the largest that this transport carries, and is gone.
    TooLarge,
}

/// What a transport reports.
#[derive(Clone, Debug)]
pub enum TransportEvent {
    /// A frame arrived.
    Frame {
        /// The authenticated sender.
        from: ReplicaId,
        /// Whom it is for.
        channel: Channel,
        /// Its bytes, in a buffer of their own.
        bytes: Bytes,
    },
    /// A link to the peer is up: both sides know who the other is.
    Up {
        /// The authenticated peer.
        peer: ReplicaId,
        /// Its life, as it said itself.
        incarnation: Incarnation,
    },
    /// The link to the peer is gone. Attempts go on.
    Down {
        /// The peer.
        peer: ReplicaId,
        /// Why, for people.
        reason: String,
    },
    /// A peer, or somebody who claims to be one, was refused, or refused us.
    Refused {
        /// The peer, where it is known.
        peer: Option<ReplicaId>,
        /// Why, for people: says which of key, id, cluster, version or incarnation was wrong.
        reason: String,
    },
    /// A lane that was full has room.
    Drained {
        /// The peer.
        peer: ReplicaId,
        /// The lane.
        lane: Lane,
    },
}

/// Moves opaque frames between authenticated replicas of one cluster.
///
/// Frames may be lost, repeated, delayed and reordered. They are never forged or altered.
pub trait Transport: Send {
    /// Whose end this is. A host compares it with the replica that its storage holds.
    fn replica(&self) -> ReplicaId;

    /// Starts with this replica's life, told to every peer before the first frame. Called once,
    /// inside the async runtime, before anything else.
    fn start(&mut self, incarnation: Incarnation);

    /// Queues a frame. Never blocks.
    fn send(&mut self, to: ReplicaId, frame: Frame) -> Sent;

    /// The next event. Pending until there is one; `None` when the transport has stopped for good.
    /// Cancel safe: an event is returned or stays queued.
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<TransportEvent>>;

    /// What the transport counted since it was made, for metrics.
    fn counters(&self) -> TransportCounters;

    /// With whom there are links from here on: these members, at these addresses and with these keys,
    /// this replica among them. Links to others end, and so do those that were made with another key.
    /// Called before the start with what the log knows, and whenever that changes. An adapter whose
    /// links need neither addresses nor keys has nothing to do.
    fn set_members(&mut self, members: &[Member]) {
        let _ = members;
    }

    /// Whether there could be links with these members, or in words why not. Asked before a change of
    /// the membership is proposed: afterwards it would be too late.
    fn admits(&self, members: &[Member]) -> Result<(), String> {
        let _ = members;
        Ok(())
    }

    /// The most bytes of a frame that this end takes: a host that may have larger ones to send does
    /// not start. A peer may take less, and then says [`Sent::TooLarge`]. Unless an adapter says
    /// otherwise there is no bound.
    fn frame_bytes_max(&self) -> usize {
        usize::MAX
    }
}

/// What a transport counts.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct TransportCounters {
    /// Frames handed to the network.
    pub frames_sent: u64,
    /// Bytes of those frames.
    pub bytes_sent: u64,
    /// Frames received whole.
    pub frames_received: u64,
    /// Bytes of those frames.
    pub bytes_received: u64,
    /// Frames dropped from a full control lane, oldest first.
    pub dropped_oldest: u64,
    /// Frames refused because a lane was full.
    pub refused_full: u64,
    /// Frames refused because the peer was not linked.
    pub refused_down: u64,
    /// Frames replaced by a newer one of the same key.
    pub coalesced: u64,
    /// Links that came up.
    pub links_up: u64,
    /// Handshakes refused, by either side.
    pub handshakes_refused: u64,
}

// ---------------------------------------------------------------------------------------------
// Clients that are not replicas

/// A connection of a client and a node: bytes in both directions, in order, until it ends. Once
/// there is one, each end has proved to the other what the adapter asks of it. Dropping it ends it.
pub trait ClientLink: Send {
    /// Reads into `into`, which is not empty: how many bytes, zero at the end. Cancel safe.
    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>>;

    /// Takes bytes from the front of `bytes`, which is not empty: how many, one at least. What was
    /// taken may be lost with the link. Cancel safe: nothing is taken where it is pending.
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>>;

    /// Ends the link. Where the adapter can carry words, the other end reads an error with these;
    /// what is under way may be lost.
    fn close(&mut self, reason: &str);

    /// The key that the other end proved to have, if the adapter asks for one.
    fn key(&self) -> Option<KeyPin>;

    /// Where the other end is, for people.
    fn remote(&self) -> String;
}

/// Where clients come in. It lets in whom its operator allows, and nobody as a replica.
pub trait ClientListener: Send {
    /// The next client's link. Pending until there is one; `None` when the listener has stopped for
    /// good. Cancel safe: a link is returned or stays queued.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Option<Box<dyn ClientLink>>>;
}

/// A link that is being made. Dropping it gives it up.
pub type Connecting = Pin<Box<dyn Future<Output = io::Result<Box<dyn ClientLink>>> + Send>>;

/// How a client reaches nodes.
pub trait ClientConnector: Send + Sync {
    /// The replicas whose nodes it can reach, in the order in which they are to be tried.
    fn replicas(&self) -> Vec<ReplicaId>;

    /// Connects to the node of this replica, and to no other. Takes a bounded time. Called within
    /// the async runtime.
    fn connect(&self, to: ReplicaId) -> Connecting;
}
