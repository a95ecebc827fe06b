//! The write-ahead log as a storage: formatting, opening, and the life of a log.
//!
//! Owns: [`Wal`], its options, the directory's lock. Holds the only call in this crate by which
//! the log proves a write.
//! Invariants: one holder per directory; nothing is formatted twice; after an error nothing is
//! proved and nothing is read.
//! Source: Write-Ahead Log; docs/format.md, section "Disk".

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use paxos_core::durable::{Durable, WriteBatch};
use paxos_core::ids::{GroupId, Incarnation, Slot};
use paxos_core::membership::{Member, Membership};
use paxos_core::port::{
    Blocking, Format, LoadRange, Loaded, Recovered, Room, SnapshotStore, Start, Storage,
    StorageError,
};

use crate::fs::{FileSystem, RealFs, is_full};
use crate::log::{Log, corrupt, failed};
use crate::meta::{META, META_TMP, Meta, MetaError};
use crate::replay;
use crate::snapshots::{
    self, Place, SNAPSHOT_BLOCK_BYTES_MAX, SNAPSHOT_BLOCK_BYTES_MIN, SNAPSHOTS_DIR, Snapshots,
    block_bytes_fit,
};

/// The smallest segment.
pub const SEGMENT_BYTES_MIN: u64 = 64 << 10;
/// The largest segment that is made for more than one call.
const SEGMENT_BYTES_MAX: u64 = 4 << 30;
/// The most spare segments.
pub const SPARES_MAX: usize = 16;

const LOCK: &str = "LOCK";
const LOCK_ATTEMPTS: usize = 5;
const LOCK_PAUSE: Duration = Duration::from_millis(50);
pub(crate) const LOG_DIR: &str = "wal";

/// How a log uses its disk. May differ from one start to the next.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct WalOptions {
    /// The size of a segment, a multiple of 4 KiB from 64 KiB ([`SEGMENT_BYTES_MIN`]) to 4 GiB.
    /// One call that brings more than fits gets a segment of its own size. Default 64 MiB.
    pub segment_bytes: u64,
    /// How many empty segments are made ahead, 1 to 16 ([`SPARES_MAX`]). While one is missing for
    /// want of disk space, the log takes no new commands. At most twice as many are kept of those
    /// that trims give back. Default 2.
    pub spares: usize,
    /// Whether segments are filled with zeros before use. Makes each sync cheaper, and makes a
    /// full disk known before a record meets it; without it a full disk is final when a record
    /// does. Of no use on file systems that write copies. Default yes.
    pub prewrite: bool,
    /// The length of the blocks that images of snapshots are cut into, each with a checksum: a
    /// multiple of 512 from 512 ([`SNAPSHOT_BLOCK_BYTES_MIN`]) to 4 MiB
    /// ([`SNAPSHOT_BLOCK_BYTES_MAX`]). An image is synced every 16 blocks. Default 256 KiB.
    pub snapshot_block_bytes: u32,
}

impl Default for WalOptions {
    fn default() -> Self {
        Self { segment_bytes: 64 << 20, spares: 2, prewrite: true, snapshot_block_bytes: 256 << 10 }
    }
}

impl WalOptions {
    fn check(&self) -> Result<(), StorageError> {
        let size = (SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&self.segment_bytes)
            && self.segment_bytes.is_multiple_of(4096);
        if !size {
            return Err(StorageError::Mismatch {
                what: format!(
                    "segment_bytes must be a multiple of 4096 from {SEGMENT_BYTES_MIN} to \
                     {SEGMENT_BYTES_MAX}, not {}",
                    self.segment_bytes
                ),
            });
        }
        if !(1..=SPARES_MAX).contains(&self.spares) {
            return Err(StorageError::Mismatch {
                what: format!("spares must be 1 to {SPARES_MAX}, not {}", self.spares),
            });
        }
        if !block_bytes_fit(self.snapshot_block_bytes) {
            return Err(StorageError::Mismatch {
                what: format!(
                    "snapshot_block_bytes must be a multiple of {SNAPSHOT_BLOCK_BYTES_MIN} up to \
                     {SNAPSHOT_BLOCK_BYTES_MAX}, not {}",
                    self.snapshot_block_bytes
                ),
            });
        }
        Ok(())
    }
}

