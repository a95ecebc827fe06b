//! What was applied, slot by slot, for whoever wants to follow the log (the book's Replicated Log, its
//! readers' side).
//!
//! Owns: [`AppliedStream`], and [`Pages`], which streams wait for a page of the log. The log is the
//! replica's and the storage's; nothing is kept for streams.
//! Invariants: (1) a stream tells of every slot from its first on, in order, each once; (2) it tells of a
//! slot after this node's state machine has applied it; (3) a stream holds one page at most, and waits
//! for one at most.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use core::fmt;
use futures::stream::{self, Stream};
use paxos_core::ids::{Slot, Time};
use paxos_core::output::LoadTicket;
use paxos_core::port::Loaded;
use paxos_core::replica::LogPage;
use paxos_core::trace::Event;
use paxos_core::value::{CommandKind, Value};
use tokio::sync::{oneshot, watch};

use crate::codec::CommandCodec;
use crate::driver::Driver;
use crate::journal::Job;
use crate::machine::Batch;
use crate::shared::{NodeEventState, Shared};
use crate::waiters::Waiter;

/// What stands in one slot that was applied.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum AppliedSlot<C> {
    /// Commands, as the log has them: one that was sent again in a session may stand in several slots, and
    /// was applied in the first.
    Batch(Batch<C>),
    /// Nothing that the state machine was told of.
    Skipped(Slot),
}

impl<C> AppliedSlot<C> {
    /// The slot.
    pub const fn slot(&self) -> Slot {
        match self {
            Self::Batch(batch) => batch.slot,
            Self::Skipped(slot) => *slot,
        }
    }
}

/// Why a stream of applied slots ends.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum StreamEnd {
    /// The slot was trimmed from the log. What it did is in the state of this slot and later ones.
    Trimmed {
        /// The first slot that the log still has.
        first: Slot,
    },
    /// A command in this slot does not decode.
    Undecodable {
        /// The slot.
        slot: Slot,
        /// The codec's words.
        what: String,
    },
    /// The node has stopped.
    Stopped,
}

impl fmt::Display for StreamEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trimmed { first } => write!(f, "the log begins with {first}"),
            Self::Undecodable { slot, what } => {
                write!(f, "a command in {slot} does not decode: {what}")
            }
            Self::Stopped => f.write_str("the node is stopped"),
        }
    }
}

impl std::error::Error for StreamEnd {}

/// What the node's task says of a page.
type Page = Result<Vec<Value>, StreamEnd>;

/// A stream wants a page.
#[derive(Debug)]
pub(crate) struct PageOrder {
    from: Slot,
    answer: oneshot::Sender<Page>,
}

/// Pages that are being read from the storage.
#[derive(Debug, Default)]
pub(crate) struct Pages(BTreeMap<LoadTicket, PageOrder>);

/// Every slot that a node applies, from one on, in order.
///
/// Slow readers hold nobody up and miss nothing, until what they have not read is trimmed.
pub struct AppliedStream<C> {
    shared: Arc<Shared>,
    codec: Arc<dyn CommandCodec<C>>,
    events: watch::Receiver<NodeEventState>,
    next: Slot,
    page: VecDeque<Value>,
    ordered: Option<oneshot::Receiver<Page>>,
}

impl<C> fmt::Debug for AppliedStream<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppliedStream").field("next", &self.next).finish_non_exhaustive()
    }
}

