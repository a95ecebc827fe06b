//! The server on a real socket with a map that is not replicated.

use std::future::{Future, ready};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::backend::{Backend, Executed, Failure};
use crate::budget::Budget;
use crate::client::{Answer, Client, encode};
use crate::command::InfoSection;
use crate::limits::{
    BUFFERS_BYTES_MAX, GROUP_COMMANDS_MAX, KEY_BYTES_MAX, REQUEST_BYTES_MAX, VALUE_BYTES_MAX,
};
use crate::server::{Shared, serve};
use crate::store::{Op, Read, Store};

const PATIENCE: Duration = Duration::from_secs(20);

/// A map of this process alone, that can be told to fail.
#[derive(Clone, Debug, Default)]
struct Local {
    store: Arc<Mutex<Store>>,
    failure: Arc<Mutex<Option<Failure>>>,
    /// How many operations each group had.
    groups: Arc<Mutex<Vec<usize>>>,
}

impl Local {
    fn refusal(&self) -> Option<Failure> {
        self.failure.lock().unwrap().clone()
    }
}

impl Backend for Local {
    fn execute(&self, ops: Vec<Op>) -> impl Future<Output = Result<Executed<Op>, Failure>> + Send {
        self.groups.lock().unwrap().push(ops.len());
        ready(match self.refusal() {
            Some(failure) => Err(failure),
            None => Ok(self.store.lock().unwrap().execute(ops)),
        })
    }

    fn read(
        &self,
        reads: Vec<Read>,
    ) -> impl Future<Output = Result<Executed<Read>, Failure>> + Send {
        ready(match self.refusal() {
            Some(failure) => Err(failure),
            None => Ok(self.store.lock().unwrap().execute_reads(reads)),
        })
    }

    fn info(&self, section: InfoSection) -> String {
        format!("{section:?} {}", self.store.lock().unwrap().keys())
    }
}

struct Server {
    local: Local,
    address: std::net::SocketAddr,
    shared: Arc<Shared>,
    closing: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
    runtime: Runtime,
}

impl Server {
    fn start() -> Self {
        Self::with_budget(BUFFERS_BYTES_MAX)
    }

    fn with_budget(bytes: usize) -> Self {
        let runtime = Runtime::new().unwrap();
        let local = Local::default();
        let shared = Shared::new(Budget::new(bytes), 0);
        let (closing, closed) = watch::channel(false);
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let serving = serve(listener, local.clone(), Arc::clone(&shared), closed);
        let task = runtime.spawn(serving);
        Self { local, address, shared, closing, task, runtime }
    }

    fn client(&self) -> Client {
        Client::connect(self.address, PATIENCE).unwrap()
    }

    /// Stops, and checks that nothing is left leased.
    fn stop(self, budget: usize) {
        self.closing.send_replace(true);
        self.runtime.block_on(self.task).unwrap();
        assert_eq!(self.shared.connections(), 0);
        assert_eq!(self.shared.budget.free(), budget);
    }
}

#[test]
fn a_pipeline_takes_effect_in_order_as_few_groups() {
    let server = Server::start();
    let mut client = server.client();
    let mut stream = Vec::new();
    for round in 0..500 {
        stream.extend(encode(&["SET", "a", &round.to_string()]));
        stream.extend(encode(&["PING"]));
        stream.extend(encode(&["GET", "a"]));
        stream.extend(encode(&["INCR", "a"]));
    }
    stream.extend_from_slice(b"INFO keyspace\r\n");
    let mut sender = Client::connect(server.address, PATIENCE).unwrap();
    sender.send_raw(&stream).unwrap();
    for round in 0..500 {
        assert_eq!(sender.receive().unwrap(), Answer::ok());
        assert_eq!(sender.receive().unwrap(), Answer::Simple("PONG".into()));
        assert_eq!(sender.receive().unwrap(), Answer::bulk(round.to_string()));
        assert_eq!(sender.receive().unwrap(), Answer::Integer(round + 1));
    }
    assert_eq!(sender.receive().unwrap(), Answer::bulk("Keyspace 1"));
    assert_eq!(client.say("GET a").unwrap(), Answer::bulk("500"));
    let groups = server.local.groups.lock().unwrap().clone();
    assert_eq!(groups.iter().sum::<usize>(), 1500);
    assert!(groups.len() < 100, "{} groups", groups.len());
    assert!(groups.iter().all(|&group| group <= GROUP_COMMANDS_MAX));
    server.stop(BUFFERS_BYTES_MAX);
}

