//! What of the trace a transcript tells, and how.
//!
//! Owns: [`Teller`]: which events are told, and where the last one stands in the trace. One message
//! to several replicas is one line.

use core::fmt::Write as _;
use std::collections::{BTreeMap, BTreeSet};

use crate::ballot::Ballot;
use crate::ids::ReplicaId;
use crate::output::Role;
use crate::sim::cluster::Cluster;
use crate::sim::kind::Kind;
use crate::sim::trace::Record;
use crate::trace::{Delivery, Event};

/// Sorts of events that are told only if the script asks for them.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Sort {
    Applies,
    Arrivals,
    Commits,
    Writes,
}

impl Sort {
    pub(super) fn named(word: &str) -> Option<Self> {
        Some(match word {
            "applies" => Self::Applies,
            "arrivals" => Self::Arrivals,
            "commits" => Self::Commits,
            "writes" => Self::Writes,
            _ => return None,
        })
    }
}

/// One message, to all to whom it left at once.
struct Line {
    from: ReplicaId,
    to: Vec<String>,
    words: String,
    /// It left more than once for one of them.
    again: bool,
}

/// Tells what happened since it last did.
#[derive(Debug)]
pub(super) struct Teller {
    told: u64,
    pub(super) shown: BTreeSet<Sort>,
    pub(super) hidden: BTreeSet<Kind>,
    leaders: BTreeMap<ReplicaId, (Role, Option<Ballot>)>,
}

impl Default for Teller {
    fn default() -> Self {
        Self {
            told: 0,
            shown: BTreeSet::new(),
            hidden: BTreeSet::from([Kind::Heartbeat]),
            leaders: BTreeMap::new(),
        }
    }
}

impl Teller {
    /// Passes over what happened so far.
    pub(super) fn skip(&mut self, cluster: &Cluster) {
        self.told = cluster.trace().events();
    }

    /// Appends what happened meanwhile.
    pub(super) fn tell(&mut self, cluster: &Cluster, out: &mut String) {
        let fresh = cluster.trace().events() - self.told;
        self.told = cluster.trace().events();
        let records = cluster.trace().records();
        let skipped = records.len().saturating_sub(fresh as usize);
        let mut line: Option<Line> = None;
        let mut followers: Option<(Ballot, String)> = None;
        for record in cluster.trace().records().skip(skipped) {
            let Some(id) = record.replica else { continue };
            if let Event::Role { role: Role::Follower, leader: Some(ballot) } = &record.event {
                self.leaders.insert(id, (Role::Follower, Some(*ballot)));
                match &mut followers {
                    Some((same, ids)) if same == ballot => {
                        let _ = write!(ids, " r{}", id.number());
                    }
                    _ => {
                        end(line.take(), out);
                        follow(followers.replace((*ballot, format!("r{}", id.number()))), out);
                    }
                }
                continue;
            }
            if let Event::Sent { to, delivery, packet } = &record.event {
                let Some(message) = packet.open() else { continue };
                if self.hidden.contains(&Kind::of(&message.body)) {
                    continue;
                }
                follow(followers.take(), out);
                let words = packet.to_string();
                let to = receiver(*to, *delivery);
                match &mut line {
                    Some(line) if line.from == id && line.words == words => {
                        line.again |= line.to.contains(&to);
                        if !line.to.contains(&to) {
                            line.to.push(to);
                        }
                    }
                    _ => {
                        let fresh = Line { from: id, to: vec![to], words, again: false };
                        end(line.replace(fresh), out);
                    }
                }
            } else if let Some(words) = self.words(id, record) {
                if let Event::Started { .. } = record.event {
                    self.leaders.remove(&id);
                }
                end(line.take(), out);
                follow(followers.take(), out);
                let _ = writeln!(out, "r{} {words}", id.number());
            }
        }
        end(line, out);
        follow(followers, out);
    }

    /// An event in words; none if it is not told.
    fn words(&mut self, id: ReplicaId, record: &Record) -> Option<String> {
        let event = &record.event;
        let if_shown = |sort| self.shown.contains(&sort).then(|| event.to_string());
        match event {
            Event::Received { packet, .. } => {
                let message = packet.open()?;
                let hidden = self.hidden.contains(&Kind::of(&message.body));
                if_shown(Sort::Arrivals).filter(|_| !hidden)
            }
            Event::Persist { .. } | Event::Durable { .. } | Event::Load { .. } => {
                if_shown(Sort::Writes)
            }
            Event::Apply { slot, value } => {
                let shown = self.shown.contains(&Sort::Applies);
                shown.then(|| format!("applies {} = {value}", slot.number()))
            }
            Event::Committed { .. } => if_shown(Sort::Commits),
            Event::Role { role, leader } => self.role(id, *role, *leader),
            Event::Chosen { slot, ballot, value } => {
                Some(format!("makes {} = {value} chosen at {ballot}", slot.number()))
            }
            Event::Started { .. }
            | Event::Crashed { .. }
            | Event::Proposed { .. }
            | Event::NotProposed { .. }
            | Event::ReadAsked { .. }
            | Event::ReadsReady { .. }
            | Event::ReadsLost { .. }
            | Event::QuorumReadAsked { .. }
            | Event::QuorumReadsReady { .. }
            | Event::QuorumReadsLost { .. }
            | Event::SnapshotWanted { .. }
            | Event::SnapshotKept { .. }
            | Event::Installed { .. }
            | Event::Halted { .. } => Some(event.to_string()),
            Event::Paused { .. }
            | Event::Timeout
            | Event::Applied { .. }
            | Event::Loaded { .. }
            | Event::Sent { .. }
            | Event::Note { .. } => None,
        }
    }

    /// Who leads, begins to campaign, or leads no more.
    fn role(&mut self, id: ReplicaId, role: Role, leader: Option<Ballot>) -> Option<String> {
        let before = self.leaders.insert(id, (role, leader)).map(|(role, _)| role);
        match (role, leader) {
            (Role::Leader, Some(ballot)) => Some(format!("leads at {ballot}")),
            (Role::Candidate, _) => Some("campaigns".to_owned()),
            _ if before == Some(Role::Leader) => Some("leads no more".to_owned()),
            (Role::Leader | Role::Follower | Role::Observer, _) => None,
        }
    }
}

fn receiver(to: ReplicaId, delivery: Delivery) -> String {
    match delivery {
        Delivery::Sent => format!("r{}", to.number()),
        Delivery::Twice | Delivery::Lost | Delivery::Cut | Delivery::Held | Delivery::Full => {
            format!("r{}({})", to.number(), delivery.name())
        }
    }
}

fn follow(followers: Option<(Ballot, String)>, out: &mut String) {
    if let Some((ballot, ids)) = followers {
        let verb = if ids.contains(' ') { "follow" } else { "follows" };
        let _ = writeln!(out, "{ids} {verb} {ballot}");
    }
}

fn end(line: Option<Line>, out: &mut String) {
    if let Some(Line { from, to, words, again }) = line {
        let again = if again { ", again and again" } else { "" };
        let _ = writeln!(out, "r{} -> {}: {words}{again}", from.number(), to.join(" "));
    }
}
