//! ARCHITECTURE.md is short, and what it names is there.

use crate::source::{read, root};

#[test]
fn architecture_is_short() {
    let lines = read("ARCHITECTURE.md").lines().count();
    assert!(lines <= 300, "{lines} lines, at most 300");
}

#[test]
fn architecture_names_every_folder_of_code() {
    let text = read("ARCHITECTURE.md");
    for folder in [
        "paxos-core/src/sim/",
        "paxos-storage/src/",
        "paxos-transport-quic/src/",
        "src/",
    ] {
        assert!(
            text.contains(&format!("`{folder}`")),
            "{folder} is not on the map"
        );
    }
}

#[test]
fn architecture_names_only_files_that_exist() {
    let text = read("ARCHITECTURE.md");
    let quoted = text.split('`').skip(1).step_by(2);
    let gone: Vec<&str> = quoted
        .filter(|name| name.contains('/') && !name.contains([' ', ':']))
        .filter(|name| !root().join(name).exists())
        .collect();
    assert!(gone.is_empty(), "on the map and gone:\n{}", gone.join("\n"));
}
