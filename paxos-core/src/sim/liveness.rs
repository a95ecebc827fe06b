//! The end of a random run: some of the cluster is well for good, the rest is ill for good, and
//! progress is demanded.
//!
//! Owns: the quorum-connected core, what becomes of the others, and every bound on progress.
//! Invariants: the core holds a prepare and an accept quorum, is fully connected and up; nobody
//! outside it is connected, both ways, to as many as could lead; nothing changes any more.
//! Source: the liveness mode of `TigerBeetle`'s simulator: faults that heal in the end never show
//! a replica that disturbs for ever.

use core::time::Duration;

use bytes::Bytes;

use super::check::Invariant;
use super::cluster::Cluster;
use super::fault::{Ambush, Blow, Cue, Target};
use super::host::Process;
use super::kind::Kind;
use super::network::{Flap, Weather};
use super::portfolio::{any_order, draw_weather};
use super::suffer::seat;
use crate::ballot::Ballot;
use crate::ids::{ClientId, Priority, ReplicaId, RequestNumber, Slot, Time};
use crate::message::Connectivity;
use crate::output::Role;
use crate::quorum::VoterSet;
use crate::value::Command;

/// The client that asks whether the cluster serves again.
pub(super) const PROBE: ClientId = ClientId::new(1_000_000);
/// A leader in the core has a new command committed within so many election timeouts: one to miss
/// the old leader, and up to three campaigns. The bound; invariants L1 and L9.
pub const SERVE_WITHIN: u32 = 4;
/// What clients had asked before is resolved within so many: the new leader, twice over, and what
/// is missing to be fetched. Invariant L2.
pub(super) const RESOLVE_WITHIN: u32 = 10;
/// Every member of the core has everything within so many, beside the time that clients take.
pub(super) const CONVERGE_WITHIN: u32 = 40;
/// So many are then watched in which nobody else may lead, and nothing may be left in flight.
/// Invariant L3.
pub(super) const REST: u32 = 20;
/// The slowest and the fastest clock of the core, in millionths of the true speed.
const CLOCKS: (u64, u64) = (900_000, 1_100_000);

/// What is wrong for good with a replica outside the core.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Plight {
    /// It is up, behind links that are cut, one-way, lossy or flapping.
    Remote,
    /// It is down.
    Down,
    /// It stands still.
    Paused,
    /// Its clock stands still, and it answers.
    Frozen,
    /// It loses its power whenever it sends a heartbeat.
    Crashing,
}

const PLIGHTS: [Plight; 8] = [
    Plight::Remote,
    Plight::Remote,
    Plight::Remote,
    Plight::Remote,
    Plight::Down,
    Plight::Paused,
    Plight::Frozen,
    Plight::Crashing,
];

/// A set of replicas that can serve without the others.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Core {
    pub(super) members: VoterSet,
    /// The election timeout, with its random part, by the slowest clock and the longest timers of
    /// the core.
    timeout: Duration,
}

impl Core {
    pub(super) const fn holds(&self, id: ReplicaId) -> bool {
        self.members.contains(seat(id))
    }
}

/// Demands progress of a random core; a violation says what was missing.
pub(super) fn demand_progress(cluster: &mut Cluster) {
    let core = cluster.settle_core();
    let since = cluster.now;
    let steps = [serves_again, resolves, converges, rests];
    for step in steps {
        step(cluster, core, since);
        if cluster.violation().is_some() {
            return;
        }
    }
}

impl Cluster {
    /// Heals a core, lets everybody else's troubles last for ever, and says who is in the core.
    pub(super) fn settle_core(&mut self) -> Core {
        let members = self.draw_core();
        self.network.calm();
        self.trouble.disarm();
        let quick = self.options.config.heartbeat_interval / 8;
        self.options.disk_delay_max = self.options.disk_delay_max.min(quick);
        self.options.apply_delay_max = self.options.apply_delay_max.min(quick);
        let mut timeout = Duration::ZERO;
        for id in self.ids().filter(|id| members.contains(seat(*id))) {
            let rate = self.node(id).clock.rate.clamp(CLOCKS.0, CLOCKS.1);
            let rate = self.options.clock_rate(rate);
            self.set_clock_rate(id, rate);
            self.resume(id);
            self.calm_disk(id);
            let config = &self.node(id).config;
            let local = config.election_timeout + config.election_jitter;
            let nanos = local.as_nanos() * 1_000_000 / u128::from(rate);
            timeout = timeout.max(Duration::from_nanos(nanos as u64));
            self.restart(id);
        }
        self.core = Some(members);
        if let Some(fleet) = &mut self.fleet {
            fleet.reach(&ids_of(members));
        }
        self.remark(format!("the core is {:?}", ids_of(members)));
        for id in self.ids() {
            if !members.contains(seat(id)) {
                self.leave_outside(id, members);
            }
        }
        Core { members, timeout }
    }

