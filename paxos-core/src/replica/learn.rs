//! The replica as a learner: watermarks, chosen values, catching up, handing out to apply.
//!
//! Owns no state of its own.
//! Source: protocol.md §9.

use super::Replica;
use crate::ballot::Ballot;
use crate::catchup::{Choice, Purpose};
use crate::durable::Write;
use crate::ids::{ReplicaId, Slot, Time};
use crate::learner::{AgreementBroken, Chosen};
use crate::log::NextApply;
use crate::message::{Commit, Fetch, Fetched};
use crate::output::{Halt, LoadTicket, Recipients};
use crate::pacemaker::Timer;
use crate::proposer::Proposer;
use crate::stored::{LoadRange, Loaded};
use crate::value::Value;

/// A replica that catches up asks for more only while its disk keeps up with what it was given.
const FETCH_WRITES_MAX: u64 = 4;

impl Replica {
    // --- watermarks

    pub(super) fn on_commit(&mut self, from: ReplicaId, commit: Commit) {
        if commit.ballot.leader() == from {
            self.on_watermark(from, commit.ballot, commit.committed);
        } else {
            self.counters.dropped_absurd += 1;
        }
    }

    /// The leader of `ballot` says how far its prefix reaches.
    pub(super) fn on_watermark(&mut self, from: ReplicaId, ballot: Ballot, committed: Slot) {
        let newer = match self.watermark {
            Some((known, slot)) => (ballot, committed) > (known, slot),
            None => true,
        };
        if newer {
            self.watermark = Some((ballot, committed));
        }
        if self.proposer.ballot().is_some_and(|own| own < ballot) {
            // Somebody leads above this replica's ballot.
            self.give_way(ballot);
        }
        self.apply_watermark();
        self.note_committed(from, committed);
    }

    /// Rule L3: what was accepted at exactly the watermark's ballot is chosen.
    pub(super) fn apply_watermark(&mut self) {
        let Some((ballot, through)) = self.watermark else {
            return;
        };
        let mut slot = self.learner.committed().next();
        while slot <= through {
            if !self.learner.is_chosen_ahead(slot) {
                match self.acceptor.vote(slot) {
                    Some(vote) if vote.ballot == ballot => {
                        let value = vote.value.clone();
                        self.choose_voted(slot, value);
                    }
                    Some(_) | None => break,
                }
            }
            slot = slot.next();
        }
        self.extend_committed();
    }

    // --- chosen values

    /// A value is chosen, and this replica voted for it at the ballot that chose it.
    pub(super) fn choose_voted(&mut self, slot: Slot, value: Value) {
        let vote = self.acceptor.vote(slot);
        let written = vote.map_or_else(|| self.outbox.after_writes(), |vote| vote.written);
        if let Err(AgreementBroken(slot)) = self.learner.choose(slot, value, written) {
            self.halt(Halt::AgreementBroken { slot });
        }
    }

    /// A value is chosen, says somebody else.
    fn choose_fetched(&mut self, slot: Slot, value: Value) {
        if slot <= self.learner.committed() {
            if self.log.get(slot).is_some_and(|known| *known != value) {
                self.halt(Halt::AgreementBroken { slot });
            }
            return;
        }
        // Rule P8: whoever proposed another value there was deposed without noticing.
        if self.learner.tally(slot).is_some_and(|tally| tally.value != value) {
            self.step_down();
        }
        if let Proposer::Leading(reign) = &mut self.proposer {
            reign.settle(slot);
        }
        let voted = self.acceptor.vote(slot).filter(|vote| vote.value == value);
        let voted = voted.map(|vote| vote.written);
        let written = voted.unwrap_or_else(|| self.outbox.open_batch());
        match self.learner.choose(slot, value.clone(), written) {
            Ok(true) => {
                self.counters.values_fetched += 1;
                if voted.is_none() {
                    self.keep_record_near(slot);
                    self.outbox.write(Write::Chosen { slot, value });
                }
            }
            Ok(false) => {}
            Err(AgreementBroken(slot)) => self.halt(Halt::AgreementBroken { slot }),
        }
    }

