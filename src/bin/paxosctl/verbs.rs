//! The verbs.
//!
//! Owns: [`VERBS`], one row each: what it is called, takes, says and does. A verb is added by its row here
//! and a module of its own; where it asks something new of a node, by a request in `paxos::admin`.

use std::time::Duration;

use paxos::{ReplicaId, Slot};

use crate::outcome::Failure;
use crate::{export, log, members, metrics, recover, snapshot, status, transfer, trim, watch};

/// How many nodes a verb takes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Takes {
    /// Exactly one.
    One,
    /// One or more.
    Many,
    /// A node that runs or the directory of one that does not, and a file to be made.
    NodeAndFile,
    /// The directory of a replica that does not run.
    Directory,
}

impl Takes {
    /// As it stands in the usage.
    pub(crate) const fn usage(self) -> &'static str {
        match self {
            Self::One => "NODE",
            Self::Many => "NODE...",
            Self::NodeAndFile => "NODE|DIR FILE",
            Self::Directory => "DIR",
        }
    }
}

/// An option.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Flag {
    Json,
    Timeout,
    To,
    Changes,
    Slot,
    Yes,
}

impl Flag {
    pub(crate) const ALL: [Self; 6] =
        [Self::Json, Self::Timeout, Self::To, Self::Changes, Self::Slot, Self::Yes];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Json => "--json",
            Self::Timeout => "--timeout",
            Self::To => "--to",
            Self::Changes => "--changes",
            Self::Slot => "--slot",
            Self::Yes => YES,
        }
    }

    /// Its name with its value, and what it does.
    pub(crate) const fn help(self) -> (&'static str, &'static str) {
        match self {
            Self::Json => ("--json", "one line of JSON instead of a table"),
            Self::Timeout => ("--timeout S", "how many seconds an answer may take"),
            Self::To => ("--to N", "which replica is to lead; the best voter if it is left away"),
            Self::Changes => ("--changes N", "end after N lines; never if it is left away"),
            Self::Slot => {
                ("--slot N", "up to which slot; to the newest snapshot if it is left away")
            }
            Self::Yes => (YES, "do it: without this only what would be kept and lost is said"),
        }
    }
}

/// Long, so that nobody gives it without having read it.
pub(crate) const YES: &str = "--yes-lose-what-only-others-have";

/// What the command line asks of a verb.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Order {
    /// As they were given: sockets, or directories that hold some.
    pub(crate) nodes: Vec<String>,
    pub(crate) json: bool,
    pub(crate) timeout: Duration,
    pub(crate) to: Option<ReplicaId>,
    pub(crate) changes: Option<u64>,
    pub(crate) slot: Option<Slot>,
    /// Whether what cannot be undone is to be done.
    pub(crate) yes: bool,
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
pub(crate) const VERBS: [Verb; 10] = [
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
    Verb {
        name: "snapshot",
        takes: Takes::One,
        flags: &[Flag::Json, Flag::Timeout],
        timeout: Duration::from_secs(600),
        summary: "has a node make a snapshot, and waits until it is durable",
        more: "Nodes make them by themselves as their logs grow. If nothing was applied since the newest \
               one, that one is told. Its digest is the same on all nodes that make one of the same slot.",
        examples: &["paxosctl snapshot c/1"],
        run: snapshot::run,
    },
    Verb {
        name: "trim",
        takes: Takes::One,
        flags: &[Flag::Slot, Flag::Json, Flag::Timeout],
        timeout: Duration::from_secs(15),
        summary: "has a node forget its log up to a slot that a snapshot of its own includes",
        more: "Nodes trim by themselves, and keep a tail of the log for others that are a little behind: \
               those are sent a snapshot instead if the tail is gone.",
        examples: &["paxosctl trim c/1", "paxosctl trim --slot 120000 c/1"],
        run: trim::run,
    },
    Verb {
        name: "export",
        takes: Takes::NodeAndFile,
        flags: &[Flag::Json, Flag::Timeout],
        timeout: Duration::from_secs(600),
        summary: "writes a backup into a new file: of a running node, or of a stopped replica's directory",
        more: "A running node makes a snapshot of all that it has applied, and writes the file itself. Of a \
               directory, the newest snapshot and every committed slot after it are written. Only the \
               file's owner may read it. `kv init NEW --replicas 3 --from FILE` begins with it.",
        examples: &["paxosctl export c/1 monday.backup", "paxosctl export c/1/data monday.backup"],
        run: export::run,
    },
    Verb {
        name: "log inspect",
        takes: Takes::Directory,
        flags: &[Flag::Json],
        timeout: Duration::from_secs(5),
        summary: "what stands in a stopped replica's directory: log, slots, promise, membership, snapshots",
        more: "DIR holds META, or a directory `data` that does. It is locked meanwhile, and not changed. \
               What a start would refuse is said in the same words.",
        examples: &["paxosctl log inspect c/1", "paxosctl log inspect --json c/1/data"],
        run: log::run,
    },
    Verb {
        name: "recover",
        takes: Takes::Directory,
        flags: &[Flag::Yes, Flag::Json],
        timeout: Duration::from_secs(5),
        summary: "after a majority of voters is lost for good: makes a survivor's directory a new cluster",
        more: "First without the option: it says what would be kept, and what may be lost. Look at every \
               survivor, and take the one that has most. With the option the directory becomes the one \
               of a cluster with a new id in which that replica alone votes; the old directory is kept \
               beside it. Run it again if it was cut short. The other replicas must never be started \
               again. Then `kv adopt DIR/I`, and `kv serve DIR/I`.",
        examples: &[
            "paxosctl recover c/1",
            "paxosctl recover c/1 --yes-lose-what-only-others-have",
        ],
        run: recover::run,
    },
];
