//! A router of UDP packets between replicas that loses, delays, repeats and reorders them.
//!
//! Owns: two sockets for each ordered pair of replicas, and what is done to packets in each
//! direction. Knows no QUIC: a packet is opaque, and is never changed. Needs no privileges.
//! Invariants: a packet goes out at most twice, and to the one replica that it was sent to; packets
//! that wait are bounded; a link without a rule forwards at once and in order.
//!
//! Replica `a` knows replica `b` by the address of the pair's front socket. What `a` sends there
//! leaves through the pair's back socket, which is the address that `b` answers to. So packets from
//! `a` to `b` come in at the front of (a, b), where `a` dialled, and at the back of (b, a), where
//! `b` did.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::runtime::{Builder, Runtime};

use crate::rng::Rng;
use crate::shape::Way;

/// Packets that wait in one direction of one pair; further ones are lost, as in a router.
const WAITING_MAX: usize = 4096;
/// The largest packet that UDP carries.
const PACKET_BYTES_MAX: usize = 65_536;
/// After a socket's error, which is another packet's, it is read again so much later.
const ERROR_PAUSE: Duration = Duration::from_millis(1);

/// What is done to packets of one direction. Chances are in a thousand.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Rule {
    pub(crate) cut: bool,
    pub(crate) loss: u64,
    pub(crate) duplicate: u64,
    /// Held back for longer than the ones behind it.
    pub(crate) reorder: u64,
    pub(crate) delay: Duration,
    /// A random part on top of the delay, up to this.
    pub(crate) jitter: Duration,
}

impl Rule {
    /// This one and another together.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            cut: self.cut || other.cut,
            loss: self.loss.max(other.loss),
            duplicate: self.duplicate.max(other.duplicate),
            reorder: self.reorder.max(other.reorder),
            delay: self.delay.max(other.delay),
            jitter: self.jitter.max(other.jitter),
        }
    }
}

/// How long a reordered packet is held back, in microseconds.
const REORDER_HOLD: (u64, u64) = (2_000, 30_000);

/// What became of packets.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Tally {
    pub(crate) forwarded: u64,
    pub(crate) cut: u64,
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) reordered: u64,
    pub(crate) delayed: u64,
    /// Lost because too many waited.
    pub(crate) overflowed: u64,
}

#[derive(Debug, Default)]
struct Counters {
    forwarded: AtomicU64,
    cut: AtomicU64,
    lost: AtomicU64,
    duplicated: AtomicU64,
    reordered: AtomicU64,
    delayed: AtomicU64,
    overflowed: AtomicU64,
}

/// One direction of one pair.
#[derive(Debug, Default)]
struct Link {
    /// Whether the rule is worth looking at.
    ruled: AtomicBool,
    rule: Mutex<Rule>,
    waiting: AtomicUsize,
    counters: Counters,
}

/// The addresses of one ordered pair of replicas.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair {
    /// Where the first replica reaches the second.
    pub(crate) front: SocketAddr,
    /// Where the second sees the first.
    pub(crate) back: SocketAddr,
}

/// The router.
#[derive(Debug)]
pub(crate) struct Proxy {
    nodes: usize,
    links: Vec<Arc<Link>>,
    pairs: Vec<Option<Pair>>,
    runtime: Option<Runtime>,
}

impl Proxy {
    /// Starts it between replicas that listen at `listens`; `sides[i]` is the router's own address
    /// on the side of replica `i`. The system chooses the ports.
    pub(crate) fn start(listens: &[SocketAddr], sides: &[IpAddr], seed: u64) -> io::Result<Self> {
        let nodes = listens.len();
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let links: Vec<_> = (0..nodes * nodes).map(|_| Arc::new(Link::default())).collect();
        let mut pairs = vec![None; nodes * nodes];
        let inside = runtime.enter();
        for (from, to) in ways(nodes) {
            let front = Arc::new(bind(sides[from])?);
            let back = Arc::new(bind(sides[to])?);
            pairs[from * nodes + to] =
                Some(Pair { front: front.local_addr()?, back: back.local_addr()? });
            let ahead = Route {
                inlet: Arc::clone(&front),
                outlet: Arc::clone(&back),
                source: listens[from],
                target: listens[to],
                link: Arc::clone(&links[from * nodes + to]),
            };
            let reply = Route {
                inlet: back,
                outlet: front,
                source: listens[to],
                target: listens[from],
                link: Arc::clone(&links[to * nodes + from]),
            };
            let purpose = 1000 + (from * nodes + to) as u64 * 2;
            tokio::spawn(pump(ahead, Rng::new(seed, purpose)));
            tokio::spawn(pump(reply, Rng::new(seed, purpose + 1)));
        }
        drop(inside);
        Ok(Self { nodes, links, pairs, runtime: Some(runtime) })
    }

