//! What a replica hands its host: effects, errors and what can be seen from outside.
//!
//! Owns: [`Output`], the errors of the replica's operations, [`Status`], [`Counters`].
//! Invariant: every output may be executed the moment it appears, in any order and in parallel,
//! except that Persist and Load are executed in sequence, and Apply is executed in sequence.
//! Everything else that depends on an effect is held back inside the core until its proof returns.

use core::fmt;

use crate::agreement::Disagreement;
use crate::ballot::Ballot;
use crate::config::ConfigError;
use crate::durable::WriteBatch;
use crate::ids::{Epoch, GroupId, Incarnation, ReplicaId, Slot, Time};
use crate::membership::ChangeError;
use crate::message::{Connectivity, Message};
use crate::stored::LoadRange;
use crate::value::{Command, Value};

/// The next effect of a replica.
#[derive(Debug)]
#[must_use]
pub enum Output {
    /// For the transport; may be lost.
    Send {
        /// Who is to get it.
        to: Recipients,
        /// What.
        message: Message,
    },
    /// For the storage; give its proof to [`crate::replica::Replica::handle_durable`].
    Persist(WriteBatch),
    /// For the storage; give the values to [`crate::replica::Replica::handle_loaded`].
    Load {
        /// Which request this is.
        ticket: LoadTicket,
        /// What to read.
        range: LoadRange,
    },
    /// For the state machine, in slot order, each slot once in a life, and none that a snapshot which
    /// was installed includes; say when it is done to [`crate::replica::Replica::handle_applied`].
    Apply {
        /// The slot.
        slot: Slot,
        /// Its chosen value.
        value: Value,
    },
    /// Reads up to this ticket that are not settled yet may be answered from a state that has
    /// applied `point`: it includes every write that anybody knew of when they were asked.
    ReadsReady {
        /// The last ticket.
        through: ReadTicket,
        /// The read point.
        point: Slot,
    },
    /// Reads up to this ticket that are not settled yet get no read point here: this replica leads
    /// no more. They may be asked again elsewhere.
    ReadsLost {
        /// The last ticket.
        through: ReadTicket,
    },
    /// Quorum reads up to this ticket that are not settled yet may be answered from a state that has
    /// applied `point`, which is committed here: it includes every write that anybody knew of when they
    /// were asked.
    QuorumReadsReady {
        /// The last ticket, of those of quorum reads.
        through: ReadTicket,
        /// The read point.
        point: Slot,
    },
    /// Quorum reads up to this ticket that are not settled yet get no read point in time. They may be
    /// asked again, here or elsewhere.
    QuorumReadsLost {
        /// The last ticket, of those of quorum reads.
        through: ReadTicket,
        /// Why.
        reason: QuorumReadLoss,
    },
    /// What this replica lacks is gone from its peers' logs: ask this one for a snapshot of a slot
    /// above `above`, and give it to [`crate::replica::Replica::install`] once it is durable. Said
    /// again each [`crate::config::Config::fetch_timeout`] while it lasts, of another peer in turn:
    /// whoever has a transfer under way that gets on heeds none of them.
    SnapshotWanted {
        /// The peer.
        from: ReplicaId,
        /// The committed prefix here.
        above: Slot,
    },
    /// The replica will do nothing more. The host stops and says why.
    Halt(Halt),
    /// Drained: nothing more to do before `wake_at`, or before the next input.
    Idle {
        /// When [`crate::replica::Replica::handle_timeout`] is due.
        wake_at: Option<Time>,
    },
}

/// Who is to get a message.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Recipients {
    /// This peer.
    One(ReplicaId),
    /// Every peer: [`crate::replica::Replica::peers`].
    AllPeers,
}

/// Names one request to read the log.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct LoadTicket(pub(crate) u64);

/// Names one read that waits for its read point. Tickets of a life rise by one, from 1; those of
/// quorum reads are counted by themselves.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ReadTicket(u64);

impl ReadTicket {
    /// The ticket with this number. It is a name alone: naming one that a replica never gave asks
    /// for nothing.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// No ticket comes after this.
    pub const MAX: Self = Self(u64::MAX);

    /// The number.
    pub const fn number(self) -> u64 {
        self.0
    }
}

/// Why a read got no ticket.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum ReadError {
    /// This replica does not lead.
    NotLeader {
        /// Who does, as far as it knows.
        hint: Option<ReplicaId>,
    },
    /// The replica has halted.
    Halted,
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLeader { hint: Some(leader) } => write!(f, "not the leader; {leader} is"),
            Self::NotLeader { hint: None } => f.write_str("not the leader; none is known"),
            Self::Halted => f.write_str("the replica has halted"),
        }
    }
}

