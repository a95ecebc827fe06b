//! The order of the log as the explanation of a history.
//!
//! Owns: [`explains`]. A search for any order that explains a history takes time exponential in the
//! requests of unknown outcome; the log is one order, and whoever serves from it is explained by it.
//! Invariant: whatever this accepts is linearizable: the order respects real time, and gives each
//! answer that was given. What it refuses may be linearizable still.

use core::ops::RangeInclusive;
use std::collections::BTreeMap;

use paxos_core::sim::linear::{History, Operation, Outcome, Specification};

type Operations<'a, S> = &'a [Operation<<S as Specification>::Call, <S as Specification>::Reply>];

/// What was asked of one object.
struct Object {
    /// Those that stand in the log, in its order.
    logged: Vec<usize>,
    /// Those that were answered and do not: they changed nothing.
    asked: Vec<usize>,
}

/// Whether the log explains the history. `log` names the operations that stand in the log, by their
/// places in the history, in the order of the log.
pub(super) fn explains<S: Specification>(
    specification: &S,
    history: &History<S::Call, S::Reply>,
    log: &[usize],
) -> Result<(), String> {
    let operations = history.operations();
    let mut objects: BTreeMap<S::Key, Object> = BTreeMap::new();
    let mut logged = vec![false; operations.len()];
    for index in log {
        logged[*index] = true;
        let key = specification.key(&operations[*index].call);
        let object = objects.entry(key).or_insert_with(Object::new);
        object.logged.push(*index);
    }
    for (index, operation) in operations.iter().enumerate() {
        if !logged[index] && end(operation).is_some() {
            let object = objects.entry(specification.key(&operation.call));
            object.or_insert_with(Object::new).asked.push(index);
        }
    }
    objects.iter().try_for_each(|(key, object)| {
        let states = object.replay(specification, key, operations)?;
        object.place(specification, operations, &states)
    })
}

/// When an operation was answered.
fn end<C, R>(operation: &Operation<C, R>) -> Option<u64> {
    match operation.outcome {
        Outcome::Returned { at, .. } => Some(at),
        Outcome::Pending | Outcome::Rejected => None,
    }
}

fn reply<C, R>(operation: &Operation<C, R>) -> Option<&R> {
    match &operation.outcome {
        Outcome::Returned { reply, .. } => Some(reply),
        Outcome::Pending | Outcome::Rejected => None,
    }
}

impl Object {
    fn new() -> Self {
        Self { logged: Vec::new(), asked: Vec::new() }
    }

    /// The states before, between and after what is in the log.
    fn replay<S: Specification>(
        &self,
        specification: &S,
        key: &S::Key,
        operations: Operations<'_, S>,
    ) -> Result<Vec<S::State>, String> {
        let mut states = vec![specification.initial(key)];
        let mut asked_last = 0;
        for index in &self.logged {
            let operation = &operations[*index];
            if end(operation).is_some_and(|end| end < asked_last) {
                return Err(format!("{:?} follows what was asked after it", operation.call));
            }
            asked_last = asked_last.max(operation.invoked);
            let state = states.last().expect("there is one before everything");
            let next = specification.step(state, &operation.call, reply(operation));
            let next = next.ok_or_else(|| {
                let (call, reply) = (&operation.call, reply(operation));
                format!("in the order of the log {call:?} is not answered {reply:?}")
            })?;
            states.push(next);
        }
        Ok(states)
    }

    /// Finds a state for each answer that is not in the log. The earliest that fits leaves the most
    /// to those that were asked later.
    fn place<S: Specification>(
        &self,
        specification: &S,
        operations: Operations<'_, S>,
        states: &[S::State],
    ) -> Result<(), String> {
        // Operations are kept in the order in which they were asked.
        let mut placed: Vec<(u64, usize)> = Vec::new();
        for index in &self.asked {
            let operation = &operations[*index];
            let before = placed.iter().filter(|(end, _)| *end < operation.invoked);
            let earliest = before.map(|(_, at)| *at).max().unwrap_or_default();
            let mut range = self.between(operations, *index).filter(|at| *at >= earliest);
            let fits = |at: &usize| {
                let state = &states[*at];
                let next = specification.step(state, &operation.call, reply(operation));
                next.as_ref() == Some(state)
            };
            let (Some(at), Some(end)) = (range.find(fits), end(operation)) else {
                let (call, reply) = (&operation.call, reply(operation));
                return Err(format!("at no time was {call:?} to be answered {reply:?}"));
            };
            placed.push((end, at));
        }
        Ok(())
    }

