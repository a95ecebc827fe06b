//! The proposer's part: which promises a ballot rests on, and what may be proposed because of them.
//!
//! Owns campaigns: their pages, their reign, their proposals (D3, D4, P1–P8, Q1–Q3, V1, V2). May not
//! touch disks beyond reading them. Invariant: a proposal is recorded only after it was judged.

use std::collections::BTreeMap;

use super::event::{Acceptor, Ballot, Entry, Kind, Life, Report, Value};
use super::quorums::{Quorums, Set};
use super::verdict::{Invariant, Judged, Rule, require};
use super::{Monitor, Replica};

/// One attempt to lead.
#[derive(Clone, Debug)]
pub(super) struct Campaign {
    /// The life that uses the ballot.
    pub(super) life: Life,
    /// The first slot that promises were asked for.
    first: u64,
    promisers: BTreeMap<Acceptor, Promiser>,
    reign: Option<Reign>,
    pub(super) proposals: BTreeMap<u64, Proposal>,
    /// The slot whose chosen value, learned from elsewhere, is not the one that was proposed.
    overruled: Option<u64>,
}

/// A value proposed in one slot at one ballot.
#[derive(Clone, Debug)]
pub(super) struct Proposal {
    pub(super) value: Value,
    /// Whose disk holds the vote.
    pub(super) voters: Set,
    /// Whose Accepted reached the leader.
    pub(super) tally: Set,
}

/// A page that was delivered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Page {
    pub(super) event: u64,
    pub(super) committed: u64,
    pub(super) first: u64,
    pub(super) through: Option<u64>,
    /// Whether its sender's life was remembered, so that it counted at once.
    pub(super) heard: bool,
}

impl Page {
    /// The slots that the page speaks of, which end with its `through`, and begin above the
    /// promiser's prefix: below, its votes are not told.
    fn covers(&self, slot: u64) -> bool {
        slot >= self.first.max(self.committed + 1) && self.through.is_none_or(|t| slot <= t)
    }
}

/// All that one acceptor has promised to a candidate.
#[derive(Clone, Debug, Default)]
struct Promiser {
    pages: Vec<Page>,
    reports: BTreeMap<u64, Report>,
}

impl Promiser {
    /// Whether the pages cover every slot from `first` on (P1).
    fn is_complete(&self, first: u64) -> bool {
        let mut pages: Vec<(u64, Option<u64>)> =
            self.pages.iter().map(|p| (p.first, p.through)).collect();
        pages.sort_unstable_by_key(|(first, _)| *first);
        let mut next = first;
        for (first, through) in pages {
            match through {
                _ if first > next => return false,
                None => return true,
                Some(through) => next = next.max(through.saturating_add(1)),
            }
        }
        false
    }

    fn is_heard(&self) -> bool {
        self.pages.iter().all(|page| page.heard)
    }

    fn committed(&self) -> u64 {
        self.pages.iter().map(|page| page.committed).max().unwrap_or(0)
    }
}

/// The time from which a ballot's promises are fixed.
#[derive(Clone, Copy, Debug)]
struct Reign {
    /// Whose promises count.
    counted: Set,
    /// The highest committed prefix that was reported.
    base: u64,
    /// The highest slot that was named.
    named: u64,
    /// The slot up to which the leader knows all values, chosen or proposed by itself.
    knows: u64,
    /// The highest clock that it proposed, or that stands at or below `base`.
    clock: u64,
    /// The prefix up to which its proposals were held against what is chosen.
    settled: u64,
}

/// Why a proposal is safe at its ballot: what a prepare quorum said of the slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Justification {
    /// The value.
    pub value: Value,
    /// All that told of the slot, the proposer last, if it counts itself.
    pub witnesses: Vec<Witness>,
    /// The promise that dictated the value; `None` if it was free.
    pub decisive: Option<Acceptor>,
}

/// What one promise says of one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Witness {
    /// The promiser.
    pub acceptor: Acceptor,
    /// The number of the event at which the page was delivered; `None` for the candidate itself.
    pub event: Option<u64>,
    /// What it says; `None` if it never voted there.
    pub report: Option<Report>,
}

