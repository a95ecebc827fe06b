//! The replica: a switchboard between the roles, the gate and the outside (Singular Update Queue).
//!
//! Owns: one of each part, and the order in which they hear of an input. Decides nothing that a
//! part can decide: acceptor, proposer and learner know the rules, pacemaker knows the time, the
//! outbox knows what must wait.
//! Invariants: inputs are handled one at a time; nobody can make it fail, neither a peer's bytes
//! (they raise a counter) nor an operating fault (the host's affair); proof that agreement is
//! broken halts it.
//! Source: protocol.md.

mod election;
mod follow;
mod lead;
mod learn;
mod members;
mod page;
mod read;
mod reconfigure;
mod safety;
mod snapshot;
mod survey;
mod transfer;

pub use page::LogPage;
pub use safety::SafetyState;

use std::collections::{BTreeMap, VecDeque};

use crate::acceptor::{Acceptor, Vote};
use crate::agreement::Disagreement;
use crate::ballot::Ballot;
use crate::catchup::{Catchup, Loads};
use crate::config::Config;
use crate::durable::{Durable, Write, WriteSequence};
use crate::flow::Flows;
use crate::ids::{Incarnation, LogClock, ReplicaId, Slot, Time};
use crate::learner::Learner;
use crate::lives::{Lives, Verdict};
use crate::log::{ApplyWindow, Log};
use crate::membership::{Membership, OBSERVERS_MAX};
use crate::message::{Body, Message, Origin, Refused};
use crate::outbox::Outbox;
use crate::output::{
    Counters, Halt, NotProposed, Output, ProposeError, Proposed, ReadError, ReadTicket, Recipients,
    RecoverError, Role, Status,
};
use crate::pacemaker::{Pacemaker, Timer};
use crate::proposer::Proposer;
use crate::quorum::VOTERS_MAX;
use crate::read::Reads;
use crate::repeat::Repeats;
use crate::replica::snapshot::Reached;
use crate::roster::Roster;
use crate::stored::{Recovered, RecoveredVote};
use crate::survey::Surveys;
use crate::value::{Batch, Command, Value};

/// One copy of the state, and participant in the protocol.
///
/// Feed it inputs, in any number, then drain [`Replica::poll_output`] until [`Output::Idle`].
/// Cloning makes an independent replica: for models and tests, never for production, where two
/// replicas with one identity break every promise.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Replica {
    config: Config,
    roster: Roster,
    /// Every member of a membership that is kept, but this replica.
    peers: Vec<ReplicaId>,
    acceptor: Acceptor,
    learner: Learner,
    proposer: Proposer,
    log: Log,
    lives: Lives,
    catchup: Catchup,
    loads: Loads,
    reads: Reads,
    surveys: Surveys,
    pacemaker: Pacemaker,
    outbox: Outbox,
    /// The highest clock of any batch known; the next batch has it or a higher one (V1).
    clock: LogClock,
    /// The highest watermark heard from a leader, for votes that arrive after it.
    watermark: Option<(Ballot, Slot)>,
    /// The committed prefix that the log has a record of.
    recorded: Slot,
    /// Records of the committed prefix whose writes are not proved, and the highest that is.
    recording: VecDeque<(WriteSequence, Slot)>,
    held: Slot,
    /// The slot of the newest snapshot that is durable here.
    snapshot: Slot,
    /// The committed prefix that this leader has told its peers.
    told: Slot,
    repeats: Repeats,
    flows: Flows,
    counters: Counters,
    /// Who was formatted differently, and in what (Q4).
    disagreeing: BTreeMap<ReplicaId, Disagreement>,
    now: Time,
    halted: bool,
}

/// How many replicas that disagree are named at most: as many as a membership has members.
const DISAGREEING_MAX: usize = VOTERS_MAX + OBSERVERS_MAX;

