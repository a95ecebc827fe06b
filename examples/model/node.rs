//! One replica with its disk: how the production [`Replica`] answers one input.
//!
//! Owns: [`Node`], and what each [`Input`] does to it. The model is the network, the disk and the
//! clock; every rule of the protocol is the replica's own. Knows nothing of the other nodes but
//! what messages say.
//! Invariants: whatever leaves is covered by the disk of that moment; a promise never goes back; a
//! committed prefix never shrinks within a life; what is applied is durable here. A broken one is
//! a fault of the outcome, never a panic.
//! Source: protocol.md §6; the host's run loop in the documentation of paxos-core.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use paxos_core::config::Config;
use paxos_core::durable::Write;
use paxos_core::ids::{ClientId, Epoch, LogClock, Priority, ReplicaId, RequestNumber, Slot, Time};
use paxos_core::message::{Body, Connectivity, Echo, Heartbeat, Message, Origin, SlotState};
use paxos_core::output::{Halt, NotProposed, Output, Recipients, ReconfigureError, Role};
use paxos_core::port::Format;
use paxos_core::replica::Replica;
use paxos_core::value::{Command, Value};

use crate::disk::Disk;
use crate::marks::{Mark, Marks};
use crate::members::Wish;
use crate::scope::Scope;

/// A moment: longer than every short timer, and nothing to an election timer.
const MOMENT: Duration = Duration::from_secs(2);
const ELECTION: Duration = Duration::from_secs(1_000_000);
/// Never, in these worlds: the network repeats every message anyway.
const NEVER: Duration = Duration::from_secs(1_000_000_000);

/// Something that happens to one replica.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Input<M> {
    /// It gets this message.
    Deliver(M),
    /// Its oldest write batch becomes durable, and it hears of it.
    Sync,
    /// It loses everything that was not proved durable, and starts again.
    Crash,
    /// Its election timer is up, and it reaches its peers.
    Campaign,
    /// A moment passes: every short timer is up.
    Moment,
    /// A client gives it this request.
    Propose(u8),
    /// An operator asks it for the change with this place in the scope.
    Change(u8),
}

/// A batch that was handed to the disk.
#[derive(Clone, Debug)]
struct Pending {
    /// The replica just before it handed the batch out: a batch can be proved once and not cloned,
    /// so each world that proves it has it handed out anew.
    before: Arc<Replica>,
    writes: Vec<Write>,
}

/// One replica and its disk.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) replica: Replica,
    pub(crate) disk: Disk,
    /// Up to where the state machine of this life is.
    pub(crate) applied: Slot,
    pending: VecDeque<Pending>,
    format: Format,
    now: Time,
    /// The sequence of the last heartbeat that it sent, and of the last that the model sent it.
    pulse: u64,
    peer_pulse: u64,
}

impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        self.replica.safety_state() == other.replica.safety_state()
            && self.disk == other.disk
            && self.writes().eq(other.writes())
    }
}

impl Eq for Node {}

impl Hash for Node {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.replica.safety_state().hash(state);
        self.disk.hash(state);
        self.pending.len().hash(state);
        for writes in self.writes() {
            writes.hash(state);
        }
    }
}

/// What an input led to.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// The places of those who are to get it, as bits, and the message.
    pub(crate) sent: Vec<(u8, Message)>,
    /// What the replica says or believes to be chosen.
    pub(crate) claims: Vec<(Slot, Option<Value>)>,
    /// What it applied.
    pub(crate) applied: Vec<Slot>,
    /// Where a vote became durable.
    pub(crate) voted: Vec<Slot>,
    /// It gave up what was before this membership, or stopped because this one lacks it.
    pub(crate) gave_up: Option<Epoch>,
    /// It proposed a change of the membership of this epoch.
    pub(crate) changes: Option<Epoch>,
    pub(crate) fault: Option<String>,
    pub(crate) marks: Marks,
}

impl Outcome {
    fn fault(&mut self, text: String) {
        self.fault.get_or_insert(text);
    }
}

fn config() -> Config {
    Config {
        heartbeat_interval: MOMENT / 2,
        election_timeout: ELECTION,
        election_jitter: Duration::from_nanos(1),
        disk_stall: NEVER,
        retransmit_interval: NEVER,
        fetch_timeout: MOMENT / 2,
        ..Config::default()
    }
}

