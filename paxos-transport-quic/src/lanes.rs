//! The loops that move frames between queues and streams.
//!
//! Owns: one writer per outgoing lane and one reader per incoming one. A loop ends with its
//! connection, or when its queue was handed to another.
//! Invariants: one write per batch of queued frames; a lane is read only while its credit lasts.
//!
//! Pattern: Request Pipeline.

use core::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use paxos_core::port::{Lane, TransportEvent};
use quinn::{Connection, ReadError, RecvStream, SendStream};

use crate::close::Close;
use crate::frames::Assembler;
use crate::inbox::Gate;
use crate::peer::Peer;
use crate::queue::{Batch, Taken};
use crate::shared::Shared;
use crate::wire::{self, Code, PRELUDE_LEN, lane_index};

/// How much is taken from a queue for one write. What was taken can no longer be replaced or
/// dropped, so less is taken of the lane where that matters.
const fn batch_bytes(lane: Lane) -> usize {
    match lane {
        Lane::Control => 64 << 10,
        Lane::Log | Lane::Bulk => 256 << 10,
    }
}

/// How many chunks are read at once, each about a packet.
const READ_CHUNKS: usize = 64;

/// Which lane goes first when several have something to send.
const fn priority(lane: Lane) -> i32 {
    match lane {
        Lane::Control => 10,
        Lane::Log => 0,
        Lane::Bulk => -10,
    }
}

/// Opens the stream of a lane, its first bytes given.
pub(crate) async fn open_lane(
    connection: &Connection,
    lane: Lane,
    greeting: &[u8],
) -> Result<SendStream, Close> {
    let mut stream = connection.open_uni().await?;
    stream.set_priority(priority(lane)).map_err(|_| Close::lost("the stream is closed"))?;
    let mut bytes = wire::prelude(lane).to_vec();
    bytes.extend_from_slice(greeting);
    stream.write_all(&bytes).await.map_err(|error| write_close(connection, &error))?;
    Ok(stream)
}

/// Accepts a stream and reads for which lane it is.
pub(crate) async fn accept_lane(connection: &Connection) -> Result<(Lane, RecvStream), Close> {
    let mut stream = connection.accept_uni().await?;
    let mut prelude = [0; PRELUDE_LEN];
    stream
        .read_exact(&mut prelude)
        .await
        .map_err(|error| Close::ours(Code::Protocol, format!("no prelude: {error}")))?;
    let lane = wire::parse_prelude(prelude)
        .map_err(|error| Close::ours(Code::Protocol, error.to_string()))?;
    Ok((lane, stream))
}

/// Waits for frames of a lane, and counts them.
pub(crate) async fn take(shared: &Shared, peer: &Peer, lane: Lane, owner: u64) -> Option<Taken> {
    let taken = poll_fn(|cx| peer.queue(lane).poll_take(owner, batch_bytes(lane), cx)).await?;
    if taken.drained {
        let peer = peer.id;
        let drained = TransportEvent::Drained { peer, lane };
        shared.inbox.push_events(None, [drained]);
    }
    Some(taken)
}

/// Writes what was taken as one batch.
pub(crate) async fn write(
    shared: &Shared,
    connection: &Connection,
    stream: &mut SendStream,
    taken: Taken,
) -> Result<(), Close> {
    let count = taken.frames.len();
    let mut batch = Batch::with_capacity(taken.bytes);
    for frame in taken.frames {
        batch.push(frame);
    }
    let mut chunks = batch.finish();
    stream.write_all_chunks(&mut chunks).await.map_err(|error| write_close(connection, &error))?;
    let counts = &shared.counts;
    counts.frames_sent.fetch_add(count as u64, Ordering::Relaxed);
    let bytes = taken.bytes - count * wire::HEADER_LEN;
    counts.bytes_sent.fetch_add(bytes as u64, Ordering::Relaxed);
    Ok(())
}

/// Sends a lane's frames until the connection ends or the queue changes hands.
pub(crate) async fn send_lane(
    shared: Arc<Shared>,
    peer: Arc<Peer>,
    connection: Connection,
    mut stream: SendStream,
    lane: Lane,
    owner: u64,
) {
    while let Some(taken) = take(&shared, &peer, lane, owner).await {
        if let Err(close) = write(&shared, &connection, &mut stream, taken).await {
            tracing::debug!(peer = %peer.id, ?lane, reason = %close.text, "lane ended");
            break;
        }
    }
}

/// Delivers a lane's frames until the stream or the link ends. A peer that breaks the protocol is
/// cut off.
pub(crate) async fn receive_lane(
    shared: Arc<Shared>,
    peer: Arc<Peer>,
    connection: Connection,
    mut stream: RecvStream,
    lane: Lane,
    gate: Arc<Gate>,
) {
    let ended = tokio::select! {
        ended = receive(&shared, &peer, &mut stream, lane, &gate) => ended,
        // A reader that waits for the host must not outlive its connection.
        _ = connection.closed() => Ok(()),
    };
    match ended {
        Ok(()) => {}
        Err(close) => {
            tracing::warn!(replica = %shared.replica, peer = %peer.id, ?lane, reason = %close.text, "peer cut off");
            let code = close.code.unwrap_or(Code::Protocol);
            connection.close(code.number(), close.text.as_bytes());
            shared.refused(Some(peer.id), &close);
        }
    }
}

async fn receive(
    shared: &Shared,
    peer: &Peer,
    stream: &mut RecvStream,
    lane: Lane,
    gate: &Gate,
) -> Result<(), Close> {
    let credit = &peer.credits[lane_index(lane)];
    let mut assembler = Assembler::new(shared.limits.frame_bytes_max);
    let mut chunks = vec![Bytes::new(); READ_CHUNKS];
    loop {
        credit.wait().await;
        let count = match stream.read_chunks(&mut chunks).await {
            Ok(Some(count)) => count,
            // The stream ends with its connection, whose end is told elsewhere.
            Ok(None) | Err(ReadError::ConnectionLost(_) | ReadError::Reset(_)) => return Ok(()),
            Err(
                error @ (ReadError::ClosedStream
                | ReadError::IllegalOrderedRead
                | ReadError::ZeroRttRejected),
            ) => return Err(Close::ours(Code::Protocol, error.to_string())),
        };
        for chunk in &mut chunks[..count] {
            let chunk = core::mem::take(chunk);
            assembler
                .feed(&chunk)
                .map_err(|error| Close::ours(Code::Protocol, error.to_string()))?;
        }
        let frames = assembler.take();
        if frames.is_empty() {
            continue;
        }
        let bytes: usize = frames.iter().map(|(_, bytes)| bytes.len()).sum();
        let counts = &shared.counts;
        counts.frames_received.fetch_add(frames.len() as u64, Ordering::Relaxed);
        counts.bytes_received.fetch_add(bytes as u64, Ordering::Relaxed);
        if !shared.inbox.push_frames(gate, peer.id, frames, credit) {
            return Ok(());
        }
    }
}

fn write_close(connection: &Connection, error: &quinn::WriteError) -> Close {
    match connection.close_reason() {
        Some(reason) => reason.into(),
        None => Close::lost(error.to_string()),
    }
}
