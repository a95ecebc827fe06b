//! The replica as an acceptor among peers: Prepare and Accept, and what it answers.
//!
//! Owns no state of its own; puts the acceptor's answers into the outbox, behind the gate.
//! Source: protocol.md §7.

use super::Replica;
use crate::acceptor::{AcceptAnswer, PrepareAnswer};
use crate::ballot::Ballot;
use crate::codec::PROMISE_ENTRY_LEN;
use crate::durable::Write;
use crate::ids::{ReplicaId, Slot};
use crate::message::{Accept, Fetched, Prepare, Promise, PromiseEntry, Reject, SlotState};
use crate::output::{Halt, Recipients};
use crate::value::Value;

impl Replica {
    pub(super) fn on_prepare(&mut self, from: ReplicaId, prepare: Prepare) {
        let Prepare { ballot, from: first } = prepare;
        if ballot.leader() != from || first == Slot::ZERO {
            self.counters.dropped_absurd += 1;
            return;
        }
        self.pacemaker.see(Some(ballot));
        if self.acceptor.promised() < Some(ballot) && self.withholds_from(from) {
            // As if it were lost: the candidate asks again.
            self.counters.prepares_withheld += 1;
            return;
        }
        match self.acceptor.prepare(ballot) {
            PrepareAnswer::Rejected(promised) => {
                self.outbox.send(Recipients::One(from), Reject { refused: ballot, promised });
                return;
            }
            PrepareAnswer::Promised => {
                self.outbox.write(Write::Promised(ballot));
                self.obey(ballot);
                // The candidate gets the time to win.
                self.pacemaker.arm_election(self.now);
            }
            PrepareAnswer::PromisedBefore if self.outbox.is_crowded() => return,
            // The next page, or the same again: the candidate is at work.
            PrepareAnswer::PromisedBefore => self.pacemaker.arm_election(self.now),
        }
        let promise = self.promise_page(ballot, first, self.config.page_bytes_max);
        self.outbox.send_after_durable(Recipients::One(from), promise);
    }

    /// Rule P7: whoever promises a higher ballot stops leading under its own.
    fn obey(&mut self, ballot: Ballot) {
        if self.proposer.ballot().is_some_and(|own| own < ballot) {
            self.note_taken_over(ballot);
            self.step_down();
        }
    }

    /// One page of a promise: everything this replica knows of the slots from `first` on, up to a
    /// bound of bytes but at least one slot. Rule A4.
    pub(super) fn promise_page(&self, ballot: Ballot, first: Slot, bytes_max: usize) -> Promise {
        let committed = self.learner.committed();
        let begin = first.max(committed.next());
        let mut through = Slot::MAX;
        let mut entries: Vec<PromiseEntry> = Vec::new();
        let mut bytes = 0;
        let mut votes = self.acceptor.votes_from(begin).peekable();
        let mut ahead = self.learner.ahead_from(begin).peekable();
        loop {
            // Both run in rising order of slots; where both know a slot, chosen says more.
            let next_vote = votes.peek().map(|(slot, _)| *slot);
            let next_ahead = ahead.peek().map(|(slot, _)| *slot);
            let slot = match (next_vote, next_ahead) {
                (None, None) => break,
                (Some(slot), None) | (None, Some(slot)) => slot,
                (Some(vote), Some(ahead)) => vote.min(ahead),
            };
            let vote = votes.next_if(|(at, _)| *at == slot).map(|(_, vote)| vote);
            let state = if let Some((_, value)) = ahead.next_if(|(at, _)| *at == slot) {
                SlotState::Chosen(value.clone())
            } else {
                let vote = vote.expect("the slot came from one of the two");
                SlotState::Accepted(vote.ballot, vote.value.clone())
            };
            bytes += PROMISE_ENTRY_LEN + state.encoded_len();
            if bytes > bytes_max && !entries.is_empty() {
                through = slot.previous();
                break;
            }
            entries.push(PromiseEntry { slot, state });
        }
        Promise { ballot, committed, from: first, through, entries }
    }

    pub(super) fn on_accept(&mut self, from: ReplicaId, accept: Accept) {
        let Accept { ballot, committed, first, values } = accept;
        if ballot.leader() != from {
            self.counters.dropped_absurd += 1;
            return;
        }
        self.pacemaker.see(Some(ballot));
        if let Some(promised) = self.acceptor.promised()
            && promised > ballot
        {
            self.outbox.send(Recipients::One(from), Reject { refused: ballot, promised });
            return;
        }
        self.obey(ballot);
        // The watermark first: it makes room in the window.
        self.on_watermark(from, ballot, committed);
        if self.halted {
            return;
        }
        if first <= self.learner.committed() {
            self.answer_with_chosen(from, first);
        }
        for (offset, value) in values.iter().enumerate() {
            if !self.vote(ballot, first.plus(offset as u64), value) {
                return;
            }
        }
        self.apply_watermark();
    }

    /// Votes for a value, here or not at all. Returns false if the rest is of no use.
    pub(super) fn vote(&mut self, ballot: Ballot, slot: Slot, value: &Value) -> bool {
        if slot <= self.learner.committed() {
            return true;
        }
        // Rule A6.
        if slot.distance_from(self.learner.committed()) > 2 * self.roster.window() {
            self.counters.dropped_beyond_window += 1;
            return false;
        }
        // A disk that falls behind must not make memory grow: what is left out is fetched later.
        let own = ballot.leader() == self.outbox.replica();
        if !own && self.outbox.bytes_waiting() > self.config.window_bytes_max {
            self.counters.dropped_beyond_window += 1;
            return false;
        }
        self.keep_record_near(slot);
        match self.acceptor.accept(ballot, slot, value, self.outbox.open_batch()) {
            AcceptAnswer::Accepted => {
                self.outbox.write(Write::Accepted { slot, ballot, value: value.clone() });
                self.outbox.acknowledge(ballot, slot);
                true
            }
            AcceptAnswer::AcceptedBefore => {
                if !self.outbox.is_crowded() {
                    self.outbox.acknowledge(ballot, slot);
                }
                true
            }
            AcceptAnswer::Conflict => {
                self.halt(Halt::AgreementBroken { slot });
                false
            }
            AcceptAnswer::Rejected(_) => unreachable!("the ballot was compared with the promise"),
        }
    }

    /// Rule A5: a leader that proposes in a committed slot is told what is chosen there.
    fn answer_with_chosen(&mut self, from: ReplicaId, first: Slot) {
        let committed = self.learner.committed();
        let values = self.log.run(first, committed, self.config.page_bytes_max);
        if !values.is_empty() {
            let trimmed = self.log.trimmed();
            let fetched = Fetched { first, values, committed, trimmed };
            self.outbox.send(Recipients::One(from), fetched);
        }
    }
}
