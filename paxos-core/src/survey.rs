//! Reads that wait for what a prepare quorum knows, whoever leads (quorum reads).
//!
//! Owns: [`Surveys`]: which reads wait, the one round that is open, and the one read point that is
//! named and not committed here yet. Knows no log, no peers and no timers: a read is a ticket, a read
//! point is a slot.
//! Invariants: a round serves the reads that were asked before it began, and no other (R10); it stands
//! when a prepare quorum has answered it, each voter once; no number is used for two rounds of a
//! life (R12); memory does not grow with the reads that wait.
//! Source: protocol.md §12; Charapko, Ailijiang, Demirbas, "Linearizable Quorum Reads in Paxos".

use core::time::Duration;

use crate::ids::{Epoch, Slot, Time};
use crate::output::{QuorumReadLoss, ReadTicket};
use crate::quorum::{QuorumSystem, VoterSet};

/// The reads that wait, and what is to serve some of them.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub(crate) struct Surveys {
    /// The last ticket given out in this life, and the last one settled.
    asked: u64,
    settled: u64,
    /// The number of the last round begun in this life.
    rounds: u64,
    open: Option<Round>,
    unsettled: Option<Unsettled>,
    /// Since when those wait that have to be asked for again.
    again: Option<Time>,
}

/// A round whose answers are awaited.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Round {
    /// The last ticket that it serves.
    through: u64,
    began_at: Time,
    /// Whose voters are asked.
    epoch: Epoch,
    answered: VoterSet,
    /// The highest slot that was named, or was committed here when it began.
    highest: Slot,
}

/// What a round has named, above the committed prefix.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Unsettled {
    through: u64,
    began_at: Time,
    /// Whose voters have named it.
    epoch: Epoch,
    point: Slot,
}

impl Surveys {
    /// One more read waits.
    pub(crate) fn ask(&mut self) -> ReadTicket {
        self.asked += 1;
        ReadTicket::new(self.asked)
    }

    /// How many reads wait.
    pub(crate) fn waiting(&self) -> u64 {
        self.asked - self.settled
    }

    /// Whether reads wait that nothing serves.
    pub(crate) fn wants_round(&self) -> bool {
        self.open.is_none() && self.unsettled.is_none() && self.waiting() > 0
    }

    /// Whether a round is open or a point is not settled.
    pub(crate) fn is_busy(&self) -> bool {
        self.open.is_some() || self.unsettled.is_some()
    }

    /// The number of the open round.
    pub(crate) fn open_round(&self) -> Option<u64> {
        self.open.is_some().then_some(self.rounds)
    }

    /// Whether this voter has not answered the open round.
    pub(crate) fn awaits(&self, voter: usize) -> bool {
        self.open.as_ref().is_some_and(|round| !round.answered.contains(voter))
    }

    /// When the first of what is under way has taken too long.
    pub(crate) fn due(&self, patience: Duration) -> Option<Time> {
        let open = self.open.as_ref().map(|round| round.began_at);
        let began_at = self.unsettled.as_ref().map(|unsettled| unsettled.began_at).or(open)?;
        Some(began_at.after(patience))
    }

    /// Begins a round for all that wait, and returns its number; `epoch` is of those who are asked, and
    /// the point is at or above the prefix committed here.
    pub(crate) fn begin(&mut self, now: Time, epoch: Epoch, committed: Slot) -> u64 {
        assert!(self.open.is_none(), "one round at a time");
        self.rounds += 1;
        let (through, answered, highest) = (self.asked, VoterSet::EMPTY, committed);
        let began_at = self.again.take().unwrap_or(now);
        self.open = Some(Round { through, began_at, epoch, answered, highest });
        self.rounds
    }

