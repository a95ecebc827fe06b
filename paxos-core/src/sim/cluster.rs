//! A cluster of real replicas in one thread and under one clock.
//!
//! Owns: [`Cluster`]: the queue of what is due, in an order that depends on the seed alone. Every
//! output of a replica is executed as the host would, only later, and is shown to the observer
//! before anybody else sees it.
//! Invariant: events of equal time happen in the order in which they were queued.

use core::cmp::Ordering;
use core::time::Duration;
use std::collections::BinaryHeap;

use super::check::{Check, Invariant, Violation};
use super::client::Client;
use super::disk::{CrashStorage, SimDisk};
use super::held::Holds;
use super::host::{Fleet, Process};
use super::keeper::{Parcel, Task};
use super::link::Links;
use super::marks::Watch;
use super::monitor::Verdict;
use super::network::Network;
use super::node::{Clock, Node};
use super::observe::Observer;
use super::options::{Machine, Options};
use super::report::Totals;
use super::rng::Rng;
use super::suffer::Trouble;
use super::trace::Trace;
use crate::ballot::Ballot;
use crate::ids::{ClusterId, Epoch, GroupId, ReplicaId, Time};
use crate::membership::{Member, Membership};
use crate::output::{Halt, NotProposed, ProposeError, Proposed, Status};
use crate::port::{Format, Room};
use crate::quorum::VoterSet;
use crate::trace::{Event, Packet};
use crate::value::Command;

/// What is due at some time.
#[derive(Debug)]
pub(super) enum Due {
    Deliver {
        from: ReplicaId,
        to: ReplicaId,
        packet: Packet,
    },
    Disk(ReplicaId, u32),
    Timer(ReplicaId, u32),
    /// A client asked this host for something.
    Asked(ReplicaId, u32),
    /// A part of a host has work.
    Part(ReplicaId, u32, u32),
    /// A host's link to a peer came up, or fell: its end knows.
    Link(ReplicaId, u32, ReplicaId),
    /// Links are looked at.
    Links,
    Applied(ReplicaId, u32),
    /// The next step of an image that a place makes or takes.
    Snapshot(ReplicaId, u32, Task),
    /// Something about images is on its way.
    Parcel {
        from: ReplicaId,
        to: ReplicaId,
        parcel: Parcel,
    },
    Restart(ReplicaId, u32),
    Client(usize),
}

impl Due {
    /// Whose process has to run for it.
    const fn whose(&self) -> Option<ReplicaId> {
        match self {
            Self::Deliver { to: id, .. }
            | Self::Parcel { to: id, .. }
            | Self::Snapshot(id, ..)
            | Self::Disk(id, _)
            | Self::Timer(id, _)
            | Self::Applied(id, _)
            | Self::Asked(id, _)
            | Self::Part(id, ..)
            | Self::Link(id, ..) => Some(*id),
            Self::Restart(..) | Self::Client(_) | Self::Links => None,
        }
    }
}

#[derive(Debug)]
struct Queued {
    at: Time,
    order: u64,
    due: Due,
}

impl Queued {
    const fn key(&self) -> (Time, u64) {
        (self.at, self.order)
    }
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Queued {}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Queued {
    /// The heap gives its greatest first, which is to be the earliest.
    fn cmp(&self, other: &Self) -> Ordering {
        other.key().cmp(&self.key())
    }
}

/// A simulated cluster. Replicas are numbered from 1.
#[derive(Debug)]
pub struct Cluster {
    pub(super) options: Options,
    pub(super) now: Time,
    queue: BinaryHeap<Queued>,
    order: u64,
    pub(super) rng: Rng,
    pub(super) network: Network,
    pub(super) holds: Holds,
    pub(super) nodes: Vec<Node>,
    /// Where the places hold whole nodes: their maker, and their clients.
    pub(super) fleet: Option<Box<dyn Fleet>>,
    pub(super) links: Links,
    pub(super) clients: Vec<Client>,
    pub(super) check: Check,
    observer: Observer,
    pub(super) trace: Trace,
    pub(super) watch: Watch,
    pub(super) totals: Totals,
    /// Faults are going on: counts go to the totals of that phase.
    pub(super) under_faults: bool,
    pub(super) trouble: Trouble,
    /// The replicas that clients reach and that must serve, once the faults have ended.
    pub(super) core: Option<VoterSet>,
    pub(super) format: Format,
}

impl Cluster {
    /// A cluster on simulated disks, all replicas started.
    pub fn new(options: Options) -> Self {
        Self::with_storage(options, |format| Box::new(SimDisk::new(format)))
    }

    /// A cluster on storages that `make` formats, one for each replica.
    pub fn with_storage(
        options: Options,
        make: impl FnMut(Format) -> Box<dyn CrashStorage>,
    ) -> Self {
        let mut cluster = Self::without_processes(options, make);
        cluster.start_all();
        cluster
    }

