//! Mistakes that were made in this core, each with its story: found by reading or by a seed, then
//! pinned here.

use std::time::Duration;

use paxos_core::config::Config;
use paxos_core::durable::Write;
use paxos_core::ids::{Incarnation, LogClock, Priority, Slot};
use paxos_core::message::{
    Body, Commit, Fetched, Heartbeat, Message, Prepare, Promise, PromiseEntry, Refused, Reject,
    SlotState,
};
use paxos_core::output::{Halt, Recipients, Role};

use crate::bed::{
    Bed, accept, accepted, ballot, blank, command, id, members, promise, slot, value,
};

const HEARTBEAT: Duration = Duration::from_millis(100);

/// A new leader adopted a slot whose value it already knew to be chosen. The prefix moved over the
/// slot, its tally stayed open for the rest of the reign: bytes in flight leaked, and the slot was
/// proposed again for ever. Seeds 724 and 1142 of the first simulator.
#[test]
fn no_tally_stays_open_behind_the_prefix() {
    let mut bed = Bed::new(1, 3);
    let first = bed.lead(&[2]);
    for text in ["a", "b", "c"] {
        bed.propose(text);
    }
    bed.sync();
    bed.receive(id(2), accepted(first, 2, 3));
    bed.receive(id(2), Reject { refused: first, promised: ballot(9, 3) });
    let second = bed.campaign(&[2, 3]);
    bed.sync();
    bed.receive(id(3), promise(second, 1, Slot::ZERO, Vec::new()));
    assert_eq!((bed.role(), bed.replica.status().slots_in_flight), (Role::Leader, 3));
    bed.sync();
    bed.receive(id(2), accepted(second, 1, 2));
    let status = bed.replica.status();
    assert_eq!(status.committed, slot(3));
    assert_eq!((status.slots_in_flight, status.bytes_in_flight), (0, 0));
}

/// A deposed leader fetched slots that it had never proposed in, still believed in its reign, and
/// proposed its next batch in a committed slot: an assertion stopped it.
#[test]
fn a_leader_that_was_overtaken_steps_down() {
    let mut bed = Bed::new(1, 3);
    bed.lead(&[2]);
    bed.propose("v");
    bed.sync();
    let values = ["v", "x", "y"].map(value).into();
    bed.receive(id(3), Fetched { first: slot(1), values, committed: slot(3), trimmed: Slot::ZERO });
    assert_eq!((bed.role(), bed.committed()), (Role::Follower, slot(3)));
    let refused = bed.replica.propose(vec![command("w")], LogClock::default(), bed.now);
    assert!(refused.is_err());
}

/// So did one that heard the watermark of a higher ballot.
#[test]
fn a_leader_that_hears_a_higher_watermark_steps_down() {
    let mut bed = Bed::new(1, 3);
    let own = bed.lead(&[2]);
    let higher = ballot(own.round() + 1, 3);
    bed.receive(id(3), Commit { ballot: higher, committed: Slot::ZERO });
    assert_eq!(bed.role(), Role::Follower);
}

/// The only replica that had committed a prefix reported it and died. The new leader proposed
/// nothing there, fetched in vain, and led for ever without progress.
#[test]
fn a_leader_that_cannot_fetch_what_was_reported_makes_way() {
    let mut bed = Bed::new(1, 3);
    let own = bed.campaign(&[2, 3]);
    bed.sync();
    bed.receive(id(3), promise(own, 1, slot(5), Vec::new()));
    assert_eq!(bed.role(), Role::Leader);
    for _ in 0..20 {
        bed.pass(HEARTBEAT);
        bed.hear(&[2], |_, _| {});
    }
    assert!(bed.replica.counters().step_downs > 0, "nobody serves slots 1 to 5");
    // Other promises do without it.
    let again = match bed.role() {
        Role::Candidate => bed.replica.status().promised.unwrap(),
        Role::Follower | Role::Leader | Role::Observer => bed.campaign(&[2]),
    };
    bed.sync();
    bed.receive(id(2), promise(again, 1, Slot::ZERO, Vec::new()));
    assert_eq!(bed.propose("a").slot, slot(1));
}

