//! The links between hosts: who believes itself linked with which life of whom.
//!
//! Owns: [`Links`], and when links come up and fall. Carries nothing.
//! Invariants: a link comes up at both ends at once, when both processes run and neither way is cut;
//! it falls at each end by itself, some time after it broke; a process that starts has no link.

use core::time::Duration;

use super::cluster::{Cluster, Due};
use super::host::Stimulus;
use crate::ids::{Incarnation, ReplicaId};

/// How often a link that is possible is not made yet, of a thousand looks.
const NOT_YET: u32 = 500;
/// How often an end notices that its link is broken, of a thousand looks.
const NOTICED: u32 = 300;
/// How often a link falls for no reason while there are faults, of a thousand looks.
const RESET: u32 = 4;

/// What each end believes.
#[derive(Debug)]
pub(super) struct Links {
    /// A row for each end: the life of each peer that it is linked with.
    ends: Vec<Vec<Option<Incarnation>>>,
}

const fn place(id: ReplicaId) -> usize {
    id.number() as usize - 1
}

impl Links {
    pub(super) fn new(replicas: usize) -> Self {
        Self { ends: vec![vec![None; replicas]; replicas] }
    }

    /// A process ended, and its links with it; the peers do not know yet.
    pub(super) fn forget(&mut self, id: ReplicaId) {
        self.ends[place(id)].fill(None);
    }

    fn end(&mut self, at: ReplicaId, peer: ReplicaId) -> &mut Option<Incarnation> {
        &mut self.ends[place(at)][place(peer)]
    }
}

impl Cluster {
    /// Looks at every pair, and again after a while.
    pub(super) fn tend_links(&mut self) {
        let ids: Vec<_> = self.ids().collect();
        for one in &ids {
            for other in ids.iter().filter(|other| *other > one) {
                self.tend_link(*one, *other);
            }
        }
        let interval = self.options.config.heartbeat_interval / 2;
        let pause = interval.max(Duration::from_millis(1));
        self.queue(self.now.after(pause), Due::Links);
    }

    fn tend_link(&mut self, one: ReplicaId, other: ReplicaId) {
        let life = |id| self.status(id).map(|status| status.incarnation);
        let lives = (life(one), life(other));
        let now = self.now;
        let is_cut =
            self.network.is_blocked(one, other, now) || self.network.is_blocked(other, one, now);
        let is_whole = |links: &mut Links| {
            (*links.end(other, one), *links.end(one, other)) == lives && lives.0.is_some()
        };
        if is_whole(&mut self.links) && !is_cut {
            if self.under_faults && self.rng.chance(RESET) {
                self.set_link(one, other, None);
                self.set_link(other, one, None);
            }
            return;
        }
        if let (Some(life), Some(other_life), false) = (lives.0, lives.1, is_cut) {
            if !self.under_faults || !self.rng.chance(NOT_YET) {
                self.set_link(one, other, Some(other_life));
                self.set_link(other, one, Some(life));
            }
            return;
        }
        for (at, peer) in [(one, other), (other, one)] {
            if self.links.end(at, peer).is_some() && self.rng.chance(NOTICED) {
                self.set_link(at, peer, None);
            }
        }
    }

    fn set_link(&mut self, at: ReplicaId, peer: ReplicaId, life: Option<Incarnation>) {
        *self.links.end(at, peer) = life;
        let process = self.node(at).life;
        self.queue(self.now, Due::Link(at, process, peer));
    }

    /// Tells a host of its link. One that stood still meanwhile is told how it is, not how it was:
    /// what was put off may come out of order.
    pub(super) fn tell_link(&mut self, at: ReplicaId, peer: ReplicaId) {
        let stimulus = match *self.links.end(at, peer) {
            Some(life) => Stimulus::Up(peer, life),
            None => Stimulus::Down(peer),
        };
        self.turn(at, stimulus);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_ended_has_no_link_and_its_peers_still_believe_in_theirs() {
        let (one, other) = (ReplicaId::new(1), ReplicaId::new(2));
        let mut links = Links::new(2);
        *links.end(one, other) = Some(Incarnation::new(1, 1));
        *links.end(other, one) = Some(Incarnation::new(1, 2));
        links.forget(one);
        assert_eq!(*links.end(one, other), None);
        assert_eq!(*links.end(other, one), Some(Incarnation::new(1, 2)));
    }
}
