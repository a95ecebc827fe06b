//! The replicated map: what each operation does to it, and a hash of what it holds.
//!
//! Owns: [`Store`], [`Op`] and [`Outcome`]. Knows no log, no network and no protocol of clients.
//! Invariants: the outcome and the next state depend on the present state and the operations
//! alone, so that replicas that execute the same log hold the same map; `digest` is the sum of the
//! entries' hashes.
//! Source: the book's Replicated Log, on the side of the state machine.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::backend::Executed;
use crate::digest;
use crate::image;
use crate::limits::{REPLY_BYTES_MAX, REPLY_BYTES_SOFT, VALUE_BYTES_MAX};
use crate::map::Map;
use crate::resp::parse_integer;

/// An operation that changes nothing.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) enum Read {
    Get(Bytes),
    Exists(Vec<Bytes>),
    StrLen(Bytes),
    MGet(Vec<Bytes>),
    DbSize,
}

/// When a `SET` is carried out.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) enum Condition {
    Always,
    /// Only if the key has no value.
    Absent,
    /// Only if it has one.
    Present,
}

/// An operation that may change the map.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) enum Write {
    Set {
        key: Bytes,
        value: Bytes,
        condition: Condition,
        /// Whether the outcome is the old value.
        old: bool,
    },
    GetDel(Bytes),
    Del(Vec<Bytes>),
    Add {
        key: Bytes,
        delta: i64,
    },
    Append {
        key: Bytes,
        value: Bytes,
    },
    MSet(Vec<(Bytes, Bytes)>),
}

/// One client command.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) enum Op {
    Read(Read),
    Write(Write),
}

/// Why an operation changed nothing.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) enum Refusal {
    /// The value is not a number.
    NotAnInteger,
    /// The sum does not fit.
    Overflow,
    /// The value would be larger than a value may be.
    ValueTooLarge,
    /// The values asked for are more than one reply may hold.
    ReplyTooLarge,
}

/// What an operation came to.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) enum Outcome {
    Done,
    Integer(i64),
    /// A value, or its absence.
    Value(Option<Bytes>),
    Values(Vec<Option<Bytes>>),
    Refused(Refusal),
}

impl Outcome {
    /// The bytes of values in it.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Value(Some(value)) => value.len(),
            Self::Values(values) => values.iter().flatten().map(Bytes::len).sum(),
            Self::Done | Self::Integer(_) | Self::Value(None) | Self::Refused(_) => 0,
        }
    }
}

/// The map.
#[derive(Clone, Debug, Default)]
pub(crate) struct Store {
    values: Map,
    /// The bytes of keys and values.
    bytes: u64,
    /// The sum of the entries' hashes.
    digest: u128,
    /// How many writes were executed, so that a write executed twice shows in the hash.
    writes: u64,
}

impl Store {
    /// Executes operations in order, until their outcomes hold [`REPLY_BYTES_SOFT`] or more; what
    /// is left over then was not executed and is handed back.
    pub(crate) fn execute(&mut self, ops: Vec<Op>) -> Executed<Op> {
        bounded(ops, |op| match op {
            Op::Read(read) => self.read(&read),
            Op::Write(write) => self.write(write),
        })
    }

    /// The same for operations that change nothing.
    pub(crate) fn execute_reads(&self, reads: Vec<Read>) -> Executed<Read> {
        bounded(reads, |read| self.read(&read))
    }

    /// The image of what it holds, piece by piece. Taken at once; what is executed later is not in it.
    pub(crate) fn image(&self) -> impl Iterator<Item = Bytes> + Send + use<> {
        image::write(self.values.clone(), self.writes)
    }

    /// Takes in an entry of an image, into an empty store.
    pub(crate) fn recall(&mut self, key: &Bytes, value: Bytes) {
        self.put(key, value);
    }

    /// The image of which all entries were taken in says that so many writes led to it.
    pub(crate) fn recalled(&mut self, writes: u64) {
        self.writes = writes;
    }

    /// How many keys have a value.
    pub(crate) fn keys(&self) -> u64 {
        self.values.len() as u64
    }

    /// The bytes of keys and values.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// A hash of the contents and of the number of writes that led to them.
    pub(crate) fn hash(&self) -> u128 {
        let counts = u128::from(self.keys()) << 64 | u128::from(self.writes);
        digest::combine([self.digest, counts])
    }

