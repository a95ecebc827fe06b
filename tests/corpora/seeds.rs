//! The inputs that fuzzing begins with: one of each kind of thing that a target reads.
//!
//! `CORPUS_WRITE=1 cargo test --test corpora seeds` writes them to fuzz/corpus, each under a name
//! that begins with `seed-`, after a format has changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use paxos_core::ballot::Ballot;
use paxos_core::codec;
use paxos_core::ids::{
    ClientId, ClusterId, GroupId, Incarnation, LogClock, ReplicaId, RequestNumber, SessionId,
    SessionTtl, Slot,
};
use paxos_core::membership::Membership;
use paxos_core::port::{Channel, Lane};
use paxos_core::sim::Kind;
use paxos_core::snapshot::{Governs, ImageDigest, SnapshotMeta};
use paxos_core::value::{Batch, Command, Level};

use crate::client_wire::{self, Answer, Done, Frame, Request, Wanted};
use crate::error::{ClientError, Rejection, Uncertainty};
use crate::frame::{self, HostFrame, Refusal};
use crate::machine::StateDigest;
use crate::replay::{corpus, fuzz_dir};
use crate::request::{Consistency, SessionRequest};
use crate::resp::Parser;
use crate::snapshot_frame::{self, Name, SnapshotFrame};
use crate::targets;
use crate::wire::{self, Greeting, Hello};

type Seeds = BTreeMap<String, Vec<u8>>;

/// The protocol's messages and values, from the file that pins their bytes.
fn core_codec() -> Seeds {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("paxos-core/tests/golden/codec.txt");
    let text = fs::read_to_string(path).expect("the golden file is there");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let entry = |line: &str| {
        let (name, hex) = line.split_once(' ').expect("a name and its bytes");
        let form = match name {
            "value/noop" => 3,
            name if name.starts_with("value/membership") => 4,
            name if name.starts_with("value/batch") => 5,
            _ => 0,
        };
        let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex digits");
        let bytes = (0..hex.len()).step_by(2).map(byte);
        (name.replace('/', "-"), std::iter::once(form).chain(bytes).collect())
    };
    lines.map(entry).collect()
}

fn host_frame() -> Seeds {
    let origin = Incarnation::new(3, 0xdead_beef);
    let command =
        |len| Command::apply(ClientId::new(9), RequestNumber::new(4), Bytes::from(vec![7; len]));
    let batch = Batch::new(LogClock::default(), vec![command(9), command(0)]);
    let target = Incarnation::new(1, 2);
    let (slot, ballot) = (Slot::new(12), Ballot::new(5, ReplicaId::new(2)));
    let known = Level { library: 3, machine: 1 << 20 };
    let frames = [
        ("forward", HostFrame::Forward { origin, target, sequence: 77, batch }),
        ("taken", HostFrame::Taken { origin, sequence: u64::MAX, slot, ballot }),
        ("refused", HostFrame::Refused { origin, sequence: 1, reason: Refusal::StorageFull }),
        ("ask-point", HostFrame::AskPoint { origin, sequence: 5 }),
        ("point", HostFrame::Point { origin, sequence: 5, slot }),
        ("no-point", HostFrame::NoPoint { origin, sequence: 6 }),
        ("mark", HostFrame::Mark { origin, slot, digest: StateDigest(1 << 99), asks: true }),
        ("announce", HostFrame::Announce { origin, features: 1, known, asks: true }),
    ];
    let encode = |frame| frame::encode(GroupId::new(0), frame).concat();
    frames.iter().map(|(name, frame)| ((*name).to_owned(), encode(frame))).collect()
}

