//! The replica as a leader: proposing, counting, repeating, telling the watermark.
//!
//! Owns no state of its own.
//! Source: protocol.md §8 (reign) and §9 (L1).

use super::Replica;
use crate::ballot::Ballot;
use crate::codec::VALUE_HEADER_LEN;
use crate::ids::{ReplicaId, Slot};
use crate::learner::Counted;
use crate::message::{Accept, Accepted, Commit};
use crate::output::Recipients;
use crate::proposer::{AdoptedFrom, Proposer};
use crate::value::Value;

impl Replica {
    /// Proposes a new batch in the slot that the reign names next.
    pub(super) fn propose_next(&mut self, slot: Slot, ballot: Ballot, value: Value) {
        let Proposer::Leading(reign) = &mut self.proposer else {
            unreachable!("only a leader proposes");
        };
        assert!(reign.take_next() == slot, "the slot is the one that was looked up");
        self.open(slot, ballot, &value);
        self.send_proposals(ballot, slot, vec![value]);
    }

    /// Votes for an own proposal and begins to count.
    pub(super) fn open(&mut self, slot: Slot, ballot: Ballot, value: &Value) {
        self.learner.open(slot, ballot, value.clone());
        assert!(
            self.acceptor.vote(slot).is_none_or(|vote| vote.ballot < ballot),
            "a leader proposes one value in a slot"
        );
        assert!(self.vote(ballot, slot, value), "a leader's own window is within its acceptor's");
    }

    fn send_accept(&mut self, to: Recipients, ballot: Ballot, first: Slot, values: Vec<Value>) {
        let committed = self.learner.committed();
        self.outbox.send(to, Accept { ballot, committed, first, values });
    }

    /// Sends what is proposed for the first time to the peers that are not held back. Rules F1
    /// to F3.
    pub(super) fn send_proposals(&mut self, ballot: Ballot, first: Slot, values: Vec<Value>) {
        if self.peers.is_empty() {
            return;
        }
        let lens: Vec<usize> = values.iter().map(Value::encoded_len).collect();
        let bytes = lens.iter().sum();
        let mut open = Vec::with_capacity(self.peers.len());
        for (place, peer) in self.peers.iter().enumerate() {
            let heard = self.pacemaker.hears(*peer, self.now);
            if !self.flows.admits(place, values.len(), bytes, heard) {
                self.counters.proposals_held_back += 1;
                continue;
            }
            open.push(*peer);
            let mut slot = first;
            for len in &lens {
                self.flows.sent(place, slot, *len);
                slot = slot.next();
            }
        }
        // Those that are held back learn of it by the next heartbeat.
        self.told = self.learner.committed();
        if open.len() == self.peers.len() {
            self.send_accept(Recipients::AllPeers, ballot, first, values);
        } else {
            for peer in open {
                self.send_accept(Recipients::One(peer), ballot, first, values.clone());
            }
        }
    }

    /// Proposes what promises named, as far as the window allows, in as few messages as the page
    /// size allows. Returns whether there was anything. Rules P2 and Q3.
    pub(super) fn propose_adopted(&mut self) -> bool {
        let committed = self.learner.committed();
        let Proposer::Leading(reign) = &mut self.proposer else {
            return false;
        };
        let ballot = reign.ballot();
        let page = self.config.page_bytes_max;
        let mut run: Vec<(Slot, Value)> = Vec::new();
        let mut bytes = 0;
        loop {
            // A value that does not fit any more begins the next message; one that is too long for
            // any goes alone.
            let room = if run.is_empty() { usize::MAX } else { page.saturating_sub(bytes) };
            let Some(adoption) = reign.next_adoption(committed, &self.roster, room) else { break };
            match adoption.origin {
                AdoptedFrom::Promise => self.counters.values_adopted += 1,
                AdoptedFrom::Gap => self.counters.gaps_filled += 1,
            }
            if let Value::Batch(batch) = &adoption.value {
                self.clock = self.clock.max(batch.clock());
            }
            bytes += VALUE_HEADER_LEN + adoption.value.encoded_len();
            run.push((adoption.slot, adoption.value));
        }
        if run.is_empty() {
            return false;
        }
        for (slot, value) in &run {
            self.open(*slot, ballot, value);
        }
        for (first, values) in consecutive(run) {
            self.send_proposals(ballot, first, values);
        }
        true
    }

    /// A peer has asked for the rest of the prefix: if it was held back, what is in flight follows.
    /// Rule F3.
    pub(super) fn resume_proposals(&mut self, peer: ReplicaId) {
        let Proposer::Leading(reign) = &self.proposer else {
            return;
        };
        let ballot = reign.ballot();
        let Some(place) = self.peers.iter().position(|other| *other == peer) else {
            return;
        };
        let in_flight: Vec<(Slot, Value)> =
            self.learner.tallies().map(|(slot, tally)| (slot, tally.value.clone())).collect();
        let bytes = in_flight.iter().map(|(_, value)| value.encoded_len()).sum();
        if !self.flows.resume(place, in_flight.len(), bytes) {
            return;
        }
        for (slot, value) in &in_flight {
            self.flows.sent(place, *slot, value.encoded_len());
        }
        for (first, values) in consecutive(in_flight) {
            self.send_accept(Recipients::One(peer), ballot, first, values);
        }
    }

