//! What can go wrong for a client, at the start, and for good.
//!
//! Owns: [`ClientError`] and its two halves, [`TransferError`], [`StartError`], [`StopReason`].
//! Invariant: [`Rejection`] is said only of a command that is certainly not applied and never will
//! be; whatever is less certain is [`Uncertainty`].

use core::fmt;
use std::sync::Arc;

use paxos_core::ballot::Ballot;
use paxos_core::ids::{ReplicaId, Slot};
use paxos_core::output::{Halt, RecoverError};
use paxos_core::port::StorageError;
use paxos_core::value::Level;

use crate::machine::{SnapshotError, StateDigest};

/// How a command or query ended without a reply.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ClientError {
    /// It is certainly not applied, and never will be. Sending it again is safe. A read ends without
    /// an answer in this way only.
    Rejected(Rejection),
    /// It may have been applied, or may still be. Sending it again may apply it twice.
    Unknown(Uncertainty),
    /// It is applied, once, by this slot at the latest. What the state machine replied was lost on its
    /// way, and is not kept any more.
    ReplyNotKept {
        /// A slot of which every state includes it.
        slot: Slot,
    },
}

/// Why a command was certainly not applied.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Rejection {
    /// No leader was found in time: too few replicas are up or connected.
    NoLeader,
    /// Too many requests wait already, here or at the leader. Try again later.
    Busy,
    /// The command is larger than a batch may be.
    TooLarge {
        /// Its bytes with the envelope.
        bytes: usize,
        /// The bound: [`paxos_core::config::Config::batch_bytes_max`], less the batch's head.
        bytes_max: usize,
    },
    /// The leader's log has no space.
    StorageFull,
    /// It was proposed, and another value was chosen in its slot.
    Superseded,
    /// A read was not answered in time: no read point could be had, or it was not applied here yet.
    TimedOut,
    /// Too few voters answered a quorum read in time.
    NoQuorum,
    /// A quorum read waited for a slot in which something was proposed, and no leader settled it in time.
    Unsettled {
        /// The slot.
        slot: Slot,
    },
    /// The node is stopped or stopping.
    Stopped,
    /// The codec did not encode it, or a node could not read it; the codec's words.
    Codec(String),
    /// A remote client reached no node in time.
    Unreachable,
    /// A read was answered, and the answer cannot be carried to the remote client, or not read
    /// there; why.
    Answer(String),
    /// Its session is not known: it never was opened, or has ended or expired. Whether the same
    /// request was applied when it was sent before, nobody remembers.
    SessionUnknown,
    /// Its session has acknowledged its number before.
    StaleRequest,
    /// It is of a level that the log was not raised to yet, as far as this node knows.
    Level {
        /// What its state machine says that it needs.
        needed: u32,
        /// What the log was raised to.
        raised: u32,
    },
}

/// Why it is not known whether a command is applied.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Uncertainty {
    /// The request's timeout passed after it may have been proposed.
    Timeout,
    /// The node stopped after it may have been proposed.
    Stopped,
    /// Another leader leads, and what it found does not include the command yet.
    LeaderChanged,
    /// The link to the leader, or that of a remote client to its node, fell before the other end
    /// said what became of the command.
    LinkLost,
    /// It may have been applied in slots that this node knows by a snapshot alone: it had fallen
    /// behind.
    Skipped,
    /// It was sent again, and the session in which it may have been applied is not known any more.
    SessionLost,
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rejected(rejection) => write!(f, "not carried out: {rejection}"),
            Self::Unknown(uncertainty) => write!(f, "may be applied or not: {uncertainty}"),
            Self::ReplyNotKept { slot } => {
                write!(f, "applied by {slot} at the latest, and its reply is not kept")
            }
        }
    }
}

