//! The uniform and the swarm scheduler: faults of every kind, at random times.
//!
//! Owns: `Feature`, a family of faults that may be in a run or not, and how each is drawn.
//! Source: the fault list of `FoundationDB`'s and `TigerBeetle`'s simulators; swizzle-clogging is
//! the former's.

use core::time::Duration;

use super::fault::{Ambush, Blow, Cue, Fact, Fault, Side, Target};
use super::network::{Shape, Weather};
use super::options::Options;
use super::rng::Rng;
use crate::ids::{ReplicaId, Time};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A family of faults.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Feature {
    Crash,
    CrashAtWrite,
    CrashAtRecovery,
    CrashAll,
    Pause,
    Partition,
    HalfDeaf,
    Clog,
    Swizzle,
    Flap,
    Weather,
    Link,
    ClockRate,
    Freeze,
    WallClock,
    Wipe,
    Transfer,
}

impl Feature {
    pub(super) const ALL: [Self; 17] = [
        Self::Crash,
        Self::CrashAtWrite,
        Self::CrashAtRecovery,
        Self::CrashAll,
        Self::Pause,
        Self::Partition,
        Self::HalfDeaf,
        Self::Clog,
        Self::Swizzle,
        Self::Flap,
        Self::Weather,
        Self::Link,
        Self::ClockRate,
        Self::Freeze,
        Self::WallClock,
        Self::Wipe,
        Self::Transfer,
    ];

    /// How often it is drawn in a uniform run, beside the others. Crashes at a write and
    /// partitions have shown most; what ends a run early for a replica comes seldom.
    const fn weight(self) -> u64 {
        match self {
            Self::CrashAtWrite | Self::Partition => 8,
            Self::Crash | Self::Pause => 5,
            Self::HalfDeaf
            | Self::Clog
            | Self::Weather
            | Self::Link
            | Self::Flap
            | Self::Transfer => 3,
            Self::Swizzle | Self::CrashAtRecovery | Self::ClockRate => 2,
            Self::CrashAll | Self::Freeze | Self::WallClock | Self::Wipe => 1,
        }
    }

    const fn needs_peers(self) -> bool {
        matches!(
            self,
            Self::Partition
                | Self::HalfDeaf
                | Self::Clog
                | Self::Swizzle
                | Self::Flap
                | Self::Link
                | Self::Wipe
                | Self::Transfer
        )
    }
}

/// What the faults of a run are drawn with.
struct Draw<'a> {
    options: &'a Options,
    end: Time,
    rng: &'a mut Rng,
    /// How often each replica is struck, beside the others.
    weights: Vec<u64>,
    faults: Vec<(Time, Fault)>,
}

/// Faults of every kind: at least one crash and one cut.
pub(super) fn draw_uniform(options: &Options, end: Time, rng: &mut Rng) -> Vec<(Time, Fault)> {
    let mut draw = Draw::new(options, end, rng);
    draw.weather_at(Time::ZERO);
    let crash = *draw.rng.pick(&[Feature::Crash, Feature::CrashAtWrite]);
    draw.add(crash);
    draw.add(Feature::Partition);
    let weights = Feature::ALL.map(Feature::weight);
    for _ in 0..draw.rng.between(2, 8) {
        let feature = Feature::ALL[weighted(&weights, draw.rng)];
        draw.add(feature);
    }
    draw.faults
}

/// A random few families, with weights of this run's own.
pub(super) fn draw_swarm(options: &Options, end: Time, rng: &mut Rng) -> Vec<(Time, Fault)> {
    let mut draw = Draw::new(options, end, rng);
    let heavy = |rng: &mut Rng| 1 << rng.below(6);
    for weight in &mut draw.weights {
        *weight = heavy(draw.rng);
    }
    if draw.rng.chance(500) {
        draw.weather_at(Time::ZERO);
    }
    let rng = &mut *draw.rng;
    let mut weights = Feature::ALL.map(|_| if rng.chance(400) { heavy(rng) } else { 0 });
    if weights.iter().sum::<u64>() == 0 {
        weights[rng.below(weights.len() as u64) as usize] = 1;
    }
    for _ in 0..draw.rng.between(2, 16) {
        let feature = Feature::ALL[weighted(&weights, draw.rng)];
        draw.add(feature);
    }
    draw.faults
}