    pub(super) fn on_accepted(&mut self, from: ReplicaId, accepted: Accepted) {
        let Accepted { ballot, first, last } = accepted;
        if !self.is_leading_at(ballot) || !self.roster.is_voter(from) {
            self.counters.dropped_stale += 1;
            return;
        }
        self.flows.answered(from, first, last);
        // A range is only looked at where something is in flight, however long it claims to be.
        let first = first.max(self.learner.committed().next());
        let last = last.min(self.window_end());
        self.pacemaker.note_vote(from, ballot, last);
        let mut slot = first;
        while slot <= last {
            match self.learner.count(from, slot, ballot, self.roster.governing(slot)) {
                Counted::New => {}
                Counted::Stale => self.counters.dropped_stale += 1,
                Counted::Chosen => {
                    let value = self.learner.tally(slot).map(|tally| tally.value.clone());
                    let value = value.expect("the vote was counted in this tally");
                    self.counters.values_chosen += 1;
                    self.pacemaker.note_peace();
                    self.choose_voted(slot, value);
                }
            }
            slot = slot.next();
        }
        self.extend_committed();
        if self.is_leading_at(ballot) && self.repeats.answered(from, accepted.first, accepted.last)
        {
            self.repeat_page(from, ballot, self.config.page_bytes_max);
        }
    }

    pub(super) fn is_leading_at(&self, ballot: Ballot) -> bool {
        matches!(&self.proposer, Proposer::Leading(reign) if reign.ballot() == ballot)
    }

    /// Tells the watermark, unless an Accept carried it.
    pub(super) fn tell_committed(&mut self) {
        let Proposer::Leading(reign) = &self.proposer else {
            return;
        };
        let committed = self.learner.committed();
        if self.told < committed && !self.peers.is_empty() {
            self.told = committed;
            let ballot = reign.ballot();
            self.outbox.send(Recipients::AllPeers, Commit { ballot, committed });
        }
    }

    pub(super) fn on_retransmit_due(&mut self) {
        match &self.proposer {
            Proposer::Idle => {}
            Proposer::Preparing(_) => self.repeat_prepare(),
            Proposer::Leading(reign) => {
                let ballot = reign.ballot();
                self.ask_promises();
                self.repeat_confirm(ballot);
                self.repeat_accepts(ballot);
                self.repeat_transfer();
            }
        }
    }

    /// Sends again what was in flight a whole interval ago, to the voters that have not answered.
    fn repeat_accepts(&mut self, ballot: Ballot) {
        let in_flight = self.learner.tallies().last().map(|(slot, _)| slot);
        self.repeats.interval(in_flight.unwrap_or_else(|| self.window_end()));
        for voter in self.open_voters() {
            // Rule F4.
            let silent = self.repeats.is_unanswered(voter);
            self.repeat_page(voter, ballot, if silent { 0 } else { self.config.page_bytes_max });
        }
        self.pacemaker.arm_retransmit(self.now);
    }

    /// Sends a voter again as much as fits of what it has not accepted, and one value at least.
    fn repeat_page(&mut self, voter: ReplicaId, ballot: Ballot, bytes_max: usize) {
        if voter == self.outbox.replica() || !self.pacemaker.hears(voter, self.now) {
            return;
        }
        let through = self.repeats.through();
        let mut bytes = 0;
        let missing: Vec<_> = self
            .learner
            .tallies()
            .take_while(|(slot, _)| *slot <= through)
            .filter(|(slot, tally)| {
                let place = self.roster.governing(*slot).voter_index(voter);
                place.is_some_and(|place| !tally.accepted_by.contains(place))
            })
            .take_while(|(_, tally)| {
                let first = bytes == 0;
                bytes += VALUE_HEADER_LEN + tally.value.encoded_len();
                first || bytes <= bytes_max
            })
            .map(|(slot, tally)| (slot, tally.value.clone()))
            .collect();
        self.repeats.sent(voter, missing.last().map(|(slot, _)| *slot));
        for (first, values) in consecutive(missing) {
            self.counters.retransmissions += 1;
            self.send_accept(Recipients::One(voter), ballot, first, values);
        }
    }
}

/// Splits values into runs of consecutive slots.
fn consecutive(values: Vec<(Slot, Value)>) -> Vec<(Slot, Vec<Value>)> {
    let mut runs: Vec<(Slot, Vec<Value>)> = Vec::new();
    for (slot, value) in values {
        match runs.last_mut() {
            Some((first, run)) if first.plus(run.len() as u64) == slot => run.push(value),
            Some(_) | None => runs.push((slot, vec![value])),
        }
    }
    runs
}
