//! Guards of the protocol that a mutant showed to be tested by random runs alone, or by nothing.
//! Each test breaks with the mutant that its comment names.

use std::time::Duration;

use paxos_core::config::Config;
use paxos_core::durable::{Write, WriteBatch};
use paxos_core::ids::{ClusterId, Epoch, GroupId, Incarnation, Slot};
use paxos_core::membership::{Member, Membership};
use paxos_core::message::{
    Body, Commit, Connectivity, Fetch, Fetched, Message, Origin, Prepare, PromiseEntry, Reject,
    SlotState,
};
use paxos_core::output::{Halt, Output, Recipients, Role};
use paxos_core::port::Loaded;
use paxos_core::quorum::QuorumRule;
use paxos_core::replica::LogPage;

use crate::bed::{
    Bed, accept, accepted, ballot, blank, id, members, promise, remembered, slot, snapshot, text,
    value,
};

const HEARTBEAT: Duration = Duration::from_millis(100);

fn voted(at: u64, round: u64, leader: u16, text: &str) -> PromiseEntry {
    PromiseEntry { slot: slot(at), state: SlotState::Accepted(ballot(round, leader), value(text)) }
}

/// Mutant `promise-page-claims-the-rest`: a page that was full would claim that nothing follows.
#[test]
fn a_page_of_a_promise_covers_only_what_it_speaks_of() {
    let config = Config { page_bytes_max: 100, ..Config::default() };
    let mut bed = Bed::start(blank(1, &members(3, 8)), config);
    bed.receive(id(2), accept(ballot(1, 2), 1, &["a", "b"], 0));
    bed.receive(id(2), accept(ballot(1, 2), 5, &["e"], 0));
    let expected = [
        (1, slot(1), voted(1, 1, 2, "a")),
        (2, slot(4), voted(2, 1, 2, "b")),
        (5, Slot::MAX, voted(5, 1, 2, "e")),
    ];
    for (from, through, entry) in expected {
        bed.receive(id(3), Prepare { ballot: ballot(2, 3), from: slot(from) });
        bed.sync();
        let page = bed.promises().pop().unwrap();
        assert_eq!((page.from, page.through, page.entries), (slot(from), through, vec![entry]));
    }
}

/// Mutant `promise-omits-chosen`: a value known to be chosen beyond a gap, with a vote for another
/// value below it or none, would not be named as chosen.
#[test]
fn a_promise_names_what_is_known_to_be_chosen_beyond_a_gap() {
    let vote =
        |at, text| Write::Accepted { slot: slot(at), ballot: ballot(1, 2), value: value(text) };
    let chosen = |at, text| Write::Chosen { slot: slot(at), value: value(text) };
    let writes = [vote(2, "b"), vote(3, "other"), chosen(3, "c"), chosen(5, "e")];
    let mut bed = Bed::start(remembered(1, &members(3, 8), &writes), Config::default());
    bed.receive(id(3), Prepare { ballot: ballot(2, 3), from: slot(1) });
    bed.sync();
    let named = |at, text| PromiseEntry { slot: slot(at), state: SlotState::Chosen(value(text)) };
    let expected = [voted(2, 1, 2, "b"), named(3, "c"), named(5, "e")];
    assert_eq!(bed.promises().pop().unwrap().entries, expected);
}

/// Mutants `prepare-under-a-foreign-ballot` and `accept-under-a-foreign-ballot`: a ballot belongs
/// to the replica that it names, and nobody else asks or proposes under it.
#[test]
fn nobody_asks_or_proposes_under_the_ballot_of_another() {
    let mut bed = Bed::new(1, 3);
    bed.receive(id(2), Prepare { ballot: ballot(1, 3), from: slot(1) });
    bed.receive(id(2), accept(ballot(1, 3), 1, &["a"], 0));
    bed.sync();
    assert_eq!(bed.replica.status().promised, None);
    assert_eq!(bed.replica.counters().dropped_absurd, 2);
    assert!(!bed.has_sent("Promise") && !bed.has_sent("Accepted"));
}

