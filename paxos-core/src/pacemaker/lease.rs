//! Leases: the time for which a leader may give read points without asking (Lease; Clock-Bound Wait).
//!
//! Owns: [`Leases`]: what this replica granted, and the lease that it holds itself. Part of the
//! pacemaker, the only one that sees time; the acceptor learns of a grant as a Prepare that does not
//! reach it.
//! Invariants: a grant ends by this replica's own clock, or when its holder gave up the round it was
//! for (R6, R8); a lease counts from the moment at which its round was first asked for (R7); a replica
//! that starts waits as if it had granted just before (R9).
//! Source: protocol.md §12; Gray, Cheriton, "Leases"; Chandra, Griesemer, Redstone, "Paxos Made Live",
//! for leases of a master.

use core::time::Duration;

use crate::ballot::Ballot;
use crate::ids::{ReplicaId, Time};
use crate::membership::LeaseTerms;

/// What was granted, and to which reign.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Grant {
    ballot: Ballot,
    round: u64,
    until: Time,
}

/// Both sides of the leases of a replica.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct Leases {
    terms: Option<LeaseTerms>,
    /// Nothing new is promised to anybody before.
    sits_out_until: Time,
    grant: Option<Grant>,
    /// The newest round asked for, and when that was first done.
    asked: Option<(u64, Time)>,
    /// Until when this replica's own lease lasts.
    held_until: Option<Time>,
    /// The highest round that this replica no longer relies on.
    released: u64,
}

impl Leases {
    pub(super) fn new(terms: Option<LeaseTerms>, now: Time) -> Self {
        let sits_out_until = terms.map_or(now, |terms| now.after(terms.duration()));
        let (grant, asked, held_until) = (None, None, None);
        Self { terms, sits_out_until, grant, asked, held_until, released: 0 }
    }

    // --- as a leader

    /// A round begins.
    pub(super) fn on_asked(&mut self, round: u64, now: Time) {
        self.asked = Some((round, now));
    }

    /// Whether it is time for a round even if nobody reads.
    pub(super) fn wants_renewal(&self, interval: Duration, now: Time) -> bool {
        self.terms.is_some() && self.asked.is_none_or(|(_, at)| now.since(at) >= interval)
    }

    /// An accept quorum has confirmed a round. Rule R7.
    pub(super) fn on_confirmed(&mut self, round: u64) {
        if let (Some(terms), Some((asked, at))) = (self.terms, self.asked)
            && asked == round
            && round > self.released
        {
            self.held_until = self.held_until.max(Some(at.after(terms.held())));
        }
    }

    pub(super) fn held_until(&self) -> Option<Time> {
        self.held_until
    }

    /// This replica relies on no round that it has asked for. Rule R8.
    pub(super) fn release(&mut self) {
        self.held_until = None;
        if let (Some(_), Some((round, _))) = (self.terms, self.asked) {
            self.released = round;
        }
    }

    pub(super) fn released(&self) -> u64 {
        self.released
    }

    // --- as a voter

    /// This replica is to confirm a round. Rule R6: not if it granted a lease to a higher ballot, for
    /// whoever leads at that has outlived the leases of those below. Returns whether it may.
    pub(super) fn grant(&mut self, ballot: Ballot, round: u64, now: Time) -> bool {
        let Some(terms) = self.terms else {
            return true;
        };
        let until = now.after(terms.duration());
        match &mut self.grant {
            Some(grant) if grant.ballot > ballot => return false,
            // Rounds may come out of their order; the time runs from the last that came.
            Some(grant) if grant.ballot == ballot => {
                grant.round = grant.round.max(round);
                grant.until = until;
            }
            Some(_) | None => self.grant = Some(Grant { ballot, round, until }),
        }
        true
    }

    /// A peer relies on no round of its own up to this one. Rule R8.
    pub(super) fn on_released(&mut self, by: ReplicaId, through: u64) {
        let ends = |grant: &mut Grant| grant.ballot.leader() == by && grant.round <= through;
        self.grant.take_if(ends);
    }

    /// Until when nothing new may be promised to this candidate, if it must wait. Rules R6 and R9.
    pub(super) fn withheld_until(&self, candidate: ReplicaId, now: Time) -> Option<Time> {
        let granted = self.grant.as_ref().filter(|grant| grant.ballot.leader() != candidate);
        let granted = granted.map_or(Time::ZERO, |grant| grant.until);
        let until = self.sits_out_until.max(granted);
        (now < until).then_some(until)
    }
}
