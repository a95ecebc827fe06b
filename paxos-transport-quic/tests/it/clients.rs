//! Clients that are not replicas: who is let in, by which port, and how links end.

use std::future::poll_fn;
use std::io;
use std::time::Duration;

use paxos_core::membership::{Member, Membership};
use paxos_core::port::{ClientConnector as _, ClientLink, ClientListener as _, TransportEvent};
use paxos_transport_quic::{
    ClientKeys, Identity, Limits, ListenOptions, ListenerHandle, QuicConnector, QuicError,
    QuicListener,
};

use crate::support::{self, Host, PATIENCE, Seat, eventually, id, life, membership};

/// The client port of replica 1.
struct Port {
    listener: QuicListener,
    handle: ListenerHandle,
    /// The node as its clients know it.
    node: Member,
    members: Membership,
}

impl Port {
    fn open(clients: ClientKeys) -> Self {
        Self::with(clients, |options| options)
    }

    fn with(clients: ClientKeys, change: impl FnOnce(ListenOptions) -> ListenOptions) -> Self {
        let mut seat = Seat::new(1);
        let members = membership(vec![seat.member.clone()]);
        let format = support::format(seat.id, &members);
        let identity = seat.identity.take().unwrap();
        let options = ListenOptions::new(&format, identity, clients).listen("127.0.0.1:0");
        let listener = QuicListener::new(change(options)).unwrap();
        let addresses = vec![listener.local_addr().unwrap().to_string()];
        let node = Member { addresses, ..seat.member };
        Self { handle: listener.handle(), listener, node, members }
    }

    /// Connects a client with this key, and has it say something.
    async fn dial(&self, identity: &Identity) -> io::Result<Box<dyn ClientLink>> {
        let connector =
            QuicConnector::new(std::slice::from_ref(&self.node), identity.clone()).unwrap();
        let mut link = connector.connect(id(1)).await?;
        poll_fn(|cx| link.poll_write(cx, b"hello")).await?;
        Ok(link)
    }

    async fn accept(&mut self) -> Box<dyn ClientLink> {
        let accepted = poll_fn(|cx| self.listener.poll_accept(cx));
        soon(accepted).await.expect("the listener goes on")
    }

    /// A link: the client's end, and the node's.
    async fn link(&mut self, identity: &Identity) -> (Box<dyn ClientLink>, Box<dyn ClientLink>) {
        let ours = soon(self.dial(identity)).await.unwrap();
        (ours, self.accept().await)
    }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("waited in vain")
}

async fn read(link: &mut dyn ClientLink) -> io::Result<Vec<u8>> {
    let mut buffer = [0; 100];
    let count = soon(poll_fn(|cx| link.poll_read(cx, &mut buffer))).await?;
    Ok(buffer[..count].to_vec())
}

