//! The nodes of one seed, and their clients.
//!
//! Owns: [`SimFleet`]: clients that call the real [`Client`], one request at a time each, and the
//! history of what they were told. What is unknown stays unknown; some commands are sent in the
//! session of their node, which sends them again by itself, some are not, and some clients have
//! sessions of their own, in which they ask one node after the other.
//! Invariants: (1) whatever a client does depends on the seed and on what it was told; (2) an answer
//! is written down at the time of the turn in which it was given.

use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use paxos_core::ids::{ReplicaId, Slot, Time};
use paxos_core::session::Bounds;
use paxos_core::sim::linear::{History, OperationId, Outcome};
use paxos_core::sim::{Act, Birth, Fleet, Host, Options, Rng, Tally};
use paxos_core::value::Command;

use super::host::{Common, SimHost};
use super::ledger::Ledger;
use super::roamer::{Held, Roamer, Verdict};
use super::simulation::Setting;
use super::turn::Flag;
use super::watched::Watched;
use super::{Answer, HistoryOf, Question};
use crate::client::Client;
use crate::error::{ClientError, Rejection, Uncertainty};
use crate::machine::StateMachine;
use crate::metrics::{Cell, Meters};
use crate::options::NodeOptions;
use crate::request::{Consistency, Delivery};
use crate::shared::{Closing, Shared};

/// A request whose answer matters to nobody is given up after so many election timeouts at most.
const PATIENCE_MAX: u64 = 10;
/// How often a client shuts its node down while there are faults, of a thousand of its acts.
const SHUTDOWN: u32 = 30;
/// Nodes are shut down early, so that they are back when progress is demanded.
const CLOSE_BEFORE: Time = Time::from_nanos(800_000_000);
/// How many of a thousand clients have sessions of their own.
const ROAMERS: u32 = 250;
/// The client that asks whether the cluster serves again.
const PROBE: u64 = 1_000_000;

/// A workload that never asks for a command is not asked for one more often than this.
const DRAWS_MAX: u32 = 1000;

/// Why something is asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Purpose {
    /// A client wants it.
    Work,
    /// Its answer shows that the cluster serves.
    Probe,
    /// It is a command, and its answer shows that the cluster takes commands.
    Command,
}

type Told<M> = Result<Answer<<M as StateMachine>::Reply, <M as StateMachine>::Answer>, ClientError>;

/// A node that is up.
struct Place<M: StateMachine> {
    client: Client<Watched<M>>,
    shared: Arc<Shared>,
}

/// A request on its way.
struct Pending<M: StateMachine> {
    future: Pin<Box<dyn Future<Output = Told<M>> + Send>>,
    flag: Arc<Flag>,
    /// Its place in the history.
    operation: OperationId,
    /// Why it was asked.
    purpose: Purpose,
    /// The command's number; none for a query.
    number: Option<u64>,
    /// Who was asked.
    at: ReplicaId,
    /// When.
    asked: Time,
    /// Whether it is an attempt of a roaming client at the request in its hands.
    roams: bool,
}

struct SimClient<M: StateMachine> {
    left: u64,
    pending: Option<Pending<M>>,
    /// One that has a session of its own.
    roamer: Option<Roamer<M::Command>>,
}

impl<M: StateMachine> SimClient<M> {
    fn is_open(&self) -> bool {
        let busy = self.roamer.as_ref().is_some_and(Roamer::is_busy);
        self.left > 0 || self.pending.is_some() || busy
    }
}

/// Makes the nodes of one seed and speaks for their clients.
pub(super) struct SimFleet<M: StateMachine> {
    setting: Arc<Setting<M>>,
    common: Common<M>,
    election_timeout: Duration,
    /// Whom clients can ask.
    reached: Vec<ReplicaId>,
    /// What is asked for, apart from when and where.
    rng: Rng,
    places: Vec<Option<Place<M>>>,
    clients: Vec<SimClient<M>>,
    probes: Vec<Pending<M>>,
    /// The longest pause between two requests while there are faults, in milliseconds.
    pause_max: u64,
    served: bool,
    /// When the newest command was asked for that was a probe and was answered.
    newest_served: Option<Time>,
    history: HistoryOf<M>,
    /// The number of each command in the history; none for queries.
    numbers: Vec<Option<u64>>,
    tally: Tally,
}

impl<M: StateMachine> fmt::Debug for SimFleet<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimFleet").field("tally", &self.tally).finish_non_exhaustive()
    }
}

