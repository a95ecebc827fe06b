//! Founding a cluster on slots that another left: the rules of docs/protocol.md §17, one by one, each
//! quoted word for word.

use bytes::Bytes;
use paxos_core::config::Config;
use paxos_core::durable::{Write, WriteBatch};
use paxos_core::founding::{Founding, FoundingError, Grounds, founded, salvage};
use paxos_core::ids::{
    ClientId, ClusterId, GroupId, Incarnation, LogClock, RequestNumber, SessionId, SessionTtl, Slot,
};
use paxos_core::membership::Membership;
use paxos_core::message::{Body, Message, Prepare};
use paxos_core::output::Role;
use paxos_core::port::{Recovered, Start};
use paxos_core::session::{Bounds, SessionTable, Verdict};
use paxos_core::snapshot::SnapshotMeta;
use paxos_core::value::{Batch, Command, CommandKind, Value};
use std::sync::Arc;

use crate::bed::{
    Bed, ballot, blank, id, members, promise, remembered, slot, snapshot, text, value,
};

const OLD: SessionId = SessionId::new(7);
const LATE: SessionId = SessionId::new(8);

fn in_kind(kind: CommandKind, text: &str) -> Command {
    Command { kind, ..Command::apply(ClientId::new(1), RequestNumber::new(1), text_of(text)) }
}