impl std::error::Error for ReadError {}

/// Why quorum reads got no read point within [`crate::config::Config::quorum_read_timeout`].
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum QuorumReadLoss {
    /// Too few voters answered to be a prepare quorum.
    Unreached,
    /// A slot that a voter has accepted in is not settled: no leader has it chosen, or another value.
    Unsettled {
        /// The slot.
        point: Slot,
    },
}

impl fmt::Display for QuorumReadLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreached => f.write_str("too few voters answer"),
            Self::Unsettled { point } => {
                write!(f, "{point} was proposed, and no leader settles it")
            }
        }
    }
}

/// Why a replica stopped for good.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Halt {
    /// A peer remembers a newer life of this replica, or more of what it held: its directory was
    /// wiped, or is a copy.
    Refused {
        /// The peer.
        by: ReplicaId,
        /// The life that it remembers.
        remembered: Incarnation,
        /// The life that this replica believes to have.
        own: Incarnation,
    },
    /// Evidence that two values were chosen in one slot. Never expected; nothing can be trusted.
    AgreementBroken {
        /// The slot.
        slot: Slot,
    },
    /// This replica is a member no longer, and what it holds is needed no more.
    Removed {
        /// The membership that governs.
        epoch: Epoch,
        /// The first slot that it governs.
        from: Slot,
    },
    /// A committed value that is to be applied is in no place where it must be.
    LogLost {
        /// The slot.
        slot: Slot,
    },
}

/// What is left to do with a directory that may have forgotten votes.
pub(crate) const WAY_BACK: &str = "put back the newest directory of this replica if it still \
     exists; otherwise replace this replica by one with a new id and an empty directory; the others \
     go on while a majority is up";

impl fmt::Display for Halt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { by, remembered, own } if own.succeeds(*remembered) => write!(
                f,
                "{by} was told more by life {remembered} of this replica than is in the data \
                 directory of life {own}: it is a backup or an old copy, or its disk lost what was \
                 synced, and it may have forgotten votes; {WAY_BACK}"
            ),
            Self::Refused { by, remembered, own } => write!(
                f,
                "{by} remembers life {remembered} of this replica, and this is life {own}: its \
                 data directory was wiped, is an old copy, or runs in two processes, and it may have \
                 forgotten votes; {WAY_BACK}"
            ),
            Self::AgreementBroken { slot } => write!(
                f,
                "two different values were chosen in {slot}: a disk, an operator or a bug broke \
                 the promises of this cluster; stop all replicas and keep their directories"
            ),
            Self::Removed { epoch, from } => write!(
                f,
                "this replica was removed from the cluster: {epoch} governs from {from} on, and does \
                 not name it; its directory is needed no more"
            ),
            Self::LogLost { slot } => write!(
                f,
                "the committed value of {slot} is neither in the log nor at any peer: restore the \
                 state machine from a snapshot"
            ),
        }
    }
}

/// Why a replica could not be recovered.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum RecoverError {
    /// A tunable is out of its bounds.
    Config(ConfigError),
    /// The replica is not in the membership that its directory was formatted with.
    NotAMember(ReplicaId),
    /// The state machine and the newest snapshot include less than what was trimmed from the log.
    AppliedBelowTrim {
        /// What the state machine or the snapshot includes, whichever is more.
        applied: Slot,
        /// What was trimmed.
        trimmed: Slot,
    },
    /// The newest snapshot names other voters for the slots after it than the log does.
    SnapshotMembership {
        /// The snapshot's slot.
        slot: Slot,
    },
}

impl fmt::Display for RecoverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::NotAMember(id) => write!(f, "{id} is not in its own membership"),
            Self::AppliedBelowTrim { applied, trimmed } => write!(
                f,
                "the log begins after {trimmed}, but the state machine and the newest snapshot \
                 include only what is up to {applied}: put the snapshot files of this directory \
                 back, or the newest state of the state machine; if both are lost, leave this \
                 replica off and have another one take its place"
            ),
            Self::SnapshotMembership { slot } => write!(
                f,
                "the newest snapshot, of {slot}, was made under another membership than the log's: \
                 it belongs to another directory; put the snapshot files of this one back"
            ),
        }
    }
}

impl std::error::Error for RecoverError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Config(error) => Some(error),
            Self::NotAMember(_)
            | Self::AppliedBelowTrim { .. }
            | Self::SnapshotMembership { .. } => None,
        }
    }
}