    /// A cluster of whole nodes that `fleet` makes, on storages that `make` formats. Their state
    /// machines start anew with each life, from their newest snapshot, the hosts decide what is
    /// trimmed, and messages travel as bytes, whatever the options say.
    pub fn with_fleet(
        options: Options,
        make: impl FnMut(Format) -> Box<dyn CrashStorage>,
        fleet: Box<dyn Fleet>,
    ) -> Self {
        let machine = Machine::Volatile;
        let options = Options { machine, trim: false, codec: true, ..options };
        let mut cluster = Self::without_processes(options, make);
        cluster.fleet = Some(fleet);
        cluster.start_all();
        cluster.queue(Time::ZERO, Due::Links);
        cluster
    }

    fn start_all(&mut self) {
        for id in self.ids() {
            self.start(id);
        }
    }

    fn without_processes(
        options: Options,
        mut make: impl FnMut(Format) -> Box<dyn CrashStorage>,
    ) -> Self {
        assert!((1..=9).contains(&options.replicas), "a simulated cluster has 1 to 9 replicas");
        let mut rng = Rng::new(options.seed);
        let voters = (1..=options.replicas).map(|number| Member::new(ReplicaId::new(number)));
        let rule = options.quorums.clone();
        let voters = voters.collect();
        let membership = Membership::new(Epoch::FIRST, voters, Vec::new(), rule, options.window)
            .expect("the options describe a membership");
        let membership = match options.lease {
            Some(terms) => membership.with_lease(terms),
            None => membership,
        };
        let format = Format {
            cluster: ClusterId::new(u128::from(options.seed) + 1),
            group: GroupId::new(1),
            replica: ReplicaId::new(1),
            membership: membership.clone(),
        };
        let node = |number| {
            let replica = ReplicaId::new(number);
            let storage = make(Format { replica, ..format.clone() });
            let skew = u64::from(options.clock_skew);
            let origin = rng.below(1_000_000_000_000);
            let clock = Clock::new(origin, 1_000_000 - skew + rng.below(2 * skew + 1));
            let own = options.configs.get(usize::from(number) - 1);
            Node::new(storage, own.unwrap_or(&options.config).clone(), clock)
        };
        let places = options.replicas + options.newcomers;
        let mut nodes: Vec<Node> = (1..=places).map(node).collect();
        for newcomer in &mut nodes[usize::from(options.replicas)..] {
            newcomer.placed = false;
        }
        Self {
            now: Time::ZERO,
            queue: BinaryHeap::new(),
            order: 0,
            network: Network::new(usize::from(places), rng.fork()),
            holds: Holds::default(),
            rng,
            nodes,
            fleet: None,
            links: Links::new(usize::from(places)),
            clients: Vec::new(),
            observer: Observer::new(&membership, usize::from(places)),
            check: Check::new(membership, usize::from(places)),
            trace: Trace::new(options.trace_capacity),
            watch: Watch::default(),
            totals: Totals::default(),
            under_faults: false,
            trouble: Trouble::default(),
            core: None,
            options,
            format,
        }
    }

    /// The true time.
    pub fn now(&self) -> Time {
        self.now
    }

    /// How the cluster was built.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The ids of all replicas that are or were members.
    pub fn ids(&self) -> impl Iterator<Item = ReplicaId> + use<> {
        let placed = self.nodes.iter().zip(1..).filter(|(node, _)| node.placed);
        let ids: Vec<ReplicaId> = placed.map(|(_, number)| ReplicaId::new(number)).collect();
        ids.into_iter()
    }

    /// The network, to change.
    pub fn network(&mut self) -> &mut Network {
        &mut self.network
    }

    /// The observer.
    pub fn check(&mut self) -> &mut Check {
        &mut self.check
    }

    /// The first broken invariant.
    pub fn violation(&self) -> Option<&Violation> {
        self.check.violation()
    }

    /// The first step that the refinement monitor rejected.
    pub fn verdict(&self) -> Option<&Verdict> {
        self.observer.verdict()
    }

    /// Tells the refinement monitor something.
    pub(super) fn observe(&mut self, tell: impl FnOnce(&mut Observer)) {
        // The monitor knows one membership.
        if self.observer.verdict().is_some() || self.options.newcomers > 0 {
            return;
        }
        tell(&mut self.observer);
        if let Some(verdict) = self.observer.verdict() {
            self.check.fail(Invariant::Refinement, || verdict.to_string());
        }
    }

    /// Two observers that know nothing of each other find the same slots to be chosen. The check
    /// counts what a directory votes that was put in the place of another, the monitor does not.
    pub(super) fn compare_observers(&mut self) {
        let (one, other) = (self.check.chosen_prefix(), self.observer.chosen_prefix());
        let agree = self.options.newcomers > 0
            || one == other
            || one > other && self.observer.saw_replacement();
        if !agree && self.check.violation().is_none() {
            let detail =
                || format!("chosen is the prefix to {one}, and to {other} for the monitor");
            self.check.fail(Invariant::Refinement, detail);
        }
    }

    /// What happened.
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// What a replica says of itself; none while it is down.
    pub fn status(&self, id: ReplicaId) -> Option<Status> {
        Some(self.node(id).process.as_ref()?.status())
    }

