//! The directed scheduler: short scripts of faults aimed at places known to be hard.
//!
//! Owns: [`Spot`], each a story that a random schedule tells too seldom.
//! Source: the scenarios that need three ballots or two crashes at named moments, which random
//! walks missed when planted bugs were searched for; the partitions of the Omni-Paxos paper.

use core::time::Duration;

use super::disk::DiskFault;
use super::fault::{Ambush, Blow, Cue, Fact, Fault, Side, Target};
use super::kind::Kind;
use super::network::{Rule, Weather};
use super::options::Options;
use super::portfolio::{any_order, draw_weather};
use super::rng::Rng;
use crate::ids::{ReplicaId, Time};

/// A place known to be hard.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Spot {
    /// A leader dies when its Accepts are on the wire and its own vote is not on its disk.
    LeaderDiesBeforeItsSync,
    /// A leader dies when its own vote is on its disk, or on those of a few.
    LeaderDiesAfterItsSync,
    /// Every new leader reaches one other only, so that votes of three and more ballots meet.
    ManyBallots,
    /// No vote is counted for a while, and leaders come and go.
    NothingIsChosen,
    /// Promises are lost, and asked for again.
    PromisesLost,
    /// A leader stands still past its time, with proposals in flight, and goes on.
    LeaderPaused,
    /// A candidate is cut off in some phase of its campaign.
    CampaignCut,
    /// Promisers die before or after their promise is on the disk.
    PromiserDies,
    /// Acceptors die before or after their vote is on the disk.
    AcceptorDies,
    /// Votes arrive at a leader that has been elected anew since.
    OldAcks,
    /// Proposals and promises arrive when others lead.
    OldProposals,
    /// Directories are lost, around the votes of their owners.
    Wiped,
    /// Everybody loses power, at a named moment of one of them.
    WholeCluster,
    /// A replica dies again and again while it starts.
    DiesAtRecovery,
    /// One falls far behind and then has to lead.
    LaggardLeads,
    /// Candidates outbid each other over a slow network.
    Duel,
    /// A leader is heard and hears nothing, or the other way round.
    HalfDeafLeader,
    /// Clocks stand still, run off and jump while leaders change.
    Clocks,
    /// The word that values are chosen is lost.
    WatermarksLost,
    /// The network falls apart as soon as somebody leads.
    SplitAtElection,
    /// Disks have no space left, most often all of them, so that whoever leads meets it.
    FullDisks,
    /// Leaders make way, and something happens to them, to the other one, or on the way.
    Transfer,
}

impl Spot {
    /// Every spot.
    pub const ALL: [Self; 22] = [
        Self::LeaderDiesBeforeItsSync,
        Self::LeaderDiesAfterItsSync,
        Self::ManyBallots,
        Self::NothingIsChosen,
        Self::PromisesLost,
        Self::LeaderPaused,
        Self::CampaignCut,
        Self::PromiserDies,
        Self::AcceptorDies,
        Self::OldAcks,
        Self::OldProposals,
        Self::Wiped,
        Self::WholeCluster,
        Self::DiesAtRecovery,
        Self::LaggardLeads,
        Self::Duel,
        Self::HalfDeafLeader,
        Self::Clocks,
        Self::WatermarksLost,
        Self::SplitAtElection,
        Self::FullDisks,
        Self::Transfer,
    ];

    /// The faults of a run that aims here, and when they end.
    pub(super) fn draw(self, options: &Options, rng: &mut Rng) -> (Vec<(Time, Fault)>, Time) {
        let timeout = options.election_timeout();
        let length = timeout * rng.between(8, 14) as u32;
        let mut aim = Aim { options, rng, timeout, length, faults: Vec::new() };
        aim.breeze();
        self.write(&mut aim);
        let end = Time::ZERO.after(length);
        let faults = aim.faults.into_iter().map(|(at, fault)| (at.min(end), fault));
        (faults.collect(), end)
    }