/// Mutant `accepted-beats-chosen`: a vote below it would take the place of the chosen value.
#[test]
fn a_chosen_value_beats_every_vote_whoever_is_heard_first() {
    for chosen_first in [true, false] {
        let mut bed = Bed::new(1, 5);
        let own = bed.campaign(&[2, 3]);
        bed.sync();
        let chosen = PromiseEntry { slot: slot(1), state: SlotState::Chosen(value("chosen")) };
        let mut answers = [chosen, voted(1, 1, 5, "voted")];
        if !chosen_first {
            answers.reverse();
        }
        for (peer, entry) in [2, 3].into_iter().zip(answers) {
            bed.receive(id(peer), promise(own, 1, Slot::ZERO, vec![entry]));
        }
        assert_eq!(bed.role(), Role::Leader);
        assert_eq!(text(&bed.accepts()[0].values[0]), "chosen", "chosen first: {chosen_first}");
    }
}

/// Mutant `promise-of-another-ballot`.
#[test]
fn a_promise_counts_for_its_own_ballot() {
    let mut bed = Bed::new(1, 3);
    let own = bed.campaign(&[2]);
    bed.sync();
    bed.receive(id(2), promise(ballot(own.round() + 1, 1), 1, Slot::ZERO, Vec::new()));
    assert_eq!(bed.role(), Role::Candidate);
    bed.receive(id(2), promise(own, 1, Slot::ZERO, Vec::new()));
    assert_eq!(bed.role(), Role::Leader);
}

/// Mutant `absurd-vote-far-away`: nobody votes further than twice the window above its prefix, so
/// no candidate fills a gap as long as a stranger likes.
#[test]
fn a_promise_that_names_what_nobody_can_have_accepted_is_dropped() {
    let mut bed = Bed::new(1, 3);
    let own = bed.campaign(&[2]);
    bed.sync();
    bed.receive(id(2), promise(own, 1, slot(3), vec![voted(20, 1, 2, "too far")]));
    assert_eq!((bed.role(), bed.replica.counters().dropped_absurd), (Role::Candidate, 1));
    bed.receive(id(2), promise(own, 1, slot(3), vec![voted(19, 1, 2, "just near")]));
    assert_eq!(bed.role(), Role::Leader);
}

/// Mutant `observer-counts-as-a-voter`.
#[test]
fn who_only_observes_is_not_counted() {
    let voters = (1..=3).map(|number| Member::new(id(number))).collect();
    let observers = vec![Member::new(id(4))];
    let majority = QuorumRule::Majority;
    let membership = Membership::new(Epoch::FIRST, voters, observers, majority, 8).unwrap();
    let mut bed = Bed::start(blank(1, &membership), Config::default());
    let own = bed.campaign(&[2]);
    bed.sync();
    bed.receive(id(4), promise(own, 1, Slot::ZERO, Vec::new()));
    assert_eq!(bed.role(), Role::Candidate);
    bed.receive(id(2), promise(own, 1, Slot::ZERO, Vec::new()));
    bed.propose("a");
    bed.sync();
    bed.receive(id(4), accepted(own, 1, 1));
    assert_eq!(bed.committed(), Slot::ZERO);
    bed.receive(id(2), accepted(own, 1, 1));
    assert_eq!(bed.committed(), slot(1));
}

/// Mutants `foreign-cluster-heard`, `foreign-group-heard`, `sender-taken-at-its-word`.
#[test]
fn who_belongs_elsewhere_or_says_it_is_another_is_not_heard() {
    let mut bed = Bed::new(1, 3);
    let own = bed.origin_of(id(2));
    let strangers = [
        Origin { cluster: ClusterId::new(0xC2), ..own },
        Origin { group: GroupId::new(7), ..own },
        Origin { replica: id(3), ..own },
    ];
    for origin in strangers {
        let body = Prepare { ballot: ballot(1, 2), from: slot(1) }.into();
        bed.replica.handle_message(id(2), Message { origin, body }, bed.now);
    }
    let body = Prepare { ballot: ballot(1, 9), from: slot(1) }.into();
    let origin = Origin { replica: id(9), ..own };
    bed.replica.handle_message(id(9), Message { origin, body }, bed.now);
    bed.drain();
    bed.sync();
    assert_eq!(bed.replica.counters().dropped_foreign, 4);
    assert_eq!(bed.replica.status().promised, None);
}

