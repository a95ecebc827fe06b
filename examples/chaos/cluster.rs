//! The replicas as processes.
//!
//! Owns: their directories, addresses and processes, and what they printed. Decides no fault.
//! Invariants: a process that ended is waited for; one that ended by itself, where no fault makes it
//! do so, is a finding; nothing outlives the guard.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::ability::{Abilities, STRACE, must};
use crate::guard::{Guard, Remains};
use crate::proxy::Proxy;
use crate::resp::Info;
use crate::space::{self, Space};

/// How long a replica may take to say what it is.
const INFO_PATIENCE: Duration = Duration::from_millis(500);
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
}

/// A replica.
#[derive(Debug)]
struct Node {
    home: PathBuf,
    output: PathBuf,
    clients: SocketAddr,
    space: Option<Space>,
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
    /// The replica whose log is on a small file system, and where that is.
    pub(crate) small_disk: Option<(usize, PathBuf)>,
    /// Packets that the kernel's filter dropped.
    pub(crate) filtered: u64,
}

/// How a cluster is laid out.
#[derive(Debug)]
pub(crate) struct Plan<'run> {
    pub(crate) kv: &'run Path,
    pub(crate) dir: &'run Path,
    pub(crate) nodes: usize,
    pub(crate) seed: u64,
    /// The replica to give a small file system, where that can be done, and its bytes.
    pub(crate) small_disk: (usize, u64),
}

impl Cluster {
    /// Lays out replicas that do not run yet.
    pub(crate) fn lay_out(
        plan: &Plan<'_>,
        abilities: &Abilities,
        guard: &Guard,
    ) -> Result<Self, String> {
        let (kv, dir) = (plan.kv.display().to_string(), plan.dir.join("c"));
        let (place, count) = (dir.display().to_string(), plan.nodes.to_string());
        // The ports that are written here are replaced below.
        must(&kv, &["init", &place, "--replicas", &count])?;
        guard.announce(&Remains::Servers(dir.clone()))?;
        let mut spaces = Vec::new();
        for place in 0..plan.nodes {
            let space = abilities.namespaces.then(|| space::make(place, guard)).transpose()?;
            if let (Some(filter), Some(space)) = (abilities.filter, &space) {
                space::prepare_filter(filter, &space.name)?;
            }
            spaces.push(space);
        }
        let failed = |error: io::Error| format!("cannot bind: {error}");
        let addresses: Vec<_> = (0..plan.nodes)
            .map(|place| addresses(place, spaces[place].as_ref()))
            .collect::<io::Result<_>>()
            .map_err(failed)?;
        let listens: Vec<_> = addresses.iter().map(|(_, listen)| *listen).collect();
        let sides: Vec<_> = (0..plan.nodes)
            .map(|place| {
                spaces[place].as_ref().map_or(loopback(place + 100), |space| space.outside)
            })
            .collect();
        let proxy = Proxy::start(&listens, &sides, plan.seed).map_err(failed)?;
        let mut nodes = Vec::new();
        for (place, space) in spaces.into_iter().enumerate() {
            let home = dir.join((place + 1).to_string());
            let peers: Vec<_> = (0..plan.nodes)
                .map(|to| if to == place { listens[to] } else { proxy.pair(place, to).front })
                .collect();
            rewrite(&home.join("config.toml"), addresses[place], &peers)?;
            nodes.push(Node {
                home,
                output: plan.dir.join(format!("node-{}.log", place + 1)),
                clients: addresses[place].0,
                space,
                running: None,
            });
        }
        let mut cluster = Self {
            kv: plan.kv.to_owned(),
            nodes,
            proxy,
            abilities: abilities.clone(),
            small_disk: None,
            filtered: 0,
        };
        if abilities.small_disks {
            cluster.move_to_small_disk(plan, guard)?;
        }
        Ok(cluster)
    }

