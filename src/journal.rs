//! The storage's place: a thread of its own, or inline (Write-Ahead Log and Singular Update Queue,
//! the host's side).
//!
//! Owns: the [`Storage`] and the order of calls on it. Knows no replica.
//! Invariants: (1) writes and reads happen in the order in which they were given; (2) everything
//! queued is written with one call; (3) after an error nothing is proved, ever again; (4) the node's
//! task never waits for a device.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc as std_mpsc;
use std::time::{Duration, Instant};

use paxos_core::durable::{Durable, WriteBatch};
use paxos_core::ids::{Slot, Time};
use paxos_core::output::LoadTicket;
use paxos_core::port::{Blocking, LoadRange, Loaded, Recovered, Room, SnapshotStore, Storage};
use paxos_core::snapshot::SnapshotMeta;
use tokio::sync::{mpsc, oneshot};

use crate::divergence::Mark;
use crate::error::{StartError, StopReason, panic_words};
use crate::metrics::Meters;
use crate::snapshot::duty::Given;
use crate::snapshot::mark::STEP_BYTES;
use crate::snapshot::shelf::Brought;

/// What the storage is to do.
#[derive(Debug)]
pub(crate) enum Job {
    Persist(Vec<WriteBatch>),
    Load(LoadTicket, LoadRange),
}

/// What it did.
#[derive(Debug)]
pub(crate) enum Done {
    Durable(Vec<Durable>, Room),
    Loaded(LoadTicket, Loaded),
    /// The state machine's task gave an image, or said why not.
    Given(Given),
    /// The thread of the snapshots did something.
    Brought(Brought),
    /// The state machine jumped to this snapshot, or was beyond it.
    Restored(SnapshotMeta),
    /// The state machine's state after a slot.
    Marked(Mark),
    Failed(StopReason),
}

/// What the storage holds at the start.
pub(crate) struct Found {
    pub(crate) journal: Journal,
    pub(crate) groups: Vec<Recovered>,
    pub(crate) snapshots: Option<Box<dyn SnapshotStore>>,
    /// Slots of the log, and its bytes up to each.
    pub(crate) weights: Vec<(Slot, u64)>,
    /// Resolves when the journal's thread ends, if there is one.
    pub(crate) end: Option<oneshot::Receiver<()>>,
}

/// What the node's task knows of writes under way: how long the storage has been silent.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    /// Write batches given and not proved.
    writes: usize,
    /// When the storage last proved one, or was given the first of these.
    since: Time,
    told: bool,
}

impl Disk {
    /// One more write batch is given to the storage.
    pub(crate) fn asked(&mut self, now: Time) {
        if self.writes == 0 {
            self.since = now;
        }
        self.writes += 1;
    }

    /// So many write batches are proved; how long that took, if it was complained about.
    pub(crate) fn proved(&mut self, writes: usize, now: Time) -> Option<Duration> {
        if writes == 0 {
            return None;
        }
        self.writes -= writes;
        let waited = now.since(core::mem::replace(&mut self.since, now));
        core::mem::take(&mut self.told).then_some(waited)
    }

    /// How long the storage has been silent, once each time that this exceeds the limit.
    pub(crate) fn overdue(&mut self, now: Time, limit: Duration) -> Option<Duration> {
        let waited = now.since(self.since);
        if self.writes == 0 || self.told || waited <= limit {
            return None;
        }
        self.told = true;
        Some(waited)
    }
}

/// Where the storage lives.
pub(crate) enum Journal {
    /// Called at once, by the node's task.
    Inline(Desk),
    /// Behind a queue, which a thread works off, or a simulator in its place.
    Queue(std_mpsc::Sender<Job>),
}

/// The storage, and what is counted of it.
pub(crate) struct Desk {
    storage: Box<dyn Storage>,
    meters: Arc<Meters>,
    failed: bool,
}

/// How much the log holds, where it is of one group.
fn weigh(storage: &dyn Storage, groups: &[Recovered]) -> Vec<(Slot, u64)> {
    let group = groups.first().map(|recovered| recovered.format.group);
    group.map(|group| storage.log_bytes(group, STEP_BYTES)).unwrap_or_default()
}

