//! The learner's part: why a replica may believe that a slot is chosen, and what it may do then.
//!
//! Owns the judgement of committed prefixes, fetched values and applied slots (L1–L5, D4, D6). May
//! not touch votes. Invariant: a prefix is taken in only if each of its slots is chosen in fact, and
//! was shown to be by what this life was told or found on its disk.

use super::event::{Acceptor, Ballot, Value};
use super::verdict::{Invariant, Judged, Rule, require};
use super::{Monitor, Replica};

impl Replica {
    /// Takes in a watermark of the leader of `ballot`.
    pub(super) fn watermark(&mut self, ballot: Ballot, committed: u64) {
        let held = self.memory.watermarks.entry(ballot).or_default();
        *held = committed.max(*held);
    }

    /// Whether it was told, or read back, that `slot` is chosen, and has the value.
    pub(super) fn was_told(&self, slot: u64) -> bool {
        self.memory.known.contains(&slot)
            || self.disk.chosen.contains_key(&slot)
            || self.is_marked(slot)
    }

    /// L3: it was told that all proposals of some ballot up to `slot` are chosen, and accepted the
    /// one in `slot`.
    fn is_marked(&self, slot: u64) -> bool {
        let marked = |ballot: &Ballot| {
            self.memory.watermarks.get(ballot).is_some_and(|committed| *committed >= slot)
        };
        let all = (slot, Ballot::MIN)..=(slot, Ballot::MAX);
        self.memory.heard.range(all.clone()).any(|(_, ballot)| marked(ballot))
            || self.disk.votes.range(all).any(|((_, ballot), _)| marked(ballot))
    }
}

impl Monitor {
    /// A value that is told, written or read back as chosen is so.
    pub(super) fn is_chosen(&mut self, at: Acceptor, slot: u64, value: Value) -> Judged {
        let chosen = self.chosen.get(&slot).copied();
        require(chosen == Some(value), Rule::L4, Invariant::S1, || {
            format!("{at} holds {value:?} to be chosen in slot {slot}, which is {chosen:?}")
        })
    }

    pub(super) fn chosen_durable(&mut self, at: Acceptor, slot: u64, value: Value) -> Judged {
        if !self.replica(at).is_voter() {
            return Ok(());
        }
        self.is_chosen(at, slot, value)?;
        self.replica(at).disk.chosen.insert(slot, value);
        Ok(())
    }

    pub(super) fn prefix_durable(&mut self, at: Acceptor, committed: u64) -> Judged {
        if !self.replica(at).is_voter() {
            return Ok(());
        }
        self.claims_prefix(at, committed)?;
        let disk = &mut self.replica(at).disk;
        require(committed >= disk.committed, Rule::L2, Invariant::S13, || {
            format!("{at} recorded prefix {} and records {committed}", disk.committed)
        })?;
        let after = std::mem::replace(&mut disk.committed, committed) + 1;
        for slot in after..=committed {
            let value = self.chosen(slot);
            let disk = &self.replica(at).disk;
            let held = value.is_some_and(|value| disk.snapshot >= slot || disk.holds(slot, value));
            require(held, Rule::L4, Invariant::S10, || {
                format!("{at} records prefix {committed} and its disk lacks slot {slot}")
            })?;
        }
        Ok(())
    }

    /// What a replica says or records of its own prefix is at most what it has committed.
    pub(super) fn claims_prefix(&mut self, at: Acceptor, committed: u64) -> Judged {
        let held = self.replica(at).memory.committed;
        require(committed <= held, Rule::L2, Invariant::S13, || {
            format!("{at} has committed {held} and says {committed}")
        })
    }

    /// What the sender forgot of its votes must lie below what it names, or a read would miss it.
    pub(super) fn left_surveyed(&mut self, from: Acceptor, committed: u64, highest: u64) -> Judged {
        self.claims_prefix(from, committed)?;
        let replica = self.replica(from);
        let voted = replica.disk.votes.keys().next_back().map_or(0, |(slot, _)| *slot);
        let known = if replica.is_voter() { voted.max(replica.disk.committed) } else { 0 };
        require(highest >= known, Rule::R11, Invariant::S15, || {
            format!("{from} names {highest} as its highest slot, and its disk holds {known}")
        })
    }

    pub(super) fn left_fetched(
        &mut self,
        from: Acceptor,
        first: u64,
        values: &[Value],
        committed: u64,
    ) -> Judged {
        self.claims_prefix(from, committed)?;
        for (slot, value) in (first..).zip(values) {
            self.is_chosen(from, slot, *value)?;
        }
        Ok(())
    }

    pub(super) fn learned(&mut self, at: Acceptor, slot: u64, value: Value) {
        let memory = &mut self.replica(at).memory;
        if slot > memory.committed {
            memory.known.insert(slot);
        }
        self.overrule(at, slot, value);
    }

    pub(super) fn delivered_accepted(
        &mut self,
        from: Acceptor,
        to: Acceptor,
        ballot: Ballot,
        first: u64,
        last: u64,
    ) {
        let life = self.replica(to).life;
        let votes = self.quorums.votes(from);
        let Some(campaign) = self.campaigns.get_mut(&ballot) else { return };
        if ballot.leader != to || Some(campaign.life) != life || !votes {
            return;
        }
        for (_, proposal) in campaign.proposals.range_mut(first..=last.max(first)) {
            proposal.tally.insert(from);
        }
    }

