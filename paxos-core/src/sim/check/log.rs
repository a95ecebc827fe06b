//! What the observer makes of commands, applied values and a replica's own account of itself.

use core::hash::{Hash, Hasher};

use super::{Check, Invariant};
use crate::ids::{ClientId, ReplicaId, RequestNumber, Slot};
use crate::output::{Proposed, Status};
use crate::sim::rng::mix;
use crate::value::{Command, Value};

/// Twice as many messages as a replica lets wait for its disk before it leaves repetitions
/// unanswered: what is not a repetition comes on top.
const MESSAGES_WAITING_MAX: usize = 2048;

/// A hash of values that is the same on every platform and in every release.
struct StateHasher(u64);

impl Hasher for StateHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let word = (chunk.iter()).fold(0, |word, byte| word << 8 | u64::from(*byte));
            self.0 = mix(self.0.rotate_left(7) ^ word);
        }
    }
}

/// The state after one more value.
fn next_state(state: u64, slot: Slot, value: &Value) -> u64 {
    let mut hasher = StateHasher(mix(state ^ slot.number()));
    if let Value::Batch(batch) = value {
        for command in batch.commands() {
            hasher.write(&command.client.number().to_le_bytes());
            hasher.write(&command.request.number().to_le_bytes());
            hasher.write(&command.payload);
        }
    } else {
        value.hash(&mut hasher);
    }
    hasher.finish()
}

impl Check {
    /// A client made a command; it may be proposed.
    pub fn submitted(&mut self, command: &Command) {
        let key = (command.client, command.request);
        self.commands.entry(key).or_default().payload = command.payload.clone();
    }

    /// A host proposed a command in a slot: one that a client asked for, and in this slot alone.
    pub fn witnessed(
        &mut self,
        slot: Slot,
        command: &Command,
        is_submitted: impl FnOnce() -> bool,
    ) {
        let key = (command.client, command.request);
        let known = self.commands.entry(key).or_default();
        if known.proposed.contains(&slot) {
            return;
        }
        known.proposed.push(slot);
        let slots = known.proposed.clone();
        if slots.len() > 1 {
            return self.fail(Invariant::AppliedOnce, || {
                format!("a command is proposed in {slots:?}: {command:?}")
            });
        }
        known.payload = command.payload.clone();
        self.require(is_submitted(), Invariant::Validity, || {
            format!("{slot} holds a command that no client asked for: {command:?}")
        });
    }

    /// A replica took commands for a slot.
    pub fn proposed(&mut self, by: ReplicaId, commands: &[Command], proposed: Proposed) {
        self.use_ballot(proposed.ballot, by);
        for command in commands {
            let key = (command.client, command.request);
            let known = self.commands.entry(key).or_default();
            known.proposed.push(proposed.slot);
        }
    }

    /// What a replica has in flight after it took new commands. Only these are bounded in bytes: a
    /// new leader proposes all it adopted, whatever its size.
    pub fn admitted(&mut self, by: ReplicaId, status: &Status) {
        let (bytes, bytes_max) = (status.bytes_in_flight, self.replica(by).window_bytes_max);
        self.require(bytes <= bytes_max, Invariant::WindowBound, || {
            format!("{by} takes commands and has {bytes} bytes in flight")
        });
        let slots_max = 2 * self.window() as usize;
        for flow in &status.flows {
            // A single message goes whatever its size: a page of what was adopted.
            let fits = flow.slots <= slots_max && (flow.bytes <= bytes_max || flow.probed);
            self.require(fits, Invariant::WindowBound, || {
                format!("{by} sent more than {bytes_max} bytes that are not answered: {flow:?}")
            });
        }
    }

    /// A client was told for certain that its command is not in the log.
    pub fn rejected(&mut self, client: ClientId, request: RequestNumber) {
        let known = self.commands.entry((client, request)).or_default();
        known.rejected = true;
        let chosen = known.chosen;
        self.require(chosen.is_none(), Invariant::RejectedStaysOut, || {
            format!("request {request:?} of {client:?} was rejected and is in {chosen:?}")
        });
    }

    /// The slot that holds a command.
    pub fn slot_of(&self, client: ClientId, request: RequestNumber) -> Option<Slot> {
        self.commands.get(&(client, request))?.chosen
    }

    /// The state after this slot; every replica that was there had this one.
    pub fn state_at(&self, slot: Slot) -> u64 {
        self.slots.get(&slot).and_then(|history| history.state).unwrap_or_default()
    }

    /// A replica handed a value to its state machine.
    pub fn applied(&mut self, by: ReplicaId, slot: Slot, value: &Value) {
        let last = self.replica(by).applied;
        self.require(slot == last.next(), Invariant::AppliedInOrder, || {
            format!("{by} applies {slot} after {last}")
        });
        let chosen = self.chosen(slot) == Some(value);
        self.require(chosen, Invariant::AppliedInOrder, || {
            format!("{by} applies in {slot} what is not chosen there")
        });
        let replica = self.replica(by);
        let state = next_state(replica.state, slot, value);
        replica.applied = slot;
        replica.state = state;
        let common = *(self.slots.entry(slot).or_default().state).get_or_insert(state);
        self.require(common == state, Invariant::EqualState, || {
            format!("{by} has another state than others after {slot}")
        });
    }

    /// What a replica says of itself after an event.
    pub fn observed(&mut self, by: ReplicaId, status: &Status) {
        let window = self.window() as usize;
        let replica = self.replica(by);
        let (before, durable) = (replica.committed, replica.durable_promised);
        let applied = replica.applied;
        replica.committed = status.committed;
        self.known = self.known.max(status.committed);
        self.require(status.committed >= before, Invariant::CommittedPrefix, || {
            format!("{by} goes from {before} back to {}", status.committed)
        });
        self.require_prefix(by, status.committed, "takes");
        self.require(status.applied <= applied, Invariant::AppliedInOrder, || {
            format!("{by} says it applied {}, handed out is {applied}", status.applied)
        });
        self.require(status.promised >= durable, Invariant::PromiseMonotonic, || {
            format!("{by} holds {:?}, its disk {durable:?}", status.promised)
        });
        let slots = status.slots_in_flight;
        self.require(slots <= window, Invariant::WindowBound, || {
            format!("{by} has {slots} slots in flight")
        });
        let votes = status.votes_held;
        self.require(votes <= 2 * window, Invariant::WindowBound, || {
            format!("{by} holds {votes} votes, its window is {window}")
        });
        let waiting = status.messages_waiting;
        self.require(waiting <= MESSAGES_WAITING_MAX, Invariant::WindowBound, || {
            format!("{waiting} messages of {by} wait for its disk")
        });
    }
}
