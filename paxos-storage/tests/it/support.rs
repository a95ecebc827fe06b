//! What the tests share: a replica's directory on a simulated disk, and values to put there.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use bytes::Bytes;
use paxos_core::ballot::Ballot;
use paxos_core::durable::Write;
use paxos_core::ids::{
    ClientId, ClusterId, Epoch, GroupId, LogClock, ReplicaId, RequestNumber, Slot,
};
use paxos_core::membership::{Change, Member, Membership};
use paxos_core::message::Origin;
use paxos_core::port::{Format, LoadRange, Loaded, Recovered, Storage, StorageError};
use paxos_core::sim::Batches;
use paxos_core::value::{Batch, Command, Value};
use paxos_storage::sim::SimFs;
use paxos_storage::{SEGMENT_BYTES_MIN, SNAPSHOT_BLOCK_BYTES_MIN, Wal, WalOptions};

pub(crate) const DIR: &str = "/data";
pub(crate) const GROUP: GroupId = GroupId::new(3);

pub(crate) fn format() -> Format {
    Format {
        cluster: ClusterId::new(0xc1),
        group: GROUP,
        replica: ReplicaId::new(2),
        membership: Membership::voters_only([1, 2, 3].map(ReplicaId::new)).unwrap(),
    }
}

/// The membership after the first: replica 4 observes.
pub(crate) fn second() -> Membership {
    let observer = Member::new(ReplicaId::new(4));
    format().membership.changed(Change::AddObserver(observer)).unwrap()
}

pub(crate) fn small() -> WalOptions {
    WalOptions {
        segment_bytes: SEGMENT_BYTES_MIN,
        spares: 1,
        prewrite: true,
        snapshot_block_bytes: SNAPSHOT_BLOCK_BYTES_MIN,
    }
}

/// A storage with what its recovery gave and the numbering of its writes.
pub(crate) struct Open<S> {
    pub(crate) storage: S,
    pub(crate) recovered: Recovered,
    pub(crate) batches: Batches,
}

impl<S: Storage> Open<S> {
    pub(crate) fn recover(mut storage: S) -> Result<Self, StorageError> {
        let [recovered] = <[Recovered; 1]>::try_from(storage.recover(0xabcd)?).unwrap();
        let origin = Origin {
            cluster: recovered.format.cluster,
            group: recovered.format.group,
            epoch: Epoch::FIRST,
            membership: paxos_core::agreement::MembershipDigest::default(),
            replica: recovered.format.replica,
            incarnation: recovered.incarnation,
        };
        Ok(Self { storage, recovered, batches: Batches::new(origin) })
    }

    pub(crate) fn write(&mut self, writes: Vec<Write>) -> Result<(), StorageError> {
        let batch = self.batches.batch(writes);
        let sequence = batch.sequence();
        let durable = self.storage.persist(vec![batch])?;
        assert_eq!(durable.len(), 1);
        assert_eq!(durable[0].through(), sequence);
        Ok(())
    }

    pub(crate) fn load(&mut self, from: u64, through: u64) -> Loaded {
        self.try_load(from, through).unwrap()
    }

    pub(crate) fn try_load(&mut self, from: u64, through: u64) -> Result<Loaded, StorageError> {
        self.storage.load(LoadRange {
            group: GROUP,
            from: Slot::new(from),
            through: Slot::new(through),
            bytes_max: usize::MAX,
        })
    }
}

pub(crate) fn open_wal(fs: &SimFs) -> Result<Wal<SimFs>, StorageError> {
    Wal::open_or_format_on(fs.clone(), DIR, &format(), small())
}

pub(crate) fn open(fs: &SimFs) -> Result<Open<Wal<SimFs>>, StorageError> {
    Open::recover(open_wal(fs)?)
}

pub(crate) fn ballot(round: u64) -> Ballot {
    Ballot::new(round, ReplicaId::new(1))
}

pub(crate) fn value(seed: u64, len: usize) -> Value {
    let payload = Bytes::from(vec![seed as u8; len]);
    let command = Command::apply(ClientId::new(seed), RequestNumber::default(), payload);
    Value::Batch(Batch::new(LogClock::from_millis(seed), vec![command]))
}

pub(crate) fn accepted(slot: u64, round: u64, value: Value) -> Write {
    Write::Accepted { slot: Slot::new(slot), ballot: ballot(round), value }
}

/// The path of the newest segment.
pub(crate) fn newest_segment(fs: &SimFs) -> std::path::PathBuf {
    let segments = fs.files().into_iter();
    segments
        .filter(|path| path.extension().is_some_and(|extension| extension == "wal"))
        .max()
        .unwrap()
}

/// What was recovered, without the life that it was recovered for.
pub(crate) fn facts(recovered: &Recovered) -> Recovered {
    let mut facts = recovered.clone();
    facts.start = paxos_core::port::Start::Again;
    facts.incarnation = paxos_core::ids::Incarnation::new(0, 0);
    facts
}