impl Node {
    /// A replica that was just formatted, and has met its peers.
    pub(crate) fn new(format: Format) -> Self {
        let own = format.replica;
        let peers = format.membership.members().map(|member| member.id).filter(|id| *id != own);
        let disk = Disk::new(peers.collect::<Vec<_>>());
        let replica = Self::recover(&disk, &format, Time::ZERO);
        let pending = VecDeque::new();
        let mut node = Self {
            replica,
            disk,
            applied: Slot::ZERO,
            pending,
            format,
            now: Time::ZERO,
            pulse: 0,
            peer_pulse: 0,
        };
        node.drain(&mut Outcome::default());
        node
    }

    fn recover(disk: &Disk, format: &Format, now: Time) -> Replica {
        let recovered = disk.recover(format.clone());
        Replica::recover(config(), recovered, Slot::ZERO, 11, now).expect("the directory is sound")
    }

    pub(crate) fn id(&self) -> ReplicaId {
        self.format.replica
    }

    fn writes(&self) -> impl Iterator<Item = &Vec<Write>> {
        self.pending.iter().map(|pending| &pending.writes)
    }

    pub(crate) fn pending_writes(&self) -> impl Iterator<Item = &Write> {
        self.writes().flatten()
    }

    /// Whether the proof of the oldest write lets go of messages to others alone, and not of this
    /// replica's own promise or vote, which it counts itself.
    pub(crate) fn is_proof_for_others(&self) -> bool {
        let own = self.id();
        self.pending.front().is_some_and(|pending| {
            pending.writes.iter().all(|write| match write {
                Write::Promised(ballot) | Write::Accepted { ballot, .. } => ballot.leader() != own,
                Write::Chosen { .. }
                | Write::Committed(_)
                | Write::Governs { .. }
                | Write::Trimmed(_)
                | Write::Refused { .. }
                | Write::Peer { .. } => true,
            })
        })
    }

    /// Takes in one input. Returns nothing where the input is impossible.
    pub(crate) fn take(&mut self, input: &Input<Message>, scope: &Scope) -> Option<Outcome> {
        let mut out = Outcome::default();
        let before = self.replica.status();
        let peers = self.replica.peers().to_vec();
        match input {
            Input::Deliver(message) => {
                let from = message.origin.replica;
                let message = self.timely(message.clone());
                self.replica.handle_message(from, message, self.now);
            }
            Input::Sync => self.sync(&mut out)?,
            Input::Crash => self.crash(),
            Input::Campaign => self.campaign(&mut out)?,
            Input::Moment => {
                self.now = self.now.after(MOMENT);
                self.replica.handle_timeout(self.now);
            }
            Input::Propose(request) => {
                let request = RequestNumber::new(u64::from(*request));
                let client = ClientId::new(u64::from(self.id().number()));
                let command = Command::apply(client, request, Bytes::new());
                let clock = LogClock::default();
                match self.replica.propose(vec![command], clock, self.now) {
                    Ok(proposed) if !scope.fills(proposed.slot) => return None,
                    Ok(_) => {}
                    Err(error) => {
                        let busy = error.reason == NotProposed::Busy && before.slots_in_flight == 0;
                        out.marks.add_if(Mark::NewVotersAwaited, busy);
                    }
                }
            }
            Input::Change(wish) => {
                self.change(scope.wishes[usize::from(*wish)], scope, &mut out)?;
            }
        }
        self.drain(&mut out);
        while scope.prompt && self.sync(&mut out).is_some() {
            self.drain(&mut out);
        }
        let left = peers.iter().any(|peer| !self.replica.peers().contains(peer));
        if left && !matches!(input, Input::Crash) {
            out.gave_up.get_or_insert(self.replica.membership().epoch());
        }
        let after = self.replica.status();
        if after.promised < before.promised && !matches!(input, Input::Crash) {
            out.fault("a promise goes back in memory".to_owned());
        }
        if after.committed < before.committed && !matches!(input, Input::Crash) {
            out.fault("a committed prefix shrinks".to_owned());
        }
        if after.committed > before.committed {
            out.claims.push((after.committed, None));
        }
        Some(out)
    }

