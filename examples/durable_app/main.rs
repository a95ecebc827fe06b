//! A state machine with a durable state of its own, killed again and again: what was acknowledged is there, and
//! nothing is there twice.
//!
//!     cargo run --release --example durable_app            the trial below, in a directory of its own
//!     cargo run --release --example durable_app -- DIR     the replica alone, as the trial starts it
//!
//! The trial starts a replica as another process, lets it take deposits, kills it with SIGKILL, and starts it
//! again. In some lives the store is made durable seldom, and is behind the log then. In others it is with
//! each batch, and the last deposit is followed by nothing: then it is ahead of what the log has recorded as
//! committed, as that is written with the next slot.

#![allow(clippy::print_stdout, reason = "an example prints")]

mod ledger;

use std::cmp::Ordering as Cmp;
use std::collections::BTreeSet;
use std::error::Error;
use std::io::{BufRead, BufReader, Lines};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{env, fs, process};

use paxos::storage::{Wal, WalOptions};
use paxos::{
    Client, ClusterId, Format, GroupId, Membership, MemoryNetwork, Node, NodeOptions, ReplicaId,
    StateMachine,
};

use ledger::{Deposit, Ledger, Question, Sync};

/// Clients of the replica, each of which waits for its answer before it asks again.
const CLIENTS: u64 = 16;
/// The replica is killed once so many deposits of its life were acknowledged.
const PER_LIFE: [usize; 4] = [700, 300, 1100, 500];
/// A state that is made durable seldom is so after this many slots.
const SELDOM: u64 = 64;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Starts the replica of a directory, and says what it begins with.
async fn start(dir: &Path, sync: Sync) -> Outcome<(Node<Ledger>, Began)> {
    let replica = ReplicaId::new(1);
    let format = Format {
        cluster: ClusterId::new(0xacc0),
        group: GroupId::default(),
        replica,
        membership: Membership::voters_only([replica])?,
    };
    let log = Wal::open_or_format(dir.join("log"), &format, WalOptions::default())?;
    let ledger = Ledger::open(&dir.join("ledger.redb"), sync)?;
    let included = ledger.applied().number();
    let transport = MemoryNetwork::new().transport(replica);
    let options = NodeOptions { snapshot_slots: 400, ..NodeOptions::default() };
    let parts = Node::builder().storage(log).transport(transport).options(options);
    let node = parts.start(ledger).await?;
    // Read before the replica has committed anything in this life: it waits for an election first.
    let recorded = node.status().replica.committed.number();
    Ok((node, Began { included, recorded }))
}

/// Has deposits made one after another, and writes down which were acknowledged.
async fn deposit(client: Client<Ledger>, next: Arc<AtomicU64>, end: u64) {
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= end {
            return;
        }
        match client.execute(Deposit { number, account: number % 10, amount: 3 }).await {
            Ok(_) => println!("did {number}"),
            Err(error) => return println!("failed {number}: {error}"),
        }
    }
}

/// Runs the replica of a directory, and has these deposits made: by one client after another where each is to
/// be durable in the store, and else by many at once.
#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn serve(dir: &Path, sync: Sync, numbers: Range<u64>) -> Outcome<()> {
    let (node, Began { included, recorded }) = start(dir, sync).await?;
    println!("started {included} {recorded}");
    let clients = if sync == Sync::Always { 1 } else { CLIENTS };
    let next = Arc::new(AtomicU64::new(numbers.start));
    let clients =
        (0..clients).map(|_| tokio::spawn(deposit(node.client(), Arc::clone(&next), numbers.end)));
    for client in clients.collect::<Vec<_>>() {
        client.await?;
    }
    Err(node.stopped().await.to_string().into())
}

/// What a life began with.
#[derive(Clone, Copy)]
struct Began {
    /// The last slot that the store held.
    included: u64,
    /// The last slot that the log had recorded as committed.
    recorded: u64,
}

struct Life {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Drop for Life {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Life {
    fn begin(dir: &Path, sync: Sync, numbers: Range<u64>) -> Outcome<(Self, Began)> {
        let mut command = Command::new(env::current_exe()?);
        command.arg(dir).arg(word(sync)).stdout(Stdio::piped());
        command.args([numbers.start.to_string(), numbers.end.to_string()]);
        let mut child = command.spawn()?;
        let out = child.stdout.take().ok_or("the replica has no output")?;
        let mut lines = BufReader::new(out).lines();
        let line = lines.next().ok_or("the replica ended before it began")??;
        let mut numbers = line.split(' ').skip(1).map(str::parse);
        let mut number = || numbers.next().ok_or("no number")?.map_err(Box::<dyn Error>::from);
        let began = Began { included: number()?, recorded: number()? };
        Ok((Self { child, lines }, began))
    }

