//! What the monitor says of a step that the protocol does not allow.
//!
//! Owns the names: the rules of docs/protocol.md and the invariants that they uphold. Invariant: a
//! verdict names one of each.

use std::fmt;

/// A rule of docs/protocol.md, by its id there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(
    missing_docs,
    reason = "each is the id of a rule, and its words stand in docs/protocol.md"
)]
pub enum Rule {
    V1,
    V2,
    Q1,
    Q2,
    Q3,
    D1,
    D2,
    D3,
    D4,
    D5,
    D6,
    A1,
    A2,
    A3,
    A4,
    A5,
    A6,
    P1,
    P2,
    P3,
    P4,
    P5,
    P6,
    P7,
    P8,
    L1,
    L2,
    L3,
    L4,
    L5,
    E8,
    R3,
    R11,
    N1,
    N2,
    N4,
    /// §15: one value for each slot is chosen, for ever.
    Agreement,
    /// §5: who sends which message to whom.
    Messages,
    /// §11: lives succeed each other, and a directory that was wiped does not vote.
    Lives,
    /// §15: a chosen value is a proposed batch or a no-op.
    Validity,
    /// §15: state hashes agree at equal applied slots.
    Hashes,
}

/// The invariant that would break, or has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Invariant {
    /// Agreement: one value for each slot is chosen, for ever.
    S1,
    /// Validity: what is chosen was submitted, or is a no-op or a membership.
    S2,
    /// A ballot is used by one life of one replica.
    S3,
    /// One value for each ballot and slot, over all Accepts.
    S4,
    /// Promises never go back, on disk either.
    S5,
    /// No vote below the promise.
    S6,
    /// A vote is replaced by a higher one alone, and stays until its slot is committed.
    S7,
    /// A proposal is safe at its ballot.
    S8,
    /// Prepare quorums and accept quorums intersect.
    S9,
    /// What is chosen can be read back from the disks of those who say so.
    S10,
    /// What is visible is durable.
    S11,
    /// What is applied is a prefix of what is chosen, each slot once.
    S12,
    /// The committed prefix is chosen and never shrinks.
    S13,
    /// What was certainly refused or superseded is never applied, and nothing twice.
    S14,
    /// Reads are fresh.
    S15,
    /// A snapshot stands for the slots that were trimmed.
    S17,
    /// Messages of others than they claim, or of earlier lives, change nothing.
    S19,
    /// What the disk lost is admitted.
    S20,
    /// Windows hold.
    S22,
}

/// A step that the protocol does not allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The number of the event, from 1.
    pub event: u64,
    /// The rule that was broken.
    pub rule: Rule,
    /// The invariant that the rule upholds.
    pub invariant: Invariant,
    /// What happened, in a sentence.
    pub story: String,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { event, rule, invariant, story } = self;
        write!(f, "event {event} breaks {rule:?} ({invariant:?}): {story}")
    }
}

impl std::error::Error for Verdict {}

/// A verdict that does not know the number of its event yet.
#[derive(Debug)]
pub(super) struct Broken {
    pub(super) rule: Rule,
    pub(super) invariant: Invariant,
    pub(super) story: String,
}

/// Whether a step is allowed.
pub(super) type Judged = Result<(), Broken>;

/// A step is allowed only if `holds`; else it breaks `rule`.
pub(super) fn require(
    holds: bool,
    rule: Rule,
    invariant: Invariant,
    story: impl FnOnce() -> String,
) -> Judged {
    if holds { Ok(()) } else { Err(Broken { rule, invariant, story: story() }) }
}
