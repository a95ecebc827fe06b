//! Partial partitions by name: served again within four election timeouts, and then one leader for
//! a hundred.

use paxos_core::sim::{
    Case, Limits, Measured, Preset, SERVE_WITHIN, STAY, SimDisk, UnknownPreset, run_preset_on,
};

fn run(seed: u64, case: Case) -> Measured {
    let limits = Limits { codec: false, ..Limits::default() };
    run_preset_on(seed, case, &limits, |format| Box::new(SimDisk::new(format)))
}

#[test]
fn every_preset_serves_within_four_election_timeouts_and_keeps_its_leader_for_a_hundred() {
    assert_eq!((SERVE_WITHIN, STAY), (4, 100));
    for case in Case::all() {
        for seed in 0..2 {
            let Measured { outcome, downtime } = run(seed, case);
            assert_eq!(outcome.violation, None, "{case:?}, seed {seed}");
            let downtime = downtime.unwrap();
            let bound = downtime.election_timeout * SERVE_WITHIN;
            assert!(downtime.down <= bound, "{case:?}, seed {seed}: {downtime}");
            assert!(downtime.settled <= bound, "{case:?}, seed {seed}: {downtime}");
        }
    }
}

#[test]
fn where_the_leader_keeps_a_quorum_nothing_is_noticed() {
    let quiet = [Preset::Chained, Preset::ToFollower, Preset::FromFollower, Preset::FollowerDeaf];
    for case in quiet.into_iter().flat_map(Case::of) {
        let downtime = run(7, case).downtime.unwrap();
        assert_eq!(downtime.elections, 0, "{case:?}: {downtime}");
        assert!(downtime.in_timeouts(downtime.down) < 0.1, "{case:?}: {downtime}");
    }
}

#[test]
fn a_preset_is_known_by_its_name() {
    for preset in Preset::ALL {
        assert_eq!(preset.to_string().parse(), Ok(preset));
        assert!(Case::of(preset).count() > 0);
    }
    assert_eq!("netsplit".parse::<Preset>(), Err(UnknownPreset("netsplit".to_owned())));
    let sizes: Vec<u16> = Case::of(Preset::Chained).map(|case| case.replicas).collect();
    assert_eq!(sizes, [3, 5]);
}

#[test]
fn the_same_seed_of_a_preset_gives_the_same_run() {
    let case = Case { preset: Preset::Howard, replicas: 5 };
    let (one, again) = (run(3, case), run(3, case));
    assert_eq!(one.outcome.hash, again.outcome.hash);
    assert_eq!(one.downtime, again.downtime);
    assert_ne!(one.outcome.hash, run(4, case).outcome.hash);
}
