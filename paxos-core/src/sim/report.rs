//! What a run, or many, saw: proof that the faults were there.
//!
//! Owns: [`Totals`]. A simulation that never lost a message has shown nothing, so a total that must
//! not be zero has a name and is looked at.

use core::fmt;
use std::collections::BTreeMap;

use super::fault::FaultKind;
use super::kind::Kind;
use super::marks::{Mark, Marks};
use crate::output::Counters;

/// With so many seeds every mark must have been met.
const SEEDS_OF_MARKS: u64 = 20_000;

/// Counts of many runs.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Totals {
    /// Seeds run.
    pub seeds: u64,
    /// Events of all of them.
    pub events: u64,
    /// Commands made by clients.
    pub commands: u64,
    /// Commands proposed before the faults ended.
    pub commands_under_faults: u64,
    /// Commands known to be in the log.
    pub committed: u64,
    /// Commands known not to be.
    pub rejected: u64,
    /// Commands of which the client was never told.
    pub unknown: u64,
    /// Elections won.
    pub elections: u64,
    /// Processes that lost their power.
    pub crashes: u64,
    /// Processes that stood still for a while.
    pub pauses: u64,
    /// Cuts of the network.
    pub partitions: u64,
    /// Crashes that lost writes which were not proved.
    pub torn_tails: u64,
    /// Values that a new leader adopted.
    pub values_adopted: u64,
    /// Slots that a new leader filled with no-ops.
    pub gaps_filled: u64,
    /// Accepts sent again.
    pub retransmissions: u64,
    /// Proposals that a peer was not sent at once.
    pub held_back: u64,
    /// Values learned by Fetch.
    pub values_fetched: u64,
    /// Reads of the log.
    pub loads: u64,
    /// Reads that a bare leader took, those whose point it named, and those that it gave up.
    pub reads: u64,
    /// See [`Totals::reads`].
    pub reads_ready: u64,
    /// See [`Totals::reads`].
    pub reads_lost: u64,
    /// Quorum reads that a bare replica took, those whose point it named, and those that it gave up.
    pub quorum_reads: u64,
    /// See [`Totals::quorum_reads`].
    pub quorum_reads_ready: u64,
    /// See [`Totals::quorum_reads`].
    pub quorum_reads_lost: u64,
    /// Trims of a log.
    pub trims: u64,
    /// Snapshots that became durable.
    pub snapshots: u64,
    /// Starts from an older snapshot than the newest one that had become durable.
    pub older_snapshots: u64,
    /// Snapshots that took the place of a part of a log.
    pub installs: u64,
    /// Changes of the membership that leaders proposed on request, and replicas that stopped as
    /// members no longer.
    pub changes: u64,
    /// See [`Totals::changes`].
    pub removals: u64,
    /// Blows that waited for their moment and struck.
    pub ambushes_sprung: u64,
    /// Directories taken away.
    pub wipes: u64,
    /// Replicas that stopped because a peer remembers another life of them.
    pub refusals: u64,
    /// Faults that happened, by kind.
    pub faults: [u64; FaultKind::ALL.len()],
    /// Faults ordered for disks.
    pub disk_faults: u64,
    /// Processes that a failure of their storage stopped, or kept from starting.
    pub storage_failures: u64,
    /// Those of them that are final.
    pub damage_named: u64,
    /// Replicas left off because their disk had lied.
    pub left_off: u64,
    /// Whole nodes ran, some of whose doings cannot be seen from outside.
    pub of_hosts: bool,
    /// The rarer things, which a long run must have met.
    pub marks: Marks,
    /// How requests to whole nodes ended, by name; empty for bare replicas.
    pub endings: BTreeMap<&'static str, u64>,
    /// What else whole nodes met, by name; empty for bare replicas.
    pub met: BTreeMap<&'static str, u64>,
    /// Messages delivered.
    pub delivered: u64,
    /// Messages lost, by kind.
    pub lost: [u64; Kind::ALL.len()],
    /// Messages delivered twice, by kind.
    pub repeated: [u64; Kind::ALL.len()],
}

impl Totals {
    /// Adds what a life of a replica counted.
    pub(crate) fn count(&mut self, counters: &Counters) {
        self.elections += counters.elections_won;
        self.values_adopted += counters.values_adopted;
        self.gaps_filled += counters.gaps_filled;
        self.retransmissions += counters.retransmissions;
        self.held_back += counters.proposals_held_back;
        self.values_fetched += counters.values_fetched;
    }

    /// Adds the counts of other runs.
    pub fn add(&mut self, other: &Self) {
        self.seeds += other.seeds;
        self.events += other.events;
        self.of_hosts |= other.of_hosts;
        self.marks.add(&other.marks);
        self.commands += other.commands;
        self.commands_under_faults += other.commands_under_faults;
        self.committed += other.committed;
        self.rejected += other.rejected;
        self.unknown += other.unknown;
        self.elections += other.elections;
        self.crashes += other.crashes;
        self.pauses += other.pauses;
        self.partitions += other.partitions;
        self.torn_tails += other.torn_tails;
        self.values_adopted += other.values_adopted;
        self.gaps_filled += other.gaps_filled;
        self.retransmissions += other.retransmissions;
        self.held_back += other.held_back;
        self.values_fetched += other.values_fetched;
        self.loads += other.loads;
        self.reads += other.reads;
        self.reads_ready += other.reads_ready;
        self.reads_lost += other.reads_lost;
        self.quorum_reads += other.quorum_reads;
        self.quorum_reads_ready += other.quorum_reads_ready;
        self.quorum_reads_lost += other.quorum_reads_lost;
        self.trims += other.trims;
        self.snapshots += other.snapshots;
        self.older_snapshots += other.older_snapshots;
        self.installs += other.installs;
        self.changes += other.changes;
        self.removals += other.removals;
        self.ambushes_sprung += other.ambushes_sprung;
        self.wipes += other.wipes;
        self.refusals += other.refusals;
        self.disk_faults += other.disk_faults;
        self.storage_failures += other.storage_failures;
        self.damage_named += other.damage_named;
        self.left_off += other.left_off;
        self.delivered += other.delivered;
        for kind in FaultKind::ALL {
            self.faults[kind.index()] += other.faults[kind.index()];
        }
        for (name, count) in &other.endings {
            *self.endings.entry(name).or_default() += count;
        }
        for (name, count) in &other.met {
            *self.met.entry(name).or_default() += count;
        }
        for kind in Kind::ALL {
            self.lost[kind.index()] += other.lost[kind.index()];
            self.repeated[kind.index()] += other.repeated[kind.index()];
        }
    }

