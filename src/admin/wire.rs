//! Requests and answers, each one line of JSON.
//!
//! Owns: [`Request`], [`Answer`], [`Fault`] and their bytes. Knows no socket and no node.
//! Invariants: (1) what is not understood whole is not understood: an order of which a part is left out
//! would do something else than was asked; (2) a line holds no line break but its last byte.
//!
//! The layout is drawn in docs/admin.md.

use core::fmt;

use paxos_core::ids::{ReplicaId, Slot};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::admin::change::ChangeRequest;
use crate::admin::plain;
use crate::admin::report::{
    ChangeReport, ExportReport, LeadershipReport, MembersReport, SnapshotReport, StatusReport,
    TransferReport, TrimReport,
};

/// The version of the endpoint's language.
pub const VERSION: u32 = 1;

/// What is asked of a node.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Request {
    /// What it says of itself.
    Status,
    /// The membership in force.
    Members,
    /// What it counted, as Prometheus text.
    Metrics,
    /// Who leads: at once, and at each change until the connection ends.
    Watch,
    /// That it makes way, if it leads.
    Transfer {
        /// For this voter, or for the best one.
        to: Option<ReplicaId>,
    },
    /// That it makes a snapshot.
    Snapshot,
    /// That it trims its log.
    Trim {
        /// Up to this slot, or as far as its newest snapshot goes.
        through: Option<Slot>,
    },
    /// That it writes a backup.
    Export {
        /// Into this file, which does not exist: an absolute path, as the node's process sees it.
        file: String,
    },
    /// That it changes the membership, if it leads.
    Change(ChangeRequest),
}

/// How a verb's arguments are understood.
type Understand = fn(Value) -> Result<Request, serde_json::Error>;

/// The verbs, and how each is understood.
const VERBS: [(&str, Understand); 9] = [
    ("status", |rest| nothing(rest, Request::Status)),
    ("members", |rest| nothing(rest, Request::Members)),
    ("metrics", |rest| nothing(rest, Request::Metrics)),
    ("watch", |rest| nothing(rest, Request::Watch)),
    ("transfer", |rest| {
        let TransferArguments { to } = arguments(rest)?;
        Ok(Request::Transfer { to })
    }),
    ("snapshot", |rest| nothing(rest, Request::Snapshot)),
    ("trim", |rest| {
        let TrimArguments { through } = arguments(rest)?;
        Ok(Request::Trim { through })
    }),
    ("export", |rest| {
        let ExportArguments { file } = arguments(rest)?;
        Ok(Request::Export { file })
    }),
    ("change", |rest| arguments(rest).map(Request::Change)),
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoArguments {}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct TransferArguments {
    #[serde(default, with = "plain")]
    to: Option<ReplicaId>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TrimArguments {
    #[serde(default, with = "plain")]
    through: Option<Slot>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExportArguments {
    file: String,
}

fn arguments<T: DeserializeOwned>(rest: Value) -> Result<T, serde_json::Error> {
    serde_json::from_value(rest)
}

fn nothing(rest: Value, request: Request) -> Result<Request, serde_json::Error> {
    let NoArguments {} = arguments(rest)?;
    Ok(request)
}

impl Request {
    /// The line that asks for this.
    pub fn to_line(&self) -> String {
        let mut line = Map::new();
        line.insert("v".to_owned(), VERSION.into());
        line.insert("verb".to_owned(), self.verb().into());
        match self {
            Self::Transfer { to: Some(to) } => {
                line.insert("to".to_owned(), to.number().into());
            }
            Self::Trim { through: Some(through) } => {
                line.insert("through".to_owned(), through.number().into());
            }
            Self::Export { file } => {
                line.insert("file".to_owned(), file.as_str().into());
            }
            Self::Change(change) => {
                let change = serde_json::to_value(change);
                let change = change.expect("a change is made of texts and numbers");
                line.extend(change.as_object().cloned().unwrap_or_default());
            }
            Self::Transfer { to: None }
            | Self::Trim { through: None }
            | Self::Status
            | Self::Members
            | Self::Metrics
            | Self::Watch
            | Self::Snapshot => {}
        }
        format!("{}\n", Value::Object(line))
    }

    /// Its name on the line.
    pub const fn verb(&self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Members => "members",
            Self::Metrics => "metrics",
            Self::Watch => "watch",
            Self::Transfer { .. } => "transfer",
            Self::Snapshot => "snapshot",
            Self::Trim { .. } => "trim",
            Self::Export { .. } => "export",
            Self::Change(_) => "change",
        }
    }

    /// Understands a line.
    ///
    /// # Errors
    ///
    /// What the node answers to a line that it does not understand.
    pub fn from_line(line: &[u8]) -> Result<Self, Fault> {
        let malformed = |reason: String| Fault { code: FaultCode::Malformed, reason };
        let example = "a request is one line like {\"v\":1,\"verb\":\"status\"}";
        let value: Value = serde_json::from_slice(line)
            .map_err(|error| malformed(format!("not JSON: {error}; {example}")))?;
        let Value::Object(mut fields) = value else {
            return Err(malformed(format!("not a JSON object; {example}")));
        };
        match fields.remove("v") {
            Some(version) if version == VERSION => {}
            Some(version) => {
                let reason = format!(
                    "this node speaks version {VERSION} and not {version}: use the paxosctl of its \
                     release, {}",
                    env!("CARGO_PKG_VERSION")
                );
                return Err(Fault { code: FaultCode::Version, reason });
            }
            None => return Err(malformed(format!("no version `v`; {example}"))),
        }
        let Some(Value::String(verb)) = fields.remove("verb") else {
            return Err(malformed(format!("no text `verb`; {example}")));
        };
        let Some((_, understand)) = VERBS.iter().find(|(name, _)| *name == verb) else {
            let known = VERBS.map(|(name, _)| name).join(", ");
            let reason = format!(
                "this node, of release {}, knows no verb {verb:?}; it knows {known}",
                env!("CARGO_PKG_VERSION")
            );
            return Err(Fault { code: FaultCode::UnknownVerb, reason });
        };
        understand(Value::Object(fields)).map_err(|error| malformed(format!("{verb}: {error}")))
    }
}

/// What a node answers.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Answer {
    /// To [`Request::Status`].
    Status(Box<StatusReport>),
    /// To [`Request::Members`].
    Members(Box<MembersReport>),
    /// To [`Request::Metrics`]: Prometheus text, version 0.0.4.
    Metrics(String),
    /// To [`Request::Watch`], again and again.
    Leadership(LeadershipReport),
    /// To [`Request::Transfer`]: it is done.
    Transferred(TransferReport),
    /// To [`Request::Snapshot`]: it is durable.
    Snapshot(SnapshotReport),
    /// To [`Request::Trim`]: it is done.
    Trimmed(TrimReport),
    /// To [`Request::Export`]: it is durable.
    Exported(ExportReport),
    /// To [`Request::Change`]: the new membership governs.
    Changed(ChangeReport),
    /// The request was not carried out, or nobody can say what came of it.
    Error(Fault),
}

/// Why a request was not carried out.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Fault {
    /// What kind of reason.
    pub code: FaultCode,
    /// The reason in words, and what to do.
    pub reason: String,
}

