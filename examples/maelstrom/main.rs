//! The protocol's core as a node of Maelstrom, so that Jepsen's workbench can be set on it.
//!
//! ```text
//! cargo build --release --example maelstrom
//! maelstrom test -w lin-kv --bin target/release/examples/maelstrom --node-count 3 \
//!     --concurrency 4n --rate 100 --time-limit 60 --nemesis partition --nemesis-interval 5
//! ```
//!
//! Maelstrom is a program of its own (a Java archive, `./maelstrom` in its directory). It starts the
//! nodes, carries every line between them, cuts and delays, and judges what its clients saw.
//!
//! Owns: the program's course: a thread that reads lines, and one that owns the [`node::Node`] and
//! sleeps until a line comes or the replica wants to be woken. No async runtime and none of the host
//! takes part: the loop that every host of `paxos_core::replica::Replica` needs is in `node.rs`.
//! Invariants: standard output carries messages alone, everything else goes to standard error; no
//! line, however malformed, ends the program; a halted replica does.
//!
//! The log is in memory. That is enough here, as Maelstrom cuts and delays but starts no node twice;
//! one that is started again anyway is refused by the others, for it has forgotten its votes.
//! Nothing is trimmed, so memory grows with the run.
//!
//! Source: Maelstrom, by Kyle Kingsbury: its protocol document and its workload lin-kv.

#![allow(clippy::print_stderr, reason = "Maelstrom collects standard error as the node's log")]

mod node;
mod store;
mod wire;

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::io::{self, BufRead, Read as _, Write as _};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use paxos_core::ids::Time;

use crate::node::Node;
use crate::wire::{Answer, Body, Code, Incoming, line};

/// So many lines wait for the node before the reading thread does.
const LINES_MAX: usize = 1024;
/// No message comes near this: values travel in pages of [`paxos_core::config::Config`], as
/// hexadecimal digits.
const LINE_BYTES_MAX: u64 = 32 << 20;
/// How long to sleep where nothing says when to wake up.
const LONG: Duration = Duration::from_secs(3600);

fn main() -> ExitCode {
    let (sender, receiver) = sync_channel(LINES_MAX);
    thread::spawn(move || read(io::stdin().lock(), &sender));
    match run(&receiver) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("maelstrom: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Hands on one line after another, until the input or its taker ends.
fn read(mut input: impl BufRead, sender: &SyncSender<Vec<u8>>) {
    loop {
        let mut bytes = Vec::new();
        match input.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut bytes) {
            Ok(0) => return,
            Ok(_) if sender.send(bytes).is_err() => return,
            Ok(_) => {}
            Err(error) => return eprintln!("maelstrom: standard input: {error}"),
        }
    }
}

/// Takes in lines and the time, and puts out what the node says, until the input ends.
fn run(receiver: &Receiver<Vec<u8>>) -> Result<(), String> {
    let origin = Instant::now();
    let now = || Time::ZERO.after(origin.elapsed());
    let mut node = None;
    let mut wake_at = None;
    loop {
        let sleep = wake_at.map_or(LONG, |at: Time| at.since(now()));
        let mut output = String::new();
        match receiver.recv_timeout(sleep) {
            Ok(first) => {
                // Whatever has come meanwhile is taken in before anything is put out.
                let more = receiver.try_iter().take(LINES_MAX);
                for bytes in std::iter::once(first).chain(more) {
                    take_in(&bytes, &mut node, now(), &mut output);
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
        if let Some(node) = &mut node {
            wake_at = node.settle(now(), &mut output)?;
        }
        let mut stdout = io::stdout().lock();
        let written = stdout.write_all(output.as_bytes()).and_then(|()| stdout.flush());
        written.map_err(|error| format!("standard output: {error}"))?;
    }
}

/// One line, for the node or, as long as there is none, for its birth.
fn take_in(bytes: &[u8], node: &mut Option<Node>, now: Time, output: &mut String) {
    let Incoming { src, dest, msg_id, body } = match Incoming::parse(bytes) {
        Ok(incoming) => incoming,
        Err(error) => {
            eprintln!("maelstrom: a line that is no message: {error}");
            return;
        }
    };
    let answer = match (node, body) {
        (_, Err(refused)) => refused,
        (node @ None, Ok(Body::Init { node_id, node_ids })) => {
            let seed = RandomState::new().hash_one(Instant::now());
            match Node::new(&node_id, &node_ids, seed, now) {
                Ok(new) => {
                    *node = Some(new);
                    Answer::Init
                }
                Err(why) => Answer::error(Code::Malformed, &why),
            }
        }
        (None, Ok(Body::Ask(_) | Body::Forward(_))) => {
            Answer::error(Code::Unavailable, "this node is not initialised yet")
        }
        // Peers may be born earlier. The core sends again what matters.
        (None, Ok(Body::Paxos(_) | Body::Reply { .. })) => return,
        (Some(node), Ok(body)) => match node.take(&src, msg_id, body, now) {
            Ok(()) => return,
            Err(refused) => refused,
        },
    };
    match (msg_id, &answer) {
        (Some(msg_id), _) => output.push_str(&line(&dest, &src, &answer.body(msg_id))),
        (None, Answer::Error(code, text)) => {
            eprintln!("maelstrom: {src} sent what it wants no answer to: {code:?}: {text}");
        }
        (None, _) => {}
    }
}
