//! The task that keeps a remote client linked to a node.
//!
//! Owns: [`Keeper`]: which node is tried next, when, and the link that is up. What is sent over it,
//! and what becomes of calls, is [`Calls`]'.
//! Invariants: (1) at most one link at a time; (2) it ends when the last client is dropped; (3) nodes
//! that do not answer are not hammered: pauses grow, with chance in them.

use core::future::poll_fn;
use core::time::Duration;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use paxos_core::ids::ReplicaId;
use paxos_core::port::{ClientConnector, ClientLink};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, sleep_until};

use crate::remote::call::Call;
use crate::remote::calls::Calls;
use crate::remote::client::{ConnectError, RemoteOptions};
use crate::remote::wire::{Hello, Welcome};
use crate::remote::{Moved, READ_BYTES, poll_link};

/// How often calls that wait for a link are looked through for those that gave up.
const SWEEP_INTERVAL: Duration = Duration::from_millis(50);
/// The first and the longest pause after every node was tried in vain.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// A link that lived for so long makes the next pause the first one.
const STABLE_AFTER: Duration = Duration::from_secs(1);

pub(crate) struct Keeper {
    pub(crate) connector: Arc<dyn ClientConnector>,
    pub(crate) options: RemoteOptions,
    pub(crate) inbox: mpsc::UnboundedReceiver<Call>,
    /// Whoever waits for the first link.
    pub(crate) first: Option<oneshot::Sender<Result<(), ConnectError>>>,
    pub(crate) calls: Calls,
    /// Since when the link that is up, or was last, is of use.
    pub(crate) greeted_at: Option<Instant>,
}

/// How a link ended, or the attempt to make one.
enum End {
    /// There is no client any more.
    NoClients,
    /// This node leads, says the one that was linked.
    Redirected(ReplicaId),
    /// For this reason, which the operator may want to know.
    Fell(String),
}

impl Keeper {
    /// Keeps a link until the last client is dropped.
    pub(crate) async fn run(mut self) {
        let replicas = self.connector.replicas();
        let mut failures = Vec::new();
        let (mut place, mut redirect) = (0, None);
        let mut pause = PAUSES.0;
        loop {
            let replica = redirect.unwrap_or_else(|| replicas[place % replicas.len()]);
            self.greeted_at = None;
            let follows = redirect.take().is_none() && self.options.follow_leader;
            let end = self.visit(replica, follows.then_some(&replicas)).await;
            self.calls.end();
            let reason = match end {
                End::NoClients => return,
                End::Redirected(leader) => {
                    redirect = Some(leader);
                    continue;
                }
                End::Fell(reason) => reason,
            };
            tracing::debug!(%replica, %reason, "no link");
            if self.greeted_at.is_some_and(|begin| begin.elapsed() >= STABLE_AFTER) {
                pause = PAUSES.0;
                failures.clear();
            }
            place += 1;
            failures.push((replica, reason));
            if failures.len() < replicas.len() {
                continue;
            }
            let failures = core::mem::take(&mut failures);
            if let Some(first) = self.first.take() {
                // Whoever asked may be gone, as this task is now.
                let _ = first.send(Err(ConnectError::Unreachable(failures)));
                return;
            }
            if self.beside(sleep(drawn(pause))).await.is_none() {
                return;
            }
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// Links to a node, and serves calls over the link until it falls or is left. Where `known` are
    /// given, a node that does not lead sends on to the one of them that does.
    async fn visit(&mut self, replica: ReplicaId, known: Option<&Vec<ReplicaId>>) -> End {
        let connector = Arc::clone(&self.connector);
        let mut link = match self.beside(connector.connect(replica)).await {
            None => return End::NoClients,
            Some(Err(error)) => return End::Fell(error.to_string()),
            Some(Ok(link)) => link,
        };
        self.calls.begin(Hello {
            cluster: self.options.cluster,
            group: self.options.group,
            frame_max: u32::try_from(self.options.frame_bytes_max).unwrap_or(u32::MAX),
        });
        let end = self.talk(&mut *link, replica, known).await;
        link.close(match &end {
            End::NoClients => "the client leaves",
            End::Redirected(_) => "the client goes to the leader",
            End::Fell(reason) => reason,
        });
        end
    }

    async fn talk(
        &mut self,
        link: &mut dyn ClientLink,
        replica: ReplicaId,
        known: Option<&Vec<ReplicaId>>,
    ) -> End {
        let mut buffer = vec![0; READ_BYTES];
        let greeting_limit = Instant::now() + self.options.attempt_timeout;
        loop {
            let now = Instant::now();
            self.calls.fill(now);
            let was_greeted = self.calls.welcome().is_some();
            let leaves_at = self.calls.leaves_at(now);
            if leaves_at.is_some_and(|limit| limit <= now) {
                return End::Fell(format!("{replica} cannot serve at the moment"));
            }
            let limit = leaves_at.unwrap_or(greeting_limit);
            let waits = self.calls.has_waiting();
            let out = self.calls.out().expect("the link is up");
            let into = &mut buffer[..];
            let moved = tokio::select! {
                moved = poll_fn(|cx| poll_link(link, cx, out, Some(&mut *into))) => moved,
                call = self.inbox.recv() => match call {
                    Some(call) => {
                        self.calls.push(call);
                        continue;
                    }
                    None => return End::NoClients,
                },
                () = sleep_until(limit.into()), if !was_greeted => {
                    return End::Fell("no greeting in time".to_owned());
                }
                () = sleep_until(limit.into()), if leaves_at.is_some() => continue,
                () = sleep(SWEEP_INTERVAL), if waits => {
                    self.calls.sweep(Instant::now());
                    continue;
                }
            };
            match self.moved(moved, &buffer) {
                Ok(()) => {}
                Err(reason) => return End::Fell(reason),
            }
            if !was_greeted && let Some(welcome) = self.calls.welcome() {
                if let Some(leader) = elsewhere(&welcome, replica, known) {
                    return End::Redirected(leader);
                }
                self.greeted_at = Some(now);
                if let Some(first) = self.first.take() {
                    // Whoever asked may be gone; then so is every client.
                    let _ = first.send(Ok(()));
                }
            }
        }
    }

    fn moved(&mut self, moved: io::Result<Moved>, buffer: &[u8]) -> Result<(), String> {
        match moved {
            Ok(Moved::Wrote) => Ok(()),
            Ok(Moved::Read(0)) => Err("the node ended the link".to_owned()),
            Ok(Moved::Read(count)) => {
                let fed = self.calls.feed(&buffer[..count], Instant::now());
                fed.map_err(|breach| breach.to_string())
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// Waits for something else, and takes calls in meanwhile; nothing if there is no client left.
    async fn beside<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = core::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return Some(done),
                call = self.inbox.recv() => self.calls.push(call?),
                () = sleep(SWEEP_INTERVAL), if self.calls.has_waiting() => {
                    self.calls.sweep(Instant::now());
                }
            }
        }
    }
}

/// The node that leads, where it is another one that can be reached.
fn elsewhere(
    welcome: &Welcome,
    replica: ReplicaId,
    known: Option<&Vec<ReplicaId>>,
) -> Option<ReplicaId> {
    let leader = welcome.leader.filter(|leader| *leader != replica)?;
    known?.contains(&leader).then_some(leader)
}

/// From half of this to all of it.
fn drawn(pause: Duration) -> Duration {
    // The standard library's hash keys are the only randomness that it gives.
    let chance = RandomState::new().hash_one(0_u8) as u16;
    pause / 2 + pause / 2 * u32::from(chance) / u32::from(u16::MAX)
}
