#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use core::time::Duration;

use paxos_core::ids::LogClock;

use super::*;
use crate::pace::{RECENT, WINDOW_MIN};

const NOW: Time = Time::from_nanos(100);
const PATIENCE: Duration = Duration::from_nanos(50);
const CLIENT: ClientId = ClientId::new(1);

fn queue(bytes_max: usize) -> Queue<u32> {
    let session = OwnSession::new(CLIENT, Duration::from_secs(9), PATIENCE);
    Queue::new(CLIENT, bytes_max, session, Arc::new(Lanes::new(10_000)))
}

/// A client asks for a command of so many bytes.
fn ask(queue: &mut Queue<u32>, client: u64, name: u32, len: usize, deadline: Time) {
    let asked = Asked::Command(Stamp::Single, vec![0; len].into());
    let request = Request { asked, deadline, waiter: name, lane: Lane::of(client) };
    let (Asked::Command(stamp, payload), waiting) = request.into_waiting() else {
        unreachable!("it is a command")
    };
    queue.push(stamp, payload, waiting, NOW);
}

/// A request that gives up after as many nanoseconds as its name says.
fn push(queue: &mut Queue<u32>, name: u32, len: usize) {
    let deadline = NOW.after(Duration::from_nanos(u64::from(name)));
    ask(queue, 1, name, len, deadline);
}

fn names(waiting: Vec<Waiting<u32>>) -> Vec<u32> {
    waiting.into_iter().map(|waiting| waiting.waiter).collect()
}

fn forwarded(sequence: u64) -> Forwarded {
    Forwarded { from: ReplicaId::new(2), origin: Incarnation::new(1, 1), sequence, bytes: 0 }
}

fn push_forwarded(queue: &mut Queue<u32>, mut forwarded: Forwarded, batch: Batch) {
    forwarded.bytes = batch.encoded_len() - BATCH_HEADER_LEN;
    queue.push_forwarded(forwarded, batch, NOW);
}

fn foreign(count: u64) -> Batch {
    let command = |n| Command::apply(ClientId::new(2), RequestNumber::new(n), Bytes::new());
    Batch::new(LogClock::default(), (1..=count).map(command).collect())
}

#[test]
fn everything_ready_shares_a_parcel_up_to_the_bound() {
    let room_for_two = BATCH_HEADER_LEN + 2 * (COMMAND_HEADER_LEN + 10);
    let mut queue = queue(room_for_two);
    for name in 1..=3 {
        push(&mut queue, name, 10);
    }
    let parcel = queue.next(NOW).unwrap();
    assert_eq!((parcel.numbers.first, parcel.numbers.count), (1, 2));
    assert_eq!(parcel.bytes, room_for_two);
    assert_eq!(parcel.deadline, Time::from_nanos(102));
    let batch = Batch::new(LogClock::default(), parcel.commands);
    assert_eq!(batch.encoded_len(), parcel.bytes);
    let parcel = queue.next(NOW).unwrap();
    assert_eq!((parcel.numbers.first, parcel.numbers.count), (3, 1));
    assert!(queue.next(NOW).is_none());
    assert!(queue.is_empty());
}

#[test]
fn clients_take_turns_however_much_one_asks_for() {
    let room_for_four = BATCH_HEADER_LEN + 4 * (COMMAND_HEADER_LEN + 10);
    let mut queue = queue(room_for_four);
    let ask = |queue: &mut Queue<u32>, client, name| {
        ask(queue, client, name, 10, NOW.after(PATIENCE));
    };
    for name in 0..1000 {
        ask(&mut queue, 1, name);
    }
    let names = |parcel: Parcel<u32>| names(parcel.waiting);
    assert_eq!(names(queue.next(NOW).unwrap()), [0, 1, 2, 3]);
    ask(&mut queue, 2, 2000);
    ask(&mut queue, 3, 3000);
    ask(&mut queue, 2, 2001);
    assert_eq!(names(queue.next(NOW).unwrap()), [4, 2000, 3000, 5]);
    assert_eq!(names(queue.next(NOW).unwrap()), [2001, 6, 7, 8]);
    assert_eq!(queue.pending(), 991);
}

