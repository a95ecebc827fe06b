//! The map's images, and processes whose disks stay bounded.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::client::Answer;
use crate::cluster::Cluster;
use crate::examples::wait_for;
use crate::image::{self, Reader};
use crate::map::Map;
use crate::store::{Condition, Op, Store, Write};

fn key(number: u64) -> Bytes {
    Bytes::from(format!("key {number}"))
}

#[test]
fn a_copy_of_the_map_never_changes_and_the_map_does() {
    let mut map = Map::default();
    let mut truth: BTreeMap<Bytes, Bytes> = BTreeMap::new();
    let mut copies: Vec<(Map, BTreeMap<Bytes, Bytes>)> = Vec::new();
    let mut state = 1_u64;
    for step in 0..20_000_u64 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let key = key(state >> 33 & 0xfff);
        if state >> 60 < 4 {
            assert_eq!(map.remove(&key), truth.remove(&key));
        } else {
            let value = Bytes::from(step.to_string());
            assert_eq!(map.insert(&key, value.clone()), truth.insert(key, value));
        }
        if step % 4_000 == 0 {
            copies.push((map.clone(), truth.clone()));
        }
    }
    copies.push((map, truth));
    for (map, truth) in copies {
        assert_eq!(map.len(), truth.len());
        assert!(truth.iter().all(|(key, value)| map.get(key) == Some(value)));
        assert_eq!(map.into_entries().collect::<BTreeMap<_, _>>(), truth);
    }
}

fn set(number: u64) -> Op {
    let (key, value) = (key(number), Bytes::from(vec![number as u8; number as usize % 300]));
    Op::Write(Write::Set { key, value, condition: Condition::Always, old: false })
}

fn image_of(store: &Store) -> Vec<u8> {
    store.image().flatten().collect()
}

#[test]
fn equal_maps_have_equal_images_whatever_led_to_them_and_are_restored_whole() {
    let (mut rising, mut falling) = (Store::default(), Store::default());
    rising.execute((0..5_000).map(set).collect());
    falling.execute((0..5_000).rev().map(set).collect());
    let image = image_of(&rising);
    assert_eq!(image, image_of(&falling));
    for piece in [1, 7, 1000, image.len()] {
        let (mut store, mut reader) = (Store::default(), Reader::default());
        for piece in image.chunks(piece) {
            reader.take(piece, |key, value| store.recall(&key, value)).unwrap();
        }
        store.recalled(reader.finish().unwrap());
        assert_eq!((store.hash(), store.bytes()), (rising.hash(), rising.bytes()));
        assert_eq!(image_of(&store), image);
    }
    for len in [0, 5, 23, 24, 40, image.len() - 1] {
        let mut reader = Reader::default();
        reader.take(&image[..len], |_, _| {}).unwrap();
        assert!(reader.finish().is_err(), "cut at {len}");
    }
    assert!(Reader::default().take(b"something else that is long", |_, _| {}).is_err());
    let pieces: Vec<_> = image::write(Map::default(), 3).collect();
    assert_eq!(pieces.len(), 1);
}

/// What apply waits for: to get hold of an image, and to write to what the image shares. Printed, and
/// judged in a release build: a million values of 1 KiB, and batches of a thousand while the image is
/// written.
#[test]
#[ignore = "takes 3 GiB of memory, and means something in a release build only"]
fn a_snapshot_of_a_gib_pauses_apply_no_longer_than_five_milliseconds() {
    const KEYS: u64 = 1 << 20;
    let set = |number: u64| {
        let (key, value) = (key(number % KEYS), Bytes::from(vec![number as u8; 1024]));
        Op::Write(Write::Set { key, value, condition: Condition::Always, old: false })
    };
    let mut store = Store::default();
    for from in (0..KEYS).step_by(1024) {
        store.execute((from..from + 1024).map(set).collect());
    }
    let mut number = 0_u64;
    let mut batch = |store: &mut Store| {
        number += 7_919 * 1000;
        let ops = (number..number + 1000).map(|number| set(number * 7_919)).collect();
        let begin = Instant::now();
        let executed = store.execute(ops);
        assert_eq!(executed.outcomes.len(), 1000);
        begin.elapsed()
    };
    let median = |mut times: Vec<Duration>| {
        times.sort_unstable();
        (times[times.len() / 2], times[times.len() - 1])
    };
    let (usual, usual_most) = median((0..200).map(|_| batch(&mut store)).collect());
    let begin = Instant::now();
    let image = store.image();
    let taken = begin.elapsed();
    let writer = thread::spawn(move || image.map(|piece| piece.len()).sum::<usize>());
    let mut times = Vec::new();
    while !writer.is_finished() {
        times.push(batch(&mut store));
    }
    let bytes = writer.join().unwrap();
    let (shared, shared_most) = median(times.clone());
    println!(
        "image of {bytes} bytes: taken in {taken:?}, written in {:?}; a batch of 1000 takes {usual:?} \
         (at most {usual_most:?}) before, {shared:?} (at most {shared_most:?}) meanwhile, the first {:?}",
        begin.elapsed(),
        times[0]
    );
    assert!(bytes > 1 << 30);
    assert!(
        taken < Duration::from_millis(5) && shared_most < usual_most + Duration::from_millis(5)
    );
}