    /// A voter named its highest slot. Returns false if that is of another round, or was counted.
    /// [`Surveys::settle`] says what may be answered by then.
    pub(crate) fn answer(
        &mut self,
        voter: usize,
        round: u64,
        highest: Slot,
        quorums: &QuorumSystem,
    ) -> bool {
        let current = self.rounds;
        let Some(open) = self.open.as_mut().filter(|_| round == current) else {
            return false;
        };
        if !open.answered.insert(voter) {
            return false;
        }
        open.highest = open.highest.max(highest);
        if quorums.is_prepare_quorum(open.answered)
            && let Some(Round { through, began_at, epoch, highest: point, .. }) = self.open.take()
        {
            // The higher of two points serves later reads alone, which get another round.
            let lower = self.unsettled.as_ref().is_none_or(|earlier| point < earlier.point);
            if lower {
                // What waited for the earlier point does not wait longer for this one.
                let began_at = self.unsettled.take().map_or(began_at, |earlier| earlier.began_at);
                self.unsettled = Some(Unsettled { through, began_at, epoch, point });
            }
        }
        true
    }

    /// Whose voters the open round asks.
    pub(crate) fn open_epoch(&self) -> Option<Epoch> {
        self.open.as_ref().map(|round| round.epoch)
    }

    /// The point that is named and not settled, and whose voters have named it.
    pub(crate) fn named(&self) -> Option<(Slot, Epoch)> {
        self.unsettled.as_ref().map(|unsettled| (unsettled.point, unsettled.epoch))
    }

    /// Those who were asked are not those who count: what waits is asked again, and waits no longer for
    /// that.
    pub(crate) fn ask_again(&mut self) {
        let open = self.open.take().map(|round| round.began_at);
        let named = self.unsettled.take().map(|unsettled| unsettled.began_at);
        self.again = named.or(open);
    }

    /// What may be answered now that the prefix up to this slot is committed here. Rule R10.
    pub(crate) fn settle(&mut self, committed: Slot) -> Option<(ReadTicket, Slot)> {
        let Unsettled { through, point, .. } =
            self.unsettled.take_if(|unsettled| unsettled.point <= committed)?;
        self.settled_through(through);
        Some((ReadTicket::new(through), point))
    }

    /// Gives up what began so long ago. Returns the last ticket of that, and why.
    pub(crate) fn expire(
        &mut self,
        patience: Duration,
        now: Time,
    ) -> Option<(ReadTicket, QuorumReadLoss)> {
        let is_late = |began_at: Time| now.since(began_at) >= patience;
        let unsettled = self.unsettled.take_if(|unsettled| is_late(unsettled.began_at));
        let (through, reason) = if let Some(Unsettled { through, point, .. }) = unsettled {
            (through, QuorumReadLoss::Unsettled { point })
        } else {
            (self.open.take_if(|open| is_late(open.began_at))?.through, QuorumReadLoss::Unreached)
        };
        self.settled_through(through);
        Some((ReadTicket::new(through), reason))
    }

    /// A round that serves nobody any more must not keep another from beginning.
    fn settled_through(&mut self, through: u64) {
        self.settled = through;
        self.open.take_if(|open| open.through <= through);
    }

