//! Replicas that are not who the others expect are refused, and both sides say why.

use std::fs;

use crate::cluster::{Cluster, copy_dir, edit, setting};
use crate::examples::wait_for;

/// Waits until both replicas have said the same, and sees that they are not linked.
fn assert_refused_on_both_sides(cluster: &mut Cluster, ids: [u16; 2], why: &str) {
    for id in ids {
        wait_for(&format!("a refusal at {id} that says: {why}"), || {
            let output = cluster.process(id).output();
            let told = |line: &str| line.contains("refused") && line.contains(why);
            output.lines().any(told).then_some(())
        });
    }
    for (id, peer) in [(ids[0], ids[1]), (ids[1], ids[0])] {
        let peers = wait_for("INFO", || cluster.info(id, "connected_peer_ids"));
        assert!(!peers.split(',').any(|other| other == peer.to_string()), "{peers}");
    }
}

#[test]
fn an_unknown_key() {
    let mut cluster = Cluster::laid_out(3);
    let stranger = Cluster::laid_out(1);
    // Replica 3 believes in a key of its own that the others were never told of.
    let home = cluster.home(3);
    let (known, unknown) = (setting(&home, "pin", 2), setting(&stranger.home(1), "pin", 0));
    edit(&home.join("config.toml"), &known, &unknown);
    fs::copy(stranger.home(1).join("key.pem"), home.join("key.pem")).unwrap();
    cluster.start(1);
    cluster.start(3);
    assert_refused_on_both_sides(&mut cluster, [1, 3], "wrong key");
}

#[test]
fn another_cluster() {
    let mut cluster = Cluster::laid_out(3);
    let other = Cluster::laid_out(3);
    // Replica 3 has the right key and the log and name of another cluster.
    let home = cluster.home(3);
    let (ours, theirs) = (setting(&home, "cluster", 0), setting(&other.home(3), "cluster", 0));
    edit(&home.join("config.toml"), &ours, &theirs);
    fs::remove_dir_all(home.join("data")).unwrap();
    copy_dir(&other.home(3).join("data"), &home.join("data"));
    cluster.start(1);
    cluster.start(3);
    assert_refused_on_both_sides(&mut cluster, [1, 3], "wrong cluster");
}

#[test]
fn anothers_id() {
    let mut cluster = Cluster::laid_out(3);
    // Replica 3's key, in the directory of one that says it is replica 2.
    let home = cluster.home(2);
    let (two, three) = (setting(&home, "pin", 1), setting(&home, "pin", 2));
    let config = home.join("config.toml");
    edit(&config, &three, "swapped");
    edit(&config, &two, &three);
    edit(&config, "swapped", &two);
    fs::copy(cluster.home(3).join("key.pem"), home.join("key.pem")).unwrap();
    cluster.start(1);
    cluster.start(2);
    assert_refused_on_both_sides(&mut cluster, [1, 2], "wrong replica id");
}

/// A replica whose log was replaced by an empty one may have forgotten votes.
#[test]
fn a_known_id_with_an_empty_log() {
    let mut cluster = Cluster::laid_out(3);
    let fresh = cluster.scratch().join("fresh");
    copy_dir(&cluster.home(3).join("data"), &fresh);
    for id in cluster.ids() {
        cluster.start(id);
    }
    wait_for("both peers of 3", || (cluster.info(3, "connected_peers")? == "2").then_some(()));
    cluster.leader();
    cluster.kill(3);
    cluster.start(3);
    wait_for("both peers of 3 again", || {
        (cluster.info(3, "connected_peers")? == "2").then_some(())
    });
    cluster.kill(3);
    fs::remove_dir_all(cluster.home(3).join("data")).unwrap();
    fs::rename(fresh, cluster.home(3).join("data")).unwrap();
    cluster.start(3);
    assert_ne!(cluster.process(3).wait(), 0);
    let output = cluster.process(3).output();
    assert!(output.contains("stopped by itself"), "{output}");
    assert!(output.contains("wiped"), "{output}");
}
