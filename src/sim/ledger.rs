//! What clients asked for, what was chosen, and what a machine without replicas makes of it.
//!
//! Owns: [`Ledger`], the memory of one seed that its nodes and clients share; [`Numbered`], the
//! codec that gives each command a number of its own, which it keeps when it is sent again.
//! Invariants, each checked as things happen: (1) what is applied was asked for, byte for byte;
//! (2) it is applied in one slot and once in it, however often it is sent; (3) what was rejected is
//! not applied, before or after; (4) every replica's replies and digest after a slot are those of the
//! reference, a machine that is given what is to be applied of each chosen batch and never crashes,
//! and all hold equal tables of sessions; (5) what a client is told is the reference's reply.

use core::fmt;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{BufMut, Bytes, BytesMut};
use paxos_core::ids::{ReplicaId, Slot};
use paxos_core::session::SessionTable;
use paxos_core::value::{Command, CommandKind, Value};

use super::referee::Referee;
use super::turn::poll_to_end;
use super::{Digest, digest_of};
use crate::codec::{CodecError, CommandCodec};
use crate::machine::{Batch, StateMachine};

/// The bytes of a command's number, before the command.
const NUMBER_LEN: usize = 8;

/// A command, from its client to its end.
#[derive(Debug, Default)]
struct Entry {
    payload: Bytes,
    slot: Option<Slot>,
    /// Counts the commands of the log.
    place: usize,
    rejected: bool,
    /// The reference's reply, encoded.
    reply: Option<Vec<u8>>,
}

/// What is true after a slot.
#[derive(Debug)]
struct Truth {
    replies: Vec<Vec<u8>>,
    digest: Option<u64>,
    /// Of the table of sessions of whoever was the first to apply the slot, without its replies.
    table: Option<u64>,
    /// The same with its replies, of whoever was the first of those that were never restored.
    replies_kept: Option<u64>,
}

/// The memory of one seed.
pub(super) struct Ledger<M: StateMachine> {
    state: Mutex<State<M>>,
}

struct State<M: StateMachine> {
    codec: Arc<dyn CommandCodec<M::Command>>,
    digest: Option<Digest<M>>,
    reference: M,
    referee: Referee,
    /// The last slot whose commands a replica's machine applied.
    applied: BTreeMap<ReplicaId, Slot>,
    /// Those that were restored from a snapshot in this life, which holds no replies.
    restored: BTreeSet<ReplicaId>,
    entries: BTreeMap<u64, Entry>,
    /// The highest number given, and that of the command that is being encoded.
    last: u64,
    current: u64,
    reached: Slot,
    /// How many commands were chosen.
    count: usize,
    truths: BTreeMap<Slot, Truth>,
    wrong: Option<String>,
}

impl<M: StateMachine> fmt::Debug for Ledger<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger").field("reached", &self.state().reached).finish_non_exhaustive()
    }
}

impl<M: StateMachine> State<M> {
    fn fail(&mut self, wrong: impl FnOnce() -> String) {
        if self.wrong.is_none() {
            self.wrong = Some(wrong());
        }
    }

    fn find(&mut self, payload: &Bytes) -> Option<(u64, &mut Entry)> {
        let number = number_of(payload)?;
        let entry = self.entries.get_mut(&number)?;
        (entry.payload == *payload).then_some((number, entry))
    }

    /// The reference takes the next batch.
    fn follow(&mut self, slot: Slot, batch: &paxos_core::value::Batch) {
        let (mut numbers, mut commands) = (Vec::new(), Vec::new());
        self.referee.begin(batch.clock());
        for command in batch.commands() {
            if !self.referee.applies(command) {
                continue;
            }
            let Some((number, entry)) = self.find(&command.payload) else {
                return self.fail(|| format!("{slot} holds what no client asked for"));
            };
            let (before, rejected) = (entry.slot.replace(slot), entry.rejected);
            if let Some(before) = before {
                return self.fail(|| format!("command {number} is in {before} and in {slot}"));
            }
            if rejected {
                return self.fail(|| format!("command {number} was rejected and is in {slot}"));
            }
            match self.codec.decode(command.payload.slice(NUMBER_LEN..)) {
                Ok(command) => commands.push(command),
                Err(error) => return self.fail(|| format!("{slot} does not decode: {error}")),
            }
            numbers.push(number);
        }
        for number in &numbers {
            self.count += 1;
            if let Some(entry) = self.entries.get_mut(number) {
                entry.place = self.count;
            }
        }
        let mut replies = Vec::new();
        if !commands.is_empty() {
            let batch = Batch { slot, clock: batch.clock(), commands };
            let Some(given) = poll_to_end(self.reference.apply(batch)) else {
                return self.fail(|| "the state machine waits for something outside".to_owned());
            };
            replies = given.iter().map(encoded).collect();
        }
        for (number, reply) in numbers.iter().zip(&replies) {
            if let Some(entry) = self.entries.get_mut(number) {
                entry.reply = Some(reply.clone());
            }
        }
        let digest = self.digest.as_ref().map(|digest| digest(&self.reference));
        let truth = Truth { replies, digest, table: None, replies_kept: None };
        self.truths.insert(slot, truth);
    }
}

