//! The linearizability checker against brute force, and against planted errors.

use paxos_core::sim::linear::{
    Budget, CasCall, CasRegister, CasReply, Counter, CounterCall, CounterReply, Failure, History,
    KeyValue, KeyValueCall, KeyValueReply, Operation, Outcome, Register, RegisterCall,
    RegisterReply, Specification, Verdict, check,
};

/// Whether some order explains the history, by trying every subset of the operations that may be
/// left out and every order of the rest, without memory, list or partition. Of the checker it shares
/// the specification alone; objects are told apart by key in one common state.
fn brute_force<S: Specification>(spec: &S, history: &History<S::Call, S::Reply>) -> bool {
    fn go<S: Specification>(
        spec: &S,
        operations: &[Operation<S::Call, S::Reply>],
        done: u32,
        states: &[(S::Key, S::State)],
    ) -> bool {
        let undone = |i: &usize| done & (1 << i) == 0;
        let answered = |i: &usize| matches!(operations[*i].outcome, Outcome::Returned { .. });
        if !(0..operations.len()).filter(undone).any(|i| answered(&i)) {
            return true;
        }
        (0..operations.len()).filter(undone).any(|i| {
            let precedes = |j: usize| match operations[j].outcome {
                Outcome::Returned { at, .. } => at < operations[i].invoked,
                Outcome::Pending | Outcome::Rejected => false,
            };
            if (0..operations.len()).filter(undone).any(precedes) {
                return false;
            }
            let reply = match &operations[i].outcome {
                Outcome::Returned { reply, .. } => Some(reply),
                Outcome::Pending => None,
                Outcome::Rejected => return false,
            };
            let key = spec.key(&operations[i].call);
            let place = states.iter().position(|(k, _)| *k == key);
            let before = place.map_or_else(|| spec.initial(&key), |p| states[p].1.clone());
            spec.step(&before, &operations[i].call, reply).is_some_and(|after| {
                let mut states = states.to_vec();
                match place {
                    Some(place) => states[place].1 = after,
                    None => states.push((key, after)),
                }
                go(spec, operations, done | 1 << i, &states)
            })
        })
    }
    go(spec, history.operations(), 0, &[])
}

/// Replays an order that the checker gave: every answered operation is in it once, real time is
/// kept, and the specification gives every answer.
fn replay<S: Specification>(spec: &S, history: &History<S::Call, S::Reply>, verdict: &Verdict) {
    let Verdict::Linearizable { order } = verdict else { panic!("not linearizable: {verdict:?}") };
    let operations = history.operations();
    let mut states: Vec<(S::Key, S::State)> = Vec::new();
    let mut seen = vec![false; operations.len()];
    for (position, id) in order.iter().enumerate() {
        let operation = &operations[id.index()];
        assert!(!std::mem::replace(&mut seen[id.index()], true), "once each");
        let key = spec.key(&operation.call);
        for later in &order[position + 1..] {
            let later = &operations[later.index()];
            if let Outcome::Returned { at, .. } = later.outcome {
                let same = spec.key(&later.call) == key;
                assert!(!same || at >= operation.invoked, "the order keeps real time");
            }
        }
        let reply = match &operation.outcome {
            Outcome::Returned { reply, .. } => Some(reply),
            Outcome::Pending => None,
            Outcome::Rejected => panic!("what was rejected is in no order"),
        };
        let place = states.iter().position(|(k, _)| *k == key).unwrap_or_else(|| {
            states.push((key.clone(), spec.initial(&key)));
            states.len() - 1
        });
        let after = spec.step(&states[place].1, &operation.call, reply);
        states[place].1 = after.expect("the order explains each answer");
    }
    for (operation, seen) in operations.iter().zip(seen) {
        let answered = matches!(operation.outcome, Outcome::Returned { .. });
        assert!(seen || !answered, "what was answered is in the order");
    }
}

