//! Truncation at every byte and a flip of every bit: a prefix, or corrupt, and nothing else.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use paxos_core::durable::Write;
use paxos_core::ids::Slot;
use paxos_core::port::{Recovered, StorageError};
use paxos_core::value::Value;
use paxos_storage::MemoryStorage;
use paxos_storage::sim::SimFs;

use crate::support::{Open, accepted, ballot, facts, format, newest_segment, open, value};

/// What a small log says after each of its facts, from none to all.
fn prefixes(writes: &[Write]) -> Vec<(Recovered, Vec<Value>)> {
    (0..=writes.len())
        .map(|count| {
            let mut model = Open::recover(MemoryStorage::formatted(format())).unwrap();
            model.write(writes[..count].to_vec()).unwrap();
            let storage = model.storage.clone();
            let mut model = Open::recover(storage).unwrap();
            let values = model.load(1, 99).values;
            (facts(&model.recovered), values)
        })
        .collect()
}

fn small_writes() -> Vec<Write> {
    vec![
        Write::Promised(ballot(1)),
        accepted(1, 1, value(1, 5)),
        accepted(2, 1, value(2, 70)),
        Write::Committed(Slot::FIRST),
        accepted(2, 2, value(3, 9)),
        Write::Promised(ballot(7)),
        accepted(3, 7, Value::Noop),
    ]
}

/// A log with one call for each fact, as a process that was killed leaves it.
fn small_log(writes: &[Write]) -> SimFs {
    let fs = SimFs::new();
    let mut log = open(&fs).unwrap();
    for write in writes {
        log.write(vec![write.clone()]).unwrap();
    }
    fs.kill();
    fs
}

/// How many facts are there after damage to the newest segment; `None` if it is called corrupt.
fn survivors(
    fs: &SimFs,
    damaged: Vec<u8>,
    prefixes: &[(Recovered, Vec<Value>)],
    what: &str,
) -> Option<usize> {
    let path = newest_segment(fs);
    let before: Vec<_> =
        fs.files().into_iter().map(|path| (path.clone(), fs.contents(&path).unwrap())).collect();
    let copy = SimFs::new();
    for dir in ["/data", "/data/wal"] {
        paxos_storage::fs::FileSystem::create_dir(&copy, dir.as_ref()).unwrap();
    }
    for (path, bytes) in before {
        copy.replace(path, bytes);
    }
    copy.replace(&path, damaged);
    match open(&copy) {
        Ok(mut log) => {
            let found = (facts(&log.recovered), log.load(1, 99).values);
            let count = prefixes.iter().position(|prefix| *prefix == found);
            Some(count.unwrap_or_else(|| panic!("{what}: no prefix: {found:?}")))
        }
        Err(StorageError::Corrupt { what: message }) => {
            assert!(message.contains(".wal"), "names the file: {message}");
            None
        }
        Err(error) => panic!("{what}: {error}"),
    }
}

/// The teaching WAL had no checksum: a torn payload was read back zero-padded as a valid entry,
/// and a torn header threw at start-up. (research/patterns.md N13; transport-and-storage.md 14)
#[test]
fn t14_n13_a_log_cut_at_any_byte_is_a_prefix_or_corrupt() {
    let writes = small_writes();
    let (fs, prefixes) = (small_log(&writes), prefixes(&writes));
    let bytes = fs.contents(newest_segment(&fs)).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let mut last = 0;
    let mut corrupt = 0;
    for len in 0..=used + 8 {
        let found = survivors(&fs, bytes[..len].to_vec(), &prefixes, &format!("cut at {len}"));
        if let Some(count) = found {
            assert!(count >= last, "a longer log says no less: {len}");
            last = count;
        } else {
            assert_eq!(last, 0, "past its head a cut log is a prefix: {len}");
            corrupt += 1;
        }
    }
    assert_eq!(last, writes.len(), "the whole log says everything");
    assert!(corrupt > 4096, "a segment without its head is corrupt: {corrupt}");
}

/// One flipped bit in the middle of a log of acknowledged records must never be read as its end:
/// etcd's zero-sector heuristic did. (transport-and-storage.md 14; etcd#5230, #6515, #11488)
#[test]
fn t14_a_log_with_any_bit_flipped_is_a_prefix_or_corrupt() {
    let writes = small_writes();
    let (fs, prefixes) = (small_log(&writes), prefixes(&writes));
    let bytes = fs.contents(newest_segment(&fs)).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    // The header's padding is covered by the same checksum as its fields: a part of it will do.
    let places = (0..128).chain(4000..used + 16);
    let (mut corrupt, mut prefix) = (0, 0);
    for (byte, bit) in places.flat_map(|byte| (0..8).map(move |bit| (byte, bit))) {
        let mut damaged = bytes.clone();
        damaged[byte] ^= 1 << bit;
        match survivors(&fs, damaged, &prefixes, &format!("byte {byte} bit {bit}")) {
            Some(count) => {
                // Only the last record has none after it that vouches for it.
                assert!(count + 1 >= writes.len(), "{count} survive byte {byte}");
                prefix += 1;
            }
            None => corrupt += 1,
        }
    }
    assert!(corrupt > 1000 && prefix > 100, "{corrupt} {prefix}");
}

