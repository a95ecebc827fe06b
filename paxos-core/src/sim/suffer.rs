//! How faults happen to a cluster.
//!
//! Owns: [`Trouble`], what waits to strike and what is lost for good; how each [`Fault`] is done.
//! Draws only whom a fault strikes where it names a role.
//! Invariant: never more disks are lost than leaves both quorums among those that are not, and only
//! those whose owner's life all others durably remember: beyond that nothing is promised
//! (protocol.md §11).

use core::time::Duration;

use super::cluster::Cluster;
use super::disk::{DiskFault, Harm};
use super::fault::{Ambush, Blow, Cue, Fact, Fault, FaultKind, Side, Target};
use crate::ids::ReplicaId;
use crate::output::Role;
use crate::quorum::VoterSet;
use crate::trace::Event;

/// What waits to strike, and what cannot be made good any more.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    ambushes: Vec<Ambush>,
    /// Replicas that stay down.
    pub(super) down: VoterSet,
    /// Replicas whose directory was taken away: they must stop.
    pub(super) wiped: VoterSet,
    /// Replicas that were started from an old copy of their directory.
    pub(super) copies: VoterSet,
    /// Replicas whose disk was damaged, lied, or is an old copy: they may stop at any time.
    damaged: VoterSet,
    /// Replicas whose disk the plan is going to damage.
    pub(super) doomed: VoterSet,
}

/// The place of a replica: its number less one, as the voters are numbered from 1.
pub(super) const fn seat(id: ReplicaId) -> usize {
    id.number() as usize - 1
}

impl Trouble {
    /// Whether something waits for its moment.
    pub(super) fn is_lurking(&self) -> bool {
        !self.ambushes.is_empty()
    }

    /// Forgets what waits for its moment.
    pub(super) fn disarm(&mut self) {
        self.ambushes.clear();
    }
}

impl Cluster {
    /// Lets a fault happen.
    pub fn suffer(&mut self, fault: &Fault) {
        self.remark(format!("{fault:?}"));
        self.totals.faults[FaultKind::of(fault).index()] += 1;
        match fault {
            Fault::Crash(whom, down) => {
                if let Some(id) = self.find(*whom) {
                    self.deal(id, Blow::Crash(*down));
                }
            }
            Fault::CrashAll(within) => {
                for id in self.ids() {
                    let down = self.rng.duration(Duration::ZERO, *within);
                    self.deal(id, Blow::Crash(down));
                }
            }
            Fault::Pause(whom, pause) => {
                if let Some(id) = self.find(*whom) {
                    self.pause(id, *pause);
                }
            }
            Fault::Sever(whom, side, duration) => {
                if let Some(id) = self.find(*whom) {
                    self.deal(id, Blow::Cut(*side, *duration));
                }
            }
            Fault::Ambush(ambush) => self.lie_in_wait(*ambush),
            Fault::ClockRate(id, rate) => self.set_clock_rate(*id, *rate),
            Fault::WallClock(id, millis) => self.node_mut(*id).clock.wall_offset = *millis,
            Fault::Wipe(whom, down) => {
                if let Some(id) = self.find(*whom) {
                    self.crash(id);
                    if self.may_lose(id) {
                        self.wipe(id);
                    }
                    self.restart_after(id, *down);
                }
            }
            Fault::Disk(id, fault) => self.suffer_disk(*id, *fault),
            Fault::Transfer(to) => self.ask_to_make_way(*to),
            Fault::Change(bits) => self.ask_for_change(*bits),
            Fault::Cut(_)
            | Fault::CutFor(..)
            | Fault::Heal
            | Fault::Clog(..)
            | Fault::Weather(_)
            | Fault::Link(..)
            | Fault::Drop(_)
            | Fault::Delay(..)
            | Fault::Pass => self.suffer_network(fault),
        }
    }

    fn suffer_disk(&mut self, id: ReplicaId, fault: DiskFault) {
        let before = self.totals.disk_faults;
        self.strike(id, fault);
        if self.totals.disk_faults > before && fault.harm() != Harm::Passing {
            self.trouble.damaged.insert(seat(id));
        }
    }

