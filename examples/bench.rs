//! A closed loop: so many clients, each with one command outstanding, and one table at the end.
//!
//! `cargo run --release --example bench -- --clients 4096 --seconds 5`

#![allow(clippy::print_stdout, reason = "the table is what this program is for")]
#![allow(clippy::print_stderr, reason = "so is the usage")]
#![allow(clippy::cast_precision_loss, clippy::cast_sign_loss, reason = "figures are shown rounded")]

use std::error::Error;
use std::net::UdpSocket;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use paxos::core::durable::{Durable, WriteBatch};
use paxos::core::membership::WINDOW_DEFAULT;
use paxos::core::port::{Blocking, LoadRange, Loaded, Recovered, Room, Storage, StorageError};
use paxos::core::quorum::QuorumRule;
use paxos::quic::{Identity, QuicOptions, QuicTransport};
use paxos::storage::{MemoryStorage, Wal, WalOptions};
use paxos::{
    Batch, Client, ClusterId, Delivery, Epoch, Format, GroupId, Member, Membership, MemoryNetwork,
    Node, ReplicaId, StateMachine, async_trait,
};

const USAGE: &str = "usage: bench [--replicas N] [--clients N] [--seconds S] [--payload BYTES]
             [--storage memory|wal] [--dir DIR] [--transport memory|quic] [--spread] [--single] [--threads N]
             [--flood N | --slow-follower] [--at N] [--flood-at N] [--metrics] [--smoke]

  --replicas N   nodes in this process (3)
  --clients N    tasks with one command outstanding each (1024)
  --seconds S    how long to measure, after half a second of warming up (5)
  --payload B    bytes of each command (0)
  --storage wal  synced to files under DIR (a temporary directory)
  --transport quic  mutual TLS over UDP on loopback
  --spread       clients on all nodes, not on the leader alone
  --single       commands outside of the node's session
  --threads N    worker threads (2)
  --flood N      measure the clients alone, and again beside another with N commands outstanding
  --at N         clients on the Nth node after the leader (0)
  --flood-at N   the other one on the Nth node after the leader (0)
  --slow-follower  five windows as they are and five with a follower whose disk runs at a hundredth of
                 its speed, in turn
  --metrics      print the leader's metrics too
  --smoke        a run of a second or less";

/// Counts commands, and throws their bytes away.
struct Sink(u64);

#[async_trait]
impl StateMachine for Sink {
    type Command = Payload;
    type Reply = ();
    type Query = ();
    type Answer = u64;

    async fn apply(&mut self, batch: Batch<Payload>) -> Vec<()> {
        self.0 += batch.commands.len() as u64;
        vec![(); batch.commands.len()]
    }

    async fn query(&self, (): ()) -> u64 {
        self.0
    }
}

type Payload = Vec<u8>;

#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
struct Args {
    replicas: u16,
    clients: usize,
    seconds: f64,
    payload: usize,
    wal: bool,
    quic: bool,
    dir: Option<String>,
    spread: bool,
    delivery: Delivery,
    threads: usize,
    flood: usize,
    at: usize,
    flood_at: usize,
    slow_follower: bool,
    metrics: bool,
}

fn parse() -> Result<Args, String> {
    let mut args = Args {
        replicas: 3,
        clients: 1024,
        seconds: 5.0,
        payload: 0,
        wal: false,
        quic: false,
        dir: None,
        spread: false,
        delivery: Delivery::ExactlyOnce,
        threads: 2,
        flood: 0,
        at: 0,
        flood_at: 0,
        slow_follower: false,
        metrics: false,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        let number =
            |text: String| text.parse::<usize>().map_err(|_| format!("{text} is no number"));
        match word.as_str() {
            "--replicas" => args.replicas = number(value()?)?.clamp(1, 9) as u16,
            "--clients" => args.clients = number(value()?)?.clamp(1, 65_536),
            "--seconds" => args.seconds = number(value()?)? as f64,
            "--payload" => args.payload = number(value()?)?.min(1 << 19),
            "--threads" => args.threads = number(value()?)?.clamp(1, 64),
            "--slow-follower" => args.slow_follower = true,
            "--flood" => args.flood = number(value()?)?.clamp(1, 60_000),
            "--at" => args.at = number(value()?)?,
            "--flood-at" => args.flood_at = number(value()?)?,
            "--dir" => args.dir = Some(value()?),
            "--spread" => args.spread = true,
            "--single" => args.delivery = Delivery::AtMostOnce,
            "--metrics" => args.metrics = true,
            "--smoke" => (args.seconds, args.clients) = (0.2, 64),
            "--storage" => match value()?.as_str() {
                "memory" => args.wal = false,
                "wal" => args.wal = true,
                other => return Err(format!("no storage is called {other}")),
            },
            "--transport" => match value()?.as_str() {
                "memory" => args.quic = false,
                "quic" => args.quic = true,
                other => return Err(format!("no transport here is called {other}")),
            },
            "--help" | "-h" => {
                println!("{USAGE}");
                std::process::exit(0);
            }
            other => return Err(format!("unknown option {other}")),
        }
    }
    Ok(args)
}

