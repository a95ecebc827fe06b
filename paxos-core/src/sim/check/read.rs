//! What the observer makes of reads: is a read point above all that anybody knew?
//!
//! Whoever knows a slot to be committed may have told a client of it. So a read that is asked then
//! must not be answered from a state without that slot, whoever answers it (protocol.md §12).

use super::{Check, Invariant};
use crate::ballot::Ballot;
use crate::ids::{ReplicaId, Slot};
use crate::output::ReadTicket;

impl Check {
    /// A replica takes a read.
    pub fn read_asked(&mut self, by: ReplicaId, ticket: ReadTicket) {
        let known = self.known;
        self.replica(by).reads.push_back((ticket, known));
    }

    /// How many reads up to this one wait.
    pub fn reads_waiting(&mut self, by: ReplicaId, through: ReadTicket) -> usize {
        let reads = &self.replica(by).reads;
        reads.iter().take_while(|(ticket, _)| *ticket <= through).count()
    }

    /// A replica names the read point of every read up to this one.
    pub fn reads_ready(&mut self, by: ReplicaId, through: ReadTicket, point: Slot) {
        self.require_prefix(by, point, "reads at");
        let waiting = self.settle_reads(by, through);
        self.require(!waiting.is_empty(), Invariant::ReadsFresh, || {
            format!("{by} answers a read that nobody asked, {}", through.number())
        });
        for (ticket, known) in waiting {
            self.require(point >= known, Invariant::ReadsFresh, || {
                let number = ticket.number();
                format!("read {number} of {by} at {point}; {known} was known when it was asked")
            });
        }
    }

    /// A replica gives up every read up to this one.
    pub fn reads_lost(&mut self, by: ReplicaId, through: ReadTicket) {
        self.settle_reads(by, through);
    }

    /// Something was chosen at a ballot while a replica, leading at another, held a lease.
    pub fn lease_held(&mut self, by: ReplicaId, at: Ballot, slot: Slot, chosen: Ballot) {
        self.require(at >= chosen, Invariant::LeasesDisjoint, || {
            format!("{by} holds the lease of {at} while {slot} is chosen at {chosen}")
        });
    }

    fn settle_reads(&mut self, by: ReplicaId, through: ReadTicket) -> Vec<(ReadTicket, Slot)> {
        let reads = &mut self.replica(by).reads;
        let settled = reads.iter().take_while(|(ticket, _)| *ticket <= through).count();
        reads.drain(..settled).collect()
    }
}
