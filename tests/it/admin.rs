//! The admin endpoint: what it answers, whom it lets in, and what it bears.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "an unexpected answer is a failed test, whatever its kind"
)]

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;

use paxos::admin::{
    AdminError, AdminOptions, AdminServing, Answer, Fault, FaultCode, LINE_BYTES_MAX, Request,
    StatusReport, TransferReport,
};
use paxos::{Config, NodeOptions, Role, TransferError};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

use crate::support::{Cluster, config, id, mark, soon};

/// Patient elections: nobody takes over but who is asked to, on any machine.
fn patient() -> Config {
    Config {
        election_timeout: Duration::from_secs(2),
        election_jitter: Duration::from_secs(1),
        ..config()
    }
}

/// Endpoints of all nodes of a cluster.
struct Endpoints {
    scratch: TempDir,
    serving: Vec<AdminServing>,
}

impl Endpoints {
    async fn open(cluster: &Cluster) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let mut serving = Vec::new();
        for (place, node) in cluster.nodes.iter().enumerate() {
            let options = AdminOptions::socket(scratch.path().join(place.to_string()));
            serving.push(node.as_ref().unwrap().serve_admin(options).await.unwrap());
        }
        Self { scratch, serving }
    }

    async fn operator(&self, place: usize) -> Operator {
        Operator::connect(self.serving[place].path()).await
    }

    async fn ask(&self, place: usize, request: Request) -> Answer {
        self.operator(place).await.ask(request).await
    }

    async fn status(&self, place: usize) -> StatusReport {
        match self.ask(place, Request::Status).await {
            Answer::Status(report) => *report,
            other => panic!("{other:?}"),
        }
    }
}

/// The other end of an endpoint.
struct Operator(BufReader<UnixStream>);

impl Operator {
    async fn connect(path: &Path) -> Self {
        Self(BufReader::new(UnixStream::connect(path).await.unwrap()))
    }

