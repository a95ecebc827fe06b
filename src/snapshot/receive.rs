//! Fetching a snapshot from a peer, because its log does not have what this replica lacks.
//!
//! Owns: [`Receiver`]: whom it asked, what it holds, what is on its way. Plain state: does no I/O, knows
//! no transport, reads no clock; what is to be done is said as [`Act`]s.
//! Invariants: (1) one snapshot at a time, and what is held of it is given up only for another that can
//! be had when this one cannot; (2) the receiver sets the pace: so many chunks are on their way, and no
//! more than its rate; (3) bytes are written in order, each once, and none that was not asked for;
//! (4) the state machine and the replica are told of a snapshot after it is durable as a whole.

use std::collections::BTreeMap;

use bytes::Bytes;
use core::time::Duration;
use paxos_core::ids::{ReplicaId, Slot, Time};
use paxos_core::snapshot::SnapshotMeta;

use super::Receiving;
use super::frame::{Name, SnapshotFrame};
use super::pace::Pace;
use super::retry::Retry;

/// So many chunks are on their way: they keep a link busy while one is written.
const CHUNKS_MAX: usize = 4;
/// After so many patiences without a byte the peer is taken for one that gives no more.
const SILENCES: u32 = 3;

/// What is to be done.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Act {
    Send(ReplicaId, SnapshotFrame),
    /// The store is to go on with this one, or begin it, and says how much it holds.
    Hold(SnapshotMeta),
    /// The store is to write these, and says how much it holds.
    Write(Bytes),
    /// The store is to make it durable, as a whole.
    Finish(SnapshotMeta),
    /// The store is to let go of the one that it receives; what it holds of it stays.
    LetGo,
    /// It is durable: state machine and replica are to jump to it.
    Restore(SnapshotMeta),
}

#[derive(Debug)]
enum State {
    Idle,
    /// This peer was asked for one.
    Asking {
        from: ReplicaId,
        above: Slot,
        until: Time,
    },
    /// The store was told of it.
    Holding {
        from: ReplicaId,
        meta: SnapshotMeta,
    },
    Pulling(Pulling),
    Finishing {
        from: ReplicaId,
        meta: SnapshotMeta,
    },
    Restoring {
        from: ReplicaId,
        meta: SnapshotMeta,
    },
}

#[derive(Debug)]
struct Pulling {
    from: ReplicaId,
    meta: SnapshotMeta,
    /// What the store holds.
    held: u64,
    /// What it holds once it has written what it was given.
    given: u64,
    /// Everything below was asked for.
    asked: u64,
    /// On its way: how much, and when it was asked for.
    on_way: BTreeMap<u64, (usize, Time)>,
    /// Came before what stands before it.
    early: BTreeMap<u64, Bytes>,
    heard: Time,
    /// Another one was asked for the same, as this one is silent.
    other: Option<ReplicaId>,
}

/// What is fetched.
#[derive(Debug)]
pub(crate) struct Receiver {
    state: State,
    /// What a store holds a part of, from an earlier life or a peer that is silent.
    part: Option<Name>,
    chunk_bytes: usize,
    patience: Duration,
    pace: Pace,
    /// The store failed: nothing is fetched before its time.
    retry: Retry,
    acts: Vec<Act>,
}

impl Receiver {
    pub(crate) fn new(chunk_bytes: usize, bytes_per_second: u64, patience: Duration) -> Self {
        Self {
            state: State::Idle,
            part: None,
            chunk_bytes,
            patience,
            pace: Pace::new(bytes_per_second),
            retry: Retry::new(patience),
            acts: Vec::new(),
        }
    }

    /// The store holds a part of this one.
    pub(crate) fn holds(&mut self, meta: &SnapshotMeta) {
        self.part = Some(Name::of(meta));
    }

    /// What is to be done, in order.
    pub(crate) fn take_acts(&mut self) -> Vec<Act> {
        core::mem::take(&mut self.acts)
    }

