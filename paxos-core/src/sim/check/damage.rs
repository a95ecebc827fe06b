//! What the observer makes of disks that fail, rot, lie and forget.
//!
//! Chosen values must survive it all: a value is stable in a slot while no prepare quorum of voters
//! that may still answer could be gathered of which none holds it.

use std::collections::BTreeMap;

use super::snapshot::newest_of;
use super::{Check, Invariant, SlotHistory};
use crate::ballot::Ballot;
use crate::durable::Write;
use crate::ids::{Incarnation, LogClock, ReplicaId, Slot};
use crate::port::{Recovered, StorageError};
use crate::quorum::VoterSet;
use crate::sim::disk::Harm;
use crate::value::Value;

/// What a disk proved, beside the promise and the committed prefix, and has to give back.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// The last vote in each slot.
    votes: BTreeMap<Slot, (Ballot, Value)>,
    chosen: BTreeMap<Slot, Value>,
    peers: BTreeMap<ReplicaId, Incarnation>,
    clock: LogClock,
    trimmed: Slot,
    refused: bool,
}

impl Held {
    pub(super) fn note(&mut self, write: &Write) {
        match write {
            Write::Accepted { slot, ballot, value } => {
                self.saw(value);
                self.votes.insert(*slot, (*ballot, value.clone()));
            }
            Write::Chosen { slot, value } => {
                self.saw(value);
                self.chosen.insert(*slot, value.clone());
            }
            Write::Trimmed(slot) => self.trimmed = self.trimmed.max(*slot),
            Write::Peer { peer, incarnation } => {
                self.peers.insert(*peer, *incarnation);
            }
            Write::Refused { .. } => self.refused = true,
            Write::Promised(_) | Write::Committed(_) | Write::Governs { .. } => {}
        }
    }

    fn saw(&mut self, value: &Value) {
        if let Value::Batch(batch) = value {
            self.clock = self.clock.max(batch.clock());
        }
    }

    /// What a recovery gave back is what the disk holds from here on. Below the committed prefix
    /// nobody asks for votes.
    pub(super) fn begin(&mut self, recovered: &Recovered) {
        let votes = recovered.votes.iter();
        let votes = votes.map(|vote| (vote.slot, (vote.ballot, vote.value.clone())));
        *self = Self {
            votes: votes.collect(),
            chosen: recovered.chosen.iter().cloned().collect(),
            peers: recovered.peers.iter().copied().collect(),
            clock: recovered.clock,
            trimmed: recovered.trimmed,
            refused: false,
        };
    }

    /// What a recovery does not give back.
    pub(super) fn lost(&self, recovered: &Recovered) -> Option<String> {
        let above = recovered.committed.max(recovered.trimmed).next();
        let vote = self.votes.range(above..).find(|(slot, (ballot, _))| {
            let mut votes = recovered.votes.iter();
            !votes.any(|vote| vote.slot == **slot && vote.ballot >= *ballot)
        });
        if let Some((slot, (ballot, _))) = vote {
            return Some(format!("its vote in {slot} at ballot {ballot}"));
        }
        let chosen = self.chosen.range(above..).find(|(slot, value)| {
            let mut chosen = recovered.chosen.iter();
            !chosen.any(|(at, found)| at == *slot && found == *value)
        });
        if let Some((slot, _)) = chosen {
            return Some(format!("that {slot} is chosen"));
        }
        let peer = self.peers.iter().find(|(peer, life)| {
            let mut peers = recovered.peers.iter();
            !peers.any(|(id, found)| id == *peer && found.boot() >= life.boot())
        });
        if let Some((peer, life)) = peer {
            return Some(format!("life {life} of {peer}"));
        }
        if self.refused {
            return Some("that a peer refused it".to_owned());
        }
        if recovered.clock < self.clock {
            return Some(format!("the clock {:?}", self.clock));
        }
        (recovered.trimmed < self.trimmed).then(|| format!("its trim to {}", self.trimmed))
    }

    /// Whether this disk tells what was chosen in a slot at that ballot.
    fn tells(&self, slot: Slot, value: &Value, chosen_at: Ballot) -> bool {
        let vote = self.votes.get(&slot);
        self.chosen.contains_key(&slot)
            || vote.is_some_and(|(ballot, voted)| *ballot >= chosen_at && voted == value)
    }
}

impl Check {
    /// Whether a disk that was told to lie gives back less than what it proved.
    pub fn forgets(&self, by: ReplicaId, recovered: &Recovered) -> bool {
        let replica = &self.replicas[usize::from(by.number()) - 1];
        let older = replica.life.is_some_and(|life| life.boot() >= recovered.incarnation.boot());
        replica.harms.contains(&Harm::Amnesia)
            && (older
                || recovered.promised < replica.durable_promised
                || recovered.committed < replica.durable_committed
                || newest_of(recovered) < replica.snapshot
                || replica.held.lost(recovered).is_some())
    }

    /// A fault was ordered for a replica's disk.
    pub fn disk_struck(&mut self, id: ReplicaId, harm: Harm) {
        self.replica(id).harms.insert(harm);
    }

