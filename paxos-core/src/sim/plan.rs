//! The course of a random run: which faults happen when, drawn from the seed alone.
//!
//! Owns: [`Plan`], [`Profile`]. A portfolio of schedulers, because none of them finds every kind of
//! mistake: each is some ten times better than the others at some, and worse at others.
//! Invariant: the same seed and limits give the same plan; every plan ends its faults in bounded
//! time.
//! Source: Groce and others, "Swarm Testing"; the simulators of `TigerBeetle` and `FoundationDB`.

use core::fmt;
use core::str::FromStr;
use core::time::Duration;

use super::atlas::Atlas;
use super::disk::{DiskFault, Harm};
use super::fault::Fault;
use super::kind::Kind;
use super::options::Options;
use super::portfolio;
use super::rng::Rng;
use super::run::Limits;
use super::settings::draw_options;
use super::spots::Spot;
use crate::ids::{ReplicaId, Time};

/// How faults are drawn.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Profile {
    /// Every kind of fault may happen at any time, each with its usual weight.
    Uniform,
    /// A random few kinds of faults, and random weights of kinds and of replicas.
    Swarm,
    /// A short script of faults aimed at a place known to be hard: a [`Spot`].
    Directed,
    /// Of ten seeds, four are uniform, four swarm and two directed.
    #[default]
    Mixed,
}

impl Profile {
    /// Every profile.
    pub const ALL: [Self; 4] = [Self::Uniform, Self::Swarm, Self::Directed, Self::Mixed];
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Uniform => "uniform",
            Self::Swarm => "swarm",
            Self::Directed => "directed",
            Self::Mixed => "mixed",
        })
    }
}

/// No profile has this name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UnknownProfile(pub String);

impl fmt::Display for UnknownProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no profile is called {}", self.0)
    }
}

impl std::error::Error for UnknownProfile {}

impl FromStr for Profile {
    type Err = UnknownProfile;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|profile| profile.to_string() == name);
        found.ok_or_else(|| UnknownProfile(name.to_owned()))
    }
}

/// The course of one random run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The cluster.
    pub options: Options,
    /// What happens when, in order.
    pub faults: Vec<(Time, Fault)>,
    /// For each kind, after how many messages one is lost and one repeated for certain.
    pub forced: Vec<(Kind, u32, u32)>,
    /// When the faults end.
    pub end: Time,
    /// Whose disks the faults damage.
    pub doomed: Vec<ReplicaId>,
    /// How the faults were drawn: never [`Profile::Mixed`].
    pub profile: Profile,
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

impl Plan {
    /// The plan of a seed.
    pub fn new(seed: u64, limits: &Limits) -> Self {
        let mut rng = Rng::new(seed ^ 0x00fa_0175);
        let profile = match limits.profile {
            Profile::Mixed => match rng.below(10) {
                0..=3 => Profile::Uniform,
                4..=7 => Profile::Swarm,
                _ => Profile::Directed,
            },
            Profile::Uniform | Profile::Swarm | Profile::Directed => limits.profile,
        };
        if profile == Profile::Directed {
            let spot = *rng.pick(&Spot::ALL);
            return Self::at_spot(seed, limits, spot);
        }
        let options = draw_options(seed, limits, &mut rng);
        let options = with_newcomers(options, limits);
        // A few runs are long enough for long pauses to end.
        let length = if rng.chance(100) { (4000, 9000) } else { (1500, 3500) };
        let end = Time::ZERO.after(rng.duration(ms(length.0), ms(length.1)));
        let mut faults = if profile == Profile::Uniform {
            portfolio::draw_uniform(&options, end, &mut rng)
        } else {
            portfolio::draw_swarm(&options, end, &mut rng)
        };
        let atlas = Atlas::draw(&mut rng.fork(), &options, end);
        let disks = atlas.faults.into_iter();
        faults.extend(disks.map(|(at, id, fault)| (at, Fault::Disk(id, fault))));
        let mut doomed = atlas.spent;
        if options.newcomers > 0 {
            // What a disk may lose depends on who votes, which is not known here.
            faults.retain(|(_, fault)| is_borne(fault));
            doomed.clear();
            faults.extend(draw_changes(&options, end));
        }
        let forced = |kind| (kind, rng.below(6) as u32, rng.below(6) as u32);
        let forced = Kind::ALL.into_iter().map(forced).collect();
        Self { options, faults: in_order(faults), forced, end, doomed, profile }
    }

