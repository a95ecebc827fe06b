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
use crate::ids::ReplicaId;

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
    /// How many of a thousand take up to ten times as long.
    pub stragglers: u32,
}

impl Weather {
    /// Nothing is lost or repeated; each message takes 1 to 5 ms.
    pub const CALM: Self = Self {
        loss: 0,
        duplication: 0,
        delay_min: Duration::from_millis(1),
        delay_max: Duration::from_millis(5),
        stragglers: 0,
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
    /// Each pair of directions is cut one way, at random by these bits.
    Directed(u64),
}

/// Drops messages of one kind, where a script asks for it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rule {
    /// The kind to drop.
    pub kind: Kind,
    /// From this replica only.
    pub from: Option<ReplicaId>,
    /// To this replica only.
    pub to: Option<ReplicaId>,
}

impl Rule {
    /// Whether it is about such a message.
    pub fn covers(&self, from: ReplicaId, to: ReplicaId, kind: Kind) -> bool {
        self.kind == kind
            && self.from.is_none_or(|id| id == from)
            && self.to.is_none_or(|id| id == to)
    }
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
    rules: Vec<Rule>,
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
            rules: Vec::new(),
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

    /// Forgets all rules.
    pub fn clear_rules(&mut self) {
        self.rules.clear();
    }

    /// Cuts the way from one replica to another.
    pub fn cut(&mut self, from: ReplicaId, to: ReplicaId) {
        self.cuts[place(from)] |= 1 << place(to);
    }

    /// Opens the way from one replica to another.
    pub fn join(&mut self, from: ReplicaId, to: ReplicaId) {
        self.cuts[place(from)] &= !(1 << place(to));
    }

    /// Opens every way.
    pub fn heal(&mut self) {
        self.cuts.fill(0);
    }

    /// Takes the weather, the cuts, the rules and all that was to be forced away.
    pub fn calm(&mut self) {
        self.heal();
        self.rules.clear();
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

    /// Whether a message from one to the other would meet a cut.
    pub fn is_cut(&self, from: ReplicaId, to: ReplicaId) -> bool {
        self.cuts[place(from)] & 1 << place(to) != 0
    }

    /// What becomes of a message of this kind.
    pub fn fate(&mut self, from: ReplicaId, to: ReplicaId, kind: Kind) -> Fate {
        let ruled = |rule: &Rule| rule.covers(from, to, kind);
        if self.is_cut(from, to) || self.rules.iter().any(ruled) {
            return Fate::Cut;
        }
        let lose = due(&mut self.lose_after[kind.index()]);
        let repeat = |network: &mut Self| due(&mut network.repeat_after[kind.index()]);
        self.passing(lose, repeat)
    }

    /// What becomes of a frame between hosts that is no message of the protocol.
    pub fn host_fate(&mut self, from: ReplicaId, to: ReplicaId) -> Fate {
        if self.is_cut(from, to) {
            return Fate::Cut;
        }
        self.passing(false, |_| false)
    }

    fn passing(&mut self, lose: bool, repeat: impl FnOnce(&mut Self) -> bool) -> Fate {
        if lose || self.rng.chance(self.weather.loss) {
            return Fate::Lost;
        }
        let first = self.delay();
        if repeat(self) || self.rng.chance(self.weather.duplication) {
            return Fate::Twice(first, self.delay());
        }
        Fate::Once(first)
    }

    fn delay(&mut self) -> Duration {
        let weather = self.weather;
        let delay = self.rng.duration(weather.delay_min, weather.delay_max);
        if self.rng.chance(weather.stragglers) {
            delay * self.rng.between(2, 10) as u32
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
    }

    #[test]
    fn a_one_way_cut_leaves_the_way_back() {
        let mut network = Network::new(2, Rng::new(0));
        network.shape(&Shape::OneWay(id(1), id(2)));
        assert_eq!(network.fate(id(1), id(2), Kind::Commit), Fate::Cut);
        assert!(matches!(network.fate(id(2), id(1), Kind::Commit), Fate::Once(_)));
    }

    #[test]
    fn what_is_forced_happens_once() {
        let mut network = Network::new(2, Rng::new(0));
        network.force(Kind::Accept, 1, 1);
        let fates: Vec<_> = (0..5).map(|_| network.fate(id(1), id(2), Kind::Accept)).collect();
        assert!(matches!(fates[0], Fate::Once(_)));
        assert_eq!(fates[1], Fate::Lost);
        let twice = fates.iter().filter(|f| matches!(f, Fate::Twice(..)));
        assert_eq!(twice.count(), 1);
    }
}
