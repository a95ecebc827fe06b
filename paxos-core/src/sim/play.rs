//! Scenarios as text: commands, a line of dashes, and what came of them.
//!
//! Owns: [`play`], which plays a script and gives it back with the transcript of what happened. A
//! script that tells the truth comes back as it was. A block is one or more commands, a line
//! `----`, and the transcript up to the next empty line; lines that begin with `#` are kept.
//!
//! Replicas have ordered patience, so that of those who can lead the most impatient does: replica 1
//! unless the script says otherwise. Every message takes one millisecond, every write ten
//! microseconds. Heartbeats are not told, and no times: what follows from what is the story.
//!
//! ```
//! let script = "\
//! cluster 3
//! run until leader 1
//! hide Prepare Promise
//! propose 1 A
//! run 20ms
//! log
//! ";
//! let told = paxos_core::sim::play(script).unwrap();
//! assert!(told.ends_with("log: 1 = A\n"), "{told}");
//! ```
//!
//! Invariant: a broken invariant, or a thing awaited in vain, is an error and no transcript.
//! Source: etcd's datadriven tests of raft ("interaction tests"), which read like its paper.

mod acts;
mod awaits;
mod changes;
mod teller;

use core::fmt;

use super::cluster::Cluster;
use super::disk::{CrashStorage, SimDisk};
use crate::ids::ReplicaId;
use crate::port::Format;
use teller::Teller;

/// Makes the storage of a replica.
type Make<'a> = &'a mut dyn FnMut(Format) -> Box<dyn CrashStorage>;

/// Why a script cannot be played to its end.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PlayError {
    /// The line of the script, from 1.
    pub line: usize,
    /// What is wrong with it, or what happened.
    pub why: String,
}

impl fmt::Display for PlayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.why)
    }
}

impl std::error::Error for PlayError {}

/// Plays a script on simulated disks, and gives it back with what happened.
pub fn play(script: &str) -> Result<String, PlayError> {
    play_on(script, &mut |format| Box::new(SimDisk::new(format)))
}

/// Plays a script on storages that `make` formats.
pub fn play_on(script: &str, make: Make<'_>) -> Result<String, PlayError> {
    let mut player = Player { cluster: None, teller: Teller::default(), requests: 0 };
    let mut told = String::new();
    let mut transcript = String::new();
    let mut in_transcript = false;
    let mut in_commands = false;
    // One empty line more ends the last block.
    for (place, line) in script.lines().chain([""]).enumerate() {
        let line = line.trim_end();
        if line.is_empty() {
            if in_commands {
                told.push_str("----\n");
                told.push_str(if transcript.is_empty() { "ok\n" } else { &transcript });
                transcript.clear();
            }
            (in_commands, in_transcript) = (false, false);
            told.push('\n');
        } else if line == "----" {
            in_transcript = true;
        } else if !in_transcript {
            told.push_str(line);
            told.push('\n');
            if !line.starts_with('#') {
                in_commands = true;
                let at = |why| PlayError { line: place + 1, why };
                player.act(line, make, &mut transcript).map_err(at)?;
            }
        }
    }
    // The empty line that ended the last block is not of the script.
    told.pop();
    while told.ends_with("\n\n") {
        told.pop();
    }
    Ok(told)
}

/// A script being played.
struct Player {
    cluster: Option<Cluster>,
    teller: Teller,
    requests: u64,
}

impl Player {
    fn cluster(&mut self) -> Result<&mut Cluster, String> {
        self.cluster.as_mut().ok_or_else(|| "a script begins with `cluster`".to_owned())
    }

    fn id(&self, word: &str) -> Result<ReplicaId, String> {
        let cluster = self.cluster.as_ref().ok_or("a script begins with `cluster`")?;
        let number = word.trim_start_matches('r').parse().ok();
        let options = cluster.options();
        let places = options.replicas + options.newcomers;
        let known = number.filter(|number| (1..=places).contains(number));
        known.map(ReplicaId::new).ok_or_else(|| format!("there is no replica {word}"))
    }

    fn ids(&self, words: &[&str]) -> Result<Vec<ReplicaId>, String> {
        words.iter().map(|word| self.id(word)).collect()
    }
}
