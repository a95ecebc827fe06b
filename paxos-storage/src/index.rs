//! Where the values stand: the state of each group in memory, and how much of each segment lives.
//!
//! Owns: [`Group`] (all that a group's log says, with places instead of values) and [`Segments`]
//! (the living records of each segment). Opens no file.
//! Invariants: a place in an index is counted in its segment exactly once; facts only move
//! forward (promise, committed, trimmed, clock), and of peers the last word counts.
//! Source: Low-Water Mark: a segment is free when no record in it lives.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use paxos_core::ballot::Ballot;
use paxos_core::ids::{GroupId, Incarnation, LogClock, ReplicaId, Slot};
use paxos_core::snapshot::Governs;

use crate::layout::GroupCheckpoint;

/// Places are kept by pages of so many slots: dense where the log is, and nothing where a replica
/// that lags far behind has a hole.
const PAGE_SLOTS: u64 = 256;

type Page = Box<[Place; PAGE_SLOTS as usize]>;

/// What a place holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Holds {
    Nothing,
    Accepted,
    Chosen,
}

/// Where a record stands. 16 bytes, as there is one for each slot above the trimmed prefix.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Place {
    pub(crate) sequence: u64,
    /// In units of 8 bytes.
    offset: u32,
    pub(crate) holds: Holds,
}

impl Place {
    const NONE: Self = Self { sequence: 0, offset: 0, holds: Holds::Nothing };

    /// The place of a record at this offset of a segment.
    pub(crate) fn new(sequence: u64, offset: u64, holds: Holds) -> Self {
        debug_assert_eq!(offset % 8, 0, "records begin at multiples of 8");
        Self {
            sequence,
            offset: u32::try_from(offset / 8).expect("a segment is smaller than 32 GiB"),
            holds,
        }
    }

    /// The offset in its segment, in bytes.
    pub(crate) fn offset(self) -> u64 {
        u64::from(self.offset) * 8
    }
}

/// What the log says of one group.
#[derive(Debug, Default)]
pub(crate) struct Group {
    pub(crate) promised: Option<Ballot>,
    pub(crate) committed: Slot,
    pub(crate) trimmed: Slot,
    pub(crate) clock: LogClock,
    pub(crate) peers: BTreeMap<ReplicaId, Incarnation>,
    /// Who governs from which slot on, in rising order. Of those that later ones replaced, by the slot
    /// after the trimmed prefix, the last is kept.
    pub(crate) governs: Vec<Governs>,
    /// The peer that refused this directory, and the life that it remembers.
    pub(crate) refused: Option<(ReplicaId, Incarnation)>,
    /// What is read back for each slot above `trimmed`, by pages.
    pages: BTreeMap<u64, Page>,
    /// Votes that a chosen value hides in `places`. Needed until the slot is committed.
    hidden: BTreeMap<Slot, Place>,
}

impl Group {
    pub(crate) fn promise(&mut self, ballot: Ballot) {
        self.promised = self.promised.max(Some(ballot));
    }

    /// A membership governs from a slot on.
    pub(crate) fn govern(&mut self, governs: Governs) {
        if self.governs.last().is_none_or(|last| last.from < governs.from) {
            self.governs.push(governs);
        }
    }

    pub(crate) fn saw_clock(&mut self, clock: LogClock) {
        self.clock = self.clock.max(clock);
    }

    /// Takes note of a record with the value of a slot.
    pub(crate) fn place(&mut self, slot: Slot, place: Place, segments: &mut Segments) {
        if slot <= self.trimmed {
            return;
        }
        let page = self
            .pages
            .entry(slot.number() / PAGE_SLOTS)
            .or_insert_with(|| Box::new([Place::NONE; PAGE_SLOTS as usize]));
        let entry = &mut page[(slot.number() % PAGE_SLOTS) as usize];
        let old = *entry;
        segments.gain(place);
        match (old.holds, place.holds) {
            (Holds::Chosen, Holds::Accepted) if slot > self.committed => {
                if let Some(vote) = self.hidden.insert(slot, place) {
                    segments.lose(vote);
                }
            }
            // The chosen value stays what is read, and nobody asks for votes down there.
            (Holds::Chosen, Holds::Accepted) => segments.lose(place),
            (Holds::Accepted, Holds::Chosen) if slot > self.committed => {
                self.hidden.insert(slot, old);
                *entry = place;
            }
            (Holds::Nothing | Holds::Accepted | Holds::Chosen, _) => {
                segments.lose(old);
                *entry = place;
            }
        }
    }

