//! A state machine as its own specification.
//!
//! Owns: [`AsItself`]. Applies one command at a time, in a batch of its own.

use core::fmt::Debug;
use core::hash::Hash;
use std::sync::Arc;

use paxos_core::ids::{LogClock, Slot};
use paxos_core::sim::linear::Specification;

use super::turn::poll_to_end;
use super::{Answer, Question};
use crate::machine::{Batch, StateMachine};

/// What a machine does that is asked by one caller at a time, and that looks at no slot and no clock.
pub(super) struct AsItself<M> {
    pub(super) make: Arc<dyn Fn() -> M + Send + Sync>,
}

impl<M> Specification for AsItself<M>
where
    M: StateMachine + Clone + Eq + Hash + Debug,
    M::Command: Clone + Debug,
    M::Query: Clone + Debug,
    M::Reply: PartialEq + Debug,
    M::Answer: PartialEq + Debug,
{
    type State = M;
    type Call = Question<M::Command, M::Query>;
    type Reply = Answer<M::Reply, M::Answer>;
    type Key = ();

    fn key(&self, _: &Self::Call) {}

    fn initial(&self, (): &()) -> M {
        (self.make)()
    }

    fn step(&self, state: &M, call: &Self::Call, told: Option<&Self::Reply>) -> Option<M> {
        let mut next = state.clone();
        let given = match call {
            Question::Command(command) => {
                let commands = vec![command.clone()];
                let batch = Batch { slot: Slot::FIRST, clock: LogClock::default(), commands };
                Answer::Reply(poll_to_end(next.apply(batch))?.pop()?)
            }
            Question::Query(query) => Answer::Answer(poll_to_end(next.query(query.clone()))?),
        };
        told.is_none_or(|told| *told == given).then_some(next)
    }
}
