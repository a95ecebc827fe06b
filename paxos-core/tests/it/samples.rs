//! Messages and values to encode: fixed ones for the golden file, and strategies for any.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use paxos_core::agreement::MembershipDigest;
use paxos_core::ballot::Ballot;
use paxos_core::ids::{
    ClientId, ClusterId, Epoch, GroupId, Incarnation, LogClock, Priority, ReplicaId, RequestNumber,
    SessionId, SessionTtl, Slot,
};
use paxos_core::membership::{Joining, LeaseTerms, Member, Membership};
use paxos_core::message::{
    Accept, Accepted, Body, Commit, Confirm, Confirmed, Connectivity, Echo, Fetch, Fetched,
    Heartbeat, Message, Origin, Prepare, Promise, PromiseEntry, Refused, Reject, Removed,
    SlotState, Survey, Surveyed, Transfer,
};
use paxos_core::quorum::{QuorumRule, VoterSet};
use paxos_core::value::{Batch, Command, CommandKind, Level, Value};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::sample::select;

pub(crate) fn origin() -> Origin {
    Origin {
        cluster: ClusterId::new(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff),
        group: GroupId::new(7),
        epoch: Epoch::new(3),
        membership: MembershipDigest::from_bytes([0x11, 0x12, 0x21, 0x22, 0x31, 0x32]),
        replica: ReplicaId::new(2),
        incarnation: Incarnation::new(5, 0xdead_beef),
    }
}

fn ballot(round: u64, leader: u16) -> Ballot {
    Ballot::new(round, ReplicaId::new(leader))
}

fn member(id: u16, addresses: &[&str], keys: &[u8]) -> Member {
    Member {
        id: ReplicaId::new(id),
        addresses: addresses.iter().map(|address| (*address).into()).collect(),
        keys: keys.iter().map(|byte| [*byte; 32]).collect(),
    }
}

fn lease() -> LeaseTerms {
    LeaseTerms::new(Duration::from_millis(400), 2000).expect("the terms are within their bounds")
}

/// One membership for each quorum rule, and one with leases.
pub(crate) fn memberships() -> Vec<(&'static str, Membership)> {
    let voters = || {
        vec![
            member(1, &["one.example:7101", "[::1]:7101"], &[0x11]),
            member(2, &["two.example:7102"], &[0x22, 0x23]),
            member(3, &[], &[]),
        ]
    };
    let of = |rule, observers| {
        Membership::new(Epoch::new(4), voters(), observers, rule, 64)
            .expect("the quorums intersect")
    };
    let replaces = Some(ReplicaId::new(3));
    let joining = of(QuorumRule::Majority, vec![member(8, &[], &[]), member(9, &["nine:1"], &[])])
        .with_joining([
            Joining { id: ReplicaId::new(8), replaces: None },
            Joining { id: ReplicaId::new(9), replaces },
        ]);
    let counts = QuorumRule::Counts { prepare: 3, accept: 1 };
    let weights = QuorumRule::Weights { weights: vec![3, 1, 1], prepare: 3, accept: 3 };
    let all = |sets: &[&[usize]]| -> Vec<VoterSet> {
        sets.iter().map(|set| set.iter().copied().collect()).collect()
    };
    let sets =
        QuorumRule::Sets { prepare: all(&[&[0, 1], &[0, 2]]), accept: all(&[&[0], &[1, 2]]) };
    vec![
        ("majority", of(QuorumRule::Majority, Vec::new())),
        ("counts", of(counts, vec![member(9, &["nine:1"], &[])])),
        ("weights", of(weights, Vec::new())),
        ("lease", of(QuorumRule::Majority, Vec::new()).with_lease(lease())),
        ("sets", of(sets, Vec::new())),
        ("joining", joining),
    ]
}

/// A batch with a command that says something, and one that is empty.
pub(crate) fn batch() -> Batch {
    let apply = Command::apply(
        ClientId::new(0x0102),
        RequestNumber::new(9),
        Bytes::from_static(b"set a 1"),
    );
    let other = Command {
        kind: CommandKind::Apply,
        client: ClientId::new(0x0304),
        request: RequestNumber::new(10),
        acknowledged_below: RequestNumber::new(8),
        payload: Bytes::new(),
    };
    Batch::new(LogClock::from_millis(1_700_000_000_123), vec![apply, other])
}

/// A batch with one command of each kind that has to do with sessions.
pub(crate) fn session_batch() -> Batch {
    let session = SessionId::new(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10);
    let command = |kind, request, payload| Command {
        kind,
        client: ClientId::new(0x0506),
        request: RequestNumber::new(request),
        acknowledged_below: RequestNumber::new(7),
        payload,
    };
    let ttl = SessionTtl::from_millis(3_600_000);
    let opens = CommandKind::OpenSession { session, ttl };
    let asks = CommandKind::InSession { session, request: RequestNumber::new(9) };
    let closes = CommandKind::CloseSession { session };
    let commands = vec![
        command(opens, 11, Bytes::new()),
        command(asks, 12, Bytes::from_static(b"add a 1")),
        command(closes, 13, Bytes::new()),
    ];
    Batch::new(LogClock::from_millis(1_700_000_000_123), commands)
}

