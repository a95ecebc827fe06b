//! When to campaign, when to step down, when to say something again (`HeartBeat`).
//!
//! Owns: every timer, the heartbeats sent and heard, who is connected, the leases granted and held,
//! and the seeded generator. The only protocol module that sees time or randomness; it decides about
//! liveness and, but for leases, about nothing that safety rests on.
//! Invariants: a peer counts as connected by an echo of a heartbeat of known age (E1); timers have
//! a random part from the seed (E6); whoever is preferred is waited for once, and handed the lead
//! ever more seldom (E10, E11).
//! Source: protocol.md §10; Ng, Haridi, Carbone, "Omni-Paxos" (quorum connectivity).

mod lease;

use core::time::Duration;
use std::collections::VecDeque;

use crate::ballot::Ballot;
use crate::config::Config;
use crate::ids::{Incarnation, Priority, ReplicaId, Slot, Time};
use crate::membership::Membership;
use crate::message::{Connectivity, Echo, Heartbeat};
use crate::quorum::VoterSet;
use crate::roster::Roster;
use lease::Leases;

/// What time may be up for.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Timer {
    /// To tell the peers that this replica is there.
    Heartbeat,
    /// To campaign, or to give a campaign up.
    Election,
    /// To repeat a Prepare or an Accept.
    Retransmit,
    /// To ask for committed values, again or of another.
    Fetch,
    /// To lead on, as the one that this leader makes way for has not taken over.
    Transfer,
    /// To ask again for what quorum reads wait for, or to give them up.
    Survey,
}

/// How often the range of the back-off doubles at most: to eight times.
const OUTBID_MAX: u32 = 3;

/// So many election timeouts after its reign began, a leader makes way for one that is preferred.
const YIELD_AFTER: u32 = 4;
/// How often that time doubles at most: to 64 times.
const YIELDS_MAX: u32 = 6;

pub(crate) const TIMERS: [Timer; 6] = [
    Timer::Heartbeat,
    Timer::Election,
    Timer::Retransmit,
    Timer::Fetch,
    Timer::Transfer,
    Timer::Survey,
];

/// What a peer's newest heartbeat said, and when.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct PeerPulse {
    id: ReplicaId,
    /// It votes in some membership that is kept.
    votes: bool,
    incarnation: Option<Incarnation>,
    sequence: u64,
    heard_at: Option<Time>,
    /// When the newest of this replica's heartbeats that the peer echoed was sent.
    echoed: Option<Time>,
    leader: Option<Ballot>,
    connectivity: Connectivity,
    priority: Priority,
    /// The prefix that its disk has a record of.
    held: Slot,
    /// The last slot that it accepted under a ballot of this replica's.
    voted: Option<(Ballot, Slot)>,
}

/// Timers, heartbeats and the generator.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Pacemaker {
    heartbeat_interval: Duration,
    election_timeout: Duration,
    election_jitter: Duration,
    retransmit_interval: Duration,
    fetch_timeout: Duration,
    own: ReplicaId,
    incarnation: Incarnation,
    priority: Priority,
    deadlines: [Option<Time>; TIMERS.len()],
    sequence: u64,
    /// When recent heartbeats were sent, for those that may still be echoed in time.
    sent: VecDeque<(u64, Time)>,
    peers: Vec<PeerPulse>,
    /// The highest ballot heard of, so that the next campaign is above it.
    seen: Option<Ballot>,
    /// Attempts to lead in a row that others outbid.
    outbid: u32,
    /// Somebody preferred was given time to campaign since a leader was heard last.
    gave_way: bool,
    /// How often this replica gave the lead away by itself, each time soon after it got it back.
    yields: u32,
    /// When it gave the lead away last by itself, and when it may do so next.
    yielded_at: Option<Time>,
    yield_at: Time,
    random: u64,
    leases: Leases,
}

