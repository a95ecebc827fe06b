//! What the clean-up process removes, and what it leaves alone.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::guard::{DIR_PREFIX, clean_up_after, servers};

#[test]
fn servers_and_directories_of_a_run_are_removed_and_nothing_else() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join(format!("{DIR_PREFIX}test"));
    let other = scratch.path().join("precious");
    std::fs::create_dir_all(dir.join("1")).unwrap();
    std::fs::create_dir_all(&other).unwrap();
    // A process that waits for its input, with the arguments of a server.
    let start = |home: &std::path::Path| {
        let mut shell = Command::new("sh");
        shell.args(["-c", "read -r line", "serve"]).arg(home);
        // The name of the program stands first in `sh -c`, so it is given once more.
        shell.args(["serve"]).arg(home).stdin(Stdio::piped()).spawn().unwrap()
    };
    let mut ours = start(&dir.join("1"));
    let mut foreign = start(&other);
    while servers(&dir).is_empty() || servers(&other).is_empty() {
        std::thread::yield_now();
    }
    assert_eq!(servers(&dir), [ours.id().to_string()]);
    let announced = format!(
        "directory {}\ndirectory {}\nservers {}\nnonsense\n",
        dir.display(),
        other.display(),
        dir.display()
    );
    // This process has to take note of the end of its child, as the run's own end would.
    let input = ours.stdin.take();
    let waiting = std::thread::spawn(move || ours.wait().unwrap());
    clean_up_after(announced.as_bytes());
    assert_eq!(waiting.join().unwrap().code(), None, "it was killed");
    drop(input);
    assert!(!dir.exists());
    assert!(other.exists(), "its name is not that of a run");
    assert!(foreign.try_wait().unwrap().is_none(), "it serves another directory");
    foreign.stdin.take().unwrap().write_all(b"\n").unwrap();
    assert!(foreign.wait().unwrap().success());
}

#[test]
fn what_is_kept_stays() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join(format!("{DIR_PREFIX}kept"));
    std::fs::create_dir(&dir).unwrap();
    let announced = format!("directory {0}\nkept {0}\n", dir.display());
    clean_up_after(announced.as_bytes());
    assert!(dir.exists());
}
