//! The real log on a simulated disk, as a storage whose power can fail.
//!
//! Owns: [`SimWal`], which gives each life of a simulated replica a log of its own on the same
//! disk. Writes nothing that the replica did not hand out.
//! Invariants: a power loss hits the log at any of its calls, in `persist` and in `recover`; the
//! same seed loses the same sectors and names; damage strikes only what something later on the disk
//! vouches for, because nothing could tell damage to the last call from a write cut short.
//! Source: the crash model of [`super::SimFs`], under the simulator of `paxos-core`.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use paxos_core::durable::{Durable, WriteBatch};
use paxos_core::ids::{GroupId, Slot};
use paxos_core::port::{
    Blocking, Format, LoadRange, Loaded, Recovered, Room, SnapshotStore, Storage, StorageError,
};
use paxos_core::sim::{CrashStorage, DiskFault, Rng};

use super::{SECTOR_LEN, SimFs, SimOp};
use crate::snapshots::SNAPSHOTS_DIR;
use crate::{SEGMENT_BYTES_MIN, SNAPSHOT_BLOCK_BYTES_MIN, Wal, WalOptions};

const DIR: &str = "/replica";
/// A start that the power cuts short makes fewer changes than this; one with more survives it.
const CHANGES_OF_A_START: u64 = 22;
/// One call of `persist` changes the disk so often where it rolls and frees segments.
const CHANGES_OF_A_CALL: u64 = 18;
/// Of a thousand times that damage strikes a disk with snapshots, so many it strikes those.
const SNAPSHOTS: u32 = 400;
/// A fault that strikes one call strikes one of the next so many of its kind.
const NEXT_CALLS: u64 = 4;

/// A [`Wal`] on a [`SimFs`], for `paxos_core::sim::run_seed_on`.
///
/// Segments have the smallest size, so that short runs seal, free and recycle them.
#[derive(Debug)]
pub struct SimWal {
    fs: SimFs,
    format: Format,
    wal: Option<Wal<SimFs>>,
    /// The starts that fail before the next one succeeds.
    starts_cut: Vec<Cut>,
    /// The newest segment, and where in it that begins for which nothing later vouches.
    unvouched: Option<(PathBuf, usize)>,
    /// The disk as the life before this one left it.
    before: Option<SimFs>,
}

/// The power fails after so many changes, and of what was not synced survives what the seed says.
#[derive(Clone, Copy, Debug)]
struct Cut {
    changes: u64,
    seed: u64,
}

/// Sectors of a file that hold something, and may be damaged.
struct Target {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Target {
    fn sectors(&self) -> usize {
        self.bytes.len() / SECTOR_LEN
    }

    fn sector(&self, at: usize) -> &[u8] {
        &self.bytes[at * SECTOR_LEN..(at + 1) * SECTOR_LEN]
    }
}

impl SimWal {
    /// A replica's log on a disk of its own, formatted when it is first recovered.
    pub fn new(format: Format) -> Self {
        Self {
            fs: SimFs::new(),
            format,
            wal: None,
            starts_cut: Vec::new(),
            unvouched: None,
            before: None,
        }
    }

    /// The disk, to break it further and to look at it.
    pub fn disk(&self) -> &SimFs {
        &self.fs
    }

    fn start(&mut self, nonce: u32) -> Result<Vec<Recovered>, StorageError> {
        self.wal = None;
        let options = WalOptions {
            segment_bytes: SEGMENT_BYTES_MIN,
            spares: 1,
            snapshot_block_bytes: SNAPSHOT_BLOCK_BYTES_MIN,
            ..WalOptions::default()
        };
        let mut wal = Wal::open_or_format_on(self.fs.clone(), DIR, &self.format, options)?;
        let recovered = wal.recover(nonce)?;
        self.wal = Some(wal);
        Ok(recovered)
    }

    fn running(&mut self) -> &mut Wal<SimFs> {
        self.wal.as_mut().expect("a storage is recovered before anything else")
    }

    fn segments(&self) -> Vec<PathBuf> {
        let files = self.fs.files().into_iter();
        files.filter(|path| path.extension().is_some_and(|extension| extension == "wal")).collect()
    }

