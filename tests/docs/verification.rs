//! docs/verification.md has a row for each story of the lists, and each row is true.

use std::collections::BTreeMap;

use crate::references;
use crate::source::{read, table_rows};

/// The lists and how many stories each has.
const LISTS: [(char, usize); 4] = [('p', 42), ('r', 47), ('n', 15), ('t', 23)];

/// The numbered invariants: safety S1, S2, ... and liveness L1, L2, ...
const SAFETY: usize = 22;
const LIVENESS: usize = 10;

/// The invariants that a simulated run asserts after every event.
const INVARIANTS: [&str; 20] = [
    "agreement",
    "validity",
    "one value per ballot and slot",
    "ballots are used once",
    "promises never go back",
    "durable before sent",
    "votes respect promises",
    "committed is chosen",
    "applied in order",
    "state hashes agree",
    "reads are fresh",
    "snapshots before trims",
    "rejected is never applied",
    "bounds hold",
    "quorums intersect their neighbours'",
    "each request once in a session",
    "histories are linearizable",
    "leases never overlap",
    "progress within four election timeouts",
    "a stable leader stays",
];

fn rows() -> BTreeMap<String, String> {
    let mut rows = BTreeMap::new();
    for row in table_rows(&read("docs/verification.md")) {
        if ["id", "invariant"].contains(&row[0].as_str()) {
            continue;
        }
        let name = row[0].clone();
        let check = row.last().unwrap().clone();
        assert!(row.len() == 3, "{name} has three cells");
        assert!(!row[1].is_empty(), "{name} tells its story");
        assert!(rows.insert(name.clone(), check).is_none(), "{name} stands twice");
    }
    rows
}

#[test]
fn verification_has_a_row_for_each_story_and_invariant() {
    let mut wanted: Vec<String> = INVARIANTS.map(String::from).into();
    for (list, count) in LISTS {
        wanted.extend((1..=count).map(|number| format!("{list}{number:02}")));
    }
    wanted.extend((1..=SAFETY).map(|number| format!("S{number}")));
    wanted.extend((1..=LIVENESS).map(|number| format!("L{number}")));
    wanted.sort();
    let present: Vec<String> = rows().into_keys().collect();
    assert_eq!(present, wanted);
}

#[test]
fn verification_rows_name_tests_that_exist() {
    let faults: Vec<String> = rows()
        .into_iter()
        .flat_map(|(name, check)| {
            let faults = references::faults_of(&check);
            faults.into_iter().map(move |fault| format!("{name}: {fault}"))
        })
        .collect();
    assert!(faults.is_empty(), "docs/verification.md:\n{}", faults.join("\n"));
}

#[test]
fn verification_names_every_script() {
    let rows = rows();
    let unnamed: Vec<String> = references::scripts()
        .into_iter()
        .filter(|reference| {
            let (_, id) = reference.split_once("::").unwrap();
            !rows.get(id).is_some_and(|check| check.contains(&format!("`{reference}`")))
        })
        .collect();
    assert!(unnamed.is_empty(), "docs/verification.md does not name:\n{}", unnamed.join("\n"));
}
