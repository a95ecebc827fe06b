//! Broken traces: values and quorums, what is durable, and the acceptor.

use super::*;

#[test]
fn accepts_a_change_of_leader() {
    let monitor = accepts(&second_reign());
    assert_eq!(monitor.chosen_prefix(), 4);
    assert_eq!([1, 2, 3, 4].map(|s| monitor.chosen(s)), [A, NOOP, C, D].map(Some));
    let run = second_reign();
    assert_eq!(monitor.events(), run.len() as u64);
}

#[test]
fn tells_what_justifies_an_accept() {
    let run = second_reign();
    let monitor = accepts(&run);
    let page = delivered(R1, R2, promise(B2, 1, 1, None, const { &[voted(3, B1, C)] }));
    let event = Some(position(&run, &page) as u64 + 1);
    let adopted = monitor.justification(B2, 3).expect("it was proposed");
    assert_eq!((adopted.value, adopted.decisive), (C, Some(R1)));
    let told: Vec<_> = adopted.witnesses.iter().map(|w| (w.acceptor, w.event)).collect();
    assert_eq!(told, [(R1, event), (R2, None)]);
    assert_eq!(adopted.witnesses[0].report, Some(Report::Accepted { ballot: B1, value: C }));
    let free = monitor.justification(B2, 4).expect("it was proposed");
    assert_eq!((free.value, free.decisive), (D, None));
    assert!(monitor.justification(B2, 5).is_none());
}

#[test]
fn v1_a_clock_does_not_go_back() {
    let mut run = second_reign();
    run.push(submitted(batch(14, 0)));
    let legal = left(R2, R1, accept(B2, 4, 5, const { &[batch(14, 4)] }));
    let illegal = left(R2, R1, accept(B2, 4, 5, const { &[batch(14, 3)] }));
    not_then(&run, &[legal], &[illegal], Rule::V1, Invariant::S14);
}

#[test]
fn v1_a_clock_is_stamped_by_who_knows_what_is_before() {
    let run = second_reign();
    let slot_one = delivered(R1, R2, Message::Fetched { first: 1, values: &[A], committed: 1 });
    let from = position(&run, &slot_one);
    // Slot 1 was reported as committed and never fetched.
    let mut broken = run[..from].to_vec();
    broken.push(left(R2, R1, accept(B2, 0, 4, &[D])));
    accepts(&run);
    rejects(&broken, Rule::V1, Invariant::S14);
}

#[test]
fn v2_a_value_stays_in_its_slot() {
    let run = second_reign();
    let legal = left(R2, R1, accept(B2, 4, 5, &[B]));
    accepts(&run);
    // B stood in slot 2 at ballot 1, and lost.
    let mut broken = run;
    broken.push(legal);
    rejects(&broken, Rule::V2, Invariant::S14);
    let at = position(&broken, &legal);
    broken.insert(at, submitted(B));
    // Submitted again, it is another command.
    broken[at + 1] = Event::Left {
        from: R2,
        life: life(R2, 1),
        to: Some(R1),
        message: accept(B2, 4, 5, const { &[batch(B.digest, 9)] }),
    };
    accepts(&broken);
}

#[test]
fn validity_a_batch_was_submitted() {
    needs(&first_slot(), &submitted(A), Rule::Validity, Invariant::S2);
}

#[test]
fn q1_quorums_that_need_not_intersect_cannot_be_built() {
    assert!(Quorums::weighted(vec![1; 4], 2, 2).is_none());
    assert!(Quorums::weighted(vec![1; 4], 3, 2).is_some());
    assert!(Quorums::weighted(vec![1; 3], 4, 1).is_none());
    assert!(Quorums::weighted(vec![u64::MAX, 1], 1, 1).is_none());
}

/// Five replicas; r0 has the promises of r1 and r3.
fn five() -> Run {
    let mut run = start(&[R0, R1, R2, R3, R4]);
    run.push(promised(R0, B1));
    for other in [R1, R3] {
        run.extend(passed(R0, other, prepare(B1)));
        run.push(promised(other, B1));
        run.extend(passed(other, R0, promise(B1, 0, 1, None, &[])));
    }
    run.push(Event::BecameLeader { at: R0, ballot: B1 });
    run
}

#[test]
fn q2_a_repeated_promise_adds_nothing() {
    let run = five();
    assert!(observe(&run, 5, 4).is_ok());
    let mut broken = run.clone();
    let page = promise(B1, 0, 1, None, &[]);
    broken[position(&run, &delivered(R3, R0, page))] = delivered(R1, R0, page);
    let (_, verdict) = observe(&broken, 5, 4).expect_err("two are no quorum of five");
    assert_eq!((verdict.rule, verdict.invariant), (Rule::Q2, Invariant::S8), "{verdict}");
}

