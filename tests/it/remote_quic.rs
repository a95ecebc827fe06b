//! Remote clients over QUIC, with keys and ports, while the node that they are linked to is lost.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use paxos::quic::{ClientKeys, Identity, ListenOptions, QuicConnector, QuicError, QuicListener};
use paxos::{
    ClientError, ClusterId, ConnectError, Format, GroupId, Member, Membership, RemoteClient,
    RemoteOptions, ServeOptions, Serving,
};

use crate::support::{Cluster, Marks, Op, PATIENCE, id, soon, until};

const REPLICAS: usize = 3;

/// A cluster whose nodes talk in memory, and to their clients over QUIC.
struct Ports {
    cluster: Cluster,
    identities: Vec<Identity>,
    membership: Membership,
    clients: ClientKeys,
    /// The nodes as their clients know them.
    nodes: Vec<Member>,
    serving: Vec<Option<Serving>>,
}

impl Ports {
    async fn open(clients: ClientKeys) -> Self {
        let cluster = Cluster::start(REPLICAS).await;
        let identities: Vec<_> = (0..REPLICAS).map(|_| Identity::generate().unwrap()).collect();
        let member = |(place, identity): (usize, &Identity)| Member {
            keys: vec![identity.pin()],
            ..Member::new(id(place))
        };
        let nodes: Vec<_> = identities.iter().enumerate().map(member).collect();
        let membership = Membership::majority(nodes.clone()).unwrap();
        let serving = (0..REPLICAS).map(|_| None).collect();
        let mut ports = Self { cluster, identities, membership, clients, nodes, serving };
        for place in 0..REPLICAS {
            let address = ports.serve(place, "127.0.0.1:0").await;
            ports.nodes[place].addresses.push(address.to_string());
        }
        ports
    }

    /// Has a node serve at this address, once its former owner has let go of it.
    async fn serve(&mut self, place: usize, address: &str) -> SocketAddr {
        let format = Format {
            cluster: ClusterId::new(7),
            group: GroupId::default(),
            replica: id(place),
            membership: self.membership.clone(),
        };
        let begin = Instant::now();
        let listener = loop {
            let identity = self.identities[place].clone();
            let options = ListenOptions::new(&format, identity, self.clients.clone());
            match QuicListener::new(options.listen(address)) {
                Ok(listener) => break listener,
                Err(error @ QuicError::InUse { .. }) => {
                    assert!(begin.elapsed() < PATIENCE, "{error}");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                Err(error) => panic!("{error}"),
            }
        };
        let address = listener.local_addr().unwrap();
        let node = self.cluster.node(place);
        self.serving[place] = Some(node.serve(listener, ServeOptions::default()).unwrap());
        address
    }

    async fn client(&self, identity: Identity) -> Result<RemoteClient<Marks>, ConnectError> {
        let connector = QuicConnector::new(&self.nodes, identity).unwrap();
        let options = RemoteOptions::new(ClusterId::new(7));
        soon("a link", RemoteClient::connect(connector, options)).await
    }

    /// Kills the node that leads, and starts it again.
    async fn kill_leader(&mut self) {
        let leader = self.cluster.leader().await;
        drop(self.serving[leader].take());
        drop(self.cluster.nodes[leader].take());
        let name = format!("{:?}", id(leader));
        let network = self.cluster.network.clone();
        until("the former life's end", || !format!("{network:?}").contains(&name)).await;
        self.cluster.start_node(leader, Marks::default()).await;
        let address = self.nodes[leader].addresses[0].clone();
        self.serve(leader, &address).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_over_quic_are_applied_once_while_their_nodes_are_killed() {
    const MARKS: u64 = 150;
    let identity = Identity::generate().unwrap();
    let mut ports = Ports::open(ClientKeys::Pinned(vec![identity.pin()])).await;
    let client = ports.client(identity).await.unwrap().with_timeout(PATIENCE * 2);
    let sender = client.clone();
    let marking = tokio::spawn(async move {
        let mut replies = Vec::new();
        for _ in 0..MARKS {
            replies.push(sender.execute(Op::Mark(1)).await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        replies
    });
    for _ in 0..3 {
        ports.kill_leader().await;
    }
    let replies = soon("all replies", marking).await.unwrap();
    let expected: Vec<Result<u64, ClientError>> = (1..=MARKS).map(Ok).collect();
    assert_eq!(replies, expected);
    assert_eq!(soon("an answer", client.query(1)).await, Ok(MARKS));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_with_another_key_is_told_by_every_node() {
    let identity = Identity::generate().unwrap();
    let ports = Ports::open(ClientKeys::Pinned(vec![identity.pin()])).await;
    let stranger = ports.client(Identity::generate().unwrap()).await;
    let Err(ConnectError::Unreachable(tried)) = stranger else { panic!("{stranger:?}") };
    assert_eq!(tried.len(), REPLICAS);
    for (replica, why) in tried {
        assert!(why.contains("not that of a client who is let in"), "{replica}: {why}");
    }
}

/// The example runs alone, as its reader would run it.
#[test]
fn the_example_runs() {
    let program = crate::programs::built(&["remote_client"]).join("remote_client");
    let output = std::process::Command::new(program).output().unwrap();
    let words = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(words, "the counter is 7\nread anywhere: 7\n");
}
