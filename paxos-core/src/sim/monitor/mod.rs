//! A refinement monitor: Multi-Paxos in the abstract, which judges every step of a run.
//!
//! Owns: the facts that are durable on each disk, what each replica was told in its present life,
//! the promises behind each ballot, and what is chosen, all of them rebuilt from [`Event`]s. Each
//! event is a step of the abstract protocol or a [`Verdict`]; there is nothing in between, and no
//! step is inferred from what a replica says of itself. What left a replica is held against what its
//! disk had attested at that moment, so a sync that was skipped is found though nothing was lost yet.
//!
//! May not touch: replicas, their types, the simulator. It is written from docs/protocol.md alone,
//! so that it agrees with the code because both are right.
//!
//! Invariants: facts on a disk only grow; a slot that is chosen stays so; a campaign's promises are
//! fixed once it reigns. The cost of an event is logarithmic in what is remembered, times the number
//! of slots that it names.
//!
//! Source: docs/protocol.md §§4–9 and 11. The notion is that of a refinement mapping, Abadi and
//! Lamport 1991; the safety argument is "value v is safe at ballot b" of Lamport, "Fast Paxos" §2.2.

mod acceptor;
mod event;
mod learner;
mod proposer;
mod quorums;
mod verdict;

use std::collections::{BTreeMap, BTreeSet};

pub use event::{Acceptor, Ballot, Entry, Event, Kind, Life, Message, Recovered, Report, Value};
pub use proposer::{Justification, Witness};
pub use quorums::Quorums;
pub use verdict::{Invariant, Rule, Verdict};

use proposer::Campaign;
use verdict::{Broken, Judged, require};

/// The abstract state of a group of replicas, and the judge of its steps.
#[derive(Clone, Debug)]
pub struct Monitor {
    quorums: Quorums,
    /// The window α.
    window: u64,
    events: u64,
    replicas: BTreeMap<Acceptor, Replica>,
    campaigns: BTreeMap<Ballot, Campaign>,
    chosen: BTreeMap<u64, Value>,
    /// For each slot of the chosen prefix, the highest clock up to it.
    clocks: Vec<u64>,
    batches: BTreeMap<u128, Batch>,
    /// The hash of the state after each slot.
    states: BTreeMap<u64, u128>,
}

/// What is known of one batch's commands.
#[derive(Clone, Debug, Default)]
struct Batch {
    submitted: usize,
    slots: BTreeSet<u64>,
}

/// What is known of one replica.
#[derive(Clone, Debug, Default)]
struct Replica {
    /// The present life, if it runs.
    life: Option<Life>,
    /// The newest life of the directory that votes.
    newest: Option<Life>,
    /// Another directory is in the place of the one that votes.
    replaced: bool,
    disk: Disk,
    memory: Memory,
}

/// What the disk attested.
#[derive(Clone, Debug, Default)]
struct Disk {
    promised: Option<Ballot>,
    /// All votes ever, by slot and ballot: a message may name one that was replaced since.
    votes: BTreeMap<(u64, Ballot), Value>,
    /// Values recorded as chosen.
    chosen: BTreeMap<u64, Value>,
    committed: u64,
    /// The slot of the newest snapshot.
    snapshot: u64,
    lives: BTreeMap<Acceptor, Life>,
}

/// What a life was told and did, which ends with it.
#[derive(Clone, Debug, Default)]
struct Memory {
    committed: u64,
    applied: u64,
    trimmed: u64,
    /// Prepares that were delivered.
    asked: BTreeSet<Ballot>,
    /// Proposals that were delivered, by slot and ballot.
    heard: BTreeSet<(u64, Ballot)>,
    /// Watermarks that were delivered.
    watermarks: BTreeMap<Ballot, u64>,
    /// Slots above the prefix whose chosen value was delivered as such.
    known: BTreeSet<u64>,
    reigns: Vec<Ballot>,
}

impl Replica {
    /// Whether it runs from the directory that votes. Another one's disk is nobody's memory.
    fn is_voter(&self) -> bool {
        !self.replaced
            && match (self.life, self.newest) {
                (Some(life), Some(newest)) => life.directory == newest.directory,
                (None, _) | (_, None) => true,
            }
    }
}

