//! A whole node at a place of a simulated cluster.
//!
//! Owns: [`SimHost`]: the node's own driver and applier, polled here instead of by a runtime, and
//! the simulated ground beneath them. Decides nothing that a node decides.
//! Invariants: the driver runs in every turn until nobody wakes it; the applier runs in turns of its
//! own, as on another thread; what the driver tells the applier is seen on its way.

use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::mpsc as std_mpsc;

use futures::StreamExt;
use paxos_core::ids::{ReplicaId, Slot, Time};
use paxos_core::output::{Counters, Status};
use paxos_core::port::{Recovered, SnapshotStore, TransportEvent};
use paxos_core::session::Bounds;
use paxos_core::sim::{Birth, Effect, Ending, Host, Moment, Rng, Stimulus};
use paxos_core::snapshot::SnapshotMeta;
use tokio::sync::mpsc;

use super::clock::SimClock;
use super::ledger::{Ledger, Numbered};
use super::turn::{Flag, poll_to_end};
use super::watched::Watched;
use super::wire::Wire;
use crate::apply::{Item, ReplyTo};
use crate::builder::{Ground, Parts, Revived, assemble, revive};
use crate::client::Client;
use crate::codec::CommandCodec;
use crate::driver::Driver;
use crate::error::{StopReason, panic_words};
use crate::journal::{Done, Job, Journal};
use crate::machine::StateMachine;
use crate::metrics::Meters;
use crate::node::Node;
use crate::options::NodeOptions;
use crate::shared::Shared;
use crate::snapshot::shelf::{Brought, Errand, Shelf};
use crate::snapshot::{Start, image};

/// The applier's name in [`Effect::Later`].
const APPLIER: u32 = 1;
/// And that of the snapshots' thread.
const SHELF: u32 = 2;
/// More polls than this in one turn mean that they never end.
const POLLS_MAX: usize = 10_000;

type Request<M> = ReplyTo<Watched<M>>;

/// A node, and what the simulator puts beneath it.
pub(super) struct SimHost<M: StateMachine> {
    /// Dropping it closes the node, so it goes with it.
    _node: Node<Watched<M>>,
    shared: Arc<Shared>,
    driver: Driver<Request<M>>,
    driver_flag: Arc<Flag>,
    applier: Pin<Box<dyn Future<Output = ()> + Send>>,
    applier_flag: Arc<Flag>,
    /// Its turn was asked for.
    applier_waits: bool,
    applier_ended: bool,
    /// What the driver tells the applier, on its way.
    items: mpsc::UnboundedReceiver<Item<Request<M>>>,
    to_applier: mpsc::UnboundedSender<Item<Request<M>>>,
    jobs: std_mpsc::Receiver<Job>,
    done: mpsc::UnboundedSender<Done>,
    /// What the applier tells the driver, on its way.
    told: mpsc::UnboundedReceiver<Done>,
    /// The snapshot that the driver was told of last that the state machine jumped to.
    restored: Option<SnapshotMeta>,
    installed: u64,
    snapshots: Aside,
    clock: SimClock,
    wire: Wire,
    ledger: Arc<Ledger<M>>,
    applied: Slot,
    armed: Option<Time>,
    stopped: bool,
}

impl<M: StateMachine> fmt::Debug for SimHost<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimHost").field("status", &self.status()).finish_non_exhaustive()
    }
}

/// What the thread of the snapshots is in a real node.
struct Aside {
    shelf: Option<Shelf>,
    errands: std_mpsc::Receiver<Errand>,
    /// What it does in its next turn; none: it writes one more piece of an image.
    errand: Option<Errand>,
    /// Its turn was asked for.
    waits: bool,
}

impl Aside {
    /// Whether it is to have a turn, and has not asked for one.
    fn wants_turn(&mut self) -> bool {
        let Some(place) = self.shelf.as_ref().filter(|_| !self.waits) else { return false };
        self.errand = self.errands.try_recv().ok();
        self.waits = self.errand.is_some() || place.is_making();
        self.waits
    }

