//! Quorum reads: rules R10 to R12 of docs/protocol.md §12, one by one, each quoted word for word.

use std::sync::Arc;
use std::time::Duration;

use paxos_core::config::Config;
use paxos_core::durable::Write;
use paxos_core::ids::{Epoch, Incarnation, Slot, Time};
use paxos_core::membership::{Change, Member, Membership};
use paxos_core::message::{Accept, Body, Commit, Fetch, Fetched, Message, Survey, Surveyed};
use paxos_core::output::{QuorumReadLoss, ReadError, ReadTicket, Recipients, Role};
use paxos_core::quorum::QuorumRule;
use paxos_core::replica::Replica;
use paxos_core::value::Value;

use crate::bed::{Bed, ballot, blank, id, members, remembered, slot, value, voters_under};

/// The rounds of Survey that left since the last look, and to whom.
fn rounds(bed: &mut Bed) -> Vec<(u16, u64)> {
    let sent = bed.take_sent().into_iter();
    sent.filter_map(|(to, body)| match (to, body) {
        (Recipients::One(peer), Body::Survey(Survey { round })) => Some((peer.number(), round)),
        _ => None,
    })
    .collect()
}

/// A read of a bed's own client.
fn read(bed: &mut Bed) -> ReadTicket {
    let ticket = bed.replica.read_quorum(bed.now).unwrap();
    bed.drain();
    ticket
}

/// An answer to this bed's present life.
fn surveyed(bed: &Bed, round: u64, committed: u64, highest: u64) -> Surveyed {
    let asker = bed.replica.incarnation();
    Surveyed { asker, round, committed: slot(committed), highest: slot(highest) }
}

fn answer(bed: &mut Bed, from: u16, round: u64, committed: u64, highest: u64) {
    let answer = surveyed(bed, round, committed, highest);
    bed.receive(id(from), answer);
}

/// What this bed answers a Survey of replica 2.
fn named(bed: &mut Bed) -> (Slot, Slot) {
    bed.take_sent();
    bed.receive(id(2), Survey { round: 5 });
    let to = Recipients::One(id(2));
    let answers = bed.take_sent().into_iter().filter(|(at, _)| *at == to);
    let mut answers =
        answers.filter_map(
            |(_, body)| {
                if let Body::Surveyed(surveyed) = body { Some(surveyed) } else { None }
            },
        );
    let Surveyed { asker, round, committed, highest } = answers.next().unwrap();
    assert_eq!((asker, round), (Incarnation::new(1, 0), 5));
    (committed, highest)
}

fn accept(round: u64, committed: u64, first: u64, texts: &[&str]) -> Accept {
    let values = texts.iter().map(|text| value(text)).collect();
    Accept { ballot: ballot(round, 2), committed: slot(committed), first: slot(first), values }
}

/// The values of slots from the first on, from a replica that has them.
fn catch_up(bed: &mut Bed, from: u16, texts: &[&str]) {
    let values = texts.iter().map(|text| value(text)).collect();
    let committed = slot(texts.len() as u64);
    bed.receive(id(from), Fetched { first: slot(1), values, committed, trimmed: slot(0) });
    bed.sync();
}

/// **R10** A quorum read's point is the highest slot that a prepare quorum named, each voter in answer to
/// the same round of Survey, of the membership that governs the slot after the point; or the asker's committed prefix
/// when the round began, if that is higher. A round serves the reads that were asked before it began, and no other.
#[test]
fn r10_the_point_is_the_highest_slot_that_a_prepare_quorum_names() {
    let mut bed = Bed::new(1, 5);
    let first = bed.replica.read_quorum(bed.now).unwrap();
    let second = read(&mut bed);
    assert_eq!(rounds(&mut bed), [(2, 1), (3, 1), (4, 1), (5, 1)], "one round for both");
    let late = read(&mut bed);
    assert_eq!(rounds(&mut bed), []);
    answer(&mut bed, 2, 1, 0, 2);
    answer(&mut bed, 2, 1, 0, 2);
    catch_up(&mut bed, 5, &["a", "b"]);
    assert_eq!(bed.quorum_reads_ready, [], "one voter twice, and itself, are two of five");
    answer(&mut bed, 4, 1, 0, 1);
    assert_eq!(bed.quorum_reads_ready, [(second, slot(2))]);
    assert!(first < second && second < late);
    assert_eq!(bed.role(), Role::Follower, "and nobody leads");
    assert_eq!(
        rounds(&mut bed),
        [(2, 2), (3, 2), (4, 2), (5, 2)],
        "the next round for the late one"
    );
    assert_eq!(bed.replica.status().quorum_reads_waiting, 1);
    answer(&mut bed, 3, 1, 0, 1);
    answer(&mut bed, 5, 2, 0, 1);
    assert_eq!(bed.quorum_reads_ready.len(), 1, "an answer to the round before is none to this");
    answer(&mut bed, 3, 2, 0, 1);
    assert_eq!(bed.quorum_reads_ready.last(), Some(&(late, slot(2))), "its own is counted too");
    assert_eq!(bed.replica.status().quorum_reads_waiting, 0);
    let counters = bed.replica.counters();
    assert_eq!((counters.surveys, counters.quorum_reads_asked), (2, 3));
}