fn quic_wire() -> Seeds {
    let hello = Hello {
        versions: wire::SPOKEN,
        replica: ReplicaId::new(2),
        frame_max: 1 << 20,
        features: 5,
        cluster: ClusterId::new(0xc1),
        incarnation: Incarnation::new(4, 9),
    };
    let greet = |form: u8, lane, greeting| {
        [&[form][..], &wire::prelude(lane), &hello.encode(greeting)].concat()
    };
    // A largest frame of 2 KiB, pieces of 8 bytes; then frames of every channel, a large one and an
    // empty one, one of a channel that may be skipped, and the beginning of another.
    let mut stream = vec![2, 0, 8, 7];
    let mut put = |header: &[u8], len| {
        stream.extend_from_slice(header);
        stream.extend_from_slice(&vec![b'x'; len]);
    };
    let lens = [(Channel::Core, 5), (Channel::Host, 1100), (Channel::Snapshot, 0)];
    for (channel, len) in lens {
        put(&wire::header(len, channel), len as usize);
    }
    put(&[3, 0, 0, 0, 0x7f, 1, 1, 0], 3);
    put(&wire::header(9, Channel::Core), 4);
    [
        ("hello", greet(0, Lane::Control, Greeting::Hello)),
        ("hello-ack", greet(1, Lane::Bulk, Greeting::Ack)),
        ("frames", stream),
        ("close", vec![3, 8, 0, 0, 0]),
    ]
    .map(|(name, bytes)| (name.to_owned(), bytes))
    .into()
}

fn resp() -> Seeds {
    let streams: [(&str, &[u8]); 5] = [
        (
            "requests",
            b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\n\0\r\n*1\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n",
        ),
        ("empty", b"*0\r\n*-1\r\n\r\n*1\r\n$0\r\n\r\n"),
        ("inline", b"  set 'a\\'b' \"\\x41\\n\\\"\" plain \r\nping\n"),
        ("claims", b"*1024\r\n$1000000\r\nabc"),
        ("wrong", b"*2\r\n$3\r\nGET\r\n:1\r\n"),
    ];
    let input = |bytes: &[u8]| [&[6], bytes].concat();
    streams.into_iter().map(|(name, bytes)| (name.to_owned(), input(bytes))).collect()
}

fn log_recovery() -> Seeds {
    let inputs: [(&str, &[u8]); 10] = [
        ("killed", &[0]),
        ("closed", &[1]),
        ("truncated", &[0, 1, 0, 32, 0, 0]),
        ("flipped", &[1, 1, 9, 16, 0, 1, 3]),
        ("set", &[0, 2, 70, 17, 0, 2, 0xff]),
        ("zeroed", &[0, 2, 0, 17, 0, 3, 0, 4]),
        ("misdirected", &[0, 1, 0, 17, 0, 4, 2, 9, 0, 0]),
        ("removed", &[1, 0, 0, 0, 0, 5]),
        // A record's length, and a whole header, with good checksums.
        ("forged", &[4, 1, 1, 4, 16, 0, 4, 0xff, 0xff, 0xff, 0xff]),
        ("nothing-but", b"\x06\x01PAXOSWAL\x01\0\x02\0\x02\0\0\0"),
    ];
    inputs.map(|(name, bytes)| (name.to_owned(), bytes.to_vec())).into()
}

fn schedule() -> Seeds {
    // The cluster, and then for each fault: when, which, and its parts.
    let inputs: [(&str, &[u8]); 6] = [
        ("calm", &[7, 0]),
        ("crashes", &[1, 0, 90, 0, 0, 7, 40, 1, 5, 60, 0, 2, 1, 8]),
        ("partition", &[2, 0, 80, 4, 0, 1, 0, 200, 7, 50, 4, 1, 1, 4, 90, 7]),
        ("ambush", &[3, 0, 50, 3, 0, 2, 0, 6, 1, 1, 0, 30, 3, 4, 0, 0, 2, 9, 0, 0, 0]),
        ("weather", &[4, 0, 10, 9, 3, 200, 200, 5, 90, 8, 60, 2, 2, 1, 9, 40, 8, 0, 1, 9]),
        (
            "clocks",
            &[5, 0, 60, 15, 1, 1, 9, 60, 15, 2, 0, 255, 60, 14, 3, 2, 7, 99, 11, 2, 0, 1, 0],
        ),
    ];
    inputs.map(|(name, bytes)| (name.to_owned(), bytes.to_vec())).into()
}