    fn rows(&self) -> [(&'static str, u64); 37] {
        [
            ("seeds", self.seeds),
            ("events", self.events),
            ("commands", self.commands),
            ("commands under faults", self.commands_under_faults),
            ("committed", self.committed),
            ("rejected", self.rejected),
            ("unknown", self.unknown),
            ("elections", self.elections),
            ("crashes", self.crashes),
            ("pauses", self.pauses),
            ("partitions", self.partitions),
            ("torn tails", self.torn_tails),
            ("adopted values", self.values_adopted),
            ("filled gaps", self.gaps_filled),
            ("retransmissions", self.retransmissions),
            ("proposals held back", self.held_back),
            ("fetched values", self.values_fetched),
            ("loads", self.loads),
            ("reads", self.reads),
            ("read points named", self.reads_ready),
            ("reads lost", self.reads_lost),
            ("quorum reads", self.quorum_reads),
            ("quorum read points named", self.quorum_reads_ready),
            ("quorum reads lost", self.quorum_reads_lost),
            ("trims", self.trims),
            ("snapshots", self.snapshots),
            ("installs", self.installs),
            ("changes", self.changes),
            ("removals", self.removals),
            ("ambushes sprung", self.ambushes_sprung),
            ("disks wiped", self.wipes),
            ("refusals", self.refusals),
            ("disk faults", self.disk_faults),
            ("storage failures", self.storage_failures),
            ("damage named", self.damage_named),
            ("left off", self.left_off),
            ("messages delivered", self.delivered),
        ]
    }

    /// What never happened although many seeds must show it.
    pub fn missing(&self) -> Vec<String> {
        // Disks in memory are never damaged.
        let is_of_logs = |name| ["damage named", "left off"].contains(&name);
        let rows = self.rows().into_iter().filter(|row| row.1 == 0 && !is_of_logs(row.0));
        // Nodes do not trim yet, and their reads are judged by what clients were answered.
        let hosted = !self.endings.is_empty();
        let of_bare =
            |name: &str| ["trims", "changes", "removals"].contains(&name) || name.contains("read");
        let rows = rows.filter(|row| !(hosted && of_bare(row.0)));
        let mut missing: Vec<String> = rows.map(|row| row.0.to_owned()).collect();
        let endings = self.endings.iter().filter(|ending| *ending.1 == 0);
        missing.extend(endings.map(|(name, _)| format!("requests that end as {name}")));
        // Who votes does not change where whole nodes run.
        for kind in Kind::ALL.into_iter().filter(|kind| !hosted || *kind != Kind::Removed) {
            if self.lost[kind.index()] == 0 {
                missing.push(format!("{kind} lost"));
            }
            if self.repeated[kind.index()] == 0 {
                missing.push(format!("{kind} repeated"));
            }
        }
        if self.seeds >= SEEDS_OF_MARKS {
            let bare = |mark: &Mark| !(self.of_hosts && mark.is_of_bare_replicas());
            let marks = self.marks.missing().filter(bare);
            missing.extend(marks.map(|mark| mark.words().to_owned()));
            let met = self.met.iter().filter(|met| *met.1 == 0);
            missing.extend(met.map(|(name, _)| (*name).to_owned()));
        }
        let kinds = FaultKind::ALL.into_iter();
        let kinds = kinds.filter(|kind| !hosted || *kind != FaultKind::Change);
        let absent = kinds.filter(|kind| self.faults[kind.index()] == 0);
        missing.extend(absent.map(|kind| format!("fault {kind}")));
        missing
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, count) in self.rows() {
            writeln!(f, "{name:>24} {count:>12}")?;
        }
        for kind in FaultKind::ALL {
            let name = format!("fault {kind}");
            writeln!(f, "{name:>24} {:>12}", self.faults[kind.index()])?;
        }
        for (name, count) in &self.endings {
            writeln!(f, "{name:>24} {count:>12}")?;
        }
        for (name, count) in &self.met {
            writeln!(f, "{name:>52} {count:>12}")?;
        }
        for kind in Kind::ALL {
            let (lost, repeated) = (self.lost[kind.index()], self.repeated[kind.index()]);
            let name = format!("{kind} lost, repeated");
            writeln!(f, "{name:>24} {lost:>12} {repeated:>12}")?;
        }
        self.marks.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_total_that_is_zero_is_missing_and_sums_add_up() {
        let mut totals = Totals { crashes: 2, ..Totals::default() };
        totals.lost[Kind::Fetch.index()] = 3;
        let other = totals.clone();
        totals.add(&other);
        assert_eq!((totals.crashes, totals.lost[Kind::Fetch.index()]), (4, 6));
        let missing = totals.missing();
        assert!(missing.contains(&"torn tails".to_owned()));
        assert!(missing.contains(&"Fetch repeated".to_owned()));
        assert!(!missing.contains(&"crashes".to_owned()));
        assert!(!missing.contains(&"Fetch lost".to_owned()));
    }
}
