//! Broken traces: the proposer, the learner, lives, and who sends what.

use super::*;

const LOW: Ballot = Ballot { round: 0, leader: R0 };
const LOST: &[Entry] = &[Entry { slot: 3, report: Report::Unknown { up_to: B1 } }];

#[test]
fn p1_every_page_counts() {
    let mut run = start(&[R0, R1, R2]);
    run.push(promised(R0, B1));
    run.extend(passed(R0, R1, prepare(B1)));
    run.push(promised(R1, B1));
    run.extend(passed(R1, R0, promise(B1, 0, 1, Some(7), &[])));
    run.extend(passed(R1, R0, promise(B1, 0, 8, None, &[])));
    run.push(Event::BecameLeader { at: R0, ballot: B1 });
    for page in [promise(B1, 0, 1, Some(7), &[]), promise(B1, 0, 8, None, &[])] {
        needs(&run, &delivered(R1, R0, page), Rule::P1, Invariant::S8);
    }
    let hole = promise(B1, 0, 9, None, &[]);
    let last = delivered(R1, R0, promise(B1, 0, 8, None, &[]));
    not_instead(&run, &last, delivered(R1, R0, hole), Rule::P1, Invariant::S8);
}

#[test]
fn p1_a_campaign_asks_for_every_slot_above_its_prefix() {
    let run = [start(&[R0, R1, R2]), vec![promised(R0, B1)]].concat();
    let asks = |from| left(R0, R1, Message::Prepare { ballot: B1, from });
    not_then(&run, &[asks(1)], &[asks(2)], Rule::P1, Invariant::S8);
}

#[test]
fn p1_who_does_not_reign_proposes_nothing() {
    let won = Event::BecameLeader { at: R0, ballot: B1 };
    needs(&first_slot(), &won, Rule::P1, Invariant::S8);
}

#[test]
fn p2_the_value_that_was_voted_for_is_adopted() {
    let run = second_reign();
    for other in [left(R2, R1, accept(B2, 0, 3, &[D])), left(R2, R1, accept(B2, 0, 3, &[NOOP]))] {
        let adopts = left(R2, R1, accept(B2, 0, 3, &[C]));
        not_instead(&run, &adopts, other, Rule::P2, Invariant::S8);
    }
}

#[test]
fn p2_the_highest_ballot_wins() {
    // r0 got its own vote for A in slot 1; r2 got its own for B; r1 hears both, and voted for neither.
    let mut run = start(&[R0, R1, R2]);
    run.extend(elected(B1, R1, 0, &[]));
    run.push(vote(R0, 1, B1, A));
    run.extend(elected(B2, R1, 0, &[]));
    run.push(vote(R2, 1, B2, B));
    run.extend([promised(R1, B3)]);
    run.extend(passed(R1, R0, prepare(B3)));
    run.extend(passed(R1, R2, prepare(B3)));
    run.extend([promised(R0, B3), promised(R2, B3)]);
    run.extend(passed(R0, R1, promise(B3, 0, 1, None, const { &[voted(1, B1, A)] })));
    run.extend(passed(R2, R1, promise(B3, 0, 1, None, const { &[voted(1, B2, B)] })));
    run.push(Event::BecameLeader { at: R1, ballot: B3 });
    let legal = left(R1, R0, accept(B3, 0, 1, &[B]));
    let illegal = left(R1, R0, accept(B3, 0, 1, &[A]));
    not_then(&run, &[legal], &[illegal], Rule::P2, Invariant::S8);
}

#[test]
fn p2_the_own_vote_counts_too() {
    // r0 voted for A in slot 1 before it lost its reign; it leads again with r2, which knows nothing.
    let mut run = start(&[R0, R1, R2]);
    run.extend(elected(B1, R1, 0, &[]));
    run.push(vote(R0, 1, B1, A));
    let again = Ballot { round: 5, leader: R0 };
    run.extend(elected(again, R2, 0, &[]));
    let legal = left(R0, R2, accept(again, 0, 1, &[A]));
    let illegal = left(R0, R2, accept(again, 0, 1, &[B]));
    not_then(&run, &[legal], &[illegal], Rule::P2, Invariant::S8);
}

