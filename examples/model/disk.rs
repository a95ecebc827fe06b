//! What survives a crash of one replica, and what may never be said without it.
//!
//! Owns: [`Disk`], the facts that were proved durable, folded as the log's recovery folds them,
//! and beside them every vote that was ever durable. Knows no network and no other replica.
//! Invariants: the durable promise never goes back; no vote is below it; the vote of a slot never
//! goes to a lower ballot. A write that breaks one is a fault.
//! Source: protocol.md §4, §6, §7 and §15.

use std::collections::BTreeMap;

use paxos_core::ballot::Ballot;
use paxos_core::durable::Write;
use paxos_core::ids::{Incarnation, LogClock, ReplicaId, Slot};
use paxos_core::message::{Accepted, Body, Promise, SlotState};
use paxos_core::port::{Format, LoadRange, Loaded, Recovered, RecoveredVote, Start};
use paxos_core::snapshot::Governs;
use paxos_core::value::Value;

/// The durable memory of one replica.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Disk {
    boot: u32,
    promised: Option<Ballot>,
    committed: Slot,
    votes: BTreeMap<Slot, (Ballot, Value)>,
    chosen: BTreeMap<Slot, Value>,
    governs: Vec<Governs>,
    peers: BTreeMap<ReplicaId, Incarnation>,
    /// Every vote that was ever durable, also those that a later one replaced: what was chosen
    /// once is judged by these.
    ever: Vec<(Slot, Ballot, Value)>,
}

impl Disk {
    /// A formatted directory whose owner has met its peers.
    pub(crate) fn new(peers: impl IntoIterator<Item = ReplicaId>) -> Self {
        let first = Incarnation::first(0);
        Self {
            boot: first.boot(),
            promised: None,
            committed: Slot::ZERO,
            votes: BTreeMap::new(),
            chosen: BTreeMap::new(),
            governs: Vec::new(),
            peers: peers.into_iter().map(|peer| (peer, first)).collect(),
            ever: Vec::new(),
        }
    }

    /// The next start counts itself before anything else.
    pub(crate) fn count_start(&mut self) {
        self.boot += 1;
    }

    pub(crate) fn ever(&self) -> &[(Slot, Ballot, Value)] {
        &self.ever
    }

    pub(crate) fn vote(&self, slot: Slot) -> Option<&(Ballot, Value)> {
        self.votes.get(&slot)
    }

    /// Up to where the prefix is on record.
    pub(crate) fn committed(&self) -> Slot {
        self.committed
    }

    /// Who governs, as far as it is on record.
    pub(crate) fn governs(&self) -> &[Governs] {
        &self.governs
    }

    pub(crate) fn has_votes(&self) -> bool {
        !self.votes.is_empty()
    }

    /// The life of a peer that is durably remembered.
    pub(crate) fn life(&self, peer: ReplicaId) -> Option<Incarnation> {
        self.peers.get(&peer).copied()
    }

    /// Makes one fact durable; a fact that takes an older one back is a fault.
    pub(crate) fn write(&mut self, write: &Write) -> Result<(), String> {
        match write {
            Write::Promised(ballot) => self.promise(*ballot)?,
            Write::Accepted { slot, ballot, value } => {
                self.promise(*ballot)?;
                if self.votes.get(slot).is_some_and(|(voted, _)| voted > ballot) {
                    return Err(format!("the durable vote of {slot} goes back to ballot {ballot}"));
                }
                self.votes.insert(*slot, (*ballot, value.clone()));
                let vote = (*slot, *ballot, value.clone());
                if !self.ever.contains(&vote) {
                    self.ever.push(vote);
                    self.ever.sort_by_key(|(slot, ballot, _)| (*slot, *ballot));
                }
            }
            Write::Chosen { slot, value } => {
                self.chosen.insert(*slot, value.clone());
            }
            Write::Committed(slot) => {
                if *slot < self.committed {
                    return Err(format!("the durable prefix shrinks to {slot}"));
                }
                self.committed = *slot;
            }
            Write::Peer { peer, incarnation } => {
                self.peers.insert(*peer, *incarnation);
            }
            Write::Governs { from, membership } => {
                let membership = (**membership).clone();
                self.governs.push(Governs { from: *from, membership });
            }
            Write::Trimmed(_) | Write::Refused { .. } => {
                return Err(format!("a write that has no place in these worlds: {write:?}"));
            }
        }
        Ok(())
    }

