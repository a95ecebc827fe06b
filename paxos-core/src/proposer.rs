//! The proposer: a campaign for promises, then a reign (Paxos, phases 1a and 2a; Leader and
//! Followers).
//!
//! Owns: the choice of values, and the next slot; what promises said is in a module of its own. Knows
//! no clock and sends nothing; the replica routes.
//! Invariants: the value of the highest ballot is adopted, holes become no-ops (P2); nothing is
//! proposed at or below a reported prefix (P3); new commands come above everything named (P4); nothing
//! is proposed before those who govern the slot have promised, and slots are taken in order (M2).
//! Source: protocol.md §8; Lamport, "Paxos Made Simple", §2.2 (P2c) and §3.

mod promises;

pub(crate) use promises::{Page, Promises};

use std::collections::BTreeSet;

use crate::ballot::Ballot;
use crate::durable::WriteSequence;
use crate::ids::{ReplicaId, Slot};
use crate::message::Promise;
use crate::roster::Roster;
use crate::value::Value;

/// What this replica does about leading.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Proposer {
    /// Nothing.
    Idle,
    /// It asks for promises.
    Preparing(Campaign),
    /// It has them.
    Leading(Reign),
}

impl Proposer {
    /// The same with its writes numbered from `proved` on, for comparing.
    #[must_use]
    pub(crate) fn since(&self, proved: WriteSequence) -> Self {
        let mut proposer = self.clone();
        if let Self::Preparing(campaign) = &mut proposer {
            campaign.written = campaign.written.since(proved);
        }
        proposer
    }

    /// The ballot of the campaign or reign.
    pub(crate) fn ballot(&self) -> Option<Ballot> {
        match self {
            Self::Idle => None,
            Self::Preparing(campaign) => Some(campaign.ballot()),
            Self::Leading(reign) => Some(reign.ballot()),
        }
    }
}

/// The time in which a candidate gathers promises for one ballot.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Campaign {
    promises: Promises,
    /// The leader that makes way, if one does: its heartbeats do not make the campaign needless.
    after: Option<Ballot>,
    /// The first slot asked for: after the candidate's committed prefix.
    from: Slot,
    /// The write of the candidate's own promise: before it is durable, nobody is asked.
    written: WriteSequence,
}

/// What a page led to in a campaign.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Step {
    /// It was of no use: repeated, or not the page that is missing.
    Stale,
    /// The promiser has more pages, from this slot on.
    NextPage(Slot),
    /// The promiser is done; others are missing.
    Waiting,
    /// Enough promises.
    Won,
    /// It contradicts itself or what others said.
    Absurd,
}

impl Campaign {
    pub(crate) fn new(
        ballot: Ballot,
        after: Option<Ballot>,
        committed: Slot,
        window: u64,
        written: WriteSequence,
    ) -> Self {
        let promises = Promises::new(ballot, committed, window);
        Self { promises, after, from: committed.next(), written }
    }

    pub(crate) fn ballot(&self) -> Ballot {
        self.promises.ballot()
    }

    pub(crate) fn promises(&self) -> &Promises {
        &self.promises
    }

    /// Whether the leader of this ballot makes way for the campaign.
    pub(crate) fn succeeds(&self, leader: Ballot) -> bool {
        self.after.is_some_and(|after| leader <= after)
    }

    /// The write that has to be durable before anybody is asked.
    pub(crate) fn written(&self) -> WriteSequence {
        self.written
    }

    /// The first slot asked for.
    pub(crate) fn from(&self) -> Slot {
        self.from
    }

    /// Takes in one page of a replica's promise. It is won once the slot after the committed prefix
    /// may be proposed in. Rules P1, P5, Q2 and M2.
    pub(crate) fn on_promise(
        &mut self,
        replica: ReplicaId,
        promise: Promise,
        roster: &Roster,
        committed: Slot,
    ) -> Step {
        match self.promises.on_page(replica, self.from, promise) {
            Page::Stale => Step::Stale,
            Page::Absurd => Step::Absurd,
            Page::Next(slot) => Step::NextPage(slot),
            Page::Last if self.is_won(roster, committed) => Step::Won,
            Page::Last => Step::Waiting,
        }
    }

    fn is_won(&self, roster: &Roster, committed: Slot) -> bool {
        let here = roster.governing(committed.next());
        let ours = |slot: Slot| roster.governing(slot).epoch() == here.epoch();
        let mut doubtful = self.promises.doubtful();
        self.promises.is_quorum_of(here)
            && doubtful.all(|slot| {
                slot <= self.promises.reported() || !ours(slot) || self.promises.cover(slot, here)
            })
    }

    /// What the new leader proposes before anything else is what its promises named, in rising order of
    /// slots. Rules P2, P3 and P4.
    pub(crate) fn into_reign(self) -> Reign {
        let mut promises = self.promises;
        let reported = promises.reported();
        let next = reported.next();
        promises.forget_below(next);
        let begin = next.max(promises.named().next());
        let settled = BTreeSet::new();
        Reign { promises, begin, next, reported, settled, watched: None, heir: None }
    }
}

/// A value that a new leader has to propose.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Adoption {
    pub(crate) slot: Slot,
    pub(crate) value: Value,
    pub(crate) origin: AdoptedFrom,
}

/// Why a new leader proposes a value.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum AdoptedFrom {
    /// A promise named it.
    Promise,
    /// Nobody named the slot, and a later one is named.
    Gap,
}

