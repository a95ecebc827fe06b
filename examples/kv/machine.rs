//! The replicated map as a state machine of the library.
//!
//! Owns: the [`Store`], the form of its commands in the log, and what it publishes of itself.
//! Invariants: a command's form in the log never changes its meaning (later forms are added at the
//! end of [`Command`]); the published slot and hash belong together.
//! Pattern: Replicated Log (the state machine at its end).

use std::sync::{Arc, Mutex, PoisonError};

use futures::stream::{self, StreamExt};
use paxos::{Batch, Slot, SnapshotError, SnapshotStream, StateDigest, StateMachine, async_trait};
use serde::{Deserialize, Serialize};

use crate::backend::Executed;
use crate::image::Reader;
use crate::store::{Op, Read, Store};

/// A command of the log.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) enum Command {
    /// Operations of one client, executed in order with nothing between them.
    Many(Vec<Op>),
}

/// What the map is after a slot.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Image {
    /// The last slot that is applied.
    pub(crate) applied: Slot,
    /// [`Store::hash`] after it.
    pub(crate) hash: u128,
    pub(crate) keys: u64,
    /// Bytes of keys and values.
    pub(crate) bytes: u64,
}

/// Where the state machine says what it is, for whoever asks without waiting for it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Published(Arc<Mutex<Image>>);

impl Published {
    pub(crate) fn image(&self) -> Image {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, image: Image) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = image;
    }
}

/// The state machine.
#[derive(Debug, Default)]
pub(crate) struct Machine {
    store: Store,
    published: Published,
}

impl Machine {
    /// An empty map: it is rebuilt from the newest snapshot and the log.
    pub(crate) fn new(published: Published) -> Self {
        let machine = Self { store: Store::default(), published };
        machine.publish(Slot::ZERO);
        machine
    }

    fn publish(&self, applied: Slot) {
        self.published.set(Image {
            applied,
            hash: self.store.hash(),
            keys: self.store.keys(),
            bytes: self.store.bytes(),
        });
    }
}

#[async_trait]
impl StateMachine for Machine {
    type Command = Command;
    type Reply = Executed<Op>;
    type Query = Vec<Read>;
    type Answer = Executed<Read>;

    async fn apply(&mut self, batch: Batch<Command>) -> Vec<Executed<Op>> {
        let replies =
            batch.commands.into_iter().map(|Command::Many(ops)| self.store.execute(ops)).collect();
        self.publish(batch.slot);
        replies
    }

    async fn query(&self, reads: Vec<Read>) -> Executed<Read> {
        self.store.execute_reads(reads)
    }

    async fn snapshot(&self) -> Result<SnapshotStream, SnapshotError> {
        Ok(stream::iter(self.store.image().map(Ok)).boxed())
    }

    async fn restore(&mut self, slot: Slot, mut from: SnapshotStream) -> Result<(), SnapshotError> {
        let (mut store, mut reader) = (Store::default(), Reader::default());
        while let Some(piece) = from.next().await {
            let piece = piece.map_err(SnapshotError::Io)?;
            let taken = reader.take(&piece, |key, value| store.recall(&key, value));
            taken.map_err(SnapshotError::Io)?;
        }
        store.recalled(reader.finish().map_err(SnapshotError::Io)?);
        self.store = store;
        self.publish(slot);
        Ok(())
    }

    fn digest(&self) -> Option<StateDigest> {
        Some(StateDigest(self.store.hash()))
    }

    fn skipped(&mut self, through: Slot) {
        self.publish(through);
    }
}
