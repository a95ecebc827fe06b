//! What goes wrong in a random run, and when: drawn from the seed alone.
//!
//! Owns: [`Plan`] and [`Fault`]. Each seed draws its own cluster, tunables and weather (swarm
//! testing), and has at least one crash, one cut, and one message of each kind lost and one
//! repeated, as far as the run sends that kind.

use core::time::Duration;

use super::atlas::Atlas;
use super::disk::DiskFault;
use super::kind::Kind;
use super::network::{Shape, Weather};
use super::options::{Machine, Options};
use super::rng::Rng;
use super::run::Limits;
use crate::config::Config;
use crate::ids::{ReplicaId, Time};
use crate::quorum::QuorumRule;

/// Something that goes wrong, or right again.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Fault {
    /// A process loses its power, and has it back after this time.
    Crash(ReplicaId, Duration),
    /// A process loses its power as soon as it writes.
    CrashWhenWriting(ReplicaId, Duration),
    /// A process stands still.
    Pause(ReplicaId, Duration),
    /// The network is cut, on top of what is cut already.
    Cut(Shape),
    /// All cuts are gone.
    Heal,
    /// The network gets better or worse.
    Weather(Weather),
    /// A disk does something wrong, or is well again.
    Disk(ReplicaId, DiskFault),
}

/// The course of one random run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The cluster.
    pub options: Options,
    /// What happens when, in order.
    pub faults: Vec<(Time, Fault)>,
    /// For each kind, after how many messages one is lost and one repeated for certain.
    pub forced: Vec<(Kind, u32, u32)>,
    /// When the faults end.
    pub end: Time,
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

impl Plan {
    /// The plan of a seed.
    pub fn new(seed: u64, limits: &Limits) -> Self {
        let mut rng = Rng::new(seed ^ 0x00fa_0175);
        let options = draw_options(seed, limits, &mut rng);
        let end = Time::ZERO.after(rng.duration(ms(1500), ms(3500)));
        let mut faults = vec![(Time::ZERO, Fault::Weather(draw_weather(&mut rng)))];
        let any =
            |rng: &mut Rng| ReplicaId::new(rng.between(1, u64::from(options.replicas)) as u16);
        let when = |rng: &mut Rng| Time::from_nanos(rng.between(100_000_000, end.nanos() - 1));
        for _ in 0..rng.between(1, 4) {
            let (at, id, down) = (when(&mut rng), any(&mut rng), rng.duration(ms(5), ms(900)));
            let fault = if rng.chance(600) {
                Fault::CrashWhenWriting(id, down)
            } else {
                Fault::Crash(id, down)
            };
            faults.push((at, fault));
        }
        for _ in 0..rng.below(3) {
            let at = when(&mut rng);
            let longest = end.since(at).min(ms(1500));
            let pause = rng.duration(Duration::ZERO, longest);
            faults.push((at, Fault::Pause(any(&mut rng), pause)));
        }
        if options.replicas > 1 {
            for _ in 0..rng.between(1, 3) {
                let at = when(&mut rng);
                faults.push((at, Fault::Cut(draw_shape(options.replicas, &mut rng))));
                let heal = at.after(rng.duration(ms(50), ms(1200)));
                faults.push((heal.min(end), Fault::Heal));
            }
        }
        faults.push((when(&mut rng), Fault::Weather(draw_weather(&mut rng))));
        let atlas = Atlas::draw(&mut rng.fork(), &options, end, &[]);
        let disks = atlas.faults.into_iter();
        faults.extend(disks.map(|(at, id, fault)| (at, Fault::Disk(id, fault))));
        faults.sort_by_key(|(at, _)| *at);
        let forced = |kind| (kind, rng.below(6) as u32, rng.below(6) as u32);
        Self { forced: Kind::ALL.into_iter().map(forced).collect(), options, faults, end }
    }
}

