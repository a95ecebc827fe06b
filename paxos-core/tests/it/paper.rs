//! The rules of docs/protocol.md, one by one: each test quotes its rule, word for word, and checks
//! it on one replica. A last test compares the quotations with the document.

use std::time::Duration;

use paxos_core::config::Config;
use paxos_core::durable::Write;
use paxos_core::ids::{Incarnation, LogClock, Slot};
use paxos_core::message::{
    Body, Commit, Connectivity, Echo, Fetched, Heartbeat, Message, Prepare, Promise, PromiseEntry,
    Reject, SlotState,
};
use paxos_core::output::{NotProposed, Recipients, Role};
use paxos_core::quorum::{QuorumRule, QuorumSystem, VoterSet};
use paxos_core::replica::Replica;
use paxos_core::value::Value;

use crate::bed::{
    Bed, accept, accepted, ballot, blank, command, id, members, promise, remembered, slot, text,
    value, voters_under,
};

const HEARTBEAT: Duration = Duration::from_millis(100);

fn entry(at: u64, state: SlotState) -> PromiseEntry {
    PromiseEntry { slot: slot(at), state }
}

fn voted(at: u64, round: u64, leader: u16, text: &str) -> PromiseEntry {
    entry(at, SlotState::Accepted(ballot(round, leader), value(text)))
}

// --- values and slots

/// **V1** A leader stamps a new batch with a clock at or above that of every batch in the slots
/// before it, and does so only when it knows them all, chosen or proposed by itself.
#[test]
fn v1_new_batches_never_turn_the_clock_back() {
    let mut bed = Bed::new(1, 3);
    bed.lead(&[2]);
    for (given, expected) in [(100, 100), (40, 100), (120, 120)] {
        let clock = LogClock::from_millis(given);
        bed.replica.propose(vec![command("a")], clock, bed.now).unwrap();
        bed.drain();
        let accepts = bed.accepts();
        let Value::Batch(batch) = &accepts.last().unwrap().values[0] else { panic!("a batch") };
        assert_eq!(batch.clock(), LogClock::from_millis(expected));
    }
}

/// **V2** A value is proposed in one slot only. A leader that is deposed never moves a value to
/// another slot, so a command whose slot was filled with another value is certainly never applied.
#[test]
fn v2_deposed_leader_never_moves_a_value() {
    let mut bed = Bed::new(1, 3);
    let first = bed.lead(&[2]);
    bed.propose("once");
    bed.sync();
    bed.receive(id(2), Reject { refused: first, promised: ballot(9, 3) });
    assert_eq!(bed.role(), Role::Follower);
    bed.take_sent();
    // It leads again, and slot 1 turns out to hold something else.
    let again = bed.campaign(&[2, 3]);
    bed.sync();
    let taken = vec![voted(1, 9, 3, "other")];
    bed.receive(id(3), promise(again, 1, Slot::ZERO, taken));
    let proposed: Vec<_> = bed.accepts().into_iter().flat_map(|accept| accept.values).collect();
    assert_eq!(proposed.iter().map(text).collect::<Vec<_>>(), ["other"]);
}

// --- quorums

/// **Q1** Every prepare quorum intersects every accept quorum, for even numbers of voters too.
#[test]
fn q1_quorums_intersect() {
    for voters in 1..=6 {
        let system = QuorumSystem::new(voters, QuorumRule::Majority).unwrap();
        for bits in 0..1_u32 << voters {
            let mut set = VoterSet::EMPTY;
            (0..voters).filter(|voter| bits & (1 << voter) != 0).for_each(|voter| {
                set.insert(voter);
            });
            let rest = VoterSet::first(voters).without(set);
            assert!(!(system.is_prepare_quorum(set) && system.is_accept_quorum(rest)));
        }
    }
}

/// **Q2** A voter is counted once for each question: a repeated Promise or Accepted adds nothing.
#[test]
fn q2_repeated_answers_add_nothing() {
    let mut bed = Bed::new(1, 5);
    let own = bed.campaign(&[2, 3]);
    bed.sync();
    for _ in 0..3 {
        bed.receive(id(2), promise(own, 1, Slot::ZERO, Vec::new()));
    }
    assert_eq!(bed.role(), Role::Candidate);
    bed.receive(id(3), promise(own, 1, Slot::ZERO, Vec::new()));
    assert_eq!(bed.role(), Role::Leader);
    bed.propose("a");
    bed.sync();
    for _ in 0..3 {
        bed.receive(id(2), accepted(own, 1, 1));
    }
    assert_eq!(bed.committed(), Slot::ZERO);
    bed.receive(id(3), accepted(own, 1, 1));
    assert_eq!(bed.committed(), slot(1));
}

