//! The command line.
//!
//! Owns: how arguments are understood, and the texts of the help. Opens nothing. Every mistake is one line.

use std::fmt::Write as _;
use std::time::Duration;

use paxos::{ReplicaId, Slot};

use crate::verbs::{Flag, Order, Takes, VERBS, Verb};

/// The longest time that may be waited for: an hour.
const TIMEOUT_SECONDS_MAX: f64 = 3600.0;

/// What the command line asks for.
#[derive(Debug)]
pub(crate) enum Invocation {
    Help,
    HelpWith(&'static Verb),
    Version,
    Do(&'static Verb, Order),
}

/// Understands the arguments after the program's name.
pub(crate) fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Invocation, String> {
    let (mut words, mut given) = (Vec::new(), Given::default());
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let (name, inline) = match argument.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name.to_owned(), Some(value.into())),
            _ => (argument, None),
        };
        match name.as_str() {
            "--help" | "-h" => given.help = true,
            "--version" | "-V" => return Ok(Invocation::Version),
            "--" => words.extend(arguments.by_ref()),
            option if option.starts_with('-') => {
                let flag = Flag::ALL.into_iter().find(|flag| flag.name() == option);
                let flag =
                    flag.ok_or_else(|| format!("unknown option {option}; see paxosctl --help"))?;
                given.take(flag, || inline.or_else(|| arguments.next()))?;
            }
            _ => words.push(name),
        }
    }
    let mut words = words.into_iter();
    let verb = match (words.next(), given.help) {
        (None, true) => return Ok(Invocation::Help),
        (None, false) => return Err("what is to be done? see paxosctl --help".to_owned()),
        (Some(word), _) if word == "help" => match words.next() {
            None => return Ok(Invocation::Help),
            Some(word) => return take(&word, &mut words).map(Invocation::HelpWith),
        },
        (Some(word), _) => take(&word, &mut words)?,
    };
    if given.help {
        return Ok(Invocation::HelpWith(verb));
    }
    given.into_order(verb, words.collect()).map(|order| Invocation::Do(verb, order))
}

/// Some verbs are two words.
fn take(word: &str, words: &mut impl Iterator<Item = String>) -> Result<&'static Verb, String> {
    let begins = |verb: &Verb| verb.name.starts_with(&format!("{word} "));
    let more = if VERBS.iter().any(begins) { words.next() } else { None };
    find(&more.map_or_else(|| word.to_owned(), |more| format!("{word} {more}")))
}

fn find(word: &str) -> Result<&'static Verb, String> {
    let all: &'static [Verb] = const { &VERBS };
    all.iter().find(|verb| verb.name == word).ok_or_else(|| {
        let names: Vec<_> = all.iter().map(|verb| verb.name).collect();
        format!("unknown verb {word}: it is one of {}; see paxosctl --help", names.join(", "))
    })
}

#[derive(Debug, Default)]
struct Given {
    help: bool,
    flags: Vec<Flag>,
    timeout: Option<Duration>,
    to: Option<ReplicaId>,
    changes: Option<u64>,
    slot: Option<Slot>,
    replica: Option<ReplicaId>,
    old: Option<ReplicaId>,
    addresses: Vec<String>,
    keys: Vec<String>,
}

impl Given {
    fn take(&mut self, flag: Flag, value: impl FnOnce() -> Option<String>) -> Result<(), String> {
        self.flags.push(flag);
        let name = flag.name();
        let value = || value().ok_or_else(|| format!("{name} needs a value; see paxosctl --help"));
        match flag {
            Flag::Json | Flag::Yes => {}
            Flag::Timeout => self.timeout = Some(timeout(&value()?)?),
            Flag::To => {
                self.to = Some(replica(name, &value()?)?);
            }
            Flag::Slot => {
                let text = value()?;
                let slot = text.parse().ok().filter(|slot| *slot > 0).map(Slot::new);
                self.slot = Some(slot.ok_or_else(|| format!("--slot is 1 or above, not {text}"))?);
            }
            Flag::Replica => self.replica = Some(replica(name, &value()?)?),
            Flag::Old => self.old = Some(replica(name, &value()?)?),
            Flag::Address => self.addresses.push(value()?),
            Flag::Key => self.keys.push(value()?),
            Flag::Changes => {
                let text = value()?;
                let count = text.parse().ok().filter(|count| *count > 0);
                self.changes =
                    Some(count.ok_or_else(|| format!("--changes is 1 or above, not {text}"))?);
            }
        }
        Ok(())
    }

