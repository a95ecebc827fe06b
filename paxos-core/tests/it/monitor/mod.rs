//! The refinement monitor against traces that were broken by hand.
//!
//! Each test is a pair: a short run that the protocol allows, which the monitor accepts, and the same
//! run with one step dropped, changed or added, which it rejects by the rule that was broken.

mod disks;
mod leaders;

use paxos_core::sim::monitor::{
    Acceptor, Ballot, Entry, Event, Invariant, Kind, Life, Message, Monitor, Quorums, Recovered,
    Report, Rule, Value, Verdict,
};

type Step = Event<'static>;
type Run = Vec<Step>;

const R0: Acceptor = Acceptor(0);
const R1: Acceptor = Acceptor(1);
const R2: Acceptor = Acceptor(2);
const R3: Acceptor = Acceptor(3);
const R4: Acceptor = Acceptor(4);

const B1: Ballot = Ballot { round: 1, leader: R0 };
const B2: Ballot = Ballot { round: 2, leader: R2 };
const B3: Ballot = Ballot { round: 3, leader: R1 };

const A: Value = batch(10, 1);
const B: Value = batch(11, 2);
const C: Value = batch(12, 3);
const D: Value = batch(13, 4);
const NOOP: Value = Value { digest: 0, kind: Kind::Noop };
const NOTHING: Recovered<'static> =
    Recovered { promised: None, committed: 0, entries: &[], lives: &[], applied: 0 };

const fn batch(digest: u128, clock: u64) -> Value {
    Value { digest, kind: Kind::Batch { clock } }
}

const fn life(of: Acceptor, boot: u64) -> Life {
    Life { directory: 100 + of.0 as u64, boot, start: 0 }
}

const fn voted(slot: u64, ballot: Ballot, value: Value) -> Entry {
    Entry { slot, report: Report::Accepted { ballot, value } }
}

fn left(from: Acceptor, to: Acceptor, message: Message<'static>) -> Step {
    Event::Left { from, life: life(from, 1), to: Some(to), message }
}

fn delivered(from: Acceptor, to: Acceptor, message: Message<'static>) -> Step {
    Event::Delivered { from, life: life(from, 1), to, message }
}

/// A message that left and arrived.
fn passed(from: Acceptor, to: Acceptor, message: Message<'static>) -> [Step; 2] {
    [left(from, to, message), delivered(from, to, message)]
}

const fn prepare(ballot: Ballot) -> Message<'static> {
    Message::Prepare { ballot, from: 1 }
}

const fn promise(
    ballot: Ballot,
    committed: u64,
    from: u64,
    through: Option<u64>,
    entries: &'static [Entry],
) -> Message<'static> {
    Message::Promise { ballot, committed, from, through, entries }
}

const fn accept(
    ballot: Ballot,
    committed: u64,
    first: u64,
    values: &'static [Value],
) -> Message<'static> {
    Message::Accept { ballot, committed, first, values }
}

const fn accepted(ballot: Ballot, slot: u64) -> Message<'static> {
    Message::Accepted { ballot, first: slot, last: slot }
}

const fn commit(ballot: Ballot, committed: u64) -> Message<'static> {
    Message::Commit { ballot, committed }
}

fn vote(at: Acceptor, slot: u64, ballot: Ballot, value: Value) -> Step {
    Event::VoteDurable { at, slot, ballot, value }
}

fn promised(at: Acceptor, ballot: Ballot) -> Step {
    Event::PromiseDurable { at, ballot }
}

fn committed(at: Acceptor, through: u64) -> Step {
    Event::Committed { at, through }
}

fn applied(at: Acceptor, slot: u64, value: Value) -> Step {
    Event::Applied { at, slot, value, state: Some(u128::from(slot)) }
}

fn submitted(value: Value) -> Step {
    Event::Submitted { batch: value.digest }
}

/// Replicas start, and remember each other's life.
fn start(replicas: &[Acceptor]) -> Run {
    let mut run = Vec::new();
    for &at in replicas {
        run.push(Event::Started { at, life: life(at, 1), recovered: NOTHING });
    }
    for &at in replicas {
        for &peer in replicas.iter().filter(|peer| **peer != at) {
            run.push(Event::LifeDurable { at, peer, life: life(peer, 1) });
        }
    }
    run.extend([A, B, C, D].map(submitted));
    run
}

/// `leader` takes `ballot` with the promise of `other`, which says `committed` and `entries`.
fn elected(
    ballot: Ballot,
    other: Acceptor,
    committed: u64,
    entries: &'static [Entry],
) -> Vec<Step> {
    let leader = ballot.leader;
    let mut run = vec![promised(leader, ballot)];
    run.extend(passed(leader, other, prepare(ballot)));
    run.push(promised(other, ballot));
    run.extend(passed(other, leader, promise(ballot, committed, 1, None, entries)));
    run.push(Event::BecameLeader { at: leader, ballot });
    run
}

