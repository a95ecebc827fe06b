//! One peer: its queues, and the link to it if there is one.
//!
//! Owns: [`Peer`] and the rule which of two connections becomes the link. Knows no handshakes.
//! Invariants:
//! 1. At most one link at a time; between two `Up` there is a `Down`.
//! 2. Both sides come to the same choice: between two connections dialled at once by the two sides,
//!    the one dialled by the greater id stays; else the newer one. A newer life replaces an older one
//!    at once, and an older one is refused.
//! 3. A connection that replaces another within one life is the same link: no event tells of it,
//!    and what is queued goes out over it.
//!
//! Pattern: Generation Clock (the incarnation decides between lives of one peer).

use core::time::Duration;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use paxos_core::ids::{Incarnation, ReplicaId};
use paxos_core::membership::KeyPin;
use paxos_core::port::{Lane, TransportEvent};
use quinn::Connection;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::close::Close;
use crate::inbox::{Credit, Gate, Inbox};
use crate::options::Limits;
use crate::queue::{LaneQueue, Overflow};
use crate::wire::{Code, Hello, lane_index};

/// How long a connection that lost to another may still deliver what is under way on it.
pub(crate) const SUPERSEDED_GRACE: Duration = Duration::from_millis(250);

/// A connection both sides of which said who they are.
#[derive(Debug)]
pub(crate) struct Candidate {
    pub(crate) connection: Connection,
    pub(crate) hello: Hello,
    pub(crate) pin: KeyPin,
    pub(crate) dialled_by: ReplicaId,
}

#[derive(Debug)]
pub(crate) struct Link {
    /// Numbers connections; also owns the control and log queues.
    pub(crate) connection_number: u64,
    /// Numbers links; also owns the bulk queue.
    pub(crate) life_number: u64,
    pub(crate) connection: Connection,
    pub(crate) incarnation: Incarnation,
    pub(crate) pin: KeyPin,
    pub(crate) dialled_by: ReplicaId,
    pub(crate) gate: Arc<Gate>,
    pub(crate) bulk_in: Option<Connection>,
    pub(crate) bulk_out: Option<AbortHandle>,
    installed: Instant,
}

/// What a candidate became.
#[derive(Debug)]
pub(crate) struct Installed {
    pub(crate) connection_number: u64,
    pub(crate) gate: Arc<Gate>,
    /// The number of the link where it is a new one.
    pub(crate) new_life: Option<u64>,
}

#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) id: ReplicaId,
    queues: [Mutex<LaneQueue>; 3],
    pub(crate) credits: [Arc<Credit>; 3],
    link: Mutex<Option<Link>>,
    linked: watch::Sender<bool>,
    dialling: watch::Sender<bool>,
    /// The largest frame that both sides carry.
    frame_max: AtomicU32,
}

impl Peer {
    pub(crate) fn new(id: ReplicaId, limits: &Limits) -> Arc<Self> {
        let queue =
            |overflow, bytes| Mutex::new(LaneQueue::new(overflow, bytes, limits.lane_frames_max));
        let credit = || Credit::new(limits.receive_bytes_max);
        Arc::new(Self {
            id,
            queues: [
                queue(Overflow::DropOldest, limits.control_bytes_max),
                queue(Overflow::RefuseNewest, limits.log_bytes_max),
                queue(Overflow::RefuseNewest, limits.bulk_bytes_max),
            ],
            credits: [credit(), credit(), credit()],
            link: Mutex::new(None),
            linked: watch::Sender::new(false),
            dialling: watch::Sender::new(false),
            frame_max: AtomicU32::new(0),
        })
    }