/// A replica's log in a directory of its own.
///
/// ```text
/// DIR/LOCK              held while the log is open
/// DIR/META              cluster, group, replica, first membership, last life
/// DIR/wal/*.wal         segments, named by their sequence in hexadecimal
/// DIR/wal/spare-*.tmp   segments to come
/// DIR/wal/*.torn        ends of writes that were cut short, kept for people
/// DIR/snapshots/        images and manifests of snapshots, once there was one
/// ```
///
/// Every call waits for the disk. A directory on a network file system is not supported: its lock
/// and its sync promise less.
#[derive(Debug)]
pub struct Wal<F: FileSystem = RealFs> {
    fs: F,
    dir: PathBuf,
    options: WalOptions,
    meta: Meta,
    life: Life<F>,
    /// Declared last, so that the directory is given up after everything in it; shared with the
    /// snapshots, which may be used longer.
    lock: Arc<F::Lock>,
}

#[derive(Debug)]
enum Life<F: FileSystem> {
    /// Not recovered yet.
    Before,
    Running(Box<Log<F>>, Snapshots<F>),
    /// Something failed.
    Poisoned,
}

impl Wal {
    /// Makes an empty or missing directory the log of a replica.
    ///
    /// Fails with [`StorageError::AlreadyFormatted`] if anything is in it. Nothing is formatted
    /// unless this returns without an error, and then durably.
    pub fn format(
        dir: impl AsRef<Path>,
        format: &Format,
        options: WalOptions,
    ) -> Result<Self, StorageError> {
        Self::format_on(RealFs, dir, format, options)
    }

    /// Opens the log of a replica.
    ///
    /// Fails with [`StorageError::NotFormatted`] if there is none, with [`StorageError::Corrupt`]
    /// if META is damaged or is missing beside a log, and with [`StorageError::Mismatch`] if the
    /// log is that of another cluster, group or replica, or was made for other voters or
    /// observers. Of the membership in `format` only the ids are compared; the rest of it is taken
    /// from the log.
    pub fn open(
        dir: impl AsRef<Path>,
        format: &Format,
        options: WalOptions,
    ) -> Result<Self, StorageError> {
        Self::open_on(RealFs, dir, format, options)
    }

    /// Opens the log of a replica, and formats the directory first if it is empty or missing.
    ///
    /// Peers remember the lives of a replica, so one whose directory was wiped is refused by them.
    pub fn open_or_format(
        dir: impl AsRef<Path>,
        format: &Format,
        options: WalOptions,
    ) -> Result<Self, StorageError> {
        Self::open_or_format_on(RealFs, dir, format, options)
    }
}

impl<F: FileSystem> Wal<F> {
    /// [`Wal::format`] on another file system.
    pub fn format_on(
        fs: F,
        dir: impl AsRef<Path>,
        format: &Format,
        options: WalOptions,
    ) -> Result<Self, StorageError> {
        let dir = dir.as_ref();
        options.check()?;
        make_dir(&fs, dir)?;
        let lock = lock(&fs, dir)?;
        Self::format_locked(fs, dir, lock, format, options)
    }

    /// [`Wal::open`] on another file system.
    pub fn open_on(
        fs: F,
        dir: impl AsRef<Path>,
        format: &Format,
        options: WalOptions,
    ) -> Result<Self, StorageError> {
        let dir = dir.as_ref();
        options.check()?;
        if !fs.exists(dir).map_err(failed("cannot look for", dir))? {
            return Err(StorageError::NotFormatted { path: dir.to_owned() });
        }
        let lock = lock(&fs, dir)?;
        let Some(meta) = read_meta(&fs, dir)? else {
            return Err(StorageError::NotFormatted { path: dir.to_owned() });
        };
        Self::with_meta(fs, dir, lock, meta, format, options)
    }

    /// [`Wal::open_or_format`] on another file system.
    pub fn open_or_format_on(
        fs: F,
        dir: impl AsRef<Path>,
        format: &Format,
        options: WalOptions,
    ) -> Result<Self, StorageError> {
        let dir = dir.as_ref();
        options.check()?;
        make_dir(&fs, dir)?;
        let lock = lock(&fs, dir)?;
        match read_meta(&fs, dir)? {
            Some(meta) => Self::with_meta(fs, dir, lock, meta, format, options),
            None => Self::format_locked(fs, dir, lock, format, options),
        }
    }