/// R10: a point is named where it is committed, and not before.
#[test]
fn r10_a_slot_that_is_not_settled_holds_its_reads_up() {
    let mut bed = Bed::new(1, 3);
    let ticket = read(&mut bed);
    answer(&mut bed, 2, 1, 1, 2);
    assert_eq!(bed.quorum_reads_ready, [], "it was accepted there, and may be chosen");
    bed.take_sent();
    bed.pass(Config::default().heartbeat_interval);
    let fetches = |(to, body): &(Recipients, Body)| {
        *to == Recipients::One(id(2)) && matches!(body, Body::Fetch(Fetch { .. }))
    };
    assert!(bed.take_sent().iter().any(fetches), "what the answer said is committed is fetched");
    catch_up(&mut bed, 2, &["a"]);
    assert_eq!(bed.quorum_reads_ready, []);
    catch_up(&mut bed, 2, &["a", "b"]);
    assert_eq!(bed.quorum_reads_ready, [(ticket, slot(2))]);
    assert_eq!(bed.replica.status().applied, slot(2));
}

/// R10: those that answer must meet every accept quorum: that is what a prepare quorum does,
/// whatever the sizes.
#[test]
fn r10_a_round_stands_with_a_prepare_quorum_whatever_its_size() {
    for (prepare, accept) in [(2, 4), (4, 2)] {
        let membership = voters_under(5, QuorumRule::Counts { prepare, accept });
        let mut bed = Bed::start(blank(1, &membership), Config::default());
        let ticket = read(&mut bed);
        for peer in 2..=prepare {
            assert_eq!(bed.quorum_reads_ready, [], "{peer} of {prepare}");
            answer(&mut bed, peer, 1, 0, 0);
        }
        assert_eq!(bed.quorum_reads_ready, [(ticket, slot(0))]);
    }
    // In a grid of two rows a row answers, and a column does not.
    let membership = voters_under(6, QuorumRule::grid(2, 3).unwrap());
    let mut bed = Bed::start(blank(1, &membership), Config::default());
    let ticket = read(&mut bed);
    for peer in [4, 2, 5] {
        answer(&mut bed, peer, 1, 0, 0);
        assert_eq!(bed.quorum_reads_ready, [], "no row yet: {peer}");
    }
    answer(&mut bed, 3, 1, 0, 0);
    assert_eq!(bed.quorum_reads_ready, [(ticket, slot(0))], "1, 2 and 3 are a row");
    // One voter is a quorum by itself.
    let mut bed = Bed::new(1, 1);
    let ticket = read(&mut bed);
    assert_eq!(bed.quorum_reads_ready, [(ticket, slot(0))]);
}

/// **R11** A voter names no slot below its committed prefix, none below a slot that it has accepted in,
/// durably or not, and none below one that it knows to be chosen.
#[test]
fn r11_a_voter_names_the_highest_slot_that_it_knows_of() {
    let mut bed = Bed::new(1, 3);
    assert_eq!(named(&mut bed), (slot(0), slot(0)));
    bed.receive(id(2), accept(1, 0, 1, &["a", "b", "c"]));
    assert_eq!(named(&mut bed), (slot(0), slot(3)), "what is not durable may be counted soon");
    bed.sync();
    assert_eq!(named(&mut bed), (slot(0), slot(3)));
    bed.receive(id(2), Commit { ballot: ballot(1, 2), committed: slot(3) });
    assert_eq!(named(&mut bed), (slot(3), slot(3)), "the votes are forgotten, and covered");
    // A vote far ahead, of a reign whose Accepts before it were lost.
    bed.receive(id(2), accept(1, 3, 7, &["g"]));
    assert_eq!(named(&mut bed), (slot(3), slot(7)));
}