impl Pacemaker {
    pub(crate) fn new(
        config: &Config,
        roster: &Roster,
        own: ReplicaId,
        incarnation: Incarnation,
        seed: u64,
        now: Time,
    ) -> Self {
        let mut pacemaker = Self {
            heartbeat_interval: config.heartbeat_interval,
            election_timeout: config.election_timeout,
            election_jitter: config.election_jitter,
            retransmit_interval: config.retransmit_interval,
            fetch_timeout: config.fetch_timeout,
            own,
            incarnation,
            priority: config.priority,
            deadlines: [None; TIMERS.len()],
            sequence: 0,
            sent: VecDeque::new(),
            peers: Vec::new(),
            seen: None,
            outbid: 0,
            gave_way: false,
            yields: 0,
            yielded_at: None,
            yield_at: now,
            random: seed,
            leases: Leases::new(roster.newest().lease(), now),
        };
        pacemaker.set_peers(&roster.peers(own), roster);
        pacemaker.arm_at(Timer::Heartbeat, now);
        pacemaker.arm_election(now);
        if roster.newest().voters().len() == 1 {
            // There is nobody to listen for.
            pacemaker.arm_at(Timer::Election, now);
        }
        pacemaker
    }

    /// These are the peers from here on. What was heard of those that stay is kept.
    pub(crate) fn set_peers(&mut self, peers: &[ReplicaId], roster: &Roster) {
        let mut known = core::mem::take(&mut self.peers);
        let pulse = |id: &ReplicaId| {
            let votes = roster.is_voter(*id);
            match known.iter().position(|peer| peer.id == *id) {
                Some(place) => PeerPulse { votes, ..known.swap_remove(place) },
                None => PeerPulse {
                    id: *id,
                    votes,
                    incarnation: None,
                    sequence: 0,
                    heard_at: None,
                    echoed: None,
                    leader: None,
                    connectivity: Connectivity::Partial,
                    priority: Priority::default(),
                    held: Slot::ZERO,
                    voted: None,
                },
            }
        };
        self.peers = peers.iter().map(pulse).collect();
    }

    // --- timers

    /// The earliest deadline.
    pub(crate) fn wake_at(&self) -> Option<Time> {
        self.deadlines.iter().flatten().min().copied()
    }

    pub(crate) fn is_armed(&self, timer: Timer) -> bool {
        self.deadlines[timer as usize].is_some()
    }

    /// Whether a timer's time is up; if so, it is no longer armed.
    pub(crate) fn take_due(&mut self, timer: Timer, now: Time) -> bool {
        let due = self.deadlines[timer as usize].is_some_and(|deadline| deadline <= now);
        if due {
            self.deadlines[timer as usize] = None;
        }
        due
    }

    fn arm_at(&mut self, timer: Timer, at: Time) {
        self.deadlines[timer as usize] = Some(at);
    }

    pub(crate) fn disarm(&mut self, timer: Timer) {
        self.deadlines[timer as usize] = None;
    }

    pub(crate) fn arm_heartbeat(&mut self, now: Time) {
        self.arm_at(Timer::Heartbeat, now.after(self.heartbeat_interval));
    }

    /// Rule E6.
    pub(crate) fn arm_election(&mut self, now: Time) {
        let delay = self.election_timeout + self.draw(self.election_jitter);
        self.arm_at(Timer::Election, now.after(delay));
    }

    /// A campaign may be due soon: nobody leads as far as this replica knows.
    pub(crate) fn hasten_election(&mut self, now: Time) {
        // Candidates that outbid each other draw from a range that doubles each time.
        let range = self.election_jitter.max(self.heartbeat_interval);
        let delay = self.heartbeat_interval + self.draw(range * (1 << self.outbid.min(OUTBID_MAX)));
        let at = now.after(delay);
        if self.deadlines[Timer::Election as usize].is_none_or(|armed| at < armed) {
            self.arm_at(Timer::Election, at);
        }
    }

    /// Rule E10: gives a preferred voter, once, the time to campaign first. Returns false if there is
    /// none, or if it had that time.
    pub(crate) fn give_precedence(&mut self, now: Time) -> bool {
        let priority = self.priority;
        let preferred = !self.gave_way && self.fit_voters(now).any(|peer| peer.priority > priority);
        if preferred {
            self.gave_way = true;
            self.arm_at(Timer::Election, now.after(self.election_jitter));
        }
        preferred
    }

    pub(crate) fn arm_transfer(&mut self, now: Time) {
        self.arm_at(Timer::Transfer, now.after(self.election_timeout));
    }

    /// Whether a leader that makes way has waited long enough for what is in flight.
    pub(crate) fn transfer_is_urgent(&self, now: Time) -> bool {
        let due = self.deadlines[Timer::Transfer as usize];
        due.is_some_and(|due| due.since(now) <= self.election_timeout / 2)
    }