impl Replica {
    /// The only constructor: what storage remembers, and `applied`, the last slot that the state
    /// machine's own durable state includes ([`Slot::ZERO`] for one in memory, which is then
    /// rebuilt from the log). Where that is less than the newest snapshot, the host restores the
    /// machine from the snapshot before anything is applied, and the slots after it are handed out.
    /// `seed` feeds every random choice: the same inputs give the same outputs.
    pub fn recover(
        config: Config,
        recovered: Recovered,
        applied: Slot,
        seed: u64,
        now: Time,
    ) -> Result<Self, RecoverError> {
        config.check_for(&recovered.format.membership).map_err(RecoverError::Config)?;
        let own = recovered.format.replica;
        if !recovered.format.membership.contains(own) {
            return Err(RecoverError::NotAMember(own));
        }
        let reached = Reached::after(&recovered, applied)?;
        let Reached { committed, applied, trimmed, snapshot, reach, clock, roster, .. } = reached;
        let Recovered { format, incarnation, promised, votes, chosen, peers, .. } = recovered;
        let origin = Origin {
            cluster: format.cluster,
            group: format.group,
            epoch: roster.newest().epoch(),
            membership: roster.newest().digest(),
            replica: own,
            incarnation,
        };
        let votes = votes.into_iter().filter(|vote| vote.slot > committed);
        let votes = votes.map(|vote| {
            let RecoveredVote { slot, ballot, value } = vote;
            (slot, Vote { ballot, value, written: WriteSequence::default() })
        });
        let acceptor = Acceptor::recovered(promised, votes);
        let window = ApplyWindow {
            slots_max: config.apply_slots_max as usize,
            bytes_max: config.apply_bytes_max,
        };
        let mut replica = Self {
            acceptor,
            learner: Learner::recovered(committed, chosen.into_iter()),
            proposer: Proposer::Idle,
            log: Log::recovered(committed, applied, trimmed, config.tail_bytes_max, window),
            lives: Lives::recovered(peers),
            catchup: Catchup::new(),
            loads: Loads::new(),
            reads: Reads::default(),
            surveys: Surveys::default(),
            pacemaker: Pacemaker::new(&config, &roster, own, incarnation, seed, now),
            outbox: Outbox::new(origin, reach),
            clock,
            watermark: None,
            recorded: recovered.committed,
            recording: VecDeque::new(),
            held: recovered.committed,
            snapshot,
            told: Slot::ZERO,
            repeats: Repeats::new(),
            flows: Flows::new(&roster.peers(own), roster.window(), config.window_bytes_max),
            counters: Counters::default(),
            disagreeing: BTreeMap::new(),
            now,
            halted: false,
            peers: roster.peers(own),
            roster,
            config,
        };
        replica.record_governs(reached.learned);
        if reached.jumps {
            replica.record_jump(snapshot);
        }
        replica.extend_committed();
        replica.settle();
        Ok(replica)
    }

    // --- inputs

    /// A decoded message, from the peer that the transport authenticated. Infallible: what a peer
    /// says can raise a counter, never an error.
    pub fn handle_message(&mut self, from: ReplicaId, message: Message, now: Time) {
        self.advance_time(now);
        if self.halted {
            return;
        }
        let (own, theirs) = (self.outbox.origin(), message.origin);
        if !self.agrees(from, theirs) {
            self.counters.dropped_disagreeing += 1;
            return;
        }
        if theirs.cluster != own.cluster
            || theirs.group != own.group
            || theirs.replica != from
            || !self.listens_to(from, theirs)
        {
            self.counters.dropped_foreign += 1;
            return;
        }
        if !message.body.is_plausible() {
            self.counters.dropped_absurd += 1;
            return;
        }
        match self.lives.judge(from, &message) {
            Verdict::Known => self.route(from, message),
            Verdict::New => {
                self.outbox.write(Write::Peer { peer: from, incarnation: theirs.incarnation });
                let after = self.outbox.after_writes();
                self.lives.remember(from, theirs.incarnation, after);
                self.catchup.begins(from);
                self.lives.hold(from, message);
            }
            Verdict::Waiting => {
                if !self.lives.hold(from, message) {
                    self.counters.dropped_stale_life += 1;
                }
            }
            // Who removed this replica sends it no heartbeats; and it speaks of what is chosen,
            // which is true whatever its sender forgot.
            Verdict::Unproved if matches!(message.body, Body::Removed(_)) => {
                self.route(from, message);
            }
            // Its heartbeat comes first, and again.
            Verdict::Unproved => self.counters.dropped_stale_life += 1,
            Verdict::Forgetful(remembered) => {
                self.counters.dropped_stale_life += 1;
                // A refusal is not answered with a refusal, or two wiped replicas never stop.
                if !matches!(message.body, Body::Refused(_)) {
                    let refused = theirs.incarnation;
                    self.outbox.send(Recipients::One(from), Refused { refused, remembered });
                }
            }
        }
        self.settle();
    }

