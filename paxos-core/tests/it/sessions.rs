//! Sessions: the rules of docs/protocol.md §13 that bind replicas, one by one, each quoted word for
//! word; the bytes of the table; and the table beside one that is as simple as can be.

use std::collections::{BTreeMap, BTreeSet};

use paxos_core::ids::{LogClock, RequestNumber, SessionId, SessionTtl};
use paxos_core::session::{Bounds, SessionTable, TableError, Verdict};
use proptest::prelude::*;

const TTL: SessionTtl = SessionTtl::from_millis(100);

fn id(number: u64) -> SessionId {
    SessionId::new(u128::from(number) << 60 | 1)
}

fn number(number: u64) -> RequestNumber {
    RequestNumber::new(number)
}

fn clock(millis: u64) -> LogClock {
    LogClock::from_millis(millis)
}

fn bounds() -> Bounds {
    Bounds { sessions_max: 3, runs_max: 4, ..Bounds::default() }
}

fn table(sessions: &[u64]) -> SessionTable {
    let mut table = SessionTable::new(bounds());
    for session in sessions {
        assert_eq!(table.open(id(*session), TTL), None);
    }
    table
}

/// Asks with nothing acknowledged.
fn ask(table: &mut SessionTable, session: u64, request: u64) -> Verdict {
    table.decide(id(session), number(request), number(0))
}

/// **S1** A request is named by its session and its number. It is applied where it first stands in
/// the log with its session known, its number not acknowledged, and room to remember it; and nowhere
/// after that.
#[test]
fn s1_a_request_is_applied_where_it_first_may_be() {
    let mut table = table(&[1, 2]);
    for request in [1, 5, 3, 4, 2, u64::MAX, 0] {
        assert_eq!(ask(&mut table, 1, request), Verdict::Apply, "{request}");
        assert_eq!(ask(&mut table, 1, request), Verdict::Repeated, "{request}");
    }
    assert_eq!(ask(&mut table, 2, 3), Verdict::Apply, "another session's");
    for request in [0, 1, 2, 3, 4, 5, u64::MAX] {
        assert_eq!(ask(&mut table, 1, request), Verdict::Repeated, "{request}");
    }
    // Opened once more it remembers what it did.
    assert_eq!(table.open(id(1), TTL), None);
    assert_eq!(ask(&mut table, 1, 3), Verdict::Repeated);
    // Room for four runs: what would make a fifth is refused, and applied once there is room.
    for request in [10, 20] {
        assert_eq!(ask(&mut table, 1, request), Verdict::Apply);
    }
    for request in [30, 30, 8] {
        assert_eq!(ask(&mut table, 1, request), Verdict::Crowded, "{request}");
    }
    for request in [6, 7, 11, 19, 9] {
        assert_eq!(ask(&mut table, 1, request), Verdict::Apply, "it makes no run more: {request}");
    }
    assert_eq!(ask(&mut table, 1, 30), Verdict::Crowded);
    assert_eq!(ask(&mut table, 1, 8), Verdict::Apply, "two runs become one");
    assert_eq!(ask(&mut table, 1, 30), Verdict::Apply);
}

/// **S2** A request whose number its session has acknowledged is not applied, whether or not it was
/// before.
#[test]
fn s2_what_is_acknowledged_is_not_applied() {
    let mut table = table(&[1]);
    for request in [1, 2, 6] {
        assert_eq!(ask(&mut table, 1, request), Verdict::Apply);
        table.keep(id(1), number(request), b"reply");
    }
    assert_eq!(table.decide(id(1), number(6), number(5)), Verdict::Repeated);
    for request in [1, 2, 3, 4] {
        assert_eq!(ask(&mut table, 1, request), Verdict::Stale, "{request}");
        assert_eq!(table.reply(id(1), number(request)), None, "{request}");
    }
    assert_eq!(table.reply(id(1), number(6)), Some(&b"reply"[..]));
    assert_eq!(ask(&mut table, 1, 5), Verdict::Apply);
    // What it acknowledges counts before it is decided itself, and never goes back.
    assert_eq!(table.decide(id(1), number(9), number(10)), Verdict::Stale);
    assert_eq!(table.decide(id(1), number(9), number(3)), Verdict::Stale);
    assert_eq!(table.decide(id(1), number(10), number(3)), Verdict::Apply);
    assert_eq!(table.decide(id(1), number(u64::MAX), number(u64::MAX)), Verdict::Apply);
    assert_eq!(table.decide(id(1), number(u64::MAX), number(0)), Verdict::Repeated);
}

