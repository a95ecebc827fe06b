//! The operators' program against real processes: what it prints, and the exit codes that scripts rely on.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cluster::{Cluster, Process};
use crate::examples::{PATIENCE, wait_for};

pub(crate) const PAXOSCTL: &str = env!("CARGO_BIN_EXE_paxosctl");

pub(crate) fn paxosctl<A: AsRef<std::ffi::OsStr>>(arguments: &[A]) -> Output {
    Command::new(PAXOSCTL).args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// Runs a verb on this place, with these options.
pub(crate) fn ask(verb: &str, place: &Path, options: &[&str]) -> Output {
    let mut arguments: Vec<_> = verb.split(' ').map(str::to_owned).collect();
    arguments.push(place.to_str().unwrap().to_owned());
    arguments.extend(options.iter().map(ToString::to_string));
    paxosctl(&arguments)
}

pub(crate) fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The one line on standard error of a run that ended with this code.
pub(crate) fn complaint(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    let line = String::from_utf8(output.stderr.clone()).unwrap();
    assert!(line.starts_with("paxosctl: ") && line.lines().count() == 1, "{line}");
    line
}

pub(crate) fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Asks until it is done: the machine may be busy, and the leader change by itself.
pub(crate) fn done(verb: &str, place: &Path, options: &[&str]) -> Output {
    wait_for(verb, || Some(ask(verb, place, options)).filter(|output| output.status.success()))
}

/// Asks until it is refused for this reason.
fn refused(verb: &str, place: &Path, options: &[&str], reason: &str) {
    wait_for(reason, || complaint(&ask(verb, place, options), 1).contains(reason).then_some(()));
}

pub(crate) fn everybody(cluster: &Cluster) -> std::path::PathBuf {
    cluster.scratch().join("c")
}

/// Waits until every replica takes part, and one leads by the word of all.
pub(crate) fn settled(cluster: &Cluster) -> u64 {
    let place = everybody(cluster);
    wait_for("a leader that all know", || {
        let output = ask("status", &place, &["--json"]);
        let report = output.status.success().then(|| json(&output))?;
        let nodes = report["nodes"].as_array().unwrap();
        let leader = nodes[0]["status"]["leader"].as_u64()?;
        let same = nodes.iter().all(|node| node["status"]["leader"] == leader);
        let leads = nodes.iter().any(|node| node["status"]["role"] == "leader");
        (nodes.len() == cluster.processes.len() && same && leads).then_some(leader)
    })
}

#[test]
fn an_operator_sees_the_cluster_and_moves_its_leader() {
    let cluster = Cluster::started(3);
    let place = everybody(&cluster);
    let shown = wait_for("a table of three", || {
        let shown = text(&done("status", &place, &[]));
        let led = shown.matches("follower").count() == 2 && shown.contains(" leads\n");
        (led && !shown.contains("was not asked")).then_some(shown)
    });
    assert!(shown.starts_with("replica  role"), "{shown}");

    let shown = text(&ask("status", &cluster.home(1), &[]));
    assert!(shown.contains("replica 2 was not asked: name its socket too"), "{shown}");

    let members = text(&ask("members", &place, &[]));
    assert!(members.contains("2 of 3 voters elect, and store"), "{members}");
    let address = format!("127.0.0.1:{}", cluster.port(1) + 100);
    assert!(members.contains(&address), "{members}");
    let members = json(&ask("members", &place, &["--json"]));
    assert_eq!(members["voters"].as_array().unwrap().len(), 3);

    let next = settled(&cluster) % 3 + 1;
    let moved = done("transfer-leader", &place, &["--to", &next.to_string()]);
    assert!(text(&moved).starts_with(&format!("replica {next} leads")), "{moved:?}");
    let again = text(&done("transfer-leader", &place, &["--to", &next.to_string()]));
    assert!(again.starts_with(&format!("replica {next} leads already")), "{again}");
    let moved = json(&done("transfer-leader", &place, &["--json"]));
    assert_ne!(moved["leader"].as_u64().unwrap(), next);

    refused("transfer-leader", &place, &["--to", "9"], "replica 9 does not vote");
    let follower = settled(&cluster) % 3 + 1;
    let reason = "is not among the nodes that answered";
    refused("transfer-leader", &cluster.home(follower as u16), &[], reason);

    let metrics = text(&ask("metrics", &cluster.home(2), &[]));
    assert!(metrics.contains("# TYPE paxos_commands_applied_total counter"), "{metrics}");
    assert!(metrics.contains("paxos_applied_slot{replica=\"2\"} "), "{metrics}");
}

#[test]
fn a_watch_prints_each_change() {
    let mut cluster = Cluster::started(3);
    let leader = settled(&cluster);
    let place = cluster.home(leader as u16);
    let mut child = Command::new(PAXOSCTL)
        .args(["watch", "--json", place.to_str().unwrap()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next =
        || lines.next().map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    assert_eq!(next().unwrap()["leader"], leader);
    let moved = json(&done("transfer-leader", &everybody(&cluster), &["--json"]));
    // In between it may have known of nobody.
    let told = core::iter::from_fn(&mut next)
        .any(|line| line["leader"] == moved["leader"] && line["ballot"] == moved["ballot"]);
    assert!(told, "{moved}");
    cluster.kill(leader as u16);
    assert!(core::iter::from_fn(&mut next).all(|line| line["replica"] == leader));
    assert!(complaint(&child.wait_with_output().unwrap(), 3).contains("ended the connection"));
}

/// O7: "An order whose answer did not come may have been carried out. Nothing is withdrawn when a connection
/// ends."
#[test]
fn an_order_without_an_answer_may_have_been_carried_out() {
    let cluster = Cluster::started(3);
    let leader = settled(&cluster);
    let socket = cluster.home(leader as u16).join("admin.sock");
    // Refused until the others are connected, which nobody hears.
    wait_for("another leader", || {
        let mut operator = UnixStream::connect(&socket).unwrap();
        operator.write_all(b"{\"v\":1,\"verb\":\"transfer\"}\n").unwrap();
        drop(operator);
        (settled(&cluster) != leader).then_some(())
    });
}

#[test]
fn who_does_not_answer_is_told_from_who_refuses() {
    let mut cluster = Cluster::started(3);
    let (leader, place) = (settled(&cluster), everybody(&cluster));
    let paused = (leader % 3 + 1) as u16;
    // A paused process takes connections, and says nothing.
    cluster.process(paused).signal("STOP");
    // The signal takes its time on a busy machine.
    let (output, took) = wait_for("silence", || {
        let began = Instant::now();
        let output = ask("status", &cluster.home(paused), &["--timeout", "0.5"]);
        (!output.status.success()).then(|| (output, began.elapsed()))
    });
    assert!(took >= Duration::from_millis(500) && took < PATIENCE, "{took:?}");
    assert!(complaint(&output, 3).contains("may be stopped"));
    for verb in ["members", "metrics", "watch", "transfer-leader"] {
        let output = ask(verb, &cluster.home(paused), &["--timeout", "0.2"]);
        complaint(&output, 3);
    }
    let output = ask("status", &place, &["--timeout", "5"]);
    assert!(complaint(&output, 1).contains("1 of 3 nodes did not answer"));
    assert!(text(&output).contains("no answer"), "{output:?}");
    let output = ask("status", &place, &["--timeout", "5", "--json"]);
    let error = &json(&output)["nodes"][usize::from(paused) - 1]["error"];
    assert_eq!(error["code"], "no_answer", "{output:?}");
    cluster.process(paused).signal("CONT");

    // A killed one leaves its socket, which its next life replaces.
    cluster.kill(paused);
    assert!(cluster.home(paused).join("admin.sock").exists());
    let output = ask("status", &cluster.home(paused), &[]);
    assert!(complaint(&output, 3).contains("not running"));
    cluster.start(paused);
    settled(&cluster);
    // An orderly end takes the socket along.
    cluster.process(paused).signal("TERM");
    assert_eq!(cluster.process(paused).wait(), 0);
    assert!(!cluster.home(paused).join("admin.sock").exists());
    assert!(complaint(&ask("status", &cluster.home(paused), &[]), 3).contains("no socket"));
    // It is one of several that were named, and hides none of the others.
    let homes: Vec<_> = cluster.ids().map(|id| cluster.home(id)).collect();
    let mut arguments = vec!["status".as_ref()];
    arguments.extend(homes.iter().map(|home| home.as_os_str()));
    let output = wait_for("news of the end", || {
        let output = paxosctl(&arguments);
        text(&output).contains(&format!("! replica {paused} is not heard by ")).then_some(output)
    });
    assert!(complaint(&output, 1).contains("1 of 3 nodes did not answer"));
    complaint(&ask("status", &cluster.scratch().join("absent"), &[]), 3);
}

#[test]
fn mistakes_on_the_command_line_end_with_two() {
    let nothing: [&str; 0] = [];
    assert!(complaint(&paxosctl(&nothing), 2).contains("paxosctl --help"));
    assert!(complaint(&paxosctl(&["explode", "c"]), 2).contains("unknown verb explode"));
    assert!(complaint(&paxosctl(&["status"]), 2).contains("needs a node's socket"));
    assert!(complaint(&paxosctl(&["status", file!()]), 2).contains("neither a socket nor"));
    let help = paxosctl(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    let verbs = [
        "status",
        "members",
        "transfer-leader",
        "watch",
        "metrics",
        "snapshot",
        "trim",
        "export",
        "log inspect",
        "recover",
    ];
    for verb in verbs {
        assert!(text(&help).contains(&format!("  paxosctl {verb} ")), "{help:?}");
        let words: Vec<_> = verb.split(' ').chain(["--help"]).collect();
        let output = paxosctl(&words);
        assert!(text(&output).contains("examples:\n  paxosctl"), "{output:?}");
    }
}

#[test]
fn the_socket_can_be_elsewhere_and_a_replica_serves_without_one_that_cannot_be() {
    let mut cluster = Cluster::laid_out(1);
    let home = cluster.home(1);
    let elsewhere = cluster.scratch().join("elsewhere");
    let serve = |home: &Path, admin: &Path| {
        Process::start(&["serve".as_ref(), home.as_os_str(), "--admin".as_ref(), admin.as_os_str()])
    };
    let mut process = serve(&home, &elsewhere);
    wait_for("an answer", || ask("status", &elsewhere, &[]).status.success().then_some(()));
    assert!(!home.join("admin.sock").exists());
    process.signal("TERM");
    assert_eq!(process.wait(), 0);
    // One that is asked for, and cannot be had, is a reason not to start.
    fs::write(&elsewhere, "mine").unwrap();
    let mut process = serve(&home, &elsewhere);
    assert_eq!(process.wait(), 1);
    let words = "is there and is no socket";
    wait_for(words, || process.output().contains(words).then_some(()));
    // In a directory whose path is too long it is left away.
    let deep = cluster.scratch().join("d".repeat(100));
    fs::create_dir(&deep).unwrap();
    fs::rename(&home, deep.join("1")).unwrap();
    let process = Process::start(&["serve".as_ref(), deep.join("1").as_os_str()]);
    let words = "no admin socket: --admin names another path";
    wait_for(words, || process.output().contains(words).then_some(()));
    cluster.processes[0] = Some(process);
    assert_eq!(cluster.leader(), 1);
}
