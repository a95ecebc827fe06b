//! The observer: holds the one true history and is told of every event.
//!
//! Owns: [`Check`]: which votes are durable where, and so what is chosen; who used which ballot;
//! what clients asked for. Believes nothing that a replica says about itself: chosen means that an
//! accept quorum durably voted for one value at one ballot. The first broken invariant is kept.
//! Source: the state checker of `TigerBeetle`'s simulator; the invariants of protocol.md.

mod damage;
mod disk;
mod log;
mod members;
mod read;
mod sent;
mod snapshot;
mod violation;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

pub(super) use read::ReadKind;
pub use violation::{Invariant, Violation};

use self::damage::Held;
use crate::ballot::Ballot;
use crate::durable::{Write, WriteSequence};
use crate::ids::{ClientId, Incarnation, ReplicaId, RequestNumber, Slot};
use crate::membership::Membership;
use crate::output::ReadTicket;
use crate::quorum::VoterSet;
use crate::sim::disk::Harm;
use crate::snapshot::SnapshotMeta;
use crate::value::Value;

/// Everybody who durably voted in a slot at one ballot, and for what.
#[derive(Debug)]
struct Vote {
    ballot: Ballot,
    value: Value,
    /// By their places: the number of a replica less one.
    voters: VoterSet,
}

/// All that ever happened in a slot.
#[derive(Debug, Default)]
struct SlotHistory {
    /// What each ballot proposed, sent or voted for.
    proposed: Vec<(Ballot, Value)>,
    votes: Vec<Vote>,
    chosen: Option<Value>,
    /// The ballot at which it was chosen first.
    chosen_at: Option<Ballot>,
    /// The state after this slot, once a replica reached it.
    state: Option<u64>,
}

/// What is known of a replica's disk and life.
#[derive(Debug, Default)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "what happened to a disk comes in any combination"
)]
struct ReplicaHistory {
    life: Option<Incarnation>,
    /// The highest ballot in writes handed out, in this life or before.
    promised: Option<Ballot>,
    durable_promised: Option<Ballot>,
    durable_committed: Slot,
    /// The highest slot with a durable vote.
    durable_vote: Slot,
    /// Handed out and not attested.
    pending: VecDeque<(WriteSequence, Vec<Write>)>,
    committed: Slot,
    applied: Slot,
    state: u64,
    /// The slot of its newest durable snapshot.
    snapshot: Slot,
    /// The reads that wait in this life, and what anybody knew to be committed when each was asked.
    reads: VecDeque<(ReadTicket, Slot)>,
    /// The same of quorum reads.
    quorum_reads: VecDeque<(ReadTicket, Slot)>,
    window_bytes_max: usize,
    /// Its directory was taken away, and with it votes that it made.
    wiped: bool,
    /// The promise that went with it.
    promised_once: Option<Ballot>,
    held: Held,
    /// What the faults ordered for its disk may do. A lie counts until the next start.
    harms: BTreeSet<Harm>,
    /// It said that it is damaged, or was left off, and never answers again.
    gone: bool,
}

/// The place of a replica in sets of voters.
fn place_of(id: ReplicaId) -> usize {
    usize::from(id.number()) - 1
}

/// What became of a command so far.
#[derive(Debug, Default)]
struct CommandHistory {
    payload: Bytes,
    proposed: Vec<Slot>,
    chosen: Option<Slot>,
    rejected: bool,
}

/// The observer of one cluster.
#[derive(Debug)]
pub struct Check {
    /// Memberships with the first slots that they govern, as what is chosen says.
    governs: Vec<(Slot, Arc<Membership>)>,
    /// Memberships that were chosen and govern nothing.
    voids: u64,
    slots: BTreeMap<Slot, SlotHistory>,
    /// Every slot up to this one is chosen.
    chosen_prefix: Slot,
    /// The longest prefix that any replica ever said is committed.
    known: Slot,
    replicas: Vec<ReplicaHistory>,
    ballots: BTreeMap<Ballot, Incarnation>,
    /// What was said of the first image of each slot.
    images: BTreeMap<Slot, SnapshotMeta>,
    commands: BTreeMap<(ClientId, RequestNumber), CommandHistory>,
    /// What was chosen since somebody asked, and at which ballot.
    fresh: Vec<(Slot, Ballot)>,
    violation: Option<Violation>,
}