    /// How long a reign lasts before it is given away by itself.
    fn yield_after(&self) -> Duration {
        self.election_timeout * YIELD_AFTER * (1 << self.yields.min(YIELDS_MAX))
    }

    /// A reign begins. Unless it came back soon, what was given away before is forgotten.
    pub(crate) fn begin_reign(&mut self, now: Time) {
        let long_ago = now.before(self.yield_after() * 2);
        if self.yielded_at.is_none_or(|at| at < long_ago) {
            self.yields = 0;
        }
        self.yield_at = now.after(self.yield_after());
    }

    /// Rule E11: whether this leader may make way by itself.
    pub(crate) fn may_yield(&self, now: Time) -> bool {
        self.yield_at <= now
    }

    /// It does. Whether or not that succeeds, the next time is twice as far away.
    pub(crate) fn note_yield(&mut self, now: Time) {
        self.yielded_at = Some(now);
        self.yields = self.yields.saturating_add(1);
        self.yield_at = now.after(self.yield_after());
    }

    pub(crate) fn arm_retransmit(&mut self, now: Time) {
        self.arm_at(Timer::Retransmit, now.after(self.retransmit_interval));
    }

    /// A round of Survey is repeated as a Prepare is, and given up when it is due.
    pub(crate) fn arm_survey(&mut self, due: Time, now: Time) {
        self.arm_at(Timer::Survey, due.min(now.after(self.retransmit_interval)));
    }

    /// Another candidate outbid this one.
    pub(crate) fn note_outbid(&mut self) {
        self.outbid = self.outbid.saturating_add(1);
    }

    /// Somebody leads, or what this replica proposed was chosen: no duel is going on.
    pub(crate) fn note_peace(&mut self) {
        self.outbid = 0;
        self.gave_way = false;
    }

    /// Values that are on their way get half a heartbeat to arrive before they are asked for.
    pub(crate) fn arm_fetch_soon(&mut self, now: Time) {
        self.arm_at(Timer::Fetch, now.after(self.heartbeat_interval / 2));
    }

    pub(crate) fn arm_fetch_again(&mut self, now: Time) {
        self.arm_at(Timer::Fetch, now.after(self.fetch_timeout));
    }

    /// Whether this replica was stopped for so long that what it believes about others is void.
    /// Its heartbeat is always due sooner than that. Rule E5.
    pub(crate) fn was_paused(&self, now: Time) -> bool {
        self.deadlines[Timer::Heartbeat as usize]
            .is_some_and(|due| now.since(due) > self.election_timeout)
    }

    /// A random duration below `bound`: the generator is splitmix64 (Steele, Lea, Flood).
    fn draw(&mut self, bound: Duration) -> Duration {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.random;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        let nanos = bound.as_nanos().min(u128::from(u64::MAX)) as u64;
        Duration::from_nanos(bits % nanos.max(1))
    }

    // --- heartbeats

    /// The sequence and echoes of the next heartbeat.
    pub(crate) fn next_pulse(&mut self, now: Time) -> (u64, Vec<Echo>) {
        self.sequence += 1;
        self.sent.push_back((self.sequence, now));
        let recently = self.recently(now);
        while self.sent.front().is_some_and(|(_, at)| *at < recently) {
            self.sent.pop_front();
        }
        let echoes = self
            .peers
            .iter()
            .filter_map(|peer| {
                let incarnation = peer.incarnation?;
                Some(Echo { peer: peer.id, incarnation, sequence: peer.sequence })
            })
            .collect();
        (self.sequence, echoes)
    }

    /// Takes in a peer's heartbeat. Returns false if it is not newer than the last one.
    pub(crate) fn on_heartbeat(
        &mut self,
        from: ReplicaId,
        incarnation: Incarnation,
        heartbeat: &Heartbeat,
        now: Time,
    ) -> bool {
        self.see(heartbeat.promised);
        self.leases.on_released(from, heartbeat.released);
        let echoed = heartbeat
            .echoes
            .iter()
            .find(|echo| echo.peer == self.own && echo.incarnation == self.incarnation)
            .and_then(|echo| self.sent.iter().find(|(sequence, _)| *sequence == echo.sequence))
            .map(|(_, at)| *at);
        let Some(peer) = self.peers.iter_mut().find(|peer| peer.id == from) else {
            return false;
        };
        if peer.incarnation == Some(incarnation) && heartbeat.sequence <= peer.sequence {
            return false;
        }
        if peer.incarnation != Some(incarnation) {
            peer.echoed = None;
        }
        peer.incarnation = Some(incarnation);
        peer.sequence = heartbeat.sequence;
        peer.heard_at = Some(now);
        peer.echoed = peer.echoed.max(echoed);
        peer.leader = heartbeat.leader;
        peer.connectivity = heartbeat.connectivity;
        peer.priority = heartbeat.priority;
        peer.held = heartbeat.held;
        true
    }

