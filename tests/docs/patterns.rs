//! docs/patterns.md has a row for each of the book's 30 patterns, and each row is true.

use crate::references;
use crate::source::{quoted, read, root, table_rows};

/// The patterns of "Patterns of Distributed Systems", in the book's order.
const PATTERNS: [&str; 30] = [
    "Write-Ahead Log",
    "Segmented Log",
    "Low-Water Mark",
    "Leader and Followers",
    "HeartBeat",
    "Majority Quorum",
    "Generation Clock",
    "High-Water Mark",
    "Paxos",
    "Replicated Log",
    "Singular Update Queue",
    "Request Waiting List",
    "Idempotent Receiver",
    "Follower Reads",
    "Versioned Value",
    "Version Vector",
    "Fixed Partitions",
    "Key-Range Partitions",
    "Two-Phase Commit",
    "Lamport Clock",
    "Hybrid Clock",
    "Clock-Bound Wait",
    "Consistent Core",
    "Lease",
    "State Watch",
    "Gossip Dissemination",
    "Emergent Leader",
    "Single-Socket Channel",
    "Request Batch",
    "Request Pipeline",
];

/// The rows of the document: pattern, what it is here, module, check.
fn rows() -> Vec<Vec<String>> {
    table_rows(&read("docs/patterns.md"))
        .into_iter()
        .filter(|row| row.first().is_some_and(|name| name != "Pattern"))
        .collect()
}

#[test]
fn patterns_has_a_row_for_each_of_the_thirty() {
    let names: Vec<String> = rows().into_iter().map(|row| row[0].clone()).collect();
    assert_eq!(names, PATTERNS);
}

#[test]
fn patterns_rows_name_files_and_checks_that_exist() {
    let mut faults = Vec::new();
    for row in rows() {
        let [name, here, modules, check] = row.as_slice() else {
            panic!("{} has four cells", row[0]);
        };
        if here.is_empty() {
            faults.push(format!("{name}: says nothing"));
        }
        let modules = quoted(modules);
        let inapplicable = check.starts_with("does not apply") || check.starts_with("waits for");
        if modules.is_empty() && !inapplicable {
            faults.push(format!("{name}: names no module"));
        }
        for module in modules {
            if !root().join(module).exists() {
                faults.push(format!("{name}: there is no {module}"));
            }
        }
        let of_check = references::faults_of(check);
        faults.extend(of_check.into_iter().map(|fault| format!("{name}: {fault}")));
    }
    assert!(
        faults.is_empty(),
        "docs/patterns.md:\n{}",
        faults.join("\n")
    );
}