impl Check {
    /// Nothing has happened yet. So many replicas, numbered from 1, are members or may become
    /// members.
    pub fn new(first: Membership, replicas: usize) -> Self {
        Self {
            governs: vec![(Slot::FIRST, Arc::new(first))],
            voids: 0,
            slots: BTreeMap::new(),
            chosen_prefix: Slot::ZERO,
            known: Slot::ZERO,
            replicas: (0..replicas).map(|_| ReplicaHistory::default()).collect(),
            ballots: BTreeMap::new(),
            images: BTreeMap::new(),
            commands: BTreeMap::new(),
            fresh: Vec::new(),
            violation: None,
        }
    }

    /// The first invariant that was broken.
    pub fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// Reports a broken invariant, unless an earlier one was.
    pub fn fail(&mut self, invariant: Invariant, detail: impl FnOnce() -> String) {
        if self.violation.is_none() {
            self.violation = Some(Violation { invariant, detail: detail() });
        }
    }

    fn require(&mut self, holds: bool, invariant: Invariant, detail: impl FnOnce() -> String) {
        if !holds {
            self.fail(invariant, detail);
        }
    }

    /// The last slot in which anything was ever proposed or voted for.
    pub fn last_slot(&self) -> Slot {
        self.slots.last_key_value().map_or(Slot::ZERO, |(slot, _)| *slot)
    }

    /// Every slot up to this one is chosen.
    pub fn chosen_prefix(&self) -> Slot {
        self.chosen_prefix
    }

    /// What is chosen in a slot.
    pub fn chosen(&self, slot: Slot) -> Option<&Value> {
        self.slots.get(&slot)?.chosen.as_ref()
    }

    /// The highest slot in which a value is chosen.
    pub fn chosen_last(&self) -> Slot {
        let mut slots = self.slots.iter().rev();
        slots.find(|(_, history)| history.chosen.is_some()).map_or(Slot::ZERO, |(slot, _)| *slot)
    }

    /// What was chosen since this was last asked, and at which ballot first.
    pub fn take_chosen(&mut self) -> Vec<(Slot, Ballot)> {
        core::mem::take(&mut self.fresh)
    }

    /// The highest ballot that a replica's disk holds a promise of.
    pub fn durable_promised(&self, id: ReplicaId) -> Option<Ballot> {
        self.replicas[usize::from(id.number()) - 1].durable_promised
    }

    /// How many distinct ballots were used.
    pub fn ballots_used(&self) -> usize {
        self.ballots.len()
    }

    fn replica(&mut self, id: ReplicaId) -> &mut ReplicaHistory {
        &mut self.replicas[usize::from(id.number()) - 1]
    }

    /// A ballot stands in a Prepare, an Accept or a leader's own vote.
    fn use_ballot(&mut self, ballot: Ballot, by: ReplicaId) {
        let life = self.replica(by).life;
        let Some(life) = life else { return };
        self.require(ballot.leader() == by, Invariant::BallotUnique, || {
            format!("{by} used ballot {ballot}")
        });
        let owner = *self.ballots.entry(ballot).or_insert(life);
        self.require(owner == life, Invariant::BallotUnique, || {
            format!("{by} used ballot {ballot} in life {life} and in life {owner}")
        });
    }

    /// A ballot proposed a value: in an Accept, or in a vote.
    fn note_proposal(&mut self, slot: Slot, ballot: Ballot, value: &Value) -> bool {
        let history = self.slots.entry(slot).or_default();
        let known = history.proposed.iter().find(|(b, _)| *b == ballot);
        if let Some((_, other)) = known {
            let same = other == value;
            self.require(same, Invariant::OneValuePerBallot, || {
                format!("two values at ballot {ballot} in {slot}")
            });
            return false;
        }
        let is_new = history.proposed.iter().all(|(_, known)| known != value);
        history.proposed.push((ballot, value.clone()));
        self.check_valid(slot, value);
        if is_new {
            self.check_clock(slot, ballot, value);
        }
        true
    }

