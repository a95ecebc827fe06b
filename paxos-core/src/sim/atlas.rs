//! Which disks fail in a random run, and how: the fault atlas.
//!
//! Owns: [`Atlas`]. Draws from the seed alone.
//! Invariants: what may cost a replica its disk (damage, a lie, an old copy) strikes only so many
//! replicas that the others contain a prepare and an accept quorum, so that every chosen value has
//! a good copy and the cluster can go on; faults that pass may strike all of them; a run has
//! damage or lies, never both, because a lie may hide damage.
//! Source: the fault atlas of `TigerBeetle`'s simulated storage.

use core::time::Duration;

use super::disk::DiskFault;
use super::options::Options;
use super::rng::Rng;
use crate::ids::{ReplicaId, Time};
use crate::quorum::{QuorumSystem, VoterSet};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The disks' part of a plan.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Atlas {
    /// What strikes whom and when, in order.
    pub faults: Vec<(Time, ReplicaId, DiskFault)>,
    /// Who may be lost by it.
    pub spent: Vec<ReplicaId>,
}

impl Atlas {
    /// Draws what disks do before `end`. What else may cost a replica comes after this: it has to
    /// leave both quorums among those that are not spent here ([`super::Cluster::may_lose`]).
    pub fn draw(rng: &mut Rng, options: &Options, end: Time) -> Self {
        let mut atlas = Self::default();
        let mut ids: Vec<_> = (1..=options.replicas).map(ReplicaId::new).collect();
        for _ in 0..rng.below(4) {
            let id = *rng.pick(&ids);
            atlas.passing(rng, id, end);
        }
        // Everything that costs a replica is rare enough that most runs keep all of them.
        if rng.chance(350) {
            let forgetful = rng.chance(400);
            while !ids.is_empty() {
                let id = ids.swap_remove(rng.below(ids.len() as u64) as usize);
                if !atlas.can_lose(options, id) {
                    continue;
                }
                atlas.spent.push(id);
                atlas.costly(rng, id, end, forgetful);
                if rng.chance(500) {
                    break;
                }
            }
        }
        atlas.faults.sort_by_key(|(at, ..)| *at);
        atlas
    }

    /// Whether the others still contain both quorums with this one lost too.
    fn can_lose(&self, options: &Options, id: ReplicaId) -> bool {
        let replicas = usize::from(options.replicas);
        let Ok(quorums) = QuorumSystem::new(replicas, options.quorums.clone()) else {
            return false;
        };
        let mut rest = VoterSet::EMPTY;
        for voter in 0..replicas {
            let other = ReplicaId::new(voter as u16 + 1);
            if other != id && !self.spent.contains(&other) {
                rest.insert(voter);
            }
        }
        quorums.is_prepare_quorum(rest) && quorums.is_accept_quorum(rest)
    }

    fn passing(&mut self, rng: &mut Rng, id: ReplicaId, end: Time) {
        let at = when(rng, end);
        let until = at.after(rng.duration(ms(20), ms(1500))).min(end);
        let (fault, after) = match rng.below(8) {
            0 => (DiskFault::ReadError, None),
            1 => (DiskFault::WriteError, None),
            2 => (DiskFault::SyncError, None),
            3 => (DiskFault::StrayRead, None),
            4 | 5 => (DiskFault::Full, Some(DiskFault::Space)),
            6 => (DiskFault::Hang(rng.duration(ms(50), ms(4000)).min(end.since(at))), None),
            _ => {
                let slow = DiskFault::Slow(rng.duration(ms(1), ms(100)));
                (slow, Some(DiskFault::Slow(Duration::ZERO)))
            }
        };
        self.faults.push((at, id, fault));
        self.faults.extend(after.map(|after| (until, id, after)));
    }

    fn costly(&mut self, rng: &mut Rng, id: ReplicaId, end: Time, forgetful: bool) {
        let at = when(rng, end);
        let fault = match rng.below(4) {
            0 if forgetful => DiskFault::RollBack,
            _ if forgetful => DiskFault::Lie,
            0 | 1 => DiskFault::Rot,
            2 => DiskFault::LostWrite,
            _ => DiskFault::StrayWrite,
        };
        self.faults.push((at, id, fault));
    }
}

fn when(rng: &mut Rng, end: Time) -> Time {
    Time::from_nanos(rng.between(100_000_000.min(end.nanos()), end.nanos()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use std::collections::BTreeSet;

    use super::*;
    use crate::quorum::QuorumRule;
    use crate::sim::Harm;

    #[test]
    fn a_minority_is_spent_and_every_fault_occurs() {
        let mut seen = BTreeSet::new();
        let end = Time::ZERO.after(ms(3000));
        let mut none = 0;
        for seed in 0..4000 {
            let mut rng = Rng::new(seed);
            let mut options = Options::new(seed, rng.between(1, 9) as u16);
            if rng.chance(300) {
                let accept = rng.between(1, u64::from(options.replicas)) as u16;
                let prepare = options.replicas + 1 - accept;
                options.quorums = QuorumRule::Counts { prepare, accept };
            }
            let atlas = Atlas::draw(&mut rng, &options, end);
            let quorums =
                QuorumSystem::new(usize::from(options.replicas), options.quorums.clone()).unwrap();
            let mut rest = VoterSet::first(usize::from(options.replicas));
            for id in &atlas.spent {
                let mut gone = VoterSet::EMPTY;
                gone.insert(usize::from(id.number()) - 1);
                rest = rest.without(gone);
            }
            if !atlas.spent.is_empty() {
                assert!(quorums.is_prepare_quorum(rest), "seed {seed}");
                assert!(quorums.is_accept_quorum(rest), "seed {seed}");
            }
            none += u64::from(atlas.spent.is_empty());
            let mut harms = Vec::new();
            for (at, id, fault) in &atlas.faults {
                assert!(*at <= end && (1..=options.replicas).contains(&id.number()));
                let costs = fault.harm() != Harm::Passing;
                assert!(!costs || atlas.spent.contains(id), "seed {seed}: {fault:?}");
                if costs && !harms.contains(&fault.harm()) {
                    harms.push(fault.harm());
                }
                let name = format!("{fault:?}");
                seen.insert(name.split('(').next().map(str::to_owned));
            }
            assert!(harms.len() <= 1, "seed {seed}: damage or lies");
        }
        assert_eq!(seen.len(), 13, "{seen:?}");
        assert!(none > 2000, "most runs keep all: {none}");
    }
}
