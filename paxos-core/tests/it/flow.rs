//! Flow control: the rules of docs/protocol.md §8 on it, each quoted word for word, and a slow
//! follower under load in virtual time.

use std::time::Duration;

use bytes::Bytes;
use paxos_core::config::Config;
use paxos_core::ids::{ClientId, ReplicaId, RequestNumber, Slot};
use paxos_core::message::{Body, Fetch};
use paxos_core::output::{PeerFlow, Recipients};
use paxos_core::sim::{Cluster, Options, Script, Shape, Weather};
use paxos_core::value::Command;

use crate::bed::{Bed, accepted, blank, id, members, slot};

const HEARTBEAT: Duration = Duration::from_millis(100);

/// To whom Accepts of which first slots left since the last look, and how many values each carried.
fn sent(bed: &mut Bed) -> Vec<(Recipients, u64, usize)> {
    let sent = bed.take_sent().into_iter();
    sent.filter_map(|(to, body)| {
        let Body::Accept(accept) = body else {
            return None;
        };
        Some((to, accept.first.number(), accept.values.len()))
    })
    .collect()
}

fn flow(bed: &Bed, peer: u16) -> PeerFlow {
    let flows = bed.replica.status().flows;
    *flows.iter().find(|flow| flow.peer == id(peer)).unwrap()
}

/// A leader among three that hears both peers, with a window of two slots.
fn leading(config: Config) -> (Bed, paxos_core::ballot::Ballot) {
    let mut bed = Bed::start(blank(1, &members(3, 2)), config);
    let own = bed.campaign(&[2, 3]);
    bed.sync();
    bed.receive(id(2), crate::bed::promise(own, 1, slot(0), Vec::new()));
    bed.sync();
    bed.take_sent();
    (bed, own)
}

/// **F1** A peer for which a new proposal would count beyond twice the window of slots, or beyond
/// `window_bytes_max`, is not sent it, and is probed from then on.
#[test]
fn f1_a_peer_that_does_not_keep_up_is_held_back() {
    let (mut bed, own) = leading(Config::default());
    for number in 1..=4 {
        bed.propose("a");
        assert_eq!(sent(&mut bed), [(Recipients::AllPeers, number, 1)]);
        bed.receive(id(2), accepted(own, number, number));
        bed.sync();
    }
    assert_eq!((flow(&bed, 2).slots, flow(&bed, 3).slots), (0, 4), "twice the window of two");
    bed.propose("b");
    assert_eq!(sent(&mut bed), [(Recipients::One(id(2)), 5, 1)]);
    assert!(flow(&bed, 3).probed && !flow(&bed, 2).probed);
    assert_eq!(bed.replica.counters().proposals_held_back, 1);

    // Bytes count too, and where nothing counts a message goes whatever its size.
    let value = crate::bed::value("a").encoded_len();
    let config =
        Config { window_bytes_max: 2 * value, batch_bytes_max: value, ..Config::default() };
    let (mut bed, own) = leading(config);
    for number in 1..=2 {
        bed.propose("a");
        bed.receive(id(2), accepted(own, number, number));
        bed.sync();
    }
    assert_eq!((flow(&bed, 3).slots, flow(&bed, 3).bytes), (2, 2 * value));
    bed.take_sent();
    bed.propose("a");
    assert_eq!(sent(&mut bed), [(Recipients::One(id(2)), 3, 1)]);
    assert_eq!(flow(&bed, 3).bytes, 2 * value);
}

/// **F2** A peer that was not heard within the election timeout is probed as soon as anything counts
/// for it.
#[test]
fn f2_a_silent_peer_is_sent_one_message() {
    let (mut bed, own) = leading(Config::default());
    for _ in 0..8 {
        bed.pass(HEARTBEAT);
        bed.hear(&[2], |_, _| {});
    }
    bed.take_sent();
    bed.propose("a");
    assert_eq!(sent(&mut bed), [(Recipients::AllPeers, 1, 1)]);
    assert_eq!((flow(&bed, 3).slots, flow(&bed, 3).probed), (1, false));
    bed.propose("b");
    assert_eq!(sent(&mut bed), [(Recipients::One(id(2)), 2, 1)]);
    assert_eq!((flow(&bed, 3).slots, flow(&bed, 3).probed), (1, true));
    bed.receive(id(2), accepted(own, 1, 2));
    assert_eq!((flow(&bed, 2).slots, flow(&bed, 3).slots), (0, 1), "each for itself");
}

