//! What all tasks of a transport share.
//!
//! Owns: [`Shared`]: the roster, the peers, the inbox, the counters and the memory of what was
//! reported.
//! Invariants: locks are taken in the order peers, link, queue, inbox; none is held across an await.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, RwLock};
use std::time::Instant;

use paxos_core::ids::{ClusterId, Incarnation, ReplicaId};
use paxos_core::port::TransportCounters;
use quinn::Endpoint;
use tokio::task::AbortHandle;

use crate::close::Close;
use crate::identity::Identity;
use crate::inbox::Inbox;
use crate::options::Limits;
use crate::peer::{Candidate, Installed, Peer};
use crate::tls::SharedRoster;
use crate::wire::{self, Code, Hello};

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) cluster: ClusterId,
    pub(crate) replica: ReplicaId,
    pub(crate) identity: Identity,
    pub(crate) limits: Limits,
    pub(crate) roster: SharedRoster,
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) counts: Counts,
    pub(crate) incarnation: OnceLock<Incarnation>,
    pub(crate) peers: RwLock<BTreeMap<ReplicaId, Entry>>,
    numbers: AtomicU64,
    reported: Mutex<BTreeMap<Reported, Instant>>,
}

/// A peer and the task that dials it.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) peer: Arc<Peer>,
    pub(crate) dialer: Option<AbortHandle>,
}

/// A kind of refusal, reported once in a while.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Reported {
    peer: Option<ReplicaId>,
    code: Code,
    by_peer: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) frames_sent: AtomicU64,
    pub(crate) bytes_sent: AtomicU64,
    pub(crate) frames_received: AtomicU64,
    pub(crate) bytes_received: AtomicU64,
    pub(crate) dropped_oldest: AtomicU64,
    pub(crate) refused_full: AtomicU64,
    pub(crate) refused_down: AtomicU64,
    pub(crate) coalesced: AtomicU64,
    pub(crate) links_up: AtomicU64,
    pub(crate) handshakes_refused: AtomicU64,
}

impl Counts {
    pub(crate) fn read(&self) -> TransportCounters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut counters = TransportCounters::default();
        counters.frames_sent = read(&self.frames_sent);
        counters.bytes_sent = read(&self.bytes_sent);
        counters.frames_received = read(&self.frames_received);
        counters.bytes_received = read(&self.bytes_received);
        counters.dropped_oldest = read(&self.dropped_oldest);
        counters.refused_full = read(&self.refused_full);
        counters.refused_down = read(&self.refused_down);
        counters.coalesced = read(&self.coalesced);
        counters.links_up = read(&self.links_up);
        counters.handshakes_refused = read(&self.handshakes_refused);
        counters
    }
}

impl Shared {
    pub(crate) fn new(
        cluster: ClusterId,
        replica: ReplicaId,
        identity: Identity,
        limits: Limits,
        roster: SharedRoster,
        endpoints: Vec<Endpoint>,
    ) -> Self {
        Self {
            cluster,
            replica,
            identity,
            limits,
            roster,
            endpoints,
            inbox: Arc::default(),
            counts: Counts::default(),
            incarnation: OnceLock::new(),
            peers: RwLock::default(),
            numbers: AtomicU64::new(0),
            reported: Mutex::default(),
        }
    }

    /// What this replica says of itself. Called after the start only.
    pub(crate) fn hello(&self) -> Hello {
        Hello {
            versions: wire::SPOKEN,
            replica: self.replica,
            frame_max: self.limits.frame_bytes_max,
            features: 0,
            cluster: self.cluster,
            incarnation: *self
                .incarnation
                .get()
                .expect("tasks that greet are spawned by the start"),
        }
    }

    /// Whether the other side of a handshake is who its key says, and fits.
    pub(crate) fn check(&self, hello: &Hello, owner: ReplicaId) -> Result<(), Close> {
        let refuse = |code, text| Err(Close::ours(code, text));
        // Of more than one, the version agreed on would be that of the frames after this.
        if wire::SPOKEN.agree(hello.versions).is_none() {
            let text = format!("protocol {} meets {}", hello.versions, wire::SPOKEN);
            return refuse(Code::Version, text);
        }
        if hello.cluster != self.cluster {
            return refuse(
                Code::Cluster,
                format!("cluster {} meets cluster {}", hello.cluster, self.cluster),
            );
        }
        if hello.replica != owner {
            return refuse(
                Code::Replica,
                format!("it says it is {}, and its key is that of {owner}", hello.replica),
            );
        }
        Ok(())
    }

    pub(crate) fn peer(&self, id: ReplicaId) -> Option<Arc<Peer>> {
        let peers = self.peers.read().expect("no holder of this lock panics");
        peers.get(&id).map(|entry| Arc::clone(&entry.peer))
    }

    /// Makes a greeted connection the link, if its key still is the peer's.
    pub(crate) fn install(&self, peer: &Peer, candidate: Candidate) -> Result<Installed, Close> {
        let pin = candidate.pin;
        if let Some(reason) = candidate.connection.close_reason() {
            return Err(reason.into());
        }
        let number = || self.numbers.fetch_add(1, Ordering::Relaxed) + 1;
        let installed = peer.install(candidate, &self.limits, &self.inbox, number)?;
        if installed.new_life.is_some() {
            self.counts.links_up.fetch_add(1, Ordering::Relaxed);
        }
        // Looked up after the link can be seen, so that a change of membership at this very moment
        // is noticed here or by the one who makes it.
        let known =
            self.peer(peer.id).is_some_and(|known| core::ptr::eq(Arc::as_ptr(&known), peer));
        if !known || self.roster.current().owner(&pin) != Some(peer.id) {
            let close = Close::ours(Code::Key, "its key was removed from the membership");
            peer.lost(installed.connection_number, &close, &self.inbox);
            return Err(close);
        }
        Ok(installed)
    }

    /// Counts a refusal, and reports it unless the same was reported a short time ago.
    pub(crate) fn refused(&self, peer: Option<ReplicaId>, close: &Close) {
        let Some(code) = close.code.filter(|code| code.is_refusal()) else {
            return;
        };
        self.counts.handshakes_refused.fetch_add(1, Ordering::Relaxed);
        let kind = Reported { peer, code, by_peer: close.by_peer };
        let now = Instant::now();
        {
            let mut reported = self.reported.lock().expect("no holder of this lock panics");
            let due = reported
                .get(&kind)
                .is_none_or(|last| now.duration_since(*last) >= self.limits.refused_interval);
            if !due {
                return;
            }
            reported.insert(kind, now);
        }
        let what = match code {
            Code::Cluster => "wrong cluster",
            Code::Replica => "wrong replica id",
            Code::Version => "wrong version",
            Code::Incarnation => "wrong incarnation",
            Code::Key => "wrong key",
            Code::Timeout => "too slow",
            Code::Protocol | Code::Shutdown | Code::Superseded | Code::Idle | Code::NotLinked => {
                "broken protocol"
            }
        };
        let reason = if close.by_peer {
            format!("{what}: refused by the peer, which says: {}", close.text)
        } else {
            format!("{what}: {}", close.text)
        };
        // Whoever takes the event tells the operator.
        self.inbox.push_refused(peer, reason);
    }
}
