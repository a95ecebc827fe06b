//! Processes under load for long, with snapshots: what disk and memory they take, and how replicas catch up
//! that were away or are killed meanwhile.
//!
//! The long ones are ignored, and mean something in a release build on a machine that does nothing else:
//! docs/performance.md names their commands. What they measured is printed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::client::{Answer, Client};
use crate::cluster::Cluster;
use crate::snapshots::disk_bytes;

const MIB: u64 = 1 << 20;
const VALUE_BYTES: u64 = 1024;
/// So many requests of one client wait for their answers at once.
const PIPELINE: u64 = 64;
/// The election timeout of `kv`.
const ELECTION_TIMEOUT: Duration = Duration::from_millis(500);

/// A size that a long test has unless the environment says otherwise.
fn size(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |text| text.parse().unwrap())
}

fn number(cluster: &Cluster, section: &str, id: u16, name: &str) -> Option<u64> {
    cluster.info_of(section, id, name)?.parse().ok()
}

/// Waits for as long as it takes, and says how long that was.
fn wait_long<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> (T, Duration) {
    let begin = Instant::now();
    loop {
        if let Some(found) = look() {
            return (found, begin.elapsed());
        }
        assert!(begin.elapsed() < Duration::from_secs(1800), "never happened: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Writes values under the keys from the first to the last, pipelined. Each is acknowledged.
fn write(client: &mut Client, keys: impl IntoIterator<Item = u64>) -> u64 {
    let mut waiting = 0;
    let mut written = 0;
    let mut take = |client: &mut Client| {
        assert_eq!(client.receive().unwrap(), Answer::ok());
        written += 1;
    };
    for key in keys {
        if waiting == PIPELINE {
            take(client);
            waiting -= 1;
        }
        let value = vec![b'a' + (key % 23) as u8; VALUE_BYTES as usize];
        client.send(&[b"SET".as_slice(), format!("key {key}").as_bytes(), &value]).unwrap();
        waiting += 1;
    }
    (0..waiting).for_each(|_| take(client));
    written
}

/// Numbers that look random.
fn scatter(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

/// Clients of some replicas that write without a pause.
struct Load {
    done: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(cluster: &Cluster, ids: &[u16], keys: u64) -> Self {
        let (done, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let threads = (0..4).map(|place| {
            let mut client = cluster.client(ids[place % ids.len()]);
            let (done, written) = (Arc::clone(&done), Arc::clone(&written));
            thread::spawn(move || {
                let mut state = place as u64;
                while !done.load(Ordering::Relaxed) {
                    let keys = (0..PIPELINE * 16).map(|_| scatter(&mut state) % keys);
                    written.fetch_add(write(&mut client, keys), Ordering::Relaxed);
                }
            })
        });
        let threads = threads.collect();
        Self { done, written, threads }
    }

    fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    fn stop(self) -> u64 {
        self.done.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        self.written.load(Ordering::Relaxed)
    }
}

/// Writes each of so many keys once, from several clients.
fn fill(cluster: &Cluster, ids: &[u16], keys: u64) {
    let clients = 4;
    thread::scope(|scope| {
        for place in 0..clients {
            let mut client = cluster.client(ids[place as usize % ids.len()]);
            scope.spawn(move || write(&mut client, (place..keys).step_by(clients as usize)));
        }
    });
}

/// LWM-1: two million writes of 1 KiB to 10,000 keys. `KV_WRITES` says how many instead.
#[test]
#[ignore = "writes 6 GiB, and means something in a release build only"]
fn lwm_1_disk_and_memory_stay_bounded_under_two_million_writes() {
    const KEYS: u64 = 10_000;
    let writes = size("KV_WRITES", 2_000_000);
    let mut cluster = Cluster::laid_out(3);
    (1..=3).for_each(|id| cluster.start(id));
    cluster.leader();
    // What `kv` says of itself: 64 MiB of log between two snapshots, as much in reserve behind them, and the
    // window while one is written; heads and checksums with all of it; two images; files of 4 MiB, of which
    // one is written, one trimmed by half, and some wait.
    let (log, reserve, window, image) = (64, 64, 32, KEYS * (VALUE_BYTES + 64) / MIB + 1);
    let bound = ((log + reserve + window) * 9 / 8 + 2 * image + 6 * 4) * MIB;
    println!("bound of the disk of each replica: {} MiB", bound / MIB);
    let begin = Instant::now();
    let load = Load::start(&cluster, &[1, 2, 3], KEYS);
    let (mut disk, mut memory) = ([0; 3], Vec::new());
    for quarter in 1..=4 {
        loop {
            for (id, most) in (1..).zip(&mut disk) {
                *most = disk_bytes(&cluster.home(id)).max(*most);
                assert!(*most < bound, "replica {id} has {most} bytes on disk");
            }
            if load.written() >= writes * quarter / 4 {
                break;
            }
            thread::sleep(Duration::from_millis(200));
        }
        let of = |id| number(&cluster, "memory", id, "used_memory_rss").unwrap();
        memory.push([of(1), of(2), of(3)]);
        println!(
            "{} writes in {:.0?}: disk at most {:?} MiB, memory {:?} MiB",
            load.written(),
            begin.elapsed(),
            disk.map(|bytes| bytes / MIB),
            memory.last().unwrap().map(|bytes| bytes / MIB)
        );
    }
    assert!(load.stop() >= writes);
    let ample = |place: usize| memory[0][place] + memory[0][place] / 10 + 16 * MIB;
    for later in &memory[1..] {
        assert!((0..3).all(|place| later[place] < ample(place)), "memory grows: {memory:?}");
    }
    cluster.wait_until_equal();
    for id in 1..=3 {
        assert!(
            number(&cluster, "snapshots", id, "snapshots_made").unwrap() * 200 * MIB
                > writes * VALUE_BYTES
        );
    }
}

/// How far a replica is with what it receives: bytes held, and all.
fn receiving(cluster: &Cluster, id: u16) -> Option<(u64, u64)> {
    let line = cluster.info_of("snapshots", id, "snapshot_receiving")?;
    let (held, bytes) = line.split_once(':')?.1.split_once('/')?;
    Some((held.parse().ok()?, bytes.parse().ok()?))
}

/// A cluster of three whose third replica is down, and needs a snapshot with so many keys.
fn left_behind(keys: u64, more: &[&str]) -> Cluster {
    let mut cluster = Cluster::laid_out(3);
    (1..=3).for_each(|id| cluster.start_with(id, more));
    cluster.leader();
    write(&mut cluster.client(1), 0..1);
    cluster.wait_until_equal();
    let applied = number(&cluster, "paxos", 3, "applied").unwrap();
    cluster.kill(3);
    cluster.leader();
    fill(&cluster, &[1, 2], keys);
    let trimmed = |id| number(&cluster, "paxos", id, "trimmed");
    let last = |id| number(&cluster, "snapshots", id, "snapshot_bytes");
    // More of the log, until both have the whole state in a snapshot, and nothing older.
    for round in 0.. {
        let whole = |id| last(id) > Some(keys * VALUE_BYTES) && trimmed(id) > Some(applied + 1);
        if whole(1) && whole(2) {
            break;
        }
        assert!(round < 100, "no snapshot is made, or nothing is trimmed");
        fill(&cluster, &[1, 2], keys.min(4 * MIB / VALUE_BYTES));
    }
    cluster
}

/// p27: the receiver is killed at so many points of a transfer, drawn at random, and goes on each time; in
/// the end all hold the same. Gives how often it was killed.
fn kill_the_receiver(keys: u64, points: u64, more: &[&str]) -> u64 {
    let mut cluster = left_behind(keys, more);
    let mut state = keys;
    let mut kills = 0;
    let mut last = 0;
    let begin = Instant::now();
    for point in 0..points {
        cluster.start_with(3, more);
        let part = point * 1000 + scatter(&mut state) % 1000;
        let seen = wait_long("a transfer", || {
            if number(&cluster, "snapshots", 3, "snapshots_restored")? > 0 {
                return Some(None);
            }
            let (held, bytes) = receiving(&cluster, 3)?;
            (held >= bytes * part / (points * 1000)).then_some(Some((held, bytes)))
        });
        let Some((held, bytes)) = seen.0 else { break };
        cluster.kill(3);
        kills += 1;
        println!("killed at {held} of {bytes} bytes");
        last = held.max(last);
    }
    if cluster.process(3).has_ended() {
        cluster.start_with(3, more);
    }
    wait_long("a snapshot", || {
        number(&cluster, "snapshots", 3, "snapshots_restored").filter(|restored| *restored == 1)
    });
    cluster.wait_until_equal();
    println!(
        "killed {kills} times, the last one at {last} bytes, equal after {:.1?}",
        begin.elapsed()
    );
    kills
}

#[test]
fn p27_a_receiver_that_is_killed_at_many_points_ends_equal() {
    let kills = kill_the_receiver(8 * 1024, 20, &["--snapshot-mib", "2", "--snapshot-rate", "2"]);
    // A machine that is busy with others may let it come to its end before.
    assert!(kills >= 5, "{kills}");
}

/// `KV_STATE_MIB` says how large the state is instead.
#[test]
#[ignore = "takes 6 GiB of memory and 12 GiB of disk, and means something in a release build only"]
fn p27_a_receiver_of_a_gib_that_is_killed_at_many_points_ends_equal() {
    let keys = size("KV_STATE_MIB", 1024) * MIB / VALUE_BYTES;
    assert_eq!(kill_the_receiver(keys, 20, &[]), 20);
}

/// How heartbeats came, as a replica saw it.
fn heartbeats(cluster: &Cluster, id: u16) -> [u64; 4] {
    [
        "heartbeats_received",
        "heartbeat_delay_p50_us",
        "heartbeat_delay_p99_us",
        "heartbeat_delay_max_us",
    ]
    .map(|name| number(cluster, "stats", id, name).unwrap())
}

/// r36: the third replica was down past two snapshots of a state of 1 GiB and comes back, while
/// others write or not: it catches up, and nobody campaigns. What it sees of heartbeats, from its start on,
/// is what they suffer from the transfer; the 99th percentile of their delay is below `late`.
fn come_back(is_loaded: bool, late: Duration) {
    let keys = size("KV_STATE_MIB", 1024) * MIB / VALUE_BYTES;
    let mut cluster = Cluster::laid_out(3);
    (1..=3).for_each(|id| cluster.start(id));
    cluster.leader();
    fill(&cluster, &[1, 2, 3], keys);
    wait_long("equal slots", || {
        let applied = |id| number(&cluster, "paxos", id, "applied");
        (applied(1)? == applied(3)? && applied(2)? == applied(3)?).then_some(())
    });
    let leader = cluster.leader();
    let away = if leader == 3 { 2 } else { 3 };
    let others: Vec<u16> = (1..=3).filter(|id| *id != away).collect();
    cluster.kill(away);
    let made = |id| number(&cluster, "snapshots", id, "snapshots_made");
    let before: Vec<_> = others.iter().map(|id| made(*id).unwrap()).collect();
    let mut load = Load::start(&cluster, &others, keys);
    wait_long("two snapshots", || {
        let two = |(id, before): (&u16, &u64)| Some(made(*id)? >= before + 2);
        others.iter().zip(&before).all(|pair| two(pair) == Some(true)).then_some(())
    });
    println!("{} writes past two snapshots of {} MiB", load.written(), keys * VALUE_BYTES / MIB);
    if !is_loaded {
        load.stop();
        wait_long("an idle cluster", || {
            let applied = |id: u16| number(&cluster, "paxos", id, "applied");
            (applied(others[0])? == applied(others[1])?).then_some(())
        });
        load = Load { done: Arc::default(), written: Arc::default(), threads: Vec::new() };
    }
    let ballot = cluster.info(leader, "leader_ballot").unwrap();
    let begin = (Instant::now(), load.written());
    cluster.start(away);
    let (_, restored) = wait_long("a snapshot", || {
        number(&cluster, "snapshots", away, "snapshots_restored").filter(|restored| *restored > 0)
    });
    let ((), near) = wait_long("a short lag", || {
        let applied = number(&cluster, "paxos", away, "applied")?;
        (applied + 1000 > number(&cluster, "paxos", leader, "committed")?).then_some(())
    });
    let millis = u64::try_from(begin.0.elapsed().as_millis()).unwrap().max(1);
    let rate = (load.written() - begin.1) * 1000 / millis;
    let seen: Vec<_> = (1..=3).map(|id| (id, heartbeats(&cluster, id))).collect();
    println!(
        "restored after {restored:.1?}, and within 1000 slots {near:.1?} later, beside {rate} writes/s"
    );
    for (id, [count, p50, p99, max]) in &seen {
        let whose = if *id == away { "from its start on" } else { "from the beginning" };
        println!(
            "replica {id}, {whose}: {count} heartbeats, late by {p50} us, p99 {p99} us, at most {max} us"
        );
    }
    load.stop();
    let ballots = cluster.ids().map(|id| cluster.info(id, "leader_ballot").unwrap());
    assert!(ballots.into_iter().all(|now| now == ballot), "another election was held");
    cluster.wait_until_equal();
    let p99 = Duration::from_micros(seen[usize::from(away) - 1].1[2]);
    assert!(p99 <= late, "heartbeats were late by {p99:?}");
}

#[test]
#[ignore = "takes 6 GiB of memory and 12 GiB of disk, and means something in a release build only"]
fn r36_a_gib_comes_to_a_replica_of_an_idle_cluster_and_heartbeats_are_in_time() {
    come_back(false, Duration::from_millis(2));
}

#[test]
#[ignore = "takes 6 GiB of memory and 12 GiB of disk, and means something in a release build only"]
fn r36_a_gib_comes_to_a_replica_at_full_load_without_an_election() {
    come_back(true, ELECTION_TIMEOUT / 10);
}