    /// The replica needs one from this peer, of a slot above this one. It says so again and again,
    /// each time of another peer.
    pub(crate) fn wanted(&mut self, from: ReplicaId, above: Slot, now: Time) {
        let silence = self.patience * SILENCES;
        match &mut self.state {
            State::Idle if self.retry.is_due(now) => {}
            State::Asking { until, .. } if *until <= now => {}
            State::Pulling(pulling) if now.since(pulling.heard) >= silence => {
                let wanted = Some(Name::of(&pulling.meta));
                pulling.other = Some(from);
                self.acts.push(Act::Send(from, SnapshotFrame::Ask { above, wanted }));
                return;
            }
            State::Idle
            | State::Asking { .. }
            | State::Holding { .. }
            | State::Pulling(_)
            | State::Finishing { .. }
            | State::Restoring { .. } => return,
        }
        self.state = State::Asking { from, above, until: now.after(self.patience) };
        self.acts.push(Act::Send(from, SnapshotFrame::Ask { above, wanted: self.part }));
    }

    /// A peer offers one. `is_welcome` says whether the replica would take it.
    pub(crate) fn offered(
        &mut self,
        from: ReplicaId,
        meta: SnapshotMeta,
        is_welcome: impl FnOnce(&SnapshotMeta) -> bool,
        now: Time,
    ) {
        match &mut self.state {
            State::Asking { from: asked, above, .. } => {
                if *asked != from || meta.slot <= *above || !is_welcome(&meta) {
                    return;
                }
            }
            State::Pulling(pulling) if pulling.other == Some(from) => {
                if pulling.meta == meta {
                    pulling.begin_again(from, now);
                    return self.pull(now);
                }
                // Who had the other one is silent, and this one has it no more.
                if meta.slot <= pulling.meta.slot || !is_welcome(&meta) {
                    return;
                }
                self.acts.push(Act::LetGo);
            }
            State::Idle
            | State::Holding { .. }
            | State::Pulling(_)
            | State::Finishing { .. }
            | State::Restoring { .. } => return,
        }
        self.part = Some(Name::of(&meta));
        self.acts.push(Act::Hold(meta.clone()));
        self.state = State::Holding { from, meta };
    }

    /// A peer has none.
    pub(crate) fn refused(&mut self, from: ReplicaId) {
        if matches!(self.state, State::Asking { from: asked, .. } if asked == from) {
            self.state = State::Idle;
        }
    }

    /// A peer cannot give more of this one.
    pub(crate) fn gone(&mut self, from: ReplicaId, name: Name) {
        if let State::Pulling(pulling) = &self.state
            && pulling.from == from
            && Name::of(&pulling.meta) == name
        {
            self.acts.push(Act::LetGo);
            self.state = State::Idle;
        }
    }

    /// The link to this peer fell.
    pub(crate) fn on_down(&mut self, peer: ReplicaId) {
        match &mut self.state {
            State::Asking { from, .. } if *from == peer => self.state = State::Idle,
            // Another one may go on, or this one once it is back.
            State::Pulling(pulling) if pulling.from == peer => {
                pulling.heard = Time::from_nanos(0);
                for (_, asked) in pulling.on_way.values_mut() {
                    *asked = Time::from_nanos(0);
                }
            }
            State::Idle
            | State::Asking { .. }
            | State::Holding { .. }
            | State::Pulling(_)
            | State::Finishing { .. }
            | State::Restoring { .. } => {}
        }
    }

    /// The store goes on with this one, of which it holds so many bytes.
    pub(crate) fn began(&mut self, name: Name, held: u64, now: Time) {
        let State::Holding { from, meta } = &self.state else { return };
        if Name::of(meta) != name {
            return;
        }
        self.state = State::Pulling(Pulling {
            from: *from,
            meta: meta.clone(),
            held,
            given: held,
            asked: held,
            on_way: BTreeMap::new(),
            early: BTreeMap::new(),
            heard: now,
            other: None,
        });
        self.write();
        self.pull(now);
    }

    /// The store wrote what it was given: it holds so many bytes of this one.
    pub(crate) fn written(&mut self, name: Name, held: u64, now: Time) {
        if let State::Pulling(pulling) = &mut self.state
            && Name::of(&pulling.meta) == name
        {
            pulling.held = held;
            self.write();
            self.pull(now);
        }
    }