/// What one promise says of the whole log.
struct Told {
    committed: u64,
    named: u64,
}

/// What decides over a slot: the chosen value, or the vote at the highest ballot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bound {
    by: Acceptor,
    /// `None` for a value that is chosen, which nothing outranks.
    ballot: Option<Ballot>,
    value: Value,
}

impl Bound {
    /// The stronger of what was found and a further report.
    fn max(found: Option<Self>, by: Acceptor, report: Option<Report>) -> Option<Self> {
        let next = match report {
            Some(Report::Accepted { ballot, value }) => Self { by, ballot: Some(ballot), value },
            Some(Report::Chosen(value)) => Self { by, ballot: None, value },
            Some(Report::Unknown { .. }) | None => return found,
        };
        let weaker = found.is_some_and(|f| f.ballot.is_none_or(|b| Some(b) >= next.ballot));
        if next.ballot.is_some() && weaker { found } else { Some(next) }
    }
}

impl Campaign {
    fn new(life: Life, first: u64) -> Self {
        Self {
            life,
            first,
            promisers: BTreeMap::new(),
            reign: None,
            proposals: BTreeMap::new(),
            overruled: None,
        }
    }

    /// Whether a prepare quorum's whole promises are as wanted, the candidate's included. Those that
    /// certainly counted must be.
    fn whole(
        &self,
        wanted: impl Fn(&Told) -> bool,
        ballot: Ballot,
        own: &Replica,
        q: &Quorums,
    ) -> bool {
        let mut set = Set::default();
        for (acceptor, promiser) in &self.promisers {
            let named = promiser.reports.keys().last().copied().unwrap_or(0);
            let told = Told { committed: promiser.committed(), named };
            let fits = wanted(&told);
            if promiser.is_complete(self.first) && fits {
                set.insert(*acceptor);
            } else if promiser.is_complete(self.first) && promiser.is_heard() {
                return false;
            }
        }
        if self.reign.is_some_and(|reign| reign.counted.contains(ballot.leader)) {
            let committed = own.memory.committed;
            let named = own.disk.last_slot_below(ballot).max(committed);
            if !wanted(&Told { committed, named }) {
                return false;
            }
            set.insert(ballot.leader);
        }
        q.is_prepare(set)
    }

    /// What each acceptor that covers `slot` says of it, and whether all its pages counted.
    fn witnesses<'a>(
        &'a self,
        ballot: Ballot,
        slot: u64,
        own: &'a Replica,
        chosen: Option<Value>,
    ) -> impl Iterator<Item = (Witness, bool)> + 'a {
        let counted = self.reign.map_or(Set::default(), |reign| reign.counted);
        let told = self.promisers.iter().filter_map(move |(acceptor, promiser)| {
            let page = promiser.pages.iter().find(|page| page.covers(slot))?;
            let report = promiser.reports.get(&slot).copied();
            let witness = Witness { acceptor: *acceptor, event: Some(page.event), report };
            Some((witness, counted.contains(*acceptor)))
        });
        let accepted = |(ballot, value)| Report::Accepted { ballot, value };
        let voted = || own.disk.vote_below(slot, ballot).map(accepted);
        let learned = chosen.filter(|_| own.was_told(slot)).map(Report::Chosen);
        let report = learned.or_else(voted);
        let me = Witness { acceptor: ballot.leader, event: None, report };
        told.chain(counted.contains(ballot.leader).then_some((me, true)))
    }
}

impl Monitor {
    pub(super) fn left_prepare(&mut self, from: Acceptor, ballot: Ballot, first: u64) -> Judged {
        require(ballot.leader == from, Rule::Messages, Invariant::S19, || {
            format!("{from} sends a Prepare of {ballot}")
        })?;
        let replica = self.replica(from);
        let (promised, committed) = (replica.disk.promised, replica.memory.committed);
        let life = replica.life.unwrap_or(Life { directory: 0, boot: 0, start: 0 });
        require(promised >= Some(ballot), Rule::D3, Invariant::S11, || {
            format!("{from} sends a Prepare of {ballot}, its disk holds {promised:?}")
        })?;
        if let Some(campaign) = self.campaigns.get_mut(&ballot) {
            campaign.first = campaign.first.min(first);
            return require(campaign.life == life, Rule::D3, Invariant::S3, || {
                format!("{from} uses {ballot} as {life:?} after {:?}", campaign.life)
            });
        }
        require(first <= committed + 1, Rule::P1, Invariant::S8, || {
            format!("{from} asks from {first} on, its prefix is {committed}")
        })?;
        self.campaigns.insert(ballot, Campaign::new(life, first));
        Ok(())
    }

