//! Bytes, desks and calls, without a network.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use core::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use paxos_core::ids::{ClusterId, GroupId, ReplicaId, RequestNumber, SessionId, SessionTtl, Slot};
use tokio::sync::{Semaphore, oneshot};

use crate::error::{ClientError, Rejection, Uncertainty};
use crate::remote::call::{Asked, Call, Phase, Progress};
use crate::remote::calls::{Calls, Patience};
use crate::remote::desk::{Bounds, Desk};
use crate::remote::wire::{
    self, Answer, Assembler, Breach, Done, Frame, Hello, LENGTH_BYTES, Request, Wanted, Welcome,
};
use crate::request::{Consistency, SessionRequest};

const CLUSTER: ClusterId = ClusterId::new(0xc1);
const GROUP: GroupId = GroupId::new(3);
const HELLO: Hello = Hello { cluster: CLUSTER, group: GROUP, frame_max: 1 << 20 };
const WELCOME: Welcome = Welcome {
    cluster: CLUSTER,
    group: GROUP,
    frame_max: 4096,
    requests_max: 2,
    replica: ReplicaId::new(2),
    leader: Some(ReplicaId::new(1)),
};

fn request(number: u64, payload: &'static [u8]) -> Request {
    let wanted = Wanted::Command(None, Bytes::from_static(payload));
    Request { number, timeout: Duration::from_millis(1500), wanted }
}

fn read(number: u64, consistency: Consistency) -> Request {
    let wanted = Wanted::Read(consistency, Bytes::from_static(b"q"));
    Request { number, timeout: Duration::from_secs(5), wanted }
}

fn done(payload: &'static [u8]) -> Done {
    Done { slot: Slot::new(6), payload: Bytes::from_static(payload) }
}

fn answer(number: u64, outcome: Result<&'static [u8], ClientError>) -> Frame {
    Frame::Answer(Answer { number, outcome: outcome.map(done) })
}

fn bytes_of(frame: &Frame) -> Bytes {
    let mut out = BytesMut::new();
    wire::encode(&mut out, frame);
    out.freeze()
}

fn errors() -> Vec<ClientError> {
    let rejections = [
        Rejection::NoLeader,
        Rejection::Busy,
        Rejection::TooLarge { bytes: 7 << 33, bytes_max: 9 },
        Rejection::StorageFull,
        Rejection::Superseded,
        Rejection::TimedOut,
        Rejection::Stopped,
        Rejection::Codec("no".to_owned()),
        Rejection::Answer(String::new()),
        Rejection::Unreachable,
        Rejection::SessionUnknown,
        Rejection::StaleRequest,
        Rejection::NoQuorum,
        Rejection::Unsettled { slot: Slot::new(9) },
        Rejection::Level { needed: 7, raised: 1 << 31 },
    ];
    let uncertainties = [
        Uncertainty::Timeout,
        Uncertainty::Stopped,
        Uncertainty::LeaderChanged,
        Uncertainty::LinkLost,
        Uncertainty::SessionLost,
        Uncertainty::Skipped,
    ];
    let rejections = rejections.into_iter().map(ClientError::Rejected);
    let kept = [ClientError::ReplyNotKept { slot: Slot::new(8) }];
    rejections.chain(uncertainties.map(ClientError::Unknown)).chain(kept).collect()
}

fn frames() -> Vec<Frame> {
    let leaderless = Welcome { leader: None, ..WELCOME };
    let mut frames = vec![Frame::Hello(HELLO), Frame::Welcome(WELCOME), Frame::Welcome(leaderless)];
    frames.extend([request(1, b"set"), request(u64::MAX, b"")].map(Frame::Request));
    let session = SessionId::new(0xabcd);
    let name = SessionRequest {
        session,
        request: RequestNumber::new(5),
        acknowledged_below: RequestNumber::new(4),
    };
    for wanted in [
        Wanted::Command(Some(name), Bytes::from_static(b"set")),
        Wanted::Open(session, SessionTtl::from_millis(1000)),
    ] {
        let timeout = Duration::from_millis(1500);
        frames.push(Frame::Request(Request { number: 1, timeout, wanted }));
    }
    let levels = [
        Consistency::Linearizable,
        Consistency::AtLeast(Slot::new(12)),
        Consistency::Stale { lag_max: Duration::from_millis(250) },
        Consistency::Quorum,
    ];
    frames.extend(levels.map(|level| Frame::Request(read(2, level))));
    frames.extend([answer(1, Ok(b"done")), answer(2, Ok(b""))]);
    frames.push(Frame::Goodbye);
    frames.extend(errors().into_iter().map(|error| answer(3, Err(error))));
    frames
}

