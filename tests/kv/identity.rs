//! Directories that may have forgotten votes, or are another's: each is refused, and is told what to
//! do, and the others go on.
//!
//! Votes that the refusal rests on are made to have been heard, without waiting for time to pass:
//! while one of three is down, what is acknowledged was voted for by both others.

use std::fs;
use std::path::Path;

use crate::client::Answer;
use crate::cluster::{Cluster, Process, copy_dir, edit, free_base_port, run, setting};
use crate::examples::wait_for;

/// What leads out of a refusal.
const WAY_BACK: [&str; 2] = ["put back the newest directory", "replace this replica"];

fn follower_of(cluster: &Cluster, leader: u16) -> u16 {
    cluster.ids().find(|id| *id != leader).unwrap()
}

/// A command is acknowledged, whoever leads.
fn write(cluster: &Cluster, through: u16) {
    wait_for("an acknowledged command", || {
        let answer = cluster.client(through).say("INCR n").ok()?;
        matches!(answer, Answer::Integer(_)).then_some(())
    });
}

/// The replica stops by itself and says why, and its directory does not start again.
fn assert_refused_for_good(cluster: &mut Cluster, id: u16, why: &str) {
    assert_ne!(cluster.process(id).wait(), 0);
    let output = cluster.process(id).output();
    assert!(output.contains("stopped by itself"), "{output}");
    for words in [why].into_iter().chain(WAY_BACK) {
        assert!(output.contains(words), "{words} in {output}");
    }
    assert_never_starts(&cluster.home(id));
}

fn assert_never_starts(home: &Path) {
    let again = run(&["serve".as_ref(), home.as_os_str()]);
    assert!(!again.status.success());
    let line = String::from_utf8(again.stderr).unwrap();
    for words in ["refused this directory"].into_iter().chain(WAY_BACK) {
        assert!(line.contains(words), "{words} in {line}");
    }
}

/// Three that serve, and one of them that is stopped: (the leader, one that follows, the third).
fn three_and_roles() -> (Cluster, u16, u16, u16) {
    let cluster = Cluster::started(3);
    let leader = cluster.leader();
    let follower = follower_of(&cluster, leader);
    let third = cluster.ids().find(|id| ![leader, follower].contains(id)).unwrap();
    write(&cluster, leader);
    (cluster, leader, follower, third)
}

/// A disk dies, and last night's backup of the directory is put in its place: the replica was never
/// started in between, so that the counter of its lives is what the others expect.
#[test]
fn a_restored_backup_that_forgot_votes_of_the_same_life() {
    let (mut cluster, leader, victim, third) = three_and_roles();
    let backup = cluster.scratch().join("backup");
    cluster.process(victim).signal("STOP");
    copy_dir(&cluster.home(victim).join("data"), &backup);
    cluster.process(victim).signal("CONT");
    cluster.kill(third);
    for _ in 0..3 {
        write(&cluster, leader);
    }
    cluster.kill(victim);
    fs::remove_dir_all(cluster.home(victim).join("data")).unwrap();
    fs::rename(&backup, cluster.home(victim).join("data")).unwrap();
    cluster.start(victim);
    assert_refused_for_good(&mut cluster, victim, "it is a backup or an old copy");
    cluster.start(third);
    write(&cluster, leader);
}

/// The same, after the replica was started again: the counter alone tells.
#[test]
fn a_restored_backup_of_an_earlier_life() {
    let (mut cluster, leader, victim, _) = three_and_roles();
    cluster.kill(victim);
    let backup = cluster.scratch().join("backup");
    copy_dir(&cluster.home(victim).join("data"), &backup);
    for _ in 0..2 {
        cluster.start(victim);
        wait_for("both peers", || (cluster.info(victim, "connected_peers")? == "2").then_some(()));
        cluster.kill(victim);
    }
    fs::remove_dir_all(cluster.home(victim).join("data")).unwrap();
    fs::rename(&backup, cluster.home(victim).join("data")).unwrap();
    cluster.start(victim);
    assert_refused_for_good(&mut cluster, victim, "is an old copy");
    write(&cluster, leader);
}