    fn read(&self, read: &Read) -> Outcome {
        match read {
            Read::Get(key) => Outcome::Value(self.values.get(key).cloned()),
            Read::Exists(keys) => count(keys.iter().filter(|key| self.values.contains(key))),
            Read::StrLen(key) => length(self.values.get(key).map_or(0, Bytes::len)),
            Read::MGet(keys) => {
                let values: Vec<_> = keys.iter().map(|key| self.values.get(key)).collect();
                let bytes: usize = values.iter().flatten().map(|value| value.len()).sum();
                if bytes > REPLY_BYTES_MAX {
                    return Outcome::Refused(Refusal::ReplyTooLarge);
                }
                Outcome::Values(values.into_iter().map(Option::<&Bytes>::cloned).collect())
            }
            Read::DbSize => length(self.values.len()),
        }
    }

    fn write(&mut self, write: Write) -> Outcome {
        self.writes += 1;
        match write {
            Write::Set { key, value, condition, old: wants_old } => {
                let old = self.values.get(&key).cloned();
                let met = match condition {
                    Condition::Always => true,
                    Condition::Absent => old.is_none(),
                    Condition::Present => old.is_some(),
                };
                if met {
                    self.put(&key, value);
                }
                match (wants_old, met) {
                    (true, _) => Outcome::Value(old),
                    (false, true) => Outcome::Done,
                    (false, false) => Outcome::Value(None),
                }
            }
            Write::GetDel(key) => Outcome::Value(self.remove(&key)),
            Write::Del(keys) => {
                let removed = keys.iter().filter_map(|key| self.remove(key)).count();
                length(removed)
            }
            Write::Add { key, delta } => self.add(&key, delta),
            Write::Append { key, value } => self.append(&key, &value),
            Write::MSet(pairs) => {
                for (key, value) in pairs {
                    self.put(&key, value);
                }
                Outcome::Done
            }
        }
    }

    fn add(&mut self, key: &Bytes, delta: i64) -> Outcome {
        let present = match self.values.get(key) {
            None => Some(0),
            Some(value) => parse_integer(value),
        };
        let Some(present) = present else {
            return Outcome::Refused(Refusal::NotAnInteger);
        };
        let Some(sum) = present.checked_add(delta) else {
            return Outcome::Refused(Refusal::Overflow);
        };
        self.put(key, Bytes::from(sum.to_string()));
        Outcome::Integer(sum)
    }

    fn append(&mut self, key: &Bytes, tail: &Bytes) -> Outcome {
        let present = self.values.get(key).cloned().unwrap_or_default();
        let bytes = present.len() + tail.len();
        if bytes > VALUE_BYTES_MAX {
            return Outcome::Refused(Refusal::ValueTooLarge);
        }
        let mut whole = Vec::with_capacity(bytes);
        whole.extend_from_slice(&present);
        whole.extend_from_slice(tail);
        self.put(key, Bytes::from(whole));
        length(bytes)
    }

    fn put(&mut self, key: &Bytes, value: Bytes) {
        self.digest = self.digest.wrapping_add(digest::entry(key, &value));
        self.bytes += value.len() as u64;
        let key_bytes = key.len() as u64;
        if let Some(old) = self.values.insert(key, value) {
            self.digest = self.digest.wrapping_sub(digest::entry(key, &old));
            self.bytes -= old.len() as u64;
        } else {
            self.bytes += key_bytes;
        }
    }

    fn remove(&mut self, key: &Bytes) -> Option<Bytes> {
        let value = self.values.remove(key)?;
        self.digest = self.digest.wrapping_sub(digest::entry(key, &value));
        self.bytes -= (key.len() + value.len()) as u64;
        Some(value)
    }
}

/// Executes from the front until the outcomes are many bytes.
fn bounded<T>(ops: Vec<T>, mut execute: impl FnMut(T) -> Outcome) -> Executed<T> {
    let mut outcomes = Vec::with_capacity(ops.len());
    let mut bytes = 0;
    let mut ops = ops.into_iter();
    while bytes < REPLY_BYTES_SOFT
        && let Some(op) = ops.next()
    {
        let outcome = execute(op);
        bytes += outcome.bytes();
        outcomes.push(outcome);
    }
    Executed { outcomes, rest: ops.collect() }
}

fn length(count: usize) -> Outcome {
    Outcome::Integer(i64::try_from(count).expect("a count in memory fits 63 bits"))
}

fn count<T>(items: impl Iterator<Item = T>) -> Outcome {
    length(items.count())
}