    pub(crate) fn queue(&self, lane: Lane) -> MutexGuard<'_, LaneQueue> {
        self.queues[lane_index(lane)].lock().expect("no holder of this lock panics")
    }

    pub(crate) fn link(&self) -> MutexGuard<'_, Option<Link>> {
        self.link.lock().expect("no holder of this lock panics")
    }

    pub(crate) fn frame_max(&self) -> usize {
        self.frame_max.load(Ordering::Relaxed) as usize
    }

    /// Tells whether there is a link, and each change of it.
    pub(crate) fn watch(&self) -> watch::Receiver<bool> {
        self.linked.subscribe()
    }

    /// Says whether this side dials at the moment.
    pub(crate) fn set_dialling(&self, dialling: bool) {
        self.dialling.send_replace(dialling);
    }

    /// Waits until this side does not dial. Cancel safe.
    pub(crate) async fn dialled(&self) {
        let mut dialling = self.dialling.subscribe();
        // The sender lives as long as `self`, so that waiting cannot fail.
        let _ = dialling.wait_for(|dialling| !dialling).await;
    }

    /// The gate of the link to this life, if there is one.
    pub(crate) fn gate(&self, incarnation: Incarnation) -> Option<Arc<Gate>> {
        let slot = self.link();
        let link = slot.as_ref().filter(|link| link.incarnation == incarnation);
        link.map(|link| Arc::clone(&link.gate))
    }

    /// Makes the candidate the link, or says why not. `numbers` gives numbers never used before.
    pub(crate) fn install(
        &self,
        candidate: Candidate,
        limits: &Limits,
        inbox: &Inbox,
        mut numbers: impl FnMut() -> u64,
    ) -> Result<Installed, Close> {
        let mut slot = self.link();
        let life = candidate.hello.incarnation;
        let same_life = match &*slot {
            None => false,
            Some(link) if life < link.incarnation => {
                return Err(Close::ours(
                    Code::Incarnation,
                    format!(
                        "{} is linked with incarnation {} already; incarnation {life} is an \
                         earlier life, or a second process on a copy of its directory: stop one",
                        self.id, link.incarnation
                    ),
                ));
            }
            Some(link) if life > link.incarnation => false,
            Some(link) => {
                // Dialled before either side could know of the other's connection.
                let race = link.installed.elapsed() < limits.handshake_timeout * 2;
                if race
                    && link.connection.close_reason().is_none()
                    && link.dialled_by > candidate.dialled_by
                {
                    return Err(Close::ours(Code::Superseded, "another connection stays"));
                }
                true
            }
        };
        let connection_number = numbers();
        let incarnation = candidate.hello.incarnation;
        self.frame_max
            .store(limits.frame_bytes_max.min(candidate.hello.frame_max), Ordering::Relaxed);
        let mut link = Link {
            connection_number,
            life_number: connection_number,
            connection: candidate.connection,
            incarnation,
            pin: candidate.pin,
            dialled_by: candidate.dialled_by,
            gate: Arc::default(),
            bulk_in: None,
            bulk_out: None,
            installed: Instant::now(),
        };
        let old = slot.take();
        let mut events = Vec::with_capacity(2);
        let mut closing = None;
        match old {
            Some(mut old) if same_life => {
                link.life_number = old.life_number;
                link.gate = Arc::clone(&old.gate);
                link.bulk_in = old.bulk_in.take();
                link.bulk_out = old.bulk_out.take();
                retire(old.connection);
            }
            old => {
                if let Some(old) = old {
                    closing = Some(self.end(old, Code::Superseded, "a newer life came"));
                    events.push(self.down(format!("incarnation {incarnation} replaced it")));
                }
                self.queue(Lane::Bulk).open(link.life_number);
                events.push(TransportEvent::Up { peer: self.id, incarnation });
            }
        }
        // Whoever hears that the link is up can send at once.
        for lane in [Lane::Control, Lane::Log] {
            self.queue(lane).open(connection_number);
        }
        inbox.push_events(closing.as_deref(), events);
        tracing::debug!(peer = %self.id, %incarnation, same_life, "connection installed");
        let installed = Installed {
            connection_number,
            gate: Arc::clone(&link.gate),
            new_life: (!same_life).then_some(link.life_number),
        };
        *slot = Some(link);
        self.linked.send_replace(true);
        Ok(installed)
    }

    /// Ends the link if `connection_number` still is its connection. Returns whether it was.
    pub(crate) fn lost(&self, connection_number: u64, close: &Close, inbox: &Inbox) -> bool {
        let mut slot = self.link();
        match slot.take() {
            Some(link) if link.connection_number == connection_number => {
                let code = close.code.unwrap_or(Code::Shutdown);
                let gate = self.end(link, code, &close.text);
                tracing::debug!(peer = %self.id, reason = %close.text, "connection lost");
                inbox.push_events(Some(&gate), [self.down(close.text.clone())]);
                self.linked.send_replace(false);
                true
            }
            other => {
                *slot = other;
                false
            }
        }
    }

    /// Ends the link, whatever its connection, if `condition` holds for it.
    pub(crate) fn cut(&self, close: &Close, inbox: &Inbox, condition: impl FnOnce(&Link) -> bool) {
        let number = match &*self.link() {
            Some(link) if condition(link) => link.connection_number,
            Some(_) | None => return,
        };
        self.lost(number, close, inbox);
    }

    fn down(&self, reason: String) -> TransportEvent {
        TransportEvent::Down { peer: self.id, reason }
    }

    /// Closes everything that belongs to the link. Its gate is closed with the event.
    fn end(&self, link: Link, code: Code, text: &str) -> Arc<Gate> {
        for lane in [Lane::Control, Lane::Log, Lane::Bulk] {
            let lost = self.queue(lane).close();
            if lost > 0 {
                tracing::debug!(peer = %self.id, ?lane, lost, "queued frames dropped");
            }
        }
        link.connection.close(code.number(), text.as_bytes());
        if let Some(bulk) = link.bulk_in {
            bulk.close(code.number(), text.as_bytes());
        }
        if let Some(task) = link.bulk_out {
            task.abort();
        }
        link.gate
    }
}

/// Closes a connection whose place another took, after what is under way on it had time to arrive.
pub(crate) fn retire(connection: Connection) {
    tracing::debug!(remote = %connection.remote_address(), "connection superseded");
    tokio::spawn(async move {
        tokio::time::sleep(SUPERSEDED_GRACE).await;
        connection.close(Code::Superseded.number(), b"another connection took its place");
    });
}