#[test]
fn while_others_ask_a_client_has_a_window_under_way_and_alone_all_it_asks_for() {
    let mut queue = queue(1 << 20);
    let command = COMMAND_HEADER_LEN + 100;
    let (far, fitting) = (NOW.after(PATIENCE), WINDOW_MIN / command);
    for name in 0..1000 {
        ask(&mut queue, 1, name, 100, far);
    }
    let alone = queue.next(NOW).unwrap();
    assert_eq!(alone.numbers.count, 1000, "nobody else asks");
    for name in 0..1000 {
        ask(&mut queue, 1, name, 100, far);
    }
    ask(&mut queue, 2, 2000, 100, far);
    // What was under way before counts as well: the other one alone gets through.
    assert_eq!(names(queue.next(NOW).unwrap().waiting), [2000]);
    assert!(queue.next(NOW).is_none() && queue.pending() == 1000);
    let lanes = Arc::clone(queue.pace.lanes());
    let land = |bytes: usize| lanes.land(Lane::of(1), bytes as u64);
    land(1000 * command);
    assert!(lanes.take_awaited(), "the node's task is to be woken");
    let parcel = queue.next(NOW).unwrap();
    assert_eq!(parcel.waiting.len(), fitting);
    land(command);
    assert_eq!(queue.next(NOW).unwrap().waiting.len(), 1);
    // Whoever has nothing under way gets one through, whatever its size.
    ask(&mut queue, 3, 3000, 2 * WINDOW_MIN, far);
    ask(&mut queue, 3, 3001, 1, far);
    assert_eq!(names(queue.next(NOW).unwrap().waiting), [3000]);
    // After a time in which nobody else asked all of it goes.
    let later = NOW.after(RECENT * 2);
    ask(&mut queue, 1, 9, 100, far);
    queue.pace.asks(Owner::client(1), later);
    let rest = queue.next(later).unwrap();
    assert_eq!(rest.waiting.len(), 1000 - fitting - 1 + 1);
    assert_eq!(queue.pending(), 1);
}

#[test]
fn own_commands_without_end_leave_every_second_parcel_to_peers_in_turn() {
    let room_for_four = BATCH_HEADER_LEN + 4 * (COMMAND_HEADER_LEN + 10);
    let mut queue = queue(room_for_four);
    for name in 1..=100 {
        push(&mut queue, name, 10);
    }
    let from =
        |replica, sequence| Forwarded { from: ReplicaId::new(replica), ..forwarded(sequence) };
    for sequence in 1..=3 {
        push_forwarded(&mut queue, from(2, sequence), foreign(2));
    }
    push_forwarded(&mut queue, from(3, 9), foreign(2));
    let mut served = Vec::new();
    for _ in 0..8 {
        let parcel = queue.next(NOW).unwrap();
        assert!(parcel.bytes <= room_for_four);
        assert!(parcel.numbers.count >= 1, "own commands go on");
        served.push(parcel.forwards.iter().map(|f| (f.from.number(), f.sequence)).collect());
    }
    let served: Vec<Vec<(u16, u64)>> = served;
    assert_eq!(
        served,
        [vec![], vec![(2, 1)], vec![], vec![(3, 9)], vec![], vec![(2, 2)], vec![], vec![(2, 3)]]
    );
    assert_eq!(queue.forwarded_bytes(), 0);
}

