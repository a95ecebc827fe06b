//! What may run at a place of a cluster instead of a bare replica: a whole node, and its clients.
//!
//! Owns: the traits [`Host`] and [`Fleet`], and what passes between them and the cluster. The
//! cluster gives a host its messages, proofs and time, and shows everything that the host does to
//! the same observers as for a bare replica.
//! Invariants: a host does nothing but within a turn; it sees no other clock, disk or network than
//! the turn's.

use core::fmt::{self, Debug};
use core::time::Duration;
use std::collections::BTreeMap;

use bytes::Bytes;

use super::rng::Rng;
use crate::config::Config;
use crate::durable::{Durable, WriteBatch};
use crate::ids::{Incarnation, LogClock, ReplicaId, Slot, Time};
use crate::output::{Counters, Halt, LoadTicket, Status};
use crate::port::{
    Channel, Frame, LoadRange, Loaded, Recovered, Room, SnapshotStore, StorageError,
};
use crate::replica::Replica;
use crate::snapshot::SnapshotMeta;
use crate::value::{Command, Value};

/// The time of a turn, as the host's clocks show it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Moment {
    /// The true time, which no host can see. For what clients are told and when.
    pub now: Time,
    /// The host's monotonic clock.
    pub local: Time,
    /// The host's wall clock.
    pub wall: LogClock,
}

/// What a host wakes up for.
#[derive(Debug)]
pub enum Stimulus {
    /// It has just started.
    Start,
    /// A frame arrived.
    Frame {
        /// Who sent it.
        from: ReplicaId,
        /// Which part of the host it is for.
        channel: Channel,
        /// Its bytes.
        bytes: Bytes,
    },
    /// The link to a peer in this life is up.
    Up(ReplicaId, Incarnation),
    /// The link to a peer fell.
    Down(ReplicaId),
    /// Writes are on the disk.
    Durable(Vec<Durable>, Room),
    /// The log was read.
    Loaded(LoadTicket, Loaded),
    /// The storage failed, for good.
    Failed(StorageError),
    /// The time of [`Effect::WakeAt`] has come.
    Timer,
    /// The part of the host that asked for it by [`Effect::Later`] gets its turn.
    Part(u32),
    /// A client of this host asked for something.
    Asked,
    /// An operator asks it to make way for this replica, if it leads.
    Transfer(ReplicaId),
}

/// What a host did in its turn.
#[derive(Debug)]
pub enum Effect {
    /// A frame left.
    Send {
        /// To whom.
        to: ReplicaId,
        /// What.
        frame: Frame,
    },
    /// The storage is to write this.
    Persist(WriteBatch),
    /// The storage is to look whether it has room again.
    Look,
    /// The storage is to read this.
    Load(LoadTicket, LoadRange),
    /// A chosen value was handed to the state machine.
    Apply(Slot, Value),
    /// The state machine holds everything up to this slot.
    Applied(Slot),
    /// It begins to write this image of its own state, which includes what it has applied.
    SnapshotMade(SnapshotMeta),
    /// An image is finished, of its own making or a peer's: it survives the loss of power.
    SnapshotKept(SnapshotMeta),
    /// State machine and replica jumped to a snapshot. Told before anything that came of it.
    Installed(SnapshotMeta),
    /// Nothing is due before this local time, which replaces the one said before.
    WakeAt(Option<Time>),
    /// A part of the host has work, and is to have its turn as soon as a thread is free for it.
    Later(u32),
    /// The host ended by itself; it has no more turns.
    Stopped(Ending),
}

/// Why a host ended by itself.
#[derive(Clone, Debug)]
pub enum Ending {
    /// It was asked to, and had finished what it could.
    Shutdown,
    /// Its replica halted.
    Halt(Halt),
    /// Its storage failed.
    Storage,
    /// It could not read a snapshot back, or its machine took none; in words.
    Restore(String),
    /// It should not have; in words.
    Failure(String),
}

/// A whole node at a place of a cluster. Dropping it is a crash.
pub trait Host: Debug {
    /// Takes in what happened, does everything that can be done at once, and pushes what it did to
    /// `effects`, in order.
    fn turn(&mut self, stimulus: Stimulus, moment: Moment, effects: &mut Vec<Effect>);

    /// What its replica says of itself.
    fn status(&self) -> Status;