/// Reads to the end, and says why it ended.
async fn ended(link: &mut dyn ClientLink) -> String {
    loop {
        match read(link).await {
            Ok(bytes) if bytes.is_empty() => return String::new(),
            Ok(_) => {}
            Err(error) => return error.to_string(),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_let_in_has_a_stream_both_ways_and_both_ends_know_each_other() {
    let client = Identity::generate().unwrap();
    let mut port = Port::open(ClientKeys::Pinned(vec![client.pin()]));
    let (mut ours, mut theirs) = port.link(&client).await;
    assert_eq!(read(&mut *theirs).await.unwrap(), b"hello");
    assert_eq!(theirs.key(), Some(client.pin()));
    assert_eq!(ours.key(), Some(port.node.keys[0]));
    // More than the windows hold.
    let sent: Vec<u8> = (0..3_000_000_u32).map(|number| number as u8).collect();
    let expected = sent.clone();
    let writing = tokio::spawn(async move {
        let mut rest = &sent[..];
        while !rest.is_empty() {
            let count = poll_fn(|cx| theirs.poll_write(cx, rest)).await.unwrap();
            rest = &rest[count..];
        }
        theirs.close("that was all");
    });
    let mut received = Vec::new();
    let end = loop {
        match read(&mut *ours).await {
            Ok(bytes) => received.extend_from_slice(&bytes),
            Err(error) => break error.to_string(),
        }
    };
    // What was sent before the close arrived, and so did its words.
    assert!(received == expected, "{} bytes of {}", received.len(), expected.len());
    assert_eq!(end, "that was all");
    soon(writing).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c1_a_key_that_is_not_let_in_gets_no_link_and_its_client_is_told() {
    let (welcome, stranger) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let mut port = Port::open(ClientKeys::Pinned(vec![welcome.pin()]));
    let refused = async {
        // In TLS 1.3 the client may hear of it only when it reads.
        match port.dial(&stranger).await {
            Ok(mut link) => ended(&mut *link).await,
            Err(error) => error.to_string(),
        }
    };
    let words = soon(refused).await;
    assert!(words.contains("not that of a client who is let in"), "{words}");
    let (_ours, theirs) = port.link(&welcome).await;
    assert_eq!(theirs.key(), Some(welcome.pin()), "the first link is that of the client let in");
    // Nor is the replica's own key a client's.
    let mut anyone = Port::open(ClientKeys::Anyone);
    let (_ours, theirs) = anyone.link(&stranger).await;
    assert_eq!(theirs.key(), Some(stranger.pin()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c1_a_members_key_is_no_clients_key() {
    let mut seats = [Seat::new(1), Seat::new(2)];
    let members = membership(seats.iter().map(|seat| seat.member.clone()).collect());
    let format = support::format(id(1), &members);
    let identity = seats[0].identity.take().unwrap();
    let other = seats[1].identity.take().unwrap();
    let keys = ClientKeys::Pinned(vec![other.pin()]);
    let options = ListenOptions::new(&format, identity.clone(), keys).listen("127.0.0.1:0");
    let error = QuicListener::new(options).unwrap_err();
    assert!(matches!(error, QuicError::ClientIsMember(replica) if replica == id(2)), "{error}");
    let open = ListenOptions::new(&format, identity.clone(), ClientKeys::Pinned(Vec::new()));
    let listener = QuicListener::new(open.listen("127.0.0.1:0")).unwrap();
    let changed = listener.handle().set_clients(ClientKeys::Pinned(vec![identity.pin()]));
    assert!(matches!(changed, Err(QuicError::ClientIsMember(replica)) if replica == id(1)));
    // And the node proves its replica's key, no other.
    let options = ListenOptions::new(&format, other, ClientKeys::Anyone).listen("127.0.0.1:0");
    let error = QuicListener::new(options).unwrap_err();
    assert!(matches!(error, QuicError::OwnKey { .. }), "{error}");
    let options = ListenOptions::new(&format, identity, ClientKeys::Anyone);
    assert!(matches!(QuicListener::new(options).unwrap_err(), QuicError::NoAddress));
}

/// A client's key opens no port of replicas, a replica's none of clients, and neither port speaks
/// the other's protocol, whatever key is shown.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c1_no_port_serves_both_replicas_and_clients() {
    // A client with a member's own key at a replica's port.
    let mut seats = [Seat::new(1), Seat::new(2)];
    let members = membership(seats.iter().map(|seat| seat.member.clone()).collect());
    let member_key = seats[1].identity.clone().unwrap();
    let mut host = Host::start(seats[0].options(&members), life(1));
    let connector = QuicConnector::new(std::slice::from_ref(&seats[0].member), member_key).unwrap();
    let error = soon(connector.connect(id(1))).await.map(drop).unwrap_err();
    assert!(error.to_string().contains("port is one for clients"), "{error}");
    // A replica that dials the port of clients, where anyone is let in.
    let mut port = Port::open(ClientKeys::Anyone);
    let mut astray = Seat::new(2);
    let view = membership(vec![port.node.clone(), astray.member.clone()]);
    let mut replica = Host::start(astray.options(&view), life(1));
    let (peer, reason) = replica.refused("port is one for clients").await;
    assert_eq!(peer, Some(id(1)), "{reason}");
    // Nobody became anything.
    let (_ours, theirs) = port.link(&Identity::generate().unwrap()).await;
    assert_ne!(theirs.key(), Some(astray.member.keys[0]));
    for host in [&mut host, &mut replica] {
        let events = host.all_within(Duration::from_millis(100)).await;
        let up = events.iter().any(|event| matches!(event, TransportEvent::Up { .. }));
        assert!(!up, "{events:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c1_a_client_links_to_no_node_but_the_one_it_means() {
    let client = Identity::generate().unwrap();
    let port = Port::open(ClientKeys::Anyone);
    let impostor = Member { keys: vec![Identity::generate().unwrap().pin()], ..port.node.clone() };
    let connector = QuicConnector::new(&[impostor], client.clone()).unwrap();
    let error = soon(connector.connect(id(1))).await.map(drop).unwrap_err();
    assert!(error.to_string().contains("not pinned"), "{error}");
    let unpinned = Member { keys: Vec::new(), ..port.node.clone() };
    let error = QuicConnector::new(&[unpinned], client).unwrap_err();
    assert!(matches!(error, QuicError::Roster(_)), "{error}");
    assert_eq!(port.members.members().count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_ends_when_its_key_is_not_let_in_any_more() {
    let (stays, goes) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let mut port = Port::open(ClientKeys::Pinned(vec![stays.pin(), goes.pin()]));
    let (mut ours, _theirs) = port.link(&goes).await;
    let (mut kept, mut theirs) = port.link(&stays).await;
    port.handle.set_clients(ClientKeys::Pinned(vec![stays.pin()])).unwrap();
    assert_eq!(ended(&mut *ours).await, "its key is not let in any more");
    soon(poll_fn(|cx| kept.poll_write(cx, b", still"))).await.unwrap();
    let mut heard = Vec::new();
    while heard.len() < 12 {
        heard.extend(read(&mut *theirs).await.unwrap());
    }
    assert_eq!(heard, b"hello, still");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c5_connections_are_bounded_and_a_place_is_free_when_one_ends() {
    let client = Identity::generate().unwrap();
    let limits = Limits { handshake_timeout: Duration::from_secs(1), ..Limits::default() };
    let mut port =
        Port::with(ClientKeys::Anyone, |options| options.connections_max(2).limits(limits));
    let (_one, _theirs) = port.link(&client).await;
    let (two, theirs) = port.link(&client).await;
    let refused = soon(port.dial(&client)).await.map(drop);
    assert!(refused.is_err(), "two is the bound");
    drop((two, theirs));
    let deadline = std::time::Instant::now() + PATIENCE;
    while soon(port.dial(&client)).await.is_err() {
        assert!(std::time::Instant::now() < deadline, "no place became free");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_opens_no_stream_is_closed() {
    let client = Identity::generate().unwrap();
    let limits = Limits { handshake_timeout: Duration::from_millis(200), ..Limits::default() };
    let mut port =
        Port::with(ClientKeys::Anyone, |options| options.connections_max(1).limits(limits));
    let connector = QuicConnector::new(std::slice::from_ref(&port.node), client.clone()).unwrap();
    let mut silent = soon(connector.connect(id(1))).await.unwrap();
    let words = ended(&mut *silent).await;
    assert!(words.contains("no stream within"), "{words}");
    // Its place is free at once.
    let (_ours, _theirs) = port.link(&client).await;
    drop(silent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_listener_frees_its_socket() {
    let client = Identity::generate().unwrap();
    let mut port = Port::open(ClientKeys::Anyone);
    let address = port.listener.local_addr().unwrap();
    let (mut ours, theirs) = port.link(&client).await;
    let Port { listener, handle, .. } = port;
    drop((listener, handle, theirs));
    assert_eq!(ended(&mut *ours).await, "the other end left");
    eventually("a free socket", || std::net::UdpSocket::bind(address).is_ok()).await;
}