fn main() -> ExitCode {
    let args = match parse() {
        Ok(args) => args,
        Err(error) => {
            eprintln!("{error}\n{USAGE}");
            return ExitCode::FAILURE;
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(args.threads)
        .enable_all()
        .build();
    let result =
        runtime.map_err(|error| error.to_string()).and_then(|runtime| runtime.block_on(run(&args)));
    if let Err(error) = result {
        eprintln!("{error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

async fn run(args: &Args) -> Result<(), String> {
    let temporary = tempfile::tempdir().map_err(|error| error.to_string())?;
    let dir = args.dir.as_deref().map_or(temporary.path(), Path::new);
    let before = if args.wal { sync_p50(dir)? } else { None };
    let brakes: Vec<Brake> = (0..args.replicas).map(|_| Brake::default()).collect();
    let nodes = start(args, dir, &brakes).await?;
    let leader = leader(&nodes).await;
    if args.slow_follower {
        return slow_follower(args, &nodes, leader, &brakes).await;
    }
    let mut measured = measure(args, &nodes, leader).await;
    if args.flood > 0 {
        let alone = measured.quantile(0.5);
        let flood = flood(args, &nodes[(leader + args.flood_at) % nodes.len()]);
        measured = measure(args, &nodes, leader).await;
        let commands = flood.end().await;
        let beside = measured.quantile(0.5);
        println!(
            "p50 alone {alone:?}, beside {} outstanding of another {beside:?}: {:.1} times; the other had \
             {commands} answered",
            args.flood,
            beside.as_secs_f64() / alone.as_secs_f64().max(1e-9),
        );
    }
    let metrics = nodes[leader].metrics();
    let status = nodes[leader].status();
    if let Some(reason) = status.stopped {
        return Err(reason.to_string());
    }
    println!(
        "replicas {} clients {} payload {} storage {} transport {} threads {}{}",
        args.replicas,
        args.clients,
        args.payload,
        if args.wal { "wal" } else { "memory" },
        if args.quic { "quic" } else { "memory" },
        args.threads,
        match (args.spread, args.delivery) {
            (true, Delivery::AtMostOnce) => " spread single",
            (false, Delivery::AtMostOnce) => " single",
            (true, _) => " spread",
            (false, _) => "",
        },
    );
    println!(
        "{:>12} {:>10} {:>10} {:>10} {:>12} {:>10} {:>12}",
        "commands/s", "p50 us", "p99 us", "max us", "batch mean", "syncs", "sync p50 us"
    );
    let micros = |at: f64| measured.quantile(at).as_secs_f64() * 1e6;
    println!(
        "{:>12.0} {:>10.1} {:>10.1} {:>10.1} {:>12} {:>10} {:>12.1}",
        measured.latencies.len() as f64 / measured.elapsed.as_secs_f64(),
        micros(0.5),
        micros(0.99),
        micros(1.0),
        metrics.batch_commands.mean(),
        metrics.sync.count,
        metrics.sync.p50 as f64 / 1e3,
    );
    if args.metrics {
        println!("\n{metrics}");
    }
    for node in nodes {
        node.shutdown().await;
    }
    if let (Some(before), Some(after)) = (before, if args.wal { sync_p50(dir)? } else { None }) {
        println!("fdatasync p50 before {before:?} after {after:?}");
    }
    Ok(())
}

/// What one replica proves itself with, and the socket that it listens on.
type Own = Option<(Identity, UdpSocket)>;

/// Whether a disk runs at a hundredth of its speed.
type Brake = Arc<AtomicBool>;

/// How often a window is measured with and without a slow follower.
const WINDOWS: usize = 5;

/// A storage that can be slowed down.
struct Slowed<S>(S, Brake);

impl<S: Storage> Slowed<S> {
    /// Takes ninety-nine times as long again.
    fn drag<T>(&mut self, work: impl FnOnce(&mut S) -> T) -> T {
        let begin = Instant::now();
        let done = work(&mut self.0);
        if self.1.load(Ordering::Relaxed) {
            std::thread::sleep(begin.elapsed() * 99);
        }
        done
    }
}

impl<S: Storage> Storage for Slowed<S> {
    fn recover(&mut self, nonce: u32) -> Result<Vec<Recovered>, StorageError> {
        self.0.recover(nonce)
    }

    fn persist(&mut self, batches: Vec<WriteBatch>) -> Result<Vec<Durable>, StorageError> {
        self.drag(|storage| storage.persist(batches))
    }

    fn load(&mut self, range: LoadRange) -> Result<Loaded, StorageError> {
        self.drag(|storage| storage.load(range))
    }

    fn room(&self) -> Room {
        self.0.room()
    }

    /// A thread of its own, in memory too, or the node would be slow and not its disk.
    fn blocking(&self) -> Blocking {
        Blocking::Device
    }
}

/// Compares windows with and without a slow follower.
async fn slow_follower(
    args: &Args,
    nodes: &[Node<Sink>],
    leader: usize,
    brakes: &[Brake],
) -> Result<(), String> {
    let slow = (leader + 1) % nodes.len();
    let mut rates = [Vec::new(), Vec::new()];
    println!("window      commands/s  slots behind  MiB on their way to it  probed  resident MiB");
    for window in 0..2 * WINDOWS {
        let is_slow = window % 2 == 1;
        brakes[slow].store(is_slow, Ordering::Relaxed);
        let measured = measure(args, nodes, leader).await;
        let rate = measured.latencies.len() as f64 / measured.elapsed.as_secs_f64();
        rates[usize::from(is_slow)].push(rate);
        let status = nodes[leader].status().replica;
        if status.flows.is_empty() {
            return Err("the leader changed: nothing can be compared".to_owned());
        }
        let behind = status.applied.distance_from(nodes[slow].status().replica.applied);
        let flow = status.flows.iter().find(|flow| flow.peer.number() as usize == slow + 1);
        let (bytes, probed) = flow.map_or((0, false), |flow| (flow.bytes, flow.probed));
        println!(
            "{:<10} {rate:>11.0} {behind:>13} {:>23.1} {probed:>7} {:>13.0}",
            if is_slow { "slow" } else { "as it is" },
            bytes as f64 / f64::from(1 << 20),
            resident_mib(),
        );
    }
    brakes[slow].store(false, Ordering::Relaxed);
    let [usual, beside_slow] = rates.map(|mut rates| {
        rates.sort_by(f64::total_cmp);
        rates[WINDOWS / 2]
    });
    let share = 100.0 * beside_slow / usual;
    println!("medians: {usual:.0} as it is, {beside_slow:.0} with a slow follower: {share:.0} %");
    Ok(())
}

/// The memory of this process, all nodes and clients; zero where nobody can say.
fn resident_mib() -> f64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<f64>().ok());
    pages.unwrap_or_default() * 4096.0 / f64::from(1 << 20)
}

async fn start(args: &Args, dir: &Path, brakes: &[Brake]) -> Result<Vec<Node<Sink>>, String> {
    let network = MemoryNetwork::new();
    let (membership, owns) = members(args).map_err(|error| error.to_string())?;
    let mut nodes = Vec::new();
    for ((member, own), brake) in membership.voters().iter().zip(owns).zip(brakes) {
        let replica = member.id;
        let format = Format {
            cluster: ClusterId::new(1),
            group: GroupId::default(),
            replica,
            membership: membership.clone(),
        };
        let builder = match own {
            None => Node::builder().transport(network.transport(replica)),
            Some((identity, socket)) => {
                let options = QuicOptions::new(&format, identity).socket(socket);
                let transport = QuicTransport::new(options);
                Node::builder().transport(transport.map_err(|error| error.to_string())?)
            }
        };
        let builder = if args.wal {
            let dir = dir.join(replica.number().to_string());
            let wal = Wal::open_or_format(&dir, &format, WalOptions::default());
            let wal = wal.map_err(|error| error.to_string())?;
            if args.slow_follower {
                builder.storage(Slowed(wal, Arc::clone(brake)))
            } else {
                builder.storage(wal)
            }
        } else if args.slow_follower {
            builder.storage(Slowed(MemoryStorage::formatted(format), Arc::clone(brake)))
        } else {
            builder.storage(MemoryStorage::formatted(format))
        };
        let node = builder.start(Sink(0)).await;
        nodes.push(node.map_err(|error| error.to_string())?);
    }
    Ok(nodes)
}

fn members(args: &Args) -> Result<(Membership, Vec<Own>), Box<dyn Error>> {
    let (mut voters, mut owns) = (Vec::new(), Vec::new());
    for number in 1..=args.replicas {
        let mut member = Member::new(ReplicaId::new(number));
        let mut own = None;
        if args.quic {
            let (identity, socket) = (Identity::generate()?, UdpSocket::bind("127.0.0.1:0")?);
            member.addresses = vec![socket.local_addr()?.to_string()];
            member.keys = vec![identity.pin()];
            own = Some((identity, socket));
        }
        voters.push(member);
        owns.push(own);
    }
    let (rule, window) = (QuorumRule::Majority, WINDOW_DEFAULT);
    let membership = Membership::new(Epoch::FIRST, voters, Vec::new(), rule, window)?;
    Ok((membership, owns))
}

async fn leader(nodes: &[Node<Sink>]) -> usize {
    loop {
        let leads = |node: &Node<Sink>| node.watch().borrow().is_leader;
        if let Some(leader) = nodes.iter().position(leads) {
            return leader;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A client with many commands outstanding.
struct Flood {
    ended: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<Vec<u32>>>,
}

impl Flood {
    /// Ends it; how many commands it had answered.
    async fn end(self) -> usize {
        self.ended.store(true, Ordering::Relaxed);
        let mut commands = 0;
        for task in self.tasks {
            commands += task.await.unwrap_or_default().len();
        }
        commands
    }
}

/// Lets one client have as many commands outstanding as the arguments say: its clones are one.
fn flood(args: &Args, node: &Node<Sink>) -> Flood {
    let (counting, ended) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false)));
    let client = node.client();
    let task = |_| {
        let (counting, ended) = (Arc::clone(&counting), Arc::clone(&ended));
        let payload = vec![7; args.payload];
        tokio::spawn(ask(client.clone(), args.delivery, payload, counting, ended))
    };
    let tasks = (0..args.flood).map(task).collect();
    Flood { ended, tasks }
}

struct Measured {
    latencies: Vec<u32>,
    elapsed: Duration,
}

impl Measured {
    fn quantile(&self, at: f64) -> Duration {
        let place = (self.latencies.len() as f64 * at) as usize;
        let place = place.min(self.latencies.len().saturating_sub(1));
        let tenths = self.latencies.get(place).copied().unwrap_or(0);
        Duration::from_nanos(u64::from(tenths) * 100)
    }
}

async fn measure(args: &Args, nodes: &[Node<Sink>], leader: usize) -> Measured {
    let (counting, ended) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let mut tasks = Vec::new();
    for number in 0..args.clients {
        let place = if args.spread { number } else { leader + args.at } % nodes.len();
        let client = nodes[place].client();
        let (counting, ended) = (Arc::clone(&counting), Arc::clone(&ended));
        let payload = vec![7; args.payload];
        tasks.push(tokio::spawn(ask(client, args.delivery, payload, counting, ended)));
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    counting.store(true, Ordering::Relaxed);
    let begin = Instant::now();
    tokio::time::sleep(Duration::from_secs_f64(args.seconds)).await;
    ended.store(true, Ordering::Relaxed);
    let elapsed = begin.elapsed();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await.unwrap_or_default());
    }
    latencies.sort_unstable();
    Measured { latencies, elapsed }
}

/// Asks one command after the other; the latencies in tenths of a microsecond.
async fn ask(
    client: Client<Sink>,
    delivery: Delivery,
    payload: Payload,
    counting: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
) -> Vec<u32> {
    let mut latencies = Vec::new();
    let mut begin = Instant::now();
    while !ended.load(Ordering::Relaxed) {
        let reply = client.execute_with(delivery, payload.clone()).await;
        let end = Instant::now();
        if reply.is_ok() && counting.load(Ordering::Relaxed) {
            latencies.push((end.duration_since(begin).as_nanos() / 100) as u32);
        }
        begin = end;
    }
    latencies
}

/// How long one sync of a small write takes here, in the middle of many.
fn sync_p50(dir: &Path) -> Result<Option<Duration>, String> {
    use std::io::Write as _;
    std::fs::create_dir_all(dir).map_err(|error| error.to_string())?;
    let path = dir.join("sync-probe");
    let probe = || -> std::io::Result<Duration> {
        let mut file = std::fs::File::create(&path)?;
        let mut times = Vec::new();
        for _ in 0..50 {
            file.write_all(&[0; 4096])?;
            let begin = Instant::now();
            file.sync_data()?;
            times.push(begin.elapsed());
        }
        std::fs::remove_file(&path)?;
        times.sort_unstable();
        Ok(times[times.len() / 2])
    };
    probe().map(Some).map_err(|error| error.to_string())
}
