//! How fast two transports in one process exchange frames over the loopback interface: small frames
//! on the log lane, large ones on the bulk lane, and the round trip of one on the control lane.
//!
//! `cargo run --release -p paxos-transport-quic --example throughput [-- SECONDS]`
#![allow(
    clippy::print_stdout,
    reason = "it is a program that prints its measurement"
)]
#![allow(
    clippy::cast_precision_loss,
    reason = "rates are printed with two digits"
)]

use std::error::Error;
use std::future::poll_fn;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use bytes::Bytes;
use paxos_core::ids::{ClusterId, Epoch, GroupId, Incarnation, ReplicaId};
use paxos_core::membership::{Member, Membership, WINDOW_DEFAULT};
use paxos_core::port::{Channel, Format, Frame, Lane, Sent, Transport, TransportEvent};
use paxos_core::quorum::QuorumRule;
use paxos_transport_quic::{Identity, QuicOptions, QuicTransport};

const ONE: ReplicaId = ReplicaId::new(1);
const TWO: ReplicaId = ReplicaId::new(2);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let seconds = std::env::args()
        .nth(1)
        .map_or(Ok(2.0), |text| text.parse())?;
    let time = Duration::from_secs_f64(seconds);
    let (mut one, mut two) = pair()?;
    one.start(Incarnation::new(1, 1));
    two.start(Incarnation::new(1, 2));
    while !matches!(next(&mut one).await, TransportEvent::Up { .. }) {}
    while !matches!(next(&mut two).await, TransportEvent::Up { .. }) {}
    round_trips(&mut one, &mut two, time).await;
    for (lane, bytes) in [
        (Lane::Log, 100),
        (Lane::Log, 1024),
        (Lane::Log, 64 << 10),
        (Lane::Bulk, 256 << 10),
    ] {
        (one, two) = flood(one, two, lane, bytes, time).await?;
    }
    Ok(())
}

fn pair() -> Result<(QuicTransport, QuicTransport), Box<dyn Error>> {
    let mut members = Vec::new();
    let mut parts = Vec::new();
    for id in [ONE, TWO] {
        let identity = Identity::generate()?;
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        members.push(Member {
            id,
            addresses: vec![socket.local_addr()?.to_string()],
            keys: vec![identity.pin()],
        });
        parts.push((id, identity, socket));
    }
    let rule = QuorumRule::Majority;
    let membership = Membership::new(Epoch::FIRST, members, Vec::new(), rule, WINDOW_DEFAULT)?;
    let mut transports = parts.into_iter().map(|(replica, identity, socket)| {
        let format = Format {
            cluster: ClusterId::new(1),
            group: GroupId::new(0),
            replica,
            membership: membership.clone(),
        };
        QuicTransport::new(QuicOptions::new(&format, identity).socket(socket))
    });
    let two_of_them = "two parts make two transports";
    let one = transports.next().expect(two_of_them)?;
    let two = transports.next().expect(two_of_them)?;
    Ok((one, two))
}

async fn next(transport: &mut QuicTransport) -> TransportEvent {
    poll_fn(|cx| transport.poll_event(cx))
        .await
        .expect("a running transport has events")
}

fn frame(lane: Lane, bytes: &Bytes) -> Frame {
    Frame {
        lane,
        key: None,
        channel: Channel::Core,
        chunks: vec![bytes.clone()],
    }
}

async fn round_trips(one: &mut QuicTransport, two: &mut QuicTransport, time: Duration) {
    let bytes = Bytes::from(vec![0; 100]);
    let mut taken = Vec::new();
    let end = Instant::now() + time;
    while Instant::now() < end {
        let sent = Instant::now();
        one.send(TWO, frame(Lane::Control, &bytes));
        while !matches!(next(two).await, TransportEvent::Frame { .. }) {}
        two.send(ONE, frame(Lane::Control, &bytes));
        while !matches!(next(one).await, TransportEvent::Frame { .. }) {}
        taken.push(sent.elapsed());
    }
    taken.sort_unstable();
    let at = |part: usize| taken[taken.len() * part / 100];
    println!(
        "control 100 B: round trip p50 {:?} p99 {:?}",
        at(50),
        at(99)
    );
}

async fn flood(
    mut one: QuicTransport,
    mut two: QuicTransport,
    lane: Lane,
    size: usize,
    time: Duration,
) -> Result<(QuicTransport, QuicTransport), Box<dyn Error>> {
    let bytes = Bytes::from(vec![7; size]);
    let began = Instant::now();
    let end = began + time;
    let sender = tokio::spawn(async move {
        let mut sent = 0_u64;
        'time: while Instant::now() < end {
            for _ in 0..64 {
                if one.send(TWO, frame(lane, &bytes)) != Sent::Queued {
                    while !matches!(next(&mut one).await, TransportEvent::Drained { .. }) {}
                    continue 'time;
                }
                sent += 1;
            }
            tokio::task::yield_now().await;
        }
        (one, sent)
    });
    let receiver = tokio::spawn(async move {
        let mut received = 0_u64;
        while let Ok(event) = tokio::time::timeout(Duration::from_millis(300), next(&mut two)).await
        {
            received += u64::from(matches!(event, TransportEvent::Frame { .. }));
            if Instant::now() >= end {
                break;
            }
        }
        let within = received;
        let took = began.elapsed();
        // What was under way is received too, so that the next measurement starts empty.
        while let Ok(event) = tokio::time::timeout(Duration::from_millis(300), next(&mut two)).await
        {
            received += u64::from(matches!(event, TransportEvent::Frame { .. }));
        }
        (two, within, received, took)
    });
    let (one, sent) = sender.await?;
    let (two, within, total, took) = receiver.await?;
    let rate = within as f64 / took.as_secs_f64();
    println!(
        "{lane:?} {size} B: {:.2} M frames/s, {:.0} MB/s, {sent} sent, {total} received",
        rate / 1e6,
        rate * size as f64 / 1e6
    );
    Ok((one, two))
}
