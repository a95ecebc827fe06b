//! Why connections end, in words.
//!
//! Owns: the reading of quinn's errors. The text of the other side is shortened and cleaned, for it
//! goes to people and logs.

use core::fmt::Write as _;

use quinn::ConnectionError;

use crate::wire::Code;

/// RFC 8446 §6: what a refused certificate and a lack of common protocols are answered with.
const ALERT_CERTIFICATE_UNKNOWN: u64 = 46;
const ALERT_NO_APPLICATION_PROTOCOL: u64 = 120;
const NO_COMMON_PROTOCOL: &str = "no common version of the protocol, or the port is one for clients \
                                  where a replica dials, or the reverse";
/// RFC 9000 §20.1: a TLS alert is carried as this plus the alert.
const CRYPTO_ERRORS: std::ops::Range<u64> = 0x100..0x200;
/// How much is repeated of what the other side says.
const TEXT_CHARS_MAX: usize = 200;

/// How a connection, or the attempt to make one, ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Close {
    /// The code that was given, if it is one of ours.
    pub(crate) code: Option<Code>,
    /// Whether the other side ended it.
    pub(crate) by_peer: bool,
    /// Why, for people.
    pub(crate) text: String,
}

impl Close {
    /// This side ends it.
    pub(crate) fn ours(code: Code, text: impl Into<String>) -> Self {
        Self { code: Some(code), by_peer: false, text: text.into() }
    }

    pub(crate) fn lost(text: impl Into<String>) -> Self {
        Self { code: None, by_peer: false, text: text.into() }
    }

    pub(crate) fn is_refusal(&self) -> bool {
        self.code.is_some_and(Code::is_refusal)
    }
}

impl From<ConnectionError> for Close {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::ApplicationClosed(close) => Self {
                code: Code::parse(close.error_code),
                by_peer: true,
                text: clean(&close.reason),
            },
            ConnectionError::ConnectionClosed(close) => {
                let (code, text) = crypto(close.error_code.into(), clean(&close.reason));
                Self { code, by_peer: true, text }
            }
            ConnectionError::TransportError(error) => {
                let (code, text) = crypto(error.code.into(), clean(error.reason.as_bytes()));
                Self { code, by_peer: false, text }
            }
            ConnectionError::VersionMismatch => Self {
                code: Some(Code::Version),
                by_peer: true,
                text: "no common version of QUIC".into(),
            },
            ConnectionError::TimedOut => Self::lost("nothing heard for too long"),
            ConnectionError::Reset => Self::lost("the peer forgot the connection"),
            ConnectionError::LocallyClosed => Self::lost("closed by this side"),
            ConnectionError::CidsExhausted => Self::lost("no connection id is left"),
        }
    }
}

fn crypto(code: u64, text: String) -> (Option<Code>, String) {
    let Some(alert) = CRYPTO_ERRORS.contains(&code).then(|| code - CRYPTO_ERRORS.start) else {
        return (None, text);
    };
    match alert {
        ALERT_CERTIFICATE_UNKNOWN => (Some(Code::Key), pin_text(&text)),
        ALERT_NO_APPLICATION_PROTOCOL => (Some(Code::Version), NO_COMMON_PROTOCOL.into()),
        _ => (Some(Code::Key), format!("TLS failed: {text}")),
    }
}

/// The verifier's own words, which rustls wraps into its own.
fn pin_text(text: &str) -> String {
    match text.split_once("PinRefused(\"") {
        Some((_, rest)) => rest.trim_end_matches(['"', ')']).to_owned(),
        None => "its key is not pinned for any member".into(),
    }
}

fn clean(bytes: &[u8]) -> String {
    let mut text = String::new();
    for char in String::from_utf8_lossy(bytes).chars().take(TEXT_CHARS_MAX) {
        if char.is_control() {
            write!(text, "{}", char.escape_default()).expect("a string takes every text");
        } else {
            text.push(char);
        }
    }
    text
}
