//! Reads that wait for a leader to know that it still leads (Follower Reads; the read point).
//!
//! Owns: [`Reads`]: which reads wait, and the one round that is open. Knows no time, no log and no
//! machine that answers: a read is a ticket, a read point is a slot.
//! Invariants: a round serves the reads that were asked before it began, and no other (R2); it
//! stands when an accept quorum has confirmed it, each voter once; no number is used for two rounds
//! of a life (R5); memory does not grow with the reads that wait.
//! Source: protocol.md §12; Ongaro, "Consensus: Bridging Theory and Practice", §6.4, for rounds that
//! serve many reads.

use crate::ids::Slot;
use crate::output::ReadTicket;
use crate::quorum::{QuorumSystem, VoterSet};

/// The reads that wait, and the round that is to serve some of them.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub(crate) struct Reads {
    /// The last ticket given out in this life, and the last one settled.
    asked: u64,
    settled: u64,
    /// The number of the last round begun in this life.
    rounds: u64,
    open: Option<Round>,
}

/// A round whose answers are awaited.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Round {
    /// The last ticket that it serves.
    through: u64,
    point: Slot,
    confirmed: VoterSet,
}

impl Reads {
    /// One more read waits.
    pub(crate) fn ask(&mut self) -> ReadTicket {
        self.asked += 1;
        ReadTicket::new(self.asked)
    }

    /// How many reads wait.
    pub(crate) fn waiting(&self) -> u64 {
        self.asked - self.settled
    }

    /// Whether reads wait that no round serves, and none is open that would have to end first.
    pub(crate) fn wants_round(&self) -> bool {
        self.open.is_none() && self.asked > self.settled
    }

    /// The number of the open round.
    pub(crate) fn open_round(&self) -> Option<u64> {
        self.open.is_some().then_some(self.rounds)
    }

    /// Whether this voter has not confirmed the open round.
    pub(crate) fn awaits(&self, voter: usize) -> bool {
        self.open.as_ref().is_some_and(|round| !round.confirmed.contains(voter))
    }

    /// Begins a round for all that wait, and returns its number. Rule R2: the point is the
    /// committed prefix at this moment.
    pub(crate) fn begin(&mut self, committed: Slot) -> u64 {
        assert!(self.wants_round(), "one round at a time, and none for nobody");
        self.rounds += 1;
        let (through, confirmed) = (self.asked, VoterSet::EMPTY);
        self.open = Some(Round { through, point: committed, confirmed });
        self.rounds
    }

    /// A voter confirmed a round. Returns what may be answered once that is a quorum; nothing if it
    /// is not, or if another round is open by now.
    pub(crate) fn confirm(
        &mut self,
        voter: usize,
        round: u64,
        quorums: &QuorumSystem,
    ) -> Confirmation {
        let current = self.rounds;
        let Some(open) = self.open.as_mut().filter(|_| round == current) else {
            return Confirmation::Stale;
        };
        if !open.confirmed.insert(voter) {
            return Confirmation::Stale;
        }
        if !quorums.is_accept_quorum(open.confirmed) {
            return Confirmation::Counted;
        }
        let (through, point) = (open.through, open.point);
        self.open = None;
        self.settled = through;
        Confirmation::Stands { through: ReadTicket::new(through), point }
    }

    /// This replica leads no more: whatever waits is lost. Returns the last ticket, if any waits.
    pub(crate) fn abandon(&mut self) -> Option<ReadTicket> {
        self.open = None;
        let lost = self.asked > self.settled;
        self.settled = self.asked;
        lost.then_some(ReadTicket::new(self.asked))
    }
}

/// What a voter's answer led to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Confirmation {
    /// It is of a round that is over, or repeats one that was counted.
    Stale,
    /// Others are missing.
    Counted,
    /// The read point stands.
    Stands {
        /// The last ticket that it serves.
        through: ReadTicket,
        /// The point.
        point: Slot,
    },
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;
    use crate::quorum::QuorumRule;

    #[test]
    fn a_round_serves_those_that_asked_before_it_and_no_other() {
        let quorums = QuorumSystem::new(3, QuorumRule::Majority).unwrap();
        let mut reads = Reads::default();
        assert!(!reads.wants_round());
        let first = reads.ask();
        let round = reads.begin(Slot::new(7));
        let late = reads.ask();
        assert!(!reads.wants_round(), "the open round ends first");
        assert_eq!(reads.confirm(0, round, &quorums), Confirmation::Counted);
        assert_eq!(reads.confirm(0, round, &quorums), Confirmation::Stale, "each voter once");
        assert!(reads.awaits(1) && !reads.awaits(0));
        let stands = Confirmation::Stands { through: first, point: Slot::new(7) };
        assert_eq!(reads.confirm(1, round, &quorums), stands);
        assert_eq!((reads.waiting(), reads.wants_round()), (1, true));
        let next = reads.begin(Slot::new(9));
        assert!(next > round);
        assert_eq!(reads.confirm(2, round, &quorums), Confirmation::Stale, "a round before");
        assert_eq!(reads.abandon(), Some(late));
        assert_eq!(reads.confirm(1, next, &quorums), Confirmation::Stale);
        assert_eq!((reads.waiting(), reads.abandon()), (0, None));
    }
}