    fn write(self, aim: &mut Aim<'_>) {
        let few = aim.rng.between(1, 4) as u32;
        let crash = aim.crash();
        match self {
            Self::LeaderDiesBeforeItsSync => {
                aim.ambush(Target::Leader, Cue::Sending(Kind::Accept), few, crash);
            }
            Self::LeaderDiesAfterItsSync => {
                aim.ambush(Target::Leader, Cue::Written(Fact::Accepted), few, crash);
            }
            Self::ManyBallots => aim.many_ballots(few, crash),
            Self::NothingIsChosen => {
                aim.lose(Kind::Accepted, 20, 80);
                let cut = aim.timeouts(10, 20);
                let blow =
                    if aim.rng.chance(500) { Blow::CutAllButOne(cut) } else { Blow::Pause(cut) };
                aim.ambush(Target::Leader, Cue::Sending(Kind::Accept), 4, blow);
            }
            Self::PromisesLost => {
                aim.lose(Kind::Promise, 5, 30);
                aim.unseat(3);
            }
            Self::LeaderPaused => {
                let pause = aim.timeouts(11, 40);
                aim.ambush(Target::Leader, Cue::Sending(Kind::Accept), few, Blow::Pause(pause));
            }
            Self::CampaignCut => aim.campaign_cut(),
            Self::PromiserDies => {
                let cue = aim.at_write(Fact::Promised);
                aim.ambush(Target::Any, cue, few, crash);
                aim.unseat(3);
            }
            Self::AcceptorDies => {
                let cue = aim.at_write(Fact::Accepted);
                aim.ambush(Target::Follower, cue, 2 * few, crash);
                aim.unseat(1);
            }
            Self::OldAcks => aim.old_acks(),
            Self::OldProposals => {
                let kind = *aim.rng.pick(&[Kind::Accept, Kind::Prepare, Kind::Promise]);
                let late = aim.timeouts(10, 30);
                aim.hold_up(kind, late);
                aim.unseat(3);
            }
            Self::Wiped => aim.wiped(),
            Self::WholeCluster => aim.whole_cluster(),
            Self::DiesAtRecovery => aim.dies_at_recovery(),
            Self::LaggardLeads => aim.laggard_leads(),
            Self::Duel => aim.duel(),
            Self::HalfDeafLeader => aim.half_deaf_leader(),
            Self::Clocks => aim.clocks(),
            Self::WatermarksLost => {
                aim.lose(Kind::Commit, 10, 80);
                if aim.rng.chance(500) {
                    aim.lose(Kind::Fetched, 10, 80);
                }
                aim.unseat(2);
            }
            Self::FullDisks => aim.full_disks(),
            Self::Transfer => aim.transfer(),
            Self::SplitAtElection => {
                let cut = aim.timeouts(5, 30);
                let side = aim.side();
                aim.ambush(Target::Any, Cue::Leading, few, Blow::Cut(side, cut));
                aim.unseat(2);
            }
        }
    }
}

/// What a script is drawn with.
struct Aim<'a> {
    options: &'a Options,
    rng: &'a mut Rng,
    timeout: Duration,
    length: Duration,
    faults: Vec<(Time, Fault)>,
}

