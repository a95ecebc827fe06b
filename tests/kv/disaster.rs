//! Backups, and what an operator does when replicas are lost for good: the commands of docs/admin.md, run as
//! they stand there, against real processes.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::{Answer, Client};
use crate::cluster::{Cluster, Process, binary, copy_dir};
use crate::examples::wait_for;
use crate::paxosctl::{PAXOSCTL, ask, complaint, done, everybody, json, paxosctl, settled, text};

const YES: &str = "--yes-lose-what-only-others-have";

/// The commands of the block after a heading of docs/admin.md, word by word.
fn documented(heading: &str) -> Vec<Vec<String>> {
    let document = include_str!("../../docs/admin.md");
    let (_, section) =
        document.split_once(&format!("\n## {heading}\n")).expect("the heading is there");
    let (_, block) = section.split_once("```sh\n").expect("a block follows");
    let (block, _) = block.split_once("```").expect("it ends");
    let lines = block.lines().map(|line| line.split(' ').map(str::to_owned).collect());
    lines.collect()
}

/// A command of the document, in the directory that `c` is in.
fn command(words: &[String], within: &Path) -> Command {
    let program = match words[0].as_str() {
        "paxosctl" => Path::new(PAXOSCTL),
        "kv" => binary(),
        other => panic!("{other}"),
    };
    let mut command = Command::new(program);
    command.args(&words[1..]).current_dir(within).stdin(Stdio::null());
    command
}

fn run(words: &[String], within: &Path) -> Output {
    command(words, within).output().unwrap()
}

/// Sets keys until one is not acknowledged, or all are; tells which were.
fn set(client: &mut Client, keys: std::ops::Range<u64>) -> BTreeMap<String, String> {
    let mut told = BTreeMap::new();
    for number in keys {
        let (key, value) = (format!("key:{number}"), format!("value-{number}"));
        if client.say(&format!("SET {key} {value}")).unwrap() == Answer::ok() {
            told.insert(key, value);
        }
    }
    told
}