    /// Proof that writes reached stable storage.
    ///
    /// # Panics
    ///
    /// If the proof is not of a batch of this replica's life.
    #[expect(clippy::needless_pass_by_value, reason = "a proof is used once")]
    pub fn handle_durable(&mut self, durable: Durable, now: Time) {
        self.advance_time(now);
        self.outbox.release(&durable);
        self.note_held();
        if self.halted {
            return;
        }
        self.continue_fetch();
        self.settle();
    }

    /// Time passed. Calls that come too early change nothing.
    pub fn handle_timeout(&mut self, now: Time) {
        self.advance_time(now);
        if self.halted {
            return;
        }
        let now = self.now;
        if self.pacemaker.was_paused(now) && !matches!(self.proposer, Proposer::Leading(_)) {
            self.pacemaker.arm_election(now);
        }
        if self.pacemaker.take_due(Timer::Transfer, now) {
            self.on_transfer_due();
        }
        if self.pacemaker.take_due(Timer::Heartbeat, now) {
            self.on_heartbeat_due();
        }
        if self.pacemaker.take_due(Timer::Election, now) {
            self.on_election_due();
        }
        if self.pacemaker.take_due(Timer::Retransmit, now) {
            self.on_retransmit_due();
        }
        if self.pacemaker.take_due(Timer::Fetch, now) {
            self.on_fetch_due();
        }
        if self.pacemaker.take_due(Timer::Survey, now) {
            self.on_survey_due();
        }
        self.settle();
    }

    /// The state machine has applied every slot up to this one.
    ///
    /// # Panics
    ///
    /// If that is more than was handed out.
    pub fn handle_applied(&mut self, through: Slot, now: Time) {
        self.advance_time(now);
        if self.halted {
            return;
        }
        self.log.on_applied(through);
        self.hand_out();
    }

    /// Proposes one batch of commands, in the next slot. `clock` is the host's wall clock. Commands
    /// that are handed back were certainly not proposed.
    pub fn propose(
        &mut self,
        commands: Vec<Command>,
        clock: LogClock,
        now: Time,
    ) -> Result<Proposed, ProposeError> {
        self.advance_time(now);
        match self.may_propose(&commands) {
            Err(reason) => Err(ProposeError { commands, reason }),
            Ok((slot, ballot)) => {
                self.clock = self.clock.max(clock);
                let batch = Batch::new(self.clock, commands);
                self.propose_next(slot, ballot, Value::Batch(batch));
                Ok(Proposed { slot, ballot })
            }
        }
    }

    /// Asks for a read point: [`Output::ReadsReady`] names one, or [`Output::ReadsLost`] says that
    /// there will be none here. A read point is the last slot that a state must have applied to
    /// include every write that anybody knew of when this was called.
    ///
    /// Reads that are asked before the outputs are drained share one round trip to the voters;
    /// those that are asked while it is under way share the next. While a lease is held no round is
    /// needed: where the membership has leases, `now` must have been read after the read came in,
    /// or a pause in between would make the answer stale.
    pub fn read(&mut self, now: Time) -> Result<ReadTicket, ReadError> {
        self.advance_time(now);
        if self.halted {
            return Err(ReadError::Halted);
        }
        if !matches!(self.proposer, Proposer::Leading(_)) {
            return Err(ReadError::NotLeader { hint: self.leader().map(Ballot::leader) });
        }
        self.counters.reads_asked += 1;
        Ok(self.reads.ask())
    }

    // --- outputs

