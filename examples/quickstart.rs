//! A replicated counter: three replicas, durable, over QUIC with mutual TLS, in one program.
//! On three machines each one starts its own replica; only the keys' pins are exchanged before.

#![allow(clippy::print_stdout, reason = "an example prints")]

use std::{env, error::Error, fs, path::Path};

use paxos::quic::{Identity, QuicOptions, QuicTransport};
use paxos::storage::{Wal, WalOptions};
use paxos::{Batch, ClusterId, Format, GroupId, Member, Membership, Node, ReplicaId, StateMachine};

/// The state: what every replica holds.
struct Counter(u64);

#[paxos::async_trait]
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
    let dir = env::args().nth(1).unwrap_or("quickstart-data".into());
    let home = |id: u16| Path::new(&dir).join(id.to_string());

    // Each replica makes its key once, and tells the others its pin and where it can be reached.
    let (mut members, mut identities) = (Vec::new(), Vec::new());
    for id in 1..=3 {
        fs::create_dir_all(home(id))?;
        let identity = Identity::load_or_generate(home(id).join("key.pem"))?;
        let addresses = vec![format!("127.0.0.1:{}", 7200 + id)];
        members.push(Member { id: ReplicaId::new(id), addresses, keys: vec![identity.pin()] });
        identities.push(identity);
    }
    let membership = Membership::majority(members)?;

    // The same on every machine, with another id.
    let mut nodes = Vec::new();
    for (id, identity) in (1..=3).zip(identities) {
        let format = Format {
            cluster: ClusterId::new(0x5eed),
            group: GroupId::default(),
            replica: ReplicaId::new(id),
            membership: membership.clone(),
        };
        // Formats what is missing. Where a disk may fail to be mounted, use Wal::format once, then
        // Wal::open: an empty log under a known id is refused by the others, for good.
        let options = WalOptions { segment_bytes: 4 << 20, ..WalOptions::default() };
        let storage = Wal::open_or_format(home(id).join("log"), &format, options)?;
        let transport = QuicTransport::new(QuicOptions::new(&format, identity))?;
        let node = Node::builder().storage(storage).transport(transport);
        nodes.push(node.start(Counter(0)).await?);
    }

    // Every node takes every command.
    let before = nodes[0].client().query(()).await?;
    println!("the counter was {before} when this run began");
    for (id, node) in (1..).zip(&nodes) {
        println!("replica {id} made it {}", node.client().execute(1).await?);
    }
    for node in nodes {
        node.shutdown().await;
    }
    Ok(())
}