impl Replica {
    /// Whether this is a life of the directory that votes, and not a later one of an old copy.
    fn is_life_of_voter(&self, life: Life) -> bool {
        self.newest.is_some_and(|n| n.directory == life.directory && n.boot >= life.boot)
    }
}

impl Monitor {
    /// A monitor of a group that decides by `quorums`, with `window` slots in flight at most.
    pub fn new(quorums: Quorums, window: u64) -> Self {
        Self {
            quorums,
            window,
            events: 0,
            replicas: BTreeMap::new(),
            campaigns: BTreeMap::new(),
            chosen: BTreeMap::new(),
            clocks: Vec::new(),
            batches: BTreeMap::new(),
            states: BTreeMap::new(),
        }
    }

    /// The number of events judged.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The value that is chosen in `slot`.
    pub fn chosen(&self, slot: u64) -> Option<Value> {
        self.chosen.get(&slot).copied()
    }

    /// The last slot up to which every slot is chosen.
    pub fn chosen_prefix(&self) -> u64 {
        self.clocks.len() as u64
    }

    /// Takes one event in. After a verdict the monitor knows no more than before the event, or less
    /// than all of it: the run is over.
    pub fn observe(&mut self, event: &Event<'_>) -> Result<(), Verdict> {
        self.events += 1;
        self.judge(event).map_err(|Broken { rule, invariant, story }| Verdict {
            event: self.events,
            rule,
            invariant,
            story,
        })
    }

    fn judge(&mut self, event: &Event<'_>) -> Judged {
        match *event {
            Event::Started { at, life, recovered } => self.started(at, life, &recovered),
            Event::Stopped { at } => {
                self.replica(at).life = None;
                Ok(())
            }
            Event::Replaced { at } => {
                self.replica(at).replaced = true;
                Ok(())
            }
            Event::Submitted { batch } => {
                self.batches.entry(batch).or_default().submitted += 1;
                Ok(())
            }
            Event::PromiseDurable { at, ballot } => self.promise_durable(at, ballot),
            Event::VoteDurable { at, slot, ballot, value } => {
                self.vote_durable(at, slot, ballot, value)
            }
            Event::ChosenDurable { at, slot, value } => self.chosen_durable(at, slot, value),
            Event::PrefixDurable { at, committed } => self.prefix_durable(at, committed),
            Event::LifeDurable { at, peer, life } => self.life_durable(at, peer, life),
            Event::Left { from, life, to, message } => self.left(from, life, to, &message),
            Event::Delivered { from, life, to, message } => {
                self.delivered(from, life, to, &message);
                Ok(())
            }
            Event::Proposed { ballot, slot, value } => self.propose(ballot, slot, value),
            Event::BecameLeader { at, ballot } => self.became_leader(at, ballot),
            Event::Committed { at, through } => self.committed(at, through),
            Event::Applied { at, slot, value, state } => self.applied(at, slot, value, state),
            Event::SnapshotDurable { at, slot } => self.snapshot_durable(at, slot),
            Event::Installed { at, slot } => self.installed(at, slot),
            Event::Trimmed { at, through } => self.trimmed(at, through),
        }
    }