/// `SplitMix64`.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// A history of up to `most` operations of an object that works, seen by clients whose calls
/// overlap, spoilt in most cases by some answers from nowhere.
fn random_history<S: Specification>(
    spec: &S,
    random: &mut Random,
    most: u64,
    call: impl Fn(&mut Random) -> S::Call,
    replies: impl Fn(&mut Random, &S::Call) -> Vec<S::Reply>,
) -> History<S::Call, S::Reply> {
    let mut history = History::new();
    let mut states: Vec<(S::Key, S::State)> = Vec::new();
    let spread = 1 + random.below(12);
    let spoilt = if random.chance(70) { 35 } else { 0 };
    let mut now = 0;
    for number in 0..=random.below(most) {
        now += random.below(4);
        let call = call(random);
        let key = spec.key(&call);
        let place = states.iter().position(|(k, _)| *k == key).unwrap_or_else(|| {
            states.push((key.clone(), spec.initial(&key)));
            states.len() - 1
        });
        let choices = replies(random, &call);
        let takes_effect = random.chance(90);
        let (begun, ended) = (now - random.below(spread).min(now), now + random.below(spread));
        let step = |reply: &S::Reply| spec.step(&states[place].1, &call, Some(reply));
        let honest = choices.iter().position(|reply| step(reply).is_some());
        let after = spec.step(&states[place].1, &call, None).expect("any call can be made");
        let mut choices = choices;
        let reply = match honest {
            Some(honest) if !random.chance(spoilt) => choices.swap_remove(honest),
            _ => choices.swap_remove(random.below(choices.len() as u64) as usize),
        };
        let id = history.invoke(number % 3, call, begun);
        if random.chance(15) {
            if takes_effect {
                states[place].1 = after;
            }
        } else if random.chance(5) {
            history.reject(id);
        } else {
            states[place].1 = after;
            history.complete(id, reply, ended);
        }
    }
    history
}

/// Compares the checker with brute force; 1 if the history is linearizable.
fn judge<S: Specification>(spec: &S, history: &History<S::Call, S::Reply>) -> u64 {
    let verdict = check(spec, history, Budget::default());
    let expected = brute_force(spec, history);
    match &verdict {
        Verdict::Linearizable { .. } => replay(spec, history, &verdict),
        Verdict::Violation(witness) => {
            assert!(witness.blocked.iter().any(|b| b.operation == witness.stuck));
            assert!(!witness.prefix.contains(&witness.stuck));
        }
        Verdict::Undecided { .. } => panic!("eight operations fit the budget"),
    }
    assert_eq!(verdict.is_linearizable(), expected, "{verdict:?}");
    u64::from(expected)
}

fn judge_register(random: &mut Random) -> u64 {
    let spec = Register::new(0);
    let call = |r: &mut Random| {
        if r.chance(50) { RegisterCall::Read } else { RegisterCall::Write(r.below(3)) }
    };
    let history = random_history(&spec, random, 8, call, |_, call| match call {
        RegisterCall::Read => (0..3).map(RegisterReply::Value).collect(),
        RegisterCall::Write(_) => vec![RegisterReply::Written],
    });
    judge(&spec, &history)
}

fn judge_cas(random: &mut Random) -> u64 {
    let spec = CasRegister::new(0);
    let call = |r: &mut Random| match r.below(4) {
        0 => CasCall::Read,
        1 => CasCall::Write(r.below(3)),
        _ => CasCall::CompareAndSwap { from: r.below(3), to: r.below(3) },
    };
    let history = random_history(&spec, random, 8, call, |_, call| match call {
        CasCall::Read => (0..3).map(CasReply::Value).collect(),
        CasCall::Write(_) => vec![CasReply::Written],
        CasCall::CompareAndSwap { .. } => vec![CasReply::Swapped(true), CasReply::Swapped(false)],
    });
    judge(&spec, &history)
}

fn judge_key_value(random: &mut Random) -> u64 {
    let spec = KeyValue::new();
    let call = |r: &mut Random| {
        let key = r.below(2);
        match r.below(5) {
            0 | 1 => KeyValueCall::Get(key),
            2 => KeyValueCall::Put(key, r.below(3)),
            3 => KeyValueCall::Delete(key),
            _ => KeyValueCall::CompareAndSwap { key, from: None, to: Some(r.below(3)) },
        }
    };
    let history = random_history(&spec, random, 8, call, |_, call| match call {
        KeyValueCall::Get(_) => {
            let some = (0..3).map(|v| KeyValueReply::Value(Some(v)));
            some.chain([KeyValueReply::Value(None)]).collect()
        }
        KeyValueCall::Put(..) | KeyValueCall::Delete(_) => vec![KeyValueReply::Done],
        KeyValueCall::CompareAndSwap { .. } => {
            vec![KeyValueReply::Swapped(true), KeyValueReply::Swapped(false)]
        }
    });
    judge(&spec, &history)
}