    /// A chunk came.
    pub(crate) fn chunk(&mut self, name: Name, offset: u64, bytes: Bytes, now: Time) {
        let State::Pulling(pulling) = &mut self.state else { return };
        let Some((expected, _)) = pulling.on_way.get(&offset).copied() else { return };
        if Name::of(&pulling.meta) != name || !(1..=expected).contains(&bytes.len()) {
            return;
        }
        pulling.on_way.remove(&offset);
        if bytes.len() < expected {
            // Its sender gives less at once than this one asks for. The rest is asked for at once.
            let rest = (expected - bytes.len(), Time::from_nanos(0));
            pulling.on_way.insert(offset + bytes.len() as u64, rest);
        }
        pulling.early.insert(offset, bytes);
        pulling.heard = now;
        self.write();
        self.pull(now);
    }

    /// Gives the store what comes next, if it waits for that; the end is made durable.
    fn write(&mut self) {
        let State::Pulling(pulling) = &mut self.state else { return };
        if pulling.held < pulling.given {
            return;
        }
        if pulling.held >= pulling.meta.bytes {
            let (from, meta) = (pulling.from, pulling.meta.clone());
            self.acts.push(Act::Finish(meta.clone()));
            self.state = State::Finishing { from, meta };
            return;
        }
        if let Some(bytes) = pulling.early.remove(&pulling.given) {
            pulling.given += bytes.len() as u64;
            self.acts.push(Act::Write(bytes));
        }
    }

    /// Asks for what comes next, and again for what does not come.
    fn pull(&mut self, now: Time) {
        let (patience, chunk_bytes) = (self.patience, self.chunk_bytes);
        let State::Pulling(pulling) = &mut self.state else { return };
        let name = Name::of(&pulling.meta);
        let mut ask = |offset, len: usize| {
            let len = u32::try_from(len).expect("a chunk is far below 4 GiB");
            let read = SnapshotFrame::Read { name, offset, len };
            self.acts.push(Act::Send(pulling.from, read));
        };
        for (offset, (len, asked)) in &mut pulling.on_way {
            if now.since(*asked) >= patience {
                *asked = now;
                ask(*offset, *len);
            }
        }
        while pulling.asked < pulling.meta.bytes
            && pulling.on_way.len() + pulling.early.len() < CHUNKS_MAX
            && self.pace.is_free(now)
        {
            let left = pulling.meta.bytes - pulling.asked;
            let len = left.min(chunk_bytes as u64) as usize;
            pulling.on_way.insert(pulling.asked, (len, now));
            ask(pulling.asked, len);
            pulling.asked += len as u64;
            self.pace.pass(len, now);
        }
    }

    /// Whether it is durable; if not, what is held of it is of no use.
    pub(crate) fn finished(&mut self, name: Name, is_durable: bool, now: Time) {
        if let State::Finishing { from, meta } = &self.state
            && Name::of(meta) == name
        {
            let (from, meta) = (*from, meta.clone());
            self.part = None;
            self.state = State::Idle;
            if is_durable {
                self.retry.succeeded();
                self.acts.push(Act::Restore(meta.clone()));
                self.state = State::Restoring { from, meta };
            } else {
                self.retry.failed(now);
            }
        }
    }

    /// The store could not go on with this one: another attempt may do better, later. All of it may have to
    /// be fetched again.
    pub(crate) fn failed(&mut self, name: Name, now: Time) {
        let (State::Holding { meta, .. } | State::Pulling(Pulling { meta, .. })) = &self.state
        else {
            return;
        };
        if Name::of(meta) == name {
            self.acts.push(Act::LetGo);
            self.state = State::Idle;
            self.retry.failed(now);
        }
    }

    /// State machine and replica have jumped, or had no need to.
    pub(crate) fn restored(&mut self) {
        if matches!(self.state, State::Restoring { .. }) {
            self.state = State::Idle;
        }
    }

    /// Time has passed. What is fetched of slots that are committed here by now is of no use: whoever
    /// had it may never answer, and nobody else will be named for it.
    pub(crate) fn tend(&mut self, committed: Slot, now: Time) {
        if let State::Holding { meta, .. } | State::Pulling(Pulling { meta, .. }) = &self.state
            && meta.slot <= committed
        {
            self.acts.push(Act::LetGo);
            self.state = State::Idle;
        }
        self.pull(now);
    }

