//! The cluster of a random run: its size, quorums, tunables, clocks and load.
//!
//! Owns: how [`Options`] are drawn. The same in every profile, so that what a profile finds depends
//! on its faults alone.
//! Invariant: what is drawn is within the bounds of [`Config::check`] and of a membership.

use core::time::Duration;

use super::options::{Machine, Options};
use super::rng::Rng;
use super::run::Limits;
use crate::config::Config;
use crate::ids::Priority;
use crate::membership::LeaseTerms;
use crate::quorum::{QuorumRule, VoterSet};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The cluster of a seed.
pub(super) fn draw_options(seed: u64, limits: &Limits, rng: &mut Rng) -> Options {
    let replicas = draw_replicas(limits, rng);
    let quorums = draw_quorums(replicas, rng);
    let window = *rng.pick(&[1, 2, 3, 4, 8, 16, 64, 256]);
    let config = draw_config(rng);
    let disk_delay_max =
        if rng.chance(700) { rng.duration(ms(1), ms(10)) } else { rng.duration(ms(10), ms(100)) };
    let machine = *rng.pick(&[Machine::Volatile, Machine::Durable]);
    let mut configs = if rng.chance(150) { harmonic(&config, replicas) } else { Vec::new() };
    if rng.chance(200) {
        configs.resize(usize::from(replicas), config.clone());
        for config in &mut configs {
            config.priority = Priority::new(rng.below(3) as u8);
        }
    }
    let (commands_max, payload_max) =
        if rng.chance(700) { (3, 31) } else { (rng.between(1, 12), rng.between(8, 300)) };
    Options {
        quorums,
        window,
        lease: if limits.leases { draw_lease(seed, &config) } else { None },
        disk_delay_max,
        apply_delay_max: rng.duration(Duration::ZERO, ms(20)),
        clock_skew: *rng.pick(&[0, 1_000, 20_000, 100_000]),
        machine,
        trim: match machine {
            Machine::Durable => rng.chance(500),
            // Drawn apart, so that whatever else a seed means does not depend on it.
            Machine::Volatile => Rng::new(seed ^ 0x7a1e_0000).chance(500),
        },
        configs,
        commands_max,
        payload_max,
        config,
        codec: limits.codec,
        trace_capacity: limits.trace_capacity,
        ..Options::new(seed, replicas)
    }
}

/// Every second replica's election timers are drawn from twice the range, so that they come due
/// together again and again.
fn harmonic(config: &Config, replicas: u16) -> Vec<Config> {
    let factor = |number| 1 + u32::from(number % 2 == 0);
    let tuned = |number| Config {
        election_timeout: config.election_timeout * factor(number),
        election_jitter: config.election_jitter * factor(number),
        ..config.clone()
    };
    (1..=replicas).map(tuned).collect()
}

/// Three and five replicas are what people run; the others find what counts to two.
fn draw_replicas(limits: &Limits, rng: &mut Rng) -> u16 {
    let usual = [3, 3, 3, 3, 3, 5, 5, 5, 4, 2, 1, 6, 7, 9, 8];
    let (low, high) = (limits.replicas_min, limits.replicas_max);
    let drawn = *rng.pick(&usual);
    if (low..=high).contains(&drawn) {
        drawn
    } else {
        rng.between(u64::from(low), u64::from(high)) as u16
    }
}

/// Leases in three of ten clusters, and clocks that are off by as much as any fault makes them. Drawn
/// apart, so that whatever else a seed means does not depend on it.
fn draw_lease(seed: u64, config: &Config) -> Option<LeaseTerms> {
    let mut rng = Rng::new(seed ^ 0x1ea5_e000);
    let duration = rng.duration(config.heartbeat_interval * 2, config.election_timeout);
    LeaseTerms::new(duration, 250_000).filter(|_| rng.chance(300))
}

fn draw_quorums(replicas: u16, rng: &mut Rng) -> QuorumRule {
    match rng.below(10) {
        0 => {
            let accept = rng.between(1, u64::from(replicas)) as u16;
            QuorumRule::Counts { prepare: replicas + 1 - accept, accept }
        }
        1 => {
            let weights: Vec<u16> = (0..replicas).map(|_| rng.between(1, 3) as u16).collect();
            let total: u32 = weights.iter().map(|weight| u32::from(*weight)).sum();
            let accept = rng.between(1, u64::from(total)) as u32;
            QuorumRule::Weights { weights, prepare: total + 1 - accept, accept }
        }
        2 => draw_sets(replicas, &mut rng.fork()),
        _ => QuorumRule::Majority,
    }
}