    fn into_order(self, verb: &Verb, nodes: Vec<String>) -> Result<Order, String> {
        let name = verb.name;
        if let Some(flag) = self.flags.iter().find(|flag| !verb.flags.contains(flag)) {
            return Err(format!("{name} takes no {}; see paxosctl {name} --help", flag.name()));
        }
        let example = verb.examples[0];
        let count = nodes.len();
        match verb.takes {
            Takes::One | Takes::Many if count == 0 => {
                return Err(format!("{name} needs a node's socket or directory, as in: {example}"));
            }
            Takes::One if count > 1 => return Err(format!("{name} takes one node, not {count}")),
            Takes::NodeAndFile if count != 2 => {
                return Err(format!("{name} needs a node and a file, as in: {example}"));
            }
            Takes::Directory if count != 1 => {
                return Err(format!("{name} needs one replica's directory, as in: {example}"));
            }
            Takes::One | Takes::Many | Takes::NodeAndFile | Takes::Directory => {}
        }
        Ok(Order {
            nodes,
            json: self.flags.contains(&Flag::Json),
            timeout: self.timeout.unwrap_or(verb.timeout),
            to: self.to,
            changes: self.changes,
            slot: self.slot,
            yes: self.flags.contains(&Flag::Yes),
            replica: self.replica,
            old: self.old,
            addresses: self.addresses,
            keys: self.keys,
        })
    }
}

fn replica(name: &str, text: &str) -> Result<ReplicaId, String> {
    let id = text.parse().ok().filter(|id| *id > 0);
    let id =
        id.ok_or_else(|| format!("{name} is the number of a replica, 1 or above, not {text}"))?;
    Ok(ReplicaId::new(id))
}

fn timeout(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds <= TIMEOUT_SECONDS_MAX => {
            Ok(Duration::from_secs_f64(seconds))
        }
        _ => {
            Err(format!("--timeout is above 0 and up to {TIMEOUT_SECONDS_MAX} seconds, not {text}"))
        }
    }
}

/// What `paxosctl --help` prints.
pub(crate) fn help() -> String {
    let mut text = "\
paxosctl - asks running nodes of a cluster, and has them do things

usage:
  paxosctl VERB [OPTION]... NODE...

A NODE is an admin socket, a directory that holds one called admin.sock, or a directory of such
directories. `kv` keeps its own at DIR/I/admin.sock. A DIR is the data directory of a replica that
does not run, or a directory that holds one called data.

verbs:
"
    .to_owned();
    for verb in &VERBS {
        line(&mut text, format_args!("  {:<16} {}", verb.name, verb.summary));
    }
    text.push_str("\nexamples:\n");
    for example in VERBS.iter().flat_map(|verb| verb.examples) {
        line(&mut text, format_args!("  {example}"));
    }
    text.push_str(
        "
paxosctl VERB --help says more of a verb; --version prints the version. In the repository:
  cargo run --release --features ctl --bin paxosctl -- status DIR

exit codes:
  0  done
  1  refused, or failed: the reason is on standard error
  2  the command line was not understood
  3  nobody answers
",
    );
    text
}