/// The kinds of reasons.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FaultCode {
    /// The line is no request.
    Malformed,
    /// The line is too long. The connection ends.
    TooLong,
    /// The request is of another version.
    Version,
    /// The node does not know the verb.
    UnknownVerb,
    /// There are too many connections. This one ends.
    Busy,
    /// Nothing was asked for too long. The connection ends.
    Idle,
    /// The node does not do it, or it did not come out as asked.
    Failed,
    /// The node has stopped.
    Stopped,
    /// A kind that this release does not know.
    #[serde(other)]
    Other,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Fault {}

/// An answer and the version that it is of.
#[derive(Deserialize, Serialize)]
struct Line {
    v: u32,
    #[serde(flatten)]
    answer: Answer,
}

/// Why a line is no answer.
#[derive(Debug)]
#[non_exhaustive]
pub enum AnswerError {
    /// It is no answer of this release, nor of one that answers like it.
    Malformed(serde_json::Error),
    /// It is of this version.
    Version(u64),
}

impl fmt::Display for AnswerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(error) => write!(f, "the answer is not understood: {error}"),
            Self::Version(version) => {
                write!(f, "the answer is of version {version}, and {VERSION} is spoken here")
            }
        }
    }
}

impl std::error::Error for AnswerError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Malformed(error) => Some(error),
            Self::Version(_) => None,
        }
    }
}

impl Answer {
    /// The line of this answer.
    pub fn to_line(&self) -> String {
        let line = Line { v: VERSION, answer: self.clone() };
        let text = serde_json::to_string(&line).expect("reports are made of texts and numbers");
        format!("{text}\n")
    }

