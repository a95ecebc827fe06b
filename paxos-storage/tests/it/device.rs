//! The simulated disk itself: every fault does what it says, and nothing it does not.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use paxos_storage::fs::{FileSystem, LogFile};
use paxos_storage::sim::{SECTOR_LEN, SimFile, SimFs, SimOp};

const FILE: &str = "/d/file";

/// A file whose sectors hold 1, 2, 3 and so on, durable with its name.
fn disk(sectors: u8) -> (SimFs, SimFile) {
    let fs = SimFs::new();
    fs.create_dir(Path::new("/d")).unwrap();
    let mut file = fs.create(Path::new(FILE)).unwrap();
    for sector in 0..sectors {
        let bytes = [sector + 1; SECTOR_LEN];
        file.write_at(&bytes, u64::from(sector) * SECTOR_LEN as u64).unwrap();
    }
    file.sync_data().unwrap();
    fs.sync_dir(Path::new("/d")).unwrap();
    (fs, file)
}

fn sectors(fs: &SimFs) -> Vec<u8> {
    fs.contents(FILE).unwrap().chunks(SECTOR_LEN).map(|sector| sector[0]).collect()
}

#[test]
fn a_crash_leaves_of_what_was_not_synced_what_it_is_told() {
    let kept = |keep: fn(usize) -> bool| {
        let (fs, mut file) = disk(2);
        file.write_at(&[9; 3 * SECTOR_LEN], 0).unwrap();
        // Three sectors and the size.
        assert_eq!(fs.unsynced(), 4);
        fs.crash_keeping(keep);
        assert_eq!(fs.unsynced(), 0);
        sectors(&fs)
    };
    assert_eq!(kept(|_| false), [1, 2]);
    assert_eq!(kept(|at| at < 1), [9, 2]);
    assert_eq!(kept(|at| at < 2), [9, 9]);
    assert_eq!(kept(|at| at == 1), [1, 9]);
    assert_eq!(kept(|at| at == 3), [1, 2, 0]);
    assert_eq!(kept(|_| true), [9, 9, 9]);
}

#[test]
fn a_name_that_was_not_synced_is_lost_or_kept_by_itself() {
    let names = |keep: fn(usize) -> bool| {
        let (fs, _file) = disk(1);
        drop(fs.create(Path::new("/d/new")).unwrap());
        fs.rename(Path::new(FILE), Path::new("/d/moved")).unwrap();
        fs.crash_keeping(keep);
        fs.files()
    };
    let paths = |names: &[&str]| names.iter().map(std::path::PathBuf::from).collect::<Vec<_>>();
    assert_eq!(names(|_| false), paths(&["/d/file"]));
    assert_eq!(names(|at| at == 0), paths(&["/d/file", "/d/new"]));
    assert_eq!(names(|at| at == 1), paths(&["/d/moved"]));
    assert_eq!(names(|_| true), paths(&["/d/moved", "/d/new"]));
}

#[test]
fn a_fork_goes_its_own_way() {
    let (fs, mut file) = disk(2);
    let fork = fs.fork();
    file.write_at(&[9], 0).unwrap();
    assert_eq!((sectors(&fs), sectors(&fork)), (vec![9, 2], vec![1, 2]));
    fork.crash_keeping(|_| false);
    file.sync_data().unwrap();
    assert_eq!(sectors(&fs), [9, 2]);
}

#[test]
fn a_write_that_goes_astray_is_noticed_after_the_crash_and_not_before() {
    let (fs, mut file) = disk(4);
    fs.misdirect(SimOp::Write, 0, 5);
    file.write_at(&[9; SECTOR_LEN], SECTOR_LEN as u64).unwrap();
    file.sync_data().unwrap();
    assert_eq!(sectors(&fs), [1, 9, 3, 4], "the cache shows what was meant");
    fs.crash_keeping(|_| true);
    let found = sectors(&fs);
    assert_eq!(found[1], 2, "it never came to where it was meant");
    let there: Vec<_> = found.iter().filter(|sector| **sector == 9).collect();
    assert_eq!(there.len(), 1, "but elsewhere: {found:?}");
    let mut file = fs.open(Path::new(FILE)).unwrap();
    file.write_at(&[7; SECTOR_LEN], 0).unwrap();
    file.sync_data().unwrap();
    fs.crash_keeping(|_| false);
    assert_eq!(sectors(&fs)[0], 7, "only once");
}