    pub(super) fn delivered_promise(
        &mut self,
        from: Acceptor,
        to: Acceptor,
        ballot: Ballot,
        page: Page,
        entries: &[Entry],
    ) {
        let life = self.replica(to).life;
        let votes = self.quorums.votes(from);
        let Some(campaign) = self.campaigns.get_mut(&ballot) else { return };
        if ballot.leader != to || Some(campaign.life) != life || campaign.reign.is_some() || !votes
        {
            return;
        }
        let first = campaign.first;
        let promiser = campaign.promisers.entry(from).or_default();
        if promiser.is_complete(first) && promiser.is_heard() {
            // It is whole: what is said again adds nothing (Q2), a longer prefix included.
            let committed = page.committed.min(promiser.committed());
            promiser.pages.push(Page { committed, ..page });
            return;
        }
        promiser.pages.push(page);
        for entry in entries {
            let report = promiser.reports.entry(entry.slot).or_insert(entry.report);
            // A later page may know what an earlier one did not.
            if matches!(entry.report, Report::Chosen(_)) {
                *report = entry.report;
            }
        }
    }

    pub(super) fn became_leader(&mut self, at: Acceptor, ballot: Ballot) -> Judged {
        require(ballot.leader == at, Rule::Messages, Invariant::S19, || {
            format!("{at} leads {ballot}")
        })?;
        let own = self.replicas.entry(at).or_default();
        let life = own.life.unwrap_or(Life { directory: 0, boot: 0, start: 0 });
        let promised = own.disk.promised;
        require(promised <= Some(ballot), Rule::P7, Invariant::S6, || {
            format!("{at} leads {ballot} and promised {promised:?}")
        })?;
        let committed = own.memory.committed;
        let fresh = Campaign::new(life, committed + 1);
        let campaign = self.campaigns.entry(ballot).or_insert(fresh);
        require(campaign.life == life, Rule::D3, Invariant::S3, || {
            format!("{at} leads {ballot} as {life:?}, {:?} campaigned", campaign.life)
        })?;
        let (mut counted, mut partial) = (Set::default(), Set::default());
        let mut base = committed;
        let learned = own.memory.known.last().copied().unwrap_or(0);
        let recorded = own.disk.chosen.keys().last().copied().unwrap_or(0);
        let mut named = own.disk.last_slot_below(ballot).max(learned).max(recorded);
        let mut repeated = false;
        for (acceptor, promiser) in &campaign.promisers {
            partial.insert(*acceptor);
            if promiser.is_complete(campaign.first) {
                counted.insert(*acceptor);
                base = base.max(promiser.committed());
                named = named.max(promiser.reports.keys().last().copied().unwrap_or(0));
                repeated |= promiser.pages.iter().filter(|p| p.through.is_none()).count() > 1;
            }
        }
        let own_votes = self.quorums.votes(at);
        if own_votes && promised == Some(ballot) {
            counted.insert(at);
        }
        let without = |set: Set| if own_votes { set.with(at) } else { set };
        let rule = if self.quorums.is_prepare(without(counted)) {
            Rule::D4
        } else if self.quorums.is_prepare(without(partial)) || !repeated {
            Rule::P1
        } else {
            Rule::Q2
        };
        require(self.quorums.is_prepare(counted), rule, Invariant::S8, || {
            format!("{at} leads {ballot} with the promises of {counted:?}, its own {promised:?}")
        })?;
        let clock = base.checked_sub(1).and_then(|i| self.clocks.get(i as usize)).copied();
        campaign.reign = Some(Reign {
            counted,
            base,
            named,
            knows: committed,
            clock: clock.unwrap_or(0),
            settled: 0,
        });
        own.memory.reigns.push(ballot);
        Ok(())
    }