fn draw_weather(rng: &mut Rng) -> Weather {
    let some = |rng: &mut Rng, most| {
        if rng.chance(500) { rng.below(most) as u32 } else { 0 }
    };
    let delay_min = rng.duration(Duration::ZERO, ms(5));
    Weather {
        loss: some(rng, 300),
        duplication: some(rng, 500),
        delay_min,
        delay_max: delay_min + rng.duration(ms(1), ms(30)),
        stragglers: some(rng, 100),
    }
}

fn draw_shape(replicas: u16, rng: &mut Rng) -> Shape {
    let one = ReplicaId::new(rng.between(1, u64::from(replicas)) as u16);
    let next = (one.number() - 1 + rng.between(1, u64::from(replicas) - 1) as u16) % replicas;
    let other = ReplicaId::new(next + 1);
    match rng.below(8) {
        0 | 1 => Shape::Isolate(one),
        2 => {
            let ids = (1..=replicas).map(ReplicaId::new);
            Shape::Split(ids.filter(|_| rng.chance(500)).collect())
        }
        3 => Shape::OneWay(one, other),
        4 => Shape::QuorumLoss { hub: one },
        5 => Shape::Constrained { leader: one, hub: other },
        6 => Shape::Chained(one, other),
        _ if rng.chance(500) => Shape::Bridge(one),
        _ => Shape::Directed(rng.bits() & rng.bits()),
    }
}

fn draw_options(seed: u64, limits: &Limits, rng: &mut Rng) -> Options {
    let replicas = if limits.replicas_max > 2 && rng.chance(850) {
        rng.between(3, u64::from(limits.replicas_max))
    } else {
        rng.between(1, u64::from(limits.replicas_max.min(2)))
    };
    let quorums = if rng.chance(800) {
        QuorumRule::Majority
    } else {
        let accept = rng.between(1, replicas) as u16;
        QuorumRule::Counts { prepare: replicas as u16 + 1 - accept, accept }
    };
    let window = *rng.pick(&[2, 3, 4, 8, 16, 64, 256]);
    let config = draw_config(rng);
    let disk_delay_max =
        if rng.chance(700) { rng.duration(ms(1), ms(10)) } else { rng.duration(ms(10), ms(100)) };
    let machine = *rng.pick(&[Machine::Volatile, Machine::Durable]);
    Options {
        quorums,
        window,
        config,
        disk_delay_max,
        apply_delay_max: rng.duration(Duration::ZERO, ms(20)),
        clock_skew: rng.below(20_000) as u32,
        machine,
        trim: machine == Machine::Durable && rng.chance(500),
        codec: limits.codec,
        trace_capacity: limits.trace_capacity,
        ..Options::new(seed, replicas as u16)
    }
}

fn draw_config(rng: &mut Rng) -> Config {
    let heartbeat = rng.duration(ms(30), ms(80));
    let election_timeout = heartbeat * rng.between(3, 6) as u32;
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
        disk_stall: election_timeout * rng.between(2, 8) as u32,
        retransmit_interval: rng.duration(heartbeat / 2, heartbeat * 2),
        fetch_timeout: rng.duration(heartbeat, heartbeat * 3),
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

    #[test]
    fn every_plan_has_a_crash_a_cut_and_tunables_within_their_bounds() {
        for seed in 0..500 {
            let plan = Plan::new(seed, &Limits::default());
            assert_eq!(plan.options.config.check(), Ok(()), "seed {seed}");
            let has = |wanted: fn(&Fault) -> bool| plan.faults.iter().any(|(_, f)| wanted(f));
            assert!(
                has(|f| matches!(f, Fault::Crash(..) | Fault::CrashWhenWriting(..))),
                "seed {seed}"
            );
            let cut = has(|f| matches!(f, Fault::Cut(_)));
            assert_eq!(cut, plan.options.replicas > 1, "seed {seed}");
            assert_eq!(plan.forced.len(), Kind::ALL.len());
            assert!(plan.faults.iter().all(|(at, _)| *at <= plan.end));
        }
    }
}
