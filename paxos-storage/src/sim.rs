//! A file system in memory that loses power and breaks on demand, for the simulator and tests.
//!
//! Owns: [`SimFs`]. The same log runs on it as on a disk.
//! Invariants: the same calls with the same seeds give the same results; what was synced without
//! an error survives a crash; of what was not, each 512-byte sector and each change of a name
//! survives or not by itself, as a device that writes in any order would have it. Directories
//! themselves are durable at once.
//! Source: "Can Applications Recover from fsync Failures?" (ATC 2020), for what a failed sync leaves
//! behind.

mod crash;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::fs::{FileSystem, LogFile};

pub use crash::SimWal;

/// What a device writes as a whole or not at all.
pub const SECTOR_LEN: usize = 512;

/// A kind of call that can be made to fail, and that a trace names.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum SimOp {
    /// [`LogFile::read_at`].
    Read,
    /// [`LogFile::write_at`].
    Write,
    /// [`LogFile::sync_data`].
    Sync,
    /// [`FileSystem::create`].
    Create,
    /// [`FileSystem::rename`].
    Rename,
    /// [`FileSystem::remove`].
    Remove,
    /// [`FileSystem::sync_dir`].
    SyncDir,
}

/// The simulated file system. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct SimFs {
    disk: Arc<Mutex<Disk>>,
}

/// An open file of [`SimFs`]. Worthless after a crash.
#[derive(Debug)]
pub struct SimFile {
    disk: Arc<Mutex<Disk>>,
    path: PathBuf,
    inode: usize,
    life: u64,
}

/// A lock of [`SimFs`].
#[derive(Debug)]
pub struct SimLock {
    disk: Arc<Mutex<Disk>>,
    path: PathBuf,
    life: u64,
}

#[derive(Debug, Default)]
struct Disk {
    /// Counts crashes; handles of an earlier life fail.
    life: u64,
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    pending: Vec<Naming>,
    dirs: BTreeSet<PathBuf>,
    locks: BTreeSet<PathBuf>,
    capacity: Option<u64>,
    faults: Vec<Fault>,
    /// How many more changes succeed before the power goes.
    power: Option<u64>,
    disturbed: bool,
    calls: u64,
    trace: Option<Vec<(SimOp, PathBuf)>>,
}

#[derive(Debug, Default)]
struct Inode {
    cache: Vec<u8>,
    durable: Vec<u8>,
    dirty: BTreeSet<usize>,
}

/// A change of a name that its directory's sync has not made durable.
#[derive(Clone, Debug)]
enum Naming {
    Link(PathBuf, usize),
    /// The file itself, so that it is the one that gets the new name, whatever a crash leaves under
    /// the old one.
    Rename(PathBuf, PathBuf, usize),
    Unlink(PathBuf),
}

#[derive(Debug)]
struct Fault {
    op: SimOp,
    skip: u64,
    kind: io::ErrorKind,
}

impl SimFs {
    /// An empty disk without bounds.
    pub fn new() -> Self {
        Self::default()
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        lock(&self.disk)
    }

    /// The power goes, and comes back: locks and handles are gone, and of everything that was not
    /// synced any part survives, chosen by the seed.
    pub fn crash(&self, seed: u64) {
        let mut random = Random(seed);
        let disk = &mut *self.disk();
        disk.life += 1;
        disk.locks.clear();
        disk.faults.clear();
        disk.power = None;
        for naming in std::mem::take(&mut disk.pending) {
            if random.coin() {
                naming.apply(&mut disk.durable_names);
            }
        }
        disk.names.clone_from(&disk.durable_names);
        for inode in &mut disk.inodes {
            inode.settle(&mut random);
            inode.cache.clone_from(&inode.durable);
        }
    }

    /// The process dies, and the machine goes on: locks and handles are gone, and nothing else.
    pub fn kill(&self) {
        let mut disk = self.disk();
        disk.life += 1;
        disk.locks.clear();
        disk.power = None;
    }

    /// After `changes` more writes, syncs and changes of names, every call fails until
    /// [`SimFs::crash`] or [`SimFs::kill`].
    pub fn cut_power_after(&self, changes: u64) {
        self.disk().power = Some(changes);
    }

    /// The call of this kind after `skip` more of them fails, once, with this kind of error. A
    /// failed sync leaves what was dirty in the cache, marked clean, with an arbitrary part of it
    /// on the device.
    pub fn fail(&self, op: SimOp, skip: u64, kind: io::ErrorKind) {
        self.disk().faults.push(Fault { op, skip, kind });
    }

    /// From here on, some reads and writes are interrupted, and some are short.
    pub fn disturb(&self) {
        self.disk().disturbed = true;
    }

