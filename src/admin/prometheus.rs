//! What a node counted, as text that Prometheus reads (exposition format, version 0.0.4).
//!
//! Owns: the names and texts of all metrics. Invariants: every name begins with `paxos_`, carries its unit,
//! and ends with `_total` if and only if it never falls; each is described once, before its values.

use core::fmt::{Display, Write as _};
use core::time::Duration;

use paxos_core::message::Connectivity;
use paxos_core::output::{Counters, Role};
use paxos_core::port::{Room, TransportCounters};

use crate::admin::report::StatusReport;
use crate::metrics::{Distribution, Metrics};

/// The type of the text, for HTTP.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

const NANOS: u64 = 1_000_000_000;

/// All that is counted of one node.
pub(crate) fn text(status: &StatusReport, metrics: &Metrics) -> String {
    let mut page = Page { text: String::new(), replica: status.replica.number() };
    about(&mut page, status);
    flows(&mut page, status);
    for (name, value, help) in metrics.cells() {
        let help = help.trim();
        match help.strip_prefix("Gauge: ") {
            Some(help) => page.gauge(name, help, value),
            None => page.counter(name, help, value),
        }
    }
    for (name, help, value) in core(&metrics.core) {
        page.counter(name, help, value);
    }
    for (name, help, value) in transport(&metrics.transport) {
        page.counter(&format!("transport_{name}"), help, value);
    }
    let sync = "Time of one write to the log, its sync included.";
    page.summary("sync_seconds", sync, &metrics.sync, Unit::Nanoseconds);
    let round = "Time from proposing a batch to its being committed here, as leader.";
    page.summary("round_seconds", round, &metrics.round, Unit::Nanoseconds);
    let late =
        "By how much a peer's heartbeat came later than one interval after the one before it.";
    page.summary("heartbeat_delay_seconds", late, &metrics.heartbeat_delay, Unit::Nanoseconds);
    let commands = "Commands in a batch proposed here.";
    page.summary("batch_commands", commands, &metrics.batch_commands, Unit::One);
    let bytes = "Encoded bytes of a batch proposed here.";
    page.summary("batch_bytes", bytes, &metrics.batch_bytes, Unit::One);
    page.text
}

