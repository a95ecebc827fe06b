//! The Redis protocol of the example kv: examples/kv/resp.rs.
//!
//! However the network cuts a stream, the same requests come out of it and the same error ends it;
//! a request written in full is read back; no buffer grows beyond what was received.

use bytes::Bytes;

use super::input::Input;
use crate::limits::{ARGUMENTS_MAX, REQUEST_BYTES_MAX};
use crate::resp::{Parser, ProtocolError, Reply, write_array_head};

type Requests = Vec<Vec<Bytes>>;

pub(super) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let step = 1 + input.below(64);
    let data = input.rest();
    let whole = requests([data]);
    assert_eq!(requests(data.chunks(step)), whole, "in pieces of {step}");
    let (found, ended) = whole;
    for request in &found {
        let (again, unread) = requests([&written(request)[..]]);
        assert_eq!(again, std::slice::from_ref(request), "a request that is written is read");
        assert_eq!(unread, Ok(0), "to its end");
    }
    if let Err(error) = ended {
        one_line(&Reply::Error(error.to_string()));
    }
    one_line(&Reply::Error(String::from_utf8_lossy(data).into_owned()));
}

fn requests<'a>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Requests, Result<usize, ProtocolError>) {
    let mut parser = Parser::new();
    let (mut requests, mut arguments) = (Requests::new(), Vec::new());
    let mut received = 0;
    for piece in pieces {
        parser.buffer_mut().extend_from_slice(piece);
        received += piece.len();
        loop {
            match parser.next(&mut arguments) {
                Ok(false) => break,
                Ok(true) => {
                    assert!((1..=ARGUMENTS_MAX).contains(&arguments.len()), "and never none");
                    let bytes: usize = arguments.iter().map(Bytes::len).sum();
                    assert!(bytes <= received.min(REQUEST_BYTES_MAX), "no byte comes twice");
                    requests.push(arguments.clone());
                }
                Err(error) => return (requests, Err(error)),
            }
        }
        assert!(parser.unread() <= received, "it holds what it received");
        assert!(parser.capacity() <= 2 * received + 64, "and makes no room for what is claimed");
    }
    (requests, Ok(parser.unread()))
}

/// The request as clients send it.
fn written(request: &[Bytes]) -> Vec<u8> {
    let mut out = Vec::new();
    write_array_head(&mut out, request.len());
    for argument in request {
        Reply::Bulk(argument.clone()).write(&mut out);
    }
    out
}

/// A reply's text cannot begin another reply.
fn one_line(reply: &Reply) {
    let mut out = Vec::new();
    reply.write(&mut out);
    let text = out.strip_suffix(b"\r\n").expect("a reply ends with its line");
    assert!(!text.contains(&b'\r') && !text.contains(&b'\n'), "an error is one line");
}
