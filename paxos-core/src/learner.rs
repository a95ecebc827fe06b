//! The learner: which values are chosen, and how far the log is without a gap (High-Water Mark).
//!
//! Owns: the committed prefix, values known to be chosen beyond it, and, while this replica leads,
//! the tally of Accepted for each slot in flight. Knows no clock and sends nothing.
//! Invariants: a voter counts once for a slot and ballot (Q2, L1); the prefix is contiguous and
//! never shrinks (L2); one value per slot is chosen.
//! Source: protocol.md §9.

use crate::ballot::Ballot;
use crate::durable::WriteSequence;
use crate::ids::{ReplicaId, Slot};
use crate::membership::Membership;
use crate::quorum::VoterSet;
use crate::ring::SlotRing;
use crate::value::Value;

/// Votes counted for one slot at one ballot.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Tally {
    pub(crate) ballot: Ballot,
    pub(crate) value: Value,
    pub(crate) accepted_by: VoterSet,
}

/// What is known to be chosen.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Learner {
    committed: Slot,
    ahead: SlotRing<Chosen>,
    tallies: SlotRing<Tally>,
    bytes_in_flight: usize,
}

/// A value known to be chosen, and the write batch that makes it durable here.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Chosen {
    pub(crate) value: Value,
    pub(crate) written: WriteSequence,
}

/// Two different values were found to be chosen in one slot.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct AgreementBroken(pub(crate) Slot);

/// What counting an Accepted led to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Counted {
    /// The voter is new, and a quorum is still missing.
    New,
    /// The vote completed a quorum: the value is chosen.
    Chosen,
    /// The slot is settled, the ballot is another, or the voter was counted before.
    Stale,
}

impl Learner {
    pub(crate) fn recovered(committed: Slot, chosen: impl Iterator<Item = (Slot, Value)>) -> Self {
        let mut ahead = SlotRing::new();
        for (slot, value) in chosen.filter(|(slot, _)| *slot > committed) {
            ahead.insert(slot, Chosen { value, written: WriteSequence::default() });
        }
        Self { committed, ahead, tallies: SlotRing::new(), bytes_in_flight: 0 }
    }

    /// The same with its writes numbered from `proved` on, for comparing.
    #[must_use]
    pub(crate) fn since(&self, proved: WriteSequence) -> Self {
        let mut learner = self.clone();
        for chosen in learner.ahead.values_mut() {
            chosen.written = chosen.written.since(proved);
        }
        learner
    }

    pub(crate) fn committed(&self) -> Slot {
        self.committed
    }

    /// Slots proposed by this leader and not chosen.
    pub(crate) fn slots_in_flight(&self) -> usize {
        self.tallies.len()
    }

    pub(crate) fn bytes_in_flight(&self) -> usize {
        self.bytes_in_flight
    }

    /// The highest slot that is known to be chosen beyond a gap.
    pub(crate) fn last_ahead(&self) -> Option<Slot> {
        self.ahead.last()
    }

    pub(crate) fn values_ahead(&self) -> usize {
        self.ahead.len()
    }

    pub(crate) fn tallies(&self) -> impl Iterator<Item = (Slot, &Tally)> {
        self.tallies.iter()
    }

    pub(crate) fn tally(&self, slot: Slot) -> Option<&Tally> {
        self.tallies.get(slot)
    }

    /// Begins to count votes for what this leader proposes. Rule P6 is checked here: a slot is
    /// proposed once in a reign.
    pub(crate) fn open(&mut self, slot: Slot, ballot: Ballot, value: Value) {
        assert!(slot > self.committed, "nothing is proposed in a committed slot");
        self.bytes_in_flight += value.encoded_len();
        let old = self.tallies.insert(slot, Tally { ballot, value, accepted_by: VoterSet::EMPTY });
        assert!(old.is_none(), "a leader proposes one value in a slot");
    }

    /// Counts one replica's Accepted for a slot that this membership governs. Rules L1, Q2 and M3.
    pub(crate) fn count(
        &mut self,
        voter: ReplicaId,
        slot: Slot,
        ballot: Ballot,
        governing: &Membership,
    ) -> Counted {
        let Some(tally) = self.tallies.get_mut(slot).filter(|tally| tally.ballot == ballot) else {
            return Counted::Stale;
        };
        let place = governing.voter_index(voter);
        if !place.is_some_and(|place| tally.accepted_by.insert(place)) {
            return Counted::Stale;
        }
        if governing.quorums().is_accept_quorum(tally.accepted_by) {
            Counted::Chosen
        } else {
            Counted::New
        }
    }

    /// The reign is over: its open slots are for the next leader to settle.
    pub(crate) fn abandon(&mut self) {
        self.tallies.clear();
        self.bytes_in_flight = 0;
    }

    /// A value is chosen; `written` makes it durable here. Returns whether that is news.
    pub(crate) fn choose(
        &mut self,
        slot: Slot,
        value: Value,
        written: WriteSequence,
    ) -> Result<bool, AgreementBroken> {
        self.close(slot);
        if slot <= self.committed {
            return Ok(false);
        }
        match self.ahead.get(slot) {
            Some(known) if known.value == value => Ok(false),
            Some(_) => Err(AgreementBroken(slot)),
            None => {
                self.ahead.insert(slot, Chosen { value, written });
                Ok(true)
            }
        }
    }

    fn close(&mut self, slot: Slot) {
        if let Some(tally) = self.tallies.remove(slot) {
            self.bytes_in_flight -= tally.value.encoded_len();
        }
    }

    pub(crate) fn is_chosen_ahead(&self, slot: Slot) -> bool {
        self.ahead.get(slot).is_some()
    }

    /// Values beyond the prefix at or above `from`, in rising order of slots.
    pub(crate) fn ahead_from(&self, from: Slot) -> impl Iterator<Item = (Slot, &Value)> {
        self.ahead.iter_from(from).map(|(slot, chosen)| (slot, &chosen.value))
    }

    /// A snapshot holds every slot up to this one: the prefix reaches there. Rules L2 and N4.
    pub(crate) fn jump(&mut self, through: Slot) {
        assert!(through > self.committed, "the committed prefix never shrinks");
        self.ahead.drop_through(through);
        let open = self.tallies().map(|(slot, _)| slot).take_while(|slot| *slot <= through);
        for slot in open.collect::<Vec<_>>() {
            self.close(slot);
        }
        self.committed = through;
    }

    /// Extends the prefix by one slot, if its value is known. Rule L2.
    pub(crate) fn advance(&mut self) -> Option<(Slot, Chosen)> {
        let slot = self.committed.next();
        let chosen = self.ahead.remove(slot)?;
        // A slot may be proposed again by a leader that knew its value to be chosen.
        self.close(slot);
        self.committed = slot;
        Some((slot, chosen))
    }
}
