//! One replica, from its directory to its clients.
//!
//! Owns: the order in which the parts are put together, the bounds that are given to each, and
//! what a client is told about an error of the node. Invariant: nothing is listened to before the
//! log is locked, so that a second process on one directory disturbs nobody.

use std::future::Future;
use std::io;
use std::sync::Arc;

use paxos::admin::AdminServing;
use paxos::quic::{Identity, IdentityError, QuicError, QuicOptions, QuicTransport};
use paxos::storage::{Wal, WalOptions};
use std::time::Duration;

use paxos::{
    Client, ClientError, Config, Consistency, Node, NodeOptions, Rejection, ReplicaId, StopReason,
    TraceFile, Uncertainty,
};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::admin;
use crate::backend::{Backend, Executed, Failure};
use crate::budget::Budget;
use crate::command::InfoSection;
use crate::config::Settings;
use crate::info;
use crate::limits::{BATCH_BYTES_MAX, CONNECTIONS_MAX};
use crate::machine::{Command, Machine, Published};
use crate::server::{self, Shared};
use crate::store::{Op, Read};

/// The log in segments that are small enough for an example.
pub(crate) fn wal_options() -> WalOptions {
    WalOptions { segment_bytes: 4 << 20, ..WalOptions::default() }
}

/// The protocol's bounds: the defaults, but for less memory and a larger batch.
pub(crate) fn protocol_config() -> Config {
    Config { window_bytes_max: 32 << 20, batch_bytes_max: BATCH_BYTES_MAX, ..Config::default() }
}

/// The node's bounds: a connection has one request under way at a time.
pub(crate) fn node_options() -> NodeOptions {
    NodeOptions {
        requests_max: CONNECTIONS_MAX,
        forwarded_bytes_max: 32 << 20,
        // A command that went out on a link that is replaced may be lost without a word: whoever sent
        // it is told within two seconds that its fate is unknown.
        request_timeout: Duration::from_secs(2),
        ..NodeOptions::default()
    }
}

/// A replica whose log is locked and whose ports are bound, and that has said nothing yet.
#[derive(Debug)]
pub(crate) struct Prepared {
    settings: Settings,
    wal: Wal,
    listener: TcpListener,
    transport: QuicTransport,
}

/// A replica that runs.
#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) settings: Settings,
    node: Arc<Node<Machine>>,
    /// Closes with it.
    pub(crate) admin: Option<AdminServing>,
    server: JoinHandle<()>,
    closing: watch::Sender<bool>,
}

impl Prepared {
    /// Takes hold of everything that a replica needs. The error is one line.
    pub(crate) async fn new(settings: Settings) -> Result<Self, String> {
        let identity = Identity::load(&settings.key).map_err(|error| {
            let missing = matches!(error, IdentityError::Missing { .. });
            let action = ": restore it from a backup, or leave this replica off";
            format!("{error}{}", if missing { action } else { "" })
        })?;
        let wal = Wal::open(&settings.data, &settings.format, wal_options())
            .map_err(|error| error.to_string())?;
        let listener = TcpListener::bind(&settings.clients)
            .await
            .map_err(|error| no_clients(&settings, &error))?;
        let options = QuicOptions::new(&settings.format, identity).listen(&settings.listen);
        let transport = QuicTransport::new(options).map_err(|error| no_peers(&settings, &error))?;
        Ok(Self { settings, wal, listener, transport })
    }

    /// Starts it. The error is one line.
    pub(crate) async fn start(
        self,
        budget: Arc<Budget>,
        memory_bound: usize,
    ) -> Result<Replica, String> {
        let published = Published::default();
        let pace = self.settings.pace;
        let (log_bytes, rate) = (pace.every_mib << 20, pace.mib_per_second << 20);
        let mut options = NodeOptions {
            snapshot_log_bytes: log_bytes,
            trim_reserve_bytes: log_bytes,
            snapshot_send_bytes_per_second: rate,
            snapshot_receive_bytes_per_second: rate,
            ..node_options()
        };
        if let Some(path) = &self.settings.trace_out {
            let file = TraceFile::create(path);
            let file = file.map_err(|error| format!("{}: {error}", path.display()))?;
            options.trace = Some(Arc::new(file));
        }
        let node = Node::builder()
            .storage(self.wal)
            .transport(self.transport)
            .config(protocol_config())
            .options(options)
            .start(Machine::new(published.clone()))
            .await
            .map_err(|error| error.to_string())?;
        let admin = admin::open(&node, &self.settings).await?;
        let node = Arc::new(node);
        let shared = Shared::new(budget, memory_bound);
        let backend = NodeBackend {
            client: node.client(),
            consistency: self.settings.reads,
            node: Arc::clone(&node),
            published,
            shared: Arc::clone(&shared),
        };
        let (closing, closed) = watch::channel(false);
        Ok(Replica {
            settings: self.settings,
            node,
            admin,
            server: tokio::spawn(server::serve(self.listener, backend, shared, closed)),
            closing,
        })
    }
}

