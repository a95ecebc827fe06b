//! Tells the refinement monitor what happens in a cluster, in the monitor's words.
//!
//! Owns: [`Observer`]: the translation, and the writes of each replica that its disk has not
//! attested yet. It is told the same events as [`super::Check`], by the same hooks, and shares
//! nothing else with it, so that each of the two can be wrong alone.
//! Invariant: what a replica became (leader, further committed) is told before what it did next.

use std::collections::{BTreeSet, VecDeque};

use super::monitor::{
    Acceptor, Ballot, Entry, Event, Kind, Life, Message, Monitor, Quorums, Recovered, Report,
    Value, Verdict,
};
use super::rng::mix;
use crate::ballot::Ballot as CoreBallot;
use crate::durable::{Write, WriteBatch, WriteSequence};
use crate::ids::{Incarnation, ReplicaId, Slot};
use crate::membership::Membership;
use crate::message::{self, Body, SlotState};
use crate::port;
use crate::quorum::{QuorumRule, VoterSet};
use crate::value::{Command, CommandKind, Value as CoreValue};

/// The monitor, and what is needed to speak to it.
#[derive(Debug)]
pub(super) struct Observer {
    monitor: Monitor,
    verdict: Option<Verdict>,
    places: Vec<Place>,
    saw_replacement: bool,
    /// Batches of hosts.
    witnessed: BTreeSet<u128>,
    values: Vec<Value>,
    entries: Vec<Entry>,
}

/// The rule in the monitor's words.
fn quorums_of(voters: usize, rule: &QuorumRule) -> Option<Quorums> {
    let bits = |sets: &[VoterSet]| {
        let bits = |set: &VoterSet| set.iter().map(|voter| 1 << voter).sum();
        sets.iter().map(bits).collect()
    };
    match rule {
        QuorumRule::Majority => Quorums::majority(voters as u8),
        QuorumRule::Counts { prepare, accept } => {
            Quorums::weighted(vec![1; voters], u64::from(*prepare), u64::from(*accept))
        }
        QuorumRule::Weights { weights, prepare, accept } => {
            let weights = weights.iter().map(|weight| u64::from(*weight)).collect();
            Quorums::weighted(weights, u64::from(*prepare), u64::from(*accept))
        }
        QuorumRule::Sets { prepare, accept } => {
            Quorums::listed(voters as u8, bits(prepare), bits(accept))
        }
    }
}

/// What was told of one replica.
#[derive(Debug, Default)]
struct Place {
    /// Facts that are on the way to the disk.
    pending: VecDeque<(WriteSequence, Event<'static>)>,
    committed: u64,
    reign: Option<CoreBallot>,
}

impl Observer {
    /// Replicas are numbered from 1 and are the voters of `membership`.
    pub(super) fn new(membership: &Membership, places: usize) -> Self {
        let quorums = quorums_of(membership.voters().len(), membership.quorums().rule());
        let quorums = quorums.expect("a membership has quorums that intersect");
        Self {
            monitor: Monitor::new(quorums, u64::from(membership.window())),
            verdict: None,
            places: (0..places).map(|_| Place::default()).collect(),
            saw_replacement: false,
            witnessed: BTreeSet::new(),
            values: Vec::new(),
            entries: Vec::new(),
        }
    }

    /// The first step that the protocol does not allow.
    pub(super) fn verdict(&self) -> Option<&Verdict> {
        self.verdict.as_ref()
    }

    /// Every slot up to this one is chosen, as the monitor sees it.
    pub(super) fn chosen_prefix(&self) -> Slot {
        Slot::new(self.monitor.chosen_prefix())
    }

    /// Whether a directory was ever put in the place of another.
    pub(super) fn saw_replacement(&self) -> bool {
        self.saw_replacement
    }

    fn place(&mut self, id: ReplicaId) -> &mut Place {
        &mut self.places[usize::from(id.number()) - 1]
    }

    fn tell(&mut self, event: &Event<'_>) {
        if self.verdict.is_none() {
            self.verdict = self.monitor.observe(event).err();
        }
    }

    /// A batch of these commands may be proposed.
    pub(super) fn submitted(&mut self, commands: &[Command]) {
        self.tell(&Event::Submitted { batch: digest_of(commands) });
    }

    /// A host proposes a batch of commands that clients asked for. As a host makes its batches
    /// itself, one that is seen first is taken to have been submitted once.
    pub(super) fn witnessed(&mut self, commands: &[Command]) {
        if self.witnessed.insert(digest_of(commands)) {
            self.submitted(commands);
        }
    }