    /// Does one thing with the store.
    fn turn(&mut self) -> Option<Brought> {
        self.waits = false;
        let place = self.shelf.as_mut()?;
        match self.errand.take() {
            Some(errand) => place.work(errand),
            None => place.step(|image| {
                poll_to_end(image.next()).expect("an image waits for nothing outside")
            }),
        }
    }
}

/// What hosts of one seed have in common.
pub(super) struct Common<M: StateMachine> {
    pub(super) codec: Arc<dyn CommandCodec<M::Command>>,
    pub(super) options: NodeOptions,
    /// How much the nodes remember of sessions.
    pub(super) sessions: Bounds,
    pub(super) ledger: Arc<Ledger<M>>,
    /// How many of a thousand frames a lane refuses; none after the faults.
    pub(super) full: Arc<AtomicU32>,
}

impl<M: StateMachine> SimHost<M> {
    /// Starts a node, and gives a client of it.
    pub(super) fn start(
        birth: Birth,
        machine: M,
        common: &Common<M>,
    ) -> (Self, Client<Watched<M>>, Arc<Shared>) {
        let Birth { mut recovered, config, seed, moment, snapshots } = birth;
        let Recovered { ref format, .. } = recovered;
        let id: ReplicaId = format.replica;
        let mut rng = Rng::new(seed);
        let clock = SimClock::new(moment, rng.bits());
        let (wire, transport) = Wire::new(id, rng.fork(), Arc::clone(&common.full));
        let (jobs_sender, jobs) = std_mpsc::channel();
        let (done_sender, done) = mpsc::unbounded_channel();
        let ledger = Arc::clone(&common.ledger);
        let codec: Arc<dyn CommandCodec<M::Command>> =
            Arc::new(Numbered { codec: Arc::clone(&common.codec), ledger: Arc::clone(&ledger) });
        let mut machine = Watched { id, machine, ledger: Arc::clone(&ledger) };
        let Revived { kept, shelf, store } =
            Self::revive(snapshots, &mut recovered, &mut machine, common.sessions);
        let (errands_sender, errands) = std_mpsc::channel();
        let group = recovered.format.group;
        let shelf_of = store.map(|store| Shelf::new(store, group, image::Place::Here));
        let errands_sender = shelf_of.is_some().then_some(errands_sender);
        let (told_sender, told) = mpsc::unbounded_channel();
        let ground = Ground {
            clock: Arc::new(clock.clone()),
            transport: Box::new(transport),
            journal: Journal::Queue(jobs_sender),
            shelf: Start { errands: errands_sender, ..shelf },
            kept,
            meters: Arc::new(Meters::new()),
            done_sender: told_sender,
            done,
            recovered,
        };
        let parts = assemble(ground, machine, codec, config, common.options.clone());
        let Parts { node, mut driver, mut applier, shared } =
            parts.expect("what storage gave back is what was written");
        let looks = Arc::clone(&ledger);
        applier.onlooker = Some(Box::new(move |slot, table| looks.passed(id, slot, table)));
        let (tap, items) = mpsc::unbounded_channel();
        let to_applier = core::mem::replace(&mut driver.apply, tap);
        let client = node.client();
        let applied = shared.applied();
        let host = Self {
            _node: node,
            shared: Arc::clone(&shared),
            driver,
            driver_flag: Flag::raised(),
            applier: Box::pin(applier.run()),
            applier_flag: Flag::raised(),
            applier_waits: false,
            applier_ended: false,
            items,
            to_applier,
            jobs,
            done: done_sender,
            told,
            restored: None,
            installed: 0,
            snapshots: Aside { shelf: shelf_of, errands, errand: None, waits: false },
            clock,
            wire,
            ledger,
            applied,
            armed: None,
            stopped: false,
        };
        (host, client, shared)
    }

