//! The command line.
//!
//! Owns: the options and their texts. Reads no file. Every mistake is one line.

use std::path::PathBuf;
use std::time::Duration;

use paxos::{Consistency, ReplicaId};

use crate::limits::{
    LEASE_MILLIS, REPLICAS_MAX, SNAPSHOT_MIB, SNAPSHOT_MIB_DEFAULT, SNAPSHOT_RATE_DEFAULT,
};

/// What `kv --help` prints.
pub(crate) const HELP: &str = "\
kv - a replicated key-value server that speaks the Redis protocol

usage:
  kv [--data DIR] [--base-port P] [--reads HOW] [--snapshot-mib N]
                                     three replicas in this process, durable under DIR
                                     (default ./kv-data), clients on ports P+1 to P+3
  kv init DIR --replicas N [--base-port P] [--lease MS] [--from FILE]
                                     lay out DIR/1 to DIR/N, each with config.toml, key and data,
                                     for N (1 to 9) replicas that run as processes of their own;
                                     replica i takes clients on port P+i, peers on port P+100+i
  kv join DIR --of NODE --replica N [--base-port P | --clients HOST:PORT --listen HOST:PORT]
              [--replace OLD]        lay out DIR for a replica that is to join a running cluster, alone or in
                                     the place of replica OLD, and print how it becomes a member; NODE is
                                     DIR/I or DIR of one that runs, or a file with what
                                     `paxosctl members --json` printed
  kv serve DIR/I [--reads HOW] [--snapshot-mib N] [--snapshot-rate N] [--admin PATH]
           [--trace-out FILE]        run the replica of that directory
  kv adopt DIR/I                     write DIR/I/config.toml anew after `paxosctl recover DIR/I`: the
                                     cluster and its members, as the replica's directory says them
  kv --help                          this text
  kv --version                       the version

`kv` stands for the built program; in the repository it is run by cargo, as in
  cargo run --release --example kv -- init DIR --replicas 3

options:
  --data DIR       where `kv` alone keeps its three replicas
  --replicas N     how many replicas `kv init` lays out
  --base-port P    default 7000; written down when a directory is laid out
  --reads HOW      what a command that only reads is answered from: `linearizable` (the default), a
                   state that includes all that anybody was told before; `quorum`, the same by
                   asking a quorum instead of the leader; or `stale:MS`, one that lacks at most what
                   was told in the last MS milliseconds, which spares the question
  --lease MS       written down: voters promise the leader to elect nobody else for MS milliseconds
                   (200 to 500), so that it serves linearizable reads without asking them. Rests on
                   clocks that run true to one part in ten, and never stand still
  --from FILE      the replicas begin with a backup, which `paxosctl export` wrote: a new cluster with
                   the old one's keys and values. Clients' sessions of the old cluster are ended
  --snapshot-mib N a snapshot of the map is written after N MiB of log (1 to 65536, default 64), or as
                   many as the last one had, if that is more; the log before it is removed
  --snapshot-rate N a snapshot is sent to replicas that need one, and fetched from others, with N MiB a
                   second (1 to 65536, default 64) at most
  --admin PATH     the socket for paxosctl, instead of DIR/I/admin.sock: for directories whose paths are
                   too long for a socket, about 100 bytes
  --trace-out FILE writes the replica's messages, writes and values as JSON, one object a line

environment:
  KV_LOG           how much is logged to standard error: error, warn, info (the default) or debug

error replies begin with a word that says what became of the command:
  BUSY, NOLEADER, TOOLARGE   certainly not carried out, and never will be
  UNKNOWN                    may have been applied, or may still be
  ERR, NOPROTO               not carried out, as with Redis itself
";

const BASE_PORT_DEFAULT: u16 = 7000;
/// Peers' ports begin 100 above the clients', so the highest is this much above the base.
const PORTS_ABOVE_BASE: u16 = 100 + REPLICAS_MAX;

/// How often snapshots are written, and how fast they travel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct SnapshotPace {
    /// One after so many MiB of log.
    pub(crate) every_mib: u64,
    /// So many MiB a second at most, each way.
    pub(crate) mib_per_second: u64,
}

