//! Every damage to the files of a small snapshot: it is named, or an older snapshot serves; never
//! are wrong bytes given out.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::path::{Path, PathBuf};

use paxos_core::durable::Write;
use paxos_core::ids::Slot;
use paxos_core::port::StorageError;
use paxos_core::snapshot::SnapshotMeta;
use paxos_storage::fs::FileSystem;
use paxos_storage::sim::SimFs;

use crate::shelf::{CAPACITY, files, image, list, make, paths, read, store_of};
use crate::support::{GROUP, accepted, open, value};

/// A log with the snapshots of slots 5 and 9, trimmed up to a slot.
struct Kept {
    fs: SimFs,
    metas: [SnapshotMeta; 2],
    images: [Vec<u8>; 2],
}

fn keep(trimmed: u64) -> Kept {
    let fs = SimFs::new();
    let mut log = open(&fs).unwrap();
    let images = [image(1, 40), image(2, CAPACITY + 60)];
    let mut store = store_of(&mut log);
    let writes = (1..12).map(|slot| accepted(slot, 1, value(slot, 10)));
    log.write(writes.chain([Write::Committed(Slot::new(11))]).collect()).unwrap();
    let metas = [(5, &images[0]), (9, &images[1])]
        .map(|(slot, bytes)| make(&mut store, slot, bytes).unwrap());
    log.write(vec![Write::Trimmed(Slot::new(trimmed))]).unwrap();
    Kept { fs, metas, images }
}

/// The same disk with one file changed; `None` takes it away.
fn with(fs: &SimFs, path: &Path, contents: Option<Vec<u8>>) -> SimFs {
    let copy = SimFs::new();
    for dir in ["/data/wal", "/data/snapshots"] {
        copy.create_dir(dir.as_ref()).unwrap();
    }
    for other in fs.files().iter().filter(|other| *other != path) {
        copy.replace(other, fs.contents(other).unwrap());
    }
    if let Some(contents) = contents {
        copy.replace(path, contents);
    }
    copy
}

/// What a start makes of the damage.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Outcome {
    /// Both snapshots are listed.
    Both,
    /// The newer one is left, and the log goes on from it.
    Newer,
    /// The older one took its place.
    Older,
    /// Refused, by name.
    Named,
}

impl Kept {
    /// Starts on a damaged copy. Whatever is given out of an image is right.
    fn start(&self, fs: &SimFs, trimmed: u64, case: &dyn Fn() -> String) -> Outcome {
        let mut log = match open(fs) {
            Ok(log) => log,
            Err(StorageError::Corrupt { what }) => {
                assert!(what.contains("the snapshot of slot 9"), "{}: {what}", case());
                assert!(what.contains("the log begins after slot 7"), "{}: {what}", case());
                assert!(what.contains("do not start this replica"), "{}: {what}", case());
                return Outcome::Named;
            }
            Err(error) => panic!("{}: {error}", case()),
        };
        assert_eq!(log.recovered.trimmed, Slot::new(trimmed));
        let mut store = store_of(&mut log);
        let listed = store.list(GROUP).unwrap();
        assert_eq!(log.recovered.snapshot.as_ref(), listed.last(), "{}", case());
        for facts in &listed {
            let at = self.metas.iter().position(|meta| meta == facts).unwrap();
            match read(&mut store, facts) {
                Ok(found) => assert_eq!(found.unwrap(), self.images[at], "{}", case()),
                // Of the older one the image is looked at when it is read.
                Err(StorageError::Corrupt { what }) if at == 0 && listed.len() == 2 => {
                    assert!(what.contains("snapshot of slot 5, block 0"), "{}: {what}", case());
                }
                Err(StorageError::Io { what, .. }) if at == 0 && listed.len() == 2 => {
                    assert!(what.contains("cannot open"), "{}: {what}", case());
                }
                Err(error) => panic!("{}: {error}", case()),
            }
        }
        match listed.as_slice() {
            [_, _] => Outcome::Both,
            [one] if *one == self.metas[1] => Outcome::Newer,
            [one] if *one == self.metas[0] => Outcome::Older,
            _ => panic!("{}: {listed:?}", case()),
        }
    }