/// Commands that were certainly not proposed, handed back with the reason.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ProposeError {
    /// The commands as they were given.
    pub commands: Vec<Command>,
    /// Why.
    pub reason: NotProposed,
}

/// Why commands were not proposed.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum NotProposed {
    /// This replica does not lead.
    NotLeader {
        /// Who does, as far as it knows.
        hint: Option<ReplicaId>,
    },
    /// The window of slots in flight is full. Try again after the next output.
    Busy,
    /// This replica leads and makes way for another, for an election timeout at most. Keep the
    /// commands, and try again soon, here or there: this is no reason to refuse them.
    Transferring {
        /// For whom.
        to: ReplicaId,
    },
    /// The batch exceeds [`crate::config::Config::batch_bytes_max`].
    TooLarge {
        /// Its encoded bytes.
        bytes: usize,
        /// The bound.
        bytes_max: usize,
    },
    /// There was no command.
    Empty,
    /// The replica has halted.
    Halted,
}

impl fmt::Display for ProposeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason {
            NotProposed::NotLeader { hint: Some(leader) } => {
                write!(f, "not the leader; {leader} is")
            }
            NotProposed::NotLeader { hint: None } => f.write_str("not the leader; none is known"),
            NotProposed::Busy => f.write_str("the window of slots in flight is full"),
            NotProposed::Transferring { to } => write!(f, "the leader makes way for {to}"),
            NotProposed::TooLarge { bytes, bytes_max } => {
                write!(f, "a batch of {bytes} bytes exceeds {bytes_max}")
            }
            NotProposed::Empty => f.write_str("a batch holds at least one command"),
            NotProposed::Halted => f.write_str("the replica has halted"),
        }
    }
}

impl std::error::Error for ProposeError {}

/// Why a change of the membership was not proposed. Nothing has changed.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ReconfigureError {
    /// This replica does not lead.
    NotLeader {
        /// Who does, as far as it knows.
        hint: Option<ReplicaId>,
    },
    /// This replica leads and makes way for another. Try again soon, here or there.
    Transferring {
        /// For whom.
        to: ReplicaId,
    },
    /// Another change is under way. Try again when it is done.
    UnderWay {
        /// The newest membership that is known to be chosen.
        epoch: Epoch,
    },
    /// The window of slots in flight is full. Try again soon.
    Busy,
    /// The change gives no membership.
    Change(ChangeError),
    /// This replica is to vote, and is not connected or has not caught up. Make it an observer first.
    Behind(ReplicaId),
    /// This leader would not reach the quorums of the new membership.
    Unreachable,
    /// A membership with leases is not changed.
    Leases,
    /// The replica has halted.
    Halted,
}

impl fmt::Display for ReconfigureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLeader { hint: Some(leader) } => write!(f, "not the leader; {leader} is"),
            Self::NotLeader { hint: None } => f.write_str("not the leader; none is known"),
            Self::Transferring { to } => write!(f, "the leader makes way for {to}"),
            Self::UnderWay { epoch } => {
                write!(f, "another change is under way; {epoch} is the newest that was chosen")
            }
            Self::Busy => f.write_str("the window of slots in flight is full"),
            Self::Change(error) => error.fmt(f),
            Self::Behind(id) => {
                write!(f, "{id} cannot vote yet: it is not connected, or has not caught up")
            }
            Self::Unreachable => f.write_str("the leader reaches no quorums of the new membership"),
            Self::Leases => f.write_str("a membership with leases cannot be changed"),
            Self::Halted => f.write_str("the replica has halted"),
        }
    }
}

impl std::error::Error for ReconfigureError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Change(error) => Some(error),
            Self::NotLeader { .. }
            | Self::Transferring { .. }
            | Self::UnderWay { .. }
            | Self::Busy
            | Self::Behind(_)
            | Self::Unreachable
            | Self::Leases
            | Self::Halted => None,
        }
    }
}

impl From<ChangeError> for ReconfigureError {
    fn from(error: ChangeError) -> Self {
        Self::Change(error)
    }
}

/// Why a leader does not make way for another replica. Nothing has changed.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum TransferError {
    /// This replica does not lead.
    NotLeader {
        /// Who does, as far as it knows.
        hint: Option<ReplicaId>,
    },
    /// It leads already.
    AlreadyLeads,
    /// That replica does not vote.
    NotAVoter(ReplicaId),
    /// That replica does not exchange heartbeats with this one, or says that it reaches no quorum.
    NotConnected(ReplicaId),
    /// That replica lacks more than a window of what is committed.
    Behind {
        /// Its committed prefix, as it said last.
        committed: Slot,
        /// The least that it must be.
        wanted: Slot,
    },
    /// This leader makes way for another already.
    UnderWay {
        /// For this one.
        to: ReplicaId,
    },
    /// The replica has halted.
    Halted,
}

