//! How long real processes do not serve in a partial partition, and whether the leader stays.
//!
//! Owns: the measure and its bounds.
//! Invariants: a request counts only if it was sent after the cut; all else is well meanwhile, and
//! every link is mended at the end.
//! Source: the Omni-Paxos paper measures down-time in election timeouts.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use paxos::core::sim::Preset;

use crate::cluster::Cluster;
use crate::preset::OnProcesses;
use crate::resp::{Client, Reply};
use crate::rng::Rng;
use crate::say;

/// The longest time from the loss of a leader to the start of a campaign: `kv` keeps the defaults.
const ELECTION_TIMEOUT: Duration = Duration::from_millis(750);
/// Bounds in election timeouts: until a new command is committed, and without a campaign then.
const SERVE_WITHIN: u32 = 4;
const STAY: u32 = 100;
/// A request that takes longer is given up, and another sent.
const PATIENCE: Duration = Duration::from_millis(300);
const PAUSE: Duration = Duration::from_millis(5);
/// How often campaigns are counted.
const GLANCE: Duration = Duration::from_millis(50);
/// A flapping link is cut and joined for so long.
const FLAP: [Duration; 2] = [Duration::from_millis(600), Duration::from_millis(400)];
const SETTLE: Duration = Duration::from_secs(60);

/// What was measured.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Measured {
    pub(crate) preset: Preset,
    /// From the cut to the first command committed that was sent after it.
    pub(crate) down: Option<Duration>,
    /// Campaigns after the cut, within the bound and later.
    pub(crate) campaigns: [u64; 2],
    /// The longest time without a command committed while the leader was to stay.
    pub(crate) gap: Duration,
}

impl Measured {
    /// What bound was missed.
    pub(crate) fn failure(&self) -> Option<&'static str> {
        match self.down {
            None => Some("no new command was committed in time"),
            Some(_) if self.campaigns[1] > 0 => Some("the leader did not stay"),
            // Or the links were not cut.
            Some(_) if self.preset.deposes() && self.campaigns[0] == 0 => Some("nobody campaigned"),
            Some(_) => None,
        }
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = |time: Duration| time.as_secs_f64() / ELECTION_TIMEOUT.as_secs_f64();
        let down = self.down.map_or("-".to_owned(), |down| format!("{:.2}", units(down)));
        let [soon, late] = self.campaigns;
        let gap = units(self.gap);
        write!(f, "| {} | {down} | {soon} | {late} | {gap:.2} |", self.preset)
    }
}

/// Measures presets one after the other on processes that are laid out. False if a bound was missed.
pub(crate) fn run(
    cluster: &mut Cluster,
    presets: &[Preset],
    seed: u64,
    interrupted: &AtomicBool,
) -> Result<bool, String> {
    let nodes = cluster.clients().len();
    (0..nodes).try_for_each(|node| cluster.start(node, None))?;
    let mut rng = Rng::new(seed, 0);
    say(format_args!(
        "down-time in election timeouts of {ELECTION_TIMEOUT:?}; bounds: {SERVE_WITHIN} to serve, then \
         {STAY} without a campaign\n\n| preset | down | campaigns | later | longest gap |\n|---|---|---|---|---|"
    ));
    let mut all = true;
    for preset in presets.iter().filter(|preset| preset.fits(nodes)) {
        cluster.wait_until_equal(SETTLE)?;
        let measured = measure(cluster, *preset, &mut rng, interrupted)?;
        if interrupted.load(Ordering::Relaxed) {
            break;
        }
        say(&measured);
        if let Some(failure) = measured.failure() {
            say(format_args!("MISSED: {preset}: {failure}"));
            all = false;
        }
        cluster.heal()?;
    }
    let ends = cluster.ends();
    for end in &ends {
        say(&end.text);
    }
    let panics = cluster.panics();
    panics.iter().for_each(say);
    Ok(all && ends.is_empty() && panics.is_empty())
}

/// When the newest request was sent of those that were answered, and when the last answer came.
#[derive(Debug, Default)]
struct Answers {
    newest: Option<Instant>,
    last: Option<Instant>,
    gap: Duration,
}

