//! The simulated disk as the log sees it.
//!
//! Owns: [`SimFile`], [`SimLock`], and the calls of [`FileSystem`] and [`LogFile`]. Every call is
//! noted and may be made to fail; what it does to the disk is the device's affair.
//! Invariant: a handle of an earlier life of the process does nothing.
//! Source: what POSIX promises of these calls, as [`crate::fs`] states it.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use super::device::{Disk, Inode, Naming, Place, Random, broken, lock};
use super::{SECTOR_LEN, SimFs, SimOp};
use crate::fs::{FileSystem, LogFile};

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
        disk.wait();
        if disk.lying {
            return Ok(());
        }
        let durable = &mut disk.durable_names;
        disk.pending.retain(|(_, naming)| {
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

    fn at(&self, offset: usize) -> Place {
        Place { inode: self.inode, sector: offset / SECTOR_LEN }
    }
}

impl LogFile for SimFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.alive()?.inodes[self.inode].cache.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut disk = self.alive()?;
        let astray = disk.call(SimOp::Read, &self.path)?;
        let cache = &disk.inodes[self.inode].cache;
        let rest = cache.get(offset as usize..).unwrap_or_default();
        let len = disk.transfer(rest.len().min(buffer.len()))?;
        let other = astray.and_then(|seed| disk.elsewhere(seed, self.at(offset as usize)));
        let Some(other) = other else {
            buffer[..len].copy_from_slice(&rest[..len]);
            return Ok(len);
        };
        let there = &disk.inodes[other.inode].durable;
        let found = there.get(other.sector * SECTOR_LEN..).unwrap_or_default();
        let found = &found[..len.min(found.len())];
        buffer[..found.len()].copy_from_slice(found);
        buffer[found.len()..len].fill(0);
        Ok(len)
    }

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let disk = &mut *self.alive()?;
        let astray = disk.call(SimOp::Write, &self.path)?;
        let len = disk.transfer(bytes.len())?;
        let (start, end) = (offset as usize, offset as usize + len);
        let size = disk.inodes[self.inode].cache.len();
        let more = end.saturating_sub(size) as u64;
        if disk.capacity.is_some_and(|most| more > 0 && disk.used() + more > most) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        disk.write(self.inode, &bytes[..len], start);
        // One sector of the write goes astray on its way to the device.
        let target = astray.and_then(|seed| disk.elsewhere(seed, self.at(start)));
        if let Some(target) = target {
            disk.inodes[self.inode].astray.insert(start / SECTOR_LEN, target);
        }
        Ok(len)
    }

    fn sync_data(&mut self) -> io::Result<()> {
        let disk = &mut *self.alive()?;
        let called = disk.call(SimOp::Sync, &self.path);
        disk.wait();
        if called.is_err() {
            // Without power nothing happens to the cache before the crash.
            if disk.power != Some(0) {
                let mut random = Random(disk.calls);
                disk.sync_in_part(self.inode, || random.coin());
            }
            return called.map(|_| ());
        }
        if !disk.lying {
            disk.sync(self.inode);
        }
        Ok(())
    }

    fn set_size(&mut self, size: u64) -> io::Result<()> {
        let disk = &mut *self.alive()?;
        disk.call(SimOp::Write, &self.path)?;
        let order = disk.next_order();
        let file = &mut disk.inodes[self.inode];
        Arc::make_mut(&mut file.cache).resize(size as usize, 0);
        file.resized = Some(order);
        Ok(())
    }
}
