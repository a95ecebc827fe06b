//! The commands of a script.
//!
//! Owns: what each command does to the cluster. A command is one verb, then
//! replicas by number, message kinds by name, durations as `20ms` or `3s`.

use core::fmt::Write as _;
use core::time::Duration;

use bytes::Bytes;

use super::awaits::Await;
use super::teller::Sort;
use super::{Make, Player};
use crate::config::Config;
use crate::ids::{ClientId, Epoch, Priority, ReplicaId, RequestNumber, Slot};
use crate::output::{Role, Status};
use crate::quorum::QuorumRule;
use crate::sim::cluster::Cluster;
use crate::sim::held::{Held, Survivors};
use crate::sim::kind::Kind;
use crate::sim::network::{Rule, Shape, Weather};
use crate::sim::options::{Machine, Options};
use crate::sim::trace::Record;
use crate::trace::{Event, Packet};
use crate::value::Command;

/// The client of every scripted command.
const CLIENT: ClientId = ClientId::new(7);
/// Whatever is awaited comes within this time, or never.
const PATIENCE: Duration = Duration::from_secs(30);
/// A script that fails shows so many of the last events.
const EVENTS: usize = 40;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Which messages a command is about.
#[derive(Clone, Copy, Debug, Default)]
struct Which {
    kind: Option<Kind>,
    from: Option<ReplicaId>,
    to: Option<ReplicaId>,
    keep: bool,
}

impl Which {
    fn is(&self, held: &Held) -> bool {
        self.kind.is_none_or(|kind| kind == held.kind)
            && self.from.is_none_or(|id| id == held.from)
            && self.to.is_none_or(|id| id == held.to)
    }

    fn rules(&self) -> Vec<Rule> {
        let kinds = match self.kind {
            Some(kind) => vec![kind],
            None => Kind::ALL.into_iter().filter(|kind| *kind != Kind::Heartbeat).collect(),
        };
        kinds.into_iter().map(|kind| Rule { kind, from: self.from, to: self.to }).collect()
    }
}

fn duration(word: &str) -> Result<Duration, String> {
    let wrong = || format!("{word} is no duration: 20ms, 3s");
    let number = |text: &str| text.parse().map_err(|_| wrong());
    match (word.strip_suffix("ms"), word.strip_suffix('s')) {
        (Some(text), _) => number(text).map(Duration::from_millis),
        (None, Some(text)) => number(text).map(Duration::from_secs),
        (None, None) => Err(wrong()),
    }
}

fn kind(word: &str) -> Result<Kind, String> {
    let mut kinds = Kind::ALL.into_iter();
    kinds.find(|kind| kind.to_string() == word).ok_or_else(|| format!("no message is a {word}"))
}

fn slot(word: &str) -> Result<Slot, String> {
    word.parse().map(Slot::new).map_err(|_| format!("{word} is no slot"))
}

/// The tunables of the replica with this place in the order of patience: whatever is drawn at
/// random stays below what the next one waits at least.
fn config(place: usize, base: &Config) -> Config {
    let heartbeat = [20, 45, 100, 220, 480][place.min(4)];
    Config {
        heartbeat_interval: ms(heartbeat),
        election_timeout: ms(1500 + 10 * place as u64),
        election_jitter: ms(1),
        ..base.clone()
    }
}

fn grid(word: &str) -> Result<QuorumRule, String> {
    let (rows, columns) = word.split_once('x').ok_or("grid=2x2")?;
    let number = |word: &str| word.parse().map_err(|_| format!("{word} is no number"));
    QuorumRule::grid(number(rows)?, number(columns)?).map_err(|error| error.to_string())
}

