//! Backups: a cluster's slots in one file, and new clusters that begin with them.
//!
//! Owns: [`Backup`], a file that was read and found whole; what is known of one; [`BackupError`]. `file` is
//! its layout, `found` how a storage begins with a past, `live` how a running node writes one, `stopped` how
//! that is done of a directory, `recover` what is done when a majority of voters is lost for good. None of
//! this is of a running cluster's protocol: what a past may be, and why it is safe, is `paxos_core::founding`.
//! Invariants: (1) a file is a backup from its first byte to its last, or refused; (2) a new cluster has an
//! id of its own, always; (3) nothing that exists is written over.
//! Source: protocol.md §17; docs/format-backup.md.

pub(crate) mod file;
mod found;
pub(crate) mod live;
#[cfg(feature = "wal")]
mod recover;
#[cfg(feature = "wal")]
mod stopped;
#[cfg(test)]
mod tests;

use core::fmt;
use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use paxos_core::founding::FoundingError;
use paxos_core::ids::{ClusterId, GroupId, ReplicaId, Slot};
use paxos_core::port::{SnapshotReader, Storage, StorageError};
use paxos_core::snapshot::SnapshotMeta;
use paxos_core::value::Value;

use crate::error::MakeSnapshotError;
use crate::snapshot::SnapshotInfo;

pub use found::Founded;
#[cfg(feature = "wal")]
pub use recover::{Recovery, RecoveryError, Survey, SurveyFacts, survey};
#[cfg(feature = "wal")]
pub use stopped::export_stopped;

/// How much is read and written at once.
pub(crate) const PIECE_BYTES: usize = 256 << 10;

/// What a backup was made of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BackupSource {
    /// A running node: a snapshot of its state machine.
    Running,
    /// The directory of a stopped replica: its newest snapshot, and the committed slots after it.
    Stopped,
}

impl fmt::Display for BackupSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Running => "a running node",
            Self::Stopped => "a stopped replica's directory",
        })
    }
}

/// Whose slots they are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct BackupOrigin {
    /// What it was made of.
    pub source: BackupSource,
    /// The cluster that it was made in, which no cluster that begins with it may be called.
    pub cluster: ClusterId,
    /// The replicated log.
    pub group: GroupId,
    /// The replica.
    pub replica: ReplicaId,
}

/// What is in a backup.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct BackupInfo {
    /// Whose slots they are.
    pub origin: BackupOrigin,
    /// The snapshot in it, if there is one.
    pub snapshot: Option<SnapshotInfo>,
    /// How many slots follow it, value by value.
    pub values: u64,
    /// The last slot.
    pub last: Slot,
    /// The length of the file.
    pub file_bytes: u64,
}

/// Why there is no backup, or why it is of no use.
#[derive(Debug)]
#[non_exhaustive]
pub enum BackupError {
    /// Reading or writing failed.
    Io {
        /// What was attempted, with the path.
        what: String,
        /// The cause.
        source: io::Error,
    },
    /// There is something of this name already, and it is left as it is.
    Exists {
        /// The path.
        path: PathBuf,
    },
    /// The file is no backup, or not as it was written.
    Damaged {
        /// Where, and what is wrong.
        what: String,
    },
    /// Another release wrote the file.
    Version {
        /// The file.
        path: PathBuf,
        /// The version of its format.
        version: u16,
    },
    /// The cluster that is to begin with it has the name of the one that it was made in.
    SameCluster(ClusterId),
    /// The storage failed, or cannot be begun with.
    Storage(StorageError),
    /// The storage is not that of a directory that was just formatted for one group.
    Founding(FoundingError),
    /// The storage keeps no snapshots, and there is one in the backup.
    NoSnapshots,
    /// The node made no snapshot to write.
    Snapshot(MakeSnapshotError),
}

impl fmt::Display for BackupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { what, source } => write!(f, "{what}: {source}"),
            Self::Exists { path } => {
                write!(f, "{} exists already: nothing was changed", path.display())
            }
            Self::Damaged { what } => write!(f, "{what}: take another copy of the backup"),
            Self::Version { path, version } => write!(
                f,
                "{} is a backup of format version {version}, and this release reads {}: use the \
                 release that wrote it",
                path.display(),
                file::VERSION
            ),
            Self::SameCluster(cluster) => write!(
                f,
                "the backup was made in cluster {cluster}: a cluster that begins with it needs \
                 another id, or replicas of the old one could mix with it"
            ),
            Self::Storage(error) => error.fmt(f),
            Self::Founding(error) => error.fmt(f),
            Self::NoSnapshots => f.write_str("the storage keeps no snapshots"),
            Self::Snapshot(error) => write!(f, "no snapshot: {error}"),
        }
    }
}

