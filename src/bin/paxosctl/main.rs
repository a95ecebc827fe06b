//! The operators' program: asks running nodes, and has them do things, over their admin sockets.
//!
//! Owns: the program's course from its arguments to its exit code. What a verb is called and takes is in
//! `verbs`, what it does in a module of its own. Every fault is one line on standard error.

mod ask;
mod change;
mod cli;
mod directory;
mod export;
mod log;
mod members;
mod metrics;
mod nodes;
mod outcome;
mod recover;
mod snapshot;
mod status;
mod table;
mod transfer;
mod trim;
mod verbs;
mod watch;

use std::process::ExitCode;

use crate::cli::Invocation;
use crate::outcome::{Failure, complain, say};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            complain(failure.text());
            ExitCode::from(failure.exit_code())
        }
    }
}

fn run() -> Result<(), Failure> {
    match cli::parse(std::env::args().skip(1)).map_err(Failure::Usage)? {
        Invocation::Help => {
            say(cli::help().trim_end());
            Ok(())
        }
        Invocation::HelpWith(verb) => {
            say(cli::help_with(verb).trim_end());
            Ok(())
        }
        Invocation::Version => {
            say(concat!("paxosctl ", env!("CARGO_PKG_VERSION")));
            Ok(())
        }
        Invocation::Do(verb, order) => (verb.run)(&order),
    }
}
