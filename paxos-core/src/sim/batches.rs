//! Write batches without a replica, for tests of storages.
//!
//! Owns: [`Batches`], the only maker of write batches beside the outbox.

use crate::durable::{Write, WriteBatch, WriteSequence};
use crate::message::Origin;

/// Numbers write batches as one life of a replica does.
#[derive(Debug)]
pub struct Batches {
    origin: Origin,
    last: WriteSequence,
}

impl Batches {
    /// The batches of this origin, from the first.
    pub fn new(origin: Origin) -> Self {
        Self { origin, last: WriteSequence::default() }
    }

    /// The next batch.
    pub fn batch(&mut self, writes: Vec<Write>) -> WriteBatch {
        self.last = self.last.next();
        WriteBatch::new(self.origin, self.last, writes)
    }
}
