//! The local tunables of a replica, each with its reason and bound.
//!
//! Owns: [`Config`]. Nothing in it needs to agree between replicas; what must agree stands in the
//! membership. No safety property depends on any of it.
//!
//! # Near and far
//!
//! What [`Config::default`] (replicas on a local network) and [`Config::wan`] (replicas in different
//! regions) set differently; a test reads the table.
//!
//! | tunable | near | far | why |
//! |---|---|---|---|
//! | `heartbeat_interval` | 100 ms | 500 ms | a few round trips, so that a late one is not a lost one |
//! | `election_timeout` | 500 ms | 3000 ms | two lost heartbeats and a slow third are no failure |
//! | `election_jitter` | 250 ms | 1500 ms | above a round trip, or candidates meet again and again |
//! | `disk_stall` | 2000 ms | 6000 ms | giving up a leader costs more where electing one does |
//! | `retransmit_interval` | 100 ms | 500 ms | above a round trip, or everything is sent twice |
//! | `fetch_timeout` | 200 ms | 1000 ms | a page has to arrive in that time |
//! | `quorum_read_timeout` | 2000 ms | 12000 ms | a new leader settles what the last one left |
//!
//! A command takes a round trip and a write to the disks of an accept quorum in either. A leader that
//! fails is missed for 500 to 750 ms near and for 3 to 4.5 s far.

use core::fmt;
use core::time::Duration;

use crate::codec::PROMISE_ENTRY_LEN;
use crate::ids::Priority;
use crate::membership::Membership;

/// Local tunables. Start from [`Config::default`] (a local network) or [`Config::wan`].
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Config {
    /// How often each replica tells every peer that it is there. At most a third of
    /// `election_timeout`, so that two heartbeats may be lost. Default 100 ms.
    pub heartbeat_interval: Duration,
    /// After so long without a heartbeat a peer counts as unreachable, and a replica that hears of
    /// no leader campaigns after this and a random part of `election_jitter`. Default 500 ms.
    pub election_timeout: Duration,
    /// The random part of the election timeout, drawn anew each time, so that candidates rarely
    /// meet. Default 250 ms.
    pub election_jitter: Duration,
    /// How much this replica is preferred as leader (protocol.md E10, E11): where nobody leads, those
    /// of lower priority let it campaign first, and a leader of lower priority hands over to it once
    /// it has caught up and four election timeouts have passed. Default 0; with equal priorities
    /// nobody is preferred, and nothing is handed over.
    pub priority: Priority,
    /// A leader whose oldest write has waited longer than this for its disk steps down. Default
    /// 2 s.
    pub disk_stall: Duration,
    /// How long the leader waits before it proposes a slot again to those that have not accepted
    /// it, and a candidate before it asks again. Default 100 ms.
    pub retransmit_interval: Duration,
    /// How long a replica waits for fetched values before it asks another peer. Default 200 ms.
    pub fetch_timeout: Duration,
    /// How long a round of Survey may take until a prepare quorum has answered and what it named is
    /// committed here; then the reads that it serves fail. A read waits for one earlier round at most,
    /// so for twice as long. Four election timeouts leave time for a new leader to settle what the
    /// last one left. Default 2 s.
    pub quorum_read_timeout: Duration,
    /// The most bytes of values in flight: proposed and not yet chosen. Bounds the leader's and
    /// each acceptor's memory beside the membership's window of slots. Default 64 MiB.
    pub window_bytes_max: usize,
    /// The most bytes of one batch, encoded. Default 1 MiB; at most 7 MiB, so that a message fits
    /// the transports' frames.
    pub batch_bytes_max: usize,
    /// The most bytes of committed values kept in memory for peers that are a little behind. What
    /// is older is read back from the log. Default 16 MiB.
    pub tail_bytes_max: usize,
    /// The most bytes of values in one page of a Promise, one Fetched, one read of the log, and
    /// one retransmitted Accept; a single larger value travels alone. Default 1 MiB; at most 7 MiB.
    pub page_bytes_max: usize,
    /// How many committed slots are handed out to be applied before the host says that some were.
    /// Bounds the host's queue of values. Default 1,024.
    pub apply_slots_max: u32,
    /// The most bytes of values handed out to be applied at once. Default 16 MiB.
    pub apply_bytes_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            heartbeat_interval: Duration::from_millis(100),
            election_timeout: Duration::from_millis(500),
            election_jitter: Duration::from_millis(250),
            priority: Priority::default(),
            disk_stall: Duration::from_secs(2),
            retransmit_interval: Duration::from_millis(100),
            fetch_timeout: Duration::from_millis(200),
            quorum_read_timeout: Duration::from_secs(2),
            window_bytes_max: 64 << 20,
            batch_bytes_max: 1 << 20,
            tail_bytes_max: 16 << 20,
            page_bytes_max: 1 << 20,
            apply_slots_max: 1024,
            apply_bytes_max: 16 << 20,
        }
    }
}

