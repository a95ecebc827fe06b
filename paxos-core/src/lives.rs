//! The newest life seen of each peer, durably remembered before it is answered.
//!
//! Owns: peers' incarnations, what their disks were said to hold, and messages that wait until a new
//! life is durable.
//! Invariants: a remembered boot counter never goes back; a peer is listened to only in the life
//! that is durably remembered (D5), and in a new one only if its disk holds what the one before said
//! that it holds (D7); few messages wait for each peer.
//! Source: protocol.md §11.

use std::collections::BTreeMap;

use crate::ballot::Ballot;
use crate::durable::WriteSequence;
use crate::ids::{Incarnation, ReplicaId, Slot};
use crate::message::{Body, Heartbeat, Message};

/// How many messages of a new life wait until it is remembered; more are left to be sent again.
const HELD_MAX: usize = 16;

/// What is remembered of the peers.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Lives {
    newest: BTreeMap<ReplicaId, Incarnation>,
    /// Lives whose record is not durable yet.
    waiting: BTreeMap<ReplicaId, Waiting>,
    /// What was heard of the disks of peers since this replica started.
    told: BTreeMap<ReplicaId, Told>,
}

/// What a peer said that its disk holds. Kept from its first heartbeat on.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
struct Told {
    promised: Option<Ballot>,
    slot: Slot,
}

impl Told {
    /// Whether a disk that holds what this heartbeat says may hold all that was told.
    fn is_kept_by(self, heartbeat: &Heartbeat) -> bool {
        self.slot <= reach(heartbeat) && self.promised <= heartbeat.promised
    }
}

/// The highest slot of which the sender's disk holds a vote or the value.
fn reach(heartbeat: &Heartbeat) -> Slot {
    heartbeat.durable.max(heartbeat.held)
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Waiting {
    after: WriteSequence,
    held: Vec<Message>,
}

/// Lives, with each message that waits several times once.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct LivesState<'a> {
    newest: &'a BTreeMap<ReplicaId, Incarnation>,
    waiting: Vec<(ReplicaId, WriteSequence, Vec<&'a Message>)>,
    told: &'a BTreeMap<ReplicaId, Told>,
}

/// What to do with a message, by the life that sent it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    /// Process it.
    Known,
    /// Remember the life first.
    New,
    /// The life is being made durable: hold the message.
    Waiting,
    /// It is new, and has not told what its disk holds, though the one before did.
    Unproved,
    /// A newer life, or another one with the same counter, is remembered; or one before it told
    /// of more than this one's disk holds.
    Forgetful(Incarnation),
}

impl Lives {
    pub(crate) fn recovered(peers: impl IntoIterator<Item = (ReplicaId, Incarnation)>) -> Self {
        Self {
            newest: peers.into_iter().collect(),
            waiting: BTreeMap::new(),
            told: BTreeMap::new(),
        }
    }

    /// For comparing: its writes are numbered from `proved` on.
    pub(crate) fn since(&self, proved: WriteSequence) -> LivesState<'_> {
        let waiting = self.waiting.iter().map(|(peer, waiting)| {
            let mut held: Vec<&Message> = Vec::new();
            for message in &waiting.held {
                if !held.contains(&message) {
                    held.push(message);
                }
            }
            (*peer, waiting.after.since(proved), held)
        });
        LivesState { newest: &self.newest, waiting: waiting.collect(), told: &self.told }
    }

    /// What becomes of this message of a peer's. Rules D5 and D7.
    pub(crate) fn judge(&self, peer: ReplicaId, message: &Message) -> Verdict {
        let incarnation = message.origin.incarnation;
        match self.newest.get(&peer) {
            Some(newest) if *newest == incarnation => {
                if self.waiting.contains_key(&peer) {
                    Verdict::Waiting
                } else {
                    Verdict::Known
                }
            }
            Some(newest) if !incarnation.succeeds(*newest) => Verdict::Forgetful(*newest),
            Some(newest) => match (self.told.get(&peer), &message.body) {
                (None, _) => Verdict::New,
                // There is nothing to forget.
                (Some(told), _) if *told == Told::default() => Verdict::New,
                (Some(told), Body::Heartbeat(own)) if told.is_kept_by(own) => Verdict::New,
                (Some(_), Body::Heartbeat(_)) => Verdict::Forgetful(*newest),
                (Some(_), _) => Verdict::Unproved,
            },
            None => Verdict::New,
        }
    }

    /// Takes in what the remembered life of a peer says of its disk.
    pub(crate) fn note_told(&mut self, peer: ReplicaId, body: &Body) {
        let (promised, slot) = if let Body::Heartbeat(heartbeat) = body {
            self.told.entry(peer).or_default();
            // What it promised may not be durable yet.
            (None, reach(heartbeat))
        } else if let Body::Promise(promise) = body {
            (Some(promise.ballot), Slot::ZERO)
        } else if let Body::Accepted(accepted) = body {
            (Some(accepted.ballot), accepted.last)
        } else {
            return;
        };
        if let Some(told) = self.told.get_mut(&peer) {
            told.promised = told.promised.max(promised);
            told.slot = told.slot.max(slot);
        }
    }

    /// Remembers a new life; `after` is the write that makes it durable.
    pub(crate) fn remember(
        &mut self,
        peer: ReplicaId,
        incarnation: Incarnation,
        after: WriteSequence,
    ) {
        self.newest.insert(peer, incarnation);
        self.waiting.insert(peer, Waiting { after, held: Vec::new() });
    }

    /// Keeps a message until its sender's life is durable. Returns false if there are too many.
    pub(crate) fn hold(&mut self, peer: ReplicaId, message: Message) -> bool {
        let Some(waiting) = self.waiting.get_mut(&peer) else {
            return false;
        };
        let room = waiting.held.len() < HELD_MAX;
        if room {
            waiting.held.push(message);
        }
        room
    }

    /// How many messages wait for the life of their sender to be remembered.
    pub(crate) fn messages_held(&self) -> usize {
        self.waiting.values().map(|waiting| waiting.held.len()).sum()
    }

    /// The messages of a peer whose life has become durable.
    pub(crate) fn take_ready(
        &mut self,
        is_durable: impl Fn(WriteSequence) -> bool,
    ) -> Option<(ReplicaId, Vec<Message>)> {
        let peer = *self.waiting.iter().find(|(_, waiting)| is_durable(waiting.after))?.0;
        let waiting = self.waiting.remove(&peer)?;
        Some((peer, waiting.held))
    }
}
