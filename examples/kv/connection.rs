//! One client: its requests in, their replies out, in order.
//!
//! Owns: one socket and what is read from it. May not touch the map but through [`Backend`].
//! Invariants: commands take effect in the order in which they were sent, and each sees those
//! before it; replies come in the same order; what the connection holds is leased from the
//! [`Budget`](crate::budget::Budget).
//!
//! Everything that one read brought is executed as one group, which is one command of the log, and
//! the next group is submitted when the replies of the last one are known. So a pipeline costs one
//! round of the log, its order cannot be lost to a retry that overtakes, and while a group is under
//! way the client's next requests gather in the socket and become the next group. A group of reads
//! alone is not written to the log as a command: it is a query.
//! Source: the book's Request Pipeline and Request Batch, on the side of the clients.

use std::io;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::backend::{Backend, Executed, Failure};
use crate::budget::Lease;
use crate::command::{self, InfoSection, Request};
use crate::limits::{
    GROUP_BYTES_SOFT, GROUP_COMMANDS_MAX, LINGER_TIMEOUT, OUT_BYTES_KEPT, READ_BYTES_MIN,
    REQUEST_BYTES_MAX, WRITE_BYTES, WRITE_TIMEOUT,
};
use crate::resp::{Parser, Reply, write_array_head, write_bulk_head};
use crate::server::Shared;
use crate::store::{Op, Outcome, Read};

/// What is said in one place of the replies.
#[derive(Debug)]
enum Planned {
    /// The outcome of the next operation of the group.
    Outcome,
    Answer(Reply),
    Info(InfoSection),
}

/// What follows when the planned replies are sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Next {
    /// More bytes are needed.
    Receive,
    /// The group was full: what is received already may hold more requests.
    Again,
    /// The client or its fault ended the connection.
    Close,
}

/// The operations of a group, by what the cheapest way to execute them is.
#[derive(Debug)]
enum Group {
    Reads(Vec<Read>),
    Mixed(Vec<Op>),
}

impl Group {
    fn push(&mut self, op: Op) {
        match (&mut *self, op) {
            (Self::Reads(reads), Op::Read(read)) => reads.push(read),
            (Self::Reads(reads), op @ Op::Write(_)) => {
                let mut ops: Vec<_> = mem::take(reads).into_iter().map(Op::Read).collect();
                ops.push(op);
                *self = Self::Mixed(ops);
            }
            (Self::Mixed(ops), op) => ops.push(op),
        }
    }

    async fn execute<B: Backend>(self, backend: &B) -> Result<(Vec<Outcome>, Self), Failure> {
        Ok(match self {
            Self::Reads(reads) => {
                let Executed { outcomes, rest } = backend.read(reads).await?;
                (outcomes, Self::Reads(rest))
            }
            Self::Mixed(ops) => {
                let Executed { outcomes, rest } = backend.execute(ops).await?;
                (outcomes, Self::Mixed(rest))
            }
        })
    }
}

/// A client's connection.
#[derive(Debug)]
pub(crate) struct Connection<B> {
    socket: TcpStream,
    backend: B,
    shared: Arc<Shared>,
    lease: Lease,
    parser: Parser,
    /// The arguments of one request; kept for its allocation.
    arguments: Vec<Bytes>,
    plan: Vec<Planned>,
    group: Group,
    out: Vec<u8>,
}

impl<B: Backend> Connection<B> {
    pub(crate) fn new(socket: TcpStream, backend: B, shared: Arc<Shared>) -> Self {
        Self {
            socket,
            backend,
            lease: Lease::new(Arc::clone(&shared.budget)),
            shared,
            parser: Parser::new(),
            arguments: Vec::new(),
            plan: Vec::new(),
            group: Group::Reads(Vec::new()),
            out: Vec::new(),
        }
    }

    /// Serves the client until it leaves, breaks the protocol, or `closing` turns true; requests
    /// that were read by then are answered first.
    pub(crate) async fn run(mut self, mut closing: watch::Receiver<bool>) -> io::Result<()> {
        self.socket.set_nodelay(true)?;
        loop {
            let next = self.plan();
            self.answer().await?;
            match next {
                Next::Again => continue,
                Next::Close => return self.end().await,
                Next::Receive => {}
            }
            let more = tokio::select! {
                more = self.receive() => more?,
                _ = closing.wait_for(|closing| *closing) => return Ok(()),
            };
            if !more {
                return self.end().await;
            }
        }
    }

    /// Waits for bytes from the client. Cancel safe. False if there will be none, or no room.
    async fn receive(&mut self) -> io::Result<bool> {
        if self.parser.capacity() > WRITE_BYTES {
            self.parser.shrink();
        }
        let buffer = self.parser.buffer_mut();
        buffer.reserve(READ_BYTES_MIN.max(buffer.len().min(WRITE_BYTES)));
        if !self.lease.resize(self.parser.capacity() + self.out.capacity()) {
            self.say(&no_room());
            self.flush().await?;
            return Ok(false);
        }
        Ok(self.socket.read_buf(self.parser.buffer_mut()).await? > 0)
    }

