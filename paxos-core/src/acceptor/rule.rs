//! The acceptor's rules for one slot (Paxos, phases 1b and 2b).
//!
//! Owns what a promise and a vote permit. The acceptor of the log and that of a single value
//! ([`crate::single`]) are these, with more or fewer votes kept.
//! Invariants: the promise never goes back (A1); no vote is below it (A2); at one ballot there is
//! one value (A3).
//! Source: protocol.md §7; Lamport, "Paxos Made Simple", §2.2.

use crate::ballot::Ballot;

/// The answer to a Prepare.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum PrepareAnswer {
    /// Promised; the promise is new and has to be written.
    Promised,
    /// Promised before.
    PromisedBefore,
    /// This higher ballot is promised.
    Rejected(Ballot),
}

/// The answer to a proposal for one slot.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum AcceptAnswer {
    /// Accepted; the vote is new and has to be written.
    Accepted,
    /// Accepted before, at this ballot.
    AcceptedBefore,
    /// This higher ballot is promised.
    Rejected(Ballot),
    /// At this ballot another value was accepted in this slot: somebody broke P6.
    Conflict,
}

/// Phase 1b. Rule A1.
pub(crate) fn prepare(promise: &mut Option<Ballot>, ballot: Ballot) -> PrepareAnswer {
    match *promise {
        Some(promised) if promised > ballot => PrepareAnswer::Rejected(promised),
        Some(promised) if promised == ballot => PrepareAnswer::PromisedBefore,
        Some(_) | None => {
            *promise = Some(ballot);
            PrepareAnswer::Promised
        }
    }
}

/// Phase 2b. Rules A2 and A3. `vote` is the last one in this slot; a new one is the caller's to keep.
pub(crate) fn accept<V: PartialEq>(
    promise: &mut Option<Ballot>,
    vote: Option<(Ballot, &V)>,
    ballot: Ballot,
    value: &V,
) -> AcceptAnswer {
    if let Some(promised) = *promise
        && promised > ballot
    {
        return AcceptAnswer::Rejected(promised);
    }
    *promise = Some(ballot);
    match vote {
        Some((last, voted)) if last == ballot => {
            if voted == value {
                AcceptAnswer::AcceptedBefore
            } else {
                AcceptAnswer::Conflict
            }
        }
        vote => {
            assert!(
                vote.is_none_or(|(last, _)| last < ballot),
                "a vote is never above the promise"
            );
            AcceptAnswer::Accepted
        }
    }
}