/// What `paxosctl VERB --help` prints.
pub(crate) fn help_with(verb: &Verb) -> String {
    let nodes = verb.takes.usage();
    let mut text = format!("paxosctl {} - {}\n\nusage:\n", verb.name, verb.summary);
    line(&mut text, format_args!("  paxosctl {} [OPTION]... {nodes}\n", verb.name));
    line(&mut text, format_args!("{}\n\noptions:", verb.more));
    for flag in verb.flags {
        let (name, about) = flag.help();
        let default = match flag {
            Flag::Timeout => format!("; default {}", verb.timeout.as_secs()),
            Flag::Json
            | Flag::To
            | Flag::Changes
            | Flag::Slot
            | Flag::Yes
            | Flag::Replica
            | Flag::Old
            | Flag::Address
            | Flag::Key => String::new(),
        };
        line(&mut text, format_args!("  {name:<12} {about}{default}"));
    }
    text.push_str("\nexamples:\n");
    for example in verb.examples {
        line(&mut text, format_args!("  {example}"));
    }
    text
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("writing to a string does not fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Invocation, String> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    fn order(line: &str) -> Order {
        match parsed(line) {
            Ok(Invocation::Do(_, order)) => order,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn every_example_of_the_help_is_understood() {
        for verb in &VERBS {
            assert!(!verb.examples.is_empty(), "{}", verb.name);
            for example in verb.examples {
                let rest = example.strip_prefix("paxosctl ").unwrap_or_default();
                match parsed(rest) {
                    Ok(Invocation::Do(done, _)) => assert_eq!(done.name, verb.name, "{example}"),
                    other => panic!("{example}: {other:?}"),
                }
                assert!(help().contains(example) && help_with(verb).contains(example));
            }
            for asked in [format!("{} --help", verb.name), format!("help {}", verb.name)] {
                assert!(matches!(
                    parsed(&asked),
                    Ok(Invocation::HelpWith(found)) if found.name == verb.name
                ));
            }
        }
    }

    #[test]
    fn options_are_taken_with_and_without_an_equals_sign() {
        let given = order("transfer-leader --to=2 a --timeout 0.5 b --json");
        let expected = Order {
            nodes: vec!["a".to_owned(), "b".to_owned()],
            json: true,
            timeout: Duration::from_millis(500),
            to: Some(ReplicaId::new(2)),
            changes: None,
            slot: None,
            yes: false,
            replica: None,
            old: None,
            addresses: Vec::new(),
            keys: Vec::new(),
        };
        assert_eq!(given, expected);
        let given = order("move --replica 4 --address a:1 --address=b:2 --key ab c");
        assert_eq!((given.replica, given.keys), (Some(ReplicaId::new(4)), vec!["ab".to_owned()]));
        assert_eq!(given.addresses, ["a:1", "b:2"]);
        assert_eq!(order("watch --changes 3 x").changes, Some(3));
        assert_eq!(order("status -- -odd").nodes, ["-odd"]);
        assert_eq!(order("trim --slot 7 x").slot, Some(Slot::new(7)));
        assert_eq!(order("log inspect x").nodes, ["x"]);
        assert!(order("recover x --yes-lose-what-only-others-have").yes);
    }

    #[test]
    fn mistakes_are_told() {
        for (line, words) in [
            ("", "what is to be done"),
            ("explode c", "unknown verb explode: it is one of status, members"),
            ("status", "needs a node's socket or directory"),
            ("status --nonsense c", "unknown option --nonsense"),
            ("status --to 2 c", "status takes no --to"),
            ("metrics a b", "metrics takes one node, not 2"),
            ("remove --replica 0 c", "1 or above, not 0"),
            ("remove --key ab c", "remove takes no --key"),
            ("transfer-leader --to", "--to needs a value"),
            ("transfer-leader --to 0 c", "1 or above, not 0"),
            ("status --timeout 0 c", "not 0"),
            ("status --timeout inf c", "not inf"),
            ("status --timeout NaN c", "not NaN"),
            ("watch --changes no c", "not no"),
            ("help explode", "unknown verb explode"),
            ("log", "unknown verb log: it is one of"),
            ("log explode c", "unknown verb log explode"),
            ("log inspect", "needs one replica's directory"),
            ("recover a b", "needs one replica's directory"),
            ("recover --yes a", "unknown option --yes"),
            ("export c/1", "needs a node and a file, as in: paxosctl export"),
            ("trim --slot 0 c", "1 or above, not 0"),
        ] {
            let error = parsed(line).expect_err(line);
            assert!(error.contains(words), "{line}: {error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }
}
