//! The newest life seen of each peer, durably remembered before it is answered.
//!
//! Owns: peers' incarnations, and messages that wait until a new one is durable.
//! Invariants: a remembered boot counter never goes back; a peer is listened to only in the life
//! that is durably remembered (D5); few messages wait for each peer.
//! Source: protocol.md §11.

use std::collections::BTreeMap;

use crate::durable::WriteSequence;
use crate::ids::{Incarnation, ReplicaId};
use crate::message::Message;

/// How many messages of a new life wait until it is remembered; more are left to be sent again.
const HELD_MAX: usize = 16;

/// What is remembered of the peers.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Lives {
    newest: BTreeMap<ReplicaId, Incarnation>,
    /// Lives whose record is not durable yet.
    waiting: BTreeMap<ReplicaId, Waiting>,
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
    /// A newer life, or another one with the same counter, is remembered.
    Old(Incarnation),
}

impl Lives {
    pub(crate) fn recovered(peers: impl IntoIterator<Item = (ReplicaId, Incarnation)>) -> Self {
        Self { newest: peers.into_iter().collect(), waiting: BTreeMap::new() }
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
        LivesState { newest: &self.newest, waiting: waiting.collect() }
    }

    pub(crate) fn judge(&self, peer: ReplicaId, incarnation: Incarnation) -> Verdict {
        match self.newest.get(&peer) {
            Some(newest) if *newest == incarnation => {
                if self.waiting.contains_key(&peer) {
                    Verdict::Waiting
                } else {
                    Verdict::Known
                }
            }
            Some(newest) if !incarnation.succeeds(*newest) => Verdict::Old(*newest),
            Some(_) | None => Verdict::New,
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
