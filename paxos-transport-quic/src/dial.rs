//! Dialling: one task per peer that tries until there is a link, whoever made it.
//!
//! Owns: name resolution, the pauses between attempts, and what is said about failures.
//! Invariants:
//! 1. Names are resolved again at each attempt, so that a replica may move.
//! 2. Pauses grow from the shortest to the longest with jitter, and shrink only after a link that
//!    was stable: a peer that accepts and then refuses is not hammered.
//!
//! Source: decorrelated jitter, "Exponential Backoff And Jitter", M. Brooker.

use core::hash::{BuildHasher as _, Hasher as _};
use core::time::Duration;
use std::collections::hash_map::RandomState;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use paxos_core::ids::ReplicaId;
use quinn::{ClientConfig, Connection, Endpoint};
use tokio::time::timeout;

use crate::close::Close;
use crate::endpoint::{self, Purpose};
use crate::greet;
use crate::identity::Identity;
use crate::options::Limits;
use crate::peer::Peer;
use crate::shared::Shared;
use crate::tls::{self, SharedRoster};
use crate::wire::Code;

/// How often failures to reach a peer are logged above debug level.
const FAILURE_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// The pauses between attempts.
#[derive(Debug)]
pub(crate) struct Backoff {
    shortest: Duration,
    longest: Duration,
    last: Duration,
    random: u64,
}

impl Backoff {
    pub(crate) fn new(limits: &Limits) -> Self {
        let (shortest, longest) = limits.backoff;
        Self {
            shortest,
            longest,
            last: shortest,
            // The standard library's hash keys are the only randomness that it gives.
            random: RandomState::new().build_hasher().finish() | 1,
        }
    }

    pub(crate) fn reset(&mut self) {
        self.last = self.shortest;
    }

    /// A pause between the shortest and three times the one before, at most the longest.
    pub(crate) fn next(&mut self) -> Duration {
        // Xorshift: Marsaglia, "Xorshift RNGs".
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let spread = (self.last * 3).saturating_sub(self.shortest);
        let part = (self.random >> 40) as u32;
        self.last = self.shortest + spread / (1 << 12) * (part >> 12);
        self.last = self.last.min(self.longest);
        self.last
    }
}

/// Keeps trying to have a link to the peer.
pub(crate) async fn keep(shared: Arc<Shared>, peer: Arc<Peer>) {
    let mut linked = peer.watch();
    let mut backoff = Backoff::new(&shared.limits);
    let mut logged: Option<Instant> = None;
    loop {
        if *linked.borrow_and_update() {
            let since = Instant::now();
            // The sender lives in the peer, which this task holds.
            let _ = linked.wait_for(|linked| !linked).await;
            if since.elapsed() >= shared.limits.stable_after {
                backoff.reset();
            }
        } else {
            peer.set_dialling(true);
            let attempted = attempt(&shared, &peer).await;
            peer.set_dialling(false);
            match attempted {
                Ok(()) => continue,
                Err(close) => {
                    shared.refused(Some(peer.id), &close);
                    log_failure(&shared, &peer, &close, &mut logged);
                }
            }
        }
        let pause = backoff.next();
        let _ = timeout(pause, linked.wait_for(|linked| *linked)).await;
    }
}

fn log_failure(shared: &Shared, peer: &Peer, close: &Close, logged: &mut Option<Instant>) {
    let replica = shared.replica;
    let quiet = close.code == Some(Code::Superseded)
        || close.is_refusal()
        || logged.is_some_and(|last| last.elapsed() < FAILURE_LOG_INTERVAL);
    if quiet {
        tracing::debug!(%replica, peer = %peer.id, reason = %close.text, "not linked");
    } else {
        *logged = Some(Instant::now());
        tracing::warn!(%replica, peer = %peer.id, reason = %close.text, "peer not reached");
    }
}