/// **F3** A probed peer is sent a new proposal only when nothing counts for it. It is probed no
/// longer once an Accepted from it leaves nothing that counts, or once it fetches the rest of the
/// leader's prefix: what is in flight then follows what it asked for.
#[test]
fn f3_a_probed_peer_goes_on_once_it_accepts() {
    let (mut bed, own) = leading(Config::default());
    let settle = |bed: &mut Bed, number| {
        bed.receive(id(2), accepted(own, number, number));
        bed.sync();
        sent(bed)
    };
    for number in 1..=5 {
        bed.propose("a");
        settle(&mut bed, number);
    }
    assert_eq!((flow(&bed, 3).slots, flow(&bed, 3).probed), (4, true));
    // Some of it answered is not all of it.
    bed.receive(id(3), accepted(own, 1, 3));
    bed.propose("b");
    assert_eq!(settle(&mut bed, 6), [(Recipients::One(id(2)), 6, 1)]);
    // It fetched the rest: it may have fallen behind again, so one message goes.
    bed.hear(&[2], |_, _| {});
    bed.hear(&[3], |_, heartbeat| heartbeat.committed = slot(5));
    assert_eq!((flow(&bed, 3).slots, flow(&bed, 3).probed), (0, true));
    bed.propose("c");
    assert_eq!(settle(&mut bed, 7), [(Recipients::AllPeers, 7, 1)]);
    bed.propose("d");
    assert_eq!(settle(&mut bed, 8), [(Recipients::One(id(2)), 8, 1)]);
    // What was not sent in between does not matter; the answer to the probe does.
    bed.receive(id(3), accepted(own, 7, 7));
    assert_eq!((flow(&bed, 3).slots, flow(&bed, 3).probed), (0, false));
    for number in 9..=10 {
        bed.propose("e");
        assert_eq!(settle(&mut bed, number), [(Recipients::AllPeers, number, 1)]);
    }
    assert_eq!((flow(&bed, 3).slots, flow(&bed, 3).probed), (2, false));
    for number in 11..=13 {
        bed.propose("f");
        settle(&mut bed, number);
    }
    bed.propose("g");
    assert_eq!(sent(&mut bed), [(Recipients::One(id(2)), 14, 1)]);
    assert_eq!((flow(&bed, 3).slots, flow(&bed, 3).probed), (4, true));
    // A part of the prefix is no sign that it keeps up; the rest is, and what is in flight follows.
    bed.receive(id(3), Fetch { from: slot(11), through: slot(12) });
    assert_eq!((sent(&mut bed), flow(&bed, 3).probed), (Vec::new(), true));
    bed.receive(id(3), Fetch { from: slot(11), through: slot(13) });
    assert_eq!(sent(&mut bed), [(Recipients::One(id(3)), 14, 1)]);
    assert_eq!((flow(&bed, 3).slots, flow(&bed, 3).probed), (3, false));
    assert_eq!(bed.replica.status().flows.len(), 2);
    // A reign that ends counts nothing any more.
    bed.receive(id(2), crate::bed::accept(crate::bed::ballot(99, 2), 15, &["x"], 13));
    assert_eq!(bed.replica.status().flows, []);
    // Nor does it in the next one: it counts what that sends.
    bed.sync();
    bed.lead(&[2]);
    assert_eq!((flow(&bed, 2).slots, flow(&bed, 3).slots), (2, 2), "slots 14 and 15 were adopted");
}

/// **F4** A voter that has not answered the page that it was sent again is sent a single value the
/// next time.
#[test]
fn f4_an_unanswered_page_shrinks_to_a_value() {
    let mut bed = Bed::new(1, 3);
    let own = bed.lead(&[2]);
    for text in ["a", "b", "c"] {
        bed.propose(text);
    }
    bed.sync();
    let repeated = |bed: &mut Bed| {
        bed.take_sent();
        bed.pass(HEARTBEAT);
        bed.hear(&[2], |_, _| {});
        let sent = sent(bed).into_iter();
        sent.filter(|(to, ..)| *to == Recipients::One(id(2))).map(|(_, at, n)| (at, n)).collect()
    };
    let pages: Vec<Vec<(u64, usize)>> = (0..4).map(|_| repeated(&mut bed)).collect();
    let first = pages.iter().position(|page| !page.is_empty()).unwrap();
    assert_eq!(pages[first], [(1, 3)], "a whole page at first");
    assert_eq!(pages[first + 1], [(1, 1)], "then a single value");
    // Whoever answers gets the next page at once.
    bed.take_sent();
    bed.receive(id(2), accepted(own, 1, 1));
    assert_eq!(sent(&mut bed), [(Recipients::One(id(2)), 2, 2)]);
}

// --- a slow follower

const CLIENT: ClientId = ClientId::new(3);
const SLOW: u16 = 3;
const PAYLOAD: usize = 500;
const WINDOW: u32 = 8;

