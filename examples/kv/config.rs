//! A replica's `config.toml`.
//!
//! Owns: its keys, their checks and its text. Opens nothing that it names.
//! Invariants: what [`Settings::text`] writes, [`load`] reads back; an unknown key is an error, for
//! it may be a misspelt one; every error names the file, and the line where there is one.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use paxos::core::membership::{
    KeyPin, LeaseTerms, Member, Membership, MembershipError, WINDOW_DEFAULT,
};
use paxos::core::quorum::QuorumRule;
use paxos::{ClusterId, Consistency, Epoch, Format, GroupId, ReplicaId};
use serde::Deserialize;
use toml::Spanned;

use crate::cli::SnapshotPace;
use crate::limits::{LEASE_DRIFT_PPM, LEASE_MILLIS};

/// The name of the file in a replica's directory.
pub(crate) const FILE: &str = "config.toml";
/// A file that is larger is not a config.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What a replica's directory says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Settings {
    /// Cluster, replica and first membership.
    pub(crate) format: Format,
    /// Where clients connect: `host:port`.
    pub(crate) clients: String,
    /// Where peers connect: `host:port`.
    pub(crate) listen: String,
    /// The log's directory.
    pub(crate) data: PathBuf,
    /// The key file.
    pub(crate) key: PathBuf,
    /// Where all this is written.
    pub(crate) file: PathBuf,
    /// What reads are answered from: an option, and not in the file.
    pub(crate) reads: Consistency,
    /// When snapshots are written, and how they travel: options, and not in the file.
    pub(crate) pace: SnapshotPace,
    /// Where the replica's events are written, if anywhere: an option, and not in the file.
    pub(crate) trace_out: Option<PathBuf>,
    /// The admin socket, if an option says where it is; else it is in the replica's directory.
    pub(crate) admin: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    cluster: Spanned<String>,
    replica: Spanned<u16>,
    clients: Spanned<String>,
    listen: Spanned<String>,
    data: PathBuf,
    key: PathBuf,
    lease_ms: Option<Spanned<u64>>,
    epoch: Option<Spanned<u32>>,
    member: Spanned<Vec<FileMember>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileMember {
    id: u16,
    address: Spanned<String>,
    pin: Spanned<String>,
    #[serde(default)]
    observes: bool,
}

/// A mistake, and where in the text it stands.
type Mistake = (Option<Range<usize>>, String);

/// Reads the config of a replica's directory.
pub(crate) fn load(dir: &Path) -> Result<Settings, String> {
    let path = dir.join(FILE);
    let failed = |error| unreadable(dir, &path, &error);
    let bytes = fs::metadata(&path).map_err(failed)?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(format!("{} is too large for a config", path.display()));
    }
    let text = fs::read_to_string(&path).map_err(failed)?;
    if text.trim().is_empty() {
        return Err(format!("{} is empty: restore it", path.display()));
    }
    understand(&text, dir).map_err(|(span, what)| {
        let line = span.map(|span| 1 + text[..span.start].matches('\n').count());
        match line {
            Some(line) => format!("{}, line {line}: {what}", path.display()),
            None => format!("{}: {what}", path.display()),
        }
    })
}

fn unreadable(dir: &Path, path: &Path, error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::InvalidData {
        return format!("{} is not a text file: restore it", path.display());
    }
    let action = if error.kind() != io::ErrorKind::NotFound {
        String::new()
    } else if dir.join("1").join(FILE).exists() {
        format!(": name one replica's directory, as in {}", dir.join("1").display())
    } else {
        ": lay it out with `kv init`, or name DIR/I".to_owned()
    };
    format!("cannot read {}: {error}{action}", path.display())
}

fn understand(text: &str, dir: &Path) -> Result<Settings, Mistake> {
    let file: File = toml::from_str(text).map_err(|error| {
        let message = error.message().replace('\n', ", ");
        let is_toml = toml::from_str::<toml::Table>(text).is_ok();
        let message = if is_toml { message } else { format!("not valid TOML: {message}") };
        (error.span(), message)
    })?;
    let cluster = file.cluster.get_ref();
    let cluster = match u128::from_str_radix(cluster, 16) {
        Ok(bits) if cluster.len() == 32 => ClusterId::new(bits),
        _ => return Err(mistake(&file.cluster, "cluster is 32 hexadecimal digits")),
    };
    check_address(&file.clients, "clients")?;
    check_address(&file.listen, "listen")?;
    let epoch = match &file.epoch {
        None => Epoch::FIRST,
        Some(number) if *number.get_ref() > 0 => Epoch::new(*number.get_ref()),
        Some(number) => return Err(mistake(number, "epoch is 1 or above")),
    };
    let (mut voters, mut observers) = (Vec::new(), Vec::new());
    for one in file.member.get_ref() {
        let members = if one.observes { &mut observers } else { &mut voters };
        members.push(member(one)?);
    }
    let membership =
        Membership::new(epoch, voters, observers, QuorumRule::Majority, WINDOW_DEFAULT)
            .map_err(|error| (Some(file.member.span()), error.to_string()))?;
    let membership = match &file.lease_ms {
        None => membership,
        Some(millis) if LEASE_MILLIS.contains(millis.get_ref()) => {
            with_lease(membership, Some(Duration::from_millis(*millis.get_ref())))
        }
        Some(millis) => return Err(mistake(millis, "lease_ms is 200 to 500")),
    };
    let replica = ReplicaId::new(*file.replica.get_ref());
    if !membership.contains(replica) {
        return Err(mistake(&file.replica, "replica is not among the members"));
    }
    Ok(Settings {
        format: Format { cluster, group: GroupId::new(0), replica, membership },
        clients: file.clients.into_inner(),
        listen: file.listen.into_inner(),
        data: dir.join(file.data),
        key: dir.join(file.key),
        file: dir.join(FILE),
        reads: Consistency::default(),
        pace: SnapshotPace::default(),
        trace_out: None,
        admin: None,
    })
}

