//! What can be done on this machine.
//!
//! Owns: the trials that find out, and the words that say so at the start of a run. A trial does
//! the thing itself, small and at once undone, for a program that is there may still be forbidden.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::guard::{Guard, Remains};
use crate::space::{self, Filter};

/// What can be done.
#[derive(Clone, Debug, Default)]
pub(crate) struct Abilities {
    /// Network namespaces, one for each replica.
    pub(crate) namespaces: bool,
    /// A packet filter in them.
    pub(crate) filter: Option<Filter>,
    /// Results of system calls can be replaced.
    pub(crate) strace: bool,
    /// File systems of a given size can be mounted.
    pub(crate) small_disks: bool,
    /// What is said about all this, a line each.
    pub(crate) lines: Vec<String>,
}

impl Abilities {
    /// Tries everything. `dir` is a directory of this run.
    pub(crate) fn find(rootless: bool, dir: &Path, guard: &Guard) -> Result<Self, String> {
        let mut found = Self::default();
        found.say(true, "kill -9, pauses; partitions, one-way cuts, loss, delay, duplication and");
        found.say(true, "reorder by a UDP router of this program: need nothing");
        let rule = "inject=fdatasync:error=EIO:when=1";
        found.strace = succeeds("strace", &[&STRACE[..], &["-e", rule, "true"]].concat());
        found.say(
            found.strace,
            "failing, lying, slow and hung syncs, failing writes: by strace --inject",
        );
        let root = !rootless && output("id", &["-u"]).is_some_and(|id| id.trim() == "0");
        if root {
            found.try_namespaces(guard)?;
            let place = dir.join("trial");
            std::fs::create_dir(&place).map_err(|error| format!("{}: {error}", place.display()))?;
            guard.announce(&Remains::Mount(place.clone()))?;
            let place = place.display().to_string();
            found.small_disks =
                succeeds("mount", &["-t", "tmpfs", "-o", "size=64k", "tmpfs", &place])
                    && succeeds("umount", &[&place]);
        }
        found.say(
            found.namespaces,
            "each replica in a network namespace of its own: by ip, as root",
        );
        let filter = match found.filter {
            Some(filter) => {
                format!("partitions and loss by the kernel's packet filter: by {filter:?}")
            }
            None => {
                "partitions and loss by the kernel's packet filter: nft or iptables, as root".into()
            }
        };
        found.say(found.filter.is_some(), &filter);
        found.say(found.small_disks, "a full disk: a small tmpfs, as root");
        found.say(
            false,
            "loss of power: kill -9 keeps the page cache; the simulated disk covers it",
        );
        Ok(found)
    }

    fn try_namespaces(&mut self, guard: &Guard) -> Result<(), String> {
        let name = format!("{}{}-trial", crate::guard::DIR_PREFIX, std::process::id());
        guard.announce(&Remains::Namespace(name.clone()))?;
        self.namespaces = succeeds("ip", &["netns", "add", &name]);
        if self.namespaces {
            self.filter = [Filter::Nft, Filter::Iptables]
                .into_iter()
                .find(|filter| space::prepare_filter(*filter, &name).is_ok());
            succeeds("ip", &["netns", "delete", &name]);
        }
        Ok(())
    }

    fn say(&mut self, can: bool, what: &str) {
        self.lines.push(format!("  {} {what}", if can { "can   " } else { "cannot" }));
    }
}

/// How strace is begun: as a grandchild, so that the process is this program's own child, and
/// without stopping at any call but those of interest.
pub(crate) const STRACE: [&str; 6] = ["-D", "-f", "--seccomp-bpf", "-qq", "-o", "/dev/null"];

/// Runs a command; whether it ended well.
pub(crate) fn succeeds(program: &str, arguments: &[&str]) -> bool {
    output(program, arguments).is_some()
}

/// What a command prints, if it ends well.
pub(crate) fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new(program);
    let output =
        command.args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command that has to succeed. The error is one line.
pub(crate) fn must(program: &str, arguments: &[&str]) -> Result<String, String> {
    let line = || format!("{program} {}", arguments.join(" "));
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{}: {error}", line()))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let said = String::from_utf8_lossy(&output.stderr).replace('\n', " ");
        Err(format!("{}: {said}", line()))
    }
}
