//! Clients that are not replicas: the rules of docs/format-client.md, over pipes in memory.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::join_all;
use paxos::core::port::ClientLink;
use paxos::{
    ClientError, ClusterId, ConnectError, Consistency, Delivery, MemoryNetwork, NodeOptions,
    Rejection, RemoteClient, RemoteOptions, ReplicaId, ServeOptions, Serving, Slot, Uncertainty,
};

use crate::remote_link::{PipeLink, Pipes};
use crate::support::{Cluster, Marks, Op, PATIENCE, id, mark, marked, soon, until};

const SOON: Duration = Duration::from_secs(1);

/// A cluster whose nodes serve remote clients over pipes.
struct Served {
    cluster: Cluster,
    pipes: Pipes,
    serving: Vec<Serving>,
}

impl Served {
    async fn start(replicas: usize, options: ServeOptions) -> Self {
        let cluster = Cluster::with(replicas, NodeOptions::default()).await;
        let mut served = Self { cluster, pipes: Pipes::default(), serving: Vec::new() };
        for place in 0..replicas {
            let serving = served.serve(place, options.clone());
            served.serving.push(serving);
        }
        served
    }

    fn serve(&self, place: usize, options: ServeOptions) -> Serving {
        let listener = self.pipes.listener(id(place));
        self.cluster.node(place).serve(listener, options).unwrap()
    }

    async fn client(&self) -> RemoteClient<Marks> {
        self.client_with(options()).await
    }

    async fn client_with(&self, options: RemoteOptions) -> RemoteClient<Marks> {
        let connecting = RemoteClient::connect(self.pipes.clone(), options);
        soon("a link", connecting).await.unwrap()
    }

    fn network(&self) -> &MemoryNetwork {
        &self.cluster.network
    }
}

fn options() -> RemoteOptions {
    RemoteOptions::new(ClusterId::new(7))
}

