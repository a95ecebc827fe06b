//! Programs that are run, with a bound on their time.
//!
//! Owns: [`run`]. A program that does not end is killed; what it said until then is kept.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How often a running program is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// What became of a program.
pub(crate) struct Ended {
    /// Whether it ended by itself and said that all is well; `None` if it was killed.
    pub(crate) success: Option<bool>,
    /// What it wrote, both streams together.
    pub(crate) said: String,
}

/// Runs a program to its end, or for as long as `limit`. Its words go through the file `log`, so
/// that no pipe can fill.
pub(crate) fn run(command: &mut Command, log: &Path, limit: Duration) -> Result<Ended, String> {
    let failed = |error| format!("cannot keep its words in {}: {error}", log.display());
    let out = File::create(log).map_err(failed)?;
    let both = out.try_clone().map_err(failed)?;
    let start = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(both)
        .spawn()
        .map_err(|error| format!("cannot run it: {error}"))?;
    let success = loop {
        match child.try_wait() {
            Ok(Some(status)) => break Some(status.success()),
            Ok(None) if start.elapsed() < limit => thread::sleep(LOOK),
            Ok(None) => {
                // It may have ended in this very moment, which is as good.
                let _ = child.kill();
                let _ = child.wait();
                break None;
            }
            Err(error) => return Err(format!("cannot wait for it: {error}")),
        }
    };
    let said = fs::read(log).map_err(|error| format!("cannot read {}: {error}", log.display()))?;
    Ok(Ended { success, said: String::from_utf8_lossy(&said).into_owned() })
}
