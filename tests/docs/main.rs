//! The documents say what the code does: their tables, names and code blocks are checked here,
//! and so are the rules of style that no lint covers.

#![allow(
    clippy::unwrap_used,
    reason = "a failed unwrap is a failed test, and its message says where"
)]

mod architecture;
mod patterns;
mod readme;
mod references;
mod source;
mod tidy;
mod verification;
