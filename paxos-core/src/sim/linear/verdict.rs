//! What the checker says, in words that lead to the mistake.
//!
//! Owns the verdict and its text. Invariant: what is not [`Verdict::Linearizable`] is a failure.

use std::fmt;

use super::OperationId;

/// The result of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// An order explains the history.
    Linearizable {
        /// The operations in that order, object by object. Those whose outcome is pending and that
        /// are left out need not have taken effect.
        order: Vec<OperationId>,
    },
    /// No order explains the history of one object.
    Violation(Box<Witness>),
    /// The budget ran out first: nothing was shown.
    Undecided {
        /// The object at which it ran out.
        key: String,
        /// The steps that were taken, over all objects.
        steps: u64,
    },
}

impl Verdict {
    /// The order that explains the history; what was not decided is a failure too.
    pub fn into_result(self) -> Result<Vec<OperationId>, Failure> {
        match self {
            Self::Linearizable { order } => Ok(order),
            Self::Violation(witness) => Err(Failure::Violation(witness)),
            Self::Undecided { key, steps } => Err(Failure::Undecided { key, steps }),
        }
    }

    /// True if an order was found.
    pub fn is_linearizable(&self) -> bool {
        matches!(self, Self::Linearizable { .. })
    }
}

/// Why a history does not count as linearizable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No order explains it.
    Violation(Box<Witness>),
    /// The budget ran out.
    Undecided {
        /// The object at which it ran out.
        key: String,
        /// The steps that were taken, over all objects.
        steps: u64,
    },
}

/// The longest prefix that an order explains, and what cannot follow it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witness {
    /// The object.
    pub key: String,
    /// The operations of the longest explanation that was found, in its order.
    pub prefix: Vec<OperationId>,
    /// The state of the object after that prefix.
    pub state: String,
    /// The operation that has to come next, because every other one that could was called after its
    /// answer, and cannot.
    pub stuck: OperationId,
    /// Every operation that could come next in real time, and why it does not.
    pub blocked: Vec<Blocked>,
    /// The lines of the last operations of the prefix, of those that could follow, and of what they
    /// answered; [`fmt::Display`] prints them.
    pub lines: Vec<String>,
}

/// An operation that could come next in real time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// The operation.
    pub operation: OperationId,
    /// True if the specification refuses its answer in this state. Else it is allowed here, and
    /// every continuation fails later, with a prefix that is no longer.
    pub refused: bool,
}

impl fmt::Display for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "not linearizable: object {}", self.key)?;
        writeln!(f, "the longest explanation has {} operations", self.prefix.len())?;
        for line in &self.lines {
            writeln!(f, "  {line}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Violation(witness) => witness.fmt(f),
            Self::Undecided { key, steps } => {
                write!(f, "undecided after {steps} steps: object {key}; nothing was shown")
            }
        }
    }
}

impl std::error::Error for Failure {}
