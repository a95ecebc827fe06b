//! The verbs.
//!
//! Owns: [`VERBS`], one row each: what it is called, takes, says and does. A verb is added by its row here
//! and a module of its own; where it asks something new of a node, by a request in `paxos::admin`.

use std::time::Duration;

use paxos::ReplicaId;

use crate::outcome::Failure;
use crate::{members, metrics, status, transfer, watch};

/// How many nodes a verb takes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Takes {
    /// Exactly one.
    One,
    /// One or more.
    Many,
}

/// An option.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Flag {
    Json,
    Timeout,
    To,
    Changes,
}

impl Flag {
    pub(crate) const ALL: [Self; 4] = [Self::Json, Self::Timeout, Self::To, Self::Changes];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Json => "--json",
            Self::Timeout => "--timeout",
            Self::To => "--to",
            Self::Changes => "--changes",
        }
    }

    /// Its name with its value, and what it does.
    pub(crate) const fn help(self) -> (&'static str, &'static str) {
        match self {
            Self::Json => ("--json", "one line of JSON instead of a table"),
            Self::Timeout => ("--timeout S", "how many seconds an answer may take"),
            Self::To => ("--to N", "which replica is to lead; the best voter if it is left away"),
            Self::Changes => ("--changes N", "end after N lines; never if it is left away"),
        }
    }
}

/// What the command line asks of a verb.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Order {
    /// As they were given: sockets, or directories that hold some.
    pub(crate) nodes: Vec<String>,
    pub(crate) json: bool,
    pub(crate) timeout: Duration,
    pub(crate) to: Option<ReplicaId>,
    pub(crate) changes: Option<u64>,
}

/// One verb.
#[derive(Debug)]
pub(crate) struct Verb {
    pub(crate) name: &'static str,
    pub(crate) takes: Takes,
    pub(crate) flags: &'static [Flag],
    /// How long it waits unless told otherwise.
    pub(crate) timeout: Duration,
    /// In one line.
    pub(crate) summary: &'static str,
    /// What else there is to know.
    pub(crate) more: &'static str,
    pub(crate) examples: &'static [&'static str],
    pub(crate) run: fn(&Order) -> Result<(), Failure>,
}

/// All verbs, in the order of the help.
pub(crate) const VERBS: [Verb; 5] = [
    Verb {
        name: "status",
        takes: Takes::Many,
        flags: &[Flag::Json, Flag::Timeout],
        timeout: Duration::from_secs(5),
        summary: "what each node says of itself: who leads, how far it is, what is wrong",
        more: "`behind` is how many slots a node has not applied that some other has committed. A \
               node that does not answer makes the exit code 1, or 3 if none does.",
        examples: &["paxosctl status c", "paxosctl status c/1 c/2 c/3", "paxosctl status --json c"],
        run: status::run,
    },
    Verb {
        name: "members",
        takes: Takes::Many,
        flags: &[Flag::Json, Flag::Timeout],
        timeout: Duration::from_secs(5),
        summary: "the membership in force: who votes and who observes, and what it survives",
        more: "As the node with the newest membership among those given has it.",
        examples: &["paxosctl members c", "paxosctl members --json c/1"],
        run: members::run,
    },
    Verb {
        name: "transfer-leader",
        takes: Takes::Many,
        flags: &[Flag::To, Flag::Json, Flag::Timeout],
        timeout: Duration::from_secs(15),
        summary: "has the leader make way for another voter, and waits until that one leads",
        more: "The leader's own socket must be among those given. Commands wait meanwhile and are not \
               refused. Done at once if --to names who leads already.",
        examples: &["paxosctl transfer-leader c", "paxosctl transfer-leader --to 2 c"],
        run: transfer::run,
    },
    Verb {
        name: "watch",
        takes: Takes::One,
        flags: &[Flag::Changes, Flag::Json, Flag::Timeout],
        timeout: Duration::from_secs(5),
        summary: "prints who leads as one node knows it, and each change, until it is interrupted",
        more: "--timeout bounds the first line alone.",
        examples: &["paxosctl watch c/1", "paxosctl watch --json --changes 2 c/1"],
        run: watch::run,
    },
    Verb {
        name: "metrics",
        takes: Takes::One,
        flags: &[Flag::Timeout],
        timeout: Duration::from_secs(5),
        summary: "what one node counted, as Prometheus text",
        more: "The same as: curl --unix-socket c/1/admin.sock http://node/metrics",
        examples: &["paxosctl metrics c/1"],
        run: metrics::run,
    },
];