    /// Restores the machine as a real node does, and shows what came of it.
    fn revive(
        snapshots: Option<Box<dyn SnapshotStore>>,
        recovered: &mut Recovered,
        machine: &mut Watched<M>,
        sessions: Bounds,
    ) -> Revived {
        let (id, ledger) = (machine.id, Arc::clone(&machine.ledger));
        ledger.begins(id);
        let revived = revive(snapshots, recovered, machine, sessions, image::Place::Here);
        let revived = poll_to_end(revived).expect("it waits for nothing outside");
        let revived = revived.expect("the storage gave back a snapshot that is whole");
        if let Some(meta) = &recovered.snapshot {
            ledger.passed(id, meta.slot, &revived.kept.table);
        }
        revived
    }

    fn take_in(&mut self, stimulus: Stimulus, effects: &mut Vec<Effect>) {
        match stimulus {
            Stimulus::Frame { from, channel, bytes } => {
                self.wire.arrive(TransportEvent::Frame { from, channel, bytes });
            }
            Stimulus::Up(peer, incarnation) => {
                self.wire.arrive(TransportEvent::Up { peer, incarnation });
            }
            Stimulus::Down(peer) => {
                let reason = "the simulator's network".to_owned();
                self.wire.arrive(TransportEvent::Down { peer, reason });
            }
            Stimulus::Durable(proofs, room) => self.is_done(Done::Durable(proofs, room)),
            Stimulus::Loaded(ticket, loaded) => self.is_done(Done::Loaded(ticket, loaded)),
            Stimulus::Failed(error) => {
                self.is_done(Done::Failed(StopReason::Storage(Arc::new(error))));
            }
            Stimulus::Timer => self.armed = None,
            Stimulus::Part(SHELF) => self.go_aside(effects),
            Stimulus::Part(_) => {
                self.applier_waits = false;
                self.poll_applier();
            }
            // Nobody waits for what comes of it.
            Stimulus::Transfer(to) => drop(self.shared.hand_over(Some(to))),
            Stimulus::Start | Stimulus::Asked => {}
        }
    }

    fn is_done(&self, done: Done) {
        // A driver that is gone has said why.
        let _ = self.done.send(done);
    }

    fn poll_applier(&mut self) {
        if self.applier_ended || !self.applier_flag.lower() {
            return;
        }
        let waker = Arc::clone(&self.applier_flag).into();
        let mut cx = Context::from_waker(&waker);
        self.applier_ended = self.applier.as_mut().poll(&mut cx).is_ready();
    }

    /// The thread of the snapshots has its turn.
    fn go_aside(&mut self, effects: &mut Vec<Effect>) {
        let brought = self.snapshots.turn();
        if let Some(Brought::Made(Ok(meta)) | Brought::Finished(meta, Ok(()))) = &brought {
            effects.push(Effect::SnapshotKept(meta.clone()));
        }
        if let Some(brought) = brought {
            self.is_done(Done::Brought(brought));
        }
    }

    /// Passes on what the applier told the driver.
    fn relay(&mut self) {
        while let Ok(done) = self.told.try_recv() {
            if let Done::Restored(meta) = &done {
                self.restored = Some(meta.clone());
            }
            self.is_done(done);
        }
    }

    /// What was handed out, or is in a snapshot that was jumped to, is not on its way into the log any more:
    /// it must not count against whoever sent it.
    fn require_landed(&self) {
        let (rounds, handed) = (&self.driver.rounds, self.driver.intake.handed);
        let lowest = rounds.front().map(|round| round.slot);
        assert!(
            lowest.is_none_or(|slot| slot > handed),
            "what was proposed in {lowest:?} has landed, and {handed} was handed out"
        );
    }

    /// Polls the driver until nobody wakes it; why it stopped, if it did.
    fn poll_driver(&mut self, effects: &mut Vec<Effect>) -> Option<StopReason> {
        let waker = Arc::clone(&self.driver_flag).into();
        let mut cx = Context::from_waker(&waker);
        for _ in 0..POLLS_MAX {
            if !self.driver_flag.lower() {
                return None;
            }
            let driver = &mut self.driver;
            let polled = catch_unwind(AssertUnwindSafe(|| driver.poll_run(&mut cx)));
            self.require_landed();
            self.collect(effects);
            match polled {
                Ok(Poll::Pending) => {}
                Ok(Poll::Ready(reason)) => return Some(reason),
                Err(panic) => return Some(StopReason::Panicked(panic_words(panic.as_ref()))),
            }
        }
        Some(StopReason::Panicked("the node's task never rests".to_owned()))
    }

