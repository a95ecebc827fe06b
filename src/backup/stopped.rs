//! A backup of a replica's directory, while no replica runs in it.
//!
//! Owns: [`export_stopped`], and what of a directory is poured. Changes nothing in the directory.

use std::path::Path;

use paxos_core::founding::{known_prefix, salvage};
use paxos_core::ids::Slot;
use paxos_core::port::{LoadRange, Recovered, StorageError};
use paxos_storage::inspect::Inspection;

use super::file::Writer;
use super::{BackupError, BackupInfo, BackupOrigin, BackupSource, PIECE_BYTES, Sink, pour_image};
use crate::error::MakeSnapshotError;

/// How much of a directory is wanted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Extent {
    /// What is known to be committed.
    Committed,
    /// What may have been told to clients, too: rule B6.
    Survivor,
}

/// Writes the directory of a stopped replica into a file: its newest snapshot, and every slot after it that it
/// knows to be committed. Waits for the disk. The directory is locked meanwhile, and not changed.
///
/// A replica that lags behind the others gives what it has. Where none is left but those, see [`super::survey`].
pub fn export_stopped(
    dir: impl AsRef<Path>,
    file: impl AsRef<Path>,
) -> Result<BackupInfo, BackupError> {
    let mut inspection = Inspection::open(dir)?;
    let recovered = inspection.recovered()?;
    if known_prefix(&recovered) == Slot::ZERO {
        return Err(BackupError::Snapshot(MakeSnapshotError::Nothing));
    }
    let format = inspection.format();
    let (cluster, group, replica) = (format.cluster, format.group, format.replica);
    let origin = BackupOrigin { source: BackupSource::Stopped, cluster, group, replica };
    let mut writer = Writer::create(file.as_ref(), origin)?;
    pour(&mut inspection, &recovered, Extent::Committed, &mut writer)?;
    writer.finish()
}

/// Pours what is in a directory.
pub(crate) fn pour(
    inspection: &mut Inspection,
    recovered: &Recovered,
    extent: Extent,
    sink: &mut impl Sink,
) -> Result<(), BackupError> {
    let mut held = Slot::ZERO;
    if let Some(meta) = &recovered.snapshot {
        let reader = inspection.open_snapshot(meta)?;
        let mut reader = reader.expect("it was among them, and the directory is locked");
        pour_image(reader.as_mut(), meta, sink)?;
        held = meta.slot;
    }
    let through = known_prefix(recovered);
    while held < through {
        let (group, from) = (recovered.format.group, held.next());
        let loaded = inspection.load(LoadRange { group, from, through, bytes_max: PIECE_BYTES })?;
        if loaded.values.is_empty() {
            let what = format!("the log says that {from} is committed, and holds no value of it");
            return Err(StorageError::Corrupt { what }.into());
        }
        for value in loaded.values {
            held = held.next();
            sink.value(held, value)?;
        }
    }
    if extent == Extent::Survivor {
        salvage(recovered).into_iter().try_for_each(|kept| sink.value(kept.slot, kept.value))?;
    }
    Ok(())
}
