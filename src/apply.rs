//! Chosen values to replies, in order, on a task of its own.
//!
//! Owns: the state machine, the table of sessions, the waiting list, and the last applied slot. Knows
//! no protocol.
//! Invariants: (1) slots are applied in order, each once in a life, and to a state machine that
//! includes some already the rest of them; a snapshot takes its place in that order; (2) a command whose bytes do not
//! decode, or a panic of the state machine, stops the node: nothing after it is applied;
//! (3) whoever waits is answered after the state machine returned, never before; (4) waiting
//! requests time out while the state machine works, as long as it yields.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;

use core::future::poll_fn;
use core::time::Duration;
use futures::FutureExt;
use paxos_core::ballot::Ballot;
use paxos_core::ids::{ClientId, Slot, Time};
use paxos_core::session::{Bounds, SessionTable};
use paxos_core::snapshot::SnapshotMeta;
use paxos_core::value::{Level, Value};
use tokio::sync::{mpsc, oneshot};

use crate::clock::{Alarm, Clock};
use crate::codec::CommandCodec;
use crate::divergence::Mark;
use crate::error::{ClientError, Rejection, StopReason, Uncertainty, panic_words};
use crate::journal::Done;
use crate::machine::{Batch, SnapshotError, StateMachine};
use crate::once::{Fate, Kept, Once, Unfit};
use crate::request::Applied;
use crate::session::opens;
use crate::shared::Shared;
use crate::snapshot::duty::Given;
use crate::snapshot::image::{self, Head};
use crate::snapshot::shelf::Image;
use crate::waiters::{Numbers, Waiter, Waiters, Waiting};

/// How often waiting requests are looked through for those that gave up: how late a timeout may be.
pub(crate) const SWEEP_INTERVAL: Duration = Duration::from_millis(50);
/// Every so many sweeps those whose client is gone are forgotten too.
const SWEEPS_PER_FULL: u32 = 10;

/// After so many queries the task lets others run: a query may never wait for anything itself.
const READS_PER_YIELD: usize = 64;

/// What the node's task says to this one.
#[derive(Debug)]
pub(crate) enum Item<W> {
    /// These wait, from this number on.
    Register(u64, Vec<Waiting<W>>),
    /// The leader of this ballot may propose these; `None` if they certainly were not proposed.
    Given(Numbers, Option<Ballot>),
    /// Leaders below this ballot answer no more.
    Deposed(Ballot),
    /// These were proposed in this slot, and nowhere else.
    Proposed(Numbers, Slot),
    /// These will not be applied.
    Fail(Numbers, ClientError),
    /// These reads may be answered once this slot is applied.
    Read(Slot, Vec<Waiting<W>>),
    /// Chosen values in order.
    Values {
        values: Vec<(Slot, Value)>,
        /// Whether the node waits for them to be applied.
        nudge: bool,
    },
    /// An image of the state is wanted, if it is of a slot above this one.
    Image { above: Slot },
    /// This snapshot takes the place of the slots up to its own.
    Restore(SnapshotMeta, Image),
    /// The node has stopped.
    Stop,
}

type Answer<T> = oneshot::Sender<Result<T, ClientError>>;

/// Who waits for what of a state machine.
pub(crate) enum ReplyTo<M: StateMachine> {
    Command(Answer<Applied<M::Reply>>),
    /// Waits for a session to be opened or closed.
    Session(Answer<Slot>),
    Query(Box<(M::Query, Answer<M::Answer>)>),
}

impl<M: StateMachine> Waiter for ReplyTo<M> {
    fn fail(self, error: ClientError) {
        // A client that is gone does not mind.
        match self {
            Self::Command(answer) => drop(answer.send(Err(error))),
            Self::Session(answer) => drop(answer.send(Err(error))),
            Self::Query(query) => drop(query.1.send(Err(error))),
        }
    }

    fn is_gone(&self) -> bool {
        match self {
            Self::Command(answer) => answer.is_closed(),
            Self::Session(answer) => answer.is_closed(),
            Self::Query(query) => query.1.is_closed(),
        }
    }
}

/// Is shown the table of sessions after each slot.
pub(crate) type Onlooker = Box<dyn FnMut(Slot, &SessionTable) + Send>;