impl std::error::Error for ClientError {}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoLeader => f.write_str("no leader was found in time"),
            Self::Busy => f.write_str("too many requests wait already"),
            Self::TooLarge { bytes, bytes_max } => {
                write!(f, "the command takes {bytes} bytes, more than {bytes_max}")
            }
            Self::StorageFull => f.write_str("the leader's log has no space"),
            Self::Superseded => f.write_str("another value was chosen in its slot"),
            Self::TimedOut => f.write_str("the read could not be answered in time"),
            Self::NoQuorum => f.write_str("too few voters answered the read in time"),
            Self::Unsettled { slot } => {
                write!(f, "{slot} was proposed, and no leader settled it in time for the read")
            }
            Self::Stopped => f.write_str("the node is stopped"),
            Self::Codec(what) => {
                write!(f, "the codec cannot write the command and read it back: {what}")
            }
            Self::Unreachable => f.write_str("no node was reached in time"),
            Self::Answer(what) => write!(f, "the answer cannot be carried: {what}"),
            Self::SessionUnknown => f.write_str("its session is not known"),
            Self::StaleRequest => f.write_str("its session has acknowledged its number before"),
            Self::Level { needed, raised } => write!(
                f,
                "it is of level {needed}, and the log was raised to {raised}: not every member runs \
                 a release that knows it, or nobody has raised it yet"
            ),
        }
    }
}

impl fmt::Display for Uncertainty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Timeout => "it may have been proposed, and its timeout passed",
            Self::Stopped => "it may have been proposed, and the node stopped",
            Self::LeaderChanged => "it may have been proposed, and the leader changed",
            Self::LinkLost => "it may have been proposed, and the link to its leader or node fell",
            Self::Skipped => "it may stand in slots that this node knows by a snapshot alone",
            Self::SessionLost => "it may have been proposed, and its session is not known any more",
        })
    }
}

/// Why another node does not lead after [`crate::Node::transfer`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum TransferError {
    /// The leader does not make way, and nothing has changed.
    Refused(paxos_core::output::TransferError),
    /// The other node did not take over within an election timeout: this one leads on.
    GivenUp,
    /// This node made way, and the leader of this ballot came first.
    OtherLeads(Ballot),
    /// This node made way, and has heard of no leader since.
    NoLeader,
    /// No other voter is connected and near enough to take over: nothing has changed.
    NoHeir,
    /// The node is stopped.
    Stopped,
}

impl fmt::Display for TransferError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => error.fmt(f),
            Self::GivenUp => f.write_str("the other node did not take over in time"),
            Self::OtherLeads(ballot) => {
                write!(f, "another took over: {} at ballot {ballot}", ballot.leader())
            }
            Self::NoLeader => f.write_str("this node made way, and has heard of no leader since"),
            Self::NoHeir => f.write_str("no other voter is connected and near enough to take over"),
            Self::Stopped => f.write_str("the node is stopped"),
        }
    }
}

impl std::error::Error for TransferError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Refused(error) => Some(error),
            Self::GivenUp | Self::OtherLeads(_) | Self::NoLeader | Self::NoHeir | Self::Stopped => {
                None
            }
        }
    }
}

/// Why no change of the membership came of [`crate::Node::reconfigure`].
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ReconfigureError {
    /// The leader does not make it, and nothing has changed.
    Refused(paxos_core::output::ReconfigureError),
    /// The transport could not link its members, for this reason; nothing has changed.
    Links(String),
    /// The leader changed, and something else was chosen in its place: it was not made, and never will be.
    Superseded,
    /// This node skipped the slot in which it was proposed: it may have been made. The members say.
    Unknown,
    /// The node is stopped. If it was proposed, it may still be made: the members say.
    Stopped,
}

impl fmt::Display for ReconfigureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => error.fmt(f),
            Self::Links(why) => f.write_str(why),
            Self::Superseded => f.write_str(
                "the leader changed, and something else was chosen in its place: nothing has changed, \
                 ask again",
            ),
            Self::Unknown => {
                f.write_str("it may have been made: this node does not know; look at the members")
            }
            Self::Stopped => {
                f.write_str("the node is stopped; the change may be made all the same: look at the members")
            }
        }
    }
}

impl std::error::Error for ReconfigureError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Refused(error) => Some(error),
            Self::Links(_) | Self::Superseded | Self::Unknown | Self::Stopped => None,
        }
    }
}

/// Why there is no snapshot after [`crate::Node::snapshot`].
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum MakeSnapshotError {
    /// The state machine makes none, or the storage keeps none.
    NotSupported,
    /// Nothing is applied yet.
    Nothing,
    /// The state machine or the storage failed; its words. The node goes on, and its log is not trimmed.
    Failed(String),
    /// The node is stopped.
    Stopped,
}