    pub(super) fn committed(&mut self, at: Acceptor, through: u64) -> Judged {
        let before = self.replica(at).memory.committed;
        require(through >= before, Rule::L2, Invariant::S13, || {
            format!("{at} goes back from prefix {before} to {through}")
        })?;
        // What a copy of a directory held is not followed. Whoever runs from one, and whoever was
        // answered by one before anybody could tell, is judged by what is chosen alone.
        let is_followed = self.replicas.values().all(|replica| !replica.replaced);
        for slot in before + 1..=through {
            let rule = if is_followed { self.why_not(at, slot) } else { None };
            let chosen = self.chosen.contains_key(&slot);
            require(chosen && rule.is_none(), rule.unwrap_or(Rule::L1), Invariant::S13, || {
                let is = if chosen { "was not shown to be chosen" } else { "is not chosen" };
                format!("{at} commits slot {slot}, which {is}")
            })?;
        }
        let memory = &mut self.replica(at).memory;
        memory.committed = through;
        memory.known = memory.known.split_off(&(through + 1));
        Ok(())
    }

    /// The rule by which `at` has no reason to believe that `slot` is chosen; `None` if it has one.
    fn why_not(&mut self, at: Acceptor, slot: u64) -> Option<Rule> {
        let replica = self.replicas.entry(at).or_default();
        if replica.was_told(slot) {
            return None;
        }
        let mut rule = Rule::L3;
        for ballot in replica.memory.reigns.iter().rev() {
            let proposal = self.campaigns.get(ballot).and_then(|c| c.proposals.get(&slot));
            let Some(proposal) = proposal else { continue };
            let voter = self.quorums.votes(at);
            let durable = replica.disk.votes.contains_key(&(slot, *ballot));
            let tally = proposal.tally;
            if self.quorums.is_accept(if voter && durable { tally.with(at) } else { tally }) {
                return None;
            }
            let early = voter && self.quorums.is_accept(tally.with(at));
            rule = if early { Rule::D4 } else { Rule::L1 };
        }
        Some(rule)
    }

    pub(super) fn applied(
        &mut self,
        at: Acceptor,
        slot: u64,
        value: Value,
        state: Option<u128>,
    ) -> Judged {
        let chosen = self.chosen.get(&slot).copied();
        let replica = self.replicas.entry(at).or_default();
        let (applied, committed) = (replica.memory.applied, replica.memory.committed);
        require(slot == applied + 1 && slot <= committed, Rule::L5, Invariant::S12, || {
            format!("{at} applies slot {slot} after {applied}, its prefix is {committed}")
        })?;
        require(chosen == Some(value), Rule::L5, Invariant::S12, || {
            format!("{at} applies {value:?} in slot {slot}, which is {chosen:?}")
        })?;
        if replica.is_voter() {
            // The record of a prefix follows the values that it rests on.
            let held = slot <= replica.disk.committed || replica.disk.holds(slot, value);
            require(held, Rule::D6, Invariant::S11, || {
                format!("{at} applies slot {slot}, whose value its disk does not hold")
            })?;
        }
        replica.memory.applied = slot;
        if let Some(state) = state {
            let first = *self.states.entry(slot).or_insert(state);
            require(first == state, Rule::Hashes, Invariant::S12, || {
                format!("{at} has state {state:x} after slot {slot}, another had {first:x}")
            })?;
        }
        Ok(())
    }

    pub(super) fn trimmed(&mut self, at: Acceptor, through: u64) -> Judged {
        let replica = self.replica(at);
        let (snapshot, voter) = (replica.disk.snapshot, replica.is_voter());
        let memory = &mut replica.memory;
        let (applied, before) = (memory.applied, memory.trimmed);
        require(through <= applied && through >= before, Rule::L5, Invariant::S17, || {
            format!("{at} trims up to {through}; it applied {applied} and trimmed {before}")
        })?;
        memory.trimmed = through;
        require(through <= snapshot || !voter, Rule::N1, Invariant::S17, || {
            format!("{at} trims up to {through}; its disk has a snapshot of {snapshot}")
        })
    }

    pub(super) fn snapshot_durable(&mut self, at: Acceptor, slot: u64) -> Judged {
        let prefix = self.chosen_prefix();
        require(slot <= prefix, Rule::N2, Invariant::S17, || {
            format!("{at} keeps a snapshot of {slot}, chosen is the prefix to {prefix}")
        })?;
        let replica = self.replica(at);
        if replica.is_voter() {
            replica.disk.snapshot = slot.max(replica.disk.snapshot);
        }
        Ok(())
    }

    pub(super) fn installed(&mut self, at: Acceptor, slot: u64) -> Judged {
        let prefix = self.chosen_prefix();
        let replica = self.replica(at);
        let held = replica.disk.snapshot >= slot || !replica.is_voter();
        let memory = &mut replica.memory;
        let before = memory.committed;
        require(held && before < slot && slot <= prefix, Rule::N4, Invariant::S17, || {
            format!("{at} installs a snapshot of {slot} and has committed {before}")
        })?;
        (memory.committed, memory.applied) = (slot, slot);
        memory.known = memory.known.split_off(&(slot + 1));
        Ok(())
    }
}
