//! The Redis protocol, version 2: requests in, replies out.
//!
//! Owns: the bytes of one connection that are read and not yet understood ([`Parser`]), and the
//! shape of every reply ([`Reply`]). Knows no command and opens no socket.
//! Invariants: a byte is looked at once, however the network cut it; arguments are slices of the
//! receive buffer; nothing is allocated for a length that is only claimed; no input panics.
//! Source: the protocol's public description; docs/adr/0003-resp-parser.md says why it is not a
//! crate.

use std::fmt;
use std::ops::Range;

use bytes::{Buf, Bytes, BytesMut};

use crate::limits::{ARGUMENTS_MAX, INLINE_BYTES_MAX, REQUEST_BYTES_MAX};

/// Longer than the line of any length in 64 bits.
const LENGTH_LINE_MAX: usize = 32;

/// Why a connection cannot go on: what follows in the stream has no known beginning.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum ProtocolError {
    /// The number of arguments is not a number.
    MultibulkLength,
    /// The length of an argument is not a number, or negative.
    BulkLength,
    /// An argument that does not begin with `$`.
    ExpectedDollar(u8),
    /// An argument that does not end where its length said.
    ExpectedEnd,
    /// A line that is longer than it may be.
    InlineTooLong,
    /// An inline command whose quotes do not match.
    Quotes,
    /// More arguments than a request may have.
    TooManyArguments(usize),
    /// More bytes than a request may have.
    RequestTooLarge(usize),
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MultibulkLength => f.write_str("ERR Protocol error: invalid multibulk length"),
            Self::BulkLength => f.write_str("ERR Protocol error: invalid bulk length"),
            Self::ExpectedDollar(got) => {
                write!(f, "ERR Protocol error: expected '$', got '{}'", got.escape_ascii())
            }
            Self::ExpectedEnd => f.write_str(
                "ERR Protocol error: an argument does not end where its length says it does",
            ),
            Self::InlineTooLong => f.write_str("ERR Protocol error: too big inline request"),
            Self::Quotes => f.write_str("ERR Protocol error: unbalanced quotes in request"),
            Self::TooManyArguments(count) => write!(
                f,
                "TOOLARGE a request has at most {ARGUMENTS_MAX} arguments, this one has {count}; \
                 nothing of it was applied"
            ),
            Self::RequestTooLarge(bytes) => write!(
                f,
                "TOOLARGE a request has at most {REQUEST_BYTES_MAX} bytes, this one has at least \
                 {bytes}; nothing of it was applied"
            ),
        }
    }
}

/// What the next byte belongs to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Expecting {
    /// A new request.
    Request,
    /// The length of the next of `left` arguments.
    Length { left: usize },
    /// The `bytes` of the next of `left` arguments, and the line's end after them.
    Argument { left: usize, bytes: usize },
}

/// Cuts what a connection received into requests.
#[derive(Debug)]
pub(crate) struct Parser {
    buffer: BytesMut,
    /// Everything before this place in the buffer is understood.
    at: usize,
    expecting: Expecting,
    /// The arguments of the present request, as places in the buffer.
    ranges: Vec<Range<usize>>,
}

impl Parser {
    pub(crate) fn new() -> Self {
        Self { buffer: BytesMut::new(), at: 0, expecting: Expecting::Request, ranges: Vec::new() }
    }

