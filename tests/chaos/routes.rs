//! The router of UDP packets does to them what its rules say, and nothing else.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use crate::proxy::{Proxy, Rule};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// How long a packet may take that is on its way for sure.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long nothing may come before it counts as never. Too short a time never fails a test.
const SILENCE: Duration = Duration::from_millis(100);

struct Pair {
    proxy: Proxy,
    sockets: [UdpSocket; 2],
}

impl Pair {
    fn new() -> Self {
        let sockets = [UdpSocket::bind((HERE, 0)).unwrap(), UdpSocket::bind((HERE, 0)).unwrap()];
        let listens: Vec<_> = sockets.iter().map(|socket| socket.local_addr().unwrap()).collect();
        Self { proxy: Proxy::start(&listens, &[HERE, HERE], 1).unwrap(), sockets }
    }

    /// Sends where `from` dials the other.
    fn send(&self, from: usize, packet: &[u8]) {
        let front = self.proxy.pair(from, 1 - from).front;
        self.sockets[from].send_to(packet, front).unwrap();
    }

    /// The next packet that comes within a time, and who seems to have sent it.
    fn receive(&self, at: usize, within: Duration) -> Option<(Vec<u8>, std::net::SocketAddr)> {
        self.sockets[at].set_read_timeout(Some(within)).unwrap();
        let mut buffer = [0; 2048];
        let (length, source) = self.sockets[at].recv_from(&mut buffer).ok()?;
        Some((buffer[..length].to_vec(), source))
    }
}

#[test]
fn packets_go_both_ways_and_answers_come_back() {
    let pair = Pair::new();
    for (from, to) in [(0, 1), (1, 0)] {
        pair.send(from, b"question");
        let (packet, source) = pair.receive(to, PATIENCE).unwrap();
        assert_eq!(packet, b"question");
        assert_eq!(source, pair.proxy.pair(from, to).back);
        pair.sockets[to].send_to(b"answer", source).unwrap();
        let (packet, source) = pair.receive(from, PATIENCE).unwrap();
        assert_eq!(packet, b"answer");
        assert_eq!(source, pair.proxy.pair(from, to).front);
    }
}

/// A cut direction is dead for what that side dials and for what it answers, and the other lives.
#[test]
fn a_cut_is_one_way_and_covers_answers() {
    let pair = Pair::new();
    pair.proxy.change((0, 1), |rule| rule.cut = true);
    pair.send(0, b"lost");
    assert_eq!(pair.receive(1, SILENCE), None);
    pair.send(1, b"heard");
    let (packet, source) = pair.receive(0, PATIENCE).unwrap();
    assert_eq!(packet, b"heard");
    pair.sockets[0].send_to(b"lost answer", source).unwrap();
    assert_eq!(pair.receive(1, SILENCE), None);
    assert_eq!(pair.proxy.tally().cut, 2);
    pair.proxy.heal();
    pair.send(0, b"mended");
    assert_eq!(pair.receive(1, PATIENCE).unwrap().0, b"mended");
}

#[test]
fn loss_duplication_and_delay_are_as_asked() {
    let pair = Pair::new();
    pair.proxy.change((0, 1), |rule| rule.loss = 1000);
    pair.send(0, b"lost");
    assert_eq!(pair.receive(1, SILENCE), None);
    assert_eq!(pair.proxy.tally().lost, 1);

    let twice = Rule { duplicate: 1000, ..Rule::default() };
    pair.proxy.change((0, 1), |rule| *rule = twice);
    pair.send(0, b"twice");
    assert_eq!(pair.receive(1, PATIENCE).unwrap().0, b"twice");
    assert_eq!(pair.receive(1, PATIENCE).unwrap().0, b"twice");

    let delay = Duration::from_millis(80);
    pair.proxy.change((0, 1), |rule| *rule = Rule { delay, ..Rule::default() });
    let sent = Instant::now();
    pair.send(0, b"late");
    assert_eq!(pair.receive(1, PATIENCE).unwrap().0, b"late");
    assert!(sent.elapsed() >= delay, "{:?}", sent.elapsed());
    assert_eq!(pair.proxy.tally().delayed, 1);
}

#[test]
fn half_of_the_packets_are_lost_where_half_is_asked() {
    let pair = Pair::new();
    pair.proxy.change((0, 1), |rule| rule.loss = 500);
    // One after the other, so that no socket's buffer runs over.
    for sent in 1..=1000 {
        pair.send(0, b"x");
        let start = Instant::now();
        loop {
            let tally = pair.proxy.tally();
            if tally.lost + tally.forwarded == sent {
                break;
            }
            assert!(start.elapsed() < PATIENCE, "{sent}: {tally:?}");
            std::thread::yield_now();
        }
    }
    let tally = pair.proxy.tally();
    assert!((400..=600).contains(&tally.lost), "{tally:?}");
}

/// A packet that does not come from the replica is not passed on.
#[test]
fn strangers_are_not_served() {
    let pair = Pair::new();
    let stranger = UdpSocket::bind((HERE, 0)).unwrap();
    stranger.send_to(b"stranger", pair.proxy.pair(0, 1).front).unwrap();
    pair.send(0, b"known");
    assert_eq!(pair.receive(1, PATIENCE).unwrap().0, b"known");
    assert_eq!(pair.receive(1, SILENCE), None);
}
