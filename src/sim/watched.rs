//! The user's state machine under observation.
//!
//! Owns: [`Watched`], which passes everything on and reports what came of it. Changes nothing.

use std::sync::Arc;

use async_trait::async_trait;
use paxos_core::ids::{ReplicaId, Slot};

use super::ledger::Ledger;
use crate::machine::{Batch, SnapshotError, SnapshotStream, StateDigest, StateMachine};

/// A state machine of one life of one node.
pub(super) struct Watched<M: StateMachine> {
    pub(super) id: ReplicaId,
    pub(super) machine: M,
    pub(super) ledger: Arc<Ledger<M>>,
}

#[async_trait]
impl<M: StateMachine> StateMachine for Watched<M> {
    type Command = M::Command;
    type Reply = M::Reply;
    type Query = M::Query;
    type Answer = M::Answer;

    async fn apply(&mut self, batch: Batch<M::Command>) -> Vec<M::Reply> {
        let slot = batch.slot;
        let replies = self.machine.apply(batch).await;
        self.ledger.applied(self.id, slot, &replies, &self.machine);
        replies
    }

    async fn query(&self, query: M::Query) -> M::Answer {
        self.machine.query(query).await
    }

    async fn snapshot(&self) -> Result<SnapshotStream, SnapshotError> {
        self.machine.snapshot().await
    }

    async fn restore(&mut self, slot: Slot, from: SnapshotStream) -> Result<(), SnapshotError> {
        self.machine.restore(slot, from).await?;
        self.ledger.restored(self.id, slot, &self.machine);
        Ok(())
    }

    fn digest(&self) -> Option<StateDigest> {
        self.machine.digest()
    }

    fn level(&self) -> u32 {
        self.machine.level()
    }

    fn level_of(command: &M::Command) -> u32 {
        M::level_of(command)
    }

    fn raised(&mut self, level: u32) {
        self.machine.raised(level);
    }

    fn applied(&self) -> Slot {
        self.machine.applied()
    }

    fn skipped(&mut self, through: Slot) {
        self.machine.skipped(through);
    }
}