/// A leader assigned a new slot before it had the prefix that a promise reported, and stamped the
/// batch with a clock below those in the prefix. Seeds 11, 822, 1051 and more.
#[test]
fn a_leader_waits_for_the_reported_prefix() {
    let mut bed = Bed::new(1, 3);
    let own = bed.campaign(&[2]);
    bed.sync();
    bed.receive(id(2), promise(own, 1, slot(2), Vec::new()));
    let early = bed.replica.propose(vec![command("early")], LogClock::default(), bed.now);
    assert!(early.is_err());
    let values = ["a", "b"].map(value).into();
    bed.receive(id(2), Fetched { first: slot(1), values, committed: slot(2), trimmed: Slot::ZERO });
    assert_eq!(bed.propose("then").slot, slot(3));
}

/// A wiped directory was refused until it had been started as often as the one before it.
#[test]
fn a_wiped_directory_is_refused_however_often_it_starts() {
    let mut bed = Bed::new(1, 3);
    for boot in 1..=9 {
        let mut origin = bed.origin_of(id(2));
        origin.incarnation = Incarnation::new(boot, 0x7777_0000 | boot);
        let body = Prepare { ballot: ballot(5, 2), from: slot(1) }.into();
        bed.replica.handle_message(id(2), Message { origin, body }, bed.now);
        bed.drain();
        bed.sync();
        assert!(!bed.has_sent("Promise"), "start {boot} of another directory");
        assert!(bed.has_sent("Refused"));
        bed.take_sent();
    }
    // A later start of the same directory is listened to.
    let mut origin = bed.origin_of(id(2));
    origin.incarnation = Incarnation::new(2, 0x0000_1234);
    let body = Prepare { ballot: ballot(5, 2), from: slot(1) }.into();
    bed.replica.handle_message(id(2), Message { origin, body }, bed.now);
    bed.drain();
    bed.sync();
    assert!(bed.has_sent("Promise"));
}

/// A candidate that heard a healthy leader kept its campaign, asked for promises again and again,
/// and deposed the leader as soon as anybody heard it.
#[test]
fn a_candidate_that_hears_a_leader_gives_up() {
    let mut bed = Bed::new(1, 5);
    bed.campaign(&[2, 3]);
    bed.sync();
    bed.hear(&[4], |_, heartbeat| {
        heartbeat.connectivity = paxos_core::message::Connectivity::Quorum;
        heartbeat.leader = Some(ballot(1, 4));
    });
    assert_eq!(bed.role(), Role::Follower);
    bed.take_sent();
    bed.pass(HEARTBEAT);
    assert!(!bed.has_sent("Prepare"));
}

/// Numbers near the end of their range made the next one overflow, and the replica panic; by a
/// Prepare or an Accept even durably.
#[test]
fn absurd_numbers_raise_a_counter_and_nothing_else() {
    let end = Slot::new(u64::MAX);
    let far = ballot(u64::MAX, 2);
    let entry = PromiseEntry { slot: slot(1 << 61), state: SlotState::Chosen(value("far")) };
    let idle = |committed, promised| Heartbeat {
        sequence: 1000,
        echoes: Vec::new(),
        promised,
        leader: None,
        connectivity: paxos_core::message::Connectivity::Partial,
        committed,
        durable: Slot::ZERO,
        held: slot(0),
        released: 0,
        priority: Priority::default(),
    };
    let mut bed = Bed::new(1, 3);
    let own = bed.campaign(&[2]);
    bed.sync();
    let bodies: Vec<Body> = vec![
        Prepare { ballot: far, from: slot(1) }.into(),
        accept(far, 1, &["a"], 0).into(),
        Reject { refused: own, promised: far }.into(),
        idle(end, None).into(),
        idle(Slot::ZERO, Some(far)).into(),
        promise(own, 1, end, Vec::new()).into(),
        promise(own, 1, Slot::ZERO, vec![entry]).into(),
        Commit { ballot: ballot(9, 2), committed: end }.into(),
        Fetched { first: end, values: Vec::new(), committed: end, trimmed: end }.into(),
    ];
    let count = bodies.len() as u64;
    for body in bodies {
        bed.receive(id(2), body);
        bed.sync();
    }
    assert_eq!(bed.replica.counters().dropped_absurd, count);
    assert_eq!(bed.role(), Role::Candidate);
    bed.receive(id(2), promise(own, 1, Slot::ZERO, Vec::new()));
    assert_eq!(bed.role(), Role::Leader);
}

