//! What a request says beside its bytes, and what became of a command.
//!
//! Owns: [`Consistency`] of a read, [`Delivery`] and [`SessionRequest`] of a command, and [`Applied`].
//! Knows no client and no node.

use core::time::Duration;

use paxos_core::ids::{RequestNumber, SessionId, Slot};

/// How new the state must be that answers a read.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Consistency {
    /// It includes every command that anybody was answered before the read was asked. Costs a round
    /// trip from the leader to a quorum, and one from this node to the leader where that is another.
    #[default]
    Linearizable,
    /// The same, without a leader: this node asks the voters itself, until they are a prepare quorum, for
    /// the highest slot that each has accepted in, and answers once it has applied that slot. For when
    /// nobody leads, or the leader is far and a quorum is not. Costs two messages for each voter, for all
    /// reads that wait together. The slot may hold what was proposed and is not chosen: such a read waits
    /// until a leader settles it. Ends as [`crate::Rejection::NoQuorum`] or [`crate::Rejection::Unsettled`] within twice
    /// [`paxos_core::config::Config::quorum_read_timeout`], if its own time is not over before.
    Quorum,
    /// It has applied this slot. Costs nothing but the wait until this node has it.
    AtLeast(Slot),
    /// It includes every command that anybody was answered so long before the read was asked, or
    /// earlier. Costs what a linearizable read costs once in so long, and nothing otherwise. The
    /// bound is measured by this node's monotonic clock: where that stands still, as it may while a
    /// machine is suspended, so does the bound.
    Stale {
        /// How long before.
        lag_max: Duration,
    },
}

/// How often a command may be sent.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Delivery {
    /// In the node's session, in which a command is applied once however often it is sent: it is sent
    /// again by itself where the leader or the link to it was lost, until its time is over. All clients
    /// of a node share the session; the first command opens it, which takes one command more.
    #[default]
    ExactlyOnce,
    /// Once, without a session: nothing is remembered of it. For commands that may be applied twice
    /// as well, such as those that set a value: the program sends them again, or not. Saves 24
    /// bytes and the table's work.
    AtMostOnce,
}

/// A request's name, in a session that a program opened by itself.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct SessionRequest {
    /// The session.
    pub session: SessionId,
    /// Which request of it; the same each time it is sent, and of no other request.
    pub request: RequestNumber,
    /// Requests below this one will never be sent again, and what is remembered of them may go.
    pub acknowledged_below: RequestNumber,
}

/// What became of a command that is applied.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Applied<R> {
    /// Every state that has applied this slot includes the command: a read on any node with
    /// [`Consistency::AtLeast`] this slot sees it.
    pub slot: Slot,
    /// What the state machine replied.
    pub reply: R,
}
