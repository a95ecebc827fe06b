//! One place of a cluster: a process, its disk, its clock and its state machine.
//!
//! Owns: [`Node`], plain state. The cluster drives it.
//! Invariant: the disk's jobs are done in the order in which the replica handed them out, and a
//! proof is given to the life that asked for it or to none.

use core::time::Duration;
use std::collections::VecDeque;

use super::disk::CrashStorage;
use super::failure::Failure;
use super::fault::Fact;
use super::held::Survivors;
use super::host::Process;
use super::keeper::Keeper;
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
    /// What it showed at `since`, in nanoseconds.
    pub(super) origin: u64,
    /// The true time from which on it runs at this rate.
    pub(super) since: Time,
    /// How fast it runs, in millionths of the true speed; at 0 it stands still.
    pub(super) rate: u64,
    /// How far the wall clock is off, in milliseconds.
    pub(super) wall_offset: i64,
}

impl Clock {
    pub(super) const fn new(origin: u64, rate: u64) -> Self {
        Self { origin, since: Time::ZERO, rate, wall_offset: 0 }
    }

    pub(super) fn local(self, now: Time) -> Time {
        let passed = now.since(self.since).as_nanos() * u128::from(self.rate) / 1_000_000;
        Time::from_nanos(self.origin + passed as u64)
    }

    /// The first true time at which the clock shows `local` or more; the end of time if it stands
    /// still before that.
    pub(super) fn global(self, local: Time) -> Time {
        let passed = u128::from(local.nanos().saturating_sub(self.origin)) * 1_000_000;
        if passed == 0 {
            return self.since;
        }
        if self.rate == 0 {
            return Time::from_nanos(u64::MAX);
        }
        self.since.after(Duration::from_nanos(passed.div_ceil(u128::from(self.rate)) as u64))
    }

    pub(super) fn wall(self, now: Time) -> LogClock {
        let shown = 1_700_000_000_000 + self.local(now).nanos() / 1_000_000;
        LogClock::from_millis(shown.saturating_add_signed(self.wall_offset))
    }

    /// Runs at another rate from now on, and shows what it showed.
    pub(super) fn set_rate(&mut self, now: Time, rate: u64) {
        *self = Self { origin: self.local(now).nanos(), since: now, rate, ..*self };
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
    /// A membership that is chosen has named it, and an operator has formatted its directory.
    pub(super) placed: bool,
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
    /// What the process asked for: the local time at which it wants to wake up.
    pub(super) wake_at: Option<Time>,
    pub(super) paused_until: Time,
    /// It led when it was last looked at.
    pub(super) led: bool,
    /// Handed to the state machine.
    pub(super) applied: Slot,
    /// What the state machine said it holds.
    pub(super) applied_said: Slot,
    pub(super) applying: bool,
    /// What a durable state machine gives back after a crash at least.
    pub(super) applied_durable: Slot,
    pub(super) trimmed: Slot,
    pub(super) keeper: Keeper,
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
            placed: true,
            failed: None,
            storage,
            config,
            clock,
            life: 0,
            jobs: VecDeque::new(),
            busy: 0,
            armed: None,
            wake_at: None,
            paused_until: Time::ZERO,
            led: false,
            applied: Slot::ZERO,
            applied_said: Slot::ZERO,
            applying: false,
            applied_durable: Slot::ZERO,
            trimmed: Slot::ZERO,
            keeper: Keeper::default(),
            directory: Directory::Its,
            seen: Seen::default(),
            disk_held: false,
            survivors: Survivors::Drawn,
        }
    }

    /// A process has just started, with a state machine that holds so much.
    pub(super) fn begin(&mut self, applied: Slot, now: Time) {
        self.halted = None;
        self.failed = None;
        self.life += 1;
        self.seen = Seen::default();
        self.armed = None;
        self.wake_at = None;
        self.applying = false;
        self.paused_until = now;
        self.applied = applied;
        self.applied_said = applied;
        self.applied_durable = applied;
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

    /// Whether a write that states such a fact is on its way to the disk.
    pub(super) fn is_writing(&self, fact: Fact) -> bool {
        self.jobs.iter().any(|job| match job {
            Job::Persist(batch) => batch.writes().iter().any(|write| fact.is_in(write)),
            Job::Load(..) | Job::Look => false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_has_reached_what_its_alarm_was_set_to() {
        for rate in [900_000, 999_999, 1_000_000, 1_000_001, 1_100_000] {
            let clock = Clock::new(12_345, rate);
            for nanos in [12_345, 12_346, 1_000_003, 999_999_999_999] {
                let local = Time::from_nanos(nanos);
                assert!(clock.local(clock.global(local)) >= local, "{rate} {nanos}");
            }
        }
    }

    #[test]
    fn a_clock_that_stands_still_rings_never_and_goes_on_where_it_stood() {
        let at = |seconds: u64| Time::from_nanos(seconds * 1_000_000_000);
        let mut clock = Clock::new(0, 1_000_000);
        clock.set_rate(at(2), 0);
        assert_eq!(clock.local(at(9)), at(2));
        assert_eq!(clock.global(at(2)), at(2));
        assert_eq!(clock.global(at(3)), Time::from_nanos(u64::MAX));
        clock.set_rate(at(10), 500_000);
        assert_eq!(clock.local(at(12)), at(3));
        assert_eq!(clock.global(at(3)), at(12));
        let wall = clock.wall(at(12));
        clock.wall_offset = -3_600_000;
        assert!(clock.wall(at(12)) < wall);
    }
}
