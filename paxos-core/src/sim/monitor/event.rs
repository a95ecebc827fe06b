//! The monitor's vocabulary: what can be seen of a run from outside the replicas.
//!
//! Owns the events and the plain types that they are made of. It shares no type with the replicas,
//! so that a mistake in one of theirs is not a mistake here too. Invariant: an event says what
//! happened, never what it was meant for.

use std::fmt;

/// A replica, numbered from 0 to 63.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Acceptor(pub u8);

/// One life of a replica's directory (docs/protocol.md §11).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Life {
    /// The half of the nonce that stays with the directory.
    pub directory: u64,
    /// The boot counter.
    pub boot: u64,
    /// The half of the nonce that is drawn anew: it tells two starts of copies apart.
    pub start: u64,
}

impl Life {
    /// Whether this life is a later one of the same directory.
    pub fn succeeds(self, other: Self) -> bool {
        self.directory == other.directory && self.boot > other.boot
    }
}

/// A ballot, compared by round and then by leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ballot {
    /// The round.
    pub round: u64,
    /// Who leads it.
    pub leader: Acceptor,
}

impl Ballot {
    pub(super) const MIN: Self = Self { round: 0, leader: Acceptor(0) };
    pub(super) const MAX: Self = Self { round: u64::MAX, leader: Acceptor(u8::MAX) };
}

/// What a value is, as far as the protocol cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing.
    Noop,
    /// A membership.
    Membership,
    /// Commands, with the clock of the leader that stamped them.
    Batch {
        /// The clock, in whatever unit the leader uses.
        clock: u64,
    },
}

/// A value, reduced to a fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value {
    /// Tells the content of two values apart. For a batch it covers the commands without the clock,
    /// so that it equals that of [`Event::Submitted`].
    pub digest: u128,
    /// What it is.
    pub kind: Kind,
}

/// What a promise, or a disk, says of one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// The last vote.
    Accepted {
        /// Its ballot.
        ballot: Ballot,
        /// Its value.
        value: Value,
    },
    /// The chosen value.
    Chosen(Value),
    /// A damaged record: there may have been a vote up to this ballot.
    Unknown {
        /// The highest ballot that the lost vote can have had.
        up_to: Ballot,
    },
}

/// What is said of one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The slot.
    pub slot: u64,
    /// What is said of it.
    pub report: Report,
}

/// A message (docs/protocol.md §5), without what the monitor has no use for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// A candidate asks for promises for every slot at or above `from`.
    Prepare {
        /// The ballot to promise.
        ballot: Ballot,
        /// The first slot asked for.
        from: u64,
    },
    /// A page of a promise.
    Promise {
        /// The ballot that is promised.
        ballot: Ballot,
        /// The promiser's committed prefix.
        committed: u64,
        /// The first slot that the page covers.
        from: u64,
        /// The last slot that the page covers; `None` if it covers all that follow.
        through: Option<u64>,
        /// What it says, in ascending order of slots.
        entries: &'a [Entry],
    },
    /// A leader proposes values in consecutive slots.
    Accept {
        /// The leader's ballot.
        ballot: Ballot,
        /// The leader's committed prefix.
        committed: u64,
        /// The slot of the first value.
        first: u64,
        /// The values.
        values: &'a [Value],
    },
    /// An acceptor voted in these slots.
    Accepted {
        /// The ballot of the votes.
        ballot: Ballot,
        /// The first slot.
        first: u64,
        /// The last slot.
        last: u64,
    },
    /// A ballot is too low.
    Reject {
        /// The ballot that is refused.
        refused: Ballot,
        /// What was promised.
        promised: Ballot,
    },
    /// A watermark of the leader of `ballot`.
    Commit {
        /// The leader's ballot.
        ballot: Ballot,
        /// The leader's committed prefix.
        committed: u64,
    },
    /// A leader asks whether it still leads.
    Confirm {
        /// Its ballot.
        ballot: Ballot,
    },
    /// The sender has promised nothing above the ballot.
    Confirmed {
        /// The ballot.
        ballot: Ballot,
    },
    /// A leader makes way for the receiver; a watermark too.
    Transfer {
        /// The leader's ballot.
        ballot: Ballot,
        /// The leader's committed prefix.
        committed: u64,
    },
    /// A replica asks how far the log may reach.
    Survey,
    /// The sender has accepted in no slot above `highest`.
    Surveyed {
        /// The sender's committed prefix.
        committed: u64,
        /// The highest slot that it has accepted in, or knows to be chosen.
        highest: u64,
    },
    /// A heartbeat. That of a leader is a watermark too.
    Heartbeat {
        /// The sender's committed prefix.
        committed: u64,
        /// The ballot of the leader that the sender is or follows.
        leader: Option<Ballot>,
    },
    /// A learner asks for chosen values.
    Fetch,
    /// Chosen values of consecutive slots.
    Fetched {
        /// The slot of the first value.
        first: u64,
        /// The values.
        values: &'a [Value],
        /// The sender's committed prefix.
        committed: u64,
    },
    /// The receiver's life is not one that the sender talks to.
    Refused {
        /// The life of the message that is refused.
        refused: Life,
        /// The life that is remembered.
        remembered: Life,
    },
    /// The receiver is a member no longer.
    Removed,
}

