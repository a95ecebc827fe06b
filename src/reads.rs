//! Reads on their way to a read point (the book's Follower Reads, the host's side).
//!
//! Owns: [`Reads`]: who waits for a read point, whom this node asked for one, and whom it asks for
//! peers. Plain state: knows no transport, no replica and no state machine.
//! Invariants: (1) an answer settles the attempt that it names and no other, and an attempt's number
//! is used once in a life; (2) whoever came after an attempt was made waits for the next one;
//! (3) a read is tried again until its time is over, for it changes nothing.

use core::time::Duration;
use std::collections::VecDeque;

use paxos_core::ids::{Incarnation, ReplicaId, Slot, Time};
use paxos_core::output::ReadTicket;

use crate::waiters::Waiting;

/// A peer that asked this node for a read point.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Asker {
    pub(crate) peer: ReplicaId,
    /// The peer's life, and its number of the attempt.
    pub(crate) origin: Incarnation,
    pub(crate) sequence: u64,
}

/// A question to the node that leads.
#[derive(Debug)]
struct Question<W> {
    leader: ReplicaId,
    sequence: u64,
    asked_at: Time,
    waiting: Vec<Waiting<W>>,
}

/// What waits for a ticket of this node's own replica.
#[derive(Debug)]
enum Ticketed<W> {
    Own { asked_at: Time, waiting: Vec<Waiting<W>> },
    Peer(Asker),
}

/// What became settled by a read point.
#[derive(Debug)]
pub(crate) struct Settled<W> {
    /// This node's own reads.
    pub(crate) waiting: Vec<Waiting<W>>,
    /// Peers that are to be told.
    pub(crate) askers: Vec<Asker>,
}

/// Reads that wait for a read point.
#[derive(Debug)]
pub(crate) struct Reads<W> {
    pending: Vec<Waiting<W>>,
    tickets: VecDeque<(ReadTicket, Ticketed<W>)>,
    question: Option<Question<W>>,
    sequence: u64,
    /// When a question that has no answer is asked again.
    patience: Duration,
    /// No question before this, after a refusal.
    retry_at: Time,
    /// How many questions in a row were refused.
    refusals: u32,
    /// The newest read point, and when it was asked for.
    newest: Option<(Time, Slot)>,
}

