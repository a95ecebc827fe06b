//! Nodes that make way: asked to, to stop, or because their disk is full; and who is told of it.

use futures::FutureExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use paxos::core::output::TransferError as Refusal;
use paxos::{
    Ballot, ClientError, Config, Leadership, NodeOptions, Priority, Rejection, ReplicaId,
    StopReason, TransferError,
};
use tokio::task::JoinHandle;

use crate::support::{Cluster, Marks, Op, config, id, mark, marked, soon, until};

/// Patient elections, so that a measured time far below their timeout says something on any machine.
fn patient() -> Config {
    Config {
        election_timeout: Duration::from_secs(2),
        election_jitter: Duration::from_secs(1),
        ..config()
    }
}

/// When a node said what of who leads.
type Sightings = Arc<Mutex<Vec<(Instant, ReplicaId, Leadership)>>>;

fn watch(cluster: &Cluster) -> Sightings {
    let sightings = Sightings::default();
    for (place, node) in cluster.nodes.iter().enumerate() {
        let (mut leadership, seen) = (node.as_ref().unwrap().leadership(), Arc::clone(&sightings));
        tokio::spawn(async move {
            while leadership.changed().await.is_ok() {
                let state = *leadership.borrow_and_update();
                seen.lock().unwrap().push((Instant::now(), id(place), state));
            }
        });
    }
    sightings
}

/// How long nobody led: from the end of this reign to the beginning of the next.
async fn leaderless(sightings: &Sightings, old: ReplicaId, next: Ballot) -> Duration {
    let mut gap = None;
    until("both to be seen", || {
        let seen = sightings.lock().unwrap();
        let end = seen.iter().find(|(_, at, state)| *at == old && !is_lead(*state));
        let begin = seen.iter().find(|(_, _, state)| *state == Leadership::Leads(next));
        gap = end.zip(begin).map(|(end, begin)| begin.0.saturating_duration_since(end.0));
        gap.is_some()
    })
    .await;
    gap.unwrap()
}

const fn is_lead(state: Leadership) -> bool {
    matches!(state, Leadership::Leads(_))
}

/// Clients that mark names, each its own, again and again, and expect to be served each time.
struct Load {
    running: Arc<AtomicBool>,
    marked: Arc<AtomicU64>,
    /// When a command was answered last, and the longest time between two answers.
    answers: Arc<Mutex<(Instant, Duration)>>,
    /// How many times each name was marked; or what a client was told instead.
    clients: Vec<JoinHandle<Result<(u64, u64), ClientError>>>,
}

