//! The acceptor's part: what is on its disk, and what it may say because of that.
//!
//! Owns the judgement of starts, of durable facts and of the messages that rest on them (D1, D2, D5,
//! A1–A6, §11). May not touch what a candidate makes of a promise. Invariant: a fact is added only
//! after it was judged.

use super::event::{Acceptor, Ballot, Entry, Life, Recovered, Report, Value};
use super::verdict::{Invariant, Judged, Rule, require};
use super::{Disk, Memory, Monitor, Replica};

impl Disk {
    /// The last vote in `slot` below `ballot`.
    pub(super) fn vote_below(&self, slot: u64, ballot: Ballot) -> Option<(Ballot, Value)> {
        self.votes
            .range((slot, Ballot::MIN)..(slot, ballot))
            .next_back()
            .map(|(&(_, ballot), &value)| (ballot, value))
    }

    /// Whether the value of `slot` can be read back.
    pub(super) fn holds(&self, slot: u64, value: Value) -> bool {
        let all = (slot, Ballot::MIN)..=(slot, Ballot::MAX);
        self.chosen.contains_key(&slot) || self.votes.range(all).any(|(_, voted)| *voted == value)
    }

    /// The highest slot with a vote below `ballot`.
    pub(super) fn last_slot_below(&self, ballot: Ballot) -> u64 {
        self.votes.keys().rev().find(|(_, b)| *b < ballot).map_or(0, |(slot, _)| *slot)
    }
}

impl Replica {
    /// Takes in that values for `count` slots from `first` on were proposed to it.
    pub(super) fn heard(&mut self, ballot: Ballot, first: u64, count: u64) {
        if self.disk.promised > Some(ballot) {
            return;
        }
        for slot in (first..first + count).filter(|slot| *slot > self.memory.committed) {
            self.memory.heard.insert((slot, ballot));
        }
    }
}

impl Monitor {
    pub(super) fn started(
        &mut self,
        at: Acceptor,
        life: Life,
        recovered: &Recovered<'_>,
    ) -> Judged {
        let prefix = self.chosen_prefix();
        let replica = self.replica(at);
        require(replica.life.is_none(), Rule::Lives, Invariant::S19, || {
            format!("{at} starts as {life:?} while it runs")
        })?;
        replica.life = Some(life);
        let Recovered { promised, committed, entries, lives, applied } = *recovered;
        require(committed.max(applied) <= prefix, Rule::L2, Invariant::S13, || {
            format!("{at} recovers prefix {committed}, applied {applied}, of {prefix} chosen")
        })?;
        if let Some(newest) = replica.newest {
            if replica.replaced || newest.directory != life.directory {
                // An older copy, or another directory: what it says of the past is true or nothing.
                let committed = committed.max(applied);
                replica.memory = Memory { committed, applied, ..Memory::default() };
                return Ok(());
            }
            require(life.succeeds(newest), Rule::Lives, Invariant::S19, || {
                format!("{at} starts as {life:?} after {newest:?}")
            })?;
        }
        replica.newest = Some(life);
        let disk = &replica.disk;
        require(promised >= disk.promised, Rule::A1, Invariant::S5, || {
            format!("{at} promised {:?} and recovers {promised:?}", disk.promised)
        })?;
        require(committed >= disk.committed, Rule::L2, Invariant::S13, || {
            format!("{at} recorded prefix {} and recovers {committed}", disk.committed)
        })?;
        for (peer, remembered) in &disk.lives {
            let found = lives.iter().find(|(p, _)| p == peer).map(|(_, life)| *life);
            let held = found.is_some_and(|l| l == *remembered || l.succeeds(*remembered));
            require(held, Rule::D5, Invariant::S19, || {
                format!("{at} remembered {remembered:?} of {peer} and recovers {found:?}")
            })?;
        }
        // What a snapshot includes needs no votes.
        let settled = committed.max(self.replica(at).disk.snapshot);
        self.votes_survived(at, settled, entries)?;
        self.take_over(at, recovered)
    }

    /// Every vote above the recorded prefix is found again, or a higher one in its slot.
    fn votes_survived(&mut self, at: Acceptor, committed: u64, entries: &[Entry]) -> Judged {
        for (&(slot, ballot), value) in
            self.replica(at).disk.votes.range((committed + 1, Ballot::MIN)..)
        {
            let found = entries.binary_search_by_key(&slot, |e| e.slot).ok().map(|i| entries[i]);
            let held = match found.map(|entry| entry.report) {
                Some(Report::Accepted { ballot: b, value: v }) => {
                    b > ballot || b == ballot && v == *value
                }
                Some(Report::Chosen(_)) => true,
                Some(Report::Unknown { up_to }) => up_to >= ballot,
                None => false,
            };
            require(held, Rule::D2, Invariant::S7, || {
                format!("{at} voted in slot {slot} at {ballot} and recovers {found:?}")
            })?;
        }
        Ok(())
    }

