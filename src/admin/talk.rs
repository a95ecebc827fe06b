//! One conversation of the admin endpoint, without a socket.
//!
//! Owns: [`Talk`]: what was received and not yet understood, as lines of JSON or as a request of HTTP.
//! Invariants: what is kept is bounded, whatever comes and in whatever pieces; after the end of a
//! conversation nothing is heard any more.

use crate::admin::wire::{Fault, FaultCode, Request};

/// The longest line of a request, in bytes: far above any that there is.
pub const LINE_BYTES_MAX: usize = 4096;
/// The longest head of an HTTP request: tools send a few hundred bytes.
const HEAD_BYTES_MAX: usize = 8192;

/// What was understood of what came.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Heard {
    /// A request.
    Request(Request),
    /// No request: to be said.
    Fault(Fault),
    /// A request of HTTP: the conversation is over once it is answered.
    Http(Page),
}

/// What a request of HTTP asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Page {
    /// `GET /metrics`.
    Metrics,
    /// Anything else.
    None,
}

/// What the other end speaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Language {
    /// Nothing was heard yet.
    Unknown,
    Json,
    /// The head of a request for this page is being read; so many bytes of it were.
    Http(Page, usize),
    /// The conversation is over.
    Over,
}

/// The receiving half of a conversation.
#[derive(Debug)]
pub(crate) struct Talk {
    received: Vec<u8>,
    language: Language,
}

impl Talk {
    pub(crate) fn new() -> Self {
        Self { received: Vec::new(), language: Language::Unknown }
    }

    /// Takes what came. To be followed by [`Talk::next`] until there is nothing.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        if self.language != Language::Over {
            self.received.extend_from_slice(bytes);
        }
    }

    /// Whether nothing more will be heard.
    pub(crate) fn is_over(&self) -> bool {
        self.language == Language::Over
    }

    /// What is understood next, if anything.
    pub(crate) fn next(&mut self) -> Option<Heard> {
        while self.language != Language::Over {
            let end = self.received.iter().position(|byte| *byte == b'\n');
            if end.unwrap_or(self.received.len()) > LINE_BYTES_MAX {
                self.end();
                return Some(too_long("a line", LINE_BYTES_MAX));
            }
            let mut line: Vec<u8> = self.received.drain(..=end?).collect();
            let length = line.len();
            while matches!(line.last(), Some(b'\n' | b'\r')) {
                line.pop();
            }
            match (self.language, page(&line)) {
                (Language::Unknown, Some(page)) => self.language = Language::Http(page, length),
                (Language::Unknown | Language::Json, _) => {
                    self.language = Language::Json;
                    let understood = Request::from_line(&line);
                    return Some(understood.map_or_else(Heard::Fault, Heard::Request));
                }
                (Language::Http(page, _), _) if line.is_empty() => {
                    self.end();
                    return Some(Heard::Http(page));
                }
                (Language::Http(_, before), _) if before + length > HEAD_BYTES_MAX => {
                    self.end();
                    return Some(too_long("the head of a request", HEAD_BYTES_MAX));
                }
                (Language::Http(page, before), _) => {
                    self.language = Language::Http(page, before + length);
                }
                (Language::Over, _) => unreachable!("the loop ends with the conversation"),
            }
        }
        None
    }

    fn end(&mut self) {
        self.language = Language::Over;
        self.received = Vec::new();
    }
}

fn too_long(what: &str, bytes_max: usize) -> Heard {
    let reason = format!("{what} has up to {bytes_max} bytes");
    Heard::Fault(Fault { code: FaultCode::TooLong, reason })
}

/// What the first line of an HTTP request asks for; `None` if it is no such line.
fn page(line: &[u8]) -> Option<Page> {
    let mut words = str::from_utf8(line).ok()?.split(' ');
    let (method, target, protocol) = (words.next()?, words.next()?, words.next()?);
    if !protocol.starts_with("HTTP/1.") || words.next().is_some() {
        return None;
    }
    let path = target.split('?').next();
    let asked = method == "GET" && path == Some("/metrics");
    Some(if asked { Page::Metrics } else { Page::None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(talk: &mut Talk) -> Vec<Heard> {
        core::iter::from_fn(|| talk.next()).collect()
    }

    fn code(heard: &[Heard]) -> Option<FaultCode> {
        match heard {
            [Heard::Fault(fault)] => Some(fault.code),
            _ => None,
        }
    }

    #[test]
    fn lines_are_understood_in_whatever_pieces_they_come() {
        let text = "{\"v\":1,\"verb\":\"status\"}\r\nnonsense\n{\"v\":1,\"verb\":\"members\"}\n";
        for size in 1..text.len() {
            let mut talk = Talk::new();
            let mut heard = Vec::new();
            for piece in text.as_bytes().chunks(size) {
                talk.feed(piece);
                heard.extend(all(&mut talk));
            }
            assert_eq!(heard.len(), 3, "pieces of {size}");
            assert_eq!(heard[0], Heard::Request(Request::Status));
            assert_eq!(code(&heard[1..2]), Some(FaultCode::Malformed));
            assert_eq!(heard[2], Heard::Request(Request::Members));
            assert!(!talk.is_over());
        }
    }

    #[test]
    fn a_line_beyond_the_bound_ends_the_conversation_whether_it_ends_or_not() {
        let long = vec![b'x'; LINE_BYTES_MAX];
        let mut talk = Talk::new();
        talk.feed(&long);
        assert_eq!(all(&mut talk), []);
        talk.feed(b"x");
        assert_eq!(code(&all(&mut talk)), Some(FaultCode::TooLong));
        assert!(talk.is_over() && talk.received.is_empty());
        talk.feed(b"{\"v\":1,\"verb\":\"status\"}\n");
        assert_eq!(all(&mut talk), []);

        let mut talk = Talk::new();
        talk.feed(&[&long[..], b"x\n"].concat());
        assert_eq!(code(&all(&mut talk)), Some(FaultCode::TooLong));
        let mut talk = Talk::new();
        talk.feed(&[&long[..], b"\n"].concat());
        assert_eq!(code(&all(&mut talk)), Some(FaultCode::Malformed));
    }

    #[test]
    fn http_is_heard_as_far_as_metrics_go() {
        for (first, page) in [
            ("GET /metrics HTTP/1.1", Page::Metrics),
            ("GET /metrics?a=b HTTP/1.0", Page::Metrics),
            ("GET / HTTP/1.1", Page::None),
            ("POST /metrics HTTP/1.1", Page::None),
        ] {
            let mut talk = Talk::new();
            talk.feed(format!("{first}\r\nHost: x\r\n").as_bytes());
            assert_eq!(all(&mut talk), []);
            talk.feed(b"\r\nmore");
            assert_eq!(all(&mut talk), [Heard::Http(page)]);
            assert!(talk.is_over());
        }
        let mut talk = Talk::new();
        talk.feed(b"GET /metrics HTTP/1.1\r\n");
        for _ in 0..HEAD_BYTES_MAX / 64 {
            talk.feed(&[[b'x'; 62].as_slice(), b"\r\n"].concat());
        }
        assert_eq!(code(&all(&mut talk)), Some(FaultCode::TooLong));
        // Only at the beginning: a line of JSON is not followed by another language.
        let mut talk = Talk::new();
        talk.feed(b"{\"v\":1,\"verb\":\"status\"}\nGET /metrics HTTP/1.1\n");
        assert_eq!(code(&all(&mut talk)[1..]), Some(FaultCode::Malformed));
    }
}
