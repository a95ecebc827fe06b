//! Clients that are not replicas: programs that reach a cluster's nodes over a link of their own.
//!
//! Owns: the bytes of such links ([`wire`]), both ends of one as state machines without a network
//! ([`desk`], [`calls`], [`session`]), and the tasks that drive them ([`serve`], [`hall`], [`keeper`]). Knows links as
//! [`paxos_core::port::ClientLink`] alone, and the node as its own clients know it: a remote client
//! can ask for what a client in the node's process can ask for, and for nothing else.
//! The rules, with ids, stand in docs/format-client.md.

pub(crate) mod call;
pub(crate) mod calls;
pub(crate) mod client;
pub(crate) mod desk;
pub(crate) mod hall;
pub(crate) mod keeper;
pub(crate) mod seats;
pub(crate) mod serve;
pub(crate) mod session;
pub(crate) mod wire;

#[cfg(test)]
mod tests;

use core::task::{Context, Poll};
use std::io;

use bytes::{Buf as _, BytesMut};
use paxos_core::port::ClientLink;

/// How much is read at once.
const READ_BYTES: usize = 16 * 1024;

/// What a link did.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Moved {
    /// So many bytes stand in the buffer; zero at the link's end.
    Read(usize),
    /// Some were sent.
    Wrote,
}

/// Sends what is to go, and reads where a buffer is given.
fn poll_link(
    link: &mut dyn ClientLink,
    cx: &mut Context<'_>,
    out: &mut BytesMut,
    into: Option<&mut [u8]>,
) -> Poll<io::Result<Moved>> {
    if !out.is_empty()
        && let Poll::Ready(wrote) = link.poll_write(cx, out)
    {
        return Poll::Ready(wrote.map(|bytes| {
            out.advance(bytes);
            Moved::Wrote
        }));
    }
    match into {
        Some(buffer) => link.poll_read(cx, buffer).map_ok(Moved::Read),
        None => Poll::Pending,
    }
}