/// What is done in order.
#[derive(Debug)]
enum Work {
    Value(Slot, Value),
    Image { above: Slot },
    Restore(SnapshotMeta, Image),
}

/// The task.
pub(crate) struct Applier<M: StateMachine> {
    machine: M,
    /// The last slot that the machine included when it was made.
    included: Slot,
    pub(crate) once: Once,
    /// Whoever looks on; nobody but a simulator does.
    pub(crate) onlooker: Option<Onlooker>,
    codec: Arc<dyn CommandCodec<M::Command>>,
    client: ClientId,
    applied: Slot,
    /// The last slot that the machine was not told of.
    skipped: Option<Slot>,
    side: Side<ReplyTo<M>>,
    done: mpsc::UnboundedSender<Done>,
}

/// What goes on beside the state machine's work.
struct Side<W> {
    items: mpsc::UnboundedReceiver<Item<W>>,
    taken: Vec<Item<W>>,
    work: VecDeque<Work>,
    nudge: bool,
    waiters: Waiters<W>,
    /// Reads that wait for their read point to be applied.
    reads: BTreeMap<Slot, VecDeque<Waiting<W>>>,
    clock: Arc<dyn Clock>,
    /// Rings when waiting requests are to be looked through.
    alarm: Box<dyn Alarm>,
    swept: Time,
    sweeps: u32,
    ended: bool,
    shared: Arc<Shared>,
}

/// Restores the state machine, unless it includes as much already, and gives what is kept beside it. Rule U2.
pub(crate) async fn recall<M: StateMachine>(
    machine: &mut M,
    included: Slot,
    meta: &SnapshotMeta,
    image: Image,
    bounds: Bounds,
) -> Result<Kept, SnapshotError> {
    let (head, rest) = image::open(image.0, meta).await?;
    let known = Level::known(machine.level());
    if !known.covers(head.level) {
        return Err(SnapshotError::Level { needed: head.level, known });
    }
    let table = head.table(bounds)?;
    if meta.slot > included {
        machine.restore(meta.slot, rest).await?;
    }
    if head.level != Level::default() {
        machine.raised(head.level.machine);
    }
    Ok(Kept { table, level: head.level })
}

impl<M: StateMachine> Applier<M> {
    pub(crate) fn new(
        machine: M,
        kept: Kept,
        codec: Arc<dyn CommandCodec<M::Command>>,
        client: ClientId,
        items: mpsc::UnboundedReceiver<Item<ReplyTo<M>>>,
        done: mpsc::UnboundedSender<Done>,
        shared: Arc<Shared>,
    ) -> Self {
        let (applied, clock) = (shared.applied(), Arc::clone(&shared.clock));
        let (now, mut alarm) = (clock.now(), clock.alarm());
        alarm.set(now.after(SWEEP_INTERVAL));
        let included = machine.applied();
        shared.set_level(kept.level);
        let once = Once::new(kept, Level::known(machine.level()), Arc::clone(&shared.meters));
        Self {
            machine,
            included,
            once,
            onlooker: None,
            codec,
            client,
            applied,
            skipped: None,
            side: Side {
                items,
                taken: Vec::new(),
                work: VecDeque::new(),
                nudge: false,
                waiters: Waiters::new(applied),
                reads: BTreeMap::new(),
                clock,
                alarm,
                swept: now,
                sweeps: 0,
                ended: false,
                shared,
            },
            done,
        }
    }

    /// Applies until the node stops, or the state machine cannot go on.
    pub(crate) async fn run(mut self) {
        while !self.side.ended {
            self.side.listen().await;
            let applied = match self.apply_all().await {
                Ok(()) => self.answer_reads().await,
                Err(reason) => Err(reason),
            };
            if let Err(reason) = applied {
                self.side.stop();
                // The node's task may have ended for another reason.
                let _ = self.done.send(Done::Failed(reason));
                return;
            }
        }
    }

