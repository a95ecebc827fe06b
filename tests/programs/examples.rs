//! The programs that a test starts: where they are, and waiting for what they do.
//!
//! Cargo builds examples before it runs all tests, but not before it runs one target alone, and an
//! old program must not pass for the present one.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take before it counts as never. The machine may be busy with other tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// How often a condition is looked at.
const GLANCE: Duration = Duration::from_millis(10);

/// Waits until something is there.
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "never happened: {what}");
        thread::sleep(GLANCE);
    }
}

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
