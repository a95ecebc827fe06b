//! STUB of the switchboard: signatures only.

use crate::config::Config;
use crate::durable::Durable;
use crate::ids::{LogClock, ReplicaId, Slot, Time};
use crate::membership::Membership;
use crate::message::Message;
use crate::output::{
    Counters, LoadTicket, Output, ProposeError, Proposed, RecoverError, Status, TrimError,
};
use crate::port::{Loaded, Recovered};
use crate::value::Command;

/// One copy of the state, and participant in the protocol.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Replica {}

#[allow(unused_variables, clippy::todo)]
impl Replica {
    /// The only constructor. `applied` is what the state machine already holds; `seed` feeds every random choice.
    pub fn recover(
        config: Config,
        recovered: Recovered,
        applied: Slot,
        seed: u64,
        now: Time,
    ) -> Result<Self, RecoverError> {
        todo!()
    }
    /// A decoded message from an authenticated peer. Infallible.
    pub fn handle_message(&mut self, from: ReplicaId, message: Message, now: Time) {
        todo!()
    }
    /// Proof that writes reached stable storage.
    pub fn handle_durable(&mut self, durable: Durable, now: Time) {
        todo!()
    }
    /// Time passed. Spurious calls are no-ops.
    pub fn handle_timeout(&mut self, now: Time) {
        todo!()
    }
    /// A range of the log that was asked for.
    pub fn handle_loaded(&mut self, ticket: LoadTicket, loaded: Loaded, now: Time) {
        todo!()
    }
    /// The state machine has applied every slot up to this one.
    pub fn handle_applied(&mut self, through: Slot, now: Time) {
        todo!()
    }
    /// Proposes one batch.
    pub fn propose(
        &mut self,
        commands: Vec<Command>,
        clock: LogClock,
        now: Time,
    ) -> Result<Proposed, ProposeError> {
        todo!()
    }
    /// Forgets every slot up to this one; a snapshot that covers them must be durable.
    pub fn trim(&mut self, through: Slot) -> Result<(), TrimError> {
        todo!()
    }
    /// The next effect; ends with Idle.
    pub fn poll_output(&mut self) -> Output {
        todo!()
    }
    /// What can be seen from outside.
    pub fn status(&self) -> Status {
        todo!()
    }
    /// What was counted in this life.
    pub fn counters(&self) -> Counters {
        todo!()
    }
    /// All members but this replica.
    pub fn peers(&self) -> &[ReplicaId] {
        todo!()
    }
    /// The newest membership known.
    pub fn membership(&self) -> &Membership {
        todo!()
    }
}
