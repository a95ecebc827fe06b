//! The bulk lane's connection: dialled by the side that has something to send, closed when idle.
//!
//! Owns: its life. Each side sends on the connection that it dialled itself. A link to the same life
//! of the peer must be up, and both connections end with it.
//! Invariants: a transfer shares neither streams nor windows with the other lanes, so that it cannot
//! delay them.

use std::sync::Arc;

use paxos_core::port::Lane;
use quinn::{Connection, SendStream};
use tokio::time::timeout;

use crate::close::Close;
use crate::dial::{self, Backoff};
use crate::endpoint::Purpose;
use crate::greet;
use crate::inbox::Gate;
use crate::lanes::{take, write};
use crate::peer::Peer;
use crate::shared::Shared;
use crate::wire::{Code, Hello};

/// Takes a peer's connection for bulk, which replaces an earlier one.
pub(crate) fn welcome(
    peer: &Peer,
    hello: &Hello,
    connection: &Connection,
) -> Result<Arc<Gate>, Close> {
    match &mut *peer.link() {
        Some(link) if link.incarnation == hello.incarnation => {
            if let Some(old) = link.bulk_in.replace(connection.clone()) {
                old.close(
                    Code::Superseded.number(),
                    b"another connection took its place",
                );
            }
            Ok(Arc::clone(&link.gate))
        }
        Some(_) | None => Err(Close::ours(
            Code::NotLinked,
            "no link to this life of the peer",
        )),
    }
}

/// Sends the bulk lane of one link for as long as the link lives.
pub(crate) async fn send(shared: Arc<Shared>, peer: Arc<Peer>, life: u64) {
    let mut open: Option<(Connection, SendStream)> = None;
    let mut backoff = Backoff::new(&shared.limits);
    loop {
        let next = take(&shared, &peer, Lane::Bulk, life);
        let taken = match timeout(shared.limits.bulk_idle, next).await {
            Ok(Some(taken)) => taken,
            Ok(None) => return,
            Err(_) => {
                if let Some((connection, _)) = open.take() {
                    connection.close(Code::Idle.number(), b"nothing to send");
                }
                continue;
            }
        };
        let (connection, mut stream) = match open.take() {
            Some((connection, stream)) if connection.close_reason().is_none() => {
                (connection, stream)
            }
            _ => loop {
                match dial::connect(&shared, &peer, Purpose::Bulk).await {
                    Ok(connection) => {
                        match timeout(
                            shared.limits.handshake_timeout,
                            greet::greet_bulk(&shared, &connection),
                        )
                        .await
                        {
                            Ok(Ok(stream)) => break (connection, stream),
                            Ok(Err(close)) => {
                                tracing::debug!(peer = %peer.id, reason = %close.text, "no bulk");
                            }
                            Err(_) => tracing::debug!(peer = %peer.id, "no bulk in time"),
                        }
                    }
                    Err(close) => {
                        tracing::debug!(peer = %peer.id, reason = %close.text, "no bulk");
                    }
                }
                tokio::time::sleep(backoff.next()).await;
            },
        };
        match write(&shared, &connection, &mut stream, taken).await {
            Ok(()) => {
                backoff.reset();
                open = Some((connection, stream));
            }
            Err(close) => {
                tracing::debug!(peer = %peer.id, reason = %close.text, "bulk ended");
            }
        }
    }
}
