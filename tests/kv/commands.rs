//! What each command does, as lines of requests and the replies that Redis gives.

use bytes::Bytes;

use crate::command::{Request, refusal, understand};
use crate::resp::Reply;
use crate::store::{Op, Outcome, Store, Write};

/// The reply to a line of words.
fn say(store: &mut Store, line: &str) -> Reply {
    let mut arguments: Vec<_> =
        line.split(' ').map(|word| Bytes::copy_from_slice(word.as_bytes())).collect();
    match understand(&mut arguments) {
        Request::Answer(reply) => reply,
        Request::Op(op) => {
            let mut executed = store.execute(vec![op]);
            assert!(executed.rest.is_empty());
            reply(executed.outcomes.pop().unwrap())
        }
        other @ (Request::Info(_) | Request::Quit) => panic!("{line}: {other:?}"),
    }
}

fn reply(outcome: Outcome) -> Reply {
    let value = |value: Option<Bytes>| value.map_or(Reply::Nil, Reply::Bulk);
    match outcome {
        Outcome::Done => Reply::Simple("OK"),
        Outcome::Integer(number) => Reply::Integer(number),
        Outcome::Value(bytes) => value(bytes),
        Outcome::Values(values) => Reply::Array(values.into_iter().map(value).collect()),
        Outcome::Refused(why) => Reply::Error(refusal(why)),
    }
}

fn shown(reply: &Reply) -> String {
    match reply {
        Reply::Simple(text) => (*text).into(),
        Reply::Error(text) => format!("-{text}"),
        Reply::Integer(number) => format!(":{number}"),
        Reply::Bulk(bytes) => format!("{:?}", std::str::from_utf8(bytes).unwrap()),
        Reply::Nil => "nil".into(),
        Reply::Array(items) => {
            format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(" "))
        }
    }
}

/// Lines said to one store in this order, and what each is answered.
const SCRIPT: &[(&str, &str)] = &[
    ("PING", "PONG"),
    ("ping hello", "\"hello\""),
    ("ECHO hi", "\"hi\""),
    ("GET a", "nil"),
    ("SET a 1", "OK"),
    ("GET a", "\"1\""),
    ("SET a 2 NX", "nil"),
    ("SET a 2 nx get", "\"1\""),
    ("SET b 2 XX", "nil"),
    ("SET b 2 XX GET", "nil"),
    ("EXISTS b", ":0"),
    ("SET b 2 NX", "OK"),
    ("SET a 3 XX GET", "\"1\""),
    ("SET a x NX XX", "-ERR syntax error"),
    ("SET a x EX 10", "-ERR the option EX of SET is not supported here: NX, XX and GET are"),
    ("SET a x FOO", "-ERR syntax error"),
    ("MGET a c b", "[\"3\" nil \"2\"]"),
    ("EXISTS a a c", ":2"),
    ("INCR a", ":4"),
    ("INCRBY a -10", ":-6"),
    ("DECR fresh", ":-1"),
    ("INCRBY a 1.5", "-ERR value is not an integer or out of range"),
    ("SET big 9223372036854775807", "OK"),
    ("INCR big", "-ERR increment or decrement would overflow"),
    ("APPEND text ab", ":2"),
    ("APPEND text cde", ":5"),
    ("GET text", "\"abcde\""),
    ("INCR text", "-ERR value is not an integer or out of range"),
    ("STRLEN text", ":5"),
    ("STRLEN none", ":0"),
    ("GETDEL text", "\"abcde\""),
    ("GETDEL text", "nil"),
    ("MSET x 1 y 2", "OK"),
    ("DEL x y z", ":2"),
    ("DBSIZE", ":4"),
    ("MSET x", "-ERR wrong number of arguments for 'mset' command"),
    ("MSET x 1 y", "-ERR wrong number of arguments for 'mset' command"),
    ("GET", "-ERR wrong number of arguments for 'get' command"),
    ("get a b", "-ERR wrong number of arguments for 'get' command"),
    ("DBSIZE x", "-ERR wrong number of arguments for 'dbsize' command"),
    ("FLY a b", "-ERR unknown command 'FLY', with args beginning with: 'a' 'b' "),
    ("SELECT 0", "OK"),
    ("SELECT 1", "-ERR DB index is out of range"),
    ("COMMAND DOCS", "[]"),
    ("COMMAND COUNT", ":0"),
    ("CONFIG GET save", "[\"save\" \"\"]"),
    ("CONFIG GET appendonly", "[\"appendonly\" \"yes\"]"),
    ("CONFIG GET nothing", "[]"),
    ("CLIENT SETNAME me", "OK"),
    ("CLIENT SETINFO LIB-NAME x", "OK"),
    ("HELLO 3", "-NOPROTO unsupported protocol version"),
];

