//! Hello and its answer: how a connection becomes a link.
//!
//! Owns: both sides of the handshake on the application level, and what runs on a link afterwards.
//! Invariants:
//! 1. A link is up only after both sides said who they are and agreed. Completion of the TLS
//!    handshake proves nothing to the dialling side: the other judges its key later.
//! 2. Where both sides dial at once, the side with the greater id lets its own connection come up
//!    first, so that as a rule no link is ever replaced by another of the same life.
//! 3. The whole of it takes a bounded time, whatever the other side does.

use std::sync::Arc;

use paxos_core::ids::ReplicaId;
use paxos_core::membership::KeyPin;
use paxos_core::port::Lane;
use quinn::crypto::rustls::HandshakeData;
use quinn::{Connection, Incoming, RecvStream, SendStream};
use rustls::pki_types::CertificateDer;
use tokio::time::timeout;

use crate::close::Close;
use crate::endpoint::Purpose;
use crate::inbox::Gate;
use crate::lanes::{accept_lane, open_lane, receive_lane, send_lane};
use crate::peer::{Candidate, Installed, Peer, retire};
use crate::shared::Shared;
use crate::tls::{self, ALPN_BULK};
use crate::wire::{Code, Greeting, HEADER_LEN, Hello};
use crate::{bulk, wire};

/// Answers one who dialled us.
pub(crate) async fn answer(shared: Arc<Shared>, incoming: Incoming) {
    let remote = incoming.remote_address();
    let limit = shared.limits.handshake_timeout;
    let connection = match timeout(limit, incoming).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            let mut close = Close::from(error);
            close.text = format!("{} ({remote})", close.text);
            tracing::debug!(%remote, reason = %close.text, "handshake failed");
            shared.refused(None, &close);
            return;
        }
        Err(_) => {
            tracing::debug!(%remote, "handshake took too long");
            return;
        }
    };
    let owner = match owner(&shared, &connection) {
        Ok((owner, _)) => Some(owner),
        Err(_) => None,
    };
    let greeted = match timeout(limit, greet_dialler(&shared, &connection)).await {
        Ok(greeted) => greeted,
        Err(_) => Err(Close::ours(Code::Timeout, format!("no Hello within {limit:?}"))),
    };
    if let Err(close) = greeted {
        let code = close.code.unwrap_or(Code::Protocol);
        connection.close(code.number(), close.text.as_bytes());
        tracing::debug!(%remote, reason = %close.text, "not linked");
        shared.refused(owner, &close);
    }
}

async fn greet_dialler(shared: &Arc<Shared>, connection: &Connection) -> Result<(), Close> {
    let (owner, pin) = owner(shared, connection)?;
    let purpose = purpose(connection);
    let (lane, mut receive) = accept_lane(connection).await?;
    let expected = if purpose == Purpose::Bulk { Lane::Bulk } else { Lane::Control };
    if lane != expected {
        return Err(Close::ours(Code::Protocol, "the first stream has another lane"));
    }
    let hello = read_hello(&mut receive, Greeting::Hello).await?;
    shared.check(&hello, owner)?;
    let peer = shared
        .peer(owner)
        .ok_or_else(|| Close::ours(Code::Key, format!("{owner} is not a member")))?;
    let ack = shared.hello().encode(Greeting::Ack);
    if purpose == Purpose::Bulk {
        let gate = bulk::welcome(&peer, &hello, connection)?;
        let _ack = open_lane(connection, Lane::Bulk, &ack).await?;
        let (shared, connection) = (Arc::clone(shared), connection.clone());
        tokio::spawn(receive_lane(shared, peer, connection, receive, Lane::Bulk, gate));
        return Ok(());
    }
    if owner < shared.replica {
        let _ = timeout(shared.limits.initial_rtt * 3, peer.dialled()).await;
    }
    let candidate = Candidate { connection: connection.clone(), hello, pin, dialled_by: owner };
    let installed = shared.install(&peer, candidate)?;
    let opened = async {
        let control = open_lane(connection, Lane::Control, &ack).await?;
        let log = open_lane(connection, Lane::Log, &[]).await?;
        Ok::<_, Close>((control, log))
    };
    match opened.await {
        Ok((control, log)) => {
            let streams = Streams { control, log, receive };
            run(shared, &peer, connection, installed, streams);
            Ok(())
        }
        Err(close) => {
            peer.lost(installed.connection_number, &close, &shared.inbox);
            Err(close)
        }
    }
}

