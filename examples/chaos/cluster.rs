//! The replicas as processes.
//!
//! Owns: their processes and what they printed. Decides no fault.
//! Invariants: a process that ended is waited for; one that ended by itself, where no fault makes it
//! do so, is a finding; nothing outlives the guard.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::ability::{Abilities, STRACE, must};
use crate::layout::{Home, Layout, SmallDisk};
use crate::proxy::Proxy;
use crate::resp::Info;
use crate::space;

/// How long a replica may take to say what it is.
const INFO_PATIENCE: Duration = Duration::from_millis(500);
/// How often it is asked before it counts as silent.
const INFO_TRIES: u32 = 10;
/// How the last words end of a replica that found no room to start.
const NO_ROOM: &str = "No space left on device (os error 28)";
/// The last part of an output that is shown.
const TAIL_BYTES: u64 = 2_000;
/// An output is read in whole up to this size.
const OUTPUT_BYTES_MAX: u64 = 64 << 20;

/// What is done to a replica's system calls.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Injection {
    /// In the words of strace's `-e inject=`.
    pub(crate) rule: String,
    /// Whether the replica stops by itself, as it has to.
    pub(crate) fatal: bool,
}

/// A process.
#[derive(Debug)]
struct Running {
    child: Child,
    injection: Option<Injection>,
    paused: bool,
    /// It was started on a disk without room, where it cannot even write down that it lives.
    without_room: bool,
}

/// A replica.
#[derive(Debug)]
struct Node {
    home: Home,
    running: Option<Running>,
}

/// A replica that ended without being told to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct End {
    pub(crate) node: usize,
    /// Whether a fault that was injected makes it do so.
    pub(crate) expected: bool,
    pub(crate) text: String,
}

/// All replicas.
#[derive(Debug)]
pub(crate) struct Cluster {
    kv: PathBuf,
    nodes: Vec<Node>,
    pub(crate) proxy: Proxy,
    abilities: Abilities,
    small_disk: Option<SmallDisk>,
    /// Packets that the kernel's filter dropped.
    pub(crate) filtered: u64,
}

impl Cluster {
    /// Replicas that are laid out and do not run yet.
    pub(crate) fn new(layout: Layout, kv: &Path, abilities: &Abilities) -> Self {
        let nodes = layout.homes.into_iter().map(|home| Node { home, running: None }).collect();
        Self {
            kv: kv.to_owned(),
            nodes,
            proxy: layout.proxy,
            abilities: abilities.clone(),
            small_disk: layout.small_disk,
            filtered: 0,
        }
    }

