//! What every transport must do, whatever it is made of: written against the port alone, so that
//! another transport's tests can run it.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::time::Duration;

use bytes::Bytes;
use paxos_core::ids::{Incarnation, ReplicaId};
use paxos_core::port::{Channel, Frame, Lane, Sent, Transport, TransportEvent};

use crate::support::{self, PATIENCE};

/// Runs the suite over two transports of one cluster that were not started yet.
pub(crate) async fn run<T: Transport>(one: &mut T, other: &mut T, ids: (ReplicaId, ReplicaId)) {
    let lives = (Incarnation::new(3, 1), Incarnation::new(4, 2));
    one.start(lives.0);
    other.start(lives.1);
    first_event_is_up(one, ids.1, lives.1).await;
    first_event_is_up(other, ids.0, lives.0).await;
    frames_keep_order_and_content(one, other, ids).await;
    frames_keep_order_and_content(other, one, (ids.1, ids.0)).await;
    chunks_arrive_as_one(one, other, ids).await;
    strangers_are_down(one);
}

async fn next<T: Transport>(transport: &mut T) -> TransportEvent {
    let next = poll_fn(|cx| transport.poll_event(cx));
    tokio::time::timeout(PATIENCE, next)
        .await
        .expect("an event comes in time")
        .expect("a running transport has events")
}

async fn first_event_is_up<T: Transport>(
    transport: &mut T,
    from: ReplicaId,
    expected: Incarnation,
) {
    match next(transport).await {
        TransportEvent::Up { peer, incarnation } => {
            assert_eq!((peer, incarnation), (from, expected));
        }
        event => panic!("before the link is up there is only one event, and it is not {event:?}"),
    }
}

async fn frames_keep_order_and_content<T: Transport>(
    from: &mut T,
    to: &mut T,
    ids: (ReplicaId, ReplicaId),
) {
    let lanes = [
        (Lane::Control, Channel::Core),
        (Lane::Log, Channel::Host),
        (Lane::Bulk, Channel::Snapshot),
    ];
    for number in 0..200_u32 {
        for (lane, channel) in lanes {
            let frame = Frame {
                lane,
                key: None,
                channel,
                chunks: vec![Bytes::copy_from_slice(&number.to_le_bytes())],
            };
            assert_eq!(from.send(ids.1, frame), Sent::Queued);
        }
    }
    let mut counts: BTreeMap<Channel, u32> = BTreeMap::new();
    while counts.values().sum::<u32>() < 600 {
        match next(to).await {
            TransportEvent::Frame {
                from,
                channel,
                bytes,
            } => {
                assert_eq!(from, ids.0);
                let count = counts.entry(channel).or_default();
                assert_eq!(&bytes[..], &count.to_le_bytes(), "order within a lane");
                *count += 1;
            }
            event => panic!("frames flow, and nothing else happens: {event:?}"),
        }
    }
    assert!(counts.values().all(|count| *count == 200));
}

async fn chunks_arrive_as_one<T: Transport>(from: &mut T, to: &mut T, ids: (ReplicaId, ReplicaId)) {
    for sizes in [
        &[][..],
        &[0],
        &[1, 0, 2],
        &[5000, 3, 100_000, 1],
        &[1 << 20],
    ] {
        let chunks: Vec<_> = sizes
            .iter()
            .zip(1_u8..)
            .map(|(size, fill)| Bytes::from(vec![fill; *size]))
            .collect();
        let expected = chunks.concat();
        let frame = Frame {
            lane: Lane::Log,
            key: None,
            channel: Channel::Core,
            chunks,
        };
        assert_eq!(from.send(ids.1, frame), Sent::Queued);
        match next(to).await {
            TransportEvent::Frame { bytes, .. } => assert!(bytes[..] == expected[..]),
            event => panic!("a frame of chunks {sizes:?}, and not {event:?}"),
        }
    }
}

fn strangers_are_down<T: Transport>(transport: &mut T) {
    let frame = support::frame(Lane::Log, &b"to nobody"[..]);
    assert_eq!(transport.send(ReplicaId::new(999), frame), Sent::Down);
    assert!(transport.counters().refused_down >= 1);
    assert!(transport.counters().links_up >= 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quic_passes_the_suite() {
    let (mut seats, membership) = support::seats(2);
    let mut make = |index: usize| {
        let options = seats[index].options(&membership);
        paxos_transport_quic::QuicTransport::new(options).unwrap()
    };
    let (mut one, mut other) = (make(0), make(1));
    run(&mut one, &mut other, (support::id(1), support::id(2))).await;
    tokio::time::timeout(Duration::from_secs(5), async {
        drop(one);
        while !matches!(next(&mut other).await, TransportEvent::Down { .. }) {}
    })
    .await
    .expect("a transport that is dropped says so");
}
