//! Listens for clients of one replica and runs their connections.
//!
//! Owns: the listener, the count of connections and what they share. Knows nothing of requests.
//! Invariants: at most [`CONNECTIONS_MAX`] connections; when [`serve`] returns, none is left.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{sleep, timeout};

use crate::backend::Backend;
use crate::budget::Budget;
use crate::connection::Connection;
use crate::limits::{CONNECTIONS_MAX, DRAIN_TIMEOUT};

/// How long to wait when the system has no room for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the connections of one replica share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) started: Instant,
    /// The most bytes that the process takes besides its data.
    pub(crate) memory_bound: usize,
    /// Bytes that connections may hold.
    pub(crate) budget: Arc<Budget>,
    /// Commands answered.
    pub(crate) commands: AtomicU64,
    /// Connections taken since the start.
    pub(crate) accepted: AtomicU64,
    /// Connections refused because there were too many.
    pub(crate) refused: AtomicU64,
    slots: Arc<Semaphore>,
}

impl Shared {
    pub(crate) fn new(budget: Arc<Budget>, memory_bound: usize) -> Arc<Self> {
        Arc::new(Self {
            memory_bound,
            started: Instant::now(),
            budget,
            commands: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            slots: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        })
    }

    /// The connections open at the moment.
    pub(crate) fn connections(&self) -> usize {
        CONNECTIONS_MAX - self.slots.available_permits()
    }
}

/// Serves clients until `closing` turns true; then takes no more, and gives those that are there
/// [`DRAIN_TIMEOUT`] to get the replies to what they sent.
pub(crate) async fn serve<B: Backend>(
    listener: TcpListener,
    backend: B,
    shared: Arc<Shared>,
    mut closing: watch::Receiver<bool>,
) {
    // Each connection holds a sender; the receiver ends when the last one is dropped.
    let (alive, mut all_gone) = mpsc::channel::<()>(1);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = closing.wait_for(|closing| *closing) => break,
        };
        let socket = match accepted {
            Ok((socket, _)) => socket,
            Err(error) => {
                pause(&error).await;
                continue;
            }
        };
        let Ok(slot) = Arc::clone(&shared.slots).try_acquire_owned() else {
            shared.refused.fetch_add(1, Ordering::Relaxed);
            refuse(socket);
            continue;
        };
        shared.accepted.fetch_add(1, Ordering::Relaxed);
        let connection = Connection::new(socket, backend.clone(), Arc::clone(&shared));
        let (alive, closing) = (alive.clone(), closing.clone());
        tokio::spawn(async move {
            if let Err(error) = connection.run(closing).await {
                tracing::debug!(%error, "a client's connection broke");
            }
            drop((slot, alive));
        });
    }
    drop((listener, alive));
    if timeout(DRAIN_TIMEOUT, all_gone.recv()).await.is_err() {
        tracing::warn!(
            connections = shared.connections(),
            "clients did not take their replies in time and are cut off"
        );
    }
}

/// Says why before closing; a client that does not listen is not waited for.
fn refuse(mut socket: TcpStream) {
    tokio::spawn(async move {
        let said = socket.write_all(b"-ERR max number of clients reached\r\n");
        if let Ok(Ok(())) = timeout(Duration::from_secs(1), said).await {
            let _closed = socket.shutdown().await;
        }
    });
}

/// Accepting fails for one connection that is gone already, or for want of file descriptors: the
/// latter would fail again at once.
async fn pause(error: &io::Error) {
    if error.kind() != io::ErrorKind::ConnectionAborted {
        tracing::warn!(%error, "cannot take another connection; is `ulimit -n` too low?");
        sleep(ACCEPT_PAUSE).await;
    }
}