#[test]
fn q2_a_repeated_vote_adds_nothing() {
    let mut run = five();
    run.push(vote(R0, 1, B1, A));
    for other in [R1, R3] {
        run.extend(voted_for(B1, other, 0, 1, &[A]));
    }
    run.push(committed(R0, 1));
    assert!(observe(&run, 5, 4).is_ok());
    let mut broken = run.clone();
    let told = accepted(B1, 1);
    broken[position(&run, &delivered(R3, R0, told))] = delivered(R1, R0, told);
    let (_, verdict) = observe(&broken, 5, 4).expect_err("two are no quorum of five");
    assert_eq!((verdict.rule, verdict.invariant), (Rule::L1, Invariant::S13), "{verdict}");
}

#[test]
fn q3_no_accept_beyond_the_window() {
    let legal = left(R0, R1, accept(B1, 1, 2, &[B, C, D, NOOP]));
    let illegal = left(R0, R1, accept(B1, 1, 2, &[B, C, D, NOOP, NOOP]));
    not_then(&first_slot(), &[legal], &[illegal], Rule::Q3, Invariant::S22);
}

#[test]
fn d1_a_promise_leaves_when_it_is_durable() {
    needs(&first_slot(), &promised(R1, B1), Rule::D1, Invariant::S11);
}

#[test]
fn d1_a_promise_names_durable_votes() {
    // r1 tells its vote in slot 3 to r2, and the write of that vote was skipped.
    let mut run = gap();
    run.remove(position(&run, &left(R1, R0, accepted(B1, 3))));
    run.remove(position(&run, &delivered(R1, R0, accepted(B1, 3))));
    run.extend(elected(B2, R1, 1, const { &[voted(3, B1, C)] }));
    needs(&run, &vote(R1, 3, B1, C), Rule::D1, Invariant::S11);
}

#[test]
fn d2_an_accepted_leaves_when_the_vote_is_durable() {
    needs(&first_slot(), &vote(R1, 1, B1, A), Rule::D2, Invariant::S11);
}

#[test]
fn d3_a_prepare_leaves_when_the_own_promise_is_durable() {
    needs(&first_slot(), &promised(R0, B1), Rule::D3, Invariant::S11);
}

#[test]
fn d3_a_ballot_is_used_by_one_life() {
    let mut run = first_slot();
    run.push(Event::Stopped { at: R0 });
    let lives: &[(Acceptor, Life)] = const { &[(R1, life(R1, 1)), (R2, life(R2, 1))] };
    let recovered =
        Recovered { promised: Some(B1), entries: const { &[voted(1, B1, A)] }, lives, ..NOTHING };
    run.push(Event::Started { at: R0, life: life(R0, 2), recovered });
    let next = Ballot { round: 4, leader: R0 };
    let says = |ballot| Event::Left {
        from: R0,
        life: life(R0, 2),
        to: Some(R1),
        message: prepare(ballot),
    };
    let legal = [promised(R0, next), says(next)];
    not_then(&run, &legal, &[says(B1)], Rule::D3, Invariant::S3);
}

#[test]
fn d4_the_own_vote_counts_when_it_is_durable() {
    needs(&first_slot(), &vote(R0, 1, B1, A), Rule::D4, Invariant::S13);
}

#[test]
fn d5_an_answer_leaves_when_the_life_is_durably_remembered() {
    let remembered = Event::LifeDurable { at: R1, peer: R0, life: life(R0, 1) };
    needs(&first_slot(), &remembered, Rule::D5, Invariant::S11);
}

#[test]
fn d6_a_value_is_applied_when_the_own_log_holds_it() {
    let recorded = Event::ChosenDurable { at: R2, slot: 1, value: A };
    needs(&second_reign(), &recorded, Rule::D6, Invariant::S11);
}

#[test]
fn a1_a_promise_does_not_go_back() {
    let run = second_reign();
    not_then(&run, &[promised(R1, B2)], &[promised(R1, B1)], Rule::A1, Invariant::S5);
}

#[test]
fn a1_a_promise_survives_a_restart() {
    let mut run = second_reign();
    run.push(Event::Stopped { at: R1 });
    let lives: &[(Acceptor, Life)] = const { &[(R0, life(R0, 1)), (R2, life(R2, 1))] };
    let entries: &[Entry] =
        const { &[voted(1, B1, A), voted(2, B2, NOOP), voted(3, B2, C), voted(4, B2, D)] };
    let started = |promised| {
        let recovered = Recovered { promised, entries, lives, ..NOTHING };
        Event::Started { at: R1, life: life(R1, 2), recovered }
    };
    let (legal, illegal) = (started(Some(B2)), started(Some(B1)));
    not_then(&run, &[legal], &[illegal], Rule::A1, Invariant::S5);
}

