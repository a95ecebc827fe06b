//! The tasks of the admin endpoint.
//!
//! Owns: [`AdminServing`], the task that takes connections, and that of each.
//! Invariants: connections are bounded, and so are the time that one may be silent, and the time that its
//! other end may leave an answer untaken; requests of one connection are answered in their order.

use core::time::Duration;
use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::admin::desk::Desk;
use crate::admin::options::{AdminError, AdminOptions};
use crate::admin::prometheus::CONTENT_TYPE;
use crate::admin::socket::Socket;
use crate::admin::talk::{Heard, Page, Talk};
use crate::admin::wire::{Answer, Fault, FaultCode, Request};
use crate::machine::StateMachine;
use crate::node::Node;

/// How much is read at once.
const READ_BYTES: usize = 1024;
/// How long to wait when the system has no room for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How much, and how long, is still read of a connection that ends, so that its last answer is not lost
/// with what was not read.
const DRAIN_BYTES_MAX: usize = 64 << 10;
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// An admin endpoint that is open. Dropping it closes its connections and removes the socket's file. It
/// outlives its node, and then says why that stopped.
#[derive(Debug)]
#[must_use = "dropping it closes the endpoint"]
pub struct AdminServing {
    task: AbortHandle,
    socket: Socket,
}

impl AdminServing {
    /// Where it is.
    pub fn path(&self) -> &Path {
        self.socket.path()
    }
}

impl Drop for AdminServing {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<M: StateMachine> Node<M> {
    /// Opens an admin endpoint for this node: a local socket of mode 0600, where whoever may write the file
    /// (its owner, and root) can see what [`Node::status`], [`Node::membership`] and [`Node::metrics`] show,
    /// and have the node make way for another. It closes when what this returns is dropped. Call it within
    /// the node's runtime, with I/O enabled.
    ///
    /// # Errors
    ///
    /// Where the socket cannot be made, or somebody listens there already.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves no endpoint and no file.
    pub async fn serve_admin(&self, options: AdminOptions) -> Result<AdminServing, AdminError> {
        options.check()?;
        let (socket, listener) = Socket::bind(&options.socket).await?;
        let desk = Arc::new(Desk::new(self.place, self.shared()));
        let task = tokio::spawn(take_connections(listener, desk, options)).abort_handle();
        Ok(AdminServing { task, socket })
    }
}

/// Takes connections for ever. They end with this task.
async fn take_connections(listener: UnixListener, desk: Arc<Desk>, options: AdminOptions) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            // What has ended first, so that it is not counted.
            biased;
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(replica = %desk.replica(), %error, "an admin connection failed");
                }
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) if connections.len() < options.connections_max => {
                let connection = Connection { stream, write_timeout: options.write_timeout };
                connections.spawn(converse(connection, Arc::clone(&desk), options.idle_timeout));
            }
            Ok((stream, _)) => refuse(&stream),
            Err(error) => {
                tracing::warn!(replica = %desk.replica(), %error, "cannot take an admin connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Says why, and closes. What does not fit the socket's buffer is not waited for.
fn refuse(stream: &UnixStream) {
    let reason = "too many admin connections: close some, or try again later".to_owned();
    let line = Answer::Error(Fault { code: FaultCode::Busy, reason }).to_line();
    let _written = stream.try_write(line.as_bytes());
}

/// One connection to its end. That its other end is gone is no news.
async fn converse(mut connection: Connection, desk: Arc<Desk>, idle_timeout: Duration) {
    let ended = connection.run(&desk, idle_timeout).await;
    if let Err(error) = ended {
        tracing::debug!(replica = %desk.replica(), %error, "an admin connection broke");
    }
}

#[derive(Debug)]
struct Connection {
    stream: UnixStream,
    write_timeout: Duration,
}

impl Connection {
    async fn run(&mut self, desk: &Desk, idle_timeout: Duration) -> io::Result<()> {
        let mut talk = Talk::new();
        loop {
            match self.hear(&mut talk, idle_timeout).await? {
                None => return Ok(()),
                Some(Heard::Http(page)) => {
                    self.write(http(page, desk).as_bytes()).await?;
                    return self.end().await;
                }
                Some(Heard::Request(Request::Watch)) => return self.watch(desk).await,
                Some(Heard::Request(request)) => self.say(&desk.answer(request).await).await?,
                Some(Heard::Fault(fault)) => {
                    let is_last = talk.is_over() || fault.code == FaultCode::Idle;
                    self.say(&Answer::Error(fault)).await?;
                    if is_last {
                        return self.end().await;
                    }
                }
            }
        }
    }

    /// What comes next; `None` at the end. Whoever sends a line byte by byte has no more time for it.
    async fn hear(&mut self, talk: &mut Talk, idle_timeout: Duration) -> io::Result<Option<Heard>> {
        let limit = Instant::now() + idle_timeout;
        let mut buffer = [0; READ_BYTES];
        loop {
            if let Some(heard) = talk.next() {
                return Ok(Some(heard));
            }
            match timeout_at(limit, self.stream.read(&mut buffer)).await {
                Ok(Ok(0)) => return Ok(None),
                Ok(Ok(count)) => talk.feed(&buffer[..count]),
                Ok(Err(error)) => return Err(error),
                Err(_) => {
                    let reason = "nothing was asked for too long".to_owned();
                    return Ok(Some(Heard::Fault(Fault { code: FaultCode::Idle, reason })));
                }
            }
        }
    }

    /// Tells of each change until the other end closes, or the node stops.
    async fn watch(&mut self, desk: &Desk) -> io::Result<()> {
        let mut leadership = desk.leadership();
        let mut scrap = [0; READ_BYTES];
        loop {
            let state = *leadership.borrow_and_update();
            self.say(&desk.report(state)).await?;
            loop {
                tokio::select! {
                    biased;
                    fault = desk.stopped() => {
                        self.say(&Answer::Error(fault)).await?;
                        return self.end().await;
                    }
                    Ok(()) = leadership.changed() => break,
                    read = self.stream.read(&mut scrap) => {
                        // Whatever else is said meanwhile is not listened to.
                        if read? == 0 {
                            return Ok(());
                        }
                    }
                }
            }
        }
    }

    async fn say(&mut self, answer: &Answer) -> io::Result<()> {
        self.write(answer.to_line().as_bytes()).await
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let written = timeout(self.write_timeout, self.stream.write_all(bytes)).await;
        written.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Closes so that the last answer arrives.
    async fn end(&mut self) -> io::Result<()> {
        self.stream.shutdown().await?;
        let mut scrap = [0; READ_BYTES];
        let drained = async {
            for _ in 0..DRAIN_BYTES_MAX / READ_BYTES {
                if self.stream.read(&mut scrap).await? == 0 {
                    break;
                }
            }
            Ok(())
        };
        timeout(DRAIN_TIMEOUT, drained).await.unwrap_or(Ok(()))
    }
}

/// The whole answer to a request of HTTP.
fn http(page: Page, desk: &Desk) -> String {
    let (status, kind, body) = match page {
        Page::Metrics => ("200 OK", CONTENT_TYPE, desk.metrics()),
        Page::None => {
            let body = "only GET /metrics is answered in HTTP; see paxosctl --help\n".to_owned();
            ("404 Not Found", "text/plain; charset=utf-8", body)
        }
    };
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
}
