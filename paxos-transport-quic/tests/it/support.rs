//! Clusters of transports on ports that the system chose, and waiting with a deadline.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use bytes::Bytes;
use paxos_core::ids::{ClusterId, Epoch, GroupId, Incarnation, ReplicaId};
use paxos_core::membership::{Member, Membership, WINDOW_DEFAULT};
use paxos_core::port::{
    Channel, CoalesceKey, Format, Frame, Lane, Sent, Transport, TransportEvent,
};
use paxos_core::quorum::QuorumRule;
use paxos_transport_quic::{Identity, Limits, QuicError, QuicHandle, QuicOptions, QuicTransport};

/// Longer than anything takes; short enough to fail in time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const CLUSTER: ClusterId = ClusterId::new(0x00c1_0c1d);

pub(crate) fn id(number: u16) -> ReplicaId {
    ReplicaId::new(number)
}

pub(crate) fn life(boot: u32) -> Incarnation {
    Incarnation::new(boot, 7)
}

pub(crate) fn frame(lane: Lane, bytes: impl Into<Bytes>) -> Frame {
    Frame {
        lane,
        key: None,
        channel: Channel::Core,
        chunks: vec![bytes.into()],
    }
}

pub(crate) fn keyed(lane: Lane, key: u64, bytes: impl Into<Bytes>) -> Frame {
    Frame {
        key: Some(CoalesceKey(key)),
        ..frame(lane, bytes)
    }
}

pub(crate) fn membership(members: Vec<Member>) -> Membership {
    Membership::new(
        Epoch::FIRST,
        members,
        Vec::new(),
        QuorumRule::Majority,
        WINDOW_DEFAULT,
    )
    .unwrap()
}

pub(crate) fn format(replica: ReplicaId, membership: &Membership) -> Format {
    Format {
        cluster: CLUSTER,
        group: GroupId::new(0),
        replica,
        membership: membership.clone(),
    }
}

pub(crate) fn bind() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// A replica's part of a cluster before its transport is made.
pub(crate) struct Seat {
    pub(crate) id: ReplicaId,
    pub(crate) identity: Option<Identity>,
    pub(crate) socket: Option<UdpSocket>,
    pub(crate) member: Member,
}

impl Seat {
    pub(crate) fn new(number: u16) -> Self {
        let (socket, address) = bind();
        let identity = Identity::generate().unwrap();
        let mut member = Member::new(id(number));
        member.addresses.push(address.to_string());
        member.keys.push(identity.pin());
        Self {
            id: member.id,
            identity: Some(identity),
            socket: Some(socket),
            member,
        }
    }

    pub(crate) fn options(&mut self, membership: &Membership) -> QuicOptions {
        QuicOptions::new(&format(self.id, membership), self.identity.take().unwrap())
            .socket(self.socket.take().unwrap())
    }
}

pub(crate) fn seats(count: u16) -> (Vec<Seat>, Membership) {
    let seats: Vec<_> = (1..=count).map(Seat::new).collect();
    let members = seats.iter().map(|seat| seat.member.clone()).collect();
    (seats, membership(members))
}

/// Started transports of replicas 1 to `count`, each in life 1.
pub(crate) fn cluster(count: u16, limits: &Limits) -> Vec<Host> {
    let (seats, membership) = seats(count);
    let start = |mut seat: Seat| {
        let options = seat.options(&membership).limits(limits.clone());
        Host::start(options, life(1))
    };
    seats.into_iter().map(start).collect()
}

/// A transport and the events that a test did not look at yet.
pub(crate) struct Host {
    pub(crate) transport: QuicTransport,
    pub(crate) handle: QuicHandle,
    seen: VecDeque<TransportEvent>,
}

impl Host {
    pub(crate) fn start(options: QuicOptions, incarnation: Incarnation) -> Self {
        Self::wrap(QuicTransport::new(options).unwrap(), incarnation)
    }

    pub(crate) fn wrap(mut transport: QuicTransport, incarnation: Incarnation) -> Self {
        transport.start(incarnation);
        Self {
            handle: transport.handle(),
            transport,
            seen: VecDeque::new(),
        }
    }

    pub(crate) fn send(&mut self, to: u16, frame: Frame) -> Sent {
        self.transport.send(id(to), frame)
    }

    /// The next event, or nothing if there is none within `time`.
    pub(crate) async fn next_within(&mut self, time: Duration) -> Option<TransportEvent> {
        if let Some(event) = self.seen.pop_front() {
            return Some(event);
        }
        let next = poll_fn(|cx| self.transport.poll_event(cx));
        tokio::time::timeout(time, next).await.ok().flatten()
    }

    /// The first event that `wanted` accepts. Those before it stay for later calls.
    pub(crate) async fn wait<T>(
        &mut self,
        what: &str,
        mut wanted: impl FnMut(&TransportEvent) -> Option<T>,
    ) -> T {
        let mut kept = VecDeque::new();
        let deadline = Instant::now() + PATIENCE;
        let found = loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Some(event) = self.next_within(left).await else {
                panic!("waited in vain for {what}; seen: {kept:?}");
            };
            match wanted(&event) {
                Some(found) => break found,
                None => kept.push_back(event),
            }
        };
        kept.append(&mut self.seen);
        self.seen = kept;
        found
    }

    pub(crate) async fn up(&mut self, peer: u16) -> Incarnation {
        self.wait(&format!("the link to {peer}"), |event| match event {
            TransportEvent::Up {
                peer: up,
                incarnation,
            } if *up == id(peer) => Some(*incarnation),
            _ => None,
        })
        .await
    }

    pub(crate) async fn down(&mut self, peer: u16) -> String {
        self.wait(&format!("the loss of {peer}"), |event| match event {
            TransportEvent::Down { peer: down, reason } if *down == id(peer) => {
                Some(reason.clone())
            }
            _ => None,
        })
        .await
    }

    pub(crate) async fn refused(&mut self, part: &str) -> (Option<ReplicaId>, String) {
        self.wait(&format!("a refusal with {part:?}"), |event| match event {
            TransportEvent::Refused { peer, reason } if reason.contains(part) => {
                Some((*peer, reason.clone()))
            }
            _ => None,
        })
        .await
    }

    pub(crate) async fn frame(&mut self) -> Bytes {
        self.wait("a frame", |event| match event {
            TransportEvent::Frame { bytes, .. } => Some(bytes.clone()),
            _ => None,
        })
        .await
    }

    pub(crate) async fn drained(&mut self, lane: Lane) {
        self.wait("room on a lane", |event| match event {
            TransportEvent::Drained { lane: drained, .. } if *drained == lane => Some(()),
            _ => None,
        })
        .await;
    }

    /// Everything that happens within `time`.
    pub(crate) async fn all_within(&mut self, time: Duration) -> Vec<TransportEvent> {
        let deadline = Instant::now() + time;
        let mut events = Vec::new();
        while let Some(event) = self
            .next_within(deadline.saturating_duration_since(Instant::now()))
            .await
        {
            events.push(event);
        }
        events
    }
}

/// Polls until `holds`, or fails.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A transport on an address that an earlier one may still be leaving.
pub(crate) async fn rebind(mut options: impl FnMut() -> QuicOptions) -> QuicTransport {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match QuicTransport::new(options()) {
            Ok(transport) => return transport,
            Err(QuicError::InUse { .. }) if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}
