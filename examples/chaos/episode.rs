//! What happens to the cluster, and when.
//!
//! Owns: [`Episode`]: some faults, their steps in order of time, and how they are drawn. Carries
//! nothing out.
//! Invariants: an episode strikes each class of things at most once, but for the quality of links; every pause in it is between
//! 0.1 and 10 s; when it ends, whoever carries it out heals everything.

use std::time::Duration;

use crate::cluster::Injection;
use crate::fault::{Class, Fault};
use crate::proxy::{Rule, ways};
use crate::rng::Rng;
use crate::shape::{Shape, Way, cuts};

/// How long a pause may be, in milliseconds.
const PAUSE_MS: (u64, u64) = (100, 10_000);
/// How long an episode lasts at least, in milliseconds.
const LENGTH_MS: (u64, u64) = (2_000, 7_000);

/// One thing to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Step {
    Cut(Vec<Way>),
    Mend(Vec<Way>),
    /// Adds to what is done to packets.
    Worsen(Vec<Way>, Rule),
    /// The same by the kernel, in a thousand.
    Filter(Vec<Way>, u64),
    Kill(Vec<usize>),
    Start(usize, Option<Injection>),
    Pause(usize),
    Resume(usize),
    /// Leaves no room on the small file system.
    Fill,
}

/// Some faults together.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Episode {
    pub(crate) faults: Vec<Fault>,
    /// In order of time since its beginning.
    pub(crate) steps: Vec<(Duration, Step)>,
    pub(crate) length: Duration,
}

/// What the draw depends on.
#[derive(Clone, Debug)]
pub(crate) struct Scene<'run> {
    /// The faults to choose from; there is at least one.
    pub(crate) menu: &'run [Fault],
    pub(crate) nodes: usize,
    pub(crate) leader: Option<usize>,
}

/// Draws an episode.
pub(crate) fn draw(scene: &Scene<'_>, rng: &mut Rng) -> Episode {
    let classes = match rng.below(20) {
        0..=10 => 1,
        11..=16 => 2,
        _ => 3,
    };
    let mut faults: Vec<Fault> = Vec::new();
    for _ in 0..classes {
        let fault = rng.pick(scene.menu);
        let together = |other: &Fault| {
            other.class() != fault.class() || (*other != fault && fault.class() == Class::Quality)
        };
        if faults.iter().all(together) {
            faults.push(fault);
        }
    }
    let mut length = rng.within(LENGTH_MS.0, LENGTH_MS.1);
    let mut steps = Vec::new();
    for fault in &faults {
        let mut act = Act { scene, rng, length, steps: Vec::new() };
        act.plan(*fault);
        length = length.max(act.length);
        steps.extend(act.steps);
    }
    steps.sort_by_key(|(at, _)| *at);
    length = length.max(steps.last().map_or(0, |(at, _)| at + 300));
    Episode {
        faults,
        steps: steps.into_iter().map(|(at, step)| (Duration::from_millis(at), step)).collect(),
        length: Duration::from_millis(length),
    }
}

/// The part of one fault.
struct Act<'draw, 'run> {
    scene: &'draw Scene<'run>,
    rng: &'draw mut Rng,
    length: u64,
    /// With their times in milliseconds.
    steps: Vec<(u64, Step)>,
}

impl Act<'_, '_> {
    fn plan(&mut self, fault: Fault) {
        let focus = self.focus();
        match fault {
            Fault::Kill => self.kill(focus),
            Fault::KillMany => self.kill_many(focus),
            Fault::Pause => self.pause(focus),
            Fault::Partition(shape) => self.partition(shape, focus),
            Fault::Swizzle => self.swizzle(),
            Fault::Loss => {
                let loss = self.rng.within(20, 300);
                self.worsen(focus, Rule { loss, ..Rule::default() });
            }
            Fault::Delay => {
                let delay = Duration::from_millis(self.rng.within(2, 120));
                let jitter = Duration::from_millis(self.rng.within(0, 40));
                self.worsen(focus, Rule { delay, jitter, ..Rule::default() });
            }
            Fault::Duplicate => {
                let duplicate = self.rng.within(50, 500);
                self.worsen(focus, Rule { duplicate, ..Rule::default() });
            }
            Fault::Reorder => {
                let reorder = self.rng.within(50, 400);
                self.worsen(focus, Rule { reorder, ..Rule::default() });
            }
            Fault::FilterCut => self.filter_cut(focus),
            Fault::FilterLoss => {
                let permille = self.rng.within(50, 300);
                let ways = self.some_ways(focus);
                self.steps.push((0, Step::Filter(ways, permille)));
            }
            Fault::SyncError => {
                let when = self.call_number();
                self.inject(focus, format!("fdatasync:error=EIO:when={when}"), true);
            }
            Fault::WriteError => {
                let (error, when) = (self.rng.pick(&["EIO", "ENOSPC"]), self.call_number());
                self.inject(focus, format!("pwrite64:error={error}:when={when}"), true);
            }
            Fault::SyncLie => {
                let when = self.call_number();
                self.inject(focus, format!("fdatasync:retval=0:when={when}+"), false);
            }
            Fault::SyncSlow => {
                let microseconds = 1_000 * self.rng.within(20, 300);
                let rule = format!("fdatasync:delay_enter={microseconds}:when=5+");
                self.inject(focus, rule, false);
            }
            Fault::SyncHang => {
                let microseconds = 1_000 * self.rng.within(2_500, 5_000);
                let when = self.call_number();
                let rule = format!("fdatasync:delay_enter={microseconds}:when={when}");
                self.inject(focus, rule, false);
            }
            Fault::DiskFull => {
                // The room in spare segments has to be used up before anybody notices.
                self.length = self.length.max(6_000);
                self.steps.push((0, Step::Fill));
            }
        }
    }