/// After a clean close even the last record has one after it that vouches for it.
#[test]
fn t14_after_a_clean_close_no_flip_in_a_record_goes_unnoticed() {
    let writes = small_writes();
    let fs = SimFs::new();
    let mut log = open(&fs).unwrap();
    log.write(writes.clone()).unwrap();
    drop(log);
    let bytes = fs.contents(newest_segment(&fs)).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let prefixes = prefixes(&writes);
    for byte in 4096..used.next_multiple_of(8) - 64 {
        let mut damaged = bytes.clone();
        damaged[byte] ^= 1;
        assert_eq!(survivors(&fs, damaged, &prefixes, &format!("byte {byte}")), None);
    }
}

/// `RocksDB` could not recycle its log for years, as stale records could not be told from damage.
/// (transport-and-storage.md 15; rocksdb#6351)
#[test]
fn t15_a_recycled_segment_full_of_valid_old_records_gives_none_of_them() {
    let fs = SimFs::new();
    let mut log = open(&fs).unwrap();
    let mut slot = 0;
    // Enough rounds that every file was used several times.
    while !newest_segment(&fs).to_string_lossy().contains("00a.wal") {
        slot += 1;
        log.write(vec![accepted(slot, slot, value(slot, 900))]).unwrap();
        log.write(vec![Write::Committed(Slot::new(slot)), Write::Trimmed(Slot::new(slot - 1))])
            .unwrap();
    }
    let bytes = fs.contents(newest_segment(&fs)).unwrap();
    let filled = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    assert!(filled > bytes.len() - 4096, "the file is full of old records");
    fs.crash(1);
    let mut log = open(&fs).unwrap();
    assert_eq!(log.recovered.promised, Some(ballot(slot)));
    assert_eq!(log.recovered.committed, Slot::new(slot));
    assert_eq!(log.recovered.votes, []);
    assert_eq!(log.load(slot, 99_999).values, [value(slot, 900)]);
}

/// A start that was cut short leaves its records in a spare, for a sequence that the next start uses
/// again with fewer of them: what it left must not be read as what follows them.
#[test]
fn t15_what_a_start_that_was_cut_short_left_in_a_spare_is_never_read() {
    let mut reused = 0;
    for (changes, seed) in (0..12).flat_map(|changes| (0..16).map(move |seed| (changes, seed))) {
        let fs = SimFs::new();
        let mut log = open(&fs).unwrap();
        // Killed between the write and the sync: this is in the page cache alone.
        fs.cut_power_after(1);
        // The vote's record is as long as the two that the next start writes in its place.
        let vote = accepted(1, 5, value(1, 20));
        let rest = [6, 7].map(|round| Write::Promised(ballot(round)));
        assert!(log.write([vec![vote], rest.into()].concat()).is_err());
        fs.kill();
        fs.cut_power_after(changes);
        drop(open(&fs));
        fs.crash(seed);
        let next = open(&fs).unwrap();
        let told = next.recovered.promised;
        reused += u64::from(told < Some(ballot(7)));
        // The power goes before it writes anything.
        fs.crash(seed);
        drop(next);
        let again = open(&fs).unwrap().recovered.promised;
        assert_eq!(again, told, "cut after {changes}, seed {seed}");
    }
    assert!(reused > 20, "the next start found fewer records: {reused}");
}

/// Pebble's watermark silently stayed at zero, and with it the detection it was made for.
/// (transport-and-storage.md 16; pebble#6031)
#[test]
fn t16_the_watermark_advances_with_every_call() {
    let fs = small_log(&small_writes());
    let bytes = fs.contents(newest_segment(&fs)).unwrap();
    let mut at = 4096;
    let mut seen = Vec::new();
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    while bytes[at + 10] != 0 {
        let len = u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap()) as usize;
        seen.push((word(at + 16), word(at + 24)));
        at += (64 + len).next_multiple_of(8);
    }
    // A checkpoint, the record that frees the first segment, and one for each call.
    assert_eq!(seen.len(), 2 + small_writes().len());
    for (lsn, synced) in &seen[1..] {
        assert_eq!(*synced, lsn - 1, "each call was synced before the next");
    }
}

