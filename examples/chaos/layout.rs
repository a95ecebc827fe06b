//! Where replicas are and how they reach each other, before any of them runs.
//!
//! Owns: their directories, addresses and namespaces, and the one small file system. Starts no
//! replica.
//! Invariants: a replica knows every peer by the router's address for that pair; what is made is
//! announced to the guard first.

use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};

use crate::ability::{Abilities, must};
use crate::guard::{Guard, Remains};
use crate::proxy::Proxy;
use crate::space::{self, Space};

/// What takes the room on a full disk.
const BALLAST: &str = "ballast";

/// How a cluster is to be laid out.
#[derive(Debug)]
pub(crate) struct Plan<'run> {
    pub(crate) kv: &'run Path,
    pub(crate) dir: &'run Path,
    pub(crate) nodes: usize,
    /// For how long the leader's leases are, in milliseconds, if it has any.
    pub(crate) lease: Option<&'run str>,
    pub(crate) seed: u64,
    /// The replica to give a small file system, where that can be done, and its bytes.
    pub(crate) small_disk: (usize, u64),
}

/// What one replica was given.
#[derive(Debug)]
pub(crate) struct Home {
    pub(crate) dir: PathBuf,
    /// Where what it prints goes.
    pub(crate) output: PathBuf,
    pub(crate) clients: SocketAddr,
    pub(crate) space: Option<Space>,
}

/// A cluster that does not run yet.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) homes: Vec<Home>,
    pub(crate) proxy: Proxy,
    pub(crate) small_disk: Option<SmallDisk>,
}

/// The file system of a given size under one replica's log.
#[derive(Debug)]
pub(crate) struct SmallDisk {
    /// Whose it is.
    pub(crate) node: usize,
    place: PathBuf,
}

/// Lays out a cluster.
pub(crate) fn lay_out(
    plan: &Plan<'_>,
    abilities: &Abilities,
    guard: &Guard,
) -> Result<Layout, String> {
    let (kv, dir) = (plan.kv.display().to_string(), plan.dir.join("c"));
    let (place, count) = (dir.display().to_string(), plan.nodes.to_string());
    // The ports that are written here are replaced below.
    let mut init = vec!["init", &place, "--replicas", &count];
    if let Some(lease) = plan.lease {
        init.extend(["--lease", lease]);
    }
    must(&kv, &init)?;
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
    let side = |place: usize, space: Option<&Space>| {
        space.map_or_else(|| loopback(place + 100), |space| space.outside)
    };
    let sides: Vec<_> = (0..plan.nodes).map(|place| side(place, spaces[place].as_ref())).collect();
    let proxy = Proxy::start(&listens, &sides, plan.seed).map_err(failed)?;
    let mut homes = Vec::new();
    for (place, space) in spaces.into_iter().enumerate() {
        let home = dir.join((place + 1).to_string());
        let peers: Vec<_> = (0..plan.nodes)
            .map(|to| if to == place { listens[to] } else { proxy.pair(place, to).front })
            .collect();
        rewrite(&home.join("config.toml"), addresses[place], &peers)?;
        homes.push(Home {
            dir: home,
            output: plan.dir.join(format!("node-{}.log", place + 1)),
            clients: addresses[place].0,
            space,
        });
    }
    let small_disk = abilities
        .small_disks
        .then(|| SmallDisk::mount(plan, &homes[plan.small_disk.0].dir, guard))
        .transpose()?;
    Ok(Layout { homes, proxy, small_disk })
}

impl SmallDisk {
    /// Moves a replica's log to a file system of its own.
    fn mount(plan: &Plan<'_>, home: &Path, guard: &Guard) -> Result<Self, String> {
        let (node, bytes) = plan.small_disk;
        let place = plan.dir.join("small");
        let failed = |error: io::Error| format!("{}: {error}", place.display());
        fs::create_dir(&place).map_err(failed)?;
        guard.announce(&Remains::Mount(place.clone()))?;
        let size = format!("size={bytes}");
        must("mount", &["-t", "tmpfs", "-o", &size, "tmpfs", &place.display().to_string()])?;
        let (from, to) = (home.join("data"), place.join("data"));
        must("cp", &["-a", &from.display().to_string(), &to.display().to_string()])?;
        fs::remove_dir_all(&from).map_err(failed)?;
        std::os::unix::fs::symlink(&to, &from).map_err(failed)?;
        Ok(Self { node, place })
    }

    /// Leaves no room on it.
    pub(crate) fn fill(&self) -> Result<(), String> {
        let ballast = self.place.join(BALLAST);
        let failed = |error: io::Error| format!("{}: {error}", ballast.display());
        let mut file = File::create(&ballast).map_err(failed)?;
        match io::copy(&mut io::repeat(0), &mut file) {
            Err(error) if error.kind() == io::ErrorKind::StorageFull => Ok(()),
            Err(error) => Err(failed(error)),
            Ok(_) => unreachable!("there is no end of zeros"),
        }
    }

    /// Whether there is no room on it.
    pub(crate) fn is_filled(&self) -> bool {
        self.place.join(BALLAST).exists()
    }

    /// Makes room again.
    pub(crate) fn drain(&self) -> Result<(), String> {
        match fs::remove_file(self.place.join(BALLAST)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.to_string()),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

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