    /// Who may be healed: not those whose disks are lost.
    fn draw_core(&mut self) -> VoterSet {
        let mut left: Vec<ReplicaId> = self.ids().filter(|id| !self.is_lost(*id)).collect();
        if self.options.newcomers > 0 {
            // Whoever has been removed for good is nobody's concern, and newcomers may be let in yet. One whose
            // storage gave up over a read that went astray is as good as the others: it is started again.
            left.retain(|id| self.node(*id).halted.is_none());
            let places = 1..=self.nodes.len() as u16;
            let ids = places.map(ReplicaId::new);
            left.extend(ids.filter(|id| !self.node(*id).placed));
        }
        let mut core = VoterSet::EMPTY;
        // Whoever has caught up is made a voter at any moment, and is needed from then on.
        for membership in self.check.needed() {
            for joining in membership.joining() {
                core.insert(seat(joining.id));
            }
        }
        left.retain(|id| !core.contains(seat(*id)));
        let everybody = self.rng.chance(250);
        let spare = self.rng.below(3);
        let mut more = spare;
        while !left.is_empty() {
            if self.may_serve(core) && !everybody {
                if more == 0 {
                    break;
                }
                more -= 1;
            }
            let place = self.rng.below(left.len() as u64) as usize;
            core.insert(seat(left.swap_remove(place)));
        }
        core
    }

    /// Whether these places hold quorums of every membership that is needed.
    fn may_serve(&self, places: VoterSet) -> bool {
        self.check.needed().iter().all(|membership| {
            let set = membership.voters_where(|id| places.contains(seat(id)));
            let quorums = membership.quorums();
            quorums.is_prepare_quorum(set) && quorums.is_accept_quorum(set)
        })
    }

    /// Those of the core that are members, or may not know yet that they are none.
    fn serving(&self, core: Core) -> Vec<ReplicaId> {
        let newest = self.check.newest();
        let serves =
            |id: &ReplicaId| newest.contains(*id) || !self.is_spent(*id) && !self.is_forgotten(*id);
        self.ids().filter(|id| core.holds(*id)).filter(serves).collect()
    }

    /// Whether a replica was away until nobody was a member whom it knows: nobody tells it that it is
    /// removed, and it can do nothing.
    fn is_forgotten(&self, id: ReplicaId) -> bool {
        let newest = self.check.newest();
        match &self.node(id).process {
            Some(Process::Replica(replica)) => {
                let knows = replica.peers().iter().any(|peer| newest.contains(*peer));
                !newest.contains(id) && !knows
            }
            Some(Process::Host(_)) | None => false,
        }
    }

    /// Whether changes of the membership are over: everybody knows the newest one, nobody joins.
    fn is_changed(&self, core: Core) -> bool {
        let newest = self.check.newest();
        let joining = newest.joining().iter().any(|joining| core.holds(joining.id));
        !joining
            && self.serving(core).into_iter().all(|id| {
                let status = self.status(id);
                newest.contains(id) && status.is_some_and(|s| s.epoch == newest.epoch())
            })
    }

    fn leave_outside(&mut self, id: ReplicaId, core: VoterSet) {
        if self.is_wiped(id) {
            // Whoever lost its disk must stop as soon as it is heard.
            self.resume(id);
            self.set_clock_rate(id, 1_000_000);
            self.restart(id);
            self.remark(format!("{id} lost its disk, and is heard"));
            return;
        }
        let plight = if self.options.newcomers > 0 {
            // One that is heard now and then may be let in as a voter, and needed from then on.
            Plight::Down
        } else {
            *self.rng.pick(&PLIGHTS)
        };
        self.remark(format!("{id} stays outside: {plight:?}"));
        match plight {
            Plight::Remote => {
                self.resume(id);
                self.restart(id);
            }
            Plight::Down => {
                self.crash(id);
                self.trouble.down.insert(seat(id));
            }
            Plight::Paused => {
                self.restart(id);
                self.node_mut(id).paused_until = Time::from_nanos(u64::MAX);
            }
            Plight::Frozen => {
                self.restart(id);
                // It stands still, unless leases need a bound.
                let still = self.options.clock_rate(0);
                self.set_clock_rate(id, still);
            }
            Plight::Crashing => {
                self.restart(id);
                let down = self.options.config.heartbeat_interval;
                let down = any_order(&mut self.rng, down, down * 8);
                self.lie_in_wait(Ambush {
                    whom: Target::One(id),
                    cue: Cue::Sending(Kind::Heartbeat),
                    after: 0,
                    times: u32::MAX,
                    blow: Blow::Crash(down),
                });
            }
        }
        self.break_links(id, core);
    }