fn weighted(weights: &[u64], rng: &mut Rng) -> usize {
    let mut drawn = rng.below(weights.iter().sum());
    for (place, weight) in weights.iter().enumerate() {
        if drawn < *weight {
            return place;
        }
        drawn -= weight;
    }
    0
}

/// A duration whose order of magnitude is as likely as any other's in the range.
pub(super) fn any_order(rng: &mut Rng, low: Duration, high: Duration) -> Duration {
    let mut most = low;
    let mut orders = vec![low];
    while most < high {
        most = (most * 2).min(high);
        orders.push(most);
    }
    let most = *rng.pick(&orders);
    rng.duration(low, most)
}

impl<'a> Draw<'a> {
    fn new(options: &'a Options, end: Time, rng: &'a mut Rng) -> Self {
        let weights = vec![1; usize::from(options.replicas)];
        Self { options, end, rng, weights, faults: Vec::new() }
    }

    fn when(&mut self) -> Time {
        Time::from_nanos(self.rng.between(100_000_000, self.end.nanos() - 1))
    }

    fn push(&mut self, at: Time, fault: Fault) {
        self.faults.push((at.min(self.end), fault));
    }

    fn one(&mut self) -> ReplicaId {
        ReplicaId::new(weighted(&self.weights, self.rng) as u16 + 1)
    }

    /// Two replicas; there must be two.
    fn two(&mut self) -> (ReplicaId, ReplicaId) {
        let one = self.one();
        let step = self.rng.between(1, u64::from(self.options.replicas) - 1) as u16;
        (one, ReplicaId::new((one.number() - 1 + step) % self.options.replicas + 1))
    }

    fn whom(&mut self) -> Target {
        match self.rng.below(10) {
            0..=2 => Target::Leader,
            3 => Target::Follower,
            _ => Target::One(self.one()),
        }
    }

    fn ids(&self) -> impl Iterator<Item = ReplicaId> + use<> {
        (1..=self.options.replicas).map(ReplicaId::new)
    }

    fn weather_at(&mut self, at: Time) {
        let weather = draw_weather(self.rng);
        self.push(at, Fault::Weather(weather));
    }

    fn add(&mut self, feature: Feature) {
        if feature.needs_peers() && self.options.replicas < 2 {
            return;
        }
        let at = self.when();
        match feature {
            Feature::Crash => {
                let (whom, down) = (self.whom(), any_order(self.rng, ms(5), ms(900)));
                self.push(at, Fault::Crash(whom, down));
            }
            Feature::CrashAtWrite => self.crash_at_write(at),
            Feature::CrashAtRecovery => self.crash_at_recovery(at),
            Feature::CrashAll => {
                let within = any_order(self.rng, ms(5), ms(600));
                self.push(at, Fault::CrashAll(within));
            }
            Feature::Pause => {
                let (whom, pause) = (self.whom(), any_order(self.rng, ms(20), ms(10_000)));
                self.push(at, Fault::Pause(whom, pause));
            }
            Feature::Partition => {
                let shape = draw_shape(self.options.replicas, self.rng);
                self.push(at, Fault::Cut(shape));
                let heal = at.after(any_order(self.rng, ms(50), ms(2400)));
                self.push(heal, Fault::Heal);
            }
            Feature::HalfDeaf => {
                let side = *self.rng.pick(&[Side::In, Side::Out, Side::Both]);
                let (whom, time) = (self.whom(), any_order(self.rng, ms(50), ms(3000)));
                self.push(at, Fault::Sever(whom, side, time));
            }
            Feature::Clog => {
                let ((from, to), time) = (self.two(), any_order(self.rng, ms(50), ms(5000)));
                self.push(at, Fault::Clog(from, to, time));
            }
            Feature::Swizzle => self.swizzle(at),
            Feature::Flap => self.flap(at),
            Feature::Weather => self.weather_at(at),
            Feature::Link => {
                let ((from, to), weather) = (self.two(), draw_weather(self.rng));
                self.push(at, Fault::Link(from, to, weather));
            }
            Feature::ClockRate => {
                let (id, rate) = (self.one(), self.rng.between(800_000, 1_250_000));
                self.push(at, Fault::ClockRate(id, self.options.clock_rate(rate)));
            }
            Feature::Freeze => {
                let (id, still) = (self.one(), any_order(self.rng, ms(50), ms(3000)));
                self.push(at, Fault::ClockRate(id, self.options.clock_rate(0)));
                self.push(at.after(still), Fault::ClockRate(id, 1_000_000));
            }
            Feature::WallClock => {
                let (id, hour) = (self.one(), 3_600_000);
                let millis = self.rng.between(0, 2 * hour).cast_signed() - hour.cast_signed();
                self.push(at, Fault::WallClock(id, millis));
            }
            Feature::Wipe => {
                let (whom, down) = (self.whom(), any_order(self.rng, ms(5), ms(900)));
                self.push(at, Fault::Wipe(whom, down));
            }
            Feature::Transfer => self.transfer(at),
        }
    }

