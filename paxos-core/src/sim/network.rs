//! The network between simulated replicas: what is lost, repeated, late and cut.
//!
//! Owns: [`Network`], which decides the fate of each message. Holds no message and knows no
//! protocol; the cluster delivers what it lets through.
//! Invariant: a message is never forged or altered; the fate depends on the seed, the ends and the
//! kind, and on nothing else.
//! Source: the partition shapes of the Omni-Paxos paper (quorum loss, constrained, chained).

use core::time::Duration;

use super::kind::Kind;
use super::rng::Rng;
use crate::ids::{ReplicaId, Time};

/// How bad the network is between two ends that are not cut.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Weather {
    /// How many of a thousand messages are lost.
    pub loss: u32,
    /// How many of a thousand are delivered twice.
    pub duplication: u32,
    /// The shortest way.
    pub delay_min: Duration,
    /// The longest way of most messages.
    pub delay_max: Duration,
    /// How many of a thousand take longer: two times with probability 1/2, four times with 1/4,
    /// and so on.
    pub stragglers: u32,
    /// The longest that any of them takes.
    pub tail_max: Duration,
}

impl Weather {
    /// Nothing is lost or repeated; each message takes 1 to 5 ms.
    pub const CALM: Self = Self {
        loss: 0,
        duplication: 0,
        delay_min: Duration::from_millis(1),
        delay_max: Duration::from_millis(5),
        stragglers: 0,
        tail_max: Duration::ZERO,
    };
}

/// A named way to cut a cluster. Replicas are numbered from 1.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Shape {
    /// This replica hears nobody and is heard by nobody.
    Isolate(ReplicaId),
    /// These on one side, the others on the other.
    Split(Vec<ReplicaId>),
    /// Messages from the first to the second are lost; the way back is open.
    OneWay(ReplicaId, ReplicaId),
    /// The hub keeps all its links; every link between two others is cut.
    QuorumLoss {
        /// Who still reaches everybody.
        hub: ReplicaId,
    },
    /// As quorum loss, and the leader is cut from everybody.
    Constrained {
        /// Who led.
        leader: ReplicaId,
        /// The only one that reaches a quorum.
        hub: ReplicaId,
    },
    /// The link between these two is cut; the others see both.
    Chained(ReplicaId, ReplicaId),
    /// Two halves that only this replica sees both of.
    Bridge(ReplicaId),
    /// Nobody hears this replica; it hears everybody.
    Mute(ReplicaId),
    /// This replica hears nobody; everybody hears it.
    Deaf(ReplicaId),
    /// Each reaches its neighbours in this row and nobody else.
    Row(Vec<ReplicaId>),
    /// The first of each pair reaches the second and nobody else; all others reach each other.
    Arms([(ReplicaId, ReplicaId); 2]),
    /// Each pair of directions is cut one way, at random by these bits.
    Directed(u64),
}

/// Which messages a script singles out, to lose or delay them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rule {
    /// The kind.
    pub kind: Kind,
    /// From this replica only.
    pub from: Option<ReplicaId>,
    /// To this replica only.
    pub to: Option<ReplicaId>,
}

impl Rule {
    /// All messages of a kind.
    pub const fn all(kind: Kind) -> Self {
        Self { kind, from: None, to: None }
    }

    /// Whether it is about such a message.
    pub fn covers(&self, from: ReplicaId, to: ReplicaId, kind: Kind) -> bool {
        self.kind == kind
            && self.from.is_none_or(|id| id == from)
            && self.to.is_none_or(|id| id == to)
    }
}

/// A link that is cut and joined again and again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Flap {
    /// The time of one cut and one joint.
    pub period: Duration,
    /// Of which it is open so long.
    pub open: Duration,
}

impl Flap {
    fn is_open(self, now: Time) -> bool {
        let period = self.period.as_nanos().max(1);
        u128::from(now.nanos()) % period < self.open.as_nanos()
    }
}