    /// The plan of a seed that aims at one spot.
    pub fn at_spot(seed: u64, limits: &Limits, spot: Spot) -> Self {
        let mut rng = Rng::new(seed ^ 0x0005_9075);
        let options = draw_options(seed, limits, &mut rng);
        let (faults, end) = spot.draw(&options, &mut rng);
        let (faults, forced) = (in_order(faults), Vec::new());
        Self { options, faults, forced, end, doomed: Vec::new(), profile: Profile::Directed }
    }
}

/// In a quarter of the clusters without leases the membership changes. Drawn apart, so that whatever
/// else a seed means does not depend on it.
fn with_newcomers(options: Options, limits: &Limits) -> Options {
    let mut rng = Rng::new(options.seed ^ 0x00c4_a9e0);
    let changes = limits.changes && options.lease.is_none() && rng.chance(250);
    if !changes {
        return options;
    }
    // A change fills a window, and the state machines have to take it.
    let window = options.window.min(16);
    Options { newcomers: rng.between(1, 6) as u16, window, ..options }
}

/// Whether whoever is struck keeps its memory.
fn is_borne(fault: &Fault) -> bool {
    let forgets = |fault: &DiskFault| fault.harm() != Harm::Passing;
    !matches!(fault, Fault::Wipe(..)) && !matches!(fault, Fault::Disk(_, fault) if forgets(fault))
}

/// When the operator asks for changes.
fn draw_changes(options: &Options, end: Time) -> Vec<(Time, Fault)> {
    let mut rng = Rng::new(options.seed ^ 0x00c4_a9e1);
    let count = rng.between(2, 24);
    let at = |rng: &mut Rng| Time::ZERO.after(rng.duration(ms(50), end.since(Time::ZERO)));
    (0..count).map(|_| (at(&mut rng), Fault::Change(rng.bits()))).collect()
}

fn in_order(mut faults: Vec<(Time, Fault)>) -> Vec<(Time, Fault)> {
    faults.sort_by_key(|(at, _)| *at);
    faults
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::fault::FaultKind;

    #[test]
    fn a_profile_is_known_by_its_name() {
        for profile in Profile::ALL {
            assert_eq!(profile.to_string().parse(), Ok(profile));
        }
        assert_eq!("all".parse::<Profile>(), Err(UnknownProfile("all".to_owned())));
    }

    #[test]
    fn a_mixed_portfolio_holds_each_profile_in_its_share() {
        let limits = Limits::default();
        let count =
            |wanted| (0..1000).filter(|seed| Plan::new(*seed, &limits).profile == wanted).count();
        let counts = [Profile::Uniform, Profile::Swarm, Profile::Directed].map(count);
        assert!((350..450).contains(&counts[0]), "{counts:?}");
        assert!((350..450).contains(&counts[1]), "{counts:?}");
        assert!((150..250).contains(&counts[2]), "{counts:?}");
    }

    #[test]
    fn plans_are_in_order_end_in_time_and_are_drawn_from_the_seed_alone() {
        for profile in Profile::ALL {
            let limits = Limits { profile, ..Limits::default() };
            for seed in 0..300 {
                let plan = Plan::new(seed, &limits);
                assert!(plan.faults.is_sorted_by_key(|(at, _)| *at), "{profile} {seed}");
                assert!(plan.faults.iter().all(|(at, _)| *at <= plan.end), "{profile} {seed}");
                assert!(plan.end.since(Time::ZERO) < Duration::from_secs(30), "{profile} {seed}");
                let again = Plan::new(seed, &limits);
                assert_eq!(plan.faults, again.faults);
            }
        }
    }

    #[test]
    fn every_kind_of_fault_is_in_the_plans_of_each_scheduler() {
        for profile in [Profile::Uniform, Profile::Swarm, Profile::Directed] {
            let limits = Limits { profile, ..Limits::default() };
            let mut seen = [0; FaultKind::ALL.len()];
            for seed in 0..400 {
                for (_, fault) in Plan::new(seed, &limits).faults {
                    seen[FaultKind::of(&fault).index()] += 1;
                }
            }
            for kind in FaultKind::ALL {
                // What names kinds of messages, or strikes everybody, is aimed.
                let aimed = matches!(kind, FaultKind::Drop | FaultKind::Delay | FaultKind::Pass);
                let general = matches!(
                    kind,
                    FaultKind::Cut | FaultKind::Heal | FaultKind::Clog | FaultKind::Link
                );
                let expected = match profile {
                    Profile::Directed => {
                        !general
                            && !matches!(
                                kind,
                                FaultKind::Disk | FaultKind::CutFor | FaultKind::Change
                            )
                    }
                    Profile::Uniform | Profile::Swarm | Profile::Mixed => !aimed,
                };
                assert!(!expected || seen[kind.index()] > 0, "{profile}: no {kind}");
            }
        }
    }
}