    fn suffer_network(&mut self, fault: &Fault) {
        let now = self.now;
        match fault {
            Fault::Cut(shape) => {
                self.totals.partitions += 1;
                self.network.shape(shape);
            }
            Fault::CutFor(from, to, duration) => {
                self.network.cut_until(*from, *to, now.after(*duration));
            }
            Fault::Heal => self.network.heal(),
            Fault::Clog(from, to, duration) => {
                self.network.clog_until(*from, *to, now.after(*duration));
            }
            Fault::Weather(weather) => self.network.set_weather(*weather),
            Fault::Link(from, to, weather) => {
                self.network.set_link_weather(*from, *to, Some(*weather));
            }
            Fault::Drop(rule) => self.network.add_rule(*rule),
            Fault::Delay(rule, delay) => self.network.add_delay(*rule, *delay),
            Fault::Pass => self.network.clear_rules(),
            Fault::Crash(..)
            | Fault::CrashAll(_)
            | Fault::Pause(..)
            | Fault::Ambush(_)
            | Fault::Sever(..)
            | Fault::ClockRate(..)
            | Fault::WallClock(..)
            | Fault::Disk(..)
            | Fault::Transfer(_)
            | Fault::Change(_)
            | Fault::Wipe(..) => unreachable!("only the network is left: {fault:?}"),
        }
    }

    /// Lets something strike as soon as its moment has come.
    pub(super) fn lie_in_wait(&mut self, ambush: Ambush) {
        self.trouble.ambushes.push(ambush);
    }

    /// A moment of a replica: whatever waits for it strikes.
    pub(super) fn cue(&mut self, id: ReplicaId, cue: Cue) {
        let leads = self.is_leading(id);
        let is_meant = |ambush: &&mut Ambush| {
            let whom = match ambush.whom {
                Target::One(one) => one == id,
                Target::Leader => leads,
                Target::Follower => !leads,
                Target::Any => true,
            };
            whom && ambush.cue == cue
        };
        let Some(ambush) = self.trouble.ambushes.iter_mut().find(is_meant) else {
            return;
        };
        if ambush.after > 0 {
            ambush.after -= 1;
            return;
        }
        let blow = ambush.blow;
        ambush.times = ambush.times.saturating_sub(1);
        self.trouble.ambushes.retain(|ambush| ambush.times > 0);
        self.totals.ambushes_sprung += 1;
        self.deal(id, blow);
    }

    /// The moments of a replica that has just handed everything out.
    pub(super) fn cue_settled(&mut self, id: ReplicaId) {
        let leads = self.is_leading(id);
        let node = self.node_mut(id);
        if leads != node.led {
            node.led = leads;
            if leads {
                self.cue(id, Cue::Leading);
            }
        }
        for fact in Fact::ALL {
            if self.node(id).is_writing(fact) {
                self.cue(id, Cue::Writing(fact));
            }
        }
    }

    /// The moments of a replica whose disk has just taken these facts.
    pub(super) fn cue_written(&mut self, id: ReplicaId, facts: &[Fact]) {
        for fact in facts {
            self.cue(id, Cue::Written(*fact));
        }
    }

    /// The moment of a replica whose storage has just been read back; whether it lost its power.
    pub(super) fn cue_recovering(&mut self, id: ReplicaId) -> bool {
        let waits = |ambush: &Ambush| {
            let whom = matches!(ambush.whom, Target::Any | Target::Follower)
                || ambush.whom == Target::One(id);
            whom && ambush.cue == Cue::Recovering
        };
        let Some(place) = self.trouble.ambushes.iter().position(waits) else {
            return false;
        };
        let ambush = &mut self.trouble.ambushes[place];
        let blow = ambush.blow;
        ambush.times = ambush.times.saturating_sub(1);
        self.trouble.ambushes.retain(|ambush| ambush.times > 0);
        let Blow::Crash(down) = blow else {
            return false;
        };
        self.totals.ambushes_sprung += 1;
        self.totals.crashes += 1;
        self.log(id, &Event::Crashed { unproved: 0 });
        let mut rng = self.rng.fork();
        self.node_mut(id).storage.crash(Vec::new(), &mut rng);
        self.restart_after(id, down);
        true
    }

