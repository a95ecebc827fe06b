//! The session of one life of a node: in which requests are sent again without being applied again.
//!
//! Owns: [`Numbering`], by which clients number their requests; [`OwnSession`], by which the node's task
//! opens the session that they are sent in. Knows no replica and no transport.
//! Invariants: (1) a number is given to one request, which keeps it when it is sent again; (2) what is
//! acknowledged is below every number whose request may still be sent; (3) no request is sent in a
//! session before this node has seen it opened in the log; (4) an id is opened by one command: where
//! nobody can say what came of that, another id is opened.

use core::time::Duration;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use paxos_core::ids::{ClientId, RequestNumber, SessionId, SessionTtl, Time};
use paxos_core::value::{Command, CommandKind};

/// A request's place in the session. Sessions of a life are counted: when one is lost, the next one
/// begins with new numbers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Place {
    pub(crate) session: u32,
    pub(crate) number: u64,
}

/// Numbers the requests of a node's clients.
#[derive(Debug)]
pub(crate) struct Numbering {
    state: Mutex<Numbers>,
}

/// Numbers from `first` on, and whether each is done with.
#[derive(Debug)]
struct Numbers {
    session: u32,
    first: u64,
    done: VecDeque<bool>,
}

impl Numbers {
    fn of(session: u32) -> Self {
        Self { session, first: 1, done: VecDeque::new() }
    }
}

/// A number that is in use until this is dropped.
#[derive(Debug)]
pub(crate) struct Ticket<'a> {
    numbering: &'a Numbering,
    pub(crate) place: Place,
}

impl Numbering {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::new(Numbers::of(0)) }
    }

    fn numbers(&self) -> MutexGuard<'_, Numbers> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next number, and what is acknowledged by now.
    pub(crate) fn enter(&self) -> (Ticket<'_>, RequestNumber) {
        let mut numbers = self.numbers();
        let place =
            Place { session: numbers.session, number: numbers.first + numbers.done.len() as u64 };
        numbers.done.push_back(false);
        (Ticket { numbering: self, place }, RequestNumber::new(numbers.first))
    }

    /// The session is known no more: from here on numbers are of the next one.
    pub(crate) fn leave(&self, session: u32) {
        let mut numbers = self.numbers();
        if numbers.session == session {
            let next = session.checked_add(1).expect("sessions of a life are never exhausted");
            *numbers = Numbers::of(next);
        }
    }
}

impl Ticket<'_> {
    /// What is acknowledged by now, which is not above this number.
    pub(crate) fn acknowledged_below(&self) -> RequestNumber {
        let numbers = self.numbering.numbers();
        // In a session that is lost nothing more is acknowledged.
        let current = numbers.session == self.place.session;
        RequestNumber::new(if current { numbers.first } else { 0 })
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut numbers = self.numbering.numbers();
        if numbers.session != self.place.session {
            return;
        }
        let offset = (self.place.number - numbers.first) as usize;
        numbers.done[offset] = true;
        while numbers.done.front() == Some(&true) {
            numbers.done.pop_front();
            numbers.first += 1;
        }
    }
}

/// The session as the node's task knows it.
#[derive(Debug)]
pub(crate) struct OwnSession {
    client: ClientId,
    ttl: SessionTtl,
    /// An opening that has no answer for so long is given up.
    patience: Duration,
    /// Which session of this life it is.
    count: u32,
    open: Option<SessionId>,
    /// When it was last asked to be opened; none if that is to be asked at once.
    asked_at: Option<Time>,
    /// The first id that was asked for it, and the next.
    first: u64,
    next: u64,
}

impl OwnSession {
    pub(crate) fn new(client: ClientId, ttl: Duration, patience: Duration) -> Self {
        let ttl = SessionTtl::from_duration(ttl);
        Self { client, ttl, patience, count: 0, open: None, asked_at: None, first: 1, next: 1 }
    }

    /// Which session of this life it is.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// The next session: nothing more is sent in the one before.
    pub(crate) fn begin(&mut self, count: u32) {
        (self.count, self.open, self.asked_at, self.first) = (count, None, None, self.next);
    }

    /// Its id, once it is open.
    pub(crate) fn id(&self) -> Option<SessionId> {
        self.open
    }

    /// The id to ask for next, if that is due.
    pub(crate) fn ask(&mut self, now: Time) -> Option<(SessionId, SessionTtl)> {
        let due = self.asked_at.is_none_or(|at| now.since(at) >= self.patience);
        if self.open.is_some() || !due {
            return None;
        }
        self.asked_at = Some(now);
        self.next += 1;
        Some((self.id_of(self.next - 1), self.ttl))
    }

