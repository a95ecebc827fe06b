//! Reads that wait for a leader to know that it still leads (Follower Reads; the read point).
//!
//! Owns: [`Reads`]: which reads wait, and the one round that is open. Knows no time, no log and no
//! machine that answers: a read is a ticket, a read point is a slot.
//! Invariants: a round serves the reads that were asked before it began, and no other (R2); it
//! stands when an accept quorum has confirmed it, each voter once; no number is used for two rounds
//! of a life (R5); memory does not grow with the reads that wait.
//! Source: protocol.md §12; Ongaro, "Consensus: Bridging Theory and Practice", §6.4, for rounds that
//! serve many reads.

use std::sync::Arc;

use crate::ids::{ReplicaId, Slot};
use crate::membership::Membership;
use crate::output::ReadTicket;
use crate::quorum::VoterSet;

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
    /// Who governs the slot after the point.
    asked: Arc<Membership>,
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
        self.is_idle() && self.waiting() > 0
    }

    /// Whether no round is open.
    pub(crate) fn is_idle(&self) -> bool {
        self.open.is_none()
    }

    /// Serves all that wait, without a round. Returns the last ticket, if any waits.
    pub(crate) fn serve(&mut self) -> Option<ReadTicket> {
        let waits = self.waiting() > 0;
        self.settled = self.asked;
        waits.then_some(ReadTicket::new(self.asked))
    }

    /// The number of the open round.
    pub(crate) fn open_round(&self) -> Option<u64> {
        self.open.is_some().then_some(self.rounds)
    }

    /// The voters that have not confirmed the open round.
    pub(crate) fn awaits(&self) -> impl Iterator<Item = ReplicaId> {
        let voters = |round: &Round| {
            let (asked, confirmed) = (&round.asked, round.confirmed);
            let missing = asked.all_voters().without(confirmed);
            missing.iter().map(|place| asked.voters()[place].id).collect::<Vec<_>>()
        };
        self.open.as_ref().map(voters).unwrap_or_default().into_iter()
    }

    /// Begins a round for all that wait, and returns its number. Rule R2: the point is the
    /// committed prefix at this moment, and `asked` governs the slot after it.
    pub(crate) fn begin(&mut self, committed: Slot, asked: Arc<Membership>) -> u64 {
        assert!(self.is_idle(), "one round at a time");
        self.rounds += 1;
        let (through, confirmed) = (self.asked, VoterSet::EMPTY);
        self.open = Some(Round { through, point: committed, asked, confirmed });
        self.rounds
    }

    /// A voter confirmed a round. Returns what may be answered once that is a quorum; nothing if it
    /// is not, or if another round is open by now.
    pub(crate) fn confirm(&mut self, voter: ReplicaId, round: u64) -> Confirmation {
        let current = self.rounds;
        let Some(open) = self.open.as_mut().filter(|_| round == current) else {
            return Confirmation::Stale;
        };
        let place = open.asked.voter_index(voter);
        if !place.is_some_and(|place| open.confirmed.insert(place)) {
            return Confirmation::Stale;
        }
        if !open.asked.quorums().is_accept_quorum(open.confirmed) {
            return Confirmation::Counted;
        }
        let (through, point) = (open.through, open.point);
        self.open = None;
        // Reads that a lease served meanwhile are not served again.
        let serves = through > self.settled;
        self.settled = self.settled.max(through);
        Confirmation::Stands { serves: serves.then_some(ReadTicket::new(through)), point }
    }

    /// Those who were asked may be there no more: what waits is asked of others.
    pub(crate) fn ask_others(&mut self) {
        self.open = None;
    }

    /// This replica leads no more: whatever waits is lost. Returns the last ticket, if any waits.
    pub(crate) fn abandon(&mut self) -> Option<ReadTicket> {
        self.open = None;
        self.serve()
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
        /// The last ticket that it serves, if any waits for it.
        serves: Option<ReadTicket>,
        /// The point.
        point: Slot,
    },
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    fn id(number: u16) -> ReplicaId {
        ReplicaId::new(number)
    }

    fn voters(count: u16) -> Arc<Membership> {
        Arc::new(Membership::voters_only((0..count).map(id)).unwrap())
    }

    #[test]
    fn a_round_serves_those_that_asked_before_it_and_no_other() {
        let asked = voters(3);
        let mut reads = Reads::default();
        assert!(!reads.wants_round());
        let first = reads.ask();
        let round = reads.begin(Slot::new(7), asked.clone());
        let late = reads.ask();
        assert!(!reads.wants_round(), "the open round ends first");
        assert_eq!(reads.confirm(id(0), round), Confirmation::Counted);
        assert_eq!(reads.confirm(id(0), round), Confirmation::Stale, "each voter once");
        assert_eq!(reads.awaits().collect::<Vec<_>>(), [id(1), id(2)]);
        let stands = Confirmation::Stands { serves: Some(first), point: Slot::new(7) };
        assert_eq!(reads.confirm(id(1), round), stands);
        assert_eq!((reads.waiting(), reads.wants_round()), (1, true));
        let next = reads.begin(Slot::new(9), asked);
        assert!(next > round);
        assert_eq!(reads.confirm(id(2), round), Confirmation::Stale, "a round before");
        assert_eq!(reads.abandon(), Some(late));
        assert_eq!(reads.confirm(id(1), next), Confirmation::Stale);
        assert_eq!((reads.waiting(), reads.abandon()), (0, None));
    }

    #[test]
    fn a_round_does_not_serve_again_what_was_served_without_it() {
        let asked = voters(1);
        let mut reads = Reads::default();
        let first = reads.ask();
        let round = reads.begin(Slot::new(7), asked.clone());
        assert_eq!(reads.serve(), Some(first));
        assert_eq!((reads.serve(), reads.waiting()), (None, 0));
        let stands = Confirmation::Stands { serves: None, point: Slot::new(7) };
        assert_eq!(reads.confirm(id(0), round), stands);
        assert!(reads.is_idle() && !reads.wants_round());
    }
}
