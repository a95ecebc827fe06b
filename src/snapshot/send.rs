//! Giving snapshots to peers that ask for them.
//!
//! Owns: [`Senders`]: who reads which snapshot and what it asked for. Plain state: does no I/O, knows no
//! transport, reads no clock.
//! Invariants: (1) so many peers at once read, and of each so many chunks wait; one more is told that
//! there is nothing, or not heard; (2) what leaves is paced; (3) whatever a peer asks for, only bytes of
//! a finished snapshot are read, and at most a chunk at once; (4) a snapshot that a peer reads is kept
//! until that peer has been silent for long: [`SILENCE_MIN`] at least.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use core::time::Duration;
use paxos_core::ids::{ReplicaId, Slot, Time};
use paxos_core::snapshot::SnapshotMeta;

use super::Sending;
use super::frame::{Name, SnapshotFrame};
use super::pace::Pace;

/// A peer that asks for nothing for so long reads no more: it has all of it, or comes back later. Long
/// enough for one that restarts.
const SILENCE_MIN: Duration = Duration::from_secs(30);
/// And so many patiences at least, within each of which a receiver asks for something.
const SILENCES: u32 = 4;
/// Of one peer so many questions wait; a receiver has fewer.
const READS_MAX: usize = 8;

/// A piece of a snapshot that is to be read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Wanted {
    pub(crate) to: ReplicaId,
    pub(crate) meta: SnapshotMeta,
    pub(crate) offset: u64,
    pub(crate) len: usize,
}

#[derive(Debug)]
struct Session {
    meta: SnapshotMeta,
    /// What it asked for.
    reads: VecDeque<(u64, usize)>,
    /// Whether one of them is being read.
    under_way: bool,
    /// What is to leave.
    ready: VecDeque<SnapshotFrame>,
    /// The end of what it was given.
    reached: u64,
    heard: Time,
}

/// Who reads what.
#[derive(Debug)]
pub(crate) struct Senders {
    sessions: BTreeMap<ReplicaId, Session>,
    sessions_max: usize,
    chunk_bytes: usize,
    pace: Pace,
    /// Who is silent for so long reads no more.
    silence: Duration,
    /// Who was served last, so that they take turns.
    last: ReplicaId,
}

impl Senders {
    pub(crate) fn new(
        sessions_max: usize,
        chunk_bytes: usize,
        bytes_per_second: u64,
        patience: Duration,
    ) -> Self {
        Self {
            sessions: BTreeMap::new(),
            sessions_max,
            chunk_bytes,
            pace: Pace::new(bytes_per_second),
            silence: SILENCE_MIN.max(patience * SILENCES),
            last: ReplicaId::new(0),
        }
    }

    /// A peer asks for a snapshot: what it is told. `known` are those that are finished, in rising
    /// order of slots.
    pub(crate) fn ask(
        &mut self,
        from: ReplicaId,
        above: Slot,
        wanted: Option<Name>,
        known: &[SnapshotMeta],
        now: Time,
    ) -> SnapshotFrame {
        let is_wanted = |meta: &&SnapshotMeta| Some(Name::of(meta)) == wanted;
        let offered = known.iter().find(is_wanted).or(known.last());
        let offered = offered.filter(|meta| meta.slot > above);
        match offered {
            Some(meta) if self.admit(from, meta, now) => SnapshotFrame::Offer(meta.clone()),
            _ => SnapshotFrame::Nothing { above },
        }
    }

    /// Whether this peer may read that one.
    fn admit(&mut self, from: ReplicaId, meta: &SnapshotMeta, now: Time) -> bool {
        self.forget_silent(now);
        if let Some(session) = self.sessions.get_mut(&from)
            && session.meta == *meta
        {
            session.heard = now;
            return true;
        }
        self.sessions.remove(&from);
        if self.sessions.len() >= self.sessions_max {
            return false;
        }
        let session = Session {
            meta: meta.clone(),
            reads: VecDeque::new(),
            under_way: false,
            ready: VecDeque::new(),
            reached: 0,
            heard: now,
        };
        self.sessions.insert(from, session);
        true
    }