    /// The messages that made a proposal safe at its ballot, if it was made.
    pub fn justification(&self, ballot: Ballot, slot: u64) -> Option<Justification> {
        let campaign = self.campaigns.get(&ballot)?;
        let value = campaign.proposals.get(&slot)?.value;
        let own = self.replicas.get(&ballot.leader)?;
        let told =
            campaign.witnesses(ballot, slot, own, self.chosen(slot)).map(|(witness, _)| witness);
        let witnesses: Vec<Witness> = told.collect();
        let bound = witnesses.iter().fold(None, |b, w| Bound::max(b, w.acceptor, w.report));
        let decisive = bound.filter(|bound| bound.value == value).map(|bound| bound.by);
        Some(Justification { value, witnesses, decisive })
    }

    /// Records a proposal; judged if it is new.
    pub(super) fn propose(&mut self, ballot: Ballot, slot: u64, value: Value) -> Judged {
        let reigns = self.campaigns.get(&ballot).and_then(|c| c.reign);
        let Some((campaign, mut reign)) = self.campaigns.get_mut(&ballot).zip(reigns) else {
            return require(false, Rule::P1, Invariant::S8, || {
                format!("{ballot} proposes in slot {slot} and does not reign")
            });
        };
        if let Some(proposal) = campaign.proposals.get(&slot) {
            let before = proposal.value;
            return require(before == value, Rule::P6, Invariant::S4, || {
                format!("{ballot} proposes {value:?} in slot {slot} after {before:?}")
            });
        }
        let own = self.replicas.entry(ballot.leader).or_default();
        let leaves = slot > reign.base || {
            // Promises that wait for the life of their sender were delivered and did not count.
            campaign.whole(|of| of.committed < slot, ballot, own, &self.quorums)
        };
        require(leaves, Rule::P3, Invariant::S8, || {
            format!("{ballot} proposes in slot {slot}, prefix {} was reported", reign.base)
        })?;
        while reign.knows < own.memory.committed
            || campaign.proposals.contains_key(&(reign.knows + 1))
            || own.was_told(reign.knows + 1)
        {
            reign.knows += 1;
        }
        // A page of a promise that is not complete does not count, but may be heeded.
        let adopted = || {
            let told = campaign.witnesses(ballot, slot, own, None);
            { told }.any(|(witness, _)| match witness.report {
                Some(Report::Accepted { value: v, .. } | Report::Chosen(v)) => v == value,
                Some(Report::Unknown { .. }) | None => false,
            })
        };
        let new = slot > reign.named && !adopted();
        if own.memory.known.contains(&slot) {
            let chosen = self.chosen.get(&slot);
            require(chosen == Some(&value), Rule::P8, Invariant::S1, || {
                format!("{ballot} proposes {value:?} in slot {slot}, knowing {chosen:?} chosen")
            })?;
        }
        self.is_safe(ballot, slot, value)?;
        self.is_valid(ballot, slot, value)?;
        if let (true, Kind::Batch { clock }) = (new, value.kind) {
            require(reign.knows + 1 >= slot, Rule::V1, Invariant::S14, || {
                format!("{ballot} stamps slot {slot} and knows values up to {}", reign.knows)
            })?;
            require(clock >= reign.clock, Rule::V1, Invariant::S14, || {
                format!("{ballot} stamps slot {slot} with {clock} after {}", reign.clock)
            })?;
        }
        if let Kind::Batch { clock } = value.kind {
            reign.clock = reign.clock.max(clock);
        }
        if let Some(campaign) = self.campaigns.get_mut(&ballot) {
            let (voters, tally) = (Set::default(), Set::default());
            campaign.proposals.insert(slot, Proposal { value, voters, tally });
            campaign.reign = Some(reign);
        }
        Ok(())
    }