impl<C: 'static> AppliedStream<C> {
    pub(crate) fn new(shared: Arc<Shared>, codec: Arc<dyn CommandCodec<C>>, from: Slot) -> Self {
        let (events, next) = (shared.events.subscribe(), from.max(Slot::FIRST));
        Self { shared, codec, events, next, page: VecDeque::new(), ordered: None }
    }

    /// The next slot, once this node has applied it.
    ///
    /// # Errors
    ///
    /// [`StreamEnd::Trimmed`] where the log no longer has it; then, and after any other error, nothing
    /// follows.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: what was not returned is returned by the next call.
    pub async fn next(&mut self) -> Result<AppliedSlot<C>, StreamEnd> {
        while self.page.is_empty() {
            self.turn_page().await?;
        }
        let value = self.page.pop_front().expect("the page is not empty");
        let slot = self.next;
        self.next = slot.next();
        self.decode(slot, &value)
    }

    /// The same as a [`Stream`], which ends after the first error.
    pub fn into_stream(self) -> impl Stream<Item = Result<AppliedSlot<C>, StreamEnd>> {
        stream::unfold(Some(self), |state| async {
            let mut this = state?;
            let item = this.next().await;
            let rest = item.is_ok().then_some(this);
            Some((item, rest))
        })
    }

    async fn turn_page(&mut self) -> Result<(), StreamEnd> {
        if self.ordered.is_none() {
            let (next, mut stopped) = (self.next, self.shared.stopped.subscribe());
            tokio::select! {
                biased;
                _ = self.events.wait_for(|state| state.applied >= next) => {}
                _ = stopped.wait_for(Option::is_some) => return Err(StreamEnd::Stopped),
            }
            let (answer, page) = oneshot::channel();
            self.shared.order_page(PageOrder { from: next, answer });
            self.ordered = Some(page);
        }
        let Some(page) = &mut self.ordered else { unreachable!("it was ordered") };
        let mut stopped = self.shared.stopped.subscribe();
        let page = tokio::select! {
            biased;
            page = page => page.unwrap_or(Err(StreamEnd::Stopped)),
            _ = stopped.wait_for(Option::is_some) => Err(StreamEnd::Stopped),
        };
        self.ordered = None;
        self.page = page?.into();
        Ok(())
    }

    fn decode(&self, slot: Slot, value: &Value) -> Result<AppliedSlot<C>, StreamEnd> {
        let Value::Batch(batch) = value else {
            return Ok(AppliedSlot::Skipped(slot));
        };
        let told = |kind| matches!(kind, CommandKind::Apply | CommandKind::InSession { .. });
        let applied = batch.commands().iter().filter(|command| told(command.kind));
        let decoded = applied.map(|command| self.codec.decode(command.payload.clone()));
        let commands: Vec<C> = decoded
            .collect::<Result<_, _>>()
            .map_err(|error| StreamEnd::Undecodable { slot, what: error.to_string() })?;
        if commands.is_empty() {
            return Ok(AppliedSlot::Skipped(slot));
        }
        Ok(AppliedSlot::Batch(Batch { slot, clock: batch.clock(), commands }))
    }
}

impl<W: Waiter> Driver<W> {
    /// Gives streams what they wait for, or has it read.
    pub(crate) fn serve_pages(&mut self, now: Time) {
        for order in self.shared.take_pages() {
            let page = match self.replica.read_log(order.from, self.shared.applied()) {
                LogPage::Values(values) => Ok(values),
                // It waits for the slot to be applied, and asks again.
                LogPage::NotYet => Ok(Vec::new()),
                LogPage::Trimmed { first } => Err(StreamEnd::Trimmed { first }),
                LogPage::Load(ticket, range) => {
                    self.shared.meters.loads.add(1);
                    let (from, through) = (range.from, range.through);
                    self.trace(now, || Event::Load { from, through });
                    self.intake.jobs.push(Job::Load(ticket, range));
                    self.pages.0.insert(ticket, order);
                    continue;
                }
            };
            // A stream that is gone does not mind.
            let _ = order.answer.send(page);
        }
    }

    /// A range of the log was read: what is left of it if no stream asked for it.
    pub(crate) fn serve_loaded(&mut self, ticket: LoadTicket, loaded: Loaded) -> Option<Loaded> {
        let Some(order) = self.pages.0.remove(&ticket) else {
            return Some(loaded);
        };
        let page = if loaded.values.is_empty() {
            Err(StreamEnd::Trimmed { first: loaded.trimmed.max(order.from).next() })
        } else {
            Ok(loaded.values)
        };
        // A stream that is gone does not mind.
        let _ = order.answer.send(page);
        None
    }
}
