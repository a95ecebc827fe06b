//! Leaves nothing behind.
//!
//! Owns: a second process that is told of everything that will have to be removed, and removes it
//! when this one ends, in whatever way: in order, by a panic, by Ctrl-C, by `kill -9`.
//! Invariants: a thing is announced before it is made; the clean-up of an orderly end is the same
//! code as that of a violent one.
//!
//! The two are joined by a pipe alone. The system closes it when this process ends, and that is the
//! signal; so no handler, no signal mask and no `unsafe` is needed. The second process is in a group
//! of its own, where a terminal's Ctrl-C does not reach it.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, BufRead, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The argument that makes this program the second process.
pub(crate) const ARGUMENT: &str = "--clean-up-after-standard-input";
/// Only directories whose name begins so are ever removed.
pub(crate) const DIR_PREFIX: &str = "paxos-chaos-";
/// How long killed processes may take to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(10);
/// So often in a row no process may be found before there is none.
const QUIET_LOOKS: u32 = 3;
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Something that has to go at the end.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Remains {
    /// Every process that serves a directory below this one.
    Servers(PathBuf),
    Mount(PathBuf),
    Namespace(String),
    Directory(PathBuf),
    /// A directory that is to stay after all.
    Kept(PathBuf),
}

/// The hold on the second process.
#[derive(Debug)]
pub(crate) struct Guard {
    pipe: Mutex<Option<ChildStdin>>,
    child: Mutex<Child>,
}

impl Guard {
    /// Starts the second process from this program's own file.
    pub(crate) fn start() -> Result<Self, String> {
        let failed = |error: io::Error| format!("cannot start the clean-up process: {error}");
        let program = std::env::current_exe().map_err(failed)?;
        let mut child = Command::new(program)
            .arg(ARGUMENT)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        Ok(Self { pipe: Mutex::new(child.stdin.take()), child: Mutex::new(child) })
    }

    /// Announces something. It is an error if the second process is gone.
    pub(crate) fn announce(&self, remains: &Remains) -> Result<(), String> {
        let mut pipe = self.pipe.lock().unwrap_or_else(PoisonError::into_inner);
        let pipe = pipe.as_mut().expect("the pipe is open until the guard is dropped");
        writeln!(pipe, "{}", remains.line())
            .and_then(|()| pipe.flush())
            .map_err(|error| format!("the clean-up process is gone: {error}"))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.pipe.lock().unwrap_or_else(PoisonError::into_inner).take());
        // Its own waits are bounded.
        let _ended = self.child.lock().unwrap_or_else(PoisonError::into_inner).wait();
    }
}

impl Remains {
    fn line(&self) -> String {
        match self {
            Self::Servers(path) => format!("servers {}", path.display()),
            Self::Mount(path) => format!("mount {}", path.display()),
            Self::Namespace(name) => format!("namespace {name}"),
            Self::Directory(path) => format!("directory {}", path.display()),
            Self::Kept(path) => format!("kept {}", path.display()),
        }
    }

    fn parse(line: &str) -> Option<Self> {
        let (kind, rest) = line.split_once(' ')?;
        Some(match kind {
            "servers" => Self::Servers(rest.into()),
            "mount" => Self::Mount(rest.into()),
            "namespace" => Self::Namespace(rest.to_owned()),
            "directory" => Self::Directory(rest.into()),
            "kept" => Self::Kept(rest.into()),
            _ => return None,
        })
    }
}

/// Runs the second process: reads what is announced until the pipe is closed, then removes it.
pub(crate) fn clean_up_after(input: impl BufRead) {
    let mut announced = Vec::new();
    for line in input.lines() {
        let Ok(line) = line else { break };
        match Remains::parse(&line) {
            Some(Remains::Kept(path)) => {
                announced.retain(|other| *other != Remains::Directory(path.clone()));
            }
            Some(remains) => announced.push(remains),
            None => {}
        }
    }
    // What was announced last goes first: servers and mounts before the directory they are in.
    for remains in announced.iter().rev() {
        remove(remains);
    }
}

fn remove(remains: &Remains) {
    match remains {
        Remains::Servers(dir) => kill_servers(dir),
        Remains::Mount(path) => quietly(Command::new("umount").arg("--lazy").arg(path)),
        // Its end of a pair of interfaces takes the other end along.
        Remains::Namespace(name) => quietly(Command::new("ip").args(["netns", "delete", name])),
        Remains::Directory(path) => {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
            if name.is_some_and(|name| name.starts_with(DIR_PREFIX)) && !holds_a_mount(path) {
                let _gone = fs::remove_dir_all(path);
            }
        }
        Remains::Kept(_) => {}
    }
}

/// Kills what serves a directory below `dir`, and waits until it is gone. One that was just being
/// started when this program ended is found at a later look.
fn kill_servers(dir: &Path) {
    let start = Instant::now();
    let mut quiet = 0;
    while quiet < QUIET_LOOKS && start.elapsed() < GONE_WITHIN {
        let servers = servers(dir);
        for id in &servers {
            quietly(Command::new("kill").args(["-9", id]));
        }
        quiet = if servers.is_empty() { quiet + 1 } else { 0 };
        thread::sleep(LOOK_AGAIN);
    }
}

/// The numbers of the processes one of whose arguments is `serve` and the next a path below `dir`.
pub(crate) fn servers(dir: &Path) -> Vec<String> {
    let Ok(processes) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let numbers = processes.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let numbers = numbers.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
    numbers
        .filter(|number| {
            let line = fs::read(format!("/proc/{number}/cmdline")).unwrap_or_default();
            let arguments: Vec<_> = line.split(|byte| *byte == 0).collect();
            arguments.windows(2).any(|pair| {
                let path = Path::new(OsStr::from_bytes(pair[1]));
                pair[0] == b"serve" && path.starts_with(dir)
            })
        })
        .collect()
}

fn holds_a_mount(dir: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let dir = format!("{}/", dir.display());
    mounts.lines().any(|line| line.split(' ').nth(1).is_some_and(|at| at.starts_with(&dir)))
}

/// Runs a command whose failure nobody is left to hear of.
fn quietly(command: &mut Command) {
    let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _status = command.status();
}
