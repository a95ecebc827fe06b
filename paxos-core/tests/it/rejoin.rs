//! A replica that comes back after a very long time: nobody campaigns, and the ballot stays.
//!
//! `REJOIN_SEEDS` sets how many seeds, `REJOIN_AWAY` how long the replica is away, in virtual seconds;
//! without it, 1,000 election timeouts.

use core::time::Duration;
use std::env;

use paxos_core::config::Config;
use paxos_core::ids::ReplicaId;
use paxos_core::sim::{Options, Rng, Script, Weather};

const fn id(number: u16) -> ReplicaId {
    ReplicaId::new(number)
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn from_env(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text}")))
}

/// Three or five replicas with timers, clocks and disks of this seed.
fn options(seed: u64, rng: &mut Rng) -> Options {
    let heartbeat = rng.duration(ms(30), ms(80));
    let election_timeout = heartbeat * rng.between(4, 6) as u32;
    let config = Config {
        heartbeat_interval: heartbeat,
        election_timeout,
        election_jitter: rng.duration(election_timeout / 4, election_timeout),
        disk_stall: election_timeout * 4,
        retransmit_interval: heartbeat,
        fetch_timeout: heartbeat * 2,
        ..Config::default()
    };
    Options {
        config,
        window: *rng.pick(&[1, 4, 64]),
        clock_skew: *rng.pick(&[0, 1_000, 20_000]),
        codec: false,
        trace_capacity: 0,
        ..Options::new(seed, *rng.pick(&[3, 5]))
    }
}

/// Every replica's highest promise.
fn promises(script: &mut Script) -> Vec<Option<paxos_core::ballot::Ballot>> {
    let cluster = script.cluster();
    cluster.ids().map(|id| cluster.status(id).unwrap().promised).collect()
}

fn comes_back(seed: u64, away_for: Option<Duration>) {
    let mut rng = Rng::new(seed ^ 0x2e10_1000);
    let options = options(seed, &mut rng);
    let replicas = options.replicas;
    let heartbeat = options.config.heartbeat_interval;
    let timeout = options.election_timeout();
    let away_for = away_for.unwrap_or(timeout * 1000);
    let mut script = Script::with(options);
    script.expect_leader(12);
    script.run_timeouts(4);
    let leader = script.leader().expect("nothing disturbs it");
    let (delay_min, delay_max) = (ms(1), rng.duration(ms(2), heartbeat / 4));
    script.cluster().network().set_weather(Weather { delay_min, delay_max, ..Weather::CALM });
    script.commit(leader, b"before", 2);
    script.run_timeouts(2);
    let reign = script.status(leader).leader;
    let before = promises(&mut script);
    let away = (leader + rng.between(1, u64::from(replicas) - 1) as u16 - 1) % replicas + 1;
    let side = rng.below(4);
    for other in (1..=replicas).filter(|other| *other != away) {
        if side != 0 {
            script.cluster().network().cut(id(other), id(away));
        }
        if side != 1 {
            script.cluster().network().cut(id(away), id(other));
        }
    }
    for number in 0..8_u8 {
        script.run_for(away_for / 8);
        script.commit(leader, &[number], 2);
        assert_eq!(promises(&mut script), before, "seed {seed}: somebody campaigned meanwhile");
    }
    script.heal();
    script.run_timeouts(20);
    let prefix = script.commit(leader, b"after", 2);
    script.expect("it has caught up", 20, |cluster| {
        cluster.status(id(away)).is_some_and(|status| status.applied >= prefix)
    });
    assert_eq!(promises(&mut script), before, "seed {seed}: somebody campaigned");
    for replica in 1..=replicas {
        assert_eq!(script.status(replica).leader, reign, "seed {seed}: replica {replica}");
    }
}

#[test]
fn a_replica_isolated_for_1_000_election_timeouts_disturbs_nobody() {
    let away = from_env("REJOIN_AWAY").map(Duration::from_secs);
    for seed in 0..from_env("REJOIN_SEEDS").unwrap_or(20) {
        comes_back(seed, away);
    }
}