/// Connects and greets once.
async fn attempt(shared: &Arc<Shared>, peer: &Arc<Peer>) -> Result<(), Close> {
    let mut linked = peer.watch();
    // Until Hello is said, the peer does not know of this attempt, and a link that the peer made
    // meanwhile is as good: two connections at once would have to replace each other.
    let connection = tokio::select! {
        biased;
        _ = linked.wait_for(|linked| *linked) => return Ok(()),
        connection = connect(shared, peer, Purpose::Main) => connection?,
    };
    if *linked.borrow() {
        connection.close(Code::Superseded.number(), b"linked meanwhile");
        return Ok(());
    }
    let limit = shared.limits.handshake_timeout;
    let greeted = timeout(limit, greet::greet_dialled(shared, peer, &connection)).await;
    let result = greeted.unwrap_or_else(|_| {
        Err(Close::ours(
            Code::Timeout,
            format!("{} did not answer Hello within {limit:?}", peer.id),
        ))
    });
    if let Err(close) = &result {
        let code = close.code.unwrap_or(Code::Protocol);
        connection.close(code.number(), close.text.as_bytes());
    }
    result
}

/// Connects to the first of the peer's addresses that answers with its key.
pub(crate) async fn connect(
    shared: &Shared,
    peer: &Peer,
    purpose: Purpose,
) -> Result<Connection, Close> {
    let Shared { identity, roster, limits, endpoints, .. } = shared;
    reach(identity, roster, limits, endpoints, peer.id, purpose).await
}

/// Connects to the first of a replica's addresses that answers with its key.
pub(crate) async fn reach(
    identity: &Identity,
    roster: &SharedRoster,
    limits: &Limits,
    endpoints: &[Endpoint],
    replica: ReplicaId,
    purpose: Purpose,
) -> Result<Connection, Close> {
    let alpn = match purpose {
        Purpose::Main => tls::ALPN_MAIN,
        Purpose::Bulk => tls::ALPN_BULK,
        Purpose::Client => tls::ALPN_CLIENT,
    };
    let crypto = tls::client_config(identity, roster, replica, alpn)
        .map_err(|error| Close::lost(error.to_string()))?;
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(endpoint::transport_config(limits, purpose));
    let roster = roster.current();
    let mut last = Close::lost("the membership has no address for it");
    for name in roster.addresses(replica) {
        let addresses = match tokio::net::lookup_host(name.as_str()).await {
            Ok(addresses) => addresses,
            Err(error) => {
                last = Close::lost(format!("address {name} cannot be resolved: {error}"));
                continue;
            }
        };
        for remote in addresses {
            match connect_to(endpoints, limits, config.clone(), remote).await {
                Ok(connection) => return Ok(connection),
                Err(mut close) => {
                    close.text = if *name == remote.to_string() {
                        format!("{remote}: {}", close.text)
                    } else {
                        format!("{name} ({remote}): {}", close.text)
                    };
                    // A refusal says more than an address that did not answer.
                    if close.is_refusal() || !last.is_refusal() {
                        last = close;
                    }
                }
            }
        }
    }
    Err(last)
}

async fn connect_to(
    endpoints: &[Endpoint],
    limits: &Limits,
    config: ClientConfig,
    remote: SocketAddr,
) -> Result<Connection, Close> {
    let endpoint = endpoint::choose(endpoints, remote).ok_or_else(|| {
        Close::lost(if remote.is_ipv4() {
            "no socket of this address family: listen on IPv4, or give the peer an IPv6 address"
        } else {
            "no socket of this address family: listen on IPv6, or give the peer an IPv4 address"
        })
    })?;
    let connecting = endpoint
        .connect_with(config, remote, tls::SERVER_NAME)
        .map_err(|error| Close::lost(error.to_string()))?;
    match timeout(limits.handshake_timeout, connecting).await {
        Ok(connected) => connected.map_err(Close::from),
        Err(_) => {
            Err(Close::lost("no answer: is it running, and is UDP open between here and there?"))
        }
    }
}