/// Mutant `vouches-for-one-who-denies-it`: replica 3 still vouches for replica 2, which itself says
/// that it does not lead.
#[test]
fn nobody_waits_for_a_leader_that_denies_it() {
    let mut bed = Bed::new(1, 3);
    for _ in 0..40 {
        bed.pass(HEARTBEAT);
        bed.hear(&[2, 3], |peer, heartbeat| {
            heartbeat.connectivity = Connectivity::Quorum;
            heartbeat.leader = (peer == 3).then_some(ballot(1, 2));
        });
    }
    assert!(bed.replica.counters().campaigns > 0);
}

/// Mutant `prepare-sent-once`.
#[test]
fn a_prepare_is_sent_again_to_whoever_has_not_answered() {
    let mut bed = Bed::new(1, 5);
    let own = bed.campaign(&[2, 3, 4, 5]);
    bed.sync();
    bed.receive(id(2), promise(own, 1, Slot::ZERO, Vec::new()));
    bed.take_sent();
    bed.pass(HEARTBEAT);
    let again = Body::Prepare(Prepare { ballot: own, from: slot(1) });
    let asked: Vec<_> =
        bed.take_sent().into_iter().filter(|(_, body)| *body == again).map(|(to, _)| to).collect();
    assert_eq!(asked, [3, 4, 5].map(|peer| Recipients::One(id(peer))));
}

/// Mutant `asks-the-same-peer-for-ever`.
#[test]
fn a_fetch_that_is_not_answered_goes_to_another_peer() {
    let mut bed = Bed::new(1, 3);
    let mut asked = Vec::new();
    for _ in 0..12 {
        bed.hear(&[2, 3], |_, heartbeat| heartbeat.committed = slot(4));
        bed.pass(HEARTBEAT);
        let fetch = Body::Fetch(Fetch { from: slot(1), through: slot(4) });
        asked.extend(bed.take_sent().into_iter().filter(|(_, b)| *b == fetch).map(|(to, _)| to));
    }
    let turns: Vec<_> = asked.windows(2).map(|pair| pair[0] != pair[1]).collect();
    assert!(turns.len() >= 2 && turns.iter().all(|turned| *turned), "{asked:?}");
}

/// Mutant `duel-without-back-off`: a candidate that was outbid waits at most a heartbeat and a
/// jitter, 350 ms; one that was outbid again and again waits longer.
#[test]
fn candidates_that_outbid_each_other_wait_longer_each_time() {
    let mut bed = Bed::new(1, 3);
    let mut waits = Vec::new();
    for _ in 0..8 {
        let begin = bed.now;
        let own = bed.campaign(&[2, 3]);
        bed.sync();
        waits.push(bed.now.since(begin));
        bed.receive(id(3), Reject { refused: own, promised: ballot(own.round() + 1, 3) });
        assert_eq!(bed.role(), Role::Follower);
    }
    let longest = waits[1..].iter().max().unwrap();
    assert!(*longest >= Duration::from_millis(600), "{waits:?}");
}

/// Mutant `record-of-the-prefix-without-the-vote`: what survives of a batch is a prefix of it, so
/// the record of a prefix stands behind the votes that it rests on.
#[test]
fn the_prefix_is_recorded_behind_the_votes_that_it_rests_on() {
    let mut bed = Bed::new(1, 3);
    bed.receive(id(2), accept(ballot(1, 2), 1, &["a", "b"], 2));
    let writes: Vec<_> = bed.pending.iter().flat_map(WriteBatch::writes).collect();
    let recorded = writes.iter().position(|write| **write == Write::Committed(slot(2))).unwrap();
    let votes = writes.iter().filter(|write| matches!(write, Write::Accepted { .. }));
    let last = writes.iter().rposition(|write| matches!(write, Write::Accepted { .. })).unwrap();
    assert_eq!(votes.count(), 2);
    assert!(last < recorded, "{writes:?}");
}

/// A vote is kept in memory until its slot is committed.
#[test]
fn votes_are_held_for_what_is_not_committed() {
    let mut bed = Bed::new(1, 3);
    bed.receive(id(2), accept(ballot(1, 2), 1, &["a", "b", "c"], 1));
    assert_eq!(bed.replica.status().votes_held, 2);
    bed.receive(id(2), accept(ballot(1, 2), 4, &["d"], 3));
    assert_eq!(bed.replica.status().votes_held, 1);
}

