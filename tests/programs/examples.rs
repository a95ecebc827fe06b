//! Where the programs are that a test starts: the examples, built first if they are not.
//!
//! Cargo builds examples before it runs all tests, but not before it runs one target alone, and an
//! old program must not pass for the present one.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Builds examples in the profile of the running test, and says where they are.
pub(crate) fn built(names: &[&str]) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let profile = tests.parent().and_then(Path::parent).unwrap();
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--manifest-path"]);
    cargo.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
    cargo.arg("--target-dir").arg(profile.parent().unwrap());
    for name in names {
        cargo.args(["--example", name]);
    }
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    // What Cargo tells a test of its package, build scripts take for a change of theirs.
    for (name, _) in std::env::vars()
        .filter(|(name, _)| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"))
    {
        cargo.env_remove(name);
    }
    assert!(cargo.status().unwrap().success(), "the examples do not build: {names:?}");
    profile.join("examples")
}