    /// Bounds the sum of the sizes of all files; `None` lifts the bound.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.disk().capacity = bytes;
    }

    /// The sum of the sizes of all files.
    pub fn used(&self) -> u64 {
        self.disk().used()
    }

    /// Starts a trace, and returns the calls that the last one held, in order.
    pub fn trace(&self) -> Vec<(SimOp, PathBuf)> {
        self.disk().trace.replace(Vec::new()).unwrap_or_default()
    }

    /// The paths of all files.
    pub fn files(&self) -> Vec<PathBuf> {
        self.disk().names.keys().cloned().collect()
    }

    /// The contents of a file, if it exists.
    pub fn contents(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        let disk = self.disk();
        let inode = disk.names.get(path.as_ref())?;
        Some(disk.inodes[*inode].cache.clone())
    }

    /// Whether a file exists and every byte of it is durable.
    pub fn is_durable(&self, path: impl AsRef<Path>) -> bool {
        let disk = self.disk();
        let inode = disk.names.get(path.as_ref());
        inode.is_some_and(|inode| {
            let inode = &disk.inodes[*inode];
            inode.cache == inode.durable
        })
    }

    /// Replaces the contents of a file, durably, as damage or an operator would.
    pub fn replace(&self, path: impl AsRef<Path>, bytes: Vec<u8>) {
        let disk = &mut *self.disk();
        let path = path.as_ref();
        let inode = disk.names.get(path).copied().unwrap_or_else(|| {
            disk.inodes.push(Inode::default());
            disk.inodes.len() - 1
        });
        disk.names.insert(path.to_owned(), inode);
        disk.durable_names.insert(path.to_owned(), inode);
        disk.inodes[inode] = Inode { cache: bytes.clone(), durable: bytes, dirty: BTreeSet::new() };
    }
}

fn lock(disk: &Mutex<Disk>) -> MutexGuard<'_, Disk> {
    disk.lock().expect("no call of the simulated disk panics while it holds the lock")
}

fn broken() -> io::Error {
    io::Error::other("injected input/output error")
}

impl Disk {
    /// Notes a call, and fails it where that was asked for.
    fn call(&mut self, op: SimOp, path: &Path) -> io::Result<()> {
        self.calls += 1;
        if let Some(trace) = &mut self.trace {
            trace.push((op, path.to_owned()));
        }
        match &mut self.power {
            Some(0) => return Err(broken()),
            Some(changes) if op != SimOp::Read => *changes -= 1,
            Some(_) | None => {}
        }
        let mut failed = None;
        self.faults.retain_mut(|fault| {
            if fault.op != op {
                return true;
            }
            if fault.skip > 0 || failed.is_some() {
                fault.skip = fault.skip.saturating_sub(1);
                return true;
            }
            failed = Some(fault.kind);
            false
        });
        match failed {
            Some(io::ErrorKind::Other) => Err(broken()),
            Some(kind) => Err(kind.into()),
            None => Ok(()),
        }
    }

    /// How much of a transfer goes through, where they are disturbed.
    fn transfer(&self, len: usize) -> io::Result<usize> {
        match self.calls % 5 {
            1 if self.disturbed => Err(io::ErrorKind::Interrupted.into()),
            3 if self.disturbed => Ok(len.div_ceil(2)),
            _ => Ok(len),
        }
    }

    fn used(&self) -> u64 {
        self.names.values().map(|inode| self.inodes[*inode].cache.len() as u64).sum()
    }

    fn find(&self, path: &Path) -> io::Result<usize> {
        let inode = self.names.get(path).copied();
        inode.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn name(&mut self, naming: Naming) {
        naming.apply(&mut self.names);
        self.pending.push(naming);
    }
}

impl Naming {
    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            Self::Link(path, inode) => {
                names.insert(path.clone(), *inode);
            }
            Self::Rename(from, to, inode) => {
                if names.get(from) == Some(inode) {
                    names.remove(from);
                }
                names.insert(to.clone(), *inode);
            }
            Self::Unlink(path) => {
                names.remove(path);
            }
        }
    }

    fn dir(&self) -> Option<&Path> {
        match self {
            Self::Link(path, _) | Self::Rename(path, ..) | Self::Unlink(path) => path.parent(),
        }
    }
}

impl Inode {
    /// Any part of what is dirty reaches the device.
    fn settle(&mut self, random: &mut Random) {
        if self.cache.len() != self.durable.len() && random.coin() {
            self.durable.resize(self.cache.len(), 0);
        }
        for sector in std::mem::take(&mut self.dirty) {
            if random.coin() {
                self.write_back(sector);
            }
        }
    }

    fn write_back(&mut self, sector: usize) {
        let start = sector * SECTOR_LEN;
        let end = (start + SECTOR_LEN).min(self.cache.len());
        if start >= end {
            return;
        }
        if self.durable.len() < end {
            self.durable.resize(end, 0);
        }
        self.durable[start..end].copy_from_slice(&self.cache[start..end]);
    }
}