    fn deal(&mut self, id: ReplicaId, blow: Blow) {
        match blow {
            Blow::Crash(down) => {
                if self.node(id).is_up() {
                    self.crash(id);
                    self.restart_after(id, down);
                }
            }
            Blow::Pause(pause) => self.pause(id, pause),
            Blow::Cut(side, duration) => self.cut_off(id, side, None, duration),
            Blow::CutAllButOne(duration) => {
                let others: Vec<ReplicaId> = self.ids().filter(|other| *other != id).collect();
                if !others.is_empty() {
                    let spared = *self.rng.pick(&others);
                    self.cut_off(id, Side::Both, Some(spared), duration);
                }
            }
        }
    }

    fn cut_off(
        &mut self,
        id: ReplicaId,
        side: Side,
        spared: Option<ReplicaId>,
        duration: Duration,
    ) {
        self.totals.partitions += 1;
        let until = self.now.after(duration);
        for other in self.ids().filter(|other| *other != id && Some(*other) != spared) {
            if side != Side::Out {
                self.network.cut_until(other, id, until);
            }
            if side != Side::In {
                self.network.cut_until(id, other, until);
            }
        }
    }

    /// Who is meant; nobody if nobody up fits.
    fn find(&mut self, whom: Target) -> Option<ReplicaId> {
        if let Target::One(id) = whom {
            return self.node(id).is_up().then_some(id);
        }
        let leader = self.leader();
        let up = |id: &ReplicaId| self.node(*id).is_up();
        let fits = |id: &ReplicaId| match whom {
            Target::Leader => Some(*id) == leader,
            Target::Follower => Some(*id) != leader,
            Target::One(_) | Target::Any => true,
        };
        let found: Vec<ReplicaId> = self.ids().filter(up).filter(fits).collect();
        (!found.is_empty()).then(|| *self.rng.pick(&found))
    }

    /// Who leads, as it says itself: of several the one with the highest ballot.
    pub(super) fn leader(&self) -> Option<ReplicaId> {
        let leads = |id: &ReplicaId| {
            let status = self.status(*id)?;
            (status.role == Role::Leader).then_some((status.leader, *id))
        };
        self.ids().filter_map(|id| leads(&id)).max().map(|(_, id)| id)
    }

    fn is_leading(&self, id: ReplicaId) -> bool {
        self.status(id).is_some_and(|status| status.role == Role::Leader)
    }

    /// Lets a replica's clock run at so many millionths of the true speed; at 0 it stands still.
    pub fn set_clock_rate(&mut self, id: ReplicaId, rate: u32) {
        let now = self.now;
        let node = self.node_mut(id);
        node.clock.set_rate(now, u64::from(rate));
        // Its alarm rings at another true time.
        node.armed = None;
        let wake_at = node.wake_at;
        if node.is_up() {
            self.arm(id, wake_at);
        }
    }

    /// Whether a replica's disk may be taken away: all others remember it, and enough disks are left
    /// with those that are lost or going to be.
    pub fn may_lose(&self, id: ReplicaId) -> bool {
        let trouble = &self.trouble;
        let all = self.format.membership.all_voters();
        let well = all.without(trouble.wiped).without(trouble.damaged).without(trouble.doomed);
        let mut lost = all.without(well);
        lost.insert(seat(id));
        let left = all.without(lost);
        let quorums = self.format.membership.quorums();
        self.check.is_known(id)
            && quorums.is_prepare_quorum(left)
            && quorums.is_accept_quorum(left)
            && !quorums.is_prepare_quorum(lost)
            && !quorums.is_accept_quorum(lost)
    }

    /// Whether the directory of a replica was taken away.
    pub fn is_wiped(&self, id: ReplicaId) -> bool {
        self.trouble.wiped.contains(seat(id))
    }

    /// Whether the disk of a replica was taken away, damaged, or lied.
    pub fn is_lost(&self, id: ReplicaId) -> bool {
        self.is_wiped(id) || self.trouble.damaged.contains(seat(id))
    }
}
