//! The text of `INFO`.
//!
//! Owns: the names of its sections and lines, which scripts match on. Reads only copies.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use paxos::{Metrics, NodeStatus, Room, Slot, SnapshotStatus};

use crate::command::InfoSection;
use crate::machine::Image;
use crate::memory;
use crate::server::Shared;

/// What `INFO` answers.
pub(crate) fn text(
    section: InfoSection,
    status: &NodeStatus,
    metrics: &Metrics,
    image: &Image,
    shared: &Shared,
) -> String {
    let sections = match section {
        InfoSection::All => vec![
            server(shared),
            clients(shared),
            memory_use(image, shared),
            stats(metrics, shared),
            paxos(status, image),
            snapshots(&status.snapshots, metrics),
            keyspace(image),
        ],
        InfoSection::Server => vec![server(shared)],
        InfoSection::Clients => vec![clients(shared)],
        InfoSection::Memory => vec![memory_use(image, shared)],
        InfoSection::Stats => vec![stats(metrics, shared)],
        InfoSection::Paxos => vec![paxos(status, image)],
        InfoSection::Snapshots => vec![snapshots(&status.snapshots, metrics)],
        InfoSection::Keyspace => vec![keyspace(image)],
        InfoSection::Unknown => Vec::new(),
    };
    sections.join("\r\n")
}

/// One section: a heading and its lines.
#[derive(Debug)]
struct Section(String);

impl Section {
    fn new(name: &str) -> Self {
        Self(format!("# {name}\r\n"))
    }

    fn line(mut self, name: &str, value: impl std::fmt::Display) -> Self {
        write!(self.0, "{name}:{value}\r\n").expect("writing to a string does not fail");
        self
    }
}

fn server(shared: &Shared) -> String {
    Section::new("Server")
        .line("server_name", "multi-paxos kv")
        .line("server_version", env!("CARGO_PKG_VERSION"))
        .line("process_id", std::process::id())
        .line("uptime_in_seconds", shared.started.elapsed().as_secs())
        .0
}

fn clients(shared: &Shared) -> String {
    Section::new("Clients")
        .line("connected_clients", shared.connections())
        .line("maxclients", crate::limits::CONNECTIONS_MAX)
        .0
}

fn memory_use(image: &Image, shared: &Shared) -> String {
    let data = memory::data_bytes(image);
    Section::new("Memory")
        .line("used_memory_rss", memory::resident_bytes().unwrap_or(0))
        .line("used_memory_rss_bound", shared.memory_bound as u64 + data)
        .line("used_memory_dataset", image.bytes)
        .line("client_buffers_free", shared.budget.free())
        .0
}

fn stats(metrics: &Metrics, shared: &Shared) -> String {
    let core = &metrics.core;
    let transport = &metrics.transport;
    Section::new("Stats")
        .line("total_connections_received", shared.accepted.load(Ordering::Relaxed))
        .line("rejected_connections", shared.refused.load(Ordering::Relaxed))
        .line("total_commands_processed", shared.commands.load(Ordering::Relaxed))
        .line("requests", metrics.requests)
        .line("requests_busy", metrics.requests_busy)
        .line("requests_waiting", metrics.requests_waiting)
        .line("batches_proposed", metrics.batches_proposed)
        .line("commands_proposed", metrics.commands_proposed)
        .line("commands_applied", metrics.commands_applied)
        .line("forwards_sent", metrics.forwards_sent)
        .line("log_syncs", metrics.sync.count)
        .line("log_sync_p50_us", metrics.sync.p50 / 1000)
        .line("log_sync_p99_us", metrics.sync.p99 / 1000)
        .line("round_p50_us", metrics.round.p50 / 1000)
        .line("round_p99_us", metrics.round.p99 / 1000)
        .line("heartbeats_received", metrics.heartbeat_delay.count)
        .line("heartbeat_delay_p50_us", metrics.heartbeat_delay.p50 / 1000)
        .line("heartbeat_delay_p99_us", metrics.heartbeat_delay.p99 / 1000)
        .line("heartbeat_delay_max_us", metrics.heartbeat_delay.max / 1000)
        .line("campaigns", core.campaigns)
        .line("elections_won", core.elections_won)
        .line("retransmissions", core.retransmissions)
        .line("values_fetched", core.values_fetched)
        .line("frames_sent", transport.frames_sent)
        .line("frames_received", transport.frames_received)
        .line("handshakes_refused", transport.handshakes_refused)
        .0
}

fn paxos(status: &NodeStatus, image: &Image) -> String {
    let (replica, compared) = (&status.replica, &status.comparison);
    let ballot = |ballot: Option<paxos::core::ballot::Ballot>| {
        ballot.map_or_else(|| "none".into(), |ballot| ballot.to_string())
    };
    let leader = replica.leader.map_or(0, |ballot| ballot.leader().number());
    let peers: Vec<_> =
        replica.connected_peers.iter().map(|peer| peer.number().to_string()).collect();
    Section::new("Paxos")
        .line("replica_id", replica.replica.number())
        .line("role", replica.role)
        .line("ballot", ballot(replica.promised))
        .line("leader", leader)
        .line("leader_ballot", ballot(replica.leader))
        .line("epoch", replica.epoch.number())
        .line("committed", replica.committed.number())
        .line("applied", image.applied.number())
        .line("state_hash", format_args!("{:032x}", image.hash))
        .line("state_compared", compared.confirmed.map_or(0, Slot::number))
        .line("state_differs_from", compared.differing.map_or(0, |other| other.peer.number()))
        .line("connected_peers", replica.connected_peers.len())
        .line("connected_peer_ids", peers.join(","))
        .line("trimmed", replica.trimmed.number())
        .line("incarnation", replica.incarnation)
        .line("storage_full", u8::from(status.room == Room::Full))
        .0
}

fn snapshots(status: &SnapshotStatus, metrics: &Metrics) -> String {
    let last = status.last;
    let sending: Vec<_> = status
        .sending
        .iter()
        .map(|to| format!("{}:{}/{}", to.to.number(), to.sent_bytes, to.bytes))
        .collect();
    let receiving = status.receiving.map_or_else(String::new, |from| {
        format!("{}:{}/{}", from.from.number(), from.held_bytes, from.bytes)
    });
    Section::new("Snapshots")
        .line("snapshot_slot", last.map_or(0, |last| last.slot.number()))
        .line("snapshot_bytes", last.map_or(0, |last| last.bytes))
        .line("snapshot_digest", last.map_or_else(String::new, |last| last.digest.to_string()))
        .line("snapshot_last_ms", status.last_duration.as_millis())
        .line("snapshot_making", u8::from(status.making))
        .line("snapshot_error", status.failed.as_deref().unwrap_or_default())
        .line("snapshot_sending", sending.join(","))
        .line("snapshot_receiving", receiving)
        .line("snapshots_made", metrics.snapshots_made)
        .line("snapshots_received", metrics.snapshots_received)
        .line("snapshots_restored", metrics.snapshots_restored)
        .0
}

fn keyspace(image: &Image) -> String {
    let section = Section::new("Keyspace");
    if image.keys == 0 {
        return section.0;
    }
    let line = format!("keys={},expires=0,avg_ttl=0", image.keys);
    section.line("db0", line).0
}