    /// A ballot was heard of.
    pub(crate) fn see(&mut self, ballot: Option<Ballot>) {
        self.seen = self.seen.max(ballot);
    }

    pub(crate) fn seen(&self) -> Option<Ballot> {
        self.seen
    }

    // --- leases

    /// A round of Confirm begins, as this replica leads.
    pub(crate) fn on_round_asked(&mut self, round: u64, now: Time) {
        self.leases.on_asked(round, now);
    }

    /// Whether the lease wants a round though nobody reads.
    pub(crate) fn wants_renewal(&self, now: Time) -> bool {
        self.leases.wants_renewal(self.heartbeat_interval, now)
    }

    /// An accept quorum has confirmed a round.
    pub(crate) fn on_round_confirmed(&mut self, round: u64) {
        self.leases.on_confirmed(round);
    }

    /// Before when this replica may rely on its lease, as long as it leads.
    pub(crate) fn lease_until(&self) -> Option<Time> {
        self.leases.held_until()
    }

    /// Gives the lease up; the next heartbeat says so. Rule R8.
    pub(crate) fn release_lease(&mut self) {
        self.leases.release();
    }

    /// The highest round that this replica gave up.
    pub(crate) fn released(&self) -> u64 {
        self.leases.released()
    }

    /// A peer gave up every round of its own up to this one.
    pub(crate) fn on_released(&mut self, by: ReplicaId, through: u64) {
        self.leases.on_released(by, through);
    }

    /// This replica is to confirm a round of the leader of `ballot`. Returns whether it may.
    pub(crate) fn grant_lease(&mut self, ballot: Ballot, round: u64, now: Time) -> bool {
        self.leases.grant(ballot, round, now)
    }

    /// Whether a promise to this candidate has to wait for the end of what was granted.
    pub(crate) fn withholds_from(&self, candidate: ReplicaId, now: Time) -> bool {
        self.leases.withheld_until(candidate, now).is_some()
    }

    /// Campaigns as soon as no grant of this replica forbids it.
    pub(crate) fn arm_election_after_grants(&mut self, now: Time) {
        let until = self.leases.withheld_until(self.own, now).unwrap_or(now);
        // Several may wait for the same grant to end.
        let at = until.after(self.draw(self.election_jitter.max(self.heartbeat_interval)));
        self.arm_at(Timer::Election, at);
    }

    // --- what follows from them

    /// What happened then or later is recent.
    fn recently(&self, now: Time) -> Time {
        now.before(self.election_timeout)
    }

    fn is_recent(&self, at: Option<Time>, now: Time) -> bool {
        at.is_some_and(|at| at >= self.recently(now))
    }

    /// The peers connected in both directions. Rule E1.
    fn connected(&self, now: Time) -> impl Iterator<Item = &PeerPulse> {
        let recently = self.recently(now);
        self.peers.iter().filter(move |peer| peer.echoed.is_some_and(|at| at >= recently))
    }

    pub(crate) fn connected_peers(&self, now: Time) -> Vec<ReplicaId> {
        self.connected(now).map(|peer| peer.id).collect()
    }

    pub(crate) fn is_connected(&self, id: ReplicaId, now: Time) -> bool {
        self.connected(now).any(|peer| peer.id == id)
    }

    /// The connected voters that could lead, as they say themselves.
    fn fit_voters(&self, now: Time) -> impl Iterator<Item = &PeerPulse> {
        self.connected(now).filter(move |peer| {
            peer.votes
                && self.is_recent(peer.heard_at, now)
                && peer.connectivity == Connectivity::Quorum
        })
    }