/// The bytes of docs/format-client.md: a client of one release talks to nodes of another. They end
/// with an error with numbers; of the others the code alone.
#[test]
fn golden_frames() {
    let golden = [
        "2800000001505843020000000000100000000000c10000000000000000000000000000000300000000000000",
        "3000000002505843020002000010000000000000c1000000000000000000000000000000030000000000000002\
         00000001000100",
        "3000000002505843020002000010000000000000c1000000000000000000000000000000030000000000000002\
         00000000000000",
        "1300000003000000dc0500000100000000000000736574",
        "1000000003000000dc050000ffffffffffffffff",
        "3300000003010000dc0500000100000000000000cdab0000000000000000000000000000\
         05000000000000000400000000000000736574",
        "2800000003020000dc0500000100000000000000cdab0000000000000000000000000000\
         e803000000000000",
        "19000000040000008813000002000000000000000000000000000000\
         71",
        "1900000004010000881300000200000000000000\
         0c0000000000000071",
        "1900000004020000881300000200000000000000\
         fa0000000000000071",
        "1900000004030000881300000200000000000000\
         000000000000000071",
        "1c000000050000000000000001000000000000000600000000000000646f6e65",
        "1800000005000000000000000200000000000000\
         0600000000000000",
        "1000000007000000000000000000000000000000",
    ];
    let hex = |frame: &Frame| {
        bytes_of(frame).iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").unwrap();
            text
        })
    };
    for (frame, golden) in frames().iter().zip(golden) {
        assert_eq!(hex(frame), golden, "{frame:?}");
    }
    let details =
        frames()[golden.len()..].iter().map(|frame| bytes_of(frame)[5]).collect::<Vec<_>>();
    let codes = [
        1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x40,
    ];
    assert_eq!(details, codes);
    let sized = "2000000006030000000000000300000000000000000000000e0000000900000000000000";
    assert_eq!(hex(&frames()[golden.len() + 2]), sized);
}

#[test]
fn every_frame_survives_its_encoding_and_no_prefix_of_it_panics() {
    for frame in frames() {
        let body = bytes_of(&frame).slice(LENGTH_BYTES..);
        assert_eq!(wire::decode(body.clone()), Ok(frame.clone()));
        for len in 0..body.len() {
            if let Ok(other) = wire::decode(body.slice(..len)) {
                assert_ne!(other, frame, "cut at {len}");
            }
        }
    }
    let words = "\u{e9}".repeat(2000);
    let long = answer(1, Err(ClientError::Rejected(Rejection::Codec(words))));
    let body = bytes_of(&long).slice(LENGTH_BYTES..);
    let Ok(Frame::Answer(Answer { outcome: Err(error), .. })) = wire::decode(body) else {
        panic!("cut words can be read");
    };
    let cut = ClientError::Rejected(Rejection::Codec("\u{e9}".repeat(512)));
    assert_eq!(error, cut);
}

#[test]
fn arbitrary_bytes_neither_panic_nor_decode_to_what_is_written_otherwise() {
    let goods: Vec<Bytes> =
        frames().iter().map(|frame| bytes_of(frame).slice(LENGTH_BYTES..)).collect();
    let (mut state, mut decoded) = (1_u64, 0);
    for round in 0..60_000 {
        let mut bytes = goods[round % goods.len()].to_vec();
        for _ in 0..=round % 3 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let place = (state >> 33) as usize % bytes.len();
            bytes[place] = (state >> 24) as u8;
        }
        if let Ok(frame @ (Frame::Request(_) | Frame::Answer(_))) =
            wire::decode(bytes.clone().into())
        {
            decoded += 1;
            assert_eq!(bytes_of(&frame)[LENGTH_BYTES..], bytes[..], "{frame:?}");
        }
    }
    assert!(decoded > 10_000, "{decoded}");
}

