//! Whether a history can be explained.
//!
//! Owns: the verdict on a history: checks that look for one kind of mistake and name it, and the
//! search for a linearization of each key, which misses none. The two are independent of one
//! another. Knows no processes.
//! Invariants: what was certainly not carried out must never be seen; what may have been is allowed
//! either way; a search that gave up counts as a failure.

use std::collections::{BTreeMap, BTreeSet};

use paxos_core::sim::linear::{Budget, Failure, History, Specification, check};

use crate::history::{Call, Operation, Outcome};

/// How far the search goes for one key.
const BUDGET: Budget = Budget { steps: 5_000_000, configurations: 1_000_000 };
/// So many violations are told.
const TOLD_MAX: usize = 10;
/// So many operations of a key are shown with its violation.
const SHOWN_MAX: usize = 40;

const SHOWN_CHARS_MAX: usize = 200;

/// What was found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Judgement {
    pub(crate) violations: Vec<String>,
    pub(crate) keys: usize,
    /// Keys with a violation, of which the first few are told.
    pub(crate) wrong: usize,
    /// Keys whose search gave up; each is a violation too.
    pub(crate) undecided: usize,
    /// Operations of the largest key.
    pub(crate) largest: usize,
}

/// Judges a history.
pub(crate) fn judge(history: &[Operation]) -> Judgement {
    let mut keys: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
    for operation in history {
        keys.entry(&operation.key).or_default().push(operation);
    }
    let mut judgement = Judgement { keys: keys.len(), ..Judgement::default() };
    for (key, mut operations) in keys {
        operations.sort_by_key(|operation| operation.start);
        judgement.largest = judgement.largest.max(operations.len());
        let mut found = Vec::new();
        found.extend(check_words(&operations));
        found.extend(check_origins(&operations));
        found.extend(check_list(&operations));
        found.extend(check_counter(&operations));
        match linearize(&operations) {
            Ok(()) => {}
            Err(Failure::Violation(witness)) => found.push(witness.to_string()),
            Err(failure @ Failure::Undecided { .. }) => {
                judgement.undecided += 1;
                found.push(failure.to_string());
            }
        }
        if found.is_empty() {
            continue;
        }
        judgement.wrong += 1;
        if judgement.violations.len() < TOLD_MAX {
            let last = operations.iter().rev().take(SHOWN_MAX).rev();
            let shown: Vec<_> = last.map(|operation| shortened(&operation.to_string())).collect();
            let text = format!("key {key}: {}\n{}", found.join("\n  "), shown.join("\n"));
            judgement.violations.push(text);
        }
    }
    judgement
}

/// A line of an operation as it is shown: lists are long.
fn shortened(line: &str) -> String {
    let end = line.char_indices().nth(SHOWN_CHARS_MAX).map_or(line.len(), |(end, _)| end);
    format!("    {}{}", &line[..end], if end < line.len() { "..." } else { "" })
}

/// A reply is of the kind that its request has.
fn check_words(operations: &[&Operation]) -> Option<String> {
    let odd = operations.iter().find(|operation| match (&operation.call, &operation.outcome) {
        (_, Outcome::Unknown)
        | (Call::Get | Call::Take | Call::Swap(_), Outcome::Value(_))
        | (Call::SetAbsent(_), Outcome::Value(None) | Outcome::Done)
        | (Call::Set(_), Outcome::Done)
        | (Call::Increment | Call::Append(_), Outcome::Integer(_)) => false,
        (_, Outcome::Rejected(word)) => !["BUSY", "NOLEADER"].contains(&word.as_str()),
        (_, Outcome::Done | Outcome::Value(_) | Outcome::Integer(_)) => true,
    })?;
    Some(format!("a reply that this request cannot have: {odd}"))
}

/// The values that an operation was shown.
fn seen(operation: &Operation) -> Vec<&str> {
    match &operation.outcome {
        Outcome::Value(Some(text)) if text.contains(';') => text.split_inclusive(';').collect(),
        Outcome::Value(Some(text)) if text.starts_with('c') => vec![text],
        Outcome::Value(_)
        | Outcome::Done
        | Outcome::Integer(_)
        | Outcome::Rejected(_)
        | Outcome::Unknown => Vec::new(),
    }
}