#[test]
fn frames_for_another_node_are_small_by_client_and_grow_where_the_way_is_long() {
    let mut queue = queue(1 << 20);
    let command = COMMAND_HEADER_LEN + 1000;
    let deadline = NOW.after(PATIENCE);
    for name in 0..1000 {
        ask(&mut queue, 1, name, 1000, deadline);
    }
    let frame = |queue: &mut Queue<u32>, eighths| queue.next_forward(eighths, NOW).unwrap();
    for eighths in [0, 4] {
        let bytes = frame(&mut queue, eighths).bytes;
        assert!((FORWARD_BYTES - command..=FORWARD_BYTES).contains(&bytes), "{bytes}");
    }
    let bytes = frame(&mut queue, 5).bytes;
    assert!((4 * FORWARD_BYTES - command..=4 * FORWARD_BYTES).contains(&bytes), "{bytes}");
    // Many that ask for little share a frame.
    drop(queue.drain_pending());
    for client in 2..50 {
        ask(&mut queue, client, 1, 1000, deadline);
    }
    assert_eq!(frame(&mut queue, 0).numbers.count, 48);
    assert!(queue.next_forward(0, NOW).is_none() && queue.is_empty());
}

#[test]
fn a_peer_has_its_windows_under_way_and_another_peer_has_its_own() {
    let mut queue = queue(1 << 20);
    let from =
        |replica, sequence| Forwarded { from: ReplicaId::new(replica), ..forwarded(sequence) };
    for sequence in 1..=100 {
        push_forwarded(&mut queue, from(2, sequence), foreign(100));
    }
    push_forwarded(&mut queue, from(3, 1), foreign(1));
    let parcel = queue.next(NOW).unwrap();
    let of = |parcel: &Parcel<u32>, peer| {
        let forwards = parcel.forwards.iter().filter(|f| f.from == ReplicaId::new(peer));
        forwards.map(|forwarded| forwarded.bytes).sum::<usize>()
    };
    let (first, second) = (of(&parcel, 2), of(&parcel, 3));
    assert!(second > 0 && first > 0 && first <= 4 * WINDOW_MIN, "{first} {second}");
    assert!(queue.next(NOW).is_none(), "the rest waits until that stands in the log");
    for forwarded in &parcel.forwards {
        queue.land(forwarded.from, forwarded.bytes);
    }
    assert_eq!(of(&queue.next(NOW).unwrap(), 2), first);
}

#[test]
fn commands_of_peers_follow_the_own_and_can_be_dropped_again() {
    let mut queue = queue(10_000);
    push(&mut queue, 1, 10);
    push_forwarded(&mut queue, forwarded(8), foreign(3));
    push_forwarded(&mut queue, forwarded(9), foreign(1));
    let mut parcel = queue.next(NOW).unwrap();
    assert_eq!(parcel.commands.len(), 5);
    assert_eq!(parcel.numbers.count, 1);
    assert_eq!(queue.forwarded_bytes(), 0);
    let own = parcel.commands[0].clone();
    let back = parcel.without_forwards();
    assert_eq!(back.iter().map(|forwarded| forwarded.sequence).collect::<Vec<_>>(), [8, 9]);
    assert_eq!(parcel.commands, [own]);
    assert_eq!(parcel.bytes, BATCH_HEADER_LEN + COMMAND_HEADER_LEN + 10);
}

#[test]
fn what_is_put_back_keeps_its_numbers_and_waits_for_its_turn() {
    let mut queue = queue(10_000);
    push(&mut queue, 50, 1);
    let mut parcel = queue.next(NOW).unwrap();
    parcel.waiting.clear();
    parcel.retry_at = Time::from_nanos(120);
    queue.put_back(parcel);
    push(&mut queue, 10, 1);
    assert_eq!(queue.next_own(NOW).unwrap().numbers.first, 2);
    assert!(queue.next_own(NOW).is_none());
    assert_eq!(queue.retry_at(), Some(Time::from_nanos(120)));
    let mut parcel = queue.next_own(Time::from_nanos(120)).unwrap();
    assert_eq!(parcel.numbers.first, 1);
    parcel.retry_at = Time::from_nanos(1000);
    queue.put_back(parcel);
    assert!(queue.next_own(Time::from_nanos(120)).is_none());
    queue.hurry();
    assert_eq!(queue.next_own(Time::from_nanos(120)).unwrap().numbers.first, 1);
}

