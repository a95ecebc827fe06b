//! Nodes with everything that a deployment has: logs in directories, and QUIC between sockets.

use std::net::UdpSocket;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use paxos::core::output::ReconfigureError as Refusal;
use paxos::quic::{Identity, QuicError, QuicOptions, QuicTransport};
use paxos::storage::{Wal, WalOptions};
use paxos::{
    Change, ClientError, ClusterId, Config, Format, GroupId, Halt, Member, Membership, Node,
    NodeOptions, ReconfigureError, StartError, StopReason, Uncertainty,
};
use tempfile::TempDir;

use crate::support::{Marks, Op, PATIENCE, config, id, soon, until};

const REPLICAS: usize = 3;

struct Deployment {
    scratch: TempDir,
    membership: Membership,
    /// What the directories of those that came later were formatted with.
    joined: Option<Membership>,
    nodes: Vec<Option<Node<Marks>>>,
    /// The count that was answered last, and the highest that there may be.
    acknowledged: u64,
    possible: u64,
}

impl Deployment {
    async fn start() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        // All are held until the last is known, so that they differ.
        let sockets: Vec<_> =
            (0..REPLICAS).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        let members = sockets.iter().enumerate().map(|(place, socket)| {
            let home = scratch.path().join(place.to_string());
            std::fs::create_dir(&home).unwrap();
            let identity = Identity::load_or_generate(home.join("key.pem")).unwrap();
            let mut member = Member::new(id(place));
            member.addresses.push(socket.local_addr().unwrap().to_string());
            member.keys.push(identity.pin());
            member
        });
        let membership = Membership::majority(members.collect()).unwrap();
        drop(sockets);
        let nodes = (0..REPLICAS).map(|_| None).collect();
        let joined = None;
        let mut deployment =
            Self { scratch, membership, joined, nodes, acknowledged: 0, possible: 0 };
        for place in 0..REPLICAS {
            deployment.start_node(place).await.unwrap();
        }
        deployment
    }

    /// A member with a key and a port of its own, that nobody was told of.
    fn newcomer(&self) -> Member {
        let place = self.nodes.len();
        std::fs::create_dir(self.home(place)).unwrap();
        let identity = Identity::load_or_generate(self.home(place).join("key.pem")).unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut member = Member::new(id(place));
        member.addresses.push(socket.local_addr().unwrap().to_string());
        member.keys.push(identity.pin());
        member
    }

    fn home(&self, place: usize) -> PathBuf {
        self.scratch.path().join(place.to_string())
    }

    async fn start_node(&mut self, place: usize) -> Result<(), StartError> {
        let joined = self.joined.as_ref().filter(|_| place >= REPLICAS);
        let format = Format {
            cluster: ClusterId::new(7),
            group: GroupId::default(),
            replica: id(place),
            membership: joined.unwrap_or(&self.membership).clone(),
        };
        let log = self.home(place).join("log");
        let options = WalOptions { segment_bytes: 1 << 20, ..WalOptions::default() };
        let storage = Wal::open_or_format(log, &format, options).unwrap();
        let node = Node::builder()
            .storage(storage)
            .transport(self.transport(place, &format).await)
            .config(Config { election_timeout: Duration::from_secs(1), ..config() })
            .options(NodeOptions { request_timeout: PATIENCE, ..NodeOptions::default() })
            .start(Marks::default())
            .await?;
        self.nodes[place] = Some(node);
        Ok(())
    }

    /// A transport on the socket of this place, once its former owner has let go of it.
    async fn transport(&self, place: usize, format: &Format) -> QuicTransport {
        let begin = Instant::now();
        loop {
            let identity = Identity::load(self.home(place).join("key.pem")).unwrap();
            match QuicTransport::new(QuicOptions::new(format, identity)) {
                Ok(transport) => return transport,
                Err(error @ QuicError::InUse { .. }) => {
                    assert!(begin.elapsed() < PATIENCE, "{error}");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Counts once more at this place, and checks the count against what is known of it.
    async fn mark(&mut self, place: usize) {
        let client = self.nodes[place].as_ref().unwrap().client();
        loop {
            match soon("an answer", client.execute(Op::Mark(1))).await {
                Ok(count) => {
                    let (least, most) = (self.acknowledged + 1, self.possible + 1);
                    assert!((least..=most).contains(&count), "{count} not in {least}..={most}");
                    (self.acknowledged, self.possible) = (count, count);
                    return;
                }
                // While leaders change; certainly not applied.
                Err(ClientError::Rejected(_)) => {}
                // It was sent to a leader that was just shut down, or over a link of which nobody
                // knew yet that its other end was gone.
                Err(ClientError::Unknown(Uncertainty::LeaderChanged | Uncertainty::LinkLost)) => {
                    self.possible += 1;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Makes a change, asked again while leaders and the change before it take their time.
    async fn change(&self, change: &Change) {
        soon("a change", async {
            loop {
                for node in self.nodes.iter().flatten() {
                    match node.reconfigure(change.clone()).await {
                        Ok(_) => return,
                        Err(ReconfigureError::Refused(Refusal::Change(error))) => panic!("{error}"),
                        Err(ReconfigureError::Links(why)) => panic!("{why}"),
                        Err(_) => {}
                    }
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }

    async fn shut_down(&mut self, place: usize) {
        let reason = soon("the end", self.nodes[place].take().unwrap().shutdown()).await;
        assert!(matches!(reason, StopReason::Shutdown), "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_over_quic_and_logs_keep_everything_over_restarts_and_refuse_a_wiped_one() {
    let mut deployment = Deployment::start().await;
    for place in [0, 1, 2, 0, 1, 2] {
        deployment.mark(place).await;
    }
    // One is away, and finds what it missed.
    deployment.shut_down(1).await;
    for place in [0, 2] {
        deployment.mark(place).await;
    }
    deployment.start_node(1).await.unwrap();
    deployment.mark(1).await;
    // All are away, and find what they knew.
    for place in 0..REPLICAS {
        deployment.shut_down(place).await;
    }
    for place in 0..REPLICAS {
        deployment.start_node(place).await.unwrap();
    }
    for place in 0..REPLICAS {
        deployment.mark(place).await;
    }
    // One forgets everything, and is told so; so does its next start.
    deployment.shut_down(2).await;
    std::fs::remove_dir_all(deployment.home(2).join("log")).unwrap();
    deployment.start_node(2).await.unwrap();
    let reason = soon("the end", deployment.nodes[2].as_ref().unwrap().stopped()).await;
    assert!(matches!(reason, StopReason::Halt(_)), "{reason}");
    assert!(reason.to_string().contains("its data directory was wiped"), "{reason}");
    drop(deployment.nodes[2].take());
    let error = deployment.start_node(2).await.unwrap_err();
    assert!(error.to_string().contains("put back the newest directory"), "{error}");
    deployment.mark(0).await;
}

/// Addresses and keys of new members reach the transports of the old ones by the log, and nowhere else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_joins_is_linked_by_what_the_log_says_and_one_that_left_is_not() {
    let mut deployment = Deployment::start().await;
    deployment.mark(0).await;
    let new = deployment.newcomer();
    // A key that is another member's proves nothing, and is refused before anything is proposed.
    let thief = Member { keys: deployment.membership.voters()[0].keys.clone(), ..new.clone() };
    soon("a refusal", async {
        loop {
            for node in deployment.nodes.iter().flatten() {
                let outcome = node.reconfigure(Change::AddVoter(thief.clone())).await;
                if let Err(ReconfigureError::Links(why)) = outcome {
                    assert!(why.contains("have the same key pinned"), "{why}");
                    return;
                }
                assert!(outcome.is_err());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    deployment.change(&Change::AddVoter(new)).await;
    let node = deployment.nodes[0].as_ref().unwrap();
    until("the member to be known", || node.membership().contains(id(3))).await;
    deployment.joined = Some(node.membership());
    deployment.nodes.push(None);
    deployment.start_node(3).await.unwrap();
    let votes = |deployment: &Deployment, place: usize| {
        let node = deployment.nodes[place].as_ref().unwrap();
        node.membership().voter_index(id(3)).is_some()
    };
    until("its vote", || (0..4).all(|place| votes(&deployment, place))).await;
    deployment.mark(3).await;
    // One leaves, and it and all others go on from their logs: who was formatted with it knows it no more.
    deployment.change(&Change::Remove(id(0))).await;
    let reason = soon("the end", deployment.nodes[0].as_ref().unwrap().stopped()).await;
    assert!(matches!(reason, StopReason::Halt(Halt::Removed { .. })), "{reason}");
    drop(deployment.nodes[0].take());
    let gone = |node: &Node<Marks>| !node.membership().contains(id(0));
    until("all to know", || deployment.nodes.iter().flatten().all(gone)).await;
    deployment.mark(1).await;
    for place in 1..4 {
        deployment.shut_down(place).await;
    }
    for place in 1..4 {
        deployment.start_node(place).await.unwrap();
    }
    deployment.mark(2).await;
    let connected = |place: usize| {
        let node = deployment.nodes[place].as_ref().unwrap();
        node.status().replica.connected_peers.len()
    };
    until("their links", || (1..4).all(|place| connected(place) == 2)).await;
}