    /// Plans the replies to the requests received, up to one group of operations.
    fn plan(&mut self) -> Next {
        let mut bytes = 0;
        loop {
            let before = self.parser.unread();
            if self.plan.len() == GROUP_COMMANDS_MAX || bytes >= GROUP_BYTES_SOFT {
                return Next::Again;
            }
            match self.parser.next(&mut self.arguments) {
                Ok(false) => return Next::Receive,
                Ok(true) => {}
                Err(error) => {
                    self.plan.push(Planned::Answer(Reply::Error(error.to_string())));
                    return Next::Close;
                }
            }
            bytes += before - self.parser.unread();
            match command::understand(&mut self.arguments) {
                Request::Op(op) => {
                    self.group.push(op);
                    self.plan.push(Planned::Outcome);
                }
                Request::Answer(reply) => self.plan.push(Planned::Answer(reply)),
                Request::Info(section) => self.plan.push(Planned::Info(section)),
                Request::Quit => {
                    self.plan.push(Planned::Answer(Reply::Simple("OK")));
                    return Next::Close;
                }
            }
        }
    }

    /// Executes the group and sends what was planned.
    async fn answer(&mut self) -> io::Result<()> {
        let mut plan = mem::take(&mut self.plan);
        let mut group = mem::replace(&mut self.group, Group::Reads(Vec::new()));
        let mut outcomes = Vec::new().into_iter();
        let mut failure = None;
        self.shared.commands.fetch_add(plan.len() as u64, Ordering::Relaxed);
        for planned in plan.drain(..) {
            match planned {
                Planned::Answer(reply) => reply.write(&mut self.out),
                Planned::Info(section) => {
                    Reply::Bulk(Bytes::from(self.backend.info(section))).write(&mut self.out);
                }
                Planned::Outcome => {
                    if outcomes.len() == 0 && failure.is_none() {
                        match group.execute(&self.backend).await {
                            Ok((first, rest)) => {
                                self.hold(&first).await?;
                                (outcomes, group) = (first.into_iter(), rest);
                            }
                            Err(error) => {
                                failure = Some(error.to_string());
                                group = Group::Reads(Vec::new());
                            }
                        }
                    }
                    match (outcomes.next(), &failure) {
                        (Some(outcome), _) => self.write_outcome(outcome).await?,
                        (None, Some(failure)) => self.say(failure),
                        (None, None) => self.say("ERR this command has no outcome: a bug"),
                    }
                }
            }
            if self.out.len() >= WRITE_BYTES {
                self.flush().await?;
            }
        }
        self.plan = plan;
        self.flush().await
    }

    /// Leases what the values of replies take until they are sent.
    async fn hold(&mut self, outcomes: &[Outcome]) -> io::Result<()> {
        let bytes: usize = outcomes.iter().map(Outcome::bytes).sum();
        if bytes < WRITE_BYTES || self.lease.resize(self.parser.capacity() + bytes) {
            return Ok(());
        }
        self.say(
            "UNKNOWN the replies do not fit the server's buffers at this moment; the commands were \
             applied",
        );
        self.flush().await?;
        Err(io::ErrorKind::OutOfMemory.into())
    }

    async fn write_outcome(&mut self, outcome: Outcome) -> io::Result<()> {
        match outcome {
            Outcome::Done => self.out.extend_from_slice(b"+OK\r\n"),
            Outcome::Integer(number) => Reply::Integer(number).write(&mut self.out),
            Outcome::Value(value) => self.write_value(value).await?,
            Outcome::Values(values) => {
                write_array_head(&mut self.out, values.len());
                for value in values {
                    self.write_value(value).await?;
                }
            }
            Outcome::Refused(refusal) => self.say(&command::refusal(refusal)),
        }
        Ok(())
    }

    /// A large value is sent from where it lies; a small one is copied to the others.
    async fn write_value(&mut self, value: Option<Bytes>) -> io::Result<()> {
        let Some(value) = value else {
            Reply::Nil.write(&mut self.out);
            return Ok(());
        };
        if value.len() < WRITE_BYTES {
            Reply::Bulk(value).write(&mut self.out);
            return Ok(());
        }
        write_bulk_head(&mut self.out, value.len());
        self.flush().await?;
        send(&mut self.socket, &value).await?;
        self.out.extend_from_slice(b"\r\n");
        Ok(())
    }

    fn say(&mut self, error: &str) {
        Reply::Error(error.to_owned()).write(&mut self.out);
    }

    async fn flush(&mut self) -> io::Result<()> {
        if self.out.is_empty() {
            return Ok(());
        }
        send(&mut self.socket, &self.out).await?;
        self.out.clear();
        // What long replies needed is not kept for ever.
        self.out.shrink_to(OUT_BYTES_KEPT);
        Ok(())
    }

    /// Closes so that the last reply arrives: unread requests would otherwise turn the close into a
    /// reset, which discards it at the client.
    async fn end(mut self) -> io::Result<()> {
        self.socket.shutdown().await?;
        let mut scrap = [0; 1024];
        let drained = async {
            for _ in 0..REQUEST_BYTES_MAX / scrap.len() {
                if self.socket.read(&mut scrap).await? == 0 {
                    break;
                }
            }
            Ok(())
        };
        timeout(LINGER_TIMEOUT, drained).await.unwrap_or(Ok(()))
    }
}

/// Writes all of it, or gives the client up.
async fn send(socket: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    timeout(WRITE_TIMEOUT, socket.write_all(bytes))
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

fn no_room() -> String {
    Failure::Busy("the buffers for clients' requests are full".into()).to_string()
}
