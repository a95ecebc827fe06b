//! Exactly once: commands in the session of their node, while leaders come and go.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use paxos::{
    Client, ClientError, Consistency, Delivery, Node, NodeOptions, Rejection, RequestNumber,
    SessionId, SessionRequest,
};

use crate::support::{Cluster, Marks, Op, id, mark, marked, soon, until};

const COUNTER: u64 = 7;
const INCREMENTS: u64 = 10_000;
const WORKERS: u64 = 20;
/// Clients ask at these; the others are killed when they lead.
const ASKED: usize = 2;

/// How the increments ended.
#[derive(Debug, Default)]
struct Ends {
    acknowledged: u64,
    rejected: u64,
    unknown: u64,
}

/// What all workers count as they go.
#[derive(Debug, Default)]
struct Progress {
    done: AtomicU64,
    unknown: AtomicU64,
}

/// Has the counter incremented so often: what was certainly not applied is asked for again.
async fn work(client: Client<Marks>, delivery: Delivery, progress: Arc<Progress>) -> Ends {
    let mut ends = Ends::default();
    for _ in 0..INCREMENTS / WORKERS {
        loop {
            match client.execute_with(delivery, Op::Mark(COUNTER)).await {
                Ok(_) => ends.acknowledged += 1,
                Err(ClientError::Rejected(_)) => {
                    ends.rejected += 1;
                    continue;
                }
                Err(_) => {
                    ends.unknown += 1;
                    progress.unknown.fetch_add(1, Ordering::SeqCst);
                }
            }
            break;
        }
        progress.done.fetch_add(1, Ordering::SeqCst);
    }
    ends
}

/// Kills the leader where nobody asks it, and cuts it off where somebody does.
async fn depose(cluster: &mut Cluster) {
    let leader = cluster.leader().await;
    let others: Vec<_> = (0..5).filter(|place| *place != leader).collect();
    if leader < ASKED {
        cluster.network.isolate(id(leader));
        cluster.leader_among(&others).await;
        cluster.network.heal();
    } else {
        drop(cluster.nodes[leader].take());
        cluster.leader_among(&others).await;
        cluster.start_node(leader, Marks::default()).await;
    }
}

/// Cuts links until something is lost on one over which its reply would have come.
async fn lose_replies(cluster: &Cluster, progress: &Progress) {
    let leader = cluster.leader().await;
    let asked = usize::from(leader == 0);
    let lost = || {
        let recalled = cluster.node(asked).metrics().replies_recalled;
        recalled + progress.unknown.load(Ordering::SeqCst)
    };
    let before = lost();
    // Most cuts have something on the link.
    for _ in 0..40 {
        cluster.network.cut(id(asked), id(leader));
        tokio::time::sleep(Duration::from_millis(3)).await;
        cluster.network.heal();
        tokio::time::sleep(Duration::from_millis(7)).await;
        if lost() > before {
            break;
        }
    }
}

/// Has the counter incremented from two nodes of five, while leaders are killed where nobody asks, and
/// cut off where somebody does, and links fall over which replies would come.
async fn increment(delivery: Delivery, blows: u64) -> (Cluster, Ends) {
    let mut cluster = Cluster::start(5).await;
    cluster.leader().await;
    let progress = Arc::new(Progress::default());
    let mut workers = Vec::new();
    for worker in 0..WORKERS {
        let client = cluster.node(worker as usize % ASKED).client();
        let client = client.with_timeout(Duration::from_secs(60));
        workers.push(tokio::spawn(work(client, delivery, Arc::clone(&progress))));
    }
    for blow in 1..=blows {
        let due = blow * INCREMENTS / (blows + 1);
        until("some increments", || progress.done.load(Ordering::SeqCst) >= due).await;
        if blow % 2 == 1 {
            lose_replies(&cluster, &progress).await;
        } else {
            depose(&mut cluster).await;
        }
    }
    let mut ends = Ends::default();
    for worker in workers {
        let told = soon("all increments", worker).await.unwrap();
        ends.acknowledged += told.acknowledged;
        ends.rejected += told.rejected;
        ends.unknown += told.unknown;
    }
    (cluster, ends)
}