/// What is seen was written before, and was not refused.
fn check_origins(operations: &[&Operation]) -> Option<String> {
    let mut writers = BTreeMap::new();
    for operation in operations {
        if let Some(value) = operation.call.value() {
            writers.insert(value, *operation);
        }
    }
    for reader in operations {
        for value in seen(reader) {
            let Some(writer) = writers.get(value) else {
                return Some(format!("nobody wrote {value}: {reader}"));
            };
            if matches!(writer.outcome, Outcome::Rejected(_)) {
                return Some(format!("a refused write is seen: {writer}, by {reader}"));
            }
            if writer.start > reader.end {
                return Some(format!("a later write is seen: {writer}, by {reader}"));
            }
        }
    }
    None
}

/// Every acknowledged part of a list is in every later reading of it, and no part is there twice.
fn check_list(operations: &[&Operation]) -> Option<String> {
    let is_part = |call: &Call| matches!(call, Call::Append(_));
    if !operations.iter().any(|operation| is_part(&operation.call)) {
        return None;
    }
    let readings = operations.iter().filter(|operation| {
        operation.call == Call::Get && matches!(operation.outcome, Outcome::Value(_))
    });
    for reading in readings {
        let parts = seen(reading);
        let distinct: BTreeSet<_> = parts.iter().collect();
        if distinct.len() != parts.len() {
            return Some(format!("a write was carried out twice: {reading}"));
        }
        let missing = operations.iter().find(|writer| {
            let value = writer.call.value().unwrap_or_default();
            let acknowledged = is_part(&writer.call) && writer.succeeded();
            acknowledged && writer.end < reading.start && !distinct.contains(&value)
        });
        if let Some(missing) = missing {
            return Some(format!("an acknowledged write is missing: {missing}, from {reading}"));
        }
    }
    None
}

/// No two increments say the same, and one that began after another had ended says more.
fn check_counter(operations: &[&Operation]) -> Option<String> {
    let mut told: Vec<(i64, &Operation)> = operations
        .iter()
        .filter_map(|operation| match (&operation.call, &operation.outcome) {
            (Call::Increment, Outcome::Integer(number)) => Some((*number, *operation)),
            _ => None,
        })
        .collect();
    told.sort_by_key(|(number, _)| *number);
    for pair in told.windows(2) {
        let ((low, first), (high, second)) = (pair[0], pair[1]);
        if low == high {
            return Some(format!("two increments say {low}: {first}, and {second}"));
        }
        if second.end < first.start {
            return Some(format!("a counter went back: {second}, then {first}"));
        }
    }
    None
}

/// A key of the store, one request at a time.
#[derive(Clone, Copy, Debug)]
struct Key;

impl Specification for Key {
    type State = Option<String>;
    type Call = Call;
    type Reply = Outcome;
    type Key = ();

    fn key(&self, _: &Call) {}

    fn initial(&self, (): &()) -> Option<String> {
        None
    }

    fn step(
        &self,
        state: &Option<String>,
        call: &Call,
        reply: Option<&Outcome>,
    ) -> Option<Option<String>> {
        let (next, given) = match call {
            Call::Get => (state.clone(), Outcome::Value(state.clone())),
            Call::SetAbsent(_) if state.is_some() => (state.clone(), Outcome::Value(None)),
            Call::Set(value) | Call::SetAbsent(value) => (Some(value.clone()), Outcome::Done),
            Call::Swap(value) => (Some(value.clone()), Outcome::Value(state.clone())),
            Call::Take => (None, Outcome::Value(state.clone())),
            Call::Increment => {
                let number = state.as_deref().unwrap_or("0").parse::<i64>().ok()? + 1;
                (Some(number.to_string()), Outcome::Integer(number))
            }
            Call::Append(value) => {
                let whole = format!("{}{value}", state.as_deref().unwrap_or_default());
                let length = i64::try_from(whole.len()).ok()?;
                (Some(whole), Outcome::Integer(length))
            }
        };
        reply.is_none_or(|reply| *reply == given).then_some(next)
    }
}

fn linearize(operations: &[&Operation]) -> Result<(), Failure> {
    let mut history = History::new();
    for operation in operations {
        let changes_nothing = operation.call == Call::Get;
        if matches!(operation.outcome, Outcome::Unknown) && changes_nothing {
            continue;
        }
        let id = history.invoke(operation.client.into(), operation.call.clone(), operation.start);
        match &operation.outcome {
            Outcome::Unknown => {}
            Outcome::Rejected(_) => history.reject(id),
            told @ (Outcome::Done | Outcome::Value(_) | Outcome::Integer(_)) => {
                history.complete(id, told.clone(), operation.end);
            }
        }
    }
    check(&Key, &history, BUDGET).into_result().map(drop)
}
