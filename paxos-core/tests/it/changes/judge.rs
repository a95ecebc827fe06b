//! What was decided, reckoned from the disks alone: an account of its own of who governs which slot, and
//! of what those voters made durable.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use paxos_core::ballot::Ballot;
use paxos_core::durable::Write;
use paxos_core::ids::{Epoch, ReplicaId, Slot};
use paxos_core::membership::Membership;
use paxos_core::message::{Accept, Body};
use paxos_core::value::Value;

type Votes = BTreeMap<Ballot, (Value, BTreeSet<ReplicaId>)>;

/// What has become durable, and what follows from it.
pub(super) struct Judge {
    /// Memberships with the first slots that they govern.
    governs: Vec<(Slot, Arc<Membership>)>,
    votes: BTreeMap<Slot, Votes>,
    promised: BTreeMap<ReplicaId, Ballot>,
    pub(super) chosen: BTreeMap<Slot, Value>,
    pub(super) prefix: Slot,
    /// The longest prefix that any replica took for committed.
    pub(super) known: Slot,
}

impl Judge {
    pub(super) fn new(first: Membership) -> Self {
        Self {
            governs: vec![(slot(1), Arc::new(first))],
            votes: BTreeMap::new(),
            promised: BTreeMap::new(),
            chosen: BTreeMap::new(),
            prefix: Slot::ZERO,
            known: Slot::ZERO,
        }
    }

    pub(super) fn newest(&self) -> &Membership {
        &self.governs.last().unwrap().1
    }

    /// Every member of any membership so far.
    pub(super) fn ever(&self) -> BTreeSet<ReplicaId> {
        self.governs.iter().flat_map(|(_, m)| m.members()).map(|member| member.id).collect()
    }

    fn governing(&self, at: Slot) -> Arc<Membership> {
        self.governs.iter().rev().find(|(from, _)| *from <= at).unwrap().1.clone()
    }

    /// A fact is on a replica's disk.
    pub(super) fn durable(&mut self, by: ReplicaId, write: &Write) {
        match write {
            Write::Promised(ballot) => self.promise(by, *ballot),
            Write::Accepted { slot, ballot, value } => {
                self.promise(by, *ballot);
                let votes = self.votes.entry(*slot).or_default();
                let vote = votes.entry(*ballot).or_insert((value.clone(), BTreeSet::new()));
                assert_eq!(vote.0, *value, "one value at {ballot} in {slot}");
                vote.1.insert(by);
                self.count(*slot);
            }
            Write::Chosen { slot, value } => {
                assert_eq!(self.chosen.get(slot), Some(value), "{by} takes {slot} for chosen");
            }
            Write::Committed(through) => assert!(*through <= self.prefix, "{by} records {through}"),
            Write::Governs { from, membership } => {
                let held = self.governs.iter().any(|known| known == &(*from, membership.clone()));
                assert!(held, "{by} records that {} governs from {from}", membership.epoch());
            }
            Write::Trimmed(_) | Write::Refused { .. } | Write::Peer { .. } => {}
        }
    }

    fn promise(&mut self, by: ReplicaId, ballot: Ballot) {
        let promised = self.promised.entry(by).or_insert(ballot);
        *promised = (*promised).max(ballot);
    }

    /// Looks whether those who govern a slot have chosen something in it.
    fn count(&mut self, at: Slot) {
        let membership = self.governing(at);
        let window = u64::from(membership.window());
        assert!(at.distance_from(self.prefix) <= 2 * window, "{at} is voted in too early");
        for (ballot, (value, voters)) in &self.votes[&at] {
            let set = membership.voters_where(|id| voters.contains(&id));
            if membership.quorums().is_accept_quorum(set) {
                let chosen = self.chosen.entry(at).or_insert_with(|| value.clone());
                assert_eq!(chosen, value, "agreement in {at}, at {ballot}");
            }
        }
        self.extend();
    }

    fn extend(&mut self) {
        while let Some(value) = self.chosen.get(&self.prefix.next()) {
            self.prefix = self.prefix.next();
            let Value::Membership(next) = value else { continue };
            let (from, newest) = self.governs.last().unwrap();
            let follows = next.epoch().number() == newest.epoch().number() + 1;
            if follows && self.prefix >= *from && next.window() == newest.window() {
                let from = self.prefix.plus(u64::from(next.window()));
                self.governs.push((from, next.clone()));
                assert!(self.votes.range(from..).next().is_none(), "nobody was this far");
            }
        }
    }

    /// A message leaves: what is proposed is safe, by what the disks of those who govern its slot say.
    pub(super) fn sent(&self, by: ReplicaId, committed: Slot, body: &Body) {
        let Body::Accept(Accept { ballot, first, values, .. }) = body else { return };
        for (offset, value) in values.iter().enumerate() {
            let at = first.plus(offset as u64);
            let membership = self.governing(at);
            let limit = u64::from(membership.window());
            assert!(at.distance_from(committed) <= limit, "{by} proposes {at} too early");
            self.require_safe(at, *ballot, value, &membership);
        }
    }

    /// Some prepare quorum accepts nothing below the ballot any more, and the highest vote below it in
    /// that quorum is for this value, or there is none.
    fn require_safe(&self, at: Slot, ballot: Ballot, value: &Value, membership: &Membership) {
        if self.chosen.get(&at) == Some(value) {
            return;
        }
        let votes = || self.votes.get(&at).into_iter().flatten().filter(|(b, _)| **b < ballot);
        let permits = |limit: Option<Ballot>| {
            let set = membership.voters_where(|id| {
                let highest = votes().filter(|(_, v)| v.1.contains(&id)).map(|(b, _)| *b).max();
                self.promised.get(&id) >= Some(&ballot) && highest <= limit
            });
            membership.quorums().is_prepare_quorum(set)
        };
        let safe = permits(None) || votes().any(|(b, v)| v.0 == *value && permits(Some(*b)));
        assert!(safe, "{ballot} proposes in {at} what no prepare quorum of its voters permits");
    }

    /// Whether a replica that nobody needs is told so.
    pub(super) fn may_stop(&self, id: ReplicaId, epoch: Epoch) {
        let membership = self.governs.iter().find(|(_, m)| m.epoch() == epoch);
        let (from, membership) = membership.expect("it was told of one that governs");
        assert!(!membership.contains(id), "{id} is a member of {epoch}");
        assert!(self.prefix >= from.previous(), "the slots of those before {epoch} are chosen");
    }
}

pub(super) fn slot(number: u64) -> Slot {
    Slot::new(number)
}