/// **S3** A request of a session that is not known is not applied. A session is known from where it
/// is opened on, until it is closed, expires, or gives way to another.
#[test]
fn s3_an_unknown_session_applies_nothing() {
    let mut table = table(&[]);
    assert_eq!(ask(&mut table, 1, 1), Verdict::NoSession);
    assert!(!table.contains(id(1)), "asking opens nothing");
    table.open(id(1), TTL);
    assert_eq!(ask(&mut table, 1, 1), Verdict::Apply);
    table.close(id(1));
    assert_eq!(ask(&mut table, 1, 1), Verdict::NoSession);
    assert_eq!(ask(&mut table, 1, 2), Verdict::NoSession);
    table.close(id(1));
    assert!(table.is_empty());
}

/// **S4** A session expires with the first batch at which the highest clock so far is more than the
/// session's time to live above what it was at the session's last use. Where there would be one
/// session too many, the least recently used one gives way.
#[test]
fn s4_sessions_expire_by_the_clock_of_batches_and_give_way_by_their_last_use() {
    let mut table = table(&[]);
    assert_eq!(table.begin(clock(1000)), 0);
    table.open(id(1), TTL);
    table.open(id(2), TTL);
    assert_eq!(table.begin(clock(1100)), 0, "not more than its time to live");
    assert_eq!(ask(&mut table, 1, 1), Verdict::Apply);
    // An adopted batch may bring a clock that is lower than one before: that changes nothing.
    assert_eq!(table.begin(clock(500)), 0);
    assert_eq!(ask(&mut table, 1, 2), Verdict::Apply, "at 1,100 as well");
    assert_eq!(table.begin(clock(1101)), 1);
    assert!(table.contains(id(1)) && !table.contains(id(2)));
    assert_eq!(table.begin(clock(1200)), 0);
    assert_eq!(ask(&mut table, 1, 2), Verdict::Repeated);
    assert_eq!(table.begin(clock(1301)), 1, "its last use was at 1,200");
    assert!(table.is_empty());

    table.open(id(3), SessionTtl::from_millis(u64::MAX));
    table.open(id(4), TTL);
    table.open(id(5), TTL);
    assert_eq!(ask(&mut table, 3, 1), Verdict::Apply);
    assert_eq!(table.open(id(4), TTL), None, "that is a use as well");
    assert_eq!(table.open(id(6), TTL), Some(id(5)));
    assert_eq!(table.len(), 3);
    assert_eq!(table.open(id(7), TTL), Some(id(3)));
    assert_eq!(table.begin(clock(u64::MAX)), 3, "time is up for those");
    table.open(id(8), SessionTtl::from_millis(u64::MAX));
    assert_eq!(table.begin(clock(u64::MAX)), 0);
}