/// Greets a peer that we dialled, and makes the connection its link.
pub(crate) async fn greet_dialled(
    shared: &Arc<Shared>,
    peer: &Arc<Peer>,
    connection: &Connection,
) -> Result<(), Close> {
    let (owner, pin) = owner(shared, connection)?;
    let hello = shared.hello().encode(Greeting::Hello);
    let control = open_lane(connection, Lane::Control, &hello).await?;
    let (lane, mut receive) = accept_lane(connection).await?;
    if lane != Lane::Control {
        return Err(Close::ours(Code::Protocol, "the first stream has another lane"));
    }
    let hello = read_hello(&mut receive, Greeting::Ack).await?;
    shared.check(&hello, owner)?;
    let log = open_lane(connection, Lane::Log, &[]).await?;
    let candidate =
        Candidate { connection: connection.clone(), hello, pin, dialled_by: shared.replica };
    let installed = match shared.install(peer, candidate) {
        Ok(installed) => installed,
        Err(close) if close.code == Some(Code::Superseded) => {
            if let Some(gate) = peer.gate(hello.incarnation) {
                linger(shared, peer, connection, receive, &gate);
                return Ok(());
            }
            return Err(close);
        }
        Err(close) => return Err(close),
    };
    let streams = Streams { control, log, receive };
    run(shared, peer, connection, installed, streams);
    Ok(())
}

/// Receives on a connection that lost to another for as long as the peer may not know of it.
fn linger(
    shared: &Arc<Shared>,
    peer: &Arc<Peer>,
    connection: &Connection,
    control: RecvStream,
    gate: &Arc<Gate>,
) {
    let receive = |stream, lane| {
        let (shared, peer) = (Arc::clone(shared), Arc::clone(peer));
        receive_lane(shared, peer, connection.clone(), stream, lane, Arc::clone(gate))
    };
    tokio::spawn(receive(control, Lane::Control));
    let (shared, peer) = (Arc::clone(shared), Arc::clone(peer));
    let (accepting, gate) = (connection.clone(), Arc::clone(gate));
    tokio::spawn(async move {
        if let Ok((Lane::Log, stream)) = accept_lane(&accepting).await {
            receive_lane(shared, peer, accepting, stream, Lane::Log, gate).await;
        }
    });
    retire(connection.clone());
}

/// Greets a peer on a connection for the bulk lane, and returns the stream to send on.
pub(crate) async fn greet_bulk(
    shared: &Shared,
    connection: &Connection,
) -> Result<SendStream, Close> {
    let (owner, _) = owner(shared, connection)?;
    let hello = shared.hello().encode(Greeting::Hello);
    let stream = open_lane(connection, Lane::Bulk, &hello).await?;
    let (_, mut receive) = accept_lane(connection).await?;
    let hello = read_hello(&mut receive, Greeting::Ack).await?;
    shared.check(&hello, owner)?;
    Ok(stream)
}

/// The streams of a link at its beginning.
struct Streams {
    control: SendStream,
    log: SendStream,
    receive: RecvStream,
}

