//! Ids, ballots, batches and tunables.

use std::time::Duration;

use bytes::Bytes;
use paxos_core::ballot::Ballot;
use paxos_core::config::{Config, PAGE_BYTES_LIMIT};
use paxos_core::ids::{ClientId, Incarnation, LogClock, ReplicaId, RequestNumber, Slot, Time};
use paxos_core::value::{Batch, Command};
use proptest::prelude::{any, proptest};
use proptest::{prop_assert, prop_assert_eq};

proptest! {
    #[test]
    fn ballots_order_by_round_then_leader(
        left in (any::<u64>(), any::<u16>()),
        right in (any::<u64>(), any::<u16>()),
    ) {
        let ballot = |(round, leader)| Ballot::new(round, ReplicaId::new(leader));
        prop_assert_eq!(ballot(left).cmp(&ballot(right)), left.cmp(&right));
        prop_assert!(None < Some(ballot(left)));
    }

    #[test]
    fn a_new_ballot_is_above_the_one_seen(
        round in 0..u64::MAX,
        leader in any::<u16>(),
        own in any::<u16>(),
    ) {
        let seen = Ballot::new(round, ReplicaId::new(leader));
        let next = Ballot::above(Some(seen), ReplicaId::new(own));
        prop_assert!(next > seen);
        prop_assert_eq!(next.leader(), ReplicaId::new(own));
    }

    #[test]
    fn incarnations_keep_their_parts_and_order_by_boot(
        left in any::<(u32, u32)>(),
        right in any::<(u32, u32)>(),
    ) {
        let life = |(boot, nonce)| Incarnation::new(boot, nonce);
        prop_assert_eq!(Incarnation::from_bits(life(left).bits()), life(left));
        prop_assert_eq!(life(left).cmp(&life(right)), left.cmp(&right));
        prop_assert_eq!(life(left).bits().cmp(&life(right).bits()), left.cmp(&right));
    }
}

#[test]
fn the_first_ballot_of_a_replica_has_round_one() {
    assert_eq!(Ballot::above(None, ReplicaId::new(3)), Ballot::new(1, ReplicaId::new(3)));
}

#[test]
fn slots_count_from_one_and_do_not_wrap() {
    assert_eq!(Slot::ZERO.next(), Slot::FIRST);
    assert_eq!(Slot::ZERO.previous(), Slot::ZERO);
    assert_eq!(Slot::new(u64::MAX - 1).next(), Slot::MAX);
    assert_eq!(Slot::new(5).plus(u64::MAX), Slot::MAX);
    assert_eq!(Slot::new(5).distance_from(Slot::new(2)), 3);
    assert_eq!(Slot::new(2).distance_from(Slot::new(5)), 0);
}

#[test]
fn time_saturates() {
    let late = Time::from_nanos(u64::MAX - 1);
    assert_eq!(late.after(Duration::from_secs(1)).nanos(), u64::MAX);
    assert_eq!(late.after(Duration::MAX).nanos(), u64::MAX);
    assert_eq!(Time::ZERO.since(late), Duration::ZERO);
    let second = Time::ZERO.after(Duration::from_secs(1));
    assert_eq!(second.since(Time::ZERO), Duration::from_secs(1));
}

#[test]
fn a_batch_is_encoded_once_and_shared() {
    let command = Command::apply(ClientId::new(1), RequestNumber::new(1), Bytes::from_static(b"x"));
    let batch = Batch::new(LogClock::default(), vec![command]);
    let copy = batch.clone();
    assert_eq!(batch.encoded().as_ptr(), copy.encoded().as_ptr());
    assert_eq!(batch.encoded().len(), batch.encoded_len());
}

#[test]
fn default_and_wan_configs_are_within_their_bounds() {
    assert_eq!(Config::default().check(), Ok(()));
    assert_eq!(Config::wan().check(), Ok(()));
}

/// Puts one tunable out of its bounds.
type Break = fn(&mut Config);

const OUT_OF_BOUNDS: [(&str, Break); 13] = [
    ("heartbeat_interval", |config| {
        config.heartbeat_interval = Duration::ZERO;
    }),
    ("heartbeat_interval", |config| {
        config.heartbeat_interval = Duration::from_millis(167);
    }),
    ("election_jitter", |config| {
        config.election_jitter = Duration::ZERO;
    }),
    ("disk_stall", |config| config.disk_stall = Duration::ZERO),
    ("retransmit_interval", |config| {
        config.retransmit_interval = Duration::ZERO;
    }),
    ("fetch_timeout", |config| {
        config.fetch_timeout = Duration::ZERO;
    }),
    ("batch_bytes_max", |config| config.batch_bytes_max = 0),
    ("batch_bytes_max", |config| {
        config.batch_bytes_max = PAGE_BYTES_LIMIT + 1;
    }),
    ("page_bytes_max", |config| config.page_bytes_max = 0),
    ("page_bytes_max", |config| {
        config.page_bytes_max = PAGE_BYTES_LIMIT + 1;
    }),
    ("window_bytes_max", |config| config.window_bytes_max = 1),
    ("apply_slots_max", |config| config.apply_slots_max = 0),
    ("apply_bytes_max", |config| config.apply_bytes_max = 0),
];

#[test]
fn a_config_out_of_bounds_names_its_field() {
    for (field, break_it) in OUT_OF_BOUNDS {
        let mut config = Config::default();
        break_it(&mut config);
        assert_eq!(config.check().map_err(|error| error.field), Err(field));
    }
}

#[test]
fn a_heartbeat_interval_that_overflows_is_refused_not_a_panic() {
    let config = Config { heartbeat_interval: Duration::MAX, ..Config::default() };
    assert_eq!(config.check().map_err(|error| error.field), Err("heartbeat_interval"));
}
