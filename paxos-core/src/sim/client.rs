//! Clients of a simulated cluster, and what each of their commands came to.
//!
//! Owns: [`Client`]. Every command is unique and, once it may have been proposed, never sent again:
//! it ends as committed, rejected (certainly not in the log, for ever) or unknown.

use core::time::Duration;

use bytes::Bytes;

use super::cluster::{Cluster, Due};
use super::options::Options;
use super::rng::Rng;
use super::suffer::seat;
use crate::ids::{ClientId, ReplicaId, RequestNumber, Slot, Time};
use crate::output::{NotProposed, Proposed};
use crate::value::{Command, Value};

/// How often a client that acts reads too, of a thousand times.
const READS: u32 = 400;
/// The same of quorum reads.
const QUORUM_READS: u32 = 250;

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
    /// Since when one or another of them has.
    waiting_since: Time,
    /// How many of those fit one batch.
    together: usize,
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
            waiting_since: Time::ZERO,
            together: usize::MAX,
            attempts: Vec::new(),
        }
    }

    /// What to send next: what was refused, or new commands.
    pub(super) fn next(&mut self, options: &Options, rng: &mut Rng) -> (Vec<Command>, bool) {
        if !self.waiting.is_empty() {
            let count = self.together.min(self.waiting.len());
            return (self.waiting.drain(..count).collect(), false);
        }
        let count = self.left.min(rng.between(1, options.commands_max));
        self.left -= count;
        let command = |_| {
            self.last += 1;
            let size = rng.between(8, options.payload_max) as usize;
            let mut payload = vec![self.id.number() as u8; size];
            payload[..8].copy_from_slice(&self.last.to_le_bytes());
            Command::apply(self.id, RequestNumber::new(self.last), Bytes::from(payload))
        };
        ((0..count).map(command).collect(), true)
    }

    /// Whom to ask: mostly who is believed to lead, of those that are reached.
    pub(super) fn target(&self, reached: &[ReplicaId], rng: &mut Rng) -> ReplicaId {
        let any = *rng.pick(reached);
        let hint = self.hint.filter(|hint| reached.contains(hint));
        if rng.chance(800) { hint.unwrap_or(any) } else { any }
    }

    /// Whether something that was asked at `since` or before has come to nothing yet: it waits to
    /// be taken by anybody, or was taken by one of these.
    pub(super) fn waits_since(&self, since: Time, by: impl Fn(ReplicaId) -> bool) -> bool {
        let refused = !self.waiting.is_empty() && self.waiting_since <= since;
        refused || self.attempts.iter().any(|attempt| attempt.since <= since && by(attempt.at))
    }

    fn wait(&mut self, commands: Vec<Command>, now: Time, new: bool) {
        if new {
            self.waiting_since = now;
        }
        self.waiting.splice(..0, commands);
    }

    /// Nothing more to send, nothing unresolved.
    pub(super) fn is_done(&self) -> bool {
        self.left == 0 && self.waiting.is_empty() && self.attempts.is_empty()
    }
}

impl Cluster {
    /// A replica applied a slot: whoever proposed there through it knows what became of it.
    pub(super) fn resolve_attempts(&mut self, id: ReplicaId, slot: Slot, value: &Value) {
        for client in &mut self.clients {
            let here = |attempt: &mut Attempt| attempt.at == id && attempt.proposed.slot == slot;
            for attempt in client.attempts.extract_if(.., here) {
                let count = attempt.commands.len() as u64;
                if attempt.is_in(value) {
                    self.totals.committed += count;
                } else {
                    self.totals.rejected += count;
                    for command in &attempt.commands {
                        self.check.rejected(command.client, command.request);
                    }
                }
            }
        }
    }

    /// A replica jumped over slots: what became of what was proposed there, it cannot tell.
    pub(super) fn give_up_attempts(&mut self, id: ReplicaId, through: Slot) {
        for client in &mut self.clients {
            let here = |attempt: &mut Attempt| attempt.at == id && attempt.proposed.slot <= through;
            for attempt in client.attempts.extract_if(.., here) {
                self.totals.unknown += attempt.commands.len() as u64;
            }
        }
    }