impl Journal {
    /// Recovers the storage and gives it its place. What the thread does is sent to `done`.
    pub(crate) async fn start(
        mut storage: Box<dyn Storage>,
        nonce: u32,
        meters: Arc<Meters>,
        done: mpsc::UnboundedSender<Done>,
    ) -> Result<Found, StartError> {
        match storage.blocking() {
            Blocking::Never => {
                let groups = storage.recover(nonce).map_err(StartError::Storage)?;
                let snapshots = storage.snapshots();
                let weights = weigh(storage.as_ref(), &groups);
                let journal = Self::Inline(Desk { storage, meters, failed: false });
                Ok(Found { journal, groups, snapshots, weights, end: None })
            }
            Blocking::Device => {
                let (jobs, queue) = std_mpsc::channel();
                let (first, recovered) = oneshot::channel();
                let (ended, end) = oneshot::channel();
                let body = move || {
                    let result = storage.recover(nonce);
                    let result = result.map(|groups| {
                        let weights = weigh(storage.as_ref(), &groups);
                        (groups, storage.snapshots(), weights)
                    });
                    let failed = result.is_err();
                    if first.send(result).is_ok() && !failed {
                        let desk = Desk { storage, meters, failed };
                        serve(desk, &queue, &done);
                    }
                    // The receiver may be gone: nobody waits for the end.
                    let _ = ended.send(());
                };
                std::thread::Builder::new()
                    .name("paxos-journal".to_owned())
                    .spawn(body)
                    .map_err(StartError::Thread)?;
                let (groups, snapshots, weights) = recovered
                    .await
                    .map_err(|_| {
                        StartError::Thread(std::io::Error::other("it panicked in recovery"))
                    })?
                    .map_err(StartError::Storage)?;
                let journal = Self::Queue(jobs);
                Ok(Found { journal, groups, snapshots, weights, end: Some(end) })
            }
        }
    }

    /// Does the jobs, or has them done. What is done at once is pushed to `done`.
    pub(crate) fn submit(&mut self, jobs: &mut Vec<Job>, done: &mut Vec<Done>) {
        match self {
            Self::Inline(desk) => {
                for job in jobs.drain(..) {
                    done.push(desk.work(job));
                }
            }
            Self::Queue(queue) => {
                for job in jobs.drain(..) {
                    // A thread that is gone has said why through its own channel.
                    let _ = queue.send(job);
                }
            }
        }
    }
}

impl Desk {
    fn work(&mut self, job: Job) -> Done {
        assert!(!self.failed, "nothing is asked of a storage that failed");
        let result = match job {
            Job::Persist(batches) => {
                let empty = batches.is_empty();
                let begin = Instant::now();
                let result = self.storage.persist(batches);
                if !empty {
                    self.meters.sync.record_duration(begin.elapsed());
                }
                result.map(|proofs| Done::Durable(proofs, self.storage.room()))
            }
            Job::Load(ticket, range) => {
                let result = self.storage.load(range);
                result.map(|loaded| Done::Loaded(ticket, loaded))
            }
        };
        result.unwrap_or_else(|error| {
            self.failed = true;
            Done::Failed(StopReason::Storage(Arc::new(error)))
        })
    }
}

/// Takes everything queued, does it in order with as few writes as that allows, until the queue
/// closes or the storage fails.
fn serve(mut desk: Desk, queue: &std_mpsc::Receiver<Job>, done: &mpsc::UnboundedSender<Done>) {
    while let Ok(job) = queue.recv() {
        let mut jobs = vec![job];
        for job in queue.try_iter() {
            match (jobs.last_mut(), job) {
                (Some(Job::Persist(batches)), Job::Persist(more)) => batches.extend(more),
                (_, job) => jobs.push(job),
            }
        }
        for job in jobs {
            let result =
                catch_unwind(AssertUnwindSafe(|| desk.work(job))).unwrap_or_else(|panic| {
                    desk.failed = true;
                    Done::Failed(StopReason::Panicked(format!(
                        "the storage: {}",
                        panic_words(panic.as_ref())
                    )))
                });
            // When the node's task is gone nobody minds, but what it gave last is still written: it
            // may be what a halt must leave behind.
            let _ = done.send(result);
            if desk.failed {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_storage_is_complained_about_once_and_its_return_is_told() {
        let at = Time::from_nanos;
        let limit = Duration::from_nanos(10);
        let mut disk = Disk::default();
        assert_eq!(disk.overdue(at(100), limit), None);
        disk.asked(at(100));
        disk.asked(at(108));
        assert_eq!(disk.overdue(at(110), limit), None);
        assert_eq!(disk.overdue(at(111), limit), Some(Duration::from_nanos(11)));
        assert_eq!(disk.overdue(at(112), limit), None);
        assert_eq!(disk.proved(0, at(120)), None);
        assert_eq!(disk.proved(1, at(120)), Some(Duration::from_nanos(20)));
        // The other one is given the same time again.
        assert_eq!(disk.overdue(at(130), limit), None);
        assert_eq!(disk.proved(1, at(130)), None);
        assert_eq!(disk.overdue(at(200), limit), None);
    }
}