/// A candidate whose disk hung campaigned all the same, again and again; its questions piled up
/// behind the gate and all left at once when the disk came back.
#[test]
fn a_replica_whose_disk_stalls_does_not_campaign() {
    let mut bed = Bed::new(1, 3);
    bed.campaign(&[2, 3]);
    // Nothing is synced from here on.
    for _ in 0..100 {
        bed.pass(HEARTBEAT);
        bed.hear(&[2, 3], |_, _| {});
    }
    let campaigns = bed.replica.counters().campaigns;
    assert!(campaigns <= 6, "{campaigns} campaigns in ten seconds without a disk");
    bed.take_sent();
    bed.sync();
    let prepares = bed.sent_of(|body| if let Body::Prepare(p) = body { Some(*p) } else { None });
    assert!(prepares.len() <= 1, "only the last question is of interest: {prepares:?}");
}

/// The record that makes a refused directory unusable was handed out together with the halt, and a
/// host that stopped at the halt never wrote it.
#[test]
fn a_refusal_is_durable_before_the_halt_is_told() {
    let mut bed = Bed::new(1, 3);
    let remembered = Incarnation::new(7, 0x5555_0000);
    bed.receive(id(2), Refused { refused: bed.replica.incarnation(), remembered });
    assert!(bed.halted.is_none(), "it is not remembered yet");
    bed.sync();
    assert!(bed.disk.contains(&Write::Refused { by: id(2), remembered }));
    assert!(matches!(bed.halted, Some(Halt::Refused { .. })));
}

/// A replica whose disk was slower than the others' queued votes without a bound, as its committed
/// prefix kept pace with the cluster.
#[test]
fn a_slow_disk_does_not_make_memory_grow() {
    let config = Config { window_bytes_max: 1 << 20, ..Config::default() };
    let mut bed = Bed::start(blank(1, &members(3, 8)), config);
    let long = "x".repeat(600_000);
    for at in 1..=3 {
        bed.receive(id(2), accept(ballot(1, 2), at, &[&long], at));
    }
    assert_eq!(bed.replica.counters().dropped_beyond_window, 1);
    assert_eq!(bed.committed(), slot(2));
    bed.sync();
    bed.receive(id(2), accept(ballot(1, 2), 3, &[&long], 3));
    bed.sync();
    assert_eq!(bed.committed(), slot(3));
}

/// One mark stood for everything that had left the tail: as long as the newest of it waited for the
/// disk, nothing older could be read back and applied.
#[test]
fn what_left_the_tail_is_applied_as_soon_as_it_is_durable() {
    let config = Config { tail_bytes_max: 1, ..Config::default() };
    let mut bed = Bed::start(blank(1, &members(3, 8)), config);
    for (at, text) in [(1, "a"), (2, "b"), (3, "c")] {
        bed.receive(id(2), accept(ballot(1, 2), at, &[text], at));
    }
    assert_eq!((bed.pending.len(), bed.committed()), (3, slot(3)));
    let first = bed.pending.remove(0);
    bed.replica.handle_durable(first.into_durable(), bed.now);
    bed.drain();
    let ranges: Vec<_> = bed.loads.iter().map(|(_, range)| (range.from, range.through)).collect();
    assert_eq!(ranges, [(slot(1), slot(1))]);
}

