//! What a simulated cluster is made of.
//!
//! Owns: [`Options`], set by hand in scripts and drawn from the seed in random runs.

use core::time::Duration;

use crate::config::Config;
use crate::ids::ReplicaId;
use crate::quorum::QuorumRule;

/// What becomes of a state machine when its process crashes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Machine {
    /// It starts again before the first slot.
    Volatile,
    /// It gives back a state that it had before, of a slot that the seed draws.
    Durable,
}

/// How the election timers of the replicas relate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Timers {
    /// All are drawn from the same range.
    Alike,
    /// Those of every second replica are drawn from twice that range, so that they come due
    /// together again and again.
    Harmonic,
}

impl Timers {
    const fn factor(self, id: ReplicaId) -> u32 {
        match self {
            Self::Alike => 1,
            Self::Harmonic => 2 - id.number() as u32 % 2,
        }
    }
}

/// How a cluster is built. Start from [`Options::new`].
#[derive(Clone, Debug)]
pub struct Options {
    /// Feeds every random choice.
    pub seed: u64,
    /// How many voters: 1 to 9.
    pub replicas: u16,
    /// Which sets of voters are quorums.
    pub quorums: QuorumRule,
    /// How many slots may be in flight.
    pub window: u32,
    /// The tunables of every replica.
    pub config: Config,
    /// The longest time that a write or read takes.
    pub disk_delay_max: Duration,
    /// The longest time that the state machine takes.
    pub apply_delay_max: Duration,
    /// How far clocks run off, in millionths; below one million.
    pub clock_skew: u32,
    /// What a crash leaves of the state machine.
    pub machine: Machine,
    /// Whether what all state machines hold durably is trimmed from the logs. Only with
    /// [`Machine::Durable`]: a volatile machine needs the whole log.
    pub trim: bool,
    /// Whether messages travel as bytes through the codec, or as they are.
    pub codec: bool,
    /// How the election timers of the replicas relate.
    pub timers: Timers,
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
            quorums: QuorumRule::Majority,
            window: crate::membership::WINDOW_DEFAULT,
            config: Config::default(),
            disk_delay_max: Duration::from_millis(2),
            apply_delay_max: Duration::from_millis(1),
            clock_skew: 0,
            machine: Machine::Volatile,
            trim: false,
            codec: true,
            timers: Timers::Alike,
            commands_max: 3,
            payload_max: 31,
            trace_capacity: 400,
        }
    }

    /// The tunables of one replica.
    pub fn config_of(&self, id: ReplicaId) -> Config {
        let factor = self.timers.factor(id);
        Config {
            election_timeout: self.config.election_timeout * factor,
            election_jitter: self.config.election_jitter * factor,
            ..self.config.clone()
        }
    }

    /// The longest time from the loss of a leader to the start of a campaign, by a true clock, at
    /// the replica that takes longest.
    pub fn election_timeout(&self) -> Duration {
        let ids = (1..=self.replicas).map(ReplicaId::new);
        let factor = ids.map(|id| self.timers.factor(id)).max().unwrap_or(1);
        (self.config.election_timeout + self.config.election_jitter) * factor
    }
}