    /// The lead is asked for, once or again and again, for one replica or for any.
    fn transfer(&mut self, at: Time) {
        let (one, same) = (self.one(), self.rng.chance(300));
        let step = any_order(self.rng, ms(5), ms(600));
        let mut from = at;
        for _ in 0..self.rng.between(1, 6) {
            let to = if same { one } else { self.one() };
            self.push(from, Fault::Transfer(to));
            from = from.after(step);
        }
    }

    fn crash_at_write(&mut self, at: Time) {
        let fact = if self.rng.chance(500) { Fact::Any } else { *self.rng.pick(&Fact::ALL) };
        let cue = if self.rng.chance(700) { Cue::Writing(fact) } else { Cue::Written(fact) };
        let blow = Blow::Crash(any_order(self.rng, ms(5), ms(900)));
        let (after, times) = (self.rng.below(4) as u32, self.rng.between(1, 2) as u32);
        let whom = self.whom();
        self.push(at, Fault::Ambush(Ambush { whom, cue, after, times, blow }));
    }

    fn crash_at_recovery(&mut self, at: Time) {
        let id = self.one();
        let ambush = Ambush {
            whom: Target::One(id),
            cue: Cue::Recovering,
            after: 0,
            times: self.rng.between(1, 4) as u32,
            blow: Blow::Crash(any_order(self.rng, ms(5), ms(100))),
        };
        self.push(at, Fault::Ambush(ambush));
        let down = any_order(self.rng, ms(5), ms(100));
        self.push(at, Fault::Crash(Target::One(id), down));
    }

    /// The links of a few replicas are clogged one after another, and freed in another order.
    fn swizzle(&mut self, at: Time) {
        let step = any_order(self.rng, ms(5), ms(100));
        let longest = any_order(self.rng, ms(50), ms(2000));
        let (mut from, share) = (at, self.rng.between(200, 800) as u32);
        let victims: Vec<_> = self.ids().filter(|_| self.rng.chance(share)).collect();
        for id in victims {
            for other in self.ids().filter(|other| *other != id) {
                let until = self.rng.duration(ms(1), longest);
                self.push(from, Fault::Clog(id, other, until));
                self.push(from, Fault::Clog(other, id, until));
                from = from.after(step);
            }
        }
    }

    /// A link is cut and joined again and again.
    fn flap(&mut self, at: Time) {
        let (one, other) = self.two();
        let (cut, open) =
            (any_order(self.rng, ms(10), ms(600)), any_order(self.rng, ms(10), ms(600)));
        let both = self.rng.chance(500);
        let mut from = at;
        for _ in 0..self.rng.between(2, 10) {
            self.push(from, Fault::CutFor(one, other, cut));
            if both {
                self.push(from, Fault::CutFor(other, one, cut));
            }
            from = from.after(cut + open);
        }
    }
}