impl Aim<'_> {
    /// From `low` to `high` tenths of an election timeout.
    fn timeouts(&mut self, low: u32, high: u32) -> Duration {
        self.rng.duration(self.timeout * low / 10, self.timeout * high / 10)
    }

    /// A time in the first so many tenths of the run.
    fn when(&mut self, tenths: u32) -> Time {
        Time::ZERO.after(self.rng.duration(self.timeout, self.length * tenths / 10))
    }

    fn any(&mut self) -> ReplicaId {
        ReplicaId::new(self.rng.between(1, u64::from(self.options.replicas)) as u16)
    }

    fn side(&mut self) -> Side {
        *self.rng.pick(&[Side::Both, Side::In, Side::Out])
    }

    fn crash(&mut self) -> Blow {
        Blow::Crash(any_order(self.rng, Duration::from_millis(5), self.timeout * 3))
    }

    fn at_write(&mut self, fact: Fact) -> Cue {
        if self.rng.chance(500) { Cue::Writing(fact) } else { Cue::Written(fact) }
    }

    fn push(&mut self, at: Time, fault: Fault) {
        self.faults.push((at, fault));
    }

    fn many_ballots(&mut self, few: u32, crash: Blow) {
        let cut = self.timeouts(10, 25);
        let blow =
            if self.rng.chance(700) { Blow::CutAllButOne(cut) } else { Blow::Cut(Side::Out, cut) };
        self.ambush(Target::Leader, Cue::Leading, 5, blow);
        if self.rng.chance(300) {
            self.ambush(Target::Leader, Cue::Sending(Kind::Accept), few, crash);
        }
    }

    /// A little loss, or none: what is aimed at should happen.
    fn breeze(&mut self) {
        let weather = match self.rng.below(4) {
            0 => draw_weather(self.rng),
            1 => Weather { loss: self.rng.below(100) as u32, ..Weather::CALM },
            _ => Weather::CALM,
        };
        self.push(Time::ZERO, Fault::Weather(weather));
    }

    fn ambush(&mut self, whom: Target, cue: Cue, times: u32, blow: Blow) {
        let at = self.when(5);
        let after = if self.rng.chance(500) { 0 } else { self.rng.below(8) as u32 };
        self.push(at, Fault::Ambush(Ambush { whom, cue, after, times, blow }));
    }

    /// Loses a kind of message for `low` to `high` tenths of an election timeout.
    fn lose(&mut self, kind: Kind, low: u32, high: u32) {
        let at = self.when(4);
        let rule = match self.rng.below(3) {
            0 => Rule { to: Some(self.any()), ..Rule::all(kind) },
            1 => Rule { from: Some(self.any()), ..Rule::all(kind) },
            _ => Rule::all(kind),
        };
        self.push(at, Fault::Drop(rule));
        let until = at.after(self.timeouts(low, high));
        self.push(until, Fault::Pass);
    }

    /// Delays a kind of message for half of the run.
    fn hold_up(&mut self, kind: Kind, late: Duration) {
        let at = self.when(3);
        self.push(at, Fault::Delay(Rule::all(kind), late));
        self.push(at.after(self.length / 2), Fault::Pass);
    }

    /// Ends reigns, some by a crash and some by a cut.
    fn unseat(&mut self, times: u32) {
        for _ in 0..times {
            let (at, time) = (self.when(8), self.timeouts(3, 25));
            let side = self.side();
            let fault = match self.rng.below(3) {
                0 => Fault::Crash(Target::Leader, time),
                1 => Fault::Pause(Target::Leader, time),
                _ => Fault::Sever(Target::Leader, side, time),
            };
            self.push(at, fault);
        }
    }

    fn campaign_cut(&mut self) {
        let phases = [
            Cue::Writing(Fact::Promised),
            Cue::Sending(Kind::Prepare),
            Cue::Hearing(Kind::Promise),
            Cue::Leading,
            Cue::Sending(Kind::Accept),
            Cue::Hearing(Kind::Accepted),
        ];
        for _ in 0..self.rng.between(1, 3) {
            let (phase, side) = (*self.rng.pick(&phases), self.side());
            let time = self.timeouts(5, 30);
            let blow = match self.rng.below(4) {
                0 => Blow::CutAllButOne(time),
                1 => Blow::Pause(time),
                _ => Blow::Cut(side, time),
            };
            self.ambush(Target::Any, phase, 2, blow);
        }
        self.unseat(3);
    }

    /// One replica is elected again and again, and its voters' answers come late.
    fn old_acks(&mut self) {
        let leader = self.any();
        for other in (1..=self.options.replicas).map(ReplicaId::new).filter(|id| *id != leader) {
            let rule = Rule { from: Some(other), ..Rule::all(Kind::Prepare) };
            self.push(Time::ZERO, Fault::Drop(rule));
        }
        let late = self.timeouts(10, 40);
        let from = self.when(2);
        self.push(from, Fault::Delay(Rule::all(Kind::Accepted), late));
        for _ in 0..self.rng.between(2, 5) {
            let (at, time) = (self.when(7), self.timeouts(5, 15));
            let side = self.side();
            self.push(at, Fault::Sever(Target::One(leader), side, time));
        }
        self.push(Time::ZERO.after(self.length * 9 / 10), Fault::Pass);
    }

    fn wiped(&mut self) {
        for _ in 0..self.rng.between(1, 3) {
            let at = self.when(7);
            let whom = *self.rng.pick(&[Target::Leader, Target::Follower, Target::Any]);
            let down = any_order(self.rng, Duration::from_millis(1), self.timeout);
            self.push(at, Fault::Wipe(whom, down));
        }
        self.unseat(3);
    }

    fn whole_cluster(&mut self) {
        for _ in 0..self.rng.between(1, 3) {
            let at = self.when(9);
            let within = any_order(self.rng, Duration::from_millis(5), self.timeout);
            let fact = *self.rng.pick(&[Fact::Promised, Fact::Accepted, Fact::Committed]);
            let cue = self.at_write(fact);
            let crash = self.crash();
            self.ambush(Target::Any, cue, 2, crash);
            self.push(at, Fault::CrashAll(within));
        }
    }

    fn dies_at_recovery(&mut self) {
        for _ in 0..self.rng.between(1, 3) {
            let (id, at) = (self.any(), self.when(7));
            let times = self.rng.between(1, 5) as u32;
            let blow = Blow::Crash(any_order(self.rng, Duration::from_millis(5), self.timeout / 2));
            let (whom, cue) = (Target::One(id), Cue::Recovering);
            self.push(at, Fault::Ambush(Ambush { whom, cue, after: 0, times, blow }));
            let down = self.timeouts(0, 5);
            self.push(at, Fault::Crash(whom, down));
        }
    }

    fn laggard_leads(&mut self) {
        let (id, at) = (self.any(), self.when(2));
        let away = self.length / 2;
        self.push(at, Fault::Sever(Target::One(id), Side::Both, away));
        let back = at.after(away);
        for other in (1..=self.options.replicas).map(ReplicaId::new).filter(|other| *other != id) {
            let rule = Rule { from: Some(other), ..Rule::all(Kind::Prepare) };
            self.push(back, Fault::Drop(rule));
        }
        let down = self.timeouts(5, 30);
        self.push(back, Fault::Crash(Target::Leader, down));
        let fetching = Cue::Hearing(Kind::Fetched);
        if self.rng.chance(500) {
            let crash = self.crash();
            let whom = Target::One(id);
            let after = self.rng.below(6) as u32;
            let ambush = Ambush { whom, cue: fetching, after, times: 2, blow: crash };
            self.push(back, Fault::Ambush(ambush));
        }
    }

    fn duel(&mut self) {
        let delay_max = self.timeout / self.rng.between(3, 8) as u32;
        let (delay_min, tail_max) = (delay_max / 2, self.timeout * 2);
        let weather =
            Weather { delay_min, delay_max, stragglers: 50, tail_max, loss: 0, duplication: 0 };
        self.push(Time::ZERO, Fault::Weather(weather));
        self.unseat(4);
    }

    fn full_disks(&mut self) {
        let all = self.rng.chance(700);
        for id in (1..=self.options.replicas).map(ReplicaId::new) {
            if all || self.rng.chance(500) {
                let (at, full) = (self.when(5), self.timeouts(10, 50));
                self.push(at, Fault::Disk(id, DiskFault::Full));
                self.push(at.after(full), Fault::Disk(id, DiskFault::Space));
            }
        }
        self.unseat(1);
    }

    fn transfer(&mut self) {
        let phases = [
            Cue::Sending(Kind::Transfer),
            Cue::Hearing(Kind::Transfer),
            Cue::Sending(Kind::Prepare),
            Cue::Hearing(Kind::Prepare),
            Cue::Writing(Fact::Promised),
            Cue::Leading,
        ];
        for _ in 0..self.rng.between(0, 2) {
            let (phase, side) = (*self.rng.pick(&phases), self.side());
            let time = self.timeouts(3, 25);
            let crash = self.crash();
            let blow = match self.rng.below(4) {
                0 => crash,
                1 => Blow::Pause(time),
                2 => Blow::CutAllButOne(time),
                _ => Blow::Cut(side, time),
            };
            self.ambush(Target::Any, phase, 2, blow);
        }
        match self.rng.below(4) {
            0 => self.lose(Kind::Transfer, 5, 40),
            1 => {
                let late = self.timeouts(3, 30);
                self.hold_up(Kind::Transfer, late);
            }
            2 => self.lose(Kind::Accepted, 5, 20),
            _ => {}
        }
        let step = self.timeouts(2, 15);
        let mut at = self.when(3);
        while at < Time::ZERO.after(self.length) {
            let to = self.any();
            self.push(at, Fault::Transfer(to));
            at = at.after(step);
        }
        self.unseat(1);
    }

    fn half_deaf_leader(&mut self) {
        for _ in 0..self.rng.between(2, 4) {
            let (at, time) = (self.when(8), self.timeouts(10, 40));
            let side = *self.rng.pick(&[Side::In, Side::Out]);
            self.push(at, Fault::Sever(Target::Leader, side, time));
        }
    }

    fn clocks(&mut self) {
        for id in (1..=self.options.replicas).map(ReplicaId::new) {
            let (at, still) = (self.when(6), self.timeouts(5, 40));
            match self.rng.below(3) {
                0 => {
                    self.push(at, Fault::ClockRate(id, self.options.clock_rate(0)));
                    self.push(at.after(still), Fault::ClockRate(id, 1_000_000));
                }
                1 => {
                    let rate = self.rng.between(500_000, 1_500_000);
                    self.push(at, Fault::ClockRate(id, self.options.clock_rate(rate)));
                    self.push(at.after(still), Fault::ClockRate(id, 1_000_000));
                }
                _ => {
                    let hour = 3_600_000;
                    let millis = self.rng.between(0, 2 * hour).cast_signed() - hour.cast_signed();
                    self.push(at, Fault::WallClock(id, millis));
                }
            }
        }
        self.unseat(3);
    }
}
