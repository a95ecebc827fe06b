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
use std::time::Instant;

use paxos_core::durable::{Durable, WriteBatch};
use paxos_core::output::LoadTicket;
use paxos_core::port::{Blocking, LoadRange, Loaded, Recovered, Room, Storage};
use tokio::sync::{mpsc, oneshot};

use crate::error::{StartError, StopReason, panic_words};
use crate::metrics::Meters;

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
    Failed(StopReason),
}

/// Where the storage lives.
pub(crate) enum Journal {
    Inline(Desk),
    Thread(std_mpsc::Sender<Job>),
}

/// The storage, and what is counted of it.
pub(crate) struct Desk {
    storage: Box<dyn Storage>,
    meters: Arc<Meters>,
    failed: bool,
}

impl Journal {
    /// Recovers the storage and gives it its place. What the thread does is sent to `done`; when it
    /// ends, the receiver that is returned resolves.
    pub(crate) async fn start(
        mut storage: Box<dyn Storage>,
        nonce: u32,
        meters: Arc<Meters>,
        done: mpsc::UnboundedSender<Done>,
    ) -> Result<(Self, Vec<Recovered>, Option<oneshot::Receiver<()>>), StartError> {
        match storage.blocking() {
            Blocking::Never => {
                let recovered = storage.recover(nonce).map_err(StartError::Storage)?;
                let desk = Desk {
                    storage,
                    meters,
                    failed: false,
                };
                Ok((Self::Inline(desk), recovered, None))
            }
            Blocking::Device => {
                let (jobs, queue) = std_mpsc::channel();
                let (first, recovered) = oneshot::channel();
                let (ended, end) = oneshot::channel();
                let body = move || {
                    let result = storage.recover(nonce);
                    let failed = result.is_err();
                    if first.send(result).is_ok() && !failed {
                        let desk = Desk {
                            storage,
                            meters,
                            failed,
                        };
                        serve(desk, &queue, &done);
                    }
                    // The receiver may be gone: nobody waits for the end.
                    let _ = ended.send(());
                };
                std::thread::Builder::new()
                    .name("paxos-journal".to_owned())
                    .spawn(body)
                    .map_err(StartError::Thread)?;
                let recovered = recovered
                    .await
                    .map_err(|_| {
                        StartError::Thread(std::io::Error::other("it panicked in recovery"))
                    })?
                    .map_err(StartError::Storage)?;
                Ok((Self::Thread(jobs), recovered, Some(end)))
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
            Self::Thread(queue) => {
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
            if done.send(result).is_err() || desk.failed {
                return;
            }
        }
    }
}
