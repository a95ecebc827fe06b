//! Runs simulated clusters from seeds, and prints every seed that breaks an invariant.
//!
//! ```text
//! cargo run --release --example simulate -- --seeds 1000
//! cargo run --release --example simulate -- --seed 42 --trace
//! cargo run --release --example simulate -- --presets
//! ```
//!
//! Exits with 1 if a seed failed, or if many seeds never showed a fault that they must show; with
//! 2 if the arguments make no sense.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program talks to its user")]

mod arguments;
mod depth;
mod ledger;
mod many;
mod presets;
mod replay;
mod store;

use std::env;
use std::process::ExitCode;

use arguments::{USAGE, parse};
use ledger::run_blocks;
use many::run_many;
use presets::run_presets;
use replay::replay;

fn main() -> ExitCode {
    match parse(env::args().skip(1)) {
        Ok(Some(arguments)) if arguments.replay => replay(&arguments),
        Ok(Some(arguments)) if !arguments.presets.is_empty() => run_presets(&arguments),
        Ok(Some(arguments)) => match &arguments.ledger {
            None => run_many(&arguments),
            Some(path) => run_blocks(path, &arguments).unwrap_or_else(|error| {
                eprintln!("the ledger {}: {error}", path.display());
                ExitCode::FAILURE
            }),
        },
        Ok(None) => {
            println!("{USAGE}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}