    /// Another directory was put in the place of a replica's.
    pub(super) fn replaced(&mut self, id: ReplicaId) {
        self.saw_replacement = true;
        self.tell(&Event::Replaced { at: acceptor(id) });
    }

    /// What a replica is, before anybody sees what it did because of that.
    pub(super) fn became(&mut self, id: ReplicaId, reign: Option<CoreBallot>, committed: Slot) {
        if let Some(ballot) = reign {
            self.reigns(id, ballot);
        }
        let through = committed.number();
        if std::mem::replace(&mut self.place(id).committed, through) != through {
            self.tell(&Event::Committed { at: acceptor(id), through });
        }
    }

    fn reigns(&mut self, id: ReplicaId, reign: CoreBallot) {
        if self.place(id).reign.replace(reign) != Some(reign) {
            self.tell(&Event::BecameLeader { at: acceptor(id), ballot: ballot(reign) });
        }
    }

    /// What a leader votes for is what it proposes.
    pub(super) fn proposes(&mut self, id: ReplicaId, batch: &WriteBatch) {
        for write in batch.writes() {
            if let Write::Accepted { slot, ballot: voted, value: what } = write
                && voted.leader() == id
            {
                let (slot, value, ballot) = (slot.number(), value(what), ballot(*voted));
                self.reigns(id, *voted);
                self.tell(&Event::Proposed { ballot, slot, value });
            }
        }
    }

    /// A replica handed out a batch of writes.
    pub(super) fn handed_out(&mut self, id: ReplicaId, batch: &WriteBatch) {
        let at = acceptor(id);
        self.proposes(id, batch);
        for write in batch.writes() {
            let fact = match write {
                Write::Promised(promised) => {
                    Event::PromiseDurable { at, ballot: ballot(*promised) }
                }
                Write::Accepted { slot, ballot: voted, value: what } => {
                    let (slot, value, ballot) = (slot.number(), value(what), ballot(*voted));
                    Event::VoteDurable { at, slot, ballot, value }
                }
                Write::Chosen { slot, value: chosen } => {
                    Event::ChosenDurable { at, slot: slot.number(), value: value(chosen) }
                }
                Write::Committed(slot) => Event::PrefixDurable { at, committed: slot.number() },
                Write::Peer { peer, incarnation } => {
                    Event::LifeDurable { at, peer: acceptor(*peer), life: life(*incarnation) }
                }
                Write::Trimmed(slot) => {
                    self.tell(&Event::Trimmed { at, through: slot.number() });
                    continue;
                }
                Write::Governs { .. } | Write::Refused { .. } => continue,
            };
            self.place(id).pending.push_back((batch.sequence(), fact));
        }
    }

    /// A replica's disk attested every batch up to this one.
    pub(super) fn attested(&mut self, id: ReplicaId, through: WriteSequence) {
        while let Some((sequence, fact)) = self.place(id).pending.front().copied() {
            if sequence > through {
                break;
            }
            self.place(id).pending.pop_front();
            self.tell(&fact);
        }
    }

    /// A replica's process ended.
    pub(super) fn stopped(&mut self, id: ReplicaId) {
        let place = self.place(id);
        // A proof that came with others may be told after the power failed.
        *place = Place { pending: core::mem::take(&mut place.pending), ..Place::default() };
        self.tell(&Event::Stopped { at: acceptor(id) });
    }

    /// A replica starts, from what its storage gave back.
    pub(super) fn started(&mut self, id: ReplicaId, recovered: &port::Recovered, applied: Slot) {
        let at = acceptor(id);
        let entry = |vote: &port::RecoveredVote| {
            let (ballot, value) = (ballot(vote.ballot), value(&vote.value));
            Entry { slot: vote.slot.number(), report: Report::Accepted { ballot, value } }
        };
        let mut entries: Vec<Entry> = recovered.votes.iter().map(entry).collect();
        entries.sort_unstable_by_key(|entry| entry.slot);
        let lives = recovered.peers.iter().map(|(peer, of)| (acceptor(*peer), life(*of)));
        let lives: Vec<(Acceptor, Life)> = lives.collect();
        let committed = recovered.committed.number();
        if let Some(meta) = &recovered.snapshot {
            // One may have survived whose end was never told.
            self.kept(id, meta.slot);
        }
        self.tell(&Event::Started {
            at,
            life: life(recovered.incarnation),
            recovered: Recovered {
                promised: recovered.promised.map(ballot),
                committed,
                entries: &entries,
                lives: &lives,
                applied: applied.number(),
            },
        });
        for (slot, chosen) in &recovered.chosen {
            self.tell(&Event::ChosenDurable { at, slot: slot.number(), value: value(chosen) });
        }
        let place = self.place(id);
        place.committed = committed.max(applied.number());
        place.pending.clear();
    }

