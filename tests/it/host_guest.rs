//! A member that breaks the rules of forwarding: the test plays its node.

use std::future::poll_fn;

use paxos::core::ids::{ClientId, RequestNumber};
use paxos::core::port::{Channel, Frame, Lane, Sent, Transport as _, TransportEvent};
use paxos::core::value::{Batch, Command};
use paxos::{Bytes, CommandCodec as _, Incarnation, LogClock, MemoryTransport, Postcard};

use crate::support::{Cluster, Op, id, marked, soon};

/// Replica 3 in strange hands, and the leader that it talks to.
struct Guest {
    cluster: Cluster,
    leader: usize,
    /// The leader's life.
    target: Incarnation,
    transport: MemoryTransport,
    own: Incarnation,
}

/// What a frame says.
#[derive(Clone, Copy)]
struct Forward {
    target: Incarnation,
    origin: Incarnation,
    sequence: u64,
    client: ClientId,
    name: u64,
}

impl Guest {
    async fn new() -> Self {
        let mut cluster = Cluster::start(3).await;
        cluster.nodes[2].take().unwrap().shutdown().await;
        let leader = cluster.leader_among(&[0, 1]).await;
        let own = Incarnation::new(9, 5);
        let mut transport = cluster.network.transport(id(2));
        transport.start(own);
        let target = soon("the link to the leader", async {
            loop {
                match poll_fn(|cx| transport.poll_event(cx)).await {
                    Some(TransportEvent::Up { peer, incarnation }) if peer == id(leader) => {
                        break incarnation;
                    }
                    Some(_) => {}
                    None => panic!("the network is there"),
                }
            }
        })
        .await;
        Self { cluster, leader, target, transport, own }
    }

    /// A forwarded command as it should be; its client is named by replica and life.
    fn honest(&self, sequence: u64, name: u64) -> Forward {
        let (boot, nonce) = (u64::from(self.own.boot()), u64::from(self.own.nonce()));
        let client = ClientId::new(3 << 48 | boot << 16 | nonce);
        Forward { target: self.target, origin: self.own, sequence, client, name }
    }

    /// Sends a frame, written by hand from the picture in the frame's module.
    fn send(&mut self, forward: Forward) {
        let Forward { target, origin, sequence, client, name } = forward;
        let payload = Postcard.encode(&Op::Mark(name)).unwrap();
        let command = Command::apply(client, RequestNumber::new(sequence), payload);
        let batch = Batch::new(LogClock::default(), vec![command]);
        let mut bytes = vec![2, 1, 0, 0, 0, 0, 0, 0];
        for number in [0, origin.bits(), sequence, target.bits()] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend_from_slice(batch.encoded());
        let chunks = vec![Bytes::from(bytes)];
        let frame = Frame { lane: Lane::Log, key: None, channel: Channel::Host, chunks };
        assert_eq!(self.transport.send(id(self.leader), frame), Sent::Queued);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forwarded_command_is_taken_once_for_this_life_and_in_the_senders_own_name() {
    let mut guest = Guest::new().await;
    let honest = guest.honest(1, 10);
    guest.send(honest);
    // Again; for an earlier life of the leader; in the name of a client of the leader itself.
    guest.send(honest);
    let earlier = Incarnation::new(guest.target.boot() - 1, 0);
    guest.send(Forward { target: earlier, ..guest.honest(2, 11) });
    let client = ClientId::new((guest.leader as u64 + 1) << 48);
    guest.send(Forward { client, ..guest.honest(3, 12) });
    // What comes last is looked at last.
    guest.send(guest.honest(4, 13));
    let node = guest.cluster.node(guest.leader);
    let client = node.client();
    soon("the last to be applied", async { while marked(&client, 13).await == 0 {} }).await;
    for (name, times) in [(10, 1), (11, 0), (12, 0), (13, 1)] {
        assert_eq!(marked(&client, name).await, times, "{name}");
    }
    assert_eq!(node.metrics().forwards_ignored, 3);
}
