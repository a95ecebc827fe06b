//! What replicas say to each other: one struct for each message.
//!
//! Owns: the messages and which of them must wait for the disk ([`SendNow`],
//! [`SendAfterDurable`]). Knows no rule of when to send one; that is protocol.md §5.
//! Invariant: every message carries cluster, group, epoch, sender and the sender's incarnation.
//! Two kinds never mix: a type implements one of the two traits, and the outbox sends nothing else.

use crate::agreement::MembershipDigest;
use crate::ballot::Ballot;
use crate::ids::{ClusterId, Epoch, GroupId, Incarnation, Priority, ReplicaId, Slot};
use crate::value::Value;

/// Whose words or records these are. Stands in every message, every [`crate::durable::WriteBatch`]
/// and every record of the log.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Origin {
    /// The cluster.
    pub cluster: ClusterId,
    /// The replicated log within it.
    pub group: GroupId,
    /// The newest membership that the replica knew.
    pub epoch: Epoch,
    /// What the members of that membership must agree on. Stands in messages alone.
    pub membership: MembershipDigest,
    /// The replica.
    pub replica: ReplicaId,
    /// Its life.
    pub incarnation: Incarnation,
}

/// A message and who sent it. The receiver is known to the transport alone, so that the same bytes
/// go to every peer.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Message {
    /// The sender. The host passes the authenticated peer beside it, and the two must agree.
    pub origin: Origin,
    /// What it says.
    pub body: Body,
}

/// What a message says.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Body {
    /// Phase 1a.
    Prepare(Prepare),
    /// Phase 1b.
    Promise(Promise),
    /// Phase 2a.
    Accept(Accept),
    /// Phase 2b.
    Accepted(Accepted),
    /// A refusal with the higher ballot.
    Reject(Reject),
    /// The leader's watermark.
    Commit(Commit),
    /// Who hears whom, and who leads.
    Heartbeat(Heartbeat),
    /// A request for chosen values.
    Fetch(Fetch),
    /// Chosen values.
    Fetched(Fetched),
    /// The receiver is a life that the sender will not listen to.
    Refused(Refused),
    /// A leader asks whether it still leads, for reads that wait.
    Confirm(Confirm),
    /// It may: nothing higher is promised here.
    Confirmed(Confirmed),
    /// The leader makes way for the receiver.
    Transfer(Transfer),
    /// A replica asks a voter how far the log may reach, for reads that wait.
    Survey(Survey),
    /// So far, as the sender knows.
    Surveyed(Surveyed),
    /// The receiver is a member no longer.
    Removed(Removed),
}

/// Phase 1a: the candidate asks for a promise, and for what was accepted from slot `from` on.
///
/// Sent again with a higher `from` until the promiser's pages cover every slot.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Prepare {
    /// The candidate's ballot.
    pub ballot: Ballot,
    /// The first slot that the answer is to cover.
    pub from: Slot,
}

/// Phase 1b: one page of a promise.
///
/// Says of every slot in `from..=through` that is above `committed` what the promiser accepted
/// there; a slot without an entry is empty. Slots at or below `committed` are chosen.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Promise {
    /// The ballot that is promised.
    pub ballot: Ballot,
    /// The promiser's committed prefix.
    pub committed: Slot,
    /// The first slot of this page.
    pub from: Slot,
    /// The last slot of this page, or [`Slot::MAX`] where nothing was accepted beyond it.
    pub through: Slot,
    /// What was accepted, in rising order of slots, all within `from..=through`.
    pub entries: Vec<PromiseEntry>,
}

/// What a promiser knows about a slot.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct PromiseEntry {
    /// The slot.
    pub slot: Slot,
    /// What is known about it.
    pub state: SlotState,
}

/// What a promiser knows about a slot above its committed prefix.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum SlotState {
    /// It accepted this value at this ballot, and none at a higher one.
    Accepted(Ballot, Value),
    /// This value is chosen.
    Chosen(Value),
    /// It may have accepted something, up to this ballot, and lost it to damage. Counts toward no
    /// prepare quorum of this slot.
    Unknown(Ballot),
}

impl SlotState {
    /// The bytes that the value takes, if there is one.
    pub fn encoded_len(&self) -> usize {
        match self {
            Self::Accepted(_, value) | Self::Chosen(value) => value.encoded_len(),
            Self::Unknown(_) => 0,
        }
    }
}

/// Phase 2a: the leader proposes values for consecutive slots, and tells its watermark.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Accept {
    /// The leader's ballot.
    pub ballot: Ballot,
    /// The leader's committed prefix, under the rule of [`Commit`].
    pub committed: Slot,
    /// The slot of the first value.
    pub first: Slot,
    /// The values of `first` and the slots after it. Never empty.
    pub values: Vec<Value>,
}

/// Phase 2b: the sender accepted, at exactly this ballot, what its leader proposed for these
/// slots.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Accepted {
    /// The ballot.
    pub ballot: Ballot,
    /// The first slot.
    pub first: Slot,
    /// The last slot, not before `first`.
    pub last: Slot,
}

