//! What a slot is filled with: a no-op, a membership, or a batch of commands (Request Batch).
//!
//! Owns: [`Value`], [`Batch`], [`Command`]. Knows no ballots and no protocol.
//! Invariants: a value is immutable and shared by reference; a batch is encoded at most once, and
//! the same bytes go to every peer and to the log; a decoded command's payload is a slice of the
//! received buffer.
//! Source: protocol.md §3.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::codec;
use crate::ids::{ClientId, LogClock, RequestNumber, SessionId, SessionTtl};
use crate::membership::Membership;

/// What a slot is filled with. Cheap to clone.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Value {
    /// Fills a slot that would otherwise stay empty. Changes nothing.
    Noop,
    /// A new membership; it governs the slots that are [`Membership::window`] or more later.
    Membership(Arc<Membership>),
    /// One or more commands.
    Batch(Batch),
}

impl Value {
    /// The bytes that this value takes in messages and in the log, without framing.
    pub fn encoded_len(&self) -> usize {
        match self {
            Self::Noop => 0,
            Self::Membership(membership) => codec::membership_len(membership),
            Self::Batch(batch) => batch.encoded_len(),
        }
    }
}

/// What a command is, and the version of that kind. Kinds unknown to a replica stop it with a
/// message: they were written by a newer release.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum CommandKind {
    /// Bytes for the state machine.
    Apply,
    /// Opens a session (protocol.md §13). Has no payload.
    OpenSession {
        /// Which; no other command ever opens it.
        session: SessionId,
        /// How long after its last use it expires.
        ttl: SessionTtl,
    },
    /// Bytes for the state machine, to be applied once, however often they are sent.
    InSession {
        /// In which session.
        session: SessionId,
        /// Which request of that session; the same each time it is sent.
        request: RequestNumber,
    },
    /// Ends a session: nothing more will be asked in it. Has no payload.
    CloseSession {
        /// Which.
        session: SessionId,
    },
    /// From here on the log may hold what only those can read who know this level. Has no payload.
    Raise {
        /// The level; one that is not above the present one changes nothing.
        level: Level,
    },
}

/// What must be known to read a log: one number for what the library puts into it and one for what the
/// state machine's commands are. Zero and zero is the first release of each.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Level {
    /// Of the library's own values and commands.
    pub library: u16,
    /// Of the state machine's commands.
    pub machine: u32,
}

impl Level {
    /// What the library of this release knows, with a state machine that knows this.
    pub const fn known(machine: u32) -> Self {
        Self { library: 0, machine }
    }

    /// Whether who knows this level knows the other one as well.
    pub fn covers(self, other: Self) -> bool {
        self.library >= other.library && self.machine >= other.machine
    }

    /// The lowest level that covers both.
    #[must_use]
    pub fn join(self, other: Self) -> Self {
        Self { library: self.library.max(other.library), machine: self.machine.max(other.machine) }
    }
}

impl core::fmt::Display for Level {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} of the library and {} of the state machine", self.library, self.machine)
    }
}

impl CommandKind {
    /// The bytes that a command of this kind takes between its envelope and its payload.
    pub const fn encoded_len(self) -> usize {
        match self {
            Self::Apply => 0,
            Self::OpenSession { .. } => codec::OPEN_SESSION_LEN,
            Self::InSession { .. } => codec::IN_SESSION_LEN,
            Self::CloseSession { .. } => codec::CLOSE_SESSION_LEN,
            Self::Raise { .. } => codec::RAISE_LEN,
        }
    }
}

/// A client's command in its envelope.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Command {
    /// What it is.
    pub kind: CommandKind,
    /// Who asked for it.
    pub client: ClientId,
    /// Which of that client's requests it is: a new number each time that it is sent.
    pub request: RequestNumber,
    /// In a session, its requests below this one are never sent again; zero elsewhere.
    pub acknowledged_below: RequestNumber,
    /// What the state machine is given. Opaque to the protocol.
    pub payload: Bytes,
}

impl Command {
    /// A command for the state machine.
    pub fn apply(client: ClientId, request: RequestNumber, payload: Bytes) -> Self {
        Self {
            kind: CommandKind::Apply,
            client,
            request,
            acknowledged_below: RequestNumber::default(),
            payload,
        }
    }

    /// The bytes that this command takes in an encoded batch.
    pub fn encoded_len(&self) -> usize {
        codec::COMMAND_HEADER_LEN + self.kind.encoded_len() + self.payload.len()
    }
}

/// One or more commands that share a slot, with the leader's clock. Cheap to clone.
#[derive(Clone, Eq, Hash, PartialEq)]
pub struct Batch(Arc<BatchBody>);

#[derive(Eq, Hash, PartialEq)]
struct BatchBody {
    clock: LogClock,
    commands: Vec<Command>,
    encoded_len: usize,
    encoded: Memo,
}

/// The encoding, once somebody asked for it. A function of the other fields, so it takes no part
/// in equality.
#[derive(Default)]
struct Memo(OnceLock<Bytes>);

impl PartialEq for Memo {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Memo {}

impl Hash for Memo {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

impl Batch {
    /// A batch of `commands`, stamped with the leader's clock.
    ///
    /// # Panics
    ///
    /// If there is no command: a slot without commands is a no-op.
    pub fn new(clock: LogClock, commands: Vec<Command>) -> Self {
        assert!(!commands.is_empty(), "a batch holds at least one command");
        let encoded_len =
            codec::BATCH_HEADER_LEN + commands.iter().map(Command::encoded_len).sum::<usize>();
        Self(Arc::new(BatchBody { clock, commands, encoded_len, encoded: Memo::default() }))
    }

    /// A batch just decoded from `encoded`, which is kept to be written on as it is.
    pub(crate) fn decoded(clock: LogClock, commands: Vec<Command>, encoded: Bytes) -> Self {
        let encoded_len = encoded.len();
        let memo = Memo(OnceLock::from(encoded));
        Self(Arc::new(BatchBody { clock, commands, encoded_len, encoded: memo }))
    }

    /// The leader's clock when the batch was made. See [`LogClock`] for what may be built on it.
    pub fn clock(&self) -> LogClock {
        self.0.clock
    }

    /// The commands in the order in which they are applied. Never empty.
    pub fn commands(&self) -> &[Command] {
        &self.0.commands
    }

    /// The length of [`Batch::encoded`], known without encoding.
    pub fn encoded_len(&self) -> usize {
        self.0.encoded_len
    }

    /// The bytes of the batch, made at the first call and shared from then on.
    pub fn encoded(&self) -> &Bytes {
        self.0.encoded.0.get_or_init(|| codec::encode_batch(self.clock(), self.commands()))
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("clock", &self.0.clock)
            .field("commands", &self.0.commands)
            .finish()
    }
}