    /// A snapshot is durable.
    pub(super) fn kept(&mut self, id: ReplicaId, slot: Slot) {
        self.tell(&Event::SnapshotDurable { at: acceptor(id), slot: slot.number() });
    }

    /// A replica and its state machine jumped to a snapshot.
    pub(super) fn installed(&mut self, id: ReplicaId, slot: Slot) {
        self.place(id).committed = slot.number();
        self.tell(&Event::Installed { at: acceptor(id), slot: slot.number() });
    }

    /// A value was handed to a state machine.
    pub(super) fn applied(&mut self, id: ReplicaId, slot: Slot, what: &CoreValue) {
        let (slot, value) = (slot.number(), value(what));
        self.tell(&Event::Applied { at: acceptor(id), slot, value, state: None });
    }

    /// A message left; to every peer if `to` is `None`.
    pub(super) fn left(
        &mut self,
        from: ReplicaId,
        to: Option<ReplicaId>,
        message: &message::Message,
    ) {
        match &message.body {
            Body::Accept(accept) => self.reigns(from, accept.ballot),
            Body::Commit(commit) => self.reigns(from, commit.ballot),
            Body::Transfer(transfer) => self.reigns(from, transfer.ballot),
            Body::Heartbeat(heartbeat) => {
                if let Some(own) = heartbeat.leader.filter(|leader| leader.leader() == from) {
                    self.reigns(from, own);
                }
            }
            Body::Prepare(_)
            | Body::Promise(_)
            | Body::Accepted(_)
            | Body::Reject(_)
            | Body::Fetch(_)
            | Body::Fetched(_)
            | Body::Refused(_)
            | Body::Removed(_)
            | Body::Confirm(_)
            | Body::Confirmed(_)
            | Body::Survey(_)
            | Body::Surveyed(_) => {}
        }
        self.with_message(message, |message, life| Event::Left {
            from: acceptor(from),
            life,
            to: to.map(acceptor),
            message,
        });
    }

    /// A message is handed to its receiver.
    pub(super) fn delivered(&mut self, from: ReplicaId, to: ReplicaId, message: &message::Message) {
        self.with_message(message, |message, life| Event::Delivered {
            from: acceptor(from),
            life,
            to: acceptor(to),
            message,
        });
    }

    fn with_message(
        &mut self,
        message: &message::Message,
        event: impl for<'a> FnOnce(Message<'a>, Life) -> Event<'a>,
    ) {
        let (mut values, mut entries) =
            (std::mem::take(&mut self.values), std::mem::take(&mut self.entries));
        values.clear();
        entries.clear();
        match &message.body {
            Body::Accept(accept) => values.extend(accept.values.iter().map(value)),
            Body::Fetched(fetched) => values.extend(fetched.values.iter().map(value)),
            Body::Promise(promise) => entries.extend(promise.entries.iter().map(entry)),
            Body::Prepare(_)
            | Body::Accepted(_)
            | Body::Reject(_)
            | Body::Commit(_)
            | Body::Heartbeat(_)
            | Body::Fetch(_)
            | Body::Refused(_)
            | Body::Confirm(_)
            | Body::Confirmed(_)
            | Body::Transfer(_)
            | Body::Removed(_)
            | Body::Survey(_)
            | Body::Surveyed(_) => {}
        }
        let life = life(message.origin.incarnation);
        self.tell(&event(said(&message.body, &values, &entries), life));
        (self.values, self.entries) = (values, entries);
    }
}

fn said<'a>(body: &Body, values: &'a [Value], entries: &'a [Entry]) -> Message<'a> {
    match body {
        Body::Prepare(m) => Message::Prepare { ballot: ballot(m.ballot), from: m.from.number() },
        Body::Promise(m) => Message::Promise {
            ballot: ballot(m.ballot),
            committed: m.committed.number(),
            from: m.from.number(),
            through: (m.through != Slot::MAX).then(|| m.through.number()),
            entries,
        },
        Body::Accept(m) => Message::Accept {
            ballot: ballot(m.ballot),
            committed: m.committed.number(),
            first: m.first.number(),
            values,
        },
        Body::Accepted(m) => Message::Accepted {
            ballot: ballot(m.ballot),
            first: m.first.number(),
            last: m.last.number(),
        },
        Body::Reject(m) => {
            Message::Reject { refused: ballot(m.refused), promised: ballot(m.promised) }
        }
        Body::Commit(m) => {
            Message::Commit { ballot: ballot(m.ballot), committed: m.committed.number() }
        }
        Body::Heartbeat(m) => {
            Message::Heartbeat { committed: m.committed.number(), leader: m.leader.map(ballot) }
        }
        Body::Fetch(_) => Message::Fetch,
        Body::Fetched(m) => {
            Message::Fetched { first: m.first.number(), values, committed: m.committed.number() }
        }
        Body::Refused(m) => {
            Message::Refused { refused: life(m.refused), remembered: life(m.remembered) }
        }
        Body::Confirm(m) => Message::Confirm { ballot: ballot(m.ballot) },
        Body::Confirmed(m) => Message::Confirmed { ballot: ballot(m.ballot) },
        Body::Removed(_) => Message::Removed,
        Body::Transfer(m) => {
            Message::Transfer { ballot: ballot(m.ballot), committed: m.committed.number() }
        }
        Body::Survey(_) => Message::Survey,
        Body::Surveyed(m) => {
            Message::Surveyed { committed: m.committed.number(), highest: m.highest.number() }
        }
    }
}