impl FileSystem for SimFs {
    type File = SimFile;
    type Lock = SimLock;

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        for dir in path.ancestors() {
            disk.dirs.insert(dir.to_owned());
        }
        Ok(())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let disk = self.disk();
        Ok(disk.names.contains_key(path) || disk.dirs.contains(path))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let disk = self.disk();
        let names: BTreeSet<_> = disk
            .names
            .keys()
            .chain(&disk.dirs)
            .filter(|child| child.parent() == Some(path))
            .filter_map(|child| Some(child.file_name()?.to_string_lossy().into_owned()))
            .collect();
        Ok(names.into_iter().collect())
    }

    fn open(&self, path: &Path) -> io::Result<SimFile> {
        let disk = self.disk();
        Ok(SimFile {
            disk: Arc::clone(&self.disk),
            path: path.to_owned(),
            inode: disk.find(path)?,
            life: disk.life,
        })
    }

    fn create(&self, path: &Path) -> io::Result<SimFile> {
        let mut disk = self.disk();
        disk.call(SimOp::Create, path)?;
        if disk.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        disk.inodes.push(Inode::default());
        let inode = disk.inodes.len() - 1;
        disk.name(Naming::Link(path.to_owned(), inode));
        Ok(SimFile { disk: Arc::clone(&self.disk), path: path.to_owned(), inode, life: disk.life })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.call(SimOp::Rename, to)?;
        let inode = disk.find(from)?;
        disk.name(Naming::Rename(from.to_owned(), to.to_owned(), inode));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.call(SimOp::Remove, path)?;
        disk.find(path)?;
        disk.name(Naming::Unlink(path.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let disk = &mut *self.disk();
        disk.call(SimOp::SyncDir, path)?;
        let durable = &mut disk.durable_names;
        disk.pending.retain(|naming| {
            let here = naming.dir() == Some(path);
            if here {
                naming.apply(durable);
            }
            !here
        });
        Ok(())
    }

    fn try_lock(&self, path: &Path) -> io::Result<Option<SimLock>> {
        let mut disk = self.disk();
        if !disk.locks.insert(path.to_owned()) {
            return Ok(None);
        }
        Ok(Some(SimLock { disk: Arc::clone(&self.disk), path: path.to_owned(), life: disk.life }))
    }

    fn wait(&self, _duration: Duration) {}

    fn background(&self, job: Box<dyn FnOnce() + Send>) {
        job();
    }
}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut disk = lock(&self.disk);
        if disk.life == self.life {
            disk.locks.remove(&self.path);
        }
    }
}

impl SimFile {
    fn alive(&self) -> io::Result<MutexGuard<'_, Disk>> {
        let disk = lock(&self.disk);
        if disk.life == self.life { Ok(disk) } else { Err(broken()) }
    }
}

impl LogFile for SimFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.alive()?.inodes[self.inode].cache.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut disk = self.alive()?;
        disk.call(SimOp::Read, &self.path)?;
        let cache = &disk.inodes[self.inode].cache;
        let rest = cache.get(offset as usize..).unwrap_or_default();
        let len = disk.transfer(rest.len().min(buffer.len()))?;
        buffer[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let disk = &mut *self.alive()?;
        disk.call(SimOp::Write, &self.path)?;
        let len = disk.transfer(bytes.len())?;
        let (start, end) = (offset as usize, offset as usize + len);
        let size = disk.inodes[self.inode].cache.len();
        let more = end.saturating_sub(size) as u64;
        if disk.capacity.is_some_and(|most| more > 0 && disk.used() + more > most) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let inode = &mut disk.inodes[self.inode];
        if size < end {
            inode.cache.resize(end, 0);
        }
        inode.cache[start..end].copy_from_slice(&bytes[..len]);
        let first = start.min(size) / SECTOR_LEN;
        inode.dirty.extend(first..end.div_ceil(SECTOR_LEN));
        Ok(len)
    }

    fn sync_data(&mut self) -> io::Result<()> {
        let disk = &mut *self.alive()?;
        let called = disk.call(SimOp::Sync, &self.path);
        let mut random = Random(disk.calls);
        let inode = &mut disk.inodes[self.inode];
        if called.is_err() {
            // Without power nothing happens to the cache before the crash.
            if disk.power != Some(0) {
                inode.settle(&mut random);
            }
            return called;
        }
        inode.durable.resize(inode.cache.len(), 0);
        for sector in std::mem::take(&mut inode.dirty) {
            inode.write_back(sector);
        }
        Ok(())
    }

    fn set_size(&mut self, size: u64) -> io::Result<()> {
        let disk = &mut *self.alive()?;
        disk.call(SimOp::Write, &self.path)?;
        let inode = &mut disk.inodes[self.inode];
        inode.cache.resize(size as usize, 0);
        Ok(())
    }
}

/// `SplitMix64`.
struct Random(u64);

impl Random {
    fn coin(&mut self) -> bool {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) & 1 == 1
    }
}