    /// A peer wants bytes: what it is told at once, if anything.
    pub(crate) fn read(
        &mut self,
        from: ReplicaId,
        name: Name,
        (offset, len): (u64, u32),
        known: &[SnapshotMeta],
        now: Time,
    ) -> Option<SnapshotFrame> {
        let Some(meta) = known.iter().find(|meta| Name::of(meta) == name) else {
            return Some(SnapshotFrame::Gone { name });
        };
        if offset >= meta.bytes || !self.admit(from, meta, now) {
            return None;
        }
        let chunk_bytes = self.chunk_bytes;
        let session = self.sessions.get_mut(&from).expect("it was just admitted");
        let left = meta.bytes - offset;
        let len = (len as usize).min(chunk_bytes).min(left.min(usize::MAX as u64) as usize);
        let waits = session.reads.iter().any(|(waits, _)| *waits == offset);
        if len > 0 && !waits && session.reads.len() < READS_MAX {
            session.reads.push_back((offset, len));
        }
        None
    }

    /// What is to be read next. A peer whose frames do not leave is not read for.
    pub(crate) fn next(&mut self, now: Time) -> Option<Wanted> {
        if !self.pace.is_free(now) {
            return None;
        }
        let waits = |session: &Session| {
            !session.reads.is_empty() && !session.under_way && session.ready.is_empty()
        };
        let after = (core::ops::Bound::Excluded(self.last), core::ops::Bound::Unbounded);
        let next = self.sessions.range(after).chain(&self.sessions);
        let to = next.filter(|(_, session)| waits(session)).map(|(id, _)| *id).next()?;
        let session = self.sessions.get_mut(&to)?;
        let (offset, len) = session.reads.pop_front()?;
        session.under_way = true;
        self.pace.pass(len, now);
        self.last = to;
        Some(Wanted { to, meta: session.meta.clone(), offset, len })
    }

    /// What was read; none where it cannot be.
    pub(crate) fn was_read(&mut self, wanted: &Wanted, bytes: Option<Bytes>) {
        let Some(session) = self.sessions.get_mut(&wanted.to) else { return };
        // The peer may have gone on to another one meanwhile.
        if session.meta != wanted.meta {
            return;
        }
        session.under_way = false;
        let name = Name::of(&wanted.meta);
        let frame = if let Some(bytes) = bytes {
            session.reached = session.reached.max(wanted.offset + bytes.len() as u64);
            SnapshotFrame::Chunk { name, offset: wanted.offset, bytes }
        } else {
            session.reads.clear();
            SnapshotFrame::Gone { name }
        };
        session.ready.push_back(frame);
    }

    /// Gives what is to leave to `send`, which says whether it did.
    pub(crate) fn flush(&mut self, mut send: impl FnMut(ReplicaId, &SnapshotFrame) -> bool) {
        for (to, session) in &mut self.sessions {
            while session.ready.front().is_some_and(|frame| send(*to, frame)) {
                session.ready.pop_front();
            }
        }
    }

    /// The link to this peer fell: what was to leave is of no use. It may come back and go on.
    pub(crate) fn on_down(&mut self, peer: ReplicaId) {
        if let Some(session) = self.sessions.get_mut(&peer) {
            session.reads.clear();
            session.ready.clear();
        }
    }

    /// Forgets those that read no more: of whom.
    pub(crate) fn forget_silent(&mut self, now: Time) {
        let silence = self.silence;
        self.sessions.retain(|_, session| now.since(session.heard) < silence);
    }

    /// The lowest slot of a snapshot that is being read.
    pub(crate) fn lowest(&self) -> Option<Slot> {
        self.sessions.values().map(|session| session.meta.slot).min()
    }

    /// When the next one may be read, if one waits.
    pub(crate) fn wake_at(&self) -> Option<Time> {
        let waits = self.sessions.values().any(|session| {
            !session.reads.is_empty() && !session.under_way && session.ready.is_empty()
        });
        waits.then(|| self.pace.free_at())
    }

