//! What sessions must do, said as simply as it can be.
//!
//! Owns: [`Referee`], which decides what is to be applied of each batch. Shares no code with the table
//! that nodes decide by; remembers every number for as long as its session is known.
//! Source: protocol.md §13, rules S1 to S4.

use std::collections::{BTreeMap, BTreeSet};

use paxos_core::ids::{LogClock, SessionId};
use paxos_core::value::{Command, CommandKind};

#[derive(Debug)]
struct Known {
    ttl: u64,
    used_at: u64,
    used: u64,
    acknowledged_below: u64,
    applied: BTreeSet<u64>,
}

/// Decides by the log alone.
#[derive(Debug)]
pub(super) struct Referee {
    sessions_max: usize,
    clock: u64,
    uses: u64,
    sessions: BTreeMap<SessionId, Known>,
}

impl Referee {
    pub(super) fn new(sessions_max: usize) -> Self {
        Self { sessions_max, clock: 0, uses: 0, sessions: BTreeMap::new() }
    }

    /// The next batch, with this clock.
    pub(super) fn begin(&mut self, clock: LogClock) {
        self.clock = self.clock.max(clock.millis());
        let now = self.clock;
        self.sessions.retain(|_, known| now - known.used_at <= known.ttl);
    }

    /// Whether this command of it goes to the state machine.
    pub(super) fn applies(&mut self, command: &Command) -> bool {
        self.uses += 1;
        let (now, uses) = (self.clock, self.uses);
        match command.kind {
            CommandKind::Apply => true,
            CommandKind::InSession { session, request } => {
                let Some(known) = self.sessions.get_mut(&session) else { return false };
                (known.used_at, known.used) = (now, uses);
                let below = command.acknowledged_below.number();
                known.acknowledged_below = known.acknowledged_below.max(below);
                let number = request.number();
                number >= known.acknowledged_below && known.applied.insert(number)
            }
            CommandKind::OpenSession { session, ttl } => {
                if !self.sessions.contains_key(&session) && self.sessions.len() == self.sessions_max
                {
                    let oldest = self.sessions.iter().min_by_key(|(_, known)| known.used);
                    let oldest = oldest.map(|(id, _)| *id);
                    oldest.and_then(|id| self.sessions.remove(&id));
                }
                let known = self.sessions.entry(session).or_insert_with(|| Known {
                    ttl: ttl.millis(),
                    used_at: now,
                    used: uses,
                    acknowledged_below: 0,
                    applied: BTreeSet::new(),
                });
                (known.used_at, known.used) = (now, uses);
                false
            }
            CommandKind::CloseSession { session } => {
                self.sessions.remove(&session);
                false
            }
            CommandKind::Raise { .. } | _ => false,
        }
    }
}