/// Marks a name, again while leaders change.
async fn remote_mark(client: &RemoteClient<Marks>, name: u64) -> Result<u64, ClientError> {
    soon("a reply", async {
        loop {
            let outcome = client.execute(Op::Mark(name)).await;
            let gone = ClientError::Rejected(Rejection::Superseded);
            let none = ClientError::Rejected(Rejection::NoLeader);
            if outcome != Err(gone) && outcome != Err(none) {
                return outcome;
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_remote_client_executes_and_reads_as_one_in_the_process() {
    let served = Served::start(3, ServeOptions::default()).await;
    let client = served.client().await;
    for count in 1..=20 {
        assert_eq!(remote_mark(&client, 1).await, Ok(count));
        let local = served.cluster.node(count as usize % 3).client();
        assert_eq!(marked(&local, 1).await, count);
        assert_eq!(soon("an answer", client.query(1)).await, Ok(count));
    }
    let applied = served.cluster.node(0).status().replica.applied;
    let levels = [
        (Consistency::AtLeast(applied), 20),
        (Consistency::Stale { lag_max: Duration::from_secs(3600) }, 20),
        (Consistency::Stale { lag_max: Duration::ZERO }, 20),
    ];
    for (consistency, count) in levels {
        let answer = soon("an answer", client.read(consistency, 1)).await;
        assert_eq!(answer, Ok(count), "{consistency:?}");
    }
    // Many at once, over one link, each with its own reply.
    let marks = (100..400).map(|name| remote_mark(&client, name));
    assert!(join_all(marks).await.into_iter().all(|reply| reply == Ok(1)));
    assert_eq!(served.serving.iter().map(|serving| serving.status().links).sum::<u64>(), 1);
    // Errors are those of the node.
    let hasty = client.clone().with_timeout(SOON);
    let far = hasty.read(Consistency::AtLeast(Slot::new(1 << 40)), 1);
    assert_eq!(soon("an end", far).await, Err(ClientError::Rejected(Rejection::TimedOut)));
    let large = client.execute(Op::Weight(vec![1; 1 << 20]));
    let outcome = soon("an end", large).await;
    assert!(
        matches!(outcome, Err(ClientError::Rejected(Rejection::TooLarge { .. }))),
        "{outcome:?}"
    );
    // Less the heads of a batch, of a command, of its place in a session, and of its bytes.
    let len = (1 << 20) - 12 - 32 - 24 - 4;
    let largest = client.execute(Op::Weight(vec![1; len]));
    assert_eq!(soon("a reply", largest).await, Ok(len as u64));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_goes_to_the_leader_and_stays_where_it_is_told_to() {
    let served = Served::start(3, ServeOptions::default()).await;
    let leader = served.cluster.leader().await;
    let (other, last) = (id((leader + 1) % 3), id((leader + 2) % 3));
    served.pipes.set_order(&[other, last, id(leader)]);
    let client = served.client().await;
    assert_eq!(remote_mark(&client, 1).await, Ok(1));
    assert_eq!(served.pipes.laid(), [other, id(leader)]);
    let mut stays = options();
    stays.follow_leader = false;
    let client = served.client_with(stays).await;
    assert_eq!(remote_mark(&client, 1).await, Ok(2));
    assert_eq!(served.pipes.laid(), [other, id(leader), other]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c3_what_was_sent_is_sent_again_in_a_session_alone_and_a_read_anyhow() {
    let served = Served::start(3, ServeOptions::default()).await;
    let leader = served.cluster.leader().await;
    let client = served.client().await;
    assert_eq!(remote_mark(&client, 1).await, Ok(1));
    // The leader proposes what no quorum accepts, and its client's link falls.
    served.network().isolate(id(leader));
    let requests = || served.serving[leader].status().requests;
    let before = requests();
    let send = |name, delivery| {
        let client = client.clone().with_timeout(PATIENCE);
        tokio::spawn(async move { client.execute_with(delivery, Op::Mark(name)).await })
    };
    let plain = send(2, Delivery::AtMostOnce);
    let once = send(4, Delivery::ExactlyOnce);
    let asker = client.clone().with_timeout(PATIENCE);
    let read = tokio::spawn(async move { asker.query(1).await });
    until("all are taken", || requests() >= before + 3).await;
    served.pipes.cut();
    let outcome = soon("an end", plain).await.unwrap();
    assert_eq!(outcome, Err(ClientError::Unknown(Uncertainty::LinkLost)));
    served.network().heal();
    assert_eq!(soon("an answer", read).await.unwrap(), Ok(1));
    let applied = soon("a reply", once).await.unwrap().unwrap();
    assert_eq!(applied.reply, 1);
    // What was sent once may be applied, but once at most; the other is, wherever it is looked for.
    let seen = client.read(Consistency::AtLeast(applied.slot), 4);
    assert_eq!(soon("an answer", seen).await, Ok(1));
    assert!(soon("an answer", client.query(2)).await.unwrap() <= 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c4_what_no_node_can_serve_is_rejected_and_certainly_not_applied() {
    let served = Served::start(3, ServeOptions::default()).await;
    let leader = served.cluster.leader().await;
    let client = served.client().await.with_timeout(SOON);
    assert_eq!(remote_mark(&client, 1).await, Ok(1));
    // Its node finds no leader: others are asked, while the time lasts.
    served.network().isolate(id(leader));
    until("a leader that gave up", || !served.cluster.node(leader).watch().borrow().is_leader)
        .await;
    let patient = client.clone().with_timeout(Duration::from_secs(20));
    assert_eq!(soon("an answer", patient.query(1)).await, Ok(1));
    served.network().heal();
    // Nothing is reached: what was not sent certainly is not applied, then or later.
    let doors: Vec<_> = (0..3).map(|place| served.pipes.listener(id(place))).collect();
    drop(doors);
    served.pipes.cut();
    let lost = soon("an end", client.execute(Op::Mark(5))).await;
    let known = [
        Err(ClientError::Rejected(Rejection::Unreachable)),
        // It was sent before the client saw the cut.
        Err(ClientError::Unknown(Uncertainty::Timeout)),
    ];
    assert!(known.contains(&lost), "{lost:?}");
    let outcome = soon("an end", client.execute(Op::Mark(6))).await;
    assert_eq!(outcome, Err(ClientError::Rejected(Rejection::Unreachable)));
    let again: Vec<_> = (0..3).map(|place| served.serve(place, ServeOptions::default())).collect();
    let patient = client.clone().with_timeout(Duration::from_secs(20));
    assert_eq!(soon("an answer", patient.query(6)).await, Ok(0));
    assert_eq!(again.iter().map(|serving| serving.status().links).sum::<u64>(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_changes_nodes_as_they_stop() {
    let mut served = Served::start(3, ServeOptions::default()).await;
    let leader = served.cluster.leader().await;
    let other = (leader + 1) % 3;
    served.pipes.set_order(&[id(other), id((leader + 2) % 3), id(leader)]);
    let mut stays = options();
    stays.follow_leader = false;
    let client = served.client_with(stays).await.with_timeout(Duration::from_secs(20));
    assert_eq!(remote_mark(&client, 1).await, Ok(1));
    let marks = join_all((0..200).map(|_| client.execute(Op::Mark(1))));
    let node = served.cluster.nodes[other].take().unwrap();
    let (outcomes, _) = futures::join!(marks, node.shutdown());
    // What the node had taken it finished; the rest went elsewhere, once.
    let mut replies: Vec<_> = outcomes.into_iter().map(Result::unwrap).collect();
    replies.sort_unstable();
    assert_eq!(replies, (2..=201).collect::<Vec<_>>());
    assert_eq!(served.serving[other].status().links, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connecting_says_of_each_node_why_it_is_not_reached() {
    let served = Served::start(3, ServeOptions::default()).await;
    let pipes = Pipes::default();
    let connect = |pipes: &Pipes, options| RemoteClient::<Marks>::connect(pipes.clone(), options);
    let error = soon("an end", connect(&pipes, options())).await.unwrap_err();
    assert_eq!(error, ConnectError::NoNodes);
    pipes.set_order(&[id(0), id(2)]);
    let error = soon("an end", connect(&pipes, options())).await.unwrap_err();
    let ConnectError::Unreachable(tried) = &error else { panic!("{error}") };
    assert_eq!(tried.iter().map(|(replica, _)| *replica).collect::<Vec<_>>(), [id(0), id(2)]);
    let mut none = options();
    none.requests_max = 0;
    let error = soon("an end", connect(&served.pipes, none)).await.unwrap_err();
    assert!(matches!(error, ConnectError::Options(_)), "{error}");
    let mut strangers = options();
    strangers.cluster = ClusterId::new(8);
    let error = soon("an end", connect(&served.pipes, strangers)).await.unwrap_err();
    assert!(matches!(error, ConnectError::Unreachable(_)), "{error}");
    let cut: u64 = served.serving.iter().map(|serving| serving.status().links_cut).sum();
    assert_eq!(cut, 3, "each node said that it is of another cluster");
}

/// How many commands are sent while leaders are killed and links cut, and how many at once.
const MARKS: u64 = 600;
const AT_ONCE: u64 = 12;

/// C3: with a retry and without a session, what was applied before its link fell is applied twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c3_every_command_is_applied_once_while_leaders_are_killed_and_links_cut() {
    let mut served = Served::start(3, ServeOptions::default()).await;
    let client = served.client().await.with_timeout(PATIENCE * 2);
    let senders: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move {
                let mut replies = Vec::new();
                for _ in 0..MARKS / AT_ONCE {
                    replies.push(client.execute(Op::Mark(1)).await);
                    tokio::time::sleep(Duration::from_millis(30)).await;
                }
                replies
            })
        })
        .collect();
    let mut kills = 0;
    while !senders.iter().all(tokio::task::JoinHandle::is_finished) {
        for _ in 0..4 {
            tokio::time::sleep(Duration::from_millis(60)).await;
            served.pipes.cut();
        }
        if kills < 4 {
            let leader = served.cluster.leader().await;
            drop(served.cluster.nodes[leader].take());
            let name = format!("{:?}", id(leader));
            let network = served.network().clone();
            until("the former life's end", || !format!("{network:?}").contains(&name)).await;
            served.cluster.start_node(leader, Marks::default()).await;
            served.serving[leader] = served.serve(leader, ServeOptions::default());
            kills += 1;
        }
    }
    let mut replies = Vec::new();
    for sender in senders {
        replies.extend(sender.await.unwrap().into_iter().map(Result::unwrap));
    }
    // Each count was replied to one command.
    replies.sort_unstable();
    assert_eq!(replies, (1..=MARKS).collect::<Vec<_>>());
    assert_eq!(soon("an answer", client.query(1)).await, Ok(MARKS));
    let links = served.pipes.laid().len();
    assert!(kills == 4 && links > 20, "{kills} kills, {links} links");
    let again: u64 =
        (0..3).map(|place| served.cluster.node(place).metrics().commands_repeated).sum();
    assert!(again > 0, "no command came twice: nothing was shown");
}

// ---------------------------------------------------------------------------------------------
// By hand

/// A client that says what it likes.
struct Hand {
    link: PipeLink,
    /// What the node closed its end with.
    closed: Arc<Mutex<Option<String>>>,
}

impl Hand {
    fn new(pipes: &Pipes, to: ReplicaId, key: u8) -> Self {
        let (link, closed) = pipes.lay(to, Some([key; 32])).unwrap();
        Self { link, closed }
    }

    async fn greeted(pipes: &Pipes, to: ReplicaId, key: u8) -> Self {
        let mut hand = Self::new(pipes, to, key);
        hand.say(&hello(7)).await;
        assert_eq!(hand.frame().await[..4], *b"\x02PXC");
        hand
    }

    async fn say(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let link = &mut self.link;
            let write = std::future::poll_fn(|cx| link.poll_write(cx, bytes));
            let count = soon("room", write).await.expect("the node reads");
            bytes = &bytes[count..];
        }
    }

    async fn read(&mut self, into: &mut [u8]) -> usize {
        let link = &mut self.link;
        let read = std::future::poll_fn(|cx| link.poll_read(cx, into));
        soon("bytes", read).await.unwrap_or(0)
    }

    async fn exactly(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        let mut filled = 0;
        while filled < count {
            let read = self.read(&mut bytes[filled..]).await;
            assert!(read > 0, "the link ended: {:?}", self.closed.lock().unwrap());
            filled += read;
        }
        bytes
    }

    async fn frame(&mut self) -> Vec<u8> {
        let length = self.exactly(4).await;
        let length = u32::from_le_bytes(length.try_into().unwrap());
        self.exactly(length as usize).await
    }

    /// Reads to the end, and returns why the node ended it.
    async fn ended(&mut self) -> String {
        let mut buffer = [0; 1024];
        while self.read(&mut buffer).await > 0 {}
        self.closed.lock().unwrap().clone().expect("the node closed it and said why")
    }
}

fn framed(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32).to_le_bytes()[..], body].concat()
}

fn hello(cluster: u128) -> Vec<u8> {
    let mut body = b"\x01PXC\x02\0\0\0".to_vec();
    body.extend_from_slice(&(1_u32 << 20).to_le_bytes());
    body.extend_from_slice(&[0; 4]);
    body.extend_from_slice(&cluster.to_le_bytes());
    body.extend_from_slice(&[0; 8]);
    framed(&body)
}

fn request(kind: u8, number: u64, payload: &[u8]) -> Vec<u8> {
    let mut body = vec![kind, 0, 0, 0];
    body.extend_from_slice(&5000_u32.to_le_bytes());
    body.extend_from_slice(&number.to_le_bytes());
    body.extend_from_slice(payload);
    framed(&body)
}

fn linearizable(number: u64, name: u8) -> Vec<u8> {
    request(4, number, &[&[0; 8][..], &[name]].concat())
}

/// C2: a command that no codec reads would be chosen, and stop every node at its slot.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c2_bytes_that_the_codec_does_not_read_are_not_proposed() {
    let served = Served::start(3, ServeOptions::default()).await;
    let client = served.client().await;
    assert_eq!(remote_mark(&client, 1).await, Ok(1));
    let mut hand = Hand::greeted(&served.pipes, id(0), 1).await;
    // No variant 9; a variant without its field; bytes behind the end; no such query.
    let wrong: [(u8, &[u8]); 4] =
        [(3, &[9]), (3, &[0]), (3, &[0, 1, 0]), (4, &[0, 0, 0, 0, 0, 0, 0, 0, 1, 1])];
    for (number, (kind, payload)) in (1..).zip(wrong) {
        hand.say(&request(kind, number, payload)).await;
        let answer = hand.frame().await;
        assert_eq!(answer[..2], [6, 8], "rejected by the codec: {answer:?}");
        assert_eq!(answer[8..16], number.to_le_bytes());
    }
    // The same link goes on, and so do all nodes.
    hand.say(&request(3, 9, &[0, 1])).await;
    let answer = hand.frame().await;
    assert_eq!((answer[0], &answer[8..16], &answer[24..]), (5, &9_u64.to_le_bytes()[..], &[2][..]));
    for place in 0..3 {
        assert_eq!(marked(&served.cluster.node(place).client(), 1).await, 2);
    }
}

/// C1: the session of a node's own clients has a name that a remote client could work out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c1_no_client_gets_into_the_session_of_a_nodes_own() {
    let served = Served::start(1, ServeOptions::default()).await;
    let local = served.cluster.node(0).client();
    assert_eq!(mark(&local, 1).await, Ok(1));
    let life = served.cluster.node(0).status().replica.incarnation;
    let own = 1_u64 << 48 | u64::from(life.boot()) << 16 | u64::from(life.nonce() & 0xffff);
    let mut hand = Hand::greeted(&served.pipes, id(0), 1).await;
    // The node's next request, before the node sends it.
    let session = u128::from(own) << 64 | 1;
    let name = [&session.to_le_bytes()[..], &[2, 0, 0, 0, 0, 0, 0, 0], &[0; 8], &[0, 9]].concat();
    let mut body = vec![3, 1, 0, 0];
    body.extend_from_slice(&5000_u32.to_le_bytes());
    body.extend_from_slice(&7_u64.to_le_bytes());
    body.extend_from_slice(&name);
    hand.say(&framed(&body)).await;
    assert_eq!(hand.frame().await[..2], [6, 11], "no such session is known of clients");
    assert_eq!(mark(&local, 1).await, Ok(2));
    assert_eq!(marked(&local, 9).await, 0);
}

/// C5: sessions that are opened and not used would push others' out of the table.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c5_sessions_are_bounded_for_each_key() {
    let options = ServeOptions { sessions_per_minute_max: 3, ..ServeOptions::default() };
    let served = Served::start(1, options).await;
    let open = |number: u64, session: u128| {
        let mut body = vec![3, 2, 0, 0];
        body.extend_from_slice(&5000_u32.to_le_bytes());
        body.extend_from_slice(&number.to_le_bytes());
        body.extend_from_slice(&session.to_le_bytes());
        body.extend_from_slice(&60_000_u64.to_le_bytes());
        framed(&body)
    };
    for round in 0..2 {
        // Another link is no way around it.
        let mut hand = Hand::greeted(&served.pipes, id(0), 1).await;
        for number in 0..2 {
            hand.say(&open(number, 100 + u128::from(round * 2 + number))).await;
            let answer = hand.frame().await;
            let last = round * 2 + number == 3;
            assert_eq!(answer[..2], if last { [6, 2] } else { [5, 0] }, "{round} {number}");
        }
        drop(hand);
        until("no link", || served.serving[0].status().links == 0).await;
    }
    let mut other = Hand::greeted(&served.pipes, id(0), 2).await;
    other.say(&open(1, 999)).await;
    assert_eq!(other.frame().await[..2], [5, 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c6_bytes_that_are_not_allowed_end_their_link_with_a_reason_and_nothing_else() {
    let served = Served::start(1, ServeOptions::default()).await;
    let client = served.client().await;
    assert_eq!(remote_mark(&client, 1).await, Ok(1));
    let version = [&[40, 0, 0, 0][..], b"\x01PXC\x09\0", &[0; 34]].concat();
    let before: [(Vec<u8>, &str); 6] = [
        (vec![0xff; 64], "claims 4294967295 bytes"),
        ([1025_u32.to_le_bytes().as_slice(), &[0; 9]].concat(), "claims 1025 bytes"),
        (b"\x10\0\0\0GET / HTTP/1.1\r\n".to_vec(), "does not decode"),
        (version, "version 9 meets version 2"),
        (hello(8), "another cluster"),
        (request(3, 1, &[0, 1]), "not the one that is due"),
    ];
    for (bytes, words) in &before {
        let mut hand = Hand::new(&served.pipes, id(0), 1);
        hand.say(bytes).await;
        let reason = hand.ended().await;
        assert!(reason.contains(words), "{reason}, not {words}");
    }
    let after: [(Vec<u8>, &str); 6] = [
        (hello(7), "not the one that is due"),
        ((2_u32 << 20).to_le_bytes().to_vec(), "claims 2097152 bytes"),
        (framed(&[]), "does not decode"),
        (request(8, 1, &[]), "does not decode"),
        (request(5, 1, &[]), "does not decode"),
        ([request(3, 4, &[0, 1]), request(3, 4, &[0, 1])].concat(), "number 4 is out of turn"),
    ];
    for (bytes, words) in &after {
        let mut hand = Hand::greeted(&served.pipes, id(0), 1).await;
        hand.say(bytes).await;
        let reason = hand.ended().await;
        assert!(reason.contains(words), "{reason}, not {words}");
    }
    let status = served.serving[0].status();
    assert_eq!(status.links_cut, (before.len() + after.len()) as u64);
    until("their seats are free", || served.serving[0].status().links == 1).await;
    assert!(remote_mark(&client, 1).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c5_a_client_that_takes_no_answers_is_not_read_and_then_cut_and_others_are_served() {
    let options = ServeOptions {
        requests_max: 8,
        answer_bytes_max: 256,
        stall_timeout: SOON,
        ..ServeOptions::default()
    };
    let served = Served::start(1, options).await;
    let client = served.client().await;
    assert_eq!(remote_mark(&client, 1).await, Ok(1));
    let before = served.serving[0].status().requests;
    let mut hand = Hand::greeted(&served.pipes, id(0), 1).await;
    // As much as the pipes and the node take without an answer being taken.
    let flood: Vec<u8> = (0..20_000).flat_map(|number| linearizable(number, 1)).collect();
    let flooding = tokio::spawn(async move {
        let mut rest = &flood[..];
        while !rest.is_empty() {
            let write = std::future::poll_fn(|cx| hand.link.poll_write(cx, rest));
            match write.await {
                Ok(count) => rest = &rest[count..],
                Err(_) => break,
            }
        }
        hand
    });
    for count in 2..=20 {
        assert_eq!(remote_mark(&client, 1).await, Ok(count));
    }
    let mut hand = soon("the end of the flood", flooding).await.unwrap();
    assert_eq!(hand.ended().await, "answers are not taken");
    let taken = served.serving[0].status().requests - before;
    // What fits into the pipes on the way back, and the bounds.
    assert!(taken < 1000, "{taken} requests were taken");
    assert_eq!(served.cluster.node(0).metrics().requests_busy, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c5_unanswered_requests_are_bounded_by_number_and_by_bytes() {
    let bounds = [
        ServeOptions { requests_max: 3, ..ServeOptions::default() },
        ServeOptions { request_bytes_max: 2001, ..ServeOptions::default() },
    ];
    for options in bounds {
        let mut served = Served::start(2, options).await;
        served.cluster.leader().await;
        // Nobody answers while one is away.
        drop(served.cluster.nodes[1].take());
        let alone = served.cluster.node(0);
        until("loneliness", || alone.watch().borrow().leader.is_none()).await;
        let mut hand = Hand::greeted(&served.pipes, id(0), 1).await;
        let weight = [&[1, 0xe5, 7][..], &[0; 997]].concat();
        for number in 0..6 {
            hand.say(&request(3, number, &weight)).await;
        }
        until("three are taken", || alone.metrics().requests_pending == 3).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(served.serving[0].status().requests, 3, "and no more");
        assert_eq!(alone.metrics().requests_pending, 3);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c5_links_are_bounded_altogether_and_for_each_key() {
    let options = ServeOptions { links_max: 3, links_per_key_max: 2, ..ServeOptions::default() };
    let served = Served::start(1, options).await;
    let one = Hand::greeted(&served.pipes, id(0), 1).await;
    let _two = Hand::greeted(&served.pipes, id(0), 1).await;
    let mut more = Hand::new(&served.pipes, id(0), 1);
    assert!(more.ended().await.contains("too many links"));
    let _other = Hand::greeted(&served.pipes, id(0), 2).await;
    let mut another = Hand::new(&served.pipes, id(0), 3);
    assert!(another.ended().await.contains("too many links"));
    let status = served.serving[0].status();
    assert_eq!((status.links, status.links_refused), (3, 2));
    // A seat that is left is free.
    drop(one);
    until("a free seat", || served.serving[0].status().links == 2).await;
    Hand::greeted(&served.pipes, id(0), 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_without_a_greeting_is_cut_and_one_that_is_idle_is_not() {
    let options = ServeOptions { greeting_timeout: 2 * SOON, ..ServeOptions::default() };
    let served = Served::start(1, options).await;
    let mut idle = Hand::greeted(&served.pipes, id(0), 1).await;
    let mut silent = Hand::new(&served.pipes, id(0), 1);
    silent.say(&hello(7)[..20]).await;
    assert_eq!(silent.ended().await, "no greeting in time");
    idle.say(&linearizable(1, 3)).await;
    assert_eq!(idle.frame().await[0], 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serving_ends_with_the_node_and_when_it_is_dropped() {
    let mut served = Served::start(1, ServeOptions::default()).await;
    let mut hand = Hand::greeted(&served.pipes, id(0), 1).await;
    drop(served.serving.pop());
    let mut buffer = [0; 64];
    assert_eq!(hand.read(&mut buffer).await, 0);
    assert!(served.pipes.lay(id(0), None).is_err(), "nobody takes links");
    let serving = served.serve(0, ServeOptions::default());
    let mut hand = Hand::greeted(&served.pipes, id(0), 1).await;
    assert_eq!(mark(&served.cluster.node(0).client(), 1).await, Ok(1));
    let node = served.cluster.nodes[0].take().unwrap();
    soon("the end", node.shutdown()).await;
    assert_eq!(hand.ended().await, "the node has stopped");
    until("no link", || serving.status().links == 0).await;
    let nobody = ServeOptions { links_max: 0, ..ServeOptions::default() };
    let served = Served::start(1, ServeOptions::default()).await;
    let refused = served.cluster.node(0).serve(served.pipes.listener(id(0)), nobody);
    assert_eq!(refused.unwrap_err().to_string(), "node option links_max must be above zero");
}

/// The rules, word for word, each with what tests it: the rest of this file, `clients` of the QUIC
/// transport's tests, and the units of src/remote.
const RULES: [&str; 6] = [
    "**C1** A client can ask for what a client in the node's own process can ask for, in sessions of \
     its own, and for nothing else. Its key opens no port of replicas, and no port serves both.",
    "**C2** A node proposes a command of a remote client only after its codec has read it.",
    "**C3** A remote client sends a command that may have been proposed again in its session alone, \
     under the number that it has there. Reads, and what certainly was not proposed, it may send again.",
    "**C4** A remote client says that a command is rejected only if no attempt may have been proposed: \
     it was not sent, or each node that it was sent to said so.",
    "**C5** Links are bounded, altogether and for each key, and so are a link's unanswered requests, \
     by number and by bytes, the answers that its client does not take, and the sessions that a key \
     opens within a minute. Beyond the bounds of a link it is not read, and the others are.",
    "**C6** Bytes that this page does not allow end their link, with a reason, and nothing else.",
];

#[test]
fn the_rules_are_those_of_the_document() {
    let document = include_str!("../../docs/format-client.md");
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let document = words(document);
    for (number, rule) in (1..).zip(RULES) {
        assert!(document.contains(&words(rule)), "{rule}");
        assert!(rule.starts_with(&format!("**C{number}**")), "{rule}");
    }
    assert!(!document.contains("**C7**"), "every rule is listed");
}