impl Default for SnapshotPace {
    fn default() -> Self {
        Self { every_mib: SNAPSHOT_MIB_DEFAULT, mib_per_second: SNAPSHOT_RATE_DEFAULT }
    }
}

/// What the command line asks for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Invocation {
    Help,
    Version,
    /// Three replicas in this process.
    Demo {
        data: PathBuf,
        /// `None`: as the directory was laid out, or the default.
        base_port: Option<u16>,
        reads: Consistency,
        snapshot_mib: u64,
    },
    /// Lay out directories.
    Init {
        dir: PathBuf,
        replicas: u16,
        base_port: u16,
        /// The leases of its leader.
        lease: Option<Duration>,
        /// The backup that it begins with.
        from: Option<PathBuf>,
    },
    /// Write a config anew.
    Adopt {
        dir: PathBuf,
    },
    /// Lay out a replica that joins.
    Join(Newcomer),
    /// One replica.
    Serve {
        dir: PathBuf,
        reads: Consistency,
        /// Where its events are written.
        trace_out: Option<PathBuf>,
        pace: SnapshotPace,
        /// Where its admin socket is; `None`: in its directory.
        admin: Option<PathBuf>,
    },
}

/// What the command line says of the new replica.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Newcomer {
    /// Its directory.
    pub(crate) dir: PathBuf,
    /// A node of the cluster, or a file with what one answered.
    pub(crate) of: PathBuf,
    pub(crate) replica: ReplicaId,
    pub(crate) base_port: u16,
    /// Where clients connect, if not on the port that comes of the base.
    pub(crate) clients: Option<String>,
    /// Where peers connect, if not there.
    pub(crate) listen: Option<String>,
    /// The voter whose place it takes.
    pub(crate) replaces: Option<ReplicaId>,
}

/// Understands the arguments after the program's name.
pub(crate) fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Invocation, String> {
    let mut given = Given::default();
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let (name, inline) = match argument.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name.to_owned(), Some(value.into())),
            _ => (argument, None),
        };
        let mut value = || {
            inline
                .clone()
                .or_else(|| arguments.next())
                .ok_or_else(|| format!("{name} needs a value; see kv --help"))
        };
        match name.as_str() {
            "--help" | "-h" | "help" => return Ok(Invocation::Help),
            "--version" | "-V" => return Ok(Invocation::Version),
            "--data" => given.data = Some(PathBuf::from(value()?)),
            "--base-port" => given.base_port = Some(base_port(&value()?)?),
            "--trace-out" => given.trace_out = Some(PathBuf::from(value()?)),
            "--admin" => given.admin = Some(PathBuf::from(value()?)),
            "--from" => given.from = Some(PathBuf::from(value()?)),
            "--reads" => given.reads = Some(reads(&value()?)?),
            "--snapshot-mib" => given.snapshot_mib = Some(snapshot_mib(&value()?)?),
            "--snapshot-rate" => given.snapshot_rate = Some(snapshot_rate(&value()?)?),
            "--lease" => given.lease = Some(lease(&value()?)?),
            "--replicas" => given.replicas = Some(replicas(&value()?)?),
            "--of" => given.of = Some(PathBuf::from(value()?)),
            "--replica" => given.replica = Some(replica(&name, &value()?)?),
            "--replace" => given.replace = Some(replica(&name, &value()?)?),
            "--clients" => given.clients = Some(address(&name, value()?)?),
            "--listen" => given.listen = Some(address(&name, value()?)?),
            option if option.starts_with('-') => {
                return Err(format!("unknown option {option}; see kv --help"));
            }
            _ => given.words.push(name),
        }
    }
    given.into_invocation()
}

#[derive(Debug, Default, Eq, PartialEq)]
struct Given {
    words: Vec<String>,
    data: Option<PathBuf>,
    base_port: Option<u16>,
    replicas: Option<u16>,
    reads: Option<Consistency>,
    lease: Option<Duration>,
    trace_out: Option<PathBuf>,
    snapshot_mib: Option<u64>,
    snapshot_rate: Option<u64>,
    admin: Option<PathBuf>,
    from: Option<PathBuf>,
    of: Option<PathBuf>,
    replica: Option<u16>,
    replace: Option<u16>,
    clients: Option<String>,
    listen: Option<String>,
}