/// **Q3** Nobody sends an Accept for a slot more than α above its own committed prefix.
#[test]
fn q3_window_bounds_what_is_in_flight() {
    let mut bed = Bed::new(1, 3);
    let own = bed.lead(&[2]);
    for number in 1..=8 {
        assert_eq!(bed.propose("a").slot, slot(number));
    }
    let refused = bed.replica.propose(vec![command("b")], LogClock::default(), bed.now);
    assert_eq!(refused.unwrap_err().reason, NotProposed::Busy);
    bed.sync();
    bed.receive(id(2), accepted(own, 1, 1));
    assert_eq!(bed.propose("b").slot, slot(9));
    // Adopted values wait for the window too.
    let mut bed = Bed::new(1, 3);
    let own = bed.campaign(&[2]);
    bed.sync();
    bed.receive(id(2), promise(own, 1, Slot::ZERO, vec![voted(12, 1, 2, "far")]));
    let highest =
        bed.accepts().iter().map(|accept| accept.first.plus(accept.values.len() as u64 - 1)).max();
    assert_eq!(highest, Some(slot(8)));
}

// --- durability

/// **D1** A Promise leaves only when the promise, and every vote it names, is durable.
#[test]
fn d1_promise_waits_for_the_disk() {
    let mut bed = Bed::new(1, 3);
    bed.receive(id(2), accept(ballot(1, 2), 1, &["a"], 0));
    bed.receive(id(3), Prepare { ballot: ballot(2, 3), from: slot(1) });
    assert!(!bed.has_sent("Promise"), "neither the vote nor the promise is durable");
    bed.sync();
    assert_eq!(bed.promises()[0].entries, [voted(1, 1, 2, "a")]);
    assert!(bed.disk.contains(&Write::Promised(ballot(2, 3))));
}

/// **D2** An Accepted leaves only when the votes it names are durable.
#[test]
fn d2_accepted_waits_for_the_disk() {
    let mut bed = Bed::new(1, 3);
    bed.receive(id(2), accept(ballot(1, 2), 1, &["a", "b"], 0));
    assert!(!bed.has_sent("Accepted"));
    // A repetition asks for no new write, and must wait for the first one all the same.
    bed.receive(id(2), accept(ballot(1, 2), 1, &["a", "b"], 0));
    assert!(!bed.has_sent("Accepted"));
    bed.sync();
    let sent: Vec<_> = bed
        .sent_of(|body| if let Body::Accepted(accepted) = body { Some(*accepted) } else { None });
    assert_eq!(sent, [accepted(ballot(1, 2), 1, 2), accepted(ballot(1, 2), 1, 2)]);
}

/// **D3** A Prepare leaves only when its sender's own promise of the ballot is durable, so that no
/// ballot is used twice.
#[test]
fn d3_prepare_waits_for_the_disk() {
    let mut bed = Bed::new(1, 3);
    let own = bed.campaign(&[2, 3]);
    assert!(!bed.has_sent("Prepare"));
    bed.sync();
    assert!(bed.has_sent("Prepare"));
    // After a crash it remembers, and campaigns with a higher ballot.
    let membership = members(3, 8);
    let mut again = Bed::start(remembered(1, &membership, &bed.disk), Config::default());
    assert!(again.campaign(&[2, 3]) > own);
}

/// **D4** A replica counts its own promise and its own vote only when they are durable.
#[test]
fn d4_own_votes_wait_for_the_disk() {
    let mut bed = Bed::new(1, 3);
    let own = bed.campaign(&[2]);
    bed.receive(id(2), promise(own, 1, Slot::ZERO, Vec::new()));
    assert_eq!(bed.role(), Role::Candidate, "its own promise is not durable");
    bed.sync();
    assert_eq!(bed.role(), Role::Leader);
    bed.propose("a");
    bed.receive(id(2), accepted(own, 1, 1));
    assert_eq!(bed.committed(), Slot::ZERO, "its own vote is not durable");
    bed.sync();
    assert_eq!(bed.committed(), slot(1));
}

/// **D5** A message of a life of a peer is answered only when that life is durably remembered.
#[test]
fn d5_new_life_is_remembered_before_it_is_answered() {
    let mut bed = Bed::new(1, 3);
    let mut origin = bed.origin_of(id(2));
    origin.incarnation = Incarnation::new(2, 5);
    let fetch = paxos_core::message::Fetch { from: slot(1), through: slot(1) };
    let prepare = Prepare { ballot: ballot(1, 2), from: slot(1) };
    for body in [Body::Fetch(fetch), Body::Prepare(prepare)] {
        bed.replica.handle_message(id(2), Message { origin, body }, bed.now);
    }
    bed.drain();
    assert_eq!(bed.pending.len(), 1);
    assert!(bed.sent.is_empty(), "nothing is answered yet: {:?}", bed.sent);
    bed.sync();
    assert!(bed.disk.contains(&Write::Peer { peer: id(2), incarnation: origin.incarnation }));
    assert!(bed.has_sent("Promise"));
}

