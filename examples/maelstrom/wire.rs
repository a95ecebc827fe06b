//! Lines of JSON, and what they mean.
//!
//! Owns: the mapping between lines and [`Incoming`] or [`Answer`]. Knows no replica and no store.
//! Invariants: parsing never panics; a request that cannot be understood is refused under the code
//! that says so; a message of the core is carried as it is, its bytes in hexadecimal digits.
//! Source: Maelstrom's protocol document: envelope, `msg_id` and `in_reply_to`, codes of errors.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What is asked of one key. It is also what a command carries through the log, as JSON.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(crate) enum Ask {
    /// What does it hold?
    Read { key: Value },
    /// Let it hold this.
    Write { key: Value, value: Value },
    /// Let it hold `to` if it holds `from`.
    Cas { key: Value, from: Value, to: Value },
}

/// The codes of errors in use. Those from 10 on say that the request was certainly not carried out;
/// but for [`Code::Crash`], which like [`Code::Timeout`] leaves that open.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Code {
    Timeout = 0,
    NotSupported = 10,
    Unavailable = 11,
    Malformed = 12,
    Crash = 13,
    NoSuchKey = 20,
    Mismatch = 22,
}

/// An answer to a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Answer {
    Init,
    Read(Value),
    Written,
    Swapped,
    Error(Code, String),
}

impl Answer {
    pub(crate) fn error(code: Code, text: &str) -> Self {
        Self::Error(code, text.to_owned())
    }

    /// The body that tells it to whoever sent the request `in_reply_to`.
    pub(crate) fn body(&self, in_reply_to: u64) -> Value {
        match self {
            Self::Init => json!({"type": "init_ok", "in_reply_to": in_reply_to}),
            Self::Read(value) => {
                json!({"type": "read_ok", "in_reply_to": in_reply_to, "value": value})
            }
            Self::Written => json!({"type": "write_ok", "in_reply_to": in_reply_to}),
            Self::Swapped => json!({"type": "cas_ok", "in_reply_to": in_reply_to}),
            Self::Error(code, text) => json!({
                "type": "error", "in_reply_to": in_reply_to, "code": *code as u16, "text": text,
            }),
        }
    }
}

/// What a message says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Body {
    Init {
        node_id: String,
        node_ids: Vec<String>,
    },
    /// A request of a client.
    Ask(Ask),
    /// A request of a peer's client.
    Forward(Ask),
    /// An encoded message of the core.
    Paxos(Vec<u8>),
    /// The whole body of an answer.
    Reply {
        in_reply_to: u64,
        body: Value,
    },
}

/// A message, with a body that may be a mistake.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Incoming {
    pub(crate) src: String,
    pub(crate) dest: String,
    /// Where it is missing, no answer is wanted.
    pub(crate) msg_id: Option<u64>,
    pub(crate) body: Result<Body, Answer>,
}

impl Incoming {
    /// Reads a line. The error is for people: there is nobody to answer.
    pub(crate) fn parse(line: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Envelope {
            src: String,
            dest: String,
            body: serde_json::Map<String, Value>,
        }
        let Envelope { src, dest, body } =
            serde_json::from_slice(line).map_err(|error| error.to_string())?;
        let msg_id = body.get("msg_id").and_then(Value::as_u64);
        Ok(Self { src, dest, msg_id, body: parse_body(Value::Object(body)) })
    }
}

fn parse_body(body: Value) -> Result<Body, Answer> {
    if let Some(in_reply_to) = body.get("in_reply_to").and_then(Value::as_u64) {
        return Ok(Body::Reply { in_reply_to, body });
    }
    let malformed = |why: &str| Answer::error(Code::Malformed, why);
    let ask = |body| serde_json::from_value(body).map_err(|error| malformed(&error.to_string()));
    match body.get("type").and_then(Value::as_str) {
        Some("init") => {
            #[derive(Deserialize)]
            struct Init {
                node_id: String,
                node_ids: Vec<String>,
            }
            let init = serde_json::from_value(body);
            let Init { node_id, node_ids } = init.map_err(|error| malformed(&error.to_string()))?;
            Ok(Body::Init { node_id, node_ids })
        }
        Some("read" | "write" | "cas") => ask(body).map(Body::Ask),
        Some("forward") => ask(body["ask"].clone()).map(Body::Forward),
        Some("paxos") => {
            let bytes = body["bytes"].as_str().and_then(from_hex);
            bytes.map(Body::Paxos).ok_or_else(|| malformed("bytes are hexadecimal"))
        }
        Some(other) => {
            Err(Answer::error(Code::NotSupported, &format!("no request has the type {other:?}")))
        }
        None => Err(malformed("a body has a type")),
    }
}

/// The body that carries a client's request to the leader.
pub(crate) fn forward(ask: &Ask, msg_id: u64) -> Value {
    json!({"type": "forward", "msg_id": msg_id, "ask": ask})
}

/// The body that carries an encoded message of the core.
pub(crate) fn paxos<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Value {
    let bytes = chunks.into_iter().flatten();
    let digits = bytes.flat_map(|byte| [byte >> 4, byte & 15]);
    let text: String = digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect();
    json!({"type": "paxos", "bytes": text})
}

/// A message as it is written, with the end of its line.
pub(crate) fn line(src: &str, dest: &str, body: &Value) -> String {
    format!("{}\n", json!({"src": src, "dest": dest, "body": body}))
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let bytes = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?));
    if rest.is_empty() { bytes.collect() } else { None }
}