/// **S5** What is applied is a function of the log alone, from the first slot on, whatever a state
/// machine includes by itself. Replies that are kept take no part in it.
#[test]
fn s5_replies_that_are_kept_decide_nothing() {
    let few = Bounds { replies_max: 2, reply_bytes_max: 200, table_bytes_max: 300, ..bounds() };
    let mut keeps = SessionTable::new(few);
    let mut none = SessionTable::new(few);
    for table in [&mut keeps, &mut none] {
        table.open(id(1), TTL);
        table.open(id(2), TTL);
    }
    let mut kept = |session, request, reply: &[u8]| {
        for table in [&mut keeps, &mut none] {
            assert_eq!(ask(table, session, request), Verdict::Apply);
        }
        keeps.keep(id(session), number(request), reply);
        assert!(keeps.reply_bytes() <= 300);
        let held = |request| keeps.reply(id(session), number(request)).map(<[u8]>::len);
        (0..6).map(held).collect::<Vec<_>>()
    };
    // Two at most, and the lowest gives way.
    assert_eq!(kept(1, 2, b"22"), [None, None, Some(2), None, None, None]);
    assert_eq!(kept(1, 1, b""), [None, Some(0), Some(2), None, None, None]);
    assert_eq!(kept(1, 3, b"333"), [None, None, Some(2), Some(3), None, None]);
    // One that is larger than all of them may be is not kept, and those below it are not either.
    assert_eq!(kept(1, 4, &[4; 200]), [None; 6]);
    assert_eq!(kept(1, 5, &[5; 160]), [None, None, None, None, None, Some(160)]);
    // All sessions share a bound: the replies of the least recently used session give way.
    assert_eq!(kept(2, 1, &[1; 90]), [None, Some(90), None, None, None, None]);
    assert_eq!(keeps.reply(id(1), number(5)), None);
    assert_eq!(keeps.clone().without_replies(), none);
    assert_eq!(keeps.encode_without_replies(), none.encode(), "a snapshot holds none of them");
    assert_ne!(keeps.encode(), none.encode());
    for request in 1..6 {
        assert_eq!(ask(&mut keeps, 1, request), Verdict::Repeated, "{request}");
    }
    // What is acknowledged, or of a session that is gone, is not kept.
    assert_eq!(keeps.decide(id(1), number(9), number(8)), Verdict::Apply);
    keeps.keep(id(1), number(7), b"late");
    keeps.keep(id(3), number(1), b"late");
    assert_eq!((keeps.reply(id(1), number(7)), keeps.reply(id(3), number(1))), (None, None));
    keeps.close(id(2));
    assert_eq!(keeps.reply_bytes(), 0);
}

