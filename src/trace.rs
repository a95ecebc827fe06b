//! What a node's replica does, event by event, for whoever asks to see it.
//!
//! Owns: [`TraceSink`], which a node's options name, and [`TraceFile`], which writes the events as
//! JSON, one object a line (docs/traces.md). Off unless asked for, and then one comparison an event.
//! Invariants: a sink sees events and changes none; the node never waits for it.

use core::fmt::Debug;
use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use paxos_core::ids::{ReplicaId, Time};
use paxos_core::trace::Event;

/// So many lines may wait for the disk; what comes beyond them is counted and left out.
const LINES_MAX: usize = 65_536;
/// Lines that were written reach the file within this time.
const FLUSH_WITHIN: Duration = Duration::from_millis(100);

/// Is shown every event of a node.
pub trait TraceSink: Debug + Send + Sync {
    /// Something happened, at this reading of the node's monotonic clock. Called in the node's task:
    /// it must return at once, and wait for nothing.
    fn event(&self, at: Time, replica: ReplicaId, event: &Event);
}

/// Writes events into a file by a thread of its own. Dropping it writes what is left.
#[derive(Debug)]
pub struct TraceFile {
    lines: Option<SyncSender<String>>,
    /// Left out since the last line that found room.
    lost: AtomicU64,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl TraceFile {
    /// A new file at this path; what was there is gone.
    ///
    /// # Errors
    ///
    /// If the file cannot be made, or no thread can be started.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = BufWriter::new(File::create(path)?);
        let (lines, waiting) = mpsc::sync_channel(LINES_MAX);
        let shown = path.display().to_string();
        let writer = thread::Builder::new().name("paxos-trace".into()).spawn(move || {
            if let Err(error) = write_all(file, &waiting) {
                tracing::warn!(path = shown, %error, "the trace ends here");
            }
        })?;
        let (lost, writer) = (AtomicU64::new(0), Mutex::new(Some(writer)));
        Ok(Self { lines: Some(lines), lost, writer })
    }

    fn write(&self, line: String) {
        let sent = self.lines.as_ref().is_some_and(|lines| lines.try_send(line).is_ok());
        if !sent {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn write_all(mut file: BufWriter<File>, lines: &mpsc::Receiver<String>) -> io::Result<()> {
    loop {
        match lines.recv_timeout(FLUSH_WITHIN) {
            Ok(line) => file.write_all(line.as_bytes())?,
            Err(RecvTimeoutError::Timeout) => file.flush()?,
            Err(RecvTimeoutError::Disconnected) => return file.flush(),
        }
    }
}

impl TraceSink for TraceFile {
    fn event(&self, at: Time, replica: ReplicaId, event: &Event) {
        let mut line = String::new();
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let text = format!("{lost} events found no room");
            Event::Note { text }.write_json(at, Some(replica), &mut line);
        }
        event.write_json(at, Some(replica), &mut line);
        self.write(line);
    }
}

impl Drop for TraceFile {
    fn drop(&mut self) {
        // Without a sender the thread writes what waits, and ends.
        self.lines = None;
        if let Ok(mut writer) = self.writer.lock()
            && let Some(writer) = writer.take()
        {
            let _ = writer.join();
        }
    }
}
