//! Backups of nodes, and clusters that begin with them: protocol.md §17, with state machines.

use std::path::Path;
use std::time::Duration;

use paxos::backup::{self, Backup, BackupError, BackupSource, Recovery, RecoveryError};
use paxos::storage::{MemoryStorage, Wal, WalOptions};
use paxos::{
    Client, ClientError, ClusterId, Config, Format, GroupId, MakeSnapshotError, Membership, Node,
    NodeOptions, Rejection, ReplicaId, RequestNumber, SessionId, SessionRequest, Slot,
    StorageError, TrimLogError,
};
use tempfile::TempDir;

use crate::support::{Cluster, Marks, Op, config, id, mark, marked, soon, until};

const NEW: ClusterId = ClusterId::new(8);

/// Snapshots on demand alone, and no trim without being told.
fn on_demand() -> NodeOptions {
    NodeOptions { snapshot_slots: u64::MAX, trim_tail_slots: u64::MAX, ..NodeOptions::default() }
}

fn small() -> WalOptions {
    WalOptions { segment_bytes: 1 << 20, spares: 1, ..WalOptions::default() }
}

fn format(cluster: ClusterId, place: usize, replicas: usize) -> Format {
    Format {
        cluster,
        group: GroupId::new(0),
        replica: id(place),
        membership: Membership::voters_only((0..replicas).map(id)).unwrap(),
    }
}

/// A cluster in memory that begins with a backup.
async fn begun_with(backup: &Backup, replicas: usize) -> Cluster {
    let mut cluster = Cluster {
        network: paxos::MemoryNetwork::new(),
        storages: Vec::new(),
        nodes: (0..replicas).map(|_| None).collect(),
        config: config(),
        options: on_demand(),
    };
    for place in 0..replicas {
        let storage = MemoryStorage::formatted(format(NEW, place, replicas));
        let founded = backup.found(&mut storage.clone()).unwrap();
        assert_eq!(founded.cluster, NEW);
        assert!(founded.last >= backup.info().last);
        assert_eq!(founded.snapshot, backup.info().snapshot, "the image is the same");
        cluster.storages.push(storage);
    }
    for place in 0..replicas {
        cluster.start_node(place, Marks::default()).await;
    }
    cluster
}

/// A node of its own on a directory.
async fn node_on(dir: &Path, format: &Format) -> Node<Marks> {
    let network = paxos::MemoryNetwork::new();
    Node::builder()
        .storage(Wal::open(dir, format, small()).unwrap())
        .transport(network.transport(format.replica))
        .config(config())
        .options(on_demand())
        .start(Marks::default())
        .await
        .unwrap()
}

fn request(number: u64) -> SessionRequest {
    SessionRequest {
        session: SessionId::new(77),
        request: RequestNumber::new(number),
        acknowledged_below: RequestNumber::new(1),
    }
}