    /// The oldest batch reaches the disk, and its proof the replica.
    fn sync(&mut self, out: &mut Outcome) -> Option<()> {
        let pending = self.pending.pop_front()?;
        for write in &pending.writes {
            if let Err(fault) = self.disk.write(write) {
                out.fault(fault);
            }
            if let Write::Accepted { slot, .. } = write {
                out.voted.push(*slot);
            }
        }
        let mut before = Replica::clone(&pending.before);
        let Output::Persist(batch) = before.poll_output() else {
            unreachable!("the same replica hands out the same batch");
        };
        self.replica.handle_durable(batch.into_durable(), self.now);
        Some(())
    }

    fn crash(&mut self) {
        self.pending.clear();
        self.disk.count_start();
        self.replica = Self::recover(&self.disk, &self.format, self.now);
        self.applied = Slot::ZERO;
        self.pulse = 0;
    }

    /// An operator wants another membership.
    fn change(&mut self, wish: Wish, scope: &Scope, out: &mut Outcome) -> Option<()> {
        let epoch = self.replica.membership().epoch();
        if epoch.number() != wish.epoch {
            return None;
        }
        match self.replica.reconfigure(wish.into.change(), self.now) {
            Ok(proposed) if proposed.slot.number() > u64::from(scope.change_slots) => return None,
            Ok(_) => {
                out.changes = Some(epoch);
                out.marks.add(Mark::ChangeProposed);
            }
            Err(ReconfigureError::UnderWay { .. }) => out.marks.add(Mark::ChangeRefused),
            Err(_) => {}
        }
        Some(())
    }

    /// Whether it votes in no open slot, as far as its disk tells.
    pub(crate) fn is_voteless(&self) -> bool {
        let open = self.replica.committed().next();
        let newest = self.disk.governs().last().filter(|governs| governs.from <= open);
        newest.is_some_and(|governs| governs.membership.voter_index(self.id()).is_none())
    }

    /// Heartbeats are kept without what tells their age: one that is delivered is a new one.
    fn timely(&mut self, mut message: Message) -> Message {
        if let Body::Heartbeat(heartbeat) = &mut message.body {
            self.peer_pulse += 1;
            heartbeat.sequence = self.peer_pulse;
        }
        message
    }

    fn echoes(&self) -> Vec<Echo> {
        let incarnation = self.replica.incarnation();
        vec![Echo { peer: self.id(), incarnation, sequence: self.pulse }]
    }

    /// Lets the peers be heard until the election timer is up.
    fn campaign(&mut self, out: &mut Outcome) -> Option<()> {
        if self.replica.role() == Role::Leader {
            return None;
        }
        let campaigns = self.replica.counters().campaigns;
        for _ in 0..4 {
            self.now = self.now.after(ELECTION * 2 / 5);
            self.replica.handle_timeout(self.now);
            self.drain(out);
            if self.replica.counters().campaigns > campaigns {
                return Some(());
            }
            self.hear_peers();
            self.drain(out);
        }
        None
    }

    /// A heartbeat of each peer whose life is known, which echoes this replica's last one.
    fn hear_peers(&mut self) {
        self.peer_pulse += 1;
        let lives_waiting: Vec<_> = self
            .pending_writes()
            .filter_map(
                |write| if let Write::Peer { peer, .. } = write { Some(*peer) } else { None },
            )
            .collect();
        for peer in self.replica.peers().to_vec() {
            let Some(life) = self.disk.life(peer).filter(|_| !lives_waiting.contains(&peer)) else {
                continue;
            };
            let heartbeat = Heartbeat {
                sequence: self.peer_pulse,
                echoes: self.echoes(),
                promised: None,
                leader: None,
                connectivity: Connectivity::Partial,
                committed: Slot::ZERO,
                durable: Slot::ZERO,
                held: Slot::ZERO,
                released: 0,
                priority: Priority::default(),
            };
            let origin = Origin {
                cluster: self.format.cluster,
                group: self.format.group,
                epoch: self.format.membership.epoch(),
                membership: self.format.membership.digest(),
                replica: peer,
                incarnation: life,
            };
            let message = Message { origin, body: heartbeat.into() };
            self.replica.handle_message(peer, message, self.now);
        }
    }

