//! The verbs.
//!
//! Owns: [`VERBS`], one row each: what it is called, takes, says and does. A verb is added by its row here
//! and a module of its own; where it asks something new of a node, by a request in `paxos::admin`.

use std::time::Duration;

use paxos::{ReplicaId, Slot};

use crate::outcome::Failure;
use crate::{
    change, export, log, members, metrics, recover, snapshot, status, transfer, trim, watch,
};

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
    Replica,
    Old,
    Address,
    Key,
}

impl Flag {
    pub(crate) const ALL: [Self; 10] = [
        Self::Json,
        Self::Timeout,
        Self::To,
        Self::Changes,
        Self::Slot,
        Self::Yes,
        Self::Replica,
        Self::Old,
        Self::Address,
        Self::Key,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Json => "--json",
            Self::Timeout => "--timeout",
            Self::To => "--to",
            Self::Changes => "--changes",
            Self::Slot => "--slot",
            Self::Yes => YES,
            Self::Replica => "--replica",
            Self::Old => "--old",
            Self::Address => "--address",
            Self::Key => "--key",
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
            Self::Replica => ("--replica N", "which replica"),
            Self::Old => ("--old N", "which voter leaves"),
            Self::Address => {
                ("--address HOST:PORT", "where the others reach it; may be given again")
            }
            Self::Key => ("--key HEX", "the SHA-256 of its public key; may be given again"),
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
    pub(crate) replica: Option<ReplicaId>,
    pub(crate) old: Option<ReplicaId>,
    pub(crate) addresses: Vec<String>,
    pub(crate) keys: Vec<String>,
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
pub(crate) const VERBS: [Verb; 16] = [
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
        name: "add",
        takes: Takes::Many,
        flags: &[Flag::Replica, Flag::Address, Flag::Key, Flag::Json, Flag::Timeout],
        timeout: Duration::from_secs(30),
        summary: "makes a new replica a voter: it observes first, and is promoted by itself once it keeps up",
        more: "The leader's own socket must be among those given. Done when the replica observes. Its \
               directory is laid out before, by `kv join` where it is one of kv's, which prints this line.",
        examples: &[
            "paxosctl add --replica 4 --address 10.0.0.4:7104 --key 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 c",
        ],
        run: change::add,
    },
    Verb {
        name: "observe",
        takes: Takes::Many,
        flags: &[Flag::Replica, Flag::Address, Flag::Key, Flag::Json, Flag::Timeout],
        timeout: Duration::from_secs(30),
        summary: "makes a new replica an observer for good: it receives everything and votes on nothing",
        more: "The leader's own socket must be among those given. `promote` makes it a voter.",
        examples: &[
            "paxosctl observe --replica 4 --address 10.0.0.4:7104 --key 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 c",
        ],
        run: change::observe,
    },
    Verb {
        name: "promote",
        takes: Takes::Many,
        flags: &[Flag::Replica, Flag::Json, Flag::Timeout],
        timeout: Duration::from_secs(30),
        summary: "makes an observer a voter as soon as it has caught up",
        more: "The leader's own socket must be among those given. Done when that is decided; `members` tells \
               how far it is.",
        examples: &["paxosctl promote --replica 4 c"],
        run: change::promote,
    },
    Verb {
        name: "remove",
        takes: Takes::Many,
        flags: &[Flag::Replica, Flag::Json, Flag::Timeout],
        timeout: Duration::from_secs(30),
        summary: "makes a member one no longer, the leader too",
        more: "The leader's own socket must be among those given. Done when the replica is needed no more; it \
               stops by itself. Its id is never used again.",
        examples: &["paxosctl remove --replica 3 c"],
        run: change::remove,
    },
    Verb {
        name: "replace",
        takes: Takes::Many,
        flags: &[Flag::Old, Flag::Replica, Flag::Address, Flag::Key, Flag::Json, Flag::Timeout],
        timeout: Duration::from_secs(30),
        summary: "puts a new replica in the place of a voter, dead or alive, once it has caught up",
        more: "The leader's own socket must be among those given. Done when the new one observes; the old one \
               leaves in the step that makes the new one a voter. `kv join` prints this line.",
        examples: &[
            "paxosctl replace --old 3 --replica 4 --address 10.0.0.4:7104 --key 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 c",
        ],
        run: change::replace,
    },
    Verb {
        name: "move",
        takes: Takes::Many,
        flags: &[Flag::Replica, Flag::Address, Flag::Key, Flag::Json, Flag::Timeout],
        timeout: Duration::from_secs(30),
        summary: "has the others reach a member at another address, or by another key",
        more: "The leader's own socket must be among those given. What is left away stays as it was. To change a \
               key, name the old and the new one first, then the new one alone.",
        examples: &["paxosctl move --replica 3 --address 10.0.1.3:7103 c"],
        run: change::relocate,
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
