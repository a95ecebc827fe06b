//! What must reach stable storage, and the proof that it did (Write-Ahead Log, the core's side).
//!
//! Owns: [`Write`], [`WriteBatch`], [`Durable`].
//! Invariants: a proof is made from the batch it proves, once; batches of one group are numbered
//! without gaps, and a proof covers its batch and every earlier one of that group.
//!
//! A batch cannot be proved twice:
//!
//! ```compile_fail,E0382
//! fn twice(batch: paxos_core::durable::WriteBatch) {
//!     let _first = batch.into_durable();
//!     let _second = batch.into_durable();
//! }
//! ```
//!
//! nor cloned:
//!
//! ```compile_fail,E0277
//! fn copy<T: Clone>() {}
//! copy::<paxos_core::durable::WriteBatch>();
//! ```
//!
//! and a proof cannot be made from nothing:
//!
//! ```compile_fail,E0451
//! fn forge(origin: paxos_core::message::Origin, through: paxos_core::durable::WriteSequence) {
//!     let _ = paxos_core::durable::Durable { origin, through };
//! }
//! ```
//!
//! Source: protocol.md §6; design of etcd's asynchronous storage writes, with the order in types.

use std::sync::Arc;

use crate::ballot::Ballot;
use crate::ids::{Incarnation, ReplicaId, Slot};
use crate::membership::Membership;
use crate::message::Origin;
use crate::value::Value;

/// One fact to remember. Later facts win over earlier ones.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Write {
    /// Nothing below this ballot will be accepted, ever again.
    Promised(Ballot),
    /// This value was accepted in this slot at this ballot. Implies the promise.
    Accepted {
        /// The slot.
        slot: Slot,
        /// The ballot.
        ballot: Ballot,
        /// The value.
        value: Value,
    },
    /// This value is chosen in this slot, though this replica did not vote for it at the ballot
    /// that chose it. Wins over [`Write::Accepted`] of the slot when values are read back; takes
    /// nothing from that vote.
    Chosen {
        /// The slot.
        slot: Slot,
        /// The value.
        value: Value,
    },
    /// Every slot up to this one is chosen, and the log holds the chosen values. Never waited for.
    Committed(Slot),
    /// From this slot on another membership governs, until a later one does. Written before any
    /// [`Write::Committed`] that covers the slot in which it was chosen.
    Governs {
        /// The slot.
        from: Slot,
        /// The membership.
        membership: Arc<Membership>,
    },
    /// Every slot up to this one may be forgotten.
    Trimmed(Slot),
    /// A peer remembers another life of this replica: the directory may have forgotten votes, and
    /// must never be started again.
    Refused {
        /// The peer.
        by: ReplicaId,
        /// The life that it remembers.
        remembered: Incarnation,
    },
    /// The newest life seen of a peer. Older ones are refused for ever.
    Peer {
        /// The peer.
        peer: ReplicaId,
        /// Its life.
        incarnation: Incarnation,
    },
}

impl Write {
    /// The bytes of the value in it, if there is one.
    pub(crate) fn value_len(&self) -> usize {
        match self {
            Self::Accepted { value, .. } | Self::Chosen { value, .. } => value.encoded_len(),
            Self::Promised(_)
            | Self::Committed(_)
            | Self::Governs { .. }
            | Self::Trimmed(_)
            | Self::Refused { .. }
            | Self::Peer { .. } => 0,
        }
    }
}

/// Numbers the write batches of one life of one replica in one group, from 1.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct WriteSequence(u64);

impl WriteSequence {
    /// The batch after this one.
    #[must_use]
    pub(crate) fn next(self) -> Self {
        Self(self.0.checked_add(1).expect("write sequences are never exhausted"))
    }

    /// How many batches after `proved` this one is; zero if it is proved too.
    #[must_use]
    pub(crate) fn since(self, proved: Self) -> Self {
        Self(self.0.saturating_sub(proved.0))
    }

    /// The number, for logs and records.
    pub const fn number(self) -> u64 {
        self.0
    }
}

/// Facts that go to stable storage together, in order, after all earlier batches of their group.
#[must_use = "messages wait until this batch is durable"]
#[derive(Debug, Eq, Hash, PartialEq)]
pub struct WriteBatch {
    origin: Origin,
    sequence: WriteSequence,
    writes: Vec<Write>,
}

impl WriteBatch {
    pub(crate) fn new(origin: Origin, sequence: WriteSequence, writes: Vec<Write>) -> Self {
        Self { origin, sequence, writes }
    }

    /// Whose facts these are.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// Its place among the batches of its group.
    pub fn sequence(&self) -> WriteSequence {
        self.sequence
    }

    /// The facts in order.
    pub fn writes(&self) -> &[Write] {
        &self.writes
    }

    /// Vouches that this batch and every earlier one of its group are on stable storage, and
    /// survive the loss of power. The only maker of a proof: to audit an adapter, look for its
    /// calls of this.
    pub fn into_durable(self) -> Durable {
        Durable { origin: self.origin, through: self.sequence }
    }
}

/// Proof that a write batch, and every earlier one of its group, is on stable storage.
#[must_use = "messages wait until the replica has this proof"]
#[derive(Debug)]
pub struct Durable {
    origin: Origin,
    through: WriteSequence,
}

impl Durable {
    /// Whose batch it was.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// The last batch that is covered.
    pub fn through(&self) -> WriteSequence {
        self.through
    }
}
