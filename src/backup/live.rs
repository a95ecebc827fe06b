//! A backup of a running node.
//!
//! Owns: [`export`] and [`Node::export`]. The node's task orders a snapshot and lends it; reading and writing
//! it is done on a thread for work that waits, and delays neither the node nor its log.

use std::path::{Path, PathBuf};

use super::file::Writer;
use super::{BackupError, BackupInfo, BackupOrigin, BackupSource, failed, pour_image};
use crate::machine::StateMachine;
use crate::node::{Node, Place};
use crate::shared::Shared;
use crate::snapshot;

impl<M: StateMachine> Node<M> {
    /// Makes a snapshot of a state that includes everything that this node had applied, and writes it into a
    /// new file that its owner alone may read. Returns when that is whole and durable. The node goes on meanwhile.
    ///
    /// What the node had not applied is not in it: ask one that leads, or that is not behind. A new cluster
    /// begins with it by [`super::Backup::found`].
    ///
    /// # Errors
    ///
    /// Where there is a file of this name, where it cannot be written, and where no snapshot was made.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future withdraws nothing: the file is written all the same.
    pub async fn export(&self, file: impl AsRef<Path>) -> Result<BackupInfo, BackupError> {
        export(&self.shared(), self.place, file.as_ref().to_owned()).await
    }
}

pub(crate) async fn export(
    shared: &Shared,
    place: Place,
    file: PathBuf,
) -> Result<BackupInfo, BackupError> {
    if std::fs::symlink_metadata(&file).is_ok() {
        return Err(BackupError::Exists { path: file });
    }
    snapshot::make(shared).await.map_err(BackupError::Snapshot)?;
    let mut lent = snapshot::lend(shared).await.map_err(BackupError::Snapshot)?;
    let Place { cluster, group, replica } = place;
    let origin = BackupOrigin { source: BackupSource::Running, cluster, group, replica };
    let path = file.clone();
    let written = tokio::task::spawn_blocking(move || {
        let mut writer = Writer::create(&path, origin)?;
        pour_image(lent.reader.as_mut(), &lent.meta, &mut writer)?;
        writer.finish()
    });
    // It cannot be cancelled while it is waited for: it panicked, or the runtime ends.
    written
        .await
        .unwrap_or_else(|error| Err(failed("cannot write", &file)(std::io::Error::other(error))))
}
