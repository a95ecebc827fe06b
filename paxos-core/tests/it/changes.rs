//! Changes of the membership at random, with crashes, cuts and losses in between: nothing that was
//! acknowledged is lost, no read is stale, and every change ends by itself once things are well.
//!
//! What is checked is reckoned by a judge of its own, from what the disks hold and which membership
//! governs each slot: agreement, that what is proposed is safe, that nobody stops too early.

#[path = "changes/judge.rs"]
mod judge;
#[path = "changes/world.rs"]
mod world;

use std::time::Duration;

use paxos_core::ids::ReplicaId;
use paxos_core::membership::{Change, Member};

use world::{Met, World};

const MOMENT: Duration = Duration::from_millis(25);

fn from_env(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// Lets what is under way end; `what` says what was.
fn settle(world: &mut World, seed: u64, what: &str) {
    world.heal();
    for _ in 0..2_400 {
        world.run(MOMENT);
        if world.is_settled().is_ok() {
            return;
        }
    }
    let why = world.is_settled().unwrap_err();
    panic!("seed {seed}: {what} has not ended after a minute: {why}\n{}", world.status());
}

fn run_seed(seed: u64) -> Met {
    let mut world = World::new(seed, 1 + (seed % 4) as u16);
    for _ in 0..600 {
        world.run(MOMENT);
        world.trouble();
        world.trouble();
    }
    settle(&mut world, seed, "a change");
    let before = world.judge.prefix;
    for _ in 0..400 {
        world.run(MOMENT);
        if world.judge.prefix > before {
            break;
        }
        // It may be lost with a leader that makes way, so it is asked again.
        world.leader().map(|leader| world.propose(leader));
    }
    assert!(world.judge.prefix > before, "seed {seed}: no command is chosen\n{}", world.status());
    settle(&mut world, seed, "a command");
    world.audit();
    world.met
}

#[test]
fn r47_no_seed_loses_anything_while_members_come_and_go() {
    let (first, seeds) = (from_env("FIRST_SEED", 0), from_env("SEEDS", 60));
    let mut met = Met::default();
    for seed in first..first + seeds {
        let run = std::panic::catch_unwind(|| run_seed(seed));
        let one = run.unwrap_or_else(|_| panic!("seed {seed} (FIRST_SEED={seed} SEEDS=1)"));
        met.changes += one.changes;
        met.refused += one.refused;
        met.memberships += one.memberships;
        met.promotions += one.promotions;
        met.removed += one.removed;
        met.crashes += one.crashes;
        met.handed_over += one.handed_over;
        met.reads += one.reads;
        met.quorum_reads += one.quorum_reads;
    }
    if seeds >= 60 {
        let all = [
            met.memberships,
            met.promotions,
            met.removed,
            met.crashes,
            met.reads,
            met.quorum_reads,
        ];
        assert!(all.iter().all(|count| *count > 20), "{met:?}");
    }
}

/// One replica, three, five, three, one, three, under load, with a crash somewhere in each step.
fn grow_and_shrink(seed: u64) {
    let mut world = World::new(seed, 1);
    let mut fresh = 2;
    settle(&mut world, seed, "the start");
    for voters in [3, 5, 3, 1, 3] {
        let mut crash = 1 + seed % 40;
        for moment in 0..4_000_u64 {
            world.run(MOMENT);
            let Some(leader) = world.leader() else { continue };
            world.propose(leader);
            if moment == crash {
                let up = world.up();
                let victim = up[((seed / 3) % up.len() as u64) as usize];
                world.crash(victim, MOMENT * 8);
                crash = 0;
                continue;
            }
            let membership = world.membership(leader);
            let now = membership.voters().len();
            if now == voters && membership.joining().is_empty() && moment > crash {
                break;
            }
            let change = if now < voters && membership.joining().is_empty() {
                Change::AddVoter(Member::new(ReplicaId::new(fresh)))
            } else if now > voters {
                let place = (seed + moment) % now as u64;
                Change::Remove(membership.voters()[place as usize].id)
            } else {
                continue;
            };
            let adds = matches!(change, Change::AddVoter(_));
            if world.change(leader, change) && adds {
                fresh += 1;
            }
        }
        settle(&mut world, seed, "a step");
        let leader = world.leader().expect("somebody leads");
        assert_eq!(world.membership(leader).voters().len(), voters, "seed {seed}");
    }
    world.audit();
}

#[test]
fn r46_one_three_five_three_one_three() {
    let (first, seeds) = (from_env("FIRST_SEED", 0), from_env("SEEDS", 20));
    for seed in first..first + seeds {
        let run = std::panic::catch_unwind(|| grow_and_shrink(seed));
        run.unwrap_or_else(|_| panic!("seed {seed} (FIRST_SEED={seed} SEEDS=1)"));
    }
}