    /// The next effect. Drain until [`Output::Idle`] after every input, or after several.
    pub fn poll_output(&mut self) -> Output {
        if !self.halted {
            self.serve_reads();
            self.serve_quorum_reads();
            self.tell_committed();
            if self.outbox.has_writes() {
                self.record_committed();
            }
        }
        self.outbox.poll(self.now).unwrap_or_else(|| Output::Idle {
            wake_at: if self.halted { None } else { self.pacemaker.wake_at() },
        })
    }

    /// What can be seen from outside.
    pub fn status(&self) -> Status {
        Status {
            replica: self.outbox.replica(),
            incarnation: self.incarnation(),
            role: self.role(),
            promised: self.acceptor.promised(),
            leader: self.leader(),
            epoch: self.roster.newest().epoch(),
            committed: self.learner.committed(),
            applied: self.log.applied(),
            trimmed: self.log.trimmed(),
            connectivity: self.connectivity(),
            connected_peers: self.pacemaker.connected_peers(self.now),
            slots_in_flight: self.learner.slots_in_flight(),
            bytes_in_flight: self.learner.bytes_in_flight(),
            writes_pending: self.outbox.writes_pending(),
            messages_waiting: self.outbox.messages_gated() + self.lives.messages_held(),
            votes_held: self.acceptor.votes_held(),
            values_ahead: self.learner.values_ahead(),
            slots_being_applied: self.log.being_applied(),
            reads_waiting: self.reads.waiting(),
            quorum_reads_waiting: self.surveys.waiting(),
            lease_until: match &self.proposer {
                Proposer::Leading(_) => self.pacemaker.lease_until(),
                Proposer::Idle | Proposer::Preparing(_) => None,
            },
            transferring: self.transferring(),
            disagreeing: self.disagreeing.iter().map(|(peer, what)| (*peer, *what)).collect(),
            flows: match self.proposer {
                Proposer::Leading(_) => self.flows.status(),
                Proposer::Idle | Proposer::Preparing(_) => Vec::new(),
            },
            joining: self.joining(),
        }
    }

    /// What this replica does at the moment.
    pub fn role(&self) -> Role {
        match self.proposer {
            Proposer::Preparing(_) => Role::Candidate,
            Proposer::Leading(_) => Role::Leader,
            Proposer::Idle if !self.is_voter() => Role::Observer,
            Proposer::Idle => Role::Follower,
        }
    }

    /// The ballot of the leader that this replica is, or hears and follows.
    pub fn leader(&self) -> Option<Ballot> {
        match &self.proposer {
            Proposer::Leading(reign) => Some(reign.ballot()),
            Proposer::Idle | Proposer::Preparing(_) => self
                .pacemaker
                .heard_leader(self.now)
                .filter(|ballot| Some(*ballot) >= self.acceptor.promised()),
        }
    }

    /// The last slot of the committed prefix.
    pub fn committed(&self) -> Slot {
        self.learner.committed()
    }

    /// What was counted in this life.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Every other member of the memberships that are kept. Changes with them.
    pub fn peers(&self) -> &[ReplicaId] {
        &self.peers
    }

    /// The newest membership known.
    pub fn membership(&self) -> &Membership {
        self.roster.newest()
    }

    /// This life.
    pub fn incarnation(&self) -> Incarnation {
        self.outbox.origin().incarnation
    }

    // --- routing

    /// Rule Q4. A sender of another epoch may know a later membership, which is not compared.
    fn agrees(&mut self, from: ReplicaId, theirs: Origin) -> bool {
        let own = self.outbox.origin();
        let ours = (own.cluster, own.group, own.epoch, from);
        if (theirs.cluster, theirs.group, theirs.epoch, theirs.replica) != ours {
            return true;
        }
        let Some(what) = own.membership.disagreement(theirs.membership) else {
            self.disagreeing.remove(&from);
            return true;
        };
        // Strangers are named too, for they may have been meant to be members: up to a bound.
        if self.disagreeing.len() < DISAGREEING_MAX || self.disagreeing.contains_key(&from) {
            self.disagreeing.insert(from, what);
        }
        false
    }

    fn advance_time(&mut self, now: Time) {
        self.now = self.now.max(now);
    }