#[test]
fn frames_come_out_of_a_stream_cut_anywhere_and_none_above_the_limit() {
    let stream: Vec<u8> = frames().iter().flat_map(|frame| bytes_of(frame).to_vec()).collect();
    for piece in [1, 2, 3, 7, 64, stream.len()] {
        let mut assembler = Assembler::new(64);
        let mut found = Vec::new();
        for mut bytes in stream.chunks(piece) {
            while let Some(body) = assembler.next(&mut bytes).unwrap() {
                found.push(wire::decode(body).unwrap());
            }
            assert!(bytes.is_empty());
        }
        assert_eq!(found, frames());
    }
    let mut assembler = Assembler::new(64);
    let refused = assembler.next(&mut &[65, 0, 0, 0][..]);
    assert_eq!(refused, Err(Breach::TooLarge { bytes: 65, bytes_max: 64 }));
    let mut assembler = Assembler::new(64);
    assert_eq!(assembler.next(&mut &[0, 0, 0, 0][..]), Ok(Some(Bytes::new())));
}

// ---------------------------------------------------------------------------------------------
// The node's side

fn desk(bounds: Bounds) -> Desk {
    let mut desk = Desk::new(WELCOME, bounds);
    desk.feed(&bytes_of(&Frame::Hello(HELLO)));
    assert_eq!(desk.next(), Ok(None));
    assert_eq!(desk.out().split(), bytes_of(&Frame::Welcome(WELCOME)));
    desk
}

const AMPLE: Bounds = Bounds { requests: 100, request_bytes: 1000, answer_bytes: 1000 };

#[test]
fn a_desk_takes_requests_up_to_its_bounds_and_answers_each_once() {
    for bounds in [
        Bounds { requests: 2, ..AMPLE },
        Bounds { request_bytes: 4, ..AMPLE },
        Bounds { answer_bytes: 1, ..AMPLE },
    ] {
        let mut desk = desk(bounds);
        let requests: Vec<_> = (1..=5).map(|number| request(number, b"abc")).collect();
        let stream: Vec<u8> = requests
            .iter()
            .flat_map(|request| bytes_of(&Frame::Request(request.clone())).to_vec())
            .collect();
        assert!(desk.wants_bytes());
        desk.feed(&stream);
        assert_eq!(desk.next(), Ok(Some(requests[0].clone())));
        assert_eq!(desk.next(), Ok(Some(requests[1].clone())));
        if bounds.answer_bytes == 1 {
            // What is owed bounds what is taken.
            desk.answer(1, Ok(done(b"")));
        }
        assert_eq!(desk.next(), Ok(None));
        assert!(!desk.wants_bytes(), "all but two are there already");
        desk.answer(2, Ok(done(b"two")));
        assert!(desk.out().split().ends_with(b"two"));
        assert_eq!(desk.next(), Ok(Some(requests[2].clone())));
    }
}

#[test]
fn a_reply_beyond_what_the_client_takes_is_said_to_be_lost_and_not_rejected() {
    let mut desk = Desk::new(WELCOME, AMPLE);
    desk.feed(&bytes_of(&Frame::Hello(Hello { frame_max: 0, ..HELLO })));
    assert_eq!(desk.next(), Ok(None));
    desk.out().clear();
    let stream = [request(1, b"a"), read(2, Consistency::Linearizable)];
    for request in stream {
        desk.feed(&bytes_of(&Frame::Request(request)));
        assert!(desk.next().unwrap().is_some());
    }
    let large = Done { slot: Slot::new(6), payload: Bytes::from(vec![0; 3000]) };
    desk.answer(1, Ok(large.clone()));
    let lost = answer(1, Err(ClientError::ReplyNotKept { slot: Slot::new(6) }));
    assert_eq!(desk.out().split(), bytes_of(&lost));
    desk.answer(2, Ok(large));
    let body = desk.out().split().freeze().slice(LENGTH_BYTES..);
    let Ok(Frame::Answer(Answer { outcome: Err(error), .. })) = wire::decode(body) else {
        panic!("an error is answered");
    };
    assert!(matches!(error, ClientError::Rejected(Rejection::Answer(_))), "{error}");
    assert!(!desk.leave() && desk.out().split().ends_with(&[0; 12]) && desk.leave());
}

