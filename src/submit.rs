//! Requests on their way to be proposed (the book's Request Batch, and its Singular Update Queue's
//! queue).
//!
//! Owns: [`Queue`]: what was asked for and is certainly not proposed yet; the numbering of this
//! life's requests; the session that they are sent in. Knows no replica and no transport.
//! Invariants: (1) a request gets its number when it leaves `pending`, in order, once; (2) a parcel
//! holds this node's own commands first, their numbers consecutive; (3) whatever stands in the
//! queue is certainly not proposed; (4) what is to be sent in the session waits until it is open.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use paxos_core::codec::{BATCH_HEADER_LEN, COMMAND_HEADER_LEN, IN_SESSION_LEN};
use paxos_core::ids::{ClientId, Incarnation, ReplicaId, RequestNumber, Time};
use paxos_core::value::{Batch, Command, CommandKind};

use crate::fair::Fair;
use crate::lanes::{Lane, Lanes, Load};
use crate::pace::{Owner, Pace};
use crate::request::Consistency;
use crate::session::{OwnSession, Place, opens};
use crate::waiters::{Numbers, Waiting};

/// A frame of commands for another node holds so many bytes of each client, unless a command is larger.
const FORWARD_BYTES: usize = 16 << 10;

/// What makes a payload a command.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Stamp {
    /// It is of no session.
    Single,
    /// It stands here in the session of this life, where so much is acknowledged.
    Own(Place, RequestNumber),
    /// It is of this kind, and its client has acknowledged so much.
    Given(Box<(CommandKind, RequestNumber)>),
}

impl Stamp {
    /// The bytes between the command's envelope and its payload.
    pub(crate) fn encoded_len(&self) -> usize {
        match self {
            Self::Single => 0,
            Self::Own(..) => IN_SESSION_LEN,
            Self::Given(given) => given.0.encoded_len(),
        }
    }
}

/// What a client asks for.
#[derive(Debug)]
pub(crate) enum Asked {
    /// That this be put into the log.
    Command(Stamp, Bytes),
    /// An answer from a state as new as this.
    Read(Consistency),
}

/// A client's request.
#[derive(Debug)]
pub(crate) struct Request<W> {
    pub(crate) asked: Asked,
    pub(crate) deadline: Time,
    pub(crate) waiter: W,
    /// Which client asks: clients take turns.
    pub(crate) lane: Lane,
}

impl<W> Request<W> {
    /// What is asked, and who waits for it.
    pub(crate) fn into_waiting(self) -> (Asked, Waiting<W>) {
        let bytes = match &self.asked {
            Asked::Command(stamp, payload) => {
                COMMAND_HEADER_LEN + stamp.encoded_len() + payload.len()
            }
            Asked::Read(_) => 0,
        };
        // No command above a batch was asked for, and a batch is far below 4 GiB.
        let load = Load { lane: self.lane, bytes: u32::try_from(bytes).unwrap_or(u32::MAX) };
        (self.asked, Waiting { waiter: self.waiter, deadline: self.deadline, load })
    }
}

#[derive(Debug)]
struct Pending<W> {
    stamp: Stamp,
    payload: Bytes,
    waiting: Waiting<W>,
}

/// Which frame of a peer some commands came in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Forwarded {
    pub(crate) from: ReplicaId,
    pub(crate) origin: Incarnation,
    pub(crate) sequence: u64,
    /// Of its commands.
    pub(crate) bytes: usize,
}

/// Commands that are to share a slot.
#[derive(Debug)]
pub(crate) struct Parcel<W> {
    pub(crate) commands: Vec<Command>,
    /// Of this node's own commands.
    pub(crate) numbers: Numbers,
    /// Who waits for them; empty once they stand in the waiting list.
    pub(crate) waiting: Vec<Waiting<W>>,
    /// Nobody waits for this node's own commands after this.
    pub(crate) deadline: Time,
    pub(crate) forwards: Vec<Forwarded>,
    pub(crate) bytes: usize,
    /// How often it was refused, and when it is to be tried again.
    pub(crate) attempts: u32,
    pub(crate) retry_at: Time,
}

impl<W> Parcel<W> {
    /// Own commands that came back from a leader that did not propose them.
    pub(crate) fn returned(batch: &Batch, numbers: Numbers, deadline: Time, attempts: u32) -> Self {
        Self {
            commands: batch.commands().to_vec(),
            numbers,
            waiting: Vec::new(),
            deadline,
            forwards: Vec::new(),
            bytes: batch.encoded_len(),
            attempts,
            retry_at: Time::ZERO,
        }
    }

