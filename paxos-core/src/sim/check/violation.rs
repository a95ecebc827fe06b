//! The names of what must always hold, and the report that one did not.
//!
//! Owns: [`Invariant`] and [`Violation`].

use core::fmt;

/// What must hold after every event of every simulation.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Invariant {
    /// One value is chosen per slot, for ever.
    Agreement,
    /// Only what a client asked for, a no-op or a membership stands in the log, and only where it
    /// was proposed.
    Validity,
    /// All Accepts of one ballot for one slot carry the same value.
    OneValuePerBallot,
    /// A ballot belongs to one life of the replica that it names.
    BallotUnique,
    /// An acceptor's promise never goes back, on disk either.
    PromiseMonotonic,
    /// No vote below the promise.
    VoteAtPromise,
    /// What a message says of the sender's disk is on it.
    DurableBeforeSent,
    /// A promise tells every vote below its ballot in the slots that it covers.
    PromiseComplete,
    /// An Accept carries what some prepare quorum permits.
    SafeAt,
    /// A committed prefix holds chosen slots only and never shrinks within a life.
    CommittedPrefix,
    /// Slots are applied in order, each once in a life, and only chosen values.
    AppliedInOrder,
    /// Replicas that have applied the same slots have the same state.
    EqualState,
    /// At most the window's slots and bytes are in flight.
    WindowBound,
    /// What was certainly rejected never appears in the log.
    RejectedStaysOut,
    /// A command is in at most one slot.
    AppliedOnce,
    /// A new batch is stamped no earlier than what was chosen before it.
    ClockMonotonic,
    /// Storage gives back what it proved, and nothing that was never written.
    RecoveryExact,
    /// What was chosen can be learned from any prepare quorum of those that may still answer, from
    /// what is on their disks (S10).
    ChosenStable,
    /// What is damaged on a disk is neither used nor dropped: the storage fails and says so, and
    /// fails for no other reason than a fault (S20).
    DamageNamed,
    /// What is trimmed is in a durable snapshot of the same replica, images of one slot are equal, and
    /// nobody starts without what it trimmed.
    SnapshotFirst,
    /// A replica halts only on evidence that the simulation made.
    NoHalt,
    /// No assertion of the code fails.
    NoPanic,
    /// Every step is one of the abstract protocol, as the refinement monitor knows it.
    Refinement,
    /// A read point is at or above all that anybody knew to be committed when the read was asked.
    ReadsFresh,
    /// While a leader holds a lease by its clock, nothing is chosen above its ballot.
    LeasesDisjoint,
    /// What clients were told is true of one history.
    Answers,
    /// After the faults the cluster makes progress in time.
    Progress,
    /// An idle cluster holds nothing in flight.
    EmptyWhenIdle,
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Agreement => "agreement: one value is chosen per slot, for ever",
            Self::Validity => "validity: only proposed values stand in the log",
            Self::OneValuePerBallot => "one value per ballot and slot",
            Self::BallotUnique => "no ballot is used twice",
            Self::PromiseMonotonic => "promises never go back",
            Self::VoteAtPromise => "no vote below the promise",
            Self::DurableBeforeSent => "nothing is sent that is not durable",
            Self::PromiseComplete => "a promise tells every vote",
            Self::SafeAt => "an Accept carries what a prepare quorum permits",
            Self::CommittedPrefix => "the committed prefix is chosen and never shrinks",
            Self::AppliedInOrder => "chosen values are applied in order, each once in a life",
            Self::EqualState => "equal state at equal applied slots",
            Self::WindowBound => "the window in flight is bounded",
            Self::RejectedStaysOut => "a definite rejection never appears in the log",
            Self::AppliedOnce => "a command is in at most one slot",
            Self::ClockMonotonic => {
                "a new batch is stamped no earlier than what was chosen before it"
            }
            Self::RecoveryExact => "recovery gives back what was proved",
            Self::ChosenStable => "what is chosen stays on enough disks",
            Self::DamageNamed => "damage is named, and never used or dropped",
            Self::SnapshotFirst => "a durable snapshot before a trim, and one image for a slot",
            Self::ReadsFresh => "reads are fresh",
            Self::LeasesDisjoint => "leases never overlap",
            Self::NoHalt => "no replica halts without a cause",
            Self::NoPanic => "no assertion fails",
            Self::Refinement => "every step is one that the protocol allows",
            Self::Answers => "what clients were told is true of one history",
            Self::Progress => "progress after the faults",
            Self::EmptyWhenIdle => "nothing in flight when idle",
        })
    }
}

/// An invariant that did not hold.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// What was seen.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "broken: {} ({})", self.invariant, self.detail)
    }
}

impl std::error::Error for Violation {}