// ---------------------------------------------------------------------------------------------
// The client's side

type Answered = oneshot::Receiver<Result<Done, ClientError>>;

struct Table {
    calls: Calls,
    now: Instant,
}

impl Table {
    fn new() -> Self {
        let (attempt, session_ttl) = (Duration::from_secs(2), Duration::from_secs(1));
        Self { calls: Calls::new(Patience { attempt, session_ttl }), now: Instant::now() }
    }

    fn push(&mut self, asked: Asked) -> (Progress, Answered) {
        let (answer, answered) = oneshot::channel();
        let progress = Progress::new();
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let deadline = self.now + Duration::from_secs(5);
        let (number, doubt, told) = (None, None, progress.clone());
        let call = Call { asked, deadline, progress: told, answer, permit, number, doubt };
        self.calls.push(call);
        (progress, answered)
    }

    fn command(&mut self) -> (Progress, Answered) {
        self.push(Asked::Plain(Bytes::from_static(b"c")))
    }

    fn once(&mut self) -> (Progress, Answered) {
        self.push(Asked::Once(Bytes::from_static(b"o")))
    }

    fn read(&mut self) -> (Progress, Answered) {
        self.push(Asked::Read(Consistency::Linearizable, Bytes::from_static(b"q")))
    }

    fn link(&mut self) {
        self.calls.begin(HELLO);
        assert!(self.sent().is_empty(), "nothing before the node said who it is");
        self.told(&Frame::Welcome(WELCOME)).unwrap();
    }

    fn told(&mut self, frame: &Frame) -> Result<(), Breach> {
        self.calls.feed(&bytes_of(frame), self.now)
    }

    /// The requests that are sent now.
    fn sent(&mut self) -> Vec<Request> {
        self.calls.fill(self.now);
        let out = self.calls.out().unwrap().split();
        let (mut assembler, mut rest) = (Assembler::new(1 << 20), &out[..]);
        let mut requests = Vec::new();
        while let Some(body) = assembler.next(&mut rest).unwrap() {
            if let Frame::Request(request) = wire::decode(body).unwrap() {
                requests.push(request);
            }
        }
        requests
    }
}

fn no_leader() -> ClientError {
    ClientError::Rejected(Rejection::NoLeader)
}

#[test]
fn c3_calls_that_certainly_changed_nothing_are_sent_again_and_no_others() {
    let mut table = Table::new();
    let (_, mut lost) = table.command();
    let (_, mut asked) = table.read();
    let (_, mut late) = table.command();
    table.link();
    let sent = table.sent();
    assert_eq!(sent.len(), 2, "as many as the node takes");
    assert_eq!(sent[0].timeout, Duration::from_secs(5), "a command has all its time");
    assert_eq!(sent[1].timeout, Duration::from_secs(2), "a read can be asked elsewhere");
    table.calls.end();
    assert_eq!(lost.try_recv().unwrap(), Err(ClientError::Unknown(Uncertainty::LinkLost)));
    table.link();
    let sent = table.sent();
    let wanted: Vec<_> = sent.iter().map(|request| request.wanted.clone()).collect();
    let (command, query) = (Bytes::from_static(b"c"), Bytes::from_static(b"q"));
    let level = Consistency::Linearizable;
    assert_eq!(wanted, [Wanted::Read(level, query), Wanted::Command(None, command)]);
    // The node has no leader: it certainly proposed nothing, and another may.
    table.told(&answer(sent[1].number, Err(no_leader()))).unwrap();
    assert_eq!(table.calls.leaves_at(table.now), Some(table.now + Duration::from_secs(2)));
    assert!(table.sent().is_empty(), "and this one is left");
    table.told(&answer(sent[0].number, Ok(b"a"))).unwrap();
    assert_eq!(asked.try_recv().unwrap(), Ok(done(b"a")));
    assert_eq!(table.calls.leaves_at(table.now), Some(table.now));
    table.calls.end();
    table.link();
    let sent = table.sent();
    assert_eq!(sent.len(), 1);
    // Whatever else it says is the end.
    let changed = ClientError::Unknown(Uncertainty::LeaderChanged);
    table.told(&answer(sent[0].number, Err(changed.clone()))).unwrap();
    assert_eq!(late.try_recv().unwrap(), Err(changed));
    assert_eq!(table.calls.leaves_at(table.now), None);
}