    /// The sockets between two replicas, the first of which dials.
    pub(crate) fn pair(&self, from: usize, to: usize) -> Pair {
        self.pairs[from * self.nodes + to].expect("a replica has a pair with every other")
    }

    /// Changes the rule of one direction.
    pub(crate) fn change(&self, (from, to): Way, change: impl FnOnce(&mut Rule)) {
        let link = &self.links[from * self.nodes + to];
        let mut rule = link.rule.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut rule);
        link.ruled.store(*rule != Rule::default(), Ordering::Relaxed);
    }

    /// Takes every rule away.
    pub(crate) fn heal(&self) {
        for way in ways(self.nodes) {
            self.change(way, |rule| *rule = Rule::default());
        }
    }

    /// What became of all packets so far.
    pub(crate) fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        for link in &self.links {
            let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            tally.forwarded += read(&link.counters.forwarded);
            tally.cut += read(&link.counters.cut);
            tally.lost += read(&link.counters.lost);
            tally.duplicated += read(&link.counters.duplicated);
            tally.reordered += read(&link.counters.reordered);
            tally.delayed += read(&link.counters.delayed);
            tally.overflowed += read(&link.counters.overflowed);
        }
        tally
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Every directed link among so many replicas.
pub(crate) fn ways(nodes: usize) -> impl Iterator<Item = Way> {
    let all = (0..nodes).flat_map(move |from| (0..nodes).map(move |to| (from, to)));
    all.filter(|(from, to)| from != to)
}

fn bind(side: IpAddr) -> io::Result<UdpSocket> {
    let socket = std::net::UdpSocket::bind((side, 0))?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

/// One way through the router.
#[derive(Clone, Debug)]
struct Route {
    inlet: Arc<UdpSocket>,
    outlet: Arc<UdpSocket>,
    /// Packets of anybody else are not ours.
    source: SocketAddr,
    target: SocketAddr,
    link: Arc<Link>,
}

async fn pump(route: Route, mut rng: Rng) {
    let mut buffer = vec![0; PACKET_BYTES_MAX];
    loop {
        match route.inlet.recv_from(&mut buffer).await {
            Ok((length, source)) if source == route.source => {
                route.treat(&buffer[..length], &mut rng);
            }
            Ok(_) => {}
            Err(_) => tokio::time::sleep(ERROR_PAUSE).await,
        }
    }
}

impl Route {
    fn treat(&self, packet: &[u8], rng: &mut Rng) {
        if !self.link.ruled.load(Ordering::Relaxed) {
            self.send(packet);
            return;
        }
        let rule = *self.link.rule.lock().unwrap_or_else(PoisonError::into_inner);
        let counters = &self.link.counters;
        if rule.cut {
            counters.cut.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if rng.permille(rule.loss) {
            counters.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let copies = if rng.permille(rule.duplicate) {
            counters.duplicated.fetch_add(1, Ordering::Relaxed);
            2
        } else {
            1
        };
        for _ in 0..copies {
            let jitter = rule.jitter.as_micros() as u64;
            let mut hold = rule.delay + Duration::from_micros(rng.within(0, jitter));
            if rng.permille(rule.reorder) {
                counters.reordered.fetch_add(1, Ordering::Relaxed);
                hold += Duration::from_micros(rng.within(REORDER_HOLD.0, REORDER_HOLD.1));
            }
            self.send_after(packet, hold);
        }
    }

    fn send(&self, packet: &[u8]) {
        // A full socket buffer loses the packet, as any network may.
        if self.outlet.try_send_to(packet, self.target).is_ok() {
            self.link.counters.forwarded.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn send_after(&self, packet: &[u8], hold: Duration) {
        if hold.is_zero() {
            self.send(packet);
            return;
        }
        let counters = &self.link.counters;
        if self.link.waiting.fetch_add(1, Ordering::Relaxed) >= WAITING_MAX {
            self.link.waiting.fetch_sub(1, Ordering::Relaxed);
            counters.overflowed.fetch_add(1, Ordering::Relaxed);
            return;
        }
        counters.delayed.fetch_add(1, Ordering::Relaxed);
        let (route, packet) = (self.clone(), packet.to_vec());
        tokio::spawn(async move {
            tokio::time::sleep(hold).await;
            route.link.waiting.fetch_sub(1, Ordering::Relaxed);
            route.send(&packet);
        });
    }
}