async fn attempt(client: &Client<Marks>, number: u64) -> Result<u64, ClientError> {
    soon("an outcome", async {
        loop {
            let leaderless = ClientError::Rejected(Rejection::NoLeader);
            match client.attempt(request(number), Op::Mark(500)).await {
                Err(ClientError::Unknown(_)) => {}
                Err(error) if error == leaderless => {}
                outcome => return outcome.map(|applied| applied.reply),
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_begins_with_the_backup_of_another_that_ran() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("b");
    let old = Cluster::with(3, on_demand()).await;
    let early = soon("an error", old.node(0).export(&file)).await;
    assert!(matches!(early, Err(BackupError::Snapshot(MakeSnapshotError::Nothing))), "{early:?}");
    let client = old.node(0).client();
    for name in 0..30 {
        assert_eq!(mark(&client, name).await, Ok(1));
    }
    let ttl = Duration::from_secs(3600);
    soon("a session", client.open_session(SessionId::new(77), ttl)).await.unwrap();
    assert_eq!(attempt(&client, 1).await, Ok(1));
    let info = soon("a backup", old.node(0).export(&file)).await.unwrap();
    let made = soon("the same", old.node(0).snapshot()).await.unwrap();
    assert_eq!((info.snapshot, info.last, info.values), (Some(made), made.slot, 0));
    assert_eq!((info.origin.source, info.origin.replica), (BackupSource::Running, id(0)));
    let again = soon("an error", old.node(0).export(&file)).await;
    assert!(matches!(again, Err(BackupError::Exists { .. })), "{again:?}");
    // What comes later is not in it.
    assert_eq!(mark(&client, 0).await, Ok(2));

    let backup = Backup::open(&file).unwrap();
    assert_eq!(*backup.info(), info);
    for replicas in [1, 3] {
        let new = begun_with(&backup, replicas).await;
        let place = new.leader().await;
        let client = new.node(place).client();
        for (name, count) in [(0, 1), (29, 1), (30, 0), (500, 1)] {
            assert_eq!(marked(&client, name).await, count);
        }
        // Whoever comes with a session of the old cluster is told so, and nothing is applied.
        let refused = Err(ClientError::Rejected(Rejection::SessionUnknown));
        assert_eq!(attempt(&client, 1).await, refused);
        assert_eq!(attempt(&client, 2).await, refused);
        assert_eq!(marked(&client, 500).await, 1);
        // Slots go on above the snapshot's.
        let applied = soon("a slot", client.execute_at(Op::Mark(0))).await.unwrap();
        assert!(applied.slot > made.slot && applied.reply == 2, "{applied:?}");
        for place in 0..replicas {
            let node = new.node(place);
            until("a follower", || node.status().replica.applied >= applied.slot).await;
            assert_eq!(marked(&node.client(), 0).await, 2);
        }
        // And so does a member that starts again.
        let mut new = new;
        let node = new.nodes[replicas - 1].take().unwrap();
        soon("the end", node.shutdown()).await;
        new.start_node(replicas - 1, Marks::default()).await;
        assert_eq!(marked(&new.node(replicas - 1).client(), 29).await, 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storage_that_was_used_or_is_called_the_same_does_not_begin_with_a_backup() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("b");
    let old = Cluster::with(1, on_demand()).await;
    assert_eq!(mark(&old.node(0).client(), 1).await, Ok(1));
    soon("a backup", old.node(0).export(&file)).await.unwrap();
    let backup = Backup::open(&file).unwrap();
    let mut same = MemoryStorage::formatted(format(ClusterId::new(7), 0, 1));
    let error = backup.found(&mut same).unwrap_err();
    assert!(matches!(error, BackupError::SameCluster(_)), "{error}");
    let storage = MemoryStorage::formatted(format(NEW, 0, 1));
    backup.found(&mut storage.clone()).unwrap();
    let error = backup.found(&mut storage.clone()).unwrap_err();
    assert!(matches!(error, BackupError::Founding(_)), "{error}");
}

/// What a stopped directory gives: the snapshot in it, and all that is committed after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_begins_with_the_backup_of_a_stopped_directory() {
    for snapshot in [false, true] {
        let scratch = tempfile::tempdir().unwrap();
        let (dir, file) = (scratch.path().join("d"), scratch.path().join("b"));
        let old = format(ClusterId::new(7), 0, 1);
        drop(Wal::format(&dir, &old, small()).unwrap());
        let early = backup::export_stopped(&dir, &file);
        assert!(
            matches!(early, Err(BackupError::Snapshot(MakeSnapshotError::Nothing))),
            "{early:?}"
        );
        let node = node_on(&dir, &old).await;
        let client = node.client();
        for name in 0..10 {
            assert_eq!(mark(&client, name).await, Ok(1));
        }
        let ttl = Duration::from_secs(3600);
        soon("a session", client.open_session(SessionId::new(77), ttl)).await.unwrap();
        assert_eq!(attempt(&client, 1).await, Ok(1));
        let made = if snapshot { Some(soon("one", node.snapshot()).await.unwrap()) } else { None };
        if let Some(made) = made {
            // The log before it is gone.
            assert_eq!(soon("a trim", node.trim(None)).await, Ok(made.slot));
        }
        // In the session, behind the snapshot: applied once more, as the log of the new cluster.
        assert_eq!(attempt(&client, 2).await, Ok(2));
        for name in 5..15 {
            assert_eq!(mark(&client, name).await, Ok(1 + u64::from(name < 10)));
        }
        let running = backup::export_stopped(&dir, &file);
        let locked = matches!(running, Err(BackupError::Storage(StorageError::AlreadyOpen { .. })));
        assert!(locked, "{running:?}");
        soon("the end", node.shutdown()).await;
        let info = backup::export_stopped(&dir, &file).unwrap();
        assert_eq!((info.snapshot, info.origin.source), (made, BackupSource::Stopped));
        assert!(info.values >= 11, "{info:?}");

        let new = begun_with(&Backup::open(&file).unwrap(), 3).await;
        let client = new.node(new.leader().await).client();
        for (name, count) in [(0, 1), (4, 1), (5, 2), (9, 2), (14, 1), (15, 0), (500, 2)] {
            assert_eq!(marked(&client, name).await, count);
        }
        assert_eq!(
            attempt(&client, 3).await,
            Err(ClientError::Rejected(Rejection::SessionUnknown))
        );
        assert_eq!(mark(&client, 0).await, Ok(2));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_is_trimmed_on_order_as_far_as_a_snapshot_reaches() {
    let cluster = Cluster::with(3, on_demand()).await;
    let node = cluster.node(0);
    let trim = async |through: Option<u64>| soon("a trim", node.trim(through.map(Slot::new))).await;
    assert_eq!(trim(None).await, Ok(Slot::ZERO), "there is nothing that could be");
    let refused = TrimLogError::NotIncluded { asked: Slot::new(1), snapshot: Slot::ZERO };
    assert_eq!(refused.to_string(), "slot 1 is in no snapshot, for there is none: make one first");
    assert_eq!(trim(Some(1)).await, Err(refused));
    for name in 0..20 {
        assert_eq!(mark(&node.client(), name).await, Ok(1));
    }
    let made = soon("a snapshot", node.snapshot()).await.unwrap();
    assert_eq!(mark(&node.client(), 0).await, Ok(2));
    let beyond = made.slot.next();
    let refused = TrimLogError::NotIncluded { asked: beyond, snapshot: made.slot };
    assert_eq!(trim(Some(beyond.number())).await, Err(refused));
    assert_eq!(trim(Some(5)).await, Ok(Slot::new(5)));
    assert_eq!(trim(Some(3)).await, Ok(Slot::new(5)), "it begins later already");
    assert_eq!(trim(None).await, Ok(made.slot));
    until("the news", || node.status().replica.trimmed == made.slot).await;
    assert_eq!(marked(&node.client(), 0).await, 2);
}

/// The whole of a disaster, but for processes: three directories, of which one is left.
struct Lost {
    scratch: TempDir,
    /// Marked by somebody who was answered.
    answered: u64,
}

impl Lost {
    fn home(&self) -> std::path::PathBuf {
        self.scratch.path().join("1")
    }

    /// Names in the directory of them all.
    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.scratch.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }

    async fn new() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let network = paxos::MemoryNetwork::new();
        let mut nodes = Vec::new();
        for place in 0..3 {
            let dir = scratch.path().join((place + 1).to_string());
            let format = format(ClusterId::new(7), place, 3);
            let wal = Wal::format(dir, &format, small()).unwrap();
            let builder = Node::builder().storage(wal).transport(network.transport(id(place)));
            let config = Config { ..config() };
            let builder = builder.config(config).options(on_demand());
            nodes.push(builder.start(Marks::default()).await.unwrap());
        }
        let client = nodes[1].client();
        let answered = 25;
        for name in 0..answered {
            assert_eq!(mark(&client, name).await, Ok(1));
            if name == 10 {
                until("some slots", || nodes[0].status().replica.applied > Slot::new(5)).await;
                soon("a snapshot", nodes[0].snapshot()).await.unwrap();
            }
        }
        // The survivor has them all: it is the last that is missed.
        let last = nodes[1].status().replica.applied;
        until("the survivor", || nodes[0].status().replica.applied >= last).await;
        for node in nodes.into_iter().rev() {
            drop(node);
        }
        // Their storages end a moment after them.
        for place in 1..=3 {
            let dir = scratch.path().join(place.to_string());
            let free = || paxos::storage::inspect::Inspection::open(&dir).is_ok();
            until("a free directory", free).await;
        }
        Self { scratch, answered }
    }

    /// Starts what was recovered, and looks for all that was answered; and for the mark of each check before.
    async fn check(&self, recovery: &Recovery, before: u64) {
        let format = format(recovery.cluster, 0, 1);
        assert_ne!(recovery.cluster, ClusterId::new(7));
        let node = node_on(&self.home(), &format).await;
        let client = node.client();
        for name in 1..self.answered {
            assert_eq!(marked(&client, name).await, 1);
        }
        assert_eq!(mark(&client, 0).await, Ok(2 + before));
        soon("the end", node.shutdown()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_survivor_has_is_brought_back_under_another_name() {
    let lost = Lost::new().await;
    let survey = backup::survey(lost.home()).unwrap();
    let facts = survey.facts().clone();
    assert_eq!((facts.cluster, facts.replica), (ClusterId::new(7), id(0)));
    assert_eq!(facts.voters, [1, 2, 3].map(ReplicaId::new));
    assert!(facts.snapshot.is_some() && facts.last >= facts.committed);
    assert_eq!(facts.last.distance_from(facts.committed), facts.chosen + facts.accepted);
    let words = survey.words();
    for said in ["kept:", "lost:", "ended:", "never start them again"] {
        assert!(words.contains(said), "{words}");
    }
    assert_eq!(lost.names(), ["1", "2", "3"], "nothing was done");
    let recovery = survey.recover(small()).unwrap();
    let aside = "1.of-cluster-00000000000000000000000000000007";
    assert_eq!(lost.names(), ["1", aside, "2", "3"]);
    let founded = recovery.founded.unwrap();
    assert!(founded.last >= facts.last);
    assert_eq!(founded.snapshot, facts.snapshot);
    lost.check(&recovery, 0).await;

    // The old directory is as it was, and of the old cluster; the new one is not a member of that.
    let old = format(ClusterId::new(7), 0, 3);
    drop(Wal::open(lost.scratch.path().join(aside), &old, small()).unwrap());
    let error = Wal::open(lost.home(), &old, small()).unwrap_err().to_string();
    assert!(error.contains("belongs to cluster") && error.contains("expected cluster"), "{error}");
    // It could be done to the new one again, and then its old directory would be in nobody's way.
    let second = backup::survey(lost.home()).unwrap().recover(small()).unwrap();
    assert_ne!(second.cluster, recovery.cluster);
    lost.check(&second, 1).await;
}

/// Killed between any two of its steps, it leaves what is run again to its end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recovery_that_was_cut_short_is_run_again() {
    // While the new directory was being made.
    let lost = Lost::new().await;
    let recovering = lost.scratch.path().join("1.recovering");
    std::fs::create_dir_all(recovering.join("wal")).unwrap();
    std::fs::write(recovering.join("wal/0000000000000001.wal"), "half").unwrap();
    assert_eq!(Recovery::resume(lost.home()).unwrap(), None);
    let recovery = backup::survey(lost.home()).unwrap().recover(small()).unwrap();
    assert!(!recovering.exists());
    lost.check(&recovery, 0).await;

    // After the old directory gave its name up, and before the new one had it.
    let done = lost.home();
    std::fs::rename(&done, &recovering).unwrap();
    let unfinished = backup::survey(&done);
    assert!(matches!(unfinished, Err(RecoveryError::Unfinished { .. })), "{unfinished:?}");
    assert!(!done.exists());
    let resumed = Recovery::resume(&done).unwrap().unwrap();
    assert_eq!(resumed.cluster, recovery.cluster);
    assert!(done.exists() && !recovering.exists());
    assert_eq!(Recovery::resume(&done).unwrap(), None);

    // While it is used, nothing is done to it; nor is anything written over.
    let node = node_on(&done, &format(recovery.cluster, 0, 1)).await;
    let used = backup::survey(&done);
    let locked = matches!(
        used,
        Err(RecoveryError::Backup(BackupError::Storage(StorageError::AlreadyOpen { .. })))
    );
    assert!(locked, "{used:?}");
    soon("the end", node.shutdown()).await;
    let taken = format!("1.of-cluster-{}", recovery.cluster);
    std::fs::create_dir(lost.scratch.path().join(taken)).unwrap();
    let refused = backup::survey(&done).unwrap().recover(small());
    let exists = matches!(refused, Err(RecoveryError::Backup(BackupError::Exists { .. })));
    assert!(exists, "{refused:?}");
}
