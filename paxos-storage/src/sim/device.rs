//! What the simulated disk holds, and how it fails.
//!
//! Owns: [`Disk`]: the contents of every file as the page cache and as the device have them, the
//! names, and the faults that wait for their call. Knows no record and no segment.
//! Invariants: what a sync or a directory's sync returned for without an error, and did not lie
//! about, is in the durable image; a crash leaves of the rest whole sectors and whole changes of
//! names; the cache is what the device has after a crash.
//! Source: "Can Applications Recover from fsync Failures?" (ATC 2020), for what a failed sync leaves
//! behind; `TigerBeetle`'s simulated storage, for writes and reads that go astray.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use super::{SECTOR_LEN, SimOp};

#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    /// Counts crashes; handles of an earlier life fail.
    pub(super) life: u64,
    pub(super) inodes: Vec<Inode>,
    pub(super) names: BTreeMap<PathBuf, usize>,
    pub(super) durable_names: BTreeMap<PathBuf, usize>,
    pub(super) pending: Vec<(u64, Naming)>,
    pub(super) dirs: BTreeSet<PathBuf>,
    pub(super) locks: BTreeSet<PathBuf>,
    pub(super) capacity: Option<u64>,
    pub(super) faults: Vec<Fault>,
    /// How many more changes succeed before the power goes.
    pub(super) power: Option<u64>,
    pub(super) disturbed: bool,
    pub(super) lying: bool,
    /// How much longer every sync takes, and how much longer the next one does.
    pub(super) slow: Duration,
    pub(super) hang: Duration,
    pub(super) waited: Duration,
    pub(super) calls: u64,
    pub(super) changes: u64,
    /// Numbers what is not durable yet.
    order: u64,
    pub(super) trace: Option<Vec<(SimOp, PathBuf)>>,
}

/// The contents are shared with the forks of a disk until one of them changes.
#[derive(Clone, Debug, Default)]
pub(super) struct Inode {
    pub(super) cache: Arc<Vec<u8>>,
    pub(super) durable: Arc<Vec<u8>>,
    /// Each sector that differs, and when it was written last.
    pub(super) dirty: BTreeMap<usize, u64>,
    /// When the size was changed last, where that is not durable.
    pub(super) resized: Option<u64>,
    /// Sectors that the device will write to another place.
    pub(super) astray: BTreeMap<usize, Place>,
    /// Where the last write went.
    pub(super) last_write: (usize, usize),
}

/// A sector of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) inode: usize,
    pub(super) sector: usize,
}

/// A change of a name that its directory's sync has not made durable.
#[derive(Clone, Debug)]
pub(super) enum Naming {
    Link(PathBuf, usize),
    /// The file itself, so that it is the one that gets the new name, whatever a crash leaves under
    /// the old one.
    Rename(PathBuf, PathBuf, usize),
    Unlink(PathBuf),
}

/// What a call meets instead of success.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    pub(super) op: SimOp,
    pub(super) skip: u64,
    pub(super) effect: Effect,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Effect {
    Fail(io::ErrorKind),
    /// The transfer goes to, or comes from, another place, which the seed names.
    Misdirect(u64),
}

/// Something that a crash may take away or leave, by itself.
enum Unsynced {
    Name(Naming),
    Size(usize),
    Sector(Place),
}

pub(super) fn lock(disk: &Mutex<Disk>) -> MutexGuard<'_, Disk> {
    disk.lock().expect("no call of the simulated disk panics while it holds the lock")
}

pub(super) fn broken() -> io::Error {
    io::Error::other("injected input/output error")
}

impl Disk {
    /// Notes a call, and fails it where that was asked for. Returns where a transfer goes astray.
    pub(super) fn call(&mut self, op: SimOp, path: &Path) -> io::Result<Option<u64>> {
        self.calls += 1;
        if let Some(trace) = &mut self.trace {
            trace.push((op, path.to_owned()));
        }
        if op != SimOp::Read {
            match &mut self.power {
                Some(0) => return Err(broken()),
                Some(changes) => *changes -= 1,
                None => {}
            }
            self.changes += 1;
        } else if self.power == Some(0) {
            return Err(broken());
        }
        let mut met = None;
        self.faults.retain_mut(|fault| {
            if fault.op != op {
                return true;
            }
            if fault.skip > 0 || met.is_some() {
                fault.skip = fault.skip.saturating_sub(1);
                return true;
            }
            met = Some(fault.effect);
            false
        });
        match met {
            Some(Effect::Fail(io::ErrorKind::Other)) => Err(broken()),
            Some(Effect::Fail(kind)) => Err(kind.into()),
            Some(Effect::Misdirect(seed)) => Ok(Some(seed)),
            None => Ok(None),
        }
    }