/// The bytes of all files beneath a directory.
pub(crate) fn disk_bytes(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).map(|entries| entries.flatten().collect::<Vec<_>>());
    let bytes = entries.unwrap_or_default().into_iter().map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => disk_bytes(&entry.path()),
        Ok(metadata) => metadata.len(),
        // It was removed meanwhile.
        Err(_) => 0,
    });
    bytes.sum()
}

const VALUE_BYTES: usize = 16 << 10;
const KEYS: usize = 100;
const MIB: u64 = 1 << 20;

/// Writes so many MiB, over and over the same keys.
fn write(cluster: &Cluster, id: u16, mib: usize) {
    let mut client = cluster.client(id);
    let value = vec![b'x'; VALUE_BYTES];
    let mut left = mib * (MIB as usize) / VALUE_BYTES;
    let mut number = 0;
    while left > 0 {
        let many = left.min(16);
        for _ in 0..many {
            let key = format!("key {}", number % KEYS);
            client.send(&[b"SET", key.as_bytes(), &value]).unwrap();
            number += 1;
        }
        for _ in 0..many {
            assert_eq!(client.receive().unwrap(), Answer::ok());
        }
        left -= many;
    }
}

/// LWM-1: however much is written, the disk holds the state twice, the log between two snapshots, and
/// the files of the log that are in use. One that was killed meanwhile, and is behind the log of both
/// others, is sent a snapshot.
#[test]
fn lwm_1_the_disk_stays_bounded_and_a_replica_that_was_away_is_sent_a_snapshot() {
    let mut cluster = Cluster::laid_out(3);
    let start = |cluster: &mut Cluster, id| cluster.start_with(id, &["--snapshot-mib", "2"]);
    for id in 1..=3 {
        start(&mut cluster, id);
    }
    cluster.leader();
    write(&cluster, 1, 1);
    cluster.wait_until_equal();
    cluster.kill(3);
    // Twice the image of 100 values; the log before and after a snapshot; files of 4 MiB: one that is
    // written, one that is trimmed half, and spares.
    let bound = 2 * 2 * MIB + 2 * 2 * MIB + 6 * 4 * MIB;
    for round in 0..3 {
        write(&cluster, 1 + round % 2, 16);
        for id in [1, 2] {
            let bytes = disk_bytes(&cluster.home(id));
            assert!(bytes < bound, "replica {id} has {bytes} bytes on disk, not below {bound}");
        }
    }
    let number = |cluster: &Cluster, id, name| -> Option<u64> {
        cluster.info_of("snapshots", id, name)?.parse().ok()
    };
    assert!(number(&cluster, 1, "snapshots_made").unwrap() >= 5);
    start(&mut cluster, 3);
    wait_for("a snapshot", || number(&cluster, 3, "snapshots_restored").filter(|n| *n == 1));
    cluster.wait_until_equal();
    assert!(disk_bytes(&cluster.home(3)) < bound);
    // All of them go on from their own.
    for id in 1..=3 {
        cluster.kill(id);
    }
    for id in 1..=3 {
        start(&mut cluster, id);
    }
    cluster.leader();
    cluster.wait_until_equal();
    let mut client = cluster.client(3);
    assert_eq!(client.say("DBSIZE").unwrap(), Answer::Integer(100));
}