impl Given {
    /// What `kv join` needs and nothing else takes.
    fn into_newcomer(self, dir: PathBuf) -> Result<Newcomer, String> {
        let given = [
            ("--data", self.data.is_some()),
            ("--replicas", self.replicas.is_some()),
            ("--reads", self.reads.is_some()),
            ("--lease", self.lease.is_some()),
            ("--trace-out", self.trace_out.is_some()),
            ("--snapshot-mib", self.snapshot_mib.is_some()),
            ("--admin", self.admin.is_some()),
        ];
        if let Some((option, _)) = given.iter().find(|(_, given)| *given) {
            return Err(format!("kv join takes no {option}; see kv --help"));
        }
        let of = self.of.ok_or("kv join needs --of NODE; see kv --help")?;
        let id = self.replica.ok_or("kv join needs --replica N; see kv --help")?;
        let base_port = self.base_port.unwrap_or(BASE_PORT_DEFAULT);
        let own_ports = self.clients.is_some() && self.listen.is_some();
        if !own_ports && id > REPLICAS_MAX {
            return Err(format!(
                "above replica {REPLICAS_MAX} kv join needs --clients and --listen"
            ));
        }
        let replica = ReplicaId::new(id);
        Ok(Newcomer {
            dir,
            of,
            replica,
            base_port,
            clients: self.clients,
            listen: self.listen,
            replaces: self.replace.map(ReplicaId::new),
        })
    }

    fn into_invocation(self) -> Result<Invocation, String> {
        if let ["join", dir] = self.words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            let dir = PathBuf::from(dir);
            return self.into_newcomer(dir).map(Invocation::Join);
        }
        let joins = [&self.clients, &self.listen].iter().any(|given| given.is_some());
        if joins || self.of.is_some() || self.replica.is_some() || self.replace.is_some() {
            return Err(
                "--of, --replica, --replace, --clients and --listen are of kv join".to_owned()
            );
        }
        self.into_other()
    }

    /// All but `kv join`.
    fn into_other(self) -> Result<Invocation, String> {
        let refuse = |given: bool, option: &str, command: &str| {
            if given { Err(format!("{command} takes no {option}; see kv --help")) } else { Ok(()) }
        };
        let words: Vec<&str> = self.words.iter().map(String::as_str).collect();
        match words[..] {
            [] => {
                refuse(self.replicas.is_some(), "--replicas", "kv alone")?;
                refuse(self.lease.is_some(), "--lease", "kv alone")?;
                refuse(self.snapshot_rate.is_some(), "--snapshot-rate", "kv alone")?;
                refuse(self.trace_out.is_some(), "--trace-out", "kv alone")?;
                refuse(self.admin.is_some(), "--admin", "kv alone")?;
                refuse(self.from.is_some(), "--from", "kv alone")?;
                Ok(Invocation::Demo {
                    data: self.data.unwrap_or_else(|| "kv-data".into()),
                    base_port: self.base_port,
                    reads: self.reads.unwrap_or_default(),
                    snapshot_mib: self.snapshot_mib.unwrap_or(SNAPSHOT_MIB_DEFAULT),
                })
            }
            ["init", dir] => {
                refuse(self.data.is_some(), "--data", "kv init")?;
                refuse(self.reads.is_some(), "--reads", "kv init")?;
                refuse(self.snapshot_mib.is_some(), "--snapshot-mib", "kv init")?;
                refuse(self.snapshot_rate.is_some(), "--snapshot-rate", "kv init")?;
                refuse(self.trace_out.is_some(), "--trace-out", "kv init")?;
                refuse(self.admin.is_some(), "--admin", "kv init")?;
                Ok(Invocation::Init {
                    dir: dir.into(),
                    replicas: self.replicas.ok_or("kv init needs --replicas N")?,
                    base_port: self.base_port.unwrap_or(BASE_PORT_DEFAULT),
                    lease: self.lease,
                    from: self.from,
                })
            }
            ["adopt", dir] => {
                let dir = dir.into();
                let bare = Self { words: Vec::new(), ..Self::default() };
                if (Self { words: Vec::new(), ..self }) != bare {
                    return Err("kv adopt takes no options; see kv --help".to_owned());
                }
                Ok(Invocation::Adopt { dir })
            }
            ["serve", dir] => {
                refuse(self.data.is_some(), "--data", "kv serve")?;
                refuse(self.replicas.is_some(), "--replicas", "kv serve")?;
                refuse(self.base_port.is_some(), "--base-port", "kv serve")?;
                refuse(self.lease.is_some(), "--lease", "kv serve")?;
                refuse(self.from.is_some(), "--from", "kv serve")?;
                let (reads, trace_out) = (self.reads.unwrap_or_default(), self.trace_out);
                let snapshot_mib = self.snapshot_mib.unwrap_or(SNAPSHOT_MIB_DEFAULT);
                let snapshot_rate = self.snapshot_rate.unwrap_or(SNAPSHOT_RATE_DEFAULT);
                let (dir, admin) = (dir.into(), self.admin);
                let pace = SnapshotPace { every_mib: snapshot_mib, mib_per_second: snapshot_rate };
                Ok(Invocation::Serve { dir, reads, trace_out, pace, admin })
            }
            ["init" | "serve" | "adopt" | "join"] => {
                Err(format!("kv {} needs a directory; see kv --help", words[0]))
            }
            ["init" | "serve" | "adopt" | "join", _, extra, ..] => {
                Err(format!("unexpected argument {extra}; see kv --help"))
            }
            [other, ..] => Err(format!("unknown command {other}; see kv --help")),
        }
    }
}

