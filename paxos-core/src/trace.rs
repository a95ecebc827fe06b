//! What happens at a replica, in one vocabulary: for people, as JSON, and to compare two runs.
//!
//! Owns: [`Event`], its words (`Display`) and its line of JSON ([`Event::write_json`]; the schema is
//! docs/traces.md). The simulator and the host fill it in from what goes through their hands; no
//! protocol module knows of it.
//! Invariants: an event is a copy and changes nothing; a message is kept as the bytes that
//! travelled, and is put into words only when somebody reads it; no payload of a command stands in
//! the JSON, only its length and a digest.
//! Source: the trace of `TigerBeetle`'s simulator; the lines that trace validation reads
//! (Cirstea, Kuppe, Loillier, Merz, "Validating Traces of Distributed Programs Against TLA+").

mod digest;
mod json;
mod words;

use core::hash::{Hash, Hasher};
use std::sync::Arc;

use bytes::Bytes;

pub use digest::Digest;
pub use words::Said;

use crate::ballot::Ballot;
use crate::codec;
use crate::durable::{Write, WriteSequence};
use crate::ids::{Incarnation, ReplicaId, Slot, Time};
use crate::message::Message;
use crate::output::{Halt, NotProposed, QuorumReadLoss, Role};
use crate::value::Value;

/// Bytes on their way, with their digest, which stands for them wherever many are told apart.
#[derive(Clone, Debug)]
pub struct Sealed(Arc<(Bytes, u128)>);

impl Sealed {
    /// These bytes.
    pub fn new(bytes: Bytes) -> Self {
        let mut digest = Digest::new();
        bytes.hash(&mut digest);
        Self(Arc::new((bytes, digest.value())))
    }

    /// The bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.0.0
    }
}

impl Hash for Sealed {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.1.hash(state);
    }
}

/// A message on its way.
#[derive(Clone, Debug, Hash)]
pub enum Packet {
    /// As bytes, to be decoded by the receiver.
    Encoded(Sealed),
    /// As it is, where speed matters more than the codec.
    Shared(Arc<Message>),
    /// Between hosts, and no message of the protocol.
    Host(Sealed),
    /// Between hosts too, on the channel of snapshots.
    Snapshot(Sealed),
}

impl Packet {
    /// The message in it; none in what hosts say to each other.
    ///
    /// # Panics
    ///
    /// If the bytes are none that a replica encoded.
    pub fn open(&self) -> Option<Message> {
        match self {
            Self::Encoded(sealed) => {
                let message = codec::decode(sealed.bytes().clone());
                Some(message.expect("what one replica encodes every replica decodes"))
            }
            Self::Shared(message) => Some(Message::clone(message)),
            Self::Host(_) | Self::Snapshot(_) => None,
        }
    }
}

/// What became of a message when it left.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Delivery {
    /// It is on its way.
    Sent,
    /// It is on its way, and will arrive twice.
    Twice,
    /// It is lost.
    Lost,
    /// The way to the receiver is cut.
    Cut,
    /// A script keeps it until it says otherwise.
    Held,
    /// The transport had no room for it.
    Full,
}

impl Delivery {
    /// Every way to fare.
    pub const ALL: [Self; 6] =
        [Self::Sent, Self::Twice, Self::Lost, Self::Cut, Self::Held, Self::Full];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Twice => "twice",
            Self::Lost => "lost",
            Self::Cut => "cut",
            Self::Held => "held",
            Self::Full => "full",
        }
    }
}