#[test]
fn a1_a_promise_answers_a_prepare() {
    needs(&first_slot(), &delivered(R0, R1, prepare(B1)), Rule::A1, Invariant::S3);
}

#[test]
fn a1_only_a_lower_ballot_is_rejected() {
    let legal = left(R1, R0, Message::Reject { refused: B1, promised: B2 });
    let illegal = left(R1, R2, Message::Reject { refused: B2, promised: B2 });
    not_then(&second_reign(), &[legal], &[illegal], Rule::A1, Invariant::S5);
}

#[test]
fn a2_no_vote_below_the_promise() {
    let mut run = gap();
    run.extend([left(R0, R1, accept(B1, 1, 2, &[B])), delivered(R0, R1, accept(B1, 1, 2, &[B]))]);
    let late = vote(R1, 2, B1, B);
    not_then(&run, &[late], &[promised(R1, B2), late], Rule::A2, Invariant::S6);
}

#[test]
fn a2_a_vote_answers_an_accept() {
    let asked = delivered(R0, R1, accept(B1, 0, 1, &[A]));
    needs(&first_slot(), &asked, Rule::A2, Invariant::S8);
}

#[test]
fn a3_a_vote_is_for_what_was_proposed() {
    let run = first_slot();
    not_instead(&run, &vote(R1, 1, B1, A), vote(R1, 1, B1, B), Rule::A3, Invariant::S4);
}

#[test]
fn a3_one_value_at_one_ballot() {
    let run = first_slot();
    not_then(&run, &[vote(R1, 1, B1, A)], &[vote(R1, 1, B1, C)], Rule::A3, Invariant::S4);
}

#[test]
fn a4_a_promise_names_every_vote() {
    let mut run = gap();
    run.extend(elected(B2, R1, 1, const { &[voted(3, B1, C)] }));
    let whole = left(R1, R2, promise(B2, 1, 1, None, const { &[voted(3, B1, C)] }));
    let part = left(R1, R2, promise(B2, 1, 1, None, &[]));
    not_instead(&run, &whole, part, Rule::A4, Invariant::S8);
}

#[test]
fn a4_a_promise_tells_no_more_prefix_than_there_is() {
    let mut run = gap();
    run.extend(elected(B2, R1, 1, const { &[voted(3, B1, C)] }));
    let honest = left(R1, R2, promise(B2, 1, 1, None, const { &[voted(3, B1, C)] }));
    let boast = left(R1, R2, promise(B2, 3, 1, None, &[]));
    not_instead(&run, &honest, boast, Rule::L2, Invariant::S13);
}

#[test]
fn a5_no_vote_in_a_slot_that_is_committed() {
    let mut run = first_slot();
    run.extend(passed(R1, R2, Message::Fetched { first: 1, values: &[A], committed: 1 }));
    let asked = passed(R0, R2, accept(B1, 1, 1, &[A]));
    let legal = [asked[0], asked[1], vote(R2, 1, B1, A)];
    let illegal = [committed(R2, 1), asked[0], asked[1], vote(R2, 1, B1, A)];
    not_then(&run, &legal, &illegal, Rule::A5, Invariant::S13);
}

#[test]
fn a6_a_vote_far_ahead_waits_for_the_recorded_prefix() {
    let mut run = first_slot();
    run.extend(voted_for(B1, R1, 1, 2, &[B]));
    run.extend([vote(R0, 2, B1, B), committed(R0, 2)]);
    run.extend(passed(R1, R2, Message::Fetched { first: 1, values: &[A], committed: 1 }));
    run.extend([committed(R2, 1), Event::ChosenDurable { at: R2, slot: 1, value: A }]);
    let recorded = Event::PrefixDurable { at: R2, committed: 1 };
    run.push(recorded);
    run.extend(voted_for(B1, R2, 2, 3, &[C]));
    assert!(observe(&run, 3, 1).is_ok());
    run.remove(position(&run, &recorded));
    let (_, verdict) = observe(&run, 3, 1).expect_err("slot 3 is above twice the window");
    assert_eq!((verdict.rule, verdict.invariant), (Rule::A6, Invariant::S22), "{verdict}");
}

#[test]
fn r3_who_promised_more_does_not_confirm() {
    // Replica 1 has promised the second ballot.
    let legal = left(R1, R2, Message::Confirmed { ballot: B2 });
    let illegal = left(R1, R0, Message::Confirmed { ballot: B1 });
    not_then(&second_reign(), &[legal], &[illegal], Rule::R3, Invariant::S15);
}