    /// Cuts one way at least to as many of the core that this replica could not lead, and does
    /// anything to its other links.
    fn break_links(&mut self, id: ReplicaId, core: VoterSet) {
        let mut severed = VoterSet::EMPTY;
        let mut left = ids_of(core);
        loop {
            let reached = self.format.membership.all_voters().without(severed);
            let quorums = self.format.membership.quorums();
            let leads = quorums.is_prepare_quorum(reached) && quorums.is_accept_quorum(reached);
            if left.is_empty() || !leads && self.rng.chance(500) {
                break;
            }
            let place = self.rng.below(left.len() as u64) as usize;
            severed.insert(seat(left.swap_remove(place)));
        }
        for other in self.ids().filter(|other| *other != id) {
            let choice = self.rng.below(if severed.contains(seat(other)) { 3 } else { 7 });
            match choice {
                0 => self.network.cut(id, other),
                1 => self.network.cut(other, id),
                2 => {
                    self.network.cut(id, other);
                    self.network.cut(other, id);
                }
                3 => {
                    let flap = self.draw_flap();
                    self.network.flap(id, other, flap);
                    let flap = if self.rng.chance(500) { flap } else { self.draw_flap() };
                    self.network.flap(other, id, flap);
                }
                4 => {
                    let weather = draw_weather(&mut self.rng);
                    self.network.set_link_weather(id, other, Some(weather));
                }
                5 => {
                    let weather = Weather { loss: 900, ..draw_weather(&mut self.rng) };
                    self.network.set_link_weather(other, id, Some(weather));
                }
                _ => {}
            }
        }
    }

    pub(super) fn draw_flap(&mut self) -> Flap {
        let timeout = self.options.election_timeout();
        let period = any_order(&mut self.rng, Duration::from_millis(10), timeout * 4);
        Flap { period, open: period * self.rng.between(1, 9) as u32 / 10 }
    }

    /// Who of the core leads, as it says itself: of several the one with the highest ballot.
    fn leader_in(&self, core: Core) -> Option<ReplicaId> {
        let leads = |id: &ReplicaId| {
            let status = self.status(*id)?;
            (status.role == Role::Leader).then_some((status.leader, *id))
        };
        let members = self.ids().filter(|id| core.holds(*id));
        members.filter_map(|id| leads(&id)).max().map(|(_, id)| id)
    }

    fn priority_of(&self, ballot: Ballot) -> Priority {
        self.node(ballot.leader()).config.priority
    }

    fn describe(&self) -> String {
        let of = |id: ReplicaId| match self.status(id) {
            Some(s) => format!(
                "r{}: {} of {:?}, promised {:?}, committed {}, applied {}, in flight {}, \
                 unproved {}, votes {}, ahead {}, {:?}; ",
                id.number(),
                s.role,
                s.leader.map(|ballot| ballot.to_string()),
                s.promised.map(|ballot| ballot.to_string()),
                s.committed.number(),
                s.applied.number(),
                s.slots_in_flight,
                s.writes_pending,
                s.votes_held,
                s.values_ahead,
                s.connectivity,
            ),
            None => format!("r{}: down; ", id.number()),
        };
        let core = self.core.map(ids_of);
        format!("core {core:?}; {}", self.ids().map(of).collect::<String>())
    }

    /// Something did not happen in time.
    pub(super) fn no_progress(&mut self, what: &str) {
        let detail = self.describe();
        self.check.fail(Invariant::Progress, || format!("{what}: {detail}"));
    }