/// A Prepare, an Accept or a Confirm came under a ballot lower than the one promised. A hint: it changes
/// nothing but the receiver's hurry.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Reject {
    /// The ballot that was refused.
    pub refused: Ballot,
    /// The ballot that is promised.
    pub promised: Ballot,
}

/// The leader's watermark: every slot up to `committed` is chosen, and where the leader proposed a
/// value under `ballot`, that value is the chosen one.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Commit {
    /// The leader's ballot.
    pub ballot: Ballot,
    /// The last slot of its committed prefix.
    pub committed: Slot,
}

/// Whether a replica exchanges heartbeats, both ways, with enough voters for both kinds of quorum.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Connectivity {
    /// It reaches too few.
    Partial,
    /// It reaches a prepare quorum and an accept quorum, itself included.
    Quorum,
}

/// Sent to every peer each heartbeat interval (the pattern `HeartBeat`).
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Heartbeat {
    /// Rises by one with every heartbeat of this life, from 1.
    pub sequence: u64,
    /// For each peer heard in this life, the sequence of its newest heartbeat: what makes a
    /// connection count in both directions, however late a message is.
    pub echoes: Vec<Echo>,
    /// The highest ballot that the sender has promised. A hint.
    pub promised: Option<Ballot>,
    /// The ballot of the leader that the sender is, or hears itself and follows.
    pub leader: Option<Ballot>,
    /// Whether the sender could lead.
    pub connectivity: Connectivity,
    /// The last slot of the sender's committed prefix. The leader's own counts as a [`Commit`].
    pub committed: Slot,
    /// The highest slot in which the sender has a durable vote, or of which its disk held the value
    /// when this life began: how far its disk is. No later life of the sender tells less (D7).
    pub durable: Slot,
    /// The last slot of the sender's committed prefix that its disk has a record of: of it, and of every
    /// value in it, it will know after any restart.
    pub held: Slot,
    /// The sender relies on no grant of its rounds of Confirm up to this one.
    pub released: u64,
    /// How much the sender is preferred as leader.
    pub priority: Priority,
}

/// "I heard you": the newest heartbeat that the sender has from a peer.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Echo {
    /// Whose heartbeat.
    pub peer: ReplicaId,
    /// The life of the peer that sent it.
    pub incarnation: Incarnation,
    /// Its sequence.
    pub sequence: u64,
}

/// Asks for the chosen values from `from` on, at most up to `through`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Fetch {
    /// The first slot wanted.
    pub from: Slot,
    /// The last slot wanted.
    pub through: Slot,
}

/// Chosen values of consecutive slots. Also sent unasked to a leader that proposes for a slot that
/// the sender knows to be chosen.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Fetched {
    /// The slot of the first value.
    pub first: Slot,
    /// The values; empty where the sender no longer has slot `first`.
    pub values: Vec<Value>,
    /// The sender's committed prefix.
    pub committed: Slot,
    /// The sender has trimmed every slot up to this one: they come by snapshot alone.
    pub trimmed: Slot,
}

/// The receiver's life is older than, or not the same as, one that the sender remembers, or its disk
/// holds less than that one told (D7): it was wiped, or runs from a copy of its directory, and may have
/// forgotten votes.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Refused {
    /// The life that is refused.
    pub refused: Incarnation,
    /// The life that the sender remembers.
    pub remembered: Incarnation,
}

/// Reads wait at the leader of this ballot: has the receiver promised a higher one?
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Confirm {
    /// The leader's ballot.
    pub ballot: Ballot,
    /// The round, numbered within the leader's life.
    pub round: u64,
}

/// When this was sent, its sender had promised nothing above the ballot.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Confirmed {
    /// The ballot.
    pub ballot: Ballot,
    /// The round that is answered.
    pub round: u64,
}

/// The leader of this ballot makes way: the receiver may campaign although a leader is well.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Transfer {
    /// The leader's ballot.
    pub ballot: Ballot,
    /// The leader's committed prefix, under the rule of [`Commit`].
    pub committed: Slot,
    /// As in a [`Heartbeat`]: no lease of the leader forbids the campaign.
    pub released: u64,
}

/// Reads wait at the sender, whoever leads: which slots has the receiver accepted in, or committed?
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Survey {
    /// The round, numbered within the sender's life.
    pub round: u64,
}

/// When this was sent, its sender had accepted in no slot above `highest`, durably or not, and had
/// committed none.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Surveyed {
    /// The life that asked: another one numbers its rounds anew.
    pub asker: Incarnation,
    /// The round that is answered.
    pub round: u64,
    /// The sender's committed prefix: a reason to fetch.
    pub committed: Slot,
    /// The highest slot that the sender has accepted in, or knows to be chosen; at least `committed`.
    pub highest: Slot,
}

