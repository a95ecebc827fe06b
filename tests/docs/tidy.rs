//! Rules of style that no lint covers. CONTRIBUTING.md gives the reasons.

use crate::source::{Source, all, identifiers, libraries, root};

/// Longer files do not pass; those above the second number are named in the output.
const FILE_LINES_MAX: usize = 800;
const FILE_LINES_WARN: usize = 500;
/// Longer functions do not pass.
const FUNCTION_LINES_MAX: usize = 70;

/// Functions that are longer for a reason, with the most lines they may have. The list only
/// shrinks: an exception that its file does not need is a failure too.
const LONG_FUNCTIONS: [(&str, &str, usize, &str); 2] = [
    (
        "paxos-transport-quic/src/peer.rs",
        "install",
        90,
        "tells two connections apart, case by case",
    ),
    (
        "tests/kv/faults.rs",
        "a_paused_leader_serves_no_stale_read_and_loses_no_write",
        90,
        "one story, told step by step",
    ),
];

/// Words that have another name here, and that name.
const BANNED: [(&str, &str); 21] = [
    ("AppendEntries", "Accept"),
    ("NodeId", "ReplicaId"),
    ("Nack", "Reject"),
    ("PeerId", "ReplicaId"),
    ("Preempted", "Reject"),
    ("Primary", "leader"),
    ("RequestVote", "Prepare"),
    ("ServerId", "ReplicaId"),
    ("Term", "Ballot"),
    ("ViewNumber", "Ballot"),
    ("commit_index", "committed"),
    ("compact", "trim"),
    ("current_term", "ballot"),
    ("decided_index", "committed"),
    ("decree", "value"),
    ("last_applied", "applied"),
    ("log_index", "slot"),
    ("nack", "reject"),
    ("pid", "replica"),
    ("purge", "trim"),
    ("term", "ballot"),
];

fn assert_none(faults: &[String], rule: &str) {
    assert!(faults.is_empty(), "{rule}:\n{}", faults.join("\n"));
}

/// Where a line of code of these files meets the condition.
fn lines_where(sources: &[Source], is_fault: impl Fn(&Source, &str) -> bool) -> Vec<String> {
    let mut faults = Vec::new();
    for source in sources {
        for (number, line) in source.code() {
            if is_fault(source, &line) {
                faults.push(format!("{}:{number}: {}", source.path, line.trim()));
            }
        }
    }
    faults
}

fn within(dir: &str) -> Vec<Source> {
    let mut sources = libraries();
    sources.retain(|source| source.path.starts_with(dir));
    assert!(!sources.is_empty(), "{dir} has files");
    sources
}

fn mentions(line: &str, word: &str) -> bool {
    identifiers(line).any(|identifier| identifier == word)
}

#[test]
fn tidy_one_word_per_concept() {
    let faults = lines_where(&libraries(), |_, line| {
        let getter = line.contains("fn get_") && !line.contains("fn get_mut(");
        getter || BANNED.iter().any(|(word, _)| mentions(line, word))
    });
    assert_none(&faults, "a concept has another name here (CONTRIBUTING.md)");
}

#[test]
fn tidy_modules_are_named_for_what_they_own() {
    let nameless = ["common", "helpers", "misc", "util", "utils"];
    let faults: Vec<String> = all()
        .into_iter()
        .map(|source| source.path)
        .filter(|path| path.split(['/', '.']).any(|part| nameless.contains(&part)))
        .collect();
    assert_none(&faults, "a module owns a noun, and has its name");
}

#[test]
fn tidy_protocol_modules_do_not_know_the_ports() {
    let mut protocol = within("paxos-core/src/");
    protocol.retain(|source| {
        source.path != "paxos-core/src/port.rs" && !source.path.contains("/src/sim/")
    });
    let faults = lines_where(&protocol, |_, line| {
        let imports = line.contains("port::") && !line.contains("pub mod");
        imports || mentions(line, "Storage") || mentions(line, "Transport")
    });
    assert_none(&faults, "no protocol module imports the ports");
}

#[test]
fn tidy_safety_modules_never_see_time() {
    let names = ["acceptor", "learner", "quorum", "ballot"];
    let mut sources = within("paxos-core/src/");
    sources.retain(|source| {
        names.iter().any(|name| {
            source.path == format!("paxos-core/src/{name}.rs")
                || source.path.starts_with(&format!("paxos-core/src/{name}/"))
        })
    });
    assert!(sources.len() >= 2, "the safety modules are found");
    let faults = lines_where(&sources, |_, line| {
        ["Time", "Duration", "Instant", "LogClock"].iter().any(|word| mentions(line, word))
    });
    assert_none(&faults, "acceptor, learner, quorum and ballot never see time");
}

#[test]
fn tidy_the_core_does_no_io_and_has_no_threads() {
    let mut sources = within("paxos-core/src/");
    sources.retain(|source| !source.path.contains("/src/sim/"));
    let faults = lines_where(&sources, |_, line| {
        let std_io = ["std::net", "std::fs", "std::thread", "std::env", "std::process"];
        std_io.iter().any(|path| line.contains(path))
            || ["HashMap", "HashSet", "async", "await", "Instant", "SystemTime"]
                .iter()
                .any(|word| mentions(line, word))
    });
    assert_none(&faults, "the core is sans-IO and deterministic");
}

