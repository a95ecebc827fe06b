//! What is logged: when, by whom, and how loudly.

use std::time::Duration;

use crate::cluster::{Cluster, Process, free_base_port};
use crate::examples::wait_for;
use crate::log::utc;

#[test]
fn times_are_utc() {
    // Leap days, their absence in 2100, and the ends of years.
    let known = [
        (0, 0, "1970-01-01T00:00:00.000Z"),
        (951_782_400, 1, "2000-02-29T00:00:00.001Z"),
        (1_709_251_199, 999, "2024-02-29T23:59:59.999Z"),
        (1_709_251_200, 0, "2024-03-01T00:00:00.000Z"),
        (1_767_225_599, 0, "2025-12-31T23:59:59.000Z"),
        (4_107_542_400, 0, "2100-03-01T00:00:00.000Z"),
    ];
    for (seconds, millis, text) in known {
        let time = Duration::from_secs(seconds) + Duration::from_millis(millis);
        assert_eq!(utc(time), text);
    }
}

#[test]
fn lines_of_three_in_one_process_say_whose_they_are() {
    let scratch = tempfile::tempdir().unwrap();
    let (data, port) = (scratch.path().join("d"), free_base_port().to_string());
    let kv = Process::start(&["--data", data.to_str().unwrap(), "--base-port", &port]);
    let output = wait_for("a leader", || {
        let output = kv.output();
        output.contains(" leads ").then_some(output)
    });
    let lines: Vec<_> = output.lines().filter(|line| line.contains("Z INFO ")).collect();
    assert!(!lines.is_empty(), "{output}");
    for line in lines {
        assert!(line.contains(" replica=replica "), "{line}");
    }
}

#[test]
fn a_lost_leader_is_a_warning() {
    let mut cluster = Cluster::started(3);
    let leader = cluster.leader();
    let others: Vec<_> = cluster.ids().filter(|&id| id != leader).collect();
    for &id in &others {
        wait_for("a follower", || {
            (cluster.info(id, "leader")? == leader.to_string()).then_some(())
        });
    }
    cluster.kill(leader);
    cluster.kill(others[0]);
    wait_for("the warning", || {
        let output = cluster.process(others[1]).output();
        let warned = |line: &str| line.contains("WARN") && line.contains("lost its leader");
        output.lines().any(warned).then_some(())
    });
}
