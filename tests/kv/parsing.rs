//! The parser of the Redis protocol: however the network cuts it, whatever the bytes are.

use bytes::Bytes;

use crate::limits::{ARGUMENTS_MAX, INLINE_BYTES_MAX, REQUEST_BYTES_MAX};
use crate::resp::{Parser, ProtocolError, Reply, parse_integer};

type Requests = Vec<Vec<Bytes>>;

/// Feeds pieces and collects what comes out until they end or break the protocol.
fn requests<'a>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Requests, Result<usize, ProtocolError>) {
    let mut parser = Parser::new();
    let mut requests = Vec::new();
    let mut arguments = Vec::new();
    for piece in pieces {
        parser.buffer_mut().extend_from_slice(piece);
        loop {
            match parser.next(&mut arguments) {
                Ok(true) => requests.push(arguments.clone()),
                Ok(false) => break,
                Err(error) => return (requests, Err(error)),
            }
        }
    }
    (requests, Ok(parser.unread()))
}

fn encode(request: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", request.len()).into_bytes();
    for argument in request {
        bytes.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        bytes.extend_from_slice(argument);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

fn words(words: &[&[u8]]) -> Vec<Bytes> {
    words.iter().map(|word| Bytes::copy_from_slice(word)).collect()
}

fn error_of(bytes: &[u8]) -> ProtocolError {
    let (whole, result) = requests([bytes]);
    let by_byte = requests(bytes.chunks(1));
    assert_eq!((whole, result.clone()), by_byte, "cutting changes nothing");
    result.expect_err("this breaks the protocol")
}

#[test]
fn a_pipeline_is_the_same_cut_at_every_byte() {
    let mut stream = encode(&[b"SET", b"k\r\n$3\r\n", b"\0\xff*1\r\n"]);
    stream.extend_from_slice(b"*0\r\n*-1\r\n\r\n");
    stream.extend_from_slice(b"  set 'a b' \"\\x41\\n\\\"\"  \r\n");
    stream.extend_from_slice(&encode(&[b"GET", b""]));
    stream.extend_from_slice(b"PING\n");
    stream.extend_from_slice(&encode(&[b"DEL", &[b'x'; 300]]));
    let expected = vec![
        words(&[b"SET", b"k\r\n$3\r\n", b"\0\xff*1\r\n"]),
        words(&[b"set", b"a b", b"A\n\""]),
        words(&[b"GET", b""]),
        words(&[b"PING"]),
        words(&[b"DEL", &[b'x'; 300]]),
    ];
    for at in 0..=stream.len() {
        let (before, after) = stream.split_at(at);
        assert_eq!(requests([before, after]), (expected.clone(), Ok(0)), "cut at {at}");
    }
    assert_eq!(requests(stream.chunks(1)), (expected, Ok(0)));
}

#[test]
fn an_unfinished_request_waits_and_nothing_else() {
    let stream = encode(&[b"SET", b"key", b"value"]);
    for length in 0..stream.len() {
        let (found, result) = requests([&stream[..length]]);
        assert_eq!((found, result), (vec![], Ok(length)));
    }
}

#[test]
fn breaches_are_named() {
    use ProtocolError::{
        BulkLength, ExpectedDollar, ExpectedEnd, InlineTooLong, MultibulkLength, Quotes,
        RequestTooLarge, TooManyArguments,
    };
    assert_eq!(error_of(b"*x\r\n"), MultibulkLength);
    assert_eq!(error_of(b"*1\rx"), MultibulkLength);
    assert_eq!(error_of(b"*99999999999999999999\r\n"), MultibulkLength);
    assert_eq!(error_of(&[b"*".as_slice(), &[b'1'; 40]].concat()), MultibulkLength);
    assert_eq!(error_of(b"*1\r\n$-1\r\n"), BulkLength);
    assert_eq!(error_of(b"*1\r\n$+1\r\n"), BulkLength);
    assert_eq!(error_of(b"*1\r\n:1\r\n"), ExpectedDollar(b':'));
    assert_eq!(error_of(b"*1\r\n*1\r\n"), ExpectedDollar(b'*'));
    assert_eq!(error_of(b"*1\r\n$1\r\nabc"), ExpectedEnd);
    assert_eq!(error_of(b"get \"a\r\n"), Quotes);
    assert_eq!(error_of(b"get \"a\"b\r\n"), Quotes);
    assert_eq!(error_of(b"get 'a\\'\r\n"), Quotes);
    let over = ARGUMENTS_MAX + 1;
    assert_eq!(error_of(format!("*{over}\r\n").as_bytes()), TooManyArguments(over));
    assert_eq!(error_of(&[b"x ".repeat(over), b"\r\n".to_vec()].concat()), TooManyArguments(over));
    let line = vec![b'x'; INLINE_BYTES_MAX + 1];
    assert_eq!(requests([&line[..]]).1, Err(InlineTooLong));
    let head = format!("*2\r\n$3\r\nGET\r\n${REQUEST_BYTES_MAX}\r\n");
    assert_eq!(error_of(head.as_bytes()), RequestTooLarge(head.len() + REQUEST_BYTES_MAX + 2));
    let head = format!("*2\r\n$3\r\nGET\r\n${}\r\n", i64::MAX);
    assert!(matches!(error_of(head.as_bytes()), RequestTooLarge(_)));
}

#[test]
fn requests_up_to_the_bounds_pass() {
    let most: Vec<&[u8]> = vec![b"x"; ARGUMENTS_MAX];
    assert_eq!(requests([&encode(&most)[..]]), (vec![words(&most)], Ok(0)));
    let head = "*1\r\n$1048560\r\n".len();
    let largest = vec![b'v'; REQUEST_BYTES_MAX - head - 2];
    let stream = encode(&[&largest]);
    assert_eq!(stream.len(), REQUEST_BYTES_MAX);
    let cut = requests(stream.chunks(1460));
    assert_eq!(cut, (vec![words(&[&largest])], Ok(0)));
}

#[test]
fn a_length_that_is_only_claimed_allocates_nothing() {
    let mut parser = Parser::new();
    let mut arguments = Vec::new();
    parser.buffer_mut().extend_from_slice(b"*1024\r\n$1000000\r\nabc");
    assert_eq!(parser.next(&mut arguments), Ok(false));
    assert!(parser.capacity() < 1024, "{}", parser.capacity());
    assert!(arguments.capacity() < 16);
}

#[test]
fn arguments_are_slices_of_what_was_received() {
    let mut parser = Parser::new();
    let mut arguments = Vec::new();
    let stream = encode(&[b"SET", b"key", &[b'v'; 100]]);
    parser.buffer_mut().extend_from_slice(&stream);
    let range = parser.buffer_mut().as_ptr_range();
    assert_eq!(parser.next(&mut arguments), Ok(true));
    for argument in &arguments {
        assert!(range.contains(&argument.as_ptr()));
    }
}

/// A small generator, so that a failure can be run again.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

#[test]
fn no_bytes_panic_and_cutting_never_changes_the_result() {
    let alphabet = b"*$0123456789\r\n\r\n\r\n-ab \"'\\x\0\xff";
    let mut accepted = 0;
    let mut refused = 0;
    for seed in 0..20_000_u64 {
        let state = &mut seed.clone();
        let mut stream = Vec::new();
        while stream.len() < 60 {
            match random(state) % 4 {
                0 => stream.extend_from_slice(b"*1\r\n$2\r\nab\r\n"),
                1 => stream.extend_from_slice(b"*2\r\n$1\r\n"),
                _ => {}
            }
            for _ in 0..random(state) % 8 {
                stream.push(alphabet[random(state) as usize % alphabet.len()]);
            }
        }
        let whole = requests([&stream[..]]);
        let at = random(state) as usize % stream.len();
        let (before, after) = stream.split_at(at);
        assert_eq!(whole, requests([before, after]), "seed {seed}, cut at {at}");
        assert_eq!(whole, requests(stream.chunks(1)), "seed {seed}");
        accepted += whole.0.len();
        refused += usize::from(whole.1.is_err());
    }
    assert!(accepted > 1000 && refused > 1000, "{accepted} {refused}");
}

#[test]
fn deep_nesting_is_refused_where_it_begins() {
    let stream = b"*1\r\n".repeat(250_000);
    assert_eq!(requests([&stream[..]]).1, Err(ProtocolError::ExpectedDollar(b'*')));
}

#[test]
fn empty_requests_without_end_take_no_stack() {
    let stream = b"*0\r\n\r\n*-5\r\n".repeat(100_000);
    assert_eq!(requests([&stream[..]]), (vec![], Ok(0)));
}

#[test]
fn integers_have_one_form() {
    let good: [(&[u8], i64); 5] = [
        (b"0", 0),
        (b"-1", -1),
        (b"10", 10),
        (b"9223372036854775807", i64::MAX),
        (b"-9223372036854775808", i64::MIN),
    ];
    for (text, number) in good {
        assert_eq!(parse_integer(text), Some(number));
        let mut written = Vec::new();
        crate::resp::write_decimal(&mut written, number);
        assert_eq!(written, text);
    }
    let bad: [&[u8]; 10] =
        [b"", b"-", b"+1", b"01", b"-0", b" 1", b"1 ", b"1a", b"9223372036854775808", b"\xff"];
    for text in bad {
        assert_eq!(parse_integer(text), None, "{}", text.escape_ascii());
    }
}

#[test]
fn replies_have_the_bytes_of_the_protocol() {
    let reply = Reply::Array(vec![
        Reply::Simple("OK"),
        Reply::Error("ERR two\r\nlines".into()),
        Reply::Integer(-42),
        Reply::Bulk(Bytes::from_static(b"a\r\nb")),
        Reply::Nil,
        Reply::Array(vec![]),
    ]);
    let mut out = Vec::new();
    reply.write(&mut out);
    let expected: &[u8] = b"*6\r\n+OK\r\n-ERR two  lines\r\n:-42\r\n$4\r\na\r\nb\r\n$-1\r\n*0\r\n";
    assert_eq!(out, expected);
}
