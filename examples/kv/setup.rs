//! Lays out the directories of a new cluster.
//!
//! Owns: what `kv init` and `kv adopt` write. Invariants: nothing that is there is touched; a layout appears whole
//! under its name or not at all.
//!
//! The log is formatted here, and only opened later: a replica whose log is gone may have
//! forgotten votes, and is not started as if it were new.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use paxos::backup::Backup;
use paxos::quic::Identity;
use paxos::storage::Wal;
use paxos::storage::inspect::Inspection;
use paxos::{ClusterId, Consistency, Format, GroupId, Member, ReplicaId};

use crate::cli::SnapshotPace;
use crate::config::{self, FILE, Settings};
use crate::replica::wal_options;

pub(crate) const KEY_FILE: &str = "key.pem";
const DATA_DIR: &str = "data";
/// The peers' ports begin so far above the clients'.
const PEER_PORTS: u16 = 100;

/// What a cluster is laid out as.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan<'a> {
    pub(crate) replicas: u16,
    pub(crate) base_port: u16,
    pub(crate) lease: Option<Duration>,
    /// What all replicas begin with.
    pub(crate) from: Option<&'a Backup>,
}

/// Writes `dir/1` to `dir/replicas`.
pub(crate) fn init(dir: &Path, plan: Plan<'_>) -> Result<(), String> {
    init_if(dir, plan, || Ok(()))
}

/// As [`init`], but leaves nothing behind where a port of a replica is taken: a layout for ports
/// that never worked would stand in the way of a start with others.
pub(crate) fn init_on_free_ports(dir: &Path, replicas: u16, base_port: u16) -> Result<(), String> {
    let probe_all = || (1..=replicas).try_for_each(|id| probe(id, base_port));
    init_if(dir, Plan { replicas, base_port, lease: None, from: None }, probe_all)
}

fn init_if(
    dir: &Path,
    plan: Plan<'_>,
    ready: impl FnOnce() -> Result<(), String>,
) -> Result<(), String> {
    fresh(dir)?;
    let unfinished = unfinished_name(dir)?;
    let failed = |error: io::Error| match dir.parent() {
        Some(parent) if error.kind() == io::ErrorKind::NotFound => {
            format!("cannot create {}: create {} first", dir.display(), parent.display())
        }
        _ => cannot("create", dir, &error),
    };
    fs::create_dir(&unfinished).map_err(failed)?;
    let laid_out = lay_out(&unfinished, plan)
        .and_then(|()| ready())
        .and_then(|()| fs::rename(&unfinished, dir).map_err(|error| cannot("create", dir, &error)));
    if laid_out.is_err() {
        // The first error is the one to report.
        let _removed = fs::remove_dir_all(&unfinished);
    }
    laid_out
}

/// Nothing is laid out where something is.
pub(crate) fn fresh(dir: &Path) -> Result<(), String> {
    if fs::symlink_metadata(dir).is_ok() {
        return Err(format!("{} exists already: nothing was changed", dir.display()));
    }
    Ok(())
}

/// Binds what a replica will bind, for a moment.
fn probe(id: u16, base_port: u16) -> Result<(), String> {
    let refused = |who: &str, address: &str, error: &io::Error| {
        let why = if error.kind() == io::ErrorKind::AddrInUse {
            "it is in use: stop what listens there, or give another --base-port".to_owned()
        } else {
            error.to_string()
        };
        format!("replica {id}: cannot listen for {who} on {address}: {why}")
    };
    let clients = loopback(base_port + id);
    TcpListener::bind(&clients).map_err(|error| refused("clients", &clients, &error))?;
    let peers = loopback(base_port + PEER_PORTS + id);
    UdpSocket::bind(&peers).map_err(|error| refused("peers", &peers, &error))?;
    Ok(())
}