impl std::error::Error for BackupError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Storage(error) => Some(error),
            Self::Founding(error) => Some(error),
            Self::Snapshot(error) => Some(error),
            Self::Exists { .. }
            | Self::Damaged { .. }
            | Self::Version { .. }
            | Self::SameCluster(_)
            | Self::NoSnapshots => None,
        }
    }
}

impl From<StorageError> for BackupError {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

/// What could not be done with a path.
pub(crate) fn failed(what: &str, path: &Path) -> impl FnOnce(io::Error) -> BackupError + use<> {
    let what = format!("{what} {}", path.display());
    move |source| BackupError::Io { what, source }
}

/// Where the parts of a past go, in this order: the facts of a snapshot, its image, the values after it.
pub(crate) trait Sink {
    /// There is a snapshot: its image follows.
    fn facts(&mut self, meta: &SnapshotMeta) -> Result<(), BackupError>;
    /// The next bytes of the image.
    fn image(&mut self, bytes: &[u8]) -> Result<(), BackupError>;
    /// The image is at its end.
    fn image_end(&mut self) -> Result<(), BackupError>;
    /// The value of the next slot.
    fn value(&mut self, slot: Slot, value: Value) -> Result<(), BackupError>;
}

/// Pours a snapshot.
pub(crate) fn pour_image(
    reader: &mut dyn SnapshotReader,
    meta: &SnapshotMeta,
    sink: &mut impl Sink,
) -> Result<(), BackupError> {
    sink.facts(meta)?;
    let mut offset = 0;
    while offset < meta.bytes {
        let piece = reader.read_at(offset, PIECE_BYTES)?;
        if piece.is_empty() {
            let what = format!("the image of the snapshot of {} ends too early", meta.slot);
            return Err(StorageError::Corrupt { what }.into());
        }
        offset += piece.len() as u64;
        sink.image(&piece)?;
    }
    sink.image_end()
}

/// A backup that is whole, to begin clusters with.
///
/// ```no_run
/// # #[cfg(feature = "wal")] fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use paxos::backup::Backup;
/// use paxos::storage::{Wal, WalOptions};
/// use paxos::{ClusterId, Format, GroupId, Membership, ReplicaId};
///
/// let backup = Backup::open("monday.backup")?;
/// // Draw it: no cluster may ever have had this id. The same for every member, and for nobody else.
/// let cluster = ClusterId::new(0x7a31_08f2_55c9_4d10_9be6_04aa_c3d7_e182);
/// let membership = Membership::voters_only([1, 2, 3].map(ReplicaId::new))?;
/// for number in 1..=3 {
///     let (group, replica) = (GroupId::default(), ReplicaId::new(number));
///     let format = Format { cluster, group, replica, membership: membership.clone() };
///     let dir = format!("new/{number}");
///     let mut wal = Wal::format(&dir, &format, WalOptions::default())?;
///     // Where this fails the directory is to be thrown away.
///     let founded = backup.found(&mut wal)?;
///     println!("{dir} begins after {}", founded.last);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Backup {
    path: PathBuf,
    info: BackupInfo,
}

impl Backup {
    /// Reads a backup from its first byte to its last. Waits for the disk.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, BackupError> {
        struct Nowhere;
        impl Sink for Nowhere {
            fn facts(&mut self, _: &SnapshotMeta) -> Result<(), BackupError> {
                Ok(())
            }
            fn image(&mut self, _: &[u8]) -> Result<(), BackupError> {
                Ok(())
            }
            fn image_end(&mut self) -> Result<(), BackupError> {
                Ok(())
            }
            fn value(&mut self, _: Slot, _: Value) -> Result<(), BackupError> {
                Ok(())
            }
        }
        let path = path.as_ref();
        let info = Self::pour(path, &mut Nowhere)?;
        Ok(Self { path: path.to_owned(), info })
    }

    /// What is in it.
    pub fn info(&self) -> &BackupInfo {
        &self.info
    }

    /// Has the storage of a directory that was just formatted begin with what is in the backup. Waits for
    /// the disk. Every member of the new cluster is to begin with the same backup (rule B2).
    ///
    /// The storage has lived when this returns: drop it, and open the directory again to start its node. After
    /// an error the directory is to be thrown away, and so it is where the process ends before this
    /// returns: format it under a name that is not its own, and rename it at the end, as `kv init` does.
    pub fn found(&self, storage: &mut impl Storage) -> Result<Founded, BackupError> {
        found::found(storage, self.info.origin.cluster, |sink| {
            let info = Self::pour(&self.path, sink)?;
            if info == self.info {
                return Ok(());
            }
            Err(BackupError::Damaged {
                what: format!("{} was changed since it was opened", self.path.display()),
            })
        })
    }

    fn pour(path: &Path, sink: &mut impl Sink) -> Result<BackupInfo, BackupError> {
        let opened = File::open(path).map_err(failed("cannot open", path))?;
        file::read(path, BufReader::with_capacity(PIECE_BYTES, opened), sink)
    }
}
