//! The client ports over pipes in memory, for tests that cut links, count them, and speak by hand.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use paxos::ReplicaId;
use paxos::core::membership::KeyPin;
use paxos::core::port::{ClientConnector, ClientLink, ClientListener, Connecting};
use tokio::io::{AsyncRead as _, AsyncWrite as _, DuplexStream, ReadBuf, duplex};
use tokio::sync::mpsc;

/// How much a pipe holds.
const PIPE_BYTES: usize = 4096;

/// One end of a pipe.
pub(crate) struct PipeLink {
    pipe: Option<DuplexStream>,
    key: Option<KeyPin>,
    /// What this end was closed with.
    pub(crate) closed: Arc<Mutex<Option<String>>>,
}

impl ClientLink for PipeLink {
    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let Some(pipe) = &mut self.pipe else { return Poll::Ready(Ok(0)) };
        let mut buffer = ReadBuf::new(into);
        Pin::new(pipe).poll_read(cx, &mut buffer).map_ok(|()| buffer.filled().len())
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.pipe {
            Some(pipe) => Pin::new(pipe).poll_write(cx, bytes),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn close(&mut self, reason: &str) {
        *self.closed.lock().unwrap() = Some(reason.to_owned());
        self.pipe = None;
    }

    fn key(&self) -> Option<KeyPin> {
        self.key
    }

    fn remote(&self) -> String {
        "a pipe".to_owned()
    }
}

/// Where pipes to one node come in.
pub(crate) struct PipeListener(mpsc::UnboundedReceiver<PipeLink>);

impl ClientListener for PipeListener {
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Option<Box<dyn ClientLink>>> {
        let link = self.0.poll_recv(cx);
        link.map(|link| link.map(|link| Box::new(link) as Box<dyn ClientLink>))
    }
}

struct Door {
    replica: ReplicaId,
    links: mpsc::UnboundedSender<PipeLink>,
}

/// The pipes of a cluster, and whoever lays them.
#[derive(Clone, Default)]
pub(crate) struct Pipes(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    doors: Vec<Door>,
    /// Relays between the ends of pipes that are laid; ending one cuts its pipe.
    relays: Vec<(ReplicaId, tokio::task::AbortHandle)>,
    laid: Vec<ReplicaId>,
    order: Vec<ReplicaId>,
}

impl Pipes {
    /// The door of a node, which replaces the one before.
    pub(crate) fn listener(&self, replica: ReplicaId) -> PipeListener {
        let (links, taken) = mpsc::unbounded_channel();
        let mut state = self.0.lock().unwrap();
        state.doors.retain(|door| door.replica != replica);
        state.doors.push(Door { replica, links });
        if !state.order.contains(&replica) {
            state.order.push(replica);
        }
        PipeListener(taken)
    }

    /// A pipe to the door of a node: the client's end, and what the node closes its end with.
    pub(crate) fn lay(
        &self,
        to: ReplicaId,
        key: Option<KeyPin>,
    ) -> io::Result<(PipeLink, Arc<Mutex<Option<String>>>)> {
        let mut state = self.0.lock().unwrap();
        let door = state.doors.iter().find(|door| door.replica == to);
        let door = door.ok_or(io::ErrorKind::ConnectionRefused)?;
        let (ours, mut here) = duplex(PIPE_BYTES);
        let (mut there, theirs) = duplex(PIPE_BYTES);
        let closed = Arc::default();
        let link = PipeLink { pipe: Some(theirs), key, closed: Arc::clone(&closed) };
        door.links.send(link).map_err(|_| io::Error::from(io::ErrorKind::ConnectionRefused))?;
        let relay = tokio::spawn(async move {
            let _ = tokio::io::copy_bidirectional(&mut here, &mut there).await;
        });
        state.relays.push((to, relay.abort_handle()));
        state.laid.push(to);
        Ok((PipeLink { pipe: Some(ours), key: None, closed: Arc::default() }, closed))
    }

    /// Cuts every pipe that is laid: what is under way in it is lost.
    pub(crate) fn cut(&self) {
        for (_, relay) in self.0.lock().unwrap().relays.drain(..) {
            relay.abort();
        }
    }

    /// To which nodes pipes were laid, in order.
    pub(crate) fn laid(&self) -> Vec<ReplicaId> {
        self.0.lock().unwrap().laid.clone()
    }

    /// Tries the nodes in this order from here on.
    pub(crate) fn set_order(&self, order: &[ReplicaId]) {
        self.0.lock().unwrap().order = order.to_vec();
    }
}

impl ClientConnector for Pipes {
    fn replicas(&self) -> Vec<ReplicaId> {
        self.0.lock().unwrap().order.clone()
    }

    fn connect(&self, to: ReplicaId) -> Connecting {
        let laid = self.lay(to, None);
        Box::pin(async move { laid.map(|(link, _)| Box::new(link) as Box<dyn ClientLink>) })
    }
}