fn options(words: &[&str]) -> Result<Options, String> {
    let (count, settings) = words.split_first().ok_or("cluster of how many?")?;
    let replicas: u16 =
        count.parse().ok().filter(|count| (1..=5).contains(count)).ok_or("1 to 5")?;
    let mut options = Options::new(u64::from(replicas), replicas);
    options.disk_delay_max = Duration::from_micros(10);
    options.apply_delay_max = Duration::ZERO;
    options.trace_capacity = usize::MAX;
    let mut order: Vec<u16> = (1..=2 * replicas + 4).collect();
    let mut priorities = Vec::new();
    for setting in settings {
        let (name, value) = setting.split_once('=').unwrap_or((setting, ""));
        let number = || value.parse::<usize>().map_err(|_| format!("{name} needs a number"));
        match name {
            "spares" => options.newcomers = number()? as u16,
            "window" => options.window = number()? as u32,
            "accept" => {
                options.quorums = QuorumRule::accepting(replicas, number()? as u16);
            }
            "grid" => options.quorums = grid(value)?,
            "page_bytes" => options.config.page_bytes_max = number()?,
            "batch_bytes" => options.config.batch_bytes_max = number()?,
            "tail_bytes" => options.config.tail_bytes_max = number()?,
            "apply_slots" => options.config.apply_slots_max = number()? as u32,
            "disk_stall" => options.config.disk_stall = duration(value)?,
            "machine" if value == "durable" => options.machine = Machine::Durable,
            "priority" => {
                let each: Result<Vec<u8>, _> = value.split(',').map(str::parse).collect();
                let each = each.map_err(|_| "priority=0,0,1")?;
                priorities.extend(each.into_iter().map(Priority::new));
            }
            "order" => {
                let first: Result<Vec<u16>, _> = value.split(',').map(str::parse).collect();
                let first = first.map_err(|_| "order=2,1,3")?;
                order.retain(|id| !first.contains(id));
                order.splice(0..0, first);
            }
            _ => return Err(format!("a cluster has no {setting}")),
        }
    }
    let mut priorities = priorities.into_iter();
    let place = |id: u16| order.iter().position(|other| *other == id).unwrap_or_default();
    let own = |id| Config {
        priority: priorities.next().unwrap_or_default(),
        ..config(place(id), &options.config)
    };
    options.configs = (1..=replicas + options.newcomers).map(own).collect();
    Ok(options)
}

