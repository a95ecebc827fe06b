//! Lays out the directory of a replica that is to join a cluster.
//!
//! Owns: what `kv join` asks, writes and prints. Invariants: nothing that is there is touched; the directory
//! appears whole under its name or not at all; the cluster is asked and not changed.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use paxos::admin::{Answer, MembersReport, Request};
use paxos::core::codec::decode_membership;
use paxos::quic::Identity;
use paxos::{Bytes, Change, Format, KeyPin, Member, Membership};

use crate::cli::Newcomer;
use crate::setup::{KEY_FILE, cannot, clients_of, fresh, listen_of, unfinished_name, write_home};

/// A node that is asked answers within this time, or is taken for one that does not run.
const ANSWER_MAX: Duration = Duration::from_secs(5);
const SOCKET: &str = "admin.sock";

/// What is to be done next.
#[derive(Debug)]
pub(crate) struct Laid {
    /// The line that makes it a member.
    pub(crate) order: String,
    pub(crate) dir: PathBuf,
}

/// Writes the directory.
pub(crate) fn join(newcomer: &Newcomer) -> Result<Laid, String> {
    let Newcomer { dir, of, replica, replaces, .. } = newcomer;
    let listen = listen(newcomer);
    fresh(dir)?;
    let report = members(of)?;
    let known = membership(&report)?;
    let unfinished = unfinished_name(dir)?;
    fs::create_dir(&unfinished).map_err(|error| cannot("create", dir, &error))?;
    let laid = lay_out(newcomer, &report, &known, &unfinished).and_then(|pin| {
        fs::rename(&unfinished, dir).map_err(|error| cannot("create", dir, &error))?;
        Ok(pin)
    });
    let pin = match laid {
        Ok(pin) => pin,
        Err(error) => {
            // The first error is the one to report.
            let _removed = fs::remove_dir_all(&unfinished);
            return Err(error);
        }
    };
    let pin = pin.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
    let verb = replaces.map_or("add".to_owned(), |old| format!("replace --old {}", old.number()));
    let order = format!(
        "paxosctl {verb} --replica {} --address {} --key {pin} {}",
        replica.number(),
        listen,
        of.display()
    );
    Ok(Laid { order, dir: dir.clone() })
}

fn lay_out(
    newcomer: &Newcomer,
    report: &MembersReport,
    known: &Membership,
    home: &Path,
) -> Result<KeyPin, String> {
    let Newcomer { replica, base_port, clients, replaces, .. } = newcomer;
    let own = clients_of(replica.number(), *base_port);
    let (clients, listen) = (clients.as_deref().unwrap_or(&own), listen(newcomer));
    let identity =
        Identity::load_or_generate(home.join(KEY_FILE)).map_err(|error| error.to_string())?;
    let pin = identity.pin();
    if known.contains(*replica) {
        return Err(format!(
            "{replica} is a member already: choose an id that no replica of this cluster ever had"
        ));
    }
    let member = Member { id: *replica, addresses: vec![listen.clone()], keys: vec![pin] };
    // What `paxosctl` will ask for: the directory is of the membership that comes of it.
    let change = match *replaces {
        Some(old) => Change::Replace { old, new: member },
        None => Change::AddVoter(member),
    };
    let membership = known.changed(change).map_err(|error| error.to_string())?;
    let (cluster, group, replica) = (report.cluster, report.group, *replica);
    let format = Format { cluster, group, replica, membership };
    write_home(home, format, clients, &listen)?;
    Ok(pin)
}

/// Where peers reach it.
fn listen(newcomer: &Newcomer) -> String {
    let usual = || listen_of(newcomer.replica.number(), newcomer.base_port);
    newcomer.listen.clone().unwrap_or_else(usual)
}

fn membership(report: &MembersReport) -> Result<Membership, String> {
    let text = report.format.as_bytes();
    let bytes: Option<Vec<u8>> = text
        .chunks(2)
        .map(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok())
        .collect();
    let membership = bytes.and_then(|bytes| decode_membership(Bytes::from(bytes)).ok());
    membership.ok_or_else(|| "the membership that the node told is not understood".to_owned())
}

/// What a node says of the members, or the one of several that knows the newest.
fn members(of: &Path) -> Result<MembersReport, String> {
    let is_file = fs::metadata(of).is_ok_and(|metadata| metadata.is_file());
    if is_file {
        let text = fs::read_to_string(of).map_err(|error| cannot("read", of, &error))?;
        return serde_json::from_str(&text).map_err(|error| {
            format!("{} is not what `paxosctl members --json` prints: {error}", of.display())
        });
    }
    let answers: Vec<_> = sockets(of)?.iter().map(|socket| ask(socket)).collect();
    let reports = answers.iter().filter_map(|answer| answer.as_ref().ok());
    let newest = reports.max_by_key(|report| (report.epoch, report.leader == Some(report.replica)));
    newest.cloned().ok_or_else(|| {
        let reasons = answers.iter().filter_map(|answer| answer.as_ref().err().cloned());
        format!("no node of the cluster answers: {}", reasons.collect::<Vec<_>>().join("; "))
    })
}

fn sockets(of: &Path) -> Result<Vec<PathBuf>, String> {
    if !of.is_dir() {
        return Ok(vec![of.to_owned()]);
    }
    if of.join(SOCKET).exists() {
        return Ok(vec![of.join(SOCKET)]);
    }
    let entries = fs::read_dir(of).map_err(|error| cannot("read", of, &error))?;
    let homes = entries.filter_map(Result::ok).map(|entry| entry.path().join(SOCKET));
    let mut found: Vec<PathBuf> = homes.filter(|socket| socket.exists()).collect();
    found.sort();
    if found.is_empty() {
        return Err(format!(
            "{} holds no {SOCKET}: name the directory of a replica that runs, its socket, or a file with what \
             `paxosctl members --json` printed",
            of.display()
        ));
    }
    Ok(found)
}

fn ask(socket: &Path) -> Result<MembersReport, String> {
    let lost = |error: std::io::Error| format!("{}: {error}", socket.display());
    let mut stream = UnixStream::connect(socket).map_err(lost)?;
    stream.set_read_timeout(Some(ANSWER_MAX)).map_err(lost)?;
    stream.write_all(Request::Members.to_line().as_bytes()).map_err(lost)?;
    let mut line = Vec::new();
    BufReader::new(stream).read_until(b'\n', &mut line).map_err(lost)?;
    match Answer::from_line(&line) {
        Ok(Answer::Members(report)) => Ok(*report),
        Ok(Answer::Error(fault)) => Err(format!("{}: {fault}", socket.display())),
        Ok(_) => Err(format!("{} answered something else than was asked", socket.display())),
        Err(error) => Err(format!("{}: {error}", socket.display())),
    }
}