/// **D7** A life that follows one whose heartbeat was heard is listened to from its own first heartbeat on, and
/// only if that heartbeat tells of slots as high, and of a ballot as high, as the life before told of as durable.
#[test]
fn d7_a_life_that_tells_less_than_the_one_before_is_refused() {
    let (told, promised) = (slot(7), ballot(3, 2));
    let heard = |boot: u32, durable: Slot, promised| {
        let mut bed = Bed::new(1, 3);
        bed.hear(&[2], |_, heartbeat| heartbeat.durable = told);
        bed.receive(id(2), accepted(ballot(3, 2), 6, 6));
        let mut origin = bed.origin_of(id(2));
        origin.incarnation = Incarnation::new(boot, 0);
        bed.take_sent();
        let prepare = Prepare { ballot: ballot(5, 2), from: slot(1) };
        bed.replica.handle_message(id(2), Message { origin, body: prepare.into() }, bed.now);
        bed.drain();
        assert!(bed.sent.is_empty() && bed.pending.is_empty(), "not before it said what it holds");
        let heartbeat = Heartbeat { sequence: 1, durable, promised, ..bed.pulse_of_a_peer() };
        let message = Message { origin, body: heartbeat.into() };
        bed.replica.handle_message(id(2), message, bed.now);
        bed.drain();
        bed.sync();
        bed.replica.handle_message(id(2), Message { origin, body: prepare.into() }, bed.now);
        bed.drain();
        bed.sync();
        assert_ne!(bed.has_sent("Promise"), bed.has_sent("Refused"));
        bed.has_sent("Promise")
    };
    assert!(heard(2, told, Some(promised)));
    assert!(heard(9, slot(8), Some(ballot(4, 1))), "more may have been written");
    assert!(!heard(2, slot(6), Some(promised)), "a vote is missing");
    assert!(!heard(9, slot(6), Some(promised)), "however often it was started");
    assert!(!heard(2, told, Some(ballot(2, 3))), "a promise is missing");
    assert!(!heard(2, told, None), "every promise is missing");
}

/// **D6** A value is handed to the state machine only when it is durable in this replica's own log.
#[test]
fn d6_applied_after_durable() {
    let mut bed = Bed::new(1, 3);
    bed.receive(id(2), accept(ballot(1, 2), 1, &["a"], 1));
    assert_eq!(bed.committed(), slot(1), "others hold it durably");
    assert!(bed.applied.is_empty(), "this replica's log does not");
    bed.sync();
    assert_eq!(bed.applied.len(), 1);
    // So too for what was fetched.
    let values = vec![value("b")];
    bed.receive(id(2), Fetched { first: slot(2), values, committed: slot(2), trimmed: Slot::ZERO });
    assert_eq!((bed.committed(), bed.applied.len()), (slot(2), 1));
    bed.sync();
    assert_eq!(bed.applied.len(), 2);
}

// --- the acceptor

/// **A1** A promise never goes back. An acceptor takes a Prepare for a ballot at or above its
/// promise and raises its promise to it, unless a lease makes it wait (R6, R9); below, it answers with
/// Reject.
#[test]
fn a1_promise_never_goes_back() {
    let mut bed = Bed::new(1, 3);
    for round in [3, 3, 5] {
        bed.receive(id(2), Prepare { ballot: ballot(round, 2), from: slot(1) });
        bed.sync();
        assert_eq!(bed.promises().last().unwrap().ballot, ballot(round, 2));
    }
    bed.receive(id(3), Prepare { ballot: ballot(4, 3), from: slot(1) });
    let reject = Reject { refused: ballot(4, 3), promised: ballot(5, 2) };
    assert_eq!(bed.sent.last(), Some(&(Recipients::One(id(3)), reject.into())));
    assert_eq!(bed.replica.status().promised, Some(ballot(5, 2)));
}