    /// After how many of those in the log an operation may have seen the object.
    fn between<C, R>(&self, operations: &[Operation<C, R>], index: usize) -> RangeInclusive<usize> {
        let operation = &operations[index];
        let places = || self.logged.iter().map(|index| &operations[*index]).enumerate();
        let over = places().filter(|(_, other)| end(other).is_some_and(|e| e < operation.invoked));
        let first = over.map(|(at, _)| at + 1).max().unwrap_or_default();
        let end = end(operation).unwrap_or(u64::MAX);
        let later = places().filter(|(_, other)| other.invoked > end);
        let last = later.map(|(at, _)| at).min().unwrap_or(self.logged.len());
        first..=last
    }
}

#[cfg(test)]
mod tests {
    use paxos_core::sim::linear::{
        Counter, CounterCall, CounterReply, Register, RegisterCall, RegisterReply,
    };

    use super::*;

    type Log = (History<RegisterCall<u64>, RegisterReply<u64>>, Vec<usize>);

    /// Two writes, the second of which nobody saw answered, and a read.
    fn history(read: u64, asked: u64, told: u64) -> Log {
        let mut history = History::new();
        let one = history.invoke(1, RegisterCall::Write(1), 10);
        history.invoke(2, RegisterCall::Write(2), 15);
        let look = history.invoke(3, RegisterCall::Read, asked);
        history.complete(one, RegisterReply::Written, 20);
        history.complete(look, RegisterReply::Value(read), told);
        (history, vec![0, 1])
    }

    fn explained((history, log): &Log) -> bool {
        explains(&Register::new(0), history, log).is_ok()
    }

    #[test]
    fn a_read_sees_a_state_between_its_question_and_its_answer() {
        assert!(explained(&history(1, 30, 40)), "the second write may come later");
        assert!(explained(&history(2, 30, 40)));
        assert!(!explained(&history(0, 30, 40)), "the first write was answered");
        assert!(explained(&history(0, 18, 40)), "it was not answered yet");
        assert!(!explained(&history(7, 30, 40)), "nobody wrote that");
    }

    #[test]
    fn what_was_asked_after_an_answer_does_not_come_before_it() {
        let (history, _) = history(1, 30, 40);
        let turned = vec![1, 0];
        // The other order has the read see the first write, which is answered last.
        assert!(explains(&Register::new(0), &history, &turned).is_ok());
        let mut late = History::new();
        let one = late.invoke(1, RegisterCall::Write(1), 10);
        late.complete(one, RegisterReply::Written, 20);
        late.invoke(2, RegisterCall::Write(2), 30);
        assert!(explains(&Register::new(0), &late, &[0, 1]).is_ok());
        assert!(explains(&Register::new(0), &late, &[1, 0]).is_err());
    }

    #[test]
    fn two_reads_one_after_the_other_do_not_go_back() {
        let build = |first: u64, second: u64| {
            let mut history = History::new();
            history.invoke(1, RegisterCall::Write(1), 10);
            let reads = [(first, 20), (second, 40)].map(|(value, at)| {
                let read = history.invoke(2, RegisterCall::Read, at);
                history.complete(read, RegisterReply::Value(value), at + 10);
            });
            assert_eq!(reads.len(), 2);
            explains(&Register::new(0), &history, &[0]).is_ok()
        };
        assert!(build(0, 1) && build(0, 0) && build(1, 1));
        assert!(!build(1, 0));
    }

    #[test]
    fn an_answer_that_the_order_of_the_log_does_not_give_is_refused() {
        let mut history = History::new();
        let add = history.invoke(1, CounterCall::AddAndRead(2), 10);
        history.complete(add, CounterReply::Total(3), 20);
        assert!(explains(&Counter, &history, &[0]).is_err());
    }
}