    fn promise(&mut self, ballot: Ballot) -> Result<(), String> {
        if self.promised > Some(ballot) {
            return Err(format!("the durable promise goes back to ballot {ballot}"));
        }
        self.promised = Some(ballot);
        Ok(())
    }

    /// Whether this message says of this disk only what is true of it: rules D1, D2, D3 and A4.
    pub(crate) fn covers(&self, body: &Body) -> Result<(), String> {
        match body {
            Body::Prepare(prepare) if self.promised < Some(prepare.ballot) => {
                Err(format!("Prepare {} leaves before its promise is durable", prepare.ballot))
            }
            Body::Promise(promise) => self.covers_promise(promise),
            Body::Accepted(accepted) => self.covers_accepted(*accepted),
            Body::Heartbeat(heartbeat) if heartbeat.held > self.committed => {
                Err(format!("{} is said to be held before it is on record", heartbeat.held))
            }
            Body::Prepare(_)
            | Body::Accept(_)
            | Body::Reject(_)
            | Body::Commit(_)
            | Body::Heartbeat(_)
            | Body::Fetch(_)
            | Body::Fetched(_)
            | Body::Refused(_)
            | Body::Confirm(_)
            | Body::Confirmed(_)
            | Body::Transfer(_)
            | Body::Removed(_)
            | Body::Survey(_)
            | Body::Surveyed(_) => Ok(()),
        }
    }

    fn covers_promise(&self, promise: &Promise) -> Result<(), String> {
        let ballot = promise.ballot;
        if self.promised < Some(ballot) {
            return Err(format!("Promise {ballot} leaves before it is durable"));
        }
        for entry in &promise.entries {
            if let SlotState::Accepted(voted, value) = &entry.state
                && !self.ever.contains(&(entry.slot, *voted, value.clone()))
            {
                return Err(format!(
                    "Promise {ballot} names a vote in {} that is not durable",
                    entry.slot
                ));
            }
        }
        // A vote at the promise's own ballot may have come after it was made; a lower one may not.
        for (slot, voted, _) in self.ever.iter().filter(|(_, voted, _)| *voted < ballot) {
            let told = promise.entries.iter().any(|entry| {
                entry.slot == *slot
                    && match &entry.state {
                        SlotState::Chosen(_) => true,
                        SlotState::Accepted(named, _) => named >= voted,
                        SlotState::Unknown(_) => false,
                    }
            });
            if *slot > promise.committed && (promise.from..=promise.through).contains(slot) && !told
            {
                return Err(format!("Promise {ballot} keeps the vote in {slot} to itself"));
            }
        }
        Ok(())
    }

    fn covers_accepted(&self, accepted: Accepted) -> Result<(), String> {
        let Accepted { ballot, first, last } = accepted;
        let mut slot = first;
        while slot <= last {
            if !self.ever.iter().any(|(at, voted, _)| (*at, *voted) == (slot, ballot)) {
                return Err(format!("Accepted {ballot} for {slot} leaves before it is durable"));
            }
            slot = slot.next();
        }
        Ok(())
    }

    /// The value of a slot when the log is read back.
    pub(crate) fn value(&self, slot: Slot) -> Option<&Value> {
        self.chosen.get(&slot).or_else(|| self.votes.get(&slot).map(|(_, value)| value))
    }

    pub(crate) fn load(&self, range: LoadRange) -> Loaded {
        let mut values = Vec::new();
        let mut slot = range.from;
        while slot <= range.through
            && let Some(value) = self.value(slot)
        {
            values.push(value.clone());
            slot = slot.next();
        }
        Loaded { values, trimmed: Slot::ZERO }
    }

    /// What the log's recovery gives.
    pub(crate) fn recover(&self, format: Format) -> Recovered {
        let above = |slot: &Slot| *slot > self.committed;
        let votes = self.votes.iter().filter(|(slot, _)| above(slot));
        let chosen = self.chosen.iter().filter(|(slot, _)| above(slot));
        Recovered {
            format,
            start: Start::Again,
            incarnation: Incarnation::new(self.boot, 0),
            promised: self.promised,
            committed: self.committed,
            trimmed: Slot::ZERO,
            votes: votes
                .map(|(slot, (ballot, value))| RecoveredVote {
                    slot: *slot,
                    ballot: *ballot,
                    value: value.clone(),
                })
                .collect(),
            chosen: chosen.map(|(slot, value)| (*slot, value.clone())).collect(),
            clock: LogClock::default(),
            peers: self.peers.iter().map(|(peer, life)| (*peer, *life)).collect(),
            governs: self.governs.clone(),
            snapshot: None,
        }
    }
}