    /// Where received bytes are put: at its end.
    pub(crate) fn buffer_mut(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The bytes received and not yet handed out as requests.
    pub(crate) fn unread(&self) -> usize {
        self.buffer.len()
    }

    /// The bytes that the buffer takes.
    pub(crate) fn capacity(&self) -> usize {
        self.buffer.capacity()
    }

    /// Gives back what a large request made the buffer grow to. Only while it is empty.
    pub(crate) fn shrink(&mut self) {
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
    }

    /// Puts the arguments of the next request, its name first, into `arguments`, or says that more
    /// bytes are needed. An empty request is skipped. After an error the connection ends.
    pub(crate) fn next(&mut self, arguments: &mut Vec<Bytes>) -> Result<bool, ProtocolError> {
        arguments.clear();
        loop {
            let complete = match self.expecting {
                Expecting::Request => match self.buffer.first() {
                    None => return Ok(false),
                    Some(b'*') => self.count()?,
                    Some(_) => {
                        if !self.inline(arguments)? {
                            return Ok(false);
                        }
                        if arguments.is_empty() {
                            continue;
                        }
                        return Ok(true);
                    }
                },
                Expecting::Length { left } => self.length(left)?,
                Expecting::Argument { left, bytes } => self.argument(left, bytes)?,
            };
            if !complete {
                return Ok(false);
            }
            if self.expecting == Expecting::Request && self.at > 0 {
                let request = self.take();
                if self.ranges.is_empty() {
                    continue;
                }
                arguments.extend(self.ranges.drain(..).map(|range| request.slice(range)));
                return Ok(true);
            }
        }
    }

    /// Cuts what is understood off the buffer.
    fn take(&mut self) -> Bytes {
        let taken = self.buffer.split_to(self.at).freeze();
        self.at = 0;
        taken
    }

    /// `*` and the number of arguments.
    fn count(&mut self) -> Result<bool, ProtocolError> {
        let Some(count) = self.length_line(ProtocolError::MultibulkLength)? else {
            return Ok(false);
        };
        let Ok(left) = usize::try_from(count) else {
            // A negative number of arguments is an empty request, as Redis has it.
            return Ok(true);
        };
        if left > ARGUMENTS_MAX {
            return Err(ProtocolError::TooManyArguments(left));
        }
        if left > 0 {
            self.expecting = Expecting::Length { left };
        }
        Ok(true)
    }

    /// `$` and the length of an argument.
    fn length(&mut self, left: usize) -> Result<bool, ProtocolError> {
        match self.buffer.get(self.at) {
            None => return Ok(false),
            Some(b'$') => {}
            Some(&other) => return Err(ProtocolError::ExpectedDollar(other)),
        }
        let Some(length) = self.length_line(ProtocolError::BulkLength)? else {
            return Ok(false);
        };
        let bytes = usize::try_from(length).map_err(|_| ProtocolError::BulkLength)?;
        let total = self.at.saturating_add(bytes).saturating_add(2);
        if total > REQUEST_BYTES_MAX {
            return Err(ProtocolError::RequestTooLarge(total));
        }
        self.expecting = Expecting::Argument { left, bytes };
        Ok(true)
    }

    fn argument(&mut self, left: usize, bytes: usize) -> Result<bool, ProtocolError> {
        let end = self.at + bytes;
        let Some(line_end) = self.buffer.get(end..end + 2) else {
            return Ok(false);
        };
        if line_end != b"\r\n" {
            return Err(ProtocolError::ExpectedEnd);
        }
        self.ranges.push(self.at..end);
        self.at = end + 2;
        self.expecting = match left - 1 {
            0 => Expecting::Request,
            left => Expecting::Length { left },
        };
        Ok(true)
    }

    /// A type byte, a decimal number and the line's end; `None` while the end is not there.
    fn length_line(&mut self, wrong: ProtocolError) -> Result<Option<i64>, ProtocolError> {
        let rest = &self.buffer[self.at + 1..];
        let seen = &rest[..rest.len().min(LENGTH_LINE_MAX)];
        let Some(digits) = seen.iter().position(|&byte| byte == b'\r') else {
            return if seen.len() == LENGTH_LINE_MAX { Err(wrong) } else { Ok(None) };
        };
        match rest.get(digits + 1) {
            None => return Ok(None),
            Some(b'\n') => {}
            Some(_) => return Err(wrong),
        }
        let number = parse_integer(&rest[..digits]).ok_or(wrong)?;
        self.at += 1 + digits + 2;
        Ok(Some(number))
    }

    /// A line of words, as a person types it into a plain connection. An empty line has none.
    fn inline(&mut self, arguments: &mut Vec<Bytes>) -> Result<bool, ProtocolError> {
        let unseen = &self.buffer[self.at..];
        let found = unseen.iter().position(|&byte| byte == b'\n');
        // Without an end, the next call goes on where this one stopped.
        self.at += found.unwrap_or(unseen.len());
        if self.at > INLINE_BYTES_MAX {
            return Err(ProtocolError::InlineTooLong);
        }
        if found.is_none() {
            return Ok(false);
        }
        let line = self.take();
        self.buffer.advance(1);
        split_words(line.strip_suffix(b"\r").unwrap_or(&line), arguments)?;
        if arguments.len() > ARGUMENTS_MAX {
            return Err(ProtocolError::TooManyArguments(arguments.len()));
        }
        Ok(true)
    }
}

/// A decimal number in the one way of writing it: no plus sign, no leading zero, no space.
pub(crate) fn parse_integer(digits: &[u8]) -> Option<i64> {
    let magnitude = digits.strip_prefix(b"-").unwrap_or(digits);
    let plain = match magnitude {
        [b'0'] => digits.len() == 1,
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    if !plain {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Splits a line at spaces. Quoted words may hold spaces; in double quotes `\n`, `\r`, `\t`, `\\`,
/// `\"` and `\xHH` stand for bytes.
fn split_words(line: &[u8], words: &mut Vec<Bytes>) -> Result<(), ProtocolError> {
    let mut rest = line.trim_ascii_start();
    while let Some(&first) = rest.first() {
        let mut word = Vec::new();
        rest = match first {
            b'"' => double_quoted(&rest[1..], &mut word)?,
            b'\'' => single_quoted(&rest[1..], &mut word)?,
            _ => {
                let end = rest.iter().position(u8::is_ascii_whitespace);
                let (plain, after) = rest.split_at(end.unwrap_or(rest.len()));
                word.extend_from_slice(plain);
                after
            }
        };
        if rest.first().is_some_and(|byte| !byte.is_ascii_whitespace()) {
            return Err(ProtocolError::Quotes);
        }
        words.push(Bytes::from(word));
        rest = rest.trim_ascii_start();
    }
    Ok(())
}

fn double_quoted<'a>(rest: &'a [u8], word: &mut Vec<u8>) -> Result<&'a [u8], ProtocolError> {
    let mut rest = rest;
    loop {
        rest = match rest {
            [b'"', after @ ..] => return Ok(after),
            [b'\\', b'x', high, low, after @ ..]
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                word.push(hex_digit(*high) << 4 | hex_digit(*low));
                after
            }
            [b'\\', escaped, after @ ..] => {
                word.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    other => *other,
                });
                after
            }
            [plain, after @ ..] => {
                word.push(*plain);
                after
            }
            [] => return Err(ProtocolError::Quotes),
        };
    }
}

