//! The replica's log as its own host reads it: pages of what was handed out to be applied.
//!
//! Owns no state of its own. Changes nothing but the count of tickets.
//! Invariant: what is read was handed out, so it is chosen, and durable in this replica's log (D6).
//! Source: protocol.md §9.

use super::Replica;
use crate::ids::Slot;
use crate::output::LoadTicket;
use crate::stored::LoadRange;
use crate::value::Value;

/// What a replica has of its log from a slot on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LogPage {
    /// These values, of consecutive slots from the one asked for: at least one.
    Values(Vec<Value>),
    /// They have left memory: the storage has them, in this range. The ticket is of this reading
    /// alone; giving it back to [`Replica::handle_loaded`] changes nothing.
    Load(LoadTicket, LoadRange),
    /// The slot was not handed out to be applied yet.
    NotYet,
    /// It was trimmed, with every slot before this one.
    Trimmed {
        /// The first slot that may still be read.
        first: Slot,
    },
}

impl Replica {
    /// A page of the log from this slot on, up to another at most and to what was handed out to be
    /// applied: as many values as [`crate::config::Config::page_bytes_max`] allows.
    pub fn read_log(&mut self, from: Slot, through: Slot) -> LogPage {
        let through = through.min(self.log.handed());
        if from <= self.log.trimmed() {
            return LogPage::Trimmed { first: self.log.trimmed().next() };
        }
        if from > through {
            return LogPage::NotYet;
        }
        if from >= self.log.first() {
            return LogPage::Values(self.log.run(from, through, self.config.page_bytes_max));
        }
        let through = through.min(self.log.first().previous());
        LogPage::Load(self.loads.for_host(), self.load_range(from, through))
    }
}
