//! A program without a replica: it reaches three nodes over QUIC, with a key of its own that opens no
//! port but those for clients. The nodes run in this program too, so that it runs alone.

#![allow(clippy::print_stdout, reason = "an example prints")]

use std::error::Error;

use paxos::quic::{ClientKeys, Identity, ListenOptions, QuicConnector, QuicListener};
use paxos::storage::MemoryStorage;
use paxos::{Batch, ClusterId, Consistency, Format, GroupId, Member, Membership, MemoryNetwork};
use paxos::{
    Node, RemoteClient, RemoteOptions, ReplicaId, ServeOptions, StateMachine, async_trait,
};

struct Counter(u64);

#[async_trait]
impl StateMachine for Counter {
    type Command = u64;
    type Reply = u64;
    type Query = ();
    type Answer = u64;

    async fn apply(&mut self, batch: Batch<u64>) -> Vec<u64> {
        let add = |amount| {
            self.0 = self.0.wrapping_add(amount);
            self.0
        };
        batch.commands.into_iter().map(add).collect()
    }

    async fn query(&self, (): ()) -> u64 {
        self.0
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (cluster, network) = (ClusterId::new(0x5eed), MemoryNetwork::new());
    let keys: Vec<_> = (1..=3).map(|_| Identity::generate()).collect::<Result<_, _>>()?;
    let member = |(id, key): (u16, &Identity)| Member {
        keys: vec![key.pin()],
        ..Member::new(ReplicaId::new(id))
    };
    let members: Vec<_> = (1..).zip(&keys).map(member).collect();
    let membership = Membership::majority(members.clone())?;

    // A node lets in whom it is told to: the client's operator tells the pin of the client's key.
    let client_key = Identity::generate()?;
    let (mut running, mut addresses) = (Vec::new(), Vec::new());
    for (mut member, key) in members.into_iter().zip(keys) {
        let (replica, group) = (member.id, GroupId::default());
        let format = Format { cluster, group, replica, membership: membership.clone() };
        let allowed = ClientKeys::Pinned(vec![client_key.pin()]);
        let port = ListenOptions::new(&format, key, allowed).listen("127.0.0.1:0");
        let listener = QuicListener::new(port)?;
        member.addresses.push(listener.local_addr()?.to_string());
        addresses.push(member);
        let node = Node::builder().storage(MemoryStorage::formatted(format));
        let node = node.transport(network.transport(replica)).start(Counter(0)).await?;
        let serving = node.serve(listener, ServeOptions::default())?;
        running.push((node, serving));
    }

    // Elsewhere: a program that knows the nodes' addresses and pins, and its own key.
    let connector = QuicConnector::new(&addresses, client_key)?;
    let client = RemoteClient::<Counter>::connect(connector, RemoteOptions::new(cluster)).await?;
    println!("the counter is {}", client.execute(7).await?);
    println!("read anywhere: {}", client.read(Consistency::Linearizable, ()).await?);
    for (node, _) in running {
        node.shutdown().await;
    }
    Ok(())
}
