//! The judge rejects histories with one planted mistake, and accepts their unbroken twins.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{self, Call, Operation, Outcome};
use crate::judge::judge;
use crate::rng::Rng;

/// A history that a correct store gave: each operation takes effect at one moment between its
/// beginning and its end, and some clients never hear of it.
pub(crate) fn sound_history(seed: u64, operations: u64) -> Vec<Operation> {
    let mut rng = Rng::new(seed, 0);
    let mut plans = Vec::new();
    for number in 0..operations {
        let start = number * 100 + rng.below(50);
        let effect = start + 1 + rng.below(600);
        let end = effect + 1 + rng.below(600);
        let (kind, place) = (rng.pick(&['r', 'n', 'l']), rng.below(2));
        let generation = number / 300;
        plans.push((effect, start, end, format!("{kind}{place}.{generation}"), number));
    }
    plans.sort_unstable();
    let mut store: BTreeMap<String, String> = BTreeMap::new();
    let mut history = Vec::new();
    for (_, start, end, key, number) in plans {
        let client = (number % 12) as u32;
        let value = format!("c{client}.{number}");
        let call = match (key.chars().next().unwrap(), rng.below(8)) {
            (_, 0..=2) => Call::Get,
            ('n', _) => Call::Increment,
            ('l', _) => Call::Append(format!("{value};")),
            (_, 3) => Call::Take,
            (_, 4) => Call::SetAbsent(value),
            (_, 5) => Call::Swap(value),
            _ => Call::Set(value),
        };
        let outcome = match rng.below(30) {
            0 => Outcome::Rejected("NOLEADER".into()),
            1 => Outcome::Unknown,
            2 => {
                execute(&mut store, &key, &call);
                Outcome::Unknown
            }
            _ => execute(&mut store, &key, &call),
        };
        history.push(Operation { client, node: 1, start, end, key, call, outcome });
    }
    // The readings after the last fault.
    let keys: BTreeSet<_> = history.iter().map(|operation| operation.key.clone()).collect();
    for key in keys {
        let (start, end) = (operations * 1000, operations * 1000 + 1);
        let outcome = execute(&mut store, &key, &Call::Get);
        history.push(Operation {
            client: 1001,
            node: 2,
            start,
            end,
            key,
            call: Call::Get,
            outcome,
        });
    }
    history.sort_by_key(|operation| operation.start);
    history
}

fn execute(store: &mut BTreeMap<String, String>, key: &str, call: &Call) -> Outcome {
    let old = store.get(key).cloned();
    let mut put = |value: &str| store.insert(key.to_owned(), value.to_owned());
    match call {
        Call::Get => Outcome::Value(old),
        Call::SetAbsent(_) if old.is_some() => Outcome::Value(None),
        Call::Set(value) | Call::SetAbsent(value) => {
            put(value);
            Outcome::Done
        }
        Call::Swap(value) => Outcome::Value(put(value)),
        Call::Take => Outcome::Value(store.remove(key)),
        Call::Increment => {
            let number = old.map_or(0, |old| old.parse::<i64>().unwrap()) + 1;
            put(&number.to_string());
            Outcome::Integer(number)
        }
        Call::Append(value) => {
            let whole = old.unwrap_or_default() + value;
            put(&whole);
            Outcome::Integer(i64::try_from(whole.len()).unwrap())
        }
    }
}

/// Asserts that the judge names the mistake.
fn assert_rejected(history: &[Operation], words: &str) {
    let judgement = judge(history);
    let told = judgement.violations.join("\n");
    assert!(told.contains(words), "{words} is not told of in: {told}");
}

fn operation(span: (u64, u64), client: u32, key: &str, call: Call, outcome: Outcome) -> Operation {
    Operation { client, node: 1, start: span.0, end: span.1, key: key.into(), call, outcome }
}

fn value(text: &str) -> Outcome {
    Outcome::Value(Some(text.into()))
}

#[test]
fn sound_histories_are_accepted() {
    for seed in 0..20 {
        let judgement = judge(&sound_history(seed, 2_000));
        assert_eq!(judgement.violations, Vec::<String>::new(), "seed {seed}");
        assert!(judgement.keys >= 36 && judgement.largest > 20, "{judgement:?}");
    }
}