/// A segment that is missing in the middle, or at either end, is noticed, and the one that the log
/// ends with is called by its name.
#[test]
fn a_missing_segment_is_corruption() {
    let fs = SimFs::new();
    let mut log = open(&fs).unwrap();
    for slot in 1..200 {
        log.write(vec![accepted(slot, 1, value(slot, 2000))]).unwrap();
    }
    drop(log);
    let segments: Vec<_> = fs
        .files()
        .into_iter()
        .filter(|path| path.extension().is_some_and(|e| e == "wal"))
        .collect();
    assert!(segments.len() > 4);
    for missing in &segments {
        let copy = SimFs::new();
        paxos_storage::fs::FileSystem::create_dir(&copy, "/data/wal".as_ref()).unwrap();
        for path in fs.files().iter().filter(|path| *path != missing) {
            copy.replace(path, fs.contents(path).unwrap());
        }
        let newest = missing == segments.last().unwrap();
        match open(&copy) {
            Err(StorageError::Corrupt { what }) => {
                let name = missing.file_name().unwrap().to_str().unwrap();
                assert!(!newest || what.contains(name), "{name} is missing: {what}");
            }
            other => panic!("{}: {:?}", missing.display(), other.map(|log| log.recovered)),
        }
    }
}

/// The first segment of a life may be the only one: whoever removes it is told its name, and what
/// was acknowledged in it is not taken for a log that ended earlier.
#[test]
fn the_only_segment_of_a_life_is_missed_by_its_name() {
    for lives in 1..4 {
        let fs = SimFs::new();
        for life in 0..lives {
            let mut log = open(&fs).unwrap();
            log.write(vec![accepted(life + 1, 1, value(life, 10))]).unwrap();
        }
        let missing = newest_segment(&fs);
        paxos_storage::fs::FileSystem::remove(&fs, &missing).unwrap();
        let Err(StorageError::Corrupt { what }) = open(&fs).map(|log| log.recovered) else {
            panic!("{} is missing after {lives} lives", missing.display());
        };
        let name = missing.file_name().unwrap().to_str().unwrap();
        assert!(what.contains(&format!("segment {name}")), "{name}: {what}");
    }
}

/// A full disk puts off the note of the newest segment, and stops nothing.
#[test]
fn a_full_disk_puts_off_what_meta_counts_on() {
    let fs = SimFs::new();
    let mut log = open(&fs).unwrap();
    let before = fs.contents("/data/META").unwrap();
    let first = newest_segment(&fs);
    // A directory of an earlier release, or one whose disk was full for long, keeps no room for it.
    paxos_storage::fs::FileSystem::remove(&fs, "/data/META.tmp".as_ref()).unwrap();
    fs.set_capacity(Some(fs.used()));
    let mut slot = 0;
    while newest_segment(&fs) == first {
        slot += 1;
        log.write(vec![accepted(slot, 1, value(slot, 1000))]).unwrap();
    }
    assert_eq!(fs.contents("/data/META").unwrap(), before, "there is no space for another");
    fs.set_capacity(None);
    log.write(vec![Write::Committed(Slot::new(slot))]).unwrap();
    assert_ne!(fs.contents("/data/META").unwrap(), before, "the next call notes it");
}

/// META alone is lost: the log beside it is damaged, not new, and nothing is written over.
#[test]
fn a_log_without_its_meta_is_damaged_and_not_new() {
    use paxos_storage::Wal;
    let fs = SimFs::new();
    let mut log = open(&fs).unwrap();
    log.write(vec![accepted(1, 1, value(1, 10))]).unwrap();
    drop(log);
    paxos_storage::fs::FileSystem::remove(&fs, "/data/META".as_ref()).unwrap();
    let contents = || -> Vec<_> {
        fs.files().into_iter().map(|path| (path.clone(), fs.contents(path))).collect()
    };
    let before = contents();
    let (dir, format, options) = (crate::support::DIR, format(), crate::support::small());
    let attempts = [
        Wal::open_on(fs.clone(), dir, &format, options.clone()),
        Wal::open_or_format_on(fs.clone(), dir, &format, options.clone()),
        Wal::format_on(fs.clone(), dir, &format, options.clone()),
    ];
    for attempt in attempts {
        let Err(StorageError::Corrupt { what }) = attempt.map(|_| ()) else {
            panic!("it is no new directory");
        };
        assert!(what.contains("/data/META") && what.contains("missing"), "{what}");
        assert!(what.contains("keep the directory as it is"), "{what}");
    }
    assert_eq!(contents(), before);
}
