//! What no world may show: the invariants that take more than one replica to see.
//!
//! Owns: [`check`], which judges what one move added. Rests on the votes that were ever durable and
//! on the messages ever sent, never on what a replica believes.
//! Source: protocol.md §15.

use std::collections::BTreeMap;

use paxos_core::ballot::Ballot;
use paxos_core::ids::{Epoch, Slot};
use paxos_core::membership::Membership;
use paxos_core::message::{Accept, Body, Message, Prepare, SlotState};
use paxos_core::quorum::VoterSet;
use paxos_core::value::Value;

use crate::marks::Mark;
use crate::members::{Spans, accepts};
use crate::table::{MessageId, Move, NodeId, Table};
use crate::world::World;

/// What a move added to a world that it led to.
pub(crate) struct Added<'a> {
    pub(crate) table: &'a Table,
    /// The first membership, and all that may follow.
    pub(crate) memberships: &'a [Membership],
    /// The world after the move.
    pub(crate) world: &'a World,
    /// Where in the world the move happened.
    pub(crate) place: usize,
    pub(crate) answer: &'a Move,
    /// The messages that nobody had sent before.
    pub(crate) fresh: &'a [MessageId],
}

/// Judges a move. The first thing wrong, if any.
pub(crate) fn check(added: &Added<'_>) -> Result<(), String> {
    check_agreement(added)?;
    // Rules M6 and M4: no earlier membership is needed any more.
    for epoch in added.answer.gave_up.iter().chain(&added.answer.changes) {
        added.judge_held(*epoch)?;
    }
    for slot in &added.answer.voted {
        added.chosen(*slot)?;
        added.one_value_per_ballot(*slot)?;
    }
    for (slot, value) in &added.answer.claims {
        added.judge_claim(*slot, value.as_ref())?;
    }
    for id in added.fresh {
        let (_, message) = &*added.table.message(*id);
        match &message.body {
            Body::Prepare(prepare) => added.judge_prepare(message, *prepare)?,
            Body::Accept(accept) => {
                added.judge_accept(accept)?;
                if added.had_a_choice(accept) {
                    added.table.mark(Mark::HighestOfSeveral);
                }
            }
            Body::Promise(_)
            | Body::Accepted(_)
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
            | Body::Surveyed(_) => {}
        }
    }
    Ok(())
}

/// Judges only what nobody may ever see: a replica that fails, or two that apply different values.
pub(crate) fn check_agreement(added: &Added<'_>) -> Result<(), String> {
    if let Some(fault) = &added.answer.fault {
        return Err(fault.clone());
    }
    let own = added.table.node(added.world.nodes[added.place]);
    for slot in &added.answer.applied {
        for node in added.world.nodes.map(|id| added.table.node(id)) {
            if node.applied >= *slot && node.disk.value(*slot) != own.disk.value(*slot) {
                return Err(format!("agreement: two replicas apply different values in {slot}"));
            }
        }
    }
    Ok(())
}

