//! Three of the program over a network that cuts, delays, loses and holds back, while clients ask.
//!
//! What must hold: the history is linearizable, those on the side of a majority are served while the
//! fault lasts, and those on the other side are not.

use std::time::Duration;

use crate::examples::wait_for;
use crate::load::{Load, Outcome, judge};
use crate::router::{NODES, Router, Tally};

/// An episode lasts until so many requests have succeeded where they must, ...
const SUCCESSES: usize = 60;
/// ... and at least so long: a leader that is cut off steps down within it.
const EPISODE_MIN: Duration = Duration::from_millis(800);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Blow {
    /// Nothing between this node and the others.
    Isolate(usize),
    /// Nothing from this node to the others.
    Mute(usize),
    /// Nothing from the others to this node.
    Deafen(usize),
    /// Nothing between these two; the third node reaches both.
    Chain(usize, usize),
    /// The process is stopped.
    Stop(usize),
    /// Nothing reaches this node until the end, and then all of it, clients' requests too.
    Hold(usize),
    /// Loss, and delays that let later messages overtake.
    Roughen,
}

impl Blow {
    fn strike(self, router: &Router) {
        let others = |node: usize| (0..NODES.len()).filter(move |other| *other != node);
        match self {
            Self::Isolate(node) => {
                Self::Mute(node).strike(router);
                Self::Deafen(node).strike(router);
            }
            Self::Mute(node) => router.cut(&others(node).map(|to| (node, to)).collect::<Vec<_>>()),
            Self::Deafen(node) => {
                router.cut(&others(node).map(|from| (from, node)).collect::<Vec<_>>());
            }
            Self::Chain(one, other) => router.cut(&[(one, other), (other, one)]),
            Self::Stop(node) => router.signal(node, "STOP"),
            Self::Hold(node) => router.hold(node),
            Self::Roughen => router.roughen(50, 60),
        }
    }

    /// The node that can reach no majority.
    fn alone(self) -> Option<usize> {
        match self {
            Self::Isolate(node)
            | Self::Mute(node)
            | Self::Deafen(node)
            | Self::Stop(node)
            | Self::Hold(node) => Some(node),
            Self::Chain(..) | Self::Roughen => None,
        }
    }

    /// How often what this blow is about was done to messages since `before`.
    fn count(self, before: Tally, router: &Router) -> u64 {
        let after = router.tally();
        match self {
            Self::Isolate(_) | Self::Mute(_) | Self::Deafen(_) | Self::Chain(..) => {
                after.cut - before.cut
            }
            Self::Hold(_) => after.held - before.held,
            Self::Roughen => (after.lost - before.lost).min(after.overtaken - before.overtaken),
            // A node that is not stopped sends heartbeats, ten in a second to each peer.
            Self::Stop(node) => u64::from(router.silence(node) > EPISODE_MIN / 2),
        }
    }
}

/// Strikes, waits until the others were served long enough, and heals. Returns how many requests
/// succeeded meanwhile at the node that reached no majority.
fn episode(blow: Blow, router: &Router, load: &Load) -> usize {
    let before = router.tally();
    blow.strike(router);
    let from = load.now();
    let served: Vec<_> = (0..NODES.len()).filter(|node| Some(*node) != blow.alone()).collect();
    let end = from + EPISODE_MIN.as_nanos() as u64;
    let successes = wait_for("requests that succeed in spite of a fault", || {
        let count = load.successes(&served, from, u64::MAX);
        (count >= SUCCESSES && load.now() >= end).then_some(count)
    });
    let to = load.now();
    let astray = blow.alone().map_or(0, |node| load.successes(&[node], from, to));
    let faults = blow.count(before, router);
    let millis = (to - from) / 1_000_000;
    println!("{blow:?}: {successes} successes and {astray} astray in {millis} ms, {faults} faults");
    router.heal();
    if let Blow::Stop(node) = blow {
        router.signal(node, "CONT");
    }
    assert!(faults > 0, "{blow:?} hit nothing");
    calm(router, load);
    astray
}

/// Waits until every node serves again.
fn calm(router: &Router, load: &Load) {
    let from = load.now();
    wait_for("service at every node", || {
        (0..NODES.len()).all(|node| load.successes(&[node], from, u64::MAX) > 0).then_some(())
    });
    assert_eq!(router.errors(), "", "nodes have nothing to complain of");
}

#[test]
fn clients_see_one_store_through_partitions_and_pauses() {
    let seed = 20;
    let router = Router::start(seed);
    let load = Load::start(&router, seed);
    calm(&router, &load);
    let leader = || wait_for("a request that is forwarded", || router.leaders().last().copied());
    let after = |node: usize| (node + 1) % NODES.len();
    let blows: [&dyn Fn() -> Blow; 7] = [
        &|| Blow::Isolate(leader()),
        &|| Blow::Mute(leader()),
        &|| Blow::Deafen(after(leader())),
        &|| Blow::Chain(leader(), after(leader())),
        &|| Blow::Stop(leader()),
        &|| Blow::Hold(leader()),
        &|| Blow::Roughen,
    ];
    let astray: usize = blows.iter().map(|blow| episode(blow(), &router, &load)).sum();
    let operations = load.finish(&router);
    let count = |outcome: &Outcome| operations.iter().filter(|one| one.outcome == *outcome).count();
    let (rejected, unknown) = (count(&Outcome::Rejected), count(&Outcome::Unknown));
    println!("{} requests, {rejected} rejected, {unknown} unknown", operations.len());
    println!("{:?}, leaders {:?}", router.tally(), router.leaders());
    if let Err(failure) = judge(&operations) {
        panic!("{failure}");
    }
    assert_eq!(astray, 0, "a node that reaches no majority answered");
    assert!(unknown > 0, "a leader that is cut off leaves requests open");
    assert!(router.leaders().len() > 1, "another node came to lead");
}