/// The time in which this replica proposes.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Reign {
    promises: Promises,
    /// The first slot above everything that was named or reported and not proposed by then.
    begin: Slot,
    /// The lowest slot in which nothing was proposed: every lower one was, or is reported as committed,
    /// or was found to be chosen. Slots are proposed in rising order (M2).
    next: Slot,
    /// The highest committed prefix that a promise reported: to be fetched, not proposed.
    reported: Slot,
    /// Slots from `next` on that were named, and then found to be chosen.
    settled: BTreeSet<Slot>,
    /// The committed prefix when the progress toward it was last looked at.
    watched: Option<Slot>,
    /// For whom this reign makes way.
    heir: Option<Heir>,
}

/// Somebody who is to lead next.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct Heir {
    replica: ReplicaId,
    /// It was told so.
    told: bool,
}

impl Reign {
    pub(crate) fn ballot(&self) -> Ballot {
        self.promises.ballot()
    }

    pub(crate) fn promises(&self) -> &Promises {
        &self.promises
    }

    /// Takes in one page of a promise that comes after the reign began; its sender was first asked for
    /// the slots from `from` on. What it says of slots in which this reign has proposed was settled by
    /// other promises.
    pub(crate) fn on_promise(&mut self, replica: ReplicaId, from: Slot, promise: Promise) -> Page {
        let page = self.promises.on_page(replica, from, promise);
        if self.promises.reported() >= self.next {
            self.reported = self.promises.reported();
            self.next = self.reported.next();
        }
        self.promises.forget_below(self.next);
        self.begin = self.begin.max(self.top());
        page
    }

    /// The first slot above everything that was named or reported, as far as it is not proposed.
    fn top(&self) -> Slot {
        if self.promises.named() < self.next { Slot::ZERO } else { self.promises.named().next() }
            .max(self.reported.next())
    }

    /// Begins to make way: no new slot is assigned (E7).
    pub(crate) fn make_way(&mut self, replica: ReplicaId) {
        self.heir = Some(Heir { replica, told: false });
    }

    /// The heir has not taken over: this reign goes on.
    pub(crate) fn lead_on(&mut self) {
        self.heir = None;
    }

    pub(crate) fn heir(&self) -> Option<ReplicaId> {
        self.heir.map(|heir| heir.replica)
    }

    /// The heir, if it was not told yet.
    pub(crate) fn untold_heir(&self) -> Option<ReplicaId> {
        self.heir.filter(|heir| !heir.told).map(|heir| heir.replica)
    }

    pub(crate) fn note_told(&mut self) {
        if let Some(heir) = &mut self.heir {
            heir.told = true;
        }
    }

    /// Whether everything that promises named is proposed.
    pub(crate) fn has_adopted(&self, committed: Slot) -> bool {
        self.promises.named() < self.next && !self.is_behind(committed)
    }

    /// The next adopted value that may be proposed: not known to be chosen, within the window, with
    /// the promises of those who govern its slot, and no longer than `bytes_max`.
    pub(crate) fn next_adoption(
        &mut self,
        committed: Slot,
        roster: &Roster,
        bytes_max: usize,
    ) -> Option<Adoption> {
        while self.next <= self.promises.named()
            && (self.next <= committed || self.settled.remove(&self.next))
        {
            self.next = self.next.next();
        }
        let slot = self.next;
        if slot > self.promises.named() || !self.may_propose(slot, roster, committed) {
            return None;
        }
        let adoption = self.promises.adoption(slot);
        if adoption.value.encoded_len() > bytes_max {
            return None;
        }
        self.next = slot.next();
        self.promises.forget_below(self.next);
        Some(adoption)
    }

    /// Rules M2 and Q3.
    fn may_propose(&self, slot: Slot, roster: &Roster, committed: Slot) -> bool {
        slot.distance_from(committed) <= roster.window()
            && self.promises.cover(slot, roster.governing(slot))
    }

    /// Whether something was chosen where this reign has proposed nothing: another leads.
    pub(crate) fn is_overtaken(&self, committed: Slot) -> bool {
        self.next.max(self.top()) <= committed
    }

    /// Whether the values that promises reported as committed are still missing.
    pub(crate) fn is_behind(&self, committed: Slot) -> bool {
        committed < self.reported
    }

    /// Whether everything that was named or reported is committed here, and those who govern the next
    /// slot have said all that they know. Rule R1.
    pub(crate) fn knows_the_past(&self, roster: &Roster, committed: Slot) -> bool {
        self.begin <= committed.next()
            && self.promises.is_quorum_of(roster.governing(committed.next()))
    }

    /// Looks at the progress toward the reported prefix; returns whether there is none.
    pub(crate) fn is_stuck(&mut self, committed: Slot) -> bool {
        self.is_behind(committed) && self.watched.replace(committed) == Some(committed)
    }

    /// A slot that waits to be adopted turned out to be chosen.
    pub(crate) fn settle(&mut self, slot: Slot) {
        if (self.next..=self.promises.named()).contains(&slot) {
            self.settled.insert(slot);
        }
    }

    /// The slot for a new value, if the reported prefix is here, everything adopted is proposed, the
    /// window allows it, and those who govern it have promised. Rules V1, P4, M2 and Q3.
    pub(crate) fn peek_next(&self, roster: &Roster, committed: Slot) -> Option<Slot> {
        let may = self.has_adopted(committed) && self.may_propose(self.next, roster, committed);
        may.then_some(self.next)
    }

    /// Takes the slot that [`Reign::peek_next`] named.
    pub(crate) fn take_next(&mut self) -> Slot {
        let slot = self.next;
        self.next = slot.next();
        slot
    }
}