    fn with_meta(
        fs: F,
        dir: &Path,
        lock: F::Lock,
        meta: Meta,
        format: &Format,
        options: WalOptions,
    ) -> Result<Self, StorageError> {
        let found = &meta.format;
        let (made_for, named) = (ids_of(&found.membership), ids_of(&format.membership));
        let whose = |format: &Format| (format.cluster, format.group, format.replica);
        if whose(found) != whose(format) {
            return Err(StorageError::Mismatch {
                what: format!(
                    "{} belongs to cluster {}, {}, {}; expected cluster {}, {}, {}: name this \
                     replica's own directory, or correct its configuration",
                    dir.display(),
                    found.cluster,
                    found.group,
                    found.replica,
                    format.cluster,
                    format.group,
                    format.replica
                ),
            });
        }
        if made_for != named {
            return Err(StorageError::Mismatch {
                what: format!(
                    "{}: the log was made for {made_for} and the configuration names {named}: the \
                     membership cannot be changed by configuration; give the list back as it was",
                    dir.display()
                ),
            });
        }
        Ok(Self {
            fs,
            dir: dir.to_owned(),
            options,
            meta,
            life: Life::Before,
            lock: Arc::new(lock),
        })
    }

    /// Formats a directory whose lock is held. META comes last: without it nothing was formatted,
    /// and what an attempt that was cut short left is written over.
    fn format_locked(
        fs: F,
        dir: &Path,
        lock: F::Lock,
        format: &Format,
        options: WalOptions,
    ) -> Result<Self, StorageError> {
        let log_dir = dir.join(LOG_DIR);
        for name in fs.list(dir).map_err(failed("cannot list", dir))? {
            if ![LOCK, META_TMP, LOG_DIR].contains(&name.as_str()) {
                return Err(StorageError::AlreadyFormatted { path: dir.to_owned() });
            }
        }
        look_for_orphans(&fs, dir)?;
        // Somebody who was interrupted may have made the directory.
        sync_name(&fs, dir)?;
        fs.create_dir(&log_dir).map_err(failed("cannot create", &log_dir))?;
        clear_first_attempt(&fs, dir, &log_dir)?;
        let meta = Meta { format: format.clone(), last: None, newest: 1 };
        replay::found(&fs, &log_dir, &meta)?;
        fs.sync_dir(dir).map_err(failed("cannot sync", dir))?;
        meta.write(&fs, dir).map_err(failed("cannot write META in", dir))?;
        Self::with_meta(fs, dir, lock, meta, format, options)
    }

    fn begin_life(&mut self, nonce: u32) -> Result<(Life<F>, Recovered), StorageError> {
        self_test()?;
        let log_dir = self.dir.join(LOG_DIR);
        // A process that died may have left names that are not durable; what is counted on must be.
        self.fs.sync_dir(&log_dir).map_err(failed("cannot sync", &log_dir))?;
        let found = replay::read(&self.fs, &log_dir, &self.meta)?;
        let (owner, group) = (replay::owner_of(&self.meta), self.meta.format.group);
        let snapshots_dir = self.dir.join(SNAPSHOTS_DIR);
        let trimmed = found.trimmed(group);
        let stock = snapshots::read(&self.fs, &snapshots_dir, (owner, group), trimmed)?;
        let (start, life) = match self.meta.last {
            None => (Start::First, Incarnation::first(nonce)),
            Some(last) if last.boot() == u32::MAX => {
                return Err(StorageError::Mismatch {
                    what: format!("{} was started 2^32 times", self.dir.display()),
                });
            }
            Some(last) => (Start::Again, last.following(nonce)),
        };
        self.meta.last = Some(life);
        self.meta.newest = found.newest();
        self.meta.write(&self.fs, &self.dir).map_err(failed("cannot write META in", &self.dir))?;
        // Before a segment takes what room there is.
        self.keep_room()?;
        let life = (start, life);
        let (log, mut recovered) =
            replay::begin(&self.fs, &log_dir, &self.meta, life, found, &self.options)?;
        self.count_on(log.newest())?;
        recovered.snapshot = stock.newest().cloned();
        let place = Place {
            fs: self.fs.clone(),
            root: self.dir.clone(),
            owner,
            group,
            block_bytes: self.options.snapshot_block_bytes,
            lock: Arc::clone(&self.lock),
        };
        Ok((Life::Running(Box::new(log), Snapshots::begin(place, stock)?), recovered))
    }