/// A leader that is given as much as it takes.
struct Load {
    script: Script,
    requests: u64,
    /// The most messages that waited on the way to the slow follower, and bytes that counted.
    backlog: u64,
    bytes: usize,
}

impl Load {
    fn new() -> Self {
        let options = Options {
            window: WINDOW,
            config: Config {
                window_bytes_max: 64 << 10,
                batch_bytes_max: 4 << 10,
                page_bytes_max: 16 << 10,
                ..Config::default()
            },
            disk_delay_max: Duration::from_micros(100),
            apply_delay_max: Duration::from_micros(100),
            ..Options::new(1, 3)
        };
        let mut script = Script::with(options);
        script.elect(1);
        // All ways take the same time: who is the second of a quorum makes no difference.
        let way = Duration::from_millis(5);
        let weather = Weather { delay_min: way, delay_max: way, ..Weather::CALM };
        script.cluster().network().set_weather(weather);
        Self { script, requests: 0, backlog: 0, bytes: 0 }
    }

    fn committed(&mut self, number: u16) -> Slot {
        self.script.status(number).committed
    }

    /// How many slots are committed within so long under full load.
    fn run(&mut self, duration: Duration) -> u64 {
        let before = self.committed(1);
        let end = self.script.cluster().now().after(duration);
        while self.script.cluster().now() < end {
            self.fill();
            self.script.run_for(Duration::from_millis(1));
            let now = self.script.cluster().now();
            let network = self.script.cluster().network();
            self.backlog = self.backlog.max(network.backlog(id(1), id(SLOW), now));
            let flows = self.script.status(1).flows;
            let slow = flows.iter().find(|flow| flow.peer == id(SLOW)).unwrap();
            self.bytes = self.bytes.max(slow.bytes);
        }
        self.committed(1).distance_from(before)
    }

    fn fill(&mut self) {
        let cluster: &mut Cluster = self.script.cluster();
        loop {
            self.requests += 1;
            let request = RequestNumber::new(self.requests);
            let command = Command::apply(CLIENT, request, Bytes::from(vec![7; PAYLOAD]));
            if !matches!(cluster.propose(id(1), &[command]), Some(Ok(_))) {
                return;
            }
        }
    }

    /// Lets values to the follower pass one after the other, each for so long.
    fn slow(&mut self, pace: Option<Duration>) {
        for from in [1, 2] {
            let network = self.script.cluster().network();
            network.set_pace(ReplicaId::new(from), id(SLOW), pace);
        }
    }
}

fn median(mut windows: Vec<u64>) -> u64 {
    windows.sort_unstable();
    windows[windows.len() / 2]
}

#[test]
fn a_follower_at_a_hundredth_of_the_speed_costs_the_others_nothing_and_catches_up_under_load() {
    let mut load = Load::new();
    let window = Duration::from_millis(500);
    let (mut fast, mut slow) = (Vec::new(), Vec::new());
    load.run(window);
    for _ in 0..5 {
        fast.push(load.run(window));
        // A hundredth of what it would be sent.
        let rate = u32::try_from(fast[fast.len() - 1]).unwrap();
        load.slow(Some(window * 100 / rate));
        slow.push(load.run(window));
        load.slow(None);
        // It catches up while the load goes on.
        load.run(window);
        let lag = load.committed(1).distance_from(load.committed(SLOW));
        assert!(lag <= u64::from(4 * WINDOW), "it lags by {lag} slots");
    }
    let (fast, slow) = (median(fast), median(slow));
    assert!(fast > 200, "{fast} slots in {window:?} are no load");
    assert!(slow * 100 >= fast * 85, "{slow} slots instead of {fast}");
    // What waits for it is bounded: twice the window.
    // Repetitions come on top: a value at a time.
    let most = u64::from(2 * WINDOW) + 4;
    assert!((4..=most).contains(&load.backlog), "{} messages wait", load.backlog);
    assert!((1..=64 << 10).contains(&load.bytes), "{} bytes wait", load.bytes);
    assert!(load.script.cluster().check().chosen_prefix() > Slot::new(10 * fast));
    load.script.run_timeouts(4);
    load.script.expect_applied(&[1, 2, 3], 4);
    assert!(load.script.status(1).flows.iter().all(|flow| flow.slots == 0), "back to zero");
}

#[test]
fn a_slow_follower_that_is_needed_is_not_held_back() {
    let mut load = Load::new();
    load.script.shape(&Shape::Isolate(id(2)));
    load.slow(Some(Duration::from_millis(5)));
    // Each value passes in 5 ms.
    let slots = load.run(Duration::from_secs(2));
    assert!(slots >= 300, "{slots} slots");
    let held = load.script.status(1).flows;
    assert!(held.iter().any(|flow| flow.peer == id(SLOW) && !flow.probed), "{held:?}");
}
