//! Sessions at the place where commands are applied (the book's Idempotent Receiver).
//!
//! Owns: [`Once`]: the table of sessions, the level, what they say of the commands of a batch, and how replies
//! become bytes. Knows no waiters and no state machine.
//! Invariant: the table is given every batch of the log, in order, from the first slot on, or from that
//! after a snapshot's.
//! Source: protocol.md §13.

use std::sync::Arc;

use paxos_core::ids::Slot;
use paxos_core::session::{SessionTable, Verdict};
use paxos_core::value::{Batch, Command, CommandKind, Level};
use serde::{Serialize, de::DeserializeOwned};

use crate::error::{ClientError, Rejection};
use crate::metrics::Meters;

/// Replies up to so many bytes are encoded without an allocation.
const REPLY_LEN: usize = 256;

/// What becomes of a command in the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fate {
    /// It goes to the state machine.
    Apply,
    /// It is not for the state machine, and has done what it does.
    Done,
    /// It went to the state machine before, and does not again.
    Repeated,
    /// It does not go to the state machine: its session acknowledged its number.
    Stale,
    /// It does not go to the state machine: its session is not known.
    Astray,
    /// It does not go to the state machine: its session cannot remember one more.
    Crowded,
}

impl Fate {
    /// What a client is told that waits for a command of this fate, which has no reply.
    fn refusal(self) -> Option<Rejection> {
        match self {
            Self::Apply | Self::Done | Self::Repeated => None,
            Self::Stale => Some(Rejection::StaleRequest),
            Self::Astray => Some(Rejection::SessionUnknown),
            Self::Crowded => Some(Rejection::Busy),
        }
    }
}

/// What a node keeps of the log beside the state machine's state.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) table: SessionTable,
    /// What must be known to read the log.
    pub(crate) level: Level,
}

/// Why a batch cannot be applied by this release.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Unfit {
    /// It has a command of an unknown kind.
    Kind(CommandKind),
    /// It raises the log to this level.
    Level(Level),
}

/// Which commands are applied.
#[derive(Debug)]
pub(crate) struct Once {
    table: SessionTable,
    level: Level,
    /// What this release knows.
    known: Level,
    /// Of the commands of the batch that is being applied.
    fates: Vec<Fate>,
    meters: Arc<Meters>,
}

impl Once {
    pub(crate) fn new(kept: Kept, known: Level, meters: Arc<Meters>) -> Self {
        let Kept { table, level } = kept;
        Self { table, level, known, fates: Vec::new(), meters }
    }

    pub(crate) fn level(&self) -> Level {
        self.level
    }

    pub(crate) fn table(&self) -> &SessionTable {
        &self.table
    }

    /// The log up to some slot is known by a snapshot, which holds this.
    pub(crate) fn jump(&mut self, kept: Kept) {
        self.table = kept.table;
        self.level = self.level.join(kept.level);
        self.meters.sessions.set(self.table.len());
    }

    /// The fates of the commands of the batch that was decided last, in their order.
    pub(crate) fn fates(&self) -> &[Fate] {
        &self.fates
    }

    /// Decides on the commands of the next batch. Rule U2.
    pub(crate) fn decide(&mut self, batch: &Batch) -> Result<(), Unfit> {
        let mut expired = self.table.begin(batch.clock());
        let (mut repeated, mut astray, mut refused) = (0, 0, 0);
        self.fates.clear();
        for command in batch.commands() {
            let fate = match command.kind {
                CommandKind::Apply => Fate::Apply,
                CommandKind::InSession { session, request } => {
                    match self.table.decide(session, request, command.acknowledged_below) {
                        Verdict::Apply => Fate::Apply,
                        Verdict::Repeated => Fate::Repeated,
                        Verdict::Stale => Fate::Stale,
                        Verdict::NoSession => Fate::Astray,
                        Verdict::Crowded => Fate::Crowded,
                    }
                }
                CommandKind::OpenSession { session, ttl } => {
                    expired += usize::from(self.table.open(session, ttl).is_some());
                    Fate::Done
                }
                CommandKind::CloseSession { session } => {
                    self.table.close(session);
                    Fate::Done
                }
                CommandKind::Raise { level } => {
                    if !self.known.covers(level) {
                        return Err(Unfit::Level(level));
                    }
                    self.level = self.level.join(level);
                    Fate::Done
                }
                kind => return Err(Unfit::Kind(kind)),
            };
            repeated += u64::from(fate == Fate::Repeated);
            astray += u64::from(fate == Fate::Astray);
            refused += u64::from(matches!(fate, Fate::Stale | Fate::Crowded));
            self.fates.push(fate);
        }
        let meters = &self.meters;
        let counts = [
            (&meters.commands_repeated, repeated),
            (&meters.commands_astray, astray),
            (&meters.commands_refused, refused),
            (&meters.sessions_expired, expired as u64),
        ];
        for (cell, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
            cell.add(count);
        }
        meters.sessions.set(self.table.len());
        Ok(())
    }

    /// Keeps the reply of a command that was applied, if it may be asked for again.
    pub(crate) fn keep(&mut self, command: &Command, reply: &impl Serialize) {
        let CommandKind::InSession { session, request } = command.kind else { return };
        let mut short = [0; REPLY_LEN];
        if let Ok(bytes) = postcard::to_slice(reply, &mut short) {
            self.table.keep(session, request, bytes);
        } else if let Ok(bytes) = postcard::to_stdvec(reply) {
            self.table.keep(session, request, &bytes);
        }
        // What cannot be written down is not kept.
    }

    /// What a client is told that waits for a command that was not applied in this slot.
    pub(crate) fn recall<R: DeserializeOwned>(
        &self,
        command: &Command,
        fate: Fate,
        slot: Slot,
    ) -> Result<R, ClientError> {
        if let Some(rejection) = fate.refusal() {
            return Err(ClientError::Rejected(rejection));
        }
        let kept = if let CommandKind::InSession { session, request } = command.kind {
            self.table.reply(session, request)
        } else {
            None
        };
        // A type that serde cannot read back from what it wrote has no replies that can be kept.
        let reply = kept.and_then(|bytes| postcard::from_bytes(bytes).ok());
        let meters = &self.meters;
        let met = if reply.is_some() { &meters.replies_recalled } else { &meters.replies_not_kept };
        met.add(1);
        reply.ok_or(ClientError::ReplyNotKept { slot })
    }
}
