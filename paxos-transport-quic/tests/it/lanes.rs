//! Queues, bounds and delivery on a link that is up.

use std::time::{Duration, Instant};

use bytes::Bytes;
use paxos_core::port::{Lane, Sent, Transport as _, TransportEvent};
use paxos_transport_quic::Limits;

use crate::support::{self, Host, PATIENCE, frame, keyed};

/// Two linked hosts, the second of which reads nothing until it is asked, so that flow control
/// closes and the first one's queues fill.
async fn pair(limits: &Limits) -> (Host, Host) {
    let mut hosts = support::cluster(2, limits);
    let mut other = hosts.pop().unwrap();
    let mut one = hosts.pop().unwrap();
    one.up(2).await;
    other.up(1).await;
    (one, other)
}

fn tight() -> Limits {
    Limits {
        stream_window: 16 << 10,
        connection_window: 64 << 10,
        receive_bytes_max: 16 << 10,
        control_bytes_max: 16 << 10,
        log_bytes_max: 64 << 10,
        bulk_bytes_max: 64 << 10,
        ..Limits::default()
    }
}

fn numbered(lane: Lane, number: u32) -> paxos_core::port::Frame {
    let mut bytes = vec![0; 1000];
    bytes[..4].copy_from_slice(&number.to_le_bytes());
    frame(lane, bytes)
}

