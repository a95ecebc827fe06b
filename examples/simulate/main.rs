//! Runs simulated clusters from seeds, and prints every seed that breaks an invariant.
//!
//! ```text
//! cargo run --release --example simulate -- --seeds 1000
//! cargo run --release --example simulate -- --seed 42 --trace
//! ```
//!
//! Exits with 1 if a seed failed, or if many seeds never showed a fault that they must show; with
//! 2 if the arguments make no sense.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program talks to its user")]

mod arguments;
mod depth;
mod many;
mod replay;
mod store;

use std::env;
use std::process::ExitCode;

use arguments::{USAGE, parse};
use many::run_many;
use replay::replay;

fn main() -> ExitCode {
    match parse(env::args().skip(1)) {
        Ok(Some(arguments)) if arguments.replay => replay(&arguments),
        Ok(Some(arguments)) => run_many(&arguments),
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