/// Any one reply that is exchanged for another one of its kind, where the two differ.
#[test]
fn a_stale_reading_anywhere_is_rejected() {
    let mut planted = 0;
    for seed in 0..20 {
        let mut history = sound_history(seed, 2_000);
        // A reading that says what an earlier one of the same key said, after a write that was
        // acknowledged between the two. Values are never written twice, so it cannot be back.
        let stale = (0..history.len()).rev().find_map(|late| {
            let reading = &history[late];
            let Outcome::Value(Some(now)) = &reading.outcome else { return None };
            let same_key = |other: &&Operation| other.key == reading.key;
            let earlier = history.iter().filter(same_key).find(|early| {
                let between = history.iter().filter(same_key).any(|write| {
                    let writes = matches!(write.call, Call::Set(_) | Call::Append(_));
                    let told = matches!(write.outcome, Outcome::Done | Outcome::Integer(_));
                    writes && told && write.start > early.end && write.end < reading.start
                });
                let read = early.call == Call::Get && reading.call == Call::Get;
                let differs = matches!(&early.outcome, Outcome::Value(Some(then)) if then != now);
                read && differs && between
            })?;
            Some((late, earlier.outcome.clone()))
        });
        if let Some((late, outcome)) = stale {
            history[late].outcome = outcome;
            planted += 1;
            assert_rejected(&history, "not linearizable");
        }
    }
    assert_eq!(planted, 20, "every history has a place for one");
}

/// An acknowledged write that is taken out of the history of its effects: its value is read by
/// nobody, and the state is as if it had never been.
#[test]
fn a_lost_acknowledged_write_is_rejected() {
    for (call, told) in [
        (Call::Set("c1.2".into()), Outcome::Done),
        (Call::Swap("c1.2".into()), value("c1.1")),
        (Call::Take, value("c1.1")),
    ] {
        let reading = value("c1.1");
        let mut history = vec![
            operation((10, 20), 1, "r0.0", Call::Set("c1.1".into()), Outcome::Done),
            operation((30, 40), 1, "r0.0", call, told),
            operation((50, 60), 2, "r0.0", Call::Get, reading),
        ];
        assert_rejected(&history, "not linearizable");
        // The twin: it was never acknowledged.
        history[1].outcome = Outcome::Unknown;
        assert!(judge(&history).violations.is_empty());
    }
}

#[test]
fn a_lost_part_of_a_list_is_named() {
    let append = |at: u64, text: &str, length| {
        operation((at, at + 5), 1, "l0.0", Call::Append(text.into()), Outcome::Integer(length))
    };
    let mut history = vec![
        append(10, "c1.1;", 5),
        append(20, "c1.2;", 10),
        operation((30, 40), 1001, "l0.0", Call::Get, value("c1.1;")),
    ];
    assert_rejected(&history, "an acknowledged write is missing");
    assert_rejected(&history, "not linearizable");
    history[2].outcome = value("c1.1;c1.2;");
    assert!(judge(&history).violations.is_empty());
    history[2].outcome = value("c1.1;c1.2;c1.2;");
    assert_rejected(&history, "a write was carried out twice");
}

#[test]
fn what_was_refused_is_never_seen() {
    let refused = Outcome::Rejected("BUSY".into());
    let mut history = vec![
        operation((10, 20), 1, "r0.0", Call::Set("c1.1".into()), refused.clone()),
        operation((30, 40), 2, "r0.0", Call::Get, value("c1.1")),
    ];
    assert_rejected(&history, "a refused write is seen");
    history[0].outcome = Outcome::Unknown;
    assert!(judge(&history).violations.is_empty());
    history[1].outcome = value("c9.9");
    assert_rejected(&history, "nobody wrote c9.9");

    let history = vec![
        operation((10, 20), 1, "n1.0", Call::Increment, refused),
        operation((30, 40), 2, "n1.0", Call::Increment, Outcome::Integer(2)),
    ];
    assert_rejected(&history, "not linearizable");
}

#[test]
fn a_counter_neither_repeats_itself_nor_goes_back() {
    let increment = |at: u64, number| {
        operation((at, at + 5), 1, "n1.0", Call::Increment, Outcome::Integer(number))
    };
    assert_rejected(&[increment(10, 1), increment(20, 1)], "two increments say 1");
    assert_rejected(&[increment(10, 2), increment(20, 1)], "a counter went back");
    assert!(judge(&[increment(10, 1), increment(20, 2)]).violations.is_empty());
}

#[test]
fn a_reply_of_another_kind_is_rejected() {
    let odd = operation((10, 20), 1, "r0.0", Call::Get, Outcome::Integer(1));
    assert_rejected(&[odd], "a reply that this request cannot have");
    let error = Outcome::Rejected("ERR".into());
    let odd = operation((10, 20), 1, "n1.0", Call::Increment, error);
    assert_rejected(&[odd], "a reply that this request cannot have");
}

#[test]
fn a_history_is_read_back_as_it_was_written() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("history.txt");
    let history = sound_history(3, 500);
    history::write(&file, &["two\nlines".into()], &history).unwrap();
    assert_eq!(history::read(&file).unwrap(), history);
    std::fs::write(&file, "# chaos history 1\n1 2 c1 n1 r0.0 | get | perhaps\n").unwrap();
    assert!(history::read(&file).unwrap_err().contains("line 2"));
    std::fs::write(&file, "something else\n").unwrap();
    assert!(history::read(&file).unwrap_err().contains("no history"));
}