impl Player {
    /// Does what a line says, and appends what came of it.
    pub(super) fn act(
        &mut self,
        line: &str,
        make: Make<'_>,
        out: &mut String,
    ) -> Result<(), String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (verb, rest) = words.split_first().ok_or("a command has a verb")?;
        if *verb == "cluster" {
            let options = options(rest)?;
            let mut cluster = Cluster::with_storage(options, make);
            let calm = Weather { delay_min: ms(1), delay_max: ms(1), ..Weather::CALM };
            cluster.network().set_weather(calm);
            self.teller.skip(&cluster);
            self.cluster = Some(cluster);
            return Ok(());
        }
        let done = match *verb {
            "propose" => self.propose(rest),
            "run" => self.run(rest),
            "elect" => self.elect(rest),
            "cut" | "join" | "isolate" | "split" | "chain" | "hub" | "heal" => {
                self.network(verb, rest)
            }
            "drop" | "hold" | "release" | "lose" => self.messages(verb, rest, out),
            "crash" | "restart" | "wipe" | "pause" | "save" | "snapshot" | "trim" => {
                self.process(verb, rest)
            }
            "transfer" => self.transfer(rest, out),
            "change" => self.change(rest, out),
            "read" => self.read(rest),
            "show" | "hide" => self.show(verb, rest),
            "status" => self.status(rest, out),
            "log" => self.log(out),
            "held" => self.tell_held(out),
            _ => Err(format!("what is {verb}?")),
        };
        done?;
        let cluster = self.cluster.as_mut().ok_or("a script begins with `cluster`")?;
        if let Some(violation) = cluster.violation() {
            return Err(format!("{violation}\n{}", last(cluster)));
        }
        let mut happened = String::new();
        self.teller.tell(cluster, &mut happened);
        out.push_str(&happened);
        Ok(())
    }

    /// A client reads at one replica, by its leader's point or by what a quorum knows.
    fn read(&mut self, words: &[&str]) -> Result<(), String> {
        let ([at] | [at, "quorum"]) = words else { return Err("read 1, read 1 quorum".to_owned()) };
        let (id, by_quorum) = (self.id(at)?, words.len() == 2);
        let cluster = self.cluster()?;
        let answer = if by_quorum { cluster.read_quorum(id) } else { cluster.read(id) };
        match answer {
            Some(Ok(_)) => Ok(()),
            Some(Err(error)) => Err(format!("{at}: {error}")),
            None => Err(format!("{at} does not answer")),
        }
    }

    fn propose(&mut self, words: &[&str]) -> Result<(), String> {
        let (at, payloads) = words.split_first().ok_or("propose where?")?;
        let id = self.id(at)?;
        let mut commands = Vec::new();
        for payload in payloads {
            // A word like x*500 is a payload of 500 bytes.
            let bytes = match payload.split_once('*') {
                Some((text, count)) => {
                    let count = count.parse().map_err(|_| format!("{payload}: x*500"))?;
                    text.repeat(count).into_bytes()
                }
                None => payload.as_bytes().to_vec(),
            };
            self.requests += 1;
            let request = RequestNumber::new(self.requests);
            commands.push(Command::apply(CLIENT, request, Bytes::from(bytes)));
        }
        let answer = self.cluster()?.propose(id, &commands);
        answer.map(|_| ()).ok_or_else(|| format!("{at} does not answer"))
    }

    /// Asks the first replica to make way for the second.
    fn transfer(&mut self, words: &[&str], out: &mut String) -> Result<(), String> {
        let [at, to] = self.ids(words)?[..] else { return Err("transfer 1 2".to_owned()) };
        let answer = self.cluster()?.transfer(at, to);
        let answer = answer.ok_or_else(|| format!("r{} does not answer", at.number()))?;
        let (at, to) = (at.number(), to.number());
        let _ = match answer {
            Ok(()) => writeln!(out, "r{at} makes way for r{to}"),
            Err(error) => writeln!(out, "r{at} does not make way for r{to}: {error}"),
        };
        Ok(())
    }

    fn run(&mut self, words: &[&str]) -> Result<(), String> {
        match words {
            ["until", what @ ..] => self.run_until(what),
            [time] => {
                let time = duration(time)?;
                self.cluster()?.run_for(time);
                Ok(())
            }
            _ => Err("run 20ms, run until leader 1".to_owned()),
        }
    }

    fn run_until(&mut self, words: &[&str]) -> Result<(), String> {
        let (what, rest) = words.split_first().ok_or("until what?")?;
        let first = || rest.first().copied().ok_or_else(|| format!("{what} what?"));
        let awaited = match *what {
            "leader" => Await::Leader(self.ids(rest)?),
            "leaderless" => Await::Leaderless(self.ids(rest)?),
            "candidate" => Await::Candidate(self.ids(rest)?),
            "follow" => Await::Follow(self.ids(rest)?),
            "chosen" => Await::Chosen(slot(first()?)?),
            "committed" => Await::Committed(slot(first()?)?, self.ids(&rest[1..])?),
            "applied" => Await::Applied(self.ids(rest)?),
            "halted" => Await::Halted(self.ids(rest)?),
            "epoch" => {
                let epoch = first()?.parse().map_err(|_| format!("{rest:?}: epoch 2 r1"))?;
                Await::Epoch(Epoch::new(epoch), self.ids(&rest[1..])?)
            }
            "held" => Await::Held(kind(first()?)?),
            "kept" => Await::Kept(slot(first()?)?, self.ids(&rest[1..])?),
            "taking" => Await::Taking(self.ids(rest)?),
            _ => return Err(format!("nobody can wait for {what}")),
        };
        let cluster = self.cluster()?;
        if cluster.run_until_done(PATIENCE, |cluster| awaited.holds(cluster)) {
            return Ok(());
        }
        let violation = cluster.violation().map(ToString::to_string).unwrap_or_default();
        Err(format!("in vain: {}\n{violation}\n{}", words.join(" "), last(cluster)))
    }

    /// Makes a replica the leader, with everybody else following, and tells nothing of how.
    fn elect(&mut self, words: &[&str]) -> Result<(), String> {
        let [word] = words else { return Err("elect whom?".to_owned()) };
        let id = self.id(word)?;
        self.run_until(&["leader", word])?;
        let cluster = self.cluster()?;
        let up: Vec<ReplicaId> = cluster.ids().filter(|id| cluster.status(*id).is_some()).collect();
        let ids = core::iter::once(id).chain(up.into_iter().filter(|other| *other != id));
        let follow = Await::Follow(ids.collect());
        if !cluster.run_until_done(PATIENCE, |cluster| follow.holds(cluster)) {
            return Err(format!("in vain: follow {word}\n{}", last(cluster)));
        }
        cluster.run_for(ms(5));
        let mut unseen = String::new();
        if let Some(cluster) = &self.cluster {
            self.teller.tell(cluster, &mut unseen);
        }
        Ok(())
    }

    fn network(&mut self, verb: &str, words: &[&str]) -> Result<(), String> {
        let arrow = words.iter().position(|word| *word == "->");
        let bar = words.iter().position(|word| *word == "|");
        let plain: Vec<&str> =
            words.iter().copied().filter(|word| !["->", "|"].contains(word)).collect();
        let ids = self.ids(&plain)?;
        let network = self.cluster()?.network();
        match (verb, ids.as_slice()) {
            ("heal", []) => network.heal(),
            ("isolate", ids) => ids.iter().for_each(|id| network.shape(&Shape::Isolate(*id))),
            ("hub", [hub]) => network.shape(&Shape::QuorumLoss { hub: *hub }),
            ("chain", [one, other]) => network.shape(&Shape::Chained(*one, *other)),
            ("split", ids) => {
                let side = ids[..bar.unwrap_or(ids.len())].to_vec();
                network.shape(&Shape::Split(side));
            }
            ("cut", [from, others @ ..]) if arrow == Some(1) => {
                for to in others {
                    network.cut(*from, *to);
                }
            }
            ("cut", [one, other]) => {
                network.cut(*one, *other);
                network.cut(*other, *one);
            }
            ("join", [one, other]) => {
                network.join(*one, *other);
                network.join(*other, *one);
            }
            _ => return Err(format!("how to {verb} {words:?}?")),
        }
        Ok(())
    }

    fn which(&self, words: &[&str]) -> Result<Which, String> {
        let mut which = Which::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut id = || self.id(words.next().copied().unwrap_or_default());
            match *word {
                "from" => which.from = Some(id()?),
                "to" => which.to = Some(id()?),
                "keeping" => which.keep = true,
                word => which.kind = Some(kind(word)?),
            }
        }
        Ok(which)
    }

    fn messages(&mut self, verb: &str, words: &[&str], out: &mut String) -> Result<(), String> {
        if let (verb, ["disk", word]) = (verb, words) {
            let id = self.id(word)?;
            match verb {
                "hold" => self.cluster()?.hold_disk(id),
                "release" => self.cluster()?.release_disk(id),
                _ => return Err(format!("a disk cannot be {verb}")),
            }
            return Ok(());
        }
        if words == ["nothing"] {
            match verb {
                "hold" => self.cluster()?.hold_no_more(),
                "drop" => self.cluster()?.network().clear_rules(),
                _ => return Err(format!("{verb} nothing?")),
            }
            return Ok(());
        }
        let which = self.which(words)?;
        let cluster = self.cluster()?;
        let count = match verb {
            "drop" => {
                which.rules().into_iter().for_each(|rule| cluster.network().add_rule(rule));
                return Ok(());
            }
            "hold" => {
                which.rules().into_iter().for_each(|rule| cluster.hold(rule));
                return Ok(());
            }
            "release" => {
                let count = cluster.release(|held| which.is(held), which.keep);
                // What was let go arrives, and no more.
                cluster.run_for(Duration::from_micros(count as u64));
                count
            }
            _ => cluster.forget_held(|held| which.is(held)),
        };
        if count == 0 {
            return Err(format!("nothing such is held: {words:?}"));
        }
        let (verb, messages) = match verb {
            "release" => ("arrived", if count == 1 { "message" } else { "messages" }),
            _ => ("lost", if count == 1 { "message" } else { "messages" }),
        };
        let _ = writeln!(out, "{count} {messages} {verb}");
        Ok(())
    }

    fn process(&mut self, verb: &str, words: &[&str]) -> Result<(), String> {
        if let "snapshot" | "trim" = verb {
            let ids = self.ids(words)?;
            let cluster = self.cluster()?;
            for id in if ids.is_empty() { cluster.ids().collect() } else { ids } {
                if verb == "trim" { cluster.trim_all(id) } else { cluster.snapshot(id) }
            }
            return Ok(());
        }
        let (word, rest) = words.split_first().ok_or_else(|| format!("{verb} whom?"))?;
        let id = self.id(word)?;
        let cluster = self.cluster()?;
        match (verb, rest) {
            ("crash", []) => cluster.crash_leaving(id, Survivors::Nothing),
            ("crash", ["leaving", "everything"]) => {
                cluster.crash_leaving(id, Survivors::Everything);
            }
            ("restart", []) => cluster.restart(id),
            ("wipe", []) => cluster.wipe(id),
            ("save", []) => cluster.save(id),
            ("pause", [time]) => {
                let time = duration(time)?;
                self.cluster()?.pause(id, time);
            }
            _ => return Err(format!("how to {verb} {words:?}?")),
        }
        Ok(())
    }

    fn show(&mut self, verb: &str, words: &[&str]) -> Result<(), String> {
        for word in words {
            match (verb, Sort::named(word)) {
                ("show", Some(sort)) => _ = self.teller.shown.insert(sort),
                ("hide", Some(sort)) => _ = self.teller.shown.remove(&sort),
                ("show", None) => _ = self.teller.hidden.remove(&kind(word)?),
                _ => _ = self.teller.hidden.insert(kind(word)?),
            }
        }
        Ok(())
    }

    fn status(&mut self, words: &[&str], out: &mut String) -> Result<(), String> {
        let ids = self.ids(words)?;
        let cluster = self.cluster()?;
        let ids = if ids.is_empty() { cluster.ids().collect() } else { ids };
        for id in ids {
            let _ = writeln!(out, "r{}: {}", id.number(), account(cluster, id));
        }
        Ok(())
    }

    fn log(&mut self, out: &mut String) -> Result<(), String> {
        let check = self.cluster()?.check();
        let last = check.chosen_last();
        out.push_str("log:");
        if last == Slot::ZERO {
            out.push_str(" nothing is chosen");
        }
        let mut slot = Slot::ZERO;
        while slot < last {
            slot = slot.next();
            let end = if slot == last { "" } else { "," };
            match check.chosen(slot) {
                Some(value) => _ = write!(out, " {} = {value}{end}", slot.number()),
                None => _ = write!(out, " {} open{end}", slot.number()),
            }
        }
        out.push('\n');
        Ok(())
    }

    fn tell_held(&mut self, out: &mut String) -> Result<(), String> {
        for Held { from, to, packet, .. } in self.cluster()?.held() {
            let _ = writeln!(out, "held: r{} -> r{}: {packet}", from.number(), to.number());
        }
        Ok(())
    }
}