fn measure(
    cluster: &Cluster,
    preset: Preset,
    rng: &mut Rng,
    interrupted: &AtomicBool,
) -> Result<Measured, String> {
    let start = Instant::now();
    let leader = loop {
        if let Some(leader) = cluster.leader() {
            break leader;
        }
        if start.elapsed() > SETTLE {
            return Err("nobody leads".to_owned());
        }
        thread::sleep(GLANCE);
    };
    let addresses = cluster.clients();
    let followers: Vec<_> = (0..addresses.len()).filter(|node| *node != leader).collect();
    let mut row = vec![leader];
    row.extend(rng.shuffled(&followers));
    let (answers, ended) = (Mutex::new(Answers::default()), AtomicBool::new(false));
    thread::scope(|scope| {
        for address in &addresses {
            scope.spawn(|| ask_on(*address, &answers, &ended));
        }
        let measured = watch(cluster, preset, &row, &answers, interrupted);
        ended.store(true, Ordering::Relaxed);
        measured
    })
}

/// Asks a replica for one command after the other.
fn ask_on(address: SocketAddr, answers: &Mutex<Answers>, ended: &AtomicBool) {
    let mut connection = None;
    while !ended.load(Ordering::Relaxed) {
        let sent = Instant::now();
        let ready = connection.take().or_else(|| Client::connect(address, PATIENCE).ok());
        if let Some(mut client) = ready
            && let Ok(reply) = client.call(&["INCR", "preset"])
        {
            connection = Some(client);
            if matches!(reply, Reply::Integer(_)) {
                let now = Instant::now();
                let mut answers = answers.lock().expect("nobody panics while holding it");
                answers.newest = answers.newest.max(Some(sent));
                let since = answers.last.map_or(Duration::ZERO, |last| now - last);
                answers.gap = answers.gap.max(since);
                answers.last = Some(now);
            }
        }
        thread::sleep(PAUSE);
    }
}

fn watch(
    cluster: &Cluster,
    preset: Preset,
    row: &[usize],
    answers: &Mutex<Answers>,
    interrupted: &AtomicBool,
) -> Result<Measured, String> {
    let locked = || answers.lock().expect("nobody panics while holding it");
    thread::sleep(ELECTION_TIMEOUT * 2);
    let ways = preset.ways(row);
    let set = |is_cut: bool| {
        for way in &ways {
            cluster.proxy.change(*way, |rule| rule.cut = is_cut);
        }
    };
    if preset == Preset::Constrained {
        // The one that will reach a quorum misses the newest part of the log.
        for way in [(row[0], row[1]), (row[1], row[0])] {
            cluster.proxy.change(way, |rule| rule.cut = true);
        }
        thread::sleep(ELECTION_TIMEOUT / 3);
    }
    let before = cluster.campaigns()?;
    set(true);
    let cut = Instant::now();
    let (bound, end) = (ELECTION_TIMEOUT * SERVE_WITHIN, ELECTION_TIMEOUT * (SERVE_WITHIN + STAY));
    let (mut down, mut soon) = (None, None);
    let mut flap = (0, cut + FLAP[0]);
    while cut.elapsed() < end && !interrupted.load(Ordering::Relaxed) {
        let now = Instant::now();
        if preset.flaps() && now >= flap.1 {
            flap = (1 - flap.0, now + FLAP[1 - flap.0]);
            set(flap.0 == 0);
        }
        if down.is_none() && locked().newest >= Some(cut) {
            down = locked().last.map(|last| last.duration_since(cut));
        }
        if soon.is_none() && now - cut >= bound {
            soon = Some(cluster.campaigns()?);
            locked().gap = Duration::ZERO;
        }
        thread::sleep(if down.is_none() { PAUSE } else { GLANCE });
    }
    let after = cluster.campaigns()?;
    let soon = soon.unwrap_or(after);
    let campaigns = [soon.saturating_sub(before), after.saturating_sub(soon)];
    let down = down.filter(|down| *down <= bound);
    let gap = locked().gap;
    Ok(Measured { preset, down, campaigns, gap })
}