    /// What is due where a file of the older or of the newer snapshot is damaged.
    fn due(&self, path: &Path, trimmed: u64) -> Outcome {
        let is = |meta: &SnapshotMeta| {
            let slot = format!("-{:016x}-", meta.slot.number());
            path.to_string_lossy().contains(&slot)
        };
        let image = path.extension().is_some_and(|end| end == "image");
        let newer = is(&self.metas[1]) || path.ends_with("0000000000000002.image");
        match (newer, image) {
            (true, _) if trimmed > 5 => Outcome::Named,
            (true, _) => Outcome::Older,
            (false, true) => Outcome::Both,
            (false, false) => Outcome::Newer,
        }
    }
}

#[test]
fn every_flipped_bit_of_a_snapshot_is_named_or_an_older_one_serves() {
    for trimmed in [4, 7] {
        let kept = keep(trimmed);
        let mut cases = 0;
        for path in paths(&kept.fs) {
            let bytes = kept.fs.contents(&path).unwrap();
            for place in 0..bytes.len() {
                let mut flipped = bytes.clone();
                flipped[place] ^= 1 << (place % 8);
                let fs = with(&kept.fs, &path, Some(flipped));
                let case = || format!("{} byte {place}, trimmed {trimmed}", path.display());
                let found = kept.start(&fs, trimmed, &case);
                assert_eq!(found, kept.due(&path, trimmed), "{}", case());
                cases += 1;
            }
        }
        assert!(cases > 900, "{cases}");
    }
}

#[test]
fn a_file_that_is_cut_or_missing_is_named_or_an_older_one_serves() {
    for trimmed in [4, 7] {
        let kept = keep(trimmed);
        for path in paths(&kept.fs) {
            let bytes = kept.fs.contents(&path).unwrap();
            for len in (0..bytes.len()).step_by(11) {
                let fs = with(&kept.fs, &path, Some(bytes[..len].to_vec()));
                let case = || format!("{} cut at {len}, trimmed {trimmed}", path.display());
                assert_eq!(kept.start(&fs, trimmed, &case), kept.due(&path, trimmed), "{}", case());
            }
            if path.extension().is_some_and(|end| end == "image") {
                let fs = with(&kept.fs, &path, None);
                let case = || format!("{} missing, trimmed {trimmed}", path.display());
                assert_eq!(kept.start(&fs, trimmed, &case), kept.due(&path, trimmed), "{}", case());
            }
        }
    }
}

/// Blocks that are whole, and stand where others are due: of another place, or of another image.
#[test]
fn a_block_from_elsewhere_is_not_taken() {
    let fs = SimFs::new();
    let mut log = open(&fs).unwrap();
    let mut store = store_of(&mut log);
    let bytes = image(1, 2 * CAPACITY);
    let older = make(&mut store, 5, &bytes).unwrap();
    let newer = make(&mut store, 9, &bytes).unwrap();
    let image_file = |number: u64| PathBuf::from(format!("/data/snapshots/{number:016x}.image"));
    let contents = fs.contents(image_file(2)).unwrap();
    let mut swapped = contents.clone();
    swapped.rotate_left(512);
    fs.replace(image_file(2), swapped);
    let Err(StorageError::Corrupt { what }) = read(&mut store, &newer) else { panic!("taken") };
    assert!(what.contains("it is block 1"), "{what}");
    fs.replace(image_file(2), fs.contents(image_file(1)).unwrap());
    let Err(StorageError::Corrupt { what }) = read(&mut store, &newer) else { panic!("taken") };
    assert!(what.contains("checksum") && what.contains("slot 9, block 0"), "{what}");
    assert_eq!(read(&mut store, &older).unwrap().unwrap(), bytes);
    fs.replace(image_file(2), contents);
    assert_eq!(read(&mut store, &newer).unwrap().unwrap(), bytes);
}