    async fn apply_all(&mut self) -> Result<(), StopReason> {
        if self.side.work.is_empty() {
            return Ok(());
        }
        while let Some(work) = self.side.work.pop_front() {
            match work {
                // It was on its way when a snapshot that includes it was restored.
                Work::Value(slot, _) if slot <= self.applied => continue,
                Work::Value(slot, value) => self.apply_value(slot, &value).await?,
                Work::Image { above } => self.give_image(above).await?,
                Work::Restore(meta, image) => self.restore(meta, image).await?,
            }
            self.side.release();
            self.side.shared.set_applied(self.applied);
            self.answer_reads().await?;
        }
        self.tell_skipped();
        let applied = self.applied;
        let shared = &self.side.shared;
        shared.events.send_modify(|state| state.applied = applied);
        if core::mem::take(&mut self.side.nudge) {
            shared.nudge();
        }
        Ok(())
    }

    async fn apply_value(&mut self, slot: Slot, value: &Value) -> Result<(), StopReason> {
        assert_eq!(slot, self.applied.next(), "slots are applied in order");
        match value {
            Value::Noop | Value::Membership(_) => self.skip(slot),
            Value::Batch(batch) => self.apply_batch(slot, batch).await?,
        }
        self.applied = slot;
        if let Some(onlooker) = &mut self.onlooker {
            onlooker(slot, self.once.table());
        }
        self.side.waiters.settle(slot);
        if slot.number().is_multiple_of(self.side.shared.digest_slots) {
            self.mark()?;
        }
        Ok(())
    }

    /// Tells the node's task the digest of the present state, if it is that of the last applied slot.
    /// Rule H1.
    fn mark(&mut self) -> Result<(), StopReason> {
        let slot = self.applied;
        if slot < self.included {
            return Ok(());
        }
        self.tell_skipped();
        let machine = AssertUnwindSafe(&self.machine);
        let digest = catch_unwind(|| machine.digest()).map_err(|panic| {
            let what = format!("in a digest: {}", panic_words(panic.as_ref()));
            StopReason::Apply { slot, what }
        })?;
        if let Some(digest) = digest {
            // The node's task may have ended.
            let _ = self.done.send(Done::Marked(Mark { slot, digest }));
        }
        Ok(())
    }

    /// Gives the node's task an image of the present state.
    async fn give_image(&mut self, above: Slot) -> Result<(), StopReason> {
        self.tell_skipped();
        let slot = self.applied;
        let given = if slot <= above {
            Given::Unchanged
        } else if slot < self.included {
            // Its own state is that of a later slot.
            Given::Nothing(format!("the state machine is ahead, at {}", self.included))
        } else {
            let image = self.side.drive(self.machine.snapshot()).await;
            let what = |what| StopReason::Apply { slot, what: format!("in a snapshot: {what}") };
            match image.map_err(what)? {
                Ok(image) => {
                    Given::Image(Head::of(slot, self.once.table(), self.once.level()), Image(image))
                }
                Err(error) => Given::Nothing(error.to_string()),
            }
        };
        // The node's task may have ended.
        let _ = self.done.send(Done::Given(given));
        Ok(())
    }

    /// Takes the place of the slots up to the snapshot's, unless they are applied.
    async fn restore(&mut self, meta: SnapshotMeta, image: Image) -> Result<(), StopReason> {
        let slot = meta.slot;
        if slot > self.applied {
            let failed = |what: String| StopReason::Restore { slot, what };
            let bounds = self.once.table().bounds();
            let restored = recall(&mut self.machine, self.included, &meta, image, bounds);
            let kept = self.side.drive(restored).await.map_err(failed)?;
            self.once.jump(kept.map_err(|error| failed(error.to_string()))?);
            self.side.shared.set_level(self.once.level());
            self.applied = slot;
            // It knows that it includes them.
            self.skipped = None;
            self.side.waiters.skip(slot);
            if let Some(onlooker) = &mut self.onlooker {
                onlooker(slot, self.once.table());
            }
        }
        // The node's task may have ended.
        let _ = self.done.send(Done::Restored(meta));
        Ok(())
    }

    /// Decides which commands of the batch are for the state machine, and tells it of a level. Rule U2.
    fn decide(&mut self, slot: Slot, batch: &paxos_core::value::Batch) -> Result<(), StopReason> {
        let before = self.once.level();
        let known = Level::known(self.machine.level());
        self.once.decide(batch).map_err(|unfit| match unfit {
            Unfit::Kind(kind) => {
                StopReason::Undecodable { slot, what: format!("command kind {kind:?}") }
            }
            Unfit::Level(needed) => StopReason::Level { slot, needed, known },
        })?;
        let level = self.once.level();
        if level != before {
            let mut machine = AssertUnwindSafe(&mut self.machine);
            catch_unwind(move || machine.raised(level.machine)).map_err(|panic| {
                let what = format!("as the log was raised: {}", panic_words(panic.as_ref()));
                StopReason::Apply { slot, what }
            })?;
            self.side.shared.set_level(level);
            tracing::info!(%slot, %level, "the log was raised");
        }
        Ok(())
    }