fn number(bytes: &Bytes) -> u32 {
    u32::from_le_bytes(*bytes.first_chunk().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_log_lane_refuses_the_newest_and_says_when_there_is_room() {
    let (mut one, mut other) = pair(&tight()).await;
    let deadline = Instant::now() + PATIENCE;
    let mut queued = 0;
    // The peer does not read; the lane ends up full and stays so.
    let mut full_since = None;
    while full_since.is_none_or(|since: Instant| since.elapsed() < Duration::from_millis(200)) {
        assert!(Instant::now() < deadline, "a lane has a bound");
        match one.send(2, numbered(Lane::Log, queued)) {
            Sent::Queued => {
                queued += 1;
                full_since = None;
            }
            Sent::Full => {
                full_since.get_or_insert_with(Instant::now);
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            sent => panic!("the link is up: {sent:?}"),
        }
    }
    // What is queued, in flight and received is bounded: windows and queues add up to this.
    assert!(queued < 1000, "{queued} frames of 1000 bytes were taken");
    assert!(one.transport.counters().refused_full > 0);
    for expected in 0..queued {
        assert_eq!(
            number(&other.frame().await),
            expected,
            "nothing in the middle is lost"
        );
    }
    one.drained(Lane::Log).await;
    assert_eq!(one.send(2, numbered(Lane::Log, queued)), Sent::Queued);
    assert_eq!(number(&other.frame().await), queued);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_control_lane_drops_the_oldest_and_counts_them() {
    let (mut one, mut other) = pair(&tight()).await;
    let last = 2000;
    for number in 0..=last {
        assert_eq!(one.send(2, numbered(Lane::Control, number)), Sent::Queued);
        if number % 50 == 0 {
            tokio::task::yield_now().await;
        }
    }
    let dropped = one.transport.counters().dropped_oldest;
    assert!(dropped > 0);
    let mut received = 0;
    let mut before = None;
    while before != Some(last) {
        let number = number(&other.frame().await);
        assert!(before.is_none_or(|before| before < number), "order is kept");
        before = Some(number);
        received += 1;
    }
    assert_eq!(
        received + dropped,
        u64::from(last) + 1,
        "each frame arrived or was counted"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queued_frame_gives_way_to_a_newer_one_of_its_key() {
    let (mut one, mut other) = pair(&tight()).await;
    // Fill the way to the peer, so that what follows stays queued.
    let mut filled = 0;
    let mut full_since = None;
    while full_since.is_none_or(|since: Instant| since.elapsed() < Duration::from_millis(100)) {
        if one.send(2, numbered(Lane::Log, filled)) == Sent::Queued {
            (filled, full_since) = (filled + 1, None);
        } else {
            full_since.get_or_insert_with(Instant::now);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    // A frame or two fit again by now; make place for three small ones.
    assert_eq!(number(&other.frame().await), 0);
    let deadline = Instant::now() + PATIENCE;
    while one.send(2, keyed(Lane::Log, 1, &b"key 1: old!"[..])) == Sent::Full {
        assert!(Instant::now() < deadline, "room comes back");
        other.frame().await;
    }
    for attempt in 0..1000_u32 {
        one.send(2, keyed(Lane::Log, 1, format!("key 1: {attempt:4}")));
    }
    let coalesced = one.transport.counters().coalesced;
    assert!(coalesced > 900, "only {coalesced} of 1000 were coalesced");
    let mut keyed = Vec::new();
    while keyed
        .last()
        .is_none_or(|last: &Bytes| &last[..] != b"key 1:  999")
    {
        let bytes = other.frame().await;
        if bytes.len() < 1000 {
            keyed.push(bytes);
        }
    }
    assert_eq!(
        keyed.len() as u64 + coalesced,
        1001,
        "each was sent or replaced"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_beyond_the_limit_is_refused_and_the_largest_passes() {
    let limits = Limits::default();
    let (mut one, mut other) = pair(&limits).await;
    let max = limits.frame_bytes_max as usize;
    for lane in [Lane::Control, Lane::Log, Lane::Bulk] {
        assert_eq!(one.send(2, frame(lane, vec![7; max + 1])), Sent::TooLarge);
        assert_eq!(one.send(2, frame(lane, vec![7; max])), Sent::Queued);
        assert_eq!(other.frame().await.len(), max);
    }
    assert_eq!(one.transport.counters().frames_sent, 3);
    assert_eq!(other.transport.counters().bytes_received, 3 * max as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_queued_before_the_link_is_not_sent() {
    let (mut seats, membership) = support::seats(2);
    let mut one = Host::start(seats[0].options(&membership), support::life(1));
    assert_eq!(one.send(2, frame(Lane::Log, &b"early"[..])), Sent::Down);
    let mut other = Host::start(seats[1].options(&membership), support::life(1));
    one.up(2).await;
    assert_eq!(one.send(2, frame(Lane::Log, &b"in time"[..])), Sent::Queued);
    assert_eq!(&other.frame().await[..], b"in time");
}

/// t04: A snapshot shared a connection with heartbeats, which then waited 5 ms and more, whatever
/// the priorities (quinn#1131). Source: research, transport and storage, part 4, 4.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t04_a_bulk_transfer_does_not_delay_control() {
    let (mut one, mut other) = pair(&Limits::default()).await;
    let chunk = Bytes::from(vec![1; 256 << 10]);
    let mut waits = Vec::new();
    let end = Instant::now() + Duration::from_millis(800);
    let mut bulk = 0_u64;
    while Instant::now() < end {
        while one.send(2, frame(Lane::Bulk, chunk.clone())) == Sent::Queued {}
        let sent = Instant::now();
        one.send(2, frame(Lane::Control, &b"beat"[..]));
        loop {
            let bytes = other.frame().await;
            if bytes.len() == 4 {
                break;
            }
            bulk += bytes.len() as u64;
        }
        waits.push(sent.elapsed());
    }
    waits.sort_unstable();
    assert!(bulk > 8 << 20, "the transfer ran: {bulk} bytes");
    let median = waits[waits.len() / 2];
    assert!(
        median < Duration::from_millis(50),
        "{median:?} of {}",
        waits.len()
    );
}

/// t11: A small payload kept a whole 64 KiB receive buffer of the QUIC library alive (its chunks are
/// slices of it). Source: research, transport and storage, part 4, 11.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t11_a_kept_frame_pins_a_bounded_buffer() {
    let (mut one, mut other) = pair(&Limits::default()).await;
    // One large frame, then a small one: the small one must not keep the large one's packets.
    let mut kept = Vec::new();
    for _ in 0..64 {
        assert_eq!(one.send(2, frame(Lane::Log, vec![1; 60_000])), Sent::Queued);
        assert_eq!(one.send(2, frame(Lane::Log, vec![2; 100])), Sent::Queued);
        drop(other.frame().await);
        kept.push(other.frame().await);
    }
    for bytes in kept {
        assert_eq!(bytes.len(), 100);
        // A buffer that is not shared is turned back without a copy, and shows its size.
        let buffer = bytes
            .try_into_mut()
            .expect("the small frame has its own buffer");
        assert_eq!(buffer.capacity(), 100);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_host_stops_the_sender_and_not_its_own_memory() {
    let (mut one, mut other) = pair(&tight()).await;
    let deadline = Instant::now() + Duration::from_millis(500);
    let mut queued = 0_u64;
    while Instant::now() < deadline {
        if one.send(2, numbered(Lane::Bulk, 0)) == Sent::Queued {
            queued += 1;
        } else {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    let waiting = other.transport.counters().bytes_received;
    // The credit, and one batch of at most a stream's window.
    assert!(
        waiting <= (16 << 10) + (64 << 10),
        "{waiting} bytes wait for the host"
    );
    assert!(queued < 1000, "{queued} frames");
    for _ in 0..queued {
        other.frame().await;
    }
    let extra = other.all_within(Duration::from_millis(20)).await;
    assert!(
        !extra
            .iter()
            .any(|event| matches!(event, TransportEvent::Frame { .. })),
        "each frame arrives once"
    );
}