    pub(crate) fn is_fit(&self, id: ReplicaId, now: Time) -> bool {
        self.fit_voters(now).any(|peer| peer.id == id)
    }

    /// The connected voters that could lead, with their priorities.
    pub(crate) fn heirs(&self, now: Time) -> impl Iterator<Item = (Priority, ReplicaId)> {
        self.fit_voters(now).map(|peer| (peer.priority, peer.id))
    }

    /// A voter accepted this slot under a ballot of this replica's.
    pub(crate) fn note_vote(&mut self, id: ReplicaId, ballot: Ballot, slot: Slot) {
        if let Some(peer) = self.peers.iter_mut().find(|peer| peer.id == id) {
            peer.voted = peer.voted.max(Some((ballot, slot)));
        }
    }

    pub(crate) fn voted(&self, id: ReplicaId) -> Option<(Ballot, Slot)> {
        self.peers.iter().find(|peer| peer.id == id)?.voted
    }

    /// The prefix that the peer's disk has a record of, as it said last.
    pub(crate) fn held(&self, id: ReplicaId) -> Slot {
        self.peers.iter().find(|peer| peer.id == id).map_or(Slot::ZERO, |peer| peer.held)
    }

    /// The same of every peer, for comparing.
    pub(crate) fn holdings(&self) -> Vec<(ReplicaId, Slot)> {
        self.peers.iter().map(|peer| (peer.id, peer.held)).collect()
    }

    pub(crate) fn priority(&self) -> Priority {
        self.priority
    }

    /// Whether anything was heard from the peer recently.
    pub(crate) fn hears(&self, id: ReplicaId, now: Time) -> bool {
        self.peers.iter().any(|peer| peer.id == id && self.is_recent(peer.heard_at, now))
    }

    /// Rule E2.
    pub(crate) fn reaches(&self, membership: &Membership, now: Time) -> bool {
        let mut reached = VoterSet::EMPTY;
        for id in self.connected(now).map(|peer| peer.id).chain([self.own]) {
            if let Some(voter) = membership.voter_index(id) {
                reached.insert(voter);
            }
        }
        let quorums = membership.quorums();
        quorums.is_prepare_quorum(reached) && quorums.is_accept_quorum(reached)
    }

    /// The highest ballot of a quorum-connected leader that was itself heard recently.
    pub(crate) fn heard_leader(&self, now: Time) -> Option<Ballot> {
        self.leaders(now, self.election_timeout).max()
    }

    /// The leader that this replica vouches for: heard so recently that its silence would not be
    /// noticed before the next heartbeat.
    pub(crate) fn vouches_for(&self, now: Time) -> Option<Ballot> {
        self.leaders(now, self.election_timeout.saturating_sub(self.heartbeat_interval)).max()
    }

    fn leaders(&self, now: Time, within: Duration) -> impl Iterator<Item = Ballot> {
        let recently = now.before(within);
        self.peers
            .iter()
            .filter(move |peer| peer.heard_at.is_some_and(|at| at >= recently))
            .filter(|peer| peer.connectivity == Connectivity::Quorum)
            .filter_map(|peer| peer.leader.filter(|ballot| ballot.leader() == peer.id))
    }

    /// Whether a connected peer vouches for a leader that this replica does not hear itself.
    pub(crate) fn is_vouched(&self, now: Time) -> bool {
        self.connected(now).any(|peer| {
            self.is_recent(peer.heard_at, now)
                && peer.leader.is_some_and(|ballot| {
                    ballot.leader() != peer.id
                        && ballot.leader() != self.own
                        && !self.denies(ballot, now)
                })
        })
    }

    /// Whether the replica that is vouched for said itself, recently, that it does not lead.
    fn denies(&self, ballot: Ballot, now: Time) -> bool {
        self.peers.iter().any(|peer| {
            peer.id == ballot.leader()
                && self.is_recent(peer.heard_at, now)
                && (peer.leader != Some(ballot) || peer.connectivity == Connectivity::Partial)
        })
    }

    /// The committed prefix up to which a heartbeat of a leader is a watermark.
    pub(crate) fn watermark(from: ReplicaId, heartbeat: &Heartbeat) -> Option<(Ballot, Slot)> {
        let ballot = heartbeat.leader.filter(|ballot| ballot.leader() == from)?;
        Some((ballot, heartbeat.committed))
    }
}