/// The last events, without heartbeats, for whom a script fails.
fn last(cluster: &Cluster) -> String {
    let told = |record: &&Record| {
        let message = record.event.packet().and_then(Packet::open);
        message.is_none_or(|message| Kind::of(&message.body) != Kind::Heartbeat)
            && !matches!(record.event, Event::Timeout)
    };
    let mut events: Vec<String> =
        cluster.trace().records().rev().filter(told).take(EVENTS).map(Record::to_string).collect();
    events.reverse();
    events.join("\n")
}

/// What a replica says of itself, shortly.
fn account(cluster: &Cluster, id: ReplicaId) -> String {
    let Some(status) = cluster.status(id) else {
        return match cluster.halted(id) {
            Some(_) => "stopped for good".to_owned(),
            None => "down".to_owned(),
        };
    };
    let Status { role, leader, promised, committed, applied, .. } = status;
    let mut text = match (role, leader) {
        (Role::Leader, Some(ballot)) => format!("leads at {ballot}"),
        (Role::Candidate, _) => "campaigns".to_owned(),
        (_, Some(ballot)) => format!("follows {ballot}"),
        (Role::Leader | Role::Follower | Role::Observer, None) => "follows nobody".to_owned(),
    };
    if let Some(ballot) = promised {
        let _ = write!(text, ", promised {ballot}");
    }
    let _ = write!(text, ", committed {}, applied {}", committed.number(), applied.number());
    for (count, what) in [
        (status.trimmed.number() as usize, "trimmed"),
        (status.slots_in_flight, "in flight"),
        (status.values_ahead, "chosen ahead"),
    ] {
        if count > 0 {
            let _ = write!(text, ", {what} {count}");
        }
    }
    text
}
