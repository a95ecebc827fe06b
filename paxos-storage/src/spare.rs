//! Spare segments: files of full size that wait for their turn.
//!
//! Owns: [`Spares`], the files `making-*.tmp` and `spare-*.tmp`. Writes no header and no record.
//! Invariants: a spare's blocks are allocated before it is called one, so that writing records
//! cannot run out of space; a full disk is noticed here, while there is still room for what must
//! be written; at most one spare is being made at a time.
//! Source: Segmented Log; etcd's file pipeline, for segments made ahead of their use.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, TryRecvError, channel};

use crate::fs::{FileSystem, LogFile, is_full, sync, write_all};

/// Zeros are written in pieces of this size.
const PIECE: usize = 1 << 20;
/// What a small segment has room for, beside what is moved into it.
const FIRST_ROOM: u64 = 16 << 10;

/// Makes and keeps spare segments.
#[derive(Debug)]
pub(crate) struct Spares<F> {
    fs: F,
    dir: PathBuf,
    /// The size of each, in bytes.
    size: u64,
    /// How many are made. Twice as many are kept where freed segments give them, so that a log
    /// that is trimmed as it grows goes on without filling files with zeros.
    wanted: usize,
    prewrite: bool,
    ready: VecDeque<u64>,
    making: Option<Receiver<io::Result<u64>>>,
    next: u64,
    full: bool,
}

impl<F: FileSystem> Spares<F> {
    /// Takes stock of what earlier lives left in `dir`, and removes what was half made.
    pub(crate) fn open(
        fs: F,
        dir: PathBuf,
        size: u64,
        wanted: usize,
        prewrite: bool,
    ) -> io::Result<Self> {
        let mut spares = Self {
            fs,
            dir,
            size,
            wanted,
            prewrite,
            ready: VecDeque::new(),
            making: None,
            next: 1,
            full: false,
        };
        for name in spares.fs.list(&spares.dir)? {
            let path = spares.dir.join(&name);
            if name.starts_with("making-") {
                spares.fs.remove(&path)?;
            } else if let Some(number) = spare_number(&name) {
                spares.next = spares.next.max(number + 1);
                let usable =
                    spares.ready.len() < 2 * wanted && spares.fs.open(&path)?.size()? == size;
                if usable {
                    spares.ready.push_back(number);
                } else {
                    spares.fs.remove(&path)?;
                }
            }
        }
        Ok(spares)
    }

    /// Whether none waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.ready.is_empty()
    }

    /// Whether the last attempt to make a spare found the disk full.
    pub(crate) fn is_full(&self) -> bool {
        self.full && self.ready.len() < self.wanted
    }

    /// The path of a file to be made into a segment of `size` bytes or more.
    pub(crate) fn take(&mut self, size: u64) -> io::Result<PathBuf> {
        if size > self.size {
            return self.make_now(size);
        }
        if self.ready.is_empty() {
            self.finish_making()?;
        }
        match self.ready.pop_front() {
            Some(number) => Ok(self.path(number)),
            None => self.make_now(self.size),
        }
    }

    /// The path of a file to be made into the first segment of a life. On a full disk without a spare it is a
    /// small one, for promises and what was in flight; what it takes over from gives room back.
    pub(crate) fn take_first(&mut self, size: u64) -> io::Result<PathBuf> {
        let small = (size + FIRST_ROOM).min(self.size.max(size));
        match self.take(size) {
            Err(error) if is_full(&error) => {
                self.full = true;
                self.make_now(small)
            }
            taken => taken,
        }
    }

    /// Keeps a segment's file for another use, or removes it where enough are kept. The caller
    /// syncs the directory before the file is used.
    pub(crate) fn recycle(&mut self, path: &Path, size: u64) -> io::Result<()> {
        if size != self.size || self.ready.len() >= 2 * self.wanted {
            return self.fs.remove(path);
        }
        let number = self.number();
        self.fs.rename(path, &self.path(number))?;
        self.ready.push_back(number);
        Ok(())
    }

    /// Starts making a spare where one is missing, and notices what became of the last attempt.
    /// A full disk is not an error here.
    pub(crate) fn refill(&mut self) -> io::Result<()> {
        self.poll()?;
        if self.making.is_none() && self.ready.len() < self.wanted {
            let (sender, receiver) = channel();
            let number = self.number();
            let job = (self.fs.clone(), self.dir.clone(), self.size, self.prewrite);
            self.fs.background(Box::new(move || {
                let (fs, dir, size, prewrite) = job;
                let made = make(&fs, &dir, number, size, prewrite);
                // Nobody listens if the log was closed meanwhile.
                let _ = sender.send(made.map(|_| number));
            }));
            self.making = Some(receiver);
            self.poll()?;
        }
        if self.ready.len() >= self.wanted {
            self.full = false;
        }
        Ok(())
    }

    fn poll(&mut self) -> io::Result<()> {
        let Some(receiver) = &self.making else {
            return Ok(());
        };
        match receiver.try_recv() {
            Ok(made) => self.made(made),
            Err(TryRecvError::Empty) => Ok(()),
            // No thread could be had for it; the next call tries again.
            Err(TryRecvError::Disconnected) => {
                self.making = None;
                Ok(())
            }
        }
    }

    fn finish_making(&mut self) -> io::Result<()> {
        let made = self.making.take().map(|receiver| receiver.recv());
        // Where no thread could be had, nothing was made.
        made.and_then(Result::ok).map_or(Ok(()), |made| self.made(made))
    }

    fn made(&mut self, made: io::Result<u64>) -> io::Result<()> {
        self.making = None;
        match made {
            Ok(number) => {
                self.ready.push_back(number);
                self.full = false;
                Ok(())
            }
            Err(error) if is_full(&error) => {
                self.full = true;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn make_now(&mut self, size: u64) -> io::Result<PathBuf> {
        let number = self.number();
        make(&self.fs, &self.dir, number, size, self.prewrite)
    }

    fn number(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        number
    }

    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(spare_name(number))
    }
}

impl<F> Drop for Spares<F> {
    /// The directory is not given up while a thread still writes into it.
    fn drop(&mut self) {
        if let Some(receiver) = self.making.take() {
            let _ = receiver.recv();
        }
    }
}

fn spare_name(number: u64) -> String {
    format!("spare-{number}.tmp")
}

fn spare_number(name: &str) -> Option<u64> {
    name.strip_prefix("spare-")?.strip_suffix(".tmp")?.parse().ok()
}

/// Makes one spare under a temporary name first, so that no half-made one is ever taken for it.
fn make<F: FileSystem>(
    fs: &F,
    dir: &Path,
    number: u64,
    size: u64,
    prewrite: bool,
) -> io::Result<PathBuf> {
    let temporary = dir.join(format!("making-{number}.tmp"));
    let path = dir.join(spare_name(number));
    let mut file = fs.create(&temporary)?;
    match fill(&mut file, size, prewrite) {
        Ok(()) => {
            fs.rename(&temporary, &path)?;
            Ok(path)
        }
        Err(error) => {
            // What was taken of a full disk is given back; the first error is the one to report.
            let _ = fs.remove(&temporary);
            Err(error)
        }
    }
}

fn fill(file: &mut impl LogFile, size: u64, prewrite: bool) -> io::Result<()> {
    if !prewrite {
        return file.set_size(size);
    }
    let zeros = vec![0; PIECE.min(size as usize)];
    let mut offset = 0;
    while offset < size {
        let piece = zeros.len().min((size - offset) as usize);
        write_all(file, &zeros[..piece], offset)?;
        offset += piece as u64;
    }
    sync(file)
}