    /// What was read back is durable from here on: it survived, attested or not.
    fn take_over(&mut self, at: Acceptor, recovered: &Recovered<'_>) -> Judged {
        for entry in recovered.entries {
            match entry.report {
                Report::Accepted { ballot, value } => {
                    let old = self.replica(at).disk.votes.contains_key(&(entry.slot, ballot));
                    if old {
                        continue;
                    }
                    let asked = self.replica(at).memory.heard.contains(&(entry.slot, ballot));
                    require(asked || ballot.leader == at, Rule::A2, Invariant::S8, || {
                        format!("{at} recovers a vote in slot {} at {ballot}", entry.slot)
                    })?;
                    self.count_vote(at, entry.slot, ballot, value)?;
                }
                Report::Chosen(value) => {
                    self.is_chosen(at, entry.slot, value)?;
                    self.replica(at).disk.chosen.insert(entry.slot, value);
                }
                Report::Unknown { .. } => {}
            }
        }
        let replica = self.replica(at);
        replica.disk.promised = replica.disk.promised.max(recovered.promised);
        replica.disk.committed = recovered.committed;
        replica.disk.lives.extend(recovered.lives.iter().copied());
        replica.memory = Memory {
            // What a state machine or a snapshot holds was committed, whether or not that was
            // recorded.
            committed: recovered.committed.max(recovered.applied).max(replica.disk.snapshot),
            applied: recovered.applied,
            ..Memory::default()
        };
        Ok(())
    }

    pub(super) fn promise_durable(&mut self, at: Acceptor, ballot: Ballot) -> Judged {
        let replica = self.replica(at);
        if !replica.is_voter() {
            return Ok(());
        }
        let promised = replica.disk.promised;
        require(promised <= Some(ballot), Rule::A1, Invariant::S5, || {
            format!("{at} promised {promised:?} and writes a promise of {ballot}")
        })?;
        replica.disk.promised = Some(ballot);
        Ok(())
    }

    pub(super) fn vote_durable(
        &mut self,
        at: Acceptor,
        slot: u64,
        ballot: Ballot,
        value: Value,
    ) -> Judged {
        let window = self.window;
        let replica = self.replica(at);
        if !replica.is_voter() {
            return Ok(());
        }
        let promised = replica.disk.promised;
        require(promised <= Some(ballot), Rule::A2, Invariant::S6, || {
            format!("{at} promised {promised:?} and votes in slot {slot} at {ballot}")
        })?;
        if let Some(held) = replica.disk.votes.get(&(slot, ballot)) {
            return require(*held == value, Rule::A3, Invariant::S4, || {
                format!("{at} votes in slot {slot} at {ballot} for {value:?} after {held:?}")
            });
        }
        if ballot.leader != at {
            let committed = replica.memory.committed;
            let asked = replica.memory.heard.contains(&(slot, ballot));
            require(asked || slot > committed, Rule::A5, Invariant::S13, || {
                format!("{at} has committed {committed} and votes in slot {slot} at {ballot}")
            })?;
            require(asked, Rule::A2, Invariant::S8, || {
                format!("{at} votes in slot {slot} at {ballot} unasked")
            })?;
        }
        for (name, prefix) in
            [("known", replica.memory.committed), ("recorded", replica.disk.committed)]
        {
            let near = slot <= prefix.saturating_add(window.saturating_mul(2));
            require(near, Rule::A6, Invariant::S22, || {
                format!("{at} votes in slot {slot}, its {name} prefix is {prefix}")
            })?;
        }
        self.count_vote(at, slot, ballot, value)
    }

    /// Adds a durable vote, which may choose the value.
    fn count_vote(&mut self, at: Acceptor, slot: u64, ballot: Ballot, value: Value) -> Judged {
        if ballot.leader == at {
            self.propose(ballot, slot, value)?;
        }
        let proposal = self.campaigns.get_mut(&ballot).and_then(|c| c.proposals.get_mut(&slot));
        let proposed = proposal.as_ref().map(|proposal| proposal.value);
        require(proposed.is_some(), Rule::A2, Invariant::S8, || {
            format!("{at} votes in slot {slot} at {ballot}, where nothing was proposed")
        })?;
        require(proposed == Some(value), Rule::A3, Invariant::S4, || {
            format!("{at} votes in slot {slot} at {ballot} for {value:?}, not {proposed:?}")
        })?;
        let mut chosen = false;
        if let Some(proposal) = proposal.filter(|_| self.quorums.votes(at)) {
            proposal.voters.insert(at);
            chosen = self.quorums.is_accept(proposal.voters);
        }
        let disk = &mut self.replica(at).disk;
        disk.votes.insert((slot, ballot), value);
        disk.promised = disk.promised.max(Some(ballot));
        if chosen {
            let first = *self.chosen.entry(slot).or_insert(value);
            require(first == value, Rule::Agreement, Invariant::S1, || {
                format!("slot {slot} is chosen as {first:?}, and at {ballot} as {value:?}")
            })?;
            self.extend_prefix();
        }
        Ok(())
    }