/// One command, which raises the log's level.
pub(crate) fn level_batch() -> Batch {
    let kind = CommandKind::Raise { level: Level { library: 0x0102, machine: 0x0304_0506 } };
    let raise =
        Command { kind, ..Command::apply(ClientId::new(7), RequestNumber::new(8), Bytes::new()) };
    Batch::new(LogClock::from_millis(1_700_000_000_124), vec![raise])
}

/// A value of each kind, and a membership of each quorum rule.
pub(crate) fn values() -> Vec<(String, Value)> {
    let mut values = vec![
        ("noop".into(), Value::Noop),
        ("batch".into(), Value::Batch(batch())),
        ("batch-of-a-session".into(), Value::Batch(session_batch())),
        ("batch-of-a-level".into(), Value::Batch(level_batch())),
    ];
    for (rule, membership) in memberships() {
        values.push((format!("membership-{rule}"), Value::Membership(Arc::new(membership))));
    }
    values
}

/// A message of each kind; where a kind has parts that may be absent, one more without them.
pub(crate) fn messages() -> Vec<(String, Message)> {
    let all_values: Vec<Value> = values().into_iter().map(|(_, value)| value).collect();
    let bodies: Vec<Body> = vec![
        Prepare { ballot: ballot(5, 2), from: Slot::new(11) }.into(),
        promise().into(),
        Accept {
            ballot: ballot(5, 2),
            committed: Slot::new(10),
            first: Slot::new(11),
            values: all_values.clone(),
        }
        .into(),
        Accepted { ballot: ballot(5, 2), first: Slot::new(11), last: Slot::new(13) }.into(),
        Reject { refused: ballot(5, 2), promised: ballot(6, 1) }.into(),
        Commit { ballot: ballot(5, 2), committed: Slot::new(13) }.into(),
        heartbeat().into(),
        Fetch { from: Slot::new(11), through: Slot::new(20) }.into(),
        Fetched {
            first: Slot::new(11),
            values: all_values,
            committed: Slot::new(30),
            trimmed: Slot::new(9),
        }
        .into(),
        Refused { refused: Incarnation::new(1, 2), remembered: Incarnation::new(3, 4) }.into(),
        Confirm { ballot: ballot(5, 2), round: 7 }.into(),
        Confirmed { ballot: ballot(5, 2), round: u64::MAX }.into(),
        Transfer { ballot: ballot(5, 2), committed: Slot::new(13), released: 8 }.into(),
        Survey { round: 9 }.into(),
        Surveyed {
            asker: Incarnation::new(5, 6),
            round: u64::MAX,
            committed: Slot::new(14),
            highest: Slot::new(15),
        }
        .into(),
        Removed { epoch: Epoch::new(4), from: Slot::new(75) }.into(),
    ];
    let mut messages: Vec<_> =
        bodies.into_iter().map(|body| (body.name().to_owned(), body)).collect();
    messages.extend(sparse_bodies());
    messages
        .into_iter()
        .map(|(name, body)| {
            let message = Message { origin: origin(), body };
            (name, message)
        })
        .collect()
}

/// A promise with an entry of each state.
fn promise() -> Promise {
    Promise {
        ballot: ballot(5, 2),
        committed: Slot::new(10),
        from: Slot::new(11),
        through: Slot::MAX,
        entries: vec![
            PromiseEntry {
                slot: Slot::new(11),
                state: SlotState::Accepted(ballot(4, 1), Value::Batch(batch())),
            },
            PromiseEntry { slot: Slot::new(13), state: SlotState::Chosen(Value::Noop) },
            PromiseEntry { slot: Slot::new(14), state: SlotState::Unknown(ballot(3, 3)) },
        ],
    }
}

fn heartbeat() -> Heartbeat {
    let echo = |peer, sequence| Echo {
        peer: ReplicaId::new(peer),
        incarnation: Incarnation::new(4, 0x0bad_cafe),
        sequence,
    };
    Heartbeat {
        sequence: 42,
        echoes: vec![echo(1, 40), echo(3, 39)],
        promised: Some(ballot(5, 2)),
        leader: Some(ballot(5, 2)),
        connectivity: Connectivity::Quorum,
        committed: Slot::new(13),
        durable: Slot::new(15),
        held: Slot::new(12),
        released: 8,
        priority: Priority::new(7),
    }
}