fn entry(entry: &message::PromiseEntry) -> Entry {
    let report = match &entry.state {
        SlotState::Accepted(at, what) => {
            Report::Accepted { ballot: ballot(*at), value: value(what) }
        }
        SlotState::Chosen(what) => Report::Chosen(value(what)),
        SlotState::Unknown(up_to) => Report::Unknown { up_to: ballot(*up_to) },
    };
    Entry { slot: entry.slot.number(), report }
}

fn acceptor(id: ReplicaId) -> Acceptor {
    Acceptor(u8::try_from(id.number() - 1).expect("a simulated cluster has few replicas"))
}

fn ballot(ballot: CoreBallot) -> Ballot {
    Ballot { round: ballot.round(), leader: acceptor(ballot.leader()) }
}

fn life(incarnation: Incarnation) -> Life {
    let nonce = incarnation.nonce();
    let (directory, start) = (u64::from(nonce >> 16), u64::from(nonce & 0xffff));
    Life { directory, boot: u64::from(incarnation.boot()), start }
}

fn value(value: &CoreValue) -> Value {
    match value {
        CoreValue::Noop => Value { digest: 0, kind: Kind::Noop },
        CoreValue::Membership(membership) => {
            Value { digest: u128::from(membership.epoch().number()), kind: Kind::Membership }
        }
        CoreValue::Batch(batch) => {
            let clock = batch.clock().millis();
            Value { digest: digest_of(batch.commands()), kind: Kind::Batch { clock } }
        }
    }
}

