//! What a node goes on from.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use paxos_core::ids::{ClusterId, GroupId};
use paxos_core::membership::Membership;
use paxos_core::snapshot::Governs;
use paxos_core::value::Level;
use paxos_storage::MemoryStorage;

use super::*;
use crate::machine::{Batch, SnapshotStream};
use crate::snapshot::image::Head;

/// Holds the bytes of an image, and cannot read those of some slots.
#[derive(Default)]
struct Picky {
    state: Vec<u8>,
    refuses: Vec<u64>,
}

#[async_trait]
impl StateMachine for Picky {
    type Command = u64;
    type Reply = u64;
    type Query = ();
    type Answer = ();

    async fn apply(&mut self, batch: Batch<u64>) -> Vec<u64> {
        batch.commands
    }

    async fn query(&self, (): ()) {}

    async fn snapshot(&self) -> Result<SnapshotStream, SnapshotError> {
        Ok(futures::stream::empty().boxed())
    }

    async fn restore(&mut self, slot: Slot, mut from: SnapshotStream) -> Result<(), SnapshotError> {
        self.state.clear();
        while let Some(piece) = from.next().await {
            self.state.extend_from_slice(&piece.map_err(SnapshotError::Io)?);
        }
        if self.refuses.contains(&slot.number()) {
            return Err(SnapshotError::Io(std::io::Error::other(format!("not that of {slot}"))));
        }
        Ok(())
    }
}

/// A replica with snapshots of slots 3, 5 and 9, whose log begins after `trimmed`.
fn kept(trimmed: u64) -> (Box<dyn SnapshotStore>, Recovered) {
    let membership = Membership::voters_only([ReplicaId::new(1)]).unwrap();
    let (cluster, group, replica) = (ClusterId::new(1), GroupId::default(), ReplicaId::new(1));
    let format = Format { cluster, group, replica, membership: membership.clone() };
    let mut storage = MemoryStorage::formatted(format);
    let mut recovered = storage.recover(7).unwrap().pop().unwrap();
    let mut store = storage.snapshots().unwrap();
    for slot in [3, 5, 9] {
        let head =
            Head::of(Slot::new(slot), &SessionTable::new(Bounds::default()), Level::default());
        let mut writer = store.create(group).unwrap();
        writer.write(&head.encode()).unwrap();
        writer.write(&Bytes::from(vec![slot as u8; 4])).unwrap();
        let (bytes, digest) = writer.image();
        let governs = vec![Governs { from: Slot::FIRST, membership: membership.clone() }];
        let (slot, clock) = (head.slot, head.clock);
        let meta = SnapshotMeta { group, slot, clock, governs, bytes, digest };
        writer.finish(&meta).unwrap();
        recovered.snapshot = Some(meta);
    }
    recovered.trimmed = Slot::new(trimmed);
    (store, recovered)
}

/// From which snapshot a machine goes on that cannot read some; or what is said.
async fn goes_on(trimmed: u64, refuses: &[u64]) -> Result<u64, StartError> {
    let mut machine = Picky { state: Vec::new(), refuses: refuses.to_vec() };
    let (store, mut recovered) = kept(trimmed);
    let bounds = Bounds::default();
    let revived = revive(Some(store), &mut recovered, &mut machine, bounds, Place::Here).await?;
    let slot = recovered.snapshot.unwrap().slot;
    assert_eq!(machine.state, [slot.number() as u8; 4]);
    let known: Vec<_> = revived.shelf.known.iter().map(|meta| meta.slot.number()).collect();
    let expected = [3, 5, 9].into_iter().filter(|known| *known <= slot.number());
    assert_eq!(known, expected.collect::<Vec<_>>(), "nobody is given what cannot be read");
    let unfit: Vec<_> = revived.shelf.unfit.iter().map(|name| name.slot.number()).collect();
    assert_eq!(unfit.len(), [5, 9].iter().filter(|newer| **newer > slot.number()).count());
    Ok(slot.number())
}

#[tokio::test]
async fn n8_an_older_snapshot_serves_where_the_log_has_every_slot_above_it() {
    assert_eq!(goes_on(3, &[]).await.unwrap(), 9);
    assert_eq!(goes_on(3, &[9]).await.unwrap(), 5);
    assert_eq!(goes_on(5, &[9]).await.unwrap(), 5);
    assert_eq!(goes_on(0, &[5, 9]).await.unwrap(), 3);
    let error = goes_on(6, &[9]).await.unwrap_err();
    let StartError::Restore { slot, trimmed, why } = error else { panic!("{error}") };
    assert_eq!((slot, trimmed), (Slot::new(9), Slot::new(6)), "slot 6 is in no log");
    assert!(why.to_string().contains("not that of slot 9"), "{why}");
    // Of several the newest is named: what is wrong with it is the question.
    let error = goes_on(0, &[3, 5, 9]).await.unwrap_err();
    assert!(matches!(error, StartError::Restore { slot, .. } if slot == Slot::new(9)), "{error}");
}
