//! The program as a process: started, written to, read from, paused.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;

use crate::examples::{built, wait_for};

/// The program.
fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| built(&["maelstrom"]).join("maelstrom"))
}

/// A running program. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    /// A thread of its own writes, for the pipe of a process that is stopped fills up.
    input: Option<Sender<Vec<u8>>>,
    errors: Arc<Mutex<String>>,
}

impl Process {
    /// Starts it; each line that it puts out goes to `on_line`.
    pub(crate) fn start(on_line: impl FnMut(String) + Send + 'static) -> Self {
        let mut child = Command::new(binary())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let (input, lines) = channel::<Vec<u8>>();
        thread::spawn(move || {
            for line in lines {
                if stdin.write_all(&line).is_err() {
                    return;
                }
            }
        });
        each_line(child.stdout.take().unwrap(), on_line);
        let errors = Arc::new(Mutex::new(String::new()));
        let collected = Arc::clone(&errors);
        each_line(child.stderr.take().unwrap(), move |line| {
            let mut collected = collected.lock().unwrap();
            collected.push_str(&line);
            collected.push('\n');
        });
        Self { child, input: Some(input), errors }
    }

    /// Takes whole lines. Where the process has ended they are lost, and whoever waits for an answer
    /// notices.
    pub(crate) fn input(&self) -> Sender<Vec<u8>> {
        self.input.clone().expect("the input was not closed")
    }

    pub(crate) fn write(&self, line: &[u8]) {
        let _ended = self.input().send([line, b"\n"].concat());
    }

    /// What it wrote to standard error.
    pub(crate) fn errors(&self) -> String {
        self.errors.lock().unwrap().clone()
    }

    /// `kill -SIGNAL`.
    pub(crate) fn signal(&self, signal: &str) {
        let status = Command::new("kill")
            .args([format!("-{signal}"), self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// Closes its input, if nobody else holds it, waits for its end, and returns the exit code.
    pub(crate) fn end(&mut self) -> Option<i32> {
        self.input = None;
        wait_for("the end of the process", || self.child.try_wait().unwrap()).code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _ended = self.child.wait();
        if thread::panicking() {
            println!("--- process {}\n{}", self.child.id(), self.errors());
        }
    }
}

fn each_line(stream: impl Read + Send + 'static, mut take: impl FnMut(String) + Send + 'static) {
    thread::spawn(move || {
        for line in BufReader::new(stream).lines() {
            let Ok(line) = line else { break };
            take(line);
        }
    });
}