    /// Drops the commands of peers, and says which frames they came in.
    pub(crate) fn without_forwards(&mut self) -> Vec<Forwarded> {
        if !self.forwards.is_empty() {
            self.commands.truncate(self.numbers.count as usize);
            self.bytes =
                BATCH_HEADER_LEN + self.commands.iter().map(Command::encoded_len).sum::<usize>();
        }
        core::mem::take(&mut self.forwards)
    }
}

/// What waits to be proposed, here or at another leader.
#[derive(Debug)]
pub(crate) struct Queue<W> {
    client: ClientId,
    bytes_max: usize,
    next_number: u64,
    session: OwnSession,
    pending: Fair<Pending<W>>,
    /// Those that are of a session that is lost.
    astray: Vec<Waiting<W>>,
    returned: VecDeque<Parcel<W>>,
    forwarded: Fair<(Forwarded, Batch)>,
    forwarded_bytes: usize,
    /// The last parcel left no room for what peers forwarded: the next one does.
    owed: bool,
    pace: Pace,
}

impl<W> Queue<W> {
    pub(crate) fn new(
        client: ClientId,
        bytes_max: usize,
        session: OwnSession,
        lanes: Arc<Lanes>,
    ) -> Self {
        Self {
            client,
            bytes_max,
            next_number: 1,
            session,
            pending: Fair::new(),
            astray: Vec::new(),
            returned: VecDeque::new(),
            forwarded: Fair::new(),
            forwarded_bytes: 0,
            owed: false,
            pace: Pace::new(lanes),
        }
    }

    /// How many requests have no number yet.
    pub(crate) fn pending(&self) -> usize {
        self.pending.len()
    }

    pub(crate) fn forwarded_bytes(&self) -> usize {
        self.forwarded_bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.returned.is_empty() && self.forwarded.is_empty()
    }

    /// Puts a client's command where it waits for its turn.
    pub(crate) fn push(&mut self, stamp: Stamp, payload: Bytes, waiting: Waiting<W>, now: Time) {
        let lane = waiting.load.lane.index();
        self.pace.asks(Owner::client(lane), now);
        if let Stamp::Own(place, _) = stamp
            && place.session != self.session.count()
        {
            if place.session < self.session.count() {
                self.astray.push(waiting);
                return;
            }
            self.session.begin(place.session);
            let lost = self.take_own();
            self.astray.extend(lost);
        }
        self.pending.push(lane as u64, Pending { stamp, payload, waiting });
    }

    /// Takes those out that were to be sent in a session that is lost.
    pub(crate) fn take_astray(&mut self) -> Vec<Waiting<W>> {
        core::mem::take(&mut self.astray)
    }

    /// The log opened the session of this life with this number.
    pub(crate) fn session_opened(&mut self, number: u64) {
        self.session.opened(number);
    }

    /// Whatever was sent may be lost: if the session is not open, it is to be opened again.
    pub(crate) fn open_again(&mut self) {
        self.session.ask_again();
    }

    /// Whether a parcel is to open the session.
    pub(crate) fn is_opening(&self, parcel: &Parcel<W>) -> bool {
        parcel.commands.first().is_some_and(|first| opens(first, self.client).is_some())
    }

    /// Takes those out that wait for the session to be opened.
    pub(crate) fn drain_unopened(&mut self) -> Vec<Waiting<W>> {
        if self.session.id().is_some() {
            return Vec::new();
        }
        self.session.ask_again();
        self.take_own()
    }

    /// Takes those out that are to be sent in the session.
    fn take_own(&mut self) -> Vec<Waiting<W>> {
        let own = self.pending.take_if(|pending| matches!(pending.stamp, Stamp::Own(..)));
        own.into_iter().map(|pending| pending.waiting).collect()
    }

    pub(crate) fn push_forwarded(&mut self, forwarded: Forwarded, batch: Batch, now: Time) {
        self.pace.asks(Owner::peer(forwarded.from), now);
        self.forwarded_bytes += batch.encoded_len();
        self.forwarded.push(u64::from(forwarded.from.number()), (forwarded, batch));
    }

    /// Puts a parcel back that was not proposed. Its waiters must stand in the waiting list.
    pub(crate) fn put_back(&mut self, parcel: Parcel<W>) {
        assert!(
            parcel.waiting.is_empty(),
            "whoever waits for a numbered request stands in the waiting list"
        );
        self.returned.push_front(parcel);
    }

