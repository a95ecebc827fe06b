//! The bounds and timeouts of a node, beside the protocol's own [`paxos_core::config::Config`].
//!
//! Owns: [`NodeOptions`].

use core::time::Duration;
use std::sync::Arc;

use paxos_core::config::Config;

use crate::error::StartError;
use crate::trace::TraceSink;

/// The bounds and timeouts of a node. Start from [`NodeOptions::default`].
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// How many requests of this node's clients may wait for an answer at once; one more is
    /// refused as `Busy`. A client may have eight times as many as are left free, so that alone it has
    /// eight ninths of them at most and others find places: of the default 58,254. Bounds the memory of
    /// the waiting list. Default 65,536.
    pub requests_max: usize,
    /// How many bytes of commands forwarded by peers may wait to be proposed here; a frame beyond
    /// is refused as busy, unless none waits. Default 64 MiB.
    pub forwarded_bytes_max: usize,
    /// How many forwarded frames of this node may be unanswered at once; what comes meanwhile is
    /// sent together afterwards. At most 512. They are small until half as
    /// many are unanswered, and larger beyond. Default 256.
    pub forwards_max: usize,
    /// How long a client waits for its answer unless it says otherwise; above the election timeout.
    /// Default 5 s.
    pub request_timeout: Duration,
    /// How long the session in which this node's commands are sent outlives its last use, by the
    /// clock of the log; the next command after that opens another. Longer than any request may
    /// take: one that is sent again after its session expired ends as unknown. Default 1 h.
    pub session_ttl: Duration,
    /// How long [`crate::Node::shutdown`] waits for what is proposed. Default 5 s.
    pub shutdown_timeout: Duration,
    /// How long a forwarded command, or a question for a read point, that the leader refused waits before
    /// it is tried again; grows
    /// with each refusal, and is drawn at random from the upper half. Default 5 ms.
    pub backoff_min: Duration,
    /// What that wait grows to at most, from `backoff_min`. Default 200 ms.
    pub backoff_max: Duration,
    /// A snapshot is made when the log took so many bytes since the last one; or as many as the last
    /// image has, if that is more, so that images never cost more writing than the log. The disk holds at
    /// most about this much log, [`NodeOptions::trim_reserve_bytes`], and what is applied while an image
    /// is made. Default 64 MiB.
    pub snapshot_log_bytes: u64,
    /// Or when so many slots were applied since: bounds how much a start applies again. Default
    /// 1,048,576.
    pub snapshot_slots: u64,
    /// Or when so much time has passed since and something was applied. Default none: a state that
    /// changes little is written seldom.
    pub snapshot_interval: Option<Duration>,
    /// So many slots below the last applied one stay in the log though a snapshot includes them: a
    /// replica that was away for less is served from there, which costs less than a snapshot. Default
    /// 10,000.
    pub trim_tail_slots: u64,
    /// No more than so many bytes of the log are kept of what a snapshot includes, for that tail and for
    /// connected replicas that lack them. Default 64 MiB.
    pub trim_reserve_bytes: u64,
    /// How many bytes of snapshots leave in a second at most, to all peers together: leaves the network
    /// and the disk to the log. Default 64 MiB.
    pub snapshot_send_bytes_per_second: u64,
    /// How many bytes of a snapshot this node asks for in a second at most. Default 64 MiB.
    pub snapshot_receive_bytes_per_second: u64,
    /// To how many peers snapshots are sent at once; one more asks another replica, or later. Default 2.
    pub snapshot_senders_max: usize,
    /// The bytes of a snapshot in one frame, or what a frame of the transport takes if that is less; of
    /// each peer that is sent one, a few are in memory. Default 256 KiB.
    pub snapshot_chunk_bytes: usize,
    /// After each slot whose number is a multiple of this, the digest of the state machine's state
    /// ([`crate::StateMachine::digest`]) is compared with those of the other members: so many slots a
    /// replica that went astray serves at most, and some more while the answers are on their way. The same on
    /// all nodes, or little is compared; [`u64::MAX`] for never. A machine that takes a millisecond for its
    /// digest pays a microsecond a slot at the default of 1,024, and each node sends each other one or two
    /// frames of 49 bytes.
    pub digest_slots: u64,
    /// Is shown every event of the replica: messages, writes, proofs, values, changes of leader.
    /// Default none, which costs nothing.
    pub trace: Option<Arc<dyn TraceSink>>,
}

impl Default for NodeOptions {
    fn default() -> Self {
        Self {
            requests_max: 65_536,
            forwarded_bytes_max: 64 << 20,
            forwards_max: 256,
            request_timeout: Duration::from_secs(5),
            session_ttl: Duration::from_secs(3600),
            shutdown_timeout: Duration::from_secs(5),
            backoff_min: Duration::from_millis(5),
            backoff_max: Duration::from_millis(200),
            snapshot_log_bytes: 64 << 20,
            snapshot_slots: 1 << 20,
            snapshot_interval: None,
            trim_tail_slots: 10_000,
            trim_reserve_bytes: 64 << 20,
            snapshot_send_bytes_per_second: 64 << 20,
            snapshot_receive_bytes_per_second: 64 << 20,
            snapshot_senders_max: 2,
            snapshot_chunk_bytes: 256 << 10,
            digest_slots: 1024,
            trace: None,
        }
    }
}

impl NodeOptions {
    pub(crate) fn check(&self, config: &Config) -> Result<(), StartError> {
        let rules = [
            (self.requests_max > 0, "requests_max"),
            (self.forwarded_bytes_max > 0, "forwarded_bytes_max"),
            (self.forwards_max > 0, "forwards_max"),
            (!self.request_timeout.is_zero(), "request_timeout"),
            (!self.session_ttl.is_zero(), "session_ttl"),
            (!self.backoff_min.is_zero(), "backoff_min"),
            (!self.backoff_max.is_zero(), "backoff_max"),
            (self.snapshot_log_bytes > 0, "snapshot_log_bytes"),
            (self.snapshot_slots > 0, "snapshot_slots"),
            (self.snapshot_interval != Some(Duration::ZERO), "snapshot_interval"),
            (self.trim_reserve_bytes > 0, "trim_reserve_bytes"),
            (self.snapshot_send_bytes_per_second > 0, "snapshot_send_bytes_per_second"),
            (self.snapshot_receive_bytes_per_second > 0, "snapshot_receive_bytes_per_second"),
            (self.snapshot_senders_max > 0, "snapshot_senders_max"),
            (self.snapshot_chunk_bytes > 0, "snapshot_chunk_bytes"),
            (self.digest_slots > 0, "digest_slots"),
        ];
        if let Some((_, field)) = rules.into_iter().find(|(holds, _)| !holds) {
            return Err(StartError::Options(field));
        }
        let fits = [
            (self.backoff_min <= self.backoff_max, "backoff_min must not be above backoff_max"),
            (
                self.request_timeout > config.election_timeout,
                "request_timeout must be above the election timeout, or no command outlives a leader",
            ),
        ];
        match fits.into_iter().find(|(holds, _)| !holds) {
            Some((_, why)) => Err(StartError::Unfit(why)),
            None => Ok(()),
        }
    }
}