fn single_quoted<'a>(rest: &'a [u8], word: &mut Vec<u8>) -> Result<&'a [u8], ProtocolError> {
    let mut rest = rest;
    loop {
        rest = match rest {
            [b'\'', after @ ..] => return Ok(after),
            [b'\\', b'\'', after @ ..] => {
                word.push(b'\'');
                after
            }
            [plain, after @ ..] => {
                word.push(*plain);
                after
            }
            [] => return Err(ProtocolError::Quotes),
        };
    }
}

/// The value of a digit that is known to be one.
fn hex_digit(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => (digit | 0x20).wrapping_sub(b'a').wrapping_add(10),
    }
}

/// One reply, or a part of one: an array is its head followed by its items.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Reply {
    /// A short text.
    Simple(&'static str),
    /// An error; its first word says which. Line ends in it are replaced.
    Error(String),
    /// A number.
    Integer(i64),
    /// Bytes.
    Bulk(Bytes),
    /// The absence of bytes.
    Nil,
    /// Several replies as one.
    Array(Vec<Reply>),
}

impl Reply {
    /// A bulk reply of a text.
    pub(crate) fn text(text: &'static str) -> Self {
        Self::Bulk(Bytes::from_static(text.as_bytes()))
    }

    /// Puts the bytes of this reply behind what is in `out`.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Simple(text) => write_line(out, b'+', text.as_bytes()),
            Self::Error(text) => {
                let start = out.len() + 1;
                write_line(out, b'-', text.as_bytes());
                let end = out.len() - 2;
                for byte in &mut out[start..end] {
                    if matches!(*byte, b'\r' | b'\n') {
                        *byte = b' ';
                    }
                }
            }
            Self::Integer(number) => write_number(out, b':', *number),
            Self::Bulk(bytes) => {
                write_bulk_head(out, bytes.len());
                out.extend_from_slice(bytes);
                out.extend_from_slice(b"\r\n");
            }
            Self::Nil => out.extend_from_slice(b"$-1\r\n"),
            Self::Array(items) => {
                write_array_head(out, items.len());
                for item in items {
                    item.write(out);
                }
            }
        }
    }
}

/// The length line of a bulk reply; the bytes and a line end follow.
pub(crate) fn write_bulk_head(out: &mut Vec<u8>, bytes: usize) {
    write_number(out, b'$', i64::try_from(bytes).expect("a length in memory fits 63 bits"));
}

/// The length line of an array; its items follow.
pub(crate) fn write_array_head(out: &mut Vec<u8>, items: usize) {
    write_number(out, b'*', i64::try_from(items).expect("a length in memory fits 63 bits"));
}

fn write_line(out: &mut Vec<u8>, kind: u8, text: &[u8]) {
    out.push(kind);
    out.extend_from_slice(text);
    out.extend_from_slice(b"\r\n");
}

fn write_number(out: &mut Vec<u8>, kind: u8, number: i64) {
    out.push(kind);
    write_decimal(out, number);
    out.extend_from_slice(b"\r\n");
}

/// The decimal digits of a number, without an allocation.
pub(crate) fn write_decimal(out: &mut Vec<u8>, number: i64) {
    // The longest is the smallest: a sign and 19 digits.
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    let mut rest = number.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(rest % 10).expect("a digit fits a byte");
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if number < 0 {
        at -= 1;
        digits[at] = b'-';
    }
    out.extend_from_slice(&digits[at..]);
}
