//! A schedule of faults for the simulator: `paxos_core::sim::Plan`.
//!
//! The first bytes choose the cluster as a seed does, the others one fault after another, within the
//! bounds that the portfolio draws in. Every invariant must hold, and when the faults are over a core
//! must make progress. Damage to disks is left to the portfolio, whose atlas keeps it to a minority.

use core::time::Duration;

use paxos_core::ids::{ReplicaId, Time};
use paxos_core::sim::{
    Ambush, Blow, Cue, Fact, Fault, Kind, Limits, Plan, Profile, Rule, Shape, Side, SimDisk,
    Target, Weather, run_plan_on,
};

use super::input::Input;

/// More faults than this make a run slow, and say nothing that fewer do not.
const FAULTS_MAX: usize = 24;

pub(super) fn run(data: &[u8]) {
    let limits = Limits {
        profile: Profile::Uniform,
        replicas_max: 5,
        clients: 2,
        commands: 16,
        ..Limits::default()
    };
    let mut draw = Draw::new(Input::new(data), &limits);
    while !draw.input.is_empty() && draw.count < FAULTS_MAX {
        draw.count += 1;
        draw.fault();
    }
    let plan = draw.finish();
    let outcome = run_plan_on(&plan, &limits, |format| Box::new(SimDisk::new(format)));
    if let Some(violation) = outcome.violation {
        panic!("{violation}\n{:#?}", plan.faults);
    }
}

struct Draw<'a> {
    input: Input<'a>,
    plan: Plan,
    replicas: u16,
    now: Time,
    end: Time,
    count: usize,
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

impl<'a> Draw<'a> {
    fn new(mut input: Input<'a>, limits: &Limits) -> Self {
        let plan = Plan::new(u64::from(input.u16()), limits);
        let replicas = plan.options.replicas;
        let plan = Plan { faults: Vec::new(), forced: Vec::new(), doomed: Vec::new(), ..plan };
        Self { input, plan, replicas, now: Time::ZERO, end: Time::ZERO, count: 0 }
    }

    fn finish(mut self) -> Plan {
        self.plan.faults.sort_by_key(|(at, _)| *at);
        self.plan.end = self.end.after(ms(1));
        self.plan
    }

    fn push(&mut self, at: Time, fault: Fault) {
        self.end = self.end.max(at);
        self.plan.faults.push((at, fault));
    }

    /// A time of an order of magnitude below `2^orders` milliseconds.
    fn time(&mut self, orders: usize) -> Duration {
        ms(1 << self.input.below(orders))
    }

    fn one(&mut self) -> ReplicaId {
        ReplicaId::new(self.input.below(usize::from(self.replicas)) as u16 + 1)
    }

    /// Two replicas; one twice where there is one only.
    fn two(&mut self) -> (ReplicaId, ReplicaId) {
        let one = self.one();
        let step = 1 + self.input.below(usize::from(self.replicas) - 1) as u16;
        (one, ReplicaId::new((one.number() - 1 + step) % self.replicas + 1))
    }

    fn whom(&mut self) -> Target {
        match self.input.below(4) {
            0 => Target::Leader,
            1 => Target::Follower,
            _ => Target::One(self.one()),
        }
    }

    fn kind(&mut self) -> Kind {
        Kind::ALL[self.input.below(Kind::ALL.len())]
    }

    fn side(&mut self) -> Side {
        [Side::Both, Side::In, Side::Out][self.input.below(3)]
    }

    fn rule(&mut self) -> Rule {
        let kind = self.kind();
        let (from, to) = self.two();
        match self.input.below(3) {
            0 => Rule::all(kind),
            1 => Rule { kind, from: Some(from), to: None },
            _ => Rule { kind, from: Some(from), to: Some(to) },
        }
    }

    fn fault(&mut self) {
        self.now = self.now.after(ms(u64::from(self.input.byte()) * 2));
        let at = self.now;
        let alone = self.replicas < 2;
        let fault = match self.input.below(16) {
            0 => Fault::Crash(self.whom(), self.time(10)),
            1 => Fault::CrashAll(self.time(10)),
            2 => Fault::Pause(self.whom(), self.time(14)),
            3 => Fault::Ambush(self.ambush()),
            _ if alone => Fault::Heal,
            4 => Fault::Cut(self.shape()),
            5 => {
                let (from, to) = self.two();
                Fault::CutFor(from, to, self.time(12))
            }
            6 => Fault::Sever(self.whom(), self.side(), self.time(12)),
            7 => Fault::Heal,
            8 => {
                let (from, to) = self.two();
                Fault::Clog(from, to, self.time(13))
            }
            9 => Fault::Weather(self.weather()),
            10 => {
                let (from, to) = self.two();
                Fault::Link(from, to, self.weather())
            }
            11 => Fault::Drop(self.rule()),
            12 => Fault::Delay(self.rule(), self.time(12)),
            13 => Fault::Pass,
            14 => Fault::Wipe(self.whom(), self.time(10)),
            _ => self.clock(at),
        };
        self.push(at, fault);
    }

    fn clock(&mut self, at: Time) -> Fault {
        let id = self.one();
        match self.input.below(3) {
            0 => Fault::ClockRate(id, 800_000 + u32::from(self.input.byte()) * 1_764),
            1 => {
                let still = self.time(12);
                self.push(at.after(still), Fault::ClockRate(id, 1_000_000));
                Fault::ClockRate(id, 0)
            }
            _ => Fault::WallClock(id, (i64::from(self.input.byte()) - 128) * 28_000),
        }
    }

    fn ambush(&mut self) -> Ambush {
        let fact = Fact::ALL[self.input.below(Fact::ALL.len())];
        let cue = match self.input.below(6) {
            0 => Cue::Writing(fact),
            1 => Cue::Written(fact),
            2 => Cue::Sending(self.kind()),
            3 => Cue::Hearing(self.kind()),
            4 => Cue::Leading,
            _ => Cue::Recovering,
        };
        let blow = match self.input.below(4) {
            0 => Blow::Crash(self.time(10)),
            1 => Blow::Pause(self.time(12)),
            2 => Blow::Cut(self.side(), self.time(12)),
            _ => Blow::CutAllButOne(self.time(12)),
        };
        let (after, times) = (self.input.below(4) as u32, 1 + self.input.below(2) as u32);
        Ambush { whom: self.whom(), cue, after, times, blow }
    }

    fn shape(&mut self) -> Shape {
        let (one, other) = self.two();
        match self.input.below(8) {
            0 => Shape::Isolate(one),
            1 => {
                let side = self.input.byte();
                let ids = (1..=self.replicas).filter(|id| side >> (id - 1) & 1 == 1);
                Shape::Split(ids.map(ReplicaId::new).collect())
            }
            2 => Shape::OneWay(one, other),
            3 => Shape::QuorumLoss { hub: one },
            4 => Shape::Constrained { leader: one, hub: other },
            5 => Shape::Chained(one, other),
            6 => Shape::Bridge(one),
            _ => Shape::Directed(u64::from(self.input.u16()) * 0x0001_0001_0001_0001),
        }
    }

    fn weather(&mut self) -> Weather {
        let part = |byte: u8, most: u32| u32::from(byte) * most / 255;
        let delay_min = self.time(5);
        Weather {
            loss: part(self.input.byte(), 300),
            duplication: part(self.input.byte(), 500),
            delay_min,
            delay_max: delay_min + self.time(7),
            stragglers: part(self.input.byte(), 100),
            tail_max: ms(100) + self.time(12),
        }
    }
}