fn judge_counter(random: &mut Random) -> u64 {
    let call = |r: &mut Random| match r.below(4) {
        0 => CounterCall::Read,
        1 => CounterCall::Add(1),
        2 => CounterCall::Add(2),
        _ => CounterCall::AddAndRead(1),
    };
    let history = random_history(&Counter, random, 8, call, |_, call| match call {
        CounterCall::Add(_) => vec![CounterReply::Added],
        CounterCall::Read | CounterCall::AddAndRead(_) => {
            (0..12).map(CounterReply::Total).collect()
        }
    });
    judge(&Counter, &history)
}

/// Judges `count` histories of each specification, and returns how many of all were linearizable.
fn compare(count: u64, seed: u64) -> u64 {
    let mut random = Random(seed);
    let mut linearizable = 0;
    for _ in 0..count {
        for judge in [judge_register, judge_cas, judge_key_value, judge_counter] {
            linearizable += judge(&mut random);
        }
    }
    linearizable
}

#[test]
fn agrees_with_brute_force() {
    let linearizable = compare(5_000, 1);
    // Both verdicts are common, so that agreement means something.
    assert!((4_000..16_000).contains(&linearizable), "{linearizable} of 20000");
}

#[test]
#[ignore = "a million histories"]
fn agrees_with_brute_force_on_a_million_histories() {
    let linearizable = compare(250_000, 2);
    assert!((200_000..800_000).contains(&linearizable), "{linearizable} of 1000000");
}

/// A long history of many clients on few keys, honest but for what the test plants.
fn long_history(operations: u64) -> History<KeyValueCall<u64, u64>, KeyValueReply<u64>> {
    let spec = KeyValue::new();
    let mut history = History::new();
    let mut random = Random(3);
    let mut states = [None; 4];
    for number in 0..operations {
        let key = random.below(4);
        let call = match random.below(3) {
            0 => KeyValueCall::Get(key),
            1 => KeyValueCall::Put(key, number),
            _ => {
                let from = states[key as usize];
                KeyValueCall::CompareAndSwap { key, from, to: Some(number) }
            }
        };
        let before = states[key as usize];
        states[key as usize] = spec.step(&before, &call, None).expect("any call can be made");
        let reply = match call {
            KeyValueCall::Get(_) => KeyValueReply::Value(before),
            KeyValueCall::Put(..) | KeyValueCall::Delete(_) => KeyValueReply::Done,
            KeyValueCall::CompareAndSwap { .. } => KeyValueReply::Swapped(true),
        };
        let (begun, ended) = (number * 10, number * 10 + random.below(60));
        let id = history.invoke(number % 7, call, begun);
        // Few, because the search must consider that each may take effect at any later moment.
        if !random.chance(1) {
            history.complete(id, reply, ended);
        }
    }
    history
}

#[test]
fn decides_long_histories() {
    let history = long_history(4_000);
    let verdict = check(&KeyValue::new(), &history, Budget::default());
    replay(&KeyValue::new(), &history, &verdict);
}

#[test]
fn finds_one_stale_read_in_a_long_history() {
    let mut history = long_history(2_000);
    // Key 9 holds 1, then 2; a read that begins after the second write ended still sees 1.
    for (value, at) in [(1, 100), (2, 5_000)] {
        let id = history.invoke(90, KeyValueCall::Put(9, value), at);
        history.complete(id, KeyValueReply::Done, at + 10);
    }
    let stale = history.invoke(91, KeyValueCall::Get(9), 5_011);
    history.complete(stale, KeyValueReply::Value(Some(1)), 5_020);
    let verdict = check(&KeyValue::new(), &history, Budget::default());
    let Err(Failure::Violation(witness)) = verdict.into_result() else { panic!("not found") };
    assert_eq!((witness.key.as_str(), witness.stuck), ("9", stale));
    assert_eq!(witness.prefix.len(), 2);
    assert_eq!(witness.state, "Some(2)");
    assert_eq!(witness.blocked.len(), 1);
    assert!(witness.blocked[0].refused);
    let text = witness.to_string();
    assert!(text.contains("client 91: Get(9) -> Value(Some(1)) [5011..5020]"), "{text}");
}