    /// Whether a fault was ordered for a replica's disk.
    pub fn is_struck(&self, id: ReplicaId) -> bool {
        !self.replicas[usize::from(id.number()) - 1].harms.is_empty()
    }

    /// Whether a replica lost its memory in a way that its peers notice.
    pub(super) fn is_wiped(&self, id: ReplicaId) -> bool {
        self.replicas[usize::from(id.number()) - 1].wiped
    }

    /// Whether every other replica remembers a replica's last life durably, and so refuses an older
    /// one. Where one does not, nothing protects from an old copy.
    pub fn is_known(&self, id: ReplicaId) -> bool {
        let own = usize::from(id.number()) - 1;
        let life = self.replicas[own].life;
        let others = self.replicas.iter().enumerate().filter(|(at, _)| *at != own);
        life.is_some() && { others }.all(|(_, other)| other.held.peers.get(&id).copied() == life)
    }

    /// An old copy was put in the place of a replica's directory: what came after it cannot be
    /// expected back, and its peers are expected to refuse it.
    pub fn rolled_back(&mut self, id: ReplicaId) {
        let replica = self.replica(id);
        replica.pending.clear();
        replica.promised_once = replica.promised_once.max(replica.durable_promised.take());
        replica.durable_committed = Slot::ZERO;
        replica.durable_vote = Slot::ZERO;
        replica.held = Held::default();
        replica.snapshot = Slot::ZERO;
        replica.life = None;
        replica.wiped = true;
    }

    /// A storage failed: there is a cause, and the error names it.
    pub fn storage_failed(&mut self, id: ReplicaId, error: &StorageError) {
        let replica = self.replica(id);
        let explained = match error {
            StorageError::Io { .. } => replica.harms.contains(&Harm::Passing),
            // What goes astray on its way to the reader looks like damage.
            StorageError::Corrupt { .. } | StorageError::Mismatch { .. } => {
                !replica.harms.is_empty()
            }
            StorageError::Refused { .. } => replica.wiped,
            StorageError::NotFormatted { .. } => replica.harms.contains(&Harm::Amnesia),
            StorageError::AlreadyFormatted { .. }
            | StorageError::AlreadyOpen { .. }
            | StorageError::Poisoned => false,
        };
        replica.gone |= !matches!(error, StorageError::Io { .. } | StorageError::Poisoned);
        self.require(explained, Invariant::DamageNamed, || {
            format!("the storage of {id} fails without a cause, or with the wrong name: {error}")
        });
        self.require_stable("a disk failed");
    }

    /// A replica whose disk lied is left off by whoever runs it.
    pub fn left_off(&mut self, id: ReplicaId) {
        self.replica(id).gone = true;
        self.require_stable("a disk lied");
    }

    /// Committed values were read from a log.
    pub fn loaded(&mut self, by: ReplicaId, from: Slot, values: &[Value]) {
        let mut slot = from;
        for value in values {
            let chosen = self.chosen(slot) == Some(value);
            self.require(chosen, Invariant::DamageNamed, || {
                format!("the log of {by} gives a value in {slot} that is not chosen there")
            });
            slot = slot.next();
        }
    }

    /// All of the committed prefix that is not trimmed was read from a log that was just recovered.
    pub fn audited(&mut self, by: ReplicaId, from: Slot, through: Slot, values: &[Value]) {
        let expected = through.number() - from.number() + 1;
        let found = values.len() as u64;
        self.require(found == expected, Invariant::ChosenStable, || {
            format!("the log of {by} holds {found} of the {expected} values from {from} on")
        });
        self.loaded(by, from, values);
    }

    /// Whoever may still answer a Prepare tells of every chosen value.
    pub(super) fn require_stable(&mut self, when: &str) {
        let lost = self.slots.iter().find_map(|(slot, history)| {
            let others = self.ignorant_of(*slot, history)?;
            self.governing(*slot).quorums().is_prepare_quorum(others).then_some(*slot)
        });
        self.require(lost.is_none(), Invariant::ChosenStable, || {
            format!("{when}: a prepare quorum can be had that tells nothing of {lost:?}")
        });
    }

    /// The voters that may answer and do not hold what is chosen in a slot, if anything is.
    fn ignorant_of(&self, slot: Slot, history: &SlotHistory) -> Option<VoterSet> {
        let (chosen, chosen_at) = (history.chosen.as_ref()?, history.chosen_at?);
        let mut others = VoterSet::EMPTY;
        for (voter, member) in self.governing(slot).voters().iter().enumerate() {
            let replica = &self.replicas[usize::from(member.id.number()) - 1];
            let holds = replica.durable_committed.max(replica.snapshot) >= slot
                || replica.held.tells(slot, chosen, chosen_at);
            // Who was wiped or rolled back is refused by those who know; who is gone stays so.
            if !holds && !replica.gone && !replica.wiped {
                others.insert(voter);
            }
        }
        Some(others)
    }
}