type Counted = fn(&Meters) -> &Cell;

/// A roaming client asks a node for what it asked another.
const SENT_ELSEWHERE: &str = "command sent again to another node";

/// What nodes count that a long run must have met.
const MET: [(&str, Counted); 9] = [
    ("command sent again in its session", |meters| &meters.requests_again),
    ("repeated command answered by the reply that was kept", |meters| &meters.replies_recalled),
    ("repeated command whose reply was not kept", |meters| &meters.replies_not_kept),
    ("command of a session that is not known", |meters| &meters.commands_astray),
    ("session expired", |meters| &meters.sessions_expired),
    ("snapshot of its own made by a node", |meters| &meters.snapshots_made),
    ("snapshot received by a node", |meters| &meters.snapshots_received),
    ("snapshot installed by a node", |meters| &meters.snapshots_restored),
    ("state compared with that of a peer", |meters| &meters.digests_compared),
];

/// How a request can end, as far as nodes of one release and valid commands go.
const ENDINGS: [&str; 17] = [
    "answered",
    "no leader",
    "busy",
    "storage full",
    "superseded",
    "read timed out",
    "read without a quorum",
    "read of a slot not settled",
    "node stopped before",
    "timeout",
    "node stopped",
    "leader changed",
    "link lost",
    "session unknown",
    "session lost",
    "skipped by a snapshot",
    "reply not kept",
];

fn count_met(tally: &mut Tally, meters: &Meters) {
    for (name, cell) in MET {
        *tally.met.entry(name).or_default() += cell(meters).get();
    }
}

fn ending<T>(told: &Result<T, ClientError>) -> &'static str {
    match told {
        Ok(_) => "answered",
        Err(ClientError::Rejected(rejection)) => match rejection {
            Rejection::NoLeader => "no leader",
            Rejection::Busy => "busy",
            Rejection::TooLarge { .. } => "too large",
            Rejection::StorageFull => "storage full",
            Rejection::Superseded => "superseded",
            Rejection::TimedOut => "read timed out",
            Rejection::NoQuorum => "read without a quorum",
            Rejection::Unsettled { .. } => "read of a slot not settled",
            Rejection::Stopped => "node stopped before",
            Rejection::Codec(_) => "codec",
            Rejection::Unreachable => "unreachable",
            Rejection::Answer(_) => "answer not carried",
            Rejection::SessionUnknown => "session unknown",
            Rejection::StaleRequest => "stale",
            Rejection::Level { .. } => "of a level too high",
        },
        Err(ClientError::ReplyNotKept { .. }) => "reply not kept",
        Err(ClientError::Unknown(uncertainty)) => match uncertainty {
            Uncertainty::Timeout => "timeout",
            Uncertainty::Stopped => "node stopped",
            Uncertainty::LeaderChanged => "leader changed",
            Uncertainty::LinkLost => "link lost",
            Uncertainty::SessionLost => "session lost",
            Uncertainty::Skipped => "skipped by a snapshot",
        },
    }
}

/// Bounds of a node, some of them tiny.
fn draw_options(rng: &mut Rng) -> NodeOptions {
    let usual = NodeOptions::default();
    let tiny = |rng: &mut Rng, high, usual| {
        if rng.chance(300) { rng.between(1, high) as usize } else { usual }
    };
    NodeOptions {
        requests_max: tiny(rng, 3, usual.requests_max),
        forwarded_bytes_max: tiny(rng, 2000, usual.forwarded_bytes_max),
        forwards_max: tiny(rng, 2, usual.forwards_max),
        shutdown_timeout: rng.duration(Duration::from_millis(10), Duration::from_millis(400)),
        session_ttl: if rng.chance(300) {
            rng.duration(Duration::from_millis(20), Duration::from_secs(1))
        } else {
            usual.session_ttl
        },
        snapshot_slots: if rng.chance(500) { rng.between(2, 60) } else { usual.snapshot_slots },
        snapshot_log_bytes: if rng.chance(300) {
            rng.between(100, 3000)
        } else {
            usual.snapshot_log_bytes
        },
        trim_tail_slots: rng.below(20),
        trim_reserve_bytes: if rng.chance(500) { 1 } else { usual.trim_reserve_bytes },
        snapshot_chunk_bytes: tiny(rng, 300, usual.snapshot_chunk_bytes),
        digest_slots: if rng.chance(800) { rng.between(1, 9) } else { usual.digest_slots },
        snapshot_receive_bytes_per_second: if rng.chance(300) {
            rng.between(10_000, 100_000)
        } else {
            usual.snapshot_receive_bytes_per_second
        },
        ..usual
    }
}

