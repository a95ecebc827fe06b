//! Reads that this node's own replica has a prepare quorum answer, whoever leads.
//!
//! Owns: [`QuorumReads`]: who waits, and under which ticket. Plain state: knows no replica and no state
//! machine. Whether and when a ticket gets its read point is the replica's affair.
//! Invariants: (1) a read waits for a ticket that was given after it came; (2) it is answered once, or
//! told why not.
//! Source: protocol.md §12.

use std::collections::VecDeque;

use paxos_core::ids::Time;
use paxos_core::output::ReadTicket;

use crate::waiters::Waiting;

/// Reads that wait for a prepare quorum.
#[derive(Debug)]
pub(crate) struct QuorumReads<W> {
    pending: Vec<Waiting<W>>,
    tickets: VecDeque<(ReadTicket, Vec<Waiting<W>>)>,
}

impl<W> QuorumReads<W> {
    pub(crate) fn new() -> Self {
        Self { pending: Vec::new(), tickets: VecDeque::new() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.tickets.is_empty()
    }

    pub(crate) fn push(&mut self, waiting: Waiting<W>) {
        self.pending.push(waiting);
    }

    /// Whether reads wait that have no ticket.
    pub(crate) fn wants_ticket(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The replica took everything that waits under one ticket.
    pub(crate) fn ticketed(&mut self, ticket: ReadTicket) {
        let waiting = core::mem::take(&mut self.pending);
        self.tickets.push_back((ticket, waiting));
    }

    /// Takes out whoever waits for tickets up to this one: they have a point, or will have none.
    pub(crate) fn settle(&mut self, through: ReadTicket) -> Vec<Waiting<W>> {
        let mut settled = Vec::new();
        while self.tickets.front().is_some_and(|(ticket, _)| *ticket <= through)
            && let Some((_, waiting)) = self.tickets.pop_front()
        {
            settled.extend(waiting);
        }
        settled
    }

    /// Takes those out whose time is over.
    pub(crate) fn expire(&mut self, now: Time) -> Vec<Waiting<W>> {
        let mut late = Vec::new();
        let mut sift = |waiting: &mut Vec<Waiting<W>>| {
            late.extend(waiting.extract_if(.., |waiting| waiting.deadline <= now));
        };
        sift(&mut self.pending);
        self.tickets.retain_mut(|(_, waiting)| {
            sift(waiting);
            !waiting.is_empty()
        });
        late
    }

    /// Takes everybody out.
    pub(crate) fn drain(&mut self) -> Vec<Waiting<W>> {
        let ticketed = self.settle(ReadTicket::MAX);
        self.pending.drain(..).chain(ticketed).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lanes::Load;

    fn at(nanos: u64) -> Time {
        Time::from_nanos(nanos)
    }

    fn waiting(waiter: u32, deadline: u64) -> Waiting<u32> {
        Waiting { waiter, deadline: at(deadline), load: Load::default() }
    }

    fn names(waiting: Vec<Waiting<u32>>) -> Vec<u32> {
        waiting.into_iter().map(|waiting| waiting.waiter).collect()
    }

    #[test]
    fn a_ticket_settles_those_that_came_before_it_and_no_other() {
        let mut reads = QuorumReads::new();
        for (waiter, deadline) in [(1, 50), (2, 99)] {
            reads.push(waiting(waiter, deadline));
        }
        assert!(reads.wants_ticket());
        reads.ticketed(ReadTicket::new(1));
        reads.push(waiting(3, 99));
        reads.ticketed(ReadTicket::new(2));
        reads.push(waiting(4, 50));
        assert_eq!(names(reads.expire(at(49))), [0; 0]);
        assert_eq!(names(reads.expire(at(50))), [4, 1]);
        assert_eq!(names(reads.settle(ReadTicket::new(1))), [2]);
        assert!(!reads.is_empty() && !reads.wants_ticket());
        reads.push(waiting(5, 99));
        assert_eq!(names(reads.drain()), [5, 3]);
        assert!(reads.is_empty());
    }
}