impl<M: StateMachine> Ledger<M> {
    pub(super) fn new(
        codec: Arc<dyn CommandCodec<M::Command>>,
        digest: Option<Digest<M>>,
        reference: M,
        sessions_max: usize,
    ) -> Self {
        let state = State {
            codec,
            digest,
            reference,
            referee: Referee::new(sessions_max),
            applied: BTreeMap::new(),
            restored: BTreeSet::new(),
            entries: BTreeMap::new(),
            last: 0,
            current: 0,
            reached: Slot::ZERO,
            count: 0,
            truths: BTreeMap::new(),
            wrong: None,
        };
        Self { state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State<M>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first thing that was wrong.
    pub(super) fn wrong(&self) -> Option<String> {
        self.state().wrong.clone()
    }

    /// The next command that is encoded has a number of its own, which is returned.
    pub(super) fn next(&self) -> u64 {
        let mut state = self.state();
        state.last += 1;
        state.current = state.last;
        state.current
    }

    /// The next command that is encoded is one that was encoded before.
    pub(super) fn again(&self, number: u64) {
        self.state().current = number;
    }

    /// Whether a client asked for exactly this.
    pub(super) fn is_submitted(&self, command: &Command) -> bool {
        match command.kind {
            CommandKind::Apply | CommandKind::InSession { .. } => {
                self.state().find(&command.payload).is_some()
            }
            CommandKind::OpenSession { .. }
            | CommandKind::CloseSession { .. }
            | CommandKind::Raise { .. } => command.payload.is_empty(),
            _ => false,
        }
    }

    /// A replica hands this to its state machine.
    pub(super) fn chosen(&self, slot: Slot, value: &Value) {
        let mut state = self.state();
        if slot <= state.reached {
            return;
        }
        state.reached = slot;
        if let Value::Batch(batch) = value {
            state.follow(slot, batch);
        }
    }

    /// A replica's state machine applied the batch of a slot.
    pub(super) fn applied(&self, by: ReplicaId, slot: Slot, replies: &[M::Reply], machine: &M) {
        let mut state = self.state();
        state.applied.insert(by, slot);
        let digest = state.digest.as_ref().map(|digest| digest(machine));
        let Some(truth) = state.truths.get(&slot) else {
            return state.fail(|| format!("{by} applies {slot}, which is not handed out"));
        };
        let same = truth.replies.len() == replies.len()
            && truth.replies.iter().zip(replies).all(|(truth, reply)| *truth == encoded(reply));
        let expected = truth.digest;
        if !same {
            state.fail(|| format!("{by} gives other replies than another machine in {slot}"));
        } else if digest != expected {
            state.fail(|| {
                format!("after {slot} the state of {by} has digest {digest:?}, not {expected:?}")
            });
        }
    }

    /// A life of a replica begins.
    pub(super) fn begins(&self, id: ReplicaId) {
        let mut state = self.state();
        state.restored.remove(&id);
        state.applied.remove(&id);
    }

    /// A replica's state machine was restored from a snapshot of this slot.
    pub(super) fn restored(&self, by: ReplicaId, slot: Slot, machine: &M) {
        let mut state = self.state();
        state.restored.insert(by);
        let digest = state.digest.as_ref().map(|digest| digest(machine));
        // Slots without a batch change nothing.
        let truth = state.truths.range(..=slot).next_back();
        let last = truth.map(|(last, truth)| (*last, truth.digest, truth.replies.is_empty()));
        if let Some((last, expected, nothing)) = last {
            if digest != expected {
                state.fail(|| {
                    format!("restored at {slot}, {by} has digest {digest:?}, not {expected:?}")
                });
            }
            if last == slot && !nothing {
                state.applied.insert(by, slot);
            }
        }
    }

    /// A replica is done with a slot, and has this table of sessions.
    pub(super) fn passed(&self, by: ReplicaId, slot: Slot, table: &SessionTable) {
        let mut state = self.state();
        let whole = (!state.restored.contains(&by)).then(|| digest_of(table));
        let table = digest_of(&table.encode_without_replies());
        let applied = state.applied.get(&by) == Some(&slot);
        // A slot without a batch changes no table.
        let Some(truth) = state.truths.get_mut(&slot) else { return };
        let known = *truth.table.get_or_insert(table);
        let kept = whole.is_none_or(|whole| *truth.replies_kept.get_or_insert(whole) == whole);
        let to_apply = truth.replies.len();
        if applied != (to_apply > 0) {
            state.fail(|| format!("{by} applied {slot}, {applied}, with {to_apply} to apply"));
        } else if known != table {
            state.fail(|| format!("after {slot} {by} has another table of sessions"));
        } else if !kept {
            state.fail(|| format!("after {slot} {by} keeps other replies"));
        }
    }

    /// A client was told that its command is certainly not applied.
    pub(super) fn rejected(&self, number: u64) {
        let mut state = self.state();
        let entry = state.entries.entry(number).or_default();
        entry.rejected = true;
        if let Some(slot) = entry.slot {
            state.fail(|| format!("command {number} was rejected and is in {slot}"));
        }
    }

    /// A client was told this reply.
    pub(super) fn answered(&self, number: u64, reply: &M::Reply) {
        let mut state = self.state();
        let known = state.entries.get(&number).and_then(|entry| entry.reply.as_ref());
        match known.map(|known| *known == encoded(reply)) {
            Some(true) => {}
            Some(false) => state.fail(|| format!("command {number} was answered wrongly")),
            None => state.fail(|| format!("command {number} was answered and is not applied")),
        }
    }

    /// A client was told that its command is applied by this slot.
    pub(super) fn is_applied(&self, number: u64, by: Slot) {
        let mut state = self.state();
        let slot = state.entries.get(&number).and_then(|entry| entry.slot);
        if slot.is_none_or(|slot| slot > by) {
            state.fail(|| format!("command {number} is said to be applied by {by}: {slot:?}"));
        }
    }

    /// The slot in which a command is applied, and its place among all commands of the log.
    pub(super) fn place_of(&self, number: u64) -> Option<(Slot, usize)> {
        let state = self.state();
        let entry = state.entries.get(&number)?;
        Some((entry.slot?, entry.place))
    }
}

fn number_of(payload: &Bytes) -> Option<u64> {
    Some(u64::from_le_bytes(*payload.first_chunk::<NUMBER_LEN>()?))
}

/// What tells two replies apart.
fn encoded<T: serde::Serialize>(reply: &T) -> Vec<u8> {
    postcard::to_stdvec(reply).unwrap_or_else(|error| error.to_string().into_bytes())
}

/// Gives each command its number, before the bytes of the user's codec.
pub(super) struct Numbered<M: StateMachine> {
    pub(super) codec: Arc<dyn CommandCodec<M::Command>>,
    pub(super) ledger: Arc<Ledger<M>>,
}

impl<M: StateMachine> CommandCodec<M::Command> for Numbered<M> {
    fn encode(&self, command: &M::Command) -> Result<Bytes, CodecError> {
        let inner = self.codec.encode(command)?;
        let mut state = self.ledger.state();
        let number = state.current;
        let mut payload = BytesMut::with_capacity(NUMBER_LEN + inner.len());
        payload.put_u64_le(number);
        payload.put_slice(&inner);
        let payload = payload.freeze();
        // One that is sent again is the same, and may have been applied.
        let entry = state.entries.entry(number).or_default();
        entry.payload = payload.clone();
        Ok(payload)
    }

    fn decode(&self, bytes: Bytes) -> Result<M::Command, CodecError> {
        if bytes.len() < NUMBER_LEN {
            return Err(CodecError("a command without its number".to_owned()));
        }
        self.codec.decode(bytes.slice(NUMBER_LEN..))
    }

    fn check(&self, encoded: &Bytes) -> Result<(), CodecError> {
        self.codec.check(&encoded.slice(NUMBER_LEN..))
    }
}
