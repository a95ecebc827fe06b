//! A window of slots: a ring that holds something for some of the slots above a floor.
//!
//! Owns: [`SlotRing`]. Invariants: nothing is held at or below the floor; the first and the last
//! place of the ring are never empty, so an idle ring holds no memory's worth of slots.

use std::collections::VecDeque;

use crate::ids::Slot;

/// Items by slot, for the slots above a rising floor.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct SlotRing<T> {
    /// The slot of `items[0]`.
    first: Slot,
    items: VecDeque<Option<T>>,
    count: usize,
}

impl<T> SlotRing<T> {
    pub(crate) fn new() -> Self {
        Self { first: Slot::FIRST, items: VecDeque::new(), count: 0 }
    }

    fn index(&self, slot: Slot) -> Option<usize> {
        (slot >= self.first).then(|| slot.distance_from(self.first) as usize)
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }

    pub(crate) fn get(&self, slot: Slot) -> Option<&T> {
        self.items.get(self.index(slot)?)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, slot: Slot) -> Option<&mut T> {
        let index = self.index(slot)?;
        self.items.get_mut(index)?.as_mut()
    }

    /// The highest slot that holds something.
    pub(crate) fn last(&self) -> Option<Slot> {
        let last = self.items.len().checked_sub(1)?;
        Some(self.first.plus(last as u64))
    }

    /// Puts an item in a slot; returns what was there.
    pub(crate) fn insert(&mut self, slot: Slot, item: T) -> Option<T> {
        if self.items.is_empty() {
            self.first = slot;
        }
        while slot < self.first {
            self.first = self.first.previous();
            self.items.push_front(None);
        }
        let index = slot.distance_from(self.first) as usize;
        while self.items.len() <= index {
            self.items.push_back(None);
        }
        let old = self.items[index].replace(item);
        self.count += usize::from(old.is_none());
        old
    }

    /// Takes the item out of a slot.
    pub(crate) fn remove(&mut self, slot: Slot) -> Option<T> {
        let index = self.index(slot)?;
        let item = self.items.get_mut(index)?.take()?;
        self.count -= 1;
        self.trim_ends();
        Some(item)
    }

    /// Drops everything up to and including `slot`.
    pub(crate) fn drop_through(&mut self, slot: Slot) {
        while self.first <= slot
            && let Some(item) = self.items.pop_front()
        {
            self.count -= usize::from(item.is_some());
            self.first = self.first.next();
        }
        self.trim_ends();
    }

    pub(crate) fn clear(&mut self) {
        self.items.clear();
        self.count = 0;
    }

    /// Items at or above `from`, in rising order of slots.
    pub(crate) fn iter_from(&self, from: Slot) -> impl Iterator<Item = (Slot, &T)> {
        let skip = from.distance_from(self.first) as usize;
        self.items.iter().enumerate().skip(skip).filter_map(move |(index, item)| {
            item.as_ref().map(|item| (self.first.plus(index as u64), item))
        })
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Slot, &T)> {
        self.iter_from(Slot::ZERO)
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.items.iter_mut().flatten()
    }

    fn trim_ends(&mut self) {
        while let Some(None) = self.items.front() {
            self.items.pop_front();
            self.first = self.first.next();
        }
        while let Some(None) = self.items.back() {
            self.items.pop_back();
        }
    }
}