    /// What its replica counted.
    fn counters(&self) -> Counters;

    /// Whether nobody waits for anything here: all queues of clients' requests are empty.
    fn is_idle(&self) -> bool;
}

/// What a host starts from.
pub struct Birth {
    /// What the storage gave back.
    pub recovered: Recovered,
    /// The tunables of its replica.
    pub config: Config,
    /// Feeds every random choice of the host.
    pub seed: u64,
    /// When.
    pub moment: Moment,
    /// Where its snapshots are kept, if its storage keeps any.
    pub snapshots: Option<Box<dyn SnapshotStore>>,
}

impl Debug for Birth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { recovered, config, seed, moment, .. } = self;
        f.debug_struct("Birth")
            .field("recovered", recovered)
            .field("config", config)
            .field("seed", seed)
            .field("moment", moment)
            .finish_non_exhaustive()
    }
}

/// What a client did.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Act {
    /// Where it asked for something, so that this host gets a turn.
    pub asked: Option<ReplicaId>,
    /// When it wants to act again; `None` when it never does.
    pub again: Option<Duration>,
}

/// What became of clients' requests so far.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Tally {
    /// Asked for.
    pub asked: u64,
    /// Asked for before the faults ended.
    pub asked_under_faults: u64,
    /// Answered with a reply.
    pub answered: u64,
    /// Certainly not carried out.
    pub rejected: u64,
    /// Nobody can say.
    pub unknown: u64,
    /// Each way in which a request can end, by name, and how many ended so: zero too.
    pub endings: BTreeMap<&'static str, u64>,
    /// What else a long run must have met in its hosts, by name, and how often: zero too.
    pub met: BTreeMap<&'static str, u64>,
}

/// Makes the hosts of a cluster, and acts for their clients.
pub trait Fleet: Debug {
    /// Starts a host. The one before it at this place is gone.
    fn start(&mut self, birth: Birth) -> Box<dyn Host>;

    /// The process at this place is gone.
    fn stopped(&mut self, id: ReplicaId, now: Time);

    /// How many clients there are.
    fn clients(&self) -> usize;

    /// Lets a client do what it wants. `is_up` says which processes run.
    fn act(&mut self, client: usize, now: Time, under_faults: bool, rng: &mut Rng) -> Act;

    /// Clients reach only these from here on; what was asked of others they give up, and nobody can
    /// say what comes of it.
    fn reach(&mut self, ids: &[ReplicaId]);

    /// Hands out the answers that hosts have given meanwhile.
    fn settle(&mut self, now: Time);

    /// Asks this host for something of which [`Fleet::is_served`] is to be told; for a `command`,
    /// [`Fleet::newest_served`]. False if the host is not there.
    fn probe(&mut self, at: ReplicaId, now: Time, command: bool) -> bool;

    /// Whether a probe was answered with a reply.
    fn is_served(&self) -> bool;

    /// When the newest command was asked for, as a probe, that was answered with a reply.
    fn newest_served(&self) -> Option<Time>;

    /// How many requests the busiest client has still to make.
    fn left(&self) -> u64;

    /// How many clients have requests to make, or wait for an answer.
    fn open(&self) -> usize;

    /// Whether a client asked for exactly this command.
    fn is_submitted(&self, command: &Command) -> bool;

    /// What became of the requests.
    fn tally(&self) -> Tally;

    /// What is wrong with the answers given so far; `at_end` when nothing more will be asked.
    fn verdict(&mut self, at_end: bool) -> Result<(), String>;
}

/// What runs at a place.
#[derive(Debug)]
pub(super) enum Process {
    /// The protocol alone.
    Replica(Box<Replica>),
    /// A whole node.
    Host(Box<dyn Host>),
}

impl Process {
    pub(super) fn status(&self) -> Status {
        match self {
            Self::Replica(replica) => replica.status(),
            Self::Host(host) => host.status(),
        }
    }

    pub(super) fn counters(&self) -> Counters {
        match self {
            Self::Replica(replica) => replica.counters(),
            Self::Host(host) => host.counters(),
        }
    }

    /// The bare replica, where it is one.
    pub(super) fn replica(&mut self) -> Option<&mut Replica> {
        match self {
            Self::Replica(replica) => Some(replica),
            Self::Host(_) => None,
        }
    }
}