impl<W> Reads<W> {
    pub(crate) fn new(patience: Duration) -> Self {
        Self {
            pending: Vec::new(),
            tickets: VecDeque::new(),
            question: None,
            sequence: 0,
            patience,
            retry_at: Time::ZERO,
            refusals: 0,
            newest: None,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.tickets.is_empty() && self.question.is_none()
    }

    pub(crate) fn push(&mut self, waiting: Waiting<W>) {
        self.pending.push(waiting);
    }

    /// A read point that was asked for within `lag` of now, if there is one.
    pub(crate) fn recent(&self, lag: Duration, now: Time) -> Option<Slot> {
        self.newest.filter(|(asked_at, _)| now.since(*asked_at) <= lag).map(|(_, point)| point)
    }

    /// Whether reads wait that nobody was asked about.
    pub(crate) fn wants_ticket(&self) -> bool {
        !self.pending.is_empty()
    }

    /// This node's replica took everything that waits under one ticket.
    pub(crate) fn ticketed(&mut self, ticket: ReadTicket, now: Time) {
        let waiting = core::mem::take(&mut self.pending);
        self.tickets.push_back((ticket, Ticketed::Own { asked_at: now, waiting }));
    }

    /// This node's replica took a peer's question. A peer has one: those before are void.
    pub(crate) fn ticketed_for(&mut self, ticket: ReadTicket, asker: Asker) {
        let of_peer = |ticketed: &Ticketed<W>| match ticketed {
            Ticketed::Own { .. } => None,
            Ticketed::Peer(before) => Some(*before).filter(|before| before.peer == asker.peer),
        };
        let newer =
            |before: Asker| (before.origin, before.sequence) >= (asker.origin, asker.sequence);
        if self.tickets.iter().filter_map(|(_, ticketed)| of_peer(ticketed)).any(newer) {
            return;
        }
        self.tickets.retain(|(_, ticketed)| of_peer(ticketed).is_none());
        self.tickets.push_back((ticket, Ticketed::Peer(asker)));
    }

    /// Whether a question may be asked of the node that leads: one at a time.
    pub(crate) fn wants_question(&self, now: Time) -> bool {
        self.question.is_none() && !self.pending.is_empty() && self.retry_at <= now
    }

    /// A question is on its way: the number that its answer must name. It takes along everything
    /// that waits.
    pub(crate) fn question(&mut self, leader: ReplicaId, now: Time) -> u64 {
        assert!(self.question.is_none(), "one question at a time");
        self.sequence += 1;
        let (sequence, waiting) = (self.sequence, core::mem::take(&mut self.pending));
        self.question = Some(Question { leader, sequence, asked_at: now, waiting });
        sequence
    }

    /// The node that leads named a read point. Nothing if that is no answer to the open question.
    pub(crate) fn answered(
        &mut self,
        from: ReplicaId,
        sequence: u64,
        point: Slot,
    ) -> Vec<Waiting<W>> {
        let is_it = |open: &mut Question<W>| open.leader == from && open.sequence == sequence;
        let Some(question) = self.question.take_if(is_it) else {
            return Vec::new();
        };
        self.refusals = 0;
        self.note(question.asked_at, point);
        question.waiting
    }

    /// How many questions in a row were refused: how patient the next is to be.
    pub(crate) fn refusals(&self) -> u32 {
        self.refusals
    }

    /// The node that was asked names no point. Nothing if that is no answer to the open question.
    pub(crate) fn refused(&mut self, from: ReplicaId, sequence: u64, retry_at: Time) {
        let open = self.question.as_ref();
        if open.is_some_and(|open| open.leader == from && open.sequence == sequence) {
            self.give_up();
            self.retry_at = retry_at;
            self.refusals = self.refusals.saturating_add(1);
        }
    }

    /// The question will have no answer: its reads wait again.
    pub(crate) fn give_up(&mut self) {
        if let Some(question) = self.question.take() {
            self.pending.splice(..0, question.waiting);
        }
    }

    /// The link to a peer fell, or nobody or somebody else leads.
    pub(crate) fn give_up_on(&mut self, gone: impl Fn(ReplicaId) -> bool) {
        if self.question.as_ref().is_some_and(|question| gone(question.leader)) {
            self.give_up();
        }
    }

    /// When the open question is asked again, or the next may be asked.
    pub(crate) fn wake_at(&self) -> Option<Time> {
        match &self.question {
            Some(question) => Some(question.asked_at.after(self.patience)),
            None => (!self.pending.is_empty()).then_some(self.retry_at),
        }
    }

    /// Gives up a question that has waited for too long.
    pub(crate) fn tend(&mut self, now: Time) {
        let late = |open: &Question<W>| now.since(open.asked_at) >= self.patience;
        if self.question.as_ref().is_some_and(late) {
            self.give_up();
        }
    }

    /// Tickets up to this one have a read point.
    pub(crate) fn ready(&mut self, through: ReadTicket, point: Slot) -> Settled<W> {
        let mut settled = Settled { waiting: Vec::new(), askers: Vec::new() };
        while let Some((_, ticketed)) = self.pop_through(through) {
            match ticketed {
                Ticketed::Own { asked_at, waiting } => {
                    self.note(asked_at, point);
                    settled.waiting.extend(waiting);
                }
                Ticketed::Peer(asker) => settled.askers.push(asker),
            }
        }
        settled
    }

    /// Tickets up to this one get no read point: own reads wait again, the peers are returned.
    pub(crate) fn lost(&mut self, through: ReadTicket) -> Vec<Asker> {
        let mut askers = Vec::new();
        while let Some((_, ticketed)) = self.pop_through(through) {
            match ticketed {
                Ticketed::Own { waiting, .. } => self.pending.extend(waiting),
                Ticketed::Peer(asker) => askers.push(asker),
            }
        }
        askers
    }

    fn pop_through(&mut self, through: ReadTicket) -> Option<(ReadTicket, Ticketed<W>)> {
        let is_due = self.tickets.front().is_some_and(|(ticket, _)| *ticket <= through);
        if is_due { self.tickets.pop_front() } else { None }
    }

    fn note(&mut self, asked_at: Time, point: Slot) {
        self.newest = self.newest.max(Some((asked_at, point)));
    }

    /// Takes those out whose time is over.
    pub(crate) fn expire(&mut self, now: Time) -> Vec<Waiting<W>> {
        let mut late = Vec::new();
        let mut sift = |waiting: &mut Vec<Waiting<W>>| {
            late.extend(waiting.extract_if(.., |waiting| waiting.deadline <= now));
        };
        sift(&mut self.pending);
        if let Some(question) = &mut self.question {
            sift(&mut question.waiting);
        }
        self.tickets.retain_mut(|(_, ticketed)| match ticketed {
            Ticketed::Own { waiting, .. } => {
                sift(waiting);
                !waiting.is_empty()
            }
            Ticketed::Peer(_) => true,
        });
        late
    }

    /// Takes everybody out: those who wait here, and the peers.
    pub(crate) fn drain(&mut self) -> (Vec<Waiting<W>>, Vec<Asker>) {
        self.give_up();
        let askers = self.lost(ReadTicket::MAX);
        (core::mem::take(&mut self.pending), askers)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;
    use crate::lanes::Load;

    const LEADER: ReplicaId = ReplicaId::new(2);
    const PATIENCE: Duration = Duration::from_nanos(100);

    fn at(nanos: u64) -> Time {
        Time::from_nanos(nanos)
    }

    fn reads(names: &[u32]) -> Reads<u32> {
        let mut reads = Reads::new(PATIENCE);
        for name in names {
            reads.push(waiting(*name, 1000));
        }
        reads
    }

    fn waiting(name: u32, deadline: u64) -> Waiting<u32> {
        Waiting { waiter: name, deadline: at(deadline), load: Load::default() }
    }

    fn names(waiting: Vec<Waiting<u32>>) -> Vec<u32> {
        waiting.into_iter().map(|waiting| waiting.waiter).collect()
    }

    #[test]
    fn an_answer_settles_the_question_that_it_names() {
        let mut reads = reads(&[1, 2]);
        let first = reads.question(LEADER, at(5));
        reads.push(waiting(3, 1000));
        assert!(!reads.wants_question(at(5)), "one question at a time");
        assert_eq!(reads.wake_at(), Some(at(105)));
        reads.tend(at(105));
        let second = reads.question(LEADER, at(105));
        assert_ne!(first, second);
        assert!(names(reads.answered(LEADER, first, Slot::new(9))).is_empty(), "it is too old");
        assert!(names(reads.answered(ReplicaId::new(3), second, Slot::new(9))).is_empty());
        assert_eq!(names(reads.answered(LEADER, second, Slot::new(9))), [1, 2, 3]);
        assert_eq!(reads.refusals(), 0);
        assert!(reads.is_empty());
        assert_eq!(reads.recent(Duration::from_nanos(10), at(115)), Some(Slot::new(9)));
        assert_eq!(reads.recent(Duration::from_nanos(10), at(116)), None, "asked for too long ago");
    }

    fn asker(peer: u16, sequence: u64) -> Asker {
        Asker { peer: ReplicaId::new(peer), origin: Incarnation::new(1, 1), sequence }
    }

    fn tickets(count: u64) -> Vec<ReadTicket> {
        (1..=count).map(ReadTicket::new).collect()
    }

    #[test]
    fn a_read_point_settles_the_tickets_up_to_its_own() {
        let tickets = tickets(4);
        let mut reads = reads(&[1, 2]);
        reads.ticketed(tickets[0], at(5));
        reads.ticketed_for(tickets[1], asker(3, 7));
        reads.push(waiting(3, 1000));
        reads.ticketed(tickets[2], at(6));
        let Settled { waiting, askers } = reads.ready(tickets[1], Slot::new(4));
        assert_eq!((names(waiting), askers), (vec![1, 2], vec![asker(3, 7)]));
        assert_eq!(reads.recent(Duration::ZERO, at(5)), Some(Slot::new(4)), "since it was asked");
        assert!(!reads.wants_ticket());
        reads.ticketed_for(tickets[3], asker(2, 1));
        assert_eq!(reads.lost(ReadTicket::MAX), [asker(2, 1)]);
        assert!(reads.wants_ticket(), "the own one waits again");
        let (waiting, askers) = reads.drain();
        assert_eq!((names(waiting), askers), (vec![3], Vec::new()));
    }

    #[test]
    fn a_peer_has_one_question_and_it_is_its_newest() {
        let tickets = tickets(4);
        let mut reads = reads(&[]);
        reads.ticketed_for(tickets[0], asker(3, 7));
        reads.ticketed_for(tickets[1], asker(3, 9));
        reads.ticketed_for(tickets[2], asker(3, 8));
        reads.ticketed_for(tickets[3], asker(2, 1));
        let (waiting, askers) = reads.drain();
        assert_eq!((names(waiting), askers), (vec![], vec![asker(3, 9), asker(2, 1)]));
    }

    #[test]
    fn nothing_is_kept_of_reads_that_gave_up() {
        let mut reads = reads(&[1]);
        reads.ticketed(tickets(1)[0], at(0));
        assert!(!reads.is_empty());
        assert_eq!(names(reads.expire(at(1000))), [1]);
        assert!(reads.is_empty());
    }

    #[test]
    fn what_is_lost_or_refused_waits_again() {
        let mut reads = reads(&[1]);
        let sequence = reads.question(LEADER, at(0));
        reads.refused(LEADER, sequence, at(50));
        assert!(!reads.wants_question(at(49)) && reads.wants_question(at(50)));
        assert_eq!(reads.refusals(), 1, "the next waits longer");
        assert_eq!(reads.wake_at(), Some(at(50)));
        reads.question(LEADER, at(50));
        reads.give_up_on(|peer| peer != LEADER);
        assert!(!reads.wants_ticket());
        reads.give_up_on(|peer| peer == LEADER);
        assert!(reads.wants_ticket());
        assert_eq!(names(reads.expire(at(1000))), [1]);
        assert!(reads.is_empty());
    }
}