#[test]
fn a_lost_write_is_found() {
    let mut history = History::new();
    let write = history.invoke(1, RegisterCall::Write(5), 0);
    history.complete(write, RegisterReply::Written, 1);
    let read = history.invoke(1, RegisterCall::Read, 2);
    history.complete(read, RegisterReply::Value(0), 3);
    assert!(!check(&Register::new(0), &history, Budget::default()).is_linearizable());
}

#[test]
fn two_swaps_from_one_value_cannot_both_succeed() {
    let mut history = History::new();
    for client in 0..2 {
        let id = history.invoke(client, CasCall::CompareAndSwap { from: 0, to: 1 }, 0);
        history.complete(id, CasReply::Swapped(true), 10);
    }
    assert!(!check(&CasRegister::new(0), &history, Budget::default()).is_linearizable());
}

#[test]
fn an_increment_that_happened_twice_is_found() {
    let mut history = History::new();
    let add = history.invoke(1, CounterCall::Add(1), 0);
    history.complete(add, CounterReply::Added, 1);
    let read = history.invoke(2, CounterCall::Read, 2);
    history.complete(read, CounterReply::Total(2), 3);
    assert!(!check(&Counter, &history, Budget::default()).is_linearizable());
}

#[test]
fn a_value_read_and_then_unread_is_found() {
    // A pending write may take effect late or never, but not be undone.
    let mut history = History::new();
    history.invoke(1, RegisterCall::Write(5), 0);
    for (value, at) in [(5, 10), (0, 20)] {
        let read = history.invoke(2, RegisterCall::Read, at);
        history.complete(read, RegisterReply::Value(value), at + 1);
    }
    assert!(!check(&Register::new(0), &history, Budget::default()).is_linearizable());
}

#[test]
fn a_pending_operation_may_take_effect_late_or_never() {
    for reads in [[0, 0], [0, 5], [5, 5]] {
        let mut history = History::new();
        history.invoke(1, RegisterCall::Write(5), 0);
        for (value, at) in reads.into_iter().zip([10, 20]) {
            let read = history.invoke(2, RegisterCall::Read, at);
            history.complete(read, RegisterReply::Value(value), at + 1);
        }
        let verdict = check(&Register::new(0), &history, Budget::default());
        replay(&Register::new(0), &history, &verdict);
    }
}

#[test]
fn what_was_rejected_must_not_show() {
    let mut history = History::new();
    let write = history.invoke(1, RegisterCall::Write(5), 0);
    history.reject(write);
    let read = history.invoke(2, RegisterCall::Read, 0);
    history.complete(read, RegisterReply::Value(5), 9);
    assert!(!check(&Register::new(0), &history, Budget::default()).is_linearizable());
}

#[test]
fn operations_that_touch_are_concurrent() {
    let mut history = History::new();
    let write = history.invoke(1, RegisterCall::Write(5), 0);
    history.complete(write, RegisterReply::Written, 10);
    let read = history.invoke(2, RegisterCall::Read, 10);
    history.complete(read, RegisterReply::Value(0), 20);
    assert!(check(&Register::new(0), &history, Budget::default()).is_linearizable());
}

#[test]
fn a_spent_budget_is_a_failure() {
    let history = long_history(100);
    for budget in [
        Budget { steps: 20, ..Budget::default() },
        Budget { configurations: 10, ..Budget::default() },
    ] {
        let verdict = check(&KeyValue::new(), &history, budget);
        assert!(matches!(verdict, Verdict::Undecided { .. }), "{verdict:?}");
        let failure = verdict.into_result().expect_err("nothing was shown");
        assert!(failure.to_string().contains("nothing was shown"));
    }
}

#[test]
#[should_panic(expected = "an operation ends once")]
fn an_operation_ends_once() {
    let mut history = History::new();
    let id = history.invoke(1, CounterCall::Read, 0);
    history.complete(id, CounterReply::Total(0), 1);
    history.complete(id, CounterReply::Total(1), 2);
}

#[test]
#[should_panic(expected = "an operation ends after it began")]
fn an_operation_ends_after_it_began() {
    let mut history = History::new();
    let id = history.invoke(1, CounterCall::Read, 5);
    history.complete(id, CounterReply::Total(0), 4);
}
