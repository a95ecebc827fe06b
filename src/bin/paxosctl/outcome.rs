//! How a run ends, and how it is told.
//!
//! Owns: [`Failure`] and the exit codes, which scripts rely on; standard output and standard error.

use std::fmt;
use std::io::{self, Write as _};

/// Why nothing was done, or not all.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It was refused, or failed, for this reason.
    Failed(String),
    /// The command line was not understood.
    Usage(String),
    /// Nobody answers.
    Silence(String),
}

impl Failure {
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::Silence(_) => 3,
        }
    }

    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Failed(text) | Self::Usage(text) | Self::Silence(text) => text,
        }
    }
}

/// Prints a line to whoever still reads.
pub(crate) fn say(text: impl fmt::Display) {
    let _written = say_or_fail(text);
}

/// Prints a line; an error means that nobody reads any more.
pub(crate) fn say_or_fail(text: impl fmt::Display) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush())
}

/// Prints a line about a fault.
pub(crate) fn complain(text: &str) {
    let _written = writeln!(io::stderr().lock(), "paxosctl: {}", text.replace('\n', " "));
}