impl fmt::Display for MakeSnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSupported => {
                f.write_str("the state machine makes no snapshots, or the storage keeps none")
            }
            Self::Nothing => f.write_str("nothing is applied yet"),
            Self::Failed(what) => f.write_str(what),
            Self::Stopped => f.write_str("the node is stopped"),
        }
    }
}

impl std::error::Error for MakeSnapshotError {}

/// Why the log was not trimmed.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum TrimLogError {
    /// The state machine makes no snapshots, or the storage keeps none: the log is never trimmed.
    NotSupported,
    /// Slots that no durable snapshot includes are needed.
    NotIncluded {
        /// Up to where it was to be trimmed.
        asked: Slot,
        /// The last slot that the newest snapshot includes; zero if there is none.
        snapshot: Slot,
    },
    /// The node is stopped.
    Stopped,
}

impl fmt::Display for TrimLogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSupported => MakeSnapshotError::NotSupported.fmt(f),
            Self::NotIncluded { asked, snapshot } if *snapshot == Slot::ZERO => {
                write!(f, "{asked} is in no snapshot, for there is none: make one first")
            }
            Self::NotIncluded { asked, snapshot } => {
                write!(f, "{asked} is not in the newest snapshot, of {snapshot}: make one first")
            }
            Self::Stopped => f.write_str("the node is stopped"),
        }
    }
}

impl std::error::Error for TrimLogError {}