    /// There is a leader that has refused nothing yet: every parcel is to be tried at once.
    pub(crate) fn hurry(&mut self) {
        self.session.ask_again();
        for parcel in &mut self.returned {
            parcel.retry_at = Time::ZERO;
        }
    }

    /// When the next parcel that was put back is to be tried again.
    pub(crate) fn retry_at(&self) -> Option<Time> {
        self.returned.iter().map(|parcel| parcel.retry_at).min()
    }

    /// The next parcel of this node's own commands.
    fn next_own(&mut self, now: Time) -> Option<Parcel<W>> {
        self.next_up_to(self.bytes_max, now)
    }

    fn next_up_to(&mut self, bytes_max: usize, now: Time) -> Option<Parcel<W>> {
        let due = self.returned.iter().position(|parcel| parcel.retry_at <= now);
        if let Some(due) = due {
            return self.returned.remove(due);
        }
        let parcel = self.assemble(now, bytes_max, true);
        (!parcel.commands.is_empty()).then_some(parcel)
    }

    /// The next parcel to be sent to a leader, when so many eighths of the room for such are filled. It is
    /// small, so that others have their turns there in between; beyond one half it grows, for then the
    /// way is long.
    pub(crate) fn next_forward(&mut self, eighths: usize, now: Time) -> Option<Parcel<W>> {
        let doublings = 2 * eighths.clamp(4, 8) - 8;
        let clients = self.pending.owners().max(1);
        self.next_up_to(self.bytes_max.min((clients * FORWARD_BYTES) << doublings), now)
    }

    /// Looks whether a round is over, and fits what may be under way to it.
    pub(crate) fn measure(&mut self, now: Time) {
        self.pace.measure(now);
    }

    /// What a peer forwarded stands in the log, or was refused.
    pub(crate) fn land(&mut self, peer: ReplicaId, bytes: usize) {
        self.pace.land_of_peer(peer, bytes as u64);
    }

    /// Nothing that peers forwarded is on its way by this node any more.
    pub(crate) fn forget_peers(&mut self) {
        self.pace.forget_peers();
    }

    /// The next parcel to be proposed here: everything that is ready and fits. Of two parcels one at
    /// least has room for what peers forwarded, however much this node's own clients ask for.
    pub(crate) fn next(&mut self, now: Time) -> Option<Parcel<W>> {
        let owed = self.forwarded.front().filter(|_| self.owed);
        let owed = owed.map(|(_, batch)| batch.encoded_len() - BATCH_HEADER_LEN);
        let mut parcel = match owed {
            Some(bytes) => self.assemble(now, self.bytes_max.saturating_sub(bytes), false),
            None => match self.next_own(now) {
                Some(parcel) => parcel,
                None => self.assemble(now, self.bytes_max, true),
            },
        };
        while let Some((forwarded, _)) = self.forwarded.front() {
            let (peer, bytes) = (Owner::peer(forwarded.from), forwarded.bytes);
            if !self.pace.has_room(peer, bytes, now) {
                self.forwarded.rest();
                continue;
            }
            if !parcel.commands.is_empty() && parcel.bytes + bytes > self.bytes_max {
                break;
            }
            let (forwarded, batch) = self.forwarded.pop().expect("the front was just seen");
            self.pace.take(peer, bytes, now);
            self.forwarded_bytes -= batch.encoded_len();
            parcel.bytes += bytes;
            parcel.commands.extend_from_slice(batch.commands());
            parcel.forwards.push(forwarded);
        }
        self.forwarded.call_all();
        self.owed = parcel.forwards.is_empty() && !self.forwarded.is_empty();
        (!parcel.commands.is_empty()).then_some(parcel)
    }

