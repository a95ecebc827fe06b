//! The file system as the log sees it: few calls, each with a stated effect on durability.
//!
//! Owns: [`FileSystem`] and [`LogFile`], and their real implementation, [`RealFs`]. Knows nothing
//! of records and segments.
//! Invariants: nothing is durable before [`LogFile::sync_data`] (contents and size) or
//! [`FileSystem::sync_dir`] (names) has returned without an error, and nothing else makes it so.
//! Source: what POSIX, ext4 and XFS promise of `fdatasync` and of directories.

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

/// A directory tree with explicit durability. Cheap to clone.
pub trait FileSystem: Clone + fmt::Debug + Send + 'static {
    /// An open file.
    type File: LogFile;
    /// Excludes every other holder of the same path until it is dropped.
    type Lock: fmt::Debug + Send + Sync;

    /// Makes a directory and its parents. No error where it exists. Its name is durable after
    /// [`FileSystem::sync_dir`] of its parent.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Whether something has this name.
    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// The names in a directory, sorted.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;

    /// Opens a file that exists, to be read and written.
    fn open(&self, path: &Path) -> io::Result<Self::File>;

    /// Makes a new, empty file; an error if the name is taken.
    fn create(&self, path: &Path) -> io::Result<Self::File>;

    /// Gives a file another name of the same directory, atomically, replacing what had it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file's name.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Takes the lock on a path, creating the file if it is missing; `None` if somebody has it.
    fn try_lock(&self, path: &Path) -> io::Result<Option<Self::Lock>>;

    /// Waits before a lock is tried again.
    fn wait(&self, duration: Duration);

    /// Runs a job beside the caller where the platform has threads to spare, else at once.
    fn background(&self, job: Box<dyn FnOnce() + Send>);
}

/// An open file: read and written at offsets.
pub trait LogFile: fmt::Debug + Send + 'static {
    /// Its length in bytes.
    fn size(&self) -> io::Result<u64>;

    /// Reads into the buffer from an offset; returns how many bytes, zero at the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes from the bytes at an offset, growing the file as needed; returns how many.
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// Makes contents and size durable. After an error nothing is known of either, and a second
    /// call that succeeds proves nothing.
    fn sync_data(&mut self) -> io::Result<()>;

    /// Cuts or extends the file.
    fn set_size(&mut self, size: u64) -> io::Result<()>;
}

/// Writes all bytes, going on after interruptions and short writes.
pub(crate) fn write_all(
    file: &mut impl LogFile,
    mut bytes: &[u8],
    mut offset: u64,
) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write_at(bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                bytes = &bytes[count..];
                offset += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads `len` bytes from an offset, or fewer where the file ends before.
pub(crate) fn read_up_to(file: &impl LogFile, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; len];
    let mut filled = 0;
    while filled < len {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    buffer.truncate(filled);
    Ok(buffer)
}

/// Syncs a file; an interruption before the device was asked is no failure of it.
pub(crate) fn sync(file: &mut impl LogFile) -> io::Result<()> {
    loop {
        match file.sync_data() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Whether a failure says that the device, or the quota on it, is exhausted.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The file system of the operating system. Network file systems are not supported: their locks
/// and their sync calls promise less.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealFs;

/// A lock of [`RealFs`], held by the open file.
#[derive(Debug)]
pub struct RealLock {
    /// Closing it gives the lock back.
    _file: File,
}

impl FileSystem for RealFs {
    type File = File;
    type Lock = RealLock;

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists()
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(path)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort_unstable();
        Ok(names)
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).open(path)
    }

    fn create(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).create_new(true).open(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn try_lock(&self, path: &Path) -> io::Result<Option<RealLock>> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(RealLock { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn wait(&self, duration: Duration) {
        std::thread::sleep(duration);
    }

    fn background(&self, job: Box<dyn FnOnce() + Send>) {
        // A job that no thread can be had for is lost with the failed call; it reports through a
        // channel, whose other end notices.
        let _ = std::thread::Builder::new().name("paxos-wal-spare".to_owned()).spawn(job);
    }
}

impl LogFile for File {
    fn size(&self) -> io::Result<u64> {
        self.metadata().map(|metadata| metadata.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        FileExt::write_at(self, bytes, offset)
    }

    fn sync_data(&mut self) -> io::Result<()> {
        Self::sync_data(self)
    }

    fn set_size(&mut self, size: u64) -> io::Result<()> {
        self.set_len(size)
    }
}