    /// How much of a transfer goes through, where they are disturbed.
    pub(super) fn transfer(&self, len: usize) -> io::Result<usize> {
        match self.calls % 5 {
            1 if self.disturbed => Err(io::ErrorKind::Interrupted.into()),
            3 if self.disturbed => Ok(len.div_ceil(2)),
            _ => Ok(len),
        }
    }

    /// What a sync waits for.
    pub(super) fn wait(&mut self) {
        self.waited += self.slow + std::mem::take(&mut self.hang);
    }

    pub(super) fn used(&self) -> u64 {
        self.names.values().map(|inode| self.inodes[*inode].cache.len() as u64).sum()
    }

    pub(super) fn find(&self, path: &Path) -> io::Result<usize> {
        let inode = self.names.get(path).copied();
        inode.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(super) fn next_order(&mut self) -> u64 {
        self.order += 1;
        self.order
    }

    pub(super) fn name(&mut self, naming: Naming) {
        naming.apply(&mut self.names);
        let order = self.next_order();
        self.pending.push((order, naming));
    }

    /// Writes into the cache; the sectors are dirty from here on.
    pub(super) fn write(&mut self, inode: usize, bytes: &[u8], start: usize) {
        let end = start + bytes.len();
        let (first, order) = (start / SECTOR_LEN, self.order);
        let file = &mut self.inodes[inode];
        let size = file.cache.len();
        let first = first.min(size / SECTOR_LEN);
        let cache = Arc::make_mut(&mut file.cache);
        if size < end {
            cache.resize(end, 0);
        }
        cache[start..end].copy_from_slice(bytes);
        file.last_write = (start, end);
        let sectors = first..end.div_ceil(SECTOR_LEN);
        self.order += sectors.len() as u64;
        file.dirty.extend(sectors.zip(order + 1..));
        if size < end {
            let order = self.next_order();
            self.inodes[inode].resized = Some(order);
        }
    }

    /// A sector of some file that has a name, drawn by a seed; never the one that is meant.
    pub(super) fn elsewhere(&self, seed: u64, meant: Place) -> Option<Place> {
        let mut random = Random(seed);
        let places = self.names.values().flat_map(|inode| {
            let sectors = self.inodes[*inode].durable.len() / SECTOR_LEN;
            (0..sectors).map(|sector| Place { inode: *inode, sector })
        });
        let is_meant = |p: &Place| p.inode == meant.inode && p.sector == meant.sector;
        let places: Vec<_> = places.filter(|place| !is_meant(place)).collect();
        (!places.is_empty()).then(|| places[random.below(places.len() as u64) as usize])
    }

    /// A sector goes from the cache to the device, or to where the device puts it.
    fn write_back(&mut self, at: Place) {
        let file = &mut self.inodes[at.inode];
        let start = at.sector * SECTOR_LEN;
        let end = (start + SECTOR_LEN).min(file.cache.len());
        if start >= end {
            return;
        }
        if let Some(other) = file.astray.remove(&at.sector) {
            let mut sector = file.cache[start..end].to_vec();
            sector.resize(SECTOR_LEN, 0);
            let other_file = &mut self.inodes[other.inode];
            let there = other.sector * SECTOR_LEN..(other.sector + 1) * SECTOR_LEN;
            if there.end <= other_file.durable.len() {
                Arc::make_mut(&mut other_file.durable)[there].copy_from_slice(&sector);
            }
            return;
        }
        let durable = Arc::make_mut(&mut file.durable);
        if durable.len() < end {
            durable.resize(end, 0);
        }
        durable[start..end].copy_from_slice(&file.cache[start..end]);
    }

    /// Everything of a file reaches the device.
    pub(super) fn sync(&mut self, inode: usize) {
        let file = &mut self.inodes[inode];
        file.resized = None;
        let len = file.cache.len();
        if file.durable.len() != len {
            Arc::make_mut(&mut file.durable).resize(len, 0);
        }
        for sector in std::mem::take(&mut file.dirty).into_keys() {
            self.write_back(Place { inode, sector });
        }
    }

    /// Any part of what is dirty in a file reaches the device, and all of it is called clean.
    pub(super) fn sync_in_part(&mut self, inode: usize, mut keep: impl FnMut() -> bool) {
        let file = &mut self.inodes[inode];
        if file.resized.take().is_some() && keep() {
            let len = file.cache.len();
            Arc::make_mut(&mut file.durable).resize(len, 0);
        }
        for sector in std::mem::take(&mut file.dirty).into_keys() {
            if keep() {
                self.write_back(Place { inode, sector });
            }
        }
    }

    /// How many sectors, sizes and changes of names are not durable.
    pub(super) fn unsynced(&self) -> usize {
        let files = self.inodes.iter();
        let of_files = files.map(|file| file.dirty.len() + usize::from(file.resized.is_some()));
        self.pending.len() + of_files.sum::<usize>()
    }

    /// The power goes and comes back; of what was not synced, in the order in which it was written,
    /// survives what `keep` says. A file that is not called by any name any more is gone.
    pub(super) fn crash(&mut self, mut keep: impl FnMut(usize) -> bool) {
        self.end_process();
        self.faults.clear();
        self.lying = false;
        self.hang = Duration::ZERO;
        let mut unsynced: Vec<(u64, Unsynced)> = Vec::new();
        for (order, naming) in std::mem::take(&mut self.pending) {
            unsynced.push((order, Unsynced::Name(naming)));
        }
        for (inode, file) in self.inodes.iter_mut().enumerate() {
            if let Some(order) = file.resized.take() {
                unsynced.push((order, Unsynced::Size(inode)));
            }
            for (sector, order) in std::mem::take(&mut file.dirty) {
                unsynced.push((order, Unsynced::Sector(Place { inode, sector })));
            }
        }
        unsynced.sort_unstable_by_key(|(order, _)| *order);
        for (at, (_, change)) in unsynced.into_iter().enumerate() {
            if !keep(at) {
                continue;
            }
            match change {
                Unsynced::Name(naming) => naming.apply(&mut self.durable_names),
                Unsynced::Size(inode) => {
                    let len = self.inodes[inode].cache.len();
                    Arc::make_mut(&mut self.inodes[inode].durable).resize(len, 0);
                }
                Unsynced::Sector(place) => self.write_back(place),
            }
        }
        self.names.clone_from(&self.durable_names);
        let named: BTreeSet<_> = self.names.values().copied().collect();
        for (inode, file) in self.inodes.iter_mut().enumerate() {
            if named.contains(&inode) {
                file.astray.clear();
                file.cache = Arc::clone(&file.durable);
            } else {
                *file = Inode::default();
            }
        }
    }

    /// Locks and handles of the process are gone.
    pub(super) fn end_process(&mut self) {
        self.life += 1;
        self.locks.clear();
        self.power = None;
    }

    /// A bit of the device is another. The page cache has it where it reads it from there.
    pub(super) fn flip(&mut self, inode: usize, byte: usize, bit: u8) {
        let file = &mut self.inodes[inode];
        let shown = !file.dirty.contains_key(&(byte / SECTOR_LEN));
        if let Some(byte) = Arc::make_mut(&mut file.durable).get_mut(byte) {
            *byte ^= 1 << (bit % 8);
        }
        if shown && let Some(byte) = Arc::make_mut(&mut file.cache).get_mut(byte) {
            *byte ^= 1 << (bit % 8);
        }
    }
}

impl Naming {
    pub(super) fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
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

    pub(super) fn dir(&self) -> Option<&Path> {
        match self {
            Self::Link(path, _) | Self::Rename(path, ..) | Self::Unlink(path) => path.parent(),
        }
    }
}

/// `SplitMix64`.
pub(super) struct Random(pub(super) u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn coin(&mut self) -> bool {
        self.bits() & 1 == 1
    }

    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(bound)) >> 64) as u64
    }
}