/// A promise of many pages took longer than an election timeout, so the campaign was given up, and
/// so was every one after it.
#[test]
fn a_campaign_lasts_as_long_as_pages_arrive() {
    let mut bed = Bed::new(1, 3);
    let own = bed.campaign(&[2, 3]);
    bed.sync();
    for page in 1..=10 {
        for _ in 0..4 {
            bed.pass(HEARTBEAT);
            bed.hear(&[2, 3], |_, _| {});
        }
        assert_eq!((bed.role(), bed.replica.status().promised), (Role::Candidate, Some(own)));
        let entry =
            PromiseEntry { slot: slot(page), state: SlotState::Accepted(ballot(0, 2), value("v")) };
        let through = if page == 10 { Slot::MAX } else { slot(page) };
        let (from, entries) = (slot(page), vec![entry]);
        bed.receive(id(2), Promise { ballot: own, committed: Slot::ZERO, from, through, entries });
    }
    assert_eq!(bed.role(), Role::Leader);
}

/// Many windows of votes were written in one batch with the committed prefix at its end. A torn write
/// left votes far above the recorded prefix, and an honest promise of them was taken for absurd.
#[test]
fn no_vote_is_written_far_above_the_recorded_prefix() {
    let mut bed = Bed::new(1, 3);
    for window in 0..6_u64 {
        let body = accept(ballot(1, 2), 8 * window + 1, &["v"; 8], 8 * window).into();
        let message = Message { origin: bed.origin_of(id(2)), body };
        bed.replica.handle_message(id(2), message, bed.now);
    }
    bed.drain();
    assert_eq!(bed.pending.len(), 1);
    let mut recorded = Slot::ZERO;
    for write in bed.pending[0].writes() {
        match write {
            Write::Committed(committed) => recorded = *committed,
            Write::Accepted { slot, .. } => assert!(slot.distance_from(recorded) <= 16, "{slot}"),
            Write::Promised(_)
            | Write::Chosen { .. }
            | Write::Trimmed(_)
            | Write::Refused { .. }
            | Write::Governs { .. }
            | Write::Peer { .. } => panic!("votes alone were asked for, not {write:?}"),
        }
    }
}

/// A replica that lagged by many pages asked the first peer in turn for each of them, though another
/// had given the one before. Where the way to the first was cut, each page cost a whole fetch
/// timeout, and a new leader served nothing for seconds. Seeds 1018160, 1035993 and 1043341 at depth
/// core, in which a healed core did not serve within four election timeouts.
#[test]
fn a_page_is_asked_of_whoever_gave_the_one_before() {
    let mut bed = Bed::new(1, 3);
    bed.pass(HEARTBEAT);
    bed.hear(&[2, 3], |_, heartbeat| heartbeat.committed = slot(2000));
    let asked =
        |bed: &mut Bed| {
            let sent = bed.take_sent().into_iter();
            sent.filter_map(|(to, body)| {
                if let Body::Fetch(fetch) = body { Some((to, fetch.from)) } else { None }
            })
            .collect::<Vec<_>>()
        };
    let of = |peer, from| (Recipients::One(id(peer)), slot(from));
    assert_eq!(asked(&mut bed), [of(2, 1)], "too much to be in flight: it is asked for at once");
    bed.pass(Config::default().fetch_timeout);
    assert_eq!(asked(&mut bed), [of(3, 1)], "the other one, as there was no answer");
    for page in 1..4 {
        let values = vec![value("a")];
        let (first, committed) = (slot(page), slot(2000));
        bed.receive(id(3), Fetched { first, values, committed, trimmed: Slot::ZERO });
        assert_eq!(asked(&mut bed), [of(3, page + 1)]);
        bed.sync();
    }
    bed.pass(Config::default().fetch_timeout);
    assert_eq!(asked(&mut bed), [of(2, 4)], "it answers no more");
}