    /// What is left at a replica that should hold nothing, by name. A peer that starts again and
    /// again makes work for the disk for ever; nothing else does.
    fn leftover(&self, id: ReplicaId) -> Option<&'static str> {
        let Some(status) = self.status(id) else {
            return Some("it is down");
        };
        if !self.is_quiet(id) || status.writes_pending > 0 {
            return Some("work for its disk or state machine");
        }
        if status.messages_waiting > 0 {
            return Some("messages that wait for its disk");
        }
        let is_reached = |peer| self.core.is_none_or(|core| core.contains(seat(peer)));
        if status.flows.iter().any(|flow| flow.slots > 0 && is_reached(flow.peer)) {
            return Some("proposals that a peer has not answered");
        }
        self.lag(id)
    }

    /// What a replica of the core lacks, or has not got rid of, by name.
    fn lag(&self, id: ReplicaId) -> Option<&'static str> {
        let Some(status) = self.status(id) else {
            return Some("it is down");
        };
        let prefix = self.check.chosen_prefix();
        let window = self.format.membership.window() as usize;
        let leftovers = [
            (status.committed != prefix, "another committed prefix than is chosen"),
            (status.applied != prefix, "values that are not applied"),
            (status.slots_in_flight > 0, "slots in flight"),
            (status.bytes_in_flight > 0, "bytes in flight"),
            (status.values_ahead > 0, "chosen values behind a gap"),
            (status.slots_being_applied > 0, "slots being applied"),
            (status.reads_waiting > 0, "reads that wait"),
            (status.quorum_reads_waiting > 0, "quorum reads that wait"),
            (status.transferring.is_some(), "a leader that makes way"),
            // Votes that nobody asked for again stay until their slot is decided.
            (status.votes_held > 2 * window, "more votes than twice the window"),
        ];
        leftovers.into_iter().find(|(is_left, _)| *is_left).map(|(_, what)| what)
    }
}

fn ids_of(members: VoterSet) -> Vec<ReplicaId> {
    members.iter().map(|seat| ReplicaId::new(seat as u16 + 1)).collect()
}

/// A new command is chosen, and the leader knows it, soon after the faults: one that is asked for
/// here, or one of a client, which may take the only place in a window. Above what was proposed
/// before stands nothing else.
fn serves_again(cluster: &mut Cluster, core: Core, _since: Time) {
    let before = cluster.check.last_slot();
    let pause = cluster.options.config.heartbeat_interval / 2;
    let (mut next, mut request) = (cluster.now, 0);
    let mut asked: Vec<(ReplicaId, Slot, RequestNumber)> = Vec::new();
    let served = cluster.run_until_done(core.timeout * SERVE_WITHIN, |cluster| {
        if cluster.fleet.as_ref().is_some_and(|fleet| fleet.is_served()) {
            return true;
        }
        let knows = |id| cluster.status(id).is_some_and(|status| status.committed > before);
        if cluster.fleet.is_none() && cluster.leader_in(core).is_some_and(knows) {
            return true;
        }
        for (id, slot, number) in &asked {
            if cluster.check.slot_of(PROBE, *number) == Some(*slot) {
                let status = cluster.status(*id);
                return status.is_some_and(|status| status.committed >= *slot);
            }
        }
        if cluster.now < next {
            return false;
        }
        if let Some(id) = cluster.leader_in(core) {
            next = cluster.now.after(pause);
            if cluster.fleet.is_some() {
                cluster.fleet_probes(id, false);
                return false;
            }
            request += 1;
            let number = RequestNumber::new(request);
            let command = Command::apply(PROBE, number, Bytes::from_static(b"probe"));
            if let Some(Ok(proposed)) = cluster.propose(id, &[command]) {
                asked.push((id, proposed.slot, number));
            }
        }
        false
    });
    if !served {
        let timeouts = SERVE_WITHIN;
        cluster.no_progress(&format!("no new command chosen within {timeouts} election timeouts"));
    }
}

/// What clients asked before the faults ended comes to something.
fn resolves(cluster: &mut Cluster, core: Core, since: Time) {
    let limit = since.after(core.timeout * RESOLVE_WITHIN);
    let within = limit.since(cluster.now);
    let poll = Duration::from_millis(5);
    let mut next = cluster.now;
    let resolved = cluster.run_until_done(within, |cluster| {
        if cluster.now < next {
            return false;
        }
        next = cluster.now.after(poll);
        cluster.clients.iter().all(|client| !client.waits_since(since, |id| core.holds(id)))
    });
    if !resolved {
        let timeouts = RESOLVE_WITHIN;
        cluster.no_progress(&format!("requests unresolved after {timeouts} election timeouts"));
    }
}

