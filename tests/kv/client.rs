//! A client of the Redis protocol, small enough to be trusted.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// A reply.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Answer {
    Simple(String),
    Error(String),
    Integer(i64),
    Bulk(Vec<u8>),
    Nil,
    Array(Vec<Answer>),
}

impl Answer {
    /// The answer to a command that worked and has nothing to say.
    pub(crate) fn ok() -> Self {
        Self::Simple("OK".into())
    }

    pub(crate) fn bulk(bytes: impl AsRef<[u8]>) -> Self {
        Self::Bulk(bytes.as_ref().to_vec())
    }

    /// The first word of an error; empty if it is none.
    pub(crate) fn error_word(&self) -> &str {
        match self {
            Self::Error(text) => text.split(' ').next().unwrap_or_default(),
            _ => "",
        }
    }
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    /// Connects; replies may take `patience`.
    pub(crate) fn connect(address: impl ToSocketAddrs, patience: Duration) -> io::Result<Self> {
        let address = address.to_socket_addrs()?.next().expect("an address");
        let stream = TcpStream::connect_timeout(&address, patience)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    pub(crate) fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// Sends a request without waiting.
    pub(crate) fn send<A: AsRef<[u8]>>(&mut self, request: &[A]) -> io::Result<()> {
        self.send_raw(&encode(request))
    }

    /// Sends a request and waits for its reply.
    pub(crate) fn call<A: AsRef<[u8]>>(&mut self, request: &[A]) -> io::Result<Answer> {
        self.send(request)?;
        self.receive()
    }

    /// The same for words without spaces in them.
    pub(crate) fn say(&mut self, line: &str) -> io::Result<Answer> {
        self.call(&line.split(' ').collect::<Vec<_>>())
    }

    /// Waits for a reply.
    pub(crate) fn receive(&mut self) -> io::Result<Answer> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.strip_suffix("\r\n").ok_or(io::ErrorKind::InvalidData)?;
        let (kind, text) = line.split_at_checked(1).ok_or(io::ErrorKind::InvalidData)?;
        let number = || text.parse::<i64>().map_err(|_| io::ErrorKind::InvalidData);
        Ok(match kind {
            "+" => Answer::Simple(text.into()),
            "-" => Answer::Error(text.into()),
            ":" => Answer::Integer(number()?),
            "$" => match usize::try_from(number()?) {
                Err(_) => Answer::Nil,
                Ok(length) => {
                    let mut bytes = vec![0; length + 2];
                    self.stream.read_exact(&mut bytes)?;
                    assert_eq!(bytes.split_off(length), b"\r\n");
                    Answer::Bulk(bytes)
                }
            },
            "*" => {
                let items = (0..number()?).map(|_| self.receive());
                Answer::Array(items.collect::<io::Result<_>>()?)
            }
            _ => return Err(io::ErrorKind::InvalidData.into()),
        })
    }

    /// Whether the server closed the connection without another reply.
    pub(crate) fn is_at_end(&mut self) -> bool {
        matches!(self.stream.fill_buf(), Ok([]))
    }
}

/// The bytes of a request.
pub(crate) fn encode<A: AsRef<[u8]>>(request: &[A]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", request.len()).into_bytes();
    for argument in request {
        let argument = argument.as_ref();
        bytes.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        bytes.extend_from_slice(argument);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}
