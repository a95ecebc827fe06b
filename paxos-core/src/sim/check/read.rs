//! What the observer makes of reads: is a read point above all that anybody knew?
//!
//! Whoever knows a slot to be committed may have told a client of it. So a read that is asked then
//! must not be answered from a state without that slot, whoever answers it (protocol.md §12).

use std::collections::VecDeque;

use super::{Check, Invariant, ReplicaHistory};
use crate::ballot::Ballot;
use crate::ids::{ReplicaId, Slot};
use crate::output::ReadTicket;

/// Which of a replica's two kinds of reads: each counts its own tickets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ReadKind {
    /// Those of a leader.
    Led,
    /// Those of a prepare quorum.
    Quorum,
}

/// Reads that wait, and what anybody knew to be committed when each was asked.
type Waiting = VecDeque<(ReadTicket, Slot)>;

impl ReadKind {
    fn of(self, replica: &mut ReplicaHistory) -> &mut Waiting {
        match self {
            Self::Led => &mut replica.reads,
            Self::Quorum => &mut replica.quorum_reads,
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::Led => "read",
            Self::Quorum => "quorum read",
        }
    }
}

impl Check {
    /// A replica takes a read.
    pub fn read_asked(&mut self, by: ReplicaId, kind: ReadKind, ticket: ReadTicket) {
        let known = self.known;
        kind.of(self.replica(by)).push_back((ticket, known));
    }

    /// How many reads up to this one wait.
    pub fn reads_waiting(&mut self, by: ReplicaId, kind: ReadKind, through: ReadTicket) -> usize {
        let reads = kind.of(self.replica(by));
        reads.iter().take_while(|(ticket, _)| *ticket <= through).count()
    }

    /// A replica names the read point of every read up to this one.
    pub fn reads_ready(&mut self, by: ReplicaId, kind: ReadKind, through: ReadTicket, point: Slot) {
        self.require_prefix(by, point, "reads at");
        let waiting = self.settle_reads(by, kind, through);
        self.require(!waiting.is_empty(), Invariant::ReadsFresh, || {
            format!("{by} answers a {} that nobody asked, {}", kind.words(), through.number())
        });
        for (ticket, known) in waiting {
            self.require(point >= known, Invariant::ReadsFresh, || {
                let (kind, number) = (kind.words(), ticket.number());
                format!("{kind} {number} of {by} at {point}; {known} was known when it was asked")
            });
        }
    }

    /// A replica gives up every read up to this one.
    pub fn reads_lost(&mut self, by: ReplicaId, kind: ReadKind, through: ReadTicket) {
        self.settle_reads(by, kind, through);
    }

    /// Something was chosen at a ballot while a replica, leading at another, held a lease.
    pub fn lease_held(&mut self, by: ReplicaId, at: Ballot, slot: Slot, chosen: Ballot) {
        self.require(at >= chosen, Invariant::LeasesDisjoint, || {
            format!("{by} holds the lease of {at} while {slot} is chosen at {chosen}")
        });
    }

    fn settle_reads(&mut self, by: ReplicaId, kind: ReadKind, through: ReadTicket) -> Waiting {
        let reads = kind.of(self.replica(by));
        let settled = reads.iter().take_while(|(ticket, _)| *ticket <= through).count();
        reads.drain(..settled).collect()
    }
}
