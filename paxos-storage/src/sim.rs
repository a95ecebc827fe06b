//! A file system in memory that loses power and breaks on demand, for the simulator and tests.
//!
//! Owns: [`SimFs`], the hand on its switches. The same log runs on it as on a disk.
//! Invariants: the same calls with the same seeds give the same results; what was synced without
//! an error, by a disk that does not lie, survives a crash; of what was not, each 512-byte sector
//! and each change of a name survives or not by itself, as a device that writes in any order would
//! have it. Directories themselves are durable at once.
//! Source: docs/verification.md; "Redundancy Does Not Imply Fault Tolerance" (FAST 2017), for what
//! devices do to data that nobody touches.

mod crash;
mod device;
mod files;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use device::{Disk, Effect, Fault, Inode, Random, lock};

pub use crash::SimWal;
pub use files::{SimFile, SimLock};

/// What a device writes as a whole or not at all.
pub const SECTOR_LEN: usize = 512;

/// A kind of call that can be made to fail, and that a trace names.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum SimOp {
    /// [`crate::fs::LogFile::read_at`].
    Read,
    /// [`crate::fs::LogFile::write_at`] and [`crate::fs::LogFile::set_size`].
    Write,
    /// [`crate::fs::LogFile::sync_data`].
    Sync,
    /// [`crate::fs::FileSystem::create`].
    Create,
    /// [`crate::fs::FileSystem::rename`].
    Rename,
    /// [`crate::fs::FileSystem::remove`].
    Remove,
    /// [`crate::fs::FileSystem::sync_dir`].
    SyncDir,
}

/// The simulated file system. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct SimFs {
    disk: Arc<Mutex<Disk>>,
}

impl SimFs {
    /// An empty disk without bounds.
    pub fn new() -> Self {
        Self::default()
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        lock(&self.disk)
    }

    /// Another disk with the same contents, in the cache and on the device, and the same faults to
    /// come. Handles and locks stay with the first.
    #[must_use]
    pub fn fork(&self) -> Self {
        let mut disk = self.disk().clone();
        disk.life += 1;
        disk.locks.clear();
        Self { disk: Arc::new(Mutex::new(disk)) }
    }

    /// The power goes, and comes back: locks and handles are gone, and of everything that was not
    /// synced any part survives, chosen by the seed.
    pub fn crash(&self, seed: u64) {
        let mut random = Random(seed);
        self.crash_keeping(|_| random.coin());
    }

    /// The power goes, and comes back. What was not synced (sectors, sizes, changes of names) is
    /// counted from 0 in the order in which it was written, and `keep` says which of it survives:
    /// `|at| at < n` is a write that was torn after so many sectors.
    pub fn crash_keeping(&self, keep: impl FnMut(usize) -> bool) {
        self.disk().crash(keep);
    }

    /// How many sectors, sizes and changes of names a crash may take.
    pub fn unsynced(&self) -> usize {
        self.disk().unsynced()
    }

    /// The process dies, and the machine goes on: locks and handles are gone, and nothing else.
    pub fn kill(&self) {
        self.disk().end_process();
    }

    /// After `changes` more writes, syncs and changes of names, every call fails until
    /// [`SimFs::crash`] or [`SimFs::kill`].
    pub fn cut_power_after(&self, changes: u64) {
        self.disk().power = Some(changes);
    }

    /// How many writes, syncs and changes of names there were.
    pub fn changes(&self) -> u64 {
        self.disk().changes
    }

    /// The call of this kind after `skip` more of them fails, once, with this kind of error. A
    /// failed sync leaves what was dirty in the cache, marked clean, with an arbitrary part of it
    /// on the device.
    pub fn fail(&self, op: SimOp, skip: u64, kind: io::ErrorKind) {
        self.disk().faults.push(Fault { op, skip, effect: Effect::Fail(kind) });
    }

    /// The write or read after `skip` more of them goes astray, once, without an error: the first
    /// sector of a write comes to lie elsewhere on the device, over something else, while the cache
    /// shows it where it belongs; a read returns what stands elsewhere. The seed says where.
    pub fn misdirect(&self, op: SimOp, skip: u64, seed: u64) {
        self.disk().faults.push(Fault { op, skip, effect: Effect::Misdirect(seed) });
    }

    /// How many of the failures that were asked for have not struck.
    pub fn faults_left(&self) -> usize {
        self.disk().faults.len()
    }

    /// Forgets the failures that were asked for and have not struck.
    pub fn clear_faults(&self) {
        self.disk().faults.clear();
    }

    /// Takes away the failures to come, to be given back.
    fn hold_faults(&self) -> Vec<Fault> {
        std::mem::take(&mut self.disk().faults)
    }

    fn release_faults(&self, faults: Vec<Fault>) {
        self.disk().faults = faults;
    }

    /// From here on to the next crash, syncs of files and directories return without an error, and
    /// make nothing durable.
    pub fn lie(&self) {
        self.disk().lying = true;
    }

    /// Whether it lies.
    pub fn is_lying(&self) -> bool {
        self.disk().lying
    }

    /// From here on each sync takes so much longer than usual.
    pub fn slow_down(&self, by: Duration) {
        self.disk().slow = by;
    }

    /// The next sync takes so much longer than usual.
    pub fn hang(&self, by: Duration) {
        self.disk().hang = by;
    }

    /// How much longer than usual the next sync will take.
    pub fn delay(&self) -> Duration {
        let disk = self.disk();
        disk.slow + disk.hang
    }

    /// How much longer than usual all syncs took so far.
    pub fn waited(&self) -> Duration {
        self.disk().waited
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
        Some(disk.inodes[*inode].cache.to_vec())
    }

    /// Where in a file the last write went: its first offset, and the one after its last.
    pub fn last_write(&self, path: impl AsRef<Path>) -> Option<(usize, usize)> {
        let disk = self.disk();
        let inode = disk.names.get(path.as_ref())?;
        Some(disk.inodes[*inode].last_write)
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

    /// A bit of a file rots on the device; a cache that holds a newer write does not show it. Nothing
    /// where there is no such byte.
    pub fn rot(&self, path: impl AsRef<Path>, byte: usize, bit: u8) {
        let disk = &mut *self.disk();
        if let Some(inode) = disk.names.get(path.as_ref()) {
            disk.flip(*inode, byte, bit);
        }
    }

    /// Writes over a part of a file, durably and past the log, as a misdirected write does. Ends
    /// with the file.
    pub fn overwrite(&self, path: impl AsRef<Path>, offset: usize, bytes: &[u8]) {
        let disk = &mut *self.disk();
        let Some(inode) = disk.names.get(path.as_ref()) else {
            return;
        };
        let file = &mut disk.inodes[*inode];
        for contents in [&mut file.cache, &mut file.durable] {
            let contents = Arc::make_mut(contents);
            let end = (offset + bytes.len()).min(contents.len());
            if offset < end {
                contents[offset..end].copy_from_slice(&bytes[..end - offset]);
            }
        }
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
        let bytes = Arc::new(bytes);
        let cache = Arc::clone(&bytes);
        disk.inodes[inode] = Inode { cache, durable: bytes, ..Inode::default() };
    }
}
