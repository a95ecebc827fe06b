//! The handshake and the frames of the QUIC transport: `wire` and `frames` of paxos-transport-quic.
//!
//! The first byte says which: a stream's first bytes (prelude, then Hello or its answer), or a
//! stream of frames, cut into pieces as the bytes say. However a stream is cut, the same frames come
//! out of it, and they are those that a straightforward reading of the whole finds.

use paxos_core::port::Channel;
use quinn::VarInt;

use super::input::Input;
use crate::frames::Assembler;
use crate::wire::{self, Code, Greeting, HEADER_LEN, Hello, PRELUDE_LEN, WireError};

type Frames = Vec<(Channel, Vec<u8>)>;

pub(super) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() % 4 {
        0 => handshake(input.rest(), Greeting::Hello),
        1 => handshake(input.rest(), Greeting::Ack),
        2 => stream(&mut input),
        _ => close(input.rest()),
    }
}

/// As the transport reads a new connection's first stream.
fn handshake(data: &[u8], greeting: Greeting) {
    let Some((first, rest)) = data.split_first_chunk::<PRELUDE_LEN>() else {
        return;
    };
    let Ok(lane) = wire::parse_prelude(*first) else {
        return;
    };
    assert_eq!(wire::prelude(lane), *first, "a lane has one prelude");
    let Some((header, rest)) = rest.split_first_chunk::<HEADER_LEN>() else {
        return;
    };
    let Ok(len) = Hello::body_len(*header, greeting) else {
        return;
    };
    assert!(len <= wire::HELLO_BYTES_MAX, "room is made for a Hello of bounded length only");
    let other = match greeting {
        Greeting::Hello => Greeting::Ack,
        Greeting::Ack => Greeting::Hello,
    };
    assert_eq!(Hello::body_len(*header, other), Err(WireError::Hello), "they are told apart");
    let Some(body) = rest.get(..len) else {
        return;
    };
    let hello = Hello::decode(body).expect("a body of an accepted length is read");
    let encoded = hello.encode(greeting);
    let again = Hello::decode(&encoded[HEADER_LEN..]);
    assert_eq!(again, Ok(hello), "what is read is written and read again");
    // Of the last eight bytes, two say no more than the first where they are equal, and the others are kept for
    // later versions, and not read.
    let fields = encoded.len() - HEADER_LEN - 8;
    assert_eq!(encoded[HEADER_LEN..][..fields], body[..fields], "in the same bytes");
}

fn stream(input: &mut Input<'_>) {
    let frame_max = u32::from(input.u16());
    let step = 1 + input.below(64);
    let data = input.rest();
    let expected = reading(data, frame_max);
    let whole = assembled([data], frame_max);
    assert_eq!(whole, expected, "in one piece");
    let pieces = data.chunks(step);
    assert_eq!(assembled(pieces, frame_max), expected, "in pieces of {step}");
    let (front, back) = data.split_at(step.min(data.len()));
    assert_eq!(assembled([front, back], frame_max), expected, "cut at {step}");
}

fn assembled<'a>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
    frame_max: u32,
) -> (Frames, Option<WireError>) {
    let mut assembler = Assembler::new(frame_max);
    let mut frames = Frames::new();
    for piece in pieces {
        let fed = assembler.feed(piece);
        frames.extend(assembler.take().into_iter().map(|(channel, bytes)| (channel, bytes.into())));
        if let Err(error) = fed {
            return (frames, Some(error));
        }
    }
    (frames, None)
}

/// The whole frames at the front of a stream, and what is wrong after them.
fn reading(mut rest: &[u8], frame_max: u32) -> (Frames, Option<WireError>) {
    let mut frames = Frames::new();
    while let Some((header, after)) = rest.split_first_chunk::<HEADER_LEN>() {
        let header = match wire::parse_header(*header, frame_max) {
            Ok(header) => header,
            Err(error) => return (frames, Some(error)),
        };
        assert!(header.len <= frame_max, "no longer frame is begun");
        let Some((body, after)) = after.split_at_checked(header.len as usize) else {
            break;
        };
        if let Some(channel) = header.channel {
            let again = wire::parse_header(wire::header(header.len, channel), frame_max);
            assert_eq!(again, Ok(header), "a header that is written is read");
            frames.push((channel, body.to_vec()));
        }
        rest = after;
    }
    (frames, None)
}

/// The number that a peer closes a connection with.
fn close(data: &[u8]) {
    let Some(bytes) = data.first_chunk::<4>() else {
        return;
    };
    let number = VarInt::from_u32(u32::from_le_bytes(*bytes));
    if let Some(code) = Code::parse(number) {
        assert_eq!(code.number(), number, "a code has one number");
        // Asked of every code that a peer sends.
        let _is_for_people = code.is_refusal();
    }
}