/// **A2** An acceptor accepts a proposal at or above its promise, and raises its promise to that
/// ballot; below, it answers with Reject.
#[test]
fn a2_accept_respects_and_raises_the_promise() {
    let mut bed = Bed::new(1, 3);
    bed.receive(id(2), accept(ballot(4, 2), 1, &["a"], 0));
    assert_eq!(bed.replica.status().promised, Some(ballot(4, 2)));
    bed.sync();
    bed.receive(id(3), accept(ballot(3, 3), 2, &["b"], 0));
    let reject = Reject { refused: ballot(3, 3), promised: ballot(4, 2) };
    assert_eq!(bed.sent.last(), Some(&(Recipients::One(id(3)), reject.into())));
    bed.sync();
    assert!(
        !bed.disk
            .iter()
            .any(|write| matches!(write, Write::Accepted { slot, .. } if slot.number() == 2))
    );
}

/// **A3** At one ballot an acceptor holds at most one value for each slot.
#[test]
fn a3_one_value_at_one_ballot() {
    let mut bed = Bed::new(1, 3);
    bed.receive(id(2), accept(ballot(1, 2), 1, &["a"], 0));
    bed.receive(id(2), accept(ballot(1, 2), 1, &["b"], 0));
    assert!(bed.halted.is_some(), "two values at one ballot prove that a promise was broken");
}

/// **A4** A promise names the promiser's committed prefix and everything it accepted or knows to be
/// chosen above it. A slot is left out only if it was never accepted there.
#[test]
fn a4_promise_names_everything() {
    let mut bed = Bed::new(1, 3);
    bed.receive(id(2), accept(ballot(1, 2), 1, &["a", "b", "c"], 0));
    bed.receive(id(2), accept(ballot(1, 2), 6, &["f"], 1));
    bed.sync();
    bed.receive(id(3), Prepare { ballot: ballot(2, 3), from: slot(1) });
    bed.sync();
    let page = bed.promises().pop().unwrap();
    assert_eq!((page.committed, page.through), (slot(1), Slot::MAX));
    let named: Vec<_> = page.entries.iter().map(|entry| entry.slot.number()).collect();
    assert_eq!(named, [2, 3, 6]);
}

/// **A5** An acceptor does not vote in a slot that it has committed. It answers with the chosen
/// value.
#[test]
fn a5_committed_slot_is_answered_with_its_value() {
    let mut bed = Bed::new(1, 3);
    bed.receive(id(2), accept(ballot(1, 2), 1, &["a"], 1));
    bed.sync();
    bed.take_sent();
    bed.receive(id(3), accept(ballot(2, 3), 1, &["a"], 0));
    bed.sync();
    assert!(!bed.has_sent("Accepted"));
    let fetched =
        bed.sent_of(|body| if let Body::Fetched(f) = body { Some(f.clone()) } else { None });
    assert_eq!(fetched[0].values.iter().map(text).collect::<Vec<_>>(), ["a"]);
}

/// **A6** An acceptor takes no vote beyond twice the window above its committed prefix.
#[test]
fn a6_far_votes_are_refused() {
    let mut bed = Bed::new(1, 3);
    bed.receive(id(2), accept(ballot(1, 2), 16, &["a", "b"], 0));
    bed.sync();
    let votes: Vec<_> =
        bed.disk.iter().filter(|write| matches!(write, Write::Accepted { .. })).collect();
    assert_eq!(votes.len(), 1, "slot 16 is within twice the window of 8, slot 17 is not");
    assert_eq!(bed.replica.counters().dropped_beyond_window, 1);
}

// --- the proposer

/// **P1** A promise counts only when its pages cover every slot from the candidate's first to the
/// end.
#[test]
fn p1_promise_counts_when_it_is_whole() {
    let mut bed = Bed::new(1, 3);
    let own = bed.campaign(&[2]);
    bed.sync();
    bed.take_sent();
    let page = |from: u64, through: Slot, entries| Promise {
        ballot: own,
        committed: Slot::ZERO,
        from: slot(from),
        through,
        entries,
    };
    bed.receive(id(2), page(4, Slot::MAX, Vec::new()));
    assert_eq!(bed.role(), Role::Candidate, "slots 1 to 3 are not covered");
    bed.receive(id(2), page(1, slot(2), vec![voted(2, 1, 2, "b")]));
    assert_eq!(bed.role(), Role::Candidate);
    let asked = Prepare { ballot: own, from: slot(3) };
    assert_eq!(bed.take_sent(), [(Recipients::One(id(2)), asked.into())]);
    bed.receive(id(2), page(3, Slot::MAX, Vec::new()));
    assert_eq!(bed.role(), Role::Leader);
    let proposed: Vec<_> = bed.accepts().into_iter().flat_map(|accept| accept.values).collect();
    assert_eq!(proposed.iter().map(text).collect::<Vec<_>>(), ["no-op", "b"]);
}

