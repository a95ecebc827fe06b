//! Guards of the protocol that a mutant showed to be tested by random runs alone, or by nothing.
//! Each test breaks with the mutant that its comment names.

use paxos_core::config::Config;
use paxos_core::durable::Write;
use paxos_core::ids::Slot;
use paxos_core::message::{Prepare, PromiseEntry, SlotState};

use crate::bed::{Bed, accept, ballot, id, members, remembered, slot, value};

fn voted(at: u64, round: u64, leader: u16, text: &str) -> PromiseEntry {
    PromiseEntry { slot: slot(at), state: SlotState::Accepted(ballot(round, leader), value(text)) }
}

/// Mutant `promise-page-claims-the-rest`: a page that was full would claim that nothing follows.
#[test]
fn a_page_of_a_promise_covers_only_what_it_speaks_of() {
    let config = Config { page_bytes_max: 100, ..Config::default() };
    let mut bed = Bed::start(crate::bed::blank(1, &members(3, 8)), config);
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