    /// A new batch is stamped no earlier than what was chosen before it in the log at its ballot or
    /// below. What a later ballot adopts keeps its old clock, so the log's clock at a slot is the
    /// highest of all batches up to it.
    fn check_clock(&mut self, slot: Slot, ballot: Ballot, value: &Value) {
        let Value::Batch(batch) = value else { return };
        let before = self.slots.range(..slot).filter_map(|(_, history)| {
            let known = history.chosen_at.is_some_and(|chosen_at| chosen_at <= ballot);
            match &history.chosen {
                Some(Value::Batch(batch)) if known => Some(batch.clock()),
                Some(Value::Batch(_) | Value::Noop | Value::Membership(_)) | None => None,
            }
        });
        let (clock, latest) = (batch.clock(), before.max().unwrap_or_default());
        self.require(clock >= latest, Invariant::ClockMonotonic, || {
            format!("{ballot} stamps {slot} with {clock:?}, chosen before it is {latest:?}")
        });
    }

    fn check_valid(&mut self, slot: Slot, value: &Value) {
        let Value::Batch(batch) = value else { return };
        for command in batch.commands() {
            let key = (command.client, command.request);
            let known = self.commands.get(&key);
            let valid = known.is_some_and(|known| {
                known.payload == command.payload && known.proposed.contains(&slot)
            });
            self.require(valid, Invariant::Validity, || {
                format!("{slot} holds a command that was never proposed there: {command:?}")
            });
        }
    }

    /// A replica's vote is on its disk.
    fn note_vote(&mut self, by: ReplicaId, slot: Slot, ballot: Ballot, value: &Value) {
        let replica = self.replica(by);
        replica.durable_vote = replica.durable_vote.max(slot);
        if self.is_wiped(by) {
            return;
        }
        let voter = place_of(by);
        let history = self.slots.entry(slot).or_default();
        let known = history.votes.iter().position(|vote| vote.ballot == ballot);
        let place = known.unwrap_or_else(|| {
            let (value, voters) = (value.clone(), VoterSet::EMPTY);
            history.votes.push(Vote { ballot, value, voters });
            history.votes.len() - 1
        });
        let vote = &mut history.votes[place];
        vote.voters.insert(voter);
        let (same, voters) = (vote.value == *value, vote.voters);
        self.require(same, Invariant::OneValuePerBallot, || {
            format!("{by} voted for another value at ballot {ballot} in {slot}")
        });
        if self.is_accept_quorum(slot, voters) {
            self.note_chosen(slot, ballot, value);
        }
    }

    fn note_chosen(&mut self, slot: Slot, ballot: Ballot, value: &Value) {
        let history = self.slots.entry(slot).or_default();
        if let Some(chosen) = &history.chosen {
            let same = chosen == value;
            self.require(same, Invariant::Agreement, || {
                format!("a second value was chosen in {slot}, at ballot {ballot}")
            });
            return;
        }
        history.chosen = Some(value.clone());
        history.chosen_at = Some(ballot);
        self.fresh.push((slot, ballot));
        while self.chosen(self.chosen_prefix.next()).is_some() {
            self.chosen_prefix = self.chosen_prefix.next();
            self.extend_governs();
        }
        let Value::Batch(batch) = value else { return };
        for command in batch.commands() {
            let key = (command.client, command.request);
            let known = self.commands.entry(key).or_default();
            let (rejected, before) = (known.rejected, known.chosen.replace(slot));
            self.require(!rejected, Invariant::RejectedStaysOut, || {
                format!("{slot} holds a command that was rejected: {command:?}")
            });
            self.require(before.is_none(), Invariant::AppliedOnce, || {
                format!("a command is in {before:?} and in {slot}: {command:?}")
            });
        }
    }
}

#[cfg(test)]
mod tests;