    pub(crate) fn commit(&mut self, through: Slot, segments: &mut Segments) {
        self.committed = self.committed.max(through);
        while let Some(entry) = self.hidden.first_entry() {
            if *entry.key() > self.committed {
                break;
            }
            segments.lose(entry.remove());
        }
    }

    pub(crate) fn trim(&mut self, through: Slot, segments: &mut Segments) {
        if through <= self.trimmed {
            return;
        }
        self.trimmed = through;
        while self.governs.get(2).is_some_and(|governs| governs.from <= through.next()) {
            self.governs.remove(0);
        }
        // What may be forgotten was chosen.
        self.commit(through, segments);
        while let Some(mut first) = self.pages.first_entry() {
            let start = first.key() * PAGE_SLOTS;
            if start > through.number() {
                break;
            }
            let gone = (through.number() - start + 1).min(PAGE_SLOTS) as usize;
            for place in &mut first.get_mut()[..gone] {
                segments.lose(std::mem::replace(place, Place::NONE));
            }
            if gone < PAGE_SLOTS as usize {
                break;
            }
            first.remove();
        }
    }

    /// The first and the last slot that a value is read back for.
    pub(crate) fn kept(&self) -> Option<(Slot, Slot)> {
        let mut slots = self.pages.iter().flat_map(|(number, page)| {
            let start = number * PAGE_SLOTS;
            let held = page.iter().zip(start..).filter(|(place, _)| place.holds != Holds::Nothing);
            held.map(|(_, slot)| Slot::new(slot))
        });
        let first = slots.next()?;
        Some((first, slots.last().unwrap_or(first)))
    }

    /// Roughly how much of the log the committed slots above `trimmed` take: slots, and the bytes up to
    /// each, by where their records stand. What stands among them counts too.
    pub(crate) fn bytes(&self, segments: &Segments, step: u64) -> Vec<(Slot, u64)> {
        let mut marks: Vec<(Slot, u64)> = Vec::new();
        let mut begin = None;
        let mut last = None;
        for (number, page) in &self.pages {
            for (slot, place) in (number * PAGE_SLOTS..).zip(page.iter()) {
                let slot = Slot::new(slot);
                if place.holds == Holds::Nothing || slot > self.committed {
                    continue;
                }
                let position = segments.before(place.sequence) + place.offset();
                let begin = *begin.get_or_insert(position);
                // What was fetched late stands behind what follows it.
                let bytes = position.saturating_sub(begin);
                let told = marks.last().map_or(0, |(_, told)| *told);
                if bytes >= told + step {
                    marks.push((slot.previous(), bytes));
                }
                last = Some((slot, bytes.max(told)));
            }
        }
        marks.extend(last);
        marks
    }

    /// What is read back for a slot.
    pub(crate) fn find(&self, slot: Slot) -> Option<Place> {
        let page = self.pages.get(&(slot.number() / PAGE_SLOTS))?;
        let place = page[(slot.number() % PAGE_SLOTS) as usize];
        (place.holds != Holds::Nothing).then_some(place)
    }

    /// The vote of a slot above the committed prefix.
    pub(crate) fn find_vote(&self, slot: Slot) -> Option<Place> {
        self.hidden
            .get(&slot)
            .copied()
            .or_else(|| self.find(slot).filter(|place| place.holds == Holds::Accepted))
    }