    /// Numbers pending requests and takes them out, one of each client in turn, as many as may be under
    /// way and fit into so many bytes; one at least if that is said.
    fn assemble(&mut self, now: Time, bytes_max: usize, one: bool) -> Parcel<W> {
        let mut bytes = BATCH_HEADER_LEN;
        let guess = self.pending.len().min(8192);
        let mut commands = Vec::with_capacity(guess);
        let mut waiting = Vec::with_capacity(guess);
        let mut deadline = Time::ZERO;
        let first = self.next_number;
        let mut waits = false;
        while let Some(lane) = self.turn(&mut waits, now) {
            let pending = self.pending.front().expect("whose turn it is has something");
            let Some((kind, acknowledged_below)) = self.kind_of(&pending.stamp) else {
                if commands.is_empty()
                    && let Some(opening) = self.opening(now)
                {
                    deadline = self.session.asked_until(now);
                    bytes += opening.encoded_len();
                    commands.push(opening);
                }
                break;
            };
            let len = COMMAND_HEADER_LEN + kind.encoded_len() + pending.payload.len();
            if bytes + len > bytes_max && !(one && commands.is_empty()) {
                break;
            }
            let pending = self.pending.pop().expect("the front was just seen");
            let command = self.command(kind, acknowledged_below, pending.payload);
            self.pace.take(Owner::client(lane), pending.waiting.load.bytes as usize, now);
            bytes += len;
            self.next_number += 1;
            deadline = deadline.max(pending.waiting.deadline);
            commands.push(command);
            waiting.push(pending.waiting);
        }
        self.pending.call_all();
        Parcel {
            commands,
            numbers: Numbers { first, count: self.next_number - first },
            waiting,
            deadline,
            forwards: Vec::new(),
            bytes,
            attempts: 0,
            retry_at: Time::ZERO,
        }
    }

    /// Whose turn it is of those who have room for what they ask next. The others sit out.
    fn turn(&mut self, waits: &mut bool, now: Time) -> Option<usize> {
        loop {
            while let (Some(lane), Some(next)) = (self.pending.turn(), self.pending.front()) {
                let bytes = next.waiting.load.bytes as usize;
                if self.pace.has_room(Owner::client(lane), bytes, now) {
                    return Some(lane);
                }
                self.pending.rest();
            }
            if self.pending.resting().is_empty() || *waits {
                return None;
            }
            // An answer from here on wakes this node's task. One that came before did not: so everybody
            // is looked at once more.
            *waits = true;
            self.pace.lanes().wait();
            self.pending.call_all();
        }
    }

    /// What a command is, and what its client has acknowledged; none as long as the session is not
    /// open in which it is to be sent.
    fn kind_of(&self, stamp: &Stamp) -> Option<(CommandKind, RequestNumber)> {
        match stamp {
            Stamp::Single => Some((CommandKind::Apply, RequestNumber::default())),
            Stamp::Own(place, acknowledged_below) => {
                let (session, request) = (self.session.id()?, RequestNumber::new(place.number));
                Some((CommandKind::InSession { session, request }, *acknowledged_below))
            }
            Stamp::Given(given) => Some(**given),
        }
    }

    fn command(
        &self,
        kind: CommandKind,
        acknowledged_below: RequestNumber,
        payload: Bytes,
    ) -> Command {
        let request = RequestNumber::new(self.next_number);
        Command { kind, client: self.client, request, acknowledged_below, payload }
    }

    /// The command that opens the session, with a number of its own, if it is time for it.
    fn opening(&mut self, now: Time) -> Option<Command> {
        let (session, ttl) = self.session.ask(now)?;
        let kind = CommandKind::OpenSession { session, ttl };
        let command = self.command(kind, RequestNumber::default(), Bytes::new());
        self.next_number += 1;
        Some(command)
    }

    /// Takes out what nobody waits for any longer: single waiters, and numbered parcels.
    pub(crate) fn expire(&mut self, now: Time) -> (Vec<Waiting<W>>, Vec<Parcel<W>>) {
        // Timeouts differ by client, so the order of arrival is not that of deadlines.
        let late = self.pending.take_if(|pending| pending.waiting.deadline <= now);
        let waiters = late.into_iter().map(|pending| pending.waiting).collect();
        let mut parcels = Vec::new();
        for parcel in core::mem::take(&mut self.returned) {
            // One that carries commands of peers is of interest to them at any rate.
            if parcel.deadline <= now && parcel.forwards.is_empty() {
                parcels.push(parcel);
            } else {
                self.returned.push_back(parcel);
            }
        }
        (waiters, parcels)
    }

    /// Takes all waiters without a number out.
    pub(crate) fn drain_pending(&mut self) -> Vec<Waiting<W>> {
        let pending = self.pending.take_all();
        pending.into_iter().map(|pending| pending.waiting).collect()
    }

    /// Takes everything out that peers forwarded.
    pub(crate) fn drain_forwarded(&mut self) -> Vec<Forwarded> {
        self.forwarded_bytes = 0;
        let mut all: Vec<_> = self.forwarded.take_all().into_iter().map(|(from, _)| from).collect();
        for parcel in &mut self.returned {
            all.extend(parcel.without_forwards());
        }
        self.returned.retain(|parcel| !parcel.commands.is_empty());
        all
    }
}

#[cfg(test)]
mod tests;
