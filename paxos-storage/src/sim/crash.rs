//! The real log on a simulated disk, as a storage whose power can fail.
//!
//! Owns: [`SimWal`], which gives each life of a simulated replica a log of its own on the same
//! disk. Writes nothing that the replica did not hand out.
//! Invariants: a power loss hits the log at any of its calls, in `persist` and in `recover`; the
//! same seed loses the same sectors and names.
//! Source: the crash model of [`super::SimFs`], under the simulator of `paxos-core`.

use paxos_core::durable::{Durable, WriteBatch};
use paxos_core::port::{
    Blocking, Format, LoadRange, Loaded, Recovered, Room, Storage, StorageError,
};
use paxos_core::sim::{CrashStorage, Rng};

use super::SimFs;
use crate::{SEGMENT_BYTES_MIN, Wal, WalOptions};

const DIR: &str = "/replica";
/// A start that the power cuts short makes fewer changes than this; one with more survives it.
const CHANGES_OF_A_START: u64 = 22;
/// One call of `persist` changes the disk so often where it rolls and frees segments.
const CHANGES_OF_A_CALL: u64 = 18;

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
}

/// The power fails after so many changes, and of what was not synced survives what the seed says.
#[derive(Clone, Copy, Debug)]
struct Cut {
    changes: u64,
    seed: u64,
}

impl SimWal {
    /// A replica's log on a disk of its own, formatted when it is first recovered.
    pub fn new(format: Format) -> Self {
        Self { fs: SimFs::new(), format, wal: None, starts_cut: Vec::new() }
    }

    /// The disk, to break it further and to look at it.
    pub fn disk(&self) -> &SimFs {
        &self.fs
    }

    fn start(&mut self, nonce: u32) -> Result<Vec<Recovered>, StorageError> {
        self.wal = None;
        let options =
            WalOptions { segment_bytes: SEGMENT_BYTES_MIN, spares: 1, ..WalOptions::default() };
        let mut wal = Wal::open_or_format_on(self.fs.clone(), DIR, &self.format, options)?;
        let recovered = wal.recover(nonce)?;
        self.wal = Some(wal);
        Ok(recovered)
    }

    fn running(&mut self) -> &mut Wal<SimFs> {
        self.wal.as_mut().expect("a storage is recovered before anything else")
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
        self.start(nonce)
    }

    fn persist(&mut self, batches: Vec<WriteBatch>) -> Result<Vec<Durable>, StorageError> {
        self.running().persist(batches)
    }

    fn load(&mut self, range: LoadRange) -> Result<Loaded, StorageError> {
        self.running().load(range)
    }

    fn room(&self) -> Room {
        self.wal.as_ref().map_or(Room::Ample, Wal::room)
    }

    fn blocking(&self) -> Blocking {
        Blocking::Never
    }
}

impl CrashStorage for SimWal {
    fn crash(&mut self, unproved: Vec<WriteBatch>, rng: &mut Rng) {
        // Some calls may go through before the one that the power interrupts.
        self.fs.cut_power_after(rng.below(CHANGES_OF_A_CALL));
        let mut left = unproved.into_iter().peekable();
        while left.peek().is_some() {
            let call = rng.between(1, left.len() as u64) as usize;
            let written = self.running().persist(left.by_ref().take(call).collect());
            // Nobody is told of what became durable; the rest was never begun.
            if written.is_err() {
                break;
            }
        }
        // Where only the process dies, the next life reads its last writes from the page cache.
        if rng.chance(250) {
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
}
