//! Members that come and go while nodes run: what whoever asks is told, and what becomes of each node.

use std::collections::BTreeSet;

use futures::future::join;
use paxos::core::output::ReconfigureError as Refusal;
use paxos::storage::MemoryStorage;
use paxos::{
    Change, Changed, Epoch, Format, Halt, Member, Membership, ReconfigureError, ReplicaId, Role,
    Slot, StopReason,
};

use crate::support::{Cluster, Marks, id, mark, marked, soon, until};

/// The node of these places that leads by its own word.
fn leads(cluster: &Cluster) -> Option<usize> {
    (0..cluster.nodes.len()).find(|place| {
        let node = cluster.nodes[*place].as_ref();
        node.is_some_and(|node| node.watch().borrow().is_leader)
    })
}

/// Makes a change, asked again where that is of use: leaders change, and the change before it may need
/// some time to end.
async fn make(cluster: &Cluster, change: Change) -> Changed {
    soon("a change", async {
        loop {
            until("a leader", || leads(cluster).is_some()).await;
            let Some(leader) = leads(cluster) else { continue };
            match cluster.node(leader).reconfigure(change.clone()).await {
                Ok(changed) => {
                    let node = cluster.node(leader);
                    assert!(node.membership().epoch() >= changed.epoch);
                    let governing = node.memberships();
                    assert!(governing[0].1.epoch() >= changed.epoch, "no earlier one is needed");
                    return changed;
                }
                Err(ReconfigureError::Refused(
                    Refusal::NotLeader { .. }
                    | Refusal::UnderWay { .. }
                    | Refusal::Transferring { .. }
                    | Refusal::Unreachable
                    | Refusal::Behind(_)
                    | Refusal::Busy,
                )) => tokio::time::sleep(cluster.config.heartbeat_interval).await,
                Err(ReconfigureError::Superseded) => {}
                Err(error) => panic!("{change:?}: {error}"),
            }
        }
    })
    .await
}

fn ids(members: &[Member]) -> BTreeSet<u16> {
    members.iter().map(|member| member.id.number()).collect()
}

/// Starts the node of a new place, formatted with the membership that makes it a member.
async fn start_new(cluster: &mut Cluster, membership: Membership) -> usize {
    let place = cluster.storages.len();
    let format = Format { replica: id(place), membership, ..format_of(cluster) };
    cluster.storages.push(MemoryStorage::formatted(format));
    cluster.nodes.push(None);
    cluster.start_node(place, Marks::default()).await;
    place
}

fn format_of(cluster: &Cluster) -> Format {
    Format {
        cluster: paxos::ClusterId::new(7),
        group: paxos::GroupId::new(0),
        replica: id(0),
        membership: cluster.nodes.iter().flatten().next().unwrap().membership(),
    }
}

/// The membership that the leader knows by now.
async fn known(cluster: &Cluster, epoch: Epoch) -> Membership {
    let mut membership = None;
    until("the membership to be shown", || {
        let shown = leads(cluster).map(|leader| cluster.node(leader).membership());
        membership = shown.filter(|shown| shown.epoch() >= epoch);
        membership.is_some()
    })
    .await;
    membership.unwrap()
}