/// Starts the loops of a link, and the one that notices its end.
fn run(
    shared: &Arc<Shared>,
    peer: &Arc<Peer>,
    connection: &Connection,
    installed: Installed,
    streams: Streams,
) {
    let number = installed.connection_number;
    for (lane, stream) in [(Lane::Control, streams.control), (Lane::Log, streams.log)] {
        let (shared, peer) = (Arc::clone(shared), Arc::clone(peer));
        let connection = connection.clone();
        tokio::spawn(send_lane(shared, peer, connection, stream, lane, number));
    }
    tokio::spawn(receive_lane(
        Arc::clone(shared),
        Arc::clone(peer),
        connection.clone(),
        streams.receive,
        Lane::Control,
        Arc::clone(&installed.gate),
    ));
    if let Some(life) = installed.new_life {
        let task = tokio::spawn(bulk::send(Arc::clone(shared), Arc::clone(peer), life));
        let handle = task.abort_handle();
        match &mut *peer.link() {
            Some(link) if link.life_number == life => link.bulk_out = Some(handle),
            Some(_) | None => handle.abort(),
        }
    }
    let (shared, peer) = (Arc::clone(shared), Arc::clone(peer));
    let connection = connection.clone();
    tokio::spawn(async move {
        let close = watch(&shared, &peer, &connection, installed.gate).await;
        if peer.lost(number, &close, &shared.inbox) && close.by_peer {
            shared.refused(Some(peer.id), &close);
        }
    });
}

/// Receives the log lane, and returns why the connection ended.
async fn watch(
    shared: &Arc<Shared>,
    peer: &Arc<Peer>,
    connection: &Connection,
    gate: Arc<Gate>,
) -> Close {
    let close = match accept_lane(connection).await {
        Ok((Lane::Log, stream)) => {
            let (shared, peer) = (Arc::clone(shared), Arc::clone(peer));
            receive_lane(shared, peer, connection.clone(), stream, Lane::Log, gate).await;
            Close::from(connection.closed().await)
        }
        Ok(_) => Close::ours(Code::Protocol, "a stream has another lane than agreed"),
        Err(close) => close,
    };
    let code = close.code.unwrap_or(Code::Protocol);
    connection.close(code.number(), close.text.as_bytes());
    close
}

/// The key that the other side proved to have.
pub(crate) fn pin_of(connection: &Connection) -> Option<KeyPin> {
    let identity = connection.peer_identity()?;
    let certificates = identity.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    tls::pin_of(certificates.first()?).ok()
}

/// Whose key the other side proved to have.
fn owner(shared: &Shared, connection: &Connection) -> Result<(ReplicaId, KeyPin), Close> {
    let unknown = || Close::ours(Code::Key, "its key is not pinned for any member");
    let pin = pin_of(connection).ok_or_else(unknown)?;
    let owner = shared.roster.current().owner(&pin).ok_or_else(unknown)?;
    Ok((owner, pin))
}

fn purpose(connection: &Connection) -> Purpose {
    let bulk = connection
        .handshake_data()
        .and_then(|data| data.downcast::<HandshakeData>().ok())
        .and_then(|data| data.protocol)
        .is_some_and(|protocol| protocol == ALPN_BULK);
    if bulk { Purpose::Bulk } else { Purpose::Main }
}

async fn read_hello(stream: &mut RecvStream, greeting: Greeting) -> Result<Hello, Close> {
    let broken = |error: wire::WireError| Close::ours(Code::Protocol, error.to_string());
    let ended = |error: quinn::ReadExactError| match error {
        quinn::ReadExactError::ReadError(quinn::ReadError::ConnectionLost(error)) => error.into(),
        quinn::ReadExactError::ReadError(_) | quinn::ReadExactError::FinishedEarly(_) => {
            Close::ours(Code::Protocol, format!("no whole Hello: {error}"))
        }
    };
    let mut header = [0; HEADER_LEN];
    stream.read_exact(&mut header).await.map_err(ended)?;
    let len = Hello::body_len(header, greeting).map_err(broken)?;
    let mut body = vec![0; len];
    stream.read_exact(&mut body).await.map_err(ended)?;
    Hello::decode(&body).map_err(broken)
}