    /// This replica does nothing more.
    pub(crate) fn abandon(&mut self) {
        (self.open, self.unsettled) = (None, None);
        self.settled = self.asked;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;
    use crate::quorum::QuorumRule;

    const PATIENCE: Duration = Duration::from_nanos(100);

    fn at(nanos: u64) -> Time {
        Time::from_nanos(nanos)
    }

    fn quorums() -> QuorumSystem {
        QuorumSystem::new(3, QuorumRule::Majority).unwrap()
    }

    fn slot(number: u64) -> Slot {
        Slot::new(number)
    }

    #[test]
    fn a_round_serves_those_that_asked_before_it_and_no_other() {
        let (quorums, mut surveys) = (quorums(), Surveys::default());
        assert!(!surveys.wants_round());
        let first = surveys.ask();
        let round = surveys.begin(at(0), Epoch::FIRST, Slot::ZERO);
        let late = surveys.ask();
        assert!(surveys.answer(0, round, slot(7), &quorums));
        assert!(!surveys.answer(0, round, slot(9), &quorums), "each voter once");
        assert_eq!(surveys.settle(Slot::MAX), None, "one is no quorum");
        assert!(surveys.awaits(1) && !surveys.awaits(0));
        assert!(surveys.answer(1, round, slot(3), &quorums));
        assert_eq!(surveys.settle(slot(6)), None);
        assert_eq!(surveys.settle(slot(7)), Some((first, slot(7))));
        assert_eq!((surveys.waiting(), surveys.wants_round()), (1, true));
        let next = surveys.begin(at(1), Epoch::FIRST, Slot::ZERO);
        assert!(next > round);
        assert!(!surveys.answer(2, round, slot(9), &quorums), "a round before");
        surveys.answer(1, next, slot(7), &quorums);
        surveys.answer(2, next, slot(7), &quorums);
        assert_eq!(surveys.settle(slot(7)), Some((late, slot(7))));
        assert!(!surveys.wants_round() && !surveys.is_busy());
    }

    #[test]
    fn a_later_round_replaces_a_point_by_a_lower_one_and_never_by_a_higher() {
        let (quorums, mut surveys) = (quorums(), Surveys::default());
        let round = |surveys: &mut Surveys, highest, now| {
            let round = surveys.begin(at(now), Epoch::FIRST, Slot::ZERO);
            for voter in [0, 1] {
                assert!(surveys.answer(voter, round, slot(highest), &quorums));
            }
        };
        surveys.ask();
        round(&mut surveys, 9, 0);
        let second = surveys.ask();
        round(&mut surveys, 12, 10);
        assert_eq!(surveys.due(PATIENCE), Some(at(100)));
        round(&mut surveys, 5, 20);
        assert_eq!(surveys.due(PATIENCE), Some(at(100)), "nobody waits longer for that");
        assert_eq!(surveys.settle(slot(5)), Some((second, slot(5))));
        assert_eq!(surveys.due(PATIENCE), None);
    }

    #[test]
    fn a_round_that_nobody_needs_any_more_keeps_no_other_waiting() {
        let (quorums, mut surveys) = (quorums(), Surveys::default());
        let first = surveys.ask();
        let round = surveys.begin(at(0), Epoch::FIRST, Slot::ZERO);
        surveys.answer(0, round, slot(4), &quorums);
        surveys.answer(1, round, slot(4), &quorums);
        let again = surveys.begin(at(50), Epoch::FIRST, Slot::ZERO);
        assert_eq!(surveys.settle(slot(4)), Some((first, slot(4))));
        assert!(!surveys.answer(0, again, slot(4), &quorums));
        surveys.ask();
        assert!(surveys.wants_round());
        assert!(surveys.begin(at(60), Epoch::FIRST, Slot::ZERO) > again);
    }

    #[test]
    fn what_takes_too_long_is_given_up() {
        let (quorums, mut surveys) = (quorums(), Surveys::default());
        let first = surveys.ask();
        let round = surveys.begin(at(0), Epoch::FIRST, Slot::ZERO);
        surveys.answer(0, round, slot(4), &quorums);
        surveys.answer(1, round, slot(2), &quorums);
        let second = surveys.ask();
        let round = surveys.begin(at(50), Epoch::FIRST, Slot::ZERO);
        surveys.answer(0, round, slot(4), &quorums);
        assert_eq!(surveys.expire(PATIENCE, at(99)), None);
        let unsettled = QuorumReadLoss::Unsettled { point: slot(4) };
        assert_eq!(surveys.expire(PATIENCE, at(100)), Some((first, unsettled)));
        assert_eq!(surveys.expire(PATIENCE, at(149)), None);
        assert_eq!(surveys.expire(PATIENCE, at(150)), Some((second, QuorumReadLoss::Unreached)));
        assert_eq!((surveys.waiting(), surveys.is_busy()), (0, false));
        assert!(!surveys.answer(1, round, slot(1), &quorums), "nobody waits for it");
    }
}