    /// Where clients reach each replica.
    pub(crate) fn clients(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.home.clients).collect()
    }

    /// Starts a replica that does not run.
    pub(crate) fn start(&mut self, at: usize, injection: Option<Injection>) -> Result<(), String> {
        let full = |disk: &SmallDisk| disk.node == at && disk.is_filled();
        let without_room = self.small_disk.as_ref().is_some_and(full);
        let node = &mut self.nodes[at];
        if node.running.is_some() {
            return Ok(());
        }
        let mut words: Vec<String> = Vec::new();
        if let Some(space) = &node.home.space {
            words.extend(["ip", "netns", "exec", &space.name].map(str::to_owned));
        }
        if let Some(Injection { rule, .. }) = &injection {
            let call = rule.split(':').next().unwrap_or_default();
            words.push("strace".into());
            words.extend(STRACE.map(str::to_owned));
            words.extend(["-e".into(), format!("trace={call}"), "-e".into()]);
            words.push(format!("inject={rule}"));
        }
        words.push(self.kv.display().to_string());
        words.extend(["serve".into(), node.home.dir.display().to_string()]);
        let failed = |error: io::Error| format!("cannot start replica {}: {error}", at + 1);
        let output = OpenOptions::new().create(true).append(true).open(&node.home.output);
        let output = output.map_err(failed)?;
        let errors = output.try_clone().map_err(failed)?;
        let child = Command::new(&words[0])
            .args(&words[1..])
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .map_err(failed)?;
        node.running = Some(Running { child, injection, paused: false, without_room });
        Ok(())
    }

    /// `kill -9`, and waits for the end.
    pub(crate) fn kill(&mut self, at: usize) {
        if let Some(mut running) = self.nodes[at].running.take() {
            // It may have ended by itself this moment.
            let _killed = running.child.kill();
            let _ended = running.child.wait();
        }
    }

    /// SIGSTOP.
    pub(crate) fn pause(&mut self, at: usize) -> Result<(), String> {
        self.signal(at, "-STOP", true)
    }

    /// SIGCONT.
    pub(crate) fn resume(&mut self, at: usize) -> Result<(), String> {
        self.signal(at, "-CONT", false)
    }

    fn signal(&mut self, at: usize, signal: &str, paused: bool) -> Result<(), String> {
        let Some(running) = &mut self.nodes[at].running else {
            return Ok(());
        };
        running.paused = paused;
        // It was not waited for, so the number is still its own.
        must("kill", &[signal, &running.child.id().to_string()]).map(drop)
    }

    /// Drops packets of one direction in the kernel, so many in a thousand.
    pub(crate) fn filter(&mut self, from: usize, to: usize, permille: u64) -> Result<(), String> {
        let (Some(filter), Some(space)) = (self.abilities.filter, &self.nodes[from].home.space)
        else {
            return Ok(());
        };
        let ports = [self.proxy.pair(from, to).front.port(), self.proxy.pair(to, from).back.port()];
        space::drop_packets(filter, &space.name, &ports, permille)
    }

    /// Ends every fault: whatever does not run as it should is started anew.
    pub(crate) fn heal(&mut self) -> Result<(), String> {
        self.proxy.heal();
        for at in 0..self.nodes.len() {
            let node = &self.nodes[at];
            if let (Some(filter), Some(space)) = (self.abilities.filter, &node.home.space) {
                self.filtered += space::clear(filter, &space.name)?;
            }
            let running = self.nodes[at].running.as_ref();
            if running.is_some_and(|running| running.injection.is_some()) {
                self.kill(at);
            } else if running.is_some_and(|running| running.paused) {
                self.resume(at)?;
            }
        }
        self.small_disk.as_ref().map_or(Ok(()), SmallDisk::drain)?;
        (0..self.nodes.len()).try_for_each(|at| self.start(at, None))
    }

    /// The replicas that ended without being told to since the last look.
    pub(crate) fn ends(&mut self) -> Vec<End> {
        let mut ends = Vec::new();
        for (at, node) in self.nodes.iter_mut().enumerate() {
            let Some(running) = &mut node.running else { continue };
            if let Ok(Some(status)) = running.child.try_wait() {
                let injection = running.injection.as_ref();
                let text = end_text(at, status, &node.home.output);
                let refused = running.without_room && text.ends_with(NO_ROOM);
                let struck = injection.is_some_and(|injection| injection.fatal);
                let expected = (struck || refused) && status.code() == Some(1);
                node.running = None;
                ends.push(End { node: at, expected, text });
            }
        }
        ends
    }

    /// The replica that leads by its own word, or by another's.
    pub(crate) fn leader(&self) -> Option<usize> {
        let infos: Vec<_> = self.nodes.iter().map(info).collect();
        let leads = |info: &Option<Info>| {
            info.as_ref().and_then(|info| info.line("role")) == Some("leader")
        };
        infos.iter().position(leads)
    }

    /// How often the replicas have campaigned, by their own word. The error says who does not tell.
    pub(crate) fn campaigns(&self) -> Result<u64, String> {
        let count = |(at, node): (usize, &Node)| {
            let asked = || Info::ask_for("stats", node.home.clients, INFO_PATIENCE);
            let told = |info: Info| info.line("campaigns")?.parse::<u64>().ok();
            let mut tries = (0..INFO_TRIES).filter_map(|_| asked().and_then(told));
            tries.next().ok_or_else(|| format!("replica {} does not tell of campaigns", at + 1))
        };
        self.nodes.iter().enumerate().map(count).sum()
    }

    /// Waits until all replicas hold the same at the same slot.
    pub(crate) fn wait_until_equal(&self, patience: Duration) -> Result<String, String> {
        let start = Instant::now();
        loop {
            let images: Vec<_> = self.nodes.iter().map(image).collect();
            let equal = images.iter().all(|image| image.is_some() && *image == images[0]);
            if let (true, Some((applied, hash))) = (equal, &images[0]) {
                return Ok(format!("applied {applied}, state {hash}"));
            }
            if start.elapsed() > patience {
                return Err(format!(
                    "the replicas do not agree {patience:?} after the last fault: {images:?}"
                ));
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Lines of the replicas' outputs that tell of a bug.
    pub(crate) fn panics(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (at, node) in self.nodes.iter().enumerate() {
            let mut text = Vec::new();
            if let Ok(file) = File::open(&node.home.output) {
                // What could not be read in whole is looked at as far as it was.
                let _read = file.take(OUTPUT_BYTES_MAX).read_to_end(&mut text);
            }
            let text = String::from_utf8_lossy(&text);
            let lines = text.lines().filter(|line| line.contains("panicked at"));
            found.extend(lines.map(|line| format!("replica {}: {line}", at + 1)));
        }
        found
    }

    /// Leaves no room on the small file system.
    pub(crate) fn fill(&self) -> Result<(), String> {
        self.small_disk.as_ref().map_or(Ok(()), SmallDisk::fill)
    }

    /// Whether the replica on the small file system says that it is full.
    pub(crate) fn says_full(&self) -> bool {
        let node = self.small_disk.as_ref().map(|disk| &self.nodes[disk.node]);
        let info = node.and_then(info);
        info.is_some_and(|info| info.line("storage_full") == Some("1"))
    }
}

fn info(node: &Node) -> Option<Info> {
    let awake = node.running.as_ref().is_some_and(|running| !running.paused);
    awake.then(|| Info::ask(node.home.clients, INFO_PATIENCE)).flatten()
}

/// The last applied slot and the hash of the state after it.
fn image(node: &Node) -> Option<(String, String)> {
    let info = info(node)?;
    Some((info.line("applied")?.to_owned(), info.line("state_hash")?.to_owned()))
}

fn end_text(at: usize, status: ExitStatus, output: &Path) -> String {
    let mut tail = Vec::new();
    if let Ok(mut file) = File::open(output) {
        let length = file.metadata().map_or(0, |metadata| metadata.len());
        let from = file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)));
        // Without its last words the end is told all the same.
        let _read = from.and_then(|_| file.read_to_end(&mut tail));
    }
    let tail = String::from_utf8_lossy(&tail).into_owned();
    let last: Vec<_> = tail.lines().rev().take(5).collect();
    let last: Vec<_> = last.into_iter().rev().collect();
    format!(
        "replica {} ended by itself ({status}); its last words:\n    {}",
        at + 1,
        last.join("\n    ")
    )
}