    /// Moves every value that follows the committed prefix into the log.
    pub(super) fn extend_committed(&mut self) {
        let before = self.learner.committed();
        while let Some((slot, chosen)) = self.learner.advance() {
            let written = match &chosen.value {
                Value::Noop => chosen.written,
                Value::Batch(batch) => {
                    self.clock = self.clock.max(batch.clock());
                    chosen.written
                }
                Value::Membership(membership) => {
                    // Rule M7: applied no earlier than that it governs is on record.
                    let recorded = self.govern(slot, &membership.clone());
                    recorded.map_or(chosen.written, |recorded| recorded.max(chosen.written))
                }
            };
            self.log.push(slot, Chosen { written, ..chosen });
        }
        let committed = self.learner.committed();
        if committed == before {
            return;
        }
        self.acceptor.forget_through(committed);
        if let Proposer::Leading(reign) = &self.proposer
            && reign.is_overtaken(committed)
        {
            self.step_down();
        }
    }

    /// Rule A6 holds on disk too: no vote is written more than twice the window above the recorded
    /// prefix, or a torn write could leave votes that no promise may name.
    pub(super) fn keep_record_near(&mut self, slot: Slot) {
        if slot.distance_from(self.recorded) > 2 * self.roster.window() {
            self.record_committed();
        }
    }

    /// Puts the committed prefix on record, with whatever else is written. Nobody waits for it.
    pub(super) fn record_committed(&mut self) {
        let committed = self.learner.committed();
        if self.recorded < committed {
            self.recorded = committed;
            self.recording.push_back((self.outbox.open_batch(), committed));
            self.outbox.write(Write::Committed(committed));
        }
    }

    // --- applying

    /// Hands committed values to the state machine, as far as it has room. Rule L5.
    pub(super) fn hand_out(&mut self) {
        if self.halted {
            return;
        }
        loop {
            match self.log.next_apply(self.outbox.proved()) {
                NextApply::Value(slot, value) => self.outbox.apply(slot, value),
                NextApply::Nothing => return,
                NextApply::Load { from, through } => {
                    if let Some(ticket) = self.loads.for_apply(from) {
                        self.outbox.load(ticket, self.load_range(from, through));
                    }
                    return;
                }
            }
        }
    }

    pub(super) fn load_range(&self, from: Slot, through: Slot) -> LoadRange {
        let group = self.outbox.origin().group;
        LoadRange { group, from, through, bytes_max: self.config.page_bytes_max }
    }

    /// A range of the log that was asked for with [`crate::output::Output::Load`].
    pub fn handle_loaded(&mut self, ticket: LoadTicket, loaded: Loaded, now: Time) {
        self.advance_time(now);
        if self.halted {
            return;
        }
        match self.loads.finish(ticket) {
            None => {}
            Some(Purpose::Serve(peer, first)) => {
                let committed = self.learner.committed();
                let trimmed = self.log.trimmed().max(loaded.trimmed);
                let fetched = Fetched { first, values: loaded.values, committed, trimmed };
                self.outbox.send(Recipients::One(peer), fetched);
            }
            Some(Purpose::Apply(first)) => {
                if loaded.values.is_empty() {
                    self.halt(Halt::LogLost { slot: first });
                    return;
                }
                let mut slot = first;
                for value in loaded.values {
                    if self.log.hand(slot, &value) {
                        self.outbox.apply(slot, value);
                    }
                    slot = slot.next();
                }
                self.hand_out();
            }
        }
    }

    // --- catching up

    /// A peer's prefix is longer: what is missing may be on its way, or has to be fetched.
    pub(super) fn note_committed(&mut self, from: ReplicaId, committed: Slot) {
        if from == self.outbox.replica() {
            return;
        }
        self.catchup.report(from, committed);
        self.flows.reported(from, committed);
        let own = self.learner.committed();
        if committed <= own {
            return;
        }
        let lag = committed.distance_from(own);
        if lag > self.roster.window() {
            // Too much to be in flight.
            if !self.catchup.is_asked() {
                self.fetch();
            }
        } else if !self.pacemaker.is_armed(Timer::Fetch) {
            self.catchup.notice(own);
            self.pacemaker.arm_fetch_soon(self.now);
        }
    }

