//! A replicated key-value server that speaks the Redis protocol.
//!
//! `kv` alone runs three replicas in one process; `kv init` and `kv serve` run each as a process of
//! its own. `kv --help` says the rest.
//!
//! Owns: the program's course from its arguments to its exit. Every fault before the start is one
//! line on standard error and a non-zero exit; a node that stops by itself ends the process.

mod admin;
mod backend;
mod budget;
mod cli;
mod command;
mod config;
mod connection;
mod digest;
mod image;
mod info;
mod join;
mod limits;
mod log;
mod machine;
mod map;
mod memory;
mod replica;
mod resp;
mod server;
mod setup;
mod store;

use std::fmt;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use futures::future::{join_all, select_all};
use paxos::backup::Backup;
use paxos::{Format, ReplicaId, StopReason};
use tokio::signal::unix::{SignalKind, signal};

use crate::budget::Budget;
use crate::cli::{Invocation, SnapshotPace};
use crate::config::Settings;
use crate::join::Laid;
use crate::limits::BUFFERS_BYTES_MAX;
use crate::replica::{Prepared, Replica};
use crate::setup::Plan;

/// The command line was not understood.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let invocation = match cli::parse(std::env::args().skip(1)) {
        Ok(invocation) => invocation,
        Err(error) => {
            complain(&error);
            return ExitCode::from(EXIT_USAGE);
        }
    };
    match run(invocation) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(invocation: Invocation) -> Result<(), String> {
    match invocation {
        Invocation::Help => {
            say(cli::HELP.trim_end());
            Ok(())
        }
        Invocation::Version => {
            say(concat!("kv ", env!("CARGO_PKG_VERSION")));
            Ok(())
        }
        Invocation::Init { dir, replicas, base_port, lease, from } => {
            let backup = from.map(Backup::open).transpose().map_err(|error| error.to_string())?;
            let from = backup.as_ref();
            setup::init(&dir, Plan { replicas, base_port, lease, from })?;
            let dir = dir.display();
            if let Some(backup) = &backup {
                say(begins_with(backup));
            }
            say(format_args!("{dir} is laid out for {replicas} replicas. Start each with:"));
            // By the name under which it was found, so that the lines can be used as they are.
            let program = std::env::args().next().unwrap_or_else(|| "kv".into());
            (1..=replicas).for_each(|id| say(format_args!("  {program} serve {dir}/{id}")));
            Ok(())
        }
        Invocation::Adopt { dir } => {
            let Format { cluster, membership, .. } = setup::adopt(&dir)?.format;
            let voters = membership.voters().iter().map(|member| member.id.number().to_string());
            let voters = voters.collect::<Vec<_>>().join(", ");
            let dir = dir.display();
            say(format_args!("{dir} is of cluster {cluster} now, in which replicas {voters} vote"));
            Ok(())
        }
        Invocation::Join(newcomer) => {
            let Laid { order, dir } = join::join(&newcomer)?;
            let program = std::env::args().next().unwrap_or_else(|| "kv".into());
            say(format_args!(
                "{} is laid out for {}. Make it a member with:",
                dir.display(),
                newcomer.replica
            ));
            say(format_args!("  {order}"));
            say("and start it with:");
            say(format_args!("  {program} serve {}", dir.display()));
            Ok(())
        }
        Invocation::Serve { dir, reads, trace_out, pace, admin } => {
            let given = config::load(&dir)?;
            let settings = Settings { reads, pace, trace_out, admin, ..given };
            start(vec![settings], "kv serve")
        }
        Invocation::Demo { data, base_port, reads, snapshot_mib } => {
            let settings = demo_settings(&data, base_port)?.into_iter();
            let pace = SnapshotPace { every_mib: snapshot_mib, ..SnapshotPace::default() };
            let settings = settings.map(|settings| Settings { reads, pace, ..settings });
            start(settings.collect(), "kv")
        }
    }
}

/// What a new cluster begins with.
fn begins_with(backup: &Backup) -> String {
    let info = backup.info();
    let (cluster, last) = (info.origin.cluster, info.last);
    let image = info.snapshot.map(|image| {
        let (slot, bytes, digest) = (image.slot, image.bytes, image.digest);
        format!("a snapshot of {slot}, {bytes} bytes with digest {digest}, and ")
    });
    let image = image.unwrap_or_default();
    format!("begins with cluster {cluster} up to {last}: {image}{} slots of log", info.values)
}

/// The three replicas of `kv` alone, laid out at the first start.
fn demo_settings(data: &Path, base_port: Option<u16>) -> Result<Vec<Settings>, String> {
    const REPLICAS: u16 = 3;
    let known = data.join("1").join(config::FILE);
    if !data.exists() {
        setup::init_on_free_ports(data, REPLICAS, cli::base_port_or_default(base_port))?;
    } else if !known.exists() {
        return Err(format!(
            "{} exists, and holds no replicas of kv: name another directory with --data",
            data.display()
        ));
    }
    let homes = (1..=REPLICAS).map(|id| data.join(id.to_string()));
    let settings: Vec<_> = homes.map(|home| config::load(&home)).collect::<Result<_, _>>()?;
    let laid_out = settings[0].clients.clone();
    match base_port {
        Some(port) if !laid_out.ends_with(&format!(":{}", port + 1)) => Err(format!(
            "{} was laid out for clients on {laid_out}: leave --base-port away, change the config \
             files in it, or name another directory with --data",
            data.display()
        )),
        _ => Ok(settings),
    }
}

