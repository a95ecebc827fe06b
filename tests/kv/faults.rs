//! Real processes that are killed and paused while clients write.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::client::{Answer, Client};
use crate::cluster::Cluster;
use crate::examples::{PATIENCE, wait_for};

/// Writes keys through whichever replica answers, and remembers what was acknowledged.
struct Writer {
    acknowledged: Arc<Mutex<BTreeMap<String, String>>>,
    count: Arc<AtomicUsize>,
    done: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Writer {
    fn start(name: &'static str, ports: Vec<u16>) -> Self {
        let acknowledged = Arc::new(Mutex::new(BTreeMap::new()));
        let count = Arc::new(AtomicUsize::new(0));
        let done = Arc::new(AtomicBool::new(false));
        let (map, counter, end) = (acknowledged.clone(), count.clone(), done.clone());
        let thread = thread::spawn(move || {
            let mut client = None;
            let mut attempt = 0_usize;
            while !end.load(Ordering::Relaxed) {
                let key = format!("{name}-{attempt}");
                let value = format!("value {attempt}");
                attempt += 1;
                let port = ports[attempt % ports.len()];
                let connection = client
                    .take()
                    .or_else(|| Client::connect(("127.0.0.1", port), Duration::from_secs(10)).ok());
                let Some(mut connection) = connection else {
                    thread::sleep(Duration::from_millis(10));
                    continue;
                };
                match connection.call(&["SET", &key, &value]) {
                    Ok(Answer::Simple(_)) => {
                        map.lock().unwrap().insert(key, value);
                        counter.fetch_add(1, Ordering::Relaxed);
                        client = Some(connection);
                    }
                    // It may or may not be there: nobody was told that it is.
                    Ok(Answer::Error(_)) | Err(_) => {}
                    Ok(other) => panic!("{other:?}"),
                }
            }
        });
        Self { acknowledged, count, done, thread }
    }

    /// Waits until so many more writes were acknowledged.
    fn wait_for_more(&self, more: usize) {
        let goal = self.count.load(Ordering::Relaxed) + more;
        wait_for("acknowledged writes", || {
            (self.count.load(Ordering::Relaxed) >= goal).then_some(())
        });
    }

    fn stop(self) -> BTreeMap<String, String> {
        self.done.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        Arc::into_inner(self.acknowledged).unwrap().into_inner().unwrap()
    }
}

/// Kill one replica after another with -9, then all of them at once, under two writers.
#[test]
fn no_acknowledged_key_is_lost_by_kill_9_of_each_and_of_all() {
    let mut cluster = Cluster::started(3);
    cluster.leader();
    let ports: Vec<_> = cluster.ids().map(|id| cluster.port(id)).collect();
    let writers = [Writer::start("a", ports.clone()), Writer::start("b", ports)];
    for id in cluster.ids() {
        writers[0].wait_for_more(30);
        cluster.kill(id);
        writers[0].wait_for_more(30);
        cluster.start(id);
        wait_for("both peers", || (cluster.info(id, "connected_peers")? == "2").then_some(()));
    }
    writers[1].wait_for_more(30);
    for id in cluster.ids() {
        cluster.kill(id);
    }
    for id in cluster.ids() {
        cluster.start(id);
    }
    writers[1].wait_for_more(30);
    let acknowledged: BTreeMap<_, _> = writers.into_iter().flat_map(Writer::stop).collect();
    assert!(acknowledged.len() > 300, "{}", acknowledged.len());
    cluster.wait_until_equal();
    for id in cluster.ids() {
        let mut client = cluster.client(id);
        for (key, value) in &acknowledged {
            assert_eq!(client.call(&["GET", key]).unwrap(), Answer::bulk(value), "{key}");
        }
    }
}

/// A leader that is paused for five seconds misses an election; what it says afterwards must know
/// of it.
#[test]
fn a_paused_leader_serves_no_stale_read_and_loses_no_write() {
    let mut cluster = Cluster::started(3);
    let leader = cluster.leader();
    let others: Vec<_> = cluster.ids().filter(|&id| id != leader).collect();
    let mut at_leader = cluster.client(leader);
    assert_eq!(at_leader.say("INCR n").unwrap(), Answer::Integer(1));

    let acknowledged = Arc::new(AtomicI64::new(1));
    let unknown = Arc::new(AtomicI64::new(0));
    let done = Arc::new(AtomicBool::new(false));
    let (highest, lost, end) = (acknowledged.clone(), unknown.clone(), done.clone());
    let mut client = cluster.client(others[0]);
    let incrementer = thread::spawn(move || {
        while !end.load(Ordering::Relaxed) {
            match client.say("INCR n").unwrap() {
                Answer::Integer(n) => {
                    let before = highest.swap(n, Ordering::SeqCst);
                    assert!(n > before, "{n} after {before}");
                }
                error @ Answer::Error(_) => {
                    // One that is rejected was not counted by the server either.
                    if error.error_word() == "UNKNOWN" {
                        lost.fetch_add(1, Ordering::SeqCst);
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    });
    let progress = |more: i64| {
        let goal = acknowledged.load(Ordering::SeqCst) + more;
        wait_for("acknowledged increments", || {
            (acknowledged.load(Ordering::SeqCst) >= goal).then_some(())
        });
    };
    progress(20);
    cluster.process(leader).signal("STOP");
    let paused = Instant::now();
    progress(20);
    let gap = paused.elapsed();
    // Longer than an election, and shorter than a request's own time.
    assert!(gap < Duration::from_secs(2), "service was away for {gap:?}");
    // The pause is a given time, not the wait for a condition.
    thread::sleep(Duration::from_secs(5).saturating_sub(paused.elapsed()));

    // The question reaches the sleeping leader before it can know of any later ballot.
    let floor = acknowledged.load(Ordering::SeqCst);
    at_leader.send(&["GET", "n"]).unwrap();
    cluster.process(leader).signal("CONT");
    let resumed = Instant::now();
    let answer = at_leader.receive().unwrap();
    match &answer {
        Answer::Bulk(text) => {
            let seen: i64 = std::str::from_utf8(text).unwrap().parse().unwrap();
            assert!(seen >= floor, "stale: {seen} after {floor} was acknowledged");
        }
        error => {
            assert!(["NOLEADER", "BUSY", "UNKNOWN"].contains(&error.error_word()), "{error:?}");
        }
    }
    wait_for("service at the resumed replica", || {
        matches!(at_leader.say("GET n"), Ok(Answer::Bulk(_))).then_some(())
    });
    let back = resumed.elapsed();
    assert!(back < Duration::from_secs(4), "back after {back:?}");
    progress(20);
    done.store(true, Ordering::Relaxed);
    incrementer.join().unwrap();

    let Answer::Bulk(text) = at_leader.say("GET n").unwrap() else {
        panic!("no value");
    };
    let total: i64 = std::str::from_utf8(&text).unwrap().parse().unwrap();
    let least = acknowledged.load(Ordering::SeqCst);
    assert!(total >= least && total <= least + unknown.load(Ordering::SeqCst), "{total} {least}");
    cluster.wait_until_equal();
}

/// A single process with all three replicas keeps everything over an orderly end and a kill.
#[test]
fn kv_alone_starts_again_where_it_was() {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("data");
    let port = crate::cluster::free_base_port();
    let base = port.to_string();
    let arguments = ["--data", data.to_str().unwrap(), "--base-port", &base];
    let connect =
        |id| wait_for("a connection", || Client::connect(("127.0.0.1", port + id), PATIENCE).ok());
    for round in 1..=3 {
        let mut process = crate::cluster::Process::start(&arguments);
        let mut client = connect(round);
        let answer = wait_for("an answer", || match client.say("INCR starts").unwrap() {
            Answer::Integer(n) => Some(n),
            _ => None,
        });
        assert_eq!(answer, i64::from(round), "{}", process.output());
        if round == 1 {
            process.signal("TERM");
            assert_eq!(process.wait(), 0, "{}", process.output());
            assert!(process.output().contains("stopped"), "{}", process.output());
        } else {
            process.kill();
        }
    }
}
