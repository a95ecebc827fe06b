//! The core's scripts on the real log: what is told is the same, to the letter.

use std::fs;
use std::path::PathBuf;

use paxos_core::sim::play_on;
use paxos_storage::sim::SimWal;

#[test]
fn every_script_of_the_core_tells_the_same_on_the_log() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../paxos-core/tests/scripts");
    let mut played = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let script = fs::read_to_string(&path).unwrap();
        let told = play_on(&script, &mut |format| Box::new(SimWal::new(format)));
        let told = told.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(told, script, "{}", path.display());
        played += 1;
    }
    assert!(played > 0, "there are scripts");
}