    /// The client of a process that is gone never hears what became of its commands.
    pub(super) fn forget_attempts(&mut self, id: ReplicaId) {
        for client in &mut self.clients {
            let here = |attempt: &mut Attempt| attempt.at == id;
            for attempt in client.attempts.extract_if(.., here) {
                self.totals.unknown += attempt.commands.len() as u64;
            }
        }
    }

    /// How many clients have commands to make, or wait for an answer.
    pub(super) fn open_clients(&self) -> usize {
        match &self.fleet {
            Some(fleet) => fleet.open(),
            None => self.clients.iter().filter(|client| !client.is_done()).count(),
        }
    }

    /// How many commands the busiest client has still to make.
    pub(super) fn commands_left(&self) -> u64 {
        let left = self.clients.iter().map(|client| client.left).max().unwrap_or_default();
        self.fleet.as_ref().map_or(left, |fleet| fleet.left())
    }

    pub(super) fn client_acts(&mut self, place: usize) {
        if self.fleet.is_some() {
            return self.fleet_acts(place);
        }
        let now = self.now;
        let config = &self.options.config;
        let patience = (config.election_timeout + config.election_jitter) * 8;
        let (core, chosen) = (self.core, self.check.chosen_prefix());
        // What the core has decided its members must tell; what nobody decides stays unknown.
        let late = |attempt: &mut Attempt| {
            let owed = core.is_some_and(|core| core.contains(seat(attempt.at)))
                && attempt.proposed.slot <= chosen;
            now.since(attempt.since) > patience && !owed
        };
        let client = &mut self.clients[place];
        for attempt in client.attempts.extract_if(.., late) {
            self.totals.unknown += attempt.commands.len() as u64;
        }
        self.trim();
        let client = &mut self.clients[place];
        let (commands, new) = client.next(&self.options, &mut self.rng);
        if !commands.is_empty() {
            self.totals.commands += if new { commands.len() as u64 } else { 0 };
            let is_reached = |id: &ReplicaId| self.core.is_none_or(|core| core.contains(seat(*id)));
            let reached: Vec<ReplicaId> = self.ids().filter(is_reached).collect();
            let at = self.clients[place].target(&reached, &mut self.rng);
            self.client_asks(place, at, commands, new);
        }
        if self.rng.chance(READS) {
            let is_reached = |id: &ReplicaId| self.core.is_none_or(|core| core.contains(seat(*id)));
            let reached: Vec<ReplicaId> = self.ids().filter(is_reached).collect();
            let at = self.clients[place].target(&reached, &mut self.rng);
            for _ in 0..self.rng.between(1, 3) {
                self.read(at);
            }
        }
        if self.rng.chance(QUORUM_READS) {
            // Of anybody: that is what they are for.
            let is_reached = |id: &ReplicaId| self.core.is_none_or(|core| core.contains(seat(*id)));
            let reached: Vec<ReplicaId> = self.ids().filter(is_reached).collect();
            let at = *self.rng.pick(&reached);
            for _ in 0..self.rng.between(1, 3) {
                self.read_quorum(at);
            }
        }
        if !self.clients[place].is_done() {
            let pause_max = if self.under_faults { 250 } else { 40 };
            let pause = Duration::from_millis(self.rng.between(5, pause_max));
            self.queue(now.after(pause), Due::Client(place));
        }
    }

    fn client_asks(&mut self, place: usize, at: ReplicaId, commands: Vec<Command>, new: bool) {
        let since = self.now;
        match self.propose(at, &commands) {
            None => {
                self.clients[place].hint = None;
                self.clients[place].wait(commands, since, new);
            }
            Some(Ok(proposed)) => {
                if self.under_faults {
                    self.totals.commands_under_faults += commands.len() as u64;
                }
                self.clients[place].attempts.push(Attempt { commands, at, proposed, since });
            }
            Some(Err(error)) => {
                let client = &mut self.clients[place];
                if let NotProposed::NotLeader { hint } = error.reason {
                    client.hint = hint;
                }
                if let NotProposed::TooLarge { .. } = error.reason {
                    client.together = (error.commands.len() / 2).max(1);
                }
                client.wait(error.commands, since, new);
            }
        }
    }
}
