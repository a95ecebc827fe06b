//! The faults that are drawn are those that are wanted, and shapes have their shape.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use paxos::core::sim::Preset;

use crate::episode::{Episode, Scene, Step, draw};
use crate::fault::{self, Fault};
use crate::preset::{self, OnProcesses};
use crate::rng::Rng;
use crate::shape::{Shape, Way, cuts};

/// Who still reaches whom both ways.
fn neighbours(nodes: usize, cut: &[Way], node: usize) -> Vec<usize> {
    let lives = |way: Way| !cut.contains(&way);
    let others = (0..nodes).filter(|other| *other != node);
    others.filter(|other| lives((node, *other)) && lives((*other, node))).collect()
}

fn reachable(nodes: usize, cut: &[Way], from: usize) -> BTreeSet<usize> {
    let mut seen = BTreeSet::from([from]);
    let mut queue = VecDeque::from([from]);
    while let Some(node) = queue.pop_front() {
        for next in neighbours(nodes, cut, node) {
            if seen.insert(next) {
                queue.push_back(next);
            }
        }
    }
    seen
}

fn every_case(shape: Shape, check: impl Fn(usize, usize, &[Way])) {
    for nodes in [3, 5] {
        for focus in 0..nodes {
            for seed in 0..50 {
                let cut = cuts(shape, nodes, focus, &mut Rng::new(seed, 1));
                let valid = |way: &Way| way.0 != way.1 && way.0 < nodes && way.1 < nodes;
                assert!(cut.iter().all(valid), "{shape:?} {cut:?}");
                check(nodes, focus, &cut);
            }
        }
    }
}

#[test]
fn every_preset_cuts_something_and_leaves_a_replica_that_could_lead() {
    for nodes in [3, 5] {
        let row: Vec<usize> = (0..nodes).rev().collect();
        for preset in Preset::ALL.into_iter().filter(|preset| preset.fits(nodes)) {
            let cut = preset.ways(&row);
            let name = &preset.to_string();
            assert!(!cut.is_empty(), "{name}");
            let leads = |node| neighbours(nodes, &cut, node).len() + 1 > nodes / 2;
            assert!((0..nodes).any(leads), "{name} of {nodes}: {cut:?}");
            assert_eq!(leads(row[0]), !preset.deposes(), "{name} of {nodes}: {cut:?}");
            assert_eq!(preset::parse(name), Ok(vec![preset]));
        }
    }
    // The leader is the first of the row, the follower that it is about the second.
    assert_eq!(Preset::ToFollower.ways(&[2, 0, 1]), [(2, 0)]);
    assert_eq!(Preset::FromFollower.ways(&[2, 0, 1]), [(0, 2)]);
    assert_eq!(Preset::LeaderMute.ways(&[2, 0, 1]), [(2, 0), (2, 1)]);
    let howard = Preset::Howard.ways(&[0, 1, 2, 3, 4]);
    assert_eq!(neighbours(5, &howard, 0), [1]);
    assert_eq!(neighbours(5, &howard, 4), [2]);
    assert_eq!(neighbours(5, &howard, 3), [1, 2]);
    let hub = Preset::QuorumLoss.ways(&[0, 1, 2, 3, 4]);
    assert_eq!((neighbours(5, &hub, 1).len(), neighbours(5, &hub, 0)), (4, vec![1]));
    let row = Preset::Row.ways(&[0, 1, 2, 3, 4]);
    assert_eq!((neighbours(5, &row, 0), neighbours(5, &row, 2)), (vec![1], vec![1, 3]));
    assert_eq!(preset::parse("all").map(|all| all.len()), Ok(14));
    assert!(preset::parse("netsplit").is_err());
}

#[test]
fn isolated_is_alone_and_the_others_are_together() {
    every_case(Shape::Isolate, |nodes, focus, cut| {
        assert!(neighbours(nodes, cut, focus).is_empty());
        assert_eq!(reachable(nodes, cut, (focus + 1) % nodes).len(), nodes - 1);
    });
}

#[test]
fn split_leaves_a_majority_without_the_focus() {
    every_case(Shape::Split, |nodes, focus, cut| {
        let part = reachable(nodes, cut, focus).len();
        assert!(part <= nodes / 2, "{part} of {nodes}");
        let rest = (0..nodes).find(|node| !reachable(nodes, cut, *node).contains(&focus));
        assert_eq!(reachable(nodes, cut, rest.unwrap()).len(), nodes - part);
    });
}

#[test]
fn bridge_joins_parts_that_do_not_reach_each_other() {
    every_case(Shape::Bridge, |nodes, focus, cut| {
        let bridges: Vec<_> =
            (0..nodes).filter(|node| neighbours(nodes, cut, *node).len() == nodes - 1).collect();
        assert_eq!(bridges.len(), 1);
        assert_ne!(bridges[0], focus);
        assert!(neighbours(nodes, cut, focus).len() < nodes - 1);
    });
}

