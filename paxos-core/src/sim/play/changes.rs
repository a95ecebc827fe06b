//! The command of a script that changes the membership.

use core::fmt::Write as _;

use super::Player;
use crate::ids::ReplicaId;
use crate::membership::{Change, Member};
use crate::quorum::QuorumRule;

fn member(id: ReplicaId) -> Member {
    Member::new(id)
}

impl Player {
    /// Asks a replica to add a voter or an observer, to remove or replace a member, or to put a set of
    /// voters in the place of those that vote.
    pub(super) fn change(&mut self, words: &[&str], out: &mut String) -> Result<(), String> {
        let usage = "change 1 add 4, observe 4, remove 2, replace 2 4, set 1 4 5";
        let [at, what, whom @ ..] = words else { return Err(usage.to_owned()) };
        let (at, ids) = (self.id(at)?, self.ids(whom)?);
        let change = match (*what, &ids[..]) {
            ("add", [id]) => Change::AddVoter(member(*id)),
            ("observe", [id]) => Change::AddObserver(member(*id)),
            ("remove", [id]) => Change::Remove(*id),
            ("replace", [old, new]) => Change::Replace { old: *old, new: member(*new) },
            ("set", [_, ..]) => Change::Set {
                voters: ids.iter().copied().map(member).collect(),
                observers: Vec::new(),
                rule: QuorumRule::Majority,
            },
            _ => return Err(usage.to_owned()),
        };
        let answer = self.cluster()?.change(at, change);
        let answer = answer.ok_or_else(|| format!("r{} does not answer", at.number()))?;
        let at = at.number();
        let _ = match answer {
            Ok(proposed) => {
                writeln!(out, "r{at} proposes a change in {}", proposed.slot.number())
            }
            Err(error) => writeln!(out, "r{at} changes nothing: {error}"),
        };
        Ok(())
    }
}