    /// Takes what the driver did to where it can be seen.
    fn collect(&mut self, effects: &mut Vec<Effect>) {
        // The replica jumps before it does anything else in the same turn.
        let installed = self.driver.replica.counters().snapshots_installed;
        if installed > self.installed
            && let Some(meta) = self.restored.take()
        {
            self.installed = installed;
            self.applied = meta.slot;
            effects.push(Effect::Installed(meta));
        }
        let left = self.wire.take();
        effects.extend(left.into_iter().map(|(to, frame)| Effect::Send { to, frame }));
        for job in self.jobs.try_iter() {
            match job {
                Job::Persist(batches) if batches.is_empty() => effects.push(Effect::Look),
                Job::Persist(batches) => effects.extend(batches.into_iter().map(Effect::Persist)),
                Job::Load(ticket, range) => effects.push(Effect::Load(ticket, range)),
            }
        }
        while let Ok(item) = self.items.try_recv() {
            if let Item::Values { values, .. } = &item {
                for (slot, value) in values {
                    self.ledger.chosen(*slot, value);
                    effects.push(Effect::Apply(*slot, value.clone()));
                }
            }
            // An applier that ended has said why.
            let _ = self.to_applier.send(item);
        }
    }

    fn stop(&mut self, reason: StopReason, effects: &mut Vec<Effect>) {
        self.stopped = true;
        // Whatever the reason, the applier finishes what it was given and answers who waits.
        for _ in 0..POLLS_MAX {
            self.poll_applier();
        }
        let ending = match reason {
            StopReason::Shutdown => Ending::Shutdown,
            StopReason::Halt(halt) => Ending::Halt(halt),
            StopReason::Storage(_) => Ending::Storage,
            StopReason::Restore { .. } => Ending::Restore(reason.to_string()),
            StopReason::Apply { .. }
            | StopReason::Diverged { .. }
            | StopReason::Level { .. }
            | StopReason::Undecodable { .. }
            | StopReason::Transport
            | StopReason::Panicked(_) => Ending::Failure(reason.to_string()),
        };
        effects.push(Effect::Stopped(ending));
    }
}

impl<M: StateMachine> Host for SimHost<M> {
    fn turn(&mut self, stimulus: Stimulus, moment: Moment, effects: &mut Vec<Effect>) {
        if self.stopped {
            return;
        }
        self.clock.set(moment);
        self.take_in(stimulus, effects);
        self.relay();
        if let Some(reason) = self.poll_driver(effects) {
            return self.stop(reason, effects);
        }
        let applied = self.shared.applied().min(self.driver.intake.handed);
        if applied > self.applied {
            self.applied = applied;
            effects.push(Effect::Applied(applied));
        }
        if self.applier_flag.is_raised() && !self.applier_waits && !self.applier_ended {
            self.applier_waits = true;
            effects.push(Effect::Later(APPLIER));
        }
        if self.snapshots.wants_turn() {
            effects.push(Effect::Later(SHELF));
        }
        let next = self.clock.next();
        if next != self.armed {
            self.armed = next;
            effects.push(Effect::WakeAt(next));
        }
    }

    fn status(&self) -> Status {
        let mut status = self.driver.replica.status();
        // As the node's own status: its task hears of it when it wakes next.
        status.applied = self.shared.applied().min(self.driver.intake.handed);
        let handed = self.driver.intake.handed;
        status.slots_being_applied = handed.distance_from(status.applied) as usize;
        status
    }

    fn counters(&self) -> Counters {
        self.driver.replica.counters()
    }

    fn is_idle(&self) -> bool {
        self.shared.waiting() == 0
            && self.driver.queue.is_empty()
            && self.driver.reads.is_empty()
            && self.driver.quorum_reads.is_empty()
            && self.driver.queue.forwarded_bytes() == 0
            && self.driver.forwarder.unanswered() == 0
    }
}
