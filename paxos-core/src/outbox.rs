//! The outbox: effects on their way out, and the gate (Write-Ahead Log, the core's side).
//!
//! Owns: the queue of effects, the writes not handed out yet, and every message that waits for one
//! of them. The only maker of [`WriteBatch`] and of [`Output::Persist`].
//! Invariants: a message that depends on a write is released by the proof of that write and by
//! nothing else (D1 to D4); batches are numbered without gaps; proofs only go forward.
//! Source: protocol.md §6.

use std::collections::VecDeque;

use crate::ballot::Ballot;
use crate::durable::{Durable, Write, WriteBatch, WriteSequence};
use crate::ids::{ReplicaId, Slot, Time};
use crate::membership::Membership;
use crate::message::{Accepted, Body, Message, Origin, SendAfterDurable, SendNow};
use crate::output::{Halt, LoadTicket, Output, QuorumReadLoss, ReadTicket, Recipients};
use crate::stored::LoadRange;
use crate::value::Value;

/// How many messages may wait for the disk before repetitions are no longer answered.
const GATED_MAX: usize = 1024;

/// An effect that needs nothing more. Everything in it can be cloned, so that a model can fork a
/// replica; the batch of writes, which cannot, is made when it is handed out.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
enum Effect {
    Send { to: Recipients, body: Body },
    Load { ticket: LoadTicket, range: LoadRange },
    Apply { slot: Slot, value: Value },
    ReadsReady { through: ReadTicket, point: Slot },
    ReadsLost { through: ReadTicket },
    QuorumReadsReady { through: ReadTicket, point: Slot },
    QuorumReadsLost { through: ReadTicket, reason: QuorumReadLoss },
    SnapshotWanted { from: ReplicaId, above: Slot },
}

/// Who gets a gated message: peers, or this replica itself.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Addressee {
    Peers(Recipients),
    Own,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Gated {
    after: WriteSequence,
    to: Addressee,
    body: Body,
}

/// Effects on their way out.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Outbox {
    origin: Origin,
    effects: VecDeque<Effect>,
    /// Writes of the batch that is still open; it will have the sequence after `handed_out`.
    writes: Vec<Write>,
    handed_out: WriteSequence,
    proved: WriteSequence,
    gated: VecDeque<Gated>,
    /// The batches that are handed out and not proved.
    pending: VecDeque<Pending>,
    /// Accepted of neighbouring slots become one message; the last one is still open here.
    acknowledgement: Option<(Addressee, Accepted)>,
    /// The highest slot of which the disk holds a vote, or that it held something of at the start.
    durable_vote: Slot,
    /// The bytes of values in the open batch, and in all that are not proved.
    open_bytes: usize,
    unproved_bytes: usize,
    halt: Option<Halt>,
    /// After a halt nothing leaves any more.
    closed: bool,
}

/// A batch that is on its way to the disk.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct Pending {
    sequence: WriteSequence,
    since: Time,
    /// The highest slot that it votes in.
    vote: Option<Slot>,
    /// The bytes of its values.
    bytes: usize,
}

/// An outbox without the times at which batches were handed out, with batches numbered from the last
/// proof on, and with each message that waits several times for one proof once. The highest slot
/// with a durable vote, which only heartbeats tell, is left out too.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct OutboxState<'a> {
    origin: Origin,
    effects: &'a VecDeque<Effect>,
    writes: &'a [Write],
    handed_out: WriteSequence,
    gated: Vec<(WriteSequence, Addressee, &'a Body)>,
    pending: Vec<(WriteSequence, Option<Slot>, usize)>,
    acknowledgement: Option<(Addressee, Accepted)>,
    halt: &'a Option<Halt>,
    closed: bool,
}

impl Outbox {
    /// `reach` is the highest slot that the disk holds something of.
    pub(crate) fn new(origin: Origin, reach: Slot) -> Self {
        Self {
            origin,
            effects: VecDeque::new(),
            writes: Vec::new(),
            handed_out: WriteSequence::default(),
            proved: WriteSequence::default(),
            gated: VecDeque::new(),
            pending: VecDeque::new(),
            acknowledgement: None,
            durable_vote: reach,
            open_bytes: 0,
            unproved_bytes: 0,
            halt: None,
            closed: false,
        }
    }

