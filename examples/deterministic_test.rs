//! Testing a state machine of your own: twenty clusters of nodes, with everything going wrong.
#![allow(clippy::print_stdout, reason = "a program talks to its user")]

use paxos::sim::{Failure, Question, Simulation, digest_of};
use paxos::{Batch, StateMachine, async_trait};

/// A guest list, which tells each guest their place.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
struct Guests(Vec<String>);

#[async_trait]
impl StateMachine for Guests {
    type Command = String;
    type Reply = usize;
    type Query = ();
    type Answer = usize;

    async fn apply(&mut self, batch: Batch<String>) -> Vec<usize> {
        self.0.extend(batch.commands.iter().cloned());
        (self.0.len() + 1 - batch.commands.len()..=self.0.len()).collect()
    }

    async fn query(&self, (): ()) -> usize {
        self.0.len()
    }
}

fn main() -> Result<(), Box<Failure>> {
    let simulation = Simulation::new(Guests::default, |rng| match rng.below(3) {
        0 => Question::Query(()),
        _ => Question::Command(format!("guest {}", rng.below(100))),
    });
    let simulation = simulation.digest(digest_of).linearizable_as_itself();
    println!("{}", simulation.seeds(0..20).run()?);
    Ok(())
}
