//! Founding a cluster on slots that another one left: a backup, or what a survivor has.
//!
//! Owns: [`Founding`], which makes the write batches of a directory that begins with a past; [`founded`],
//! what is said of a snapshot there; [`salvage`], what one replica's log is taken to say when its quorum
//! is lost for good. Knows no files, no images and no peers.
//! Invariants: (1) besides the outbox nothing else makes write batches, and these are of a life in which no
//! replica runs; (2) they say in this order what is trimmed, what is chosen, and what is committed; (3)
//! equal pasts make equal writes, whichever replica's directory it is.
//! Source: protocol.md §17; etcd's snapshot restore and Consul's peers.json, for what an operator does
//! when a majority is gone, and for giving the result another name.

use core::fmt;
use std::collections::{BTreeMap, BTreeSet};

use crate::ballot::Ballot;
use crate::durable::{Write, WriteBatch, WriteSequence};
use crate::ids::{ClientId, GroupId, LogClock, RequestNumber, SessionId, Slot};
use crate::membership::Membership;
use crate::message::Origin;
use crate::session::SessionTable;
use crate::snapshot::{Governs, SnapshotMeta};
use crate::stored::{Recovered, Start};
use crate::value::{Batch, Command, CommandKind, Value};

/// Sessions are closed by batches of so many commands at most, which any config's batches may hold.
const CLOSED_PER_BATCH: usize = 1024;
/// Closes sessions. No replica's client has this number, so nobody takes the commands for its own.
const CLOSER: ClientId = ClientId::new(0);

/// Why a directory cannot begin with a past.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum FoundingError {
    /// It was started before, or something is in it.
    NotEmpty,
    /// The snapshot is of another group, or says that others govern.
    Foreign,
    /// The table of sessions is of another clock than the snapshot.
    Table,
}

impl fmt::Display for FoundingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotEmpty => "the directory was used before: a past is put into a new one alone",
            Self::Foreign => "the snapshot is of another group, or of another membership",
            Self::Table => "the table of sessions is not the one of the snapshot",
        })
    }
}

impl std::error::Error for FoundingError {}

/// What is said of a snapshot in the directory of a cluster that begins with it. Its image is the same,
/// byte by byte. Rule B3.
pub fn founded(meta: &SnapshotMeta, group: GroupId, first: &Membership) -> SnapshotMeta {
    let governs = vec![Governs { from: Slot::FIRST, membership: first.clone() }];
    SnapshotMeta { group, governs, ..meta.clone() }
}

/// Makes the writes of a directory that was just formatted and is to begin with a past.
///
/// Give it the values of all slots after the snapshot in order, persist each batch that it makes, and start
/// the directory only after the last one is durable (B5): then with another life.
#[derive(Debug)]
pub struct Founding {
    origin: Origin,
    sequence: WriteSequence,
    /// The slot that is filled next.
    next: Slot,
    /// The highest clock of a batch so far.
    clock: LogClock,
    /// Those that are perhaps open.
    sessions: BTreeSet<SessionId>,
    gathered: Vec<Write>,
    gathered_bytes: usize,
}

impl Founding {
    /// Begins with what the storage gave for the directory, which no replica is made of any more, and with
    /// the snapshot, if there is one: its facts as [`founded`] gives them, and the sessions in its image. It
    /// is durable beside the log already.
    pub fn begin(
        recovered: Recovered,
        past: Option<(&SnapshotMeta, &SessionTable)>,
    ) -> Result<Self, FoundingError> {
        let Recovered { format, start, incarnation, promised, committed, .. } = recovered;
        let voted = !recovered.votes.is_empty() || !recovered.chosen.is_empty();
        let others = !recovered.peers.is_empty() || !recovered.governs.is_empty();
        let used = voted || promised.is_some() || others;
        if start != Start::First || used || committed != Slot::ZERO {
            return Err(FoundingError::NotEmpty);
        }
        let mut founding = Self {
            origin: Origin {
                cluster: format.cluster,
                group: format.group,
                epoch: format.membership.epoch(),
                membership: format.membership.digest(),
                replica: format.replica,
                incarnation,
            },
            sequence: WriteSequence::default(),
            next: Slot::FIRST,
            clock: LogClock::default(),
            sessions: BTreeSet::new(),
            gathered: Vec::new(),
            gathered_bytes: 0,
        };
        if let Some((meta, table)) = past {
            if *meta != founded(meta, format.group, &format.membership) {
                return Err(FoundingError::Foreign);
            }
            if table.clock() != meta.clock {
                return Err(FoundingError::Table);
            }
            (founding.next, founding.clock) = (meta.slot.next(), meta.clock);
            founding.sessions.extend(table.ids());
            founding.gathered.push(Write::Trimmed(meta.slot));
        }
        Ok(founding)
    }

