//! Which ballot leads, and when to give up on what a former leader was given (part of the book's
//! Generation Clock, on the clients' side).
//!
//! Owns: [`Succession`]. Plain state: knows no replica, no requests, no clock but by argument.
//! Invariants: (1) a ballot is deposed only once a higher one leads; (2) it is said a grace period
//! after that, not at once. A new leader proposes again what it found, and that is then applied
//! here, or another value in its place: during the grace period most of what the former leader was
//! given gets its true answer. The rest gets `Unknown`, which is never wrong.

use core::time::Duration;

use paxos_core::ballot::Ballot;
use paxos_core::ids::Time;

/// The highest ballot known to lead, and the verdict on those below that is due.
#[derive(Debug)]
pub(crate) struct Succession {
    grace: Duration,
    highest: Option<Ballot>,
    due: Option<Time>,
}

impl Succession {
    pub(crate) fn new(grace: Duration) -> Self {
        Self { grace, highest: None, due: None }
    }

    /// This ballot leads. Leaders that follow each other quickly do not put the verdict off.
    pub(crate) fn on_leader(&mut self, ballot: Ballot, now: Time) {
        if self.highest.is_some_and(|highest| highest < ballot) {
            self.due.get_or_insert(now.after(self.grace));
        }
        self.highest = self.highest.max(Some(ballot));
    }

    pub(crate) fn due(&self) -> Option<Time> {
        self.due
    }

    /// The ballot below which all are deposed, if that is to be said now.
    pub(crate) fn take_due(&mut self, now: Time) -> Option<Ballot> {
        self.due.take_if(|due| *due <= now)?;
        self.highest
    }
}

#[cfg(test)]
mod tests {
    use paxos_core::ids::ReplicaId;

    use super::*;

    fn ballot(round: u64) -> Ballot {
        Ballot::new(round, ReplicaId::new(1))
    }

    fn at(nanos: u64) -> Time {
        Time::from_nanos(nanos)
    }

    #[test]
    fn only_a_higher_ballot_deposes_and_only_after_the_grace_period() {
        let mut succession = Succession::new(Duration::from_nanos(10));
        succession.on_leader(ballot(2), at(0));
        succession.on_leader(ballot(2), at(1));
        succession.on_leader(ballot(1), at(2));
        assert_eq!(succession.take_due(at(100)), None);
        succession.on_leader(ballot(3), at(100));
        assert_eq!(succession.due(), Some(at(110)));
        assert_eq!(succession.take_due(at(109)), None);
        // One more change neither delays the verdict nor is left out of it.
        succession.on_leader(ballot(4), at(105));
        assert_eq!(succession.take_due(at(110)), Some(ballot(4)));
        assert_eq!(succession.take_due(at(200)), None);
    }
}