#[test]
fn p2_a_page_of_an_incomplete_promise_may_be_heeded() {
    // r2 voted in slots 1 and 2 at ballot 1; its second page is late, r0 alone completes the quorum.
    let mut run = start(&[R0, R1, R2]);
    run.extend(elected(B1, R1, 0, &[]));
    for slot in [1, 2] {
        run.extend(voted_for(B1, R2, 0, slot, if slot == 1 { &[A] } else { &[B] }));
    }
    run.push(promised(R1, B3));
    run.extend(passed(R1, R2, prepare(B3)));
    run.extend(passed(R1, R0, prepare(B3)));
    run.extend([promised(R2, B3), promised(R0, B3)]);
    let page = promise(B3, 0, 1, Some(2), const { &[voted(1, B1, A), voted(2, B1, B)] });
    run.extend(passed(R2, R1, page));
    run.extend(passed(R0, R1, promise(B3, 0, 1, None, &[])));
    run.push(Event::BecameLeader { at: R1, ballot: B3 });
    let adopts = left(R1, R0, accept(B3, 0, 2, &[B]));
    let stamps = left(R1, R0, accept(B3, 0, 2, &[C]));
    not_then(&run, &[adopts], &[stamps], Rule::V1, Invariant::S14);
}

#[test]
fn p3_nothing_is_proposed_below_a_reported_prefix() {
    let run = second_reign();
    let first = left(R2, R1, accept(B2, 0, 2, &[NOOP]));
    let below = left(R2, R1, accept(B2, 0, 1, &[NOOP]));
    not_instead(&run, &first, below, Rule::P3, Invariant::S8);
}

#[test]
fn p4_new_commands_go_above_everything_named() {
    let run = second_reign();
    let fills = left(R2, R1, accept(B2, 0, 2, &[NOOP]));
    let squeezes = left(R2, R1, accept(B2, 0, 2, &[D]));
    not_instead(&run, &fills, squeezes, Rule::P4, Invariant::S8);
}

#[test]
fn p5_an_unknown_slot_is_not_covered() {
    let mut run = gap();
    run.extend(elected(B2, R1, 1, const { &[voted(3, B1, C)] }));
    run.push(left(R2, R1, accept(B2, 0, 3, &[C])));
    accepts(&run);
    let mut broken = gap();
    broken.extend(elected(B2, R1, 1, LOST));
    accepts(&broken);
    broken.push(left(R2, R1, accept(B2, 0, 3, &[NOOP])));
    rejects(&broken, Rule::P5, Invariant::S8);
}

#[test]
fn p6_one_value_for_each_ballot_and_slot() {
    let legal = left(R0, R2, accept(B1, 1, 1, &[A]));
    let illegal = left(R0, R2, accept(B1, 1, 1, &[B]));
    not_then(&first_slot(), &[legal], &[illegal], Rule::P6, Invariant::S4);
}

#[test]
fn p7_a_higher_promise_ends_a_reign() {
    let says = left(R0, R2, accept(B1, 1, 2, &[B]));
    not_then(&first_slot(), &[says], &[promised(R0, B2), says], Rule::P7, Invariant::S6);
}

#[test]
fn p8_a_reign_that_was_overruled_says_no_more() {
    // Slot 2 is chosen as a no-op at ballot 2; r0 proposed B there at ballot 1.
    let run = second_reign();
    let told = passed(R1, R0, Message::Fetched { first: 2, values: &[NOOP], committed: 4 });
    let says = left(R0, R1, commit(B1, 1));
    not_then(&run, &[says, told[0], told[1]], &[told[0], told[1], says], Rule::P8, Invariant::S13);
}

#[test]
fn l1_a_quorum_of_votes_was_told() {
    let told = delivered(R1, R0, accepted(B1, 1));
    needs(&first_slot(), &told, Rule::L1, Invariant::S13);
}

#[test]
fn l1_a_vote_of_another_ballot_is_not_counted() {
    let run = second_reign();
    let told = delivered(R1, R2, accepted(B2, 2));
    let other = delivered(R1, R2, accepted(B1, 2));
    not_instead(&run, &told, other, Rule::L1, Invariant::S13);
}

#[test]
fn l2_a_prefix_does_not_shrink() {
    not_then(&first_slot(), &[committed(R1, 1)], &[committed(R1, 0)], Rule::L2, Invariant::S13);
}

#[test]
fn l2_a_prefix_has_no_gap() {
    // Slot 3 is chosen at ballot 1, slot 2 is not.
    let mut run = gap();
    run.push(vote(R0, 3, B1, C));
    let both = [committed(R0, 3)];
    let fills = voted_for(B1, R1, 1, 2, &[B]);
    not_then(&run, &[fills.as_slice(), &both].concat(), &both, Rule::L1, Invariant::S13);
}

