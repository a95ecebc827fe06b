//! The replies that one session keeps.
//!
//! Owns: [`Replies`]. Says nothing about what is applied.
//! Invariants: in the order of their numbers; `bytes` is the cost of all of them; what gives way
//! first is the lowest number, as it was asked for first.

use std::collections::VecDeque;

use crate::ids::RequestNumber;

/// What each reply costs beside its bytes.
const ENTRY_LEN: usize = 40;
/// Replies up to so many bytes stand in the table itself: most do, and cost no allocation.
const SHORT_LEN: usize = 22;

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
enum Reply {
    /// The bytes beyond the length are zero.
    Short(u8, [u8; SHORT_LEN]),
    Long(Box<[u8]>),
}

impl Reply {
    fn new(bytes: &[u8]) -> Self {
        let mut short = [0; SHORT_LEN];
        match (short.get_mut(..bytes.len()), u8::try_from(bytes.len())) {
            (Some(place), Ok(len)) => {
                place.copy_from_slice(bytes);
                Self::Short(len, short)
            }
            _ => Self::Long(bytes.into()),
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Short(len, bytes) => &bytes[..usize::from(*len)],
            Self::Long(bytes) => bytes,
        }
    }

    fn cost(&self) -> usize {
        ENTRY_LEN
            + match self {
                Self::Short(..) => 0,
                Self::Long(bytes) => bytes.len(),
            }
    }
}

/// Replies by the numbers of their requests.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub(super) struct Replies {
    entries: VecDeque<(RequestNumber, Reply)>,
    bytes: usize,
}

impl Replies {
    /// What they cost.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = (RequestNumber, &[u8])> {
        self.entries.iter().map(|(number, reply)| (*number, reply.bytes()))
    }

    /// Adds the reply of a request, which has none yet.
    pub(super) fn keep(&mut self, request: RequestNumber, bytes: &[u8]) {
        let reply = Reply::new(bytes);
        self.bytes += reply.cost();
        // Most come in order.
        if self.entries.back().is_none_or(|(last, _)| *last < request) {
            self.entries.push_back((request, reply));
            return;
        }
        let place = self.entries.partition_point(|(number, _)| *number < request);
        self.entries.insert(place, (request, reply));
    }

    pub(super) fn get(&self, request: RequestNumber) -> Option<&[u8]> {
        let found = self.entries.binary_search_by_key(&request, |(number, _)| *number).ok()?;
        Some(self.entries[found].1.bytes())
    }

    /// Drops the lowest until the rest is within these bounds.
    pub(super) fn shrink(&mut self, count_max: usize, bytes_max: usize) {
        while self.entries.len() > count_max || self.bytes > bytes_max {
            let Some((_, reply)) = self.entries.pop_front() else { return };
            self.bytes -= reply.cost();
        }
    }

    /// Drops those below, and says what they cost.
    pub(super) fn forget_below(&mut self, below: RequestNumber) -> usize {
        let before = self.bytes;
        while self.entries.front().is_some_and(|(number, _)| *number < below) {
            let (_, reply) = self.entries.pop_front().expect("the front was just seen");
            self.bytes -= reply.cost();
        }
        before - self.bytes
    }

    /// Drops all, and says what they cost.
    pub(super) fn forget_all(&mut self) -> usize {
        self.entries = VecDeque::new();
        core::mem::take(&mut self.bytes)
    }
}