/// The largest allowed `batch_bytes_max` and `page_bytes_max`.
pub const PAGE_BYTES_LIMIT: usize = 7 << 20;

/// A message without its values, or the head of a forwarded batch, with room to spare.
const MESSAGE_AROUND: usize = 128;
/// A heartbeat that echoes the members of two memberships, 189 peers.
const HEARTBEAT_BYTES_MAX: usize = 4096;

/// Which tunable is out of its bounds, and what they are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ConfigError {
    /// The field.
    pub field: &'static str,
    /// The bound that it breaks.
    pub bound: &'static str,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "config field {} must be {}", self.field, self.bound)
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// Defaults for replicas in different regions: heartbeats each 500 ms, elections after 3 s.
    pub fn wan() -> Self {
        Self {
            heartbeat_interval: Duration::from_millis(500),
            election_timeout: Duration::from_secs(3),
            election_jitter: Duration::from_millis(1500),
            disk_stall: Duration::from_secs(6),
            retransmit_interval: Duration::from_millis(500),
            fetch_timeout: Duration::from_secs(1),
            quorum_read_timeout: Duration::from_secs(12),
            ..Self::default()
        }
    }

    /// The most bytes that a message between replicas may take under these tunables: a page of
    /// values, or one batch, with what stands around it; or the heartbeat of a full membership. A
    /// transport has to carry frames of this size.
    pub fn message_bytes_max(&self) -> usize {
        let values = self.page_bytes_max.max(PROMISE_ENTRY_LEN + self.batch_bytes_max);
        (MESSAGE_AROUND + values).max(HEARTBEAT_BYTES_MAX)
    }

    /// Whether every tunable is within its bounds, and fits what the membership says.
    pub fn check_for(&self, membership: &Membership) -> Result<(), ConfigError> {
        let waits =
            membership.lease().is_some_and(|lease| lease.duration() > self.election_timeout);
        if waits {
            let (field, bound) = ("election_timeout", "at least the lease of the membership");
            return Err(ConfigError { field, bound });
        }
        self.check()
    }

    /// Whether every tunable is within its bounds.
    pub fn check(&self) -> Result<(), ConfigError> {
        let rule = |holds: bool, field, bound| {
            if holds { Ok(()) } else { Err(ConfigError { field, bound }) }
        };
        rule(!self.heartbeat_interval.is_zero(), "heartbeat_interval", "above zero")?;
        rule(
            self.heartbeat_interval <= self.election_timeout / 3,
            "heartbeat_interval",
            "at most a third of election_timeout",
        )?;
        rule(!self.election_jitter.is_zero(), "election_jitter", "above zero")?;
        rule(!self.disk_stall.is_zero(), "disk_stall", "above zero")?;
        rule(!self.retransmit_interval.is_zero(), "retransmit_interval", "above zero")?;
        rule(!self.fetch_timeout.is_zero(), "fetch_timeout", "above zero")?;
        rule(!self.quorum_read_timeout.is_zero(), "quorum_read_timeout", "above zero")?;
        rule(
            (1..=PAGE_BYTES_LIMIT).contains(&self.batch_bytes_max),
            "batch_bytes_max",
            "between 1 and 7 MiB",
        )?;
        rule(
            (1..=PAGE_BYTES_LIMIT).contains(&self.page_bytes_max),
            "page_bytes_max",
            "between 1 and 7 MiB",
        )?;
        rule(
            self.window_bytes_max >= self.batch_bytes_max,
            "window_bytes_max",
            "at least batch_bytes_max",
        )?;
        rule(self.apply_slots_max > 0, "apply_slots_max", "above zero")?;
        rule(self.apply_bytes_max > 0, "apply_bytes_max", "above zero")
    }
}