    /// For comparing outboxes when time does not matter.
    pub(crate) fn state(&self) -> OutboxState<'_> {
        let pending = self.pending.iter();
        let mut gated = Vec::new();
        for waiting in &self.gated {
            let message = (waiting.after.since(self.proved), waiting.to, &waiting.body);
            if !gated.contains(&message) {
                gated.push(message);
            }
        }
        OutboxState {
            origin: self.origin,
            effects: &self.effects,
            writes: &self.writes,
            handed_out: self.handed_out.since(self.proved),
            gated,
            pending: pending
                .map(|batch| (batch.sequence.since(self.proved), batch.vote, batch.bytes))
                .collect(),
            acknowledgement: self.acknowledgement,
            halt: &self.halt,
            closed: self.closed,
        }
    }

    /// Adds a fact to the open batch.
    pub(crate) fn write(&mut self, write: Write) {
        self.open_bytes += write.value_len();
        self.writes.push(write);
    }

    pub(crate) fn has_writes(&self) -> bool {
        !self.writes.is_empty()
    }

    /// The bytes of values that wait for the disk.
    pub(crate) fn bytes_waiting(&self) -> usize {
        self.open_bytes + self.unproved_bytes
    }

    /// Batches handed out and not proved.
    pub(crate) fn writes_pending(&self) -> u64 {
        self.handed_out.number() - self.proved.number()
    }

    /// Since when the oldest batch has waited for its proof.
    pub(crate) fn pending_since(&self) -> Option<Time> {
        self.pending.front().map(|pending| pending.since)
    }

    /// The sequence that covers everything written so far.
    pub(crate) fn after_writes(&self) -> WriteSequence {
        if self.writes.is_empty() { self.handed_out } else { self.handed_out.next() }
    }

    /// The batch that the next write goes into.
    pub(crate) fn open_batch(&self) -> WriteSequence {
        self.handed_out.next()
    }

    /// Whether everything up to this sequence is durable.
    pub(crate) fn is_durable(&self, sequence: WriteSequence) -> bool {
        sequence <= self.proved
    }

    /// The last batch that is durable.
    pub(crate) fn proved(&self) -> WriteSequence {
        self.proved
    }

    /// How many messages wait for the disk.
    pub(crate) fn messages_gated(&self) -> usize {
        self.gated.len()
    }

    /// Whether so much waits for the disk that answering a repetition again would only add to it.
    pub(crate) fn is_crowded(&self) -> bool {
        self.gated.len() >= GATED_MAX
    }

    /// A campaign is over: its questions that still wait for the disk must not leave after it.
    pub(crate) fn drop_prepares(&mut self) {
        self.gated.retain(|gated| !matches!(gated.body, Body::Prepare(_)));
    }

    /// Sends at once.
    pub(crate) fn send(&mut self, to: Recipients, message: impl SendNow) {
        self.effects.push_back(Effect::Send { to, body: message.into() });
    }

    /// Sends when everything written so far is durable.
    pub(crate) fn send_after_durable(&mut self, to: Recipients, message: impl SendAfterDurable) {
        self.gate(Addressee::Peers(to), message.into());
    }

    /// A message to this replica itself, which it gets when everything written so far is durable:
    /// its own promise and its own votes count no earlier than anybody else's (D4).
    pub(crate) fn send_to_self(&mut self, message: impl SendAfterDurable) {
        self.gate(Addressee::Own, message.into());
    }

    /// Tells the leader of `ballot` of a vote in `slot`, once it is durable.
    pub(crate) fn acknowledge(&mut self, ballot: Ballot, slot: Slot) {
        let to = if ballot.leader() == self.origin.replica {
            Addressee::Own
        } else {
            Addressee::Peers(Recipients::One(ballot.leader()))
        };
        if let Some((open_to, open)) = &mut self.acknowledgement
            && *open_to == to
            && open.ballot == ballot
            && open.last.next() == slot
        {
            open.last = slot;
            return;
        }
        self.close_acknowledgement();
        self.acknowledgement = Some((to, Accepted { ballot, first: slot, last: slot }));
    }

    fn close_acknowledgement(&mut self) {
        if let Some((to, accepted)) = self.acknowledgement.take() {
            self.gate_now(to, accepted.into());
        }
    }

    fn gate(&mut self, to: Addressee, body: Body) {
        self.close_acknowledgement();
        self.gate_now(to, body);
    }

    fn gate_now(&mut self, to: Addressee, body: Body) {
        let after = self.after_writes();
        // A message to oneself always passes through the queue, so that it is never handled in the
        // middle of another reaction.
        if let Addressee::Peers(to) = to
            && self.is_durable(after)
        {
            self.effects.push_back(Effect::Send { to, body });
        } else {
            self.gated.push_back(Gated { after, to, body });
        }
    }

    pub(crate) fn load(&mut self, ticket: LoadTicket, range: LoadRange) {
        self.effects.push_back(Effect::Load { ticket, range });
    }

    pub(crate) fn apply(&mut self, slot: Slot, value: Value) {
        self.effects.push_back(Effect::Apply { slot, value });
    }

    pub(crate) fn reads_ready(&mut self, through: ReadTicket, point: Slot) {
        self.effects.push_back(Effect::ReadsReady { through, point });
    }

    pub(crate) fn reads_lost(&mut self, through: ReadTicket) {
        self.effects.push_back(Effect::ReadsLost { through });
    }

    pub(crate) fn quorum_reads_ready(&mut self, through: ReadTicket, point: Slot) {
        self.effects.push_back(Effect::QuorumReadsReady { through, point });
    }

    pub(crate) fn quorum_reads_lost(&mut self, through: ReadTicket, reason: QuorumReadLoss) {
        self.effects.push_back(Effect::QuorumReadsLost { through, reason });
    }

    pub(crate) fn want_snapshot(&mut self, from: ReplicaId, above: Slot) {
        self.effects.push_back(Effect::SnapshotWanted { from, above });
    }

    /// The state machine includes by a snapshot what was still to be handed to it.
    pub(crate) fn drop_applies(&mut self) {
        self.effects.retain(|effect| !matches!(effect, Effect::Apply { .. }));
    }

    /// Stops everything: nothing that is queued, or comes later, leaves any more, but for a last
    /// fact to remember.
    pub(crate) fn halt(&mut self, halt: Halt, last: Option<Write>) {
        self.writes.extend(last);
        self.closed = true;
        self.halt = Some(halt);
    }

    /// The highest slot with a durable vote, whichever life gave it.
    pub(crate) fn durable_vote(&self) -> Slot {
        self.durable_vote
    }

    /// Opens the gate as far as the proof reaches.
    ///
    /// # Panics
    ///
    /// If the proof is of another replica, group or life, or of a batch that was never handed out:
    /// the host mixed something up, and nothing it says about durability can be trusted.
    pub(crate) fn release(&mut self, proof: &Durable) {
        let (ours, theirs) = (self.origin, proof.origin());
        assert!(
            (ours.cluster, ours.group, ours.replica, ours.incarnation)
                == (theirs.cluster, theirs.group, theirs.replica, theirs.incarnation),
            "a proof belongs to the life of the replica that wrote"
        );
        assert!(proof.through() <= self.handed_out, "only what was handed out can be durable");
        self.proved = self.proved.max(proof.through());
        while let Some(pending) = self.pending.front()
            && pending.sequence <= self.proved
        {
            self.durable_vote = self.durable_vote.max(pending.vote.unwrap_or_default());
            self.unproved_bytes -= pending.bytes;
            self.pending.pop_front();
        }
        self.open_gate();
    }

    /// Moves what the gate lets through; messages to oneself stay until they are taken.
    fn open_gate(&mut self) {
        let mut own = VecDeque::new();
        while self.gated.front().is_some_and(|gated| gated.after <= self.proved) {
            let gated = self.gated.pop_front().expect("the front was just looked at");
            match gated.to {
                Addressee::Peers(to) => {
                    self.effects.push_back(Effect::Send { to, body: gated.body });
                }
                Addressee::Own => own.push_back(gated),
            }
        }
        while let Some(gated) = own.pop_back() {
            self.gated.push_front(gated);
        }
    }

    /// The next message to oneself whose writes are durable.
    pub(crate) fn next_to_self(&mut self) -> Option<Body> {
        self.close_acknowledgement();
        let front = self.gated.front()?;
        if front.after > self.proved || front.to != Addressee::Own {
            return None;
        }
        let body = self.gated.pop_front().map(|gated| gated.body);
        // What stood behind it, and waits for nothing more, may leave.
        self.open_gate();
        body
    }

    /// The next effect, or the open batch of writes, or nothing.
    pub(crate) fn poll(&mut self, now: Time) -> Option<Output> {
        if self.closed {
            return self.poll_closed(now);
        }
        self.close_acknowledgement();
        // Reading the log must see what was written before: the batch goes out first.
        let reads_log = matches!(self.effects.front(), Some(Effect::Load { .. }));
        if (reads_log || self.effects.is_empty()) && !self.writes.is_empty() {
            return Some(Output::Persist(self.hand_out_writes(now)));
        }
        Some(match self.effects.pop_front()? {
            Effect::Send { to, body } => {
                Output::Send { to, message: Message { origin: self.origin, body } }
            }
            Effect::Apply { slot, value } => Output::Apply { slot, value },
            Effect::Load { ticket, range } => Output::Load { ticket, range },
            Effect::ReadsReady { through, point } => Output::ReadsReady { through, point },
            Effect::ReadsLost { through } => Output::ReadsLost { through },
            Effect::QuorumReadsReady { through, point } => {
                Output::QuorumReadsReady { through, point }
            }
            Effect::QuorumReadsLost { through, reason } => {
                Output::QuorumReadsLost { through, reason }
            }
            Effect::SnapshotWanted { from, above } => Output::SnapshotWanted { from, above },
        })
    }

    /// A refusal has to be durable before the halt is told: whoever hears of it may end the process.
    fn poll_closed(&mut self, now: Time) -> Option<Output> {
        if matches!(self.halt, Some(Halt::Refused { .. })) {
            if !self.writes.is_empty() {
                return Some(Output::Persist(self.hand_out_writes(now)));
            }
            if self.proved < self.handed_out {
                return None;
            }
        }
        self.halt.take().map(Output::Halt)
    }

    fn hand_out_writes(&mut self, now: Time) -> WriteBatch {
        self.handed_out = self.handed_out.next();
        let writes = core::mem::take(&mut self.writes);
        let votes = writes.iter().filter_map(|write| match write {
            Write::Accepted { slot, .. } => Some(*slot),
            Write::Promised(_)
            | Write::Chosen { .. }
            | Write::Committed(_)
            | Write::Governs { .. }
            | Write::Trimmed(_)
            | Write::Refused { .. }
            | Write::Peer { .. } => None,
        });
        let vote = votes.max();
        let bytes = core::mem::take(&mut self.open_bytes);
        self.unproved_bytes += bytes;
        self.pending.push_back(Pending { sequence: self.handed_out, since: now, vote, bytes });
        WriteBatch::new(self.origin, self.handed_out, writes)
    }

    /// Messages and records name this membership from here on.
    pub(crate) fn set_membership(&mut self, membership: &Membership) {
        (self.origin.epoch, self.origin.membership) = (membership.epoch(), membership.digest());
    }

    pub(crate) fn origin(&self) -> Origin {
        self.origin
    }

    pub(crate) fn replica(&self) -> ReplicaId {
        self.origin.replica
    }
}