/// The state of the way from one replica to another, beside lasting cuts.
#[derive(Clone, Copy, Debug, Default)]
struct Way {
    /// Everything is lost until then.
    cut_until: Time,
    /// Everything waits until then.
    clogged_until: Time,
    weather: Option<Weather>,
    flap: Option<Flap>,
    /// How long each value takes, one after the other.
    pace: Option<Duration>,
    /// When the last of them has passed, in each lane.
    free_at: [Time; 2],
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fate {
    /// It never arrives, as the ends are cut.
    Cut,
    /// It never arrives.
    Lost,
    /// It arrives after this time.
    Once(Duration),
    /// It arrives twice.
    Twice(Duration, Duration),
}

/// Decides the fate of messages.
#[derive(Debug)]
pub struct Network {
    replicas: usize,
    /// A row of bits for each sender: whom it cannot reach.
    cuts: Vec<u32>,
    weather: Weather,
    ways: Vec<Way>,
    rules: Vec<Rule>,
    delays: Vec<(Rule, Duration)>,
    /// For each kind, how many pass before one is lost for certain.
    lose_after: [Option<u32>; Kind::ALL.len()],
    /// For each kind, how many pass before one is repeated for certain.
    repeat_after: [Option<u32>; Kind::ALL.len()],
    rng: Rng,
}

const fn place(id: ReplicaId) -> usize {
    id.number() as usize - 1
}

impl Network {
    /// A calm network of replicas 1 to `replicas`.
    pub fn new(replicas: usize, rng: Rng) -> Self {
        Self {
            replicas,
            cuts: vec![0; replicas],
            weather: Weather::CALM,
            ways: vec![Way::default(); replicas * replicas],
            rules: Vec::new(),
            delays: Vec::new(),
            lose_after: [None; Kind::ALL.len()],
            repeat_after: [None; Kind::ALL.len()],
            rng,
        }
    }

    /// Changes the weather.
    pub fn set_weather(&mut self, weather: Weather) {
        self.weather = weather;
    }

    /// Loses one message of this kind, and repeats one, after a few of them.
    pub fn force(&mut self, kind: Kind, lose_after: u32, repeat_after: u32) {
        self.lose_after[kind.index()] = Some(lose_after);
        self.repeat_after[kind.index()] = Some(repeat_after);
    }

    /// Drops what the rule says until [`Network::clear_rules`].
    pub fn add_rule(&mut self, rule: Rule) {
        self.rules.push(rule);
    }

    /// Lets what the rule says take so much longer until [`Network::clear_rules`].
    pub fn add_delay(&mut self, rule: Rule, delay: Duration) {
        self.delays.push((rule, delay));
    }

    /// Forgets all rules.
    pub fn clear_rules(&mut self) {
        self.rules.clear();
        self.delays.clear();
    }

    fn way(&mut self, from: ReplicaId, to: ReplicaId) -> &mut Way {
        &mut self.ways[place(from) * self.replicas + place(to)]
    }

    /// Cuts the way from one replica to another until then.
    pub fn cut_until(&mut self, from: ReplicaId, to: ReplicaId, until: Time) {
        let way = self.way(from, to);
        way.cut_until = way.cut_until.max(until);
    }

    /// Lets messages from one replica to another wait until then.
    pub fn clog_until(&mut self, from: ReplicaId, to: ReplicaId, until: Time) {
        let way = self.way(from, to);
        way.clogged_until = way.clogged_until.max(until);
    }

    /// Gives the way from one replica to another a weather of its own, or that of all others.
    pub fn set_link_weather(&mut self, from: ReplicaId, to: ReplicaId, weather: Option<Weather>) {
        self.way(from, to).weather = weather;
    }

    /// Cuts and joins the way from one replica to another again and again.
    pub fn flap(&mut self, from: ReplicaId, to: ReplicaId, flap: Flap) {
        self.way(from, to).flap = Some(flap);
    }

    /// Lets each value take so long on the way from one replica to another, one after the other, or as
    /// long as all else takes. Proposals and what was fetched have a lane each, as in a transport;
    /// what carries no values passes beside them.
    pub fn set_pace(&mut self, from: ReplicaId, to: ReplicaId, pace: Option<Duration>) {
        let way = self.way(from, to);
        (way.pace, way.free_at) = (pace, [Time::ZERO; 2]);
    }

    /// How many values wait in the lane of proposals of a way that has a pace.
    pub fn backlog(&mut self, from: ReplicaId, to: ReplicaId, now: Time) -> u64 {
        let Way { pace, free_at, .. } = *self.way(from, to);
        let nanos = |duration: Duration| duration.as_nanos() as u64;
        pace.map_or(0, |pace| nanos(free_at[0].since(now)) / nanos(pace).max(1))
    }

    /// Whether a way has a pace.
    pub(super) fn is_paced(&mut self, from: ReplicaId, to: ReplicaId) -> bool {
        self.way(from, to).pace.is_some()
    }

    /// Cuts the way from one replica to another.
    pub fn cut(&mut self, from: ReplicaId, to: ReplicaId) {
        self.cuts[place(from)] |= 1 << place(to);
    }

    /// Opens the way from one replica to another.
    pub fn join(&mut self, from: ReplicaId, to: ReplicaId) {
        self.cuts[place(from)] &= !(1 << place(to));
    }

