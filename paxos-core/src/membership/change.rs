//! What may be changed in a membership, and what it is then.
//!
//! Owns: [`Change`], and the membership that each gives. Knows no log, no leader and no time: whether a
//! change may be proposed is for the replica to say.
//! Invariants: epochs rise by one; window and leases stay; a new voter observes first, and is promoted.
//! Source: protocol.md §4, M4 and M9.

use core::fmt;

use super::{Joining, Member, Membership, MembershipError};
use crate::ids::ReplicaId;
use crate::quorum::QuorumRule;

/// A change of the membership. One is open at a time.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Change {
    /// This replica is to vote. If it is not a member yet it observes from here on; the leader makes
    /// it a voter, by a second change, once it has caught up.
    AddVoter(Member),
    /// This replica observes: it receives everything and votes on nothing.
    AddObserver(Member),
    /// This replica is a member no longer, whether it votes or observes.
    Remove(ReplicaId),
    /// A new replica is to vote in the place of an old one, once it has caught up.
    Replace {
        /// The voter that leaves then.
        old: ReplicaId,
        /// The one that takes its place. It observes until then.
        new: Member,
    },
    /// A member has other addresses and keys.
    Addresses(Member),
    /// The same voters have other quorums. Places in the rule are those of [`Membership::voters`].
    Quorums(QuorumRule),
    /// These members, whoever they were before, in one step. Who votes must have been a member, and
    /// have caught up.
    Set {
        /// Those who vote.
        voters: Vec<Member>,
        /// Those who observe.
        observers: Vec<Member>,
        /// Their quorums, by the places of `voters`.
        rule: QuorumRule,
    },
}

/// Why a change gives no membership.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ChangeError {
    /// No member has this id.
    Unknown(ReplicaId),
    /// The replica is what the change would make it.
    Already(ReplicaId),
    /// Nobody would vote any more.
    LastVoter(ReplicaId),
    /// What it gives is no membership, or would be none once the new voter has caught up.
    Membership(MembershipError),
}

impl fmt::Display for ChangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(id) => write!(f, "{id} is not a member"),
            Self::Already(id) => write!(f, "{id} is that already"),
            Self::LastVoter(id) => write!(f, "{id} is the last voter"),
            Self::Membership(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ChangeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Membership(error) => Some(error),
            Self::Unknown(_) | Self::Already(_) | Self::LastVoter(_) => None,
        }
    }
}

impl From<MembershipError> for ChangeError {
    fn from(error: MembershipError) -> Self {
        Self::Membership(error)
    }
}

impl Membership {
    /// The membership that this change makes of this one, with the next epoch.
    pub fn changed(&self, change: Change) -> Result<Self, ChangeError> {
        let next = self.changed_alone(change)?;
        // Whoever joins has to be able to: nobody would wait for it to end otherwise.
        let mut later = next.clone();
        while let Some(joining) = later.joining.first().copied() {
            later = later.promoted(joining)?;
        }
        Ok(next)
    }

    fn changed_alone(&self, change: Change) -> Result<Self, ChangeError> {
        let rule = self.quorums.rule().clone();
        let (voters, observers) = (self.voters.clone(), self.observers.clone());
        match change {
            Change::AddVoter(member) => self.joined(member, None),
            Change::Replace { old, new } => {
                if self.voter_index(old).is_none() {
                    return Err(ChangeError::Unknown(old));
                }
                self.joined(new, Some(old))
            }
            Change::AddObserver(member) => {
                if self.contains(member.id) {
                    return Err(ChangeError::Already(member.id));
                }
                let observers = observers.into_iter().chain([member]).collect();
                self.following(voters, observers, rule)
            }
            Change::Remove(id) => {
                if !self.contains(id) {
                    return Err(ChangeError::Unknown(id));
                }
                if self.voters.len() == 1 && self.voters[0].id == id {
                    return Err(ChangeError::LastVoter(id));
                }
                let without = |members: Vec<Member>| {
                    members.into_iter().filter(|member| member.id != id).collect()
                };
                self.following(without(voters), without(observers), rule)
            }
            Change::Addresses(member) => {
                if !self.contains(member.id) {
                    return Err(ChangeError::Unknown(member.id));
                }
                let with = |mut members: Vec<Member>| {
                    if let Some(known) = members.iter_mut().find(|known| known.id == member.id) {
                        *known = member.clone();
                    }
                    members
                };
                self.following(with(voters), with(observers), rule)
            }
            Change::Quorums(rule) => self.following(voters, observers, rule),
            Change::Set { voters, observers, rule } => self.following(voters, observers, rule),
        }
    }

    /// The membership in which this observer votes, in the place of the one that it replaces if that
    /// one still votes.
    pub fn promoted(&self, joining: Joining) -> Result<Self, ChangeError> {
        let Some(member) = self.observers.iter().find(|member| member.id == joining.id) else {
            return Err(ChangeError::Unknown(joining.id));
        };
        let mut voters = self.voters.clone();
        match joining.replaces.and_then(|old| self.voter_index(old)) {
            Some(place) => voters[place] = member.clone(),
            None => voters.push(member.clone()),
        }
        let observers = self.observers.iter().filter(|other| other.id != joining.id).cloned();
        self.following(voters, observers.collect(), self.quorums.rule().clone())
    }

    /// A member that is to vote, and observes until it has caught up.
    fn joined(&self, member: Member, replaces: Option<ReplicaId>) -> Result<Self, ChangeError> {
        let joining = Joining { id: member.id, replaces };
        if self.voter_index(member.id).is_some() || self.joining.contains(&joining) {
            return Err(ChangeError::Already(member.id));
        }
        let mut observers = self.observers.clone();
        observers.retain(|other| other.id != member.id);
        observers.push(member);
        let rule = self.quorums.rule().clone();
        let next = self.following(self.voters.clone(), observers, rule)?;
        let others = self.joining.iter().copied().filter(|other| other.id != joining.id);
        Ok(next.with_joining(others.chain([joining])))
    }

    fn following(
        &self,
        voters: Vec<Member>,
        observers: Vec<Member>,
        rule: QuorumRule,
    ) -> Result<Self, ChangeError> {
        let next = Self::new(self.epoch.next(), voters, observers, rule, self.window)?;
        let next = next.with_joining(self.joining.iter().copied());
        Ok(Self { lease: self.lease, ..next })
    }
}