    /// Understands a line. Fields that this release does not know are passed over.
    pub fn from_line(line: &[u8]) -> Result<Self, AnswerError> {
        let value: Value = serde_json::from_slice(line).map_err(AnswerError::Malformed)?;
        let version = value.get("v").and_then(Value::as_u64).unwrap_or(0);
        if version != u64::from(VERSION) {
            return Err(AnswerError::Version(version));
        }
        let line: Line = serde_json::from_value(value).map_err(AnswerError::Malformed)?;
        Ok(line.answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Request> {
        vec![
            Request::Change(ChangeRequest::Add {
                id: ReplicaId::new(4),
                addresses: Vec::new(),
                keys: Vec::new(),
            }),
            Request::Change(ChangeRequest::Remove { id: ReplicaId::new(4) }),
            Request::Change(ChangeRequest::Promote { id: ReplicaId::new(4) }),
            Request::Status,
            Request::Members,
            Request::Metrics,
            Request::Watch,
            Request::Transfer { to: None },
            Request::Transfer { to: Some(ReplicaId::new(7)) },
            Request::Snapshot,
            Request::Trim { through: None },
            Request::Trim { through: Some(Slot::new(1 << 40)) },
            Request::Export { file: "/a \"b\"\n/c".to_owned() },
        ]
    }

    #[test]
    fn requests_are_read_back() {
        for request in all() {
            let line = request.to_line();
            assert_eq!(line.find('\n'), Some(line.len() - 1), "{line}");
            assert_eq!(Request::from_line(line.as_bytes()), Ok(request), "{line}");
        }
        for (verb, _) in VERBS {
            assert!(all().iter().any(|request| request.verb() == verb), "{verb}");
        }
    }

    #[test]
    fn what_is_not_understood_whole_is_refused_with_a_reason() {
        for (line, code, words) in [
            ("", FaultCode::Malformed, "not JSON"),
            ("status", FaultCode::Malformed, "one line like"),
            ("[1]", FaultCode::Malformed, "not a JSON object"),
            ("{\"verb\":\"status\"}", FaultCode::Malformed, "no version"),
            ("{\"v\":2,\"verb\":\"status\"}", FaultCode::Version, "version 1 and not 2"),
            ("{\"v\":\"1\",\"verb\":\"status\"}", FaultCode::Version, "not \"1\""),
            ("{\"v\":1}", FaultCode::Malformed, "no text `verb`"),
            ("{\"v\":1,\"verb\":7}", FaultCode::Malformed, "no text `verb`"),
            ("{\"v\":1,\"verb\":\"explode\"}", FaultCode::UnknownVerb, "status, members"),
            ("{\"v\":1,\"verb\":\"status\",\"to\":2}", FaultCode::Malformed, "unknown field `to`"),
            ("{\"v\":1,\"verb\":\"transfer\",\"too\":2}", FaultCode::Malformed, "unknown field"),
            ("{\"v\":1,\"verb\":\"change\"}", FaultCode::Malformed, "missing field `what`"),
            (
                "{\"v\":1,\"verb\":\"change\",\"what\":\"eat\"}",
                FaultCode::Malformed,
                "unknown variant",
            ),
            (
                "{\"v\":1,\"verb\":\"change\",\"what\":\"remove\",\"id\":3,\"x\":1}",
                FaultCode::Malformed,
                "unknown field",
            ),
            ("{\"v\":1,\"verb\":\"transfer\",\"to\":70000}", FaultCode::Malformed, "70000"),
            ("{\"v\":1,\"verb\":\"transfer\",\"to\":\"2\"}", FaultCode::Malformed, "transfer: "),
            (
                "{\"v\":1,\"verb\":\"trim\",\"slot\":2}",
                FaultCode::Malformed,
                "unknown field `slot`",
            ),
            ("{\"v\":1,\"verb\":\"trim\",\"through\":-2}", FaultCode::Malformed, "trim: "),
            ("{\"v\":1,\"verb\":\"export\"}", FaultCode::Malformed, "missing field `file`"),
        ] {
            let fault = Request::from_line(line.as_bytes()).expect_err(line);
            assert_eq!(fault.code, code, "{line}: {fault}");
            assert!(fault.reason.contains(words), "{line}: {fault}");
        }
        // Deep nesting is refused by the parser, not by the end of the stack.
        let deep = "[".repeat(4000);
        let fault = Request::from_line(deep.as_bytes()).expect_err("too deep");
        assert!(fault.reason.contains("recursion limit"), "{fault}");
    }

    #[test]
    fn answers_are_read_back_and_what_is_added_later_is_passed_over() {
        let report = LeadershipReport {
            replica: ReplicaId::new(1),
            leader: None,
            ballot: Some(paxos_core::ballot::Ballot::new(4, ReplicaId::new(2))),
        };
        let answer = Answer::Leadership(report);
        let line = answer.to_line();
        assert_eq!(
            line,
            "{\"v\":1,\"leadership\":{\"replica\":1,\"leader\":null,\"ballot\":\"4.2\"}}\n"
        );
        assert_eq!(Answer::from_line(line.as_bytes()).expect("read back"), answer);
        let later = line.replace("\"leader\":null", "\"leader\":null,\"mood\":\"good\"");
        assert_eq!(Answer::from_line(later.as_bytes()).expect("a later release's"), answer);
        let fault = Fault { code: FaultCode::Other, reason: "a\nb".to_owned() };
        let unknown = "{\"v\":1,\"error\":{\"code\":\"of_tomorrow\",\"reason\":\"a\\nb\"}}";
        assert_eq!(
            Answer::from_line(unknown.as_bytes()).expect("a later release's"),
            Answer::Error(fault.clone())
        );
        assert_eq!(Answer::Error(fault).to_line().matches('\n').count(), 1);
        for line in ["", "7", "{}", "{\"v\":2,\"metrics\":\"\"}", "{\"v\":1,\"dance\":{}}"] {
            assert!(Answer::from_line(line.as_bytes()).is_err(), "{line}");
        }
    }
}