/// One thing that happened at a replica, or to the cluster.
#[derive(Clone, Debug, Hash)]
#[non_exhaustive]
pub enum Event {
    /// A replica started.
    Started {
        /// The life that began.
        incarnation: Incarnation,
        /// What its state machine holds.
        applied: Slot,
    },
    /// A replica lost its power.
    Crashed {
        /// How many facts were not proved.
        unproved: usize,
    },
    /// The process stands still.
    Paused {
        /// Until then.
        until: Time,
    },
    /// A message left.
    Sent {
        /// For whom.
        to: ReplicaId,
        /// What became of it.
        delivery: Delivery,
        /// The message.
        packet: Packet,
    },
    /// A message arrived.
    Received {
        /// From whom.
        from: ReplicaId,
        /// The message.
        packet: Packet,
    },
    /// A batch of facts was given to the disk.
    Persist {
        /// Its number.
        sequence: WriteSequence,
        /// The facts.
        writes: Vec<Write>,
    },
    /// The disk proved every batch up to this one.
    Durable {
        /// The last batch.
        through: WriteSequence,
    },
    /// A timer was due.
    Timeout,
    /// A value was handed to the state machine.
    Apply {
        /// The slot.
        slot: Slot,
        /// The value.
        value: Value,
    },
    /// The state machine said what it holds.
    Applied {
        /// The last slot.
        through: Slot,
    },
    /// Commands were proposed.
    Proposed {
        /// In this slot.
        slot: Slot,
        /// Under this ballot.
        ballot: Ballot,
    },
    /// Commands were refused.
    NotProposed {
        /// Why.
        reason: NotProposed,
    },
    /// The replica leads, follows or campaigns since this moment.
    Role {
        /// What it does.
        role: Role,
        /// The ballot of the leader that it is or follows.
        leader: Option<Ballot>,
    },
    /// The committed prefix grew.
    Committed {
        /// Its last slot.
        through: Slot,
    },
    /// The observer saw that an accept quorum durably voted for a value: nobody in the cluster
    /// knows it yet.
    Chosen {
        /// The slot.
        slot: Slot,
        /// At this ballot first.
        ballot: Ballot,
        /// The value.
        value: Value,
    },
    /// The log is read.
    Load {
        /// From this slot on.
        from: Slot,
        /// Up to this one.
        through: Slot,
    },
    /// The log was read.
    Loaded {
        /// How many values it gave.
        values: usize,
    },
    /// A read waits for its read point.
    ReadAsked {
        /// Its ticket.
        ticket: u64,
    },
    /// Reads may be answered.
    ReadsReady {
        /// The last ticket.
        through: u64,
        /// From a state that has applied this slot.
        point: Slot,
    },
    /// Reads are given up.
    ReadsLost {
        /// The last ticket.
        through: u64,
    },
    /// A read waits for what a prepare quorum knows.
    QuorumReadAsked {
        /// Its ticket, of those of quorum reads.
        ticket: u64,
    },
    /// Such reads may be answered.
    QuorumReadsReady {
        /// The last ticket.
        through: u64,
        /// From a state that has applied this slot.
        point: Slot,
    },
    /// Such reads are given up.
    QuorumReadsLost {
        /// The last ticket.
        through: u64,
        /// Why.
        reason: QuorumReadLoss,
    },
    /// What the replica lacks is gone from its peers' logs.
    SnapshotWanted {
        /// The one that is to give a snapshot.
        from: ReplicaId,
        /// The committed prefix.
        above: Slot,
    },
    /// A snapshot is durable here.
    SnapshotKept {
        /// Its slot.
        slot: Slot,
    },
    /// A snapshot took the place of the log up to its slot.
    Installed {
        /// Its slot.
        slot: Slot,
    },
    /// The replica stopped for good.
    Halted {
        /// Why.
        reason: Halt,
    },
    /// The network, or all of the cluster, changed.
    Note {
        /// How, in words.
        text: String,
    },
}

impl Event {
    /// The message that left or arrived.
    pub fn packet(&self) -> Option<&Packet> {
        match self {
            Self::Sent { packet, .. } | Self::Received { packet, .. } => Some(packet),
            Self::Started { .. }
            | Self::Crashed { .. }
            | Self::Paused { .. }
            | Self::Persist { .. }
            | Self::Durable { .. }
            | Self::Timeout
            | Self::Apply { .. }
            | Self::Applied { .. }
            | Self::Proposed { .. }
            | Self::NotProposed { .. }
            | Self::Role { .. }
            | Self::Committed { .. }
            | Self::Chosen { .. }
            | Self::Load { .. }
            | Self::Loaded { .. }
            | Self::ReadAsked { .. }
            | Self::ReadsReady { .. }
            | Self::ReadsLost { .. }
            | Self::QuorumReadAsked { .. }
            | Self::QuorumReadsReady { .. }
            | Self::QuorumReadsLost { .. }
            | Self::SnapshotWanted { .. }
            | Self::SnapshotKept { .. }
            | Self::Installed { .. }
            | Self::Halted { .. }
            | Self::Note { .. } => None,
        }
    }

    /// Its name, as in docs/traces.md.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Started { .. } => "started",
            Self::Crashed { .. } => "crashed",
            Self::Paused { .. } => "paused",
            Self::Sent { .. } => "sent",
            Self::Received { .. } => "received",
            Self::Persist { .. } => "persist",
            Self::Durable { .. } => "durable",
            Self::Timeout => "timeout",
            Self::Apply { .. } => "apply",
            Self::Applied { .. } => "applied",
            Self::Proposed { .. } => "proposed",
            Self::NotProposed { .. } => "not_proposed",
            Self::Role { .. } => "role",
            Self::Committed { .. } => "committed",
            Self::Chosen { .. } => "chosen",
            Self::Load { .. } => "load",
            Self::Loaded { .. } => "loaded",
            Self::ReadAsked { .. } => "read_asked",
            Self::ReadsReady { .. } => "reads_ready",
            Self::ReadsLost { .. } => "reads_lost",
            Self::QuorumReadAsked { .. } => "quorum_read_asked",
            Self::QuorumReadsReady { .. } => "quorum_reads_ready",
            Self::QuorumReadsLost { .. } => "quorum_reads_lost",
            Self::SnapshotWanted { .. } => "snapshot_wanted",
            Self::SnapshotKept { .. } => "snapshot_kept",
            Self::Installed { .. } => "installed",
            Self::Halted { .. } => "halted",
            Self::Note { .. } => "note",
        }
    }
}

#[cfg(test)]
mod tests;