    /// The leader half of the time, else anybody.
    fn focus(&mut self) -> usize {
        let anybody = self.rng.below(self.scene.nodes as u64) as usize;
        let leads = self.rng.permille(500);
        self.scene.leader.filter(|_| leads).unwrap_or(anybody)
    }

    fn kill(&mut self, focus: usize) {
        let (mut at, mut node) = (0, focus);
        while at < self.length {
            self.steps.push((at, Step::Kill(vec![node])));
            let back = at + self.rng.within(50, 2_000);
            self.steps.push((back, Step::Start(node, None)));
            at = back + self.rng.within(500, 2_500);
            node = self.focus();
        }
    }

    fn kill_many(&mut self, focus: usize) {
        let nodes = self.scene.nodes;
        let count = if self.rng.permille(500) { nodes } else { nodes / 2 + 1 };
        let all: Vec<_> = (0..nodes).filter(|node| *node != focus).collect();
        let mut victims = vec![focus];
        victims.extend(&self.rng.shuffled(&all)[..count - 1]);
        for node in &victims {
            let back = self.rng.within(50, 1_500);
            self.steps.push((back, Step::Start(*node, None)));
        }
        self.steps.push((0, Step::Kill(victims)));
    }

    fn pause(&mut self, focus: usize) {
        let mut at = 0;
        let mut node = focus;
        while at < self.length {
            // Short pauses are as likely as long ones.
            let most = PAUSE_MS.1.min(PAUSE_MS.0 << self.rng.within(1, 7));
            let pause = self.rng.within(PAUSE_MS.0, most);
            self.steps.push((at, Step::Pause(node)));
            self.steps.push((at + pause, Step::Resume(node)));
            at += if self.rng.permille(300) { pause / 2 } else { pause + 200 };
            node = self.focus();
        }
    }

    fn partition(&mut self, shape: Shape, focus: usize) {
        let links = cuts(shape, self.scene.nodes, focus, self.rng);
        self.steps.push((0, Step::Cut(links.clone())));
        if self.rng.permille(300) {
            // It flaps.
            let mut at = self.rng.within(200, 1_500);
            while at + 1_500 < self.length {
                self.steps.push((at, Step::Mend(links.clone())));
                at += self.rng.within(50, 800);
                self.steps.push((at, Step::Cut(links.clone())));
                at += self.rng.within(200, 1_500);
            }
        }
    }

    fn filter_cut(&mut self, focus: usize) {
        let shapes = [
            Shape::Isolate,
            Shape::Split,
            Shape::Bridge,
            Shape::QuorumLoss,
            Shape::Chain,
            Shape::OneWay,
        ];
        let shape = self.rng.pick(&shapes);
        let cuts = cuts(shape, self.scene.nodes, focus, self.rng);
        self.steps.push((0, Step::Filter(cuts, 1000)));
    }

    fn swizzle(&mut self) {
        let nodes = self.scene.nodes;
        let everybody: Vec<_> = (0..nodes).collect();
        let count = self.rng.within(1, nodes as u64 - 1) as usize;
        let chosen = self.rng.shuffled(&everybody)[..count].to_vec();
        let of = |node: usize| ways(nodes).filter(|way| way.0 == node || way.1 == node).collect();
        let mut at = 0;
        for node in &chosen {
            self.steps.push((at, Step::Cut(of(*node))));
            at += self.rng.within(50, 700);
        }
        at += self.rng.within(200, 2_000);
        for node in self.rng.shuffled(&chosen) {
            self.steps.push((at, Step::Mend(of(node))));
            at += self.rng.within(50, 700);
        }
    }

    /// Packets of all links, or of those of one replica.
    fn worsen(&mut self, focus: usize, rule: Rule) {
        let ways = self.some_ways(focus);
        self.steps.push((0, Step::Worsen(ways, rule)));
    }

    fn some_ways(&mut self, focus: usize) -> Vec<Way> {
        let all = self.rng.permille(600);
        let touches = |way: &Way| all || way.0 == focus || way.1 == focus;
        ways(self.scene.nodes).filter(touches).collect()
    }

    /// Which system call of a thread is struck: the first few happen before anybody is answered.
    fn call_number(&mut self) -> u64 {
        self.rng.within(5, 600)
    }

    /// Starts a replica anew with its system calls tampered with.
    fn inject(&mut self, focus: usize, rule: String, fatal: bool) {
        self.length = self.length.max(4_000);
        self.steps.push((0, Step::Kill(vec![focus])));
        self.steps.push((50, Step::Start(focus, Some(Injection { rule, fatal }))));
        // What stopped by itself comes back to find what it left behind.
        self.steps.push((self.length * 2 / 3, Step::Start(focus, None)));
    }
}