fn text_of(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn request(session: SessionId, number: u64) -> CommandKind {
    CommandKind::InSession { session, request: RequestNumber::new(number) }
}

fn opening(session: SessionId) -> CommandKind {
    CommandKind::OpenSession { session, ttl: SessionTtl::from_millis(60_000) }
}

fn batch(clock: u64, commands: Vec<Command>) -> Value {
    Value::Batch(Batch::new(LogClock::from_millis(clock), commands))
}

/// A table in which [`OLD`] is known, and its request 1 applied.
fn table(clock: u64) -> SessionTable {
    let mut table = SessionTable::new(Bounds::default());
    table.begin(LogClock::from_millis(clock));
    table.open(OLD, SessionTtl::from_millis(60_000));
    table.decide(OLD, RequestNumber::new(1), RequestNumber::new(1));
    table
}

fn meta(at: u64, clock: u64, membership: &Membership) -> SnapshotMeta {
    SnapshotMeta { clock: LogClock::from_millis(clock), ..snapshot(at, membership) }
}

/// The writes of a replica of three that begins with a snapshot of slot 4 and these values after it.
fn writes(own: u16, values: &[Value]) -> (Slot, Vec<Write>) {
    let membership = members(3, 8);
    let facts = founded(&meta(4, 50, &members(5, 8)), GroupId::default(), &membership);
    let mut founding =
        Founding::begin(blank(own, &membership), Some((&facts, &table(50)))).unwrap();
    for value in values {
        founding.fill(value.clone());
    }
    let (last, batch) = founding.finish();
    (last, batch.iter().flat_map(WriteBatch::writes).cloned().collect())
}

/// The slots that are said to be chosen, with their values.
fn chosen(writes: &[Write]) -> impl Iterator<Item = (u64, &Value)> {
    writes.iter().filter_map(|write| {
        if let Write::Chosen { slot, value } = write { Some((slot.number(), value)) } else { None }
    })
}

/// What its storage gives when it is started.
fn started(own: u16, values: &[Value]) -> Recovered {
    let membership = members(3, 8);
    let (_, writes) = writes(own, values);
    let facts = founded(&meta(4, 50, &members(5, 8)), GroupId::default(), &membership);
    Recovered { snapshot: Some(facts), ..remembered(own, &membership, &writes) }
}

/// **B1** A cluster that is founded has an id that was never used, and replicas that have promised
/// nothing, voted for nothing and remember no peer. Of the other cluster it has slots and nothing else.
#[test]
fn b1_of_the_other_cluster_there_are_slots_and_nothing_else() {
    let values = [value("a"), value("b")];
    let recovered = started(1, &values);
    assert_eq!((recovered.promised, recovered.votes.len(), recovered.peers.len()), (None, 0, 0));
    let membership = members(3, 8);
    let used = [
        Recovered { start: Start::Again, ..blank(1, &membership) },
        Recovered { promised: Some(ballot(1, 2)), ..blank(1, &membership) },
        Recovered { peers: vec![(id(2), Incarnation::first(1))], ..blank(1, &membership) },
        Recovered { chosen: vec![(slot(1), value("x"))], ..blank(1, &membership) },
    ];
    for used in used {
        assert_eq!(Founding::begin(used, None).unwrap_err(), FoundingError::NotEmpty);
    }

    // A member of the other cluster, back from where it was, is not answered, whatever it promised.
    let mut bed = Bed::start(recovered, Config::default());
    let prepare = Prepare { ballot: ballot(99, 2), from: slot(1) };
    let origin = bed.origin_of(id(2));
    let cluster = ClusterId::new(0xDEAD);
    let stranger = paxos_core::message::Origin { cluster, ..origin };
    bed.replica.handle_message(id(2), Message { origin: stranger, body: prepare.into() }, bed.now);
    bed.drain();
    bed.sync();
    assert!(bed.take_sent().is_empty(), "it is not answered");
    assert!(bed.replica.status().promised < Some(ballot(99, 2)));
    bed.replica.handle_message(id(2), Message { origin, body: prepare.into() }, bed.now);
    bed.drain();
    bed.sync();
    assert!(bed.has_sent("Promise"), "one of its own is");
}

/// **B2** Every replica of its first membership begins with the same slots, from the first one on,
/// each of them chosen and committed: those of a snapshot, and the values of the slots after it.
#[test]
fn b2_every_replica_begins_with_the_same_slots() {
    let values = [value("a"), Value::Noop, value("b")];
    let (last, first) = writes(1, &values);
    assert_eq!(last, slot(8), "one more closes the sessions");
    for own in 2..=3 {
        assert_eq!(writes(own, &values).1, first);
    }
    let mut bed = Bed::start(started(1, &values), Config::default());
    assert_eq!((bed.committed(), bed.replica.status().trimmed), (slot(8), slot(4)));
    // Nothing is proposed down there, and the next command gets the slot after it.
    let led = bed.campaign(&[2, 3]);
    bed.receive(id(2), promise(led, 9, slot(8), Vec::new()));
    bed.sync();
    assert_eq!(bed.role(), Role::Leader);
    assert_eq!(bed.propose("next").slot, slot(9));
    bed.drain();
    assert!(bed.accepts().iter().all(|accept| accept.first == slot(9)), "{:?}", bed.accepts());
}

/// **B3** A membership in a slot that it begins with is replaced by a no-op: it governs nothing there.
/// The first membership governs every slot from the first one on, also in what is said of the snapshot.
#[test]
fn b3_the_first_membership_governs_from_the_first_slot_on() {
    let others = Value::Membership(Arc::new(members(5, 8)));
    let (_, writes) = writes(1, &[value("a"), others]);
    let kept: Vec<_> = chosen(&writes).map(|(at, value)| (at, text(value))).take(2).collect();
    assert_eq!(kept, [(5, "a".to_owned()), (6, "no-op".to_owned())]);

    let (old, new) = (members(5, 8), members(3, 8));
    let before = meta(4, 50, &old);
    let after = founded(&before, GroupId::new(9), &new);
    let [governs] = after.governs.as_slice() else { panic!("one membership governs") };
    assert_eq!((governs.from, &governs.membership), (Slot::FIRST, &new));
    assert_eq!((after.bytes, after.digest), (before.bytes, before.digest));
    // Facts that say something else are refused.
    let begun = Founding::begin(blank(1, &new), Some((&before, &table(50))));
    assert_eq!(begun.unwrap_err(), FoundingError::Foreign);
    let facts = founded(&before, GroupId::default(), &new);
    let begun = Founding::begin(blank(1, &new), Some((&facts, &table(49))));
    assert_eq!(begun.unwrap_err(), FoundingError::Table);
}

/// **B4** The last of these slots close every session that is known in the slots before them.
#[test]
fn b4_the_last_slots_close_every_session() {
    let closed = SessionId::new(9);
    let values = [
        batch(60, vec![in_kind(request(OLD, 1), "again"), in_kind(request(OLD, 2), "new")]),
        batch(55, vec![in_kind(opening(LATE), ""), in_kind(opening(closed), "")]),
        batch(70, vec![in_kind(CommandKind::CloseSession { session: closed }, "")]),
        batch(65, vec![in_kind(request(LATE, 1), "late")]),
    ];
    let (last, writes) = writes(1, &values);
    assert_eq!(last, slot(9));
    let mut table = table(50);
    let mut applied = Vec::new();
    for write in &writes {
        let Write::Chosen { value: Value::Batch(batch), .. } = write else { continue };
        table.begin(batch.clock());
        for command in batch.commands() {
            match command.kind {
                CommandKind::InSession { session, request } => {
                    let verdict = table.decide(session, request, command.acknowledged_below);
                    if verdict == Verdict::Apply {
                        applied.push(command.payload.clone());
                    }
                }
                CommandKind::OpenSession { session, ttl } => drop(table.open(session, ttl)),
                CommandKind::CloseSession { session } => table.close(session),
                CommandKind::Apply | _ => panic!("{command:?}"),
            }
        }
    }
    assert_eq!(applied, ["new", "late"], "what was applied there is applied, once");
    assert!(table.is_empty(), "{table:?}");
    assert_eq!(table.clock(), LogClock::from_millis(70), "time does not go back, nor on");
    let Some(Write::Chosen { value: Value::Batch(closing), .. }) = writes.iter().rev().nth(1)
    else {
        panic!("{writes:?}")
    };
    assert_eq!(closing.commands().len(), 2, "{closing:?}");
    // Many are closed by several batches.
    let many = (1..=3000).map(|number| in_kind(opening(SessionId::new(number)), "")).collect();
    let (last, _) = self::writes(1, &[batch(60, many)]);
    assert_eq!(last, slot(4 + 1 + 3));
    // Where there is nothing, there is nothing to close.
    let founding = Founding::begin(blank(1, &members(3, 8)), None).unwrap();
    let (last, batch) = founding.finish();
    assert_eq!((last, batch.is_none()), (Slot::ZERO, true));
}

/// **B5** A directory that is founded is not started before all of this is durable in it; what was
/// cut short is no directory of the new cluster, and is thrown away.
///
/// Were one started all the same, it would know too little, but nothing that is wrong.
#[test]
fn b5_the_writes_say_what_is_trimmed_then_what_is_chosen_then_what_is_committed() {
    let values = [value("a"), value("b")];
    let (last, all) = writes(1, &values);
    assert_eq!(all.first(), Some(&Write::Trimmed(slot(4))));
    assert_eq!(all.last(), Some(&Write::Committed(last)));
    assert_eq!(chosen(&all).map(|(at, _)| at).collect::<Vec<_>>(), [5, 6, 7]);
    assert_eq!(all.len(), 5, "and nothing else: {all:?}");

    // In batches, one after the other, of the life that nobody lives.
    let membership = members(3, 8);
    let mut founding = Founding::begin(blank(1, &membership), None).unwrap();
    assert!(founding.take_batch().is_none());
    founding.fill(value("a"));
    assert_eq!((founding.next(), founding.gathered_bytes() > 0), (slot(2), true));
    let one = founding.take_batch().unwrap();
    assert_eq!(founding.gathered_bytes(), 0);
    founding.fill(value("b"));
    let (_, two) = founding.finish();
    let two = two.unwrap();
    assert_eq!((one.sequence().number(), two.sequence().number()), (1, 2));
    assert_eq!(one.origin().incarnation, Incarnation::first(0));
}

/// **B6** Who founds a cluster on what one replica of a lost quorum has keeps every slot up to its
/// committed prefix, and above it, up to the highest slot that it knows anything of, the value that it
/// knows to be chosen, else the one that it accepted last, else a no-op.
#[test]
fn b6_what_may_have_been_told_is_kept() {
    let accepted = |at: u64, round, text: &str| Write::Accepted {
        slot: slot(at),
        ballot: ballot(round, 2),
        value: value(text),
    };
    let history = [
        accepted(3, 1, "three"),
        accepted(4, 1, "four"),
        accepted(5, 1, "never"),
        accepted(5, 2, "five"),
        accepted(6, 2, "perhaps"),
        Write::Chosen { slot: slot(6), value: value("six") },
        accepted(9, 2, "nine"),
        Write::Committed(slot(3)),
    ];
    let survivor = remembered(1, &members(3, 8), &history);
    let kept: Vec<_> = salvage(&survivor)
        .into_iter()
        .map(|kept| (kept.slot.number(), text(&kept.value), kept.grounds))
        .collect();
    let expected = [
        (4, "four", Grounds::Accepted(ballot(1, 2))),
        (5, "five", Grounds::Accepted(ballot(2, 2))),
        (6, "six", Grounds::Chosen),
        (7, "no-op", Grounds::Unknown),
        (8, "no-op", Grounds::Unknown),
        (9, "nine", Grounds::Accepted(ballot(2, 2))),
    ];
    let expected = expected.map(|(slot, text, grounds)| (slot, text.to_owned(), grounds));
    assert_eq!(kept, expected);
    assert_eq!(salvage(&blank(1, &members(3, 8))), []);
    // A snapshot says that its slots are committed where the log does not.
    let snapshot = Some(meta(5, 0, &members(3, 8)));
    let jumped = Recovered { snapshot, ..survivor };
    let first = salvage(&jumped).into_iter().next().map(|kept| kept.slot);
    assert_eq!(first, Some(slot(6)));
}

/// A survivor's promise to a Prepare would say the same: the salvage is what P2 makes of it alone.
#[test]
fn what_is_salvaged_is_what_a_leader_would_have_adopted() {
    let history = [
        Write::Accepted { slot: slot(2), ballot: ballot(1, 2), value: value("two") },
        Write::Accepted { slot: slot(4), ballot: ballot(1, 2), value: value("four") },
        Write::Chosen { slot: slot(1), value: value("one") },
    ];
    let alone = members(1, 8);
    let survivor = remembered(1, &alone, &history);
    let kept: Vec<_> = salvage(&survivor).into_iter().map(|kept| (kept.slot, kept.value)).collect();
    let mut bed = Bed::start(survivor, Config::default());
    bed.lead(&[]);
    for _ in 0..8 {
        bed.sync();
    }
    assert_eq!(kept, bed.applied);
    assert!(!matches!(bed.sent.first(), Some((_, Body::Prepare(_)))), "there is nobody to ask");
}