/// What a replica read back from its disk at a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovered<'a> {
    /// The promise, if there was one.
    pub promised: Option<Ballot>,
    /// The committed prefix that was recorded.
    pub committed: u64,
    /// What the disk says of the slots above it, in ascending order of slots.
    pub entries: &'a [Entry],
    /// The newest life of each peer.
    pub lives: &'a [(Acceptor, Life)],
    /// The slot that the state machine begins after.
    pub applied: u64,
}

/// Something that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A replica starts. Nothing of an earlier life but its disk is left.
    Started {
        /// The replica.
        at: Acceptor,
        /// Its life.
        life: Life,
        /// What it read back.
        recovered: Recovered<'a>,
    },
    /// A replica stops, in order or not. What was not durable may be lost.
    Stopped {
        /// The replica.
        at: Acceptor,
    },
    /// An operator put another directory, empty or an old copy, in the place of a replica's. What it
    /// holds is nobody's memory.
    Replaced {
        /// The replica, which is down.
        at: Acceptor,
    },
    /// A batch was handed to some replica to be proposed.
    Submitted {
        /// The digest of its commands.
        batch: u128,
    },
    /// The disk attested a promise.
    PromiseDurable {
        /// Whose disk.
        at: Acceptor,
        /// The ballot that is promised.
        ballot: Ballot,
    },
    /// The disk attested a vote.
    VoteDurable {
        /// Whose disk.
        at: Acceptor,
        /// The slot.
        slot: u64,
        /// The ballot.
        ballot: Ballot,
        /// The value.
        value: Value,
    },
    /// The disk attested a value that is recorded as chosen.
    ChosenDurable {
        /// Whose disk.
        at: Acceptor,
        /// The slot.
        slot: u64,
        /// The value.
        value: Value,
    },
    /// The disk attested a committed prefix.
    PrefixDurable {
        /// Whose disk.
        at: Acceptor,
        /// The prefix.
        committed: u64,
    },
    /// The disk attested the newest life of a peer.
    LifeDurable {
        /// Whose disk.
        at: Acceptor,
        /// The peer.
        peer: Acceptor,
        /// Its life.
        life: Life,
    },
    /// A message left its sender.
    Left {
        /// The sender.
        from: Acceptor,
        /// The sender's life, as the message says.
        life: Life,
        /// The receiver; `None` if it goes to every peer.
        to: Option<Acceptor>,
        /// What it says.
        message: Message<'a>,
    },
    /// A message is handed to its receiver, which has not yet acted on it.
    Delivered {
        /// The sender.
        from: Acceptor,
        /// The sender's life, as the message says.
        life: Life,
        /// The receiver.
        to: Acceptor,
        /// What it says.
        message: Message<'a>,
    },
    /// A leader assigned a value to a slot: its own vote is on the way to its disk.
    Proposed {
        /// The ballot, which names the leader.
        ballot: Ballot,
        /// The slot.
        slot: u64,
        /// The value.
        value: Value,
    },
    /// A candidate became the leader of its ballot, and has proposed nothing yet.
    BecameLeader {
        /// The replica.
        at: Acceptor,
        /// Its ballot.
        ballot: Ballot,
    },
    /// A replica's committed prefix grew.
    Committed {
        /// The replica.
        at: Acceptor,
        /// The prefix.
        through: u64,
    },
    /// A value is handed to a replica's state machine.
    Applied {
        /// The replica.
        at: Acceptor,
        /// The slot.
        slot: u64,
        /// The value.
        value: Value,
        /// The hash of the state afterwards, if it is known.
        state: Option<u128>,
    },
    /// The disk attested a snapshot: a state that stands for every slot up to this one.
    SnapshotDurable {
        /// Whose disk.
        at: Acceptor,
        /// The last slot.
        slot: u64,
    },
    /// A replica and its state machine jumped to a snapshot.
    Installed {
        /// The replica.
        at: Acceptor,
        /// The last slot of the snapshot.
        slot: u64,
    },
    /// A replica dropped the values up to a slot from its log.
    Trimmed {
        /// The replica.
        at: Acceptor,
        /// The last slot that was dropped.
        through: u64,
    },
}

impl fmt::Display for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}", u16::from(self.0) + 1)
    }
}

impl fmt::Display for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.round, self.leader)
    }
}