#[test]
fn every_other_outcome_ends_a_command_outside_a_session() {
    for error in errors() {
        let again = [Rejection::NoLeader, Rejection::Stopped].map(ClientError::Rejected);
        if again.contains(&error) {
            continue;
        }
        let mut table = Table::new();
        let (_, mut answered) = table.command();
        table.link();
        let number = table.sent()[0].number;
        table.told(&answer(number, Err(error.clone()))).unwrap();
        assert_eq!(answered.try_recv().unwrap(), Err(error));
    }
}

#[test]
fn c4_a_call_is_withdrawn_before_it_is_sent_and_not_after() {
    let mut table = Table::new();
    let (early, _answered) = table.command();
    let (late, _kept) = table.command();
    assert_eq!(early.withdraw(), Phase::Waiting(Rejection::Unreachable));
    table.link();
    let sent = table.sent();
    assert_eq!(sent.len(), 1);
    assert_eq!(late.withdraw(), Phase::Sent);
    // What is certainly not proposed is certain again.
    table.told(&answer(sent[0].number, Err(no_leader()))).unwrap();
    assert_eq!(late.withdraw(), Phase::Waiting(Rejection::NoLeader));
    table.calls.end();
    table.link();
    assert!(table.sent().is_empty());
}

#[test]
fn calls_without_time_or_anybody_who_waits_are_not_sent() {
    let mut table = Table::new();
    let (_, answered) = table.command();
    drop(answered);
    let (progress, _answered) = table.command();
    table.now += Duration::from_secs(5);
    table.link();
    assert!(table.sent().is_empty());
    assert_eq!(progress.withdraw(), Phase::Waiting(Rejection::Unreachable));
    let (_, _answered) = table.command();
    table.calls.sweep(table.now);
    assert!(table.calls.has_waiting());
    table.calls.sweep(table.now + Duration::from_secs(5));
    assert!(!table.calls.has_waiting());
}

#[test]
fn a_node_that_breaks_the_format_is_left() {
    let mut table = Table::new();
    table.calls.begin(HELLO);
    let stranger = Welcome { cluster: ClusterId::new(2), ..WELCOME };
    assert_eq!(table.told(&Frame::Welcome(stranger)), Err(Breach::Stranger));
    assert_eq!(table.told(&answer(1, Ok(b""))), Err(Breach::Number(1)));
    table.told(&Frame::Welcome(WELCOME)).unwrap();
    assert_eq!(table.told(&Frame::Welcome(WELCOME)), Err(Breach::OutOfTurn));
    assert_eq!(table.told(&Frame::Hello(HELLO)), Err(Breach::OutOfTurn));
    assert_eq!(table.told(&Frame::Request(request(1, b""))), Err(Breach::OutOfTurn));
    assert_eq!(table.told(&answer(9, Ok(b""))), Err(Breach::Number(9)));
}