#[test]
fn a_read_that_goes_astray_returns_something_else_once() {
    let (fs, file) = disk(4);
    fs.misdirect(SimOp::Read, 0, 5);
    let read = || {
        let mut buffer = [0; SECTOR_LEN];
        assert_eq!(file.read_at(&mut buffer, 0).unwrap(), SECTOR_LEN);
        buffer[0]
    };
    assert_ne!(read(), 1);
    assert_eq!(read(), 1);
}

#[test]
fn rot_is_on_the_device_and_shows_where_the_cache_holds_nothing_newer() {
    let (fs, mut file) = disk(2);
    fs.rot(FILE, 0, 3);
    assert_eq!(sectors(&fs), [1 ^ 8, 2]);
    file.write_at(&[5; SECTOR_LEN], SECTOR_LEN as u64).unwrap();
    fs.rot(FILE, SECTOR_LEN, 0);
    assert_eq!(sectors(&fs), [1 ^ 8, 5]);
    fs.crash_keeping(|_| false);
    assert_eq!(sectors(&fs), [1 ^ 8, 2 ^ 1]);
    fs.rot(FILE, 99_999, 0);
    assert_eq!(sectors(&fs), [1 ^ 8, 2 ^ 1], "there is no such byte");
}

#[test]
fn a_disk_that_lies_makes_nothing_durable_until_it_crashed() {
    let (fs, mut file) = disk(1);
    fs.lie();
    file.write_at(&[9; SECTOR_LEN], 0).unwrap();
    file.sync_data().unwrap();
    fs.rename(Path::new(FILE), Path::new("/d/moved")).unwrap();
    fs.sync_dir(Path::new("/d")).unwrap();
    assert!(!fs.is_durable("/d/moved"));
    fs.crash_keeping(|_| false);
    assert_eq!(sectors(&fs), [1]);
    let mut file = fs.open(Path::new(FILE)).unwrap();
    file.write_at(&[9; SECTOR_LEN], 0).unwrap();
    file.sync_data().unwrap();
    fs.crash_keeping(|_| false);
    assert_eq!(sectors(&fs), [9], "it does not lie any more");
}

type Call = fn(&mut SimFile) -> std::io::Result<()>;

#[test]
fn each_kind_of_call_fails_once_where_it_is_asked_to() {
    let (fs, mut file) = disk(1);
    let calls: [(SimOp, Call); 3] = [
        (SimOp::Read, |file| file.read_at(&mut [0; 8], 0).map(|_| ())),
        (SimOp::Write, |file| file.write_at(&[1; 8], 0).map(|_| ())),
        (SimOp::Sync, LogFile::sync_data),
    ];
    for (op, call) in calls {
        fs.fail(op, 1, ErrorKind::Other);
        let results = [0; 3].map(|_| call(&mut file).is_ok());
        assert_eq!(results, [true, false, true], "{op:?}");
    }
}

#[test]
fn slow_and_hung_syncs_take_their_time() {
    let (fs, mut file) = disk(1);
    let ms = Duration::from_millis;
    assert_eq!((fs.delay(), fs.waited()), (ms(0), ms(0)));
    fs.slow_down(ms(5));
    fs.hang(ms(100));
    assert_eq!(fs.delay(), ms(105));
    file.sync_data().unwrap();
    assert_eq!((fs.delay(), fs.waited()), (ms(5), ms(105)));
    fs.slow_down(ms(0));
    file.sync_data().unwrap();
    assert_eq!(fs.waited(), ms(105));
}

#[test]
fn a_full_disk_takes_no_more_until_there_is_space_again() {
    let (fs, mut file) = disk(2);
    fs.set_capacity(Some(fs.used()));
    file.write_at(&[9; SECTOR_LEN], 0).unwrap();
    let full = file.write_at(&[9; SECTOR_LEN], 2 * SECTOR_LEN as u64).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::StorageFull);
    fs.set_capacity(None);
    file.write_at(&[9; SECTOR_LEN], 2 * SECTOR_LEN as u64).unwrap();
    assert_eq!(sectors(&fs), [9, 2, 9]);
}