fn expect(client: &mut Client, told: &BTreeMap<String, String>) {
    for (key, value) in told {
        // A leader that has just begun, and a machine that is busy.
        wait_for(key, || match client.say(&format!("GET {key}")).unwrap() {
            Answer::Bulk(found) => {
                assert_eq!(String::from_utf8(found).unwrap(), *value, "{key}");
                Some(())
            }
            Answer::Nil => panic!("{key} is lost"),
            _ => None,
        });
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = entries.map(|name| name.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// The replica that leads, first in the directories: so that the document's `c/1` is the survivor.
fn led_by_the_first(cluster: &Cluster) {
    wait_for("the first one to lead", || {
        if settled(cluster) == 1 {
            return Some(());
        }
        let _moved = ask("transfer-leader", &everybody(cluster), &["--to", "1"]);
        None
    });
}

#[test]
fn a_majority_is_lost_for_good_and_the_documented_commands_bring_the_store_back() {
    let mut cluster = Cluster::started(3);
    led_by_the_first(&cluster);
    let mut client = cluster.client(1);
    let mut told = set(&mut client, 0..150);
    done("snapshot", &cluster.home(1), &[]);
    told.extend(set(&mut client, 150..300));
    assert!(told.len() > 250, "{}", told.len());
    // Two are lost for good while somebody writes on.
    cluster.kill(2);
    cluster.kill(3);
    told.extend(set(&mut client, 300..302));
    cluster.process(1).signal("TERM");
    assert_eq!(cluster.process(1).wait(), 0);
    let within = cluster.scratch().to_owned();
    let old = crate::cluster::setting(&cluster.home(1), "cluster", 0);

    let commands = documented("When a majority of voters is lost for good");
    let [look, recover, adopt, serve] = commands.as_slice() else { panic!("{commands:?}") };
    let before = names(&cluster.home(1));
    let shown = run(look, &within);
    assert!(complaint(&shown, 1).contains(&format!("recover c/1 {YES}")), "{shown:?}");
    let words = text(&shown);
    for said in ["replica 1 of cluster", "kept:", "lost:", "ended:", "never start them again"] {
        assert!(words.contains(said), "{words}");
    }
    assert!(words.contains("kept too:"), "what nobody answered for is kept, too: {words}");
    assert_eq!(names(&cluster.home(1)), before, "nothing was changed");
    let recovered = run(recover, &within);
    assert_eq!(recovered.status.code(), Some(0), "{recovered:?}");
    assert!(cluster.home(1).join(format!("data.of-cluster-{old}")).exists());
    // Whoever forgets the next command is told.
    let early = complaint_of_kv(&run(serve, &within));
    assert!(early.contains("belongs to cluster") && early.contains(&old), "{early}");
    let adopted = run(adopt, &within);
    assert_eq!(adopted.status.code(), Some(0), "{adopted:?}");
    let new = crate::cluster::setting(&cluster.home(1), "cluster", 0);
    assert_ne!(new, old);
    assert_eq!(serve, &["kv", "serve", "c/1"].map(str::to_owned));
    cluster.start(1);
    let mut client = cluster.client(1);
    expect(&mut client, &told);
    told.extend(wait_for("a write", || {
        let more = set(&mut client, 400..401);
        (!more.is_empty()).then_some(more)
    }));

    the_dead_are_refused(&mut cluster);
    expect(&mut client, &told);
    let status = json(&done("status", &cluster.home(1), &["--json"]));
    let status = &status["nodes"][0]["status"];
    assert_eq!((&status["cluster"], &status["role"]), (&new.as_str().into(), &"leader".into()));
    assert_eq!(status["connected"], serde_json::json!([]));

    three_again(&mut cluster, &told);
}

/// By the commands of the other section: a backup of the one that is left, and a cluster that begins with it.
fn three_again(cluster: &mut Cluster, told: &BTreeMap<String, String>) {
    let within = cluster.scratch().to_owned();
    let commands = documented("Backups");
    let [export, init] = commands.as_slice() else { panic!("{commands:?}") };
    let exported = run(export, &within);
    assert_eq!(exported.status.code(), Some(0), "{exported:?}");
    cluster.process(1).signal("TERM");
    assert_eq!(cluster.process(1).wait(), 0);
    let port = (cluster.port(0)).to_string();
    let init: Vec<_> = init.iter().cloned().chain(["--base-port".to_owned(), port]).collect();
    let laid_out = run(&init, &within);
    assert_eq!(laid_out.status.code(), Some(0), "{laid_out:?}");
    let digest = text(&exported).split("digest ").nth(1).map(|rest| rest[..32].to_owned()).unwrap();
    assert!(text(&laid_out).contains(&digest), "{laid_out:?}");
    let homes = [1, 2, 3].map(|id: u16| within.join("new").join(id.to_string()));
    let processes = homes.map(|home| Process::start(&["serve".as_ref(), home.as_os_str()]));
    let mut client = cluster.client(2);
    expect(&mut client, told);
    drop(processes);
}

/// The one line of a `kv` that did not start.
fn complaint_of_kv(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Members of the old cluster come back, one after the other.
fn the_dead_are_refused(cluster: &mut Cluster) {
    cluster.start(2);
    // Both sides say so, in words.
    let words = "is not pinned for any member";
    wait_for(words, || {
        let output = cluster.process(1).output();
        output.lines().any(|line| line.contains(words)).then_some(())
    });
    let refused = "refused by the peer, which says: its key";
    wait_for(refused, || {
        let output = cluster.process(2).output();
        output.lines().any(|line| line.contains(refused)).then_some(())
    });
    // It has no leader, and does nothing for its clients.
    let mut client = cluster.client(2);
    assert_eq!(client.say("SET stray x").unwrap().error_word(), "NOLEADER");
    // Two of them are the old cluster; they go on by themselves, and nothing of them gets here.
    cluster.start(3);
    wait_for("the old cluster", || {
        (client.say("SET stray x").unwrap() == Answer::ok()).then_some(())
    });
    let mut survivor = cluster.client(1);
    assert_eq!(survivor.say("GET stray").unwrap(), Answer::Nil);
    cluster.kill(2);
    cluster.kill(3);
}

/// Killed at whatever moment, a recovery leaves the old directory, or the new one, or what is run to its end.
#[test]
fn a_recovery_can_be_killed_at_any_moment_and_run_again() {
    let mut cluster = Cluster::started(1);
    cluster.leader();
    let mut client = cluster.client(1);
    let told = set(&mut client, 0..100);
    done("snapshot", &cluster.home(1), &[]);
    cluster.process(1).signal("TERM");
    assert_eq!(cluster.process(1).wait(), 0);
    let old = crate::cluster::setting(&cluster.home(1), "cluster", 0);
    let mut ended = [0; 2];
    let mut pause = Duration::from_millis(2);
    for round in 0..40 {
        let home = cluster.scratch().join(format!("copy-{round}"));
        copy_dir(&cluster.home(1), &home);
        let mut child = Command::new(PAXOSCTL)
            .args(["recover", home.to_str().unwrap(), YES])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Not a wait for anything: where the kill strikes is to differ from round to round.
        thread::sleep(pause);
        child.kill().unwrap();
        let whole = child.wait().unwrap().success();
        ended[usize::from(whole)] += 1;
        pause = if whole { Duration::from_millis(3) } else { pause * 3 / 2 };
        let again = paxosctl(&["recover", home.to_str().unwrap(), YES]);
        assert_eq!(again.status.code(), Some(0), "round {round}: {again:?}");
        let seen = json(&done("log inspect", &home, &["--json"]));
        assert_ne!(seen["cluster"], old.as_str(), "round {round}");
        assert_eq!(seen["voters"], serde_json::json!([1]));
        // The old one is there, by its name.
        let kept = home.join(format!("data.of-cluster-{old}"));
        let seen = json(&done("log inspect", &kept, &["--json"]));
        assert_eq!(seen["cluster"], old.as_str());
        fs::remove_dir_all(&home).unwrap();
        if ended[1] >= 2 && ended[0] >= 10 {
            break;
        }
    }
    println!("{} killed on the way, {} at their end", ended[0], ended[1]);
    assert!(ended[0] > 0, "some were killed on their way");
    cluster.start(1);
    expect(&mut cluster.client(1), &told);
}

/// All stop in order, and all start again: nothing is lost, and they do not fight for the lead.
#[test]
fn a_whole_cluster_stops_and_starts_again() {
    let mut cluster = Cluster::started(3);
    let leader = settled(&cluster) as u16;
    let mut told = set(&mut cluster.client(leader), 0..200);
    assert!(told.len() > 150, "{}", told.len());
    let round = |cluster: &Cluster| {
        let output = done("status", &everybody(cluster), &["--json"]);
        let report = json(&output);
        let nodes = report["nodes"].as_array().unwrap().clone();
        let rounds = nodes.iter().filter_map(|node| {
            node["status"]["promised"].as_str()?.split('.').next()?.parse::<u64>().ok()
        });
        rounds.max().unwrap()
    };
    for _ in 0..2 {
        let before = round(&cluster);
        for id in cluster.ids() {
            cluster.process(id).signal("TERM");
        }
        for id in cluster.ids() {
            assert_eq!(cluster.process(id).wait(), 0);
            let output = cluster.process(id).output();
            assert!(output.contains("what was acknowledged is on disk"), "{output}");
        }
        let began = Instant::now();
        for id in cluster.ids() {
            cluster.start(id);
        }
        let mut client = cluster.client(1);
        let more = wait_for("the first write", || {
            let more = set(&mut client, 1000..1001);
            (!more.is_empty()).then_some(more)
        });
        println!("the first write came {} ms after the first start", began.elapsed().as_millis());
        told.extend(more);
        expect(&mut client, &told);
        settled(&cluster);
        let rounds = round(&cluster) - before;
        println!("{rounds} ballots were used for that");
        // One is needed; a busy machine may delay heartbeats, and a leader that stops hands over.
        assert!(rounds <= 12, "{rounds} ballots");
    }
    cluster.wait_until_equal();
}

#[test]
fn an_operator_makes_snapshots_trims_logs_and_looks_at_directories() {
    let mut cluster = Cluster::started(3);
    let leader = settled(&cluster) as u16;
    let home = cluster.home(leader);
    let told = set(&mut cluster.client(leader), 0..100);

    let words = complaint(&ask("trim", &home, &["--slot", "1"]), 1);
    assert!(words.contains("for there is none"), "{words}");
    let made = json(&done("snapshot", &home, &["--json"]));
    let slot = made["slot"].as_u64().unwrap();
    assert!(slot >= told.len() as u64 && made["bytes"].as_u64().unwrap() > 0, "{made}");
    let again = text(&done("snapshot", &home, &[]));
    assert!(again.starts_with(&format!("snapshot of slot {slot} of replica {leader}")), "{again}");
    assert!(again.contains(made["digest"].as_str().unwrap()), "{again}");

    let refused = ask("trim", &home, &["--slot", &(slot + 1000).to_string()]);
    let words = complaint(&refused, 1);
    assert!(words.contains("make one first, with paxosctl snapshot"), "{words}");
    let trimmed = json(&done("trim", &home, &["--slot", &(slot - 5).to_string(), "--json"]));
    assert_eq!(trimmed["trimmed"], slot - 5);
    let trimmed = text(&done("trim", &home, &[]));
    assert!(trimmed.ends_with(&format!("begins after slot {slot}\n")), "{trimmed}");

    // Of a running node, into a file that is not there yet.
    let file = cluster.scratch().join("b");
    let file = file.to_str().unwrap();
    let exported = json(&done("export", &home, &[file, "--json"]));
    assert_eq!(exported["file"], file);
    let words = complaint(&ask("export", &home, &[file]), 1);
    assert!(words.contains("exists already"), "{words}");
    let words = complaint(&ask("log inspect", &home, &[]), 1);
    assert!(words.contains("in use by another replica process"), "{words}");

    for id in cluster.ids() {
        cluster.process(id).signal("TERM");
    }
    for id in cluster.ids() {
        assert_eq!(cluster.process(id).wait(), 0);
    }
    let seen = json(&done("log inspect", &home, &["--json"]));
    assert_eq!((&seen["replica"], &seen["trimmed"]), (&leader.into(), &slot.into()));
    assert_eq!(seen["voters"], serde_json::json!([1, 2, 3]));
    assert!(!seen["segments"].as_array().unwrap().is_empty(), "{seen}");
    let newest = seen["snapshots"].as_array().unwrap().last().unwrap();
    assert_eq!(newest["digest"], exported["snapshot"]["digest"]);
    let shown = text(&done("log inspect", &home.join("data"), &[]));
    for said in ["of cluster", "promised", "committed through", "segment", "snapshot of"] {
        assert!(shown.contains(said), "{shown}");
    }

    // Of a stopped one, by its directory; what was damaged on its way is not begun with.
    let other = cluster.scratch().join("o");
    let other = other.to_str().unwrap();
    let text_of = text(&done("export", &home, &[other]));
    assert!(text_of.contains("digest"), "{text_of}");
    let mut bytes = fs::read(other).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::File::create(other).unwrap().write_all(&bytes).unwrap();
    let new = cluster.scratch().join("new");
    let arguments = ["init", new.to_str().unwrap(), "--replicas", "1", "--from", other];
    let words = complaint_of_kv(&crate::cluster::run(&arguments));
    assert!(words.contains("does not match its checksum"), "{words}");
    assert!(!new.exists());
    let words = complaint(&ask("log inspect", cluster.scratch(), &[]), 1);
    assert!(words.contains("was never formatted"), "{words}");
}
