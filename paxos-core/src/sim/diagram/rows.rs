//! Which events are drawn, how far down each stands, and which message each arrival ends.
//!
//! Owns: [`Rows`].

use core::time::Duration;
use std::collections::BTreeMap;

use crate::ids::{ReplicaId, Time};
use crate::message::{Body, Message};
use crate::sim::trace::{Record, Trace};
use crate::trace::{Event, Packet};

/// Where the first event stands.
pub(super) const TOP: i64 = 190;
/// From one event to the next.
const STEP: i64 = 17;
/// From one heartbeat or timer to the next.
const QUIET_STEP: i64 = 3;
/// A pause longer than this is shown as one.
const GAP: Duration = Duration::from_millis(20);
/// How much room it takes.
const GAP_STEP: i64 = 26;

/// One event in its place.
#[derive(Debug)]
pub(super) struct Placed<'a> {
    pub(super) record: &'a Record,
    pub(super) message: Option<Message>,
    pub(super) number: u64,
    pub(super) y: i64,
    /// A heartbeat or a timer.
    pub(super) is_quiet: bool,
    /// For one that left: where it arrived. For one that arrived: where it left.
    pub(super) others: Vec<usize>,
    /// Part of the same message to several, and not its first.
    pub(super) is_copy: bool,
}

/// Every event of the window, in order.
#[derive(Debug)]
pub(super) struct Rows<'a> {
    pub(super) events: Vec<Placed<'a>>,
    /// Where nothing happened for long: how far down, and how long.
    pub(super) gaps: Vec<(i64, Duration)>,
    /// How many remembered events stand before the window.
    pub(super) before: usize,
    pub(super) bottom: i64,
    /// How many events the whole run had.
    pub(super) total: u64,
}

fn is_quiet(record: &Record, message: Option<&Message>) -> bool {
    matches!(record.event, Event::Timeout)
        || message.is_some_and(|message| matches!(message.body, Body::Heartbeat(_)))
}

fn open(record: &Record) -> Option<Message> {
    record.event.packet().and_then(Packet::open)
}

impl<'a> Rows<'a> {
    pub(super) fn new(trace: &'a Trace, last: usize) -> Self {
        let count = trace.records().len();
        let mut before = count;
        let mut told = 0;
        for record in trace.records().rev() {
            told += usize::from(!is_quiet(record, open(record).as_ref()));
            if told > last {
                break;
            }
            before -= 1;
        }
        let first = trace.events() - count as u64 + before as u64;
        let mut rows = Self {
            events: Vec::with_capacity(count - before),
            gaps: Vec::new(),
            before,
            bottom: TOP,
            total: trace.events(),
        };
        for (place, record) in trace.records().skip(before).enumerate() {
            rows.push(first + place as u64, record);
        }
        rows.join();
        rows
    }

    fn push(&mut self, number: u64, record: &'a Record) {
        let message = open(record);
        let is_quiet = is_quiet(record, message.as_ref());
        let last = self.events.last();
        let is_copy = last.is_some_and(|last| {
            let sent = |event: &Event| matches!(event, Event::Sent { .. });
            sent(&record.event)
                && sent(&last.record.event)
                && (last.record.at, last.record.replica) == (record.at, record.replica)
                && last.message == message
        });
        if !is_copy {
            let passed = last.map_or(Duration::ZERO, |last| record.at.since(last.record.at));
            if passed > GAP && !is_quiet {
                self.gaps.push((self.bottom + GAP_STEP / 2 + 4, passed));
                self.bottom += GAP_STEP;
            }
            self.bottom += if is_quiet { QUIET_STEP } else { STEP };
        }
        let (y, others) = (self.bottom, Vec::new());
        self.events.push(Placed { record, message, number, y, is_quiet, others, is_copy });
    }

    /// Finds for each arrival the message that left: the same contents on the same way, the
    /// earliest that has not arrived as often as it was to.
    fn join(&mut self) {
        let mut leaving: BTreeMap<(ReplicaId, ReplicaId), Vec<usize>> = BTreeMap::new();
        for place in 0..self.events.len() {
            let Placed { record, message, .. } = &self.events[place];
            let Some(at) = record.replica else { continue };
            match &record.event {
                Event::Sent { to, .. } => leaving.entry((at, *to)).or_default().push(place),
                Event::Received { from, .. } => {
                    let ways = leaving.get(&(*from, at)).map(Vec::as_slice).unwrap_or_default();
                    let same = |sent: &&usize| self.events[**sent].message == *message;
                    let unmet = |sent: &&usize| self.events[**sent].others.is_empty();
                    let sent = ways.iter().filter(same).find(unmet);
                    let sent = sent.or_else(|| ways.iter().rfind(same)).copied();
                    if let Some(sent) = sent {
                        self.events[sent].others.push(place);
                        self.events[place].others.push(sent);
                    }
                }
                _ => {}
            }
        }
    }

    /// How far down this moment stands.
    pub(super) fn y_of(&self, at: Time) -> i64 {
        let after = self.events.iter().find(|placed| placed.record.at >= at);
        after.map_or(self.bottom + STEP, |placed| placed.y)
    }
}