fn lay_out(dir: &Path, plan: Plan<'_>) -> Result<(), String> {
    let Plan { replicas, base_port, lease, from } = plan;
    let ids: Vec<_> = (1..=replicas).collect();
    let mut members = Vec::new();
    let mut cluster = 0;
    for &id in &ids {
        let home = dir.join(id.to_string());
        fs::create_dir(&home).map_err(|error| cannot("create", &home, &error))?;
        let identity =
            Identity::load_or_generate(home.join(KEY_FILE)).map_err(|error| error.to_string())?;
        let pin = identity.pin();
        // The keys are drawn at random, so what is made of their hashes is as unique as they are.
        let half = pin.first_chunk().expect("a pin has 32 bytes");
        cluster ^= u128::from_le_bytes(*half).rotate_left(u32::from(id));
        members.push(Member {
            id: ReplicaId::new(id),
            addresses: vec![listen_of(id, base_port)],
            keys: vec![pin],
        });
    }
    let membership = config::membership(members).map_err(|error| error.to_string())?;
    let membership = config::with_lease(membership, lease);
    for id in ids {
        let home = dir.join(id.to_string());
        let format = Format {
            cluster: ClusterId::new(cluster),
            group: GroupId::new(0),
            replica: ReplicaId::new(id),
            membership: membership.clone(),
        };
        let mut wal =
            write_home(&home, format, &clients_of(id, base_port), &listen_of(id, base_port))?;
        if let Some(backup) = from {
            backup.found(&mut wal).map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}

/// Writes the config beside the key, and formats the log.
pub(crate) fn write_home(
    home: &Path,
    format: Format,
    clients: &str,
    listen: &str,
) -> Result<Wal, String> {
    let settings = Settings {
        format,
        clients: clients.to_owned(),
        listen: listen.to_owned(),
        data: home.join(DATA_DIR),
        key: home.join(KEY_FILE),
        file: home.join(FILE),
        reads: Consistency::default(),
        pace: SnapshotPace::default(),
        trace_out: None,
        admin: None,
    };
    fs::write(&settings.file, settings.text(DATA_DIR, KEY_FILE))
        .map_err(|error| cannot("write", &settings.file, &error))?;
    Wal::format(&settings.data, &settings.format, wal_options()).map_err(|error| error.to_string())
}

/// Writes the config of a replica anew from what its data directory says, as after `paxosctl recover`: the
/// cluster, and who its members are. Ports and paths stay. Returns what is written there now.
pub(crate) fn adopt(dir: &Path) -> Result<Settings, String> {
    let settings = config::load(dir)?;
    let inspection = Inspection::open(&settings.data).map_err(|error| error.to_string())?;
    let format = inspection.format().clone();
    if format.replica != settings.format.replica {
        return Err(format!(
            "{} is of {}, and {} of {}: they do not belong together",
            settings.data.display(),
            format.replica,
            settings.file.display(),
            settings.format.replica
        ));
    }
    let named = |path: &Path| {
        let within = path.strip_prefix(dir).unwrap_or(path);
        let text = within.to_str().map(ToOwned::to_owned);
        text.ok_or_else(|| format!("{} is not UTF-8", path.display()))
    };
    let text = Settings { format: format.clone(), ..settings.clone() };
    let text = text.text(&named(&settings.data)?, &named(&settings.key)?);
    let unfinished = settings.file.with_extension("toml.unfinished");
    let written = File::create(&unfinished).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&unfinished, &settings.file)?;
        File::open(dir)?.sync_all()
    });
    written.map_err(|error| cannot("write", &settings.file, &error))?;
    Ok(Settings { format, ..settings })
}

/// Where clients of a replica connect that is laid out with the others.
pub(crate) fn clients_of(id: u16, base_port: u16) -> String {
    loopback(base_port + id)
}

/// Where its peers connect.
pub(crate) fn listen_of(id: u16, base_port: u16) -> String {
    loopback(base_port + PEER_PORTS + id)
}

fn loopback(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

/// A name beside the directory, so that it can be renamed.
pub(crate) fn unfinished_name(dir: &Path) -> Result<PathBuf, String> {
    let name =
        dir.file_name().ok_or_else(|| format!("{} is no name for a directory", dir.display()))?;
    let mut unfinished = OsString::from(".");
    unfinished.push(name);
    unfinished.push(format!(".unfinished-{}", std::process::id()));
    Ok(dir.with_file_name(unfinished))
}

pub(crate) fn cannot(what: &str, path: &Path, error: &io::Error) -> String {
    format!("cannot {what} {}: {error}", path.display())
}