#[test]
fn l3_a_watermark_settles_votes_of_its_ballot_alone() {
    // r1 voted for C in slot 3 at ballot 1; ballot 2 marks 4, and its Accept for slot 3 was lost.
    let run = second_reign();
    accepts(&run);
    let mut broken = run;
    for step in [delivered(R2, R1, accept(B2, 0, 3, &[C])), vote(R1, 3, B2, C)] {
        let at = position(&broken, &step);
        broken.remove(at);
    }
    // r0 gives the missing vote, so that the slot is chosen all the same.
    let asked = position(&broken, &left(R2, R1, accept(B2, 0, 3, &[C]))) + 1;
    broken.insert(asked, delivered(R2, R0, accept(B2, 0, 3, &[C])));
    for old in [left(R1, R2, accepted(B2, 3)), delivered(R1, R2, accepted(B2, 3))] {
        let at = position(&broken, &old);
        let (Event::Left { message, .. } | Event::Delivered { message, .. }) = old else {
            panic!("both are messages")
        };
        if matches!(old, Event::Left { .. }) {
            broken[at] = left(R0, R2, message);
            broken.insert(at, vote(R0, 3, B2, C));
        } else {
            broken[at] = delivered(R0, R2, message);
        }
    }
    rejects(&broken, Rule::L3, Invariant::S13);
    // Where it fetches the value instead, all is well.
    let end = broken.pop().expect("r1 commits last");
    broken.extend(passed(R2, R1, Message::Fetched { first: 3, values: &[C], committed: 4 }));
    broken.push(end);
    accepts(&broken);
}

#[test]
fn l4_what_is_fetched_is_chosen() {
    let legal = left(R1, R2, Message::Fetched { first: 1, values: &[A], committed: 1 });
    let illegal = left(R1, R2, Message::Fetched { first: 1, values: &[B], committed: 1 });
    not_then(&first_slot(), &[legal], &[illegal], Rule::L4, Invariant::S1);
    let beyond = left(R1, R2, Message::Fetched { first: 1, values: &[A, B], committed: 1 });
    not_then(&first_slot(), &[legal], &[beyond], Rule::L4, Invariant::S1);
}

#[test]
fn l4_the_log_holds_what_it_records_as_committed() {
    let mut run = second_reign();
    let recorded = Event::ChosenDurable { at: R2, slot: 1, value: A };
    run.push(Event::PrefixDurable { at: R2, committed: 4 });
    run.remove(position(&run, &applied(R2, 1, A)));
    for (slot, value) in [(2, NOOP), (3, C), (4, D)] {
        run.remove(position(&run, &applied(R2, slot, value)));
    }
    needs(&run, &recorded, Rule::L4, Invariant::S10);
}

#[test]
fn l5_slots_are_applied_in_order_and_once() {
    let run = first_slot();
    needs(&second_reign(), &applied(R2, 2, NOOP), Rule::L5, Invariant::S12);
    not_then(&run, &[], &[applied(R1, 1, A)], Rule::L5, Invariant::S12);
    not_instead(&run, &applied(R1, 1, A), applied(R1, 1, B), Rule::L5, Invariant::S12);
}

#[test]
fn hashes_agree_at_equal_slots() {
    let run = first_slot();
    let other = Event::Applied { at: R1, slot: 1, value: A, state: Some(77) };
    not_instead(&run, &applied(R1, 1, A), other, Rule::Hashes, Invariant::S12);
}

#[test]
fn a_trim_stops_at_what_was_applied() {
    let trimmed = |through| Event::Trimmed { at: R1, through };
    let mut run = first_slot();
    run.push(Event::SnapshotDurable { at: R1, slot: 1 });
    not_then(&run, &[trimmed(1)], &[trimmed(2)], Rule::L5, Invariant::S17);
}

#[test]
fn n1_a_trim_stops_at_what_a_snapshot_includes() {
    let run = [first_slot(), vec![Event::SnapshotDurable { at: R1, slot: 1 }]].concat();
    let trimmed = Event::Trimmed { at: R1, through: 1 };
    let run = [run, vec![trimmed]].concat();
    needs(&run, &Event::SnapshotDurable { at: R1, slot: 1 }, Rule::N1, Invariant::S17);
}

#[test]
fn n2_a_snapshot_holds_what_is_chosen() {
    let kept = |slot| Event::SnapshotDurable { at: R1, slot };
    not_then(&first_slot(), &[kept(1)], &[kept(2)], Rule::N2, Invariant::S17);
}

/// Who installs a snapshot has committed, applied and recorded its slots without a vote or a value of
/// its own; it must be durable, and include something new.
#[test]
fn n4_a_snapshot_is_installed_once_it_is_durable_and_only_forward() {
    let mut run = first_slot();
    let kept = Event::SnapshotDurable { at: R2, slot: 1 };
    let installed = Event::Installed { at: R2, slot: 1 };
    let recorded = Event::PrefixDurable { at: R2, committed: 1 };
    run.extend([kept, installed, recorded, Event::Trimmed { at: R2, through: 1 }]);
    needs(&run, &kept, Rule::N4, Invariant::S17);
    needs(&run, &installed, Rule::L2, Invariant::S13);
    not_then(&run, &[], &[installed], Rule::N4, Invariant::S17);
}