    /// When something is due.
    pub(crate) fn wake_at(&self) -> Option<Time> {
        let State::Pulling(pulling) = &self.state else { return None };
        let again = pulling.on_way.values().map(|(_, asked)| asked.after(self.patience)).min();
        let more = pulling.asked < pulling.meta.bytes
            && pulling.on_way.len() + pulling.early.len() < CHUNKS_MAX;
        let next = more.then(|| self.pace.free_at());
        again.into_iter().chain(next).min()
    }

    /// What is fetched, from whom, and how far that is.
    pub(crate) fn status(&self) -> Option<Receiving> {
        let (from, meta, held) = match &self.state {
            State::Idle | State::Asking { .. } => return None,
            State::Holding { from, meta } => (from, meta, 0),
            State::Pulling(pulling) => (&pulling.from, &pulling.meta, pulling.held),
            State::Finishing { from, meta } | State::Restoring { from, meta } => {
                (from, meta, meta.bytes)
            }
        };
        let (from, slot, bytes) = (*from, meta.slot, meta.bytes);
        Some(Receiving { from, slot, held_bytes: held, bytes })
    }
}

impl Pulling {
    /// All that is on its way is asked of another peer.
    fn begin_again(&mut self, from: ReplicaId, now: Time) {
        (self.from, self.other, self.heard) = (from, None, now);
        for (_, asked) in self.on_way.values_mut() {
            *asked = Time::from_nanos(0);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::super::tests::meta;
    use super::*;

    const ONE: ReplicaId = ReplicaId::new(1);
    const TWO: ReplicaId = ReplicaId::new(2);
    const PATIENCE: Duration = Duration::from_millis(100);

    fn at(millis: u64) -> Time {
        Time::from_nanos((1000 + millis) * 1_000_000)
    }

    fn receiver() -> Receiver {
        Receiver::new(10, 1 << 40, PATIENCE)
    }

    /// A receiver that pulls this one from the first peer, and holds so much already.
    fn pulling(meta: &SnapshotMeta, held: u64) -> Receiver {
        let mut receiver = receiver();
        receiver.wanted(ONE, Slot::new(2), at(0));
        let ask = SnapshotFrame::Ask { above: Slot::new(2), wanted: None };
        assert_eq!(receiver.take_acts(), [Act::Send(ONE, ask)]);
        receiver.offered(ONE, meta.clone(), |_| true, at(0));
        assert_eq!(receiver.take_acts(), [Act::Hold(meta.clone())]);
        receiver.began(Name::of(meta), held, at(0));
        receiver
    }

    fn read(to: ReplicaId, meta: &SnapshotMeta, offset: u64, len: u32) -> Act {
        Act::Send(to, SnapshotFrame::Read { name: Name::of(meta), offset, len })
    }

    fn bytes(len: usize) -> Bytes {
        Bytes::from(vec![7; len])
    }

    #[test]
    fn chunks_in_any_order_are_written_in_order_and_each_once() {
        let meta = meta(9, 45);
        let name = Name::of(&meta);
        let mut receiver = pulling(&meta, 0);
        let four = [0, 10, 20, 30].map(|offset| read(ONE, &meta, offset, 10));
        assert_eq!(receiver.take_acts(), four, "so many are on their way");
        receiver.chunk(name, 10, bytes(10), at(1));
        receiver.chunk(name, 40, bytes(5), at(1));
        receiver.chunk(name, 0, bytes(11), at(1));
        receiver.chunk(name, 0, bytes(0), at(1));
        receiver.chunk(Name { slot: Slot::new(8), ..name }, 0, bytes(10), at(1));
        assert_eq!(
            receiver.take_acts(),
            [],
            "out of turn, not asked for, too long, empty, of another"
        );
        receiver.chunk(name, 0, bytes(10), at(1));
        assert_eq!(receiver.take_acts(), [Act::Write(bytes(10)), read(ONE, &meta, 40, 5)]);
        receiver.chunk(name, 0, bytes(10), at(1));
        receiver.chunk(name, 20, bytes(10), at(1));
        assert_eq!(receiver.take_acts(), [], "the store writes one at a time");
        let (mut held, mut written) = (0, vec![10]);
        receiver.chunk(name, 30, bytes(10), at(2));
        receiver.chunk(name, 40, bytes(5), at(2));
        loop {
            held += written.last().unwrap();
            receiver.written(name, held, at(3));
            match &receiver.take_acts()[..] {
                [Act::Write(bytes)] => written.push(bytes.len() as u64),
                [Act::Finish(finished)] => break assert_eq!(*finished, meta),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(written, [10, 10, 10, 10, 5]);
        receiver.finished(name, true, at(3));
        assert_eq!(receiver.take_acts(), [Act::Restore(meta.clone())]);
        receiver.wanted(TWO, Slot::new(2), at(4));
        assert_eq!(receiver.take_acts(), [], "one at a time");
        receiver.restored();
        assert_eq!(receiver.status(), None);
    }

    #[test]
    fn what_does_not_come_is_asked_for_again_and_then_of_another() {
        let meta = meta(9, 30);
        let mut receiver = pulling(&meta, 15);
        let two = |from| [read(from, &meta, 15, 10), read(from, &meta, 25, 5)];
        assert_eq!(receiver.take_acts(), two(ONE), "what is held is not fetched again");
        assert_eq!(receiver.wake_at(), Some(at(100)));
        receiver.tend(Slot::new(8), at(99));
        assert_eq!(receiver.take_acts(), []);
        receiver.tend(Slot::new(8), at(100));
        assert_eq!(receiver.take_acts(), two(ONE));
        receiver.wanted(TWO, Slot::new(2), at(299));
        assert_eq!(receiver.take_acts(), [], "it may answer yet");
        receiver.wanted(TWO, Slot::new(2), at(300));
        let wanted = Some(Name::of(&meta));
        let ask = SnapshotFrame::Ask { above: Slot::new(2), wanted };
        assert_eq!(receiver.take_acts(), [Act::Send(TWO, ask)]);
        receiver.offered(TWO, meta.clone(), |_| true, at(301));
        assert_eq!(receiver.take_acts(), two(TWO), "the other has the same one");
    }

    /// r36, p27: what a peer has no more is fetched from another, and a newer one takes its place only
    /// then.
    #[test]
    fn a_newer_one_takes_the_place_of_one_that_cannot_be_had() {
        let (old, new) = (meta(9, 30), meta(12, 30));
        let mut receiver = pulling(&old, 0);
        receiver.take_acts();
        receiver.offered(TWO, new.clone(), |_| true, at(1));
        receiver.offered(ONE, new.clone(), |_| true, at(1));
        assert_eq!(receiver.take_acts(), [], "the old one can be had");
        receiver.gone(TWO, Name::of(&old));
        receiver.gone(ONE, Name::of(&new));
        assert_eq!(receiver.take_acts(), []);
        receiver.gone(ONE, Name::of(&old));
        assert_eq!(receiver.take_acts(), [Act::LetGo]);
        receiver.wanted(TWO, Slot::new(2), at(2));
        let ask = SnapshotFrame::Ask { above: Slot::new(2), wanted: Some(Name::of(&old)) };
        assert_eq!(receiver.take_acts(), [Act::Send(TWO, ask)]);
        receiver.offered(TWO, new.clone(), |_| false, at(3));
        assert_eq!(receiver.take_acts(), [], "the replica would not take it");
        receiver.offered(TWO, new.clone(), |_| true, at(3));
        assert_eq!(receiver.take_acts(), [Act::Hold(new.clone())]);

        let mut silent = pulling(&old, 0);
        silent.on_down(ONE);
        silent.wanted(TWO, Slot::new(2), at(4));
        silent.take_acts();
        silent.offered(TWO, new.clone(), |_| true, at(5));
        assert_eq!(silent.take_acts(), [Act::LetGo, Act::Hold(new)]);
    }

    /// A sender whose chunks are shorter was asked for the same one again and again, for ever.
    #[test]
    fn a_sender_that_gives_less_at_once_than_is_asked_for_gives_the_rest() {
        let meta = meta(9, 10);
        let name = Name::of(&meta);
        let mut receiver = pulling(&meta, 0);
        assert_eq!(receiver.take_acts(), [read(ONE, &meta, 0, 10)]);
        receiver.chunk(name, 0, bytes(4), at(1));
        assert_eq!(receiver.take_acts(), [Act::Write(bytes(4)), read(ONE, &meta, 4, 6)]);
        receiver.written(name, 4, at(2));
        receiver.chunk(name, 4, bytes(4), at(3));
        assert_eq!(receiver.take_acts(), [Act::Write(bytes(4)), read(ONE, &meta, 8, 2)]);
        receiver.written(name, 8, at(4));
        receiver.chunk(name, 8, bytes(2), at(5));
        assert_eq!(receiver.take_acts(), [Act::Write(bytes(2))]);
        receiver.written(name, 10, at(6));
        assert_eq!(receiver.take_acts(), [Act::Finish(meta)]);
    }

    /// Its peer went away, and the log of another gave what was missing: nobody is named any more.
    #[test]
    fn what_is_needed_no_more_is_asked_for_no_more() {
        let meta = meta(9, 30);
        let mut receiver = pulling(&meta, 0);
        receiver.take_acts();
        receiver.tend(Slot::new(8), at(1));
        assert_eq!(receiver.take_acts(), []);
        receiver.tend(Slot::new(9), at(200));
        assert_eq!(receiver.take_acts(), [Act::LetGo]);
        assert_eq!((receiver.status(), receiver.wake_at()), (None, None));
    }

    #[test]
    fn a_peer_without_one_is_not_waited_for_and_a_silent_one_not_long() {
        let mut receiver = receiver();
        receiver.holds(&meta(5, 10));
        let ask = |to| {
            let wanted = Some(Name::of(&meta(5, 10)));
            Act::Send(to, SnapshotFrame::Ask { above: Slot::new(2), wanted })
        };
        receiver.wanted(ONE, Slot::new(2), at(0));
        assert_eq!(receiver.take_acts(), [ask(ONE)], "an earlier life held a part");
        receiver.wanted(TWO, Slot::new(2), at(50));
        assert_eq!(receiver.take_acts(), []);
        receiver.refused(TWO);
        receiver.wanted(TWO, Slot::new(2), at(50));
        assert_eq!(receiver.take_acts(), []);
        receiver.refused(ONE);
        receiver.wanted(TWO, Slot::new(2), at(50));
        assert_eq!(receiver.take_acts(), [ask(TWO)]);
        receiver.offered(TWO, meta(2, 10), |_| true, at(51));
        assert_eq!(receiver.take_acts(), [], "it is not above what is held");
        receiver.wanted(ONE, Slot::new(2), at(150));
        assert_eq!(receiver.take_acts(), [ask(ONE)]);
    }

    #[test]
    fn what_is_not_what_it_should_be_is_fetched_anew() {
        let meta = meta(9, 10);
        let mut receiver = pulling(&meta, 10);
        assert_eq!(receiver.take_acts(), [Act::Finish(meta.clone())], "all of it is held");
        receiver.finished(Name::of(&meta), false, at(0));
        assert_eq!(receiver.take_acts(), []);
        receiver.wanted(ONE, Slot::new(2), at(99));
        assert_eq!(receiver.take_acts(), [], "not at once");
        receiver.wanted(ONE, Slot::new(2), at(100));
        let ask = SnapshotFrame::Ask { above: Slot::new(2), wanted: None };
        assert_eq!(receiver.take_acts(), [Act::Send(ONE, ask)]);
    }

    /// On a full disk a receiver fetched an image again each time that its peers' logs were looked at, as
    /// far as it fitted, for as long as there was no room.
    #[test]
    fn each_failure_of_the_store_doubles_the_wait_for_the_next_attempt() {
        let meta = meta(9, 30);
        let name = Name::of(&meta);
        let mut receiver = receiver();
        let (mut fetched, mut now) = (Vec::new(), 0);
        while now < 3200 {
            receiver.wanted(ONE, Slot::new(2), at(now));
            if !receiver.take_acts().is_empty() {
                fetched.push(now);
                receiver.offered(ONE, meta.clone(), |_| true, at(now));
                if fetched.len() % 2 == 0 {
                    receiver.began(name, 0, at(now));
                }
                receiver.failed(name, at(now));
                assert_eq!(receiver.take_acts().last(), Some(&Act::LetGo));
            }
            now += 10;
        }
        assert_eq!(fetched, [0, 100, 300, 700, 1500, 3100]);
    }
}