/// Every command is resolved, everything chosen is applied everywhere in the core, and whoever
/// lost its disk has stopped.
fn converges(cluster: &mut Cluster, core: Core, _since: Time) {
    let left = cluster.commands_left();
    // What clients have not asked yet comes on top, at a leisurely pace.
    let timeouts = CONVERGE_WITHIN + u32::try_from(left).unwrap_or(u32::MAX / 2) / 2;
    let poll = Duration::from_millis(5);
    let mut next = Time::ZERO;
    let mut leader = (None, cluster.now);
    let done = cluster.run_until_done(core.timeout * timeouts, |cluster| {
        if cluster.now < next {
            return false;
        }
        next = cluster.now.after(poll);
        // What was said before the faults ended may still unseat a leader for one timeout.
        let agreed = agreed_leader(cluster, core);
        if agreed != leader.0 {
            leader = (agreed, cluster.now);
        }
        let settled = cluster.now.since(leader.1) > core.timeout;
        agreed.is_some()
            && settled
            && cluster.open_clients() == 0
            && cluster.serving(core).into_iter().all(|id| cluster.lag(id).is_none())
            && cluster.is_changed(core)
            && cluster.ids().all(|id| !cluster.is_wiped(id) || cluster.has_stopped(id))
    });
    if !done {
        let open = cluster.open_clients();
        let agreed = agreed_leader(cluster, core).map(|ballot| ballot.to_string());
        let left: Vec<_> = cluster
            .serving(core)
            .into_iter()
            .filter_map(|id| Some((id, cluster.lag(id)?)))
            .collect();
        let serving: Vec<_> =
            cluster.ids().filter(|id| cluster.is_wiped(*id) && !cluster.has_stopped(*id)).collect();
        cluster.no_progress(&format!(
            "not converged: {open} clients wait, leader {agreed:?}, left {left:?}, lost and \
             not stopped {serving:?}"
        ));
    }
}

/// The ballot that every member of the core follows, and whose leader knows that it leads.
fn agreed_leader(cluster: &Cluster, core: Core) -> Option<Ballot> {
    let members = cluster.serving(core);
    let mut leaders = members.iter().map(|id| cluster.status(*id)?.leader);
    let first = leaders.next()??;
    let agreed = leaders.all(|leader| leader == Some(first));
    let leads = core.holds(first.leader())
        && cluster.status(first.leader()).is_some_and(|status| {
            status.role == Role::Leader && status.connectivity == Connectivity::Quorum
        });
    (agreed && leads).then_some(first)
}

/// Nobody disturbs the leader, and nothing is left in flight; but that a leader makes way for one that
/// is preferred, each time for one of higher priority.
///
/// A replica outside that promised a higher ballot before, and is heard at last, unseats the leader
/// once: the leader could not go on without it if it were needed.
fn rests(cluster: &mut Cluster, core: Core, since: Time) {
    let ballot = agreed_leader(cluster, core);
    let outside = cluster.ids().filter(|id| !core.holds(*id));
    let mut excuses = outside.filter(|id| cluster.promised(*id) > ballot).count();
    loop {
        let before = agreed_leader(cluster, core);
        cluster.run_for(core.timeout * REST);
        let after = agreed_leader(cluster, core);
        if before == after {
            break;
        }
        // A leader makes way for one that is preferred, and that one for nobody less so.
        if let (Some(before), Some(after)) = (before, after)
            && cluster.priority_of(before) < cluster.priority_of(after)
        {
            continue;
        }
        if excuses == 0 {
            return cluster.no_progress(&format!("no stable leader: {before:?}, then {after:?}"));
        }
        excuses -= 1;
        converges(cluster, core, since);
        if cluster.violation().is_some() {
            return;
        }
    }
    let mut busy = cluster.serving(core);
    let idle = cluster.run_until_done(core.timeout, |cluster| {
        busy.retain(|id| cluster.leftover(*id).is_some());
        busy.is_empty()
    });
    if !idle {
        let what: Vec<_> = busy.iter().map(|id| (*id, cluster.leftover(*id))).collect();
        let detail = cluster.describe();
        cluster.check.fail(Invariant::EmptyWhenIdle, || format!("{what:?}: {detail}"));
    }
}
