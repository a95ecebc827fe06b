#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use paxos_core::ids::{ClientId, LogClock, RequestNumber};
use paxos_core::membership::Membership;
use paxos_core::snapshot::{Governs, ImageHasher};
use paxos_core::value::{Batch, Command};

use super::file::{Writer, read};
use super::*;

fn meta_of(slot: u64, image: &[u8]) -> SnapshotMeta {
    let mut hasher = ImageHasher::new();
    hasher.update(image);
    let membership = Membership::voters_only([1, 2].map(ReplicaId::new)).unwrap();
    SnapshotMeta {
        group: GroupId::new(3),
        slot: Slot::new(slot),
        clock: LogClock::from_millis(9),
        governs: vec![Governs { from: Slot::FIRST, membership }],
        bytes: image.len() as u64,
        digest: hasher.finish(),
    }
}

fn value(number: u64) -> Value {
    let (client, request) = (ClientId::new(1), RequestNumber::new(number));
    let command = Command::apply(client, request, Bytes::from(vec![7; number as usize]));
    Value::Batch(Batch::new(LogClock::from_millis(number), vec![command]))
}

fn origin() -> BackupOrigin {
    BackupOrigin {
        source: BackupSource::Stopped,
        cluster: ClusterId::new(0xC1 << 100 | 5),
        group: GroupId::new(3),
        replica: ReplicaId::new(2),
    }
}

/// Everything that comes, in words.
#[derive(Clone, Default)]
struct Told(Rc<RefCell<Vec<String>>>);

impl Sink for Told {
    fn facts(&mut self, meta: &SnapshotMeta) -> Result<(), BackupError> {
        self.0.borrow_mut().push(format!("{} {}", meta.slot, meta.digest));
        Ok(())
    }
    fn image(&mut self, bytes: &[u8]) -> Result<(), BackupError> {
        self.0.borrow_mut().push(format!("{} bytes", bytes.len()));
        Ok(())
    }
    fn image_end(&mut self) -> Result<(), BackupError> {
        self.0.borrow_mut().push("end of image".to_owned());
        Ok(())
    }
    fn value(&mut self, slot: Slot, value: Value) -> Result<(), BackupError> {
        self.0.borrow_mut().push(format!("{slot} {value:?}"));
        Ok(())
    }
}

/// A file, with or without a snapshot and values after it.
fn written(image: Option<&[u8]>, values: u64) -> (tempfile::TempDir, PathBuf, BackupInfo) {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("b");
    let mut writer = Writer::create(&path, origin()).unwrap();
    let mut last = 0;
    if let Some(image) = image {
        last = 40;
        writer.facts(&meta_of(last, image)).unwrap();
        writer.image(image).unwrap();
        writer.image_end().unwrap();
    }
    for number in 1..=values {
        writer.value(Slot::new(last + number), value(number)).unwrap();
    }
    assert!(!path.exists(), "it has its name when it is whole");
    let info = writer.finish().unwrap();
    (scratch, path, info)
}

fn reading(bytes: &[u8]) -> Result<BackupInfo, BackupError> {
    read(Path::new("b"), bytes, &mut Told::default())
}

#[test]
fn what_is_written_is_read_back() {
    let image = vec![5; PIECE_BYTES * 2 + 17];
    for (image, values) in [(None, 0), (None, 3), (Some(&image[..]), 0), (Some(&image[..]), 2)] {
        let (_scratch, path, info) = written(image, values);
        let bytes = std::fs::read(&path).unwrap();
        let told = Told::default();
        assert_eq!(read(&path, bytes.as_slice(), &mut told.clone()).unwrap(), info);
        assert_eq!(info.file_bytes, bytes.len() as u64);
        let first = if image.is_some() { 41 } else { 1 };
        assert_eq!((info.origin, info.values), (origin(), values));
        assert_eq!(info.last, Slot::new(first + values - 1));
        let mut expected = Vec::new();
        if let Some(image) = image {
            expected.push(format!("{} {}", Slot::new(40), meta_of(40, image).digest));
            expected
                .extend(image.chunks(PIECE_BYTES).map(|piece| format!("{} bytes", piece.len())));
            expected.push("end of image".to_owned());
        }
        expected
            .extend((0..values).map(|n| format!("{} {:?}", Slot::new(first + n), value(n + 1))));
        assert_eq!(*told.0.borrow(), expected);
    }
}