impl fmt::Display for TransferError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLeader { hint: Some(leader) } => write!(f, "not the leader; {leader} is"),
            Self::NotLeader { hint: None } => f.write_str("not the leader; none is known"),
            Self::AlreadyLeads => f.write_str("it leads already"),
            Self::NotAVoter(id) => write!(f, "{id} does not vote"),
            Self::NotConnected(id) => write!(f, "{id} is not connected, or reaches no quorum"),
            Self::Behind { committed, wanted } => {
                write!(f, "it has committed up to {committed} only, and needs {wanted}")
            }
            Self::UnderWay { to } => write!(f, "the leader makes way for {to} already"),
            Self::Halted => f.write_str("the replica has halted"),
        }
    }
}

impl std::error::Error for TransferError {}

/// Where commands were proposed. If another value is chosen in this slot, they are certainly not
/// applied, and never will be.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Proposed {
    /// The slot.
    pub slot: Slot,
    /// The leader's ballot.
    pub ballot: Ballot,
}

/// Why the log was not trimmed. Nothing has changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TrimError {
    /// The last slot that is applied.
    pub applied: Slot,
    /// The slot of the newest snapshot that is durable here.
    pub snapshot: Slot,
}

impl fmt::Display for TrimError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { applied, snapshot } = self;
        write!(
            f,
            "only what is applied, and in a durable snapshot, can be trimmed: {applied} is applied, \
             and the newest snapshot is of {snapshot}"
        )
    }
}

impl std::error::Error for TrimError {}

/// Why a snapshot was not installed. Nothing has changed.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum InstallError {
    /// Everything in it is committed here.
    Old {
        /// The committed prefix.
        committed: Slot,
    },
    /// It is of another replicated log.
    Foreign {
        /// Of this one.
        group: GroupId,
    },
    /// It names other voters for the slots after it than this replica knows.
    Membership,
    /// The replica has halted.
    Halted,
}

impl fmt::Display for InstallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Old { committed } => write!(f, "everything up to {committed} is here already"),
            Self::Foreign { group } => write!(f, "it is of another replicated log, {group:?}"),
            Self::Membership => f.write_str("it was made under another membership"),
            Self::Halted => f.write_str("the replica has halted"),
        }
    }
}

impl std::error::Error for InstallError {}

/// What a replica does at the moment.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Role {
    /// Votes, and follows whoever leads.
    Follower,
    /// Asks for promises.
    Candidate,
    /// Proposes.
    Leader,
    /// Votes on nothing.
    Observer,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Follower => "follower",
            Self::Candidate => "candidate",
            Self::Leader => "leader",
            Self::Observer => "observer",
        })
    }
}

/// What can be seen of a replica from outside.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Status {
    /// Its id.
    pub replica: ReplicaId,
    /// Its life.
    pub incarnation: Incarnation,
    /// What it does.
    pub role: Role,
    /// The highest ballot it has promised.
    pub promised: Option<Ballot>,
    /// The ballot of the leader that it is or follows.
    pub leader: Option<Ballot>,
    /// The newest membership it knows.
    pub epoch: Epoch,
    /// Its committed prefix.
    pub committed: Slot,
    /// What the host said is applied.
    pub applied: Slot,
    /// What was trimmed.
    pub trimmed: Slot,
    /// Whether it could lead.
    pub connectivity: Connectivity,
    /// The peers it exchanges heartbeats with, both ways.
    pub connected_peers: Vec<ReplicaId>,
    /// Slots proposed and not chosen, as leader.
    pub slots_in_flight: usize,
    /// Bytes of their values.
    pub bytes_in_flight: usize,
    /// Write batches handed out and not proved.
    pub writes_pending: u64,
    /// Messages kept until a write that they depend on is proved.
    pub messages_waiting: usize,
    /// Votes kept in memory: in slots that are not committed here.
    pub votes_held: usize,
    /// Values known to be chosen beyond a gap.
    pub values_ahead: usize,
    /// Slots handed out to be applied and not reported back.
    pub slots_being_applied: usize,
    /// Reads that wait for a read point, as leader.
    pub reads_waiting: u64,
    /// Reads that wait for what a prepare quorum knows, or for that to be committed here.
    pub quorum_reads_waiting: u64,
    /// Before when, by this replica's clock, it gives read points without asking; nothing unless it
    /// leads and has a lease, which may be over.
    pub lease_until: Option<Time>,
    /// For whom it makes way, as leader.
    pub transferring: Option<ReplicaId>,
    /// Replicas of this cluster that were formatted with something else than this one, and with
    /// what: nothing that they say is heeded until one of the two is formatted anew.
    pub disagreeing: Vec<(ReplicaId, Disagreement)>,
    /// What is on its way to each peer, as leader; empty otherwise.
    pub flows: Vec<PeerFlow>,
    /// Who is to vote once it has caught up.
    pub joining: Vec<JoiningStatus>,
}