/// Loss of up to 30 %, duplication of up to 50 %, delays with a tail of up to seconds.
pub(super) fn draw_weather(rng: &mut Rng) -> Weather {
    let some = |rng: &mut Rng, most| {
        if rng.chance(500) { rng.below(most) as u32 } else { 0 }
    };
    let delay_min = any_order(rng, Duration::ZERO + ms(1), ms(20));
    Weather {
        loss: some(rng, 300),
        duplication: some(rng, 500),
        delay_min,
        delay_max: delay_min + any_order(rng, ms(1), ms(100)),
        stragglers: some(rng, 100),
        tail_max: any_order(rng, ms(100), ms(4000)),
    }
}

pub(super) fn draw_shape(replicas: u16, rng: &mut Rng) -> Shape {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::plan::{Plan, Profile};
    use crate::sim::run::Limits;

    #[test]
    fn every_uniform_plan_has_a_crash_and_a_cut() {
        let limits = Limits { profile: Profile::Uniform, ..Limits::default() };
        for seed in 0..500 {
            let plan = Plan::new(seed, &limits);
            let has = |wanted: fn(&Fault) -> bool| plan.faults.iter().any(|(_, f)| wanted(f));
            let crash = |fault: &Fault| {
                matches!(fault, Fault::Crash(..))
                    || matches!(fault, Fault::Ambush(Ambush { blow: Blow::Crash(_), .. }))
            };
            assert!(has(crash), "seed {seed}");
            let cut = has(|fault| matches!(fault, Fault::Cut(_)));
            assert_eq!(cut, plan.options.replicas > 1, "seed {seed}");
        }
    }

    #[test]
    fn a_swarm_leaves_features_out_and_prefers_some_replicas() {
        let options = Options::new(1, 5);
        let end = Time::from_nanos(3_000_000_000);
        let (mut without_pause, mut lopsided) = (0, 0);
        for seed in 0..1000 {
            let faults = draw_swarm(&options, end, &mut Rng::new(seed));
            let pauses = faults.iter().filter(|(_, fault)| matches!(fault, Fault::Pause(..)));
            without_pause += usize::from(pauses.count() == 0);
            let mut struck = [0; 5];
            for (_, fault) in &faults {
                if let Fault::Crash(Target::One(id), _) | Fault::Pause(Target::One(id), _) = fault {
                    struck[usize::from(id.number()) - 1] += 1;
                }
            }
            lopsided += usize::from(struck.iter().max() >= Some(&4));
        }
        assert!((400..950).contains(&without_pause), "{without_pause} of 1000 without a pause");
        assert!(lopsided > 20, "{lopsided} of 1000 strike one replica again and again");
    }

    #[test]
    fn orders_of_magnitude_are_equally_likely() {
        let mut rng = Rng::new(1);
        let drawn: Vec<_> = (0..2000).map(|_| any_order(&mut rng, ms(1), ms(4096))).collect();
        assert!(drawn.iter().all(|d| (ms(1)..=ms(4096)).contains(d)));
        assert!(drawn.iter().filter(|d| **d < ms(16)).count() > 500);
        assert!(drawn.iter().any(|d| *d > ms(2048)));
    }

    #[test]
    fn a_swizzle_clogs_links_one_after_another() {
        let options = Options::new(1, 5);
        let mut rng = Rng::new(3);
        let mut draw = Draw::new(&options, Time::from_nanos(9_000_000_000), &mut rng);
        draw.add(Feature::Swizzle);
        let clogs: Vec<_> = draw.faults.iter().map(|(at, _)| *at).collect();
        assert!(clogs.len() >= 8 && clogs.first() < clogs.last(), "{:?}", draw.faults);
        assert!(draw.faults.iter().all(|(_, fault)| matches!(fault, Fault::Clog(..))));
    }
}
