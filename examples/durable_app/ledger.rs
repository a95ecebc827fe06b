//! A state machine that keeps its state on a disk of its own, in an embedded store.
//!
//! Owns: [`Ledger`], accounts and the numbers of the deposits that made them; its tables. Knows no log.
//! Invariants: (1) the applied slot and the digest are written in the transaction that changes what they
//! speak of; (2) a batch is in the store as a whole or not at all; (3) an error of the store ends in a panic,
//! which stops this replica and no other.

use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, StreamExt};
use paxos::core::snapshot::ImageHasher;
use paxos::{Batch, Slot, SnapshotError, SnapshotStream, StateDigest, StateMachine, async_trait};
use redb::{
    Database, Durability, ReadableDatabase, ReadableTable, ReadableTableMetadata, Table,
    TableDefinition, WriteTransaction,
};
use serde::{Deserialize, Serialize};

/// What each account holds.
const ACCOUNTS: TableDefinition<u64, u64> = TableDefinition::new("accounts");
/// How often the deposit of each number was applied: once.
const DEPOSITS: TableDefinition<u64, u64> = TableDefinition::new("deposits");
/// The applied slot and the digest, at zero.
const PLACE: TableDefinition<u64, (u64, u128)> = TableDefinition::new("place");

/// Entries of an image that are read at once.
const PIECE: usize = 1024;
/// Table, key and value of an entry of an image.
const ENTRY_LEN: usize = 17;

/// Puts an amount on an account.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Deposit {
    /// Each has its own.
    pub(crate) number: u64,
    pub(crate) account: u64,
    pub(crate) amount: u64,
}

/// What is asked of the ledger.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Question {
    /// How often this deposit was applied.
    Times(u64),
    /// The sum of all accounts, and the number of deposits.
    Total,
}

/// When what was applied is made to survive a crash.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Sync {
    /// After so many slots. What a crash takes away is in the log, and is given again.
    Slots(u64),
    /// With each batch: twice as many syncs as the log alone needs.
    Always,
}

/// The state machine.
pub(crate) struct Ledger {
    store: Arc<Database>,
    sync: Sync,
    applied: Slot,
    /// The sum of the entries' digests.
    sum: u128,
    /// Up to here the store's own disk has it.
    synced: Slot,
}

/// This replica's store failed: it must not go on, as others may not fail here.
fn or_stop<T>(result: Result<T, impl Display>, what: &str) -> T {
    result.unwrap_or_else(|error| panic!("the store failed, {what}: {error}"))
}

fn entry(table: u8, key: u64, value: u64) -> u128 {
    let mut hasher = ImageHasher::new();
    hasher.update(&[table]);
    hasher.update(&key.to_le_bytes());
    hasher.update(&value.to_le_bytes());
    hasher.finish().0
}

/// Adds to what a key holds, in the table and in the sum of digests.
fn add(rows: &mut Table<'_, u64, u64>, table: u8, key: u64, more: u64, sum: &mut u128) -> u64 {
    let held = or_stop(rows.get(key), "reading").map_or(0, |held| held.value());
    let after = held.saturating_add(more);
    if held > 0 {
        *sum = sum.wrapping_sub(entry(table, key, held));
    }
    *sum = sum.wrapping_add(entry(table, key, after));
    or_stop(rows.insert(key, after), "writing");
    after
}

impl Ledger {
    /// Opens the store of this file, or makes it.
    pub(crate) fn open(path: &Path, sync: Sync) -> Result<Self, redb::Error> {
        let store = Database::create(path)?;
        let write = store.begin_write()?;
        let (applied, sum) = {
            write.open_table(ACCOUNTS)?;
            write.open_table(DEPOSITS)?;
            let place = write.open_table(PLACE)?;
            let held = place.get(0)?;
            held.map_or((0, 0), |held| held.value())
        };
        write.commit()?;
        let applied = Slot::new(applied);
        Ok(Self { store: Arc::new(store), sync, applied, sum, synced: applied })
    }

    /// Begins a transaction, which ends durably or not.
    fn begin(&self, durability: Durability) -> WriteTransaction {
        let mut write = or_stop(self.store.begin_write(), "beginning");
        or_stop(write.set_durability(durability), "beginning");
        write
    }

    /// Writes down what the state includes, and ends the transaction of what changed it.
    fn commit(&mut self, write: WriteTransaction, applied: Slot, sum: u128) {
        let mut place = or_stop(write.open_table(PLACE), "opening");
        or_stop(place.insert(0, (applied.number(), sum)), "writing");
        drop(place);
        or_stop(write.commit(), "committing");
        (self.applied, self.sum) = (applied, sum);
    }