    async fn say(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    /// The next line; empty at the end.
    async fn line(&mut self) -> String {
        let mut line = String::new();
        soon("a line", self.0.read_line(&mut line)).await.unwrap();
        line
    }

    async fn answer(&mut self) -> Answer {
        Answer::from_line(self.line().await.as_bytes()).unwrap()
    }

    async fn ask(&mut self, request: Request) -> Answer {
        self.say(request.to_line().as_bytes()).await;
        self.answer().await
    }

    async fn fault(&mut self) -> Fault {
        match self.answer().await {
            Answer::Error(fault) => fault,
            other => panic!("{other:?}"),
        }
    }
}

fn failed(answer: Answer) -> String {
    match answer {
        Answer::Error(Fault { code: FaultCode::Failed, reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn status_and_members_say_what_the_node_says() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let endpoints = Endpoints::open(&cluster).await;
    mark(&cluster.node(leader).client(), 1).await.unwrap();
    for place in 0..3 {
        let (report, node) = (endpoints.status(place).await, cluster.node(place));
        assert_eq!(report.replica, id(place));
        assert_eq!((report.cluster, report.life), {
            let status = node.status().replica;
            (paxos::ClusterId::new(7), status.incarnation)
        });
        assert_eq!(report.role == Role::Leader, place == leader);
        assert_eq!((report.leader, report.ballot), {
            let ballot = node.status().replica.leader;
            (Some(id(leader)), ballot)
        });
        assert_eq!(report.voters, (0..3).map(id).collect::<Vec<_>>());
        assert_eq!((report.observers, report.stopped), (vec![], None));
    }
    // The state machine's own progress, not that of the last heartbeat.
    assert_eq!(
        endpoints.status(leader).await.applied,
        cluster.node(leader).status().replica.applied
    );
    let Answer::Members(report) = endpoints.ask(leader, Request::Members).await else {
        panic!("no members");
    };
    let membership = cluster.node(leader).membership();
    let ids: Vec<_> = report.voters.iter().map(|member| member.id).collect();
    assert_eq!(ids, membership.voters().iter().map(|member| member.id).collect::<Vec<_>>());
    assert_eq!((report.epoch, report.window), (membership.epoch(), membership.window()));
    assert_eq!((report.quorums.elections_survive, report.quorums.writes_survive), (1, 1));
    assert_eq!(report.quorums.text, "2 of 3 voters elect, and store");
}

/// O5: "The requests of a connection are answered one after another, in their order, each by one line".
#[tokio::test]
async fn one_connection_asks_many_times_and_is_answered_in_order() {
    let cluster = Cluster::start(1).await;
    cluster.leader().await;
    let endpoints = Endpoints::open(&cluster).await;
    let mut operator = endpoints.operator(0).await;
    let requests = [Request::Members, Request::Status, Request::Metrics];
    let lines: String = requests.iter().map(Request::to_line).collect();
    operator.say(lines.as_bytes()).await;
    // Whoever says no more is answered all the same.
    operator.0.shutdown().await.unwrap();
    assert!(matches!(operator.answer().await, Answer::Members(_)));
    assert!(matches!(operator.answer().await, Answer::Status(_)));
    assert!(matches!(operator.answer().await, Answer::Metrics(_)));
    assert_eq!(operator.line().await, "");
}

/// What Prometheus asks of a text, and this library of its names.
fn check_exposition(text: &str) {
    let mut described: Vec<(String, String)> = Vec::new();
    let mut values = 0;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(help.len() > 5 && !help.starts_with(' '), "{line}");
            assert!(described.iter().all(|(known, _)| known != name), "{name} stands twice");
            described.push((name.to_owned(), String::new()));
            continue;
        }
        let (current, kind) = described.last_mut().unwrap();
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, is) = rest.split_once(' ').unwrap();
            assert_eq!(name, current, "{line}");
            assert_eq!(is == "counter", name.ends_with("_total"), "{line}");
            assert!(name.starts_with("paxos_"), "{line}");
            is.clone_into(kind);
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap();
        let parts = ["", "_sum", "_count"].map(|part| format!("{current}{part}"));
        let mut own = if kind == "summary" { &parts[..] } else { &parts[..1] }.iter();
        assert!(own.any(|own| own == name), "{line} follows {current}");
        assert!(labels.starts_with("replica=\"1\"") && labels.ends_with("\"}"), "{line}");
        assert!(value.parse::<f64>().is_ok_and(f64::is_finite), "{line}");
        values += 1;
    }
    assert!(described.iter().all(|(name, kind)| !kind.is_empty() && !name.is_empty()));
    assert!(values > 80, "{values} values");
}

#[tokio::test]
async fn metrics_are_text_that_prometheus_reads_in_both_languages() {
    let cluster = Cluster::start(1).await;
    cluster.leader().await;
    for name in 0..3 {
        mark(&cluster.node(0).client(), name).await.unwrap();
    }
    let endpoints = Endpoints::open(&cluster).await;
    let Answer::Metrics(text) = endpoints.ask(0, Request::Metrics).await else {
        panic!("no metrics");
    };
    check_exposition(&text);
    let applied = cluster.node(0).metrics().commands_applied;
    for line in [
        format!("paxos_commands_applied_total{{replica=\"1\"}} {applied}"),
        "paxos_leads{replica=\"1\"} 1".to_owned(),
        "# TYPE paxos_requests_waiting gauge".to_owned(),
        "# TYPE paxos_sync_seconds summary".to_owned(),
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
    }
    let mut operator = endpoints.operator(0).await;
    operator.say(b"GET /metrics HTTP/1.1\r\nHost: node\r\n\r\n").await;
    let mut page = String::new();
    soon("a page", operator.0.read_to_string(&mut page)).await.unwrap();
    let (head, body) = page.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{head}");
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    check_exposition(body);
    let mut operator = endpoints.operator(0).await;
    operator.say(b"GET /favicon.ico HTTP/1.1\r\n\r\n").await;
    assert_eq!(operator.line().await, "HTTP/1.1 404 Not Found\r\n");
}

/// O3: "A request is understood whole or refused: another version, an unknown verb and an unknown field
/// are errors that say so, and nothing is done."
#[tokio::test]
async fn what_is_not_understood_is_answered_and_what_is_too_long_ends_the_connection() {
    let cluster = Cluster::start(1).await;
    cluster.leader().await;
    let endpoints = Endpoints::open(&cluster).await;
    let mut operator = endpoints.operator(0).await;
    for (line, code) in [
        (&b"nonsense\n"[..], FaultCode::Malformed),
        (b"\xff\xfe\n", FaultCode::Malformed),
        (b"{\"v\":9,\"verb\":\"status\"}\n", FaultCode::Version),
        (b"{\"v\":1,\"verb\":\"explode\"}\n", FaultCode::UnknownVerb),
        (b"{\"v\":1,\"verb\":\"transfer\",\"too\":1}\n", FaultCode::Malformed),
    ] {
        operator.say(line).await;
        let fault = operator.fault().await;
        assert_eq!(fault.code, code, "{fault}");
        assert!(fault.reason.len() > 20, "{fault}");
    }
    assert!(matches!(operator.ask(Request::Status).await, Answer::Status(_)));
    operator.say(&vec![b'x'; LINE_BYTES_MAX + 1]).await;
    assert_eq!(operator.fault().await.code, FaultCode::TooLong);
    assert_eq!(operator.line().await, "");
}

/// O4: "Connections, the bytes of a line, the time of silence, and the time that an answer may be left
/// untaken are bounded. What goes beyond is closed, and told why where it still listens."
#[tokio::test]
async fn connections_are_bounded_and_one_that_ends_makes_room() {
    let cluster = Cluster::start(1).await;
    let scratch = tempfile::tempdir().unwrap();
    let options =
        AdminOptions { connections_max: 2, ..AdminOptions::socket(scratch.path().join("s")) };
    let serving = cluster.node(0).serve_admin(options).await.unwrap();
    let mut first = Operator::connect(serving.path()).await;
    let mut second = Operator::connect(serving.path()).await;
    // Answered, so that both are known to have a place.
    assert!(matches!(first.ask(Request::Status).await, Answer::Status(_)));
    assert!(matches!(second.ask(Request::Watch).await, Answer::Leadership(_)));
    let mut third = Operator::connect(serving.path()).await;
    let fault = third.fault().await;
    assert_eq!(fault.code, FaultCode::Busy, "{fault}");
    assert_eq!(third.line().await, "");
    drop(second);
    soon("a free place", async {
        let ask = async || Operator::connect(serving.path()).await.ask(Request::Status).await;
        while !matches!(ask().await, Answer::Status(_)) {}
    })
    .await;
}

/// The rest of O4.
#[tokio::test]
async fn the_silent_and_those_who_do_not_listen_are_closed() {
    let cluster = Cluster::start(1).await;
    cluster.leader().await;
    let scratch = tempfile::tempdir().unwrap();
    let brief = Duration::from_millis(200);
    let options = AdminOptions {
        idle_timeout: brief,
        write_timeout: brief,
        ..AdminOptions::socket(scratch.path().join("s"))
    };
    let serving = cluster.node(0).serve_admin(options).await.unwrap();
    // Whoever watches has nothing to say, and is not taken for silent.
    let mut watch = Operator::connect(serving.path()).await;
    assert!(matches!(watch.ask(Request::Watch).await, Answer::Leadership(_)));
    // Half a line is no request, and does not make up for silence.
    let mut silent = Operator::connect(serving.path()).await;
    silent.say(b"{\"v\":1,").await;
    let fault = silent.fault().await;
    assert_eq!(fault.code, FaultCode::Idle, "{fault}");
    assert_eq!(silent.line().await, "");
    // One that asks and never listens: the answers fill the socket, and it is closed.
    let mut deaf = Operator::connect(serving.path()).await;
    let line = Request::Metrics.to_line();
    let cut = soon("the end of a connection", async {
        loop {
            if let Err(error) = deaf.0.write_all(line.as_bytes()).await {
                break error;
            }
        }
    });
    assert_eq!(cut.await.kind(), io::ErrorKind::BrokenPipe);
    let still = watch.0.get_ref().try_read(&mut [0; 1]).unwrap_err();
    assert_eq!(still.kind(), io::ErrorKind::WouldBlock);
    // The node has served its clients meanwhile.
    assert_eq!(mark(&cluster.node(0).client(), 1).await, Ok(1));
}

#[tokio::test]
async fn a_leader_makes_way_for_the_one_asked_for_or_for_the_best() {
    let cluster = Cluster::tuned(3, patient(), NodeOptions::default()).await;
    let leader = cluster.leader().await;
    let endpoints = Endpoints::open(&cluster).await;
    let (next, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let nobody = Some(paxos::ReplicaId::new(9));
    let reason = failed(endpoints.ask(leader, Request::Transfer { to: nobody }).await);
    assert_eq!(reason, "replica 9 does not vote");
    for to in [None, Some(id(next))] {
        let reason = failed(endpoints.ask(other, Request::Transfer { to }).await);
        assert_eq!(reason, format!("not the leader; {} is", id(leader)));
    }
    let answer = endpoints.ask(leader, Request::Transfer { to: Some(id(next)) }).await;
    let Answer::Transferred(TransferReport { leader: leads, ballot, took, .. }) = answer else {
        panic!("{answer:?}");
    };
    assert_eq!((leads, ballot.leader()), (id(next), id(next)));
    assert!(took < Duration::from_secs(30), "{took:?}");
    assert_eq!(cluster.leader().await, next);
    // Nobody is named: one of the others leads.
    let Answer::Transferred(report) = endpoints.ask(next, Request::Transfer { to: None }).await
    else {
        panic!("nobody took over");
    };
    assert_ne!(report.leader, id(next));
    assert!(report.ballot > ballot);
    assert_eq!(id(cluster.leader().await), report.leader);
}

#[tokio::test]
async fn a_status_says_how_old_it_is() {
    let mut cluster = Cluster::start(1).await;
    cluster.leader().await;
    let endpoints = Endpoints::open(&cluster).await;
    let wait = async |holds: fn(&StatusReport) -> bool| {
        soon("a status", async { while !holds(&endpoints.status(0).await) {} }).await;
    };
    // A task that runs writes it down again and again; one that has ended does not.
    wait(|report| report.uptime.as_millis() > 1000 && report.age.as_millis() < 500).await;
    cluster.nodes[0].take().unwrap().shutdown().await;
    wait(|report| report.age.as_millis() > 1000).await;
}

#[tokio::test]
async fn who_has_no_other_voter_makes_way_for_none() {
    let cluster = Cluster::start(1).await;
    cluster.leader().await;
    assert_eq!(cluster.node(0).make_way().await, Err(TransferError::NoHeir));
    let endpoints = Endpoints::open(&cluster).await;
    let reason = failed(endpoints.ask(0, Request::Transfer { to: None }).await);
    assert_eq!(reason, "no other voter is connected and near enough to take over");
    // And leads on.
    assert_eq!(mark(&cluster.node(0).client(), 1).await, Ok(1));
}

/// O5: "a watch by one line for each change, and it is the last request of its connection"; O6: "An
/// endpoint outlives its node: it then says why the node stopped, and carries out nothing."
#[tokio::test]
async fn a_watch_tells_of_each_change_and_of_the_end() {
    let mut cluster = Cluster::tuned(3, patient(), NodeOptions::default()).await;
    let leader = cluster.leader().await;
    let endpoints = Endpoints::open(&cluster).await;
    let mut watch = endpoints.operator(leader).await;
    let Answer::Leadership(report) = watch.ask(Request::Watch).await else {
        panic!("no news");
    };
    assert_eq!((report.replica, report.leader), (id(leader), Some(id(leader))));
    let answer = endpoints.ask(leader, Request::Transfer { to: None }).await;
    let Answer::Transferred(done) = answer else {
        panic!("{answer:?}");
    };
    // In between it may have known of nobody.
    loop {
        match watch.answer().await {
            Answer::Leadership(report) if report.leader.is_none() => {}
            Answer::Leadership(report) => {
                assert_eq!((report.leader, report.ballot), (Some(done.leader), Some(done.ballot)));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    let node = cluster.nodes[leader].take().unwrap();
    node.shutdown().await;
    let fault = loop {
        match watch.answer().await {
            Answer::Leadership(_) => {}
            Answer::Error(fault) => break fault,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((fault.code, &*fault.reason), (FaultCode::Stopped, "the node was shut down"));
    assert_eq!(watch.line().await, "");
    // The endpoint outlives the node, and says why it is no more.
    let report = endpoints.status(leader).await;
    assert_eq!(report.stopped.as_deref(), Some("the node was shut down"));
    let Answer::Error(fault) = endpoints.ask(leader, Request::Transfer { to: None }).await else {
        panic!("a stopped node made way");
    };
    assert_eq!(fault.code, FaultCode::Stopped);
}

/// O1: "The socket's file has the mode 0600 from the moment it has its name: whoever may not write it, by
/// the rules of the file system, cannot speak to the node."
#[tokio::test]
async fn the_socket_is_its_owners_alone_and_goes_with_the_endpoint() {
    let cluster = Cluster::start(1).await;
    let endpoints = Endpoints::open(&cluster).await;
    let path = endpoints.serving[0].path().to_owned();
    let file = fs::symlink_metadata(&path).unwrap();
    assert!(file.file_type().is_socket());
    assert_eq!(file.permissions().mode() & 0o777, 0o600);
    // What it was made in is gone.
    assert_eq!(fs::read_dir(endpoints.scratch.path()).unwrap().count(), 1);
    let Endpoints { scratch, serving } = endpoints;
    drop(serving);
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
}

/// O2: "A file that is in the way is replaced only if it is a socket on which nobody listens; at the end
/// the file is removed only if it is the one that was made."
#[tokio::test]
async fn only_a_socket_that_nobody_listens_on_is_replaced() {
    let cluster = Cluster::start(1).await;
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("s");
    let open = || cluster.node(0).serve_admin(AdminOptions::socket(&path));
    // One that a killed process left.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let serving = open().await.unwrap();
    assert!(matches!(open().await, Err(AdminError::InUse { .. })));
    assert!(matches!(
        Operator::connect(serving.path()).await.ask(Request::Members).await,
        Answer::Members(_)
    ));
    // Another's file under the same name is not removed at the end.
    fs::remove_file(&path).unwrap();
    fs::write(&path, "kept").unwrap();
    drop(serving);
    let refused = open().await;
    assert!(matches!(refused, Err(AdminError::NotASocket { .. })), "{refused:?}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "kept");
    let long = scratch.path().join("x".repeat(104));
    let refused = cluster.node(0).serve_admin(AdminOptions::socket(long)).await;
    assert!(matches!(refused, Err(AdminError::PathTooLong { .. })), "{refused:?}");
    let nowhere = scratch.path().join("absent/s");
    let refused = cluster.node(0).serve_admin(AdminOptions::socket(nowhere)).await;
    assert!(matches!(refused, Err(AdminError::Socket { .. })), "{refused:?}");
    let none = AdminOptions { connections_max: 0, ..AdminOptions::socket(&path) };
    let refused = cluster.node(0).serve_admin(none).await;
    assert!(matches!(refused, Err(AdminError::Options("connections_max"))), "{refused:?}");
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1);
}

#[test]
fn the_document_shows_lines_that_are_understood() {
    let text = include_str!("../../docs/admin.md");
    let requests = text.lines().filter_map(|line| line.strip_prefix("> "));
    let requests: Vec<_> =
        requests.map(|line| Request::from_line(line.as_bytes()).expect(line)).collect();
    for verb in ["status", "members", "metrics", "watch", "transfer"] {
        assert!(requests.iter().any(|request| request.verb() == verb), "{verb}");
        assert!(text.contains(&format!("\n| `{verb}` |")), "{verb}");
    }
    let answers = text.lines().filter_map(|line| line.strip_prefix("< "));
    for line in answers {
        let answer = Answer::from_line(line.as_bytes()).expect(line);
        // Nothing is missing, and nothing has another name.
        assert_eq!(answer.to_line().trim_end(), line);
    }
    for code in [
        FaultCode::Malformed,
        FaultCode::Version,
        FaultCode::UnknownVerb,
        FaultCode::Failed,
        FaultCode::Stopped,
        FaultCode::TooLong,
        FaultCode::Idle,
        FaultCode::Busy,
    ] {
        let name = serde_json::to_string(&code).unwrap();
        let name = name.trim_matches('"');
        assert!(text.contains(&format!("\n| `{name}` |")), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_told_to_make_snapshots_to_trim_and_to_write_a_backup() {
    let cluster =
        Cluster::with(1, NodeOptions { snapshot_slots: u64::MAX, ..NodeOptions::default() }).await;
    let endpoints = Endpoints::open(&cluster).await;
    let reason = failed(endpoints.ask(0, Request::Snapshot).await);
    assert_eq!(reason, "nothing is applied yet");
    for name in 0..10 {
        assert_eq!(mark(&cluster.node(0).client(), name).await, Ok(1));
    }
    let through = Some(paxos::Slot::new(1));
    let reason = failed(endpoints.ask(0, Request::Trim { through }).await);
    assert_eq!(reason, "slot 1 is in no snapshot, for there is none: make one first");
    let Answer::Snapshot(made) = endpoints.ask(0, Request::Snapshot).await else {
        panic!("no snapshot")
    };
    assert_eq!((made.replica, made.digest.len()), (id(0), 32));
    let Answer::Trimmed(report) = endpoints.ask(0, Request::Trim { through }).await else {
        panic!("not trimmed")
    };
    assert_eq!(Some(report.trimmed), through);
    let Answer::Trimmed(report) = endpoints.ask(0, Request::Trim { through: None }).await else {
        panic!("not trimmed")
    };
    assert_eq!(report.trimmed, made.slot);

    let file = endpoints.scratch.path().join("b").to_str().unwrap().to_owned();
    let export = |file: &str| Request::Export { file: file.to_owned() };
    assert!(failed(endpoints.ask(0, export("b")).await).contains("b is no absolute path"));
    let Answer::Exported(report) = endpoints.ask(0, export(&file)).await else {
        panic!("no backup")
    };
    let snapshot = report.snapshot.unwrap();
    assert_eq!((snapshot.slot, &snapshot.digest), (made.slot, &made.digest));
    assert_eq!(report.file_bytes, fs::metadata(&file).unwrap().len());
    assert!(failed(endpoints.ask(0, export(&file)).await).contains("exists already"));
    let nowhere = format!("{file}/b");
    assert!(failed(endpoints.ask(0, export(&nowhere)).await).contains("cannot create"));
}