/// How much is remembered of sessions, some of it little: those of all nodes that are up and of all
/// roaming clients at least, or they would drive each other out for ever.
fn draw_bounds(rng: &mut Rng, replicas: u16, roamers: usize) -> Bounds {
    let usual = Bounds::default();
    let few = usize::from(replicas) + roamers + rng.below(3) as usize;
    Bounds {
        sessions_max: if rng.chance(300) { few } else { usual.sessions_max },
        replies_max: if rng.chance(300) { rng.below(3) as usize } else { usual.replies_max },
        ..usual
    }
}

impl<M> SimFleet<M>
where
    M: StateMachine,
    M::Command: Clone,
    M::Query: Clone,
{
    /// With `usual` bounds and lanes, or with some that are drawn.
    pub(super) fn new(
        setting: Arc<Setting<M>>,
        options: &Options,
        commands: u64,
        usual: bool,
    ) -> Self {
        let mut rng = Rng::new(options.seed ^ 0x00f1_ee70);
        let full = if rng.chance(300) { rng.between(1, 100) as u32 } else { 0 };
        let full = Arc::new(AtomicU32::new(if usual { 0 } else { full }));
        let drawn = draw_options(&mut rng);
        let node_options = if usual { NodeOptions::default() } else { drawn };
        let codec = Arc::clone(&setting.codec);
        // With few clients nothing ever waits for another; with many, queues and windows fill.
        let count = setting.limits.clients.max(1) * *rng.pick(&[1, 1, 2, 4, 8]);
        let pause_max = *rng.pick(&[10, 50, 250]);
        let clients: Vec<_> = (0..count)
            .map(|number| {
                let first = if number == 0 { commands % count } else { 0 };
                let roamer = rng.chance(ROAMERS).then(|| {
                    let hour = Duration::from_secs(3600);
                    let brief = Duration::from_millis(rng.between(50, 500));
                    Roamer::new(number + 1, if rng.chance(200) { brief } else { hour })
                });
                SimClient { left: commands / count + first, pending: None, roamer }
            })
            .collect();
        let roamers = clients.iter().filter(|client| client.roamer.is_some()).count();
        let sessions = draw_bounds(&mut rng, options.replicas, roamers);
        let ledger = Ledger::new(
            Arc::clone(&setting.codec),
            setting.digest.clone(),
            (setting.make)(),
            sessions.sessions_max,
        );
        Self {
            common: Common {
                codec,
                options: node_options,
                sessions,
                ledger: Arc::new(ledger),
                full,
            },
            setting,
            election_timeout: options.election_timeout(),
            reached: (1..=options.replicas).map(ReplicaId::new).collect(),
            rng,
            places: (0..options.replicas).map(|_| None).collect(),
            clients,
            probes: Vec::new(),
            pause_max,
            served: false,
            newest_served: None,
            history: History::new(),
            numbers: Vec::new(),
            tally: Tally {
                endings: ENDINGS.map(|name| (name, 0)).into(),
                met: MET
                    .map(|(name, _)| (name, 0))
                    .into_iter()
                    .chain([(SENT_ELSEWHERE, 0)])
                    .collect(),
                ..Tally::default()
            },
        }
    }

    /// A client of this node, if it is up, that waits for some time.
    fn door(&mut self, at: ReplicaId) -> Option<Client<Watched<M>>> {
        let place = self.places[usize::from(at.number()) - 1].as_ref()?;
        let patience = self.election_timeout * self.rng.between(1, PATIENCE_MAX) as u32;
        Some(place.client.clone().with_timeout(patience))
    }

    /// Sends a request to this node, if it is up.
    fn ask(&mut self, by: u64, at: ReplicaId, now: Time, purpose: Purpose) -> Option<Pending<M>> {
        let client = self.door(at)?;
        let mut question = (self.setting.workload)(&mut self.rng);
        if purpose == Purpose::Command {
            let is_command = |question: &_| matches!(question, Question::Command(_));
            let mut draws = 0..DRAWS_MAX;
            while !is_command(&question) && draws.next().is_some() {
                question = (self.setting.workload)(&mut self.rng);
            }
        }
        self.put(question, by, (client, at), now, purpose)
    }

    /// Asks a node's client this.
    fn put(
        &mut self,
        question: Question<M::Command, M::Query>,
        by: u64,
        (client, at): (Client<Watched<M>>, ReplicaId),
        now: Time,
        purpose: Purpose,
    ) -> Option<Pending<M>> {
        let operation = self.history.invoke(by, question.clone(), now.nanos());
        let mut number = None;
        let future: Pin<Box<dyn Future<Output = Told<M>> + Send>> = match question {
            Question::Command(command) => {
                number = Some(self.common.ledger.next());
                let once = self.rng.chance(700);
                let delivery = if once { Delivery::ExactlyOnce } else { Delivery::AtMostOnce };
                Box::pin(async move {
                    let applied = client.execute_with(delivery, command).await?;
                    Ok(Answer::Reply(applied.reply))
                })
            }
            Question::Query(query) => {
                let led = self.rng.chance(650);
                let consistency = if led { Consistency::Linearizable } else { Consistency::Quorum };
                Box::pin(async move { client.read(consistency, query).await.map(Answer::Answer) })
            }
        };
        self.numbers.push(number);
        let flag = Flag::raised();
        let mut pending =
            Pending { future, flag, operation, purpose, number, at, asked: now, roams: false };
        // The command gets its number in the first poll.
        if let Some(told) = Self::poll(&mut pending) {
            self.is_told(&pending, told, now);
            return None;
        }
        Some(pending)
    }

    /// What the request came to, if it did.
    fn poll(pending: &mut Pending<M>) -> Option<Told<M>> {
        if !pending.flag.lower() {
            return None;
        }
        let waker = Arc::clone(&pending.flag).into();
        let mut cx = Context::from_waker(&waker);
        match pending.future.as_mut().poll(&mut cx) {
            Poll::Ready(told) => Some(told),
            Poll::Pending => None,
        }
    }

    fn is_told(&mut self, pending: &Pending<M>, told: Told<M>, now: Time) {
        let count = u64::from(pending.purpose == Purpose::Work);
        let ledger = &self.common.ledger;
        match (&told, pending.number) {
            (Ok(Answer::Reply(reply)), Some(number)) => ledger.answered(number, reply),
            (Err(ClientError::Rejected(_)), Some(number)) => ledger.rejected(number),
            (Err(ClientError::ReplyNotKept { slot }), Some(number)) => {
                ledger.is_applied(number, *slot);
            }
            _ => {}
        }
        self.served |= pending.purpose == Purpose::Probe && told.is_ok();
        if pending.purpose == Purpose::Command && told.is_ok() {
            self.newest_served = self.newest_served.max(Some(pending.asked));
        }
        let operation = pending.operation;
        *self.tally.endings.entry(ending(&told)).or_default() += 1;
        match told {
            Ok(answer) => {
                self.tally.answered += count;
                self.history.complete(operation, answer, now.nanos());
            }
            Err(ClientError::Rejected(_)) => {
                self.tally.rejected += count;
                self.history.reject(operation);
            }
            // Whatever became of a query, it changed nothing.
            Err(ClientError::Unknown(_)) if pending.number.is_none() => {
                self.tally.unknown += count;
                self.history.reject(operation);
            }
            Err(ClientError::Unknown(_) | ClientError::ReplyNotKept { .. }) => {
                self.tally.unknown += count;
            }
        }
    }

    /// Lets a client with a session of its own do what comes next: open one, ask again for what it
    /// has in hand, or ask for something new. Whom it asked.
    fn roam(
        &mut self,
        index: usize,
        at: ReplicaId,
        now: Time,
        under_faults: bool,
    ) -> Option<ReplicaId> {
        let door = self.door(at)?;
        let client = &mut self.clients[index];
        let roamer = client.roamer.as_mut()?;
        if let Some(id) = roamer.wants_session() {
            let ttl = roamer.ttl;
            roamer.opens(id, Box::pin(async move { door.open_session(id, ttl).await }));
            roamer.poll();
            return Some(at);
        }
        let name = roamer.name()?;
        if let Some(held) = &roamer.held {
            self.common.ledger.again(held.number);
            *self.tally.met.entry(SENT_ELSEWHERE).or_default() += 1;
        } else {
            client.left -= 1;
            self.tally.asked += 1;
            self.tally.asked_under_faults += u64::from(under_faults);
            let (by, question) = (index as u64 + 1, (self.setting.workload)(&mut self.rng));
            let Question::Command(command) = question.clone() else {
                // What changes nothing needs no session.
                let pending = self.put(question, by, (door, at), now, Purpose::Work);
                self.clients[index].pending = pending;
                return Some(at);
            };
            let operation = self.history.invoke(by, question, now.nanos());
            let number = self.common.ledger.next();
            self.numbers.push(Some(number));
            roamer.takes(command, operation, number);
        }
        let Held { command, operation, number, .. } = roamer.held.clone()?;
        let future: Pin<Box<dyn Future<Output = Told<M>> + Send>> = Box::pin(async move {
            door.attempt(name, command).await.map(|applied| Answer::Reply(applied.reply))
        });
        let (flag, number) = (Flag::raised(), Some(number));
        let mut pending = Pending {
            future,
            flag,
            operation,
            purpose: Purpose::Work,
            number,
            at,
            asked: now,
            roams: true,
        };
        // The command gets its number in the first poll.
        match Self::poll(&mut pending) {
            Some(told) => self.attempt_is_told(index, &pending, told, now),
            None => self.clients[index].pending = Some(pending),
        }
        Some(at)
    }

    /// An attempt of a roaming client ended: the request may go on.
    fn attempt_is_told(&mut self, index: usize, pending: &Pending<M>, told: Told<M>, now: Time) {
        let Some(roamer) = &mut self.clients[index].roamer else { return };
        match roamer.is_told(&told) {
            Verdict::Done => self.is_told(pending, told, now),
            Verdict::Lost => self.tally.unknown += 1,
            Verdict::Again => {}
        }
    }

    fn any_place(&mut self) -> ReplicaId {
        *self.rng.pick(&self.reached)
    }

    fn place_of(&self, index: usize) -> Option<(Slot, usize)> {
        self.common.ledger.place_of(self.numbers[index]?)
    }

    /// The operations that stand in the log, in its order.
    fn log(&self) -> Vec<usize> {
        let place = |index| Some((self.place_of(index)?, index));
        let mut log: Vec<_> = (0..self.numbers.len()).filter_map(place).collect();
        log.sort_unstable();
        log.into_iter().map(|(_, index)| index).collect()
    }

    /// Commands that were answered before others were asked for stand before them in the log.
    fn check_order(&self) -> Result<(), String> {
        let slot = |index: usize| Some(self.place_of(index)?.0);
        let operations = self.history.operations();
        let mut ends: Vec<(u64, Slot)> = Vec::new();
        for (index, operation) in operations.iter().enumerate() {
            if let (Outcome::Returned { at, .. }, Some(slot)) = (&operation.outcome, slot(index)) {
                ends.push((*at, slot));
            }
        }
        ends.sort_unstable();
        let mut ends = ends.into_iter().peekable();
        let mut highest = Slot::ZERO;
        // Operations are kept in the order in which they were asked for.
        for (index, operation) in operations.iter().enumerate() {
            while let Some((_, slot)) = ends.next_if(|(at, _)| *at < operation.invoked) {
                highest = highest.max(slot);
            }
            if let Some(slot) = slot(index)
                && slot <= highest
            {
                return Err(format!(
                    "a command that was asked for after one in {highest} was answered is in {slot}"
                ));
            }
        }
        Ok(())
    }
}

