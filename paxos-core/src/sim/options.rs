//! What a simulated cluster is made of.
//!
//! Owns: [`Options`], set by hand in scripts and drawn from the seed in random runs.

use core::time::Duration;

use crate::config::Config;
use crate::membership::LeaseTerms;
use crate::quorum::QuorumRule;

/// What becomes of a state machine when its process crashes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Machine {
    /// It starts again before the first slot.
    Volatile,
    /// It gives back a state that it had before, of a slot that the seed draws.
    Durable,
}

/// How a cluster is built. Start from [`Options::new`].
#[derive(Clone, Debug)]
pub struct Options {
    /// Feeds every random choice.
    pub seed: u64,
    /// How many voters there are at first: 1 to 9.
    pub replicas: u16,
    /// How many more replicas may become members, numbered after the first ones. Where there are any,
    /// an operator changes the membership now and then.
    pub newcomers: u16,
    /// Which sets of voters are quorums.
    pub quorums: QuorumRule,
    /// How many slots may be in flight.
    pub window: u32,
    /// The terms of leases, if there are any. What is drawn keeps clocks within them.
    pub lease: Option<LeaseTerms>,
    /// The tunables of every replica.
    pub config: Config,
    /// The tunables of single replicas, the first for replica 1; the others have `config`.
    pub configs: Vec<Config>,
    /// The longest time that a write or read takes.
    pub disk_delay_max: Duration,
    /// The longest time that the state machine takes.
    pub apply_delay_max: Duration,
    /// How far clocks run off, in millionths; below one million.
    pub clock_skew: u32,
    /// What a crash leaves of the state machine.
    pub machine: Machine,
    /// Whether bare replicas make snapshots now and then, and trim their logs behind them.
    pub trim: bool,
    /// Whether messages travel as bytes through the codec, or as they are.
    pub codec: bool,
    /// The most commands that a client sends at once: at least 1.
    pub commands_max: u64,
    /// The most bytes of a command's payload: at least 8.
    pub payload_max: u64,
    /// How many events the trace remembers.
    pub trace_capacity: usize,
}

impl Options {
    /// Three to nine replicas with default tunables, on calm disks.
    pub fn new(seed: u64, replicas: u16) -> Self {
        Self {
            seed,
            replicas,
            newcomers: 0,
            quorums: QuorumRule::Majority,
            window: crate::membership::WINDOW_DEFAULT,
            lease: None,
            config: Config::default(),
            configs: Vec::new(),
            disk_delay_max: Duration::from_millis(2),
            apply_delay_max: Duration::from_millis(1),
            clock_skew: 0,
            machine: Machine::Volatile,
            trim: false,
            codec: true,
            commands_max: 3,
            payload_max: 31,
            trace_capacity: 400,
        }
    }

    /// The rate nearest to this one, in millionths of true time, that the terms of leases allow.
    pub(super) fn clock_rate(&self, rate: u64) -> u32 {
        let (low, high) = self.lease.map_or((0, u64::MAX), |lease| {
            let drift = u64::from(lease.drift_ppm());
            (1_000_000 - drift, 1_000_000 + drift)
        });
        u32::try_from(rate.clamp(low, high)).unwrap_or(u32::MAX)
    }

    /// The longest time from the loss of a leader to the start of a campaign, by a true clock, at
    /// the replica that takes longest.
    pub fn election_timeout(&self) -> Duration {
        let longest = |config: &Config| config.election_timeout + config.election_jitter;
        let configs = self.configs.iter().take(usize::from(self.replicas));
        configs.map(longest).max().unwrap_or_default().max(longest(&self.config))
    }
}