impl Load {
    fn start(cluster: &Cluster, places: &[usize]) -> Self {
        let (running, marked) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(0)));
        let answers = Arc::new(Mutex::new((Instant::now(), Duration::ZERO)));
        let mut clients = Vec::new();
        for name in 0..24 {
            let client = cluster.node(places[name as usize % places.len()]).client();
            let (running, marked) = (Arc::clone(&running), Arc::clone(&marked));
            let answers = Arc::clone(&answers);
            clients.push(tokio::spawn(async move {
                let mut times = 0;
                while running.load(Ordering::Relaxed) {
                    times += 1;
                    let count = client.execute(Op::Mark(name)).await?;
                    assert_eq!(count, times, "each command is applied once");
                    marked.fetch_add(1, Ordering::Relaxed);
                    let (last, longest) = &mut *answers.lock().unwrap();
                    let now = Instant::now();
                    *longest = now.saturating_duration_since(*last).max(*longest);
                    *last = now;
                }
                Ok((name, times))
            }));
        }
        Self { running, marked, answers, clients }
    }

    /// Waits until so many more were served.
    async fn goes_on(&self) {
        let target = self.marked.load(Ordering::Relaxed) + 500;
        until("commands being served", || self.marked.load(Ordering::Relaxed) >= target).await;
    }

    fn longest_pause(&self) -> Duration {
        self.answers.lock().unwrap().1
    }

    async fn stop(self) -> Vec<Result<(u64, u64), ClientError>> {
        self.running.store(false, Ordering::Relaxed);
        let mut ends = Vec::new();
        for client in self.clients {
            ends.push(soon("the end of a client", client).await.unwrap());
        }
        ends
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r17_the_lead_goes_round_under_load_and_nobody_is_refused() {
    let cluster = Cluster::tuned(3, patient(), NodeOptions::default()).await;
    let mut leader = cluster.leader().await;
    let sightings = watch(&cluster);
    let load = Load::start(&cluster, &[0, 1, 2]);
    let mut longest = Duration::ZERO;
    for _ in 0..6 {
        load.goes_on().await;
        let next = (leader + 1) % 3;
        let transfer = soon("the transfer", cluster.node(leader).transfer(id(next))).await;
        let ballot = transfer.unwrap();
        assert_eq!(ballot.leader(), id(next));
        let gap = leaderless(&sightings, id(leader), ballot).await;
        longest = longest.max(gap);
        sightings.lock().unwrap().clear();
        leader = next;
    }
    let timeout = patient().election_timeout;
    assert!(
        longest < timeout / 4,
        "nobody led for {longest:?}, the election timeout is {timeout:?}"
    );
    load.goes_on().await;
    let pause = load.longest_pause();
    assert!(pause < timeout / 2, "nobody was answered for {pause:?}");
    for end in load.stop().await {
        let (name, times) = end.expect("nobody is refused, and nobody left in doubt");
        assert_eq!(marked(&cluster.node(0).client(), name).await, times);
    }
    let campaigns: u64 = (0..3).map(|place| cluster.node(place).metrics().core.campaigns).sum();
    let won: u64 = (0..3).map(|place| cluster.node(place).metrics().core.elections_won).sum();
    assert!(won >= 7 && campaigns >= won, "{campaigns} campaigns, {won} won");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_shut_down_under_load_makes_way_and_nobody_is_refused() {
    let mut cluster = Cluster::tuned(3, patient(), NodeOptions::default()).await;
    let leader = cluster.leader().await;
    let others = [(leader + 1) % 3, (leader + 2) % 3];
    let sightings = watch(&cluster);
    // Those of the other nodes, which forward to the leader, and those of the leader itself.
    let (load, own) = (Load::start(&cluster, &others), cluster.node(leader).client());
    let running = Arc::new(AtomicBool::new(true));
    let own = tokio::spawn({
        let running = Arc::clone(&running);
        async move {
            let mut times = 0;
            while running.load(Ordering::Relaxed) {
                match own.execute(Op::Mark(99)).await {
                    Ok(count) => assert_eq!(count, times + 1),
                    other => return (times, other),
                }
                times += 1;
            }
            (times, Ok(0))
        }
    });
    load.goes_on().await;
    let node = cluster.nodes[leader].take().unwrap();
    let begin = Instant::now();
    let reason = soon("the end", node.shutdown()).await;
    let took = begin.elapsed();
    assert!(matches!(reason, StopReason::Shutdown), "{reason}");
    load.goes_on().await;
    let next = cluster.leader_among(&others).await;
    let ballot = cluster.node(next).status().replica.leader.unwrap();
    let gap = leaderless(&sightings, id(leader), ballot).await;
    let timeout = patient().election_timeout;
    assert!(gap < timeout / 4, "nobody led for {gap:?}, the election timeout is {timeout:?}");
    assert!(took < timeout, "the end took {took:?}");
    let pause = load.longest_pause();
    assert!(pause < timeout / 2, "nobody was answered for {pause:?}");
    for end in load.stop().await {
        let (name, times) = end.expect("nobody is refused, and nobody left in doubt");
        assert_eq!(marked(&cluster.node(next).client(), name).await, times);
    }
    // What this node's own client asked for before it closed was carried out, what came later was not.
    running.store(false, Ordering::Relaxed);
    let (times, last) = soon("the end of the client", own).await.unwrap();
    assert_eq!(last, Err(ClientError::Rejected(Rejection::Stopped)));
    assert!(times > 0);
    assert_eq!(marked(&cluster.node(next).client(), 99).await, times);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r17_a_transfer_that_cannot_be_says_why_and_the_leader_leads_on() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let (next, third) = ((leader + 1) % 3, (leader + 2) % 3);
    let node = cluster.node(leader);
    let ask = async |at: usize, to: ReplicaId| {
        soon("an answer", cluster.node(at).transfer(to)).await.unwrap_err()
    };
    let refused = TransferError::Refused;
    assert_eq!(ask(leader, id(leader)).await, refused(Refusal::AlreadyLeads));
    assert_eq!(ask(leader, id(8)).await, refused(Refusal::NotAVoter(id(8))));
    let hint = Some(id(leader));
    assert_eq!(ask(next, id(third)).await, refused(Refusal::NotLeader { hint }));
    let before = node.status().replica.leader;
    // It is gone, and still counts as connected.
    drop(cluster.nodes[next].take());
    let node = cluster.node(leader);
    let (gone, client) = (soon("an answer", node.transfer(id(next))).await, node.client());
    let unheard = TransferError::Refused(Refusal::NotConnected(id(next)));
    assert!(gone == Err(TransferError::GivenUp) || gone == Err(unheard), "{gone:?}");
    assert_eq!(mark(&client, 1).await, Ok(1));
    assert_eq!(node.status().replica.leader, before, "the same reign");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_goes_on_when_nobody_waits_for_it() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let next = (leader + 1) % 3;
    until("the next leader", || {
        // It is asked for, as often as it is refused because the other is not known to be well yet, and
        // never waited for.
        let _answer = cluster.node(leader).transfer(id(next)).now_or_never();
        cluster.node(next).watch().borrow().is_leader
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_preferred_leads_in_the_end_and_then_nobody_else() {
    let mut cluster = Cluster::start(0).await;
    cluster.storages = (0..3).map(|place| crate::support::storage(place, 3)).collect();
    cluster.nodes = vec![None, None, None];
    for place in 0..3 {
        cluster.config.priority = Priority::new(u8::from(place == 2) * 9);
        cluster.start_node(place, Marks::default()).await;
    }
    let client = cluster.node(0).client();
    assert_eq!(mark(&client, 1).await, Ok(1));
    until("the preferred leader", || cluster.node(2).watch().borrow().is_leader).await;
    let reign = *cluster.node(2).leadership().borrow();
    // Longer than a reign must last before a leader makes way by itself.
    let end = Instant::now() + config().election_timeout * 6;
    while Instant::now() < end {
        let times = marked(&client, 1).await;
        assert_eq!(mark(&client, 1).await, Ok(times + 1));
    }
    assert_eq!(*cluster.node(2).leadership().borrow(), reign);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gen_the_watch_tells_of_each_reign_by_its_ballot() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let next = (leader + 1) % 3;
    let ballot = cluster.node(leader).status().replica.leader.unwrap();
    let state = |place: usize| *cluster.node(place).leadership().borrow();
    assert_eq!(state(leader), Leadership::Leads(ballot));
    assert_eq!(state(next), Leadership::Follows(ballot));
    let mut of_leader = cluster.node(leader).leadership();
    of_leader.mark_unchanged();
    let later = soon("the transfer", cluster.node(leader).transfer(id(next))).await.unwrap();
    assert!(later > ballot, "a fencing token that is higher than those before");
    let follows = of_leader.wait_for(|state| *state == Leadership::Follows(later));
    soon("the news", follows).await.unwrap();
    until("the news", || state(next) == Leadership::Leads(later)).await;
    // A node without a quorum knows no leader; one that has stopped knows none either.
    let mut alone = cluster.node(leader).leadership();
    cluster.network.isolate(id(leader));
    soon("no leader", alone.wait_for(|state| *state == Leadership::Unknown)).await.unwrap();
    let node = cluster.nodes.into_iter().nth(next).flatten().unwrap();
    let mut stopped = node.leadership();
    let end = tokio::spawn(node.shutdown());
    let ended = stopped.wait_for(|state| *state == Leadership::Unknown).await.map(|_| ());
    soon("the end", end).await.unwrap();
    drop(ended);
}