/// A leader whose Accepts were lost for a while sent them again, one page to each voter with each
/// retransmission, however fast those were answered: where many pages were in flight, a healed core
/// needed seconds to get to what was new. Seed 10041727 at depth core, in which it did not serve
/// within four election timeouts.
#[test]
fn the_next_page_of_repetitions_follows_the_answer_to_the_one_before() {
    let membership = members(3, 8);
    let config = Config { page_bytes_max: 1, ..Config::default() };
    let interval = config.retransmit_interval;
    let mut bed = Bed::start(blank(1, &membership), config);
    let ballot = bed.lead(&[2]);
    for text in ["a", "b", "c"] {
        bed.propose(text);
    }
    bed.sync();
    let again = |bed: &mut Bed| {
        let sent = bed.take_sent().into_iter();
        sent.filter_map(|(to, body)| match (to, body) {
            (Recipients::One(peer), Body::Accept(accept)) => Some((peer, accept.first)),
            _ => None,
        })
        .collect::<Vec<_>>()
    };
    // They are in flight when an interval ends, and for the whole of the next.
    for _ in 0..2 {
        bed.hear(&[2, 3], |_, _| {});
        again(&mut bed);
        bed.pass(interval);
    }
    let first = bed.committed().next();
    assert_eq!(again(&mut bed), [(id(2), first), (id(3), first)], "a page to each");
    bed.receive(id(2), accepted(ballot, first.number(), first.number()));
    assert_eq!(again(&mut bed), [(id(2), first.next())], "the next to the one that answered");
    bed.receive(id(2), accepted(ballot, first.number(), first.number()));
    assert_eq!(again(&mut bed), [], "an answer that is repeated asks for nothing");
    bed.receive(id(2), accepted(ballot, first.number() + 1, first.number() + 1));
    assert_eq!(again(&mut bed), [(id(2), first.plus(2))]);
}

/// A replica outside a healed core, which spoke to the leader and could not hear it, came back with a
/// promise above the leader's ballot, left over from a campaign that its disk had ended. The leader
/// gave way to it, though its quorum did without that replica. Seed 10037810 at depth log, in which
/// the leader of a healed core did not stay.
#[test]
fn a_promise_of_a_voter_that_hears_nothing_unseats_nobody() {
    let mut bed = Bed::new(1, 3);
    let own = bed.lead(&[2]);
    let higher = Some(ballot(own.round() + 1, 3));
    let deaf = |peer: u16, heartbeat: &mut Heartbeat| {
        if peer == 3 {
            heartbeat.promised = higher;
            heartbeat.echoes.clear();
        }
    };
    for _ in 0..20 {
        bed.hear(&[2, 3], deaf);
        bed.pass(HEARTBEAT);
    }
    assert_eq!(bed.role(), Role::Leader);
    bed.hear(&[3], |_, heartbeat| heartbeat.promised = higher);
    assert_eq!(
        bed.role(),
        Role::Follower,
        "it hears the leader again, and will refuse its Accepts"
    );
}

/// Messages of a replica that was gone for good came out of a clogged link seconds late, among them a
/// Reject for the ballot of a leader that had long had its quorum without it; the leader gave way.
/// Seed 20626326 at depth core, in which the leader of a healed core did not stay.
#[test]
fn a_refusal_out_of_the_past_unseats_nobody() {
    let mut bed = Bed::new(1, 3);
    let own = bed.lead(&[2]);
    let refusal = Reject { refused: own, promised: ballot(own.round() + 1, 3) };
    for _ in 0..20 {
        bed.pass(HEARTBEAT);
        bed.hear(&[2], |_, _| {});
    }
    bed.receive(id(3), refusal);
    assert_eq!(bed.role(), Role::Leader, "nothing was exchanged with it for an election timeout");
    bed.hear(&[3], |_, _| {});
    bed.receive(id(3), refusal);
    assert_eq!(bed.role(), Role::Follower);
}