/// What is damaged is kept under another name, one at most, and goes when it is older than what is
/// kept. What replaces it is of the same slot, or above it.
#[test]
fn a_damaged_snapshot_is_set_aside() {
    let kept = keep(4);
    let damage = |fs: &SimFs, number: u64| {
        let path = PathBuf::from(format!("/data/snapshots/{number:016x}.image"));
        fs.rot(path, 20, 3);
    };
    let fs = kept.fs;
    damage(&fs, 2);
    for _ in 0..2 {
        let mut log = open(&fs).unwrap();
        assert_eq!(list(&mut store_of(&mut log)), [5]);
        let found = files(&fs);
        assert_eq!(found.len(), 4, "{found:?}");
        assert_eq!(found.iter().filter(|name| name.ends_with(".damaged")).count(), 1, "{found:?}");
    }
    let mut log = open(&fs).unwrap();
    let mut store = store_of(&mut log);
    make(&mut store, 10, &kept.images[1]).unwrap();
    drop((store, log));
    let number = 3;
    damage(&fs, number);
    let mut log = open(&fs).unwrap();
    let mut store = store_of(&mut log);
    assert_eq!(list(&mut store), [5]);
    let found = files(&fs);
    assert_eq!(found.len(), 4, "the newest damaged one alone is kept: {found:?}");
    let again = make(&mut store, 10, &kept.images[1]).unwrap();
    assert_eq!(read(&mut store, &again).unwrap().unwrap(), kept.images[1]);
    make(&mut store, 11, &kept.images[1]).unwrap();
    store.remove_below(GROUP, Slot::new(11)).unwrap();
    assert_eq!(files(&fs).len(), 2, "{:?}", files(&fs));
    assert_eq!(list(&mut store), [11]);
}

/// A release that writes another version is named, not damage.
#[test]
fn another_version_of_a_manifest_is_refused() {
    let kept = keep(4);
    let path = paths(&kept.fs).into_iter().find(|path| path.extension().unwrap() == "manifest");
    let path = path.unwrap();
    let mut bytes = kept.fs.contents(&path).unwrap();
    bytes[8] = 9;
    let end = bytes.len() - 4;
    let crc = crc32c::crc32c(&bytes[..end]);
    bytes[end..].copy_from_slice(&crc.to_le_bytes());
    kept.fs.replace(&path, bytes);
    let error = open(&kept.fs).map(|log| log.recovered).unwrap_err();
    assert!(matches!(error, StorageError::Mismatch { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("version 9") && text.contains(path.to_str().unwrap()), "{text}");
}

/// Damage to what is being received costs what follows it, and nothing else.
#[test]
fn what_is_held_of_a_damaged_image_is_what_stands_before_the_damage() {
    let bytes = image(1, 4 * CAPACITY);
    let facts = crate::shelf::meta(9, &bytes);
    let fs = SimFs::new();
    let mut log = open(&fs).unwrap();
    let mut store = store_of(&mut log);
    store.receive(&facts).unwrap().write(&bytes).unwrap();
    let [image_path, manifest_path] = <[PathBuf; 2]>::try_from(paths(&fs)).unwrap();
    drop((store, log));
    for place in (0..4 * 512).step_by(41) {
        let mut flipped = fs.contents(&image_path).unwrap();
        flipped[place] ^= 4;
        let fs = with(&fs, &image_path, Some(flipped));
        let mut log = open(&fs).unwrap();
        let mut store = store_of(&mut log);
        let writer = store.receive(&facts).unwrap();
        assert_eq!(writer.held() as usize, place / 512 * CAPACITY, "byte {place}");
        crate::shelf::fill(writer, &facts, &bytes).unwrap();
        assert_eq!(read(&mut store, &facts).unwrap().unwrap(), bytes);
    }
    let manifest = fs.contents(&manifest_path).unwrap();
    for place in 0..manifest.len() {
        let mut flipped = manifest.clone();
        flipped[place] ^= 4;
        let fs = with(&fs, &manifest_path, Some(flipped));
        let mut log = open(&fs).unwrap();
        assert_eq!(files(&fs), Vec::<String>::new(), "byte {place}: it is of no use");
        assert_eq!(store_of(&mut log).receive(&facts).unwrap().held(), 0, "byte {place}");
    }
}