/// **P2** A new leader proposes, in each slot above the highest committed prefix that was reported
/// and up to the highest slot that was named, the chosen value if one was named, else the value
/// accepted at the highest ballot, else a no-op.
#[test]
fn p2_new_leader_adopts() {
    let mut bed = Bed::new(1, 5);
    bed.receive(id(4), accept(ballot(2, 4), 1, &["own low", "own high"], 0));
    bed.sync();
    bed.receive(id(4), accept(ballot(5, 4), 2, &["own high"], 0));
    bed.sync();
    let own = bed.campaign(&[2, 3]);
    bed.sync();
    let second = vec![voted(1, 3, 5, "higher"), voted(2, 4, 5, "lower"), voted(6, 1, 5, "six")];
    let third = vec![voted(1, 1, 2, "lowest"), entry(4, SlotState::Chosen(value("chosen")))];
    bed.receive(id(2), promise(own, 1, Slot::ZERO, second));
    bed.receive(id(3), promise(own, 1, Slot::ZERO, third));
    assert_eq!(bed.role(), Role::Leader);
    let accepts = bed.accepts();
    assert_eq!((accepts.len(), accepts[0].first, accepts[0].ballot), (1, slot(1), own));
    let proposed: Vec<_> = accepts[0].values.iter().map(text).collect();
    assert_eq!(proposed, ["higher", "own high", "no-op", "chosen", "no-op", "six"]);
}

/// **P3** A new leader proposes nothing in a slot at or below a committed prefix that was reported:
/// it fetches those values.
#[test]
fn p3_reported_prefix_is_fetched() {
    let mut bed = Bed::new(1, 3);
    let own = bed.campaign(&[2]);
    bed.sync();
    bed.receive(id(2), promise(own, 1, slot(3), vec![voted(4, 1, 2, "four")]));
    assert_eq!(bed.role(), Role::Leader);
    assert_eq!(bed.accepts()[0].first, slot(4));
    bed.pass(HEARTBEAT);
    assert!(bed.has_sent("Fetch"));
    let values = ["a", "b", "c"].map(value).into();
    let fetched = Fetched { first: slot(1), values, committed: slot(3), trimmed: Slot::ZERO };
    bed.receive(id(2), fetched);
    assert_eq!(bed.committed(), slot(3));
    let lowest = bed.accepts().iter().map(|accept| accept.first).min();
    assert_eq!(lowest, Some(slot(4)));
}

/// **P4** A new leader assigns new commands only to slots above everything that was named.
#[test]
fn p4_new_commands_come_above_everything_named() {
    let mut bed = Bed::new(1, 3);
    let own = bed.campaign(&[2]);
    bed.sync();
    bed.receive(id(2), promise(own, 1, slot(2), vec![voted(5, 1, 2, "five")]));
    let early = bed.replica.propose(vec![command("new")], LogClock::default(), bed.now);
    assert_eq!(early.unwrap_err().reason, NotProposed::Busy, "the reported prefix is not here");
    let values = vec![value("a"), value("b")];
    bed.receive(id(2), Fetched { first: slot(1), values, committed: slot(2), trimmed: Slot::ZERO });
    assert_eq!(bed.propose("new").slot, slot(6));
}

/// **P5** A slot that a promiser calls Unknown is not covered by that promiser: without it, the
/// others must be a prepare quorum for this slot.
#[test]
fn p5_unknown_slot_needs_other_promises() {
    let mut bed = Bed::new(1, 3);
    let own = bed.campaign(&[2, 3]);
    bed.sync();
    let lost = vec![entry(2, SlotState::Unknown(ballot(1, 2)))];
    bed.receive(id(2), promise(own, 1, Slot::ZERO, lost));
    assert_eq!(bed.role(), Role::Candidate, "replica 2 says nothing of slot 2");
    bed.receive(id(3), promise(own, 1, Slot::ZERO, Vec::new()));
    assert_eq!(bed.role(), Role::Leader);
}

/// **P6** Under one ballot, a leader proposes at most one value in each slot.
#[test]
fn p6_one_value_under_one_ballot() {
    let mut bed = Bed::new(1, 3);
    let own = bed.lead(&[2]);
    let slots: Vec<_> = ["a", "b", "c"].map(|text| bed.propose(text).slot).into();
    assert_eq!(slots, [slot(1), slot(2), slot(3)]);
    bed.sync();
    for _ in 0..3 {
        bed.pass(HEARTBEAT);
        bed.hear(&[2, 3], |_, _| {});
    }
    for accept in bed.accepts() {
        for (offset, value) in accept.values.iter().enumerate() {
            let expected = ["a", "b", "c"][accept.first.number() as usize - 1 + offset];
            assert_eq!((accept.ballot, text(value).as_str()), (own, expected));
        }
    }
    assert!(bed.accepts().len() > 3, "what is not accepted is sent again");
}