#[test]
fn tidy_adapters_know_the_core_alone() {
    let storage = lines_where(&within("paxos-storage/src/"), |_, line| {
        ["tokio", "quinn", "paxos", "paxos_transport_quic", "async"]
            .iter()
            .any(|word| mentions(line, word))
    });
    assert_none(&storage, "the storage is synchronous and knows the core alone");
    // A transport moves opaque frames: it neither decodes nor builds a message.
    let transport = lines_where(&within("paxos-transport-quic/src/"), |_, line| {
        ["paxos", "paxos_storage", "Ballot", "Slot", "Message"]
            .iter()
            .any(|word| mentions(line, word))
    });
    assert_none(&transport, "a transport knows identities and bytes alone");
}

#[test]
fn tidy_only_storages_vouch_for_durability() {
    let mut sources = libraries();
    sources.retain(|source| {
        !source.path.starts_with("paxos-storage/")
            && !source.path.contains("/src/sim/")
            && source.path != "paxos-core/src/durable.rs"
            && source.path != "paxos-core/src/single/gate.rs"
    });
    let faults = lines_where(&sources, |_, line| mentions(line, "into_durable"));
    assert_none(&faults, "only a storage says that a batch is durable");
}

#[test]
fn tidy_nothing_is_left_to_be_done() {
    let markers =
        [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X"), concat!("HA", "CK")];
    let mut faults = Vec::new();
    for source in all() {
        for (number, line) in (1..).zip(source.text.lines()) {
            let unfinished = markers.iter().any(|marker| mentions(line, marker))
                || line.contains(concat!("todo", "!("))
                || line.contains(concat!("unimplemented", "!("));
            if unfinished {
                faults.push(format!("{}:{number}: {}", source.path, line.trim()));
            }
        }
    }
    assert_none(&faults, "what is committed is done");
}

#[test]
fn tidy_code_is_ascii() {
    let faults = lines_where(&all(), |_, line| !line.is_ascii());
    assert_none(&faults, "outside comments and literals, source is ASCII");
}

#[test]
#[expect(clippy::print_stderr, reason = "names files that grow, without failing")]
fn tidy_files_are_short() {
    let mut faults = Vec::new();
    for source in all() {
        let lines = source.text.lines().count();
        if lines > FILE_LINES_MAX {
            faults.push(format!("{}: {lines} lines", source.path));
        } else if lines > FILE_LINES_WARN {
            eprintln!("warning: {} has {lines} lines; 250 is normal", source.path);
        }
    }
    assert_none(&faults, "no file has more than 800 lines");
}

/// Each function with its lines, told by the indentation that rustfmt gives. A method that a trait
/// only declares has no body to end.
fn functions(source: &Source) -> Vec<(String, usize)> {
    let lines: Vec<&str> = source.text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let trimmed = line.trim_start();
        let Some(name) = function_name(trimmed) else {
            continue;
        };
        let indent = &line[..line.len() - trimmed.len()];
        let ends = |line: &&str| {
            let at_indent = line.strip_prefix(indent).filter(|rest| !rest.starts_with(' '));
            at_indent
                .is_some_and(|rest| rest == "}" || rest.starts_with(')') && rest.ends_with(';'))
        };
        let length = lines[start..].iter().position(ends);
        found.extend(length.map(|length| (name.to_owned(), length + 1)));
    }
    found
}

fn function_name(line: &str) -> Option<&str> {
    let mut rest = line;
    for qualifier in ["pub ", "pub(crate) ", "pub(super) ", "const ", "async "] {
        rest = rest.strip_prefix(qualifier).unwrap_or(rest);
    }
    // A signature that ends on its own line has no body here.
    let name = rest.strip_prefix("fn ")?;
    (!line.ends_with(';') && !line.ends_with('}')).then(|| name.split(['(', '<']).next())?
}

#[test]
fn tidy_functions_are_short() {
    let mut faults = Vec::new();
    let mut used = [false; LONG_FUNCTIONS.len()];
    for source in all() {
        for (name, lines) in functions(&source) {
            if lines <= FUNCTION_LINES_MAX {
                continue;
            }
            let exception = LONG_FUNCTIONS.iter().position(|(path, function, lines_max, _)| {
                *path == source.path && *function == name && lines <= *lines_max
            });
            match exception {
                Some(at) => used[at] = true,
                None => faults.push(format!("{}: fn {name} has {lines} lines", source.path)),
            }
        }
    }
    for (at, (path, name, ..)) in LONG_FUNCTIONS.iter().enumerate() {
        if !used[at] && root().join(path).exists() {
            faults.push(format!("{path}: fn {name} needs no exception any longer"));
        }
    }
    assert_none(&faults, "functions have at most 70 lines");
}