impl Added<'_> {
    /// The value chosen in a slot, if there is one. Two are the end of everything.
    fn chosen(&self, slot: Slot) -> Result<Option<Value>, String> {
        let spans = self.spans()?;
        match spans.governing(slot) {
            Some(membership) => self.chosen_by(slot, membership),
            None => Ok(None),
        }
    }

    /// Who governs, by what is chosen.
    fn spans(&self) -> Result<Spans, String> {
        let mut spans = Spans::new(&self.memberships[0]);
        while self.memberships.len() > 1
            && let Some(membership) = spans.governing(spans.next())
            && let Some(value) = self.chosen_by(spans.next(), membership)?
        {
            match value {
                Value::Membership(next) => spans.take(Some(&next)),
                Value::Noop | Value::Batch(_) => spans.take(None),
            }
        }
        Ok(spans)
    }

    fn chosen_by(&self, slot: Slot, governs: &Membership) -> Result<Option<Value>, String> {
        let mut voters: BTreeMap<Ballot, Vec<(Value, VoterSet)>> = BTreeMap::new();
        for (place, id) in self.world.nodes.iter().enumerate() {
            for (at, ballot, value) in self.table.node(*id).disk.ever() {
                if *at == slot {
                    let values = voters.entry(*ballot).or_default();
                    match values.iter_mut().find(|(known, _)| known == value) {
                        Some((_, voters)) => {
                            voters.insert(place);
                        }
                        None => values.push((value.clone(), single(place))),
                    }
                }
            }
        }
        // Counted here, and not by the code that is judged.
        let chosen = voters.into_values().flatten();
        let chosen = chosen.filter(|(_, set)| accepts(governs, |place| set.contains(place)));
        let mut values: Vec<Value> = Vec::new();
        for (value, _) in chosen {
            if !values.contains(&value) {
                values.push(value);
            }
        }
        if values.len() > 1 {
            return Err(format!("agreement: two values are chosen in {slot}"));
        }
        Ok(values.pop())
    }

    fn judge_claim(&self, slot: Slot, value: Option<&Value>) -> Result<(), String> {
        match value {
            Some(value) if self.chosen(slot)?.as_ref() != Some(value) => {
                Err(format!("committed is chosen: {slot} is told with a value not chosen there"))
            }
            Some(_) => Ok(()),
            None => {
                let mut at = Slot::FIRST;
                while at <= slot {
                    if self.chosen(at)?.is_none() {
                        return Err(format!("committed is chosen: nothing is chosen in {at}"));
                    }
                    at = at.next();
                }
                Ok(())
            }
        }
    }

    /// What stood in Accepts, and in durable votes, under each ballot.
    fn one_value_per_ballot(&self, slot: Slot) -> Result<(), String> {
        let mut values: BTreeMap<Ballot, Value> = BTreeMap::new();
        let mut see = |ballot: Ballot, value: &Value| {
            let known = values.entry(ballot).or_insert_with(|| value.clone());
            if known == value {
                Ok(())
            } else {
                Err(format!("one value per ballot and slot: {slot} has two at ballot {ballot}"))
            }
        };
        for id in self.world.nodes {
            for (at, ballot, value) in self.table.node(id).disk.ever() {
                if *at == slot {
                    see(*ballot, value)?;
                }
            }
        }
        for id in &self.world.network {
            if let Body::Accept(accept) = &self.table.message(*id).1.body
                && let Some(value) = value_in(accept, slot)
            {
                see(accept.ballot, value)?;
            }
        }
        Ok(())
    }

    fn judge_accept(&self, accept: &Accept) -> Result<(), String> {
        for (offset, value) in accept.values.iter().enumerate() {
            self.one_value_per_ballot(accept.first.plus(offset as u64))?;
            let valid = match value {
                Value::Noop => true,
                Value::Membership(membership) => {
                    self.memberships[1..].iter().any(|known| *known == **membership)
                }
                Value::Batch(batch) => batch.commands().iter().all(|command| {
                    let place = command.client.number() as usize - 1;
                    let made = self.world.proposals.get(place).copied().unwrap_or_default();
                    command.request.number() <= u64::from(made)
                }),
            };
            if !valid {
                return Err("validity: a value is proposed that no client gave".to_owned());
            }
        }
        Ok(())
    }

    /// An accept quorum of the membership of this epoch has all before it on record.
    fn judge_held(&self, epoch: Epoch) -> Result<(), String> {
        let spans = self.spans()?;
        let Some((from, membership)) = spans.of_epoch(epoch) else {
            return Err(format!("M1: the membership of epoch {epoch} does not govern"));
        };
        let held = |place| {
            let id: NodeId = self.world.nodes[place];
            self.table.node(id).disk.committed() >= from.previous()
        };
        if accepts(membership, held) {
            Ok(())
        } else {
            Err(format!(
                "M6: no accept quorum of epoch {epoch} has the slots before {from} on record"
            ))
        }
    }

    fn judge_prepare(&self, message: &Message, prepare: Prepare) -> Result<(), String> {
        let life = |message: &Message| (message.origin.replica, message.origin.incarnation);
        for id in &self.world.network {
            let (_, other) = &*self.table.message(*id);
            if let Body::Prepare(known) = other.body
                && known.ballot == prepare.ballot
                && life(other) != life(message)
            {
                return Err(format!("ballots are used once: two lives use {}", prepare.ballot));
            }
        }
        Ok(())
    }

    /// Whether promises, or the leader's own disk, named two votes for a slot of this Accept.
    fn had_a_choice(&self, accept: &Accept) -> bool {
        let mut ballots = Vec::new();
        for id in &self.world.network {
            if let Body::Promise(promise) = &self.table.message(*id).1.body
                && promise.ballot == accept.ballot
            {
                let entries = promise.entries.iter().filter(|entry| entry.slot == accept.first);
                ballots.extend(entries.filter_map(|entry| match entry.state {
                    SlotState::Accepted(ballot, _) => Some(ballot),
                    SlotState::Chosen(_) | SlotState::Unknown(_) => None,
                }));
            }
        }
        let node = self.table.node(self.world.nodes[self.place]);
        let own = node.disk.ever().iter().filter(|(slot, _, _)| *slot == accept.first);
        ballots.extend(own.map(|(_, ballot, _)| *ballot).filter(|own| *own < accept.ballot));
        ballots.iter().any(|ballot| *ballot != ballots[0])
    }
}

fn value_in(accept: &Accept, slot: Slot) -> Option<&Value> {
    if slot < accept.first {
        return None;
    }
    accept.values.get(slot.distance_from(accept.first) as usize)
}

fn single(place: usize) -> VoterSet {
    let mut set = VoterSet::EMPTY;
    set.insert(place);
    set
}
