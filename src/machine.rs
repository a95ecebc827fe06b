//! The user's state machine: what commands do (the book's Replicated Log, its consumer's side).
//!
//! Owns: [`StateMachine`], [`Batch`], [`SnapshotStream`], [`StateDigest`]. Knows no slots but as names, no replicas,
//! no disks.
//! Invariants, which the implementor keeps: `apply`, `snapshot` and `restore` are functions of the state and
//! their arguments alone (no local clock, no randomness, no iteration over unordered maps), so that
//! all replicas hold equal states at equal slots; `query` changes nothing.
//! Source: Schneider, "Implementing Fault-Tolerant Services Using the State Machine Approach".

use core::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use paxos_core::ids::{LogClock, Slot};
use paxos_core::value::Level;
use serde::{Serialize, de::DeserializeOwned};

/// The image of a state machine, in pieces of any size.
pub type SnapshotStream = BoxStream<'static, std::io::Result<Bytes>>;

/// A digest of the state of a state machine: equal for equal states, on every replica, in every release
/// that replicas run together. Finds accidents; it need not resist anybody.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct StateDigest(pub u128);

impl fmt::Display for StateDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The commands of one slot, in order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Batch<C> {
    /// The slot. Rises from batch to batch; slots without commands are left out.
    pub slot: Slot,
    /// The leader's clock: the one clock that a state machine may look at. A batch that a later leader
    /// adopted keeps its own, so it may be lower than that of the batch before: whoever expires by
    /// it keeps the highest so far in the state.
    pub clock: LogClock,
    /// The commands. Never empty.
    pub commands: Vec<C>,
}

/// What is replicated: a deterministic machine that takes commands in the order of the log.
#[async_trait]
pub trait StateMachine: Send + Sync + 'static {
    /// What changes the state. The default codec cannot read back what needs the names of fields:
    /// serde's attributes `tag`, `untagged`, `flatten` and `skip_serializing_if`; such a command is
    /// rejected before it is proposed.
    type Command: Serialize + DeserializeOwned + Send + 'static;
    /// What a command answers.
    type Reply: Serialize + DeserializeOwned + Send + 'static;
    /// What is asked without changing anything. Never leaves the process, unless remote clients are
    /// served: [`crate::Node::serve`] and [`crate::RemoteClient`] ask for serde of it and its answer.
    type Query: Send + 'static;
    /// What a query answers.
    type Answer: Send + 'static;

    /// Applies the commands of one slot, and returns exactly one reply for each, in their order.
    /// Called once for each slot with commands, in rising order of slots.
    ///
    /// A panic stops the node, naming the slot: every other replica would panic there too. The
    /// returned future is driven to its end unless the node is dropped. It must not block its
    /// thread for long: timeouts of waiting requests are watched from the same task.
    async fn apply(&mut self, batch: Batch<Self::Command>) -> Vec<Self::Reply>;

    /// The highest level of commands that this machine knows: a release that adds a command, or changes what
    /// one does, raises it by one. Told to the other nodes; the log may hold commands of a level once it was
    /// raised to it, which [`crate::Node::raise`] does when every member knows it. A node whose log or snapshot
    /// is of a higher level than its machine's stops, with [`crate::StopReason::Level`], or does not start.
    /// docs/state-machines.md shows how a command is added.
    fn level(&self) -> u32 {
        0
    }

    /// The level at which this command may stand in the log: below it a client's is rejected.
    fn level_of(_command: &Self::Command) -> u32
    where
        Self: Sized,
    {
        0
    }

    /// The log was raised to this level: all commands of later slots were proposed by nodes that knew it, and
    /// are applied by none that does not. Told in the order of the log, between two batches, and again at the start and after
    /// [`StateMachine::restore`]; a machine that behaves otherwise from here on does so on every replica.
    fn raised(&mut self, _level: u32) {}

    /// Answers a question, from a state as new as [`crate::Consistency`] says. Called between two
    /// batches; it must not wait for anything but its own work.
    async fn query(&self, query: Self::Query) -> Self::Answer;

    /// The last slot that this machine's own durable state includes, read once at the start. Slots
    /// up to it are not applied again; the node reads them all the same, as the table of sessions is
    /// made of the whole log. The default, [`Slot::ZERO`], is right for a machine in
    /// memory: it is rebuilt from the log.
    fn applied(&self) -> Slot {
        Slot::ZERO
    }

    /// Every slot up to `through` is done and held no command for this machine. A machine that
    /// stores [`StateMachine::applied`] may take note.
    fn skipped(&mut self, _through: Slot) {}

    /// A digest of the state, which nodes compare with each other: one whose state is not that of most
    /// members stops, with [`crate::StopReason::Diverged`]. Asked for after each slot whose number is a
    /// multiple of [`crate::NodeOptions::digest_slots`], between two batches; that should take no longer than a
    /// batch may. Machines that keep it as they go, such as a sum of hashes of what they hold, give it at
    /// once. It is of the state alone: nothing that restarts, snapshots or the number of
    /// [`StateMachine::skipped`] calls change. `None`, the default: nothing is compared.
    ///
    /// docs/state-machines.md shows one, and what makes states differ.
    fn digest(&self) -> Option<StateDigest> {
        None
    }

    /// An image of the state, so that the log up to here can be forgotten, and replicas that need what is
    /// gone be sent the image. Called between two batches, and once at the start, when nothing more than
    /// the error is looked at: [`SnapshotError::NotSupported`], the default, means that there are no
    /// snapshots, and that the log is never trimmed.
    ///
    /// The stream is read on another thread while batches are applied, and must not see what they do: it
    /// owns a copy of the state, or shares one that is copied where it is written, or reads a transaction
    /// of its own. To get hold of that should take no longer than a batch may. Equal states must give
    /// equal bytes, on every replica and however the pieces are cut: no iteration over unordered maps.
    /// What sessions have applied is kept by the node, beside it.
    async fn snapshot(&self) -> Result<SnapshotStream, SnapshotError> {
        Err(SnapshotError::NotSupported)
    }

    /// Replaces the state by that of an image, which includes every slot up to this one and none above:
    /// the next batch is of a later slot. Called at the start, unless [`StateMachine::applied`] is as
    /// high, and whenever this replica has fallen behind the logs of all others.
    ///
    /// An error stops the node, or has an older image restored at a start, if the log reaches back to that;
    /// the state may be anything then, for it is restored again before anything is applied. A machine with
    /// a durable state replaces it as a whole, together with its applied slot.
    async fn restore(&mut self, _slot: Slot, _from: SnapshotStream) -> Result<(), SnapshotError> {
        Err(SnapshotError::NotSupported)
    }
}

/// Why there is no snapshot, or none was restored.
#[derive(Debug)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The state machine does not make snapshots.
    NotSupported,
    /// Reading or writing failed, or the stream holds something else.
    Io(std::io::Error),
    /// A newer release made it.
    Level {
        /// What must be known to go on from it.
        needed: Level,
        /// What this release knows.
        known: Level,
    },
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSupported => f.write_str("the state machine does not make snapshots"),
            Self::Io(error) => error.fmt(f),
            Self::Level { needed, known } => write!(
                f,
                "the log was raised to level {needed}, and this release knows {known}: start the \
                 release that ran before, or a newer one; there is no way back"
            ),
        }
    }
}

impl std::error::Error for SnapshotError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NotSupported | Self::Level { .. } => None,
            Self::Io(error) => Some(error),
        }
    }
}