/// R11: after a restart too, where the committed prefix was recorded late or a value was recorded as
/// chosen without a vote.
#[test]
fn r11_what_was_named_is_named_after_a_restart() {
    let membership = members(3, 8);
    let vote = |number, text| Write::Accepted {
        slot: slot(number),
        ballot: ballot(1, 2),
        value: value(text),
    };
    let writes = [
        vote(1, "a"),
        vote(2, "b"),
        vote(3, "c"),
        Write::Committed(slot(1)),
        Write::Chosen { slot: slot(5), value: value("e") },
    ];
    let mut bed = Bed::start(remembered(1, &membership, &writes[..4]), Config::default());
    assert_eq!(named(&mut bed), (slot(1), slot(3)));
    let mut bed = Bed::start(remembered(1, &membership, &writes), Config::default());
    assert_eq!(named(&mut bed), (slot(1), slot(5)));
}

/// R11: an observer has no vote that a quorum could rest on, and names nothing.
#[test]
fn r11_an_observer_asks_and_does_not_answer() {
    let mut bed = observer(4);
    bed.receive(id(2), Survey { round: 5 });
    assert_eq!(rounds(&mut bed), []);
    assert_eq!(bed.replica.counters().dropped_absurd, 1);
    let ticket = read(&mut bed);
    assert_eq!(rounds(&mut bed), [(1, 1), (2, 1), (3, 1)]);
    answer(&mut bed, 2, 1, 0, 0);
    assert_eq!(bed.quorum_reads_ready, []);
    answer(&mut bed, 3, 1, 0, 0);
    assert_eq!(bed.quorum_reads_ready, [(ticket, slot(0))]);
}

/// One of three voters and an observer, the fourth.
fn observer(own: u16) -> Bed {
    let voters = (1..=3).map(|number| Member::new(id(number))).collect();
    let observers = vec![Member::new(id(4))];
    let membership =
        Membership::new(Epoch::FIRST, voters, observers, QuorumRule::Majority, 8).unwrap();
    Bed::start(blank(own, &membership), Config::default())
}

/// **R12** An answer counts only for the round and the life of the asker that it names. Rounds are numbered
/// within a life, each number used for one round. A read without its point is given up, and never answered.
#[test]
fn r12_an_answer_to_an_earlier_life_counts_for_nothing() {
    let membership = members(3, 8);
    let mut bed = Bed::start(remembered(1, &membership, &[]), Config::default());
    let ticket = read(&mut bed);
    assert_eq!(rounds(&mut bed), [(2, 1), (3, 1)], "as in the life before");
    let asker = Incarnation::new(1, 0);
    assert_ne!(asker, bed.replica.incarnation());
    let (committed, highest) = (slot(0), slot(0));
    bed.receive(id(2), Surveyed { asker, round: 1, committed, highest });
    assert_eq!(bed.quorum_reads_ready, [], "that was named before the read was asked");
    answer(&mut bed, 2, 2, 0, 0);
    assert_eq!(bed.quorum_reads_ready, [], "that round has not begun");
    answer(&mut bed, 2, 1, 0, 0);
    assert_eq!(bed.quorum_reads_ready, [(ticket, slot(0))]);
}

/// R12: nor does that of no voter; a voter that knows another membership answers by its own votes.
#[test]
fn r12_only_voters_answer() {
    let mut bed = observer(1);
    let ticket = read(&mut bed);
    let answer = surveyed(&bed, 1, 0, 0);
    bed.receive(id(4), answer);
    assert_eq!(bed.quorum_reads_ready, []);
    // Voters are asked again.
    rounds(&mut bed);
    bed.pass(Config::default().retransmit_interval);
    assert_eq!(rounds(&mut bed), [(2, 1), (3, 1)]);
    let mut origin = bed.origin_of(id(2));
    origin.epoch = Epoch::new(9);
    bed.replica.handle_message(id(2), Message { origin, body: answer.into() }, bed.now);
    bed.drain();
    assert_eq!(bed.quorum_reads_ready, [(ticket, slot(0))]);
}