    fn apply_batch(&mut self, batch: &Batch<Deposit>) -> Vec<u64> {
        let due = match self.sync {
            Sync::Always => true,
            Sync::Slots(slots) => batch.slot.distance_from(self.synced) >= slots,
        };
        let write = self.begin(if due { Durability::Immediate } else { Durability::None });
        let mut sum = self.sum;
        let mut accounts = or_stop(write.open_table(ACCOUNTS), "opening");
        let mut deposits = or_stop(write.open_table(DEPOSITS), "opening");
        let mut apply = |deposit: &Deposit| {
            add(&mut deposits, 1, deposit.number, 1, &mut sum);
            add(&mut accounts, 0, deposit.account, deposit.amount, &mut sum)
        };
        let balances = batch.commands.iter().map(&mut apply).collect();
        drop((accounts, deposits));
        self.commit(write, batch.slot, sum);
        if due {
            self.synced = batch.slot;
        }
        balances
    }

    /// Replaces everything, in one transaction.
    fn replace(&mut self, slot: Slot, image: &[u8]) {
        let write = self.begin(Durability::Immediate);
        let mut sum = 0;
        let mut tables = [ACCOUNTS, DEPOSITS].map(|table| {
            or_stop(write.delete_table(table), "clearing");
            or_stop(write.open_table(table), "opening")
        });
        for bytes in image.chunks_exact(ENTRY_LEN) {
            let number =
                |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
            let rows = &mut tables[usize::from(bytes[0] & 1)];
            add(rows, bytes[0] & 1, number(1), number(9), &mut sum);
        }
        drop(tables);
        self.commit(write, slot, sum);
        self.synced = slot;
    }
}

/// The next entries of a table from this key on, and the key to go on from.
fn piece(
    read: &redb::ReadTransaction,
    table: u8,
    from: u64,
) -> std::io::Result<(Bytes, Option<u64>)> {
    let rows = [ACCOUNTS, DEPOSITS][usize::from(table)];
    let rows = read.open_table(rows).map_err(std::io::Error::other)?;
    let (mut bytes, mut next) = (Vec::new(), None);
    let range = rows.range(from..).map_err(std::io::Error::other)?;
    for (count, row) in range.enumerate() {
        let (key, value) = row.map_err(std::io::Error::other)?;
        if count == PIECE {
            next = Some(key.value());
            break;
        }
        bytes.push(table);
        bytes.extend_from_slice(&key.value().to_le_bytes());
        bytes.extend_from_slice(&value.value().to_le_bytes());
    }
    Ok((bytes.into(), next))
}

#[async_trait]
impl StateMachine for Ledger {
    type Command = Deposit;
    type Reply = u64;
    type Query = Question;
    type Answer = (u64, u64);

    async fn apply(&mut self, batch: Batch<Deposit>) -> Vec<u64> {
        // A commit that is made durable waits for the disk, and must not hold up others meanwhile.
        tokio::task::block_in_place(|| self.apply_batch(&batch))
    }

    async fn query(&self, question: Question) -> (u64, u64) {
        let read = or_stop(self.store.begin_read(), "reading");
        let deposits = or_stop(read.open_table(DEPOSITS), "opening");
        match question {
            Question::Times(number) => {
                let times = or_stop(deposits.get(number), "reading");
                (times.map_or(0, |times| times.value()), 0)
            }
            Question::Total => {
                let accounts = or_stop(read.open_table(ACCOUNTS), "opening");
                let rows = or_stop(accounts.iter(), "reading");
                let sum = rows.map(|row| or_stop(row, "reading").1.value()).sum();
                (sum, or_stop(deposits.len(), "reading"))
            }
        }
    }

    fn applied(&self) -> Slot {
        self.applied
    }

    fn skipped(&mut self, through: Slot) {
        // Written down with the next batch: what is given again until then holds no command.
        self.applied = self.applied.max(through);
    }

    fn digest(&self) -> Option<StateDigest> {
        Some(StateDigest(self.sum))
    }

    async fn snapshot(&self) -> Result<SnapshotStream, SnapshotError> {
        let read = self.store.begin_read();
        let read = read.map_err(|error| SnapshotError::Io(std::io::Error::other(error)))?;
        // The transaction goes on seeing this state, whatever is applied meanwhile.
        let pieces = stream::unfold(Some((read, 0, 0)), |at| async move {
            let (read, table, from) = at?;
            let (bytes, next) = match piece(&read, table, from) {
                Ok(piece) => piece,
                Err(error) => return Some((Err(error), None)),
            };
            let at = match next {
                Some(from) => Some((read, table, from)),
                None => (table == 0).then_some((read, 1, 0)),
            };
            Some((Ok(bytes), at))
        });
        Ok(pieces.boxed())
    }

    async fn restore(&mut self, slot: Slot, mut from: SnapshotStream) -> Result<(), SnapshotError> {
        let mut image = Vec::new();
        while let Some(piece) = from.next().await {
            image.extend_from_slice(&piece.map_err(SnapshotError::Io)?);
        }
        tokio::task::block_in_place(|| self.replace(slot, &image));
        Ok(())
    }
}