    /// Who reads, and how far it is.
    pub(crate) fn status(&self) -> Vec<Sending> {
        let of = |(to, session): (&ReplicaId, &Session)| Sending {
            to: *to,
            slot: session.meta.slot,
            sent_bytes: session.reached,
            bytes: session.meta.bytes,
        };
        self.sessions.iter().map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::super::tests::meta;
    use super::*;

    fn at(millis: u64) -> Time {
        Time::from_nanos(millis * 1_000_000)
    }

    const ONE: ReplicaId = ReplicaId::new(1);
    const TWO: ReplicaId = ReplicaId::new(2);

    #[test]
    fn the_newest_is_offered_unless_the_peer_holds_a_part_of_another() {
        let mut senders = Senders::new(3, 10, 1 << 30, Duration::from_secs(1));
        let known = [meta(5, 100), meta(9, 100)];
        let ask = |senders: &mut Senders, above, wanted| {
            senders.ask(ONE, Slot::new(above), wanted, &known, at(0))
        };
        assert_eq!(ask(&mut senders, 3, None), SnapshotFrame::Offer(known[1].clone()));
        let part = Some(Name::of(&known[0]));
        assert_eq!(ask(&mut senders, 3, part), SnapshotFrame::Offer(known[0].clone()));
        assert_eq!(senders.lowest(), Some(Slot::new(5)));
        assert_eq!(ask(&mut senders, 9, None), SnapshotFrame::Nothing { above: Slot::new(9) });
        let gone = Some(Name::of(&meta(7, 100)));
        assert_eq!(ask(&mut senders, 3, gone), SnapshotFrame::Offer(known[1].clone()));
    }

    #[test]
    fn so_many_read_at_once_and_a_silent_one_makes_way() {
        let mut senders = Senders::new(1, 10, 1 << 30, Duration::from_secs(1));
        let known = [meta(5, 100)];
        let ask = |senders: &mut Senders, by, now| {
            let reply = senders.ask(by, Slot::ZERO, None, &known, now);
            matches!(reply, SnapshotFrame::Offer(_))
        };
        assert!(ask(&mut senders, ONE, at(0)));
        assert!(!ask(&mut senders, TWO, at(1)), "one at once");
        assert!(ask(&mut senders, ONE, at(2)));
        assert!(ask(&mut senders, TWO, at(2).after(SILENCE_MIN)));
        assert_eq!(senders.status().len(), 1);
    }

    #[test]
    fn what_is_read_is_paced_and_within_the_image() {
        let mut senders = Senders::new(2, 10, 1000, Duration::from_secs(1));
        let known = [meta(5, 25)];
        let name = Name::of(&known[0]);
        let mut read = |offset, len| senders.read(ONE, name, (offset, len), &known, at(0));
        for (offset, len) in [(0, 10), (0, 10), (10, 1000), (20, 10), (25, 1), (u64::MAX, 1)] {
            assert_eq!(read(offset, len), None);
        }
        let mut now = at(0);
        let mut given = Vec::new();
        for _ in 0..40 {
            if let Some(wanted) = senders.next(now) {
                given.push((now, wanted.offset, wanted.len));
                assert_eq!(senders.next(now.after(SILENCE_MIN)), None, "one is under way");
                senders.was_read(&wanted, Some(Bytes::from(vec![0; wanted.len])));
                senders
                    .flush(|to, frame| to == ONE && matches!(frame, SnapshotFrame::Chunk { .. }));
            }
            now = now.after(Duration::from_millis(1));
        }
        assert_eq!(given, [(at(0), 0, 10), (at(10), 10, 10), (at(20), 20, 5)]);
        let other = Name { slot: Slot::new(4), ..name };
        let gone = senders.read(ONE, other, (0, 1), &known, now);
        assert_eq!(gone, Some(SnapshotFrame::Gone { name: other }));
    }

    #[test]
    fn one_whose_frames_do_not_leave_holds_no_other_up() {
        let mut senders = Senders::new(2, 10, 1 << 30, Duration::from_secs(1));
        let known = [meta(5, 100)];
        let name = Name::of(&known[0]);
        for peer in [ONE, TWO] {
            for offset in [0, 10, 20] {
                senders.read(peer, name, (offset, 10), &known, at(0));
            }
        }
        let mut given = Vec::new();
        for tick in 1..9 {
            let now = at(tick);
            if let Some(wanted) = senders.next(now) {
                given.push(wanted.to);
                senders.was_read(&wanted, Some(Bytes::from(vec![0; wanted.len])));
            }
            senders.flush(|to, _| to == TWO);
        }
        assert_eq!(given, [ONE, TWO, TWO, TWO]);
        senders.on_down(ONE);
        assert_eq!(senders.next(at(20)), None, "what it asked for went with the link");
    }
}
