//! Where an admin endpoint is, what it bears, and why there is none.
//!
//! Owns: [`AdminOptions`] and [`AdminError`].

use core::fmt;
use core::time::Duration;
use std::io;
use std::path::PathBuf;

use crate::admin::socket::PATH_BYTES_MAX;

/// Where the endpoint is, and its bounds. Start from [`AdminOptions::socket`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AdminOptions {
    /// The path of the socket, 103 bytes at most. Its directory must exist. A file that is there is
    /// replaced if it is a socket that nobody listens on.
    pub socket: PathBuf,
    /// How many connections there may be at once; one more is told that it is too many. Default 16.
    pub connections_max: usize,
    /// How long a connection may be silent before it is closed. Default 60 s.
    pub idle_timeout: Duration,
    /// How long an answer may be left untaken before its connection is closed. Default 5 s.
    pub write_timeout: Duration,
}

impl AdminOptions {
    /// The defaults, with a socket at this path.
    pub fn socket(path: impl Into<PathBuf>) -> Self {
        Self {
            socket: path.into(),
            connections_max: 16,
            idle_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(5),
        }
    }

    pub(crate) fn check(&self) -> Result<(), AdminError> {
        let rules = [
            (self.connections_max > 0, "connections_max"),
            (!self.idle_timeout.is_zero(), "idle_timeout"),
            (!self.write_timeout.is_zero(), "write_timeout"),
        ];
        match rules.into_iter().find(|(holds, _)| !holds) {
            Some((_, field)) => Err(AdminError::Options(field)),
            None => Ok(()),
        }
    }
}

/// Why there is no admin endpoint.
#[derive(Debug)]
#[non_exhaustive]
pub enum AdminError {
    /// A bound of [`AdminOptions`] is zero.
    Options(&'static str),
    /// The path is longer than a socket's may be.
    PathTooLong {
        /// The path.
        path: PathBuf,
    },
    /// Somebody listens there.
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// Something else is there, and was not touched.
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The system refused.
    Socket {
        /// The path.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

impl fmt::Display for AdminError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Options(field) => write!(f, "admin option {field} must be above zero"),
            Self::PathTooLong { path } => write!(
                f,
                "{} is too long for a socket, with what it is called while it is made: up to \
                 {PATH_BYTES_MAX} bytes; choose a shorter path",
                path.display()
            ),
            Self::InUse { path } => {
                write!(
                    f,
                    "somebody listens on {} already: stop it, or choose another path",
                    path.display()
                )
            }
            Self::NotASocket { path } => write!(
                f,
                "{} is there and is no socket: move it away, or choose another path",
                path.display()
            ),
            Self::Socket { path, error } => {
                write!(f, "cannot listen on {}: {error}", path.display())
            }
        }
    }
}

impl std::error::Error for AdminError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Socket { error, .. } => Some(error),
            Self::Options(_)
            | Self::PathTooLong { .. }
            | Self::InUse { .. }
            | Self::NotASocket { .. } => None,
        }
    }
}
