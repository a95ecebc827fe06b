//! Write before send, for one value: a message stays behind its gate until its write is proved.
//!
//! Owns [`Write`], [`Durable`] and [`Gated`]; the log's own are in [`crate::durable`]. Invariants: a
//! proof is made from the write that it proves, once; a gate opens by a proof of its own writer for
//! its own write or a later one, as each write holds all that its writer remembers.

use crate::ids::ReplicaId;

/// All that its writer has to remember, to be written in place of what was written before.
#[derive(Debug)]
pub struct Write<S> {
    writer: ReplicaId,
    number: u64,
    state: S,
}

impl<S> Write<S> {
    /// What to write.
    pub fn state(&self) -> &S {
        &self.state
    }

    /// To be called when the state is on stable storage, and never otherwise. Where a write fails,
    /// the writer must stop: what its disk holds is not known.
    pub fn into_durable(self) -> Durable {
        Durable { writer: self.writer, number: self.number }
    }
}

/// Proof that a write, and every earlier one of its writer, is on stable storage.
#[derive(Debug)]
pub struct Durable {
    writer: ReplicaId,
    number: u64,
}

/// A message that may leave once its write is durable.
#[derive(Debug)]
pub struct Gated<M> {
    writer: ReplicaId,
    number: u64,
    message: M,
}

impl<M> Gated<M> {
    /// The message, or the gate as it was if the proof is of another writer or an earlier write.
    pub fn open(self, proof: &Durable) -> Result<M, Self> {
        if proof.writer == self.writer && proof.number >= self.number {
            Ok(self.message)
        } else {
            Err(self)
        }
    }
}

/// Numbers the writes of one life of a writer.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct Writer {
    pub(super) id: ReplicaId,
    last: u64,
}

impl Writer {
    pub(super) fn new(id: ReplicaId) -> Self {
        Self { id, last: 0 }
    }

    /// A write of this state, and this message behind it.
    pub(super) fn gate<S, M>(&mut self, state: S, message: M) -> (Write<S>, Gated<M>) {
        self.last += 1;
        let (writer, number) = (self.id, self.last);
        (Write { writer, number, state }, Gated { writer, number, message })
    }
}
