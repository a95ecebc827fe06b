//! What a storage remembers and gives back: the data that crosses the storage port.
//!
//! Owns: [`Format`], [`Recovered`], [`LoadRange`], [`Loaded`]. Plain data; the port itself, which
//! no protocol module imports, is [`crate::port::Storage`].

use crate::ballot::Ballot;
use crate::ids::{ClusterId, GroupId, Incarnation, LogClock, ReplicaId, Slot};
use crate::membership::Membership;
use crate::snapshot::{Governs, SnapshotMeta};
use crate::value::Value;

/// What an explicit act of formatting writes into an empty directory.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Format {
    /// The cluster.
    pub cluster: ClusterId,
    /// The replicated log within it.
    pub group: GroupId,
    /// The replica whose directory it becomes.
    pub replica: ReplicaId,
    /// The first membership of the cluster.
    pub membership: Membership,
}

/// Whether a directory was used before.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Start {
    /// It was formatted and never started.
    First,
    /// An earlier life left something, or at least counted itself.
    Again,
}

/// A vote read back from storage.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct RecoveredVote {
    /// The slot.
    pub slot: Slot,
    /// The ballot of the last [`crate::durable::Write::Accepted`] for it.
    pub ballot: Ballot,
    /// The value accepted then.
    pub value: Value,
}

/// What storage remembers of one group, with a new incarnation that is durable already.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Recovered {
    /// What the directory was formatted with.
    pub format: Format,
    /// Whether this is the first life.
    pub start: Start,
    /// This life. Its boot counter is one above that of the last.
    pub incarnation: Incarnation,
    /// The highest ballot of any promise or vote.
    pub promised: Option<Ballot>,
    /// The highest committed prefix that was recorded.
    pub committed: Slot,
    /// Every slot up to this one was trimmed.
    pub trimmed: Slot,
    /// The votes above `committed`, in rising order of slots.
    pub votes: Vec<RecoveredVote>,
    /// The values recorded as chosen above `committed`, in rising order of slots.
    pub chosen: Vec<(Slot, Value)>,
    /// The highest clock of any batch in the log.
    pub clock: LogClock,
    /// The newest life seen of each peer, in rising order of peers.
    pub peers: Vec<(ReplicaId, Incarnation)>,
    /// Who governs the log beside the membership in `format`: what [`crate::durable::Write::Governs`]
    /// recorded, in rising order of slots. Those that a later one replaced by the slot after the
    /// trimmed prefix may be missing.
    pub governs: Vec<Governs>,
    /// The newest snapshot. Whatever the log lacks up to its slot is in it.
    pub snapshot: Option<SnapshotMeta>,
}

impl Recovered {
    /// What a directory gives that was formatted and holds nothing else yet.
    pub fn formatted(format: Format, incarnation: Incarnation) -> Self {
        Self {
            format,
            start: Start::First,
            incarnation,
            promised: None,
            committed: Slot::ZERO,
            trimmed: Slot::ZERO,
            votes: Vec::new(),
            chosen: Vec::new(),
            clock: LogClock::default(),
            peers: Vec::new(),
            governs: Vec::new(),
            snapshot: None,
        }
    }
}

/// A range of committed slots to read back.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct LoadRange {
    /// The replicated log.
    pub group: GroupId,
    /// The first slot wanted.
    pub from: Slot,
    /// The last slot wanted.
    pub through: Slot,
    /// Stop before the values exceed this many bytes, but not before the first one.
    pub bytes_max: usize,
}

/// Values read back.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Loaded {
    /// The values of consecutive slots from the first one wanted; empty where that one is gone or
    /// was never written here.
    pub values: Vec<Value>,
    /// Every slot up to this one was trimmed.
    pub trimmed: Slot,
}