    /// The slots above the committed prefix that the log says something of, in rising order.
    pub(crate) fn undecided(&self) -> Vec<Slot> {
        let first = self.committed.next().number();
        self.pages
            .range((Bound::Included(first / PAGE_SLOTS), Bound::Unbounded))
            .flat_map(|(number, page)| {
                let start = number * PAGE_SLOTS;
                (start..=start + (PAGE_SLOTS - 1)).zip(page.iter())
            })
            .filter(|(slot, place)| *slot >= first && place.holds != Holds::Nothing)
            .map(|(slot, _)| Slot::new(slot))
            .collect()
    }

    pub(crate) fn checkpoint(&self, group: GroupId) -> GroupCheckpoint {
        GroupCheckpoint {
            group,
            promised: self.promised,
            committed: self.committed,
            trimmed: self.trimmed,
            clock: self.clock,
            refused: self.refused,
            peers: self.peers.iter().map(|(peer, incarnation)| (*peer, *incarnation)).collect(),
            governs: self.governs.clone(),
        }
    }

    /// Takes in what a checkpoint says. It was true when it was written, so it only moves forward.
    pub(crate) fn restore(&mut self, checkpoint: &GroupCheckpoint, segments: &mut Segments) {
        self.promised = self.promised.max(checkpoint.promised);
        self.saw_clock(checkpoint.clock);
        self.peers.extend(checkpoint.peers.iter().copied());
        self.refused = checkpoint.refused.or(self.refused);
        for governs in &checkpoint.governs {
            self.govern(governs.clone());
        }
        self.trim(checkpoint.trimmed, segments);
        self.commit(checkpoint.committed, segments);
    }
}

/// A segment on disk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct SegmentInfo {
    pub(crate) sequence: u64,
    /// How many places point into it.
    pub(crate) live: u64,
    /// The size of its file.
    pub(crate) size: u64,
}

/// The segments of a log, oldest first, without gaps.
#[derive(Debug, Default)]
pub(crate) struct Segments {
    list: VecDeque<SegmentInfo>,
}

impl Segments {
    /// The newest segment is this one from here on.
    pub(crate) fn push(&mut self, sequence: u64, size: u64) {
        if let Some(last) = self.list.back() {
            assert_eq!(last.sequence + 1, sequence, "segments are numbered without gaps");
        }
        self.list.push_back(SegmentInfo { sequence, live: 0, size });
    }

    /// All of them, oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &SegmentInfo> {
        self.list.iter()
    }

    /// The oldest segment.
    pub(crate) fn oldest(&self) -> u64 {
        self.list.front().map_or(0, |segment| segment.sequence)
    }

    /// The bytes of the segments before this one.
    fn before(&self, sequence: u64) -> u64 {
        let older = self.list.iter().take_while(|segment| segment.sequence < sequence);
        older.map(|segment| segment.size).sum()
    }

    /// The size of a segment's file changed.
    pub(crate) fn resize(&mut self, sequence: u64, size: u64) {
        self.get(sequence).size = size;
    }

    /// Removes and returns the segments at the old end in which nothing lives; never the newest.
    pub(crate) fn take_free(&mut self) -> Vec<SegmentInfo> {
        let mut free = Vec::new();
        while self.list.len() > 1 && self.list[0].live == 0 {
            free.extend(self.list.pop_front());
        }
        free
    }

    /// Whether [`Segments::take_free`] would find one.
    pub(crate) fn any_free(&self) -> bool {
        self.list.len() > 1 && self.list[0].live == 0
    }

    fn gain(&mut self, place: Place) {
        self.get(place.sequence).live += 1;
    }

    fn lose(&mut self, place: Place) {
        if place.holds == Holds::Nothing {
            return;
        }
        let segment = self.get(place.sequence);
        segment.live = segment.live.checked_sub(1).expect("a place is counted once");
    }

    fn get(&mut self, sequence: u64) -> &mut SegmentInfo {
        let at = sequence.checked_sub(self.oldest()).expect("a place is in a segment that is kept");
        &mut self.list[at as usize]
    }
}