    async fn apply_batch(
        &mut self,
        slot: Slot,
        batch: &paxos_core::value::Batch,
    ) -> Result<(), StopReason> {
        let undecodable = |what| StopReason::Undecodable { slot, what };
        self.decide(slot, batch)?;
        if slot <= self.included {
            return Ok(());
        }
        let mut commands = Vec::with_capacity(batch.commands().len());
        for (command, fate) in batch.commands().iter().zip(self.once.fates()) {
            if *fate == Fate::Apply {
                let decoded = self.codec.decode(command.payload.clone());
                commands.push(decoded.map_err(|error| undecodable(error.to_string()))?);
            }
        }
        let count = commands.len();
        let mut replies = Vec::new();
        if count == 0 {
            self.skip(slot);
        } else {
            self.tell_skipped();
            let meters = &self.side.shared.meters;
            meters.commands_applied.add(count as u64);
            let clock = batch.clock();
            let batch = Batch { slot, clock, commands };
            replies = self
                .side
                .drive(self.machine.apply(batch))
                .await
                .map_err(|what| StopReason::Apply { slot, what })?;
        }
        if replies.len() != count {
            let what = format!("{} replies to {count} commands", replies.len());
            return Err(StopReason::Apply { slot, what });
        }
        self.answer(slot, batch, replies);
        Ok(())
    }

    /// Keeps replies that may be asked for again, and answers those of this node's clients whose
    /// commands were in the batch.
    fn answer(&mut self, slot: Slot, batch: &paxos_core::value::Batch, replies: Vec<M::Reply>) {
        let mut replies = replies.into_iter();
        for (place, command) in batch.commands().iter().enumerate() {
            let fate = self.once.fates()[place];
            let reply = if fate == Fate::Apply { replies.next() } else { None };
            if let Some(reply) = &reply {
                self.once.keep(command, reply);
            }
            if command.client != self.client {
                continue;
            }
            if let Some(number) = opens(command, self.client) {
                self.side.shared.session_opened(number);
            }
            // A client that is gone does not mind.
            match self.side.waiters.take(command.request.number()) {
                None => {}
                Some(ReplyTo::Command(answer)) => {
                    let told = match reply {
                        Some(reply) => Ok(reply),
                        None => self.once.recall(command, fate, slot),
                    };
                    let _ = answer.send(told.map(|reply| Applied { slot, reply }));
                }
                Some(ReplyTo::Session(answer)) => drop(answer.send(Ok(slot))),
                Some(ReplyTo::Query(_)) => unreachable!("what has a number is a command"),
            }
        }
        self.side.release();
    }

