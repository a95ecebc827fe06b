//! The program itself, as a user starts it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use crate::examples::built;
use crate::guard::{DIR_PREFIX, servers};
use crate::history;
use crate::teeth::sound_history;

/// How long anything may take before it counts as never.
const PATIENCE: Duration = Duration::from_secs(60);

/// The program.
fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| built(&["chaos", "kv"]).join("chaos"))
}

fn run<A: AsRef<std::ffi::OsStr>>(arguments: &[A]) -> (Output, String) {
    let output = Command::new(binary()).args(arguments).stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into();
    (output, text)
}

#[test]
fn a_saved_history_is_judged_again() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("history.txt");
    let check = || run(&["--check".as_ref(), file.as_os_str()]);
    let mut planted = sound_history(5, 1_000);
    history::write(&file, &[], &planted).unwrap();
    let (output, text) = check();
    assert_eq!(output.status.code(), Some(0), "{text}");
    // The last reading of a list goes without the last part.
    let reading =
        planted.iter_mut().rev().find(|operation| operation.key.starts_with('l')).unwrap();
    let history::Outcome::Value(Some(list)) = &mut reading.outcome else {
        panic!("a list that is read");
    };
    let parts = list.trim_end_matches(';').rsplit_once(';').unwrap();
    *list = format!("{};", parts.0);
    history::write(&file, &[], &planted).unwrap();
    let (output, text) = check();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("VIOLATION"), "{text}");
}

#[test]
fn mistakes_on_the_command_line_are_one_line() {
    for arguments in [
        &["--minutes", "0"][..],
        &["--minutes"],
        &["--nodes", "4", "--smoke"],
        &["--faults", "flood", "--smoke"],
        &["--preset", "netsplit"],
        &["--preset", "howard"],
        &["--frobnicate"],
        &[],
    ] {
        let (output, text) = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
        assert_eq!(text.lines().count(), 1, "{arguments:?}: {text}");
    }
    let (output, text) = run(&["--check", "/nonexistent"]);
    assert_eq!(output.status.code(), Some(4), "{text}");
}

/// Where a program keeps its run, once it has replicas that run.
fn directory_of(id: u32, replicas: usize) -> PathBuf {
    let start = Instant::now();
    loop {
        let mine = format!("{DIR_PREFIX}{id}-");
        let found = fs::read_dir(std::env::temp_dir())
            .unwrap()
            .flatten()
            .find(|entry| entry.file_name().to_string_lossy().starts_with(&mine));
        if let Some(found) = found
            && servers(&found.path()).len() >= replicas
        {
            return found.path();
        }
        assert!(start.elapsed() < PATIENCE, "the run never began");
        thread::sleep(Duration::from_millis(10));
    }
}

/// The processes of this program that another one has started.
fn children(id: u32) -> Vec<String> {
    let parent = format!("PPid:\t{id}");
    let numbers = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.file_name());
    let numbers = numbers.map(|name| name.to_string_lossy().into_owned());
    let is_child = |number: &String| {
        let status = fs::read_to_string(format!("/proc/{number}/status")).unwrap_or_default();
        status.starts_with("Name:\tchaos\n") && status.lines().any(|line| line == parent)
    };
    numbers.filter(is_child).collect()
}

fn wait_until_gone(dir: &Path) {
    let start = Instant::now();
    while dir.exists() || !servers(dir).is_empty() {
        assert!(start.elapsed() < PATIENCE, "{} is left behind", dir.display());
        thread::sleep(Duration::from_millis(10));
    }
}

/// However it ends, it leaves neither a process nor a directory.
#[test]
fn nothing_is_left_behind_by_kill_9_or_by_ctrl_c() {
    for (signal, code) in [("-KILL", None), ("-INT", Some(130)), ("-TERM", Some(130))] {
        let mut command = Command::new(binary());
        command.args(["--smoke", "--faults", "kill"]).stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = command.spawn().unwrap();
        let dir = directory_of(child.id(), 3);
        let mut kill = Command::new("kill");
        kill.args([signal, &child.id().to_string()]);
        if signal == "-INT" {
            // As a command that signals every process of this name would.
            let children = children(child.id());
            assert_eq!(children.len(), 1, "the clean-up process");
            kill.args(children);
        }
        assert!(kill.status().unwrap().success());
        let status = child.wait().unwrap();
        assert_eq!(status.code(), code, "{signal}");
        wait_until_gone(&dir);
    }
}