/// A stream of one frame of each kind, and of each alone, in pieces of 8 bytes.
fn client_frame() -> Seeds {
    let request = |number, wanted| {
        let timeout = Duration::from_millis(1500);
        Frame::Request(Request { number, timeout, wanted })
    };
    let name = SessionRequest {
        session: SessionId::new(0x5e55),
        request: RequestNumber::new(9),
        acknowledged_below: RequestNumber::new(4),
    };
    let (cluster, group) = (ClusterId::new(0xc1), GroupId::new(0));
    let payload = Bytes::from_static(b"payload");
    let (slot, lag_max) = (Slot::new(12), Duration::from_millis(250));
    let read = |number, how| request(number, Wanted::Read(how, payload.clone()));
    let answer = |number, outcome| Frame::Answer(Answer { number, outcome });
    let welcome = client_wire::Welcome {
        cluster,
        group,
        frame_max: 1 << 20,
        requests_max: 64,
        replica: ReplicaId::new(2),
        leader: Some(ReplicaId::new(3)),
    };
    let words = Rejection::Answer("no such key".into());
    let level = Rejection::Level { needed: 7, raised: 6 };
    let frames = [
        ("hello", Frame::Hello(client_wire::Hello { cluster, group, frame_max: 1 << 20 })),
        ("welcome", Frame::Welcome(welcome)),
        ("command", request(1, Wanted::Command(None, payload.clone()))),
        ("named", request(2, Wanted::Command(Some(name), payload.clone()))),
        ("open", request(3, Wanted::Open(name.session, SessionTtl::from_millis(60_000)))),
        ("read", read(4, Consistency::Linearizable)),
        ("read-quorum", read(5, Consistency::Quorum)),
        ("read-at-least", read(6, Consistency::AtLeast(slot))),
        ("read-stale", read(7, Consistency::Stale { lag_max })),
        ("done", answer(1, Ok(Done { slot, payload }))),
        ("rejected", answer(2, Err(ClientError::Rejected(words)))),
        ("level", answer(5, Err(ClientError::Rejected(level)))),
        ("unknown", answer(3, Err(ClientError::Unknown(Uncertainty::LinkLost)))),
        ("not-kept", answer(4, Err(ClientError::ReplyNotKept { slot }))),
        ("goodbye", Frame::Goodbye),
    ];
    let stream = |frames: &[Frame]| {
        let mut out = BytesMut::from(&[0, 8, 7][..]);
        for frame in frames {
            client_wire::encode(&mut out, frame);
        }
        out.to_vec()
    };
    let all: Vec<_> = frames.iter().map(|(_, frame)| frame.clone()).collect();
    let one = |(name, frame): (&str, Frame)| (name.to_owned(), stream(&[frame]));
    frames.into_iter().map(one).chain([("stream".to_owned(), stream(&all))]).collect()
}

/// As they are sent, and a chunk whose digest the target makes right.
fn snapshot_frame() -> Seeds {
    let name = Name { slot: Slot::new(7), digest: ImageDigest(1 << 90) };
    let voters = [1, 2, 3].map(ReplicaId::new);
    let membership = Membership::voters_only(voters).expect("three voters are a membership");
    let meta = SnapshotMeta {
        group: GroupId::new(0),
        slot: Slot::new(7),
        clock: LogClock::from_millis(3),
        governs: vec![Governs { from: Slot::FIRST, membership }],
        bytes: 11,
        digest: ImageDigest(4),
    };
    let above = Slot::new(3);
    let chunk = SnapshotFrame::Chunk { name, offset: 5, bytes: Bytes::from_static(b"image") };
    let frames = [
        ("ask", 0, SnapshotFrame::Ask { above, wanted: None }),
        ("ask-for", 0, SnapshotFrame::Ask { above, wanted: Some(name) }),
        ("offer", 0, SnapshotFrame::Offer(meta)),
        ("nothing", 0, SnapshotFrame::Nothing { above }),
        ("read", 0, SnapshotFrame::Read { name, offset: 5, len: 9 }),
        ("chunk", 0, chunk.clone()),
        ("chunk-signed", 1, chunk),
        ("gone", 0, SnapshotFrame::Gone { name }),
    ];
    let encode = |form: u8, frame| {
        [&[form], &snapshot_frame::encode(GroupId::new(0), frame).concat()[..]].concat()
    };
    frames.iter().map(|(name, form, frame)| ((*name).to_owned(), encode(*form, frame))).collect()
}

fn of(target: &str) -> Seeds {
    match target {
        "client_frame" => client_frame(),
        "core_codec" => core_codec(),
        "host_frame" => host_frame(),
        "log_recovery" => log_recovery(),
        "quic_wire" => quic_wire(),
        "resp" => resp(),
        "schedule" => schedule(),
        "snapshot_frame" => snapshot_frame(),
        other => panic!("{other} has no seeds"),
    }
}