    /// Why a replica stopped for good.
    pub fn halted(&self, id: ReplicaId) -> Option<&Halt> {
        self.node(id).halted.as_ref()
    }

    /// Whether a replica stopped for good: it halted, or its storage gives nothing back.
    pub fn has_stopped(&self, id: ReplicaId) -> bool {
        let node = self.node(id);
        !node.is_up() && self.is_spent(id)
    }

    /// Whether nothing waits for a replica's disk or state machine.
    pub fn is_quiet(&self, id: ReplicaId) -> bool {
        let node = self.node(id);
        let is_idle = |process: &Process| match process {
            Process::Replica(_) => true,
            Process::Host(host) => host.is_idle(),
        };
        node.jobs.is_empty() && !node.applying && node.process.as_ref().is_none_or(is_idle)
    }

    /// The highest ballot that a replica has promised, as its disk holds it at least.
    pub(super) fn promised(&self, id: ReplicaId) -> Option<Ballot> {
        let up = self.status(id).and_then(|status| status.promised);
        up.max(self.check.durable_promised(id))
    }

    pub(super) fn node(&self, id: ReplicaId) -> &Node {
        &self.nodes[usize::from(id.number()) - 1]
    }

    pub(super) fn node_mut(&mut self, id: ReplicaId) -> &mut Node {
        &mut self.nodes[usize::from(id.number()) - 1]
    }

    pub(super) fn log(&mut self, id: ReplicaId, event: &Event) {
        self.watch.event(id, event);
        self.trace.push(self.now, Some(id), event);
    }

    /// Writes a line into the trace.
    pub fn remark(&mut self, text: String) {
        self.trace.push(self.now, None, &Event::Note { text });
    }

    pub(super) fn queue(&mut self, at: Time, due: Due) {
        let order = self.order;
        self.order += 1;
        self.queue.push(Queued { at, order, due });
    }

    /// Lets a replica's process go on at once: what waited for it happens now, in its order.
    pub(super) fn resume(&mut self, id: ReplicaId) {
        let now = self.now;
        let until = core::mem::replace(&mut self.node_mut(id).paused_until, now);
        if until > now {
            self.wait_until(id, until, now);
        }
    }

    /// What waits for a replica's process up to one time waits up to another.
    pub(super) fn wait_until(&mut self, id: ReplicaId, before: Time, after: Time) {
        let waits = |queued: &Queued| queued.at == before && queued.due.whose() == Some(id);
        let mut queue = core::mem::take(&mut self.queue).into_vec();
        for queued in queue.iter_mut().filter(|queued| waits(queued)) {
            queued.at = after;
        }
        self.queue = queue.into();
    }

    /// Lets the next event happen; false if nothing is due up to `limit`, which is the time then,
    /// or if an invariant is broken.
    pub fn step(&mut self, limit: Time) -> bool {
        if self.check.violation().is_some() {
            return false;
        }
        if self.queue.peek().is_none_or(|next| next.at > limit) {
            self.now = self.now.max(limit);
            return false;
        }
        let Some(Queued { at, due, .. }) = self.queue.pop() else {
            return false;
        };
        self.now = self.now.max(at);
        self.happen(due);
        true
    }

    /// Lets everything happen that is due up to this time.
    pub fn run_until(&mut self, time: Time) {
        while self.step(time) {}
    }

    /// Lets everything happen that is due within this time.
    pub fn run_for(&mut self, duration: Duration) {
        self.run_until(self.now.after(duration));
    }

    /// Runs until `done` holds; false if it does not within this time.
    pub fn run_until_done(
        &mut self,
        within: Duration,
        mut done: impl FnMut(&mut Self) -> bool,
    ) -> bool {
        let limit = self.now.after(within);
        loop {
            if done(self) {
                return true;
            }
            if !self.step(limit) {
                return done(self);
            }
        }
    }

    /// Asks a bare replica to propose; none while it is down or stands still.
    pub fn propose(
        &mut self,
        id: ReplicaId,
        commands: &[Command],
    ) -> Option<Result<Proposed, ProposeError>> {
        for command in commands {
            self.check.submitted(command);
        }
        let now = self.now;
        let node = self.node_mut(id);
        if node.paused_until > now {
            return None;
        }
        let clock = node.clock;
        let room = node.storage.room();
        let replica = node.process.as_mut()?.replica()?;
        // As the host does: a disk without space takes no new commands.
        if room == Room::Full {
            let (commands, reason) = (commands.to_vec(), NotProposed::Busy);
            self.log(id, &Event::NotProposed { reason });
            return Some(Err(ProposeError { commands, reason }));
        }
        let result = replica.propose(commands.to_vec(), clock.wall(now), clock.local(now));
        match &result {
            Ok(proposed) => {
                let status = replica.status();
                self.check.proposed(id, commands, *proposed);
                self.check.admitted(id, &status);
                let Proposed { slot, ballot } = *proposed;
                self.observe(|observer| observer.submitted(commands));
                self.log(id, &Event::Proposed { slot, ballot });
            }
            Err(error) => self.log(id, &Event::NotProposed { reason: error.reason }),
        }
        self.drain(id);
        Some(result)
    }
}
