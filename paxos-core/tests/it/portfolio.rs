//! The schedulers: every spot that a directed run aims at is hit, and what is aimed at happens.

use paxos_core::sim::{FaultKind, Kind, Limits, Plan, SimDisk, Spot, Totals, Trace, run_plan_on};
use paxos_core::trace::{Delivery, Event};

/// So many seeds together show what a spot is about.
const SEEDS: u64 = 20;

/// What the seeds of a spot saw, all together.
fn aim(spot: Spot) -> (Totals, Vec<Trace>) {
    let limits = Limits {
        replicas_min: 3,
        replicas_max: 5,
        commands: 40,
        trace_capacity: 1_000_000,
        ..Limits::default()
    };
    let (mut totals, mut traces) = (Totals::default(), Vec::new());
    for seed in 0..SEEDS {
        let plan = Plan::at_spot(seed, &limits, spot);
        let outcome = run_plan_on(&plan, &limits, |format| Box::new(SimDisk::new(format)));
        assert_eq!(outcome.violation, None, "{spot:?} {seed}");
        totals.add(&outcome.totals);
        traces.push(outcome.trace);
    }
    (totals, traces)
}

/// How many messages of a kind were lost at a cut or by a rule.
fn lost(traces: &[Trace], kind: Kind) -> usize {
    let records = traces.iter().flat_map(Trace::records);
    let is_lost = |event: &Event| {
        let Event::Sent { delivery: Delivery::Cut, packet, .. } = event else {
            return false;
        };
        packet.open().is_some_and(|message| Kind::of(&message.body) == kind)
    };
    records.filter(|record| is_lost(&record.event)).count()
}

fn faults(totals: &Totals, kind: FaultKind) -> u64 {
    totals.faults[kind.index()]
}

#[test]
fn spots_of_leaders_that_die_or_stand_still_are_hit() {
    for spot in [Spot::LeaderDiesBeforeItsSync, Spot::LeaderDiesAfterItsSync] {
        let (totals, _) = aim(spot);
        assert!(totals.ambushes_sprung >= SEEDS, "{spot:?}\n{totals}");
        assert!(totals.crashes >= totals.ambushes_sprung, "{spot:?}\n{totals}");
        assert!(totals.elections > SEEDS, "{spot:?}\n{totals}");
    }
    let (totals, _) = aim(Spot::LeaderPaused);
    assert!(totals.ambushes_sprung >= SEEDS && totals.pauses >= SEEDS, "{totals}");
}

#[test]
fn a_leader_dies_between_its_accept_and_its_own_sync() {
    // The Accepts left, and nothing came between them and the crash: no proof of the own vote.
    let (_, traces) = aim(Spot::LeaderDiesBeforeItsSync);
    let torn = traces.iter().filter(|trace| {
        let mut last_sent = None;
        trace.records().any(|record| {
            if let Event::Sent { packet, .. } = &record.event {
                let message = packet.open();
                let accept = message.is_some_and(|message| Kind::of(&message.body) == Kind::Accept);
                last_sent = accept.then_some(record.replica);
            }
            matches!(&record.event, Event::Crashed { .. }) && last_sent == Some(record.replica)
        })
    });
    assert!(torn.count() >= 3);
}

#[test]
fn spots_of_elections_are_hit() {
    for spot in [Spot::ManyBallots, Spot::CampaignCut, Spot::SplitAtElection] {
        let (totals, _) = aim(spot);
        assert!(totals.ambushes_sprung >= SEEDS, "{spot:?}\n{totals}");
        assert!(totals.partitions > 0 && totals.elections >= 2 * SEEDS, "{spot:?}\n{totals}");
    }
    let (totals, traces) = aim(Spot::NothingIsChosen);
    assert!(lost(&traces, Kind::Accepted) as u64 >= SEEDS && totals.elections > SEEDS, "{totals}");
    let (totals, traces) = aim(Spot::PromisesLost);
    assert!(lost(&traces, Kind::Promise) > 0 && totals.elections > SEEDS, "{totals}");
    for spot in [Spot::Duel, Spot::HalfDeafLeader] {
        let (totals, _) = aim(spot);
        assert!(totals.elections > SEEDS, "{spot:?}\n{totals}");
    }
}

#[test]
fn spots_of_acceptors_and_disks_are_hit() {
    for spot in [Spot::PromiserDies, Spot::AcceptorDies, Spot::DiesAtRecovery] {
        let (totals, _) = aim(spot);
        assert!(totals.ambushes_sprung > 0 && totals.crashes >= SEEDS, "{spot:?}\n{totals}");
    }
    let (totals, _) = aim(Spot::WholeCluster);
    assert!(faults(&totals, FaultKind::CrashAll) >= SEEDS, "{totals}");
    assert!(totals.crashes >= 3 * SEEDS, "{totals}");
    // Whoever lost its directory was refused: a run does not end otherwise.
    let (totals, _) = aim(Spot::Wiped);
    assert!(totals.wipes > 0 && totals.refusals >= totals.wipes, "{totals}");
}

#[test]
fn spots_of_late_and_lost_messages_are_hit() {
    for spot in [Spot::OldAcks, Spot::OldProposals] {
        let (totals, _) = aim(spot);
        assert_eq!(faults(&totals, FaultKind::Delay), SEEDS, "{spot:?}\n{totals}");
        assert!(totals.elections > SEEDS, "{spot:?}\n{totals}");
    }
    let (totals, traces) = aim(Spot::WatermarksLost);
    assert!(lost(&traces, Kind::Commit) > 0, "{totals}");
    let (totals, _) = aim(Spot::LaggardLeads);
    assert!(totals.values_fetched > 0 && faults(&totals, FaultKind::Sever) == SEEDS, "{totals}");
    let (totals, _) = aim(Spot::Clocks);
    let clocks = faults(&totals, FaultKind::ClockRate) + faults(&totals, FaultKind::WallClock);
    assert!(clocks >= 3 * SEEDS, "{totals}");
}