#[test]
fn expiry_takes_those_out_whose_time_is_over() {
    let mut queue = queue(10_000);
    for name in [30, 10, 20] {
        push(&mut queue, name, 1);
    }
    let (waiters, parcels) = queue.expire(Time::from_nanos(120));
    assert_eq!(names(waiters), [10, 20]);
    assert!(parcels.is_empty());
    let mut parcel = queue.next(NOW).unwrap();
    parcel.waiting.clear();
    queue.put_back(parcel);
    assert!(queue.expire(Time::from_nanos(129)).1.is_empty());
    assert_eq!(queue.expire(Time::from_nanos(130)).1.len(), 1);
    assert!(queue.is_empty());
}

fn push_own(queue: &mut Queue<u32>, name: u32, session: u32) {
    let place = Place { session, number: u64::from(name) };
    let load = Load { lane: Lane::of(1), bytes: 1 };
    let waiting = Waiting { waiter: name, deadline: Time::from_nanos(1000), load };
    queue.push(Stamp::Own(place, RequestNumber::new(1)), Bytes::new(), waiting, NOW);
}

/// The id of the session that a parcel opens.
fn opened(parcel: &Parcel<u32>) -> u64 {
    assert_eq!((parcel.commands.len(), parcel.numbers.count), (1, 1));
    assert!(parcel.waiting.is_empty(), "nobody waits for it");
    opens(&parcel.commands[0], CLIENT).unwrap()
}

#[test]
fn what_is_to_be_sent_in_the_session_waits_until_it_is_open() {
    let mut queue = queue(10_000);
    push_own(&mut queue, 1, 0);
    push_own(&mut queue, 2, 0);
    let parcel = queue.next(NOW).unwrap();
    assert_eq!((opened(&parcel), parcel.numbers.first), (1, 1));
    assert!(queue.is_opening(&parcel));
    assert_eq!(Batch::new(LogClock::default(), parcel.commands).encoded_len(), parcel.bytes);
    assert!(queue.next(NOW).is_none() && !queue.is_empty(), "it is asked for once");
    let late = NOW.after(PATIENCE);
    assert_eq!(opened(&queue.next(late).unwrap()), 2, "nobody can say what came of the first");
    queue.session_opened(1);
    let parcel = queue.next(late).unwrap();
    assert_eq!((parcel.numbers.first, parcel.numbers.count), (3, 2));
    for (command, request) in parcel.commands.iter().zip([1, 2].map(RequestNumber::new)) {
        let session = paxos_core::ids::SessionId::new(1 << 64 | 1);
        assert_eq!(command.kind, CommandKind::InSession { session, request });
        assert_eq!(command.acknowledged_below, RequestNumber::new(1));
    }
    assert!(!queue.is_opening(&parcel));
}

#[test]
fn what_was_to_be_sent_in_a_session_that_is_lost_goes_astray() {
    let mut queue = queue(10_000);
    push_own(&mut queue, 1, 0);
    push(&mut queue, 50, 1);
    assert_eq!(opened(&queue.next(NOW).unwrap()), 1);
    queue.session_opened(1);
    push_own(&mut queue, 2, 1);
    assert_eq!(names(queue.take_astray()), [1]);
    push_own(&mut queue, 3, 0);
    assert_eq!(names(queue.take_astray()), [3]);
    queue.session_opened(1);
    let parcel = queue.next(NOW).unwrap();
    assert_eq!(parcel.commands[0].kind, CommandKind::Apply, "that one is of no session");
    assert_eq!(opened(&queue.next(NOW).unwrap()), 2);
    assert_eq!(names(queue.drain_unopened()), [2]);
    assert!(queue.is_empty());
}