fn about(page: &mut Page, status: &StatusReport) {
    page.describe("info", "gauge", "What is fixed for this life of the node: always 1.");
    let labels = format!(
        "cluster=\"{}\",group=\"{}\",life=\"{}\",release=\"{}\"",
        status.cluster,
        status.group.number(),
        status.life,
        status.release
    );
    page.value("info", &labels, 1);
    let time = |time: Duration| seconds(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    page.gauge("uptime_seconds", "Since when the node runs.", time(status.uptime));
    let age = "How long ago the node's task wrote down what follows: with each heartbeat.";
    page.gauge("status_age_seconds", age, time(status.age));
    page.gauge("stopped", "1 once the node has stopped.", u64::from(status.stopped.is_some()));
    let leads = u64::from(status.role == Role::Leader);
    page.gauge("leads", "1 while the node leads.", leads);
    let leader = status.leader.map_or(0, paxos_core::ids::ReplicaId::number);
    page.gauge("leader_replica", "Who leads, as far as the node knows: 0 if nobody.", leader);
    let round = status.ballot.map_or(0, paxos_core::ballot::Ballot::round);
    page.gauge("ballot_round", "The round of that leader's ballot.", round);
    let promised = status.promised.map_or(0, paxos_core::ballot::Ballot::round);
    page.gauge("promised_round", "The round of the highest ballot promised.", promised);
    page.gauge("epoch", "The number of the membership in force.", status.epoch.number());
    page.gauge("voters", "Voters of that membership.", status.voters.len());
    page.gauge("observers", "Observers of that membership.", status.observers.len());
    let slot = paxos_core::ids::Slot::number;
    page.gauge("committed_slot", "The last slot of the committed prefix.", slot(status.committed));
    page.gauge("applied_slot", "The last slot applied.", slot(status.applied));
    page.gauge("trimmed_slot", "The last slot that the log no longer has.", slot(status.trimmed));
    let quorum = u64::from(status.connectivity == Connectivity::Quorum);
    page.gauge("quorum_connected", "1 while the node reaches a quorum, and could lead.", quorum);
    let connected = status.connected.len();
    page.gauge("connected_peers", "Peers that it exchanges heartbeats with.", connected);
    let disagreeing = status.disagreeing.len();
    page.gauge("disagreeing_peers", "Replicas that are not heeded, as they differ.", disagreeing);
    let full = u64::from(status.room == Room::Full);
    page.gauge("storage_full", "1 while the log has no space for commands.", full);
    let in_flight = "Slots proposed and not chosen, as leader.";
    page.gauge("slots_in_flight", in_flight, status.slots_in_flight);
    page.gauge(
        "in_flight_bytes",
        "Bytes of values proposed and not chosen, as leader.",
        status.bytes_in_flight,
    );
    page.gauge("writes_pending", "Writes that have not returned.", status.writes_pending);
}

/// What is on its way to each peer; nothing where the node does not lead.
fn flows(page: &mut Page, status: &StatusReport) {
    type Of = fn(&crate::admin::report::FlowReport) -> u64;
    let all: [(&str, &str, Of); 3] = [
        ("peer_unanswered_slots", "Slots sent to a peer and not answered.", |flow| flow.slots),
        ("peer_unanswered_bytes", "Bytes of values sent to a peer and not answered.", |flow| {
            flow.bytes
        }),
        ("peer_probed", "1 while a peer is sent one message at a time.", |flow| {
            u64::from(flow.probed)
        }),
    ];
    for (name, help, of) in all {
        page.describe(name, "gauge", help);
        for flow in &status.flows {
            page.value(name, &format!("peer=\"{}\"", flow.peer.number()), of(flow));
        }
    }
}

type Counted = (&'static str, &'static str, u64);

#[rustfmt::skip]
fn core(counters: &Counters) -> [Counted; 33] {
    let c = counters;
    [
        ("campaigns", "Campaigns begun.", c.campaigns),
        ("elections_won", "Campaigns won.", c.elections_won),
        ("step_downs", "Reigns ended without a restart.", c.step_downs),
        ("transfers_begun", "Times this leader began to make way.", c.transfers_begun),
        ("transfers_done", "Times a leader that made way promised to the other one.", c.transfers_done),
        ("transfers_given_up", "Times a leader that made way gave that up, as it took too long.", c.transfers_given_up),
        ("transfers_ignored", "Transfers heard that were no reason to campaign.", c.transfers_ignored),
        ("transfers_taken", "Campaigns begun because a leader made way.", c.transfers_taken),
        ("values_adopted", "Slots in which a new leader adopted what others had accepted.", c.values_adopted),
        ("gaps_filled", "Slots that a new leader filled with no-ops.", c.gaps_filled),
        ("memberships", "Memberships seen committed that govern from some slot on.", c.memberships),
        ("changes", "Changes of the membership that this leader proposed.", c.changes),
        ("promotions", "Changes of the membership that make a voter of an observer that has caught up.", c.promotions),
        ("slots_filled", "Slots filled with no-ops so that a new membership governs soon.", c.slots_filled),
        ("retransmissions", "Accepts sent again.", c.retransmissions),
        ("proposals_held_back", "Proposals not sent to a peer at once.", c.proposals_held_back),
        ("values_fetched", "Values learned by Fetch.", c.values_fetched),
        ("values_chosen", "Values that this replica, as leader, saw chosen.", c.values_chosen),
        ("reads_asked", "Reads asked of this replica as leader.", c.reads_asked),
        ("read_rounds", "Rounds of Confirm, for reads or to renew a lease.", c.read_rounds),
        ("lease_reads", "Reads that a lease served.", c.lease_reads),
        ("quorum_reads_asked", "Quorum reads asked of this replica.", c.quorum_reads_asked),
        ("quorum_reads_lost", "Quorum reads that got no read point in time.", c.quorum_reads_lost),
        ("surveys", "Rounds of Survey, for quorum reads.", c.surveys),
        ("snapshots_wanted", "Snapshots asked of a peer, as no log reaches back.", c.snapshots_wanted),
        ("snapshots_installed", "Snapshots that took the place of a part of the log.", c.snapshots_installed),
        ("prepares_withheld", "Prepares left unanswered until a grant ends.", c.prepares_withheld),
        ("dropped_foreign", "Messages of another cluster, group or sender.", c.dropped_foreign),
        ("dropped_disagreeing", "Messages of replicas that disagree on the membership.", c.dropped_disagreeing),
        ("dropped_stale_life", "Messages of a life that is not listened to.", c.dropped_stale_life),
        ("dropped_stale", "Messages under a ballot that is over, and votes counted already.", c.dropped_stale),
        ("dropped_absurd", "Messages that a correct peer would not send.", c.dropped_absurd),
        ("dropped_beyond_window", "Accepts beyond the window.", c.dropped_beyond_window),
    ]
}

fn transport(counters: &TransportCounters) -> [Counted; 10] {
    let c = counters;
    [
        ("frames_sent", "Frames handed to the network.", c.frames_sent),
        ("sent_bytes", "Bytes of the frames handed to the network.", c.bytes_sent),
        ("frames_received", "Frames received whole.", c.frames_received),
        ("received_bytes", "Bytes of the frames received whole.", c.bytes_received),
        ("dropped_oldest", "Frames dropped from a full control lane.", c.dropped_oldest),
        ("refused_full", "Frames refused because a lane was full.", c.refused_full),
        ("refused_down", "Frames refused because the peer was not linked.", c.refused_down),
        ("coalesced", "Frames replaced by a newer one of the same key.", c.coalesced),
        ("links_up", "Links that came up.", c.links_up),
        ("handshakes_refused", "Handshakes refused, by either side.", c.handshakes_refused),
    ]
}

/// What the values of a distribution are.
#[derive(Clone, Copy)]
enum Unit {
    /// Shown as seconds.
    Nanoseconds,
    One,
}

impl Unit {
    fn show(self, value: u64) -> String {
        match self {
            Self::Nanoseconds => seconds(value),
            Self::One => value.to_string(),
        }
    }
}

fn seconds(nanos: u64) -> String {
    format!("{}.{:09}", nanos / NANOS, nanos % NANOS)
}

/// The text that is being written.
struct Page {
    text: String,
    replica: u16,
}

impl Page {
    fn line(&mut self, line: core::fmt::Arguments<'_>) {
        writeln!(self.text, "{line}").expect("writing to a string does not fail");
    }

    fn describe(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP paxos_{name} {help}\n# TYPE paxos_{name} {kind}"));
    }

    fn value(&mut self, name: &str, labels: &str, value: impl Display) {
        let (replica, comma) = (self.replica, if labels.is_empty() { "" } else { "," });
        self.line(format_args!("paxos_{name}{{replica=\"{replica}\"{comma}{labels}}} {value}"));
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.describe(name, "gauge", help);
        self.value(name, "", value);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        let name = format!("{name}_total");
        self.describe(&name, "counter", help);
        self.value(&name, "", value);
    }

    fn summary(&mut self, name: &str, help: &str, counted: &Distribution, unit: Unit) {
        self.describe(name, "summary", help);
        for (quantile, value) in [("0.5", counted.p50), ("0.99", counted.p99), ("1", counted.max)] {
            self.value(name, &format!("quantile=\"{quantile}\""), unit.show(value));
        }
        self.value(&format!("{name}_sum"), "", unit.show(counted.sum));
        self.value(&format!("{name}_count"), "", counted.count);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::metrics::Meters;

    /// The names of a struct's fields, as `Debug` shows them.
    fn fields(shown: &str) -> Vec<&str> {
        let names = shown.split([' ', '{', ',']).filter_map(|word| word.strip_suffix(':'));
        names.collect()
    }

    #[test]
    fn every_counter_of_the_core_and_the_transport_is_shown() {
        let shown: BTreeSet<_> = core(&Counters::default()).map(|(name, ..)| name).into();
        let all = format!("{:?}", Counters::default());
        assert_eq!(shown, fields(&all).into_iter().collect());
        let shown: Vec<_> = transport(&TransportCounters::default()).map(|(name, ..)| name).into();
        let all = format!("{:?}", TransportCounters::default());
        let all = fields(&all).into_iter().map(|name| match name {
            "bytes_sent" => "sent_bytes",
            "bytes_received" => "received_bytes",
            name => name,
        });
        assert_eq!(shown, all.collect::<Vec<_>>());
    }

    /// Each text is read alone, beside its metric: one said only "those of them that the replica jumped to".
    #[test]
    fn every_text_says_by_itself_what_is_counted() {
        let metrics = Meters::new().snapshot(Counters::default(), TransportCounters::default());
        let cells = metrics.cells().into_iter().map(|(name, _, help)| (name, help.trim()));
        let core = core(&metrics.core).map(|(name, help, _)| (name, help));
        let transport = transport(&metrics.transport).map(|(name, help, _)| (name, help));
        for (name, help) in cells.chain(core).chain(transport) {
            let words: Vec<_> = help.split([' ', ',', '.', ':']).map(str::to_lowercase).collect();
            let points = words.iter().any(|word| word == "those" || word == "them");
            assert!(help.ends_with('.') && help.len() > 12 && !points, "{name}: {help}");
        }
    }

    #[test]
    fn every_value_is_its_own() {
        let mut counters = Counters::default();
        (counters.campaigns, counters.dropped_beyond_window) = (3, 5);
        let shown = core(&counters);
        assert_eq!((shown[0].2, shown[32].2), (3, 5));
        assert_eq!(shown.iter().map(|(.., value)| value).sum::<u64>(), 8);
        let meters = Meters::new();
        meters.forwards_sent.add(7);
        meters.requests_waiting.set(9);
        let metrics = meters.snapshot(counters, TransportCounters::default());
        let of = |wanted: &str| {
            let cells = metrics.cells();
            cells.iter().find(|(name, ..)| *name == wanted).map(|(_, value, _)| *value)
        };
        assert_eq!((of("forwards_sent"), of("requests_waiting")), (Some(7), Some(9)));
    }

    #[test]
    fn times_are_shown_in_seconds() {
        assert_eq!(seconds(1), "0.000000001");
        assert_eq!(seconds(61 * NANOS + 500_000_000), "61.500000000");
        assert_eq!(Unit::One.show(7), "7");
    }
}
