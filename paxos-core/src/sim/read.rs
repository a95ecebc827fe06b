//! Reads of bare replicas: asked by clients, and judged when their point is named.
//!
//! Owns: nothing; a part of the cluster. A read has no answer here: what is judged is its point.

use super::check::ReadKind;
use super::cluster::Cluster;
use super::host::Process;
use super::marks::Mark;
use crate::ballot::Ballot;
use crate::ids::{ReplicaId, Slot};
use crate::output::{QuorumReadLoss, ReadError, ReadTicket, Status};
use crate::trace::Event;

impl Cluster {
    /// Asks a bare replica for a read point; none while it is down or stands still.
    pub fn read(&mut self, id: ReplicaId) -> Option<Result<ReadTicket, ReadError>> {
        let now = self.now;
        let node = self.node_mut(id);
        if node.paused_until > now {
            return None;
        }
        let local = node.clock.local(now);
        let replica = node.process.as_mut().and_then(Process::replica)?;
        let rounds = replica.counters().read_rounds;
        let asked = replica.read(local);
        if let Ok(ticket) = asked {
            self.totals.reads += 1;
            self.check.read_asked(id, ReadKind::Led, ticket);
            self.log(id, &Event::ReadAsked { ticket: ticket.number() });
        }
        self.drain(id);
        // Alone, and no round began: it does not wait for another round to end.
        let alone = self.status(id).is_some_and(|status| status.reads_waiting == 1);
        let process = self.node(id).process.as_ref();
        if alone && process.is_some_and(|process| process.counters().read_rounds == rounds) {
            self.watch.meet(Mark::ReadsWaited);
        }
        Some(asked)
    }

    pub(super) fn reads_ready(&mut self, id: ReplicaId, through: ReadTicket, point: Slot) {
        let waiting = self.check.reads_waiting(id, ReadKind::Led, through);
        if waiting > 1 {
            self.watch.meet(Mark::ReadsShared);
        }
        self.totals.reads_ready += waiting as u64;
        self.check.reads_ready(id, ReadKind::Led, through, point);
        self.log(id, &Event::ReadsReady { through: through.number(), point });
    }

    /// Asks a bare replica for what a prepare quorum knows; none while it is down or stands still.
    pub fn read_quorum(&mut self, id: ReplicaId) -> Option<Result<ReadTicket, ReadError>> {
        let now = self.now;
        let node = self.node_mut(id);
        if node.paused_until > now {
            return None;
        }
        let local = node.clock.local(now);
        let asked = node.process.as_mut().and_then(Process::replica)?.read_quorum(local);
        if let Ok(ticket) = asked {
            self.totals.quorum_reads += 1;
            self.check.read_asked(id, ReadKind::Quorum, ticket);
            self.log(id, &Event::QuorumReadAsked { ticket: ticket.number() });
        }
        self.drain(id);
        Some(asked)
    }

    pub(super) fn quorum_reads_ready(&mut self, id: ReplicaId, through: ReadTicket, point: Slot) {
        let waiting = self.check.reads_waiting(id, ReadKind::Quorum, through);
        self.totals.quorum_reads_ready += waiting as u64;
        if let Some(status) = self.status(id) {
            if status.leader.is_none() {
                self.watch.meet(Mark::LeaderlessRead);
            }
            // What was committed by then was told before: the point made the read wait.
            if self.node(id).seen.committed < point {
                self.watch.meet(Mark::QuorumReadWaited);
            }
        }
        self.check.reads_ready(id, ReadKind::Quorum, through, point);
        self.log(id, &Event::QuorumReadsReady { through: through.number(), point });
    }

    pub(super) fn quorum_reads_lost(
        &mut self,
        id: ReplicaId,
        through: ReadTicket,
        reason: QuorumReadLoss,
    ) {
        self.watch.meet(match reason {
            QuorumReadLoss::Unreached => Mark::QuorumReadUnreached,
            QuorumReadLoss::Unsettled { .. } => Mark::QuorumReadUnsettled,
        });
        let waiting = self.check.reads_waiting(id, ReadKind::Quorum, through);
        self.totals.quorum_reads_lost += waiting as u64;
        self.check.reads_lost(id, ReadKind::Quorum, through);
        self.log(id, &Event::QuorumReadsLost { through: through.number(), reason });
    }

    /// A value was chosen: whoever holds a lease by its own clock leads at that ballot or a higher one.
    pub(super) fn compare_leases(&mut self, slot: Slot, chosen: Ballot) {
        if self.options.lease.is_none() {
            return;
        }
        for id in self.ids() {
            let Some(Status { lease_until: Some(until), leader: Some(at), .. }) = self.status(id)
            else {
                continue;
            };
            if self.node(id).clock.local(self.now) < until {
                self.check.lease_held(id, at, slot, chosen);
            }
        }
    }

    pub(super) fn reads_lost(&mut self, id: ReplicaId, through: ReadTicket) {
        self.watch.meet(Mark::ReadsLost);
        self.totals.reads_lost += self.check.reads_waiting(id, ReadKind::Led, through) as u64;
        self.check.reads_lost(id, ReadKind::Led, through);
        self.log(id, &Event::ReadsLost { through: through.number() });
    }
}