    pub(super) fn life_durable(&mut self, at: Acceptor, peer: Acceptor, life: Life) -> Judged {
        let replica = self.replica(at);
        if !replica.is_voter() {
            return Ok(());
        }
        let before = replica.disk.lives.insert(peer, life);
        let newer = before.is_none_or(|before| life == before || life.succeeds(before));
        require(newer, Rule::Lives, Invariant::S19, || {
            format!("{at} remembered {before:?} of {peer} and takes {life:?}")
        })
    }

    /// D5: an answer to the candidate or leader of `ballot` rests on its life being remembered.
    fn remembers(&mut self, at: Acceptor, to: Option<Acceptor>, ballot: Ballot) -> Judged {
        let leader = ballot.leader;
        require(to == Some(leader), Rule::Messages, Invariant::S19, || {
            format!("{at} answers {to:?} for {ballot}")
        })?;
        let asker = self.campaigns.get(&ballot).map(|campaign| campaign.life);
        let remembered = self.replica(at).disk.lives.get(&leader).copied();
        let held = match (asker, remembered) {
            (Some(asker), Some(held)) => held == asker || held.succeeds(asker),
            (None, _) | (_, None) => false,
        };
        require(held, Rule::D5, Invariant::S11, || {
            format!("{at} answers {asker:?} of {leader}, its disk remembers {remembered:?}")
        })
    }

    pub(super) fn left_promise(
        &mut self,
        from: Acceptor,
        to: Option<Acceptor>,
        ballot: Ballot,
        committed: u64,
    ) -> Judged {
        let replica = self.replica(from);
        let promised = replica.disk.promised;
        require(promised >= Some(ballot), Rule::D1, Invariant::S11, || {
            format!("{from} tells a promise of {ballot}, its disk holds {promised:?}")
        })?;
        require(replica.memory.asked.contains(&ballot), Rule::A1, Invariant::S3, || {
            format!("{from} promises {ballot}, which nobody asked of it")
        })?;
        self.remembers(from, to, ballot)?;
        self.claims_prefix(from, committed)
    }

    /// A page says all about its slots, and nothing that is not durable.
    pub(super) fn page_is_complete(
        &mut self,
        from: Acceptor,
        ballot: Ballot,
        after: u64,
        through: Option<u64>,
        entries: &[Entry],
    ) -> Judged {
        let through = through.unwrap_or(u64::MAX);
        for entry in entries {
            if let Report::Chosen(value) = entry.report {
                self.is_chosen(from, entry.slot, value)?;
            }
        }
        let disk = &self.replica(from).disk;
        for entry in entries {
            if let Report::Accepted { ballot: b, value } = entry.report {
                let held = disk.votes.get(&(entry.slot, b));
                require(held == Some(&value), Rule::D1, Invariant::S11, || {
                    format!("{from} names a vote in slot {} at {b}, not durable", entry.slot)
                })?;
            }
        }
        if after >= through {
            return Ok(());
        }
        for &(slot, b) in
            disk.votes.range((after + 1, Ballot::MIN)..=(through, Ballot::MAX)).map(|(k, _)| k)
        {
            if b >= ballot {
                continue;
            }
            let named = entries.binary_search_by_key(&slot, |e| e.slot).ok().map(|i| entries[i]);
            let told = match named.map(|entry| entry.report) {
                Some(Report::Accepted { ballot: named, .. }) => named >= b,
                Some(Report::Unknown { up_to }) => up_to >= b,
                Some(Report::Chosen(_)) => true,
                None => false,
            };
            require(told, Rule::A4, Invariant::S8, || {
                format!("{from} voted in slot {slot} at {b} and tells {named:?} to {ballot}")
            })?;
        }
        Ok(())
    }

    pub(super) fn left_accepted(
        &mut self,
        from: Acceptor,
        to: Option<Acceptor>,
        ballot: Ballot,
        first: u64,
        last: u64,
    ) -> Judged {
        let disk = &self.replica(from).disk;
        for slot in first..=last {
            require(disk.votes.contains_key(&(slot, ballot)), Rule::D2, Invariant::S11, || {
                format!("{from} tells a vote in slot {slot} at {ballot}, not durable")
            })?;
        }
        self.remembers(from, to, ballot)
    }
}