#[test]
fn a_table_survives_its_bytes_and_other_bytes_are_refused() {
    let mut table = table(&[]);
    table.begin(clock(1000));
    table.open(id(1), TTL);
    table.open(id(2), TTL);
    for request in [1, 2, 5] {
        assert_eq!(ask(&mut table, 1, request), Verdict::Apply);
        table.keep(id(1), number(request), &[request as u8; 30]);
    }
    let bytes = table.encode();
    assert_eq!(SessionTable::decode(bytes.clone(), bounds()), Ok(table));
    // version, clock, due, uses, sessions; then id, ttl, used at, used, acknowledged, runs
    let head = [1, 0, 0xe8, 3, 0, 0, 0, 0, 0, 0, 0x4c, 4, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!((&bytes[..26], &bytes[26..30]), (&head[..], &[2, 0, 0, 0][..]));
    assert_eq!(bytes.len(), 30 + 52 + 2 * 16 + 4 + 3 * (12 + 30) + 52 + 4);

    for len in 0..bytes.len() {
        let cut = SessionTable::decode(bytes.slice(..len), bounds());
        assert_eq!(cut, Err(TableError::Length), "{len} bytes");
    }
    let longer = [&bytes[..], &[0]].concat();
    assert_eq!(SessionTable::decode(longer.into(), bounds()), Err(TableError::Length));
    let newer = [&[2, 0], &bytes[2..]].concat();
    assert_eq!(SessionTable::decode(newer.into(), bounds()), Err(TableError::Version(2)));
    let few = Bounds { sessions_max: 1, ..bounds() };
    assert_eq!(SessionTable::decode(bytes.clone(), few), Err(TableError::Field("count")));
    let few = Bounds { runs_max: 1, ..bounds() };
    assert_eq!(SessionTable::decode(bytes.clone(), few), Err(TableError::Field("runs")));
    let few = Bounds { replies_max: 2, ..bounds() };
    assert_eq!(SessionTable::decode(bytes.clone(), few), Err(TableError::Field("replies")));
    // No bit of it is without a meaning: what is read is written as it was.
    for place in 0..bytes.len() * 8 {
        let mut other = bytes.to_vec();
        other[place / 8] ^= 1 << (place % 8);
        if let Ok(table) = SessionTable::decode(other.clone().into(), bounds()) {
            assert_eq!(table.encode(), other, "bit {place}");
        }
    }
}

/// What the log says to the table.
#[derive(Clone, Debug)]
enum Said {
    Begin(u64),
    Open(u64, u64),
    Close(u64),
    Ask { session: u64, request: u64, below: u64 },
}

fn said() -> impl Strategy<Value = Said> {
    let asks = (0..5_u64, 0..40_u64, 0..40_u64, any::<bool>());
    prop_oneof![
        2 => (0..2000_u64).prop_map(Said::Begin),
        2 => (0..5_u64, prop_oneof![Just(0), 1..300_u64, Just(u64::MAX)])
            .prop_map(|(session, ttl)| Said::Open(session, ttl)),
        1 => (0..5_u64).prop_map(Said::Close),
        12 => asks.prop_map(|(session, request, below, acknowledges)| {
            let below = if acknowledges { below.min(request + 2) } else { 0 };
            Said::Ask { session, request, below }
        }),
    ]
}

/// The rules, with nothing but sets.
#[derive(Default)]
struct Plain {
    clock: u64,
    uses: u64,
    sessions: BTreeMap<u64, PlainSession>,
}

struct PlainSession {
    ttl: u64,
    used_at: u64,
    used: u64,
    below: u64,
    applied: BTreeSet<u64>,
}

impl Plain {
    fn begin(&mut self, clock: u64) -> usize {
        self.clock = self.clock.max(clock);
        let before = self.sessions.len();
        self.sessions.retain(|_, session| self.clock - session.used_at <= session.ttl);
        before - self.sessions.len()
    }

    fn open(&mut self, session: u64, ttl: u64) -> Option<u64> {
        self.uses += 1;
        let (clock, uses) = (self.clock, self.uses);
        if let Some(known) = self.sessions.get_mut(&session) {
            (known.used_at, known.used) = (clock, uses);
            return None;
        }
        let full = self.sessions.len() == bounds().sessions_max;
        let oldest = self.sessions.iter().min_by_key(|(_, session)| session.used);
        let gone = oldest.map(|(id, _)| *id).filter(|_| full);
        gone.inspect(|gone| drop(self.sessions.remove(gone)));
        let applied = BTreeSet::new();
        let opened = PlainSession { ttl, used_at: clock, used: uses, below: 0, applied };
        self.sessions.insert(session, opened);
        gone
    }

    fn ask(&mut self, session: u64, request: u64, below: u64) -> Verdict {
        let Some(known) = self.sessions.get_mut(&session) else { return Verdict::NoSession };
        self.uses += 1;
        (known.used_at, known.used) = (self.clock, self.uses);
        known.below = known.below.max(below);
        if request < known.below {
            return Verdict::Stale;
        }
        let mut with = known.applied.clone();
        if !with.insert(request) {
            return Verdict::Repeated;
        }
        with.retain(|applied| *applied >= known.below);
        let begins = |number: &&u64| **number == 0 || !with.contains(&(*number - 1));
        if with.iter().filter(begins).count() > bounds().runs_max {
            return Verdict::Crowded;
        }
        known.applied = with;
        Verdict::Apply
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn the_table_decides_as_plain_sets_do(log in prop::collection::vec(said(), 0..120)) {
        let mut table = SessionTable::new(bounds());
        let mut plain = Plain::default();
        for said in log {
            match said {
                Said::Begin(millis) => {
                    prop_assert_eq!(table.begin(clock(millis)), plain.begin(millis));
                }
                Said::Open(session, ttl) => {
                    let gone = table.open(id(session), SessionTtl::from_millis(ttl));
                    prop_assert_eq!(gone, plain.open(session, ttl).map(id));
                }
                Said::Close(session) => {
                    table.close(id(session));
                    plain.sessions.remove(&session);
                }
                Said::Ask { session, request, below } => {
                    let verdict = table.decide(id(session), number(request), number(below));
                    prop_assert_eq!(verdict, plain.ask(session, request, below));
                    if verdict == Verdict::Apply {
                        table.keep(id(session), number(request), &request.to_le_bytes());
                    }
                    if verdict == Verdict::Repeated {
                        let kept = request.to_le_bytes();
                        prop_assert_eq!(table.reply(id(session), number(request)), Some(&kept[..]));
                    }
                }
            }
            prop_assert_eq!(table.len(), plain.sessions.len());
        }
        prop_assert_eq!(SessionTable::decode(table.encode(), bounds()), Ok(table));
    }
}