    /// Makes durable that a segment, whose name is durable, must be there from here on. Comes before
    /// anything in it is acknowledged.
    ///
    /// A full disk does not stop the log, as what is in flight has room in its spares; the next call
    /// tries again. Only until then would the loss of that segment be taken for an earlier end.
    fn count_on(&mut self, newest: u64) -> Result<(), StorageError> {
        if newest == self.meta.newest {
            return Ok(());
        }
        let meta = Meta { newest, ..self.meta.clone() };
        match meta.write(&self.fs, &self.dir) {
            Ok(()) => self.meta = meta,
            Err(error) if is_full(&error) => return Ok(()),
            Err(error) => return Err(failed("cannot write META in", &self.dir)(error)),
        }
        self.keep_room()
    }

    /// The next life has room for its META, whatever fills the disk meanwhile.
    fn keep_room(&self) -> Result<(), StorageError> {
        let kept = self.meta.keep_room(&self.fs, &self.dir);
        kept.map_err(failed("cannot keep room for META in", &self.dir))
    }

    fn running(&mut self) -> Result<&mut Log<F>, StorageError> {
        match &mut self.life {
            Life::Before => panic!("a storage is recovered before anything else"),
            Life::Running(log, _) => Ok(log),
            Life::Poisoned => Err(StorageError::Poisoned),
        }
    }

    fn poison<T>(&mut self, result: Result<T, StorageError>) -> Result<T, StorageError> {
        if result.is_err() {
            self.life = Life::Poisoned;
        }
        result
    }
}

impl<F: FileSystem> Storage for Wal<F> {
    fn recover(&mut self, nonce: u32) -> Result<Vec<Recovered>, StorageError> {
        match self.life {
            Life::Before => {}
            Life::Running(..) => panic!("a storage is recovered once"),
            Life::Poisoned => return Err(StorageError::Poisoned),
        }
        let begun = self.begin_life(nonce);
        let (life, recovered) = self.poison(begun)?;
        self.life = life;
        Ok(vec![recovered])
    }

    fn persist(&mut self, batches: Vec<WriteBatch>) -> Result<Vec<Durable>, StorageError> {
        let log = self.running()?;
        let written = log.persist(&batches).map(|()| log.newest());
        let newest = self.poison(written)?;
        let counted = self.count_on(newest);
        self.poison(counted)?;
        // Everything above was written and synced without an error.
        Ok(batches.into_iter().map(WriteBatch::into_durable).collect())
    }

    fn load(&mut self, range: LoadRange) -> Result<Loaded, StorageError> {
        let loaded = self.running()?.load(range);
        self.poison(loaded)
    }

    /// While it is full, an empty call of [`Storage::persist`] tries to make a spare segment
    /// again; a trim that frees one does as well.
    fn room(&self) -> Room {
        match &self.life {
            Life::Running(log, _) => log.room(),
            Life::Before | Life::Poisoned => Room::Ample,
        }
    }

    fn log_bytes(&self, group: GroupId, step: u64) -> Vec<(Slot, u64)> {
        match &self.life {
            Life::Running(log, _) => log.bytes(group, step),
            Life::Before | Life::Poisoned => Vec::new(),
        }
    }

    fn blocking(&self) -> Blocking {
        Blocking::Device
    }

    /// They go on where the log failed, and the log goes on where they do. The directory stays
    /// locked until all of what this returned is gone.
    fn snapshots(&mut self) -> Option<Box<dyn SnapshotStore>> {
        match &self.life {
            Life::Before => panic!("a storage is recovered before anything else"),
            Life::Running(_, snapshots) => Some(Box::new(snapshots.clone())),
            Life::Poisoned => None,
        }
    }
}

