//! The in-memory transport against the transport's contract.

use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use paxos::core::ids::{Incarnation, ReplicaId};
use paxos::core::port::{Channel, CoalesceKey, Frame, Lane, Sent, Transport, TransportEvent};
use paxos::memory::{FRAME_BYTES_MAX, LANE_FRAMES_MAX};
use paxos::{MemoryFaults, MemoryNetwork, MemoryTransport};

const A: ReplicaId = ReplicaId::new(1);
const B: ReplicaId = ReplicaId::new(2);

fn linked(network: &MemoryNetwork) -> (MemoryTransport, MemoryTransport) {
    let (mut a, mut b) = (network.transport(A), network.transport(B));
    a.start(Incarnation::new(1, 10));
    b.start(Incarnation::new(1, 20));
    let up = |peer, nonce| format!("up {peer} {}", Incarnation::new(1, nonce));
    assert_eq!(events(&mut a), [up(B, 20)]);
    assert_eq!(events(&mut b), [up(A, 10)]);
    (a, b)
}

fn events(transport: &mut MemoryTransport) -> Vec<String> {
    let mut cx = Context::from_waker(Waker::noop());
    let mut events = Vec::new();
    while let Poll::Ready(Some(event)) = transport.poll_event(&mut cx) {
        events.push(match event {
            TransportEvent::Frame { bytes, .. } => String::from_utf8(bytes.to_vec()).unwrap(),
            TransportEvent::Up { peer, incarnation } => format!("up {peer} {incarnation}"),
            TransportEvent::Down { peer, .. } => format!("down {peer}"),
            TransportEvent::Refused { .. } => "refused".to_owned(),
            TransportEvent::Drained { peer, lane } => format!("drained {peer} {lane:?}"),
        });
    }
    events
}

fn frame(lane: Lane, key: Option<u64>, text: &str) -> Frame {
    let (one, other) = text.split_at(text.len() / 2);
    Frame {
        lane,
        key: key.map(CoalesceKey),
        channel: Channel::Core,
        chunks: [one, other]
            .map(|part| Bytes::from(part.to_owned()))
            .to_vec(),
    }
}

#[test]
fn control_comes_first_and_a_key_replaces() {
    let (mut a, mut b) = linked(&MemoryNetwork::new());
    for (lane, key, text) in [
        (Lane::Bulk, None, "bulk"),
        (Lane::Log, None, "log one"),
        (Lane::Log, None, "log two"),
        (Lane::Control, Some(1), "old"),
        (Lane::Control, None, "plain"),
        (Lane::Control, Some(1), "new"),
    ] {
        assert_eq!(a.send(B, frame(lane, key, text)), Sent::Queued);
    }
    assert_eq!(
        events(&mut b),
        ["new", "plain", "log one", "log two", "bulk"]
    );
    assert_eq!(a.counters().coalesced, 1);
    assert_eq!(
        (a.counters().frames_sent, b.counters().frames_received),
        (6, 5)
    );
}

#[test]
fn a_full_log_lane_refuses_the_newest_and_control_drops_the_oldest() {
    let (mut a, mut b) = linked(&MemoryNetwork::new());
    for number in 0..LANE_FRAMES_MAX {
        let text = number.to_string();
        assert_eq!(a.send(B, frame(Lane::Log, None, &text)), Sent::Queued);
        assert_eq!(a.send(B, frame(Lane::Control, None, &text)), Sent::Queued);
    }
    assert_eq!(a.send(B, frame(Lane::Log, None, "last")), Sent::Full);
    assert_eq!(a.send(B, frame(Lane::Control, None, "last")), Sent::Queued);
    let arrived = events(&mut b);
    assert_eq!(arrived.len(), 2 * LANE_FRAMES_MAX);
    assert_eq!(arrived[0], "1");
    assert_eq!(arrived[LANE_FRAMES_MAX - 1], "last");
    assert_eq!(arrived[LANE_FRAMES_MAX], "0");
    assert_eq!(events(&mut a), ["drained replica 2 Log"]);
    assert_eq!(a.send(B, frame(Lane::Log, None, "again")), Sent::Queued);
    let counters = a.counters();
    assert_eq!((counters.refused_full, counters.dropped_oldest), (1, 1));
}

#[test]
fn what_is_cut_or_gone_or_too_large_does_not_arrive() {
    let network = MemoryNetwork::new();
    let (mut a, mut b) = linked(&network);
    assert_eq!(a.send(B, frame(Lane::Log, None, "lost")), Sent::Queued);
    network.cut(A, B);
    assert_eq!(a.send(B, frame(Lane::Log, None, "refused")), Sent::Down);
    assert_eq!(events(&mut a), ["down replica 2"]);
    assert_eq!(events(&mut b), ["down replica 1"]);
    network.heal();
    assert_eq!(events(&mut b).len(), 1);
    let huge = "x".repeat(FRAME_BYTES_MAX + 1);
    assert_eq!(a.send(B, frame(Lane::Bulk, None, &huge)), Sent::TooLarge);
    assert_eq!(events(&mut b), Vec::<String>::new());
    drop(b);
    assert_eq!(a.send(B, frame(Lane::Log, None, "refused")), Sent::Down);
    let mut b = network.transport(B);
    b.start(Incarnation::new(2, 30));
    assert_eq!(events(&mut a).last().unwrap(), "up replica 2 2.0000001e");
    assert_eq!(a.send(B, frame(Lane::Log, None, "welcome")), Sent::Queued);
    assert_eq!(events(&mut b).last().unwrap(), "welcome");
}

#[test]
fn faults_are_as_frequent_as_they_are_asked_for() {
    let network = MemoryNetwork::new();
    let (mut a, mut b) = linked(&network);
    network.set_faults(MemoryFaults {
        loss: 20,
        duplication: 30,
        reorder: 10,
        seed: 5,
    });
    for number in 0..3000 {
        let _ = a.send(B, frame(Lane::Log, None, &number.to_string()));
        if number % 1000 == 999 {
            let arrived = events(&mut b);
            // 1,000 less a fifth, and a third more: 1,040.
            assert!((950..1130).contains(&arrived.len()), "{}", arrived.len());
            let numbers: Vec<u32> = arrived.iter().map(|text| text.parse().unwrap()).collect();
            assert!(!numbers.is_sorted());
        }
    }
}