#[test]
fn quorum_loss_leaves_a_quorum_to_the_hub_alone() {
    every_case(Shape::QuorumLoss, |nodes, focus, cut| {
        let hub = neighbours(nodes, cut, focus);
        assert_eq!(hub.len(), 1);
        assert_eq!(neighbours(nodes, cut, hub[0]).len(), nodes - 1);
        for node in (0..nodes).filter(|node| *node != hub[0]) {
            assert_eq!(neighbours(nodes, cut, node), hub);
        }
    });
}

#[test]
fn chain_is_a_row() {
    every_case(Shape::Chain, |nodes, _, cut| {
        let degrees: Vec<_> = (0..nodes).map(|node| neighbours(nodes, cut, node).len()).collect();
        assert_eq!(degrees.iter().filter(|degree| **degree == 1).count(), 2, "{degrees:?}");
        assert_eq!(degrees.iter().filter(|degree| **degree == 2).count(), nodes - 2);
        assert_eq!(reachable(nodes, cut, 0).len(), nodes);
    });
}

#[test]
fn one_way_cuts_leave_the_way_back() {
    let mut seen = 0;
    for seed in 0..50 {
        let cut = cuts(Shape::OneWay, 5, 2, &mut Rng::new(seed, 1));
        let both = cut.iter().any(|(from, to)| cut.contains(&(*to, *from)));
        assert!(!both, "{cut:?}");
        seen += usize::from(!cut.is_empty());
    }
    assert!(seen > 40, "most of them cut something: {seen}");
}

fn episodes(seed: u64, count: usize) -> Vec<Episode> {
    let mut rng = Rng::new(seed, 0);
    let scene = Scene { menu: &Fault::ALL, nodes: 5, leader: Some(3) };
    (0..count).map(|_| draw(&scene, &mut rng)).collect()
}

#[test]
fn a_seed_gives_the_same_episodes_and_another_seed_others() {
    assert_eq!(episodes(7, 100), episodes(7, 100));
    assert_ne!(episodes(7, 100), episodes(8, 100));
}

#[test]
fn every_fault_is_drawn_alone_and_with_others() {
    let drawn = episodes(1, 2_000);
    for fault in Fault::ALL {
        let with = |alone: bool| {
            let mut these = drawn.iter().filter(|episode| episode.faults.contains(&fault));
            these.any(|episode| (episode.faults.len() == 1) == alone)
        };
        assert!(with(true) && with(false), "{}", fault.name());
    }
}

/// Steps are in order and within the episode, a paused replica is resumed within 0.1 to 10 s, and
/// one that is killed is started.
#[test]
fn steps_are_within_bounds() {
    for episode in episodes(2, 2_000) {
        assert!(episode.steps.is_sorted_by_key(|(at, _)| *at), "{episode:?}");
        assert!(episode.length <= Duration::from_secs(25), "{episode:?}");
        for (place, (at, step)) in episode.steps.iter().enumerate() {
            assert!(*at <= episode.length, "{episode:?}");
            let later = &episode.steps[place..];
            match step {
                Step::Pause(node) => {
                    let resumed = later.iter().find(|(_, other)| *other == Step::Resume(*node));
                    let pause = resumed.unwrap().0.checked_sub(*at).unwrap();
                    assert!(pause <= Duration::from_secs(10), "{pause:?}");
                }
                Step::Kill(nodes) => {
                    for node in nodes {
                        let starts = |step: &Step| matches!(step, Step::Start(at, _) if at == node);
                        assert!(later.iter().any(|(_, step)| starts(step)), "{episode:?}");
                    }
                }
                Step::Cut(_)
                | Step::Mend(_)
                | Step::Worsen(..)
                | Step::Filter(..)
                | Step::Start(..)
                | Step::Resume(_)
                | Step::Fill => {}
            }
        }
    }
}

#[test]
fn faults_are_chosen_by_name_and_by_group() {
    assert_eq!(fault::parse("all").unwrap().len(), Fault::ALL.len());
    assert_eq!(fault::parse("kill,pause,kill").unwrap(), [Fault::Kill, Fault::Pause]);
    let groups: usize =
        ["network", "process", "disk"].map(|name| fault::parse(name).unwrap().len()).iter().sum();
    assert_eq!(groups, Fault::ALL.len());
    for fault in Fault::ALL {
        assert_eq!(fault::parse(fault.name()).unwrap(), [fault]);
    }
    assert!(fault::parse("kill,flood").unwrap_err().contains("flood"));
}