/// Runs replicas until a signal comes or one of them stops by itself.
fn start(settings: Vec<Settings>, program: &str) -> Result<(), String> {
    log::start();
    let runtime = tokio::runtime::Runtime::new()
        .map_err(|error| format!("the asynchronous runtime cannot start: {error}"))?;
    runtime.block_on(async {
        let budget = Budget::new(BUFFERS_BYTES_MAX);
        let members = settings[0].format.membership.voters().len();
        let bound = memory::bound_besides_data(settings.len(), members);
        let signal = interrupted()?;
        let mut prepared = Vec::new();
        for settings in settings {
            let id = settings.format.replica;
            let ready = Prepared::new(settings).await;
            prepared.push((id, ready.map_err(|error| format!("{id}: {error}"))?));
        }
        let mut replicas = Vec::new();
        for (id, prepared) in prepared {
            let started = prepared.start(budget.clone(), bound).await;
            replicas.push(started.map_err(|error| format!("{id}: {error}"))?);
        }
        banner(&replicas, bound);
        let stopped = select_all(replicas.iter().map(|replica| Box::pin(replica.stopped())));
        let own_end = tokio::select! {
            name = signal => {
                say(format_args!("{program}: {name}, stopping"));
                None
            }
            ((id, reason), _, _) = stopped => Some((id, reason)),
        };
        end(replicas, own_end, program).await
    })
}

/// Ends all replicas at once, and says how.
async fn end(
    replicas: Vec<Replica>,
    own_end: Option<(ReplicaId, StopReason)>,
    program: &str,
) -> Result<(), String> {
    let impatient = interrupted()?;
    let ended = join_all(replicas.into_iter().map(Replica::shutdown));
    let reasons = tokio::select! {
        reasons = ended => reasons,
        name = impatient => return Err(format!("{name} again: not waiting any longer")),
    };
    if let Some((id, reason)) = own_end {
        return Err(format!("{id} stopped by itself: {reason}"));
    }
    let trouble = reasons.into_iter().find(|reason| !matches!(reason, StopReason::Shutdown));
    if let Some(reason) = trouble {
        return Err(format!("a replica did not stop in order: {reason}"));
    }
    say(format_args!("{program}: stopped; what was acknowledged is on disk"));
    Ok(())
}

/// Listens for the signals that ask a program to end, from now on; resolves with the name of one.
fn interrupted() -> Result<impl Future<Output = &'static str>, String> {
    let listen = |kind| signal(kind).map_err(|error| format!("cannot listen for signals: {error}"));
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => "interrupted",
            _ = terminate.recv() => "asked to terminate",
        }
    })
}

fn banner(replicas: &[Replica], bound: usize) {
    for replica in replicas {
        let settings = &replica.settings;
        say(format_args!(
            "{} of cluster {}: clients on {}, peers on {}, data in {}",
            replica.id(),
            settings.format.cluster,
            settings.clients,
            settings.listen,
            settings.data.display()
        ));
    }
    say(format_args!("memory stays under {} MiB besides the data", bound.div_ceil(1 << 20)));
    let port = |replica: &Replica| {
        let address = &replica.settings.clients;
        address.rsplit_once(':').map_or("", |(_, port)| port).to_owned()
    };
    for admin in replicas.iter().filter_map(|replica| replica.admin.as_ref()) {
        let path = admin.path().display();
        say(format_args!("admin socket, for `paxosctl status` and its like: {path}"));
    }
    // The directory that holds those of all replicas.
    let home = |replica: &Replica| {
        let home = replica.settings.file.ancestors().nth(2);
        home.unwrap_or(Path::new(".")).to_owned()
    };
    if let [first, .., last] = replicas {
        say(format_args!(
            "\ntry, in another shell:\n  \
             redis-cli -p {0} set greeting hello\n  \
             redis-cli -p {1} get greeting\n  \
             redis-cli -p {0} info paxos\n  \
             redis-benchmark -p {0} -t set,get,incr -n 100000 -c 50 -P 16\n  \
             cargo run --release --features ctl --bin paxosctl -- status {2}\n\
             Ctrl-C stops all; started again, everything is still there.",
            port(first),
            port(last),
            home(first).display()
        ));
    }
}

/// Prints a line to whoever still reads.
fn say(text: impl fmt::Display) {
    let mut out = std::io::stdout().lock();
    let _written = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// Prints a line about a fault.
fn complain(text: &str) {
    let _written = writeln!(std::io::stderr().lock(), "kv: {}", text.replace('\n', " "));
}
