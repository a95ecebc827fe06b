//! The kinds of messages, to count and to aim at.
//!
//! Owns: [`Kind`], the name of a message without its contents.

use core::fmt;

use crate::message::Body;

/// What a message is, without its contents.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(missing_docs, reason = "each is the message of the same name")]
pub enum Kind {
    Prepare,
    Promise,
    Accept,
    Accepted,
    Reject,
    Commit,
    Heartbeat,
    Fetch,
    Fetched,
    Refused,
    Confirm,
    Confirmed,
    Transfer,
    Survey,
    Surveyed,
    Removed,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 16] = [
        Self::Prepare,
        Self::Promise,
        Self::Accept,
        Self::Accepted,
        Self::Reject,
        Self::Commit,
        Self::Heartbeat,
        Self::Fetch,
        Self::Fetched,
        Self::Refused,
        Self::Confirm,
        Self::Confirmed,
        Self::Transfer,
        Self::Survey,
        Self::Surveyed,
        Self::Removed,
    ];

    /// The kind of this message.
    pub const fn of(body: &Body) -> Self {
        match body {
            Body::Prepare(_) => Self::Prepare,
            Body::Promise(_) => Self::Promise,
            Body::Accept(_) => Self::Accept,
            Body::Accepted(_) => Self::Accepted,
            Body::Reject(_) => Self::Reject,
            Body::Commit(_) => Self::Commit,
            Body::Heartbeat(_) => Self::Heartbeat,
            Body::Fetch(_) => Self::Fetch,
            Body::Fetched(_) => Self::Fetched,
            Body::Refused(_) => Self::Refused,
            Body::Confirm(_) => Self::Confirm,
            Body::Confirmed(_) => Self::Confirmed,
            Body::Transfer(_) => Self::Transfer,
            Body::Survey(_) => Self::Survey,
            Body::Surveyed(_) => Self::Surveyed,
            Body::Removed(_) => Self::Removed,
        }
    }

    /// Its place in [`Kind::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
