//! What clients asked and what they were told.
//!
//! Owns: [`Operation`], its text, and the file of a history: one operation a line, after lines that
//! begin with `#` and explain. Judges nothing.
//! Invariants: what [`write`] writes, [`read`] reads back; an operation that was certainly not
//! carried out is kept too, for its value must never be seen.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::Path;

/// The first line of a file.
const HEADER: &str = "# chaos history 1";

/// A request about one key. Values have no spaces in them.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Call {
    Get,
    /// `SET key value`.
    Set(String),
    /// `SET key value NX`: only where there is none.
    SetAbsent(String),
    /// `SET key value GET`: says the old one.
    Swap(String),
    /// `GETDEL key`: takes it away and says what it was.
    Take,
    /// `INCR key`.
    Increment,
    /// `APPEND key value`.
    Append(String),
}

/// What is known of a request's end.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Outcome {
    Done,
    Value(Option<String>),
    Integer(i64),
    /// Certainly not carried out; the word that said so.
    Rejected(String),
    /// It may have been carried out, or may still be.
    Unknown,
}

/// One request of one client. Times are nanoseconds since the run began.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Operation {
    pub(crate) client: u32,
    /// The replica that was asked.
    pub(crate) node: u16,
    pub(crate) start: u64,
    /// When the client was told; of no meaning where the outcome is unknown.
    pub(crate) end: u64,
    pub(crate) key: String,
    pub(crate) call: Call,
    pub(crate) outcome: Outcome,
}

impl Operation {
    /// Whether it was carried out, for sure.
    pub(crate) fn succeeded(&self) -> bool {
        !matches!(self.outcome, Outcome::Rejected(_) | Outcome::Unknown)
    }
}

impl Call {
    /// The value that it writes.
    pub(crate) fn value(&self) -> Option<&str> {
        match self {
            Self::Set(value) | Self::SetAbsent(value) | Self::Swap(value) | Self::Append(value) => {
                Some(value)
            }
            Self::Get | Self::Take | Self::Increment => None,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let (name, value) = match text.split_once(' ') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text, None),
        };
        Some(match (name, value) {
            ("get", None) => Self::Get,
            ("set", Some(value)) => Self::Set(value),
            ("setnx", Some(value)) => Self::SetAbsent(value),
            ("swap", Some(value)) => Self::Swap(value),
            ("take", None) => Self::Take,
            ("incr", None) => Self::Increment,
            ("append", Some(value)) => Self::Append(value),
            _ => return None,
        })
    }
}

impl Outcome {
    fn parse(text: &str) -> Option<Self> {
        let (name, value) = match text.split_once(' ') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        Some(match (name, value) {
            ("done", None) => Self::Done,
            ("nil", None) => Self::Value(None),
            ("value", Some(value)) => Self::Value(Some(value.to_owned())),
            ("integer", Some(value)) => Self::Integer(value.parse().ok()?),
            ("rejected", Some(word)) => Self::Rejected(word.to_owned()),
            ("unknown", None) => Self::Unknown,
            _ => return None,
        })
    }
}

impl fmt::Display for Call {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Get => formatter.write_str("get"),
            Self::Set(value) => write!(formatter, "set {value}"),
            Self::SetAbsent(value) => write!(formatter, "setnx {value}"),
            Self::Swap(value) => write!(formatter, "swap {value}"),
            Self::Take => formatter.write_str("take"),
            Self::Increment => formatter.write_str("incr"),
            Self::Append(value) => write!(formatter, "append {value}"),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => formatter.write_str("done"),
            Self::Value(None) => formatter.write_str("nil"),
            Self::Value(Some(value)) => write!(formatter, "value {value}"),
            Self::Integer(number) => write!(formatter, "integer {number}"),
            Self::Rejected(word) => write!(formatter, "rejected {word}"),
            Self::Unknown => formatter.write_str("unknown"),
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { client, node, start, end, key, call, outcome } = self;
        write!(formatter, "{start} {end} c{client} n{node} {key} | {call} | {outcome}")
    }
}

impl Operation {
    fn parse(line: &str) -> Option<Self> {
        let (head, tail) = line.split_once(" | ")?;
        let (call, outcome) = tail.split_once(" | ")?;
        let fields: Vec<_> = head.split(' ').collect();
        let [start, end, client, node, key] = fields[..] else {
            return None;
        };
        Some(Self {
            client: client.strip_prefix('c')?.parse().ok()?,
            node: node.strip_prefix('n')?.parse().ok()?,
            start: start.parse().ok()?,
            end: end.parse().ok()?,
            key: key.to_owned(),
            call: Call::parse(call)?,
            outcome: Outcome::parse(outcome)?,
        })
    }
}

/// Writes a history; each note is a line of its own.
pub(crate) fn write(path: &Path, notes: &[String], history: &[Operation]) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    writeln!(file, "{HEADER}")?;
    for note in notes {
        writeln!(file, "# {}", note.replace('\n', " "))?;
    }
    writeln!(file, "# start end client node key | call | outcome (times in nanoseconds)")?;
    for operation in history {
        writeln!(file, "{operation}")?;
    }
    file.flush()
}

/// Reads a history back. The error is one line.
pub(crate) fn read(path: &Path) -> Result<Vec<Operation>, String> {
    let failed = |error: io::Error| format!("cannot read {}: {error}", path.display());
    let mut history = Vec::new();
    let lines = BufReader::new(File::open(path).map_err(failed)?).lines();
    for (number, line) in (1..).zip(lines) {
        let line = line.map_err(failed)?;
        if number == 1 && line != HEADER {
            return Err(format!("{} is no history of chaos", path.display()));
        }
        if !line.starts_with('#') {
            let operation = Operation::parse(&line);
            history.push(operation.ok_or_else(|| {
                format!("{}, line {number}: not an operation: {line}", path.display())
            })?);
        }
    }
    Ok(history)
}
