//! Real `kv serve` processes under faults, and clients whose history is judged.
//!
//! ```text
//! cargo run --release --example chaos -- --minutes 10 --nodes 5
//! cargo run --release --example chaos -- --preset chained
//! cargo run --release --example chaos -- --check FILE
//! ```
//!
//! Owns: the program's course from its arguments to its exit. `chaos --help` says the rest.
//! Source: Jepsen's way of testing: clients, faults, a history, and a checker that knows nothing of
//! the system.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program talks to its user")]

mod ability;
mod cli;
mod cluster;
mod downtime;
mod driver;
mod episode;
mod fault;
mod guard;
mod history;
mod judge;
mod layout;
mod load;
mod preset;
mod proxy;
mod report;
mod resp;
mod rng;
mod shape;
mod space;

use std::fmt;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use tokio::signal::unix::{SignalKind, signal};

use crate::ability::Abilities;
use crate::cli::{Invocation, Options};
use crate::cluster::Cluster;
use crate::driver::{Orders, Run};
use crate::fault::Fault;
use crate::guard::{Guard, Remains};
use crate::history::Operation;
use crate::judge::{Judgement, judge};
use crate::layout::{Plan, lay_out};
use crate::rng::Rng;

const EXIT_VIOLATION: u8 = 1;
const EXIT_USAGE: u8 = 2;
const EXIT_VOID: u8 = 3;
const EXIT_FAILED: u8 = 4;
const EXIT_INTERRUPTED: u8 = 130;

/// How long a run that was interrupted may take to end by itself.
const ORDERLY_END: Duration = Duration::from_secs(3);
/// With fewer operations during faults, a run says nothing.
const SUCCEEDED_LEAST: u64 = 1_000;
/// The small file system's room for a log: at first, and for each minute.
const SMALL_DISK_BYTES: (u64, u64) = (256 << 20, 64 << 20);

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    if std::env::args().nth(1).as_deref() == Some(guard::ARGUMENT) {
        return match outlive_signals() {
            Ok(()) => {
                guard::clean_up_after(std::io::stdin().lock());
                ExitCode::SUCCESS
            }
            Err(error) => complain(&error),
        };
    }
    match cli::parse(&mut arguments) {
        Ok(Invocation::Help) => {
            say(cli::HELP.trim_end());
            ExitCode::SUCCESS
        }
        Ok(Invocation::Check(file)) => check(&file).unwrap_or_else(|error| complain(&error)),
        Ok(Invocation::Run(options)) => run(&options).unwrap_or_else(|error| complain(&error)),
        Err(error) => {
            complain(&error);
            ExitCode::from(EXIT_USAGE)
        }
    }
}

/// Judges a history of an earlier run.
fn check(file: &Path) -> Result<ExitCode, String> {
    let history = history::read(file)?;
    let judgement = judge(&history);
    let ends = report::count(&history);
    say(format_args!(
        "{} operations ({} ok, {} rejected, {} unknown) on {} keys",
        history.len(),
        ends.succeeded,
        ends.rejected,
        ends.unknown,
        judgement.keys
    ));
    Ok(verdict(&judgement.violations))
}

fn verdict(violations: &[String]) -> ExitCode {
    if violations.is_empty() {
        say("verdict: linearizable, and nothing acknowledged is lost");
        return ExitCode::SUCCESS;
    }
    for violation in violations {
        say(format_args!("VIOLATION: {violation}"));
    }
    say(format_args!("verdict: {} violations", violations.len()));
    ExitCode::from(EXIT_VIOLATION)
}

fn run(options: &Options) -> Result<ExitCode, String> {
    let kv = kv_program(options)?;
    let interrupted = on_interrupt()?;
    let guard = Guard::start()?;
    let dir = directory(&guard)?;
    let abilities = Abilities::find(options.rootless, &dir, &guard)?;
    let seed = options.seed.unwrap_or_else(|| {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::from(since.subsec_nanos()) << 20 ^ since.as_secs()
    });
    say(format_args!("chaos: {} replicas, {:?}, seed {seed}", options.nodes, options.duration));
    abilities.lines.iter().for_each(say);
    let menu: Vec<Fault> =
        options.faults.iter().copied().filter(|fault| fault.is_possible(&abilities)).collect();
    let names =
        |faults: &[Fault]| faults.iter().map(|fault| fault.name()).collect::<Vec<_>>().join(" ");
    let absent: Vec<Fault> =
        options.faults.iter().copied().filter(|fault| !menu.contains(fault)).collect();
    if menu.is_empty() {
        return Err(format!("none of the faults can be had here: {}", names(&absent)));
    }
    say(format_args!("faults: {}", names(&menu)));
    if !absent.is_empty() {
        say(format_args!("left out: {}", names(&absent)));
    }
    let small_disk = (
        Rng::new(seed, u64::MAX).below(options.nodes as u64) as usize,
        SMALL_DISK_BYTES.0 + SMALL_DISK_BYTES.1 * options.duration.as_secs().div_ceil(60),
    );
    let (nodes, lease) = (options.nodes, options.lease.as_deref());
    let plan = Plan { kv: &kv, dir: &dir, nodes, lease, seed, small_disk };
    let mut cluster = Cluster::new(lay_out(&plan, &abilities, &guard)?, &kv, &abilities);
    if !options.presets.is_empty() {
        let held = downtime::run(&mut cluster, &options.presets, seed, &interrupted)?;
        return Ok(if held { ExitCode::SUCCESS } else { ExitCode::from(EXIT_VIOLATION) });
    }
    let orders =
        Orders { menu: &menu, duration: options.duration, seed, interrupted: &interrupted };
    let run = driver::run(&mut cluster, &orders);
    let code = match run {
        Ok(_) if interrupted.load(Ordering::Relaxed) => {
            say("interrupted: nothing is judged");
            return Ok(ExitCode::from(EXIT_INTERRUPTED));
        }
        Ok(run) => conclude(&run, options, seed, &cluster, &dir),
        Err(error) => {
            say(format_args!("the outputs of the replicas are in {}", dir.display()));
            guard.announce(&Remains::Kept(dir.clone()))?;
            return Err(error);
        }
    }?;
    if options.keep || code == ExitCode::from(EXIT_VIOLATION) {
        guard.announce(&Remains::Kept(dir.clone()))?;
        say(format_args!("kept: {}", dir.display()));
    }
    Ok(code)
}

