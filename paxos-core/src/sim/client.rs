//! Clients of a simulated cluster, and what each of their commands came to.
//!
//! Owns: [`Client`]. Every command is unique and, once it may have been proposed, never sent again:
//! it ends as committed, rejected (certainly not in the log, for ever) or unknown.

use bytes::Bytes;

use super::rng::Rng;
use crate::ids::{ClientId, ReplicaId, RequestNumber, Time};
use crate::output::Proposed;
use crate::value::{Command, Value};

/// Commands on their way through one life of one replica.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) commands: Vec<Command>,
    pub(super) at: ReplicaId,
    pub(super) proposed: Proposed,
    pub(super) since: Time,
}

impl Attempt {
    /// Whether this value, found in the slot, is the one that was proposed.
    pub(super) fn is_in(&self, value: &Value) -> bool {
        matches!(value, Value::Batch(batch) if batch.commands() == self.commands)
    }
}

/// One client.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) id: ClientId,
    /// How many commands it has still to make.
    pub(super) left: u64,
    pub(super) last: u64,
    pub(super) hint: Option<ReplicaId>,
    /// Certainly not proposed so far.
    pub(super) waiting: Vec<Command>,
    pub(super) attempts: Vec<Attempt>,
}

impl Client {
    pub(super) fn new(number: u64, commands: u64) -> Self {
        Self {
            id: ClientId::new(number),
            left: commands,
            last: 0,
            hint: None,
            waiting: Vec::new(),
            attempts: Vec::new(),
        }
    }

    /// What to send next: what was refused, or up to three new commands.
    pub(super) fn next(&mut self, rng: &mut Rng) -> (Vec<Command>, bool) {
        if !self.waiting.is_empty() {
            return (core::mem::take(&mut self.waiting), false);
        }
        let count = self.left.min(rng.between(1, 3));
        self.left -= count;
        let command = |_| {
            self.last += 1;
            let size = 8 + rng.below(24) as usize;
            let mut payload = vec![self.id.number() as u8; size];
            payload[..8].copy_from_slice(&self.last.to_le_bytes());
            Command::apply(self.id, RequestNumber::new(self.last), Bytes::from(payload))
        };
        ((0..count).map(command).collect(), true)
    }

    /// Whom to ask: mostly who is believed to lead.
    pub(super) fn target(&self, replicas: u16, rng: &mut Rng) -> ReplicaId {
        let any = ReplicaId::new(rng.between(1, u64::from(replicas)) as u16);
        if rng.chance(800) {
            self.hint.unwrap_or(any)
        } else {
            any
        }
    }

    /// Nothing more to send, nothing unresolved.
    pub(super) fn is_done(&self) -> bool {
        self.left == 0 && self.waiting.is_empty() && self.attempts.is_empty()
    }
}