async fn until_voters(cluster: &Cluster, voters: &[u16]) {
    let wanted: BTreeSet<u16> = voters.iter().copied().collect();
    until("the voters", || {
        leads(cluster).is_some_and(|leader| {
            let node = cluster.node(leader);
            ids(node.membership().voters()) == wanted && node.memberships().len() == 1
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r46_one_node_grows_to_three_that_vote() {
    let mut cluster = Cluster::start(1).await;
    let client = cluster.node(0).client();
    assert_eq!(mark(&client, 1).await, Ok(1));
    for new in 2..=3_u16 {
        let changed = make(&cluster, Change::AddVoter(Member::new(ReplicaId::new(new)))).await;
        let membership = known(&cluster, changed.epoch).await;
        assert_eq!(ids(membership.observers()), BTreeSet::from([new]), "it observes first");
        let joining = cluster.node(0).status().replica.joining;
        assert_eq!(joining.iter().map(|one| one.id.number()).collect::<Vec<_>>(), [new]);
        assert_eq!(mark(&client, 1).await, Ok(u64::from(new)), "served all the time");
        start_new(&mut cluster, membership).await;
        until_voters(&cluster, &(1..=new).collect::<Vec<_>>()).await;
    }
    // Two of three are enough now, and the first is one like the others.
    cluster.nodes[0] = None;
    let client = cluster.node(1).client();
    until("another leader", || leads(&cluster).is_some()).await;
    assert_eq!(mark(&client, 1).await, Ok(4));
    assert_eq!(marked(&client, 1).await, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r47_a_leader_that_is_removed_makes_way_and_its_node_stops() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let client = cluster.node((leader + 1) % 3).client();
    assert_eq!(mark(&client, 1).await, Ok(1));
    let changed = soon("it", cluster.node(leader).reconfigure(Change::Remove(id(leader)))).await;
    let changed = changed.unwrap();
    assert_eq!(changed.epoch, Epoch::new(2));
    assert!(changed.from > Slot::FIRST);
    let reason = soon("the end", cluster.node(leader).stopped()).await;
    let StopReason::Halt(Halt::Removed { epoch, from }) = &reason else {
        panic!("stopped for another reason: {reason}");
    };
    assert_eq!((*epoch, *from), (changed.epoch, changed.from));
    assert!(reason.to_string().contains("was removed from the cluster"), "{reason}");
    assert_eq!(mark(&client, 1).await, Ok(2));
    let refused = soon("it", cluster.node(leader).reconfigure(Change::Remove(id(0)))).await;
    assert_eq!(refused, Err(ReconfigureError::Stopped));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p04_a_dead_voter_is_replaced_and_its_directory_is_heard_no_more() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let dead = (leader + 1) % 3;
    let client = cluster.node(leader).client();
    assert_eq!(mark(&client, 1).await, Ok(1));
    let node = cluster.nodes[dead].take().unwrap();
    soon("the end", node.shutdown()).await;
    let change = Change::Replace { old: id(dead), new: Member::new(ReplicaId::new(4)) };
    let changed = make(&cluster, change).await;
    let membership = known(&cluster, changed.epoch).await;
    assert_eq!(ids(membership.voters()), BTreeSet::from([1, 2, 3]), "until it has caught up");
    start_new(&mut cluster, membership).await;
    let mut voters = vec![1, 2, 3, 4];
    voters.retain(|voter| *voter != id(dead).number());
    until_voters(&cluster, &voters).await;
    let outcome = mark(&client, 1).await;
    assert!(matches!(outcome, Ok(2)), "{outcome:?}");
    // The old one comes back with everything that it had, and is told that nobody needs it.
    cluster.start_node(dead, Marks::default()).await;
    let reason = soon("the end", cluster.node(dead).stopped()).await;
    assert!(matches!(reason, StopReason::Halt(Halt::Removed { .. })), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_change_is_under_way_at_a_time_and_what_cannot_be_is_refused() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let node = cluster.node(leader);
    let observer = |number| Change::AddObserver(Member::new(ReplicaId::new(number)));
    // No earlier membership is needed before heartbeats tell what disks hold.
    let both = join(node.reconfigure(observer(4)), node.reconfigure(observer(5)));
    let (first, second) = soon("two answers", both).await;
    assert_eq!(first.map(|changed| changed.epoch), Ok(Epoch::new(2)));
    let refused = second.unwrap_err();
    assert!(matches!(refused, ReconfigureError::Refused(Refusal::UnderWay { .. })), "{refused:?}");
    assert!(refused.to_string().contains("another change is under way"), "{refused}");
    for (change, words) in [
        (observer(4), "replica 4 is that already"),
        (Change::Remove(ReplicaId::new(9)), "replica 9 is not a member"),
    ] {
        let refused = soon("an answer", node.reconfigure(change)).await.unwrap_err();
        assert_eq!(refused.to_string(), words);
    }
    let follower = cluster.node((leader + 1) % 3);
    let refused = soon("an answer", follower.reconfigure(observer(6))).await.unwrap_err();
    assert!(refused.to_string().contains("not the leader"), "{refused}");
    assert_eq!(ids(known(&cluster, Epoch::new(2)).await.observers()), BTreeSet::from([4]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_observer_follows_for_good_and_votes_once_it_is_promoted() {
    let mut cluster = Cluster::start(1).await;
    let client = cluster.node(0).client();
    let observer = Member::new(ReplicaId::new(2));
    let changed = make(&cluster, Change::AddObserver(observer.clone())).await;
    let membership = known(&cluster, changed.epoch).await;
    let place = start_new(&mut cluster, membership).await;
    assert_eq!(mark(&client, 1).await, Ok(1));
    let applied = cluster.node(0).status().replica.applied;
    until("it to follow", || cluster.node(place).status().replica.applied >= applied).await;
    assert_eq!(cluster.node(place).status().replica.role, Role::Observer);
    assert_eq!(marked(&cluster.node(place).client(), 1).await, 1);
    assert_eq!(ids(cluster.node(0).membership().voters()), BTreeSet::from([1]));
    make(&cluster, Change::AddVoter(observer)).await;
    until_voters(&cluster, &[1, 2]).await;
    until("it to know", || cluster.node(place).status().replica.role != Role::Observer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_moved_is_one_like_before() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let moved = Member {
        id: id(leader),
        addresses: vec!["elsewhere:7101".to_owned()],
        keys: vec![[7; 32]],
    };
    let changed = make(&cluster, Change::Addresses(moved.clone())).await;
    for place in 0..3 {
        until("all to know", || cluster.node(place).membership().epoch() == changed.epoch).await;
        assert!(cluster.node(place).membership().voters().contains(&moved));
    }
    let client = cluster.node((leader + 1) % 3).client();
    assert_eq!(mark(&client, 1).await, Ok(1));
}

/// A node starts with what its log knows of members, whatever it was formatted with.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_node_knows_the_members_from_its_log() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let gone = (leader + 1) % 3;
    let changed = make(&cluster, Change::Remove(id(gone))).await;
    let reason = soon("the end", cluster.node(gone).stopped()).await;
    assert!(matches!(reason, StopReason::Halt(Halt::Removed { .. })), "{reason}");
    for place in 0..3 {
        let node = cluster.nodes[place].take().unwrap();
        soon("the end", node.shutdown()).await;
    }
    for place in (0..3).filter(|place| *place != gone) {
        cluster.start_node(place, Marks::default()).await;
    }
    let places: Vec<_> = (0..3).filter(|place| *place != gone).collect();
    let leader = cluster.leader_among(&places).await;
    assert_eq!(known(&cluster, changed.epoch).await.voters().len(), 2);
    assert!(mark(&cluster.node(leader).client(), 1).await.is_ok());
}
