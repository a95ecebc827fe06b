//! What of a replica bears on what it will say: everything but time.
//!
//! Owns: [`SafetyState`], a view for comparing. Reads every part and changes none.
//! Invariant: of two replicas with equal views, the same input gets the same effects and leaves
//! equal views, as long as the same timers are due and no peer's flow is at its bound.
//! Source: protocol.md §2.

use super::Replica;
use crate::acceptor::Acceptor;
use crate::ballot::Ballot;
use crate::catchup::{Catchup, Loads};
use crate::ids::{LogClock, ReplicaId, Slot};
use crate::learner::Learner;
use crate::lives::LivesState;
use crate::log::Log;
use crate::outbox::OutboxState;
use crate::pacemaker::TIMERS;
use crate::proposer::Proposer;
use crate::read::Reads;
use crate::repeat::Repeats;
use crate::roster::Roster;
use crate::survey::Surveys;

/// A replica without the readings of its clock, its counters and its random numbers: of timers it
/// says which are armed, of peers which prefix they hold, of what was heard the ballot that a campaign would outbid, of what is on its
/// way to peers which of them are probed. Write batches are numbered from the last proof on, and a message that waits several times is named once.
///
/// Replicas compare whole, too, but two that took in one message twice, or at different times,
/// then differ for ever. A model that visits every state compares by this.
///
/// Where a membership has leases, time does matter, and this is not enough to compare by. Quorum reads
/// are compared with the times at which their rounds began.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct SafetyState<'a> {
    acceptor: Acceptor,
    learner: Learner,
    proposer: Proposer,
    log: Log,
    lives: LivesState<'a>,
    catchup: &'a Catchup,
    loads: &'a Loads,
    outbox: OutboxState<'a>,
    clock: LogClock,
    watermark: Option<(Ballot, Slot)>,
    recorded: Slot,
    snapshot: Slot,
    told: Slot,
    repeats: &'a Repeats,
    reads: &'a Reads,
    surveys: &'a Surveys,
    probed: Vec<bool>,
    outbid: Option<Ballot>,
    roster: &'a Roster,
    held: Slot,
    held_by_peers: Vec<(ReplicaId, Slot)>,
    armed: [bool; TIMERS.len()],
    halted: bool,
}

impl Replica {
    /// What to compare replicas by when time does not matter.
    pub fn safety_state(&self) -> SafetyState<'_> {
        let proved = self.outbox.proved();
        SafetyState {
            acceptor: self.acceptor.since(proved),
            learner: self.learner.since(proved),
            proposer: self.proposer.since(proved),
            log: self.log.since(proved),
            lives: self.lives.since(proved),
            catchup: &self.catchup,
            loads: &self.loads,
            outbox: self.outbox.state(),
            clock: self.clock,
            watermark: self.watermark,
            recorded: self.recorded,
            snapshot: self.snapshot,
            told: self.told,
            repeats: &self.repeats,
            reads: &self.reads,
            surveys: &self.surveys,
            probed: self.flows.probed(),
            outbid: self.acceptor.promised().max(self.pacemaker.seen()),
            roster: &self.roster,
            held: self.held,
            held_by_peers: self.pacemaker.holdings(),
            armed: TIMERS.map(|timer| self.pacemaker.is_armed(timer)),
            halted: self.halted,
        }
    }
}
