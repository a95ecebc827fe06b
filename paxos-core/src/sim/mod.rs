//! The deterministic simulator: real replicas, and everything else in one thread from one seed.
//!
//! Owns: nothing; each module beneath owns one noun. Uses only public items of this crate, except
//! [`Batches`], so that users can import it for tests of their own.
//!
//! ```
//! # use paxos_core::sim::{Limits, run_seed};
//! let outcome = run_seed(7, &Limits::default());
//! assert!(outcome.violation.is_none(), "{}", outcome.trace);
//! ```

mod atlas;
mod batches;
mod change;
mod check;
mod client;
mod cluster;
mod diagram;
mod disk;
mod downtime;
mod drive;
mod failure;
mod fault;
mod held;
mod host;
mod keeper;
mod kind;
mod life;
pub mod linear;
mod link;
mod liveness;
mod marks;
pub mod monitor;
mod network;
mod node;
mod observe;
mod options;
mod plan;
mod play;
mod portfolio;
mod preset;
mod read;
mod report;
mod rng;
mod run;
mod script;
mod settings;
mod shelf;
mod spots;
mod stage;
mod suffer;
mod trace;
mod transfer;

pub use atlas::Atlas;
pub use batches::Batches;
pub use check::{Check, Invariant, Violation};
pub use cluster::Cluster;
pub use diagram::Diagram;
pub use disk::{CrashStorage, DiskFault, Harm, SimDisk};
pub use downtime::{Downtime, Measured, SERVE_WITHIN, STAY, run_preset_of_hosts, run_preset_on};
pub use failure::Failure;
pub use fault::{Ambush, Blow, Cue, Fact, Fault, FaultKind, Side, Target};
pub use held::{Held, Survivors};
pub use host::{Act, Birth, Effect, Ending, Fleet, Host, Moment, Stimulus, Tally};
pub use kind::Kind;
pub use marks::{Mark, Marks};
pub use network::{Fate, Flap, Network, Rule, Shape, Weather};
pub use options::{Machine, Options};
pub use plan::{Plan, Profile, UnknownProfile};
pub use play::{PlayError, play, play_on};
pub use preset::{Case, Preset, UnknownPreset};
pub use report::Totals;
pub use rng::Rng;
pub use run::{Limits, Outcome, run_plan_on, run_seed, run_seed_of_hosts, run_seed_on};
pub use script::Script;
pub use spots::Spot;
pub use trace::{Record, Trace};