#[test]
fn the_seeds_are_in_the_corpora() {
    for (target, _) in targets::ALL {
        let dir = fuzz_dir().join("corpus").join(target);
        let seeds = of(target);
        if std::env::var_os("CORPUS_WRITE").is_some() {
            fs::create_dir_all(&dir).expect("the corpus can be written");
            for (name, bytes) in &seeds {
                fs::write(dir.join(format!("seed-{name}")), bytes).expect("so can its files");
            }
        }
        let there: BTreeMap<_, _> = corpus(target).into_iter().collect();
        for (name, bytes) in &seeds {
            let found = there.get(&format!("{target}/seed-{name}"));
            assert_eq!(found, Some(bytes), "{target}/seed-{name}: see the head of this file");
        }
        let old = there.keys().filter_map(|name| name.split_once("/seed-"));
        for (_, name) in old {
            assert!(seeds.contains_key(name), "{target}/seed-{name} is no seed");
        }
    }
}

/// A corpus of refused inputs would exercise the first check alone.
#[test]
fn the_corpora_hold_one_of_each_kind() {
    let kinds: BTreeSet<_> = corpus("core_codec")
        .into_iter()
        .filter(|(_, input)| matches!(input.first(), Some(0 | 1)))
        .filter_map(|(_, input)| codec::decode(Bytes::from(input).slice(1..)).ok())
        .map(|message| Kind::of(&message.body))
        .collect();
    assert_eq!(kinds, Kind::ALL.into(), "every message");
    let frames: Vec<_> = corpus("host_frame")
        .into_iter()
        .filter_map(|(_, input)| frame::decode(GroupId::new(0), input.into()))
        .collect();
    assert!(frames.iter().any(|frame| matches!(frame, HostFrame::Forward { .. })));
    assert!(frames.iter().any(|frame| matches!(frame, HostFrame::Taken { .. })));
    assert!(frames.iter().any(|frame| matches!(frame, HostFrame::Refused { .. })));
    assert!(frames.iter().any(|frame| matches!(frame, HostFrame::AskPoint { .. })));
    assert!(frames.iter().any(|frame| matches!(frame, HostFrame::Point { .. })));
    assert!(frames.iter().any(|frame| matches!(frame, HostFrame::NoPoint { .. })));
    assert!(frames.iter().any(|frame| matches!(frame, HostFrame::Mark { .. })));
    assert!(frames.iter().any(|frame| matches!(frame, HostFrame::Announce { .. })));
    let bodies = corpus("client_frame").into_iter().flat_map(|(_, input)| {
        let (mut assembler, mut rest) = (client_wire::Assembler::new(1 << 16), &input[3..]);
        std::iter::from_fn(|| assembler.next(&mut rest).ok().flatten()).collect::<Vec<_>>()
    });
    let kinds: BTreeSet<_> = bodies
        .filter_map(|body| {
            let kind = body.first().copied();
            client_wire::decode(body).ok().and(kind)
        })
        .collect();
    assert_eq!(kinds, (1..=7).collect(), "every frame of clients");
    let kinds: BTreeSet<_> = corpus("snapshot_frame")
        .into_iter()
        .filter_map(|(_, input)| {
            let kind = input.get(2).copied();
            let frame = Bytes::from(input).slice(1..);
            snapshot_frame::decode(GroupId::new(0), frame).and(kind)
        })
        .collect();
    assert_eq!(kinds, (1..=6).collect(), "every frame about snapshots");
    for (form, greeting) in [(0, Greeting::Hello), (1, Greeting::Ack)] {
        let at = 1 + wire::PRELUDE_LEN;
        let greets = |(_, input): &(String, Vec<u8>)| {
            let header = input.get(at..).and_then(|rest| rest.first_chunk());
            input[0] % 4 == form
                && header.is_some_and(|header| Hello::body_len(*header, greeting).is_ok())
        };
        assert!(corpus("quic_wire").iter().any(greets), "{greeting:?}");
    }
    let asks = |(_, input): &(String, Vec<u8>)| {
        let mut parser = Parser::new();
        parser.buffer_mut().extend_from_slice(&input[1..]);
        parser.next(&mut Vec::new()) == Ok(true)
    };
    assert!(corpus("resp").iter().filter(|input| asks(input)).count() > 1, "requests");
}
