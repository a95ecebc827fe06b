//! Frames between a node and clients that are not replicas: src/remote/wire.rs.
//!
//! The bytes are a stream, cut as the first of them say. However it is cut, the same frames come out
//! of it; what decodes must encode to bytes that decode to the same, and to the same bytes where it is no
//! greeting, of which a later version may say more.

use bytes::{Bytes, BytesMut};

use super::input::Input;
use crate::client_wire::{self, Assembler, Breach, Frame, LENGTH_BYTES};

type Bodies = (Vec<Bytes>, Option<Breach>);

pub(super) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let frame_max = usize::from(input.u16());
    let step = 1 + input.below(64);
    let stream = input.rest();
    let expected = reading(stream, frame_max);
    assert_eq!(assembled([stream], frame_max), expected, "in one piece");
    assert_eq!(assembled(stream.chunks(step), frame_max), expected, "in pieces of {step}");
    for body in expected.0 {
        let Ok(frame) = client_wire::decode(body.clone()) else {
            continue;
        };
        let mut again = BytesMut::new();
        client_wire::encode(&mut again, &frame);
        let encoded = again.freeze().slice(LENGTH_BYTES..);
        assert_eq!(client_wire::decode(encoded.clone()).as_ref(), Ok(&frame), "written and read");
        let shorter = client_wire::decode(encoded.slice(..encoded.len() - 1));
        assert_ne!(shorter.as_ref(), Ok(&frame), "no byte is for nothing");
        let longer = client_wire::decode(Bytes::from([&encoded[..], &[0]].concat()));
        if matches!(frame, Frame::Hello(_) | Frame::Welcome(_)) {
            assert_eq!(longer, Ok(frame), "a later version may add to a greeting");
        } else {
            assert_eq!(encoded, body, "in the same bytes");
            assert_ne!(longer.as_ref(), Ok(&frame), "no other bytes mean the same");
        }
    }
}

fn assembled<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, frame_max: usize) -> Bodies {
    let mut assembler = Assembler::new(frame_max);
    let mut bodies = Vec::new();
    for mut piece in pieces {
        loop {
            match assembler.next(&mut piece) {
                Ok(Some(body)) => bodies.push(body),
                Ok(None) => break,
                Err(breach) => return (bodies, Some(breach)),
            }
        }
    }
    (bodies, None)
}

/// The whole bodies at the front of a stream, and what is wrong after them.
fn reading(mut rest: &[u8], bytes_max: usize) -> Bodies {
    let mut bodies = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk::<LENGTH_BYTES>() {
        let bytes = u32::from_le_bytes(*length) as usize;
        if bytes > bytes_max {
            return (bodies, Some(Breach::TooLarge { bytes, bytes_max }));
        }
        let Some((body, after)) = after.split_at_checked(bytes) else {
            break;
        };
        bodies.push(Bytes::copy_from_slice(body));
        rest = after;
    }
    (bodies, None)
}
