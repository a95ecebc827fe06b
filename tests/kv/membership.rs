//! Members that come and go while clients write: real processes, one of them killed in each step.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::client::{Answer, Client};
use crate::cluster::{Cluster, Process, run};
use crate::examples::wait_for;

const PAXOSCTL: &str = env!("CARGO_BIN_EXE_paxosctl");
/// A client tries elsewhere after this time.
const IMPATIENCE: Duration = Duration::from_secs(3);

fn paxosctl(line: &str) -> Output {
    let arguments = line.split_whitespace();
    Command::new(PAXOSCTL).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn place(cluster: &Cluster) -> String {
    cluster.scratch().join("c").to_str().unwrap().to_owned()
}

/// The membership that the leader tells, once it is the only one that is needed.
fn members(cluster: &Cluster) -> Option<Value> {
    let output = paxosctl(&format!("members --json {}", place(cluster)));
    let report: Value = serde_json::from_slice(&output.stdout).ok()?;
    let settled = report["governs"].as_array()?.len() == 1;
    (settled && report["leader"] == report["replica"]).then_some(report)
}

fn ids(report: &Value, of: &str) -> BTreeSet<u16> {
    let members = report[of].as_array().unwrap().iter();
    members.map(|member| member["id"].as_u64().unwrap() as u16).collect()
}

fn wait_for_voters(cluster: &Cluster, voters: &BTreeSet<u16>) {
    wait_for(&format!("voters {voters:?}"), || {
        let report = members(cluster)?;
        (ids(&report, "voters") == *voters).then_some(())
    });
}

/// Asks for a change until it is made. It may have been made though nobody answered.
fn change(cluster: &Cluster, order: &str) {
    wait_for(order, || {
        let output = paxosctl(&format!("{order} {}", place(cluster)));
        let errors = String::from_utf8(output.stderr.clone()).unwrap();
        let done = ["is that already", "is not a member"].iter().any(|had| errors.contains(had));
        (output.status.success() || done).then_some(())
    });
}

/// `kv join`, and the line that it says to go on with, without the place that it names.
fn join(cluster: &Cluster, id: u16, more: &[&str]) -> String {
    let (home, of) = (cluster.home(id), place(cluster));
    let (id, port) = (id.to_string(), (cluster.port(0)).to_string());
    let mut arguments = vec!["join", home.to_str().unwrap(), "--of", &of, "--replica", &id];
    arguments.extend(["--base-port", &port]);
    arguments.extend(more);
    let output =
        wait_for("kv join", || Some(run(&arguments)).filter(|output| output.status.success()));
    let text = String::from_utf8(output.stdout).unwrap();
    let order = text.lines().find_map(|line| line.trim().strip_prefix("paxosctl "));
    order.unwrap().strip_suffix(&of).unwrap().trim_end().to_owned()
}

/// Counters that clients raise, and what they were told.
struct Load {
    running: Arc<AtomicBool>,
    ports: Arc<Mutex<Vec<u16>>>,
    clients: Vec<JoinHandle<Heard>>,
}

/// What one client was told.
#[derive(Default)]
struct Heard {
    /// When it asked, when it was told, and the number.
    told: Vec<(Instant, Instant, i64)>,
    /// What may have been carried out without a word.
    unknown: usize,
}

impl Load {
    fn start(ports: Vec<u16>) -> Self {
        let (running, ports) = (Arc::new(AtomicBool::new(true)), Arc::new(Mutex::new(ports)));
        let clients = (0..3).map(|turn| {
            let (running, ports) = (Arc::clone(&running), Arc::clone(&ports));
            thread::spawn(move || Self::raise(&running, &ports, turn))
        });
        let clients = clients.collect();
        Self { running, ports, clients }
    }

    fn raise(running: &AtomicBool, ports: &Mutex<Vec<u16>>, mut turn: usize) -> Heard {
        let mut heard = Heard::default();
        let mut client: Option<Client> = None;
        while running.load(Ordering::SeqCst) {
            let Some(connected) = &mut client else {
                turn += 1;
                let port = {
                    let ports = ports.lock().unwrap();
                    ports[turn % ports.len()]
                };
                client = Client::connect(("127.0.0.1", port), IMPATIENCE).ok();
                if client.is_none() {
                    thread::yield_now();
                }
                continue;
            };
            let asked = Instant::now();
            match connected.say("INCR n") {
                Ok(Answer::Integer(number)) => heard.told.push((asked, Instant::now(), number)),
                Ok(answer) if ["BUSY", "NOLEADER"].contains(&answer.error_word()) => client = None,
                Ok(_) | Err(_) => {
                    heard.unknown += 1;
                    client = None;
                }
            }
        }
        heard
    }

    fn move_to(&self, cluster: &Cluster, members: &BTreeSet<u16>) {
        *self.ports.lock().unwrap() = members.iter().map(|id| cluster.port(*id)).collect();
    }

    /// Ends, and judges what was told: every number once, later ones to those who asked later, and no more
    /// of them missing than there may be.
    fn judge(self) -> usize {
        self.running.store(false, Ordering::SeqCst);
        let heard: Vec<_> = self.clients.into_iter().map(|client| client.join().unwrap()).collect();
        let unknown: usize = heard.iter().map(|heard| heard.unknown).sum();
        let mut told: Vec<_> = heard.into_iter().flat_map(|heard| heard.told).collect();
        told.sort_by_key(|(_, _, number)| *number);
        assert!(told.windows(2).all(|pair| pair[0].2 < pair[1].2), "a number was told twice");
        let mut latest = told[0].0;
        for (asked, answered, number) in &told {
            assert!(*answered >= latest, "{number} was told before a lower one was asked for");
            latest = latest.max(*asked);
        }
        let highest = usize::try_from(told.last().unwrap().2).unwrap();
        assert!(
            highest - told.len() <= unknown,
            "{highest}, {} told, {unknown} unknown",
            told.len()
        );
        told.len()
    }
}

fn kill_and_start_again(cluster: &mut Cluster, id: u16) {
    cluster.kill(id);
    cluster.start(id);
}

fn leader(cluster: &Cluster) -> u16 {
    wait_for("a leader", || members(cluster)?["leader"].as_u64()) as u16
}

/// Who is killed in a step: the leader and another one in turn.
fn victim(cluster: &Cluster, voters: &BTreeSet<u16>, step: usize) -> u16 {
    let leader = leader(cluster);
    let other = voters.iter().copied().find(|id| *id != leader);
    if step.is_multiple_of(2) { leader } else { other.unwrap_or(leader) }
}

/// Brings the cluster to so many voters, and kills one on the way.
fn step(cluster: &mut Cluster, load: &Load, voters: &mut BTreeSet<u16>, to: usize, number: usize) {
    let mut killed = false;
    while voters.len() != to {
        if voters.len() < to {
            let new = cluster.processes.len() as u16 + 1;
            let order = join(cluster, new, &[]);
            cluster.processes.push(None);
            change(cluster, &order);
            cluster.start(new);
            if !killed {
                let victim = victim(cluster, voters, number);
                kill_and_start_again(cluster, victim);
            }
            voters.insert(new);
        } else {
            // The leader every other time.
            let leader = leader(cluster);
            let other = voters.iter().copied().find(|id| *id != leader).unwrap();
            let gone = if voters.len().is_multiple_of(2) { leader } else { other };
            voters.remove(&gone);
            load.move_to(cluster, voters);
            change(cluster, &format!("remove --replica {gone}"));
            assert_ne!(cluster.process(gone).wait(), 0);
            let output = cluster.process(gone).output();
            assert!(output.contains("was removed from the cluster"), "{output}");
            if !killed {
                let victim = victim(cluster, voters, number);
                kill_and_start_again(cluster, victim);
            }
        }
        killed = true;
        wait_for_voters(cluster, voters);
        load.move_to(cluster, voters);
    }
}

fn walk(sizes: &[usize]) {
    let mut cluster = Cluster::started(1);
    let mut voters = BTreeSet::from([1]);
    leader(&cluster);
    let load = Load::start(vec![cluster.port(1)]);
    for (number, to) in sizes.iter().enumerate() {
        step(&mut cluster, &load, &mut voters, *to, number);
    }
    let told = load.judge();
    assert!(told > 100, "only {told} were served");
    wait_for("equal state hashes at one slot", || {
        let images = voters.iter().map(|id| {
            let before = cluster.info(*id, "applied")?;
            let hash = cluster.info(*id, "state_hash")?;
            (cluster.info(*id, "applied")? == before).then_some((before, hash))
        });
        let images = images.collect::<Option<Vec<_>>>()?;
        images.iter().all(|image| *image == images[0]).then_some(())
    });
}

#[test]
fn r46_one_three_one_under_load_with_a_kill_in_each_step() {
    walk(&[3, 1]);
}

#[test]
#[ignore = "half a minute: all of it"]
fn r46_one_three_five_three_one_three_under_load_with_a_kill_in_each_step() {
    walk(&[3, 5, 3, 1, 3]);
}

/// The commands of the guide, as they stand there: what an operator types whose replica lost its disk.
#[test]
fn p04_the_three_commands_of_the_guide_replace_a_wiped_replica() {
    let guide = fs::read_to_string("docs/operations.md").unwrap();
    let block = guide.split("```sh\n").find(|block| block.contains("--replace 3")).unwrap();
    let commands: Vec<_> = block.split("```").next().unwrap().lines().collect();
    assert_eq!(commands.len(), 3, "{commands:?}");

    let mut cluster = Cluster::started(3);
    leader(&cluster);
    wait_for("a write", || cluster.client(1).say("SET k v").ok().filter(|a| *a == Answer::ok()));
    cluster.kill(3);
    fs::remove_dir_all(cluster.home(3)).unwrap();

    // Only the place and its ports are those of the test.
    let place = place(&cluster);
    let typed = |command: &str| -> Vec<String> {
        let words = command.split_whitespace().skip(1);
        let here = |word: &str| match word {
            "c" => place.clone(),
            "c/4" => format!("{place}/4"),
            "127.0.0.1:7104" => format!("127.0.0.1:{}", cluster.port(104)),
            word => word.to_owned(),
        };
        words.map(here).collect()
    };
    let mut first = typed(commands[0]);
    first.extend(["--base-port".to_owned(), cluster.port(0).to_string()]);
    let output = run(&first);
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    let second = said.lines().find_map(|line| line.trim().strip_prefix("paxosctl ")).unwrap();
    let key = second.split_whitespace().find(|word| word.len() == 64).unwrap();
    let guided = typed(commands[1]).join(" ").replace("KEY", key);
    assert_eq!(second, guided, "the guide shows what is printed");
    wait_for("the change", || paxosctl(second).status.success().then_some(()));
    let mut third = Process::start(&typed(commands[2]));

    wait_for_voters(&cluster, &BTreeSet::from([1, 2, 4]));
    let port = cluster.port(4);
    wait_for("what was written, at the new one", || {
        let mut client = Client::connect(("127.0.0.1", port), IMPATIENCE).ok()?;
        (client.say("GET k").ok()? == Answer::bulk("v")).then_some(())
    });
    third.signal("INT");
    assert_eq!(third.wait(), 0);
}

#[test]
fn a_member_that_moves_to_another_port_is_found_there() {
    let mut cluster = Cluster::started(3);
    let lead = leader(&cluster);
    let moved = cluster.ids().find(|id| *id != lead).unwrap();
    cluster.process(moved).signal("INT");
    assert_eq!(cluster.process(moved).wait(), 0);
    let (from, to) = (cluster.port(moved) + 100, cluster.port(9) + 100);
    let config = cluster.home(moved).join("config.toml");
    let listen = |port: u16| format!("listen = \"127.0.0.1:{port}\"");
    crate::cluster::edit(&config, &listen(from), &listen(to));
    change(&cluster, &format!("move --replica {moved} --address 127.0.0.1:{to}"));
    cluster.start(moved);
    wait_for("both peers", || (cluster.info(moved, "connected_peers")? == "2").then_some(()));
    let report = wait_for("the members", || members(&cluster));
    let voters = report["voters"].as_array().unwrap();
    let address = format!("127.0.0.1:{to}");
    let found = voters.iter().find(|member| member["id"] == moved).unwrap();
    assert_eq!(found["addresses"][0], address.as_str());
}

#[test]
fn mistakes_about_members_are_told_and_change_nothing() {
    let cluster = Cluster::started(3);
    leader(&cluster);
    let c = place(&cluster);
    let key = "ab".repeat(32);
    let in_use = crate::cluster::setting(&cluster.home(3), "pin", 2);
    for (line, code, words) in [
        (format!("add --replica 4 {c}"), 2, "add needs --address HOST:PORT"),
        (format!("remove {c}"), 2, "remove needs --replica N"),
        (format!("replace --replica 4 --address a:1 --key {key} {c}"), 2, "needs --old N"),
        (format!("move --replica 3 {c}"), 2, "move needs --address"),
        (format!("remove --replica 9 {c}"), 1, "replica 9 is not a member"),
        (format!("promote --replica 9 {c}"), 1, "replica 9 is not a member"),
        (format!("promote --replica 2 {c}"), 1, "replica 2 is that already"),
        (format!("add --replica 4 --address nowhere --key {key} {c}"), 1, "HOST:PORT, not nowhere"),
        (format!("add --replica 4 --address a:1 --key beef {c}"), 1, "64 hexadecimal digits"),
        (
            format!("replace --old 3 --replica 4 --address a:1 --key {in_use} {c}"),
            1,
            "have the same key pinned",
        ),
    ] {
        wait_for(words, || {
            let output = paxosctl(&line);
            let told = String::from_utf8(output.stderr).unwrap();
            (output.status.code() == Some(code) && told.contains(words)).then_some(())
        });
    }
    let (taken, home) = (cluster.home(3), cluster.home(4));
    for (dir, id, of, words) in [
        (&taken, "4", c.as_str(), "exists already"),
        (&home, "3", c.as_str(), "replica 3 is a member already"),
        (&home, "0", c.as_str(), "1 or above, not 0"),
        (&home, "4", "/nonexistent", "no node of the cluster answers"),
        (&home, "4", cluster.scratch().to_str().unwrap(), "holds no admin.sock"),
    ] {
        let output = run(&["join", dir.to_str().unwrap(), "--of", of, "--replica", id]);
        assert!(!output.status.success());
        let line = String::from_utf8(output.stderr).unwrap();
        assert!(line.contains(words) && line.lines().count() == 1, "{line}");
    }
    assert!(!home.exists());
    let report = wait_for("the members", || members(&cluster));
    assert_eq!((ids(&report, "voters").len(), &report["epoch"]), (3, &Value::from(1)));
}