    /// P2, P4 and P5: the value is the one that the promises dictate, or they leave it free.
    fn is_safe(&self, ballot: Ballot, slot: u64, value: Value) -> Judged {
        let Some((campaign, own)) =
            self.campaigns.get(&ballot).zip(self.replicas.get(&ballot.leader))
        else {
            return Ok(());
        };
        let named = campaign.reign.map_or(0, |reign| reign.named);
        let (mut covering, mut damaged) = (Set::default(), Set::default());
        let (mut bound, mut bound_of_all) = (None, None);
        for (Witness { acceptor, report, .. }, counted) in
            campaign.witnesses(ballot, slot, own, self.chosen(slot))
        {
            bound_of_all = Bound::max(bound_of_all, acceptor, report);
            if !counted {
                continue;
            }
            damaged.insert(acceptor);
            if !matches!(report, Some(Report::Unknown { .. })) {
                covering.insert(acceptor);
                bound = Bound::max(bound, acceptor, report);
            }
        }
        let rule = if self.quorums.is_prepare(damaged) { Rule::P5 } else { Rule::P1 };
        require(self.quorums.is_prepare(covering), rule, Invariant::S8, || {
            format!("{ballot} proposes in slot {slot}, of which only {covering:?} told")
        })?;
        let dictated = |bound: Option<Bound>| bound.is_some_and(|bound| bound.value == value);
        let fills = slot > named || value.kind == Kind::Noop;
        let free = bound.is_none() && fills;
        if free || dictated(bound) || dictated(bound_of_all) {
            return Ok(());
        }
        if self.is_permitted(ballot, slot, value) {
            return Ok(());
        }
        if let Some(Bound { by, ballot: highest, value: dictated }) = bound {
            return require(false, Rule::P2, Invariant::S8, || {
                format!(
                    "{ballot} proposes {value:?} in slot {slot}; {by} told {dictated:?}, {highest:?}"
                )
            });
        }
        let rule = if matches!(value.kind, Kind::Batch { .. }) { Rule::P4 } else { Rule::P2 };
        require(fills, rule, Invariant::S8, || {
            format!("{ballot} proposes {value:?} in slot {slot}, slot {named} was named")
        })
    }

    /// Whether the value is permitted without some promise that was delivered and may not have
    /// counted: it waits until the life of its sender is remembered.
    fn is_permitted(&self, ballot: Ballot, slot: u64, value: Value) -> bool {
        let Some((campaign, own)) =
            self.campaigns.get(&ballot).zip(self.replicas.get(&ballot.leader))
        else {
            return false;
        };
        let chosen = self.chosen(slot);
        let permits = |limit: Option<Ballot>| {
            let mut set = Set::default();
            for (witness, _) in campaign.witnesses(ballot, slot, own, chosen) {
                let fits = match witness.report {
                    None => true,
                    Some(Report::Accepted { ballot, .. }) => Some(ballot) <= limit,
                    Some(Report::Chosen(_) | Report::Unknown { .. }) => false,
                };
                let heard =
                    campaign.promisers.get(&witness.acceptor).is_none_or(Promiser::is_heard);
                if fits {
                    set.insert(witness.acceptor);
                } else if heard {
                    return false;
                }
            }
            self.quorums.is_prepare(set)
        };
        let named = |of: &Told| of.named < slot && of.committed < slot;
        let fresh = || campaign.whole(named, ballot, own, &self.quorums);
        if permits(None) && (value.kind == Kind::Noop || fresh()) {
            return true;
        }
        campaign.witnesses(ballot, slot, own, chosen).any(|(witness, _)| match witness.report {
            Some(Report::Accepted { ballot: limit, value: v }) => {
                v == value && permits(Some(limit))
            }
            Some(_) | None => false,
        })
    }

    /// A batch was submitted, and stands in no more slots than it was submitted for.
    fn is_valid(&mut self, ballot: Ballot, slot: u64, value: Value) -> Judged {
        if !matches!(value.kind, Kind::Batch { .. }) {
            return Ok(());
        }
        let batch = self.batches.entry(value.digest).or_default();
        require(batch.submitted > 0, Rule::Validity, Invariant::S2, || {
            format!("{ballot} proposes {value:?} in slot {slot}, which nobody submitted")
        })?;
        batch.slots.insert(slot);
        require(batch.slots.len() <= batch.submitted, Rule::V2, Invariant::S14, || {
            format!("{ballot} proposes {value:?} in slot {slot}, proposed in {:?}", batch.slots)
        })
    }