/// Why clients cannot be listened for, and what to do about it.
fn no_clients(settings: &Settings, error: &io::Error) -> String {
    let (clients, file) = (&settings.clients, settings.file.display());
    let why = if error.kind() == io::ErrorKind::AddrInUse {
        format!("it is in use: stop what listens there, or change `clients` in {file}")
    } else {
        error.to_string()
    };
    format!("cannot listen for clients on {clients}: {why}")
}

/// Why there is no transport, and what to do about it.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "errors that the library adds later are told in its own words"
)]
fn no_peers(settings: &Settings, error: &QuicError) -> String {
    let (key, file) = (settings.key.display(), settings.file.display());
    match error {
        QuicError::OwnKey { .. } => {
            format!("{error}: restore this replica's own {key}, or its `pin` in {file}")
        }
        QuicError::InUse { .. } => format!(
            "cannot listen for peers: {error}: stop what uses it, or change `listen` in {file}, \
             and this member's `address` in the file of every replica"
        ),
        QuicError::Address { .. } => {
            format!("cannot listen for peers: {error}: see `listen` in {file}")
        }
        _ => format!("no transport to the peers: {error}"),
    }
}

impl Replica {
    /// Its id.
    pub(crate) fn id(&self) -> ReplicaId {
        self.settings.format.replica
    }

    /// Resolves when the node has stopped by itself.
    pub(crate) async fn stopped(&self) -> (ReplicaId, StopReason) {
        (self.id(), self.node.stopped().await)
    }

    /// Answers what clients have sent, then ends connections, node and log.
    pub(crate) async fn shutdown(self) -> StopReason {
        self.closing.send_replace(true);
        if let Err(error) = self.server.await {
            tracing::error!(%error, "the server of the Redis protocol broke");
        }
        match Arc::try_unwrap(self.node) {
            Ok(node) => node.shutdown().await,
            // A connection that was cut off still holds it: it ends with the process.
            Err(node) => {
                drop(node);
                StopReason::Shutdown
            }
        }
    }
}

/// What connections use.
#[derive(Debug)]
pub(crate) struct NodeBackend {
    client: Client<Machine>,
    consistency: Consistency,
    node: Arc<Node<Machine>>,
    published: Published,
    shared: Arc<Shared>,
}

// Derived, it would ask that the state machine be cloned.
impl Clone for NodeBackend {
    fn clone(&self) -> Self {
        Self {
            client: self.client.clone(),
            consistency: self.consistency,
            node: Arc::clone(&self.node),
            published: self.published.clone(),
            shared: Arc::clone(&self.shared),
        }
    }
}

impl Backend for NodeBackend {
    fn execute(&self, ops: Vec<Op>) -> impl Future<Output = Result<Executed<Op>, Failure>> + Send {
        let asked = self.client.execute(Command::Many(ops));
        async { asked.await.map_err(failure) }
    }

    fn read(
        &self,
        reads: Vec<Read>,
    ) -> impl Future<Output = Result<Executed<Read>, Failure>> + Send {
        let asked = self.client.read(self.consistency, reads);
        async { asked.await.map_err(failure) }
    }

    fn info(&self, section: InfoSection) -> String {
        info::text(
            section,
            &self.node.status(),
            &self.node.metrics(),
            &self.published.image(),
            &self.shared,
        )
    }
}

/// What a client is told.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "errors that the library adds later are told in its own words"
)]
fn failure(error: ClientError) -> Failure {
    match error {
        ClientError::Rejected(rejection) => match rejection {
            Rejection::NoLeader
            | Rejection::Superseded
            | Rejection::TimedOut
            | Rejection::NoQuorum
            | Rejection::Unsettled { .. } => Failure::NoLeader(rejection.to_string()),
            Rejection::Busy | Rejection::StorageFull | Rejection::Stopped => {
                Failure::Busy(rejection.to_string())
            }
            Rejection::TooLarge { .. } => Failure::TooLarge(rejection.to_string()),
            other => Failure::Fault(other.to_string()),
        },
        ClientError::Unknown(uncertainty) => Failure::Unknown(match uncertainty {
            Uncertainty::Timeout => "no reply came in time".into(),
            other => other.to_string(),
        }),
        other => Failure::Unknown(other.to_string()),
    }
}