    fn left(
        &mut self,
        from: Acceptor,
        life: Life,
        to: Option<Acceptor>,
        message: &Message<'_>,
    ) -> Judged {
        let sender = self.replica(from);
        let own = sender.life == Some(life);
        require(own, Rule::Lives, Invariant::S19, || format!("{from} speaks as {life:?}"))?;
        if !sender.is_voter() {
            return Ok(());
        }
        match *message {
            Message::Prepare { ballot, from: first } => self.left_prepare(from, ballot, first),
            Message::Promise { ballot, committed, from: first, through, entries } => {
                self.left_promise(from, to, ballot, committed)?;
                self.page_is_complete(
                    from,
                    ballot,
                    committed.max(first.saturating_sub(1)),
                    through,
                    entries,
                )
            }
            Message::Accept { ballot, committed, first, values } => {
                self.left_accept(from, ballot, committed, first, values)
            }
            Message::Accepted { ballot, first, last } => {
                self.left_accepted(from, to, ballot, first, last)
            }
            Message::Reject { refused, promised } => {
                require(promised > refused, Rule::A1, Invariant::S5, || {
                    format!("{from} refuses {refused} for {promised}")
                })
            }
            Message::Commit { ballot, committed } => self.left_commit(from, ballot, committed),
            Message::Transfer { ballot, committed } => {
                self.left_transfer(from, to, ballot, committed)
            }
            Message::Heartbeat { committed, leader } => match leader {
                Some(ballot) if ballot.leader == from => self.left_commit(from, ballot, committed),
                Some(_) | None => self.claims_prefix(from, committed),
            },
            Message::Fetch | Message::Survey | Message::Removed => Ok(()),
            Message::Confirm { ballot } => {
                require(ballot.leader == from, Rule::Messages, Invariant::S19, || {
                    format!("{from} asks for {ballot}")
                })
            }
            Message::Confirmed { ballot } => {
                let promised = self.replica(from).disk.promised;
                require(promised <= Some(ballot), Rule::R3, Invariant::S15, || {
                    format!("{from} confirms {ballot} and promised {promised:?}")
                })
            }
            Message::Surveyed { committed, highest } => {
                self.left_surveyed(from, committed, highest)
            }
            Message::Fetched { first, values, committed } => {
                self.left_fetched(from, first, values, committed)
            }
            Message::Refused { refused, remembered } => {
                let older = refused != remembered && !refused.succeeds(remembered);
                require(older, Rule::Lives, Invariant::S19, || {
                    format!("{from} refuses {refused:?} for {remembered:?}")
                })
            }
        }
    }

    fn delivered(&mut self, from: Acceptor, life: Life, to: Acceptor, message: &Message<'_>) {
        let event = self.events;
        let votes = self.replica(from).is_life_of_voter(life);
        let receiver = self.replica(to);
        let remembered = receiver.disk.lives.get(&from).copied();
        let heard = remembered == Some(life);
        let processed = heard || remembered.is_none_or(|held| life.succeeds(held));
        if receiver.life.is_none() || !processed {
            return;
        }
        match *message {
            Message::Prepare { ballot, .. } => {
                receiver.memory.asked.insert(ballot);
            }
            Message::Promise { ballot, committed, from: first, through, entries } => {
                // The vote of a directory that was wiped counts for nobody.
                if votes {
                    let page = proposer::Page { event, committed, first, through, heard };
                    self.delivered_promise(from, to, ballot, page, entries);
                }
            }
            Message::Accept { ballot, committed, first, values } => {
                receiver.heard(ballot, first, values.len() as u64);
                receiver.watermark(ballot, committed);
            }
            Message::Accepted { ballot, first, last } => {
                if votes {
                    self.delivered_accepted(from, to, ballot, first, last);
                }
            }
            Message::Commit { ballot, committed } | Message::Transfer { ballot, committed } => {
                receiver.watermark(ballot, committed);
            }
            Message::Fetched { first, values, .. } => {
                for (slot, value) in (first..).zip(values) {
                    self.learned(to, slot, *value);
                }
            }
            Message::Heartbeat { committed, leader } => {
                if let Some(ballot) = leader.filter(|ballot| ballot.leader == from) {
                    receiver.watermark(ballot, committed);
                }
            }
            Message::Reject { .. }
            | Message::Fetch
            | Message::Refused { .. }
            | Message::Removed
            | Message::Confirm { .. }
            | Message::Confirmed { .. }
            | Message::Survey
            | Message::Surveyed { .. } => {}
        }
    }

    fn replica(&mut self, at: Acceptor) -> &mut Replica {
        self.replicas.entry(at).or_default()
    }

    /// Extends the chosen prefix over every slot that is chosen.
    fn extend_prefix(&mut self) {
        while let Some(value) = self.chosen.get(&(self.clocks.len() as u64 + 1)) {
            let before = self.clocks.last().copied().unwrap_or(0);
            self.clocks.push(match value.kind {
                Kind::Batch { clock } => clock.max(before),
                Kind::Noop | Kind::Membership => before,
            });
        }
    }
}
