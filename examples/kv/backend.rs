//! What the server of the Redis protocol needs from the replicated map.
//!
//! Owns: [`Backend`], the seam between connections and the node, and [`Failure`], the documented
//! first words of replies to commands that were not carried out for certain.

use std::fmt;
use std::future::Future;

use serde::{Deserialize, Serialize};

use crate::command::InfoSection;
use crate::store::{Op, Outcome, Read};

/// What became of a group of operations: the outcomes of the first of them, and those left over
/// because the outcomes grew too large for one reply. At least one outcome if there was an
/// operation.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Executed<T> {
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) rest: Vec<T>,
}

/// Why operations have no outcome. All but `Unknown` say that they were certainly not applied, and
/// never will be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Failure {
    /// `BUSY`: too much is under way, or the disk is full. Try again later.
    Busy(String),
    /// `NOLEADER`: no replica leads. Try again later, or elsewhere.
    NoLeader(String),
    /// `TOOLARGE`: over a limit. Will never work.
    TooLarge(String),
    /// `UNKNOWN`: may have been applied, or may still be.
    Unknown(String),
    /// `ERR`: a fault of this program.
    Fault(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy(why) => write!(f, "BUSY {why}; nothing was done"),
            Self::NoLeader(why) => write!(f, "NOLEADER {why}; nothing was done"),
            Self::TooLarge(why) => write!(f, "TOOLARGE {why}; nothing was done"),
            Self::Unknown(why) => write!(f, "UNKNOWN {why}; it may be applied, now or later"),
            Self::Fault(why) => write!(f, "ERR {why}; nothing was done"),
        }
    }
}

/// The replicated map, as a connection uses it.
pub(crate) trait Backend: Clone + Send + Sync + 'static {
    /// Executes operations in order, with nothing between them.
    fn execute(&self, ops: Vec<Op>) -> impl Future<Output = Result<Executed<Op>, Failure>> + Send;

    /// Executes operations that change nothing, on a state that includes every write acknowledged
    /// before the call.
    fn read(
        &self,
        reads: Vec<Read>,
    ) -> impl Future<Output = Result<Executed<Read>, Failure>> + Send;

    /// What this process knows of itself.
    fn info(&self, section: InfoSection) -> String;
}