#[test]
fn a_vote_survives_a_restart() {
    let mut run = gap();
    run.push(Event::Stopped { at: R1 });
    let lives: &[(Acceptor, Life)] = const { &[(R0, life(R0, 1)), (R2, life(R2, 1))] };
    let started = |entries| {
        let recovered = Recovered { promised: Some(B1), entries, lives, ..NOTHING };
        Event::Started { at: R1, life: life(R1, 2), recovered }
    };
    let whole: &[Entry] = const { &[voted(1, B1, A), voted(3, B1, C)] };
    let part: &[Entry] = const { &[voted(1, B1, A)] };
    not_then(&run, &[started(whole)], &[started(part)], Rule::D2, Invariant::S7);
    // What is damaged may be admitted, but not understated.
    let lost: &[Entry] =
        const { &[voted(1, B1, A), Entry { slot: 3, report: Report::Unknown { up_to: B1 } }] };
    let less: &[Entry] =
        const { &[voted(1, B1, A), Entry { slot: 3, report: Report::Unknown { up_to: LOW } }] };
    not_then(&run, &[started(lost)], &[started(less)], Rule::D2, Invariant::S7);
    // A vote that nobody was asked for is not a vote that survived.
    let forged: &[Entry] = const { &[voted(1, B1, A), voted(2, B1, B), voted(3, B1, C)] };
    not_then(&run, &[started(whole)], &[started(forged)], Rule::A2, Invariant::S8);
}

#[test]
fn lives_succeed_each_other() {
    let mut run = start(&[R0, R1, R2]);
    run.push(Event::Stopped { at: R1 });
    let lives: &[(Acceptor, Life)] = const { &[(R0, life(R0, 1)), (R2, life(R2, 1))] };
    let recovered = Recovered { lives, ..NOTHING };
    let started = |boot| Event::Started { at: R1, life: life(R1, boot), recovered };
    not_then(&run, &[started(2)], &[started(1)], Rule::Lives, Invariant::S19);
    let forgetful = Event::Started { at: R1, life: life(R1, 2), recovered: NOTHING };
    not_then(&run, &[started(2)], &[forgetful], Rule::D5, Invariant::S19);
}

#[test]
fn a_message_tells_the_life_of_its_sender() {
    let says = |boot| Event::Left {
        from: R0,
        life: life(R0, boot),
        to: Some(R1),
        message: Message::Heartbeat { committed: 0, leader: None },
    };
    not_then(&start(&[R0, R1, R2]), &[says(1)], &[says(2)], Rule::Lives, Invariant::S19);
}

#[test]
fn a_wiped_directory_does_not_vote() {
    let mut run = start(&[R0, R1, R2]);
    let wiped = Life { directory: 999, boot: 1, start: 0 };
    run.extend(elected(B1, R1, 0, &[]));
    accepts(&run);
    let page = promise(B1, 0, 1, None, &[]);
    let asked = position(&run, &promised(R0, B1));
    run.insert(asked, Event::Stopped { at: R1 });
    run.insert(asked + 1, Event::Started { at: R1, life: wiped, recovered: NOTHING });
    for step in &mut run {
        if let Event::Left { from: R1, life, .. } | Event::Delivered { from: R1, life, .. } = step {
            *life = wiped;
        }
    }
    assert!(run.contains(&Event::Delivered { from: R1, life: wiped, to: R0, message: page }));
    rejects(&run, Rule::P1, Invariant::S8);
}

#[test]
fn who_is_remembered_is_not_refused() {
    let refused = |boot| {
        let message = Message::Refused { refused: life(R0, boot), remembered: life(R0, 3) };
        left(R1, R0, message)
    };
    let run = start(&[R0, R1, R2]);
    not_then(&run, &[refused(2)], &[refused(3)], Rule::Lives, Invariant::S19);
    not_then(&run, &[refused(2)], &[refused(4)], Rule::Lives, Invariant::S19);
}

#[test]
fn a_ballot_is_spoken_for_by_its_leader() {
    let run = first_slot();
    let foreign = left(R1, R2, commit(B1, 1));
    let own = left(R0, R2, commit(B1, 1));
    not_then(&run, &[own], &[foreign], Rule::Messages, Invariant::S19);
    let prepares = [promised(R0, B3), left(R0, R2, prepare(B3))];
    let legal = [promised(R1, B3), left(R1, R2, prepare(B3))];
    not_then(&run, &legal, &prepares, Rule::Messages, Invariant::S19);
}