/// Why a node did not start.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// The builder was not given this part.
    Missing(&'static str),
    /// A bound of [`crate::NodeOptions`] is zero.
    Options(&'static str),
    /// Two options, or an option and the protocol's configuration, do not fit each other; why.
    Unfit(&'static str),
    /// The storage could not be read.
    Storage(StorageError),
    /// The storage holds this many groups; a node runs exactly one.
    Groups(usize),
    /// The storage is of one replica and the transport of another: peers would take neither for
    /// what it says it is.
    Replicas {
        /// Whose directory the storage holds.
        storage: ReplicaId,
        /// Whose end the transport is.
        transport: ReplicaId,
    },
    /// The transport carries smaller frames than the config lets messages be: a batch, or a page of
    /// the log, could never be sent.
    Frames {
        /// What the transport carries, in bytes.
        carried: usize,
        /// What the config needs, in bytes: [`paxos_core::config::Config::message_bytes_max`].
        needed: usize,
    },
    /// The state machine could not be restored from the snapshot of this slot, the newest one, nor from an
    /// older one whose end the log still reaches back to.
    Restore {
        /// The snapshot's slot.
        slot: Slot,
        /// The last slot that the log does not have any more.
        trimmed: Slot,
        /// Why not.
        why: SnapshotError,
    },
    /// What the storage holds does not fit the config or the state machine.
    Recover(RecoverError),
    /// The system refused a thread for the journal or the snapshots.
    Thread(std::io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unfit(why) => f.write_str(why),
            Self::Missing(part) => write!(f, "a node needs a {part}: give one to the builder"),
            Self::Options(field) => write!(f, "node option {field} must be above zero"),
            Self::Storage(error) => error.fmt(f),
            Self::Groups(count) => write!(f, "the storage holds {count} groups, not one"),
            Self::Replicas { storage, transport } => write!(
                f,
                "the storage is that of {storage} and the transport that of {transport}: \
                 both must be of one replica"
            ),
            Self::Frames { carried, needed } => write!(
                f,
                "the transport carries frames of up to {carried} bytes, and messages may take \
                 {needed}: lower batch_bytes_max and page_bytes_max of the config, or raise the \
                 transport's frame_bytes_max"
            ),
            Self::Restore { slot, trimmed: Slot::ZERO, why } => write!(
                f,
                "the snapshot of {slot} was not restored: {why}; start a release whose state machine \
                 reads it; or move the replica's snapshots away, for its log begins with the first \
                 slot, and the state is made of that"
            ),
            Self::Restore { slot, trimmed, why } => write!(
                f,
                "the snapshot of {slot} was not restored: {why}; no older one serves, as the log \
                 begins after {trimmed}: start a release whose state machine reads it, or replace \
                 this replica; the others go on without it while a majority is up"
            ),
            Self::Recover(error) => error.fmt(f),
            Self::Thread(error) => write!(f, "no thread for the storage: {error}"),
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Storage(error) => Some(error),
            Self::Recover(error) => Some(error),
            Self::Thread(error) => Some(error),
            Self::Restore { why, .. } => Some(why),
            Self::Missing(_)
            | Self::Options(_)
            | Self::Unfit(_)
            | Self::Groups(_)
            | Self::Replicas { .. }
            | Self::Frames { .. } => None,
        }
    }
}

/// Why a node stopped for good.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum StopReason {
    /// [`crate::Node::shutdown`] was called, or the node was dropped.
    Shutdown,
    /// The protocol refuses to go on.
    Halt(Halt),
    /// The storage failed. Nothing was acknowledged after that.
    Storage(Arc<StorageError>),
    /// The state machine panicked, or broke its contract, in this slot.
    Apply {
        /// The slot.
        slot: Slot,
        /// What happened.
        what: String,
    },
    /// The state machine could not be restored from a snapshot that came from a peer, and may hold a part
    /// of it. The snapshot is durable, and what the state machine had before is, too: the next start restores
    /// the one, or if it cannot, goes on from the other.
    Restore {
        /// The snapshot's slot.
        slot: Slot,
        /// What happened.
        what: String,
    },
    /// The state machine's state after this slot is not the one that more than half of all members hold.
    /// The log of this replica is right, its state is not, and a snapshot of its own may hold that state.
    Diverged {
        /// The slot.
        slot: Slot,
        /// The digest of the state here.
        own: StateDigest,
        /// The digest of the others' state.
        others: StateDigest,
        /// Who holds that.
        holders: Vec<ReplicaId>,
    },
    /// This slot raises the log to a level that this release does not know: it was started in the place of a
    /// newer one, or was not there when all others knew it.
    Level {
        /// The slot. Nothing of it is applied.
        slot: Slot,
        /// What must be known to go on.
        needed: Level,
        /// What this release knows.
        known: Level,
    },
    /// A command in this slot does not decode: another release wrote it.
    Undecodable {
        /// The slot.
        slot: Slot,
        /// The codec's words.
        what: String,
    },
    /// The transport stopped for good.
    Transport,
    /// A part of the node panicked: a bug.
    Panicked(String),
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shutdown => f.write_str("the node was shut down"),
            Self::Halt(halt) => halt.fmt(f),
            Self::Storage(error) => write!(f, "storage failed: {error}"),
            Self::Apply { slot, what } => write!(f, "the state machine failed in {slot}: {what}"),
            Self::Restore { slot, what } => {
                write!(f, "the state machine was not restored from the snapshot of {slot}: {what}")
            }
            Self::Diverged { slot, own, others, holders } => write!(
                f,
                "the state went astray: after {slot} its digest is {own} here, and {others} at {}; \
                 keep the directory to find out why, and have this replica replaced by an empty one, \
                 for its own snapshots may hold the wrong state",
                Listed(holders)
            ),
            Self::Level { slot, needed, known } => {
                let why = SnapshotError::Level { needed: *needed, known: *known };
                write!(f, "in {slot} {why}")
            }
            Self::Undecodable { slot, what } => write!(
                f,
                "a command in {slot} does not decode, another release may have written it: {what}"
            ),
            Self::Transport => f.write_str("the transport stopped"),
            Self::Panicked(what) => write!(f, "a part of the node panicked: {what}"),
        }
    }
}

/// The words of a caught panic.
pub(crate) fn panic_words(payload: &(dyn core::any::Any + Send)) -> String {
    if let Some(words) = payload.downcast_ref::<&str>() {
        (*words).to_owned()
    } else if let Some(words) = payload.downcast_ref::<String>() {
        words.clone()
    } else {
        "a panic without words".to_owned()
    }
}

/// Shown as a list: "1, 2 and 3".
struct Listed<'a>(&'a [ReplicaId]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, id) in self.0.iter().enumerate() {
            match place {
                0 => {}
                last if last + 1 == self.0.len() => f.write_str(" and ")?,
                _ => f.write_str(", ")?,
            }
            id.fmt(f)?;
        }
        Ok(())
    }
}