/// Mutant `log-read-before-it-is-written`: values that left memory are asked back only behind the
/// write that holds them.
#[test]
fn a_read_of_the_log_follows_the_writes_before_it() {
    let config = Config { tail_bytes_max: 1, ..Config::default() };
    let mut bed = Bed::start(blank(1, &members(3, 8)), config);
    let messages: [Body; 3] = [
        accept(ballot(1, 2), 1, &["a", "b", "c"], 0).into(),
        Commit { ballot: ballot(1, 2), committed: slot(3) }.into(),
        Fetch { from: slot(1), through: slot(2) }.into(),
    ];
    for body in messages {
        let message = Message { origin: bed.origin_of(id(2)), body };
        bed.replica.handle_message(id(2), message, bed.now);
    }
    let mut written = false;
    loop {
        match bed.replica.poll_output() {
            Output::Persist(batch) => {
                written = true;
                bed.pending.push(batch);
            }
            Output::Load { .. } => break assert!(written, "the log is read before it is written"),
            Output::Idle { .. } => panic!("slots 1 and 2 have left memory and are asked back"),
            Output::Send { .. }
            | Output::Apply { .. }
            | Output::ReadsReady { .. }
            | Output::ReadsLost { .. }
            | Output::QuorumReadsReady { .. }
            | Output::QuorumReadsLost { .. }
            | Output::SnapshotWanted { .. }
            | Output::Halt(_) => {}
        }
    }
}

/// Mutant `value-loaded-before-durable`: of what left memory, as much is read back as is durable.
#[test]
fn what_left_memory_is_read_back_as_far_as_it_is_durable() {
    let config = Config { tail_bytes_max: 1, ..Config::default() };
    let mut bed = Bed::start(blank(1, &members(3, 8)), config);
    bed.receive(id(2), accept(ballot(1, 2), 1, &["a", "b", "c"], 0));
    bed.receive(id(2), accept(ballot(1, 2), 4, &["d", "e", "f"], 6));
    assert_eq!((bed.committed(), bed.pending.len()), (slot(6), 2));
    assert!(bed.loads.is_empty(), "nothing is durable yet: {:?}", bed.loads);
    let first = bed.pending.remove(0);
    bed.replica.handle_durable(first.into_durable(), bed.now);
    bed.drain();
    let (_, range) = bed.loads.pop().unwrap();
    assert_eq!((range.from, range.through), (slot(1), slot(3)));
}

/// A host reads what was handed out to be applied, and no more: from memory, or by a range of the log.
#[test]
fn the_host_reads_the_log_as_far_as_it_was_handed_out() {
    // The last value stays in memory, whatever the bound.
    let config = Config { tail_bytes_max: 1, ..Config::default() };
    let mut bed = Bed::start(blank(1, &members(3, 8)), config);
    bed.receive(id(2), accept(ballot(1, 2), 1, &["a", "b", "c"], 0));
    bed.receive(id(2), Commit { ballot: ballot(1, 2), committed: slot(3) });
    assert_eq!(bed.replica.read_log(slot(1), slot(9)), LogPage::NotYet, "it is not durable yet");
    bed.sync();
    let (ticket, range) = bed.loads.pop().expect("what left memory is read back to be applied");
    let values = ["a", "b"].map(value).to_vec();
    bed.replica.handle_loaded(ticket, Loaded { values, trimmed: slot(0) }, bed.now);
    bed.drain();
    assert_eq!(bed.applied.len(), 3);
    let LogPage::Load(own, page) = bed.replica.read_log(slot(1), slot(9)) else {
        panic!("the first two have left memory")
    };
    assert_eq!((page.from, page.through), (range.from, slot(2)));
    let values = vec![value("a")];
    bed.replica.handle_loaded(own, Loaded { values, trimmed: slot(0) }, bed.now);
    bed.drain();
    assert_eq!(bed.applied.len(), 3, "the replica did not ask for it");
    assert_eq!(bed.replica.read_log(slot(3), slot(9)), LogPage::Values(vec![value("c")]));
    assert_eq!(bed.replica.read_log(slot(4), slot(9)), LogPage::NotYet);
    assert_eq!(bed.replica.read_log(slot(3), slot(2)), LogPage::NotYet, "up to what was asked for");
    bed.replica.handle_snapshot(&snapshot(2, &members(3, 8)));
    bed.replica.trim(slot(2)).unwrap();
    let begin = LogPage::Trimmed { first: slot(3) };
    assert_eq!(bed.replica.read_log(slot(2), slot(9)), begin);
}

