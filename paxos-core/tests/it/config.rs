//! Tunables: what the profiles set, and what a message may take.

use std::time::Duration;

use paxos_core::ballot::Ballot;
use paxos_core::codec;
use paxos_core::config::{Config, PAGE_BYTES_LIMIT};
use paxos_core::ids::{Incarnation, LogClock, Priority, Slot};
use paxos_core::membership::OBSERVERS_MAX;
use paxos_core::message::{
    Body, Connectivity, Echo, Fetched, Heartbeat, Message, Promise, PromiseEntry, SlotState,
};
use paxos_core::quorum::VOTERS_MAX;
use paxos_core::value::{Batch, Command, Value};

use crate::bed::{ballot, command, id, slot};
use crate::samples;

/// The table in the documentation, with every duration in which the profiles differ.
#[test]
fn the_table_of_near_and_far_is_true() {
    let lines = include_str!("../../src/config.rs").lines();
    let rows = lines.filter_map(|line| line.strip_prefix("//! | `")).collect::<Vec<_>>();
    let durations = |config: &Config| {
        [
            ("heartbeat_interval", config.heartbeat_interval),
            ("election_timeout", config.election_timeout),
            ("election_jitter", config.election_jitter),
            ("disk_stall", config.disk_stall),
            ("retransmit_interval", config.retransmit_interval),
            ("fetch_timeout", config.fetch_timeout),
            ("quorum_read_timeout", config.quorum_read_timeout),
        ]
    };
    let (near, far) = (Config::default(), Config::wan());
    let pairs = durations(&near).into_iter().zip(durations(&far));
    let expected: Vec<String> = pairs
        .map(|((name, near), (_, far))| {
            format!("{name}` | {} ms | {} ms |", near.as_millis(), far.as_millis())
        })
        .collect();
    assert_eq!(rows.len(), expected.len());
    for (row, expected) in rows.iter().zip(&expected) {
        assert!(row.starts_with(expected.as_str()), "{row} is {expected}");
    }
    // What is not in the table is the same in both.
    let same = Config {
        heartbeat_interval: near.heartbeat_interval,
        election_timeout: near.election_timeout,
        election_jitter: near.election_jitter,
        disk_stall: near.disk_stall,
        retransmit_interval: near.retransmit_interval,
        fetch_timeout: near.fetch_timeout,
        quorum_read_timeout: near.quorum_read_timeout,
        ..far.clone()
    };
    assert_eq!(same, near);
    for config in [near, far] {
        assert_eq!(config.check(), Ok(()));
        assert!(config.election_jitter >= config.election_timeout / 2);
    }
}

fn len(body: impl Into<Body>) -> usize {
    let message = Message { origin: samples::origin(), body: body.into() };
    codec::encode(&message).iter().map(bytes::Bytes::len).sum()
}

/// A page of a promise, of fetched values, one large batch by itself, and a heartbeat in the largest
/// membership all fit what the config says they take.
#[test]
fn no_message_takes_more_than_the_config_says() {
    for (batch_bytes_max, page_bytes_max) in
        [(1, 1), (64, 4096), (4096, 64), (PAGE_BYTES_LIMIT, PAGE_BYTES_LIMIT)]
    {
        let config = Config { batch_bytes_max, page_bytes_max, ..Config::default() };
        let most = config.message_bytes_max();
        let voted = ballot(u64::MAX, u16::MAX);
        // One batch of the largest size, in a page by itself.
        let around = codec::BATCH_HEADER_LEN + codec::COMMAND_HEADER_LEN;
        let payload = batch_bytes_max.saturating_sub(around);
        let large = Command { payload: vec![7; payload].into(), ..command("") };
        let large = Value::Batch(Batch::new(LogClock::default(), vec![large]));
        let promise = |entries| Promise {
            ballot: voted,
            committed: slot(1),
            from: slot(2),
            through: Slot::MAX,
            entries,
        };
        let entry =
            |value| PromiseEntry { slot: slot(2), state: SlotState::Accepted(voted, value) };
        assert!(batch_bytes_max < around || len(promise(vec![entry(large.clone())])) <= most);
        // As many no-ops as a page takes.
        let count = page_bytes_max / codec::PROMISE_ENTRY_LEN;
        let entries: Vec<PromiseEntry> = (0..count as u64)
            .map(|at| PromiseEntry { slot: slot(at + 2), ..entry(Value::Noop) })
            .collect();
        assert!(len(promise(entries)) <= most);
        let values = vec![Value::Noop; page_bytes_max / codec::VALUE_HEADER_LEN];
        let (first, committed, trimmed) = (slot(1), Slot::MAX, slot(0));
        assert!(len(Fetched { first, values, committed, trimmed }) <= most);
        assert!(len(full_heartbeat(voted)) <= most);
    }
}

fn full_heartbeat(leader: Ballot) -> Heartbeat {
    let peers = 1..2 * (VOTERS_MAX + OBSERVERS_MAX) as u16;
    let incarnation = Incarnation::new(u32::MAX, u32::MAX);
    Heartbeat {
        sequence: u64::MAX,
        echoes: peers
            .map(|peer| Echo { peer: id(peer), incarnation, sequence: u64::MAX })
            .collect(),
        promised: Some(leader),
        leader: Some(leader),
        connectivity: Connectivity::Quorum,
        committed: Slot::MAX,
        durable: Slot::MAX,
        held: Slot::MAX,
        released: u64::MAX,
        priority: Priority::new(u8::MAX),
    }
}

#[test]
fn a_tunable_out_of_its_bounds_is_named_with_the_bound() {
    let ms = Duration::from_millis;
    let refused = |config: Config| config.check().unwrap_err().to_string();
    let usual = Config::default;
    assert_eq!(
        refused(Config { heartbeat_interval: ms(167), ..usual() }),
        "config field heartbeat_interval must be at most a third of election_timeout"
    );
    assert_eq!(
        refused(Config { window_bytes_max: 1 << 19, ..usual() }),
        "config field window_bytes_max must be at least batch_bytes_max"
    );
    assert_eq!(
        refused(Config { page_bytes_max: PAGE_BYTES_LIMIT + 1, ..usual() }),
        "config field page_bytes_max must be between 1 and 7 MiB"
    );
}