/// An observer that is to vote.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct JoiningStatus {
    /// Which one.
    pub id: ReplicaId,
    /// The voter that leaves at the same time, if one does.
    pub replaces: Option<ReplicaId>,
    /// The committed prefix that its disk has on record, as far as was heard.
    pub held: Slot,
}

/// What a leader sent a peer and has no answer to. The values are those of the log's tail and of
/// what is in flight, shared and not copied; what the transport keeps for the peer is at most this,
/// beside answers to what it fetches.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct PeerFlow {
    /// The peer.
    pub peer: ReplicaId,
    /// How many slots: at most twice the window.
    pub slots: usize,
    /// Bytes of their values: at most [`crate::config::Config::window_bytes_max`], or one message.
    pub bytes: usize,
    /// Whether it is sent one message at a time, as it does not keep up or is not heard.
    pub probed: bool,
}

/// What a replica counted in this life.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub struct Counters {
    /// Campaigns begun.
    pub campaigns: u64,
    /// Campaigns won.
    pub elections_won: u64,
    /// Reigns ended without a restart.
    pub step_downs: u64,
    /// Reigns in which this leader began to make way for another: each time.
    pub transfers_begun: u64,
    /// Those that ended with a promise to the other one.
    pub transfers_done: u64,
    /// Those that took too long, after which this replica led on.
    pub transfers_given_up: u64,
    /// Transfers heard that were no reason to campaign: of another ballot than that of the leader that
    /// is heard, or while this replica could not lead.
    pub transfers_ignored: u64,
    /// Campaigns begun because a leader made way.
    pub transfers_taken: u64,
    /// Slots in which a new leader adopted what others had accepted.
    pub values_adopted: u64,
    /// Slots that a new leader filled with no-ops.
    pub gaps_filled: u64,
    /// Memberships that this replica saw committed and that govern from some slot on.
    pub memberships: u64,
    /// Changes of the membership that this leader proposed, promotions among them.
    pub changes: u64,
    /// Observers that this leader proposed to make voters, as they had caught up.
    pub promotions: u64,
    /// Slots filled with no-ops so that a new membership governs soon.
    pub slots_filled: u64,
    /// Accepts sent again.
    pub retransmissions: u64,
    /// Proposals that a peer was not sent at once, as it did not keep up or was not heard.
    pub proposals_held_back: u64,
    /// Values learned by Fetch.
    pub values_fetched: u64,
    /// How often a peer was named that is to give a snapshot.
    pub snapshots_wanted: u64,
    /// Snapshots that took the place of a part of the log.
    pub snapshots_installed: u64,
    /// Values that this replica, as leader, saw chosen.
    pub values_chosen: u64,
    /// Reads asked of this replica as leader.
    pub reads_asked: u64,
    /// Rounds of Confirm begun, for them or to renew a lease.
    pub read_rounds: u64,
    /// Those of them that a lease served.
    pub lease_reads: u64,
    /// Quorum reads asked of this replica.
    pub quorum_reads_asked: u64,
    /// Rounds of Survey begun for them.
    pub surveys: u64,
    /// Quorum reads that got no read point in time.
    pub quorum_reads_lost: u64,
    /// Prepares left unanswered until a grant ends.
    pub prepares_withheld: u64,
    /// Messages of another cluster or group, or whose sender is not who it says.
    pub dropped_foreign: u64,
    /// Messages of replicas that disagree on the membership.
    pub dropped_disagreeing: u64,
    /// Messages of a life that is no longer, or not yet, listened to.
    pub dropped_stale_life: u64,
    /// Messages under a ballot that is over, and votes already counted.
    pub dropped_stale: u64,
    /// Messages that a correct peer would not send.
    pub dropped_absurd: u64,
    /// Accepts beyond the window, left for a retransmission.
    pub dropped_beyond_window: u64,
}
