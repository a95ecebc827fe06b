//! What happened, in order: for people, for failure reports, and to compare two runs.
//!
//! Owns: [`Trace`], a bounded ring of the last events and a running hash of all of them.
//! Invariant: two runs of one seed have the same hash; a message is kept as the bytes that
//! travelled and is put into words only when somebody reads it.

use core::fmt;
use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::rng::mix;
use crate::codec;
use crate::ids::{ReplicaId, Slot, Time};
use crate::message::Message;

/// A message on its way.
#[derive(Clone, Debug)]
pub enum Packet {
    /// As bytes, to be decoded by the receiver.
    Encoded(Bytes),
    /// As it is, where speed matters more than the codec.
    Shared(Arc<Message>),
    /// Between hosts, and no message of the protocol.
    Host(Bytes),
}

impl Packet {
    /// The message in it; none in what hosts say to each other.
    pub fn open(&self) -> Option<Message> {
        match self {
            Self::Encoded(bytes) => Some(
                codec::decode(bytes.clone())
                    .expect("what one replica encodes every replica decodes"),
            ),
            Self::Shared(message) => Some(Message::clone(message)),
            Self::Host(_) => None,
        }
    }
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self, self.open()) {
            (_, Some(message)) => write!(f, "{:?}", message.body),
            (Self::Host(bytes), _) => write!(f, "host's frame of {} bytes", bytes.len()),
            (Self::Encoded(_) | Self::Shared(_), None) => f.write_str("nothing"),
        }
    }
}

/// One thing that happened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A replica started; its boot counter and the slot that its state machine holds.
    Start(u32, Slot),
    /// A replica lost its power, with so many writes not proved.
    Crash(usize),
    /// The process stands still until then.
    Pause(Time),
    /// A message left for this replica, or was lost on the way.
    Send(ReplicaId, Packet, &'static str),
    /// A message arrived from this replica.
    Receive(ReplicaId, Packet),
    /// A batch was given to the disk: its number and how many facts.
    Persist(u64, usize),
    /// The disk proved everything up to this batch.
    Durable(u64),
    /// A timer was due.
    Timeout,
    /// A value was handed to the state machine.
    Apply(Slot),
    /// The state machine said it holds everything up to this slot.
    Applied(Slot),
    /// Commands were proposed in this slot.
    Propose(Slot),
    /// Commands were refused.
    Refuse,
    /// The log is read from this slot on.
    Load(Slot),
    /// The log was read: so many values.
    Loaded(usize),
    /// The replica stopped for good.
    Halt,
    /// The network, or all of the cluster, changed.
    World(String),
}

impl Event {
    fn words(&self) -> (u64, u64, u64) {
        match self {
            Self::Start(boot, slot) => (1, u64::from(*boot), slot.number()),
            Self::Crash(count) => (2, *count as u64, 0),
            Self::Pause(until) => (3, until.nanos(), 0),
            Self::Send(to, packet, fate) => {
                (4, u64::from(to.number()) << 8 | fate.len() as u64, sum(packet))
            }
            // Its bytes were counted when it was sent.
            Self::Receive(from, _) => (5, u64::from(from.number()), 0),
            Self::Persist(sequence, count) => (6, *sequence, *count as u64),
            Self::Durable(sequence) => (7, *sequence, 0),
            Self::Timeout => (8, 0, 0),
            Self::Apply(slot) => (9, slot.number(), 0),
            Self::Applied(slot) => (10, slot.number(), 0),
            Self::Propose(slot) => (11, slot.number(), 0),
            Self::Refuse => (12, 0, 0),
            Self::Load(slot) => (13, slot.number(), 0),
            Self::Loaded(count) => (14, *count as u64, 0),
            Self::Halt => (15, 0, 0),
            Self::World(text) => (16, text.len() as u64, 0),
        }
    }
}

/// A few words of a message, enough to tell two runs apart.
fn sum(packet: &Packet) -> u64 {
    let (Packet::Encoded(bytes) | Packet::Host(bytes)) = packet else {
        return 0;
    };
    bytes.chunks(8).fold(bytes.len() as u64, |hash, chunk| {
        let word = (chunk.iter()).fold(0, |word, byte| word << 8 | u64::from(*byte));
        (hash.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    })
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(boot, slot) => write!(f, "starts life {boot}, applied up to {slot}"),
            Self::Crash(count) => write!(f, "crashes with {count} writes not proved"),
            Self::Pause(until) => write!(f, "stands still until {:.6}", seconds(*until)),
            Self::Send(to, packet, fate) => {
                write!(f, "sends to {to}{fate}: {packet}")
            }
            Self::Receive(from, packet) => {
                write!(f, "hears from {from}: {packet}")
            }
            Self::Persist(sequence, count) => write!(f, "writes batch {sequence}: {count} facts"),
            Self::Durable(sequence) => write!(f, "durable up to batch {sequence}"),
            Self::Timeout => f.write_str("timer"),
            Self::Apply(slot) => write!(f, "hands out {slot}"),
            Self::Applied(slot) => write!(f, "applied {slot}"),
            Self::Propose(slot) => write!(f, "proposes commands in {slot}"),
            Self::Refuse => f.write_str("refuses commands"),
            Self::Load(slot) => write!(f, "reads its log from {slot}"),
            Self::Loaded(count) => write!(f, "read {count} values"),
            Self::Halt => f.write_str("halts"),
            Self::World(text) => f.write_str(text),
        }
    }
}

fn seconds(time: Time) -> f64 {
    time.since(Time::ZERO).as_secs_f64()
}

/// The last events, and the hash of all.
#[derive(Clone, Debug)]
pub struct Trace {
    ring: VecDeque<(Time, u16, Event)>,
    capacity: usize,
    hash: u64,
    events: u64,
}

impl Trace {
    /// A trace that remembers the last `capacity` events.
    pub fn new(capacity: usize) -> Self {
        Self { ring: VecDeque::with_capacity(capacity.min(4096)), capacity, hash: 0, events: 0 }
    }

    /// Something happened at this replica, or to the whole cluster.
    pub(crate) fn push(&mut self, now: Time, replica: Option<ReplicaId>, event: Event) {
        let replica = replica.map_or(0, ReplicaId::number);
        let (code, first, second) = event.words();
        let head = now.nanos() ^ u64::from(replica) << 56 ^ code << 48;
        self.hash = mix(self.hash ^ mix(head) ^ first.rotate_left(17) ^ second);
        self.events += 1;
        if self.capacity == 0 {
            return;
        }
        if self.ring.len() == self.capacity {
            self.ring.pop_front();
        }
        self.ring.push_back((now, replica, event));
    }

    /// A number that two runs share exactly if the same happened in both.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// How many events there were.
    pub fn events(&self) -> u64 {
        self.events
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (time, replica, event) in &self.ring {
            match replica {
                0 => writeln!(f, "{:>12.6}  --  {event}", seconds(*time))?,
                id => writeln!(f, "{:>12.6}  r{id}  {event}", seconds(*time))?,
            }
        }
        Ok(())
    }
}
