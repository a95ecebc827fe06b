//! Leases among clocks (docs/protocol.md §12): reads stay fresh as long as clocks keep within the bound,
//! and the checks notice when they do not.

use core::time::Duration;

use paxos_core::ids::ReplicaId;
use paxos_core::membership::LeaseTerms;
use paxos_core::sim::{Invariant, Options, Script, Shape};

/// A leader with a lease is cut off, its clock from then on at this rate, in millionths; the others
/// elect another and go on; it is asked for reads all the while. How many of them its lease served, and
/// what was broken.
fn reads_of_a_leader_cut_off(seed: u64, drift_ppm: u32, rate: u32) -> (u64, Option<Invariant>) {
    let mut options = Options::new(seed, 3);
    options.lease = LeaseTerms::new(Duration::from_millis(450), drift_ppm);
    let mut script = Script::with(options);
    let leader = script.expect_leader(8);
    script.commit(leader, b"before", 1);
    script.run_timeouts(1);
    assert!(script.status(leader).lease_until.is_some(), "it has a lease");
    let old = ReplicaId::new(leader);
    script.shape(&Shape::Isolate(old));
    script.cluster().set_clock_rate(old, rate);
    let mut served = 0;
    for step in 0..600_u16 {
        let cluster = script.cluster();
        cluster.run_for(Duration::from_millis(5));
        let asked = cluster.read(old).expect("it is up");
        let waiting = cluster.status(old).expect("it is up").reads_waiting;
        served += u64::from(asked.is_ok() && waiting == 0);
        if let Some(violation) = cluster.violation() {
            return (served, Some(violation.invariant));
        }
        if step % 20 == 0 {
            // Whoever does not lead refuses.
            for other in (1..=3).filter(|other| *other != leader) {
                let _ = script.propose(other, &step.to_le_bytes());
            }
        }
    }
    let other = leader % 3 + 1;
    assert!(script.status(other).committed.number() > 1, "the others went on");
    (served, None)
}

#[test]
fn a_lease_outlives_no_rival_while_clocks_keep_within_the_bound() {
    let mut most = 0;
    for seed in 0..20 {
        for rate in [750_000, 1_000_000, 1_250_000] {
            let (served, broken) = reads_of_a_leader_cut_off(seed, 250_000, rate);
            assert_eq!(broken, None, "seed {seed}, rate {rate}");
            most = most.max(served);
        }
    }
    assert!(most > 10, "a lease serves reads without anybody: {most}");
}

#[test]
fn a_clock_beyond_the_bound_lets_leases_overlap_and_that_is_seen() {
    let mut overlaps = 0;
    for seed in 0..20 {
        for rate in [0, 300_000] {
            match reads_of_a_leader_cut_off(seed, 1000, rate).1 {
                Some(Invariant::LeasesDisjoint) => overlaps += 1,
                Some(other) => panic!("seed {seed}, rate {rate}: {other}"),
                None => {}
            }
        }
    }
    assert!(overlaps > 20, "{overlaps} of 40");
}