/// Mutant `new-life-answered-at-once`: the second message of a life waits as the first one does,
/// and so does an answer that asserts nothing about the disk.
#[test]
fn nothing_is_answered_before_the_life_that_asks_is_remembered() {
    let mut bed = Bed::new(1, 3);
    bed.receive(id(3), Prepare { ballot: ballot(5, 3), from: slot(1) });
    bed.sync();
    bed.take_sent();
    let origin = Origin { incarnation: Incarnation::new(2, 0), ..bed.origin_of(id(2)) };
    for _ in 0..2 {
        let body = Prepare { ballot: ballot(1, 2), from: slot(1) }.into();
        bed.replica.handle_message(id(2), Message { origin, body }, bed.now);
        bed.drain();
    }
    assert_eq!(bed.take_sent(), []);
    bed.sync();
    let reject = Reject { refused: ballot(1, 2), promised: ballot(5, 3) };
    assert_eq!(bed.take_sent(), [(); 2].map(|()| (Recipients::One(id(2)), reject.into())));
}

/// Found by cargo-mutants: a Prepare that is repeated is answered again, and not written again.
#[test]
fn a_repeated_prepare_costs_no_write() {
    let mut bed = Bed::new(1, 3);
    for _ in 0..2 {
        bed.receive(id(3), Prepare { ballot: ballot(1, 3), from: slot(1) });
        bed.sync();
    }
    assert_eq!(bed.promises().len(), 2);
    assert_eq!(bed.disk.iter().filter(|w| **w == Write::Promised(ballot(1, 3))).count(), 1);
}

/// Mutant `two-chosen-values-kept-quiet`: a peer that holds another value as chosen proves that an
/// assumption was broken.
#[test]
fn two_values_chosen_in_one_slot_halt_the_replica() {
    let mut bed = Bed::new(1, 3);
    bed.receive(id(2), accept(ballot(1, 2), 1, &["a"], 1));
    bed.sync();
    assert_eq!(bed.committed(), slot(1));
    let values = vec![value("b")];
    bed.receive(id(3), Fetched { first: slot(1), values, committed: slot(1), trimmed: Slot::ZERO });
    assert_eq!(bed.halted, Some(Halt::AgreementBroken { slot: slot(1) }));
}

/// Mutant `watermark-from-whoever-vouches`: a follower that vouches for a leader says how far its own
/// prefix reaches, perhaps by another ballot: that is a reason to fetch.
#[test]
fn the_prefix_of_one_who_vouches_is_no_watermark() {
    let mut bed = Bed::new(1, 3);
    bed.receive(id(2), accept(ballot(1, 2), 1, &["a"], 0));
    bed.sync();
    bed.hear(&[3], |_, heartbeat| {
        heartbeat.leader = Some(ballot(1, 2));
        heartbeat.committed = slot(1);
    });
    assert_eq!(bed.committed(), Slot::ZERO);
    bed.pass(HEARTBEAT);
    assert!(bed.has_sent("Fetch"));
    bed.hear(&[2], |_, heartbeat| {
        heartbeat.leader = Some(ballot(1, 2));
        heartbeat.committed = slot(1);
    });
    assert_eq!(bed.committed(), slot(1), "the leader's own word is one");
}

/// Mutant `unasked-page-leaves-a-gap`: what a page brings beyond a gap is dropped, so that no peer
/// makes this replica hold values that nothing bounds.
#[test]
fn a_page_that_leaves_a_gap_is_dropped() {
    let mut bed = Bed::new(1, 3);
    let page = |first, text| Fetched {
        first: slot(first),
        values: vec![value(text)],
        committed: slot(3),
        trimmed: Slot::ZERO,
    };
    bed.receive(id(2), page(3, "c"));
    assert_eq!(bed.replica.counters().dropped_stale, 1);
    for (first, text) in [(1, "a"), (2, "b")] {
        bed.receive(id(2), page(first, text));
    }
    assert_eq!(bed.committed(), slot(2), "slot 3 is asked for again");
}
