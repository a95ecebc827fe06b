//! The program as processes: started, watched, killed.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;

use tempfile::TempDir;

use crate::client::{Answer, Client};
use crate::examples::{PATIENCE, built, wait_for};

/// The program.
pub(crate) fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| built(&["kv"]).join("kv"))
}

/// Runs the program to its end.
pub(crate) fn run<A: AsRef<OsStr>>(arguments: &[A]) -> Output {
    let mut child = Command::new(binary());
    child.args(arguments).stdin(Stdio::null());
    child.output().unwrap()
}

/// A base port whose ports for nine replicas are free, and not given to another test.
pub(crate) fn free_base_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Below the ports that systems give to clients. Test processes begin at different places.
    let start = (std::process::id() % 50) as u16;
    for _ in 0..50 {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let base = 11_000 + (start + step) % 50 * 400;
        let clients_free = (1..=9).all(|id| TcpListener::bind(("127.0.0.1", base + id)).is_ok());
        let peers_free = (101..=109).all(|id| UdpSocket::bind(("127.0.0.1", base + id)).is_ok());
        if clients_free && peers_free {
            return base;
        }
    }
    panic!("no free ports");
}

/// A running program whose output is collected. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    output: Arc<Mutex<String>>,
}

impl Process {
    pub(crate) fn start<A: AsRef<OsStr>>(arguments: &[A]) -> Self {
        let mut child = Command::new(binary())
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let output = Arc::new(Mutex::new(String::new()));
        collect(child.stdout.take().unwrap(), &output);
        collect(child.stderr.take().unwrap(), &output);
        Self { child, output }
    }

    pub(crate) fn output(&self) -> String {
        self.output.lock().unwrap().clone()
    }

    /// `kill -SIGNAL`.
    pub(crate) fn signal(&self, signal: &str) {
        let status = Command::new("kill")
            .args([format!("-{signal}"), self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// `kill -9`, and waits for the end.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Whether it runs no more.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for the end, and returns the exit code.
    pub(crate) fn wait(&mut self) -> i32 {
        let status = wait_for("the end of the process", || self.child.try_wait().unwrap());
        status.code().unwrap_or(-1)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _ended = self.child.wait();
        if thread::panicking() {
            println!("--- process {}\n{}", self.child.id(), self.output());
        }
    }
}

fn collect(stream: impl Read + Send + 'static, output: &Arc<Mutex<String>>) {
    let output = Arc::clone(output);
    thread::spawn(move || {
        for line in BufReader::new(stream).lines() {
            let Ok(line) = line else { break };
            let mut output = output.lock().unwrap();
            output.push_str(&line);
            output.push('\n');
        }
    });
}

/// A laid-out cluster, of which any replicas may run.
#[derive(Debug)]
pub(crate) struct Cluster {
    scratch: TempDir,
    base_port: u16,
    /// The process of replica i stands at i - 1.
    pub(crate) processes: Vec<Option<Process>>,
}

impl Cluster {
    /// Lays out replicas that do not run.
    pub(crate) fn laid_out(replicas: u16) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let base_port = free_base_port();
        let output = run(&[
            "init",
            scratch.path().join("c").to_str().unwrap(),
            "--replicas",
            &replicas.to_string(),
            "--base-port",
            &base_port.to_string(),
        ]);
        assert!(output.status.success(), "{output:?}");
        Self { scratch, base_port, processes: (0..replicas).map(|_| None).collect() }
    }

    /// Lays out replicas and starts them all.
    pub(crate) fn started(replicas: u16) -> Self {
        let mut cluster = Self::laid_out(replicas);
        for id in 1..=replicas {
            cluster.start(id);
        }
        cluster
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = u16> + use<> {
        1..=self.processes.len() as u16
    }

    /// The directory of a replica.
    pub(crate) fn home(&self, id: u16) -> PathBuf {
        self.scratch.path().join("c").join(id.to_string())
    }

    /// A directory beside those of the replicas.
    pub(crate) fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    pub(crate) fn port(&self, id: u16) -> u16 {
        self.base_port + id
    }

    pub(crate) fn start(&mut self, id: u16) {
        self.start_with(id, &[]);
    }

    /// Starts a replica with more arguments.
    pub(crate) fn start_with(&mut self, id: u16, more: &[&str]) {
        let home = self.home(id);
        let more = more.iter().map(OsStr::new);
        let arguments: Vec<_> =
            ["serve".as_ref(), home.as_os_str()].into_iter().chain(more).collect();
        let process = Process::start(&arguments);
        self.processes[usize::from(id) - 1] = Some(process);
    }

    pub(crate) fn process(&mut self, id: u16) -> &mut Process {
        self.processes[usize::from(id) - 1].as_mut().unwrap()
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self, id: u16) {
        self.process(id).kill();
    }

    /// A connection, as soon as the replica takes one.
    pub(crate) fn client(&self, id: u16) -> Client {
        wait_for("a connection", || Client::connect(("127.0.0.1", self.port(id)), PATIENCE).ok())
    }

    /// A line of `INFO paxos`; `None` if the replica does not answer.
    pub(crate) fn info(&self, id: u16, name: &str) -> Option<String> {
        self.info_of("paxos", id, name)
    }

    /// A line of a section of `INFO`.
    pub(crate) fn info_of(&self, section: &str, id: u16, name: &str) -> Option<String> {
        let address = ("127.0.0.1", self.port(id));
        let mut client = Client::connect(address, PATIENCE).ok()?;
        let Answer::Bulk(text) = client.say(&format!("INFO {section}")).ok()? else {
            return None;
        };
        let text = String::from_utf8(text).unwrap();
        let start = format!("{name}:");
        let line = text.lines().find_map(|line| line.strip_prefix(&start));
        Some(line.unwrap_or_else(|| panic!("no {name} in {text}")).to_owned())
    }

    /// Waits for a leader that leads by its own word.
    pub(crate) fn leader(&self) -> u16 {
        wait_for("a leader", || {
            self.ids().find(|&id| self.info(id, "role").as_deref() == Some("leader"))
        })
    }

    /// Waits until all replicas hold the same at the same slot.
    pub(crate) fn wait_until_equal(&self) {
        wait_for("equal state hashes at one slot", || {
            let images = self.ids().map(|id| {
                let before = self.info(id, "applied")?;
                let hash = self.info(id, "state_hash")?;
                (self.info(id, "applied")? == before).then_some((before, hash))
            });
            let images = images.collect::<Option<Vec<_>>>()?;
            images.iter().all(|image| *image == images[0]).then_some(())
        });
    }
}

/// Replaces a text in a file; it must be there.
pub(crate) fn edit(file: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(file).unwrap();
    assert!(text.contains(from), "{from} in {text}");
    fs::write(file, text.replace(from, to)).unwrap();
}

/// The text between quotes after `key = ` in a config, `n`-th of its kind.
pub(crate) fn setting(home: &Path, key: &str, nth: usize) -> String {
    let text = fs::read_to_string(home.join("config.toml")).unwrap();
    let start = format!("{key} = \"");
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(&start));
    lines.nth(nth).unwrap().trim_end_matches('"').to_owned()
}

/// Copies a directory: its files and directories, and not the socket that a running replica has in it.
pub(crate) fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
