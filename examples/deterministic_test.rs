//! Testing a state machine of your own: `cargo run --release --example deterministic_test`.
//!
//! Twenty seeds; in each, up to five whole nodes with logs on simulated disks, a bad network, crashes,
//! and clients. Replicas must agree, and what clients were told must be true of one list.

use paxos::sim::{Answer, Failure, HistoryOf, Question, Simulation, digest_of, linear};
use paxos::{Batch, StateMachine, async_trait};

/// A list of names: add one, and see how long the list is.
#[derive(Default)]
struct Guests(Vec<String>);

#[async_trait]
impl StateMachine for Guests {
    type Command = String;
    type Reply = usize;
    type Query = ();
    type Answer = usize;

    async fn apply(&mut self, batch: Batch<String>) -> Vec<usize> {
        let mut add = |name| {
            self.0.push(name);
            self.0.len()
        };
        batch.commands.into_iter().map(&mut add).collect()
    }

    async fn query(&self, (): ()) -> usize {
        self.0.len()
    }
}

fn no_two_are_the_same_guest(history: &HistoryOf<Guests>) -> Result<(), String> {
    let mut seen = std::collections::BTreeSet::new();
    for operation in history.operations() {
        if let linear::Outcome::Returned { reply: Answer::Reply(place), .. } = operation.outcome {
            seen.insert(place).then_some(()).ok_or(format!("two guests at {place}"))?;
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<Failure>> {
    let simulation = Simulation::new(Guests::default, |rng| match rng.below(3) {
        0 => Question::Query(()),
        _ => Question::Command(format!("guest {}", rng.below(100))),
    });
    let report = simulation
        .digest(|guests| digest_of(&guests.0))
        .check(no_two_are_the_same_guest)
        .seeds(0..20)
        .run()?;
    println!("{report}");
    Ok(())
}
