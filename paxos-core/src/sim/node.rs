//! One place of a cluster: a process, its disk, its clock and its state machine.
//!
//! Owns: [`Node`], plain state. The cluster drives it.
//! Invariant: the disk's jobs are done in the order in which the replica handed them out, and a
//! proof is given to the life that asked for it or to none.

use core::time::Duration;
use std::collections::VecDeque;

use super::disk::CrashStorage;
use super::failure::Failure;
use super::held::Survivors;
use super::host::Process;
use crate::ballot::Ballot;
use crate::config::Config;
use crate::durable::WriteBatch;
use crate::ids::{LogClock, Slot, Time};
use crate::output::{Halt, LoadTicket, Role};
use crate::port::LoadRange;

/// Work for a disk.
#[derive(Debug)]
pub(super) enum Job {
    Persist(WriteBatch),
    Load(LoadTicket, LoadRange),
    /// Whether there is room again.
    Look,
}

/// How a node's clock relates to the true time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    /// What it showed at true time zero, in nanoseconds.
    pub(super) origin: u64,
    /// How fast it runs, in millionths of the true speed.
    pub(super) rate: u64,
}

impl Clock {
    pub(super) fn local(self, now: Time) -> Time {
        let passed = u128::from(now.nanos()) * u128::from(self.rate) / 1_000_000;
        Time::from_nanos(self.origin + passed as u64)
    }

    /// The first true time at which the clock shows `local` or more.
    pub(super) fn global(self, local: Time) -> Time {
        let passed = u128::from(local.nanos().saturating_sub(self.origin)) * 1_000_000;
        Time::from_nanos(passed.div_ceil(u128::from(self.rate)) as u64)
    }

    pub(super) fn wall(self, now: Time) -> LogClock {
        LogClock::from_millis(1_700_000_000_000 + self.local(now).nanos() / 1_000_000)
    }
}

/// What was last seen of a replica, to tell when it changes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Seen {
    pub(super) role: Option<Role>,
    pub(super) leader: Option<Ballot>,
    pub(super) committed: Slot,
}

/// What a process finds at its start.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Directory {
    /// What its last life left.
    Its,
    /// A copy of an earlier life, with a state machine as old.
    OldCopy,
}

/// One place.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "what befalls a place comes in any combination")]
pub(super) struct Node {
    /// None while it is down.
    pub(super) process: Option<Process>,
    pub(super) halted: Option<Halt>,
    /// Why its storage stopped it.
    pub(super) failed: Option<Failure>,
    pub(super) storage: Box<dyn CrashStorage>,
    pub(super) config: Config,
    pub(super) clock: Clock,
    /// Counts the starts, so that events of an earlier life find nobody.
    pub(super) life: u32,
    pub(super) jobs: VecDeque<Job>,
    /// How many of the jobs the disk is doing.
    pub(super) busy: usize,
    /// The true time for which the next timer event is queued.
    pub(super) armed: Option<Time>,
    pub(super) paused_until: Time,
    /// The power fails as soon as a write is on its way.
    pub(super) crash_when_writing: bool,
    pub(super) restart_after: Duration,
    /// Handed to the state machine.
    pub(super) applied: Slot,
    /// What the state machine said it holds.
    pub(super) applied_said: Slot,
    pub(super) applying: bool,
    /// What a durable state machine gives back after a crash at least.
    pub(super) applied_durable: Slot,
    pub(super) trimmed: Slot,
    pub(super) directory: Directory,
    pub(super) seen: Seen,
    /// A script keeps the disk from doing anything.
    pub(super) disk_held: bool,
    /// What the next crash leaves of the facts that are being written.
    pub(super) survivors: Survivors,
}

impl Node {
    pub(super) fn new(storage: Box<dyn CrashStorage>, config: Config, clock: Clock) -> Self {
        Self {
            process: None,
            halted: None,
            failed: None,
            storage,
            config,
            clock,
            life: 0,
            jobs: VecDeque::new(),
            busy: 0,
            armed: None,
            paused_until: Time::ZERO,
            crash_when_writing: false,
            restart_after: Duration::ZERO,
            applied: Slot::ZERO,
            applied_said: Slot::ZERO,
            applying: false,
            applied_durable: Slot::ZERO,
            trimmed: Slot::ZERO,
            directory: Directory::Its,
            seen: Seen::default(),
            disk_held: false,
            survivors: Survivors::Drawn,
        }
    }

    /// Takes the writes that were not proved out of the queue; reads are forgotten.
    pub(super) fn unproved(&mut self) -> Vec<WriteBatch> {
        self.busy = 0;
        let batch = |job| match job {
            Job::Persist(batch) => Some(batch),
            Job::Load(..) | Job::Look => None,
        };
        self.jobs.drain(..).filter_map(batch).collect()
    }

    pub(super) fn is_up(&self) -> bool {
        self.process.is_some()
    }

    pub(super) fn is_writing(&self) -> bool {
        self.jobs.iter().any(|job| matches!(job, Job::Persist(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_has_reached_what_its_alarm_was_set_to() {
        for rate in [900_000, 999_999, 1_000_000, 1_000_001, 1_100_000] {
            let clock = Clock { origin: 12_345, rate };
            for nanos in [12_345, 12_346, 1_000_003, 999_999_999_999] {
                let local = Time::from_nanos(nanos);
                assert!(clock.local(clock.global(local)) >= local, "{rate} {nanos}");
            }
        }
    }
}