/// The base port of a cluster that is laid out without naming one.
pub(crate) fn base_port_or_default(given: Option<u16>) -> u16 {
    given.unwrap_or(BASE_PORT_DEFAULT)
}

fn base_port(text: &str) -> Result<u16, String> {
    let highest = u16::MAX - PORTS_ABOVE_BASE;
    match text.parse() {
        Ok(port) if port >= 1 && port <= highest => Ok(port),
        _ => Err(format!("--base-port is 1 to {highest}, not {text}")),
    }
}

fn replica(name: &str, text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(id) if id > 0 => Ok(id),
        _ => Err(format!("{name} is the number of a replica, 1 or above, not {text}")),
    }
}

fn address(name: &str, text: String) -> Result<String, String> {
    let parts = text.rsplit_once(':');
    if parts.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok()) {
        Ok(text)
    } else {
        Err(format!("{name} is HOST:PORT, not {text}"))
    }
}

fn reads(text: &str) -> Result<Consistency, String> {
    let lag = |millis: &str| millis.parse().ok().map(Duration::from_millis);
    match text.strip_prefix("stale:").map(lag) {
        None if text == "linearizable" => Ok(Consistency::Linearizable),
        None if text == "quorum" => Ok(Consistency::Quorum),
        Some(Some(lag_max)) => Ok(Consistency::Stale { lag_max }),
        None | Some(None) => {
            Err(format!("--reads is linearizable, quorum or stale:MS, not {text}"))
        }
    }
}

fn snapshot_mib(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(mib) if SNAPSHOT_MIB.contains(&mib) => Ok(mib),
        _ => Err(format!("--snapshot-mib is 1 to 65536, not {text}")),
    }
}

fn snapshot_rate(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(mib) if SNAPSHOT_MIB.contains(&mib) => Ok(mib),
        _ => Err(format!("--snapshot-rate is 1 to 65536, not {text}")),
    }
}

fn lease(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(millis) if LEASE_MILLIS.contains(&millis) => Ok(Duration::from_millis(millis)),
        _ => Err(format!("--lease is 200 to 500 milliseconds, not {text}")),
    }
}

fn replicas(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(count) if (1..=REPLICAS_MAX).contains(&count) => Ok(count),
        _ => Err(format!("--replicas is 1 to {REPLICAS_MAX}, not {text}")),
    }
}