    /// Opens every way: all cuts are gone, those for a while too.
    pub fn heal(&mut self) {
        self.cuts.fill(0);
        for way in &mut self.ways {
            way.cut_until = Time::ZERO;
            way.flap = None;
        }
    }

    /// Takes the weather, the cuts, the rules and all that was to be forced away.
    pub fn calm(&mut self) {
        self.heal();
        self.clear_rules();
        self.ways.fill(Way::default());
        self.weather = Weather::CALM;
        self.lose_after = [None; Kind::ALL.len()];
        self.repeat_after = [None; Kind::ALL.len()];
    }

    /// Cuts the cluster into this shape, on top of what is cut already.
    pub fn shape(&mut self, shape: &Shape) {
        let is_cut = |a: ReplicaId, b: ReplicaId| match shape {
            Shape::Isolate(alone) => a == *alone || b == *alone,
            Shape::Split(side) => side.contains(&a) != side.contains(&b),
            Shape::OneWay(from, to) => a == *from && b == *to,
            Shape::QuorumLoss { hub } => a != *hub && b != *hub,
            Shape::Constrained { leader, hub } => {
                a == *leader || b == *leader || (a != *hub && b != *hub)
            }
            Shape::Chained(one, other) => (a, b) == (*one, *other) || (b, a) == (*one, *other),
            Shape::Bridge(bridge) => {
                a != *bridge && b != *bridge && (a.number() % 2 != b.number() % 2)
            }
            Shape::Mute(mute) => a == *mute,
            Shape::Deaf(deaf) => b == *deaf,
            Shape::Row(row) => {
                let at = |id| row.iter().position(|other| *other == id);
                at(a).zip(at(b)).is_none_or(|(a, b)| a.abs_diff(b) > 1)
            }
            Shape::Arms(arms) => arms
                .iter()
                .any(|(arm, hand)| (a == *arm && b != *hand) || (b == *arm && a != *hand)),
            Shape::Directed(bits) => {
                let bit = (place(a) * self.replicas + place(b)) % 64;
                bits >> bit & 1 == 1
            }
        };
        let ids = || (1..=self.replicas as u16).map(ReplicaId::new);
        for (from, row) in ids().zip(&mut self.cuts) {
            for to in ids().filter(|to| *to != from && is_cut(from, *to)) {
                *row |= 1 << place(to);
            }
        }
    }

    /// Whether everything that leaves now on the way from one replica to another is lost.
    pub fn is_blocked(&self, from: ReplicaId, to: ReplicaId, now: Time) -> bool {
        let way = &self.ways[place(from) * self.replicas + place(to)];
        self.is_cut(from, to)
            || way.cut_until > now
            || way.flap.is_some_and(|flap| !flap.is_open(now))
    }

    /// Whether the way from one to the other is cut until it is joined.
    pub fn is_cut(&self, from: ReplicaId, to: ReplicaId) -> bool {
        self.cuts[place(from)] & 1 << place(to) != 0
    }

    /// What becomes of a message of this kind that leaves now and carries one value, if any.
    pub fn fate(&mut self, from: ReplicaId, to: ReplicaId, kind: Kind, now: Time) -> Fate {
        self.fate_of(from, to, kind, 1, now)
    }

    /// What becomes of a message of this kind with so many values.
    pub(super) fn fate_of(
        &mut self,
        from: ReplicaId,
        to: ReplicaId,
        kind: Kind,
        values: usize,
        now: Time,
    ) -> Fate {
        let way = *self.way(from, to);
        if self.is_blocked(from, to, now)
            || self.rules.iter().any(|rule| rule.covers(from, to, kind))
        {
            return Fate::Cut;
        }
        let lose = due(&mut self.lose_after[kind.index()]);
        let slowed = self.delays.iter().filter(|(rule, _)| rule.covers(from, to, kind));
        let held = slowed.map(|(_, delay)| *delay).sum::<Duration>();
        let repeat = |network: &mut Self| due(&mut network.repeat_after[kind.index()]);
        let paced = self.pass_in_turn(from, to, kind, values, now);
        self.passing(way, held + paced + way.clogged_until.since(now), lose, repeat)
    }

    fn pass_in_turn(
        &mut self,
        from: ReplicaId,
        to: ReplicaId,
        kind: Kind,
        values: usize,
        now: Time,
    ) -> Duration {
        let way = self.way(from, to);
        let (Some(pace), Kind::Accept | Kind::Fetched) = (way.pace, kind) else {
            return Duration::ZERO;
        };
        let free_at = &mut way.free_at[usize::from(kind == Kind::Fetched)];
        *free_at = (*free_at).max(now).after(pace * values as u32);
        free_at.since(now)
    }