/// Majorities of these members, from the first slot on.
pub(crate) fn membership(members: Vec<Member>) -> Result<Membership, MembershipError> {
    Membership::new(Epoch::FIRST, members, Vec::new(), QuorumRule::Majority, WINDOW_DEFAULT)
}

/// The same, with leases that last so long.
pub(crate) fn with_lease(membership: Membership, lease: Option<Duration>) -> Membership {
    let Some(duration) = lease else {
        return membership;
    };
    let terms = LeaseTerms::new(duration, LEASE_DRIFT_PPM).expect("a lease is 200 to 500 ms");
    membership.with_lease(terms)
}

fn member(member: &FileMember) -> Result<Member, Mistake> {
    check_address(&member.address, "address")?;
    let pin = parse_pin(member.pin.get_ref())
        .ok_or_else(|| mistake(&member.pin, "pin is 64 hexadecimal digits"))?;
    if member.id == 0 {
        return Err(mistake(&member.address, "a member's id is 1 or above"));
    }
    Ok(Member {
        id: ReplicaId::new(member.id),
        addresses: vec![member.address.get_ref().clone()],
        keys: vec![pin],
    })
}

fn mistake<T>(at: &Spanned<T>, what: &str) -> Mistake {
    (Some(at.span()), what.to_owned())
}

/// A host or address, a colon and a port; names are looked up later.
fn check_address(address: &Spanned<String>, name: &str) -> Result<(), Mistake> {
    let parts = address.get_ref().rsplit_once(':');
    match parts.map(|(host, port)| (host, port.parse::<u16>())) {
        Some((host, Ok(_))) if !host.is_empty() => Ok(()),
        _ => Err(mistake(address, &format!("{name} is HOST:PORT"))),
    }
}

fn parse_pin(text: &str) -> Option<KeyPin> {
    let mut pin = KeyPin::default();
    if text.len() != 2 * pin.len() || !text.is_ascii() {
        return None;
    }
    for (at, byte) in pin.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(pin)
}

impl Settings {
    /// The text of the file. Paths are written relative to the directory.
    pub(crate) fn text(&self, data: &str, key: &str) -> String {
        let mut text = format!(
            "# {replica} of {count}. Start it with: kv serve THIS_DIRECTORY\n\
             # Keys that this file does not show are errors, and so are their misspellings.\n\
             \n\
             # The cluster's name, the same in the directory of every replica. A message of another\n\
             # cluster is refused.\n\
             cluster = \"{cluster}\"\n\
             # Which member this is. Never give a used id to an empty directory: it may have\n\
             # forgotten votes, and the others will refuse it.\n\
             replica = {id}\n\
             # Where clients that speak the Redis protocol connect. There are no passwords: keep it\n\
             # on a network that you trust.\n\
             clients = \"{clients}\"\n\
             # Where this replica listens for the others (QUIC over UDP, authenticated both ways).\n\
             listen = \"{listen}\"\n\
             # The log, relative to this file. On a disk that keeps what was synced.\n\
             data = \"{data}\"\n\
             # This replica's private key, mode 0600, relative to this file.\n\
             key = \"{key}\"\n",
            replica = self.format.replica,
            count = self.format.membership.voters().len(),
            cluster = self.format.cluster,
            id = self.format.replica.number(),
            clients = self.clients,
            listen = self.listen,
        );
        if let Some(lease) = self.format.membership.lease() {
            write!(
                text,
                "# For how long voters elect nobody else, so that the leader answers reads without asking\n\
                 # them. The same in every directory.\n\
                 lease_ms = {}\n",
                lease.duration().as_millis()
            )
            .expect("writing to a string does not fail");
        }
        push_members(&mut text, &self.format.membership);
        text
    }
}

/// The members, and what is said of them.
fn push_members(text: &mut String, membership: &Membership) {
    if membership.epoch() == Epoch::FIRST {
        text.push_str(
            "\n# Everybody who votes, this replica included: the same list in every directory. `pin` is\n\
             # the SHA-256 of the public key; `address` is where the others reach the member. Changes\n\
             # are made by paxosctl, and remembered in the log: this list stays as it is.\n",
        );
    } else {
        write!(
            text,
            "\n# The members when this replica came, and their number: changes since are in the log, and\n\
             # this list stays as it is. `pin` is the SHA-256 of the public key; `address` is where the\n\
             # others reach the member.\n\
             epoch = {}\n",
            membership.epoch().number()
        )
        .expect("writing to a string does not fail");
    }
    for member in membership.members() {
        let address = member.addresses.first().map_or("", String::as_str);
        write!(
            text,
            "\n[[member]]\nid = {}\naddress = \"{address}\"\npin = \"",
            member.id.number()
        )
        .expect("writing to a string does not fail");
        for byte in member.keys.first().into_iter().flatten() {
            write!(text, "{byte:02x}").expect("writing to a string does not fail");
        }
        text.push_str("\"\n");
        if membership.voter_index(member.id).is_none() {
            text.push_str("observes = true\n");
        }
    }
}