    /// Answers the reads whose read point is applied. Rule R4.
    ///
    /// At most so many as are due now: those that come meanwhile wait until a slot was applied, or
    /// reads alone could keep the state machine busy for ever.
    async fn answer_reads(&mut self) -> Result<(), StopReason> {
        let slot = self.applied;
        for answered in 0..self.side.reads_due(slot) {
            // Those that wait stay where deadlines and the end of the node find them.
            let Some(read) = self.side.next_read(slot) else { break };
            let ReplyTo::Query(query) = read.waiter else {
                unreachable!("a read waits for the answer to a query")
            };
            self.side.shared.lanes.release(read.load.lane, 1);
            let (query, answer) = *query;
            if answer.is_closed() {
                continue;
            }
            let result = self.side.drive(self.machine.query(query)).await;
            let what = |what| StopReason::Apply { slot, what: format!("in a query: {what}") };
            // A client that is gone does not mind.
            let _ = answer.send(Ok(result.map_err(what)?));
            if answered % READS_PER_YIELD == READS_PER_YIELD - 1 {
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    fn skip(&mut self, slot: Slot) {
        // It knows of those that it includes.
        self.skipped = Some(slot).filter(|slot| *slot > self.included);
    }

    fn tell_skipped(&mut self) {
        if let Some(slot) = self.skipped.take() {
            self.machine.skipped(slot);
        }
    }
}

impl<W: Waiter> Side<W> {
    /// Waits for something to do, and takes it in. Cancel safe.
    async fn listen(&mut self) {
        let mut due = false;
        tokio::select! {
            biased;
            count = self.items.recv_many(&mut self.taken, 256) => {
                self.ended |= count == 0;
            }
            () = poll_fn(|cx| self.alarm.poll_ring(cx)) => due = true,
        }
        let mut stopped = false;
        for item in self.taken.drain(..) {
            match item {
                Item::Register(first, waiting) => self.waiters.register(first, waiting),
                Item::Given(numbers, ballot) => self.waiters.given(numbers, ballot),
                Item::Deposed(ballot) => self.waiters.depose(ballot),
                Item::Proposed(numbers, slot) => self.waiters.proposed(numbers, slot),
                Item::Fail(numbers, error) => self.waiters.fail(numbers, &error),
                Item::Read(point, waiting) => self.reads.entry(point).or_default().extend(waiting),
                Item::Values { values, nudge } => {
                    self.work
                        .extend(values.into_iter().map(|(slot, value)| Work::Value(slot, value)));
                    self.nudge |= nudge;
                }
                Item::Image { above } => self.work.push_back(Work::Image { above }),
                Item::Restore(meta, image) => self.work.push_back(Work::Restore(meta, image)),
                Item::Stop => stopped = true,
            }
        }
        if stopped {
            self.stop();
            self.ended = true;
        }
        let now = self.clock.now();
        if due || now.since(self.swept) >= SWEEP_INTERVAL {
            self.swept = now;
            self.alarm.set(now.after(SWEEP_INTERVAL));
            self.sweeps += 1;
            let full = self.sweeps.is_multiple_of(SWEEPS_PER_FULL);
            self.waiters.sweep(now, full);
            self.sweep_reads(now);
        }
        self.release();
    }

    /// Runs the state machine's work to its end, and sees to everything else meanwhile.
    async fn drive<T>(&mut self, work: impl Future<Output = T>) -> Result<T, String> {
        let mut work = pin!(AssertUnwindSafe(work).catch_unwind());
        loop {
            tokio::select! {
                biased;
                result = &mut work => {
                    return result.map_err(|panic| panic_words(panic.as_ref()));
                }
                () = self.listen(), if !self.ended => {}
            }
        }
    }

    /// How many reads have their point applied.
    fn reads_due(&self, applied: Slot) -> usize {
        self.reads.range(..=applied).map(|(_, reads)| reads.len()).sum()
    }

    /// The next read whose point is applied, and whose time is not over.
    fn next_read(&mut self, applied: Slot) -> Option<Waiting<W>> {
        let now = self.clock.now();
        while let Some(mut entry) = self.reads.first_entry()
            && *entry.key() <= applied
        {
            let Some(read) = entry.get_mut().pop_front() else {
                entry.remove();
                continue;
            };
            if read.deadline > now {
                return Some(read);
            }
            self.shared.turn_down(read, ClientError::Rejected(Rejection::TimedOut));
        }
        None
    }

    /// Reads whose time is over are told so; those whose client is gone are forgotten.
    fn sweep_reads(&mut self, now: Time) {
        let shared = &self.shared;
        self.reads.retain(|_, reads| {
            for read in core::mem::take(reads) {
                if read.deadline > now && !read.waiter.is_gone() {
                    reads.push_back(read);
                } else {
                    shared.turn_down(read, ClientError::Rejected(Rejection::TimedOut));
                }
            }
            !reads.is_empty()
        });
    }

    /// Nothing more will be applied: tells everybody.
    fn stop(&mut self) {
        let stopped = ClientError::Unknown(Uncertainty::Stopped);
        self.waiters.fail_all(&stopped);
        for read in core::mem::take(&mut self.reads).into_values().flatten() {
            self.shared.turn_down(read, ClientError::Rejected(Rejection::Stopped));
        }
        self.release();
    }

    fn release(&mut self) {
        if self.waiters.settle_answered(&self.shared.lanes) {
            self.shared.nudge();
        }
    }
}

#[cfg(test)]
mod tests;
