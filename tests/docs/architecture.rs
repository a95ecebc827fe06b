//! ARCHITECTURE.md is short, and the modules it names are there; every module is on its map.

use crate::source::{libraries, read};

#[test]
fn architecture_is_short() {
    let lines = read("ARCHITECTURE.md").lines().count();
    assert!(lines <= 300, "{lines} lines, at most 300");
}

#[test]
fn architecture_names_every_library_file() {
    let text = read("ARCHITECTURE.md");
    let missing: Vec<String> = libraries()
        .into_iter()
        .map(|source| source.path)
        .filter(|path| {
            // A folder on the map stands for what is in it.
            let mut at = path.as_str();
            let mut named = text.contains(&format!("`{at}`"));
            while let Some((folder, _)) = at.rsplit_once('/') {
                let below_a_crate = folder.ends_with("/src") || folder == "src";
                named |= !below_a_crate && text.contains(&format!("`{folder}/`"));
                at = folder;
            }
            !named && !path.ends_with("lib.rs")
        })
        .collect();
    assert!(
        missing.is_empty(),
        "not on the map:\n{}",
        missing.join("\n")
    );
}

#[test]
fn architecture_names_only_files_that_exist() {
    let text = read("ARCHITECTURE.md");
    let gone: Vec<&str> = text
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|name| {
            name.contains('/')
                && !name.contains([' ', ':'])
                && !crate::source::root().join(name).exists()
        })
        .collect();
    assert!(gone.is_empty(), "on the map and gone:\n{}", gone.join("\n"));
}