#[test]
fn commands_answer_as_redis_does() {
    let store = &mut Store::default();
    for (line, expected) in SCRIPT {
        assert_eq!(shown(&say(store, line)), *expected, "{line}");
    }
    assert!(matches!(say(store, "HELLO 2 SETNAME me"), Reply::Array(_)));
}

#[test]
fn equal_contents_by_equal_writes_have_equal_hashes_and_others_differ() {
    let run = |lines: &[&str]| {
        let mut store = Store::default();
        for line in lines {
            say(&mut store, line);
        }
        store
    };
    let one = run(&["SET a 1", "SET b 2", "GET a", "DBSIZE"]);
    let other = run(&["SET b 2", "SET a 1"]);
    assert_eq!(one.hash(), other.hash());
    assert_ne!(one.hash(), run(&["SET a 1", "SET b 3"]).hash());
    assert_ne!(one.hash(), run(&["SET a 2", "SET b 1"]).hash());
    assert_ne!(run(&["SET ab c"]).hash(), run(&["SET a bc"]).hash());
    assert_ne!(run(&["SET a 1"]).hash(), run(&["SET a 1", "SET a 1"]).hash());
    // What is gone leaves nothing but the count of writes.
    let emptied = run(&["MSET a 1 b 2", "APPEND a 5", "INCR b", "GETDEL a", "DEL b"]);
    let busy = run(&["SET x 1", "SET x 2", "SET x 3", "SET x 4", "DEL x"]);
    assert_eq!(emptied.hash(), busy.hash());
    assert_eq!((emptied.keys(), emptied.bytes()), (0, 0));
    assert_eq!((one.keys(), one.bytes()), (2, 4));
}

/// The hash is compared between replicas of different releases.
#[test]
fn the_hash_is_the_same_in_every_release() {
    let mut store = Store::default();
    for line in ["SET a 1", "SET key:0123456789abcdef a-longer-value-of-more-than-16-bytes"] {
        say(&mut store, line);
    }
    assert_eq!(format!("{:032x}", store.hash()), "91c45f54b71e56aa8052cfa0f4595067");
}

#[test]
fn a_group_stops_at_many_bytes_and_hands_the_rest_back() {
    let mut store = Store::default();
    let big = Bytes::from(vec![0; crate::limits::VALUE_BYTES_MAX]);
    let set = Op::Write(Write::Set {
        key: Bytes::from_static(b"k"),
        value: big,
        condition: crate::store::Condition::Always,
        old: false,
    });
    assert_eq!(store.execute(vec![set]).outcomes, [Outcome::Done]);
    let get = Op::Read(crate::store::Read::Get(Bytes::from_static(b"k")));
    let add = Op::Write(Write::Add { key: Bytes::from_static(b"n"), delta: 1 });
    let executed = store.execute(vec![get.clone(), get.clone(), add.clone(), get.clone()]);
    assert_eq!(executed.outcomes.len(), 2);
    assert_eq!(executed.rest, [add, get]);
    assert_eq!(store.keys(), 1);
}

#[test]
fn operations_have_a_form_in_the_log_that_stays() {
    let op = Op::Write(Write::Set {
        key: Bytes::from_static(b"k"),
        value: Bytes::from_static(b"v"),
        condition: crate::store::Condition::Absent,
        old: true,
    });
    let ops = vec![op, Op::Read(crate::store::Read::DbSize)];
    let bytes = postcard::to_stdvec(&ops).unwrap();
    assert_eq!(bytes, [2, 1, 0, 1, b'k', 1, b'v', 1, 1, 0, 4]);
    assert_eq!(postcard::from_bytes::<Vec<Op>>(&bytes).unwrap(), ops);
}