/// R12: a round that too few answer ends, and says so; the next has another number.
#[test]
fn r12_a_replica_that_reaches_no_quorum_says_so_in_time() {
    let config = Config::default();
    let mut bed = Bed::new(1, 3);
    let asked_at = bed.now;
    let ticket = read(&mut bed);
    bed.pass(config.retransmit_interval);
    let late = read(&mut bed);
    let mut asked = Vec::new();
    while bed.quorum_reads_lost.is_empty() {
        bed.pass(Duration::from_millis(10));
        asked.extend(rounds(&mut bed));
    }
    assert_eq!(bed.now, asked_at.after(config.quorum_read_timeout));
    assert_eq!(bed.quorum_reads_lost, [(ticket, QuorumReadLoss::Unreached)]);
    assert!(asked.contains(&(2, 1)) && asked.contains(&(3, 1)), "asked again: {asked:?}");
    answer(&mut bed, 2, 1, 0, 0);
    assert_eq!(bed.quorum_reads_ready, [], "nobody waits for that");
    assert!(asked.contains(&(2, 2)), "the late one has its own round: {asked:?}");
    while bed.quorum_reads_lost.len() < 2 {
        bed.pass(Duration::from_millis(10));
    }
    assert_eq!(bed.quorum_reads_lost[1], (late, QuorumReadLoss::Unreached));
    assert!(bed.now <= asked_at.after(config.retransmit_interval + 2 * config.quorum_read_timeout));
    let status = bed.replica.status();
    assert_eq!((status.quorum_reads_waiting, bed.replica.counters().quorum_reads_lost), (0, 2));
}

/// R12: and so does a slot that nobody settles. A later round may find that it was forgotten.
#[test]
fn r12_a_slot_that_nobody_settles_fails_its_reads_in_time() {
    let config = Config::default();
    let mut bed = Bed::new(1, 3);
    let asked_at = bed.now;
    let ticket = read(&mut bed);
    answer(&mut bed, 2, 1, 0, 4);
    rounds(&mut bed);
    bed.pass(config.retransmit_interval);
    assert_eq!(rounds(&mut bed), [(2, 2), (3, 2)], "they may have forgotten it");
    answer(&mut bed, 3, 2, 0, 4);
    while bed.quorum_reads_lost.is_empty() {
        bed.pass(Duration::from_millis(10));
    }
    assert_eq!(bed.now, asked_at.after(config.quorum_read_timeout));
    let unsettled = QuorumReadLoss::Unsettled { point: slot(4) };
    assert_eq!(bed.quorum_reads_lost, [(ticket, unsettled)]);

    // The vote was not durable, and its voter lost power; another read is asked meanwhile.
    let mut bed = Bed::new(1, 3);
    read(&mut bed);
    answer(&mut bed, 2, 1, 0, 4);
    let second = read(&mut bed);
    assert_eq!(bed.quorum_reads_ready, []);
    bed.pass(config.retransmit_interval);
    answer(&mut bed, 2, 2, 0, 0);
    assert_eq!(bed.quorum_reads_ready, [(second, slot(0))], "both have the lower point");
}

/// What an observer of the core may rely on: a halted replica takes no read, and a leader's reads and
/// these do not mix.
#[test]
fn tickets_of_the_two_kinds_are_counted_apart() {
    let mut bed = Bed::new(1, 3);
    bed.lead(&[2]);
    let led = bed.replica.read(bed.now).unwrap();
    let quorum = read(&mut bed);
    assert_eq!((led, quorum), (ReadTicket::new(1), ReadTicket::new(1)));
    answer(&mut bed, 2, 1, 0, 0);
    assert_eq!((bed.quorum_reads_ready.len(), bed.reads_ready.len()), (1, 0));
    let status = bed.replica.status();
    assert_eq!((status.reads_waiting, status.quorum_reads_waiting), (1, 0));

    let membership = members(3, 8);
    let config = Config { quorum_read_timeout: Duration::ZERO, ..Config::default() };
    let refused = Replica::recover(config, blank(1, &membership), slot(0), 1, Time::ZERO);
    let error = refused.unwrap_err().to_string();
    assert!(error.contains("quorum_read_timeout must be above zero"), "{error}");

    let mut bed = Bed::new(1, 3);
    let (refused, remembered) = (bed.replica.incarnation(), Incarnation::new(9, 9));
    bed.receive(id(2), paxos_core::message::Refused { refused, remembered });
    assert_eq!(bed.replica.read_quorum(bed.now), Err(ReadError::Halted));
}