    /// Reads what it acknowledged, and kills it after so many. What it said before it died counts.
    fn run(mut self, count: usize, acknowledged: &mut BTreeSet<u64>) -> Outcome<()> {
        let mut seen = 0;
        for line in self.lines.by_ref() {
            let line = line?;
            // Cut off by the end, it says nothing.
            let Some(number) = line.strip_prefix("did ").and_then(|number| number.parse().ok())
            else {
                continue;
            };
            acknowledged.insert(number);
            seen += 1;
            if seen == count {
                self.child.kill()?;
            }
        }
        if seen < count { Err("the replica ended by itself".into()) } else { Ok(()) }
    }
}

/// Asks the replica, in this process, for everything.
#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn audit(dir: &Path, acknowledged: &BTreeSet<u64>, end: u64) -> Outcome<(u64, Began)> {
    let (node, began) = start(dir, Sync::Slots(SELDOM)).await?;
    let client = node.client();
    let mut applied = 0;
    for number in 0..end {
        let (times, _) = client.query(Question::Times(number)).await?;
        if times > 1 || (times == 0 && acknowledged.contains(&number)) {
            return Err(format!("deposit {number} was applied {times} times").into());
        }
        applied += times;
    }
    let (sum, deposits) = client.query(Question::Total).await?;
    if (sum, deposits) != (applied * 3, applied) {
        return Err(format!("{applied} deposits of 3 make {sum}, in {deposits} rows").into());
    }
    node.shutdown().await;
    Ok((applied, began))
}

fn word(sync: Sync) -> &'static str {
    if sync == Sync::Always { "always" } else { "seldom" }
}

/// Says what a life left behind, as the next one found it.
fn report(life: usize, sync: Sync, acknowledged: usize, found: Began) {
    let Began { included, recorded } = found;
    let place = match included.cmp(&recorded) {
        Cmp::Less => format!("{} behind", recorded - included),
        Cmp::Equal => "level".to_owned(),
        Cmp::Greater => format!("{} ahead", included - recorded),
    };
    let durable = word(sync);
    println!("{life:>4}  {durable:>7}  {acknowledged:>12}  {included:>5}  {recorded:>12}  {place}");
}

fn trial(dir: &Path) -> Outcome<()> {
    let mut acknowledged = BTreeSet::new();
    let (mut end, mut ahead) = (0, 0);
    let mut last: Option<(usize, Sync, usize)> = None;
    let mut found = |life: &mut Option<(usize, Sync, usize)>, began: Began| {
        if let Some((life, sync, count)) = life.take() {
            report(life, sync, count, began);
            ahead += usize::from(began.included > began.recorded);
        }
    };
    println!("life  durable  acknowledged  store  log's record  so the store was, after SIGKILL");
    for (life, count) in PER_LIFE.into_iter().enumerate() {
        let sync = if life % 2 == 0 { Sync::Slots(SELDOM) } else { Sync::Always };
        let first = end;
        end = if sync == Sync::Always { first + count as u64 } else { u64::MAX };
        let (process, began) = Life::begin(dir, sync, first..end)?;
        found(&mut last, began);
        process.run(count, &mut acknowledged)?;
        last = Some((life + 1, sync, count));
        // A number that may be in the log is never used again.
        end = acknowledged.last().map_or(0, |last| last + CLIENTS + 1);
    }
    let (applied, began) = audit(dir, &acknowledged, end)?;
    found(&mut last, began);
    if ahead == 0 {
        return Err("no store was ever ahead of its log's record".into());
    }
    let count = acknowledged.len();
    let others = applied - count as u64;
    println!("{count} acknowledged and {others} that were on their way are there, each once");
    Ok(())
}

fn run() -> Outcome<()> {
    let mut arguments = env::args().skip(1);
    if let Some(dir) = arguments.next() {
        let sync = match arguments.next().as_deref() {
            Some("always") => Sync::Always,
            _ => Sync::Slots(SELDOM),
        };
        let mut number = |usual| arguments.next().map_or(Ok(usual), |number| number.parse());
        let numbers = number(0)?..number(u64::MAX)?;
        return serve(&PathBuf::from(dir), sync, numbers);
    }
    let dir = env::temp_dir().join(format!("paxos-durable-app-{}", process::id()));
    fs::create_dir(&dir)?;
    let outcome = trial(&dir);
    if outcome.is_ok() {
        fs::remove_dir_all(&dir)?;
    } else {
        println!("what is left is in {}", dir.display());
    }
    outcome
}

fn main() {
    if let Err(error) = run() {
        println!("durable_app: {error}");
        process::exit(1);
    }
}