    fn route(&mut self, from: ReplicaId, message: Message) {
        self.lives.note_told(from, &message.body);
        match message.body {
            Body::Prepare(prepare) => self.on_prepare(from, prepare),
            Body::Promise(promise) => self.on_promise(from, promise),
            Body::Accept(accept) => self.on_accept(from, accept),
            Body::Accepted(accepted) => self.on_accepted(from, accepted),
            Body::Reject(reject) => self.on_reject(from, reject),
            Body::Commit(commit) => self.on_commit(from, commit),
            Body::Heartbeat(heartbeat) => {
                self.on_heartbeat(from, message.origin.incarnation, &heartbeat);
            }
            Body::Fetch(fetch) => self.on_fetch(from, fetch),
            Body::Fetched(fetched) => self.on_fetched(from, fetched),
            Body::Refused(refused) => self.on_refused(from, refused),
            Body::Confirm(confirm) => self.on_confirm(from, confirm),
            Body::Confirmed(confirmed) => self.on_confirmed(from, confirmed),
            Body::Transfer(transfer) => self.on_transfer(from, transfer),
            Body::Survey(survey) => self.on_survey(from, message.origin.incarnation, survey),
            Body::Surveyed(surveyed) => self.on_surveyed(from, surveyed),
            Body::Removed(removed) => self.on_removed(removed),
        }
    }

    /// Runs everything that became possible: messages of new lives that are durable, this
    /// replica's own votes, values to adopt, values to apply.
    fn settle(&mut self) {
        loop {
            if self.halted {
                return;
            }
            if let Some(body) = self.outbox.next_to_self() {
                let origin = self.outbox.origin();
                self.route(origin.replica, Message { origin, body });
            } else if let Some((peer, held)) =
                self.lives.take_ready(|sequence| self.outbox.is_durable(sequence))
            {
                for message in held {
                    self.route(peer, message);
                }
            } else if !self.propose_adopted() && !self.fill_window() {
                break;
            }
        }
        self.tell_heir();
        self.hand_out();
    }

    fn on_refused(&mut self, from: ReplicaId, refused: Refused) {
        let own = self.incarnation();
        let remembered = refused.remembered;
        if refused.refused == own && remembered != own {
            // The next start must fail too, or enough starts would outnumber the remembered life, and
            // enough slots what it told.
            let last = Write::Refused { by: from, remembered };
            self.stop(Halt::Refused { by: from, remembered, own }, Some(last));
        }
    }

    fn halt(&mut self, halt: Halt) {
        self.stop(halt, None);
    }

    fn stop(&mut self, halt: Halt, last: Option<Write>) {
        self.halted = true;
        self.proposer = Proposer::Idle;
        self.reads.abandon();
        self.surveys.abandon();
        self.outbox.halt(halt, last);
    }

    /// Whether these commands may be proposed, and where.
    fn may_propose(&self, commands: &[Command]) -> Result<(Slot, Ballot), NotProposed> {
        if self.halted {
            return Err(NotProposed::Halted);
        }
        let Proposer::Leading(reign) = &self.proposer else {
            let hint = self.leader().map(Ballot::leader);
            return Err(NotProposed::NotLeader { hint });
        };
        if commands.is_empty() {
            return Err(NotProposed::Empty);
        }
        if let Some(to) = reign.heir() {
            return Err(NotProposed::Transferring { to });
        }
        let bytes = crate::codec::BATCH_HEADER_LEN
            + commands.iter().map(Command::encoded_len).sum::<usize>();
        let bytes_max = self.config.batch_bytes_max;
        if bytes > bytes_max {
            return Err(NotProposed::TooLarge { bytes, bytes_max });
        }
        let in_flight = self.learner.bytes_in_flight().max(self.outbox.bytes_waiting());
        if in_flight + bytes > self.config.window_bytes_max {
            return Err(NotProposed::Busy);
        }
        match reign.peek_next(&self.roster, self.learner.committed()) {
            Some(slot) => Ok((slot, reign.ballot())),
            None => Err(NotProposed::Busy),
        }
    }

    /// The last slot in which anything may be proposed. Rule Q3.
    fn window_end(&self) -> Slot {
        self.learner.committed().plus(self.roster.window())
    }
}