fn again(cluster: &Cluster) -> u64 {
    (0..ASKED).map(|place| cluster.node(place).metrics().requests_again).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_increments_in_a_session_are_ten_thousand() {
    let (cluster, ends) = increment(Delivery::ExactlyOnce, 10).await;
    assert_eq!((ends.acknowledged, ends.unknown), (INCREMENTS, 0), "{ends:?}");
    for place in 0..5 {
        assert_eq!(marked(&cluster.node(place).client(), COUNTER).await, INCREMENTS);
    }
    assert!(again(&cluster) > 0, "no leader was lost with something in its hands");
    let recalled = |place| cluster.node(place).metrics().replies_recalled;
    assert!((0..ASKED).map(recalled).sum::<u64>() > 0, "nothing was applied whose reply was lost");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_increments_without_a_session_are_as_many_as_were_acknowledged_or_more() {
    let (cluster, ends) = increment(Delivery::AtMostOnce, 3).await;
    assert_eq!(ends.acknowledged + ends.unknown, INCREMENTS, "{ends:?}");
    let total = marked(&cluster.node(0).client(), COUNTER).await;
    let possible = ends.acknowledged..=ends.acknowledged + ends.unknown;
    assert!(possible.contains(&total), "{total} after {ends:?}");
    assert!(ends.unknown > 0, "no leader was lost with something in its hands");
    assert_eq!(again(&cluster), 0);
}

/// Clients of the nodes that are up, or were.
type Doors = Arc<Mutex<Vec<Client<Marks>>>>;

fn door(cluster: &Cluster, place: usize) -> Client<Marks> {
    cluster.node(place).client().with_timeout(Duration::from_secs(2))
}

/// Increments so often in a session of its own, each time until it is known to be done, by whichever
/// node. Returns how many replies were lost, and how often a request was sent again.
async fn increment_anywhere(doors: Doors, own: u64, times: u64) -> (u64, u64) {
    let mut place = own as usize;
    let mut next = || {
        place += 1;
        let doors = doors.lock().unwrap();
        doors[place % doors.len()].clone()
    };
    let mut ids = (1..).map(|attempt| SessionId::new(u128::from(own) << 100 | attempt));
    let session = loop {
        let id = ids.next().unwrap();
        if next().open_session(id, Duration::from_secs(600)).await.is_ok() {
            break id;
        }
    };
    let (mut lost, mut again) = (0, 0);
    for number in (1..=times).map(RequestNumber::new) {
        let name = SessionRequest { session, request: number, acknowledged_below: number };
        loop {
            match next().attempt(name, Op::Mark(COUNTER)).await {
                Ok(_) => break,
                Err(ClientError::ReplyNotKept { .. }) => {
                    lost += 1;
                    break;
                }
                Err(error) => {
                    let unknown = ClientError::Rejected(Rejection::SessionUnknown);
                    assert_ne!(error, unknown, "nobody closed it");
                    again += 1;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        }
    }
    while next().close_session(session).await.is_err() {}
    (lost, again)
}

/// The node that is asked may be killed as well: the request is sent again by another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_of_the_programs_own_outlives_the_nodes_that_it_asks() {
    const TIMES: u64 = 150;
    let mut cluster = Cluster::start(3).await;
    cluster.leader().await;
    let doors: Doors = Arc::new(Mutex::new((0..3).map(|place| door(&cluster, place)).collect()));
    let workers: Vec<_> = (0..WORKERS)
        .map(|own| tokio::spawn(increment_anywhere(Arc::clone(&doors), own, TIMES)))
        .collect();
    for blow in 1..=4 {
        until("some increments", || {
            let applied = |node: &Node<Marks>| node.metrics().commands_applied;
            let most = cluster.nodes.iter().flatten().map(applied).max();
            most >= Some(blow * WORKERS * TIMES / 6)
        })
        .await;
        let leader = cluster.leader().await;
        drop(cluster.nodes[leader].take());
        let others: Vec<_> = (0..3).filter(|place| *place != leader).collect();
        cluster.leader_among(&others).await;
        cluster.start_node(leader, Marks::default()).await;
        doors.lock().unwrap()[leader] = door(&cluster, leader);
    }
    let mut again = 0;
    for worker in workers {
        let (lost, more) = soon("its increments", worker).await.unwrap();
        // Machines in memory give every reply again.
        assert_eq!(lost, 0);
        again += more;
    }
    assert!(again > 0, "nothing was lost on its way");
    for place in 0..3 {
        assert_eq!(marked(&door(&cluster, place), COUNTER).await, WORKERS * TIMES);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_in_a_session_or_stale_is_refused_with_the_reason() {
    let cluster = Cluster::start(1).await;
    let client = cluster.node(0).client();
    assert_eq!(mark(&client, COUNTER).await, Ok(1));
    let session = SessionId::new(77);
    let name = |request, below| SessionRequest {
        session,
        request: RequestNumber::new(request),
        acknowledged_below: RequestNumber::new(below),
    };
    let ask = |name| client.attempt(name, Op::Mark(COUNTER));
    let unknown = Err(ClientError::Rejected(Rejection::SessionUnknown));
    assert_eq!(ask(name(1, 1)).await, unknown);
    let opened = client.open_session(session, Duration::from_secs(600)).await.unwrap();
    let first = ask(name(1, 1)).await.unwrap();
    assert!(first.slot > opened);
    assert_eq!(first.reply, 2);
    let again = ask(name(1, 1)).await.unwrap();
    assert_eq!((again.reply, again.slot > first.slot), (2, true));
    assert_eq!(ask(name(3, 3)).await.unwrap().reply, 3);
    let stale = Err(ClientError::Rejected(Rejection::StaleRequest));
    assert_eq!((ask(name(1, 1)).await, ask(name(2, 1)).await), (stale.clone(), stale));
    assert!(client.close_session(session).await.is_ok());
    assert_eq!(ask(name(4, 4)).await, unknown);
    assert_eq!(marked(&client, COUNTER).await, 3);
    let metrics = cluster.node(0).metrics();
    assert_eq!((metrics.commands_repeated, metrics.replies_recalled), (1, 1));
    assert_eq!((metrics.commands_astray, metrics.commands_refused), (2, 2));
}

/// The clock of the log is the wall clock of whoever leads, in milliseconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_expired_is_followed_by_another_and_nobody_notices() {
    let options = NodeOptions { session_ttl: Duration::from_millis(5), ..NodeOptions::default() };
    let cluster = Cluster::with(3, options).await;
    let client = cluster.node(0).client();
    for count in 1..=5 {
        assert_eq!(mark(&client, 1).await, Ok(count));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let metrics = cluster.node(0).metrics();
    assert!(metrics.sessions_expired >= 4 && metrics.requests_again >= 4, "{metrics}");
    assert!(metrics.commands_astray >= 4, "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_clients_of_a_node_share_one_session() {
    let cluster = Cluster::start(3).await;
    let mut asked = Vec::new();
    for name in 0..300 {
        let client = cluster.node(name as usize % 3).client();
        asked.push(tokio::spawn(async move { mark(&client, name).await }));
    }
    for asked in asked {
        assert_eq!(soon("a mark", asked).await.unwrap(), Ok(1));
    }
    let single = cluster.node(0).client().execute_with(Delivery::AtMostOnce, Op::Mark(5)).await;
    assert_eq!(single.unwrap().reply, 2);
    for place in 0..3 {
        let client = cluster.node(place).client();
        assert_eq!(marked(&client, 5).await, 2);
        // One of each node, unless the first was not heard of in time.
        let sessions = cluster.node(place).metrics().sessions;
        assert!((3..10).contains(&sessions), "{sessions}");
    }
}

/// A write on one node is seen by a read on another that names the write's slot.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_slot_of_a_write_lets_other_nodes_read_it() {
    let cluster = Cluster::start(3).await;
    let writer = cluster.node(0).client().with_timeout(Duration::from_secs(30));
    assert_eq!(mark(&writer, 1).await, Ok(1));
    for count in 2..50 {
        let applied = soon("a reply", writer.execute_at(Op::Mark(1))).await.unwrap();
        assert_eq!(applied.reply, count);
        let reader = cluster.node(count as usize % 3).client();
        let read = reader.read(Consistency::AtLeast(applied.slot), 1);
        assert_eq!(soon("a read", read).await, Ok(count));
    }
}
