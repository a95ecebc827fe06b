//! A small store under test at depth node, and what it is to do.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::stream::{self, StreamExt};
use paxos::sim::linear::Specification;
use paxos::sim::{Answer, Question, Rng, Simulation, digest_of};
use paxos::{Batch, Slot, SnapshotError, SnapshotStream, StateDigest, StateMachine, async_trait};
use serde::{Deserialize, Serialize};

/// So many keys: few enough that clients meet.
const KEYS: u64 = 3;
/// Values are drawn from a few, so that swaps succeed now and then.
const VALUES: u64 = 5;

/// A key and its value in an image.
const PAIR_LEN: usize = 9;

/// So many bytes go with some changes.
const PADDING_MAX: u64 = 16_000;

/// What changes the store. Each names its key.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) enum Change {
    /// Lets the key hold this, and replies what it held.
    Put(u8, u64),
    /// Lets the key hold the second if it holds the first, and replies what it held.
    Swap(u8, u64, u64),
    /// Adds to what the key holds, and replies what it held.
    Add(u8, u64),
}

impl Change {
    fn key(&self) -> u8 {
        match self {
            Self::Put(key, _) | Self::Swap(key, ..) | Self::Add(key, _) => *key,
        }
    }

    /// What the key holds afterwards.
    fn after(&self, held: u64) -> u64 {
        match self {
            Self::Put(_, value) => *value,
            Self::Swap(_, from, to) if *from == held => *to,
            Self::Swap(..) => held,
            Self::Add(_, more) => held.wrapping_add(*more),
        }
    }
}

/// A change, and bytes that nobody looks at: without them no log would ever fill a segment.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Padded {
    change: Change,
    padding: Bytes,
}

/// The store. A key that was never written holds zero.
#[derive(Default)]
pub(crate) struct Store(BTreeMap<u8, u64>);

#[async_trait]
impl StateMachine for Store {
    type Command = Padded;
    type Reply = u64;
    type Query = u8;
    type Answer = u64;

    async fn apply(&mut self, batch: Batch<Padded>) -> Vec<u64> {
        let change = |Padded { change, .. }| {
            let held = self.0.entry(change.key()).or_default();
            let after = change.after(*held);
            std::mem::replace(held, after)
        };
        batch.commands.into_iter().map(change).collect()
    }

    async fn query(&self, key: u8) -> u64 {
        self.0.get(&key).copied().unwrap_or_default()
    }

    fn digest(&self) -> Option<StateDigest> {
        Some(StateDigest(u128::from(digest_of(&self.0))))
    }

    async fn snapshot(&self) -> Result<SnapshotStream, SnapshotError> {
        let pairs =
            self.0.clone().into_iter().map(|(key, value)| {
                Ok(Bytes::from([&[key][..], &value.to_le_bytes()[..]].concat()))
            });
        Ok(stream::iter(pairs).boxed())
    }

    async fn restore(&mut self, _: Slot, mut from: SnapshotStream) -> Result<(), SnapshotError> {
        let mut image = Vec::new();
        while let Some(piece) = from.next().await {
            image.extend_from_slice(&piece.map_err(SnapshotError::Io)?);
        }
        self.0.clear();
        for pair in image.chunks_exact(PAIR_LEN) {
            let value = pair[1..].try_into().expect("what follows the key has eight bytes");
            self.0.insert(pair[0], u64::from_le_bytes(value));
        }
        Ok(())
    }
}

/// What the store is to do, one caller at a time.
struct OneByOne;

impl Specification for OneByOne {
    type State = u64;
    type Call = Question<Padded, u8>;
    type Reply = Answer<u64, u64>;
    type Key = u8;

    fn key(&self, call: &Self::Call) -> u8 {
        match call {
            Question::Command(padded) => padded.change.key(),
            Question::Query(key) => *key,
        }
    }

    fn initial(&self, _: &u8) -> u64 {
        0
    }

    fn step(&self, held: &u64, call: &Self::Call, reply: Option<&Self::Reply>) -> Option<u64> {
        let after = match call {
            Question::Command(padded) => padded.change.after(*held),
            Question::Query(_) => *held,
        };
        let told = match reply {
            Some(Answer::Reply(told) | Answer::Answer(told)) => *told,
            None => return Some(after),
        };
        (told == *held).then_some(after)
    }
}

fn draw(rng: &mut Rng) -> Question<Padded, u8> {
    let key = rng.below(KEYS) as u8;
    let mut value = || rng.below(VALUES);
    let (one, other) = (value(), value());
    let change = match rng.below(10) {
        0..3 => return Question::Query(key),
        3..6 => Change::Put(key, one),
        6..8 => Change::Swap(key, one, other),
        _ => Change::Add(key, one + 1),
    };
    let length = if rng.chance(300) { rng.below(PADDING_MAX) as usize } else { 0 };
    Question::Command(Padded { change, padding: Bytes::from(vec![0; length]) })
}

/// Clusters of nodes that hold the store.
pub(crate) fn simulation() -> Simulation<Store> {
    Simulation::new(Store::default, draw).digest(|store| digest_of(&store.0)).linearizable(OneByOne)
}