/// A copy of a running replica's directory is started elsewhere, with the same id and key.
#[test]
fn a_copy_beside_the_original_that_runs() {
    let (mut cluster, leader, original, third) = three_and_roles();
    let copy = cluster.scratch().join("copy");
    cluster.process(original).signal("STOP");
    copy_dir(&cluster.home(original), &copy);
    cluster.process(original).signal("CONT");
    cluster.kill(third);
    for _ in 0..3 {
        write(&cluster, leader);
    }
    let mut second = Process::start(&["serve".as_ref(), elsewhere(&copy).as_os_str()]);
    assert_ne!(second.wait(), 0);
    let output = second.output();
    assert!(output.contains("stopped by itself"), "{output}");
    assert!(output.contains("may have forgotten votes"), "{output}");
    assert_never_starts(&copy);
    // The original votes on: with the third down, nothing is chosen without it.
    write(&cluster, leader);
}

/// Gives a copied directory ports of its own.
fn elsewhere(home: &Path) -> &Path {
    let base = free_base_port();
    let config = home.join("config.toml");
    for (key, port) in [("clients", base + 1), ("listen", base + 101)] {
        let was = format!("{key} = \"{}\"", setting(home, key, 0));
        edit(&config, &was, &format!("{key} = \"127.0.0.1:{port}\""));
    }
    home
}

/// Two copies of a stopped directory are started at once: both are in the life that comes next.
#[test]
fn two_copies_of_one_directory_at_once() {
    let (mut cluster, leader, victim, _) = three_and_roles();
    cluster.process(victim).signal("INT");
    assert_eq!(cluster.process(victim).wait(), 0);
    let copy = cluster.scratch().join("copy");
    copy_dir(&cluster.home(victim), &copy);
    cluster.start(victim);
    let mut second = Process::start(&["serve".as_ref(), elsewhere(&copy).as_os_str()]);
    // One of them is heard by the leader and the other told to go, by the leader or at its link.
    let refused = |output: &str| {
        output.contains("runs in two processes") || output.contains("a second process on a copy")
    };
    wait_for("one that is refused", || {
        let outputs = [cluster.process(victim).output(), second.output()];
        outputs.iter().any(|output| refused(output)).then_some(())
    });
    second.kill();
    write(&cluster, leader);
}

/// An operator lays out the lost replica anew with `kv init`: a new cluster, with keys of its own.
#[test]
fn a_replica_that_is_laid_out_anew() {
    let (mut cluster, leader, victim, _) = three_and_roles();
    cluster.kill(victim);
    let anew = Cluster::laid_out(3);
    let home = cluster.home(victim);
    let config = fs::read_to_string(home.join("config.toml")).unwrap();
    fs::remove_dir_all(&home).unwrap();
    copy_dir(&anew.home(victim), &home);
    // The old config with the new keys and the new log: the log is of another cluster.
    let new_config = fs::read_to_string(home.join("config.toml")).unwrap();
    fs::write(home.join("config.toml"), &config).unwrap();
    let output = run(&["serve".as_ref(), home.as_os_str()]);
    assert!(!output.status.success());
    let line = String::from_utf8(output.stderr).unwrap();
    assert!(line.contains("cluster"), "{line}");
    // All of it new, at the old addresses: the others do not know its key.
    fs::write(home.join("config.toml"), new_config).unwrap();
    let path = home.join("config.toml");
    let mut text = fs::read_to_string(&path).unwrap();
    for id in 1..=3 {
        for above in [0, 100] {
            let [from, to] = [&anew, &cluster].map(|of| format!(":{}\"", of.port(id) + above));
            text = text.replace(&from, &to);
        }
    }
    fs::write(&path, text).unwrap();
    cluster.start(victim);
    wait_for("a refusal", || {
        let output = cluster.process(victim).output();
        output.lines().any(|line| line.contains("refused") && line.contains("wrong")).then_some(())
    });
    assert_eq!(cluster.info(victim, "connected_peers").as_deref(), Some("0"));
    write(&cluster, leader);
}

/// The directory is there and empty: it was never formatted, and nothing is laid out by itself.
#[test]
fn an_emptied_directory() {
    let (mut cluster, leader, victim, _) = three_and_roles();
    cluster.kill(victim);
    let data = cluster.home(victim).join("data");
    fs::remove_dir_all(&data).unwrap();
    fs::create_dir(&data).unwrap();
    // The second start finds what the first one left there.
    for _ in 0..2 {
        let output = run(&["serve".as_ref(), cluster.home(victim).as_os_str()]);
        assert!(!output.status.success());
        let line = String::from_utf8(output.stderr).unwrap();
        for words in ["was never formatted"].into_iter().chain(WAY_BACK) {
            assert!(line.contains(words), "{words} in {line}");
        }
    }
    write(&cluster, leader);
}
