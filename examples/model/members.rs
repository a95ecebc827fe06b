//! The memberships of the small worlds, and which of them governs a slot, worked out here once more.
//!
//! Owns: [`Votes`], a membership in short; [`Spans`], who governs from which slot on by rule M1 alone.
//! Asks nothing of the code that is judged: neither who governs nor what a quorum is.
//! Source: protocol.md §4.

use paxos_core::ids::{Epoch, ReplicaId, Slot};
use paxos_core::membership::{Change, Member, Membership};
use paxos_core::quorum::QuorumRule;

use crate::scope::REPLICAS;

/// Who votes, who observes, and by how many.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Votes {
    pub(crate) voters: &'static [u16],
    pub(crate) observers: &'static [u16],
    /// So many promises, and so many acceptances, are a quorum.
    pub(crate) prepare: u16,
    pub(crate) accept: u16,
}

/// A change that a client may ask for, of the membership of this epoch into these votes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    pub(crate) epoch: u32,
    pub(crate) into: Votes,
}

fn members(ids: &[u16]) -> Vec<Member> {
    ids.iter().map(|id| Member::new(ReplicaId::new(*id))).collect()
}

impl Votes {
    fn rule(self) -> QuorumRule {
        QuorumRule::Counts { prepare: self.prepare, accept: self.accept }
    }

    /// These votes as a first membership.
    pub(crate) fn first(self, window: u32) -> Membership {
        let (voters, observers) = (members(self.voters), members(self.observers));
        let first = Membership::new(Epoch::FIRST, voters, observers, self.rule(), window);
        first.expect("a scope names memberships that are some")
    }

    /// The change of any membership into these votes.
    pub(crate) fn change(self) -> Change {
        let (voters, observers) = (members(self.voters), members(self.observers));
        Change::Set { voters, observers, rule: self.rule() }
    }
}

/// Every membership that anybody may propose: what the wishes make of the first, and of one another.
pub(crate) fn reachable(first: &Membership, wishes: &[Wish]) -> Vec<Membership> {
    let mut known = vec![first.clone()];
    let mut next = 0;
    while let Some(from) = known.get(next).cloned() {
        let wishes = wishes.iter().filter(|wish| wish.epoch == from.epoch().number());
        let made = wishes.map(|wish| from.changed(wish.into.change()));
        known.extend(made.map(|made| made.expect("a scope names changes that can be made")));
        next += 1;
    }
    known
}

/// Whether so many of the voters of this membership, told by their places in the world, accept or hold.
pub(crate) fn accepts(membership: &Membership, holds: impl Fn(usize) -> bool) -> bool {
    let QuorumRule::Counts { accept, .. } = membership.quorums().rule() else {
        unreachable!("these worlds count");
    };
    let places = membership.voters().iter().map(|voter| usize::from(voter.id.number()) - 1);
    let holding = places.filter(|place| *place < REPLICAS && holds(*place)).count();
    holding >= usize::from(*accept)
}

/// Who governs from which slot on, and up to where the log tells.
#[derive(Debug)]
pub(crate) struct Spans {
    spans: Vec<(Slot, Membership)>,
    through: Slot,
}

impl Spans {
    pub(crate) fn new(first: &Membership) -> Self {
        let through = Slot::ZERO.plus(u64::from(first.window()));
        Self { spans: vec![(Slot::FIRST, first.clone())], through }
    }

    /// The next slot whose value says more.
    pub(crate) fn next(&self) -> Slot {
        let (_, newest) = self.newest();
        Slot::new(self.through.number() - u64::from(newest.window())).next()
    }

    /// What is chosen in [`Spans::next`]: a membership, or something else.
    pub(crate) fn take(&mut self, chosen: Option<&Membership>) {
        let (slot, end) = (self.next(), self.through.next());
        self.through = end;
        let (from, newest) = self.newest();
        let follows = |next: &&Membership| next.epoch() == newest.epoch().next() && slot >= *from;
        if let Some(next) = chosen.filter(follows).cloned() {
            self.spans.push((end, next));
        }
    }

    /// Who governs this slot; nothing if nobody can know that yet.
    pub(crate) fn governing(&self, slot: Slot) -> Option<&Membership> {
        if slot > self.through {
            return None;
        }
        let span = self.spans.iter().rev().find(|(from, _)| *from <= slot);
        span.map(|(_, membership)| membership)
    }

    /// The membership of this epoch, and the first slot that it governs.
    pub(crate) fn of_epoch(&self, epoch: Epoch) -> Option<&(Slot, Membership)> {
        self.spans.iter().find(|(_, membership)| membership.epoch() == epoch)
    }

    fn newest(&self) -> &(Slot, Membership) {
        self.spans.last().expect("the first membership governs until another does")
    }
}