/// Tells the commands of two batches apart.
fn digest_of(commands: &[Command]) -> u128 {
    let (mut low, mut high) = (mix(commands.len() as u64), 1_u64);
    let mut take = |word: u64| {
        low = mix(low ^ word);
        high = mix(high.rotate_left(29) ^ word);
    };
    for command in commands {
        take(command.client.number());
        take(command.request.number());
        take(command.acknowledged_below.number());
        let (kind, session, number) = match command.kind {
            CommandKind::Apply => (0, 0, 0),
            CommandKind::OpenSession { session, ttl } => (1, session.bits(), ttl.millis()),
            CommandKind::InSession { session, request } => (2, session.bits(), request.number()),
            CommandKind::CloseSession { session } => (3, session.bits(), 0),
            CommandKind::Raise { level } => {
                (4, u128::from(level.library), u64::from(level.machine))
            }
        };
        take(kind);
        if kind > 0 {
            take((session >> 64) as u64);
            take(session as u64);
            take(number);
        }
        take(command.payload.len() as u64);
        let mut words = command.payload.chunks_exact(8);
        for word in &mut words {
            take(u64::from_le_bytes(word.try_into().expect("a chunk has eight bytes")));
        }
        let rest = words.remainder();
        if !rest.is_empty() {
            take(rest.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)));
        }
    }
    u128::from(high) << 64 | u128::from(low)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;
    use crate::ids::{ClusterId, Epoch, GroupId};
    use crate::message::{Origin, Prepare, Promise};
    use crate::port::Format;
    use crate::sim::monitor::Rule;

    const LEADER: ReplicaId = ReplicaId::new(1);
    const OTHER: ReplicaId = ReplicaId::new(2);
    const BALLOT: CoreBallot = CoreBallot::new(1, LEADER);

    fn life_of(id: ReplicaId) -> Incarnation {
        Incarnation::first(u32::from(id.number()) << 16)
    }

    fn origin(replica: ReplicaId) -> Origin {
        Origin {
            cluster: ClusterId::new(1),
            group: GroupId::new(1),
            epoch: Epoch::FIRST,
            membership: crate::agreement::MembershipDigest::default(),
            replica,
            incarnation: life_of(replica),
        }
    }

    fn says(replica: ReplicaId, body: impl Into<Body>) -> message::Message {
        message::Message { origin: origin(replica), body: body.into() }
    }

    /// Three replicas run, and remember each other.
    fn started() -> Observer {
        let ids = [1, 2, 3].map(ReplicaId::new);
        let membership = Membership::voters_only(ids).unwrap();
        let mut observer = Observer::new(&membership, 3);
        for id in ids {
            let format = Format {
                cluster: ClusterId::new(1),
                group: GroupId::new(1),
                replica: id,
                membership: membership.clone(),
            };
            let mut recovered = port::Recovered::formatted(format, life_of(id));
            recovered.peers = ids.iter().map(|peer| (*peer, life_of(*peer))).collect();
            observer.started(id, &recovered, Slot::ZERO);
        }
        observer
    }

    /// A replica writes its promise; the proof comes later or never.
    fn writes_promise(observer: &mut Observer, id: ReplicaId) -> WriteSequence {
        let sequence = WriteSequence::default().next();
        let batch = WriteBatch::new(origin(id), sequence, vec![Write::Promised(BALLOT)]);
        observer.handed_out(id, &batch);
        sequence
    }

    fn campaign(proved: bool) -> Observer {
        let mut observer = started();
        let sequence = writes_promise(&mut observer, LEADER);
        observer.attested(LEADER, sequence);
        let prepare = says(LEADER, Prepare { ballot: BALLOT, from: Slot::FIRST });
        observer.left(LEADER, None, &prepare);
        observer.delivered(LEADER, OTHER, &prepare);
        let sequence = writes_promise(&mut observer, OTHER);
        if proved {
            observer.attested(OTHER, sequence);
        }
        let promise = Promise {
            ballot: BALLOT,
            committed: Slot::ZERO,
            from: Slot::FIRST,
            through: Slot::MAX,
            entries: Vec::new(),
        };
        let promise = says(OTHER, promise);
        observer.left(OTHER, Some(LEADER), &promise);
        observer.delivered(OTHER, LEADER, &promise);
        observer.became(LEADER, Some(BALLOT), Slot::ZERO);
        observer
    }

    #[test]
    fn what_is_attested_is_told_to_the_monitor_and_what_is_not_is_missed() {
        assert_eq!(campaign(true).verdict(), None);
        let verdict = campaign(false).verdict().cloned().unwrap();
        assert_eq!(verdict.rule, Rule::D1, "{verdict}");
    }

    #[test]
    fn what_was_on_its_way_to_the_disk_is_forgotten_in_a_crash() {
        let mut observer = started();
        let _unproved = writes_promise(&mut observer, LEADER);
        observer.stopped(LEADER);
        let recovered = |observer: &mut Observer, promised| {
            let membership = Membership::voters_only([1, 2, 3].map(ReplicaId::new)).unwrap();
            let format = Format {
                cluster: ClusterId::new(1),
                group: GroupId::new(1),
                replica: LEADER,
                membership,
            };
            let next = life_of(LEADER).following(0);
            let mut recovered = port::Recovered::formatted(format, next);
            recovered.promised = promised;
            recovered.peers =
                [1, 2, 3].map(|n| (ReplicaId::new(n), life_of(ReplicaId::new(n)))).into();
            observer.started(LEADER, &recovered, Slot::ZERO);
        };
        recovered(&mut observer, None);
        assert_eq!(observer.verdict(), None);
        // What was attested must come back, even if the proof was the last thing that happened.
        let mut observer = started();
        let sequence = writes_promise(&mut observer, LEADER);
        observer.stopped(LEADER);
        observer.attested(LEADER, sequence);
        recovered(&mut observer, None);
        assert_eq!(observer.verdict().map(|verdict| verdict.rule), Some(Rule::A1));
    }

    #[test]
    fn digests_tell_batches_apart() {
        let command = |client, request, payload: &'static [u8]| {
            let (client, request) =
                (crate::ids::ClientId::new(client), crate::ids::RequestNumber::new(request));
            Command::apply(client, request, bytes::Bytes::from_static(payload))
        };
        let one = command(1, 1, b"a");
        let digests = [
            digest_of(std::slice::from_ref(&one)),
            digest_of(&[command(1, 1, b"b")]),
            digest_of(&[command(1, 2, b"a")]),
            digest_of(&[command(2, 1, b"a")]),
            digest_of(&[command(1, 1, b"a\0")]),
            digest_of(&[one.clone(), one]),
        ];
        assert_eq!(BTreeSet::from(digests).len(), 6);
    }
}