#[test]
fn a_request_arrives_in_single_bytes() {
    let server = Server::start();
    let mut client = server.client();
    for byte in encode(&["SET", "key", "value"]) {
        client.send_raw(&[byte]).unwrap();
    }
    assert_eq!(client.receive().unwrap(), Answer::ok());
    assert_eq!(client.say("STRLEN key").unwrap(), Answer::Integer(5));
    server.stop(BUFFERS_BYTES_MAX);
}

#[test]
fn a_breach_of_the_protocol_is_answered_and_closes() {
    let server = Server::start();
    let mut client = server.client();
    let mut stream = encode(&["SET", "a", "1"]);
    stream.extend_from_slice(b"*1\r\n:5\r\n");
    // More that was under way must not turn the answer into a reset.
    stream.extend(encode(&["SET", "b", &"x".repeat(100_000)]));
    client.send_raw(&stream).unwrap();
    assert_eq!(client.receive().unwrap(), Answer::ok());
    assert_eq!(
        client.receive().unwrap(),
        Answer::Error("ERR Protocol error: expected '$', got ':'".into())
    );
    assert!(client.is_at_end());
    let mut client = server.client();
    assert_eq!(client.say("DBSIZE").unwrap(), Answer::Integer(1));
    server.stop(BUFFERS_BYTES_MAX);
}

#[test]
fn sizes_up_to_the_limits_work_and_beyond_them_are_named() {
    let server = Server::start();
    let mut client = server.client();
    let key = vec![b'k'; KEY_BYTES_MAX];
    let value: Vec<u8> = (0..VALUE_BYTES_MAX).map(|at| at as u8).collect();
    let set = [b"SET".as_slice(), &key, &value];
    assert_eq!(client.call(&set).unwrap(), Answer::ok());
    let get = [b"GET".as_slice(), &key];
    assert_eq!(client.call(&get).unwrap(), Answer::Bulk(value.clone()));
    let append = [b"APPEND".as_slice(), &key, b"x"];
    assert_eq!(client.call(&append).unwrap().error_word(), "TOOLARGE");

    let long_key = [b"GET".as_slice(), &vec![b'k'; KEY_BYTES_MAX + 1]];
    assert_eq!(client.call(&long_key).unwrap().error_word(), "TOOLARGE");
    let long_value = [b"SET".as_slice(), b"k", &vec![0; VALUE_BYTES_MAX + 1]];
    assert_eq!(client.call(&long_value).unwrap().error_word(), "TOOLARGE");
    // Three of these are more than one reply holds, but as a pipeline they are three replies.
    let mget = [b"MGET".as_slice(), &key, &key, &key];
    assert_eq!(client.call(&mget).unwrap().error_word(), "TOOLARGE");
    for _ in 0..20 {
        client.send(&get).unwrap();
    }
    for _ in 0..20 {
        assert_eq!(client.receive().unwrap(), Answer::Bulk(value.clone()));
    }
    let huge = format!("*2\r\n$3\r\nGET\r\n${REQUEST_BYTES_MAX}\r\n");
    client.send_raw(huge.as_bytes()).unwrap();
    assert_eq!(client.receive().unwrap().error_word(), "TOOLARGE");
    assert!(client.is_at_end());
    server.stop(BUFFERS_BYTES_MAX);
}