    /// What becomes of a frame between hosts that is no message of the protocol.
    pub fn host_fate(&mut self, from: ReplicaId, to: ReplicaId, now: Time) -> Fate {
        if self.is_blocked(from, to, now) {
            return Fate::Cut;
        }
        let way = *self.way(from, to);
        self.passing(way, way.clogged_until.since(now), false, |_| false)
    }

    fn passing(
        &mut self,
        way: Way,
        held: Duration,
        lose: bool,
        repeat: impl FnOnce(&mut Self) -> bool,
    ) -> Fate {
        let weather = way.weather.unwrap_or(self.weather);
        if lose || self.rng.chance(weather.loss) {
            return Fate::Lost;
        }
        let first = held + self.delay(weather);
        if repeat(self) || self.rng.chance(weather.duplication) {
            return Fate::Twice(first, held + self.delay(weather));
        }
        Fate::Once(first)
    }

    fn delay(&mut self, weather: Weather) -> Duration {
        let delay = self.rng.duration(weather.delay_min, weather.delay_max);
        if self.rng.chance(weather.stragglers) {
            let doublings = 1 + self.rng.bits().trailing_zeros().min(12);
            (delay * (1 << doublings)).min(weather.tail_max).max(delay)
        } else {
            delay
        }
    }
}

/// Counts down; true once, when the count has run out.
fn due(count: &mut Option<u32>) -> bool {
    match count {
        Some(0) => {
            *count = None;
            true
        }
        Some(left) => {
            *left -= 1;
            false
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn id(number: u16) -> ReplicaId {
        ReplicaId::new(number)
    }

    fn links(shape: &Shape, replicas: usize) -> Vec<(u16, u16)> {
        let mut network = Network::new(replicas, Rng::new(0));
        network.shape(shape);
        let mut open = Vec::new();
        for a in 1..=replicas as u16 {
            for b in a + 1..=replicas as u16 {
                if !network.is_cut(id(a), id(b)) && !network.is_cut(id(b), id(a)) {
                    open.push((a, b));
                }
            }
        }
        open
    }

    #[test]
    fn shapes_leave_exactly_the_links_of_their_definition() {
        let quorum_loss = Shape::QuorumLoss { hub: id(3) };
        assert_eq!(links(&quorum_loss, 5), [(1, 3), (2, 3), (3, 4), (3, 5)]);
        let constrained = Shape::Constrained { leader: id(1), hub: id(3) };
        assert_eq!(links(&constrained, 5), [(2, 3), (3, 4), (3, 5)]);
        assert_eq!(links(&Shape::Chained(id(1), id(2)), 3), [(1, 3), (2, 3)]);
        assert_eq!(links(&Shape::Isolate(id(2)), 3), [(1, 3)]);
        assert_eq!(links(&Shape::Split(vec![id(1)]), 3), [(2, 3)]);
        let bridge = [(1, 2), (1, 3), (1, 4), (1, 5), (2, 4), (3, 5)];
        assert_eq!(links(&Shape::Bridge(id(1)), 5), bridge);
        let row = Shape::Row([2, 1, 3, 5, 4].map(id).to_vec());
        assert_eq!(links(&row, 5), [(1, 2), (1, 3), (3, 5), (4, 5)]);
        let arms = Shape::Arms([(id(4), id(2)), (id(5), id(3))]);
        assert_eq!(links(&arms, 5), [(1, 2), (1, 3), (2, 3), (2, 4), (3, 5)]);
        assert_eq!(links(&Shape::Mute(id(1)), 3), [(2, 3)]);
        assert_eq!(links(&Shape::Deaf(id(1)), 3), [(2, 3)]);
    }

    #[test]
    fn a_one_way_cut_leaves_the_way_back() {
        let mut network = Network::new(2, Rng::new(0));
        network.shape(&Shape::OneWay(id(1), id(2)));
        assert_eq!(network.fate(id(1), id(2), Kind::Commit, Time::ZERO), Fate::Cut);
        assert!(matches!(network.fate(id(2), id(1), Kind::Commit, Time::ZERO), Fate::Once(_)));
        let cut = |shape| {
            let mut network = Network::new(3, Rng::new(0));
            network.shape(&shape);
            [(1, 2), (2, 1), (2, 3)].map(|(from, to)| network.is_cut(id(from), id(to)))
        };
        assert_eq!(cut(Shape::Mute(id(1))), [true, false, false]);
        assert_eq!(cut(Shape::Deaf(id(1))), [false, true, false]);
    }

    #[test]
    fn what_is_forced_happens_once() {
        let mut network = Network::new(2, Rng::new(0));
        network.force(Kind::Accept, 1, 1);
        let mut fate = || network.fate(id(1), id(2), Kind::Accept, Time::ZERO);
        let fates: Vec<_> = (0..5).map(|_| fate()).collect();
        assert!(matches!(fates[0], Fate::Once(_)));
        assert_eq!(fates[1], Fate::Lost);
        let twice = fates.iter().filter(|f| matches!(f, Fate::Twice(..)));
        assert_eq!(twice.count(), 1);
    }

    const fn at(millis: u64) -> Time {
        Time::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn a_cut_for_a_while_ends_and_a_clog_delivers_at_its_end() {
        let mut network = Network::new(2, Rng::new(0));
        network.cut_until(id(1), id(2), at(10));
        network.clog_until(id(2), id(1), at(50));
        assert_eq!(network.fate(id(1), id(2), Kind::Accept, at(9)), Fate::Cut);
        assert!(matches!(network.fate(id(1), id(2), Kind::Accept, at(10)), Fate::Once(_)));
        let Fate::Once(delay) = network.fate(id(2), id(1), Kind::Accept, at(20)) else {
            panic!("a clog loses nothing");
        };
        assert!(at(20).after(delay) > at(50), "{delay:?}");
        assert!(delay <= Duration::from_millis(35), "{delay:?}");
    }

    #[test]
    fn a_flapping_link_is_cut_and_open_in_turns() {
        let mut network = Network::new(2, Rng::new(0));
        let ms = Duration::from_millis;
        network.flap(id(1), id(2), Flap { period: ms(10), open: ms(4) });
        let mut is_cut = |millis| network.fate(id(1), id(2), Kind::Accept, at(millis)) == Fate::Cut;
        assert_eq!([0, 3, 4, 9, 10, 14].map(&mut is_cut), [false, false, true, true, false, true]);
    }

    #[test]
    fn values_on_a_way_with_a_pace_pass_one_after_the_other_and_the_rest_beside_them() {
        let mut network = Network::new(2, Rng::new(0));
        let ms = Duration::from_millis;
        network.set_pace(id(1), id(2), Some(ms(100)));
        let mut took = |kind, values| match network.fate_of(id(1), id(2), kind, values, at(0)) {
            Fate::Once(delay) => delay.as_millis() / 100,
            fate @ (Fate::Cut | Fate::Lost | Fate::Twice(..)) => panic!("it is calm: {fate:?}"),
        };
        assert_eq!([took(Kind::Accept, 1), took(Kind::Accept, 3)], [1, 4]);
        assert_eq!([took(Kind::Fetched, 2), took(Kind::Heartbeat, 1)], [2, 0]);
        assert_eq!(network.backlog(id(1), id(2), at(50)), 3);
        assert_eq!(network.backlog(id(2), id(1), at(50)), 0);
        network.set_pace(id(1), id(2), None);
        assert!(
            matches!(network.fate(id(1), id(2), Kind::Accept, at(0)), Fate::Once(d) if d < ms(9))
        );
    }

    #[test]
    fn a_delayed_kind_is_late_a_link_has_its_own_weather_and_tails_are_heavy_and_bounded() {
        let mut network = Network::new(3, Rng::new(0));
        let ms = Duration::from_millis;
        network.add_delay(Rule::all(Kind::Accepted), ms(900));
        let delay = |fate| match fate {
            Fate::Once(delay) => delay,
            Fate::Cut | Fate::Lost | Fate::Twice(..) => panic!("the network is calm: {fate:?}"),
        };
        assert!(delay(network.fate(id(1), id(2), Kind::Accepted, at(0))) > ms(900));
        assert!(delay(network.fate(id(1), id(2), Kind::Accept, at(0))) < ms(900));
        network.clear_rules();
        let storm = Weather { loss: 1000, ..Weather::CALM };
        network.set_link_weather(id(1), id(3), Some(storm));
        assert_eq!(network.fate(id(1), id(3), Kind::Accept, at(0)), Fate::Lost);
        assert_ne!(network.fate(id(3), id(1), Kind::Accept, at(0)), Fate::Lost);
        network.set_weather(Weather { stragglers: 1000, tail_max: ms(2000), ..Weather::CALM });
        let delays: Vec<_> =
            (0..2000).map(|_| delay(network.fate(id(1), id(2), Kind::Accept, at(0)))).collect();
        assert_eq!(delays.iter().max(), Some(&ms(2000)));
        let late = delays.iter().filter(|delay| **delay > ms(100)).count();
        assert!((10..200).contains(&late), "{late} of 2000 are later than 100 ms");
    }
}