/// `other` votes for what its leader proposes in one slot.
fn voted_for(
    ballot: Ballot,
    other: Acceptor,
    committed: u64,
    slot: u64,
    values: &'static [Value; 1],
) -> Vec<Step> {
    let mut run = Vec::new();
    run.extend(passed(ballot.leader, other, accept(ballot, committed, slot, values)));
    run.push(vote(other, slot, ballot, values[0]));
    run.extend(passed(other, ballot.leader, accepted(ballot, slot)));
    run
}

/// r0 leads ballot 1 and gets A chosen in slot 1 by r1 and itself; both apply it.
fn first_slot() -> Run {
    let mut run = start(&[R0, R1, R2]);
    run.extend(elected(B1, R1, 0, &[]));
    run.extend(voted_for(B1, R1, 0, 1, &[A]));
    run.extend([vote(R0, 1, B1, A), committed(R0, 1), applied(R0, 1, A)]);
    run.extend(passed(R0, R1, commit(B1, 1)));
    run.extend([committed(R1, 1), applied(R1, 1, A)]);
    run
}

/// After [`first_slot`], r0 proposes B and C; r1 hears of C alone and votes for it.
fn gap() -> Run {
    let mut run = first_slot();
    run.extend([left(R0, R2, accept(B1, 1, 2, &[B])), vote(R0, 2, B1, B)]);
    run.extend(voted_for(B1, R1, 1, 3, &[C]));
    run
}

/// After [`gap`], r2 takes ballot 2 with the promise of r1, fetches slot 1, and proposes again.
fn second_reign() -> Run {
    let mut run = gap();
    run.extend(elected(B2, R1, 1, const { &[voted(3, B1, C)] }));
    run.extend(passed(R2, R1, accept(B2, 0, 2, &[NOOP])));
    run.extend(passed(R2, R1, accept(B2, 0, 3, &[C])));
    run.extend(passed(R1, R2, Message::Fetched { first: 1, values: &[A], committed: 1 }));
    run.extend([committed(R2, 1), Event::ChosenDurable { at: R2, slot: 1, value: A }]);
    run.push(applied(R2, 1, A));
    run.extend(passed(R2, R1, accept(B2, 1, 4, &[D])));
    for (slot, value) in [(2, NOOP), (3, C), (4, D)] {
        run.extend([vote(R2, slot, B2, value), vote(R1, slot, B2, value)]);
        run.extend(passed(R1, R2, accepted(B2, slot)));
        run.extend([committed(R2, slot), applied(R2, slot, value)]);
    }
    run.extend(passed(R2, R1, commit(B2, 4)));
    run.push(committed(R1, 4));
    run
}

fn observe(run: &Run, voters: u8, window: u64) -> Result<Monitor, (usize, Verdict)> {
    let quorums = Quorums::majority(voters).expect("majorities intersect");
    let mut monitor = Monitor::new(quorums, window);
    for (index, step) in run.iter().enumerate() {
        if let Err(verdict) = monitor.observe(step) {
            assert_eq!(verdict.event, index as u64 + 1, "events are numbered from 1");
            return Err((index, verdict));
        }
    }
    Ok(monitor)
}

fn accepts(run: &Run) -> Monitor {
    observe(run, 3, 4).unwrap_or_else(|(_, verdict)| panic!("a legal run: {verdict}"))
}

fn rejects(run: &Run, rule: Rule, invariant: Invariant) {
    match observe(run, 3, 4) {
        Ok(_) => panic!("accepted, though {rule:?} is broken"),
        Err((_, verdict)) => {
            assert_eq!((verdict.rule, verdict.invariant), (rule, invariant), "{verdict}");
        }
    }
}

fn position(run: &Run, step: &Step) -> usize {
    run.iter().position(|s| s == step).expect("the step is part of the run")
}

/// The run is accepted; without `step` it is not.
fn needs(run: &Run, step: &Step, rule: Rule, invariant: Invariant) {
    accepts(run);
    let mut broken = run.clone();
    broken.remove(position(run, step));
    rejects(&broken, rule, invariant);
}

/// The run is accepted; with `new` in the place of `old` it is not.
fn not_instead(run: &Run, old: &Step, new: Step, rule: Rule, invariant: Invariant) {
    accepts(run);
    let mut broken = run.clone();
    broken[position(run, old)] = new;
    rejects(&broken, rule, invariant);
}

/// The run is accepted, with `legal` at its end too; with `illegal` it is not.
fn not_then(run: &Run, legal: &[Step], illegal: &[Step], rule: Rule, invariant: Invariant) {
    accepts(&[run.as_slice(), legal].concat());
    rejects(&[run.as_slice(), illegal].concat(), rule, invariant);
}