/// Whatever a node that stops has not taken any more went elsewhere as unknown, though it certainly
/// was not proposed.
#[test]
fn what_a_node_did_not_take_before_its_goodbye_is_sent_elsewhere() {
    let mut desk = desk(AMPLE);
    let mut table = Table::new();
    let (_, mut taken) = table.command();
    let (left, _answered) = table.command();
    table.link();
    let sent = table.sent();
    desk.feed(&bytes_of(&Frame::Request(sent[0].clone())));
    assert_eq!(desk.next(), Ok(Some(sent[0].clone())));
    assert!(!desk.leave(), "one is owed its answer");
    desk.answer(sent[0].number, Ok(done(b"")));
    assert!(!desk.leave(), "it is to be sent yet");
    desk.feed(&bytes_of(&Frame::Request(sent[1].clone())));
    assert_eq!(desk.next(), Ok(None), "nothing is taken in after goodbye");
    let said = desk.out().split();
    assert!(desk.leave());
    table.calls.feed(&said, table.now).unwrap();
    assert_eq!(taken.try_recv().unwrap(), Ok(done(b"")));
    assert_eq!(table.calls.leaves_at(table.now), Some(table.now));
    table.calls.end();
    table.link();
    assert_eq!(table.sent().len(), 1);
    assert_eq!(left.withdraw(), Phase::Sent);
}

// ---------------------------------------------------------------------------------------------
// Commands in the session

impl Table {
    /// Opens the session.
    fn open(&mut self) -> SessionId {
        let sent = self.sent();
        let Some(Request { number, wanted: Wanted::Open(session, ttl), .. }) = sent.first() else {
            panic!("the session is opened first: {sent:?}");
        };
        assert_eq!(*ttl, SessionTtl::from_millis(1000));
        self.told(&answer(*number, Ok(b""))).unwrap();
        *session
    }

    /// The only request that is sent now: its number on the link, and its name.
    fn named(&mut self) -> (u64, SessionRequest) {
        let sent = self.sent();
        match sent.as_slice() {
            [Request { number, wanted: Wanted::Command(Some(name), _), timeout }] => {
                assert_eq!(*timeout, Duration::from_secs(2), "another node can be asked");
                (*number, *name)
            }
            other => panic!("one command: {other:?}"),
        }
    }
}

fn name(session: SessionId, request: u64, below: u64) -> SessionRequest {
    let (request, below) = (RequestNumber::new(request), RequestNumber::new(below));
    SessionRequest { session, request, acknowledged_below: below }
}

#[test]
fn c3_a_command_in_doubt_is_sent_again_under_its_number_and_no_other() {
    let doubts = [Uncertainty::LeaderChanged, Uncertainty::LinkLost, Uncertainty::Timeout]
        .map(ClientError::Unknown);
    let mut table = Table::new();
    let (progress, mut answered) = table.once();
    table.link();
    let session = table.open();
    let (mut number, first) = table.named();
    assert_eq!(first, name(session, 1, 1));
    for doubt in doubts {
        table.told(&answer(number, Err(doubt))).unwrap();
        table.calls.end();
        table.link();
        let (again, same) = table.named();
        assert_eq!(same, first);
        assert!(again > number, "on the link it is another request");
        number = again;
    }
    table.calls.end();
    table.link();
    (number, _) = table.named();
    // It is in doubt until it is answered, whatever becomes of later attempts.
    for error in [no_leader(), ClientError::Rejected(Rejection::Busy)] {
        table.told(&answer(number, Err(error))).unwrap();
        assert!(table.calls.leaves_at(table.now).is_some());
        table.calls.end();
        table.link();
        let (again, same) = table.named();
        assert_eq!(same, first);
        number = again;
    }
    assert_eq!(progress.withdraw(), Phase::Sent);
    table.told(&answer(number, Ok(b"r"))).unwrap();
    assert_eq!(answered.try_recv().unwrap(), Ok(done(b"r")));
    let (_, _answered) = table.once();
    assert_eq!(table.named().1, name(session, 2, 2), "and is acknowledged");
}