/// A grid where the replicas make one, or what a few sets of acceptors leave for promises: every
/// smallest set that meets them all.
fn draw_sets(replicas: u16, rng: &mut Rng) -> QuorumRule {
    let all = usize::from(replicas);
    let shapes: Vec<usize> = (2..all).filter(|rows| all.is_multiple_of(*rows)).collect();
    if !shapes.is_empty() && rng.chance(600) {
        let rows = *rng.pick(&shapes);
        return QuorumRule::grid(rows, all / rows).expect("at most nine replicas fit");
    }
    let draw = |rng: &mut Rng| (0..all).filter(|_| rng.chance(450)).collect::<VoterSet>();
    let mut drawn: Vec<VoterSet> = (0..rng.between(1, 4)).map(|_| draw(rng)).collect();
    for voter in 0..all {
        if !drawn.iter().any(|set| set.contains(voter)) {
            let at = rng.below(drawn.len() as u64) as usize;
            drawn[at].insert(voter);
        }
    }
    let accept = smallest(drawn.into_iter().filter(|set| !set.is_empty()).collect());
    let subset = |bits: u32| (0..all).filter(|voter| bits >> voter & 1 == 1).collect::<VoterSet>();
    let meets_all = |set: &VoterSet| accept.iter().all(|other| set.meets(*other));
    let prepare = smallest((1..1 << all).map(subset).filter(meets_all).collect());
    let used = |voter: usize| accept.iter().any(|set| set.contains(voter));
    // Who is in none of them is not in the smallest that meet them either.
    if (0..all).all(used) { QuorumRule::Sets { prepare, accept } } else { QuorumRule::Majority }
}

/// Those that contain no other.
fn smallest(mut sets: Vec<VoterSet>) -> Vec<VoterSet> {
    sets.sort_unstable();
    sets.dedup();
    let larger = |set: &VoterSet| sets.iter().any(|other| other != set && set.contains_all(*other));
    sets.iter().filter(|set| !larger(set)).copied().collect()
}

fn draw_config(rng: &mut Rng) -> Config {
    let heartbeat = rng.duration(ms(30), ms(80));
    let election_timeout = heartbeat * rng.between(3, 6) as u32;
    // Timers that are all but equal come due together.
    let jitter =
        if rng.chance(150) { ms(1) } else { rng.duration(election_timeout / 4, election_timeout) };
    let batch_bytes_max = 512;
    let tiny = |rng: &mut Rng, low, high, usual: usize| {
        if rng.chance(500) { rng.between(low, high) as usize } else { usual }
    };
    let usual = Config::default();
    Config {
        heartbeat_interval: heartbeat,
        election_timeout,
        election_jitter: jitter,
        priority: Priority::default(),
        disk_stall: election_timeout * rng.between(2, 8) as u32,
        retransmit_interval: rng.duration(heartbeat / 2, heartbeat * 2),
        fetch_timeout: rng.duration(heartbeat, heartbeat * 3),
        quorum_read_timeout: election_timeout * rng.between(1, 8) as u32,
        window_bytes_max: tiny(rng, 512, 2048, usual.window_bytes_max),
        batch_bytes_max,
        tail_bytes_max: tiny(rng, 0, 1024, usual.tail_bytes_max),
        page_bytes_max: tiny(rng, 1, 512, usual.page_bytes_max),
        apply_slots_max: tiny(rng, 1, 8, usual.apply_slots_max as usize) as u32,
        apply_bytes_max: tiny(rng, 1, 1024, usual.apply_bytes_max),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Epoch, ReplicaId};
    use crate::membership::{Member, Membership};

    #[test]
    fn every_cluster_is_one_that_can_be_built_and_every_size_comes() {
        let limits = Limits::default();
        let (mut sizes, mut weights, mut counts, mut sets) = ([0; 10], 0, 0, 0);
        let (mut harmonic, mut preferred) = (0, 0);
        for seed in 0..2000 {
            let options = draw_options(seed, &limits, &mut Rng::new(seed));
            assert_eq!(options.config.check(), Ok(()), "seed {seed}");
            let voters: Vec<_> =
                (1..=options.replicas).map(|id| Member::new(ReplicaId::new(id))).collect();
            let rule = options.quorums.clone();
            let built = Membership::new(Epoch::FIRST, voters, Vec::new(), rule, options.window);
            assert!(built.is_ok(), "seed {seed}: {built:?}");
            sizes[usize::from(options.replicas)] += 1;
            weights += usize::from(matches!(options.quorums, QuorumRule::Weights { .. }));
            counts += usize::from(matches!(options.quorums, QuorumRule::Counts { .. }));
            sets += usize::from(matches!(options.quorums, QuorumRule::Sets { .. }));
            let (tuned, base) = (&options.configs, &options.config);
            harmonic +=
                usize::from(tuned.iter().any(|c| c.election_timeout > base.election_timeout));
            preferred += usize::from(tuned.iter().any(|c| c.priority > base.priority));
        }
        assert_eq!(sizes[0], 0);
        assert!(sizes[1..].iter().all(|count| *count > 50), "{sizes:?}");
        assert!(weights > 100 && counts > 100 && harmonic > 100 && preferred > 100);
        assert!(sets > 60, "{sets}");
    }

    #[test]
    fn a_size_that_is_asked_for_is_drawn() {
        let limits = Limits { replicas_min: 5, replicas_max: 5, ..Limits::default() };
        for seed in 0..50 {
            assert_eq!(draw_options(seed, &limits, &mut Rng::new(seed)).replicas, 5);
        }
    }
}