    /// Executes what the replica puts out; writes stay pending.
    fn drain(&mut self, out: &mut Outcome) {
        loop {
            let before = self.replica.clone();
            match self.replica.poll_output() {
                Output::Send { to, message } => self.send(to, message, out),
                Output::Persist(batch) => {
                    let writes = batch.writes().to_vec();
                    self.pending.push_back(Pending { before: Arc::new(before), writes });
                }
                Output::Load { ticket, range } => {
                    // A read sees what was written before, durable or not.
                    let mut seen = self.disk.clone();
                    for write in self.pending_writes() {
                        if let Err(fault) = seen.write(write) {
                            out.fault(fault);
                        }
                    }
                    self.replica.handle_loaded(ticket, seen.load(range), self.now);
                }
                Output::Apply { slot, value } => {
                    if self.disk.value(slot) != Some(&value) {
                        out.fault(format!("{slot} is applied before its value is durable"));
                    }
                    if let Value::Membership(membership) = &value
                        && **membership == *self.replica.membership()
                        && !self.disk.governs().iter().any(|known| known.membership == **membership)
                    {
                        out.fault(format!("{slot} is applied before who governs is on record"));
                    }
                    out.applied.push(slot);
                    self.applied = slot;
                    out.claims.push((slot, Some(value)));
                    self.replica.handle_applied(slot, self.now);
                }
                Output::ReadsReady { .. }
                | Output::ReadsLost { .. }
                | Output::QuorumReadsReady { .. }
                | Output::QuorumReadsLost { .. } => {
                    out.fault("nobody reads here".to_owned());
                }
                Output::Halt(Halt::Removed { epoch, .. }) => {
                    out.gave_up = Some(epoch);
                    out.marks.add(Mark::Removed);
                }
                Output::SnapshotWanted { .. } => out.fault("nobody trims here".to_owned()),
                Output::Halt(reason) => out.fault(format!("{} halts: {reason}", self.id())),
                Output::Idle { .. } => return,
            }
        }
    }

    /// Who gets it, as bits: members of the moment.
    fn places(&self, to: Recipients) -> u8 {
        let place = |id: ReplicaId| 1_u8 << (id.number() - 1);
        match to {
            Recipients::One(id) => place(id),
            Recipients::AllPeers => {
                self.replica.peers().iter().fold(0, |places, peer| places | place(*peer))
            }
        }
    }

    fn send(&mut self, to: Recipients, message: Message, out: &mut Outcome) {
        if let Err(fault) = self.disk.covers(&message.body) {
            out.fault(fault);
        }
        let mut message = message;
        match &mut message.body {
            // What a replica that hears it could act upon, but for how far the sender's disk is, is
            // left out: the model hears peers when it wants a campaign, and a watermark by Commit.
            Body::Heartbeat(heartbeat) => {
                self.pulse = heartbeat.sequence;
                (heartbeat.sequence, heartbeat.echoes) = (0, Vec::new());
                (heartbeat.promised, heartbeat.leader) = (None, None);
                heartbeat.connectivity = Connectivity::Partial;
                (heartbeat.durable, heartbeat.released) = (Slot::ZERO, 0);
            }
            Body::Fetched(fetched) => {
                let slots = fetched.values.iter().enumerate();
                let claims = slots.map(|(offset, value)| {
                    (fetched.first.plus(offset as u64), Some(value.clone()))
                });
                out.claims.extend(claims);
            }
            Body::Promise(promise) => {
                for entry in &promise.entries {
                    if let SlotState::Chosen(value) = &entry.state {
                        out.claims.push((entry.slot, Some(value.clone())));
                    }
                }
            }
            Body::Prepare(_)
            | Body::Accept(_)
            | Body::Accepted(_)
            | Body::Reject(_)
            | Body::Commit(_)
            | Body::Fetch(_)
            | Body::Refused(_)
            | Body::Confirm(_)
            | Body::Confirmed(_)
            | Body::Transfer(_)
            | Body::Removed(_)
            | Body::Survey(_)
            | Body::Surveyed(_) => {}
        }
        out.sent.push((self.places(to), message));
    }
}