/// Judges a run, prints the table, saves the history.
fn conclude(
    run: &Run,
    options: &Options,
    seed: u64,
    cluster: &Cluster,
    dir: &Path,
) -> Result<ExitCode, String> {
    let start = Instant::now();
    let mut judgement: Judgement = judge(&run.history);
    let took = start.elapsed();
    judgement.violations.extend(run.violations.iter().cloned());
    say(report::text(run, &judgement, cluster).trim_end());
    say(format_args!("judged in {:.1} s", took.as_secs_f64()));
    let file = match &options.history {
        Some(file) => Some(file.clone()),
        None if judgement.violations.is_empty() => None,
        None => Some(dir.join("history.txt")),
    };
    if let Some(file) = file {
        save(&file, options, seed, &judgement, &run.history)?;
    }
    let code = verdict(&judgement.violations);
    if judgement.violations.is_empty() && run.succeeded_stressed < SUCCEEDED_LEAST {
        say(format_args!(
            "void: {} operations succeeded during faults, fewer than {SUCCEEDED_LEAST}",
            run.succeeded_stressed
        ));
        return Ok(ExitCode::from(EXIT_VOID));
    }
    Ok(code)
}

fn save(
    file: &Path,
    options: &Options,
    seed: u64,
    judgement: &Judgement,
    history: &[Operation],
) -> Result<(), String> {
    let mut notes =
        vec![format!("nodes {} seed {seed} duration {:?}", options.nodes, options.duration)];
    notes.extend(judgement.violations.iter().map(|violation| format!("violation: {violation}")));
    history::write(file, &notes, history)
        .map_err(|error| format!("cannot write {}: {error}", file.display()))?;
    say(format_args!("history: {} (chaos --check judges it again)", file.display()));
    Ok(())
}

/// A directory that the guard removes.
fn directory(guard: &Guard) -> Result<PathBuf, String> {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (id, nanos) = (std::process::id(), since.subsec_nanos());
    let name = format!("{}{id}-{nanos}", guard::DIR_PREFIX);
    let dir = std::env::temp_dir().join(name);
    guard.announce(&Remains::Directory(dir.clone()))?;
    fs::create_dir(&dir).map_err(|error| format!("cannot create {}: {error}", dir.display()))?;
    Ok(dir)
}

/// The `kv` program: given, or built where cargo runs this program, or beside it.
fn kv_program(options: &Options) -> Result<PathBuf, String> {
    if let Some(kv) = &options.kv {
        return Ok(kv.clone());
    }
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let dir = own.parent().expect("a program is in a directory");
    if let Some(cargo) = std::env::var_os("CARGO") {
        let target = dir.parent().and_then(Path::parent).expect("target/PROFILE/examples");
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "--example", "kv", "--manifest-path"]);
        build.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
        build.arg("--target-dir").arg(target);
        if dir.parent().is_some_and(|profile| profile.ends_with("release")) {
            build.arg("--release");
        }
        let status = build.status().map_err(|error| format!("cannot run cargo: {error}"))?;
        if !status.success() {
            return Err("the example kv does not build".into());
        }
    }
    let kv = dir.join("kv");
    if kv.exists() {
        Ok(kv)
    } else {
        Err(format!("{} is missing: build the example kv, or give --kv PATH", kv.display()))
    }
}

/// Makes the clean-up process end by the closing of its pipe alone. A signal that was listened for
/// once no longer ends a process.
fn outlive_signals() -> Result<(), String> {
    let runtime = signal_runtime()?;
    let _inside = runtime.enter();
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        signal(kind).map(drop).map_err(|error| format!("cannot listen for signals: {error}"))?;
    }
    Ok(())
}

fn signal_runtime() -> Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("no runtime for signals: {error}"))
}

/// A flag that Ctrl-C or SIGTERM sets.
fn on_interrupt() -> Result<Arc<AtomicBool>, String> {
    let flag = Arc::new(AtomicBool::new(false));
    let set = Arc::clone(&flag);
    let runtime = signal_runtime()?;
    let listen = |kind| {
        let _inside = runtime.enter();
        signal(kind).map_err(|error| format!("cannot listen for signals: {error}"))
    };
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            set.store(true, Ordering::Relaxed);
            // Whatever is waited for: the clean-up process does the rest.
            tokio::time::sleep(ORDERLY_END).await;
            std::process::exit(i32::from(EXIT_INTERRUPTED));
        });
    });
    Ok(flag)
}

/// Prints a line to whoever still reads.
fn say(text: impl fmt::Display) {
    let mut out = std::io::stdout().lock();
    let _written = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// Prints a line about a fault.
fn complain(text: &str) -> ExitCode {
    let _written = writeln!(std::io::stderr().lock(), "chaos: {}", text.replace('\n', " "));
    ExitCode::from(EXIT_FAILED)
}