    /// Whether what a file is known by was made by the last write of its life.
    fn note_unvouched(&mut self, all_vouched: bool) {
        self.unvouched = self.segments().pop().and_then(|newest| {
            let (start, end) = self.fs.last_write(&newest)?;
            Some((newest, if all_vouched { end } else { start }))
        });
    }

    /// What is durable and vouched for, file by file.
    fn targets(&self) -> Vec<Target> {
        let Some((newest, limit)) = &self.unvouched else {
            return Vec::new();
        };
        let mut targets = Vec::new();
        for path in self.segments() {
            let mut bytes = self.fs.contents(&path).unwrap_or_default();
            if path > *newest {
                continue;
            }
            if path == *newest {
                bytes.truncate(*limit);
            }
            let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            bytes.truncate(used);
            targets.push(Target { path, bytes });
        }
        targets.retain(|target| target.sectors() > 0);
        targets
    }

    /// What may be struck: the log, or where there are any, now and then the files of snapshots. A damaged
    /// one that counted is named, whatever became durable after it.
    fn victims(&self, rng: &mut Rng) -> Vec<Target> {
        let dir = PathBuf::from(DIR).join(SNAPSHOTS_DIR);
        let files = self.fs.files().into_iter().filter(|path| path.starts_with(&dir));
        let bytes = |path: PathBuf| Some(Target { bytes: self.fs.contents(&path)?, path });
        let mut snapshots: Vec<_> = files.filter_map(bytes).collect();
        snapshots.retain(|target| !target.bytes.is_empty());
        let strikes = !snapshots.is_empty() && rng.chance(SNAPSHOTS);
        if strikes { snapshots } else { self.targets() }
    }

    fn rot(&self, rng: &mut Rng) -> bool {
        let meta = PathBuf::from(DIR).join("META");
        if rng.chance(100)
            && let Some(bytes) = self.fs.contents(&meta)
        {
            self.fs.rot(meta, rng.below(bytes.len() as u64) as usize, rng.below(8) as u8);
            return true;
        }
        let targets = self.victims(rng);
        if targets.is_empty() {
            return false;
        }
        let target = rng.pick(&targets);
        let byte = rng.below(target.bytes.len() as u64) as usize;
        self.fs.rot(&target.path, byte, rng.below(8) as u8);
        true
    }

    /// A write is missing where it belongs, and lies over something else if it went astray.
    fn lose_write(&self, astray: bool, rng: &mut Rng) -> bool {
        let mut targets = self.victims(rng);
        targets.retain(|target| target.sectors() > 0);
        if targets.is_empty() {
            return false;
        }
        let target = rng.pick(&targets);
        let sector = rng.below(target.sectors() as u64) as usize;
        if astray {
            let victim = rng.pick(&targets);
            let over = rng.below(victim.sectors() as u64) as usize * SECTOR_LEN;
            self.fs.overwrite(&victim.path, over, target.sector(sector));
        }
        // What stood there when this life began; zeros in a file that is younger.
        let at = sector * SECTOR_LEN;
        let old = self.before.as_ref().and_then(|fs| fs.contents(&target.path));
        let old = old.and_then(|bytes| Some(bytes.get(at..at + SECTOR_LEN)?.to_vec()));
        let old = old.filter(|old| old != target.sector(sector));
        self.fs.overwrite(&target.path, at, &old.unwrap_or_else(|| vec![0; SECTOR_LEN]));
        true
    }

    /// The directory is what it was before the last life began.
    fn roll_back(&mut self) -> bool {
        let Some(before) = self.before.take() else {
            return false;
        };
        self.fs = before;
        self.wal = None;
        self.starts_cut.clear();
        self.note_unvouched(false);
        true
    }
}

impl Storage for SimWal {
    fn recover(&mut self, nonce: u32) -> Result<Vec<Recovered>, StorageError> {
        for cut in std::mem::take(&mut self.starts_cut) {
            self.fs.cut_power_after(cut.changes);
            match self.start(nonce) {
                // It may have been done with its changes; then the power goes before it answers.
                Ok(_) | Err(StorageError::Io { .. }) => self.fs.crash(cut.seed),
                Err(other) => return Err(other),
            }
        }
        let before = self.fs.fork();
        let recovered = self.start(nonce)?;
        self.before = Some(before);
        self.note_unvouched(true);
        Ok(recovered)
    }