fn sparse_bodies() -> Vec<(String, Body)> {
    let promise = Promise { entries: Vec::new(), ..promise() };
    let heartbeat = Heartbeat {
        echoes: Vec::new(),
        promised: None,
        leader: None,
        connectivity: Connectivity::Partial,
        ..heartbeat()
    };
    let fetched = Fetched {
        first: Slot::new(11),
        values: Vec::new(),
        committed: Slot::new(30),
        trimmed: Slot::new(20),
    };
    vec![
        ("Promise-empty".into(), promise.into()),
        ("Heartbeat-alone".into(), heartbeat.into()),
        ("Fetched-empty".into(), fetched.into()),
    ]
}

// ---------------------------------------------------------------------------------------------
// Strategies

fn slots() -> impl Strategy<Value = Slot> {
    prop_oneof![0_u64..50, any::<u64>()].prop_map(Slot::new)
}

fn ballots() -> impl Strategy<Value = Ballot> {
    (any::<u64>(), any::<u16>()).prop_map(|(round, leader)| ballot(round, leader))
}

fn incarnations() -> impl Strategy<Value = Incarnation> {
    any::<u64>().prop_map(Incarnation::from_bits)
}

fn commands() -> impl Strategy<Value = Command> {
    // Payloads on both sides of the length above which they travel as chunks of their own.
    let payloads = prop_oneof![
        4 => vec(any::<u8>(), 0..40),
        1 => vec(any::<u8>(), 900..2500),
    ];
    let kinds = (0..5, any::<u128>(), any::<u64>()).prop_map(|(kind, session, number)| {
        let session = SessionId::new(session);
        match kind {
            0 => CommandKind::Apply,
            1 => CommandKind::OpenSession { session, ttl: SessionTtl::from_millis(number) },
            2 => CommandKind::InSession { session, request: RequestNumber::new(number) },
            3 => CommandKind::CloseSession { session },
            _ => CommandKind::Raise {
                level: Level { library: number as u16, machine: (number >> 16) as u32 },
            },
        }
    });
    let numbers = (any::<u64>(), any::<u64>(), any::<u64>());
    (kinds, numbers, payloads).prop_map(|(kind, (client, request, below), payload)| {
        let ends = !matches!(kind, CommandKind::Apply | CommandKind::InSession { .. });
        Command {
            kind,
            client: ClientId::new(client),
            request: RequestNumber::new(request),
            acknowledged_below: RequestNumber::new(below),
            payload: if ends { Bytes::new() } else { payload.into() },
        }
    })
}

fn batches() -> impl Strategy<Value = Batch> {
    (any::<u64>(), vec(commands(), 1..4))
        .prop_map(|(clock, commands)| Batch::new(LogClock::from_millis(clock), commands))
}

fn rules(voters: u16) -> impl Strategy<Value = QuorumRule> {
    let counts = (1..=voters).prop_flat_map(move |prepare| {
        (voters - prepare + 1..=voters)
            .prop_map(move |accept| QuorumRule::Counts { prepare, accept })
    });
    let weights = vec(1_u16..100, usize::from(voters)).prop_flat_map(|weights| {
        let total: u32 = weights.iter().copied().map(u32::from).sum();
        (1..=total).prop_flat_map(move |prepare| {
            let weights = weights.clone();
            (total - prepare + 1..=total).prop_map(move |accept| QuorumRule::Weights {
                weights: weights.clone(),
                prepare,
                accept,
            })
        })
    });
    let shapes: Vec<u16> = (1..=voters).filter(|rows| voters.is_multiple_of(*rows)).collect();
    let grids = select(shapes).prop_map(move |rows| {
        QuorumRule::grid(usize::from(rows), usize::from(voters / rows)).unwrap()
    });
    prop_oneof![Just(QuorumRule::Majority), counts, weights, grids]
}

pub(crate) fn any_membership() -> impl Strategy<Value = Membership> {
    let members = (1_u16..=9, 0_u16..4).prop_flat_map(|(voters, observers)| {
        let count = usize::from(voters + observers);
        let contacts =
            vec((vec("[a-z.]{0,20}:[0-9]{1,5}", 0..3), vec(any::<[u8; 32]>(), 0..3)), count);
        (Just(voters), contacts, rules(voters))
    });
    (members, any::<u32>(), 1_u32..1000).prop_map(|((voters, contacts, rule), epoch, window)| {
        let mut members: Vec<Member> = contacts
            .into_iter()
            .zip(1..)
            .map(|((addresses, keys), id)| Member { id: ReplicaId::new(id * 3), addresses, keys })
            .collect();
        let observers = members.split_off(usize::from(voters));
        let membership = Membership::new(Epoch::new(epoch), members, observers, rule, window)
            .expect("the strategy gives valid parts");
        if epoch % 2 == 0 { membership } else { membership.with_lease(lease()) }
    })
}