impl<M> Fleet for SimFleet<M>
where
    M: StateMachine,
    M::Command: Clone,
    M::Query: Clone,
{
    fn start(&mut self, birth: Birth) -> Box<dyn Host> {
        let id = birth.recovered.format.replica;
        let machine = (self.setting.make)();
        let (host, client, shared) = SimHost::start(birth, machine, &self.common);
        self.places[usize::from(id.number()) - 1] = Some(Place { client, shared });
        Box::new(host)
    }

    fn stopped(&mut self, id: ReplicaId, _now: Time) {
        if let Some(place) = self.places[usize::from(id.number()) - 1].take() {
            count_met(&mut self.tally, &place.shared.meters);
        }
    }

    fn clients(&self) -> usize {
        self.clients.len()
    }

    fn act(&mut self, client: usize, now: Time, under_faults: bool, rng: &mut Rng) -> Act {
        let pause = rng.between(1, if under_faults { self.pause_max } else { 40 });
        let mut act = Act { asked: None, again: Some(Duration::from_millis(pause)) };
        if self.clients[client].pending.is_some() {
            return act;
        }
        if !self.clients[client].is_open() {
            return Act::default();
        }
        let at = self.any_place();
        if under_faults && now < CLOSE_BEFORE && self.rng.chance(SHUTDOWN) {
            let place = self.places[usize::from(at.number()) - 1].as_ref();
            let closing = if self.rng.chance(500) { Closing::Graceful } else { Closing::AtOnce };
            place.inspect(|place| place.shared.close(closing));
        }
        if self.clients[client].roamer.is_some() {
            act.asked = self.roam(client, at, now, under_faults);
            return act;
        }
        let asked = self.history.operations().len();
        let pending = self.ask(client as u64 + 1, at, now, Purpose::Work);
        if self.history.operations().len() > asked {
            act.asked = Some(at);
            self.tally.asked += 1;
            self.tally.asked_under_faults += u64::from(under_faults);
            self.clients[client].left -= 1;
            self.clients[client].pending = pending;
        }
        act
    }

    fn reach(&mut self, ids: &[ReplicaId]) {
        self.reached = ids.to_vec();
        // Lanes that refuse by chance are a fault, and faults end here: in the run that showed it, a
        // replica lost every fifth page of what it fetched, and each cost it a fetch timeout.
        self.common.full.store(0, Ordering::Relaxed);
        // Whoever is still about to close does it before progress is demanded.
        for place in self.places.iter().flatten() {
            if place.shared.closing() != Closing::No {
                place.shared.close(Closing::AtOnce);
            }
        }
        for client in &mut self.clients {
            if let Some(roamer) = &mut client.roamer {
                roamer.give_up_opening();
            }
            let Some(pending) = client.pending.take_if(|pending| !ids.contains(&pending.at)) else {
                continue;
            };
            if let Some(roamer) = client.roamer.as_mut().filter(|_| pending.roams) {
                roamer.doubts();
                continue;
            }
            self.tally.unknown += 1;
            if pending.number.is_none() {
                // A query changed nothing, whatever became of it.
                self.history.reject(pending.operation);
            }
        }
    }

    fn settle(&mut self, now: Time) {
        for index in 0..self.clients.len() {
            if let Some(roamer) = &mut self.clients[index].roamer {
                roamer.poll();
            }
            let Some(pending) = &mut self.clients[index].pending else {
                continue;
            };
            let Some(told) = Self::poll(pending) else { continue };
            let Some(pending) = self.clients[index].pending.take() else { continue };
            if pending.roams {
                self.attempt_is_told(index, &pending, told, now);
            } else {
                self.is_told(&pending, told, now);
            }
        }
        let mut probes = core::mem::take(&mut self.probes);
        probes.retain_mut(|probe| match Self::poll(probe) {
            Some(told) => {
                self.is_told(probe, told, now);
                false
            }
            None => true,
        });
        self.probes = probes;
    }

    fn probe(&mut self, at: ReplicaId, now: Time, command: bool) -> bool {
        let purpose = if command { Purpose::Command } else { Purpose::Probe };
        let pending = self.ask(PROBE, at, now, purpose);
        let asked = pending.is_some();
        self.probes.extend(pending);
        asked
    }

    fn is_served(&self) -> bool {
        self.served
    }

    fn newest_served(&self) -> Option<Time> {
        self.newest_served
    }

    fn left(&self) -> u64 {
        self.clients.iter().map(|client| client.left).max().unwrap_or_default()
    }

    fn open(&self) -> usize {
        self.clients.iter().filter(|client| client.is_open()).count() + self.probes.len()
    }

    fn is_submitted(&self, command: &Command) -> bool {
        self.common.ledger.is_submitted(command)
    }

    fn tally(&self) -> Tally {
        let mut tally = self.tally.clone();
        for place in self.places.iter().flatten() {
            count_met(&mut tally, &place.shared.meters);
        }
        tally
    }

    fn verdict(&mut self, at_end: bool) -> Result<(), String> {
        if let Some(wrong) = self.common.ledger.wrong() {
            return Err(wrong);
        }
        let mut up = self.places.iter().flatten();
        if let Some(place) = up.find(|place| place.shared.meters.digests_differing.get() > 0) {
            let differing = place.shared.status().comparison.differing;
            return Err(format!("two nodes hold different states: {differing:?}"));
        }
        if !at_end {
            return Ok(());
        }
        self.check_order()?;
        let log = self.log();
        self.setting.checks.iter().try_for_each(|check| check(&self.history, &log))
    }
}