/// **P7** A replica that promises a ballot above its own stops leading and campaigning at once.
#[test]
fn p7_promising_more_ends_the_reign() {
    for lead in [false, true] {
        let mut bed = Bed::new(1, 3);
        let own = if lead { bed.lead(&[2]) } else { bed.campaign(&[2]) };
        let higher = ballot(own.round() + 1, 3);
        bed.receive(id(3), Prepare { ballot: higher, from: slot(1) });
        assert_eq!(bed.role(), Role::Follower);
        bed.sync();
        assert_eq!(bed.replica.status().promised, Some(higher));
    }
}

/// **P8** A leader that learns a chosen value other than the one it proposed in that slot stops
/// leading before it sends anything more.
#[test]
fn p8_deposed_leader_sends_no_watermark() {
    let mut bed = Bed::new(1, 3);
    let own = bed.lead(&[2]);
    bed.propose("mine");
    bed.sync();
    bed.take_sent();
    let values = vec![value("theirs")];
    bed.receive(id(3), Fetched { first: slot(1), values, committed: slot(1), trimmed: Slot::ZERO });
    assert_eq!((bed.role(), bed.committed()), (Role::Follower, slot(1)));
    bed.sync();
    for (_, body) in bed.take_sent() {
        assert!(!matches!(body, Body::Commit(Commit { ballot, .. }) if ballot == own));
        assert!(!matches!(body, Body::Heartbeat(heartbeat) if heartbeat.leader == Some(own)));
    }
    assert!(bed.disk.contains(&Write::Chosen { slot: slot(1), value: value("theirs") }));
}

// --- the learner

/// **L1** A value is chosen when an accept quorum of voters has sent Accepted for its exact slot and
/// ballot.
#[test]
fn l1_chosen_by_exact_slot_and_ballot() {
    let mut bed = Bed::new(1, 3);
    let own = bed.lead(&[2]);
    bed.propose("a");
    bed.sync();
    bed.receive(id(2), accepted(ballot(own.round() - 1, 1), 1, 1));
    bed.receive(id(2), accepted(own, 2, 9));
    assert_eq!(bed.committed(), Slot::ZERO);
    bed.receive(id(2), accepted(own, 1, 1));
    assert_eq!(bed.committed(), slot(1));
}

/// **L2** The committed prefix is contiguous and never shrinks.
#[test]
fn l2_prefix_is_contiguous() {
    let mut bed = Bed::new(1, 3);
    let own = bed.lead(&[2]);
    for text in ["a", "b", "c"] {
        bed.propose(text);
    }
    bed.sync();
    bed.receive(id(2), accepted(own, 3, 3));
    bed.receive(id(2), accepted(own, 1, 1));
    assert_eq!(bed.committed(), slot(1));
    bed.receive(id(2), accepted(own, 2, 2));
    assert_eq!(bed.committed(), slot(3));
    bed.receive(id(3), Commit { ballot: ballot(9, 3), committed: slot(1) });
    assert_eq!(bed.committed(), slot(3));
}

/// **L3** A watermark (ballot, committed) tells a replica that slot s up to committed is chosen with
/// the value that it accepted in s, only if it accepted that at exactly the watermark's ballot.
#[test]
fn l3_watermark_counts_at_its_own_ballot() {
    let mut bed = Bed::new(1, 3);
    bed.receive(id(2), accept(ballot(1, 2), 1, &["old"], 0));
    bed.sync();
    bed.receive(id(3), Commit { ballot: ballot(2, 3), committed: slot(1) });
    assert_eq!(bed.committed(), Slot::ZERO, "what was accepted at ballot 1.2 may not be chosen");
    bed.receive(id(3), accept(ballot(2, 3), 1, &["new"], 0));
    assert_eq!(bed.committed(), slot(1));
    bed.sync();
    assert_eq!(bed.applied.iter().map(|(_, value)| text(value)).collect::<Vec<_>>(), ["new"]);
    // Only the leader of a ballot speaks for it.
    let mut bed = Bed::new(1, 3);
    bed.receive(id(2), accept(ballot(1, 2), 1, &["a"], 0));
    bed.receive(id(3), Commit { ballot: ballot(1, 2), committed: slot(1) });
    assert_eq!(bed.committed(), Slot::ZERO);
}