#[test]
fn c4_a_command_in_doubt_is_never_said_to_be_rejected() {
    for error in errors() {
        let mut table = Table::new();
        let (_, mut answered) = table.once();
        table.link();
        table.open();
        let (number, _) = table.named();
        table.told(&answer(number, Err(ClientError::Unknown(Uncertainty::LinkLost)))).unwrap();
        let (number, _) = table.named();
        table.now += Duration::from_secs(5);
        table.told(&answer(number, Err(error.clone()))).unwrap();
        let outcome = answered.try_recv().unwrap();
        let honest = match &error {
            ClientError::Rejected(_) => matches!(outcome, Err(ClientError::Unknown(_))),
            ClientError::Unknown(_) | ClientError::ReplyNotKept { .. } => outcome == Err(error),
        };
        assert!(honest, "{outcome:?}");
    }
}

#[test]
fn a_session_that_is_lost_is_followed_by_another_unless_a_command_is_in_doubt() {
    let unknown = || Err(ClientError::Rejected(Rejection::SessionUnknown));
    let mut table = Table::new();
    let (_, mut certain) = table.once();
    let (_, mut doubtful) = table.once();
    table.link();
    let session = table.open();
    let sent = table.sent();
    assert_eq!(sent.len(), 2);
    let lost = ClientError::Unknown(Uncertainty::LeaderChanged);
    table.told(&answer(sent[1].number, Err(lost))).unwrap();
    table.told(&answer(sent[0].number, unknown())).unwrap();
    let other = table.open();
    assert_ne!(other, session);
    let (number, again) = table.named();
    assert_eq!(again, name(other, 1, 1));
    let gone = Err(ClientError::Unknown(Uncertainty::SessionLost));
    assert_eq!(doubtful.try_recv().unwrap(), gone, "nobody remembers whether it was applied");
    table.told(&answer(number, Ok(b""))).unwrap();
    assert_eq!(certain.try_recv().unwrap(), Ok(done(b"")));
}

#[test]
fn what_may_still_be_sent_is_not_acknowledged() {
    let mut table = Table::new();
    let (_, mut first) = table.once();
    let (_, second) = table.once();
    table.link();
    let session = table.open();
    let sent = table.sent();
    let (_, _third) = table.once();
    table.told(&answer(sent[0].number, Err(ClientError::Unknown(Uncertainty::LinkLost)))).unwrap();
    let (number, again) = table.named();
    assert_eq!(again, name(session, 1, 1));
    // Nobody waits for the second any more: it is not sent again, and is acknowledged with the first.
    drop(second);
    table.told(&answer(sent[1].number, Err(ClientError::Unknown(Uncertainty::LinkLost)))).unwrap();
    assert_eq!(table.named().1, name(session, 3, 1));
    table.told(&answer(number, Ok(b""))).unwrap();
    assert!(first.try_recv().unwrap().is_ok());
    let (_, _fourth) = table.once();
    assert_eq!(table.named().1, name(session, 4, 3));
}

#[test]
fn a_session_is_opened_once_under_each_id_and_reads_do_not_wait_for_it() {
    let mut table = Table::new();
    let (_, _kept) = table.once();
    table.link();
    let sent = table.sent();
    let [Request { number, wanted: Wanted::Open(first, _), .. }] = sent.as_slice() else {
        panic!("{sent:?}");
    };
    let (_, _asked) = table.read();
    assert!(matches!(table.sent()[..], [Request { wanted: Wanted::Read(..), .. }]));
    // Nobody can say whether it is open: it would expire, and be opened again by what comes late.
    table.told(&answer(*number, Err(ClientError::Unknown(Uncertainty::LeaderChanged)))).unwrap();
    let second = table.open();
    assert_ne!(second, *first);
    assert_eq!(table.named().1, name(second, 1, 1));
}

#[test]
fn where_no_session_can_be_opened_commands_are_told_why() {
    let mut table = Table::new();
    let (_, mut answered) = table.once();
    table.link();
    let number = table.sent()[0].number;
    let busy = ClientError::Rejected(Rejection::Busy);
    table.told(&answer(number, Err(busy.clone()))).unwrap();
    assert_eq!(answered.try_recv().unwrap(), Err(busy));
}