    /// Where clients reach each replica.
    pub(crate) fn clients(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.clients).collect()
    }

    /// Starts a replica that does not run.
    pub(crate) fn start(&mut self, at: usize, injection: Option<Injection>) -> Result<(), String> {
        let node = &mut self.nodes[at];
        if node.running.is_some() {
            return Ok(());
        }
        let mut words: Vec<String> = Vec::new();
        if let Some(space) = &node.space {
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
        words.extend(["serve".into(), node.home.display().to_string()]);
        let failed = |error: io::Error| format!("cannot start replica {}: {error}", at + 1);
        let output = OpenOptions::new().create(true).append(true).open(&node.output);
        let output = output.map_err(failed)?;
        let errors = output.try_clone().map_err(failed)?;
        let child = Command::new(&words[0])
            .args(&words[1..])
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .map_err(failed)?;
        node.running = Some(Running { child, injection, paused: false });
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
        let (Some(filter), Some(space)) = (self.abilities.filter, &self.nodes[from].space) else {
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
            if let (Some(filter), Some(space)) = (self.abilities.filter, &node.space) {
                self.filtered += space::clear(filter, &space.name)?;
            }
            let running = self.nodes[at].running.as_ref();
            if running.is_some_and(|running| running.injection.is_some()) {
                self.kill(at);
            } else if running.is_some_and(|running| running.paused) {
                self.resume(at)?;
            }
        }
        self.drain()?;
        (0..self.nodes.len()).try_for_each(|at| self.start(at, None))
    }

    /// The replicas that ended without being told to since the last look.
    pub(crate) fn ends(&mut self) -> Vec<End> {
        let mut ends = Vec::new();
        for (at, node) in self.nodes.iter_mut().enumerate() {
            let Some(running) = &mut node.running else { continue };
            if let Ok(Some(status)) = running.child.try_wait() {
                let injection = running.injection.as_ref();
                let expected = injection.is_some_and(|injection| injection.fatal)
                    && status.code().is_some_and(|code| code == 1);
                let text = end_text(at, status, &node.output);
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
            if let Ok(file) = File::open(&node.output) {
                // What could not be read in whole is looked at as far as it was.
                let _read = file.take(OUTPUT_BYTES_MAX).read_to_end(&mut text);
            }
            let text = String::from_utf8_lossy(&text);
            let lines = text.lines().filter(|line| line.contains("panicked at"));
            found.extend(lines.map(|line| format!("replica {}: {line}", at + 1)));
        }
        found
    }

    fn move_to_small_disk(&mut self, plan: &Plan<'_>, guard: &Guard) -> Result<(), String> {
        let (at, bytes) = plan.small_disk;
        let place = plan.dir.join("small");
        let failed = |error: io::Error| format!("{}: {error}", place.display());
        fs::create_dir(&place).map_err(failed)?;
        guard.announce(&Remains::Mount(place.clone()))?;
        let size = format!("size={bytes}");
        must("mount", &["-t", "tmpfs", "-o", &size, "tmpfs", &place.display().to_string()])?;
        let (from, to) = (self.nodes[at].home.join("data"), place.join("data"));
        must("cp", &["-a", &from.display().to_string(), &to.display().to_string()])?;
        fs::remove_dir_all(&from).map_err(failed)?;
        std::os::unix::fs::symlink(&to, &from).map_err(failed)?;
        self.small_disk = Some((at, place));
        Ok(())
    }

    /// Leaves no room on the small file system.
    pub(crate) fn fill(&self) -> Result<(), String> {
        let Some((_, place)) = &self.small_disk else {
            return Ok(());
        };
        let ballast = place.join(BALLAST);
        let failed = |error: io::Error| format!("{}: {error}", ballast.display());
        let mut file = File::create(&ballast).map_err(failed)?;
        match io::copy(&mut io::repeat(0), &mut file) {
            Err(error) if error.kind() == io::ErrorKind::StorageFull => Ok(()),
            Err(error) => Err(failed(error)),
            Ok(_) => unreachable!("there is no end of zeros"),
        }
    }

    /// Whether the replica on the small file system says that it is full.
    pub(crate) fn says_full(&self) -> bool {
        let node = self.small_disk.as_ref().map(|(at, _)| &self.nodes[*at]);
        let info = node.and_then(info);
        info.is_some_and(|info| info.line("storage_full") == Some("1"))
    }

    /// Makes room again.
    fn drain(&self) -> Result<(), String> {
        let Some((_, place)) = &self.small_disk else {
            return Ok(());
        };
        match fs::remove_file(place.join(BALLAST)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.to_string()),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

fn info(node: &Node) -> Option<Info> {
    let awake = node.running.as_ref().is_some_and(|running| !running.paused);
    awake.then(|| Info::ask(node.clients, INFO_PATIENCE)).flatten()
}

/// The last applied slot and the hash of the state after it.
fn image(node: &Node) -> Option<(String, String)> {
    let info = info(node)?;
    Some((info.line("applied")?.to_owned(), info.line("state_hash")?.to_owned()))
}

/// What takes the room on a full disk.
const BALLAST: &str = "ballast";

/// Where a replica takes clients and peers. In a namespace every port is free; elsewhere each
/// replica has a loopback address of its own, where no client's port can be in its way after a
/// restart, and the system says which ports are free.
fn addresses(place: usize, space: Option<&Space>) -> io::Result<(SocketAddr, SocketAddr)> {
    if let Some(space) = space {
        return Ok(((space.inside, 7001).into(), (space.inside, 7101).into()));
    }
    let ip = loopback(place);
    let clients = TcpListener::bind((ip, 0))?.local_addr()?;
    let peers = UdpSocket::bind((ip, 0))?.local_addr()?;
    Ok((clients, peers))
}

/// A loopback address that no other run uses at the same time, where the system has more than one.
fn loopback(place: usize) -> IpAddr {
    let id = std::process::id();
    let own = Ipv4Addr::new(127, (id % 250) as u8 + 2, (id / 250 % 250) as u8, place as u8 + 1);
    let there = TcpListener::bind((own, 0)).is_ok();
    IpAddr::V4(if there { own } else { Ipv4Addr::LOCALHOST })
}

/// Writes addresses into a config.
fn rewrite(
    file: &Path,
    (clients, listen): (SocketAddr, SocketAddr),
    peers: &[SocketAddr],
) -> Result<(), String> {
    let failed = |error: io::Error| format!("{}: {error}", file.display());
    let text = fs::read_to_string(file).map_err(failed)?;
    let mut members = peers.iter();
    let mut written = String::new();
    for line in text.lines() {
        let name = line.split(" = ").next().unwrap_or_default();
        let address = match name {
            "clients" => Some(&clients),
            "listen" => Some(&listen),
            "address" => members.next(),
            _ => None,
        };
        match address {
            Some(address) => written.extend([name, " = \"", &address.to_string(), "\"\n"]),
            None => written.extend([line, "\n"]),
        }
    }
    fs::write(file, written).map_err(failed)
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