    fn persist(&mut self, batches: Vec<WriteBatch>) -> Result<Vec<Durable>, StorageError> {
        let writes = batches.iter().any(|batch| !batch.writes().is_empty());
        let proofs = self.running().persist(batches)?;
        if writes {
            self.note_unvouched(false);
        }
        Ok(proofs)
    }

    fn load(&mut self, range: LoadRange) -> Result<Loaded, StorageError> {
        self.running().load(range)
    }

    fn room(&self) -> Room {
        self.wal.as_ref().map_or(Room::Ample, Wal::room)
    }

    fn log_bytes(&self, group: GroupId, step: u64) -> Vec<(Slot, u64)> {
        self.wal.as_ref().map_or_else(Vec::new, |wal| wal.log_bytes(group, step))
    }

    fn blocking(&self) -> Blocking {
        Blocking::Never
    }

    /// On the same disk. Whoever holds it drops it, with all its writers, before the next life
    /// begins: names are not guarded against the calls of a process that is dead.
    fn snapshots(&mut self) -> Option<Box<dyn SnapshotStore>> {
        self.running().snapshots()
    }
}

impl CrashStorage for SimWal {
    fn crash(&mut self, unproved: Vec<WriteBatch>, rng: &mut Rng) {
        // Some calls may go through before the one that the power interrupts.
        self.fs.cut_power_after(rng.below(CHANGES_OF_A_CALL));
        let mut left = unproved.into_iter().peekable();
        while left.peek().is_some() && self.wal.is_some() {
            let call = rng.between(1, left.len() as u64) as usize;
            let written = self.running().persist(left.by_ref().take(call).collect());
            // Nobody is told of what became durable; the rest was never begun.
            if written.is_err() {
                break;
            }
        }
        // Where only the process dies, the next life reads its last writes from the page cache.
        // Once a disk has lied, the power goes, so that the next life sees what that took.
        if rng.chance(250) && !self.fs.is_lying() {
            self.fs.kill();
        } else {
            self.fs.crash(rng.bits());
        }
        // The dead process writes nothing more; it goes after the power did.
        self.wal = None;
        while rng.chance(200) {
            let (changes, seed) = (rng.below(CHANGES_OF_A_START), rng.bits());
            self.starts_cut.push(Cut { changes, seed });
        }
    }

    fn blank(&self, format: Format) -> Box<dyn CrashStorage> {
        Box::new(Self::new(format))
    }

    fn inject(&mut self, fault: DiskFault, rng: &mut Rng) -> bool {
        let skip = rng.below(NEXT_CALLS);
        match fault {
            DiskFault::ReadError => self.fs.fail(SimOp::Read, skip, ErrorKind::Other),
            DiskFault::WriteError => self.fs.fail(SimOp::Write, skip, ErrorKind::Other),
            DiskFault::SyncError => self.fs.fail(SimOp::Sync, skip, ErrorKind::Other),
            DiskFault::StrayRead => self.fs.misdirect(SimOp::Read, skip, rng.bits()),
            DiskFault::Full => {
                let spare = rng.below(2 * SEGMENT_BYTES_MIN);
                self.fs.set_capacity(Some(self.fs.used() + spare));
            }
            DiskFault::Space => self.fs.set_capacity(None),
            DiskFault::Slow(by) => self.fs.slow_down(by),
            DiskFault::Hang(by) => self.fs.hang(by),
            DiskFault::Rot => return self.rot(rng),
            DiskFault::LostWrite => return self.lose_write(false, rng),
            DiskFault::StrayWrite => return self.lose_write(true, rng),
            DiskFault::Lie if self.wal.is_some() => self.fs.lie(),
            // A disk that loses power stops lying.
            DiskFault::Lie => return false,
            DiskFault::RollBack => return self.roll_back(),
        }
        true
    }

    fn calm(&mut self) {
        self.fs.set_capacity(None);
        self.fs.clear_faults();
        self.fs.slow_down(Duration::ZERO);
        self.fs.hang(Duration::ZERO);
    }

    fn delay(&self) -> Duration {
        self.fs.delay()
    }

    fn audit(&mut self, range: LoadRange) -> Result<Loaded, StorageError> {
        let faults = self.fs.hold_faults();
        let loaded = self.running().load(range);
        self.fs.release_faults(faults);
        loaded
    }
}