#[test]
fn whatever_happens_to_a_file_is_noticed() {
    let (_scratch, path, _) = written(Some(&[9; 300]), 2);
    let good = std::fs::read(&path).unwrap();
    reading(&good).unwrap();
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            assert!(reading(&bad).is_err(), "bit {bit} of byte {at}");
        }
        assert!(reading(&good[..at]).is_err(), "cut at {at}");
        let zeroed: Vec<_> = good[..at].iter().copied().chain(vec![0; good.len() - at]).collect();
        assert!(zeroed == good || reading(&zeroed).is_err(), "zeros from {at} on");
    }
    let mut longer = good.clone();
    longer.push(0);
    let error = reading(&longer).unwrap_err().to_string();
    assert!(error.contains("goes on behind its end"), "{error}");
    let error = reading(b"something else that is long enough to be the head of a file of ours!!!");
    assert!(error.unwrap_err().to_string().contains("it is no backup"));
    let mut later = good.clone();
    later[8] = 9;
    let error = reading(&later).unwrap_err();
    assert!(matches!(error, BackupError::Version { version: 9, .. }), "{error}");
}

/// Pieces that are whole by themselves, but of another place or another file.
#[test]
fn pieces_cannot_be_left_out_doubled_or_exchanged() {
    let (_scratch, path, _) = written(None, 3);
    let good = std::fs::read(&path).unwrap();
    let mut ends = vec![64];
    while let Some(start) = ends.last().copied().filter(|end| *end < good.len()) {
        let len = u32::from_le_bytes(good[start + 4..start + 8].try_into().unwrap());
        ends.push(start + 32 + len as usize);
    }
    let piece = |at: usize| &good[ends[at]..ends[at + 1]];
    assert_eq!(ends.len(), 5, "three values and the end");
    for order in [vec![0, 1, 2], vec![0, 2, 3], vec![0, 1, 1, 2, 3], vec![1, 0, 2, 3], vec![3]] {
        let mut bad = good[..64].to_vec();
        for at in &order {
            bad.extend_from_slice(piece(*at));
        }
        assert!(reading(&bad).is_err(), "{order:?}");
    }
    // An image that is not the one of its facts.
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("b");
    let mut writer = Writer::create(&path, origin()).unwrap();
    writer.facts(&meta_of(40, &[1; 10])).unwrap();
    writer.image(&[2; 10]).unwrap();
    writer.image_end().unwrap();
    writer.finish().unwrap();
    let error = Backup::open(&path).unwrap_err().to_string();
    assert!(error.contains("another digest"), "{error}");
}

#[test]
fn nothing_is_written_over_and_nothing_unfinished_has_the_name() {
    let (scratch, path, _) = written(None, 1);
    let before = std::fs::read(&path).unwrap();
    assert!(matches!(Writer::create(&path, origin()), Err(BackupError::Exists { .. })));
    let other = scratch.path().join("other");
    let writer = Writer::create(&other, origin()).unwrap();
    std::fs::write(&other, "of somebody else").unwrap();
    assert!(matches!(writer.finish(), Err(BackupError::Exists { .. })));
    assert_eq!(std::fs::read(&other).unwrap(), b"of somebody else");
    drop(Writer::create(&scratch.path().join("third"), origin()).unwrap());
    let names = std::fs::read_dir(scratch.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(names.count(), 2, "what was given up is gone");
    assert_eq!(std::fs::read(&path).unwrap(), before);
    let missing = Writer::create(&scratch.path().join("no/such"), origin());
    assert!(matches!(missing, Err(BackupError::Io { .. })));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "it holds everything that the cluster holds");
    }
}