/// **L4** Where a watermark does not settle a slot, the value is fetched.
#[test]
fn l4_missing_values_are_fetched() {
    let mut bed = Bed::new(1, 3);
    bed.receive(id(2), Commit { ballot: ballot(1, 2), committed: slot(2) });
    bed.sync();
    bed.pass(HEARTBEAT);
    let asked = paxos_core::message::Fetch { from: slot(1), through: slot(2) };
    assert!(bed.sent.contains(&(Recipients::One(id(2)), asked.into())));
    let values = vec![value("a"), value("b")];
    bed.receive(id(2), Fetched { first: slot(1), values, committed: slot(2), trimmed: Slot::ZERO });
    bed.sync();
    assert_eq!(bed.committed(), slot(2));
    assert!(bed.disk.contains(&Write::Chosen { slot: slot(2), value: value("b") }));
}

/// **L5** Values are applied in slot order, each slot once in a life of the state machine.
#[test]
fn l5_applied_in_order_and_once() {
    let mut bed = Bed::new(1, 3);
    bed.receive(id(2), accept(ballot(1, 2), 2, &["b"], 2));
    assert!(bed.applied.is_empty());
    for _ in 0..2 {
        bed.receive(id(2), accept(ballot(1, 2), 1, &["a"], 2));
        bed.receive(id(2), accept(ballot(1, 2), 1, &["a", "b"], 2));
    }
    bed.sync();
    let applied: Vec<_> =
        bed.applied.iter().map(|(at, value)| (at.number(), text(value))).collect();
    assert_eq!(applied, [(1, "a".to_owned()), (2, "b".to_owned())]);
}

// --- elections

/// **E1** A peer is connected if it echoed a heartbeat that was sent within the last election
/// timeout.
#[test]
fn e1_connected_by_echo() {
    let mut bed = Bed::new(1, 3);
    bed.pass(HEARTBEAT);
    bed.hear(&[2, 3], |peer, heartbeat| {
        if peer == 3 {
            heartbeat.echoes.clear();
        }
    });
    assert_eq!(bed.replica.status().connected_peers, [id(2)], "replica 3 does not hear this one");
    // An echo of another life says nothing about this one.
    bed.hear(&[3], |_, heartbeat| {
        let echo = heartbeat.echoes[0];
        heartbeat.echoes = vec![Echo { incarnation: Incarnation::new(9, 9), ..echo }];
    });
    assert_eq!(bed.replica.status().connected_peers, [id(2)]);
    bed.pass(Config::default().election_timeout + HEARTBEAT);
    assert!(bed.replica.status().connected_peers.is_empty(), "the echo has grown old");
}

/// **E2** A replica is quorum-connected if itself and the replicas connected to it contain both a
/// prepare quorum and an accept quorum of every membership that governs an open slot.
#[test]
fn e2_connected_to_both_quorums() {
    let membership = voters_under(4, QuorumRule::Counts { prepare: 3, accept: 2 });
    let mut bed = Bed::start(blank(1, &membership), Config::default());
    bed.pass(HEARTBEAT);
    bed.hear(&[2], |_, _| {});
    assert_eq!(bed.replica.status().connectivity, Connectivity::Partial);
    bed.hear(&[3], |_, _| {});
    assert_eq!(bed.replica.status().connectivity, Connectivity::Quorum);

    // A grid of two rows, {1, 2, 3} and {4, 5, 6}: a full row prepares, a full column accepts.
    let grid = QuorumRule::grid(2, 3).unwrap();
    let membership = voters_under(6, grid);
    for (connected, expected) in [
        (&[2, 3][..], Connectivity::Partial),
        (&[4], Connectivity::Partial),
        (&[3, 4, 5], Connectivity::Partial),
        (&[2, 3, 4], Connectivity::Quorum),
        (&[2, 3, 5], Connectivity::Quorum),
        (&[4, 5, 6], Connectivity::Quorum),
    ] {
        let mut bed = Bed::start(blank(1, &membership), Config::default());
        bed.pass(HEARTBEAT);
        bed.hear(connected, |_, _| {});
        assert_eq!(bed.replica.status().connectivity, expected, "{connected:?}");
    }
}