    /// The slot that is filled next.
    pub fn next(&self) -> Slot {
        self.next
    }

    /// Fills the next slot. A membership becomes a no-op (B3).
    pub fn fill(&mut self, value: Value) {
        let value = match value {
            Value::Membership(_) => Value::Noop,
            Value::Noop | Value::Batch(_) => value,
        };
        if let Value::Batch(batch) = &value {
            self.clock = self.clock.max(batch.clock());
            for command in batch.commands() {
                match command.kind {
                    CommandKind::OpenSession { session, .. } => {
                        self.sessions.insert(session);
                    }
                    CommandKind::CloseSession { session } => {
                        self.sessions.remove(&session);
                    }
                    CommandKind::Apply
                    | CommandKind::InSession { .. }
                    | CommandKind::Raise { .. } => {}
                }
            }
        }
        self.gathered_bytes += value.encoded_len();
        self.gathered.push(Write::Chosen { slot: self.next, value });
        self.next = self.next.next();
    }

    /// The bytes of the values that no batch holds yet.
    pub fn gathered_bytes(&self) -> usize {
        self.gathered_bytes
    }

    /// What was gathered since the last batch; none if that is nothing.
    pub fn take_batch(&mut self) -> Option<WriteBatch> {
        if self.gathered.is_empty() {
            return None;
        }
        self.gathered_bytes = 0;
        self.sequence = self.sequence.next();
        let writes = core::mem::take(&mut self.gathered);
        Some(WriteBatch::new(self.origin, self.sequence, writes))
    }

    /// Closes every session that may be open (B4), and says that everything is committed. Gives the last
    /// slot and the last batch; none if there is no past at all.
    pub fn finish(mut self) -> (Slot, Option<WriteBatch>) {
        let sessions: Vec<_> = self.sessions.iter().copied().collect();
        for (number, sessions) in sessions.chunks(CLOSED_PER_BATCH).enumerate() {
            let commands = sessions.iter().zip(number * CLOSED_PER_BATCH..).map(closing).collect();
            self.fill(Value::Batch(Batch::new(self.clock, commands)));
        }
        let last = self.next.previous();
        if last == Slot::ZERO {
            return (last, None);
        }
        self.gathered.push(Write::Committed(last));
        (last, self.take_batch())
    }
}

/// The command that closes a session, the so-manyth of them.
fn closing((session, number): (&SessionId, usize)) -> Command {
    Command {
        kind: CommandKind::CloseSession { session: *session },
        client: CLOSER,
        request: RequestNumber::new(number as u64 + 1),
        acknowledged_below: RequestNumber::default(),
        payload: bytes::Bytes::new(),
    }
}

/// Why a value is kept in a slot above the committed prefix.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Grounds {
    /// It was chosen.
    Chosen,
    /// It was accepted here at this ballot, and may have been chosen.
    Accepted(Ballot),
    /// Nothing is known of the slot: it gets a no-op.
    Unknown,
}

/// What becomes of a slot.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Salvaged {
    /// The slot.
    pub slot: Slot,
    /// What it holds from now on.
    pub value: Value,
    /// Why that.
    pub grounds: Grounds,
}

/// The last slot that a replica knows to be committed: by its log, or by its newest snapshot.
pub fn known_prefix(recovered: &Recovered) -> Slot {
    let snapshot = recovered.snapshot.as_ref().map_or(Slot::ZERO, |meta| meta.slot);
    recovered.committed.max(snapshot)
}

/// What is kept of the slots above the committed prefix of a replica whose quorum is lost for good, up to
/// the highest slot that it knows anything of. Rule B6.
pub fn salvage(recovered: &Recovered) -> Vec<Salvaged> {
    let prefix = known_prefix(recovered);
    let mut found: BTreeMap<Slot, (Value, Grounds)> = BTreeMap::new();
    for vote in &recovered.votes {
        found.insert(vote.slot, (vote.value.clone(), Grounds::Accepted(vote.ballot)));
    }
    for (slot, value) in &recovered.chosen {
        found.insert(*slot, (value.clone(), Grounds::Chosen));
    }
    let Some((last, _)) = found.last_key_value().map(|(last, held)| (*last, held)) else {
        return Vec::new();
    };
    let mut salvaged = Vec::new();
    let mut slot = prefix;
    while slot < last {
        slot = slot.next();
        let (value, grounds) = found.remove(&slot).unwrap_or((Value::Noop, Grounds::Unknown));
        salvaged.push(Salvaged { slot, value, grounds });
    }
    salvaged
}