pub(crate) fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        1 => Just(Value::Noop),
        1 => any_membership().prop_map(|membership| Value::Membership(Arc::new(membership))),
        4 => batches().prop_map(Value::Batch),
    ]
}

fn promises() -> impl Strategy<Value = Promise> {
    let state = prop_oneof![
        (ballots(), any_value()).prop_map(|(ballot, value)| SlotState::Accepted(ballot, value)),
        any_value().prop_map(SlotState::Chosen),
        ballots().prop_map(SlotState::Unknown),
    ];
    let gaps = vec((1_u64..5, state), 0..4);
    (ballots(), slots(), 0_u64..1000, gaps, any::<bool>()).prop_map(
        |(ballot, committed, from, gaps, last_page)| {
            let mut slot = from;
            let entries: Vec<_> = gaps
                .into_iter()
                .map(|(gap, state)| {
                    slot += gap;
                    PromiseEntry { slot: Slot::new(slot), state }
                })
                .collect();
            Promise {
                ballot,
                committed,
                from: Slot::new(from),
                through: if last_page { Slot::MAX } else { Slot::new(slot) },
                entries,
            }
        },
    )
}

fn heartbeats() -> impl Strategy<Value = Heartbeat> {
    let echoes = vec((any::<u16>(), incarnations(), any::<u64>()), 0..6);
    let leads = (option::of(ballots()), option::of(ballots()), any::<bool>());
    let tells = (slots(), slots(), slots(), any::<u64>(), any::<u8>());
    (any::<u64>(), echoes, leads, tells).prop_map(
        |(sequence, echoes, (promised, leader, connected), tells)| {
            let (committed, durable, held, released, priority) = tells;
            Heartbeat {
                sequence,
                echoes: echoes
                    .into_iter()
                    .map(|(peer, incarnation, sequence)| Echo {
                        peer: ReplicaId::new(peer),
                        incarnation,
                        sequence,
                    })
                    .collect(),
                promised,
                leader,
                connectivity: if connected { Connectivity::Quorum } else { Connectivity::Partial },
                committed,
                durable,
                held,
                released,
                priority: Priority::new(priority),
            }
        },
    )
}

fn bodies() -> impl Strategy<Value = Body> {
    let first = || (1_u64..1_000_000).prop_map(Slot::new);
    prop_oneof![
        (ballots(), slots()).prop_map(|(ballot, from)| Prepare { ballot, from }.into()),
        promises().prop_map(Body::Promise),
        (ballots(), slots(), first(), vec(any_value(), 1..4)).prop_map(
            |(ballot, committed, first, values)| Accept { ballot, committed, first, values }.into()
        ),
        (ballots(), first(), 0_u64..1000).prop_map(|(ballot, first, more)| Accepted {
            ballot,
            first,
            last: first.plus(more),
        }
        .into()),
        (ballots(), ballots()).prop_map(|(refused, promised)| Reject { refused, promised }.into()),
        (ballots(), slots()).prop_map(|(ballot, committed)| Commit { ballot, committed }.into()),
        heartbeats().prop_map(Body::Heartbeat),
        (slots(), slots()).prop_map(|(from, through)| Fetch { from, through }.into()),
        (first(), vec(any_value(), 0..4), slots(), slots()).prop_map(
            |(first, values, committed, trimmed)| Fetched { first, values, committed, trimmed }
                .into()
        ),
        (ballots(), any::<u64>()).prop_map(|(ballot, round)| Confirm { ballot, round }.into()),
        (ballots(), any::<u64>()).prop_map(|(ballot, round)| Confirmed { ballot, round }.into()),
        (ballots(), slots(), any::<u64>()).prop_map(|(ballot, committed, released)| Transfer {
            ballot,
            committed,
            released
        }
        .into()),
        (any::<u32>(), slots())
            .prop_map(|(epoch, from)| { Removed { epoch: Epoch::new(epoch), from }.into() }),
        (incarnations(), incarnations()).prop_map(|(refused, remembered)| Refused {
            refused,
            remembered,
        }
        .into()),
    ]
}

pub(crate) fn any_message() -> impl Strategy<Value = Message> {
    let whose = (any::<u128>(), any::<u64>(), any::<u32>(), any::<u16>(), incarnations());
    let whose = (whose, any::<[u8; 6]>());
    (whose, bodies()).prop_map(|((whose, membership), body)| {
        let (cluster, group, epoch, replica, incarnation) = whose;
        Message {
            origin: Origin {
                cluster: ClusterId::new(cluster),
                group: GroupId::new(group),
                epoch: Epoch::new(epoch),
                membership: MembershipDigest::from_bytes(membership),
                replica: ReplicaId::new(replica),
                incarnation,
            },
            body,
        }
    })
}