fn make_dir<F: FileSystem>(fs: &F, dir: &Path) -> Result<(), StorageError> {
    if fs.exists(dir).map_err(failed("cannot look for", dir))? {
        return Ok(());
    }
    // Whatever has to be made on the way is made durable on the way.
    if let Some(parent) = dir.parent().filter(|parent| parent.file_name().is_some()) {
        make_dir(fs, parent)?;
    }
    fs.create_dir(dir).map_err(failed("cannot create", dir))?;
    sync_name(fs, dir)
}

fn parent_of(dir: &Path) -> &Path {
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or_else(|| Path::new("."))
}

/// Makes the name of a directory durable.
fn sync_name<F: FileSystem>(fs: &F, dir: &Path) -> Result<(), StorageError> {
    let parent = parent_of(dir);
    fs.sync_dir(parent).map_err(failed("cannot sync", parent))
}

/// Takes the lock. A process that was killed may hold it a moment longer, so it is tried again.
pub(crate) fn lock<F: FileSystem>(fs: &F, dir: &Path) -> Result<F::Lock, StorageError> {
    let path = dir.join(LOCK);
    for attempt in 1..=LOCK_ATTEMPTS {
        if let Some(lock) = fs.try_lock(&path).map_err(failed("cannot lock", &path))? {
            return Ok(lock);
        }
        if attempt < LOCK_ATTEMPTS {
            fs.wait(LOCK_PAUSE);
        }
    }
    Err(StorageError::AlreadyOpen { path: dir.to_owned() })
}

/// The ids of a membership, for comparison and for people.
fn ids_of(membership: &Membership) -> String {
    let list = |members: &[Member]| {
        let ids: Vec<_> = members.iter().map(|member| member.id.number().to_string()).collect();
        ids.join(", ")
    };
    let voters = list(membership.voters());
    match membership.observers() {
        [] => format!("replicas {voters}"),
        observers => format!("replicas {voters} with observers {}", list(observers)),
    }
}

/// A log without its META was not cut short by an interrupted format if any life wrote to it: those
/// begin with the second segment.
fn look_for_orphans<F: FileSystem>(fs: &F, dir: &Path) -> Result<(), StorageError> {
    let log_dir = dir.join(LOG_DIR);
    if !fs.exists(&log_dir).map_err(failed("cannot look for", &log_dir))? {
        return Ok(());
    }
    match replay::sequences(fs, &log_dir)?.last() {
        Some(newest) if *newest > 1 => {
            let why = format!("it is missing, and there is a log in {}", log_dir.display());
            Err(corrupt(dir.join(META).display(), why))
        }
        _ => Ok(()),
    }
}

/// Reads META; `None` if nothing was ever formatted.
pub(crate) fn read_meta<F: FileSystem>(fs: &F, dir: &Path) -> Result<Option<Meta>, StorageError> {
    let meta = Meta::read(fs, dir).map_err(|error| match error {
        MetaError::Io(source) => failed("cannot read META in", dir)(source),
        MetaError::Version(version) => StorageError::Mismatch {
            what: format!(
                "{} has format version {version}, and this release reads {}: run the release that wrote it",
                dir.display(),
                crate::layout::VERSION
            ),
        },
        MetaError::Damaged(why) => corrupt(dir.join(META).display(), why),
    })?;
    if meta.is_none() {
        look_for_orphans(fs, dir)?;
    }
    Ok(meta)
}

/// Removes what a format that was cut short left: the first segment, never used, and no other.
fn clear_first_attempt<F: FileSystem>(
    fs: &F,
    dir: &Path,
    log_dir: &Path,
) -> Result<(), StorageError> {
    for name in fs.list(log_dir).map_err(failed("cannot list", log_dir))? {
        let first = crate::log::segment_name(1);
        if name != first && name.strip_suffix(".tmp").is_none() {
            return Err(StorageError::AlreadyFormatted { path: dir.to_owned() });
        }
        let path = log_dir.join(name);
        fs.remove(&path).map_err(failed("cannot remove", &path))?;
    }
    Ok(())
}

/// Checksums have been wrong on some processors; one that is would call every log corrupt.
fn self_test() -> Result<(), StorageError> {
    if crc32c::crc32c(b"123456789") == 0xe306_9283 {
        return Ok(());
    }
    Err(StorageError::Mismatch {
        what: "this processor computes CRC-32C wrongly: move the replica to another machine"
            .to_owned(),
    })
}
