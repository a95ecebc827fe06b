//! How a storage begins with a past.
//!
//! Owns: [`found`]: the order of steps, which is that of protocol.md §17. Knows no files: it is given a
//! storage that was just formatted, and something that pours a past out.
//! Invariants: the snapshot is durable before the log says that its slots are trimmed; when it returns without
//! an error, everything is durable.

use std::hash::{BuildHasher, RandomState};

use paxos_core::founding::{self, Founding};
use paxos_core::ids::{ClusterId, Slot};
use paxos_core::port::{Recovered, SnapshotStore, SnapshotWriter, Storage, StorageError};
use paxos_core::session::{Bounds, SessionTable};
use paxos_core::snapshot::SnapshotMeta;
use paxos_core::value::Value;

use super::{BackupError, Sink};
use crate::snapshot::SnapshotInfo;
use crate::snapshot::image::HeadReader;

/// Values are persisted so many bytes at once.
const BATCH_BYTES: usize = 1 << 20;

/// What a directory begins with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Founded {
    /// The new cluster.
    pub cluster: ClusterId,
    /// The snapshot, if there is one. Its digest is the one that it had.
    pub snapshot: Option<SnapshotInfo>,
    /// The last slot that is filled. One or more slots at the end close the sessions that were known.
    pub last: Slot,
}

/// Has a storage begin with the past that is poured. `old` is the cluster that it is of.
pub(crate) fn found<S: Storage>(
    storage: &mut S,
    old: ClusterId,
    pour: impl FnOnce(&mut Foundation<'_, S>) -> Result<(), BackupError>,
) -> Result<Founded, BackupError> {
    // Half of it tells copies of a directory apart.
    let nonce = RandomState::new().hash_one(0_u64) as u32;
    let recovered: [Recovered; 1] = storage.recover(nonce)?.try_into().map_err(|_| {
        let what = "a directory of several groups cannot begin with a past".to_owned();
        StorageError::Mismatch { what }
    })?;
    let [recovered] = recovered;
    let cluster = recovered.format.cluster;
    if cluster == old {
        return Err(BackupError::SameCluster(cluster));
    }
    let mut foundation = Foundation {
        storage,
        recovered: Some(recovered),
        image: None,
        store: None,
        snapshot: None,
        founding: None,
    };
    pour(&mut foundation)?;
    let snapshot = foundation.snapshot;
    let last = foundation.end()?;
    Ok(Founded { cluster, snapshot, last })
}

/// A directory on its way to what it begins with.
pub(crate) struct Foundation<'a, S> {
    storage: &'a mut S,
    /// Until the log is begun with.
    recovered: Option<Recovered>,
    image: Option<Making>,
    /// Held as long as a writer may be of it.
    store: Option<Box<dyn SnapshotStore>>,
    snapshot: Option<SnapshotInfo>,
    founding: Option<Founding>,
}

/// An image that is being written.
struct Making {
    meta: SnapshotMeta,
    writer: Box<dyn SnapshotWriter>,
    head: HeadReader,
}

impl<S: Storage> Foundation<'_, S> {
    fn begin(&mut self, past: Option<(&SnapshotMeta, &SessionTable)>) -> Result<(), BackupError> {
        let recovered = self.recovered.take().expect("a past begins once");
        self.founding = Some(Founding::begin(recovered, past).map_err(BackupError::Founding)?);
        Ok(())
    }

    fn founding(&mut self) -> Result<&mut Founding, BackupError> {
        if self.founding.is_none() {
            self.begin(None)?;
        }
        Ok(self.founding.as_mut().expect("it was begun"))
    }

    fn end(mut self) -> Result<Slot, BackupError> {
        self.founding()?;
        let founding = self.founding.take().expect("it was begun");
        let (last, batch) = founding.finish();
        if let Some(batch) = batch {
            let _durable = self.storage.persist(vec![batch])?;
        }
        Ok(last)
    }
}

impl<S: Storage> Sink for Foundation<'_, S> {
    fn facts(&mut self, meta: &SnapshotMeta) -> Result<(), BackupError> {
        let format = &self.recovered.as_ref().expect("the snapshot comes first").format;
        let meta = founding::founded(meta, format.group, &format.membership);
        let mut store = self.storage.snapshots().ok_or(BackupError::NoSnapshots)?;
        let writer = store.create(meta.group)?;
        self.image = Some(Making { head: HeadReader::new(&meta), meta, writer });
        self.store = Some(store);
        Ok(())
    }

    fn image(&mut self, bytes: &[u8]) -> Result<(), BackupError> {
        let making = self.image.as_mut().expect("its facts came first");
        making.head.feed(bytes);
        Ok(making.writer.write(bytes)?)
    }

    fn image_end(&mut self) -> Result<(), BackupError> {
        let Making { meta, writer, head } = self.image.take().expect("its facts came first");
        let table = head.finish().and_then(|head| head.table(Bounds::default()));
        let table = table.map_err(|why| BackupError::Damaged {
            what: format!("the image of the snapshot of {}: {why}", meta.slot),
        })?;
        writer.finish(&meta)?;
        self.snapshot = Some(SnapshotInfo::of(&meta));
        self.begin(Some((&meta, &table)))
    }

    fn value(&mut self, slot: Slot, value: Value) -> Result<(), BackupError> {
        let founding = self.founding()?;
        assert_eq!(slot, founding.next(), "a past is poured in the order of its slots");
        founding.fill(value);
        if founding.gathered_bytes() >= BATCH_BYTES
            && let Some(batch) = founding.take_batch()
        {
            let _durable = self.storage.persist(vec![batch])?;
        }
        Ok(())
    }
}