/// **E3** A replica campaigns only if it is quorum-connected, and heard within the election timeout
/// of no quorum-connected leader, neither from the leader itself nor from a connected peer that
/// vouches for one.
#[test]
fn e3_who_may_campaign() {
    let quiet = |peers: &[u16], leader: fn(u16) -> Option<(u64, u16)>| {
        let mut bed = Bed::new(1, 3);
        for _ in 0..40 {
            bed.pass(HEARTBEAT);
            bed.hear(peers, |peer, heartbeat| {
                heartbeat.connectivity = Connectivity::Quorum;
                heartbeat.leader = leader(peer).map(|(round, leader)| ballot(round, leader));
            });
            if bed.role() != Role::Follower {
                return false;
            }
        }
        true
    };
    assert!(quiet(&[], |_| None), "not connected");
    assert!(quiet(&[2, 3], |peer| (peer == 2).then_some((1, 2))), "a leader is heard");
    assert!(quiet(&[3], |_| Some((1, 2))), "replica 3 hears the leader");
    assert!(!quiet(&[2, 3], |_| None), "nobody leads");
    assert!(!quiet(&[3], |_| Some((1, 1))), "nobody needs to vouch for this replica itself");
}

/// **E4** A leader that is not quorum-connected, or whose oldest write has waited for its disk
/// longer than `disk_stall`, steps down. A replica whose disk has stalled so does not campaign.
#[test]
fn e4_leader_steps_down() {
    let mut bed = Bed::new(1, 3);
    bed.lead(&[2]);
    for _ in 0..8 {
        bed.pass(HEARTBEAT);
    }
    assert_eq!(bed.role(), Role::Follower, "nobody answers");
    let mut bed = Bed::new(1, 3);
    bed.lead(&[2]);
    bed.propose("stuck");
    for step in 1..=21 {
        assert_eq!(bed.role(), Role::Leader, "step {step}");
        bed.pass(HEARTBEAT);
        bed.hear(&[2, 3], |_, _| {});
    }
    assert_eq!(bed.role(), Role::Follower, "the disk is silent");
}

/// **E5** A replica that finds that it was paused re-arms its election timer and does not campaign.
#[test]
fn e5_paused_replica_does_not_campaign() {
    let mut bed = Bed::new(1, 1);
    bed.sync();
    bed.pass(Duration::ZERO);
    bed.sync();
    assert_eq!(bed.role(), Role::Leader, "alone, it needs nobody");
    let mut bed = Bed::new(1, 3);
    bed.pass(HEARTBEAT);
    bed.now = bed.now.after(Duration::from_secs(5));
    bed.hear(&[2, 3], |_, _| {});
    bed.pass(Duration::ZERO);
    assert_eq!(bed.role(), Role::Follower);
    assert_eq!(bed.replica.counters().campaigns, 0);
}

/// **E6** Every election timer has a random part, drawn from the replica's seed.
#[test]
fn e6_timers_are_random() {
    let membership = members(3, 8);
    let mut begins = std::collections::BTreeSet::new();
    for seed in 0..20 {
        let recovered = blank(1, &membership);
        let mut bed = Bed::start(recovered.clone(), Config::default());
        bed.replica =
            Replica::recover(Config::default(), recovered, Slot::ZERO, seed, bed.now).unwrap();
        bed.drain();
        for step in 0..1000 {
            bed.pass(Duration::from_millis(1));
            if step % 50 == 0 {
                bed.hear(&[2, 3], |_, _| {});
                bed.sync();
            }
            if bed.role() == Role::Candidate {
                begins.insert(step);
                break;
            }
        }
    }
    assert!(begins.len() > 10, "different seeds campaign at different times: {begins:?}");
}

// --- the document

#[test]
fn every_rule_of_the_document_is_quoted() {
    let document = include_str!("../../../docs/protocol.md");
    let tests = [
        include_str!("paper.rs"),
        include_str!("quorum_reads.rs"),
        include_str!("reads.rs"),
        include_str!("agreement.rs"),
        include_str!("flow.rs"),
        include_str!("members.rs"),
        include_str!("sessions.rs"),
        include_str!("single.rs"),
        include_str!("snapshots.rs"),
        include_str!("founding.rs"),
        include_str!("transfer.rs"),
        // The rules of sessions that bind clients.
        include_str!("../../../src/client.rs"),
        include_str!("../../../src/session.rs"),
        // Those of states, which bind nodes.
        include_str!("../../../src/divergence.rs"),
        include_str!("../../../src/apply/tests.rs"),
        // And those of releases.
        include_str!("../../../src/releases.rs"),
        include_str!("../../../tests/it/host_upgrade.rs"),
    ];
    let tests = tests.concat();
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let quotations = words(&tests.replace("///", ""));
    let mut rules = 0;
    for paragraph in document.split("\n- **").skip(1) {
        let end = paragraph.find("\n\n").unwrap_or(paragraph.len());
        let rule = words(&format!("**{}", &paragraph[..end]));
        assert!(quotations.contains(&rule), "no test quotes: {rule}");
        rules += 1;
    }
    assert_eq!(rules, 101, "a rule was added or lost");
}