    /// What a leader may send at all under `ballot`, at this moment.
    fn may_lead(&mut self, from: Acceptor, ballot: Ballot) -> Judged {
        require(ballot.leader == from, Rule::Messages, Invariant::S19, || {
            format!("{from} speaks for {ballot}")
        })?;
        let replica = self.replica(from);
        let (promised, life) = (replica.disk.promised, replica.life);
        require(promised <= Some(ballot), Rule::P7, Invariant::S6, || {
            format!("{from} speaks for {ballot} and promised {promised:?}")
        })?;
        let Some(campaign) = self.campaigns.get(&ballot).filter(|c| c.reign.is_some()) else {
            return require(false, Rule::P1, Invariant::S8, || {
                format!("{from} speaks for {ballot} and does not reign")
            });
        };
        require(Some(campaign.life) == life, Rule::D3, Invariant::S3, || {
            format!("{from} speaks for {ballot}, which {:?} won", campaign.life)
        })?;
        require(campaign.overruled.is_none(), Rule::P8, Invariant::S13, || {
            format!("{from} speaks for {ballot}, overruled in slot {:?}", campaign.overruled)
        })
    }

    pub(super) fn left_accept(
        &mut self,
        from: Acceptor,
        ballot: Ballot,
        committed: u64,
        first: u64,
        values: &[Value],
    ) -> Judged {
        self.may_lead(from, ballot)?;
        let last = first.saturating_add(values.len() as u64).saturating_sub(1);
        let limit = self.replica(from).memory.committed.saturating_add(self.window);
        require(last <= limit, Rule::Q3, Invariant::S22, || {
            format!("{from} proposes up to slot {last}, its limit is {limit}")
        })?;
        for (slot, value) in (first..).zip(values) {
            self.propose(ballot, slot, *value)?;
        }
        self.left_watermark(from, ballot, committed)
    }

    pub(super) fn left_commit(&mut self, from: Acceptor, ballot: Ballot, committed: u64) -> Judged {
        self.may_lead(from, ballot)?;
        self.left_watermark(from, ballot, committed)
    }

    /// A leader makes way for one voter, which is another (E8). Whether it hears and follows that
    /// leader is a matter of time, and shows nowhere but in the campaign that it begins.
    pub(super) fn left_transfer(
        &mut self,
        from: Acceptor,
        to: Option<Acceptor>,
        ballot: Ballot,
        committed: u64,
    ) -> Judged {
        let heir = to.is_some_and(|to| to != from && self.quorums.votes(to));
        require(heir, Rule::E8, Invariant::S19, || format!("{from} makes way for {to:?}"))?;
        self.may_lead(from, ballot)?;
        self.left_watermark(from, ballot, committed)
    }

    /// L3 rests on this: what was proposed at the ballot, up to its watermark, is what is chosen.
    fn left_watermark(&mut self, from: Acceptor, ballot: Ballot, committed: u64) -> Judged {
        self.claims_prefix(from, committed)?;
        let Some(campaign) = self.campaigns.get_mut(&ballot) else { return Ok(()) };
        let Some(reign) = campaign.reign.as_mut().filter(|r| r.settled < committed) else {
            return Ok(());
        };
        let after = std::mem::replace(&mut reign.settled, committed) + 1;
        for (slot, proposal) in campaign.proposals.range(after..=committed) {
            let chosen = self.chosen.get(slot);
            require(chosen == Some(&proposal.value), Rule::P8, Invariant::S13, || {
                format!("{from} marks {committed} at {ballot}; slot {slot} holds {chosen:?}")
            })?;
        }
        Ok(())
    }

    /// P8: a reign ends when it learns that another value than its own was chosen.
    pub(super) fn overrule(&mut self, at: Acceptor, slot: u64, value: Value) {
        let Some(ballot) = self.replica(at).memory.reigns.last().copied() else { return };
        if let Some(campaign) = self.campaigns.get_mut(&ballot) {
            let other = campaign.proposals.get(&slot).is_some_and(|p| p.value != value);
            if other {
                campaign.overruled = Some(slot);
            }
        }
    }
}
