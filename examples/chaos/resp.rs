//! A client of the Redis protocol.
//!
//! Owns: one connection and the bytes on it. Knows nothing of histories.
//! Invariant: after an error the connection is of no use, for a late reply would pass for another.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A larger reply is none of this program's.
const BULK_BYTES_MAX: usize = 16 << 20;

/// No request of this program has a longer list for a reply.
const ARRAY_MAX: usize = 1024;

/// A reply.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Reply {
    Simple(String),
    Error(String),
    Integer(i64),
    Bulk(String),
    Nil,
    Array(Vec<Reply>),
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    /// Connects; connecting and every reply may take `patience`.
    pub(crate) fn connect(address: SocketAddr, patience: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, patience)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Sends a request and waits for its reply.
    pub(crate) fn call(&mut self, request: &[&str]) -> io::Result<Reply> {
        let mut bytes = format!("*{}\r\n", request.len());
        for argument in request {
            let length = argument.len().to_string();
            bytes.extend(["$", &length, "\r\n", argument, "\r\n"]);
        }
        self.stream.get_mut().write_all(bytes.as_bytes())?;
        self.receive()
    }

    fn receive(&mut self) -> io::Result<Reply> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.strip_suffix("\r\n").ok_or(io::ErrorKind::InvalidData)?;
        let (kind, text) = line.split_at_checked(1).ok_or(io::ErrorKind::InvalidData)?;
        let number = || text.parse::<i64>().map_err(|_| io::ErrorKind::InvalidData);
        Ok(match kind {
            "+" => Reply::Simple(text.into()),
            "-" => Reply::Error(text.into()),
            ":" => Reply::Integer(number()?),
            "$" => match usize::try_from(number()?) {
                Err(_) => Reply::Nil,
                Ok(length) if length > BULK_BYTES_MAX => {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                Ok(length) => {
                    let mut bytes = vec![0; length + 2];
                    self.stream.read_exact(&mut bytes)?;
                    bytes.truncate(length);
                    Reply::Bulk(String::from_utf8(bytes).map_err(|_| io::ErrorKind::InvalidData)?)
                }
            },
            "*" => match usize::try_from(number()?) {
                Ok(length) if length <= ARRAY_MAX => {
                    let items = (0..length).map(|_| self.receive());
                    Reply::Array(items.collect::<io::Result<_>>()?)
                }
                Ok(_) | Err(_) => return Err(io::ErrorKind::InvalidData.into()),
            },
            _ => return Err(io::ErrorKind::InvalidData.into()),
        })
    }
}

/// A line of what a replica says of itself.
#[derive(Clone, Debug)]
pub(crate) struct Info(String);

impl Info {
    /// Asks for `INFO paxos`.
    pub(crate) fn ask(address: SocketAddr, patience: Duration) -> Option<Self> {
        Self::ask_for("paxos", address, patience)
    }

    /// Asks for a section of `INFO`.
    pub(crate) fn ask_for(section: &str, address: SocketAddr, patience: Duration) -> Option<Self> {
        let mut client = Client::connect(address, patience).ok()?;
        match client.call(&["INFO", section]).ok()? {
            Reply::Bulk(text) => Some(Self(text)),
            Reply::Simple(_)
            | Reply::Error(_)
            | Reply::Integer(_)
            | Reply::Nil
            | Reply::Array(_) => None,
        }
    }

    /// The value of a line.
    pub(crate) fn line(&self, name: &str) -> Option<&str> {
        self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
    }
}