#[test]
fn a_mixed_pipeline_of_large_replies_loses_and_repeats_nothing() {
    let server = Server::start();
    let mut client = server.client();
    let value = vec![b'v'; VALUE_BYTES_MAX];
    client.call(&[b"SET".as_slice(), b"big", &value]).unwrap();
    let mut stream = Vec::new();
    for _ in 0..12 {
        stream.extend(encode(&["GET", "big"]));
        stream.extend(encode(&["INCR", "n"]));
    }
    client.send_raw(&stream).unwrap();
    for round in 1..=12 {
        assert_eq!(client.receive().unwrap(), Answer::Bulk(value.clone()));
        assert_eq!(client.receive().unwrap(), Answer::Integer(round));
    }
    server.stop(BUFFERS_BYTES_MAX);
}

#[test]
fn failures_say_by_their_first_word_what_happened() {
    let server = Server::start();
    let mut client = server.client();
    let failures = [
        (Failure::Busy("x".into()), "BUSY"),
        (Failure::NoLeader("x".into()), "NOLEADER"),
        (Failure::TooLarge("x".into()), "TOOLARGE"),
        (Failure::Unknown("x".into()), "UNKNOWN"),
        (Failure::Fault("x".into()), "ERR"),
    ];
    for (failure, word) in failures {
        *server.local.failure.lock().unwrap() = Some(failure);
        client.send(&["SET", "a", "1"]).unwrap();
        client.send(&["PING"]).unwrap();
        client.send(&["GET", "a"]).unwrap();
        assert_eq!(client.receive().unwrap().error_word(), word);
        assert_eq!(client.receive().unwrap(), Answer::Simple("PONG".into()));
        assert_eq!(client.receive().unwrap().error_word(), word);
    }
    *server.local.failure.lock().unwrap() = None;
    assert_eq!(client.say("GET a").unwrap(), Answer::Nil);
    server.stop(BUFFERS_BYTES_MAX);
}

#[test]
fn connections_together_hold_no_more_than_their_budget() {
    let budget = 256 << 10;
    let server = Server::with_budget(budget);
    let mut patient = server.client();
    assert_eq!(patient.say("PING").unwrap(), Answer::Simple("PONG".into()));
    let mut greedy = server.client();
    greedy.send_raw(format!("*2\r\n$4\r\nECHO\r\n${}\r\n", 900 << 10).as_bytes()).unwrap();
    greedy.send_raw(&vec![b'x'; 900 << 10]).unwrap();
    assert_eq!(greedy.receive().unwrap().error_word(), "BUSY");
    drop(greedy);
    assert_eq!(patient.say("PING").unwrap(), Answer::Simple("PONG".into()));
    server.stop(budget);
}

#[test]
fn closing_answers_what_was_sent_and_ends() {
    let server = Server::start();
    let mut clients: Vec<_> = (0..20).map(|_| server.client()).collect();
    for client in &mut clients {
        assert_eq!(client.say("INCR n").unwrap().error_word(), "");
    }
    let address = server.address;
    let waiting: Vec<_> =
        clients.into_iter().map(|mut client| thread::spawn(move || client.is_at_end())).collect();
    server.stop(BUFFERS_BYTES_MAX);
    for client in waiting {
        assert!(client.join().unwrap());
    }
    assert!(Client::connect(address, PATIENCE).is_err());
}

#[test]
fn quit_answers_and_closes() {
    let server = Server::start();
    let mut client = server.client();
    client.send_raw(b"SET a 1\r\nQUIT\r\nSET a 2\r\n").unwrap();
    assert_eq!(client.receive().unwrap(), Answer::ok());
    assert_eq!(client.receive().unwrap(), Answer::ok());
    assert!(client.is_at_end());
    assert_eq!(server.client().say("GET a").unwrap(), Answer::bulk("1"));
    server.stop(BUFFERS_BYTES_MAX);
}