    /// When nobody waits any more for what was asked for at this time.
    pub(crate) fn asked_until(&self, now: Time) -> Time {
        now.after(self.patience)
    }

    /// What was asked for may be lost: another is asked for at once.
    pub(crate) fn ask_again(&mut self) {
        self.asked_at = None;
    }

    /// The log opened the session of this life with this number, or one before.
    pub(crate) fn opened(&mut self, number: u64) {
        if self.open.is_none() && (self.first..self.next).contains(&number) {
            self.open = Some(self.id_of(number));
        }
    }

    fn id_of(&self, number: u64) -> SessionId {
        SessionId::new(u128::from(self.client.number()) << 64 | u128::from(number))
    }
}

/// The number of a session in a life of a client, if it is one of that life's.
fn number_in(client: ClientId, session: SessionId) -> Option<u64> {
    let bits = session.bits();
    ((bits >> 64) as u64 == client.number()).then_some(bits as u64)
}

/// The number of the session of this life that a command opens, if it does.
pub(crate) fn opens(command: &Command, client: ClientId) -> Option<u64> {
    if let CommandKind::OpenSession { session, .. } = command.kind
        && command.client == client
    {
        return number_in(client, session);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(nanos: u64) -> Time {
        Time::from_nanos(nanos)
    }

    /// **S8** A number is acknowledged only when its request will never be sent again.
    #[test]
    fn numbers_below_the_lowest_in_use_are_acknowledged() {
        let numbering = Numbering::new();
        let (first, below) = numbering.enter();
        assert_eq!((first.place, below), (Place { session: 0, number: 1 }, RequestNumber::new(1)));
        let (second, below) = numbering.enter();
        assert_eq!((second.place.number, below), (2, RequestNumber::new(1)));
        let (third, _) = numbering.enter();
        drop(second);
        assert_eq!(third.acknowledged_below(), RequestNumber::new(1), "the first is in use");
        drop(first);
        assert_eq!(third.acknowledged_below(), RequestNumber::new(3));
        let (fourth, below) = numbering.enter();
        assert_eq!((fourth.place.number, below), (4, RequestNumber::new(3)));
        drop(third);
        drop(fourth);
        assert_eq!(numbering.enter().1, RequestNumber::new(5));
    }

    #[test]
    fn the_next_session_begins_with_new_numbers_and_the_last_one_acknowledges_no_more() {
        let numbering = Numbering::new();
        let (old, _) = numbering.enter();
        drop(numbering.enter());
        numbering.leave(0);
        let (new, below) = numbering.enter();
        assert_eq!((new.place, below), (Place { session: 1, number: 1 }, RequestNumber::new(1)));
        numbering.leave(0);
        assert_eq!(numbering.enter().0.place.session, 1, "whoever comes late leaves nothing");
        assert_eq!(old.acknowledged_below(), RequestNumber::default());
        drop(old);
        assert_eq!(new.acknowledged_below(), RequestNumber::new(1));
    }

    /// **S6** An id is opened by one command. Whoever cannot say what came of that command opens
    /// another id, and sends nothing in a session before it is known to be open.
    #[test]
    fn an_id_is_asked_for_once_and_whichever_was_opened_is_used() {
        let client = ClientId::new(7);
        let patience = Duration::from_nanos(10);
        let mut session = OwnSession::new(client, Duration::from_secs(1), patience);
        let (first, ttl) = session.ask(at(0)).expect("nothing was asked for");
        assert_eq!(ttl, SessionTtl::from_millis(1000));
        assert_eq!(session.ask(at(9)), None, "it may be opened yet");
        let (second, _) = session.ask(at(10)).expect("it was waited for long enough");
        session.ask_again();
        let (third, _) = session.ask(at(11)).expect("it may be lost");
        assert!(first != second && second != third && first != third);
        session.opened(9);
        assert_eq!(session.id(), None, "nobody asked for that");
        session.opened(number_in(client, second).expect("it is of this client"));
        session.opened(number_in(client, third).expect("it is of this client"));
        assert_eq!(session.id(), Some(second));
        assert_eq!(session.ask(at(1000)), None);
        session.begin(1);
        session.opened(number_in(client, third).expect("it is of this client"));
        assert_eq!(session.id(), None, "it was asked for in the session before");
        let (fourth, _) = session.ask(at(1000)).expect("it is another session");
        assert_eq!(number_in(client, fourth), Some(4));
        assert_eq!(number_in(ClientId::new(8), fourth), None);
    }
}