/// Voters 1 to 3 make way for 2, 5 and 6, all at once, in slot 2; replicas 4 and 7 observe.
fn handover() -> (Membership, Membership) {
    let members =
        |ids: &[u16]| ids.iter().map(|number| Member::new(id(*number))).collect::<Vec<_>>();
    let rule = QuorumRule::Majority;
    let first = Membership::new(Epoch::FIRST, members(&[1, 2, 3]), members(&[5, 6, 7]), rule, 8);
    let (voters, observers) = (members(&[2, 5, 6]), members(&[4, 7]));
    let change = Change::Set { voters, observers, rule: QuorumRule::Majority };
    let first = first.unwrap();
    let second = first.changed(change).unwrap();
    (first, second)
}

/// The log that the change stands in, up to the last slot that the first membership governs.
fn log_of_handover(second: &Membership) -> Vec<Value> {
    let change = Value::Membership(Arc::new(second.clone()));
    [vec![value("a"), change], vec![Value::Noop; 7]].concat()
}

/// A replica that was formatted with the second membership would ask 2, 5 and 6, who may know nothing of
/// slot 2 while 1 and 3 have told a client of a write in it.
#[test]
fn r10_a_joiner_names_no_point_before_it_knows_who_governs() {
    let (_, second) = handover();
    let mut bed = Bed::start(blank(4, &second), Config::default());
    let log = log_of_handover(&second);
    let fetched = |first: usize, last: usize| Fetched {
        first: slot(first as u64),
        values: log[first - 1..last].to_vec(),
        committed: slot(last as u64),
        trimmed: slot(0),
    };
    bed.receive(id(2), fetched(1, 1));
    let ticket = read(&mut bed);
    let asked = rounds(&mut bed);
    assert_eq!(asked, [(2, 1), (5, 1), (6, 1)]);
    for voter in [5, 6] {
        answer(&mut bed, voter, 1, 1, 1);
    }
    assert_eq!(bed.quorum_reads_ready, [], "1 and 3 may have chosen slot 2");
    // Once it knows, it asks again.
    bed.receive(id(2), fetched(2, 9));
    bed.sync();
    assert_eq!(bed.committed(), slot(9));
    assert_eq!(rounds(&mut bed), [(2, 2), (5, 2), (6, 2)]);
    for voter in [5, 6] {
        answer(&mut bed, voter, 2, 9, 9);
    }
    assert_eq!(bed.quorum_reads_ready, [(ticket, slot(9))]);
}

/// Those who govern the slot after the asker's prefix may lag: they name slots that others governed. That
/// they know of none above the prefix is what counts.
#[test]
fn r10_those_who_lag_name_no_slot_below_the_askers_prefix() {
    let (first, second) = handover();
    let mut bed = Bed::start(blank(7, &first), Config::default());
    let (values, trimmed) = (log_of_handover(&second), slot(0));
    bed.receive(id(2), Fetched { first: slot(1), values, committed: slot(9), trimmed });
    bed.sync();
    let ticket = read(&mut bed);
    assert_eq!(rounds(&mut bed), [(2, 1), (5, 1), (6, 1)]);
    for voter in [5, 6] {
        answer(&mut bed, voter, 1, 3, 3);
    }
    assert_eq!(bed.quorum_reads_ready, [(ticket, slot(9))]);
    assert_eq!(rounds(&mut bed), [], "nothing is left to ask");
}

/// Whoever has to be asked again, because others govern, is not given more time by that.
#[test]
fn r12_a_round_that_is_asked_again_keeps_its_time() {
    let (first, second) = handover();
    let mut bed = Bed::start(blank(7, &first), Config::default());
    let ticket = read(&mut bed);
    assert_eq!(rounds(&mut bed), [(1, 1), (2, 1), (3, 1)]);
    let patience = Config::default().quorum_read_timeout;
    bed.pass(patience / 2);
    for voter in [2, 3] {
        answer(&mut bed, voter, 1, 9, 9);
    }
    let (values, trimmed) = (log_of_handover(&second), slot(0));
    bed.receive(id(2), Fetched { first: slot(1), values, committed: slot(9), trimmed });
    bed.sync();
    assert!(rounds(&mut bed).contains(&(5, 2)), "those who govern slot 10 are asked");
    bed.pass(patience / 2);
    assert_eq!(bed.quorum_reads_lost, [(ticket, QuorumReadLoss::Unreached)]);
}