    pub(super) fn on_fetch_due(&mut self) {
        let own = self.learner.committed();
        let target = self.catchup.target();
        if target <= own {
            self.catchup.settle();
            return;
        }
        let near = target.distance_from(own) <= self.roster.window();
        if self.catchup.notice(own) && near && !self.catchup.is_asked() {
            // The prefix grows by itself.
            self.pacemaker.arm_fetch_soon(self.now);
        } else {
            self.fetch();
        }
    }

    pub(super) fn fetch(&mut self) {
        let own = self.learner.committed();
        self.pacemaker.arm_fetch_again(self.now);
        if self.outbox.writes_pending() > FETCH_WRITES_MAX {
            self.catchup.settle();
            return;
        }
        let now = self.now;
        match self.catchup.choose(own, |peer| self.pacemaker.is_connected(peer, now)) {
            Some(Choice::Values(peer, through)) => {
                self.outbox.send(Recipients::One(peer), Fetch { from: own.next(), through });
            }
            Some(Choice::Snapshot(peer)) => {
                self.counters.snapshots_wanted += 1;
                self.outbox.want_snapshot(peer, own);
            }
            None => {}
        }
    }

    /// The disk has caught up: so may the log.
    pub(super) fn continue_fetch(&mut self) {
        let lag = self.catchup.target().distance_from(self.learner.committed());
        if lag > self.roster.window()
            && !self.catchup.is_asked()
            && self.outbox.writes_pending() <= FETCH_WRITES_MAX
        {
            self.fetch();
        }
    }

    pub(super) fn on_fetch(&mut self, from: ReplicaId, fetch: Fetch) {
        let committed = self.learner.committed();
        let (first, through) = (fetch.from, fetch.through.min(committed));
        if first > through || first == Slot::ZERO {
            self.counters.dropped_stale += 1;
            return;
        }
        // Whoever asks from there on has everything before.
        self.flows.reported(from, first.previous());
        let trimmed = self.log.trimmed();
        if first <= trimmed {
            let fetched = Fetched { first, values: Vec::new(), committed, trimmed };
            self.outbox.send(Recipients::One(from), fetched);
        } else if first < self.log.first() {
            let through = through.min(self.log.first().previous());
            if let Some(ticket) = self.loads.for_peer(from, first) {
                self.outbox.load(ticket, self.load_range(first, through));
            }
        } else {
            let values = self.log.run(first, through, self.config.page_bytes_max);
            let end = first.plus(values.len() as u64);
            let fetched = Fetched { first, values, committed, trimmed };
            self.outbox.send(Recipients::One(from), fetched);
            if end > committed {
                self.resume_proposals(from);
            }
        }
    }

    pub(super) fn on_fetched(&mut self, from: ReplicaId, fetched: Fetched) {
        let Fetched { first, values, committed, trimmed } = fetched;
        let before = self.learner.committed();
        self.catchup.note_trimmed(from, trimmed);
        let is_gone = values.is_empty() && first == before.next() && trimmed >= first;
        let mut slot = first;
        for value in values {
            if slot > self.learner.committed().next() {
                // A page out of turn: it leaves a gap, and is asked for again.
                self.counters.dropped_stale += 1;
                break;
            }
            self.choose_fetched(slot, value);
            if self.halted {
                return;
            }
            self.extend_committed();
            slot = slot.next();
        }
        self.apply_watermark();
        let own = self.learner.committed();
        if own > before {
            self.catchup.answered(from);
        }
        self.note_committed(from, committed);
        if own > before
            && committed > own
            && !self.catchup.is_asked()
            && self.outbox.writes_pending() <= FETCH_WRITES_MAX
        {
            // The page was full: the rest follows at once.
            self.fetch();
        }
        if is_gone && own == before && self.catchup.awaits_values(from) {
            // Another one may have it, or a snapshot.
            self.fetch();
        }
    }
}
