//! Asking nodes over their sockets.
//!
//! Owns: the connections, and the time that they may take. A node that was paused takes connections, and
//! says nothing: whatever is waited for here has an end.

use std::fmt;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use paxos::admin::{Answer, Request};

use crate::outcome::Failure;

/// Why there is no answer.
#[derive(Clone, Debug)]
pub(crate) enum Trouble {
    /// Nobody answers.
    Silence(String),
    /// Somebody does, with this reason, or with nothing that is understood.
    Refusal(String),
}

impl Trouble {
    pub(crate) fn is_silence(&self) -> bool {
        matches!(self, Self::Silence(_))
    }

    /// The name of its kind, for JSON.
    pub(crate) const fn code(&self) -> &'static str {
        match self {
            Self::Silence(_) => "no_answer",
            Self::Refusal(_) => "refused",
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silence(text) | Self::Refusal(text) => f.write_str(text),
        }
    }
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Silence(text) => Self::Silence(text),
            Trouble::Refusal(text) => Self::Failed(text),
        }
    }
}

/// Answers to one request, as they come.
#[derive(Debug)]
pub(crate) struct Answers {
    socket: PathBuf,
    lines: mpsc::Receiver<Result<Answer, Trouble>>,
}

impl Answers {
    /// The next answer, waited for until then, or for ever.
    pub(crate) fn next(&self, until: Option<Instant>) -> Result<Answer, Trouble> {
        let received = match until {
            None => self.lines.recv().map_err(|_| mpsc::RecvTimeoutError::Disconnected),
            Some(until) => {
                let left = until.saturating_duration_since(Instant::now());
                self.lines.recv_timeout(left)
            }
        };
        received.unwrap_or_else(|error| {
            let socket = self.socket.display();
            Err(Trouble::Silence(match error {
                mpsc::RecvTimeoutError::Timeout => format!(
                    "no answer from {socket} in time: its process may be stopped, or the machine overloaded"
                ),
                mpsc::RecvTimeoutError::Disconnected => {
                    format!("{socket} ended the connection: its node is stopping, or gone")
                }
            }))
        })
    }
}

/// Sends a request to a node.
pub(crate) fn send(socket: &Path, request: Request) -> Answers {
    let (sender, lines) = mpsc::channel();
    let path = socket.to_owned();
    // A connection cannot be given a time, so a thread waits for it, and nobody for the thread.
    thread::spawn(move || {
        if let Err(trouble) = converse(&path, &request, &sender) {
            // Whoever has stopped waiting does not mind.
            let _sent = sender.send(Err(trouble));
        }
    });
    Answers { socket: socket.to_owned(), lines }
}

/// Hands on each line of the node until one of the ends closes.
fn converse(
    socket: &Path,
    request: &Request,
    answers: &mpsc::Sender<Result<Answer, Trouble>>,
) -> Result<(), Trouble> {
    let mut stream = UnixStream::connect(socket).map_err(|error| unreachable(socket, &error))?;
    let lost = |error: &io::Error| {
        Trouble::Silence(format!("the connection to {} broke: {error}", socket.display()))
    };
    let sent = stream.write_all(request.to_line().as_bytes());
    let mut lines = BufReader::new(stream);
    let mut line = Vec::new();
    // What was said before the connection broke is heard first: why the node does not want it.
    while lines.read_until(b'\n', &mut line).map_err(|error| lost(&error))? > 0 {
        let answer = match Answer::from_line(&line) {
            Ok(Answer::Error(fault)) => Err(Trouble::Refusal(fault.reason)),
            Ok(answer) => Ok(answer),
            Err(error) => Err(Trouble::Refusal(format!("{}: {error}", socket.display()))),
        };
        if answers.send(answer).is_err() {
            return Ok(());
        }
        line.clear();
    }
    sent.map_err(|error| lost(&error))
}

fn unreachable(socket: &Path, error: &io::Error) -> Trouble {
    let shown = socket.display();
    let kind = error.kind();
    if kind == io::ErrorKind::NotFound {
        Trouble::Silence(format!(
            "there is no socket {shown}: its node is not running, or has it elsewhere"
        ))
    } else if kind == io::ErrorKind::ConnectionRefused {
        Trouble::Silence(format!("nobody listens on {shown}: its node is not running"))
    } else if kind == io::ErrorKind::PermissionDenied {
        Trouble::Refusal(format!(
            "{shown} is not yours to open: run paxosctl as the user whose node it is"
        ))
    } else {
        Trouble::Silence(format!("cannot connect to {shown}: {error}"))
    }
}

/// One answer from one node.
pub(crate) fn one(socket: &Path, request: Request, timeout: Duration) -> Result<Answer, Trouble> {
    send(socket, request).next(Some(Instant::now() + timeout))
}

/// What each of these nodes answers, asked at the same time.
pub(crate) fn all(
    sockets: &[PathBuf],
    request: &Request,
    timeout: Duration,
) -> Vec<Result<Answer, Trouble>> {
    let until = Some(Instant::now() + timeout);
    let asked: Vec<_> = sockets.iter().map(|socket| send(socket, request.clone())).collect();
    asked.into_iter().map(|answers| answers.next(until)).collect()
}

/// What to say of an answer to something else.
pub(crate) fn unexpected(socket: &Path) -> Trouble {
    Trouble::Refusal(format!("{} answered something else than was asked", socket.display()))
}

/// Why none of these answered: the reasons, and silence if that is all there is.
pub(crate) fn none_of<T>(answers: Vec<Result<T, Trouble>>) -> Failure {
    let troubles: Vec<_> = answers.into_iter().filter_map(Result::err).collect();
    let texts: Vec<_> = troubles.iter().map(ToString::to_string).collect();
    let text = texts.join("; ");
    if troubles.iter().all(Trouble::is_silence) {
        Failure::Silence(text)
    } else {
        Failure::Failed(text)
    }
}