/// The receiver is in no membership that governs a slot any more, and nobody needs what it holds.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Removed {
    /// The membership that governs, as far as the sender knows.
    pub epoch: Epoch,
    /// The first slot that it governs.
    pub from: Slot,
}

mod sealed {
    pub trait Sealed {}
}

/// Messages that promise nothing about the sender's disk and leave at once.
pub trait SendNow: Into<Body> + sealed::Sealed {}

/// Messages that say "I will remember", and wait until that is durable.
///
/// The two kinds do not mix; sending a Promise early does not compile:
///
/// ```compile_fail,E0277
/// fn leaves_at_once(_: impl paxos_core::message::SendNow) {}
/// fn early(promise: paxos_core::message::Promise) {
///     leaves_at_once(promise);
/// }
/// ```
///
/// nor does a Prepare, or an Accepted:
///
/// ```compile_fail,E0277
/// fn leaves_at_once(_: impl paxos_core::message::SendNow) {}
/// fn early(prepare: paxos_core::message::Prepare) {
///     leaves_at_once(prepare);
/// }
/// ```
///
/// ```compile_fail,E0277
/// fn leaves_at_once(_: impl paxos_core::message::SendNow) {}
/// fn early(accepted: paxos_core::message::Accepted) {
///     leaves_at_once(accepted);
/// }
/// ```
pub trait SendAfterDurable: Into<Body> + sealed::Sealed {}

macro_rules! bodies {
    ($kind:ident: $($name:ident),*) => {$(
        impl From<$name> for Body {
            fn from(message: $name) -> Self {
                Self::$name(message)
            }
        }
        impl sealed::Sealed for $name {}
        impl $kind for $name {}
    )*};
}

bodies!(SendNow: Accept, Reject, Commit, Heartbeat, Fetch, Fetched, Refused);
bodies!(SendNow: Confirm, Confirmed, Transfer, Survey, Surveyed, Removed);
bodies!(SendAfterDurable: Prepare, Promise, Accepted);

/// No slot and no round beyond this is ever reached: whoever names one is broken, and counting on
/// from it would overflow.
const NUMBER_MAX: u64 = 1 << 62;

impl Body {
    /// Whether every slot and round in it can be counted on from.
    pub(crate) fn is_plausible(&self) -> bool {
        let slot = |slot: Slot| slot.number() <= NUMBER_MAX;
        let ballot = |ballot: Ballot| ballot.round() <= NUMBER_MAX;
        match self {
            Self::Prepare(prepare) => ballot(prepare.ballot) && slot(prepare.from),
            Self::Promise(promise) => {
                // A page that covers everything ends at the last slot there is.
                let end = promise.through == Slot::MAX || slot(promise.through);
                let entries = promise.entries.iter().all(|entry| slot(entry.slot));
                ballot(promise.ballot) && slot(promise.committed) && end && entries
            }
            Self::Accept(accept) => {
                ballot(accept.ballot) && slot(accept.committed) && slot(accept.first)
            }
            Self::Accepted(accepted) => ballot(accepted.ballot) && slot(accepted.last),
            Self::Reject(reject) => ballot(reject.refused) && ballot(reject.promised),
            Self::Commit(commit) => ballot(commit.ballot) && slot(commit.committed),
            Self::Heartbeat(heartbeat) => {
                heartbeat.promised.is_none_or(ballot)
                    && heartbeat.leader.is_none_or(ballot)
                    && slot(heartbeat.committed)
                    && slot(heartbeat.durable)
                    && slot(heartbeat.held)
            }
            Self::Fetch(fetch) => slot(fetch.from) && slot(fetch.through),
            Self::Fetched(fetched) => {
                slot(fetched.first) && slot(fetched.committed) && slot(fetched.trimmed)
            }
            Self::Confirm(confirm) => ballot(confirm.ballot),
            Self::Confirmed(confirmed) => ballot(confirmed.ballot),
            Self::Transfer(transfer) => ballot(transfer.ballot) && slot(transfer.committed),
            Self::Refused(_) | Self::Survey(_) => true,
            Self::Surveyed(surveyed) => {
                slot(surveyed.highest) && surveyed.committed <= surveyed.highest
            }
            Self::Removed(removed) => slot(removed.from),
        }
    }

    /// The name of the message, as in protocol.md.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Prepare(_) => "Prepare",
            Self::Promise(_) => "Promise",
            Self::Accept(_) => "Accept",
            Self::Accepted(_) => "Accepted",
            Self::Reject(_) => "Reject",
            Self::Commit(_) => "Commit",
            Self::Heartbeat(_) => "Heartbeat",
            Self::Fetch(_) => "Fetch",
            Self::Fetched(_) => "Fetched",
            Self::Refused(_) => "Refused",
            Self::Confirm(_) => "Confirm",
            Self::Confirmed(_) => "Confirmed",
            Self::Transfer(_) => "Transfer",
            Self::Survey(_) => "Survey",
            Self::Surveyed(_) => "Surveyed",
            Self::Removed(_) => "Removed",
        }
    }
}
